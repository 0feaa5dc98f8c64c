// SPDX-License-Identifier: MIT-0
/**
 * @file console.h
 * @brief A virtio console device with several ports: control messages, and bytes both ways.
 *
 * Plain C over virtio_ring.h, no library, no allocation. The caller pops the chains of a queue,
 * gives each to condev_answer(), and pushes it. The host side of the ports is hooks that never wait.
 * Instead of a queue of messages there is, for each port, what is so and what the driver was told:
 * however often a port changes while the driver gives no buffer, memory is bounded, and the driver
 * hears of an end before it hears of the next beginning.
 *
 * Nothing is assumed about what the driver writes: a message that makes no sense is counted and has
 * no effect. Serialise all calls on one struct condev.
 */
#ifndef EXAMPLES_DEVICE_CONSOLE_H
#define EXAMPLES_DEVICE_CONSOLE_H

#include "virtio_ring.h"

/** Device feature bits (VIRTIO 5.3.3). */
enum {
    CONDEV_FEATURE_SIZE = 0,
    CONDEV_FEATURE_MULTIPORT = 1,
    CONDEV_FEATURE_EMERG_WRITE = 2
};

enum {
    CONDEV_CONFIG_SIZE = 12,
    CONDEV_PORTS = 31,
    CONDEV_PIECE = 4096,       /**< bytes that a hook is offered at once */
    CONDEV_MOST = 64 * 1024,   /**< bytes of one buffer that are taken in one go */
    CONDEV_NAME_MAX = 64,      /**< bytes of a name that the driver is told */
    CONDEV_CONTROL_IN = 2,     /**< queues of control messages: to the driver */
    CONDEV_CONTROL_OUT = 3     /**< and from it */
};

/** Instead of a number of bytes written: see condev_answer(). */
#define CONDEV_LATER UINT32_MAX

/** The host side of the ports. */
struct condev_ops {
    /** Takes bytes that came through a port. @return how many; if not all, the rest is offered
     *  again when the port's queue is served the next time */
    uint32_t (*output)(void *ctx, uint32_t port, const uint8_t *bytes, uint32_t length);
    /** Gives up to `room` bytes to a port. @return how many; 0: none now */
    uint32_t (*input)(void *ctx, uint32_t port, uint8_t *bytes, uint32_t room);
    /** The driver opened or closed its side of a port. */
    void (*opened)(void *ctx, uint32_t port, bool open);
};

/** Messages from the driver that had no effect. */
enum condev_drop {
    CONDEV_DROP_SHORT, /**< shorter than a message, or not in memory */
    CONDEV_DROP_EVENT, /**< unknown, or the device's own to send */
    CONDEV_DROP_PORT,  /**< for a port that the driver was not told of */
    CONDEV_DROP_ORDER, /**< not now: ready twice, opened before it is ready */
    CONDEV_DROPS
};

/** One port. Private but for reading. */
struct condev_port {
    const char *name; /**< NULL: none */
    bool console;
    bool present;   /**< on this side: plugged in */
    bool connected; /**< somebody is at its host side */
    bool sized;
    uint16_t columns, rows;
    bool added; /**< the driver was told of it */
    bool ready; /**< it answered that it has taken it */
    bool open;  /**< its side is open */
    bool told_connected;
    bool replaced; /**< unplugged since then */
    bool lapsed;   /**< disconnected since the driver was told that it is connected */
    uint8_t tell;  /**< of what else it has to be told, once it is ready */
    uint64_t consumed; /**< bytes of the next output buffer that the host side has taken */
};

/** A console. The caller sets the fields of the first part and zeroes the rest. */
struct condev {
    const struct condev_ops *ops;
    void *ops_ctx;
    /** Where this CPU reaches `len` bytes of guest memory at `addr`, or NULL. */
    void *(*map)(void *ctx, uint64_t addr, uint32_t len);
    void *map_ctx;
    uint32_t port_count; /**< ids are below this: 1 to CONDEV_PORTS; 2 * port_count + 2 queues */
    bool big_endian;     /**< messages and configuration of a legacy driver in a big-endian guest */
    bool multiport;      /**< negotiated; without it there is port 0, always open, and two queues */

    /* private */
    bool started; /**< the driver said DEVICE_READY */
    uint32_t dropped[CONDEV_DROPS];
    struct condev_port port[CONDEV_PORTS];
};

/** The feature bits that it offers. SIZE is among them if port 0 has a size. */
uint64_t condev_features(const struct condev *dev);

/** Fills the device configuration (5.3.4). */
void condev_config(const struct condev *dev, uint8_t config[CONDEV_CONFIG_SIZE]);

/** The driver wrote to the configuration: an emergency write comes out of port 0, at any time. */
void condev_config_write(struct condev *dev, uint32_t offset, const uint8_t *bytes,
                         uint32_t length);

/* What happens on the host side of a port. Serve CONDEV_CONTROL_IN and the port's two queues
 * afterwards. Ids are below port_count. */

/** Adds a port that is not there. `name` is UTF-8, kept by the caller, or NULL. */
void condev_plug(struct condev *dev, uint32_t port, const char *name, bool console);

/** Removes a port. */
void condev_unplug(struct condev *dev, uint32_t port);

/** Somebody came to the host side of a port that is plugged in, or left. What the driver sends
 *  while nobody is there is dropped. */
void condev_connect(struct condev *dev, uint32_t port, bool connected);

/** Sets the size of a port, in characters. For port 0 it is in the configuration as well. */
void condev_resize(struct condev *dev, uint32_t port, uint16_t columns, uint16_t rows);

/** The driver is gone, with all it knew. The ports stay. */
void condev_reset(struct condev *dev);

/**
 * Carries out a popped chain.
 * @param queue  its queue. After one of CONDEV_CONTROL_OUT serve CONDEV_CONTROL_IN as well
 * @return bytes written to the chain: push it; or CONDEV_LATER: put it back, so that it is popped
 *         again when the port or the driver has changed, or the host side has room or bytes. Where
 *         output() took all it was offered, that is at once: it is the others' turn in between
 */
uint32_t condev_answer(struct condev *dev, unsigned queue, const struct virtq_chain *chain);

#endif
