// SPDX-License-Identifier: MIT-0
/* A hostile PCI function, for libFuzzer (make fuzz FUZZ=caps). The input is its configuration space
 * and BARs, then what is asked of them; and any read can be answered by the input instead, as by a
 * function whose registers change all the time. What must hold: only aligned dwords are read, and not
 * too many; a place lies inside its BAR; a scan writes nothing, sizing and assignment only BARs (while
 * the function decodes none) and the command register; what the input left alone reads as before. */
#include <string.h>

#include "support/fuzz_input.h"

#include "virtio_pci_caps.h"

enum { MOST_READS = 3 + 48 * 6, CAPS = 8 };

static struct {
    uint8_t bytes[256];
    uint32_t writable[6]; /* bits of each BAR register */
    bool changing;        /* the input answers some reads */
    unsigned reads, writes;
    unsigned only; /* the one other register that may be written, or 0 */
    uint32_t command;
    struct virtio_pci_bar bars[6];
} t;

static uint32_t le32(unsigned at)
{
    return t.bytes[at] | (uint32_t)t.bytes[at + 1] << 8 | (uint32_t)t.bytes[at + 2] << 16 |
           (uint32_t)t.bytes[at + 3] << 24;
}

static void put32(unsigned at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        t.bytes[at + i] = (uint8_t)(value >> (8 * i));
}

static uint32_t read32(void *ctx, uint16_t offset)
{
    uint32_t value;

    CHECK(ctx == &t && offset < 256 && offset % 4 == 0);
    t.reads++;
    value = le32(offset);
    if (t.changing && take_bytes(1) % 4 == 3)
        value ^= (uint32_t)take_bytes(4);
    return value;
}

static void write32(void *ctx, uint16_t offset, uint32_t value)
{
    CHECK(ctx == &t);
    t.writes++;
    if (offset == 4) {
        CHECK(value >> 16 == 0);
        t.command = value;
        put32(4, (le32(4) & 0xffff0000) | value);
    } else if (t.only != 0) {
        CHECK(offset == t.only);
        put32(offset, value);
    } else {
        unsigned bar = (offset - 0x10u) / 4;

        CHECK(offset >= 0x10 && offset < 0x28 && (t.command & 3) == 0);
        put32(offset, (le32(offset) & ~t.writable[bar]) | (value & t.writable[bar]));
    }
}

static struct virtio_pci_config config(void)
{
    struct virtio_pci_config c = {read32, write32, &t};

    t.reads = t.writes = 0;
    t.command = le32(4) & 0xffff;
    return c;
}

static bool inside(unsigned bar, uint64_t offset, uint64_t length)
{
    return bar < 6 && t.bars[bar].kind != VIRTIO_PCI_BAR_NONE &&
           (unsigned __int128)offset + length <= t.bars[bar].length;
}

/* ---- capabilities ---- */

/* A second reading of a capability, from the tables of the texts. */
static void compare(const struct virtio_pci_capability *cap)
{
    unsigned at = cap->at, size = t.bytes[at + 2], type = t.bytes[at + 3];

    CHECK(at >= 0x40 && at % 4 == 0 && t.bytes[at] == 9);
    CHECK(cap->size == size && cap->type == type);
    if (cap->fault != VIRTIO_PCI_FAULT_NONE)
        return;
    CHECK(at + size <= 256);
    if (type == 9) {
        CHECK(cap->family == VIRTIO_PCI_MODERN && size >= 8 && size % 4 == 0);
        CHECK(cap->extra == (t.bytes[at + 4] | (uint32_t)t.bytes[at + 5] << 8));
    } else if (size == 12) {
        CHECK(cap->family == VIRTIO_PCI_RFC2011 && type >= 1 && type <= 4);
        CHECK(cap->bar == t.bytes[at + 4] && cap->length == le32(at + 4) / 256);
        CHECK(cap->offset == le32(at + 8) / (type == 1 ? 4 : type == 2 ? 2 : 1) *
                                 (type == 1 ? 4 : type == 2 ? 2 : 1));
    } else {
        CHECK(cap->family == VIRTIO_PCI_MODERN && size >= 16);
        CHECK(cap->bar == t.bytes[at + 4] && cap->id == t.bytes[at + 5]);
        CHECK((uint32_t)cap->offset == le32(at + 8) && (uint32_t)cap->length == le32(at + 12));
        CHECK(cap->extra == (type == 2 ? le32(at + 16) : 0));
        CHECK(cap->offset >> 32 == (type == 8 ? le32(at + 16) : 0));
        CHECK(cap->length >> 32 == (type == 8 ? le32(at + 20) : 0));
    }
}

