// SPDX-License-Identifier: MIT-0
/* What a queue can do beyond the plain ring formats: buffers used in order, notification data,
 * queue reset, legacy rings, event decisions, batches, moves. Each side alone, against a mock peer
 * that reads and writes the shared bytes by hand; the transports against a register model. */
#include "tests/support/test_config.h"

/* Every property that a queue can have, the one that is left out by default too. */
#define VIRTIO_RING_FLAGS                                                                          \
    (VIRTQ_EVENT_IDX | VIRTQ_INDIRECT | VIRTQ_LEGACY | VIRTQ_PACKED | VIRTQ_IN_ORDER |             \
     VIRTQ_ORDER_PLATFORM | VIRTQ_NOTIFY_ON_EMPTY | VIRTQ_FOREIGN_ENDIAN)

#include <criterion/criterion.h>

#include "tests/support/raw_packed.h"
#include "tests/support/raw_ring.h"
#include "virtio.h"

enum {
    MAX_SEGS = 64,
    PACKED_WRAP = 0x8000 /* in a position: the wrap counter */
};

/* For a packed ring `desc` is the ring, `avail` the driver's and `used` the device's event area. */
static struct raw_ring ring;
static struct virtq_areas areas;
static struct virtq_driver driver;
static struct virtq_device device;
static struct virtq_slot *slots;
static struct virtq_seg segs[MAX_SEGS];
static struct virtq_chain chain;
static struct virtq_done done;
static char cookies[65536];

/* The mock peer's place in a packed ring. */
static struct {
    uint32_t slot;
    bool wrap;
} peer;

static uint32_t random_state;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % limit;
}

#define EACH_FORMAT(format)                                                                        \
    for (uint16_t format = 0; format <= VIRTQ_PACKED; format = (uint16_t)(format + VIRTQ_PACKED))

#define EACH_EVENT_MODE(mode)                                                                      \
    for (uint16_t mode = 0; mode <= VIRTQ_EVENT_IDX; mode = (uint16_t)(mode + VIRTQ_EVENT_IDX))

/* ---------------------------------------------------------------------------
 * Opening a ring
 * --------------------------------------------------------------------------- */
static bool is_packed(void)
{
    return (areas.flags & VIRTQ_PACKED) != 0;
}

/* Sizes that the format can have, for loops over all small ones. */
static bool legal_size(uint32_t num, uint16_t flags)
{
    return (flags & VIRTQ_PACKED) || (num & (num - 1)) == 0;
}

static void open_memory(uint16_t num, uint16_t flags, int fill)
{
    raw_open(&ring, num, (flags & VIRTQ_LEGACY) != 0, fill);
    if (flags & VIRTQ_FOREIGN_ENDIAN)
        ring.big = !raw_cpu_is_big();
    if (flags & VIRTQ_PACKED) {
        free(ring.avail);
        free(ring.used);
        ring.avail = (uint8_t *)malloc(4);
        ring.used = (uint8_t *)malloc(4);
        if (ring.avail == NULL || ring.used == NULL)
            abort();
        memset(ring.avail, fill, 4);
        memset(ring.used, fill, 4);
    }
}

static void open_ring(uint16_t num, uint16_t flags, int fill)
{
    open_memory(num, flags, fill);
    areas.num = num;
    areas.flags = flags;
    areas.desc = ring.desc;
    areas.driver = ring.avail;
    areas.device = ring.used;
    free(slots);
    slots = (struct virtq_slot *)calloc(num, sizeof(*slots));
    cr_assert_not_null(slots);
    peer.slot = 0;
    peer.wrap = true;
    memset(segs, 0, sizeof(segs));
}

static void open_driver(uint16_t num, uint16_t flags)
{
    open_ring(num, flags, 0xa5);
    memset(&driver, 0, sizeof(driver));
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
}

static const void *map_plain(void *ctx, uint64_t addr, uint32_t len)
{
    (void)len;
    return (const uint8_t *)ctx + addr;
}

static _Alignas(16) uint8_t table_mem[16 * 8 + 16];

static void open_device(uint16_t num, uint16_t flags)
{
    open_ring(num, flags, 0);
    memset(&device, 0, sizeof(device));
    memset(&chain, 0, sizeof(chain));
    memset(table_mem, 0, sizeof(table_mem));
    chain.seg = segs;
    chain.capacity = MAX_SEGS;
    cr_assert_eq(virtq_device_init(&device, &areas, map_plain, table_mem), 0);
}

static struct virtq_position position_of(uint16_t avail, uint16_t used)
{
    struct virtq_position at;

    at.avail_idx = avail;
    at.used_idx = used;
    return at;
}

/* Moves a fresh driver side, and the mock device, to another position. */
static void start_driver_at(uint16_t at)
{
    cr_assert_eq(virtq_driver_restore(&driver, position_of(at, at)), 0);
    peer.slot = at & 0x7fff;
    peer.wrap = (at & PACKED_WRAP) != 0;
}

static void start_device_at(uint16_t at)
{
    cr_assert_eq(virtq_device_restore(&device, position_of(at, at)), 0);
    peer.slot = at & 0x7fff;
    peer.wrap = (at & PACKED_WRAP) != 0;
    if (is_packed())
        return;
    raw_set_avail_idx(&ring, at);
    raw_set_used_idx(&ring, at);
}

/* ---------------------------------------------------------------------------
 * The packed ring as bytes, at the offsets of VIRTIO 2.8
 * --------------------------------------------------------------------------- */
static uint16_t packed_id(uint32_t slot)
{
    return (uint16_t)raw_get(&ring, ring.desc + 16 * slot + 12, 2);
}
static uint16_t packed_flags(uint32_t slot)
{
    return (uint16_t)raw_get(&ring, ring.desc + 16 * slot + 14, 2);
}
static uint32_t packed_len(uint32_t slot)
{
    return (uint32_t)raw_get(&ring, ring.desc + 16 * slot + 8, 4);
}
static void packed_desc(uint32_t slot, uint32_t len, uint16_t id, uint32_t flags)
{
    raw_put(&ring, ring.desc + 16 * slot, 8, UINT64_C(0x1000) * (slot + 1));
    raw_put(&ring, ring.desc + 16 * slot + 8, 4, len);
    raw_put(&ring, ring.desc + 16 * slot + 12, 2, id);
    raw_put(&ring, ring.desc + 16 * slot + 14, 2, flags);
}
static void packed_event(uint8_t *area, uint32_t slot, bool wrap)
{
    raw_put(&ring, area, 2, slot | (wrap ? (uint32_t)PACKED_WRAP : 0));
    raw_put(&ring, area + 2, 2, RAWP_DESC);
}

/* The flags of a descriptor that was used, or made available, in a lap. */
static uint32_t used_mark(bool wrap)
{
    return wrap ? (uint32_t)RAWP_AVAIL | (uint32_t)RAWP_USED : 0;
}
static uint32_t avail_mark(bool wrap)
{
    return wrap ? (uint32_t)RAWP_AVAIL : (uint32_t)RAWP_USED;
}

static uint16_t peer_position(void)
{
    return (uint16_t)(peer.slot | (peer.wrap ? (uint32_t)PACKED_WRAP : 0));
}
static void peer_advance(uint32_t count)
{
    while (count-- != 0)
        if (++peer.slot == ring.num) {
            peer.slot = 0;
            peer.wrap = !peer.wrap;
        }
}

/* ---------------------------------------------------------------------------
 * A mock device
 * --------------------------------------------------------------------------- */
/* One used entry with these contents, after which `advance` buffers (split) or slots (packed) count
 * as used. */
static void peer_answer(uint32_t id, uint32_t written, uint32_t advance)
{
    if (is_packed()) {
        packed_desc(peer.slot, written, (uint16_t)id,
                    used_mark(peer.wrap) | (written != 0 ? RAW_WRITE : 0));
        peer_advance(advance);
    } else {
        uint16_t at = raw_used_idx(&ring);

        raw_set_used_slot(&ring, at, id, written);
        raw_set_used_idx(&ring, (uint16_t)(at + advance));
    }
}

/* Walks `buffers` packed lists from the mock device's place on: the id of the last, and how many
 * slots they take. */
static uint32_t packed_walk(unsigned buffers, uint16_t *id)
{
    uint32_t at = peer.slot, walked = 0;
    bool wrap = peer.wrap;

    while (buffers-- != 0)
        for (bool more = true; more; walked++) {
            uint16_t flags = packed_flags(at);

            cr_assert_eq(flags & (RAWP_AVAIL | RAWP_USED), avail_mark(wrap), "not available");
            more = (flags & RAW_NEXT) != 0;
            *id = packed_id(at);
            if (++at == ring.num) {
                at = 0;
                wrap = !wrap;
            }
        }
    return walked;
}

/* Completes the next `buffers`, all published, in order and with one used entry. */
static void peer_complete(unsigned buffers, uint32_t written)
{
    uint16_t id = 0;

    if (is_packed()) {
        uint32_t advance = packed_walk(buffers, &id);

        peer_answer(id, written, advance);
        return;
    }
    cr_assert_leq(buffers, (uint16_t)(raw_avail_idx(&ring) - raw_used_idx(&ring)));
    id = raw_avail_slot(&ring, (uint16_t)(raw_used_idx(&ring) + buffers - 1));
    peer_answer(id, written, buffers);
}

/* ---------------------------------------------------------------------------
 * A mock driver
 * --------------------------------------------------------------------------- */
/* Makes a chain of `count` writable segments of `len` bytes available. Split: its descriptors are
 * `id` and what follows, round the table. Packed: only the last one names the buffer. */
static void peer_offer(uint32_t id, uint32_t count, uint32_t len)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t more = i + 1 != count ? RAW_NEXT : 0;

        if (is_packed()) {
            packed_desc(peer.slot, len, more ? 0xbeef : (uint16_t)id,
                        RAW_WRITE | more | avail_mark(peer.wrap));
            peer_advance(1);
        } else {
            raw_desc(&ring, ring.desc, (id + i) % ring.num, 0x1000, len,
                     (uint16_t)(RAW_WRITE | more), (uint16_t)((id + i + 1) % ring.num));
        }
    }
    if (!is_packed())
        raw_offer(&ring, (uint16_t)(id % ring.num));
}

static uint32_t pop_token(void)
{
    cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    return chain.token;
}

/* ---------------------------------------------------------------------------
 * Buffers of the driver under test
 * --------------------------------------------------------------------------- */
static struct virtq_seg seg_of(uint64_t addr, uint32_t len)
{
    struct virtq_seg seg;

    seg.addr = addr;
    seg.len = len;
    return seg;
}

static struct virtq_buffer buffer_of(uint16_t readable, uint16_t writable)
{
    struct virtq_buffer buffer;

    buffer.seg = segs;
    buffer.readable = readable;
    buffer.writable = writable;
    for (uint32_t i = 0; i < (uint32_t)readable + writable; i++)
        segs[i] = seg_of(0x1000u * (i + 1), 16u * (i + 1));
    return buffer;
}

static void add_chain(uint16_t readable, uint16_t writable, unsigned cookie)
{
    struct virtq_buffer buffer = buffer_of(readable, writable);

    cr_assert_eq(virtq_driver_add(&driver, &buffer, &cookies[cookie]), 0);
}

static void add_writable(uint32_t len, unsigned cookie)
{
    cr_assert_eq(virtq_driver_add_writable(&driver, seg_of(0x1000, len), &cookies[cookie]), 0);
}

static void publish_writable(unsigned count, uint32_t len)
{
    for (unsigned i = 0; i < count; i++)
        add_writable(len, i);
    virtq_driver_publish(&driver);
}

static void expect_taken(unsigned cookie, uint32_t written)
{
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[cookie]);
    cr_assert_eq(done.written, written);
}

static void expect_idle(void)
{
    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
}

static void expect_broken(int cause)
{
    cr_assert_eq(virtq_driver_take(&driver, &done), cause);
    cr_assert_eq(virtq_driver_error(&driver), cause);
    cr_assert_eq(virtq_driver_take(&driver, &done), VIRTQ_ERR_BROKEN);
}

/* ---------------------------------------------------------------------------
 * In order, driver side
 * --------------------------------------------------------------------------- */
Test(in_order_driver, a_batch_is_handed_out_buffer_by_buffer)
{
    /* L-INO-01, D-INO-01, D-INO-04: skipped buffers count as written in full, the last one as
     * reported */
    EACH_FORMAT(format) {
        open_driver(8, format | VIRTQ_IN_ORDER);
        for (unsigned i = 0; i < 4; i++)
            add_writable(100 + i, i);
        virtq_driver_publish(&driver);
        expect_idle();
        peer_complete(4, 7);
        for (unsigned i = 0; i < 3; i++)
            expect_taken(i, 100 + i);
        expect_taken(3, 7);
        expect_idle();
        cr_assert_eq(virtq_driver_free_count(&driver), 8);
    }
}

Test(in_order_driver, skipped_chains_count_their_writable_bytes_alone)
{
    /* D-INO-01, D-INO-04: readable bytes are not written, and a chain frees all its descriptors */
    EACH_FORMAT(format) {
        open_driver(8, format | VIRTQ_IN_ORDER);
        add_chain(2, 1, 0);
        add_chain(3, 0, 1);
        add_chain(0, 2, 2);
        virtq_driver_publish(&driver);
        peer_complete(3, 48);
        expect_taken(0, 48);
        cr_assert_eq(virtq_driver_free_count(&driver), 3);
        expect_taken(1, 0);
        cr_assert_eq(virtq_driver_free_count(&driver), 6);
        expect_taken(2, 48);
        cr_assert_eq(virtq_driver_free_count(&driver), 8);
        expect_idle();
    }
}

Test(in_order_driver, an_entry_for_each_buffer_is_accepted)
{
    /* L-INO-01: a device may use in order without ever making a batch */
    EACH_FORMAT(format) {
        open_driver(4, format | VIRTQ_IN_ORDER);
        for (unsigned lap = 0; lap < 5; lap++) {
            publish_writable(4, 64);
            for (unsigned i = 0; i < 4; i++)
                peer_complete(1, i + lap);
            for (unsigned i = 0; i < 4; i++)
                expect_taken(i, i + lap);
            expect_idle();
        }
    }
}

Test(in_order_driver, a_batch_of_the_whole_ring)
{
    /* D-INO-01: sizes 1 to 9, several laps, every buffer once */
    EACH_FORMAT(format)
        for (uint16_t num = 1; num <= 9; num++) {
            if (!legal_size(num, format))
                continue;
            open_driver(num, format | VIRTQ_IN_ORDER);
            for (unsigned lap = 0; lap < 5; lap++) {
                publish_writable(num, 64);
                cr_assert_eq(virtq_driver_free_count(&driver), 0);
                peer_complete(num, 5);
                for (unsigned i = 0; i + 1 < num; i++)
                    expect_taken(i, 64);
                expect_taken(num - 1u, 5);
                expect_idle();
            }
        }
}

