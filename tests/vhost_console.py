#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""The vhost-user console daemon, judged by Linux's own virtio_console and by messages nobody should send.

Usage: vhost_console.py [--quick] [--only WORD] path/to/vhost-console

A line for each run; "N passed, N failed" at the end. User-mode Linux (Debian: user-mode-linux, busybox-static) is
the guest; the host side of each port is a socket here.
"""

import concurrent.futures
import contextlib
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tty

import vhost
from vhost import MIB, need, noise, sha


class Console(vhost.Daemon):
    """A running vhost-console with these named ports; its own input and output are pipes, or a file."""

    type, module = 3, "virtio_console"

    def __init__(self, program, directory, *names, options=(), out=subprocess.PIPE):
        self.ports = {name: str(directory / f"port-{name}") for name in names}
        ports = [word for name, path in self.ports.items() for word in ("--port", f"{name}={path}")]
        super().__init__(program, directory, "console", *ports, *options, stdin=subprocess.PIPE, stdout=out)
        if self.process.stdout:
            os.set_blocking(self.process.stdout.fileno(), False)

    def connect(self, name):
        """Somebody comes to the host side of a port."""
        host = socket.socket(socket.AF_UNIX)
        host.settimeout(20)
        host.connect(self.ports[name])
        return host

    def type_line(self):
        """Somebody types at the console."""
        self.process.stdin.write(b"go on\n")
        self.process.stdin.flush()

    def wait_ready(self):
        """Waits until the guest's script has begun."""
        line, deadline = b"", time.monotonic() + 20
        while line != b"ready\n":
            need(time.monotonic() < deadline, f"the guest does not begin: {line} {self.said()[-2000:]}")
            if select.select([self.process.stdout], [], [], 1)[0]:
                line += os.read(self.process.stdout.fileno(), 6 - len(line))

    def wait_said(self, text, count=1):
        deadline = time.monotonic() + 20
        while self.said().count(text) < count:
            need(time.monotonic() < deadline, f"the daemon does not say \"{text}\": {self.said()[-2000:]}")
            time.sleep(0.01)


class Split:
    """Stands between one front-end and a daemon, and hides that the daemon has packed rings."""

    def __init__(self, running):
        self.path, self.type, self.module, self.said = running.path + ".split", running.type, running.module, running.said
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(self.path)
        self.listening.listen()
        self.daemon = socket.socket(socket.AF_UNIX)
        self.daemon.connect(running.path)
        threading.Thread(target=self.relay, daemon=True).start()

    def relay(self):
        front, _ = self.listening.accept()
        self.listening.close()
        with front, self.daemon:
            while True:
                for source in select.select([front, self.daemon], [], [])[0]:
                    target = self.daemon if source is front else front
                    head, fds, _, _ = socket.recv_fds(source, 12, 8)
                    if not head:
                        return
                    request, _, size = struct.unpack("=III", head)
                    payload = source.recv(size, socket.MSG_WAITALL) if size else b""
                    if request == vhost.REQUEST["GET_FEATURES"] and source is self.daemon:
                        payload = struct.pack("=Q", struct.unpack("=Q", payload)[0] & ~vhost.PACKED)
                    socket.send_fds(target, [head + payload], fds)
                    for fd in fds:
                        os.close(fd)


