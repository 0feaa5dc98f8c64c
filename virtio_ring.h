// SPDX-License-Identifier: MIT-0
/**
 * @file virtio_ring.h
 * @brief The virtqueue: driver side and device side in one freestanding header.
 *
 * This file is the data path only: it knows memory, not registers. It needs no other file, no
 * library and no allocator, and follows VIRTIO 1.0 to 1.4 and the legacy interface. Split and
 * packed rings are served by the same calls; which one a queue is, is said once, when it starts.
 *
 * How to use, driver side:
 *
 *     static struct virtq_slot slots[256];
 *     static _Alignas(64) uint8_t mem[VIRTQ_BYTES(256, 64)];
 *     struct virtq_areas areas;
 *     struct virtq_driver q;
 *
 *     virtq_areas_set(&areas, mem, 256, 64, VIRTQ_PACKED | VIRTQ_EVENT_IDX); // as negotiated
 *     virtq_driver_init(&q, &areas, slots);
 *     virtq_driver_add_writable(&q, seg, my_request);      // exposes nothing yet
 *     virtq_driver_publish(&q);                            // all added so far become visible
 *     if (virtq_driver_kick_due(&q)) { ...write the notify register... }
 *     while (virtq_driver_take(&q, &done) > 0) { ...done.cookie, done.written... }
 *
 * and device side:
 *
 *     struct virtq_seg seg[64];
 *     struct virtq_chain chain = {.seg = seg, .capacity = 64};
 *     virtq_device_init(&q, &areas, map, map_ctx);
 *     while ((rc = virtq_device_pop(&q, &chain)) != 0) {
 *         if (virtq_err_names_chain(rc))                   // malformed request: complete it empty
 *             virtq_device_push(&q, chain.token, 0);
 *         else if (rc < 0)
 *             break;                                       // broken queue: ask for a reset
 *         else
 *             virtq_device_push(&q, chain.token, serve(&chain));
 *     }
 *     virtq_device_flush(&q);
 *     if (virtq_device_irq_due(&q)) { ...interrupt the driver... }
 *
 * Contents
 *
 *     1. Configuration
 *     2. Memory ordering contract
 *     3. Types
 *     4. Layout
 *     5. Shared internals
 *     6. Driver side, what both formats share
 *     7. Split ring, driver side
 *     8. Packed ring, driver side
 *     9. Driver side
 *     10. Device side, what both formats share
 *     11. Split ring, device side
 *     12. Packed ring, device side
 *     13. Device side
 */
#ifndef VIRTIO_RING_H
#define VIRTIO_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef VIRTIO_CONFIG_FILE
#include VIRTIO_CONFIG_FILE
#endif

/* ---------------------------------------------------------------------------
 * 1. Configuration
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_config Ring configuration
 * Facts of the platform, and what to leave out. Each macro can be defined before this file is
 * included, or in the file named by VIRTIO_CONFIG_FILE; it must then be the same in the whole
 * program. None of them changes the layout of a struct. Macros that stand together under one
 * comment are defined together, all or none.
 * @{
 */

/** Sides that are compiled in. Default: both. */
#ifndef VIRTIO_HAVE_DRIVER
#define VIRTIO_HAVE_DRIVER 1
#endif
#ifndef VIRTIO_HAVE_DEVICE
#define VIRTIO_HAVE_DEVICE 1
#endif

/** Queue properties (bits of enum virtq_flag) that a queue of this program can have, and those that
 *  every one has. No code is compiled for what cannot be, and none looks for what always is: with
 *  VIRTQ_PACKED left out of the one, or put into the other, nothing is left of the other format. A
 *  queue of another kind is refused when it starts (VIRTQ_ERR_FLAGS). Default: all but
 *  VIRTQ_FOREIGN_ENDIAN, and none. */
#ifndef VIRTIO_RING_FLAGS
#define VIRTIO_RING_FLAGS (VIRTQ_FOREIGN_ENDIAN - VIRTQ_NOTIFY_ON_EMPTY) /* and all between */
#endif
#ifndef VIRTIO_RING_ALWAYS
#define VIRTIO_RING_ALWAYS 0
#endif

/** 1: buffers of one descriptor take a short way of their own, beside the one for all. Default: 0
 * where the compiler optimises for size; it may differ from file to file. */
#ifndef VIRTIO_FAST_PATHS
#ifdef __OPTIMIZE_SIZE__
#define VIRTIO_FAST_PATHS 0
#else
#define VIRTIO_FAST_PATHS 1
#endif
#endif

/** Linkage of the functions. Default: `static inline`. Whoever gives them external linkage gives it
 *  to VIRTIO_OUTLINE as well. */
#ifndef VIRTIO_INLINE
#define VIRTIO_INLINE static inline
#endif

/** Marks results that must not be dropped. Default: the compiler's warning. */
#ifndef VIRTIO_NODISCARD
#define VIRTIO_NODISCARD __attribute__((warn_unused_result))
#endif

/** Linkage of the parts that are kept out of the straight path (malformed input, indirect tables,
 *  long chains), so that the common case needs no registers for them. Default: not inlined; without
 *  short ways, as the compiler likes. */
#ifndef VIRTIO_OUTLINE
#if VIRTIO_FAST_PATHS
#define VIRTIO_OUTLINE __attribute__((unused, noinline)) static
#else
#define VIRTIO_OUTLINE __attribute__((unused)) static
#endif
#endif

/** Branch weight of the common and of the rare case. Default: the compiler's builtin. */
#ifndef VIRTIO_LIKELY
#define VIRTIO_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define VIRTIO_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#endif

/** Called with a condition on the *caller's* arguments that the contract promises; never with
 *  anything the peer wrote. Default: nothing. */
#ifndef VIRTIO_ASSERT
#define VIRTIO_ASSERT(condition) ((void)0)
#endif

#ifndef VIRTIO_STATIC_ASSERT
#ifdef __cplusplus
#define VIRTIO_STATIC_ASSERT(condition, text) static_assert(condition, text)
#else
#define VIRTIO_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif
#endif

/** 1 on a big-endian CPU. Default: as the compiler says. */
#ifndef VIRTIO_BIG_ENDIAN
#define VIRTIO_BIG_ENDIAN (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
#endif

/*
 * Every access to shared ring memory goes through the macros below, so that a port with
 * non-coherent memory can add cache maintenance and a test can record them. The pointers are
 * naturally aligned. A load macro reads memory exactly once.
 */

/** One load or store; ordered only by the fences around it. Loads are of what the peer may be
 * writing: a volatile access, so that it is one. Stores are of what nobody looks at before the
 * release store that follows; the struct tells the compiler that they change no 16-bit field of a
 * queue. Code that looks into ring memory otherwise does so byte by byte. */
#ifndef VIRTIO_LOAD16
struct virtq_cell16_ {
    uint16_t value;
};
#define VIRTIO_LOAD8(p) (*(const volatile uint8_t *)(p))
#define VIRTIO_LOAD16(p) (*(const volatile uint16_t *)(p))
#define VIRTIO_LOAD32(p) (*(const volatile uint32_t *)(p))
#define VIRTIO_LOAD64(p) (*(const volatile uint64_t *)(p))
#define VIRTIO_STORE8(p, v) ((void)(*(volatile uint8_t *)(p) = (v)))
#define VIRTIO_STORE16(p, v) ((void)(((struct virtq_cell16_ *)(void *)(p))->value = (v)))
#define VIRTIO_STORE32(p, v) ((void)(*(uint32_t *)(p) = (v)))
#define VIRTIO_STORE64(p, v) ((void)(*(uint64_t *)(p) = (v)))
#endif

/** Accesses to the words that both sides touch at the same time: indices and packed flags (acquire
 *  and release), suppression hints (relaxed: single-copy atomic, no order). Default: the compiler's
 *  atomics where they are inline, else a volatile access and a fence (16-bit builtins would become
 *  library calls). */
#ifndef VIRTIO_LOAD_ACQUIRE16
#if defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_2)
#define VIRTIO_LOAD_ACQUIRE16(p) __atomic_load_n((const uint16_t *)(p), __ATOMIC_ACQUIRE)
#define VIRTIO_LOAD_RELAXED16(p) __atomic_load_n((const uint16_t *)(p), __ATOMIC_RELAXED)
#define VIRTIO_LOAD_RELAXED32(p) __atomic_load_n((const uint32_t *)(p), __ATOMIC_RELAXED)
#define VIRTIO_STORE_RELEASE16(p, v) __atomic_store_n((uint16_t *)(p), (v), __ATOMIC_RELEASE)
#define VIRTIO_STORE_RELAXED16(p, v) __atomic_store_n((uint16_t *)(p), (v), __ATOMIC_RELAXED)
#define VIRTIO_STORE_RELAXED32(p, v) __atomic_store_n((uint32_t *)(p), (v), __ATOMIC_RELAXED)
#else
VIRTIO_INLINE uint16_t virtq_load_acquire16_(const void *p)
{
    uint16_t value = *(const volatile uint16_t *)p;

    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return value;
}
VIRTIO_INLINE void virtq_store_release16_(void *p, uint16_t value)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
    *(volatile uint16_t *)p = value;
}
#define VIRTIO_LOAD_ACQUIRE16(p) virtq_load_acquire16_(p)
#define VIRTIO_LOAD_RELAXED16(p) (*(const volatile uint16_t *)(p))
#define VIRTIO_LOAD_RELAXED32(p) (*(const volatile uint32_t *)(p))
#define VIRTIO_STORE_RELEASE16(p, v) virtq_store_release16_((p), (v))
#define VIRTIO_STORE_RELAXED16(p, v) ((void)(*(volatile uint16_t *)(p) = (v)))
#define VIRTIO_STORE_RELAXED32(p, v) ((void)(*(volatile uint32_t *)(p) = (v)))
#endif
#endif

/** Full fence: no earlier access passes any later one, loads after stores included. */
#ifndef VIRTIO_FENCE_FULL
#define VIRTIO_FENCE_FULL() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#if defined(__i386__) || defined(__x86_64__)
#define VIRTQ_EXCHANGE_FENCES_ /* as any locked instruction does */
#endif
#endif

/**
 * Fences towards a peer that is no CPU of this system (VIRTQ_ORDER_PLATFORM), where they differ
 * from those towards another CPU. Ring memory is ordinary cacheable memory, so they differ only on
 * Arm A-profile, whose compiler fences cover the inner shareable domain; a device may sit in the
 * outer:
 *
 * | CPU | between CPUs | towards a device |
 * |---|---|---|
 * | x86 | plain loads and stores, locked instruction as full fence | the same |
 * | Arm A-profile | `ldar`/`stlr` or `dmb ish` | `dmb oshld`, `dmb osh` |
 * | Arm M-profile | `dmb` | the same: it ignores the domain |
 * | RISC-V | `fence` on memory | the same: I/O order belongs to the register access |
 * | POWER, s390x, other | the compiler's fences | the same |
 *
 * VIRTIO_PLATFORM_ACQUIRE follows a load and orders it before all later accesses,
 * VIRTIO_PLATFORM_RELEASE orders all earlier accesses before a store, VIRTIO_PLATFORM_FULL is a
 * full fence. Default: as the table says.
 */
#ifndef VIRTIO_HAVE_PLATFORM_FENCES
#if defined(__aarch64__) || (defined(__ARM_ARCH) && __ARM_ARCH >= 7 && __ARM_ARCH_PROFILE == 'A')
#define VIRTIO_HAVE_PLATFORM_FENCES 1
#ifdef __aarch64__
#define VIRTIO_PLATFORM_ACQUIRE() __asm__ volatile("dmb oshld" ::: "memory")
#else
#define VIRTIO_PLATFORM_ACQUIRE() __asm__ volatile("dmb osh" ::: "memory")
#endif
#define VIRTIO_PLATFORM_RELEASE() __asm__ volatile("dmb osh" ::: "memory")
#define VIRTIO_PLATFORM_FULL() __asm__ volatile("dmb osh" ::: "memory")
#else
#define VIRTIO_HAVE_PLATFORM_FENCES 0
#define VIRTIO_PLATFORM_ACQUIRE() ((void)0)
#define VIRTIO_PLATFORM_RELEASE() ((void)0)
#define VIRTIO_PLATFORM_FULL() ((void)0)
#endif
#endif
/** @} */

/* ---------------------------------------------------------------------------
 * 2. Memory ordering contract
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_ordering Memory ordering
 * Four pairs carry the whole protocol, in both formats. The comments in the code name the letter.
 *
 * | pair | writer | reader | carries | weaker fails because |
 * |---|---|---|---|---|
 * | A | driver publish: release store of avail idx; packed: of the first head's flags | device pop: acquire load | descriptors, ring slots, readable data | the device would fetch a descriptor of an earlier buffer |
 * | B | device flush: release store of used idx; packed: of the first used flags | driver take: acquire load | used entries, written data | the driver would free a slot by a stale id |
 * | C | driver publish, full fence, load of avail_event / used flags / device event area | device kick_on: store of the same, full fence, load of avail idx / head flags | - | each side could read the other's old value: work pending and nobody notified |
 * | D | device flush, full fence, load of used_event / avail flags / driver event area | driver irq_on: store of the same, full fence, load of used idx / used flags | - | as C, for interrupts |
 *
 * Each side of a queue is single-threaded: *serialise all calls on one queue side*. The two sides
 * may run at the same time. Different queues share nothing.
 */

/* ---------------------------------------------------------------------------
 * 3. Types
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_types Ring types
 * @{
 */

enum {
    VIRTQ_MAX_SIZE = 32768,   /**< largest queue size, in entries */
    VIRTQ_LEGACY_ALIGN = 4096 /**< Queue Align of legacy PCI, in bytes */
};

/** Properties of a queue, as negotiated: virtq_areas::flags. */
enum virtq_flag { /* bits 0 to 2: VIRTQ_HELD_; the features: virtio_features_ring_flags() */
    VIRTQ_NOTIFY_ON_EMPTY = 0x08, /**< VIRTIO_F_NOTIFY_ON_EMPTY (24), split rings */
    VIRTQ_PACKED = 0x10,          /**< VIRTIO_F_RING_PACKED (34); not together with VIRTQ_LEGACY */
    VIRTQ_IN_ORDER = 0x20,        /**< VIRTIO_F_IN_ORDER (35); not together with VIRTQ_LEGACY */
    VIRTQ_ORDER_PLATFORM = 0x40,  /**< VIRTIO_F_ORDER_PLATFORM (36): the peer is no CPU */
    VIRTQ_INDIRECT = 0x80,        /**< VIRTIO_F_INDIRECT_DESC (28) */
    VIRTQ_EVENT_IDX = 0x100,      /**< VIRTIO_F_EVENT_IDX (29) */
    VIRTQ_LEGACY = 0x200, /**< VERSION_1 not negotiated: ring in the CPU's byte order, and a used length
                               beyond the buffer is clamped, not refused (D-LEG-06) */
    VIRTQ_FOREIGN_ENDIAN = 0x400 /**< with VIRTQ_LEGACY: ring in the order that is not the CPU's;
                                      left out unless VIRTIO_RING_FLAGS has it */
};

