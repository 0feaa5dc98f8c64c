// SPDX-License-Identifier: MIT-0
/* A virtio block device; see blk.h. VIRTIO 5.2. */
#include "blk.h"

#include "stream.h"

enum {
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13
};
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };
enum { HEADER_SIZE = 16, ID_SIZE = 20, RANGE_SIZE = 16, RANGE_UNMAP = 1 };

static uint64_t number(const struct blkdev *dev, const uint8_t *bytes, unsigned width)
{
    return stream_number(bytes, width, dev->big_endian);
}

/* ----- the medium ----- */

/* Moves the whole of a stream from or to the medium; false if it leaves memory, or the medium fails. */
static bool medium_read(struct blkdev *dev, struct stream *out, uint64_t at, uint64_t len)
{
    if (dev->ops == NULL)
        return stream_write(out, dev->data + at, len);
    while (len != 0) {
        uint32_t piece = 0;
        uint8_t *to = stream_next(out, len, &piece);

        if (to == NULL || !dev->ops->read(dev->ops_ctx, at, to, piece))
            return false;
        at += piece;
        len -= piece;
    }
    return true;
}
static bool medium_write(struct blkdev *dev, struct stream *in, uint64_t at, uint64_t len)
{
    if (dev->ops == NULL)
        return stream_read(in, dev->data + at, len);
    while (len != 0) {
        uint32_t piece = 0;
        const uint8_t *from = stream_next(in, len, &piece);

        if (from == NULL || !dev->ops->write(dev->ops_ctx, at, from, piece))
            return false;
        at += piece;
        len -= piece;
    }
    return true;
}

static bool on_disk(const struct blkdev *dev, uint64_t sector, uint64_t len)
{
    return len % BLKDEV_SECTOR == 0 && sector <= dev->size / BLKDEV_SECTOR &&
           len <= dev->size - sector * BLKDEV_SECTOR;
}

/* ----- requests ----- */

static uint8_t read_sectors(struct blkdev *dev, uint64_t sector, struct stream *out,
                            uint32_t *written)
{
    uint64_t len = stream_length(out);

    if (!on_disk(dev, sector, len) || !medium_read(dev, out, sector * BLKDEV_SECTOR, len))
        return STATUS_IOERR;
    *written = (uint32_t)len;
    return STATUS_OK;
}

static uint8_t write_sectors(struct blkdev *dev, uint64_t sector, struct stream *in)
{
    uint64_t len = stream_length(in);

    if (dev->read_only || !on_disk(dev, sector, len) ||
        !medium_write(dev, in, sector * BLKDEV_SECTOR, len))
        return STATUS_IOERR;
    return STATUS_OK;
}

/* One range of a discard, which knows no flags (5.2.6.2), or of a write-zeroes. */
static uint8_t clear_range(struct blkdev *dev, bool discard, const uint8_t range[RANGE_SIZE])
{
    uint64_t sector = number(dev, range, 8), len = number(dev, range + 8, 4) * BLKDEV_SECTOR;
    uint64_t flags = number(dev, range + 12, 4);
    bool done;

    if (flags & ~(uint64_t)(discard ? 0 : RANGE_UNMAP))
        return STATUS_UNSUPP;
    if (!on_disk(dev, sector, len))
        return STATUS_IOERR;
    done = discard ? dev->ops->discard(dev->ops_ctx, sector * BLKDEV_SECTOR, len)
                   : dev->ops->zero(dev->ops_ctx, sector * BLKDEV_SECTOR, len, flags != 0);
    return done ? STATUS_OK : STATUS_IOERR;
}

static uint8_t clear_ranges(struct blkdev *dev, bool discard, struct stream *in)
{
    uint64_t len = stream_length(in);
    uint8_t range[RANGE_SIZE], result = STATUS_OK;

    if (dev->ops == NULL)
        return STATUS_UNSUPP;
    if (dev->read_only || len == 0 || len % RANGE_SIZE != 0 || len / RANGE_SIZE > BLKDEV_RANGES)
        return STATUS_IOERR;
    while (stream_length(in) != 0 && result == STATUS_OK) {
        if (!stream_read(in, range, sizeof(range)))
            return STATUS_IOERR;
        result = clear_range(dev, discard, range);
    }
    return result;
}

/* Carries out one request; *written counts the data bytes that went to the driver. */
static uint8_t execute(struct blkdev *dev, const uint8_t header[HEADER_SIZE], struct stream *in,
                       struct stream *out, uint32_t *written)
{
    uint64_t sector = number(dev, header + 8, 8), len;

