// SPDX-License-Identifier: MIT-0
/*
 * Driver and device as two threads, each pinned to a CPU of its own, both polling and asking for no
 * notifications, as those do who poll. Built once for each ring format (format.h). In the same
 * pass: what a cache line needs from one of the two CPUs to the other, and the ideal ring between
 * them.
 */
#include "bench.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "format.h"
#include "ideal.h"

static const char about[] =
    "A virtqueue between two pinned, polling threads. A line a case: suite,case,unit,value.\n"
    "  FORMAT/throughput/batch=N  time between two buffers, N added and published at once\n"
    "  FORMAT/polled/batch=N      the same without the decisions whether to notify\n"
    "  FORMAT/latency             half a round trip of one buffer\n"
    "  ideal/..., line/latency    the same of a ring of 16-byte entries, and of a cache line\n"
    "Unit: ns, and x: as a multiple of the ideal ring in the same run.\n";

enum {
    SIZE = 256,
    BATCH_MAX = 32,
    BYTES = 64,
    LIMIT_SECONDS = 120, /* then the program is ended: the other thread gave up, or never ran */
    LINE = 128,
    SLICES = BENCH_SLICES_MAX
};

/* The two halves of a piece of work. `far` runs on the other CPU until `stop` is set. */
struct pair {
    bool (*near)(const struct pair *pair, unsigned long rounds);
    bool (*far)(const struct pair *pair);
    unsigned batch;
    bool polled; /* nobody asks whether the other side wants to be notified */
};

static _Alignas(LINE) unsigned stop, far_ready, far_failed;
static _Alignas(LINE) unsigned ball;
static struct ideal_ring there, back;
static int cpus[2];

/* Each side on cache lines of its own. */
static _Alignas(LINE) struct virtq_driver driver;
static _Alignas(LINE) struct virtq_device device;
static _Alignas(LINE) struct virtq_slot slots[SIZE];
static _Alignas(4096) uint8_t memory[VIRTQ_BYTES(SIZE, LINE)];
static _Alignas(LINE) uint8_t data[SIZE][BYTES];

static bool stopped(void)
{
    return __atomic_load_n(&stop, __ATOMIC_RELAXED) != 0;
}

/* ---- the queue ---- */
static bool queue_start(void)
{
    uint16_t flags = BENCH_RING_FLAGS | VIRTQ_EVENT_IDX;
    struct virtq_areas areas;

    virtq_areas_set(&areas, memory, SIZE, LINE, flags);
    if (virtq_driver_init(&driver, &areas, slots) != 0 ||
        virtq_device_init(&device, &areas, NULL, NULL) != 0)
        return false;
    virtq_driver_irq_off(&driver);
    virtq_device_kick_off(&device);
    return true;
}

/* Serves what is there, up to a batch, and makes it visible at once. */
static bool serve(const struct pair *pair, struct virtq_chain *chain)
{
    unsigned served = 0;
    int got = 0;

    while (served < pair->batch && (got = virtq_device_pop(&device, chain)) == 1) {
        if (BENCH_IN_ORDER)
            virtq_device_push_full(&device, chain->token, BYTES);
        else
            virtq_device_push(&device, chain->token, BYTES);
        served++;
    }
    if (served != 0) {
        virtq_device_flush(&device);
        if (!pair->polled)
            bench_use(virtq_device_irq_due(&device));
    }
    return got >= 0;
}

static bool queue_far(const struct pair *pair)
{
    struct virtq_seg seg[1];
    struct virtq_chain chain = {.seg = seg, .capacity = 1};

    while (!stopped()) {
        if (!serve(pair, &chain))
            return false;
    }
    return true;
}

static bool send(const struct pair *pair)
{
    for (unsigned i = 0; i < pair->batch; i++) {
        struct virtq_seg seg = {(uint64_t)(uintptr_t)data[i], BYTES};

        if (virtq_driver_add_writable(&driver, seg, data[i]) != 0)
            return false;
    }
    virtq_driver_publish(&driver);
    if (!pair->polled)
        bench_use(virtq_driver_kick_due(&driver));
    return true;
}

/* How many were there, or -1. */
static int receive(unsigned batch)
{
    struct virtq_done done[BATCH_MAX];
    int count = virtq_driver_take_batch(&driver, done, (uint16_t)batch);

    for (int i = 0; i < count; i++) {
        if (done[i].cookie == NULL || done[i].written != BYTES)
            return -1;
    }
    return count;
}