/** Errors of this file: always negative. Names and meaning: virtq_err_name(). */
enum virtq_err {
    /* the caller's own doing; nothing was changed */
    VIRTQ_ERR_SIZE = -1,  /**< queue size 0, above 32768 or, split, not a power of two */
    VIRTQ_ERR_ALIGN = -2, /**< an area is not aligned (16, 2 and 4 bytes; packed 16, 4 and 4) or
                               NULL */
    VIRTQ_ERR_FLAGS = -3, /**< flags that exclude each other, are not in VIRTIO_RING_FLAGS, or lack
                             one of VIRTIO_RING_ALWAYS */
    VIRTQ_ERR_POSITION = -4, /**< a position that no queue of this size can have */
    VIRTQ_ERR_EMPTY = -5,    /**< a buffer needs at least one segment (L-VQ-04) */
    VIRTQ_ERR_LENGTH = -6,   /**< a buffer of 2^32 bytes or more, which no used length can say
                                  (D-SPLIT-02) */
    VIRTQ_ERR_TOO_LONG = -7, /**< more segments than the queue has entries (D-SPLIT-03) */
    /* no room now */
    VIRTQ_ERR_FULL = -8, /**< not enough free descriptors: take completions, then retry */
    /* the peer violated the protocol: the queue is broken until it is initialised again */
    VIRTQ_ERR_BROKEN = -9,      /**< an earlier call found the violation */
    VIRTQ_ERR_USED_IDX = -10,   /**< used idx passed what was made available (D-SPLIT-12) */
    VIRTQ_ERR_USED_ID = -11,    /**< used id is not an outstanding buffer (D-SPLIT-12, D-PACK-13,
                                     D-INO-04) */
    VIRTQ_ERR_USED_LEN = -12,   /**< used len beyond the writable bytes (D-SPLIT-12, D-PACK-13) */
    VIRTQ_ERR_AVAIL_IDX = -13,  /**< more was made available than the queue holds (V-SPLIT-06) */
    VIRTQ_ERR_AVAIL_HEAD = -14, /**< head index outside the descriptor table (V-SPLIT-06) */
    VIRTQ_ERR_AVAIL_LIST = -15, /**< packed list that does not end in the free slots (V-PACK-09) */
    /* one chain is malformed: its head is consumed and named by virtq_chain::token */
    VIRTQ_ERR_CHAIN_NEXT = -20,      /**< next link outside the table (V-SPLIT-06) */
    VIRTQ_ERR_CHAIN_LOOP = -21,      /**< more links than the table has entries (V-SPLIT-06) */
    VIRTQ_ERR_CHAIN_ORDER = -22,     /**< readable after writable (D-VQ-01) */
    VIRTQ_ERR_CHAIN_LENGTH = -23,    /**< addr + len wraps, or more than 2^32 bytes in all */
    VIRTQ_ERR_CHAIN_CAPACITY = -24,  /**< legal so far, but longer than the caller's array */
    VIRTQ_ERR_INDIRECT_OFF = -25,    /**< INDIRECT without the feature (D-IND-01, D-IND-06) */
    VIRTQ_ERR_INDIRECT_NESTED = -26, /**< INDIRECT inside a table (D-IND-02) */
    VIRTQ_ERR_INDIRECT_NEXT = -27,   /**< INDIRECT together with NEXT (D-IND-03, D-IND-07) */
    VIRTQ_ERR_INDIRECT_LEN = -28,    /**< table length 0 or no multiple of 16 (D-IND-04) */
    VIRTQ_ERR_INDIRECT_MAP = -29     /**< the mapping hook refused the table */
};

/** One element of a buffer: device address and length in bytes. A driver passes lengths of at
 *  least 1 (some devices break on 0); a device may be handed 0. */
struct virtq_seg {
    uint64_t addr;
    uint32_t len;
};

/** A buffer to add: `readable` segments for the device to read, then `writable` ones for it to
 *  write, in this order in `seg`. The array is not kept. */
struct virtq_buffer {
    const struct virtq_seg *seg;
    uint16_t readable;
    uint16_t writable;
};

/** Memory for one indirect table, `capacity` entries of 16 bytes. It must stay untouched from the
 *  add that used it until the buffer's completion. */
struct virtq_table {
    void *mem;     /**< where this CPU writes it; 8-byte aligned */
    uint64_t addr; /**< where the device reads it; no rule of alignment */
    uint16_t capacity;
};

/** A completed buffer. */
struct virtq_done {
    void *cookie;     /**< as given to add */
    uint32_t written; /**< bytes the device wrote; never more than the buffer's writable bytes */
};

/** A chain as popped by the device side. The caller sets `seg` and `capacity` once. */
struct virtq_chain {
    struct virtq_seg *seg; /**< caller's array: private copies, readable segments first */
    uint16_t capacity;     /**< its entries, at least 1 */
    uint16_t readable;     /**< segments to read */
    uint16_t writable;     /**< segments to write, after the readable ones */
    uint32_t token;        /**< names the buffer to virtq_device_push() */
};

/** Where a queue lives. Ownership: descriptor area and driver area are written by the driver side
 *  only (packed: the device side writes used descriptors too), the device area by the device side
 *  only. */
struct virtq_areas {
    uint16_t num;   /**< queue size in entries */
    uint16_t flags; /**< enum virtq_flag */
    void *desc;     /**< descriptor area: split table or packed ring; 16-byte aligned */
    void *driver;   /**< driver area: split available ring, 2-byte aligned; packed driver event
                         suppression, 4-byte aligned */
    void *device;   /**< device area: split used ring; packed device event suppression; 4-byte
                         aligned */
};

/** Byte offsets of the three areas in one contiguous piece of memory; desc is at 0. */
struct virtq_offsets {
    uint32_t driver;
    uint32_t device;
    uint32_t total;
};

/** What the driver side remembers of one descriptor (split) or buffer id (packed). Private: never
 * in shared memory. */
struct virtq_slot {
    void *cookie;
    uint32_t writable; /**< of an outstanding buffer: bytes the device may write */
    uint16_t next;     /**< free list; split: or ring of the buffer's descriptors; IN_ORDER: always
                            in ring order, and a mark, VIRTQ_MARK_ */
    uint16_t count;    /**< descriptors of the buffer; 0: not the head of an outstanding one */
};

/** Split descriptor, 2.7.5. Wire format: fields in ring byte order, only through the accessors. */
struct virtq_split_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

/** Used ring entry, 2.7.8. Wire format, as above. */
struct virtq_split_used {
    uint32_t id;
    uint32_t len;
};

/** Packed descriptor, 2.8.13. Wire format, as above. The event suppression structure of 2.8.14 is
 *  read and written as one 32-bit word: offset and wrap counter in bits 15:0, flags in 17:16. */
struct virtq_packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id;
    uint16_t flags;
};

VIRTIO_STATIC_ASSERT(sizeof(struct virtq_split_desc) == 16, "descriptor, 2.7.5");
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_split_desc, len) == 8, "descriptor, 2.7.5");
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_split_desc, flags) == 12, "descriptor, 2.7.5");
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_split_desc, next) == 14, "descriptor, 2.7.5");
VIRTIO_STATIC_ASSERT(sizeof(struct virtq_split_used) == 8, "used element, 2.7.8");
VIRTIO_STATIC_ASSERT(sizeof(struct virtq_packed_desc) == 16, "descriptor, 2.8.13");
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_packed_desc, len) == 8, "descriptor, 2.8.13");
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_packed_desc, id) == 12, "descriptor, 2.8.13");
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_packed_desc, flags) == 14, "descriptor, 2.8.13");

/** Flags of the wire (2.7.5, 2.7.6, 2.7.8; packed 2.8.1, 2.8.14). */
enum {
    VIRTQ_DESC_FLAG_NEXT = 1,
    VIRTQ_DESC_FLAG_WRITE = 2,
    VIRTQ_DESC_FLAG_INDIRECT = 4,
    VIRTQ_DESC_FLAG_AVAIL = 1 << 7, /**< packed */
    VIRTQ_DESC_FLAG_USED = 1 << 15, /**< packed */
    VIRTQ_AVAIL_FLAG_NO_IRQ = 1,
    VIRTQ_USED_FLAG_NO_KICK = 1,
    VIRTQ_EVENT_ENABLE = 0,
    VIRTQ_EVENT_DISABLE = 1,
    VIRTQ_EVENT_DESC = 2 /**< only with EVENT_IDX */
};

/**
 * Driver side of a queue. Private; no call before virtq_driver_init(). A live queue may be moved:
 * copy the struct and the slots, and point `slots` to the copy.
 *
 * Positions (`added_idx` and so on): in a split ring free-running 16-bit counters, so that only
 * differences mean anything (L-SPLIT-05); in a packed ring a slot in bits 14:0 and the wrap counter
 * in bit 15, the form in which positions travel in event areas and notifications.
 */
struct virtq_driver {
    void *desc; /**< as in struct virtq_areas */
    void *driver;
    void *device;
    struct virtq_slot *slots; /**< caller's array of num */
    /* Fields written together are not neighbours: merging their stores costs more than it saves. */
    uint16_t last; /**< highest entry: queue size - 1, the mask of free-running indices */
    uint16_t free_head;     /**< in a broken queue the cause, which is no slot */
    uint16_t flags;         /**< enum virtq_flag, and state: VIRTQ_HELD_ */
    uint16_t free_count;    /**< 0 in a broken queue, so that add need not look further */
    uint16_t kicked_idx;    /**< published_idx at the last decision to kick */
    uint16_t added_idx;     /**< where the next buffer is made available */
    uint16_t taken_idx;     /**< where the next completion appears */
    uint16_t published_idx; /**< what the device may see ends here */
};

/**
 * Maps guest memory of an indirect table for the device side.
 * @param ctx   as given to virtq_device_init()
 * @param addr  device address, any alignment
 * @param len   bytes, a non-zero multiple of 16
 * @return where this CPU reads all `len` bytes, or NULL if any of them is not memory
 */
typedef const void *(*virtq_map_fn)(void *ctx, uint64_t addr, uint32_t len);

/** Device side of a queue. Private; no call before virtq_device_init(). Positions as in struct
 *  virtq_driver. */
struct virtq_device {
    void *desc;
    void *driver;
    void *device;
    virtq_map_fn map;
    void *map_ctx;
    uint16_t last;
    uint16_t popped_idx;    /**< next buffer to pop */
    uint16_t flags;         /**< enum virtq_flag */
    uint16_t pushed_idx;    /**< up to here buffers are completed */
    uint16_t seen_idx;      /**< split: avail idx as last read and checked */
    uint16_t flushed_idx;   /**< what the driver may see ends here */
    int16_t error;          /**< what broke the queue, or 0 */
    uint16_t avail_flags;   /**< packed: AVAIL and USED of what is available at popped_idx, or
                                 VIRTQ_NEVER_ */
    uint16_t held_flags;    /**< packed: of the used descriptor at flushed_idx */
    uint16_t batch_idx;     /**< IN_ORDER: where the next used entry goes if something waits for the
                                 flush: pushed_idx, or the start of the batch that it extends */
    uint16_t signalled_idx; /**< flushed_idx at the last decision to interrupt */
};

/** Positions of a queue side, for migration and vhost GET/SET_VRING_BASE. In packed form with the
 *  wrap counter in bit 15. */
struct virtq_position {
    uint16_t avail_idx; /**< next available entry */
    uint16_t used_idx;  /**< next used entry */
};

VIRTIO_STATIC_ASSERT(sizeof(struct virtq_slot) <= 8 + sizeof(void *), "slot budget");
VIRTIO_STATIC_ASSERT(sizeof(struct virtq_driver) <= 48, "driver state budget");
VIRTIO_STATIC_ASSERT(sizeof(struct virtq_device) <= 64, "device state budget");
/** @} */

/* ---------------------------------------------------------------------------
 * 4. Layout
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_layout Ring memory
 * @{
 */

/** Bytes of ring memory for a queue of either format in one contiguous piece whose device area
 *  starts at a multiple of `align` (a power of two >= 4): a constant expression. Legacy PCI: align
 *  4096 (L-LEG-03). */
#define VIRTQ_BYTES(num, align)                                                                    \
    (VIRTQ_ALIGN_UP_(18u * (num) + 6u, (align)) + VIRTQ_ALIGN_UP_(8u * (num) + 6u, (align)))
/** The same for a packed ring alone, which is smaller. */
#define VIRTQ_PACKED_BYTES(num, align)                                                             \
    (VIRTQ_ALIGN_UP_(16u * (num) + 4u, (align)) + VIRTQ_ALIGN_UP_(4u, (align)))
#define VIRTQ_ALIGN_UP_(x, align) (((x) + (align)-1u) & ~((align)-1u))

/** True for the queue sizes a ring with these flags can have: packed 1 to 32768, split only powers
 *  of two among them (L-SPLIT-05, L-PACK-03). Any context. */
VIRTIO_INLINE bool virtq_size_ok(uint32_t num, uint16_t flags)
{
    return num != 0 && num <= VIRTQ_MAX_SIZE && ((flags & VIRTQ_PACKED) || (num & (num - 1)) == 0);
}

/** Offsets of the areas as VIRTQ_BYTES() and VIRTQ_PACKED_BYTES() count them. `num` is a legal
 * size, `align` a power of two from 4 to 65536. Any context. L-SPLIT-04, L-LEG-03, L-PACK-03. */
VIRTIO_INLINE struct virtq_offsets virtq_area_offsets(uint16_t num, uint32_t align, uint16_t flags)
{
    struct virtq_offsets at;

    VIRTIO_ASSERT(align >= 4 && (align & (align - 1)) == 0);
    at.driver = 16u * num;
    if (flags & VIRTQ_PACKED) {
        at.device = VIRTQ_ALIGN_UP_(16u * num + 4u, align);
        at.total = VIRTQ_PACKED_BYTES((uint32_t)num, align);
    } else {
        at.device = VIRTQ_ALIGN_UP_(18u * num + 6u, align);
        at.total = VIRTQ_BYTES((uint32_t)num, align);
    }
    return at;
}

VIRTIO_INLINE void virtq_areas_place_(struct virtq_areas *areas, void *mem, uint16_t num,
                                      struct virtq_offsets at, uint16_t flags)
{
    areas->num = num;
    areas->flags = flags;
    areas->desc = mem;
    areas->driver = (uint8_t *)mem + at.driver;
    areas->device = (uint8_t *)mem + at.device;
}

/** Points `areas` into `mem`: as many bytes as virtq_area_offsets() says, aligned to `align` and
 * to 16. Any context. */
VIRTIO_INLINE void virtq_areas_set(struct virtq_areas *areas, void *mem, uint16_t num,
                                   uint32_t align, uint16_t flags)
{
    virtq_areas_place_(areas, mem, num, virtq_area_offsets(num, align, flags), flags);
}

