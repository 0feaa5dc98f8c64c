// SPDX-License-Identifier: MIT-0
/* Each side of the packed ring alone, against a mock peer that reads and writes the shared bytes by
 * hand at the offsets of the specification. The first line of a rule test names the rule. */
#include "tests/support/test_config.h"

#include <criterion/criterion.h>

#include "tests/support/raw_packed.h"
#include "virtio_ring.h"

enum { MAX_NUM = 32768, TABLE_BYTES = 64 * 16 };
enum { PACKED = VIRTQ_PACKED, EVENTS = PACKED | VIRTQ_EVENT_IDX, TABLES = PACKED | VIRTQ_INDIRECT };

static const uint16_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 256, 257, 32767, 32768};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), SMALL = 9 /* the first so many are 1 to 9 */ };

static struct rawp_ring ring;
static struct rawp_side peer; /* the other side of the one under test */
static struct virtq_areas areas;
static struct virtq_driver driver;
static struct virtq_device device;
static struct virtq_slot *slots;
static struct virtq_seg segs[MAX_NUM];
static struct virtq_chain chain;
static struct virtq_done done;
static char cookies[MAX_NUM];

/* One piece of guest memory, for indirect tables. */
static struct {
    _Alignas(16) uint8_t mem[TABLE_BYTES + 16];
    uint64_t addr;
    unsigned maps;
} guest;

static const void *map_guest(void *ctx, uint64_t addr, uint32_t len)
{
    cr_assert_eq(ctx, &guest);
    guest.maps++;
    if (addr < guest.addr || addr - guest.addr > sizeof(guest.mem) ||
        len > sizeof(guest.mem) - (addr - guest.addr))
        return NULL;
    return guest.mem + (addr - guest.addr);
}

static void open_ring(uint32_t num, uint16_t flags, int fill)
{
    rawp_open(&ring, num, fill);
    rawp_start(&peer, 0, true);
    areas.num = (uint16_t)num;
    areas.flags = flags;
    areas.desc = ring.desc;
    areas.driver = ring.driver;
    areas.device = ring.device;
    free(slots);
    slots = calloc(num, sizeof(*slots));
    cr_assert_not_null(slots);
    memset(&guest, 0, sizeof(guest));
    guest.addr = UINT64_C(0x123456780);
}

static void open_driver(uint32_t num, uint16_t flags)
{
    open_ring(num, flags, 0xa5);
    memset(&driver, 0, sizeof(driver));
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
}

static void open_device(uint32_t num, uint16_t flags)
{
    open_ring(num, flags, 0);
    memset(&device, 0, sizeof(device));
    chain.seg = segs;
    chain.capacity = MAX_NUM;
    cr_assert_eq(virtq_device_init(&device, &areas, map_guest, &guest), 0);
}

static struct rawp_pos place(uint32_t slot, bool wrap)
{
    struct rawp_pos at = {slot, wrap};

    return at;
}

/* All positions of a ring in the order of a queue's life: 2 * num of them. */
static struct rawp_pos nth(uint32_t num, uint32_t n)
{
    return place(n % num, n / num % 2 == 0);
}

static uint16_t word(struct rawp_pos at)
{
    return (uint16_t)(at.slot | (at.wrap ? 0x8000u : 0u));
}

static struct virtq_position position(struct rawp_pos avail, struct rawp_pos used)
{
    struct virtq_position at = {word(avail), word(used)};

    return at;
}

static void start_driver_at(struct rawp_pos at)
{
    cr_assert_eq(virtq_driver_restore(&driver, position(at, at)), 0);
    rawp_start(&peer, at.slot, at.wrap);
}

static void start_device_at(struct rawp_pos at)
{
    cr_assert_eq(virtq_device_restore(&device, position(at, at)), 0);
    rawp_start(&peer, at.slot, at.wrap);
}

static uint64_t hash(uint64_t sum, const void *data, size_t bytes)
{
    const uint8_t *at = (const uint8_t *)data;

    while (bytes-- != 0)
        sum = (sum ^ *at++) * UINT64_C(0x100000001b3);
    return sum;
}

/* Of all that is shared. */
static uint64_t ring_hash(void)
{
    uint64_t sum = hash(1, ring.desc, rawp_desc_bytes(ring.num));

    sum = hash(sum, ring.driver, RAWP_EVENT_BYTES);
    return hash(sum, ring.device, RAWP_EVENT_BYTES);
}

/* And of what the driver side keeps: to show that an error changed nothing. */
static uint64_t driver_hash(void)
{
    uint64_t sum = hash(ring_hash(), &driver, sizeof(driver));

    sum = hash(sum, slots, ring.num * sizeof(*slots));
    return hash(sum, guest.mem, sizeof(guest.mem));
}

static struct virtq_seg seg_of(uint64_t addr, uint32_t len)
{
    struct virtq_seg seg = {addr, len};

    return seg;
}

/* The segments that the tests use, so that each place in a list is known by its content. */
static struct virtq_seg nth_seg(uint32_t i)
{
    return seg_of(0x1000 * (UINT64_C(1) + i), 16 + i % 61);
}

static struct virtq_buffer buffer_of(uint32_t readable, uint32_t writable)
{
    struct virtq_buffer buffer = {segs, (uint16_t)readable, (uint16_t)writable};

    for (uint32_t i = 0; i < readable + writable && i < MAX_NUM; i++)
        segs[i] = nth_seg(i);
    return buffer;
}

static int add(uint32_t readable, uint32_t writable, unsigned cookie)
{
    struct virtq_buffer buffer = buffer_of(readable, writable);

    return virtq_driver_add(&driver, &buffer, &cookies[cookie]);
}

static int add_writable(uint32_t len, unsigned cookie)
{
    return virtq_driver_add_writable(&driver, seg_of(0x1000, len), &cookies[cookie]);
}

static int add_indirect(uint32_t readable, uint32_t writable, uint16_t capacity, unsigned cookie)
{
    struct virtq_buffer buffer = buffer_of(readable, writable);
    struct virtq_table table = {guest.mem, guest.addr, capacity};

    return virtq_driver_add_indirect(&driver, &buffer, &table, &cookies[cookie]);
}

static bool desc_is(const uint8_t *table, uint32_t i, struct virtq_seg seg, unsigned flags)
{
    return rawp_addr(table, i) == seg.addr && rawp_len(table, i) == seg.len &&
           rawp_flags(table, i) == flags;
}

/* A single buffer from add to take, with the mock device in between. */
static void driver_round_trip(void)
{
    struct rawp_list list = {0, 0, 0};
    bool good = add_writable(64, 0) == 0;

    virtq_driver_publish(&driver);
    good = good && rawp_fetch(&ring, &peer, &list);
    rawp_use(&ring, &peer, list.id, 64, RAW_WRITE, list.count);
    if (!good || virtq_driver_take(&driver, &done) != 1)
        cr_assert_fail("no round trip");
}

/* The same for the device side. */
static void device_round_trip(void)
{
    rawp_offer(&ring, &peer, 0x1000, 64, RAW_WRITE, 0);
    if (virtq_device_pop(&device, &chain) != 1)
        cr_assert_fail("not popped");
    virtq_device_push(&device, chain.token, 64);
    virtq_device_flush(&device);
    if (!rawp_collect(&ring, &peer, 0, 64, true, 1))
        cr_assert_fail("not used");
}

/* `count` of them, with a decision to notify at each. */
static void cycle_driver(uint32_t count)
{
    while (count-- != 0) {
        driver_round_trip();
        (void)!virtq_driver_kick_due(&driver);
    }
}
static void cycle_device(uint32_t count)
{
    while (count-- != 0) {
        device_round_trip();
        (void)!virtq_device_irq_due(&device);
    }
}

/* ---------------------------------------------------------------------------
 * Layout
 * --------------------------------------------------------------------------- */
Test(packed_layout, ring_and_two_event_areas)
{
    /* L-PACK-03: 16 * num, 4 and 4 bytes, aligned to 16, 4 and 4 */
    for (uint32_t num = 1; num <= MAX_NUM; num++) {
        struct virtq_offsets at = virtq_area_offsets((uint16_t)num, 4, PACKED);

        if (at.driver != 16 * num || at.device != 16 * num + 4 || at.total != 16 * num + 8 ||
            at.total != VIRTQ_PACKED_BYTES(num, 4))
            cr_assert_fail("size %u", num);
    }
    cr_assert_eq(virtq_area_offsets(5, 64, PACKED).device, 128);
    cr_assert_eq(virtq_area_offsets(5, 64, PACKED).total, 192);
}

Test(packed_layout, areas_point_into_one_piece)
{
    /* L-VQ-02, T-73: the driver area is the one that the driver writes */
    static _Alignas(16) uint8_t mem[VIRTQ_PACKED_BYTES(5, 4)];
    static struct virtq_slot five[5];

    memset(mem, 0xa5, sizeof(mem));
    virtq_areas_set(&areas, mem, 5, 4, EVENTS);
    cr_assert_eq(areas.num, 5);
    cr_assert_eq(areas.flags, EVENTS);
    cr_assert_eq((uint8_t *)areas.desc - mem, 0);
    cr_assert_eq((uint8_t *)areas.driver - mem, 80);
    cr_assert_eq((uint8_t *)areas.device - mem, 84);
    cr_assert_eq(mem[0], 0xa5, "points, writes nothing");
    cr_assert_eq(virtq_driver_init(&driver, &areas, five), 0);
    virtq_driver_irq_off(&driver);
    cr_assert_eq(rawp_event_flags(mem + 80), RAWP_DISABLE);
    cr_assert_eq(rawp_event_flags(mem + 84), RAWP_ENABLE);
}

Test(packed_layout, every_size_up_to_32768)
{
    /* L-PACK-03, T-71: any size, not only powers of two */
    uint32_t legal = 0;

    for (uint32_t num = 0; num <= 0x20000; num++)
        legal += virtq_size_ok(num, PACKED);
    cr_assert_eq(legal, 32768);
    cr_assert_not(virtq_size_ok(0, PACKED));
    cr_assert_not(virtq_size_ok(32769, PACKED));
    cr_assert_not(virtq_size_ok(3, 0), "split");
}

/* ---------------------------------------------------------------------------
 * Driver side: start
 * --------------------------------------------------------------------------- */
static bool all_zero(const uint8_t *at, size_t bytes)
{
    while (bytes-- != 0)
        if (*at++ != 0)
            return false;
    return true;
}

Test(packed_driver, init_zeroes_exactly_the_areas)
{
    /* D-PACK-01: the ring is zeroed at start; L-PACK-03: at every size */
    for (unsigned i = 0; i < SIZES; i++) {
        open_driver(sizes[i], PACKED);
        cr_assert(all_zero(ring.desc, rawp_desc_bytes(sizes[i])));
        cr_assert(all_zero(ring.driver, RAWP_EVENT_BYTES));
        cr_assert(all_zero(ring.device, RAWP_EVENT_BYTES));
        cr_assert_eq(virtq_driver_free_count(&driver), sizes[i]);
        cr_assert_eq(virtq_driver_error(&driver), 0);
    }
}

static void refuse_start(int err)
{
    struct virtq_device untouched = device;
    uint64_t before = driver_hash();

    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), err);
    cr_assert_eq(driver_hash(), before);
    cr_assert_eq(virtq_device_init(&device, &areas, map_guest, &guest), err);
    cr_assert_eq(memcmp(&device, &untouched, sizeof(device)), 0);
}

Test(packed_driver, init_refuses_a_bad_size)
{
    /* L-PACK-03: 1 to 32768, on both sides */
    static const uint16_t bad[] = {0, 32769, 49152, 65535};

    open_driver(8, PACKED);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        areas.num = bad[i];
        refuse_start(VIRTQ_ERR_SIZE);
    }
}

Test(packed_driver, init_refuses_legacy)
{
    /* L-PACK-01: a packed ring is little-endian; there is none without VERSION_1 */
    open_driver(8, PACKED);
    areas.flags = PACKED | VIRTQ_LEGACY;
    refuse_start(VIRTQ_ERR_FLAGS);
    areas.flags = PACKED | VIRTQ_LEGACY | VIRTQ_EVENT_IDX | VIRTQ_INDIRECT;
    refuse_start(VIRTQ_ERR_FLAGS);
    areas.flags = PACKED | VIRTQ_FOREIGN_ENDIAN;
    refuse_start(VIRTQ_ERR_FLAGS);
}

static void refuse_area(void **area, size_t off)
{
    uint8_t *good = (uint8_t *)*area;

    *area = good + off;
    refuse_start(VIRTQ_ERR_ALIGN);
    *area = NULL;
    refuse_start(VIRTQ_ERR_ALIGN);
    *area = good;
}

Test(packed_driver, init_refuses_a_bad_alignment)
{
    /* D-PACK-01, L-PACK-03: areas aligned to 16, 4 and 4, on both sides */
    open_driver(8, PACKED);
    for (size_t off = 1; off < 16; off++)
        refuse_area(&areas.desc, off);
    for (size_t off = 1; off < 4; off++) {
        refuse_area(&areas.driver, off);
        refuse_area(&areas.device, off);
    }
    areas.driver = ring.desc + 68;
    areas.device = ring.desc + 76;
    areas.num = 4;
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0, "4 is enough there");
}

/* ---------------------------------------------------------------------------
 * Driver side: adding
 * --------------------------------------------------------------------------- */
