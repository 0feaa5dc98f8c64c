// SPDX-License-Identifier: MIT-0
/* Each side of the split ring alone, against a mock peer that reads and writes the shared bytes by
 * hand at the offsets of the specification. The first line of a rule test names the rule. */
#include "tests/support/test_config.h"

#include <criterion/criterion.h>

#include "tests/support/raw_ring.h"
#include "virtio_ring.h"

enum { MAX_SEGS = 64, TABLE_BYTES = 64 * 16 };

static struct raw_ring ring;
static struct virtq_areas areas;
static struct virtq_driver driver;
static struct virtq_device device;
static struct virtq_slot *slots;
static struct virtq_seg segs[MAX_SEGS];
static struct virtq_chain chain;
static struct virtq_done done;
static char cookies[32768];

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

static void open_ring(uint16_t num, uint16_t flags, int fill)
{
    raw_open(&ring, num, (flags & VIRTQ_LEGACY) != 0, fill);
    areas.num = num;
    areas.flags = flags;
    areas.desc = ring.desc;
    areas.driver = ring.avail;
    areas.device = ring.used;
    free(slots);
    slots = calloc(num, sizeof(*slots));
    cr_assert_not_null(slots);
    memset(&guest, 0, sizeof(guest));
    guest.addr = UINT64_C(0x123456780);
}

static void open_driver(uint16_t num, uint16_t flags)
{
    open_ring(num, flags, 0xa5);
    memset(&driver, 0, sizeof(driver));
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
}

static void open_device(uint16_t num, uint16_t flags)
{
    open_ring(num, flags, 0);
    memset(&device, 0, sizeof(device));
    memset(segs, 0, sizeof(segs));
    memset(&chain, 0, sizeof(chain));
    chain.seg = segs;
    chain.capacity = MAX_SEGS;
    cr_assert_eq(virtq_device_init(&device, &areas, map_guest, &guest), 0);
}

/* Moves a fresh driver side, and what its peer left in memory, to another index. */
static void start_driver_at(uint16_t idx)
{
    driver.added_idx = driver.published_idx = driver.kicked_idx = driver.taken_idx = idx;
    raw_set_avail_idx(&ring, idx);
    raw_set_used_idx(&ring, idx);
}

static void start_device_at(uint16_t idx)
{
    struct virtq_position state = {.avail_idx = idx, .used_idx = idx};

    cr_assert_eq(virtq_device_restore(&device, state), 0);
    raw_set_avail_idx(&ring, idx);
    raw_set_used_idx(&ring, idx);
}

static uint64_t hash(uint64_t sum, const void *data, size_t bytes)
{
    const uint8_t *at = (const uint8_t *)data;

    while (bytes-- != 0)
        sum = (sum ^ *at++) * UINT64_C(0x100000001b3);
    return sum;
}

/* Of what the driver side may write: to show that an error changed nothing. */
static uint64_t driver_hash(void)
{
    uint64_t sum = hash(1, &driver, sizeof(driver));

    sum = hash(sum, slots, ring.num * sizeof(*slots));
    sum = hash(sum, ring.desc, raw_desc_bytes(ring.num));
    sum = hash(sum, guest.mem, sizeof(guest.mem));
    return hash(sum, ring.avail, raw_avail_bytes(ring.num));
}

/* Of what the device side may not write. */
static uint64_t driver_memory_hash(void)
{
    return hash(hash(1, ring.desc, raw_desc_bytes(ring.num)), ring.avail,
                raw_avail_bytes(ring.num));
}

static struct virtq_seg seg_of(uint64_t addr, uint32_t len)
{
    struct virtq_seg seg = {.addr = addr, .len = len};

    return seg;
}

static struct virtq_buffer buffer_of(uint16_t readable, uint16_t writable)
{
    struct virtq_buffer buffer = {.seg = segs, .readable = readable, .writable = writable};

    for (uint16_t i = 0; i < readable + writable && i < MAX_SEGS; i++)
        segs[i] = seg_of(0x1000u * (i + 1u), 16u * (i + 1u));
    return buffer;
}

static int add_writable(uint32_t len, unsigned cookie)
{
    return virtq_driver_add_writable(&driver, seg_of(0x1000, len), &cookies[cookie]);
}

/* The peer finds `readable` and `writable` segments as buffer_of() made them, from `head` on. */
static void expect_chain(const uint8_t *table, uint32_t head, uint16_t readable, uint16_t writable)
{
    uint32_t count = (uint32_t)readable + writable;

    for (uint32_t i = 0, at = head; i < count; i++, at = raw_desc_next(&ring, table, at)) {
        uint32_t flags = (i >= readable ? RAW_WRITE : 0u) | (i + 1 != count ? RAW_NEXT : 0u);

        cr_assert_lt(at, ring.num);
        cr_assert_eq(raw_desc_addr(&ring, table, at), 0x1000u * (i + 1));
        cr_assert_eq(raw_desc_len(&ring, table, at), 16u * (i + 1));
        cr_assert_eq(raw_desc_flags(&ring, table, at), flags);
    }
}

/* ---------------------------------------------------------------------------
 * Layout, names and the event test
 * --------------------------------------------------------------------------- */
Test(split_layout, offsets_of_the_legacy_layout)
{
    /* L-LEG-03: one contiguous area, golden vectors D.2 */
    static const uint32_t golden[][4] = {
        {4, 64, 4096, 8192},          {128, 2048, 4096, 8192},      {256, 4096, 8192, 12288},
        {512, 8192, 12288, 20480},    {1024, 16384, 20480, 32768},
        {32768, 524288, 593920, 860160},
    };

    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        struct virtq_offsets at = virtq_area_offsets((uint16_t)golden[i][0], VIRTQ_LEGACY_ALIGN, 0);

        cr_assert_eq(at.driver, golden[i][1]);
        cr_assert_eq(at.device, golden[i][2]);
        cr_assert_eq(at.total, golden[i][3]);
        cr_assert_eq(VIRTQ_BYTES(golden[i][0], 4096), golden[i][3]);
    }
}

Test(split_layout, smallest_alignment_packs_the_areas)
{
    /* L-SPLIT-04: 16*n, 6+2*n and 6+8*n bytes, aligned to 16, 2 and 4 */
    for (uint32_t num = 1; num <= 32768; num *= 2) {
        struct virtq_offsets at = virtq_area_offsets((uint16_t)num, 4, 0);

        cr_assert_eq(at.driver, 16 * num);
        cr_assert_eq(at.device % 4, 0);
        cr_assert_geq(at.device, 16 * num + 6 + 2 * num);
        cr_assert_lt(at.device, 16 * num + 6 + 2 * num + 4);
        cr_assert_geq(at.total, at.device + 6 + 8 * num);
        cr_assert_lt(at.total, at.device + 6 + 8 * num + 4);
    }
}

Test(split_layout, areas_point_into_one_piece)
{
    /* L-VQ-02: descriptor, driver and device area */
    static _Alignas(4096) uint8_t mem[12288];
    static const uint8_t zero[12288];
    struct virtq_areas at = {.num = 0};

    cr_assert_eq(sizeof(mem), VIRTQ_BYTES(256, 4096));
    virtq_areas_set(&at, mem, 256, 4096, VIRTQ_LEGACY);
    cr_assert_eq(at.num, 256);
    cr_assert_eq(at.flags, VIRTQ_LEGACY);
    cr_assert_eq((uint8_t *)at.desc - mem, 0);
    cr_assert_eq((uint8_t *)at.driver - mem, 4096);
    cr_assert_eq((uint8_t *)at.device - mem, 8192);
    cr_assert_eq(memcmp(mem, zero, sizeof(mem)), 0, "points, writes nothing");
}

Test(split_layout, only_powers_of_two_up_to_32768_are_sizes)
{
    /* L-SPLIT-05 */
    uint32_t legal = 0;

    for (uint32_t num = 0; num <= 0x20000; num++)
        legal += virtq_size_ok(num, 0);
    cr_assert_eq(legal, 16);
    for (uint32_t num = 1; num <= 32768; num *= 2)
        cr_assert(virtq_size_ok(num, 0));
    cr_assert_not(virtq_size_ok(65536, 0));
    cr_assert_not(virtq_size_ok(UINT32_C(0x80000000), 0));
}

Test(split_layout, every_error_has_a_name_of_its_own)
{
    const char *names[64];
    unsigned count = 0;

    for (int err = -64; err <= 64; err++) {
        const char *name = virtq_err_name(err);

        if (name == NULL)
            continue;
        cr_assert_lt(err, 0);
        for (unsigned i = 0; i < count; i++)
            cr_assert(strcmp(name, names[i]) != 0, "%s", name);
        names[count++] = name;
    }
    cr_assert_eq(count, 15 + 10);
}

Test(split_layout, chain_errors_are_told_from_queue_errors)
{
    for (int err = -64; err <= 2; err++)
        cr_assert_eq(virtq_err_names_chain(err), err <= -20 && err >= -29, "%d", err);
}

Test(split_event, golden_vectors)
{
    /* L-EVT-05: the batch test, golden vectors D.3 */
    static const uint16_t golden[][4] = {
        {0, 1, 0, 1},     {65535, 0, 65535, 1}, {1, 5, 2, 0},     {2, 5, 2, 1},     {4, 5, 2, 1},
        {5, 5, 2, 0},     {65534, 1, 65534, 1}, {0, 1, 65534, 1}, {1, 1, 65534, 0}, {3, 3, 3, 0},
    };

    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
        cr_assert_eq(virtq_event_due(golden[i][0], golden[i][1], golden[i][2]), golden[i][3],
                     "vector %zu", i);
}

/* Was the entry at `event` one of the `count` written from `old` on? By walking them. */
static bool walked(uint16_t event, uint16_t old, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if ((uint16_t)(old + i) == event)
            return true;
    return false;
}

