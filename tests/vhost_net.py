#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""The vhost-user network daemon, judged by DPDK's and Linux's own virtio drivers and by what nobody should send.

Usage: vhost_net.py [--quick] [--only WORD] path/to/vhost-net

A line for each run; "N passed, N failed" at the end. What needs a package that is missing is skipped and named:
DPDK's testpmd (Debian: dpdk-dev), user-mode Linux (user-mode-linux, busybox-static).
"""

import concurrent.futures
import os
import pathlib
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import time

import vhost
from vhost import MIB, Failed, Skipped, need, noise, sha


class Net(vhost.Daemon):
    """A running vhost-net. After stop(), count() tells what each port counted."""

    type, module = 1, "virtio_net"

    def __init__(self, program, directory, *options, ports=1):
        self.paths = [str(directory / f"net{port if port else ''}.sock") for port in range(ports)]
        others = [word for path in self.paths[1:] for word in ("--socket", path)]
        super().__init__(program, directory, "net", *others, *options)
        self.await_said(f"at {self.paths[-1]}")

    def await_said(self, text, count=1):
        deadline = time.monotonic() + 10
        while self.said().count(text) < count:
            need(time.monotonic() < deadline, f"the daemon does not say \"{text}\": {self.said()[-2000:]}")
            time.sleep(0.01)

    def count(self, port=0):
        """Frames from the driver, refused; to the driver, dropped; buffers unusable."""
        text = re.findall(rf"port {port}: (\d+) frames from .*, (\d+) refused; (\d+) to .*, (\d+) dropped, (\d+) buf",
                          self.said())
        need(text, f"port {port} has no counts: {self.said()[-2000:]}")
        return [int(number) for number in text[-1]]


def modules():
    """What virtio_net needs before it, in the order of their names."""
    return {f"{name}.ko": (0o100644, vhost.module(name)) for name in ("failover", "net_failover")}


class Plug:
    """A port of a daemon as a device of user-mode Linux."""

    type, module = Net.type, Net.module

    def __init__(self, running, port):
        self.path, self.said = running.paths[port], running.said


def running_net(*args, **more):
    return vhost.while_running(Net(*args, **more))


# ----- DPDK -----


def testpmd(directory, devices, ready, *options):
    """Runs testpmd with these devices until its output is ready(); returns all that it printed."""
    if shutil.which("dpdk-testpmd") is None:
        raise Skipped("dpdk-testpmd is not installed (dpdk-dev)")
    cpu = os.cpu_count() - 1
    command = ["dpdk-testpmd", f"--lcores=0@{cpu},1@{cpu}", "--no-pci", "--no-huge", "--no-shconf", "-m", "256",
               "--no-telemetry", f"--file-prefix=net{os.getpid()}", "--log-level=pmd.net.virtio.*:info",
               "--force-max-simd-bitwidth=512"]
    command += [f"--vdev={device}" for device in devices]
    command += ["--", "--nb-cores=1", "--forward-mode=io", "--total-num-mbufs=4096", "--stats-period=1", *options]
    log = directory / "testpmd.log"
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    deadline = time.monotonic() + 30
    try:
        while not ready(log.read_text(encoding="utf-8")):
            need(process.poll() is None, f"testpmd ended: {log.read_text(encoding='utf-8')[-2000:]}")
            need(time.monotonic() < deadline, f"testpmd does not go on: {log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        need(process.wait(20) == 0, "testpmd's exit status")
    except subprocess.TimeoutExpired:
        raise Failed("testpmd does not end") from None
    finally:
        process.kill()
        process.wait()
    return log.read_text(encoding="utf-8")


def forwarded(text, port=0):
    """What testpmd received, sent and could not send, in its last words."""
    found = re.search(rf"Forward statistics for port {port} .*\n.*RX-total: (\d+).*\n.*TX-packets: (\d+) +"
                      r"TX-dropped: (\d+)", text)
    need(found, f"testpmd has no counts: {text[-2000:]}")
    return [int(number) for number in found.groups()]


def received(text):
    return max((int(count) for count in re.findall(r"RX-packets: (\d+)", text)), default=0)


def settled(text):
    """Did port 0 receive something, and nothing more for a second?"""
    counts = re.findall(r"NIC statistics for port 0 .*\n *RX-packets: (\d+)", text)
    return len(counts) > 2 and counts[-1] == counts[-2] != "0"


def pinned(running):
    os.sched_setaffinity(running.process.pid, {0})
    return running


# Ring, and which of DPDK's functions have to be at work.
RINGS = {
    "split": ("packed_vq=0,in_order=0", "mergeable buffer Rx", "standard Tx"),
    "split, one buffer a frame": ("packed_vq=0,in_order=0,mrg_rxbuf=0", "standard Rx", "standard Tx"),
    "split, in order": ("packed_vq=0,in_order=1", "inorder Rx", "inorder Tx"),
    "split, in order, one buffer a frame": ("packed_vq=0,in_order=1,mrg_rxbuf=0", "inorder Rx", "inorder Tx"),
    "split, vectorized": ("packed_vq=0,in_order=0,mrg_rxbuf=0,vectorized=1", "vectorized Rx", "standard Tx"),
    "packed": ("packed_vq=1,in_order=0", "packed ring mergeable buffer Rx", "packed ring standard Tx"),
    "packed, one buffer a frame": ("packed_vq=1,in_order=0,mrg_rxbuf=0", "packed ring standard Rx",
                                   "packed ring standard Tx"),
    "packed, in order": ("packed_vq=1,in_order=1", "packed ring mergeable buffer Rx", "packed ring standard Tx"),
    "packed, in order, vectorized": ("packed_vq=1,in_order=1,mrg_rxbuf=0,vectorized=1", "packed ring vectorized Rx",
                                     "packed ring vectorized Tx"),
}
SIZES = (256, 64, 1024)
QUICK_RINGS = ("split", "packed, in order, vectorized")


def device(running, ring, size=256):
    return f"net_virtio_user0,path={running.path},queues=1,queue_size={size},{RINGS[ring][0]}"


def has_avx512():
    """DPDK has vectorized functions for packed rings only with it; without, it takes others."""
    return "avx512bw" in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii")


def echo_io(program, directory, ring, size):
    """32 frames go round and round; both sides' counts agree, and so for the next front-end."""
    with running_net(program, directory) as running:
        pinned(running)
        sent = arrived = 0
        for turn in range(2):
            text = testpmd(directory, [device(running, ring, size)], lambda text: received(text) > 20000, "--tx-first")
            for path in RINGS[ring][1:]:
                used = path in text or "vectorized" in path and not has_avx512()
                need(used, f"DPDK does not use \"{path}\": {text[:2000]}")
            rx, tx = forwarded(text)[:2]  # it may drop some of its own: 64 entries are few for its vectorized functions
            sent, arrived = sent + tx, arrived + rx
            running.await_said("front-end went away", turn + 1)
    taken, refused, put, dropped, unusable = running.count()
    need((refused, unusable) == (0, 0), f"counts: {running.said()}")
    need(taken == put + dropped == sent, f"{sent} frames sent, {taken} taken, {put} put, {dropped} dropped")
    on_the_way = 2 * 32  # at the end of each run, in the driver's buffers or when it took them back
    need(arrived <= put and sent - arrived <= on_the_way, f"{sent} frames sent, {put} put, {arrived} arrived")


