// SPDX-License-Identifier: MIT-0
/**
 * @file virtio_ring.h
 * @brief The virtqueue: driver side and device side in one freestanding header.
 *
 * This file is the data path only: it knows memory, not registers. It needs no other file, no
 * library and no allocator, and follows VIRTIO 1.0 to 1.4 and the legacy interface. The split ring
 * is implemented; the types and calls leave room for the packed one.
 *
 * How to use, driver side:
 *
 *     static struct virtq_slot slots[256];
 *     static _Alignas(4096) uint8_t mem[VIRTQ_SPLIT_BYTES(256, 4096)];
 *     struct virtq_areas areas;
 *     struct virtq_driver q;
 *
 *     virtq_split_areas(&areas, mem, 256, 4096);
 *     areas.flags = VIRTQ_EVENT_IDX;                       // as negotiated
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
 *     4. Layout and shared internals
 *     5. Split ring, driver side
 *     6. Split ring, device side
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
 * Facts of the platform. Each macro can be defined before this file is included, or in the file
 * named by VIRTIO_CONFIG_FILE; it must then be the same in the whole program. None of them changes
 * the layout of a struct.
 * @{
 */

/** Linkage of every function. Default: `static inline`. */
#ifndef VIRTIO_INLINE
#define VIRTIO_INLINE static inline
#endif

/** Marks results that must not be dropped. Default: the compiler's warning. */
#ifndef VIRTIO_NODISCARD
#define VIRTIO_NODISCARD __attribute__((warn_unused_result))
#endif

/** Linkage of the parts that are kept out of the straight path (malformed input, indirect tables,
 *  long chains), so that the common case needs no registers for them. Default: not inlined. */
#ifndef VIRTIO_OUTLINE
#define VIRTIO_OUTLINE __attribute__((unused, noinline)) static
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
 * naturally aligned unless the name says otherwise. A load macro reads memory exactly once.
 */

/** One plain load or store; ordered only by the fences around it. Default: a volatile access. */
#ifndef VIRTIO_LOAD16
#define VIRTIO_LOAD8(p) (*(const volatile uint8_t *)(p))
#define VIRTIO_LOAD16(p) (*(const volatile uint16_t *)(p))
#define VIRTIO_LOAD32(p) (*(const volatile uint32_t *)(p))
#define VIRTIO_LOAD64(p) (*(const volatile uint64_t *)(p))
#define VIRTIO_STORE8(p, v) ((void)(*(volatile uint8_t *)(p) = (v)))
#define VIRTIO_STORE16(p, v) ((void)(*(volatile uint16_t *)(p) = (v)))
#define VIRTIO_STORE32(p, v) ((void)(*(volatile uint32_t *)(p) = (v)))
#define VIRTIO_STORE64(p, v) ((void)(*(volatile uint64_t *)(p) = (v)))
#endif

/** Full fence: no earlier access passes any later one, loads after stores included. */
#ifndef VIRTIO_FENCE_FULL
#define VIRTIO_FENCE_FULL() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif

/** Accesses to the 16-bit words that both sides touch at the same time: the indices (acquire and
 *  release) and the suppression hints (relaxed). Default: the compiler's atomics where they are
 *  inline, else a volatile access and a fence (16-bit builtins would become library calls). */
#ifndef VIRTIO_LOAD_ACQUIRE16
#if defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_2)
#define VIRTIO_LOAD_ACQUIRE16(p) __atomic_load_n((const uint16_t *)(p), __ATOMIC_ACQUIRE)
#define VIRTIO_LOAD_RELAXED16(p) __atomic_load_n((const uint16_t *)(p), __ATOMIC_RELAXED)
#define VIRTIO_STORE_RELEASE16(p, v) __atomic_store_n((uint16_t *)(p), (v), __ATOMIC_RELEASE)
#define VIRTIO_STORE_RELAXED16(p, v) __atomic_store_n((uint16_t *)(p), (v), __ATOMIC_RELAXED)
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
#define VIRTIO_STORE_RELEASE16(p, v) virtq_store_release16_((p), (v))
#define VIRTIO_STORE_RELAXED16(p, v) ((void)(*(volatile uint16_t *)(p) = (v)))
#endif
#endif
/** @} */

/* ---------------------------------------------------------------------------
 * 2. Memory ordering contract
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_ordering Memory ordering
 * Four pairs carry the whole protocol. The comments in the code name the letter.
 *
 * | pair | writer | reader | carries | weaker fails because |
 * |---|---|---|---|---|
 * | A | driver publish: release store of avail idx | device pop: acquire load | descriptors, ring slots, readable data | the device would fetch a descriptor of an earlier buffer |
 * | B | device flush: release store of used idx | driver take: acquire load | used entries, written data | the driver would free a slot by a stale id |
 * | C | driver publish, full fence, load of avail_event / used flags | device kick_on: store of avail_event / used flags, full fence, load of avail idx | - | each side could read the other's old value: work pending and nobody notified |
 * | D | device flush, full fence, load of used_event / avail flags | driver irq_on: store of used_event / avail flags, full fence, load of used idx | - | as C, for interrupts |
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
    VIRTQ_MAX_SIZE = 32768,  /**< largest queue size, in entries */
    VIRTQ_LEGACY_ALIGN = 4096 /**< Queue Align of legacy PCI, in bytes */
};

/** Properties of a queue, as negotiated: virtq_areas::flags. */
enum virtq_flag {
    VIRTQ_EVENT_IDX = 1, /**< VIRTIO_F_EVENT_IDX (29) */
    VIRTQ_INDIRECT = 2,  /**< VIRTIO_F_INDIRECT_DESC (28) */
    VIRTQ_LEGACY = 4     /**< VERSION_1 not negotiated: ring in the CPU's byte order, and a used
                              length beyond the buffer is clamped, not refused (D-LEG-06) */
};

