// SPDX-License-Identifier: MIT-0
/* The driver side of virtio.h over a device on paper: registers at hand-written offsets of the
 * RFC's and VIRTIO's tables, each access on record with the structure and the window that it went
 * to. */
#include <criterion/criterion.h>
#include <string.h>

#include "virtio.h"

enum { HITS = 1024, QUEUES = 6, SIZE = 8, CONFIG = 32, NOWHERE = 9 };

/* Where an access landed: a structure (1 to 4 as PCI numbers them, 5 virtio-mmio registers), or
 * nowhere. */
struct hit {
    unsigned structure;
    bool legacy; /* through BAR0's legacy interface */
    bool write;
    unsigned width;
    uint32_t at; /* within the structure, as its own table counts */
    uint32_t value;
};

struct paper_queue {
    uint16_t max, size, vector, notify_off, enabled;
    uint32_t pfn, align;
    uint32_t area[6]; /* desc, driver, device: low and high halves */
    unsigned kicks;
};

enum layout { LEGACY, MODERN, MMIO_1, MMIO_2 };

static struct paper {
    enum layout layout;
    /* PCI: bit n is set if structure n has a capability of the RFC; legacy if none. */
    unsigned caps;
    bool msix;
    uint16_t vectors;       /* what the device can map */
    uint32_t header_length; /* of the RFC's header or of the common configuration */
    uint32_t multiplier;
    uint32_t notify_length;
    uint16_t queues, admin_first, admin_count;

    uint8_t status;
    uint32_t offered[4], accepted[4], select[2];
    uint16_t queue_select, config_vector;
    uint32_t page_size;
    uint8_t isr;
    uint8_t generation;
    uint8_t config[CONFIG];
    struct paper_queue queue[QUEUES];
    unsigned resets;

    unsigned busy;       /* status reads until a reset or a suspend is done */
    uint8_t after;       /* status then */
    uint8_t between;     /* and what it reads as while a suspend or resume goes on */
    bool turning;
    bool suspend_fails, takes_no_pfn, refuses_words_above_0;
    unsigned relaxed, patience;

    struct hit hit[HITS];
    unsigned hits;
} paper;

static struct virtio_drv drv;
static struct virtio_drv_queue queue[QUEUES];
static struct virtq_slot slots[QUEUES][SIZE];
static _Alignas(4096) uint8_t memory[QUEUES][8192];
static struct virtio_window windows[6];
static struct virtio_pci_layout layout;
static const struct virtio_features none = {{0, 0, 0, 0}}, all = {{~0u, ~0u, ~0u, ~0u}};

/* ----- the device on paper ----- */

static void paper_reset(void)
{
    paper.status = paper.isr = 0;
    paper.queue_select = 0;
    paper.config_vector = 0xffff;
    memset(paper.accepted, 0, sizeof(paper.accepted));
    for (unsigned i = 0; i < QUEUES; i++) {
        struct paper_queue *q = &paper.queue[i];

        q->size = q->max;
        q->vector = 0xffff;
        q->enabled = 0;
        q->pfn = 0;
    }
    paper.resets++;
}

static void paper_status(uint8_t value)
{
    if (value == 0) {
        uint8_t old = paper.status;

        paper_reset();
        if (paper.busy != 0)
            paper.status = old != 0 ? old : 1; /* until it is done, V-COM-03 */
        paper.after = 0;
        return;
    }
    if (value & ~paper.status & 0x10) { /* SUSPEND */
        paper.after = (uint8_t)(paper.suspend_fails ? value | 0x40u : value & ~0x04u);
        paper.turning = true;
        paper.status = paper.busy != 0 ? paper.status : paper.after;
    } else if ((paper.status & 0x14) == 0x10 && (value & 0x04) != 0) { /* resumed */
        paper.after = (uint8_t)(value & ~0x10u);
        paper.turning = true;
        paper.status = paper.busy != 0 ? paper.status : paper.after;
    } else {
        paper.status = value;
    }
}

static uint8_t paper_status_read(void)
{
    if (paper.busy != 0 && --paper.busy == 0) {
        paper.status = paper.after;
        paper.turning = false;
    }
    return paper.busy != 0 && paper.turning ? paper.between : paper.status;
}

static uint16_t mapped(uint16_t vector)
{
    return vector < paper.vectors ? vector : 0xffff;
}

static struct paper_queue *selected(void)
{
    static struct paper_queue dead;

    memset(&dead, 0, sizeof(dead));
    return paper.queue_select < QUEUES ? &paper.queue[paper.queue_select] : &dead;
}

/* A.3, A.4 of the tables: the header; 24 and 28 are the RFC's only. */
static uint32_t header_access(bool write, uint32_t at, uint32_t value)
{
    struct paper_queue *q = selected();

    switch (at) {
    case 0: return paper.offered[0];
    case 4:
        if (write)
            paper.accepted[0] = value;
        return paper.accepted[0];
    case 8:
        if (write && !paper.takes_no_pfn)
            q->pfn = value;
        return q->pfn;
    case 12: return q->max;
    case 14:
        if (write)
            paper.queue_select = (uint16_t)value;
        return paper.queue_select;
    case 18:
        if (write)
            paper_status((uint8_t)value);
        return write ? 0 : paper_status_read();
    case 20:
        if (write)
            paper.config_vector = mapped((uint16_t)value);
        return paper.config_vector;
    case 22:
        if (write)
            q->vector = mapped((uint16_t)value);
        return q->vector;
    case 24: return paper.offered[1];
    case 28:
        if (write)
            paper.accepted[1] = value;
        return paper.accepted[1];
    default: return 0;
    }
}

/* B.21: the common configuration. */
static uint32_t common_access(bool write, uint32_t at, uint32_t value)
{
    struct paper_queue *q = selected();

    switch (at) {
    case 0:
    case 8:
        if (write)
            paper.select[at / 8] = value;
        return paper.select[at / 8];
    case 4: return paper.select[0] < 4 ? paper.offered[paper.select[0]] : 0;
    case 12:
        if (write && paper.select[1] < 4)
            paper.accepted[paper.select[1]] = value;
        return paper.select[1] < 4 ? paper.accepted[paper.select[1]] : 0;
    case 16:
        if (write)
            paper.config_vector = mapped((uint16_t)value);
        return paper.config_vector;
    case 18: return paper.queues;
    case 20:
        if (write)
            paper_status((uint8_t)value);
        return write ? 0 : paper_status_read();
    case 21: return paper.generation;
    case 22:
        if (write)
            paper.queue_select = (uint16_t)value;
        return paper.queue_select;
    case 24:
        if (write)
            q->size = (uint16_t)value;
        return q->size;
    case 26:
        if (write)
            q->vector = mapped((uint16_t)value);
        return q->vector;
    case 28:
        if (write)
            q->enabled = (uint16_t)value;
        return q->enabled;
    case 30: return q->notify_off;
    case 60: return paper.admin_first;
    case 62: return paper.admin_count;
    default:
        if (write && at >= 32 && at < 56)
            q->area[(at - 32) / 4] = value;
        return 0;
    }
}

