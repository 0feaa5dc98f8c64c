// SPDX-License-Identifier: MIT-0
/* Which accesses to shared memory each call makes, how often and in which order: what cannot be seen
 * from values, and what x86 would forgive. */
#include "tests/support/count_access.h"
#include "tests/support/test_config.h"

#include <criterion/criterion.h>

#include "tests/support/raw_packed.h"
#include "tests/support/raw_ring.h"
#include "virtio_ring.h"

enum { NUM = 8, TABLE = 4, EITHER = VIRTQ_EVENT_IDX };

static struct raw_ring ring;
static struct rawp_ring packed;
static struct rawp_side peer;
static struct virtq_areas areas;
static struct virtq_driver driver;
static struct virtq_device device;
static struct virtq_slot slots[NUM];
static struct virtq_seg segs[NUM];
static struct virtq_chain chain;
static _Alignas(16) uint8_t table_mem[TABLE * 16 + 16];

static const void *map_table(void *ctx, uint64_t addr, uint32_t len)
{
    cr_assert_leq(addr + len, sizeof(table_mem));
    return (const uint8_t *)ctx + addr;
}

static void open_both(uint16_t flags)
{
    raw_open(&ring, NUM, false, 0);
    areas.num = NUM;
    areas.flags = flags;
    areas.desc = ring.desc;
    areas.driver = ring.avail;
    areas.device = ring.used;
    chain.seg = segs;
    chain.capacity = NUM;
    memset(table_mem, 0, sizeof(table_mem));
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
    cr_assert_eq(virtq_device_init(&device, &areas, map_table, table_mem), 0);
    access_count = 0;
}

/* ---------------------------------------------------------------------------
 * Questions to the log
 * --------------------------------------------------------------------------- */
static bool inside(const struct access *access, const uint8_t *area, size_t bytes)
{
    uintptr_t at = (uintptr_t)access->at, start = (uintptr_t)area;

    return at >= start && at + access->bytes <= start + bytes;
}

static bool is_load(const struct access *access)
{
    return access->kind <= ACCESS_LOAD_ACQUIRE;
}

static bool is_store(const struct access *access)
{
    return access->kind >= ACCESS_STORE && access->kind <= ACCESS_STORE_RELEASE;
}

static unsigned loads_of(const uint8_t *byte)
{
    unsigned count = 0;

    for (unsigned i = 0; i < access_count; i++) {
        const struct access *access = &access_log[i];

        if (is_load(access) && (uintptr_t)byte >= (uintptr_t)access->at &&
            (uintptr_t)byte < (uintptr_t)access->at + access->bytes)
            count++;
    }
    return count;
}

static void expect_once(const uint8_t *area, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        cr_assert_leq(loads_of(area + i), 1, "byte %zu", i);
}

/* Each byte of shared memory was loaded once at most since the log was cleared. */
static void expect_no_double_fetch(void)
{
    cr_assert_gt(access_count, 0);
    cr_assert_lt(access_count, ACCESS_MAX);
    expect_once(ring.desc, raw_desc_bytes(NUM));
    expect_once(ring.avail, raw_avail_bytes(NUM));
    expect_once(ring.used, raw_used_bytes(NUM));
    expect_once(table_mem, sizeof(table_mem));
}

static unsigned stores_into(const uint8_t *area, size_t bytes)
{
    unsigned count = 0;

    for (unsigned i = 0; i < access_count; i++)
        count += is_store(&access_log[i]) && inside(&access_log[i], area, bytes);
    return count;
}

/* Position in the log of the only access of this kind to `at`. */
static unsigned position(enum access_kind kind, const uint8_t *at)
{
    unsigned found = ACCESS_MAX;

    for (unsigned i = 0; i < access_count; i++)
        if (access_log[i].kind == kind && access_log[i].at == at) {
            cr_assert_eq(found, ACCESS_MAX, "more than once");
            found = i;
        }
    cr_assert_neq(found, ACCESS_MAX, "no such access");
    return found;
}

