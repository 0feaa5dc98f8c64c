// SPDX-License-Identifier: MIT-0
/**
 * @file blk.h
 * @brief A virtio block driver: read, write, flush, get-id over any transport.
 *
 * Plain C over virtio.h, no library, no allocation: the caller gives the memory and says how to
 * wait. Requests run asynchronously (submit, kick, complete); the four synchronous calls are built
 * on that. Serialise all calls on one struct blk.
 */
#ifndef EXAMPLES_DRIVER_BLK_H
#define EXAMPLES_DRIVER_BLK_H

#include "virtio.h"

enum {
    BLK_DEVICE_TYPE = 2,   /**< virtio device type of a block device */
    BLK_SECTOR_SIZE = 512, /**< bytes; the unit of sector numbers, whatever the block size */
    BLK_ID_SIZE = 20,      /**< bytes of a device id, without a terminator */
    BLK_DEPTH = 16,        /**< requests in flight at most */
    BLK_DATA_SEGS = 8,     /**< data segments of one request at most */
    BLK_QUEUE_MAX = 1024   /**< largest queue size accepted (legacy devices dictate theirs) */
};

/** Features that it uses (VIRTIO 5.2.3). */
enum { BLK_FEATURE_RO = 5, BLK_FEATURE_BLK_SIZE = 6, BLK_FEATURE_FLUSH = 9 };

/** Request types (VIRTIO 5.2.6). */
enum blk_type { BLK_READ = 0, BLK_WRITE = 1, BLK_FLUSH = 4, BLK_GET_ID = 8 };

/** Errors of this driver; those of virtio.h come through unchanged. */
enum blk_err {
    BLK_ERR_IO = -100,         /**< the device reports an I/O error */
    BLK_ERR_UNSUPPORTED = -101, /**< the device does not know the request */
    BLK_ERR_RANGE = -102,      /**< beyond the capacity, or not a whole number of sectors */
    BLK_ERR_READ_ONLY = -103,  /**< write to a read-only disk */
    BLK_ERR_BUSY = -104,       /**< BLK_DEPTH requests are in flight */
    BLK_ERR_TIMEOUT = -105,    /**< the wait hook gave up */
    BLK_ERR_MEMORY = -106,     /**< the memory given to blk_start() is too small */
    BLK_ERR_SEGMENTS = -107,   /**< no data segment, or more than BLK_DATA_SEGS */
    BLK_ERR_QUEUE = -108,      /**< the device wants a larger queue than BLK_QUEUE_MAX */
    BLK_ERR_DEVICE = -109      /**< the device completed something other than it should */
};

/** What one request shares with the device, besides the data. */
struct blk_wire {
    uint8_t table[(BLK_DATA_SEGS + 2) * 16]; /**< its indirect table, if used */
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
    uint8_t id[BLK_ID_SIZE];
    uint8_t status;
};

/** What the caller gives to blk_start(); kept while the driver runs. */
struct blk_setup {
    struct virtio_dma memory;       /**< BLK_MEMORY_SIZE bytes, aligned to 4096 */
    bool (*wait)(void *ctx);        /**< waits a moment for the device; false: give up */
    void *wait_ctx;
    struct virtio_features refused; /**< bits not to use even if offered */
    uint16_t queue_size;            /**< entries; 0: what the device proposes */
    uint16_t vectors;               /**< entries of the MSI-X table that are programmed; 0: MSI-X
                                         is off */
};

/** One request in flight. */
struct blk_request {
    void *cookie;
    bool busy;
    uint8_t type;
};

/** A finished request. */
struct blk_result {
    void *cookie; /**< as given to blk_submit() */
    int error;    /**< 0, BLK_ERR_IO or BLK_ERR_UNSUPPORTED */
};

/** A running block driver. */
struct blk {
    struct virtio_drv *drv;
    struct virtio_drv_queue queue;
    uint16_t queue_size; /**< entries */
    uint64_t capacity;   /**< sectors of 512 bytes */
    uint32_t block_size; /**< bytes; what the device does best */
    bool read_only;
    struct blk_setup setup;
    struct virtio_dma wire; /**< struct blk_wire [BLK_DEPTH] inside setup.memory */
    struct blk_request request[BLK_DEPTH];
    struct virtq_slot slots[BLK_QUEUE_MAX];
};

/** Bytes of memory that blk_start() wants for a queue of up to BLK_QUEUE_MAX on any transport. */
#define BLK_MEMORY_SIZE                                                                            \
    (VIRTIO_QUEUE_BYTES_LEGACY(BLK_QUEUE_MAX) + BLK_DEPTH * sizeof(struct blk_wire))

/** Brings the device up: reset, features, configuration, queue 0, DRIVER_OK.
 *  @return 0 or an error of blk_err_name(); after one the device is reset or told FAILED */
int blk_start(struct blk *blk, struct virtio_drv *drv, const struct blk_setup *setup);

/** Resets the device; outstanding requests are lost. 0, VIRTIO_ERR_TIMEOUT, VIRTIO_ERR_GONE. */
int blk_stop(struct blk *blk);

/** Resets the queue alone and sets it up again; the disk stays up. Takes RING_RESET, else it
 *  changes nothing. After any other error only blk_stop() and blk_start() are left.
 *  @param queue_size  entries, as in blk_setup
 *  @param cookies     gets those of the requests in flight, which end here without an outcome
 *  @return how many those were; VIRTIO_ERR_NO_RESET, VIRTIO_ERR_TIMEOUT (the device may still use
 *          them) or an error of queue set-up */
int blk_reset_queue(struct blk *blk, uint16_t queue_size, void *cookies[BLK_DEPTH]);

/** Queues one request; the device hears of it at the next blk_kick().
 *  @param data   segments of BLK_READ and BLK_WRITE, device addresses, each a whole number of
 *                sectors; none for the others. BLK_GET_ID answers into the request's own memory.
 *  @return 0, BLK_ERR_BUSY, BLK_ERR_RANGE, BLK_ERR_READ_ONLY, BLK_ERR_SEGMENTS, VIRTQ_ERR_FULL ... */
int blk_submit(struct blk *blk, enum blk_type type, uint64_t sector, const struct virtq_seg *data,
               unsigned count, void *cookie);

/** Publishes what was submitted and notifies the device if it wants to know. */
void blk_kick(struct blk *blk);

/** Takes one finished request: 1 taken, 0 none, negative: the queue is broken. */
int blk_complete(struct blk *blk, struct blk_result *result);

/** Synchronous calls: 0 or an error. Nothing else may be in flight. */
int blk_read(struct blk *blk, uint64_t sector, struct virtq_seg data);
int blk_write(struct blk *blk, uint64_t sector, struct virtq_seg data);
int blk_flush(struct blk *blk);
int blk_get_id(struct blk *blk, char id[BLK_ID_SIZE + 1]);

/** Waits until every request is finished, as blk_read() does: 0 or the first error. */
int blk_drain(struct blk *blk);

/** Text of any error these calls return. */
const char *blk_err_name(int err);

#endif
