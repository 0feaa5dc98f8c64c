// SPDX-License-Identifier: MIT-0
/* The script for virtio-mmio, both versions: every register of the map read and written. */
#include <stdio.h>

#include "trace.h"

enum { ACK = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

static void set(struct trace *t, uint32_t offset, uint32_t value)
{
    trace_write(t, TRACE_MMIO, offset, 4, value);
}

static void get(struct trace *t, uint32_t offset, const char *label)
{
    trace_read(t, TRACE_MMIO, offset, 4, "%s", label);
}

static void reset(struct trace *t)
{
    set(t, VIRTIO_MMIO_REG_STATUS, 0);
    trace_clear_ring(t);
}

static void accept_word(struct trace *t, uint32_t word, uint32_t value)
{
    set(t, VIRTIO_MMIO_REG_DRIVER_FEATURES_SEL, word);
    set(t, VIRTIO_MMIO_REG_DRIVER_FEATURES, value);
}

static void negotiate(struct trace *t, bool legacy)
{
    reset(t);
    set(t, VIRTIO_MMIO_REG_STATUS, ACK);
    set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER);
    accept_word(t, 0, 0);
    accept_word(t, 1, legacy ? 0 : 1);
    if (!legacy)
        set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER | FEATURES_OK);
}

static void enable_queue(struct trace *t, bool legacy, uint32_t index)
{
    set(t, VIRTIO_MMIO_REG_QUEUE_SEL, index);
    set(t, VIRTIO_MMIO_REG_QUEUE_SIZE, TRACE_ENTRIES);
    if (legacy) {
        set(t, VIRTIO_MMIO_REG_GUEST_PAGE_SIZE, 4096);
        set(t, VIRTIO_MMIO_REG_QUEUE_ALIGN, 4096);
        set(t, VIRTIO_MMIO_REG_QUEUE_PFN, TRACE_DESC / 4096);
        return;
    }
    set(t, VIRTIO_MMIO_REG_QUEUE_DESC, TRACE_DESC);
    set(t, VIRTIO_MMIO_REG_QUEUE_DESC + 4, 0);
    set(t, VIRTIO_MMIO_REG_QUEUE_DRIVER, TRACE_DRIVER_AREA);
    set(t, VIRTIO_MMIO_REG_QUEUE_DRIVER + 4, 0);
    set(t, VIRTIO_MMIO_REG_QUEUE_DEVICE, TRACE_DEVICE_AREA);
    set(t, VIRTIO_MMIO_REG_QUEUE_DEVICE + 4, 0);
    set(t, VIRTIO_MMIO_REG_QUEUE_READY, 1);
}

static void run_device(struct trace *t, bool legacy)
{
    negotiate(t, legacy);
    enable_queue(t, legacy, 0);
    set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER | (legacy ? 0u : FEATURES_OK) | DRIVER_OK);
}

static void kick(struct trace *t)
{
    set(t, VIRTIO_MMIO_REG_QUEUE_NOTIFY, 0);
    trace_settle(t);
}

/* Every dword of the register map, whether there is a register or not. */
static void map(struct trace *t, const char *when)
{
    for (unsigned i = 0; i < 0x100; i += 4)
        trace_read(t, TRACE_MMIO, i, 4, "0x%03x %s", i, when);
}

static void maps(struct trace *t, bool legacy)
{
    trace_section(t, "register map");
    map(t, "at power-on");
    reset(t);
    map(t, "after a reset");
    run_device(t, legacy);
    map(t, "of a running device");
    reset(t);
    map(t, "after the reset of a running device");
}

