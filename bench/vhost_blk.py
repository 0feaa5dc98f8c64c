#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Requests a second of vhost-blk and of qemu-storage-daemon, under one driver and on the same CPUs.

Usage: vhost_blk.py [--quick] [--rounds N] [--seconds N] path/to/vhost-blk path/to/bench/vhost_blk

The driver is a vhost-user front-end of this library, on the last CPU; the back-end is on the first one, over the same
image in memory (/dev/shm). The two take turns, so that what else the machine does meets both. Split rings; vhost-blk
with packed ones as well, which qemu-storage-daemon does not have. Ends with 77 where qemu-storage-daemon or a
second CPU is missing.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

LAST = os.cpu_count() - 1
IMAGE_SIZE = 256 << 20
QSD = "qemu-storage-daemon"
RUNS = [("vhost-blk", "split"), (QSD, "split"), ("vhost-blk", "packed")]
LOADS = [(kind, block, depth) for block, kinds in ((131072, ("read", "write")), (4096, ("randread", "randwrite")))
         for kind in kinds for depth in (1, 32)]


def command(name, program, socket, image):
    if name == "vhost-blk":
        return [program, "--socket", socket, "--image", image]
    return [QSD, "--blockdev", f"driver=file,node-name=f,filename={image}", "--export",
            f"type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={socket},writable=on"]


def listening(socket):
    """The flag says that connections are accepted; a trial connection would be a front-end."""
    with open("/proc/net/unix", encoding="utf-8") as table:
        return any(line.split()[3] == "00010000" and line.split()[-1] == socket for line in table)


@contextlib.contextmanager
def backend(name, program, directory, image):
    """One of the two, listening: the path of its socket."""
    socket = str(directory / "sock")
    with subprocess.Popen(["taskset", "-c", "0", *command(name, program, socket, str(image))],
                          stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        try:
            while not listening(socket):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{name} does not start")
                time.sleep(0.02)
            yield socket
        finally:
            process.kill()
    pathlib.Path(socket).unlink(missing_ok=True)


def rate(driver, socket, load, seconds, rings):
    """Requests a second."""
    done = subprocess.run(["taskset", "-c", str(LAST), driver, socket, *map(str, load), str(seconds), rings],
                          capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        sys.exit(f"the driver failed: {done.stderr}")
    return float(done.stdout.split()[0])


def measure(args, directory, image, load):
    """The rates of each of RUNS, in turns."""
    rates = {run: [] for run in RUNS}
    for _ in range(args.rounds):
        for name, rings in RUNS:
            with backend(name, args.program, directory, image) as socket:
                rates[name, rings].append(rate(args.driver, socket, load, args.seconds, rings))
    return rates


def show(load, rates):
    kind, block, depth = load
    other = statistics.median(rates[QSD, "split"])
    for (name, rings), values in rates.items():
        middle = statistics.median(values)
        print(f"{kind:9} {block // 1024:4} KiB, {depth:2} in flight  {name:19} {rings:6} {middle:9.0f} requests/s "
              f"({min(values):.0f} to {max(values):.0f}) {middle * block / 1e6:8.1f} MB/s  {middle / other:5.2f} x",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("driver")
    parser.add_argument("--quick", action="store_true", help="one round of a second each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of one run")
    args = parser.parse_args()
    if args.quick:
        args.rounds = args.seconds = 1
    if shutil.which(QSD) is None or LAST == 0:
        print(f"skipped: needs {QSD} (package qemu-system-common) and two CPUs")
        return 77
    print(f"medians of {args.rounds} alternated runs of {args.seconds} s (lowest to highest); x: {QSD} is 1.00")
    with tempfile.TemporaryDirectory(prefix="vhost-bench-", dir="/dev/shm") as directory:
        image = pathlib.Path(directory) / "disk.img"
        with open(image, "wb") as disk:  # no holes: those are read faster
            for _ in range(IMAGE_SIZE >> 20):
                disk.write(bytes(range(256)) * 4096)
        for load in LOADS:
            show(load, measure(args, pathlib.Path(directory), image, load))
    return 0


if __name__ == "__main__":
    sys.exit(main())
