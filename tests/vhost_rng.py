#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""The vhost-user entropy daemon behind QEMU's vhost-user-rng-pci, and under messages nobody should send.

Usage: vhost_rng.py [--quick] [--only WORD] path/to/vhost-rng path/to/qtest-rng

The driver is that of qtest-rng, which feeds the daemon's source, a FIFO, and compares every byte with what it fed.
A line for each run; "N passed, N failed" at the end.
"""

import os
import re
import shutil
import subprocess
import sys

import vhost
from vhost import MIB, need

QTEST = ""  # path/to/qtest-rng


class Source(vhost.Daemon):
    """A running vhost-rng, and the FIFO that is its source: open, so that it is not at its end."""

    def __init__(self, program, directory):
        self.feed = str(directory / "feed")
        os.mkfifo(self.feed)
        self.file = open(self.feed, "r+b", buffering=0)
        super().__init__(program, directory, "rng", "--source", self.feed)


def drive(running, feed, *options):
    """A run of qtest-rng: its exit status and its output as one line."""
    if shutil.which("qemu-system-x86_64") is None:
        raise vhost.Skipped("needs qemu-system-x86_64")
    try:
        done = subprocess.run([QTEST, "--vhost-user", running.path, "--feed", feed, *options], capture_output=True,
                              text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise vhost.Failed(f"{options}: qtest-rng does not end: {running.said()}") from None
    return done.returncode, (done.stdout + done.stderr).replace("\n", ";")


def cells(program, directory, runs):
    """Front-ends one after the other on one daemon, with split and packed rings: (options, text in the output)."""
    with vhost.while_running(Source(program, directory)) as running:
        for packed in ("off", "on"):
            for options, wanted in runs:
                status, text = drive(running, running.feed, "--property", f"packed={packed}", *options)
                wanted += ".*equal to what the device was fed with"
                ring = r"entries, packed" if packed == "on" else r"entries, split"
                need(status == 0 and re.search(wanted, text) and ring in text, f"packed={packed} {options}: {text}")
        count = running.said().count
        need(count("front-end connected") == count("front-end went away") == 2 * len(runs), running.said())


def test_qemu(program, directory):
    """QEMU's vhost-user-rng-pci, split and packed: every byte, and none twice"""
    cells(program, directory, [([], "INDIRECT_DESC EVENT_IDX")])


def test_qemu_more(program, directory):
    """QEMU's vhost-user-rng-pci, split and packed: MSI-X, queue sizes, features off, a megabyte"""
    cells(program, directory, [
        (["--msix"], "MSI-X on"), (["--queue-size", "1"], " 1 entries"), (["--queue-size", "2"], " 2 entries"),
        (["--property", "event_idx=off"], "INDIRECT_DESC VERSION"),
        (["--property", "indirect_desc=off"], "features   EVENT_IDX"), (["--bytes", str(MIB)], r"received   1\d{6}")])


def test_qemu_other(program, directory):
    """QEMU's vhost-user-rng-pci: another source than the one that is fed is noticed"""
    (directory / "file").write_bytes(bytes(1000))
    feed = str(directory / "feed")
    os.mkfifo(feed)
    with vhost.while_running(vhost.Daemon(program, directory, "rng", "--source", str(directory / "file"))) as running:
        status, text = drive(running, feed)
        need(status == 1 and "data differs" in text, text)


def good(running):
    """A front-end as it should be gets what the source has, when it has it (V-RNG-01)."""
    front = vhost.Front(running.path)
    front.ready()
    front.offer(0, 0, 0)
    os.eventfd_write(front.kick, 1)
    need(not front.wait_used(1, 0.1), "an empty source was served from")
    running.file.write(b"served")
    need(front.wait_used(1), "the next front-end is not served")
    need(front.memory[vhost.REQUESTS + 0x200:vhost.REQUESTS + 0x206] == b"served", "not what was fed")
    need(front.get(vhost.USED + 8, "I") == 6, "another length than what was written")
    front.close()


def test_bad_messages(program, directory):
    """bad messages: one line in the log, the connection ends, the next front-end is served"""
    with vhost.while_running(Source(program, directory)) as running:
        for title, send, text in vhost.BAD:
            if "runs" in title or "goes away" in title:  # there one request is served first
                running.file.write(b"fed")
            vhost.refused(running, title, send, text)
        good(running)


def test_end(program, directory):
    """a source at its end is said to be, once, and requests wait: none comes back empty (V-RNG-01)"""
    (directory / "file").write_bytes(b"short")
    with vhost.while_running(vhost.Daemon(program, directory, "rng", "--source", str(directory / "file"))) as running:
        front = vhost.Front(running.path)
        front.ready()
        for idx in range(3):
            front.offer(idx, 0, 0)
            os.eventfd_write(front.kick, 1)
            need(front.wait_used(1), "the first request is not served")
            need(not front.wait_used(2, 0.1), "a request was served from nothing")
        need(front.get(vhost.USED + 8, "I") == 5, "another length than the file has")
        front.close()
    need(running.said().count("is at its end") == 1, running.said())
    need("1 requests served, 5 bytes" in running.said(), running.said())


def test_command_line(program, directory):
    """wrong arguments, no source, --help"""
    for words, status, text in ((["--help"], 0, "usage: vhost-rng"), ([], 2, "usage"), (["--socket"], 2, "usage"),
                                (["--socket", "s", "--colour", "red"], 2, "usage"),
                                (["--socket", str(directory / "s"), "--source", str(directory / "no")], 1, "No such file")):
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=10, check=False)
        need(done.returncode == status and text in done.stdout + done.stderr, f"{words}: {done}")


RUNS = {name[5:]: run for name, run in list(globals().items()) if name.startswith("test_")}

if __name__ == "__main__":
    QTEST = sys.argv.pop() if len(sys.argv) > 2 else ""
    sys.exit(vhost.main(__doc__, RUNS, lambda name: name != "qemu_more"))
