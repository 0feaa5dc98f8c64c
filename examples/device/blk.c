// SPDX-License-Identifier: MIT-0
/* A virtio block device on a disk in memory; see blk.h. VIRTIO 5.2. */
#include "blk.h"

enum { TYPE_IN = 0, TYPE_OUT = 1, TYPE_FLUSH = 4, TYPE_GET_ID = 8 };
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };
enum { HEADER_SIZE = 16, ID_SIZE = 20 };

/* One direction of a chain as a stream of bytes. */
struct stream {
    const struct virtq_seg *seg;
    unsigned count;
    uint32_t done; /* bytes of seg[0] consumed */
};

static uint64_t stream_length(const struct stream *stream)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < stream->count; i++)
        total += stream->seg[i].len;
    return total - stream->done;
}

/* The next piece of at most `len` bytes that is contiguous in memory; NULL if there is none. */
static uint8_t *stream_next(struct blkdev *dev, struct stream *stream, uint64_t len,
                            uint32_t *piece)
{
    uint8_t *at;

    while (stream->count != 0 && stream->done == stream->seg[0].len) {
        stream->seg++;
        stream->count--;
        stream->done = 0;
    }
    if (stream->count == 0)
        return NULL;
    *piece = stream->seg[0].len - stream->done;
    if (*piece > len)
        *piece = (uint32_t)len;
    at = dev->map(dev->map_ctx, stream->seg[0].addr + stream->done, *piece);
    stream->done += *piece;
    return at;
}

static void copy(uint8_t *to, const uint8_t *from, uint32_t len)
{
    while (len-- != 0)
        *to++ = *from++;
}

/* Copies between a stream and private or disk memory; false if the stream ends or leaves memory. */
static bool stream_read(struct blkdev *dev, struct stream *stream, uint8_t *to, uint64_t len)
{
    while (len != 0) {
        uint32_t piece = 0;
        const uint8_t *from = stream_next(dev, stream, len, &piece);

        if (from == NULL)
            return false;
        copy(to, from, piece);
        to += piece;
        len -= piece;
    }
    return true;
}
static bool stream_write(struct blkdev *dev, struct stream *stream, const uint8_t *from,
                         uint64_t len)
{
    while (len != 0) {
        uint32_t piece = 0;
        uint8_t *to = stream_next(dev, stream, len, &piece);

        if (to == NULL)
            return false;
        copy(to, from, piece);
        from += piece;
        len -= piece;
    }
    return true;
}

static uint64_t number(const struct blkdev *dev, const uint8_t *bytes, unsigned width)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value = value << 8 | bytes[dev->big_endian ? i : width - 1 - i];
    return value;
}

static bool on_disk(const struct blkdev *dev, uint64_t sector, uint64_t len)
{
    return len % BLKDEV_SECTOR == 0 && sector <= dev->size / BLKDEV_SECTOR &&
           len <= dev->size - sector * BLKDEV_SECTOR;
}

/* Carries out one request; *written counts the data bytes that went to the driver. */
static uint8_t execute(struct blkdev *dev, const uint8_t header[HEADER_SIZE], struct stream *in,
                       struct stream *out, uint32_t *written)
{
    uint64_t sector = number(dev, header + 8, 8), len;

    switch (number(dev, header, 4)) {
    case TYPE_IN:
        len = stream_length(out);
        if (!on_disk(dev, sector, len) ||
            !stream_write(dev, out, dev->data + sector * BLKDEV_SECTOR, len))
            return STATUS_IOERR;
        *written = (uint32_t)len;
        return STATUS_OK;
    case TYPE_OUT:
        len = stream_length(in);
        if (!on_disk(dev, sector, len) ||
            !stream_read(dev, in, dev->data + sector * BLKDEV_SECTOR, len))
            return STATUS_IOERR;
        return STATUS_OK;
    case TYPE_FLUSH: return STATUS_OK;
    case TYPE_GET_ID:
        len = stream_length(out) < ID_SIZE ? stream_length(out) : ID_SIZE;
        if (!stream_write(dev, out, (const uint8_t *)dev->id, len))
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

/* Answers one chain; returns the bytes written to it, 0 if it is no block request at all. */
static uint32_t answer(struct blkdev *dev, const struct virtq_chain *chain)
{
    uint8_t *status = take_status(dev, chain);
    struct stream in = {chain->seg, chain->readable, 0};
    struct stream out = {chain->seg + chain->readable, chain->writable, 0};
    uint8_t header[HEADER_SIZE];
    uint32_t written = 0;
    uint8_t result;

    if (status == NULL || !stream_read(dev, &in, header, sizeof(header))) {
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
    int rc;

    chain.seg = seg;
    chain.capacity = BLKDEV_SEGS;
    *irq = false;
    virtq_device_kick_off(queue);
    do {
        while ((rc = virtq_device_pop(queue, &chain)) != 0) {
            if (rc < 0 && !virtq_err_names_chain(rc))
                break;
            if (rc < 0)
                dev->refused++;
            virtq_device_push(queue, chain.token, rc < 0 ? 0 : answer(dev, &chain));
        }
        virtq_device_flush(queue);
        *irq = virtq_device_irq_due(queue) || *irq;
    } while (rc == 0 && virtq_device_kick_on(queue));
    return rc;
}

void blkdev_config(const struct blkdev *dev, uint8_t config[BLKDEV_CONFIG_SIZE])
{
    uint64_t capacity = dev->size / BLKDEV_SECTOR;

    for (unsigned i = 0; i < BLKDEV_CONFIG_SIZE; i++)
        config[i] = 0;
    for (unsigned i = 0; i < 8; i++)
        config[dev->big_endian ? 7 - i : i] = (uint8_t)(capacity >> (8 * i));
}
