# SPDX-License-Identifier: MIT-0
"""Draws the figures of a run with gnuplot: curves over batch and queue size, bars where there is no order."""

import re
import shutil
import subprocess

STYLE = """set terminal svg size 1000,{height} noenhanced font 'sans-serif,13' background rgb 'white'
set output '{path}'
set title '{title}'
set grid lt 1 lc rgb '#e0e0e0'
"""

# Curves: file, title, what the axis is, and which cases are points on it: the first group names the curve.
ONE_THREAD = "Round trip of {} in one thread: ns a buffer"
CURVES = (
    ("ring-batch", ONE_THREAD.format("one descriptor"), "batch",
     r"((?:split|packed)[a-z-]*/direct/1/event_idx(?:/unchecked)?)/batch=(\d+)$"),
    ("ring-chain", ONE_THREAD.format("16 descriptors"), "batch",
     r"((?:split|packed)(?:-in-order)?/(?:in)?direct/16/event_idx)/batch=(\d+)$"),
    ("ring-size", ONE_THREAD.format("one descriptor"), "queue size",
     r"((?:split|packed)[a-z-]*/direct/1/event_idx)/size=(\d+)$"),
)
# Bars: file, title, and which of suite/case; the groups name the bar, if there are any.
BARS = (
    ("ring-price", "One descriptor, batches of 16, without this and that: ns a buffer",
     r"ring/(split|packed)/direct/1/event_idx\b(.*)/batch=16$"),
    ("threads", "Two pinned threads: ns", "threads/"),
    ("notify-kvm", "Notifications from a guest of /dev/kvm: ns", "notify/kvm/"),
    ("notify-tcg", "Notifications under translation by QEMU: ns", "notify/tcg/"),
    ("irq", "Interrupts: ns", "irq/"),
)


def curve_points(figures, pattern):
    """Points of each curve: (x, median, min, max)."""
    curves = {}
    for (_, case, unit), figure in figures.items():
        match = re.match(pattern, case)
        if match and unit == "ns":
            curves.setdefault(match.group(1), []).append((int(match.group(2)), *figure[:3]))
    return curves


def data(name, rows):
    return f"${name} << END\n" + "\n".join(" ".join(map(str, row)) for row in rows) + "\nEND\n"


def curves_script(title, axis, path, curves):
    names = [f"c{i}" for i in range(len(curves))]
    script = STYLE.format(path=path, title=title, height=500)
    script += f"set logscale x 2\nset xlabel '{axis}'\nset yrange [0:*]\nset key outside right top\n"
    script += "".join(data(name, sorted(rows)) for name, rows in zip(names, curves.values()))
    return script + "plot " + ", ".join(
        f"${name} using 1:2:3:4 with yerrorlines title '{curve}'" for name, curve in zip(names, curves))


def bars_script(title, path, bars):
    """Horizontal bars, the first on top, with the range of the runs; a logarithmic axis for a wide range."""
    lowest, highest = min(figure.low for _, figure in bars), max(figure.high for _, figure in bars)
    wide = 0 < 50 * lowest < highest
    left = lowest / 2 if wide else 0
    rows = [(i, *figure[:3]) for i, (_, figure) in enumerate(bars)]
    tics = ", ".join(f"'{case}' {i}" for i, (case, _) in enumerate(bars))
    script = STYLE.format(path=path, title=title, height=120 + 24 * len(bars))
    script += f"set ytics ({tics})\nset yrange [{len(bars) - 0.5}:-0.5]\nunset key\n"
    script += "set logscale x\n" if wide else ""
    script += f"set xrange [{left}:{highest * (4 if wide else 1.15)}]\n"
    script += "set style fill solid 0.6\n" + data("bars", rows)
    return script + (f"plot $bars using 2:1:({left}):2:($1-0.35):($1+0.35) with boxxyerror lc rgb '#4878a8', "
                     "$bars using 2:1:3:4 with xerrorbars pt 0 lc rgb 'black', "
                     "$bars using 4:1:(sprintf('  %.1f', $2)) with labels left")


def scripts(figures, folder):
    """The path of each picture that there are figures for, and gnuplot's script of it."""
    for name, title, axis, pattern in CURVES:
        curves, path = curve_points(figures, pattern), folder / f"{name}.svg"
        if curves:
            yield path, curves_script(title, axis, path, curves)
    for name, title, pattern in BARS:
        bars, path = [], folder / f"{name}.svg"
        for (suite, case, unit), figure in figures.items():
            match = re.match(pattern, f"{suite}/{case}")
            if match and unit == "ns":
                bars.append(("".join(match.groups()) or case, figure))
        if bars:
            yield path, bars_script(title, path, sorted(bars))


def plot(figures, folder):
    """Draws what there is to draw; yields a line to print for each picture, or why there is none."""
    if not shutil.which("gnuplot"):
        yield "# skipped plots: no gnuplot"
        return
    for path, script in scripts(figures, folder):
        done = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True)
        yield f"drawn {path}" if done.returncode == 0 else f"# skipped {path}: {done.stderr.strip()}"
