// SPDX-License-Identifier: MIT-0
/* A virtio network driver over any transport; see net.h. VIRTIO 5.1. */
#include "net.h"

enum {
    NET_FEATURE_MTU = 3,
    NET_FEATURE_MAC = 5,
    NET_FEATURE_MRG_RXBUF = 15,
    NET_FEATURE_STATUS = 16,
    NET_FLAG_NEEDS_CHECKSUM = 1,
    NET_LINK_UP = 1,
    NET_MTU_MIN = 68, /* of IPv4, and of the feature */
    NET_MTU_MAX = NET_FRAME_MAX - NET_FRAME_MIN,
    NET_HEADER_OLD = offsetof(struct net_header, buffers) /* legacy without MRG_RXBUF (T-94) */
};

static const struct virtio_config_field net_field_status = {6, 2};
static const struct virtio_config_field net_field_mtu = {10, 2};

static uint16_t net_order16(const struct net *net, uint16_t value)
{
    bool swap = VIRTIO_BIG_ENDIAN && !virtio_drv_transport(net->drv)->legacy;

    return swap ? __builtin_bswap16(value) : value;
}

/* A larger MTU than the receive buffers are made for must not be accepted; Ethernet's own always
 * holds. */
static int net_read_mtu(struct net *net, struct virtio_features *wanted)
{
    uint64_t mtu = 0;
    int err = 0;

    net->mtu = NET_MTU_MAX;
    if (virtio_features_has(&net->drv->offered, NET_FEATURE_MTU))
        err = virtio_drv_config_read(net->drv, &net_field_mtu, 1, &mtu);
    if (err != 0 || mtu < NET_MTU_MIN || mtu > NET_MTU_MAX)
        return err;
    net->mtu = (uint16_t)mtu;
    virtio_features_add(wanted, NET_FEATURE_MTU);
    return 0;
}

/* No offload is wanted: what comes is complete, and so has to be what goes. */
static int net_negotiate(struct net *net)
{
    static const struct virtio_features required = {{1u << NET_FEATURE_MAC, 0, 0, 0}};
    struct virtio_features wanted = {
        {1u << NET_FEATURE_MRG_RXBUF | 1u << NET_FEATURE_STATUS, 0, 0, 0}};
    int err = net_read_mtu(net, &wanted);

    if (err != 0)
        return err;
    virtio_features_add_ring(&wanted);
    for (unsigned word = 0; word < 4; word++)
        wanted.word[word] &= ~net->setup.refused.word[word];
    err = virtio_drv_negotiate(net->drv, &wanted, &required);
    net->merging = virtio_features_has(&net->drv->accepted, NET_FEATURE_MRG_RXBUF);
    net->header_size = sizeof(struct net_header);
    if (virtio_drv_transport(net->drv)->legacy && !net->merging)
        net->header_size = NET_HEADER_OLD;
    return err;
}

static int net_read_mac(struct net *net)
{
    struct virtio_config_field field[NET_MAC_SIZE];
    uint64_t value[NET_MAC_SIZE];
    int err;

    for (uint16_t i = 0; i < NET_MAC_SIZE; i++) {
        field[i].offset = i;
        field[i].width = 1;
    }
    err = virtio_drv_config_read(net->drv, field, NET_MAC_SIZE, value);
    for (unsigned i = 0; i < NET_MAC_SIZE && err == 0; i++)
        net->mac[i] = (uint8_t)value[i];
    return err;
}

/* Cuts `bytes` off the front of what is left of the caller's memory. */
static int net_cut(struct virtio_dma *rest, struct virtio_dma *piece, uint32_t bytes)
{
    if (rest->length < bytes)
        return NET_ERR_MEMORY;
    *piece = *rest;
    piece->length = bytes;
    rest->cpu = (uint8_t *)rest->cpu + bytes;
    rest->device += bytes;
    rest->length -= bytes;
    return 0;
}

