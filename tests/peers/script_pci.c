// SPDX-License-Identifier: MIT-0
/* Scripts for PCI: common configuration and its neighbours, the legacy BAR, configuration space. */
#include <stdio.h>

#include "trace.h"

enum { ACK = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

/* ----- the registers of common configuration ----- */

struct reg {
    const char *name;
    uint16_t offset;
    uint8_t width;
};

static const struct reg common_regs[] = {{"device_feature_select", 0, 4},
                                         {"device_feature", 4, 4},
                                         {"driver_feature_select", 8, 4},
                                         {"driver_feature", 12, 4},
                                         {"config_msix_vector", 16, 2},
                                         {"num_queues", 18, 2},
                                         {"device_status", 20, 1},
                                         {"config_generation", 21, 1},
                                         {"queue_select", 22, 2},
                                         {"queue_size", 24, 2},
                                         {"queue_msix_vector", 26, 2},
                                         {"queue_enable", 28, 2},
                                         {"queue_notify_off", 30, 2},
                                         {"queue_desc low", 32, 4},
                                         {"queue_desc high", 36, 4},
                                         {"queue_driver low", 40, 4},
                                         {"queue_driver high", 44, 4},
                                         {"queue_device low", 48, 4},
                                         {"queue_device high", 52, 4},
                                         {"queue_notif_config_data", 56, 2},
                                         {"queue_reset", 58, 2}};
enum { COMMON_REGS = sizeof(common_regs) / sizeof(common_regs[0]), FIRST_QUEUE_REG = 9 };

static void set(struct trace *t, uint32_t offset, unsigned width, uint32_t value)
{
    trace_write(t, TRACE_COMMON, offset, width, value);
}

static void status_write(struct trace *t, uint8_t value)
{
    set(t, VIRTIO_COMMON_DEVICE_STATUS, 1, value);
}

static uint32_t status_read(struct trace *t, const char *when)
{
    return trace_read(t, TRACE_COMMON, VIRTIO_COMMON_DEVICE_STATUS, 1, "device_status %s", when);
}

static void reset(struct trace *t)
{
    status_write(t, 0);
    trace_clear_ring(t);
}

static void accept_word(struct trace *t, uint32_t word, uint32_t value)
{
    set(t, VIRTIO_COMMON_DRIVER_FEATURE_SELECT, 4, word);
    set(t, VIRTIO_COMMON_DRIVER_FEATURE, 4, value);
}

static void accept_features(struct trace *t, uint32_t low, uint32_t high)
{
    accept_word(t, 0, low);
    accept_word(t, 1, high);
}

/* Reset to FEATURES_OK with VERSION_1 and the further features of word 1. */
static void negotiate(struct trace *t, uint32_t high)
{
    reset(t);
    status_write(t, ACK);
    status_write(t, ACK | DRIVER);
    accept_features(t, 0, 1u | high);
    status_write(t, ACK | DRIVER | FEATURES_OK);
}

static uint32_t bit_of_word_1(unsigned bit)
{
    return 1u << (bit - 32);
}

static void select_queue(struct trace *t, uint16_t index)
{
    set(t, VIRTIO_COMMON_QUEUE_SELECT, 2, index);
}

static void queue_addresses(struct trace *t)
{
    set(t, VIRTIO_COMMON_QUEUE_DESC, 4, TRACE_DESC);
    set(t, VIRTIO_COMMON_QUEUE_DESC + 4, 4, 0);
    set(t, VIRTIO_COMMON_QUEUE_DRIVER, 4, TRACE_DRIVER_AREA);
    set(t, VIRTIO_COMMON_QUEUE_DRIVER + 4, 4, 0);
    set(t, VIRTIO_COMMON_QUEUE_DEVICE, 4, TRACE_DEVICE_AREA);
    set(t, VIRTIO_COMMON_QUEUE_DEVICE + 4, 4, 0);
}

static void enable_queue(struct trace *t, uint16_t index)
{
    select_queue(t, index);
    set(t, VIRTIO_COMMON_QUEUE_SIZE, 2, TRACE_ENTRIES);
    queue_addresses(t);
    set(t, VIRTIO_COMMON_QUEUE_ENABLE, 2, 1);
}

/* A running device with queue 0. */
static void run_device(struct trace *t, uint32_t high)
{
    negotiate(t, high);
    enable_queue(t, 0);
    status_write(t, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
}

static void kick(struct trace *t)
{
    trace_write(t, TRACE_NOTIFY, 0, 2, 0);
    trace_settle(t);
}

static void read_queue(struct trace *t, const char *when)
{
    for (unsigned i = FIRST_QUEUE_REG; i < COMMON_REGS; i++)
        trace_read(t, TRACE_COMMON, common_regs[i].offset, common_regs[i].width, "%s %s",
                   common_regs[i].name, when);
}

static void read_all(struct trace *t, const char *when)
{
    for (unsigned i = 0; i < FIRST_QUEUE_REG; i++)
        trace_read(t, TRACE_COMMON, common_regs[i].offset, common_regs[i].width, "%s %s",
                   common_regs[i].name, when);
    read_queue(t, when);
}

/* ----- sections of common configuration ----- */

static void initial_state(struct trace *t)
{
    trace_section(t, "initial state");
    read_all(t, "at power-on");
    reset(t);
    read_all(t, "after a reset");
    trace_read(t, TRACE_COMMON, 60, 4, "the first dword behind queue_reset");
    trace_read(t, TRACE_COMMON, 64, 4, "the first dword behind the structure");
}

static void status_protocol(struct trace *t)
{
    static const uint8_t values[] = {DRIVER, DRIVER_OK, FEATURES_OK, 0x10, 0x20, 0x40, 0x80, 0xff};
    static const uint8_t order[] = {ACK,
                                    ACK | DRIVER,
                                    ACK,
                                    ACK | DRIVER | DRIVER_OK,
                                    ACK | DRIVER,
                                    ACK | DRIVER | 0x20,
                                    ACK | DRIVER | 0x40,
                                    ACK | DRIVER | 0x80,
                                    ACK | DRIVER};

    trace_section(t, "status");
    for (unsigned i = 0; i < sizeof(values); i++) {
        reset(t);
        status_write(t, values[i]);
        trace_read(t, TRACE_COMMON, 20, 1, "device_status, 0x%02x written after a reset",
                   values[i]);
    }
    reset(t);
    for (unsigned i = 0; i < sizeof(order); i++) {
        status_write(t, order[i]);
        trace_read(t, TRACE_COMMON, 20, 1, "device_status, 0x%02x written as %u in order",
                   order[i], i + 1);
    }
    reset(t);
    status_read(t, "after a reset");
    set(t, VIRTIO_COMMON_DEVICE_STATUS, 2, 0xff03);
    status_read(t, "written together with config_generation");
    set(t, VIRTIO_COMMON_DEVICE_STATUS, 4, 0x00010007);
    status_read(t, "written together with its neighbours");
    reset(t);
}

static void device_features(struct trace *t)
{
    static const uint32_t selectors[] = {0, 1, 2, 3, 4, 5, 32, 0x7fffffff, 0xffffffff};

    trace_section(t, "device features");
    for (unsigned i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++) {
        set(t, VIRTIO_COMMON_DEVICE_FEATURE_SELECT, 4, selectors[i]);
        trace_read(t, TRACE_COMMON, 0, 4, "device_feature_select, 0x%x written", selectors[i]);
        trace_read(t, TRACE_COMMON, 4, 4, "device_feature of word 0x%x", selectors[i]);
    }
    set(t, VIRTIO_COMMON_DEVICE_FEATURE_SELECT, 4, 0);
    set(t, VIRTIO_COMMON_DEVICE_FEATURE, 4, 0);
    trace_read(t, TRACE_COMMON, 4, 4, "device_feature after a write");
}

static void driver_features(struct trace *t)
{
    static const uint32_t selectors[] = {0, 1, 2, 3, 4, 5, 0xffffffff};
    unsigned count = sizeof(selectors) / sizeof(selectors[0]);

    trace_section(t, "driver features");
    reset(t);
    status_write(t, ACK | DRIVER);
    for (unsigned i = 0; i < count; i++) {
        accept_word(t, selectors[i], i < 2 ? t->offered[i] : 0xffffffff);
        trace_read(t, TRACE_COMMON, 8, 4, "driver_feature_select, 0x%x written", selectors[i]);
        trace_read(t, TRACE_COMMON, 12, 4, "driver_feature of word 0x%x", selectors[i]);
    }
    for (unsigned i = 0; i < count; i++) {
        set(t, VIRTIO_COMMON_DRIVER_FEATURE_SELECT, 4, selectors[i]);
        trace_read(t, TRACE_COMMON, 12, 4, "driver_feature of word 0x%x, all written",
                   selectors[i]);
    }
    reset(t);
    for (unsigned i = 0; i < 4; i++) {
        set(t, VIRTIO_COMMON_DRIVER_FEATURE_SELECT, 4, i);
        trace_read(t, TRACE_COMMON, 12, 4, "driver_feature of word %u after a reset", i);
    }
    accept_word(t, 0, 0xffffffff);
    trace_read(t, TRACE_COMMON, 12, 4, "driver_feature, bits that are not offered, word 0");
    accept_word(t, 1, 0xffffffff);
    trace_read(t, TRACE_COMMON, 12, 4, "driver_feature, bits that are not offered, word 1");
}

/* FEATURES_OK after `low` and `high` were accepted. */
static void try_features(struct trace *t, uint32_t low, uint32_t high, const char *what)
{
    reset(t);
    status_write(t, ACK | DRIVER);
    accept_features(t, low, high);
    status_write(t, ACK | DRIVER | FEATURES_OK);
    trace_read(t, TRACE_COMMON, 20, 1, "device_status after FEATURES_OK, %s", what);
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
    reset(t);
    status_write(t, ACK | DRIVER);
    accept_features(t, low, high);
    accept_word(t, 2, 1);
    status_write(t, ACK | DRIVER | FEATURES_OK);
    status_read(t, "after FEATURES_OK, a bit of word 2 that is not offered");

    negotiate(t, 0);
    accept_word(t, 0, low);
    trace_read(t, TRACE_COMMON, 12, 4, "driver_feature of word 0 written after FEATURES_OK");
    set(t, VIRTIO_COMMON_DRIVER_FEATURE_SELECT, 4, 1);
    trace_read(t, TRACE_COMMON, 12, 4, "driver_feature of word 1 after FEATURES_OK");
    status_write(t, ACK | DRIVER);
    status_read(t, "with FEATURES_OK cleared by the driver");
    negotiate(t, 0);
    status_write(t, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    status_read(t, "with DRIVER_OK");
    status_write(t, ACK | DRIVER | FEATURES_OK);
    status_read(t, "with DRIVER_OK cleared by the driver");
    status_write(t, ACK | DRIVER | FEATURES_OK | DRIVER_OK | 0x80);
    status_read(t, "with FAILED");
    reset(t);
    status_read(t, "after the reset that follows FAILED");
    accept_features(t, 0, 1);
    status_write(t, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    status_read(t, "with all steps in one write");
    reset(t);
}

static void read_only(struct trace *t)
{
    static const struct reg regs[] = {{"device_feature", 4, 4},
                                      {"num_queues", 18, 2},
                                      {"config_generation", 21, 1},
                                      {"queue_notify_off", 30, 2},
                                      {"queue_notif_config_data", 56, 2}};

    trace_section(t, "registers the driver only reads");
    reset(t);
    for (unsigned i = 0; i < sizeof(regs) / sizeof(regs[0]); i++) {
        set(t, regs[i].offset, regs[i].width, 0x5a5a5a5a);
        trace_read(t, TRACE_COMMON, regs[i].offset, regs[i].width, "%s after a write",
                   regs[i].name);
    }
    status_read(t, "after them");
}

static void queue_select(struct trace *t)
{
    static const uint16_t indices[] = {0, 1, 2, 1023, 1024, 0xffff};
    char when[32];

    trace_section(t, "queue_select");
    negotiate(t, 0);
    for (unsigned i = 0; i < sizeof(indices) / sizeof(indices[0]); i++) {
        select_queue(t, indices[i]);
        trace_read(t, TRACE_COMMON, 22, 2, "queue_select, %u written", indices[i]);
        (void)snprintf(when, sizeof(when), "of queue %u", indices[i]);
        read_queue(t, when);
    }
    select_queue(t, TRACE_QUEUES);
    set(t, VIRTIO_COMMON_QUEUE_SIZE, 2, 16);
    queue_addresses(t);
    set(t, VIRTIO_COMMON_QUEUE_MSIX_VECTOR, 2, 0);
    set(t, VIRTIO_COMMON_QUEUE_ENABLE, 2, 1);
    read_queue(t, "of a queue that is not there, after writes");
    status_read(t, "after them");
    select_queue(t, 0);
    read_queue(t, "of queue 0 after them");
}

static void queue_size(struct trace *t, uint32_t high, const char *format)
{
    static const uint16_t sizes[] = {0,   1,   2,   3,    100,  128,   255,
                                     256, 257, 512, 1024, 1025, 32768, 65535};

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        negotiate(t, high);
        select_queue(t, 0);
        set(t, VIRTIO_COMMON_QUEUE_SIZE, 2, 64);
        set(t, VIRTIO_COMMON_QUEUE_SIZE, 2, sizes[i]);
        trace_read(t, TRACE_COMMON, 24, 2, "queue_size, %u written, %s", sizes[i], format);
        trace_read(t, TRACE_COMMON, 20, 1, "device_status, queue_size %u written, %s", sizes[i],
                   format);
        queue_addresses(t);
        set(t, VIRTIO_COMMON_QUEUE_ENABLE, 2, 1);
        trace_read(t, TRACE_COMMON, 24, 2, "queue_size, %u written, then enabled, %s", sizes[i],
                   format);
        trace_read(t, TRACE_COMMON, 28, 2, "queue_enable, queue_size %u written, %s", sizes[i],
                   format);
        trace_read(t, TRACE_COMMON, 20, 1,
                   "device_status, queue_size %u written, then enabled, %s", sizes[i], format);
    }
    negotiate(t, high);
    select_queue(t, 0);
    set(t, VIRTIO_COMMON_QUEUE_SIZE, 2, 64);
    select_queue(t, 1);
    trace_read(t, TRACE_COMMON, 24, 2, "queue_size of the other queue, %s", format);
    reset(t);
    select_queue(t, 0);
    trace_read(t, TRACE_COMMON, 24, 2, "queue_size after a reset, %s", format);
}

static void queue_sizes(struct trace *t)
{
    uint32_t packed = bit_of_word_1(VIRTIO_FEATURE_RING_PACKED);

    trace_section(t, "queue_size");
    queue_size(t, 0, "split");
    if (t->offered[1] & packed)
        queue_size(t, packed, "packed");
}

static void addresses(struct trace *t)
{
    trace_section(t, "queue addresses");
    negotiate(t, 0);
    select_queue(t, 0);
    for (unsigned i = 0; i < 6; i++)
        set(t, VIRTIO_COMMON_QUEUE_DESC + 4 * i, 4, 0x10203040u * (i + 1));
    read_queue(t, "written");
    select_queue(t, 1);
    read_queue(t, "of the other queue");
    select_queue(t, 0);
    read_queue(t, "selected again");
    set(t, VIRTIO_COMMON_QUEUE_DESC, 2, 0xabcd);
    trace_read(t, TRACE_COMMON, 32, 4, "queue_desc low after a write of 2 bytes");
    set(t, VIRTIO_COMMON_QUEUE_DRIVER + 2, 2, 0xabcd);
    trace_read(t, TRACE_COMMON, 40, 4, "queue_driver low after a write of 2 bytes at its middle");
    set(t, VIRTIO_COMMON_QUEUE_DEVICE + 4, 1, 0xab);
    trace_read(t, TRACE_COMMON, 52, 4, "queue_device high after a write of 1 byte");
    reset(t);
    select_queue(t, 0);
    read_queue(t, "after a reset");
}

static void queue_enable(struct trace *t)
{
    static const uint16_t values[] = {0, 2, 1, 0xffff};

    trace_section(t, "queue_enable");
    negotiate(t, 0);
    enable_queue(t, 0);
    read_queue(t, "enabled");
    for (unsigned i = 0; i < 4; i++) {
        set(t, VIRTIO_COMMON_QUEUE_ENABLE, 2, values[i]);
        trace_read(t, TRACE_COMMON, 28, 2, "queue_enable, 0x%x written when enabled", values[i]);
        trace_read(t, TRACE_COMMON, 20, 1, "device_status, queue_enable 0x%x written when enabled",
                   values[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        negotiate(t, 0);
        select_queue(t, 0);
        queue_addresses(t);
        set(t, VIRTIO_COMMON_QUEUE_ENABLE, 2, values[i]);
        trace_read(t, TRACE_COMMON, 28, 2, "queue_enable, 0x%x written when not enabled",
                   values[i]);
        trace_read(t, TRACE_COMMON, 20, 1,
                   "device_status, queue_enable 0x%x written when not enabled", values[i]);
    }
    negotiate(t, 0);
    enable_queue(t, 0);
    set(t, VIRTIO_COMMON_QUEUE_SIZE, 2, 16);
    set(t, VIRTIO_COMMON_QUEUE_DESC, 4, 0x300000);
    set(t, VIRTIO_COMMON_QUEUE_DEVICE + 4, 4, 1);
    read_queue(t, "rewritten while enabled");
    negotiate(t, 0);
    select_queue(t, 0);
    set(t, VIRTIO_COMMON_QUEUE_ENABLE, 2, 1);
    trace_read(t, TRACE_COMMON, 28, 2, "queue_enable without addresses");
    status_read(t, "without addresses");
    negotiate(t, 0);
    select_queue(t, 0);
    queue_addresses(t);
    set(t, VIRTIO_COMMON_QUEUE_DESC, 4, TRACE_DESC + 8);
    set(t, VIRTIO_COMMON_QUEUE_ENABLE, 2, 1);
    trace_read(t, TRACE_COMMON, 28, 2, "queue_enable with a misaligned descriptor table");
    status_read(t, "with a misaligned descriptor table");
    reset(t);
    status_write(t, ACK | DRIVER);
    accept_features(t, 0, 1);
    enable_queue(t, 0);
    trace_read(t, TRACE_COMMON, 28, 2, "queue_enable before FEATURES_OK");
    reset(t);
    trace_read(t, TRACE_COMMON, 28, 2, "queue_enable after a reset");
    run_device(t, 0);
    enable_queue(t, 1);
    trace_read(t, TRACE_COMMON, 28, 2, "queue_enable of queue 1 after DRIVER_OK");
    reset(t);
}

static void queue_reset(struct trace *t)
{
    uint32_t ring_reset = bit_of_word_1(VIRTIO_FEATURE_RING_RESET);

    if (!(t->offered[1] & ring_reset))
        return;
    trace_section(t, "queue_reset");
    run_device(t, ring_reset);
    read_queue(t, "before");
    set(t, VIRTIO_COMMON_QUEUE_RESET, 2, 0);
    read_queue(t, "0 written");
    set(t, VIRTIO_COMMON_QUEUE_RESET, 2, 2);
    read_queue(t, "2 written");
    set(t, VIRTIO_COMMON_QUEUE_RESET, 2, 1);
    read_queue(t, "1 written");
    set(t, VIRTIO_COMMON_QUEUE_RESET, 2, 1);
    read_queue(t, "1 written again");
    status_read(t, "after a queue reset");
    set(t, VIRTIO_COMMON_QUEUE_SIZE, 2, 16);
    queue_addresses(t);
    read_queue(t, "set up again");
    set(t, VIRTIO_COMMON_QUEUE_ENABLE, 2, 1);
    read_queue(t, "enabled again");
    select_queue(t, 1);
    set(t, VIRTIO_COMMON_QUEUE_RESET, 2, 1);
    read_queue(t, "reset of a queue that was not enabled");
    select_queue(t, TRACE_QUEUES);
    set(t, VIRTIO_COMMON_QUEUE_RESET, 2, 1);
    read_queue(t, "reset of a queue that is not there");
    status_read(t, "after them");
    run_device(t, 0);
    set(t, VIRTIO_COMMON_QUEUE_RESET, 2, 1);
    read_queue(t, "1 written without RING_RESET");
    reset(t);
}

static void vectors(struct trace *t)
{
    static const uint16_t values[] = {0, 1, 2, 3, 4, 0x7ff, 0x800, 0xffff, 1, 0xfffe};

    negotiate(t, 0);
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        set(t, VIRTIO_COMMON_CONFIG_MSIX_VECTOR, 2, values[i]);
        trace_read(t, TRACE_COMMON, 16, 2, "config_msix_vector, 0x%x written as %u", values[i],
                   i + 1);
        select_queue(t, 0);
        set(t, VIRTIO_COMMON_QUEUE_MSIX_VECTOR, 2, values[i]);
        trace_read(t, TRACE_COMMON, 26, 2, "queue_msix_vector, 0x%x written as %u", values[i],
                   i + 1);
        select_queue(t, 1);
        trace_read(t, TRACE_COMMON, 26, 2, "queue_msix_vector of the other queue, %u", i + 1);
    }
    set(t, VIRTIO_COMMON_CONFIG_MSIX_VECTOR, 2, 1);
    select_queue(t, 0);
    set(t, VIRTIO_COMMON_QUEUE_MSIX_VECTOR, 2, 2);
    select_queue(t, 1);
    set(t, VIRTIO_COMMON_QUEUE_MSIX_VECTOR, 2, 2);
    trace_read(t, TRACE_COMMON, 26, 2, "queue_msix_vector shared by two queues");
    reset(t);
    trace_read(t, TRACE_COMMON, 16, 2, "config_msix_vector after a reset");
    select_queue(t, 0);
    trace_read(t, TRACE_COMMON, 26, 2, "queue_msix_vector after a reset");
}

static void msix(struct trace *t, bool on)
{
    trace_write(t, TRACE_CAP_MSIX, 2, 2, on ? 0x8000 : 0);
}

static void vector_sections(struct trace *t)
{
    trace_section(t, "vectors, MSI-X off");
    vectors(t);
    trace_section(t, "vectors, MSI-X on");
    msix(t, true);
    trace_read(t, TRACE_CAP_MSIX, 2, 2, "message control");
    vectors(t);
    msix(t, false);
    trace_section(t, "vectors, MSI-X off again");
    trace_read(t, TRACE_CAP_MSIX, 2, 2, "message control");
}

/* What a request and a broken ring do to ISR, line and status. */
static void interrupts(struct trace *t)
{
    run_device(t, 0);
    trace_read(t, TRACE_ISR, 0, 1, "isr at first");
    trace_line(t, "line at first");
    trace_request(t);
    kick(t);
    trace_line(t, "line after a request");
    trace_read(t, TRACE_PCI, 6, 2, "PCI status after a request");
    trace_read(t, TRACE_ISR, 0, 1, "isr after a request");
    trace_line(t, "line after isr was read");
    trace_read(t, TRACE_PCI, 6, 2, "PCI status after isr was read");
    trace_read(t, TRACE_ISR, 0, 1, "isr read again");
    trace_request(t);
    kick(t);
    trace_write(t, TRACE_ISR, 0, 1, 1);
    trace_line(t, "line after isr was written");
    trace_read(t, TRACE_ISR, 0, 4, "isr after a request, 4 bytes");
    trace_read(t, TRACE_ISR, 0, 1, "isr after it was read as 4 bytes");
    trace_request(t);
    kick(t);
    trace_read(t, TRACE_ISR, 0, 2, "isr after a request, 2 bytes");
    trace_request(t);
    kick(t);
    trace_read(t, TRACE_ISR, 1, 1, "the byte behind isr");
    trace_line(t, "line after the byte behind isr was read");
    trace_read(t, TRACE_ISR, 4, 1, "the fifth byte of the isr structure");
    trace_read(t, TRACE_ISR, 0, 1, "isr after them");
    trace_request(t);
    kick(t);
    reset(t);
    trace_line(t, "line after a reset");
    trace_read(t, TRACE_ISR, 0, 1, "isr after a reset");

    run_device(t, 0);
    trace_request(t);
    kick(t);
    (void)trace_read(t, TRACE_ISR, 0, 1, "isr before the ring breaks");
    trace_break_ring(t);
    kick(t);
    status_read(t, "with a broken ring");
    trace_line(t, "line with a broken ring");
    trace_read(t, TRACE_ISR, 0, 1, "isr with a broken ring");
    trace_read(t, TRACE_COMMON, 21, 1, "config_generation with a broken ring");
    status_write(t, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    status_read(t, "with a broken ring, written without NEEDS_RESET");
    kick(t);
    trace_read(t, TRACE_ISR, 0, 1, "isr with a broken ring, kicked again");
    reset(t);
    status_read(t, "after the reset of a broken device");
}

static void interrupt_sections(struct trace *t)
{
    trace_section(t, "interrupts, MSI-X off");
    interrupts(t);
    trace_section(t, "interrupts, MSI-X on without a vector");
    msix(t, true);
    interrupts(t);
    msix(t, false);
    trace_section(t, "interrupts, disabled in the PCI command");
    trace_write(t, TRACE_PCI, 4, 2, 0x407);
    run_device(t, 0);
    trace_request(t);
    kick(t);
    trace_line(t, "line after a request");
    trace_read(t, TRACE_PCI, 6, 2, "PCI status");
    trace_write(t, TRACE_PCI, 4, 2, 0x007);
    trace_line(t, "line when enabled");
    trace_read(t, TRACE_ISR, 0, 1, "isr");
    trace_line(t, "line after isr was read");
    reset(t);
}

void script_config(struct trace *t, enum trace_space space, uint32_t base)
{
    static const uint8_t widths[] = {1, 2, 4};

    for (unsigned i = 0; i < 3; i++) {
        unsigned width = widths[i], end = TRACE_CONFIG_LENGTH - width;

        for (unsigned at = 0; at <= end; at++)
            trace_read(t, space, base + at, width, "%u bytes at %u", width, at);
        trace_read(t, space, base + end + 1, width, "%u bytes up to 1 behind the end", width);
        trace_read(t, space, base + 60, width, "%u bytes at 60", width);
    }
    trace_write(t, space, base + 32, 1, 0);
    trace_read(t, space, base + 32, 1, "the writable byte, 0 written");
    trace_write(t, space, base + 32, 1, 1);
    trace_read(t, space, base + 32, 1, "the writable byte, 1 written");
    trace_write(t, space, base + 30, 4, 0);
    trace_read(t, space, base + 32, 1, "the writable byte, 0 written among 4 bytes");
    trace_write(t, space, base, 4, 0x12345678);
    trace_read(t, space, base, 4, "a field that is only read, after a write");
    trace_write(t, space, base + 64, 4, 0x12345678);
    trace_read(t, space, base + 64, 4, "behind the fields, after a write");
}

static void modern_config(struct trace *t)
{
    uint32_t low = t->offered[0];

    trace_section(t, "device configuration");
    reset(t);
    trace_read(t, TRACE_COMMON, 21, 1, "config_generation at first");
    status_write(t, ACK | DRIVER);
    accept_features(t, low, 1);
    status_write(t, ACK | DRIVER | FEATURES_OK);
    script_config(t, TRACE_DEVICE, 0);
    trace_read(t, TRACE_COMMON, 21, 1, "config_generation after the driver's writes");
    reset(t);
    trace_read(t, TRACE_COMMON, 21, 1, "config_generation after a reset");
}

/* Every aligned access to common configuration: bus and memory core split the others. */
static void odd_widths(struct trace *t)
{
    static const uint8_t widths[] = {1, 2, 4};

    trace_section(t, "common configuration in other widths");
    negotiate(t, 0);
    enable_queue(t, 0);
    set(t, VIRTIO_COMMON_DEVICE_FEATURE_SELECT, 4, 1);
    for (unsigned w = 0; w < 3; w++) {
        for (unsigned i = 0; i < VIRTIO_COMMON_LENGTH; i += widths[w])
            trace_read(t, TRACE_COMMON, i, widths[w], "%u bytes at %u", widths[w], i);
    }
    set(t, VIRTIO_COMMON_QUEUE_SELECT, 1, 1);
    trace_read(t, TRACE_COMMON, 22, 2, "queue_select, 1 byte written");
    set(t, VIRTIO_COMMON_QUEUE_SELECT, 4, 0x00200001);
    trace_read(t, TRACE_COMMON, 22, 2, "queue_select, 4 bytes written");
    trace_read(t, TRACE_COMMON, 24, 2, "queue_size behind queue_select, 4 bytes written");
    select_queue(t, 1);
    set(t, VIRTIO_COMMON_QUEUE_SIZE, 4, 0x00010020);
    trace_read(t, TRACE_COMMON, 24, 2, "queue_size, 4 bytes written");
    trace_read(t, TRACE_COMMON, 26, 2, "queue_msix_vector behind queue_size, 4 bytes written");
    reset(t);
}

static void notify(struct trace *t)
{
    static const uint32_t offsets[] = {0, 1, 2, 4, 8, 4092};

    trace_section(t, "notify");
    run_device(t, 0);
    for (unsigned i = 0; i < 6; i++) {
        trace_read(t, TRACE_NOTIFY, offsets[i], 2, "read of 2 bytes at %u", offsets[i]);
        trace_write(t, TRACE_NOTIFY, offsets[i], 2, 0);
        trace_write(t, TRACE_NOTIFY, offsets[i], 4, 0xffffffff);
        trace_write(t, TRACE_NOTIFY, offsets[i], 1, 0xff);
    }
    status_read(t, "after kicks of every kind with nothing to do");
    trace_read(t, TRACE_ISR, 0, 1, "isr after them");
    reset(t);
}

void script_pci_modern(struct trace *t)
{
    initial_state(t);
    for (unsigned i = 0; i < 2; i++) {
        set(t, VIRTIO_COMMON_DEVICE_FEATURE_SELECT, 4, i);
        t->offered[i] = trace_read(t, TRACE_COMMON, 4, 4, "device_feature %u", i);
    }
    status_protocol(t);
    device_features(t);
    driver_features(t);
    negotiation(t);
    read_only(t);
    queue_select(t);
    queue_sizes(t);
    addresses(t);
    queue_enable(t);
    queue_reset(t);
    modern_config(t);
    vector_sections(t);
    interrupt_sections(t);
    odd_widths(t);
    notify(t);
}

/* ----- configuration space ----- */

/* The header: what says that it is a virtio function, and of which kind. */
static void header(struct trace *t)
{
    static const struct reg regs[] = {
        {"vendor", 0, 2},        {"device", 2, 2},           {"revision", 8, 1},
        {"header type", 14, 1},  {"subsystem vendor", 44, 2}, {"subsystem device", 46, 2},
        {"interrupt pin", 61, 1}, {"status", 6, 2}};

    trace_section(t, "configuration header");
    for (unsigned i = 0; i < sizeof(regs) / sizeof(regs[0]); i++) {
        trace_read(t, TRACE_PCI, regs[i].offset, regs[i].width, "%s", regs[i].name);
        if (regs[i].offset == 6)
            continue; /* bits there are cleared by writing 1 */
        trace_write(t, TRACE_PCI, regs[i].offset, regs[i].width, 0x5a5a);
        trace_read(t, TRACE_PCI, regs[i].offset, regs[i].width, "%s after a write", regs[i].name);
    }
    trace_write(t, TRACE_PCI, 60, 1, 0x5a);
    trace_read(t, TRACE_PCI, 60, 1, "interrupt line, 0x5a written");
}

static void command(struct trace *t)
{
    static const uint16_t values[] = {0, 1, 2, 4, 7, 0x0400, 0x0407, 0xffff, 7};

    trace_section(t, "PCI command");
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        trace_write(t, TRACE_PCI, 4, 2, values[i]);
        trace_read(t, TRACE_PCI, 4, 2, "command, 0x%x written as %u", values[i], i + 1);
    }
    trace_write(t, TRACE_PCI, 6, 2, 0xffff);
    trace_read(t, TRACE_PCI, 6, 2, "status, ones written");
}

/* BARs while nothing decodes; what was assigned is put back. */
static void bars(struct trace *t)
{
    uint32_t saved[6];

    trace_section(t, "BARs");
    for (unsigned i = 0; i < 6; i++)
        saved[i] = trace_read(t, TRACE_PCI, 16 + 4 * i, 4, "BAR %u as assigned", i);
    trace_write(t, TRACE_PCI, 4, 2, 0);
    for (unsigned i = 0; i < 6; i++) {
        trace_write(t, TRACE_PCI, 16 + 4 * i, 4, 0xffffffff);
        trace_read(t, TRACE_PCI, 16 + 4 * i, 4, "BAR %u, ones written", i);
        trace_write(t, TRACE_PCI, 16 + 4 * i, 4, 0);
        trace_read(t, TRACE_PCI, 16 + 4 * i, 4, "BAR %u, 0 written", i);
        trace_write(t, TRACE_PCI, 16 + 4 * i, 4, saved[i]);
    }
    trace_write(t, TRACE_PCI, 48, 4, 0xffffffff);
    trace_read(t, TRACE_PCI, 48, 4, "expansion ROM BAR, ones written");
    trace_write(t, TRACE_PCI, 48, 4, 0);
    trace_write(t, TRACE_PCI, 4, 2, 7);
}

/* Each virtio capability without its link, and that it cannot be written. */
static void capabilities(struct trace *t)
{
    static const char *const names[] = {"", "common", "notify", "isr", "device", "window"};

    trace_section(t, "capabilities");
    for (unsigned type = 1; type <= 5; type++) {
        enum trace_space space = (enum trace_space)(TRACE_CAP + type);

        trace_read(t, space, 0, 1, "%s: id", names[type]);
        trace_read(t, space, 2, 2, "%s: length and type", names[type]);
        for (unsigned i = 4; i < (type == 2 || type == 5 ? 20u : 16u); i += 4)
            trace_read(t, space, i, 4, "%s: dword at %u", names[type], i);
        if (type == 5)
            continue;
        for (unsigned i = 4; i < 16; i += 4) {
            trace_write(t, space, i, 4, 0xa5a5a5a5);
            trace_read(t, space, i, 4, "%s: dword at %u after a write", names[type], i);
        }
    }
    trace_read(t, TRACE_CAP_MSIX, 0, 1, "MSI-X: id");
    trace_read(t, TRACE_CAP_MSIX, 2, 2, "MSI-X: message control");
    trace_write(t, TRACE_CAP_MSIX, 2, 2, 0xffff);
    trace_read(t, TRACE_CAP_MSIX, 2, 2, "MSI-X: message control, ones written");
    trace_write(t, TRACE_CAP_MSIX, 2, 2, 0);
}

/* The BAR of a structure and its offset there, from QEMU's capability; both peers have the same. */
static void aim(struct trace *t, unsigned bar, uint32_t offset, uint32_t length)
{
    trace_write(t, TRACE_CAP_WINDOW, 4, 1, bar);
    trace_write(t, TRACE_CAP_WINDOW, 8, 4, offset);
    trace_write(t, TRACE_CAP_WINDOW, 12, 4, length);
}

static void window(struct trace *t)
{
    static const uint32_t lengths[] = {1, 2, 4, 0, 3, 8};
    unsigned bar = trace_read(t, (enum trace_space)(TRACE_CAP + 1), 4, 1, "BAR of common") & 7;
    uint32_t common = trace_read(t, (enum trace_space)(TRACE_CAP + 1), 8, 4, "offset of common");
    uint32_t isr = trace_read(t, (enum trace_space)(TRACE_CAP + 3), 8, 4, "offset of isr");
    uint32_t device = trace_read(t, (enum trace_space)(TRACE_CAP + 4), 8, 4, "offset of device");

    trace_section(t, "window of configuration space");
    run_device(t, 0);
    aim(t, bar, common + 18, 2);
    for (unsigned i = 4; i < 16; i += 4)
        trace_read(t, TRACE_CAP_WINDOW, i, 4, "dword at %u after it was aimed", i);
    for (unsigned i = 0; i < 6; i++) {
        aim(t, bar, common + 20, lengths[i]);
        trace_read(t, TRACE_CAP_WINDOW, 16, 4, "device_status and generation, length %u",
                   lengths[i]);
        aim(t, bar, device, lengths[i]);
        trace_read(t, TRACE_CAP_WINDOW, 16, 4, "device configuration, length %u", lengths[i]);
        trace_read(t, TRACE_CAP_WINDOW, 16, 1, "device configuration, length %u, 1 byte of data",
                   lengths[i]);
        trace_read(t, TRACE_CAP_WINDOW, 16, 2, "device configuration, length %u, 2 bytes of data",
                   lengths[i]);
    }
    aim(t, bar, common + 22, 2);
    trace_write(t, TRACE_CAP_WINDOW, 16, 2, 1);
    trace_read(t, TRACE_COMMON, 22, 2, "queue_select written through the window");
    aim(t, bar, common + 20, 1);
    trace_write(t, TRACE_CAP_WINDOW, 16, 4, 0);
    status_read(t, "reset through the window");
    run_device(t, 0);
    trace_request(t);
    kick(t);
    aim(t, bar, isr, 1);
    trace_read(t, TRACE_CAP_WINDOW, 16, 1, "isr through the window");
    trace_read(t, TRACE_ISR, 0, 1, "isr after it was read through the window");
    trace_line(t, "line after isr was read through the window");
    aim(t, bar, device + 1, 2);
    trace_read(t, TRACE_CAP_WINDOW, 16, 4, "misaligned offset");
    aim(t, bar, 0xfffffffc, 4);
    trace_read(t, TRACE_CAP_WINDOW, 16, 4, "offset outside the BAR");
    aim(t, bar, 0x3ffe, 4);
    trace_read(t, TRACE_CAP_WINDOW, 16, 4, "the last two bytes of the BAR");
    aim(t, 3, 0, 4);
    trace_read(t, TRACE_CAP_WINDOW, 16, 4, "a BAR that is not there");
    aim(t, 7, 0, 4);
    trace_read(t, TRACE_CAP_WINDOW, 16, 4, "a BAR number that cannot be");
    trace_read(t, TRACE_CAP_WINDOW, 4, 4, "the BAR field after it");
    aim(t, bar, common, 4);
    reset(t);
}

/* Bus mastering off and on again under a running device. */
static void bus_master(struct trace *t)
{
    trace_section(t, "bus master");
    run_device(t, 0);
    trace_write(t, TRACE_PCI, 4, 2, 3);
    status_read(t, "with bus mastering off");
    trace_write(t, TRACE_PCI, 4, 2, 7);
    status_read(t, "with bus mastering on again");
    reset(t);
}

void script_pci_config(struct trace *t, bool modern)
{
    header(t);
    command(t);
    bars(t);
    if (!modern)
        return;
    capabilities(t);
    window(t);
    bus_master(t);
}

/* ----- the legacy BAR ----- */

static void legacy_set(struct trace *t, uint32_t offset, unsigned width, uint32_t value)
{
    trace_write(t, TRACE_LEGACY, offset, width, value);
}

static void legacy_reset(struct trace *t)
{
    legacy_set(t, VIRTIO_LEGACY_DEVICE_STATUS, 1, 0);
    trace_clear_ring(t);
}

static const struct reg legacy_regs[] = {
    {"device features", 0, 4}, {"driver features", 4, 4}, {"queue address", 8, 4},
    {"queue size", 12, 2},     {"queue select", 14, 2},   {"queue notify", 16, 2},
    {"device status", 18, 1},  {"isr", 19, 1}};

static void legacy_read_all(struct trace *t, const char *when)
{
    for (unsigned i = 0; i < sizeof(legacy_regs) / sizeof(legacy_regs[0]); i++)
        trace_read(t, TRACE_LEGACY, legacy_regs[i].offset, legacy_regs[i].width, "%s %s",
                   legacy_regs[i].name, when);
}

static void legacy_status(struct trace *t)
{
    static const uint8_t values[] = {DRIVER, DRIVER_OK, FEATURES_OK, 0x20, 0x40, 0x80, 0xff};
    static const uint8_t order[] = {1, 3, 1, 7, 3, 0x87};

    trace_section(t, "legacy status");
    legacy_read_all(t, "at first");
    for (unsigned i = 0; i < sizeof(values); i++) {
        legacy_reset(t);
        legacy_set(t, 18, 1, values[i]);
        trace_read(t, TRACE_LEGACY, 18, 1, "0x%02x written after a reset", values[i]);
    }
    legacy_reset(t);
    for (unsigned i = 0; i < sizeof(order); i++) {
        legacy_set(t, 18, 1, order[i]);
        trace_read(t, TRACE_LEGACY, 18, 1, "0x%02x written as %u in order", order[i], i + 1);
    }
    legacy_reset(t);
    legacy_read_all(t, "after a reset");
}

static void legacy_features(struct trace *t)
{
    uint32_t offered;

    trace_section(t, "legacy features");
    offered = trace_read(t, TRACE_LEGACY, 0, 4, "device features");
    legacy_set(t, 0, 4, 0);
    trace_read(t, TRACE_LEGACY, 0, 4, "device features after a write");
    legacy_set(t, 18, 1, ACK | DRIVER);
    legacy_set(t, 4, 4, offered & ~(1u << 30));
    trace_read(t, TRACE_LEGACY, 4, 4, "driver features, all that is offered but bit 30");
    legacy_set(t, 4, 4, 0xffffffff);
    trace_read(t, TRACE_LEGACY, 4, 4, "driver features, ones written");
    legacy_set(t, 4, 4, 1u << 30);
    trace_read(t, TRACE_LEGACY, 4, 4, "driver features, bit 30 written");
    trace_read(t, TRACE_LEGACY, 18, 1, "device status after bit 30");
    legacy_set(t, 4, 4, 0);
    trace_read(t, TRACE_LEGACY, 4, 4, "driver features, 0 written");
    legacy_set(t, 18, 1, ACK | DRIVER | DRIVER_OK);
    legacy_set(t, 4, 4, offered & ~(1u << 30));
    trace_read(t, TRACE_LEGACY, 4, 4, "driver features written after DRIVER_OK");
    legacy_reset(t);
    trace_read(t, TRACE_LEGACY, 4, 4, "driver features after a reset");
}

static void legacy_queues(struct trace *t)
{
    static const uint16_t indices[] = {0, 1, 2, 1023, 1024, 0xffff};

    trace_section(t, "legacy queues");
    for (unsigned i = 0; i < sizeof(indices) / sizeof(indices[0]); i++) {
        legacy_set(t, 14, 2, indices[i]);
        trace_read(t, TRACE_LEGACY, 14, 2, "queue select, %u written", indices[i]);
        trace_read(t, TRACE_LEGACY, 12, 2, "queue size of queue %u", indices[i]);
        trace_read(t, TRACE_LEGACY, 8, 4, "queue address of queue %u", indices[i]);
    }
    legacy_set(t, 14, 2, 2);
    legacy_set(t, 8, 4, TRACE_DESC / 4096);
    trace_read(t, TRACE_LEGACY, 8, 4, "queue address of a queue that is not there, written");
    legacy_set(t, 18, 1, ACK | DRIVER);
    legacy_set(t, 14, 2, 0);
    legacy_set(t, 12, 2, 16);
    trace_read(t, TRACE_LEGACY, 12, 2, "queue size after a write");
    legacy_set(t, 8, 4, TRACE_DESC / 4096);
    trace_read(t, TRACE_LEGACY, 8, 4, "queue address written");
    legacy_set(t, 8, 4, TRACE_DESC / 4096 + 3);
    trace_read(t, TRACE_LEGACY, 8, 4, "queue address written again");
    trace_read(t, TRACE_LEGACY, 12, 2, "queue size in use");
    legacy_set(t, 14, 2, 1);
    trace_read(t, TRACE_LEGACY, 8, 4, "queue address of the other queue");
    legacy_set(t, 14, 2, 0);
    legacy_set(t, 8, 4, 0);
    trace_read(t, TRACE_LEGACY, 8, 4, "queue address, 0 written");
    trace_read(t, TRACE_LEGACY, 18, 1, "device status, 0 written to the queue address");
    legacy_set(t, 8, 4, 0xffffffff);
    trace_read(t, TRACE_LEGACY, 8, 4, "queue address, ones written");
    legacy_reset(t);
    trace_read(t, TRACE_LEGACY, 8, 4, "queue address after a reset");
}

static void legacy_interrupts(struct trace *t)
{
    legacy_reset(t);
    legacy_set(t, 18, 1, ACK | DRIVER);
    legacy_set(t, 4, 4, 0);
    legacy_set(t, 14, 2, 0);
    legacy_set(t, 8, 4, TRACE_DESC / 4096);
    legacy_set(t, 18, 1, ACK | DRIVER | DRIVER_OK);
    trace_request(t);
    legacy_set(t, 16, 2, 0);
    trace_settle(t);
    trace_line(t, "line after a request");
    trace_read(t, TRACE_LEGACY, 16, 2, "queue notify after a kick");
    trace_read(t, TRACE_LEGACY, 19, 1, "isr after a request");
    trace_line(t, "line after isr was read");
    trace_read(t, TRACE_LEGACY, 19, 1, "isr read again");
    legacy_set(t, 16, 2, 2);
    legacy_set(t, 16, 2, 0xffff);
    trace_read(t, TRACE_LEGACY, 18, 1, "device status after kicks of queues that are not there");
    trace_request(t);
    legacy_set(t, 16, 2, 0);
    trace_settle(t);
    legacy_set(t, 19, 1, 1);
    trace_line(t, "line after isr was written");
    legacy_reset(t);
    trace_line(t, "line after a reset");
    trace_read(t, TRACE_LEGACY, 19, 1, "isr after a reset");
    legacy_set(t, 18, 1, ACK | DRIVER);
    legacy_set(t, 8, 4, TRACE_DESC / 4096);
    trace_request(t);
    legacy_set(t, 16, 2, 0);
    trace_read(t, TRACE_LEGACY, 18, 1, "device status after a kick before DRIVER_OK");
    legacy_reset(t);
    legacy_set(t, 18, 1, ACK | DRIVER);
    legacy_set(t, 8, 4, TRACE_DESC / 4096);
    legacy_set(t, 18, 1, ACK | DRIVER | DRIVER_OK);
    trace_break_ring(t);
    legacy_set(t, 16, 2, 0);
    trace_settle(t);
    trace_read(t, TRACE_LEGACY, 18, 1, "device status with a broken ring");
    trace_read(t, TRACE_LEGACY, 19, 1, "isr with a broken ring");
    legacy_reset(t);
}

static void legacy_vectors(struct trace *t)
{
    static const uint16_t values[] = {0, 1, 2, 3, 0x7ff, 0xffff};

    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        legacy_set(t, 20, 2, values[i]);
        trace_read(t, TRACE_LEGACY, 20, 2, "config vector, 0x%x written", values[i]);
        legacy_set(t, 14, 2, 0);
        legacy_set(t, 22, 2, values[i]);
        trace_read(t, TRACE_LEGACY, 22, 2, "queue vector, 0x%x written", values[i]);
    }
    legacy_set(t, 20, 2, 1);
    legacy_set(t, 14, 2, 2);
    trace_read(t, TRACE_LEGACY, 22, 2, "queue vector of a queue that is not there");
    legacy_reset(t);
    trace_read(t, TRACE_LEGACY, 20, 2, "config vector after a reset");
}

static void legacy_widths(struct trace *t)
{
    static const uint8_t widths[] = {1, 2, 4};

    legacy_reset(t);
    legacy_set(t, 18, 1, ACK);
    for (unsigned w = 0; w < 3; w++) {
        for (unsigned i = 0; i < 20; i += widths[w])
            trace_read(t, TRACE_LEGACY, i, widths[w], "%u bytes at %u", widths[w], i);
    }
    legacy_reset(t);
}

void script_pci_legacy(struct trace *t)
{
    legacy_status(t);
    legacy_features(t);
    legacy_queues(t);
    trace_section(t, "legacy interrupts, MSI-X off");
    legacy_interrupts(t);
    trace_section(t, "legacy device configuration, MSI-X off");
    script_config(t, TRACE_LEGACY, VIRTIO_LEGACY_CONFIG);
    trace_section(t, "legacy registers in other widths");
    legacy_widths(t);
    msix(t, true);
    trace_section(t, "legacy vectors");
    legacy_vectors(t);
    trace_section(t, "legacy device configuration, MSI-X on");
    script_config(t, TRACE_LEGACY, VIRTIO_LEGACY_CONFIG_MSIX);
    trace_section(t, "legacy interrupts, MSI-X on without a vector");
    legacy_interrupts(t);
    msix(t, false);
}