/** Errors of this file: always negative. Names and meaning: virtq_err_name(). */
enum virtq_err {
    /* the caller's own doing; nothing was changed */
    VIRTQ_ERR_SIZE = -1,  /**< queue size 0, above 32768 or not a power of two */
    VIRTQ_ERR_ALIGN = -2, /**< an area is not aligned (16, 2 and 4 bytes) or NULL */
    VIRTQ_ERR_EMPTY = -3, /**< a buffer needs at least one segment (L-VQ-04) */
    VIRTQ_ERR_LENGTH = -4, /**< a buffer holds more than 2^32 bytes (D-SPLIT-02) */
    VIRTQ_ERR_TOO_LONG = -5, /**< more segments than the queue has entries (D-SPLIT-03) */
    /* no room now */
    VIRTQ_ERR_FULL = -6, /**< not enough free descriptors: take completions, then retry */
    /* the peer violated the protocol: the queue is broken until it is initialised again */
    VIRTQ_ERR_BROKEN = -7,    /**< an earlier call found the violation */
    VIRTQ_ERR_USED_IDX = -8,  /**< used idx passed what was made available (D-SPLIT-12) */
    VIRTQ_ERR_USED_ID = -9,   /**< used id is not an outstanding buffer (D-SPLIT-12) */
    VIRTQ_ERR_USED_LEN = -10, /**< used len beyond the writable bytes (D-SPLIT-12) */
    VIRTQ_ERR_AVAIL_IDX = -11, /**< avail idx jumped by more than the queue size (V-SPLIT-06) */
    VIRTQ_ERR_AVAIL_HEAD = -12, /**< head index outside the descriptor table (V-SPLIT-06) */
    /* one chain is malformed: its head is consumed and named by virtq_chain::token */
    VIRTQ_ERR_CHAIN_NEXT = -20,  /**< next link outside the table (V-SPLIT-06) */
    VIRTQ_ERR_CHAIN_LOOP = -21,  /**< more links than the table has entries (V-SPLIT-06) */
    VIRTQ_ERR_CHAIN_ORDER = -22, /**< readable after writable (D-VQ-01) */
    VIRTQ_ERR_CHAIN_LENGTH = -23, /**< addr + len wraps, or more than 2^32 bytes in all */
    VIRTQ_ERR_CHAIN_CAPACITY = -24, /**< legal, but longer than the caller's segment array */
    VIRTQ_ERR_INDIRECT_OFF = -25, /**< INDIRECT without the feature (D-IND-01) */
    VIRTQ_ERR_INDIRECT_NESTED = -26, /**< INDIRECT inside a table (D-IND-02) */
    VIRTQ_ERR_INDIRECT_NEXT = -27, /**< INDIRECT together with NEXT (D-IND-03) */
    VIRTQ_ERR_INDIRECT_LEN = -28, /**< table length 0 or no multiple of 16 (D-IND-04) */
    VIRTQ_ERR_INDIRECT_MAP = -29  /**< the mapping hook refused the table */
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
 *  add that used it until the buffer's completion. Both sides may access it at any alignment. */
struct virtq_table {
    void *mem;     /**< where this CPU writes it; 8-byte aligned */
    uint64_t addr; /**< where the device reads it */
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
 *  only, the device area by the device side only. */
struct virtq_areas {
    uint16_t num;   /**< queue size in entries */
    uint16_t flags; /**< enum virtq_flag */
    void *desc;     /**< descriptor area: the descriptor table; 16-byte aligned */
    void *driver;   /**< driver area: the available ring; 2-byte aligned */
    void *device;   /**< device area: the used ring; 4-byte aligned */
};

/** Byte offsets of the three areas in one contiguous piece of memory; desc is at 0. */
struct virtq_offsets {
    uint32_t driver;
    uint32_t device;
    uint32_t total;
};

/** What the driver side remembers of one descriptor. Private: never in shared memory. */
struct virtq_slot {
    void *cookie;
    uint32_t writable; /**< in a chain's head: bytes the device may write; in its second
                            descriptor: the index of the last one */
    uint16_t next;     /**< chain or free list */
    uint16_t count;    /**< descriptors of the chain; 0: not the head of an outstanding one */
};

/** Descriptor, 2.7.5. Wire format: fields in ring byte order, only through the accessors. */
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

VIRTIO_STATIC_ASSERT(sizeof(struct virtq_split_desc) == 16, "descriptor, 2.7.5");
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_split_desc, len) == 8, "descriptor, 2.7.5");
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_split_desc, flags) == 12, "descriptor, 2.7.5");
VIRTIO_STATIC_ASSERT(offsetof(struct virtq_split_desc, next) == 14, "descriptor, 2.7.5");
VIRTIO_STATIC_ASSERT(sizeof(struct virtq_split_used) == 8, "used element, 2.7.8");

/** Flags of the wire (2.7.5, 2.7.6, 2.7.8). */
enum {
    VIRTQ_DESC_FLAG_NEXT = 1,
    VIRTQ_DESC_FLAG_WRITE = 2,
    VIRTQ_DESC_FLAG_INDIRECT = 4,
    VIRTQ_AVAIL_FLAG_NO_IRQ = 1,
    VIRTQ_USED_FLAG_NO_KICK = 1
};

/** Driver side of a queue. Private; zero it, then virtq_driver_init(). Indices are free-running
 *  16-bit counters, so that only differences mean anything (L-SPLIT-05). */
struct virtq_driver {
    struct virtq_split_desc *desc;
    uint16_t *avail;          /**< flags, idx, ring[num], used_event */
    uint16_t *used;           /**< flags, idx, {id, len}[num], avail_event */
    struct virtq_slot *slots; /**< caller's array of num */
    uint16_t last;  /**< highest entry: queue size - 1, the mask of the free-running indices */
    uint16_t flags; /**< enum virtq_flag, and whether broken */
    uint16_t free_head;
    uint16_t free_count;    /**< 0 in a broken queue, so that add need not look further */
    uint16_t added_idx;     /**< next entry of the available ring to fill */
    uint16_t published_idx; /**< what the device may see */
    uint16_t kicked_idx;    /**< published_idx at the last kick decision */
    uint16_t taken_idx;     /**< next entry of the used ring to read */
};

/**
 * Maps guest memory of an indirect table for the device side.
 * @param ctx   as given to virtq_device_init()
 * @param addr  device address, any alignment
 * @param len   bytes, a non-zero multiple of 16
 * @return where this CPU reads all `len` bytes, or NULL if any of them is not memory
 */
typedef const void *(*virtq_map_fn)(void *ctx, uint64_t addr, uint32_t len);

/** Device side of a queue. Private; zero it, then virtq_device_init(). */
struct virtq_device {
    const struct virtq_split_desc *desc;
    uint16_t *avail;
    uint16_t *used;
    virtq_map_fn map;
    void *map_ctx;
    uint16_t last; /**< as in struct virtq_driver */
    uint16_t flags;
    uint16_t seen_idx;     /**< avail idx as last read and checked */
    uint16_t popped_idx;   /**< next entry of the available ring to read */
    uint16_t pushed_idx;   /**< next entry of the used ring to fill */
    uint16_t flushed_idx;  /**< what the driver may see */
    uint16_t signalled_idx; /**< flushed_idx at the last interrupt decision */
};

/** Position of a device side, for migration and vhost GET/SET_VRING_BASE. */
struct virtq_device_state {
    uint16_t avail_idx; /**< next available entry to pop */
    uint16_t used_idx;  /**< next used entry to fill */
};

VIRTIO_STATIC_ASSERT(sizeof(struct virtq_slot) <= 8 + sizeof(void *), "slot budget");
VIRTIO_STATIC_ASSERT(sizeof(struct virtq_driver) <= 48, "driver state budget");
VIRTIO_STATIC_ASSERT(sizeof(struct virtq_device) <= 64, "device state budget");
/** @} */

