#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""The vhost-user block daemon, killed among its requests again and again: is anything acknowledged ever lost?

Usage: vhost_soak.py [--seconds N] [--seed N] path/to/vhost-blk

Four queues are kept busy with writes, reads and flushes, one or many at a time. Every few milliseconds the daemon is
killed (kill -9), started again, and connected to again with the same memory, rings and in-flight region: in the
middle of requests, of the recovery, of the handshake. Each sector holds its number and the generation of its last
write; what is acknowledged is compared with the image after each kill, and by reads through the device. After some
kills the driver makes nothing available until nothing is in flight, so that a request, a kick or a call that was
forgotten is found. Split and packed rings take turns.

A progress line every ten seconds, the counts at the end.
"""

import argparse
import mmap
import os
import pathlib
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time

import vhost
from vhost import GUEST, INFLIGHT, MEMORY, MIB, PACKED, USER, Failed, Front, need

QUEUES, NUM = 4, 32
QUEUE, DESC, AVAIL, USED, REQUESTS = 0x28000, 0, 0x1000, 0x2000, 0x3000  # a queue's part of the memory, what is in it
STATUS, TABLE, DATA, REQUEST = 0x10, 0x20, 0x200, 0x1200  # within a request, and all of it
READ, WRITE, FLUSH = 0, 1, 4
BLOCK = 8  # sectors: no two requests in flight are for the same block
DISK = 8 * MIB
DEPTHS = 1, 4, NUM  # requests in flight in a queue
FINISH = 0.3  # of the turns begin with a wait for all that was in flight: nothing else wakes the driver up then
KILL_WITHIN = 0.05  # seconds from one start to the kill
KILLS_A_ROUND = 40
PATIENCE = 10  # seconds for a request, whatever else the machine does


def stamp(sector, generation):
    return struct.pack("<QQ", sector, generation) * 32


class Request:
    """One in flight. `start` and `sectors` are of a write or read, `generation` of a write."""

    def __init__(self, kind, start=0, sectors=0, generation=0):
        self.kind, self.start, self.sectors, self.generation = kind, start, sectors, generation

    def range(self):
        return range(self.start, self.start + self.sectors)


class Ring:
    """The driver's end of a queue: one indirect descriptor a request."""

    def __init__(self, memory, index):
        self.memory, self.index, self.at = memory, index, index * QUEUE
        self.free, self.pending = list(range(NUM)), {}
        self.added = self.taken = 0
        self.kick, self.call = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))

    def put(self, at, fmt, *values):
        data = struct.pack("<" + fmt, *values)  # pack_into() would write zeroes first, for the daemon to see
        self.memory[self.at + at:self.at + at + len(data)] = data

    def get(self, at, fmt):
        return struct.unpack_from("<" + fmt, self.memory, self.at + at)[0]

    def table(self, ident, request):
        """Writes a request; returns the address and length of its descriptors."""
        at = REQUESTS + ident * REQUEST
        self.put(at, "IIQ", request.kind, 0, request.start)
        self.put(at + STATUS, "B", 0xFF)
        data = [] if request.kind == FLUSH else [(DATA, 512 * request.sectors, 2 if request.kind == READ else 0)]
        parts = [(0, 16, 0), *data, (STATUS, 1, 2)]
        for i, (offset, size, writable) in enumerate(parts):
            self.put(at + TABLE + 16 * i, "QIHH", GUEST + self.at + at + offset, size,
                     *self.links(writable, i, i + 1 == len(parts)))
        return GUEST + self.at + at + TABLE, 16 * len(parts)

    def submit(self, request):
        ident = self.free.pop()
        if request.kind == WRITE:
            at = self.at + REQUESTS + ident * REQUEST + DATA
            data = b"".join(stamp(sector, request.generation) for sector in request.range())
            self.memory[at:at + len(data)] = data
        self.pending[ident] = request
        self.offer(ident, *self.table(ident, request))
        self.added += 1

    def finish(self, ident, length):
        """A request that the daemon says is done, and what it read."""
        request = self.pending.pop(ident, None)
        need(request is not None, f"queue {self.index}: request {ident} completed twice, or never made")
        status = self.get(REQUESTS + ident * REQUEST + STATUS, "B")
        need(status == 0, f"queue {self.index}: a request failed with {status}")
        size = 512 * request.sectors if request.kind == READ else 0
        need(length == size + 1, f"queue {self.index}: {length} bytes written, not {size + 1}")
        at = self.at + REQUESTS + ident * REQUEST + DATA
        self.free.append(ident)
        self.taken += 1
        return request, self.memory[at:at + size]


class SplitRing(Ring):
    name, features = "split", 0

    def links(self, writable, i, last):
        return (writable, 0) if last else (writable | 1, i + 1)

    def offer(self, ident, address, length):
        self.put(DESC + 16 * ident, "QIHH", address, length, 4, 0)
        self.put(AVAIL + 4 + 2 * (self.added % NUM), "H", ident)
        self.put(AVAIL + 2, "H", (self.added + 1) % 65536)

    def take(self):
        if self.get(USED + 2, "H") == self.taken % 65536:
            return None
        at = USED + 4 + 8 * (self.taken % NUM)
        return self.finish(self.get(at, "I"), self.get(at + 4, "I"))

    def base(self):
        """As QEMU says it when the back-end went away without an answer."""
        return self.get(USED + 2, "H")

    def stands(self):
        return self.added % 65536