/* B.26, B.27: virtio-mmio, both versions. */
static uint32_t mmio_access(bool write, uint32_t at, uint32_t value)
{
    struct paper_queue *q = selected();
    bool v1 = paper.layout == MMIO_1;

    switch (at) {
    case 0x000: return 0x74726976;
    case 0x004: return v1 ? 1 : 2;
    case 0x008: return 2;
    case 0x010:
        if (v1 && paper.select[0] > 0)
            return 0;
        return paper.select[0] < 4 ? paper.offered[paper.select[0]] : 0;
    case 0x014: paper.select[0] = value; break;
    case 0x020:
        if (paper.select[1] < 4)
            paper.accepted[paper.select[1]] = value;
        break;
    case 0x024: paper.select[1] = value; break;
    case 0x028: paper.page_size = value; break;
    case 0x030: paper.queue_select = (uint16_t)value; break;
    case 0x034: return q->max;
    case 0x038: q->size = (uint16_t)value; break;
    case 0x03c: q->align = value; break;
    case 0x040:
        if (write && !paper.takes_no_pfn)
            q->pfn = value;
        return q->pfn;
    case 0x044:
        if (write)
            q->enabled = (uint16_t)value;
        return q->enabled;
    case 0x050:
        if (value < QUEUES)
            paper.queue[value].kicks++;
        break;
    case 0x060: return paper.isr;
    case 0x064: paper.isr &= (uint8_t)~value; break;
    case 0x070:
        if (write)
            paper_status((uint8_t)value);
        return write ? 0 : paper_status_read();
    case 0x0ac: paper.select[0] = value; break; /* region 1: 0x123456789 bytes at 0x880000000 */
    case 0x0b0: return paper.select[0] == 1 ? 0x23456789 : 0xffffffff;
    case 0x0b4: return paper.select[0] == 1 ? 1 : 0xffffffff;
    case 0x0b8: return paper.select[0] == 1 ? 0x80000000 : 0xffffffff;
    case 0x0bc: return paper.select[0] == 1 ? 8 : 0xffffffff;
    case 0x0fc: return paper.generation;
    default: break;
    }
    return 0;
}

static uint32_t config_access(bool write, uint32_t at, unsigned width, uint32_t value)
{
    uint32_t result = 0;

    for (unsigned i = 0; i < width && at + i < CONFIG; i++) {
        if (write)
            paper.config[at + i] = (uint8_t)(value >> 8 * i);
        result |= (uint32_t)paper.config[at + i] << 8 * i;
    }
    return result;
}

static void notify_access(uint32_t at, uint32_t value)
{
    bool own_address = paper.layout == MODERN && paper.multiplier != 0;

    for (unsigned i = 0; i < QUEUES; i++) {
        if (own_address ? at == paper.queue[i].notify_off * paper.multiplier
                        : (value & 0xffff) == i)
            paper.queue[i].kicks++;
    }
}

/* Where the RFC's capabilities of this device put their structures, and the common ones of 1.x:
 * none where a legacy register is, the device's configuration at an odd place. */
enum { HEADER_AT = 0x1000, NOTIFY_AT = 0x2012, ISR_AT = 0x2f01, DEVICE_AT = 0x3003 };

static struct hit decode_legacy(uint32_t offset)
{
    struct hit hit = {1, true, false, 0, offset, 0};
    uint32_t device = paper.msix ? 24 : 20;

    if (offset >= device) {
        hit.structure = 4;
        hit.at = offset - device;
    } else if (offset == 16 || offset == 19) {
        hit.structure = offset == 16 ? 2 : 3;
        hit.at = 0;
    }
    return hit;
}

static struct hit decode(unsigned bar, uint32_t offset)
{
    struct hit hit = {NOWHERE, false, false, 0, offset, 0};
    uint32_t device = paper.layout == MODERN ? 0x3004 : DEVICE_AT;

    if (paper.layout == MMIO_1 || paper.layout == MMIO_2) {
        hit.structure = offset < 0x100 ? 5 : 4;
        hit.at = offset < 0x100 ? offset : offset - 0x100;
    } else if (bar == 0) {
        hit = decode_legacy(offset);
    } else if (offset - HEADER_AT < paper.header_length) {
        hit.structure = 1;
        hit.at = offset - HEADER_AT;
    } else if (offset - NOTIFY_AT < paper.notify_length) {
        hit.structure = 2;
        hit.at = offset - NOTIFY_AT;
    } else if (offset == ISR_AT) {
        hit.structure = 3;
        hit.at = 0;
    } else if (offset - device < CONFIG) {
        hit.structure = 4;
        hit.at = offset - device;
    }
    return hit;
}

static uint32_t paper_access(bool write, uint64_t address, unsigned width, uint32_t value)
{
    struct hit hit = decode((unsigned)(address >> 32), (uint32_t)address);
    uint32_t result = 0;

    switch (hit.structure) {
    case 1:
        result = paper.layout == MODERN ? common_access(write, hit.at, value)
                                        : header_access(write, hit.at, value);
        break;
    case 2: notify_access(hit.at, value); break;
    case 3:
        result = paper.isr;
        paper.isr = 0;
        break;
    case 4: result = config_access(write, hit.at, width, value); break;
    case 5: result = mmio_access(write, hit.at, value); break;
    default: break;
    }
    hit.write = write;
    hit.width = width;
    hit.value = write ? value : result;
    cr_assert(paper.hits < HITS);
    paper.hit[paper.hits++] = hit;
    return result;
}

static const uint8_t bar_number[] = {0, 1, 2, 3, 4, 5};

static uint64_t in_bar(const void *ctx, uintptr_t address)
{
    return (uint64_t)*(const uint8_t *)ctx << 32 | address;
}
static uint32_t window_read(void *ctx, uintptr_t address, unsigned width)
{
    return paper_access(false, in_bar(ctx, address), width, 0);
}
static void window_write(void *ctx, uintptr_t address, unsigned width, uint32_t value)
{
    (void)paper_access(true, in_bar(ctx, address), width, value);
}

static const struct virtio_window_ops window_ops = {window_read, window_write};

static struct virtio_window window(unsigned bar, uint32_t length)
{
    struct virtio_window w = {0, length, VIRTIO_WINDOW_CALLER, &window_ops,
                              (void *)(uintptr_t)&bar_number[bar]};

    return w;
}

static bool relax(void *ctx)
{
    (void)ctx;
    return ++paper.relaxed < paper.patience;
}

static void power_on(enum layout kind)
{
    memset(&paper, 0, sizeof(paper));
    memset(&drv, 0, sizeof(drv));
    memset(queue, 0, sizeof(queue));
    memset(memory, 0, sizeof(memory));
    paper.layout = kind;
    paper.header_length = kind == MODERN ? 64 : 32;
    paper.notify_length = kind == MODERN ? 0x100 : 2;
    paper.multiplier = 4;
    paper.queues = 3;
    paper.vectors = 16;
    paper.patience = 50;
    drv.relax = relax;
    for (unsigned i = 0; i < QUEUES; i++) {
        paper.queue[i].max = SIZE;
        paper.queue[i].notify_off = (uint16_t)(2 * i + 1);
    }
    for (unsigned i = 0; i < CONFIG; i++)
        paper.config[i] = (uint8_t)(0xa0 + i);
    paper.offered[0] = 0x24; /* two bits of the device type */
    paper.offered[1] = kind == MODERN || kind == MMIO_2 ? 1 : 0;
    paper_reset();
    paper.resets = 0;
}

/* ----- taking it ----- */

static uint8_t config_space[256];

