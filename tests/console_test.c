// SPDX-License-Identifier: MIT-0
/* The console front-end over an emulated function, with a device on paper: ports come and go, in
 * the right way and in every wrong one. */
#include <criterion/criterion.h>
#include <string.h>

#include "examples/device/function.h"
#include "examples/driver/console.h"

enum {
    GUEST = 0x40000000,
    GUEST_SIZE = 1 << 20,
    LOG = 128,
    BUFFERS = CONSOLE_BUFFERS * CONSOLE_BUFFER_SIZE, /* bytes in flight on a port */
    OUT = 2 * BUFFERS,
    CONTROL_IN = 2,
    CONTROL_OUT = 3,
    FEATURE_SIZE = 0,
    FEATURE_MULTIPORT = 1,
    FEATURE_EMERG_WRITE = 2,
    MSG_READY = 0,
    MSG_ADD = 1,
    MSG_REMOVE = 2,
    MSG_PORT_READY = 3,
    MSG_CONSOLE = 4,
    MSG_RESIZE = 5,
    MSG_OPEN = 6,
    MSG_NAME = 7
};

struct message {
    uint32_t id;
    uint32_t event;
    uint32_t value;
};

/* Layouts and ring properties that a console can be driven with. */
static const struct way {
    enum function_view view;
    bool packed;
    bool event_idx;
    bool in_order;
} ways[] = {{FUNCTION_PCI_MODERN, false, true, false}, {FUNCTION_PCI_MODERN, true, true, false},
            {FUNCTION_PCI_MODERN, true, false, true},  {FUNCTION_PCI_LEGACY, false, true, false},
            {FUNCTION_MMIO, false, false, true},       {FUNCTION_MMIO, true, false, false},
            {FUNCTION_PCI_RFC2011, false, true, false}, {FUNCTION_MMIO_V1, false, false, false}};

enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static struct rig {
    struct function function;
    struct virtio_pci_layout layout;
    struct virtio_window windows[6];
    struct virtio_drv drv;
    struct console console;
    struct console_setup setup;
    uint32_t held;    /* a bit for each queue that the device leaves alone */
    bool answers;     /* the device answers PORT_READY as QEMU does */
    unsigned unsent;  /* control messages for which there was no buffer */
    struct message log[LOG]; /* what the driver sent on the control queue */
    unsigned logged, seen;
    uint8_t out[CONSOLE_PORTS][OUT]; /* what it sent on the others */
    unsigned out_length[CONSOLE_PORTS];
    uint8_t emergency;
    unsigned waits;
} rig;

static _Alignas(4096) uint8_t guest[GUEST_SIZE];

static void *map(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    if (addr < GUEST || addr - GUEST > GUEST_SIZE || len > GUEST_SIZE - (addr - GUEST))
        return NULL;
    return guest + (addr - GUEST);
}

/* ----- the device ----- */

/* Numbers are little-endian, for a legacy driver in the guest's order (D-CON-03). */
static bool device_is_big(void)
{
    return VIRTIO_BIG_ENDIAN && function_is_legacy(rig.function.view);
}

