// SPDX-License-Identifier: MIT-0
/* The in-flight region of a vhost-user queue; see inflight.h. */
#include "inflight.h"

#include <stdlib.h>

enum { REGION_VERSION = 1, REGION_ALIGN = 64 };

/* Split: of each descriptor, if it is a head. */
struct split_entry {
    uint8_t inflight;
    uint8_t padding[5];
    uint16_t next; /* of those pushed together */
    uint64_t counter;
};
struct split_region {
    uint64_t features;
    uint16_t version; /* 0: new */
    uint16_t desc_num;
    uint16_t last_batch_head;
    uint16_t used_idx;
    struct split_entry desc[];
};

/* Packed: a copy of each descriptor popped, in lists; the free ones are a list as well. */
struct packed_entry {
    uint8_t inflight; /* this and the next fields: of a head */
    uint8_t padding;
    uint16_t next;
    uint16_t last;
    uint16_t num;
    uint64_t counter;
    uint16_t id; /* from here on as in the ring */
    uint16_t flags;
    uint32_t len;
    uint64_t addr;
};
struct packed_region {
    uint64_t features;
    uint16_t version;
    uint16_t desc_num;
    uint16_t free_head;
    uint16_t old_free_head;
    uint16_t used_idx;
    uint16_t old_used_idx;
    uint8_t used_wrap;
    uint8_t old_used_wrap;
    uint8_t padding[10];
    struct packed_entry desc[];
};
_Static_assert(sizeof(struct split_entry) == 16, "DescStateSplit");
_Static_assert(sizeof(struct split_region) == 16, "QueueRegionSplit");
_Static_assert(sizeof(struct packed_entry) == 32, "DescStatePacked");
_Static_assert(sizeof(struct packed_region) == 32, "QueueRegionPacked");

/* The buffers that have to be done again. In no memory that would have to be freed: a region that is cut
 * off ends a start by a jump (loop.c). */
static struct held {
    uint64_t counter;
    uint16_t entry;
} held[VIRTQ_MAX_SIZE];

/* Every access is one load or store, in program order: that is all a process that is killed between
 * two of them can be seen to have done. */
static volatile struct split_region *split(const struct vhu_track *track)
{
    return track->region;
}
static volatile struct packed_region *packed(const struct vhu_track *track)
{
    return track->region;
}

static bool is_packed(const struct vhu_track *track)
{
    return (track->flags & VIRTQ_PACKED) != 0;
}

size_t vhu_track_size(uint16_t entries, uint16_t flags)
{
    size_t bytes = flags & VIRTQ_PACKED
                       ? sizeof(struct packed_region) + entries * sizeof(struct packed_entry)
                       : sizeof(struct split_region) + entries * sizeof(struct split_entry);

    return (bytes + REGION_ALIGN - 1) / REGION_ALIGN * REGION_ALIGN;
}

static int by_counter(const void *a, const void *b)
{
    const struct held *x = a, *y = b;

    return x->counter < y->counter ? -1 : x->counter > y->counter;
}

/* What is in flight, oldest first, into `held`: how many. */
static uint32_t collect(struct vhu_track *track)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < track->entries; i++) {
        bool inflight = is_packed(track) ? packed(track)->desc[i].inflight == 1
                                         : split(track)->desc[i].inflight == 1;

        if (!inflight)
            continue;
        held[count].counter =
            is_packed(track) ? packed(track)->desc[i].counter : split(track)->desc[i].counter;
        held[count++].entry = (uint16_t)i;
    }
    qsort(held, count, sizeof(*held), by_counter);
    track->counter = count == 0 ? 0 : held[count - 1].counter + 1;
    return count;
}

/* ----- split ring ----- */

/* Clears the marks of the `batch` buffers pushed last. */
static void split_clear(struct vhu_track *track, uint32_t batch)
{
    volatile struct split_region *region = split(track);
    uint16_t at = region->last_batch_head;

    for (; batch != 0 && at < track->entries; batch--) {
        region->desc[at].inflight = 0;
        at = region->desc[at].next;
    }
}

static int32_t split_start(struct vhu_track *track, const struct virtq_areas *areas,
                           struct virtq_position *at, uint16_t *head)
{
    volatile struct split_region *region = split(track);
    uint16_t used = vhu_ring16(areas->flags, ((volatile const uint16_t *)areas->device)[1]);
    uint16_t batch = (uint16_t)(used - region->used_idx);
    uint32_t count;

    /* The index was published, but the marks of that batch may still be there. */
    split_clear(track, batch < track->entries ? batch : track->entries);
    region->used_idx = used;
    count = collect(track);
    for (uint32_t i = 0; i < count; i++)
        head[i] = held[i].entry;
    at->avail_idx = at->used_idx = used;
    return (int32_t)count;
}

/* ----- packed ring ----- */