/** Text of an error of this file, or NULL if `err` is none of them. Any context. */
VIRTIO_INLINE const char *virtq_err_name(int err)
{
    switch (err) {
    case VIRTQ_ERR_SIZE: return "queue size is not one a ring of this format can have";
    case VIRTQ_ERR_ALIGN: return "queue area missing or not aligned";
    case VIRTQ_ERR_FLAGS: return "queue properties exclude each other or are not those compiled in";
    case VIRTQ_ERR_POSITION: return "queue position is not one a ring of this size can have";
    case VIRTQ_ERR_EMPTY: return "buffer without a segment";
    case VIRTQ_ERR_LENGTH: return "buffer of 2^32 bytes or more";
    case VIRTQ_ERR_TOO_LONG: return "buffer has more segments than the queue has entries";
    case VIRTQ_ERR_FULL: return "queue full";
    case VIRTQ_ERR_BROKEN: return "queue broken, reset needed";
    case VIRTQ_ERR_USED_IDX: return "device moved the used index too far";
    case VIRTQ_ERR_USED_ID: return "device used a buffer that is not outstanding";
    case VIRTQ_ERR_USED_LEN: return "device says it wrote more than the buffer holds";
    case VIRTQ_ERR_AVAIL_IDX: return "driver made more available than the queue holds";
    case VIRTQ_ERR_AVAIL_HEAD: return "driver made a descriptor available that does not exist";
    case VIRTQ_ERR_AVAIL_LIST: return "driver made a list available that does not end";
    case VIRTQ_ERR_CHAIN_NEXT: return "chain links outside its table";
    case VIRTQ_ERR_CHAIN_LOOP: return "chain longer than its table";
    case VIRTQ_ERR_CHAIN_ORDER: return "chain has a readable segment after a writable one";
    case VIRTQ_ERR_CHAIN_LENGTH: return "chain of more than 2^32 bytes or past the address space";
    case VIRTQ_ERR_CHAIN_CAPACITY: return "chain longer than the segment array";
    case VIRTQ_ERR_INDIRECT_OFF: return "indirect table, but the feature is not negotiated";
    case VIRTQ_ERR_INDIRECT_NESTED: return "indirect table inside an indirect table";
    case VIRTQ_ERR_INDIRECT_NEXT: return "indirect table that is not the end of its chain";
    case VIRTQ_ERR_INDIRECT_LEN: return "indirect table length is 0 or no multiple of 16";
    case VIRTQ_ERR_INDIRECT_MAP: return "indirect table is not in memory";
    default: return NULL;
    }
}

/** True if virtq_device_pop() returned `err` for one malformed chain whose token it set: push the
 *  token with length 0 and go on, or give up. False for a broken queue. Any context. */
VIRTIO_INLINE bool virtq_err_names_chain(int err)
{
    return err <= VIRTQ_ERR_CHAIN_NEXT && err >= VIRTQ_ERR_INDIRECT_MAP;
}

/**
 * The event test of 2.7.10: was the entry at index `event` written while idx went from `old` to
 * `now`? The only formula for it: the spec's `(u16)(now - event - 1) < (u16)(now - old)` with both
 * sides counted from `old`. The casts make it right across 65535 (L-EVT-05). Any context.
 */
VIRTIO_INLINE bool virtq_event_due(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(event - old) < (uint16_t)(now - old);
}
/** @} */

/* ---------------------------------------------------------------------------
 * 5. Shared internals
 * --------------------------------------------------------------------------- */
enum {
    /* What queues can be, and always are. */
    VIRTQ_ALWAYS_ = (VIRTIO_RING_ALWAYS),
    VIRTQ_CAN_ = (VIRTIO_RING_FLAGS) | VIRTQ_ALWAYS_,
    /* In flags of the driver side, beside enum virtq_flag. */
    VIRTQ_HELD_ = 0x0007, /* packed: WRITE, NEXT, INDIRECT of the head held back */
    /* Elsewhere. */
    VIRTQ_EVENT_MODE_ = 3 << 16,                               /* in an event word */
    VIRTQ_WRAP_ = 0x8000,                                      /* in a packed position */
    VIRTQ_LAP_ = VIRTQ_DESC_FLAG_AVAIL | VIRTQ_DESC_FLAG_USED, /* in packed flags */
    VIRTQ_NEVER_ = 1,                                          /* what those two never are */
    VIRTQ_MORE_ = VIRTQ_DESC_FLAG_NEXT | VIRTQ_DESC_FLAG_INDIRECT /* not a chain of one */
};

/* Linkage of what both sides need on their straight path: in line, without short ways one copy. */
#if VIRTIO_FAST_PATHS
#define VIRTQ_SHARED_ VIRTIO_INLINE
#else
#define VIRTQ_SHARED_ VIRTIO_OUTLINE __attribute__((noinline))
#endif

/* Has a queue this property? Folds away where that is known. */
VIRTIO_INLINE bool virtq_has_(uint16_t flags, uint16_t flag)
{
    return (((flags & VIRTQ_CAN_) | VIRTQ_ALWAYS_) & flag) != 0;
}
VIRTIO_INLINE bool virtq_is_packed_(uint16_t flags)
{
    return virtq_has_(flags, VIRTQ_PACKED);
}

/* Ring byte order: little-endian, or under VIRTQ_LEGACY the CPU's own or the other one. Folds to
 * nothing on a little-endian CPU without VIRTQ_FOREIGN_ENDIAN. */
VIRTIO_INLINE bool virtq_swapped_(uint16_t flags)
{
    if (virtq_has_(flags, VIRTQ_FOREIGN_ENDIAN))
        return true;
    return VIRTIO_BIG_ENDIAN && !virtq_has_(flags, VIRTQ_LEGACY);
}
VIRTIO_INLINE uint16_t virtq_order16_(uint16_t flags, uint16_t value)
{
    return virtq_swapped_(flags) ? __builtin_bswap16(value) : value;
}
VIRTIO_INLINE uint32_t virtq_order32_(uint16_t flags, uint32_t value)
{
    return virtq_swapped_(flags) ? __builtin_bswap32(value) : value;
}
VIRTIO_INLINE uint64_t virtq_order64_(uint16_t flags, uint64_t value)
{
    return virtq_swapped_(flags) ? __builtin_bswap64(value) : value;
}

/* The ordered accesses, in the flavour the queue was started with. */
VIRTIO_INLINE bool virtq_platform_(uint16_t flags)
{
    return VIRTIO_HAVE_PLATFORM_FENCES && virtq_has_(flags, VIRTQ_ORDER_PLATFORM);
}
VIRTIO_INLINE uint16_t virtq_load_acquire_(uint16_t flags, const void *p)
{
    uint16_t value;

    if (!virtq_platform_(flags))
        return virtq_order16_(flags, VIRTIO_LOAD_ACQUIRE16(p));
    value = VIRTIO_LOAD_RELAXED16(p);
    VIRTIO_PLATFORM_ACQUIRE();
    return virtq_order16_(flags, value);
}
VIRTIO_INLINE void virtq_store_release_(uint16_t flags, void *p, uint16_t value)
{
    value = virtq_order16_(flags, value);
    if (!virtq_platform_(flags)) {
        VIRTIO_STORE_RELEASE16(p, value);
        return;
    }
    VIRTIO_PLATFORM_RELEASE();
    VIRTIO_STORE_RELAXED16(p, value);
}
VIRTIO_INLINE void virtq_fence_full_(uint16_t flags)
{
    if (virtq_platform_(flags))
        VIRTIO_PLATFORM_FULL();
    else
        VIRTIO_FENCE_FULL();
}

/* Replaces a word of the queue struct and returns it, with a full fence: on x86 one instruction for
 * both. It is written out, since C11 promises no order of other words around an atomic exchange. */
VIRTIO_INLINE uint16_t virtq_exchange_full_(uint16_t flags, uint16_t *word, uint16_t value)
{
    uint16_t old;

#ifdef VIRTQ_EXCHANGE_FENCES_
    if (!virtq_platform_(flags)) {
        __asm__ volatile("xchgw %0, %1" : "+r"(value), "+m"(*word) : : "memory");
        return value;
    }
#endif
    old = *word;
    *word = value;
    virtq_fence_full_(flags);
    return old;
}

/* Hints of the peer, and ours: unsynchronised words (L-EVT-08). */
VIRTIO_INLINE uint16_t virtq_hint_get_(uint16_t flags, const uint16_t *hint)
{
    return virtq_order16_(flags, VIRTIO_LOAD_RELAXED16(hint));
}
VIRTIO_INLINE void virtq_hint_set_(uint16_t flags, uint16_t *hint, uint16_t value)
{
    VIRTIO_STORE_RELAXED16(hint, virtq_order16_(flags, value));
}

/* Places inside the two split rings (L-SPLIT-02, L-SPLIT-03); the event words follow the ring's
 * *actual* size. An entry is addressed as if the two words of the header stood right before it:
 * they are then in the displacement of its accesses, and no addition of their own. */
struct virtq_avail_at_ {
    uint16_t flags, idx, head;
};
struct virtq_used_at_ {
    uint16_t flags, idx;
    struct virtq_split_used entry;
};
VIRTIO_INLINE uint16_t *virtq_avail_idx_(void *avail)
{
    return (uint16_t *)avail + 1;
}
VIRTIO_INLINE uint16_t *virtq_avail_slot_(void *avail, uint32_t last, uint32_t idx)
{
    uint16_t *at = (uint16_t *)avail + (size_t)(idx & last);

    return &((struct virtq_avail_at_ *)(void *)at)->head;
}
VIRTIO_INLINE size_t virtq_used_event_at_(size_t last)
{
    return 2 * last + 6;
}
VIRTIO_INLINE uint16_t *virtq_used_event_(void *avail, uint32_t last)
{
    return (uint16_t *)(void *)((uint8_t *)avail + virtq_used_event_at_(last));
}
VIRTIO_INLINE uint16_t *virtq_used_idx_(void *used)
{
    return (uint16_t *)used + 1;
}
VIRTIO_INLINE struct virtq_split_used *virtq_used_slot_(void *used, uint32_t last, uint32_t idx)
{
    struct virtq_split_used *at = (struct virtq_split_used *)used + (size_t)(idx & last);

    return &((struct virtq_used_at_ *)(void *)at)->entry;
}
VIRTIO_INLINE size_t virtq_avail_event_at_(size_t last)
{
    return 8 * last + 12;
}
VIRTIO_INLINE uint16_t *virtq_avail_event_(void *used, uint32_t last)
{
    return (uint16_t *)(void *)((uint8_t *)used + virtq_avail_event_at_(last));
}

/* Between the stores of two neighbours: to merge them costs more than the second store. */
VIRTIO_INLINE void virtq_apart_(uint16_t *p)
{
    __asm__ volatile("" : "+m"(*p));
}

/* First in a rare branch: keeps the compiler from computing it along with the common one. */
VIRTIO_INLINE void virtq_rarely_(void)
{
    __asm__ volatile("");
}

/* Packed positions: slot in bits 14:0, wrap counter in bit 15. */
VIRTIO_INLINE uint32_t virtq_pos_slot_(uint32_t pos)
{
    return pos & (VIRTQ_MAX_SIZE - 1);
}
VIRTIO_INLINE struct virtq_packed_desc *virtq_pos_desc_(void *ring, uint32_t pos)
{
    return (struct virtq_packed_desc *)ring + virtq_pos_slot_(pos);
}

/* One slot on. */
VIRTIO_INLINE uint16_t virtq_pos_next_(uint32_t pos, uint32_t last)
{
    if (VIRTIO_UNLIKELY(virtq_pos_slot_(pos) == last)) {
        virtq_rarely_();
        return (uint16_t)(~pos & VIRTQ_WRAP_);
    }
    return (uint16_t)(pos + 1);
}

/* `count` slots on, one lap at most. A list that ends exactly at the ring's end flips the wrap
 * counter as well (T-61). */
VIRTIO_INLINE uint32_t virtq_pos_add_(uint32_t pos, uint32_t last, uint32_t count)
{
    if (VIRTIO_UNLIKELY(virtq_pos_slot_(pos) + count > last))
        return (pos + count - last - 1) ^ VIRTQ_WRAP_;
    return pos + count;
}

/* Slots from one position on to another, one lap at most. */
VIRTIO_INLINE uint32_t virtq_pos_distance_(uint32_t from, uint32_t to, uint32_t last)
{
    uint32_t slots = virtq_pos_slot_(to) - virtq_pos_slot_(from);

    return (from ^ to) & VIRTQ_WRAP_ ? slots + last + 1 : slots;
}

/* AVAIL and USED of a used and of an available descriptor at `pos` (L-PACK-05): both the wrap
 * counter, and USED the other way. */
VIRTIO_INLINE uint32_t virtq_pos_used_(uint32_t pos)
{
    return (uint32_t)(int16_t)pos >> 16 & VIRTQ_LAP_;
}
VIRTIO_INLINE uint32_t virtq_pos_avail_(uint32_t pos)
{
    return virtq_pos_used_(pos) ^ VIRTQ_DESC_FLAG_USED;
}

/* As virtq_pos_add_(), by one slot and `more`, for a side that exposes these slots and last decided
 * at `decided` to notify. Positions do not reach over two laps: at the end of one, a decision from
 * before its start moves up to there. The peer cannot wait for a slot of longer ago: it was done
 * with all of them before they were exposed again. */
VIRTIO_INLINE uint16_t virtq_pos_expose_(uint32_t pos, uint32_t last, uint32_t more,
                                         uint16_t *decided)
{
    uint32_t slot = virtq_pos_slot_(pos) + more;

    if (VIRTIO_UNLIKELY(slot >= last)) {
        virtq_rarely_();
        if ((*decided ^ pos) & VIRTQ_WRAP_)
            *decided = pos & VIRTQ_WRAP_;
        return (uint16_t)((slot - last) | (~pos & VIRTQ_WRAP_));
    }
    return (uint16_t)(pos + more + 1);
}

/* The word of a split area by which its writer says when it wants to be told: the event index, at
 * byte `at`, or without EVENT_IDX the flags. */
VIRTIO_INLINE uint16_t *virtq_split_hint_(uint16_t flags, void *area, size_t at)
{
    return (uint16_t *)(void *)((uint8_t *)area + (virtq_has_(flags, VIRTQ_EVENT_IDX) ? at : 0));
}

/* Asks the peer, in the area that this side writes, for a notification at the entry or slot
 * `event`, without EVENT_IDX at any (ENABLE); or for none (DISABLE), which in a split ring with
 * EVENT_IDX only an `event` that lies behind says, since the flag must stay 0 (D-EVT-07). */