static void other_widths(struct trace *t, bool legacy)
{
    static const uint8_t widths[] = {1, 2};

    trace_section(t, "registers in other widths");
    run_device(t, legacy);
    for (unsigned w = 0; w < 2; w++) {
        for (unsigned i = 0; i < 0x100; i += widths[w])
            trace_read(t, TRACE_MMIO, i, widths[w], "%u bytes at 0x%03x", widths[w], i);
    }
    trace_write(t, TRACE_MMIO, VIRTIO_MMIO_REG_STATUS, 1, 0);
    get(t, VIRTIO_MMIO_REG_STATUS, "Status after a write of 1 byte");
    trace_write(t, TRACE_MMIO, VIRTIO_MMIO_REG_STATUS, 2, 0);
    get(t, VIRTIO_MMIO_REG_STATUS, "Status after a write of 2 bytes");
    trace_read(t, TRACE_MMIO, 2, 4, "4 bytes at 0x002");
    trace_read(t, TRACE_MMIO, 0x71, 4, "4 bytes at 0x071");
    reset(t);
}

/* Ones to each register that the driver must not write, and to what is none. */
static void read_only(struct trace *t, bool legacy)
{
    static const uint16_t offsets[] = {0x000, 0x004, 0x008, 0x00c, 0x010, 0x018, 0x034, 0x048,
                                       0x060, 0x0b0, 0x0b4, 0x0b8, 0x0bc, 0x0c4, 0x0fc};

    trace_section(t, "registers the driver only reads");
    run_device(t, legacy);
    for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        set(t, offsets[i], 0xffffffff);
        trace_read(t, TRACE_MMIO, offsets[i], 4, "0x%03x after a write", offsets[i]);
    }
    get(t, VIRTIO_MMIO_REG_STATUS, "Status after them");
    reset(t);
}

static void status(struct trace *t)
{
    static const uint32_t values[] = {DRIVER, DRIVER_OK, FEATURES_OK, 0x10, 0x20,
                                      0x40,   0x80,      0xff,        0x100, 0x103};
    static const uint8_t order[] = {1, 3, 1, 7, 3, 0x43, 0x83, 3};

    trace_section(t, "Status");
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        reset(t);
        set(t, VIRTIO_MMIO_REG_STATUS, values[i]);
        trace_read(t, TRACE_MMIO, 0x70, 4, "0x%02x written after a reset", values[i]);
    }
    reset(t);
    for (unsigned i = 0; i < sizeof(order); i++) {
        set(t, VIRTIO_MMIO_REG_STATUS, order[i]);
        trace_read(t, TRACE_MMIO, 0x70, 4, "0x%02x written as %u in order", order[i], i + 1);
    }
    reset(t);
    get(t, VIRTIO_MMIO_REG_STATUS, "after a reset");
}

static void features(struct trace *t)
{
    static const uint32_t selectors[] = {0, 1, 2, 3, 4, 5, 0xffffffff};

    trace_section(t, "features");
    reset(t);
    for (unsigned i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++) {
        uint32_t word;

        set(t, VIRTIO_MMIO_REG_DEVICE_FEATURES_SEL, selectors[i]);
        word = trace_read(t, TRACE_MMIO, 0x10, 4, "DeviceFeatures, word 0x%x", selectors[i]);
        if (i < 2)
            t->offered[i] = word;
        trace_read(t, TRACE_MMIO, 0x14, 4, "DeviceFeaturesSel, 0x%x written", selectors[i]);
    }
    for (unsigned i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++) {
        accept_word(t, selectors[i], 0xffffffff);
        trace_read(t, TRACE_MMIO, 0x20, 4, "DriverFeatures, word 0x%x", selectors[i]);
        trace_read(t, TRACE_MMIO, 0x24, 4, "DriverFeaturesSel, 0x%x written", selectors[i]);
    }
}

static void try_features(struct trace *t, uint32_t low, uint32_t high, const char *what)
{
    reset(t);
    set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER);
    accept_word(t, 0, low);
    accept_word(t, 1, high);
    set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER | FEATURES_OK);
    trace_read(t, TRACE_MMIO, 0x70, 4, "Status after FEATURES_OK, %s", what);
}

