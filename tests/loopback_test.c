// SPDX-License-Identifier: MIT-0
/* Our driver side against our device side: random chains, batches and completion orders over every
 * queue size and combination of features, checked against a model of what is where and of who has to
 * be woken. VIRTQ_SEED=n repeats a run. */
#include "tests/support/test_config.h"

#include <criterion/criterion.h>

#include <inttypes.h>
#include <stdio.h>

#include "tests/support/raw_ring.h"
#include "virtio_ring.h"

enum {
    SLAB = 128, /* bytes of guest memory of one request, for its data */
    TABLE = 12, /* entries of its indirect table */
    SEGS = 12,  /* segments of a request at most */
    FRAME = SLAB + 16 * TABLE,
    START_IDX = 65530
};
#define GUEST_BASE UINT64_C(0x123450000000)

enum place { PLACE_FREE, PLACE_ADDED, PLACE_DEVICE, PLACE_DONE };

struct request {
    struct virtq_seg seg[SEGS];
    uint16_t readable, writable;
    uint32_t readable_bytes, writable_bytes, written, token;
    uint16_t descriptors; /* it takes of the queue */
    uint8_t place;        /* enum place */
    uint8_t pattern;
};

/* One end of the wake-up model: what a side asked for, and whether it was called. */
struct bell {
    bool armed;   /* the side sleeps: reaching `due` events must ring */
    bool off;     /* the side polls: none should ring */
    uint32_t due; /* counted from the start, as t.published and t.flushed */
};

static struct {
    struct raw_ring ring;
    struct virtq_areas areas;
    struct virtq_slot *slots;
    struct virtq_driver driver;
    struct virtq_device device;
    struct request *requests;
    uint32_t *in_flight; /* requests with the device */
    uint8_t *memory;     /* num frames */
    uint32_t num, in_flight_count, descriptors;
    uint32_t added, published, popped, pushed, flushed, taken, limit;
    struct bell irq, kick;
    struct virtq_seg seg[SEGS];
    struct virtq_chain chain;
    uint64_t random;
} t;

static uint32_t random_below(uint32_t limit)
{
    t.random ^= t.random << 13;
    t.random ^= t.random >> 7;
    t.random ^= t.random << 17;
    return (uint32_t)(t.random >> 32) % limit;
}

static bool one_in(uint32_t n)
{
    return random_below(n) == 0;
}

/* ---------------------------------------------------------------------------
 * Guest memory
 * --------------------------------------------------------------------------- */
static uint8_t *guest(uint64_t addr, uint32_t len)
{
    uint64_t bytes = (uint64_t)t.num * FRAME;

    cr_assert(addr >= GUEST_BASE && len <= bytes && addr - GUEST_BASE <= bytes - len);
    return t.memory + (addr - GUEST_BASE);
}

static const void *map_table(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    return guest(addr, len);
}

static uint64_t frame_addr(uint32_t request)
{
    return GUEST_BASE + (uint64_t)request * FRAME;
}

/* ---------------------------------------------------------------------------
 * Set up and tear down
 * --------------------------------------------------------------------------- */
static void *allocate(size_t count, size_t bytes)
{
    void *mem = calloc(count, bytes);

    cr_assert_not_null(mem);
    return mem;
}

static void start_at(uint16_t idx)
{
    struct virtq_position state = {.avail_idx = idx, .used_idx = idx};

    t.driver.added_idx = t.driver.published_idx = t.driver.kicked_idx = t.driver.taken_idx = idx;
    cr_assert_eq(virtq_device_restore(&t.device, state), 0);
    raw_set_avail_idx(&t.ring, idx);
    raw_set_used_idx(&t.ring, idx);
    raw_set_used_event(&t.ring, idx);
    raw_set_avail_event(&t.ring, idx);
}

