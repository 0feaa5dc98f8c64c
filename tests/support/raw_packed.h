// SPDX-License-Identifier: MIT-0
/* A packed ring as little-endian bytes at the offsets of VIRTIO 2.8, and a driver and a device that
 * work on it by hand with a slot and a wrap counter of their own. It shares no line with
 * virtio_ring.h, so that a wrong layout or a lost wrap there shows. */
#ifndef RAW_PACKED_H
#define RAW_PACKED_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/raw_ring.h" /* for the flags that both formats share */

enum {
    RAWP_AVAIL = 0x0080,
    RAWP_USED = 0x8000,
    RAWP_LAP = RAWP_AVAIL | RAWP_USED,
    RAWP_ENABLE = 0, /* modes of an event area */
    RAWP_DISABLE = 1,
    RAWP_DESC = 2,
    RAWP_RESERVED = 3,
    RAWP_EVENT_BYTES = 4
};

struct rawp_ring {
    uint8_t *desc, *driver, *device;
    uint32_t num;
};

/* A place in the ring: both sides begin at slot 0 with wrap 1. */
struct rawp_pos {
    uint32_t slot;
    bool wrap;
};

/* A side of the queue: where the next buffer is made available, and where the next is used. */
struct rawp_side {
    struct rawp_pos avail, used;
};

/* A list as a device finds it: its first slot, its length in slots, the id in its last one. */
struct rawp_list {
    uint32_t slot, count;
    uint16_t id;
};

