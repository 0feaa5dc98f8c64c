// SPDX-License-Identifier: MIT-0
/* A virtio block driver over any transport; see blk.h. VIRTIO 5.2. */
#include "blk.h"

enum {
    BLK_STATUS_OK = 0,
    BLK_STATUS_UNSUPPORTED = 2,
    BLK_STATUS_NONE = 0xff, /* put there by us: the device never wrote a status */
    BLK_HEADER_SIZE = 16
};

static const struct virtio_config_field blk_field_capacity = {0, 8};
static const struct virtio_config_field blk_field_block_size = {20, 4};

/* Request headers are little-endian, for a legacy device in the CPU's order. */
static bool blk_swapped(const struct blk *blk)
{
    return VIRTIO_BIG_ENDIAN && !virtio_drv_transport(blk->drv)->legacy;
}

static struct blk_wire *blk_wire(const struct blk *blk, unsigned slot)
{
    return (struct blk_wire *)blk->wire.cpu + slot;
}

static uint64_t blk_wire_address(const struct blk *blk, unsigned slot, size_t offset)
{
    return blk->wire.device + slot * sizeof(struct blk_wire) + offset;
}

static int blk_negotiate(struct blk *blk)
{
    static const struct virtio_features required = {{0, 0, 0, 0}};
    struct virtio_features wanted = {
        {1u << BLK_FEATURE_RO | 1u << BLK_FEATURE_BLK_SIZE | 1u << BLK_FEATURE_FLUSH, 0, 0, 0}};

    virtio_features_add_ring(&wanted);
    for (unsigned word = 0; word < 4; word++)
        wanted.word[word] &= ~blk->setup.refused.word[word];
    return virtio_drv_negotiate(blk->drv, &wanted, &required);
}

static int blk_read_config(struct blk *blk)
{
    uint64_t value = 0;
    int err = virtio_drv_config_read(blk->drv, &blk_field_capacity, 1, &value);

    if (err != 0)
        return err;
    blk->capacity = value;
    blk->read_only = virtio_features_has(&blk->drv->offered, BLK_FEATURE_RO);
    blk->block_size = BLK_SECTOR_SIZE;
    if (!virtio_features_has(&blk->drv->offered, BLK_FEATURE_BLK_SIZE))
        return 0;
    err = virtio_drv_config_read(blk->drv, &blk_field_block_size, 1, &value);
    blk->block_size = (uint32_t)value;
    return err;
}

/* Queue 0 first, the requests' wire memory behind it. */
static int blk_setup_queue(struct blk *blk)
{
    uint16_t num = blk->setup.queue_size;
    struct virtio_dma *memory = &blk->setup.memory;
    struct virtio_queue_setup setup;
    uint32_t ring;
    int err = 0;

    if (num == 0)
        num = virtio_drv_queue_size(blk->drv, 0);
    if (num > BLK_QUEUE_MAX)
        return BLK_ERR_QUEUE;
    ring = virtio_drv_queue_bytes(blk->drv, num);
    if (memory->length < ring || memory->length - ring < BLK_DEPTH * sizeof(struct blk_wire))
        return BLK_ERR_MEMORY;
    blk->queue_size = setup.num = num;
    setup.memory = *memory;
    setup.slots = blk->slots;
    blk->wire.cpu = (uint8_t *)memory->cpu + ring;
    blk->wire.device = memory->device + ring;
    blk->wire.length = memory->length - ring;
    for (unsigned slot = 0; slot < BLK_DEPTH; slot++)
        blk->request[slot].busy = false;
    if (blk->setup.vectors != 0)
        err = virtio_drv_map_vectors(blk->drv, 1, blk->setup.vectors);
    if (err < 0)
        return err;
    return virtio_drv_queue_setup(blk->drv, &blk->queue, 0, &setup);
}

int blk_start(struct blk *blk, struct virtio_drv *drv, const struct blk_setup *setup)
{
    int err = virtio_drv_begin(drv);

    blk->drv = drv;
    blk->setup = *setup;
    if (err != 0)
        return err;
    err = blk_negotiate(blk);
    if (err == 0)
        err = blk_read_config(blk);
    if (err == 0)
        err = blk_setup_queue(blk);
    if (err != 0) {
        virtio_drv_fail(drv);
        return err;
    }
    virtio_drv_ready(drv);
    return 0;
}

int blk_stop(struct blk *blk)
{
    return virtio_drv_reset(blk->drv);
}