static void negotiation(struct trace *t)
{
    uint32_t low = t->offered[0], high = t->offered[1];

    trace_section(t, "negotiation");
    try_features(t, low, high, "all that is offered accepted");
    try_features(t, 0, 1, "VERSION_1 alone");
    try_features(t, low, high & ~1u, "all but VERSION_1");
    try_features(t, 0, 0, "nothing accepted");
    try_features(t, low | 1u << 31, high, "a bit of word 0 that is not offered");
    try_features(t, low, high | 1u << 31, "a bit of word 1 that is not offered");
    try_features(t, 0, 1, "VERSION_1 alone again");
    set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER);
    get(t, VIRTIO_MMIO_REG_STATUS, "Status with FEATURES_OK cleared by the driver");
    set(t, VIRTIO_MMIO_REG_STATUS, 0x80 | ACK);
    get(t, VIRTIO_MMIO_REG_STATUS, "Status with FAILED");
    reset(t);
}

/* Per-queue registers that can be read. */
static void read_queue(struct trace *t, bool legacy, const char *when)
{
    trace_read(t, TRACE_MMIO, 0x34, 4, "QueueSizeMax %s", when);
    trace_read(t, TRACE_MMIO, 0x44, 4, "QueueReady %s", when);
    if (legacy)
        trace_read(t, TRACE_MMIO, 0x40, 4, "QueuePFN %s", when);
    else
        trace_read(t, TRACE_MMIO, 0xc0, 4, "QueueReset %s", when);
    trace_read(t, TRACE_MMIO, 0x70, 4, "Status %s", when);
}

static void queues(struct trace *t, bool legacy)
{
    static const uint32_t indices[] = {0, 1, 2, 1023, 1024, 0xffff, 0x10000, 0xffffffff};
    char when[40];

    trace_section(t, "queues");
    negotiate(t, legacy);
    for (unsigned i = 0; i < sizeof(indices) / sizeof(indices[0]); i++) {
        set(t, VIRTIO_MMIO_REG_QUEUE_SEL, indices[i]);
        (void)snprintf(when, sizeof(when), "of queue %u", indices[i]);
        read_queue(t, legacy, when);
    }
    enable_queue(t, legacy, 0);
    read_queue(t, legacy, "set up");
    set(t, VIRTIO_MMIO_REG_QUEUE_SEL, 1);
    read_queue(t, legacy, "of the other queue");
    enable_queue(t, legacy, 2);
    read_queue(t, legacy, "of a queue that is not there, set up");
    set(t, VIRTIO_MMIO_REG_QUEUE_SEL, 0);
    read_queue(t, legacy, "selected again");
    reset(t);
    set(t, VIRTIO_MMIO_REG_QUEUE_SEL, 0);
    read_queue(t, legacy, "after a reset");
}

static void queue_sizes(struct trace *t, bool legacy)
{
    static const uint32_t sizes[] = {0, 1, 3, 100, 256, 257, 1024, 1025, 65536};
    char when[48];

    trace_section(t, "QueueSize");
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        negotiate(t, legacy);
        set(t, VIRTIO_MMIO_REG_QUEUE_SEL, 0);
        set(t, VIRTIO_MMIO_REG_QUEUE_SIZE, sizes[i]);
        (void)snprintf(when, sizeof(when), "with QueueSize %u", sizes[i]);
        read_queue(t, legacy, when);
        set(t, VIRTIO_MMIO_REG_GUEST_PAGE_SIZE, 4096);
        set(t, VIRTIO_MMIO_REG_QUEUE_ALIGN, 4096);
        set(t, legacy ? VIRTIO_MMIO_REG_QUEUE_PFN : VIRTIO_MMIO_REG_QUEUE_READY,
            legacy ? TRACE_DESC / 4096 : 1);
        (void)snprintf(when, sizeof(when), "with QueueSize %u, enabled", sizes[i]);
        read_queue(t, legacy, when);
    }
    reset(t);
}

