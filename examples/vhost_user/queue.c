// SPDX-License-Identifier: MIT-0
/* The rings of a vhost-user back-end; see queue.h and backend.h. */
#define _POSIX_C_SOURCE 200809L
#include "queue.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "virtio.h"

enum { BATCH = 16, WRAP_AND_SLOT = 0xffff };

void vhu_replace_fd(int *place, int fd)
{
    if (*place >= 0)
        close(*place);
    *place = fd;
}

/* Asks first: O_NONBLOCK is of the open file, and the front-end, which has it as well, can take it back. */
void vhu_signal_fd(int fd)
{
    struct pollfd room = {fd, POLLOUT, 0};
    uint64_t one = 1;

    if (fd >= 0 && poll(&room, 1, 0) == 1 && write(fd, &one, sizeof(one)) < 0)
        return;
}

void vhu_queue_init(struct vhu_queue *queue)
{
    queue->num = 0;
    queue->base = 0;
    queue->has_addr = queue->enabled = queue->live = false;
    queue->polled = queue->pending = queue->broken = false;
    queue->track.region = NULL;
    queue->kick = queue->call = queue->err = -1;
}

/* ----- start and stop ----- */

static uint16_t ring_flags(const struct vhu_backend *backend)
{
    struct virtio_features accepted = {
        {(uint32_t)backend->accepted, (uint32_t)(backend->accepted >> 32), 0, 0}};

    return virtio_features_ring_flags(&accepted);
}

/* The three areas, every byte of which has to be memory. */
static const char *find_areas(const struct vhu_queue *queue, struct virtq_areas *areas)
{
    const struct vhu_map *map = &queue->backend->map;
    uint64_t num = queue->num, driver = 4, device = 4;

    areas->num = queue->num;
    areas->flags = ring_flags(queue->backend);
    if (!(areas->flags & VIRTQ_PACKED)) {
        uint64_t event = areas->flags & VIRTQ_EVENT_IDX ? 2 : 0;

        driver = 4 + 2 * num + event;
        device = 4 + 8 * num + event;
    }
    areas->desc = vhu_map_user(map, queue->addr.desc, 16 * num);
    areas->driver = vhu_map_user(map, queue->addr.avail, driver);
    areas->device = vhu_map_user(map, queue->addr.used, device);
    if (areas->desc == NULL || areas->driver == NULL || areas->device == NULL)
        return "ring outside the memory regions";
    return NULL;
}

static const void *map_table(void *ctx, uint64_t addr, uint32_t len)
{
    return vhu_backend_map(ctx, addr, len);
}

/* A front-end that knows nothing of packed rings (user-mode Linux) starts a new one at 0, which is in
 * the lap of the other wrap counter. The ring knows better: where the device works next, USED is the
 * opposite of the counter, whether a descriptor is available there or not. */
static bool first_lap(const struct virtq_areas *areas)
{
    const volatile struct virtq_packed_desc *ring = areas->desc;

    return !(vhu_ring16(areas->flags, ring[0].flags) & VIRTQ_DESC_FLAG_USED);
}

/* Where the front-end says that the ring stands. Nothing is in flight but what the in-flight region
 * knows, so that used and available position are the same. */
static struct virtq_position position(const struct vhu_queue *queue,
                                      const struct virtq_areas *areas)
{
    uint16_t avail = queue->base & WRAP_AND_SLOT, used = (uint16_t)(queue->base >> 16);
    struct virtq_position at;

    at.avail_idx = avail;
    if (areas->flags & VIRTQ_PACKED) {
        at.avail_idx = used != 0 ? used : avail;
        if (queue->base == 0)
            at.avail_idx = first_lap(areas) ? VHU_WRAP : 0;
    }
    at.used_idx = at.avail_idx;
    return at;
}

/* The queue's part of the in-flight region, if there is one for it. */
static const char *find_track(struct vhu_queue *queue, uint16_t flags)
{
    const struct vhu_inflight *shape = &queue->backend->inflight_shape;
    size_t size = vhu_track_size(shape->queue_size, flags);

    queue->track.region = NULL;
    if (queue->backend->inflight == NULL || queue->index >= shape->queue_count)
        return NULL;
    if (size * (queue->index + 1u) > shape->mmap_size || queue->num != shape->queue_size)
        return "in-flight region that does not fit the ring";
    queue->track.region =
        (uint8_t *)queue->backend->inflight + shape->mmap_offset + size * queue->index;
    queue->track.entries = queue->num;
    return NULL;
}

