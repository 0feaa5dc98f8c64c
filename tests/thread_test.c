// SPDX-License-Identifier: MIT-0
/* Driver and device in two threads that sleep when they have nothing to do and trust the other's
 * doorbell to wake them. A lost wake-up leaves both asleep with buffers outstanding, which is seen at
 * once: each sleeper watches for the other being asleep with no bell rung.
 *
 * Clean under -fsanitize=thread (gcc needs -Wno-tsan for the fences): the data is ordered by the
 * acquire and release accesses of pairs A and B, which TSan models. The full fences of pairs C and D
 * carry no data, so that TSan's blindness to fences gives no false report, and no proof either: for
 * them there are the lost wake-ups of this test and the order of accesses in fetch_test.c. */
#include "tests/support/test_config.h"

#include <criterion/criterion.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "tests/support/raw_ring.h"
#include "virtio_ring.h"

enum { DRIVER, DEVICE, MOST = 256 };

/* A doorbell and its sleeper. `naps` is odd while asleep. */
struct bell {
    atomic_bool rung;
    atomic_uint naps;
    atomic_ulong rings;
};

/* What a buffer carries: plain memory, so that TSan sees any access that the ring does not order. */
struct message {
    uint32_t question;
    uint32_t answer;
};

static struct raw_ring ring;
static struct virtq_areas areas;
static struct virtq_driver driver;
static struct virtq_device device;
static struct virtq_slot slots[MOST];
static struct message messages[MOST];
static struct virtq_split_desc tables[MOST][2];
static struct bell bells[2];
static atomic_bool stop, lost;
static atomic_int failure; /* line of the first check that failed in a thread */
static uint32_t total;

static bool stopped(void)
{
    return atomic_load_explicit(&stop, memory_order_relaxed);
}

/* Criterion's checks belong to the main thread. */
static bool check_at(bool condition, int line)
{
    int none = 0;

    if (!condition) {
        atomic_compare_exchange_strong(&failure, &none, line);
        atomic_store(&stop, true);
    }
    return condition;
}
#define CHECK(condition) check_at((condition), __LINE__)

/* ---------------------------------------------------------------------------
 * Doorbells
 * --------------------------------------------------------------------------- */
static void bell_ring(unsigned who)
{
    atomic_fetch_add_explicit(&bells[who].rings, 1, memory_order_relaxed);
    atomic_store(&bells[who].rung, true);
}

/* Both asleep and nobody called: only the other could ring `me` and only I the other, so the two
 * flags are settled as long as the other did not wake in between. */
static bool both_asleep(unsigned me)
{
    struct bell *other = &bells[1 - me];
    unsigned nap = atomic_load(&other->naps);

    return nap % 2 != 0 && !atomic_load(&other->rung) && !atomic_load(&bells[me].rung) &&
           atomic_load(&other->naps) == nap;
}

static void bell_wait(unsigned me)
{
    unsigned spins = 0;

    atomic_fetch_add(&bells[me].naps, 1);
    while (!atomic_load(&bells[me].rung) && !atomic_load(&stop)) {
        if (both_asleep(me)) {
            atomic_store(&lost, true);
            atomic_store(&stop, true);
        }
        if (++spins % 64 == 0)
            sched_yield();
    }
    atomic_fetch_add(&bells[me].naps, 1);
    atomic_store(&bells[me].rung, false);
}

/* ---------------------------------------------------------------------------
 * Driver
 * --------------------------------------------------------------------------- */
static uint32_t random_below(uint32_t *state, uint32_t limit)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 16) % limit;
}

static void driver_add(struct message *message, uint32_t value, bool indirect)
{
    uint32_t index = (uint32_t)(message - messages);
    uint64_t at = (uint64_t)(uintptr_t)message;
    struct virtq_seg seg[2] = {{at, 4}, {at + 4, 4}};
    struct virtq_buffer buffer = {seg, 1, 1};
    struct virtq_table table = {tables[index], (uint64_t)(uintptr_t)tables[index], 2};

    message->question = value;
    message->answer = 0;
    if (indirect)
        CHECK(virtq_driver_add_indirect(&driver, &buffer, &table, message) == 0);
    else
        CHECK(virtq_driver_add_pair(&driver, seg[0], seg[1], message) == 0);
}

static uint32_t driver_drain(struct message **unused, uint32_t count)
{
    struct virtq_done done = {NULL, 0};
    int got;

    while ((got = virtq_driver_take(&driver, &done)) == 1) {
        struct message *message = (struct message *)done.cookie;

        CHECK(done.written == 4 && message->answer == ~message->question);
        unused[count++] = message;
    }
    CHECK(got == 0);
    return count;
}