/* ---------------------------------------------------------------------------
 * 4. Layout and shared internals
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_layout Ring memory
 * @{
 */

/** Bytes of a split ring in one contiguous piece whose device area starts at a multiple of `align`
 *  (a power of two >= 4): a constant expression. Legacy PCI: align 4096 (L-LEG-03). */
#define VIRTQ_SPLIT_BYTES(num, align)                                                              \
    (VIRTQ_ALIGN_UP_(18u * (num) + 6u, (align)) + VIRTQ_ALIGN_UP_(8u * (num) + 6u, (align)))
#define VIRTQ_ALIGN_UP_(x, align) (((x) + (align)-1u) & ~((align)-1u))

/** True for the queue sizes a split ring can have: 1, 2, 4 ... 32768 (L-SPLIT-05). Any context. */
VIRTIO_INLINE bool virtq_split_size_ok(uint32_t num)
{
    return num != 0 && num <= VIRTQ_MAX_SIZE && (num & (num - 1)) == 0;
}

/** Offsets of the areas as VIRTQ_SPLIT_BYTES() counts them. `num` is a legal size, `align` a power
 *  of two from 4 to 65536. Any context. L-SPLIT-04, L-LEG-03. */
VIRTIO_INLINE struct virtq_offsets virtq_split_offsets(uint16_t num, uint32_t align)
{
    struct virtq_offsets at;

    VIRTIO_ASSERT(align >= 4 && (align & (align - 1)) == 0);
    at.driver = 16u * num;
    at.device = VIRTQ_ALIGN_UP_(18u * num + 6u, align);
    at.total = VIRTQ_SPLIT_BYTES((uint32_t)num, align);
    return at;
}

/** Points `areas` into `mem`, VIRTQ_SPLIT_BYTES(num, align) bytes aligned to `align` and to 16;
 *  clears flags. Any context. */
VIRTIO_INLINE void virtq_split_areas(struct virtq_areas *areas, void *mem, uint16_t num,
                                     uint32_t align)
{
    struct virtq_offsets at = virtq_split_offsets(num, align);

    areas->num = num;
    areas->flags = 0;
    areas->desc = mem;
    areas->driver = (uint8_t *)mem + at.driver;
    areas->device = (uint8_t *)mem + at.device;
}