VIRTIO_INLINE void virtq_notify_ask_(uint16_t flags, void *area, size_t at, uint32_t mode,
                                     uint32_t event)
{
    bool events = virtq_has_(flags, VIRTQ_EVENT_IDX);

    if (!virtq_is_packed_(flags)) { /* the flag is 0 and 1 as the mode is */
        virtq_hint_set_(flags, virtq_split_hint_(flags, area, at),
                        (uint16_t)(events ? event : mode));
        return;
    }
    mode = events && mode == VIRTQ_EVENT_ENABLE ? VIRTQ_EVENT_DESC << 16 | event : mode << 16;
    /* One store for mode and position: no mixture is ever seen (D-PEVT-02). */
    VIRTIO_STORE_RELAXED32(area, virtq_order32_(flags, mode));
}

/* The entry that the peer, which writes `area`, waits for: its event index, or without EVENT_IDX
 * the one at `old`, or if it wants none the one behind. NO_IRQ and NO_KICK are the same bit. */
VIRTIO_INLINE uint16_t virtq_split_event_(uint16_t flags, void *area, size_t at, uint16_t old)
{
    uint16_t hint = virtq_hint_get_(flags, virtq_split_hint_(flags, area, at));

    if (virtq_has_(flags, VIRTQ_EVENT_IDX))
        return hint;
    return (uint16_t)(old - (hint & VIRTQ_USED_FLAG_NO_KICK));
}

/* The same of a packed ring. The reserved mode counts as enabled (D-PEVT-03). */
VIRTIO_INLINE uint16_t virtq_packed_event_(uint16_t flags, const void *area, uint16_t old)
{
    uint32_t event = virtq_order32_(flags, VIRTIO_LOAD_RELAXED32(area));

    if ((event & VIRTQ_EVENT_MODE_) == VIRTQ_EVENT_DISABLE << 16)
        return (uint16_t)(old - 1);
    return (event & VIRTQ_EVENT_MODE_) == VIRTQ_EVENT_DESC << 16 ? (uint16_t)event : old;
}

/* Must the peer of a packed ring be told (2.8.10)? The test is the split one: as 16-bit numbers,
 * positions are in order over two laps and go round. */
VIRTQ_SHARED_ bool virtq_packed_due_(uint16_t flags, const void *area, uint16_t now, uint16_t old)
{
    return virtq_event_due(virtq_packed_event_(flags, area, old), now, old);
}

/* Must the peer be told of what was exposed from `old` to `now`? */
VIRTIO_INLINE bool virtq_notify_due_(uint16_t flags, void *area, size_t at, uint16_t now,
                                     uint16_t old)
{
    if (virtq_is_packed_(flags))
        return virtq_packed_due_(flags, area, now, old);
    return virtq_event_due(virtq_split_event_(flags, area, at, old), now, old);
}

/* Is this a position of a ring of this format and size? */
VIRTIO_INLINE bool virtq_position_ok_(struct virtq_position at, uint16_t last, uint16_t flags)
{
    uint32_t avail = at.avail_idx, used = at.used_idx;

    if (!virtq_is_packed_(flags))
        return (uint16_t)(avail - used) <= last + 1u;
    return virtq_pos_slot_(avail) <= last && virtq_pos_slot_(used) <= last &&
           virtq_pos_distance_(used, avail, last) <= last + 1u;
}

VIRTIO_INLINE bool virtq_misaligned_(const struct virtq_areas *areas)
{
    uintptr_t driver = (uintptr_t)areas->driver & (areas->flags & VIRTQ_PACKED ? 3 : 1);

    return (((uintptr_t)areas->desc & 15) | driver | ((uintptr_t)areas->device & 3)) != 0;
}
VIRTIO_INLINE bool virtq_flags_ok_(uint16_t flags)
{
    if ((flags & ~(uint32_t)VIRTQ_CAN_) != 0 || (~(uint32_t)flags & VIRTQ_ALWAYS_) != 0)
        return false;
    return flags & VIRTQ_LEGACY ? !(flags & (VIRTQ_PACKED | VIRTQ_IN_ORDER))
                                : !(flags & VIRTQ_FOREIGN_ENDIAN);
}
VIRTIO_INLINE int virtq_check_areas_(const struct virtq_areas *areas)
{
    if (!virtq_flags_ok_(areas->flags))
        return VIRTQ_ERR_FLAGS;
    if (!virtq_size_ok(areas->num, areas->flags))
        return VIRTQ_ERR_SIZE;
    if (areas->desc == NULL || areas->driver == NULL || areas->device == NULL ||
        virtq_misaligned_(areas))
        return VIRTQ_ERR_ALIGN;
    return 0;
}

#if VIRTIO_HAVE_DRIVER
/* ---------------------------------------------------------------------------
 * 6. Driver side, what both formats share
 * --------------------------------------------------------------------------- */
/* Nothing is added any more, so that free_head has room for the cause, which is no slot's number;
 * nothing is published, and nothing is looked for. */
VIRTIO_OUTLINE __attribute__((noinline)) int virtq_driver_broken_by_(struct virtq_driver *q,
                                                                     int err)
{
    q->free_count = 0;
    q->free_head = (uint16_t)err;
    q->added_idx = q->taken_idx = q->published_idx;
    return err;
}
VIRTIO_INLINE bool virtq_driver_is_broken_(const struct virtq_driver *q)
{
    return q->free_head >= VIRTQ_MAX_SIZE;
}

/* Why `count` descriptors cannot be added. */
VIRTIO_OUTLINE int virtq_driver_no_room_(const struct virtq_driver *q, uint32_t count)
{
    if (virtq_driver_is_broken_(q))
        return VIRTQ_ERR_BROKEN;
    if (count == 0)
        return VIRTQ_ERR_EMPTY;
    return count - 1 > q->last ? VIRTQ_ERR_TOO_LONG : VIRTQ_ERR_FULL;
}

/* Fills address and length of a descriptor of either format; nothing is visible before publish. */
VIRTIO_INLINE void virtq_desc_fill_(struct virtq_split_desc *desc, uint16_t order,
                                    const struct virtq_seg *seg)
{
    VIRTIO_STORE64(&desc->addr, virtq_order64_(order, seg->addr));
    VIRTIO_STORE32(&desc->len, virtq_order32_(order, seg->len));
}

/* Marks the slot of a buffer's head. */
VIRTIO_INLINE void virtq_slot_take_(struct virtq_slot *slot, uint32_t count, uint32_t writable,
                                    void *cookie)
{
    slot->cookie = cookie;
    slot->writable = writable;
    slot->count = (uint16_t)count;
}

/* Hands out the buffer whose head is `slot`, and puts what it held back on the free list: from
 * `first`, the id (packed) or what follows the head in the ring of links (split), to the head. By
 * private links only (D-SPLIT-13); IN_ORDER, whose links are as they have to be, leaves them.
 * Returns 1, as every take that hands out a buffer. */
VIRTIO_INLINE int virtq_driver_complete_(struct virtq_driver *q, struct virtq_slot *slot,
                                         uint32_t first, struct virtq_done *done)
{
    done->cookie = slot->cookie;
    q->free_count = (uint16_t)(q->free_count + slot->count);
    slot->count = 0;
    if (virtq_has_(q->flags, VIRTQ_IN_ORDER))
        return 1;
    slot->next = q->free_head;
    q->free_head = (uint16_t)first;
    return 1;
}

enum {
    VIRTQ_MARK_ = 0x8000 /* in virtq_slot::next, IN_ORDER: known to be complete */
};

/* IN_ORDER: the buffer that completes next. */
VIRTIO_INLINE uint32_t virtq_driver_oldest_(const struct virtq_driver *q)
{
    return virtq_is_packed_(q->flags) ? virtq_pos_slot_(q->taken_idx)
                                      : ((uint32_t)q->free_head + q->free_count) & q->last;
}

/* IN_ORDER: is that one known to be complete? */
VIRTIO_INLINE bool virtq_driver_marked_(const struct virtq_driver *q)
{
    return virtq_has_(q->flags, VIRTQ_IN_ORDER) &&
           VIRTIO_UNLIKELY(q->slots[virtq_driver_oldest_(q)].next & VIRTQ_MARK_);
}

/* Hands out buffer `id`, with IN_ORDER the oldest one, with what its slot says was written. */
VIRTIO_OUTLINE int virtq_driver_complete_next_(struct virtq_driver *q, uint32_t id,
                                               struct virtq_done *done)
{
    bool packed = virtq_is_packed_(q->flags);
    struct virtq_slot *slot;

    if (virtq_has_(q->flags, VIRTQ_IN_ORDER))
        id = virtq_driver_oldest_(q);
    slot = &q->slots[id];
    if (virtq_has_(q->flags, VIRTQ_IN_ORDER))
        slot->next &= (uint16_t)~VIRTQ_MARK_;
    done->written = slot->writable;
    q->taken_idx = (uint16_t)(packed ? virtq_pos_add_(q->taken_idx, q->last, slot->count)
                                     : q->taken_idx + 1u); /* D-PACK-10, T-67 */
    return virtq_driver_complete_(q, slot, packed ? id : slot->next, done);
}

/* Published buffers that are not taken, in a packed ring their descriptors. */
VIRTIO_INLINE uint32_t virtq_driver_outstanding_(const struct virtq_driver *q)
{
    return virtq_is_packed_(q->flags)
               ? virtq_pos_distance_(q->taken_idx, q->published_idx, q->last)
               : (uint16_t)(q->published_idx - q->taken_idx);
}

/* IN_ORDER: marks the outstanding buffers up to `id`, from head to head; false if it is none. Ends:
 * no more of them than there are. */
VIRTIO_OUTLINE bool virtq_driver_mark_(struct virtq_driver *q, uint32_t id)
{
    bool packed = virtq_is_packed_(q->flags);
    uint32_t at = virtq_driver_oldest_(q), left = virtq_driver_outstanding_(q), last = q->last;

    for (;;) {
        struct virtq_slot *slot = &q->slots[at];
        uint32_t count = slot->count, passed = packed ? count : 1;

        slot->next |= VIRTQ_MARK_;
        if (at == id)
            return true;
        if (left <= passed)
            return false;
        left -= passed;
        at += count;
        at -= at > last ? last + 1 : 0;
    }
}

/* Is `id` an outstanding buffer? IN_ORDER: and if so, all up to it are complete. */
VIRTIO_INLINE bool virtq_driver_is_out_(struct virtq_driver *q, uint32_t id)
{
    uint32_t count, next;

    if (virtq_has_(q->flags, VIRTQ_IN_ORDER))
        return virtq_driver_mark_(q, id);
    if (id > q->last)
        return false;
    count = q->slots[id].count;
    if (!virtq_is_packed_(q->flags))
        return count != 0;
    /* If taking it leaves less than there is: with no descriptors it leaves all, and with more than
     * there are, positions being in order over two laps, it wraps to above that. */
    next = virtq_pos_add_(q->taken_idx, q->last, count);
    return (uint16_t)(q->published_idx - next) < (uint16_t)(q->published_idx - q->taken_idx);
}

/* The device says that it used buffer `id`: the general case. IN_ORDER: and thereby all up to it
 * from the oldest one on; only the named one's length is known, the others count as written in full
 * (D-INO-01, D-INO-04). Where `len` is not `sure` it counts if it can be true. */
VIRTIO_OUTLINE int virtq_driver_complete_any_(struct virtq_driver *q, uint32_t id, uint32_t len,
                                              bool sure, struct virtq_done *done)
{
    struct virtq_slot *slot;

    if (!virtq_driver_is_out_(q, id))
        return virtq_driver_broken_by_(q, VIRTQ_ERR_USED_ID);
    slot = &q->slots[id];
    if (len <= slot->writable)
        slot->writable = len;
    else if (!sure)
        slot->writable = 0;
    else if (!virtq_has_(q->flags, VIRTQ_LEGACY)) /* whose reports one cannot rely on (D-LEG-06) */
        return virtq_driver_broken_by_(q, VIRTQ_ERR_USED_LEN);
    return virtq_driver_complete_next_(q, id, done);
}

/* The straight path: how many descriptors has outstanding buffer `id`? 0 if it is none, or not the
 * oldest one where there is an order, or if `len` is more than it holds. `last` is the queue's,
 * which the caller may have at hand. */
VIRTIO_INLINE uint32_t virtq_driver_plain_(const struct virtq_driver *q, const uint16_t *last,
                                           uint32_t id, uint32_t len)
{
    bool in_order = virtq_has_(q->flags, VIRTQ_IN_ORDER);

    if (!VIRTIO_FAST_PATHS ||
        VIRTIO_UNLIKELY(in_order ? id != virtq_driver_oldest_(q) : id > *last) ||
        VIRTIO_UNLIKELY(len > q->slots[id].writable))
        return 0;
    return q->slots[id].count;
}

/* ---------------------------------------------------------------------------
 * 7. Split ring, driver side
 * --------------------------------------------------------------------------- */
/* Queues the chain of `count` filled descriptors from free_head to `tail` in the available ring.
 * The links of their slots become a ring: completion cuts it behind the head, without a walk. */
VIRTIO_INLINE void virtq_split_queue_(struct virtq_driver *q, uint32_t count,
                                      struct virtq_slot *tail)
{
    uint32_t head = q->free_head, at = q->added_idx;

    q->free_head = tail->next;
    if (!virtq_has_(q->flags, VIRTQ_IN_ORDER))
        tail->next = (uint16_t)head;
    q->free_count = (uint16_t)(q->free_count - count);
    q->added_idx = (uint16_t)(at + 1);
    VIRTIO_STORE16(virtq_avail_slot_(q->driver, q->last, at),
                   virtq_order16_(q->flags, (uint16_t)head));
}

VIRTIO_INLINE void virtq_split_add_one_(struct virtq_driver *q, struct virtq_seg seg,
                                        uint16_t desc_flags, uint32_t writable, void *cookie)
{
    struct virtq_split_desc *desc = (struct virtq_split_desc *)q->desc + q->free_head;
    struct virtq_slot *slot = &q->slots[q->free_head];

    virtq_slot_take_(slot, 1, writable, cookie);
    virtq_split_queue_(q, 1, slot);
    virtq_desc_fill_(desc, q->flags, &seg);
    VIRTIO_STORE16(&desc->flags, virtq_order16_(q->flags, desc_flags));
}

/* Writes a buffer's descriptors along the free list; returns the slot of the last. `extra` flags go
 * to all of them. With IN_ORDER the links are x+1 for all x, as the rule asks (D-INO-02). */
VIRTIO_INLINE struct virtq_slot *
virtq_split_fill_(const struct virtq_driver *q, const struct virtq_buffer *buffer, uint16_t extra)
{
    const struct virtq_seg *seg = buffer->seg;
    struct virtq_slot *slots = q->slots, *slot;
    struct virtq_split_desc *desc;
    uint32_t readable = buffer->readable, count = readable + buffer->writable, i = 0;
    uint32_t at = q->free_head, flags = extra | VIRTQ_DESC_FLAG_NEXT;
    uint16_t order = q->flags;

    do {
        if (i == readable)
            flags |= VIRTQ_DESC_FLAG_WRITE;
        desc = (struct virtq_split_desc *)q->desc + at;
        slot = &slots[at];
        at = slot->next;
        virtq_desc_fill_(desc, order, seg++);
        VIRTIO_STORE16(&desc->next, virtq_order16_(order, (uint16_t)at));
        if (++i == count)
            flags -= VIRTQ_DESC_FLAG_NEXT;
        virtq_apart_(&desc->next);
        VIRTIO_STORE16(&desc->flags, virtq_order16_(order, (uint16_t)flags));
    } while (i != count);
    return slot;
}