@contextlib.contextmanager
def guest(directory, running, script, files=None):
    """A guest that runs a script while the host's side goes on here; its result() is what it printed."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(vhost.uml, directory, [running], script, files)


def exchange(incoming, outgoing, data, size):
    """Sends data to one descriptor while `size` bytes are read from the other: those."""
    got, sent, deadline = bytearray(), 0, time.monotonic() + 25
    os.set_blocking(outgoing, False)
    while sent < len(data) or len(got) < size:
        need(time.monotonic() < deadline, f"{sent} of {len(data)} bytes sent, {len(got)} of {size} received")
        readable, writable, _ = select.select([incoming] if len(got) < size else [],
                                              [outgoing] if sent < len(data) else [], [], 1)
        if readable:
            piece = os.read(incoming, 65536)
            need(piece, f"the end after {len(got)} of {size} bytes")
            got += piece
        if writable:
            sent += os.write(outgoing, data[sent:sent + 65536])
    return bytes(got)


def received(host):
    """All that comes until the other side ends the connection."""
    got = bytearray()
    try:
        while piece := host.recv(65536):
            got += piece
    except TimeoutError:
        raise vhost.Failed(f"the other side does not end the connection, after {len(got)} bytes") from None
    return bytes(got)


# How a script begins: the console is descriptor 4, and carries bytes as they are; `port` finds a port by its name,
# of which the last one is called so.
BEGIN = """
port() { for at in /sys/class/virtio-ports/*; do [ "$(cat $at/name 2>/dev/null)" = $1 ] && echo /dev/${at##*/}; done; }
until [ -c /dev/hvc0 ] && [ -n "$(port last)" ]; do usleep 10000; done
exec 4<>/dev/hvc0
stty raw -echo <&4
echo "ready" >&4
"""


def test_names(program, directory):
    """user-mode Linux: console in and out, names and devices of ports, size"""
    running = Console(program, directory, "first", "org.example.second", "third", "last",
                      options=("--size", "132x43"))
    with vhost.while_running(running), guest(directory, running, BEGIN + """
            for name in first org.example.second third last; do echo "name $name $(port $name)"; done
            echo "features $(cat /sys/bus/virtio/devices/virtio0/features)"
            echo "size $(stty size <&4)"
            echo "to the host" >&4
            read -r line <&4
            echo "line $line"
            """) as result:
        running.wait_ready()
        running.type_line()
        text = result.result()
        out = running.process.stdout.read()
    for number, name in enumerate(("first", "org.example.second", "third", "last"), 1):
        need(f"name {name} /dev/vport0p{number}\n" in text, f"the guest does not see {name}: {text}")
    need("features 11" in text, f"SIZE or MULTIPORT is not agreed: {text}")
    # RESIZE has columns first, but there are kernels that take the first number for rows.
    need("size 43 132\n" in text or "size 132 43\n" in text, f"the guest sees another size: {text}")
    need(out == b"to the host\n", f"the host sees {out}")
    need("line go on\n" in text, f"the guest sees {text}")


def transfer(program, directory, size, names, between=lambda running: running):
    """`size` bytes each way on each port and on the console, all at the same time."""
    to_guest = {name: noise(size, seed) for seed, name in enumerate((*names, "console"))}
    to_host = {name: noise(size, 100 + seed) for seed, name in enumerate((*names, "console"))}
    files = {f"{name}.data": (0o100644, data) for name, data in to_host.items()}
    running = Console(program, directory, *names)
    script = BEGIN + "both() { exec 3<>$2; cat $1 >&3 & echo \"got $(head -c " + str(size) + """ <&3 | sha256sum)"; wait; }
            for name in """ + " ".join(names) + """; do { both /$name.data $(port $name); cat <&3; } & done
            both /console.data /dev/hvc0 &
            wait
            echo "features $(cat /sys/bus/virtio/devices/virtio0/features)"
            """
    with vhost.while_running(running), guest(directory, between(running), script, files) as result, \
            concurrent.futures.ThreadPoolExecutor() as pool:
        running.wait_ready()
        hosts = {name: running.connect(name) for name in names}
        jobs = {name: pool.submit(exchange, host.fileno(), host.fileno(), to_guest[name], size)
                for name, host in hosts.items()}
        jobs["console"] = pool.submit(exchange, running.process.stdout.fileno(), running.process.stdin.fileno(),
                                      to_guest["console"], size)
        for name, job in jobs.items():
            need(job.result() == to_host[name], f"port {name}: the host received something else")
        for host in hosts.values():  # which the guest waits for
            host.close()
        text = result.result()
    for name, data in to_guest.items():
        need(f"got {sha(data)}" in text, f"port {name}: the guest received something else: {text}")
    return re.search("features ([01]{35})", text)[1][34] == "1"


def test_transfer(program, directory):
    """user-mode Linux, packed rings: four megabytes each way on a console and four ports, all at once"""
    need(transfer(program, directory, 4 * MIB, ("a", "b", "c", "last")), "the rings were not packed")


def test_transfer_split(program, directory):
    """user-mode Linux, split rings: four megabytes each way on a console and four ports, all at once"""
    need(not transfer(program, directory, 4 * MIB, ("a", "b", "c", "last"), Split), "the rings were not split")


def test_transfer_quick(program, directory):
    """user-mode Linux, packed rings: a megabyte each way on a console and two ports, all at once"""
    transfer(program, directory, MIB, ("a", "last"))


def test_host_closes(program, directory):
    """user-mode Linux: the host side closed and opened again, seen by the guest in that order"""
    running = Console(program, directory, "last")
    with vhost.while_running(running), guest(directory, running, BEGIN + """
            for turn in 1 2 3; do
                exec 3<>$(port last)
                echo "turn $turn: $(cat <&3)"
                exec 3<&-
            done
            """) as result:
        for turn in range(1, 4):
            host = running.connect("last")
            running.wait_said("port last: opened by the driver", turn)
            host.sendall(b"x" * 100000 + b" from %d" % turn)
            host.close()
            running.wait_said("port last: closed by the driver", turn)
        text = result.result()
    for turn in range(1, 4):
        need(f"turn {turn}: {'x' * 100000} from {turn}\n" in text, f"the guest missed turn {turn}: {text[-500:]}")


def test_guest_closes(program, directory):
    """user-mode Linux: the guest closes a port, and the host reads all of it and then the end"""
    data = noise(MIB)
    running = Console(program, directory, "last")
    with vhost.while_running(running), guest(directory, running, BEGIN + """
            for turn in 1 2 3; do
                read -r line <&4
                { cat /data; echo "turn $turn"; } >$(port last)
            done
            read -r line <&4
            """, {"data": (0o100644, data)}) as result:
        for turn in range(1, 4):
            host = running.connect("last")
            running.wait_said("port last: connected", turn)
            running.type_line()
            time.sleep(0.2)  # so that it has to wait for room
            need(received(host) == data + b"turn %d\n" % turn, f"turn {turn}: the host received something else")
            host.close()
        running.type_line()  # it may go now
        result.result()


def test_stalled(program, directory):
    """user-mode Linux: ports whose reader waits, on either side, do not hold up the others"""
    data = noise(2 * MIB)
    running = Console(program, directory, "out", "in", "last")
    with vhost.while_running(running), guest(directory, running, BEGIN + """
            exec 5<>$(port out) 6<>$(port in) 7<>$(port last)
            cat /data >&5 &
            cat <&7 >&7 &
            read -r line <&4
            echo "got $(head -c 2097152 <&6 | sha256sum)"
            read -r line <&4
            """, {"data": (0o100644, data)}) as result, concurrent.futures.ThreadPoolExecutor() as pool:
        stalled, fed, lively = (running.connect(name) for name in ("out", "in", "last"))
        fed.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(data):
                sent += fed.send(data[sent:])
        running.wait_said("port last: opened by the driver")
        need(exchange(lively.fileno(), lively.fileno(), data[:MIB], MIB) == data[:MIB], "the echo differs")
        need(sent < len(data), "nothing held up the sender")
        running.type_line()
        feeding = pool.submit(exchange, fed.fileno(), fed.fileno(), data[sent:], 0)
        got = exchange(stalled.fileno(), stalled.fileno(), b"", len(data))
        feeding.result()
        need(got == data, "what waited is not what was sent")
        lively.close()
        running.type_line()
        need(f"got {sha(data)}" in result.result(), "the guest received something else")


def test_again(program, directory):
    """user-mode Linux: guests one after the other, each killed with data on the way but the last"""
    input_data = noise(1000000)
    running = Console(program, directory, "last")
    with vhost.while_running(running):
        for turn in range(1, 4):
            with guest(directory, running, BEGIN + """
                    exec 3<>$(port last)
                    yes "out of this world" | head -c 4000000 >&3 &
                    head -c 1000000 <&3 | sha256sum
                    """ + ("poweroff -f" if turn < 3 else "wait; cat <&3")) as result:
                host = running.connect("last")
                running.wait_said("port last: opened by the driver", turn)
                host.sendall(input_data)
                if turn < 3:  # this one ends in the middle of its output, which nobody reads
                    with contextlib.suppress(vhost.Failed):
                        result.result()
                    running.wait_said("front-end went away", turn)
                    with contextlib.suppress(ConnectionResetError):
                        received(host)
                    host.close()
                    continue
                got = exchange(host.fileno(), host.fileno(), b"", 4000000)
                need(got == (b"out of this world\n" * 250000)[:4000000], "the host received something else")
                host.close()
                need(sha(input_data) in result.result(), "the guest received something else")


# ----- no real driver does this -----


class Queue:
    """A split ring of 64 entries, with its buffers behind it, in a front-end's memory."""

    def __init__(self, front, index):
        self.front, self.at, self.count, self.end = front, 0x10000 + 0x2000 * index, 0, 0x40000 + 0x8000 * index
        front.state("SET_VRING_NUM", index, 64)
        front.state("SET_VRING_BASE", index, 0)
        front.send("SET_VRING_ADDR", struct.pack("=IIQQQQ", index, 0, vhost.USER + self.at,
                                                 vhost.USER + self.at + 0x800, vhost.USER + self.at + 0x400, 0))
        front.number("SET_VRING_KICK", index, [front.kick])
        front.state("SET_VRING_ENABLE", index, 1)

    def offer(self, *buffers):
        """Makes buffers available: bytes to be read, or a number of bytes to be written."""
        for buffer in buffers:
            size = buffer if isinstance(buffer, int) else len(buffer)
            if not isinstance(buffer, int):
                self.front.memory[self.end:self.end + size] = buffer
            self.front.put(self.at + 16 * self.count, "QIHH", vhost.GUEST + self.end, size,
                           2 if isinstance(buffer, int) else 0, 0)
            self.front.put(self.at + 0x404 + 2 * self.count, "H", self.count)
            self.end, self.count = self.end + size, self.count + 1
        self.front.put(self.at + 0x402, "H", self.count)

    def wait_used(self, count):
        os.eventfd_write(self.front.kick, 1)
        deadline = time.monotonic() + 5
        while self.front.get(self.at + 0x802, "H") != count:
            need(time.monotonic() < deadline, f"{self.front.get(self.at + 0x802, 'H')} of {count} buffers are used")
            time.sleep(0.01)


