// SPDX-License-Identifier: MIT-0
/* Driver and device in two threads that sleep when they have nothing to do and trust the other's
 * doorbell to wake them, in both ring formats. A lost wake-up leaves both asleep with buffers
 * outstanding, which is seen at once: each sleeper watches for the other being asleep with no bell
 * rung. THREAD_SCALE=n in the environment does only 1/n of the work, for emulators.
 *
 * What a run proves depends on where it runs.
 *
 * Natively on x86 only a load may pass an earlier store, so that of all orderings only missing full
 * fences (pairs C and D) can show, as lost wake-ups. They mostly do within a run if two CPUs are
 * free. Pairs A and B hold on x86 whatever the header says, unless the compiler reorders.
 *
 * Under -fsanitize=thread (gcc needs -Wno-tsan for the fences; with the stand-in for Criterion)
 * pairs A and B are checked: what they carry is plain memory here, and each missing acquire or
 * release is a race that TSan reports. The full fences carry no data, so that its blindness to them
 * gives no false report, and no proof either.
 *
 * Under qemu-aarch64 the code for Arm runs, the fences of ORDER_PLATFORM included, but not the
 * memory of Arm: an x86 host keeps plain accesses in order, and the emulator adds an instruction
 * for a full fence only. A missing C or D shows there, a weakened A or B does not; that takes an
 * Arm machine.
 *
 * That each ordering stands where it belongs is checked in fetch_test.c, and that these tests
 * notice when one is missing, in ablation.sh. */
#include "tests/support/test_config.h"

#include <criterion/criterion.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "virtio_ring.h"

enum { DRIVER, DEVICE };
enum { MOST = 256, WORDS = 3, HELD = 4 };

/* A doorbell and its sleeper. `naps` is odd while asleep. */
struct bell {
    atomic_bool rung;
    atomic_uint naps;
    atomic_ulong rings;
};

/* A buffer of up to three segments, a word each: plain memory, so that TSan sees any access that
 * the ring does not order. The rest is the driver's alone. */
struct message {
    uint32_t word[WORDS];
    uint32_t number; /* of the buffers sent before it */
    uint16_t readable, writable;
};

/* A chain that the device has served and not completed. */
struct held {
    uint32_t token, written;
    bool full;
};

static _Alignas(64) uint8_t memory[VIRTQ_BYTES(MOST, 64)];
static struct virtq_areas areas;
static struct virtq_driver driver;
static struct virtq_device device;
static struct virtq_slot slots[MOST];
static struct message messages[MOST];
static struct virtq_split_desc tables[MOST][WORDS];
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
 * What both sides know
 * --------------------------------------------------------------------------- */
static uint32_t random_below(uint32_t *state, uint32_t limit)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 16) % limit;
}

/* Shifts the sides against each other: in step they would never meet where it matters. */
static void dawdle(uint32_t *random)
{
    for (uint32_t i = random_below(random, 1u << random_below(random, 9)); i != 0; i--)
        (void)stopped();
}

/* Words that the device writes of buffer `number`: all, but of some only the first. */
static uint32_t words_written(uint32_t number, uint32_t writable)
{
    return number % 4 == 0 && writable > 1 ? 1 : writable;
}

/* ---------------------------------------------------------------------------
 * Driver
 * --------------------------------------------------------------------------- */
/* A shape at random; each readable word is the buffer's number. */
static void message_fill(struct message *message, uint32_t number, uint32_t *random)
{
    uint32_t most = areas.num < WORDS ? areas.num : WORDS;
    uint32_t count = 1 + random_below(random, most), readable = random_below(random, count + 1);

    message->number = number;
    message->readable = (uint16_t)readable;
    message->writable = (uint16_t)(count - readable);
    for (uint32_t i = 0; i < WORDS; i++)
        message->word[i] = i < readable ? number : 0;
}

static bool message_answered(const struct message *message, uint32_t written)
{
    uint32_t words = words_written(message->number, message->writable);

    for (uint32_t i = 0; i < words; i++)
        if (message->word[message->readable + i] != ~message->number)
            return false;
    return written == 4 * words;
}

/* False if there is no room. */
static bool driver_add(struct message *message, bool indirect)
{
    size_t index = (size_t)(message - messages);
    struct virtq_seg seg[WORDS];
    struct virtq_buffer buffer = {seg, message->readable, message->writable};
    struct virtq_table table = {tables[index], (uint64_t)(uintptr_t)tables[index], WORDS};
    int err;

    for (unsigned i = 0; i < WORDS; i++) {
        seg[i].addr = (uint64_t)(uintptr_t)&message->word[i];
        seg[i].len = 4;
    }
    err = indirect ? virtq_driver_add_indirect(&driver, &buffer, &table, message)
                   : virtq_driver_add(&driver, &buffer, message);
    CHECK(err == 0 || err == VIRTQ_ERR_FULL);
    return err == 0;
}

static uint32_t driver_drain(struct message **unused, uint32_t count)
{
    struct virtq_done done = {NULL, 0};
    int got;

    while ((got = virtq_driver_take(&driver, &done)) == 1) {
        struct message *message = (struct message *)done.cookie;

        CHECK(message_answered(message, done.written));
        unused[count++] = message;
    }
    CHECK(got == 0);
    return count;
}

static void driver_publish(void)
{
    virtq_driver_publish(&driver);
    if (virtq_driver_kick_due(&driver))
        bell_ring(DEVICE);
}