Test(in_order_driver, a_chain_of_the_whole_ring)
{
    /* D-INO-01: one buffer that takes every descriptor, from every start */
    EACH_FORMAT(format)
        for (uint16_t num = 2; num <= 9; num++) {
            if (!legal_size(num, format))
                continue;
            open_driver(num, format | VIRTQ_IN_ORDER);
            for (unsigned lap = 0; lap < 2u * num; lap++) {
                add_chain(1, (uint16_t)(num - 1), lap);
                virtq_driver_publish(&driver);
                peer_complete(1, 3);
                expect_taken(lap, 3);
                publish_writable(1, 8);
                peer_complete(1, 8);
                expect_taken(0, 8);
                expect_idle();
            }
        }
}

Test(in_order_driver, batches_follow_each_other)
{
    /* D-INO-01: the next entry is at the first slot behind the batch; entries in between are not
     * looked at */
    EACH_FORMAT(format) {
        open_driver(8, format | VIRTQ_IN_ORDER);
        publish_writable(6, 64);
        if (!is_packed())
            for (uint16_t i = 1; i < 6; i++)
                raw_set_used_slot(&ring, i, 0xdeadbeef, 0xdeadbeef);
        peer_complete(3, 1);
        peer_complete(2, 2);
        for (unsigned i = 0; i < 5; i++)
            expect_taken(i, i == 2 ? 1 : i == 4 ? 2 : 64);
        expect_idle();
        peer_complete(1, 3);
        expect_taken(5, 3);
        expect_idle();
    }
}

Test(in_order_driver, index_that_covers_a_batch_in_two_steps)
{
    /* L-INO-01, D-SPLIT-12: nothing is handed out beyond the index, whatever an entry names */
    open_driver(8, VIRTQ_IN_ORDER);
    publish_writable(5, 64);
    raw_set_used_slot(&ring, 0, 3, 9);
    raw_set_used_idx(&ring, 2);
    expect_taken(0, 64);
    expect_taken(1, 64);
    expect_idle();
    expect_idle();
    raw_set_used_idx(&ring, 4);
    expect_taken(2, 64);
    expect_taken(3, 9);
    expect_idle();
    raw_set_used_slot(&ring, 4, 4, 1);
    raw_set_used_idx(&ring, 5);
    expect_taken(4, 1);
    expect_idle();
}

Test(in_order_driver, buffers_are_added_between_those_of_a_batch)
{
    /* D-INO-01: descriptors of a half taken batch are used again while its end is still waiting */
    EACH_FORMAT(format) {
        open_driver(4, format | VIRTQ_IN_ORDER);
        for (unsigned lap = 0; lap < 9; lap++) {
            publish_writable(4, 64);
            peer_complete(4, 5);
            expect_taken(0, 64);
            expect_taken(1, 64);
            add_chain(1, 1, 10);
            virtq_driver_publish(&driver);
            cr_assert_eq(virtq_driver_free_count(&driver), 0);
            expect_taken(2, 64);
            expect_taken(3, 5);
            expect_idle();
            peer_complete(1, 32);
            expect_taken(10, 32);
            expect_idle();
        }
    }
}

Test(in_order_driver, irq_on_sees_the_rest_of_a_batch)
{
    /* D-INO-01, D-SPLIT-10: the rest has no entry of its own, and no interrupt will come for it */
    EACH_FORMAT(format)
        EACH_EVENT_MODE(event) {
            open_driver(8, format | event | VIRTQ_IN_ORDER);
            publish_writable(4, 64);
            cr_assert_not(virtq_driver_irq_on(&driver));
            peer_complete(3, 5);
            for (unsigned i = 0; i < 3; i++) {
                cr_assert(virtq_driver_irq_on(&driver), "%u", i);
                expect_taken(i, i == 2 ? 5 : 64);
            }
            cr_assert_not(virtq_driver_irq_on(&driver));
            cr_assert_not(virtq_driver_irq_on_after(&driver));
        }
}

Test(in_order_driver, split_descriptors_are_taken_in_ring_order)
{
    /* D-INO-02: from 0 on; next is x + 1, and 0 in the last entry */
    open_driver(8, VIRTQ_IN_ORDER);
    for (unsigned lap = 0; lap < 24; lap++) {
        uint32_t first = lap * 3 % 8;

        add_chain(1, 2, 0);
        virtq_driver_publish(&driver);
        cr_assert_eq(raw_avail_slot(&ring, (uint16_t)lap), first);
        for (uint32_t i = 0; i < 3; i++) {
            uint32_t at = (first + i) % 8;

            cr_assert_eq(raw_desc_addr(&ring, ring.desc, at), 0x1000 * (i + 1));
            if (i < 2) {
                cr_assert(raw_desc_flags(&ring, ring.desc, at) & RAW_NEXT);
                cr_assert_eq(raw_desc_next(&ring, ring.desc, at), at == 7 ? 0 : at + 1);
            }
        }
        peer_complete(1, 0);
        expect_taken(0, 0);
    }
}

Test(in_order_driver, split_ring_order_survives_batches_and_every_kind_of_add)
{
    /* D-INO-02: the head is where the last buffer ended, however completions were taken */
    struct virtq_table table = {table_mem, 0, 8};
    struct virtq_buffer buffer = buffer_of(1, 2);
    uint32_t next = 0;

    open_driver(8, VIRTQ_IN_ORDER | VIRTQ_INDIRECT);
    for (uint16_t lap = 0; lap < 40; lap++) {
        uint16_t idx = (uint16_t)(4 * lap);

        add_writable(8, 0);
        add_chain(1, 1, 1);
        buffer = buffer_of(1, 2);
        cr_assert_eq(virtq_driver_add_indirect(&driver, &buffer, &table, &cookies[2]), 0);
        cr_assert_eq(virtq_driver_add_readable(&driver, seg_of(0x1000, 8), &cookies[3]), 0);
        virtq_driver_publish(&driver);
        cr_assert_eq(raw_avail_slot(&ring, idx), next % 8);
        cr_assert_eq(raw_avail_slot(&ring, (uint16_t)(idx + 1)), (next + 1) % 8);
        cr_assert_eq(raw_avail_slot(&ring, (uint16_t)(idx + 2)), (next + 3) % 8);
        cr_assert_eq(raw_avail_slot(&ring, (uint16_t)(idx + 3)), (next + 4) % 8);
        next += 5;
        peer_complete(lap % 4 + 1u, 0);
        if (lap % 4 != 3)
            peer_complete(3u - lap % 4, 0);
        for (unsigned i = 0; i < 4; i++) {
            cr_assert_eq(virtq_driver_take(&driver, &done), 1);
            cr_assert_eq(done.cookie, &cookies[i]);
        }
    }
}

Test(in_order_driver, split_indirect_tables_are_linked_in_sequence)
{
    /* D-INO-03: next is 1, 2, ... */
    struct virtq_table table = {table_mem, 0, 8};

    for (uint16_t count = 2; count <= 8; count++) {
        struct virtq_buffer buffer = buffer_of(1, (uint16_t)(count - 1));

        open_driver(8, VIRTQ_IN_ORDER | VIRTQ_INDIRECT);
        buffer = buffer_of(1, (uint16_t)(count - 1));
        memset(table_mem, 0xa5, sizeof(table_mem));
        cr_assert_eq(virtq_driver_add_indirect(&driver, &buffer, &table, NULL), 0);
        for (uint32_t i = 0; i < count; i++) {
            bool more = i + 1u < count;

            cr_assert_eq((raw_desc_flags(&ring, table_mem, i) & RAW_NEXT) != 0, more);
            if (more)
                cr_assert_eq(raw_desc_next(&ring, table_mem, i), i + 1);
        }
    }
}

/* Four outstanding buffers, the second of three descriptors, the first taken already; 6 and 7 are
 * added but not published. Packed ids are whatever the driver gave them. */
static void open_for_errors(uint16_t flags, uint16_t ids[8])
{
    open_driver(8, (uint16_t)(flags | VIRTQ_IN_ORDER));
    add_writable(64, 0);
    add_chain(1, 2, 1);
    add_writable(64, 2);
    virtq_driver_publish(&driver);
    for (uint16_t i = 0; i < 8; i++)
        ids[i] = is_packed() ? packed_id(i) : i;
    peer_complete(1, 64);
    expect_taken(0, 64);
}

static void expect_rest_detached(unsigned first, unsigned end)
{
    bool seen[8] = {false, false, false, false, false, false, false, false};
    unsigned count = 0;
    uint16_t at = 0;
    void *cookie;

    while (virtq_driver_detach(&driver, &at, &cookie)) {
        unsigned which = (unsigned)((char *)cookie - cookies);

        cr_assert(which >= first && which < end && !seen[which]);
        seen[which] = true;
        count++;
    }
    cr_assert_eq(count, end - first);
}

static void check_wrong_id(uint16_t format, uint32_t id)
{
    uint16_t ids[8];

    open_for_errors(format, ids);
    peer_answer(id, 1, 1);
    expect_broken(VIRTQ_ERR_USED_ID);
    expect_rest_detached(1, 3);
}

Test(in_order_driver, id_out_of_range)
{
    /* D-INO-04 */
    static const uint32_t wrong[] = {8, 9, 0x7fff, 0x8000, 0x8001, 0xffff};

    EACH_FORMAT(format)
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
            check_wrong_id(format, wrong[i]);
    check_wrong_id(0, 0x10001);
    check_wrong_id(0, 0x80000001);
    check_wrong_id(0, 0xffffffff);
}

Test(in_order_driver, id_of_a_buffer_that_is_complete)
{
    /* D-INO-04: the oldest outstanding buffer is 1 */
    EACH_FORMAT(format) {
        uint16_t ids[8];

        open_for_errors(format, ids);
        check_wrong_id(format, ids[0]);
    }
}

Test(in_order_driver, id_in_the_middle_of_a_chain)
{
    /* D-INO-04; a packed buffer's middle slots are no ids of buffers either */
    EACH_FORMAT(format) {
        check_wrong_id(format, 2);
        check_wrong_id(format, 3);
    }
}

Test(in_order_driver, id_of_a_descriptor_that_is_free)
{
    /* D-INO-04 */
    EACH_FORMAT(format)
        for (uint32_t id = 5; id < 8; id++)
            check_wrong_id(format, id);
}

Test(in_order_driver, id_of_a_buffer_that_is_not_published)
{
    /* D-INO-04: the device cannot have used what it was not given */
    EACH_FORMAT(format) {
        uint16_t ids[8];

        open_for_errors(format, ids);
        add_writable(64, 3);
        peer_answer(5, 1, 1);
        expect_broken(VIRTQ_ERR_USED_ID);
        expect_rest_detached(1, 4);
    }
}

Test(in_order_driver, len_beyond_the_named_buffer)
{
    /* D-INO-04, D-SPLIT-12, D-PACK-13: of the oldest alone, and at the end of a batch */
    EACH_FORMAT(format) {
        uint16_t ids[8];

        open_for_errors(format, ids);
        peer_complete(1, 32 + 48 + 1);
        expect_broken(VIRTQ_ERR_USED_LEN);
        expect_rest_detached(1, 3);
        open_for_errors(format, ids);
        peer_complete(2, 65);
        expect_broken(VIRTQ_ERR_USED_LEN);
        expect_rest_detached(1, 3);
        open_for_errors(format, ids);
        peer_complete(2, 64);
        expect_taken(1, 32 + 48);
        expect_taken(2, 64);
    }
}

Test(in_order_driver, index_beyond_what_is_outstanding)
{
    /* D-SPLIT-12: also after a batch that is only half taken */
    open_driver(8, VIRTQ_IN_ORDER);
    publish_writable(3, 64);
    peer_complete(3, 1);
    expect_taken(0, 64);
    raw_set_used_idx(&ring, 4);
    expect_broken(VIRTQ_ERR_USED_IDX);
    expect_rest_detached(1, 3);
}

Test(in_order_driver, a_half_taken_batch_is_detached)
{
    /* D-INO-01: what take did not hand out, detach does */
    EACH_FORMAT(format) {
        open_driver(8, format | VIRTQ_IN_ORDER);
        publish_writable(5, 64);
        peer_complete(4, 1);
        expect_taken(0, 64);
        expect_taken(1, 64);
        expect_rest_detached(2, 5);
    }
}

/* What the test knows of the buffers it added, oldest first. */
struct known {
    uint32_t writable, written;
    uint16_t count, id;
};
static struct known known[32768];

static void random_add(unsigned seq)
{
    uint16_t free_count = virtq_driver_free_count(&driver);
    uint16_t count = (uint16_t)(1 + random_below(free_count < 4 ? free_count : 4u));
    uint16_t readable = (uint16_t)random_below(count + 1u);

    add_chain(readable, (uint16_t)(count - readable), seq);
    known[seq].count = count;
    known[seq].writable = 0;
    for (uint32_t i = readable; i < count; i++)
        known[seq].writable += segs[i].len;
}

/* Completes 1 to `most` buffers from `seq` on in one batch. */
static unsigned random_complete(unsigned seq, unsigned most)
{
    unsigned count = 1 + random_below(most), end = seq + count - 1;

    for (unsigned i = seq; i < end; i++)
        known[i].written = known[i].writable;
    known[end].written = random_below(known[end].writable + 1);
    peer_complete(count, known[end].written);
    return count;
}

static void random_driver_run(uint16_t num, uint16_t flags)
{
    unsigned added = 0, published = 0, completed = 0, taken = 0;

    open_driver(num, flags);
    while (taken < 600) {
        switch (random_below(4)) {
        case 0:
            if (virtq_driver_free_count(&driver) != 0)
                random_add(added++);
            break;
        case 1:
            virtq_driver_publish(&driver);
            published = added;
            break;
        case 2:
            if (completed != published)
                completed += random_complete(completed, published - completed);
            break;
        default:
            if (taken == completed) {
                expect_idle();
            } else {
                expect_taken(taken, known[taken].written);
                taken++;
            }
        }
    }
}

Test(in_order_driver, random_batches_of_random_chains)
{
    /* L-INO-01, D-INO-01: sizes 1 to 9 and larger ones, chains and batches across the ring's end */
    random_state = 1;
    EACH_FORMAT(format) {
        for (uint16_t num = 1; num <= 9; num++)
            if (legal_size(num, format))
                random_driver_run(num, format | VIRTQ_IN_ORDER);
        random_driver_run(64, format | VIRTQ_IN_ORDER);
    }
    random_driver_run(100, VIRTQ_PACKED | VIRTQ_IN_ORDER);
}