/** Text of an error of this file, or NULL if `err` is none of them. Any context. */
VIRTIO_INLINE const char *virtq_err_name(int err)
{
    switch (err) {
    case VIRTQ_ERR_SIZE: return "queue size is not a power of two from 1 to 32768";
    case VIRTQ_ERR_ALIGN: return "queue area missing or not aligned";
    case VIRTQ_ERR_EMPTY: return "buffer without a segment";
    case VIRTQ_ERR_LENGTH: return "buffer of more than 2^32 bytes";
    case VIRTQ_ERR_TOO_LONG: return "buffer has more segments than the queue has entries";
    case VIRTQ_ERR_FULL: return "queue full";
    case VIRTQ_ERR_BROKEN: return "queue broken, reset needed";
    case VIRTQ_ERR_USED_IDX: return "device moved the used index too far";
    case VIRTQ_ERR_USED_ID: return "device used a buffer that is not outstanding";
    case VIRTQ_ERR_USED_LEN: return "device says it wrote more than the buffer holds";
    case VIRTQ_ERR_AVAIL_IDX: return "driver moved the available index too far";
    case VIRTQ_ERR_AVAIL_HEAD: return "driver made a descriptor available that does not exist";
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
 * `now`? The only formula for it; the casts make it right across 65535 (L-EVT-05). Any context.
 */
VIRTIO_INLINE bool virtq_event_due(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}
/** @} */

enum { VIRTQ_BROKEN_ = 0x8000 }; /* in flags of either side */

/* Ring byte order: little-endian, or the CPU's own under VIRTQ_LEGACY. Folds to nothing on a
 * little-endian CPU. */
VIRTIO_INLINE bool virtq_swapped_(uint16_t flags)
{
    return VIRTIO_BIG_ENDIAN && !(flags & VIRTQ_LEGACY);
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

/* Places inside the two rings (L-SPLIT-02, L-SPLIT-03); the event words follow the ring's *actual*
 * size. */
enum { VIRTQ_RING_FLAGS_ = 0, VIRTQ_RING_IDX_ = 1, VIRTQ_AVAIL_RING_ = 2 };

VIRTIO_INLINE uint16_t *virtq_avail_slot_(uint16_t *avail, uint16_t last, uint16_t idx)
{
    return avail + VIRTQ_AVAIL_RING_ + (size_t)(idx & last);
}
VIRTIO_INLINE uint16_t *virtq_used_event_(uint16_t *avail, uint16_t last)
{
    return avail + VIRTQ_AVAIL_RING_ + (size_t)last + 1;
}
VIRTIO_INLINE struct virtq_split_used *virtq_used_slot_(uint16_t *used, uint16_t last, uint16_t idx)
{
    return (struct virtq_split_used *)(void *)(used + 2) + (size_t)(idx & last);
}
VIRTIO_INLINE uint16_t *virtq_avail_event_(uint16_t *used, uint16_t last)
{
    return used + 2 + 4 * ((size_t)last + 1);
}

VIRTIO_INLINE bool virtq_misaligned_(const void *p, uintptr_t align)
{
    return p == NULL || ((uintptr_t)p & (align - 1)) != 0;
}
VIRTIO_INLINE int virtq_check_areas_(const struct virtq_areas *areas)
{
    if (!virtq_split_size_ok(areas->num))
        return VIRTQ_ERR_SIZE;
    if (virtq_misaligned_(areas->desc, 16) || virtq_misaligned_(areas->driver, 2) ||
        virtq_misaligned_(areas->device, 4))
        return VIRTQ_ERR_ALIGN;
    return 0;
}

/* ---------------------------------------------------------------------------
 * 5. Split ring, driver side
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_driver Ring, driver side
 * Serialise all calls on one queue side; the device may run at any time. The device is not
 * trusted: whatever it writes, the functions return, touch only their own memory and the three
 * areas, and hand out no cookie twice. A violation breaks the queue: every call then says
 * VIRTQ_ERR_BROKEN until virtq_driver_init(); virtq_driver_detach() still returns the cookies.
 * @{
 */

VIRTIO_INLINE void virtq_driver_zero_(void *area, size_t bytes)
{
    uint8_t *byte = (uint8_t *)area;

    for (size_t i = 0; i < bytes; i++)
        VIRTIO_STORE8(&byte[i], 0); /* volatile: must not become a libc call */
}

/**
 * Starts a queue: checks and zeroes the areas (D-SPLIT-07). Call before the device learns of them.
 * @param slots  array of areas->num, kept and used until the queue is given up
 * @return 0, VIRTQ_ERR_SIZE or VIRTQ_ERR_ALIGN (nothing changed)
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_init(struct virtq_driver *q,
                                                     const struct virtq_areas *areas,
                                                     struct virtq_slot *slots)
{
    struct virtq_offsets at;
    int err = virtq_check_areas_(areas);

    if (err != 0)
        return err;
    at = virtq_split_offsets(areas->num, 4);
    virtq_driver_zero_(areas->desc, at.driver);
    virtq_driver_zero_(areas->driver, 6u + 2u * areas->num);
    virtq_driver_zero_(areas->device, 6u + 8u * areas->num);
    for (uint16_t i = 0; i < areas->num; i++) {
        slots[i].cookie = NULL;
        slots[i].writable = 0;
        slots[i].next = (uint16_t)(i + 1);
        slots[i].count = 0;
    }
    q->desc = (struct virtq_split_desc *)areas->desc;
    q->avail = (uint16_t *)areas->driver;
    q->used = (uint16_t *)areas->device;
    q->slots = slots;
    q->last = (uint16_t)(areas->num - 1);
    q->flags = areas->flags;
    q->free_head = 0;
    q->free_count = areas->num;
    q->added_idx = q->published_idx = q->kicked_idx = q->taken_idx = 0;
    return 0;
}

/** Free descriptors: a direct buffer takes one per segment, an indirect one takes one. */
VIRTIO_INLINE uint16_t virtq_driver_free_count(const struct virtq_driver *q)
{
    return q->free_count;
}

/** True once the device violated the protocol. */
VIRTIO_INLINE bool virtq_driver_broken(const struct virtq_driver *q)
{
    return (q->flags & VIRTQ_BROKEN_) != 0;
}

VIRTIO_OUTLINE void virtq_driver_break_(struct virtq_driver *q)
{
    q->flags |= VIRTQ_BROKEN_;
    q->free_count = 0;
}

/* Why an add of `count` descriptors found no room. */
VIRTIO_INLINE int virtq_driver_no_room_(const struct virtq_driver *q, uint32_t count)
{
    if (virtq_driver_broken(q))
        return VIRTQ_ERR_BROKEN;
    return count > (uint32_t)q->last + 1 ? VIRTQ_ERR_TOO_LONG : VIRTQ_ERR_FULL;
}

/* Fills one descriptor of the table or of an indirect one; nothing is visible before publish. */
VIRTIO_INLINE void virtq_desc_write_(struct virtq_split_desc *desc, uint16_t order,
                                     struct virtq_seg seg, uint16_t flags, uint16_t next)
{
    VIRTIO_STORE64(&desc->addr, virtq_order64_(order, seg.addr));
    VIRTIO_STORE32(&desc->len, virtq_order32_(order, seg.len));
    VIRTIO_STORE16(&desc->flags, virtq_order16_(order, flags));
    VIRTIO_STORE16(&desc->next, virtq_order16_(order, next));
}

/* Turns `count` filled descriptors from free_head to `tail` into an outstanding chain and queues its
 * head in the available ring. */
VIRTIO_INLINE void virtq_driver_queue_(struct virtq_driver *q, uint16_t count, uint16_t tail,
                                       uint32_t writable, void *cookie)
{
    uint16_t head = q->free_head;
    struct virtq_slot *slot = &q->slots[head];

    slot->cookie = cookie;
    slot->writable = writable;
    slot->count = count;
    q->free_head = q->slots[tail].next;
    q->free_count = (uint16_t)(q->free_count - count);
    VIRTIO_STORE16(virtq_avail_slot_(q->avail, q->last, q->added_idx),
                   virtq_order16_(q->flags, head));
    q->added_idx++;
}

VIRTIO_INLINE int virtq_driver_add_single_(struct virtq_driver *q, struct virtq_seg seg,
                                           uint16_t desc_flags, uint32_t writable, void *cookie)
{
    if (VIRTIO_UNLIKELY(q->free_count == 0))
        return virtq_driver_no_room_(q, 1);
    virtq_desc_write_(&q->desc[q->free_head], q->flags, seg, desc_flags, 0);
    virtq_driver_queue_(q, 1, q->free_head, writable, cookie);
    return 0;
}

/** Adds a buffer of one segment that the device reads. Straight-line code; see virtq_driver_add(). */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add_readable(struct virtq_driver *q,
                                                             struct virtq_seg seg, void *cookie)
{
    return virtq_driver_add_single_(q, seg, 0, 0, cookie);
}

/** Adds a buffer of one segment that the device writes. Straight-line code; see
 *  virtq_driver_add(). */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add_writable(struct virtq_driver *q,
                                                             struct virtq_seg seg, void *cookie)
{
    return virtq_driver_add_single_(q, seg, VIRTQ_DESC_FLAG_WRITE, seg.len, cookie);
}

/** Adds a buffer of two segments, the first read and the second written by the device: a request
 *  and its answer. Straight-line code; see virtq_driver_add(). */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add_pair(struct virtq_driver *q,
                                                         struct virtq_seg readable,
                                                         struct virtq_seg writable, void *cookie)
{
    uint16_t second;

    if (VIRTIO_UNLIKELY(q->free_count < 2))
        return virtq_driver_no_room_(q, 2);
    if (VIRTIO_UNLIKELY((uint64_t)readable.len + writable.len > (uint64_t)UINT32_MAX + 1))
        return VIRTQ_ERR_LENGTH;
    second = q->slots[q->free_head].next;
    virtq_desc_write_(&q->desc[q->free_head], q->flags, readable, VIRTQ_DESC_FLAG_NEXT, second);
    virtq_desc_write_(&q->desc[second], q->flags, writable, VIRTQ_DESC_FLAG_WRITE, 0);
    q->slots[second].writable = second;
    virtq_driver_queue_(q, 2, second, writable.len, cookie);
    return 0;
}

/* Checks a buffer's shape and sums its writable bytes into *writable (saturated: 2^32 does not
 * fit, and no used length can exceed it). */
VIRTIO_INLINE int virtq_buffer_check_(const struct virtq_driver *q,
                                      const struct virtq_buffer *buffer, uint32_t *writable)
{
    uint32_t count = (uint32_t)buffer->readable + buffer->writable;
    uint64_t total = 0, readable = 0;

    if (count == 0)
        return VIRTQ_ERR_EMPTY;
    if (count > (uint32_t)q->last + 1)
        return virtq_driver_no_room_(q, count);
    for (uint32_t i = 0; i < count; i++) {
        VIRTIO_ASSERT(buffer->seg[i].len != 0);
        if (i == buffer->readable)
            readable = total;
        total += buffer->seg[i].len;
    }
    if (total > (uint64_t)UINT32_MAX + 1)
        return VIRTQ_ERR_LENGTH;
    total -= buffer->writable != 0 ? readable : total;
    *writable = total > UINT32_MAX ? UINT32_MAX : (uint32_t)total;
    return 0;
}

/* Flags of segment i of a buffer, NEXT included. */
VIRTIO_INLINE uint16_t virtq_buffer_flags_(const struct virtq_buffer *buffer, uint32_t i)
{
    uint32_t last = (uint32_t)buffer->readable + buffer->writable - 1;

    return (uint16_t)((i >= buffer->readable ? VIRTQ_DESC_FLAG_WRITE : 0) |
                      (i != last ? VIRTQ_DESC_FLAG_NEXT : 0));
}

/**
 * Adds a buffer: readable segments first, then writable ones, one descriptor each. The device sees
 * nothing of it before virtq_driver_publish().
 * @param cookie  handed back by take or detach; any value
 * @return 0; VIRTQ_ERR_FULL; VIRTQ_ERR_EMPTY, VIRTQ_ERR_TOO_LONG, VIRTQ_ERR_LENGTH;
 *         VIRTQ_ERR_BROKEN. On an error nothing changed.
 * VIRTIO 2.7.13.1; D-SPLIT-02, D-SPLIT-03, D-SPLIT-08, D-VQ-01.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add(struct virtq_driver *q,
                                                    const struct virtq_buffer *buffer, void *cookie)
{
    uint32_t count = (uint32_t)buffer->readable + buffer->writable, writable = 0;
    uint16_t at = q->free_head, tail = at;
    int err = virtq_buffer_check_(q, buffer, &writable);

    if (VIRTIO_UNLIKELY(err != 0))
        return err;
    if (VIRTIO_UNLIKELY(count > q->free_count))
        return virtq_driver_no_room_(q, count);
    for (uint32_t i = 0; i < count; i++) {
        uint16_t next = q->slots[at].next;

        virtq_desc_write_(&q->desc[at], q->flags, buffer->seg[i], virtq_buffer_flags_(buffer, i),
                          next);
        tail = at;
        at = next;
    }
    if (count > 1)
        q->slots[q->slots[q->free_head].next].writable = tail;
    virtq_driver_queue_(q, (uint16_t)count, tail, writable, cookie);
    return 0;
}

/**
 * Adds a buffer through an indirect table where VIRTQ_INDIRECT is on, the buffer has at least two
 * segments and the table holds them; otherwise as virtq_driver_add().
 * @param table  the caller's memory, in use until the buffer completes
 * @return as virtq_driver_add()
 * VIRTIO 2.7.5.3; D-IND-01 to D-IND-05.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_add_indirect(struct virtq_driver *q,
                                                             const struct virtq_buffer *buffer,
                                                             const struct virtq_table *table,
                                                             void *cookie)
{
    uint32_t count = (uint32_t)buffer->readable + buffer->writable, writable = 0;
    struct virtq_split_desc *desc = (struct virtq_split_desc *)table->mem;
    struct virtq_seg whole;
    int err;

    if (!(q->flags & VIRTQ_INDIRECT) || count < 2 || count > table->capacity)
        return virtq_driver_add(q, buffer, cookie);
    VIRTIO_ASSERT(!virtq_misaligned_(table->mem, 8));
    err = virtq_buffer_check_(q, buffer, &writable);
    if (VIRTIO_UNLIKELY(err != 0))
        return err;
    if (VIRTIO_UNLIKELY(q->free_count == 0))
        return virtq_driver_no_room_(q, 1);
    for (uint32_t i = 0; i < count; i++)
        virtq_desc_write_(&desc[i], q->flags, buffer->seg[i], virtq_buffer_flags_(buffer, i),
                          (uint16_t)(i + 1));
    whole.addr = table->addr;
    whole.len = count * (uint32_t)sizeof(*desc);
    return virtq_driver_add_single_(q, whole, VIRTQ_DESC_FLAG_INDIRECT, writable, cookie);
}

/** Makes everything added so far visible to the device: one release store. VIRTIO 2.7.13.3;
 *  D-SPLIT-05. Follow with virtq_driver_kick_due(). */
VIRTIO_INLINE void virtq_driver_publish(struct virtq_driver *q)
{
    q->published_idx = q->added_idx;
    /* [A] pairs with virtq_split_refill_(): descriptors and ring slots before the index. */
    VIRTIO_STORE_RELEASE16(&q->avail[VIRTQ_RING_IDX_], virtq_order16_(q->flags, q->published_idx));
}

/**
 * Must the device be notified of what was published since the last call? Call after publish; a
 * `true` obliges the caller to kick (it may do so after leaving its lock). Contains the full fence.
 * VIRTIO 2.7.10; D-SPLIT-06, D-EVT-02, D-EVT-04.
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_driver_kick_due(struct virtq_driver *q)
{
    uint16_t old = q->kicked_idx, now = q->published_idx, hint;

    q->kicked_idx = now;
    /* [C] pairs with virtq_device_kick_on(): our index before its event or flag. */
    VIRTIO_FENCE_FULL();
    if (q->flags & VIRTQ_EVENT_IDX) {
        hint = VIRTIO_LOAD_RELAXED16(virtq_avail_event_(q->used, q->last));
        return virtq_event_due(virtq_order16_(q->flags, hint), now, old);
    }
    hint = VIRTIO_LOAD_RELAXED16(&q->used[VIRTQ_RING_FLAGS_]);
    return !(virtq_order16_(q->flags, hint) & VIRTQ_USED_FLAG_NO_KICK) && now != old;
}

/* Completions that the device has published and the caller has not taken. [B] pairs with
 * virtq_device_flush(): the index before the entries and the data. */
VIRTIO_INLINE uint16_t virtq_driver_pending_(const struct virtq_driver *q)
{
    uint16_t idx = VIRTIO_LOAD_ACQUIRE16(&q->used[VIRTQ_RING_IDX_]);

    return (uint16_t)(virtq_order16_(q->flags, idx) - q->taken_idx);
}

/* Puts a completed chain back on the free list, private links only (D-SPLIT-13). */
VIRTIO_INLINE void virtq_driver_release_(struct virtq_driver *q, uint16_t head)
{
    struct virtq_slot *slot = &q->slots[head], *tail = slot;

    if (slot->count > 1)
        tail = &q->slots[q->slots[slot->next].writable];
    q->free_count = (uint16_t)(q->free_count + slot->count);
    slot->count = 0;
    tail->next = q->free_head;
    q->free_head = head;
}

/**
 * Takes one completed buffer.
 * @param done  set only when 1 is returned
 * @return 1: taken; 0: none pending; VIRTQ_ERR_USED_IDX, VIRTQ_ERR_USED_ID, VIRTQ_ERR_USED_LEN:
 *         the device broke the queue just now; VIRTQ_ERR_BROKEN: earlier
 * VIRTIO 2.7.14; D-SPLIT-09, D-SPLIT-11, D-SPLIT-12.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_driver_take(struct virtq_driver *q,
                                                     struct virtq_done *done)
{
    uint16_t pending = virtq_driver_pending_(q);
    const struct virtq_split_used *entry;
    struct virtq_slot *slot;
    uint32_t id, len;

    if (VIRTIO_UNLIKELY(virtq_driver_broken(q)))
        return VIRTQ_ERR_BROKEN;
    if (pending == 0)
        return 0;
    if (VIRTIO_UNLIKELY(pending > (uint16_t)(q->published_idx - q->taken_idx))) {
        virtq_driver_break_(q);
        return VIRTQ_ERR_USED_IDX;
    }
    entry = virtq_used_slot_(q->used, q->last, q->taken_idx);
    id = virtq_order32_(q->flags, VIRTIO_LOAD32(&entry->id));
    len = virtq_order32_(q->flags, VIRTIO_LOAD32(&entry->len));
    if (VIRTIO_UNLIKELY(id > q->last)) {
        virtq_driver_break_(q);
        return VIRTQ_ERR_USED_ID;
    }
    slot = &q->slots[id];
    if (VIRTIO_UNLIKELY(slot->count == 0)) {
        virtq_driver_break_(q);
        return VIRTQ_ERR_USED_ID;
    }
    if (VIRTIO_UNLIKELY(len > slot->writable)) {
        if (!(q->flags & VIRTQ_LEGACY)) {
            virtq_driver_break_(q);
            return VIRTQ_ERR_USED_LEN;
        }
        len = slot->writable;
    }
    done->cookie = slot->cookie;
    done->written = len;
    virtq_driver_release_(q, (uint16_t)id);
    q->taken_idx++;
    return 1;
}

VIRTIO_INLINE void virtq_driver_set_used_event_(struct virtq_driver *q, uint16_t idx)
{
    VIRTIO_STORE_RELAXED16(virtq_used_event_(q->avail, q->last), virtq_order16_(q->flags, idx));
}
VIRTIO_INLINE void virtq_driver_set_flags_(struct virtq_driver *q, uint16_t flags)
{
    VIRTIO_STORE_RELAXED16(&q->avail[VIRTQ_RING_FLAGS_], virtq_order16_(q->flags, flags));
}

/** Asks the device for no more interrupts; a hint, one may still come. With EVENT_IDX the event is
 *  left behind, since the flag must stay 0 (D-EVT-03, D-EVT-07). */
VIRTIO_INLINE void virtq_driver_irq_off(struct virtq_driver *q)
{
    if (q->flags & VIRTQ_EVENT_IDX)
        virtq_driver_set_used_event_(q, (uint16_t)(q->taken_idx - 1));
    else
        virtq_driver_set_flags_(q, VIRTQ_AVAIL_FLAG_NO_IRQ);
}

/**
 * Asks for an interrupt at the next completion, and again at each if EVENT_IDX is off. Call it
 * after every drain: with EVENT_IDX it arms one interrupt.
 * @return true if completions are pending already, for which no interrupt may come: take them and
 *         call again. Never true for a broken queue.
 * VIRTIO 2.7.14; D-EVT-01, D-EVT-03, D-SPLIT-10.
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_driver_irq_on(struct virtq_driver *q)
{
    if (q->flags & VIRTQ_EVENT_IDX)
        virtq_driver_set_used_event_(q, q->taken_idx);
    else
        virtq_driver_set_flags_(q, 0);
    /* [D] pairs with virtq_device_irq_due(): our event or flag before its index. */
    VIRTIO_FENCE_FULL();
    return virtq_driver_pending_(q) != 0 && !virtq_driver_broken(q);
}

/**
 * As virtq_driver_irq_on(), but asks for the interrupt only when three quarters of the outstanding
 * buffers are complete; without EVENT_IDX, at the next one.
 * @return true if that many are pending already
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_driver_irq_on_after(struct virtq_driver *q)
{
    uint16_t outstanding = (uint16_t)(q->published_idx - q->taken_idx);
    uint16_t wait = (uint16_t)(outstanding - outstanding / 4);

    if (!(q->flags & VIRTQ_EVENT_IDX) || wait == 0)
        return virtq_driver_irq_on(q);
    virtq_driver_set_used_event_(q, (uint16_t)(q->taken_idx + wait - 1));
    VIRTIO_FENCE_FULL(); /* [D] as in virtq_driver_irq_on() */
    return virtq_driver_pending_(q) >= wait && !virtq_driver_broken(q);
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
    virtq_driver_break_(q);
    return false;
}
/** @} */

