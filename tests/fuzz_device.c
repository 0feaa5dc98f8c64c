// SPDX-License-Identifier: MIT-0
/* A hostile guest against the device side of virtio.h, for libFuzzer (make fuzz). The input is what
 * the device offers, then register accesses of any view, offset, width and value, accesses of PCI
 * configuration space and BARs, stores into guest memory, and calls of the device's author between
 * them. What must hold is checked after each step against a second, simpler account: status bits
 * only come, but for a reset or SUSPEND; the line is what ISR and interrupt mode make it; no kick,
 * message or mapping that is not due; nothing read where there is no register; nothing outside the
 * arrays (ASan). */
#include <string.h>

#include "support/fuzz_input.h"

#define VIRTIO_RING_FLAGS 0x7f8 /* foreign byte order too */

#include "virtio.h"

enum { GUEST = 0x4000, GUEST_SIZE = 0x10000, QUEUES = 5, CONFIG = 13, VIEWS = 10 };

static struct {
    struct virtio_dev dev;
    struct virtio_dev_pci pci;
    uint8_t *config, *legacy;
    bool line, pending[3], defer, reset_seen;
    bool queue_pending[QUEUES];
    struct virtio_dev_queue_regs latched[QUEUES]; /* as of the last step */
    uint8_t status;
} t;
static struct virtio_dev_queue *queue;
static uint8_t *guest;

/* ----- what the device is told ----- */

/* Nothing is mapped but the areas of a queue as programmed, or an indirect table. */
static void *map(void *ctx, uint64_t addr, uint32_t len)
{
    bool found = false;

    (void)ctx;
    CHECK(len != 0 && addr + len >= addr);
    for (unsigned i = 0; i < QUEUES && !found; i++) {
        found = queue[i].reg.state == VIRTIO_DEV_QUEUE_ON;
        for (unsigned area = 0; area < 3 && len <= 16u * queue[i].max; area++)
            found = found || addr == queue[i].reg.address[area];
    }
    CHECK(found);
    if (addr < GUEST || addr - GUEST > GUEST_SIZE || len > GUEST_SIZE - (addr - GUEST))
        return NULL;
    return guest + (addr - GUEST);
}

static void serve(uint16_t index)
{
    struct virtq_device *ring = virtio_dev_ring(&t.dev, index);
    struct virtq_seg seg[8];
    struct virtq_chain chain = {seg, 8, 0, 0, 0};

    CHECK(ring == &queue[index].ring);
    for (unsigned i = 0; i < 4; i++) {
        int rc = virtq_device_pop(ring, &chain);

        if (rc == 0)
            break;
        if (rc < 0 && !virtq_err_names_chain(rc)) {
            virtio_dev_needs_reset(&t.dev);
            return;
        }
        virtq_device_push(ring, chain.token, 0);
    }
    virtq_device_flush(ring);
    if (virtq_device_irq_due(ring))
        virtio_dev_interrupt(&t.dev, index);
}

static void kick(void *ctx, uint16_t index)
{
    uint8_t s = t.dev.reg.status;

    (void)ctx;
    CHECK(index < QUEUES && queue[index].reg.state == VIRTIO_DEV_QUEUE_ON);
    CHECK((s & 0x50) == 0 && !t.pending[VIRTIO_STOP_RESET] && !t.pending[VIRTIO_STOP_SUSPEND]);
    CHECK((s & 4) != 0 || queue[index].reg.page != 0);
    serve(index);
}

static void line(void *ctx, bool level)
{
    (void)ctx;
    CHECK(level != t.line);
    t.line = level;
}

static void msix(void *ctx, uint16_t vector)
{
    (void)ctx;
    CHECK(t.dev.msix_on && vector < t.dev.msix_vectors);
    CHECK(!t.pending[VIRTIO_STOP_RESET] && (t.dev.reg.status & 0x10) == 0);
}

static bool features(void *ctx, const struct virtio_features *accepted)
{
    (void)ctx;
    CHECK(accepted->word[1] & 1);
    return (accepted->word[0] & 0xff) != 0x77;
}

