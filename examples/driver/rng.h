// SPDX-License-Identifier: MIT-0
/**
 * @file rng.h
 * @brief A virtio entropy driver: random bytes over any transport.
 *
 * Plain C over virtio.h, no library, no allocation: the caller gives the memory and says how to
 * wait. Requests run asynchronously (submit, kick, complete); rng_read() is built on that. A device
 * may give less than was asked for: what counts is the length of the result. Serialise all calls on
 * one struct rng.
 */
#ifndef EXAMPLES_DRIVER_RNG_H
#define EXAMPLES_DRIVER_RNG_H

#include "virtio.h"

enum {
    RNG_DEVICE_TYPE = 4,  /**< virtio device type of an entropy device */
    RNG_DEPTH = 16,       /**< requests in flight at most */
    RNG_SEGS = 4,         /**< segments of one request at most */
    RNG_QUEUE_MAX = 1024  /**< largest queue size accepted (legacy devices dictate theirs) */
};

/** Errors of this driver; those of virtio.h come through unchanged. */
enum rng_err {
    RNG_ERR_BUSY = -120,     /**< RNG_DEPTH requests are in flight */
    RNG_ERR_SEGMENTS = -121, /**< no segment, an empty one, or more than RNG_SEGS */
    RNG_ERR_TIMEOUT = -122,  /**< the wait hook gave up */
    RNG_ERR_MEMORY = -123,   /**< the memory given to rng_start() is too small */
    RNG_ERR_QUEUE = -124,    /**< the device wants a larger queue than RNG_QUEUE_MAX */
    RNG_ERR_EMPTY = -125,    /**< the device completed a request without a byte */
    RNG_ERR_DEVICE = -126    /**< the device failed and wants a reset */
};

/** What one request shares with the device, besides the data. */
struct rng_wire {
    uint8_t table[RNG_SEGS * 16]; /**< its indirect table, if used */
};

/** What the caller gives to rng_start(); kept while the driver runs. */
struct rng_setup {
    struct virtio_dma memory;       /**< RNG_MEMORY_SIZE bytes, aligned to 4096 */
    bool (*wait)(void *ctx);        /**< waits a moment for the device; false: give up */
    void *wait_ctx;
    struct virtio_features refused; /**< bits not to use even if offered */
    uint16_t queue_size;            /**< entries; 0: what the device proposes */
    uint16_t vectors;               /**< entries of the MSI-X table that are programmed; 0: MSI-X
                                         is off */
};

/** One request in flight. */
struct rng_request {
    void *cookie;
    bool busy;
};

/** A finished request. */
struct rng_result {
    void *cookie;    /**< as given to rng_submit() */
    uint32_t length; /**< random bytes, from the first one on; at least 1 */
};

/** A running entropy driver. */
struct rng {
    struct virtio_drv *drv;
    struct virtio_drv_queue queue;
    uint16_t queue_size; /**< entries */
    struct rng_setup setup;
    struct virtio_dma wire; /**< struct rng_wire [RNG_DEPTH] inside setup.memory */
    struct rng_request request[RNG_DEPTH];
    struct virtq_slot slots[RNG_QUEUE_MAX];
};

/** Bytes of memory that rng_start() wants for a queue of up to RNG_QUEUE_MAX on any transport. */
#define RNG_MEMORY_SIZE                                                                            \
    (VIRTIO_QUEUE_BYTES_LEGACY(RNG_QUEUE_MAX) + RNG_DEPTH * sizeof(struct rng_wire))

/** Brings the device up: reset, features, queue 0, DRIVER_OK.
 *  @return 0 or an error of rng_err_name(); after one the device is reset or told FAILED */
int rng_start(struct rng *rng, struct virtio_drv *drv, const struct rng_setup *setup);

/** Resets the device; outstanding requests are lost. 0, VIRTIO_ERR_TIMEOUT, VIRTIO_ERR_GONE. */
int rng_stop(struct rng *rng);

/** Resets the queue alone and sets it up again; the device stays up. Takes RING_RESET, else it
 *  changes nothing. After any other error only rng_stop() and rng_start() are left.
 *  @param queue_size  entries, as in rng_setup
 *  @param cookies     gets those of the requests in flight, which end here without a result
 *  @return how many those were; VIRTIO_ERR_NO_RESET, VIRTIO_ERR_TIMEOUT (the device may still use
 *          them) or an error of queue set-up */
int rng_reset_queue(struct rng *rng, uint16_t queue_size, void *cookies[RNG_DEPTH]);

/** Queues one request; the device hears of it at the next rng_kick().
 *  @param data  memory to fill, device addresses
 *  @return 0, RNG_ERR_BUSY, RNG_ERR_SEGMENTS, VIRTQ_ERR_FULL ... */
int rng_submit(struct rng *rng, const struct virtq_seg *data, unsigned count, void *cookie);

/** Publishes what was submitted and notifies the device if it wants to know. */
void rng_kick(struct rng *rng);

/** Takes one finished request: 1 taken, 0 none, RNG_ERR_EMPTY: taken, but the device gave nothing;
 *  any other negative: the queue is broken. */
int rng_complete(struct rng *rng, struct rng_result *result);

/** Waits until one request is finished and takes it: 0 or an error. Kick first. */
int rng_await(struct rng *rng, struct rng_result *result);

/** Fills `data`, in as many requests as the device makes of it: 0 or an error. Nothing else may be
 *  in flight. */
int rng_read(struct rng *rng, struct virtq_seg data);

/** Text of any error these calls return. */
const char *rng_err_name(int err);

#endif
