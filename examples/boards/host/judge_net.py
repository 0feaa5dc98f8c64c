# SPDX-License-Identifier: MIT-0
"""Judges of the network program: the other end of its wire, the user network of QEMU, a link that goes
down. Every byte of an answer is compared with what was sent; checksums are computed anew."""

import random
import re
import select
import socket
import struct
import time

from judge import Judge
from machine import MMIO, Failed

GUEST = socket.inet_aton("10.0.2.15")
GATEWAY = socket.inet_aton("10.0.2.2")
BROADCAST = b"\xff" * 6
ARP, IP = 0x0806, 0x0800
ICMP, UDP = 1, 17
ECHO = 7
MTU = 1500
PAYLOAD_MAX = MTU - 20 - 8  # of ICMP echo and of UDP
PATIENCE = 10  # seconds that an answer may take


def checksum(data):
    """RFC 1071; 0 over data that holds its own right checksum."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def patch(data, at, value):
    """The data with some bytes replaced."""
    return data[:at] + value + data[at + len(value) :]


def ethernet(to, source, kind, payload):
    return to + source + struct.pack(">H", kind) + payload


def arp(operation, sender_mac, sender, target_mac, target):
    return struct.pack(">HHBBH", 1, IP, 6, 4, operation) + sender_mac + sender + target_mac + target


def ip(protocol, payload, source=GATEWAY, target=GUEST, options=b"", fragment=0, total=None):
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, total or 20 + len(options) + len(payload),
        random.randrange(1 << 16), fragment, 9, protocol, 0, source, target,
    ) + options  # fmt: skip
    return mend(head + payload)


def mend(packet):
    """With the right IP checksum, whatever else is wrong."""
    packet = patch(packet, 10, b"\0\0")
    return patch(packet, 10, struct.pack(">H", checksum(packet[: (packet[0] & 15) * 4])))


def icmp(kind, data, code=0, length=None):
    whole = (struct.pack(">BBHI", kind, code, 0, random.getrandbits(32)) + data)[:length]
    return patch(whole, 2, struct.pack(">H", checksum(whole)))


def udp_sum(source, target, whole):
    return checksum(source + target + struct.pack(">H", UDP) + whole[4:6] + whole)


def udp(data, port=ECHO, source_port=None, length=None):
    whole = struct.pack(">HHHH", source_port or random.randrange(1024, 65536), port,
                        length or 8 + len(data), 0) + data  # fmt: skip
    return patch(whole, 6, struct.pack(">H", udp_sum(GATEWAY, GUEST, whole) or 0xFFFF))


def payload_of(frame, protocol, mac, guest):
    """What an IP packet of the guest to the gateway carries; Failed if anything before it is wrong."""
    if frame[:14] != ethernet(mac, guest, IP, b""):
        raise Failed(f"the answer's Ethernet header is {frame[:14].hex()}")
    head = frame[14:34]
    start, total, fragment, ttl, kind = struct.unpack(">BxHxxHBB", head[:10])
    if start != 0x45 or total != len(frame) - 14 or fragment & 0x3FFF or ttl == 0:
        raise Failed(f"the answer's IP header is {head.hex()}, of {len(frame)} bytes")
    if kind != protocol or head[12:] != GUEST + GATEWAY or checksum(head) != 0:
        raise Failed(f"the answer's IP header is {head.hex()}")
    return frame[34:]


def check_icmp(sent, got):
    """Is it the reply to this echo request?"""
    if got[:2] != b"\0\0" or checksum(got) != 0 or got[4:] != sent[4:]:
        raise Failed(f"the reply to an ICMP echo of {len(sent)} bytes is wrong")


def check_udp(sent, got):
    """Is it this datagram, sent back?"""
    if got[:4] != sent[2:4] + sent[:2] or got[4:6] != struct.pack(">H", len(sent)):
        raise Failed(f"the UDP header of an answer is {got[:8].hex()}")
    if got[6:8] == b"\0\0" or udp_sum(GUEST, GATEWAY, got) != 0 or got[8:] != sent[8:]:
        raise Failed(f"the answer to a datagram of {len(sent)} bytes is wrong")


def device(judge, *properties):
    """The network device; without an option ROM, which firmware would run."""
    rom = [] if judge.front.transport in MMIO else ["romfile="]
    return judge.front.device("net", "netdev=wire", *rom, *properties)


class Wire:
    """The other end of the guest's Ethernet, as a socket: each datagram a frame."""

    def __init__(self, path):
        self.qemu = path + ".qemu"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(path)
        self.netdev = (
            f"dgram,id=wire,local.type=unix,local.path={self.qemu},"
            f"remote.type=unix,remote.path={path}"
        )

    def connect(self):
        """Once QEMU runs."""
        self.socket.connect(self.qemu)

    def exchange(self, frames, count):
        """Sends the frames and takes `count` answers meanwhile and afterwards."""
        frames, answers = list(frames), []
        end = time.monotonic() + PATIENCE
        while frames or len(answers) < count:
            left = max(end - time.monotonic(), 0)
            ready = select.select([self.socket], [self.socket] if frames else [], [], left)
            if not ready[0] and not ready[1]:
                raise Failed(f"{len(answers)} answers instead of {count} in {PATIENCE} seconds")
            if ready[0]:
                answers.append(self.socket.recv(65536))
            elif ready[1]:
                self.socket.send(frames.pop(0))
        return answers

    def rest(self):
        """Frames that nobody waited for."""
        rest = []
        while select.select([self.socket], [], [], 0)[0]:
            rest.append(self.socket.recv(65536))
        return rest