static const uint8_t *suppression_word(const struct raw_ring *r, uint16_t flags, bool in_avail)
{
    if (in_avail)
        return flags & VIRTQ_EVENT_IDX ? r->avail + 4 + 2 * NUM : r->avail;
    return flags & VIRTQ_EVENT_IDX ? r->used + 4 + 8 * NUM : r->used;
}

/* ---------------------------------------------------------------------------
 * Nothing is fetched twice
 * --------------------------------------------------------------------------- */
static void desc(uint32_t i, uint64_t addr, uint32_t len, unsigned flags, uint32_t next)
{
    raw_desc(&ring, ring.desc, i, addr, len, (uint16_t)flags, (uint16_t)next);
}

static void pop_once(int expected)
{
    raw_offer(&ring, 0);
    access_count = 0;
    cr_assert_eq(virtq_device_pop(&device, &chain), expected);
    expect_no_double_fetch();
    cr_assert_eq(stores_into(ring.desc, raw_desc_bytes(NUM)), 0);
    cr_assert_eq(stores_into(ring.avail, raw_avail_bytes(NUM)), 0);
}

Test(split_device, pop_fetches_a_single_once)
{
    /* T-52, V-SPLIT-07: each descriptor is fetched once into a private copy */
    open_both(VIRTQ_INDIRECT);
    desc(0, 0x1000, 1, RAW_WRITE, 0);
    pop_once(1);
}

Test(split_device, pop_fetches_a_chain_once)
{
    /* T-52, V-SPLIT-07 */
    open_both(VIRTQ_INDIRECT);
    for (uint32_t i = 0; i < NUM; i++)
        desc(i, 0x1000, 1, i + 1 < NUM ? RAW_NEXT : 0, i + 1);
    pop_once(1);
    desc(3, 0x1000, 1, RAW_NEXT, 99);
    pop_once(VIRTQ_ERR_CHAIN_NEXT);
}

Test(split_device, pop_fetches_a_table_once)
{
    /* T-52, V-SPLIT-07, T-56: at each alignment */
    for (uint32_t off = 0; off < 16; off++) {
        open_both(VIRTQ_INDIRECT);
        for (uint32_t i = 0; i < TABLE; i++)
            raw_desc(&ring, table_mem + off, i, 0x1000, 1, i + 1 < TABLE ? RAW_NEXT : 0,
                     (uint16_t)(i + 1));
        desc(0, 0x1000, 1, RAW_NEXT, 1);
        desc(1, off, TABLE * 16, RAW_INDIRECT, 0);
        pop_once(1);
        cr_assert_eq(chain.readable, TABLE + 1);
    }
}

/* What is not in shared memory must not go through the access macros: a port's cache maintenance
 * there would throw away a neighbour's data. */
Test(split_device, pop_touches_only_shared_memory_through_the_macros)
{
    for (uint32_t off = 0; off < 16; off++) {
        open_both(VIRTQ_INDIRECT);
        raw_desc(&ring, table_mem + off, 0, 0x1000, 1, 0, 0);
        desc(0, off, 16, RAW_INDIRECT, 0);
        pop_once(1);
        for (unsigned i = 0; i < access_count; i++)
            cr_assert(inside(&access_log[i], ring.desc, raw_desc_bytes(NUM)) ||
                      inside(&access_log[i], ring.avail, raw_avail_bytes(NUM)) ||
                      inside(&access_log[i], table_mem, sizeof(table_mem)));
        for (uint32_t i = 0; i < 14; i++)
            cr_assert_eq(loads_of(table_mem + off + i), 1, "all of it but the link, not needed");
    }
}

Test(split_driver, take_fetches_once)
{
    /* D-SPLIT-12: what is checked is what is used */
    struct virtq_done done;
    struct virtq_seg seg = {0x1000, 64};

    open_both(0);
    cr_assert_eq(virtq_driver_add_writable(&driver, seg, NULL), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 64);
    access_count = 0;
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    expect_no_double_fetch();
    cr_assert_eq(loads_of(ring.used + 4), 1);
    cr_assert_eq(loads_of(ring.used + 8), 1);
    cr_assert_eq(loads_of(ring.desc), 0, "D-SPLIT-13");
    for (unsigned i = 0; i < access_count; i++)
        cr_assert(is_load(&access_log[i]));
}

