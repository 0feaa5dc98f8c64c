#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""The vhost-user block daemon, judged by drivers that nobody here wrote, and by messages nobody should send.

Usage: vhost.py [--quick] [--only WORD] path/to/vhost-blk

A line for each run; "N passed, N failed" at the end. What needs a package that is missing is skipped and named.
User-mode Linux (Debian: user-mode-linux, busybox-static) drives the daemon with Linux's own virtio_blk.
"""

import argparse
import array
import contextlib
import hashlib
import mmap
import os
import pathlib
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20


class Failed(Exception):
    """What a judge says of a run that is not as it must be."""


class Skipped(Exception):
    """Why a run is not possible here."""


def need(condition, text):
    if not condition:
        raise Failed(text)


class Daemon:
    """A running vhost-blk, and what it said."""

    def __init__(self, program, directory, image, *options):
        self.path = str(directory / (image.name + ".sock"))
        self.log = directory / (image.name + ".log")
        self.args = [program, "--socket", self.path, "--image", str(image), *options]
        self.start()

    def start(self):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.args, stderr=log)
        deadline = time.monotonic() + 10
        while f"at {self.path}" not in self.said() or not os.path.exists(self.path):
            need(self.process.poll() is None, f"the daemon ended: {self.said()}")
            need(time.monotonic() < deadline, "the daemon does not listen")
            time.sleep(0.01)

    def said(self):
        return self.log.read_text(encoding="utf-8")

    def stop(self, number=signal.SIGTERM):
        """Ends it in the clean way, which has to work."""
        need(self.process.poll() is None, f"the daemon ended by itself: {self.said()[-2000:]}")
        self.process.send_signal(number)
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed("the daemon does not stop") from None
        need(status == 0, f"the daemon's exit status is {status}: {self.said()[-2000:]}")
        need(not os.path.exists(self.path), "the daemon left its socket behind")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def daemon(program, directory, image, *options):
    running = Daemon(program, directory, image, *options)
    try:
        yield running
        running.stop()
    finally:
        running.kill()


# ----- user-mode Linux -----


def cpio(files):
    """An initrd in the newc format: {path: (mode, bytes)}."""
    archive = bytearray()
    for number, (path, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        name = path.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


INIT = """#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /mnt
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
insmod /virtio_blk.ko
{script}
echo "guest done"
poweroff -f
"""


def module(name):
    found = sorted(pathlib.Path("/usr/lib/uml/modules").glob(f"*/kernel/**/{name}.ko"))
    if not found:
        raise Skipped(f"no module {name} of user-mode Linux (package user-mode-linux)")
    return found[0].read_bytes()


def uml(directory, daemons, script, files=None):
    """Runs a script in user-mode Linux with these disks; returns what it printed."""
    kernel, busybox = shutil.which("linux.uml"), shutil.which("busybox")
    if kernel is None or busybox is None:
        raise Skipped("needs the packages user-mode-linux and busybox-static")
    tree = {"bin": (0o040755, b""), "bin/busybox": (0o100755, pathlib.Path(busybox).read_bytes()),
            "bin/sh": (0o120777, b"busybox"), "virtio_blk.ko": (0o100644, module("virtio_blk")),
            "init": (0o100755, INIT.format(script=script).encode())}
    tree.update(files or {})
    (directory / "initrd").write_bytes(cpio(tree))
    command = [kernel, "mem=128M", f"initrd={directory / 'initrd'}", f"uml_dir={directory}", "con=null",
               "con0=fd:0,fd:1", "quiet", "panic=-1"]
    command += [f"virtio_uml.device={running.path}:2" for running in daemons]
    with open(directory / "uml.err", "w", encoding="utf-8") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err,
                                   start_new_session=True, env={**os.environ, "TMPDIR": str(directory)})
    try:
        text = process.communicate(timeout=30)[0].decode(errors="replace").replace("\r", "")
    except subprocess.TimeoutExpired:
        raise Failed(f"the guest does not end; {[d.said() for d in daemons]}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    need("guest done" in text, f"the guest did not finish: {text[-2000:]}")
    return text


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def test_uml_raw(program, directory):
    """user-mode Linux: the whole disk read, another one written"""
    content = noise(16 * MIB)
    image, other = directory / "read.img", directory / "write.img"
    image.write_bytes(content)
    other.write_bytes(bytes(8 * MIB))
    with daemon(program, directory, image) as first, daemon(program, directory, other) as second:
        text = uml(directory, [first, second], """
            echo "read $(sha256sum </dev/vda)"
            echo "serial $(cat /sys/block/vda/serial) $(cat /sys/block/vdb/serial)"
            dd if=/dev/vda of=/dev/vdb bs=512 skip=4096 count=4096 2>/dev/null
            dd if=/dev/vda of=/dev/vdb bs=1M seek=2 skip=4 count=6 conv=fsync 2>/dev/null
            echo 3 >/proc/sys/vm/drop_caches
            echo "back $(sha256sum </dev/vdb)"
            """)
        need(sha(content) in text, f"the guest read something else: {text}{first.said()}")
        expected = content[2 * MIB:4 * MIB] + content[4 * MIB:10 * MIB]
        need(other.read_bytes() == expected, "the image is not what the guest wrote")
        need(f"back {sha(expected)}" in text, "the guest reads back something else")
        need("serial read.img write.img" in text, "the guest sees other serial numbers")


def make_tree():
    """A tree of files that a file system has to work for: {relative path: bytes}."""
    pick = random.Random(7)
    sizes = [0, 1, 511, 512, 513, 4095, 4096, 4097, 65536, 100001, 300017]
    return {f"d{i % 7}/e{i % 3}/file{i}": pick.randbytes(sizes[i % len(sizes)]) for i in range(120)}


def same_tree(directory, tree):
    for path, data in tree.items():
        file = directory / path
        need(file.is_file() and file.read_bytes() == data, f"{path} is not what was copied")
    count = sum(1 for path in directory.rglob("*") if path.is_file())
    need(count == len(tree), f"{count} files, not {len(tree)}")


def fsck(image):
    if shutil.which("e2fsck") is None:
        raise Skipped("needs e2fsck (package e2fsprogs)")
    done = subprocess.run(["e2fsck", "-fn", str(image)], capture_output=True, text=True, timeout=60, check=False)
    need(done.returncode == 0, f"e2fsck: {done.stdout[-1000:]}")


def dump(image, directory):
    directory.mkdir()
    subprocess.run(["debugfs", "-R", f"rdump /tree {directory}", str(image)], capture_output=True, timeout=60,
                   check=True)
    return directory / "tree"


def tree_files(tree):
    files = {"tree": (0o040755, b"")}
    for path, data in sorted(tree.items()):
        for parent in reversed(pathlib.PurePath("tree", path).parents[:-1]):
            files.setdefault(str(parent), (0o040755, b""))
        files[f"tree/{path}"] = (0o100644, data)
    return files


def test_uml_ext4(program, directory):
    """user-mode Linux: ext4 of the host's mke2fs, a tree copied, fsck and comparison on the host"""
    if shutil.which("mke2fs") is None:
        raise Skipped("needs mke2fs (package e2fsprogs)")
    image = directory / "ext4.img"
    image.write_bytes(bytes(64 * MIB))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", str(image)], check=True, timeout=60)
    tree = make_tree()
    with daemon(program, directory, image) as running:
        uml(directory, [running], """
            mount -t ext4 -o discard /dev/vda /mnt && cp -a /tree /mnt/ && cp -a /tree /mnt/again &&
                sync && rm -r /mnt/again && umount /mnt && mount -t ext4 -o ro /dev/vda /mnt &&
                diff -r /tree /mnt/tree && umount /mnt || { echo "copy failed"; poweroff -f; }
            """, tree_files(tree))
    fsck(image)
    same_tree(dump(image, directory / "dump"), tree)