static void open_loop(uint32_t num, uint16_t flags)
{
    raw_open(&t.ring, num, (flags & VIRTQ_LEGACY) != 0, 0x77);
    t.num = num;
    t.areas.num = (uint16_t)num;
    t.areas.flags = flags;
    t.areas.desc = t.ring.desc;
    t.areas.driver = t.ring.avail;
    t.areas.device = t.ring.used;
    t.slots = allocate(num, sizeof(*t.slots));
    t.requests = allocate(num, sizeof(*t.requests));
    t.in_flight = allocate(num, sizeof(*t.in_flight));
    t.memory = aligned_alloc(16, (size_t)num * FRAME);
    cr_assert_not_null(t.memory);
    t.in_flight_count = t.descriptors = 0;
    t.added = t.published = t.popped = t.pushed = t.flushed = t.taken = 0;
    t.irq.armed = t.kick.armed = true; /* flag 0 or event at the first: L-EVT-06 */
    t.irq.off = t.kick.off = false;
    t.irq.due = t.kick.due = 1;
    t.chain.seg = t.seg;
    t.chain.capacity = SEGS;
    cr_assert_eq(virtq_driver_init(&t.driver, &t.areas, t.slots), 0);
    cr_assert_eq(virtq_device_init(&t.device, &t.areas, map_table, NULL), 0);
    start_at(START_IDX);
}

static void close_loop(void)
{
    raw_close(&t.ring);
    free(t.slots);
    free(t.requests);
    free(t.in_flight);
    free(t.memory);
}

/* ---------------------------------------------------------------------------
 * Data
 * --------------------------------------------------------------------------- */
static void fill(const struct virtq_seg *seg, uint32_t count, uint32_t bytes, uint8_t pattern)
{
    for (uint32_t i = 0; i < count && bytes != 0; i++) {
        uint32_t part = seg[i].len < bytes ? seg[i].len : bytes;

        memset(guest(seg[i].addr, part), pattern + (int)i, part);
        bytes -= part;
    }
}

static void expect_filled(const struct virtq_seg *seg, uint32_t count, uint32_t bytes,
                          uint8_t pattern)
{
    for (uint32_t i = 0; i < count && bytes != 0; i++) {
        uint32_t part = seg[i].len < bytes ? seg[i].len : bytes;
        const uint8_t *data = guest(seg[i].addr, part);

        for (uint32_t byte = 0; byte < part; byte++)
            cr_assert_eq(data[byte], (uint8_t)(pattern + i));
        bytes -= part;
    }
    cr_assert_eq(bytes, 0);
}

/* A shape at random: mostly short, within the queue's and the frame's limits. */
static void make_request(uint32_t index)
{
    struct request *r = &t.requests[index];
    uint32_t most = t.num < SEGS ? t.num : SEGS;
    uint32_t count = 1 + random_below(one_in(4) ? most : most < 3 ? most : 3);
    uint64_t at = frame_addr(index);

    r->readable = (uint16_t)random_below(count + 1);
    r->writable = (uint16_t)(count - r->readable);
    r->pattern = (uint8_t)random_below(256);
    r->readable_bytes = r->writable_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        r->seg[i].addr = at + random_below(2);
        r->seg[i].len = 1 + random_below(SLAB / SEGS - 1);
        at = r->seg[i].addr + r->seg[i].len;
        *(i < r->readable ? &r->readable_bytes : &r->writable_bytes) += r->seg[i].len;
    }
    cr_assert_leq(at, frame_addr(index) + SLAB);
    memset(guest(frame_addr(index), SLAB), 0xee, SLAB);
    fill(r->seg, r->readable, r->readable_bytes, r->pattern);
}

/* ---------------------------------------------------------------------------
 * Driver
 * --------------------------------------------------------------------------- */
