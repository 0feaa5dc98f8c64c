#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Judges the differences between QEMU's registers and the model's.

    tests/trace.py path/to/trace [--update]

Runs the program. What it prints must be tests/peers/differences.txt to the letter: each answer that differs,
with both values (--update writes that file anew, for a look at the change). Each line must fit one row of
docs/register-traces.md, which explains it, and a row must have as many as it says. Ends "N passed, N failed";
a row is a test, and so are the run and the list.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
TABLE = ROOT / "docs" / "register-traces.md"
LIST = ROOT / "tests" / "peers" / "differences.txt"


def rows():
    """Pattern and number of differences of each row."""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| `(.*?)` \| (\d+) \|", line)
        if row:
            yield row[1].replace("\\|", "|"), int(row[2])


def changes(lines):
    """What differs today and is not in the list, and the other way round."""
    known = LIST.read_text(encoding="utf-8").splitlines()
    return [f"not in the list: {line}" for line in lines if line not in set(known)] + [
        f"no difference any more: {line}" for line in known if line not in set(lines)]


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--update"]):
        sys.exit(__doc__)
    run = subprocess.run(sys.argv[1:2], capture_output=True, text=True, timeout=300, check=False)
    problems = [] if run.returncode == 0 else [f"status {run.returncode}: {run.stderr}"]
    if sys.argv[2:] and not problems:
        LIST.write_text(run.stdout, encoding="utf-8")
    changed = changes(run.stdout.splitlines())
    expected, found = dict(rows()), {}
    for line in run.stdout.splitlines():
        fitting = [pattern for pattern in expected if re.fullmatch(pattern, line.split("\t")[1])]
        if len(fitting) != 1:
            problems.append(f"{len(fitting)} rows for: {line}")
        for pattern in fitting:
            found[pattern] = found.get(pattern, 0) + 1
    wrong = [f"{found.get(p, 0)} differences, not {n}: {p}"
             for p, n in expected.items() if found.get(p, 0) != n]
    print(run.stderr, end="")
    for complaint in problems + changed + wrong:
        print(complaint)
    failed = len(wrong) + (len(problems) != 0) + (len(changed) != 0)
    print(f"{len(expected) + 2 - failed} passed, {failed} failed")
    return failed != 0 or not expected


if __name__ == "__main__":
    sys.exit(main())