Test(in_order_driver, any_start)
{
    /* D-INO-01: a batch across 65535, and across the end of a packed ring from every slot */
    open_driver(8, VIRTQ_IN_ORDER);
    start_driver_at(65532);
    publish_writable(7, 64);
    peer_complete(7, 5);
    for (unsigned i = 0; i < 7; i++)
        expect_taken(i, i == 6 ? 5 : 64);
    expect_idle();
    for (uint16_t at = 0; at < 14; at++) {
        open_driver(7, VIRTQ_PACKED | VIRTQ_IN_ORDER);
        start_driver_at((uint16_t)(at % 7 | (at < 7 ? 0 : PACKED_WRAP)));
        publish_writable(6, 64);
        peer_complete(6, 5);
        for (unsigned i = 0; i < 6; i++)
            expect_taken(i, i == 5 ? 5 : 64);
        expect_idle();
    }
}

/* ---------------------------------------------------------------------------
 * In order, device side
 * --------------------------------------------------------------------------- */
/* Three chains of 1, 2 and 1 descriptors are available and popped. */
static void open_three(uint16_t flags, uint32_t tokens[3])
{
    static const uint32_t ids[3] = {0, 1, 3}, packed_ids[3] = {6, 2, 5}, counts[3] = {1, 2, 1};

    open_device(8, (uint16_t)(flags | VIRTQ_IN_ORDER));
    if (!is_packed())
        memset(ring.used + 4, 0xa5, 8 * 8);
    for (unsigned i = 0; i < 3; i++)
        peer_offer(is_packed() ? packed_ids[i] : ids[i], counts[i], 64);
    for (unsigned i = 0; i < 3; i++)
        tokens[i] = pop_token();
}

static void expect_split_entry(uint16_t at, uint32_t id, uint32_t len)
{
    cr_assert_eq(raw_used_id(&ring, at), id, "slot %u", at);
    cr_assert_eq(raw_used_len(&ring, at), len, "slot %u", at);
}
static void expect_split_untouched(uint16_t from, uint16_t end)
{
    for (uint16_t at = from; at < end; at++)
        expect_split_entry(at, 0xa5a5a5a5, 0xa5a5a5a5);
}

Test(in_order_device, split_batch_is_one_entry_at_its_first_slot)
{
    /* V-INO-01, T-76: id of the last buffer's head, idx on by the size of the batch */
    uint32_t tokens[3];

    open_three(0, tokens);
    virtq_device_push_full(&device, tokens[0], 64);
    virtq_device_push_full(&device, tokens[1], 128);
    virtq_device_push(&device, tokens[2], 17);
    cr_assert_eq(raw_used_idx(&ring), 0);
    virtq_device_flush(&device);
    cr_assert_eq(raw_used_idx(&ring), 3);
    expect_split_entry(0, 3, 17);
    expect_split_untouched(1, 8);
    /* skips ahead: the next entry is where it would be without a batch */
    peer_offer(4, 1, 64);
    virtq_device_push(&device, pop_token(), 5);
    virtq_device_flush(&device);
    cr_assert_eq(raw_used_idx(&ring), 4);
    expect_split_entry(3, 4, 5);
    expect_split_untouched(1, 3);
    expect_split_untouched(4, 8);
}

static void expect_packed_used(uint32_t slot, uint16_t id, uint32_t len, bool wrap)
{
    uint32_t write = len != 0 ? RAW_WRITE : 0;

    cr_assert_eq(packed_flags(slot) & (RAWP_AVAIL | RAWP_USED), used_mark(wrap));
    cr_assert_eq(packed_flags(slot) & RAW_WRITE, write);
    cr_assert_eq(packed_id(slot), id);
    if (len != 0)
        cr_assert_eq(packed_len(slot), len);
}

Test(in_order_device, packed_batch_is_one_descriptor_at_its_first_slot)
{
    /* V-INO-02: id of the last buffer, all slots of the batch are skipped */
    uint32_t tokens[3];
    uint8_t before[16 * 8];

    open_three(VIRTQ_PACKED, tokens);
    memcpy(before, ring.desc, sizeof(before));
    virtq_device_push_full(&device, tokens[0], 64);
    virtq_device_push_full(&device, tokens[1], 128);
    virtq_device_push(&device, tokens[2], 17);
    cr_assert_eq(packed_flags(0), RAW_WRITE | RAWP_AVAIL, "not before the flush");
    virtq_device_flush(&device);
    expect_packed_used(0, 5, 17, true);
    cr_assert_eq(memcmp(before + 16, ring.desc + 16, sizeof(before) - 16), 0);
    peer_offer(1, 2, 64);
    virtq_device_push(&device, pop_token(), 0);
    virtq_device_flush(&device);
    expect_packed_used(4, 1, 0, true);
}

Test(in_order_device, packed_batch_across_the_rings_end)
{
    /* V-INO-02: sizes 1 to 9, from every slot: the next used descriptor is behind all the slots */
    for (uint16_t num = 1; num <= 9; num++)
        for (uint32_t start = 0; start < 2u * num; start++) {
            bool wrap = start < num;
            uint32_t last;

            open_device(num, VIRTQ_PACKED | VIRTQ_IN_ORDER);
            start_device_at((uint16_t)(start % num | (wrap ? (uint32_t)PACKED_WRAP : 0)));
            for (uint32_t i = 0; i < num; i++)
                peer_offer(num - 1 - i, 1, 8);
            for (uint32_t i = 0; i < num; i++)
                virtq_device_push_full(&device, pop_token(), 8);
            virtq_device_flush(&device);
            expect_packed_used(start % num, 0, 8, wrap);
            for (uint32_t i = 1; i < num; i++)
                cr_assert_neq(packed_flags((start + i) % num) & (RAWP_AVAIL | RAWP_USED),
                              used_mark((start + i) % num > start % num ? wrap : !wrap));
            last = peer.slot;
            wrap = peer.wrap;
            peer_offer(0, 1, 8);
            virtq_device_push(&device, pop_token(), 3);
            virtq_device_flush(&device);
            expect_packed_used(last, 0, 3, wrap);
        }
}

Test(in_order_device, split_batch_of_the_whole_ring)
{
    /* V-INO-01, T-76: across 65535 as well */
    for (uint16_t num = 1; num <= 8; num = (uint16_t)(num * 2))
        for (uint16_t start = 65530; start != 4; start++) {
            open_device(num, VIRTQ_IN_ORDER);
            start_device_at(start);
            for (uint32_t i = 0; i < num; i++)
                peer_offer(i, 1, 8);
            for (uint32_t i = 0; i < num; i++)
                virtq_device_push_full(&device, pop_token(), 8);
            virtq_device_flush(&device);
            cr_assert_eq(raw_used_idx(&ring), (uint16_t)(start + num));
            expect_split_entry(start, num - 1u, 8);
            peer_offer(0, 1, 8);
            virtq_device_push(&device, pop_token(), 3);
            virtq_device_flush(&device);
            expect_split_entry((uint16_t)(start + num), 0, 3);
        }
}

Test(in_order_device, a_partly_filled_buffer_ends_its_batch)
{
    /* V-INO-03, T-77: its length would be lost under a later completion */
    uint32_t tokens[3];

    open_three(0, tokens);
    virtq_device_push(&device, tokens[0], 10);
    virtq_device_push(&device, tokens[1], 20);
    virtq_device_push_full(&device, tokens[2], 64);
    virtq_device_flush(&device);
    cr_assert_eq(raw_used_idx(&ring), 3);
    expect_split_entry(0, 0, 10);
    expect_split_entry(1, 1, 20);
    expect_split_entry(2, 3, 64);
    expect_split_untouched(3, 8);

    open_three(VIRTQ_PACKED, tokens);
    virtq_device_push(&device, tokens[0], 10);
    virtq_device_push(&device, tokens[1], 20);
    virtq_device_push_full(&device, tokens[2], 64);
    virtq_device_flush(&device);
    expect_packed_used(0, 6, 10, true);
    expect_packed_used(1, 2, 20, true);
    expect_packed_used(3, 5, 64, true);
    cr_assert_eq(packed_flags(2), RAW_WRITE | RAWP_AVAIL, "inside a list");
}

Test(in_order_device, a_flush_closes_the_batch)
{
    /* V-INO-03: an entry that is visible is not written again */
    uint32_t tokens[3];

    open_three(0, tokens);
    virtq_device_push_full(&device, tokens[0], 64);
    virtq_device_flush(&device);
    cr_assert_eq(raw_used_idx(&ring), 1);
    virtq_device_push_full(&device, tokens[1], 128);
    virtq_device_push_full(&device, tokens[2], 64);
    virtq_device_flush(&device);
    cr_assert_eq(raw_used_idx(&ring), 3);
    expect_split_entry(0, 0, 64);
    expect_split_entry(1, 3, 64);
    expect_split_untouched(2, 8);

    open_three(VIRTQ_PACKED, tokens);
    virtq_device_push_full(&device, tokens[0], 64);
    virtq_device_flush(&device);
    virtq_device_push_full(&device, tokens[1], 128);
    virtq_device_push_full(&device, tokens[2], 64);
    virtq_device_flush(&device);
    expect_packed_used(0, 6, 64, true);
    expect_packed_used(1, 5, 64, true);
    cr_assert_eq(packed_flags(3), RAW_WRITE | RAWP_AVAIL, "skipped");
}

Test(in_order_device, without_the_feature_nothing_is_merged)
{
    /* V-INO-03: push_full is push then */
    EACH_FORMAT(format) {
        open_device(8, format);
        for (uint32_t i = 0; i < 3; i++)
            peer_offer(i, 1, 64);
        for (uint32_t i = 0; i < 3; i++)
            virtq_device_push_full(&device, pop_token(), 64);
        virtq_device_flush(&device);
        for (uint16_t i = 0; i < 3; i++) {
            if (is_packed())
                expect_packed_used(i, i, 64, true);
            else
                expect_split_entry(i, i, 64);
        }
    }
}

/* The mock driver's end of a ring in order: how many buffers the device has completed, from
 * known[first] on, as the used entries say; fills in what they say of lengths. */
static struct {
    unsigned resolved; /* of known[] */
    uint16_t used_idx; /* split */
    uint32_t slot;     /* packed */
    bool wrap;
} reader;

static bool read_entry(uint32_t *id, uint32_t *len)
{
    uint16_t flags;

    if (!is_packed()) {
        *id = raw_used_id(&ring, reader.used_idx);
        *len = raw_used_len(&ring, reader.used_idx);
        return reader.used_idx != raw_used_idx(&ring);
    }
    flags = packed_flags(reader.slot);
    *id = packed_id(reader.slot);
    *len = flags & RAW_WRITE ? packed_len(reader.slot) : 0;
    return (flags & (RAWP_AVAIL | RAWP_USED)) == used_mark(reader.wrap);
}

static void reader_skip(const struct known *buffer)
{
    reader.used_idx++;
    for (uint16_t i = 0; i < buffer->count; i++)
        if (++reader.slot == ring.num) {
            reader.slot = 0;
            reader.wrap = !reader.wrap;
        }
}

/* Every buffer of the entries read was really written as the driver must take it to be. */
static void read_all(unsigned flushed)
{
    uint32_t id, len;

    while (reader.resolved != flushed) {
        const struct known *buffer = &known[reader.resolved];

        cr_assert(read_entry(&id, &len), "a completion is missing");
        for (; buffer->id != id; buffer++) {
            cr_assert_eq(buffer->written, buffer->writable, "skipped, but not full");
            reader_skip(buffer);
            cr_assert_lt(++reader.resolved, flushed, "id of no buffer that was flushed");
        }
        cr_assert_eq(buffer->written, len);
        reader_skip(buffer);
        reader.resolved++;
    }
    cr_assert_not(read_entry(&id, &len), "more than was flushed");
}

static void random_push(unsigned seq, uint32_t token)
{
    struct known *buffer = &known[seq];

    buffer->written = random_below(3) != 0 ? buffer->writable : random_below(buffer->writable + 1);
    if (buffer->written == buffer->writable && random_below(4) != 0)
        virtq_device_push_full(&device, token, buffer->written);
    else
        virtq_device_push(&device, token, buffer->written);
}

/* Offers the buffer `seq` where `used` slots of the ring are taken; returns how many it takes. */
static uint32_t random_offer(unsigned seq, uint32_t *next, uint32_t taken)
{
    uint32_t room = ring.num - taken, count = 1 + random_below(room < 3 ? room : 3u);

    known[seq].count = (uint16_t)count;
    known[seq].writable = 16 * count;
    known[seq].id = (uint16_t)(is_packed() ? ring.num - 1 - *next : *next);
    peer_offer(known[seq].id, count, 16);
    *next = (*next + count) % ring.num;
    return count;
}

static void random_device_run(uint16_t num, uint16_t flags)
{
    unsigned offered = 0, popped = 0, pushed = 0, freed = 0;
    uint32_t next = 0, taken = 0;
    static uint32_t tokens[32768];

    open_device(num, flags);
    memset(&reader, 0, sizeof(reader));
    reader.wrap = true;
    while (reader.resolved < 600) {
        switch (random_below(4)) {
        case 0:
            if (taken < ring.num)
                taken += random_offer(offered++, &next, taken);
            break;
        case 1:
            cr_assert_eq(virtq_device_pop(&device, &chain), popped != offered, "V-RES-04");
            if (popped == offered)
                break;
            cr_assert_eq(chain.writable, known[popped].count, "V-RES-04: in order");
            tokens[popped++] = chain.token;
            break;
        case 2:
            if (pushed != popped) {
                random_push(pushed, tokens[pushed]);
                pushed++;
            }
            break;
        default:
            virtq_device_flush(&device);
            read_all(pushed);
            for (; freed != reader.resolved; freed++)
                taken -= known[freed].count;
        }
    }
}

Test(in_order_device, random_batches_of_random_chains)
{
    /* V-RES-04, V-INO-01, V-INO-02, V-INO-03, T-77: in the order of availability, every buffer
     * once, and none skipped that was not filled */
    random_state = 2;
    EACH_FORMAT(format) {
        for (uint16_t num = 1; num <= 9; num++)
            if (legal_size(num, format))
                random_device_run(num, format | VIRTQ_IN_ORDER);
        random_device_run(64, format | VIRTQ_IN_ORDER);
    }
    random_device_run(100, VIRTQ_PACKED | VIRTQ_IN_ORDER);
}

/* A batch of `buffers` chains of `count` from `start` on: is an interrupt due with the event at
 * `event` slots or entries from there? */
static bool batch_irq(uint16_t num, uint16_t format, uint16_t start, uint32_t buffers,
                      uint32_t count, uint32_t event)
{
    open_device(num, (uint16_t)(format | VIRTQ_IN_ORDER | VIRTQ_EVENT_IDX));
    start_device_at(start);
    for (uint32_t i = 0; i < buffers; i++)
        peer_offer(i * count, count, 8);
    for (uint32_t i = 0; i < buffers; i++)
        virtq_device_push_full(&device, pop_token(), 8 * count);
    virtq_device_flush(&device);
    if (!is_packed()) {
        raw_set_used_event(&ring, (uint16_t)(start + event));
    } else {
        peer.slot = start & 0x7fff;
        peer.wrap = (start & PACKED_WRAP) != 0;
        peer_advance(event);
        packed_event(ring.avail, peer.slot, peer.wrap);
    }
    return virtq_device_irq_due(&device);
}

