// SPDX-License-Identifier: MIT-0
/**
 * @file console.h
 * @brief A virtio console driver: one console, or ports that come and go, over any transport.
 *
 * Plain C over virtio.h, no library, no allocation: the caller gives the memory and says how to
 * wait. Nothing happens behind the caller's back: console_poll() looks at what the device did and
 * hands out one event after the other, console_read() and console_write() move bytes of one port
 * and never wait. Serialise all calls on one struct console.
 *
 *     for (;;) {
 *         while ((got = console_poll(&console, &event)) > 0)
 *             ...                                    // a port was added, opened, resized ...
 *         ...console_read(), console_write()...      // as much as there is, as much as fits
 *         if (got < 0 || nothing was moved && console_wait(&console) != 0)
 *             break;
 *     }
 *
 * Bytes of a port arrive in order, once each. The buffers they arrive in go back to the device when
 * they have been read, so that a port that nobody reads stops its sender, and no other port.
 *
 * A port's id fixes its queues, which are there from start to stop. When a port is removed and
 * another one gets its id, nothing of the old one comes out of the new one: old input is dropped,
 * and the new port is taken only when the device has taken all old output. A device that loses a
 * buffer (QEMU does, when a port goes away that its reader had stalled) costs its queue that buffer
 * until the next start; if that was the last one sent, a new port of this id is not taken till then.
 */
#ifndef EXAMPLES_DRIVER_CONSOLE_H
#define EXAMPLES_DRIVER_CONSOLE_H

#include "virtio.h"

enum {
    CONSOLE_DEVICE_TYPE = 3,    /**< virtio device type of a console */
    CONSOLE_PORTS = 8,          /**< ports with queues: ids 0 to 7; others are refused */
    CONSOLE_QUEUES = 2 * CONSOLE_PORTS + 2,
    CONSOLE_QUEUE_MAX = 128,    /**< largest queue size accepted (legacy devices dictate theirs) */
    CONSOLE_BUFFERS = 16,       /**< of a data queue at most; not above 32 */
    CONSOLE_BUFFER_SIZE = 512,  /**< bytes of each */
    CONSOLE_CONTROLS = 32,      /**< buffers of a control queue at most; not above 32 */
    CONSOLE_CONTROL_SIZE = 256, /**< bytes of a control message at most, 8 of them header */
    CONSOLE_NAME_SIZE = 64      /**< bytes of a port's name that are kept, with a terminator */
};

/** Errors of this driver; those of virtio.h come through unchanged. */
enum console_err {
    CONSOLE_ERR_MEMORY = -180,    /**< the memory given to console_start() is too small */
    CONSOLE_ERR_QUEUE = -181,     /**< the device wants a larger queue than CONSOLE_QUEUE_MAX */
    CONSOLE_ERR_NO_PORTS = -182,  /**< the device says that it can have no port at all */
    CONSOLE_ERR_PORT = -183,      /**< there is no such port now */
    CONSOLE_ERR_CLOSED = -184,    /**< nobody is there: one of the two sides has the port closed */
    CONSOLE_ERR_BUSY = -185,      /**< too many control messages on their way */
    CONSOLE_ERR_SINGLE = -186,    /**< the device has one console, which cannot be closed */
    CONSOLE_ERR_NO_SIZE = -187,   /**< the port never said how large it is */
    CONSOLE_ERR_NO_EMERGENCY = -188, /**< the device has no emergency write */
    CONSOLE_ERR_TIMEOUT = -189,   /**< the wait hook gave up */
    CONSOLE_ERR_DEVICE = -190,    /**< the device failed and wants a reset */
    CONSOLE_ERR_ID_RANGE = -191,  /**< the device added a port that it cannot have */
    CONSOLE_ERR_ID_QUEUES = -192  /**< the device added a port that this driver has no queues for */
};