Test(packed_driver, one_segment_at_its_offsets)
{
    /* L-PACK-01: le64 addr@0, le32 len@8, le16 id@12, le16 flags@14; WRITE 2, AVAIL 1<<7 */
    static const uint8_t expected[12] = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33,
                                         0x22, 0x11, 0xcc, 0xbb, 0xaa, 0x99};
    struct virtq_seg seg = seg_of(UINT64_C(0x1122334455667788), 0x99aabbcc);

    open_driver(5, PACKED);
    cr_assert_eq(virtq_driver_add_readable(&driver, seg, NULL), 0);
    cr_assert_eq(add_writable(512, 0), 0);
    cr_assert_eq(virtq_driver_add_pair(&driver, seg_of(0x3000, 7), seg_of(0x4000, 8), NULL), 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(memcmp(ring.desc, expected, 12), 0);
    cr_assert_eq(ring.desc[14], 0x80);
    cr_assert_eq(ring.desc[15], 0);
    cr_assert(desc_is(ring.desc, 1, seg_of(0x1000, 512), RAWP_AVAIL | RAW_WRITE));
    cr_assert(desc_is(ring.desc, 2, seg_of(0x3000, 7), RAWP_AVAIL | RAW_NEXT));
    cr_assert(desc_is(ring.desc, 3, seg_of(0x4000, 8), RAWP_AVAIL | RAW_WRITE));
    cr_assert_neq(rawp_id(ring.desc, 0), rawp_id(ring.desc, 1));
    cr_assert_neq(rawp_id(ring.desc, 1), rawp_id(ring.desc, 3));
    cr_assert_eq(rawp_flags(ring.desc, 4), 0);
    cr_assert_eq(virtq_driver_free_count(&driver), 1);
}

Test(packed_driver, wrap_counter_starts_at_1_and_flips_at_the_end)
{
    /* L-PACK-04, L-PACK-05: AVAIL == wrap, USED == !wrap; USED 1<<15 */
    open_driver(3, PACKED);
    for (unsigned lap = 0; lap < 5; lap++)
        for (uint32_t slot = 0; slot < 3; slot++) {
            cr_assert_eq(add_writable(64, 0), 0);
            virtq_driver_publish(&driver);
            cr_assert_eq(rawp_flags(ring.desc, slot), (lap % 2 == 0 ? 0x0080 : 0x8000) | RAW_WRITE);
            peer.avail = rawp_after(&ring, peer.avail, 1);
            rawp_use(&ring, &peer, rawp_id(ring.desc, slot), 1, RAW_WRITE, 1);
            cr_assert_eq(rawp_flags(ring.desc, slot) & RAWP_LAP, lap % 2 == 0 ? RAWP_LAP : 0);
            cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        }
}

/* The peer finds a list of the segments of buffer_of() from `at` on. */
static void expect_list(struct rawp_pos at, uint32_t readable, uint32_t writable)
{
    uint32_t count = readable + writable;

    for (uint32_t i = 0; i < count; i++, at = rawp_after(&ring, at, 1)) {
        unsigned flags = (i >= readable ? RAW_WRITE : 0u) | (i + 1 != count ? RAW_NEXT : 0u);

        if (!desc_is(ring.desc, at.slot, nth_seg(i), flags | rawp_avail_bits(at)))
            cr_assert_fail("slot %u, %u of %u", at.slot, i, count);
    }
}

/* One list of this shape from `at` on, through a round trip. */
static void list_from(struct rawp_pos at, uint32_t readable, uint32_t writable)
{
    uint32_t count = readable + writable;
    struct rawp_list list;

    start_driver_at(at);
    cr_assert_eq(add(readable, writable, count), 0);
    cr_assert_not(rawp_is_avail(&ring, at), "nothing before publish");
    virtq_driver_publish(&driver);
    expect_list(at, readable, writable);
    cr_assert(rawp_fetch(&ring, &peer, &list));
    cr_assert_eq(list.count, count);
    cr_assert_lt(list.id, ring.num);
    cr_assert_not(rawp_is_avail(&ring, peer.avail));
    cr_assert_eq(virtq_driver_free_count(&driver), ring.num - count);
    rawp_use(&ring, &peer, list.id, 0, 0, count);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[count]);
    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
    cr_assert_eq(virtq_driver_free_count(&driver), ring.num);
    cycle_driver(1);
}

Test(packed_driver, lists_of_every_shape_from_every_slot)
{
    /* D-PACK-05, T-62: flags with the wrap value of each slot; D-PACK-06: id in the last one;
     * D-VQ-01; T-61, D-PACK-10: a list as long as the ring flips both wrap counters */
    for (unsigned i = 0; i < SMALL; i++)
        for (uint32_t n = 0; n < 2u * sizes[i]; n++) {
            open_driver(sizes[i], PACKED);
            for (uint32_t count = 1; count <= sizes[i]; count++)
                for (uint32_t readable = 0; readable <= count; readable++) {
                    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
                    list_from(nth(sizes[i], n), readable, count - readable);
                }
        }
}

Test(packed_driver, lists_in_large_rings)
{
    /* T-71, D-PACK-05: no mask, at any size; lists that end at the ring's end and beyond it */
    for (unsigned i = SMALL; i < SIZES; i++) {
        uint32_t num = sizes[i];

        for (unsigned wrap = 0; wrap < 2; wrap++)
            for (uint32_t back = 1; back <= 3; back++) {
                open_driver(num, PACKED);
                list_from(place(num - back, wrap != 0), 1, 1);
                list_from(place(num - back, wrap != 0), 3, 2);
                list_from(place(num - back, wrap != 0), num, 0);
            }
    }
}

Test(packed_driver, list_that_ends_at_the_rings_end)
{
    /* T-61, L-PACK-04: the wrap counter flips when the last slot is made available */
    open_driver(5, PACKED);
    start_driver_at(place(2, true));
    cr_assert_eq(add(1, 2, 0), 0);
    virtq_driver_publish(&driver);
    expect_list(place(2, true), 1, 2);
    cr_assert_eq(virtq_driver_notification_data(&driver), 0, "slot 0, wrap 0");
    cr_assert_eq(add(1, 1, 1), 0);
    virtq_driver_publish(&driver);
    expect_list(place(0, false), 1, 1);
    cr_assert_eq(virtq_driver_notification_data(&driver), 2);
}

Test(packed_driver, batch_waits_for_its_first_head)
{
    /* T-63, D-PACK-04, D-PACK-08: nothing is visible before the flags of the first head */
    for (uint32_t n = 0; n < 18; n++) {
        struct rawp_pos at = nth(9, n);
        struct rawp_list list;
        uint16_t before;

        open_driver(9, TABLES);
        start_driver_at(at);
        before = rawp_flags(ring.desc, at.slot);
        cr_assert_eq(add(2, 1, 0), 0);
        cr_assert_eq(add_writable(64, 1), 0);
        cr_assert_eq(add_indirect(1, 1, 64, 2), 0);
        cr_assert_eq(add(1, 3, 3), 0);
        cr_assert_eq(rawp_flags(ring.desc, at.slot), before);
        cr_assert_not(rawp_fetch(&ring, &peer, &list));
        virtq_driver_publish(&driver);
        for (unsigned i = 0; i < 4; i++) {
            static const uint32_t counts[] = {3, 1, 1, 4};

            cr_assert(rawp_fetch(&ring, &peer, &list));
            cr_assert_eq(list.count, counts[i]);
        }
        cr_assert_not(rawp_fetch(&ring, &peer, &list));
    }
}

Test(packed_driver, publish_without_a_new_buffer_writes_nothing)
{
    /* D-PACK-02: no slot is touched after its AVAIL bit was flipped */
    uint64_t before;

    open_driver(4, PACKED);
    before = ring_hash();
    virtq_driver_publish(&driver);
    cr_assert_eq(ring_hash(), before);
    cr_assert_eq(add(1, 1, 0), 0);
    virtq_driver_publish(&driver);
    before = ring_hash();
    virtq_driver_publish(&driver);
    cr_assert_eq(ring_hash(), before);
}

Test(packed_driver, add_touches_only_the_slots_of_its_buffer)
{
    /* D-PACK-02: outstanding buffers stay as they are, through add, publish, kick and take */
    struct rawp_list list;
    uint64_t before;

    open_driver(5, EVENTS);
    start_driver_at(place(3, true));
    cr_assert_eq(add(2, 1, 0), 0);
    virtq_driver_publish(&driver);
    before = hash(hash(1, ring.desc, 16), ring.desc + 3 * 16, 32);
    cr_assert_eq(add_writable(64, 1), 0);
    virtq_driver_publish(&driver);
    (void)!virtq_driver_kick_due(&driver);
    cr_assert_eq(hash(hash(1, ring.desc, 16), ring.desc + 3 * 16, 32), before);
    cr_assert(rawp_fetch(&ring, &peer, &list));
    rawp_use(&ring, &peer, list.id, 0, 0, list.count);
    before = ring_hash();
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(ring_hash(), before);
}

static void expect_add(uint32_t readable, uint32_t writable, int expected)
{
    uint64_t before = driver_hash();

    cr_assert_eq(add(readable, writable, 0), expected);
    cr_assert_eq(driver_hash(), before);
    if (expected != VIRTQ_ERR_FULL) {
        cr_assert_eq(add_indirect(readable, writable, 64, 0), expected);
        cr_assert_eq(driver_hash(), before);
    }
}

Test(packed_driver, refuses_an_empty_buffer)
{
    /* L-VQ-04: a buffer has at least one element */
    open_driver(5, TABLES);
    expect_add(0, 0, VIRTQ_ERR_EMPTY);
}

Test(packed_driver, refuses_more_segments_than_the_queue_has_slots)
{
    /* D-PACK-07, D-IND-09, D-VQ-02: the entries of an indirect table count */
    open_driver(5, TABLES);
    expect_add(3, 3, VIRTQ_ERR_TOO_LONG);
    expect_add(6, 0, VIRTQ_ERR_TOO_LONG);
    expect_add(65535, 65535, VIRTQ_ERR_TOO_LONG);
    cr_assert_eq(add_indirect(3, 2, 64, 0), 0, "as many as the queue has");
    open_driver(1, TABLES);
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), VIRTQ_ERR_TOO_LONG);
}

static int add_three(uint32_t first, uint32_t second, uint32_t third)
{
    struct virtq_buffer buffer = buffer_of(1, 2);
    uint64_t before = driver_hash();
    int rc;

    segs[0].len = first;
    segs[1].len = second;
    segs[2].len = third;
    rc = virtq_driver_add(&driver, &buffer, &cookies[0]);
    if (rc != 0)
        cr_assert_eq(driver_hash(), before);
    return rc;
}

Test(packed_driver, refuses_4_gib)
{
    /* D-PACK-07: a device limits a list to 2^32 bytes; one less, so that a used length can say it */
    open_driver(5, PACKED);
    cr_assert_eq(add_three(0xfffffffd, 1, 2), VIRTQ_ERR_LENGTH);
    cr_assert_eq(add_three(0xfffffffd, 1, 1), 0);
    virtq_driver_publish(&driver);
    rawp_use(&ring, &peer, rawp_id(ring.desc, 2), 2, RAW_WRITE, 3);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.written, 2);
}

Test(packed_driver, room_for_the_whole_list_or_none)
{
    /* D-PACK-03: enough free slots for the entire list before the first one is exposed */
    for (uint32_t n = 0; n < 10; n++) {
        uint64_t before;

        open_driver(5, TABLES);
        start_driver_at(nth(5, n));
        cr_assert_eq(add(1, 2, 0), 0);
        virtq_driver_publish(&driver);
        expect_add(1, 2, VIRTQ_ERR_FULL);
        cr_assert_eq(add(1, 0, 1), 0);
        expect_add(1, 1, VIRTQ_ERR_FULL);
        cr_assert_eq(add_indirect(2, 2, 64, 2), 0, "one slot is enough");
        before = driver_hash();
        cr_assert_eq(add_indirect(1, 1, 64, 3), VIRTQ_ERR_FULL);
        cr_assert_eq(add_writable(64, 3), VIRTQ_ERR_FULL);
        cr_assert_eq(virtq_driver_add_readable(&driver, segs[0], NULL), VIRTQ_ERR_FULL);
        cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), VIRTQ_ERR_FULL);
        cr_assert_eq(driver_hash(), before);
        cr_assert_eq(virtq_driver_free_count(&driver), 0);
    }
}

/* ---------------------------------------------------------------------------
 * Driver side: indirect
 * --------------------------------------------------------------------------- */