Test(in_order_device, split_event_in_the_middle_of_a_batch)
{
    /* V-INO-01, V-EVT-03: every entry of the batch counts as written, though one was */
    static const uint16_t starts[] = {0, 5, 65532, 65535};

    for (unsigned s = 0; s < 4; s++)
        for (uint16_t num = 1; num <= 8; num = (uint16_t)(num * 2))
            for (uint32_t buffers = 1; buffers <= num; buffers++)
                for (uint32_t event = 0; event < 2u * num; event++)
                    cr_assert_eq(batch_irq(num, 0, starts[s], buffers, 1, event), event < buffers);
}

Test(in_order_device, packed_event_in_the_middle_of_a_batch)
{
    /* V-INO-02, L-PEVT-03, T-69: every slot of the batch counts as passed */
    for (uint16_t num = 1; num <= 9; num++)
        for (uint32_t start = 0; start < 2u * num; start++)
            for (uint32_t count = 1; count <= 2; count++)
                for (uint32_t buffers = 1; buffers * count <= num; buffers++)
                    for (uint32_t event = 0; event < 2u * num; event++) {
                        uint32_t at = start % num | (start < num ? 0 : (uint32_t)PACKED_WRAP);

                        cr_assert_eq(
                            batch_irq(num, VIRTQ_PACKED, (uint16_t)at, buffers, count, event),
                            event < buffers * count);
                    }
}

Test(in_order_device, a_decision_covers_all_batches_since_the_last)
{
    /* V-EVT-03, L-PEVT-03, T-45: two flushes, one decision, the event in the first batch */
    EACH_FORMAT(format)
        for (uint32_t event = 0; event < 4; event++) {
            open_device(8, format | VIRTQ_IN_ORDER | VIRTQ_EVENT_IDX);
            for (uint32_t i = 0; i < 3; i++)
                peer_offer(i, 1, 8);
            virtq_device_push_full(&device, pop_token(), 8);
            virtq_device_push_full(&device, pop_token(), 8);
            virtq_device_flush(&device);
            virtq_device_push_full(&device, pop_token(), 8);
            virtq_device_flush(&device);
            if (is_packed())
                packed_event(ring.avail, event, true);
            else
                raw_set_used_event(&ring, (uint16_t)event);
            cr_assert_eq(virtq_device_irq_due(&device), event < 3);
            cr_assert_not(virtq_device_irq_due(&device));
        }
}

/* ---------------------------------------------------------------------------
 * Notification data
 * --------------------------------------------------------------------------- */
Test(notification_data, split_is_the_free_running_index)
{
    /* L-NOTE-02, T-78, T-80: all 16 bits of avail.idx, as published */
    static const uint16_t starts[] = {0, 7, 32764, 32767, 65530, 65535};

    for (unsigned s = 0; s < sizeof(starts) / sizeof(starts[0]); s++) {
        uint16_t at = starts[s];

        open_driver(8, 0);
        start_driver_at(at);
        for (unsigned round = 0; round < 6; round++) {
            uint16_t count = (uint16_t)(1 + round % 3);

            for (unsigned i = 0; i < count; i++)
                add_writable(8, i);
            cr_assert_eq(virtq_driver_notification_data(&driver), at, "nothing is published yet");
            virtq_driver_publish(&driver);
            at = (uint16_t)(at + count);
            cr_assert_eq(virtq_driver_notification_data(&driver), at);
            cr_assert_eq(raw_avail_idx(&ring), at);
            for (unsigned i = 0; i < count; i++) {
                peer_complete(1, 0);
                expect_taken(i, 0);
            }
        }
    }
}

Test(notification_data, packed_is_the_next_slot_and_its_wrap_counter)
{
    /* L-NOTE-03, D-NOTE-03, T-80: sizes 1 to 9, from every slot, lists of every length: where the
     * following buffer will be, not where the last one is; a list may end at or across the end */
    for (uint16_t num = 1; num <= 9; num++)
        for (uint32_t start = 0; start < 2u * num; start++)
            for (uint16_t count = 1; count <= num; count++) {
                uint16_t at = (uint16_t)(start % num | (start < num ? 0 : (uint32_t)PACKED_WRAP));

                open_driver(num, VIRTQ_PACKED);
                start_driver_at(at);
                cr_assert_eq(virtq_driver_notification_data(&driver), at);
                add_chain(0, count, 0);
                cr_assert_eq(virtq_driver_notification_data(&driver), at, "not published yet");
                virtq_driver_publish(&driver);
                peer_advance(count);
                cr_assert_eq(virtq_driver_notification_data(&driver), peer_position());
            }
}

Test(notification_data, packed_batch_of_several_lists)
{
    /* D-NOTE-03: behind all that was published at once */
    open_driver(5, VIRTQ_PACKED);
    cr_assert_eq(virtq_driver_notification_data(&driver), PACKED_WRAP, "slot 0, wrap counter 1");
    add_chain(1, 1, 0);
    add_writable(8, 1);
    virtq_driver_publish(&driver);
    cr_assert_eq(virtq_driver_notification_data(&driver), PACKED_WRAP | 3);
    peer_complete(1, 0);
    expect_taken(0, 0);
    add_chain(1, 2, 2);
    add_writable(8, 3);
    virtq_driver_publish(&driver);
    cr_assert_eq(virtq_driver_notification_data(&driver), 2, "the other lap");
}

/* ---------------------------------------------------------------------------
 * A register model: PCI common configuration and virtio-mmio
 * --------------------------------------------------------------------------- */
enum {
    QUEUES = 3,
    BAR_BASE = 0x40000, /* of the window: register offsets are added to it */
    ISR_AT = 0x400,
    NOTIFY_AT = 0x800,
    BAR_LENGTH = 0x1000,
    MULTIPLIER = 4,
    DMA = 0x100000, /* device address of `dma` */
    MOST = 16       /* largest queue size of the model */
};

enum model_register {
    REG_NONE,
    REG_MAGIC,
    REG_VERSION,
    REG_DEVICE_ID,
    REG_FEATURE_SELECT,
    REG_FEATURE,
    REG_DRIVER_SELECT,
    REG_DRIVER_FEATURE,
    REG_NUM_QUEUES,
    REG_STATUS,
    REG_SELECT,
    REG_SIZE_MAX,
    REG_SIZE,
    REG_ENABLE,
    REG_NOTIFY_OFF,
    REG_CONFIG_DATA,
    REG_RESET,
    REG_KICK,
    REG_DESC /* six halves of addresses from here on */
};

struct model_place {
    uint16_t offset;
    uint8_t width;
    uint8_t reg;
};

/* VIRTIO 4.1.4.3. */
static const struct model_place pci_places[] = {
    {0, 4, REG_FEATURE_SELECT},  {4, 4, REG_FEATURE},      {8, 4, REG_DRIVER_SELECT},
    {12, 4, REG_DRIVER_FEATURE}, {18, 2, REG_NUM_QUEUES},  {20, 1, REG_STATUS},
    {22, 2, REG_SELECT},         {24, 2, REG_SIZE},        {28, 2, REG_ENABLE},
    {30, 2, REG_NOTIFY_OFF},     {32, 4, REG_DESC},        {36, 4, REG_DESC + 1},
    {40, 4, REG_DESC + 2},       {44, 4, REG_DESC + 3},    {48, 4, REG_DESC + 4},
    {52, 4, REG_DESC + 5},       {56, 2, REG_CONFIG_DATA}, {58, 2, REG_RESET},
};

/* VIRTIO 4.2.2. */
static const struct model_place mmio_places[] = {
    {0x000, 4, REG_MAGIC},         {0x004, 4, REG_VERSION},        {0x008, 4, REG_DEVICE_ID},
    {0x010, 4, REG_FEATURE},       {0x014, 4, REG_FEATURE_SELECT}, {0x020, 4, REG_DRIVER_FEATURE},
    {0x024, 4, REG_DRIVER_SELECT}, {0x030, 4, REG_SELECT},         {0x034, 4, REG_SIZE_MAX},
    {0x038, 4, REG_SIZE},          {0x044, 4, REG_ENABLE},         {0x050, 4, REG_KICK},
    {0x070, 4, REG_STATUS},        {0x080, 4, REG_DESC},           {0x084, 4, REG_DESC + 1},
    {0x090, 4, REG_DESC + 2},      {0x094, 4, REG_DESC + 3},       {0x0a0, 4, REG_DESC + 4},
    {0x0a4, 4, REG_DESC + 5},      {0x0c0, 4, REG_RESET},
};

struct model_queue {
    uint32_t size, enabled, notify_off, config_data;
    uint32_t half[6]; /* of the three addresses */
    bool resetting;
    unsigned reset_looks, stop_looks;
};

static struct {
    bool mmio;
    uint32_t common_length; /* of the PCI structure */
    uint32_t notify_length, multiplier;
    uint64_t offered, accepted;
    uint32_t feature_select, driver_select, select;
    uint32_t status;
    struct model_queue queue[QUEUES];
    unsigned reset_looks; /* reads for which a queue reset says that it goes on, ... */
    unsigned stop_looks;  /* ... and then for which the queue still says that it is enabled */
    bool stops_at_once;   /* the queue says that it is not enabled while the reset goes on */
    unsigned accesses, kicks, resets;
    unsigned faults; /* accesses that no driver may make */
    uint64_t kick_at;
    unsigned kick_width;
    uint32_t kick_value;
} model;

static struct virtio_drv drv;
static struct virtio_drv_queue queue[QUEUES];
static struct virtq_slot queue_slots[QUEUES][MOST];
enum { DMA_BYTES = VIRTIO_QUEUE_BYTES(MOST) /* of one queue */ };
static _Alignas(64) uint8_t dma[QUEUES * DMA_BYTES];
static unsigned relaxed, relax_limit;

static uint32_t model_find(uint64_t offset, unsigned width)
{
    const struct model_place *at = model.mmio ? mmio_places : pci_places;
    size_t count = model.mmio ? sizeof(mmio_places) / sizeof(mmio_places[0])
                              : sizeof(pci_places) / sizeof(pci_places[0]);

    model.accesses++;
    for (size_t i = 0; i < count; i++)
        if (at[i].offset == offset && at[i].width == width &&
            (model.mmio || offset + width <= model.common_length))
            return at[i].reg;
    model.faults++;
    return REG_NONE;
}

static void model_queue_stop(struct model_queue *q)
{
    q->size = MOST;
    q->enabled = 0;
    memset(q->half, 0, sizeof(q->half));
    q->resetting = false;
}

static uint32_t model_reset_read(struct model_queue *q)
{
    if (!q->resetting || q->reset_looks == 0)
        return 0;
    q->reset_looks--;
    return 1;
}

static uint32_t model_enable_read(struct model_queue *q)
{
    if (!q->resetting)
        return q->enabled;
    if (q->reset_looks != 0)
        return !model.stops_at_once;
    if (q->stop_looks != 0) {
        q->stop_looks--;
        return 1;
    }
    model_queue_stop(q);
    return 0;
}

static uint32_t model_read(void *ctx, uintptr_t address, unsigned width)
{
    struct model_queue *q = &model.queue[model.select % QUEUES];
    uint32_t reg = model_find(address - BAR_BASE, width);

    cr_assert_eq(ctx, &model);
    switch (reg) {
    case REG_MAGIC: return 0x74726976;
    case REG_VERSION: return 2;
    case REG_DEVICE_ID: return 4;
    case REG_FEATURE:
        return model.feature_select < 2 ? (uint32_t)(model.offered >> 32 * model.feature_select)
                                        : 0;
    case REG_NUM_QUEUES: return QUEUES;
    case REG_STATUS: return model.status;
    case REG_SIZE: return q->size;
    case REG_SIZE_MAX: return MOST;
    case REG_ENABLE: return model_enable_read(q);
    case REG_NOTIFY_OFF: return q->notify_off;
    case REG_CONFIG_DATA: return q->config_data;
    case REG_RESET: return model_reset_read(q);
    default: return 0;
    }
}

static void model_kick(uint64_t at, unsigned width, uint32_t value)
{
    model.kicks++;
    model.kick_at = at;
    model.kick_width = width;
    model.kick_value = value;
}

static void model_reset_write(struct model_queue *q, uint32_t value)
{
    bool agreed = model.accepted >> VIRTIO_FEATURE_RING_RESET & 1;

    model.faults += value != 1 || !agreed || !q->enabled || q->resetting;
    model.resets++;
    q->resetting = true;
    q->reset_looks = model.reset_looks;
    q->stop_looks = model.stop_looks;
}

static void model_queue_write(struct model_queue *q, uint32_t reg, uint32_t value)
{
    if (reg == REG_RESET) {
        model_reset_write(q, value);
        return;
    }
    model.faults += q->enabled || q->resetting; /* all other fields before enable (D-COM-03) */
    if (reg == REG_SIZE) {
        q->size = value;
    } else if (reg == REG_ENABLE) {
        model.faults += value != 1; /* D-COM-04 */
        q->enabled = value;
    } else {
        q->half[reg - REG_DESC] = value;
    }
}

static void model_write(void *ctx, uintptr_t address, unsigned width, uint32_t value)
{
    uint64_t offset = address - BAR_BASE;
    uint32_t reg;

    cr_assert_eq(ctx, &model);
    if (!model.mmio && offset >= NOTIFY_AT) {
        model_kick(offset - NOTIFY_AT, width, value);
        return;
    }
    reg = model_find(offset, width);
    switch (reg) {
    case REG_FEATURE_SELECT: model.feature_select = value; break;
    case REG_DRIVER_SELECT: model.driver_select = value; break;
    case REG_DRIVER_FEATURE:
        model.accepted |= model.driver_select < 2 ? (uint64_t)value << 32 * model.driver_select : 0;
        break;
    case REG_STATUS: model.status = value; break;
    case REG_SELECT: model.select = value; break;
    case REG_KICK: model_kick(offset, width, value); break;
    case REG_SIZE:
    case REG_ENABLE:
    case REG_RESET: model_queue_write(&model.queue[model.select % QUEUES], reg, value); break;
    default:
        if (reg >= REG_DESC)
            model_queue_write(&model.queue[model.select % QUEUES], reg, value);
        else
            model.faults++; /* read-only (D-COM-01) */
    }
}

static struct virtio_window model_window(uint32_t length)
{
    static const struct virtio_window_ops ops = {model_read, model_write};
    struct virtio_window w;