/** What a device did that led to nothing: counted, never fatal. */
enum console_drop {
    CONSOLE_DROP_SHORT,     /**< control messages that are too short */
    CONSOLE_DROP_EVENT,     /**< control messages whose event is unknown or not the device's */
    CONSOLE_DROP_PORT,      /**< control messages to a port that is not there */
    CONSOLE_DROP_DUPLICATE, /**< added ports that were there */
    CONSOLE_DROP_NAME,      /**< names that were cut */
    CONSOLE_DROP_INPUT,     /**< bytes that came in for a port that is not there or not open */
    CONSOLE_DROPS
};

/** What happened to a port. */
enum console_event_kind {
    CONSOLE_ADDED,   /**< it is there, closed on both sides */
    CONSOLE_REFUSED, /**< it could not be taken: console_event::error says why */
    CONSOLE_REMOVED, /**< it is gone, with what was not read of it */
    CONSOLE_NAMED,   /**< console_port::name is its name */
    CONSOLE_OPENED,  /**< somebody opened it on the device's side */
    CONSOLE_CLOSED,  /**< nobody has it open there any more */
    CONSOLE_IS_CONSOLE, /**< it is a console; it was opened on this side */
    CONSOLE_RESIZED  /**< console_size() has its new size */
};

struct console_event {
    enum console_event_kind kind;
    uint32_t port; /**< its id; below CONSOLE_PORTS but for CONSOLE_REFUSED */
    int error;     /**< CONSOLE_REFUSED */
};

struct console_size {
    uint16_t columns;
    uint16_t rows;
};

/** What the caller gives to console_start(); kept while the driver runs. */
struct console_setup {
    struct virtio_dma memory;       /**< CONSOLE_MEMORY_SIZE bytes, aligned to 4096 */
    bool (*wait)(void *ctx);        /**< waits a moment for the device; false: give up */
    void *wait_ctx;
    struct virtio_features refused; /**< bits not to use even if offered */
    uint16_t vectors;               /**< entries of the MSI-X table that are programmed; 0: MSI-X
                                         is off */
};

/** A queue and its buffers, each of which is the driver's or the device's. */
struct console_queue {
    struct virtio_drv_queue queue;
    uint16_t entries;
    int error;       /**< what broke it, or 0 */
    uint32_t all;    /**< a bit for each of its buffers */
    uint32_t held;   /**< those that are the driver's */
    uint8_t last;    /**< the one that was added last */
    uint16_t size;   /**< bytes of a buffer */
    uint8_t *cpu;    /**< its buffers */
    uint64_t device; /**< device address of the same */
};

/** A buffer that came back, and how much of it the device filled. */
struct console_chunk {
    uint8_t buffer;
    uint16_t length;
};

enum console_state {
    CONSOLE_ABSENT,
    CONSOLE_DRAINING, /**< added, but the device still has output of its predecessor */
    CONSOLE_PRESENT
};

/** One port. Its queues are there from start to stop, the port comes and goes. */
struct console_port {
    uint8_t state;    /**< enum console_state */
    bool open;        /**< on this side */
    bool host_open;   /**< on the device's */
    bool is_console;
    bool blocked;     /**< the last console_write() did not take all */
    bool sized;
    struct console_size size;
    char name[CONSOLE_NAME_SIZE]; /**< as the device sent it (UTF-8, unchecked), terminated */
    uint8_t first, count;         /**< of `input` */
    uint16_t consumed;            /**< bytes of the first one */
    struct console_chunk input[CONSOLE_BUFFERS]; /**< what came in and is not read */
};

/** A running console driver. */
struct console {
    struct virtio_drv *drv;
    bool multiport;
    uint32_t max_ports;   /**< ids of the device are below this */
    uint16_t port_count;  /**< ids with queues are below this */
    uint16_t queue_count;
    volatile bool config_changed;
    uint32_t dropped[CONSOLE_DROPS];
    struct console_setup setup;
    struct console_port port[CONSOLE_PORTS];
    struct console_queue queue[CONSOLE_QUEUES]; /**< by the device's index */
    struct virtq_slot slots[CONSOLE_QUEUES][CONSOLE_QUEUE_MAX];
};