/* The list of free entries ends with a number that none has. */
static void packed_free_all(const struct vhu_track *track)
{
    for (uint32_t i = 0; i < track->entries; i++)
        packed(track)->desc[i].next = (uint16_t)(i + 1);
    packed(track)->free_head = packed(track)->old_free_head = 0;
}

static bool packed_step(const struct vhu_track *track, uint16_t *at)
{
    if (*at >= track->entries)
        return false;
    *at = packed(track)->desc[*at].next;
    return true;
}

/* The last flush happened if its descriptor is no longer available; else what led to it did not. */
static bool packed_settle(struct vhu_track *track, const struct virtq_areas *areas)
{
    volatile struct packed_region *region = packed(track);
    const volatile struct virtq_packed_desc *ring = areas->desc;
    uint16_t at = region->old_used_idx, free_at, flags, avail;

    if (at >= areas->num || region->used_idx >= areas->num)
        return false;
    avail = region->old_used_wrap ? VIRTQ_DESC_FLAG_AVAIL : VIRTQ_DESC_FLAG_USED;
    flags = vhu_ring16(areas->flags, ring[at].flags) & (VIRTQ_DESC_FLAG_AVAIL | VIRTQ_DESC_FLAG_USED);
    if ((region->used_idx != at || region->used_wrap != region->old_used_wrap) && flags != avail) {
        region->old_free_head = region->free_head;
        region->old_used_idx = region->used_idx;
        region->old_used_wrap = region->used_wrap;
    }
    region->free_head = free_at = region->old_free_head;
    region->used_idx = region->old_used_idx;
    region->used_wrap = region->old_used_wrap;
    for (uint32_t left = track->entries; left != 0 && free_at < track->entries; left--) {
        region->desc[free_at].inflight = 0;
        (void)packed_step(track, &free_at);
    }
    return true;
}

/* Puts the descriptors of one buffer back where the device works next; false if they do not fit. */
static bool packed_put_back(const struct vhu_track *track, const struct virtq_areas *areas,
                            uint16_t entry, uint16_t *pos, uint32_t *room)
{
    struct virtq_packed_desc *ring = areas->desc;
    uint16_t lap = VIRTQ_DESC_FLAG_AVAIL | VIRTQ_DESC_FLAG_USED;

    for (uint32_t left = packed(track)->desc[entry].num; left != 0; left--, (*room)--) {
        volatile struct packed_entry *from = &packed(track)->desc[entry];
        struct virtq_packed_desc *to = &ring[*pos & (VHU_WRAP - 1)];
        uint16_t avail = *pos & VHU_WRAP ? VIRTQ_DESC_FLAG_AVAIL : VIRTQ_DESC_FLAG_USED;
        uint16_t flags = (uint16_t)((vhu_ring16(areas->flags, from->flags) & ~lap) | avail);

        if (*room == 0)
            return false;
        to->addr = from->addr;
        to->len = from->len;
        to->id = from->id;
        VIRTIO_STORE_RELEASE16(&to->flags, vhu_ring16(areas->flags, flags));
        *pos = (uint16_t)((*pos & (VHU_WRAP - 1)) + 1 == areas->num ? ~*pos & VHU_WRAP : *pos + 1);
        if (left != 1 && (!packed_step(track, &entry) || entry >= track->entries))
            return false;
    }
    return true;
}

/* In flight are the descriptors between used and available position, all of them and no others: put
 * back in the order of their pops, they are where a device that starts there looks. */
static int32_t packed_start(struct vhu_track *track, const struct virtq_areas *areas,
                            struct virtq_position *at)
{
    uint32_t count, room = areas->num;
    int32_t found;
    uint16_t pos;

    if (!packed_settle(track, areas))
        return -1;
    pos = (uint16_t)(packed(track)->used_idx | (packed(track)->used_wrap ? VHU_WRAP : 0));
    if ((pos & (VHU_WRAP - 1)) >= areas->num)
        return -1;
    at->avail_idx = at->used_idx = pos;
    count = collect(track);
    for (uint32_t i = 0; i < count; i++) {
        if (!packed_put_back(track, areas, held[i].entry, &pos, &room))
            return -1;
    }
    found = (int32_t)count;
    /* They are popped anew, into entries of their own. The newest is forgotten first: whoever has to
     * start from here puts the others back into the same places. */
    while (count-- != 0)
        packed(track)->desc[held[count].entry].inflight = 0;
    packed_free_all(track);
    return found;
}