PCAP = struct.Struct("=IIII")


def write_pcap(path, frames):
    with open(path, "wb") as file:
        file.write(struct.pack("=IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number, frame in enumerate(frames):
            file.write(PCAP.pack(number, 0, len(frame), len(frame)) + frame)


def read_pcap(path):
    data, at, frames = path.read_bytes(), 24, []
    while at < len(data):
        size = PCAP.unpack_from(data, at)[2]
        frames.append(data[at + 16:at + 16 + size])
        at += 16 + size
    return frames


def made_frames(count, longest, seed=11):
    pick = random.Random(seed)
    sizes = [14, 60, 61, 64, 115, 116, 117, 500, 1023, 1514, longest]
    return [pick.randbytes(sizes[i] if i < len(sizes) else pick.randrange(14, longest + 1)) for i in range(count)]


def echo_bytes(program, directory, ring, count, *options):
    """Frames of a file through the echo into another file, each byte compared: as many as a ring of 1024 entries
    takes at once, since testpmd drops what does not fit."""
    frames = made_frames(count, 1514)
    source, sink = directory / "in.pcap", directory / "out.pcap"
    write_pcap(source, frames)
    with running_net(program, directory) as running:
        pinned(running)
        text = testpmd(directory, [device(running, ring, 1024), f"net_pcap0,rx_pcap={source},tx_pcap={sink}"],
                       settled, "--no-flush-rx", "--rxd=1024", "--txd=1024", *options)
    got = read_pcap(sink)
    need(forwarded(text, 0)[2] + forwarded(text, 1)[2] == 0, "testpmd dropped frames")
    need(running.count() == [count, 0, count, 0, 0], f"counts: {running.said()}")
    need(got == frames, f"{count} frames, {len(got)} came back, the first {same(got, frames)} as they were")


def same(got, frames):
    return next((i for i, (a, b) in enumerate(zip(got, frames)) if a != b), min(len(got), len(frames)))


def add_dpdk_runs(runs):
    for ring in RINGS:
        for size in SIZES:
            def run(program, directory, ring=ring, size=size):
                echo_io(program, directory, ring, size)
            run.__doc__ = f"DPDK, io, {ring}, {size} entries: counts agree, twice"
            run.quick = ring in QUICK_RINGS and size == SIZES[0]
            runs[f"dpdk_io_{ring}_{size}"] = run
        def run(program, directory, ring=ring):
            echo_bytes(program, directory, ring, 900)
        run.__doc__ = f"DPDK, frames of a file, {ring}: they come back as they were"
        runs[f"dpdk_bytes_{ring}"] = run
        # In a packed ring DPDK 22.11 makes such frames available with a header that it calls writable.
        if ring in ("split", "split, in order"):
            def run(program, directory, ring=ring):
                echo_bytes(program, directory, ring, 250, "--mbuf-size=640", "--max-pkt-len=500")
            run.__doc__ = f"DPDK, frames of a file, {ring}, over several buffers of 512 bytes: as they were"
            run.quick = ring == "split"
            runs[f"dpdk_merged_{ring}"] = run


# ----- user-mode Linux -----

ADDRESS = "ip link set eth0 up && ip addr add {0}/24 brd + dev eth0"


def test_uml_echo(program, directory):
    """user-mode Linux: the pings that it sends to all come back and are answered, in many sizes"""
    with running_net(program, directory, "--mac", "02:12:34:56:78:9a") as running:
        text = vhost.uml(directory, [running], f"""
            {ADDRESS.format("10.0.0.1")}
            ip link set lo up
            echo 1 >/proc/sys/net/ipv4/conf/eth0/accept_local
            echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts
            cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu /sys/class/net/eth0/carrier
            for size in 0 18 100 1000 1471 1472 1473 8000; do
                ping -c 3 -i 0.05 -W 5 -s $size 10.0.0.255 | grep transmitted
            done
            cd /sys/class/net/eth0/statistics
            echo "sent $(cat tx_packets) back $(cat rx_packets) bad $(cat rx_errors tx_errors rx_dropped tx_dropped)"
            """, modules())
    need("02:12:34:56:78:9a\n1500\n1\n" in text, f"the guest sees another device: {text}")
    need(len(re.findall("3 packets received, [23] duplicates", text)) == 8, f"pings are lost: {text}")
    sent = re.search(r"sent (\d+) back (\d+) bad 0\n0\n0\n0", text)
    need(sent and sent[1] == sent[2], f"sent and received: {text}")
    need(running.count()[1] == 0 and running.count()[3:] == [0, 0], f"counts: {running.said()}")


def switched(program, directory, mtu):
    """Two guests: pings of many sizes, a file each way over TCP."""
    data, back = noise(4 * MIB, mtu), noise(3 * MIB, mtu + 1)
    sizes = (0, 100, 1472, 4000, mtu - 28, 16000)
    scripts = [f"""
        {ADDRESS.format("10.0.0.1")}
        cat /sys/class/net/eth0/mtu
        for wait in 1 2 3 4 5 6 7 8 9 10; do ping -c 1 -W 1 10.0.0.2 >/dev/null && break; done
        for size in {" ".join(map(str, sizes))}; do
            ping -c 2 -i 0.05 -W 5 -s $size 10.0.0.2 | grep transmitted
        done
        wget -q -O - http://10.0.0.2/data | sha256sum
        until nc 10.0.0.2 9000 </data; do sleep 0.1; done
        """, f"""
        {ADDRESS.format("10.0.0.2")}
        httpd -h /www
        mkfifo /tmp/open # an input that does not end: nc stops at the end of either one
        sleep 60 >/tmp/open &
        nc -l -p 9000 </tmp/open | sha256sum
        """]
    files = [{"data": (0o100644, back)}, {"www": (0o040755, b""), "www/data": (0o100644, data)}]
    with running_net(program, directory, "--mtu", str(mtu), ports=2) as running:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            guests = []
            for port in range(2):
                (directory / f"guest{port}").mkdir()
                guests.append(pool.submit(vhost.uml, directory / f"guest{port}", [Plug(running, port)],
                                          scripts[port], {**modules(), **files[port]}))
            first, second = (guest.result() for guest in guests)
    need(first.count("2 packets transmitted, 2 packets received, 0% packet loss") == len(sizes),
         f"pings are lost: {first}")
    need(f"\n{mtu}\n" in "\n" + first, f"the guest's MTU: {first}")
    need(sha(data) in first and sha(back) in second, f"a file differs: {first}{second}")
    counts = [running.count(port) for port in range(2)]
    need(all(count[1] == count[4] == 0 for count in counts), f"counts: {running.said()}")


def test_uml_switch(program, directory):
    """user-mode Linux, two guests at the switch: pings, a file each way over TCP"""
    switched(program, directory, 1500)


def test_uml_jumbo(program, directory):
    """user-mode Linux, two guests at the switch, frames of 9000 bytes over several buffers"""
    switched(program, directory, 9000)


def test_command_line(program, directory):
    """wrong arguments, a socket in use, both sockets gone after SIGINT"""
    for words in (["--socket"], [], ["--socket", "s", "--mac", "1:2"], ["--socket", "s", "--mac", "01:2:3:4:5:6"],
                  ["--socket", "s", "--mac", "2:3:4:5:6:7:8"], ["--socket", "s", "--mtu", "67"],
                  ["--socket", "s", "--mtu", "65536"], ["--colour", "red"], ["--socket", "s"] * 17):
        status = subprocess.run([program, *words], capture_output=True, timeout=10, check=False).returncode
        need(status == 2, f"{words}: exit status {status}")
    running = Net(program, directory, ports=2)
    try:
        done = subprocess.run([program, "--socket", str(directory / "other"), "--socket", running.paths[1]],
                              capture_output=True, text=True, timeout=10, check=False)
        need(done.returncode == 1 and "Address already in use" in done.stderr, f"two daemons at one socket: {done}")
        need(not (directory / "other").exists(), "the socket of a daemon that did not start is left behind")
        running.stop(signal.SIGINT)
    finally:
        running.kill()
    need(not any(os.path.exists(path) for path in running.paths), "a socket is left behind")


# ----- messages that make no sense, memory that goes away -----


class Port(vhost.Front):
    """A driver of a few lines: queue 0 to receive, queue 1 to transmit, eight entries each."""

    slot_size = 0x800

    def start(self):
        self.features()
        self.table()
        for queue in (0, 1):
            at = vhost.USER + 0x8000 * queue
            self.state("SET_VRING_NUM", queue, vhost.NUM)
            self.state("SET_VRING_BASE", queue, 0)
            self.send("SET_VRING_ADDR", struct.pack("=IIQQQQ", queue, 0, at, at + 0x2000, at + 0x1000, 0))
            self.number("SET_VRING_CALL", queue, [self.call])
            self.number("SET_VRING_KICK", queue, [self.kick])
            self.state("SET_VRING_ENABLE", queue, 1)
        self.given = self.got = self.sent = 0
        while self.given < vhost.NUM:
            self.give()
        self.send("GET_FEATURES")
        self.receive()
        return self

    def add(self, queue, idx, size, flags, at=None):
        base, slot = 0x8000 * queue, idx % vhost.NUM
        at = at or 0x40000 + 0x8000 * queue + self.slot_size * slot
        self.put(base + 16 * slot, "QIHH", vhost.GUEST + at, size, flags, 0)
        self.put(base + 0x1004 + 2 * slot, "H", slot)
        self.put(base + 0x1002, "H", (idx + 1) % 65536)
        return at

    def give(self):
        """Makes one more buffer available."""
        self.add(0, self.given, self.slot_size, 2)
        self.given += 1

    def transmit(self, frame, header=bytes(12)):
        at = 0x48000 + self.slot_size * (self.sent % vhost.NUM)
        self.memory[at:at + 12 + len(frame)] = header + frame
        self.add(1, self.sent, 12 + len(frame), 0)
        self.sent += 1
        os.eventfd_write(self.kick, 1)

    def transmit_cut(self, addresses):
        """A frame of which only the header and the addresses are there when it is looked at."""
        edge = 0x48000
        self.memory[edge - 24:edge] = bytes(12) + addresses
        os.ftruncate(self.file, edge)
        self.add(1, self.sent, 112, 0, edge - 24)
        os.eventfd_write(self.kick, 1)

    def until(self, condition):
        deadline = time.monotonic() + 5
        while not condition():
            if time.monotonic() > deadline:
                return False
            select.select([self.call], [], [], 0.01)
        return True

    def all_used(self):
        """Is every transmitted frame's buffer back?"""
        return self.until(lambda: self.get(0xA002, "H") == self.sent % 65536)

    def next_frame(self):
        """The next frame that comes, its buffer given back; None: nothing comes."""
        if not self.until(lambda: self.get(0x2002, "H") != self.got % 65536):
            return None
        slot = self.got % vhost.NUM
        size = self.get(0x2008 + 8 * slot, "I")
        at = 0x40000 + self.slot_size * slot
        frame = bytes(self.memory[at:at + size])
        self.got += 1
        self.give()
        need(frame[:12] == bytes(10) + b"\1\0", f"a frame's header is {frame[:12].hex()}")
        return frame[12:]


def served(path):
    """A front-end as it should be gets its frame back."""
    port = Port(path).start()
    frame = bytes(range(200))
    port.transmit(frame)
    need(port.next_frame() == frame and port.all_used(), "the next front-end is not served")
    port.close()


def test_bad_messages(program, directory):
    """bad messages: one line in the log, the connection ends, the next front-end is served"""
    leave_out = ("in-flight", "a new size", "a new position", "memory that goes away")
    with running_net(program, directory) as running:
        for number, (title, send, text) in enumerate(vhost.BAD):
            if title.startswith(leave_out):
                continue
            vhost.refused(running, title, send, text)
            if number % 16 == 0:
                served(running.path)
        vhost.refused(running, "in-flight, not offered",
                      lambda front: front.number("SET_PROTOCOL_FEATURES", vhost.INFLIGHT), "not offered")
        served(running.path)


def test_bad_frames(program, directory):
    """bad frames: refused and counted, the others come through"""
    good, csum, gso = bytes(range(60)), b"\1" + bytes(11), b"\0\1" + bytes(10)
    with running_net(program, directory) as running:
        port = Port(running.path).start()
        for frame, header in ((b"", bytes(12)), (good[:13], bytes(12)), (good, csum), (good, gso),
                              (bytes(1519), bytes(12))):
            port.transmit(frame, header)
            port.transmit(good)
            need(port.next_frame() == good and port.all_used(), "a good frame after a bad one does not come")
        port.transmit(bytes(1518))
        need(port.next_frame() == bytes(1518), "the longest frame does not come")
        port.close()
    need(running.count() == [6, 5, 6, 0, 0], f"counts: {running.said()}")


def test_switch_ports(program, directory):
    """the switch: to all, then only to where the address is; not to a port without a driver"""
    mac = [bytes((2, 0, 0, 0, 0, number)) for number in range(3)]
    with running_net(program, directory, ports=3) as running:
        ports = [Port(path).start() for path in running.paths]
        ports[0].transmit(b"\xff" * 6 + mac[0] + b"to all".ljust(48))
        for port in ports[1:]:
            need(port.next_frame()[12:18] == b"to all", "a frame to all does not come")
        ports[1].transmit(mac[0] + mac[1] + b"answer".ljust(48))
        need(ports[0].next_frame()[12:18] == b"answer", "an answer does not come")
        ports[0].transmit(mac[1] + mac[0] + b"direct".ljust(48))
        need(ports[1].next_frame()[12:18] == b"direct", "a frame to a known address does not come")
        ports[2].transmit(mac[2] + mac[2] + b"myself".ljust(48))
        ports[2].transmit(mac[0] + mac[2] + b"barrier".ljust(48))
        need(ports[0].next_frame()[12:19] == b"barrier", "a frame does not come")
        need(ports[2].get(0x2002, "H") == 1 and ports[1].get(0x2002, "H") == 2, "a frame went to the wrong port")
        ports[0].transmit(bytes((6,)) + mac[1][1:] + mac[0] + b"other".ljust(48))
        for port in ports[1:]: # whose place in the switch's table is that of a known one
            need(port.next_frame()[12:17] == b"other", "a frame to an unknown address does not come")
        ports[1].close()
        running.await_said("port 1: front-end went away")
        for turn in range(20):
            ports[0].transmit(mac[1] + mac[0] + bytes(48))
            need(ports[0].all_used(), "frames to a port without a driver are not completed")
        ports[0].close()
        ports[2].close()
    need([running.count(port)[:4] for port in range(3)] == [[23, 0, 2, 0], [1, 0, 3, 20], [2, 0, 2, 0]],
         f"counts: {running.said()}")


def test_switch_cut(program, directory):
    """the switch: memory of one front-end goes away under a frame; the other one loses nothing"""
    to_all = b"\xff" * 6 + bytes((2, 0, 0, 0, 0, 9))
    with running_net(program, directory, ports=2) as running:
        for turn, (cut, stays) in enumerate(((1, 0), (0, 1), (1, 0))):
            ports = [Port(path).start() for path in running.paths]
            ports[0].transmit(to_all + bytes(50))
            need(ports[1].next_frame() is not None, "a frame does not come")
            if cut == 0:
                ports[0].transmit_cut(to_all)
            else:
                os.ftruncate(ports[1].file, 0)
                for _ in range(3):
                    ports[0].transmit(to_all + bytes(50))
                need(ports[0].all_used(), "the sender does not get its buffers back")
            running.await_said(f"port {cut}: connection dropped: shared memory is no longer there",
                               1 + (turn == 2))
            need(cut == 1 or ports[1].next_frame() is not None, "the buffer of a frame that was cut is lost")
            fresh = Port(running.paths[cut]).start()
            both = (ports[0], fresh) if cut == 1 else (fresh, ports[1])
            both[0].transmit(to_all + b"again".ljust(50))
            need(both[1].next_frame()[12:17] == b"again", "a frame after the loss does not come")
            fresh.close()
            ports[stays].close()
            running.await_said("front-end went away", 2 * (turn + 1))


def test_switch_broken(program, directory):
    """the switch: a hostile driver breaks the queue that it receives in; one line, the others go on"""
    to_all = b"\xff" * 6 + bytes((2, 0, 0, 0, 0, 9))
    with running_net(program, directory, ports=3) as running:
        ports = [Port(path).start() for path in running.paths]
        ports[1].put(0x1002, "H", 1000)
        for _ in range(20):
            ports[0].transmit(to_all + bytes(50))
            need(ports[2].next_frame() == to_all + bytes(50) and ports[0].all_used(), "a frame does not come")
        running.await_said("port 1: queue 0: driver made more available than the queue holds")
        need(running.said().count("more available") == 1, f"more than one line: {running.said()[-500:]}")
        for port in ports:
            port.close()


def test_switch_full_call(program, directory):
    """the switch: a call descriptor that is full and would block; the other ports go on"""
    to_all = b"\xff" * 6 + bytes((2, 0, 0, 0, 0, 9))
    with running_net(program, directory, ports=3) as running:
        ports = [Port(path).start() for path in running.paths]
        os.set_blocking(ports[1].call, True)
        os.eventfd_read(ports[1].call)  # of SET_VRING_CALL
        os.eventfd_write(ports[1].call, 2**64 - 2)
        for _ in range(20):
            ports[0].transmit(to_all + bytes(50))
            need(ports[2].next_frame() == to_all + bytes(50) and ports[0].all_used(), "a frame does not come")
        for port in ports:
            port.close()


RUNS = {name[5:]: run for name, run in list(globals().items()) if name.startswith("test_")}
add_dpdk_runs(RUNS)
QUICK = ("uml_echo", "uml_switch", "bad_messages", "bad_frames", "switch_ports", "switch_cut", "switch_broken",
         "switch_full_call", "command_line")

if __name__ == "__main__":
    sys.exit(vhost.main(__doc__, RUNS, lambda name: name in QUICK or getattr(RUNS[name], "quick", False)))
