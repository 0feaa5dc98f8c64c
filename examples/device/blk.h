// SPDX-License-Identifier: MIT-0
/**
 * @file blk.h
 * @brief A virtio block device: serves requests of a queue from a disk in memory, or from hooks.
 *
 * Plain C over virtio_ring.h. It assumes nothing about how a request is cut into segments, and
 * nothing about what the driver writes: a bad request is answered or completed empty, a queue that
 * cannot be trusted is left alone.
 */
#ifndef EXAMPLES_DEVICE_BLK_H
#define EXAMPLES_DEVICE_BLK_H

#include "virtio_ring.h"

/** Device feature bits (VIRTIO 5.2.3). */
enum {
    BLKDEV_FEATURE_SEG_MAX = 2,
    BLKDEV_FEATURE_RO = 5,
    BLKDEV_FEATURE_BLK_SIZE = 6,
    BLKDEV_FEATURE_FLUSH = 9, /**< the one to offer for a disk without hooks */
    BLKDEV_FEATURE_MQ = 12,
    BLKDEV_FEATURE_DISCARD = 13,
    BLKDEV_FEATURE_WRITE_ZEROES = 14
};

enum {
    BLKDEV_CONFIG_SIZE = 60, /**< bytes of device configuration: capacity to write_zeroes_may_unmap */
    BLKDEV_SEGS = 128,       /**< segments of one request at most */
    BLKDEV_BATCH = 16,       /**< requests served in one go */
    BLKDEV_RANGES = 16,      /**< ranges of one discard or write-zeroes request at most */
    BLKDEV_SECTOR = 512
};

/** A medium that is not memory. Offsets and lengths are on it and whole sectors, but for the pieces of
 *  a read or write. Each returns false for an I/O error. */
struct blkdev_ops {
    bool (*read)(void *ctx, uint64_t at, void *to, uint32_t len);
    bool (*write)(void *ctx, uint64_t at, const void *from, uint32_t len);
    bool (*flush)(void *ctx);
    /** Makes a range read as zeroes; `unmap`: it may give up the space. */
    bool (*zero)(void *ctx, uint64_t at, uint64_t len, bool unmap);
    /** A range whose content nobody needs any more. */
    bool (*discard)(void *ctx, uint64_t at, uint64_t len);
};

/** A disk, and the guest memory it works on. */
struct blkdev {
    uint8_t *data;                /**< the medium, unless there are ops */
    const struct blkdev_ops *ops; /**< or NULL */
    void *ops_ctx;
    uint64_t size; /**< bytes, a whole number of sectors */
    char id[21];
    bool big_endian; /**< requests and configuration of a legacy driver in a big-endian guest */
    bool read_only;  /**< writes, discards and write-zeroes fail: offer BLKDEV_FEATURE_RO */
    uint16_t queues; /**< with more than one, offer BLKDEV_FEATURE_MQ */
    /** Where this CPU reaches `len` bytes of guest memory at `addr`, or NULL. */
    void *(*map)(void *ctx, uint64_t addr, uint32_t len);
    void *map_ctx;
    uint64_t served;  /**< requests answered */
    uint64_t refused; /**< malformed chains completed empty */
};

/** The feature bits that a disk with ops offers. */
uint64_t blkdev_features(const struct blkdev *dev);

/** Fills the device configuration: capacity, and with ops what the features say. */
void blkdev_config(const struct blkdev *dev, uint8_t config[BLKDEV_CONFIG_SIZE]);

/** Carries out the request in a popped chain; returns the bytes written to it. */
uint32_t blkdev_answer(struct blkdev *dev, const struct virtq_chain *chain);

/** Serves available requests of a queue, BLKDEV_BATCH at most, so that a driver that adds more all the
 *  time does not keep the caller; then asks for the next kick.
 *  @param irq  set to whether the driver wants an interrupt for them
 *  @return 0: all served; 1: there is more, call again, nobody kicks; or the VIRTQ_ERR_* that broke the
 *          queue: answer with DEVICE_NEEDS_RESET */
int blkdev_serve(struct blkdev *dev, struct virtq_device *queue, bool *irq);

#endif