class Net(Judge):
    """Raw frames over a socket: each must be answered, or not, as the protocols say."""

    def arguments(self):
        self.guest = b"\x52\x54\x00" + random.randbytes(3)
        self.mac = b"\x02" + random.randbytes(5)
        self.answered = self.unanswered = 0
        self.finished = False
        self.wire = Wire(self.path("wire"))
        mac = self.guest.hex(":")
        return ["-netdev", self.wire.netdev, *device(self, f"mac={mac}")]

    def line(self, machine, text):
        if text.startswith("  link ") and not self.finished:
            self.wire.connect()
            self.talk()
            self.finished = True

    def ended(self):
        if not self.finished:
            raise Failed("the image never got to its link")
        rest = self.wire.rest()
        if rest:
            raise Failed(f"{len(rest)} frames too many, the first one {rest[0][:64].hex()}")
        return f"{self.answered} frames answered as they should be, {self.unanswered} not answered"

    def talk(self):
        self.be_asked()
        self.ask_arp()
        self.echo(ICMP, [icmp(8, random.randbytes(n)) for n in range(PAYLOAD_MAX + 1)])
        sizes = [*range(65), *random.sample(range(65, PAYLOAD_MAX), 200), PAYLOAD_MAX]
        self.echo(UDP, [udp(random.randbytes(n)) for n in sizes])
        for size in (1, 600, PAYLOAD_MAX):
            for _ in range(4):
                self.echo(UDP, [udp(random.randbytes(size)) for _ in range(64)], burst=64)
        self.unusual()
        self.refused()
        self.echo(UDP, [udp(b"quit")])

    def be_asked(self):
        """The first frame of the guest asks for its gateway."""
        question = arp(1, self.guest, GUEST, bytes(6), GATEWAY)
        if self.wire.exchange([], 1) != [ethernet(BROADCAST, self.guest, ARP, question)]:
            raise Failed("the first frame does not ask for the gateway")
        reply = arp(2, self.mac, GATEWAY, self.guest, GUEST)
        self.wire.exchange([ethernet(self.guest, self.mac, ARP, reply)], 0)

    def ask_arp(self):
        """Asks for the guest's address, by broadcast and directly, also in frames of full length."""
        question = arp(1, self.mac, GATEWAY, bytes(6), GUEST)
        reply = ethernet(self.mac, self.guest, ARP, arp(2, self.guest, GUEST, self.mac, GATEWAY))
        for to in (BROADCAST, self.guest):
            for padding in (0, 18, MTU - 28):
                frame = ethernet(to, self.mac, ARP, question + bytes(padding))
                if self.wire.exchange([frame], 1) != [reply]:
                    raise Failed("the answer to an ARP request is wrong")
                self.answered += 1

    def frame(self, packet):
        """To the guest; short ones are padded, as they are on a wire."""
        return ethernet(self.guest, self.mac, IP, packet + bytes(max(46 - len(packet), 0)))

    def check(self, protocol, sent, answers):
        """One answer for each, in order."""
        for one, answer in zip(sent, answers, strict=True):
            got = payload_of(answer, protocol, self.mac, self.guest)
            (check_icmp if protocol == ICMP else check_udp)(one, got)
            self.answered += 1

    def echo(self, protocol, packets, burst=16):
        for at in range(0, len(packets), burst):
            sent = packets[at : at + burst]
            frames = [self.frame(ip(protocol, one)) for one in sent]
            self.check(protocol, sent, self.wire.exchange(frames, len(sent)))

    def unusual(self):
        """Legal, and not seen every day."""
        plain = udp(random.randbytes(33))
        unsummed = patch(plain, 6, b"\0\0")
        frames = [
            ip(UDP, plain, options=b"\x01" * 40),
            ip(UDP, unsummed),
            ip(UDP, plain, fragment=0x4000),
        ]
        answers = self.wire.exchange([self.frame(one) for one in frames], len(frames))
        self.check(UDP, [plain, plain, plain], answers)

    def refused(self):
        """What must not be answered, for one reason each; the datagram behind it must be."""
        for frame in [*self.foreign(), *self.malformed(), *self.overlong()]:
            last = udp(random.randbytes(20))
            frames = [frame, self.frame(ip(UDP, last))]
            self.check(UDP, [last], self.wire.exchange(frames, 1))
            self.unanswered += 1

    def foreign(self):
        """For others, or of no kind that the guest knows."""
        good = ip(UDP, udp(b"foreign"))
        ask = arp(1, self.mac, GATEWAY, bytes(6), GUEST)
        return [
            ethernet(b"\x52\x54\x00\xff\xff\xff", self.mac, IP, good),
            ethernet(BROADCAST, self.mac, IP, good),
            ethernet(self.guest, self.mac, 0x86DD, good),
            ethernet(self.guest, self.mac, 0x8100, b"\0\x05\x08\0" + good),
            ethernet(BROADCAST, self.mac, 0x88CC, random.randbytes(100)),
            ethernet(BROADCAST, self.mac, ARP, patch(ask, 24, GATEWAY)),
            ethernet(self.guest, self.mac, ARP, patch(ask, 6, b"\0\3")),
            self.frame(ip(ICMP, icmp(8, b"foreign"), target=GATEWAY)),
            self.frame(ip(UDP, udp(b"foreign", port=9))),
            self.frame(ip(6, random.randbytes(20))),
            self.frame(ip(ICMP, icmp(0, b"reply"))),
            self.frame(ip(ICMP, icmp(8, b"code", code=1))),
            self.frame(ip(UDP, udp(b"piece"), fragment=0x2000)),
            self.frame(ip(UDP, udp(b"piece"), fragment=1)),
        ]

    def malformed(self):
        """Wrong checksums and lengths, at every layer."""
        good = ip(UDP, udp(b"malformed"))
        echo = icmp(8, b"malformed")
        ask = arp(1, self.mac, GATEWAY, bytes(6), GUEST)
        return [
            ethernet(self.guest, self.mac, IP, b""),
            ethernet(self.guest, self.mac, IP, good[:19]),
            ethernet(self.guest, self.mac, IP, good[:-1]),
            ethernet(self.guest, BROADCAST, IP, good),
            ethernet(BROADCAST, self.mac, ARP, ask[:27]),
            ethernet(BROADCAST, self.mac, ARP, patch(ask, 4, b"\x08\x04")),
            self.frame(patch(good, 10, bytes([good[10] ^ 1]))),
            self.frame(mend(patch(good, 0, b"\x65"))),
            self.frame(mend(patch(good, 0, b"\x44"))),
            self.frame(mend(patch(ip(UDP, bytes(20)) + bytes(20), 0, b"\x4f"))),
            self.frame(ip(UDP, udp(b"malformed"), total=19)),
            self.frame(ip(UDP, udp(b"malformed"), total=MTU)),
            self.frame(ip(UDP, patch(udp(b"malformed"), 12, b"X"))),
            self.frame(ip(UDP, patch(udp(b"malformed", length=7), 6, b"\0\0"))),
            self.frame(ip(UDP, udp(b"malformed", length=18))),
            self.frame(ip(UDP, udp(b"")[:7])),
            self.frame(ip(ICMP, patch(echo, 9, b"X"))),
            self.frame(ip(ICMP, icmp(8, b"", length=7))),
        ]

    def overlong(self):
        """Longer than Ethernet allows, and than the guest has memory for."""
        sizes = (PAYLOAD_MAX + 1, PAYLOAD_MAX + 22, 4000, 9000)
        return [self.frame(ip(ICMP, icmp(8, random.randbytes(n)))) for n in sizes]