static void walk(void)
{
    struct virtio_pci_config c = config();
    struct virtio_pci_capability cap;
    struct virtio_pci_walk w;
    unsigned seen = 0;
    int got;

    virtio_pci_walk_begin(&w, &c);
    while ((got = virtio_pci_walk_next(&w, &cap)) == 1) {
        CHECK(++seen <= 48);
        CHECK(virtio_pci_fault_name(cap.fault)[0] != '\0');
        if (!t.changing)
            compare(&cap);
        if (virtio_pci_capability_fits(&cap, t.bars))
            CHECK(inside(cap.bar, cap.offset, cap.length));
    }
    CHECK(got == 0 || got == VIRTIO_PCI_ERR_LIST);
    CHECK(t.reads <= MOST_READS && t.writes == 0);
    CHECK(virtio_pci_walk_next(&w, &cap) == got);
}

static void scan(void)
{
    struct virtio_pci_config c = config();
    struct virtio_pci_layout layout;

    if (virtio_pci_scan(&layout, &c, t.bars, (unsigned)take_bytes(1) & 1) != 0)
        return;
    CHECK(t.reads <= MOST_READS + 1 && t.writes == 0);
    for (unsigned i = 0; i < 20; i++) {
        struct virtio_pci_place at =
            virtio_pci_locate(&layout, (enum virtio_pci_struct)(i / 2), i % 2 != 0);

        if (at.found != VIRTIO_PCI_NONE)
            CHECK(inside(at.bar, at.offset, at.length) && at.length != 0);
    }
    t.only = layout.msix;
    if (layout.msix != 0 && virtio_pci_msix_set_on(&c, &layout, true) == 0)
        CHECK(t.writes == 1 && layout.msix_on);
    t.only = 0;
}

static void find_shm(void)
{
    struct virtio_pci_config c = config();
    struct virtio_pci_shm shm;

    if (virtio_pci_find_shm(&c, t.bars, (uint8_t)take_bytes(1), &shm) == 0)
        CHECK(inside(shm.bar, shm.offset, shm.length) &&
              t.bars[shm.bar].kind == VIRTIO_PCI_BAR_MEM);
    CHECK(t.reads <= MOST_READS && t.writes == 0);
}

static void vendor(void)
{
    struct virtio_pci_config c = config();
    struct virtio_pci_capability cap;
    struct virtio_pci_walk w;

    virtio_pci_walk_begin(&w, &c);
    while (virtio_pci_walk_next(&w, &cap) == 1) {
        unsigned offset = (unsigned)take_bytes(take_bytes(1) % 4 == 0 ? 4 : 1);
        int got = virtio_pci_vendor_read8(&c, &cap, (uint16_t)cap.extra, offset);

        if (got >= 0) {
            CHECK(got <= 255 && cap.type == 9 && offset < cap.size && cap.at + offset < 256);
            CHECK(t.changing || got == t.bytes[cap.at + offset]);
        }
    }
    CHECK(t.writes == 0);
}

/* ---- BARs ---- */

/* What the model's registers say, one after the other. */
static void compare_bars(const struct virtio_pci_bar bars[6], const uint8_t before[256])
{
    CHECK(memcmp(t.bytes, before, 256) == 0);
    for (unsigned i = 0; i < 6; i++) {
        uint32_t kind = (le32(0x10 + 4 * i) & ~t.writable[i]) | t.writable[i];
        unsigned bit = kind & 1 ? 2 : 4;

        if (bars[i].kind == VIRTIO_PCI_BAR_NONE)
            continue;
        CHECK((bars[i].kind == VIRTIO_PCI_BAR_IO) == (kind & 1));
        while (bit < 32 && !(kind >> bit & 1))
            bit++;
        CHECK(bars[i].wide ? i < 5 : bit < 32);
        if (bit < 32)
            CHECK(bars[i].length == (uint64_t)1 << bit);
        CHECK(bars[i].base % bars[i].length == 0);
        i += bars[i].wide;
    }
}