static void status(void *ctx, uint8_t was, uint8_t now)
{
    (void)ctx;
    CHECK(was != now && now == t.dev.reg.status);
    if (now == 0)
        t.reset_seen = true;
    CHECK((now & 4) == 0 || (now & 0x10) == 0);
}

static void queue_ready(void *ctx, uint16_t index)
{
    const struct virtq_device *ring = &queue[index].ring;

    (void)ctx;
    CHECK(index < QUEUES && ring->last < queue[index].max);
    CHECK((uint8_t *)ring->desc == guest + (queue[index].reg.address[0] - GUEST));
    CHECK((uint8_t *)ring->device == guest + (queue[index].reg.address[2] - GUEST));
    CHECK((queue[index].reg.page != 0) == ((ring->flags & VIRTQ_LEGACY) != 0));
}

/* A reset ends whatever else was being stopped. */
static void reset_done(void)
{
    memset(t.pending, 0, sizeof(t.pending));
    memset(t.queue_pending, 0, sizeof(t.queue_pending));
    t.reset_seen = true;
}

static bool stop(void *ctx, enum virtio_stop what, uint16_t index)
{
    (void)ctx;
    if (what == VIRTIO_STOP_QUEUE) {
        CHECK(index < QUEUES && queue[index].reg.state > VIRTIO_DEV_QUEUE_ON);
        CHECK(!t.queue_pending[index]);
        t.queue_pending[index] = t.defer;
    } else {
        CHECK(!t.pending[what]);
        t.pending[what] = t.defer;
    }
    if (what == VIRTIO_STOP_RESET && !t.defer)
        reset_done();
    return !t.defer;
}

static void config_write(void *ctx, bool old, uint32_t offset, const uint8_t *bytes, uint32_t len)
{
    (void)ctx;
    CHECK(len >= 1 && len <= 4 && offset + len <= CONFIG && (t.dev.reg.status & 0x10) == 0);
    memcpy((old ? t.legacy : t.config) + offset, bytes, len);
}

/* ----- what must hold at any time ----- */

static void check(void)
{
    const struct virtio_dev_regs *reg = &t.dev.reg;
    uint8_t gone = (uint8_t)(t.status & ~reg->status);

    CHECK(t.line == (reg->isr != 0 && !t.dev.msix_on && !t.dev.intx_off));
    CHECK(reg->isr <= 3 && (reg->status & 0x20) == 0);
    CHECK((reg->status & 0x14) != 0x14);
    if (!t.reset_seen)
        CHECK((gone & ~0x14) == 0 && ((gone & 0x10) == 0 || (reg->status & 4)) &&
              ((gone & 4) == 0 || (reg->status & 0x10)));
    if (reg->status & 8)
        CHECK(reg->accepted.word[1] & 1);
    CHECK(reg->resetting == t.pending[VIRTIO_STOP_RESET]);
    CHECK(reg->config_vector == 0xffff || reg->config_vector < t.dev.msix_vectors);
    for (unsigned i = 0; i < QUEUES; i++) {
        const struct virtio_dev_queue_regs *q = &queue[i].reg;

        CHECK(q->state <= VIRTIO_DEV_QUEUE_RESETTING);
        CHECK(q->size == VIRTIO_DEV_SIZE_DEFAULT || q->size <= queue[i].max);
        CHECK(q->vector == 0xffff || q->vector < t.dev.msix_vectors);
        CHECK(q->state == VIRTIO_DEV_QUEUE_OFF || queue[i].ring.last < queue[i].max);
        CHECK((q->state > VIRTIO_DEV_QUEUE_ON) == t.queue_pending[i]);
        if (t.latched[i].state != VIRTIO_DEV_QUEUE_OFF && q->state != VIRTIO_DEV_QUEUE_OFF &&
            !t.reset_seen)
            CHECK(memcmp(t.latched[i].address, q->address, sizeof(q->address)) == 0 &&
                  t.latched[i].size == q->size && t.latched[i].page == q->page);
        t.latched[i] = *q;
        if (virtio_dev_ring(&t.dev, (uint16_t)i) != NULL)
            CHECK(q->state == VIRTIO_DEV_QUEUE_ON && (reg->status & 0x50) == 0);
    }
    t.status = reg->status;
    t.reset_seen = false;
}