Test(packed_driver, indirect_table_takes_one_slot)
{
    /* D-IND-08, T-72: entries follow each other, no link and no id; D-IND-06: only WRITE inside;
     * D-IND-07: the list is the one INDIRECT descriptor; INDIRECT 4 */
    open_driver(9, TABLES);
    cr_assert_eq(add_indirect(2, 3, 5, 0), 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(virtq_driver_free_count(&driver), 8);
    cr_assert(desc_is(ring.desc, 0, seg_of(guest.addr, 80), RAWP_AVAIL | RAW_INDIRECT));
    for (uint32_t i = 0; i < 5; i++) {
        cr_assert(desc_is(guest.mem, i, nth_seg(i), i < 2 ? 0 : RAW_WRITE));
        cr_assert_eq(rawp_id(guest.mem, i), 0);
    }
    cr_assert(all_zero(guest.mem + 80, sizeof(guest.mem) - 80), "no byte beyond the entries");
}

Test(packed_driver, indirect_completion_frees_its_slot)
{
    /* D-PACK-13: the limit on len is the writable bytes in the table; D-PACK-10: one slot */
    open_driver(3, TABLES);
    for (unsigned lap = 0; lap < 7; lap++) {
        uint32_t slot = peer.avail.slot;

        cr_assert_eq(add_indirect(1, 2, 64, 5), 0);
        virtq_driver_publish(&driver);
        cr_assert(rawp_is_avail(&ring, peer.avail));
        peer.avail = rawp_after(&ring, peer.avail, 1);
        rawp_use(&ring, &peer, rawp_id(ring.desc, slot), 17 + 18, RAW_WRITE, 1);
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        cr_assert_eq(done.cookie, &cookies[5]);
        cr_assert_eq(done.written, 17 + 18);
        cr_assert_eq(virtq_driver_free_count(&driver), 3);
    }
}

Test(packed_driver, indirect_only_where_it_is_worth_it)
{
    /* D-IND-06: only if negotiated; else, and for one segment or a small table, a plain list */
    open_driver(9, EVENTS);
    cr_assert_eq(add_indirect(2, 2, 64, 0), 0);
    virtq_driver_publish(&driver);
    expect_list(place(0, true), 2, 2);
    open_driver(9, TABLES);
    cr_assert_eq(add_indirect(0, 1, 64, 0), 0);
    virtq_driver_publish(&driver);
    expect_list(place(0, true), 0, 1);
    cr_assert_eq(add_indirect(2, 2, 3, 0), 0);
    virtq_driver_publish(&driver);
    expect_list(place(1, true), 2, 2);
    cr_assert(all_zero(guest.mem, sizeof(guest.mem)));
    cr_assert_eq(virtq_driver_free_count(&driver), 4);
}

/* ---------------------------------------------------------------------------
 * Driver side: completions
 * --------------------------------------------------------------------------- */
Test(packed_driver, takes_in_any_order)
{
    /* D-PACK-10, T-67: a used descriptor stands for all slots of its list */
    static const uint32_t counts[] = {3, 1, 2, 3};
    static const unsigned order[] = {2, 0, 3, 1};
    struct rawp_list lists[4];

    for (uint32_t n = 0; n < 18; n++) {
        uint32_t left = 0;

        open_driver(9, PACKED);
        start_driver_at(nth(9, n));
        for (unsigned i = 0; i < 4; i++)
            cr_assert_eq(add(0, counts[i], i), 0);
        virtq_driver_publish(&driver);
        for (unsigned i = 0; i < 4; i++)
            cr_assert(rawp_fetch(&ring, &peer, &lists[i]));
        for (uint32_t i = 0; i < 4; i++) {
            const struct rawp_list *list = &lists[order[i]];

            cr_assert_eq(virtq_driver_take(&driver, &done), 0);
            rawp_use(&ring, &peer, list->id, 10 + i, RAW_WRITE, list->count);
            cr_assert_eq(virtq_driver_take(&driver, &done), 1);
            cr_assert_eq(done.cookie, &cookies[order[i]]);
            cr_assert_eq(done.written, 10 + i);
            left += list->count;
            cr_assert_eq(virtq_driver_free_count(&driver), left);
        }
        cr_assert_eq(virtq_driver_take(&driver, &done), 0);
        cycle_driver(3);
    }
}

Test(packed_driver, takes_a_batch)
{
    /* D-PACK-14: only the next expected slot is looked at, one after the other */
    struct virtq_done batch[4];

    open_driver(5, PACKED);
    start_driver_at(place(3, true));
    cr_assert_eq(virtq_driver_take_batch(&driver, batch, 4), 0);
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(add_writable(64, i), 0);
    virtq_driver_publish(&driver);
    for (uint32_t i = 0; i < 5; i++)
        rawp_use(&ring, &peer, rawp_id(ring.desc, (3 + i) % 5), i, RAW_WRITE, 1);
    cr_assert_eq(virtq_driver_take_batch(&driver, batch, 4), 4);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(batch[i].cookie, &cookies[i]);
        cr_assert_eq(batch[i].written, i);
    }
    cr_assert_eq(virtq_driver_take_batch(&driver, batch, 4), 1);
    cr_assert_eq(batch[0].cookie, &cookies[4]);
    cr_assert_eq(virtq_driver_take_batch(&driver, batch, 4), 0);
}

/* Completes one writable buffer of 64 bytes as the device side of QEMU would, or another. */
static void expect_length(unsigned cookie, uint32_t len, unsigned flags, uint32_t written)
{
    uint32_t slot = peer.avail.slot;

    cr_assert_eq(add_writable(64, cookie), 0);
    virtq_driver_publish(&driver);
    peer.avail = rawp_after(&ring, peer.avail, 1);
    rawp_put(ring.desc + 16 * slot, 8, UINT64_MAX);
    rawp_use(&ring, &peer, rawp_id(ring.desc, slot), len, flags, 1);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[cookie]);
    cr_assert_eq(done.written, written);
}

Test(packed_driver, length_without_the_write_flag_never_breaks_the_queue)
{
    /* D-PACK-11, T-68: without WRITE the field means nothing; addr, NEXT and others are ignored. QEMU
     * never sets WRITE, so a length that fits counts all the same. */
    static const unsigned flags[] = {0, RAW_NEXT, RAW_INDIRECT, 0x7f78};

    open_driver(3, PACKED);
    for (unsigned i = 0; i < 4; i++) {
        unsigned other = flags[i] & ~(unsigned)RAW_WRITE;

        expect_length(0, 9, other | RAW_WRITE, 9);
        expect_length(1, 64, other | RAW_WRITE, 64);
        expect_length(2, 9, other, 9);
        expect_length(3, 64, other, 64);
        expect_length(4, 65, other, 0);
        expect_length(5, 0xffffffff, other, 0);
    }
}

Test(packed_driver, length_of_a_readable_buffer_is_ignored_without_the_write_flag)
{
    /* D-PACK-11 */
    open_driver(3, PACKED);
    cr_assert_eq(virtq_driver_add_readable(&driver, seg_of(0x1000, 64), &cookies[0]), 0);
    virtq_driver_publish(&driver);
    rawp_use(&ring, &peer, rawp_id(ring.desc, 0), 64, 0, 1);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.written, 0);
}

Test(packed_driver, flags_of_another_lap_are_not_used)
{
    /* L-PACK-05, T-65: AVAIL == USED is not enough, both are the wrap value; D-PACK-14 */
    for (uint32_t n = 0; n < 6; n++) {
        struct rawp_pos at = nth(3, n);
        unsigned good = rawp_used_bits(at);
        static const unsigned laps[] = {0, RAWP_AVAIL, RAWP_USED, RAWP_LAP};

        open_driver(3, PACKED);
        start_driver_at(at);
        cr_assert_eq(add_writable(64, 0), 0);
        cr_assert_eq(add_writable(64, 1), 0);
        virtq_driver_publish(&driver);
        rawp_set_flags(ring.desc, rawp_after(&ring, at, 1).slot,
                       rawp_used_bits(rawp_after(&ring, at, 1)));
        for (unsigned i = 0; i < 4; i++)
            for (unsigned low = 0; low < 8; low++) {
                rawp_set_flags(ring.desc, at.slot, laps[i] | low);
                if (laps[i] != good)
                    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
            }
        rawp_set_flags(ring.desc, at.slot, good);
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        cr_assert_eq(done.cookie, &cookies[0]);
    }
}

Test(packed_driver, nothing_is_used_while_nothing_is_outstanding)
{
    /* T-65, L-PACK-04: neither in a zeroed ring nor by what the flags happen to say */
    static const unsigned laps[] = {0, RAWP_AVAIL, RAWP_USED, RAWP_LAP};

    for (uint32_t n = 0; n < 6; n++)
        for (unsigned i = 0; i < 4; i++) {
            open_driver(3, PACKED);
            cycle_driver(n);
            for (uint32_t slot = 0; slot < 3; slot++)
                rawp_set_flags(ring.desc, slot, laps[i]);
            cr_assert_eq(virtq_driver_take(&driver, &done), 0);
            cr_assert_eq(add_writable(64, 0), 0);
            cr_assert_eq(virtq_driver_take(&driver, &done), 0, "added is not published");
            cr_assert_not(virtq_driver_irq_on(&driver));
        }
}

Test(packed_driver, scribbled_descriptors_do_not_reach_the_free_list)
{
    /* D-PACK-13: of what the device can write, only flags, id and len of a used one are read */
    struct rawp_list lists[2];

    open_driver(9, PACKED);
    cr_assert_eq(add(3, 2, 0), 0);
    cr_assert_eq(add(1, 2, 1), 0);
    virtq_driver_publish(&driver);
    cr_assert(rawp_fetch(&ring, &peer, &lists[0]));
    cr_assert(rawp_fetch(&ring, &peer, &lists[1]));
    memset(ring.desc, 0x77, rawp_desc_bytes(9));
    rawp_use(&ring, &peer, lists[1].id, 1, RAW_WRITE, 3);
    rawp_use(&ring, &peer, lists[0].id, 2, RAW_WRITE, 5);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[1]);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[0]);
    cr_assert_eq(virtq_driver_free_count(&driver), 9);
    cycle_driver(19);
}

/* A device that completes lists of random length in random order, over many laps. */
static struct {
    struct rawp_list list[MAX_NUM];
    unsigned cookie[MAX_NUM]; /* by buffer id */
    uint32_t held, random;
} model;

static uint32_t random_below(uint32_t limit)
{
    model.random = model.random * 1664525u + 1013904223u;
    return (model.random >> 8) % limit;
}

static struct rawp_list model_pick(void)
{
    uint32_t i = random_below(model.held);
    struct rawp_list list = model.list[i];

    model.list[i] = model.list[--model.held];
    return list;
}

static void model_add(uint32_t most, unsigned cookie)
{
    uint32_t count = 1 + random_below(most);
    struct rawp_list *list = &model.list[model.held];

    if (count > virtq_driver_free_count(&driver))
        return;
    if (add(0, count, cookie) != 0)
        cr_assert_fail("no room");
    virtq_driver_publish(&driver);
    if (!rawp_fetch(&ring, &peer, list) || list->count != count || list->id >= ring.num)
        cr_assert_fail("not found by the device");
    model.cookie[list->id] = cookie;
    model.held++;
}

static void model_complete(void)
{
    struct rawp_list list = model_pick();
    uint32_t before = virtq_driver_free_count(&driver);

    rawp_use(&ring, &peer, list.id, list.count, RAW_WRITE, list.count);
    if (virtq_driver_take(&driver, &done) != 1 || done.written != list.count ||
        done.cookie != &cookies[model.cookie[list.id]] ||
        virtq_driver_free_count(&driver) != before + list.count)
        cr_assert_fail("completion of id %u lost", list.id);
}

Test(packed_driver, random_lists_and_completions)
{
    /* D-PACK-02 to D-PACK-07, D-PACK-10, T-61, T-62, T-67, T-71: against a device with its own slot
     * and wrap, at every size, for many laps */
    for (unsigned i = 0; i < SIZES && sizes[i] <= 257; i++) {
        open_driver(sizes[i], PACKED);
        model.held = 0;
        model.random = sizes[i];
        for (unsigned step = 0; step < 4000; step++) {
            if (random_below(2) == 0)
                model_add(sizes[i] > 9 ? 70 : sizes[i], step);
            else if (model.held != 0)
                model_complete();
        }
        while (model.held != 0)
            model_complete();
        cr_assert_eq(virtq_driver_free_count(&driver), sizes[i]);
        cr_assert_eq(virtq_driver_take(&driver, &done), 0);
    }
}

Test(packed_driver, largest_queues)
{
    /* L-PACK-03, T-71: 32767 and 32768 slots, all outstanding */
    for (unsigned i = SIZES - 2; i < SIZES; i++) {
        uint32_t num = sizes[i];

        open_driver(num, EVENTS);
        start_driver_at(place(20000, false));
        for (uint32_t n = 0; n < num; n++)
            if (add_writable(64, n) != 0)
                cr_assert_fail("no room");
        virtq_driver_publish(&driver);
        cr_assert_eq(add_writable(1, 0), VIRTQ_ERR_FULL);
        for (uint32_t n = 0; n < num; n++)
            rawp_use(&ring, &peer, rawp_id(ring.desc, peer.used.slot), n % 65, RAW_WRITE, 1);
        for (uint32_t n = 0; n < num; n++)
            if (virtq_driver_take(&driver, &done) != 1 || done.cookie != &cookies[n])
                cr_assert_fail("buffer %u lost", n);
        cr_assert_eq(virtq_driver_take(&driver, &done), 0);
        cr_assert_not(virtq_driver_irq_on(&driver));
        cr_assert(rawp_event_is(ring.driver, place(20000, true)));
    }
}

/* ---------------------------------------------------------------------------
 * Driver side: a device that breaks the rules
 * --------------------------------------------------------------------------- */