def message(port, event, value):
    return struct.pack("<IHH", port, event, value)


def raw_driver(running):
    """A driver of a few lines that has taken ports 0 and 1: front-end, control queue to the device, output of 1."""
    front = vhost.Front(running.path)
    front.features(extra=2)
    front.table()
    told, control = Queue(front, 2), Queue(front, 3)
    told.offer(*[64] * 20)
    control.offer(message(0, 0, 1))
    told.wait_used(2)
    control.offer(message(0, 3, 1), message(1, 3, 1))
    control.wait_used(3)
    return front, control, Queue(front, 5)


def test_raw_close(program, directory):
    """a driver of a few lines: a close after many buffers and a large one, all of which come first"""
    running = Console(program, directory, "last")
    with vhost.while_running(running):
        front, control, output = raw_driver(running)
        host = running.connect("last")
        running.wait_said("port last: connected")
        control.offer(message(1, 6, 1))
        control.wait_used(4)
        data = noise(40 * 100 + 200000)
        output.offer(*[data[at:at + 100] for at in range(0, 4000, 100)], data[4000:])
        control.offer(message(1, 6, 0))
        os.eventfd_write(front.kick, 1)
        need(received(host) == data, "the host received something else")
        host.close()
        front.close()


def test_raw_large(program, directory):
    """a driver of a few lines: a large buffer for a console that takes everything"""
    data = noise(250000)
    with open(directory / "out", "wb") as out:
        running = Console(program, directory, "last", out=out)
    with vhost.while_running(running):
        front, _, _ = raw_driver(running)
        output = Queue(front, 1)
        output.end = 0x80000
        output.offer(data)
        output.wait_used(1)
        front.close()
    need((directory / "out").read_bytes() == data, "the console got something else")


