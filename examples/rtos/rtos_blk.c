// SPDX-License-Identifier: MIT-0
/* The block front-end under an RTOS; see rtos_blk.h. */
#include "rtos_blk.h"

/* The device has answered, or never will: wakes the task. With interrupts locked. */
static void finish(struct rtos_blk_request *request, int error)
{
    request->waiting = false;
    request->error = error;
    rtos_sem_give(&request->done);
}

/* Takes the disk out of service and wakes everybody. With interrupts locked. */
static void fail(struct rtos_blk *dev, int error)
{
    if (dev->error == 0)
        dev->error = error;
    for (unsigned i = 0; i < BLK_DEPTH; i++) {
        if (dev->request[i].waiting)
            finish(&dev->request[i], error);
    }
}

/* Takes what is complete, and asks for the next interrupt. One that came too late for that is seen by
 * irq_on, and there are never more than BLK_DEPTH: nobody can submit meanwhile. */
static void complete(struct rtos_blk *dev)
{
    struct blk_result result;
    int got;

    do {
        while ((got = blk_complete(&dev->blk, &result)) > 0)
            finish((struct rtos_blk_request *)result.cookie, result.error);
    } while (got == 0 && virtq_driver_irq_on(&dev->blk.queue.ring));
    if (got < 0)
        fail(dev, got);
}

void rtos_blk_interrupt(void *disk, uint32_t causes)
{
    struct rtos_blk *dev = (struct rtos_blk *)disk;
    unsigned key = rtos_irq_lock();

    if (dev->error == 0 && (causes & VIRTIO_IRQ_QUEUE) != 0)
        complete(dev);
    if ((causes & VIRTIO_IRQ_CONFIG) != 0 && virtio_drv_needs_reset(dev->blk.drv))
        fail(dev, BLK_ERR_DEVICE);
    rtos_irq_unlock(key);
}

/* blk_drain() and what is built on it wait themselves; here tasks do. */
static bool never_wait(void *ctx)
{
    (void)ctx;
    return false;
}

/* How many requests of three segments the queue holds: of one descriptor each with a table, which may not
 * be longer than the queue, else of three. */
static unsigned capacity(const struct blk *blk)
{
    bool table = virtio_features_has(&blk->drv->accepted, VIRTIO_FEATURE_INDIRECT_DESC);
    unsigned most = blk->queue_size / 3u;

    if (table && most != 0)
        most = blk->queue_size;
    return most < BLK_DEPTH ? most : (unsigned)BLK_DEPTH;
}

static int start(struct rtos_blk *dev)
{
    for (unsigned i = 0; i < BLK_DEPTH; i++) {
        rtos_sem_init(&dev->request[i].done, 0);
        dev->request[i].used = dev->request[i].waiting = false;
    }
    rtos_sem_init(&dev->free, capacity(&dev->blk));
    return capacity(&dev->blk) != 0 ? 0 : RTOS_BLK_ERR_QUEUE;
}

int rtos_blk_start(struct rtos_blk *dev, struct virtio_drv *drv, struct virtio_dma memory,
                   uint16_t vectors)
{
    struct blk_setup setup = {memory, never_wait, NULL, {{0, 0, 0, 0}}, 0, vectors};

    dev->error = blk_start(&dev->blk, drv, &setup);
    if (dev->error != 0)
        return dev->error;
    dev->error = start(dev);
    if (dev->error != 0)
        (void)blk_stop(&dev->blk);
    return dev->error;
}

/* With interrupts locked. The semaphore says that there is one. */
static struct rtos_blk_request *take_unused(struct rtos_blk *dev)
{
    unsigned i = 0;

    while (dev->request[i].used)
        i++;
    dev->request[i].used = true;
    return &dev->request[i];
}

/* Gives a request to the device. The interrupt handler uses the same queue. */
static struct rtos_blk_request *submit(struct rtos_blk *dev, enum blk_type type, uint64_t sector,
                                       const struct virtq_seg *data, bool *given)
{
    unsigned key = rtos_irq_lock();
    struct rtos_blk_request *request = take_unused(dev);

    request->error = dev->error;
    if (request->error == 0)
        request->error = blk_submit(&dev->blk, type, sector, data, data != NULL ? 1 : 0, request);
    *given = request->waiting = request->error == 0;
    if (*given)
        blk_kick(&dev->blk);
    rtos_irq_unlock(key);
    return request;
}

/* The device did not answer in time. If it does now after all, that was before the lock. */
static void give_up(struct rtos_blk *dev, const struct rtos_blk_request *request)
{
    unsigned key = rtos_irq_lock();

    if (request->waiting)
        fail(dev, BLK_ERR_TIMEOUT);
    rtos_irq_unlock(key);
}

static int release(struct rtos_blk *dev, struct rtos_blk_request *request)
{
    unsigned key = rtos_irq_lock();
    int error = request->error;

    request->used = false;
    rtos_irq_unlock(key);
    rtos_sem_give(&dev->free);
    return error;
}

static int transfer(struct rtos_blk *dev, enum blk_type type, uint64_t sector,
                    const struct virtq_seg *data)
{
    struct rtos_blk_request *request;
    bool given;

    if (!rtos_sem_take(&dev->free, RTOS_BLK_TIMEOUT))
        return BLK_ERR_TIMEOUT;
    request = submit(dev, type, sector, data, &given);
    if (given && !rtos_sem_take(&request->done, RTOS_BLK_TIMEOUT)) {
        give_up(dev, request);
        (void)rtos_sem_take(&request->done, RTOS_BLK_TIMEOUT); /* one of the two has given it */
    }
    return release(dev, request);
}

static int check_buffer(const void *buffer, uint32_t length)
{
    return ((uintptr_t)buffer | length) % RTOS_CACHE_LINE == 0 ? 0 : RTOS_BLK_ERR_BUFFER;
}

int rtos_blk_read(struct rtos_blk *dev, uint64_t sector, void *buffer, uint32_t length)
{
    struct virtq_seg data = {rtos_dma_address(buffer), length};
    int err = check_buffer(buffer, length);

    if (err != 0)
        return err;
    /* Before: no line of ours may be written back over what the device puts there. After: lines that
     * the CPU fetched meanwhile, by speculation, are old. */
    rtos_cache_invalidate(buffer, length);
    err = transfer(dev, BLK_READ, sector, &data);
    rtos_cache_invalidate(buffer, length);
    return err;
}

int rtos_blk_write(struct rtos_blk *dev, uint64_t sector, const void *buffer, uint32_t length)
{
    struct virtq_seg data = {rtos_dma_address(buffer), length};
    int err = check_buffer(buffer, length);

    if (err != 0)
        return err;
    rtos_cache_clean(buffer, length);
    return transfer(dev, BLK_WRITE, sector, &data);
}

int rtos_blk_flush(struct rtos_blk *dev)
{
    if (!virtio_features_has(&dev->blk.drv->accepted, BLK_FEATURE_FLUSH))
        return 0; /* without the feature every completed write is on the medium */
    return transfer(dev, BLK_FLUSH, 0, NULL);
}

const char *rtos_blk_err_name(int err)
{
    switch (err) {
    case RTOS_BLK_ERR_BUFFER: return "buffer shares a cache line with other data";
    case RTOS_BLK_ERR_QUEUE: return "queue too small for one request";
    default: return blk_err_name(err);
    }
}