static uint32_t config_read32(void *ctx, uint16_t offset)
{
    const uint8_t *p = config_space + offset;

    (void)ctx;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

/* A capability of the RFC (A.1), or of 1.x (B.20) with `extra` behind it, in BAR 1. */
static unsigned put_cap(unsigned at, unsigned type, uint32_t offset, uint32_t length)
{
    bool modern = paper.layout == MODERN;
    unsigned size = !modern ? 12 : type == 2 ? 20 : 16;
    uint8_t *p = config_space + at;

    p[0] = 0x09;
    p[1] = (uint8_t)(at + size); /* the last one is followed by zeros, which end the list */
    p[2] = (uint8_t)size;
    p[3] = (uint8_t)type;
    if (modern) {
        p[4] = 1;
        put32(p + 8, offset);
        put32(p + 12, length);
        if (type == 2)
            put32(p + 16, paper.multiplier);
    } else {
        put32(p + 4, length << 8 | 1);
        put32(p + 8, offset);
    }
    return at + size;
}

static void write_config_space(void)
{
    unsigned at = 0x40;

    memset(config_space, 0, sizeof(config_space));
    put32(config_space, 0x1af4 | (paper.layout == MODERN ? 0x1042u : 0x1001u) << 16);
    config_space[6] = 0x10;
    config_space[0x34] = 0x40;
    config_space[at] = 0x11; /* MSI-X, enabled or not, 16 vectors */
    config_space[at + 1] = (uint8_t)(at + 12);
    config_space[at + 2] = 15;
    config_space[at + 3] = paper.msix ? 0x80 : 0;
    at += 12;
    if (paper.caps & 1u << 1)
        at = put_cap(at, 1, HEADER_AT, paper.header_length);
    if (paper.caps & 1u << 2)
        at = put_cap(at, 2, NOTIFY_AT, paper.notify_length);
    if (paper.caps & 1u << 3)
        at = put_cap(at, 3, ISR_AT, 1);
    if (paper.caps & 1u << 4)
        at = put_cap(at, 4, paper.layout == MODERN ? 0x3004 : DEVICE_AT, CONFIG);
    config_space[at] = 0; /* a null capability */
}

static int take_pci(void)
{
    struct virtio_pci_config config = {config_read32, NULL, NULL};
    struct virtio_pci_bar bars[6] = {{0xc000, 64, VIRTIO_PCI_BAR_IO, 0},
                                     {0xe0000000, 0x4000, VIRTIO_PCI_BAR_MEM, 0}};

    if (paper.layout == MODERN)
        paper.caps = 0x1e;
    write_config_space();
    cr_assert_eq(virtio_pci_scan(&layout, &config, bars, 0), 0);
    memset(windows, 0, sizeof(windows));
    windows[0] = window(0, 64);
    windows[1] = window(1, 0x4000);
    return virtio_drv_pci(&drv, &layout, windows);
}

static int take(void)
{
    struct virtio_window mmio = window(0, 0x200);

    if (paper.layout == MMIO_1 || paper.layout == MMIO_2)
        return virtio_drv_mmio(&drv, &mmio);
    return take_pci();
}

/* Takes the device and negotiates everything. */
static void bring_up(void)
{
    cr_assert_eq(take(), 0);
    cr_assert_eq(virtio_drv_begin(&drv), 0);
    cr_assert_eq(virtio_drv_negotiate(&drv, &all, &none), 0);
}

static int set_up(unsigned i)
{
    struct virtio_queue_setup setup = {
        SIZE, {memory[i], 0x40000000u + 8192 * i, sizeof(memory[i])}, slots[i]};

    return virtio_drv_queue_setup(&drv, &queue[i], (uint16_t)i, &setup);
}

/* Adds a buffer and kicks. */
static void request(unsigned i)
{
    struct virtq_seg seg = {0x50000000, 64};
    struct virtq_buffer buffer = {&seg, 0, 1};

    cr_assert_eq(virtq_driver_add(&queue[i].ring, &buffer, &queue[i]), 0);
    virtq_driver_publish(&queue[i].ring);
    virtio_drv_kick(&queue[i]);
}

static bool was_hit(unsigned structure, bool write, uint32_t at)
{
    for (unsigned i = 0; i < paper.hits; i++) {
        if (paper.hit[i].structure == structure && paper.hit[i].write == write &&
            paper.hit[i].at == at)
            return true;
    }
    return false;
}

static uint64_t config_le(unsigned at, unsigned width)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < width; i++) {
        unsigned byte = VIRTIO_BIG_ENDIAN && drv.transport->legacy ? width - 1 - i : i;

        value |= (uint64_t)paper.config[at + byte] << 8 * i;
    }
    return value;
}

static void expect_config(void)
{
    static const struct virtio_config_field fields[] = {{0, 8}, {8, 4}, {12, 2}, {14, 1}};
    uint64_t values[4];

    cr_assert_eq(virtio_drv_config_read(&drv, fields, 4, values), 0);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(values[i], config_le(fields[i].offset, fields[i].width), "field %u", i);
}

/* ----- the RFC's layout ----- */

/* One run through everything a driver does. */
static void whole_life(void)
{
    bool vectors = paper.msix || (paper.caps & 1u << 1) != 0;
    struct virtio_config_field field = {16, 4};

    bring_up();
    expect_config();
    cr_assert_eq(virtio_drv_config_vector(&drv, 3), vectors ? 0 : VIRTIO_ERR_VECTOR);
    cr_assert_eq(virtio_drv_queue_vector(&drv, 1, 4), vectors ? 0 : VIRTIO_ERR_VECTOR);
    cr_assert_eq(paper.config_vector, vectors ? 3 : 0xffff);
    cr_assert_eq(paper.queue[1].vector, vectors ? 4 : 0xffff);
    cr_assert_eq(set_up(1), 0);
    virtio_drv_ready(&drv);
    request(1);
    paper.isr = 3;
    cr_assert_eq(virtio_drv_irq_status(&drv), 3);
    virtio_drv_irq_ack(&drv, 3);
    cr_assert_eq(paper.isr, 0);
    cr_assert_eq(virtio_drv_config_write(&drv, field, 0x11223344), 0);
    cr_assert_eq(config_le(16, 4), 0x11223344);
}

/* Every structure was reached, each through its own window, in its natural width. */
static void expect_windows(void)
{
    bool reached[5] = {false, false, false, false, false};

    for (unsigned i = 0; i < paper.hits; i++) {
        const struct hit *hit = &paper.hit[i];
        bool by_cap = (paper.caps >> hit->structure & 1) != 0;

        cr_assert_neq(hit->structure, NOWHERE, "access %u, offset %#x", i, hit->at);
        cr_assert_eq(hit->legacy, !by_cap, "access %u of structure %u at %#x", i, hit->structure,
                     hit->at);
        cr_assert_eq(hit->structure != 4 ? hit->at % hit->width : 0, 0);
        if (hit->structure == 1 && by_cap)
            cr_assert(hit->at != 16 && hit->at != 19, "reserved");
        reached[hit->structure] = true;
    }
    for (unsigned i = 1; i < 5; i++)
        cr_assert(reached[i], "structure %u", i);
}

Test(rfc, each_structure_in_its_own_place)
{
    /* R-AMB-4, T-16, T-92,
     * D-PLEG-01, D-ISR-02: every subset of the four structures with MSI-X off and on */
    for (unsigned caps = 0; caps < 32; caps += 2) {
        for (unsigned msix = 0; msix < 2; msix++) {
            power_on(LEGACY);
            paper.caps = caps;
            paper.msix = msix != 0;
            whole_life();
            expect_windows();
            cr_assert_eq(layout.generation, caps == 0 ? VIRTIO_PCI_LEGACY : VIRTIO_PCI_RFC2011);
            cr_assert_eq(paper.queue[1].pfn, (0x40000000u + 8192) / 4096); /* R-38, D-PLEG-06 */
            cr_assert_eq(paper.queue[1].kicks, 1);
            cr_assert_eq(paper.status, 0x07); /* R-33, D-LEG-02 */
        }
    }
}