/* What an earlier back-end left behind, from an available ring of our own that names it. What the
 * device puts off then it finds again in the driver's ring: in order, as it was. */
static const char *serve_again(struct vhu_queue *queue, const struct virtq_areas *areas,
                               struct virtq_position *at, const uint16_t *head, uint32_t count)
{
    static uint16_t avail[3 + VIRTQ_MAX_SIZE]; /* as the heads: a serve() may end by a jump */
    struct virtq_areas own = *areas;
    int more = 1;

    for (uint32_t i = 0; i < count; i++)
        avail[2 + (at->used_idx + i) % areas->num] = vhu_ring16(areas->flags, head[i]);
    avail[1] = vhu_ring16(areas->flags, (uint16_t)(at->used_idx + count));
    own.driver = avail;
    if (virtq_device_init(&queue->ring, &own, map_table, queue->backend) != 0 ||
        virtq_device_restore(&queue->ring, *at) != 0)
        more = -1;
    for (uint32_t turns = 0; turns <= count && more == 1; turns++)
        more = queue->backend->ops->serve(queue->backend->ctx, queue);
    *at = virtq_device_save(&queue->ring);
    vhu_signal_fd(queue->call); /* the driver's wishes were not in that ring */
    return more < 0 ? "in-flight request that cannot be served" : NULL;
}

/* Takes up what the in-flight region remembers; *at is then where the ring starts. */
static const char *recover(struct vhu_queue *queue, const struct virtq_areas *areas,
                           struct virtq_position *at)
{
    static uint16_t head[VIRTQ_MAX_SIZE];
    const char *why = find_track(queue, areas->flags);
    int32_t count;

    if (why != NULL || queue->track.region == NULL)
        return why;
    count = vhu_track_start(&queue->track, areas, at, head);
    if (count < 0)
        why = "in-flight region of another ring";
    else if (count > 0 && !(areas->flags & VIRTQ_PACKED))
        why = serve_again(queue, areas, at, head, (uint32_t)count);
    if (why == NULL && count > 0)
        vhu_log(queue->backend, "queue %u: %d requests in flight served again", queue->index,
                (int)count);
    return why;
}

static const char *start(struct vhu_queue *queue)
{
    struct virtq_areas areas;
    struct virtq_position at;
    const char *why = find_areas(queue, &areas);
    int err;

    if (why != NULL)
        return why;
    err = virtq_device_init(&queue->ring, &areas, map_table, queue->backend);
    if (err != 0)
        return virtq_err_name(err);
    at = position(queue, &areas);
    why = recover(queue, &areas, &at);
    if (why != NULL)
        return why;
    err = virtq_device_init(&queue->ring, &areas, map_table, queue->backend);
    if (err == 0)
        err = virtq_device_restore(&queue->ring, at);
    queue->live = err == 0;
    return err != 0 ? virtq_err_name(err) : NULL;
}

void vhu_queue_pause(struct vhu_queue *queue)
{
    struct virtq_position at;

    if (!queue->live)
        return;
    at = virtq_device_save(&queue->ring);
    queue->base = at.avail_idx;
    if (ring_flags(queue->backend) & VIRTQ_PACKED)
        queue->base |= (uint32_t)at.used_idx << 16;
    queue->live = false;
    queue->pending = true;
}

void vhu_queue_stop(struct vhu_queue *queue)
{
    vhu_queue_pause(queue);
    if (!queue->broken)
        vhu_track_end(&queue->track);
    queue->broken = queue->pending = queue->polled = false;
    vhu_replace_fd(&queue->kick, -1);
}

void vhu_queue_reset(struct vhu_queue *queue)
{
    vhu_replace_fd(&queue->kick, -1);
    vhu_replace_fd(&queue->call, -1);
    vhu_replace_fd(&queue->err, -1);
    vhu_queue_init(queue);
}

/* ----- serve ----- */

static void give_up(struct vhu_queue *queue, int err)
{
    queue->broken = true;
    vhu_log(queue->backend, "queue %u: %s; left alone until it is reset", queue->index,
            virtq_err_name(err) != NULL ? virtq_err_name(err) : "device gave up");
    vhu_signal_fd(queue->err);
}