static void *driver_main(void *arg)
{
    struct message *unused[MOST];
    uint32_t random = 1, sent = 0, count = areas.num;

    for (uint32_t i = 0; i < count; i++)
        unused[i] = &messages[i];
    while ((sent != total || count != areas.num) && !stopped()) {
        uint32_t batch = 1 + random_below(&random, random_below(&random, 4) == 0 ? MOST : 3);

        while (batch-- != 0 && sent != total && virtq_driver_free_count(&driver) >= 2)
            driver_add(unused[--count], sent++, random_below(&random, 2) != 0);
        virtq_driver_publish(&driver);
        if (virtq_driver_kick_due(&driver))
            bell_ring(DEVICE);
        if (random_below(&random, 4) == 0)
            virtq_driver_irq_off(&driver);
        count = driver_drain(unused, count);
        if (count == areas.num || (sent != total && random_below(&random, 3) == 0))
            continue;
        if (random_below(&random, 4) == 0 ? virtq_driver_irq_on_after(&driver)
                                          : virtq_driver_irq_on(&driver))
            continue;
        bell_wait(DRIVER);
    }
    atomic_store(&stop, true);
    return arg;
}

/* ---------------------------------------------------------------------------
 * Device
 * --------------------------------------------------------------------------- */
static void device_flush(void)
{
    virtq_device_flush(&device);
    if (virtq_device_irq_due(&device))
        bell_ring(DRIVER);
}

static void device_serve(const struct virtq_chain *chain)
{
    const uint32_t *question;
    uint32_t *answer;

    if (!CHECK(chain->readable == 1 && chain->writable == 1))
        return;
    question = (const uint32_t *)(uintptr_t)chain->seg[0].addr;
    answer = (uint32_t *)(uintptr_t)chain->seg[1].addr;
    *answer = ~*question;
}

static void *device_main(void *arg)
{
    struct virtq_seg seg[2];
    struct virtq_chain chain = {.seg = seg, .capacity = 2};
    uint32_t random = 2;

    while (!stopped()) {
        int got = virtq_device_pop(&device, &chain);

        CHECK(got >= 0);
        if (got == 1) {
            device_serve(&chain);
            virtq_device_push(&device, chain.token, 4);
            if (random_below(&random, 4) == 0)
                device_flush();
            if (random_below(&random, 8) == 0)
                virtq_device_kick_off(&device);
            continue;
        }
        device_flush();
        if (!virtq_device_kick_on(&device))
            bell_wait(DEVICE);
    }
    return arg;
}

/* ---------------------------------------------------------------------------
 * The tests
 * --------------------------------------------------------------------------- */
static const void *map_table(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    (void)len;
    return (const void *)(uintptr_t)addr;
}

static void open_both(uint16_t num, uint16_t flags)
{
    raw_open(&ring, num, (flags & VIRTQ_LEGACY) != 0, 0);
    areas.num = num;
    areas.flags = (uint16_t)(flags | VIRTQ_INDIRECT);
    areas.desc = ring.desc;
    areas.driver = ring.avail;
    areas.device = ring.used;
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
    cr_assert_eq(virtq_device_init(&device, &areas, map_table, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&bells[i].rung, false);
        atomic_store(&bells[i].naps, 0);
        atomic_store(&bells[i].rings, 0);
    }
    atomic_store(&stop, false);
    atomic_store(&lost, false);
    atomic_store(&failure, 0);
}

static void run(uint16_t num, uint16_t flags, uint32_t buffers)
{
    pthread_t other;

    open_both(num, flags);
    total = buffers;
    cr_assert_eq(pthread_create(&other, NULL, device_main, NULL), 0);
    driver_main(NULL);
    cr_assert_eq(pthread_join(other, NULL), 0);
    fprintf(stderr, "threads: size %u flags %u: %lu kicks, %lu irqs, %u + %u naps\n", num, flags,
            atomic_load(&bells[DEVICE].rings), atomic_load(&bells[DRIVER].rings),
            atomic_load(&bells[DEVICE].naps) / 2, atomic_load(&bells[DRIVER].naps) / 2);
    cr_assert_eq(atomic_load(&failure), 0, "line %d", atomic_load(&failure));
    cr_assert_not(atomic_load(&lost), "lost wake-up: both asleep with buffers outstanding");
    raw_close(&ring);
}

static void run_sizes(uint16_t flags)
{
    run(2, flags, 100000);
    run(4, flags, 100000);
    run(16, flags, 150000);
    run(MOST, flags, 400000);
}

Test(split_threads, no_wake_up_is_lost_with_flags)
{
    /* T-43, T-48: pairs A, B, C and D by suppression flag */
    run_sizes(0);
}

Test(split_threads, no_wake_up_is_lost_with_events)
{
    /* T-43, T-48: pairs A, B, C and D by event index */
    run_sizes(VIRTQ_EVENT_IDX);
}