    memset(&w, 0, sizeof(w));
    w.base = BAR_BASE;
    w.length = length;
    w.kind = VIRTIO_WINDOW_CALLER;
    w.ops = &ops;
    w.ctx = &model;
    return w;
}

static uint64_t bit(unsigned feature)
{
    return UINT64_C(1) << feature;
}

static void model_power_on(bool mmio, uint64_t offered)
{
    memset(&model, 0, sizeof(model));
    memset(&drv, 0, sizeof(drv));
    memset(dma, 0, sizeof(dma));
    model.mmio = mmio;
    model.common_length = 64;
    model.notify_length = MULTIPLIER * QUEUES;
    model.multiplier = MULTIPLIER;
    model.offered = offered | bit(VIRTIO_FEATURE_VERSION_1);
    for (uint32_t i = 0; i < QUEUES; i++) {
        model.queue[i].size = MOST;
        model.queue[i].notify_off = QUEUES - 1 - i;
        model.queue[i].config_data = 0x5a00 + i;
    }
}

static struct virtio_pci_place place_of(uint32_t offset, uint32_t length)
{
    struct virtio_pci_place place;

    memset(&place, 0, sizeof(place));
    place.found = VIRTIO_PCI_MODERN;
    place.offset = offset;
    place.length = length;
    return place;
}

static int attach(void)
{
    struct virtio_window bars[6], w = model_window(BAR_LENGTH);
    struct virtio_pci_layout layout;

    if (model.mmio)
        return virtio_drv_mmio(&drv, &w);
    memset(bars, 0, sizeof(bars));
    memset(&layout, 0, sizeof(layout));
    bars[0] = w;
    layout.generation = VIRTIO_PCI_MODERN;
    layout.notify_multiplier = model.multiplier;
    layout.place[VIRTIO_PCI_STRUCT_COMMON] = place_of(0, model.common_length);
    layout.place[VIRTIO_PCI_STRUCT_ISR] = place_of(ISR_AT, 1);
    layout.place[VIRTIO_PCI_STRUCT_NOTIFY] = place_of(NOTIFY_AT, model.notify_length);
    return virtio_drv_pci(&drv, &layout, bars);
}

/* Attaches to the model and accepts every feature of the ring that it offers. */
static void negotiate(void)
{
    struct virtio_features wanted, none;

    memset(&wanted, 0, sizeof(wanted));
    memset(&none, 0, sizeof(none));
    virtio_features_add_ring(&wanted);
    cr_assert_eq(attach(), 0);
    cr_assert_eq(virtio_drv_begin(&drv), 0);
    cr_assert_eq(virtio_drv_negotiate(&drv, &wanted, &none), 0);
}

static int set_up(uint16_t index, uint16_t num)
{
    struct virtio_queue_setup setup;

    setup.num = num;
    setup.memory.cpu = dma + (size_t)DMA_BYTES * index;
    setup.memory.device = DMA + (uint64_t)DMA_BYTES * index;
    setup.memory.length = DMA_BYTES;
    setup.slots = queue_slots[index];
    return virtio_drv_queue_setup(&drv, &queue[index], index, &setup);
}

static void start_model(bool mmio, uint64_t offered)
{
    model_power_on(mmio, offered);
    negotiate();
    for (uint16_t i = 0; i < QUEUES; i++)
        cr_assert_eq(set_up(i, 8), 0);
    virtio_drv_ready(&drv);
    cr_assert_eq(model.faults, 0);
}

/* The ring that the queue's registers name, for the mock device. */
static uint8_t *dma_at(const struct model_queue *q, unsigned area)
{
    uint64_t at = q->half[2 * area] | (uint64_t)q->half[2 * area + 1] << 32;

    cr_assert(at >= DMA && at - DMA < sizeof(dma));
    return dma + (size_t)(at - DMA);
}

static void queue_publish(unsigned index, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(virtq_driver_add_writable(&queue[index].ring, seg_of(0x1000, 64),
                                               &cookies[16 * index + i]),
                     0);
    virtq_driver_publish(&queue[index].ring);
}

/* Completes `count` buffers of one descriptor each from `from` on as the device, in ring order. */
static void queue_complete(unsigned index, unsigned from, unsigned count)
{
    const struct model_queue *q = &model.queue[index];
    struct raw_ring at;
    uint8_t *desc = dma_at(q, 0);

    at.desc = desc;
    at.avail = dma_at(q, 1);
    at.used = dma_at(q, 2);
    at.num = q->size;
    at.big = false;
    for (unsigned i = from; i < from + count; i++) {
        if (!(model.accepted >> VIRTIO_FEATURE_RING_PACKED & 1))
            raw_complete(&at, raw_avail_slot(&at, (uint16_t)i), 8);
        else
            raw_put(&at, desc + 16 * (i % q->size) + 14, 2,
                    used_mark(i / q->size % 2 == 0)); /* id stays; no WRITE: written 0 */
    }
}

static void queue_expect(unsigned index, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        cr_assert_eq(virtq_driver_take(&queue[index].ring, &done), 1);
        cr_assert_eq(done.cookie, &cookies[16 * index + i]);
    }
    cr_assert_eq(virtq_driver_take(&queue[index].ring, &done), 0);
}

#define EACH_TRANSPORT(mmio) for (int mmio = 0; mmio < 2; mmio++)

/* ---------------------------------------------------------------------------
 * Kicks
 * --------------------------------------------------------------------------- */
/* Kicks each queue after publishing 3, and after 2 more. */
static void check_kick(bool mmio, uint64_t features)
{
    bool data = (features & bit(VIRTIO_FEATURE_NOTIFICATION_DATA)) != 0;
    bool packed = (features & bit(VIRTIO_FEATURE_RING_PACKED)) != 0;
    bool own = (features & bit(VIRTIO_FEATURE_NOTIF_CONFIG_DATA)) != 0 && !mmio;

    start_model(mmio, features);
    for (unsigned i = 0; i < QUEUES; i++)
        for (unsigned round = 0; round < 2; round++) {
            uint32_t low = own ? 0x5a00 + i : i, at = round == 0 ? 3 : 5;
            uint32_t position = packed ? (uint32_t)PACKED_WRAP | at : at;
            unsigned before = model.kicks;

            queue_publish(i, round == 0 ? 3 : 2);
            virtio_drv_kick(&queue[i]);
            cr_assert_eq(model.kicks, before + 1);
            cr_assert_eq(model.kick_at, mmio ? 0x50 : MULTIPLIER * (QUEUES - 1 - i));
            cr_assert_eq(model.kick_width, mmio || data ? 4 : 2);
            cr_assert_eq(model.kick_value, data ? position << 16 | low : low);
        }
    cr_assert_eq(model.faults, 0);
}

Test(kick, every_combination_of_features_over_both_transports)
{
    /* L-NOTE-01, D-NOTE-01, D-NOTE-02, L-NOTE-04, T-03, T-79: PCI writes 16 bits without and 32
     * with NOTIFICATION_DATA, mmio always 32; the low half is queue_notif_config_data on PCI
     * alone */
    EACH_TRANSPORT(mmio)
        for (unsigned set = 0; set < 8; set++)
            check_kick(mmio != 0, (set & 1 ? bit(VIRTIO_FEATURE_NOTIFICATION_DATA) : 0) |
                                      (set & 2 ? bit(VIRTIO_FEATURE_NOTIF_CONFIG_DATA) : 0) |
                                      (set & 4 ? bit(VIRTIO_FEATURE_RING_PACKED) : 0));
}

Test(kick, packed_position_of_the_other_lap)
{
    /* D-NOTE-03, L-NOTE-03 over PCI */
    start_model(false, bit(VIRTIO_FEATURE_NOTIFICATION_DATA) | bit(VIRTIO_FEATURE_RING_PACKED));
    queue_publish(1, 8);
    virtio_drv_kick(&queue[1]);
    cr_assert_eq(model.kick_value, 1, "slot 0 of the lap with wrap counter 0");
    queue_complete(1, 0, 8);
    queue_expect(1, 8);
    queue_publish(1, 5);
    virtio_drv_kick(&queue[1]);
    cr_assert_eq(model.kick_value, 5u << 16 | 1);
}

Test(kick, send_is_unconditional_and_takes_the_position_given)
{
    /* L-NOTE-01: a position that is not negotiated is not sent */
    EACH_TRANSPORT(mmio) {
        start_model(mmio != 0, 0);
        virtio_notify_send(&queue[2].notify, 0xabcd);
        cr_assert_eq(model.kicks, 1);
        cr_assert_eq(model.kick_value, 2);
        start_model(mmio != 0, bit(VIRTIO_FEATURE_NOTIFICATION_DATA));
        virtio_notify_send(&queue[2].notify, 0xabcd);
        cr_assert_eq(model.kick_value, 0xabcd0002);
    }
}

Test(kick, a_suppressed_kick_writes_nothing)
{
    /* D-EVT-02, D-NOTE-01 */
    EACH_TRANSPORT(mmio) {
        start_model(mmio != 0, bit(VIRTIO_FEATURE_NOTIFICATION_DATA));
        dma_at(&model.queue[0], 2)[0] = 1; /* used.flags: no kicks */
        queue_publish(0, 3);
        virtio_drv_kick(&queue[0]);
        cr_assert_eq(model.kicks, 0);
    }
}

Test(kick, the_register_lies_inside_the_notification_structure)
{
    /* D-NTF-01, V-NTF-02 with NOTIFICATION_DATA: 4 bytes, aligned to 4 */
    static const struct {
        uint32_t off, length;
        int wide, narrow; /* expected with NOTIFICATION_DATA and without */
    } cases[] = {
        {0, 2, VIRTIO_ERR_NOTIFY, 0},
        {0, 3, VIRTIO_ERR_NOTIFY, 0},
        {0, 4, 0, 0},
        {1, 4, VIRTIO_ERR_NOTIFY, 0},
        {1, 6, VIRTIO_ERR_NOTIFY, 0},
        {1, 64, VIRTIO_ERR_NOTIFY, 0},
        {2, 6, VIRTIO_ERR_NOTIFY, 0},
        {2, 7, VIRTIO_ERR_NOTIFY, 0},
        {2, 8, 0, 0},
        {3, 6, VIRTIO_ERR_NOTIFY, VIRTIO_ERR_NOTIFY},
        {0xffff, 64, VIRTIO_ERR_NOTIFY, VIRTIO_ERR_NOTIFY},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int wide = 0; wide < 2; wide++) {
            model_power_on(false, wide ? bit(VIRTIO_FEATURE_NOTIFICATION_DATA) : 0);
            model.notify_length = cases[i].length;
            model.multiplier = 2;
            model.queue[1].notify_off = cases[i].off;
            negotiate();
            cr_assert_eq(set_up(1, 8), wide ? cases[i].wide : cases[i].narrow, "case %u", i);
            cr_assert_eq(model.queue[1].enabled, model.queue[1].half[0] != 0);
            cr_assert_eq(model.faults, 0);
        }
}

Test(kick, features_of_registers_that_are_not_there_are_declined)
{
    /* D-COM-06, D-RR-04: nothing past the structure's end is touched, nor accepted */
    for (uint32_t length = 56; length <= 64; length++) {
        uint64_t both = bit(VIRTIO_FEATURE_NOTIF_CONFIG_DATA) | bit(VIRTIO_FEATURE_RING_RESET);

        model_power_on(false, both | bit(VIRTIO_FEATURE_NOTIFICATION_DATA));
        model.common_length = length;
        negotiate();
        cr_assert_eq(set_up(1, 8), 0);
        cr_assert_eq(model.accepted >> VIRTIO_FEATURE_NOTIF_CONFIG_DATA & 1, length >= 58);
        cr_assert_eq(model.accepted >> VIRTIO_FEATURE_RING_RESET & 1, length >= 60);
        cr_assert_eq(model.accepted >> VIRTIO_FEATURE_NOTIFICATION_DATA & 1, 1);
        queue_publish(1, 2);
        virtio_drv_kick(&queue[1]);
        cr_assert_eq(model.kick_value, 2u << 16 | (length >= 58 ? 0x5a01u : 1u));
        cr_assert_eq(virtio_drv_queue_reset(&drv, &queue[1]),
                     length >= 60 ? 0 : VIRTIO_ERR_NO_RESET);
        cr_assert_eq(model.faults, 0, "length %u", length);
    }
}

Test(kick, mmio_has_no_register_for_config_data)
{
    /* L-NOTE-04: declined, whoever offers it */
    start_model(true, bit(VIRTIO_FEATURE_NOTIF_CONFIG_DATA) | bit(VIRTIO_FEATURE_RING_RESET));
    cr_assert_eq(model.accepted >> VIRTIO_FEATURE_NOTIF_CONFIG_DATA & 1, 0);
    cr_assert_eq(model.accepted >> VIRTIO_FEATURE_RING_RESET & 1, 1);
}

Test(features, each_property_of_a_ring_is_one_feature)
{
    /* L-FEAT-01: both ways, and no other feature is one; VERSION_1 is the absence of LEGACY */
    static const struct {
        unsigned feature;
        uint16_t flag;
    } same[] = {{VIRTIO_FEATURE_NOTIFY_ON_EMPTY, VIRTQ_NOTIFY_ON_EMPTY},
                {VIRTIO_FEATURE_INDIRECT_DESC, VIRTQ_INDIRECT},
                {VIRTIO_FEATURE_EVENT_IDX, VIRTQ_EVENT_IDX},
                {VIRTIO_FEATURE_RING_PACKED, VIRTQ_PACKED},
                {VIRTIO_FEATURE_IN_ORDER, VIRTQ_IN_ORDER},
                {VIRTIO_FEATURE_ORDER_PLATFORM, VIRTQ_ORDER_PLATFORM}};

    for (unsigned number = 0; number < 128; number++) {
        struct virtio_features set = {{0, 0, 0, 0}};
        uint16_t flags = number == VIRTIO_FEATURE_VERSION_1 ? 0 : VIRTQ_LEGACY;

        virtio_features_add(&set, number);
        for (unsigned i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
            uint32_t bits = virtio_ring_bits_(number / 32, same[i].flag);

            if (same[i].feature == number)
                flags |= same[i].flag;
            cr_assert_eq(bits >> number % 32 & 1, same[i].feature == number);
        }
        cr_assert_eq(virtio_features_ring_flags(&set), flags, "feature %u", number);
    }
}

Test(features, order_platform_is_accepted_and_reaches_the_ring)
{
    /* D-RES-04, D-RES-01 */
    EACH_TRANSPORT(mmio) {
        start_model(mmio != 0, bit(VIRTIO_FEATURE_ORDER_PLATFORM));
        cr_assert_eq(model.accepted >> VIRTIO_FEATURE_ORDER_PLATFORM & 1, 1);
        cr_assert_eq(virtio_features_ring_flags(&drv.accepted), VIRTQ_ORDER_PLATFORM);
        start_model(mmio != 0, bit(VIRTIO_FEATURE_RING_PACKED) | bit(VIRTIO_FEATURE_IN_ORDER));
        cr_assert_eq(virtio_features_ring_flags(&drv.accepted), VIRTQ_PACKED | VIRTQ_IN_ORDER);
    }
}