Test(rfc, only_legacy_places_move_when_msix_is_switched)
{
    /* R-17, L-PLEG-05, T-17: in the middle of its life, both ways */
    for (unsigned caps = 0; caps < 32; caps += 2) {
        power_on(LEGACY);
        paper.caps = caps;
        whole_life();
        for (unsigned i = 0; i < 4; i++) {
            paper.msix = layout.msix_on = !paper.msix;
            cr_assert_eq(virtio_drv_pci(&drv, &layout, windows), 0);
            expect_config();
            cr_assert_eq(virtio_drv_config_vector(&drv, 5),
                         paper.msix || (caps & 2) != 0 ? 0 : VIRTIO_ERR_VECTOR);
            request(1);
            cr_assert_eq(paper.queue[1].kicks, 2 + i);
        }
        expect_windows();
    }
}

Test(rfc, high_feature_words_are_in_its_header_only)
{
    /* R-AMB-1, D-LEG-01, L-FEAT-01, T-07: bits of the device type above 31, no
     * switch in bit 31, and none of today's ring features */
    static const struct {
        unsigned caps;
        uint32_t length, high;
    } cases[] = {{0x1e, 32, 0xfffc0600}, {0x02, 4096, 0xfffc0600}, {0x02, 31, 0}, {0x02, 28, 0},
                 {0x1c, 32, 0}};

    for (unsigned i = 0; i < 5; i++) {
        power_on(LEGACY);
        paper.caps = cases[i].caps;
        paper.header_length = cases[i].length;
        if (cases[i].length == 4096)
            paper.header_length = 0xf00;
        paper.offered[0] = paper.offered[1] = ~0u;
        bring_up();
        cr_expect_eq(paper.accepted[0], 0x39ffffff, "case %u", i);
        cr_expect_eq(paper.accepted[1], cases[i].high, "case %u: %#x", i, paper.accepted[1]);
        cr_expect_eq(drv.offered.word[1], cases[i].high != 0 ? ~0u : 0);
        cr_expect_eq(was_hit(1, true, 28), cases[i].high != 0);
        cr_expect_eq(was_hit(1, false, 24), cases[i].high != 0);
        cr_expect_eq(virtio_features_ring_flags(&drv.accepted) & VIRTQ_LEGACY, VIRTQ_LEGACY);
        cr_expect_eq(virtio_features_ring_flags(&drv.accepted) & VIRTQ_PACKED, 0);
    }
}

Test(rfc, header_is_little_endian_and_device_native)
{
    /* R-27, R-AMB-6, L-PLEG-04, D-LEG-07: no generation, so that two readings must agree */
    static const struct virtio_config_field field = {0, 4};
    uint64_t value;

    power_on(LEGACY);
    paper.caps = 0x1e;
    paper.offered[0] = 0x00000004;
    bring_up();
    cr_expect_eq(paper.accepted[0], 0x00000004);
    paper.hits = 0;
    cr_assert_eq(virtio_drv_config_read(&drv, &field, 1, &value), 0);
    cr_expect_eq(value, VIRTIO_BIG_ENDIAN ? 0xa0a1a2a3 : 0xa3a2a1a0);
    cr_expect_eq(paper.hits, 2);
}

/* ----- vectors ----- */

Test(vectors, one_each_or_fewer)
{
    /* D-MSX-01 to D-MSX-03, V-MSX-03, D-COM-03, D-ISR-03, T-41: what the table offers and what the
     * device takes */
    static const struct {
        uint16_t table, takes;
        int used;
    } cases[] = {{16, 16, 4}, {4, 4, 4},  {3, 16, 2}, {2, 2, 2}, {1, 16, 1},
                 {16, 3, 2},  {16, 1, 1}, {16, 0, VIRTIO_ERR_VECTOR}, {0, 16, VIRTIO_ERR_VECTOR}};

    for (unsigned i = 0; i < 9; i++) {
        for (unsigned legacy = 0; legacy < 2; legacy++) {
            int used;

            power_on(legacy ? LEGACY : MODERN);
            paper.msix = true;
            paper.vectors = cases[i].takes;
            bring_up();
            used = virtio_drv_map_vectors(&drv, 3, cases[i].table);
            cr_assert_eq(used, cases[i].used, "case %u: %d", i, used);
            for (unsigned q = 0; q < 3 && used > 0; q++)
                cr_assert_eq(paper.queue[q].vector, used > 2 ? q + 1 : (unsigned)used - 1);
            if (used > 0)
                cr_assert_eq(paper.config_vector, 0);
            for (unsigned hit = 0; hit < paper.hits; hit++) { /* never beyond the table */
                if (paper.hit[hit].structure == 1 && paper.hit[hit].write &&
                    paper.hit[hit].at == (legacy ? 22 : 26))
                    cr_assert(paper.hit[hit].value < cases[i].table);
            }
        }
    }
}

Test(vectors, unmapped_again_and_not_there)
{
    /* D-MSX-03: none is a value like any other; virtio-mmio has no vectors */
    power_on(MODERN);
    bring_up();
    cr_expect_eq(virtio_drv_queue_vector(&drv, 2, 7), 0);
    cr_expect_eq(paper.queue[2].vector, 7);
    cr_expect_eq(virtio_drv_queue_vector(&drv, 2, VIRTIO_VECTOR_NONE), 0);
    cr_expect_eq(paper.queue[2].vector, 0xffff);
    cr_expect_eq(virtio_drv_queue_vector(&drv, 3, 7), VIRTIO_ERR_NO_QUEUE);
    cr_expect_eq(virtio_drv_map_vectors(&drv, 4, 16), VIRTIO_ERR_NO_QUEUE);
    power_on(MMIO_2);
    bring_up();
    cr_expect_eq(virtio_drv_config_vector(&drv, 0), VIRTIO_ERR_VECTOR);
    cr_expect_eq(virtio_drv_queue_vector(&drv, 0, 0), VIRTIO_ERR_VECTOR);
    cr_expect_eq(virtio_drv_map_vectors(&drv, 1, 16), VIRTIO_ERR_VECTOR);
}

/* ----- legacy PCI ----- */

Test(legacy, queue_size_is_the_devices_and_a_stop_is_page_0)
{
    /* D-LEG-04, D-PLEG-06, T-90: exactly this size; the queue that is named stops, the other goes
     * on */
    for (unsigned num = 1; num <= 2 * SIZE; num *= 2) {
        struct virtio_queue_setup setup = {
            (uint16_t)num, {memory[0], 0x40000000, sizeof(memory[0])}, slots[0]};

        power_on(LEGACY);
        bring_up();
        cr_expect_eq(virtio_drv_queue_setup(&drv, &queue[0], 0, &setup),
                     num == SIZE ? 0 : VIRTIO_ERR_QUEUE_SIZE, "%u entries", num);
        cr_expect_eq(paper.queue[0].pfn != 0, num == SIZE);
    }
    for (int kind = LEGACY; kind <= MMIO_2; kind++) {
        if (kind == MODERN)
            continue;
        power_on((enum layout)kind);
        bring_up();
        cr_assert(set_up(0) == 0 && set_up(1) == 0);
        cr_expect_eq(virtio_drv_queue_stop(&drv, &queue[0]), 0);
        cr_expect(paper.queue[0].pfn == 0 && paper.queue[0].enabled == 0);
        cr_expect(paper.queue[1].pfn != 0 || paper.queue[1].enabled != 0);
    }
    power_on(LEGACY);
    bring_up();
    cr_assert_eq(set_up(0), 0);
    paper.takes_no_pfn = true;
    cr_expect_eq(virtio_drv_queue_stop(&drv, &queue[0]), VIRTIO_ERR_QUEUE_BUSY);
}

/* ----- PCI modern ----- */