/* ---------------------------------------------------------------------------
 * 6. Split ring, device side
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtq_device Ring, device side
 * Serialise all calls on one queue side; the driver may run at any time. The driver is not
 * trusted: each descriptor is fetched once into private memory and checked there, every loop is
 * bounded, and at most `num` buffers are between pop and push at any time. The segments' addresses
 * are still the driver's: map them with a check of their own before use (addr + len does not wrap,
 * and the sum of all lengths is at most 2^32).
 * @{
 */

/**
 * Starts the device side of a queue whose memory the driver has set up; writes nothing to it.
 * @param map  maps indirect tables; NULL if areas->flags lacks VIRTQ_INDIRECT
 * @return 0, VIRTQ_ERR_SIZE or VIRTQ_ERR_ALIGN (nothing changed)
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_device_init(struct virtq_device *q,
                                                     const struct virtq_areas *areas,
                                                     virtq_map_fn map, void *map_ctx)
{
    int err = virtq_check_areas_(areas);

    if (err != 0)
        return err;
    VIRTIO_ASSERT(map != NULL || !(areas->flags & VIRTQ_INDIRECT));
    q->desc = (const struct virtq_split_desc *)areas->desc;
    q->avail = (uint16_t *)areas->driver;
    q->used = (uint16_t *)areas->device;
    q->map = map;
    q->map_ctx = map_ctx;
    q->last = (uint16_t)(areas->num - 1);
    q->flags = areas->flags;
    q->seen_idx = q->popped_idx = q->pushed_idx = q->flushed_idx = q->signalled_idx = 0;
    return 0;
}

/** True once the driver violated the protocol. Then answer with DEVICE_NEEDS_RESET. */
VIRTIO_INLINE bool virtq_device_broken(const struct virtq_device *q)
{
    return (q->flags & VIRTQ_BROKEN_) != 0;
}