static void expect_driver_broken(int cause)
{
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(virtq_driver_error(&driver), cause);
        cr_assert_eq(virtq_driver_take(&driver, &done), VIRTQ_ERR_BROKEN);
        cr_assert_eq(virtq_driver_take_batch(&driver, &done, 1), VIRTQ_ERR_BROKEN);
        cr_assert_eq(add_writable(64, 0), VIRTQ_ERR_BROKEN);
        cr_assert_eq(virtq_driver_add_readable(&driver, segs[0], NULL), VIRTQ_ERR_BROKEN);
        cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), VIRTQ_ERR_BROKEN);
        cr_assert_eq(add(1, 1, 0), VIRTQ_ERR_BROKEN);
        cr_assert_eq(add_indirect(1, 1, 64, 0), VIRTQ_ERR_BROKEN);
        cr_assert_not(virtq_driver_irq_on(&driver), "a drain loop must end");
        cr_assert_not(virtq_driver_irq_on_after(&driver), "a drain loop must end");
    }
}

static unsigned detach_all(unsigned *seen, unsigned count)
{
    uint16_t at = 0;
    void *cookie = NULL;
    unsigned total = 0;

    memset(seen, 0, count * sizeof(*seen));
    while (virtq_driver_detach(&driver, &at, &cookie)) {
        cr_assert_geq((char *)cookie, cookies);
        cr_assert_lt((char *)cookie, cookies + count);
        seen[(char *)cookie - cookies]++;
        total++;
    }
    cr_assert_not(virtq_driver_detach(&driver, &at, &cookie));
    return total;
}

/* Three buffers, cookies 0 to 2, of 1, 3 and 2 slots and 64, 50 and 17 writable bytes. */
static struct rawp_list hostile_list[3];

static void open_hostile(struct rawp_pos at)
{
    open_driver(9, TABLES);
    start_driver_at(at);
    cr_assert_eq(add_writable(64, 0), 0);
    cr_assert_eq(add(0, 3, 1), 0);
    cr_assert_eq(add(1, 1, 2), 0);
    virtq_driver_publish(&driver);
    for (unsigned i = 0; i < 3; i++)
        cr_assert(rawp_fetch(&ring, &peer, &hostile_list[i]));
}

/* The next take must find `err`; then each of the cookies `left` (a bit each) comes back once. */
static void expect_violation(int err, unsigned left)
{
    struct virtq_done untouched = {&untouched, 77};
    uint64_t before = ring_hash();
    unsigned seen[3];

    cr_assert_eq(virtq_driver_take(&driver, &untouched), err);
    cr_assert_eq(untouched.cookie, &untouched);
    cr_assert_eq(untouched.written, 77);
    cr_assert_eq(ring_hash(), before);
    expect_driver_broken(err);
    detach_all(seen, 3);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(seen[i], left >> i & 1, "cookie %u", i);
    expect_driver_broken(VIRTQ_ERR_BROKEN);
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
    rawp_start(&peer, 0, true);
    cr_assert_eq(virtq_driver_error(&driver), 0);
    cycle_driver(3);
}

static void violate_id(uint32_t id)
{
    for (uint32_t n = 0; n < 18; n += 5) {
        open_hostile(nth(9, n));
        rawp_use(&ring, &peer, id, 0, 0, 1);
        expect_violation(VIRTQ_ERR_USED_ID, 7);
    }
}

Test(packed_driver, used_id_outside_the_queue)
{
    /* D-PACK-13: id in range */
    violate_id(9);
    violate_id(10);
    violate_id(0x7fff);
    violate_id(0x8000);
    violate_id(0xffff);
}

Test(packed_driver, used_id_that_is_not_outstanding)
{
    /* D-PACK-13 */
    bool busy[9] = {false};

    open_hostile(place(0, true));
    for (unsigned i = 0; i < 3; i++)
        busy[hostile_list[i].id] = true;
    for (uint32_t id = 0; id < 9; id++)
        if (!busy[id])
            violate_id(id);
}

Test(packed_driver, used_id_twice)
{
    /* D-PACK-13: no cookie is handed out twice */
    for (unsigned i = 0; i < 3; i++) {
        open_hostile(place(7, true));
        rawp_use(&ring, &peer, hostile_list[i].id, 0, 0, hostile_list[i].count);
        rawp_use(&ring, &peer, hostile_list[i].id, 0, 0, 1);
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        cr_assert_eq(done.cookie, &cookies[i]);
        expect_violation(VIRTQ_ERR_USED_ID, 7u & ~(1u << i));
    }
}

/* The device names a buffer of `count` slots that was added behind `published` single ones. */
static void violate_unpublished(uint32_t published, uint32_t count)
{
    open_driver(9, TABLES);
    for (uint32_t i = 0; i < published; i++)
        cr_assert_eq(add_writable(64, i), 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(add(0, count, published), 0);
    rawp_use(&ring, &peer, rawp_id(ring.desc, published + count - 1), 0, 0, 1);
    expect_violation(VIRTQ_ERR_USED_ID, published == 1 ? 3 : 7);
}

Test(packed_driver, used_id_of_a_list_longer_than_what_is_published)
{
    /* D-PACK-13: the used position never passes what the device was given */
    violate_unpublished(1, 2);
    violate_unpublished(1, 8);
    violate_unpublished(2, 3);
}

/* One buffer is published, one added; the device names the added one, and again once it is published. */
Test(packed_driver, buffer_completed_before_it_is_published_comes_back_once)
{
    /* D-PACK-13: what the device can do with a buffer that is not its own yet is no more than it can
     * do with any: complete it without having done anything, once */
    unsigned id;

    open_driver(9, PACKED);
    cr_assert_eq(add_writable(64, 0), 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(add_writable(64, 1), 0);
    id = rawp_id(ring.desc, 1);
    rawp_use(&ring, &peer, id, 0, 0, 1);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[1]);
    cr_assert_eq(done.written, 0);
    virtq_driver_publish(&driver);
    rawp_use(&ring, &peer, id, 0, 0, 1);
    expect_violation(VIRTQ_ERR_USED_ID, 1);
}

Test(packed_driver, broken_queue_publishes_nothing_and_takes_nothing)
{
    /* D-PACK-13: what was added and not published stays with the driver */
    open_driver(4, PACKED);
    cr_assert_eq(add_writable(8, 0), 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(add_writable(8, 1), 0);
    rawp_use(&ring, &peer, 99, 0, 0, 1);
    cr_assert_eq(virtq_driver_take(&driver, &done), VIRTQ_ERR_USED_ID);
    virtq_driver_publish(&driver);
    cr_assert_not(rawp_is_avail(&ring, place(1, true)));
    for (unsigned id = 0; id < 4; id++) {
        rawp_use(&ring, &peer, id, 0, 0, 1);
        cr_assert_eq(virtq_driver_take(&driver, &done), VIRTQ_ERR_BROKEN);
    }
    cr_assert_eq(virtq_driver_error(&driver), VIRTQ_ERR_USED_ID);
}

Test(packed_driver, used_len_beyond_the_writable_bytes)
{
    /* D-PACK-13: len <= writable bytes where WRITE is set; readable ones do not count */
    static const uint32_t most[] = {64, 16 + 17 + 18, 17};

    for (unsigned i = 0; i < 3; i++) {
        open_hostile(place(8, false));
        rawp_use(&ring, &peer, hostile_list[i].id, most[i], RAW_WRITE, 1);
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        cr_assert_eq(done.written, most[i]);
        open_hostile(place(8, false));
        rawp_use(&ring, &peer, hostile_list[i].id, most[i] + 1, RAW_WRITE, 1);
        expect_violation(VIRTQ_ERR_USED_LEN, 7);
        open_hostile(place(8, false));
        rawp_use(&ring, &peer, hostile_list[i].id, 0xffffffff, RAW_WRITE, 1);
        expect_violation(VIRTQ_ERR_USED_LEN, 7);
    }
}

Test(packed_driver, used_len_of_a_readable_or_indirect_buffer)
{
    /* D-PACK-13 */
    open_driver(9, TABLES);
    cr_assert_eq(virtq_driver_add_readable(&driver, seg_of(0, 9), &cookies[0]), 0);
    virtq_driver_publish(&driver);
    rawp_use(&ring, &peer, rawp_id(ring.desc, 0), 1, RAW_WRITE, 1);
    expect_violation(VIRTQ_ERR_USED_LEN, 1);
    open_driver(9, TABLES);
    cr_assert_eq(add_indirect(1, 1, 8, 0), 0);
    virtq_driver_publish(&driver);
    rawp_use(&ring, &peer, rawp_id(ring.desc, 0), 18, RAW_WRITE, 1);
    expect_violation(VIRTQ_ERR_USED_LEN, 1);
}

Test(packed_driver, batch_ends_at_a_violation)
{
    /* D-PACK-13: what was good before it is handed out, the rest is the next call's answer */
    struct virtq_done batch[4];

    open_hostile(place(0, true));
    rawp_use(&ring, &peer, hostile_list[0].id, 5, RAW_WRITE, 1);
    rawp_use(&ring, &peer, hostile_list[0].id, 5, RAW_WRITE, 1);
    cr_assert_eq(virtq_driver_take_batch(&driver, batch, 4), 1);
    cr_assert_eq(batch[0].cookie, &cookies[0]);
    cr_assert_eq(virtq_driver_error(&driver), VIRTQ_ERR_USED_ID);
    cr_assert_eq(virtq_driver_take_batch(&driver, batch, 4), VIRTQ_ERR_BROKEN);
}

/* ---------------------------------------------------------------------------
 * Driver side: interrupts
 * --------------------------------------------------------------------------- */
Test(packed_driver, irq_by_mode)
{
    /* L-PEVT-01, L-PACK-02: the driver area, modes 0 and 1; D-PEVT-01: never 2 without EVENT_IDX,
     * reserved bits 0; T-73 */
    open_driver(5, PACKED);
    rawp_set_event(ring.device, place(0x1234, true), 0xabcd);
    memset(ring.driver, 0xff, RAWP_EVENT_BYTES);
    virtq_driver_irq_off(&driver);
    cr_assert_eq(rawp_event_flags(ring.driver), RAWP_DISABLE);
    cr_assert_not(virtq_driver_irq_on(&driver));
    cr_assert_eq(rawp_event_flags(ring.driver), RAWP_ENABLE);
    virtq_driver_irq_off(&driver);
    cr_assert_not(virtq_driver_irq_on_after(&driver));
    cr_assert_eq(rawp_event_flags(ring.driver), RAWP_ENABLE);
    cr_assert(rawp_event_is(ring.device, place(0x1234, true)));
    cr_assert_eq(rawp_event_flags(ring.device), 0xabcd);
}

Test(packed_driver, irq_by_event)
{
    /* L-PACK-02, T-74: offset in bits 14:0 and wrap in bit 15 of a le16, then le16 flags;
     * D-PEVT-01: mode 2, reserved bits 0 */
    open_driver(3, EVENTS);
    for (uint32_t n = 0; n < 12; n++) {
        memset(ring.driver, 0xff, RAWP_EVENT_BYTES);
        cr_assert_not(virtq_driver_irq_on(&driver));
        cr_assert(rawp_event_is(ring.driver, nth(3, n)), "the next slot to be used");
        cr_assert_eq(rawp_event_flags(ring.driver), RAWP_DESC);
        cr_assert_eq(ring.driver[0], n % 3);
        cr_assert_eq(ring.driver[1], n / 3 % 2 == 0 ? 0x80 : 0);
        cr_assert_eq(ring.driver[2], 2);
        cr_assert_eq(ring.driver[3], 0);
        cycle_driver(1);
        virtq_driver_irq_off(&driver);
        cr_assert_eq(rawp_event_flags(ring.driver), RAWP_DISABLE);
        cr_assert_eq(rawp_event_flags(ring.device), 0, "T-73");
    }
}

static void recheck_irq_on(uint16_t flags, uint32_t n)
{
    struct rawp_list lists[2];

    open_driver(5, flags);
    start_driver_at(nth(5, n));
    cr_assert_eq(add(1, 2, 0), 0);
    cr_assert_eq(add(1, 0, 1), 0);
    virtq_driver_publish(&driver);
    cr_assert(rawp_fetch(&ring, &peer, &lists[0]));
    cr_assert(rawp_fetch(&ring, &peer, &lists[1]));
    cr_assert_not(virtq_driver_irq_on(&driver));
    rawp_use(&ring, &peer, lists[0].id, 0, 0, lists[0].count);
    cr_assert(virtq_driver_irq_on(&driver));
    cr_assert(virtq_driver_irq_on_after(&driver));
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_not(virtq_driver_irq_on(&driver));
    rawp_use(&ring, &peer, lists[1].id, 0, 0, lists[1].count);
    cr_assert(virtq_driver_irq_on(&driver));
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_not(virtq_driver_irq_on(&driver));
}

Test(packed_driver, irq_on_sees_what_came_before_it)
{
    /* D-PEVT-02: re-check after enabling */
    for (uint32_t n = 0; n < 10; n++) {
        recheck_irq_on(PACKED, n);
        recheck_irq_on(EVENTS, n);
    }
}

Test(packed_driver, irq_on_after_asks_for_a_slot_that_will_be_used)
{
    /* L-PEVT-02: the event names a slot of what is outstanding, three quarters on */
    for (uint32_t n = 0; n < 18; n++)
        for (uint32_t count = 0; count <= 9; count++) {
            uint32_t ahead = count == 0 ? 0 : count - count / 4 - 1;

            open_driver(9, EVENTS);
            start_driver_at(nth(9, n));
            for (uint32_t i = 0; i < count; i++)
                cr_assert_eq(add_writable(64, i), 0);
            virtq_driver_publish(&driver);
            cr_assert_not(virtq_driver_irq_on_after(&driver));
            cr_assert(rawp_event_is(ring.driver, nth(9, n + ahead)));
            cr_assert_eq(rawp_event_flags(ring.driver), RAWP_DESC);
        }
}

/* ---------------------------------------------------------------------------
 * Driver side: giving up and going on
 * --------------------------------------------------------------------------- */
static void add_four_shapes(void)
{
    cr_assert_eq(add_writable(64, 0), 0);
    cr_assert_eq(virtq_driver_add_pair(&driver, nth_seg(0), nth_seg(1), &cookies[1]), 0);
    cr_assert_eq(add(1, 2, 2), 0);
    cr_assert_eq(add_indirect(1, 2, 64, 3), 0);
}

Test(packed_driver, detach_returns_each_cookie_once)
{
    /* D-CLEAN-02: buffers come back after a reset, also those never published */
    unsigned seen[4];

    for (unsigned published = 0; published < 2; published++) {
        open_driver(7, TABLES);
        add_four_shapes();
        if (published != 0)
            virtq_driver_publish(&driver);
        cr_assert_eq(detach_all(seen, 4), 4);
        cr_assert(seen[0] == 1 && seen[1] == 1 && seen[2] == 1 && seen[3] == 1);
        expect_driver_broken(VIRTQ_ERR_BROKEN);
    }
}

Test(packed_driver, detach_leaves_out_what_was_taken)
{
    /* D-CLEAN-02 */
    unsigned seen[4];

    open_driver(7, TABLES);
    add_four_shapes();
    virtq_driver_publish(&driver);
    rawp_use(&ring, &peer, rawp_id(ring.desc, 2), 0, 0, 2);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[1]);
    cr_assert_eq(detach_all(seen, 4), 3);
    cr_assert(seen[0] == 1 && seen[1] == 0 && seen[2] == 1 && seen[3] == 1);
}

Test(packed_driver, goes_on_with_another_size_after_detach)
{
    /* L-PACK-04: both wrap counters start at 1 again, and nothing is left of the other life */
    static const uint32_t lives[] = {5, 3, 9, 1, 257, 4, 4};
    unsigned seen[4];

    open_driver(7, EVENTS);
    for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
        cycle_driver(2 * ring.num / 3 + 1);
        if (virtq_driver_free_count(&driver) > 1)
            cr_assert_eq(add_writable(64, 2), 0);
        virtq_driver_publish(&driver);
        cr_assert_eq(add_writable(64, 3), 0, "and never published");
        cr_assert_eq(detach_all(seen, 4), ring.num == 1 ? 1 : 2);
        cr_assert_eq(seen[3], 1);
        open_ring(lives[i], EVENTS, 0x5a);
        cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
        cr_assert_eq(virtq_driver_free_count(&driver), lives[i]);
        cr_assert_not(virtq_driver_kick_due(&driver), "nothing published in this life");
        list_from(place(0, true), lives[i], 0);
        cycle_driver(2 * lives[i] + 1);
    }
}

