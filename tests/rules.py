#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Which test names which rule of the ring and of the device side: prints a table and fails if a rule is named by none.

    tests/rules.py [--quiet]

The rules are those of the virtqueue (VIRTIO 2.6 to 2.10) and what a device shows of the rest (2.1 to 2.5,
4.1, 4.2); a test names them in the comment that it
begins with, one by one or as "D-PACK-01 to D-PACK-05".
"""
import pathlib
import re
import sys

RULES = {
    "L-VQ": "1-4", "D-VQ": "1-3", "V-VQ": "1-3",
    "L-SPLIT": "1-5", "D-SPLIT": "1-13", "V-SPLIT": "1-7",
    "D-EVT": "1-4 7", "V-EVT": "1-4", "L-EVT": "5 6 8",
    "D-IND": "1-9", "V-IND": "1-4",
    "L-PACK": "1-5", "D-PACK": "1-15", "V-PACK": "1-9",
    "L-PEVT": "1-3", "D-PEVT": "1-3", "V-PEVT": "1",
    "L-INO": "1", "V-INO": "1-3", "D-INO": "1-4",
    "L-NOTE": "1-4", "D-NOTE": "1-3", "V-NOTE": "1",
    "D-RR": "1-4", "V-RR": "1-4",
    # device side
    "L-STATUS": "1-2", "V-STATUS": "1-4", "V-RESET": "1-4", "V-INIT": "1-2", "L-CLEAN": "3",
    "L-FEAT": "7", "V-FEAT": "1-5", "V-RES": "2-4", "L-CFG": "6", "V-CFG": "1-4", "V-SUS": "1-5",
    "V-COM": "1-8", "L-NTF": "1", "V-NTF": "1-2", "L-ISR": "1", "V-ISR": "1-3", "L-MSX": "1",
    "V-MSX": "2-4", "V-PCFG": "1-2", "L-SHM": "3", "V-PLEG": "1-2", "L-PLEG": "4-5",
    "V-MMIO": "1-7", "L-MMIO": "8", "V-MLEG": "1-2", "V-LEG": "1-2 8", "L-LEG": "3 5",
    "R": "19-24 27-31", "R-AMB": "4-6",
}


def numbers(text):
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def named(text):
    """Rules that a test's text names."""
    for family, first, _, last in re.findall(
            r"\b([DVLR]-[A-Z]+|R)-(\d+)(?: to ([DVLR]-[A-Z]+|R)-(\d+))?", text):
        yield from ((family, n) for n in range(int(first), int(last or first) + 1))


def tests():
    """Each test of each suite with its text; what stands before a test belongs to it."""
    for path in sorted(pathlib.Path(__file__).parent.glob("*_test.c")):
        parts = re.split(r"^(?:Test\((\w+), (\w+)\)|BOTH\(.*\))", path.read_text(encoding="utf-8"),
                         flags=re.M)
        for i in range(1, len(parts), 3):
            yield f"{parts[i]}::{parts[i + 1]}" if parts[i] else path.stem, parts[i + 2]


def main():
    if sys.argv[1:] not in ([], ["--quiet"]):
        sys.exit(__doc__)
    where = {}
    for name, text in tests():
        for rule in named(text):
            where.setdefault(rule, []).append(name)
    passed = failed = 0
    for family, text in RULES.items():
        for number in numbers(text):
            found = where.get((family, number), [])
            passed, failed = passed + bool(found), failed + (not found)
            if not found or "--quiet" not in sys.argv:
                print(f"{family}-{number:02}  {', '.join(sorted(set(found))) or 'NO TEST'}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