/* As many buffers out as the queue holds; takes what is done, a batch at most, between sends. */
static bool queue_stream(const struct pair *pair, unsigned long rounds)
{
    unsigned long to_send = rounds, left = rounds * pair->batch;

    while (left != 0) {
        int count;

        if (to_send != 0 && virtq_driver_free_count(&driver) >= pair->batch) {
            if (!send(pair))
                return false;
            to_send--;
        }
        count = receive(pair->batch);
        if (count < 0 || (unsigned long)count > left ||
            __atomic_load_n(&far_failed, __ATOMIC_RELAXED))
            return false;
        left -= (unsigned long)count;
    }
    return true;
}

static bool queue_round_trip(const struct pair *pair, unsigned long rounds)
{
    while (rounds-- != 0) {
        int count;

        if (!send(pair))
            return false;
        while ((count = receive(1)) == 0) {
            if (__atomic_load_n(&far_failed, __ATOMIC_RELAXED))
                return false;
        }
        if (count != 1)
            return false;
    }
    return true;
}

/* ---- the ideal ring ---- */
static bool ideal_far(const struct pair *pair)
{
    uint64_t addr;
    uint32_t len;

    while (!stopped()) {
        unsigned got = 0;

        while (got < pair->batch && ideal_get(&there, &addr, &len)) {
            if (len != BYTES)
                return false;
            got++;
        }
        if (got != 0)
            ideal_release(&there);
    }
    return true;
}

static bool ideal_stream(const struct pair *pair, unsigned long rounds)
{
    while (rounds-- != 0) {
        while (!ideal_room(&there, pair->batch)) {
            if (__atomic_load_n(&far_failed, __ATOMIC_RELAXED))
                return false;
        }
        for (unsigned i = 0; i < pair->batch; i++)
            ideal_put(&there, (uint64_t)(uintptr_t)data[i], BYTES);
    }
    while (!ideal_room(&there, IDEAL_SIZE)) /* all there */
        if (__atomic_load_n(&far_failed, __ATOMIC_RELAXED))
            return false;
    return true;
}

/* Sends each entry back on a second ring. */
static bool ideal_echo(const struct pair *pair)
{
    uint64_t addr;
    uint32_t len;

    (void)pair;
    while (!stopped()) {
        if (!ideal_get(&there, &addr, &len))
            continue;
        ideal_release(&there);
        if (!ideal_room(&back, 1))
            return false;
        ideal_put(&back, addr, len);
    }
    return true;
}

static bool ideal_round_trip(const struct pair *pair, unsigned long rounds)
{
    uint64_t addr;
    uint32_t len;

    (void)pair;
    while (rounds-- != 0) {
        if (!ideal_room(&there, 1))
            return false;
        ideal_put(&there, rounds, BYTES);
        while (!ideal_get(&back, &addr, &len)) {
            if (__atomic_load_n(&far_failed, __ATOMIC_RELAXED))
                return false;
        }
        ideal_release(&back);
        if (addr != rounds)
            return false;
    }
    return true;
}

/* ---- one cache line, to and fro ---- */
static bool line_far(const struct pair *pair)
{
    (void)pair;
    while (!stopped()) {
        unsigned seen = __atomic_load_n(&ball, __ATOMIC_ACQUIRE);

        if (seen % 2 == 1)
            __atomic_store_n(&ball, seen + 1, __ATOMIC_RELEASE);
    }
    return true;
}

static bool line_round_trip(const struct pair *pair, unsigned long rounds)
{
    (void)pair;
    while (rounds-- != 0) {
        unsigned next = ball + 1;

        __atomic_store_n(&ball, next, __ATOMIC_RELEASE);
        while (__atomic_load_n(&ball, __ATOMIC_ACQUIRE) == next)
            ;
    }
    return true;
}

/* ---- two threads ---- */
static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set) != 0)
        bench_fail("cannot pin a thread to a CPU");
}

