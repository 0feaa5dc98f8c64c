#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""The bench works, whatever it measures: no figure is judged.

Builds every program and runs each once, briefly, through bench/run.py; each figure must be there, above 0,
and read back; a program that fails or talks nonsense must be told. Instructions must be the same twice.
The programs are clean under ASan and UBSan.
bench/compare must find in two files what differs and nothing else. bench/ringtest.py compares with what a
kernel tree has. Ends "N passed, N failed".
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))

import run as bench  # noqa: E402

FORMATS = ("split", "packed", "split-in-order", "packed-in-order")
results = collections.Counter()


def check(ok, what, detail=""):
    results[bool(ok)] += 1
    if not ok:
        print(f"FAILED: {what}\n{detail}")


def call(*command):
    return subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=600)


def read(path):
    """The rows of a results file by key; a malformed one is a failure of its own."""
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"([a-z]+,[^,\s]+,[A-Za-z]+),([\d.]+),([\d.]+),([\d.]+),(\d+)$", line)
        if match:
            rows[match.group(1)] = [float(value) for value in match.groups()[1:]]
        else:
            check(line.startswith("# "), "a line is neither remark nor figure", line)
    return rows


def expected_rings():
    """What of suite ring is promised, for the library as shipped."""
    for ring in FORMATS:
        for shape in ("direct", "indirect"):
            for descs in (1, 3, 16):
                for event in ("event_idx", "no_event_idx"):
                    for batch in (1, 4, 16, 64):
                        yield f"ring,{ring}/{shape}/{descs}/{event}/batch={batch}"
        yield from (f"ring,{ring}/direct/1/event_idx/size={size}" for size in (16, 256, 32768))
    for ring in ("split", "packed"):
        for variant in ("any", "unchecked", "no-fence", "plain", "no-fence/unchecked", "plain/unchecked"):
            yield f"ring,{ring}/direct/1/event_idx/{variant}/batch=1"


def expected_threads():
    for ring in FORMATS:
        yield from (f"threads,{ring}/{what}" for what in
                    ("throughput/batch=1", "throughput/batch=32", "polled/batch=1", "polled/batch=32", "latency"))


def a_whole_run(folder):
    """Every program once; figures and remarks as promised."""
    done = call("bench/run.py", "--quick", "--passes", 1, "--out", folder, "build/bench/")
    check(done.returncode == 0, "bench/run.py fails", done.stdout + done.stderr)
    latest = folder / "latest.csv"
    if not latest.exists():
        check(False, "no results were written")
        return
    rows, text = read(latest), latest.read_text(encoding="utf-8")
    wanted = list(expected_rings()) + ([] if "# skipped threads" in text else list(expected_threads()))
    missing = [f"{case},{unit}" for case in wanted for unit in ("ns", "x") if f"{case},{unit}" not in rows]
    check(not missing, "figures are missing", "\n".join(missing[:10]))
    check(all(low <= median <= high and runs >= 1 for median, low, high, runs in rows.values()),
          "a figure is outside its range")
    check(all(rows[f"{case},ns"][1] > 0 for case in wanted if f"{case},ns" in rows), "a figure is 0")
    for word in ("date", "commit", "machine", "kernel", "compiler", "passes"):
        check(f"\n# {word} " in f"\n{text}", f"the results do not say the {word}")
    for picture in re.findall(r"^drawn (.*)$", done.stdout, re.M):
        check("</svg>" in pathlib.Path(picture).read_text(encoding="utf-8"), f"{picture} is no picture")
    check("skipped plots" in done.stdout or (folder / "ring-batch.svg").exists(), "no plot and no word of it")
    check(f"skipped {folder}" not in done.stdout, "gnuplot does not like a plot", done.stdout[-2000:])
    same = call("bench/compare", latest, latest)
    check(f"0 changed, {len(rows)} within the noise" in same.stdout, "a file differs from itself", same.stdout)


def sanitized():
    """The programs touch nothing that is not theirs."""
    build = "build/check/bench"
    programs = [f"{build}/bench/{name}" for name in
                ("ring-split", "ring-packed", "ring-packed-in-order", "threads-split-in-order", "threads-packed")]
    done = call("make", "-s", "CC=clang", f"BUILD={build}", *programs,
                "CFLAGS=-O1 -g -Werror -fsanitize=address,undefined -fno-sanitize-recover=all")
    check(done.returncode == 0, "the sanitized programs do not build", done.stderr)
    for program in programs if done.returncode == 0 else ():
        done = call(program, "--quick")
        check(done.returncode == 0, f"{program} fails", done.stderr)


def failing_programs():
    """What run.py says of programs that do not do what they should."""
    for script, why in (("echo ring,a,ns", "no figure in"), ("echo 'ring,a b,ns,1'", "no figure in"),
                        ("echo ring,a,ns,nan", "no figure in"), ("echo broken >&2; exit 1", "broken"),
                        ("exit 3", "exit status 3")):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "program"
            program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            program.chmod(0o755)
            try:
                bench.execute(bench.Program(str(program)), quick=False)
                check(False, f"run.py accepts a program that does: {script}")
            except bench.Failed as error:
                check(why in str(error), f"run.py misses why: {script}", str(error))


