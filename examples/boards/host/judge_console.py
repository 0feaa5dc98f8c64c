# SPDX-License-Identifier: MIT-0
"""Judges of the console program: ports on sockets. Each byte must come back once, in order and
changed as that port changes it."""

import hashlib
import os
import re
import select
import socket
import sys
import threading
import time

from judge import Judge
from machine import Failed

PORTS = 8
KEY = 0x55  # of port 0; the next port has the next one, see programs/console.c
WINDOW = 16384  # bytes under way on a port: QEMU drops what a virtconsole's socket does not take
PATIENCE = 8  # seconds without a byte, or for a line of the console


def connect(path, seconds=10):
    """A socket that QEMU listens on, or will soon."""
    end = time.monotonic() + seconds
    while True:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(path)
            return link
        except OSError as why:
            link.close()
            if time.monotonic() > end:
                raise Failed(f"{os.path.basename(path)}: {why}") from why
            time.sleep(0.05)


class Port:
    """One port as seen from the host: what was sent, and what must come back of it."""

    def __init__(self, number, is_console, path):
        self.number = number
        self.is_console = is_console
        self.path = path
        self.name = f"board.port.{number}"
        self.changed = bytes(i ^ (KEY + number) for i in range(256))
        self.due = bytearray()
        self.sent = self.got = 0
        self.sent_sum, self.got_sum = hashlib.sha256(), hashlib.sha256()
        self.link = None

    def open(self):
        self.link = connect(self.path)
        self.link.setblocking(False)

    def close(self):
        self.link.close()
        self.due.clear()

    def fileno(self):
        return self.link.fileno()

    def send(self, length):
        """Sends up to so many bytes, as many as the socket takes."""
        data = os.urandom(length)
        try:
            count = self.link.send(data)
        except BlockingIOError:
            return 0
        back = data[:count].translate(self.changed)
        self.due += back
        self.sent_sum.update(back)
        self.sent += count
        return count

    def receive(self):
        """Takes what came and compares it with what was due."""
        data = self.link.recv(1 << 16)
        if data == b"":
            raise Failed(f"port {self.number}: QEMU closed the socket")
        if self.due[: len(data)] != data:
            at = next((i for i, byte in enumerate(data) if self.due[i : i + 1] != bytes([byte])))
            what = "is wrong" if at < len(self.due) else "was never sent"
            raise Failed(f"port {self.number}: byte {self.got + at} that came back {what}")
        del self.due[: len(data)]
        self.got_sum.update(data)
        self.got += len(data)


def exchange(ports, amount=0, until=0, progress=None):
    """So many bytes, or until that time, on all ports at once, and all of them back."""
    left = {port: amount for port in ports}
    heard = time.monotonic()
    while True:
        now = time.monotonic()
        more = [p for p in ports if (left[p] > 0 or now < until) and len(p.due) < WINDOW]
        if not more and not any(p.due for p in ports):
            return
        readable, writable, _ = select.select(ports, more, [], 1)
        for port in writable:
            room = WINDOW - len(port.due)
            left[port] -= port.send(room if until else min(room, left[port]))
        for port in readable:
            port.receive()
            heard = time.monotonic()
        if time.monotonic() - heard > PATIENCE:
            silent = ", ".join(f"{p.number} ({len(p.due)} bytes)" for p in ports if p.due)
            raise Failed(f"nothing came back for {PATIENCE} seconds on port {silent}")
        if progress:
            progress()


def stall(port, others, limit=1 << 20):
    """Sends on a port until nothing moves, reading nothing, while the other ports go on."""
    while port.sent < limit:
        if not select.select([], [port], [], 0.5)[1]:
            break
        port.send(8192)
    else:
        raise Failed(f"port {port.number}: {limit} bytes went in with nobody to read them")
    exchange(others, 65536)


class ConsoleJudge(Judge):
    """Ports, a thread that plays the host's part in script(), and the way to quit."""

    seconds = 120
    count = PORTS
    own = ()  # properties of the device

    def arguments(self):
        limits = [p for p in self.front.properties if p.startswith("max_ports=")]
        self.limit = int(limits[-1].split("=")[1]) if limits else 31
        self.count = min(self.count, self.limit)
        self.ports = []
        self.lines = []
        self.news = threading.Condition()
        result = ["-S", *self.front.device("serial", "id=serial0", *self.own)]
        for number in range(self.count):
            port = Port(number, number in (0, PORTS - 1), self.path(f"port{number}"))
            self.ports.append(port)
            chardev = f"socket,id=c{number},path={port.path},server=on,wait=off"
            driver = "virtconsole" if port.is_console else "virtserialport"
            result += ["-chardev", chardev, "-device"]
            result.append(f"{driver},bus=serial0.0,nr={number},id=port{number},name={port.name},"
                          f"chardev=c{number}")
        return result

    def started(self, machine):
        self.machine = machine
        for port in self.ports:
            port.open()
        connect(machine.monitor).close()
        machine.qmp("cont")
        self.thread = threading.Thread(target=self.play, daemon=True)
        self.thread.start()

    def play(self):
        try:
            self.emergency()
            self.script()
            self.quiet()
            self.ports[0].link.send(b"quit\n")
        except (Failed, OSError) as why:
            self.failure = str(why)
            self.machine.process.kill()

    def script(self):
        raise NotImplementedError

    def line(self, machine, text):
        with self.news:
            self.lines.append(text)
            self.news.notify()

    def expect(self, *texts):
        """Waits for lines of the console, in any order; forgets them and what was before them."""
        missing = list(texts)
        with self.news:
            end = time.monotonic() + PATIENCE
            at = 0
            while missing:
                while at == len(self.lines):
                    if not self.news.wait(end - time.monotonic()):
                        raise Failed(f'the console did not say "{missing[0]}"')
                missing = [t for t in missing if not re.fullmatch(f" *{t}", self.lines[at])]
                at += 1
            del self.lines[:at]

    def emergency(self):
        """A character before anything else, on port 0."""
        if "emergency-write=off" in self.front.properties:
            return
        port = self.ports[0]
        if not select.select([port], [], [], PATIENCE)[0] or port.link.recv(1) != b"!":
            raise Failed("no emergency character")

    def quiet(self):
        """Nothing may come that is not due."""
        for port in select.select(self.ports, [], [], 0.3)[0]:
            port.receive()

    def ended(self):
        self.thread.join(timeout=5)
        for port in self.ports:
            if port.due:
                raise Failed(f"port {port.number}: {len(port.due)} bytes did not come back")
        sent = sum(port.sent for port in self.ports)
        return f"{sent} bytes on {self.count} ports came back as they should"


