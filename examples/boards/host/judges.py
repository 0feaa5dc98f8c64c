# SPDX-License-Identifier: MIT-0
"""What the host side of a run knows, and whether the device was used as it should have been.

A judge gives QEMU the back-end of a device, sees each line of the console, and decides at the end from
its own side: the image file, the bytes it fed, the frames it sent. What the image claims is not believed.
"""

import os
import random
import re

from machine import Failed

class Judge:
    """seconds: for how long a run may last; status: how the image must end."""

    seconds = 60
    status = 0

    def __init__(self, directory, front):
        self.directory = directory
        self.front = front

    def path(self, name):
        return os.path.join(self.directory, name)

    def arguments(self):
        """Those of QEMU that make the device and its back-end."""
        raise NotImplementedError

    def started(self, machine):
        """The machine runs."""

    def line(self, machine, text):
        """The console printed a line."""

    def ended(self):
        """The machine ended: one line about what was found true; Failed if it was not."""
        raise NotImplementedError


class Blk(Judge):
    """The second half of the image must be its first half with each byte one higher."""

    sectors = 2048

    def arguments(self):
        self.before = random.randbytes(self.sectors * 512)
        with open(self.path("disk.img"), "wb") as image:
            image.write(self.before)
        drive = f"if=none,id=disk,format=raw,file={self.path('disk.img')}"
        return ["-drive", drive, *self.front.device("blk", "drive=disk", "serial=board-test")]

    def line(self, machine, text):
        found = re.match(r"  read +\d+ bytes, checksum (\w+)", text)
        if found and int(found[1], 16) != fnv1a(self.before):
            raise Failed("what was read is not what the image holds")

    def ended(self):
        half = self.sectors // 2 * 512
        with open(self.path("disk.img"), "rb") as image:
            after = image.read()
        if after[:half] != self.before[:half]:
            raise Failed("the first half of the image was written")
        if after[half:] != self.before[:half].translate(bytes((i + 1) % 256 for i in range(256))):
            raise Failed("the second half of the image is not what should be there")
        return f"{half} bytes of the image are what they should be"


class Rng(Judge):
    """Each byte that the image prints must be one of the stream that QEMU was fed with, in its order."""

    def arguments(self):
        self.stream = random.randbytes(1 << 16)
        self.got = b""
        with open(self.path("entropy"), "wb") as source:
            source.write(self.stream)
        source = f"rng-random,id=entropy,filename={self.path('entropy')}"
        return ["-object", source, *self.front.device("rng", "rng=entropy")]

    def line(self, machine, text):
        found = re.match(r"  bytes +([0-9a-f]+)", text)
        if found:
            self.got += bytes.fromhex(found[1])

    def ended(self):
        if len(self.got) < 512 or self.got != self.stream[: len(self.got)]:
            raise Failed(f"the {len(self.got)} bytes printed are not those that were fed")
        return f"{len(self.got)} random bytes are those that were fed"


class NoDevice(Judge):
    """There is none: the image must say so and end with status 1."""

    status = 1

    def arguments(self):
        self.said = False
        return []

    def line(self, machine, text):
        self.said = self.said or ": no " in text

    def ended(self):
        if not self.said:
            raise Failed("not a word about the missing device")
        return "the missing device was reported"


def fnv1a(data):
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


JUDGES = {"blk": Blk, "rng": Rng, "rtos": Blk}
