# SPDX-License-Identifier: MIT-0
"""The machines of QEMU that the boards are for, and one run of an image on one of them."""

import json
import os
import select
import shutil
import socket
import subprocess
import time

PCI = ("pci-modern", "pci-modern-pio", "pci-legacy")
MMIO = ("virtio-mmio", "virtio-mmio-v1")


class Failed(Exception):
    """A run did not do what it should; the text says what."""


class Skipped(Exception):
    """A run is not possible on this machine; the text says why."""


def same_status(status):
    """Of a board whose image ends QEMU with its own status."""
    return status


def debug_exit_status(status):
    """Of a board with isa-debug-exit: QEMU ends with 2n + 1 when n is written there, and an image writes
    its status plus 16. None: QEMU ended by itself, as after an error, a reset or a triple fault."""
    return status // 2 - 16 if status % 2 == 1 and status > 32 else None


class Board:
    """folder: where its code is; qemu: program and fixed arguments; transports: the first one is the
    usual one; properties: of every device there; status: the image's exit status from QEMU's, or None
    if it does not get out."""

    def __init__(self, folder, qemu, transports, status=same_status):
        self.folder = folder
        self.qemu = qemu
        self.transports = transports
        self.status = status


DEBUG_EXIT = "-device isa-debug-exit,iobase=0xf4,iosize=4"

BOARDS = {
    "aarch64-virt": Board(
        "aarch64-virt",
        "qemu-system-aarch64 -M virt,highmem=off,gic-version=2 -cpu cortex-a57 -semihosting",
        MMIO + PCI,
    ),
    "arm-virt": Board(
        "arm-virt",
        "qemu-system-arm -M virt,highmem=off,gic-version=2 -cpu cortex-a15 -semihosting",
        MMIO + PCI,
    ),
    "riscv64-virt": Board("riscv64-virt", "qemu-system-riscv64 -M virt -bios none", MMIO + PCI),
    "malta": Board("malta", "qemu-system-mips -M malta -cpu 24Kf -semihosting", PCI),
    "pc": Board("x86", f"qemu-system-x86_64 -M pc {DEBUG_EXIT}", PCI, debug_exit_status),
    "q35": Board("x86", f"qemu-system-x86_64 -M q35 {DEBUG_EXIT}", PCI, debug_exit_status),
    "microvm": Board("x86", f"qemu-system-x86_64 -M microvm {DEBUG_EXIT}", MMIO, debug_exit_status),
}

# Properties of a device that leave it one transport, the one to be tried.
ONLY = {
    "pci-modern": ["disable-legacy=on", "disable-modern=off"],
    "pci-modern-pio": ["disable-legacy=on", "disable-modern=off", "modern-pio-notify=on"],
    "pci-legacy": ["disable-legacy=off", "disable-modern=on"],
    "virtio-mmio": [],
    "virtio-mmio-v1": [],
}


class Front:
    """What a judge needs to name devices: board, transport and extra properties."""

    def __init__(self, board, transport, properties):
        self.board = BOARDS[board]
        self.transport = transport
        self.properties = properties

    def device(self, name, *properties):
        """The arguments for a virtio device, such as blk or serial, with its own properties first."""
        bus = "device" if self.transport in MMIO else "pci"
        return [
            "-device",
            ",".join([f"virtio-{name}-{bus}", *properties, *ONLY[self.transport], *self.properties]),
        ]

    def globals(self):
        if self.transport not in MMIO:
            return []
        legacy = "on" if self.transport == "virtio-mmio-v1" else "off"
        return ["-global", f"virtio-mmio.force-legacy={legacy}"]


class Machine:
    """A QEMU with one image. Its console comes line by line; it ends when the run does."""

    def __init__(self, board, image, directory, arguments):
        command = BOARDS[board].qemu.split()
        if shutil.which(command[0]) is None:
            raise Skipped(f"{command[0]} is not installed")
        self.monitor = os.path.join(directory, "monitor")
        self.command = [
            *command, "-m", "64", "-display", "none", "-nodefaults", "-no-reboot",
            "-serial", "stdio", "-kernel", image, "-qmp", f"unix:{self.monitor},server=on,wait=off",
            *arguments,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.qmp_stream = None

    def lines(self, seconds):
        """Each line of the console, until the machine ends. Failed after so many seconds."""
        end = time.monotonic() + seconds
        rest = b""
        stream = self.process.stdout.fileno()
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                raise Failed(f"still running after {seconds} seconds")
            got = os.read(stream, 65536)
            *whole, rest = (rest + got).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace").rstrip("\r")
            if got == b"":
                return

    def qmp(self, command, **arguments):
        """One command of the monitor: its answer, or None if the machine ended before that came, as it
        may when the image ends at what the command does. Failed if it refuses."""
        if self.qmp_stream is None:
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(10)
            link.connect(self.monitor)
            self.qmp_stream = link.makefile("rw")
            self.qmp_stream.readline()
            self.qmp("qmp_capabilities")
        json.dump({"execute": command, "arguments": arguments}, self.qmp_stream)
        self.qmp_stream.write("\n")
        self.qmp_stream.flush()
        while True:
            try:
                text = self.qmp_stream.readline()
            except ConnectionError:
                text = ""
            if text == "":
                return None
            answer = json.loads(text)
            if "error" in answer:
                raise Failed(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def stop(self):
        """Ends the machine if it still runs; its exit status, or None if it had to be ended."""
        try:
            return self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        finally:
            self.process.stdout.close()
