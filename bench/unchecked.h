// SPDX-License-Identifier: MIT-0
/*
 * The floor: both sides of a ring of one-descriptor buffers with EVENT_IDX that believe everything,
 * with the same ordered accesses as the library. What the library costs above it is its checks and
 * its generality: no room is looked for, no index, id, length, flag or address compared with
 * anything, no chain, no table, no position to restart from. Not for use: whoever shares its memory
 * owns the process.
 *
 * BENCH_PACKED chooses the format. Queue size: a power of two up to UNCHECKED_MAX.
 */
#ifndef BENCH_UNCHECKED_H
#define BENCH_UNCHECKED_H

#include <string.h>

#include "format.h"

enum { UNCHECKED_MAX = 256 };

struct unchecked {
    struct virtq_areas at;
    uint16_t mask;
    /* driver side */
    uint16_t added, taken, kicked;
    uint16_t free_count;
    uint16_t free[UNCHECKED_MAX];
    void *cookie[UNCHECKED_MAX];
    /* device side; free-running, a packed lap is their next higher bit */
    uint16_t popped, pushed, signalled;
};

static inline bool unchecked_init(struct unchecked *q, const struct virtq_areas *areas)
{
    if (areas->num > UNCHECKED_MAX)
        return false;
    memset(q, 0, sizeof(*q));
    q->at = *areas;
    q->mask = (uint16_t)(areas->num - 1);
    for (q->free_count = 0; q->free_count < areas->num; q->free_count++)
        q->free[q->free_count] = q->free_count;
    return true;
}

#if !BENCH_PACKED
static inline uint16_t *unchecked_avail(const struct unchecked *q)
{
    return q->at.driver; /* flags, idx, ring[], used_event */
}

static inline uint16_t *unchecked_used_head(const struct unchecked *q)
{
    return q->at.device; /* flags, idx; the ring follows */
}

static inline struct virtq_split_used *unchecked_used(const struct unchecked *q)
{
    return (struct virtq_split_used *)(void *)((uint8_t *)q->at.device + 4);
}

static inline void unchecked_add(struct unchecked *q, struct virtq_seg seg, void *cookie)
{
    uint16_t id = q->free[--q->free_count];
    struct virtq_split_desc *desc = (struct virtq_split_desc *)q->at.desc + id;

    q->cookie[id] = cookie;
    VIRTIO_STORE64(&desc->addr, seg.addr);
    VIRTIO_STORE32(&desc->len, seg.len);
    VIRTIO_STORE16(&desc->flags, VIRTQ_DESC_FLAG_WRITE);
    VIRTIO_STORE16(&unchecked_avail(q)[2 + (q->added++ & q->mask)], id);
}

static inline void unchecked_publish(struct unchecked *q)
{
    VIRTIO_STORE_RELEASE16(&unchecked_avail(q)[1], q->added);
}

static inline bool unchecked_kick_due(struct unchecked *q)
{
    uint16_t old = q->kicked;

    q->kicked = q->added;
    VIRTIO_FENCE_FULL();
    return virtq_event_due(VIRTIO_LOAD_RELAXED16(&unchecked_used(q)[q->mask + 1]), q->added, old);
}

static inline bool unchecked_pop(struct unchecked *q, struct virtq_seg *seg, uint16_t *id)
{
    const struct virtq_split_desc *desc;

    if (VIRTIO_LOAD_ACQUIRE16(&unchecked_avail(q)[1]) == q->popped)
        return false;
    *id = VIRTIO_LOAD16(&unchecked_avail(q)[2 + (q->popped++ & q->mask)]);
    desc = (const struct virtq_split_desc *)q->at.desc + *id;
    seg->addr = VIRTIO_LOAD64(&desc->addr);
    seg->len = VIRTIO_LOAD32(&desc->len);
    return true;
}

static inline void unchecked_push(struct unchecked *q, uint16_t id, uint32_t written)
{
    struct virtq_split_used *entry = &unchecked_used(q)[q->pushed++ & q->mask];

    VIRTIO_STORE32(&entry->id, id);
    VIRTIO_STORE32(&entry->len, written);
}

static inline void unchecked_flush(struct unchecked *q)
{
    VIRTIO_STORE_RELEASE16(&unchecked_used_head(q)[1], q->pushed);
}

static inline bool unchecked_irq_due(struct unchecked *q)
{
    uint16_t old = q->signalled;

    q->signalled = q->pushed;
    VIRTIO_FENCE_FULL();
    return virtq_event_due(VIRTIO_LOAD_RELAXED16(&unchecked_avail(q)[2 + q->mask + 1]), q->pushed,
                           old);
}