Test(split_driver, add_reads_nothing_that_is_shared)
{
    /* D-SPLIT-13, T-51 */
    struct virtq_buffer buffer = {.seg = segs, .readable = 2, .writable = 1};
    struct virtq_table table = {.mem = table_mem, .addr = 0, .capacity = TABLE};

    open_both(VIRTQ_INDIRECT);
    for (unsigned i = 0; i < 3; i++)
        segs[i].len = 1;
    cr_assert_eq(virtq_driver_add(&driver, &buffer, NULL), 0);
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), 0);
    cr_assert_eq(virtq_driver_add_indirect(&driver, &buffer, &table, NULL), 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(stores_into(ring.used, raw_used_bytes(NUM)), 0);
    for (unsigned i = 0; i < access_count; i++)
        cr_assert_not(is_load(&access_log[i]));
}

/* ---------------------------------------------------------------------------
 * Order
 * --------------------------------------------------------------------------- */
Test(split_driver, publish_is_one_release_store_after_all_others)
{
    /* D-SPLIT-05, pair A: descriptors and slots before idx */
    struct virtq_buffer buffer = {.seg = segs, .readable = 2, .writable = 1};
    unsigned at;

    open_both(0);
    for (unsigned i = 0; i < 3; i++)
        segs[i].len = 1;
    cr_assert_eq(virtq_driver_add(&driver, &buffer, NULL), 0);
    cr_assert_eq(stores_into(ring.avail, 4), 0, "idx and flags untouched by add");
    virtq_driver_publish(&driver);
    at = position(ACCESS_STORE_RELEASE, ring.avail + 2);
    cr_assert_eq(at, access_count - 1);
    cr_assert_eq(stores_into(ring.avail, 4), 1);
}

Test(split_device, pop_acquires_idx_before_all_others)
{
    /* V-SPLIT-07, pair A */
    open_both(0);
    raw_offer(&ring, 0);
    cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    cr_assert_eq(position(ACCESS_LOAD_ACQUIRE, ring.avail + 2), 0);
    cr_assert_gt(position(ACCESS_LOAD, ring.avail + 4), 0);
}

Test(split_device, flush_is_one_release_store_after_the_entries)
{
    /* V-SPLIT-05, pair B: entries before idx */
    open_both(0);
    raw_offer(&ring, 0);
    cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    virtq_device_push(&device, chain.token, 0);
    cr_assert_eq(stores_into(ring.used, 4), 0, "idx and flags untouched by push");
    virtq_device_flush(&device);
    cr_assert_eq(position(ACCESS_STORE_RELEASE, ring.used + 2), access_count - 1);
    cr_assert_eq(stores_into(ring.used, 4), 1);
    cr_assert_eq(stores_into(ring.used, raw_used_bytes(NUM)), 3);
}

Test(split_driver, take_acquires_idx_before_all_others)
{
    /* D-SPLIT-11, pair B */
    struct virtq_done done;
    struct virtq_seg seg = {0x1000, 64};

    open_both(0);
    cr_assert_eq(virtq_driver_add_writable(&driver, seg, NULL), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 64);
    access_count = 0;
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(position(ACCESS_LOAD_ACQUIRE, ring.used + 2), 0);
    cr_assert_gt(position(ACCESS_LOAD, ring.used + 4), 0);
}

