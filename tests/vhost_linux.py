#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""The vhost-user daemons under Debian's kernel, in a machine that QEMU emulates: vhost-user-blk-pci and others.

Usage: vhost_linux.py [--quick] path/to/vhost-blk

One boot with a disk, and a daemon, for each combination of ring features. On each the guest copies a tree into an
ext4 of the host's mke2fs; on some of them while the daemon is killed (kill -9) again and again. Then the host checks
the file systems and compares the trees. A network device sends frames to vhost-net's echo, /dev/hwrng gets what
vhost-rng serves; both are looked for beside vhost-blk. The kernel (build/linux, see tests/install.sh) may not have
complained.

"N passed, N failed" at the end. What needs a package that is missing is skipped and named.
"""

import argparse
import os
import pathlib
import random
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

import vhost
from vhost import MIB, Failed, Skipped, need

LINUX = pathlib.Path(__file__).parent.parent / "build" / "linux"
MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
           "failover", "net_failover", "virtio_net", "virtio-rng"]
FRAMES = 40
BOOT_AND_COPY = 240  # seconds at most; emulated, and beside other tests
FEATURE = {"indirect_desc": 28, "event_idx": 29, "packed": 34}
KILLS = 4  # of a daemon, at least

INIT = """#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev /mnt
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {modules}; do
    insmod /$module.ko || echo "no $module"
done
copy() {{ # disk, how often
    mount -t ext4 -o discard /dev/$1 /mnt && cp -a /tree /mnt/ || return
    for i in $(seq $2); do
        cp -a /tree /mnt/again && sync && rm -r /mnt/again || return
    done
    umount /mnt && mount -t ext4 -o ro /dev/$1 /mnt && diff -r /tree /mnt/tree && umount /mnt && echo "$1 copied"
}}
{script}
if [ -e /sys/class/net/eth0 ]; then
    ifconfig eth0 10.0.0.1 up
    arp -s 10.0.0.2 02:00:00:00:00:77
    ping -c {frames} -i 0.05 -W 1 -s 1400 10.0.0.2 >/dev/null
    cd /sys/class/net/eth0
    echo "eth0 sent $(cat statistics/tx_packets) received $(cat statistics/rx_packets), features $(cat device/features)"