Test(modern, fields_of_later_versions_need_their_length)
{
    /* D-COM-06, T-25, V-COM-06, D-CFG-04, D-FEAT-05: 56, 60 and 64 bytes and more */
    static const struct {
        uint32_t length, high;
    } cases[] = {{56, 0x0c}, {58, 0x8c}, {60, 0x18c}, {63, 0x18c}, {64, 0x38c}, {0x800, 0x38c}};

    for (unsigned i = 0; i < 6; i++) {
        power_on(MODERN);
        paper.header_length = cases[i].length;
        paper.offered[1] = 0x38d; /* 32, 34, 35; NOTIF_CONFIG_DATA, RING_RESET, ADMIN_VQ */
        bring_up();
        cr_expect_eq(paper.accepted[1], cases[i].high | 1, "%u bytes: %#x", cases[i].length,
                     paper.accepted[1]);
    }
}

Test(modern, sr_iov_only_for_who_has_the_capability)
{
    /* D-RES-05 */
    power_on(MODERN);
    paper.offered[1] = 0x21;
    bring_up();
    cr_expect_eq(paper.accepted[1], 1);
    cr_assert_eq(virtio_drv_begin(&drv), 0);
    drv.transport_bits |= 1u << (VIRTIO_FEATURE_SR_IOV - 32);
    cr_assert_eq(virtio_drv_negotiate(&drv, &all, &none), 0);
    cr_expect_eq(paper.accepted[1], 0x21);
}

Test(modern, notify_addresses)
{
    /* L-NTF-01, D-NTF-01, D-NTF-02, D-NOTE-01, T-20, T-21: multipliers 0, 2, 4 and 4096, offsets of
     * each queue's own */
    static const uint32_t multipliers[] = {0, 2, 4, 4096};

    for (unsigned i = 0; i < 4; i++) {
        for (unsigned data = 0; data < 2; data++) {
            uint32_t m = multipliers[i];
            unsigned width = data ? 4 : 2;

            power_on(MODERN);
            paper.multiplier = m;
            paper.notify_length = m == 4096 ? 0xee0 : 0x100;
            for (unsigned q = 0; q < 3; q++)
                paper.queue[q].notify_off = (uint16_t)(m == 4096 ? 0 : 3 + q * 2);
            paper.offered[1] |= data ? 1u << 6 : 0;
            bring_up();
            for (unsigned q = 0; q < 3; q++) {
                uint32_t at = m * paper.queue[q].notify_off;
                int err = set_up(q);

                cr_assert_eq(err, at % width == 0 ? 0 : VIRTIO_ERR_NOTIFY);
                if (err != 0)
                    continue;
                virtio_drv_ready(&drv);
                paper.hits = 0;
                request(q);
                cr_assert_eq(paper.hits, 1);
                cr_assert_eq(paper.hit[0].structure, 2);
                cr_assert_eq(paper.hit[0].at, at);
                cr_assert_eq(paper.hit[0].width, width);
                cr_assert_eq(paper.hit[0].value, q | (data ? 1u << 16 : 0));
            }
        }
    }
}

Test(modern, notify_address_outside_its_structure)
{
    /* D-NTF-01, V-NTF-01: to the last byte, and no product that wraps in 32 bits */
    static const struct {
        uint32_t multiplier, length;
        uint16_t off;
        int err;
    } cases[] = {{4, 10, 2, 0},
                 {4, 9, 2, VIRTIO_ERR_NOTIFY},
                 {0x10000, 0x100, 0xffff, VIRTIO_ERR_NOTIFY},
                 {0x80000000, 0x100, 2, VIRTIO_ERR_NOTIFY},
                 {1, 0x100, 3, VIRTIO_ERR_NOTIFY}};

    for (unsigned i = 0; i < 5; i++) {
        power_on(MODERN);
        paper.multiplier = cases[i].multiplier;
        paper.notify_length = cases[i].length;
        paper.queue[0].notify_off = cases[i].off;
        bring_up();
        cr_expect_eq(set_up(0), cases[i].err, "case %u", i);
        cr_expect_eq(paper.queue[0].enabled, cases[i].err == 0);
    }
}

Test(modern, queue_set_up_in_order)
{
    /* D-COM-01 to D-COM-04, D-COM-07, D-RES-03, D-CAP-09, T-27, L-CAP-10: select, size, ...,
     * addresses low half first, enable last and 1 */
    static const uint32_t writes[] = {22, 24, 32, 36, 40, 44, 48, 52, 28};
    unsigned n = 0;

    power_on(MODERN);
    bring_up();
    paper.hits = 0;
    cr_assert_eq(set_up(2), 0);
    for (unsigned i = 0; i < paper.hits; i++) {
        if (!paper.hit[i].write)
            continue;
        cr_assert(n < 9);
        cr_expect_eq(paper.hit[i].at, writes[n], "write %u at %u", n, paper.hit[i].at);
        n++;
    }
    cr_expect_eq(n, 9);
    cr_expect_eq(paper.queue[2].enabled, 1);
    cr_expect_eq(paper.queue[2].area[0], 0x40000000u + 2 * 8192);
    cr_expect_eq(virtio_drv_queue_stop(&drv, &queue[2]), VIRTIO_ERR_NO_RESET); /* D-COM-04 */
    cr_expect_eq(paper.queue[2].enabled, 1);
}

Test(modern, admin_queues_behind_the_others)
{
    /* D-COM-05, V-COM-06: only with ADMIN_VQ, and only in their range */
    uint16_t first = 0;

    for (unsigned on = 0; on < 2; on++) {
        power_on(MODERN);
        paper.offered[1] |= on ? 1u << 9 : 0;
        paper.admin_first = 4;
        paper.admin_count = 1;
        bring_up();
        cr_expect_eq(virtio_drv_admin_queues(&drv, &first), on);
        cr_expect_eq(set_up(4), on ? 0 : VIRTIO_ERR_NO_QUEUE);
        cr_expect_eq(set_up(3), VIRTIO_ERR_NO_QUEUE);
        cr_expect_eq(set_up(5), VIRTIO_ERR_NO_QUEUE);
        cr_expect_eq(set_up(2), 0);
    }
    cr_expect_eq(first, 4);
}

/* ----- virtio-mmio ----- */

Test(mmio, version_1_queue)
{
    /* D-MLEG-01 to D-MLEG-04, T-86 to T-88, D-MMIO-04: page size, size, alignment, page number, in
     * this order; nothing of version 2 */
    static const uint32_t writes[][2] = {
        {0x030, 1}, {0x028, 4096}, {0x038, SIZE}, {0x03c, 4096}, {0x040, 0x40002}};
    unsigned n = 0;

    power_on(MMIO_1);
    bring_up();
    cr_expect_eq(paper.accepted[0], 0x24);
    paper.hits = 0;
    cr_assert_eq(set_up(1), 0);
    for (unsigned i = 0; i < paper.hits; i++) {
        cr_expect(paper.hit[i].at <= 0x40 && paper.hit[i].width == 4);
        if (!paper.hit[i].write)
            continue;
        cr_assert(n < 5);
        cr_expect_eq(paper.hit[i].at, writes[n][0]);
        cr_expect_eq(paper.hit[i].value, writes[n][1]);
        n++;
    }
    cr_expect_eq(n, 5);
    virtio_drv_ready(&drv);
    request(1);
    cr_expect_eq(paper.queue[1].kicks, 1);
    expect_config();
    cr_expect_eq(set_up(1), VIRTIO_ERR_QUEUE_BUSY);
    cr_expect_eq(virtio_drv_queue_stop(&drv, &queue[1]), 0);
    cr_expect_eq(paper.queue[1].pfn, 0);
    cr_expect_not(was_hit(5, true, 0x044));
    paper.takes_no_pfn = true;
    cr_expect_eq(set_up(0), VIRTIO_ERR_QUEUE_REFUSED);
}