Test(split_driver, kick_due_has_the_fence_between_idx_and_hint)
{
    /* T-43, D-SPLIT-06, pair C: full fence between publishing idx and reading the suppression */
    for (uint16_t flags = 0; flags <= EITHER; flags = (uint16_t)(flags + EITHER)) {
        struct virtq_seg seg = {0x1000, 64};
        unsigned fence;

        open_both(flags);
        cr_assert_eq(virtq_driver_add_writable(&driver, seg, NULL), 0);
        virtq_driver_publish(&driver);
        cr_assert(virtq_driver_kick_due(&driver));
        fence = position(ACCESS_FENCE, NULL);
        cr_assert_lt(position(ACCESS_STORE_RELEASE, ring.avail + 2), fence);
        cr_assert_gt(position(ACCESS_LOAD_RELAXED, suppression_word(&ring, flags, false)), fence);
    }
}

Test(split_device, irq_due_has_the_fence_between_idx_and_hint)
{
    /* T-43 for the device side, pair D */
    for (uint16_t flags = 0; flags <= EITHER; flags = (uint16_t)(flags + EITHER)) {
        unsigned fence;

        open_both(flags);
        raw_offer(&ring, 0);
        cr_assert_eq(virtq_device_pop(&device, &chain), 1);
        virtq_device_push(&device, chain.token, 0);
        virtq_device_flush(&device);
        cr_assert(virtq_device_irq_due(&device));
        fence = position(ACCESS_FENCE, NULL);
        cr_assert_lt(position(ACCESS_STORE_RELEASE, ring.used + 2), fence);
        cr_assert_gt(position(ACCESS_LOAD_RELAXED, suppression_word(&ring, flags, true)), fence);
    }
}

Test(split_device, kick_on_has_the_fence_between_hint_and_idx)
{
    /* T-48, pair C: the re-check comes after the fence */
    for (uint16_t flags = 0; flags <= EITHER; flags = (uint16_t)(flags + EITHER)) {
        unsigned fence;

        open_both(flags);
        cr_assert_not(virtq_device_kick_on(&device));
        fence = position(ACCESS_FENCE, NULL);
        cr_assert_lt(position(ACCESS_STORE_RELAXED, suppression_word(&ring, flags, false)), fence);
        cr_assert_gt(position(ACCESS_LOAD_ACQUIRE, ring.avail + 2), fence);
    }
}

static void check_irq_on(uint16_t flags, bool after)
{
    struct virtq_seg seg = {0x1000, 64};
    unsigned fence;

    open_both(flags);
    cr_assert_eq(virtq_driver_add_writable(&driver, seg, NULL), 0);
    virtq_driver_publish(&driver);
    access_count = 0;
    cr_assert_not(after ? virtq_driver_irq_on_after(&driver) : virtq_driver_irq_on(&driver));
    fence = position(ACCESS_FENCE, NULL);
    cr_assert_lt(position(ACCESS_STORE_RELAXED, suppression_word(&ring, flags, true)), fence);
    cr_assert_gt(position(ACCESS_LOAD_ACQUIRE, ring.used + 2), fence);
}

Test(split_driver, irq_on_has_the_fence_between_hint_and_idx)
{
    /* T-48, D-SPLIT-10, pair D: the re-check comes after the fence */
    for (uint16_t flags = 0; flags <= EITHER; flags = (uint16_t)(flags + EITHER)) {
        check_irq_on(flags, false);
        check_irq_on(flags, true);
    }
}

Test(split_driver, suppressed_kick_costs_one_load)
{
    /* D-EVT-04: no store when nothing is due */
    open_both(VIRTQ_EVENT_IDX);
    raw_set_avail_event(&ring, 100);
    cr_assert_not(virtq_driver_kick_due(&driver));
    cr_assert_eq(access_count, 2, "a fence and a load");
}

/* ---------------------------------------------------------------------------
 * Packed ring
 * --------------------------------------------------------------------------- */
enum { ADDR = 0, LEN = 8, ID = 12, FLAGS = 14 /* offsets of the fields of a packed descriptor */ };

static uint8_t *field(uint32_t slot, unsigned offset)
{
    return packed.desc + 16 * slot + offset;
}

