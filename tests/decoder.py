#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""A second decoder of virtqueues, written from the specification and from nothing else.

Reads what tests/images.c printed: JSON lines that say what was asked of both sides of a queue, what
the calls answered, and which bytes of memory changed. Keeps its own model of the queue, writes its
own image of the ring and table memory after each step, and compares the two byte for byte. Where
the specification leaves a choice to one side (which descriptor, which buffer id) the choice is read
from the memory, checked, and written back into the own image; every byte that is read this way goes
through the table FREE. Between add and publish, and between push and flush, a side may write what
the other does not look at yet; it is judged when it becomes visible."""

import argparse
import json
import sys
from collections import deque

# Flags and modes of the wire.
NEXT, WRITE, INDIRECT, AVAIL, USED = 1, 2, 4, 1 << 7, 1 << 15
OFF = 1  # avail.flags NO_INTERRUPT, used.flags NO_NOTIFY
ENABLE, DISABLE, DESC = 0, 1, 2
# Answers of calls.
ERR_TOO_LONG, ERR_FULL = -7, -8

# Every byte that the own image copies from the memory instead of writing it from the model.
FREE = {
    "split head": "avail.ring[]: the driver picks any free descriptor (D-SPLIT-08); with IN_ORDER "
                  "only the first one after a restore",
    "split next": "next of a descriptor with NEXT: any free descriptor; with IN_ORDER none is free",
    "split next unread": "next of a descriptor without NEXT: nobody reads it (L-SPLIT-01)",
    "table next": "next of a table entry with NEXT: any entry not linked yet; with IN_ORDER none "
                  "is free (D-IND-04, D-INO-03)",
    "table next unread": "next of a split table entry without NEXT: nobody reads it",
    "packed id": "id of a list's last descriptor: any value no outstanding buffer has (D-PACK-06)",
    "packed id unread": "id of a list's other descriptors: nobody reads it (D-PACK-06)",
    "packed used addr": "addr of a used descriptor: unused (D-PACK-11), left alone or 0",
    "packed event unread": "offset and wrap of an event structure: only DESC gives them a meaning "
                           "(L-PEVT-02)",
    "split event off": "used_event or avail_event after switching off with EVENT_IDX: any value "
                       "that is not ahead (D-EVT-07)",
    "event after": "position of an interrupt wanted later: three quarters of what is outstanding, "
                   "rounded either way",
    "restored event": "an event index after the driver restored a position: 0 or the position",
    "restored flags": "flags of a packed slot nobody has used since a restore: zero, or used in an "
                      "earlier lap",
}

# Golden vectors of conformance D.2 (legacy, align 4096: num -> avail, used, total) and D.3.
D2 = {4: (64, 4096, 8192), 128: (2048, 4096, 8192), 256: (4096, 8192, 12288),
      512: (8192, 12288, 20480), 1024: (16384, 20480, 32768), 32768: (524288, 593920, 860160)}
D3_SPLIT = {(0, 1, 0): 1, (65535, 0, 65535): 1, (1, 5, 2): 0, (2, 5, 2): 1, (4, 5, 2): 1,
            (5, 5, 2): 0, (65534, 1, 65534): 1, (0, 1, 65534): 1, (1, 1, 65534): 0, (3, 3, 3): 0}
# (num, slot, wrap, slots) -> armed (offset, wrap) -> fires
D3_PACKED = {(4, 3, 1, 2): {(3, 1): 1, (0, 0): 1, (1, 0): 0, (2, 1): 0},
             (4, 0, 1, 4): {(0, 1): 1, (2, 1): 1, (3, 1): 1, (0, 0): 0},
             (5, 4, 0, 3): {(4, 0): 1, (0, 1): 1, (1, 1): 1, (2, 1): 0, (3, 0): 0}}


class Mismatch(Exception):
    """The memory, or an answer, is not what the specification says."""


def need(condition, text, *values):
    if not condition:
        raise Mismatch(text % values if values else text)


def align_up(value, align):
    return (value + align - 1) // align * align


class Buffer:
    """One buffer as it was added; `slots` descriptors of the ring are its own."""

    def __init__(self, step, indirect):
        self.cookie = step["cookie"]
        self.readable = step["readable"]
        self.writable = step["writable"]
        self.elements = [(a, n, 0) for a, n in self.readable]
        self.elements += [(a, n, WRITE) for a, n in self.writable]
        self.room = sum(length for _, length in self.writable)
        self.table = step["table"] if indirect else None
        self.table_addr = step["table_addr"] if indirect else None
        self.slots = 1 if indirect else len(self.elements)
        self.descs = []  # split: its descriptors
        self.name = None  # what a used entry calls it: head index or buffer id
        self.written = None
        self.full = False

    def ring_elements(self):
        """(addr, len, flags) of each descriptor in the ring itself, without format flags."""
        if self.table is not None:
            return [(self.table_addr, 16 * len(self.elements), INDIRECT)]
        return self.elements


class Memory:
    """What was printed (`seen`) and what the decoder itself wrote (`want`), region by region."""

    def __init__(self, step):
        self.guard = step["guard"]
        size = step["total"] + 2 * self.guard
        self.seen = {"ring": bytearray([step["ring_fill"]]) * size}
        if step["indirect"]:
            tables = step["table_bytes"] * step["table_count"]
            self.seen["tables"] = bytearray([step["table_fill"]]) * tables
        self.want = {name: bytearray(data) for name, data in self.seen.items()}
        self.order = "big" if step["big"] else "little"

    def apply(self, step):
        for name, data in self.seen.items():
            for at, text in step[name]:
                raw = bytes.fromhex(text)
                need(at + len(raw) <= len(data), "%s: change outside the region", name)
                data[at:at + len(raw)] = raw

    def get(self, region, at, size):
        return int.from_bytes(self.seen[region][at:at + size], self.order)

    def put(self, region, at, size, value):
        self.want[region][at:at + size] = value.to_bytes(size, self.order)

    def choose(self, key, region, at, size):
        """Copies a choice of the other side into the own image and returns it."""
        need(key in FREE, "the decoder reads an unlisted byte: %s", key)
        self.want[region][at:at + size] = self.seen[region][at:at + size]
        return self.get(region, at, size)

    def own(self, region, at, size):
        return int.from_bytes(self.want[region][at:at + size], self.order)

    def compare(self, loose, where):
        """`loose` gives (offset, size) in the ring that only become someone else's later."""
        for name, seen in self.seen.items():
            want = self.want[name]
            if seen != want and name == "ring":
                want = bytearray(want)
                for at, size in loose():
                    want[at:at + size] = seen[at:at + size]
            if seen != want:
                at = next(i for i, (a, b) in enumerate(zip(seen, want)) if a != b)
                place = where(at) if name == "ring" else "table byte %d" % at
                raise Mismatch("%s is 0x%02x, expected 0x%02x" % (place, seen[at], want[at]))