static int net_setup_queue(struct net *net, uint16_t index, struct virtio_drv_queue *queue,
                           struct virtio_dma *rest)
{
    uint16_t num = net->setup.queue_size;
    struct virtio_queue_setup setup;
    int err;

    if (num == 0)
        num = virtio_drv_queue_size(net->drv, index);
    if (num > NET_QUEUE_MAX)
        return NET_ERR_QUEUE;
    err = net_cut(rest, &setup.memory, virtio_drv_queue_bytes(net->drv, num));
    if (err != 0)
        return err;
    net->queue_size[index] = setup.num = num;
    setup.slots = net->slots[index];
    return virtio_drv_queue_setup(net->drv, queue, index, &setup);
}

/* Gives one receive buffer, of which `at` is the start, to the device. An old device may count on
 * the header being a descriptor of its own (D-LEG-09). */
static int net_give(struct net *net, uint8_t *at)
{
    const struct virtio_features *accepted = &net->drv->accepted;
    uint64_t address = net->buffers.device + (uint64_t)(at - (uint8_t *)net->buffers.cpu);
    uint32_t length = net->merging ? NET_BUFFER_MERGED : NET_BUFFER;
    struct virtq_seg seg[2] = {{address, net->header_size},
                               {address + net->header_size, length - net->header_size}};
    struct virtq_buffer split = {seg, 0, 2};

    if (virtio_drv_transport(net->drv)->legacy &&
        !virtio_features_has(accepted, VIRTIO_FEATURE_ANY_LAYOUT))
        return virtq_driver_add(&net->receive.ring, &split, at);
    seg[0].len = length;
    return virtq_driver_add_writable(&net->receive.ring, seg[0], at);
}

/* All buffers, or as many as the queue holds. */
static int net_fill(struct net *net)
{
    uint32_t length = net->merging ? NET_BUFFER_MERGED : NET_BUFFER, done = 0;
    int err = 0;

    while (err == 0 && done < net->buffers.length) {
        err = net_give(net, (uint8_t *)net->buffers.cpu + done);
        done += err == 0 ? length : 0;
    }
    if (err == VIRTQ_ERR_FULL || err == VIRTQ_ERR_TOO_LONG)
        err = done < NET_BUFFER ? NET_ERR_QUEUE : 0;
    return err;
}

/* In the caller's memory: both rings, what frames on their way out need, receive buffers. */
static int net_setup_queues(struct net *net)
{
    struct virtio_dma rest = net->setup.memory;
    int err = 0;

    for (unsigned slot = 0; slot < NET_DEPTH; slot++)
        net->slot[slot].busy = false;
    if (net->setup.vectors != 0)
        err = virtio_drv_map_vectors(net->drv, 2, net->setup.vectors);
    if (err >= 0)
        err = net_setup_queue(net, 0, &net->receive, &rest);
    if (err == 0)
        err = net_setup_queue(net, 1, &net->transmit, &rest);
    if (err == 0)
        err = net_cut(&rest, &net->wire, NET_DEPTH * sizeof(struct net_wire));
    if (err == 0)
        err = net_cut(&rest, &net->buffers, NET_RECEIVE_BYTES);
    if (err != 0)
        return err;
    virtq_driver_irq_off(&net->transmit.ring); /* until somebody waits for it */
    return net_fill(net);
}

int net_start(struct net *net, struct virtio_drv *drv, const struct net_setup *setup)
{
    int err = virtio_drv_begin(drv);

    net->drv = drv;
    net->setup = *setup;
    net->merged = net->dropped = 0;
    if (err != 0)
        return err;
    err = net_negotiate(net);
    if (err == 0)
        err = net_read_mac(net);
    if (err == 0)
        err = net_setup_queues(net);
    if (err != 0) {
        virtio_drv_fail(drv);
        return err;
    }
    virtio_drv_ready(drv);
    net_kick(net);
    return 0;
}