/* The device finds each slot as the laps before left it: used, not merely unavailable. */
static void expect_left_used(struct rawp_pos at)
{
    for (uint32_t i = 0; i < ring.num; i++, at = rawp_after(&ring, at, 1)) {
        cr_assert_eq(rawp_flags(ring.desc, at.slot), rawp_used_bits(place(0, !at.wrap)));
        cr_assert_not(rawp_is_avail(&ring, at));
    }
}

Test(packed_driver, restored_at_every_position)
{
    /* L-PACK-04, L-PACK-05: goes on where another driver stopped, without a false completion */
    for (uint32_t num = 1; num <= 5; num++)
        for (uint32_t n = 0; n < 2 * num; n++) {
            struct rawp_pos at = nth(num, n);
            struct virtq_position saved;

            open_driver(num, EVENTS);
            start_driver_at(at);
            saved = virtq_driver_save(&driver);
            cr_assert_eq(saved.avail_idx, word(at));
            cr_assert_eq(saved.used_idx, word(at));
            cr_assert_eq(virtq_driver_take(&driver, &done), 0);
            expect_left_used(at);
            for (uint32_t i = 0; i < num; i++)
                cr_assert_eq(add_writable(64, i), 0);
            virtq_driver_publish(&driver);
            cr_assert_eq(virtq_driver_take(&driver, &done), 0);
            for (uint32_t i = 0; i < num; i++) {
                uint16_t id = rawp_id(ring.desc, peer.used.slot);

                cr_assert(rawp_is_avail(&ring, peer.used));
                rawp_use(&ring, &peer, id, i, RAW_WRITE, 1);
                cr_assert_eq(virtq_driver_take(&driver, &done), 1);
                cr_assert_eq(done.cookie, &cookies[i]);
            }
            cr_assert_eq(virtq_driver_take(&driver, &done), 0);
            peer.avail = peer.used;
            cycle_driver(2 * num + 1);
        }
}

Test(packed_driver, restored_as_the_one_before_left_off)
{
    /* L-PACK-04: save and restore agree with a life of traffic */
    for (uint32_t n = 0; n < 20; n++) {
        struct virtq_position saved;

        open_driver(5, EVENTS);
        cycle_driver(n);
        saved = virtq_driver_save(&driver);
        cr_assert_eq(saved.avail_idx, word(nth(5, n)));
        cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
        cr_assert_eq(virtq_driver_restore(&driver, saved), 0);
        cycle_driver(11);
    }
}

Test(packed_driver, impossible_positions_are_refused)
{
    /* L-PACK-04: a slot of the ring, and nothing outstanding */
    static const struct virtq_position bad[] = {
        {5, 5},           {0x8005, 0x8005}, {0x7fff, 0x7fff}, {0xffff, 0xffff},
        {0x8000, 0x8001}, {0x8001, 0x8000}, {0x8000, 0},      {4, 0x8004},
    };

    open_driver(5, PACKED);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t before = driver_hash();

        cr_assert_eq(virtq_driver_restore(&driver, bad[i]), VIRTQ_ERR_POSITION, "%zu", i);
        cr_assert_eq(driver_hash(), before);
    }
    cycle_driver(6);
}

/* ---------------------------------------------------------------------------
 * Device side: start
 * --------------------------------------------------------------------------- */
Test(packed_device, init_writes_nothing)
{
    /* V-PACK-02: no slot is touched before it was seen to become available */
    uint64_t before;

    open_ring(5, EVENTS, 0x5a);
    before = ring_hash();
    cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), 0);
    cr_assert_eq(ring_hash(), before);
    cr_assert_eq(virtq_device_error(&device), 0);
}

/* ---------------------------------------------------------------------------
 * Device side: lists
 * --------------------------------------------------------------------------- */
static void offer(uint64_t addr, uint32_t len, unsigned flags, unsigned id)
{
    rawp_offer(&ring, &peer, addr, len, flags, id);
}

/* A list of the segments of buffer_of(). The id stands in the last descriptor only. */
static void offer_list(uint32_t readable, uint32_t writable, unsigned id)
{
    uint32_t count = readable + writable;

    for (uint32_t i = 0; i < count; i++) {
        struct virtq_seg seg = nth_seg(i);
        bool last = i + 1 == count;

        offer(seg.addr, seg.len, (i >= readable ? RAW_WRITE : 0u) | (last ? 0u : RAW_NEXT),
              last ? id : 0xdeadu);
    }
}

static void expect_pop(uint32_t readable, uint32_t writable)
{
    cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    cr_assert_eq(chain.readable, readable);
    cr_assert_eq(chain.writable, writable);
}

static void expect_segs(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (segs[i].addr != nth_seg(i).addr || segs[i].len != nth_seg(i).len)
            cr_assert_fail("segment %u", i);
}

/* Completes what was just popped, which the mock driver must find as `id` over `count` slots. */
static void expect_push(uint32_t written, uint16_t id, uint32_t count)
{
    virtq_device_push(&device, chain.token, written);
    virtq_device_flush(&device);
    cr_assert(rawp_collect(&ring, &peer, id, written, written != 0, count));
}

Test(packed_device, pops_single_segments)
{
    /* L-PACK-01: by the bytes a driver writes; L-PACK-04: wrap 1 first */
    static const uint8_t first[16] = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
                                      0xcc, 0xbb, 0xaa, 0x99, 0x34, 0x12, 0x80, 0x00};

    open_device(3, PACKED);
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
    memcpy(ring.desc, first, 16);
    peer.avail = rawp_after(&ring, peer.avail, 1);
    expect_pop(1, 0);
    cr_assert_eq(segs[0].addr, UINT64_C(0x1122334455667788));
    cr_assert_eq(segs[0].len, 0x99aabbcc);
    expect_push(0, 0x1234, 1);
    offer(0x2000, 16, RAW_WRITE | 0x7f78, 0xffff);
    expect_pop(0, 1);
    cr_assert_eq(segs[0].addr, 0x2000);
    expect_push(16, 0xffff, 1);
    offer(0x3000, 0, 0, 0);
    expect_pop(1, 0);
    cr_assert_eq(segs[0].len, 0);
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
}

/* All slots used, as the laps before `at` left them. */
static void leave_used(struct rawp_pos at)
{
    for (uint32_t i = 0; i < ring.num; i++, at = rawp_after(&ring, at, 1))
        rawp_desc(ring.desc, at.slot, 0, 0, 0, rawp_used_bits(place(0, !at.wrap)));
}

/* One list of this shape from `at` on, through a round trip. */
static void pop_from(struct rawp_pos at, uint32_t readable, uint32_t writable, unsigned id)
{
    uint32_t count = readable + writable;

    start_device_at(at);
    memset(segs, 0, count * sizeof(segs[0]));
    offer_list(readable, writable, id);
    expect_pop(readable, writable);
    expect_segs(count);
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
    expect_push(writable != 0 ? 5 : 0, (uint16_t)id, count);
    cycle_device(1);
}

Test(packed_device, lists_of_every_shape_from_every_slot)
{
    /* V-PACK-04, V-VQ-01: in list order, however it is split; T-66, V-PACK-06: id of the last
     * descriptor; T-61, V-PACK-05: wrap flips when a list reaches or passes the end */
    for (unsigned i = 0; i < SMALL; i++)
        for (uint32_t n = 0; n < 2u * sizes[i]; n++) {
            open_device(sizes[i], PACKED);
            for (uint32_t count = 1; count <= sizes[i]; count++)
                for (uint32_t readable = 0; readable <= count; readable++) {
                    leave_used(nth(sizes[i], n));
                    pop_from(nth(sizes[i], n), readable, count - readable, 0xfff0 + count);
                }
        }
}

Test(packed_device, lists_in_large_rings)
{
    /* T-71, D-PACK-07: no mask, and a list of exactly the queue size, at any size */
    for (unsigned i = SMALL; i < SIZES; i++) {
        uint32_t num = sizes[i];

        for (unsigned wrap = 0; wrap < 2; wrap++)
            for (uint32_t back = 1; back <= 3; back++) {
                open_device(num, PACKED);
                memset(ring.desc, wrap != 0 ? 0 : 0xff, rawp_desc_bytes(num));
                pop_from(place(num - back, wrap != 0), 1, 1, 7);
                pop_from(place(num - back, wrap != 0), 3, 2, 8);
                pop_from(place(num - back, wrap != 0), num, 0, 9);
            }
    }
}

Test(packed_device, pops_in_ring_order)
{
    /* V-PACK-01: processing starts in ring order */
    open_device(9, PACKED);
    offer_list(2, 1, 5);
    offer_list(0, 1, 3);
    offer_list(1, 1, 8);
    expect_pop(2, 1);
    expect_pop(0, 1);
    expect_pop(1, 1);
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
}

Test(packed_device, flags_of_another_lap_are_not_available)
{
    /* T-64, L-PACK-05, V-PACK-02: AVAIL != USED is not enough, AVAIL is the wrap value */
    static const unsigned laps[] = {0, RAWP_AVAIL, RAWP_USED, RAWP_LAP};

    for (uint32_t n = 0; n < 6; n++) {
        struct rawp_pos at = nth(3, n);

        open_device(3, PACKED);
        start_device_at(at);
        for (unsigned i = 0; i < 4; i++)
            for (unsigned low = 0; low < 8; low++) {
                rawp_set_flags(ring.desc, at.slot, laps[i] | low);
                if (laps[i] == rawp_avail_bits(at))
                    continue;
                cr_assert_eq(virtq_device_pop(&device, &chain), 0);
                cr_assert_not(virtq_device_kick_on(&device));
            }
        offer(0x1000, 1, 0, 0);
        cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    }
}

Test(packed_device, the_middle_of_a_used_list_is_not_available)
{
    /* T-64: those slots keep AVAIL != USED of the lap before */
    open_device(5, PACKED);
    for (unsigned lap = 0; lap < 6; lap++) {
        offer_list(2, 3, lap);
        expect_pop(2, 3);
        expect_push(1, (uint16_t)lap, 5);
        for (unsigned i = 0; i < 3; i++)
            cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        offer_list(1, 1, lap);
        expect_pop(1, 1);
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        expect_push(1, (uint16_t)lap, 2);
    }
}

Test(packed_device, spurious_kicks_find_nothing)
{
    /* D-PACK-15, V-VQ-03: a kick without a new descriptor is legal */
    uint64_t before;

    open_device(5, PACKED);
    cycle_device(7);
    before = ring_hash();
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
    virtq_device_flush(&device);
    cr_assert_eq(ring_hash(), before);
    cr_assert_eq(virtq_device_error(&device), 0);
}