static void put(uint8_t *at, unsigned width, uint32_t value)
{
    for (unsigned i = 0; i < width; i++)
        at[device_is_big() ? width - 1 - i : i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get(const uint8_t *at, unsigned width)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value = value << 8 | at[device_is_big() ? i : width - 1 - i];
    return value;
}

static struct virtq_device *ring_of(unsigned queue)
{
    return virtio_dev_ring(&rig.function.dev, (uint16_t)queue);
}

static unsigned in_queue(unsigned port)
{
    return port == 0 ? 0 : 2 + 2 * port;
}

static unsigned port_of(unsigned queue)
{
    return queue < 2 ? 0 : queue / 2 - 1;
}

static bool pop(unsigned queue, struct virtq_chain *chain, struct virtq_seg *seg)
{
    chain->seg = seg;
    chain->capacity = 1; /* single descriptors: any more would be an error (D-CON-03) */
    return virtq_device_pop(ring_of(queue), chain) == 1;
}

static void finish(unsigned queue)
{
    virtq_device_flush(ring_of(queue));
    if (virtq_device_irq_due(ring_of(queue)))
        virtio_dev_interrupt(&rig.function.dev, (uint16_t)queue);
}

/* Sends `bytes` as they are; `claimed` is what the used entry says. False: no buffer. */
static bool send_raw(const void *bytes, uint32_t length, uint32_t claimed)
{
    struct virtq_chain chain;
    struct virtq_seg seg;

    if (!pop(CONTROL_IN, &chain, &seg)) {
        rig.unsent++;
        return false;
    }
    cr_assert(chain.readable == 0 && chain.writable == 1); /* D-CON-02 */
    cr_assert_leq(length, seg.len);
    memcpy(map(NULL, seg.addr, seg.len), bytes, length);
    virtq_device_push(ring_of(CONTROL_IN), chain.token, claimed);
    finish(CONTROL_IN);
    return true;
}

static void send_long(uint32_t id, uint32_t event, uint32_t value, const void *more,
                      uint32_t length)
{
    uint8_t bytes[CONSOLE_CONTROL_SIZE];

    put(bytes, 4, id);
    put(bytes + 4, 2, event);
    put(bytes + 6, 2, value);
    memcpy(bytes + 8, more, length);
    (void)send_raw(bytes, 8 + length, 8 + length);
}

static void send(uint32_t id, uint32_t event, uint32_t value)
{
    send_long(id, event, value, "", 0);
}

static void send_resize(uint32_t id, uint32_t columns, uint32_t rows)
{
    uint8_t more[4];

    put(more, 2, columns);
    put(more + 2, 2, rows);
    send_long(id, MSG_RESIZE, 0, more, 4);
}

static void log_message(const uint8_t *bytes, uint32_t length)
{
    struct message *message = &rig.log[rig.logged++];

    cr_assert_lt(rig.logged, LOG);
    cr_assert_eq(length, 8);
    message->id = get(bytes, 4);
    message->event = get(bytes + 4, 2);
    message->value = get(bytes + 6, 2);
}

static void answer(const struct message *message)
{
    if (!rig.answers || message->event != MSG_PORT_READY || message->value != 1)
        return;
    send(message->id, MSG_CONSOLE, 1);
    send_long(message->id, MSG_NAME, 1, "name", 5);
    send(message->id, MSG_OPEN, 1);
}

static void consume(unsigned queue, const struct virtq_chain *chain)
{
    const struct virtq_seg *seg = chain->seg;
    const uint8_t *bytes = (const uint8_t *)map(NULL, seg->addr, seg->len);
    unsigned port = port_of(queue);

    cr_assert(chain->readable == 1 && chain->writable == 0); /* D-CON-02 */
    cr_assert_not_null(bytes);
    if (queue == CONTROL_OUT) {
        log_message(bytes, seg->len);
        return;
    }
    cr_assert_leq(seg->len, OUT - rig.out_length[port]);
    memcpy(rig.out[port] + rig.out_length[port], bytes, seg->len);
    rig.out_length[port] += seg->len;
}

/* What the driver made available on a queue for output. */
static void serve(unsigned queue)
{
    unsigned from = rig.logged;
    struct virtq_chain chain;
    struct virtq_seg seg;

    do {
        while (pop(queue, &chain, &seg)) {
            consume(queue, &chain);
            virtq_device_push(ring_of(queue), chain.token, 0);
        }
    } while (virtq_device_kick_on(ring_of(queue)));
    finish(queue);
    for (; from < rig.logged; from++)
        answer(&rig.log[from]);
}

static void kicked(void *ctx, uint16_t queue)
{
    (void)ctx;
    if (queue % 2 == 1 && (rig.held >> queue & 1) == 0)
        serve(queue);
}

static void config_written(void *ctx, bool legacy, uint32_t offset, const uint8_t *bytes,
                           uint32_t length)
{
    (void)ctx;
    (void)legacy;
    cr_assert(offset == 8 && length == 4);
    rig.emergency = (uint8_t)get(bytes, 4);
}

/* Input of a port: how many bytes there was room for. */
static unsigned input(unsigned port, const uint8_t *bytes, unsigned length)
{
    unsigned queue = in_queue(port), done = 0;
    struct virtq_chain chain;
    struct virtq_seg seg;

    while (done < length && pop(queue, &chain, &seg)) {
        unsigned piece = length - done < seg.len ? length - done : seg.len;

        cr_assert(chain.readable == 0 && chain.writable == 1); /* D-CON-02 */
        memcpy(map(NULL, seg.addr, seg.len), bytes + done, piece);
        virtq_device_push(ring_of(queue), chain.token, piece);
        done += piece;
    }
    finish(queue);
    return done;
}

/* Buffers for input that the device has of a port, each another one; they go back empty. */
static unsigned posted(unsigned port)
{
    unsigned queue = in_queue(port), count = 0;
    uint32_t tokens[CONSOLE_QUEUE_MAX];
    uint64_t addresses[CONSOLE_QUEUE_MAX];
    struct virtq_chain chain;
    struct virtq_seg seg;

    while (pop(queue, &chain, &seg)) {
        for (unsigned i = 0; i < count; i++)
            cr_assert_neq(seg.addr, addresses[i], "buffer posted twice");
        tokens[count] = chain.token;
        addresses[count++] = seg.addr;
    }
    for (unsigned i = 0; i < count; i++)
        virtq_device_push(ring_of(queue), tokens[i], 0);
    finish(queue);
    return count;
}

/* Completes a buffer that is none of the driver's. */
static void break_queue(unsigned queue)
{
    struct virtq_chain chain;
    struct virtq_seg seg;

    cr_assert(pop(queue, &chain, &seg));
    virtq_device_push(ring_of(queue), chain.token | 0x7fff, 0);
    finish(queue);
}

/* ----- the machine ----- */

static bool give_up(void *ctx)
{
    (void)ctx;
    rig.waits++;
    return false;
}

static void power_on(const struct way *way)
{
    static const struct virtio_dev_ops ops = {map,  kicked, NULL, NULL,          NULL,
                                              NULL, NULL,   NULL, config_written};
    struct function *f = &rig.function;

    memset(&rig, 0, sizeof(rig));
    memset(guest, 0xa5, sizeof(guest));
    f->view = way->view;
    for (unsigned i = 0; i < CONSOLE_QUEUES; i++)
        f->queue[i].max = i == CONTROL_IN || i == CONTROL_OUT ? 32 : 128;
    f->dev.ops = &ops;
    f->dev.device_type = CONSOLE_DEVICE_TYPE;
    f->dev.queue_count = CONSOLE_QUEUES;
    f->dev.big_endian = VIRTIO_BIG_ENDIAN;
    f->dev.config_length = 12;
    virtio_features_add(&f->dev.offered, FEATURE_MULTIPORT);
    virtio_features_add(&f->dev.offered, VIRTIO_FEATURE_INDIRECT_DESC);
    if (way->event_idx)
        virtio_features_add(&f->dev.offered, VIRTIO_FEATURE_EVENT_IDX);
    if (way->packed)
        virtio_features_add(&f->dev.offered, VIRTIO_FEATURE_RING_PACKED);
    if (way->in_order)
        virtio_features_add(&f->dev.offered, VIRTIO_FEATURE_IN_ORDER);
    put(f->config, 2, 80);
    put(f->config + 2, 2, 25);
    put(f->config + 4, 4, 31);
    rig.setup.memory.cpu = guest;
    rig.setup.memory.device = GUEST;
    rig.setup.memory.length = CONSOLE_MEMORY_SIZE;
    rig.setup.wait = give_up;
    cr_assert_eq(function_init(f), 0);
}

static void take_device(void)
{
    struct virtio_pci_config config = {function_pci_read32, NULL, &rig.function};
    struct virtio_pci_bar bars[6];

    if (function_is_mmio(rig.function.view)) {
        rig.windows[0] = function_window(&rig.function, 0);
        cr_assert_eq(virtio_drv_mmio(&rig.drv, &rig.windows[0]), 0);
        return;
    }
    function_pci_bars(&rig.function, bars);
    cr_assert_eq(virtio_pci_scan(&rig.layout, &config, bars, 0), 0);
    for (unsigned i = 0; i < 6; i++)
        rig.windows[i] = function_window(&rig.function, i);
    cr_assert_eq(virtio_drv_pci(&rig.drv, &rig.layout, rig.windows), 0);
}

static int start(void)
{
    take_device();
    return console_start(&rig.console, &rig.drv, &rig.setup);
}

/* What there is to be done, up to the next event. */
static int poll_any(void)
{
    struct console_event event;

    return console_poll(&rig.console, &event);
}

static void expect_sent(uint32_t id, uint32_t event, uint32_t value)
{
    const struct message *message = &rig.log[rig.seen++];

    cr_assert_leq(rig.seen, rig.logged, "message %u of port %u is missing", event, id);
    cr_assert(message->id == id && message->event == event && message->value == value,
              "sent %u %u %u for %u %u %u", message->id, message->event, message->value, id, event,
              value);
}

static void expect_event(enum console_event_kind kind, uint32_t port)
{
    struct console_event event = {CONSOLE_ADDED, 99, 0};

    cr_assert_eq(console_poll(&rig.console, &event), 1, "no event for %d on %u", (int)kind, port);
    cr_assert(event.kind == kind && event.port == port, "event %d on port %u", (int)event.kind,
              event.port);
}

static void expect_refused(uint32_t port, int error)
{
    struct console_event event = {CONSOLE_ADDED, 99, 0};

    cr_assert_eq(console_poll(&rig.console, &event), 1);
    cr_assert(event.kind == CONSOLE_REFUSED && event.port == port);
    cr_expect_eq(event.error, error, "%s", console_err_name(event.error));
}

static void expect_quiet(void)
{
    int got = poll_any();

    cr_assert_eq(got, 0, "%d", got);
    cr_assert_eq(rig.seen, rig.logged, "something was sent");
}

static void expect_drops(enum console_drop why, unsigned count)
{
    cr_expect_eq(rig.console.dropped[why], count, "%u dropped for %d", rig.console.dropped[why],
                 (int)why);
}

/* A port that is there and open on both sides. */
static void add_port(uint32_t port)
{
    send(port, MSG_ADD, 1);
    expect_event(CONSOLE_ADDED, port);
    cr_assert_eq(poll_any(), 0);
    expect_sent(port, MSG_PORT_READY, 1);
    cr_assert_eq(console_open(&rig.console, port), 0);
    cr_assert_eq(poll_any(), 0);
    expect_sent(port, MSG_OPEN, 1);
    send(port, MSG_OPEN, 1);
    expect_event(CONSOLE_OPENED, port);
    expect_quiet();
}

static void start_ways(unsigned way)
{
    int err;

    power_on(&ways[way]);
    err = start();
    cr_assert_eq(err, 0, "%s", console_err_name(err));
    expect_sent(0, MSG_READY, 1);
}

static void start_usual(void)
{
    start_ways(0);
}

static uint8_t pattern(unsigned port, unsigned at)
{
    return (uint8_t)(at * 7 + at / 251 + port * 31);
}

static void fill(uint8_t *bytes, unsigned length, unsigned port, unsigned at)
{
    for (unsigned i = 0; i < length; i++)
        bytes[i] = pattern(port, at + i);
}

/* Input and output of a port work. */
static void check_port(unsigned port)
{
    uint8_t bytes[700], back[1000];

    fill(bytes, sizeof(bytes), port, 0);
    cr_assert_eq(input(port, bytes, sizeof(bytes)), sizeof(bytes));
    (void)poll_any();
    cr_assert_eq(console_read(&rig.console, port, back, sizeof(back)), sizeof(bytes));
    cr_expect_eq(memcmp(bytes, back, sizeof(bytes)), 0);
    rig.out_length[port] = 0;
    cr_assert_eq(console_write(&rig.console, port, bytes, sizeof(bytes)), sizeof(bytes));
    cr_assert_eq(rig.out_length[port], sizeof(bytes));
    cr_expect_eq(memcmp(bytes, rig.out[port], sizeof(bytes)), 0);
}

/* ----- start ----- */

Test(console_start, ports_are_taken_named_opened_and_carry_data_both_ways)
{
    for (unsigned way = 0; way < WAYS; way++) { /* L-CON-01, L-CON-02, D-CON-01 to D-CON-03 */
        start_ways(way);
        for (uint32_t port = 0; port < CONSOLE_PORTS; port++) {
            add_port(port);
            send_long(port, MSG_NAME, 1, "a name", 6);
            expect_event(CONSOLE_NAMED, port);
            cr_expect_str_eq(rig.console.port[port].name, "a name");
        }
        for (unsigned round = 0; round < 50; round++) {
            for (uint32_t port = 0; port < CONSOLE_PORTS; port++)
                check_port(port);
        }
        expect_quiet();
        cr_expect_eq(console_stop(&rig.console), 0);
    }
}

Test(console_start, console_port_is_answered_with_port_open)
{
    start_usual(); /* D-CON-01 */
    send(0, MSG_ADD, 1);
    expect_event(CONSOLE_ADDED, 0);
    send(0, MSG_CONSOLE, 1);
    expect_event(CONSOLE_IS_CONSOLE, 0);
    cr_assert_eq(poll_any(), 0);
    expect_sent(0, MSG_PORT_READY, 1);
    expect_sent(0, MSG_OPEN, 1);
    check_port(0); /* whether or not anybody has it open on the other side */
    send(0, MSG_CONSOLE, 1);
    cr_assert_eq(poll_any(), 0);
    expect_sent(0, MSG_OPEN, 1);
    expect_quiet();
}

Test(console_start, one_console_without_multiport)
{
    struct console_size size;

    for (unsigned way = 0; way < WAYS; way++) {
        power_on(&ways[way]);
        rig.function.dev.offered.word[0] &= ~(1u << FEATURE_MULTIPORT);
        virtio_features_add(&rig.function.dev.offered, FEATURE_SIZE);
        rig.function.dev.queue_count = 2;
        cr_assert_eq(start(), 0);
        check_port(0);
        cr_assert_eq(console_size(&rig.console, 0, &size), 0);
        cr_expect(size.columns == 80 && size.rows == 25);
        cr_expect_eq(console_size(&rig.console, 1, &size), CONSOLE_ERR_PORT);
        cr_expect_eq(console_close(&rig.console, 0), CONSOLE_ERR_SINGLE);
        cr_expect_eq(console_read(&rig.console, 1, &size, 1), CONSOLE_ERR_PORT);
        cr_expect_eq(console_write(&rig.console, 1, &size, 1), CONSOLE_ERR_PORT);
        cr_expect_eq(rig.logged, 0);
    }
}

Test(console_start, what_cannot_work_is_named)
{
    power_on(&ways[0]);
    rig.setup.memory.length = 1000;
    cr_expect_eq(start(), CONSOLE_ERR_MEMORY);
    power_on(&ways[0]);
    rig.setup.memory.length = 100000; /* enough for the rings */
    cr_expect_eq(start(), CONSOLE_ERR_MEMORY);
    power_on(&ways[0]);
    put(rig.function.config + 4, 4, 0);
    cr_expect_eq(start(), CONSOLE_ERR_NO_PORTS);
    power_on(&ways[0]);
    rig.function.dev.queue_count = 5;
    cr_expect_eq(start(), VIRTIO_ERR_NO_QUEUE);
    power_on(&ways[3]); /* legacy: the size is the device's */
    rig.function.queue[6].max = 256;
    cr_expect_eq(start(), CONSOLE_ERR_QUEUE);
    cr_expect(rig.function.dev.reg.status & VIRTIO_STATUS_FAILED);
}

Test(console_start, memory_is_enough_for_any_queue_size)
{
    for (unsigned way = 0; way < WAYS; way++) {
        for (uint16_t max = 1; max <= 128; max = (uint16_t)(max * 2)) {
            power_on(&ways[way]);
            for (unsigned i = 0; i < CONSOLE_QUEUES; i++)
                rig.function.queue[i].max = max;
            cr_assert_eq(start(), 0);
            rig.seen++;
            add_port(7);
            cr_expect_eq(posted(7), max < CONSOLE_BUFFERS ? max : (unsigned)CONSOLE_BUFFERS);
        }
    }
}

/* ----- size, emergency ----- */

Test(console_size, configuration_is_that_of_port_0_and_resize_that_of_any)
{
    struct console_size size;

    for (unsigned way = 0; way < WAYS; way++) { /* D-CON-04 */
        power_on(&ways[way]);
        virtio_features_add(&rig.function.dev.offered, FEATURE_SIZE);
        cr_assert_eq(start(), 0);
        rig.seen++;
        add_port(0);
        add_port(1);
        cr_assert_eq(console_size(&rig.console, 0, &size), 0);
        cr_expect(size.columns == 80 && size.rows == 25);
        cr_expect_eq(console_size(&rig.console, 1, &size), CONSOLE_ERR_NO_SIZE);
        send_resize(1, 132, 43);
        expect_event(CONSOLE_RESIZED, 1);
        cr_assert_eq(console_size(&rig.console, 1, &size), 0);
        cr_expect(size.columns == 132 && size.rows == 43);
        put(rig.function.config, 2, 100);
        console_config_changed(&rig.console);
        expect_event(CONSOLE_RESIZED, 0);
        cr_assert_eq(console_size(&rig.console, 0, &size), 0);
        cr_expect(size.columns == 100 && size.rows == 25);
        console_config_changed(&rig.console); /* for nothing */
        expect_quiet();
        cr_assert_eq(console_size(&rig.console, 1, &size), 0);
        cr_expect(size.columns == 132 && size.rows == 43);
    }
}

Test(console_size, configuration_says_nothing_without_the_feature)
{
    struct console_size size;

    start_usual();
    add_port(0);
    cr_expect_eq(console_size(&rig.console, 0, &size), CONSOLE_ERR_NO_SIZE);
    console_config_changed(&rig.console);
    expect_quiet();
}

Test(console_emergency, writes_in_any_state_and_only_if_offered)
{
    for (unsigned way = 0; way < WAYS; way++) { /* V-CON-01 */
        power_on(&ways[way]);
        virtio_features_add(&rig.function.dev.offered, FEATURE_EMERG_WRITE);
        take_device();
        cr_expect_eq(console_emergency_write(&rig.drv, 'a'), 0); /* not even reset */
        cr_expect_eq(rig.emergency, 'a');
        cr_expect_eq(rig.function.dev.reg.status, 0);
        cr_assert_eq(start(), 0);
        cr_expect_eq(console_emergency_write(&rig.drv, '\xe9'), 0);
        cr_expect_eq(rig.emergency, 0xe9);
        virtio_drv_fail(&rig.drv);
        cr_expect_eq(console_emergency_write(&rig.drv, 'c'), 0);
        cr_expect_eq(rig.emergency, 'c');
    }
    start_usual();
    cr_expect_eq(console_emergency_write(&rig.drv, 'd'), CONSOLE_ERR_NO_EMERGENCY);
    cr_expect_eq(rig.emergency, 0);
}

/* ----- ids under failure ----- */

Test(console_ids, adding_what_is_there_changes_nothing)
{
    uint8_t bytes[100];

    start_usual(); /* V-CON-01 */
    add_port(3);
    fill(bytes, sizeof(bytes), 3, 0);
    cr_assert_eq(input(3, bytes, sizeof(bytes)), sizeof(bytes));
    send(3, MSG_ADD, 1);
    cr_assert_eq(poll_any(), 0);
    expect_sent(3, MSG_PORT_READY, 1); /* as ready as it was */
    expect_quiet();
    expect_drops(CONSOLE_DROP_DUPLICATE, 1);
    cr_expect_eq(console_read(&rig.console, 3, bytes, sizeof(bytes)), sizeof(bytes));
    cr_expect_eq(bytes[99], pattern(3, 99));
    cr_expect_eq(posted(3), CONSOLE_BUFFERS);
    expect_quiet();
    check_port(3);
}

Test(console_ids, ids_that_cannot_be_are_refused_and_the_others_go_on)
{
    static const uint32_t ids[] = {31, 32, 255, 65536, 0x80000000u, UINT32_MAX};
    uint8_t byte;

    start_usual(); /* V-CON-01 */
    add_port(1);
    for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        send(ids[i], MSG_ADD, 1);
        expect_refused(ids[i], CONSOLE_ERR_ID_RANGE);
        (void)poll_any();
        expect_sent(ids[i], MSG_PORT_READY, 0);
    }
    for (uint32_t id = CONSOLE_PORTS; id < 31; id++) {
        send(id, MSG_ADD, 1);
        expect_refused(id, CONSOLE_ERR_ID_QUEUES);
        (void)poll_any();
        expect_sent(id, MSG_PORT_READY, 0);
        send(id, MSG_REMOVE, 1);
    }
    expect_quiet();
    expect_drops(CONSOLE_DROP_PORT, 31 - CONSOLE_PORTS);
    check_port(1);
    cr_expect_eq(console_read(&rig.console, 31, &byte, 1), CONSOLE_ERR_PORT);
    cr_expect_eq(console_open(&rig.console, UINT32_MAX), CONSOLE_ERR_PORT);
    add_port(7);
    check_port(7);
}