Test(split_event, is_membership_in_the_batch)
{
    /* T-44: casts to 16 bits, against a walk of the batch */
    static const uint16_t starts[] = {0, 1, 255, 32766, 32767, 32768, 65500, 65533, 65534, 65535};

    for (size_t s = 0; s < sizeof(starts) / sizeof(starts[0]); s++)
        for (uint32_t count = 0; count <= 48; count++)
            for (int event = starts[s] - 4; event <= starts[s] + 52; event++) {
                uint16_t old = starts[s], now = (uint16_t)(old + count);

                cr_assert_eq(virtq_event_due((uint16_t)event, now, old),
                             walked((uint16_t)event, old, count));
            }
}

Test(split_event, is_membership_in_any_batch)
{
    /* L-EVT-05 */
    uint32_t random = 12345;

    for (unsigned i = 0; i < 3000; i++) {
        uint16_t old, event;
        uint32_t count;

        random = random * 1664525u + 1013904223u;
        old = (uint16_t)(random >> 16);
        random = random * 1664525u + 1013904223u;
        event = (uint16_t)(random >> 16);
        random = random * 1664525u + 1013904223u;
        count = random >> (16 + i % 16);
        cr_assert_eq(virtq_event_due(event, (uint16_t)(old + count), old),
                     walked(event, old, count));
    }
}

/* ---------------------------------------------------------------------------
 * Driver side: start
 * --------------------------------------------------------------------------- */
Test(split_driver, init_zeroes_exactly_the_areas)
{
    /* D-SPLIT-07: used.flags is 0 before the device learns of the queue */
    for (uint16_t num = 1; num <= 4096; num = (uint16_t)(num * 4)) {
        open_driver(num, 0);
        for (size_t i = 0; i < raw_desc_bytes(num); i++)
            cr_assert_eq(ring.desc[i], 0);
        for (size_t i = 0; i < raw_avail_bytes(num); i++)
            cr_assert_eq(ring.avail[i], 0);
        for (size_t i = 0; i < raw_used_bytes(num); i++)
            cr_assert_eq(ring.used[i], 0);
        cr_assert_eq(virtq_driver_free_count(&driver), num);
        cr_assert_eq(virtq_driver_error(&driver), 0);
    }
}

Test(split_driver, init_refuses_a_bad_size)
{
    /* L-SPLIT-05 */
    static const uint16_t bad[] = {0, 3, 6, 255, 257, 32767, 32769, 49152, 65535};

    open_driver(8, 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t before = driver_hash();

        areas.num = bad[i];
        cr_assert_eq(virtq_driver_init(&driver, &areas, slots), VIRTQ_ERR_SIZE);
        cr_assert_eq(driver_hash(), before);
    }
}

static void refuse_area(void **area, size_t off)
{
    uint8_t *good = (uint8_t *)*area;
    uint64_t before = driver_hash();

    *area = good + off;
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), VIRTQ_ERR_ALIGN);
    cr_assert_eq(virtq_device_init(&device, &areas, map_guest, &guest), VIRTQ_ERR_ALIGN);
    *area = NULL;
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), VIRTQ_ERR_ALIGN);
    cr_assert_eq(virtq_device_init(&device, &areas, map_guest, &guest), VIRTQ_ERR_ALIGN);
    *area = good;
    cr_assert_eq(driver_hash(), before);
}

Test(split_driver, init_refuses_a_bad_alignment)
{
    /* D-SPLIT-01: areas aligned to 16, 2 and 4, on both sides */
    open_driver(8, 0);
    refuse_area(&areas.desc, 8);
    refuse_area(&areas.desc, 1);
    refuse_area(&areas.driver, 1);
    refuse_area(&areas.device, 2);
    refuse_area(&areas.device, 1);
    areas.driver = ring.avail + 2;
    areas.num = 4;
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0, "2 is enough there");
}

/* ---------------------------------------------------------------------------
 * Driver side: adding
 * --------------------------------------------------------------------------- */
Test(split_driver, one_segment_at_its_offsets)
{
    /* L-SPLIT-01: le64 addr@0, le32 len@8, le16 flags@12, le16 next@14; WRITE 2 */
    uint32_t head;

    open_driver(4, 0);
    cr_assert_eq(
        virtq_driver_add_readable(&driver, seg_of(UINT64_C(0x1122334455667788), 0x99aabbcc), NULL),
        0);
    head = raw_avail_slot(&ring, 0);
    cr_assert_lt(head, 4);
    cr_assert_eq(raw_desc_addr(&ring, ring.desc, head), UINT64_C(0x1122334455667788));
    cr_assert_eq(raw_desc_len(&ring, ring.desc, head), 0x99aabbcc);
    cr_assert_eq(raw_desc_flags(&ring, ring.desc, head), 0);
    cr_assert_eq(add_writable(512, 0), 0);
    cr_assert_neq(raw_avail_slot(&ring, 1), head);
    head = raw_avail_slot(&ring, 1);
    cr_assert_eq(raw_desc_len(&ring, ring.desc, head), 512);
    cr_assert_eq(raw_desc_flags(&ring, ring.desc, head), RAW_WRITE);
    cr_assert_eq(virtq_driver_free_count(&driver), 2);
}

Test(split_driver, pair_is_a_readable_and_a_writable_segment)
{
    /* D-VQ-01: writable elements after readable ones */
    open_driver(4, 0);
    buffer_of(1, 1);
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], &cookies[0]), 0);
    expect_chain(ring.desc, raw_avail_slot(&ring, 0), 1, 1);
    cr_assert_eq(virtq_driver_free_count(&driver), 2);
}

Test(split_driver, chains_of_every_shape)
{
    /* D-SPLIT-08: descriptors linked with NEXT, head in the available ring; D-VQ-01 */
    for (uint16_t readable = 0; readable <= 8; readable++)
        for (uint16_t writable = 0; writable <= 8 - readable; writable++) {
            struct virtq_buffer buffer = buffer_of(readable, writable);

            open_driver(8, 0);
            if (readable + writable == 0)
                continue;
            cr_assert_eq(virtq_driver_add(&driver, &buffer, NULL), 0);
            expect_chain(ring.desc, raw_avail_slot(&ring, 0), readable, writable);
            cr_assert_eq(virtq_driver_free_count(&driver), 8 - readable - writable);
        }
}

Test(split_driver, add_exposes_nothing_before_publish)
{
    /* D-SPLIT-05, D-SPLIT-08: idx moves after the slots, for the whole batch at once */
    struct virtq_buffer buffer = buffer_of(1, 2);

    open_driver(8, 0);
    cr_assert_eq(add_writable(64, 0), 0);
    cr_assert_eq(virtq_driver_add_readable(&driver, segs[0], NULL), 0);
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), 0);
    cr_assert_eq(virtq_driver_add(&driver, &buffer, NULL), 0);
    cr_assert_eq(raw_avail_idx(&ring), 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(raw_avail_idx(&ring), 4);
    virtq_driver_publish(&driver);
    cr_assert_eq(raw_avail_idx(&ring), 4, "nothing new, nothing published");
}

static void expect_add(const struct virtq_buffer *buffer, int expected)
{
    struct virtq_table table = {.mem = guest.mem, .addr = guest.addr, .capacity = 64};
    uint64_t before = driver_hash();

    cr_assert_eq(virtq_driver_add(&driver, buffer, NULL), expected);
    cr_assert_eq(driver_hash(), before);
    if (expected != VIRTQ_ERR_FULL) {
        cr_assert_eq(virtq_driver_add_indirect(&driver, buffer, &table, NULL), expected);
        cr_assert_eq(driver_hash(), before);
    }
}

Test(split_driver, refuses_an_empty_buffer)
{
    /* L-VQ-04: a buffer has at least one element */
    struct virtq_buffer buffer = buffer_of(0, 0);

    open_driver(4, VIRTQ_INDIRECT);
    expect_add(&buffer, VIRTQ_ERR_EMPTY);
}

Test(split_driver, refuses_more_segments_than_the_queue_has_entries)
{
    /* D-SPLIT-03, D-IND-05, D-VQ-02, T-58: the entries of an indirect table count */
    struct virtq_buffer buffer = buffer_of(2, 3);

    open_driver(4, VIRTQ_INDIRECT);
    expect_add(&buffer, VIRTQ_ERR_TOO_LONG);
    buffer.readable = buffer.writable = 65535;
    expect_add(&buffer, VIRTQ_ERR_TOO_LONG);
    open_driver(1, VIRTQ_INDIRECT);
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), VIRTQ_ERR_TOO_LONG);
}

Test(split_driver, refuses_4_gib)
{
    /* D-SPLIT-02: chain total <= 2^32 bytes; one less, so that a used length can say it */
    struct virtq_buffer buffer = buffer_of(1, 2);

    open_driver(4, VIRTQ_INDIRECT);
    segs[0].len = 0xfffffffe;
    segs[1].len = 1;
    segs[2].len = 1;
    expect_add(&buffer, VIRTQ_ERR_LENGTH);
    segs[2].len = 0;
    cr_assert_eq(virtq_driver_add(&driver, &buffer, NULL), 0);
}

Test(split_driver, refuses_a_pair_of_4_gib)
{
    /* D-SPLIT-02 */
    uint64_t before;

    open_driver(4, 0);
    before = driver_hash();
    cr_assert_eq(
        virtq_driver_add_pair(&driver, seg_of(0, 0xffffffff), seg_of(0, 1), NULL),
        VIRTQ_ERR_LENGTH);
    cr_assert_eq(driver_hash(), before);
    cr_assert_eq(virtq_driver_add_pair(&driver, seg_of(0, 0xffffffff), seg_of(0, 0), NULL), 0);
}

Test(split_driver, every_writable_byte_but_one_of_4_gib)
{
    /* D-SPLIT-02: the longest buffer, and the largest used length */
    struct virtq_buffer buffer = buffer_of(0, 2);

    open_driver(4, 0);
    segs[0].len = 0x80000000;
    segs[1].len = 0x7fffffff;
    cr_assert_eq(virtq_driver_add(&driver, &buffer, &cookies[0]), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 0xffffffff);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.written, 0xffffffff);
}

