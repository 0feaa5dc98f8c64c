#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Does `virtio-lspci --json` say what is in a dump? Two judges: pciutils, and a decoder of its own.

    lspci_judge.py DUMP JSON

The decoder below is written from the layouts of the 2011 RFC and of VIRTIO 1.4 (4.1.4), shares nothing
with the program, and assumes that BARs are as large as their addresses allow, as the program does.
"""
import json
import re
import subprocess
import sys

TRANSITIONAL = {0x1000: 1, 0x1001: 2, 0x1002: 5, 0x1003: 3, 0x1004: 8, 0x1005: 4, 0x1009: 9}
NAMES = {1: "common", 2: "notify", 3: "isr", 4: "device", 5: "pci-cfg", 8: "shared-memory",
         9: "vendor"}
failures = []


def expect(where, got, want):
    if got != want:
        failures.append(f"{where}: {got!r}, not {want!r}")


def functions(path):
    """(address, configuration space) of each virtio function."""
    address, data, all_of_them = None, {}, []
    for line in open(path, encoding="ascii"):
        first = re.match(r"((?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\s", line)
        if first:
            address = first[1]
            data[address] = b""
            all_of_them.append(address)
        elif re.match(r"[0-9a-f]{2,3}: ", line):
            data[address] += bytes.fromhex(line.split(":")[1])
    return [(a, data[a]) for a in all_of_them
            if data[a][:2] == b"\xf4\x1a" and 0x1000 <= le(data[a], 2, 2) <= 0x107f]


def le(data, at, size):
    return int.from_bytes(data[at:at + size], "little")


def bars_of(data):
    """number: (kind, address, most it can be long)"""
    bars, number = {}, 0
    while number < 6:
        value, step = le(data, 0x10 + 4 * number, 4), 1
        if value & 1:
            base, most, kind = value & ~3, 1 << 16, "io"
        else:
            base, most, kind = value & ~15, 1 << 31, "memory"
            if value >> 1 & 3 == 2 and number < 5:
                base, most, step = base | le(data, 0x14 + 4 * number, 4) << 32, 1 << 63, 2
        if value:
            bars[number] = kind, base, min(base & -base, most) if base else most
        number += step
    return bars


def walk(data):
    at, seen = le(data, 0x34, 1) & ~3 if le(data, 6, 2) & 0x10 else 0, []
    while at and at not in seen:
        seen.append(at)
        yield at, data[at]
        at = data[at + 1] & ~3


def capability(data, at):
    size, kind = data[at + 2], data[at + 3]
    cap = {"at": at, "size": size, "type": kind, "bar": data[at + 4], "extra": 0}
    if kind == 9:
        return cap | {"family": "modern", "bar": 0, "offset": 0, "length": 0, "id": 0,
                      "extra": le(data, at + 4, 2)}
    if size == 12:
        mask = {1: 3, 2: 1}.get(kind, 0)
        return cap | {"family": "rfc2011", "length": le(data, at + 5, 3), "id": 0,
                      "offset": le(data, at + 8, 4) & ~mask}
    if size < 16:
        return cap | {"family": None}
    cap |= {"family": "modern", "id": data[at + 5], "offset": le(data, at + 8, 4),
            "length": le(data, at + 12, 4)}
    if kind == 2:
        cap["extra"] = le(data, at + 16, 4)
    if kind == 8:
        cap["offset"] |= le(data, at + 16, 4) << 32
        cap["length"] |= le(data, at + 20, 4) << 32
    return cap


def fits(cap, bars):
    if cap["bar"] not in bars or cap["type"] not in (1, 2, 3, 4) or not cap["family"]:
        return False
    return cap["offset"] + cap["length"] <= bars[cap["bar"]][2]


def places(caps, family, bars):
    found = {}
    for cap in caps:
        if cap["family"] == family and fits(cap, bars):
            found.setdefault(NAMES[cap["type"]], (family, cap["bar"], cap["offset"],
                                                  cap["length"], cap["at"]))
    return found


def layout(data, caps, bars, msix_on):
    """(generation, whether legacy is there, where the structures are)"""
    legacy = le(data, 2, 2) < 0x1040 and bars.get(0, ("",))[0] == "io"
    header = 24 if msix_on else 20
    fixed = {}
    if legacy:
        fixed = {"common": (0, header), "notify": (16, 2), "isr": (19, 1),
                 "device": (header, bars[0][2] - header)}
        fixed = {name: ("legacy", 0, *at, 0) for name, at in fixed.items()}
    modern = places(caps, "modern", bars)
    if {"common", "notify", "isr"} <= set(modern):
        return "modern", legacy, modern
    rfc = places(caps, "rfc2011", bars)
    if rfc:
        return "rfc2011", legacy, fixed | rfc
    return "legacy", legacy, fixed


def judge(address, data, got):
    bars = bars_of(data)
    caps = [capability(data, at) for at, kind in walk(data) if kind == 9]
    msix = next(({"at": at, "vectors": (le(data, at + 2, 2) & 0x7ff) + 1,
                  "enabled": data[at + 3] >= 0x80} for at, kind in walk(data) if kind == 0x11), None)
    generation, legacy, found = layout(data, caps, bars, msix and msix["enabled"])
    device = le(data, 2, 2)
    expect(f"{address} ids", [got["vendor"], got["device"], got["revision"],
                              got["subsystem_vendor"], got["subsystem_device"]],
           [0x1af4, device, data[8], le(data, 0x2c, 2), le(data, 0x2e, 2)])
    expect(f"{address} virtio id", got["virtio_id"],
           device - 0x1040 if device >= 0x1040 else TRANSITIONAL[device])
    expect(f"{address} BARs", {b["bar"]: (b["kind"], b["address"], b["assumed_size"])
                               for b in got["bars"]}, bars)
    expect(f"{address} MSI-X", got["msix"], msix)
    expect(f"{address} capabilities", [c["at"] for c in got["capabilities"]],
           [c["at"] for c in caps])
    for mine, theirs in zip(caps, got["capabilities"]):
        where = f"{address} [{mine['at']:02x}]"
        expect(f"{where} family", theirs["family"], mine["family"])
        expect(f"{where} name", theirs["name"], NAMES.get(mine["type"]))
        if mine["family"] and mine["type"] in NAMES:
            expect(where, {key: theirs[key] for key in mine}, mine)
        if fits(mine, bars):
            expect(f"{where} use", theirs["unused"] is None,
                   any(place[4] == mine["at"] for place in found.values()))
    expect(f"{address} generation", (got["layout"]["generation"], got["layout"]["legacy"]),
           (generation, legacy))
    for name in ("common", "notify", "isr", "device"):
        at = got["layout"][name]
        expect(f"{address} {name}",
               at and (at["found"], at["bar"], at["offset"], at["length"], at["cap"]),
               found.get(name))
    expect(f"{address} PCI_CFG", got["layout"]["pci_cfg"],
           next((c["at"] for c in caps if c["type"] == 5), 0))


def ask_pciutils(path):
    """address: {"bars": ..., "caps": ..., "msix": ...} as lspci prints them"""
    text = subprocess.run(["lspci", "-F", path, "-vv"], check=True, capture_output=True,
                          text=True).stdout
    answers = {}
    for block in text.strip().split("\n\n"):
        bars = {int(n): ("io" if kind == "I/O ports" else "memory", int(base, 16)) for n, kind, base
                in re.findall(r"Region (\d): (I/O ports|Memory) at ([0-9a-f]+)", block)}
        caps = {}
        for at, kind, rest in re.findall(
                r"\[([0-9a-f]+)\] Vendor Specific Information: VirtIO: (\S+)\n(.*)", block):
            values = re.findall(r"(\w+)=([0-9a-f]+)", rest)
            caps[int(at, 16)] = kind, {key: int(value, 16) for key, value in values}
        lengths = {int(at, 16): int(size, 16) for at, size in re.findall(
            r"\[([0-9a-f]+)\] Vendor Specific Information: Len=([0-9a-f]+)", block)}
        msix = re.search(r"\[([0-9a-f]+)\] MSI-X: Enable([-+]) Count=(\d+)", block)
        answers[block.split()[0]] = {
            "bars": bars, "caps": caps, "lengths": lengths,
            "msix": msix and {"at": int(msix[1], 16), "enabled": msix[2] == "+",
                              "vectors": int(msix[3])}}
    return answers


def compare(address, theirs, got):
    expect(f"{address} BARs by pciutils",
           {b["bar"]: (b["kind"], b["address"]) for b in got["bars"]}, theirs["bars"])
    expect(f"{address} MSI-X by pciutils", got["msix"], theirs["msix"])
    expect(f"{address} capabilities by pciutils", sorted(c["at"] for c in got["capabilities"]),
           sorted({**theirs["caps"], **theirs["lengths"]}))
    kinds = {"CommonCfg": "common", "Notify": "notify", "ISR": "isr", "DeviceCfg": "device"}
    for cap in got["capabilities"]:
        where = f"{address} [{cap['at']:02x}] by pciutils"
        if cap["at"] in theirs["lengths"]:
            expect(where, cap["size"], theirs["lengths"][cap["at"]])
            continue
        kind, values = theirs["caps"].get(cap["at"], ("", {}))
        if kind in kinds:
            expect(where, cap["name"], kinds[kind])
        mine = {"BAR": cap["bar"], "offset": cap["offset"] & 0xffffffff,
                "size": cap["length"] & 0xffffffff}
        if cap["name"] == "notify":
            mine["multiplier"] = cap["extra"]
        expect(where, mine, values)


def main():
    dump, report = sys.argv[1:]
    got = json.load(open(report, encoding="ascii"))
    theirs = ask_pciutils(dump)
    mine = functions(dump)
    expect("functions", [f["address"] for f in got], [address for address, _ in mine])
    for (address, data), function in zip(mine, got):
        judge(address, data, function)
        compare(address, theirs[address], function)
    print("\n".join(failures) if failures else f"{len(got)} functions agree")
    return bool(failures) or not got


sys.exit(main())
