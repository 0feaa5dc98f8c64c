// SPDX-License-Identifier: MIT-0
/* A block device of QEMU as one side of a register trace; see trace_peers.h. */
#include <stdio.h>
#include <string.h>

#include "examples/hosts/qtest_pci.h"
#include "trace_peers.h"

enum { SETTLE_LOOKS = 20000, SETTLE_TURNS = 30 };

const char *const trace_device_names[TRACE_DEVICES] = {
    "pci-modern", "pci-transitional", "pci-legacy", "mmio-v2", "mmio-v1"};

static struct side {
    struct qtest qtest;
    bool pci;
    unsigned devfn;
    struct virtio_pci_bar bars[6];
    struct virtio_pci_layout layout;
    uint64_t slot; /* virtio-mmio */
    unsigned line;
} side;

/* ----- accesses ----- */

/* Where a space is. */
enum reach { REACH_NONE, REACH_CONFIG, REACH_PORT, REACH_MEMORY };

static enum reach in_bar(const struct side *s, unsigned bar, uint64_t offset, uint64_t *at)
{
    if (s->bars[bar].kind == VIRTIO_PCI_BAR_NONE)
        return REACH_NONE;
    *at = s->bars[bar].base + offset;
    return s->bars[bar].kind == VIRTIO_PCI_BAR_IO ? REACH_PORT : REACH_MEMORY;
}

static enum reach structure(const struct side *s, unsigned type, uint32_t offset, uint64_t *at)
{
    const struct virtio_pci_place *place = &s->layout.place[type];

    if (place->found != VIRTIO_PCI_MODERN)
        return REACH_NONE;
    return in_bar(s, place->bar, place->offset + (uint64_t)offset, at);
}

static enum reach capability(unsigned cap, uint32_t offset, uint64_t *at)
{
    *at = cap + offset;
    return cap != 0 ? REACH_CONFIG : REACH_NONE;
}

static enum reach resolve(const struct side *s, enum trace_space space, uint32_t offset,
                          uint64_t *at)
{
    *at = offset;
    switch (space) {
    case TRACE_PCI: return s->pci ? REACH_CONFIG : REACH_NONE;
    case TRACE_CAP_WINDOW: return capability(s->layout.pci_cfg, offset, at);
    case TRACE_CAP_MSIX: return capability(s->layout.msix, offset, at);
    case TRACE_COMMON: return structure(s, VIRTIO_PCI_STRUCT_COMMON, offset, at);
    case TRACE_NOTIFY: return structure(s, VIRTIO_PCI_STRUCT_NOTIFY, offset, at);
    case TRACE_ISR: return structure(s, VIRTIO_PCI_STRUCT_ISR, offset, at);
    case TRACE_DEVICE: return structure(s, VIRTIO_PCI_STRUCT_DEVICE, offset, at);
    case TRACE_LEGACY: return in_bar(s, 0, offset, at);
    case TRACE_MMIO: *at += s->slot; return s->slot != 0 ? REACH_MEMORY : REACH_NONE;
    default: return capability(s->layout.place[space - TRACE_CAP].cap, offset, at);
    }
}

static uint32_t qemu_read(void *ctx, enum trace_space space, uint32_t offset, unsigned width)
{
    struct side *s = ctx;
    uint64_t at;

    switch (resolve(s, space, offset, &at)) {
    case REACH_CONFIG: return qtest_pci_read(&s->qtest, s->devfn, (uint16_t)at, width);
    case REACH_PORT: return qtest_in(&s->qtest, (uint16_t)at, width);
    case REACH_MEMORY: return qtest_read(&s->qtest, at, width);
    default: return UINT32_MAX;
    }
}

static void qemu_write(void *ctx, enum trace_space space, uint32_t offset, unsigned width,
                       uint32_t value)
{
    struct side *s = ctx;
    uint64_t at;

    switch (resolve(s, space, offset, &at)) {
    case REACH_CONFIG: qtest_pci_write(&s->qtest, s->devfn, (uint16_t)at, width, value); break;
    case REACH_PORT: qtest_out(&s->qtest, (uint16_t)at, width, value); break;
    case REACH_MEMORY: qtest_write(&s->qtest, at, width, value); break;
    default: break;
    }
}