Test(split_driver, full_changes_nothing)
{
    struct virtq_buffer pair = buffer_of(1, 1), four = buffer_of(2, 2);
    uint64_t before;

    open_driver(4, VIRTQ_INDIRECT);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(add_writable(64, i), 0);
    expect_add(&pair, VIRTQ_ERR_FULL);
    expect_add(&four, VIRTQ_ERR_FULL);
    before = driver_hash();
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), VIRTQ_ERR_FULL);
    cr_assert_eq(driver_hash(), before);
    cr_assert_eq(add_writable(64, 3), 0);
    before = driver_hash();
    cr_assert_eq(add_writable(64, 4), VIRTQ_ERR_FULL);
    cr_assert_eq(virtq_driver_add_readable(&driver, segs[0], NULL), VIRTQ_ERR_FULL);
    cr_assert_eq(driver_hash(), before);
    cr_assert_eq(virtq_driver_free_count(&driver), 0);
}

/* ---------------------------------------------------------------------------
 * Driver side: indirect
 * --------------------------------------------------------------------------- */
static int add_indirect(uint16_t readable, uint16_t writable, uint16_t capacity)
{
    struct virtq_buffer buffer = buffer_of(readable, writable);
    struct virtq_table table = {.mem = guest.mem, .addr = guest.addr, .capacity = capacity};

    return virtq_driver_add_indirect(&driver, &buffer, &table, &cookies[0]);
}

Test(split_driver, indirect_table_takes_one_descriptor)
{
    /* D-IND-04: length 16 * n, first entry 0; D-IND-02, D-IND-03: INDIRECT alone, not inside */
    uint32_t head;

    open_driver(8, VIRTQ_INDIRECT);
    cr_assert_eq(add_indirect(2, 3, 5), 0);
    cr_assert_eq(virtq_driver_free_count(&driver), 7);
    head = raw_avail_slot(&ring, 0);
    cr_assert_eq(raw_desc_addr(&ring, ring.desc, head), guest.addr);
    cr_assert_eq(raw_desc_len(&ring, ring.desc, head), 80);
    cr_assert_eq(raw_desc_flags(&ring, ring.desc, head), RAW_INDIRECT);
    expect_chain(guest.mem, 0, 2, 3);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(raw_desc_next(&ring, guest.mem, i), i + 1, "in order, D-INO-03");
    for (size_t i = 80; i < sizeof(guest.mem); i++)
        cr_assert_eq(guest.mem[i], 0, "no byte beyond the entries");
}

Test(split_driver, indirect_completion_frees_its_descriptor)
{
    /* D-SPLIT-12: the limit on used.len is the writable bytes of the table's entries */
    open_driver(8, VIRTQ_INDIRECT);
    cr_assert_eq(add_indirect(2, 2, 64), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 48 + 64);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[0]);
    cr_assert_eq(done.written, 48 + 64);
    cr_assert_eq(virtq_driver_free_count(&driver), 8);
}

Test(split_driver, indirect_only_if_negotiated)
{
    /* D-IND-01 */
    open_driver(8, VIRTQ_EVENT_IDX | VIRTQ_LEGACY);
    cr_assert_eq(add_indirect(2, 2, 64), 0);
    expect_chain(ring.desc, raw_avail_slot(&ring, 0), 2, 2);
    cr_assert_eq(virtq_driver_free_count(&driver), 4);
    cr_assert_eq(guest.mem[8], 0);
}

Test(split_driver, indirect_only_for_two_segments_and_more)
{
    open_driver(8, VIRTQ_INDIRECT);
    cr_assert_eq(add_indirect(0, 1, 64), 0);
    expect_chain(ring.desc, raw_avail_slot(&ring, 0), 0, 1);
    cr_assert_eq(add_indirect(1, 1, 2), 0);
    cr_assert_eq(raw_desc_flags(&ring, ring.desc, raw_avail_slot(&ring, 1)), RAW_INDIRECT);
}

Test(split_driver, indirect_only_if_the_table_holds_it)
{
    open_driver(8, VIRTQ_INDIRECT);
    cr_assert_eq(add_indirect(2, 2, 3), 0);
    expect_chain(ring.desc, raw_avail_slot(&ring, 0), 2, 2);
    cr_assert_eq(add_indirect(2, 2, 4), 0);
    cr_assert_eq(raw_desc_flags(&ring, ring.desc, raw_avail_slot(&ring, 1)), RAW_INDIRECT);
}

Test(split_driver, indirect_with_one_descriptor_left)
{
    uint64_t before;

    open_driver(4, VIRTQ_INDIRECT);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(add_writable(64, i), 0);
    cr_assert_eq(add_indirect(2, 2, 64), 0);
    memset(guest.mem, 0, sizeof(guest.mem));
    before = driver_hash();
    cr_assert_eq(add_indirect(1, 1, 64), VIRTQ_ERR_FULL);
    cr_assert_eq(driver_hash(), before);
}

/* ---------------------------------------------------------------------------
 * Driver side: kicks
 * --------------------------------------------------------------------------- */
static bool publish_and_kick(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(add_writable(64, i), 0);
    virtq_driver_publish(&driver);
    return virtq_driver_kick_due(&driver);
}

Test(split_driver, kick_by_flag)
{
    /* D-EVT-02: flags 0 must notify, 1 should not; avail_event is ignored */
    open_driver(8, 0);
    raw_set_avail_event(&ring, 0x7777);
    cr_assert(publish_and_kick(1));
    cr_assert_not(virtq_driver_kick_due(&driver), "nothing new");
    raw_set_used_flags(&ring, 1);
    raw_set_avail_event(&ring, 1);
    cr_assert_not(publish_and_kick(2));
    raw_set_used_flags(&ring, 0);
    cr_assert(publish_and_kick(2));
    raw_set_used_flags(&ring, 0xfffe);
    cr_assert(publish_and_kick(1), "only bit 0 counts");
}

Test(split_driver, kick_by_event)
{
    /* D-EVT-04: notify if the entry at avail_event was written; used.flags is ignored */
    open_driver(16, VIRTQ_EVENT_IDX);
    cr_assert(publish_and_kick(1), "L-EVT-06: event 0 takes the first");
    cr_assert_not(publish_and_kick(1));
    raw_set_avail_event(&ring, 3);
    cr_assert_not(publish_and_kick(1));
    raw_set_used_flags(&ring, 1);
    cr_assert(publish_and_kick(1));
    cr_assert_not(virtq_driver_kick_due(&driver), "nothing new");
    cr_assert_not(publish_and_kick(1));
}

Test(split_driver, kick_looks_at_the_whole_batch)
{
    /* T-45: old is the index at the last decision, not idx - 1 */
    for (uint16_t event = 0; event < 16; event++) {
        open_driver(16, VIRTQ_EVENT_IDX);
        raw_set_avail_event(&ring, 100);
        cr_assert_not(publish_and_kick(3));
        raw_set_avail_event(&ring, event);
        cr_assert_eq(publish_and_kick(5), event >= 3 && event < 8, "event %d", event);
    }
}

Test(split_driver, kick_remembers_batches_it_did_not_kick_for)
{
    /* T-45: old moves at every decision, also when no kick was due */
    open_driver(16, VIRTQ_EVENT_IDX);
    raw_set_avail_event(&ring, 100);
    cr_assert_not(publish_and_kick(4));
    raw_set_avail_event(&ring, 2);
    cr_assert_not(publish_and_kick(1), "entry 2 belongs to the batch before");
    open_driver(16, 0);
    raw_set_used_flags(&ring, 1);
    cr_assert_not(publish_and_kick(4));
    raw_set_used_flags(&ring, 0);
    cr_assert_not(virtq_driver_kick_due(&driver));
}

Test(split_driver, kick_covers_batches_published_without_a_decision)
{
    /* D-EVT-04 */
    open_driver(16, VIRTQ_EVENT_IDX);
    raw_set_avail_event(&ring, 1);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(add_writable(64, i), 0);
        virtq_driver_publish(&driver);
    }
    cr_assert_eq(add_writable(64, 3), 0);
    cr_assert(virtq_driver_kick_due(&driver));
    raw_set_avail_event(&ring, 3);
    cr_assert_not(virtq_driver_kick_due(&driver), "entry 3 is added, not published");
}

Test(split_driver, kick_across_65535)
{
    /* T-44 */
    for (int event = 65530; event <= 65536 + 6; event++) {
        open_driver(8, VIRTQ_EVENT_IDX);
        start_driver_at(65533);
        raw_set_avail_event(&ring, (uint16_t)event);
        cr_assert_eq(publish_and_kick(5), event >= 65533 && event < 65538, "event %d", event);
    }
}

/* ---------------------------------------------------------------------------
 * Driver side: completions
 * --------------------------------------------------------------------------- */
Test(split_driver, takes_in_any_order)
{
    /* D-SPLIT-09, D-SPLIT-13: id, length and cookie of what the device completed */
    static const unsigned order[] = {2, 0, 3, 1};

    open_driver(4, 0);
    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
    publish_and_kick(4);
    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
    for (uint32_t i = 0; i < 4; i++)
        raw_complete(&ring, raw_avail_slot(&ring, (uint16_t)order[i]), 10 + i);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(virtq_driver_free_count(&driver), i);
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        cr_assert_eq(done.cookie, &cookies[order[i]]);
        cr_assert_eq(done.written, 10 + i);
    }
    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
    cr_assert_eq(virtq_driver_free_count(&driver), 4);
}

/* Adds a chain over the whole free list and checks that no descriptor is in it twice. */
static void expect_all_free(void)
{
    struct virtq_buffer buffer = buffer_of((uint16_t)ring.num, 0);
    uint16_t at = driver.added_idx;
    bool seen[MAX_SEGS] = {false};

    cr_assert_eq(virtq_driver_free_count(&driver), ring.num);
    cr_assert_eq(virtq_driver_add(&driver, &buffer, NULL), 0);
    at = raw_avail_slot(&ring, at);
    for (uint32_t i = 0; i < ring.num; i++, at = raw_desc_next(&ring, ring.desc, at)) {
        cr_assert_lt(at, ring.num);
        cr_assert_not(seen[at]);
        seen[at] = true;
    }
}