Test(console_ids, fewer_ports_than_the_driver_could_have)
{
    power_on(&ways[0]);
    put(rig.function.config + 4, 4, 2);
    rig.function.dev.queue_count = 6;
    cr_assert_eq(start(), 0);
    rig.seen++;
    add_port(1);
    check_port(1);
    send(2, MSG_ADD, 1);
    expect_refused(2, CONSOLE_ERR_ID_RANGE);
}

Test(console_ids, a_port_whose_buffers_cannot_be_posted_leaves_its_id_free)
{
    uint8_t byte;

    for (unsigned way = 0; way < 2; way++) {
        start_ways(way);
        add_port(2);
        add_port(4);
        break_queue(in_queue(4));
        expect_quiet();
        cr_expect_eq(console_read(&rig.console, 4, &byte, 1), VIRTQ_ERR_USED_ID);
        send(4, MSG_REMOVE, 1);
        expect_event(CONSOLE_REMOVED, 4);
        for (unsigned i = 0; i < 3; i++) {
            send(4, MSG_ADD, 1);
            expect_refused(4, VIRTQ_ERR_USED_ID);
            (void)poll_any();
            expect_sent(4, MSG_PORT_READY, 0);
            cr_expect_eq(console_read(&rig.console, 4, &byte, 1), CONSOLE_ERR_PORT);
        }
        expect_drops(CONSOLE_DROP_DUPLICATE, 0);
        add_port(5);
        rig.held = 1u << (in_queue(5) + 1);
        cr_assert_eq(console_write(&rig.console, 5, "abc", 3), 3);
        break_queue(in_queue(5) + 1);
        rig.held = 0;
        send(5, MSG_REMOVE, 1);
        send(5, MSG_ADD, 1);
        expect_event(CONSOLE_REMOVED, 5);
        expect_refused(5, VIRTQ_ERR_USED_ID);
        cr_assert_eq(poll_any(), 0);
        expect_sent(5, MSG_PORT_READY, 0);
        check_port(2);
        cr_assert_eq(console_stop(&rig.console), 0); /* a reset mends it */
        cr_assert_eq(console_start(&rig.console, &rig.drv, &rig.setup), 0);
        expect_sent(0, MSG_READY, 1);
        add_port(4);
        check_port(4);
    }
}