int blk_reset_queue(struct blk *blk, uint16_t queue_size, void *cookies[BLK_DEPTH])
{
    void *request;
    uint16_t at = 0;
    int count = 0, err = virtio_drv_queue_reset(blk->drv, &blk->queue);

    if (err != 0)
        return err;
    while (virtq_driver_detach(&blk->queue.ring, &at, &request))
        cookies[count++] = ((const struct blk_request *)request)->cookie;
    blk->setup.queue_size = queue_size;
    err = blk_setup_queue(blk);
    return err != 0 ? err : count;
}

/* Data of a transfer: whole sectors inside the disk. */
static int blk_check_data(const struct blk *blk, enum blk_type type, uint64_t sector,
                          const struct virtq_seg *data, unsigned count)
{
    uint64_t sectors = 0;

    if (type != BLK_READ && type != BLK_WRITE)
        return count == 0 ? 0 : BLK_ERR_SEGMENTS;
    if (count == 0 || count > BLK_DATA_SEGS)
        return BLK_ERR_SEGMENTS;
    if (type == BLK_WRITE && blk->read_only)
        return BLK_ERR_READ_ONLY;
    for (unsigned i = 0; i < count; i++) {
        if (data[i].len == 0 || data[i].len % BLK_SECTOR_SIZE != 0)
            return BLK_ERR_RANGE;
        sectors += data[i].len / BLK_SECTOR_SIZE;
    }
    return sector <= blk->capacity && sectors <= blk->capacity - sector ? 0 : BLK_ERR_RANGE;
}

static int blk_free_slot(const struct blk *blk)
{
    for (int slot = 0; slot < BLK_DEPTH; slot++) {
        if (!blk->request[slot].busy)
            return slot;
    }
    return BLK_ERR_BUSY;
}

static void blk_fill_header(const struct blk *blk, unsigned slot, enum blk_type type,
                            uint64_t sector)
{
    struct blk_wire *wire = blk_wire(blk, slot);
    bool swapped = blk_swapped(blk);

    wire->type = swapped ? __builtin_bswap32((uint32_t)type) : (uint32_t)type;
    wire->reserved = 0;
    wire->sector = swapped ? __builtin_bswap64(sector) : sector;
    wire->status = BLK_STATUS_NONE;
}

/* Header, data, status: the segments of a request, readable ones first. */
static struct virtq_buffer blk_buffer(const struct blk *blk, unsigned slot, enum blk_type type,
                                      const struct virtq_seg *data, unsigned count,
                                      struct virtq_seg seg[BLK_DATA_SEGS + 2])
{
    struct virtq_buffer buffer = {seg, 1, 1};
    unsigned at = 0;

    seg[at].addr = blk_wire_address(blk, slot, offsetof(struct blk_wire, type));
    seg[at++].len = BLK_HEADER_SIZE;
    for (unsigned i = 0; i < count; i++)
        seg[at++] = data[i];
    if (type == BLK_GET_ID) {
        seg[at].addr = blk_wire_address(blk, slot, offsetof(struct blk_wire, id));
        seg[at++].len = BLK_ID_SIZE;
    }
    seg[at].addr = blk_wire_address(blk, slot, offsetof(struct blk_wire, status));
    seg[at++].len = 1;
    buffer.readable = (uint16_t)(type == BLK_WRITE ? 1 + count : 1);
    buffer.writable = (uint16_t)(at - buffer.readable);
    return buffer;
}

int blk_submit(struct blk *blk, enum blk_type type, uint64_t sector, const struct virtq_seg *data,
               unsigned count, void *cookie)
{
    struct virtq_seg seg[BLK_DATA_SEGS + 2];
    struct virtq_buffer buffer;
    struct virtq_table table;
    int slot, err = blk_check_data(blk, type, sector, data, count);

    if (err != 0)
        return err;
    slot = blk_free_slot(blk);
    if (slot < 0)
        return slot;
    blk_fill_header(blk, (unsigned)slot, type, sector);
    buffer = blk_buffer(blk, (unsigned)slot, type, data, count, seg);
    table.mem = blk_wire(blk, (unsigned)slot)->table;
    table.addr = blk_wire_address(blk, (unsigned)slot, offsetof(struct blk_wire, table));
    table.capacity = BLK_DATA_SEGS + 2;
    err = virtq_driver_add_indirect(&blk->queue.ring, &buffer, &table, &blk->request[slot]);
    if (err != 0)
        return err;
    blk->request[slot].cookie = cookie;
    blk->request[slot].type = (uint8_t)type;
    blk->request[slot].busy = true;
    return 0;
}