Test(split_driver, chains_return_all_their_descriptors)
{
    /* D-SPLIT-13: the free list is rebuilt from private links */
    static const unsigned order[] = {1, 3, 0, 2};
    struct virtq_buffer four = buffer_of(3, 1), three = buffer_of(0, 3);

    open_driver(16, 0);
    cr_assert_eq(virtq_driver_add(&driver, &four, NULL), 0);
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), 0);
    cr_assert_eq(add_writable(64, 0), 0);
    cr_assert_eq(virtq_driver_add(&driver, &three, NULL), 0);
    virtq_driver_publish(&driver);
    for (unsigned i = 0; i < 4; i++)
        raw_complete(&ring, raw_avail_slot(&ring, (uint16_t)order[i]), 0);
    while (virtq_driver_take(&driver, &done) == 1)
        continue;
    expect_all_free();
}

Test(split_driver, scribbled_descriptors_do_not_reach_the_free_list)
{
    /* T-51: nothing is read back from the descriptor table */
    struct virtq_buffer four = buffer_of(3, 1);

    open_driver(8, 0);
    cr_assert_eq(virtq_driver_add(&driver, &four, NULL), 0);
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 1);
    raw_complete(&ring, raw_avail_slot(&ring, 1), 1);
    memset(ring.desc, 0xff, raw_desc_bytes(8));
    memset(ring.avail, 0xff, raw_avail_bytes(8));
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    expect_all_free();
}

Test(split_driver, indices_are_free_running)
{
    /* T-42: idx is not masked, only the slot is; across 65535 on both rings */
    open_driver(4, 0);
    start_driver_at(65533);
    for (unsigned i = 0; i < 8; i++) {
        uint16_t idx = (uint16_t)(65533 + i);

        cr_assert_eq(add_writable(64, i), 0);
        virtq_driver_publish(&driver);
        cr_assert_eq(raw_avail_idx(&ring), (uint16_t)(idx + 1));
        raw_complete(&ring, raw_avail_slot(&ring, idx), i);
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        cr_assert_eq(done.cookie, &cookies[i]);
        cr_assert_eq(done.written, i);
    }
    cr_assert_eq(raw_avail_idx(&ring), 5);
}

Test(split_driver, full_ring_across_65535)
{
    /* L-SPLIT-05 */
    open_driver(8, 0);
    start_driver_at(65530);
    publish_and_kick(8);
    cr_assert_eq(raw_avail_idx(&ring), 2);
    for (unsigned i = 8; i-- != 0;)
        raw_complete(&ring, raw_avail_slot(&ring, (uint16_t)(65530 + i)), i);
    for (unsigned i = 8; i-- != 0;) {
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        cr_assert_eq(done.cookie, &cookies[i]);
    }
    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
}

Test(split_driver, largest_queue)
{
    /* L-SPLIT-05: 32768 entries, all outstanding; T-60: event words behind the actual size */
    open_driver(32768, VIRTQ_EVENT_IDX);
    start_driver_at(40000);
    raw_set_avail_event(&ring, 40000);
    cr_assert(publish_and_kick(32768));
    cr_assert_eq(raw_avail_idx(&ring), (uint16_t)(40000 + 32768));
    cr_assert_eq(add_writable(1, 0), VIRTQ_ERR_FULL);
    for (uint32_t i = 0; i < 32768; i++)
        raw_complete(&ring, i, i % 65);
    for (uint32_t i = 0; i < 32768; i++)
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(virtq_driver_take(&driver, &done), 0);
    virtq_driver_irq_off(&driver);
    cr_assert_eq(raw_used_event(&ring), (uint16_t)(40000 + 32767));
}

/* ---------------------------------------------------------------------------
 * Driver side: a device that breaks the rules
 * --------------------------------------------------------------------------- */
static void expect_driver_broken(void)
{
    struct virtq_buffer pair = buffer_of(1, 1);
    struct virtq_table table = {.mem = guest.mem, .addr = guest.addr, .capacity = 64};

    for (unsigned i = 0; i < 2; i++) {
        cr_assert_neq(virtq_driver_error(&driver), 0);
        cr_assert_eq(virtq_driver_take(&driver, &done), VIRTQ_ERR_BROKEN);
        cr_assert_eq(add_writable(64, 0), VIRTQ_ERR_BROKEN);
        cr_assert_eq(virtq_driver_add_readable(&driver, segs[0], NULL), VIRTQ_ERR_BROKEN);
        cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], NULL), VIRTQ_ERR_BROKEN);
        cr_assert_eq(virtq_driver_add(&driver, &pair, NULL), VIRTQ_ERR_BROKEN);
        cr_assert_eq(virtq_driver_add_indirect(&driver, &pair, &table, NULL), VIRTQ_ERR_BROKEN);
        cr_assert_not(virtq_driver_irq_on(&driver), "a drain loop must end");
        cr_assert_not(virtq_driver_irq_on_after(&driver), "a drain loop must end");
        raw_set_used_idx(&ring, driver.taken_idx);
    }
}

static void expect_restart(void)
{
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
    cr_assert_eq(virtq_driver_error(&driver), 0);
    cr_assert(publish_and_kick(1));
    raw_complete(&ring, raw_avail_slot(&ring, 0), 64);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[0]);
}

static void expect_violation(int err)
{
    struct virtq_done untouched = {.cookie = &untouched, .written = 77};

    cr_assert_eq(virtq_driver_take(&driver, &untouched), err);
    cr_assert_eq(untouched.cookie, &untouched);
    cr_assert_eq(untouched.written, 77);
    expect_driver_broken();
    expect_restart();
}

Test(split_driver, used_idx_beyond_what_is_outstanding)
{
    /* D-SPLIT-12: idx - last seen <= outstanding */
    open_driver(8, VIRTQ_INDIRECT);
    publish_and_kick(3);
    raw_set_used_idx(&ring, 4);
    expect_violation(VIRTQ_ERR_USED_IDX);
}

Test(split_driver, used_idx_in_an_idle_queue)
{
    /* D-SPLIT-12 */
    open_driver(8, VIRTQ_INDIRECT | VIRTQ_EVENT_IDX);
    raw_set_used_idx(&ring, 1);
    expect_violation(VIRTQ_ERR_USED_IDX);
}

Test(split_driver, used_idx_runs_backwards)
{
    /* D-SPLIT-12 */
    open_driver(8, VIRTQ_INDIRECT);
    publish_and_kick(3);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 0);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    raw_set_used_idx(&ring, 0);
    expect_violation(VIRTQ_ERR_USED_IDX);
}

Test(split_driver, used_idx_counts_published_buffers_only)
{
    /* D-SPLIT-12: an added buffer is not yet the device's */
    open_driver(8, VIRTQ_INDIRECT);
    publish_and_kick(1);
    cr_assert_eq(add_writable(64, 1), 0);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 0);
    raw_complete(&ring, raw_avail_slot(&ring, 1), 0);
    expect_violation(VIRTQ_ERR_USED_IDX);
}

static void violate_id(uint32_t id)
{
    open_driver(8, VIRTQ_INDIRECT);
    publish_and_kick(3);
    raw_complete(&ring, id, 0);
    expect_violation(VIRTQ_ERR_USED_ID);
}

Test(split_driver, used_id_outside_the_table)
{
    /* T-49: id < queue size, all 32 bits of it */
    violate_id(8);
    violate_id(0xffff);
    violate_id(0x10000);
    violate_id(0xffffffff);
}

Test(split_driver, used_id_of_a_free_descriptor)
{
    /* T-50: an outstanding head, not just a number in range */
    bool busy[8] = {false};

    open_driver(8, VIRTQ_INDIRECT);
    publish_and_kick(3);
    for (uint16_t i = 0; i < 3; i++)
        busy[raw_avail_slot(&ring, i)] = true;
    for (uint32_t id = 0; id < 8; id++)
        if (!busy[id])
            violate_id(id);
}

Test(split_driver, used_id_in_the_middle_of_a_chain)
{
    /* T-50: only heads complete */
    struct virtq_buffer three = buffer_of(1, 2);

    for (unsigned steps = 1; steps <= 2; steps++) {
        uint32_t id;

        open_driver(8, VIRTQ_INDIRECT);
        three = buffer_of(1, 2);
        cr_assert_eq(virtq_driver_add(&driver, &three, NULL), 0);
        virtq_driver_publish(&driver);
        id = raw_desc_next(&ring, ring.desc, raw_avail_slot(&ring, 0));
        if (steps == 2)
            id = raw_desc_next(&ring, ring.desc, id);
        raw_complete(&ring, id, 0);
        expect_violation(VIRTQ_ERR_USED_ID);
    }
}

Test(split_driver, used_id_twice)
{
    /* T-50: no cookie is handed out twice */
    open_driver(8, VIRTQ_INDIRECT);
    publish_and_kick(3);
    raw_complete(&ring, raw_avail_slot(&ring, 1), 0);
    raw_complete(&ring, raw_avail_slot(&ring, 1), 0);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    expect_violation(VIRTQ_ERR_USED_ID);
}

Test(split_driver, used_len_beyond_the_writable_bytes)
{
    /* D-SPLIT-12: len <= writable bytes; readable ones do not count */
    struct virtq_buffer buffer = buffer_of(2, 2);

    open_driver(8, VIRTQ_INDIRECT);
    for (uint32_t len = 48 + 64; len <= 48 + 64 + 1; len++) {
        cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
        cr_assert_eq(virtq_driver_add(&driver, &buffer, NULL), 0);
        virtq_driver_publish(&driver);
        raw_complete(&ring, raw_avail_slot(&ring, 0), len);
        if (len == 48 + 64)
            cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    }
    expect_violation(VIRTQ_ERR_USED_LEN);
}

