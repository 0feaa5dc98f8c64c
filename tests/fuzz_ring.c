// SPDX-License-Identifier: MIT-0
/* A hostile peer for either side of a queue, for libFuzzer (make fuzz). The input is the format, the
 * features and the size, then calls of the API and what the peer does between them; and every load of
 * shared memory can be answered by the input instead, as by a peer that writes at that very moment.
 * What must hold: no access outside the areas (ASan), no cookie twice, no length beyond its buffer, no
 * chain beyond its array, no more in flight than the queue holds, and an end to every call. */
#include <string.h>

#include "support/fuzz_input.h"

static uint64_t load(const void *at, unsigned bytes);

#define VIRTIO_LOAD8(p) ((uint8_t)load((p), 1))
#define VIRTIO_LOAD16(p) ((uint16_t)load((p), 2))
#define VIRTIO_LOAD32(p) ((uint32_t)load((p), 4))
#define VIRTIO_LOAD64(p) (load((p), 8))
#define VIRTIO_STORE8(p, v) ((void)(*(volatile uint8_t *)(p) = (v)))
#define VIRTIO_STORE16(p, v) ((void)(*(uint16_t *)(p) = (v)))
#define VIRTIO_STORE32(p, v) ((void)(*(uint32_t *)(p) = (v)))
#define VIRTIO_STORE64(p, v) ((void)(*(uint64_t *)(p) = (v)))
#define VIRTIO_LOAD_ACQUIRE16(p) VIRTIO_LOAD16(p)
#define VIRTIO_LOAD_RELAXED16(p) VIRTIO_LOAD16(p)
#define VIRTIO_LOAD_RELAXED32(p) VIRTIO_LOAD32(p)
#define VIRTIO_STORE_RELEASE16(p, v) VIRTIO_STORE16(p, v)
#define VIRTIO_STORE_RELAXED16(p, v) VIRTIO_STORE16(p, v)
#define VIRTIO_STORE_RELAXED32(p, v) VIRTIO_STORE32(p, v)
#define VIRTIO_RING_FLAGS 0x7f8 /* foreign byte order too */

#include "virtio_ring.h"

enum { MOST = 64, SEGS = 12, TABLE = 4096 };

static struct {
    struct virtq_areas areas;
    struct virtq_driver driver;
    struct virtq_device device;
    struct virtq_slot slots[MOST];
    uint32_t writable[MOST * 2]; /* of each cookie */
    bool out[MOST * 2];
    uint32_t tokens[MOST], in_flight;
    struct virtq_seg seg[SEGS];
    uint8_t *table; /* memory of indirect tables */
    size_t bytes[3];
} t;

static uint32_t below(uint32_t limit)
{
    return (uint32_t)take_bytes(2) % limit;
}

/* One load in four is what the input says. */
static uint64_t load(const void *at, unsigned bytes)
{
    uint64_t value = 0;
    uint8_t how = (uint8_t)take_bytes(1);

    memcpy(&value, at, bytes);
    if (VIRTIO_BIG_ENDIAN)
        value >>= 64 - 8 * bytes;
    if (how % 4 != 3)
        return value;
    return how & 4 ? take_bytes(bytes) : value + (how >> 3) - 16;
}

/* The peer writes a few bytes anywhere it can. */
static void scribble(void)
{
    uint8_t *areas[4] = {t.areas.desc, t.areas.driver, t.areas.device, t.table};
    size_t sizes[4] = {t.bytes[0], t.bytes[1], t.bytes[2], TABLE};
    uint32_t area = below(4), at = below((uint32_t)sizes[area]);

    for (uint32_t n = 1 + below(8); n != 0 && at < sizes[area]; n--)
        areas[area][at++] = (uint8_t)take_bytes(1);
}

/* ---- driver side ---- */
static void add(void)
{
    struct virtq_table table = {t.table, 0, SEGS};
    struct virtq_buffer buffer = {t.seg, (uint16_t)below(SEGS / 2), (uint16_t)below(SEGS / 2)};
    uint32_t cookie = 0, count = (uint32_t)buffer.readable + buffer.writable, sum = 0;
    int err;

    while (cookie < MOST * 2 - 1 && t.out[cookie])
        cookie++;
    for (uint32_t i = 0; i < count; i++) {
        t.seg[i].addr = take_bytes(8);
        t.seg[i].len = 1 + below(1000);
        sum += i < buffer.readable ? 0 : t.seg[i].len;
    }
    if (below(2) == 0)
        err = virtq_driver_add_indirect(&t.driver, &buffer, &table, &t.out[cookie]);
    else if (count == 1 && buffer.writable == 1)
        err = virtq_driver_add_writable(&t.driver, t.seg[0], &t.out[cookie]);
    else
        err = virtq_driver_add(&t.driver, &buffer, &t.out[cookie]);
    if (err != 0)
        return;
    CHECK(!t.out[cookie]);
    t.out[cookie] = true;
    t.writable[cookie] = sum;
}

static void taken(const struct virtq_done *done)
{
    bool *out = (bool *)done->cookie;
    ptrdiff_t cookie = out - t.out;

    CHECK(cookie >= 0 && cookie < MOST * 2 && *out);
    CHECK(done->written <= t.writable[cookie]);
    *out = false;
}