VIRTIO_INLINE void virtq_split_add_(struct virtq_driver *q, const struct virtq_buffer *buffer,
                                    uint16_t extra, uint32_t writable, void *cookie)
{
    uint32_t count = (uint32_t)buffer->readable + buffer->writable;
    struct virtq_slot *tail;

    virtq_slot_take_(&q->slots[q->free_head], count, writable, cookie);
    tail = virtq_split_fill_(q, buffer, extra);
    virtq_split_queue_(q, count, tail);
}

VIRTIO_INLINE void virtq_split_publish_(struct virtq_driver *q)
{
    uint16_t idx = q->added_idx;

    q->published_idx = idx;
    /* [A] pairs with virtq_split_avail_idx_(): descriptors and ring slots before the index. */
    virtq_store_release_(q->flags, virtq_avail_idx_(q->driver), idx);
}

/* Completions that the device has published and the caller has not taken. [B] pairs with
 * virtq_split_flush_(): the index before the entries and the data. */
VIRTIO_INLINE uint16_t virtq_split_used_pending_(const struct virtq_driver *q)
{
    uint16_t taken = q->taken_idx;

    return (uint16_t)(virtq_load_acquire_(q->flags, virtq_used_idx_(q->device)) - taken);
}

/* What `pending` completions mean when they are none, or more than there are buffers. */
VIRTIO_OUTLINE int virtq_split_take_none_(struct virtq_driver *q, uint16_t pending)
{
    if (virtq_driver_is_broken_(q))
        return VIRTQ_ERR_BROKEN;
    return pending == 0 ? 0 : virtq_driver_broken_by_(q, VIRTQ_ERR_USED_IDX);
}

/* Takes the next of the completions that are known to be there. */
VIRTIO_INLINE int virtq_split_take_next_(struct virtq_driver *q,
                                         const struct virtq_split_used *entry, uint16_t last,
                                         struct virtq_done *done)
{
    uint32_t id, len;

    if (virtq_driver_marked_(q))
        return virtq_driver_complete_next_(q, 0, done);
    id = virtq_order32_(q->flags, VIRTIO_LOAD32(&entry->id));
    len = virtq_order32_(q->flags, VIRTIO_LOAD32(&entry->len));
    if (VIRTIO_UNLIKELY(virtq_driver_plain_(q, &last, id, len) == 0))
        return virtq_driver_complete_any_(q, id, len, true, done);
    q->taken_idx++;
    done->written = len;
    return virtq_driver_complete_(q, &q->slots[id], q->slots[id].next, done);
}

/* Can completions be taken, and how many? 1..outstanding leave outstanding-1..0 of them; with none
 * all are left, and more than there are wrap to above that. */
VIRTIO_INLINE bool virtq_split_take_ready_(const struct virtq_driver *q, uint16_t *pending)
{
    uint16_t outstanding = (uint16_t)(q->published_idx - q->taken_idx);

    *pending = virtq_split_used_pending_(q);
    return VIRTIO_LIKELY((uint16_t)(outstanding - *pending) < outstanding);
}

/* ---------------------------------------------------------------------------
 * 8. Packed ring, driver side
 * --------------------------------------------------------------------------- */
/* Is this the first head since the last publish? It is held back then: the device cannot look past
 * it, so that all others can be written at once (D-PACK-04). */
VIRTIO_INLINE bool virtq_packed_hold_(struct virtq_driver *q, uint32_t desc_flags, uint32_t pos)
{
    if (pos != q->published_idx)
        return false;
    q->flags = (uint16_t)((q->flags & (uint16_t)~VIRTQ_HELD_) | (desc_flags & VIRTQ_HELD_));
    return true;
}

VIRTIO_INLINE void virtq_packed_add_one_(struct virtq_driver *q, struct virtq_seg seg,
                                         uint16_t desc_flags, uint32_t writable, void *cookie)
{
    uint32_t id = q->free_head, pos = q->added_idx;
    struct virtq_packed_desc *desc = virtq_pos_desc_(q->desc, pos);
    struct virtq_slot *slot = &q->slots[id];

    virtq_slot_take_(slot, 1, writable, cookie);
    q->free_head = slot->next;
    q->free_count--;
    q->added_idx = virtq_pos_expose_(pos, q->last, 0, &q->kicked_idx);
    virtq_desc_fill_((struct virtq_split_desc *)(void *)desc, q->flags, &seg);
    VIRTIO_STORE16(&desc->id, virtq_order16_(q->flags, (uint16_t)id));
    if (!virtq_packed_hold_(q, desc_flags, pos))
        VIRTIO_STORE16(&desc->flags,
                       virtq_order16_(q->flags, (uint16_t)(desc_flags | virtq_pos_avail_(pos))));
}

/* Writes the descriptors of a buffer from added_idx on, the last one first: the head, which may
 * have to be held back, then comes with its flags at the end. AVAIL and USED change where it wraps
 * (D-PACK-05, T-62), and the last one ends the list. `extra` flags go to all. */
VIRTIO_INLINE void virtq_packed_add_(struct virtq_driver *q, const struct virtq_buffer *buffer,
                                     uint16_t extra, uint32_t writable, void *cookie)
{
    const struct virtq_seg *seg = buffer->seg;
    uint32_t readable = buffer->readable, i = readable + buffer->writable, last = q->last;
    uint32_t pos = q->added_idx, id = q->free_head, slot, flags;
    uint16_t order = q->flags;
    struct virtq_packed_desc *desc;

    virtq_slot_take_(&q->slots[id], i, writable, cookie);
    q->free_count = (uint16_t)(q->free_count - i);
    q->added_idx = virtq_pos_expose_(pos, last, i - 1, &q->kicked_idx);
    slot = virtq_pos_slot_(q->added_idx);
    flags = virtq_pos_avail_(q->added_idx) | extra | VIRTQ_DESC_FLAG_WRITE;
    /* IN_ORDER: a buffer's id is the slot of its head, so that ids follow the ring. */
    q->free_head = virtq_has_(order, VIRTQ_IN_ORDER) ? (uint16_t)slot : q->slots[id].next;
    do {
        if (VIRTIO_UNLIKELY(slot-- == 0)) {
            slot = last;
            flags ^= VIRTQ_LAP_;
        }
        if (i-- == readable)
            flags &= ~(uint32_t)VIRTQ_DESC_FLAG_WRITE;
        desc = (struct virtq_packed_desc *)q->desc + slot;
        virtq_desc_fill_((struct virtq_split_desc *)(void *)desc, order, &seg[i]);
        VIRTIO_STORE16(&desc->id, virtq_order16_(order, (uint16_t)id));
        if (i != 0 || !virtq_packed_hold_(q, flags, pos))
            VIRTIO_STORE16(&desc->flags, virtq_order16_(order, (uint16_t)flags));
        flags |= VIRTQ_DESC_FLAG_NEXT;
    } while (i != 0);
}

VIRTIO_INLINE void virtq_packed_publish_(struct virtq_driver *q)
{
    uint32_t pos = q->published_idx, end = q->added_idx;
    uint16_t flags = q->flags, head = (uint16_t)((flags & VIRTQ_HELD_) | virtq_pos_avail_(pos));

    if (pos == end)
        return;
    q->published_idx = (uint16_t)end;
    /* [A] pairs with virtq_packed_avail_flags_(): all descriptors before the first head. */
    virtq_store_release_(flags, &virtq_pos_desc_(q->desc, pos)->flags, head);
}

/* Flags of the next used descriptor, or -1 if it is not used yet. [B] pairs with
 * virtq_packed_flush_(): the flags before id, length and data. */
VIRTIO_INLINE int32_t virtq_packed_used_flags_(const struct virtq_driver *q, uint32_t pos)
{
    uint16_t flags = virtq_load_acquire_(q->flags, &virtq_pos_desc_(q->desc, pos)->flags);

    return ((flags ^ virtq_pos_used_(pos)) & VIRTQ_LAP_) == 0 ? flags : -1;
}

VIRTIO_INLINE int virtq_packed_take_(struct virtq_driver *q, struct virtq_done *done)
{
    uint32_t pos = q->taken_idx, id, len;
    const struct virtq_packed_desc *desc = virtq_pos_desc_(q->desc, pos);
    int32_t flags;

    if (pos == q->published_idx) /* nothing is out: what the flags say is of another lap (T-65) */
        return virtq_driver_is_broken_(q) ? VIRTQ_ERR_BROKEN : 0;
    if (virtq_driver_marked_(q))
        return virtq_driver_complete_next_(q, 0, done);
    flags = virtq_packed_used_flags_(q, pos);
    if (flags < 0)
        return 0;
    id = virtq_order16_(q->flags, VIRTIO_LOAD16(&desc->id));
    len = virtq_order32_(q->flags, VIRTIO_LOAD32(&desc->len));
    /* Without WRITE the length means nothing, says the specification (D-PACK-11, T-68); but QEMU
     * never sets it and Linux never looks at it, so that it counts where it can be true. */
    if (VIRTIO_UNLIKELY(virtq_driver_plain_(q, &q->last, id, len) != 1))
        return virtq_driver_complete_any_(q, id, len, flags & VIRTQ_DESC_FLAG_WRITE, done);
    q->taken_idx = virtq_pos_next_(pos, q->last);
    done->written = len;
    return virtq_driver_complete_(q, &q->slots[id], id, done);
}

/* ---------------------------------------------------------------------------
 * 9. Driver side
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_driver Ring, driver side
 * Serialise all calls on one queue side; the device may run at any time. The device is not
 * trusted: whatever it writes, the functions return, touch only their own memory and the three
 * areas, and hand out no cookie twice. A violation breaks the queue: add and take then say
 * VIRTQ_ERR_BROKEN and nothing is exposed until virtq_driver_init(); virtq_driver_detach() still
 * returns the cookies.
 * @{
 */

VIRTIO_INLINE void virtq_driver_zero_(void *area, size_t bytes)
{
    uint8_t *byte = (uint8_t *)area, *end = byte + bytes;

    while (byte != end)
        VIRTIO_STORE8(byte++, 0); /* volatile: must not become a libc call */
}

/* All descriptors free, linked in ring order and round: IN_ORDER never changes these links. */
VIRTIO_INLINE void virtq_driver_free_all_(struct virtq_driver *q)
{
    uint32_t next = 0, i = q->last;

    q->free_head = 0;
    q->free_count = (uint16_t)(i + 1);
    for (;; i--) {
        struct virtq_slot *slot = &q->slots[i];

        slot->writable = slot->count = 0;
        slot->next = (uint16_t)next;
        next = i;
        if (i == 0)
            break;
    }
}

/**
 * Starts a queue: checks and zeroes the areas (D-SPLIT-07, D-PACK-01). Call before the device
 * learns of them, and again after a reset of the device or of the queue, with any size.
 * @param slots  array of areas->num, kept and used until the queue is given up
 * @return 0, VIRTQ_ERR_FLAGS, VIRTQ_ERR_SIZE or VIRTQ_ERR_ALIGN (nothing changed)
 */
VIRTIO_NODISCARD VIRTIO_INLINE int
virtq_driver_init(struct virtq_driver *q, const struct virtq_areas *areas, struct virtq_slot *slots)
{
    bool packed = virtq_is_packed_(areas->flags);
    int err = virtq_check_areas_(areas);

    if (err != 0)
        return err;
    q->desc = areas->desc;
    q->driver = areas->driver;
    q->device = areas->device;
    q->slots = slots;
    q->last = (uint16_t)(areas->num - 1);
    q->flags = areas->flags;
    virtq_driver_zero_(areas->desc, 16u * (size_t)areas->num);
    virtq_driver_zero_(areas->driver, packed ? 4u : 6u + 2u * (size_t)areas->num);
    virtq_driver_zero_(areas->device, packed ? 4u : 6u + 8u * (size_t)areas->num);
    virtq_driver_free_all_(q);
    q->added_idx = packed ? VIRTQ_WRAP_ : 0; /* L-PACK-04 */
    q->kicked_idx = q->published_idx = q->taken_idx = q->added_idx;
    return 0;
}

/** Free descriptors: a direct buffer takes one per segment, an indirect one takes one. */
VIRTIO_INLINE uint16_t virtq_driver_free_count(const struct virtq_driver *q)
{
    return q->free_count;
}

/** 0, or the error by which the device broke the queue. VIRTQ_ERR_BROKEN: it was detached. */
VIRTIO_INLINE int virtq_driver_error(const struct virtq_driver *q)
{
    return virtq_driver_is_broken_(q) ? (int16_t)q->free_head : 0;
}

/* Adds a buffer for which there is room. `extra` descriptor flags go to all of it. */
VIRTIO_INLINE void virtq_driver_add_any_(struct virtq_driver *q, const struct virtq_buffer *buffer,
                                         uint16_t extra, uint32_t writable, void *cookie)
{
    if (virtq_is_packed_(q->flags))
        virtq_packed_add_(q, buffer, extra, writable, cookie);
    else
        virtq_split_add_(q, buffer, extra, writable, cookie);
}

/* The same for one segment. */
VIRTIO_INLINE void virtq_driver_add_one_(struct virtq_driver *q, struct virtq_seg seg,
                                         uint16_t desc_flags, uint32_t writable, void *cookie)
{
    struct virtq_buffer buffer;

    if (VIRTIO_FAST_PATHS) {
        if (virtq_is_packed_(q->flags))
            virtq_packed_add_one_(q, seg, desc_flags, writable, cookie);
        else
            virtq_split_add_one_(q, seg, desc_flags, writable, cookie);
        return;
    }
    buffer.seg = &seg;
    buffer.writable = desc_flags & VIRTQ_DESC_FLAG_WRITE ? 1 : 0;
    buffer.readable = (uint16_t)(1 - buffer.writable);
    virtq_driver_add_any_(q, &buffer, desc_flags, writable, cookie);
}

/** Adds a buffer of one segment that the device reads. Straight-line code; see virtq_driver_add().
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add_readable(struct virtq_driver *q,
                                                             struct virtq_seg seg, void *cookie)
{
    if (VIRTIO_UNLIKELY(q->free_count == 0))
        return virtq_driver_no_room_(q, 1);
    virtq_driver_add_one_(q, seg, 0, 0, cookie);
    return 0;
}

/** Adds a buffer of one segment that the device writes. Straight-line code; see
 *  virtq_driver_add(). */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add_writable(struct virtq_driver *q,
                                                             struct virtq_seg seg, void *cookie)
{
    if (VIRTIO_UNLIKELY(q->free_count == 0))
        return virtq_driver_no_room_(q, 1);
    virtq_driver_add_one_(q, seg, VIRTQ_DESC_FLAG_WRITE, seg.len, cookie);
    return 0;
}