Test(split_driver, used_len_of_each_kind_of_add)
{
    /* D-SPLIT-12 */
    open_driver(8, VIRTQ_INDIRECT);
    cr_assert_eq(virtq_driver_add_readable(&driver, seg_of(0, 9), NULL), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 1);
    expect_violation(VIRTQ_ERR_USED_LEN);
    open_driver(8, VIRTQ_INDIRECT);
    cr_assert_eq(virtq_driver_add_pair(&driver, seg_of(0, 9), seg_of(0, 5), NULL), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 6);
    expect_violation(VIRTQ_ERR_USED_LEN);
    open_driver(8, VIRTQ_INDIRECT);
    cr_assert_eq(add_writable(5, 0), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 6);
    expect_violation(VIRTQ_ERR_USED_LEN);
    open_driver(8, VIRTQ_INDIRECT);
    cr_assert_eq(add_indirect(1, 1, 8), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 33);
    expect_violation(VIRTQ_ERR_USED_LEN);
}

Test(split_driver, legacy_used_len_is_clamped)
{
    /* D-LEG-06: used.len of a legacy device is unreliable */
    open_driver(8, VIRTQ_LEGACY);
    publish_and_kick(1);
    cr_assert_eq(virtq_driver_add_readable(&driver, seg_of(0, 9), &cookies[1]), 0);
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 0xffffffff);
    raw_complete(&ring, raw_avail_slot(&ring, 1), 9);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.written, 64);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[1]);
    cr_assert_eq(done.written, 0);
}

/* ---------------------------------------------------------------------------
 * Driver side: interrupts
 * --------------------------------------------------------------------------- */
Test(split_driver, irq_by_flag)
{
    /* D-EVT-01: avail.flags is 0 or 1; used_event stays as it is */
    open_driver(8, 0);
    publish_and_kick(4);
    raw_set_used_event(&ring, 0x5a5a);
    virtq_driver_irq_off(&driver);
    cr_assert_eq(raw_avail_flags(&ring), 1);
    cr_assert_not(virtq_driver_irq_on(&driver));
    cr_assert_eq(raw_avail_flags(&ring), 0);
    virtq_driver_irq_off(&driver);
    cr_assert_not(virtq_driver_irq_on_after(&driver));
    cr_assert_eq(raw_avail_flags(&ring), 0);
    cr_assert_eq(raw_used_event(&ring), 0x5a5a);
}

Test(split_driver, irq_by_event)
{
    /* T-47, D-EVT-03: used_event is the next entry to take, the flag stays 0 */
    open_driver(8, VIRTQ_EVENT_IDX);
    start_driver_at(65534);
    for (unsigned i = 0; i < 4; i++) {
        uint16_t idx = (uint16_t)(65534 + i);

        publish_and_kick(1);
        cr_assert_not(virtq_driver_irq_on(&driver));
        cr_assert_eq(raw_used_event(&ring), idx);
        raw_complete(&ring, raw_avail_slot(&ring, idx), 0);
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        virtq_driver_irq_off(&driver);
        cr_assert_eq(raw_used_event(&ring), idx, "D-EVT-07: left behind");
        cr_assert_eq(raw_avail_flags(&ring), 0);
    }
}

static void recheck_irq_on(uint16_t flags)
{
    open_driver(8, flags);
    publish_and_kick(2);
    raw_complete(&ring, raw_avail_slot(&ring, 0), 0);
    cr_assert(virtq_driver_irq_on(&driver));
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_not(virtq_driver_irq_on(&driver));
    raw_complete(&ring, raw_avail_slot(&ring, 1), 0);
    cr_assert(virtq_driver_irq_on(&driver));
}

Test(split_driver, irq_on_sees_what_came_before_it)
{
    /* T-48, D-SPLIT-10: re-check after enabling */
    recheck_irq_on(0);
    recheck_irq_on(VIRTQ_EVENT_IDX);
}

Test(split_driver, irq_on_after_three_quarters)
{
    /* D-EVT-03 */
    open_driver(8, VIRTQ_EVENT_IDX);
    start_driver_at(65532);
    publish_and_kick(8);
    cr_assert_not(virtq_driver_irq_on_after(&driver));
    cr_assert_eq(raw_used_event(&ring), (uint16_t)(65532 + 5), "the sixth of eight");
    for (uint16_t i = 0; i < 5; i++)
        raw_complete(&ring, raw_avail_slot(&ring, (uint16_t)(65532 + i)), 0);
    cr_assert_not(virtq_driver_irq_on_after(&driver), "five are too few");
    raw_complete(&ring, raw_avail_slot(&ring, (uint16_t)(65532 + 5)), 0);
    cr_assert(virtq_driver_irq_on_after(&driver));
    cr_assert_eq(raw_avail_flags(&ring), 0);
}

Test(split_driver, irq_on_after_with_few_or_none_outstanding)
{
    /* D-EVT-03: never an event that no completion can reach */
    open_driver(8, VIRTQ_EVENT_IDX);
    cr_assert_not(virtq_driver_irq_on_after(&driver));
    cr_assert_eq(raw_used_event(&ring), 0);
    for (unsigned outstanding = 1; outstanding <= 8; outstanding++) {
        publish_and_kick(1);
        cr_assert_not(virtq_driver_irq_on_after(&driver));
        cr_assert_lt(raw_used_event(&ring), outstanding);
        cr_assert_geq(4u * (raw_used_event(&ring) + 1u), 3 * outstanding);
    }
}

/* ---------------------------------------------------------------------------
 * Driver side: giving up
 * --------------------------------------------------------------------------- */
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

static void add_four_shapes(void)
{
    struct virtq_buffer buffer = buffer_of(1, 2);
    struct virtq_table table = {.mem = guest.mem, .addr = guest.addr, .capacity = 64};

    cr_assert_eq(add_writable(64, 0), 0);
    cr_assert_eq(virtq_driver_add_pair(&driver, segs[0], segs[1], &cookies[1]), 0);
    cr_assert_eq(virtq_driver_add(&driver, &buffer, &cookies[2]), 0);
    cr_assert_eq(virtq_driver_add_indirect(&driver, &buffer, &table, &cookies[3]), 0);
}

Test(split_driver, detach_returns_each_cookie_once)
{
    /* D-CLEAN-02: buffers come back after a reset, also those never published */
    unsigned seen[4];

    open_driver(8, VIRTQ_INDIRECT);
    add_four_shapes();
    virtq_driver_publish(&driver);
    raw_complete(&ring, raw_avail_slot(&ring, 1), 0);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[1]);
    cr_assert_eq(detach_all(seen, 4), 3);
    cr_assert(seen[0] == 1 && seen[1] == 0 && seen[2] == 1 && seen[3] == 1);
    expect_driver_broken();
    expect_restart();
}

Test(split_driver, detach_works_on_a_broken_queue)
{
    /* D-CLEAN-02 */
    unsigned seen[4];

    open_driver(8, VIRTQ_INDIRECT);
    add_four_shapes();
    virtq_driver_publish(&driver);
    raw_set_used_idx(&ring, 5);
    cr_assert_eq(virtq_driver_take(&driver, &done), VIRTQ_ERR_USED_IDX);
    cr_assert_eq(detach_all(seen, 4), 4);
    cr_assert(seen[0] == 1 && seen[1] == 1 && seen[2] == 1 && seen[3] == 1);
}

Test(split_driver, detach_of_an_idle_queue)
{
    uint16_t at = 0;
    void *cookie = &at;

    open_driver(1, 0);
    cr_assert_not(virtq_driver_detach(&driver, &at, &cookie));
    cr_assert_eq(cookie, &at);
    cr_assert_neq(virtq_driver_error(&driver), 0);
}

/* ---------------------------------------------------------------------------
 * Device side: start
 * --------------------------------------------------------------------------- */
Test(split_device, init_writes_nothing)
{
    /* V-SPLIT-02: the device never writes the descriptor table */
    uint64_t before;

    open_ring(8, 0, 0x5a);
    before = hash(driver_memory_hash(), ring.used, raw_used_bytes(8));
    cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), 0);
    cr_assert_eq(hash(driver_memory_hash(), ring.used, raw_used_bytes(8)), before);
    cr_assert_eq(virtq_device_error(&device), 0);
}

Test(split_device, init_refuses_a_bad_size)
{
    /* L-SPLIT-05 */
    struct virtq_device untouched;

    open_device(8, 0);
    untouched = device;
    areas.num = 12;
    cr_assert_eq(virtq_device_init(&device, &areas, map_guest, &guest), VIRTQ_ERR_SIZE);
    areas.num = 0;
    cr_assert_eq(virtq_device_init(&device, &areas, map_guest, &guest), VIRTQ_ERR_SIZE);
    cr_assert_eq(memcmp(&device, &untouched, sizeof(device)), 0);
}

/* ---------------------------------------------------------------------------
 * Device side: chains
 * --------------------------------------------------------------------------- */
static void desc(uint32_t i, uint64_t addr, uint32_t len, unsigned flags, uint32_t next)
{
    raw_desc(&ring, ring.desc, i, addr, len, (uint16_t)flags, (uint16_t)next);
}

static void table_entry(uint32_t i, uint64_t addr, uint32_t len, unsigned flags, uint32_t next)
{
    raw_desc(&ring, guest.mem, i, addr, len, (uint16_t)flags, (uint16_t)next);
}

/* Offers `head`, which must pop as a chain of this shape. */
static void expect_pop(uint16_t head, uint16_t readable, uint16_t writable)
{
    raw_offer(&ring, head);
    cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    cr_assert_eq(chain.readable, readable);
    cr_assert_eq(chain.writable, writable);
}

/* Offers `head`, which must be refused alone: the queue goes on. */
static void expect_bad_chain(uint16_t head, int err)
{
    uint16_t used = raw_used_idx(&ring);

    raw_offer(&ring, head);
    cr_assert_eq(virtq_device_pop(&device, &chain), err);
    cr_assert(virtq_err_names_chain(err));
    cr_assert_eq(chain.token, head);
    cr_assert_eq(virtq_device_error(&device), 0);
    virtq_device_push(&device, chain.token, 0);
    virtq_device_flush(&device);
    cr_assert_eq(raw_used_id(&ring, used), head);
    cr_assert_eq(raw_used_len(&ring, used), 0);
    cr_assert_eq(raw_used_idx(&ring), (uint16_t)(used + 1));
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
}