/* Pops a list that must be refused alone, `count` slots long and named `id`, and completes it
 * empty: the next list is found behind it. */
static void expect_bad_list(int err, unsigned id, uint32_t count)
{
    offer_list(0, 1, 0x77);
    cr_assert_eq(virtq_device_pop(&device, &chain), err);
    cr_assert(virtq_err_names_chain(err));
    cr_assert_eq(virtq_device_error(&device), 0);
    expect_push(0, (uint16_t)id, count);
    expect_pop(0, 1);
    expect_segs(1);
    expect_push(3, 0x77, 1);
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
}

Test(packed_device, readable_after_writable)
{
    /* D-VQ-01: the whole list is consumed, wherever in it the fault is */
    for (uint32_t n = 0; n < 18; n++)
        for (uint32_t count = 2; count <= 8; count++) {
            open_device(9, PACKED);
            start_device_at(nth(9, n));
            for (uint32_t i = 0; i < count; i++)
                offer(0x1000, 1,
                      (i == n % (count - 1) ? RAW_WRITE : 0u) | (i + 1 != count ? RAW_NEXT : 0u),
                      i + 1 == count ? 6 : 99);
            expect_bad_list(VIRTQ_ERR_CHAIN_ORDER, 6, count);
        }
}

Test(packed_device, address_past_the_end)
{
    /* V-PACK-09: addr + len does not wrap, in single, listed and table segments */
    open_device(5, TABLES);
    offer(UINT64_MAX - 15, 17, 0, 1);
    expect_bad_list(VIRTQ_ERR_CHAIN_LENGTH, 1, 1);
    offer(UINT64_MAX, UINT32_MAX, RAW_WRITE, 2);
    expect_bad_list(VIRTQ_ERR_CHAIN_LENGTH, 2, 1);
    offer(UINT64_MAX - 15, 17, RAW_NEXT, 0);
    offer(0x1000, 1, RAW_NEXT, 0);
    offer(0x1000, 1, 0, 3);
    expect_bad_list(VIRTQ_ERR_CHAIN_LENGTH, 3, 3);
    rawp_desc(guest.mem, 0, UINT64_MAX - 15, 17, 0, 0);
    offer(guest.addr, 16, RAW_INDIRECT, 4);
    expect_bad_list(VIRTQ_ERR_CHAIN_LENGTH, 4, 1);
    offer(UINT64_MAX - 15, 15, 0, 5);
    expect_pop(1, 0);
}

Test(packed_device, list_of_more_than_4_gib)
{
    /* V-PACK-09 */
    open_device(5, PACKED);
    offer(0x1000, 0xffffffff, RAW_NEXT, 0);
    offer(0x1000, 2, RAW_NEXT | RAW_WRITE, 0);
    offer(0x1000, 1, RAW_WRITE, 1);
    expect_bad_list(VIRTQ_ERR_CHAIN_LENGTH, 1, 3);
    offer(0x1000, 0xffffffff, RAW_NEXT, 0);
    offer(0x1000, 1, RAW_WRITE, 2);
    expect_pop(1, 1);
}

Test(packed_device, list_longer_than_the_segment_array)
{
    /* V-PACK-04: a device may cap the list length; the buffer goes back empty, the queue goes on */
    open_device(9, TABLES);
    chain.capacity = 2;
    segs[2] = seg_of(0xdead, 0xbeef);
    offer_list(1, 2, 1);
    expect_bad_list(VIRTQ_ERR_CHAIN_CAPACITY, 1, 3);
    offer_list(8, 0, 2);
    expect_bad_list(VIRTQ_ERR_CHAIN_CAPACITY, 2, 8);
    offer(guest.addr, 48, RAW_INDIRECT, 3);
    expect_bad_list(VIRTQ_ERR_CHAIN_CAPACITY, 3, 1);
    cr_assert_eq(segs[2].addr, 0xdead);
    offer_list(1, 1, 4);
    expect_pop(1, 1);
}

/* ---------------------------------------------------------------------------
 * Device side: indirect tables
 * --------------------------------------------------------------------------- */
/* `count` entries, the last one writable; `noise` in what is reserved there. */
static void fill_table(uint8_t *mem, uint32_t count, unsigned noise)
{
    for (uint32_t i = 0; i < count; i++) {
        struct virtq_seg seg = nth_seg(i);

        rawp_desc(mem, i, seg.addr, seg.len, noise,
                  (noise & ~(unsigned)RAW_WRITE) | (i + 1 == count ? RAW_WRITE : 0u));
    }
}

Test(packed_device, table_is_read_from_end_to_end)
{
    /* D-IND-08: count = len / 16, entries consecutive; V-IND-04: id and flags other than WRITE in
     * the entries ignored, as is WRITE on the table's descriptor */
    static const unsigned noise[] = {0, RAW_NEXT, RAW_INDIRECT, 0xffff};

    open_device(5, TABLES);
    for (unsigned i = 0; i < 8; i++) {
        unsigned count = 1 + i % 5;

        fill_table(guest.mem, count, noise[i % 4]);
        offer(guest.addr, 16 * count, RAW_INDIRECT | (i >= 4 ? RAW_WRITE : 0u), 100 + i);
        expect_pop(count - 1, 1);
        expect_segs(count);
        cr_assert_eq(guest.maps, i + 1);
        expect_push(9, (uint16_t)(100 + i), 1);
    }
}

Test(packed_device, table_longer_than_the_queue)
{
    /* D-IND-09: the limit is the driver's to keep; a device takes what its array holds */
    open_device(2, TABLES);
    fill_table(guest.mem, 64, 0);
    offer(guest.addr, TABLE_BYTES, RAW_INDIRECT, 3);
    expect_pop(63, 1);
    expect_segs(64);
    expect_push(1, 3, 1);
}

Test(packed_device, table_at_any_address)
{
    /* V-IND-03, T-56: no alignment rule for tables */
    open_device(3, TABLES);
    for (unsigned off = 0; off < 16; off++) {
        fill_table(guest.mem + off, 4, 0);
        offer(guest.addr + off, 64, RAW_INDIRECT, off);
        expect_pop(3, 1);
        expect_segs(4);
        expect_push(1, (uint16_t)off, 1);
    }
}

Test(packed_device, table_without_the_feature)
{
    /* D-IND-06 */
    open_device(3, PACKED);
    fill_table(guest.mem, 1, 0);
    offer(guest.addr, 16, RAW_INDIRECT, 1);
    expect_bad_list(VIRTQ_ERR_INDIRECT_OFF, 1, 1);
    cr_assert_eq(guest.maps, 0);
}

Test(packed_device, table_inside_a_list)
{
    /* D-IND-07, T-72: a list is all direct or a single table; it is consumed to its end */
    for (uint32_t count = 2; count <= 7; count++)
        for (uint32_t table = 0; table < count; table++) {
            open_device(9, TABLES);
            start_device_at(nth(9, table + 3 + count % 2 * 9));
            fill_table(guest.mem, 1, 0);
            for (uint32_t i = 0; i < count; i++)
                offer(i == table ? guest.addr : 0x1000, 16,
                      (i == table ? RAW_INDIRECT : 0u) | (i + 1 != count ? RAW_NEXT : 0u), 40 + i);
            expect_bad_list(VIRTQ_ERR_INDIRECT_NEXT, 40 + count - 1, count);
        }
    cr_assert_eq(guest.maps, 0);
}

Test(packed_device, table_of_odd_length)
{
    /* D-IND-08, L-VQ-04: length 0 and no multiple of 16 */
    static const uint32_t bad[] = {0, 1, 8, 15, 17, 24, 0xffffffff};

    open_device(3, TABLES);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        offer(guest.addr, bad[i], RAW_INDIRECT, i);
        expect_bad_list(VIRTQ_ERR_INDIRECT_LEN, i, 1);
    }
    cr_assert_eq(guest.maps, 0);
}

Test(packed_device, table_outside_memory)
{
    /* V-PACK-09 */
    open_device(3, TABLES);
    offer(guest.addr - 16, 16, RAW_INDIRECT, 1);
    expect_bad_list(VIRTQ_ERR_INDIRECT_MAP, 1, 1);
    offer(guest.addr, 0xfffffff0, RAW_INDIRECT, 2);
    expect_bad_list(VIRTQ_ERR_INDIRECT_MAP, 2, 1);
}

Test(packed_device, order_inside_a_table)
{
    /* D-VQ-01 */
    open_device(3, TABLES);
    rawp_desc(guest.mem, 0, 0x1000, 1, 0, RAW_WRITE);
    rawp_desc(guest.mem, 1, 0x1000, 1, 0, 0);
    offer(guest.addr, 32, RAW_INDIRECT, 1);
    expect_bad_list(VIRTQ_ERR_CHAIN_ORDER, 1, 1);
}

/* ---------------------------------------------------------------------------
 * Device side: a driver that breaks the rules
 * --------------------------------------------------------------------------- */
static void expect_device_breaks(int err)
{
    uint64_t before = hash(1, ring.desc, rawp_desc_bytes(ring.num));

    cr_assert_eq(virtq_device_pop(&device, &chain), err);
    cr_assert_not(virtq_err_names_chain(err));
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(virtq_device_error(&device), err);
        cr_assert_eq(virtq_device_pop(&device, &chain), VIRTQ_ERR_BROKEN);
        cr_assert_not(virtq_device_kick_on(&device), "a drain loop must end");
    }
    cr_assert_eq(hash(1, ring.desc, rawp_desc_bytes(ring.num)), before);
}

static void expect_device_restart(void)
{
    memset(ring.desc, 0, rawp_desc_bytes(ring.num));
    rawp_start(&peer, 0, true);
    cr_assert_eq(virtq_device_init(&device, &areas, map_guest, &guest), 0);
    cr_assert_eq(virtq_device_error(&device), 0);
    cycle_device(2 * ring.num + 1);
}

Test(packed_device, list_without_an_end)
{
    /* V-PACK-09: the walk is bounded by the slots that are not in flight */
    for (unsigned i = 0; i < SIZES; i++)
        for (uint32_t n = 0; n < 2u * sizes[i]; n += sizes[i] / 4 + 1) {
            open_device(sizes[i], TABLES);
            start_device_at(nth(sizes[i], n));
            for (uint32_t slot = 0; slot < sizes[i]; slot++)
                offer(0x1000, 1, RAW_NEXT, slot);
            expect_device_breaks(VIRTQ_ERR_AVAIL_LIST);
            expect_device_restart();
        }
}

Test(packed_device, list_into_slots_in_flight)
{
    /* V-PACK-09, D-PACK-03: the driver cannot own those slots, whatever they look like */
    for (uint32_t flying = 1; flying < 5; flying++) {
        open_device(5, PACKED);
        for (uint32_t i = 0; i < flying; i++)
            offer(0x1000, 1, 0, i);
        for (uint32_t i = 0; i < flying; i++)
            expect_pop(1, 0);
        for (uint32_t i = flying; i < 5; i++)
            offer(0x1000, 1, RAW_NEXT, i);
        offer(0x1000, 1, 0, 9);
        expect_device_breaks(VIRTQ_ERR_AVAIL_LIST);
        expect_device_restart();
    }
}

Test(packed_device, list_as_long_as_the_free_slots)
{
    /* V-PACK-09: legal, with others in flight */
    for (uint32_t flying = 1; flying < 5; flying++) {
        open_device(5, PACKED);
        offer_list(flying, 0, 1);
        expect_pop(flying, 0);
        offer_list(5 - flying, 0, 2);
        expect_pop(5 - flying, 0);
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
    }
}

Test(packed_device, more_than_the_ring_holds)
{
    /* V-PACK-09, V-PACK-02: all slots in flight, and yet one more is available */
    for (unsigned i = 0; i < SIZES; i++) {
        open_device(sizes[i], PACKED);
        start_device_at(place(sizes[i] / 2, false));
        for (uint32_t slot = 0; slot < sizes[i]; slot++)
            offer(0x1000, 1, 0, slot);
        for (uint32_t slot = 0; slot < sizes[i]; slot++)
            if (virtq_device_pop(&device, &chain) != 1)
                cr_assert_fail("not popped");
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        offer(0x1000, 1, 0, 0);
        expect_device_breaks(VIRTQ_ERR_AVAIL_IDX);
        expect_device_restart();
    }
}

Test(packed_device, broken_queue_completes_nothing_by_itself)
{
    /* V-PACK-02: a flush after the break, as a drain loop makes it, shows no buffer as used that
     * was not pushed */
    uint64_t before;

    for (uint32_t n = 0; n < 6; n++) {
        open_device(3, PACKED);
        cycle_device(n);
        offer(0x1000, 1, RAW_WRITE, 0);
        expect_pop(0, 1);
        for (unsigned i = 0; i < 2; i++)
            offer(0x1000, 1, RAW_NEXT, 0);
        expect_device_breaks(VIRTQ_ERR_AVAIL_LIST);
        before = hash(1, ring.desc, rawp_desc_bytes(3));
        virtq_device_flush(&device);
        cr_assert_eq(hash(1, ring.desc, rawp_desc_bytes(3)), before, "after %u buffers", n);
        cr_assert_not(virtq_device_irq_due(&device), "nothing was completed");
    }
}

