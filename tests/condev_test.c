// SPDX-License-Identifier: MIT-0
/* The console device: what it tells a driver and when, under messages that make sense and under
 * those that make none, chain by chain; then with the console driver, over rings of either format. */
#include <criterion/criterion.h>
#include <string.h>

#include "examples/device/console.h"
#include "examples/device/function.h"
#include "examples/driver/console.h"

enum {
    GUEST = 0x40000000,
    GUEST_SIZE = 1 << 20,
    PORTS = 5,
    CHUNK = 4096,    /* of what the host side is seen to take and give */
    STREAM = 1 << 17, /* bytes kept of what came out of a port */
    MSG_READY = 0,
    MSG_ADD = 1,
    MSG_REMOVE = 2,
    MSG_PORT_READY = 3,
    MSG_CONSOLE = 4,
    MSG_RESIZE = 5,
    MSG_OPEN = 6,
    MSG_NAME = 7
};

/* The host side of a port. */
struct host {
    uint8_t out[STREAM];
    unsigned out_length;
    unsigned room; /* bytes that it takes yet */
    const uint8_t *in;
    unsigned in_length;
    unsigned opened, closed;
    bool leaves; /* at the next byte */
};

static struct condev dev;
static struct host hosts[PORTS];
static _Alignas(4096) uint8_t guest[GUEST_SIZE];

static void *map(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    if (addr < GUEST || addr - GUEST > GUEST_SIZE || len > GUEST_SIZE - (addr - GUEST))
        return NULL;
    return guest + (addr - GUEST);
}

static uint32_t take_output(void *ctx, uint32_t id, const uint8_t *bytes, uint32_t length)
{
    struct host *host = &hosts[id];
    uint32_t taken = length < host->room ? length : host->room;

    cr_assert(ctx == &dev && length > 0 && length <= CONDEV_PIECE);
    cr_assert_leq(host->out_length + taken, STREAM);
    memcpy(host->out + host->out_length, bytes, taken);
    host->out_length += taken;
    host->room -= taken;
    if (host->leaves)
        condev_connect(&dev, id, false);
    return taken;
}

static uint32_t give_input(void *ctx, uint32_t id, uint8_t *bytes, uint32_t room)
{
    struct host *host = &hosts[id];
    uint32_t given = host->in_length < room ? host->in_length : room;

    cr_assert(ctx == &dev && room > 0 && room <= CONDEV_PIECE);
    memcpy(bytes, host->in, given);
    host->in += given;
    host->in_length -= given;
    if (host->leaves)
        condev_connect(&dev, id, false);
    return given;
}

static void opened(void *ctx, uint32_t id, bool open)
{
    cr_assert(ctx == &dev);
    if (open)
        hosts[id].opened++;
    else
        hosts[id].closed++;
}

static void power_on(void)
{
    static const struct condev_ops ops = {take_output, give_input, opened};

    memset(&dev, 0, sizeof(dev));
    memset(hosts, 0, sizeof(hosts));
    memset(guest, 0xa5, sizeof(guest));
    dev.ops = &ops;
    dev.ops_ctx = &dev;
    dev.map = map;
    dev.port_count = PORTS;
    dev.multiport = true;
    for (unsigned id = 0; id < PORTS; id++) {
        hosts[id].room = STREAM;
        hosts[id].in = guest;
    }
}

/* ----- chain by chain ----- */