/* Both sides stand at `slot`, with wrap 1. */
static void open_packed(uint16_t flags, uint32_t slot)
{
    uint16_t word = (uint16_t)(0x8000 | slot);
    struct virtq_position at = {word, word};

    rawp_open(&packed, NUM, 0);
    rawp_start(&peer, slot, true);
    areas.num = NUM;
    areas.flags = (uint16_t)(flags | VIRTQ_PACKED);
    areas.desc = packed.desc;
    areas.driver = packed.driver;
    areas.device = packed.device;
    chain.seg = segs;
    chain.capacity = NUM;
    for (unsigned i = 0; i < NUM; i++)
        segs[i].len = 1;
    memset(table_mem, 0, sizeof(table_mem));
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
    cr_assert_eq(virtq_driver_restore(&driver, at), 0);
    cr_assert_eq(virtq_device_init(&device, &areas, map_table, table_mem), 0);
    cr_assert_eq(virtq_device_restore(&device, at), 0);
    access_count = 0;
}

static unsigned count_of(enum access_kind kind)
{
    unsigned count = 0;

    for (unsigned i = 0; i < access_count; i++)
        count += access_log[i].kind == kind;
    return count;
}

static void expect_no_double_fetch_packed(void)
{
    cr_assert_gt(access_count, 0);
    cr_assert_lt(access_count, ACCESS_MAX);
    expect_once(packed.desc, rawp_desc_bytes(NUM));
    expect_once(packed.driver, RAWP_EVENT_BYTES);
    expect_once(packed.device, RAWP_EVENT_BYTES);
    expect_once(table_mem, sizeof(table_mem));
}

static void pop_packed(int expected)
{
    access_count = 0;
    cr_assert_eq(virtq_device_pop(&device, &chain), expected);
    expect_no_double_fetch_packed();
    for (unsigned i = 0; i < access_count; i++) {
        cr_assert(is_load(&access_log[i]));
        cr_assert(inside(&access_log[i], packed.desc, rawp_desc_bytes(NUM)) ||
                  inside(&access_log[i], table_mem, sizeof(table_mem)));
    }
}

static void offer_packed(uint64_t addr, uint32_t len, unsigned flags)
{
    rawp_offer(&packed, &peer, addr, len, flags, 3);
}

static void add_packed(uint16_t readable, uint16_t writable)
{
    struct virtq_buffer buffer = {.seg = segs, .readable = readable, .writable = writable};

    cr_assert_eq(virtq_driver_add(&driver, &buffer, NULL), 0);
}

Test(packed_device, pop_fetches_a_single_once)
{
    /* V-PACK-09: each descriptor is read once */
    open_packed(VIRTQ_INDIRECT, 0);
    offer_packed(0x1000, 1, RAW_WRITE);
    pop_packed(1);
    for (unsigned i = 0; i < 16; i++)
        cr_assert_eq(loads_of(field(0, i)), 1);
    cr_assert_eq(loads_of(field(1, FLAGS)), 0);
}

Test(packed_device, pop_fetches_a_list_once)
{
    /* V-PACK-09: a good one, a bad one that is walked to its end, and one without an end */
    for (uint32_t slot = 0; slot < NUM; slot++) {
        open_packed(VIRTQ_INDIRECT, slot);
        for (uint32_t i = 0; i < 5; i++)
            offer_packed(0x1000, 1, i < 4 ? RAW_NEXT : 0);
        pop_packed(1);
        open_packed(VIRTQ_INDIRECT, slot);
        for (uint32_t i = 0; i < NUM; i++)
            offer_packed(0x1000, 1, (i == 0 ? RAW_WRITE : 0u) | (i + 1 < NUM ? RAW_NEXT : 0u));
        pop_packed(VIRTQ_ERR_CHAIN_ORDER);
        open_packed(VIRTQ_INDIRECT, slot);
        for (uint32_t i = 0; i < NUM; i++)
            offer_packed(0x1000, 1, RAW_NEXT);
        pop_packed(VIRTQ_ERR_AVAIL_LIST);
    }
}