Test(packed_device, broken_queue_completes_what_was_pushed_before)
{
    /* V-PACK-05: pushed, then the break, then flush: the driver sees that buffer and no other */
    for (uint32_t n = 0; n < 6; n++) {
        open_device(3, PACKED);
        cycle_device(n);
        offer(0x1000, 8, RAW_WRITE, 4);
        expect_pop(0, 1);
        virtq_device_push(&device, chain.token, 5);
        for (unsigned i = 0; i < 2; i++)
            offer(0x1000, 1, RAW_NEXT, 0);
        offer(0x1000, 1, RAW_NEXT, 0);
        cr_assert_eq(virtq_device_pop(&device, &chain), VIRTQ_ERR_AVAIL_LIST);
        peer.avail = peer.used;
        offer(0x1000, 8, RAW_WRITE, 4);
        rawp_put(ring.desc + 16 * peer.used.slot + 8, 4, 5);
        virtq_device_flush(&device);
        cr_assert(rawp_collect(&ring, &peer, 4, 5, true, 1), "after %u buffers", n);
        cr_assert_not(rawp_is_used(&ring, peer.used));
    }
}

Test(packed_device, broken_queue_completes_what_is_in_flight_or_nothing)
{
    /* V-PACK-02, V-PACK-05: requests that end after the break are used in their slots, or not shown
     * at all; no other slot is touched */
    for (uint32_t n = 0; n < 10; n++) {
        uint32_t tokens[2];
        uint64_t before;

        open_device(5, PACKED);
        cycle_device(n);
        for (unsigned i = 0; i < 2; i++) {
            offer_list(0, 1, i);
            expect_pop(0, 1);
            tokens[i] = chain.token;
        }
        for (unsigned i = 0; i < 3; i++)
            offer(0x1000, 1, RAW_NEXT, 0);
        expect_device_breaks(VIRTQ_ERR_AVAIL_LIST);
        before = hash(1, ring.desc, rawp_desc_bytes(5));
        for (unsigned i = 0; i < 2; i++)
            virtq_device_push(&device, tokens[i], 7 + i);
        virtq_device_flush(&device);
        cr_assert_eq(virtq_device_pop(&device, &chain), VIRTQ_ERR_BROKEN, "and pops no more");
        if (hash(1, ring.desc, rawp_desc_bytes(5)) == before)
            continue;
        cr_assert(rawp_collect(&ring, &peer, 0, 7, true, 1));
        cr_assert(rawp_collect(&ring, &peer, 1, 8, true, 1));
        for (uint32_t i = 0; i < 3; i++)
            cr_assert(rawp_is_avail(&ring, rawp_after(&ring, peer.used, i)));
    }
}

/* ---------------------------------------------------------------------------
 * Device side: completions
 * --------------------------------------------------------------------------- */
Test(packed_device, push_writes_one_used_descriptor)
{
    /* V-PACK-05, V-PACK-06: AVAIL = USED = wrap, WRITE iff bytes were written, len and id, and no
     * other flag; V-PACK-02, V-PACK-03: nothing else is touched, addr neither */
    for (uint32_t n = 0; n < 10; n++)
        for (uint32_t written = 0; written < 3; written++) {
            struct rawp_pos at = nth(5, n);
            uint32_t slot = at.slot, next = (slot + 1) % 5, third = (slot + 2) % 5;
            uint64_t rest;

            open_device(5, PACKED);
            start_device_at(at);
            offer_list(1, 2, 0x4321);
            expect_pop(1, 2);
            rest = hash(hash(1, ring.desc + 16 * next, 16), ring.desc + 16 * third, 16);
            virtq_device_push(&device, chain.token, written * 0x01020304);
            virtq_device_flush(&device);
            cr_assert(desc_is(ring.desc, slot, seg_of(0x1000, written * 0x01020304),
                              rawp_used_bits(at) | (written != 0 ? RAW_WRITE : 0u)));
            cr_assert_eq(rawp_id(ring.desc, slot), 0x4321);
            cr_assert_eq(hash(hash(1, ring.desc + 16 * next, 16), ring.desc + 16 * third, 16),
                         rest);
            cr_assert(all_zero(ring.driver, RAWP_EVENT_BYTES));
            cr_assert(all_zero(ring.device, RAWP_EVENT_BYTES));
        }
}

Test(packed_device, push_exposes_nothing_before_flush)
{
    /* V-PACK-07, V-PACK-08: the flags of the first one of a batch come last */
    static const uint32_t counts[] = {3, 1, 2, 1};

    for (uint32_t n = 0; n < 14; n++) {
        struct rawp_pos at = nth(7, n);
        uint16_t before;

        open_device(7, PACKED);
        start_device_at(at);
        for (unsigned i = 0; i < 4; i++)
            offer_list(0, counts[i], 20 + i);
        before = rawp_flags(ring.desc, at.slot);
        for (unsigned i = 0; i < 4; i++) {
            expect_pop(0, counts[i]);
            virtq_device_push(&device, chain.token, 1 + i);
            cr_assert_eq(rawp_flags(ring.desc, at.slot), before);
        }
        virtq_device_flush(&device);
        for (unsigned i = 0; i < 4; i++)
            cr_assert(rawp_collect(&ring, &peer, (uint16_t)(20 + i), 1 + i, true, counts[i]));
        cr_assert(rawp_same(peer.used, peer.avail));
    }
}

Test(packed_device, completes_in_any_order)
{
    /* V-PACK-01, V-PACK-05: in completion order, each used descriptor skips its list's slots */
    static const uint32_t counts[] = {2, 4, 1, 2};
    static const unsigned order[] = {1, 3, 0, 2};
    uint32_t tokens[4];

    for (uint32_t n = 0; n < 18; n++) {
        open_device(9, PACKED);
        start_device_at(nth(9, n));
        for (unsigned i = 0; i < 4; i++)
            offer_list(counts[i], 0, 30 + i);
        for (unsigned i = 0; i < 4; i++) {
            expect_pop(counts[i], 0);
            tokens[i] = chain.token;
        }
        for (unsigned i = 0; i < 4; i++) {
            virtq_device_push(&device, tokens[order[i]], 0);
            virtq_device_flush(&device);
            cr_assert(
                rawp_collect(&ring, &peer, (uint16_t)(30 + order[i]), 0, false, counts[order[i]]));
        }
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        cycle_device(3);
    }
}

/* For the device side: a driver that makes lists of random length available, and names them at
 * random. */
static uint32_t tokens_held[MAX_NUM];

static void model_offer(uint32_t most, uint32_t *room)
{
    uint32_t count = 1 + random_below(most);
    struct rawp_list *list = &model.list[model.held];

    if (count > *room)
        return;
    list->count = count;
    list->id = (uint16_t)random_below(0x10000);
    offer_list(count / 2, count - count / 2, list->id);
    if (virtq_device_pop(&device, &chain) != 1 || chain.readable != count / 2 ||
        chain.writable != count - count / 2 || segs[count - 1].addr != nth_seg(count - 1).addr)
        cr_assert_fail("list of %u", count);
    tokens_held[model.held++] = chain.token;
    *room -= count;
}

static void model_push(uint32_t *room)
{
    uint32_t i = random_below(model.held), written = random_below(3);
    struct rawp_list list = model.list[i];

    virtq_device_push(&device, tokens_held[i], written);
    model.held--;
    model.list[i] = model.list[model.held];
    tokens_held[i] = tokens_held[model.held];
    virtq_device_flush(&device);
    if (!rawp_collect(&ring, &peer, list.id, written, written != 0, list.count))
        cr_assert_fail("used entry of id %u", list.id);
    *room += list.count;
}

Test(packed_device, random_lists_and_completions)
{
    /* V-PACK-01, V-PACK-04 to V-PACK-06, T-61, T-66, T-71: against a driver with its own slot and
     * wrap, at every size, for many laps */
    for (unsigned i = 0; i < SIZES && sizes[i] <= 257; i++) {
        uint32_t room = sizes[i];

        open_device(sizes[i], PACKED);
        model.held = 0;
        model.random = sizes[i];
        for (unsigned step = 0; step < 4000; step++) {
            if (random_below(2) == 0)
                model_offer(sizes[i] > 9 ? 70 : sizes[i], &room);
            else if (model.held != 0)
                model_push(&room);
        }
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        cr_assert_eq(virtq_device_error(&device), 0);
    }
}

/* ---------------------------------------------------------------------------
 * Device side: kicks
 * --------------------------------------------------------------------------- */
Test(packed_device, kick_by_mode)
{
    /* L-PEVT-01, V-PEVT-01: the device area, modes 0 and 1 without EVENT_IDX, reserved bits 0 */
    open_device(5, PACKED);
    rawp_set_event(ring.driver, place(0x1234, true), 0xabcd);
    memset(ring.device, 0xff, RAWP_EVENT_BYTES);
    virtq_device_kick_off(&device);
    cr_assert_eq(rawp_event_flags(ring.device), RAWP_DISABLE);
    cr_assert_not(virtq_device_kick_on(&device));
    cr_assert_eq(rawp_event_flags(ring.device), RAWP_ENABLE);
    cr_assert(rawp_event_is(ring.driver, place(0x1234, true)));
    cr_assert_eq(rawp_event_flags(ring.driver), 0xabcd);
}

Test(packed_device, kick_by_event)
{
    /* V-PEVT-01, L-PACK-02, T-74: mode 2 with the next slot to be made available */
    open_device(3, EVENTS);
    for (uint32_t n = 0; n < 12; n++) {
        memset(ring.device, 0xff, RAWP_EVENT_BYTES);
        cr_assert_not(virtq_device_kick_on(&device));
        cr_assert(rawp_event_is(ring.device, nth(3, n)));
        cr_assert_eq(ring.device[0], n % 3);
        cr_assert_eq(ring.device[1], n / 3 % 2 == 0 ? 0x80 : 0);
        cr_assert_eq(ring.device[2], 2);
        cr_assert_eq(ring.device[3], 0);
        cycle_device(1);
        virtq_device_kick_off(&device);
        cr_assert_eq(rawp_event_flags(ring.device), RAWP_DISABLE);
        cr_assert_eq(rawp_event_flags(ring.driver), 0, "T-73");
    }
}

Test(packed_device, kick_on_sees_what_came_before_it)
{
    /* V-PEVT-01, D-PEVT-02 for the device side: re-check after enabling */
    for (uint32_t n = 0; n < 20; n++) {
        open_device(5, n % 2 == 0 ? PACKED : EVENTS);
        start_device_at(nth(5, n / 2));
        offer_list(1, 2, 0);
        offer_list(0, 1, 1);
        cr_assert(virtq_device_kick_on(&device));
        expect_pop(1, 2);
        cr_assert(virtq_device_kick_on(&device));
        expect_pop(0, 1);
        cr_assert_not(virtq_device_kick_on(&device));
        offer_list(1, 0, 2);
        cr_assert(virtq_device_kick_on(&device));
    }
}

/* ---------------------------------------------------------------------------
 * Events of both sides, against a walk of the slots
 * --------------------------------------------------------------------------- */
struct batch {
    uint32_t num;
    struct rawp_pos from; /* where the batch begins */
    uint32_t count;       /* its slots */
    bool as_list;         /* one list, or single buffers */
    struct rawp_pos event;
    unsigned mode;
};

/* Is `event` one of the slots of the batch? */
static bool walked(const struct batch *b)
{
    struct rawp_ring shape = {NULL, NULL, NULL, b->num};

    for (uint32_t i = 0; i < b->count; i++)
        if (rawp_same(rawp_after(&shape, b->from, i), b->event))
            return true;
    return false;
}

/* How many slots lie between the start of a queue's life and `at`. */
static uint32_t age(const struct batch *b)
{
    return b->from.slot + (b->from.wrap ? 0 : b->num);
}

static void add_batch(const struct batch *b)
{
    bool good = true;

    if (b->as_list)
        good = add(b->count, 0, 0) == 0;
    for (uint32_t i = 0; i < b->count && !b->as_list; i++)
        good = good && add_writable(64, i) == 0;
    if (!good)
        cr_assert_fail("no room");
}

static bool kick_of(const struct batch *b)
{
    open_driver(b->num, EVENTS);
    cycle_driver(age(b));
    rawp_set_event(ring.device, b->event, b->mode);
    rawp_set_event(ring.driver, b->event, RAWP_DISABLE);
    add_batch(b);
    virtq_driver_publish(&driver);
    return virtq_driver_kick_due(&driver);
}

static void pop_and_push(uint32_t count)
{
    while (count-- != 0) {
        if (virtq_device_pop(&device, &chain) != 1)
            cr_assert_fail("not popped");
        virtq_device_push(&device, chain.token, 0);
    }
}

static bool irq_of(const struct batch *b)
{
    open_device(b->num, EVENTS);
    cycle_device(age(b));
    rawp_set_event(ring.driver, b->event, b->mode);
    rawp_set_event(ring.device, b->event, RAWP_DISABLE);
    if (b->as_list)
        offer_list(b->count, 0, 0);
    for (uint32_t i = 0; i < b->count && !b->as_list; i++)
        offer_list(0, 1, 0);
    pop_and_push(b->as_list ? 1 : b->count);
    virtq_device_flush(&device);
    return virtq_device_irq_due(&device);
}

typedef bool (*batch_fn)(const struct batch *);

static struct batch nth_batch(uint32_t num, uint32_t start, uint32_t count, uint32_t event)
{
    struct batch b = {num, nth(num, start), count, false, nth(num, event), RAWP_DESC};

    return b;
}