static void put(uint8_t *at, unsigned width, uint32_t value)
{
    for (unsigned i = 0; i < width; i++)
        at[dev.big_endian ? width - 1 - i : i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get(const uint8_t *at, unsigned width)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value = value << 8 | at[dev.big_endian ? i : width - 1 - i];
    return value;
}

static unsigned in_queue(unsigned port)
{
    return port == 0 ? 0 : 2 + 2 * port;
}

/* Gives the device one chain: `readable` bytes at the start of the memory, then room for `writable`
 * ones, in segments of at most `cut`. */
static uint32_t chain_of(unsigned queue, uint32_t readable, uint32_t writable, uint32_t cut)
{
    static struct virtq_seg seg[2048];
    struct virtq_chain chain = {0};
    uint32_t at = 0, total = readable + writable;

    chain.seg = seg;
    while (at < total) {
        uint32_t end = at < readable ? readable : total, left = end - at;
        unsigned index = (unsigned)chain.readable + chain.writable;

        cr_assert_lt(index, 2048);
        seg[index].addr = GUEST + at;
        seg[index].len = left < cut ? left : cut;
        if (at < readable)
            chain.readable++;
        else
            chain.writable++;
        at += seg[index].len;
    }
    return condev_answer(&dev, queue, &chain);
}

static void from_driver(uint32_t id, uint32_t event, uint32_t value)
{
    put(guest, 4, id);
    put(guest + 4, 2, event);
    put(guest + 6, 2, value);
    cr_assert_eq(chain_of(CONDEV_CONTROL_OUT, 8, 0, 8), 0);
}

static void expect_told(uint32_t id, uint32_t event, uint32_t value)
{
    uint32_t length = chain_of(CONDEV_CONTROL_IN, 0, 256, 256);

    cr_assert_neq(length, CONDEV_LATER, "message %u of port %u is missing", event, id);
    cr_assert_geq(length, 8);
    cr_assert(get(guest, 4) == id && get(guest + 4, 2) == event && get(guest + 6, 2) == value,
              "told %u %u %u for %u %u %u", get(guest, 4), get(guest + 4, 2), get(guest + 6, 2), id,
              event, value);
}

static void expect_silence(void)
{
    cr_assert_eq(chain_of(CONDEV_CONTROL_IN, 0, 256, 256), CONDEV_LATER);
}

static void expect_drops(unsigned is_short, unsigned event, unsigned port, unsigned order)
{
    cr_expect_eq(dev.dropped[CONDEV_DROP_SHORT], is_short);
    cr_expect_eq(dev.dropped[CONDEV_DROP_EVENT], event);
    cr_expect_eq(dev.dropped[CONDEV_DROP_PORT], port);
    cr_expect_eq(dev.dropped[CONDEV_DROP_ORDER], order);
}

/* A port that is there, connected, and open on both sides, in a device that is ready. */
static void bring_up(uint32_t id)
{
    condev_plug(&dev, id, NULL, false);
    condev_connect(&dev, id, true);
    if (!dev.started)
        from_driver(UINT32_MAX, MSG_READY, 1);
    expect_told(id, MSG_ADD, 1);
    from_driver(id, MSG_PORT_READY, 1);
    expect_told(id, MSG_OPEN, 1);
    from_driver(id, MSG_OPEN, 1);
    expect_silence();
}

static void bring_up_again(uint32_t id)
{
    condev_reset(&dev);
    bring_up(id);
}

Test(condev_control, a_port_is_told_of_in_order_and_once)
{
    for (unsigned big = 0; big < 2; big++) { /* L-CON-01, L-CON-02, V-CON-01 */
        power_on();
        dev.big_endian = big == 1;
        condev_plug(&dev, 0, NULL, true);
        condev_resize(&dev, 0, 80, 25);
        condev_plug(&dev, 3, "a name", false);
        condev_connect(&dev, 3, true);
        expect_silence();
        from_driver(0, MSG_READY, 1);
        expect_told(0, MSG_ADD, 1);
        expect_told(3, MSG_ADD, 1);
        expect_silence();
        from_driver(3, MSG_PORT_READY, 1);
        expect_told(3, MSG_NAME, 1);
        cr_expect_eq(memcmp(guest + 8, "a name\xa5", 7), 0); /* no terminator */
        expect_told(3, MSG_OPEN, 1);
        from_driver(0, MSG_PORT_READY, 1);
        expect_told(0, MSG_CONSOLE, 1);
        expect_told(0, MSG_RESIZE, 1);
        cr_expect(get(guest + 8, 2) == 80 && get(guest + 10, 2) == 25);
        expect_silence();
        from_driver(0, MSG_OPEN, 1);
        from_driver(0, MSG_OPEN, 1);
        cr_expect(hosts[0].opened == 1 && hosts[3].opened == 0);
        from_driver(0, MSG_OPEN, 0);
        cr_expect(hosts[0].closed == 1);
        condev_resize(&dev, 0, 100, 50);
        expect_told(0, MSG_RESIZE, 1);
        cr_expect(get(guest + 8, 2) == 100 && get(guest + 10, 2) == 50);
        expect_silence();
        expect_drops(0, 0, 0, 0);
    }
}

Test(condev_control, each_end_is_told_before_the_next_beginning)
{
    power_on();
    bring_up(1);
    condev_connect(&dev, 1, false);
    condev_connect(&dev, 1, true);
    condev_connect(&dev, 1, false);
    condev_connect(&dev, 1, true);
    expect_told(1, MSG_OPEN, 0);
    expect_told(1, MSG_OPEN, 1);
    expect_silence();
    condev_connect(&dev, 1, false);
    condev_connect(&dev, 1, true);
    condev_connect(&dev, 1, false);
    expect_told(1, MSG_OPEN, 0);
    expect_silence();
    condev_connect(&dev, 1, true);
    condev_connect(&dev, 1, false);
    expect_silence(); /* nobody heard of it */
    condev_connect(&dev, 1, true);
    expect_told(1, MSG_OPEN, 1);
    condev_connect(&dev, 1, true);
    expect_silence(); /* it has not ended */
    condev_connect(&dev, 1, false);
    from_driver(0, MSG_READY, 1); /* who knows of no beginning */
    expect_told(1, MSG_ADD, 1);
    from_driver(1, MSG_PORT_READY, 1);
    expect_silence();
}

Test(condev_control, a_port_that_is_replaced_is_removed_first)
{
    power_on(); /* V-CON-01 */
    bring_up(1);
    condev_unplug(&dev, 1);
    condev_plug(&dev, 1, "other", false);
    condev_connect(&dev, 1, true);
    cr_expect_eq(chain_of(in_queue(1) + 1, 100, 0, 100), 0); /* of the old one */
    cr_expect_eq(hosts[1].out_length, 0);
    expect_told(1, MSG_REMOVE, 1);
    cr_expect_eq(hosts[1].closed, 1);
    expect_told(1, MSG_ADD, 1);
    expect_silence();
    from_driver(1, MSG_PORT_READY, 1);
    expect_told(1, MSG_NAME, 1);
    expect_told(1, MSG_OPEN, 1);
    condev_unplug(&dev, 1);
    expect_told(1, MSG_REMOVE, 1);
    expect_silence();
    condev_plug(&dev, 1, NULL, false);
    condev_unplug(&dev, 1); /* nobody heard of it */
    expect_silence();
    bring_up(1);
    condev_resize(&dev, 1, 10, 20);
    condev_unplug(&dev, 1);
    expect_told(1, MSG_REMOVE, 1);
    condev_plug(&dev, 1, NULL, false);
    expect_told(1, MSG_ADD, 1);
    from_driver(1, MSG_PORT_READY, 1);
    expect_silence(); /* neither connected nor of a size */
}

Test(condev_control, a_driver_that_cannot_take_a_port_hears_of_its_end_only)
{
    power_on();
    condev_plug(&dev, 2, "name", true);
    condev_connect(&dev, 2, true);
    from_driver(0, MSG_READY, 1);
    expect_told(2, MSG_ADD, 1);
    from_driver(2, MSG_PORT_READY, 0);
    condev_resize(&dev, 2, 1, 2);
    expect_silence();
    condev_unplug(&dev, 2);
    expect_told(2, MSG_REMOVE, 1);
    expect_silence();
}

Test(condev_control, device_ready_starts_over)
{
    power_on();
    bring_up(1);
    from_driver(0, MSG_READY, 1);
    cr_expect_eq(hosts[1].closed, 1);
    expect_told(1, MSG_ADD, 1);
    from_driver(0, MSG_READY, 0);
    expect_silence();
    from_driver(1, MSG_PORT_READY, 1);
    expect_drops(0, 0, 1, 0);
    bring_up(1);
    condev_reset(&dev);
    cr_expect_eq(hosts[1].closed, 2);
    expect_silence();
}

Test(condev_control, messages_that_make_no_sense_have_no_effect)
{
    power_on();
    bring_up(1);
    condev_plug(&dev, 2, NULL, false);
    expect_told(2, MSG_ADD, 1);
    for (uint32_t length = 0; length < 8; length++) {
        put(guest, 4, 1);
        put(guest + 4, 2, MSG_OPEN);
        cr_assert_eq(chain_of(CONDEV_CONTROL_OUT, length, 0, 8), 0);
    }
    expect_drops(8, 0, 0, 0);
    memset(guest, 0, 8);
    cr_assert_eq(chain_of(CONDEV_CONTROL_OUT, 0, 100, 8), 0); /* the wrong direction */
    expect_drops(9, 0, 0, 0);
    for (uint32_t event = 0; event < 65536; event += event < 20 ? 1 : 4093) {
        if (event != MSG_READY && event != MSG_PORT_READY && event != MSG_OPEN)
            from_driver(1, event, 0);
    }
    cr_expect(dev.dropped[CONDEV_DROP_EVENT] > 30);
    dev.dropped[CONDEV_DROP_EVENT] = 0;
    from_driver(0, MSG_PORT_READY, 1); /* not plugged in */
    from_driver(PORTS, MSG_PORT_READY, 1);
    from_driver(PORTS, MSG_OPEN, 0);
    from_driver(UINT32_MAX, MSG_OPEN, 1);
    expect_drops(9, 0, 4, 0);
    from_driver(2, MSG_OPEN, 1); /* before it is ready */
    from_driver(1, MSG_PORT_READY, 1);
    from_driver(1, MSG_PORT_READY, 0);
    expect_drops(9, 0, 4, 3);
    expect_silence();
    cr_expect(hosts[1].opened == 1 && hosts[1].closed == 0);
    cr_expect(dev.port[1].open && dev.port[1].ready);
}

Test(condev_control, a_longer_message_is_its_beginning)
{
    power_on();
    bring_up(1);
    put(guest, 4, 1);
    put(guest + 4, 2, MSG_OPEN);
    put(guest + 6, 2, 0);
    cr_assert_eq(chain_of(CONDEV_CONTROL_OUT, 1000, 100, 3), 0);
    cr_expect_eq(hosts[1].closed, 1);
    expect_drops(0, 0, 0, 0);
}

Test(condev_control, a_buffer_gets_what_it_has_room_for)
{
    power_on();
    condev_plug(&dev, 1, "some name", false);
    from_driver(0, MSG_READY, 1);
    for (uint32_t room = 0; room < 8; room++)
        cr_expect_eq(chain_of(CONDEV_CONTROL_IN, 0, room, 8), 0);
    cr_expect_eq(chain_of(CONDEV_CONTROL_IN, 100, 0, 100), 0); /* the wrong direction */
    expect_told(1, MSG_ADD, 1);
    from_driver(1, MSG_PORT_READY, 1);
    cr_expect_eq(chain_of(CONDEV_CONTROL_IN, 50, 12, 1), 12);
    cr_expect_eq(get(guest + 54, 2), MSG_NAME);
    cr_expect_eq(memcmp(guest + 58, "some\xa5", 5), 0);
    expect_silence();
    cr_expect_eq(chain_of(CONDEV_CONTROL_IN, 0, 7, 8), 0); /* at once, if there is nothing to say */
}

Test(condev_control, a_message_for_a_buffer_outside_memory_is_not_lost)
{
    struct virtq_seg seg = {GUEST + GUEST_SIZE - 4, 8};
    struct virtq_chain chain = {0};

    power_on();
    condev_plug(&dev, 1, NULL, false);
    from_driver(0, MSG_READY, 1);
    chain.seg = &seg;
    chain.writable = 1;
    cr_expect_eq(condev_answer(&dev, CONDEV_CONTROL_IN, &chain), 0);
    expect_told(1, MSG_ADD, 1);
    chain.writable = 0;
    chain.readable = 1;
    cr_expect_eq(condev_answer(&dev, CONDEV_CONTROL_OUT, &chain), 0);
    expect_drops(1, 0, 0, 0);
}

Test(condev_control, names_have_a_limit)
{
    char name[200];

    power_on();
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    condev_plug(&dev, 0, name, false);
    from_driver(0, MSG_READY, 1);
    expect_told(0, MSG_ADD, 1);
    from_driver(0, MSG_PORT_READY, 1);
    cr_expect_eq(chain_of(CONDEV_CONTROL_IN, 0, 256, 256), 8 + CONDEV_NAME_MAX);
}

Test(condev_control, without_multiport_there_is_port_0_and_no_control)
{
    power_on();
    dev.multiport = false;
    condev_plug(&dev, 0, NULL, true);
    condev_plug(&dev, 1, NULL, false);
    condev_connect(&dev, 0, true);
    condev_connect(&dev, 1, true);
    from_driver(0, MSG_READY, 1);
    cr_expect_eq(chain_of(CONDEV_CONTROL_IN, 0, 256, 256), 0);
    hosts[0].in = hosts[1].in = (const uint8_t *)"bytes";
    hosts[0].in_length = hosts[1].in_length = 5;
    cr_expect_eq(chain_of(0, 0, 100, 100), 5);
    cr_expect_eq(chain_of(1, 7, 0, 7), 0);
    cr_expect_eq(hosts[0].out_length, 7);
    cr_expect_eq(chain_of(in_queue(1), 0, 100, 100), CONDEV_LATER);
    cr_expect_eq(chain_of(in_queue(1) + 1, 7, 0, 7), 0);
    cr_expect_eq(hosts[1].out_length, 0);
}

/* ----- configuration ----- */

Test(condev_config, fields_are_where_they_belong)
{
    uint8_t config[CONDEV_CONFIG_SIZE];

    for (unsigned big = 0; big < 2; big++) { /* L-CON-01 */
        power_on();
        dev.big_endian = big == 1;
        cr_expect_eq(condev_features(&dev), 6);
        condev_resize(&dev, 1, 300, 400); /* D-CON-04: not this one */
        cr_expect_eq(condev_features(&dev), 6);
        condev_resize(&dev, 0, 132, 43);
        cr_expect_eq(condev_features(&dev), 7);
        memset(config, 0xff, sizeof(config));
        condev_config(&dev, config);
        cr_expect(get(config, 2) == 132 && get(config + 2, 2) == 43);
        cr_expect(get(config + 4, 4) == PORTS && get(config + 8, 4) == 0);
    }
}

Test(condev_config, an_emergency_write_is_its_low_byte)
{
    for (unsigned big = 0; big < 2; big++) { /* V-CON-01 */
        static const uint8_t little[] = {0, 0, 0, 0, 'l', 0, 0, 'b'};
        uint32_t low = big == 1 ? 11 : 8;

        power_on();
        dev.big_endian = big == 1;
        condev_plug(&dev, 0, NULL, true);
        condev_config_write(&dev, 8, little + 4, 4); /* nobody there */
        condev_connect(&dev, 0, true);
        cr_expect_eq(hosts[0].out_length, 0);
        condev_config_write(&dev, 8, little + 4, 4);
        condev_config_write(&dev, 4, little, 8);
        condev_config_write(&dev, low, (const uint8_t *)"1", 1);
        cr_expect_eq(hosts[0].out_length, 3);
        cr_expect_eq(memcmp(hosts[0].out, big == 1 ? "bb1" : "ll1", 3), 0);
        condev_config_write(&dev, 0, little, 8);
        condev_config_write(&dev, low + 1, little, 4);
        condev_config_write(&dev, low, little, 0);
        condev_config_write(&dev, UINT32_MAX, little, 4);
        cr_expect_eq(hosts[0].out_length, 3);
    }
}

/* ----- data ----- */

static uint8_t pattern(unsigned port, unsigned at)
{
    return (uint8_t)(at * 7 + at / 251 + port * 31);
}

static void fill(uint8_t *bytes, unsigned length, unsigned port, unsigned at)
{
    for (unsigned i = 0; i < length; i++)
        bytes[i] = pattern(port, at + i);
}

static void expect_out(unsigned port, unsigned length)
{
    cr_assert_eq(hosts[port].out_length, length, "%u", hosts[port].out_length);
    for (unsigned i = 0; i < length; i++)
        cr_assert_eq(hosts[port].out[i], pattern(port, i), "byte %u", i);
}

Test(condev_output, a_buffer_is_offered_until_all_of_it_is_taken)
{
    static const uint32_t cuts[] = {77, 4096, 100000};

    for (unsigned cut = 0; cut < 3; cut++) {
        unsigned queue = in_queue(1) + 1, turns = 0;

        power_on();
        bring_up(1);
        fill(guest, 20000, 1, 0);
        do {
            hosts[1].room = 1 + turns * 1000;
            turns++;
        } while (chain_of(queue, 20000, 0, cuts[cut]) == CONDEV_LATER);
        cr_expect_eq(turns, 7);
        expect_out(1, 20000);
        fill(guest, 100, 1, 20000); /* the next one begins at its beginning */
        cr_expect_eq(chain_of(queue, 100, 0, cuts[cut]), 0);
        expect_out(1, 20100);
    }
}

Test(condev_output, no_buffer_keeps_the_caller)
{
    unsigned queue = in_queue(1) + 1, turns = 1;

    power_on();
    bring_up(1);
    fill(guest, 3 * CONDEV_MOST / 2, 1, 0);
    cr_expect_eq(chain_of(queue, CONDEV_MOST, 0, CHUNK), 0);
    hosts[1].out_length = 0;
    hosts[1].room = STREAM;
    while (chain_of(queue, 3 * CONDEV_MOST / 2, 0, CHUNK) == CONDEV_LATER)
        turns++;
    cr_expect_eq(turns, 2);
    expect_out(1, 3 * CONDEV_MOST / 2);
}

Test(condev_output, nobody_there_means_dropped)
{
    unsigned queue = in_queue(1) + 1;

    power_on();
    condev_plug(&dev, 1, NULL, false);
    condev_connect(&dev, 1, true);
    cr_expect_eq(chain_of(queue, 100, 0, 100), 0); /* before the driver has it */
    bring_up(1);
    condev_connect(&dev, 1, false);
    cr_expect_eq(chain_of(queue, 100, 0, 100), 0);
    condev_connect(&dev, 1, true);
    hosts[1].leaves = true;
    hosts[1].room = 50;
    cr_expect_eq(chain_of(queue, 5000, 0, 100), 0); /* its end is noticed in the middle */
    cr_expect_eq(hosts[1].out_length, 50);
    hosts[1].leaves = false;
    hosts[1].out_length = 0;
    condev_connect(&dev, 1, true);
    hosts[1].room = STREAM;
    fill(guest, 100, 1, 0);
    cr_expect_eq(chain_of(queue, 100, 0, 100), 0);
    expect_out(1, 100); /* from its first byte */
}

Test(condev_output, what_is_no_memory_or_no_output_comes_back)
{
    struct virtq_seg seg[2] = {{GUEST, 10}, {GUEST + GUEST_SIZE - 2, 10}};
    struct virtq_chain chain = {0};
    unsigned queue = in_queue(1) + 1;

    power_on();
    bring_up(1);
    chain.seg = seg;
    chain.readable = 2;
    cr_expect_eq(condev_answer(&dev, queue, &chain), 0);
    cr_expect_eq(chain_of(queue, 0, 100, 100), 0);
    cr_expect_eq(chain_of(queue, 0, 0, 1), 0);
    cr_expect_eq(hosts[1].out_length, 0);
    cr_expect_eq(chain_of(in_queue(PORTS), 0, 100, 100), 0); /* queues that are not there */
    cr_expect_eq(chain_of(in_queue(PORTS) + 1, 100, 0, 100), 0);
    hosts[1].room = 90;
    fill(guest, 100, 1, 0);
    cr_expect_eq(chain_of(queue, 100, 0, 100), CONDEV_LATER);
    cr_expect_eq(chain_of(queue, 50, 0, 100), 0); /* shorter than what was taken of it */
    hosts[1].room = 10;
    cr_expect_eq(chain_of(queue, 50, 0, 100), CONDEV_LATER);
    bring_up_again(1);
    fill(guest, 100, 1, 0);
    hosts[1].room = STREAM;
    hosts[1].out_length = 0;
    cr_expect_eq(chain_of(queue, 100, 0, 100), 0);
    expect_out(1, 100);
}

Test(condev_input, bytes_wait_until_somebody_has_the_port_open)
{
    static uint8_t bytes[10000];
    unsigned queue = in_queue(1);

    power_on();
    fill(bytes, sizeof(bytes), 1, 0);
    hosts[1].in = bytes;
    hosts[1].in_length = sizeof(bytes);
    condev_plug(&dev, 1, NULL, false);
    cr_expect_eq(chain_of(queue, 0, 100, 100), CONDEV_LATER);
    bring_up(1);
    from_driver(1, MSG_OPEN, 0);
    cr_expect_eq(chain_of(queue, 0, 100, 100), CONDEV_LATER);
    from_driver(1, MSG_OPEN, 1);
    cr_expect_eq(chain_of(queue, 0, 100, 7), 100);
    cr_expect_eq(memcmp(guest, bytes, 100), 0);
    cr_expect_eq(guest[100], 0xa5);
    cr_expect_eq(chain_of(queue, 50, 9000, 5000), CONDEV_PIECE);
    cr_expect_eq(memcmp(guest + 50, bytes + 100, CONDEV_PIECE), 0);
    condev_connect(&dev, 1, false);
    cr_expect_eq(chain_of(queue, 0, 100, 100), CONDEV_LATER);
    cr_expect_eq(hosts[1].in_length, sizeof(bytes) - 100 - CONDEV_PIECE);
}

Test(condev_input, what_has_no_room_comes_back)
{
    struct virtq_seg seg = {GUEST + GUEST_SIZE - 2, 10};
    struct virtq_chain chain = {0};
    unsigned queue = in_queue(1);

    power_on();
    bring_up(1);
    cr_expect_eq(chain_of(queue, 0, 100, 100), CONDEV_LATER); /* nothing there */
    hosts[1].in = (const uint8_t *)"bytes";
    hosts[1].in_length = 5;
    cr_expect_eq(chain_of(queue, 100, 0, 100), 0);
    cr_expect_eq(hosts[1].in_length, 5);
    chain.seg = &seg;
    chain.writable = 1;
    cr_expect_eq(condev_answer(&dev, queue, &chain), 0);
    hosts[1].leaves = true;
    hosts[1].in_length = 0;
    cr_expect_eq(chain_of(queue, 0, 100, 100), CONDEV_LATER);
    expect_told(1, MSG_OPEN, 0);
}

/* ----- with the driver ----- */

static const struct way {
    enum function_view view;
    bool packed, event_idx, in_order;
} ways[] = {{FUNCTION_PCI_MODERN, false, true, false}, {FUNCTION_PCI_MODERN, true, true, false},
            {FUNCTION_PCI_MODERN, true, false, true},  {FUNCTION_PCI_LEGACY, false, true, false},
            {FUNCTION_MMIO, false, false, true},       {FUNCTION_MMIO, true, false, false}};

enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static struct function function;
static struct virtio_pci_layout layout;
static struct virtio_window windows[6];
static struct virtio_drv drv;
static struct console console;

/* What a caller does with a queue: one buffer that waits stays in the ring. True: there is more. */
static bool serve_once(struct virtq_device *ring, unsigned queue)
{
    struct virtq_seg seg[4];
    struct virtq_chain chain;
    bool later = false;

    chain.seg = seg;
    chain.capacity = 4;
    while (!later) {
        uint32_t written;
        int rc = virtq_device_pop(ring, &chain);

        cr_assert_geq(rc, 0, "%d", rc);
        if (rc == 0)
            break;
        written = condev_answer(&dev, queue, &chain);
        later = written == CONDEV_LATER;
        if (later)
            virtq_device_unpop(ring, chain.token);
        else
            virtq_device_push(ring, chain.token, written);
    }
    virtq_device_flush(ring);
    if (virtq_device_irq_due(ring))
        virtio_dev_interrupt(&function.dev, (uint16_t)queue);
    return !later && virtq_device_kick_on(ring);
}

static void serve(unsigned queue)
{
    struct virtq_device *ring = virtio_dev_ring(&function.dev, (uint16_t)queue);

    dev.multiport = virtio_features_has(&function.dev.reg.accepted, CONDEV_FEATURE_MULTIPORT);
    while (ring != NULL && serve_once(ring, queue))
        continue;
    if (queue == CONDEV_CONTROL_OUT)
        serve(CONDEV_CONTROL_IN);
}

static void serve_all(void)
{
    for (unsigned queue = 0; queue < 2 * PORTS + 2; queue++)
        serve(queue);
}

static void kicked(void *ctx, uint16_t queue)
{
    (void)ctx;
    serve(queue);
}

static void status(void *ctx, uint8_t old, uint8_t now)
{
    (void)ctx;
    (void)old;
    if (now == 0)
        condev_reset(&dev);
}

static void config_write(void *ctx, bool legacy, uint32_t offset, const uint8_t *bytes,
                         uint32_t length)
{
    (void)ctx;
    (void)legacy;
    condev_config_write(&dev, offset, bytes, length);
}

static bool give_up(void *ctx)
{
    (void)ctx;
    return false;
}

static void make_function(const struct way *way)
{
    static const struct virtio_dev_ops ops = {map,    kicked, NULL, NULL,        NULL,
                                              status, NULL,   NULL, config_write};
    struct virtio_dev *registers = &function.dev;

    memset(&function, 0, sizeof(function));
    function.view = way->view;
    for (unsigned i = 0; i < 2 * PORTS + 2; i++)
        function.queue[i].max = i == CONDEV_CONTROL_IN || i == CONDEV_CONTROL_OUT ? 32 : 64;
    registers->ops = &ops;
    registers->device_type = CONSOLE_DEVICE_TYPE;
    registers->queue_count = 2 * PORTS + 2;
    registers->big_endian = VIRTIO_BIG_ENDIAN;
    registers->config_length = CONDEV_CONFIG_SIZE;
    registers->offered.word[0] = (uint32_t)condev_features(&dev);
    virtio_features_add(&registers->offered, VIRTIO_FEATURE_INDIRECT_DESC);
    if (way->event_idx)
        virtio_features_add(&registers->offered, VIRTIO_FEATURE_EVENT_IDX);
    if (way->packed)
        virtio_features_add(&registers->offered, VIRTIO_FEATURE_RING_PACKED);
    if (way->in_order)
        virtio_features_add(&registers->offered, VIRTIO_FEATURE_IN_ORDER);
    dev.big_endian = VIRTIO_BIG_ENDIAN && function_is_legacy(way->view);
    condev_config(&dev, function.config);
    cr_assert_eq(function_init(&function), 0);
}

static void take_device(void)
{
    struct virtio_pci_config config = {function_pci_read32, NULL, &function};
    struct virtio_pci_bar bars[6];

    if (function_is_mmio(function.view)) {
        windows[0] = function_window(&function, 0);
        cr_assert_eq(virtio_drv_mmio(&drv, &windows[0]), 0);
        return;
    }
    function_pci_bars(&function, bars);
    cr_assert_eq(virtio_pci_scan(&layout, &config, bars, 0), 0);
    for (unsigned i = 0; i < 6; i++)
        windows[i] = function_window(&function, i);
    cr_assert_eq(virtio_drv_pci(&drv, &layout, windows), 0);
}

static void start(const struct virtio_features *refused)
{
    struct console_setup setup = {0};
    int err;

    setup.memory.cpu = guest;
    setup.memory.device = GUEST;
    setup.memory.length = CONSOLE_MEMORY_SIZE;
    setup.wait = give_up;
    setup.refused = *refused;
    take_device();
    err = console_start(&console, &drv, &setup);
    cr_assert_eq(err, 0, "%s", console_err_name(err));
}

static void power_on_way(const struct way *way)
{
    static const struct virtio_features none = {{0, 0, 0, 0}};

    power_on();
    condev_plug(&dev, 0, NULL, true);
    condev_resize(&dev, 0, 80, 25);
    condev_connect(&dev, 0, true);
    for (uint32_t id = 1; id < PORTS; id++)
        condev_plug(&dev, id, "a port", false);
    make_function(way);
    start(&none);
}

/* Takes all events; how many there were of one kind. */
static unsigned events(enum console_event_kind kind)
{
    struct console_event event;
    unsigned count = 0;
    int got;

    while ((got = console_poll(&console, &event)) > 0)
        count += event.kind == kind;
    cr_assert_eq(got, 0, "%s", console_err_name(got));
    return count;
}

static void run_both(void)
{
    for (unsigned i = 0; i < 4; i++) {
        serve_all();
        (void)events(CONSOLE_ADDED);
    }
}

static void open_all(void)
{
    for (uint32_t id = 0; id < PORTS; id++) {
        condev_connect(&dev, id, true);
        cr_assert_eq(console_open(&console, id), 0);
    }
    run_both();
    for (uint32_t id = 0; id < PORTS; id++)
        cr_assert(dev.port[id].open && console.port[id].host_open, "port %u", id);
}

Test(condev_driver, ports_are_taken_named_sized_and_opened)
{
    struct console_size size = {0, 0};

    for (unsigned way = 0; way < WAYS; way++) { /* D-CON-01, D-CON-02, D-CON-03 */
        power_on_way(&ways[way]);
        cr_expect_eq(events(CONSOLE_ADDED), PORTS);
        run_both();
        cr_expect(console.port[0].is_console && hosts[0].opened == 1);
        cr_expect_eq(console_size(&console, 0, &size), 0);
        cr_expect(size.columns == 80 && size.rows == 25);
        for (uint32_t id = 1; id < PORTS; id++)
            cr_expect_str_eq(console.port[id].name, "a port");
        open_all();
        condev_connect(&dev, 2, false);
        serve_all();
        cr_expect_eq(events(CONSOLE_CLOSED), 1);
        cr_assert_eq(console_close(&console, 3), 0);
        run_both();
        cr_expect(hosts[3].closed == 1 && !dev.port[3].open);
        cr_expect_eq(console_emergency_write(&drv, 'e'), 0);
        cr_expect(hosts[0].out_length == 1 && hosts[0].out[0] == 'e');
        for (unsigned i = 0; i < CONDEV_DROPS; i++)
            cr_expect_eq(dev.dropped[i], 0);
        for (unsigned i = 0; i < CONSOLE_DROPS; i++)
            cr_expect_eq(console.dropped[i], 0);
        cr_expect_eq(console_stop(&console), 0);
        cr_expect(!dev.started && !dev.port[0].open);
    }
}

Test(condev_driver, a_driver_without_multiport_has_one_console)
{
    struct virtio_features refused = {{1u << CONDEV_FEATURE_MULTIPORT, 0, 0, 0}};
    uint8_t back[10];

    for (unsigned way = 0; way < WAYS; way++) {
        power_on();
        condev_plug(&dev, 0, NULL, true);
        condev_connect(&dev, 0, true);
        make_function(&ways[way]);
        start(&refused);
        hosts[0].in = (const uint8_t *)"bytes";
        hosts[0].in_length = 5;
        serve_all();
        (void)events(CONSOLE_ADDED);
        cr_expect_eq(console_read(&console, 0, back, sizeof(back)), 5);
        cr_expect_eq(memcmp(back, "bytes", 5), 0);
        cr_expect_eq(console_write(&console, 0, "output", 6), 6);
        cr_expect_eq(hosts[0].out_length, 6);
    }
}

/* ----- at random ----- */

static uint32_t seed;

static unsigned random_below(unsigned limit)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % limit;
}

