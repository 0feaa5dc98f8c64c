// SPDX-License-Identifier: MIT-0
/* A virtio entropy driver over any transport; see rng.h. VIRTIO 5.4. */
#include "rng.h"

static struct rng_wire *rng_wire(const struct rng *rng, unsigned slot)
{
    return (struct rng_wire *)rng->wire.cpu + slot;
}

/* The device type has no features of its own. */
static int rng_negotiate(struct rng *rng)
{
    static const struct virtio_features required = {{0, 0, 0, 0}};
    struct virtio_features wanted = {{0, 0, 0, 0}};

    virtio_features_add_ring(&wanted);
    for (unsigned word = 0; word < 4; word++)
        wanted.word[word] &= ~rng->setup.refused.word[word];
    return virtio_drv_negotiate(rng->drv, &wanted, &required);
}

/* Queue 0 first, the requests' wire memory behind it. */
static int rng_setup_queue(struct rng *rng)
{
    uint16_t num = rng->setup.queue_size;
    struct virtio_dma *memory = &rng->setup.memory;
    struct virtio_queue_setup setup;
    uint32_t ring;
    int err = 0;

    if (num == 0)
        num = virtio_drv_queue_size(rng->drv, 0);
    if (num > RNG_QUEUE_MAX)
        return RNG_ERR_QUEUE;
    ring = virtio_drv_queue_bytes(rng->drv, num);
    if (memory->length < ring || memory->length - ring < RNG_DEPTH * sizeof(struct rng_wire))
        return RNG_ERR_MEMORY;
    rng->queue_size = setup.num = num;
    setup.memory = *memory;
    setup.slots = rng->slots;
    rng->wire.cpu = (uint8_t *)memory->cpu + ring;
    rng->wire.device = memory->device + ring;
    rng->wire.length = memory->length - ring;
    for (unsigned slot = 0; slot < RNG_DEPTH; slot++)
        rng->request[slot].busy = false;
    if (rng->setup.vectors != 0)
        err = virtio_drv_map_vectors(rng->drv, 1, rng->setup.vectors);
    if (err < 0)
        return err;
    return virtio_drv_queue_setup(rng->drv, &rng->queue, 0, &setup);
}

int rng_start(struct rng *rng, struct virtio_drv *drv, const struct rng_setup *setup)
{
    int err = virtio_drv_begin(drv);

    rng->drv = drv;
    rng->setup = *setup;
    if (err != 0)
        return err;
    err = rng_negotiate(rng);
    if (err == 0)
        err = rng_setup_queue(rng);
    if (err != 0) {
        virtio_drv_fail(drv);
        return err;
    }
    virtio_drv_ready(drv);
    return 0;
}

int rng_stop(struct rng *rng)
{
    return virtio_drv_reset(rng->drv);
}

int rng_reset_queue(struct rng *rng, uint16_t queue_size, void *cookies[RNG_DEPTH])
{
    void *request;
    uint16_t at = 0;
    int count = 0, err = virtio_drv_queue_reset(rng->drv, &rng->queue);

    if (err != 0)
        return err;
    while (virtq_driver_detach(&rng->queue.ring, &at, &request))
        cookies[count++] = ((const struct rng_request *)request)->cookie;
    rng->setup.queue_size = queue_size;
    err = rng_setup_queue(rng);
    return err != 0 ? err : count;
}

static int rng_free_slot(const struct rng *rng)
{
    for (int slot = 0; slot < RNG_DEPTH; slot++) {
        if (!rng->request[slot].busy)
            return slot;
    }
    return RNG_ERR_BUSY;
}

static bool rng_data_ok(const struct virtq_seg *data, unsigned count)
{
    for (unsigned i = 0; i < count && count <= RNG_SEGS; i++) {
        if (data[i].len == 0)
            return false;
    }
    return count != 0 && count <= RNG_SEGS;
}

int rng_submit(struct rng *rng, const struct virtq_seg *data, unsigned count, void *cookie)
{
    struct virtq_buffer buffer = {data, 0, (uint16_t)count}; /* nothing to read (D-RNG-01) */
    struct virtq_table table;
    int slot, err;

    if (!rng_data_ok(data, count))
        return RNG_ERR_SEGMENTS;
    slot = rng_free_slot(rng);
    if (slot < 0)
        return slot;
    table.mem = rng_wire(rng, (unsigned)slot)->table;
    table.addr = rng->wire.device + (unsigned)slot * sizeof(struct rng_wire);
    table.capacity = RNG_SEGS;
    err = virtq_driver_add_indirect(&rng->queue.ring, &buffer, &table, &rng->request[slot]);
    if (err != 0)
        return err;
    rng->request[slot].cookie = cookie;
    rng->request[slot].busy = true;
    return 0;
}

void rng_kick(struct rng *rng)
{
    virtq_driver_publish(&rng->queue.ring);
    virtio_drv_kick(&rng->queue);
}

int rng_complete(struct rng *rng, struct rng_result *result)
{
    struct virtq_done done = {NULL, 0};
    struct rng_request *request;
    int got = virtq_driver_take(&rng->queue.ring, &done);

    if (got <= 0)
        return got;
    request = (struct rng_request *)done.cookie;
    request->busy = false;
    result->cookie = request->cookie;
    result->length = done.written;
    return done.written != 0 ? 1 : RNG_ERR_EMPTY; /* V-RNG-01 */
}

int rng_await(struct rng *rng, struct rng_result *result)
{
    for (;;) {
        int got = rng_complete(rng, result);

        if (got != 0)
            return got > 0 ? 0 : got;
        if (virtq_driver_irq_on(&rng->queue.ring))
            continue;
        if (!rng->setup.wait(rng->setup.wait_ctx))
            return virtio_drv_needs_reset(rng->drv) ? RNG_ERR_DEVICE : RNG_ERR_TIMEOUT;
    }
}

int rng_read(struct rng *rng, struct virtq_seg data)
{
    struct rng_result result;
    int err = 0;

    while (err == 0 && data.len != 0) {
        err = rng_submit(rng, &data, 1, NULL);
        if (err != 0)
            return err;
        rng_kick(rng);
        err = rng_await(rng, &result);
        if (err == 0) {
            data.addr += result.length;
            data.len -= result.length;
        }
    }
    return err;
}

const char *rng_err_name(int err)
{
    switch (err) {
    case RNG_ERR_BUSY: return "too many requests in flight";
    case RNG_ERR_SEGMENTS: return "wrong number or length of segments";
    case RNG_ERR_TIMEOUT: return "device does not answer";
    case RNG_ERR_MEMORY: return "memory given to the driver is too small";
    case RNG_ERR_QUEUE: return "device wants a larger queue than this driver has";
    case RNG_ERR_EMPTY: return "device gave no byte at all";
    case RNG_ERR_DEVICE: return "device failed and wants a reset";
    default: return virtio_err_name(err);
    }
}