Test(packed_device, pop_fetches_a_table_once)
{
    /* V-PACK-09, V-IND-03: at each alignment, and all of it through the macros; V-IND-04: but for
     * the ids, which nobody needs */
    for (uint32_t off = 0; off < 16; off++) {
        open_packed(VIRTQ_INDIRECT, 2);
        for (uint32_t i = 0; i < TABLE; i++)
            rawp_desc(table_mem + off, i, 0x1000, 1, 0, i + 1 < TABLE ? 0 : RAW_WRITE);
        offer_packed(off, TABLE * 16, RAW_INDIRECT);
        pop_packed(1);
        cr_assert_eq(chain.readable, TABLE - 1);
        for (uint32_t i = 0; i < TABLE * 16; i++) {
            cr_assert_leq(loads_of(table_mem + off + i), 1);
            cr_assert(loads_of(table_mem + off + i) == 1 || i % 16 / 2 == 6);
        }
    }
}

Test(packed_device, pop_of_nothing_looks_at_one_word)
{
    /* V-PACK-02: only at the flags of the next slot */
    open_packed(0, 5);
    pop_packed(0);
    cr_assert_eq(access_count, 1);
    cr_assert_eq(position(ACCESS_LOAD_ACQUIRE, field(5, FLAGS)), 0);
}

Test(packed_device, pop_acquires_the_flags_before_all_others)
{
    /* V-PACK-09, pair A */
    open_packed(0, 7);
    offer_packed(0x1000, 1, RAW_NEXT);
    offer_packed(0x1000, 1, 0);
    offer_packed(0x1000, 1, RAW_WRITE);
    for (unsigned i = 0; i < 2; i++) {
        pop_packed(1);
        cr_assert_eq(position(ACCESS_LOAD_ACQUIRE, field(i == 0 ? 7 : 1, FLAGS)), 0);
        cr_assert_gt(position(ACCESS_LOAD, field(i == 0 ? 7 : 1, ADDR)), 0);
    }
}

Test(packed_driver, take_fetches_once)
{
    /* D-PACK-13: what is checked is what is used; D-PACK-12, pair B: flags acquired before the
     * rest; D-PACK-11: addr is not read */
    struct virtq_done done;

    for (unsigned written = 0; written < 2; written++) {
        open_packed(0, 6);
        add_packed(1, 1);
        virtq_driver_publish(&driver);
        rawp_use(&packed, &peer, rawp_id(packed.desc, 7), 1, written != 0 ? RAW_WRITE : 0, 2);
        access_count = 0;
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        expect_no_double_fetch_packed();
        cr_assert_eq(position(ACCESS_LOAD_ACQUIRE, field(6, FLAGS)), 0);
        cr_assert_gt(position(ACCESS_LOAD, field(6, ID)), 0);
        cr_assert_geq(loads_of(field(6, LEN)), written);
        cr_assert_eq(loads_of(field(6, ADDR)), 0);
        for (unsigned i = 0; i < access_count; i++)
            cr_assert(is_load(&access_log[i]));
    }
}

Test(packed_driver, take_of_nothing_looks_at_one_word)
{
    /* D-PACK-14: only the next expected slot is polled, and none while nothing is out */
    struct virtq_done done;

    open_packed(0, 5);
    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
    cr_assert_eq(access_count, 0);
    add_packed(1, 1);
    virtq_driver_publish(&driver);
    access_count = 0;
    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
    cr_assert_eq(position(ACCESS_LOAD_ACQUIRE, field(5, FLAGS)), 0);
    cr_assert_eq(access_count, 1);
}

Test(packed_driver, add_reads_nothing_that_is_shared)
{
    /* D-PACK-02, D-PACK-13 */
    struct virtq_buffer buffer = {.seg = segs, .readable = 2, .writable = 1};
    struct virtq_table table = {.mem = table_mem, .addr = 0, .capacity = TABLE};

    open_packed(VIRTQ_INDIRECT, 6);
    add_packed(2, 1);
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), 0);
    cr_assert_eq(virtq_driver_add_writable(&driver, segs[0], NULL), 0);
    cr_assert_eq(virtq_driver_add_indirect(&driver, &buffer, &table, NULL), 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(stores_into(packed.driver, RAWP_EVENT_BYTES), 0);
    cr_assert_eq(stores_into(packed.device, RAWP_EVENT_BYTES), 0);
    for (unsigned i = 0; i < access_count; i++)
        cr_assert_not(is_load(&access_log[i]));
}

