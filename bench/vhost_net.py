#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Frames a second of vhost-net and of DPDK's own vhost back-end, under one driver on the same CPUs.

Usage: vhost_net.py [--quick] [--rounds N] [--seconds N] path/to/vhost-net

The driver is DPDK's virtio_user in testpmd, which sends each frame of 64 bytes on as it comes ("io"), on the last CPU;
the back-end is on the first one: vhost-net as an echo, or a second testpmd with net_vhost. The two take turns, so that
what else the machine does meets both. Ends with 77 where testpmd is missing (Debian: dpdk-dev).
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

LAST = os.cpu_count() - 1
IN_FLIGHT = ["--tx-first"]  # 32 frames
NAMES = ("vhost-net", "DPDK")


def testpmd(cpu, device, *options, **streams):
    """One on a CPU of its own."""
    return subprocess.Popen(
        ["dpdk-testpmd", f"--lcores=0@{cpu},1@{cpu}", "--no-pci", "--no-huge", "--no-shconf", "-m", "512",
         "--no-telemetry", f"--file-prefix=bench{cpu}", f"--vdev={device}", "--", "--nb-cores=1",
         "--forward-mode=io", "--total-num-mbufs=8192", *options], stdin=subprocess.DEVNULL, **streams)


@contextlib.contextmanager
def ending(process):
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition, process):
    deadline = time.monotonic() + 30
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit("the back-end does not start")
        time.sleep(0.05)


@contextlib.contextmanager
def backend(name, program, directory):
    """One of the two, listening: the path of its socket."""
    path, log = directory / "sock", directory / "backend.log"
    with open(log, "w", encoding="utf-8") as out:
        if name == "DPDK":
            process = testpmd(0, f"net_vhost0,iface={path},queues=1", "--stats-period=600", stdout=out, stderr=out)
            ready = "Port statistics"
        else:
            process = subprocess.Popen(["taskset", "-c", "0", program, "--socket", path], stdout=out, stderr=out)
            ready = f"at {path}"
        with ending(process):
            wait_until(lambda: ready in log.read_text(encoding="utf-8"), process)
            yield path
    path.unlink(missing_ok=True)


def rate(path, packed, seconds, directory):
    """Frames that come back in a second: the median of the seconds after the first three."""
    log = directory / "driver.log"
    device = f"net_virtio_user0,path={path},queues=1,queue_size=256,packed_vq={packed}"
    with open(log, "w", encoding="utf-8") as out:
        with ending(testpmd(LAST, device, "--stats-period=1", *IN_FLIGHT, stdout=out, stderr=out)) as process:
            deadline = time.monotonic() + seconds + 30
            rates = []
            while len(rates) < seconds + 3:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("the driver ended: " + log.read_text(encoding="utf-8")[-2000:])
                time.sleep(0.1)
                rates = [int(count) for count in re.findall(r"Rx-pps: +(\d+)", log.read_text(encoding="utf-8"))]
    return statistics.median(rates[3:])


def show(results):
    print(f"\n{'ring':8}{'back-end':12}{'median':>10}{'lowest':>10}{'highest':>10}   million frames a second")
    for ring in ("split", "packed"):
        for name in NAMES:
            runs = results[ring, name]
            print(f"{ring:8}{name:12}" + "".join(
                f"{value / 1e6:10.2f}" for value in (statistics.median(runs), min(runs), max(runs))))
        ratio = statistics.median(results[ring, NAMES[0]]) / statistics.median(results[ring, NAMES[1]])
        print(f"{ring:8}{'ratio':12}{ratio:10.2f}   (budget: 1.0 at least)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--quick", action="store_true", help="one round of two seconds, to see that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6, help="of each run, after three to get going")
    args = parser.parse_args()
    if shutil.which("dpdk-testpmd") is None or LAST == 0:
        print("skipped: needs dpdk-testpmd (dpdk-dev) and two CPUs")
        return 77
    if args.quick:
        args.rounds, args.seconds = 1, 2
    results = {(ring, name): [] for ring in ("split", "packed") for name in NAMES}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        directory = pathlib.Path(place)
        for turn in range(args.rounds):
            for packed, ring in enumerate(("split", "packed")):
                for name in NAMES if turn % 2 == 0 else NAMES[::-1]:
                    with backend(name, args.program, directory) as path:
                        results[ring, name].append(rate(path, packed, args.seconds, directory))
                    print(f"{turn + 1}/{args.rounds} {ring:8}{name:12}{results[ring, name][-1] / 1e6:8.2f}", flush=True)
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
