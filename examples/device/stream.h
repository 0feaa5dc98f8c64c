// SPDX-License-Identifier: MIT-0
/**
 * @file stream.h
 * @brief One direction of a popped chain as a stream of bytes, and the numbers in it.
 *
 * A device makes no assumption about how its driver cuts a request into segments. Nothing is read
 * twice: what is read goes into memory of the device's own.
 */
#ifndef EXAMPLES_DEVICE_STREAM_H
#define EXAMPLES_DEVICE_STREAM_H

#include "virtio_ring.h"

/** Where this CPU reaches `len` bytes of guest memory at `addr`, or NULL. */
typedef void *(*stream_map_fn)(void *ctx, uint64_t addr, uint32_t len);

/** What is left of it. */
struct stream {
    const struct virtq_seg *seg;
    unsigned count;
    uint32_t done; /**< bytes of seg[0] consumed */
    stream_map_fn map;
    void *map_ctx;
};

/** What the driver wrote. */
static inline struct stream stream_in(const struct virtq_chain *chain, stream_map_fn map, void *ctx)
{
    struct stream stream = {chain->seg, chain->readable, 0, map, ctx};

    return stream;
}

/** Where the device may write. */
static inline struct stream stream_out(const struct virtq_chain *chain, stream_map_fn map,
                                       void *ctx)
{
    struct stream stream = {chain->seg + chain->readable, chain->writable, 0, map, ctx};

    return stream;
}

static inline uint64_t stream_length(const struct stream *stream)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < stream->count; i++)
        total += stream->seg[i].len;
    return total - stream->done;
}

/** Passes over up to `len` bytes that lie in one segment: how many; 0 at the end. */
static inline uint32_t stream_step(struct stream *stream, uint64_t len)
{
    uint32_t piece;

    while (stream->count != 0 && stream->done == stream->seg[0].len) {
        stream->seg++;
        stream->count--;
        stream->done = 0;
    }
    if (stream->count == 0)
        return 0;
    piece = stream->seg[0].len - stream->done;
    if (piece > len)
        piece = (uint32_t)len;
    stream->done += piece;
    return piece;
}

static inline void stream_skip(struct stream *stream, uint64_t len)
{
    while (len != 0 && stream->count != 0)
        len -= stream_step(stream, len);
}

/** The next piece of at most `len` bytes that is contiguous in memory; NULL if there is none. */
static inline uint8_t *stream_next(struct stream *stream, uint64_t len, uint32_t *piece)
{
    *piece = stream_step(stream, len);
    if (*piece == 0)
        return NULL;
    return (uint8_t *)stream->map(stream->map_ctx, stream->seg[0].addr + (stream->done - *piece),
                                  *piece);
}

static inline void stream_copy(uint8_t *to, const uint8_t *from, uint32_t len)
{
    while (len-- != 0)
        *to++ = *from++;
}

/** Copies between a stream and memory of the device's own.
 *  @return false: the stream ends or leaves guest memory */
static inline bool stream_read(struct stream *stream, uint8_t *to, uint64_t len)
{
    while (len != 0) {
        uint32_t piece = 0;
        const uint8_t *from = stream_next(stream, len, &piece);

        if (from == NULL)
            return false;
        stream_copy(to, from, piece);
        to += piece;
        len -= piece;
    }
    return true;
}
static inline bool stream_write(struct stream *stream, const uint8_t *from, uint64_t len)
{
    while (len != 0) {
        uint32_t piece = 0;
        uint8_t *to = stream_next(stream, len, &piece);

        if (to == NULL)
            return false;
        stream_copy(to, from, piece);
        from += piece;
        len -= piece;
    }
    return true;
}

/** A number of up to 8 bytes; `big`: of a legacy driver in a big-endian guest. */
static inline uint64_t stream_number(const uint8_t *bytes, unsigned width, bool big)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value = value << 8 | bytes[big ? i : width - 1 - i];
    return value;
}
static inline void stream_put(uint8_t *at, unsigned width, bool big, uint64_t value)
{
    for (unsigned i = 0; i < width; i++)
        at[big ? width - 1 - i : i] = (uint8_t)(value >> (8 * i));
}

#endif