Test(mmio, version_1_may_shrink_a_queue_and_page_0_is_none)
{
    /* D-MLEG-02, D-MLEG-03, D-MMIO-05, T-84 */
    struct virtio_queue_setup setup = {4, {memory[0], 0x40000000, sizeof(memory[0])}, slots[0]};

    power_on(MMIO_1);
    bring_up();
    cr_expect_eq(virtio_drv_queue_setup(&drv, &queue[0], 0, &setup), 0);
    cr_expect_eq(paper.queue[0].size, 4);
    setup.num = 16;
    cr_expect_eq(virtio_drv_queue_setup(&drv, &queue[1], 1, &setup), VIRTIO_ERR_QUEUE_SIZE);
    setup.num = SIZE;
    setup.memory.device = 0;
    cr_expect_eq(virtio_drv_queue_setup(&drv, &queue[1], 1, &setup), VIRTIO_ERR_QUEUE_MEMORY);
    setup.memory.device = UINT64_C(0x100000000000); /* 2^44 */
    cr_expect_eq(virtio_drv_queue_setup(&drv, &queue[1], 1, &setup), VIRTIO_ERR_QUEUE_MEMORY);
    cr_expect_eq(paper.queue[1].pfn, 0);
}

Test(mmio, queue_is_stopped_and_read_back)
{
    /* D-MMIO-06, D-MMIO-07 */
    power_on(MMIO_2);
    bring_up();
    cr_assert_eq(set_up(2), 0);
    cr_expect_eq(paper.queue[2].enabled, 1);
    paper.hits = 0;
    cr_expect_eq(virtio_drv_queue_stop(&drv, &queue[2]), 0);
    cr_expect_eq(paper.queue[2].enabled, 0);
    cr_expect_eq(paper.hit[paper.hits - 1].at, 0x044);
    cr_expect_not(paper.hit[paper.hits - 1].write);
    for (unsigned i = 0; i < paper.hits; i++)
        cr_expect(paper.hit[i].at == 0x030 || paper.hit[i].at == 0x034 || paper.hit[i].at == 0x044);
}

Test(mmio, shared_memory)
{
    /* D-MMIO-10, V-MMIO-06: 64-bit base and length; all ones is none */
    uint64_t base = 1, length = 2;
    struct virtio_transport copy;

    power_on(MMIO_2);
    bring_up();
    cr_expect_eq(virtio_drv_mmio_shm(&drv, 0, &base, &length), VIRTIO_ERR_NO_REGION);
    cr_expect(base == 1 && length == 2);
    cr_expect_eq(virtio_drv_mmio_shm(&drv, 1, &base, &length), 0);
    cr_expect_eq(base, UINT64_C(0x880000000));
    cr_expect_eq(length, UINT64_C(0x123456789));
    copy = *drv.transport; /* as in another translation unit, which has a table of its own */
    drv.transport = &copy;
    cr_expect_eq(virtio_drv_mmio_shm(&drv, 1, &base, &length), 0);
    power_on(MMIO_1);
    bring_up();
    paper.hits = 0;
    cr_expect_eq(virtio_drv_mmio_shm(&drv, 1, &base, &length), VIRTIO_ERR_NO_REGION);
    cr_expect_eq(paper.hits, 0);
}

/* ----- life cycle ----- */

#define EACH_LAYOUT(kind) for (int kind = LEGACY; kind <= MMIO_2; kind++)

Test(life, restart_keeps_the_features_and_gives_back_what_was_in_flight)
{
    /* D-STATUS-03 to D-STATUS-05, D-CLEAN-01, D-CLEAN-02, D-RESET-01, L-STATUS-01, L-STATUS-02 */
    EACH_LAYOUT(kind) {
        static const struct virtio_features one = {{0x04, 0, 0, 0}};
        uint16_t at = 0;
        void *cookie;

        power_on((enum layout)kind);
        cr_assert_eq(take(), 0);
        cr_assert_eq(virtio_drv_begin(&drv), 0);
        cr_assert_eq(virtio_drv_negotiate(&drv, &one, &none), 0);
        cr_assert_eq(set_up(0), 0);
        virtio_drv_ready(&drv);
        request(0);
        cr_expect_not(virtio_drv_needs_reset(&drv));
        paper.status |= 0x40;
        cr_expect(virtio_drv_needs_reset(&drv));
        paper.busy = 4; /* the reset takes its time */
        cr_assert_eq(virtio_drv_restart(&drv), 0);
        cr_expect_eq(paper.accepted[0], 0x04);
        cr_expect_eq(drv.accepted.word[0], 0x04);
        cr_expect_eq(paper.status, drv.transport->legacy ? 0x03 : 0x0b);
        cr_expect(virtq_driver_detach(&queue[0].ring, &at, &cookie));
        cr_expect_eq(cookie, &queue[0]);
        cr_expect_not(virtq_driver_detach(&queue[0].ring, &at, &cookie));
        cr_assert_eq(set_up(0), 0);
        virtio_drv_ready(&drv);
        request(0);
        cr_expect_eq(paper.queue[0].kicks, 2);
    }
}

Test(life, restart_of_a_device_that_offers_less)
{
    /* D-FEAT-04, D-INIT-05 */
    power_on(MMIO_2);
    bring_up();
    paper.offered[0] = 0x20;
    cr_expect_eq(virtio_drv_restart(&drv), VIRTIO_ERR_REQUIRED);
    cr_expect(paper.status & 0x80);
    paper.busy = 1000;
    cr_expect_eq(virtio_drv_restart(&drv), VIRTIO_ERR_TIMEOUT);
    cr_expect_eq(paper.relaxed, paper.patience);
}

Test(life, suspend_and_resume)
{
    /* D-SUS-01 to D-SUS-03, D-STATUS-02: at once, and after a while */
    for (unsigned busy = 0; busy < 12; busy += 5) {
        power_on(MODERN);
        paper.offered[1] |= 1u << 11;
        bring_up();
        cr_expect_eq(virtio_drv_suspend(&drv), VIRTIO_ERR_NO_SUSPEND); /* not running */
        virtio_drv_ready(&drv);
        cr_expect_eq(virtio_drv_resume(&drv), VIRTIO_ERR_NO_SUSPEND);
        cr_expect_eq(paper.status, 0x0f);
        paper.between = 0x0f;
        paper.busy = busy != 0 ? busy + 2 : 0; /* two reads are before the waiting */
        cr_expect_eq(virtio_drv_suspend(&drv), 0);
        cr_expect_eq(paper.status, 0x1b);
        paper.between = 0x1b;
        paper.busy = busy != 0 ? busy + 2 : 0;
        cr_expect_eq(virtio_drv_resume(&drv), 0);
        cr_expect_eq(paper.status, 0x0f);
    }
}

Test(life, suspend_is_over_when_both_bits_say_so)
{
    /* D-SUS-02, D-SUS-03: SUSPEND and DRIVER_OK may change one after the other */
    static const uint8_t halfway[] = {0x1f, 0x0b};

    for (unsigned i = 0; i < 2; i++) {
        power_on(MODERN);
        paper.offered[1] |= 1u << 11;
        bring_up();
        virtio_drv_ready(&drv);
        for (unsigned resume = 0; resume < 2; resume++) {
            paper.busy = 8;
            paper.between = halfway[i];
            cr_expect_eq(resume ? virtio_drv_resume(&drv) : virtio_drv_suspend(&drv), 0);
            cr_expect_eq(paper.busy, 0, "%#x: not waited to the end", halfway[i]);
            cr_expect_eq(paper.status, resume ? 0x0f : 0x1b);
        }
    }
}

