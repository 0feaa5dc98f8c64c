#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Builds the programs of the bench and runs them in turns, several times.

Each prints `suite,case,unit,value` lines. What comes out of all passes is shown as a table and written to
bench/results/DATE.csv (and latest.csv) as `suite,case,unit,median,min,max,runs`, after '#' lines that say
on what machine and with what; and drawn, where there is gnuplot. bench/compare compares two such files.
Timings depend on what else the machine does: look at the spread, and compare within a run.
"""

import argparse
import collections
import datetime
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time

from plots import plot

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 300  # for one run of a program

# What is run. Those in build/bench are made first (bench.mk). `most` is how often at most, where one run
# says as much as many.
Program = collections.namedtuple("Program", "command options most", defaults=(("--quick",), None))
PROGRAMS = (
    Program("build/bench/ring-split"),
    Program("build/bench/ring-packed"),
    Program("build/bench/ring-split-in-order"),
    Program("build/bench/ring-packed-in-order"),
    Program("build/bench/ring-split-any"),
    Program("build/bench/ring-packed-any"),
    Program("build/bench/ring-split-no-fence"),
    Program("build/bench/ring-packed-no-fence"),
    Program("build/bench/ring-split-plain"),
    Program("build/bench/ring-packed-plain"),
    Program("build/bench/threads-split"),
    Program("build/bench/threads-packed"),
    Program("build/bench/threads-split-in-order"),
    Program("build/bench/threads-packed-in-order"),
    Program("build/bench/notify"),
    Program("bench/tcg.py", most=3),
    Program("bench/count.sh --csv", options=(), most=2),
)

# What x is a multiple of, where a figure in ns has one.
LIMITS = {
    "ring": "of the ideal ring",
    "threads": "of the ideal ring",
    "notify": "of pio/ioeventfd, tcg: of an empty loop",
    "irq": "of pio/ioeventfd, tcg: of an empty loop",
    "access": "of an empty loop",
}

LINE = re.compile(r"([a-z]+),([^,\s]+),([A-Za-z]+),(-?\d+(?:\.\d+)?)$")
Figure = collections.namedtuple("Figure", "median low high runs")


class Failed(Exception):
    """A program that did not do what it should; says which and why."""


def parse(line):
    """The key (suite, case, unit) and the value of a program's line."""
    match = LINE.match(line)
    if not match:
        raise ValueError(f'no figure in "{line}"')
    return match.group(1, 2, 3), float(match.group(4))