/* Where a view can show anything but 0. */
static bool may_read(unsigned view, uint64_t offset, unsigned width)
{
    if (width != 1 && width != 2 && width != 4 && width != 8)
        return false;
    switch (view) {
    case VIRTIO_VIEW_COMMON: return offset < 64;
    case VIRTIO_VIEW_NOTIFY:
    case VIRTIO_VIEW_RFC_NOTIFY: return false;
    case VIRTIO_VIEW_ISR: return offset == 0 && width == 1;
    case VIRTIO_VIEW_CONFIG:
    case VIRTIO_VIEW_RFC_CONFIG: return offset < CONFIG;
    case VIRTIO_VIEW_LEGACY: return offset < 24 + CONFIG;
    case VIRTIO_VIEW_RFC_HEADER: return offset < 32;
    default:
        return (offset < 0x100 && offset % 4 == 0 && width >= 4) ||
               (offset >= 0xfc && offset < 0x100 + CONFIG);
    }
}

static void access_view(void)
{
    unsigned view = (unsigned)take_bytes(1) % VIEWS, how = (unsigned)take_bytes(1);
    unsigned width = how & 8 ? (how >> 4) : 1u << (how & 3);
    uint64_t offset = how & 4 ? take_bytes(8) : take_bytes(2) & 0x1ff, value;

    if (how & 0x80) {
        virtio_dev_write(&t.dev, (enum virtio_view)view, offset, width, take_bytes(how & 0x40 ? 8 : 4));
        return;
    }
    value = virtio_dev_read(&t.dev, (enum virtio_view)view, offset, width);
    CHECK(value == 0 || may_read(view, offset, width));
    CHECK(width >= 8 || value >> (8 * width) == 0);
}

/* A driver's usual steps, so that inputs get far: status, features, a queue. */
static void program(void)
{
    unsigned index = (unsigned)take_bytes(1) % (QUEUES + 1);
    bool mmio = take_bytes(1) & 1;
    enum virtio_view view = mmio ? VIRTIO_VIEW_MMIO : VIRTIO_VIEW_COMMON;
    uint8_t where = (uint8_t)take_bytes(1);
    uint64_t base = (where & 0x40 ? UINT64_MAX << 14 : GUEST) + (where & 0x3f) * 0x400u;

    virtio_dev_write(&t.dev, view, mmio ? 0x30 : 22, mmio ? 4 : 2, index);
    for (unsigned i = 0; i < 3; i++)
        virtio_dev_write(&t.dev, view, (mmio ? 0x80 + 0x10 * i : 32 + 8 * i), 8,
                         base + 0x1000 * i);
    virtio_dev_write(&t.dev, view, mmio ? 0x44 : 28, mmio ? 4 : 2, 1);
}

static void bring_up(void)
{
    uint32_t low = (uint32_t)take_bytes(4), high = (uint32_t)take_bytes(2);

    virtio_dev_write(&t.dev, VIRTIO_VIEW_COMMON, 8, 4, 0);
    virtio_dev_write(&t.dev, VIRTIO_VIEW_COMMON, 12, 4, low & t.dev.offered.word[0] & ~0x09000000u);
    virtio_dev_write(&t.dev, VIRTIO_VIEW_COMMON, 8, 4, 1);
    virtio_dev_write(&t.dev, VIRTIO_VIEW_COMMON, 12, 4, (high & t.dev.offered.word[1]) | 1);
    virtio_dev_write(&t.dev, VIRTIO_VIEW_COMMON, 20, 1, 0x0b);
    virtio_dev_write(&t.dev, VIRTIO_VIEW_COMMON, 20, 1, take_bytes(1));
}

