// SPDX-License-Identifier: MIT-0
/*
 * The yardstick: a ring of 16-byte entries between one producer and one consumer, and nothing else.
 * An entry says by itself that it is there (the lap in `turn`), so that handing it over moves one
 * cache line; the consumer says now and then how far it is, and the producer looks only when it has
 * run out of room.
 */
#ifndef BENCH_IDEAL_H
#define BENCH_IDEAL_H

#include <stdbool.h>
#include <stdint.h>

enum { IDEAL_SIZE = 256, IDEAL_LINE = 128 /* two lines: some CPUs fetch them in pairs */ };

struct ideal_entry {
    uint64_t addr;
    uint32_t len;
    uint32_t turn; /* written last: index / IDEAL_SIZE + 1 */
};

struct ideal_ring {
    _Alignas(IDEAL_LINE) struct ideal_entry entry[IDEAL_SIZE];
    _Alignas(IDEAL_LINE) uint32_t consumed; /* written by the consumer */
    _Alignas(IDEAL_LINE) uint32_t put;      /* the producer's own, from here */
    uint32_t consumed_seen;
    _Alignas(IDEAL_LINE) uint32_t got; /* the consumer's own */
};

static inline bool ideal_room(struct ideal_ring *ring, uint32_t count)
{
    if (IDEAL_SIZE - (ring->put - ring->consumed_seen) >= count)
        return true;
    ring->consumed_seen = __atomic_load_n(&ring->consumed, __ATOMIC_ACQUIRE);
    return IDEAL_SIZE - (ring->put - ring->consumed_seen) >= count;
}

/* There is room: ideal_room() said so. */
static inline void ideal_put(struct ideal_ring *ring, uint64_t addr, uint32_t len)
{
    struct ideal_entry *entry = &ring->entry[ring->put % IDEAL_SIZE];

    entry->addr = addr;
    entry->len = len;
    __atomic_store_n(&entry->turn, ring->put / IDEAL_SIZE + 1, __ATOMIC_RELEASE);
    ring->put++;
}

static inline bool ideal_get(struct ideal_ring *ring, uint64_t *addr, uint32_t *len)
{
    struct ideal_entry *entry = &ring->entry[ring->got % IDEAL_SIZE];

    if (__atomic_load_n(&entry->turn, __ATOMIC_ACQUIRE) != ring->got / IDEAL_SIZE + 1)
        return false;
    *addr = entry->addr;
    *len = entry->len;
    ring->got++;
    return true;
}

/* Makes the room of what was got visible. */
static inline void ideal_release(struct ideal_ring *ring)
{
    __atomic_store_n(&ring->consumed, ring->got, __ATOMIC_RELEASE);
}

#endif