def test_raw_terminal(program, directory):
    """a driver of a few lines: more output than a terminal has room for does not stop the daemon"""
    ours, its = pty.openpty()
    tty.setraw(its)
    running = Console(program, directory, "last", out=its)
    with vhost.while_running(running):
        front, _, _ = raw_driver(running)
        data = noise(250000)
        output = Queue(front, 1)
        output.end = 0x80000
        output.offer(data)
        os.eventfd_write(front.kick, 1)
        time.sleep(0.2)
        front.send("GET_FEATURES")
        front.receive()
        need(exchange(ours, ours, b"", len(data)) == data, "the terminal got something else")
        output.wait_used(1)
        front.close()
    os.close(ours)
    os.close(its)


def test_raw_unread(program, directory):
    """a driver of a few lines: who comes and leaves while it does not read, with and without saying something"""
    running = Console(program, directory, "last")
    with vhost.while_running(running):
        front, control, _ = raw_driver(running)
        running.connect("last").close()
        running.wait_said("port last: disconnected")
        host = running.connect("last")
        host.sendall(b"unread")
        host.close()
        running.wait_said("port last: connected", 2)
        time.sleep(0.1)
        before = cpu_time(running)
        time.sleep(0.5)
        need(cpu_time(running) < before + 10, "the daemon is busy with waiting")
        need(running.said().count("port last: disconnected") == 1, "what was sent is lost")
        control.offer(message(1, 6, 1))
        incoming = Queue(front, 4)
        incoming.offer(100, 100)
        incoming.wait_used(1)
        need(bytes(front.memory[0x60000:0x60006]) == b"unread", "not what was sent")
        running.wait_said("port last: disconnected", 2)
        front.close()


def cpu_time(running):
    """In hundredths of a second."""
    with open(f"/proc/{running.process.pid}/stat", encoding="ascii") as stat:
        return sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))


