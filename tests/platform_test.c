// SPDX-License-Identifier: MIT-0
/* VIRTQ_ORDER_PLATFORM: each of the four pairs uses the fence of its flavour, in the right place,
 * in both formats and on both sides. The fences are recorders: what is shown is the order of the
 * program, which is the same on every CPU. */
#include "tests/support/count_access.h"
#include "tests/support/test_config.h"

/* A platform whose fences towards a device are its own; each is told from the others, and from the
 * CPU's, by what it says to be at. */
static char platform_acquire, platform_release, platform_full;
#define VIRTIO_HAVE_PLATFORM_FENCES 1
#define VIRTIO_PLATFORM_ACQUIRE() access_note(ACCESS_FENCE, &platform_acquire, 0)
#define VIRTIO_PLATFORM_RELEASE() access_note(ACCESS_FENCE, &platform_release, 0)
#define VIRTIO_PLATFORM_FULL() access_note(ACCESS_FENCE, &platform_full, 0)

#include <criterion/criterion.h>
#include <string.h>

#include "virtio_ring.h"

enum { NUM = 8, PLATFORM = VIRTQ_ORDER_PLATFORM };

static _Alignas(64) uint8_t mem[VIRTQ_BYTES(NUM, 64)];
static struct virtq_areas areas;
static struct virtq_driver driver;
static struct virtq_device device;
static struct virtq_slot slots[NUM];
static struct virtq_seg segs[NUM];
static struct virtq_chain chain;
static struct virtq_done done;
static uint32_t tokens[NUM];

/* Every combination of format, event index, order and flavour. */
static const uint16_t properties[] = {VIRTQ_PACKED, VIRTQ_EVENT_IDX, VIRTQ_IN_ORDER, PLATFORM};

#define EACH_QUEUE(flags)                                                                          \
    for (uint16_t set_ = 0, flags = flags_of(0); set_ < 16; set_++, flags = flags_of(set_))

static uint16_t flags_of(unsigned set)
{
    uint16_t flags = 0;

    for (unsigned i = 0; i < 4; i++)
        if (set >> i & 1)
            flags |= properties[i];
    return flags;
}

static void open_both(uint16_t flags)
{
    virtq_areas_set(&areas, mem, NUM, 64, flags);
    chain.seg = segs;
    chain.capacity = NUM;
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
    cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), 0);
    access_count = 0;
}

/* ---------------------------------------------------------------------------
 * The words of the pairs
 * --------------------------------------------------------------------------- */
static const uint8_t *area(const void *at)
{
    return (const uint8_t *)at;
}

/* Where the driver publishes its buffer number `i`: the index, or the head's flags. */
static const uint8_t *avail_word(unsigned i)
{
    return areas.flags & VIRTQ_PACKED ? area(areas.desc) + 16 * i + 14 : area(areas.driver) + 2;
}
static const uint8_t *used_word(unsigned i)
{
    return areas.flags & VIRTQ_PACKED ? area(areas.desc) + 16 * i + 14 : area(areas.device) + 2;
}

/* What suppresses kicks, written by the device; and interrupts, written by the driver. */
static const uint8_t *kick_word(void)
{
    if (areas.flags & VIRTQ_PACKED || !(areas.flags & VIRTQ_EVENT_IDX))
        return area(areas.device);
    return area(areas.device) + 4 + 8 * NUM;
}
static const uint8_t *irq_word(void)
{
    if (areas.flags & VIRTQ_PACKED || !(areas.flags & VIRTQ_EVENT_IDX))
        return area(areas.driver);
    return area(areas.driver) + 4 + 2 * NUM;
}

/* ---------------------------------------------------------------------------
 * Questions to the log
 * --------------------------------------------------------------------------- */
static unsigned count_of(enum access_kind kind, const void *at)
{
    unsigned count = 0;

    for (unsigned i = 0; i < access_count; i++)
        count += access_log[i].kind == kind && access_log[i].at == at;
    return count;
}

static unsigned position(enum access_kind kind, const void *at)
{
    cr_assert_eq(count_of(kind, at), 1, "%u of kind %d", count_of(kind, at), (int)kind);
    for (unsigned i = 0; i < access_count; i++)
        if (access_log[i].kind == kind && access_log[i].at == at)
            return i;
    return ACCESS_MAX;
}

static unsigned count_kind(enum access_kind kind)
{
    unsigned count = 0;

    for (unsigned i = 0; i < access_count; i++)
        count += access_log[i].kind == kind;
    return count;
}

/* A call uses its own flavour and never the other one. */
static void expect_flavour(void)
{
    cr_assert_gt(access_count, 0);
    cr_assert_lt(access_count, ACCESS_MAX);
    if (areas.flags & PLATFORM) {
        cr_assert_eq(count_kind(ACCESS_LOAD_ACQUIRE), 0);
        cr_assert_eq(count_kind(ACCESS_STORE_RELEASE), 0);
        cr_assert_eq(count_of(ACCESS_FENCE, NULL), 0);
    } else {
        cr_assert_eq(count_of(ACCESS_FENCE, &platform_acquire), 0);
        cr_assert_eq(count_of(ACCESS_FENCE, &platform_release), 0);
        cr_assert_eq(count_of(ACCESS_FENCE, &platform_full), 0);
    }
}