static void access_pci(void)
{
    unsigned how = (unsigned)take_bytes(1), width = how & 8 ? how >> 4 : 1u << (how & 3);
    uint64_t offset = how & 4 ? take_bytes(8) : take_bytes(2);

    switch (how >> 6) {
    case 0: (void)virtio_dev_pci_bar_read(&t.pci, (unsigned)take_bytes(1), offset, width); break;
    case 1:
        virtio_dev_pci_bar_write(&t.pci, (unsigned)take_bytes(1), offset, width, take_bytes(4));
        break;
    case 2: (void)virtio_dev_pci_read(&t.pci, (unsigned)offset, width); break;
    default: virtio_dev_pci_write(&t.pci, (unsigned)offset & 0x1ff, width, (uint32_t)take_bytes(4));
    }
}

/* Steps that random accesses hit too rarely: PCI_CFG window, queue reset, region select. */
static void shortcut(void)
{
    uint8_t how = (uint8_t)take_bytes(1);
    unsigned cap = t.pci.pci_cfg;

    switch (how & 3) {
    case 0:
        virtio_dev_pci_write(&t.pci, cap + 4, 1, (uint32_t)take_bytes(1) & 1);
        virtio_dev_pci_write(&t.pci, cap + 8, 4, (uint32_t)take_bytes(2));
        virtio_dev_pci_write(&t.pci, cap + 12, 4, 1u << (how >> 2 & 3));
        if (how & 0x10)
            virtio_dev_pci_write(&t.pci, cap + 16, 4, (uint32_t)take_bytes(4));
        else
            (void)virtio_dev_pci_read(&t.pci, cap + 16, 4);
        break;
    case 1: virtio_dev_write(&t.dev, VIRTIO_VIEW_COMMON, 58, 2, 1); break;
    case 2: virtio_dev_write(&t.dev, VIRTIO_VIEW_MMIO, 0xc0, 4, 1); break;
    default: virtio_dev_write(&t.dev, VIRTIO_VIEW_MMIO, 0xac, 4, how >> 2);
    }
}

static void author(void)
{
    uint8_t how = (uint8_t)take_bytes(1);
    uint16_t index = (uint16_t)(take_bytes(1) % (QUEUES + 2));

    switch (how % 10) {
    case 0: virtio_dev_interrupt(&t.dev, index); break;
    case 1: virtio_dev_config_changed(&t.dev); break;
    case 2: virtio_dev_needs_reset(&t.dev); break;
    case 3:
        if (index < QUEUES)
            t.queue_pending[index] = false;
        virtio_dev_stopped(&t.dev, VIRTIO_STOP_QUEUE, index);
        break;
    case 4:
        t.pending[VIRTIO_STOP_SUSPEND] = t.pending[VIRTIO_STOP_SUSPEND] && t.dev.reg.resetting;
        virtio_dev_stopped(&t.dev, VIRTIO_STOP_SUSPEND, index);
        break;
    case 5:
        if (t.pending[VIRTIO_STOP_RESET])
            reset_done();
        virtio_dev_stopped(&t.dev, VIRTIO_STOP_RESET, index);
        break;
    case 6: virtio_dev_reset(&t.dev); break;
    case 7: virtio_dev_pci_reset(&t.pci); break;
    case 8: t.defer = !t.defer; break;
    default:
        if (index < QUEUES && virtio_dev_ring(&t.dev, index) != NULL)
            serve(index);
    }
}

static void restore(void)
{
    static struct virtio_dev_queue_regs saved[QUEUES];
    struct virtio_dev_regs reg = t.dev.reg;
    struct virtq_position at[QUEUES];
    uint8_t *bytes = (uint8_t *)&reg;

    for (unsigned i = 0; i < QUEUES; i++) {
        saved[i] = queue[i].reg;
        if (take_bytes(1) & 1)
            saved[i].size = (uint16_t)take_bytes(2);
        at[i].avail_idx = (uint16_t)take_bytes(2);
        at[i].used_idx = (uint16_t)take_bytes(2);
    }
    for (unsigned n = (unsigned)take_bytes(1) % 4; n != 0; n--)
        bytes[take_bytes(1) % offsetof(struct virtio_dev_regs, config_dirty)] = (uint8_t)take_bytes(1);
    reset_done();
    t.line = false;
    virtio_dev_init(&t.dev);
    if (virtio_dev_restore(&t.dev, &reg, saved, at) != 0)
        CHECK(t.dev.reg.status == 0 && t.dev.reg.isr == 0);
    t.pci.config[5] &= 0xfb;
    t.pci.config[t.pci.msix + 3] &= 0x7f;
}

