#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""A vhost-user back-end that says what it hears and answers as it is told to.

Usage: vhost_fake.py SOCKET FAULT [PROTOCOL_FEATURES]. It listens, serves one front-end, prints each
request as a line (name, bytes, descriptors, flags, what matters of the payload) and ends with the
connection. It serves no queue. FAULT is "none" or what to do wrong, see fault().
"""
import socket
import struct
import sys

NAMES = {1: "GET_FEATURES", 2: "SET_FEATURES", 3: "SET_OWNER", 5: "SET_MEM_TABLE",
         8: "SET_VRING_NUM", 9: "SET_VRING_ADDR", 10: "SET_VRING_BASE", 11: "GET_VRING_BASE",
         12: "SET_VRING_KICK", 13: "SET_VRING_CALL", 15: "GET_PROTOCOL_FEATURES",
         16: "SET_PROTOCOL_FEATURES", 17: "GET_QUEUE_NUM", 18: "SET_VRING_ENABLE",
         24: "GET_CONFIG", 25: "SET_CONFIG", 34: "RESET_DEVICE"}
STATES = ("SET_VRING_NUM", "SET_VRING_BASE", "GET_VRING_BASE", "SET_VRING_ENABLE")
NEED_REPLY = 8
REPLY = 5  # the version and that bit
MQ, REPLY_ACK, CONFIG = 1, 1 << 3, 1 << 9
# RING_PACKED, VERSION_1, EVENT_IDX, INDIRECT_DESC, and four that no driver may be shown
FEATURES = 1 << 34 | 1 << 32 | 1 << 29 | 1 << 28 | 1 << 30 | 1 << 26 | 1 << 33 | 1 << 38
SECTORS = 128
protocol = MQ | REPLY_ACK | CONFIG


def receive(peer, size):
    data, fds = b"", 0
    while len(data) < size:
        part, some, _, _ = socket.recv_fds(peer, size - len(data), 8)
        if not part:
            raise EOFError
        data, fds = data + part, fds + len(some)
    return data, fds


def detail(name, payload):
    if name in STATES:
        return " queue %d: 0x%x" % struct.unpack("=II", payload)
    if name == "SET_MEM_TABLE":
        return " " + " ".join("+0x%x" % struct.unpack_from("=QQQQ", payload, 8 + 32 * i)[1]
                              for i in range(struct.unpack_from("=I", payload)[0]))
    if name == "SET_FEATURES":
        return " 0x%x" % struct.unpack("=Q", payload)
    return ""


def answer(name, payload, need):
    """The payload of the right answer, or None if none is due."""
    if name == "GET_FEATURES":
        return struct.pack("=Q", FEATURES if protocol >= 0 else FEATURES & ~(1 << 30))
    if name == "GET_PROTOCOL_FEATURES":
        return struct.pack("=Q", protocol)
    if name == "GET_QUEUE_NUM":
        return struct.pack("=Q", 1)
    if name == "GET_CONFIG":
        size = struct.unpack_from("=III", payload)[1]
        return payload[:12] + struct.pack("<Q", SECTORS).ljust(size, b"\0")
    if name == "GET_VRING_BASE":
        return payload
    return struct.pack("=Q", 0) if need else None


def fault(what, name, reply):
    """What to send instead of `reply`: request number or None for its own, flags, payload, the size
    that the header claims or None for its own. None: nothing."""
    number, flags = None, REPLY
    if what == "size" and name == "GET_FEATURES":
        reply = reply[:4]
    if what == "huge" and name == "GET_FEATURES":
        return 1, REPLY, reply, 0xfffffff0
    if what == "request" and name == "GET_PROTOCOL_FEATURES":
        number = 1
    if what == "flags" and name == "GET_QUEUE_NUM":
        flags = 1
    if what == "version" and name == "GET_QUEUE_NUM":
        flags = 6
    if what == "queues-0" and name == "GET_QUEUE_NUM":
        reply = struct.pack("=Q", 0)
    if what == "queues-many" and name == "GET_QUEUE_NUM":
        reply = struct.pack("=Q", 1 << 40)
    if what == "config-refused" and name == "GET_CONFIG":
        reply = b""
    if what == "config-short" and name == "GET_CONFIG":
        reply = reply[:20]
    if what == "config-elsewhere" and name == "GET_CONFIG":
        reply = struct.pack("=I", 4) + reply[4:]
    if what == "other-queue" and name == "GET_VRING_BASE":
        reply = struct.pack("=II", 3, 0)
    if what == "refuse-" + name:
        reply = struct.pack("=Q", 1)
    return (number, flags, reply, None) if reply is not None else None


def serve(peer, what):
    while True:
        header, fds = receive(peer, 12)
        request, flags, size = struct.unpack("=III", header)
        payload, more = receive(peer, size) if size else (b"", 0)
        name = NAMES.get(request, str(request))
        ack = ", ack" if flags & NEED_REPLY else ""
        print(name, "%d bytes, %d fds%s%s" % (size, fds + more, ack, detail(name, payload)),
              flush=True)
        if what == "close-" + name:
            return
        if what == "silent-" + name:
            continue
        sent = fault(what, name, answer(name, payload, flags & NEED_REPLY))
        if sent is not None:
            number, out, reply, claimed = sent
            message = struct.pack("=III", request if number is None else number, out,
                                  len(reply) if claimed is None else claimed) + reply
            if what == "half-" + name:
                peer.sendall(message[:14])
                return
            peer.sendall(message)
        if what == "unasked" and name == "SET_VRING_ENABLE":
            peer.sendall(struct.pack("=IIIQ", 7, REPLY, 8, 0))


def main():
    global protocol
    if len(sys.argv) > 3:
        protocol = int(sys.argv[3], 0)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(1)
    listener.settimeout(30)
    peer, _ = listener.accept()
    peer.settimeout(30)
    try:
        serve(peer, sys.argv[2])
    except (EOFError, ConnectionError):
        pass


main()