/* Positions in a port's two endless patterns. */
struct stream_state {
    unsigned in_given, in_got, out_sent, out_got;
};

static void check_output(unsigned port, struct stream_state *at)
{
    struct host *host = &hosts[port];

    for (unsigned i = 0; i < host->out_length; i++)
        cr_assert_eq(host->out[i], pattern(port + 100, at->out_got + i), "port %u", port);
    at->out_got += host->out_length;
    host->out_length = 0;
}

static void read_some(unsigned port, struct stream_state *at)
{
    uint8_t bytes[3000];
    int got = console_read(&console, port, bytes, random_below(sizeof(bytes)));

    cr_assert_geq(got, 0);
    for (int i = 0; i < got; i++)
        cr_assert_eq(bytes[i], pattern(port, at->in_got + (unsigned)i), "port %u", port);
    at->in_got += (unsigned)got;
}

static void write_some(unsigned port, struct stream_state *at)
{
    uint8_t bytes[3000];
    unsigned length = random_below(sizeof(bytes));
    int taken;

    fill(bytes, length, port + 100, at->out_sent);
    taken = console_write(&console, port, bytes, length);
    cr_assert_geq(taken, 0);
    at->out_sent += (unsigned)taken;
}

/* The host side has some more bytes, if those before are gone. */
static void give_some(unsigned port, struct stream_state *at)
{
    static uint8_t bytes[PORTS][3000];
    struct host *host = &hosts[port];

    if (host->in_length != 0)
        return;
    host->in = bytes[port];
    host->in_length = random_below(sizeof(bytes[port]));
    fill(bytes[port], host->in_length, port, at->in_given);
    at->in_given += host->in_length;
}