static void expect_seg(unsigned i, uint64_t addr, uint32_t len)
{
    cr_assert_eq(segs[i].addr, addr);
    cr_assert_eq(segs[i].len, len);
}

Test(split_device, pops_single_segments)
{
    /* L-SPLIT-01, L-SPLIT-02: by the bytes a driver writes */
    open_device(4, 0);
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
    desc(3, UINT64_C(0x1122334455667788), 0x99aabbcc, 0, 0xffff);
    expect_pop(3, 1, 0);
    cr_assert_eq(chain.token, 3);
    expect_seg(0, UINT64_C(0x1122334455667788), 0x99aabbcc);
    desc(1, 0x2000, 16, RAW_WRITE, 0xffff);
    expect_pop(1, 0, 1);
    cr_assert_eq(chain.token, 1);
    expect_seg(0, 0x2000, 16);
    desc(2, 0x3000, 0, 0, 0);
    expect_pop(2, 1, 0);
    expect_seg(0, 0x3000, 0);
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
}

Test(split_device, unknown_descriptor_flags_are_ignored)
{
    open_device(4, VIRTQ_INDIRECT);
    desc(0, 0x2000, 16, 0xfff8 | RAW_WRITE, 0xffff);
    expect_pop(0, 0, 1);
}

Test(split_device, pops_a_chain_in_link_order)
{
    /* D-SPLIT-08, D-VQ-01 */
    open_device(8, 0);
    desc(5, 0x1000, 1, RAW_NEXT, 2);
    desc(2, 0x2000, 2, RAW_NEXT, 7);
    desc(7, 0x3000, 3, RAW_NEXT | RAW_WRITE, 0);
    desc(0, 0x4000, 4, RAW_WRITE, 5);
    expect_pop(5, 2, 2);
    cr_assert_eq(chain.token, 5);
    for (unsigned i = 0; i < 4; i++)
        expect_seg(i, 0x1000u * (i + 1), i + 1);
}

/* All descriptors in a chain; the last ends it or, with NEXT, links to `next`. */
static void link_all(unsigned last_flags, uint32_t next)
{
    for (uint32_t i = 0; i + 1 < ring.num; i++)
        desc(i, 0x1000, 1, RAW_NEXT, i + 1);
    desc(ring.num - 1, 0x1000, 1, last_flags, next);
}

Test(split_device, chain_of_exactly_the_queue_size)
{
    /* D-SPLIT-03: legal */
    for (uint16_t num = 1; num <= 32; num = (uint16_t)(num * 2)) {
        open_device(num, 0);
        link_all(0, 0);
        expect_pop(0, num, 0);
    }
}

Test(split_device, loops_end)
{
    /* T-54: the walk is bounded by the queue size */
    for (uint16_t num = 1; num <= 32; num = (uint16_t)(num * 2))
        for (uint32_t next = 0; next < num; next += 3) {
            open_device(num, 0);
            link_all(RAW_NEXT, next);
            expect_bad_chain(0, VIRTQ_ERR_CHAIN_LOOP);
        }
}

Test(split_device, loop_longer_than_the_segment_array)
{
    /* T-54 */
    open_device(256, 0);
    link_all(RAW_NEXT, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_CAPACITY);
}

Test(split_device, link_outside_the_table)
{
    /* V-SPLIT-06: next < table size */
    open_device(8, 0);
    desc(0, 0x1000, 1, RAW_NEXT, 8);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_NEXT);
    desc(0, 0x1000, 1, RAW_NEXT, 0xffff);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_NEXT);
    desc(0, 0x1000, 1, RAW_NEXT, 7);
    desc(7, 0x1000, 1, RAW_NEXT, 9);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_NEXT);
}

Test(split_device, readable_after_writable)
{
    /* D-VQ-01 */
    open_device(8, 0);
    desc(0, 0x1000, 1, RAW_NEXT | RAW_WRITE, 1);
    desc(1, 0x1000, 1, 0, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_ORDER);
}

Test(split_device, address_past_the_end)
{
    /* T-55: addr + len does not wrap, in single, chained and table segments */
    open_device(8, VIRTQ_INDIRECT);
    desc(0, UINT64_MAX - 15, 17, 0, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_LENGTH);
    desc(0, UINT64_MAX, UINT32_MAX, RAW_WRITE, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_LENGTH);
    desc(0, 0x1000, 1, RAW_NEXT, 1);
    desc(1, UINT64_MAX - 15, 17, 0, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_LENGTH);
    table_entry(0, UINT64_MAX - 15, 17, 0, 0);
    desc(0, guest.addr, 16, RAW_INDIRECT, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_LENGTH);
    desc(0, UINT64_MAX - 15, 15, 0, 0);
    expect_pop(0, 1, 0);
}

Test(split_device, chain_of_more_than_4_gib)
{
    /* D-SPLIT-02: chain total <= 2^32 bytes */
    open_device(8, VIRTQ_INDIRECT);
    desc(0, 0x1000, 0xffffffff, RAW_NEXT, 1);
    desc(1, 0x1000, 2, RAW_WRITE, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_LENGTH);
    table_entry(0, 0x1000, 2, RAW_WRITE, 0);
    desc(1, guest.addr, 16, RAW_INDIRECT, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_LENGTH);
    desc(1, 0x1000, 1, RAW_WRITE, 0);
    expect_pop(0, 1, 1);
}

Test(split_device, chain_longer_than_the_segment_array)
{
    /* V-VQ-02: a device may cap the chain length; the buffer goes back empty, the queue goes on */
    open_device(8, VIRTQ_INDIRECT);
    chain.capacity = 2;
    desc(0, 0x1000, 1, RAW_NEXT, 1);
    desc(1, 0x1000, 1, RAW_NEXT, 2);
    desc(2, 0x1000, 1, RAW_WRITE, 0);
    segs[2] = seg_of(0xdead, 0xbeef);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_CAPACITY);
    for (uint32_t i = 0; i < 3; i++)
        table_entry(i, 0x1000, 1, i < 2 ? RAW_NEXT : 0, i + 1);
    desc(3, guest.addr, 48, RAW_INDIRECT, 0);
    expect_bad_chain(3, VIRTQ_ERR_CHAIN_CAPACITY);
    expect_seg(2, 0xdead, 0xbeef);
    desc(0, 0x1000, 1, RAW_NEXT, 2);
    expect_pop(0, 1, 1);
}

/* ---------------------------------------------------------------------------
 * Device side: indirect tables
 * --------------------------------------------------------------------------- */
/* `count` entries, linked in reverse after entry 0, the last one writable. */
static void fill_table(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = i == 0 ? 0 : count - i, next = count - i - 1;

        table_entry(at, 0x1000u * (i + 1), i + 1, i + 1 != count ? RAW_NEXT : RAW_WRITE, next);
    }
}

Test(split_device, table_starts_at_entry_0)
{
    /* D-IND-04: first entry 0, chained by next inside the table */
    open_device(4, VIRTQ_INDIRECT);
    fill_table(4);
    desc(2, guest.addr, 64, RAW_INDIRECT, 0xffff);
    expect_pop(2, 3, 1);
    cr_assert_eq(chain.token, 2);
    cr_assert_eq(guest.maps, 1);
    for (unsigned i = 0; i < 4; i++)
        expect_seg(i, 0x1000u * (i + 1), i + 1);
}

Test(split_device, table_after_plain_descriptors)
{
    /* V-IND-02, T-57: zero or more plain descriptors, then one table as the last */
    open_device(4, VIRTQ_INDIRECT);
    fill_table(2);
    desc(1, 0x7000, 7, RAW_NEXT, 3);
    desc(3, 0x8000, 8, RAW_NEXT, 0);
    desc(0, guest.addr, 32, RAW_INDIRECT, 0);
    expect_pop(1, 3, 1);
    cr_assert_eq(chain.token, 1);
    expect_seg(0, 0x7000, 7);
    expect_seg(1, 0x8000, 8);
    expect_seg(2, 0x1000, 1);
    expect_seg(3, 0x2000, 2);
}

Test(split_device, write_flag_of_a_table_is_ignored)
{
    /* V-IND-01, T-57 */
    open_device(4, VIRTQ_INDIRECT);
    fill_table(3);
    desc(0, guest.addr, 48, RAW_INDIRECT | RAW_WRITE, 0);
    expect_pop(0, 2, 1);
}

Test(split_device, table_at_any_address)
{
    /* T-56, V-IND-03: no alignment rule for tables */
    for (unsigned off = 0; off < 16; off++) {
        open_device(4, VIRTQ_INDIRECT);
        fill_table(4);
        memmove(guest.mem + off, guest.mem, 64);
        desc(0, guest.addr + off, 64, RAW_INDIRECT, 0);
        expect_pop(0, 3, 1);
        for (unsigned i = 0; i < 4; i++)
            expect_seg(i, 0x1000u * (i + 1), i + 1);
    }
}

Test(split_device, table_without_the_feature)
{
    /* D-IND-01 */
    open_device(4, 0);
    fill_table(1);
    desc(0, guest.addr, 16, RAW_INDIRECT, 0);
    expect_bad_chain(0, VIRTQ_ERR_INDIRECT_OFF);
    cr_assert_eq(guest.maps, 0);
}

Test(split_device, table_inside_a_table)
{
    /* D-IND-02: one level */
    open_device(4, VIRTQ_INDIRECT);
    table_entry(0, guest.addr, 16, RAW_INDIRECT, 0);
    desc(0, guest.addr, 16, RAW_INDIRECT, 0);
    expect_bad_chain(0, VIRTQ_ERR_INDIRECT_NESTED);
    table_entry(0, 0x1000, 16, RAW_NEXT, 1);
    table_entry(1, guest.addr, 16, RAW_INDIRECT | RAW_WRITE, 0);
    desc(0, guest.addr, 32, RAW_INDIRECT, 0);
    expect_bad_chain(0, VIRTQ_ERR_INDIRECT_NESTED);
    cr_assert_eq(guest.maps, 2);
}