static void queue_ready(struct trace *t)
{
    static const uint32_t values[] = {0, 1, 2, 0xffffffff, 0};

    trace_section(t, "QueueReady");
    negotiate(t, false);
    enable_queue(t, false, 0);
    for (unsigned i = 0; i < 5; i++) {
        set(t, VIRTIO_MMIO_REG_QUEUE_READY, values[i]);
        trace_read(t, TRACE_MMIO, 0x44, 4, "0x%x written as %u", values[i], i + 1);
    }
    set(t, VIRTIO_MMIO_REG_QUEUE_READY, 1);
    get(t, VIRTIO_MMIO_REG_QUEUE_READY, "1 written after 0");
    reset(t);
    get(t, VIRTIO_MMIO_REG_QUEUE_READY, "after a reset");
    set(t, VIRTIO_MMIO_REG_QUEUE_READY, 1);
    get(t, VIRTIO_MMIO_REG_QUEUE_READY, "1 written before anything else");
    reset(t);
}

static void queue_pfn(struct trace *t)
{
    trace_section(t, "QueuePFN");
    negotiate(t, true);
    set(t, VIRTIO_MMIO_REG_QUEUE_SEL, 0);
    set(t, VIRTIO_MMIO_REG_QUEUE_SIZE, 16);
    set(t, VIRTIO_MMIO_REG_QUEUE_ALIGN, 4096);
    set(t, VIRTIO_MMIO_REG_GUEST_PAGE_SIZE, 0);
    set(t, VIRTIO_MMIO_REG_QUEUE_PFN, TRACE_DESC / 4096);
    get(t, VIRTIO_MMIO_REG_QUEUE_PFN, "with page size 0");
    negotiate(t, true);
    set(t, VIRTIO_MMIO_REG_GUEST_PAGE_SIZE, 3000);
    set(t, VIRTIO_MMIO_REG_QUEUE_PFN, TRACE_DESC / 4096);
    get(t, VIRTIO_MMIO_REG_QUEUE_PFN, "with page size 3000");
    negotiate(t, true);
    set(t, VIRTIO_MMIO_REG_GUEST_PAGE_SIZE, 4096);
    set(t, VIRTIO_MMIO_REG_QUEUE_ALIGN, 3000);
    set(t, VIRTIO_MMIO_REG_QUEUE_PFN, TRACE_DESC / 4096);
    get(t, VIRTIO_MMIO_REG_QUEUE_PFN, "with alignment 3000");
    negotiate(t, true);
    set(t, VIRTIO_MMIO_REG_GUEST_PAGE_SIZE, 4096);
    set(t, VIRTIO_MMIO_REG_QUEUE_ALIGN, 4096);
    set(t, VIRTIO_MMIO_REG_QUEUE_PFN, TRACE_DESC / 4096);
    get(t, VIRTIO_MMIO_REG_QUEUE_PFN, "written");
    set(t, VIRTIO_MMIO_REG_GUEST_PAGE_SIZE, 8192);
    get(t, VIRTIO_MMIO_REG_QUEUE_PFN, "after another page size");
    set(t, VIRTIO_MMIO_REG_QUEUE_PFN, 0);
    get(t, VIRTIO_MMIO_REG_QUEUE_PFN, "0 written");
    get(t, VIRTIO_MMIO_REG_STATUS, "Status after 0");
    set(t, VIRTIO_MMIO_REG_QUEUE_PFN, 0xffffffff);
    get(t, VIRTIO_MMIO_REG_QUEUE_PFN, "ones written");
    reset(t);
    get(t, VIRTIO_MMIO_REG_QUEUE_PFN, "after a reset");
}

/* QueueReset, which the specification has and QEMU does not. */
static void queue_reset(struct trace *t)
{
    trace_section(t, "QueueReset");
    negotiate(t, false);
    reset(t);
    set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER);
    accept_word(t, 0, 0);
    accept_word(t, 1, 1u | (t->offered[1] & 1u << (VIRTIO_FEATURE_RING_RESET - 32)));
    set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER | FEATURES_OK);
    enable_queue(t, false, 0);
    set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    set(t, VIRTIO_MMIO_REG_QUEUE_RESET, 1);
    read_queue(t, false, "after a queue reset");
    reset(t);
}