static void step(unsigned port, struct stream_state *at)
{
    switch (random_below(6)) {
    case 0: read_some(port, at); break;
    case 1: write_some(port, at); break;
    case 2: give_some(port, at); break;
    case 3: hosts[port].room = random_below(5000); break;
    case 4: serve(in_queue(port) + random_below(2)); break;
    default: (void)events(CONSOLE_ADDED); break;
    }
    check_output(port, at);
}

/* What is on its way arrives. */
static void settle(unsigned port, struct stream_state *at)
{
    hosts[port].room = STREAM;
    for (unsigned i = 0; i < 200 && (i == 0 || at->in_got < at->in_given); i++) {
        run_both();
        read_some(port, at);
    }
    check_output(port, at);
    cr_assert_eq(at->out_got, at->out_sent, "port %u", port);
    cr_assert_eq(at->in_got, at->in_given, "port %u", port);
}

Test(condev_random, no_byte_is_lost_or_doubled_on_any_port)
{
    for (unsigned way = 0; way < WAYS; way++) {
        struct stream_state at[PORTS] = {{0, 0, 0, 0}};

        seed = 1 + way;
        power_on_way(&ways[way]);
        run_both();
        open_all();
        for (unsigned i = 0; i < 20000; i++) {
            unsigned port = random_below(PORTS);

            step(port, &at[port]);
        }
        for (unsigned port = 0; port < PORTS; port++)
            settle(port, &at[port]);
    }
}

