// SPDX-License-Identifier: MIT-0
/**
 * @file net.h
 * @brief A virtio network driver: Ethernet frames in and out over any transport.
 *
 * Plain C over virtio.h, no library, no allocation: the caller gives the memory and says how to
 * wait. One receive and one transmit queue; checksums and segmentation are left to the caller. A
 * frame that came is copied into the caller's memory, where the device cannot change it any more,
 * and its buffers go back at once. Serialise all calls on one struct net.
 */
#ifndef EXAMPLES_DRIVER_NET_H
#define EXAMPLES_DRIVER_NET_H

#include "virtio.h"

enum {
    NET_DEVICE_TYPE = 1,   /**< virtio device type of a network device */
    NET_MAC_SIZE = 6,      /**< bytes of an address */
    NET_FRAME_MIN = 14,    /**< bytes: the Ethernet header */
    NET_FRAME_MAX = 1514,  /**< bytes, without the frame check sequence, which no side ever sees */
    NET_DEPTH = 32,        /**< frames on their way out at most */
    NET_SEGS = 4,          /**< segments of one such frame at most */
    NET_QUEUE_MAX = 1024,  /**< largest queue size accepted (legacy devices dictate theirs) */
    NET_BUFFER = 1536,     /**< bytes of a receive buffer: a header of any size and a frame */
    NET_BUFFER_MERGED = 512, /**< with MRG_RXBUF, where a frame may take several */
    NET_RECEIVE_BYTES = 32 * NET_BUFFER /**< of all receive buffers together */
};

/** Errors of this driver; those of virtio.h come through unchanged. */
enum net_err {
    NET_ERR_BUSY = -160,     /**< NET_DEPTH frames are on their way out */
    NET_ERR_SEGMENTS = -161, /**< no segment, or more than NET_SEGS */
    NET_ERR_LENGTH = -162,   /**< to be sent, and shorter than NET_FRAME_MIN or too long */
    NET_ERR_TIMEOUT = -163,  /**< the wait hook gave up */
    NET_ERR_MEMORY = -164,   /**< the memory given to net_start() is too small */
    NET_ERR_QUEUE = -165,    /**< above NET_QUEUE_MAX, or too small for one received frame */
    NET_ERR_DEVICE = -166,   /**< the device failed and wants a reset */
    /* A frame that came and was dropped: net_err_drops_frame() */
    NET_ERR_SHORT = -170,    /**< shorter than the header before it, or than NET_FRAME_MIN */
    NET_ERR_LONG = -171,     /**< longer than the caller's memory */
    NET_ERR_BUFFERS = -172,  /**< said to be in no buffer, or in more than are there */
    NET_ERR_OFFLOAD = -173   /**< left for the driver to finish, which was not agreed on */
};

/** Did the error cost a frame and nothing else? */
static inline bool net_err_drops_frame(int err)
{
    return err <= NET_ERR_SHORT && err >= NET_ERR_OFFLOAD;
}

/** What precedes each frame on a queue (L-NET-01). Wire format: little-endian, of a legacy device
 *  in the CPU's order; and without `buffers` if that has not MRG_RXBUF. */
struct net_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_length;
    uint16_t gso_size;
    uint16_t checksum_start;
    uint16_t checksum_offset;
    uint16_t buffers; /**< that a received frame takes, with MRG_RXBUF */
};
VIRTIO_STATIC_ASSERT(sizeof(struct net_header) == 12, "virtio_net_hdr, 5.1.6");
VIRTIO_STATIC_ASSERT(offsetof(struct net_header, buffers) == 10, "virtio_net_hdr, 5.1.6");

/** What a frame on its way out shares with the device, besides its bytes. */
struct net_wire {
    uint8_t table[(NET_SEGS + 1) * 16]; /**< its indirect table, if used */
    struct net_header header;
    uint8_t unused[4];
};
VIRTIO_STATIC_ASSERT(sizeof(struct net_wire) % 8 == 0, "each table is aligned");

