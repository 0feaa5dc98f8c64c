#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Our rings beside those of Linux's ringtest (tools/virtio/ringtest), on the same two CPUs, in turns.

    bench/ringtest.py --tree DIR      DIR: a kernel tree, or the part of one that is wanted

ringtest is the kernel's own study of ring layouts, in user space: a thread for the driver, a thread for the
device, both polling. An operation is one buffer: the driver adds it and exposes it at once, the device uses
it and exposes that at once, the driver takes it back; 256 entries, as many under way as fit. Nobody decides
whether to notify (its --batch, and the events, are for --sleep alone). What is that here is the case
polled/batch=1 of bench/threads.c; throughput/batch=32 exposes 32 buffers at once, and decides. ringtest's rings
check nothing that the peer wrote, ours check everything.

A time of ringtest is that of a process with many operations, less that of one with a single operation.
"""

import argparse
import collections
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import run as bench

ROOT = bench.ROOT
WHERE = "tools/virtio/ringtest"
WANTED = (WHERE, "include/linux/ptr_ring.h")
HOW = f"""skipped: no {WHERE} below {{tree}}. Any kernel tree has it, and Debian as a package:
    apt-get download linux-source-6.1 && dpkg-deb -x linux-source-6.1_*.deb .
    tar xf usr/src/linux-source-6.1.tar.xz {' '.join(f'linux-source-6.1/{part}' for part in WANTED)}
    bench/ringtest.py --tree linux-source-6.1"""

# Its programs, and what each is.
RINGTEST = {
    "virtio_ring_0_9": "split ring",
    "virtio_ring_inorder": "split ring, in order",
    "virtio_ring_poll": "split ring that is polled by its entries",
    "ring": "descriptors that are used in place, as in a packed ring",
    "ptr_ring": "the kernel's ring of pointers, one way",
    "noring": "nothing between the threads",
}
# Headers of the kernel that ptr_ring.h includes: what they are for is in ptr_ring.c already.
STUBS = [f"linux/{name}.h" for name in ("spinlock", "cache", "compiler", "slab", "mm")]

Pair = collections.namedtuple("Pair", "ours theirs budget", defaults=(None,))
PAIRS = (
    Pair("split/polled/batch=1", "virtio_ring_0_9"),
    Pair("split/throughput/batch=32", "virtio_ring_0_9", 0.30),
    Pair("split-in-order/polled/batch=1", "virtio_ring_inorder"),
    Pair("packed/polled/batch=1", "ring", 1.0),
    Pair("packed/throughput/batch=32", "ring", 1.0),
)
OURS = [bench.Program(f"build/bench/threads-{ring}") for ring in ("split", "packed", "split-in-order")]


def why(text):
    """The first line of a compiler's or make's output that says what is wrong."""
    lines = [line for line in text.splitlines() if "error" in line.lower() or "***" in line]
    return (lines or text.splitlines() or ["no word of why"])[0]


def build_ringtest(tree):
    """Copies what is wanted, builds each program in the copy as its Makefile says: name to path."""
    copy = ROOT / "build" / "ringtest"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(tree / WHERE, copy / WHERE)
    for path in [WANTED[1], *(f"stubs/{stub}" for stub in STUBS)]:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).touch()
    if (tree / WANTED[1]).exists():
        shutil.copyfile(tree / WANTED[1], copy / WANTED[1])
    built, environment = {}, dict(os.environ, CFLAGS=f"-idirafter {copy / 'stubs'}")
    for name in RINGTEST:
        done = subprocess.run(["make", "-s", "-C", copy / WHERE, name], env=environment, capture_output=True,
                              text=True)
        if done.returncode == 0:
            built[name] = copy / WHERE / name
        else:
            print(f"# skipped {name}, which does not build: {why(done.stderr)}")
    return built


def seconds(program, cpus, operations):
    """How long one run takes."""
    command = [program, "--guest-affinity", cpus[0], "--host-affinity", cpus[1], "--run-cycles", operations]
    begin = time.monotonic()
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              timeout=bench.SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise bench.Failed(f"{program}: {error}") from error
    if done.returncode != 0:
        raise bench.Failed(f"{program}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return time.monotonic() - begin


def one_pass(built, cpus, options):
    """The ns of an operation: by program of ringtest, and by case of ours."""
    found = {}
    for name, program in built.items():
        took = seconds(program, cpus, options.operations) - seconds(program, cpus, 1)
        found[name] = max(took, 0) / options.operations * 1e9
    for program in OURS:
        figures, _ = bench.execute(program, options.quick)
        found.update({case: value for (_, case, unit), value in figures if unit == "ns"})
    return found


def of(values, form):
    return f"{statistics.median(values):{form}} ({min(values):{form}} - {max(values):{form}})"


def show(passes):
    wanted = dict.fromkeys([pair.ours for pair in PAIRS])
    print(f"\n{'ns an operation':34} median (min - max)")
    for name in [*RINGTEST, *wanted]:
        if name in passes[0]:
            title = f"ringtest {name}" if name in RINGTEST else name
            print(f"{title:34} {of([found[name] for found in passes], '.1f'):26} {RINGTEST.get(name, '')}".rstrip())
    print(f"\n{'ratio, pass by pass':34} median (min - max)")
    for pair in PAIRS:
        if pair.theirs not in passes[0]:
            print(f"{pair.ours:34} skipped: there is no {pair.theirs} to compare with")
            continue
        ratios = [found[pair.ours] / found[pair.theirs] for found in passes if found[pair.theirs]]
        text = f"{of(ratios, '.2f'):26} of ringtest {pair.theirs}" if ratios else "ringtest took no time"
        if ratios and pair.budget is not None:
            verdict = "met" if statistics.median(ratios) <= pair.budget else "NOT MET"
            text += f", budget {pair.budget:.2f}: {verdict}"
        print(f"{pair.ours:34} {text}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tree", type=pathlib.Path, default=pathlib.Path("linux"), help="the kernel tree (linux)")
    parser.add_argument("--quick", action="store_true", help="shorter runs: for a look whether it works")
    parser.add_argument("--passes", type=int, default=5, help="how often each is run (5)")
    options = parser.parse_args()
    if options.passes < 1:
        parser.error("--passes is at least 1")
    options.operations = 10**6 if options.quick else 10**7
    return options


def main():
    options = arguments()
    if not (options.tree / WHERE / "main.c").exists():
        print(HOW.format(tree=options.tree))
        return 77
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        print("skipped: one CPU only")
        return 77
    bench.build(OURS)
    built = build_ringtest(options.tree)
    print("\n".join(bench.environment(options.passes, options.quick)))
    print(f"# driver on CPU {cpus[0]}, device on CPU {cpus[1]}, {options.operations} operations of each ringtest")
    passes = []
    try:
        for turn in range(1, options.passes + 1):
            print(f"pass {turn} of {options.passes}", file=sys.stderr, flush=True)
            passes.append(one_pass(built, cpus, options))
    except bench.Failed as error:
        sys.exit(f"ringtest: {error}")
    show(passes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
