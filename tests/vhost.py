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
    """A running daemon, and what it said. Subclasses know what is of its device: type and Linux's module."""

    def __init__(self, program, directory, name, *options, **streams):
        self.path = str(directory / (name + ".sock"))
        self.log = directory / (name + ".log")
        self.args = [program, "--socket", self.path, *options]
        self.streams = streams
        self.start()

    def start(self):
        starts = self.said().count(f"at {self.path}") if self.log.exists() else 0
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.args, stderr=log, **self.streams)
        deadline = time.monotonic() + 10
        while self.said().count(f"at {self.path}") == starts:
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


class Disk(Daemon):
    """A running vhost-blk."""

    type, module = 2, "virtio_blk"

    def __init__(self, program, directory, image, *options):
        super().__init__(program, directory, image.name, "--image", str(image), *options)


@contextlib.contextmanager
def while_running(running):
    try:
        yield running
        running.stop()
    finally:
        running.kill()


def daemon(program, directory, image, *options):
    return while_running(Disk(program, directory, image, *options))


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
for module in /*.ko; do insmod $module; done
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
    """Runs a script in user-mode Linux with these devices; returns what it printed."""
    kernel, busybox = shutil.which("linux.uml"), shutil.which("busybox")
    if kernel is None or busybox is None:
        raise Skipped("needs the packages user-mode-linux and busybox-static")
    tree = {"bin": (0o040755, b""), "bin/busybox": (0o100755, pathlib.Path(busybox).read_bytes()),
            "bin/sh": (0o120777, b"busybox"), "init": (0o100755, INIT.format(script=script).encode())}
    tree.update({f"{running.module}.ko": (0o100644, module(running.module)) for running in daemons})
    tree.update(files or {})
    (directory / "initrd").write_bytes(cpio(tree))
    command = [kernel, "mem=128M", f"initrd={directory / 'initrd'}", f"uml_dir={directory}", "con=null",
               "con0=fd:0,fd:1", "quiet", "panic=-1"]
    command += [f"virtio_uml.device={running.path}:{running.type}" for running in daemons]
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


# ----- a front-end of a few lines, for what no real one does -----

REQUEST = {name: number for number, name in enumerate(
    """- GET_FEATURES SET_FEATURES SET_OWNER RESET_OWNER SET_MEM_TABLE SET_LOG_BASE SET_LOG_FD SET_VRING_NUM
    SET_VRING_ADDR SET_VRING_BASE GET_VRING_BASE SET_VRING_KICK SET_VRING_CALL SET_VRING_ERR
    GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM SET_VRING_ENABLE""".split())}
REQUEST.update(GET_CONFIG=24, SET_CONFIG=25, GET_INFLIGHT_FD=31, SET_INFLIGHT_FD=32, RESET_DEVICE=34,
               GET_MAX_MEM_SLOTS=36, ADD_MEM_REG=37, REM_MEM_REG=38, SET_STATUS=39, GET_STATUS=40)
VERSION_1, PACKED, PROTOCOL, EVENT_IDX = 1 << 32, 1 << 34, 1 << 30, 1 << 29
GUEST, USER, MEMORY, NUM = 0x100000, 0x7F0000000000, MIB, 8
DESC, AVAIL, USED, REQUESTS = 0, 0x1000, 0x2000, 0x4000


class Front:
    """One connection, its memory, and a ring of eight entries in it: descriptors at DESC and so on."""

    packed = False

    def __init__(self, path, memory=None):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.settimeout(10)
        self.file = memory
        if memory is None:
            self.file = os.memfd_create("memory")
            os.ftruncate(self.file, MEMORY)
        self.memory = mmap.mmap(self.file, MEMORY)
        self.kick, self.call, self.err = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3))
        self.fds = [self.kick, self.call, self.err] + ([self.file] if memory is None else [])

    def close(self):
        self.socket.close()
        self.memory.close()
        for fd in self.fds:
            os.close(fd)

    def send(self, name, payload=b"", fds=(), flags=1, size=None):
        number = REQUEST.get(name, name)
        data = struct.pack("=III", number, flags, len(payload) if size is None else size) + payload
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendmsg([data], rights)

    def number(self, name, value, fds=()):
        self.send(name, struct.pack("=Q", value), fds)

    def state(self, name, index, num):
        self.send(name, struct.pack("=II", index, num))

    def receive(self):
        """The payload of an answer and its descriptors."""
        head, fds, _, _ = socket.recv_fds(self.socket, 12, 1)
        need(len(head) == 12, "no answer")
        size = struct.unpack("=III", head)[2]
        return (self.socket.recv(size) if size else b""), fds

    def dropped(self):
        """Has the daemon ended the connection, after what it had to answer?"""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def features(self, extra=0, protocol=0):
        self.send("SET_OWNER")
        self.number("SET_FEATURES", VERSION_1 | PROTOCOL | extra)
        self.number("SET_PROTOCOL_FEATURES", protocol)

    def table(self, *regions, count=None, fds=None):
        regions = regions or ((GUEST, MEMORY, USER, 0),)
        payload = struct.pack("=II", len(regions) if count is None else count, 0)
        payload += b"".join(struct.pack("=QQQQ", *region) for region in regions)
        self.send("SET_MEM_TABLE", payload, [self.file] * len(regions) if fds is None else fds)

    def slot(self, name, size=MEMORY, guest=GUEST, fds=None):
        """Adds or removes one region of memory."""
        self.send(name, struct.pack("=QQQQQ", 0, guest, size, USER, 0), [self.file] if fds is None else fds)

    def ask(self, name):
        self.send(name)
        return struct.unpack("=Q", self.receive()[0])[0]

    def ring(self, base=0, num=NUM, desc=USER + DESC, avail=USER + AVAIL, used=USER + USED):
        self.state("SET_VRING_NUM", 0, num)
        self.state("SET_VRING_BASE", 0, base)
        self.send("SET_VRING_ADDR", struct.pack("=IIQQQQ", 0, 0, desc, used, avail, 0))
        self.number("SET_VRING_CALL", 0, [self.call])
        self.number("SET_VRING_ERR", 0, [self.err])
        self.number("SET_VRING_KICK", 0, [self.kick])
        self.state("SET_VRING_ENABLE", 0, 1)

    def put(self, at, fmt, *values):
        data = struct.pack("<" + fmt, *values)  # pack_into() would write zeroes first, for the daemon to see
        self.memory[at:at + len(data)] = data

    def get(self, at, fmt):
        return struct.unpack_from("<" + fmt, self.memory, at)[0]

    def request(self, slot, kind, sector):
        """A request of one sector, three descriptors at desc 3 * slot of an indirect table."""
        at = REQUESTS + 0x1000 * slot
        self.put(at, "IIQ", kind, 0, sector)
        self.put(at + 0x800, "B", 0xFF)
        writes = 2 if kind == 0 else 0
        for i, (addr, size, flags) in enumerate(
                ((at, 16, 0), (at + 0x200, 512, writes), (at + 0x800, 1, 2))):
            links = (0, flags) if self.packed else (flags, 0) if i == 2 else (flags | 1, i + 1)
            self.put(at + 0x900 + 16 * i, "QIHH", GUEST + addr, size, *links)
        return at + 0x900

    def offer(self, idx, kind, sector):
        """Makes a request available as entry `idx` of a split ring."""
        slot = idx % NUM
        self.put(DESC + 16 * slot, "QIHH", GUEST + self.request(slot, kind, sector), 48, 4, 0)
        self.put(AVAIL + 4 + 2 * slot, "H", slot)
        self.put(AVAIL + 2, "H", (idx + 1) % 65536)

    def wait_used(self, idx, seconds=5):
        deadline = time.monotonic() + seconds
        while self.get(USED + 2, "H") != idx % 65536:
            if time.monotonic() > deadline:
                return False
            select.select([self.call], [], [], 0.01)
        return True

    def ready(self):
        self.features(extra=1 << 28)
        self.table()
        self.ring()


def good(path, content):
    """A front-end as it should be is served."""
    front = Front(path)
    front.ready()
    front.offer(0, 0, 3)
    os.eventfd_write(front.kick, 1)
    need(front.wait_used(1), "the next front-end is not served")
    at = REQUESTS
    need(front.memory[at + 0x200:at + 0x400] == content[1536:2048] and front.get(at + 0x800, "B") == 0,
         "the next front-end reads something else")
    front.close()


def many_answers(front):
    for _ in range(20000):
        front.send("GET_FEATURES")


def serve_one(front):
    front.ready()
    front.offer(0, 0, 0)
    os.eventfd_write(front.kick, 1)
    need(front.wait_used(1), "not served")


def cut_memory(front):
    serve_one(front)
    os.ftruncate(front.file, 0)
    os.eventfd_write(front.kick, 1)


def running(front, name, *args):
    serve_one(front)
    front.state(name, *args)


def with_table(*regions, **more):
    def run(front):
        front.features()
        front.table(*regions, **more)
    return run


def with_ring(**where):
    def run(front):
        front.features()
        front.table()
        front.ring(**where)
    return run


TOP = 2**64 - 0x1000
INFLIGHT = 1 << 12

# What is sent, and what the one line in the log has to say.
BAD = [
    ("another version", lambda f: f.send("GET_FEATURES", flags=2), "another version"),
    ("an answer", lambda f: f.send("GET_FEATURES", flags=5), "or an answer"),
    ("an unknown request", lambda f: f.send(99), "not known"),
    ("request 0", lambda f: f.send(0), "not known"),
    ("a payload of 4 GiB", lambda f: f.send("SET_FEATURES", size=0xFFFFFFFF), "longer than any"),
    ("a payload of 300 bytes", lambda f: f.send("SET_MEM_TABLE", bytes(300)), "longer than any"),
    ("features not offered", lambda f: f.number("SET_FEATURES", 1 << 63), "not offered"),
    ("protocol features not offered", lambda f: f.number("SET_PROTOCOL_FEATURES", 1 << 40), "not offered"),
    ("a table of 9 regions", with_table(count=9), "of no sense"),
    ("a table shorter than it says", with_table(count=8), "shorter than its regions"),
    ("a table without descriptors", with_table(fds=[]), "more or fewer descriptors"),
    ("a region of no bytes", with_table((GUEST, 0, USER, 0)), "of no bytes"),
    ("a region that wraps", with_table((TOP, MIB, USER, 0)), "past the end of its address space"),
    ("a user address that wraps", with_table((GUEST, MIB, TOP, 0)), "past the end of its address space"),
    ("an offset that wraps", with_table((GUEST, MIB, USER, TOP)), "past the end of its address space"),
    ("a region longer than its file", with_table((GUEST, MIB + 1, USER, 0)), "past the end of its file"),
    ("an offset behind the file", with_table((GUEST, MIB, USER, 4096)), "past the end of its file"),
    ("a region of a pipe", with_table(fds=os.pipe()[:1]), "past the end of its file"),
    ("a region added without its descriptor", lambda f: f.slot("ADD_MEM_REG", fds=[]), "without its descriptor"),
    ("a region added of no bytes", lambda f: f.slot("ADD_MEM_REG", size=0), "of no bytes"),
    ("a region added past its file", lambda f: f.slot("ADD_MEM_REG", size=2 * MIB), "past the end of its file"),
    ("33 regions", lambda f: [f.slot("ADD_MEM_REG", guest=GUEST + i * MIB) for i in range(33)], "than there are slots"),
    ("a region removed that is not there", lambda f: f.slot("REM_MEM_REG", fds=[]), "that is not there"),
    ("a region removed of another size", lambda f: (f.table(), f.slot("REM_MEM_REG", size=4096, fds=[])), "not there"),
    ("a region removed at another address", lambda f: (f.table(), f.slot("REM_MEM_REG", guest=0, fds=[])), "not there"),
    ("a region removed under a ring", lambda f: (f.ready(), f.slot("REM_MEM_REG", fds=[])), "outside the memory"),
    ("a status of nine bits", lambda f: f.number("SET_STATUS", 256), "more than eight bits"),
    ("queue 64", lambda f: f.state("SET_VRING_NUM", 64, 8), "does not exist"),
    ("queue 2^31", lambda f: f.state("GET_VRING_BASE", 1 << 31, 0), "does not exist"),
    ("a kick for queue 200", lambda f: f.number("SET_VRING_KICK", 200, [f.kick]), "does not exist"),
    ("a kick with high bits", lambda f: f.number("SET_VRING_KICK", 1 << 40, [f.kick]), "does not exist"),
    ("a kick without its descriptor", lambda f: f.number("SET_VRING_KICK", 0), "without the descriptor"),
    ("no kick with a descriptor", lambda f: f.number("SET_VRING_CALL", 0x100, [f.call]), "one too many"),
    ("two kicks", lambda f: f.number("SET_VRING_KICK", 0, [f.kick, f.call]), "no use for"),
    ("descriptors for features", lambda f: f.number("SET_FEATURES", 0, [f.kick]), "no use for"),
    ("ten descriptors", lambda f: f.number("SET_VRING_KICK", 0, [f.kick] * 10), "more descriptors than"),
    ("a ring of no entries", lambda f: f.state("SET_VRING_NUM", 0, 0), "ring size"),
    ("a ring of 65536 entries", lambda f: f.state("SET_VRING_NUM", 0, 65536), "ring size"),
    ("a split ring of 6 entries", with_ring(num=6), "queue size"),
    ("ring enabled twice over", lambda f: (f.features(), f.state("SET_VRING_ENABLE", 0, 2)), "neither enabled"),
    ("a ring without memory", lambda f: (f.features(), f.ring()), "outside the memory regions"),
    ("descriptors outside", with_ring(desc=0), "outside the memory regions"),
    ("descriptors over the end", with_ring(desc=USER + MEMORY - 112), "outside the memory regions"),
    ("an available ring over the end", with_ring(avail=USER + MEMORY - 16), "outside the memory regions"),
    ("a used ring over the end", with_ring(used=USER + MEMORY - 64), "outside the memory regions"),
    ("a used ring at the top", with_ring(used=2**64 - 4), "outside the memory regions"),
    ("descriptors at an odd address", with_ring(desc=USER + 8), "not aligned"),
    ("log of writes", lambda f: f.send("SET_VRING_ADDR", struct.pack("=IIQQQQ", 0, 1, 0, 0, 0, 0)), "not offered"),
    ("a new size while it runs", lambda f: running(f, "SET_VRING_NUM", 0, 4), "running ring"),
    ("a new position while it runs", lambda f: running(f, "SET_VRING_BASE", 0, 4), "running ring"),
    ("configuration of 257 bytes", lambda f: f.send("GET_CONFIG", struct.pack("=III", 0, 257, 0)), "outside its space"),
    ("configuration at 2^32 - 1", lambda f: f.send("GET_CONFIG", struct.pack("=III", 2**32 - 1, 8, 0)),
     "outside its space"),
    ("configuration of another size", lambda f: f.send("SET_CONFIG", struct.pack("=III", 0, 8, 0) + bytes(4)),
     "outside its space"),
    ("in-flight without the feature", lambda f: f.send("GET_INFLIGHT_FD", struct.pack("=QQHHI", 0, 0, 1, 8, 0)),
     "not agreed"),
    ("in-flight of no queues", lambda f: (f.features(protocol=INFLIGHT), f.send(
        "GET_INFLIGHT_FD", struct.pack("=QQHHI", 0, 0, 0, 8, 0))), "do not exist"),
    ("in-flight without its descriptor", lambda f: (f.features(protocol=INFLIGHT), f.send(
        "SET_INFLIGHT_FD", struct.pack("=QQHHI", 4096, 0, 1, 8, 0))), "without its descriptor"),
    ("in-flight longer than its file", lambda f: (f.features(protocol=INFLIGHT), f.send(
        "SET_INFLIGHT_FD", struct.pack("=QQHHI", MIB, 8, 1, 8, 0), [f.file])), "past the end of its file"),
    ("in-flight too short for the ring", lambda f: (f.features(protocol=INFLIGHT), f.table(), f.send(
        "SET_INFLIGHT_FD", struct.pack("=QQHHI", 64, 0, 1, 8, 0), [f.file]), f.ring()), "does not fit the ring"),
    ("in-flight of another version", lambda f: (f.features(protocol=INFLIGHT), f.table(), f.put(0x8008, "H", 77),
        f.send("SET_INFLIGHT_FD", struct.pack("=QQHHI", 4096, 0x8000, 1, 8, 0), [f.file]), f.ring()), "another ring"),
    ("answers that nobody reads", many_answers, "does not read"),
    ("memory that goes away", cut_memory, "no longer there"),
]
# Every request with every payload size up to 48 that is not its own.
SIZES = {"GET_FEATURES": 0, "SET_FEATURES": 8, "SET_OWNER": 0, "RESET_OWNER": 0, "SET_VRING_NUM": 8,
         "SET_VRING_ADDR": 40, "SET_VRING_BASE": 8, "GET_VRING_BASE": 8, "SET_VRING_KICK": 8, "SET_VRING_CALL": 8,
         "SET_VRING_ERR": 8, "GET_PROTOCOL_FEATURES": 0, "SET_PROTOCOL_FEATURES": 8, "GET_QUEUE_NUM": 0,
         "SET_VRING_ENABLE": 8, "RESET_DEVICE": 0, "GET_MAX_MEM_SLOTS": 0, "ADD_MEM_REG": 40, "REM_MEM_REG": 40,
         "SET_STATUS": 8, "GET_STATUS": 0}
for request, right in SIZES.items():
    for wrong in (0, 1, 4, 7, 8, 9, 12, 39, 40, 41, 48):
        if wrong != right:
            BAD.append((f"{request} of {wrong} bytes",
                        lambda f, request=request, wrong=wrong: f.send(request, bytes(wrong)), "wrong size"))


def refused(running_daemon, title, send, text):
    """Sends what must end the connection, and be named in one line of the log."""
    before = len(running_daemon.said().splitlines())
    front = Front(running_daemon.path)
    send(front)
    need(front.dropped(), f"{title}: the connection does not end: {running_daemon.said()[-200:]}")
    front.close()
    lines = [line for line in running_daemon.said().splitlines()[before:] if "dropped" in line]
    need(len(lines) == 1 and text in lines[0], f"{title}: the log says {lines}")


def test_bad_messages(program, directory):
    """bad messages: one line in the log, the connection ends, the next front-end is served"""
    content = noise(MIB)
    image = directory / "bad.img"
    image.write_bytes(content)
    with daemon(program, directory, image) as running_daemon:
        for number, (title, send, text) in enumerate(BAD):
            refused(running_daemon, title, send, text)
            if number % 16 == 0 or number < 56:
                good(running_daemon.path, content)
        good(running_daemon.path, content)


def test_bad_truncated(program, directory):
    """bad messages: each good one cut off at each byte, and random ones"""
    content = noise(MIB)
    image = directory / "cut.img"
    image.write_bytes(content)
    pick = random.Random(5)
    with daemon(program, directory, image) as running_daemon:
        for size in (0, 8, 40):
            for cut in range(1, 12 + size):
                front = Front(running_daemon.path)
                front.socket.send((struct.pack("=III", 9, 1, size) + bytes(size))[:cut])
                front.close()
        for _ in range(300):
            front = Front(running_daemon.path)
            for _ in range(pick.randrange(1, 8)):
                payload = pick.randbytes(pick.choice((0, 4, 8, 8, 12, 20, 24, 40, 40, 72, 264)))
                if pick.randrange(2):
                    payload = bytes(pick.randrange(3) if i % 4 == 0 else 0 for i in range(len(payload)))
                front.send(pick.randrange(40), payload, [front.kick, front.file][:pick.randrange(3)],
                           flags=pick.choice((1, 1, 1, 9, pick.randrange(16))))
            front.close()
        good(running_daemon.path, content)


def test_slots(program, directory):
    """memory added and removed region by region while rings run; the device status"""
    content = noise(MIB)
    image = directory / "slots.img"
    image.write_bytes(content)
    with daemon(program, directory, image) as running_daemon:
        front = Front(running_daemon.path)
        front.features(extra=1 << 28)
        need(front.ask("GET_MAX_MEM_SLOTS") == 32, "the slots are not 32")
        front.slot("ADD_MEM_REG", guest=GUEST + 16 * MIB)
        front.slot("ADD_MEM_REG")
        front.slot("REM_MEM_REG", guest=GUEST + 16 * MIB)  # some front-ends send a descriptor along
        front.ring()
        for idx in range(3):
            front.offer(idx, 0, idx)
            os.eventfd_write(front.kick, 1)
            need(front.wait_used(idx + 1), "not served")
            at = REQUESTS + 0x1000 * idx
            need(front.memory[at + 0x200:at + 0x400] == content[512 * idx:512 * idx + 512], "other data")
            front.slot("ADD_MEM_REG", guest=GUEST + (idx + 1) * MIB)
        need(front.ask("GET_STATUS") == 0, "a status that nobody set")
        front.number("SET_STATUS", 15)
        need(front.ask("GET_STATUS") == 15, "another status than was set")
        front.close()
        front = Front(running_daemon.path)
        need(front.ask("GET_STATUS") == 0, "the status of the front-end before")
        front.close()


def test_bad_driver(program, directory):
    """a hostile driver: the queue is left alone, the front-end hears of it and resets it"""
    content = noise(MIB)
    image = directory / "driver.img"
    image.write_bytes(content)
    with daemon(program, directory, image) as running_daemon:
        front = Front(running_daemon.path)
        front.ready()
        front.offer(0, 0, 0)
        front.put(AVAIL + 2, "H", 100)
        os.eventfd_write(front.kick, 1)
        need(select.select([front.err], [], [], 5)[0], "the front-end does not hear of it")
        need("more available than the queue holds" in running_daemon.said(), "the log does not say what happened")
        front.state("GET_VRING_BASE", 0, 0)
        front.receive()
        front.put(AVAIL + 2, "H", 0)
        front.put(USED + 2, "H", 0)
        front.ring()
        front.offer(0, 0, 5)
        os.eventfd_write(front.kick, 1)
        need(front.wait_used(1) and front.get(REQUESTS + 0x800, "B") == 0, "not served after a reset")
        front.close()
        good(running_daemon.path, content)


# ----- what another back-end left in flight -----


class Packed(Front):
    """The same with a packed ring: one indirect descriptor a request."""

    packed = True

    def wait_used(self, idx, seconds=5):
        slot, lap = (idx - 1) % NUM, 0x8080 if (idx - 1) // NUM % 2 == 0 else 0
        deadline = time.monotonic() + seconds
        while self.get(DESC + 16 * slot + 14, "H") & 0x8080 != lap:
            if time.monotonic() > deadline:
                return False
            select.select([self.call], [], [], 0.01)
        return True


REGION = 0x3000  # of an in-flight region in the memory, for ones that this front-end made up


def take_over(kind, path, memory, base, extra=0):
    """A front-end whose ring goes on where it was, and its in-flight region."""
    front = kind(path, memory)
    front.features(extra=extra | 1 << 28 | (PACKED if kind is Packed else 0), protocol=INFLIGHT)
    front.table()
    front.send("SET_INFLIGHT_FD", struct.pack("=QQHHI", 0x1000, REGION, 1, NUM, 0), [memory])
    front.ring(base)
    return front


def made_up(kind, path, write):
    """A front-end whose ring and region were written before a back-end saw them."""
    memory = os.memfd_create("memory")
    os.ftruncate(memory, MEMORY)
    before = Front(path, memory)
    before.packed = kind is Packed
    write(before)
    before.close()
    return memory


def test_region_split(program, directory):
    """an in-flight region of another back-end: split, out of order, the last batch not settled"""
    def write(ring):
        for slot in (2, 3, 6):
            ring.put(DESC + 16 * slot, "QIHH", GUEST + ring.request(slot, 0, slot), 48, 4, 0)
        ring.put(AVAIL, "HH", 0, 7)
        ring.put(AVAIL + 4 + 2 * NUM, "H", 6)  # used_event: a call for the second of them
        ring.put(USED, "HH", 0, 5)
        ring.put(REGION, "QHHHH", 0, 1, NUM, 2, 4)
        for slot, counter in ((2, 1), (3, 9), (6, 4)):
            ring.put(REGION + 16 + 16 * slot, "B5xHQ", 1, 0, counter)

    content = noise(MIB)
    image = directory / "region.img"
    image.write_bytes(content)
    with daemon(program, directory, image) as running_daemon:
        memory = made_up(Front, running_daemon.path, write)
        front = take_over(Front, running_daemon.path, memory, 7, EVENT_IDX)
        need(front.wait_used(7), "the requests in flight are not served")
        need(select.select([front.call], [], [], 5)[0], "the driver is not called")
        served = [front.get(USED + 4 + 8 * slot, "I") for slot in (5, 6)]
        need(served == [6, 3], f"served were {served}")
        for slot in (3, 6):
            at = REQUESTS + 0x1000 * slot
            need(front.memory[at + 0x200:at + 0x400] == content[512 * slot:512 * slot + 512], "other data")
        need(front.get(REQUESTS + 0x2800, "B") == 0xFF, "a request that was complete is served again")
        front.close()
        os.close(memory)


def test_region_done(program, directory):
    """an in-flight region with nothing in flight: the driver is called, in case the last call was never made"""
    def write(ring):
        ring.put(AVAIL, "HH", 0, 3)
        ring.put(USED, "HH", 0, 3)
        ring.put(REGION, "QHHHH", 0, 1, NUM, 0, 3)

    image = directory / "region.img"
    image.write_bytes(noise(MIB))
    with daemon(program, directory, image) as running_daemon:
        memory = made_up(Front, running_daemon.path, write)
        front = take_over(Front, running_daemon.path, memory, 3)
        need(select.select([front.call], [], [], 2)[0], "the driver is not called")
        need(front.get(USED + 2, "H") == 3, "something was served")
        front.close()
        os.close(memory)


def packed_region(committed):
    """Two buffers in flight, in entries 4 and 1; a flush of both was under way, or just over."""
    def write(ring):
        flags = 0x8080 if committed else 0x0084
        ring.put(DESC + 16 * 2, "QIHH", 0, 0, 99, flags)
        ring.put(DESC + 16 * 3, "QIHH", 0, 0, 98, 0x8080)
        ring.put(REGION, "QHHHHHHBB", 0, 1, NUM, 4, 0, 4, 2, 1, 1)
        for entry, link in ((0, 2), (2, 3), (3, 5), (5, 6), (6, 7), (7, 8), (4, 1), (1, 0)):
            ring.put(REGION + 32 + 32 * entry + 2, "H", link)
        for entry, slot, counter in ((4, 5, 7), (1, 2, 3)):
            at = REGION + 32 + 32 * entry
            ring.put(at, "B", 1)
            ring.put(at + 4, "HHQHHIQ", entry, 1, counter, slot, 0x0084, 48, GUEST + ring.request(slot, 0, slot))
    return write


def test_region_packed(program, directory):
    """an in-flight region of another back-end: packed, its descriptors overwritten, a flush under way"""
    content = noise(MIB)
    image = directory / "region.img"
    image.write_bytes(content)
    with daemon(program, directory, image) as running_daemon:
        for committed in (False, True):
            memory = made_up(Packed, running_daemon.path, packed_region(committed))
            front = take_over(Packed, running_daemon.path, memory, 0x80028002)
            need(committed or front.wait_used(4), "the requests in flight are not served")
            front.state("GET_VRING_BASE", 0, 0)
            stands = struct.unpack("=II", front.receive()[0])[1]
            need(stands == 0x80048004, f"the ring stands at {stands:#x}")
            served = [front.get(DESC + 16 * slot + 12, "H") for slot in (2, 3)]
            need(served == ([99, 98] if committed else [2, 5]), f"used are {served}")
            status = [front.get(REQUESTS + 0x1000 * slot + 0x800, "B") for slot in (2, 5)]
            need(status == ([255, 255] if committed else [0, 0]), f"the requests' status is {status}")
            front.close()
            os.close(memory)


# ----- QEMU in front, its BIOS as the driver -----


def boot_sector(directory):
    source = pathlib.Path(__file__).parent / "support" / "boot_copy.S"
    try:
        subprocess.run(["gcc", "-m32", "-c", str(source), "-o", str(directory / "boot.o")], check=True, timeout=30)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(directory / "boot.o"),
                        str(directory / "boot.bin")], check=True, timeout=30)
    except FileNotFoundError as why:
        raise Skipped(f"needs {why.filename}") from None
    return (directory / "boot.bin").read_bytes()


def boot_and_copy(program, directory, kills):
    """SeaBIOS copies half of the disk to the other half; the daemon is killed meanwhile."""
    if shutil.which("qemu-system-x86_64") is None:
        raise Skipped("needs qemu-system-x86_64")
    half = 8192 * 512
    image, serial = directory / "boot.img", directory / "serial"
    content = boot_sector(directory) + noise(half - 512)
    image.write_bytes(content + bytes(half))
    running_daemon = Disk(program, directory, image)
    qemu = subprocess.Popen(
        ["qemu-system-x86_64", "-accel", "tcg", "-m", "64M", "-nodefaults", "-display", "none",
         "-machine", "q35,memory-backend=m", "-object", "memory-backend-memfd,id=m,size=64M,share=on",
         "-serial", f"file:{serial}", "-device", "isa-debug-exit,iobase=0x501,iosize=1",
         "-chardev", f"socket,id=c,path={running_daemon.path},reconnect=1",
         "-device", "vhost-user-blk-pci,chardev=c,bootindex=0"], stderr=subprocess.PIPE)
    try:
        for _ in range(kills):
            wait_for_copy(image, half, qemu)
            running_daemon.kill()
            running_daemon.start()
        try:
            text = qemu.communicate(timeout=60)[1].decode()
        except subprocess.TimeoutExpired:
            raise Failed(f"the copy does not end: {running_daemon.said()[-500:]}") from None
        need(serial.exists() and serial.read_bytes() == b"K", f"the copy failed: {text[-500:]}")
        running_daemon.stop()
    finally:
        qemu.kill()
        qemu.wait()
        running_daemon.kill()
    need(image.read_bytes() == content + bytes(512) + content[512:], "the copy differs")
    return running_daemon.said()


def wait_for_copy(image, half, qemu):
    """Waits until some more of the second half is written."""
    def progress():
        with open(image, "rb") as disk:
            disk.seek(half)
            return len(disk.read().rstrip(b"\0"))

    start, deadline = progress(), time.monotonic() + 30
    while progress() < start + 100 * 512:
        need(time.monotonic() < deadline and qemu.poll() is None, "the copy does not go on")
        time.sleep(0.001)


def test_qemu_bios(program, directory):
    """QEMU's vhost-user-blk-pci, driven by SeaBIOS: half a disk copied, sector by sector"""
    boot_and_copy(program, directory, 0)


def test_qemu_killed(program, directory):
    """QEMU's vhost-user-blk-pci, driven by SeaBIOS: the daemon killed five times meanwhile"""
    said = boot_and_copy(program, directory, 5)
    need(said.count("front-end connected") >= 6, "QEMU did not connect again")


QUICK = ["uml_raw", "qemu_bios"]
RUNS = {name[5:]: run for name, run in list(globals().items()) if name.startswith("test_")}


def main(about, runs, is_quick):
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--quick", action="store_true", help="the short runs only")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    args = parser.parse_args()
    passed = failed = 0
    for name, run in runs.items():
        if args.only not in name or (args.quick and not is_quick(name)):
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
    sys.exit(main(__doc__, RUNS, lambda name: name in QUICK or not name.startswith(("uml", "qemu"))))
