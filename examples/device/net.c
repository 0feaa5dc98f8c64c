// SPDX-License-Identifier: MIT-0
/* A virtio network device; see net.h. VIRTIO 5.1. */
#include "net.h"

enum { LEGACY_HEADER_SIZE = 10, FEATURE_VERSION_1 = 32 };
enum { HEADER_FLAGS = 0, HEADER_GSO_TYPE = 1, HEADER_BUFFERS = 10 };
enum { NEEDS_CSUM = 1, GSO_NONE = 0 };
enum { CONFIG_STATUS = 6, CONFIG_MTU = 10, LINK_UP = 1 };

/* Buffers popped for one frame, cut to its length. */
struct room {
    struct netdev_frame memory;
    uint32_t token[NETDEV_BUFFERS];
    uint32_t written[NETDEV_BUFFERS];
    unsigned buffers;
};

#define BIT(n) (UINT64_C(1) << (n))

uint64_t netdev_features(void)
{
    return BIT(NETDEV_FEATURE_MTU) | BIT(NETDEV_FEATURE_MAC) | BIT(NETDEV_FEATURE_MRG_RXBUF) |
           BIT(NETDEV_FEATURE_STATUS);
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

void netdev_config(const struct netdev *dev, uint8_t config[NETDEV_CONFIG_SIZE])
{
    for (unsigned i = 0; i < NETDEV_CONFIG_SIZE; i++)
        config[i] = i < NETDEV_MAC_SIZE ? dev->mac[i] : 0;
    put16(config + CONFIG_STATUS, LINK_UP);
    put16(config + CONFIG_MTU, dev->mtu);
}

/* 5.1.6.1: the last field of the header came with MRG_RXBUF, and is always there since VERSION_1.
 */
void netdev_begin(struct netdev *dev, uint64_t features)
{
    dev->merging = (features & BIT(NETDEV_FEATURE_MRG_RXBUF)) != 0;
    dev->header =
        dev->merging || features & BIT(FEATURE_VERSION_1) ? NETDEV_HEADER_SIZE : LEGACY_HEADER_SIZE;
    dev->near.size = 0;
}

/* ----- memory ----- */

/* Where this CPU reaches `addr`, or NULL; cuts *len to what lies there in one piece. */
static uint8_t *reach(struct netdev *dev, uint64_t addr, uint32_t *len)
{
    uint64_t at = addr - dev->near.addr;

    if (VIRTIO_UNLIKELY(at >= dev->near.size)) {
        if (!dev->map(dev->map_ctx, addr, &dev->near))
            return NULL;
        at = addr - dev->near.addr;
    }
    if (VIRTIO_UNLIKELY(*len > dev->near.size - at))
        *len = (uint32_t)(dev->near.size - at);
    return dev->near.at + at;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void clear(struct netdev_frame *frame)
{
    frame->first = frame->end = 0;
    frame->length = 0;
}

/* Appends a segment, but no more than makes `most` bytes of all: false if some of it is no memory,
 * or there are too many pieces. */
static bool append(struct netdev *dev, struct netdev_frame *frame, struct virtq_seg seg,
                   uint32_t most)
{
    while (seg.len != 0 && frame->length != most) {
        uint32_t len = smaller(seg.len, most - frame->length);
        uint8_t *at = frame->end != NETDEV_PIECES ? reach(dev, seg.addr, &len) : NULL;

        if (at == NULL)
            return false;
        frame->piece[frame->end++] = (struct netdev_piece){at, len};
        frame->length += len;
        seg.addr += len;
        seg.len -= len;
    }
    return true;
}

/* The common case, for either direction: is the chain one segment of `least` bytes or more, all of
 * it in one piece? Where, or NULL. */
static uint8_t *find_plain(struct netdev *dev, const struct virtq_chain *chain, uint32_t least)
{
    uint32_t len = chain->seg[0].len;
    uint8_t *at;

    if (chain->readable + chain->writable != 1 || len < least)
        return NULL;
    at = reach(dev, chain->seg[0].addr, &len);
    return len == chain->seg[0].len ? at : NULL;
}

/* Leaves out the first `len` bytes of the first piece. */
static void advance(struct netdev_frame *frame, uint32_t len)
{
    struct netdev_piece *piece = &frame->piece[frame->first];

    piece->at += len;
    piece->len -= len;
    frame->first += piece->len == 0;
}

void netdev_peek(const struct netdev_frame *frame, uint8_t *to, uint32_t len)
{
    for (const struct netdev_piece *piece = &frame->piece[frame->first]; len != 0; piece++) {
        uint32_t some = smaller(len, piece->len);

        __builtin_memcpy(to, piece->at, some);
        to += some;
        len -= some;
    }
}

/* ----- from the driver ----- */

static void skip(struct netdev_frame *frame, uint32_t len)
{
    while (len != 0) {
        uint32_t some = smaller(len, frame->piece[frame->first].len);

        advance(frame, some);
        len -= some;
    }
}

/* Leaves the header out, unless it asks for something that was not offered. */
static bool strip(const struct netdev *dev, struct netdev_frame *frame)
{
    uint8_t header[NETDEV_HEADER_SIZE] = {0};
    const uint8_t *seen = header;

    if (VIRTIO_LIKELY(frame->piece[0].len > dev->header)) {
        seen = frame->piece[0].at;
        advance(frame, dev->header);
    } else {
        netdev_peek(frame, header, dev->header);
        skip(frame, dev->header);
    }
    frame->length -= dev->header;
    return !(seen[HEADER_FLAGS] & NEEDS_CSUM) && seen[HEADER_GSO_TYPE] == GSO_NONE;
}

static bool find_pieces(struct netdev *dev, const struct virtq_chain *chain, uint32_t most,
                        struct netdev_frame *frame)
{
    clear(frame);
    for (unsigned i = 0; i < chain->readable; i++) {
        if (!append(dev, frame, chain->seg[i], most))
            return false;
    }
    return true;
}

/* The memory of a popped frame and its header. The driver's CPU wrote it last: it is asked for now
 * and looked at when it is here. */
static bool find_frame(struct netdev *dev, const struct virtq_chain *chain,
                       struct netdev_frame *frame)
{
    uint32_t shortest = dev->header + (uint32_t)NETDEV_FRAME_MIN;
    uint32_t longest = dev->header + (uint32_t)dev->mtu + NETDEV_FRAME_EXTRA;
    uint8_t *at = find_plain(dev, chain, shortest);

    if (chain->writable != 0)
        return false;
    if (VIRTIO_LIKELY(at != NULL)) {
        frame->piece[0] = (struct netdev_piece){at, chain->seg[0].len};
        frame->first = 0;
        frame->end = 1;
        frame->length = chain->seg[0].len;
    } else if (!find_pieces(dev, chain, longest + 1, frame)) {
        return false;
    }
    if (frame->length < shortest || frame->length > longest)
        return false;
    __builtin_prefetch(frame->piece[0].at);
    __builtin_prefetch(frame->piece[0].at + dev->header); /* often the next cache line */
    return true;
}

/* 1: a buffer, completed, and its frame, of length 0 if it is none; 0; or an error. */
static int take_one(struct netdev *dev, struct virtq_device *transmit, struct netdev_frame *frame)
{
    struct virtq_seg seg[NETDEV_PIECES];
    struct virtq_chain chain;
    int rc;

    chain.seg = seg;
    chain.capacity = NETDEV_PIECES;
    rc = virtq_device_pop(transmit, &chain);
    if (rc == 0 || (rc < 0 && !virtq_err_names_chain(rc)))
        return rc;
    if (VIRTIO_LIKELY(rc == 1 && find_frame(dev, &chain, frame))) {
        virtq_device_push_full(transmit, chain.token, 0);
        return 1;
    }
    virtq_device_push(transmit, chain.token, 0);
    frame->length = 0;
    return 1;
}

unsigned netdev_take(struct netdev *dev, struct virtq_device *transmit, struct netdev_frame *frame,
                     unsigned most)
{
    unsigned count = 0;

    while (count < most && take_one(dev, transmit, &frame[count]) == 1)
        count++;
    for (unsigned i = 0; i < count; i++) {
        if (VIRTIO_LIKELY(frame[i].length != 0 && strip(dev, &frame[i]))) {
            dev->taken++;
        } else {
            frame[i].length = 0;
            dev->refused++;
        }
    }
    return count;
}

/* ----- to the driver ----- */

/* Room in a popped buffer, as far as it is needed. The first one holds the header as a whole. */
static bool append_buffer(struct netdev *dev, const struct virtq_chain *chain, uint32_t need,
                          struct room *room)
{
    uint32_t before = room->memory.length;

    if (chain->readable != 0)
        return false;
    for (unsigned i = 0; i < chain->writable; i++) {
        if (!append(dev, &room->memory, chain->seg[i], need))
            return false;
    }
    room->written[room->buffers - 1] = room->memory.length - before;
    return room->memory.length >= dev->header;
}

/* Pops buffers for `need` bytes: 1; 0: there are not enough; -1: the first one holds no frame at
 * all. */
static int find_room(struct netdev *dev, struct virtq_device *receive, uint32_t need,
                     struct room *room)
{
    unsigned most = dev->merging ? NETDEV_BUFFERS : 1;
    struct virtq_seg seg[NETDEV_PIECES];
    struct virtq_chain chain;

    chain.seg = seg;
    chain.capacity = NETDEV_PIECES;
    clear(&room->memory);
    for (room->buffers = 0; room->memory.length != need;) {
        int rc = room->buffers != most ? virtq_device_pop(receive, &chain) : 0;

        if (rc == 0 || (rc < 0 && !virtq_err_names_chain(rc)))
            return 0;
        room->token[room->buffers++] = chain.token;
        if (rc != 1 || !append_buffer(dev, &chain, need, room))
            return room->buffers == 1 ? -1 : 0;
    }
    return 1;
}

/* A driver that gets its own frame back may have put the buffer over it: what comes then is its
 * business, but memcpy() may not be asked. */
static void fill(struct netdev_frame *memory, const uint8_t *from, uint32_t len)
{
    while (len != 0) {
        const struct netdev_piece *piece = &memory->piece[memory->first];
        uint32_t some = smaller(len, piece->len);

        __builtin_memmove(piece->at, from, some);
        advance(memory, some);
        from += some;
        len -= some;
    }
}

/* Completes the buffers and then fills them: the driver sees neither before the flush, and if the
 * memory of the frame goes away in between (its owner may catch the signal), no buffer is lost. */
static void deliver(const struct netdev *dev, struct virtq_device *receive, struct room *room,
                    const struct netdev_frame *frame)
{
    uint8_t header[NETDEV_HEADER_SIZE] = {0};

    put16(header + HEADER_BUFFERS, room->buffers);
    for (unsigned i = 0; i < room->buffers; i++)
        virtq_device_push(receive, room->token[i], room->written[i]);
    fill(&room->memory, header, dev->header);
    for (unsigned i = frame->first; i < frame->end; i++)
        fill(&room->memory, frame->piece[i].at, frame->piece[i].len);
}

/* The buffers that a frame needs, one or several, of any shape. */
static void put_pieces(struct netdev *dev, struct virtq_device *receive,
                       const struct netdev_frame *frame)
{
    struct room room;
    int rc = find_room(dev, receive, dev->header + frame->length, &room);

    if (rc == 1) {
        deliver(dev, receive, &room, frame);
        dev->put++;
        return;
    }
    dev->dropped++;
    if (rc < 0) {
        virtq_device_push(receive, room.token[0], 0);
        dev->unusable++;
        return;
    }
    while (room.buffers != 0)
        virtq_device_unpop(receive, room.token[--room.buffers]);
}

/* A frame of one piece for a buffer that is plain; false: it is not, or there is none, and none is
 * popped. The header is written only where it differs: a driver that uses its buffers again has it
 * there, and neither CPU loses the cache line. V-SPLIT-01 and V-PACK-03 say that a writable buffer
 * should not be read; nothing but this depends on what is read. */
static bool put_plain(struct netdev *dev, struct virtq_device *receive,
                      const struct netdev_frame *frame)
{
    static const uint8_t header[NETDEV_HEADER_SIZE] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    uint32_t need = NETDEV_HEADER_SIZE + frame->length;
    struct virtq_seg seg[1];
    struct virtq_chain chain;
    uint8_t *at = NULL;
    int rc;

    chain.seg = seg;
    chain.capacity = 1;
    rc = virtq_device_pop(receive, &chain);
    if (rc == 1 && chain.writable == 1)
        at = find_plain(dev, &chain, need);
    if (VIRTIO_LIKELY(at != NULL)) {
        virtq_device_push(receive, chain.token, need);
        if (__builtin_memcmp(at, header, NETDEV_HEADER_SIZE) != 0)
            __builtin_memcpy(at, header, NETDEV_HEADER_SIZE);
        __builtin_memmove(at + NETDEV_HEADER_SIZE, frame->piece[frame->first].at, frame->length);
        return true;
    }
    if (rc == 1 || virtq_err_names_chain(rc))
        virtq_device_unpop(receive, chain.token);
    return false;
}

void netdev_put(struct netdev *dev, struct virtq_device *receive, const struct netdev_frame *frame)
{
    bool plain = frame->end - frame->first == 1 && dev->header == NETDEV_HEADER_SIZE;

    if (VIRTIO_LIKELY(plain && put_plain(dev, receive, frame)))
        dev->put++;
    else
        put_pieces(dev, receive, frame);
}