/* Sleeps until the interrupt, unless completions are there already. */
static void driver_rest(uint32_t *random)
{
    bool pending = random_below(random, 4) == 0 ? virtq_driver_irq_on_after(&driver)
                                                : virtq_driver_irq_on(&driver);

    if (!pending)
        bell_wait(DRIVER);
}

static void *driver_main(void *arg)
{
    struct message *unused[MOST];
    uint32_t random = 1, sent = 0, count = areas.num;

    for (uint32_t i = 0; i < count; i++)
        unused[i] = &messages[i];
    while ((sent != total || count != areas.num) && !stopped()) {
        uint32_t batch = 1 + random_below(&random, random_below(&random, 4) == 0 ? MOST : 3);

        while (batch-- != 0 && sent != total && count != 0) {
            message_fill(unused[count - 1], sent, &random);
            if (!driver_add(unused[count - 1], random_below(&random, 2) != 0))
                break;
            count--;
            sent++;
        }
        driver_publish();
        if (random_below(&random, 4) == 0)
            virtq_driver_irq_off(&driver);
        dawdle(&random);
        count = driver_drain(unused, count);
        if (count != areas.num && (sent == total || random_below(&random, 3) != 0))
            driver_rest(&random);
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

/* Buffers arrive in the order in which they were sent, so that their number is known. */
static struct held device_serve(const struct virtq_chain *chain, uint32_t number)
{
    uint32_t words = words_written(number, chain->writable);
    struct held held = {chain->token, 4 * words, words == chain->writable};

    for (uint32_t i = 0; i < chain->readable; i++)
        CHECK(*(const uint32_t *)(uintptr_t)chain->seg[i].addr == number);
    for (uint32_t i = 0; i < words; i++)
        *(uint32_t *)(uintptr_t)chain->seg[chain->readable + i].addr = ~number;
    return held;
}

/* With IN_ORDER in that order, and in batches where the rules allow it; else backwards. */
static void device_complete(const struct held *held, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct held *h = &held[areas.flags & VIRTQ_IN_ORDER ? i : count - 1 - i];

        if (h->full)
            virtq_device_push_full(&device, h->token, h->written);
        else
            virtq_device_push(&device, h->token, h->written);
    }
}

static void *device_main(void *arg)
{
    struct virtq_seg seg[WORDS];
    struct virtq_chain chain = {.seg = seg, .capacity = WORDS};
    struct held held[HELD];
    uint32_t random = 2, number = 0, count = 0;

    while (!stopped()) {
        int got = virtq_device_pop(&device, &chain);

        CHECK(got >= 0);
        if (got == 1)
            held[count++] = device_serve(&chain, number++);
        if (got != 1 || count == HELD || random_below(&random, 3) == 0) {
            device_complete(held, count);
            count = 0;
        }
        if (got != 1 || random_below(&random, 4) == 0)
            device_flush();
        dawdle(&random);
        if (got == 1 && random_below(&random, 8) == 0)
            virtq_device_kick_off(&device);
        if (got != 1 && !virtq_device_kick_on(&device))
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
    virtq_areas_set(&areas, memory, num, 64, (uint16_t)(flags | VIRTQ_INDIRECT));
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

static uint32_t scaled(uint32_t work)
{
    const char *text = getenv("THREAD_SCALE");
    uint32_t scale = text != NULL ? (uint32_t)strtoul(text, NULL, 0) : 1;

    return scale > 1 ? work / scale : work;
}

static void run(uint16_t num, uint16_t flags, uint32_t buffers)
{
    pthread_t other;

    open_both(num, flags);
    total = scaled(buffers);
    cr_assert_eq(pthread_create(&other, NULL, device_main, NULL), 0);
    driver_main(NULL);
    cr_assert_eq(pthread_join(other, NULL), 0);
    fprintf(stderr, "threads: size %u flags %u: %lu kicks, %lu irqs, %u + %u naps\n", num, flags,
            atomic_load(&bells[DEVICE].rings), atomic_load(&bells[DRIVER].rings),
            atomic_load(&bells[DEVICE].naps) / 2, atomic_load(&bells[DRIVER].naps) / 2);
    cr_assert_eq(atomic_load(&failure), 0, "line %d", atomic_load(&failure));
    cr_assert_not(atomic_load(&lost), "lost wake-up: both asleep with buffers outstanding");
    cr_assert_eq(virtq_driver_free_count(&driver), num);
}

static void run_sizes(uint16_t flags)
{
    run(2, flags, 100000);
    if (flags & VIRTQ_PACKED)
        run(3, flags, 100000);
    run(4, flags, 100000);
    run(16, flags, 300000);
    run(MOST, flags, 500000);
}

#define BOTH(name, flags)                                                                          \
    Test(split_threads, name)                                                                      \
    {                                                                                              \
        run_sizes(flags);                                                                          \
    }                                                                                              \
    Test(packed_threads, name)                                                                     \
    {                                                                                              \
        run_sizes(VIRTQ_PACKED | (flags));                                                         \
    }

/* T-43, T-48: pairs A, B, C and D by suppression flag or mode, then by event index */
BOTH(no_wake_up_is_lost_with_flags, 0)
BOTH(no_wake_up_is_lost_with_events, VIRTQ_EVENT_IDX)
BOTH(no_wake_up_is_lost_in_order_with_flags, VIRTQ_IN_ORDER)
BOTH(no_wake_up_is_lost_in_order_with_events, VIRTQ_IN_ORDER | VIRTQ_EVENT_IDX)
/* the fences towards a device, where they are others */
BOTH(no_wake_up_is_lost_with_platform_fences, VIRTQ_ORDER_PLATFORM | VIRTQ_EVENT_IDX)