static void check_assigned(const struct virtio_pci_bar bars[6], const struct virtio_pci_ranges *r)
{
    for (unsigned i = 0; i < 6; i++) {
        uint64_t base = bars[i].base, last = base + bars[i].length - 1;
        bool io = bars[i].kind == VIRTIO_PCI_BAR_IO;

        if (bars[i].kind == VIRTIO_PCI_BAR_NONE)
            continue;
        CHECK(base % bars[i].length == 0 && last >= base);
        if (io)
            CHECK(base >= r->io.next && last < r->io.end);
        else if (last <= UINT32_MAX && base >= r->memory.next && last < r->memory.end)
            ;
        else
            CHECK(bars[i].wide && base >= r->memory64.next && last < r->memory64.end);
        CHECK(bars[i].wide || last <= UINT32_MAX);
        for (unsigned j = 0; j < i; j++) {
            if (bars[j].kind == bars[i].kind)
                CHECK(bars[j].base > last || bars[j].base + bars[j].length - 1 < base);
        }
    }
}

static void size_and_assign(void)
{
    struct virtio_pci_config c = config();
    struct virtio_pci_ranges ranges, was;
    struct virtio_pci_bar bars[6];
    uint8_t before[256];
    int err;

    memcpy(before, t.bytes, 256);
    err = virtio_pci_bars_size(&c, bars);
    CHECK(t.reads <= 3 + 12 && t.writes <= 2 + 12);
    if (err != 0)
        return;
    if (!t.changing)
        compare_bars(bars, before);
    ranges.io.next = take_bytes(2);
    ranges.io.end = take_bytes(3); /* 0: no I/O space */
    ranges.memory.next = take_bytes(4);
    ranges.memory.end = take_bytes(5);
    ranges.memory64.next = take_bytes(8);
    ranges.memory64.end = take_bytes(8);
    /* BARs may share a range here; then the two do not overlap only if one is empty. */
    if (ranges.memory64.next < ranges.memory.end)
        ranges.memory64.end = 0;
    was = ranges;
    c = config();
    err = virtio_pci_bars_assign(&c, bars, &ranges);
    CHECK(err == 0 || err == VIRTIO_PCI_ERR_ROOM || err == VIRTIO_PCI_ERR_REFUSED);
    CHECK(t.reads <= 2 + 6 && t.writes <= 2 + 6);
    if (err != 0) {
        CHECK(memcmp(&was, &ranges, sizeof(was)) == 0);
        CHECK(err == VIRTIO_PCI_ERR_ROOM ? t.writes == 0 : (t.command & 3) == 0);
        return;
    }
    check_assigned(bars, &was);
    CHECK(t.command & VIRTIO_PCI_COMMAND_MASTER);
    if (t.changing)
        return;
    for (unsigned i = 0; i < 6; i++) {
        uint32_t low = bars[i].kind == VIRTIO_PCI_BAR_IO ? 3 : 15;

        if (bars[i].kind == VIRTIO_PCI_BAR_NONE)
            continue;
        CHECK((le32(0x10 + 4 * i) & ~low) == (uint32_t)bars[i].base);
        CHECK(!bars[i].wide || le32(0x14 + 4 * i) == bars[i].base >> 32);
    }
}

/* ---- images ---- */

static void take_capability(struct virtio_pci_capability *cap)
{
    memset(cap, 0, sizeof(*cap));
    cap->family = (uint8_t)(2 + take_bytes(1) % 2);
    cap->type = (uint8_t)(take_bytes(1) % 10);
    cap->bar = (uint8_t)(take_bytes(1) % 8);
    cap->offset = take_bytes((unsigned)take_bytes(1) % 6);
    cap->length = take_bytes((unsigned)take_bytes(1) % 6);
    cap->size = take_bytes(1) % 4 == 0 ? (uint8_t)take_bytes(1) : 0;
    cap->extra = (uint32_t)take_bytes((unsigned)take_bytes(1) % 4);
    cap->id = (uint8_t)take_bytes(1) & 3;
}

