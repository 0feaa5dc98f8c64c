# SPDX-License-Identifier: MIT-0
"""What the host side of a run knows, and whether the device was used as it should have been.

A judge gives QEMU the back-end of a device, sees each line of the console, and decides at the end from
its own side: the image file, the bytes it fed, the frames it sent. What the image claims is not believed.
"""

import os
import random
import re

from judge import Judge
from judge_console import Console, ConsolePlain, ConsoleSoak
from judge_net import Net, NetDown, NetUser
from machine import BOARDS, Failed, Skipped


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


class BlkMmio(Blk):
    """The same by an image that knows of memory and of virtio-mmio version 2 alone."""

    def arguments(self):
        if self.front.board.folder == "x86":
            raise Skipped("this board uses ports as well, which the image has left out")
        if self.front.transport != "virtio-mmio":
            raise Skipped("the image knows of the transport virtio-mmio alone")
        return super().arguments()


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


class Bench(Judge):
    """There must be a figure for each access, from an image whose kicks reach the disk: it names that by
    its serial number."""

    figures = {"notify/loop", "notify/suppressed", "notify/kick", "access/status", "access/config"}

    def arguments(self):
        self.serial = f"bench-{random.randrange(1 << 32):08x}"
        self.named = False
        self.took = set()
        drive = "driver=null-co,node-name=disk,size=1048576,read-zeroes=on"
        return ["-blockdev", drive, *self.front.device("blk", "drive=disk", f"serial={self.serial}")]

    def line(self, machine, text):
        self.named = self.named or text == f'  disk       "{self.serial}"'
        found = re.match(r"  took +(\S+) [\d.]+ ns$", text)
        if found:
            self.took.add(found[1])

    def ended(self):
        if not self.named:
            raise Failed("the disk was not asked for its serial number")
        missing = self.figures - self.took
        if missing or not self.took & {"irq/isr", "irq/status-ack"}:
            raise Failed(f"no figure for {', '.join(sorted(missing)) or 'interrupts'}")
        return f"{len(self.took)} figures"


class Lost(Judge):
    """Something is done to the disk while the image reads it: the image must say what it lost, and end
    with status 1."""

    status = 1
    sectors = 2048

    def arguments(self):
        self.disturbed = False
        self.said = None
        with open(self.path("disk.img"), "wb") as image:
            image.truncate(self.sectors * 512)
        drive = f"if=none,id=disk,format=raw,file={self.path('disk.img')}"
        return ["-drive", drive, *self.front.device("blk", "drive=disk", "id=function")]

    def line(self, machine, text):
        if text.startswith("  reading "):
            self.disturb(machine)
            self.disturbed = True
        found = re.match(r"blk: (.*)", text)
        if found:
            self.said = found[1]

    def disturb(self, machine):
        """What is done."""
        raise NotImplementedError

    def ended(self):
        if not self.disturbed:
            raise Failed("the disk was never read")
        return self.lost()

    def lost(self):
        """As ended(), when something was done."""
        raise NotImplementedError


class Unplug(Lost):
    """The device is taken out of its slot."""

    def arguments(self):
        if self.front.board is not BOARDS["pc"]:
            raise Skipped("only the board pc lets a device go")
        return [*super().arguments(), "-trace", "acpi_pci_eject_slot", "-D", self.path("trace")]

    def disturb(self, machine):
        machine.qmp("device_del", id="function")

    def lost(self):
        if not os.path.exists(self.path("trace")) or os.path.getsize(self.path("trace")) == 0:
            raise Failed("the device was not removed")
        if self.said != "device is gone":
            raise Failed("not a word about the device that is gone")
        return "the device was removed, and that was reported"


class Shrink(Lost):
    """The disk becomes smaller: there is an error behind its new end."""

    left = 1024

    def disturb(self, machine):
        machine.qmp("block_resize", device="disk", size=self.left * 512)

    def lost(self):
        if os.path.getsize(self.path("disk.img")) != self.left * 512:
            raise Failed("the image is not smaller")
        found = re.match(r"sector (\d+): I/O error", self.said or "")
        if found is None or int(found[1]) < self.left:
            raise Failed("not a word about the sectors that are gone")
        return f"the disk has {self.left} sectors left, and an error behind them was reported"


class NoDevice(Judge):
    """There is none: the image must say so and end with status 1."""

    status = 1

    def arguments(self):
        self.said = False
        return []

    def line(self, machine, text):
        self.said = self.said or text.endswith(": no block device")

    def ended(self):
        if not self.said:
            raise Failed("not a word about the missing device")
        return "the missing device was reported"


class OtherDevice(NoDevice):
    """There is one of another type: that must be said as well."""

    def arguments(self):
        self.named = False
        source = ["-object", "rng-builtin,id=entropy"]
        return [*super().arguments(), *source, *self.front.device("rng", "rng=entropy")]

    def line(self, machine, text):
        super().line(machine, text)
        self.named = self.named or text.endswith("has a virtio device of type 4 (entropy source)")

    def ended(self):
        if not self.named:
            raise Failed("not a word about the device that is there")
        return f"{super().ended()}, and what is there instead"


def fnv1a(data):
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


# What can be run: who judges it, and the program that it needs.
RUNS = {
    "blk": (Blk, "blk"),
    "rng": (Rng, "rng"),
    "net": (Net, "net"),
    "console": (Console, "console"),
    "rtos": (Blk, "rtos"),
    "mmio": (BlkMmio, "mmio"),
    "bench": (Bench, "bench"),
    "net-user": (NetUser, "net"),
    "net-down": (NetDown, "net"),
    "console-plain": (ConsolePlain, "console"),
    "console-soak": (ConsoleSoak, "console"),
    "no-device": (NoDevice, "blk"),
    "other-device": (OtherDevice, "blk"),
    "shrink": (Shrink, "unplug"),
    "unplug": (Unplug, "unplug"),
}
