#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Judges the differences between QEMU's registers and the model's by the table that explains them.

    tests/trace.py path/to/trace

Runs the program and holds each line it prints against docs/register-traces.md: it must fit one row, and a
row must have as many as it says. Ends "N passed, N failed"; a row is a test, and so is the run.
"""
import pathlib
import re
import subprocess
import sys

TABLE = pathlib.Path(__file__).parent.parent / "docs" / "register-traces.md"


def rows():
    """Pattern and number of differences of each row."""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| `(.*?)` \| (\d+) \|", line)
        if row:
            yield row[1].replace("\\|", "|"), int(row[2])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run = subprocess.run(sys.argv[1:], capture_output=True, text=True, timeout=300, check=False)
    problems = [] if run.returncode == 0 else [f"status {run.returncode}: {run.stderr}"]
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
    print("\n".join(problems + wrong), end="\n" if problems + wrong else "")
    failed = len(wrong) + (len(problems) != 0)
    print(f"{len(expected) + 1 - failed} passed, {failed} failed")
    return failed != 0 or not expected


if __name__ == "__main__":
    sys.exit(main())