Test(split_device, table_that_is_not_last)
{
    /* D-IND-03: never INDIRECT and NEXT together */
    open_device(4, VIRTQ_INDIRECT);
    fill_table(1);
    desc(0, guest.addr, 16, RAW_INDIRECT | RAW_NEXT, 1);
    expect_bad_chain(0, VIRTQ_ERR_INDIRECT_NEXT);
}

Test(split_device, table_of_odd_length)
{
    /* V-IND-03: length 0 and no multiple of 16 */
    static const uint32_t bad[] = {0, 1, 8, 15, 17, 24, 0xffffffff};

    open_device(4, VIRTQ_INDIRECT);
    fill_table(4);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        desc(0, guest.addr, bad[i], RAW_INDIRECT, 0);
        expect_bad_chain(0, VIRTQ_ERR_INDIRECT_LEN);
    }
    cr_assert_eq(guest.maps, 0);
}

Test(split_device, table_outside_memory)
{
    /* T-55 */
    open_device(4, VIRTQ_INDIRECT);
    desc(0, guest.addr - 16, 16, RAW_INDIRECT, 0);
    expect_bad_chain(0, VIRTQ_ERR_INDIRECT_MAP);
    desc(0, guest.addr, 0xfffffff0, RAW_INDIRECT, 0);
    expect_bad_chain(0, VIRTQ_ERR_INDIRECT_MAP);
}

Test(split_device, table_loops_end)
{
    /* T-54: the walk is bounded by the entries of the table */
    open_device(4, VIRTQ_INDIRECT);
    for (uint32_t next = 0; next < 8; next++) {
        for (uint32_t i = 0; i < 8; i++)
            table_entry(i, 0x1000, 1, RAW_NEXT, i < 7 ? i + 1 : next);
        desc(0, guest.addr, 128, RAW_INDIRECT, 0);
        expect_bad_chain(0, VIRTQ_ERR_CHAIN_LOOP);
    }
}

Test(split_device, table_link_outside_the_table)
{
    /* V-SPLIT-06: next < entries, though the queue is larger */
    open_device(16, VIRTQ_INDIRECT);
    table_entry(0, 0x1000, 1, RAW_NEXT, 2);
    table_entry(2, 0x1000, 1, 0, 0);
    desc(0, guest.addr, 32, RAW_INDIRECT, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_NEXT);
    table_entry(0, 0x1000, 1, RAW_NEXT, 0xffff);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_NEXT);
}

Test(split_device, order_counts_across_the_table)
{
    /* D-VQ-01, V-IND-02 */
    open_device(4, VIRTQ_INDIRECT);
    table_entry(0, 0x1000, 1, 0, 0);
    desc(0, 0x1000, 1, RAW_NEXT | RAW_WRITE, 1);
    desc(1, guest.addr, 16, RAW_INDIRECT, 0);
    expect_bad_chain(0, VIRTQ_ERR_CHAIN_ORDER);
    table_entry(0, 0x1000, 1, RAW_WRITE, 0);
    expect_pop(0, 0, 2);
}

/* ---------------------------------------------------------------------------
 * Device side: a driver that breaks the rules
 * --------------------------------------------------------------------------- */
static void expect_device_breaks(int err)
{
    uint64_t before = driver_memory_hash();

    cr_assert_eq(virtq_device_pop(&device, &chain), err);
    cr_assert_not(virtq_err_names_chain(err));
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_neq(virtq_device_error(&device), 0);
        cr_assert_eq(virtq_device_pop(&device, &chain), VIRTQ_ERR_BROKEN);
        cr_assert_not(virtq_device_kick_on(&device), "a drain loop must end");
    }
    cr_assert_eq(driver_memory_hash(), before);
    cr_assert_eq(virtq_device_init(&device, &areas, map_guest, &guest), 0);
    cr_assert_eq(virtq_device_error(&device), 0);
    raw_set_avail_idx(&ring, 0);
    desc(1, 0x1000, 1, 0, 0);
    expect_pop(1, 1, 0);
}

Test(split_device, avail_idx_jumps)
{
    /* V-SPLIT-06: avail.idx - last seen <= queue size */
    open_device(8, 0);
    raw_set_avail_idx(&ring, 9);
    expect_device_breaks(VIRTQ_ERR_AVAIL_IDX);
    open_device(8, VIRTQ_EVENT_IDX);
    start_device_at(65535);
    raw_set_avail_idx(&ring, 8);
    expect_device_breaks(VIRTQ_ERR_AVAIL_IDX);
    open_device(8, 0);
    raw_set_avail_idx(&ring, 8);
    cr_assert_eq(virtq_device_pop(&device, &chain), 1, "8 are legal");
}

Test(split_device, avail_idx_runs_backwards)
{
    /* D-SPLIT-04 */
    open_device(8, 0);
    raw_set_avail_idx(&ring, 65535);
    expect_device_breaks(VIRTQ_ERR_AVAIL_IDX);
    open_device(8, 0);
    expect_pop(0, 1, 0);
    expect_pop(1, 1, 0);
    raw_set_avail_idx(&ring, 1);
    expect_device_breaks(VIRTQ_ERR_AVAIL_IDX);
}

Test(split_device, in_flight_is_bounded_by_the_queue_size)
{
    /* V-SPLIT-06: a buffer holds a descriptor until it is pushed */
    open_device(4, 0);
    start_device_at(65533);
    for (uint16_t i = 0; i < 4; i++)
        expect_pop(i, 1, 0);
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
    virtq_device_push(&device, 2, 0);
    expect_pop(2, 1, 0);
    raw_offer(&ring, 2);
    expect_device_breaks(VIRTQ_ERR_AVAIL_IDX);
}

Test(split_device, head_outside_the_table)
{
    /* T-53: head index < queue size */
    open_device(8, 0);
    raw_offer(&ring, 8);
    expect_device_breaks(VIRTQ_ERR_AVAIL_HEAD);
    open_device(8, 0);
    raw_offer(&ring, 0xffff);
    raw_offer(&ring, 0);
    expect_device_breaks(VIRTQ_ERR_AVAIL_HEAD);
}

/* ---------------------------------------------------------------------------
 * Device side: completions
 * --------------------------------------------------------------------------- */
Test(split_device, push_exposes_nothing_before_flush)
{
    /* V-SPLIT-03 to V-SPLIT-05, L-SPLIT-03, L-VQ-03: entry {le32 id, le32 len} first, then idx */
    uint64_t before;

    open_device(4, 0);
    for (uint16_t i = 0; i < 3; i++)
        expect_pop(i, 1, 0);
    before = driver_memory_hash();
    virtq_device_push(&device, 2, 0x11223344);
    virtq_device_push(&device, 0, 7);
    cr_assert_eq(raw_used_idx(&ring), 0);
    virtq_device_flush(&device);
    cr_assert_eq(raw_used_idx(&ring), 2);
    cr_assert_eq(raw_used_id(&ring, 0), 2);
    cr_assert_eq(raw_used_len(&ring, 0), 0x11223344);
    cr_assert_eq(raw_used_id(&ring, 1), 0);
    cr_assert_eq(raw_used_len(&ring, 1), 7);
    cr_assert_eq(driver_memory_hash(), before, "V-SPLIT-02");
}

Test(split_device, indices_are_free_running)
{
    /* T-42 */
    open_device(4, 0);
    start_device_at(65534);
    for (uint16_t i = 0; i < 6; i++) {
        uint16_t idx = (uint16_t)(65534 + i);

        expect_pop(i % 4, 1, 0);
        virtq_device_push(&device, chain.token, i);
        virtq_device_flush(&device);
        cr_assert_eq(raw_used_idx(&ring), (uint16_t)(idx + 1));
        cr_assert_eq(raw_used_id(&ring, idx), i % 4);
        cr_assert_eq(raw_used_len(&ring, idx), i);
    }
}

static bool complete_and_irq(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        expect_pop((uint16_t)i, 1, 0);
        virtq_device_push(&device, chain.token, 0);
    }
    virtq_device_flush(&device);
    return virtq_device_irq_due(&device);
}

Test(split_device, irq_by_flag)
{
    /* V-EVT-01: flags 0 must notify, 1 should not; used_event is ignored */
    open_device(8, 0);
    raw_set_used_event(&ring, 0x7777);
    cr_assert(complete_and_irq(1));
    cr_assert_not(virtq_device_irq_due(&device), "nothing new");
    raw_set_avail_flags(&ring, 1);
    raw_set_used_event(&ring, 1);
    cr_assert_not(complete_and_irq(2));
    raw_set_avail_flags(&ring, 0);
    cr_assert_not(virtq_device_irq_due(&device), "old moved, T-45");
    cr_assert(complete_and_irq(2));
    raw_set_avail_flags(&ring, 0xfffe);
    cr_assert(complete_and_irq(1), "only bit 0 counts");
}

Test(split_device, irq_by_event)
{
    /* V-EVT-03: notify if the entry at used_event was written; avail.flags is ignored */
    open_device(8, VIRTQ_EVENT_IDX);
    cr_assert(complete_and_irq(1), "L-EVT-06: event 0 takes the first");
    cr_assert_not(complete_and_irq(1));
    raw_set_used_event(&ring, 3);
    cr_assert_not(complete_and_irq(1));
    raw_set_avail_flags(&ring, 1);
    cr_assert(complete_and_irq(1));
    cr_assert_not(virtq_device_irq_due(&device), "nothing new");
    cr_assert_not(complete_and_irq(1));
}

Test(split_device, irq_looks_at_the_whole_batch)
{
    /* T-45: old is the index at the last decision and moves at each, across 65535 too */
    for (int event = 65530; event < 65530 + 14; event++) {
        open_device(8, VIRTQ_EVENT_IDX);
        start_device_at(65530);
        raw_set_used_event(&ring, 100);
        cr_assert_not(complete_and_irq(4));
        raw_set_used_event(&ring, (uint16_t)event);
        cr_assert_eq(complete_and_irq(5), event >= 65534 && event < 65539, "event %d", event);
    }
}

/* ---------------------------------------------------------------------------
 * Device side: kicks
 * --------------------------------------------------------------------------- */