def execute(program, quick):
    """One run: the figures and the remarks."""
    command = program.command.split() + (list(program.options) if quick else [])
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{program.command}: {error}") from error
    if done.returncode != 0:
        raise Failed(f"{program.command}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    figures, remarks = [], []
    for line in filter(None, done.stdout.splitlines()):
        if line.startswith("#"):
            remarks.append(line)
            continue
        try:
            figures.append(parse(line))
        except ValueError as error:
            raise Failed(f"{program.command}: {error}") from error
    return figures, remarks


def first_line(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines()[0].strip() if done.stdout else "unknown"


def cpu_model():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    match = re.search(r"^(?:model name|Model|uarch)\s*:\s*(.*)$", text, re.M)
    guest = ", in a virtual machine" if re.search(r"^flags.*\bhypervisor\b", text, re.M) else ""
    return (match.group(1) if match else platform.machine()) + guest


def environment(passes, quick):
    """What a reader of the figures must know, as remarks."""
    return [
        f"# date {datetime.datetime.now().astimezone().isoformat(timespec='seconds')}",
        f"# commit {first_line(['git', 'describe', '--always', '--dirty'])}",
        f"# machine {platform.machine()}, {os.cpu_count()} CPUs, {cpu_model()}",
        f"# kernel {platform.system()} {platform.release()}",
        f"# load {' '.join(f'{load:.1f}' for load in os.getloadavg())} at the start",
        f"# passes {passes}{', quick' if quick else ''}",
    ]


class Progress:
    """One line on a terminal, rewritten; else a line for each pass."""

    def __init__(self, total):
        self.start, self.total, self.done, self.shown = time.monotonic(), total, 0, None
        self.terminal = sys.stderr.isatty()

    def step(self, turn, passes, what):
        spent = time.monotonic() - self.start
        left = f", about {spent / self.done * (self.total - self.done):.0f} s left" if self.done else ""
        text = f"pass {turn} of {passes}, {self.done} of {self.total} runs done{left}"
        if self.terminal:
            print(f"\r\033[K{text}: {what}", end="", file=sys.stderr, flush=True)
        elif self.shown != turn:
            print(text, file=sys.stderr, flush=True)
        self.shown, self.done = turn, self.done + 1

    def end(self):
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr)
        print(f"{self.done} runs in {time.monotonic() - self.start:.0f} s", file=sys.stderr)


def measure(programs, passes, quick):
    """All passes: values of each figure, remarks in the order of their first appearance, and failures."""
    values, remarks, failures = collections.defaultdict(list), {}, []
    most = [min(passes, 1 if quick and program.most else program.most or passes) for program in programs]
    progress = Progress(sum(most))
    for turn in range(1, passes + 1):
        for program, times in zip(programs, most):
            if turn > times or program in failures:
                continue
            progress.step(turn, passes, program.command)
            try:
                figures, said = execute(program, quick)
            except Failed as error:
                print(f"\nbench: {error}", file=sys.stderr)
                failures.append(program)
                continue
            remarks.update(dict.fromkeys(said))
            for key, value in figures:
                values[key].append(value)
    progress.end()
    return values, list(remarks), failures


def summary(values):
    return {
        key: Figure(statistics.median(each), min(each), max(each), len(each)) for key, each in values.items()
    }


def natural(case):
    """Order of cases: word by word, numbers by value."""
    return [[int(part) if part.isdigit() else -1, part] for part in re.split(r"[/=]", case)]


def cell(figures, suite, case, unit):
    """The median, and behind a time its multiple of the limit, if there is one."""
    figure, ratio = figures.get((suite, case, unit)), figures.get((suite, case, "x"))
    if figure is None:
        return ""
    text = f"{figure.median:.0f}" if unit == "instructions" else f"{figure.median:.1f}"
    return text + (f" ({ratio.median:.1f}x)" if ratio and unit == "ns" else "")


def spread(figures, suite, cases, unit):
    """How far apart the runs of a row are, at worst, in percent of the median."""
    each = [figures[suite, case, unit] for case in cases if (suite, case, unit) in figures]
    return max((f.high - f.low) / f.median if f.median else 0 for f in each)


def blocks(figures):
    """Rows that share a unit and the parameter that varies along the columns: (suite, unit, name of the
    parameter or none) to {row: {column: case}}."""
    found = collections.defaultdict(lambda: collections.defaultdict(dict))
    for suite, case, unit in figures:
        if unit == "x" and (suite, case, "ns") in figures:
            continue
        row, _, last = case.rpartition("/")
        name, equals, _ = last.partition("=")
        if equals:
            found[suite, unit, name][row][last] = case
        else:
            found[suite, unit, ""][case][""] = case
    return found


def table(figures, suite, unit, rows):
    """Lines of text, a row each, with the worst spread of its runs at the end."""
    columns = sorted({column for row in rows.values() for column in row}, key=natural)
    texts = {row: [cell(figures, suite, cases.get(column, ""), unit) for column in columns]
             for row, cases in rows.items()}
    first = max(len(row) for row in rows)
    width = max(map(len, [*columns, *(text for row in texts.values() for text in row)])) + 2
    yield " " * first + "".join(f"{column:>{width}}" for column in columns) + "  spread"
    for row in sorted(rows, key=natural):
        percent = 100 * spread(figures, suite, rows[row].values(), unit)
        worst = f"{percent:.0f}%" if percent < 1000 else "wild"
        yield f"{row:{first}}" + "".join(f"{text:>{width}}" for text in texts[row]) + f"{worst:>8}"


def show(figures):
    for (suite, unit, _), rows in blocks(figures).items():
        print(f"\n{suite}, {unit}" + (f" (multiple {LIMITS[suite]})" if unit == "ns" and suite in LIMITS else ""))
        print("\n".join(table(figures, suite, unit, rows)))


def write(path, remarks, figures):
    with open(path, "w", encoding="utf-8") as out:
        print("\n".join(remarks), file=out)
        for key, figure in figures.items():
            print(",".join(key), *(f"{value:.3f}" for value in figure[:3]), figure.runs, sep=",", file=out)


def build(programs):
    targets = [program.command for program in programs if program.command.startswith("build/bench/")]
    jobs = f"-j{len(os.sched_getaffinity(0))}"
    if targets and subprocess.run(["make", "-s", jobs, *targets], cwd=ROOT).returncode != 0:
        sys.exit("bench: the programs do not build")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs and fewer of them")
    parser.add_argument("--passes", type=int, help="how often each is run: 5, quick 3")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results",
                        help="where results go (bench/results)")
    parser.add_argument("word", nargs="*", help="only programs whose command has one of these in it")
    options = parser.parse_args()
    options.passes = options.passes or (3 if options.quick else 5)
    if options.passes < 1:
        parser.error("--passes is at least 1")
    return options


def main():
    options = arguments()
    programs = [program for program in PROGRAMS
                if not options.word or any(word in program.command for word in options.word)]
    if not programs:
        sys.exit("bench: no program of that name")
    build(programs)
    remarks = environment(options.passes, options.quick)
    values, said, failures = measure(programs, options.passes, options.quick)
    figures, remarks = summary(values), remarks + said
    print("\n".join(remarks))
    show(figures)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S.csv")
    write(path, remarks, figures)
    shutil.copyfile(path, options.out / "latest.csv")
    print(f"\nwritten to {path}")
    for line in plot(figures, options.out):
        print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
