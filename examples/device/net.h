// SPDX-License-Identifier: MIT-0
/**
 * @file net.h
 * @brief A virtio network device: takes frames from a driver's transmit queue, puts frames into its
 * receive queue. Where a frame goes is the owner's business: back (an echo), or to the driver of
 * another device.
 *
 * Plain C over virtio_ring.h; the compiler needs a memcpy() and a memmove(). A frame stays in the
 * memory of the driver that sent it until it is put: one copy. It assumes nothing about how a frame
 * is cut into segments, and nothing about what a driver writes: a bad frame is completed and
 * counted, a buffer that holds none as well, a queue that cannot be trusted is left alone. No
 * offloads: a frame whose header asks for one is refused.
 *
 * Serialise all calls on one device. A round of an echo, with both queues:
 *
 *     count = netdev_take(&dev, transmit, frame, 32);
 *     for (i = 0; i < count; i++)
 *         if (frame[i].length != 0)
 *             netdev_put(&dev, receive, &frame[i]);
 *     flush both, interrupt where virtq_device_irq_due() says so
 */
#ifndef EXAMPLES_DEVICE_NET_H
#define EXAMPLES_DEVICE_NET_H

#include "virtio_ring.h"

/** Device feature bits (VIRTIO 5.1.3). */
enum {
    NETDEV_FEATURE_MTU = 3,
    NETDEV_FEATURE_MAC = 5,
    NETDEV_FEATURE_MRG_RXBUF = 15,
    NETDEV_FEATURE_STATUS = 16
};

enum {
    NETDEV_RECEIVE = 0, /**< the queues' numbers, as the driver sees them */
    NETDEV_TRANSMIT = 1,
    NETDEV_MAC_SIZE = 6,
    NETDEV_CONFIG_SIZE = 12, /**< bytes of device configuration: mac to mtu */
    NETDEV_HEADER_SIZE = 12, /**< bytes before a frame; 10 for a legacy driver without MRG_RXBUF */
    NETDEV_FRAME_MIN = 14,   /**< bytes: an Ethernet header */
    NETDEV_FRAME_EXTRA =
        18, /**< bytes of the longest frame beyond the MTU: header and a VLAN tag */
    NETDEV_MTU_MIN = 68,
    NETDEV_MTU_MAX = 65535,
    NETDEV_PIECES = 64, /**< segments of a frame, or of the buffers for it */
    NETDEV_BUFFERS = 64 /**< that one frame takes with MRG_RXBUF */
};

/** Guest memory from `addr` on that this CPU reaches in one piece. */
struct netdev_span {
    uint64_t addr;
    uint64_t size; /**< bytes */
    uint8_t *at;
};

/** A network interface, and the driver memory that it works on. The caller sets the first part. */
struct netdev {
    /** Finds the piece of guest memory that `addr` lies in; false: it is no memory, *span is left
     *  as it is. */
    bool (*map)(void *ctx, uint64_t addr, struct netdev_span *span);
    void *map_ctx;
    uint8_t mac[NETDEV_MAC_SIZE];
    uint16_t mtu; /**< NETDEV_MTU_MIN at least; longer frames are refused */

    /* set by netdev_begin() */
    uint16_t header;         /**< bytes */
    bool merging;            /**< MRG_RXBUF */
    struct netdev_span near; /**< memory that was used last */

    /* counters, of frames but for `unusable` */
    uint64_t taken;    /**< from the driver, good ones */
    uint64_t refused;  /**< from the driver: malformed, too short or too long, an offload */
    uint64_t put;      /**< into the driver's buffers */
    uint64_t dropped;  /**< the driver had not enough buffers */
    uint64_t unusable; /**< receive buffers completed empty: malformed, or shorter than a header */
};

/** A piece of memory as this CPU reaches it. */
struct netdev_piece {
    uint8_t *at;
    uint32_t len;
};

/** A frame in the memory of its driver, who may change it at any time. */
struct netdev_frame {
    unsigned first;
    unsigned end;
    uint32_t length;                          /**< bytes of all pieces; 0: a refused frame */
    struct netdev_piece piece[NETDEV_PIECES]; /**< from `first` on, before `end` */
};

/** The feature bits that it offers. */
uint64_t netdev_features(void);

/** Fills the device configuration: address, link up, MTU. Little-endian. VIRTIO 5.1.4. */
void netdev_config(const struct netdev *dev, uint8_t config[NETDEV_CONFIG_SIZE]);

/** Before the first frame, and whenever the features that the driver accepted (bits 0 to 63) or its
 * memory may have changed. Cheap enough for each round. */
void netdev_begin(struct netdev *dev, uint64_t features);

/**
 * Takes up to `most` frames off the transmit queue. Their buffers are completed: the driver gets
 * them back with the next virtq_device_flush(), so put the frames before. A driver that breaks the
 * queue is found out by virtq_device_error().
 * @param frame  filled in; one that was refused has length 0
 * @return how many. VIRTIO 5.1.6.2.
 */
VIRTIO_NODISCARD unsigned netdev_take(struct netdev *dev, struct virtq_device *transmit,
                                      struct netdev_frame *frame, unsigned most);

/** Copies the first `len` bytes of a frame, which has as many, to private memory. */
void netdev_peek(const struct netdev_frame *frame, uint8_t *to, uint32_t len);

/**
 * Puts a copy of a frame into buffers of the receive queue; shown to the driver by the next
 * virtq_device_flush(). If they do not suffice the frame is dropped, and the buffers stay for a
 * shorter one. A driver that breaks the queue is found out later, by virtq_device_error().
 * VIRTIO 5.1.6.3, 5.1.6.4.
 */
void netdev_put(struct netdev *dev, struct virtq_device *receive, const struct netdev_frame *frame);

#endif