static int add(uint32_t index, bool indirect)
{
    struct request *r = &t.requests[index];
    struct virtq_buffer buffer = {r->seg, r->readable, r->writable};
    struct virtq_table table = {.addr = frame_addr(index) + SLAB, .capacity = TABLE};
    uint32_t count = (uint32_t)r->readable + r->writable;

    table.mem = guest(table.addr, 16 * TABLE);
    r->descriptors = (uint16_t)count;
    if (indirect) {
        if ((t.areas.flags & VIRTQ_INDIRECT) && count >= 2)
            r->descriptors = 1;
        return virtq_driver_add_indirect(&t.driver, &buffer, &table, r);
    }
    if (count == 1 && one_in(2))
        return r->readable ? virtq_driver_add_readable(&t.driver, r->seg[0], r)
                           : virtq_driver_add_writable(&t.driver, r->seg[0], r);
    if (count == 2 && r->readable == 1 && one_in(2))
        return virtq_driver_add_pair(&t.driver, r->seg[0], r->seg[1], r);
    return virtq_driver_add(&t.driver, &buffer, r);
}

/* Adds one request, if there is room; false if not. */
static bool driver_add(void)
{
    uint32_t index = random_below(t.num);
    struct request *r;
    int err;

    for (uint32_t i = 0; i < t.num && t.requests[index].place != PLACE_FREE; i++)
        index = (index + 1) % t.num;
    r = &t.requests[index];
    if (r->place != PLACE_FREE)
        return false;
    make_request(index);
    err = add(index, one_in(2));
    cr_assert_eq(err, t.descriptors + r->descriptors > t.num ? VIRTQ_ERR_FULL : 0);
    if (err != 0)
        return false;
    r->place = PLACE_ADDED;
    t.descriptors += r->descriptors;
    t.added++;
    cr_assert_eq(virtq_driver_free_count(&t.driver), t.num - t.descriptors);
    return true;
}

/* A side published up to `now` and decided whether to ring: was the decision right? */
static void expect_rung(struct bell *bell, bool rung, uint32_t now, uint32_t old)
{
    if (bell->off)
        cr_assert_not(rung, "rung although not wanted");
    if (now == old)
        cr_assert_not(rung, "rung for nothing");
    else if (bell->armed && now >= bell->due)
        cr_assert(rung, "lost wake-up");
    if (rung && (t.areas.flags & VIRTQ_EVENT_IDX))
        bell->armed = false;
}

static void driver_publish(void)
{
    uint32_t old = t.published;

    cr_assert_eq(raw_avail_idx(&t.ring), (uint16_t)(START_IDX + t.published));
    virtq_driver_publish(&t.driver);
    t.published = t.added;
    cr_assert_eq(raw_avail_idx(&t.ring), (uint16_t)(START_IDX + t.published));
    expect_rung(&t.kick, virtq_driver_kick_due(&t.driver), t.published, old);
}

static void driver_send(void)
{
    uint32_t batch = 1 + random_below(one_in(8) ? t.num : 4);

    while (batch-- != 0 && t.added < t.limit && driver_add())
        continue;
    driver_publish();
}

static bool driver_take(void)
{
    struct virtq_done done = {NULL, 0};
    struct request *r;
    int got = virtq_driver_take(&t.driver, &done);

    cr_assert_eq(got, t.taken != t.flushed);
    if (got == 0)
        return false;
    r = done.cookie;
    cr_assert_eq(r->place, PLACE_DONE);
    cr_assert_eq(done.written, r->written);
    expect_filled(r->seg + r->readable, r->writable, done.written, (uint8_t)~r->pattern);
    expect_filled(r->seg, r->readable, r->readable_bytes, r->pattern);
    r->place = PLACE_FREE;
    t.descriptors -= r->descriptors;
    t.taken++;
    cr_assert_eq(virtq_driver_free_count(&t.driver), t.num - t.descriptors);
    return true;
}

/* Goes to sleep until the interrupt, or not if there is something to do. */
static void driver_rest(void)
{
    uint32_t wait = 1, pending = t.flushed - t.taken;
    bool after = one_in(3), early;

    if (after && (t.areas.flags & VIRTQ_EVENT_IDX) && t.published != t.taken) {
        wait = t.published - t.taken;
        wait -= wait / 4;
    }
    early = after ? virtq_driver_irq_on_after(&t.driver) : virtq_driver_irq_on(&t.driver);
    cr_assert_eq(early, pending >= wait, "re-check");
    t.irq.off = false;
    t.irq.armed = !early;
    t.irq.due = t.taken + wait;
}