Test(packed_driver, publish_is_one_release_store_after_all_others)
{
    /* D-PACK-04, D-PACK-08, T-63, pair A: all descriptors before the flags of the first head */
    for (uint32_t slot = 0; slot < NUM; slot++) {
        unsigned before;

        open_packed(0, slot);
        add_packed(2, 1);
        add_packed(0, 1);
        add_packed(1, 1);
        cr_assert_eq(stores_into(field(slot, FLAGS), 2), 0, "untouched by add");
        before = access_count;
        virtq_driver_publish(&driver);
        cr_assert_eq(access_count, before + 1);
        cr_assert_eq(position(ACCESS_STORE_RELEASE, field(slot, FLAGS)), before);
        cr_assert_eq(count_of(ACCESS_STORE_RELEASE), 1);
        cr_assert_eq(stores_into(field(slot, FLAGS), 2), 1);
        for (uint32_t i = 1; i < 6; i++)
            cr_assert_geq(stores_into(field((slot + i) % NUM, FLAGS), 2), 1);
        virtq_driver_publish(&driver);
        cr_assert_eq(access_count, before + 1, "nothing new");
    }
}

Test(packed_device, flush_is_one_release_store_after_the_entries)
{
    /* V-PACK-07, V-PACK-08, pair B: id and len of all before the flags of the first one */
    open_packed(0, 6);
    for (unsigned i = 0; i < 3; i++)
        offer_packed(0x1000, 1, RAW_WRITE);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    access_count = 0;
    for (unsigned i = 0; i < 3; i++)
        virtq_device_push(&device, chain.token, i);
    cr_assert_eq(stores_into(field(6, FLAGS), 2), 0, "untouched by push");
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(stores_into(field((6 + i) % NUM, ID), 2), 1);
        cr_assert_eq(stores_into(field((6 + i) % NUM, LEN), 4), 1);
        cr_assert_eq(stores_into(field((6 + i) % NUM, ADDR), 8), 0);
    }
    virtq_device_flush(&device);
    cr_assert_eq(position(ACCESS_STORE_RELEASE, field(6, FLAGS)), access_count - 1);
    cr_assert_eq(count_of(ACCESS_STORE_RELEASE), 1);
    cr_assert_eq(stores_into(packed.desc, rawp_desc_bytes(NUM)), 9);
    virtq_device_flush(&device);
    cr_assert_eq(stores_into(packed.desc, rawp_desc_bytes(NUM)), 9, "nothing new");
}

Test(packed_driver, kick_due_has_the_fence_between_flags_and_event)
{
    /* D-PACK-09, D-PEVT-03, pair C: full fence, then the event word in one load */
    for (uint16_t flags = 0; flags <= EITHER; flags = (uint16_t)(flags + EITHER)) {
        unsigned fence;

        open_packed(flags, 0);
        add_packed(1, 1);
        virtq_driver_publish(&driver);
        cr_assert(virtq_driver_kick_due(&driver));
        fence = position(ACCESS_FENCE, NULL);
        cr_assert_lt(position(ACCESS_STORE_RELEASE, field(0, FLAGS)), fence);
        cr_assert_gt(position(ACCESS_LOAD_RELAXED, packed.device), fence);
        cr_assert_eq(loads_of(packed.device + 3), 1, "the whole of it");
        cr_assert_eq(loads_of(packed.driver), 0, "T-73");
    }
}