class PackedRing(Ring):
    name, features = "packed", PACKED

    def links(self, writable, i, last):
        return 0, writable

    def offer(self, ident, address, length):
        at, first = DESC + 16 * (self.added % NUM), self.added // NUM % 2 == 0
        self.put(at, "QIH", address, length, ident)
        self.put(at + 14, "H", 4 | (0x0080 if first else 0x8000))

    def take(self):
        at, first = DESC + 16 * (self.taken % NUM), self.taken // NUM % 2 == 0
        if self.get(at + 14, "H") & 0x8080 != (0x8080 if first else 0):
            return None
        return self.finish(self.get(at + 12, "H"), self.get(at + 8, "I"))

    def base(self):
        """That of a fresh ring: nobody but the in-flight region knows."""
        return 0x80008000

    def stands(self):
        place = self.added % NUM | (0x8000 if self.added // NUM % 2 == 0 else 0)
        return place | place << 16


class Soak:
    """One daemon, one disk, and what has to be on it."""

    def __init__(self, program, directory, pick):
        self.pick, self.image = pick, directory / "soak.img"
        self.written = [0] * (DISK // 512)  # generation of each sector's last acknowledged write
        self.generation, self.unverified, self.busy = 0, set(), set()
        self.requests = self.kills = self.caught = self.again = self.verified = self.began = self.progress = 0
        self.name = ""
        with open(self.image, "wb") as disk:
            disk.write(b"".join(stamp(sector, 0) for sector in range(DISK // 512)))
        self.daemon = vhost.Disk(program, directory, self.image, "--queues", str(QUEUES))
        signal.signal(signal.SIGALRM, lambda *_: self.daemon.process.kill())

    # ----- what is asked, and what has to come of it -----

    def request(self):
        kind = self.pick.choices((WRITE, READ, FLUSH), (70, 28, 2))[0]
        if kind == FLUSH:
            return Request(kind)
        block = self.pick.randrange(DISK // 512 // BLOCK)
        while block in self.busy:
            block = self.pick.randrange(DISK // 512 // BLOCK)
        self.busy.add(block)
        first = self.pick.randrange(BLOCK)
        self.generation += kind == WRITE
        return Request(kind, block * BLOCK + first, self.pick.randint(1, BLOCK - first), self.generation)

    def settle(self, request, data):
        self.requests += 1
        self.busy.discard(request.start // BLOCK if request.sectors else None)
        for i, sector in enumerate(request.range()):
            if request.kind == WRITE:
                self.written[sector] = request.generation
                self.unverified.add(sector)
            else:
                need(data[512 * i:512 * i + 512] == stamp(sector, self.written[sector]),
                     f"sector {sector} reads as {data[512 * i:512 * i + 16].hex()}")
        self.verified += request.sectors if request.kind == READ else 0

    def verify(self, rings, sectors):
        """Looks into the image: what was acknowledged is there, or a write that is on its way."""
        later = {sector: request.generation for ring in rings for request in ring.pending.values()
                 if request.kind == WRITE for sector in request.range()}
        with open(self.image, "rb") as disk:
            for sector in sectors:
                disk.seek(512 * sector)
                found, due = disk.read(512), self.written[sector]
                need(found == stamp(sector, due) or (sector in later and found == stamp(sector, later[sector])),
                     f"sector {sector} holds {found[:16].hex()}, not generation {due}: an acknowledged write is lost")
        self.verified += len(sectors)

    # ----- the driver -----

    def take(self, rings, seconds):
        """What the daemon calls for, within so many seconds; nothing that it does not call for is seen."""
        called = select.select([ring.call for ring in rings], [], [], seconds)[0]
        for ring in rings:
            if ring.call in called:
                os.eventfd_read(ring.call)
                done = ring.take()
                while done is not None:
                    self.settle(*done)
                    done = ring.take()

    def connect(self, rings, region):
        """Returns the connection, or None if the daemon was killed meanwhile, and the in-flight region."""
        front = None
        try:
            front = Front(self.daemon.path, self.memory)
            return front, self.set_up(front, rings, region)
        except (OSError, Failed):
            if front is not None:
                front.close()
            self.end()
            return None, region

    def set_up(self, front, rings, region):
        front.features(extra=1 << 28 | rings[0].features, protocol=INFLIGHT)
        front.table()
        if region is None:
            front.send("GET_INFLIGHT_FD", struct.pack("=QQHHI", 0, 0, QUEUES, NUM, 0))
            shape, fds = front.receive()
            region = shape, fds[0]
        front.send("SET_INFLIGHT_FD", region[0], [region[1]])
        for ring in rings:
            index, at = ring.index, USER + ring.at
            front.state("SET_VRING_NUM", index, NUM)
            front.state("SET_VRING_BASE", index, ring.base())
            front.send("SET_VRING_ADDR", struct.pack("=IIQQQQ", index, 0, at + DESC, at + USED, at + AVAIL, 0))
            front.number("SET_VRING_CALL", index, [ring.call])
            front.number("SET_VRING_KICK", index, [ring.kick])
            front.state("SET_VRING_ENABLE", index, 1)
        return region

    def fill(self, ring, depth):
        if len(ring.pending) < depth:
            while len(ring.pending) < depth:
                ring.submit(self.request())
            os.eventfd_write(ring.kick, 1)

    def work(self, rings, depth):
        """Keeps so many requests in flight in each queue, or with 0 waits for the last one; until the daemon is gone.
        It has to see by itself what was made available, or is to be called for, before it was killed."""
        deadline = time.monotonic() + PATIENCE
        while self.daemon.process.poll() is None and (depth > 0 or any(ring.pending for ring in rings)):
            for ring in rings:
                self.fill(ring, depth)
            before = self.requests
            self.take(rings, 0.005)
            deadline = time.monotonic() + PATIENCE if self.requests != before else deadline
            need(time.monotonic() < deadline,
                 f"requests are lost: {[len(ring.pending) for ring in rings]}; {self.daemon.said()[-300:]}")
            self.say()

    def end(self):
        """Waits until the daemon is dead, of what is meant to kill it."""
        try:
            status = self.daemon.process.wait(1)
        except subprocess.TimeoutExpired:
            raise Failed(f"the daemon does not go on: {self.daemon.said()[-500:]}") from None
        need(status == -signal.SIGKILL, f"the daemon ended by itself with {status}: {self.daemon.said()[-500:]}")

    def restart(self, rings):
        """The daemon is dead: what it left behind, and the next one."""
        self.end()
        self.kills += 1
        self.take(rings, 0)
        self.caught += any(ring.pending for ring in rings)
        self.verify(rings, self.unverified)
        self.unverified.clear()
        self.heard()
        self.daemon.start()

    def heard(self):
        said = self.daemon.said()
        need("dropped" not in said and "left alone" not in said, f"the daemon says {said[-500:]}")
        self.again += said.count("in flight served again")
        self.daemon.log.unlink()

    def kill_soon(self):
        signal.setitimer(signal.ITIMER_REAL, self.pick.uniform(0.0001, KILL_WITHIN))

    def turn(self, rings, region):
        """From one start of the daemon to its death; returns the in-flight region."""
        finish = self.pick.random() < FINISH
        if not finish:
            self.kill_soon()
        front, region = self.connect(rings, region)
        if finish:
            self.work(rings, 0)
            self.kill_soon()
        if front is not None:
            self.work(rings, self.pick.choice(DEPTHS))
            front.close()
        self.restart(rings)
        return region

    def round(self, kind):
        """Some kills of one format; then everything is finished, and the whole disk compared."""
        self.memory = os.memfd_create("memory")
        os.ftruncate(self.memory, MEMORY)
        with mmap.mmap(self.memory, MEMORY) as memory:
            rings, region = [kind(memory, index) for index in range(QUEUES)], None
            self.name = kind.name
            for _ in range(KILLS_A_ROUND):
                region = self.turn(rings, region)
            front, region = self.connect(rings, region)
            self.work(rings, 0)
            need(not any(ring.pending for ring in rings), f"the daemon ended by itself: {self.daemon.said()[-300:]}")
            for ring in rings:
                front.state("GET_VRING_BASE", ring.index, 0)
                stands = struct.unpack("=II", front.receive()[0])[1]
                need(stands == ring.stands(), f"queue {ring.index} stands at {stands:#x}, not {ring.stands():#x}")
            front.close()
        self.verify([], range(DISK // 512))
        for fd in (self.memory, region[1], *(ring.kick for ring in rings), *(ring.call for ring in rings)):
            os.close(fd)

    # ----- the whole of it -----

    def counts(self):
        return (f"{self.requests} requests, {self.kills} kills, {self.caught} of them with requests in flight, "
                f"{self.again} recoveries of a queue, {self.verified} sectors verified, 0 lost")

    def say(self):
        now = time.monotonic()
        if now - self.progress >= 10:
            self.progress = now
            print(f"  {now - self.began:5.0f} s, {self.name}: {self.counts()}", flush=True)

    def run(self, seconds):
        self.began = self.progress = time.monotonic()
        rounds = 0
        try:
            while rounds < 2 or time.monotonic() < self.began + seconds:
                self.round((SplitRing, PackedRing)[rounds % 2])
                rounds += 1
            need(self.again > 0, "never was a request in flight")
            self.daemon.stop()
        finally:
            self.daemon.kill()
        print(f"{self.counts()}; {QUEUES} queues of {NUM}, split and packed, {time.monotonic() - self.began:.0f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--seconds", type=int, default=10, help="at least; a round is finished")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vhost-soak-") as directory:
        try:
            Soak(args.program, pathlib.Path(directory), random.Random(args.seed)).run(args.seconds)
        except Failed as why:
            print(f"FAILED: {why}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