Test(console_ids, removing_what_is_not_there_changes_nothing)
{
    start_usual();
    add_port(5);
    send(6, MSG_REMOVE, 1);
    send(UINT32_MAX, MSG_REMOVE, 1);
    send(31, MSG_REMOVE, 1);
    expect_quiet();
    expect_drops(CONSOLE_DROP_PORT, 3);
    check_port(5);
    send(5, MSG_REMOVE, 1);
    send(5, MSG_REMOVE, 1);
    expect_event(CONSOLE_REMOVED, 5);
    expect_quiet();
    expect_drops(CONSOLE_DROP_PORT, 4);
    add_port(5);
    check_port(5);
}

Test(console_ids, a_new_port_has_no_input_of_the_old_one)
{
    uint8_t bytes[BUFFERS], back[64];

    for (unsigned way = 0; way < WAYS; way++) {
        start_ways(way);
        add_port(2);
        fill(bytes, sizeof(bytes), 9, 0);
        cr_assert_eq(input(2, bytes, 1500), 1500);
        expect_quiet(); /* the driver has taken these from the queue, and one in part */
        cr_assert_eq(console_read(&rig.console, 2, back, 64), 64);
        cr_assert_eq(input(2, bytes, 1500), 1500); /* and not these */
        send(2, MSG_REMOVE, 1);
        send(2, MSG_ADD, 1);
        expect_event(CONSOLE_REMOVED, 2);
        expect_event(CONSOLE_ADDED, 2);
        (void)poll_any();
        expect_sent(2, MSG_PORT_READY, 1);
        cr_expect_eq(console_read(&rig.console, 2, back, 64), 0);
        expect_drops(CONSOLE_DROP_INPUT, 3000 - 64);
        cr_expect_str_eq(rig.console.port[2].name, "");
        cr_expect_eq(posted(2), CONSOLE_BUFFERS);
        cr_assert_eq(console_open(&rig.console, 2), 0);
        send(2, MSG_OPEN, 1);
        expect_event(CONSOLE_OPENED, 2);
        check_port(2);
        cr_expect_eq(posted(2), CONSOLE_BUFFERS);
    }
}