static void *far_thread(void *ctx)
{
    const struct pair *pair = ctx;

    pin(cpus[1]);
    __atomic_store_n(&far_ready, 1, __ATOMIC_RELEASE);
    if (!pair->far(pair))
        __atomic_store_n(&far_failed, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* The nanoseconds of `rounds` rounds, without those of starting and ending the thread. */
static double run_pair(const struct pair *pair, unsigned long rounds)
{
    pthread_t thread;
    double elapsed;
    bool ok;

    stop = far_ready = far_failed = 0;
    if (pthread_create(&thread, NULL, far_thread, (void *)(uintptr_t)pair) != 0)
        bench_fail("no second thread");
    while (!__atomic_load_n(&far_ready, __ATOMIC_ACQUIRE))
        ;
    ok = pair->near(pair, rounds / 8 + 1); /* warm */
    elapsed = bench_now();
    ok = ok && pair->near(pair, rounds);
    elapsed = bench_now() - elapsed;
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    if (pthread_join(thread, NULL) != 0 || !ok || far_failed)
        bench_fail("a buffer came back wrong, or not at all");
    return elapsed;
}

/* ---- cases ---- */
static double queue_work(void *ctx, unsigned long rounds)
{
    if (!queue_start())
        bench_fail("the queue does not start");
    return run_pair(ctx, rounds);
}

static double ideal_work(void *ctx, unsigned long rounds)
{
    memset(&there, 0, sizeof(there));
    memset(&back, 0, sizeof(back));
    return run_pair(ctx, rounds);
}

static double line_work(void *ctx, unsigned long rounds)
{
    ball = 0;
    return run_pair(ctx, rounds);
}

static void show(const char *what, double queue, double limit)
{
    char name[128];

    snprintf(name, sizeof(name), "%s%s/%s", BENCH_FORMAT, what);
    bench_figure("threads", name, "ns", queue);
    bench_figure("threads", name, "x", queue / limit);
    snprintf(name, sizeof(name), "ideal/%s", what);
    bench_figure("threads", name, "ns", limit);
}

static void measure_throughput(unsigned batch, bool quick)
{
    struct pair queue = {.near = queue_stream, .far = queue_far, .batch = batch};
    struct pair polled = {.near = queue_stream, .far = queue_far, .batch = batch, .polled = true};
    struct pair limit = {.near = ideal_stream, .far = ideal_far, .batch = batch};
    struct bench_timing timing[] = {
        {queue_work, &queue, 0}, {queue_work, &polled, 0}, {ideal_work, &limit, 0}};
    char what[32];

    bench_time(timing, 3, SLICES, quick ? 1e6 : 1e7, SLICES / 2);
    snprintf(what, sizeof(what), "throughput/batch=%u", batch);
    show(what, timing[0].ns / batch, timing[2].ns / batch);
    snprintf(what, sizeof(what), "polled/batch=%u", batch);
    show(what, timing[1].ns / batch, timing[2].ns / batch);
}

static void measure_latency(bool quick)
{
    struct pair queue = {.near = queue_round_trip, .far = queue_far, .batch = 1};
    struct pair limit = {.near = ideal_round_trip, .far = ideal_echo, .batch = 1};
    struct pair line = {.near = line_round_trip, .far = line_far};
    struct bench_timing timing[] = {
        {queue_work, &queue, 0}, {ideal_work, &limit, 0}, {line_work, &line, 0}};

    bench_time(timing, 3, SLICES, quick ? 1e6 : 1e7, SLICES / 2);
    show("latency", timing[0].ns / 2, timing[1].ns / 2);
    bench_figure("threads", "line/latency", "ns", timing[2].ns / 2);
}

/* The first two CPUs this process may use. */
static bool find_cpus(void)
{
    cpu_set_t set;
    int found = 0;

    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return false;
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
        if (CPU_ISSET((size_t)cpu, &set))
            cpus[found++] = cpu;
    }
    return found == 2;
}

int main(int argc, char **argv)
{
    bool quick = bench_quick(argc, argv, about);

    if (!find_cpus()) {
        printf("# skipped threads: one CPU only\n");
        return 0;
    }
    printf("# threads: driver on CPU %d, device on CPU %d, queue size %d\n", cpus[0], cpus[1],
           SIZE);
    alarm(LIMIT_SECONDS);
    pin(cpus[0]);
    measure_throughput(1, quick);
    measure_throughput(BATCH_MAX, quick);
    measure_latency(quick);
    return 0;
}