int vhu_queue_serve(struct vhu_queue *queue)
{
    const char *why = NULL;
    int more;

    if (!queue->enabled || queue->broken || !(queue->pending || queue->polled))
        return 0;
    if (!queue->live && (queue->num == 0 || !queue->has_addr || (queue->kick < 0 && !queue->polled)))
        return 0;
    if (!queue->live)
        why = start(queue);
    if (why != NULL) {
        snprintf(queue->backend->reason, VHU_REASON, "queue %u: %s", queue->index, why);
        return -1;
    }
    more = queue->backend->ops->serve(queue->backend->ctx, queue);
    queue->pending = more == 1;
    if (more < 0)
        give_up(queue, more);
    return more == 1;
}

/* ----- for the device ----- */

void *vhu_backend_map(void *backend, uint64_t addr, uint32_t len)
{
    return vhu_map_guest(&((struct vhu_backend *)backend)->map, addr, len);
}

const struct vhu_mapping *vhu_backend_region(const struct vhu_backend *backend, uint64_t addr)
{
    return vhu_map_region(&backend->map, addr);
}

/* Cuts the segments that lie in two regions, which are neighbours for the driver only. */
static int cut(const struct vhu_map *map, struct virtq_chain *chain)
{
    for (uint32_t i = 0; i < (uint32_t)chain->readable + chain->writable; i++) {
        uint32_t count = (uint32_t)chain->readable + chain->writable;
        const struct vhu_mapping *region = vhu_map_region(map, chain->seg[i].addr);
        uint64_t run = region != NULL ? region->size - (chain->seg[i].addr - region->guest_addr) : 0;

        if (run == 0 || run >= chain->seg[i].len)
            continue;
        if (count == chain->capacity)
            return VIRTQ_ERR_CHAIN_CAPACITY;
        for (uint32_t to = count; to > i; to--)
            chain->seg[to] = chain->seg[to - 1];
        chain->seg[i].len = (uint32_t)run;
        chain->seg[i + 1].addr += run;
        chain->seg[i + 1].len -= (uint32_t)run;
        if (i < chain->readable)
            chain->readable++;
        else
            chain->writable++;
    }
    return 1;
}

int vhu_queue_pop(struct vhu_queue *queue, struct virtq_chain *chain)
{
    bool copies = queue->track.region != NULL && (queue->track.flags & VIRTQ_PACKED);
    uint16_t before = copies ? virtq_device_save(&queue->ring).avail_idx : 0;
    int rc = virtq_device_pop(&queue->ring, chain);

    if (rc == 1 || virtq_err_names_chain(rc))
        vhu_track_pop(&queue->track, before, chain->token);
    return rc == 1 ? cut(&queue->backend->map, chain) : rc;
}

void vhu_queue_push(struct vhu_queue *queue, uint32_t token, uint32_t written)
{
    vhu_track_push(&queue->track, token);
    virtq_device_push(&queue->ring, token, written);
    if (queue->track.region != NULL && (queue->track.flags & VIRTQ_PACKED))
        vhu_queue_flush(queue); /* an entry of the region is free for the next pop only then */
}

void vhu_queue_flush(struct vhu_queue *queue)
{
    virtq_device_flush(&queue->ring);
    vhu_track_flush(&queue->track, virtq_device_save(&queue->ring).used_idx);
    if (virtq_device_irq_due(&queue->ring))
        vhu_signal_fd(queue->call);
}

void vhu_queue_wake(struct vhu_queue *queue)
{
    queue->pending = true;
    queue->backend->woken = true;
}

int vhu_queue_answer(struct vhu_queue *queue,
                     uint32_t (*answer)(void *ctx, const struct virtq_chain *chain), void *ctx)
{
    struct virtq_seg seg[VHU_SEGS];
    struct virtq_chain chain;
    bool later = false;
    int rc = 0;

    chain.seg = seg;
    chain.capacity = VHU_SEGS;
    virtq_device_kick_off(&queue->ring);
    for (unsigned left = BATCH; left != 0; left--) {
        uint32_t written = 0;

        rc = vhu_queue_pop(queue, &chain);
        if (rc == 0 || (rc < 0 && !virtq_err_names_chain(rc)))
            break;
        if (rc == 1)
            written = answer(ctx, &chain);
        later = written == VHU_LATER;
        if (later) {
            vhu_track_unpop(&queue->track, chain.token);
            virtq_device_unpop(&queue->ring, chain.token);
            break;
        }
        vhu_queue_push(queue, chain.token, written);
    }
    vhu_queue_flush(queue);
    if (rc < 0 && !virtq_err_names_chain(rc))
        return rc;
    if (later)
        return 0;
    return rc != 0 || virtq_device_kick_on(&queue->ring);
}