static void shared_memory(struct trace *t)
{
    static const uint32_t ids[] = {0, 1, 255, 0xffffffff};

    trace_section(t, "shared memory");
    for (unsigned i = 0; i < 4; i++) {
        set(t, VIRTIO_MMIO_REG_SHM_SEL, ids[i]);
        for (unsigned k = 0; k < 4; k++)
            trace_read(t, TRACE_MMIO, 0xb0 + 4 * k, 4, "0x%03x of region 0x%x", 0xb0 + 4 * k,
                       ids[i]);
    }
}

static void interrupts(struct trace *t, bool legacy)
{
    trace_section(t, "interrupts");
    run_device(t, legacy);
    get(t, VIRTIO_MMIO_REG_IRQ_STATUS, "InterruptStatus at first");
    trace_line(t, "line at first");
    trace_request(t);
    kick(t);
    trace_line(t, "line after a request");
    get(t, VIRTIO_MMIO_REG_IRQ_STATUS, "InterruptStatus after a request");
    get(t, VIRTIO_MMIO_REG_IRQ_STATUS, "InterruptStatus read again");
    set(t, VIRTIO_MMIO_REG_IRQ_ACK, 0);
    get(t, VIRTIO_MMIO_REG_IRQ_STATUS, "InterruptStatus, 0 acknowledged");
    set(t, VIRTIO_MMIO_REG_IRQ_ACK, 2);
    get(t, VIRTIO_MMIO_REG_IRQ_STATUS, "InterruptStatus, the other cause acknowledged");
    trace_line(t, "line, the other cause acknowledged");
    set(t, VIRTIO_MMIO_REG_IRQ_ACK, 1);
    get(t, VIRTIO_MMIO_REG_IRQ_STATUS, "InterruptStatus acknowledged");
    trace_line(t, "line acknowledged");
    trace_request(t);
    kick(t);
    set(t, VIRTIO_MMIO_REG_IRQ_ACK, 0xffffffff);
    get(t, VIRTIO_MMIO_REG_IRQ_STATUS, "InterruptStatus, ones acknowledged");
    trace_request(t);
    kick(t);
    reset(t);
    get(t, VIRTIO_MMIO_REG_IRQ_STATUS, "InterruptStatus after a reset");
    trace_line(t, "line after a reset");
    run_device(t, legacy);
    trace_break_ring(t);
    kick(t);
    get(t, VIRTIO_MMIO_REG_STATUS, "Status with a broken ring");
    get(t, VIRTIO_MMIO_REG_IRQ_STATUS, "InterruptStatus with a broken ring");
    trace_line(t, "line with a broken ring");
    set(t, VIRTIO_MMIO_REG_STATUS, ACK | DRIVER | (legacy ? 0u : FEATURES_OK) | DRIVER_OK);
    get(t, VIRTIO_MMIO_REG_STATUS, "Status with a broken ring, written without NEEDS_RESET");
    reset(t);
    get(t, VIRTIO_MMIO_REG_STATUS, "Status after the reset of a broken device");
    run_device(t, legacy);
    set(t, VIRTIO_MMIO_REG_QUEUE_NOTIFY, 2);
    set(t, VIRTIO_MMIO_REG_QUEUE_NOTIFY, 0xffffffff);
    get(t, VIRTIO_MMIO_REG_STATUS, "Status after kicks of queues that are not there");
    reset(t);
}

static void config(struct trace *t, bool legacy)
{
    trace_section(t, "device configuration");
    negotiate(t, legacy);
    script_config(t, TRACE_MMIO, VIRTIO_MMIO_REG_CONFIG);
    get(t, VIRTIO_MMIO_REG_CONFIG_GENERATION, "ConfigGeneration");
    reset(t);
}

void script_mmio(struct trace *t, bool legacy)
{
    maps(t, legacy);
    other_widths(t, legacy);
    read_only(t, legacy);
    status(t);
    features(t);
    negotiation(t);
    queues(t, legacy);
    queue_sizes(t, legacy);
    if (legacy)
        queue_pfn(t);
    else
        queue_ready(t);
    if (!legacy)
        queue_reset(t);
    shared_memory(t);
    config(t, legacy);
    interrupts(t, legacy);
}