/* The two sides agree in the end, however ports came and went while there were no buffers. */
Test(condev_random, both_sides_agree_about_ports_that_come_and_go)
{
    for (unsigned way = 0; way < WAYS; way++) {
        seed = 50 + way;
        power_on_way(&ways[way]);
        for (unsigned i = 0; i < 20000; i++) {
            uint32_t id = random_below(PORTS);

            switch (random_below(8)) {
            case 0: condev_unplug(&dev, id); break;
            case 1: condev_plug(&dev, id, "name", id == 0); break;
            case 2:
            case 3: condev_connect(&dev, id, dev.port[id].present && random_below(2) == 0); break;
            case 4: serve(CONDEV_CONTROL_IN); break;
            case 5: (void)console_open(&console, id); break;
            case 6: (void)console_close(&console, id); break;
            default: (void)events(CONSOLE_ADDED); break;
            }
            if (i % 500 != 499)
                continue;
            run_both();
            for (id = 0; id < PORTS; id++) {
                bool present = console.port[id].state == CONSOLE_PRESENT;

                cr_assert_eq(present, dev.port[id].present, "port %u", id);
                cr_assert(!present || console.port[id].open == dev.port[id].open, "port %u", id);
                cr_assert(!present || console.port[id].host_open == dev.port[id].connected);
            }
        }
        cr_expect_eq(console.dropped[CONSOLE_DROP_DUPLICATE], 0); /* V-CON-01 */
        cr_expect_eq(console.dropped[CONSOLE_DROP_PORT], 0);
        cr_expect_eq(dev.dropped[CONDEV_DROP_EVENT] + dev.dropped[CONDEV_DROP_SHORT], 0);
    }
}