def test_uml_mkfs(program, directory):
    """user-mode Linux: a file system made, used, discarded and made again by the guest"""
    image = directory / "mkfs.img"
    image.write_bytes(noise(32 * MIB))
    tree = make_tree()
    with daemon(program, directory, image) as running:
        text = uml(directory, [running], """
            echo "limits $(cat /sys/block/vda/queue/discard_max_bytes /sys/block/vda/queue/write_zeroes_max_bytes)"
            blkdiscard /dev/vda && echo "hole $(sha256sum </dev/vda)"
            mke2fs -F /dev/vda >/dev/null 2>&1 && mount -t ext2 /dev/vda /mnt && cp -a /tree /mnt/ &&
                umount /mnt || { echo "copy failed"; poweroff -f; }
            """, tree_files(tree))
        need(f"hole {sha(bytes(32 * MIB))}" in text, "a discarded disk does not read as zeroes")
        need(not re.search(r"limits 0|\n0\n", text), "the guest sees no discard or write-zeroes")
    fsck(image)
    same_tree(dump(image, directory / "dump"), tree)


def test_uml_read_only(program, directory):
    """user-mode Linux: a read-only disk, with four queues"""
    content = noise(4 * MIB, 3)
    image = directory / "ro.img"
    image.write_bytes(content)
    with daemon(program, directory, image, "--read-only", "--queues", "4") as running:
        text = uml(directory, [running], """
            echo "ro $(cat /sys/block/vda/ro)"
            echo "read $(sha256sum </dev/vda)"
            dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync 2>/dev/null && echo "written"
            """)
        need("ro 1" in text and sha(content) in text and "written" not in text, f"the guest saw: {text}")
    need(image.read_bytes() == content, "a read-only image changed")


def test_uml_again(program, directory):
    """user-mode Linux: one guest after the other on one daemon"""
    image = directory / "again.img"
    image.write_bytes(bytes(2 * MIB))
    with daemon(program, directory, image) as running:
        for turn in range(3):
            text = uml(directory, [running], f"""
                echo "before $(dd if=/dev/vda bs=512 count=1 2>/dev/null | head -c 6)"
                echo "turn {turn}" | dd of=/dev/vda bs=512 count=1 conv=fsync,sync 2>/dev/null
                """)
            need(turn == 0 or f"before turn {turn - 1}" in text, f"the guest before is forgotten: {text}")
        need(running.said().count("front-end went away") == 3, "the guests' ends were not noticed")


QUICK = ["uml_raw"]
RUNS = {name[5:]: run for name, run in list(globals().items()) if name.startswith("test_")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--quick", action="store_true", help="the short runs only")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    args = parser.parse_args()
    passed = failed = 0
    for name, run in RUNS.items():
        if args.only not in name or (args.quick and name not in QUICK and not name.startswith("bad")):
            continue
        with tempfile.TemporaryDirectory(prefix="vhost-") as directory:
            try:
                run(args.program, pathlib.Path(directory))
                passed += 1
                print(f"  ok      {run.__doc__}", flush=True)
            except Skipped as why:
                print(f"  skipped {run.__doc__}: {why}", flush=True)
            except Failed as why:
                failed += 1
                print(f"  FAILED  {run.__doc__}: {why}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed != 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main())
