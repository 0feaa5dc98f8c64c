// SPDX-License-Identifier: MIT-0
/* Our driver side against our device side: random chains, batches and completion orders over both
 * ring formats, every kind of queue size and all combinations of features, checked against a model
 * of what is where and of who has to be woken. Both sides are moved about in the middle of it. One
 * source for both formats, as the library promises; what the model must know of a format is in
 * "Formats" below. VIRTQ_SEED=n repeats a run. */
#include "tests/support/test_config.h"

#include <criterion/criterion.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtio_ring.h"

enum {
    SLAB = 128, /* bytes of guest memory of one request, for its data */
    TABLE = 12, /* entries of its indirect table */
    SEGS = 12,  /* segments of a request at most */
    FRAME = SLAB + 16 * TABLE,
    SMALL = 9, /* queue sizes up to here are started at every position */
    WRAP = 0x8000
};
#define GUEST_BASE UINT64_C(0x123450000000)

enum place { PLACE_FREE, PLACE_ADDED, PLACE_DEVICE, PLACE_DONE };

struct request {
    struct virtq_seg seg[SEGS];
    uint16_t readable, writable;
    uint32_t readable_bytes, writable_bytes, written, token;
    uint32_t added_at, pushed_at; /* its turn among all requests */
    uint16_t descriptors;         /* it takes of the queue */
    uint8_t place;                /* enum place */
    uint8_t pattern;
};

/* What a side last asked for. Progress is counted from the start, without wrapping, in what events
 * of the format count: see progress_of(). */
enum wish { WISH_ANY, WISH_AT, WISH_NONE };

struct bell {
    enum wish wish;
    uint32_t at;      /* progress asked for; WISH_NONE: made when it was asked */
    uint32_t decided; /* progress up to which the other side has asked whether to ring */
};