/* Whatever a driver says and gives, the other port works, and starting over works. */
Test(condev_random, chains_of_any_kind_do_no_harm)
{
    seed = 7;
    power_on();
    for (unsigned i = 0; i < 50000; i++) {
        unsigned queue = random_below(2 * PORTS + 6);
        uint32_t readable = random_below(3) * random_below(200);
        uint32_t writable = random_below(3) * random_below(200);

        condev_plug(&dev, random_below(PORTS), "name", false);
        condev_connect(&dev, random_below(PORTS), true);
        put(guest, 4, random_below(20) == 0 ? seed : random_below(PORTS + 1));
        put(guest + 4, 2, random_below(20) == 0 ? seed & 0xffff : random_below(9));
        put(guest + 6, 2, random_below(3));
        hosts[1].in = guest + GUEST_SIZE / 2;
        hosts[1].in_length = random_below(1000);
        for (unsigned id = 0; id < PORTS; id++)
            hosts[id].out_length = 0;
        (void)chain_of(queue, readable, writable, 1 + random_below(100));
        if (random_below(50) == 0)
            condev_unplug(&dev, random_below(PORTS));
        hosts[random_below(PORTS)].room = random_below(200);
    }
    for (uint32_t id = 0; id < PORTS; id++)
        condev_unplug(&dev, id);
    from_driver(0, MSG_READY, 1);
    bring_up(1);
    hosts[1].room = STREAM;
    hosts[1].out_length = 0;
    fill(guest, 100, 1, 0);
    cr_expect_eq(chain_of(in_queue(1) + 1, 100, 0, 9), 0);
    expect_out(1, 100);
}