static void build(void)
{
    struct virtio_pci_config c = config();
    struct virtio_pci_capability caps[CAPS], cap;
    unsigned count = (unsigned)take_bytes(1) % (CAPS + 1), at, changed = 0;
    uint8_t before[256];
    struct virtio_pci_walk w;
    int end, got;

    c.read32 = virtio_pci_image_read32;
    c.ctx = t.bytes;
    for (unsigned i = 0; i < count; i++)
        take_capability(&caps[i]);
    at = (unsigned)take_bytes(1) & ~3u;
    memcpy(before, t.bytes, 256);
    end = virtio_pci_image_caps(t.bytes, at, caps, count, t.bars);
    if (end < 0) {
        CHECK(memcmp(before, t.bytes, 256) == 0);
        return;
    }
    for (unsigned i = 0; i < 256; i++)
        changed += t.bytes[i] != before[i] && (i < at || i >= (unsigned)end);
    CHECK(changed <= 2 && end <= 256); /* a pointer, and the status register */
    virtio_pci_walk_begin(&w, &c);
    for (unsigned i = 0; i < count;) {
        got = virtio_pci_walk_next(&w, &cap);
        CHECK(got == 1);
        if (cap.at < at || cap.at >= (unsigned)end)
            continue;
        caps[i].fault = VIRTIO_PCI_FAULT_NONE;
        CHECK(memcmp(&cap, &caps[i], offsetof(struct virtio_pci_capability, id) + 1) == 0);
        CHECK(cap.type == 5 || cap.type == 9 || inside(cap.bar, cap.offset, cap.length));
        i++;
    }
    if (count != 0)
        CHECK(virtio_pci_walk_next(&w, &cap) == 0);
}

/* ---- set up ---- */

/* Half of the inputs get a list that leads somewhere: a chain of vendor capabilities. */
static void make_list(void)
{
    unsigned link = 0x34, at = 0x40;

    t.bytes[6] |= 0x10;
    while (input_left != 0 && at < 0xf8) {
        static const uint8_t sizes[] = {12, 16, 20, 24, 8, 40};
        uint8_t pick = (uint8_t)take_bytes(1);
        uint8_t size = pick & 0x80 ? (uint8_t)take_bytes(1) : sizes[pick % 6];

        t.bytes[link] = (uint8_t)at;
        t.bytes[at] = pick & 0x40 ? 0x11 : 9;
        t.bytes[at + 1] = 0;
        if (!(pick & 0x40)) {
            t.bytes[at + 2] = size;
            t.bytes[at + 3] = (uint8_t)(take_bytes(1) % 10);
            t.bytes[at + 4] &= 7;
        }
        link = at + 1;
        at += (size < 8 ? 8u : size + 3u) & ~3u;
        if ((pick & 0x30) == 0x30)
            break;
    }
}

static void open_function(void)
{
    unsigned how = (unsigned)take_bytes(1);

    memset(&t, 0, sizeof(t));
    for (unsigned i = 0; i < 6; i++) {
        unsigned log2 = (unsigned)take_bytes(1);

        t.writable[i] = log2 & 0x80 ? (uint32_t)take_bytes(4) : UINT32_MAX << log2 % 32;
        t.writable[i] &= ~UINT32_C(3);
        t.bars[i].kind = (uint8_t)(take_bytes(1) % 3);
        t.bars[i].length = take_bytes(1 + log2 % 8);
    }
    if (how & 4)
        put32(0, 0x10011af4);
    for (unsigned i = how & 4 ? 4 : 0; i < 256 && input_left != 0; i++)
        t.bytes[i] = (uint8_t)take_bytes(1);
    if (how & 8)
        t.bytes[0x0e] = 0;
    if (how & 2)
        make_list();
    t.changing = (how & 1) != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t what;

    input = data;
    input_left = size;
    what = (uint8_t)take_bytes(1);
    open_function();
    if (what & 1)
        walk();
    if (what & 2)
        scan();
    if (what & 4)
        find_shm();
    if (what & 8)
        vendor();
    if (what & 16)
        size_and_assign();
    if (what & 32)
        build();
    return 0;
}