static void driver_step(void)
{
    uint32_t batch = one_in(2) ? t.num : 1 + random_below(4);

    if (one_in(2))
        driver_send();
    while (batch-- != 0 && driver_take())
        continue;
    if (one_in(3)) {
        virtq_driver_irq_off(&t.driver);
        t.irq.off = true;
        t.irq.armed = false;
    } else {
        driver_rest();
    }
}

/* ---------------------------------------------------------------------------
 * Device
 * --------------------------------------------------------------------------- */
static bool device_pop(void)
{
    struct request *r;
    uint32_t index, count;
    int got = virtq_device_pop(&t.device, &t.chain);

    cr_assert_eq(got, t.popped != t.published);
    if (got == 0)
        return false;
    index = (uint32_t)((t.seg[0].addr - GUEST_BASE) / FRAME);
    cr_assert_lt(index, t.num);
    r = &t.requests[index];
    cr_assert_eq(r->place, PLACE_ADDED);
    cr_assert_eq(t.chain.readable, r->readable);
    cr_assert_eq(t.chain.writable, r->writable);
    count = (uint32_t)r->readable + r->writable;
    for (uint32_t i = 0; i < count; i++)
        cr_assert(t.seg[i].addr == r->seg[i].addr && t.seg[i].len == r->seg[i].len);
    expect_filled(t.seg, r->readable, r->readable_bytes, r->pattern);
    r->token = t.chain.token;
    r->place = PLACE_DEVICE;
    t.in_flight[t.in_flight_count++] = index;
    t.popped++;
    return true;
}

/* Completes one of the requests in flight, whichever. */
static void device_push(void)
{
    uint32_t pick = random_below(t.in_flight_count);
    struct request *r = &t.requests[t.in_flight[pick]];

    t.in_flight[pick] = t.in_flight[--t.in_flight_count];
    r->written = one_in(4) ? random_below(r->writable_bytes + 1) : r->writable_bytes;
    fill(r->seg + r->readable, r->writable, r->written, (uint8_t)~r->pattern);
    virtq_device_push(&t.device, r->token, r->written);
    r->place = PLACE_DONE;
    t.pushed++;
}

static void device_flush(void)
{
    uint32_t old = t.flushed;

    cr_assert_eq(raw_used_idx(&t.ring), (uint16_t)(START_IDX + t.flushed));
    virtq_device_flush(&t.device);
    t.flushed = t.pushed;
    cr_assert_eq(raw_used_idx(&t.ring), (uint16_t)(START_IDX + t.flushed));
    expect_rung(&t.irq, virtq_device_irq_due(&t.device), t.flushed, old);
}

static void device_rest(void)
{
    bool early = virtq_device_kick_on(&t.device);

    cr_assert_eq(early, t.popped != t.published, "re-check");
    t.kick.off = false;
    t.kick.armed = !early;
    t.kick.due = t.popped + 1;
}

static void device_step(void)
{
    uint32_t batch = one_in(2) ? t.num : 1 + random_below(4);

    while (batch-- != 0 && device_pop())
        continue;
    batch = random_below(t.in_flight_count + 1);
    if (one_in(2))
        batch = t.in_flight_count;
    while (batch-- != 0)
        device_push();
    device_flush();
    if (one_in(3)) {
        virtq_device_kick_off(&t.device);
        t.kick.off = true;
        t.kick.armed = false;
    } else {
        device_rest();
    }
}

/* Moves the device side's position to a fresh one, now and then. */
static void device_move(void)
{
    struct virtq_position state = virtq_device_save(&t.device);

    if (t.in_flight_count != 0 || !one_in(16))
        return;
    memset(&t.device, 0, sizeof(t.device));
    cr_assert_eq(virtq_device_init(&t.device, &t.areas, map_table, NULL), 0);
    cr_assert_eq(virtq_device_restore(&t.device, state), 0);
}

/* ---------------------------------------------------------------------------
 * The tests
 * --------------------------------------------------------------------------- */