static void power_on(void)
{
    static const struct virtio_dev_ops ops = {map,    kick,        line, msix,        features,
                                              status, queue_ready, stop, config_write};
    static const struct virtio_dev_place places[] = {
        {0x000, 64, 1, VIRTIO_VIEW_COMMON},       {0x100, 64, 1, VIRTIO_VIEW_NOTIFY},
        {0x200, 1, 1, VIRTIO_VIEW_ISR},           {0x300, 64, 1, VIRTIO_VIEW_CONFIG},
        {0x400, 32, 1, VIRTIO_VIEW_RFC_HEADER},   {0x500, 2, 1, VIRTIO_VIEW_RFC_NOTIFY},
        {0x600, 64, 1, VIRTIO_VIEW_RFC_CONFIG},   {0, 64, 0, VIRTIO_VIEW_LEGACY}};
    static const struct virtio_dev_shm shm[] = {{1, 0x1000, 0x2000}, {7, 0, 0}};
    static const uint16_t max[QUEUES] = {8, 256, 6, 0, 1};
    static const uint32_t steps[] = {0, 2, 4, 4096};

    memset(&t, 0, sizeof(t));
    t.dev.ops = &ops;
    t.dev.queue = queue;
    t.dev.queue_count = QUEUES;
    t.dev.admin_count = (uint16_t)(take_bytes(1) & 1);
    t.dev.device_type = 2;
    t.dev.offered.word[0] = (uint32_t)take_bytes(4);
    t.dev.offered.word[1] = (uint32_t)take_bytes(4);
    t.dev.config = t.config = (uint8_t *)malloc(CONFIG);
    t.dev.config_legacy = t.legacy = (uint8_t *)malloc(CONFIG);
    memset(t.config, 1, CONFIG);
    memset(t.legacy, 2, CONFIG);
    t.dev.config_length = CONFIG;
    t.dev.shm = shm;
    t.dev.shm_count = 2;
    t.dev.notify_multiplier = steps[take_bytes(1) & 3];
    t.dev.big_endian = take_bytes(1) & 1;
    t.pci.dev = &t.dev;
    t.pci.place = places;
    t.pci.place_count = 8;
    t.pci.bar_size[0] = 64;
    t.pci.bar_size[1] = 0x1000;
    t.pci.config[0x10] = 1;
    t.pci.config[0x34] = 0x40;
    memcpy(t.pci.config + 0x40, "\x11\x50\x03\x00", 4);
    memcpy(t.pci.config + 0x50, "\x09\x70\x14\x05", 4);
    memcpy(t.pci.config + 0x70, "\x09\x40\x0c\x05", 4); /* and round again */
    virtio_dev_pci_init(&t.pci);
    for (unsigned i = 0; i < QUEUES; i++)
        queue[i].max = max[i];
    virtio_dev_init(&t.dev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = data;
    input_left = size;
    queue = (struct virtio_dev_queue *)calloc(QUEUES, sizeof(*queue));
    guest = (uint8_t *)aligned_alloc(4096, GUEST_SIZE);
    memset(guest, 0, GUEST_SIZE);
    power_on();
    while (input_left != 0) {
        switch (take_bytes(1) % 14) {
        case 0: author(); break;
        case 1: bring_up(); break;
        case 2:
        case 3: program(); break;
        case 4: access_pci(); break;
        case 12: shortcut(); break;
        case 5: {
            uint64_t at = take_bytes(2);

            for (unsigned n = (unsigned)take_bytes(1) % 16; n != 0; n--)
                guest[at++ % GUEST_SIZE] = (uint8_t)take_bytes(1);
            break;
        }
        case 6:
            if (take_bytes(1) % 16 == 0)
                restore();
            break;
        default: access_view();
        }
        check();
    }
    free(t.config);
    free(t.legacy);
    free(queue);
    free(guest);
    return 0;
}