/* Copies the descriptors of the list that begins at `pos`. */
static void packed_pop(struct vhu_track *track, uint16_t pos, uint32_t count)
{
    volatile struct packed_region *region = packed(track);
    uint16_t head = region->free_head, at = head, slot = pos & (VHU_WRAP - 1);

    if (head >= track->entries)
        return;
    region->desc[head].num = (uint16_t)count;
    region->desc[head].counter = track->counter++;
    for (; count != 0 && at < track->entries; count--) {
        const volatile struct virtq_packed_desc *d = &track->ring[slot];

        region->desc[at].addr = d->addr;
        region->desc[at].len = d->len;
        region->desc[at].flags = d->flags;
        region->desc[at].id = d->id;
        region->desc[head].last = at;
        slot = (uint16_t)(slot + 1 == track->entries ? 0 : slot + 1);
        at = region->desc[at].next;
    }
    region->free_head = at;
    region->desc[head].inflight = 1;
    region->old_free_head = at;
    track->entry = head;
}

static void packed_push(struct vhu_track *track, uint32_t count)
{
    volatile struct packed_region *region = packed(track);
    uint16_t last = region->desc[track->entry].last;
    uint32_t used = region->used_idx + count;

    if (last >= track->entries)
        return;
    region->desc[last].next = region->free_head;
    region->free_head = track->entry;
    if (used >= track->entries) {
        used -= track->entries;
        region->used_wrap = !region->used_wrap;
    }
    region->used_idx = (uint16_t)used;
}

/* ----- either ----- */

static void begin(struct vhu_track *track, struct virtq_position at)
{
    if (!is_packed(track)) {
        split(track)->features = 0;
        split(track)->desc_num = track->entries;
        split(track)->used_idx = at.used_idx;
        for (uint32_t i = 0; i < track->entries; i++)
            split(track)->desc[i].inflight = 0;
        split(track)->version = REGION_VERSION;
        return;
    }
    packed(track)->features = 0;
    packed(track)->desc_num = track->entries;
    packed_free_all(track);
    packed(track)->used_idx = packed(track)->old_used_idx = at.used_idx & (VHU_WRAP - 1);
    packed(track)->used_wrap = packed(track)->old_used_wrap = (uint8_t)(at.used_idx >> 15);
    for (uint32_t i = 0; i < track->entries; i++)
        packed(track)->desc[i].inflight = 0;
    packed(track)->version = REGION_VERSION;
}

int32_t vhu_track_start(struct vhu_track *track, const struct virtq_areas *areas,
                        struct virtq_position *at, uint16_t *head)
{
    uint16_t version, entries;

    track->flags = areas->flags;
    track->ring = areas->desc;
    track->counter = 0;
    track->batch = 0;
    track->entry = 0; /* of this region: the one before may have been larger */
    version = is_packed(track) ? packed(track)->version : split(track)->version;
    entries = is_packed(track) ? packed(track)->desc_num : split(track)->desc_num;
    if (version == 0) {
        begin(track, *at);
        return 0;
    }
    if (version != REGION_VERSION || entries != track->entries || entries != areas->num)
        return -1;
    return is_packed(track) ? packed_start(track, areas, at) : split_start(track, areas, at, head);
}

void vhu_track_pop(struct vhu_track *track, uint16_t before, uint32_t token)
{
    uint16_t head = (uint16_t)token;

    if (track->region == NULL)
        return;
    if (is_packed(track)) {
        packed_pop(track, before, (token >> 16) + 1);
        return;
    }
    split(track)->desc[head].counter = track->counter++;
    split(track)->desc[head].inflight = 1;
}

void vhu_track_unpop(struct vhu_track *track, uint32_t token)
{
    if (track->region == NULL)
        return;
    if (is_packed(track)) {
        packed(track)->desc[track->entry].inflight = 0;
        packed(track)->free_head = packed(track)->old_free_head = track->entry;
        return;
    }
    split(track)->desc[(uint16_t)token].inflight = 0;
}

void vhu_track_push(struct vhu_track *track, uint32_t token)
{
    uint16_t head = (uint16_t)token;

    if (track->region == NULL)
        return;
    if (is_packed(track)) {
        packed_push(track, (token >> 16) + 1);
        return;
    }
    split(track)->desc[head].next = split(track)->last_batch_head;
    split(track)->last_batch_head = head;
    track->batch++;
}

void vhu_track_flush(struct vhu_track *track, uint16_t used_idx)
{
    if (track->region == NULL)
        return;
    if (is_packed(track)) {
        packed(track)->desc[track->entry].inflight = 0;
        packed(track)->old_free_head = packed(track)->free_head;
        packed(track)->old_used_idx = packed(track)->used_idx;
        packed(track)->old_used_wrap = packed(track)->used_wrap;
        return;
    }
    split_clear(track, track->batch);
    track->batch = 0;
    split(track)->used_idx = used_idx;
}

void vhu_track_end(struct vhu_track *track)
{
    if (track->region == NULL)
        return;
    if (is_packed(track))
        packed(track)->version = 0;
    else
        split(track)->version = 0;
    track->region = NULL;
}