class Queue:
    """What both formats share: the order of buffers, who holds them, what each call must answer.

    Positions count entries: split, the free-running index; packed, slots over two laps of the ring,
    the first with the wrap counter at 1."""

    def __init__(self, step, memory):
        self.num = step["num"]
        self.event_idx = step["event_idx"]
        self.indirect = step["indirect"]
        self.in_order = step["in_order"]
        self.notify_on_empty = step["notify_on_empty"]
        self.memory = memory
        self.desc = memory.guard
        self.driver = memory.guard + step["driver"]
        self.device = memory.guard + step["device"]
        self.table_bytes = step["table_bytes"]
        self.check_layout(step)
        self.restored = False
        self.driver_reset()
        self.device_reset()

    # -- positions ------------------------------------------------------------------------------
    def after(self, at, count):
        return (at + count) % self.modulus

    def driver_reset(self):
        self.pending = []  # added, not published
        self.available = deque()  # published, not popped
        self.outstanding = {}  # published, not taken, by cookie
        self.completed = deque()  # flushed, not taken
        self.names = set()  # of outstanding buffers
        self.held = {}  # popped, not pushed, by token
        self.pushed = []  # not flushed
        self.in_use = 0  # descriptors of both
        self.published = self.taken = 0
        self.kick_walk = []
        self.restored = False

    def device_reset(self):
        self.popped = self.flushed = 0
        self.irq_walk = []

    def width(self, buffers):
        return sum(self.entries(buffer) for buffer in buffers)

    def room(self):
        return self.num - self.in_use

    def batches(self):
        """Used entries for what was pushed: with IN_ORDER a buffer written in full is completed by
        the entry of its successor (V-INO-01, V-INO-02, V-INO-03)."""
        groups, group = [], []
        for buffer in self.pushed:
            group.append(buffer)
            if not (self.in_order and buffer.full):
                groups.append(group)
                group = []
        return groups + [group] if group else groups

    # -- driver side ----------------------------------------------------------------------------
    def do_driver_init(self, step):
        need(step["rc"] == 0, "driver_init answers %d", step["rc"])
        self.driver_reset()
        for at, size in self.areas():
            self.memory.want["ring"][at:at + size] = bytes(size)

    def do_driver_restore(self, step):
        need(step["rc"] == 0, "driver_restore answers %d", step["rc"])
        self.published = self.decode(step["avail_idx"])
        self.taken = self.decode(step["used_idx"])
        self.restored = True
        self.image_restored()

    def do_driver_save(self, step):
        need(step["avail_idx"] == self.encode(self.published), "driver_save: avail_idx")
        need(step["used_idx"] == self.encode(self.taken), "driver_save: used_idx")

    def do_add(self, step):
        count = len(step["readable"]) + len(step["writable"])
        table = self.indirect and 2 <= count <= step.get("table_capacity", 0)
        buffer = Buffer(step, table)
        rc = 0
        if count > self.num:
            rc = ERR_TOO_LONG
        elif buffer.slots > self.room():
            rc = ERR_FULL
        need(step["rc"] == rc, "add answers %d, expected %d", step["rc"], rc)
        if rc == 0:
            self.pending.append(buffer)
            self.in_use += buffer.slots
            if table:
                self.write_table(buffer)
        need(step["free"] == self.room(), "free count %d, expected %d", step["free"], self.room())

    def do_publish(self, step):
        for buffer in self.pending:
            self.write_available(buffer)
            for i in range(self.entries(buffer)):
                self.kick_walk.append(self.after(self.published, i))
            self.published = self.after(self.published, self.entries(buffer))
            self.available.append(buffer)
            self.outstanding[buffer.cookie] = buffer
        self.pending = []
        self.image_published()
        # L-NOTE-02, L-NOTE-03
        data = self.encode(self.published)
        need(step["notification_data"] == data, "notification data 0x%x, expected 0x%x",
             step["notification_data"], data)

    def do_kick_due(self, step):
        self.decide(step, self.kick_walk, "device", False)
        self.kick_walk = []

    def do_take(self, step):
        done = []
        while self.completed and len(done) < step["max"]:
            buffer = self.completed.popleft()
            done.append([buffer.cookie, buffer.written])
            self.released(self.outstanding.pop(buffer.cookie))
            self.taken = self.after(self.taken, self.entries(buffer))
        need(step["rc"] == len(done), "take answers %d, expected %d", step["rc"], len(done))
        need(step["done"] == done, "taken %s, expected %s", step["done"], done)
        need(step["free"] == self.room(), "free count %d, expected %d", step["free"], self.room())

    def released(self, buffer):
        """The driver took the completion: the buffer's descriptors are free again."""
        self.in_use -= buffer.slots
        self.names.discard(buffer.name)

    def do_irq_off(self, step):
        self.image_off("driver", self.taken)

    def do_irq_on(self, step):
        self.image_on("driver", self.taken)
        need(step["result"] == bool(self.completed), "irq_on answers %s", step["result"])

    def do_irq_on_after(self, step):
        need(not self.pending, "the scenario asks for the undefined")
        total = self.width(self.outstanding.values())
        ready = self.width(self.completed)
        most = total * 3 // 4
        if not self.event_idx:
            self.image_on("driver", self.taken)
        else:
            at = self.event_chosen("driver", "event after")
            most = (at - self.taken) % self.modulus
            least = max(0, total * 3 // 4 - 1)
            need(least <= most <= total * 3 // 4 and most <= max(0, total - 1),
                 "irq_on_after: %d entries after the next, of %d outstanding", most, total)
        self.check_pending_after(step["result"], ready, most)

    def do_detach(self, step):
        cookies = sorted(list(self.outstanding) + [buffer.cookie for buffer in self.pending])
        need(sorted(step["cookies"]) == cookies, "detach: not the outstanding buffers")

    # -- device side ----------------------------------------------------------------------------
    def do_device_init(self, step):
        need(step["rc"] == 0, "device_init answers %d", step["rc"])
        self.device_reset()

    def do_device_restore(self, step):
        need(step["rc"] == 0, "device_restore answers %d", step["rc"])
        self.popped = self.decode(step["avail_idx"])
        self.flushed = self.decode(step["used_idx"])

    def do_device_save(self, step):
        need(not self.pushed, "the scenario asks for the undefined")
        need(step["avail_idx"] == self.encode(self.popped), "device_save: avail_idx")
        need(step["used_idx"] == self.encode(self.flushed), "device_save: used_idx")

    def do_pop(self, step):
        rc = 1 if self.available else 0
        need(step["rc"] == rc, "pop answers %d, expected %d", step["rc"], rc)
        if rc == 0:
            return
        buffer = self.available.popleft()
        self.popped = self.after(self.popped, self.entries(buffer))
        need(step["readable"] == buffer.readable, "pop: readable segments")
        need(step["writable"] == buffer.writable, "pop: writable segments")
        need(step["token"] not in self.held, "pop: token %d is in use", step["token"])
        self.held[step["token"]] = buffer

    def do_push(self, step):
        buffer = self.held.pop(step["token"])
        buffer.written = step["written"]
        buffer.full = step["full"]
        self.pushed.append(buffer)

    def do_flush(self, step):
        for group in self.batches():
            self.write_used(group)
            for i in range(self.width(group)):
                self.irq_walk.append(self.after(self.flushed, i))
            self.flushed = self.after(self.flushed, self.width(group))
            self.completed.extend(group)
        self.pushed = []
        self.image_flushed()

    def do_irq_due(self, step):
        empty = self.notify_on_empty and bool(self.irq_walk) and not self.available
        self.decide(step, self.irq_walk, "driver", empty)
        self.irq_walk = []

    def do_kick_off(self, step):
        self.image_off("device", self.popped)

    def do_kick_on(self, step):
        self.image_on("device", self.popped)
        need(step["result"] == bool(self.available), "kick_on answers %s", step["result"])

    # -- both -----------------------------------------------------------------------------------
    def do_poke(self, step):
        """The peer filled fields that have no meaning."""
        raw = bytes.fromhex(step["bytes"])
        self.memory.want[step["region"]][step["at"]:step["at"] + len(raw)] = raw

    def decide(self, step, walk, side, regardless):
        """Walks the entries passed since the last decision: the event is one of them, or not."""
        mode, event = self.suppression(side)
        due = mode == ENABLE and bool(walk) or regardless
        if mode == DESC:
            due = event in walk or regardless
            # Nobody still waits for an entry more than a lap ago; both answers are right.
            if event in walk and event not in walk[-self.num:]:
                return
            self.check_golden(walk, event, due)
        need(step["result"] == due, "%s answers %s, expected %s", step["op"], step["result"], due)

    def step(self, step):
        self.memory.apply(step)
        getattr(self, "do_" + step["op"])(step)
        self.memory.compare(self.loose, self.where)
        self.check_hidden()

    def where(self, at):
        """Words for an offset of the ring region."""
        for name, (start, size) in zip(("desc", "driver area", "device area"), self.areas()):
            if start <= at < start + size:
                at -= start
                if name == "desc":
                    return "desc[%d] byte %d" % (at // 16, at % 16)
                return "%s byte %d" % (name, at)
        return "byte %d outside the areas" % (at - self.desc)


class Split(Queue):
    modulus = 65536

    def check_layout(self, step):
        # L-SPLIT-01 to L-SPLIT-04, L-LEG-03
        need(step["driver"] == 16 * self.num, "avail ring at %d", step["driver"])
        device = align_up(18 * self.num + 6, step["align"])
        need(step["device"] == device, "used ring at %d, expected %d", step["device"], device)
        self.used_event = self.driver + 4 + 2 * self.num
        self.avail_event = self.device + 4 + 8 * self.num

    def areas(self):
        return ((self.desc, 16 * self.num), (self.driver, 6 + 2 * self.num),
                (self.device, 6 + 8 * self.num))

    def encode(self, at):
        return at

    decode = encode

    def entries(self, buffer):
        return 1

    def avail_slot(self, at):
        return self.driver + 4 + 2 * (at % self.num)

    def used_slot(self, at):
        return self.device + 4 + 8 * (at % self.num)

    def driver_reset(self):
        super().driver_reset()
        self.busy = set()  # descriptors of outstanding buffers
        self.next_desc = 0  # IN_ORDER: where the next chain starts (D-INO-02)

    def loose(self):
        """Free descriptors and unexposed avail slots are the driver's between add and publish;
        unexposed used entries are the device's between push and flush."""
        ranges = []
        if self.pending:
            ranges += [(self.desc + 16 * i, 16) for i in range(self.num) if i not in self.busy]
            for i in range(len(self.pending)):
                ranges.append((self.avail_slot(self.after(self.published, i)), 2))
        for i in range(len(self.pushed)):
            ranges.append((self.used_slot(self.after(self.flushed, i)), 8))
        return ranges

    def released(self, buffer):
        super().released(buffer)
        self.busy.difference_update(buffer.descs)

    def check_hidden(self):
        """Both idx fields are never loose: nothing more to see."""

    def take_desc(self, index):
        need(index < self.num, "descriptor index %d", index)
        need(index not in self.busy, "descriptor %d belongs to an outstanding buffer", index)
        self.busy.add(index)

    def pick(self, key, region, at, expected):
        """A descriptor index: chosen by the driver, or with IN_ORDER given."""
        if expected is not None:
            self.memory.put(region, at, 2, expected)
            return expected
        return self.memory.choose(key, region, at, 2)

    def write_available(self, buffer):
        memory = self.memory
        free_start = not self.in_order or (self.restored and self.next_desc is None)
        index = self.pick("split head", "ring", self.avail_slot(self.published),
                          None if free_start else self.next_desc)
        elements = buffer.ring_elements()
        for i, (addr, length, flags) in enumerate(elements):
            self.take_desc(index)
            buffer.descs.append(index)
            more = i + 1 < len(elements)
            at = self.desc + 16 * index
            memory.put("ring", at, 8, addr)
            memory.put("ring", at + 8, 4, length)
            memory.put("ring", at + 12, 2, flags | (NEXT if more else 0))
            following = (index + 1) % self.num if self.in_order else None
            if more:
                index = self.pick("split next", "ring", at + 14, following)
            else:
                memory.choose("split next unread", "ring", at + 14, 2)
                self.next_desc = following
        buffer.name = buffer.descs[0]

    def write_table(self, buffer):
        """D-IND-04: first entry 0, chained through next, no entry twice."""
        memory = self.memory
        base = buffer.table * self.table_bytes
        count = len(buffer.elements)
        index, linked = 0, set()
        for i, (addr, length, flags) in enumerate(buffer.elements):
            need(index < count and index not in linked, "table entry %d linked", index)
            linked.add(index)
            at = base + 16 * index
            more = i + 1 < count
            memory.put("tables", at, 8, addr)
            memory.put("tables", at + 8, 4, length)
            memory.put("tables", at + 12, 2, flags | (NEXT if more else 0))
            if more:
                index = self.pick("table next", "tables", at + 14,
                                  index + 1 if self.in_order else None)
            else:
                memory.choose("table next unread", "tables", at + 14, 2)

    def image_published(self):
        self.memory.put("ring", self.driver + 2, 2, self.published)

    def write_used(self, group):
        """V-SPLIT-03, V-SPLIT-04; V-INO-01: one entry, at the first buffer's slot, for the last."""
        at = self.used_slot(self.flushed)
        self.memory.put("ring", at, 4, group[-1].name)
        self.memory.put("ring", at + 4, 4, group[-1].written)

    def image_flushed(self):
        self.memory.put("ring", self.device + 2, 2, self.flushed)

    def image_restored(self):
        """An empty queue whose both idx stand at the position, or either side would see entries."""
        self.memory.put("ring", self.driver + 2, 2, self.published)
        self.memory.put("ring", self.device + 2, 2, self.taken)
        for at in (self.used_event, self.avail_event):
            value = self.memory.choose("restored event", "ring", at, 2)
            need(value in (0, self.published), "restored event index %d", value)
        self.next_desc = None

    # -- suppression ----------------------------------------------------------------------------
    def words(self, side):
        """Offsets of the flags and of the event index that this side writes."""
        if side == "driver":
            return self.driver, self.used_event
        return self.device, self.avail_event

    def suppression(self, side):
        flags, event = self.words(side)
        if self.event_idx:
            return DESC, self.memory.own("ring", event, 2)
        return self.memory.own("ring", flags, 2) & OFF, None

    def image_on(self, side, at):
        flags, event = self.words(side)
        self.memory.put("ring", flags, 2, 0)
        if self.event_idx:
            self.memory.put("ring", event, 2, at)

    def image_off(self, side, at):
        flags, event = self.words(side)
        if not self.event_idx:  # D-EVT-01, V-EVT-02
            self.memory.put("ring", flags, 2, OFF)
            return
        before = self.memory.own("ring", event, 2)
        value = self.memory.choose("split event off", "ring", event, 2)
        need(value == before or (value - at) % 65536 >= self.num, "event %d is still ahead", value)

    def event_chosen(self, side, key):
        flags, event = self.words(side)
        self.memory.put("ring", flags, 2, 0)
        return self.memory.choose(key, "ring", event, 2)

    def check_pending_after(self, result, ready, most):
        if ready == 0 or ready < most and self.event_idx:
            need(not result, "irq_on_after answers true with %d of %d", ready, most + 1)
        if ready > most:
            need(result, "irq_on_after answers false with %d of %d", ready, most + 1)

    def do_peer_event(self, step):
        self.memory.put("ring", self.words(step["side"])[1], 2, step["event"])

    def check_golden(self, walk, event, due):
        if walk:
            key = (event, self.after(walk[-1], 1), walk[0])
            need(D3_SPLIT.get(key, due) == due, "the decoder's walk contradicts D.3")


class Packed(Queue):
    def __init__(self, step, memory):
        self.modulus = 2 * step["num"]
        super().__init__(step, memory)

    def check_layout(self, step):
        # L-PACK-01 to L-PACK-03
        need(step["driver"] >= 16 * self.num and step["driver"] % 4 == 0, "driver area")
        need(step["device"] >= step["driver"] + 4 and step["device"] % 4 == 0, "device area")
        need(step["total"] >= step["device"] + 4, "total")

    def areas(self):
        return ((self.desc, 16 * self.num), (self.driver, 4), (self.device, 4))

    def wrap(self, at):
        return 1 if at < self.num else 0

    def encode(self, at):
        return at % self.num | self.wrap(at) << 15

    def decode(self, word):
        need((word & 0x7fff) < self.num, "position 0x%x", word)
        return (word & 0x7fff) + (0 if word >> 15 else self.num)

    def entries(self, buffer):
        return buffer.slots

    def slot(self, at):
        return self.desc + 16 * (at % self.num)

    def state(self, at):
        """AVAIL and USED of the slot at a position, as seen with that position's wrap counter."""
        flags = self.memory.get("ring", self.slot(at) + 14, 2)
        avail, used, wrap = flags >> 7 & 1, flags >> 15, self.wrap(at)
        return {"available": avail == wrap and used != wrap,
                "used": avail == wrap and used == wrap}

    def loose(self):
        """Free slots from the next one on are the driver's between add and publish; the first slots
        of unexposed used lists are the device's between push and flush."""
        ranges = []
        for i in range(self.width(self.pending)):
            ranges.append((self.slot(self.after(self.published, i)), 16))
        at = self.flushed
        for group in self.batches():
            ranges.append((self.slot(at), 16))
            at = self.after(at, self.width(group))
        return ranges

    def check_hidden(self):
        """D-PACK-04, D-PACK-08, V-PACK-07: the head at which each side looks next tells nothing of
        what was not published or flushed."""
        if self.in_use - self.width(self.pending) < self.num:
            need(not self.state(self.published)["available"], "an unpublished list is available")
        if self.pushed:
            need(not self.state(self.flushed)["used"], "an unflushed list is used")

    def write_available(self, buffer):
        memory = self.memory
        elements = buffer.ring_elements()
        for i, (addr, length, flags) in enumerate(elements):
            at = self.slot(self.after(self.published, i))
            wrap = self.wrap(self.after(self.published, i))  # D-PACK-05: of this very slot
            more = i + 1 < len(elements)
            memory.put("ring", at, 8, addr)
            memory.put("ring", at + 8, 4, length)
            if more:
                memory.choose("packed id unread", "ring", at + 12, 2)
            else:
                buffer.name = memory.choose("packed id", "ring", at + 12, 2)
            flags |= (NEXT if more else 0) | (AVAIL if wrap else USED)
            memory.put("ring", at + 14, 2, flags)
        need(buffer.name not in self.names, "buffer id %d is outstanding already", buffer.name)
        self.names.add(buffer.name)

    def write_table(self, buffer):
        """D-IND-06, D-IND-08: consecutive entries, nothing but WRITE, reserved fields 0."""
        for i, (addr, length, flags) in enumerate(buffer.elements):
            at = buffer.table * self.table_bytes + 16 * i
            self.memory.put("tables", at, 8, addr)
            self.memory.put("tables", at + 8, 4, length)
            self.memory.put("tables", at + 12, 2, 0)
            self.memory.put("tables", at + 14, 2, flags)

    def image_published(self):
        """Each slot's flags were written with its list."""

    def write_used(self, group):
        """V-PACK-05, V-PACK-06; V-INO-02: one descriptor, over the first slot, for the last."""
        memory = self.memory
        at = self.slot(self.flushed)
        last = group[-1]
        before = memory.own("ring", at, 8)
        addr = memory.choose("packed used addr", "ring", at, 8)
        need(addr in (before, 0), "addr of a used descriptor is neither left alone nor 0")
        memory.put("ring", at + 8, 4, last.written)
        memory.put("ring", at + 12, 2, last.name)
        flags = AVAIL | USED if self.wrap(self.flushed) else 0
        memory.put("ring", at + 14, 2, flags | (WRITE if last.written > 0 else 0))

    def image_flushed(self):
        """Each used descriptor's flags were written with it."""

    def image_restored(self):
        for i in range(self.num):
            flags = self.memory.choose("restored flags", "ring", self.desc + 16 * i + 14, 2)
            need(flags in (0, AVAIL | USED), "restored flags 0x%04x", flags)
        for side in ("driver", "device"):
            at = self.area(side)
            event = self.memory.choose("restored event", "ring", at, 2)
            need(event in (0, self.encode(self.published)), "restored event 0x%04x", event)

    # -- suppression ----------------------------------------------------------------------------
    def area(self, side):
        return self.driver if side == "driver" else self.device

    def suppression(self, side):
        """The mode, with its position if it is DESC; the reserved one means ENABLE (D-PEVT-03)."""
        at = self.area(side)
        mode = self.memory.own("ring", at + 2, 2)
        if mode != DESC:
            return (DISABLE if mode == DISABLE else ENABLE), None
        return mode, self.decode(self.memory.own("ring", at, 2))

    def image_on(self, side, at):
        area = self.area(side)
        self.memory.put("ring", area + 2, 2, DESC if self.event_idx else ENABLE)
        if self.event_idx:
            self.memory.put("ring", area, 2, self.encode(at))
        else:
            self.memory.choose("packed event unread", "ring", area, 2)

    def image_off(self, side, at):
        area = self.area(side)
        self.memory.choose("packed event unread", "ring", area, 2)
        self.memory.put("ring", area + 2, 2, DISABLE)

    def event_chosen(self, side, key):
        area = self.area(side)
        self.memory.put("ring", area + 2, 2, DESC)
        return self.decode(self.memory.choose(key, "ring", area, 2))

    def check_pending_after(self, result, ready, most):
        need(result == (ready > 0), "irq_on_after answers %s with %d pending", result, ready)

    def do_peer_event(self, step):
        area = self.area(step["side"])
        self.memory.put("ring", area, 2, step["event"])
        self.memory.put("ring", area + 2, 2, step["mode"])

    def check_golden(self, walk, event, due):
        if walk:
            key = (self.num, walk[0] % self.num, self.wrap(walk[0]), len(walk))
            vector = D3_PACKED.get(key, {})
            armed = (event % self.num, self.wrap(event))
            need(vector.get(armed, due) == due, "the decoder's walk contradicts D.3")


def check_offsets(step):
    """Where the areas of a queue in one piece of memory are."""
    num, align = step["num"], step["align"]
    if step["packed"]:
        driver = 16 * num
        device = align_up(driver + 4, align)
        total = device + align_up(4, align)
    else:
        driver = 16 * num
        device = align_up(16 * num + 2 * (3 + num), align)
        total = device + align_up(6 + 8 * num, align)
        if align == 4096 and num in D2:
            need((driver, device, total) == D2[num], "the decoder contradicts D.2")
    need(step["driver"] == driver, "num %d align %d: driver area at %d", num, align, step["driver"])
    need(step["device"] == device, "num %d align %d: device area at %d", num, align, step["device"])
    need(step["total"] == total, "num %d align %d: total %d", num, align, step["total"])
    need(step["bytes"] == total, "num %d align %d: constant %d", num, align, step["bytes"])


def check_event_due(step):
    """L-EVT-05 as membership: the entries written are those from old on up to before now."""
    event, now, old = step["event"], step["now"], step["old"]
    due = event >= old and event < now if old <= now else event >= old or event < now
    need(D3_SPLIT.get((event, now, old), due) == due, "the decoder contradicts D.3")
    need(step["result"] == due, "event_due(%d, %d, %d) answers %s", event, now, old, step["result"])


class Scenario:
    """The steps between two scenario lines; ends at its first mismatch."""

    def __init__(self, name, cpu):
        self.name = name
        self.cpu = cpu
        self.queue = None
        self.steps = 0
        self.failure = None

    def take(self, step):
        self.steps += 1
        if self.failure:
            return
        try:
            self.judge(step)
        except Mismatch as mismatch:
            self.failure = "step %d, %s: %s" % (self.steps, step.get("op"), mismatch)
        except (KeyError, TypeError, OverflowError, ValueError) as error:
            self.failure = "step %d, %s: the model cannot follow: %r" % (
                self.steps, step.get("op"), error)

    def judge(self, step):
        if step["op"] == "areas":
            # L-LEG-05: only a legacy ring is in the CPU's order, or in the other one.
            step["big"] = step["legacy"] and (self.cpu == "big") != step["foreign"]
            memory = Memory(step)
            self.queue = (Packed if step["packed"] else Split)(step, memory)
            memory.apply(step)
            memory.compare(self.queue.loose, self.queue.where)
        elif step["op"] == "offsets":
            check_offsets(step)
        elif step["op"] == "event_due":
            check_event_due(step)
        else:
            self.queue.step(step)


def run(lines):
    """Yields each finished scenario; the last line must be there."""
    cpu, scenario, ended = None, None, False
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:  # the program died in the middle of it
            break
        if "cpu" in line:
            cpu = line["cpu"]
        elif "op" in line:
            scenario.take(line)
        else:
            if scenario:
                yield scenario
            scenario = Scenario(line["scenario"], cpu) if "scenario" in line else None
            ended = "end" in line
    if not ended:
        scenario = scenario or Scenario("end", cpu)
        scenario.failure = scenario.failure or "the list ends here, before its end"
        yield scenario


def arguments():
    table = "\n".join("  %-20s %s" % item for item in FREE.items())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="bytes that the specification leaves free:\n" + table)
    parser.add_argument("file", help="what the program printed; - for standard input")
    parser.add_argument("-q", "--quiet", action="store_true", help="failures and the sum only")
    return parser.parse_args()


def main():
    options = arguments()
    lines = sys.stdin if options.file == "-" else open(options.file, encoding="ascii")
    passed = failed = 0
    with lines:
        for scenario in run(lines):
            if scenario.failure:
                failed += 1
                print("FAILED  %s: %s" % (scenario.name, scenario.failure))
            else:
                passed += 1
                if not options.quiet:
                    print("ok      %s (%d steps)" % (scenario.name, scenario.steps))
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
