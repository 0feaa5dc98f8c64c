// SPDX-License-Identifier: MIT-0
/* The register model of virtio.h as one side of a register trace; see trace_peers.h. */
#include <stdio.h>
#include <string.h>

#include "trace_peers.h"

enum {
    CONFIG_BYTES = 128,
    WRITABLE_BYTE = 32, /* writeback */
    LEGACY_BAR_BYTES = 128,
    PLACES_MAX = 5
};

static struct model {
    struct virtio_dev dev;
    struct virtio_dev_pci pci;
    struct virtio_dev_queue queue[TRACE_QUEUES];
    struct virtio_dev_place place[PLACES_MAX]; /* by the number of the structure, then legacy */
    uint8_t cap[5];                            /* capabilities by the number of the structure */
    enum virtio_view mmio;
    uint8_t config[CONFIG_BYTES];
    uint8_t writable_byte; /* of it, at power on */
    _Alignas(4096) uint8_t ram[TRACE_RAM_SIZE];
} model;

/* ----- the device behind the registers ----- */

static void *map(void *ctx, uint64_t addr, uint32_t len)
{
    struct model *m = ctx;

    return addr <= TRACE_RAM_SIZE && len <= TRACE_RAM_SIZE - addr ? m->ram + addr : NULL;
}

/* Answers each request with one byte; its content is not compared. */
static void kick(void *ctx, uint16_t index)
{
    struct model *m = ctx;
    struct virtq_device *ring = virtio_dev_ring(&m->dev, index);
    struct virtq_seg seg[8];
    struct virtq_chain chain = {.seg = seg, .capacity = 8};
    int got;

    if (ring == NULL)
        return;
    while ((got = virtq_device_pop(ring, &chain)) > 0)
        virtq_device_push(ring, chain.token, 1);
    virtq_device_flush(ring);
    if (virtq_device_irq_due(ring))
        virtio_dev_interrupt(&m->dev, index);
    if (got < 0)
        virtio_dev_needs_reset(&m->dev);
}

/* A reset puts the write cache back to what it was, as QEMU's does. DRIVER_OK: there may be requests
 * already. */
static void status(void *ctx, uint8_t old, uint8_t now)
{
    struct model *m = ctx;

    if (now == 0)
        m->config[WRITABLE_BYTE] = m->writable_byte;
    if ((now & ~old & VIRTIO_STATUS_DRIVER_OK) != 0) {
        for (uint16_t i = 0; i < TRACE_QUEUES; i++)
            kick(ctx, i);
    }
}

static void config_write(void *ctx, bool legacy, uint32_t offset, const uint8_t *bytes,
                         uint32_t len)
{
    struct model *m = ctx;

    (void)legacy;
    if (offset <= WRITABLE_BYTE && WRITABLE_BYTE - offset < len)
        m->config[WRITABLE_BYTE] = bytes[WRITABLE_BYTE - offset] != 0;
}

/* ----- accesses ----- */

static enum virtio_view view(enum trace_space space)
{
    switch (space) {
    case TRACE_COMMON: return VIRTIO_VIEW_COMMON;
    case TRACE_NOTIFY: return VIRTIO_VIEW_NOTIFY;
    case TRACE_ISR: return VIRTIO_VIEW_ISR;
    case TRACE_DEVICE: return VIRTIO_VIEW_CONFIG;
    default: return VIRTIO_VIEW_LEGACY;
    }
}

/* Offset in configuration space, or false if the space is somewhere else. */
static bool in_config(const struct model *m, enum trace_space space, uint32_t *offset)
{
    if (space == TRACE_CAP_WINDOW)
        *offset += m->pci.pci_cfg;
    else if (space == TRACE_CAP_MSIX)
        *offset += m->pci.msix;
    else if (space > TRACE_CAP && space < TRACE_CAP_WINDOW)
        *offset += m->cap[space - TRACE_CAP];
    else
        return space == TRACE_PCI;
    return true;
}

