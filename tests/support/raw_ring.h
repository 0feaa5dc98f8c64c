// SPDX-License-Identifier: MIT-0
/* A split ring as bytes at the offsets of VIRTIO 2.7, for mock peers. It shares no line with
 * virtio_ring.h, so that a wrong layout there shows. */
#ifndef RAW_RING_H
#define RAW_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct raw_ring {
    uint8_t *desc, *avail, *used;
    uint32_t num;
    bool big; /* byte order of the ring: big-endian only for legacy on a big-endian CPU */
};

enum { RAW_NEXT = 1, RAW_WRITE = 2, RAW_INDIRECT = 4 };

static inline bool raw_cpu_is_big(void)
{
    const uint16_t one = 1;
    uint8_t first;

    memcpy(&first, &one, 1);
    return first == 0;
}

static inline void raw_put(const struct raw_ring *r, uint8_t *at, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++)
        at[r->big ? bytes - 1 - i : i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t raw_get(const struct raw_ring *r, const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[r->big ? bytes - 1 - i : i] << (8 * i);
    return value;
}

static inline size_t raw_desc_bytes(uint32_t num)
{
    return 16 * (size_t)num;
}
static inline size_t raw_avail_bytes(uint32_t num)
{
    return 6 + 2 * (size_t)num;
}
static inline size_t raw_used_bytes(uint32_t num)
{
    return 6 + 8 * (size_t)num;
}

static inline void raw_close(struct raw_ring *r)
{
    free(r->desc);
    free(r->avail);
    free(r->used);
    memset(r, 0, sizeof(*r));
}

/* Three areas of exactly the size of the specification, so that ASan sees one byte too much. */
static inline void raw_open(struct raw_ring *r, uint32_t num, bool native, int fill)
{
    raw_close(r);
    r->num = num;
    r->big = native && raw_cpu_is_big();
    r->desc = (uint8_t *)aligned_alloc(16, raw_desc_bytes(num));
    r->avail = (uint8_t *)malloc(raw_avail_bytes(num));
    r->used = (uint8_t *)malloc(raw_used_bytes(num));
    if (r->desc == NULL || r->avail == NULL || r->used == NULL)
        abort();
    memset(r->desc, fill, raw_desc_bytes(num));
    memset(r->avail, fill, raw_avail_bytes(num));
    memset(r->used, fill, raw_used_bytes(num));
}

/* A descriptor of any table, by its four fields. */
static inline void raw_desc(const struct raw_ring *r, uint8_t *table, uint32_t i, uint64_t addr,
                            uint32_t len, uint16_t flags, uint16_t next)
{
    raw_put(r, table + 16 * i, 8, addr);
    raw_put(r, table + 16 * i + 8, 4, len);
    raw_put(r, table + 16 * i + 12, 2, flags);
    raw_put(r, table + 16 * i + 14, 2, next);
}
static inline uint64_t raw_desc_addr(const struct raw_ring *r, const uint8_t *table, uint32_t i)
{
    return raw_get(r, table + 16 * i, 8);
}
static inline uint32_t raw_desc_len(const struct raw_ring *r, const uint8_t *table, uint32_t i)
{
    return (uint32_t)raw_get(r, table + 16 * i + 8, 4);
}
static inline uint16_t raw_desc_flags(const struct raw_ring *r, const uint8_t *table, uint32_t i)
{
    return (uint16_t)raw_get(r, table + 16 * i + 12, 2);
}
static inline uint16_t raw_desc_next(const struct raw_ring *r, const uint8_t *table, uint32_t i)
{
    return (uint16_t)raw_get(r, table + 16 * i + 14, 2);
}

/* The words of both rings. */
static inline uint16_t raw_avail_flags(const struct raw_ring *r)
{
    return (uint16_t)raw_get(r, r->avail, 2);
}
static inline void raw_set_avail_flags(const struct raw_ring *r, uint16_t flags)
{
    raw_put(r, r->avail, 2, flags);
}
static inline uint16_t raw_avail_idx(const struct raw_ring *r)
{
    return (uint16_t)raw_get(r, r->avail + 2, 2);
}
static inline void raw_set_avail_idx(const struct raw_ring *r, uint16_t idx)
{
    raw_put(r, r->avail + 2, 2, idx);
}
static inline uint16_t raw_avail_slot(const struct raw_ring *r, uint16_t idx)
{
    return (uint16_t)raw_get(r, r->avail + 4 + 2 * (idx % r->num), 2);
}
static inline void raw_set_avail_slot(const struct raw_ring *r, uint16_t idx, uint16_t head)
{
    raw_put(r, r->avail + 4 + 2 * (idx % r->num), 2, head);
}
static inline uint16_t raw_used_event(const struct raw_ring *r)
{
    return (uint16_t)raw_get(r, r->avail + 4 + 2 * r->num, 2);
}
static inline void raw_set_used_event(const struct raw_ring *r, uint16_t event)
{
    raw_put(r, r->avail + 4 + 2 * r->num, 2, event);
}
static inline uint16_t raw_used_flags(const struct raw_ring *r)
{
    return (uint16_t)raw_get(r, r->used, 2);
}
static inline void raw_set_used_flags(const struct raw_ring *r, uint16_t flags)
{
    raw_put(r, r->used, 2, flags);
}
static inline uint16_t raw_used_idx(const struct raw_ring *r)
{
    return (uint16_t)raw_get(r, r->used + 2, 2);
}
static inline void raw_set_used_idx(const struct raw_ring *r, uint16_t idx)
{
    raw_put(r, r->used + 2, 2, idx);
}
static inline uint32_t raw_used_id(const struct raw_ring *r, uint16_t idx)
{
    return (uint32_t)raw_get(r, r->used + 4 + 8 * (idx % r->num), 4);
}
static inline uint32_t raw_used_len(const struct raw_ring *r, uint16_t idx)
{
    return (uint32_t)raw_get(r, r->used + 8 + 8 * (idx % r->num), 4);
}
static inline void raw_set_used_slot(const struct raw_ring *r, uint16_t idx, uint32_t id,
                                     uint32_t len)
{
    raw_put(r, r->used + 4 + 8 * (idx % r->num), 4, id);
    raw_put(r, r->used + 8 + 8 * (idx % r->num), 4, len);
}
static inline uint16_t raw_avail_event(const struct raw_ring *r)
{
    return (uint16_t)raw_get(r, r->used + 4 + 8 * r->num, 2);
}
static inline void raw_set_avail_event(const struct raw_ring *r, uint16_t event)
{
    raw_put(r, r->used + 4 + 8 * r->num, 2, event);
}

/* What a device does to complete a buffer, and a driver to make one available. */
static inline void raw_complete(const struct raw_ring *r, uint32_t id, uint32_t len)
{
    uint16_t idx = raw_used_idx(r);

    raw_set_used_slot(r, idx, id, len);
    raw_set_used_idx(r, (uint16_t)(idx + 1));
}
static inline void raw_offer(const struct raw_ring *r, uint16_t head)
{
    uint16_t idx = raw_avail_idx(r);

    raw_set_avail_slot(r, idx, head);
    raw_set_avail_idx(r, (uint16_t)(idx + 1));
}

#endif /* RAW_RING_H */