/* An indirect table of either format, from its end: packed tables have no links, so that the id
 * field that a split table uses for them is reserved (D-IND-03, D-IND-06, D-IND-08, D-INO-03). */
VIRTIO_INLINE void virtq_table_write_(uint16_t order, const struct virtq_table *table,
                                      const struct virtq_buffer *buffer)
{
    struct virtq_split_desc *desc = (struct virtq_split_desc *)table->mem;
    const struct virtq_seg *seg = buffer->seg;
    uint32_t readable = buffer->readable, i = readable + buffer->writable, link = 0;
    bool packed = virtq_is_packed_(order);

    do {
        uint32_t flags = link != 0 ? VIRTQ_DESC_FLAG_NEXT : 0;

        if (--i >= readable)
            flags |= VIRTQ_DESC_FLAG_WRITE;
        virtq_desc_fill_(&desc[i], order, &seg[i]);
        VIRTIO_STORE16(packed ? &desc[i].next : &desc[i].flags,
                       virtq_order16_(order, (uint16_t)flags));
        VIRTIO_STORE16(packed ? &desc[i].flags : &desc[i].next,
                       virtq_order16_(order, (uint16_t)link));
        if (!packed)
            link = i;
    } while (i != 0);
}

/* Checks a buffer that needs `count` descriptors, and sums its writable bytes into *writable: from
 * the last segment on, so that the sum at the first writable one is theirs. */
VIRTIO_INLINE int virtq_buffer_check_(const struct virtq_driver *q,
                                      const struct virtq_buffer *buffer, uint32_t count,
                                      uint32_t *writable)
{
    const struct virtq_seg *seg = buffer->seg;
    uint32_t readable = buffer->readable, i = readable + buffer->writable, total = 0;

    *writable = 0;
    if (VIRTIO_UNLIKELY(count - 1 >= q->free_count))
        return virtq_driver_no_room_(q, i);
    do {
        uint32_t len = seg[--i].len;

        total += len;
        if (VIRTIO_UNLIKELY(total < len))
            return VIRTQ_ERR_LENGTH;
        if (i == readable)
            *writable = total;
    } while (i != 0);
    return 0;
}

/* Adds a buffer through a table that can hold it. Without short ways also one for which `table` is
 * NULL, directly. */
VIRTIO_INLINE int virtq_driver_add_through_(struct virtq_driver *q,
                                            const struct virtq_buffer *buffer,
                                            const struct virtq_table *table, void *cookie)
{
    uint32_t count = (uint32_t)buffer->readable + buffer->writable, writable;
    int err = virtq_buffer_check_(q, buffer, table != NULL ? 1 : count, &writable);
    struct virtq_seg whole;

    if (VIRTIO_UNLIKELY(err != 0))
        return err;
    if (!VIRTIO_FAST_PATHS && table == NULL) {
        virtq_driver_add_any_(q, buffer, 0, writable, cookie);
        return 0;
    }
    virtq_table_write_(q->flags, table, buffer);
    whole.addr = table->addr;
    whole.len = count * (uint32_t)sizeof(struct virtq_split_desc);
    virtq_driver_add_one_(q, whole, VIRTQ_DESC_FLAG_INDIRECT, writable, cookie);
    return 0;
}

/**
 * Adds a buffer: readable segments first, then writable ones, one descriptor each. The device sees
 * nothing of it before virtq_driver_publish().
 * @param cookie  handed back by take or detach; any value
 * @return 0; VIRTQ_ERR_FULL; VIRTQ_ERR_EMPTY, VIRTQ_ERR_TOO_LONG, VIRTQ_ERR_LENGTH;
 *         VIRTQ_ERR_BROKEN. On an error nothing changed.
 * VIRTIO 2.7.13.1, 2.8.21.1; D-SPLIT-02, D-SPLIT-03, D-SPLIT-08, D-VQ-01, D-PACK-03 to D-PACK-07.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add(struct virtq_driver *q,
                                                    const struct virtq_buffer *buffer, void *cookie)
{
    uint32_t writable;
    int err;

    if (!VIRTIO_FAST_PATHS)
        return virtq_driver_add_through_(q, buffer, NULL, cookie);
    err = virtq_buffer_check_(q, buffer, (uint32_t)buffer->readable + buffer->writable, &writable);
    if (VIRTIO_UNLIKELY(err != 0))
        return err;
    virtq_driver_add_any_(q, buffer, 0, writable, cookie);
    return 0;
}

/** Adds a buffer of two segments, the first read and the second written by the device: a request
 *  and its answer. See virtq_driver_add(). */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add_pair(struct virtq_driver *q,
                                                         struct virtq_seg readable,
                                                         struct virtq_seg writable, void *cookie)
{
    struct virtq_seg seg[2];
    struct virtq_buffer buffer;

    seg[0] = readable;
    seg[1] = writable;
    buffer.seg = seg;
    buffer.readable = buffer.writable = 1;
    return virtq_driver_add(q, &buffer, cookie);
}

/**
 * Adds a buffer through an indirect table where VIRTQ_INDIRECT is on, the buffer has at least two
 * segments and the table holds them; otherwise as virtq_driver_add().
 * @param table  the caller's memory, in use until the buffer completes
 * @return as virtq_driver_add()
 * VIRTIO 2.7.5.3, 2.8.19; D-IND-01 to D-IND-09.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add_indirect(struct virtq_driver *q,
                                                             const struct virtq_buffer *buffer,
                                                             const struct virtq_table *table,
                                                             void *cookie)
{
    uint32_t count = (uint32_t)buffer->readable + buffer->writable;

    if (!virtq_has_(q->flags, VIRTQ_INDIRECT) || count < 2 || count > table->capacity ||
        count > q->last + 1u)
        return virtq_driver_add(q, buffer, cookie);
    VIRTIO_ASSERT(table->mem != NULL && ((uintptr_t)table->mem & 7) == 0);
    return virtq_driver_add_through_(q, buffer, table, cookie);
}

/** Makes everything added so far visible to the device: one release store. VIRTIO 2.7.13.3,
 *  2.8.21.2; D-SPLIT-05, D-PACK-08. Follow with virtq_driver_kick_due(). */
VIRTIO_INLINE void virtq_driver_publish(struct virtq_driver *q)
{
    if (virtq_is_packed_(q->flags))
        virtq_packed_publish_(q);
    else
        virtq_split_publish_(q);
}

/**
 * Must the device be notified of what was published since the last call? Call after each publish
 * (at the latest after 65535 buffers of a split ring); a `true` obliges the caller to kick, which
 * it may do after leaving its lock. Contains the full fence. VIRTIO 2.7.10, 2.8.21.3; D-SPLIT-06,
 * D-EVT-02, D-EVT-04, D-PACK-09, D-PEVT-03.
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_driver_kick_due(struct virtq_driver *q)
{
    uint16_t now = q->published_idx;
    /* [C] pairs with virtq_device_kick_on(): our index or head before its event or flag. */
    uint16_t old = virtq_exchange_full_(q->flags, &q->kicked_idx, now);

    return virtq_notify_due_(q->flags, q->device, virtq_avail_event_at_(q->last), now, old);
}

/** What a notification carries in its upper half under NOTIFICATION_DATA: where the next buffer
 * will be made available. Read it after publish (L-NOTE-02, L-NOTE-03, D-NOTE-03). */
VIRTIO_INLINE uint16_t virtq_driver_notification_data(const struct virtq_driver *q)
{
    return q->published_idx;
}

/**
 * Takes one completed buffer. A hostile device can complete what it has not worked on, a buffer
 * that is added and not yet published included; each cookie comes back once all the same.
 * @param done  set only when 1 is returned
 * @return 1: taken; 0: none pending; VIRTQ_ERR_USED_IDX, VIRTQ_ERR_USED_ID, VIRTQ_ERR_USED_LEN:
 *         the device broke the queue just now; VIRTQ_ERR_BROKEN: earlier
 * VIRTIO 2.7.14, 2.8.22; D-SPLIT-09, D-SPLIT-11, D-SPLIT-12, D-PACK-10 to D-PACK-14, D-INO-01.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_take(struct virtq_driver *q,
                                                     struct virtq_done *done)
{
    const struct virtq_split_used *entry;
    uint16_t last, pending;

    if (virtq_is_packed_(q->flags))
        return virtq_packed_take_(q, done);
    last = q->last;
    entry = virtq_used_slot_(q->device, last, q->taken_idx);
    if (!virtq_split_take_ready_(q, &pending))
        return virtq_split_take_none_(q, pending);
    return virtq_split_take_next_(q, entry, last, done);
}

/**
 * Takes up to `max` completed buffers with one look at the device's index (split).
 * @param done  array of `max`, at least 1; only the entries counted by the result are set
 * @return how many were taken, or an error as virtq_driver_take(): then none was. What ended a
 * batch early is the next call's answer, and virtq_driver_error()'s.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int32_t virtq_driver_take_batch(struct virtq_driver *q,
                                                               struct virtq_done *done,
                                                               uint16_t max)
{
    bool packed = virtq_is_packed_(q->flags);
    uint32_t from = q->taken_idx;
    void *device = q->device;
    uint16_t last = q->last, ready = max;
    int32_t taken = 0;

    if (!packed && !virtq_split_take_ready_(q, &ready))
        return virtq_split_take_none_(q, ready);
    if (ready > max)
        ready = max;
    for (; taken < ready; taken++) {
        uint32_t at = from + (uint32_t)taken;
        int rc = packed ? virtq_packed_take_(q, &done[taken])
                        : virtq_split_take_next_(q, virtq_used_slot_(device, last, at), last,
                                                 &done[taken]);

        if (rc <= 0)
            return taken != 0 ? taken : rc;
    }
    return taken;
}

/* Are `least` completions waiting? In a packed ring only the next one can be seen, and counts. */
VIRTIO_INLINE bool virtq_driver_pending_(const struct virtq_driver *q, uint32_t least)
{
    if (q->taken_idx == q->published_idx) /* or the queue is broken */
        return false;
    if (!virtq_is_packed_(q->flags))
        return virtq_split_used_pending_(q) >= least;
    return virtq_driver_marked_(q) || virtq_packed_used_flags_(q, q->taken_idx) >= 0;
}

/** Asks the device for no more interrupts; a hint, one may still come. In a split ring with
 *  EVENT_IDX the event is left behind, since the flag must stay 0 (D-EVT-03, D-EVT-07). */
VIRTIO_INLINE void virtq_driver_irq_off(struct virtq_driver *q)
{
    virtq_notify_ask_(q->flags, q->driver, virtq_used_event_at_(q->last), VIRTQ_EVENT_DISABLE,
                      q->taken_idx - 1u);
}

/* Asks for an interrupt at the completion of `wait` more: are they pending already? */
VIRTIO_INLINE bool virtq_driver_irq_on_at_(struct virtq_driver *q, uint32_t wait)
{
    uint32_t at = q->taken_idx;

    at = virtq_is_packed_(q->flags) ? virtq_pos_add_(at, q->last, wait - 1) : at + wait - 1;
    virtq_notify_ask_(q->flags, q->driver, virtq_used_event_at_(q->last), VIRTQ_EVENT_ENABLE, at);
    /* [D] pairs with virtq_device_irq_due(): our event or flag before its entries. */
    virtq_fence_full_(q->flags);
    return virtq_driver_pending_(q, wait);
}

/**
 * Asks for an interrupt at the next completion, and again at each if EVENT_IDX is off. Call it
 * after every drain: with EVENT_IDX it arms one interrupt.
 * @return true if completions are pending already, for which no interrupt may come: take them and
 *         call again. Never true for a broken queue.
 * VIRTIO 2.7.14, 2.8.22; D-EVT-01, D-EVT-03, D-SPLIT-10, D-PEVT-01, D-PEVT-02.
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_driver_irq_on(struct virtq_driver *q)
{
    return virtq_driver_irq_on_at_(q, 1);
}

/**
 * As virtq_driver_irq_on(), but with EVENT_IDX asks for the interrupt only when three quarters of
 * what is outstanding is complete (counted in buffers, in a packed ring in descriptors).
 * @return true if that many are pending already; in a packed ring, if any is
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_driver_irq_on_after(struct virtq_driver *q)
{
    uint32_t wait = virtq_driver_outstanding_(q);

    if (!virtq_has_(q->flags, VIRTQ_EVENT_IDX) || wait == 0)
        wait = 1;
    return virtq_driver_irq_on_at_(q, wait - wait / 4);
}

/**
 * Takes back one outstanding buffer of a queue that is no longer live: after a reset of the device
 * or of the queue, never before (D-CLEAN-02). Works on a broken queue. Once it returned false the
 * queue must be initialised again.
 * @param at      caller's counter, 0 at the first call
 * @param cookie  set when true is returned; each outstanding cookie once
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_driver_detach(struct virtq_driver *q, uint16_t *at,
                                                        void **cookie)
{
    while (*at <= q->last) {
        struct virtq_slot *slot = &q->slots[(*at)++];

        if (slot->count != 0) {
            slot->count = 0;
            *cookie = slot->cookie;
            return true;
        }
    }
    (void)virtq_driver_broken_by_(q, VIRTQ_ERR_BROKEN);
    return false;
}

/** Where the driver side stands: what is published, and what is taken. Any time. */
VIRTIO_INLINE struct virtq_position virtq_driver_save(const struct virtq_driver *q)
{
    struct virtq_position at;

    at.avail_idx = q->published_idx;
    at.used_idx = q->taken_idx;
    return at;
}

/**
 * Lets an empty queue go on where an earlier one stood, for a peer that keeps its position (vhost).
 * Call right after virtq_driver_init(). Nothing is outstanding then: both positions are the same.
 * @return 0, or VIRTQ_ERR_POSITION (nothing changed)
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_restore(struct virtq_driver *q,
                                                        struct virtq_position at)
{
    uint16_t idx = at.avail_idx;

    VIRTIO_ASSERT(virtq_driver_error(q) == 0);
    if (at.used_idx != idx || !virtq_position_ok_(at, q->last, q->flags))
        return VIRTQ_ERR_POSITION;
    q->added_idx = q->published_idx = q->kicked_idx = q->taken_idx = idx;
    if (!virtq_is_packed_(q->flags)) {
        virtq_hint_set_(q->flags, virtq_avail_idx_(q->driver), idx);
        virtq_hint_set_(q->flags, virtq_used_idx_(q->device), idx);
        virtq_hint_set_(q->flags, virtq_used_event_(q->driver, q->last), idx);
        virtq_hint_set_(q->flags, virtq_avail_event_(q->device, q->last), idx);
        return 0;
    }
    q->free_head = virtq_has_(q->flags, VIRTQ_IN_ORDER) ? (uint16_t)virtq_pos_slot_(idx) : 0;
    for (uint32_t slot = 0; slot <= q->last; slot++) { /* all used, as the laps before left them */
        uint32_t lap = slot < virtq_pos_slot_(idx) ? idx : ~(uint32_t)idx;

        virtq_hint_set_(q->flags, &virtq_pos_desc_(q->desc, slot)->flags,
                        (uint16_t)virtq_pos_used_(lap));
    }
    return 0;
}
/** @} */
#endif /* VIRTIO_HAVE_DRIVER */