fi
[ ! -c /dev/hwrng ] || echo "hwrng $(dd if=/dev/hwrng bs=64 count=4 2>/dev/null | hexdump -v -e '1/1 "%02x"')"
echo "dmesg"
dmesg -r | grep '^<[0-4]>'
echo "guest done"
poweroff -f
"""


class Net:
    """A network device on vhost-net's echo, packed or split. No MSI-X: with it, QEMU 7.2 without KVM ends with SIGSEGV
    when the driver starts, split or packed."""

    quick = killed = False

    def __init__(self, packed):
        self.packed, self.title = packed, f"vhost-net: virtio-net-pci, packed={packed}, every frame back"

    def start(self, program, directory, name):
        self.name = name
        self.daemon = vhost.Daemon(program.with_name("vhost-net"), directory, name)

    def qemu(self):
        return ["-chardev", f"socket,id={self.name},path={self.daemon.path}",
                "-netdev", f"vhost-user,id=net{self.name},chardev={self.name}",
                "-device", f"virtio-net-pci,netdev=net{self.name},packed={self.packed},vectors=0"]

    def judge(self, text, _kills, _tree):
        found = re.search(r"^eth0 sent (\d+) received (\d+), features ([01]+)$", text, re.M)
        need(found is not None, f"no network device in the guest: {text[-1000:]}")
        need(found[3][FEATURE["packed"]] == str(int(self.packed == "on")), f"packed is {found[3][34]}")
        need(int(found[1]) >= FRAMES and found[1] == found[2], f"sent {found[1]} frames, {found[2]} came back")
        need(not re.search(r"connection dropped|left alone", self.daemon.said()), self.daemon.said()[-1000:])


class Rng:
    """An entropy device on vhost-rng, whose source is known."""

    quick = killed = False
    title = "vhost-rng: vhost-user-rng-pci, what the source holds"

    def start(self, program, directory, name):
        self.name, self.source = name, directory / "source"
        self.source.write_bytes(vhost.noise(MIB))
        self.daemon = vhost.Daemon(program.with_name("vhost-rng"), directory, name, "--source", str(self.source))

    def qemu(self):
        return ["-chardev", f"socket,id={self.name},path={self.daemon.path}",
                "-device", f"vhost-user-rng-pci,chardev={self.name}"]

    def judge(self, text, _kills, _tree):
        found = re.search(r"^hwrng ([0-9a-f]{512})$", text, re.M)
        need(found is not None, f"no 256 bytes from the guest: {text[-1000:]}")
        need(bytes.fromhex(found[1]) in self.source.read_bytes(), "the guest got something else")


class Disk:
    """An ext4 on a daemon of its own, and the properties of the device that QEMU makes of it."""

    def __init__(self, queues, killed=False, quick=False, **properties):
        self.queues, self.killed, self.quick = queues, killed, quick
        self.properties = {"packed": "off", "event_idx": "on", "indirect_desc": "on", **properties}
        self.title = " ".join(f"{name}={value}" for name, value in self.properties.items())
        self.title += f", {queues} queue{'s' * (queues > 1)}{', killed meanwhile' * killed}"

    def start(self, program, directory, name):
        self.name, self.image = name, directory / f"{name}.img"
        self.image.write_bytes(bytes(24 * MIB))
        subprocess.run(["mke2fs", "-q", "-t", "ext4", str(self.image)], check=True, timeout=60)
        self.daemon = vhost.Disk(program, directory, self.image, "--queues", str(self.queues))

    def qemu(self):
        properties = "".join(f",{name}={value}" for name, value in self.properties.items())
        return ["-chardev", f"socket,id={self.name},path={self.daemon.path},reconnect=1",
                "-device", f"vhost-user-blk-pci,chardev={self.name},num-queues={self.queues}{properties}"]

    def judge(self, text, kills, tree):
        """Were these features used, and is everything there?"""
        found = re.search(rf"^{self.name} (\d) queues, features ([01]+)$", text, re.M)
        need(found is not None, f"no such disk in the guest: {text[-1000:]}")
        need(int(found[1]) == self.queues, f"the guest uses {found[1]} queues")
        for feature, bit in FEATURE.items():
            need(found[2][bit] == str(int(self.properties[feature] == "on")), f"{feature} is {found[2][bit]}")
        need(f"{self.name} copied" in text, f"the copy failed: {text[-1000:]}")
        need(not re.search(r"dropped|left alone|, [1-9]\d* refused", self.daemon.said()), self.daemon.said()[-1000:])
        vhost.fsck(self.image)
        vhost.same_tree(vhost.dump(self.image, self.image.with_suffix(".dump")), tree)
        if self.killed:
            need(kills[self] >= KILLS, f"killed only {kills[self]} times")
            self.title += f": {kills[self]} times, {self.daemon.said().count('in flight served again')} recoveries"


DISKS = [Disk(2), Disk(2, quick=True, packed="on"),
         Disk(1, event_idx="off"), Disk(1, packed="on", event_idx="off"),
         Disk(1, indirect_desc="off"), Disk(1, packed="on", indirect_desc="off"),
         Disk(2, killed=True), Disk(2, killed=True, packed="on"), Net("on"), Rng()]


def initrd(disks, tree):
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Skipped("needs busybox (package busybox-static)")
    script = ""
    for disk in [disk for disk in disks if isinstance(disk, Disk)]:
        name = disk.name
        script += f'echo "{name} $(ls /sys/block/{name}/mq | wc -l) queues, ' \
                  f'features $(cat /sys/block/{name}/device/features)"\n' \
                  f"echo {name} begins\ncopy {name} {12 if disk.killed else 1}\necho {name} ends\n"
    files = {"bin": (0o040755, b""), "bin/busybox": (0o100755, pathlib.Path(busybox).read_bytes()),
             "bin/sh": (0o120777, b"busybox"),
             "init": (0o100755, INIT.format(script=script, frames=FRAMES, modules=" ".join(MODULES)).encode())}
    for name in MODULES:
        found = sorted(LINUX.glob(f"lib/modules/*/kernel/**/{name}.ko"))
        need(found, f"Debian's kernel has no module {name}")
        files[f"{name}.ko"] = (0o100644, found[0].read_bytes())
    return vhost.cpio({**files, **vhost.tree_files(tree)})


def boot(directory, disks, tree):
    """Starts the guest; returns the process, whose output is the guest's console."""
    kernel = sorted(LINUX.glob("boot/vmlinuz-*"))
    if not kernel:
        raise Skipped("Debian's kernel could not be fetched (linux-image-cloud-amd64)")
    if shutil.which("qemu-system-x86_64") is None or shutil.which("mke2fs") is None:
        raise Skipped("needs the packages qemu-system-x86 and e2fsprogs")
    (directory / "initrd").write_bytes(initrd(disks, tree))
    command = ["qemu-system-x86_64", "-accel", "tcg", "-smp", "2", "-m", "256M", "-nodefaults", "-display", "none",
               "-no-reboot", "-machine", "q35,memory-backend=m", "-cpu", "max",
               "-object", "memory-backend-memfd,id=m,size=256M,share=on", "-serial", "stdio",
               "-kernel", str(kernel[-1]), "-initrd", str(directory / "initrd"),
               "-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
    for disk in disks:
        command += disk.qemu()
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


class Guest:
    """What a running guest has said so far."""

    def __init__(self, process):
        self.process, self.text = process, ""
        self.deadline = time.monotonic() + BOOT_AND_COPY

    def listen(self, seconds):
        """Listens for at most so long; false: it is over."""
        need(time.monotonic() < self.deadline, f"the guest does not end: {self.text[-1000:]}")
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return True
        data = os.read(self.process.stdout.fileno(), 65536)
        self.text += data.decode(errors="replace").replace("\r", "")
        return data != b""

    def until(self, word):
        while word not in self.text:
            need(self.listen(1), f"the guest ended before \"{word}\": {self.text[-1000:]}")


def kill_meanwhile(guest, disk, pick):
    """Kills the daemon of a disk while the guest copies; returns how often."""
    kills = 0
    guest.until(f"{disk.name} begins")
    while f"{disk.name} ends" not in guest.text:
        connected = disk.daemon.said().count("front-end connected")
        until = time.monotonic() + pick.uniform(0.05, 0.6)
        while time.monotonic() < until:
            guest.listen(0.05)
        disk.daemon.kill()
        disk.daemon.start()
        kills += 1
        while disk.daemon.said().count("front-end connected") == connected and guest.listen(0.05):
            pass
    return kills


def run(program, directory, disks, tree):
    """Boots once: what the guest said, and how often which disk's daemon was killed."""
    process = None
    try:
        for i, disk in enumerate(disks):
            disk.start(program, directory, f"vd{chr(ord('a') + i)}")
        process = boot(directory, disks, tree)
        guest, kills = Guest(process), {}
        for disk in disks:
            if disk.killed:
                kills[disk] = kill_meanwhile(guest, disk, random.Random(1))
        while guest.listen(1):
            pass
        need("guest done" in guest.text, f"the guest did not finish: {guest.text[-2000:]}")
        for disk in disks:
            disk.daemon.stop()
        return guest.text, kills
    finally:
        if process is not None:
            process.kill()
            process.wait()
        for disk in disks:
            if hasattr(disk, "daemon"):
                disk.daemon.kill()


def quiet(text):
    """The kernel's warnings of devices and file systems; others are about the emulated machine."""
    lines = text[text.index("\ndmesg\n") + 7:text.index("guest done")].splitlines()
    warnings = [line for line in lines if re.search(r"virtio|vd[a-z]|blk|EXT4|hung|I/O|BUG|WARN", line)]
    need(not warnings, "\n".join(warnings))


def count(title, judge, *args):
    """Says how a run went; True: it passed."""
    try:
        judge(*args)
        print(f"  ok      {title()}", flush=True)
        return True
    except Failed as why:
        print(f"  FAILED  {title()}: {why}", flush=True)
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--quick", action="store_true", help="one disk, with packed rings")
    args = parser.parse_args()
    disks = [disk for disk in DISKS if disk.quick] if args.quick else DISKS
    tree = vhost.make_tree()
    with tempfile.TemporaryDirectory(prefix="vhost-linux-") as directory:
        try:
            text, kills = run(pathlib.Path(args.program), pathlib.Path(directory), disks, tree)
            passed = [count(lambda disk=disk: disk.title, disk.judge, text, kills, tree) for disk in disks]
            passed.append(count(lambda: "the kernel has nothing to complain of", quiet, text))
        except Skipped as why:
            print(f"skipped: {why}")
            return 77
        except Failed as why:
            print(f"  FAILED  Linux under QEMU: {why}")
            passed = [False]
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return not all(passed)


if __name__ == "__main__":
    sys.exit(main())