static void drive(void)
{
    struct virtq_done done[4];
    int32_t got;

    switch (below(9)) {
    case 0:
    case 1: add(); break;
    case 2: virtq_driver_publish(&t.driver); break;
    case 3: (void)!virtq_driver_kick_due(&t.driver); break;
    case 4: virtq_driver_irq_off(&t.driver); break;
    case 5:
        if (below(2) ? virtq_driver_irq_on(&t.driver) : virtq_driver_irq_on_after(&t.driver))
            CHECK(virtq_driver_error(&t.driver) == 0);
        break;
    case 6:
        got = virtq_driver_take_batch(&t.driver, done, 4);
        for (int32_t i = 0; i < got; i++)
            taken(&done[i]);
        break;
    case 7:
        if (virtq_driver_take(&t.driver, done) > 0)
            taken(done);
        break;
    default: scribble(); break;
    }
    CHECK(virtq_driver_free_count(&t.driver) <= t.areas.num);
}

static void give_back_the_rest(void)
{
    void *cookie = NULL;
    uint16_t at = 0;

    while (virtq_driver_detach(&t.driver, &at, &cookie)) {
        CHECK(*(bool *)cookie);
        *(bool *)cookie = false;
    }
    for (uint32_t i = 0; i < MOST * 2; i++)
        CHECK(!t.out[i]);
}

/* ---- device side ---- */
static const void *map(void *ctx, uint64_t addr, uint32_t len)
{
    addr %= TABLE * 2;
    (void)ctx;
    return addr < TABLE && len <= TABLE - addr ? t.table + addr : NULL;
}

static void pop(void)
{
    struct virtq_chain chain = {t.seg, (uint16_t)(1 + below(SEGS)), 0, 0, 0};
    int got = virtq_device_pop(&t.device, &chain);
    uint64_t sum = 0;

    if (got == 1) {
        CHECK((uint32_t)chain.readable + chain.writable <= chain.capacity);
        CHECK(chain.readable + chain.writable != 0);
        for (uint32_t i = 0; i < (uint32_t)chain.readable + chain.writable; i++) {
            CHECK(t.seg[i].addr + t.seg[i].len >= t.seg[i].addr);
            sum += t.seg[i].len;
        }
        CHECK(sum <= (uint64_t)UINT32_MAX + 1);
    }
    if (got == 1 || virtq_err_names_chain(got)) {
        CHECK(t.in_flight < t.areas.num);
        if (below(8) == 0)
            virtq_device_unpop(&t.device, chain.token);
        else
            t.tokens[t.in_flight++] = chain.token;
    } else {
        CHECK(got == 0 || virtq_device_error(&t.device) != 0);
    }
}

static void push(void)
{
    uint32_t pick = t.areas.flags & VIRTQ_IN_ORDER ? 0 : below(MOST);

    if (t.in_flight == 0)
        return;
    pick %= t.in_flight;
    if (below(2))
        virtq_device_push_full(&t.device, t.tokens[pick], below(100));
    else
        virtq_device_push(&t.device, t.tokens[pick], below(100));
    t.in_flight--;
    memmove(&t.tokens[pick], &t.tokens[pick + 1], (t.in_flight - pick) * sizeof(t.tokens[0]));
}

static void serve(void)
{
    struct virtq_position at;

    switch (below(9)) {
    case 0:
    case 1: pop(); break;
    case 2:
    case 3: push(); break;
    case 4: virtq_device_flush(&t.device); break;
    case 5: (void)!virtq_device_irq_due(&t.device); break;
    case 6: virtq_device_kick_off(&t.device); break;
    case 7: (void)!virtq_device_kick_on(&t.device); break;
    default: scribble(); break;
    }
    if (below(32) != 0 || virtq_device_error(&t.device) != 0)
        return;
    virtq_device_flush(&t.device);
    at = virtq_device_save(&t.device);
    CHECK(virtq_device_init(&t.device, &t.areas, map, NULL) == 0);
    CHECK(virtq_device_restore(&t.device, at) == 0);
    at.avail_idx = (uint16_t)take_bytes(2); /* from a hostile stream; refused or not, no harm */
    if (below(8) == 0 && t.in_flight == 0)
        (void)!virtq_device_restore(&t.device, at);
}

/* ---- set up ---- */
static bool open_queue(void)
{
    t.areas.flags = (uint16_t)(take_bytes(2) & 0x7f8);
    t.areas.num = (uint16_t)(1 + below(MOST));
    if (!(t.areas.flags & VIRTQ_PACKED))
        while (t.areas.num & (t.areas.num - 1))
            t.areas.num = (uint16_t)(t.areas.num & (t.areas.num - 1));
    t.bytes[0] = 16u * t.areas.num;
    t.bytes[1] = t.areas.flags & VIRTQ_PACKED ? 4 : 6u + 2u * t.areas.num;
    t.bytes[2] = t.areas.flags & VIRTQ_PACKED ? 4 : 6u + 8u * t.areas.num;
    t.areas.desc = calloc(1, t.bytes[0]);
    t.areas.driver = calloc(1, t.bytes[1]);
    t.areas.device = calloc(1, t.bytes[2]);
    t.table = (uint8_t *)calloc(1, TABLE);
    return virtq_driver_init(&t.driver, &t.areas, t.slots) == 0 &&
           virtq_device_init(&t.device, &t.areas, map, NULL) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool driver;

    input = data;
    input_left = size;
    memset(&t, 0, sizeof(t));
    driver = take_bytes(1) % 2 != 0;
    if (open_queue()) {
        while (input_left != 0)
            driver ? drive() : serve();
        if (driver)
            give_back_the_rest();
    }
    free(t.areas.desc);
    free(t.areas.driver);
    free(t.areas.device);
    free(t.table);
    return 0;
}
