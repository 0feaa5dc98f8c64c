// SPDX-License-Identifier: MIT-0
/**
 * @file protocol.h
 * @brief The messages of the vhost-user protocol: numbers and layouts, for both ends.
 *
 * A message is a header and a payload of header.size bytes, in the CPU's byte order, on a Unix stream
 * socket. File descriptors travel with the header's bytes. The front-end asks; the back-end answers
 * the requests that have an answer, and each one with VHU_FLAG_NEED_REPLY once REPLY_ACK is agreed.
 * After the protocol document of QEMU, docs/interop/vhost-user.
 */
#ifndef EXAMPLES_VHOST_USER_PROTOCOL_H
#define EXAMPLES_VHOST_USER_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

enum {
    VHU_MAX_REGIONS = 8,  /**< memory regions of one SET_MEM_TABLE, each with its descriptor */
    VHU_MAX_SLOTS = 32,   /**< memory regions of this back-end, added one by one */
    VHU_MAX_FDS = 8,      /**< descriptors of one message */
    VHU_MAX_CONFIG = 256, /**< bytes of device configuration of one message */
    VHU_MAX_QUEUES = 256  /**< a queue is named by 8 bits where a descriptor comes with it */
};

/** What a message asks for: vhu_header::request. */
enum vhu_request {
    VHU_GET_FEATURES = 1,           /**< -> u64 */
    VHU_SET_FEATURES = 2,           /**< u64 */
    VHU_SET_OWNER = 3,              /**< nothing */
    VHU_RESET_OWNER = 4,            /**< nothing; deprecated: disables all rings, or is ignored */
    VHU_SET_MEM_TABLE = 5,          /**< memory, one descriptor a region */
    VHU_SET_LOG_BASE = 6,           /**< log of dirty pages: LOG_SHMFD */
    VHU_SET_LOG_FD = 7,             /**< likewise */
    VHU_SET_VRING_NUM = 8,          /**< state */
    VHU_SET_VRING_ADDR = 9,         /**< ring */
    VHU_SET_VRING_BASE = 10,        /**< state; packed: see vhu_vring_state */
    VHU_GET_VRING_BASE = 11,        /**< state -> state; stops the ring */
    VHU_SET_VRING_KICK = 12,        /**< u64: VHU_VRING_*, and a descriptor */
    VHU_SET_VRING_CALL = 13,        /**< likewise */
    VHU_SET_VRING_ERR = 14,         /**< likewise */
    VHU_GET_PROTOCOL_FEATURES = 15, /**< -> u64 */
    VHU_SET_PROTOCOL_FEATURES = 16, /**< u64 */
    VHU_GET_QUEUE_NUM = 17,         /**< -> u64; MQ */
    VHU_SET_VRING_ENABLE = 18,      /**< state: num is 0 or 1 */
    VHU_SET_BACKEND_REQ_FD = 21,    /**< a descriptor, for requests the other way; BACKEND_REQ */
    VHU_GET_CONFIG = 24,            /**< config -> config; CONFIG */
    VHU_SET_CONFIG = 25,            /**< config; CONFIG */
    VHU_GET_INFLIGHT_FD = 31,       /**< inflight -> inflight and a descriptor; INFLIGHT_SHMFD */
    VHU_SET_INFLIGHT_FD = 32,       /**< inflight and a descriptor; INFLIGHT_SHMFD */
    VHU_RESET_DEVICE = 34,          /**< nothing; RESET_DEVICE */
    VHU_GET_MAX_MEM_SLOTS = 36,     /**< -> u64; CONFIGURE_MEM_SLOTS */
    VHU_ADD_MEM_REG = 37,           /**< slot and a descriptor; CONFIGURE_MEM_SLOTS */
    VHU_REM_MEM_REG = 38,           /**< slot; CONFIGURE_MEM_SLOTS */
    VHU_SET_STATUS = 39,            /**< u64: the device status as the driver wrote it; STATUS */
    VHU_GET_STATUS = 40             /**< -> u64; STATUS */
};

/** Bits of vhu_header::flags. */
enum {
    VHU_FLAG_VERSION = 1,      /**< the version, in two bits */
    VHU_FLAG_VERSION_MASK = 3,
    VHU_FLAG_REPLY = 4,        /**< on every message of the back-end */
    VHU_FLAG_NEED_REPLY = 8    /**< REPLY_ACK: answer with a u64, 0 for success */
};

/** The bit of GET_FEATURES that says that there are protocol features. */
enum { VHU_FEATURE_PROTOCOL_FEATURES = 30 };