#if VIRTIO_HAVE_DEVICE
/* ---------------------------------------------------------------------------
 * 10. Device side, what both formats share
 * --------------------------------------------------------------------------- */
/* The next pop looks at the ring again, finds nothing there, and sees why. */
VIRTIO_OUTLINE __attribute__((noinline)) int virtq_device_broken_by_(struct virtq_device *q,
                                                                     int err)
{
    q->error = (int16_t)err;
    if (virtq_is_packed_(q->flags))
        q->avail_flags = VIRTQ_NEVER_;
    else
        q->seen_idx = q->popped_idx;
    return err;
}

/* A chain of one plain descriptor, the common case, without a loop. */
VIRTIO_INLINE int virtq_chain_single_(struct virtq_chain *chain, struct virtq_seg seg,
                                      uint16_t flags)
{
    if (VIRTIO_UNLIKELY(seg.addr + seg.len < seg.addr))
        return VIRTQ_ERR_CHAIN_LENGTH;
    if (flags & VIRTQ_DESC_FLAG_WRITE) {
        chain->readable = 0;
        chain->writable = 1;
    } else {
        chain->readable = 1;
        chain->writable = 0;
    }
    chain->seg[0].addr = seg.addr;
    chain->seg[0].len = seg.len;
    return 1;
}

/* Address and length, in the same place in both formats. */
VIRTIO_INLINE struct virtq_seg virtq_seg_read_(const void *desc, uint16_t order)
{
    const struct virtq_split_desc *from = (const struct virtq_split_desc *)desc;
    struct virtq_seg seg;

    seg.addr = virtq_order64_(order, VIRTIO_LOAD64(&from->addr));
    seg.len = virtq_order32_(order, VIRTIO_LOAD32(&from->len));
    return seg;
}

/* The next list begins at `pos`. */
VIRTIO_INLINE void virtq_packed_pop_at_(struct virtq_device *q, uint32_t pos)
{
    q->popped_idx = (uint16_t)pos;
    q->avail_flags = pos & VIRTQ_WRAP_ ? VIRTQ_DESC_FLAG_AVAIL : VIRTQ_DESC_FLAG_USED;
}

/* A chain while it is walked. */
struct virtq_walk_ {
    const uint8_t *desc;   /* where it is: in the ring or in a table */
    uint32_t flags;        /* of that descriptor, read once */
    struct virtq_seg *seg; /* private copies */
    uint32_t count, writable, capacity;
    uint64_t total; /* UINT32_MAX and the bytes: 2^33 is reached by more than 2^32; no overflow */
};
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_seg, len) == 8, "begins as a descriptor does");

enum {
    /* Places. */
    VIRTQ_IN_TABLE_,
    VIRTQ_IN_RING_,
    /* Fields, by their offset. */
    VIRTQ_AT_FLAGS_ = offsetof(struct virtq_split_desc, flags),
    VIRTQ_AT_NEXT_ = offsetof(struct virtq_split_desc, next),
    VIRTQ_AT_PACKED_ID_ = offsetof(struct virtq_packed_desc, id),
    VIRTQ_AT_PACKED_FLAGS_ = offsetof(struct virtq_packed_desc, flags)
};

/* Is this part of a descriptor aligned? All of a ring is; a table may lie anywhere (V-IND-03). */
VIRTIO_INLINE bool virtq_walk_aligned_(const uint8_t *p, uintptr_t align, int place)
{
    if (!((uint32_t)VIRTQ_CAN_ & VIRTQ_INDIRECT) || (VIRTIO_FAST_PATHS && place == VIRTQ_IN_RING_))
        return true;
    return VIRTIO_LIKELY(((uintptr_t)p & (align - 1)) == 0);
}

/* The 16-bit field at byte `at` of the descriptor. */
VIRTIO_INLINE uint32_t virtq_walk_field_(const struct virtq_walk_ *walk, size_t at, int place,
                                         uint16_t order)
{
    const uint8_t *p = walk->desc + at;

    if (virtq_walk_aligned_(p, 2, place))
        return virtq_order16_(order, VIRTIO_LOAD16((const void *)p));
    return virtq_order16_(order, (uint16_t)(VIRTIO_LOAD8(p + VIRTIO_BIG_ENDIAN) |
                                            VIRTIO_LOAD8(p + !VIRTIO_BIG_ENDIAN) << 8));
}

/* Copies its address and length. */
VIRTIO_INLINE void virtq_walk_seg_(const struct virtq_walk_ *walk, struct virtq_seg *seg, int place,
                                   uint16_t order)
{
    if (virtq_walk_aligned_(walk->desc, 8, place)) {
        *seg = virtq_seg_read_(walk->desc, order);
        return;
    }
    for (unsigned byte = 0; byte < 12; byte++)
        ((uint8_t *)seg)[byte] = VIRTIO_LOAD8(walk->desc + byte);
    seg->addr = virtq_order64_(order, seg->addr);
    seg->len = virtq_order32_(order, seg->len);
}

/* Appends its segment to the chain. What is checked is the private copy, which is what is used
 * (V-SPLIT-07, V-PACK-09). */
VIRTIO_INLINE int virtq_walk_add_(struct virtq_walk_ *walk, int place, uint16_t order)
{
    struct virtq_seg *seg = &walk->seg[walk->count];

    if (VIRTIO_UNLIKELY(walk->count == walk->capacity))
        return VIRTQ_ERR_CHAIN_CAPACITY;
    walk->count++;
    virtq_walk_seg_(walk, seg, place, order);
    if (VIRTIO_UNLIKELY(seg->addr + seg->len < seg->addr))
        return VIRTQ_ERR_CHAIN_LENGTH;
    walk->total += seg->len;
    if (walk->flags & VIRTQ_DESC_FLAG_WRITE)
        walk->writable++;
    else if (VIRTIO_UNLIKELY(walk->writable != 0))
        return VIRTQ_ERR_CHAIN_ORDER;
    return 0;
}

/* Split: walks on along the links of a ring or a table, to the chain's end or to an INDIRECT, which
 * is left to the caller. Ends: no more links than entries. */
VIRTIO_INLINE int virtq_walk_links_(struct virtq_walk_ *walk, const void *table, uint32_t last,
                                    int place, uint16_t order)
{
    uint32_t left = last;

    while (!(walk->flags & VIRTQ_DESC_FLAG_INDIRECT)) {
        int err = virtq_walk_add_(walk, place, order);
        uint32_t next;

        if (VIRTIO_UNLIKELY(err != 0))
            return err;
        if (!(walk->flags & VIRTQ_DESC_FLAG_NEXT))
            return 0;
        next = virtq_walk_field_(walk, VIRTQ_AT_NEXT_, place, order);
        if (VIRTIO_UNLIKELY(next > last))
            return VIRTQ_ERR_CHAIN_NEXT;
        if (VIRTIO_UNLIKELY(left-- == 0))
            return VIRTQ_ERR_CHAIN_LOOP;
        walk->desc = (const uint8_t *)table + 16 * (size_t)next;
        walk->flags = virtq_walk_field_(walk, VIRTQ_AT_FLAGS_, place, order);
    }
    return 0;
}

/* Packed: walks the list at popped_idx, whose head `walk` has already, to its end, where the next
 * list begins even if this one is malformed. An INDIRECT that is all of it is left to the caller.
 * Ends: a list cannot be longer than the slots that are not in flight. */
VIRTIO_INLINE int virtq_walk_list_(struct virtq_device *q, struct virtq_walk_ *walk,
                                   struct virtq_chain *chain)
{
    uint32_t pos = q->popped_idx, more = 0;
    int err = 0;

    for (;;) {
        if (VIRTIO_UNLIKELY((pos ^ q->pushed_idx) == VIRTQ_WRAP_))
            return virtq_device_broken_by_(q, more != 0 ? VIRTQ_ERR_AVAIL_LIST
                                                        : VIRTQ_ERR_AVAIL_IDX);
        if (more != 0) {
            walk->desc = (const uint8_t *)virtq_pos_desc_(q->desc, pos);
            walk->flags = virtq_walk_field_(walk, VIRTQ_AT_PACKED_FLAGS_, VIRTQ_IN_RING_, q->flags);
        }
        if (VIRTIO_LIKELY(err == 0)) {
            if (VIRTIO_LIKELY(!(walk->flags & VIRTQ_DESC_FLAG_INDIRECT)))
                err = virtq_walk_add_(walk, VIRTQ_IN_RING_, q->flags);
            else
                err = VIRTQ_ERR_INDIRECT_NEXT; /* never inside a list (D-IND-07) */
        }
        if (VIRTIO_UNLIKELY(virtq_pos_slot_(pos) == q->last)) {
            virtq_rarely_();
            pos = ~pos & VIRTQ_WRAP_;
        } else {
            pos++;
        }
        if (!(walk->flags & VIRTQ_DESC_FLAG_NEXT))
            break;
        more++;
    }
    virtq_packed_pop_at_(q, pos);
    chain->token = virtq_walk_field_(walk, VIRTQ_AT_PACKED_ID_, VIRTQ_IN_RING_, q->flags) |
                   more << 16;
    return err == VIRTQ_ERR_INDIRECT_NEXT && more == 0 ? 0 : err;
}

/* Walks the table that the descriptor points to. A packed one is read from end to end (D-IND-08),
 * and its flags other than WRITE are ignored (V-IND-04). */
VIRTIO_INLINE int virtq_walk_table_(const struct virtq_device *q, struct virtq_walk_ *walk)
{
    struct virtq_seg whole;
    const void *table;
    uint32_t left;
    int err;

    if (!virtq_has_(q->flags, VIRTQ_INDIRECT))
        return VIRTQ_ERR_INDIRECT_OFF;
    if (walk->flags & VIRTQ_DESC_FLAG_NEXT)
        return VIRTQ_ERR_INDIRECT_NEXT;
    whole = virtq_seg_read_(walk->desc, q->flags);
    left = whole.len / 16;
    if (left == 0 || whole.len % 16 != 0)
        return VIRTQ_ERR_INDIRECT_LEN;
    table = q->map(q->map_ctx, whole.addr, whole.len);
    if (table == NULL)
        return VIRTQ_ERR_INDIRECT_MAP;
    walk->desc = (const uint8_t *)table;
    if (!virtq_is_packed_(q->flags)) {
        walk->flags = virtq_walk_field_(walk, VIRTQ_AT_FLAGS_, VIRTQ_IN_TABLE_, q->flags);
        err = virtq_walk_links_(walk, table, left - 1, VIRTQ_IN_TABLE_, q->flags);
        return err == 0 && walk->flags & VIRTQ_DESC_FLAG_INDIRECT ? VIRTQ_ERR_INDIRECT_NESTED : err;
    }
    do {
        walk->flags = virtq_walk_field_(walk, VIRTQ_AT_PACKED_FLAGS_, VIRTQ_IN_TABLE_, q->flags);
        err = virtq_walk_add_(walk, VIRTQ_IN_TABLE_, q->flags);
        walk->desc += 16;
    } while (err == 0 && --left != 0);
    return err;
}

/* Walks the chain that begins with `desc` of the ring, whose flags are read already. */
VIRTIO_OUTLINE int virtq_walk_all_(struct virtq_device *q, struct virtq_chain *chain,
                                   const void *desc, uint32_t flags)
{
    struct virtq_walk_ walk;
    int err;

    walk.desc = (const uint8_t *)desc;
    walk.flags = flags;
    walk.seg = chain->seg;
    walk.capacity = chain->capacity;
    walk.count = walk.writable = 0;
    walk.total = UINT32_MAX;
    err = virtq_is_packed_(q->flags)
              ? virtq_walk_list_(q, &walk, chain)
              : virtq_walk_links_(&walk, q->desc, q->last, VIRTQ_IN_RING_, q->flags);
    if (err == 0 && VIRTIO_UNLIKELY(walk.flags & VIRTQ_DESC_FLAG_INDIRECT))
        err = virtq_walk_table_(q, &walk);
    if (VIRTIO_UNLIKELY(err != 0))
        return err;
    chain->readable = (uint16_t)(walk.count - walk.writable);
    chain->writable = (uint16_t)walk.writable;
    return walk.total >> 33 != 0 ? VIRTQ_ERR_CHAIN_LENGTH : 1;
}

/* Where the next used entry goes: with IN_ORDER over that of an open batch, unless it is flushed.
 */
VIRTIO_INLINE uint16_t virtq_device_entry_(const struct virtq_device *q)
{
    uint16_t pushed = q->pushed_idx;

    if (!virtq_has_(q->flags, VIRTQ_IN_ORDER) || pushed == q->flushed_idx)
        return pushed;
    return q->batch_idx;
}

/* ---------------------------------------------------------------------------
 * 11. Split ring, device side
 * --------------------------------------------------------------------------- */
VIRTIO_INLINE uint16_t virtq_split_avail_idx_(const struct virtq_device *q)
{
    /* [A] pairs with virtq_split_publish_(): the index before slots and descriptors. */
    return virtq_load_acquire_(q->flags, virtq_avail_idx_(q->driver));
}

/* What it means that the driver's index shows no buffer, or more than there can be. */
VIRTIO_OUTLINE int virtq_split_pop_none_(struct virtq_device *q, bool none)
{
    if (q->error != 0)
        return VIRTQ_ERR_BROKEN;
    return none ? 0 : virtq_device_broken_by_(q, VIRTQ_ERR_AVAIL_IDX);
}

VIRTIO_INLINE int virtq_split_pop_(struct virtq_device *q, struct virtq_chain *chain)
{
    const struct virtq_split_desc *desc = (const struct virtq_split_desc *)q->desc;
    uint32_t at = q->popped_idx, last = q->last, head;
    void *avail = q->driver;
    uint16_t flags;

    if (at == q->seen_idx) {
        uint32_t end = q->pushed_idx + last + 1;
        uint16_t idx = virtq_split_avail_idx_(q);

        if (VIRTIO_UNLIKELY((uint16_t)(end - idx) >= (uint16_t)(end - at)) ||
            VIRTIO_UNLIKELY(q->error != 0))
            return virtq_split_pop_none_(q, idx == at);
        q->seen_idx = idx;
    }
    head = virtq_order16_(q->flags, VIRTIO_LOAD16(virtq_avail_slot_(avail, last, at)));
    if (VIRTIO_UNLIKELY(head > last))
        return virtq_device_broken_by_(q, VIRTQ_ERR_AVAIL_HEAD);
    q->popped_idx = (uint16_t)(at + 1);
    chain->token = head;
    desc += head;
    flags = virtq_order16_(q->flags, VIRTIO_LOAD16(&desc->flags));
    if (!VIRTIO_FAST_PATHS || VIRTIO_UNLIKELY(flags & VIRTQ_MORE_))
        return virtq_walk_all_(q, chain, desc, flags);
    return virtq_chain_single_(chain, virtq_seg_read_(desc, q->flags), flags);
}

