#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Runs the bare-metal programs: board x transport x ring format x device, and what goes wrong.

A line for each run, with what was found true from the host side or why it failed, then a table. Ends
"N passed, N failed"; what is not possible here is skipped, with the reason. Exit status 0: nothing failed.
"""

import argparse
import collections
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "examples" / "boards" / "host"))

from judges import RUNS  # noqa: E402
from machine import BOARDS, MMIO, Failed, Skipped  # noqa: E402
from run import image, run  # noqa: E402

DEVICES = ("blk", "rng", "net", "console")

# What is run, and on what.
Case = collections.namedtuple("Case", "board transport ring device properties")


def case(board, transport, ring, device, *properties):
    """With the property that makes the ring what it is to be."""
    packed = "on" if ring == "packed" else "off"
    return Case(board, transport, ring, device, (f"packed={packed}", *properties))


def rings(transport):
    return ("split",) if transport in ("pci-legacy", "virtio-mmio-v1") else ("split", "packed")


def matrix():
    """Each board, transport, ring and device."""
    for board, about in BOARDS.items():
        for transport in about.transports:
            for ring in rings(transport):
                for device in DEVICES:
                    yield case(board, transport, ring, device)


def features():
    """Without event index, tables and MSI-X, once on each kind of transport and of interrupt."""
    for board, transport in (
        ("q35", "pci-modern"),
        ("pc", "pci-legacy"),
        ("microvm", "virtio-mmio"),
        ("aarch64-virt", "pci-modern"),
        ("riscv64-virt", "virtio-mmio-v1"),
        ("malta", "pci-legacy"),
    ):
        lines = [] if transport in MMIO else ["vectors=0"]
        for ring in rings(transport):
            for device in DEVICES:
                yield case(board, transport, ring, device, "event_idx=off", "indirect_desc=off", *lines)
    for device in DEVICES:  # a slot whose line the board q35 does not know: polled
        yield case("q35", "pci-modern", "split", device, "addr=0x1c", "vectors=0")


def others():
    """The drivers under an RTOS, in the bench and before other judges, and what goes wrong."""
    for board, about in BOARDS.items():
        for device in ("rtos", "bench"):
            yield case(board, about.transports[0], "split", device)
        if "virtio-mmio" in about.transports and about.folder != "x86":  # it uses ports as well
            for ring in rings("virtio-mmio"):
                yield case(board, "virtio-mmio", ring, "mmio")
    for board in ("q35", "microvm", "aarch64-virt", "malta"):
        transport = BOARDS[board].transports[0]
        for device in ("net-user", "console-plain", "no-device", "other-device", "net-down", "shrink"):
            yield case(board, transport, "split", device)
    for transport in BOARDS["pc"].transports:
        yield case("pc", transport, "split", "unplug")


def quick():
    """Everything once, and each board."""
    yield case("q35", "pci-modern", "packed", "blk")
    yield case("q35", "pci-legacy", "split", "net", "vectors=0")
    yield case("q35", "pci-modern", "split", "console")
    yield case("pc", "pci-modern-pio", "split", "rng", "vectors=0")
    yield case("pc", "pci-modern", "split", "unplug")
    yield case("pc", "pci-legacy", "split", "rtos")
    yield case("microvm", "virtio-mmio", "packed", "net")
    yield case("microvm", "virtio-mmio-v1", "split", "no-device")
    yield case("aarch64-virt", "virtio-mmio", "split", "rtos")
    yield case("aarch64-virt", "pci-modern", "packed", "console")
    yield case("aarch64-virt", "pci-modern", "split", "net-user")
    yield case("arm-virt", "pci-modern", "packed", "blk", "vectors=0")
    yield case("arm-virt", "virtio-mmio-v1", "split", "net-down")
    yield case("riscv64-virt", "virtio-mmio", "packed", "rng")
    yield case("riscv64-virt", "virtio-mmio", "split", "mmio")
    yield case("riscv64-virt", "pci-legacy", "split", "other-device")
    yield case("malta", "pci-legacy", "split", "blk")
    yield case("malta", "pci-legacy", "split", "net")
    yield case("malta", "pci-modern", "packed", "console-plain")
    yield case("malta", "pci-modern", "split", "shrink")


def attempt(what):
    """Result and text of one run."""
    transcript = []
    try:
        text = run(what.board, what.device, what.transport, what.properties, transcript.append)
        return "ok", text
    except Skipped as why:
        return "skipped", str(why)
    except Failed as why:
        return "FAILED", "\n          ".join([str(why), *transcript[-30:]])


def attempt_all(cases):
    results = {}
    for number, what in enumerate(cases, 1):
        begin = time.monotonic()
        result, text = attempt(what)
        results[what] = result
        title = " ".join([what.board, what.transport, what.device, *what.properties])
        seconds = f"{time.monotonic() - begin:.0f} s"
        print(f"  {result:7} {number}/{len(cases)} {title}, {seconds}: {text}", flush=True)
    return results


def cell(results, row, device):
    """The worst of the results that belong there."""
    found = {result for what, result in results.items() if (*what[:3], what.device) == (*row, device)}
    return next((result for result in ("FAILED", "skipped", "ok") if result in found), "")


def show_table(results):
    """A row for each board, transport and ring, a column for each device."""
    devices = [device for device in RUNS if any(what.device == device for what in results)]
    print(f"\n{'board':13} {'transport':15} {'ring':7}", *devices)
    for row in sorted({what[:3] for what in results}):
        cells = (cell(results, row, device).ljust(len(device)) for device in devices)
        print(f"{row[0]:13} {row[1]:15} {row[2]:7}", *cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="everything once, in two minutes")
    parser.add_argument("--board", choices=BOARDS, help="only the runs of this board")
    parser.add_argument("--images", action="store_true", help="only print which images that needs")
    options = parser.parse_args()
    cases = list(quick()) if options.quick else [*matrix(), *features(), *others()]
    cases = [what for what in cases if options.board in (None, what.board)]
    if options.images:
        print(*sorted({image(what.board, what.device) for what in cases}))
        return 0
    results = attempt_all(cases)
    show_table(results)
    counts = collections.Counter(results.values())
    if counts["skipped"]:
        print(f"{counts['skipped']} skipped")
    print(f"{counts['ok']} passed, {counts['FAILED']} failed")
    return 0 if counts["ok"] and not counts["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