Test(life, suspend_that_fails)
{
    /* D-SUS-02, V-SUS-04: not negotiated, no end, broken, unplugged */
    power_on(MODERN);
    bring_up();
    virtio_drv_ready(&drv);
    paper.hits = 0;
    cr_expect_eq(virtio_drv_suspend(&drv), VIRTIO_ERR_NO_SUSPEND);
    cr_expect_eq(paper.hits, 0);
    power_on(MODERN);
    paper.offered[1] |= 1u << 11;
    bring_up();
    virtio_drv_ready(&drv);
    paper.busy = 1000;
    paper.between = 0x0f;
    cr_expect_eq(virtio_drv_suspend(&drv), VIRTIO_ERR_TIMEOUT);
    cr_expect_eq(paper.relaxed, paper.patience);
    paper.busy = 0;
    paper.turning = false;
    paper.status = 0x0f;
    paper.suspend_fails = true;
    cr_expect_eq(virtio_drv_suspend(&drv), VIRTIO_ERR_NEEDS_RESET);
    paper.status = 0xff;
    cr_expect_eq(virtio_drv_suspend(&drv), VIRTIO_ERR_GONE);
    cr_expect_eq(virtio_drv_resume(&drv), VIRTIO_ERR_GONE);
}

Test(life, steps_in_order)
{
    /* D-INIT-01 to D-INIT-03, D-INIT-06, D-INIT-07, D-STATUS-01, D-LEG-02, L-CLEAN-03: no feature
     * after FEATURES_OK, no notification before DRIVER_OK, and the one that is owed after it */
    EACH_LAYOUT(kind) {
        struct virtq_seg seg = {0x50000000, 64};
        struct virtq_buffer buffer = {&seg, 0, 1};
        bool features_ok = false;

        power_on((enum layout)kind);
        bring_up();
        cr_assert_eq(set_up(0), 0);
        cr_assert_eq(virtq_driver_add(&queue[0].ring, &buffer, &queue[0]), 0);
        virtq_driver_publish(&queue[0].ring);
        cr_expect_eq(paper.queue[0].kicks, 0);
        virtio_drv_ready(&drv);
        virtio_drv_kick(&queue[0]);
        cr_expect_eq(paper.queue[0].kicks, 1);
        for (unsigned i = 0; i < paper.hits; i++) {
            const struct hit *hit = &paper.hit[i];
            unsigned status = kind == LEGACY ? 18 : kind == MODERN ? 20 : 0x70;
            unsigned feature = kind == LEGACY ? 4 : kind == MODERN ? 12 : 0x20;

            if (!hit->write || hit->structure == 4 || hit->structure == 2)
                continue;
            if (hit->at == status)
                features_ok = features_ok || (hit->value & 0x08) != 0;
            cr_expect(hit->at != feature || !features_ok);
        }
        cr_expect_eq(features_ok, kind == MODERN || kind == MMIO_2);
    }
}

Test(life, interrupts)
{
    /* D-ISR-01 to D-ISR-03, D-MMIO-08, D-MMIO-09, D-VQ-03, L-ISR-01, T-39, T-83, T-95: both causes
     * at once, unknown bits left out; acknowledged by the read on PCI, by exactly what was handled
     * on virtio-mmio; with MSI-X nothing but virtio_drv_irq_status() reads the register */
    EACH_LAYOUT(kind) {
        bool mmio = kind == MMIO_1 || kind == MMIO_2;

        power_on((enum layout)kind);
        paper.msix = true;
        bring_up();
        cr_assert_eq(set_up(0), 0);
        virtio_drv_ready(&drv);
        request(0);
        cr_expect_not(was_hit(3, false, 0));
        paper.isr = 0x83;
        cr_expect_eq(virtio_drv_irq_status(&drv), VIRTIO_IRQ_QUEUE | VIRTIO_IRQ_CONFIG);
        cr_expect_eq(paper.isr, mmio ? 0x83 : 0);
        virtio_drv_irq_ack(&drv, VIRTIO_IRQ_CONFIG);
        cr_expect_eq(paper.isr, mmio ? 0x81 : 0);
        virtio_drv_irq_ack(&drv, VIRTIO_IRQ_QUEUE);
        cr_expect_eq(paper.isr, mmio ? 0x80 : 0);
        cr_expect_eq(virtio_drv_irq_status(&drv), 0);
    }
}

/* ----- features ----- */

Test(features, graph_of_a_device_type)
{
    /* D-FEAT-01, D-FEAT-04: 2 needs 5 needs 40 (as in a chain), 70 needs 2; in an order that takes
     * several rounds */
    static const struct virtio_feature_rule rules[] = {{70, 2}, {2, 5}, {5, 50}};
    static const struct virtio_features need = {{0, 0, 1u << 6, 0}};
    static const struct {
        uint32_t offered[3], accepted[3];
        int required;
    } cases[] = {{{0x24, 0x40001, 0x40}, {0x24, 0x40001, 0x40}, 0},
                 {{0x24, 0x00001, 0x40}, {0x00, 0x00001, 0x00}, VIRTIO_ERR_REQUIRED},
                 {{0x04, 0x40001, 0x40}, {0x00, 0x40001, 0x00}, VIRTIO_ERR_REQUIRED},
                 {{0x20, 0x40001, 0x41}, {0x20, 0x40001, 0x01}, VIRTIO_ERR_REQUIRED}};

    for (unsigned i = 0; i < 4; i++) {
        power_on(MODERN);
        memcpy(paper.offered, cases[i].offered, sizeof(cases[i].offered));
        drv.rules = rules;
        drv.rule_count = 3;
        bring_up();
        cr_expect_eq(memcmp(paper.accepted, cases[i].accepted, 12), 0, "case %u: %#x %#x %#x", i,
                     paper.accepted[0], paper.accepted[1], paper.accepted[2]);
        cr_assert_eq(virtio_drv_begin(&drv), 0);
        cr_expect_eq(virtio_drv_negotiate(&drv, &all, &need), cases[i].required);
    }
}

Test(features, rules_in_a_circle_end)
{
    /* D-FEAT-01: and stand if all of them are there */
    static const struct virtio_feature_rule rules[] = {{1, 2}, {2, 3}, {3, 1}};
    struct virtio_features set = {{0x0e, 0, 0, 0}};

    virtio_features_prune(&set, rules, 3);
    cr_expect_eq(set.word[0], 0x0e);
    set.word[0] = 0x06;
    virtio_features_prune(&set, rules, 3);
    cr_expect_eq(set.word[0], 0);
}

Test(features, nothing_accepted_is_written_all_the_same)
{
    /* D-INIT-01: a device may take the write of word 0 for the end of the negotiation */
    EACH_LAYOUT(kind) {
        power_on((enum layout)kind);
        cr_assert_eq(take(), 0);
        cr_assert_eq(virtio_drv_begin(&drv), 0);
        paper.accepted[0] = 0xff;
        cr_assert_eq(virtio_drv_negotiate(&drv, &none, &none), 0);
        cr_expect_eq(paper.accepted[0], 0);
    }
}

Test(features, what_every_transport_carries)
{
    /* D-FEAT-02, D-FEAT-03, D-FEAT-05, D-RES-01, D-RES-02, D-RES-04, D-RES-06, D-LEG-09, D-LEG-10,
     * L-FEAT-01, L-FEAT-07, T-06, T-07, T-12, T-37: all bits offered and wanted */
    static const struct {
        enum layout layout;
        uint32_t accepted[4];
    } cases[] = {{LEGACY, {0x39ffffff, 0, 0, 0}},
                 {MODERN, {0x30ffffff, 0xfffc0fdf, ~0u, ~0u}},
                 {MMIO_1, {0x39ffffff, 0, 0, 0}},
                 {MMIO_2, {0x30ffffff, 0xfffc0d5f, ~0u, ~0u}}};

    for (unsigned i = 0; i < 4; i++) {
        power_on(cases[i].layout);
        memset(paper.offered, 0xff, sizeof(paper.offered));
        bring_up();
        for (unsigned word = 0; word < 4; word++)
            cr_expect_eq(paper.accepted[word], cases[i].accepted[word], "layout %u, word %u: %#x",
                         i, word, paper.accepted[word]);
    }
}