VIRTIO_OUTLINE void virtq_device_break_(struct virtq_device *q)
{
    q->flags |= VIRTQ_BROKEN_;
    q->seen_idx = q->popped_idx; /* the next pop goes through virtq_split_refill_() */
}

VIRTIO_INLINE uint16_t virtq_device_avail_idx_(const struct virtq_device *q)
{
    /* [A] pairs with virtq_driver_publish(): the index before slots and descriptors. */
    return virtq_order16_(q->flags, VIRTIO_LOAD_ACQUIRE16(&q->avail[VIRTQ_RING_IDX_]));
}

/* Looks for newly available buffers: 1 if there are, 0 if not. The index may be ahead of what was
 * pushed by the queue size at most, since every buffer holds a descriptor until then. */
VIRTIO_INLINE int virtq_split_refill_(struct virtq_device *q)
{
    uint16_t idx;

    if (VIRTIO_UNLIKELY(virtq_device_broken(q)))
        return VIRTQ_ERR_BROKEN;
    idx = virtq_device_avail_idx_(q);
    if (idx == q->popped_idx)
        return 0;
    if (VIRTIO_UNLIKELY((uint16_t)(idx - q->pushed_idx) > (uint32_t)q->last + 1 ||
                        (uint16_t)(idx - q->popped_idx) > (uint16_t)(idx - q->pushed_idx))) {
        virtq_device_break_(q);
        return VIRTQ_ERR_AVAIL_IDX;
    }
    q->seen_idx = idx;
    return 1;
}

