// SPDX-License-Identifier: MIT-0
/**
 * @file backend.h
 * @brief The back-end of vhost-user: a virtio device in a process of its own.
 *
 * Listens on a Unix socket and serves one front-end after the other; one loop in one thread does so
 * for one back-end or for several. The rings are the device side of virtio_ring.h on the memory that
 * the front-end shares; the device is a callback that serves a queue. Needs POSIX, and memfd_create()
 * for the in-flight region.
 *
 * Nothing that the front-end or the driver behind it does ends the process: a message that makes no
 * sense gets one log line and ends the connection, a ring that makes none is left alone until the
 * front-end resets it.
 */
#ifndef EXAMPLES_VHOST_USER_BACKEND_H
#define EXAMPLES_VHOST_USER_BACKEND_H

#include "inflight.h"
#include "memory.h"
#include "protocol.h"
#include "virtio_ring.h"

enum {
    VHU_SEGS = 256, /**< segments of one buffer, after they are cut at the ends of regions */
    VHU_QUEUES = 64, /**< queues of one back-end at most */
    VHU_FDS = 64,    /**< descriptors of a device's own at most */
    VHU_BACKENDS = 16, /**< of one loop at most */
    VHU_REASON = 128
};

/** Instead of a number of bytes written: see vhu_queue_answer(). */
#define VHU_LATER UINT32_MAX

struct pollfd;
struct vhu_backend;

/** One queue. `backend`, `ring` and `index` are for the device, the rest private. */
struct vhu_queue {
    struct vhu_backend *backend;
    struct virtq_device ring;
    struct vhu_track track;
    struct vhu_vring_addr addr;
    uint32_t base;
    uint16_t index;
    uint16_t num; /**< 0: not told */
    bool has_addr;
    bool enabled;
    bool live;    /**< `ring` is set up: between its start and GET_VRING_BASE */
    bool polled;  /**< no kick comes */
    bool pending; /**< there may be something to serve */
    bool broken;  /**< by the driver */
    int kick;
    int call;
    int err;
};

/** What a device is. */
struct vhu_ops {
    /** Serves a queue: pop, push, flush, as vhu_queue_answer() does. It may end in the middle, by a jump,
     *  where memory of a front-end is touched that is no longer there: if that can be another back-end's,
     *  no buffer may be between pop and push then.
     *  @return 1: there is more, call again; 0; negative: the driver broke the queue */
    int (*serve)(void *ctx, struct vhu_queue *queue);
    /** One readable line about what happened. */
    void (*log)(void *ctx, const char *line);
    /** Optional: what else to wait for while there is a front-end; fills in up to VHU_FDS.
     *  @return how many */
    unsigned (*fds)(void *ctx, struct pollfd *item);
    /** With fds: what came of it, each time the wait is over. */
    void (*ready)(void *ctx, const struct pollfd *item);
    /** Optional: the driver wrote to the configuration, within VHU_MAX_CONFIG bytes. */
    void (*config_write)(void *ctx, uint32_t offset, const uint8_t *bytes, uint32_t length);
    /** Optional: the driver is gone, by the front-end's reset or with the front-end. */
    void (*reset)(void *ctx);
};

/** A back-end. The caller sets the fields of the first part and zeroes the rest. */
struct vhu_backend {
    const struct vhu_ops *ops;
    void *ctx;
    uint64_t features;     /**< device features offered; those of the ring are added */
    const uint8_t *config; /**< device configuration */
    uint16_t config_length;
    uint16_t queue_count; /**< at most VHU_QUEUES */
    bool batches;         /**< the device has several buffers between pop and push, not by vhu_queue_pop():
                               what is in flight cannot be remembered for the next back-end */
    int listening;        /**< of vhu_listen(), for vhu_run() */

    /* for the device to read */
    uint64_t accepted; /**< features that the driver accepted */
    struct vhu_queue queue[VHU_QUEUES];