/* ----- device configuration ----- */

Test(config, written_in_natural_width)
{
    /* D-CFG-05, D-PLEG-03, D-MMIO-03, L-CFG-06, L-PLEG-04 */
    static const struct virtio_config_field fields[] = {{1, 1}, {2, 2}, {4, 4}, {8, 8}},
                                            wide = {0, 4},
                                            outside[] = {{32, 1}, {31, 2}, {0xfffc, 4}, {28, 8}};
    static const uint64_t values[] = {0x11, 0x2233, 0x44556677, UINT64_C(0x8899aabbccddeeff)};

    EACH_LAYOUT(kind) {
        power_on((enum layout)kind);
        paper.caps = 0x10; /* so that the legacy device has an end, too */
        bring_up();
        if (kind == MMIO_1 || kind == MMIO_2)
            drv.config.length = CONFIG;
        paper.hits = 0;
        for (unsigned i = 0; i < 4; i++) {
            cr_assert_eq(virtio_drv_config_write(&drv, fields[i], values[i]), 0);
            cr_expect_eq(config_le(fields[i].offset, fields[i].width), values[i], "field %u", i);
            cr_expect_eq(virtio_drv_config_write(&drv, outside[i], 0), VIRTIO_ERR_CONFIG_RANGE);
        }
        cr_expect_eq(paper.hits, 5);
        for (unsigned i = 0; i < 5; i++)
            cr_expect_eq(paper.hit[i].width, i < 2 ? i + 1 : 4);
        drv.config.length = 3; /* shorter than a field is wide */
        cr_expect_eq(virtio_drv_config_write(&drv, wide, 0), VIRTIO_ERR_CONFIG_RANGE);
        cr_expect_eq(virtio_drv_config_write(&drv, outside[0], 0), VIRTIO_ERR_CONFIG_RANGE);
    }
}

Test(config, read_while_features_are_only_offered)
{
    /* D-CFG-03, D-INIT-02, V-INIT-01, T-34: before the driver has accepted anything, without a
     * write */
    EACH_LAYOUT(kind) {
        power_on((enum layout)kind);
        cr_assert_eq(take(), 0);
        cr_assert_eq(virtio_drv_begin(&drv), 0);
        cr_expect(virtio_features_has(&drv.offered, 5));
        expect_config();
        cr_expect_eq(paper.status, 0x03);
        cr_expect_eq(paper.accepted[0], 0);
        for (unsigned i = 0; i < paper.hits; i++)
            cr_expect(paper.hit[i].structure != 4 || !paper.hit[i].write);
    }
}

/* ----- configuration space ----- */

static struct {
    uint32_t address;
    uint8_t space[4096];
    unsigned reads, writes;
} bus;

static uint32_t ports_read(void *ctx, uintptr_t address, unsigned width)
{
    const uint8_t *p = bus.space + (bus.address & 0xff);

    (void)ctx;
    cr_assert(address == 0xcfc && width == 4);
    bus.reads++;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static void ports_write(void *ctx, uintptr_t address, unsigned width, uint32_t value)
{
    (void)ctx;
    cr_assert_eq(width, 4);
    if (address == 0xcf8) {
        bus.address = value;
        return;
    }
    cr_assert_eq(address, 0xcfc);
    bus.writes++;
    put32(bus.space + (bus.address & 0xff), value);
}

Test(pci, address_and_data_port)
{
    static const struct virtio_window_ops ops = {ports_read, ports_write};
    struct virtio_pci_cf8 at = {{0xcf8, 8, VIRTIO_WINDOW_CALLER, &ops, NULL}, 0};
    struct virtio_pci_config config = virtio_pci_config_cf8(&at);

    memset(&bus, 0, sizeof(bus));
    at.function = (uint32_t)virtio_pci_bdf(0x12, 0x1f, 7) << 8;
    put32(bus.space + 0x3c, 0x01020304);
    cr_expect_eq(config.read32(config.ctx, 0x3c), 0x01020304);
    cr_expect_eq(bus.address, 0x8012ff3c);
    config.write32(config.ctx, 0x10, 0xfffffff0);
    cr_expect_eq(bus.address, 0x8012ff10);
    cr_expect_eq(memcmp(bus.space + 0x10, "\xf0\xff\xff\xff", 4), 0);
    cr_expect(bus.reads == 1 && bus.writes == 1);
}

Test(pci, ecam)
{
    static _Alignas(4096) uint8_t space[4096];
    struct virtio_window function = {(uintptr_t)space, 4096, VIRTIO_WINDOW_MMIO, NULL, NULL};
    struct virtio_pci_config config = virtio_pci_config_ecam(&function);

    put32(space + 0x40, 0x11223344);
    cr_expect_eq(config.read32(config.ctx, 0x40), 0x11223344);
    config.write32(config.ctx, 0x44, 0x55667788);
    cr_expect_eq(memcmp(space + 0x44, "\x88\x77\x66\x55", 4), 0);
    cr_expect_eq(virtio_pci_ecam_offset(virtio_pci_bdf(1, 2, 3)), 0x113000);
}

/* A PCI_CFG capability at 0x60 whose data field is a register of the device on paper. */
static void cfg_write32(void *ctx, uint16_t offset, uint32_t value)
{
    (void)ctx;
    cr_assert(offset >= 0x64 && offset <= 0x70);
    if (offset < 0x70)
        put32(bus.space + offset, value);
    else
        (void)paper_access(true,
                           (uint64_t)bus.space[0x64] << 32 |
                               (bus.space[0x68] | (uint32_t)bus.space[0x69] << 8),
                           bus.space[0x6c], value);
}
static uint32_t cfg_read32(void *ctx, uint16_t offset)
{
    uint32_t length = bus.space[0x6c];
    uint32_t at = bus.space[0x68] | (uint32_t)bus.space[0x69] << 8;

    (void)ctx;
    cr_assert_eq(offset, 0x70);
    cr_assert_eq(at % length, 0); /* D-PCFG-01 */
    return paper_access(false, (uint64_t)bus.space[0x64] << 32 | at, length, 0) |
           (length < 4 ? 0xfeedf00du << 8 * length : 0); /* rubbish behind the register */
}

Test(pci, registers_through_the_pci_cfg_capability)
{
    /* D-PCFG-01, D-CAP-06: the whole of a driver's life without a mapped BAR */
    static const struct virtio_pci_config config = {cfg_read32, cfg_write32, NULL};
    struct virtio_pci_cfg_access access = {&config, 0x60, 1};

    memset(&bus, 0, sizeof(bus));
    power_on(MODERN);
    cr_assert_eq(take(), 0);
    windows[1] = virtio_pci_cfg_window(&access, 0x4000);
    cr_assert_eq(virtio_drv_pci(&drv, &layout, windows), 0);
    cr_assert_eq(virtio_drv_begin(&drv), 0);
    cr_assert_eq(virtio_drv_negotiate(&drv, &all, &none), 0);
    expect_config();
    cr_assert_eq(set_up(1), 0);
    virtio_drv_ready(&drv);
    request(1);
    cr_expect_eq(paper.queue[1].kicks, 1);
    cr_expect_eq(paper.status, 0x0f);
    for (unsigned i = 0; i < paper.hits; i++)
        cr_expect_neq(paper.hit[i].structure, NOWHERE);
}