static struct {
    struct virtq_areas areas;
    struct virtq_slot *slots;
    struct virtq_driver drivers[2], *driver;
    struct virtq_device devices[2], *device;
    struct request *requests;
    uint32_t *unused, *in_flight; /* requests: free ones; with the device, a queue */
    uint8_t *memory;              /* a frame for each request */
    uint32_t num, unused_count, in_flight_first, in_flight_count, descriptors;
    uint32_t added_count, popped_count, pushed_count, taken_count, limit; /* requests */
    uint32_t added, published, popped, pushed, flushed, taken;            /* progress */
    uint16_t start;
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

static bool negotiated(uint16_t flag)
{
    return (t.areas.flags & flag) != 0;
}

/* ---------------------------------------------------------------------------
 * Formats: all that differs
 * --------------------------------------------------------------------------- */
/* Events of a split ring count buffers, those of a packed ring slots (2.7.7, 2.8.10). */
static uint32_t progress_of(const struct request *r)
{
    return negotiated(VIRTQ_PACKED) ? r->descriptors : 1;
}

/* How save, restore and notifications write down a progress. */
static uint16_t position(uint32_t progress)
{
    uint32_t lap = t.num, at;

    if (!negotiated(VIRTQ_PACKED))
        return (uint16_t)(t.start + progress);
    at = (t.start & (WRAP - 1u)) + (t.start & WRAP ? 0 : lap) + progress;
    return (uint16_t)(at % lap | (at / lap % 2 == 0 ? WRAP : 0u));
}

/* A zeroed queue rings always, but in a split ring with events at the first one (L-EVT-06). */
static enum wish first_wish(void)
{
    return negotiated(VIRTQ_EVENT_IDX) && !negotiated(VIRTQ_PACKED) ? WISH_AT : WISH_ANY;
}

/* When a side may ring although it was not asked to. With events a split ring has no "off": an
 * event is left behind, and it is met if the other side has not decided yet on what was taken
 * already (D-EVT-07). In a packed ring an event has one bit for the lap: who has not asked for
 * longer than a lap cannot tell whether it was passed. */
static bool may_ring(const struct bell *bell, uint32_t now)
{
    if (!negotiated(VIRTQ_EVENT_IDX) || now == bell->decided)
        return false;
    if (negotiated(VIRTQ_PACKED))
        return bell->wish == WISH_AT && now - bell->decided > t.num;
    return bell->wish == WISH_NONE && bell->at > bell->decided;
}

/* The re-check of irq_on_after(): a packed ring shows only the next completion. */
static bool enough_pending(uint32_t pending, uint32_t wait)
{
    return negotiated(VIRTQ_PACKED) ? pending != 0 : pending >= wait;
}

/* For how many laps a side may go on without asking whether to ring: the counters of a split ring
 * span two of the largest size. */
static uint32_t laps_undecided(void)
{
    return negotiated(VIRTQ_PACKED) ? 5 : 1;
}

static size_t driver_area_bytes(uint32_t num, uint16_t flags)
{
    return flags & VIRTQ_PACKED ? 4 : 6 + 2 * (size_t)num;
}

static size_t device_area_bytes(uint32_t num, uint16_t flags)
{
    return flags & VIRTQ_PACKED ? 4 : 6 + 8 * (size_t)num;
}

/* ---------------------------------------------------------------------------
 * Guest memory
 * --------------------------------------------------------------------------- */
static uint8_t *guest(uint64_t addr, uint32_t len)
{
    uint64_t bytes = (uint64_t)(t.num + 1) * FRAME;

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

static void *allocate_aligned(size_t bytes)
{
    void *mem = aligned_alloc(16, bytes);

    cr_assert_not_null(mem);
    return mem;
}

/* Each area is exactly as large as the specification says, and full of rubbish. */
static void open_areas(uint32_t num, uint16_t flags)
{
    t.areas.num = (uint16_t)num;
    t.areas.flags = flags;
    t.areas.desc = allocate_aligned(16 * (size_t)num);
    t.areas.driver = allocate(driver_area_bytes(num, flags), 1);
    t.areas.device = allocate(device_area_bytes(num, flags), 1);
    memset(t.areas.desc, 0x77, 16 * (size_t)num);
    memset(t.areas.driver, 0x77, driver_area_bytes(num, flags));
    memset(t.areas.device, 0x77, device_area_bytes(num, flags));
}

static void open_requests(void)
{
    t.requests = allocate(t.num + 1, sizeof(*t.requests)); /* one more than can be outstanding */
    t.unused = allocate(t.num + 1, sizeof(*t.unused));
    t.in_flight = allocate(t.num, sizeof(*t.in_flight));
    t.memory = allocate_aligned((size_t)(t.num + 1) * FRAME);
    for (uint32_t i = 0; i <= t.num; i++)
        t.unused[i] = i;
    t.unused_count = t.num + 1;
    t.in_flight_first = t.in_flight_count = t.descriptors = 0;
    t.added_count = t.popped_count = t.pushed_count = t.taken_count = 0;
    t.added = t.published = t.popped = t.pushed = t.flushed = t.taken = 0;
}

/* Starts the driver side, with nothing outstanding, at the position of all that was taken. */
static void start_driver(void)
{
    struct virtq_position at;

    at.avail_idx = at.used_idx = position(t.taken);
    cr_assert_eq(virtq_driver_init(t.driver, &t.areas, t.slots), 0);
    cr_assert_eq(virtq_driver_restore(t.driver, at), 0);
    t.irq.wish = t.kick.wish = first_wish();
    t.irq.at = t.kick.at = t.kick.decided = t.taken;
}

static void start_device(struct virtq_device *device, struct virtq_position at)
{
    cr_assert_eq(virtq_device_init(device, &t.areas, map_table, NULL), 0);
    cr_assert_eq(virtq_device_restore(device, at), 0);
    t.device = device;
}

static void open_loop(uint32_t num, uint16_t flags, uint16_t start)
{
    struct virtq_position at = {start, start};

    open_areas(num, flags);
    t.num = num;
    t.start = start;
    t.slots = allocate(num, sizeof(*t.slots));
    t.driver = &t.drivers[0];
    t.chain.seg = t.seg;
    t.chain.capacity = SEGS;
    open_requests();
    start_driver();
    start_device(&t.devices[0], at);
    t.irq.decided = 0;
}

static void close_loop(void)
{
    free(t.areas.desc);
    free(t.areas.driver);
    free(t.areas.device);
    free(t.slots);
    free(t.requests);
    free(t.unused);
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
            if (data[byte] != (uint8_t)(pattern + i))
                cr_assert_fail("wrong data");
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
 * Bells
 * --------------------------------------------------------------------------- */
static bool must_ring(const struct bell *bell, uint32_t now)
{
    if (bell->wish == WISH_AT)
        return bell->decided <= bell->at && bell->at < now;
    return bell->wish == WISH_ANY && now != bell->decided;
}

/* The side made progress up to `now` and decided whether to ring: was the decision right? */
static void expect_rung(struct bell *bell, bool rung, uint32_t now, bool always)
{
    bool must = must_ring(bell, now) || (always && now != bell->decided);

    if (must)
        cr_assert(rung, "lost wake-up: size %u flags %u start %u", t.num, t.areas.flags, t.start);
    else if (!may_ring(bell, now))
        cr_assert_not(rung, "rung for nothing: size %u flags %u start %u", t.num, t.areas.flags,
                      t.start);
    bell->decided = now;
}

/* A side may publish several times and ask once. */
static bool put_off(const struct bell *bell, uint32_t now)
{
    return now - bell->decided < laps_undecided() * t.num && one_in(4);
}

/* ---------------------------------------------------------------------------
 * Driver
 * --------------------------------------------------------------------------- */
static int add(uint32_t index, bool indirect)
{
    struct request *r = &t.requests[index];
    struct virtq_buffer buffer = {r->seg, r->readable, r->writable};
    struct virtq_table table = {NULL, frame_addr(index) + SLAB, TABLE};
    uint32_t count = (uint32_t)r->readable + r->writable;

    table.mem = guest(table.addr, 16 * TABLE);
    r->descriptors = (uint16_t)count;
    if (indirect) {
        if (negotiated(VIRTQ_INDIRECT) && count >= 2)
            r->descriptors = 1;
        return virtq_driver_add_indirect(t.driver, &buffer, &table, r);
    }
    if (count == 1 && one_in(2))
        return r->readable ? virtq_driver_add_readable(t.driver, r->seg[0], r)
                           : virtq_driver_add_writable(t.driver, r->seg[0], r);
    if (count == 2 && r->readable == 1 && one_in(2))
        return virtq_driver_add_pair(t.driver, r->seg[0], r->seg[1], r);
    return virtq_driver_add(t.driver, &buffer, r);
}

/* Adds one request, if there is room; false if not. */
static bool driver_add(void)
{
    uint32_t pick = random_below(t.unused_count), index = t.unused[pick];
    struct request *r = &t.requests[index];
    int err;

    cr_assert_eq(r->place, PLACE_FREE);
    make_request(index);
    err = add(index, one_in(2));
    cr_assert_eq(err, t.descriptors + r->descriptors > t.num ? VIRTQ_ERR_FULL : 0);
    if (err != 0)
        return false;
    t.unused[pick] = t.unused[--t.unused_count];
    r->place = PLACE_ADDED;
    r->added_at = t.added_count++;
    t.descriptors += r->descriptors;
    t.added += progress_of(r);
    cr_assert_eq(virtq_driver_free_count(t.driver), t.num - t.descriptors);
    return true;
}

static void driver_publish(void)
{
    virtq_driver_publish(t.driver);
    t.published = t.added;
    cr_assert_eq(virtq_driver_notification_data(t.driver), position(t.published));
    if (!put_off(&t.kick, t.published))
        expect_rung(&t.kick, virtq_driver_kick_due(t.driver), t.published, false);
}

static void driver_send(void)
{
    uint32_t batch = 1 + random_below(one_in(8) ? t.num : 4);

    while (batch-- != 0 && t.added_count < t.limit && driver_add())
        continue;
    if (!one_in(8))
        driver_publish();
}

/* In the order of completion, with the length and the data that the device wrote. */
static void driver_accept(const struct virtq_done *done)
{
    struct request *r = (struct request *)done->cookie;

    cr_assert(r >= t.requests && r <= t.requests + t.num);
    cr_assert_eq(r->place, PLACE_DONE);
    cr_assert_eq(r->pushed_at, t.taken_count);
    cr_assert_eq(done->written, r->written);
    expect_filled(r->seg + r->readable, r->writable, done->written, (uint8_t)~r->pattern);
    expect_filled(r->seg, r->readable, r->readable_bytes, r->pattern);
    r->place = PLACE_FREE;
    t.unused[t.unused_count++] = (uint32_t)(r - t.requests);
    t.descriptors -= r->descriptors;
    t.taken += progress_of(r);
    t.taken_count++;
}

static bool driver_take(void)
{
    struct virtq_done done = {NULL, 0};
    int got = virtq_driver_take(t.driver, &done);

    cr_assert_eq(got, t.taken != t.flushed);
    if (got != 0)
        driver_accept(&done);
    return got != 0;
}

static bool driver_take_batch(void)
{
    struct virtq_done done[5];
    uint16_t max = (uint16_t)(1 + random_below(5));
    bool pending = t.taken != t.flushed;
    int32_t got = virtq_driver_take_batch(t.driver, done, max);

    cr_assert(got >= pending && got <= (pending ? max : 0));
    for (int32_t i = 0; i < got; i++)
        driver_accept(&done[i]);
    cr_assert(got == max || t.taken == t.flushed, "stopped before the end");
    return got != 0;
}

static void driver_receive(void)
{
    uint32_t batch = one_in(2) ? t.num : 1 + random_below(4);

    while (batch-- != 0 && (one_in(2) ? driver_take() : driver_take_batch()))
        continue;
    cr_assert_eq(virtq_driver_free_count(t.driver), t.num - t.descriptors);
}

/* Goes to sleep until the interrupt, or not if there is something to do. */
static void driver_rest(void)
{
    uint32_t wait = 1, pending = t.flushed - t.taken;
    bool after = one_in(3), early;

    if (after && negotiated(VIRTQ_EVENT_IDX) && t.published != t.taken) {
        wait = t.published - t.taken;
        wait -= wait / 4;
    }
    early = after ? virtq_driver_irq_on_after(t.driver) : virtq_driver_irq_on(t.driver);
    cr_assert_eq(early, enough_pending(pending, wait), "re-check");
    t.irq.wish = negotiated(VIRTQ_EVENT_IDX) ? WISH_AT : WISH_ANY;
    t.irq.at = t.taken + wait - 1;
}

/* A live queue moves with its slots, buffers that are added and not published included. */
static void driver_move(void)
{
    struct virtq_slot *slots = (struct virtq_slot *)allocate(t.num, sizeof(*slots));
    struct virtq_driver *old = t.driver;

    t.driver = &t.drivers[old == &t.drivers[0]];
    memcpy(t.driver, old, sizeof(*old));
    memcpy(slots, t.slots, t.num * sizeof(*slots));
    t.driver->slots = slots;
    memset(old, 0xa5, sizeof(*old));
    free(t.slots);
    t.slots = slots;
}

static void driver_step(void)
{
    if (one_in(2))
        driver_send();
    driver_receive();
    if (one_in(3)) {
        virtq_driver_irq_off(t.driver);
        t.irq.wish = WISH_NONE;
        t.irq.at = t.taken;
    } else {
        driver_rest();
    }
    if (one_in(32))
        driver_move();
    if (t.added == t.taken && one_in(8))
        start_driver(); /* a new driver, while the device goes on */
}

/* ---------------------------------------------------------------------------
 * Device
 * --------------------------------------------------------------------------- */
static uint32_t *in_flight(uint32_t nth)
{
    return &t.in_flight[(t.in_flight_first + nth) % t.num];
}

static void expect_chain(const struct request *r)
{
    uint32_t count = (uint32_t)r->readable + r->writable;

    cr_assert_eq(t.chain.readable, r->readable);
    cr_assert_eq(t.chain.writable, r->writable);
    for (uint32_t i = 0; i < count; i++)
        cr_assert(t.seg[i].addr == r->seg[i].addr && t.seg[i].len == r->seg[i].len);
    expect_filled(t.seg, r->readable, r->readable_bytes, r->pattern);
}

static bool device_pop(void)
{
    int got = virtq_device_pop(t.device, &t.chain);
    uint32_t index;
    struct request *r;

    cr_assert_eq(got, t.popped != t.published);
    if (got == 0)
        return false;
    index = (uint32_t)((t.seg[0].addr - GUEST_BASE) / FRAME);
    cr_assert_leq(index, t.num);
    r = &t.requests[index];
    cr_assert_eq(r->place, PLACE_ADDED);
    cr_assert_eq(r->added_at, t.popped_count);
    expect_chain(r);
    r->token = t.chain.token;
    r->place = PLACE_DEVICE;
    *in_flight(t.in_flight_count++) = index;
    t.popped += progress_of(r);
    t.popped_count++;
    return true;
}

/* Gives back the request that was popped last. */
static void device_unpop(void)
{
    struct request *r = &t.requests[*in_flight(--t.in_flight_count)];

    virtq_device_unpop(t.device, r->token);
    r->place = PLACE_ADDED;
    t.popped -= progress_of(r);
    t.popped_count--;
}

/* The request that is completed next: the oldest with IN_ORDER, else whichever. */
static struct request *device_choose(void)
{
    uint32_t pick = negotiated(VIRTQ_IN_ORDER) ? 0 : random_below(t.in_flight_count);
    uint32_t index = *in_flight(pick);

    *in_flight(pick) = *in_flight(0);
    t.in_flight_first = (t.in_flight_first + 1) % t.num;
    t.in_flight_count--;
    return &t.requests[index];
}

/* Only requests that are written in full may be named by a later one's entry (V-INO-03). */
static void device_push(void)
{
    struct request *r = device_choose();

    r->written = one_in(4) ? random_below(r->writable_bytes + 1) : r->writable_bytes;
    fill(r->seg + r->readable, r->writable, r->written, (uint8_t)~r->pattern);
    if (r->written == r->writable_bytes && !one_in(3))
        virtq_device_push_full(t.device, r->token, r->written);
    else
        virtq_device_push(t.device, r->token, r->written);
    r->place = PLACE_DONE;
    r->pushed_at = t.pushed_count++;
    t.pushed += progress_of(r);
}

/* NOTIFY_ON_EMPTY: a driver that ran out of buffers is told in any case (V-LEG-08). */
static void device_decide(void)
{
    bool always = negotiated(VIRTQ_NOTIFY_ON_EMPTY) && t.popped == t.published;

    expect_rung(&t.irq, virtq_device_irq_due(t.device), t.flushed, always);
}

static void device_flush(void)
{
    virtq_device_flush(t.device);
    t.flushed = t.pushed;
    if (!put_off(&t.irq, t.flushed))
        device_decide();
}

static void device_rest(void)
{
    bool early = virtq_device_kick_on(t.device);

    cr_assert_eq(early, t.popped != t.published, "re-check");
    t.kick.wish = negotiated(VIRTQ_EVENT_IDX) ? WISH_AT : WISH_ANY;
    t.kick.at = t.popped;
}

/* Another device side takes over, with the position and the tokens of what is in flight. */
static void device_move(void)
{
    struct virtq_device *old = t.device;
    struct virtq_position at;

    device_flush();
    device_decide();
    at = virtq_device_save(old);
    cr_assert_eq(at.avail_idx, position(t.popped));
    cr_assert_eq(at.used_idx, position(t.pushed));
    start_device(&t.devices[old == &t.devices[0]], at);
    memset(old, 0xa5, sizeof(*old));
}

static void device_step(void)
{
    uint32_t batch = one_in(2) ? t.num : 1 + random_below(4), popped = 0;

    while (popped != batch && device_pop())
        popped++;
    while (popped-- != 0 && one_in(4))
        device_unpop();
    batch = one_in(2) ? t.in_flight_count : random_below(t.in_flight_count + 1);
    while (batch-- != 0)
        device_push();
    if (!one_in(8))
        device_flush();
    if (one_in(3)) {
        virtq_device_kick_off(t.device);
        t.kick.wish = WISH_NONE;
        t.kick.at = t.popped;
    } else {
        device_rest();
    }
    if (one_in(16))
        device_move();
}

/* ---------------------------------------------------------------------------
 * Runs
 * --------------------------------------------------------------------------- */
static void expect_idle(void)
{
    struct virtq_position at = virtq_driver_save(t.driver);

    cr_assert_eq(t.descriptors, 0);
    cr_assert_eq(virtq_driver_free_count(t.driver), t.num);
    cr_assert_eq(virtq_driver_error(t.driver), 0);
    cr_assert_eq(virtq_device_error(t.device), 0);
    cr_assert_eq(at.avail_idx, position(t.published));
    cr_assert_eq(at.used_idx, position(t.taken));
}

static void run_loop(uint32_t num, uint16_t flags, uint16_t start, uint32_t limit)
{
    open_loop(num, flags, start);
    t.limit = limit;
    while (t.taken_count != limit) {
        if (one_in(2))
            driver_step();
        else
            device_step();
    }
    expect_idle();
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

/* Small rings from every position (slot and wrap counter); a split ring near the counters' end. */
static void run_small(uint32_t num, uint16_t flags)
{
    if (!(flags & VIRTQ_PACKED)) {
        run_loop(num, flags, (uint16_t)(65536 - 2 * num), 6000);
        return;
    }
    for (uint32_t slot = 0; slot < num; slot++) {
        run_loop(num, flags, (uint16_t)slot, 500);
        run_loop(num, flags, (uint16_t)(slot | WRAP), 500);
    }
}

/* Large ones from a few slots before the end, so that the first lap ends soon. */
static void run_large(uint32_t num, uint16_t flags)
{
    uint16_t start = (uint16_t)((flags & VIRTQ_PACKED ? num | WRAP : 65536) - 6);

    run_loop(num, flags, start, 4000 + num + num / 4);
}

static void run_size(uint32_t num, uint16_t flags)
{
    if (num <= SMALL)
        run_small(num, flags);
    else
        run_large(num, flags);
}

/* All small sizes, all powers of two, and for packed rings some that are none. */
static void each_size(void (*run)(uint32_t num, uint16_t flags), uint16_t flags)
{
    static const uint16_t odd[] = {255, 257, 1000, 32767};

    t.random = seed();
    for (uint32_t num = 1; num <= SMALL; num++)
        if (virtq_size_ok(num, flags))
            run(num, flags);
    for (uint32_t num = 16; num <= VIRTQ_MAX_SIZE; num *= 2)
        run(num, flags);
    for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
        if (virtq_size_ok(odd[i], flags))
            run(odd[i], flags);
}

static void run_sizes(uint16_t flags)
{
    each_size(run_size, flags);
}

/* ---------------------------------------------------------------------------
 * The tests
 * --------------------------------------------------------------------------- */
#define BOTH(name, run, flags)                                                                     \
    Test(split_loopback, name)                                                                     \
    {                                                                                              \
        run(flags);                                                                                \
    }                                                                                              \
    Test(packed_loopback, name)                                                                    \
    {                                                                                              \
        run(VIRTQ_PACKED | (flags));                                                               \
    }

/* D-SPLIT-05, D-SPLIT-09 to D-SPLIT-11, V-SPLIT-03 to V-SPLIT-05, L-PACK-03, L-PACK-04, D-PACK-03,
 * D-PACK-05, D-PACK-06, D-PACK-10, D-PACK-11, D-PACK-14, V-PACK-01, V-PACK-04 to V-PACK-06,
 * D-IND-08, D-EVT-02, D-EVT-04, D-EVT-07, V-EVT-01, V-EVT-03, L-EVT-06, L-PEVT-02, L-PEVT-03,
 * D-INO-01, V-INO-01 to V-INO-03, L-NOTE-02, T-44, T-45, T-61, T-62, T-67, T-69 to T-71 */
BOTH(flags, run_sizes, 0)
BOTH(event_idx, run_sizes, VIRTQ_EVENT_IDX)
BOTH(indirect, run_sizes, VIRTQ_INDIRECT)
BOTH(event_idx_indirect, run_sizes, VIRTQ_EVENT_IDX | VIRTQ_INDIRECT)
BOTH(in_order, run_sizes, VIRTQ_IN_ORDER)
BOTH(in_order_event_idx, run_sizes, VIRTQ_IN_ORDER | VIRTQ_EVENT_IDX)
BOTH(in_order_indirect, run_sizes, VIRTQ_IN_ORDER | VIRTQ_INDIRECT)
BOTH(in_order_event_idx_indirect, run_sizes, VIRTQ_IN_ORDER | VIRTQ_EVENT_IDX | VIRTQ_INDIRECT)
BOTH(order_platform, run_sizes, VIRTQ_ORDER_PLATFORM | VIRTQ_EVENT_IDX | VIRTQ_INDIRECT)

static void run_legacy(uint16_t flags)
{
    run_sizes(VIRTQ_LEGACY | flags);
    run_sizes(VIRTQ_LEGACY | VIRTQ_EVENT_IDX | flags);
}

Test(split_loopback, legacy)
{
    /* L-LEG-01: the CPU's byte order */
    run_legacy(0);
    run_legacy(VIRTQ_INDIRECT);
}

Test(split_loopback, legacy_notify_on_empty)
{
    /* V-LEG-08: interrupts although suppressed, when the available ring runs empty */
    run_legacy(VIRTQ_NOTIFY_ON_EMPTY);
    run_legacy(VIRTQ_NOTIFY_ON_EMPTY | VIRTQ_INDIRECT);
}

static void run_long(uint16_t flags)
{
    t.random = seed();
    run_loop(64, flags, 60, 140000);
}

/* L-SPLIT-05: the counters of a split ring wrap twice; thousands of laps of a packed one */
BOTH(indices_wrap_twice, run_long, VIRTQ_EVENT_IDX)
BOTH(in_order_indices_wrap_twice, run_long, VIRTQ_EVENT_IDX | VIRTQ_IN_ORDER)

/* Buffers of one segment, which the device completes; nobody asks whether to ring. */
static void pass_undecided(uint32_t count)
{
    struct virtq_seg seg = {GUEST_BASE, 1};
    struct virtq_done done;

    for (; count != 0; count--) {
        cr_assert_eq(virtq_driver_add_writable(t.driver, seg, NULL), 0);
        virtq_driver_publish(t.driver);
        cr_assert_eq(virtq_device_pop(t.device, &t.chain), 1);
        virtq_device_push(t.device, t.chain.token, 1);
        virtq_device_flush(t.device);
        cr_assert_eq(virtq_driver_take(t.driver, &done), 1);
    }
}

/* With four buffers out, the driver asks for the third. The first decision may be a late one. */
static void expect_third(bool late)
{
    struct virtq_seg seg = {GUEST_BASE, 1};
    bool rung;

    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(virtq_driver_add_writable(t.driver, seg, NULL), 0);
    virtq_driver_publish(t.driver);
    cr_assert_not(virtq_driver_irq_on_after(t.driver));
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(virtq_device_pop(t.device, &t.chain), 1);
        virtq_device_push(t.device, t.chain.token, 1);
        virtq_device_flush(t.device);
        rung = virtq_device_irq_due(t.device);
        if (i != 0 || !late)
            cr_assert_eq(rung, i == 2, "buffer %u", i);
    }
}

/* Asked again after a while, a side rings for what the other wants now, not for what passed long
 * ago: whatever the slot, and the laps. Of a packed ring the first decision after more than a lap
 * is free. */
static void run_undecided(uint16_t flags)
{
    for (uint32_t laps = 0; laps <= 3; laps++)
        for (uint16_t start = 0; start < 8; start++) {
            open_loop(8, flags, start);
            pass_undecided(8 * laps + laps);
            expect_third(laps != 0 && negotiated(VIRTQ_PACKED));
            close_loop();
        }
}

/* What was asked for and has passed since the last decision is rung for: a mode however long ago,
 * an event of a packed ring up to a lap ago, since the other side cannot wait for an earlier one. */
static void run_passed(uint16_t flags)
{
    uint32_t most = (flags & VIRTQ_PACKED) && (flags & VIRTQ_EVENT_IDX) ? 8 : 40;

    for (uint32_t count = 1; count <= most; count++)
        for (uint16_t start = 0; start < 8; start++) {
            open_loop(8, flags, start);
            cr_assert_not(virtq_driver_irq_on(t.driver));
            cr_assert_not(virtq_device_kick_on(t.device));
            pass_undecided(count);
            cr_assert(virtq_driver_kick_due(t.driver), "%u buffers from %u", count, start);
            cr_assert(virtq_device_irq_due(t.device), "%u buffers from %u", count, start);
            close_loop();
        }
}

/* V-EVT-03, V-PEVT-01, L-PEVT-03, T-45, T-70 */
BOTH(decision_after_many_laps, run_undecided, VIRTQ_EVENT_IDX)
BOTH(event_passed_long_ago, run_passed, VIRTQ_EVENT_IDX)
BOTH(mode_met_long_ago, run_passed, 0)

/* ---------------------------------------------------------------------------
 * Lists as long as the ring
 * --------------------------------------------------------------------------- */
/* One buffer through a queue in which nothing else is outstanding. */
static void round_trip(const struct virtq_buffer *buffer, struct virtq_chain *chain)
{
    uint32_t count = (uint32_t)buffer->readable + buffer->writable;
    struct virtq_done done = {NULL, 0};

    cr_assert_eq(virtq_driver_add(t.driver, buffer, chain), 0);
    cr_assert_eq(virtq_driver_free_count(t.driver), t.num - count);
    virtq_driver_publish(t.driver);
    cr_assert(virtq_driver_kick_due(t.driver));
    cr_assert_eq(virtq_device_pop(t.device, chain), 1);
    cr_assert(chain->readable == buffer->readable && chain->writable == buffer->writable);
    for (uint32_t i = 0; i < count; i++)
        if (buffer->seg[i].addr != chain->seg[i].addr || buffer->seg[i].len != chain->seg[i].len)
            cr_assert_fail("segment %u", i);
    cr_assert_eq(virtq_device_pop(t.device, chain), 0, "and only once");
    virtq_device_push(t.device, chain->token, buffer->writable);
    virtq_device_flush(t.device);
    cr_assert(virtq_device_irq_due(t.device));
    cr_assert_eq(virtq_driver_take(t.driver, &done), 1);
    cr_assert(done.cookie == chain && done.written == buffer->writable);
    cr_assert_eq(virtq_driver_take(t.driver, &done), 0, "and only once");
}

/* A list over the whole ring comes back to its slot; a single after it starts the next one at the
 * slot behind, until each slot was the first, with either wrap counter. */
static void run_full(uint32_t num, uint16_t flags)
{
    struct virtq_seg *in = (struct virtq_seg *)allocate(num, sizeof(*in));
    struct virtq_seg *out = (struct virtq_seg *)allocate(num, sizeof(*out));
    struct virtq_buffer whole = {in, (uint16_t)(num / 3), (uint16_t)(num - num / 3)};
    struct virtq_buffer single = {in + num - 1, 0, 1};
    struct virtq_chain chain = {out, (uint16_t)num, 0, 0, 0};

    for (uint32_t i = 0; i < num; i++) {
        in[i].addr = UINT64_C(0xffffffff00000000) + i;
        in[i].len = i + 1;
    }
    open_loop(num, flags, 0);
    for (uint32_t times = 0; times < (num <= SMALL ? 2 * num + 2 : 3); times++) {
        round_trip(&whole, &chain);
        round_trip(&single, &chain);
    }
    close_loop();
    free(in);
    free(out);
}

static void run_full_sizes(uint16_t flags)
{
    each_size(run_full, flags);
}

/* D-SPLIT-03, D-PACK-05, D-PACK-07, V-PACK-05, T-61, T-62 */
BOTH(list_as_long_as_the_ring, run_full_sizes, 0)
BOTH(list_as_long_as_the_ring_in_order, run_full_sizes, VIRTQ_IN_ORDER)

/* ---------------------------------------------------------------------------
 * Moves
 * --------------------------------------------------------------------------- */
static void send(uint32_t count)
{
    while (count-- != 0)
        cr_assert(driver_add());
    driver_publish();
}

/* Four buffers, with one of them completed, two with the device and one not popped. */
static void run_move(uint32_t num, uint16_t flags)
{
    if (num < 4 * SEGS)
        return;
    open_loop(num, flags, 0);
    send(4);
    for (unsigned i = 0; i < 3; i++)
        cr_assert(device_pop());
    device_push();
    device_move();
    driver_move();
    cr_assert(driver_take());
    cr_assert_not(driver_take(), "two are in flight, one is not popped");
    device_push();
    cr_assert(device_pop());
    cr_assert_not(device_pop(), "nothing is popped twice");
    device_push();
    device_push();
    driver_move();
    device_move();
    for (unsigned i = 0; i < 3; i++)
        cr_assert(driver_take());
    cr_assert_not(driver_take());
    expect_idle();
    close_loop();
}

static void run_moves(uint16_t flags)
{
    each_size(run_move, flags);
}

/* Nothing is lost and nothing comes twice if either side moves with buffers in flight. */
BOTH(moves_with_buffers_in_flight, run_moves, VIRTQ_EVENT_IDX | VIRTQ_INDIRECT)
BOTH(moves_with_buffers_in_flight_in_order, run_moves, VIRTQ_IN_ORDER)