Test(split_device, kick_by_flag)
{
    /* V-EVT-02: used.flags is 0 or 1; avail_event stays as it is */
    open_device(8, 0);
    raw_set_avail_event(&ring, 0x5a5a);
    virtq_device_kick_off(&device);
    cr_assert_eq(raw_used_flags(&ring), 1);
    cr_assert_not(virtq_device_kick_on(&device));
    cr_assert_eq(raw_used_flags(&ring), 0);
    cr_assert_eq(raw_avail_event(&ring), 0x5a5a);
}

Test(split_device, kick_by_event)
{
    /* V-EVT-04: avail_event is the next entry to pop, the flag stays 0; T-60 */
    for (uint32_t num = 1; num <= 16384; num *= 4) {
        open_device((uint16_t)num, VIRTQ_EVENT_IDX);
        start_device_at(65535);
        cr_assert_not(virtq_device_kick_on(&device));
        cr_assert_eq(raw_avail_event(&ring), 65535);
        expect_pop(0, 1, 0);
        virtq_device_kick_off(&device);
        cr_assert_eq(raw_avail_event(&ring), 65535, "left behind");
        cr_assert_not(virtq_device_kick_on(&device));
        cr_assert_eq(raw_avail_event(&ring), 0);
        cr_assert_eq(raw_used_flags(&ring), 0);
    }
}

static void recheck_kick_on(uint16_t flags)
{
    open_device(8, flags);
    raw_offer(&ring, 0);
    raw_offer(&ring, 1);
    cr_assert(virtq_device_kick_on(&device));
    cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    cr_assert(virtq_device_kick_on(&device), "one left that was seen before");
    cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    cr_assert_not(virtq_device_kick_on(&device));
    raw_offer(&ring, 2);
    cr_assert(virtq_device_kick_on(&device));
}

Test(split_device, kick_on_sees_what_came_before_it)
{
    /* T-48 for the device side: re-check after enabling */
    recheck_kick_on(0);
    recheck_kick_on(VIRTQ_EVENT_IDX);
}

/* ---------------------------------------------------------------------------
 * Device side: moving
 * --------------------------------------------------------------------------- */
Test(split_device, another_side_goes_on_at_a_saved_position)
{
    struct virtq_position state;
    struct virtq_device second;

    open_device(8, VIRTQ_EVENT_IDX);
    start_device_at(65534);
    raw_set_used_event(&ring, 65534);
    cr_assert(complete_and_irq(3));
    raw_offer(&ring, 5);
    state = virtq_device_save(&device);
    cr_assert_eq(state.avail_idx, 1);
    cr_assert_eq(state.used_idx, 1);
    cr_assert_eq(virtq_device_init(&second, &areas, map_guest, &guest), 0);
    cr_assert_eq(virtq_device_restore(&second, state), 0);
    cr_assert_not(virtq_device_irq_due(&second), "all was signalled by the first");
    cr_assert_eq(virtq_device_pop(&second, &chain), 1);
    cr_assert_eq(chain.token, 5);
    virtq_device_push(&second, 5, 9);
    virtq_device_flush(&second);
    cr_assert_eq(raw_used_idx(&ring), 2);
    cr_assert_eq(raw_used_id(&ring, 1), 5);
}

Test(split_device, buffers_in_flight_are_popped_again)
{
    struct virtq_position state;

    open_device(8, 0);
    for (uint16_t i = 0; i < 3; i++)
        expect_pop(i, 1, 0);
    virtq_device_push(&device, 0, 0);
    virtq_device_flush(&device);
    state = virtq_device_save(&device);
    cr_assert_eq(state.avail_idx, 3);
    cr_assert_eq(state.used_idx, 1);
    state.avail_idx = state.used_idx;
    cr_assert_eq(virtq_device_restore(&device, state), 0);
    for (uint32_t i = 1; i < 3; i++) {
        cr_assert_eq(virtq_device_pop(&device, &chain), 1);
        cr_assert_eq(chain.token, i);
    }
    cr_assert_eq(virtq_device_pop(&device, &chain), 0);
}

Test(split_device, impossible_positions_are_refused)
{
    /* V-SPLIT-06: at most the queue size is in flight */
    static const struct virtq_position bad[] = {{0, 1}, {9, 0}, {65535, 65520}, {0, 65527}};

    open_device(8, 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(virtq_device_restore(&device, bad[i]), VIRTQ_ERR_POSITION, "%zu", i);
    raw_offer(&ring, 0);
    cr_assert_eq(virtq_device_pop(&device, &chain), 1, "nothing changed");
}

Test(split_device, wrong_positions_are_found_by_pop)
{
    /* V-SPLIT-06 */
    static const struct virtq_position bad[] = {{3, 0}, {65535, 65527}, {11, 9}};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        open_device(8, 0);
        cr_assert_eq(virtq_device_restore(&device, bad[i]), 0);
        raw_set_avail_idx(&ring, 2);
        cr_assert_eq(virtq_device_pop(&device, &chain), VIRTQ_ERR_AVAIL_IDX, "%zu", i);
    }
}

/* ---------------------------------------------------------------------------
 * Broken stays broken
 * --------------------------------------------------------------------------- */
Test(split_driver, broken_queue_publishes_nothing_and_takes_nothing)
{
    /* D-SPLIT-12: what was added and not published stays with the driver */
    open_driver(4, 0);
    cr_assert_eq(add_writable(8, 0), 0);
    virtq_driver_publish(&driver);
    cr_assert_eq(add_writable(8, 1), 0);
    raw_complete(&ring, 99, 0);
    cr_assert_eq(virtq_driver_take(&driver, &done), VIRTQ_ERR_USED_ID);
    virtq_driver_publish(&driver);
    cr_assert_eq(raw_avail_idx(&ring), 1);
    raw_set_used_slot(&ring, 0, raw_avail_slot(&ring, 0), 0);
    for (uint16_t idx = 0; idx < 6; idx++) {
        raw_set_used_idx(&ring, idx);
        cr_assert_eq(virtq_driver_take(&driver, &done), VIRTQ_ERR_BROKEN);
    }
    cr_assert_eq(virtq_driver_error(&driver), VIRTQ_ERR_USED_ID);
}

Test(split_device, broken_queue_pops_nothing_though_buffers_are_pushed)
{
    /* V-SPLIT-06 */
    open_device(4, 0);
    for (uint16_t i = 0; i < 3; i++) {
        desc(i, 0x1000, 1, RAW_WRITE, 0);
        raw_offer(&ring, i);
        cr_assert_eq(virtq_device_pop(&device, &chain), 1);
    }
    raw_offer(&ring, 77);
    cr_assert_eq(virtq_device_pop(&device, &chain), VIRTQ_ERR_AVAIL_HEAD);
    for (uint32_t i = 0; i < 3; i++) {
        virtq_device_push(&device, i, 0);
        virtq_device_flush(&device);
        raw_offer(&ring, 0);
        cr_assert_eq(virtq_device_pop(&device, &chain), VIRTQ_ERR_BROKEN);
    }
    cr_assert_eq(virtq_device_error(&device), VIRTQ_ERR_AVAIL_HEAD);
}

/* ---------------------------------------------------------------------------
 * Notifications that mean nothing
 * --------------------------------------------------------------------------- */
Test(split_driver, spurious_interrupts_are_harmless)
{
    /* D-VQ-03, L-EVT-08: there may be an interrupt with nothing used, whatever was asked for */
    uint64_t before;

    open_driver(8, VIRTQ_EVENT_IDX);
    for (unsigned outstanding = 0; outstanding <= 8; outstanding++) {
        virtq_driver_irq_off(&driver);
        before = driver_hash();
        for (unsigned times = 0; times < 3; times++)
            cr_assert_eq(virtq_driver_take(&driver, &done), 0);
        cr_assert_eq(driver_hash(), before);
        if (outstanding != 8)
            cr_assert_eq(add_writable(1, outstanding), 0);
        virtq_driver_publish(&driver);
    }
    raw_complete(&ring, raw_avail_slot(&ring, 3), 1);
    cr_assert_eq(virtq_driver_take(&driver, &done), 1);
    cr_assert_eq(done.cookie, &cookies[3]);
}

Test(split_device, spurious_kicks_are_harmless)
{
    /* V-VQ-03, V-NOTE-01, L-EVT-08: a kick is a reason to look, the ring says what there is */
    open_device(8, VIRTQ_EVENT_IDX);
    for (uint16_t n = 0; n < 20; n++) {
        virtq_device_kick_off(&device);
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        desc(n % 8u, 0x1000u * n, 1, RAW_WRITE, 0);
        raw_offer(&ring, n % 8u);
        cr_assert_eq(virtq_device_pop(&device, &chain), 1, "though no kick was asked for");
        cr_assert_eq(segs[0].addr, 0x1000u * n);
        virtq_device_push(&device, chain.token, 0);
        virtq_device_flush(&device);
    }
}

/* ---------------------------------------------------------------------------
 * Byte order
 * --------------------------------------------------------------------------- */
Test(split_legacy, rings_are_in_the_cpus_byte_order)
{
    /* L-LEG-05: guest-native endianness; a modern ring is little-endian */
    for (uint16_t flags = 0; flags <= VIRTQ_LEGACY; flags = (uint16_t)(flags + VIRTQ_LEGACY)) {
        bool big = flags != 0 && raw_cpu_is_big();

        open_driver(4, flags);
        publish_and_kick(1);
        cr_assert_eq(ring.avail[2], big ? 0 : 1);
        cr_assert_eq(ring.avail[3], big ? 1 : 0);
        open_device(4, flags);
        desc(0, 0x1000, 0x12345678, 0, 0);
        expect_pop(0, 1, 0);
        cr_assert_eq(chain.seg[0].len, 0x12345678);
        virtq_device_push(&device, 0, 0x0a0b0c0d);
        cr_assert_eq(ring.used[8], big ? 0x0a : 0x0d);
        cr_assert_eq(ring.used[11], big ? 0x0d : 0x0a);
    }
}