Test(console_ids, a_new_port_waits_for_output_of_the_old_one)
{
    uint8_t bytes[3000];

    for (unsigned way = 0; way < WAYS; way++) {
        start_ways(way);
        add_port(1);
        add_port(2);
        fill(bytes, sizeof(bytes), 9, 0);
        rig.held = 1u << (in_queue(2) + 1); /* the device is slow */
        cr_assert_eq(console_write(&rig.console, 2, bytes, sizeof(bytes)), sizeof(bytes));
        send(2, MSG_REMOVE, 1);
        expect_event(CONSOLE_REMOVED, 2);
        send(2, MSG_ADD, 1);
        expect_quiet(); /* no PORT_READY, of either kind */
        send(2, MSG_ADD, 1);
        send(2, MSG_OPEN, 1);
        expect_quiet();
        expect_drops(CONSOLE_DROP_DUPLICATE, 1);
        expect_drops(CONSOLE_DROP_PORT, 1);
        cr_expect_eq(console_write(&rig.console, 2, bytes, 1), CONSOLE_ERR_PORT);
        check_port(1);
        rig.held = 0;
        serve(in_queue(2) + 1);
        cr_expect_eq(console_wait(&rig.console), 0);
        cr_expect_eq(rig.waits, 0);
        expect_event(CONSOLE_ADDED, 2);
        (void)poll_any();
        expect_sent(2, MSG_PORT_READY, 1);
        send(2, MSG_OPEN, 1);
        expect_event(CONSOLE_OPENED, 2);
        cr_assert_eq(console_open(&rig.console, 2), 0);
        check_port(2);
    }
}

Test(console_ids, a_new_port_that_waits_can_be_removed)
{
    start_usual();
    add_port(2);
    rig.held = 1u << (in_queue(2) + 1);
    cr_assert_eq(console_write(&rig.console, 2, "old", 3), 3);
    send(2, MSG_REMOVE, 1);
    send(2, MSG_ADD, 1);
    send(2, MSG_REMOVE, 1);
    expect_event(CONSOLE_REMOVED, 2);
    expect_quiet(); /* the second one was never there */
    rig.held = 0;
    serve(in_queue(2) + 1);
    expect_quiet();
    rig.out_length[2] = 0;
    add_port(2);
    check_port(2);
}