class NetUser(Judge):
    """An ordinary UDP socket, and QEMU's user network in between: an IP stack of others."""

    def arguments(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.answered = 0
        forward = f"hostfwd=udp:127.0.0.1:{self.port}-10.0.2.15:{ECHO}"
        return ["-netdev", f"user,id=wire,{forward}", *device(self)]

    def line(self, machine, text):
        found = re.match(r"  gateway +10\.0\.2\.2 is at (\S+)", text)
        if not found:
            return
        if found[1] != "52:55:0a:00:02:02":
            raise Failed("that is not the address of the user network's gateway")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(PATIENCE)
            link.connect(("127.0.0.1", self.port))
            self.talk(link)

    def talk(self, link):
        sizes = [*range(1, 65), *random.sample(range(65, PAYLOAD_MAX), 200), PAYLOAD_MAX]
        for data in [*(random.randbytes(n) for n in sizes), b"quit"]:
            link.send(data)
            try:
                answer = link.recv(65536)
            except TimeoutError:
                raise Failed(f"no answer to a datagram of {len(data)} bytes") from None
            if answer != data:
                raise Failed(f"a datagram of {len(data)} bytes came back changed")
            self.answered += 1

    def ended(self):
        if self.answered == 0:
            raise Failed("the image never found its gateway")
        return f"{self.answered} datagrams came back through the user network"


class NetDown(Judge):
    """The link goes down while the image waits for frames: it must say so and end."""

    status = 1

    def arguments(self):
        self.down = self.said = False
        return ["-netdev", "user,id=wire", *device(self)]

    def line(self, machine, text):
        if text.startswith("  gateway "):
            machine.qmp("set_link", name="wire", up=False)
            self.down = True
        self.said = self.said or (self.down and text == "net: link is down")

    def ended(self):
        if not self.said:
            raise Failed("not a word about the link, which is down")
        return "the link that went down was reported"