/** Bits of GET_PROTOCOL_FEATURES. */
enum vhu_protocol_feature {
    VHU_PROTOCOL_MQ = 0,
    VHU_PROTOCOL_LOG_SHMFD = 1,
    VHU_PROTOCOL_REPLY_ACK = 3,
    VHU_PROTOCOL_BACKEND_REQ = 5,
    VHU_PROTOCOL_CONFIG = 9,
    VHU_PROTOCOL_INFLIGHT_SHMFD = 12,
    VHU_PROTOCOL_RESET_DEVICE = 13,
    VHU_PROTOCOL_CONFIGURE_MEM_SLOTS = 15,
    VHU_PROTOCOL_STATUS = 16
};

/** The u64 of SET_VRING_KICK, CALL and ERR. */
enum {
    VHU_VRING_INDEX_MASK = 0xff,
    VHU_VRING_NO_FD = 0x100 /**< no descriptor comes along: poll, or never call */
};

struct vhu_header {
    uint32_t request; /**< enum vhu_request; an answer repeats it */
    uint32_t flags;
    uint32_t size; /**< bytes of payload */
};

/** A number for a ring. SET/GET_VRING_BASE: the next available entry; packed: bit 15 is its wrap
 *  counter, and the upper half is the next used entry likewise, which some front-ends leave 0. */
struct vhu_vring_state {
    uint32_t index;
    uint32_t num;
};

/** Where a ring lies, in addresses of vhu_region::user_addr. */
struct vhu_vring_addr {
    uint32_t index;
    uint32_t flags; /**< bit 0: log writes to the used ring */
    uint64_t desc;
    uint64_t used;  /**< device area */
    uint64_t avail; /**< driver area */
    uint64_t log;
};

/** A piece of memory that the front-end shares. */
struct vhu_region {
    uint64_t guest_addr; /**< its address in descriptors */
    uint64_t size;
    uint64_t user_addr;   /**< its address in vhu_vring_addr */
    uint64_t mmap_offset; /**< where it starts in the file of its descriptor */
};

/** One of ADD_MEM_REG and REM_MEM_REG. */
struct vhu_slot {
    uint64_t padding;
    struct vhu_region region;
};

/** All of it. Only `count` regions are sent. */
struct vhu_memory {
    uint32_t count;
    uint32_t padding;
    struct vhu_region region[VHU_MAX_REGIONS];
};

/** A piece of device configuration. Only `size` bytes of data are sent; an answer of no payload
 *  (header.size 0) is a refusal. */
struct vhu_config {
    uint32_t offset;
    uint32_t size;
    uint32_t flags; /**< SET_CONFIG: 0 the driver wrote, 1 migration */
    uint8_t data[VHU_MAX_CONFIG];
};

/** A region that outlives the back-end and says what it had not completed. 20 bytes of it mean
 *  something; all that speak the protocol send the padding as well. */
struct vhu_inflight {
    uint64_t mmap_size;
    uint64_t mmap_offset;
    uint16_t queue_count;
    uint16_t queue_size;
    uint32_t padding;
};

enum { VHU_INFLIGHT_SIZE = 20, VHU_CONFIG_HEADER = 12, VHU_MEMORY_HEADER = 8 };

union vhu_payload {
    uint64_t u64;
    struct vhu_vring_state state;
    struct vhu_vring_addr ring;
    struct vhu_memory memory;
    struct vhu_slot slot;
    struct vhu_config config;
    struct vhu_inflight inflight;
};

/** A message in memory; on the socket the payload follows the header's 12 bytes at once. */
struct vhu_message {
    struct vhu_header header;
    union vhu_payload payload;
};

_Static_assert(sizeof(struct vhu_header) == 12, "header");
_Static_assert(sizeof(struct vhu_vring_state) == 8, "vring state description");
_Static_assert(sizeof(struct vhu_vring_addr) == 40, "vring address description");
_Static_assert(offsetof(struct vhu_vring_addr, used) == 16, "vring address description");
_Static_assert(sizeof(struct vhu_region) == 32, "memory region");
_Static_assert(sizeof(struct vhu_slot) == 40, "single memory region description");
_Static_assert(offsetof(struct vhu_memory, region) == VHU_MEMORY_HEADER, "memory regions");
_Static_assert(offsetof(struct vhu_config, data) == VHU_CONFIG_HEADER, "config space");
_Static_assert(sizeof(struct vhu_inflight) == 24, "inflight description");
_Static_assert(offsetof(struct vhu_inflight, queue_size) == 18, "inflight description");

#endif
