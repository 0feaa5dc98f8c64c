#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Which test names which rule: prints a table and fails if a rule is named by none.

    tests/rules.py [--quiet]

The rules are those of the virtqueue, of the transports and of the life cycle (VIRTIO 2 to 4), of the devices
that the examples have, and the R- ones of the 2011 RFC; a test names them in a comment, one by one or as "D-PACK-01 to D-PACK-05".
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
    # the transports and the life cycle
    "R": "1-38", "R-AMB": "1-7",
    "L-STATUS": "1-2", "D-STATUS": "1-5", "V-STATUS": "1-4",
    "D-RESET": "1-2", "V-RESET": "1-4", "D-INIT": "1-7", "V-INIT": "1-2",
    "D-CLEAN": "1-2", "L-CLEAN": "3",
    "L-FEAT": "1 7", "D-FEAT": "1-6", "V-FEAT": "1-5", "D-RES": "1-6", "V-RES": "1-4",
    "D-CFG": "1-5", "L-CFG": "6", "V-CFG": "1-4", "D-SUS": "1-3", "V-SUS": "1-5",
    "L-PCI": "1-2", "D-PCI": "1-2", "V-PCI": "1-2", "D-CAP": "1-9", "L-CAP": "10", "V-CAP": "1-4",
    "D-COM": "1-7", "V-COM": "1-8", "L-NTF": "1", "D-NTF": "1-2", "V-NTF": "1-2",
    "L-ISR": "1", "D-ISR": "1-3", "V-ISR": "1-3", "L-MSX": "1", "D-MSX": "1-3", "V-MSX": "1-4",
    "D-PCFG": "1", "V-PCFG": "1-2", "V-SHM": "1-2", "L-SHM": "3", "D-VND": "1", "V-VND": "1",
    "D-PLEG": "1-3 6", "L-PLEG": "4-5", "V-PLEG": "1-3",
    "D-MMIO": "1-11", "L-MMIO": "8", "V-MMIO": "1-7", "D-MLEG": "1-5", "V-MLEG": "1-2",
    "D-LEG": "1-2 4 6-7 9-10", "V-LEG": "1-2 8", "L-LEG": "3 5",
    # the front-ends and the block device
    "D-BLK": "1", "V-BLK": "1", "D-NET": "1", "V-NET": "1", "D-CON": "1-4", "V-CON": "1",
}


def numbers(text):
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def named(text):
    """Rules that a test's text names."""
    for family, first, _, last in re.findall(
            r"\b([DVL]-[A-Z]+|R-AMB|R)-(\d+)(?: to ([DVL]-[A-Z]+|R-AMB|R)-(\d+))?", text):
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