class Console(ConsoleJudge):
    """Data of many sizes, readers that stall, ports that are closed, opened, removed and added."""

    def script(self):
        everything = [rf"port {p.number} +named \"{re.escape(p.name)}\"" for p in self.ports]
        everything += [rf"port {p.number} +opened" for p in self.ports]
        everything += [rf"port {p.number} +is a console" for p in self.ports if p.is_console]
        self.expect(*everything)
        for size in 1, 7, 511, 512, 513, 4096, 100001:
            exchange(self.ports, size)
        plugs = [port for port in self.ports if not port.is_console]
        for port in plugs:
            self.reopen(port)
        stall(plugs[0], [p for p in self.ports if p != plugs[0]])
        exchange(self.ports, 4096)
        for port in plugs[-2:]:
            self.replace(port)
        if self.limit > PORTS:
            self.refused()
        exchange(self.ports, 100001)

    def reopen(self, port):
        port.close()
        self.expect(rf"port {port.number} +closed")
        port.open()
        self.expect(rf"port {port.number} +opened")
        exchange([port], 2000)

    def replace(self, port):
        """Another port of the same number, while the queues of the old one are full."""
        number = port.number
        stall(port, [p for p in self.ports if p != port], port.sent + (1 << 20))
        self.machine.qmp("device_del", id=f"port{number}")
        self.expect(rf"port {number} +removed")
        port.close()
        port.path += "-again"
        address = {"type": "unix", "data": {"path": port.path}}
        self.plug(number, f"again.{number}", "socket", addr=address, server=True, wait=False)
        self.expect(rf"port {number} +added", rf"port {number} +named \"again\.{number}\"")
        port.open()
        self.expect(rf"port {number} +opened")
        exchange(self.ports, 5000)

    def plug(self, number, name, kind, **backend):
        """Adds a port, with a back-end of its own: QEMU lets go of an old one only later."""
        self.machine.qmp("chardev-add", id=name, backend={"type": kind, "data": backend})
        self.machine.qmp("device_add", driver="virtserialport", bus="serial0.0", nr=str(number),
                         chardev=name, name=name, id=name)

    def refused(self):
        """One that the driver has no queues for: the others do not notice."""
        self.plug(PORTS, "too.many", "null")
        self.expect(rf"port {PORTS} +refused: .* that this driver has no queues for")
        self.machine.qmp("device_del", id="too.many")


class ConsolePlain(ConsoleJudge):
    """A device with one console and no control queues."""

    count = 1
    own = ("max_ports=1",)

    def script(self):
        self.expect(r"queue +1, .*")
        for size in 1, 7, 511, 512, 513, 4096, 100001:
            exchange(self.ports, size)

    def ended(self):
        if any("MULTIPORT" in text for text in self.lines):
            raise Failed("the device has several ports")
        return super().ended()


class ConsoleSoak(ConsoleJudge):
    """Eight ports in both directions for SOAK seconds, 100 MB if that is 300."""

    duration = int(os.environ.get("SOAK", "20"))
    seconds = duration + 60
    least = 100_000_000 * duration // 300

    def script(self):
        self.expect(*[rf"port {p.number} +opened" for p in self.ports])
        self.begin = self.shown = time.monotonic()
        exchange(self.ports, until=self.begin + self.duration, progress=self.progress)
        self.took = time.monotonic() - self.begin

    def progress(self):
        now = time.monotonic()
        if now - self.shown < 5:
            return
        self.shown = now
        print(f"  soak       {now - self.begin:.0f} of {self.duration} s, "
              f"{sum(p.got for p in self.ports) / 1e6:.1f} MB", file=sys.stderr, flush=True)

    def ended(self):
        super().ended()
        for port in self.ports:
            if port.sent_sum.digest() != port.got_sum.digest():
                raise Failed(f"port {port.number}: checksums differ")
        total = sum(p.got for p in self.ports)
        if total < self.least:
            raise Failed(f"{total} bytes in {self.took:.0f} seconds, {self.least} were to be")
        return (f"{total} bytes each way on {self.count} ports in {self.took:.0f} seconds, "
                "sha256 of each port equal")