Test(packed_device, irq_due_has_the_fence_between_flags_and_event)
{
    /* V-PEVT-01, D-PEVT-03 for the device side, pair D */
    for (uint16_t flags = 0; flags <= EITHER; flags = (uint16_t)(flags + EITHER)) {
        unsigned fence;

        open_packed(flags, 0);
        offer_packed(0x1000, 1, RAW_WRITE);
        cr_assert_eq(virtq_device_pop(&device, &chain), 1);
        virtq_device_push(&device, chain.token, 0);
        virtq_device_flush(&device);
        cr_assert(virtq_device_irq_due(&device));
        fence = position(ACCESS_FENCE, NULL);
        cr_assert_lt(position(ACCESS_STORE_RELEASE, field(0, FLAGS)), fence);
        cr_assert_gt(position(ACCESS_LOAD_RELAXED, packed.driver), fence);
        cr_assert_eq(loads_of(packed.driver + 3), 1, "the whole of it");
        cr_assert_eq(loads_of(packed.device), 0, "T-73");
    }
}

Test(packed_device, kick_on_has_the_fence_between_event_and_flags)
{
    /* V-PEVT-01, D-PEVT-02 for the device side, pair C: the re-check comes after the fence; mode
     * and offset in one store, so that no mixture is seen */
    for (uint16_t flags = 0; flags <= EITHER; flags = (uint16_t)(flags + EITHER)) {
        unsigned fence;

        open_packed(flags, 3);
        cr_assert_not(virtq_device_kick_on(&device));
        fence = position(ACCESS_FENCE, NULL);
        cr_assert_lt(position(ACCESS_STORE_RELAXED, packed.device), fence);
        cr_assert_gt(position(ACCESS_LOAD_ACQUIRE, field(3, FLAGS)), fence);
        cr_assert_eq(stores_into(packed.device, RAWP_EVENT_BYTES), 1);
        cr_assert_eq(access_log[position(ACCESS_STORE_RELAXED, packed.device)].bytes, 4);
        virtq_device_kick_off(&device);
        cr_assert_eq(stores_into(packed.device, RAWP_EVENT_BYTES), 2);
        cr_assert_eq(access_log[access_count - 1].bytes, 4);
    }
}

static void check_packed_irq_on(uint16_t flags, bool after)
{
    unsigned fence;

    open_packed(flags, 3);
    add_packed(1, 1);
    virtq_driver_publish(&driver);
    access_count = 0;
    cr_assert_not(after ? virtq_driver_irq_on_after(&driver) : virtq_driver_irq_on(&driver));
    fence = position(ACCESS_FENCE, NULL);
    cr_assert_lt(position(ACCESS_STORE_RELAXED, packed.driver), fence);
    cr_assert_gt(position(ACCESS_LOAD_ACQUIRE, field(3, FLAGS)), fence);
    cr_assert_eq(stores_into(packed.driver, RAWP_EVENT_BYTES), 1);
    cr_assert_eq(access_log[position(ACCESS_STORE_RELAXED, packed.driver)].bytes, 4);
    virtq_driver_irq_off(&driver);
    cr_assert_eq(stores_into(packed.driver, RAWP_EVENT_BYTES), 2);
    cr_assert_eq(access_log[access_count - 1].bytes, 4);
}

Test(packed_driver, irq_on_has_the_fence_between_event_and_flags)
{
    /* D-PEVT-02, pair D: the re-check comes after the fence; mode and offset in one store */
    for (uint16_t flags = 0; flags <= EITHER; flags = (uint16_t)(flags + EITHER)) {
        check_packed_irq_on(flags, false);
        check_packed_irq_on(flags, true);
    }
}

Test(packed_driver, suppressed_kick_costs_one_load)
{
    /* D-PACK-09: a fence and a load, in every mode that says no */
    struct rawp_pos far = {NUM - 1, false};

    for (unsigned mode = RAWP_DISABLE; mode <= RAWP_DESC; mode++) {
        open_packed(VIRTQ_EVENT_IDX, 0);
        add_packed(1, 1);
        virtq_driver_publish(&driver);
        rawp_set_event(packed.device, far, mode);
        access_count = 0;
        cr_assert_not(virtq_driver_kick_due(&driver));
        cr_assert_eq(access_count, 2);
        cr_assert_eq(position(ACCESS_FENCE, NULL), 0);
    }
}