Test(console_ids, output_that_the_device_lost_is_not_waited_for)
{
    struct virtq_chain chain;
    struct virtq_seg seg;
    uint8_t bytes[3000];

    for (unsigned way = 0; way < 2; way++) { /* QEMU does it when a socket is full */
        start_ways(way);
        add_port(2);
        rig.held = 1u << (in_queue(2) + 1);
        cr_assert_eq(console_write(&rig.console, 2, bytes, sizeof(bytes)), sizeof(bytes));
        cr_assert(pop(in_queue(2) + 1, &chain, &seg)); /* never to be seen again */
        send(2, MSG_REMOVE, 1);
        send(2, MSG_ADD, 1);
        expect_event(CONSOLE_REMOVED, 2);
        expect_quiet();
        rig.held = 0;
        serve(in_queue(2) + 1);
        expect_event(CONSOLE_ADDED, 2);
        cr_assert_eq(console_open(&rig.console, 2), 0);
        send(2, MSG_OPEN, 1);
        expect_event(CONSOLE_OPENED, 2);
        check_port(2);
        cr_expect_eq(console_flush(&rig.console, 2), 0);
    }
}

/* ----- control messages ----- */

Test(console_control, short_and_unknown_messages_are_dropped)
{
    static const uint32_t events[] = {MSG_READY, MSG_PORT_READY, 8, 0x1000, 0xffff};
    uint8_t bytes[16] = {0};

    start_usual();
    add_port(1);
    put(bytes, 4, 1);
    put(bytes + 4, 2, MSG_REMOVE);
    for (uint32_t length = 0; length < 8; length++)
        cr_assert(send_raw(bytes, 16, length)); /* all is there, the device says it is not */
    expect_quiet();
    expect_drops(CONSOLE_DROP_SHORT, 8);
    for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        send(1, events[i], 1);
    expect_quiet();
    expect_drops(CONSOLE_DROP_EVENT, 5);
    put(bytes + 4, 2, MSG_RESIZE);
    for (uint32_t length = 8; length < 12; length++)
        cr_assert(send_raw(bytes, 16, length));
    expect_quiet();
    expect_drops(CONSOLE_DROP_SHORT, 12);
    for (uint32_t event = MSG_CONSOLE; event <= MSG_NAME; event++)
        send(2, event, 1); /* not there */
    expect_quiet();
    expect_drops(CONSOLE_DROP_PORT, 4);
    check_port(1);
}

Test(console_control, names_end_where_they_should)
{
    char name[200];

    start_usual();
    add_port(1);
    send_long(1, MSG_NAME, 1, "terminated\0rest", 15); /* as QEMU's are */
    expect_event(CONSOLE_NAMED, 1);
    cr_expect_str_eq(rig.console.port[1].name, "terminated");
    send(1, MSG_NAME, 1);
    expect_event(CONSOLE_NAMED, 1);
    cr_expect_str_eq(rig.console.port[1].name, "");
    memset(name, 'n', sizeof(name));
    send_long(1, MSG_NAME, 1, name, CONSOLE_NAME_SIZE - 1);
    expect_event(CONSOLE_NAMED, 1);
    cr_expect_eq(strlen(rig.console.port[1].name), CONSOLE_NAME_SIZE - 1);
    expect_drops(CONSOLE_DROP_NAME, 0);
    send_long(1, MSG_NAME, 1, name, sizeof(name));
    expect_event(CONSOLE_NAMED, 1);
    cr_expect_eq(strlen(rig.console.port[1].name), CONSOLE_NAME_SIZE - 1);
    expect_drops(CONSOLE_DROP_NAME, 1);
    memcpy(name + CONSOLE_NAME_SIZE - 3, "\xe2\x82\xac", 3); /* one character, three bytes */
    send_long(1, MSG_NAME, 1, name, sizeof(name));
    expect_event(CONSOLE_NAMED, 1);
    cr_expect_eq(strlen(rig.console.port[1].name), CONSOLE_NAME_SIZE - 3);
    memset(name, 0x80, sizeof(name)); /* no character at all */
    send_long(1, MSG_NAME, 1, name, sizeof(name));
    expect_event(CONSOLE_NAMED, 1);
    cr_expect_str_eq(rig.console.port[1].name, "");
}

Test(console_control, message_longer_than_its_buffer_breaks_the_control_queue_only)
{
    uint8_t bytes[CONSOLE_CONTROL_SIZE];
    struct console_event event;

    for (unsigned way = 0; way < 2; way++) {
        start_ways(way);
        add_port(1);
        put(bytes, 4, 1);
        put(bytes + 4, 2, MSG_NAME);
        cr_assert(send_raw(bytes, sizeof(bytes), CONSOLE_CONTROL_SIZE + 1));
        cr_expect_eq(console_poll(&rig.console, &event), VIRTQ_ERR_USED_LEN);
        cr_expect_eq(console_poll(&rig.console, &event), VIRTQ_ERR_USED_LEN);
        check_port(1);
    }
}

Test(console_control, input_longer_than_its_buffer_breaks_that_port_only)
{
    struct virtq_chain chain;
    struct virtq_seg seg;
    uint8_t bytes[100];

    for (unsigned way = 0; way < 2; way++) {
        start_ways(way);
        add_port(1);
        add_port(2);
        cr_assert_eq(input(1, bytes, 100), 100);
        cr_assert(pop(in_queue(1), &chain, &seg));
        virtq_device_push(ring_of(in_queue(1)), chain.token, CONSOLE_BUFFER_SIZE + 1);
        finish(in_queue(1));
        expect_quiet();
        cr_expect_eq(console_read(&rig.console, 1, bytes, 100), 100); /* what came before */
        cr_expect_eq(console_read(&rig.console, 1, bytes, 100), VIRTQ_ERR_USED_LEN);
        check_port(2);
        rig.held = 1u << (in_queue(2) + 1);
        cr_assert_eq(console_write(&rig.console, 2, bytes, 100), 100);
        break_queue(in_queue(2) + 1);
        cr_expect_eq(console_write(&rig.console, 2, bytes, 100), VIRTQ_ERR_USED_ID);
        cr_expect_eq(console_flush(&rig.console, 2), VIRTQ_ERR_USED_ID);
        cr_expect_eq(console_read(&rig.console, 2, bytes, 100), 0); /* the other direction */
        add_port(3);
        check_port(3);
    }
}