/** What the caller gives to net_start(); kept while the driver runs. */
struct net_setup {
    struct virtio_dma memory;       /**< NET_MEMORY_SIZE bytes, aligned to 4096 */
    bool (*wait)(void *ctx);        /**< waits a moment for the device; false: give up */
    void *wait_ctx;
    struct virtio_features refused; /**< bits not to use even if offered */
    uint16_t queue_size;            /**< entries of each; 0: what the device proposes */
    uint16_t vectors;               /**< entries of the MSI-X table that are programmed; 0: MSI-X
                                         is off */
};

/** One frame on its way out. */
struct net_slot {
    void *cookie;
    bool busy;
};

/** A running network driver. */
struct net {
    struct virtio_drv *drv;
    struct virtio_drv_queue receive;  /**< queue 0 */
    struct virtio_drv_queue transmit; /**< queue 1 */
    uint16_t queue_size[2];           /**< entries, by queue */
    uint8_t mac[NET_MAC_SIZE];
    uint16_t mtu;        /**< bytes of a frame's payload at most */
    uint8_t header_size; /**< bytes before each frame */
    bool merging;        /**< MRG_RXBUF: a frame may take several buffers */
    uint64_t merged;     /**< frames received that did */
    uint64_t dropped;    /**< frames received and refused, see net_err_drops_frame() */
    struct net_setup setup;
    struct virtio_dma wire; /**< struct net_wire [NET_DEPTH] inside setup.memory */
    struct virtio_dma buffers; /**< the receive buffers, likewise */
    struct net_slot slot[NET_DEPTH];
    struct virtq_slot slots[2][NET_QUEUE_MAX];
};

/** Bytes of memory that net_start() wants for queues of up to NET_QUEUE_MAX on any transport. */
#define NET_MEMORY_SIZE                                                                            \
    (2 * VIRTIO_QUEUE_BYTES_LEGACY(NET_QUEUE_MAX) + NET_DEPTH * sizeof(struct net_wire) +          \
     NET_RECEIVE_BYTES)

/** Brings the device up: reset, features, configuration, both queues, DRIVER_OK; frames can come.
 *  @return 0 or an error of net_err_name(); after one the device is reset or told FAILED */
int net_start(struct net *net, struct virtio_drv *drv, const struct net_setup *setup);

/** Resets the device; frames on their way are lost. 0, VIRTIO_ERR_TIMEOUT, VIRTIO_ERR_GONE. */
int net_stop(struct net *net);

/** Takes one frame that came.
 *  @param frame  gets it: Ethernet header and payload
 *  @return its length; 0: none has come; an error of net_err_drops_frame(): one had and is lost, go
 *          on; any other negative: the queue is broken */
int net_receive(struct net *net, void *frame, uint32_t capacity);

/** Queues one frame; the device hears of it at the next net_kick().
 *  @param frame  device addresses: Ethernet header and payload, in use until net_sent() says so
 *  @return 0, NET_ERR_BUSY, NET_ERR_SEGMENTS, NET_ERR_LENGTH, VIRTQ_ERR_FULL ... */
int net_send(struct net *net, const struct virtq_seg *frame, unsigned count, void *cookie);

/** Publishes what was queued, and the buffers of what was received, and notifies the device if it
 *  wants to know. Call it after each round of receiving too: until then the device is short of
 *  them. */
void net_kick(struct net *net);

/** Takes back one frame that was sent: 1 taken, 0 none, negative: the queue is broken. */
int net_sent(struct net *net, void **cookie);

/** Waits a moment for a frame to come, or, with `sent`, for one to have gone out; for a change of
 *  the configuration too if the wait hook ends at it. Kick first.
 *  @return 0: look again; NET_ERR_TIMEOUT, NET_ERR_DEVICE */
int net_wait(struct net *net, bool sent);

/** Is the link up? Look after each change of the configuration.
 *  @return 1: up, or the device cannot say; 0: down; NET_ERR_DEVICE, VIRTIO_ERR_CONFIG_UNSTABLE */
int net_link(const struct net *net);

/** Text of any error these calls return. */
const char *net_err_name(int err);

#endif