/* ---------------------------------------------------------------------------
 * Queue reset
 * --------------------------------------------------------------------------- */
static bool relax(void *ctx)
{
    cr_assert_eq(ctx, &relaxed);
    cr_assert_lt(relaxed, relax_limit, "asked again after the answer was no");
    return ++relaxed < relax_limit;
}

static void start_resettable(bool mmio, uint64_t features)
{
    start_model(mmio, features | bit(VIRTIO_FEATURE_RING_RESET));
    drv.relax = relax;
    drv.relax_ctx = &relaxed;
    relaxed = 0;
    relax_limit = 1000;
    (void)virtio_drv_queue_size(&drv, 0); /* selects a queue that is not the one to be reset */
}

Test(queue_reset, waits_until_the_register_reads_0_and_the_queue_is_not_enabled)
{
    /* D-RR-01, V-RR-02, T-40: both, whichever takes longer */
    static const unsigned looks[][2] = {{0, 0}, {1, 0}, {7, 0}, {0, 1}, {0, 7}, {3, 4}};

    EACH_TRANSPORT(mmio)
        for (unsigned i = 0; i < sizeof(looks) / sizeof(looks[0]); i++)
            for (int at_once = 0; at_once < 2; at_once++) {
                start_resettable(mmio != 0, 0);
                model.reset_looks = looks[i][0];
                model.stop_looks = looks[i][1];
                model.stops_at_once = at_once != 0;
                cr_assert_eq(virtio_drv_queue_reset(&drv, &queue[1]), 0);
                cr_assert_eq(model.resets, 1);
                cr_assert_eq(model.faults, 0);
                cr_assert_not(model.queue[1].resetting, "over, and seen to be over");
                cr_assert_eq(relaxed, looks[i][0] + looks[i][1]);
            }
}

Test(queue_reset, the_wait_is_bounded)
{
    /* D-RR-01: VIRTIO_ERR_TIMEOUT as soon as the relax hook says so */
    EACH_TRANSPORT(mmio)
        for (int stuck = 0; stuck < 2; stuck++) {
            start_resettable(mmio != 0, 0);
            model.reset_looks = stuck ? 0 : UINT32_MAX;
            model.stop_looks = stuck ? UINT32_MAX : 0;
            model.stops_at_once = true;
            relax_limit = 20;
            cr_assert_eq(virtio_drv_queue_reset(&drv, &queue[1]), VIRTIO_ERR_TIMEOUT);
            cr_assert_eq(relaxed, 20);
            cr_assert_eq(model.faults, 0);
        }
}

Test(queue_reset, needs_the_feature)
{
    /* D-RR-04 */
    EACH_TRANSPORT(mmio) {
        unsigned before;

        start_model(mmio != 0, 0);
        before = model.accesses;
        cr_assert_eq(virtio_drv_queue_reset(&drv, &queue[1]), VIRTIO_ERR_NO_RESET);
        cr_assert_eq(model.accesses, before);
    }
}

Test(queue_reset, legacy_has_none)
{
    /* D-RR-04: even if a feature word says otherwise */
    struct virtio_window bars[6];
    struct virtio_pci_layout layout;

    model_power_on(false, 0);
    memset(queue, 0, sizeof(queue));
    memset(bars, 0, sizeof(bars));
    bars[0] = model_window(BAR_LENGTH);
    memset(&layout, 0, sizeof(layout));
    layout.generation = VIRTIO_PCI_LEGACY;
    layout.legacy = true;
    layout.legacy_length = BAR_LENGTH;
    cr_assert_eq(virtio_drv_pci(&drv, &layout, bars), 0);
    cr_assert_eq(virtio_drv_queue_reset(&drv, &queue[1]), VIRTIO_ERR_NO_RESET);
    virtio_features_add(&drv.accepted, VIRTIO_FEATURE_RING_RESET);
    cr_assert_eq(virtio_drv_queue_reset(&drv, &queue[1]), VIRTIO_ERR_NO_RESET);
    cr_assert_eq(model.accesses, 0);
}

/* Takes everything back from a queue that was reset: cookies `first` to `end`, each once. */
static void queue_detach(unsigned index, unsigned first, unsigned end)
{
    bool seen[MOST];
    uint16_t at = 0;
    void *cookie;

    memset(seen, 0, sizeof(seen));
    for (unsigned i = first; i < end; i++) {
        unsigned which;

        cr_assert(virtq_driver_detach(&queue[index].ring, &at, &cookie));
        which = (unsigned)((char *)cookie - cookies) - 16 * index;
        cr_assert(which >= first && which < end && !seen[which]);
        seen[which] = true;
    }
    cr_assert_not(virtq_driver_detach(&queue[index].ring, &at, &cookie));
}

static void check_reuse(bool mmio, uint64_t features, uint16_t num)
{
    struct model_queue others[2];

    start_resettable(mmio, features);
    for (unsigned i = 0; i < QUEUES; i++)
        queue_publish(i, 5);
    queue_complete(1, 0, 2);
    cr_assert_eq(virtq_driver_take(&queue[1].ring, &done), 1);
    others[0] = model.queue[0];
    others[1] = model.queue[2];
    model.reset_looks = 3;
    cr_assert_eq(virtio_drv_queue_reset(&drv, &queue[1]), 0);
    queue_detach(1, 1, 5);
    cr_assert_eq(set_up(1, num), 0);
    cr_assert_eq(model.queue[1].size, num);
    cr_assert_eq(virtq_driver_free_count(&queue[1].ring), num);
    cr_assert_eq(memcmp(&others[0], &model.queue[0], sizeof(others[0])), 0);
    cr_assert_eq(memcmp(&others[1], &model.queue[2], sizeof(others[1])), 0);
    for (unsigned lap = 0; lap < 3; lap++) {
        queue_publish(1, num);
        queue_complete(1, lap * num, num);
        queue_expect(1, num);
    }
    queue_complete(0, 0, 5);
    queue_expect(0, 5);
    queue_complete(2, 0, 5);
    queue_expect(2, 5);
    cr_assert_eq(model.faults, 0);
}

Test(queue_reset, the_queue_is_set_up_again_with_another_size)
{
    /* D-RR-02, D-RR-03, V-RR-01, V-RR-04: buffers come back by detach, the ring starts from 0, the
     * kick is resolved again; the other queues do not notice */
    EACH_TRANSPORT(mmio) {
        uint64_t packed = bit(VIRTIO_FEATURE_RING_PACKED);

        check_reuse(mmio != 0, 0, 4);
        check_reuse(mmio != 0, 0, 16);
        check_reuse(mmio != 0, packed, 3);
        check_reuse(mmio != 0, packed, 16);
    }
}

Test(queue_reset, the_kick_target_is_resolved_again)
{
    /* D-RR-03: notify offset and config data may differ after the reset */
    start_resettable(false, bit(VIRTIO_FEATURE_NOTIF_CONFIG_DATA));
    cr_assert_eq(virtio_drv_queue_reset(&drv, &queue[1]), 0);
    model.queue[1].notify_off = 0;
    model.queue[1].config_data = 0x7777;
    cr_assert_eq(set_up(1, 8), 0);
    queue_publish(1, 1);
    virtio_drv_kick(&queue[1]);
    cr_assert_eq(model.kick_at, 0);
    cr_assert_eq(model.kick_value, 0x7777);
}

Test(queue_reset, a_queue_that_is_still_enabled_is_not_set_up)
{
    /* D-RR-01, T-40 */
    EACH_TRANSPORT(mmio) {
        start_resettable(mmio != 0, 0);
        cr_assert_eq(set_up(1, 4), VIRTIO_ERR_QUEUE_BUSY);
        cr_assert_eq(virtio_drv_queue_reset(&drv, &queue[1]), 0);
        cr_assert_eq(set_up(1, 4), 0);
        cr_assert_eq(set_up(1, 4), VIRTIO_ERR_QUEUE_BUSY);
    }
}

/* ---------------------------------------------------------------------------
 * Legacy
 * --------------------------------------------------------------------------- */
/* `offered` buffers, of which `popped` were popped and `pushed` completed. */
static void open_for_empty(uint16_t flags, unsigned offered, unsigned popped, unsigned pushed)
{
    uint32_t tokens[8];

    open_device(8, (uint16_t)(flags | VIRTQ_LEGACY));
    for (uint32_t i = 0; i < offered; i++)
        peer_offer(i, 1, 64);
    for (uint32_t i = 0; i < popped; i++)
        tokens[i] = pop_token();
    for (uint32_t i = 0; i < pushed; i++)
        virtq_device_push(&device, tokens[i], 1);
    virtq_device_flush(&device);
    if (flags & VIRTQ_EVENT_IDX)
        raw_set_used_event(&ring, 0x4000); /* far away */
    else
        raw_set_avail_flags(&ring, 1);
}

Test(notify_on_empty, interrupts_when_nothing_is_available_any_more)
{
    /* V-LEG-08: even if suppressed, by flag or by event */
    EACH_EVENT_MODE(event) {
        open_for_empty(event | VIRTQ_NOTIFY_ON_EMPTY, 1, 1, 1);
        cr_assert(virtq_device_irq_due(&device));
        cr_assert_not(virtq_device_irq_due(&device), "once for what was used");
        open_for_empty(event | VIRTQ_NOTIFY_ON_EMPTY, 5, 5, 2);
        cr_assert(virtq_device_irq_due(&device), "those in flight are not available");
        open_for_empty(event, 5, 5, 5);
        cr_assert_not(virtq_device_irq_due(&device), "not negotiated");
    }
}

Test(notify_on_empty, not_while_something_is_available)
{
    /* V-LEG-08: seen or not yet seen by the device side */
    EACH_EVENT_MODE(event) {
        open_for_empty(event | VIRTQ_NOTIFY_ON_EMPTY, 3, 2, 2);
        cr_assert_not(virtq_device_irq_due(&device));
        open_for_empty(event | VIRTQ_NOTIFY_ON_EMPTY, 3, 3, 3);
        peer_offer(4, 1, 64);
        cr_assert_not(virtq_device_irq_due(&device), "came after the last pop");
    }
}

Test(notify_on_empty, not_if_nothing_was_used)
{
    /* V-LEG-08 */
    EACH_EVENT_MODE(event) {
        open_for_empty(event | VIRTQ_NOTIFY_ON_EMPTY, 0, 0, 0);
        cr_assert_not(virtq_device_irq_due(&device));
        open_for_empty(event | VIRTQ_NOTIFY_ON_EMPTY, 3, 3, 0);
        cr_assert_not(virtq_device_irq_due(&device));
    }
}

Test(notify_on_empty, adds_to_the_ordinary_decision)
{
    /* V-LEG-08, V-EVT-01, V-EVT-03: what is not suppressed is still told */
    open_for_empty(VIRTQ_NOTIFY_ON_EMPTY, 3, 2, 2);
    raw_set_avail_flags(&ring, 0);
    cr_assert(virtq_device_irq_due(&device));
    open_for_empty(VIRTQ_EVENT_IDX | VIRTQ_NOTIFY_ON_EMPTY, 3, 2, 2);
    raw_set_used_event(&ring, 1);
    cr_assert(virtq_device_irq_due(&device));
}

static uint32_t round_up(uint32_t bytes, uint32_t align)
{
    while (bytes % align != 0)
        bytes++;
    return bytes;
}

Test(legacy_layout, one_contiguous_piece_at_every_alignment)
{
    /* L-LEG-03, T-01: used_event counts though EVENT_IDX is off; align is the alignment itself, and
     * not that minus 1 */
    for (uint32_t num = 1; num <= 32768; num *= 2)
        for (uint32_t align = 4; align <= 65536; align *= 2) {
            struct virtq_offsets at = virtq_area_offsets((uint16_t)num, align, VIRTQ_LEGACY);
            uint32_t used = round_up(16 * num + 2 * (3 + num), align);

            cr_assert_eq(at.driver, 16 * num);
            cr_assert_eq(at.device, used);
            cr_assert_eq(at.total, used + round_up(6 + 8 * num, align));
            cr_assert_eq(VIRTQ_BYTES(num, align), at.total);
        }
    cr_assert_eq(VIRTQ_BYTES(256, 4096) - 8192, 4096, "T-01 would begin the used ring at 8710");
}

Test(legacy_layout, both_sides_work_in_it)
{
    /* L-LEG-03: golden vectors D.2 in use: avail at 16 * num, used at the next page, the event
     * words at 516 and 2052 */
    static _Alignas(4096) uint8_t mem[VIRTQ_BYTES(256, 4096) + 1];
    static struct virtq_slot legacy_slots[256];
    static struct raw_ring at;

    memset(mem, 0xa5, sizeof(mem));
    virtq_areas_set(&areas, mem, 256, 4096, VIRTQ_LEGACY | VIRTQ_EVENT_IDX);
    cr_assert_eq(virtq_driver_init(&driver, &areas, legacy_slots), 0);
    cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), 0);
    at.desc = mem;
    at.avail = mem + 4096;
    at.used = mem + 8192;
    at.num = 256;
    at.big = raw_cpu_is_big();
    chain.seg = segs;
    chain.capacity = MAX_SEGS;
    add_writable(64, 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(raw_avail_idx(&at), 1);
    cr_assert_eq(pop_token(), 0);
    cr_assert_not(virtq_device_kick_on(&device));
    cr_assert_eq(raw_get(&at, mem + 8192 + 2052, 2), 1);
    virtq_device_push(&device, 0, 64);
    virtq_device_flush(&device);
    cr_assert_eq(raw_used_idx(&at), 1);
    expect_taken(0, 64);
    cr_assert_not(virtq_driver_irq_on(&driver));
    cr_assert_eq(raw_get(&at, mem + 4096 + 516, 2), 1);
    cr_assert_eq(mem[sizeof(mem) - 1], 0xa5);
}

/* ---------------------------------------------------------------------------
 * Legacy rings in the other byte order
 * --------------------------------------------------------------------------- */
enum { FOREIGN = VIRTQ_LEGACY | VIRTQ_FOREIGN_ENDIAN };

/* Where the byte of weight 256^n of a field of `bytes` bytes lies. */
static uint8_t foreign_byte(const uint8_t *field, unsigned bytes, unsigned n)
{
    return field[raw_cpu_is_big() ? n : bytes - 1 - n];
}