/* Every start, wrap, length, event offset and event wrap of a ring of `num`. */
static void compare_with_walk(uint32_t num, batch_fn due)
{
    for (uint32_t start = 0; start < 2 * num; start++)
        for (uint32_t count = 1; count <= num; count++)
            for (uint32_t event = 0; event < 2 * num; event++) {
                struct batch b = nth_batch(num, start, count, event);

                for (unsigned list = 0; list < 2; list++) {
                    b.as_list = list != 0;
                    if (due(&b) != walked(&b))
                        cr_assert_fail("num %u from %u, %u slots, event %u, list %u", num, start,
                                       count, event, list);
                }
            }
}

Test(packed_event, kick_is_membership_in_the_batch)
{
    /* L-PEVT-02, L-PEVT-03, T-69, T-70: against a walk of the slots, in every ring up to 9 */
    for (uint32_t num = 1; num <= 9; num++)
        compare_with_walk(num, kick_of);
}

Test(packed_event, irq_is_membership_in_the_batch)
{
    /* L-PEVT-02, L-PEVT-03, V-PEVT-01, T-69, T-70: slots that a list skips count as covered */
    for (uint32_t num = 1; num <= 9; num++)
        compare_with_walk(num, irq_of);
}

/* num, from, wrap, slots, event offset, event wrap, due */
static const uint32_t golden[][7] = {
    {4, 3, 1, 2, 3, 1, 1}, {4, 3, 1, 2, 0, 0, 1}, {4, 3, 1, 2, 1, 0, 0}, {4, 3, 1, 2, 2, 1, 0},
    {4, 0, 1, 4, 0, 1, 1}, {4, 0, 1, 4, 2, 1, 1}, {4, 0, 1, 4, 3, 1, 1}, {4, 0, 1, 4, 0, 0, 0},
    {5, 4, 0, 3, 4, 0, 1}, {5, 4, 0, 3, 0, 1, 1}, {5, 4, 0, 3, 1, 1, 1}, {5, 4, 0, 3, 2, 1, 0},
    {5, 4, 0, 3, 3, 0, 0},
};

Test(packed_event, golden_vectors)
{
    /* L-PEVT-03: golden vectors D.3, on both sides */
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        const uint32_t *g = golden[i];
        struct batch b = nth_batch(g[0], 0, g[3], 0);

        b.from = place(g[1], g[2] != 0);
        b.event = place(g[4], g[5] != 0);
        for (unsigned list = 0; list < 2; list++) {
            b.as_list = list != 0;
            cr_assert_eq(kick_of(&b), g[6], "vector %zu", i);
            cr_assert_eq(irq_of(&b), g[6], "vector %zu", i);
            cr_assert_eq(walked(&b), g[6], "vector %zu", i);
        }
    }
}

Test(packed_event, in_the_largest_rings)
{
    /* L-PEVT-03, T-70, T-71: 15 bits of offset, at the ends of a batch over the whole ring */
    for (unsigned i = SIZES - 2; i < SIZES; i++) {
        uint32_t num = sizes[i];

        for (uint32_t n = 0; n < 8; n++) {
            uint32_t start = n % 4 < 2 ? n * 1000 : num - n, count = n < 4 ? num : num / 2;
            struct batch b = nth_batch(num, start, count, 0);

            b.as_list = true;
            for (uint32_t edge = 0; edge < 4; edge++) {
                uint32_t event = start + (edge < 2 ? 0 : count) + 2 * num - edge % 2;

                b.event = nth(num, event);
                cr_assert_eq(kick_of(&b), edge == 0 || edge == 3, "%u %u %u", num, n, edge);
                cr_assert_eq(irq_of(&b), edge == 0 || edge == 3, "%u %u %u", num, n, edge);
            }
        }
    }
}

Test(packed_event, modes)
{
    /* L-PACK-02, D-PEVT-03: ENABLE always, DISABLE never, 3 counts as ENABLE; the 14 bits above are
     * not looked at, nor is the offset outside mode 2 */
    for (unsigned high = 0; high < 3; high++)
        for (uint32_t event = 0; event < 10; event++) {
            struct batch b = nth_batch(5, 3, 3, event);
            static const unsigned reserved[] = {0, 4, 0xfffc};

            b.mode = reserved[high] | RAWP_ENABLE;
            cr_assert(kick_of(&b) && irq_of(&b));
            b.mode = reserved[high] | RAWP_DISABLE;
            cr_assert(!kick_of(&b) && !irq_of(&b));
            b.mode = reserved[high] | RAWP_RESERVED;
            cr_assert(kick_of(&b) && irq_of(&b));
            b.mode = reserved[high] | RAWP_DESC;
            cr_assert(kick_of(&b) == walked(&b) && irq_of(&b) == walked(&b));
        }
}

Test(packed_event, nothing_new_is_no_reason)
{
    /* L-PEVT-03, D-PACK-15: whatever the mode, a decision covers what came since the last one */
    for (unsigned mode = 0; mode < 4; mode++)
        for (uint32_t event = 0; event < 10; event++) {
            struct batch b = nth_batch(5, 3, 3, event);

            b.mode = mode;
            (void)kick_of(&b);
            cr_assert_not(virtq_driver_kick_due(&driver));
            cr_assert_eq(add_writable(64, 0), 0);
            cr_assert_not(virtq_driver_kick_due(&driver), "added is not published");
            (void)irq_of(&b);
            cr_assert_not(virtq_device_irq_due(&device));
            offer_list(0, 1, 0);
            pop_and_push(1);
            cr_assert_not(virtq_device_irq_due(&device), "pushed is not flushed");
        }
}

Test(packed_event, remembers_what_it_did_not_notify_of)
{
    /* L-PEVT-03: a batch begins at the last decision, also when that said no */
    struct batch b = nth_batch(5, 3, 2, 9);

    cr_assert_not(kick_of(&b));
    rawp_set_event(ring.device, b.from, RAWP_DESC);
    cr_assert_eq(add_writable(64, 0), 0);
    virtq_driver_publish(&driver);
    cr_assert_not(virtq_driver_kick_due(&driver));
    cr_assert_not(irq_of(&b));
    rawp_set_event(ring.driver, b.from, RAWP_DESC);
    offer_list(0, 1, 0);
    pop_and_push(1);
    virtq_device_flush(&device);
    cr_assert_not(virtq_device_irq_due(&device));
}

/* As kick_of() and irq_of(), in single buffers that are published and completed one by one before
 * the one decision: a batch can be longer than the ring. */
static bool kick_of_many(const struct batch *b)
{
    open_driver(b->num, EVENTS);
    cycle_driver(age(b));
    rawp_set_event(ring.device, b->event, b->mode);
    for (uint32_t i = 0; i < b->count; i++)
        driver_round_trip();
    return virtq_driver_kick_due(&driver);
}

static bool irq_of_many(const struct batch *b)
{
    open_device(b->num, EVENTS);
    cycle_device(age(b));
    rawp_set_event(ring.driver, b->event, b->mode);
    for (uint32_t i = 0; i < b->count; i++)
        device_round_trip();
    return virtq_device_irq_due(&device);
}

/* Equal to the walk up to one lap. Further back the peer cannot wait: it was done with what was
 * exposed again since; of the last lap no event may be missed. */
static void compare_many(uint32_t num, uint32_t least, uint32_t most, batch_fn due)
{
    for (uint32_t start = 0; start < 2 * num; start++)
        for (uint32_t count = least; count <= most; count++)
            for (uint32_t event = 0; event < 2 * num; event++) {
                struct batch b = nth_batch(num, start, count, event);
                bool is_due = due(&b);

                if (count > num)
                    b = nth_batch(num, start + count - num, num, event);
                if (count > num ? !is_due && walked(&b) : is_due != walked(&b))
                    cr_assert_fail("num %u from %u, %u slots, event %u", num, start, count, event);
            }
}

Test(packed_event, covers_batches_without_a_decision)
{
    /* L-PEVT-03: all that was published or flushed since the last decision, up to a lap */
    for (uint32_t num = 1; num <= 5; num++) {
        compare_many(num, 1, num, kick_of_many);
        compare_many(num, 1, num, irq_of_many);
    }
}

Test(packed_event, kick_covers_more_than_a_lap_without_a_decision)
{
    /* L-PEVT-03: no event of the last lap that was published is missed */
    for (uint32_t num = 1; num <= 5; num++)
        compare_many(num, num + 1, 3 * num, kick_of_many);
}

Test(packed_event, irq_covers_more_than_a_lap_without_a_decision)
{
    /* L-PEVT-03: no event of the last lap that was flushed is missed */
    for (uint32_t num = 1; num <= 5; num++)
        compare_many(num, num + 1, 3 * num, irq_of_many);
}

Test(packed_event, modes_hold_over_many_laps_without_a_decision)
{
    /* D-PEVT-03: ENABLE always, DISABLE never; one decision covers all of them */
    for (uint32_t count = 1; count <= 20; count++) {
        struct batch b = nth_batch(3, 2, count, 0);

        b.mode = RAWP_ENABLE;
        cr_assert(kick_of_many(&b));
        cr_assert_not(virtq_driver_kick_due(&driver));
        cr_assert(irq_of_many(&b));
        cr_assert_not(virtq_device_irq_due(&device));
        b.mode = RAWP_DISABLE;
        cr_assert(!kick_of_many(&b) && !irq_of_many(&b));
    }
}

/* ---------------------------------------------------------------------------
 * Device side: moving
 * --------------------------------------------------------------------------- */
Test(packed_device, another_side_goes_on_in_mid_flight)
{
    /* V-PACK-05, L-PACK-04: tokens popped by one side are pushed by the next, nothing is lost or
     * used twice */
    static const uint32_t counts[] = {2, 1, 3, 1};
    uint32_t tokens[4];

    for (uint32_t n = 0; n < 18; n++) {
        struct virtq_position saved;
        struct virtq_device second;

        open_device(9, EVENTS);
        start_device_at(nth(9, n));
        for (unsigned i = 0; i < 4; i++)
            offer_list(0, counts[i], 50 + i);
        for (unsigned i = 0; i < 3; i++) {
            expect_pop(0, counts[i]);
            tokens[i] = chain.token;
        }
        chain.token = tokens[1];
        expect_push(1, 51, 1);
        (void)!virtq_device_irq_due(&device);
        saved = virtq_device_save(&device);
        cr_assert_eq(saved.avail_idx, word(nth(9, n + 6)));
        cr_assert_eq(saved.used_idx, word(nth(9, n + 1)));
        memset(&second, 0x5a, sizeof(second));
        cr_assert_eq(virtq_device_init(&second, &areas, map_guest, &guest), 0);
        cr_assert_eq(virtq_device_restore(&second, saved), 0);
        memset(&device, 0x5a, sizeof(device));
        cr_assert_not(virtq_device_irq_due(&second), "all was signalled by the first");
        device = second;
        expect_pop(0, 1);
        tokens[3] = chain.token;
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        for (unsigned i = 4; i-- != 0;) {
            chain.token = tokens[i];
            if (i != 1)
                expect_push(2, (uint16_t)(50 + i), counts[i]);
        }
        cr_assert(rawp_same(peer.used, peer.avail));
        cycle_device(19);
    }
}

Test(packed_device, restored_at_every_position)
{
    /* L-PACK-04: with every number of slots in flight; what is possible is accepted and reported */
    for (uint32_t num = 1; num <= 5; num++)
        for (uint32_t n = 0; n < 2 * num; n++)
            for (uint32_t flying = 0; flying <= num; flying++) {
                struct virtq_position at = position(nth(num, n + flying), nth(num, n)), saved;

                open_device(num, EVENTS);
                cr_assert_eq(virtq_device_restore(&device, at), 0);
                saved = virtq_device_save(&device);
                cr_assert_eq(saved.avail_idx, at.avail_idx);
                cr_assert_eq(saved.used_idx, at.used_idx);
            }
}

Test(packed_device, impossible_positions_are_refused)
{
    /* L-PACK-04: every pair of slots and wraps that is none of a ring, and slots beyond it */
    for (uint32_t num = 1; num <= 5; num++)
        for (uint32_t used = 0; used < 2 * num; used++)
            for (uint32_t flying = num + 1; flying < 2 * num; flying++) {
                struct virtq_position at = position(nth(num, used + flying), nth(num, used));

                open_device(num, EVENTS);
                cr_assert_eq(virtq_device_restore(&device, at), VIRTQ_ERR_POSITION);
                cycle_device(1);
            }
}

Test(packed_device, slots_beyond_the_ring_are_refused)
{
    /* L-PACK-04 */
    for (unsigned i = 0; i < SIZES && sizes[i] < MAX_NUM; i++) {
        uint32_t beyond[3] = {sizes[i], (sizes[i] + 0x7fffu) / 2, 0x7fff};

        open_device(sizes[i], EVENTS);
        for (unsigned k = 0; k < 12; k++) {
            struct rawp_pos bad = place(beyond[k % 3], k >= 6), good = place(0, k >= 6);
            struct virtq_position avail = position(bad, good), used = position(good, bad);
            struct virtq_position both = position(bad, bad);

            cr_assert_eq(virtq_device_restore(&device, avail), VIRTQ_ERR_POSITION);
            cr_assert_eq(virtq_device_restore(&device, used), VIRTQ_ERR_POSITION);
            cr_assert_eq(virtq_device_restore(&device, both), VIRTQ_ERR_POSITION);
        }
        cycle_device(3);
    }
}