Test(console_control, answers_are_sent_when_the_device_has_room_for_its_own)
{
    struct console_event event;
    unsigned added = 0, named = 0;

    for (unsigned way = 0; way < WAYS; way++) {
        start_ways(way);
        rig.answers = true; /* three messages for each port, at once */
        for (uint32_t id = 0; id < 31; id++)
            send(id, MSG_ADD, 1);
        for (added = named = 0; console_poll(&rig.console, &event) > 0;) {
            added += event.kind == CONSOLE_ADDED;
            named += event.kind == CONSOLE_NAMED;
            if (event.kind == CONSOLE_ADDED)
                cr_assert_eq(console_open(&rig.console, event.port), 0);
        }
        while (console_poll(&rig.console, &event) > 0)
            named += event.kind == CONSOLE_NAMED;
        cr_expect_eq(added, CONSOLE_PORTS);
        cr_expect_eq(named, CONSOLE_PORTS);
        cr_expect_eq(rig.unsent, 0, "%u messages were lost", rig.unsent);
    }
}

Test(console_control, without_room_for_answers_messages_wait)
{
    struct console_event event;
    unsigned refused = 0;

    for (unsigned way = 0; way < WAYS; way++) {
        start_ways(way);
        add_port(1);
        rig.held = 1u << CONTROL_OUT;
        for (uint32_t i = 0, next = 100; i < 2; i++) {
            while (rig.unsent == 0)
                send(next++, MSG_ADD, 1);
            while (console_poll(&rig.console, &event) > 0)
                refused++;
            rig.unsent = 0;
        }
        cr_expect_eq(refused, CONSOLE_CONTROLS);
        cr_expect_eq(console_close(&rig.console, 1), CONSOLE_ERR_BUSY);
        check_port(1);
        cr_expect_eq(console_wait(&rig.console), CONSOLE_ERR_TIMEOUT); /* and did not spin */
        rig.held = 0;
        serve(CONTROL_OUT);
        cr_expect_eq(console_wait(&rig.console), 0);
        while (console_poll(&rig.console, &event) > 0)
            refused++;
        cr_expect_eq(refused, 2 * CONSOLE_CONTROLS);
        for (uint32_t i = 0; i < 2 * CONSOLE_CONTROLS; i++)
            expect_sent(100 + i + i / CONSOLE_CONTROLS, MSG_PORT_READY, 0);
        refused = 0;
    }
}

/* ----- data ----- */

Test(console_data, buffers_go_back_when_they_were_read)
{
    static uint8_t bytes[2 * BUFFERS], back[2 * BUFFERS];

    for (unsigned way = 0; way < WAYS; way++) {
        start_ways(way);
        add_port(1);
        add_port(2);
        fill(bytes, sizeof(bytes), 1, 0);
        cr_assert_eq(input(1, bytes, sizeof(bytes)), BUFFERS);
        for (unsigned i = 0; i < 3; i++) {
            expect_quiet();
            cr_assert_eq(input(1, bytes + BUFFERS, BUFFERS), 0);
        }
        check_port(2);
        cr_expect_eq(console_read(&rig.console, 1, back, CONSOLE_BUFFER_SIZE - 1),
                     CONSOLE_BUFFER_SIZE - 1);
        cr_expect_eq(input(1, bytes + BUFFERS, BUFFERS), 0); /* one byte is not read */
        cr_expect_eq(console_read(&rig.console, 1, back + CONSOLE_BUFFER_SIZE - 1, 1), 1);
        cr_expect_eq(input(1, bytes + BUFFERS, BUFFERS), CONSOLE_BUFFER_SIZE);
        cr_expect_eq(console_read(&rig.console, 1, back + CONSOLE_BUFFER_SIZE, sizeof(back)),
                     BUFFERS - CONSOLE_BUFFER_SIZE);
        expect_quiet();
        cr_expect_eq(console_read(&rig.console, 1, back + BUFFERS, BUFFERS), CONSOLE_BUFFER_SIZE);
        cr_expect_eq(memcmp(bytes, back, BUFFERS + CONSOLE_BUFFER_SIZE), 0);
        cr_expect_eq(posted(1), CONSOLE_BUFFERS);
    }
}

Test(console_data, a_write_says_how_much_was_taken)
{
    static uint8_t bytes[2 * BUFFERS];

    for (unsigned way = 0; way < WAYS; way++) {
        start_ways(way);
        add_port(1);
        fill(bytes, sizeof(bytes), 1, 0);
        rig.held = 1u << (in_queue(1) + 1);
        cr_assert_eq(console_write(&rig.console, 1, bytes, sizeof(bytes)), BUFFERS);
        cr_assert_eq(console_write(&rig.console, 1, bytes, 1), 0);
        cr_expect_eq(console_wait(&rig.console), CONSOLE_ERR_TIMEOUT);
        cr_expect_eq(console_flush(&rig.console, 1), CONSOLE_ERR_TIMEOUT);
        serve(in_queue(1) + 1);
        cr_expect_eq(console_wait(&rig.console), 0); /* there is room */
        cr_assert_eq(console_write(&rig.console, 1, bytes + BUFFERS, BUFFERS - 1), BUFFERS - 1);
        rig.held = 0;
        serve(in_queue(1) + 1);
        cr_expect_eq(console_flush(&rig.console, 1), 0);
        cr_expect_eq(console_write(&rig.console, 1, bytes + sizeof(bytes) - 1, 1), 1);
        cr_expect_eq(rig.out_length[1], sizeof(bytes));
        cr_expect_eq(memcmp(bytes, rig.out[1], sizeof(bytes)), 0);
    }
}

Test(console_data, a_closed_port_takes_and_gives_nothing)
{
    uint8_t bytes[1000];

    start_usual();
    send(1, MSG_ADD, 1);
    expect_event(CONSOLE_ADDED, 1);
    cr_expect_eq(console_write(&rig.console, 1, bytes, 10), CONSOLE_ERR_CLOSED);
    cr_assert_eq(input(1, bytes, 1000), 1000); /* nobody asked for it */
    (void)poll_any();
    expect_drops(CONSOLE_DROP_INPUT, 1000);
    cr_expect_eq(console_read(&rig.console, 1, bytes, 1000), 0);
    expect_sent(1, MSG_PORT_READY, 1);
    cr_assert_eq(input(1, bytes, 1000), 1000);
    cr_assert_eq(console_open(&rig.console, 1), 0);
    cr_assert_eq(console_open(&rig.console, 1), 0); /* once is enough */
    cr_expect_eq(console_write(&rig.console, 1, bytes, 10), CONSOLE_ERR_CLOSED);
    send(1, MSG_OPEN, 1);
    send(1, MSG_OPEN, 1);
    expect_event(CONSOLE_OPENED, 1);
    (void)poll_any();
    expect_sent(1, MSG_OPEN, 1);
    expect_quiet();
    cr_expect_eq(console_read(&rig.console, 1, bytes, 1000), 0);
    expect_drops(CONSOLE_DROP_INPUT, 2000);
    check_port(1);
    cr_assert_eq(input(1, bytes, 1000), 1000);
    cr_assert_eq(console_close(&rig.console, 1), 0);
    cr_assert_eq(console_wait(&rig.console), CONSOLE_ERR_TIMEOUT);
    expect_sent(1, MSG_OPEN, 0); /* not later than that */
    cr_assert_eq(console_open(&rig.console, 1), 0);
    cr_expect_eq(console_read(&rig.console, 1, bytes, 1000), 0);
    expect_drops(CONSOLE_DROP_INPUT, 3000);
    send(1, MSG_OPEN, 0);
    expect_event(CONSOLE_CLOSED, 1);
    cr_expect_eq(console_write(&rig.console, 1, bytes, 10), CONSOLE_ERR_CLOSED);
    cr_expect_eq(posted(1), CONSOLE_BUFFERS);
}