int net_stop(struct net *net)
{
    return virtio_drv_reset(net->drv);
}

/* ----- receiving ----- */

/* A frame on its way into the caller's memory. */
struct net_copy {
    uint8_t *to;
    uint32_t capacity;
    uint32_t length; /* bytes there */
    int error;       /* once set nothing is added */
};

static void net_append(struct net_copy *copy, const uint8_t *from, uint32_t length)
{
    if (copy->error == 0 && length > copy->capacity - copy->length)
        copy->error = NET_ERR_LONG;
    if (copy->error != 0)
        return;
    for (uint32_t i = 0; i < length; i++)
        copy->to[copy->length + i] = from[i];
    copy->length += length;
    /* The caller's reads are of the copy: the compiler must not turn them into ones of the buffer,
     * which the device can still write. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* The first buffer of a frame, of which the device wrote `written` bytes: returns how many buffers
 * the frame takes. Each field is read once. Without MRG_RXBUF the count means nothing, and not
 * every device sets it. */
static uint16_t net_begin(const struct net *net, struct net_copy *copy, const uint8_t *buffer,
                          uint32_t written)
{
    const volatile struct net_header *header = (const volatile void *)buffer;
    uint16_t buffers = 1;

    if (written < net->header_size) {
        copy->error = NET_ERR_SHORT;
        return 1;
    }
    if (net->merging)
        buffers = net_order16(net, header->buffers);
    if (buffers == 0)
        copy->error = NET_ERR_BUFFERS;
    else if ((header->flags & NET_FLAG_NEEDS_CHECKSUM) != 0 || header->gso_type != 0)
        copy->error = NET_ERR_OFFLOAD;
    net_append(copy, buffer + net->header_size, written - net->header_size);
    return buffers;
}

int net_receive(struct net *net, void *frame, uint32_t capacity)
{
    struct net_copy copy = {(uint8_t *)frame, capacity, 0, 0};
    struct virtq_done done = {NULL, 0};
    uint16_t buffers = 1;

    for (uint16_t i = 0; i == 0 || i < buffers; i++) {
        /* Never more `written` than the buffer has: the ring sees to that. */
        int got = virtq_driver_take(&net->receive.ring, &done);

        if (got < 0 || (got == 0 && i == 0))
            return got;
        if (got == 0) { /* all buffers of a frame come together (V-NET-01) */
            copy.error = NET_ERR_BUFFERS;
            break;
        }
        if (i == 0)
            buffers = net_begin(net, &copy, (uint8_t *)done.cookie, done.written);
        else
            net_append(&copy, (uint8_t *)done.cookie, done.written);
        got = net_give(net, (uint8_t *)done.cookie);
        if (got != 0)
            return got;
    }
    if (copy.error == 0 && copy.length < NET_FRAME_MIN)
        copy.error = NET_ERR_SHORT;
    net->dropped += copy.error != 0;
    net->merged += copy.error == 0 && buffers > 1;
    return copy.error != 0 ? copy.error : (int)copy.length;
}

/* ----- sending ----- */

static struct net_wire *net_wire(const struct net *net, unsigned slot)
{
    return (struct net_wire *)net->wire.cpu + slot;
}

static uint64_t net_wire_address(const struct net *net, unsigned slot, size_t offset)
{
    return net->wire.device + slot * sizeof(struct net_wire) + offset;
}

static int net_check_frame(const struct net *net, const struct virtq_seg *frame, unsigned count)
{
    uint64_t length = 0;

    if (count == 0 || count > NET_SEGS)
        return NET_ERR_SEGMENTS;
    for (unsigned i = 0; i < count; i++)
        length += frame[i].len;
    return length >= NET_FRAME_MIN && length <= NET_FRAME_MIN + (uint64_t)net->mtu
               ? 0
               : NET_ERR_LENGTH;
}

static int net_free_slot(const struct net *net)
{
    for (int slot = 0; slot < NET_DEPTH; slot++) {
        if (!net->slot[slot].busy)
            return slot;
    }
    return NET_ERR_BUSY;
}

int net_send(struct net *net, const struct virtq_seg *frame, unsigned count, void *cookie)
{
    static const struct net_header none = {0, 0, 0, 0, 0, 0, 0}; /* D-NET-01 */
    struct virtq_seg seg[NET_SEGS + 1];
    struct virtq_buffer buffer = {seg, (uint16_t)(count + 1), 0};
    struct virtq_table table;
    int slot, err = net_check_frame(net, frame, count);

    if (err != 0)
        return err;
    slot = net_free_slot(net);
    if (slot < 0)
        return slot;
    net_wire(net, (unsigned)slot)->header = none;
    seg[0].addr = net_wire_address(net, (unsigned)slot, offsetof(struct net_wire, header));
    seg[0].len = net->header_size;
    for (unsigned i = 0; i < count; i++)
        seg[i + 1] = frame[i];
    table.mem = net_wire(net, (unsigned)slot)->table;
    table.addr = net_wire_address(net, (unsigned)slot, offsetof(struct net_wire, table));
    table.capacity = NET_SEGS + 1;
    err = virtq_driver_add_indirect(&net->transmit.ring, &buffer, &table, &net->slot[slot]);
    if (err != 0)
        return err;
    net->slot[slot].cookie = cookie;
    net->slot[slot].busy = true;
    return 0;
}

void net_kick(struct net *net)
{
    virtq_driver_publish(&net->receive.ring);
    virtio_drv_kick(&net->receive);
    virtq_driver_publish(&net->transmit.ring);
    virtio_drv_kick(&net->transmit);
}

int net_sent(struct net *net, void **cookie)
{
    struct virtq_done done = {NULL, 0};
    struct net_slot *slot;
    int got = virtq_driver_take(&net->transmit.ring, &done);

    if (got <= 0)
        return got;
    slot = (struct net_slot *)done.cookie;
    slot->busy = false;
    *cookie = slot->cookie;
    return 1;
}

/* ----- waiting ----- */

int net_wait(struct net *net, bool sent)
{
    if (virtq_driver_irq_on(sent ? &net->transmit.ring : &net->receive.ring))
        return 0;
    if (!net->setup.wait(net->setup.wait_ctx))
        return virtio_drv_needs_reset(net->drv) ? NET_ERR_DEVICE : NET_ERR_TIMEOUT;
    if (sent)
        virtq_driver_irq_off(&net->transmit.ring);
    return 0;
}

int net_link(const struct net *net)
{
    uint64_t status = 0;
    int err;

    if (virtio_drv_needs_reset(net->drv))
        return NET_ERR_DEVICE;
    if (!virtio_features_has(&net->drv->accepted, NET_FEATURE_STATUS))
        return 1;
    err = virtio_drv_config_read(net->drv, &net_field_status, 1, &status);
    return err != 0 ? err : (status & NET_LINK_UP) != 0;
}

const char *net_err_name(int err)
{
    switch (err) {
    case NET_ERR_BUSY: return "too many frames on their way out";
    case NET_ERR_SEGMENTS: return "wrong number of segments";
    case NET_ERR_LENGTH: return "frame too short or too long to be sent";
    case NET_ERR_TIMEOUT: return "nothing came for a while";
    case NET_ERR_MEMORY: return "memory given to the driver is too small";
    case NET_ERR_QUEUE: return "queue too large for this driver or too small for a frame";
    case NET_ERR_DEVICE: return "device failed and wants a reset";
    case NET_ERR_SHORT: return "received frame is shorter than its headers";
    case NET_ERR_LONG: return "received frame is longer than its memory";
    case NET_ERR_BUFFERS: return "received frame is not in the buffers that it is said to be in";
    case NET_ERR_OFFLOAD: return "received frame is not complete";
    default: return virtio_err_name(err);
    }
}