static uint32_t model_read(void *ctx, enum trace_space space, uint32_t offset, unsigned width)
{
    struct model *m = ctx;

    if (space == TRACE_MMIO)
        return (uint32_t)virtio_dev_read(&m->dev, m->mmio, offset, width);
    if (in_config(m, space, &offset))
        return virtio_dev_pci_read(&m->pci, offset, width);
    for (unsigned i = 0; i < m->pci.place_count; i++) {
        if (m->place[i].view == view(space))
            return (uint32_t)virtio_dev_pci_bar_read(&m->pci, m->place[i].bar,
                                                     m->place[i].offset + (uint64_t)offset, width);
    }
    return UINT32_MAX;
}

static void model_write(void *ctx, enum trace_space space, uint32_t offset, unsigned width,
                        uint32_t value)
{
    struct model *m = ctx;

    if (space == TRACE_MMIO) {
        virtio_dev_write(&m->dev, m->mmio, offset, width, value);
        return;
    }
    if (in_config(m, space, &offset)) {
        virtio_dev_pci_write(&m->pci, offset, width, value);
        return;
    }
    for (unsigned i = 0; i < m->pci.place_count; i++) {
        if (m->place[i].view == view(space))
            virtio_dev_pci_bar_write(&m->pci, m->place[i].bar,
                                     m->place[i].offset + (uint64_t)offset, width, value);
    }
}

static bool model_line(void *ctx)
{
    return ((struct model *)ctx)->dev.line;
}

static void model_settle(void *ctx, const uint8_t *used, uint16_t idx)
{
    (void)ctx; /* it answers within the kick */
    (void)used;
    (void)idx;
}

/* ----- the same device as QEMU's ----- */

static uint32_t ask(struct trace_peer *qemu, enum trace_space space, uint32_t offset,
                    unsigned width)
{
    return qemu->read(qemu->ctx, space, offset, width);
}

/* A feature word of QEMU's device, whose selector is left at 0. */
static uint32_t ask_features(struct trace_peer *qemu, enum trace_space space, uint32_t select,
                             uint32_t value, uint32_t word)
{
    uint32_t bits;

    qemu->write(qemu->ctx, space, select, 4, word);
    bits = ask(qemu, space, value, 4);
    qemu->write(qemu->ctx, space, select, 4, 0);
    return bits;
}

/* Device configuration; what lies behind it reads as all ones. */
static void copy_config(struct model *m, struct trace_peer *qemu, enum trace_space space,
                        uint32_t at)
{
    for (unsigned i = 0; i < CONFIG_BYTES / 2; i++) {
        m->config[i] = (uint8_t)ask(qemu, space, at + i, 1);
        if (m->config[i] != 0xff)
            m->dev.config_length = i + 1;
    }
    m->dev.config = m->config;
}

static void add_place(struct model *m, enum virtio_view which, unsigned bar, uint32_t offset,
                      uint32_t length)
{
    struct virtio_dev_place *place = &m->place[m->pci.place_count++];

    place->view = (uint8_t)which;
    place->bar = (uint8_t)bar;
    place->offset = offset;
    place->length = length;
}

/* The structures where QEMU has them, with QEMU's lengths. */
static void add_structures(struct model *m)
{
    static const enum virtio_view views[] = {VIRTIO_VIEW_COMMON, VIRTIO_VIEW_COMMON,
                                             VIRTIO_VIEW_NOTIFY, VIRTIO_VIEW_ISR,
                                             VIRTIO_VIEW_CONFIG};
    struct virtio_pci_config config = {virtio_pci_image_read32, NULL, m->pci.config};
    struct virtio_pci_capability cap;
    struct virtio_pci_walk walk;

    virtio_pci_walk_begin(&walk, &config);
    while (virtio_pci_walk_next(&walk, &cap) > 0) {
        if (cap.type < VIRTIO_PCI_STRUCT_COMMON || cap.type > VIRTIO_PCI_STRUCT_DEVICE)
            continue;
        m->cap[cap.type] = cap.at;
        add_place(m, views[cap.type], cap.bar, (uint32_t)cap.offset, (uint32_t)cap.length);
        if (cap.type == VIRTIO_PCI_STRUCT_NOTIFY)
            m->dev.notify_multiplier = cap.extra;
    }
}