/* The release store of `word` is the last access of all; with a fence of its own, that comes right
 * before it and after all others. */
static void expect_released(const uint8_t *word)
{
    expect_flavour();
    if (areas.flags & PLATFORM) {
        cr_assert_eq(position(ACCESS_STORE_RELAXED, word), access_count - 1);
        cr_assert_eq(position(ACCESS_FENCE, &platform_release), access_count - 2);
    } else {
        cr_assert_eq(position(ACCESS_STORE_RELEASE, word), access_count - 1);
        cr_assert_eq(count_kind(ACCESS_FENCE), 0);
    }
    cr_assert_gt(access_count, 2, "what it publishes is in the log too");
}

/* The acquire load of `word` comes at `from`; with a fence of its own, that follows at once. */
static void expect_acquired(const uint8_t *word, unsigned from)
{
    expect_flavour();
    if (areas.flags & PLATFORM) {
        cr_assert_eq(position(ACCESS_LOAD_RELAXED, word), from);
        cr_assert_eq(access_log[from + 1].kind, ACCESS_FENCE);
        cr_assert_eq(access_log[from + 1].at, &platform_acquire);
    } else {
        cr_assert_eq(position(ACCESS_LOAD_ACQUIRE, word), from);
    }
}

static unsigned full_fence(void)
{
    return position(ACCESS_FENCE, areas.flags & PLATFORM ? &platform_full : NULL);
}

/* Store of `mine`, full fence, load of `other`, with nothing between the two but the fence. */
static void expect_full_between(unsigned store, unsigned load)
{
    expect_flavour();
    cr_assert_lt(store, full_fence());
    cr_assert_gt(load, full_fence());
}

/* ---------------------------------------------------------------------------
 * One step of each side
 * --------------------------------------------------------------------------- */
static void add_and_publish(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct virtq_seg seg;

        seg.addr = 0x1000;
        seg.len = 64;
        cr_assert_eq(virtq_driver_add_writable(&driver, seg, NULL), 0);
    }
    virtq_driver_publish(&driver);
}

static void pop(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        cr_assert_eq(virtq_device_pop(&device, &chain), 1);
        tokens[i] = chain.token;
    }
}

static void push_and_flush(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        virtq_device_push(&device, tokens[i], 8);
    virtq_device_flush(&device);
}

/* ---------------------------------------------------------------------------
 * Pairs A and B
 * --------------------------------------------------------------------------- */
Test(order_platform, pair_a_publish_is_a_release)
{
    /* D-RES-04, D-SPLIT-05, D-PACK-08: after all descriptors and slots of three buffers */
    EACH_QUEUE(flags) {
        open_both(flags);
        add_and_publish(3);
        expect_released(avail_word(0));
    }
}

Test(order_platform, pair_a_pop_is_an_acquire)
{
    /* D-RES-04, V-SPLIT-07: before the descriptor and all else */
    EACH_QUEUE(flags) {
        open_both(flags);
        add_and_publish(1);
        access_count = 0;
        pop(1);
        expect_acquired(avail_word(0), 0);
        cr_assert_gt(count_kind(ACCESS_LOAD), 2, "address, length, flags or id");
    }
}

Test(order_platform, pair_a_pop_of_an_empty_ring_reads_one_word)
{
    /* D-RES-04 */
    EACH_QUEUE(flags) {
        open_both(flags);
        cr_assert_eq(virtq_device_pop(&device, &chain), 0);
        expect_acquired(avail_word(0), 0);
        cr_assert_eq(access_count, flags & PLATFORM ? 2 : 1);
    }
}

Test(order_platform, pair_b_flush_is_a_release)
{
    /* D-RES-04, V-SPLIT-05, V-PACK-08: after all entries */
    EACH_QUEUE(flags) {
        open_both(flags);
        add_and_publish(3);
        pop(3);
        access_count = 0;
        push_and_flush(3);
        expect_released(used_word(0));
    }
}

Test(order_platform, pair_b_take_is_an_acquire)
{
    /* D-RES-04, D-SPLIT-11, D-PACK-12: before id and length */
    EACH_QUEUE(flags) {
        open_both(flags);
        add_and_publish(1);
        pop(1);
        push_and_flush(1);
        access_count = 0;
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        expect_acquired(used_word(0), 0);
        cr_assert_eq(count_kind(ACCESS_LOAD), 2);
    }
}

