// SPDX-License-Identifier: MIT-0
/**
 * @file rtos_blk.h
 * @brief A disk that any task of an RTOS may use: interrupts complete requests, tasks sleep meanwhile.
 *
 * The driver is examples/driver/blk.c; what a port adds to it is here: who may call when, how a task
 * sleeps and is woken, what an address is for the device, and whose copy of the data is in the cache.
 * All that is asked of the RTOS is in "rtos.h":
 *
 *     struct rtos_sem;                                      a counting semaphore
 *     void rtos_sem_init(struct rtos_sem *, unsigned);
 *     bool rtos_sem_take(struct rtos_sem *, unsigned milliseconds);
 *     void rtos_sem_give(struct rtos_sem *);                any context
 *     unsigned rtos_irq_lock(void);                         keeps interrupts, and other CPUs, out
 *     void rtos_irq_unlock(unsigned);
 *     uint64_t rtos_dma_address(const void *);              what the device calls this byte
 *     void rtos_cache_clean(const void *, uint32_t);        the device shall see what was written
 *     void rtos_cache_invalidate(void *, uint32_t);         we shall see what the device wrote
 *     RTOS_CACHE_LINE                                       bytes
 *
 * virtio_port.h of this directory has those that the headers themselves want.
 */
#ifndef EXAMPLES_RTOS_RTOS_BLK_H
#define EXAMPLES_RTOS_RTOS_BLK_H

#include "../driver/blk.h"
#include "rtos.h"

enum {
    RTOS_BLK_TIMEOUT = 10000,   /**< milliseconds that a request may take */
    RTOS_BLK_ERR_BUFFER = -140, /**< a buffer that shares a cache line with something else */
    RTOS_BLK_ERR_QUEUE = -141   /**< the device's queue does not hold one request */
};

/** A request, from submission to completion. */
struct rtos_blk_request {
    struct rtos_sem done;
    bool used;    /**< by a task */
    bool waiting; /**< for the device, which has it */
    int error;
};

/** A disk. All of it is private. */
struct rtos_blk {
    struct blk blk;
    struct rtos_sem free; /**< counts requests that are not in use and fit into the queue */
    struct rtos_blk_request request[BLK_DEPTH];
    int error; /**< why the disk is out of service, or 0 */
};

/** Brings the disk up. Task context, once. rtos_blk_interrupt() must be connected before.
 *  @param memory   BLK_MEMORY_SIZE bytes for rings and request headers, where neither side needs cache
 *                  maintenance: uncached, or the machine is coherent
 *  @param vectors  as blk_setup::vectors
 *  @return 0 or an error of rtos_blk_err_name() */
int rtos_blk_start(struct rtos_blk *dev, struct virtio_drv *drv, struct virtio_dma memory,
                   uint16_t vectors);

/** Reads or writes whole sectors. Any number of tasks at a time.
 *  @param buffer  ordinary memory, contiguous for the device, on cache lines of its own
 *  @param length  bytes, of whole sectors
 *  @return 0 or an error; after BLK_ERR_TIMEOUT the buffer is still the device's, and the disk takes
 *          no more requests until it is started again */
int rtos_blk_read(struct rtos_blk *dev, uint64_t sector, void *buffer, uint32_t length);
int rtos_blk_write(struct rtos_blk *dev, uint64_t sector, const void *buffer, uint32_t length);

/** Puts on the medium what was written so far. */
int rtos_blk_flush(struct rtos_blk *dev);

/** The device's interrupt: bits of enum virtio_irq. Interrupt context. */
void rtos_blk_interrupt(void *dev, uint32_t causes);

/** Text of any error these calls return. */
const char *rtos_blk_err_name(int err);

#endif
