// SPDX-License-Identifier: MIT-0
/*
 * Ring operations for counting instructions under callgrind; bench/count.sh runs it.
 *
 *     ring_count CASE N
 *
 * performs N operations of a case and prints how often a notification was due. Queue size 256,
 * EVENT_IDX on; CASE is one of those in cases[]. Built with -DRING_FLAGS=... for the format and the
 * features, with -DAPART for a build in which each side's part is a function of its own, which
 * callgrind's --toggle-collect can single out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtio_ring.h"

#ifndef RING_FLAGS
#define RING_FLAGS 0
#endif
#ifdef APART
#define SIDE __attribute__((noinline))
#else
#define SIDE static inline __attribute__((always_inline))
#endif

enum { SIZE = 256, BATCH = 32, FLAGS = (RING_FLAGS) | VIRTQ_EVENT_IDX };

static struct virtq_driver driver;
static struct virtq_device device;
static unsigned long kicks, irqs;
static uint8_t data[BATCH][64];
static _Alignas(16) uint8_t table_memory[3 * 16];

static struct virtq_seg seg_of(unsigned i)
{
    struct virtq_seg seg = {(uint64_t)(uintptr_t)data[i], sizeof(data[i])};

    return seg;
}

/* ---- one descriptor ---- */
SIDE bool driver_send(struct virtq_seg seg, void *cookie)
{
    if (virtq_driver_add_writable(&driver, seg, cookie) != 0)
        return false;
    virtq_driver_publish(&driver);
    kicks += virtq_driver_kick_due(&driver);
    return true;
}

SIDE bool device_serve(struct virtq_chain *chain)
{
    if (virtq_device_pop(&device, chain) != 1)
        return false;
    virtq_device_push(&device, chain->token, 64);
    virtq_device_flush(&device);
    irqs += virtq_device_irq_due(&device);
    return true;
}

SIDE bool driver_receive(void *cookie)
{
    struct virtq_done done;

    return virtq_driver_take(&driver, &done) == 1 && done.cookie == cookie && done.written == 64;
}

static bool round_trip(unsigned long count, struct virtq_chain *chain)
{
    struct virtq_seg seg = seg_of(0);

    while (count-- != 0) {
        if (!driver_send(seg, data) || !device_serve(chain) || !driver_receive(data))
            return false;
    }
    return true;
}

/* ---- a chain of three: one readable, two writable ---- */
static bool chain_of_three(unsigned long count, struct virtq_chain *chain, bool indirect)
{
    struct virtq_seg seg[3] = {seg_of(0), seg_of(1), seg_of(2)};
    struct virtq_buffer buffer = {seg, 1, 2};
    struct virtq_table table = {table_memory, (uint64_t)(uintptr_t)table_memory, 3};
    int err;

    while (count-- != 0) {
        if (indirect)
            err = virtq_driver_add_indirect(&driver, &buffer, &table, data);
        else
            err = virtq_driver_add(&driver, &buffer, data);
        if (err != 0)
            return false;
        virtq_driver_publish(&driver);
        kicks += virtq_driver_kick_due(&driver);
        if (!device_serve(chain) || !driver_receive(data))
            return false;
    }
    return true;
}

static bool chain_direct(unsigned long count, struct virtq_chain *chain)
{
    return chain_of_three(count, chain, false);
}

static bool chain_indirect(unsigned long count, struct virtq_chain *chain)
{
    return chain_of_three(count, chain, true);
}

/* ---- batches: N counts descriptors ---- */
static bool batch(unsigned long count, struct virtq_chain *chain)
{
    struct virtq_done done[BATCH];

    for (count /= BATCH; count != 0; count--) {
        for (unsigned i = 0; i < BATCH; i++) {
            if (virtq_driver_add_writable(&driver, seg_of(i), data[i]) != 0)
                return false;
        }
        virtq_driver_publish(&driver);
        kicks += virtq_driver_kick_due(&driver);
        while (virtq_device_pop(&device, chain) == 1)
            virtq_device_push(&device, chain->token, 64);
        virtq_device_flush(&device);
        irqs += virtq_device_irq_due(&device);
        if (virtq_driver_take_batch(&driver, done, BATCH) != BATCH)
            return false;
        for (unsigned i = 0; i < BATCH; i++) {
            if (done[i].cookie == NULL || done[i].written != 64)
                return false;
        }
    }
    return true;
}

/* ---- kick decisions: the same loop with and without ---- */
static bool decide(unsigned long count, bool kick)
{
    virtq_device_kick_off(&device);
    for (; count != 0; count--) {
        driver.published_idx = driver.added_idx; /* as publish leaves it; nothing is sent */
        __asm__ volatile("" ::: "memory");
        if (kick && virtq_driver_kick_due(&driver))
            return false;
    }
    return true;
}

static bool kick_suppressed(unsigned long count, struct virtq_chain *chain)
{
    (void)chain;
    return decide(count, true);
}

static bool kick_baseline(unsigned long count, struct virtq_chain *chain)
{
    (void)chain;
    return decide(count, false);
}

static const struct {
    const char *name;
    bool (*run)(unsigned long count, struct virtq_chain *chain);
} cases[] = {{"round-trip", round_trip},         {"chain-direct", chain_direct},
             {"chain-indirect", chain_indirect}, {"batch", batch},
             {"kick-suppressed", kick_suppressed}, {"kick-baseline", kick_baseline}};

static const void *map(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    (void)len;
    return (const void *)(uintptr_t)addr;
}

static bool run(const char *name, unsigned long count)
{
    struct virtq_seg seg[4];
    struct virtq_chain chain = {.seg = seg, .capacity = 4};

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (strcmp(name, cases[i].name) == 0)
            return cases[i].run(count, &chain);
    }
    fprintf(stderr, "ring_count: no case \"%s\"\n", name);
    return false;
}

int main(int argc, char **argv)
{
    static _Alignas(4096) uint8_t memory[VIRTQ_BYTES(SIZE, 4096)];
    static struct virtq_slot slots[SIZE];
    struct virtq_areas areas;

    if (argc != 3) {
        fprintf(stderr, "usage: ring_count CASE N\n");
        return 2;
    }
    virtq_areas_set(&areas, memory, SIZE, 4096, FLAGS);
    if (virtq_driver_init(&driver, &areas, slots) != 0 ||
        virtq_device_init(&device, &areas, map, NULL) != 0 ||
        !run(argv[1], strtoul(argv[2], NULL, 10))) {
        fprintf(stderr, "ring_count: %s failed\n", argv[1]);
        return 1;
    }
    printf("%lu kicks, %lu interrupts due\n", kicks, irqs);
    return 0;
}