Test(foreign_endian, driver_writes_every_field_in_the_other_order)
{
    /* L-LEG-05, T-91 */
    open_driver(8, FOREIGN | VIRTQ_EVENT_IDX);
    start_driver_at(0x1233);
    cr_assert_eq(virtq_driver_add_pair(&driver, seg_of(UINT64_C(0x0102030405060708), 0x11223344),
                                       seg_of(2, 3), &cookies[0]),
                 0);
    virtq_driver_publish(&driver);
    for (unsigned n = 0; n < 8; n++)
        cr_assert_eq(foreign_byte(ring.desc, 8, n), 8 - n);
    for (unsigned n = 0; n < 4; n++)
        cr_assert_eq(foreign_byte(ring.desc + 8, 4, n), 0x44 - 0x11 * n);
    cr_assert_eq(foreign_byte(ring.desc + 12, 2, 0), RAW_NEXT);
    cr_assert_eq(foreign_byte(ring.desc + 14, 2, 0), 1);
    cr_assert_eq(raw_desc_flags(&ring, ring.desc, 1), RAW_WRITE);
    cr_assert_eq(foreign_byte(ring.avail + 2, 2, 0), 0x34);
    cr_assert_eq(foreign_byte(ring.avail + 2, 2, 1), 0x12);
    cr_assert_eq(raw_avail_slot(&ring, 0x1233), 0);
    add_writable(8, 1);
    virtq_driver_publish(&driver);
    cr_assert_eq(raw_avail_slot(&ring, 0x1234), 2);
    cr_assert_not(virtq_driver_irq_on(&driver));
    cr_assert_eq(foreign_byte(ring.avail + 4 + 16, 2, 0), 0x33, "used_event");
    cr_assert_eq(foreign_byte(ring.avail + 4 + 16, 2, 1), 0x12);
}

Test(foreign_endian, driver_reads_every_field_in_the_other_order)
{
    /* L-LEG-05 */
    open_driver(8, FOREIGN | VIRTQ_EVENT_IDX);
    start_driver_at(0x1233);
    publish_writable(3, 0x12345678);
    raw_set_avail_event(&ring, 0x1235);
    cr_assert(virtq_driver_kick_due(&driver));
    raw_complete(&ring, 2, 0x1234567);
    raw_complete(&ring, 0, 0x12345678);
    cr_assert_eq(raw_used_idx(&ring), 0x1235);
    expect_taken(2, 0x1234567);
    expect_taken(0, 0x12345678);
    expect_idle();
    publish_writable(1, 8);
    raw_set_avail_event(&ring, 0x3512); /* 0x1235 read the wrong way round */
    cr_assert_not(virtq_driver_kick_due(&driver));
}

Test(foreign_endian, driver_flags_and_tables)
{
    /* L-LEG-05: the flag words, and an indirect table */
    struct virtq_table table = {table_mem, 0x77000, 8};
    struct virtq_buffer buffer;

    open_driver(8, FOREIGN | VIRTQ_INDIRECT);
    buffer = buffer_of(1, 2);
    virtq_driver_irq_off(&driver);
    cr_assert_eq(foreign_byte(ring.avail, 2, 0), 1);
    cr_assert_eq(foreign_byte(ring.avail, 2, 1), 0);
    raw_set_used_flags(&ring, 1);
    cr_assert_eq(virtq_driver_add_indirect(&driver, &buffer, &table, NULL), 0);
    virtq_driver_publish(&driver);
    cr_assert_not(virtq_driver_kick_due(&driver));
    cr_assert_eq(raw_desc_addr(&ring, ring.desc, 0), 0x77000);
    cr_assert_eq(raw_desc_len(&ring, ring.desc, 0), 48);
    cr_assert_eq(raw_desc_flags(&ring, ring.desc, 0), RAW_INDIRECT);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(raw_desc_addr(&ring, table_mem, i), 0x1000 * (i + 1));
        cr_assert_eq(raw_desc_len(&ring, table_mem, i), 16 * (i + 1));
        cr_assert_eq(raw_desc_flags(&ring, table_mem, i),
                     (i == 0 ? 0 : RAW_WRITE) | (i == 2 ? 0 : RAW_NEXT));
        if (i < 2)
            cr_assert_eq(raw_desc_next(&ring, table_mem, i), i + 1);
    }
}

Test(foreign_endian, device_reads_every_field_in_the_other_order)
{
    /* L-LEG-05 */
    open_device(8, FOREIGN);
    start_device_at(0x12fe);
    raw_desc(&ring, ring.desc, 3, UINT64_C(0x0102030405060708), 0x11223344, RAW_NEXT, 5);
    raw_desc(&ring, ring.desc, 5, 0x1000, 16, RAW_WRITE, 0);
    raw_offer(&ring, 3);
    raw_offer(&ring, 5);
    cr_assert_eq(pop_token(), 3);
    cr_assert_eq(chain.readable, 1);
    cr_assert_eq(chain.writable, 1);
    cr_assert_eq(segs[0].addr, UINT64_C(0x0102030405060708));
    cr_assert_eq(segs[0].len, 0x11223344);
    cr_assert_eq(segs[1].addr, 0x1000);
    cr_assert_eq(pop_token(), 5);
    cr_assert_eq(chain.readable, 0);
    cr_assert_eq(segs[0].len, 16);
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
}

Test(foreign_endian, device_reads_tables_at_any_address)
{
    /* L-LEG-05, V-IND-03 */
    for (uint32_t off = 0; off < 16; off++) {
        open_device(8, FOREIGN | VIRTQ_INDIRECT);
        for (uint32_t i = 0; i < 3; i++)
            raw_desc(&ring, table_mem + off, i, 0x123400 + i, 0x500 + i, i < 2 ? RAW_NEXT : 0,
                     (uint16_t)(i + 1));
        raw_desc(&ring, ring.desc, 0, off, 48, RAW_INDIRECT, 0);
        raw_offer(&ring, 0);
        cr_assert_eq(pop_token(), 0);
        cr_assert_eq(chain.readable, 3);
        for (uint32_t i = 0; i < 3; i++) {
            cr_assert_eq(segs[i].addr, 0x123400 + i);
            cr_assert_eq(segs[i].len, 0x500 + i);
        }
    }
}

Test(foreign_endian, device_writes_every_field_in_the_other_order)
{
    /* L-LEG-05 */
    open_device(8, FOREIGN | VIRTQ_EVENT_IDX);
    start_device_at(0x12fe);
    for (uint32_t i = 0; i < 3; i++)
        peer_offer(i + 4, 1, 0x12345678);
    for (uint32_t i = 0; i < 3; i++)
        virtq_device_push(&device, pop_token(), 0x1234567 + i);
    virtq_device_flush(&device);
    cr_assert_eq(foreign_byte(ring.used + 2, 2, 0), 0x01);
    cr_assert_eq(foreign_byte(ring.used + 2, 2, 1), 0x13);
    for (uint32_t i = 0; i < 3; i++)
        expect_split_entry((uint16_t)(0x12fe + i), 4 + i, 0x1234567 + i);
    cr_assert_eq(foreign_byte(ring.used + 4 + 8 * 6, 4, 0), 4);
    raw_set_used_event(&ring, 0x12ff);
    cr_assert(virtq_device_irq_due(&device));
    cr_assert_not(virtq_device_kick_on(&device));
    cr_assert_eq(foreign_byte(ring.used + 4 + 8 * 8, 2, 0), 0x01, "avail_event");
    cr_assert_eq(foreign_byte(ring.used + 4 + 8 * 8, 2, 1), 0x13);
}

Test(foreign_endian, device_flags)
{
    /* L-LEG-05 */
    open_device(8, FOREIGN | VIRTQ_NOTIFY_ON_EMPTY);
    virtq_device_kick_off(&device);
    cr_assert_eq(foreign_byte(ring.used, 2, 0), 1);
    cr_assert_eq(foreign_byte(ring.used, 2, 1), 0);
    raw_set_avail_flags(&ring, 1);
    peer_offer(0, 1, 8);
    peer_offer(1, 1, 8);
    virtq_device_push(&device, pop_token(), 8);
    virtq_device_flush(&device);
    cr_assert_not(virtq_device_irq_due(&device));
    virtq_device_push(&device, pop_token(), 8);
    virtq_device_flush(&device);
    cr_assert(virtq_device_irq_due(&device), "V-LEG-08");
}

Test(foreign_endian, is_a_property_of_legacy_rings)
{
    /* L-LEG-05: a modern ring is little-endian whatever the CPU */
    static const uint16_t refused[] = {VIRTQ_FOREIGN_ENDIAN, VIRTQ_FOREIGN_ENDIAN | VIRTQ_PACKED,
                                       FOREIGN | VIRTQ_PACKED,
                                       VIRTQ_FOREIGN_ENDIAN | VIRTQ_EVENT_IDX};

    open_ring(8, VIRTQ_PACKED, 0);
    open_memory(8, 0, 0xa5);
    areas.desc = ring.desc;
    areas.driver = ring.avail;
    areas.device = ring.used;
    for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        areas.flags = refused[i];
        cr_assert_eq(virtq_driver_init(&driver, &areas, slots), VIRTQ_ERR_FLAGS);
        cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), VIRTQ_ERR_FLAGS);
        cr_assert_eq(ring.desc[0], 0xa5);
    }
    areas.flags = FOREIGN;
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
    cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), 0);
}

/* ---------------------------------------------------------------------------
 * Event decisions of the split ring, by set membership
 * --------------------------------------------------------------------------- */
static const uint16_t event_starts[] = {0, 1, 32760, 32768, 65500, 65533, 65535};
static const uint32_t event_counts[] = {0, 1, 2, 3, 9, 63, 64, 65, 200, 32767, 32768, 40000, 65535};

enum { EVENT_SAMPLES = 24 };

/* Events at the edges of the batch of `count` from `old` on, then anywhere. */
static uint16_t event_sample(uint16_t old, uint32_t count, unsigned i)
{
    if (i < 6)
        return (uint16_t)(old + i - 3);
    if (i < 12)
        return (uint16_t)(old + count + i - 9);
    return (uint16_t)random_below(65536);
}

/* Was the entry at `event` one of the batch? By walking it. */
static bool in_batch(uint16_t event, uint16_t old, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if ((uint16_t)(old + i) == event)
            return true;
    return false;
}

/* Each decision takes the next: the ones below are asked of copies. */
static bool kick_of_copy(uint16_t event)
{
    struct virtq_driver copy = driver;

    raw_set_avail_event(&ring, event);
    return virtq_driver_kick_due(&copy);
}
static bool irq_of_copy(uint16_t event)
{
    struct virtq_device copy = device;

    raw_set_used_event(&ring, event);
    return virtq_device_irq_due(&copy);
}

static void drive(uint32_t count)
{
    while (count-- != 0) {
        add_writable(8, 0);
        virtq_driver_publish(&driver);
        raw_complete(&ring, raw_avail_slot(&ring, raw_used_idx(&ring)), 8);
        expect_taken(0, 8);
    }
}
static void serve(uint32_t count)
{
    while (count-- != 0) {
        raw_offer(&ring, 0);
        virtq_device_push(&device, pop_token(), 0);
        virtq_device_flush(&device);
    }
}

Test(split_event, kick_is_due_if_the_event_is_in_the_batch)
{
    /* D-EVT-04, L-EVT-05, T-44, T-45: whatever the index, the batch and the event */
    random_state = 3;
    for (unsigned s = 0; s < sizeof(event_starts) / sizeof(event_starts[0]); s++)
        for (unsigned c = 0; c < sizeof(event_counts) / sizeof(event_counts[0]); c++) {
            open_driver(4, VIRTQ_EVENT_IDX);
            start_driver_at(event_starts[s]);
            drive(event_counts[c]);
            for (unsigned i = 0; i < EVENT_SAMPLES; i++) {
                uint16_t event = event_sample(event_starts[s], event_counts[c], i);

                cr_assert_eq(kick_of_copy(event),
                             in_batch(event, event_starts[s], event_counts[c]));
            }
        }
}

Test(split_event, irq_is_due_if_the_event_is_in_the_batch)
{
    /* V-EVT-03, L-EVT-05, T-44 */
    random_state = 4;
    for (unsigned s = 0; s < sizeof(event_starts) / sizeof(event_starts[0]); s++)
        for (unsigned c = 0; c < sizeof(event_counts) / sizeof(event_counts[0]); c++) {
            open_device(4, VIRTQ_EVENT_IDX);
            raw_desc(&ring, ring.desc, 0, 0x1000, 8, 0, 0);
            start_device_at(event_starts[s]);
            serve(event_counts[c]);
            for (unsigned i = 0; i < EVENT_SAMPLES; i++) {
                uint16_t event = event_sample(event_starts[s], event_counts[c], i);

                cr_assert_eq(irq_of_copy(event), in_batch(event, event_starts[s], event_counts[c]));
            }
        }
}

Test(split_event, the_next_decision_begins_where_the_last_one_was)
{
    /* D-EVT-04, V-EVT-03, T-45: old moves on whether it was due or not */
    open_driver(4, VIRTQ_EVENT_IDX);
    start_driver_at(65534);
    drive(3);
    raw_set_avail_event(&ring, 1);
    cr_assert_not(virtq_driver_kick_due(&driver));
    drive(1);
    cr_assert_not(kick_of_copy(0), "of the batch before");
    cr_assert(kick_of_copy(1));
    open_device(4, VIRTQ_EVENT_IDX);
    raw_desc(&ring, ring.desc, 0, 0x1000, 8, 0, 0);
    start_device_at(65534);
    serve(3);
    raw_set_used_event(&ring, 1);
    cr_assert_not(virtq_device_irq_due(&device));
    serve(1);
    cr_assert_not(irq_of_copy(0));
    cr_assert(irq_of_copy(1));
}

/* ---------------------------------------------------------------------------
 * Moves: another struct, another process
 * --------------------------------------------------------------------------- */
/* Moves the live driver side as struct virtq_driver says, and spoils what it left. */
static void move_driver(struct virtq_driver *to)
{
    struct virtq_slot *moved = (struct virtq_slot *)malloc(areas.num * sizeof(*moved));

    cr_assert_not_null(moved);
    memcpy(moved, slots, areas.num * sizeof(*moved));
    memcpy(to, &driver, sizeof(driver));
    memset(slots, 0xee, areas.num * sizeof(*slots));
    free(slots);
    slots = moved;
    to->slots = moved;
    memset(&driver, 0xee, sizeof(driver));
    driver = *to;
}

static void check_driver_move(uint16_t flags)
{
    struct virtq_driver to;

    open_driver(8, flags);
    publish_writable(3, 64);
    peer_complete(1, 1);
    peer_complete(1, 2);
    expect_taken(0, 1);
    add_chain(1, 2, 3); /* added, and not visible yet */
    move_driver(&to);
    expect_taken(1, 2);
    expect_idle();
    add_writable(64, 4);
    virtq_driver_publish(&driver);
    cr_assert(virtq_driver_kick_due(&driver));
    move_driver(&to);
    peer_complete(1, 3);
    peer_complete(1, 4);
    move_driver(&to);
    peer_complete(1, 5);
    expect_taken(2, 3);
    expect_taken(3, 4);
    move_driver(&to);
    expect_taken(4, 5);
    expect_idle();
    cr_assert_eq(virtq_driver_free_count(&driver), 8);
}