void blk_kick(struct blk *blk)
{
    virtq_driver_publish(&blk->queue.ring);
    virtio_drv_kick(&blk->queue);
}

static int blk_status_error(uint8_t status)
{
    switch (status) {
    case BLK_STATUS_OK: return 0;
    case BLK_STATUS_UNSUPPORTED: return BLK_ERR_UNSUPPORTED;
    case BLK_STATUS_NONE: return BLK_ERR_DEVICE;
    default: return BLK_ERR_IO;
    }
}

int blk_complete(struct blk *blk, struct blk_result *result)
{
    struct virtq_done done = {NULL, 0};
    struct blk_request *request;
    int got = virtq_driver_take(&blk->queue.ring, &done);

    if (got <= 0)
        return got;
    request = (struct blk_request *)done.cookie;
    /* Read once: the device can write it at any time. */
    result->error = blk_status_error(
        *(const volatile uint8_t *)&blk_wire(blk, (unsigned)(request - blk->request))->status);
    result->cookie = request->cookie;
    request->busy = false;
    return 1;
}

static bool blk_idle(const struct blk *blk)
{
    for (unsigned slot = 0; slot < BLK_DEPTH; slot++) {
        if (blk->request[slot].busy)
            return false;
    }
    return true;
}

int blk_drain(struct blk *blk)
{
    struct blk_result result;
    int error = 0;

    blk_kick(blk);
    while (!blk_idle(blk)) {
        int got = blk_complete(blk, &result);

        if (got < 0)
            return got;
        if (got > 0 && error == 0)
            error = result.error;
        if (got > 0 || virtq_driver_irq_on(&blk->queue.ring))
            continue;
        if (!blk->setup.wait(blk->setup.wait_ctx))
            return virtio_drv_needs_reset(blk->drv) ? BLK_ERR_DEVICE : BLK_ERR_TIMEOUT;
    }
    return error;
}

static int blk_transfer(struct blk *blk, enum blk_type type, uint64_t sector,
                        const struct virtq_seg *data)
{
    int err = blk_submit(blk, type, sector, data, data != NULL ? 1 : 0, NULL);

    return err != 0 ? err : blk_drain(blk);
}

int blk_read(struct blk *blk, uint64_t sector, struct virtq_seg data)
{
    return blk_transfer(blk, BLK_READ, sector, &data);
}

int blk_write(struct blk *blk, uint64_t sector, struct virtq_seg data)
{
    return blk_transfer(blk, BLK_WRITE, sector, &data);
}

int blk_flush(struct blk *blk)
{
    if (!virtio_features_has(&blk->drv->accepted, BLK_FEATURE_FLUSH))
        return 0; /* without the feature every completed write is on the medium */
    return blk_transfer(blk, BLK_FLUSH, 0, NULL);
}

int blk_get_id(struct blk *blk, char id[BLK_ID_SIZE + 1])
{
    int slot = blk_free_slot(blk), err;

    if (slot < 0)
        return slot;
    err = blk_transfer(blk, BLK_GET_ID, 0, NULL);
    for (unsigned i = 0; i < BLK_ID_SIZE && err == 0; i++)
        id[i] = (char)blk_wire(blk, (unsigned)slot)->id[i];
    id[err == 0 ? BLK_ID_SIZE : 0] = '\0';
    return err;
}

const char *blk_err_name(int err)
{
    switch (err) {
    case BLK_ERR_IO: return "I/O error";
    case BLK_ERR_UNSUPPORTED: return "request not supported by the device";
    case BLK_ERR_RANGE: return "beyond the end of the disk or not whole sectors";
    case BLK_ERR_READ_ONLY: return "disk is read-only";
    case BLK_ERR_BUSY: return "too many requests in flight";
    case BLK_ERR_TIMEOUT: return "device does not answer";
    case BLK_ERR_MEMORY: return "memory given to the driver is too small";
    case BLK_ERR_SEGMENTS: return "wrong number of data segments";
    case BLK_ERR_QUEUE: return "device wants a larger queue than this driver has";
    case BLK_ERR_DEVICE: return "device failed and wants a reset";
    default: return virtio_err_name(err);
    }
}