/* A descriptor in private memory: what is checked is what is used (V-SPLIT-07). */
VIRTIO_INLINE struct virtq_split_desc virtq_desc_read_(const struct virtq_split_desc *desc,
                                                       uint16_t order)
{
    struct virtq_split_desc copy;

    copy.addr = virtq_order64_(order, VIRTIO_LOAD64(&desc->addr));
    copy.len = virtq_order32_(order, VIRTIO_LOAD32(&desc->len));
    copy.flags = virtq_order16_(order, VIRTIO_LOAD16(&desc->flags));
    copy.next = virtq_order16_(order, VIRTIO_LOAD16(&desc->next));
    return copy;
}

/* The same at any alignment: an indirect table has no alignment rule (V-IND-03). */
VIRTIO_INLINE struct virtq_split_desc virtq_table_read_(const void *table, uint32_t i,
                                                        uint16_t order)
{
    struct virtq_split_desc copy;
    const uint8_t *from = (const uint8_t *)table + 16 * (size_t)i;
    uint8_t *to = (uint8_t *)&copy;

    if (VIRTIO_LIKELY(!virtq_misaligned_(table, 8)))
        return virtq_desc_read_((const struct virtq_split_desc *)table + i, order);
    for (unsigned byte = 0; byte < sizeof(copy); byte++)
        to[byte] = VIRTIO_LOAD8(&from[byte]);
    copy.addr = virtq_order64_(order, copy.addr);
    copy.len = virtq_order32_(order, copy.len);
    copy.flags = virtq_order16_(order, copy.flags);
    copy.next = virtq_order16_(order, copy.next);
    return copy;
}

/* Appends one checked segment to the chain; *total sums the bytes of the chain. */
VIRTIO_INLINE int virtq_chain_append_(struct virtq_chain *chain, const struct virtq_split_desc *d,
                                      uint64_t *total)
{
    uint32_t at = (uint32_t)chain->readable + chain->writable;

    if (VIRTIO_UNLIKELY(at >= chain->capacity))
        return VIRTQ_ERR_CHAIN_CAPACITY;
    *total += d->len;
    if (VIRTIO_UNLIKELY(*total > (uint64_t)UINT32_MAX + 1 ||
                        d->addr + d->len < d->addr))
        return VIRTQ_ERR_CHAIN_LENGTH;
    if (d->flags & VIRTQ_DESC_FLAG_WRITE)
        chain->writable++;
    else if (VIRTIO_UNLIKELY(chain->writable != 0))
        return VIRTQ_ERR_CHAIN_ORDER;
    else
        chain->readable++;
    chain->seg[at].addr = d->addr;
    chain->seg[at].len = d->len;
    return 0;
}

/* Walks an indirect table whose descriptor is `whole`. Ends: no more links than entries. */
VIRTIO_OUTLINE int virtq_split_walk_table_(const struct virtq_device *q,
                                          const struct virtq_split_desc *whole,
                                          struct virtq_chain *chain, uint64_t *total)
{
    uint32_t entries = whole->len / 16, at = 0;
    const void *table;

    if (!(q->flags & VIRTQ_INDIRECT))
        return VIRTQ_ERR_INDIRECT_OFF;
    if (whole->flags & VIRTQ_DESC_FLAG_NEXT)
        return VIRTQ_ERR_INDIRECT_NEXT;
    if (entries == 0 || whole->len % 16 != 0)
        return VIRTQ_ERR_INDIRECT_LEN;
    table = q->map(q->map_ctx, whole->addr, whole->len);
    if (table == NULL)
        return VIRTQ_ERR_INDIRECT_MAP;
    for (uint32_t left = entries; left != 0; left--) {
        struct virtq_split_desc d = virtq_table_read_(table, at, q->flags);
        int err;

        if (d.flags & VIRTQ_DESC_FLAG_INDIRECT)
            return VIRTQ_ERR_INDIRECT_NESTED;
        err = virtq_chain_append_(chain, &d, total);
        if (err != 0)
            return err;
        if (!(d.flags & VIRTQ_DESC_FLAG_NEXT))
            return 1;
        at = d.next;
        if (at >= entries)
            return VIRTQ_ERR_CHAIN_NEXT;
    }
    return VIRTQ_ERR_CHAIN_LOOP;
}

/* Walks the chain whose first descriptor is `d`. Ends: no more links than the queue has entries. */
VIRTIO_OUTLINE int virtq_split_walk_(const struct virtq_device *q, struct virtq_split_desc d,
                                    struct virtq_chain *chain)
{
    uint64_t total = 0;

    chain->readable = chain->writable = 0;
    for (uint32_t links = 0; links <= q->last; links++) {
        int err;

        if (d.flags & VIRTQ_DESC_FLAG_INDIRECT)
            return virtq_split_walk_table_(q, &d, chain, &total);
        err = virtq_chain_append_(chain, &d, &total);
        if (err != 0)
            return err;
        if (!(d.flags & VIRTQ_DESC_FLAG_NEXT))
            return 1;
        if (d.next > q->last)
            return VIRTQ_ERR_CHAIN_NEXT;
        d = virtq_desc_read_(&q->desc[d.next], q->flags);
    }
    return VIRTQ_ERR_CHAIN_LOOP;
}

/* A chain of one plain descriptor, the common case, without a loop. */
VIRTIO_INLINE int virtq_split_single_(const struct virtq_split_desc *d, struct virtq_chain *chain)
{
    uint16_t writable = (d->flags & VIRTQ_DESC_FLAG_WRITE) != 0;

    if (VIRTIO_UNLIKELY(d->addr + d->len < d->addr))
        return VIRTQ_ERR_CHAIN_LENGTH;
    chain->writable = writable;
    chain->readable = (uint16_t)(1 - writable);
    chain->seg[0].addr = d->addr;
    chain->seg[0].len = d->len;
    return 1;
}