static void run_loop(uint32_t num, uint16_t flags, uint32_t limit)
{
    open_loop(num, flags);
    t.limit = limit;
    while (t.taken != limit) {
        if (one_in(2))
            driver_step();
        else
            device_step();
        device_move();
    }
    cr_assert_eq(t.descriptors, 0);
    cr_assert_eq(virtq_driver_free_count(&t.driver), num);
    cr_assert_eq(virtq_driver_error(&t.driver), 0);
    cr_assert_eq(virtq_device_error(&t.device), 0);
    close_loop();
}

static uint64_t seed(void)
{
    const char *text = getenv("VIRTQ_SEED");
    uint64_t value = text != NULL ? strtoull(text, NULL, 0) : 0;

    if (value == 0)
        value = (uint64_t)(uintptr_t)&text * 2654435761u ^ UINT64_C(0x9e3779b97f4a7c15);
    fprintf(stderr, "loopback: VIRTQ_SEED=%" PRIu64 "\n", value);
    return value;
}

static void run_all_sizes(uint16_t flags)
{
    t.random = seed();
    for (uint32_t num = 1; num <= 32768; num *= 2)
        run_loop(num, flags, 1500 + num + num / 4);
}

Test(split_loopback, flags)
{
    run_all_sizes(0);
}

Test(split_loopback, event_idx)
{
    run_all_sizes(VIRTQ_EVENT_IDX);
}

Test(split_loopback, indirect)
{
    run_all_sizes(VIRTQ_INDIRECT);
}

Test(split_loopback, event_idx_indirect)
{
    run_all_sizes(VIRTQ_EVENT_IDX | VIRTQ_INDIRECT);
}

Test(split_loopback, legacy)
{
    run_all_sizes(VIRTQ_LEGACY);
}

Test(split_loopback, legacy_event_idx)
{
    run_all_sizes(VIRTQ_LEGACY | VIRTQ_EVENT_IDX);
}

Test(split_loopback, legacy_indirect)
{
    run_all_sizes(VIRTQ_LEGACY | VIRTQ_INDIRECT);
}

Test(split_loopback, legacy_event_idx_indirect)
{
    run_all_sizes(VIRTQ_LEGACY | VIRTQ_EVENT_IDX | VIRTQ_INDIRECT);
}

Test(split_loopback, indices_wrap_twice)
{
    /* L-SPLIT-05 */
    t.random = seed();
    run_loop(64, VIRTQ_EVENT_IDX, 140000);
}

/* A chain that fills the whole queue, of every size. */
Test(split_loopback, chain_of_exactly_the_queue_size)
{
    for (uint32_t num = 1; num <= 32768; num *= 2) {
        struct virtq_seg *in = allocate(num, sizeof(*in)), *out = allocate(num, sizeof(*out));
        struct virtq_buffer buffer = {in, (uint16_t)(num / 3), (uint16_t)(num - num / 3)};
        struct virtq_chain chain = {.seg = out, .capacity = (uint16_t)num};
        struct virtq_done done = {NULL, 0};

        for (uint32_t i = 0; i < num; i++) {
            in[i].addr = UINT64_C(0xffffffff00000000) + i;
            in[i].len = i + 1;
        }
        open_loop(num, 0);
        for (unsigned times = 0; times < 3; times++) {
            cr_assert_eq(virtq_driver_add(&t.driver, &buffer, in), 0);
            virtq_driver_publish(&t.driver);
            cr_assert_eq(virtq_device_pop(&t.device, &chain), 1);
            cr_assert(chain.readable == buffer.readable && chain.writable == buffer.writable);
            for (uint32_t i = 0; i < num; i++)
                cr_assert(in[i].addr == out[i].addr && in[i].len == out[i].len);
            virtq_device_push(&t.device, chain.token, 1);
            virtq_device_flush(&t.device);
            cr_assert_eq(virtq_driver_take(&t.driver, &done), 1);
            cr_assert_eq(done.cookie, in);
        }
        close_loop();
        free(in);
        free(out);
    }
}