Test(move, driver_side_in_full_flight)
{
    /* struct and slots copied, `slots` pointed to the copy: no buffer lost, none twice */
    EACH_FORMAT(format) {
        check_driver_move(format);
        check_driver_move(format | VIRTQ_EVENT_IDX);
        check_driver_move(format | VIRTQ_IN_ORDER);
    }
}

Test(move, driver_side_inside_a_batch)
{
    /* D-INO-01: what is known of a half taken batch moves along */
    struct virtq_driver to;

    EACH_FORMAT(format) {
        open_driver(8, format | VIRTQ_IN_ORDER);
        publish_writable(5, 64);
        peer_complete(4, 9);
        for (unsigned i = 0; i < 4; i++) {
            expect_taken(i, i == 3 ? 9 : 64);
            move_driver(&to);
        }
        expect_idle();
        peer_complete(1, 1);
        expect_taken(4, 1);
    }
}

Test(move, an_outstanding_buffer_is_detached_from_the_copy)
{
    /* D-CLEAN-02 */
    struct virtq_driver to;

    EACH_FORMAT(format) {
        open_driver(8, format);
        publish_writable(4, 64);
        peer_complete(1, 1);
        expect_taken(0, 1);
        move_driver(&to);
        expect_rest_detached(1, 4);
    }
}

/* The mock driver sees which completions: ids in the order used. */
static void expect_used(unsigned from, const uint32_t *ids, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (is_packed())
            expect_packed_used((from + i) % ring.num, (uint16_t)ids[i], 1,
                               (from + i) / ring.num % 2 == 0);
        else
            expect_split_entry((uint16_t)(from + i), ids[i], 1);
    }
    if (!is_packed())
        cr_assert_eq(raw_used_idx(&ring), from + count);
}

/* Another device side goes on where this one stands. */
static void replace_device(void)
{
    struct virtq_position at = virtq_device_save(&device);

    memset(&device, 0xee, sizeof(device));
    cr_assert_eq(virtq_device_init(&device, &areas, map_plain, table_mem), 0);
    cr_assert_eq(virtq_device_restore(&device, at), 0);
}

Test(unpop, the_next_pop_finds_it_again)
{
    /* lists of 3, 1 and 3 slots in a ring of 8: each slot comes to be a first and a last one */
    static const uint32_t ids[3] = {0, 3, 4}, counts[3] = {3, 1, 3};

    EACH_FORMAT(format) {
        open_device(8, format);
        for (unsigned lap = 0; lap < 32; lap++) {
            unsigned kept = lap % 4; /* of the three */
            uint32_t tokens[3];

            for (unsigned i = 0; i < 3; i++)
                peer_offer(ids[i], counts[i], 1);
            for (unsigned i = 0; i < 3; i++)
                tokens[i] = pop_token();
            for (unsigned i = 3; i != kept;)
                virtq_device_unpop(&device, tokens[--i]);
            for (unsigned i = kept; i < 3; i++)
                cr_assert_eq(pop_token(), tokens[i], "lap %u, buffer %u", lap, i);
            cr_assert_eq(virtq_device_pop(&device, &chain), 0);
            for (unsigned i = 0; i < 3; i++)
                virtq_device_push(&device, tokens[i], 1);
            virtq_device_flush(&device);
        }
    }
}

Test(unpop, of_the_whole_ring)
{
    EACH_FORMAT(format) {
        open_device(8, format);
        for (unsigned lap = 0; lap < 3; lap++) {
            uint32_t token;

            peer_offer(0, 8, 1);
            token = pop_token();
            virtq_device_unpop(&device, token);
            cr_assert_eq(pop_token(), token);
            virtq_device_push(&device, token, 1);
            virtq_device_flush(&device);
        }
    }
}

Test(unpop, a_malformed_chain_is_refused_again)
{
    EACH_FORMAT(format) {
        open_device(8, format);
        chain.capacity = 2;
        peer_offer(0, 3, 1);
        for (unsigned times = 0; times < 2; times++) {
            cr_assert_eq(virtq_device_pop(&device, &chain), VIRTQ_ERR_CHAIN_CAPACITY);
            virtq_device_unpop(&device, chain.token);
        }
        chain.capacity = 3;
        pop_token();
    }
}

Test(unpop, a_broken_queue_stays_broken)
{
    EACH_FORMAT(format) {
        uint32_t token;

        open_device(8, format);
        peer_offer(0, 1, 1);
        token = pop_token();
        if (is_packed())
            peer_offer(1, 8, 1);
        else
            raw_offer(&ring, 8);
        cr_assert_eq(virtq_device_pop(&device, &chain),
                     is_packed() ? VIRTQ_ERR_AVAIL_LIST : VIRTQ_ERR_AVAIL_HEAD);
        virtq_device_unpop(&device, token);
        cr_assert_eq(virtq_device_pop(&device, &chain), VIRTQ_ERR_BROKEN);
    }
}

Test(move, device_side_with_buffers_in_flight)
{
    /* their tokens are handed over: each is used once, nothing is popped again, nothing skipped */
    EACH_FORMAT(format) {
        static const uint32_t order[] = {1, 3, 0, 2, 5, 4};
        uint32_t tokens[6];

        open_device(8, format);
        for (uint32_t i = 0; i < 5; i++)
            peer_offer(i, 1, 1);
        for (uint32_t i = 0; i < 4; i++)
            tokens[i] = pop_token();
        virtq_device_push(&device, tokens[1], 1);
        virtq_device_flush(&device);
        replace_device();
        virtq_device_push(&device, tokens[3], 1);
        tokens[4] = pop_token();
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        virtq_device_flush(&device);
        replace_device();
        peer_offer(5, 1, 1);
        tokens[5] = pop_token();
        for (unsigned i = 2; i < 6; i++)
            virtq_device_push(&device, tokens[order[i]], 1);
        virtq_device_flush(&device);
        expect_used(0, order, 6);
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
    }
}

Test(move, device_side_at_every_point_of_a_long_run)
{
    /* across 65535 and the end of a packed ring, a new side after every step */
    EACH_FORMAT(format) {
        uint16_t num = format == 0 ? 4 : 5;

        open_device(num, format);
        if (!is_packed())
            start_device_at(65530);
        for (uint32_t i = 0; i < 30; i++) {
            peer_offer(i % num, 1, 1);
            replace_device();
            virtq_device_push(&device, pop_token(), 1);
            cr_assert_eq(virtq_device_pop(&device, &chain), 0);
            virtq_device_flush(&device);
            replace_device();
            if (is_packed())
                expect_packed_used(i % num, (uint16_t)(i % num), 1, i / num % 2 == 0);
            else
                expect_split_entry((uint16_t)(65530 + i), i % num, 1);
        }
    }
}

Test(move, device_side_tells_only_of_what_it_flushes_itself)
{
    /* V-EVT-03: the decision starts at the saved position */
    open_device(8, VIRTQ_EVENT_IDX);
    for (uint32_t i = 0; i < 3; i++)
        peer_offer(i, 1, 1);
    virtq_device_push(&device, pop_token(), 1);
    virtq_device_flush(&device);
    cr_assert(virtq_device_irq_due(&device));
    replace_device();
    virtq_device_push(&device, pop_token(), 1);
    virtq_device_flush(&device);
    cr_assert_not(irq_of_copy(0));
    cr_assert(irq_of_copy(1));
}

/* The ring of a fresh side at `at`: all used, as the laps before would have left it. */
static void expect_all_used(uint16_t at)
{
    bool wrap = (at & PACKED_WRAP) != 0;

    for (uint32_t slot = 0; slot < ring.num; slot++)
        cr_assert_eq(packed_flags(slot), used_mark(slot < (at & 0x7fffu) ? wrap : !wrap));
}

static void check_driver_restore(uint16_t flags, uint16_t num, uint16_t at)
{
    open_driver(num, flags);
    start_driver_at(at);
    if (is_packed())
        expect_all_used(at);
    cr_assert_eq(virtq_driver_save(&driver).avail_idx, at);
    cr_assert_eq(virtq_driver_save(&driver).used_idx, at);
    expect_idle();
    cr_assert_not(virtq_driver_irq_on(&driver));
    for (unsigned lap = 0; lap < 4; lap++) {
        publish_writable(num, 64);
        if (!is_packed())
            cr_assert_eq(raw_avail_idx(&ring), (uint16_t)(at + num * (lap + 1u)));
        for (unsigned i = 0; i < num; i++) {
            expect_idle();
            peer_complete(1, i);
            expect_taken(i, i);
        }
    }
}

Test(move, another_driver_side_goes_on_for_the_same_peer)
{
    /* an empty queue at any position, with fresh memory: stale entries are not taken, the peer goes
     * on where it was */
    static const uint16_t starts[] = {1, 5, 32767, 65533, 65535};

    for (unsigned i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        check_driver_restore(0, 4, starts[i]);
        check_driver_restore(VIRTQ_IN_ORDER | VIRTQ_EVENT_IDX, 4, starts[i]);
    }
    for (uint16_t num = 1; num <= 9; num++)
        for (uint16_t slot = 0; slot < num; slot++) {
            check_driver_restore(VIRTQ_PACKED, num, slot);
            check_driver_restore(VIRTQ_PACKED, num, slot | PACKED_WRAP);
            check_driver_restore(VIRTQ_PACKED | VIRTQ_IN_ORDER, num, slot | PACKED_WRAP);
        }
}

Test(move, driver_side_is_restored_empty_only)
{
    /* a position with buffers outstanding, or of no ring of this size */
    struct virtq_position at;

    EACH_FORMAT(format) {
        uint16_t num = format == 0 ? 4 : 5;

        open_driver(num, format);
        publish_writable(2, 8);
        at = virtq_driver_save(&driver);
        open_driver(num, format);
        cr_assert_eq(virtq_driver_restore(&driver, at), VIRTQ_ERR_POSITION);
        if (is_packed()) {
            cr_assert_eq(virtq_driver_restore(&driver, position_of(5, 5)), VIRTQ_ERR_POSITION);
            cr_assert_eq(virtq_driver_restore(&driver, position_of(0x8005, 0x8005)),
                         VIRTQ_ERR_POSITION);
        }
        publish_writable(4, 8);
        peer_complete(1, 1);
        expect_taken(0, 1);
    }
}

/* ---------------------------------------------------------------------------
 * Batches of completions
 * --------------------------------------------------------------------------- */
static struct virtq_done batch[8];

/* Takes up to `max` and expects `count` of them, from cookie `first` on; no more is touched. */
static void expect_batch(uint16_t max, unsigned first, unsigned count)
{
    memset(batch, 0x55, sizeof(batch));
    cr_assert_eq(virtq_driver_take_batch(&driver, batch, max), (int32_t)count);
    for (unsigned i = 0; i < count; i++) {
        cr_assert_eq(batch[i].cookie, &cookies[first + i]);
        cr_assert_eq(batch[i].written, first + i);
    }
    for (unsigned i = count; i < 8; i++)
        cr_assert_eq(batch[i].written, 0x55555555);
}

Test(take_batch, in_order_of_use_and_never_more_than_asked_for)
{
    /* D-SPLIT-11, D-PACK-10 */
    static const uint16_t orders[] = {0, VIRTQ_IN_ORDER};

    EACH_FORMAT(format)
        for (unsigned o = 0; o < 2; o++) {
            open_driver(8, format | orders[o]);
            expect_batch(4, 0, 0);
            for (unsigned lap = 0; lap < 7; lap++) {
                publish_writable(7, 64);
                expect_batch(8, 0, 0);
                for (unsigned i = 0; i < 5; i++)
                    peer_complete(1, i);
                expect_batch(2, 0, 2);
                expect_batch(1, 2, 1);
                expect_batch(8, 3, 2);
                expect_batch(8, 5, 0);
                peer_complete(1, 5);
                peer_complete(1, 6);
                expect_batch(2, 5, 2);
            }
            cr_assert_eq(virtq_driver_free_count(&driver), 8);
        }
}

Test(take_batch, a_batch_of_the_device_in_pieces)
{
    /* D-INO-01 */
    EACH_FORMAT(format) {
        open_driver(8, format | VIRTQ_IN_ORDER);
        for (unsigned i = 0; i < 6; i++)
            add_writable(i, i);
        virtq_driver_publish(&driver);
        peer_complete(5, 4);
        expect_batch(2, 0, 2);
        expect_batch(2, 2, 2);
        expect_batch(8, 4, 1);
        expect_batch(8, 5, 0);
        peer_complete(1, 5);
        expect_batch(8, 5, 1);
    }
}

Test(take_batch, what_came_before_an_error_is_handed_out)
{
    /* D-SPLIT-12, D-PACK-13, D-INO-04: the next call tells, and virtq_driver_error() says why */
    static const uint16_t orders[] = {0, VIRTQ_IN_ORDER};

    EACH_FORMAT(format)
        for (unsigned o = 0; o < 2; o++)
            for (int long_one = 0; long_one < 2; long_one++) {
                int cause = long_one ? VIRTQ_ERR_USED_LEN : VIRTQ_ERR_USED_ID;

                open_driver(8, format | orders[o]);
                publish_writable(5, 64);
                peer_complete(1, 0);
                peer_complete(1, 1);
                if (long_one)
                    peer_complete(1, 65);
                else
                    peer_answer(7, 1, 1);
                peer_complete(1, 3);
                expect_batch(8, 0, 2);
                cr_assert_eq(virtq_driver_error(&driver), cause);
                cr_assert_eq(virtq_driver_take_batch(&driver, batch, 8), VIRTQ_ERR_BROKEN);
                cr_assert_eq(virtq_driver_take_batch(&driver, batch, 8), VIRTQ_ERR_BROKEN);
                expect_rest_detached(2, 5);
            }
}

Test(take_batch, an_error_at_the_start_is_the_answer)
{
    /* D-SPLIT-12, D-PACK-13 */
    EACH_FORMAT(format) {
        open_driver(8, format);
        publish_writable(3, 64);
        peer_complete(1, 0);
        expect_batch(1, 0, 1);
        peer_answer(7, 1, 1);
        cr_assert_eq(virtq_driver_take_batch(&driver, batch, 8), VIRTQ_ERR_USED_ID);
        cr_assert_eq(virtq_driver_take_batch(&driver, batch, 8), VIRTQ_ERR_BROKEN);
        expect_rest_detached(1, 3);
    }
    open_driver(8, 0);
    publish_writable(3, 64);
    raw_set_used_idx(&ring, 4);
    cr_assert_eq(virtq_driver_take_batch(&driver, batch, 8), VIRTQ_ERR_USED_IDX);
    expect_rest_detached(0, 3);
}