/* Sizes as QEMU tells them to somebody who asks with all ones; what was assigned is put back. */
static void copy_bars(struct model *m, struct trace_peer *qemu)
{
    uint32_t command = ask(qemu, TRACE_PCI, 4, 2);

    qemu->write(qemu->ctx, TRACE_PCI, 4, 2, 0);
    for (unsigned i = 0; i < 6; i++) {
        uint32_t at = 16 + 4 * i, assigned = ask(qemu, TRACE_PCI, at, 4), bits;

        qemu->write(qemu->ctx, TRACE_PCI, at, 4, UINT32_MAX);
        bits = ask(qemu, TRACE_PCI, at, 4);
        qemu->write(qemu->ctx, TRACE_PCI, at, 4, assigned);
        bits &= bits & 1 ? ~3u : ~15u;
        m->pci.bar_size[i] = bits & (~bits + 1);
        if ((assigned & 7) == 4)
            i++; /* its upper half: below 4 GiB */
    }
    qemu->write(qemu->ctx, TRACE_PCI, 4, 2, command);
}

static void copy_pci(struct model *m, struct trace_peer *qemu, enum trace_device device)
{
    struct virtio_dev *dev = &m->dev;

    for (unsigned i = 0; i < VIRTIO_DEV_PCI_CONFIG; i++)
        m->pci.config[i] = (uint8_t)ask(qemu, TRACE_PCI, i, 1);
    copy_bars(m, qemu);
    m->pci.dev = dev;
    m->pci.place = m->place;
    if (device != TRACE_PCI_LEGACY) {
        add_structures(m);
        for (unsigned i = 0; i < 2; i++)
            dev->offered.word[i] = ask_features(qemu, TRACE_COMMON, 0, 4, i);
        copy_config(m, qemu, TRACE_DEVICE, 0);
    }
    if (device != TRACE_PCI_MODERN) {
        add_place(m, VIRTIO_VIEW_LEGACY, 0, 0, LEGACY_BAR_BYTES);
        dev->offered.word[0] |= ask(qemu, TRACE_LEGACY, 0, 4);
        copy_config(m, qemu, TRACE_LEGACY, VIRTIO_LEGACY_CONFIG);
    }
}

static void copy_mmio(struct model *m, struct trace_peer *qemu)
{
    for (unsigned i = 0; i < 2; i++)
        m->dev.offered.word[i] = ask_features(qemu, TRACE_MMIO, 0x14, 0x10, i);
    m->dev.vendor_id = ask(qemu, TRACE_MMIO, VIRTIO_MMIO_REG_VENDOR_ID, 4);
    copy_config(m, qemu, TRACE_MMIO, VIRTIO_MMIO_REG_CONFIG);
}

int trace_model_open(struct trace_peer *peer, enum trace_device device, struct trace_peer *qemu)
{
    static const struct virtio_dev_ops ops = {
        .map = map, .kick = kick, .status = status, .config_write = config_write};
    struct model *m = &model;
    bool pci = device <= TRACE_PCI_LEGACY;

    memset(m, 0, sizeof(*m));
    m->mmio = device == TRACE_MMIO_V1 ? VIRTIO_VIEW_MMIO_V1 : VIRTIO_VIEW_MMIO;
    m->dev.ops = &ops;
    m->dev.ctx = m;
    m->dev.device_type = 2;
    m->dev.queue = m->queue;
    m->dev.queue_count = TRACE_QUEUES;
    for (unsigned i = 0; i < TRACE_QUEUES; i++)
        m->queue[i].max = (uint16_t)(pci ? TRACE_ENTRIES : ask(qemu, TRACE_MMIO, 0x34, 4));
    if (pci)
        copy_pci(m, qemu, device);
    else
        copy_mmio(m, qemu);
    m->writable_byte = m->config[WRITABLE_BYTE];
    virtio_dev_init(&m->dev);
    if (pci)
        virtio_dev_pci_init(&m->pci);
    peer->ctx = m;
    peer->read = model_read;
    peer->write = model_write;
    peer->line = model_line;
    peer->settle = model_settle;
    peer->ram = m->ram;
    return 0;
}