/**
 * Takes the next available buffer.
 * @param chain  seg and capacity set by the caller; filled in when 1 is returned. After an error
 *               of virtq_err_names_chain() only its token is meaningful.
 * @return 1: a chain; 0: none; a VIRTQ_ERR_CHAIN_* or VIRTQ_ERR_INDIRECT_*: the chain is malformed
 *         and consumed, push chain->token with length 0 or give up; VIRTQ_ERR_AVAIL_IDX,
 *         VIRTQ_ERR_AVAIL_HEAD: the driver broke the queue just now; VIRTQ_ERR_BROKEN: earlier
 * VIRTIO 2.7.5, 2.7.6; V-SPLIT-06, V-SPLIT-07, V-IND-01 to V-IND-03.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtq_device_pop(struct virtq_device *q,
                                                    struct virtq_chain *chain)
{
    struct virtq_split_desc first;
    uint16_t head;

    VIRTIO_ASSERT(chain->capacity != 0);
    if (q->popped_idx == q->seen_idx) {
        int more = virtq_split_refill_(q);

        if (more <= 0)
            return more;
    }
    head = VIRTIO_LOAD16(virtq_avail_slot_(q->avail, q->last, q->popped_idx));
    head = virtq_order16_(q->flags, head);
    if (VIRTIO_UNLIKELY(head > q->last)) {
        virtq_device_break_(q);
        return VIRTQ_ERR_AVAIL_HEAD;
    }
    q->popped_idx++;
    chain->token = head;
    first = virtq_desc_read_(&q->desc[head], q->flags);
    if (VIRTIO_LIKELY(!(first.flags & (VIRTQ_DESC_FLAG_NEXT | VIRTQ_DESC_FLAG_INDIRECT))))
        return virtq_split_single_(&first, chain);
    return virtq_split_walk_(q, first, chain);
}

/**
 * Completes a popped buffer; the driver sees it at the next virtq_device_flush(). Any order.
 * @param token    virtq_chain::token of a buffer that was popped and not pushed yet
 * @param written  bytes written from the first writable one on; 0 if none
 * VIRTIO 2.7.8; V-SPLIT-03, V-SPLIT-04.
 */
VIRTIO_INLINE void virtq_device_push(struct virtq_device *q, uint32_t token, uint32_t written)
{
    struct virtq_split_used *entry = virtq_used_slot_(q->used, q->last, q->pushed_idx);

    VIRTIO_ASSERT(q->pushed_idx != q->popped_idx && token <= q->last);
    VIRTIO_STORE32(&entry->id, virtq_order32_(q->flags, token));
    VIRTIO_STORE32(&entry->len, virtq_order32_(q->flags, written));
    q->pushed_idx++;
}

/** Makes everything pushed so far visible to the driver: one release store. V-SPLIT-05. Follow with
 *  virtq_device_irq_due(). */
VIRTIO_INLINE void virtq_device_flush(struct virtq_device *q)
{
    q->flushed_idx = q->pushed_idx;
    /* [B] pairs with virtq_driver_take(): data and entries before the index. */
    VIRTIO_STORE_RELEASE16(&q->used[VIRTQ_RING_IDX_], virtq_order16_(q->flags, q->flushed_idx));
}

/**
 * Must the driver be interrupted for what was flushed since the last call? Contains the full fence.
 * VIRTIO 2.7.7; V-EVT-01, V-EVT-03.
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_device_irq_due(struct virtq_device *q)
{
    uint16_t old = q->signalled_idx, now = q->flushed_idx, hint;

    q->signalled_idx = now;
    /* [D] pairs with virtq_driver_irq_on(): our index before its event or flag. */
    VIRTIO_FENCE_FULL();
    if (q->flags & VIRTQ_EVENT_IDX) {
        hint = VIRTIO_LOAD_RELAXED16(virtq_used_event_(q->avail, q->last));
        return virtq_event_due(virtq_order16_(q->flags, hint), now, old);
    }
    hint = VIRTIO_LOAD_RELAXED16(&q->avail[VIRTQ_RING_FLAGS_]);
    return !(virtq_order16_(q->flags, hint) & VIRTQ_AVAIL_FLAG_NO_IRQ) && now != old;
}

VIRTIO_INLINE void virtq_device_set_avail_event_(struct virtq_device *q, uint16_t idx)
{
    VIRTIO_STORE_RELAXED16(virtq_avail_event_(q->used, q->last), virtq_order16_(q->flags, idx));
}
VIRTIO_INLINE void virtq_device_set_flags_(struct virtq_device *q, uint16_t flags)
{
    VIRTIO_STORE_RELAXED16(&q->used[VIRTQ_RING_FLAGS_], virtq_order16_(q->flags, flags));
}

/** Asks the driver for no more kicks; a hint, one may still come (V-EVT-02, V-EVT-04, V-VQ-03). */
VIRTIO_INLINE void virtq_device_kick_off(struct virtq_device *q)
{
    if (q->flags & VIRTQ_EVENT_IDX)
        virtq_device_set_avail_event_(q, (uint16_t)(q->popped_idx - 1));
    else
        virtq_device_set_flags_(q, VIRTQ_USED_FLAG_NO_KICK);
}

/**
 * Asks for a kick at the next available buffer. Call it after every drain: with EVENT_IDX it arms
 * one kick.
 * @return true if buffers are available already, for which no kick may come: pop them and call
 *         again. Never true for a broken queue.
 * VIRTIO 2.7.10; V-EVT-02, V-EVT-04.
 */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtq_device_kick_on(struct virtq_device *q)
{
    if (q->flags & VIRTQ_EVENT_IDX)
        virtq_device_set_avail_event_(q, q->popped_idx);
    else
        virtq_device_set_flags_(q, 0);
    /* [C] pairs with virtq_driver_kick_due(): our event or flag before its index. */
    VIRTIO_FENCE_FULL();
    return virtq_device_avail_idx_(q) != q->popped_idx && !virtq_device_broken(q);
}

/** The position to move to another device side. Flush first; buffers between pop and push are not
 *  part of it: finish them, or let the other side pop them again by an older avail_idx. */
VIRTIO_INLINE struct virtq_device_state virtq_device_save(const struct virtq_device *q)
{
    struct virtq_device_state state;

    VIRTIO_ASSERT(q->pushed_idx == q->flushed_idx);
    state.avail_idx = q->popped_idx;
    state.used_idx = q->pushed_idx;
    return state;
}

/** Continues at a saved position; call right after virtq_device_init(). The values may come from
 *  anywhere: a wrong one is found by the checks of virtq_device_pop(). */
VIRTIO_INLINE void virtq_device_restore(struct virtq_device *q, struct virtq_device_state state)
{
    q->seen_idx = q->popped_idx = state.avail_idx;
    q->pushed_idx = q->flushed_idx = q->signalled_idx = state.used_idx;
}
/** @} */

#endif /* VIRTIO_RING_H */