def good_console(path, running):
    """A front-end as it should be, without MULTIPORT: what the host sends arrives."""
    front = vhost.Front(path)
    front.ready()
    front.offer(0, 0, 3)
    os.write(running.process.stdin.fileno(), b"served")
    os.eventfd_write(front.kick, 1)
    need(front.wait_used(1), "the next front-end is not served")
    need(bytes(front.memory[vhost.REQUESTS + 0x200:vhost.REQUESTS + 0x206]) == b"served", "not what was sent")
    front.close()


def test_bad_messages(program, directory):
    """bad messages: one line in the log, the connection ends, the next front-end is served"""
    running = Console(program, directory, "last")
    with vhost.while_running(running):
        for title, send, text in vhost.BAD:
            if "runs" in title or "goes away" in title:  # there one request is served first
                running.type_line()
            vhost.refused(running, title, send, text)
        good_console(running.path, running)


def test_bad_control(program, directory):
    """a hostile driver: control messages of all kinds do no harm and are counted"""
    running = Console(program, directory, "last")
    with vhost.while_running(running):
        front = vhost.Front(running.path)
        front.features(extra=2)
        front.table()
        control = Queue(front, 3)
        control.offer(b"1234567", message(0, 0, 1), message(2**32 - 1, 3, 1), message(0, 6, 1),
                      message(1, 7, 1) + b"name" * 4, message(1, 65535, 65535), message(1, 3, 1), message(0, 0, 0), 100)
        control.wait_used(9)
        front.close()
        good_console(running.path, running)
    need("2 short, 2 unknown, 3 for no port, 0 out of order" in running.said(), running.said()[-300:])


def test_emergency(program, directory):
    """an emergency write comes out of the console before anything is negotiated"""
    running = Console(program, directory, "last")
    with vhost.while_running(running):
        front = vhost.Front(running.path)
        front.number("SET_PROTOCOL_FEATURES", 1 << 9)
        for byte in b"dying":
            front.send("SET_CONFIG", struct.pack("=IIII", 8, 4, 0, byte))
        front.send("SET_CONFIG", struct.pack("=IIII", 0, 4, 0, ord("x")))  # the size is not the driver's
        front.send("GET_FEATURES")
        front.receive()
        front.close()
        need(running.process.stdout.read() == b"dying", "not what was written")


def test_command_line(program, directory):
    """wrong arguments, a socket in use, a file in its place, the ports' sockets gone after SIGINT"""
    for words in (["--socket"], [], ["--socket", "s", "--port", "=x"], ["--socket", "s", "--size", "1"],
                  ["--socket", "s", "--colour", "red"], ["--socket", "s", "--port", "x" * 65 + "=y"]):
        status = subprocess.run([program, *words], capture_output=True, timeout=10, check=False).returncode
        need(status == 2, f"{words}: exit status {status}")
    running = Console(program, directory, "last")
    with contextlib.ExitStack() as stack:
        stack.callback(running.kill)
        done = subprocess.run([program, "--socket", str(directory / "other"), "--port", f"x={running.ports['last']}"],
                              capture_output=True, text=True, timeout=10, check=False)
        need(done.returncode == 1 and "Address already in use" in done.stderr, f"two daemons at one socket: {done}")
        need(os.path.exists(running.ports["last"]), "the second daemon removed the socket of the first")
        done = subprocess.run([program, "--socket", str(directory / "other"), "--port", f"x={directory}/no/socket",
                               "--port", f"y={running.ports['last']}"], capture_output=True, timeout=10, check=False)
        need(done.returncode == 1, f"a socket in a directory that is not there: {done}")
        need(os.path.exists(running.ports["last"]), "a daemon removed a socket that it had not come to")
        done = subprocess.run([program, "--socket", ""], capture_output=True, timeout=10, check=False)
        need(done.returncode == 1, f"a socket without a name: {done}")
        other = directory / "file"
        other.write_text("not a socket")
        done = subprocess.run([program, "--socket", str(other)], capture_output=True, text=True, timeout=10, check=False)
        need(done.returncode == 1 and other.is_file(), f"a file that is no socket gave way to one: {done}")
        running.stop(signal.SIGINT)
    need(not os.path.exists(running.ports["last"]), "a port's socket is left behind")


QUICK = ["names", "transfer_quick"]
RUNS = {name[5:]: run for name, run in list(globals().items()) if name.startswith("test_")}

if __name__ == "__main__":
    sys.exit(vhost.main(__doc__, RUNS, lambda name: name in QUICK or name.startswith(("raw", "bad", "emerg", "command"))))