static inline void rawp_put(uint8_t *at, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t rawp_get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static inline size_t rawp_desc_bytes(uint32_t num)
{
    return 16 * (size_t)num;
}

static inline void rawp_close(struct rawp_ring *r)
{
    free(r->desc);
    free(r->driver);
    free(r->device);
    memset(r, 0, sizeof(*r));
}

/* Three areas of exactly the size of the specification, so that ASan sees one byte too much. */
static inline void rawp_open(struct rawp_ring *r, uint32_t num, int fill)
{
    rawp_close(r);
    r->num = num;
    r->desc = (uint8_t *)aligned_alloc(16, rawp_desc_bytes(num));
    r->driver = (uint8_t *)malloc(RAWP_EVENT_BYTES);
    r->device = (uint8_t *)malloc(RAWP_EVENT_BYTES);
    if (r->desc == NULL || r->driver == NULL || r->device == NULL)
        abort();
    memset(r->desc, fill, rawp_desc_bytes(num));
    memset(r->driver, fill, RAWP_EVENT_BYTES);
    memset(r->device, fill, RAWP_EVENT_BYTES);
}

/* A descriptor of the ring or of an indirect table: le64 addr, le32 len, le16 id, le16 flags. */
static inline void rawp_desc(uint8_t *table, uint32_t i, uint64_t addr, uint32_t len, unsigned id,
                             unsigned flags)
{
    rawp_put(table + 16 * (size_t)i, 8, addr);
    rawp_put(table + 16 * (size_t)i + 8, 4, len);
    rawp_put(table + 16 * (size_t)i + 12, 2, id);
    rawp_put(table + 16 * (size_t)i + 14, 2, flags);
}
static inline uint64_t rawp_addr(const uint8_t *table, uint32_t i)
{
    return rawp_get(table + 16 * (size_t)i, 8);
}
static inline uint32_t rawp_len(const uint8_t *table, uint32_t i)
{
    return (uint32_t)rawp_get(table + 16 * (size_t)i + 8, 4);
}
static inline uint16_t rawp_id(const uint8_t *table, uint32_t i)
{
    return (uint16_t)rawp_get(table + 16 * (size_t)i + 12, 2);
}
static inline uint16_t rawp_flags(const uint8_t *table, uint32_t i)
{
    return (uint16_t)rawp_get(table + 16 * (size_t)i + 14, 2);
}
static inline void rawp_set_flags(uint8_t *table, uint32_t i, unsigned flags)
{
    rawp_put(table + 16 * (size_t)i + 14, 2, flags);
}

/* An event area: le16 with the offset in bits 14:0 and the wrap in bit 15, le16 flags. */
static inline void rawp_set_event(uint8_t *area, struct rawp_pos at, unsigned flags)
{
    rawp_put(area, 2, at.slot | (at.wrap ? 0x8000u : 0u));
    rawp_put(area + 2, 2, flags);
}
static inline uint16_t rawp_event_flags(const uint8_t *area)
{
    return (uint16_t)rawp_get(area + 2, 2);
}
static inline bool rawp_event_is(const uint8_t *area, struct rawp_pos at)
{
    uint16_t word = (uint16_t)rawp_get(area, 2);

    return (word & 0x7fff) == at.slot && word >> 15 == (at.wrap ? 1 : 0);
}

/* Slot by slot, so that there is no arithmetic to get wrong. */
static inline struct rawp_pos rawp_after(const struct rawp_ring *r, struct rawp_pos at,
                                         uint32_t count)
{
    while (count-- != 0)
        if (++at.slot == r->num) {
            at.slot = 0;
            at.wrap = !at.wrap;
        }
    return at;
}
static inline bool rawp_same(struct rawp_pos a, struct rawp_pos b)
{
    return a.slot == b.slot && a.wrap == b.wrap;
}

static inline unsigned rawp_avail_bits(struct rawp_pos at)
{
    return at.wrap ? RAWP_AVAIL : RAWP_USED;
}
static inline unsigned rawp_used_bits(struct rawp_pos at)
{
    return at.wrap ? RAWP_AVAIL | RAWP_USED : 0;
}
static inline bool rawp_is_avail(const struct rawp_ring *r, struct rawp_pos at)
{
    return (rawp_flags(r->desc, at.slot) & RAWP_LAP) == rawp_avail_bits(at);
}
static inline bool rawp_is_used(const struct rawp_ring *r, struct rawp_pos at)
{
    return (rawp_flags(r->desc, at.slot) & RAWP_LAP) == rawp_used_bits(at);
}

static inline void rawp_start(struct rawp_side *side, uint32_t slot, bool wrap)
{
    side->avail.slot = side->used.slot = slot;
    side->avail.wrap = side->used.wrap = wrap;
}

/* What a driver does: makes one more descriptor available, and sees one list completed. */
static inline void rawp_offer(const struct rawp_ring *r, struct rawp_side *driver, uint64_t addr,
                              uint32_t len, unsigned flags, unsigned id)
{
    rawp_desc(r->desc, driver->avail.slot, addr, len, id, flags | rawp_avail_bits(driver->avail));
    driver->avail = rawp_after(r, driver->avail, 1);
}
static inline bool rawp_collect(const struct rawp_ring *r, struct rawp_side *driver, uint16_t id,
                                uint32_t len, bool written, uint32_t count)
{
    uint32_t slot = driver->used.slot;
    unsigned flags = rawp_used_bits(driver->used) | (written ? RAW_WRITE : 0u);
    bool good = rawp_flags(r->desc, slot) == flags && rawp_id(r->desc, slot) == id &&
                rawp_len(r->desc, slot) == len;

    driver->used = rawp_after(r, driver->used, count);
    return good;
}

/* What a device does: fetches the next list, and uses one up. */
static inline bool rawp_fetch(const struct rawp_ring *r, struct rawp_side *device,
                              struct rawp_list *list)
{
    list->slot = device->avail.slot;
    for (list->count = 1; list->count <= r->num; list->count++) {
        uint32_t slot = device->avail.slot;

        if (!rawp_is_avail(r, device->avail))
            return false;
        list->id = rawp_id(r->desc, slot);
        device->avail = rawp_after(r, device->avail, 1);
        if (!(rawp_flags(r->desc, slot) & RAW_NEXT))
            return true;
    }
    return false;
}
static inline void rawp_use(const struct rawp_ring *r, struct rawp_side *device, unsigned id,
                            uint32_t len, unsigned flags, uint32_t count)
{
    uint64_t addr = rawp_addr(r->desc, device->used.slot);

    rawp_desc(r->desc, device->used.slot, addr, len, id, flags | rawp_used_bits(device->used));
    device->used = rawp_after(r, device->used, count);
}

#endif /* RAW_PACKED_H */