Test(console_data, waiting_ends_at_once_only_for_what_is_new)
{
    uint8_t bytes[1000];

    for (unsigned way = 0; way < WAYS; way++) {
        start_ways(way);
        add_port(1);
        cr_expect_eq(console_wait(&rig.console), CONSOLE_ERR_TIMEOUT);
        cr_assert_eq(input(1, bytes, 1000), 1000);
        cr_expect_eq(console_wait(&rig.console), 0);
        expect_quiet();
        cr_expect_eq(console_wait(&rig.console), CONSOLE_ERR_TIMEOUT); /* not read, but seen */
        send(1, MSG_OPEN, 0);
        cr_expect_eq(console_wait(&rig.console), 0);
        expect_event(CONSOLE_CLOSED, 1);
        console_config_changed(&rig.console);
        cr_expect_eq(console_wait(&rig.console), 0);
        virtio_dev_needs_reset(&rig.function.dev);
        if (!function_is_legacy(rig.function.view)) {
            cr_expect_eq(poll_any(), CONSOLE_ERR_DEVICE);
            cr_expect_eq(console_wait(&rig.console), CONSOLE_ERR_DEVICE);
        }
    }
}

/* ----- at random ----- */

static uint32_t seed;

static unsigned random_below(unsigned limit)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % limit;
}

/* One step of one port: positions in four endless patterns must agree. */
struct stream {
    unsigned in_sent, in_got, out_sent, out_got;
};

static void check_output(unsigned port, struct stream *stream)
{
    for (unsigned i = 0; i < rig.out_length[port]; i++) {
        uint8_t due = pattern(port + 100, stream->out_got++);

        cr_assert_eq(rig.out[port][i], due, "port %u, output byte %u", port, stream->out_got - 1);
    }
    rig.out_length[port] = 0;
}

static void check_input(unsigned port, struct stream *stream)
{
    uint8_t bytes[3000];
    int got = console_read(&rig.console, port, bytes, random_below(sizeof(bytes)));

    cr_assert_geq(got, 0);
    for (int i = 0; i < got; i++) {
        uint8_t due = pattern(port, stream->in_got++);

        cr_assert_eq(bytes[i], due, "port %u, input byte %u", port, stream->in_got - 1);
    }
}

static void step(unsigned port, struct stream *stream)
{
    uint8_t bytes[3000];
    unsigned length = random_below(sizeof(bytes)), queue = in_queue(port) + 1;
    int taken;

    switch (random_below(4)) {
    case 0:
        fill(bytes, length, port, stream->in_sent);
        stream->in_sent += input(port, bytes, length);
        break;
    case 1: check_input(port, stream); break;
    case 2:
        fill(bytes, length, port + 100, stream->out_sent);
        taken = console_write(&rig.console, port, bytes, length);
        cr_assert_geq(taken, 0);
        stream->out_sent += (unsigned)taken;
        break;
    default:
        rig.held ^= 1u << queue;
        if ((rig.held >> queue & 1) == 0)
            serve(queue);
        break;
    }
    check_output(port, stream);
}

static void replace_port(unsigned port, struct stream *stream)
{
    static const struct stream fresh = {0, 0, 0, 0};

    rig.held &= ~(1u << (in_queue(port) + 1));
    serve(in_queue(port) + 1);
    check_output(port, stream);
    send(port, MSG_REMOVE, 1);
    expect_event(CONSOLE_REMOVED, port);
    rig.seen = rig.logged = 0;
    add_port(port);
    *stream = fresh;
}

Test(console_random, no_byte_is_lost_or_doubled_on_any_port)
{
    for (unsigned way = 0; way < WAYS; way++) {
        struct stream streams[CONSOLE_PORTS] = {{0, 0, 0, 0}};

        seed = 1 + way;
        start_ways(way);
        for (uint32_t port = 0; port < CONSOLE_PORTS; port++)
            add_port(port);
        for (unsigned i = 0; i < 20000; i++) {
            unsigned port = random_below(CONSOLE_PORTS);

            if (random_below(200) == 0)
                replace_port(port, &streams[port]);
            else
                step(port, &streams[port]);
            if (random_below(3) == 0)
                expect_quiet();
        }
    }
}

/* Whatever a device says on the control queue, a port that is there works. */
Test(console_random, control_messages_of_any_kind_do_no_harm)
{
    struct console_event event;

    for (unsigned way = 0; way < WAYS; way++) {
        seed = 77 + way;
        start_ways(way);
        for (unsigned i = 0; i < 20000; i++) {
            uint8_t bytes[CONSOLE_CONTROL_SIZE];

            for (unsigned k = 0; k < sizeof(bytes); k++)
                bytes[k] = (uint8_t)random_below(256);
            put(bytes, 4, random_below(20) == 0 ? seed : random_below(CONSOLE_PORTS + 2));
            put(bytes + 4, 2, random_below(20) == 0 ? seed & 0xffff : random_below(9));
            (void)send_raw(bytes, sizeof(bytes), random_below(sizeof(bytes) + 1));
            if (random_below(4) == 0)
                (void)console_poll(&rig.console, &event);
            rig.logged = 0;
        }
        while (console_poll(&rig.console, &event) > 0)
            rig.logged = 0;
        rig.seen = rig.logged = 0;
        for (uint32_t port = 0; port < CONSOLE_PORTS; port++) {
            send(port, MSG_REMOVE, 1);
            (void)console_poll(&rig.console, &event);
            add_port(port);
            check_port(port);
            cr_expect_eq(posted(port), CONSOLE_BUFFERS);
        }
    }
}