static inline bool unchecked_take(struct unchecked *q, struct virtq_done *done)
{
    const struct virtq_split_used *entry = &unchecked_used(q)[q->taken & q->mask];
    uint32_t id;

    if (VIRTIO_LOAD_ACQUIRE16(&unchecked_used_head(q)[1]) == q->taken)
        return false;
    q->taken++;
    id = VIRTIO_LOAD32(&entry->id);
    done->written = VIRTIO_LOAD32(&entry->len);
    done->cookie = q->cookie[id];
    q->free[q->free_count++] = (uint16_t)id;
    return true;
}
#else
static inline struct virtq_packed_desc *unchecked_desc(const struct unchecked *q, uint16_t at)
{
    return (struct virtq_packed_desc *)q->at.desc + (at & q->mask);
}

/* Is this an odd lap, counted from 0? The wrap counter of the spec starts at 1. */
static inline bool unchecked_odd(const struct unchecked *q, uint16_t at)
{
    return (at & (q->mask + 1)) != 0;
}

static inline void unchecked_add(struct unchecked *q, struct virtq_seg seg, void *cookie)
{
    uint16_t id = q->free[--q->free_count];
    struct virtq_packed_desc *desc = unchecked_desc(q, q->added);
    uint16_t lap = unchecked_odd(q, q->added) ? VIRTQ_DESC_FLAG_USED : VIRTQ_DESC_FLAG_AVAIL;

    q->added++;
    q->cookie[id] = cookie;
    VIRTIO_STORE64(&desc->addr, seg.addr);
    VIRTIO_STORE32(&desc->len, seg.len);
    VIRTIO_STORE16(&desc->id, id);
    VIRTIO_STORE_RELEASE16(&desc->flags, lap | VIRTQ_DESC_FLAG_WRITE);
}

/* Each add exposed its buffer, each push completed one. */
static inline void unchecked_publish(struct unchecked *q)
{
    (void)q;
}
static inline void unchecked_flush(struct unchecked *q)
{
    (void)q;
}

static inline bool unchecked_due(const struct unchecked *q, const void *area, uint16_t now,
                                 uint16_t old)
{
    uint32_t word = VIRTIO_LOAD_RELAXED32(area), event = word & q->mask, at = now & q->mask;

    if (word >> 16 != VIRTQ_EVENT_DESC)
        return word >> 16 == VIRTQ_EVENT_ENABLE;
    if (((word & 0x8000) == 0) != unchecked_odd(q, now))
        event -= q->mask + 1u;
    return virtq_event_due((uint16_t)event, (uint16_t)at, (uint16_t)(at - (uint16_t)(now - old)));
}

static inline bool unchecked_kick_due(struct unchecked *q)
{
    uint16_t old = q->kicked;

    q->kicked = q->added;
    VIRTIO_FENCE_FULL();
    return unchecked_due(q, q->at.device, q->added, old);
}

static inline bool unchecked_pop(struct unchecked *q, struct virtq_seg *seg, uint16_t *id)
{
    const struct virtq_packed_desc *desc = unchecked_desc(q, q->popped);
    bool set = (VIRTIO_LOAD_ACQUIRE16(&desc->flags) & VIRTQ_DESC_FLAG_AVAIL) != 0;

    if (set == unchecked_odd(q, q->popped))
        return false;
    q->popped++;
    seg->addr = VIRTIO_LOAD64(&desc->addr);
    seg->len = VIRTIO_LOAD32(&desc->len);
    *id = VIRTIO_LOAD16(&desc->id);
    return true;
}

static inline void unchecked_push(struct unchecked *q, uint16_t id, uint32_t written)
{
    struct virtq_packed_desc *desc = unchecked_desc(q, q->pushed);
    bool odd = unchecked_odd(q, q->pushed++);

    VIRTIO_STORE16(&desc->id, id);
    VIRTIO_STORE32(&desc->len, written);
    VIRTIO_STORE_RELEASE16(&desc->flags,
                           odd ? 0 : (VIRTQ_DESC_FLAG_AVAIL | VIRTQ_DESC_FLAG_USED));
}

static inline bool unchecked_irq_due(struct unchecked *q)
{
    uint16_t old = q->signalled;

    q->signalled = q->pushed;
    VIRTIO_FENCE_FULL();
    return unchecked_due(q, q->at.driver, q->pushed, old);
}

static inline bool unchecked_take(struct unchecked *q, struct virtq_done *done)
{
    const struct virtq_packed_desc *desc = unchecked_desc(q, q->taken);
    bool used = (VIRTIO_LOAD_ACQUIRE16(&desc->flags) & VIRTQ_DESC_FLAG_USED) != 0;
    uint16_t id;

    if (used == unchecked_odd(q, q->taken))
        return false;
    q->taken++;
    id = VIRTIO_LOAD16(&desc->id);
    done->written = VIRTIO_LOAD32(&desc->len);
    done->cookie = q->cookie[id];
    q->free[q->free_count++] = id;
    return true;
}
#endif

#endif