Test(order_platform, pair_b_take_batch_is_an_acquire)
{
    /* D-RES-04: one for all in a split ring, one for each in a packed one */
    EACH_QUEUE(flags) {
        struct virtq_done all[4];

        open_both(flags);
        add_and_publish(3);
        pop(3);
        push_and_flush(3);
        access_count = 0;
        cr_assert_eq(virtq_driver_take_batch(&driver, all, 3), 3);
        expect_acquired(used_word(0), 0);
        cr_assert_eq(count_kind(ACCESS_LOAD), 6);
        if (flags & VIRTQ_PACKED && flags & PLATFORM)
            cr_assert_eq(count_of(ACCESS_FENCE, &platform_acquire), 3);
    }
}

/* ---------------------------------------------------------------------------
 * Pairs C and D
 * --------------------------------------------------------------------------- */
/* Position of the store that publishes, in the flavour of the queue. */
static unsigned published_at(const uint8_t *word)
{
    return position(areas.flags & PLATFORM ? ACCESS_STORE_RELAXED : ACCESS_STORE_RELEASE, word);
}

/* Position of the last acquire load of `word`. */
static unsigned looked_at(const uint8_t *word)
{
    return position(areas.flags & PLATFORM ? ACCESS_LOAD_RELAXED : ACCESS_LOAD_ACQUIRE, word);
}

Test(order_platform, pair_c_kick_due)
{
    /* D-RES-04, D-SPLIT-06, D-PACK-09, T-43: between our index and the device's suppression */
    EACH_QUEUE(flags) {
        open_both(flags);
        add_and_publish(1);
        cr_assert(virtq_driver_kick_due(&driver));
        expect_full_between(published_at(avail_word(0)),
                            position(ACCESS_LOAD_RELAXED, kick_word()));
    }
}

Test(order_platform, pair_c_kick_on)
{
    /* D-RES-04, T-48: between our suppression and the look at the driver's index */
    EACH_QUEUE(flags) {
        open_both(flags);
        cr_assert_not(virtq_device_kick_on(&device));
        expect_full_between(position(ACCESS_STORE_RELAXED, kick_word()), looked_at(avail_word(0)));
    }
}

Test(order_platform, pair_d_irq_due)
{
    /* D-RES-04, T-43: between our index and the driver's suppression */
    EACH_QUEUE(flags) {
        open_both(flags);
        add_and_publish(1);
        pop(1);
        access_count = 0;
        push_and_flush(1);
        cr_assert(virtq_device_irq_due(&device));
        expect_full_between(published_at(used_word(0)), position(ACCESS_LOAD_RELAXED, irq_word()));
    }
}

static void check_irq_on(uint16_t flags, bool after)
{
    open_both(flags);
    add_and_publish(1);
    access_count = 0;
    cr_assert_not(after ? virtq_driver_irq_on_after(&driver) : virtq_driver_irq_on(&driver));
    expect_full_between(position(ACCESS_STORE_RELAXED, irq_word()), looked_at(used_word(0)));
}

Test(order_platform, pair_d_irq_on)
{
    /* D-RES-04, D-SPLIT-10, T-48: between our suppression and the look at the device's index */
    EACH_QUEUE(flags) {
        check_irq_on(flags, false);
        check_irq_on(flags, true);
    }
}

Test(order_platform, nothing_else_is_fenced)
{
    /* D-RES-04 costs nothing where no pair is: add, push, and asking for silence */
    EACH_QUEUE(flags) {
        struct virtq_seg seg = {0x1000, 64};

        open_both(flags);
        add_and_publish(1);
        pop(1);
        access_count = 0;
        cr_assert_eq(virtq_driver_add_writable(&driver, seg, NULL), 0);
        virtq_device_push(&device, tokens[0], 0);
        virtq_driver_irq_off(&driver);
        virtq_device_kick_off(&device);
        cr_assert_eq(count_kind(ACCESS_FENCE), 0);
        cr_assert_eq(count_kind(ACCESS_LOAD_ACQUIRE), 0);
        cr_assert_eq(count_kind(ACCESS_STORE_RELEASE), 0);
    }
}

/* ---------------------------------------------------------------------------
 * What is not compiled in
 * --------------------------------------------------------------------------- */
VIRTIO_STATIC_ASSERT((VIRTIO_RING_FLAGS & VIRTQ_FOREIGN_ENDIAN) == 0, "left out by default");

Test(order_platform, foreign_endian_is_refused_where_it_is_not_compiled_in)
{
    /* L-LEG-05: rather than served in the wrong order; the memory is not touched */
    virtq_areas_set(&areas, mem, NUM, 64, VIRTQ_LEGACY | VIRTQ_FOREIGN_ENDIAN);
    memset(mem, 0xa5, sizeof(mem));
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), VIRTQ_ERR_FLAGS);
    cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), VIRTQ_ERR_FLAGS);
    for (unsigned i = 0; i < sizeof(mem); i++)
        cr_assert_eq(mem[i], 0xa5);
    areas.flags = VIRTQ_LEGACY;
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
    cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), 0);
}