/* Lets QEMU's main loop go round: kicks and interrupts may be put off by a turn. */
static void turns(struct side *s)
{
    for (unsigned i = 0; i < SETTLE_TURNS; i++)
        (void)qtest_read(&s->qtest, TRACE_RAM_SIZE - 4, 4);
}

static bool qemu_line(void *ctx)
{
    struct side *s = ctx;

    turns(s);
    return qtest_irq_level(&s->qtest, s->line);
}

static void qemu_settle(void *ctx, const uint8_t *used, uint16_t idx)
{
    const volatile uint8_t *at = used;
    struct side *s = ctx;

    for (unsigned i = 0; i < SETTLE_LOOKS && (at[0] | at[1] << 8) != idx; i++)
        (void)qtest_read(&s->qtest, TRACE_RAM_SIZE - 4, 4);
    turns(s);
}

/* ----- start and end ----- */

static int find_pci(struct side *s)
{
    struct qtest_pci_function function = {.qtest = &s->qtest};
    struct virtio_pci_config config;

    if (qtest_pci_find(&s->qtest, 0x1af4, 0x1000, 0x107f, &s->devfn) != 0 ||
        qtest_pci_enable(&s->qtest, s->devfn, s->bars) != 0)
        return -1;
    function.devfn = s->devfn;
    config = qtest_pci_config(&function);
    s->line = qtest_pci_read(&s->qtest, s->devfn, 0x3c, 1);
    return virtio_pci_scan(&s->layout, &config, s->bars, 0);
}

static void find_mmio(struct side *s)
{
    struct qtest_slots slots = qtest_slots(&s->qtest);

    s->slot = slots.base + (uint64_t)(slots.count - 1) * QTEST_SLOT_SIZE;
    s->line = slots.line + slots.count - 1;
}

int trace_qemu_open(struct trace_peer *peer, enum trace_device device)
{
    static const char *const forms[TRACE_DEVICES] = {
        "virtio-blk-pci,addr=3,vectors=3,disable-legacy=on,disable-modern=off",
        "virtio-blk-pci,addr=3,vectors=3,disable-legacy=off,disable-modern=off",
        "virtio-blk-pci,addr=3,vectors=3,disable-legacy=off,disable-modern=on",
        "virtio-blk-device", "virtio-blk-device"};
    const char *version = device == TRACE_MMIO_V1 ? "virtio-mmio.force-legacy=true"
                                                  : "virtio-mmio.force-legacy=false";
    char text[256];
    const char *const extra[] = {
        "-blockdev", "driver=null-co,node-name=disk,size=4194304,read-zeroes=on",
        "-global",   version,
        "-device",   text,
        NULL};
    struct qtest_options options = {.machine = QTEST_Q35, .ram_size = TRACE_RAM_SIZE};
    struct side *s = &side;

    memset(s, 0, sizeof(*s));
    s->pci = device <= TRACE_PCI_LEGACY;
    options.extra = extra;
    if (!s->pci)
        options.machine = QTEST_MICROVM;
    (void)snprintf(text, sizeof(text), "%s,drive=disk,num-queues=%d,queue-size=%d,packed=on%s",
                   forms[device], TRACE_QUEUES, TRACE_ENTRIES,
                   device == TRACE_PCI_LEGACY || device == TRACE_MMIO_V1 ? ",packed=off" : "");
    if (qtest_start(&s->qtest, &options) == 0 && qtest_irq_intercept(&s->qtest) == 0) {
        if (!s->pci)
            find_mmio(s);
        else if (find_pci(s) != 0 && qtest_error(&s->qtest) == NULL)
            (void)fprintf(stderr, "trace: QEMU's device was not found\n");
    }
    peer->ctx = s;
    peer->read = qemu_read;
    peer->write = qemu_write;
    peer->line = qemu_line;
    peer->settle = qemu_settle;
    peer->ram = qtest_ram(&s->qtest);
    return qtest_error(&s->qtest) == NULL ? 0 : trace_qemu_close(peer);
}

int trace_qemu_close(struct trace_peer *peer)
{
    struct side *s = peer->ctx;
    const char *error = qtest_error(&s->qtest);

    if (error != NULL)
        (void)fprintf(stderr, "trace: %s\n", error);
    qtest_stop(&s->qtest);
    return error == NULL ? 0 : -1;
}