VIRTIO_INLINE void virtq_split_push_(struct virtq_device *q, uint32_t at, uint32_t token,
                                     uint32_t written)
{
    struct virtq_split_used *entry = virtq_used_slot_(q->device, q->last, at);

    q->pushed_idx++;
    VIRTIO_STORE32(&entry->id, virtq_order32_(q->flags, token));
    VIRTIO_STORE32(&entry->len, virtq_order32_(q->flags, written));
}

VIRTIO_INLINE void virtq_split_flush_(struct virtq_device *q)
{
    uint16_t idx = q->pushed_idx;

    q->flushed_idx = idx;
    /* [B] pairs with virtq_split_used_pending_(): data and entries before the index. */
    virtq_store_release_(q->flags, virtq_used_idx_(q->device), idx);
}

/* NOTIFY_ON_EMPTY: a driver that ran out of buffers hears of it, suppressed or not (V-LEG-08).
 * After the fence [D]; nothing behind the index is read, so that it needs no order of its own. */
VIRTIO_INLINE bool virtq_ran_empty_(const struct virtq_device *q)
{
    return virtq_has_(q->flags, VIRTQ_NOTIFY_ON_EMPTY) && !virtq_is_packed_(q->flags) &&
           virtq_hint_get_(q->flags, virtq_avail_idx_(q->driver)) == q->popped_idx;
}

/* ---------------------------------------------------------------------------
 * 12. Packed ring, device side
 * --------------------------------------------------------------------------- */
/* Flags of the head at popped_idx, or -1 if nothing is available there. [A] pairs with
 * virtq_packed_publish_(): the head's flags before everything else. */
VIRTIO_INLINE int32_t virtq_packed_avail_flags_(const struct virtq_device *q)
{
    const struct virtq_packed_desc *desc = virtq_pos_desc_(q->desc, q->popped_idx);
    uint16_t flags = virtq_load_acquire_(q->flags, &desc->flags);

    return (flags & VIRTQ_LAP_) == q->avail_flags ? flags : -1;
}

VIRTIO_INLINE int virtq_packed_pop_(struct virtq_device *q, struct virtq_chain *chain)
{
    uint32_t pos = q->popped_idx;
    const struct virtq_packed_desc *desc = virtq_pos_desc_(q->desc, pos);
    int32_t flags = virtq_packed_avail_flags_(q);

    if (flags < 0)
        return q->error != 0 ? VIRTQ_ERR_BROKEN : 0;
    if (!VIRTIO_FAST_PATHS || VIRTIO_UNLIKELY(flags & VIRTQ_MORE_))
        return virtq_walk_all_(q, chain, desc, (uint32_t)flags);
    if (VIRTIO_UNLIKELY((pos ^ q->pushed_idx) == VIRTQ_WRAP_)) /* every slot is in flight */
        return virtq_device_broken_by_(q, VIRTQ_ERR_AVAIL_IDX);
    if (VIRTIO_UNLIKELY(virtq_pos_slot_(pos) == q->last))
        virtq_packed_pop_at_(q, ~pos & VIRTQ_WRAP_);
    else
        q->popped_idx = (uint16_t)(pos + 1);
    chain->token = virtq_order16_(q->flags, VIRTIO_LOAD16(&desc->id));
    return virtq_chain_single_(chain, virtq_seg_read_(desc, q->flags), (uint16_t)flags);
}

/* A token is the id, and above it one less than the slots of the list. The first used descriptor of
 * a flush keeps its old flags: the driver cannot look past it (V-PACK-07). */
VIRTIO_INLINE void virtq_packed_push_(struct virtq_device *q, uint32_t pos, uint32_t token,
                                      uint32_t written)
{
    uint32_t pushed = q->pushed_idx;
    struct virtq_packed_desc *desc = virtq_pos_desc_(q->desc, pos);
    uint16_t flags = (uint16_t)(virtq_pos_used_(pos) | (written != 0 ? VIRTQ_DESC_FLAG_WRITE : 0));

    VIRTIO_STORE32(&desc->len, virtq_order32_(q->flags, written));
    VIRTIO_STORE16(&desc->id, virtq_order16_(q->flags, (uint16_t)token));
    if (pos == q->flushed_idx)
        q->held_flags = flags;
    else
        VIRTIO_STORE16(&desc->flags, virtq_order16_(q->flags, flags));
    q->pushed_idx = virtq_pos_expose_(pushed, q->last, token >> 16, &q->signalled_idx);
}

VIRTIO_INLINE void virtq_packed_flush_(struct virtq_device *q)
{
    uint32_t pos = q->flushed_idx, end = q->pushed_idx;

    if (pos == end)
        return;
    q->flushed_idx = (uint16_t)end;
    /* [B] pairs with virtq_packed_used_flags_(): data and entries before the first one's flags. */
    virtq_store_release_(q->flags, &virtq_pos_desc_(q->desc, pos)->flags, q->held_flags);
}

/* ---------------------------------------------------------------------------
 * 13. Device side
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_device Ring, device side
 * Serialise all calls on one queue side; the driver may run at any time. The driver is not
 * trusted: each descriptor is fetched once into private memory and checked there, every loop is
 * bounded, and at most `num` descriptors are between pop and push at any time. The segments'
 * addresses are still the driver's: map them with a check of their own before use (addr + len does
 * not wrap, and the sum of all lengths is at most 2^32).
 * @{
 */

/**
 * Starts the device side of a queue whose memory the driver has set up; writes nothing to it.
 * @param map  maps indirect tables; NULL if areas->flags lacks VIRTQ_INDIRECT
 * @return 0, VIRTQ_ERR_FLAGS, VIRTQ_ERR_SIZE or VIRTQ_ERR_ALIGN (nothing changed)
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_device_init(struct virtq_device *q,
                                                     const struct virtq_areas *areas,
                                                     virtq_map_fn map, void *map_ctx)
{
    int err = virtq_check_areas_(areas);

    if (err != 0)
        return err;
    VIRTIO_ASSERT(map != NULL || !(areas->flags & VIRTQ_INDIRECT));
    q->desc = areas->desc;
    q->driver = areas->driver;
    q->device = areas->device;
    q->map = map;
    q->map_ctx = map_ctx;
    q->last = (uint16_t)(areas->num - 1);
    q->flags = areas->flags;
    q->held_flags = 0;
    q->avail_flags = VIRTQ_DESC_FLAG_AVAIL;
    q->error = 0;
    q->popped_idx = virtq_is_packed_(areas->flags) ? VIRTQ_WRAP_ : 0; /* L-PACK-04 */
    q->seen_idx = q->pushed_idx = q->batch_idx = q->flushed_idx = q->signalled_idx = q->popped_idx;
    return 0;
}

/** 0, or the error by which the driver broke the queue. Then answer with DEVICE_NEEDS_RESET. */
VIRTIO_INLINE int virtq_device_error(const struct virtq_device *q)
{
    return q->error;
}

/**
 * Takes the next available buffer.
 * @param chain  seg and capacity set by the caller; filled in when 1 is returned. After an error
 *               of virtq_err_names_chain() only its token is meaningful.
 * @return 1: a chain; 0: none; a VIRTQ_ERR_CHAIN_* or VIRTQ_ERR_INDIRECT_*: the chain is malformed
 *         and consumed, push chain->token with length 0 or give up; VIRTQ_ERR_AVAIL_IDX,
 *         VIRTQ_ERR_AVAIL_HEAD, VIRTQ_ERR_AVAIL_LIST: the driver broke the queue just now;
 *         VIRTQ_ERR_BROKEN: earlier
 * In a split ring the index is read again only when all it covered is popped: popping until 0 costs
 * one acquire load a batch.
 * VIRTIO 2.7.5, 2.7.6, 2.8; V-SPLIT-06, V-SPLIT-07, V-IND-01 to V-IND-04, V-PACK-01 to V-PACK-04,
 * V-PACK-09.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_device_pop(struct virtq_device *q,
                                                    struct virtq_chain *chain)
{
    VIRTIO_ASSERT(chain->capacity != 0);
    return virtq_is_packed_(q->flags) ? virtq_packed_pop_(q, chain) : virtq_split_pop_(q, chain);
}

/**
 * Gives back the buffer that was popped last, and with further calls the ones before it, the last
 * one first: the next pop finds it again. The driver sees nothing of it. A broken queue stays as it
 * is.
 * @param token  virtq_chain::token of the buffer, which is not pushed yet
 */
VIRTIO_INLINE void virtq_device_unpop(struct virtq_device *q, uint32_t token)
{
    VIRTIO_ASSERT(q->pushed_idx != q->popped_idx);
    if (q->error != 0)
        return;
    if (virtq_is_packed_(q->flags)) /* on by the rest of a lap, and a lap back */
        virtq_packed_pop_at_(
            q, virtq_pos_add_(q->popped_idx, q->last, q->last - (token >> 16)) ^ VIRTQ_WRAP_);
    else
        q->popped_idx--;
}

/* Writes a used entry; with IN_ORDER the next push writes over it if the batch stays `open`. */
VIRTIO_INLINE void virtq_device_push_(struct virtq_device *q, uint32_t token, uint32_t written,
                                      bool open)
{
    uint16_t at = virtq_device_entry_(q);

    VIRTIO_ASSERT(q->pushed_idx != q->popped_idx);
    if (virtq_is_packed_(q->flags))
        virtq_packed_push_(q, at, token, written);
    else
        virtq_split_push_(q, at, token, written);
    if (virtq_has_(q->flags, VIRTQ_IN_ORDER))
        q->batch_idx = open ? at : q->pushed_idx;
}

/**
 * Completes a popped buffer; the driver sees it at the next virtq_device_flush(). Any order, but
 * with IN_ORDER the order of pop (V-RES-04).
 * @param token    virtq_chain::token of a buffer that was popped and not pushed yet
 * @param written  bytes written from the first writable one on; 0 if none
 * VIRTIO 2.7.8, 2.8.22; V-SPLIT-03, V-SPLIT-04, V-PACK-05 to V-PACK-07.
 */
VIRTIO_INLINE void virtq_device_push(struct virtq_device *q, uint32_t token, uint32_t written)
{
    virtq_device_push_(q, token, written, false);
}

/**
 * As virtq_device_push(), for a buffer all of whose writable bytes were written (none, if it has
 * none). With IN_ORDER the next push before the flush then completes both with one used entry: only
 * such buffers can be skipped, since the driver takes them for written in full (V-INO-03).
 * VIRTIO 2.7.9, 2.8.4; V-INO-01, V-INO-02.
 */
VIRTIO_INLINE void virtq_device_push_full(struct virtq_device *q, uint32_t token, uint32_t written)
{
    virtq_device_push_(q, token, written, true);
}

/** Makes everything pushed so far visible to the driver: one release store. V-SPLIT-05, V-PACK-07,
 *  V-PACK-08. Follow with virtq_device_irq_due(). */
VIRTIO_INLINE void virtq_device_flush(struct virtq_device *q)
{
    if (virtq_is_packed_(q->flags))
        virtq_packed_flush_(q);
    else
        virtq_split_flush_(q);
}

/**
 * Must the driver be interrupted for what was flushed since the last call? Call after each flush
 * (at the latest after 65535 buffers of a split ring). Contains the full fence.
 * VIRTIO 2.7.7, 2.8.10; V-EVT-01, V-EVT-03, V-LEG-08, V-PEVT-01.
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_device_irq_due(struct virtq_device *q)
{
    uint16_t now = q->flushed_idx;
    /* [D] pairs with virtq_driver_irq_on() and _on_after(): our entries before their event or
     * flag. */
    uint16_t old = virtq_exchange_full_(q->flags, &q->signalled_idx, now);

    if (VIRTIO_UNLIKELY(virtq_ran_empty_(q)))
        return now != old;
    return virtq_notify_due_(q->flags, q->driver, virtq_used_event_at_(q->last), now, old);
}

/** Asks the driver for no more kicks; a hint, one may still come (V-EVT-02, V-EVT-04, V-VQ-03). */
VIRTIO_INLINE void virtq_device_kick_off(struct virtq_device *q)
{
    virtq_notify_ask_(q->flags, q->device, virtq_avail_event_at_(q->last), VIRTQ_EVENT_DISABLE,
                      q->popped_idx - 1u);
}

/**
 * Asks for a kick at the next available buffer. Call it after every drain: with EVENT_IDX it arms
 * one kick.
 * @return true if buffers are available already, for which no kick may come: pop them and call
 *         again. Never true for a broken queue.
 * VIRTIO 2.7.10, 2.8.10; V-EVT-02, V-EVT-04, V-PEVT-01.
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_device_kick_on(struct virtq_device *q)
{
    virtq_notify_ask_(q->flags, q->device, virtq_avail_event_at_(q->last), VIRTQ_EVENT_ENABLE,
                      q->popped_idx);
    /* [C] pairs with virtq_driver_kick_due(): our event or flag before its buffers. */
    virtq_fence_full_(q->flags);
    if (q->error != 0)
        return false;
    return virtq_is_packed_(q->flags) ? virtq_packed_avail_flags_(q) >= 0
                                      : virtq_split_avail_idx_(q) != q->popped_idx;
}

/**
 * The position to move to another device side, for migration or a restart. Flush first. Buffers
 * between pop and push stay in flight: hand their tokens to the new side, which pushes them as if
 * it had popped them.
 */
VIRTIO_INLINE struct virtq_position virtq_device_save(const struct virtq_device *q)
{
    struct virtq_position at;

    VIRTIO_ASSERT(q->pushed_idx == q->flushed_idx);
    at.avail_idx = q->popped_idx;
    at.used_idx = q->pushed_idx;
    return at;
}

/** Continues at a saved position; call right after virtq_device_init(), with the same queue size.
 * The values may come from anywhere.
 *  @return 0, or VIRTQ_ERR_POSITION (nothing changed) */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_device_restore(struct virtq_device *q,
                                                        struct virtq_position at)
{
    if (!virtq_position_ok_(at, q->last, q->flags))
        return VIRTQ_ERR_POSITION;
    q->seen_idx = q->popped_idx = at.avail_idx;
    q->avail_flags = (uint16_t)virtq_pos_avail_(at.avail_idx);
    q->pushed_idx = q->batch_idx = q->flushed_idx = q->signalled_idx = at.used_idx;
    return 0;
}
/** @} */
#endif /* VIRTIO_HAVE_DEVICE */

#endif /* VIRTIO_RING_H */
