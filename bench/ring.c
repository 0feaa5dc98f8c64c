// SPDX-License-Identifier: MIT-0
/*
 * Round trips of a queue in one thread that plays both sides: what a buffer costs where no cache
 * line has to travel. driver add, publish, kick decision; device pop, push, flush, interrupt
 * decision; driver take. Built once for each ring format and variant of the library (format.h).
 */
#include "bench.h"
#include "ideal.h"
#include "unchecked.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

static const char about[] =
    "Round trips of a virtqueue in one thread. A line for each case: suite,case,unit,value.\n"
    "Case: format, direct or indirect, descriptors, event index or not, variant, batch or size.\n"
    "  (no variant) the library for queues of this kind    any        with all of it compiled in\n"
    "  no-fence     without fence instructions             plain      without any ordered access\n"
    "  unchecked    a ring of our own without validation (with no-fence or plain: that as well)\n"
    "Unit: ns a buffer, and x: as a multiple of an entry through a ring of 16-byte entries from a\n"
    "producer to a consumer, there and released, in the same batches and the same run.\n";

enum {
    SIZE = 256,
    SIZE_LARGE = 1024, /* where a batch needs more descriptors */
    SIZE_MAX_SWEPT = 32768,
    BATCH_MAX = 64,
    DESCS_MAX = 16,
    BYTES = 64 /* of a segment */
};

/* What a buffer is made of. */
enum shape { ONE, CHAIN, TABLE };

struct job {
    enum shape shape;
    uint16_t descs;
    uint16_t batch;
    uint16_t size;
    bool event_idx;
    bool (*trips)(const struct job *job, unsigned long rounds);
};

static struct virtq_driver driver;
static struct virtq_device device;
static struct virtq_areas areas;
static struct virtq_slot slots[SIZE_MAX_SWEPT];
static _Alignas(4096) uint8_t memory[VIRTQ_BYTES(SIZE_MAX_SWEPT, 64)];
static uint8_t data[BATCH_MAX][BYTES];
static _Alignas(16) uint8_t tables[BATCH_MAX][DESCS_MAX * 16];
static struct virtq_seg segs[DESCS_MAX];
static struct unchecked unchecked;
static struct ideal_ring ideal;

