#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""What kicks, acknowledgements and configuration reads take on machines that QEMU translates (TCG).

Runs the bare-metal program "bench" on boards and transports, each with a real virtio-blk of QEMU, and
prints lines `suite,case,unit,value`: ns, and x as a multiple of the empty loop of the same run, which has
an indirect call. A kick is served by the thread that sends it, as without ioeventfd; kick/ioeventfd, of PCI,
wakes QEMU's main thread instead. Exit status 1: a run failed.
"""

import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples" / "boards" / "host"))

from machine import BOARDS, MMIO, Failed, Skipped  # noqa: E402
from run import image, run  # noqa: E402

USUAL = ("q35", "microvm", "pc", "aarch64-virt")
QUICK = ("q35", "microvm")


def figures(board, transport, *properties):
    """What one run printed: nanoseconds of each suite/name."""
    found = {}

    def show(text):
        took = re.match(r"  took +(\S+) (\S+) ns$", text)
        if took:
            found[took[1]] = float(took[2])

    run(board, "bench", transport, properties, show)
    return found


def show(board, transport, what, loop):
    """Prints the lines of a run."""
    for name, ns in what.items():
        suite, case = name.split("/", 1)
        print(f"{suite},tcg/{board}/{transport}/{case},ns,{ns}")
        print(f"{suite},tcg/{board}/{transport}/{case},x,{ns / loop:.2f}", flush=True)


def measure(board, transport):
    """Runs a board on a transport."""
    synchronous = () if transport in MMIO else ("ioeventfd=off",)
    what = figures(board, transport, *synchronous)
    show(board, transport, what, what["notify/loop"])
    if synchronous:
        what = figures(board, transport)
        show(board, transport, {"notify/kick/ioeventfd": what["notify/kick"]}, what["notify/loop"])


def build(board):
    """Makes the image. Skipped if that is not possible here."""
    made = subprocess.run(["make", "-s", image(board, "bench")], cwd=ROOT, capture_output=True, text=True)
    if made.returncode != 0:
        raise Skipped(f"its image cannot be built: {made.stderr.strip().splitlines()[-1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--board", action="append", choices=BOARDS, help=f"default: {', '.join(USUAL)}")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    options = parser.parse_args()
    status = 0
    for board in options.board or (QUICK if options.quick else USUAL):
        try:
            build(board)
            for transport in BOARDS[board].transports:
                measure(board, transport)
        except Skipped as why:
            print(f"# skipped tcg/{board}: {why}")
        except Failed as why:
            print(f"tcg.py: {board}: {why}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