/** Bytes of memory that console_start() wants at most, on any transport. */
#define CONSOLE_MEMORY_SIZE                                                                        \
    (CONSOLE_QUEUES * VIRTIO_QUEUE_BYTES_LEGACY(CONSOLE_QUEUE_MAX) +                               \
     2 * CONSOLE_PORTS * CONSOLE_BUFFERS * CONSOLE_BUFFER_SIZE +                                   \
     2 * CONSOLE_CONTROLS * CONSOLE_CONTROL_SIZE)

/** Brings the device up: reset, features, configuration, queues, DRIVER_OK, DEVICE_READY. A device
 *  without MULTIPORT has port 0 from here on, open; any other adds its ports by and by.
 *  @return 0 or an error of console_err_name(); after one the device is reset or told FAILED */
int console_start(struct console *con, struct virtio_drv *drv, const struct console_setup *setup);

/** Resets the device; what console_flush() did not wait for is lost. 0, VIRTIO_ERR_TIMEOUT,
 *  VIRTIO_ERR_GONE. */
int console_stop(struct console *con);

/** Takes what the device completed, and handles control messages up to the next event. Call it
 *  until it returns 0: only then are the answers sent, so that the device has room for its own.
 *  @return 1: an event; 0: no more; CONSOLE_ERR_DEVICE, or what broke the control queues: the ports
 *          that are there go on, but there will be no event */
int console_poll(struct console *con, struct console_event *event);

/** Waits until the device completes something: input, a control message, or room for output where
 *  the last console_write() did not take all. Returns at once if it has since the last
 *  console_poll().
 *  @return 0, CONSOLE_ERR_TIMEOUT, CONSOLE_ERR_DEVICE */
int console_wait(struct console *con);

/** Takes up to `size` bytes that came in. @return how many, 0 if there are none; CONSOLE_ERR_PORT,
 *  or what broke the port's queue */
int console_read(struct console *con, uint32_t port, void *bytes, uint32_t size);

/** Hands `length` bytes to the device, or as many as there is room for. @return how many;
 *  CONSOLE_ERR_PORT, CONSOLE_ERR_CLOSED, or what broke the port's queue */
int console_write(struct console *con, uint32_t port, const void *bytes, uint32_t length);

/** Waits until the device has taken all output of a port. 0, CONSOLE_ERR_PORT,
 *  CONSOLE_ERR_TIMEOUT, CONSOLE_ERR_DEVICE, or what broke the port's queue. */
int console_flush(struct console *con, uint32_t port);

/** Opens or closes this side of a port; the device hears of it at the next console_poll() that
 *  returns 0, or console_wait(). What comes in while it is closed is dropped, as is what was not
 *  read.
 *  @return 0, CONSOLE_ERR_PORT, CONSOLE_ERR_SINGLE, CONSOLE_ERR_BUSY */
int console_open(struct console *con, uint32_t port);
int console_close(struct console *con, uint32_t port);

/** The size of a port, in characters. 0, CONSOLE_ERR_PORT, CONSOLE_ERR_NO_SIZE. */
int console_size(const struct console *con, uint32_t port, struct console_size *size);

/** Tells of a configuration interrupt (VIRTIO_IRQ_CONFIG): the next console_poll() looks at the
 *  size of port 0 and at the device's health. Any context. */
void console_config_changed(struct console *con);

/** Emits one character without queues or negotiation, in any state of the device; for the moment
 *  when nothing else works. @return 0, CONSOLE_ERR_NO_EMERGENCY, VIRTIO_ERR_CONFIG_RANGE */
int console_emergency_write(const struct virtio_drv *drv, char c);

/** Text of any error these calls return. */
const char *console_err_name(int err);

#endif