    switch (number(dev, header, 4)) {
    case TYPE_IN: return read_sectors(dev, sector, out, written);
    case TYPE_OUT: return write_sectors(dev, sector, in);
    case TYPE_DISCARD: return clear_ranges(dev, true, in);
    case TYPE_WRITE_ZEROES: return clear_ranges(dev, false, in);
    case TYPE_FLUSH:
        return dev->ops == NULL || dev->ops->flush(dev->ops_ctx) ? STATUS_OK : STATUS_IOERR;
    case TYPE_GET_ID:
        len = stream_length(out) < ID_SIZE ? stream_length(out) : ID_SIZE;
        if (!stream_write(out, (const uint8_t *)dev->id, len))
            return STATUS_IOERR;
        *written = (uint32_t)len;
        return STATUS_OK;
    default: return STATUS_UNSUPP;
    }
}

/* Splits the last writable byte, the status, off the chain: where it is, or NULL. */
static uint8_t *take_status(struct blkdev *dev, const struct virtq_chain *chain)
{
    struct virtq_seg *last = chain->seg + chain->readable + chain->writable;

    for (unsigned left = chain->writable; left != 0; left--) {
        last--;
        if (last->len != 0)
            return dev->map(dev->map_ctx, last->addr + --last->len, 1);
    }
    return NULL;
}

/* Nothing is written to a chain that is no block request at all. */
uint32_t blkdev_answer(struct blkdev *dev, const struct virtq_chain *chain)
{
    uint8_t *status = take_status(dev, chain);
    struct stream in = stream_in(chain, dev->map, dev->map_ctx);
    struct stream out = stream_out(chain, dev->map, dev->map_ctx);
    uint8_t header[HEADER_SIZE];
    uint32_t written = 0;
    uint8_t result;

    if (status == NULL || !stream_read(&in, header, sizeof(header))) {
        dev->refused++;
        return 0;
    }
    result = execute(dev, header, &in, &out, &written);
    *status = result;
    dev->served++;
    /* The length counts from the first writable byte (V-SPLIT-04): it may include the status only
     * if every byte before it was written. */
    return result == STATUS_OK && stream_length(&out) == 0 ? written + 1 : written;
}

int blkdev_serve(struct blkdev *dev, struct virtq_device *queue, bool *irq)
{
    struct virtq_seg seg[BLKDEV_SEGS];
    struct virtq_chain chain;
    int rc = 0;

    chain.seg = seg;
    chain.capacity = BLKDEV_SEGS;
    virtq_device_kick_off(queue);
    for (unsigned left = BLKDEV_BATCH; left != 0; left--) {
        rc = virtq_device_pop(queue, &chain);
        if (rc == 0 || (rc < 0 && !virtq_err_names_chain(rc)))
            break;
        if (rc < 0)
            dev->refused++;
        virtq_device_push(queue, chain.token, rc < 0 ? 0 : blkdev_answer(dev, &chain));
    }
    virtq_device_flush(queue);
    *irq = virtq_device_irq_due(queue);
    if (rc < 0 && !virtq_err_names_chain(rc))
        return rc;
    return rc != 0 || virtq_device_kick_on(queue);
}

uint64_t blkdev_features(const struct blkdev *dev)
{
    uint64_t bits = UINT64_C(1) << BLKDEV_FEATURE_SEG_MAX | UINT64_C(1) << BLKDEV_FEATURE_BLK_SIZE |
                    UINT64_C(1) << BLKDEV_FEATURE_FLUSH;

    bits |= dev->queues > 1 ? UINT64_C(1) << BLKDEV_FEATURE_MQ : 0;
    if (dev->read_only)
        return bits | UINT64_C(1) << BLKDEV_FEATURE_RO;
    return bits | UINT64_C(1) << BLKDEV_FEATURE_DISCARD |
           UINT64_C(1) << BLKDEV_FEATURE_WRITE_ZEROES;
}

static void put(const struct blkdev *dev, uint8_t *at, unsigned width, uint64_t value)
{
    stream_put(at, width, dev->big_endian, value);
}

/* VIRTIO 5.2.4 */
void blkdev_config(const struct blkdev *dev, uint8_t config[BLKDEV_CONFIG_SIZE])
{
    uint64_t capacity = dev->size / BLKDEV_SECTOR;
    uint64_t most = capacity < UINT32_MAX ? capacity : UINT32_MAX; /* sectors of one range */

    for (unsigned i = 0; i < BLKDEV_CONFIG_SIZE; i++)
        config[i] = 0;
    put(dev, config, 8, capacity);
    if (dev->ops == NULL)
        return;
    put(dev, config + 12, 4, BLKDEV_SEGS - 2); /* seg_max, without header and status */
    put(dev, config + 20, 4, BLKDEV_SECTOR);
    put(dev, config + 34, 2, dev->queues);
    if (dev->read_only)
        return;
    put(dev, config + 36, 4, most);
    put(dev, config + 40, 4, BLKDEV_RANGES);
    put(dev, config + 44, 4, 1); /* discard_sector_alignment */
    put(dev, config + 48, 4, most);
    put(dev, config + 52, 4, BLKDEV_RANGES);
    config[56] = 1; /* write_zeroes_may_unmap */
}
