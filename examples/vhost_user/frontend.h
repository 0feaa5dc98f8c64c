// SPDX-License-Identifier: MIT-0
/**
 * @file frontend.h
 * @brief vhost-user as a transport of virtio.h: a driver works on the device of another process.
 *
 * The front-end half of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst) behind a
 * struct virtio_transport, so that the drivers of examples/driver run unchanged, without a virtual
 * machine. The device status is kept here; features, configuration and queues become messages,
 * kicks and interrupts eventfds. Linux.
 *
 *     struct vhu_frontend fe = {0};
 *     struct virtio_drv drv = {0};
 *     const struct vhu_frontend_setup setup = {.queues = 1, .queue_size = 256,
 *                                                .config_length = 60, .timeout_ms = 5000};
 *     const uint64_t sizes[] = {1 << 20, 4 << 20};
 *
 *     vhu_frontend_share(&fe, sizes, 2);
 *     vhu_frontend_open(&fe, vhu_frontend_connect("blk.sock"), &setup);
 *     vhu_frontend_drv(&fe, &drv);
 *     blk_start(&blk, &drv, ...memory from vhu_frontend_memory(), vhu_frontend_wait as hook...);
 *     ...
 *     vhu_frontend_close(&fe);
 *
 * Errors are sticky: after the first one the device reads as gone (VIRTIO_ERR_GONE), nothing is
 * sent any more, and vhu_frontend_error() says what happened. vhu_frontend_reconnect() goes on with
 * another back-end. No call waits longer than setup.timeout_ms for one answer. Serialise all calls on
 * one struct vhu_frontend; kicks may come from anywhere.
 */
#ifndef EXAMPLES_VHOST_USER_FRONTEND_H
#define EXAMPLES_VHOST_USER_FRONTEND_H

#include "protocol.h"
#include "virtio.h"

enum {
    VHU_FRONTEND_RINGS = 32,  /**< queues at most */
    VHU_FRONTEND_REGIONS = 4, /**< pieces of shared memory at most */
    VHU_FRONTEND_CONFIG = 256 /**< bytes of device configuration at most */
};

/** What the caller knows and the protocol does not tell. */
struct vhu_frontend_setup {
    unsigned queues;        /**< the device type has these, whatever the back-end says */
    unsigned queues_counted; /**< queues in one unit of what the back-end counts: net 2, else 1 */
    uint16_t queue_size;    /**< entries at most: the protocol has no limit to ask for */
    uint32_t config_length; /**< bytes of device configuration that are of interest; 0: none */
    /** Device configuration that is this side's to give, as the address of a network device, and
     *  the features that stand for it; the back-end hears of neither. NULL: ask the back-end. */
    const uint8_t *own_config;
    uint64_t own_features;
    bool resumable;         /**< for vhu_frontend_reconnect(): the back-end has to record what it has
                                 in flight; all queues are of one size then */
    int timeout_ms;         /**< for an answer, and for an interrupt that is waited for */
};

/** A piece of memory that the back-end maps as well. */
struct vhu_frontend_region {
    uint8_t *cpu;
    uint64_t device;
    uint64_t length;
    int fd;
};

/** One queue. */
struct vhu_frontend_ring {
    int kick; /**< eventfd: driver to device */
    int call; /**< eventfd: device to driver */
    bool in_use;
    struct virtio_queue_addresses at;
};

/** One connection. Zero it first; every field is private to frontend.c. */
struct vhu_frontend {
    struct vhu_frontend_setup setup;
    bool open;
    int socket;
    uint64_t offered;  /**< by the back-end, as it said */
    uint64_t accepted; /**< by the driver */
    uint64_t protocol; /**< protocol features in use */
    unsigned queues;
    uint16_t selected;
    uint8_t status;
    uint32_t generation;  /**< how often the configuration was seen to have changed */
    uint32_t interrupts;  /**< taken from call eventfds */
    uint8_t config[VHU_FRONTEND_CONFIG];
    struct vhu_frontend_region region[VHU_FRONTEND_REGIONS];
    unsigned region_count;
    struct vhu_inflight inflight; /**< what `record` is to be known by */
    int record;                   /**< the back-end's, of requests in flight; -1: none yet */
    int came_along;               /**< a descriptor, with the last answer; -1: none */
    struct vhu_frontend_ring ring[VHU_FRONTEND_RINGS];
    char error[200];
};

/** Connects to a listening back-end: a descriptor, or -1 with errno. */
int vhu_frontend_connect(const char *path);

/** Makes memory for both sides, zeroed: regions of these lengths, before vhu_frontend_open().
 *  Their device addresses have nothing to do with those of this process. 0 or -1. */
int vhu_frontend_share(struct vhu_frontend *fe, const uint64_t *lengths, unsigned count);

/** A piece of region `region` as the driver wants it. */
struct virtio_dma vhu_frontend_memory(const struct vhu_frontend *fe, unsigned region,
                                        uint64_t offset, uint32_t length);

/** Takes a connected socket, -1 included, and negotiates the protocol with the back-end.
 *  0, or -1: see vhu_frontend_error(). */
int vhu_frontend_open(struct vhu_frontend *fe, int socket,
                        const struct vhu_frontend_setup *setup);

/**
 * Goes on with another back-end after the first one went away: features, memory and queues are as the
 * driver left them, and what was in flight is served by the new one, as the record of the old one says.
 * Wants setup.resumable. Call it when a wait hook or a call of the driver fails with an error that
 * vhu_frontend_error() knows; then go on waiting, or reset the device if it was not yet running.
 * A packed ring's position is in the record alone.
 * @param socket  connected, for a front-end that was open before; -1: nothing changes
 * @return 0, or -1: see vhu_frontend_error(); try again with another socket
 */
int vhu_frontend_reconnect(struct vhu_frontend *fe, int socket);

/** Fills in a driver's view of the device. 0, or VIRTIO_ERR_GONE if there is no connection. */
int vhu_frontend_drv(struct vhu_frontend *fe, struct virtio_drv *drv);

/** The wait hook of a driver: waits until the device interrupts. false: it did not in time, or the
 *  connection ended. ctx: the struct vhu_frontend. */
bool vhu_frontend_wait(void *ctx);

/** How often the device interrupted so far. */
uint32_t vhu_frontend_interrupts(const struct vhu_frontend *fe);

/** Queues that the device has. */
unsigned vhu_frontend_queues(const struct vhu_frontend *fe);

/** What went wrong first, or NULL. */
const char *vhu_frontend_error(const struct vhu_frontend *fe);

/** Ends the connection and unmaps the memory. */
void vhu_frontend_close(struct vhu_frontend *fe);

#endif