def instructions_repeat():
    """Counting twice gives the same, ring and access."""
    first, second = (call("bench/count.sh", "--csv", "kick") for _ in range(2))
    lines = first.stdout.splitlines()
    check(first.returncode == 0 and {line.split(",")[0] for line in lines} == {"ring", "access"},
          "instructions are not counted", first.stdout + first.stderr)
    check(first.stdout == second.stdout, "two counts differ", first.stdout + second.stdout)
    for line in lines:
        check(bench.LINE.match(line), "a count is no figure", line)


# In place of the kernel's: `ring` takes 200 ns an operation, one does not build.
MAKEFILE = """ring virtio_ring_0_9 virtio_ring_inorder virtio_ring_poll noring:
	printf '#!/bin/sh\\n[ $$6 = 1 ] || sleep 0.2\\n' >$@
	chmod +x $@
"""


def ringtest(folder):
    """What bench/ringtest.py makes of a tree that is none, of programs whose time is known, and of one that fails."""
    programs = folder / "tools" / "virtio" / "ringtest"
    programs.mkdir(parents=True)
    command = ("bench/ringtest.py", "--tree", folder, "--quick", "--passes", 1)
    done = call(*command)
    check(done.returncode == 77 and "apt-get download" in done.stdout, "a missing ringtest is not told", done.stdout)
    (programs / "main.c").touch()
    (programs / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    done = call(*command)
    if done.returncode == 77:
        return
    time = re.search(r"^ringtest ring +(\d+)", done.stdout, re.M)
    check(time and 150 < int(time.group(1)) < 400, "the time of an operation is wrong", done.stdout + done.stderr)
    check("skipped ptr_ring" in done.stdout and "ringtest ptr_ring" not in done.stdout,
          "a program that does not build is not told", done.stdout)
    check(len(re.findall(r"^(?:split|packed).* of ringtest .*", done.stdout, re.M)) == 5, "ratios are missing",
          done.stdout)
    (programs / "Makefile").write_text(MAKEFILE.replace("0.2", "0.2; exit 3"), encoding="utf-8")
    done = call(*command)
    check(done.returncode == 1 and "exit status" in done.stderr, "a ringtest that fails is not told", done.stderr)


BEFORE = """# before
ring,same,ns,10.0,9.0,11.0,5
ring,slower,ns,10.0,9.0,11.0,5
ring,faster,ns,10.0,9.0,11.0,5
ring,touching,ns,10.0,9.0,11.0,5
access,count,instructions,5.00,5.00,5.00,2
ring,gone,ns,1.0,1.0,1.0,5
"""
AFTER = """# after
ring,same,ns,10.9,10.0,12.0,5
ring,slower,ns,15.0,11.1,16.0,5
ring,faster,ns,5.0,4.0,8.9,5
ring,touching,ns,12.0,11.0,13.0,5
access,count,instructions,6.00,6.00,6.00,2
ring,new,ns,1.0,1.0,1.0,5
"""


def comparison(folder):
    before, after, broken = folder / "before.csv", folder / "after.csv", folder / "broken.csv"
    before.write_text(BEFORE, encoding="utf-8")
    after.write_text(AFTER, encoding="utf-8")
    broken.write_text("ring,same,ns,10.0\n", encoding="utf-8")
    done = call("bench/compare", before, after)
    lines = [re.sub(r"\s+", " ", line) for line in done.stdout.splitlines()]
    check(done.returncode == 0, "compare fails when there are changes", done.stderr)
    for start, ratio in (("ring slower ns", "x 1.50"), ("ring faster ns", "x 0.50"),
                         ("access count instructions", "x 1.20")):
        check(any(line.startswith(start) and ratio in line for line in lines), f"not shown: {start}", done.stdout)
    check(f"only in {before}: ring gone ns" in lines, "not shown: what is gone", done.stdout)
    check(f"only in {after}: ring new ns" in lines, "not shown: what is new", done.stdout)
    check(lines[-1:] == ["3 changed, 2 within the noise"] and len(lines) == 6, "too much or too little",
          done.stdout)
    check(call("bench/compare", before, broken).returncode == 2, "a malformed file is accepted")
    check(call("bench/compare", before, folder / "none.csv").returncode == 2, "a missing file is accepted")
    check("B.csv" in call("bench/compare", "--help").stdout, "compare --help says nothing")


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        comparison(folder)
        failing_programs()
        sanitized()
        a_whole_run(folder)
        ringtest(folder / "linux")
        instructions_repeat()
    print(f"{results[True]} passed, {results[False]} failed")
    return 1 if results[False] else 0


if __name__ == "__main__":
    sys.exit(main())