    /* private */
    struct vhu_map map;
    uint64_t protocol; /**< protocol features agreed */
    uint8_t status;    /**< of the device, as the driver wrote it last */
    bool woken;        /**< a queue was, in this turn */
    void *inflight;
    size_t inflight_size;
    struct vhu_inflight inflight_shape;
    int connection; /**< -1: no front-end */
    unsigned own;   /**< descriptors of the device that are waited for */
    int requests; /**< to the front-end; nothing is asked of it, but user-mode Linux insists on it */
    struct vhu_message in;
    size_t in_got;
    int in_fd[VHU_MAX_FDS];
    unsigned in_fds;
    char reason[VHU_REASON]; /**< why the connection has to end */
};

/** An answer: nothing is sent if `due` is false; `fd` goes along and is closed, unless negative. */
struct vhu_answer {
    struct vhu_message message;
    int fd;
    bool due;
};

/** Makes a back-end without a front-end out of one whose first part is set. */
void vhu_backend_init(struct vhu_backend *backend);

/**
 * Carries out one message whose payload is complete. No socket is needed for it.
 * @param fd     its `fds` descriptors, which are closed or kept here
 * @param answer filled in
 * @return NULL, or why the connection has to end: text that the back-end keeps
 */
const char *vhu_backend_handle(struct vhu_backend *backend, const struct vhu_message *message,
                               const int *fd, unsigned fds, struct vhu_answer *answer);

/** Serves once each queue that may have something. @return is there more already?, or negative: the
 *  connection has to end, and `reason` says why */
int vhu_backend_serve(struct vhu_backend *backend);

/** Flushes each queue that is running. */
void vhu_backend_flush(struct vhu_backend *backend);

/** Forgets the front-end: memory, descriptors, rings. */
void vhu_backend_reset(struct vhu_backend *backend);

/** Listens on a new socket at `path`, in place of what a dead process left there.
 *  @return a descriptor, or -1 with errno */
int vhu_listen(const char *path);

/** Serves the front-ends of `count` back-ends until something can be read from `stop`.
 *  @return 0, or -1 with errno: a listening socket is of no more use */
int vhu_run(struct vhu_backend *backend, unsigned count, int stop);

/* ----- for the device, inside serve() ----- */

/** May a device work on a queue whose serve() this is not? */
static inline bool vhu_queue_ready(const struct vhu_queue *queue)
{
    return queue->live && queue->enabled && !queue->broken;
}

/** As virtq_device_pop(), with no segment across two regions of memory: each can be mapped as a whole,
 *  or is not memory. */
VIRTIO_NODISCARD int vhu_queue_pop(struct vhu_queue *queue, struct virtq_chain *chain);

/** As virtq_device_push(). With an in-flight region, before the next pop. */
void vhu_queue_push(struct vhu_queue *queue, uint32_t token, uint32_t written);

/** Shows the driver what was pushed, and calls it if it wants that. */
void vhu_queue_flush(struct vhu_queue *queue);

/** Where guest memory is, all `len` bytes of it, or NULL: a `map` hook whose ctx is the back-end. */
void *vhu_backend_map(void *backend, uint64_t addr, uint32_t len);

/** The region of guest memory that `addr` lies in, or NULL; until serve() returns. */
const struct vhu_mapping *vhu_backend_region(const struct vhu_backend *backend, uint64_t addr);

/** A whole serve(): answers the available buffers one after the other, malformed ones with nothing.
 *  @param answer  carries out a buffer; returns the bytes written to it, or VHU_LATER: the buffer
 *                 stays the next one, until vhu_queue_wake() or a kick */
int vhu_queue_answer(struct vhu_queue *queue,
                     uint32_t (*answer)(void *ctx, const struct virtq_chain *chain), void *ctx);

/** Has a queue served again: what its answer waited for is there. For any of the ops. */
void vhu_queue_wake(struct vhu_queue *queue);

#endif
