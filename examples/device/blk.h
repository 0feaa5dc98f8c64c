// SPDX-License-Identifier: MIT-0
/**
 * @file blk.h
 * @brief A virtio block device: serves requests of a queue from a disk in memory.
 *
 * Plain C over virtio_ring.h. It assumes nothing about how a request is cut into segments, and
 * nothing about what the driver writes: a bad request is answered or completed empty, a queue that
 * cannot be trusted is left alone.
 */
#ifndef EXAMPLES_DEVICE_BLK_H
#define EXAMPLES_DEVICE_BLK_H

#include "virtio_ring.h"

enum {
    BLKDEV_FEATURE_FLUSH = 9, /**< the one device feature bit it offers */
    BLKDEV_CONFIG_SIZE = 24,  /**< bytes of device configuration: capacity to blk_size */
    BLKDEV_SEGS = 128,        /**< segments of one request at most */
    BLKDEV_SECTOR = 512
};

/** A disk, and the guest memory it works on. */
struct blkdev {
    uint8_t *data;  /**< the medium */
    uint64_t size;  /**< bytes, a whole number of sectors */
    char id[21];
    bool big_endian; /**< requests and configuration of a legacy driver in a big-endian guest */
    /** Where this CPU reaches `len` bytes of guest memory at `addr`, or NULL. */
    void *(*map)(void *ctx, uint64_t addr, uint32_t len);
    void *map_ctx;
    uint64_t served;  /**< requests answered */
    uint64_t refused; /**< malformed chains completed empty */
};

/** Fills the device configuration: capacity, and 0 for what is not offered. */
void blkdev_config(const struct blkdev *dev, uint8_t config[BLKDEV_CONFIG_SIZE]);

/** Serves all available requests of a queue, then asks for the next kick.
 *  @param irq  set to whether the driver wants an interrupt for them
 *  @return 0, or the VIRTQ_ERR_* that broke the queue: answer with DEVICE_NEEDS_RESET */
int blkdev_serve(struct blkdev *dev, struct virtq_device *queue, bool *irq);

#endif