static uint64_t address_of(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* ---- the library ---- */
ALWAYS_INLINE int add(const struct job *job, enum shape shape, unsigned i)
{
    /* One descriptor is one to write; more are a request with an answer. */
    uint16_t readable = job->descs > 1;
    struct virtq_buffer buffer = {segs, readable, (uint16_t)(job->descs - readable)};
    struct virtq_table table = {tables[i], address_of(tables[i]), DESCS_MAX};

    switch (shape) {
    case ONE: return virtq_driver_add_writable(&driver, segs[0], data[i]);
    case CHAIN: return virtq_driver_add(&driver, &buffer, data[i]);
    default: return virtq_driver_add_indirect(&driver, &buffer, &table, data[i]);
    }
}

ALWAYS_INLINE bool serve(struct virtq_chain *chain, uint32_t written)
{
    if (virtq_device_pop(&device, chain) != 1)
        return false;
    if (BENCH_IN_ORDER)
        virtq_device_push_full(&device, chain->token, written);
    else
        virtq_device_push(&device, chain->token, written);
    return true;
}

ALWAYS_INLINE bool take(unsigned batch, uint32_t written)
{
    struct virtq_done done[BATCH_MAX];

    if (batch == 1 ? virtq_driver_take(&driver, &done[0]) != 1
                   : virtq_driver_take_batch(&driver, done, (uint16_t)batch) != (int)batch)
        return false;
    for (unsigned i = 0; i < batch; i++) {
        if (done[i].cookie != data[i] || done[i].written != written)
            return false;
    }
    return true;
}

ALWAYS_INLINE bool round_trips(const struct job *job, enum shape shape, unsigned batch,
                               unsigned long rounds)
{
    uint32_t written = BYTES * (uint32_t)(job->descs - (job->descs > 1));
    struct virtq_seg seg[DESCS_MAX];
    struct virtq_chain chain = {.seg = seg, .capacity = DESCS_MAX};

    while (rounds-- != 0) {
        for (unsigned i = 0; i < batch; i++) {
            if (add(job, shape, i) != 0)
                return false;
        }
        virtq_driver_publish(&driver);
        bench_use(virtq_driver_kick_due(&driver));
        for (unsigned i = 0; i < batch; i++) {
            if (!serve(&chain, written))
                return false;
        }
        virtq_device_flush(&device);
        bench_use(virtq_device_irq_due(&device));
        if (!take(batch, written))
            return false;
    }
    return true;
}

ALWAYS_INLINE bool alone_or_batch(const struct job *job, enum shape shape, unsigned long rounds)
{
    return job->batch == 1 ? round_trips(job, shape, 1, rounds)
                           : round_trips(job, shape, job->batch, rounds);
}

/* A copy for each shape: a program knows which of them its requests are. */
static bool library_work(const struct job *job, unsigned long rounds)
{
    switch (job->shape) {
    case ONE: return alone_or_batch(job, ONE, rounds);
    case CHAIN: return alone_or_batch(job, CHAIN, rounds);
    default: return alone_or_batch(job, TABLE, rounds);
    }
}

/* ---- the same, believing everything ---- */
ALWAYS_INLINE bool unchecked_trips(unsigned batch, unsigned long rounds)
{
    struct virtq_done done;
    struct virtq_seg seg;
    uint16_t id;

    while (rounds-- != 0) {
        for (unsigned i = 0; i < batch; i++)
            unchecked_add(&unchecked, segs[0], data[i]);
        unchecked_publish(&unchecked);
        bench_use(unchecked_kick_due(&unchecked));
        for (unsigned i = 0; i < batch; i++) {
            if (!unchecked_pop(&unchecked, &seg, &id) || seg.len != BYTES)
                return false;
            unchecked_push(&unchecked, id, BYTES);
        }
        unchecked_flush(&unchecked);
        bench_use(unchecked_irq_due(&unchecked));
        for (unsigned i = 0; i < batch; i++) {
            if (!unchecked_take(&unchecked, &done) || done.cookie != data[i] ||
                done.written != BYTES)
                return false;
        }
    }
    return true;
}

static bool unchecked_work(const struct job *job, unsigned long rounds)
{
    return job->batch == 1 ? unchecked_trips(1, rounds) : unchecked_trips(job->batch, rounds);
}

/* ---- the yardstick ---- */
ALWAYS_INLINE bool ideal_trips(unsigned batch, unsigned long rounds)
{
    uint64_t addr;
    uint32_t len;

    while (rounds-- != 0) {
        if (!ideal_room(&ideal, batch))
            return false;
        for (unsigned i = 0; i < batch; i++)
            ideal_put(&ideal, address_of(data[i]), BYTES);
        for (unsigned i = 0; i < batch; i++) {
            if (!ideal_get(&ideal, &addr, &len) || addr != address_of(data[i]) || len != BYTES)
                return false;
        }
        ideal_release(&ideal);
    }
    return true;
}

static bool ideal_work(const struct job *job, unsigned long rounds)
{
    return job->batch == 1 ? ideal_trips(1, rounds) : ideal_trips(job->batch, rounds);
}

/* ---- cases ---- */
static const void *map(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    (void)len;
    return (const void *)(uintptr_t)addr;
}

/* A new queue. Each side asks once for a notification and lets that stand, so that every decision
 * looks at what the other side said, and nearly all say no. Without EVENT_IDX all say yes. */
static void start(const struct job *job)
{
    uint16_t flags = BENCH_RING_FLAGS | VIRTQ_INDIRECT;

    if (job->event_idx)
        flags |= VIRTQ_EVENT_IDX;
    virtq_areas_set(&areas, memory, job->size, 64, flags);
    if (virtq_driver_init(&driver, &areas, slots) != 0 ||
        virtq_device_init(&device, &areas, map, NULL) != 0 || virtq_driver_irq_on(&driver) ||
        virtq_device_kick_on(&device))
        bench_fail("the queue does not start");
    if (job->trips == unchecked_work && !unchecked_init(&unchecked, &areas))
        bench_fail("the queue is too large");
}

static double timed(void *ctx, unsigned long rounds)
{
    const struct job *job = ctx;
    double start = bench_now();

    if (!job->trips(job, rounds))
        bench_fail("a buffer came back wrong, or not at all");
    return bench_now() - start;
}

static void measure(struct job job, const char *name, bool quick)
{
    struct job limit = job;
    struct bench_timing timing[] = {{timed, &job, 0}, {timed, &limit, 0}};

    limit.trips = ideal_work;
    start(&job);
    bench_time(timing, 2, quick ? 3 : 7, quick ? 2e5 : 2e6, 0);
    bench_figure("ring", name, "ns", timing[0].ns / job.batch);
    bench_figure("ring", name, "x", timing[0].ns / timing[1].ns);
}

static void name_of(char name[static 128], const struct job *job, const char *extra)
{
    snprintf(name, 128, "%s%s/%s/%u/%s%s%s", BENCH_FORMAT,
             job->shape == TABLE ? "indirect" : "direct", job->descs,
             job->event_idx ? "event_idx" : "no_event_idx", BENCH_VARIANT, extra);
}

static void measure_batches(struct job job, const char *extra, bool quick)
{
    static const uint16_t batches[] = {1, 4, 16, 64};
    char name[128], with_batch[160];

    name_of(name, &job, extra);
    for (unsigned i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        job.batch = batches[i];
        job.size = job.shape != TABLE && job.batch * job.descs > SIZE ? SIZE_LARGE : SIZE;
        snprintf(with_batch, sizeof(with_batch), "%s/batch=%u", name, job.batch);
        measure(job, with_batch, quick);
    }
}

static void measure_sizes(bool quick)
{
    static const uint16_t sizes[] = {16, 64, 256, 1024, 4096, 16384, 32768};
    struct job job = {ONE, 1, 1, 0, true, library_work};
    char name[128], with_size[160];

    name_of(name, &job, "");
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        job.size = sizes[i];
        snprintf(with_size, sizeof(with_size), "%s/size=%u", name, job.size);
        measure(job, with_size, quick);
    }
}

static void measure_all(bool quick)
{
    static const uint16_t descs[] = {1, 3, 16};

    for (unsigned event_idx = 2; event_idx-- > (BENCH_SHIPPED ? 0 : 1);) {
        for (unsigned i = 0; i < sizeof(descs) / sizeof(descs[0]); i++) {
            struct job job = {descs[i] == 1 ? ONE : CHAIN, descs[i], 1, SIZE, event_idx != 0,
                              library_work};

            measure_batches(job, "", quick);
            job.shape = TABLE;
            measure_batches(job, "", quick);
        }
    }
}

int main(int argc, char **argv)
{
    bool quick = bench_quick(argc, argv, about);
    struct job floor = {ONE, 1, 1, SIZE, true, unchecked_work};

    for (unsigned i = 0; i < DESCS_MAX; i++)
        segs[i] = (struct virtq_seg){address_of(data[i]), BYTES};
    printf("# ring: queue size %d, or %d where a batch needs more descriptors\n", SIZE, SIZE_LARGE);
    measure_all(quick);
    if (!BENCH_ANY && !BENCH_IN_ORDER)
        measure_batches(floor, "/unchecked", quick);
    if (BENCH_SHIPPED)
        measure_sizes(quick);
    return 0;
}
