// SPDX-License-Identifier: MIT-0
/**
 * @file inflight.h
 * @brief What a vhost-user back-end had popped and not completed, in memory that outlives it.
 *
 * The front-end keeps the region and hands it to the next back-end, which may be another program: the
 * layouts and the order of stores are those of the protocol document, "Inflight I/O tracking". What is
 * read from a region may come from anywhere and is checked. One buffer is between pop and push at any
 * time.
 */
#ifndef EXAMPLES_VHOST_USER_INFLIGHT_H
#define EXAMPLES_VHOST_USER_INFLIGHT_H

#include "virtio_ring.h"

enum { VHU_WRAP = 0x8000 /**< the wrap counter in a packed position */ };

/** A field of a ring with these flags in the CPU's order, or back. */
static inline uint16_t vhu_ring16(uint16_t flags, uint16_t value)
{
    return VIRTIO_BIG_ENDIAN && !(flags & VIRTQ_LEGACY) ? __builtin_bswap16(value) : value;
}

/** The region of one queue. All zero: nothing is tracked. */
struct vhu_track {
    void *region;         /**< NULL: nothing is tracked */
    uint16_t entries;     /**< that it has room for: the queue size, exactly */
    uint16_t flags;       /**< of the queue: enum virtq_flag */
    uint16_t entry;       /**< packed: of the buffer between pop and push */
    uint16_t batch;       /**< split: pushed since the last flush */
    uint64_t counter;     /**< orders the buffers as they were popped */
    const struct virtq_packed_desc *ring;
};

/** Bytes of a queue's region. */
size_t vhu_track_size(uint16_t entries, uint16_t flags);

/**
 * Starts with the region that the caller has put into `region` and `entries`: a new one, or one with
 * buffers that an earlier back-end did not complete. Those of a packed ring are back in the ring
 * afterwards, to be popped again; those of a split ring are named by their heads.
 * @param at    set to where the device side starts; a new region leaves it as it is
 * @param head  array of areas->num, filled in order (split)
 * @return how many buffers there are, or -1: the region does not belong to this queue
 */
int32_t vhu_track_start(struct vhu_track *track, const struct virtq_areas *areas,
                        struct virtq_position *at, uint16_t *head);

/** Call after a pop. @param before  the available position before it */
void vhu_track_pop(struct vhu_track *track, uint16_t before, uint32_t token);

/** Instead of the push: the buffer is back in the ring, to be popped again. */
void vhu_track_unpop(struct vhu_track *track, uint32_t token);

/** Call before the push of the same token. */
void vhu_track_push(struct vhu_track *track, uint32_t token);

/** Call after the flush. In a packed ring there is one for each push.
 *  @param used_idx  the used position after it */
void vhu_track_flush(struct vhu_track *track, uint16_t used_idx);

/** Nothing is in flight, and the ring may start anew elsewhere: the region is a new one again. */
void vhu_track_end(struct vhu_track *track);

#endif
