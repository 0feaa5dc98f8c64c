#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Runs a bare-metal image on a machine of QEMU and judges from the host side what it did.

The transcript is the image's console; the last line says what the judge found. Exit status: 0 passed,
1 failed, 2 wrong arguments, 77 not possible here.
"""

import argparse
import pathlib
import re
import sys
import tempfile

from judges import RUNS
from machine import BOARDS, Failed, Front, Machine, Skipped

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent


def check_line(text, transport):
    """Fails an image that took another transport, or whose interrupt is connected and never came."""
    found = re.match(r".*, .* on ((?:pci|virtio)-\S+)$", text)
    if found and found[1] != transport:
        raise Failed(f"the device was found on {found[1]}")
    if text.startswith("  interrupts 0,"):
        raise Failed("no interrupt arrived")


def image(board, device):
    """The image of a run, as a target of make."""
    return f"build/boards/{BOARDS[board].folder}/{RUNS[device][1]}.elf"


def run(board, device, transport, properties=(), show=print):
    """One run: what the judge found true. Failed or Skipped otherwise."""
    with tempfile.TemporaryDirectory() as directory:
        front = Front(board, transport, properties)
        judge = RUNS[device][0](directory, front)
        arguments = front.globals() + judge.arguments()
        machine = Machine(board, str(ROOT / image(board, device)), directory, arguments)
        try:
            judge.started(machine)
            for text in machine.lines(judge.seconds):
                show(text)
                check_line(text, transport)
                judge.line(machine, text)
            status = machine.process.wait(timeout=5)
        finally:
            machine.stop()
        if judge.failure:
            raise Failed(judge.failure)
        ended = BOARDS[board].status
        if ended is not None and ended(status) != judge.status:
            raise Failed(f"the image ended with status {ended(status)}, QEMU with {status}")
        return judge.ended()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--board", required=True, choices=BOARDS)
    parser.add_argument("--device", required=True, choices=RUNS)
    parser.add_argument("--transport", help="default: the board's usual one")
    parser.add_argument("--property", action="append", default=[], help="of the device, as packed=on")
    parser.add_argument("--image", action="store_true", help="only print which image that needs")
    options = parser.parse_args()
    transports = BOARDS[options.board].transports
    transport = options.transport or transports[0]
    if transport not in transports:
        parser.error(f"{options.board} has {', '.join(transports)}")
    if options.image:
        print(image(options.board, options.device))
        return 0
    try:
        print("judge:", run(options.board, options.device, transport, options.property))
        return 0
    except Skipped as why:
        print("skipped:", why)
        return 77
    except Failed as why:
        print("judge: FAILED:", why)
        return 1


if __name__ == "__main__":
    sys.exit(main())
