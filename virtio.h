// SPDX-License-Identifier: MIT-0
/**
 * @file virtio.h
 * @brief Register access, transports, the device life cycle; registers of an emulated device.
 *
 * This file finds nothing and allocates nothing: the caller maps registers and memory, this file
 * knows what they mean. It follows VIRTIO 1.0 to 1.4, legacy and the 2011 RFC "flexible
 * configuration layout": PCI in its three layouts and virtio-mmio of versions 1 and 2.
 * It includes the two other headers, which also work alone.
 *
 * How to use:
 *
 *     struct virtio_drv drv = {0};
 *     virtio_drv_mmio(&drv, &window);                  // or virtio_drv_pci(&drv, &layout, bars)
 *     virtio_drv_begin(&drv);                          // reset, ACKNOWLEDGE, DRIVER
 *     virtio_drv_negotiate(&drv, &wanted, &required);  // FEATURES_OK
 *     virtio_drv_config_read(&drv, fields, 2, values); // consistent by generation
 *     virtio_drv_queue_setup(&drv, &queue, 0, &setup); // split or packed, as negotiated
 *     virtio_drv_ready(&drv);                          // DRIVER_OK
 *     virtq_driver_add(&queue.ring, &buffer, request);
 *     virtq_driver_publish(&queue.ring);
 *     virtio_drv_kick(&queue);                         // at most one store
 *
 * Contents
 *
 *     1. Configuration
 *     2. Register windows
 *     3. Features, status, errors
 *     4. Registers
 *     5. PCI configuration space
 *     6. Driver-side types
 *     7. Life cycle
 *     8. Device configuration
 *     9. Queues, kicks, interrupts
 *     10. Transport: PCI modern
 *     11. Transport: PCI legacy and RFC-2011
 *     12. Transport: virtio-mmio
 *     13. Device-side types
 *     14. Device state
 *     15. Device-side registers
 *     16. Device-side views
 *     17. Device-side PCI function
 */
#ifndef VIRTIO_CORE_H
#define VIRTIO_CORE_H

#include "virtio_pci_caps.h"
#include "virtio_ring.h"

/* ---------------------------------------------------------------------------
 * 1. Configuration
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtio_config Register access configuration
 * As in virtio_ring.h: define before including, or in VIRTIO_CONFIG_FILE, the same in the whole
 * program.
 * @{
 */

/** Port I/O. A CPU without it leaves VIRTIO_HAVE_PORT at 0, and a window of kind
 *  VIRTIO_WINDOW_PORT is refused; a machine whose ports are mapped in memory uses
 *  VIRTIO_WINDOW_MMIO. Default: the instructions of x86. */
#ifndef VIRTIO_HAVE_PORT
#if defined(__i386__) || defined(__x86_64__)
#define VIRTIO_HAVE_PORT 1
VIRTIO_INLINE uint8_t virtio_port_read8_(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
VIRTIO_INLINE uint16_t virtio_port_read16_(uint16_t port)
{
    uint16_t value;

    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
VIRTIO_INLINE uint32_t virtio_port_read32_(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
VIRTIO_INLINE void virtio_port_write8_(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
VIRTIO_INLINE void virtio_port_write16_(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
VIRTIO_INLINE void virtio_port_write32_(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
#define VIRTIO_PORT_READ8(port) virtio_port_read8_(port)
#define VIRTIO_PORT_READ16(port) virtio_port_read16_(port)
#define VIRTIO_PORT_READ32(port) virtio_port_read32_(port)
#define VIRTIO_PORT_WRITE8(port, value) virtio_port_write8_((port), (value))
#define VIRTIO_PORT_WRITE16(port, value) virtio_port_write16_((port), (value))
#define VIRTIO_PORT_WRITE32(port, value) virtio_port_write32_((port), (value))
#else
#define VIRTIO_HAVE_PORT 0
#define VIRTIO_PORT_READ8(port) ((void)(port), (uint8_t)0xff)
#define VIRTIO_PORT_READ16(port) ((void)(port), (uint16_t)0xffff)
#define VIRTIO_PORT_READ32(port) ((void)(port), 0xffffffffu)
#define VIRTIO_PORT_WRITE8(port, value) ((void)(port), (void)(value))
#define VIRTIO_PORT_WRITE16(port, value) ((void)(port), (void)(value))
#define VIRTIO_PORT_WRITE32(port, value) ((void)(port), (void)(value))
#endif
#endif

/** Ordering of registers against RAM: VIRTIO_MMIO_BEFORE_WRITE() puts earlier RAM stores before a
 *  register store, VIRTIO_MMIO_AFTER_READ() puts later RAM loads after a register load. Defaults:
 *  x86 needs only the compiler held, Arm `dmb` or `dsb`, RISC-V the I/O bits of its fence, POWER
 *  `sync`, any other CPU a full fence. */
#ifndef VIRTIO_MMIO_BEFORE_WRITE
#if defined(__i386__) || defined(__x86_64__)
#define VIRTIO_MMIO_BEFORE_WRITE() __asm__ volatile("" ::: "memory")
#define VIRTIO_MMIO_AFTER_READ() __asm__ volatile("" ::: "memory")
#elif defined(__aarch64__)
#define VIRTIO_MMIO_BEFORE_WRITE() __asm__ volatile("dmb oshst" ::: "memory")
#define VIRTIO_MMIO_AFTER_READ() __asm__ volatile("dmb oshld" ::: "memory")
#elif defined(__ARM_ARCH) && (__ARM_ARCH >= 7 || defined(__ARM_ARCH_6M__))
#define VIRTIO_MMIO_BEFORE_WRITE() __asm__ volatile("dsb" ::: "memory")
#define VIRTIO_MMIO_AFTER_READ() __asm__ volatile("dmb" ::: "memory")
#elif defined(__riscv)
#define VIRTIO_MMIO_BEFORE_WRITE() __asm__ volatile("fence w, o" ::: "memory")
#define VIRTIO_MMIO_AFTER_READ() __asm__ volatile("fence i, r" ::: "memory")
#elif defined(__powerpc__)
#define VIRTIO_MMIO_BEFORE_WRITE() __asm__ volatile("sync" ::: "memory")
#define VIRTIO_MMIO_AFTER_READ() __asm__ volatile("sync" ::: "memory")
#else
#define VIRTIO_MMIO_BEFORE_WRITE() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define VIRTIO_MMIO_AFTER_READ() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif
#endif

/** The one kind of register window (enum virtio_window_kind) that the program uses, its ways to PCI
 *  configuration space included (CF8 is ports, ECAM memory), and the one transport of its drivers,
 *  for example virtio_transport_mmio(): no access then looks for the kind, no call goes through a
 *  table that this file has, and the code of the others can be left out. A device on another
 *  transport, or with registers in a window of another kind, is refused. An own transport is
 *  declared before this file is included. Default: any. */
#ifndef VIRTIO_WINDOW_ALWAYS
#define VIRTIO_WINDOW_ALWAYS VIRTIO_WINDOW_NONE
#endif
#ifndef VIRTIO_TRANSPORT_ALWAYS
#define VIRTIO_TRANSPORT_ALWAYS ((const struct virtio_transport *)NULL)
#endif

/** How often a wait looks at the device when the caller gave no relax hook. */
#ifndef VIRTIO_WAIT_POLLS
#define VIRTIO_WAIT_POLLS (1u << 20)
#endif

/** How often a config read starts over before it gives up on a device that keeps changing. */
#ifndef VIRTIO_CONFIG_TRIES
#define VIRTIO_CONFIG_TRIES 32u
#endif
/** @} */

/* ---------------------------------------------------------------------------
 * 2. Register windows
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtio_window Register windows
 * A piece of register space and how to reach it. Registers are little-endian; the functions take
 * and return values in CPU order. With a constant kind each compiles to one instruction (and, for
 * MMIO, the barrier of the CPU). Any context; no bounds check, the transports do it once.
 * @{
 */

enum virtio_window_kind {
    VIRTIO_WINDOW_NONE, /**< absent */
    VIRTIO_WINDOW_PORT, /**< port I/O: base is a port number */
    VIRTIO_WINDOW_MMIO, /**< memory-mapped: base is a mapped, uncached, aligned address */
    VIRTIO_WINDOW_CALLER /**< the caller's functions: base is whatever they understand; what is
                              wider than a pointer belongs into ctx */
};

/** Register access of VIRTIO_WINDOW_CALLER: `address` is the window's base plus the register's
 *  offset, `width` is 1, 2 or 4 bytes; values in CPU order. */
struct virtio_window_ops {
    uint32_t (*read)(void *ctx, uintptr_t address, unsigned width);
    void (*write)(void *ctx, uintptr_t address, unsigned width, uint32_t value);
};

struct virtio_window {
    uintptr_t base;
    uint32_t length; /**< bytes */
    uint8_t kind;    /**< enum virtio_window_kind */
    const struct virtio_window_ops *ops; /**< VIRTIO_WINDOW_CALLER; NULL otherwise */
    void *ctx;                           /**< handed to ops */
};

VIRTIO_INLINE uint16_t virtio_le16_(uint16_t value)
{
    return VIRTIO_BIG_ENDIAN ? __builtin_bswap16(value) : value;
}
VIRTIO_INLINE uint32_t virtio_le32_(uint32_t value)
{
    return VIRTIO_BIG_ENDIAN ? __builtin_bswap32(value) : value;
}
/* What is looked at, unless it is known. A port is told from the caller's window by having no
 * accessors, which are loaded next. */
#define VIRTIO_WINDOW_KIND_(kind)                                                                  \
    (VIRTIO_WINDOW_ALWAYS == VIRTIO_WINDOW_NONE ? (kind) : (uint8_t)VIRTIO_WINDOW_ALWAYS)
#define VIRTIO_WINDOW_IS_PORT_(ops)                                                                \
    (VIRTIO_WINDOW_ALWAYS == VIRTIO_WINDOW_NONE ? VIRTIO_HAVE_PORT && (ops) == NULL                \
                                                : VIRTIO_WINDOW_ALWAYS == VIRTIO_WINDOW_PORT)

VIRTIO_INLINE uint16_t virtio_window_port_(const struct virtio_window *w, uint32_t offset)
{
    return (uint16_t)(w->base + offset);
}
VIRTIO_INLINE uintptr_t virtio_window_mem_(const struct virtio_window *w, uint32_t offset)
{
    return w->base + offset;
}

VIRTIO_INLINE uint8_t virtio_window_read8(const struct virtio_window *w, uint32_t offset)
{
    if (VIRTIO_WINDOW_KIND_(w->kind) == VIRTIO_WINDOW_MMIO) {
        uint8_t value = *(const volatile uint8_t *)virtio_window_mem_(w, offset);

        VIRTIO_MMIO_AFTER_READ();
        return value;
    }
    if (VIRTIO_WINDOW_IS_PORT_(w->ops))
        return VIRTIO_PORT_READ8(virtio_window_port_(w, offset));
    return (uint8_t)w->ops->read(w->ctx, w->base + offset, 1);
}

VIRTIO_INLINE uint16_t virtio_window_read16(const struct virtio_window *w, uint32_t offset)
{
    if (VIRTIO_WINDOW_KIND_(w->kind) == VIRTIO_WINDOW_MMIO) {
        uint16_t value = *(const volatile uint16_t *)virtio_window_mem_(w, offset);

        VIRTIO_MMIO_AFTER_READ();
        return virtio_le16_(value);
    }
    if (VIRTIO_WINDOW_IS_PORT_(w->ops))
        return VIRTIO_PORT_READ16(virtio_window_port_(w, offset));
    return (uint16_t)w->ops->read(w->ctx, w->base + offset, 2);
}

VIRTIO_INLINE uint32_t virtio_window_read32(const struct virtio_window *w, uint32_t offset)
{
    if (VIRTIO_WINDOW_KIND_(w->kind) == VIRTIO_WINDOW_MMIO) {
        uint32_t value = *(const volatile uint32_t *)virtio_window_mem_(w, offset);

        VIRTIO_MMIO_AFTER_READ();
        return virtio_le32_(value);
    }
    if (VIRTIO_WINDOW_IS_PORT_(w->ops))
        return VIRTIO_PORT_READ32(virtio_window_port_(w, offset));
    return w->ops->read(w->ctx, w->base + offset, 4);
}

VIRTIO_INLINE void virtio_window_write8(const struct virtio_window *w, uint32_t offset,
                                        uint8_t value)
{
    if (VIRTIO_WINDOW_KIND_(w->kind) == VIRTIO_WINDOW_MMIO) {
        VIRTIO_MMIO_BEFORE_WRITE();
        *(volatile uint8_t *)virtio_window_mem_(w, offset) = value;
    } else if (VIRTIO_WINDOW_IS_PORT_(w->ops)) {
        VIRTIO_PORT_WRITE8(virtio_window_port_(w, offset), value);
    } else {
        w->ops->write(w->ctx, w->base + offset, 1, value);
    }
}

VIRTIO_INLINE void virtio_window_write16(const struct virtio_window *w, uint32_t offset,
                                         uint16_t value)
{
    if (VIRTIO_WINDOW_KIND_(w->kind) == VIRTIO_WINDOW_MMIO) {
        VIRTIO_MMIO_BEFORE_WRITE();
        *(volatile uint16_t *)virtio_window_mem_(w, offset) = virtio_le16_(value);
    } else if (VIRTIO_WINDOW_IS_PORT_(w->ops)) {
        VIRTIO_PORT_WRITE16(virtio_window_port_(w, offset), value);
    } else {
        w->ops->write(w->ctx, w->base + offset, 2, value);
    }
}

VIRTIO_INLINE void virtio_window_write32(const struct virtio_window *w, uint32_t offset,
                                         uint32_t value)
{
    if (VIRTIO_WINDOW_KIND_(w->kind) == VIRTIO_WINDOW_MMIO) {
        VIRTIO_MMIO_BEFORE_WRITE();
        *(volatile uint32_t *)virtio_window_mem_(w, offset) = virtio_le32_(value);
    } else if (VIRTIO_WINDOW_IS_PORT_(w->ops)) {
        VIRTIO_PORT_WRITE32(virtio_window_port_(w, offset), value);
    } else {
        w->ops->write(w->ctx, w->base + offset, 4, value);
    }
}

/** Writes a 64-bit register as two 32-bit ones, low half first (D-CAP-09, L-CAP-10). */
VIRTIO_INLINE void virtio_window_write64(const struct virtio_window *w, uint32_t offset,
                                         uint64_t value)
{
    virtio_window_write32(w, offset, (uint32_t)value);
    virtio_window_write32(w, offset + 4, (uint32_t)(value >> 32));
}

/** Reads a 64-bit register as two 32-bit ones; not one moment's value if it changes. */
VIRTIO_INLINE uint64_t virtio_window_read64(const struct virtio_window *w, uint32_t offset)
{
    uint32_t low = virtio_window_read32(w, offset);

    return low | (uint64_t)virtio_window_read32(w, offset + 4) << 32;
}

/* Can this build reach such a window, and is it long enough? */
VIRTIO_INLINE bool virtio_window_usable_(const struct virtio_window *w, uint32_t length)
{
    if (VIRTIO_WINDOW_ALWAYS != VIRTIO_WINDOW_NONE && w->kind != VIRTIO_WINDOW_ALWAYS)
        return false;
    if (w->kind == VIRTIO_WINDOW_PORT && (!VIRTIO_HAVE_PORT || w->ops != NULL))
        return false;
    if (w->kind == VIRTIO_WINDOW_CALLER && w->ops == NULL)
        return false;
    return w->kind != VIRTIO_WINDOW_NONE && w->length >= length;
}

/** A window inside another; `offset` + `length` must lie inside `w`. */
VIRTIO_INLINE struct virtio_window virtio_window_sub(const struct virtio_window *w, uint64_t offset,
                                                     uint32_t length)
{
    struct virtio_window sub = *w;

    VIRTIO_ASSERT(offset <= w->length && length <= w->length - offset);
    sub.base += (uintptr_t)offset;
    sub.length = length;
    return sub;
}
/** @} */

/* ---------------------------------------------------------------------------
 * 3. Features, status, errors
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtio_features Features, status, errors
 * @{
 */

/** Device-independent feature *bit numbers* (VIRTIO 6). */
enum virtio_feature {
    VIRTIO_FEATURE_NOTIFY_ON_EMPTY = 24,
    VIRTIO_FEATURE_ANY_LAYOUT = 27,
    VIRTIO_FEATURE_INDIRECT_DESC = 28,
    VIRTIO_FEATURE_EVENT_IDX = 29,
    VIRTIO_FEATURE_VERSION_1 = 32,
    VIRTIO_FEATURE_ACCESS_PLATFORM = 33,
    VIRTIO_FEATURE_RING_PACKED = 34,
    VIRTIO_FEATURE_IN_ORDER = 35,
    VIRTIO_FEATURE_ORDER_PLATFORM = 36,
    VIRTIO_FEATURE_SR_IOV = 37,
    VIRTIO_FEATURE_NOTIFICATION_DATA = 38,
    VIRTIO_FEATURE_NOTIF_CONFIG_DATA = 39,
    VIRTIO_FEATURE_RING_RESET = 40,
    VIRTIO_FEATURE_ADMIN_VQ = 41,
    VIRTIO_FEATURE_SUSPEND = 43
};

/** Device status bits (VIRTIO 2.1). */
enum virtio_status {
    VIRTIO_STATUS_ACKNOWLEDGE = 0x01,
    VIRTIO_STATUS_DRIVER = 0x02,
    VIRTIO_STATUS_DRIVER_OK = 0x04,
    VIRTIO_STATUS_FEATURES_OK = 0x08,
    VIRTIO_STATUS_SUSPEND = 0x10,
    VIRTIO_STATUS_NEEDS_RESET = 0x40,
    VIRTIO_STATUS_FAILED = 0x80,
    VIRTIO_STATUS_GONE = 0xff /**< what an unplugged device reads as; no device sets bit 5 */
};

/** Interrupt causes, in the ISR register of PCI and in InterruptStatus of virtio-mmio. */
enum virtio_irq { VIRTIO_IRQ_QUEUE = 1, VIRTIO_IRQ_CONFIG = 2 };

/** Errors of this file: negative, distinct from those of the two other headers. */
enum virtio_err {
    VIRTIO_ERR_NO_DEVICE = -60, /**< virtio-mmio slot without a device (DeviceID 0): stay silent */
    VIRTIO_ERR_MAGIC = -61,     /**< not a virtio-mmio slot */
    VIRTIO_ERR_VERSION = -62,   /**< virtio-mmio version not supported, or left out of this build */
    VIRTIO_ERR_WINDOW = -63,    /**< registers not mapped, too short or of a kind that this CPU or
                                     this build lacks (VIRTIO_WINDOW_ALWAYS) */
    VIRTIO_ERR_LAYOUT = -64,    /**< PCI layout not supported, or left out of this build */
    VIRTIO_ERR_TIMEOUT = -65,   /**< the device did not finish what it was asked for in time */
    VIRTIO_ERR_GONE = -66,      /**< the device reads as all ones: unplugged */
    VIRTIO_ERR_NOT_MODERN = -67, /**< VERSION_1 missing on a transport that needs it */
    VIRTIO_ERR_REQUIRED = -68,   /**< a required feature is not offered */
    VIRTIO_ERR_FEATURES = -69,   /**< the device refused the feature set (FEATURES_OK) */
    VIRTIO_ERR_CONFIG_RANGE = -70, /**< field outside the device configuration */
    VIRTIO_ERR_CONFIG_UNSTABLE = -71, /**< configuration changed at every try */
    VIRTIO_ERR_NO_QUEUE = -72,   /**< the device has no such queue */
    VIRTIO_ERR_QUEUE_BUSY = -73, /**< the queue is in use: reset first */
    VIRTIO_ERR_QUEUE_SIZE = -74, /**< above the device's, or not the fixed one (legacy PCI) */
    VIRTIO_ERR_QUEUE_MEMORY = -75, /**< ring memory too small, not aligned or out of reach */
    VIRTIO_ERR_NOTIFY = -76,     /**< the queue's notify address lies outside its structure */
    VIRTIO_ERR_QUEUE_REFUSED = -77, /**< the device did not take the queue */
    VIRTIO_ERR_NO_RESET = -78, /**< RING_RESET not negotiated */
    VIRTIO_ERR_NEEDS_RESET = -79, /**< the device failed while it was waited for */
    VIRTIO_ERR_VECTOR = -80,     /**< the device has no such vector, or none at all */
    VIRTIO_ERR_NO_SUSPEND = -81, /**< SUSPEND not negotiated, or the device is not running */
    VIRTIO_ERR_NO_REGION = -82,  /**< the device has no shared memory region of this id */
    VIRTIO_ERR_DEV_STATE = -90 /**< saved registers that this emulated device cannot have */
};

/** Text of any error of the three headers; never NULL. Any context. */
VIRTIO_INLINE const char *virtio_err_name(int err)
{
    const char *name;

    switch (err) {
    case VIRTIO_ERR_NO_DEVICE: return "no device in this slot";
    case VIRTIO_ERR_MAGIC: return "not a virtio-mmio register block";
    case VIRTIO_ERR_VERSION: return "virtio-mmio version not supported";
    case VIRTIO_ERR_WINDOW: return "register window missing, too short or of the wrong kind";
    case VIRTIO_ERR_LAYOUT: return "PCI register layout not supported";
    case VIRTIO_ERR_TIMEOUT: return "device did not finish in time";
    case VIRTIO_ERR_GONE: return "device is gone";
    case VIRTIO_ERR_NOT_MODERN: return "device does not offer VERSION_1";
    case VIRTIO_ERR_REQUIRED: return "device does not offer a required feature";
    case VIRTIO_ERR_FEATURES: return "device refused the feature set";
    case VIRTIO_ERR_CONFIG_RANGE: return "field outside the device configuration";
    case VIRTIO_ERR_CONFIG_UNSTABLE: return "device configuration keeps changing";
    case VIRTIO_ERR_NO_QUEUE: return "device has no such queue";
    case VIRTIO_ERR_QUEUE_BUSY: return "queue is already in use";
    case VIRTIO_ERR_QUEUE_SIZE: return "queue size not accepted by the device";
    case VIRTIO_ERR_QUEUE_MEMORY: return "ring memory too small, misaligned or out of reach";
    case VIRTIO_ERR_NOTIFY: return "queue notify address outside its structure";
    case VIRTIO_ERR_QUEUE_REFUSED: return "device did not enable the queue";
    case VIRTIO_ERR_NO_RESET: return "queues of this device cannot be reset alone";
    case VIRTIO_ERR_NEEDS_RESET: return "device failed and needs a reset";
    case VIRTIO_ERR_VECTOR: return "device did not take the interrupt vector";
    case VIRTIO_ERR_NO_SUSPEND: return "device cannot be suspended now";
    case VIRTIO_ERR_NO_REGION: return "device has no such shared memory region";
    case VIRTIO_ERR_DEV_STATE: return "saved registers do not fit the emulated device";
    default: break;
    }
    name = virtq_err_name(err);
    if (name == NULL)
        name = virtio_pci_err_name(err);
    return name != NULL ? name : "unknown error";
}

/** A set of feature bits 0 to 127 (L-FEAT-07). */
struct virtio_features {
    uint32_t word[4];
};

VIRTIO_INLINE bool virtio_features_has(const struct virtio_features *set, unsigned bit)
{
    return bit < 128 && (set->word[bit / 32] >> (bit % 32) & 1u) != 0;
}

/** Adds one bit; `bit` is below 128. */
VIRTIO_INLINE void virtio_features_add(struct virtio_features *set, unsigned bit)
{
    VIRTIO_ASSERT(bit < 128);
    set->word[bit / 32] |= 1u << (bit % 32);
}

/** `bit` is worth nothing without `needs`, both below 128: an edge of a device type's feature graph
 *  (D-FEAT-01). */
struct virtio_feature_rule {
    uint8_t bit;
    uint8_t needs;
};

/** Takes out every feature whose prerequisite is missing, and what needed those in turn. */
VIRTIO_INLINE void virtio_features_prune(struct virtio_features *set,
                                         const struct virtio_feature_rule *rules, unsigned count)
{
    /* Starts over after each bit taken out, so that there are no more than 129 rounds. */
    for (unsigned i = 0; i < count;) {
        const struct virtio_feature_rule *rule = &rules[i++];
        uint32_t *word, bit = 1u << (rule->bit % 32);

        VIRTIO_ASSERT(rule->bit < 128 && rule->needs < 128);
        word = &set->word[rule->bit / 32];
        if (!(*word & bit) || (set->word[rule->needs / 32] >> (rule->needs % 32) & 1) != 0)
            continue;
        *word -= bit;
        i = 0;
    }
}

/** Adds every feature of the ring that this library knows: a driver that wants them all says so
 *  without naming them, and is the same for each. With IN_ORDER the written length of a buffer that
 *  a device skips in a batch is its whole writable length (VIRTIO 2.7.9). */
VIRTIO_INLINE void virtio_features_add_ring(struct virtio_features *set)
{
    static const uint8_t bits[] = {
        VIRTIO_FEATURE_ANY_LAYOUT,        VIRTIO_FEATURE_INDIRECT_DESC,
        VIRTIO_FEATURE_EVENT_IDX,         VIRTIO_FEATURE_RING_PACKED,
        VIRTIO_FEATURE_IN_ORDER,          VIRTIO_FEATURE_ORDER_PLATFORM,
        VIRTIO_FEATURE_NOTIFICATION_DATA, VIRTIO_FEATURE_NOTIF_CONFIG_DATA,
        VIRTIO_FEATURE_RING_RESET};

    for (unsigned i = 0; i < sizeof(bits); i++)
        virtio_features_add(set, bits[i]);
}

/* Features that are properties of a ring, as enum virtq_flag has them: those of word 0 are 21 bits
 * above their flags, those of word 1 are 2 bits below. */
enum {
    VIRTIO_RING_WORD0_ = VIRTQ_NOTIFY_ON_EMPTY | VIRTQ_INDIRECT | VIRTQ_EVENT_IDX,
    VIRTIO_RING_WORD1_ = VIRTQ_PACKED | VIRTQ_IN_ORDER | VIRTQ_ORDER_PLATFORM
};

/* The features of bits 32 * `word` on that say one of these ring `flags`. */
VIRTIO_INLINE uint32_t virtio_ring_bits_(unsigned word, uint32_t flags)
{
    if (word == 0)
        return (flags & VIRTIO_RING_WORD0_) << 21;
    return word == 1 ? (flags & VIRTIO_RING_WORD1_) >> 2 : 0;
}

/* Is legacy part of this build? (VIRTIO_RING_FLAGS) */
VIRTIO_INLINE bool virtio_has_legacy_(void)
{
    return virtq_has_(VIRTQ_LEGACY, VIRTQ_LEGACY);
}

/* Those of the ring flags `among` that a set says. */
VIRTIO_INLINE uint32_t virtio_ring_flags_(const struct virtio_features *set, uint32_t among)
{
    return (set->word[0] >> 21 & (VIRTIO_RING_WORD0_ & among)) |
           (set->word[1] << 2 & (VIRTIO_RING_WORD1_ & among));
}

/** Ring flags (enum virtq_flag) that follow from a negotiated feature set, for either side. */
VIRTIO_INLINE uint16_t virtio_features_ring_flags(const struct virtio_features *set)
{
    uint32_t legacy = virtio_features_has(set, VIRTIO_FEATURE_VERSION_1) ? 0 : VIRTQ_LEGACY;

    return (uint16_t)(virtio_ring_flags_(set, UINT32_MAX) | legacy);
}
/** @} */

/* ---------------------------------------------------------------------------
 * 4. Registers
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtio_registers Registers
 * Byte offsets, for either side.
 * @{
 */

/** Common configuration, 4.1.4.3. */
enum virtio_pci_common {
    VIRTIO_COMMON_DEVICE_FEATURE_SELECT = 0,
    VIRTIO_COMMON_DEVICE_FEATURE = 4,
    VIRTIO_COMMON_DRIVER_FEATURE_SELECT = 8,
    VIRTIO_COMMON_DRIVER_FEATURE = 12,
    VIRTIO_COMMON_CONFIG_MSIX_VECTOR = 16,
    VIRTIO_COMMON_NUM_QUEUES = 18,
    VIRTIO_COMMON_DEVICE_STATUS = 20,
    VIRTIO_COMMON_CONFIG_GENERATION = 21,
    VIRTIO_COMMON_QUEUE_SELECT = 22,
    VIRTIO_COMMON_QUEUE_SIZE = 24,
    VIRTIO_COMMON_QUEUE_MSIX_VECTOR = 26,
    VIRTIO_COMMON_QUEUE_ENABLE = 28,
    VIRTIO_COMMON_QUEUE_NOTIFY_OFF = 30,
    VIRTIO_COMMON_QUEUE_DESC = 32,
    VIRTIO_COMMON_QUEUE_DRIVER = 40,
    VIRTIO_COMMON_QUEUE_DEVICE = 48,
    VIRTIO_COMMON_LENGTH = 56, /**< of VIRTIO 1.0 and 1.1; later fields belong to features */
    VIRTIO_COMMON_QUEUE_NOTIF_CONFIG_DATA = 56, /**< NOTIF_CONFIG_DATA */
    VIRTIO_COMMON_QUEUE_RESET = 58,             /**< RING_RESET */
    VIRTIO_COMMON_ADMIN_QUEUE_INDEX = 60,       /**< ADMIN_VQ */
    VIRTIO_COMMON_ADMIN_QUEUE_NUM = 62,
    VIRTIO_COMMON_END = 64 /**< of VIRTIO 1.3 and 1.4 */
};

/** A vector register that maps to nothing (4.1.5.1.2). */
enum { VIRTIO_VECTOR_NONE = 0xffff };

/** Legacy header in BAR0, 4.1.4.10, and the header of the 2011 RFC, which has the registers up to
 *  the vectors in the same places but for the two that it leaves to structures of their own. */
enum virtio_pci_legacy_reg {
    VIRTIO_LEGACY_DEVICE_FEATURES = 0,
    VIRTIO_LEGACY_DRIVER_FEATURES = 4,
    VIRTIO_LEGACY_QUEUE_ADDRESS = 8,
    VIRTIO_LEGACY_QUEUE_SIZE = 12,
    VIRTIO_LEGACY_QUEUE_SELECT = 14,
    VIRTIO_LEGACY_QUEUE_NOTIFY = 16, /**< RFC: reserved */
    VIRTIO_LEGACY_DEVICE_STATUS = 18,
    VIRTIO_LEGACY_ISR = 19,           /**< RFC: reserved */
    VIRTIO_LEGACY_CONFIG_VECTOR = 20, /**< legacy: only while MSI-X is on */
    VIRTIO_LEGACY_QUEUE_VECTOR = 22,  /**< likewise */
    VIRTIO_LEGACY_CONFIG = 20,        /**< legacy device configuration while MSI-X is off */
    VIRTIO_LEGACY_CONFIG_MSIX = 24,   /**< and while it is on (L-PLEG-05) */
    VIRTIO_RFC_DEVICE_FEATURES_HIGH = 24, /**< RFC only: features 32 to 63 */
    VIRTIO_RFC_DRIVER_FEATURES_HIGH = 28,
    VIRTIO_RFC_LENGTH = 32
};

/** Registers, 4.2.2; all 32 bits wide. */
enum virtio_mmio_reg {
    VIRTIO_MMIO_REG_MAGIC = 0x000,
    VIRTIO_MMIO_REG_VERSION = 0x004,
    VIRTIO_MMIO_REG_DEVICE_ID = 0x008,
    VIRTIO_MMIO_REG_VENDOR_ID = 0x00c,
    VIRTIO_MMIO_REG_DEVICE_FEATURES = 0x010,
    VIRTIO_MMIO_REG_DEVICE_FEATURES_SEL = 0x014,
    VIRTIO_MMIO_REG_DRIVER_FEATURES = 0x020,
    VIRTIO_MMIO_REG_DRIVER_FEATURES_SEL = 0x024,
    VIRTIO_MMIO_REG_GUEST_PAGE_SIZE = 0x028, /**< version 1 */
    VIRTIO_MMIO_REG_QUEUE_SEL = 0x030,
    VIRTIO_MMIO_REG_QUEUE_SIZE_MAX = 0x034,
    VIRTIO_MMIO_REG_QUEUE_SIZE = 0x038,
    VIRTIO_MMIO_REG_QUEUE_ALIGN = 0x03c, /**< version 1 */
    VIRTIO_MMIO_REG_QUEUE_PFN = 0x040,   /**< version 1 */
    VIRTIO_MMIO_REG_QUEUE_READY = 0x044,
    VIRTIO_MMIO_REG_QUEUE_NOTIFY = 0x050,
    VIRTIO_MMIO_REG_IRQ_STATUS = 0x060,
    VIRTIO_MMIO_REG_IRQ_ACK = 0x064,
    VIRTIO_MMIO_REG_STATUS = 0x070,
    VIRTIO_MMIO_REG_QUEUE_DESC = 0x080,
    VIRTIO_MMIO_REG_QUEUE_DRIVER = 0x090,
    VIRTIO_MMIO_REG_QUEUE_DEVICE = 0x0a0,
    VIRTIO_MMIO_REG_SHM_SEL = 0x0ac,
    VIRTIO_MMIO_REG_SHM_LENGTH = 0x0b0,
    VIRTIO_MMIO_REG_SHM_BASE = 0x0b8,
    VIRTIO_MMIO_REG_QUEUE_RESET = 0x0c0,
    VIRTIO_MMIO_REG_CONFIG_GENERATION = 0x0fc,
    VIRTIO_MMIO_REG_CONFIG = 0x100
};
#define VIRTIO_MMIO_MAGIC_NUMBER 0x74726976u
/** @} */

/* ---------------------------------------------------------------------------
 * 5. PCI configuration space
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtio_pci_access PCI configuration space
 * Ready-made struct virtio_pci_config for virtio_pci_caps.h, over any window. A caller's own
 * functions do as well. Serialise all accesses that share an address port or a PCI_CFG capability.
 * @{
 */

/** Configuration mechanism 1: an address and a data port, 0xcf8 and 0xcfc on a PC. Reaches the
 *  first 256 bytes of a function. */
struct virtio_pci_cf8 {
    struct virtio_window ports; /**< 8 bytes: address at 0, data at 4 */
    uint32_t function;          /**< virtio_pci_bdf() << 8 */
};

/** Bus 0 to 255, device 0 to 31, function 0 to 7 as PCI numbers them. */
VIRTIO_INLINE uint16_t virtio_pci_bdf(unsigned bus, unsigned device, unsigned function)
{
    return (uint16_t)(bus << 8 | device << 3 | function);
}

VIRTIO_INLINE uint32_t virtio_cf8_read32_(void *ctx, uint16_t offset)
{
    const struct virtio_pci_cf8 *at = (const struct virtio_pci_cf8 *)ctx;

    virtio_window_write32(&at->ports, 0, 0x80000000u | at->function | offset);
    return virtio_window_read32(&at->ports, 4);
}
VIRTIO_INLINE void virtio_cf8_write32_(void *ctx, uint16_t offset, uint32_t value)
{
    const struct virtio_pci_cf8 *at = (const struct virtio_pci_cf8 *)ctx;

    virtio_window_write32(&at->ports, 0, 0x80000000u | at->function | offset);
    virtio_window_write32(&at->ports, 4, value);
}

/** The configuration space of a function through an address and a data port; `at` is kept. */
VIRTIO_INLINE struct virtio_pci_config virtio_pci_config_cf8(struct virtio_pci_cf8 *at)
{
    struct virtio_pci_config config = {virtio_cf8_read32_, virtio_cf8_write32_, at};

    VIRTIO_ASSERT(virtio_window_usable_(&at->ports, 8));
    return config;
}

/** Where a function's 4096 bytes lie in an ECAM window whose first bus is 0. */
VIRTIO_INLINE uint64_t virtio_pci_ecam_offset(uint16_t bdf)
{
    return (uint64_t)bdf << 12;
}

VIRTIO_INLINE uint32_t virtio_ecam_read32_(void *ctx, uint16_t offset)
{
    return virtio_window_read32((const struct virtio_window *)ctx, offset);
}
VIRTIO_INLINE void virtio_ecam_write32_(void *ctx, uint16_t offset, uint32_t value)
{
    virtio_window_write32((const struct virtio_window *)ctx, offset, value);
}

/** The configuration space of a function in memory: `function` is a window of its 4096 bytes, and
 *  is kept. */
VIRTIO_INLINE struct virtio_pci_config virtio_pci_config_ecam(struct virtio_window *function)
{
    struct virtio_pci_config config = {virtio_ecam_read32_, virtio_ecam_write32_, function};

    VIRTIO_ASSERT(virtio_window_usable_(function, 4096));
    return config;
}

/** Reaches a BAR through the PCI_CFG capability of the function itself, where it cannot be mapped:
 *  early firmware, mostly. Slow: four configuration accesses for one of a register. */
struct virtio_pci_cfg_access {
    const struct virtio_pci_config *config; /**< with write32 */
    uint8_t cap;                            /**< virtio_pci_layout::pci_cfg, not 0 */
    uint8_t bar;                            /**< 0 to 5 */
};

/* Points the capability at a register. */
VIRTIO_INLINE const struct virtio_pci_config *virtio_pci_cfg_aim_(
    const struct virtio_pci_cfg_access *at, uintptr_t offset, unsigned width)
{
    at->config->write32(at->config->ctx, (uint16_t)(at->cap + 4), at->bar);
    at->config->write32(at->config->ctx, (uint16_t)(at->cap + 8), (uint32_t)offset);
    at->config->write32(at->config->ctx, (uint16_t)(at->cap + 12), width);
    return at->config;
}
VIRTIO_INLINE uint32_t virtio_pci_cfg_read_(void *ctx, uintptr_t offset, unsigned width)
{
    const struct virtio_pci_cfg_access *at = (const struct virtio_pci_cfg_access *)ctx;
    const struct virtio_pci_config *config = virtio_pci_cfg_aim_(at, offset, width);

    /* The first `width` bytes of the data field are the register's; who reads less than 4 drops the
     * rest. */
    return config->read32(config->ctx, (uint16_t)(at->cap + 16));
}
VIRTIO_INLINE void virtio_pci_cfg_write_(void *ctx, uintptr_t offset, unsigned width,
                                         uint32_t value)
{
    const struct virtio_pci_cfg_access *at = (const struct virtio_pci_cfg_access *)ctx;
    const struct virtio_pci_config *config = virtio_pci_cfg_aim_(at, offset, width);

    config->write32(config->ctx, (uint16_t)(at->cap + 16), value);
}

/**
 * The window of a BAR that goes through the PCI_CFG capability.
 * @param at      of this BAR alone; is kept
 * @param length  bytes of the BAR
 * VIRTIO 4.1.4.9; D-PCFG-01: access structures that another capability announces and nothing else.
 */
VIRTIO_INLINE struct virtio_window virtio_pci_cfg_window(struct virtio_pci_cfg_access *at,
                                                         uint32_t length)
{
    static const struct virtio_window_ops ops = {virtio_pci_cfg_read_, virtio_pci_cfg_write_};
    struct virtio_window window = {0, length, VIRTIO_WINDOW_CALLER, &ops, at};

    return window;
}
/** @} */

#if VIRTIO_HAVE_DRIVER
/* ---------------------------------------------------------------------------
 * 6. Driver-side types
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtio_drv Driver side
 * One struct virtio_drv per device. Serialise all calls on it, except that queues may be used by
 * different contexts and that virtio_drv_irq_status() and _ack() belong to the interrupt handler.
 * @{
 */

struct virtio_drv;
struct virtio_notify;

/** Memory both sides see: `cpu` and `device` are two addresses of the same `length` bytes. */
struct virtio_dma {
    void *cpu;
    uint64_t device;
    uint32_t length;
};

/** Where a queue's three areas lie, as device addresses. */
struct virtio_queue_addresses {
    uint16_t num;
    uint64_t desc;
    uint64_t driver;
    uint64_t device;
};

/** One transport. Own transports are as good as the ones of this file: fill in such a table and
 *  set virtio_drv::transport, or name it in VIRTIO_TRANSPORT_ALWAYS. None of these is on a hot
 *  path. */
struct virtio_transport {
    const char *name; /**< for messages */
    uint8_t (*status_get)(const struct virtio_drv *drv);
    void (*status_set)(const struct virtio_drv *drv, uint8_t status);
    uint32_t (*features_get)(const struct virtio_drv *drv, unsigned word);
    void (*features_set)(const struct virtio_drv *drv, unsigned word, uint32_t value);
    /** NULL where there is none (legacy). */
    uint32_t (*config_generation)(const struct virtio_drv *drv);
    /** Largest queue size, 0 if there is no such queue. Selects the queue. */
    uint32_t (*queue_size)(const struct virtio_drv *drv, uint16_t index);
    /** Is the queue just selected enabled already? */
    bool (*queue_in_use)(const struct virtio_drv *drv);
    /** Programs and enables the queue just selected, and resolves its notify target. On an error
     *  the queue is not enabled. */
    int (*queue_enable)(const struct virtio_drv *drv, uint16_t index,
                        const struct virtio_queue_addresses *at, struct virtio_notify *notify);
    /** Selects the queue and asks for its reset, or tells whether that is still going on. NULL
     *  where there is no such register. */
    void (*queue_reset)(const struct virtio_drv *drv, uint16_t index);
    bool (*queue_resetting)(const struct virtio_drv *drv);
    uint32_t (*irq_status)(const struct virtio_drv *drv);
    void (*irq_ack)(const struct virtio_drv *drv, uint32_t causes);
    /** Map the configuration interrupt, or that of the queue just selected, to an MSI-X vector and
     *  return what the device then says. NULL where there are no vectors. */
    uint16_t (*config_vector)(const struct virtio_drv *drv, uint16_t vector);
    uint16_t (*queue_vector)(const struct virtio_drv *drv, uint16_t vector);
    /** Takes the queue just selected out of service, where that is more than the reset of the
     *  queue: virtio-mmio and legacy. NULL if only a reset does it. */
    void (*queue_stop)(const struct virtio_drv *drv);
    bool legacy;     /**< no VERSION_1, no FEATURES_OK, legacy ring layout, CPU byte order */
    bool fixed_size; /**< the queue size is the device's (D-LEG-04) */
    bool regions;    /**< virtio-mmio's registers of shared memory regions (4.2.2) */
    uint8_t feature_words; /**< 32-bit words of features there can be, 1 to 4; one that a device has
                                not reads as 0 */
};

/* The transports of this file. */
VIRTIO_INLINE const struct virtio_transport *virtio_transport_pci_modern(void);
VIRTIO_INLINE const struct virtio_transport *virtio_transport_pci_legacy(void);
VIRTIO_INLINE const struct virtio_transport *virtio_transport_mmio(void);
VIRTIO_INLINE const struct virtio_transport *virtio_transport_mmio_legacy(void);

/** A device as its driver sees it. Zero it, let a transport fill it in, then only read. */
struct virtio_drv {
    const struct virtio_transport *transport; /**< read it with virtio_drv_transport() */
    struct virtio_window regs;   /**< common configuration, (legacy) header or mmio registers */
    struct virtio_features offered;
    struct virtio_features accepted;
    uint32_t transport_bits;     /**< feature bits 32 to 63 that the transport can carry; the caller
                                      adds SR_IOV if the function has that capability (D-RES-05) */
    uint8_t rule_count;
    const struct virtio_feature_rule *rules; /**< feature graph of the device type, `rule_count`
                                                  edges. Set by the caller or left zero. */
    /** Called between two looks at a busy device; returning false ends the wait with
     *  VIRTIO_ERR_TIMEOUT. NULL: VIRTIO_WAIT_POLLS looks. Set by the caller. */
    bool (*relax)(void *ctx);
    void *relax_ctx;
    uint32_t device_type;        /**< virtio-mmio: DeviceID */
    uint32_t notify_multiplier;  /**< PCI modern, bytes */
    struct virtio_window config; /**< device configuration; kind NONE if there is none */
    struct virtio_window notify; /**< PCI: the notification structure or register */
    struct virtio_window isr;    /**< PCI: the ISR byte */
};

/** A resolved kick: what to store where. */
struct virtio_notify {
    uintptr_t address; /**< as virtio_window::base, the register itself */
    uint32_t value;   /**< CPU order */
    uint16_t data_mask; /**< NOTIFICATION_DATA: 0xffff, the position goes into the upper half */
    uint8_t kind;     /**< enum virtio_window_kind */
    uint8_t width;    /**< 4 bytes, or 2: no data then */
    const struct virtio_window_ops *ops; /**< as virtio_window::ops */
    void *ctx;
};

/** A live queue: its ring and where to kick. */
struct virtio_drv_queue {
    struct virtq_driver ring;
    struct virtio_notify notify;
    uint16_t index;
};

/** What the caller gives to virtio_drv_queue_setup(). */
struct virtio_queue_setup {
    uint16_t num;              /**< queue size; legacy PCI: exactly virtio_drv_queue_size() */
    struct virtio_dma memory;  /**< virtio_drv_queue_bytes() bytes, kept while the queue lives;
                                    aligned to VIRTIO_RING_ALIGN, legacy: to 4096 */
    struct virtq_slot *slots;  /**< array of num, kept as well */
};

enum { VIRTIO_RING_ALIGN = 64 /**< the device area starts on a cache line of its own */ };
/** Ring memory for a modern device, as a constant expression for static arrays. */
#define VIRTIO_QUEUE_BYTES(num) VIRTQ_BYTES((num), VIRTIO_RING_ALIGN)
/** Ring memory that also suffices for a legacy device. */
#define VIRTIO_QUEUE_BYTES_LEGACY(num) VIRTQ_BYTES((num), VIRTQ_LEGACY_ALIGN)

/* ---------------------------------------------------------------------------
 * 7. Life cycle
 * --------------------------------------------------------------------------- */

/* The only transport of this build, or NULL. */
VIRTIO_INLINE const struct virtio_transport *virtio_transport_always_(void)
{
    return VIRTIO_TRANSPORT_ALWAYS;
}
VIRTIO_INLINE bool virtio_has_transport_(const struct virtio_transport *transport)
{
    return virtio_transport_always_() == NULL || virtio_transport_always_() == transport;
}

/** The transport of a device. */
VIRTIO_INLINE const struct virtio_transport *virtio_drv_transport(const struct virtio_drv *drv)
{
    return virtio_transport_always_() != NULL ? virtio_transport_always_() : drv->transport;
}

/* The only one is not stored, so that what nobody calls of it is left out. */
VIRTIO_INLINE void virtio_drv_transport_set_(struct virtio_drv *drv,
                                             const struct virtio_transport *transport)
{
    if (virtio_transport_always_() == NULL)
        drv->transport = transport;
}

/* Sets bits, never clears one (D-STATUS-02). */
VIRTIO_INLINE void virtio_drv_status_add_(const struct virtio_drv *drv, uint8_t bits)
{
    const struct virtio_transport *transport = virtio_drv_transport(drv);

    transport->status_set(drv, (uint8_t)(transport->status_get(drv) | bits));
}

/** Tells the device that the driver has given up on it (D-INIT-05). */
VIRTIO_INLINE void virtio_drv_fail(const struct virtio_drv *drv)
{
    virtio_drv_status_add_(drv, VIRTIO_STATUS_FAILED);
}

/* One more look at a busy device? */
VIRTIO_INLINE bool virtio_drv_wait_(const struct virtio_drv *drv, uint32_t *polls)
{
    return drv->relax != NULL ? drv->relax(drv->relax_ctx) : ++*polls < VIRTIO_WAIT_POLLS;
}

/** Resets the device and waits until it says so; afterwards no queue is live, and their buffers
 *  can be taken back with virtq_driver_detach().
 *  @return 0, VIRTIO_ERR_TIMEOUT, VIRTIO_ERR_GONE
 *  VIRTIO 2.4; D-RESET-01, D-RESET-02. */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_reset(const struct virtio_drv *drv)
{
    uint32_t polls = 0;

    virtio_drv_transport(drv)->status_set(drv, 0);
    do {
        uint8_t status = virtio_drv_transport(drv)->status_get(drv);

        if (status == 0)
            return 0;
        if (status == VIRTIO_STATUS_GONE)
            return VIRTIO_ERR_GONE;
    } while (virtio_drv_wait_(drv, &polls));
    return VIRTIO_ERR_TIMEOUT;
}

/** Starts over: reset, ACKNOWLEDGE, DRIVER; reads the offered features into drv->offered.
 *  @return 0, VIRTIO_ERR_TIMEOUT, VIRTIO_ERR_GONE
 *  VIRTIO 3.1.1 steps 1 to 3; D-INIT-01. */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_begin(struct virtio_drv *drv)
{
    const struct virtio_transport *transport = virtio_drv_transport(drv);
    int err = virtio_drv_reset(drv);

    VIRTIO_ASSERT(transport->feature_words >= 1 && transport->feature_words <= 4);
    if (err != 0)
        return err;
    virtio_drv_status_add_(drv, VIRTIO_STATUS_ACKNOWLEDGE);
    virtio_drv_status_add_(drv, VIRTIO_STATUS_DRIVER);
    for (unsigned word = 0; word < 4; word++) {
        drv->offered.word[word] =
            word < transport->feature_words ? transport->features_get(drv, word) : 0;
        drv->accepted.word[word] = 0;
    }
    return 0;
}

/* Bits this library can honour, device types' bits included: those are the front-end's to judge,
 * which names what it wants (L-FEAT-01, D-FEAT-02, T-37); from 64 on there are no others. Bit 30 is
 * never accepted (D-LEG-10), and NOTIFY_ON_EMPTY and ANY_LAYOUT speak of legacy only. */
VIRTIO_INLINE uint32_t virtio_drv_allowed_low_(const struct virtio_drv *drv)
{
    uint32_t bits = 0x00ffffffu | virtio_ring_bits_(0, VIRTQ_CAN_);

    if (virtio_drv_transport(drv)->legacy)
        return bits | 1u << VIRTIO_FEATURE_ANY_LAYOUT;
    return bits & ~(1u << VIRTIO_FEATURE_NOTIFY_ON_EMPTY);
}

/* Bits 32 to 63. In legacy mode only device types have some there, 41 and 42 among them (GUEST_RSC4
 * and 6 of net); in modern mode 41 is ADMIN_VQ (T-07). ACCESS_PLATFORM only says that device
 * addresses are not physical, which is the caller's choice already. */
VIRTIO_INLINE uint32_t virtio_drv_allowed_high_(const struct virtio_drv *drv)
{
    const uint32_t device_type = 0xfffc0000u | 1u << (42 - 32);

    if (virtio_drv_transport(drv)->legacy)
        return device_type | 1u << (41 - 32);
    return device_type | virtio_ring_bits_(1, VIRTQ_CAN_) | 1u << (VIRTIO_FEATURE_VERSION_1 - 32) |
           1u << (VIRTIO_FEATURE_ACCESS_PLATFORM - 32) |
           1u << (VIRTIO_FEATURE_NOTIFICATION_DATA - 32) | 1u << (VIRTIO_FEATURE_SUSPEND - 32) |
           drv->transport_bits;
}

/* Does `set` have all of `required`? */
VIRTIO_INLINE bool virtio_features_cover_(const struct virtio_features *set,
                                          const struct virtio_features *required)
{
    for (unsigned word = 0; word < 4; word++) {
        if (required->word[word] & ~set->word[word])
            return false;
    }
    return true;
}

VIRTIO_INLINE int virtio_drv_choose_(struct virtio_drv *drv, const struct virtio_features *wanted,
                                     const struct virtio_features *required)
{
    uint32_t always = virtio_drv_transport(drv)->legacy ? 0 : 1u << (VIRTIO_FEATURE_VERSION_1 - 32);

    for (unsigned word = 0; word < 4; word++)
        drv->accepted.word[word] =
            (wanted->word[word] | required->word[word]) & drv->offered.word[word];
    drv->accepted.word[1] |= always & drv->offered.word[1]; /* D-FEAT-06 */
    drv->accepted.word[0] &= virtio_drv_allowed_low_(drv);
    drv->accepted.word[1] &= virtio_drv_allowed_high_(drv);
    virtio_features_prune(&drv->accepted, drv->rules, drv->rule_count);
    if (always & ~drv->accepted.word[1])
        return VIRTIO_ERR_NOT_MODERN;
    return virtio_features_cover_(&drv->accepted, required) ? 0 : VIRTIO_ERR_REQUIRED;
}

/* Tells the device what is accepted; it may refuse. */
VIRTIO_INLINE int virtio_drv_accept_(const struct virtio_drv *drv)
{
    for (unsigned word = 0; word < virtio_drv_transport(drv)->feature_words; word++) {
        /* They start at 0, and old devices know only some. */
        if (word == 0 || drv->accepted.word[word] != 0)
            virtio_drv_transport(drv)->features_set(drv, word, drv->accepted.word[word]);
    }
    if (virtio_drv_transport(drv)->legacy)
        return 0;
    virtio_drv_status_add_(drv, VIRTIO_STATUS_FEATURES_OK);
    if (virtio_drv_transport(drv)->status_get(drv) & VIRTIO_STATUS_FEATURES_OK)
        return 0;
    return VIRTIO_ERR_FEATURES;
}

/**
 * Accepts what is wanted, offered and supported by this library; the result is drv->accepted.
 * VERSION_1 is always wanted where the transport has it. On an error the device is told FAILED.
 * A feature whose prerequisite (drv->rules) is not accepted is not accepted either.
 * @param wanted    the driver works without these
 * @param required  and not without these; may be all zero
 * @return 0, VIRTIO_ERR_REQUIRED, VIRTIO_ERR_NOT_MODERN, VIRTIO_ERR_FEATURES (the device refused)
 * VIRTIO 3.1.1 steps 4 to 6; D-INIT-01, D-INIT-04, D-FEAT-01 to D-FEAT-06, D-LEG-02.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_negotiate(struct virtio_drv *drv,
                                                        const struct virtio_features *wanted,
                                                        const struct virtio_features *required)
{
    int err = virtio_drv_choose_(drv, wanted, required);

    if (err == 0)
        err = virtio_drv_accept_(drv);
    if (err != 0)
        virtio_drv_fail(drv);
    return err;
}

/** Makes the device live: all queues set up so far may now be kicked. Buffers published earlier
 *  are still owed their kick: call virtio_drv_kick() on each such queue (D-INIT-06, D-INIT-07). */
VIRTIO_INLINE void virtio_drv_ready(const struct virtio_drv *drv)
{
    virtio_drv_status_add_(drv, VIRTIO_STATUS_DRIVER_OK);
}

/** True if the device asks to be reset, or is gone. Look at each config interrupt (D-STATUS-05).
 *  What is in flight then has no known outcome (D-STATUS-04): take it back with
 *  virtq_driver_detach() after virtio_drv_restart(). */
VIRTIO_NODISCARD VIRTIO_INLINE bool virtio_drv_needs_reset(const struct virtio_drv *drv)
{
    return (virtio_drv_transport(drv)->status_get(drv) & VIRTIO_STATUS_NEEDS_RESET) != 0;
}

/**
 * Recovers a device that needs a reset: resets it and negotiates the very features it had. The
 * caller then goes on as after virtio_drv_negotiate(): takes back what was outstanding, sets the
 * vectors and queues up anew, calls virtio_drv_ready() and repeats its requests.
 * @return as virtio_drv_begin() and virtio_drv_negotiate(); VIRTIO_ERR_GONE ends the matter
 * VIRTIO 2.1; D-STATUS-03, D-STATUS-04, V-FEAT-04.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_restart(struct virtio_drv *drv)
{
    struct virtio_features same = drv->accepted;
    int err = virtio_drv_begin(drv);

    return err != 0 ? err : virtio_drv_negotiate(drv, &same, &same);
}

/* Waits until the device has `set` and not `clear` of the two bits that suspending toggles. */
VIRTIO_INLINE int virtio_drv_wait_status_(const struct virtio_drv *drv, uint8_t set, uint8_t clear)
{
    uint32_t polls = 0;

    do {
        uint8_t status = virtio_drv_transport(drv)->status_get(drv);

        if (status == VIRTIO_STATUS_GONE)
            return VIRTIO_ERR_GONE;
        if (status & VIRTIO_STATUS_NEEDS_RESET)
            return VIRTIO_ERR_NEEDS_RESET;
        if ((status & set) != 0 && (status & clear) == 0)
            return 0;
    } while (virtio_drv_wait_(drv, &polls));
    return VIRTIO_ERR_TIMEOUT;
}

/**
 * Suspends a running device and waits until it is. From the call on until virtio_drv_resume()
 * returns 0 add no buffer, kick nothing and write no device configuration; completions may still
 * arrive during the call.
 * @return 0; VIRTIO_ERR_NO_SUSPEND; VIRTIO_ERR_NEEDS_RESET: it failed to; VIRTIO_ERR_TIMEOUT;
 *         VIRTIO_ERR_GONE
 * VIRTIO 3.4 (1.4); D-SUS-01, D-SUS-02.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_suspend(const struct virtio_drv *drv)
{
    if (!virtio_features_has(&drv->accepted, VIRTIO_FEATURE_SUSPEND) ||
        !(virtio_drv_transport(drv)->status_get(drv) & VIRTIO_STATUS_DRIVER_OK))
        return VIRTIO_ERR_NO_SUSPEND;
    virtio_drv_status_add_(drv, VIRTIO_STATUS_SUSPEND);
    return virtio_drv_wait_status_(drv, VIRTIO_STATUS_SUSPEND, VIRTIO_STATUS_DRIVER_OK);
}

/** Lets a suspended device run again. @return as virtio_drv_suspend(). D-SUS-03. */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_resume(const struct virtio_drv *drv)
{
    if (!(virtio_drv_transport(drv)->status_get(drv) & VIRTIO_STATUS_SUSPEND))
        return VIRTIO_ERR_NO_SUSPEND;
    virtio_drv_status_add_(drv, VIRTIO_STATUS_DRIVER_OK);
    return virtio_drv_wait_status_(drv, VIRTIO_STATUS_DRIVER_OK, VIRTIO_STATUS_SUSPEND);
}

/* ---------------------------------------------------------------------------
 * 8. Device configuration
 * --------------------------------------------------------------------------- */

/** One field: byte offset, and width of 1, 2, 4 or 8 bytes (8 is read as two halves). */
struct virtio_config_field {
    uint16_t offset;
    uint8_t width;
};

/* Legacy device configuration is in the CPU's byte order, windows are little-endian (L-PLEG-04,
 * R-27). */
VIRTIO_INLINE bool virtio_config_native_(const struct virtio_drv *drv)
{
    return VIRTIO_BIG_ENDIAN && virtio_drv_transport(drv)->legacy;
}

/* Natural widths only, within the device's configuration, which may be longer than anybody knows
 * (D-CFG-04). */
VIRTIO_INLINE bool virtio_config_field_ok_(const struct virtio_drv *drv,
                                           struct virtio_config_field field)
{
    return drv->config.kind != VIRTIO_WINDOW_NONE && field.width <= drv->config.length &&
           field.offset <= drv->config.length - field.width;
}

VIRTIO_INLINE uint64_t virtio_config_read_field_(const struct virtio_drv *drv,
                                                 struct virtio_config_field field)
{
    const struct virtio_window *w = &drv->config;
    bool native = virtio_config_native_(drv);
    uint16_t half;
    uint32_t first, second;

    if (field.width == 1)
        return virtio_window_read8(w, field.offset);
    if (field.width == 2) {
        half = virtio_window_read16(w, field.offset);
        return native ? __builtin_bswap16(half) : half;
    }
    first = virtio_window_read32(w, field.offset);
    first = native ? __builtin_bswap32(first) : first;
    if (field.width == 4)
        return first;
    second = virtio_window_read32(w, (uint32_t)field.offset + 4);
    second = native ? __builtin_bswap32(second) : second;
    return native ? (uint64_t)first << 32 | second : (uint64_t)second << 32 | first;
}

/* Reads all fields once; true if none differs from what `values` held before. */
VIRTIO_INLINE bool virtio_config_pass_(const struct virtio_drv *drv,
                                       const struct virtio_config_field *fields, unsigned count,
                                       uint64_t *values)
{
    bool same = true;

    for (unsigned i = 0; i < count; i++) {
        uint64_t value = virtio_config_read_field_(drv, fields[i]);

        same = same && value == values[i];
        values[i] = value;
    }
    return same;
}

/**
 * Reads fields of the device configuration that belong together, in their natural width. What is
 * returned held at one moment: under the generation counter, or, where there is none, when two
 * readings agree. A field of a feature may be read once the feature is *offered* (D-CFG-03).
 * @param values  `count` numbers in CPU order; meaningless on an error
 * @return 0, VIRTIO_ERR_CONFIG_RANGE, VIRTIO_ERR_CONFIG_UNSTABLE
 * VIRTIO 2.5; D-CFG-01, D-CFG-02, D-CFG-05, D-LEG-07.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_config_read(const struct virtio_drv *drv,
                                                          const struct virtio_config_field *fields,
                                                          unsigned count, uint64_t *values)
{
    const struct virtio_transport *transport = virtio_drv_transport(drv);
    uint32_t (*generation)(const struct virtio_drv *) = transport->config_generation;

    for (unsigned i = 0; i < count; i++) {
        if (!virtio_config_field_ok_(drv, fields[i]))
            return VIRTIO_ERR_CONFIG_RANGE;
        values[i] = 0;
    }
    for (unsigned tries = 0; tries < VIRTIO_CONFIG_TRIES; tries++) {
        uint32_t before = generation != NULL ? generation(drv) : 0;
        bool same = virtio_config_pass_(drv, fields, count, values);

        if (generation != NULL ? generation(drv) == before : tries != 0 && same)
            return 0;
    }
    return VIRTIO_ERR_CONFIG_UNSTABLE;
}

/**
 * Writes one field of the device configuration in its natural width; 8 bytes as two halves. Not
 * before the features are negotiated (D-INIT-02), not while suspended (D-SUS-02).
 * @return 0, VIRTIO_ERR_CONFIG_RANGE
 * VIRTIO 2.5; D-CFG-05.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_config_write(const struct virtio_drv *drv,
                                                           struct virtio_config_field field,
                                                           uint64_t value)
{
    const struct virtio_window *w = &drv->config;
    bool native = virtio_config_native_(drv);
    uint32_t low = (uint32_t)value, high = (uint32_t)(value >> 32);

    if (!virtio_config_field_ok_(drv, field))
        return VIRTIO_ERR_CONFIG_RANGE;
    switch (field.width) {
    case 1: virtio_window_write8(w, field.offset, (uint8_t)low); break;
    case 2:
        virtio_window_write16(w, field.offset,
                              native ? __builtin_bswap16((uint16_t)low) : (uint16_t)low);
        break;
    case 4: virtio_window_write32(w, field.offset, native ? __builtin_bswap32(low) : low); break;
    default:
        virtio_window_write32(w, field.offset, native ? __builtin_bswap32(high) : low);
        virtio_window_write32(w, (uint32_t)field.offset + 4,
                              native ? __builtin_bswap32(low) : high);
        break;
    }
    return 0;
}

/* ---------------------------------------------------------------------------
 * 9. Queues, kicks, interrupts
 * --------------------------------------------------------------------------- */

VIRTIO_INLINE uint32_t virtio_drv_ring_align_(const struct virtio_drv *drv)
{
    bool legacy = virtio_drv_transport(drv)->legacy;

    return legacy ? (uint32_t)VIRTQ_LEGACY_ALIGN : (uint32_t)VIRTIO_RING_ALIGN;
}

/** Largest size of a queue, in entries; 0 if the device has no such queue. */
VIRTIO_INLINE uint16_t virtio_drv_queue_size(const struct virtio_drv *drv, uint16_t index)
{
    uint32_t size = virtio_drv_transport(drv)->queue_size(drv, index);

    return (uint16_t)(size < VIRTQ_MAX_SIZE ? size : (uint32_t)VIRTQ_MAX_SIZE);
}

/* What was accepted is compiled in, and VERSION_1 is accepted where it exists. */
VIRTIO_INLINE uint16_t virtio_drv_ring_flags_(const struct virtio_drv *drv)
{
    uint32_t legacy = virtio_drv_transport(drv)->legacy ? VIRTQ_LEGACY : 0;

    return (uint16_t)(virtio_ring_flags_(&drv->accepted, VIRTQ_CAN_) | legacy);
}

/** Bytes of ring memory for a queue of `num` entries on this device, in the negotiated format. */
VIRTIO_INLINE uint32_t virtio_drv_queue_bytes(const struct virtio_drv *drv, uint16_t num)
{
    return virtq_area_offsets(num, virtio_drv_ring_align_(drv), virtio_drv_ring_flags_(drv)).total;
}

/**
 * Sets up one queue: between negotiate and ready. On an error the device does not know of the
 * queue.
 * @param q  filled in; the ring is empty
 * @return 0, VIRTIO_ERR_NO_QUEUE, VIRTIO_ERR_QUEUE_BUSY, VIRTIO_ERR_QUEUE_SIZE,
 *         VIRTIO_ERR_QUEUE_MEMORY, VIRTIO_ERR_NOTIFY, VIRTIO_ERR_QUEUE_REFUSED, VIRTQ_ERR_SIZE,
 *         VIRTQ_ERR_ALIGN
 * VIRTIO 4.1.5.1.3, 4.2.3.2; D-COM-02, D-COM-03, D-COM-07, D-MMIO-11, D-PLEG-06.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_queue_setup(const struct virtio_drv *drv,
                                                          struct virtio_drv_queue *q,
                                                          uint16_t index,
                                                          const struct virtio_queue_setup *setup)
{
    const struct virtio_transport *transport = virtio_drv_transport(drv);
    uint32_t align = virtio_drv_ring_align_(drv), max = transport->queue_size(drv, index);
    uint16_t flags = virtio_drv_ring_flags_(drv);
    struct virtio_queue_addresses at;
    struct virtq_offsets offsets;
    struct virtq_areas areas;
    int err;

    if (max == 0)
        return VIRTIO_ERR_NO_QUEUE;
    if (transport->queue_in_use(drv)) /* its memory may be the very same: do not touch it */
        return VIRTIO_ERR_QUEUE_BUSY;
    if (transport->fixed_size ? setup->num != max : setup->num > max)
        return VIRTIO_ERR_QUEUE_SIZE;
    offsets = virtq_area_offsets(setup->num, align, flags);
    if (setup->memory.length < offsets.total || (setup->memory.device & (align - 1)) != 0)
        return VIRTIO_ERR_QUEUE_MEMORY;
    virtq_areas_place_(&areas, setup->memory.cpu, setup->num, offsets, flags);
    err = virtq_driver_init(&q->ring, &areas, setup->slots);
    if (err != 0)
        return err;
    at.num = setup->num;
    at.desc = setup->memory.device;
    at.driver = at.desc + offsets.driver;
    at.device = at.desc + offsets.device;
    q->index = index;
    return transport->queue_enable(drv, index, &at, &q->notify);
}

/**
 * Takes one queue out of service while the others go on, and waits until the device says so. The
 * caller then takes back what is outstanding with virtq_driver_detach() and may set the queue up
 * again, with another size and other memory. The relax hook must not touch other registers of this
 * device meanwhile: they may be behind the same queue select.
 * @return 0; VIRTIO_ERR_NO_RESET; VIRTIO_ERR_TIMEOUT: the queue is still the device's
 * VIRTIO 2.6.1; D-RR-01 to D-RR-04.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_queue_reset(const struct virtio_drv *drv,
                                                          const struct virtio_drv_queue *q)
{
    const struct virtio_transport *transport = virtio_drv_transport(drv);
    uint32_t polls = 0;

    if (!virtio_features_has(&drv->accepted, VIRTIO_FEATURE_RING_RESET) ||
        transport->queue_reset == NULL)
        return VIRTIO_ERR_NO_RESET;
    transport->queue_reset(drv, q->index);
    while (transport->queue_resetting(drv)) {
        if (!virtio_drv_wait_(drv, &polls))
            return VIRTIO_ERR_TIMEOUT;
    }
    return 0;
}

/**
 * Takes one queue out of service on a transport that does so without a reset: virtio-mmio and
 * legacy. The device may still be at work on a buffer when this returns; only a reset says when it
 * is not.
 * @return 0; VIRTIO_ERR_NO_RESET: this transport cannot; VIRTIO_ERR_QUEUE_BUSY: the queue goes on
 * VIRTIO 4.2.3.2, 4.1.5.1.3; D-MMIO-07, D-PLEG-06, D-MLEG-03, D-COM-04.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_queue_stop(const struct virtio_drv *drv,
                                                         const struct virtio_drv_queue *q)
{
    const struct virtio_transport *transport = virtio_drv_transport(drv);

    if (transport->queue_stop == NULL)
        return VIRTIO_ERR_NO_RESET;
    (void)transport->queue_size(drv, q->index); /* selects it */
    transport->queue_stop(drv);
    return transport->queue_in_use(drv) ? VIRTIO_ERR_QUEUE_BUSY : 0;
}

/** Maps configuration interrupts to an MSI-X vector, below the function's table size, or to none
 *  (VIRTIO_VECTOR_NONE). Legacy PCI: only while MSI-X is on. Every reset undoes it.
 *  @return 0; VIRTIO_ERR_VECTOR: nothing is mapped
 *  VIRTIO 4.1.5.1.2; D-MSX-02, D-MSX-03. */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_config_vector(const struct virtio_drv *drv,
                                                            uint16_t vector)
{
    const struct virtio_transport *transport = virtio_drv_transport(drv);

    if (transport->config_vector == NULL)
        return VIRTIO_ERR_VECTOR;
    return transport->config_vector(drv, vector) == vector ? 0 : VIRTIO_ERR_VECTOR;
}

/** The same for the interrupts of a queue, before that is set up (D-COM-03).
 *  @return 0, VIRTIO_ERR_VECTOR, VIRTIO_ERR_NO_QUEUE */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_queue_vector(const struct virtio_drv *drv,
                                                           uint16_t index, uint16_t vector)
{
    const struct virtio_transport *transport = virtio_drv_transport(drv);

    if (transport->queue_vector == NULL)
        return VIRTIO_ERR_VECTOR;
    if (transport->queue_size(drv, index) == 0)
        return VIRTIO_ERR_NO_QUEUE;
    return transport->queue_vector(drv, vector) == vector ? 0 : VIRTIO_ERR_VECTOR;
}

/** The vector of a queue when virtio_drv_map_vectors() returned `used`; configuration has 0. */
VIRTIO_INLINE uint16_t virtio_vector_of_queue(int used, uint16_t index)
{
    return (uint16_t)(used > 2 ? index + 1 : used - 1);
}

VIRTIO_INLINE int virtio_drv_try_vectors_(const struct virtio_drv *drv, uint16_t queues, int used)
{
    int err = virtio_drv_config_vector(drv, 0);

    for (uint16_t i = 0; i < queues && err == 0; i++)
        err = virtio_drv_queue_vector(drv, i, virtio_vector_of_queue(used, i));
    return err;
}

/**
 * Maps configuration and queues 0 to `queues` - 1 to MSI-X vectors, after virtio_drv_negotiate()
 * and before the queues are set up: one each if there are enough and the device takes them, else
 * one for all queues, else one for everything. The caller has programmed `vectors` entries of the
 * table and switched MSI-X on.
 * @param queues   1 to 65534
 * @param vectors  at most the function's table size
 * @return the number of vectors in use: `queues` + 1, 2 or 1, see virtio_vector_of_queue();
 *         VIRTIO_ERR_VECTOR, VIRTIO_ERR_NO_QUEUE: nothing can be relied on, use INTx
 * VIRTIO 4.1.5.1.2; D-MSX-01 to D-MSX-03.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_map_vectors(const struct virtio_drv *drv,
                                                          uint16_t queues, uint16_t vectors)
{
    int ways[3] = {queues + 1, 2, 1};
    int err = VIRTIO_ERR_VECTOR;

    for (unsigned i = 0; i < 3; i++) {
        if (ways[i] > vectors)
            continue;
        err = virtio_drv_try_vectors_(drv, queues, ways[i]);
        if (err == 0)
            return ways[i];
    }
    return err;
}

/* Writes the addresses of a queue's areas to registers from `reg` on, `stride` bytes apart. */
VIRTIO_INLINE void virtio_drv_write_areas_(const struct virtio_window *regs, uint32_t reg,
                                           uint32_t stride, const struct virtio_queue_addresses *at)
{
    const uint64_t area[3] = {at->desc, at->driver, at->device};

    for (unsigned i = 0; i < 3; i++, reg += stride)
        virtio_window_write64(regs, reg, area[i]);
}

/* A notify target inside a window; `data`: NOTIFICATION_DATA is negotiated. */
VIRTIO_INLINE struct virtio_notify virtio_notify_at_(const struct virtio_window *w, uint32_t offset,
                                                     uint8_t width, uint16_t value, bool data)
{
    struct virtio_notify notify;

    notify.address = w->base + offset;
    notify.value = value;
    notify.data_mask = data ? 0xffff : 0;
    notify.kind = VIRTIO_WINDOW_KIND_(w->kind);
    notify.width = width;
    notify.ops = w->ops;
    notify.ctx = w->ctx;
    return notify;
}

/** Notifies the device unconditionally: one store. The half of a kick that may run outside the
 *  caller's lock. Any context, after virtio_drv_ready().
 *  @param position  virtq_driver_notification_data() of the queue, read inside the lock; what
 *                   counts is the ring, so that an old one does no harm. Sent under
 *                   NOTIFICATION_DATA only (L-NOTE-01, D-NOTE-01). */
VIRTIO_INLINE void virtio_notify_send(const struct virtio_notify *notify, uint16_t position)
{
    uint32_t value;

    /* The usual one. */
    if (VIRTIO_WINDOW_KIND_(notify->kind) == VIRTIO_WINDOW_MMIO && notify->width == 2) {
        VIRTIO_MMIO_BEFORE_WRITE();
        *(volatile uint16_t *)notify->address = virtio_le16_((uint16_t)notify->value);
        return;
    }
    value = notify->value | (uint32_t)(position & notify->data_mask) << 16;
    if (VIRTIO_WINDOW_KIND_(notify->kind) == VIRTIO_WINDOW_MMIO) {
        VIRTIO_MMIO_BEFORE_WRITE();
        *(volatile uint32_t *)notify->address = virtio_le32_(value);
    } else if (VIRTIO_WINDOW_IS_PORT_(notify->ops)) {
        if (notify->width == 2)
            VIRTIO_PORT_WRITE16((uint16_t)notify->address, (uint16_t)value);
        else
            VIRTIO_PORT_WRITE32((uint16_t)notify->address, value);
    } else {
        notify->ops->write(notify->ctx, notify->address, notify->width, value);
    }
}

/** Notifies the device if it wants to know of what was published (VIRTIO 2.7.13.4). Serialise with
 *  all calls on this queue side. */
VIRTIO_INLINE void virtio_drv_kick(struct virtio_drv_queue *q)
{
    if (virtq_driver_kick_due(&q->ring))
        virtio_notify_send(&q->notify, virtq_driver_notification_data(&q->ring));
}

/** Causes of an interrupt: bits of enum virtio_irq, both may be set, 0 if it is not ours. On PCI
 *  this read acknowledges (V-ISR-03); with MSI-X do not call it for queues (D-ISR-01). */
VIRTIO_INLINE uint32_t virtio_drv_irq_status(const struct virtio_drv *drv)
{
    return virtio_drv_transport(drv)->irq_status(drv) &
           ((uint32_t)VIRTIO_IRQ_QUEUE | (uint32_t)VIRTIO_IRQ_CONFIG);
}

/** Acknowledges causes after they were handled; nothing on PCI (D-MMIO-08, D-MMIO-09). */
VIRTIO_INLINE void virtio_drv_irq_ack(const struct virtio_drv *drv, uint32_t causes)
{
    virtio_drv_transport(drv)->irq_ack(drv, causes);
}

/* The device configuration may be absent, and then says so. */
VIRTIO_INLINE bool virtio_drv_config_ok_(const struct virtio_drv *drv)
{
    return drv->config.kind == VIRTIO_WINDOW_NONE || virtio_window_usable_(&drv->config, 0);
}

/* ---------------------------------------------------------------------------
 * 10. Transport: PCI modern
 * --------------------------------------------------------------------------- */

VIRTIO_INLINE uint8_t virtio_modern_status_get_(const struct virtio_drv *drv)
{
    return virtio_window_read8(&drv->regs, VIRTIO_COMMON_DEVICE_STATUS);
}
VIRTIO_INLINE void virtio_modern_status_set_(const struct virtio_drv *drv, uint8_t status)
{
    virtio_window_write8(&drv->regs, VIRTIO_COMMON_DEVICE_STATUS, status);
}
VIRTIO_INLINE uint32_t virtio_modern_features_get_(const struct virtio_drv *drv, unsigned word)
{
    virtio_window_write32(&drv->regs, VIRTIO_COMMON_DEVICE_FEATURE_SELECT, word);
    return virtio_window_read32(&drv->regs, VIRTIO_COMMON_DEVICE_FEATURE);
}
VIRTIO_INLINE void virtio_modern_features_set_(const struct virtio_drv *drv, unsigned word,
                                               uint32_t value)
{
    virtio_window_write32(&drv->regs, VIRTIO_COMMON_DRIVER_FEATURE_SELECT, word);
    virtio_window_write32(&drv->regs, VIRTIO_COMMON_DRIVER_FEATURE, value);
}
VIRTIO_INLINE uint32_t virtio_modern_generation_(const struct virtio_drv *drv)
{
    return virtio_window_read8(&drv->regs, VIRTIO_COMMON_CONFIG_GENERATION);
}
/**
 * Administration queues of a PCI function: `*first` is the index of the first one, to be used with
 * virtio_drv_queue_setup() like any other queue.
 * @return how many there are; 0 without ADMIN_VQ
 * VIRTIO 2.13, 4.1.4.3; D-COM-05, V-COM-06.
 */
VIRTIO_INLINE uint16_t virtio_drv_admin_queues(const struct virtio_drv *drv, uint16_t *first)
{
    if (virtio_drv_transport(drv)->legacy ||
        !virtio_features_has(&drv->accepted, VIRTIO_FEATURE_ADMIN_VQ))
        return 0;
    *first = virtio_window_read16(&drv->regs, VIRTIO_COMMON_ADMIN_QUEUE_INDEX);
    return virtio_window_read16(&drv->regs, VIRTIO_COMMON_ADMIN_QUEUE_NUM);
}

VIRTIO_INLINE bool virtio_modern_has_queue_(const struct virtio_drv *drv, uint16_t index)
{
    uint16_t first = 0, count;

    if (index < virtio_window_read16(&drv->regs, VIRTIO_COMMON_NUM_QUEUES))
        return true;
    count = virtio_drv_admin_queues(drv, &first);
    return index >= first && index - first < count;
}

VIRTIO_INLINE uint32_t virtio_modern_queue_size_(const struct virtio_drv *drv, uint16_t index)
{
    if (!virtio_modern_has_queue_(drv, index))
        return 0;
    virtio_window_write16(&drv->regs, VIRTIO_COMMON_QUEUE_SELECT, index);
    return virtio_window_read16(&drv->regs, VIRTIO_COMMON_QUEUE_SIZE);
}

VIRTIO_INLINE bool virtio_modern_queue_in_use_(const struct virtio_drv *drv)
{
    return virtio_window_read16(&drv->regs, VIRTIO_COMMON_QUEUE_ENABLE) != 0;
}

/* Resolves the queue's place in the notification structure, in 64 bits, and what is written there
 * (L-NTF-01, D-NTF-01, V-NTF-02, D-NOTE-01, D-NOTE-02). */
VIRTIO_INLINE int virtio_modern_notify_(const struct virtio_drv *drv, uint16_t index,
                                        struct virtio_notify *notify)
{
    bool data = virtio_features_has(&drv->accepted, VIRTIO_FEATURE_NOTIFICATION_DATA);
    uint16_t off = virtio_window_read16(&drv->regs, VIRTIO_COMMON_QUEUE_NOTIFY_OFF);
    uint64_t at = (uint64_t)off * drv->notify_multiplier;
    uint8_t width = data ? 4 : 2;

    if (drv->notify.length < width || at > drv->notify.length - width || (at & (width - 1u)) != 0)
        return VIRTIO_ERR_NOTIFY;
    if (virtio_features_has(&drv->accepted, VIRTIO_FEATURE_NOTIF_CONFIG_DATA))
        index = virtio_window_read16(&drv->regs, VIRTIO_COMMON_QUEUE_NOTIF_CONFIG_DATA);
    *notify = virtio_notify_at_(&drv->notify, (uint32_t)at, width, index, data);
    return 0;
}

VIRTIO_INLINE void virtio_modern_queue_reset_(const struct virtio_drv *drv, uint16_t index)
{
    virtio_window_write16(&drv->regs, VIRTIO_COMMON_QUEUE_SELECT, index);
    virtio_window_write16(&drv->regs, VIRTIO_COMMON_QUEUE_RESET, 1);
}
VIRTIO_INLINE bool virtio_modern_queue_resetting_(const struct virtio_drv *drv)
{
    return virtio_window_read16(&drv->regs, VIRTIO_COMMON_QUEUE_RESET) != 0 ||
           virtio_modern_queue_in_use_(drv);
}
/* A field that lies outside the structure is not there, whatever is offered (D-COM-06). */
VIRTIO_INLINE uint32_t virtio_modern_bits_(uint32_t length)
{
    uint32_t bits = 0;

    if (length >= VIRTIO_COMMON_QUEUE_NOTIF_CONFIG_DATA + 2)
        bits |= 1u << (VIRTIO_FEATURE_NOTIF_CONFIG_DATA - 32);
    if (length >= VIRTIO_COMMON_QUEUE_RESET + 2)
        bits |= 1u << (VIRTIO_FEATURE_RING_RESET - 32);
    if (length >= VIRTIO_COMMON_END)
        bits |= 1u << (VIRTIO_FEATURE_ADMIN_VQ - 32);
    return bits;
}

VIRTIO_INLINE int virtio_modern_queue_enable_(const struct virtio_drv *drv, uint16_t index,
                                              const struct virtio_queue_addresses *at,
                                              struct virtio_notify *notify)
{
    const struct virtio_window *regs = &drv->regs;
    int err = virtio_modern_notify_(drv, index, notify);

    if (err != 0)
        return err;
    virtio_window_write16(regs, VIRTIO_COMMON_QUEUE_SIZE, at->num);
    if (virtio_window_read16(regs, VIRTIO_COMMON_QUEUE_SIZE) != at->num)
        return VIRTIO_ERR_QUEUE_SIZE;
    virtio_drv_write_areas_(regs, VIRTIO_COMMON_QUEUE_DESC, 8, at);
    virtio_window_write16(regs, VIRTIO_COMMON_QUEUE_ENABLE, 1);
    return virtio_window_read16(regs, VIRTIO_COMMON_QUEUE_ENABLE) == 1 ? 0
                                                                       : VIRTIO_ERR_QUEUE_REFUSED;
}
VIRTIO_INLINE uint16_t virtio_modern_config_vector_(const struct virtio_drv *drv, uint16_t vector)
{
    virtio_window_write16(&drv->regs, VIRTIO_COMMON_CONFIG_MSIX_VECTOR, vector);
    return virtio_window_read16(&drv->regs, VIRTIO_COMMON_CONFIG_MSIX_VECTOR);
}
VIRTIO_INLINE uint16_t virtio_modern_queue_vector_(const struct virtio_drv *drv, uint16_t vector)
{
    virtio_window_write16(&drv->regs, VIRTIO_COMMON_QUEUE_MSIX_VECTOR, vector);
    return virtio_window_read16(&drv->regs, VIRTIO_COMMON_QUEUE_MSIX_VECTOR);
}
VIRTIO_INLINE uint32_t virtio_pci_irq_status_(const struct virtio_drv *drv)
{
    return virtio_window_read8(&drv->isr, 0);
}
VIRTIO_INLINE void virtio_pci_irq_ack_(const struct virtio_drv *drv, uint32_t causes)
{
    (void)drv; /* reading the ISR register acknowledged */
    (void)causes;
}

/** The PCI modern transport (VIRTIO 4.1). */
VIRTIO_INLINE const struct virtio_transport *virtio_transport_pci_modern(void)
{
    static const struct virtio_transport ops = {
        "pci-modern",
        virtio_modern_status_get_,
        virtio_modern_status_set_,
        virtio_modern_features_get_,
        virtio_modern_features_set_,
        virtio_modern_generation_,
        virtio_modern_queue_size_,
        virtio_modern_queue_in_use_,
        virtio_modern_queue_enable_,
        virtio_modern_queue_reset_,
        virtio_modern_queue_resetting_,
        virtio_pci_irq_status_,
        virtio_pci_irq_ack_,
        virtio_modern_config_vector_,
        virtio_modern_queue_vector_,
        NULL,
        false,
        false,
        false,
        4,
    };

    return &ops;
}

/* The window of a structure that the capability scan placed; kind NONE if it is absent. */
VIRTIO_INLINE struct virtio_window virtio_pci_window_(const struct virtio_window bars[6],
                                                      struct virtio_pci_place place)
{
    struct virtio_window none = {0, 0, VIRTIO_WINDOW_NONE, NULL, NULL};
    uint64_t room;

    if (place.found == VIRTIO_PCI_NONE || place.bar > 5)
        return none;
    if (place.offset > bars[place.bar].length)
        return none;
    room = bars[place.bar].length - place.offset;
    if (room > place.length)
        room = place.length;
    return virtio_window_sub(&bars[place.bar], place.offset, (uint32_t)room);
}

/* The window of a structure where the layout has it now. */
VIRTIO_INLINE struct virtio_window virtio_pci_structure_(const struct virtio_pci_layout *layout,
                                                         const struct virtio_window bars[6],
                                                         enum virtio_pci_struct which)
{
    return virtio_pci_window_(bars, virtio_pci_locate(layout, which, layout->msix_on));
}

/**
 * Takes a PCI function with 1.x capabilities.
 * @param layout  from virtio_pci_scan(), generation VIRTIO_PCI_MODERN
 * @param bars    windows of the six BARs; kind NONE where not mapped. Copied.
 * @return 0, VIRTIO_ERR_LAYOUT, VIRTIO_ERR_WINDOW; no register was touched
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_pci_modern(struct virtio_drv *drv,
                                                         const struct virtio_pci_layout *layout,
                                                         const struct virtio_window bars[6])
{
    if (!virtio_has_transport_(virtio_transport_pci_modern()) ||
        layout->generation != VIRTIO_PCI_MODERN)
        return VIRTIO_ERR_LAYOUT;
    drv->regs = virtio_pci_structure_(layout, bars, VIRTIO_PCI_STRUCT_COMMON);
    drv->notify = virtio_pci_structure_(layout, bars, VIRTIO_PCI_STRUCT_NOTIFY);
    drv->isr = virtio_pci_structure_(layout, bars, VIRTIO_PCI_STRUCT_ISR);
    drv->config = virtio_pci_structure_(layout, bars, VIRTIO_PCI_STRUCT_DEVICE);
    drv->notify_multiplier = layout->notify_multiplier;
    drv->transport_bits = virtio_modern_bits_(drv->regs.length);
    if (!virtio_window_usable_(&drv->regs, VIRTIO_COMMON_LENGTH) ||
        !virtio_window_usable_(&drv->notify, 2) || !virtio_window_usable_(&drv->isr, 1) ||
        !virtio_drv_config_ok_(drv))
        return VIRTIO_ERR_WINDOW;
    virtio_drv_transport_set_(drv, virtio_transport_pci_modern());
    return 0;
}

/* ---------------------------------------------------------------------------
 * 11. Transport: PCI legacy and RFC-2011
 * --------------------------------------------------------------------------- */
/* One set of registers, in one BAR or, in the RFC's layout, each structure where its capability
 * says. Only the RFC's header has feature bits above 31, and always the vectors (R-18, R-29 to
 * R-31). */

VIRTIO_INLINE uint8_t virtio_legacy_status_get_(const struct virtio_drv *drv)
{
    return virtio_window_read8(&drv->regs, VIRTIO_LEGACY_DEVICE_STATUS);
}
VIRTIO_INLINE void virtio_legacy_status_set_(const struct virtio_drv *drv, uint8_t status)
{
    virtio_window_write8(&drv->regs, VIRTIO_LEGACY_DEVICE_STATUS, status);
}
/* R-AMB-1: a header of 28 bytes is accepted, without the words behind it. The legacy place is
 * shorter still (R-18). */
VIRTIO_INLINE uint32_t virtio_legacy_features_get_(const struct virtio_drv *drv, unsigned word)
{
    if (word != 0 && drv->regs.length < VIRTIO_RFC_LENGTH)
        return 0;
    return virtio_window_read32(&drv->regs, word == 0 ? VIRTIO_LEGACY_DEVICE_FEATURES
                                                      : VIRTIO_RFC_DEVICE_FEATURES_HIGH);
}
VIRTIO_INLINE void virtio_legacy_features_set_(const struct virtio_drv *drv, unsigned word,
                                               uint32_t value)
{
    virtio_window_write32(
        &drv->regs, word == 0 ? VIRTIO_LEGACY_DRIVER_FEATURES : VIRTIO_RFC_DRIVER_FEATURES_HIGH,
        value);
}
VIRTIO_INLINE uint32_t virtio_legacy_queue_size_(const struct virtio_drv *drv, uint16_t index)
{
    virtio_window_write16(&drv->regs, VIRTIO_LEGACY_QUEUE_SELECT, index);
    return virtio_window_read16(&drv->regs, VIRTIO_LEGACY_QUEUE_SIZE);
}
VIRTIO_INLINE bool virtio_legacy_queue_in_use_(const struct virtio_drv *drv)
{
    return virtio_window_read32(&drv->regs, VIRTIO_LEGACY_QUEUE_ADDRESS) != 0;
}
VIRTIO_INLINE int virtio_legacy_queue_enable_(const struct virtio_drv *drv, uint16_t index,
                                              const struct virtio_queue_addresses *at,
                                              struct virtio_notify *notify)
{
    uint64_t page = at->desc / VIRTQ_LEGACY_ALIGN;

    if (page == 0 || page > UINT32_MAX) /* 0 would stop the queue; the limit is 2^44 */
        return VIRTIO_ERR_QUEUE_MEMORY;
    virtio_window_write32(&drv->regs, VIRTIO_LEGACY_QUEUE_ADDRESS, (uint32_t)page);
    if (virtio_window_read32(&drv->regs, VIRTIO_LEGACY_QUEUE_ADDRESS) != page)
        return VIRTIO_ERR_QUEUE_REFUSED;
    *notify = virtio_notify_at_(&drv->notify, 0, 2, index, false);
    return 0;
}
/* With MSI-X off a header at its legacy place ends before the vectors, and other registers follow.
 * */
VIRTIO_INLINE bool virtio_legacy_has_vectors_(const struct virtio_drv *drv)
{
    return drv->regs.length >= VIRTIO_LEGACY_CONFIG_MSIX;
}
VIRTIO_INLINE uint16_t virtio_legacy_config_vector_(const struct virtio_drv *drv, uint16_t vector)
{
    if (!virtio_legacy_has_vectors_(drv))
        return VIRTIO_VECTOR_NONE;
    virtio_window_write16(&drv->regs, VIRTIO_LEGACY_CONFIG_VECTOR, vector);
    return virtio_window_read16(&drv->regs, VIRTIO_LEGACY_CONFIG_VECTOR);
}
VIRTIO_INLINE uint16_t virtio_legacy_queue_vector_(const struct virtio_drv *drv, uint16_t vector)
{
    if (!virtio_legacy_has_vectors_(drv))
        return VIRTIO_VECTOR_NONE;
    virtio_window_write16(&drv->regs, VIRTIO_LEGACY_QUEUE_VECTOR, vector);
    return virtio_window_read16(&drv->regs, VIRTIO_LEGACY_QUEUE_VECTOR);
}
VIRTIO_INLINE void virtio_legacy_queue_stop_(const struct virtio_drv *drv)
{
    virtio_window_write32(&drv->regs, VIRTIO_LEGACY_QUEUE_ADDRESS, 0);
}

/** The transport of PCI legacy (VIRTIO 4.1, legacy sections) and of the 2011 RFC. */
VIRTIO_INLINE const struct virtio_transport *virtio_transport_pci_legacy(void)
{
    static const struct virtio_transport ops = {
        "pci-legacy",
        virtio_legacy_status_get_,
        virtio_legacy_status_set_,
        virtio_legacy_features_get_,
        virtio_legacy_features_set_,
        NULL,
        virtio_legacy_queue_size_,
        virtio_legacy_queue_in_use_,
        virtio_legacy_queue_enable_,
        NULL,
        NULL,
        virtio_pci_irq_status_,
        virtio_pci_irq_ack_,
        virtio_legacy_config_vector_,
        virtio_legacy_queue_vector_,
        virtio_legacy_queue_stop_,
        true,
        true,
        false,
        2,
    };

    return &ops;
}

/**
 * Takes a PCI function in the 2011 RFC's layout, or in the legacy one, which is that without a
 * capability: each structure where its capability says, else at its place in BAR0 (R-15, R-16).
 * @param layout  from virtio_pci_scan(), generation VIRTIO_PCI_RFC2011 or VIRTIO_PCI_LEGACY
 * @param bars    windows of the six BARs; kind NONE where not mapped. Copied.
 * @return 0, VIRTIO_ERR_LAYOUT (generation, legacy left out of VIRTIO_RING_FLAGS, or not the one of
 *         VIRTIO_TRANSPORT_ALWAYS),
 *         VIRTIO_ERR_WINDOW; no register was touched
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_pci_legacy(struct virtio_drv *drv,
                                                         const struct virtio_pci_layout *layout,
                                                         const struct virtio_window bars[6])
{
    if (!virtio_has_legacy_() || !virtio_has_transport_(virtio_transport_pci_legacy()) ||
        layout->generation == VIRTIO_PCI_MODERN)
        return VIRTIO_ERR_LAYOUT;
    drv->regs = virtio_pci_structure_(layout, bars, VIRTIO_PCI_STRUCT_COMMON);
    drv->notify = virtio_pci_structure_(layout, bars, VIRTIO_PCI_STRUCT_NOTIFY);
    drv->isr = virtio_pci_structure_(layout, bars, VIRTIO_PCI_STRUCT_ISR);
    drv->config = virtio_pci_structure_(layout, bars, VIRTIO_PCI_STRUCT_DEVICE);
    drv->transport_bits = 0;
    if (!virtio_window_usable_(&drv->regs, VIRTIO_LEGACY_CONFIG) ||
        !virtio_window_usable_(&drv->notify, 2) || !virtio_window_usable_(&drv->isr, 1) ||
        !virtio_drv_config_ok_(drv))
        return VIRTIO_ERR_WINDOW;
    virtio_drv_transport_set_(drv, virtio_transport_pci_legacy());
    return 0;
}

/**
 * Takes a PCI function in the layout that virtio_pci_scan() found. Call it again, with
 * layout->msix_on as it is now, when MSI-X was switched: in legacy places the header's vectors come
 * or go and the device configuration moves between 20 and 24 (L-PLEG-05, R-17, T-17). Nothing else
 * changes, and live queues go on.
 * @param bars  windows of the six BARs; kind NONE where not mapped. Copied.
 * @return 0, VIRTIO_ERR_LAYOUT, VIRTIO_ERR_WINDOW; no register was touched
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_pci(struct virtio_drv *drv,
                                                  const struct virtio_pci_layout *layout,
                                                  const struct virtio_window bars[6])
{
    if (layout->generation == VIRTIO_PCI_MODERN)
        return virtio_drv_pci_modern(drv, layout, bars);
    return virtio_drv_pci_legacy(drv, layout, bars);
}

/* ---------------------------------------------------------------------------
 * 12. Transport: virtio-mmio
 * --------------------------------------------------------------------------- */

VIRTIO_INLINE uint8_t virtio_mmio_status_get_(const struct virtio_drv *drv)
{
    return (uint8_t)virtio_window_read32(&drv->regs, VIRTIO_MMIO_REG_STATUS);
}
VIRTIO_INLINE void virtio_mmio_status_set_(const struct virtio_drv *drv, uint8_t status)
{
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_STATUS, status);
}
VIRTIO_INLINE uint32_t virtio_mmio_features_get_(const struct virtio_drv *drv, unsigned word)
{
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_DEVICE_FEATURES_SEL, word);
    return virtio_window_read32(&drv->regs, VIRTIO_MMIO_REG_DEVICE_FEATURES);
}
VIRTIO_INLINE void virtio_mmio_features_set_(const struct virtio_drv *drv, unsigned word,
                                             uint32_t value)
{
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_DRIVER_FEATURES_SEL, word);
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_DRIVER_FEATURES, value);
}
VIRTIO_INLINE uint32_t virtio_mmio_generation_(const struct virtio_drv *drv)
{
    return virtio_window_read32(&drv->regs, VIRTIO_MMIO_REG_CONFIG_GENERATION);
}
VIRTIO_INLINE uint32_t virtio_mmio_queue_size_(const struct virtio_drv *drv, uint16_t index)
{
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_QUEUE_SEL, index);
    return virtio_window_read32(&drv->regs, VIRTIO_MMIO_REG_QUEUE_SIZE_MAX);
}
VIRTIO_INLINE bool virtio_mmio_queue_in_use_(const struct virtio_drv *drv)
{
    return virtio_window_read32(&drv->regs, VIRTIO_MMIO_REG_QUEUE_READY) != 0;
}
VIRTIO_INLINE int virtio_mmio_queue_enable_(const struct virtio_drv *drv, uint16_t index,
                                            const struct virtio_queue_addresses *at,
                                            struct virtio_notify *notify)
{
    const struct virtio_window *regs = &drv->regs;

    virtio_window_write32(regs, VIRTIO_MMIO_REG_QUEUE_SIZE, at->num);
    virtio_drv_write_areas_(regs, VIRTIO_MMIO_REG_QUEUE_DESC, 16, at);
    virtio_window_write32(regs, VIRTIO_MMIO_REG_QUEUE_READY, 1);
    if (virtio_window_read32(regs, VIRTIO_MMIO_REG_QUEUE_READY) != 1)
        return VIRTIO_ERR_QUEUE_REFUSED;
    *notify = virtio_notify_at_(
        regs, VIRTIO_MMIO_REG_QUEUE_NOTIFY, 4, index,
        virtio_features_has(&drv->accepted, VIRTIO_FEATURE_NOTIFICATION_DATA));
    return 0;
}
VIRTIO_INLINE void virtio_mmio_queue_reset_(const struct virtio_drv *drv, uint16_t index)
{
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_QUEUE_SEL, index);
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_QUEUE_RESET, 1);
}
VIRTIO_INLINE bool virtio_mmio_queue_resetting_(const struct virtio_drv *drv)
{
    return virtio_window_read32(&drv->regs, VIRTIO_MMIO_REG_QUEUE_RESET) != 0 ||
           virtio_mmio_queue_in_use_(drv);
}
VIRTIO_INLINE uint32_t virtio_mmio_irq_status_(const struct virtio_drv *drv)
{
    return virtio_window_read32(&drv->regs, VIRTIO_MMIO_REG_IRQ_STATUS);
}
VIRTIO_INLINE void virtio_mmio_irq_ack_(const struct virtio_drv *drv, uint32_t causes)
{
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_IRQ_ACK, causes);
}

VIRTIO_INLINE void virtio_mmio_queue_stop_(const struct virtio_drv *drv)
{
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_QUEUE_READY, 0);
}

/** The virtio-mmio transport, version 2 (VIRTIO 4.2). */
VIRTIO_INLINE const struct virtio_transport *virtio_transport_mmio(void)
{
    static const struct virtio_transport ops = {
        "virtio-mmio",
        virtio_mmio_status_get_,
        virtio_mmio_status_set_,
        virtio_mmio_features_get_,
        virtio_mmio_features_set_,
        virtio_mmio_generation_,
        virtio_mmio_queue_size_,
        virtio_mmio_queue_in_use_,
        virtio_mmio_queue_enable_,
        virtio_mmio_queue_reset_,
        virtio_mmio_queue_resetting_,
        virtio_mmio_irq_status_,
        virtio_mmio_irq_ack_,
        NULL,
        NULL,
        virtio_mmio_queue_stop_,
        false,
        false,
        true,
        4,
    };

    return &ops;
}

/* Version 1: a page number for the whole ring. Pages are of 4096 bytes, and so is the alignment
 * inside. */

VIRTIO_INLINE bool virtio_mmio1_queue_in_use_(const struct virtio_drv *drv)
{
    return virtio_window_read32(&drv->regs, VIRTIO_MMIO_REG_QUEUE_PFN) != 0;
}
VIRTIO_INLINE int virtio_mmio1_queue_enable_(const struct virtio_drv *drv, uint16_t index,
                                             const struct virtio_queue_addresses *at,
                                             struct virtio_notify *notify)
{
    const struct virtio_window *regs = &drv->regs;
    uint64_t page = at->desc / VIRTQ_LEGACY_ALIGN;

    if (page == 0 || page > UINT32_MAX) /* 0 would stop the queue */
        return VIRTIO_ERR_QUEUE_MEMORY;
    /* The same before each queue, and so before any is used (D-MLEG-01). */
    virtio_window_write32(regs, VIRTIO_MMIO_REG_GUEST_PAGE_SIZE, VIRTQ_LEGACY_ALIGN);
    virtio_window_write32(regs, VIRTIO_MMIO_REG_QUEUE_SIZE, at->num);
    virtio_window_write32(regs, VIRTIO_MMIO_REG_QUEUE_ALIGN, VIRTQ_LEGACY_ALIGN);
    virtio_window_write32(regs, VIRTIO_MMIO_REG_QUEUE_PFN, (uint32_t)page);
    if (virtio_window_read32(regs, VIRTIO_MMIO_REG_QUEUE_PFN) != page)
        return VIRTIO_ERR_QUEUE_REFUSED;
    *notify = virtio_notify_at_(regs, VIRTIO_MMIO_REG_QUEUE_NOTIFY, 4, index, false);
    return 0;
}
VIRTIO_INLINE void virtio_mmio1_queue_stop_(const struct virtio_drv *drv)
{
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_QUEUE_PFN, 0);
}

/** The virtio-mmio transport, version 1 (VIRTIO 4.2.4, legacy). */
VIRTIO_INLINE const struct virtio_transport *virtio_transport_mmio_legacy(void)
{
    static const struct virtio_transport ops = {
        "virtio-mmio-v1",
        virtio_mmio_status_get_,
        virtio_mmio_status_set_,
        virtio_mmio_features_get_,
        virtio_mmio_features_set_,
        NULL,
        virtio_mmio_queue_size_,
        virtio_mmio1_queue_in_use_,
        virtio_mmio1_queue_enable_,
        NULL,
        NULL,
        virtio_mmio_irq_status_,
        virtio_mmio_irq_ack_,
        NULL,
        NULL,
        virtio_mmio1_queue_stop_,
        true,
        false,
        false,
        2,
    };

    return &ops;
}

/**
 * A shared memory region of a virtio-mmio device, version 2; on PCI see virtio_pci_find_shm(). Only
 * for a device type that has some (D-MMIO-10).
 * @param base    guest physical address
 * @param length  bytes
 * @return 0; VIRTIO_ERR_NO_REGION, nothing is written then
 * VIRTIO 2.10, 4.2.2; V-MMIO-06.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_mmio_shm(const struct virtio_drv *drv, uint8_t id,
                                                       uint64_t *base, uint64_t *length)
{
    uint64_t bytes;

    if (!virtio_drv_transport(drv)->regions)
        return VIRTIO_ERR_NO_REGION;
    virtio_window_write32(&drv->regs, VIRTIO_MMIO_REG_SHM_SEL, id);
    bytes = virtio_window_read64(&drv->regs, VIRTIO_MMIO_REG_SHM_LENGTH);
    if (bytes == UINT64_MAX || bytes == 0)
        return VIRTIO_ERR_NO_REGION;
    *length = bytes;
    *base = virtio_window_read64(&drv->regs, VIRTIO_MMIO_REG_SHM_BASE);
    return 0;
}

/**
 * Looks at a virtio-mmio slot and takes the device in it; drv->device_type says which.
 * @param window  the slot's registers, usually 0x200 bytes. Copied.
 * @return 0; VIRTIO_ERR_NO_DEVICE: an empty slot, no error to report; VIRTIO_ERR_MAGIC;
 *         VIRTIO_ERR_VERSION: neither 2 nor 1, or 1 while legacy is left out of VIRTIO_RING_FLAGS,
 *         or not the one of VIRTIO_TRANSPORT_ALWAYS;
 *         VIRTIO_ERR_WINDOW
 * VIRTIO 4.2.2.2, 4.2.3.1.1; D-MMIO-01, D-MLEG-05.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_drv_mmio(struct virtio_drv *drv,
                                                   const struct virtio_window *window)
{
    uint32_t type, version;
    bool legacy;

    if (!virtio_window_usable_(window, VIRTIO_MMIO_REG_CONFIG))
        return VIRTIO_ERR_WINDOW;
    if (virtio_window_read32(window, VIRTIO_MMIO_REG_MAGIC) != VIRTIO_MMIO_MAGIC_NUMBER)
        return VIRTIO_ERR_MAGIC;
    version = virtio_window_read32(window, VIRTIO_MMIO_REG_VERSION);
    legacy = version == 1 && virtio_has_legacy_();
    if (legacy ? !virtio_has_transport_(virtio_transport_mmio_legacy())
               : version != 2 || !virtio_has_transport_(virtio_transport_mmio()))
        return VIRTIO_ERR_VERSION;
    type = virtio_window_read32(window, VIRTIO_MMIO_REG_DEVICE_ID);
    if (type == 0)
        return VIRTIO_ERR_NO_DEVICE;
    drv->regs = drv->config = *window;
    drv->config.base += VIRTIO_MMIO_REG_CONFIG;
    drv->config.length -= VIRTIO_MMIO_REG_CONFIG;
    drv->device_type = type;
    drv->transport_bits = legacy ? 0 : 1u << (VIRTIO_FEATURE_RING_RESET - 32);
    if (virtio_transport_always_() == NULL)
        drv->transport = legacy ? virtio_transport_mmio_legacy() : virtio_transport_mmio();
    return 0;
}
/** @} */
#endif /* VIRTIO_HAVE_DRIVER */

#if VIRTIO_HAVE_DEVICE
/* ---------------------------------------------------------------------------
 * 13. Device-side types
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtio_dev Device side
 * The registers of an emulated device: one state, and every layout in which a driver may see it. A
 * VMM forwards each trapped access; what the driver asked for comes back through struct
 * virtio_dev_ops. Serialise all calls on one device.
 *
 *     static const struct virtio_dev_ops ops = {my_map, my_kick, my_line, ...}; // or NULL
 *     dev.ops = &ops; dev.queue = queues; dev.queue_count = 2; ...              // the upper part
 *     virtio_dev_init(&dev);
 *     virtio_dev_write(&dev, VIRTIO_VIEW_MMIO, offset, width, value);           // trapped store
 *     value = virtio_dev_read(&dev, VIRTIO_VIEW_MMIO, offset, width);           // trapped load
 *     ring = virtio_dev_ring(&dev, queue);                // in my_kick: NULL unless it may be used
 *     while (virtq_device_pop(ring, &chain) > 0) ...      // serve, push, flush
 *     if (virtq_device_irq_due(ring))
 *         virtio_dev_interrupt(&dev, queue);              // line, or MSI-X vector
 *
 * A PCI function is struct virtio_dev_pci on top, which knows configuration space and which view
 * lies where in which BAR.
 *
 * What an access reaches depends on nothing but view, offset and width: a register if both are
 * those of the register (a kick of PCI 1.x: 2 or 4 bytes), a device configuration (or configuration
 * space) at any offset with 1, 2 or 4 bytes. 8 bytes are two accesses of 4, low half first. All
 * else reads 0 and ignores writes; so do registers that can only be written, or read, and what is
 * past the end of a configuration.
 * @{
 */

/** Layouts of registers; the offset of an access counts from the start of the view. */
enum virtio_view {
    VIRTIO_VIEW_COMMON,     /**< PCI common configuration, virtio_dev_common_length() bytes */
    VIRTIO_VIEW_NOTIFY,     /**< PCI notification structure */
    VIRTIO_VIEW_ISR,        /**< PCI ISR byte, 1.x and RFC */
    VIRTIO_VIEW_CONFIG,     /**< PCI device configuration, little-endian */
    VIRTIO_VIEW_LEGACY,     /**< legacy PCI: BAR0 */
    VIRTIO_VIEW_RFC_HEADER, /**< 2011 RFC: virtio header, VIRTIO_RFC_LENGTH bytes */
    VIRTIO_VIEW_RFC_NOTIFY, /**< 2011 RFC: queue notify, 2 bytes */
    VIRTIO_VIEW_RFC_CONFIG, /**< 2011 RFC: device header, in guest byte order */
    VIRTIO_VIEW_MMIO,       /**< virtio-mmio version 2 */
    VIRTIO_VIEW_MMIO_V1     /**< virtio-mmio version 1 (legacy) */
};

/** What a device is asked to bring to rest. */
enum virtio_stop {
    VIRTIO_STOP_QUEUE,   /**< one queue: RING_RESET, QueueReady 0 or QueuePFN 0 */
    VIRTIO_STOP_SUSPEND, /**< all queues: finish what is in flight, take nothing new (V-SUS-05) */
    VIRTIO_STOP_RESET    /**< all queues: the driver will take its memory back */
};

/** Callbacks; NULL where there is no interest. Only `line` and `msix` must not call back into the
 *  device. */
struct virtio_dev_ops {
    /** Where this CPU reaches `len` bytes of guest memory at `addr`, or NULL. The sum does not
     *  wrap. Called when a queue starts, and for indirect tables. A queue's areas must come back
     *  as aligned as they have to be for the guest (16, 2 and 4 bytes; packed 16, 4 and 4): else
     *  the queue does not start, and reads back as not enabled. */
    void *(*map)(void *ctx, uint64_t addr, uint32_t len);
    /** The queue was kicked and may be served. */
    void (*kick)(void *ctx, uint16_t queue);
    /** The interrupt line (INTx, mmio) changed. */
    void (*line)(void *ctx, bool level);
    /** Send this MSI-X message (or set its pending bit). */
    void (*msix)(void *ctx, uint16_t vector);
    /** May the device run with this set? It holds nothing that was not offered. NULL: yes. */
    bool (*features)(void *ctx, const struct virtio_features *accepted);
    /** The device status changed. When DRIVER_OK appears all queues that are ready become live:
     *  look at them, buffers may have been there before any kick. */
    void (*status)(void *ctx, uint8_t old, uint8_t now);
    /** A queue was set up; virtio_dev_queue::ring is at its start. */
    void (*queue_ready)(void *ctx, uint16_t queue);
    /** Stop. True: it is done, false: virtio_dev_stopped() will say so; until then the driver sees
     *  the operation going on. NULL: there is never anything in flight. */
    bool (*stop)(void *ctx, enum virtio_stop what, uint16_t queue);
    /** The driver writes 1 to 4 bytes of device configuration, in place and in bounds; what the
     *  device accepts it stores in its configuration itself. `legacy`: guest byte order. NULL:
     *  read-only. */
    void (*config_write)(void *ctx, bool legacy, uint32_t offset, const uint8_t *bytes,
                         uint32_t len);
};

/** State of one queue's registers, plain numbers. */
struct virtio_dev_queue_regs {
    uint64_t address[3]; /**< descriptor, driver, device area */
    uint32_t page;       /**< legacy: QueuePFN */
    uint32_t align;      /**< mmio version 1: QueueAlign; 0 if unset or refused */
    uint16_t size;       /**< as written; VIRTIO_DEV_SIZE_DEFAULT: never, 0: refused */
    uint16_t vector;     /**< MSI-X, or VIRTIO_VECTOR_NONE */
    uint8_t state;       /**< enum virtio_dev_queue_state */
    bool irq_pending;    /**< interrupt owed when the device resumes */
};
enum { VIRTIO_DEV_SIZE_DEFAULT = 0xffff };

/** Life of a queue. */
enum virtio_dev_queue_state {
    VIRTIO_DEV_QUEUE_OFF,
    VIRTIO_DEV_QUEUE_ON,
    VIRTIO_DEV_QUEUE_STOPPING, /**< its parameters stay */
    VIRTIO_DEV_QUEUE_RESETTING /**< RING_RESET: its parameters go */
};

/** One queue of a device. The caller sets `max`; the rest is set up by virtio_dev_init(). */
struct virtio_dev_queue {
    uint16_t max; /**< largest size, 1 to 32768, 0 if there is no such queue. Where it is no power
                       of two, split rings get the next smaller one. */
    uint16_t notify_data; /**< what NOTIF_CONFIG_DATA hands out: the index, unless changed after
                               virtio_dev_init(); unique among the queues */
    struct virtio_dev_queue_regs reg; /**< read only */
    struct virtq_device ring; /**< set up unless reg.state is OFF; use virtio_dev_ring() */
};

/** A shared memory region. */
struct virtio_dev_shm {
    uint8_t id;
    uint64_t base; /**< guest-physical address */
    uint64_t length;
};

/** State of a device's registers, plain numbers. */
struct virtio_dev_regs {
    struct virtio_features accepted; /**< what the driver wrote; settled by FEATURES_OK */
    uint32_t feature_select[2];      /**< offered, accepted */
    uint32_t page_size;              /**< mmio version 1: GuestPageSize; 0 if unset or refused */
    uint32_t shm_select;
    uint16_t queue_select;
    uint16_t config_vector; /**< MSI-X, or VIRTIO_VECTOR_NONE */
    uint8_t status;         /**< enum virtio_status */
    uint8_t isr;            /**< enum virtio_irq */
    uint8_t generation;
    bool config_dirty;   /**< changed since the generation was last read */
    bool config_pending; /**< configuration interrupt owed at DRIVER_OK or on resume */
    bool resetting;      /**< VIRTIO_STOP_RESET going on */
    bool suspending;     /**< VIRTIO_STOP_SUSPEND going on */
};

/** An emulated device. Set the upper part, zero the rest, call virtio_dev_init(); do not move. */
struct virtio_dev {
    const struct virtio_dev_ops *ops; /**< not NULL; kept, as all that is pointed to here */
    void *ctx;                      /**< handed to ops */
    uint32_t device_type;           /**< virtio device id */
    uint32_t vendor_id;             /**< virtio-mmio */
    struct virtio_features offered; /**< each view leaves out what has no meaning in it; VERSION_1
                                         is added by the modern ones */
    struct virtio_dev_queue *queue; /**< array of queue_count */
    uint16_t queue_count;           /**< at most 65535 */
    uint16_t admin_count;           /**< the last ones of them are administration queues */
    const uint8_t *config;          /**< device configuration, little-endian; NULL if none */
    const uint8_t *config_legacy;   /**< the same in guest byte order, NULL: as `config` */
    uint32_t config_length;         /**< bytes */
    const struct virtio_dev_shm *shm; /**< array of shm_count; virtio-mmio */
    uint16_t shm_count;
    uint16_t msix_vectors;      /**< MSI-X table size; 0: no MSI-X. virtio_dev_pci_init() sets it */
    uint32_t notify_multiplier; /**< PCI: bytes between two queues' kicks, a power of 2 from 2 on
                                     (V-NTF-01); 0: one for all */
    bool big_endian;            /**< guest byte order, for a legacy driver; known out of band */

    struct virtio_dev_regs reg; /**< read only */
    bool msix_on;               /**< PCI: MSI-X enabled; see virtio_dev_irq_mode() */
    bool intx_off;              /**< PCI: Interrupt Disable of the command register */
    bool line;                  /**< as last reported */
};

/* ---------------------------------------------------------------------------
 * 14. Device state
 * --------------------------------------------------------------------------- */

VIRTIO_INLINE bool virtio_dev_has_(const struct virtio_dev *dev, unsigned bit)
{
    return virtio_features_has(&dev->reg.accepted, bit);
}

/* Queue `index` as far as the driver may know of it: administration queues need ADMIN_VQ. */
VIRTIO_INLINE struct virtio_dev_queue *virtio_dev_queue_(const struct virtio_dev *dev,
                                                         uint32_t index)
{
    uint32_t count = dev->queue_count;

    if (!virtio_dev_has_(dev, VIRTIO_FEATURE_ADMIN_VQ))
        count -= dev->admin_count;
    return index < count && dev->queue[index].max != 0 ? &dev->queue[index] : NULL;
}

/* Largest size in the ring format at hand (V-COM-05). */
VIRTIO_INLINE uint16_t virtio_dev_queue_max_(const struct virtio_dev *dev,
                                             const struct virtio_dev_queue *q)
{
    uint32_t max = q->max, rest;

    if (virtio_dev_has_(dev, VIRTIO_FEATURE_RING_PACKED))
        return q->max;
    while ((rest = max & (max - 1)) != 0)
        max = rest;
    return (uint16_t)max;
}
VIRTIO_INLINE uint16_t virtio_dev_queue_size_(const struct virtio_dev *dev,
                                              const struct virtio_dev_queue *q)
{
    return q->reg.size == VIRTIO_DEV_SIZE_DEFAULT ? virtio_dev_queue_max_(dev, q) : q->reg.size;
}

VIRTIO_INLINE void virtio_dev_queue_forget_(struct virtio_dev_queue *q)
{
    q->reg.address[0] = q->reg.address[1] = q->reg.address[2] = 0;
    q->reg.page = 0;
}
VIRTIO_INLINE void virtio_dev_queue_default_(struct virtio_dev_queue *q)
{
    virtio_dev_queue_forget_(q);
    q->reg.align = 0;
    q->reg.size = VIRTIO_DEV_SIZE_DEFAULT;
    q->reg.vector = VIRTIO_VECTOR_NONE;
    q->reg.state = VIRTIO_DEV_QUEUE_OFF;
    q->reg.irq_pending = false;
}

/* Tells the line if it changed: any cause, unless MSI-X or the command register keep it low. */
VIRTIO_INLINE void virtio_dev_line_(struct virtio_dev *dev)
{
    bool level = dev->reg.isr != 0 && !dev->msix_on && !dev->intx_off;

    if (level == dev->line)
        return;
    dev->line = level;
    if (dev->ops->line != NULL)
        dev->ops->line(dev->ctx, level);
}

/* The state after a reset (V-RESET-01, V-RESET-03, V-RESET-04); the generation only ever grows. */
VIRTIO_INLINE void virtio_dev_clear_(struct virtio_dev *dev)
{
    struct virtio_dev_regs *reg = &dev->reg;

    for (unsigned word = 0; word < 4; word++)
        reg->accepted.word[word] = 0;
    reg->feature_select[0] = reg->feature_select[1] = 0;
    reg->page_size = reg->shm_select = 0;
    reg->queue_select = 0;
    reg->config_vector = VIRTIO_VECTOR_NONE;
    reg->status = reg->isr = 0;
    reg->config_pending = reg->resetting = reg->suspending = false;
    for (uint32_t i = 0; i < dev->queue_count; i++)
        virtio_dev_queue_default_(&dev->queue[i]);
    virtio_dev_line_(dev);
}

/** Power on: all registers as after a reset; calls nothing. */
VIRTIO_INLINE void virtio_dev_init(struct virtio_dev *dev)
{
    VIRTIO_ASSERT(dev->admin_count <= dev->queue_count);
    VIRTIO_ASSERT((dev->notify_multiplier & (dev->notify_multiplier - 1)) == 0);
    dev->reg.generation = 0;
    dev->reg.config_dirty = false;
    dev->reg.isr = 0;
    dev->msix_on = dev->intx_off = dev->line = false;
    for (uint32_t i = 0; i < dev->queue_count; i++) {
        VIRTIO_ASSERT(dev->queue[i].max <= VIRTQ_MAX_SIZE);
        dev->queue[i].notify_data = (uint16_t)i;
    }
    virtio_dev_clear_(dev);
}

/* An interrupt for one cause. The configuration bit is set with MSI-X as well (V-ISR-01, V-ISR-02,
 * V-MSX-04). */
VIRTIO_INLINE void virtio_dev_raise_(struct virtio_dev *dev, uint8_t cause, uint16_t vector)
{
    if (!dev->msix_on || cause == VIRTIO_IRQ_CONFIG)
        dev->reg.isr |= cause;
    virtio_dev_line_(dev);
    if (dev->msix_on && vector != VIRTIO_VECTOR_NONE && dev->ops->msix != NULL)
        dev->ops->msix(dev->ctx, vector);
}

/**
 * A used buffer notification: call it when virtq_device_irq_due() says so. Nothing happens for a
 * queue that is off or a device in reset; a suspended device sends it when it resumes.
 * V-STATUS-01, V-RESET-02, V-ISR-02, V-MSX-04, V-RR-01, V-SUS-02.
 */
VIRTIO_INLINE void virtio_dev_interrupt(struct virtio_dev *dev, uint16_t queue)
{
    struct virtio_dev_queue *q = virtio_dev_queue_(dev, queue);

    if (q == NULL || q->reg.state == VIRTIO_DEV_QUEUE_OFF || dev->reg.resetting)
        return;
    if (dev->reg.status & VIRTIO_STATUS_SUSPEND)
        q->reg.irq_pending = true;
    else if ((dev->reg.status & VIRTIO_STATUS_DRIVER_OK) || q->reg.page != 0)
        virtio_dev_raise_(dev, VIRTIO_IRQ_QUEUE, q->reg.vector);
}

/**
 * A configuration change notification; call it after a change of the device configuration that the
 * driver did not make. It is kept back until DRIVER_OK, or until a suspended device resumes.
 * V-CFG-01, V-CFG-03, V-CFG-04, V-SUS-03.
 */
VIRTIO_INLINE void virtio_dev_config_changed(struct virtio_dev *dev)
{
    dev->reg.config_dirty = true;
    if (dev->reg.resetting || dev->reg.status == 0)
        return;
    if (dev->reg.status & VIRTIO_STATUS_DRIVER_OK)
        virtio_dev_raise_(dev, VIRTIO_IRQ_CONFIG, dev->reg.config_vector);
    else
        dev->reg.config_pending = true;
}

/** Gives up until the driver resets the device: no queue is live any more. Also the answer to a
 *  broken queue (virtq_device_error()) and to a suspend or resume that fails. V-STATUS-02,
 *  V-STATUS-03, V-SUS-04. */
VIRTIO_INLINE void virtio_dev_needs_reset(struct virtio_dev *dev)
{
    uint8_t old = dev->reg.status;

    if (old & VIRTIO_STATUS_NEEDS_RESET)
        return;
    dev->reg.status = old | VIRTIO_STATUS_NEEDS_RESET;
    if (dev->reg.resetting)
        return;
    if (old & VIRTIO_STATUS_DRIVER_OK)
        virtio_dev_raise_(dev, VIRTIO_IRQ_CONFIG, dev->reg.config_vector);
    else if (old & VIRTIO_STATUS_SUSPEND)
        dev->reg.config_pending = true;
    if (dev->ops->status != NULL)
        dev->ops->status(dev->ctx, old, dev->reg.status);
}

/**
 * The ring of a queue that may be served now, or NULL. It may not before DRIVER_OK (but for a
 * legacy driver), after virtio_dev_needs_reset(), and while the queue or the device is stopped or
 * about to be. Buffers in flight at that moment are completed with virtio_dev_queue::ring itself,
 * until the stop is over. V-STATUS-01, V-LEG-02, V-MMIO-04, V-RR-01, V-SUS-02.
 */
VIRTIO_INLINE struct virtq_device *virtio_dev_ring(struct virtio_dev *dev, uint16_t queue)
{
    struct virtio_dev_queue *q = virtio_dev_queue_(dev, queue);

    if (q == NULL || q->reg.state != VIRTIO_DEV_QUEUE_ON || dev->reg.resetting ||
        dev->reg.suspending ||
        (dev->reg.status & (VIRTIO_STATUS_NEEDS_RESET | VIRTIO_STATUS_SUSPEND)))
        return NULL;
    return (dev->reg.status & VIRTIO_STATUS_DRIVER_OK) || q->reg.page != 0 ? &q->ring : NULL;
}

/** How interrupts leave a PCI function: MSI-X Enable of its MSI-X capability, Interrupt Disable of
 *  its command register. virtio_dev_pci_write() calls it. L-PLEG-05: moves the legacy device
 *  configuration. */
VIRTIO_INLINE void virtio_dev_irq_mode(struct virtio_dev *dev, bool msix_on, bool intx_off)
{
    dev->msix_on = msix_on && dev->msix_vectors != 0;
    dev->intx_off = intx_off;
    virtio_dev_line_(dev);
}

/* ----- stopping: asked for by the driver, finished now or by virtio_dev_stopped() ----- */

VIRTIO_INLINE void virtio_dev_reset_end_(struct virtio_dev *dev)
{
    uint8_t old = dev->reg.status;

    virtio_dev_clear_(dev);
    if (old != 0 && dev->ops->status != NULL)
        dev->ops->status(dev->ctx, old, 0);
}

/* DRIVER_OK gives way to SUSPEND, both at once (V-SUS-05). */
VIRTIO_INLINE void virtio_dev_suspend_end_(struct virtio_dev *dev)
{
    uint8_t old = dev->reg.status;

    dev->reg.suspending = false;
    dev->reg.status = (uint8_t)((old & ~VIRTIO_STATUS_DRIVER_OK) | VIRTIO_STATUS_SUSPEND);
    if (dev->ops->status != NULL)
        dev->ops->status(dev->ctx, old, dev->reg.status);
}

VIRTIO_INLINE void virtio_dev_queue_end_(struct virtio_dev_queue *q)
{
    if (q->reg.state == VIRTIO_DEV_QUEUE_RESETTING) {
        virtio_dev_queue_default_(q);
        return;
    }
    q->reg.state = VIRTIO_DEV_QUEUE_OFF;
    q->reg.irq_pending = false;
    if (q->reg.page != 0)
        virtio_dev_queue_forget_(q);
}

/** What virtio_dev_ops::stop had to put off is done; ignored if it is not, or no more, going on.
 *  @param queue  with VIRTIO_STOP_QUEUE
 *  V-COM-03, V-RR-02, V-SUS-05. */
VIRTIO_INLINE void virtio_dev_stopped(struct virtio_dev *dev, enum virtio_stop what, uint16_t queue)
{
    struct virtio_dev_queue *q = virtio_dev_queue_(dev, queue);

    if (what == VIRTIO_STOP_RESET && dev->reg.resetting)
        virtio_dev_reset_end_(dev);
    else if (what == VIRTIO_STOP_SUSPEND && dev->reg.suspending && !dev->reg.resetting)
        virtio_dev_suspend_end_(dev);
    else if (what == VIRTIO_STOP_QUEUE && q != NULL && q->reg.state > VIRTIO_DEV_QUEUE_ON)
        virtio_dev_queue_end_(q);
}

VIRTIO_INLINE void virtio_dev_stop_(struct virtio_dev *dev, enum virtio_stop what, uint16_t queue)
{
    if (dev->ops->stop == NULL || dev->ops->stop(dev->ctx, what, queue))
        virtio_dev_stopped(dev, what, queue);
}

/** Resets the device, as the driver does by writing 0 to the status; for a reset of the machine.
 *  What is in flight may make it end later: until then the status does not read 0. V-COM-03. */
VIRTIO_INLINE void virtio_dev_reset(struct virtio_dev *dev)
{
    if (dev->reg.resetting)
        return;
    dev->reg.resetting = true;
    virtio_dev_stop_(dev, VIRTIO_STOP_RESET, 0);
}

VIRTIO_INLINE void virtio_dev_suspend_(struct virtio_dev *dev)
{
    if (dev->reg.suspending || !(dev->reg.status & VIRTIO_STATUS_DRIVER_OK) ||
        !virtio_dev_has_(dev, VIRTIO_FEATURE_SUSPEND))
        return; /* V-SUS-01 */
    dev->reg.suspending = true;
    virtio_dev_stop_(dev, VIRTIO_STOP_SUSPEND, 0);
}

VIRTIO_INLINE void virtio_dev_queue_stop_(struct virtio_dev *dev, uint16_t index,
                                          enum virtio_dev_queue_state how)
{
    if (dev->queue[index].reg.state != VIRTIO_DEV_QUEUE_ON)
        return;
    dev->queue[index].reg.state = (uint8_t)how;
    virtio_dev_stop_(dev, VIRTIO_STOP_QUEUE, index);
}

/* ----- starting ----- */

VIRTIO_INLINE void *virtio_dev_map_(const struct virtio_dev *dev, uint64_t addr, uint32_t len)
{
    if (dev->ops->map == NULL || addr + len < addr)
        return NULL;
    return dev->ops->map(dev->ctx, addr, len);
}
VIRTIO_INLINE const void *virtio_dev_map_table_(void *dev, uint64_t addr, uint32_t len)
{
    return virtio_dev_map_((const struct virtio_dev *)dev, addr, len);
}

/* Ring flags of a queue: under PFN registers only the legacy features count. */
VIRTIO_INLINE uint16_t virtio_dev_ring_flags_(const struct virtio_dev *dev,
                                              const struct virtio_dev_queue *q)
{
    struct virtio_features set = dev->reg.accepted;
    uint16_t flags;

    if (q->reg.page != 0)
        set.word[1] = set.word[2] = set.word[3] = 0;
    flags = virtio_features_ring_flags(&set);
    if ((flags & VIRTQ_LEGACY) && dev->big_endian != (VIRTIO_BIG_ENDIAN != 0))
        flags |= VIRTQ_FOREIGN_ENDIAN; /* L-LEG-05 */
    return flags;
}

/* Sets the ring up if its memory is memory and its size is a size. */
VIRTIO_INLINE int virtio_dev_ring_init_(struct virtio_dev *dev, struct virtio_dev_queue *q)
{
    struct virtq_areas areas;
    uint32_t num = virtio_dev_queue_size_(dev, q);
    bool packed;

    areas.num = (uint16_t)num;
    areas.flags = virtio_dev_ring_flags_(dev, q);
    packed = (areas.flags & VIRTQ_PACKED) != 0;
    if (!virtq_size_ok(num, areas.flags))
        return VIRTQ_ERR_SIZE;
    areas.desc = virtio_dev_map_(dev, q->reg.address[0], 16 * num);
    areas.driver = virtio_dev_map_(dev, q->reg.address[1], packed ? 4 : 6 + 2 * num);
    areas.device = virtio_dev_map_(dev, q->reg.address[2], packed ? 4 : 6 + 8 * num);
    return virtq_device_init(&q->ring, &areas, virtio_dev_map_table_, dev);
}

/* Takes the queue into service, or leaves it off. */
VIRTIO_INLINE void virtio_dev_queue_start_(struct virtio_dev *dev, uint16_t index)
{
    struct virtio_dev_queue *q = &dev->queue[index];

    if (virtio_dev_ring_init_(dev, q) != 0)
        return;
    q->reg.state = VIRTIO_DEV_QUEUE_ON;
    if (dev->ops->queue_ready != NULL)
        dev->ops->queue_ready(dev->ctx, index);
}

/* QueuePFN: the legacy layout in one piece (L-LEG-03, V-MLEG-01, V-MLEG-02). */
VIRTIO_INLINE void virtio_dev_page_set_(struct virtio_dev *dev, uint16_t index, uint32_t page,
                                        uint32_t page_size, uint32_t align)
{
    struct virtio_dev_queue *q = &dev->queue[index];
    struct virtq_offsets at;

    if (page == 0) {
        virtio_dev_queue_stop_(dev, index, VIRTIO_DEV_QUEUE_STOPPING);
        return;
    }
    if (q->reg.state != VIRTIO_DEV_QUEUE_OFF || page_size == 0 || align < 4 ||
        virtio_dev_has_(dev, VIRTIO_FEATURE_VERSION_1))
        return;
    at = virtq_area_offsets(virtio_dev_queue_size_(dev, q), align, VIRTQ_LEGACY);
    q->reg.page = page;
    q->reg.address[0] = (uint64_t)page * page_size;
    q->reg.address[1] = q->reg.address[0] + at.driver;
    q->reg.address[2] = q->reg.address[0] + at.device;
    virtio_dev_queue_start_(dev, index);
    if (q->reg.state == VIRTIO_DEV_QUEUE_OFF)
        virtio_dev_queue_forget_(q); /* reads 0: refused */
}

/* ----- features and status ----- */

VIRTIO_INLINE bool virtio_view_legacy_(enum virtio_view view)
{
    return view == VIRTIO_VIEW_MMIO_V1 ||
           (view >= VIRTIO_VIEW_LEGACY && view <= VIRTIO_VIEW_RFC_CONFIG);
}

/* Features 24 to 43 that one kind of view cannot have (V-FEAT-03), and those whose ring is not
 * compiled in. */
VIRTIO_INLINE uint32_t virtio_dev_hidden_(enum virtio_view view, unsigned word)
{
    uint32_t bits = 0;

    if (virtio_view_legacy_(view))
        bits = word == 1 ? 0xbff : 0; /* 32 to 41 and 43 came with 1.0 */
    else if (word == 0) /* 30 is a trap for old drivers only (D-LEG-10) */
        bits = 1u << VIRTIO_FEATURE_NOTIFY_ON_EMPTY | 1u << VIRTIO_FEATURE_ANY_LAYOUT | 1u << 30;
    else if (word == 1 && view == VIRTIO_VIEW_MMIO)
        bits = 1u << (VIRTIO_FEATURE_SR_IOV - 32) | 1u << (VIRTIO_FEATURE_ADMIN_VQ - 32) |
               1u << (VIRTIO_FEATURE_NOTIF_CONFIG_DATA - 32);
    bits |= virtio_ring_bits_(word, ~(uint32_t)VIRTQ_CAN_);
    return bits;
}

/* Offered features of a view; word 4 and up are empty (V-COM-01). */
VIRTIO_INLINE uint32_t virtio_dev_offered_(const struct virtio_dev *dev, enum virtio_view view,
                                           uint32_t word)
{
    uint32_t bits;

    if (word > 3)
        return 0;
    bits = dev->offered.word[word];
    if (word == 1)
        bits |= 1u << (VIRTIO_FEATURE_VERSION_1 - 32); /* V-FEAT-05 */
    return bits & ~virtio_dev_hidden_(view, word);
}

/* A legacy driver cannot be refused: what was not offered is dropped. */
VIRTIO_INLINE void virtio_dev_accept_(struct virtio_dev *dev, enum virtio_view view, uint32_t word,
                                      uint32_t bits)
{
    bool legacy = virtio_view_legacy_(view);
    uint8_t settled = VIRTIO_STATUS_FEATURES_OK;

    if (legacy)
        settled |= VIRTIO_STATUS_DRIVER_OK;
    if (word < 4 && (dev->reg.status & settled) == 0)
        dev->reg.accepted.word[word] = legacy ? bits & virtio_dev_offered_(dev, view, word) : bits;
}

VIRTIO_INLINE bool virtio_dev_features_fit_(const struct virtio_dev *dev, enum virtio_view view)
{
    for (unsigned word = 0; word < 4; word++) {
        if (dev->reg.accepted.word[word] & ~virtio_dev_offered_(dev, view, word))
            return false;
    }
    if (!virtio_dev_has_(dev, VIRTIO_FEATURE_VERSION_1) ||
        !virtq_flags_ok_(virtio_features_ring_flags(&dev->reg.accepted)))
        return false;
    return dev->ops->features == NULL || dev->ops->features(dev->ctx, &dev->reg.accepted);
}

/* Interrupts that waited for DRIVER_OK. */
VIRTIO_INLINE void virtio_dev_owed_(struct virtio_dev *dev)
{
    if (dev->reg.config_pending)
        virtio_dev_raise_(dev, VIRTIO_IRQ_CONFIG, dev->reg.config_vector);
    dev->reg.config_pending = false;
    for (uint32_t i = 0; i < dev->queue_count; i++) {
        if (dev->queue[i].reg.irq_pending)
            virtio_dev_raise_(dev, VIRTIO_IRQ_QUEUE, dev->queue[i].reg.vector);
        dev->queue[i].reg.irq_pending = false;
    }
}

/* Bits only ever come (V-STATUS-04); FEATURES_OK and DRIVER_OK if they may. */
VIRTIO_INLINE void virtio_dev_status_set_(struct virtio_dev *dev, enum virtio_view view,
                                          uint8_t value)
{
    uint8_t old = dev->reg.status, now;
    uint32_t bits = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK |
                    VIRTIO_STATUS_FAILED;

    if (value == 0) {
        virtio_dev_reset(dev);
        return;
    }
    if (!virtio_view_legacy_(view)) {
        if ((value & ~(uint32_t)old & VIRTIO_STATUS_FEATURES_OK) != 0 &&
            virtio_dev_features_fit_(dev, view))
            old |= VIRTIO_STATUS_FEATURES_OK; /* else V-INIT-02 */
        if ((old & VIRTIO_STATUS_FEATURES_OK) == 0)
            bits &= ~(uint32_t)VIRTIO_STATUS_DRIVER_OK;
    }
    now = (uint8_t)(old | (value & bits));
    if ((value & bits & VIRTIO_STATUS_DRIVER_OK) != 0)
        now &= (uint8_t)~VIRTIO_STATUS_SUSPEND; /* D-SUS-03 */
    old = dev->reg.status;
    dev->reg.status = now;
    if ((now & ~(uint32_t)old & VIRTIO_STATUS_DRIVER_OK) != 0)
        virtio_dev_owed_(dev);
    if (now != old && dev->ops->status != NULL)
        dev->ops->status(dev->ctx, old, now);
    if ((value & VIRTIO_STATUS_SUSPEND) != 0 && (old & VIRTIO_STATUS_DRIVER_OK) != 0)
        virtio_dev_suspend_(dev);
}

/* Status as the driver sees it: never 0 before a reset is over (V-COM-03). */
VIRTIO_INLINE uint8_t virtio_dev_status_get_(const struct virtio_dev *dev)
{
    if (dev->reg.resetting && dev->reg.status == 0)
        return VIRTIO_STATUS_ACKNOWLEDGE;
    return dev->reg.status;
}

/* ----- migration ----- */

VIRTIO_INLINE bool virtio_dev_vector_ok_(const struct virtio_dev *dev, uint16_t vector)
{
    return vector == VIRTIO_VECTOR_NONE || vector < dev->msix_vectors;
}

VIRTIO_INLINE bool virtio_dev_regs_ok_(const struct virtio_dev *dev,
                                       const struct virtio_dev_regs *reg)
{
    uint32_t version_1 = 1u << (VIRTIO_FEATURE_VERSION_1 - 32);
    uint32_t both = VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_SUSPEND;

    for (unsigned word = 0; word < 4 && (reg->status & ~3u) != 0; word++) {
        uint32_t offered = dev->offered.word[word] | (word == 1 ? version_1 : 0);

        if (reg->accepted.word[word] & ~offered)
            return false;
    }
    if ((reg->status & VIRTIO_STATUS_FEATURES_OK) && !(reg->accepted.word[1] & version_1))
        return false;
    return !reg->resetting && !reg->suspending && (reg->status & 0x20) == 0 &&
           (reg->status & both) != both && reg->isr <= 3 &&
           virtio_dev_vector_ok_(dev, reg->config_vector);
}

/* Restores one queue; one that was on continues at `at`. */
VIRTIO_INLINE int virtio_dev_queue_restore_(struct virtio_dev *dev, struct virtio_dev_queue *q,
                                            const struct virtio_dev_queue_regs *reg,
                                            struct virtq_position at)
{
    int err;

    if (reg->state > VIRTIO_DEV_QUEUE_ON || !virtio_dev_vector_ok_(dev, reg->vector) ||
        (reg->size != VIRTIO_DEV_SIZE_DEFAULT && reg->size > q->max))
        return VIRTIO_ERR_DEV_STATE;
    q->reg = *reg;
    if (reg->state == VIRTIO_DEV_QUEUE_OFF)
        return 0;
    err = virtio_dev_ring_init_(dev, q);
    return err != 0 ? err : virtq_device_restore(&q->ring, at);
}

/**
 * Continues where a device of the same kind was saved: copies of its `reg`, the `reg` of each queue
 * and virtq_device_save() of each queue that is on, taken while nothing was being stopped. Call it
 * after virtio_dev_init(), and for a PCI function after restoring its `config` and
 * virtio_dev_irq_mode(). The values may come from anywhere. No callback but `map` and `line`.
 * @param queue  array of queue_count, as is `at`
 * @return 0, VIRTIO_ERR_DEV_STATE, or a VIRTQ_ERR_* of a queue; after an error the device is as
 *         after a reset
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_dev_restore(struct virtio_dev *dev,
                                                      const struct virtio_dev_regs *reg,
                                                      const struct virtio_dev_queue_regs *queue,
                                                      const struct virtq_position *at)
{
    int err = virtio_dev_regs_ok_(dev, reg) ? 0 : VIRTIO_ERR_DEV_STATE;

    if (err == 0)
        dev->reg = *reg;
    for (uint32_t i = 0; i < dev->queue_count && err == 0; i++)
        err = virtio_dev_queue_restore_(dev, &dev->queue[i], &queue[i], at[i]);
    if (err != 0)
        virtio_dev_clear_(dev);
    virtio_dev_line_(dev);
    return err;
}

/* ---------------------------------------------------------------------------
 * 15. Device-side registers
 * --------------------------------------------------------------------------- */

/* What registers there are, whatever the view. */
enum virtio_dev_reg_ {
    VIRTIO_REG_NONE_,
    VIRTIO_REG_MAGIC_,
    VIRTIO_REG_VERSION_,
    VIRTIO_REG_DEVICE_ID_,
    VIRTIO_REG_VENDOR_ID_,
    VIRTIO_REG_OFFERED_SEL_,
    VIRTIO_REG_OFFERED_,
    VIRTIO_REG_OFFERED_LOW_, /* word 0, and ... */
    VIRTIO_REG_OFFERED_HIGH_, /* word 1, without a selector */
    VIRTIO_REG_ACCEPTED_SEL_,
    VIRTIO_REG_ACCEPTED_,
    VIRTIO_REG_ACCEPTED_LOW_,
    VIRTIO_REG_ACCEPTED_HIGH_,
    VIRTIO_REG_STATUS_,
    VIRTIO_REG_GENERATION_,
    VIRTIO_REG_CONFIG_VECTOR_,
    VIRTIO_REG_NUM_QUEUES_,
    VIRTIO_REG_ADMIN_INDEX_,
    VIRTIO_REG_ADMIN_NUM_,
    VIRTIO_REG_ISR_,        /* read clears */
    VIRTIO_REG_IRQ_STATUS_, /* read does not */
    VIRTIO_REG_IRQ_ACK_,
    VIRTIO_REG_NOTIFY_,
    VIRTIO_REG_PAGE_SIZE_,
    VIRTIO_REG_SHM_SEL_,
    VIRTIO_REG_SHM_, /* length low, high, base low, high */
    VIRTIO_REG_QUEUE_SEL_ = VIRTIO_REG_SHM_ + 4,
    /* of the selected queue */
    VIRTIO_REG_QUEUE_MAX_,
    VIRTIO_REG_QUEUE_SIZE_,
    VIRTIO_REG_QUEUE_VECTOR_,
    VIRTIO_REG_QUEUE_ENABLE_,
    VIRTIO_REG_QUEUE_READY_,
    VIRTIO_REG_NOTIFY_OFF_,
    VIRTIO_REG_NOTIFY_DATA_,
    VIRTIO_REG_QUEUE_RESET_,
    VIRTIO_REG_QUEUE_PAGE_,
    VIRTIO_REG_QUEUE_ALIGN_,
    VIRTIO_REG_ADDRESS_ /* descriptor low, high, driver low, high, device low, high */
};

/* One register in the views that have it. */
struct virtio_dev_place_ {
    uint16_t views; /* 1 << enum virtio_view */
    uint8_t offset;
    uint8_t width; /* bytes; bits 6 and 7: VIRTIO_R_, VIRTIO_W_ */
    uint8_t reg;
};
enum {
    VIRTIO_R_ = 0x40,
    VIRTIO_W_ = 0x80,
    VIRTIO_R1_ = VIRTIO_R_ | 1,
    VIRTIO_R2_ = VIRTIO_R_ | 2,
    VIRTIO_R4_ = VIRTIO_R_ | 4,
    VIRTIO_W2_ = VIRTIO_W_ | 2,
    VIRTIO_W4_ = VIRTIO_W_ | 4,
    VIRTIO_RW1_ = VIRTIO_R_ | VIRTIO_W_ | 1,
    VIRTIO_RW2_ = VIRTIO_R_ | VIRTIO_W_ | 2,
    VIRTIO_RW4_ = VIRTIO_R_ | VIRTIO_W_ | 4,
    VIRTIO_IN_PCI_ = 1 << VIRTIO_VIEW_COMMON,
    VIRTIO_IN_ISR_ = 1 << VIRTIO_VIEW_ISR,
    VIRTIO_IN_LEGACY_ = 1 << VIRTIO_VIEW_LEGACY,
    VIRTIO_IN_RFC_ = 1 << VIRTIO_VIEW_RFC_HEADER,
    VIRTIO_IN_BOTH_ = VIRTIO_IN_LEGACY_ | VIRTIO_IN_RFC_,
    VIRTIO_IN_RFC_NOTIFY_ = 1 << VIRTIO_VIEW_RFC_NOTIFY,
    VIRTIO_IN_V2_ = 1 << VIRTIO_VIEW_MMIO,
    VIRTIO_IN_V1_ = 1 << VIRTIO_VIEW_MMIO_V1,
    VIRTIO_IN_MMIO_ = VIRTIO_IN_V1_ | VIRTIO_IN_V2_
};

/* Finds the register that an access reaches; `access` is VIRTIO_R_ or VIRTIO_W_. The ones
 * of the data path come first. */
VIRTIO_INLINE unsigned virtio_dev_find_(enum virtio_view view, uint64_t offset, unsigned width,
                                        unsigned access)
{
    static const struct virtio_dev_place_ places[] = {
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_QUEUE_NOTIFY, VIRTIO_W4_, VIRTIO_REG_NOTIFY_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_IRQ_STATUS, VIRTIO_R4_, VIRTIO_REG_IRQ_STATUS_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_IRQ_ACK, VIRTIO_W4_, VIRTIO_REG_IRQ_ACK_},
        {VIRTIO_IN_ISR_, 0, VIRTIO_R1_, VIRTIO_REG_ISR_},
        {VIRTIO_IN_RFC_NOTIFY_, 0, VIRTIO_W2_, VIRTIO_REG_NOTIFY_},
        {VIRTIO_IN_LEGACY_, VIRTIO_LEGACY_QUEUE_NOTIFY, VIRTIO_W2_, VIRTIO_REG_NOTIFY_},
        {VIRTIO_IN_LEGACY_, VIRTIO_LEGACY_ISR, VIRTIO_R1_, VIRTIO_REG_ISR_},
        /* virtio-mmio, 4.2.2 and 4.2.4 */
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_MAGIC, VIRTIO_R4_, VIRTIO_REG_MAGIC_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_VERSION, VIRTIO_R4_, VIRTIO_REG_VERSION_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_DEVICE_ID, VIRTIO_R4_, VIRTIO_REG_DEVICE_ID_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_VENDOR_ID, VIRTIO_R4_, VIRTIO_REG_VENDOR_ID_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_DEVICE_FEATURES, VIRTIO_R4_, VIRTIO_REG_OFFERED_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_DEVICE_FEATURES_SEL, VIRTIO_W4_, VIRTIO_REG_OFFERED_SEL_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_DRIVER_FEATURES, VIRTIO_W4_, VIRTIO_REG_ACCEPTED_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_DRIVER_FEATURES_SEL, VIRTIO_W4_,
         VIRTIO_REG_ACCEPTED_SEL_},
        {VIRTIO_IN_V1_, VIRTIO_MMIO_REG_GUEST_PAGE_SIZE, VIRTIO_W4_, VIRTIO_REG_PAGE_SIZE_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_QUEUE_SEL, VIRTIO_W4_, VIRTIO_REG_QUEUE_SEL_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_QUEUE_SIZE_MAX, VIRTIO_R4_, VIRTIO_REG_QUEUE_MAX_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_QUEUE_SIZE, VIRTIO_W4_, VIRTIO_REG_QUEUE_SIZE_},
        {VIRTIO_IN_V1_, VIRTIO_MMIO_REG_QUEUE_ALIGN, VIRTIO_W4_, VIRTIO_REG_QUEUE_ALIGN_},
        {VIRTIO_IN_V1_, VIRTIO_MMIO_REG_QUEUE_PFN, VIRTIO_RW4_, VIRTIO_REG_QUEUE_PAGE_},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_QUEUE_READY, VIRTIO_RW4_, VIRTIO_REG_QUEUE_READY_},
        {VIRTIO_IN_MMIO_, VIRTIO_MMIO_REG_STATUS, VIRTIO_RW4_, VIRTIO_REG_STATUS_},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_QUEUE_DESC, VIRTIO_W4_, VIRTIO_REG_ADDRESS_},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_QUEUE_DESC + 4, VIRTIO_W4_, VIRTIO_REG_ADDRESS_ + 1},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_QUEUE_DRIVER, VIRTIO_W4_, VIRTIO_REG_ADDRESS_ + 2},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_QUEUE_DRIVER + 4, VIRTIO_W4_, VIRTIO_REG_ADDRESS_ + 3},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_QUEUE_DEVICE, VIRTIO_W4_, VIRTIO_REG_ADDRESS_ + 4},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_QUEUE_DEVICE + 4, VIRTIO_W4_, VIRTIO_REG_ADDRESS_ + 5},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_SHM_SEL, VIRTIO_W4_, VIRTIO_REG_SHM_SEL_},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_SHM_LENGTH, VIRTIO_R4_, VIRTIO_REG_SHM_},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_SHM_LENGTH + 4, VIRTIO_R4_, VIRTIO_REG_SHM_ + 1},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_SHM_BASE, VIRTIO_R4_, VIRTIO_REG_SHM_ + 2},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_SHM_BASE + 4, VIRTIO_R4_, VIRTIO_REG_SHM_ + 3},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_QUEUE_RESET, VIRTIO_RW4_, VIRTIO_REG_QUEUE_RESET_},
        {VIRTIO_IN_V2_, VIRTIO_MMIO_REG_CONFIG_GENERATION, VIRTIO_R4_, VIRTIO_REG_GENERATION_},
        /* PCI common configuration, 4.1.4.3 */
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_DEVICE_FEATURE_SELECT, VIRTIO_RW4_, VIRTIO_REG_OFFERED_SEL_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_DEVICE_FEATURE, VIRTIO_R4_, VIRTIO_REG_OFFERED_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_DRIVER_FEATURE_SELECT, VIRTIO_RW4_,
         VIRTIO_REG_ACCEPTED_SEL_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_DRIVER_FEATURE, VIRTIO_RW4_, VIRTIO_REG_ACCEPTED_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_CONFIG_MSIX_VECTOR, VIRTIO_RW2_, VIRTIO_REG_CONFIG_VECTOR_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_NUM_QUEUES, VIRTIO_R2_, VIRTIO_REG_NUM_QUEUES_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_DEVICE_STATUS, VIRTIO_RW1_, VIRTIO_REG_STATUS_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_CONFIG_GENERATION, VIRTIO_R1_, VIRTIO_REG_GENERATION_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_SELECT, VIRTIO_RW2_, VIRTIO_REG_QUEUE_SEL_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_SIZE, VIRTIO_RW2_, VIRTIO_REG_QUEUE_SIZE_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_MSIX_VECTOR, VIRTIO_RW2_, VIRTIO_REG_QUEUE_VECTOR_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_ENABLE, VIRTIO_RW2_, VIRTIO_REG_QUEUE_ENABLE_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_NOTIFY_OFF, VIRTIO_R2_, VIRTIO_REG_NOTIFY_OFF_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_DESC, VIRTIO_RW4_, VIRTIO_REG_ADDRESS_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_DESC + 4, VIRTIO_RW4_, VIRTIO_REG_ADDRESS_ + 1},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_DRIVER, VIRTIO_RW4_, VIRTIO_REG_ADDRESS_ + 2},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_DRIVER + 4, VIRTIO_RW4_, VIRTIO_REG_ADDRESS_ + 3},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_DEVICE, VIRTIO_RW4_, VIRTIO_REG_ADDRESS_ + 4},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_DEVICE + 4, VIRTIO_RW4_, VIRTIO_REG_ADDRESS_ + 5},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_NOTIF_CONFIG_DATA, VIRTIO_R2_,
         VIRTIO_REG_NOTIFY_DATA_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_QUEUE_RESET, VIRTIO_RW2_, VIRTIO_REG_QUEUE_RESET_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_ADMIN_QUEUE_INDEX, VIRTIO_R2_, VIRTIO_REG_ADMIN_INDEX_},
        {VIRTIO_IN_PCI_, VIRTIO_COMMON_ADMIN_QUEUE_NUM, VIRTIO_R2_, VIRTIO_REG_ADMIN_NUM_},
        /* legacy PCI, 4.1.4.10, and the 2011 RFC, which moved notify and ISR elsewhere (R-AMB-4) */
        {VIRTIO_IN_BOTH_, VIRTIO_LEGACY_DEVICE_FEATURES, VIRTIO_R4_, VIRTIO_REG_OFFERED_LOW_},
        {VIRTIO_IN_BOTH_, VIRTIO_LEGACY_DRIVER_FEATURES, VIRTIO_RW4_, VIRTIO_REG_ACCEPTED_LOW_},
        {VIRTIO_IN_BOTH_, VIRTIO_LEGACY_QUEUE_ADDRESS, VIRTIO_RW4_, VIRTIO_REG_QUEUE_PAGE_},
        {VIRTIO_IN_BOTH_, VIRTIO_LEGACY_QUEUE_SIZE, VIRTIO_R2_, VIRTIO_REG_QUEUE_MAX_},
        {VIRTIO_IN_BOTH_, VIRTIO_LEGACY_QUEUE_SELECT, VIRTIO_RW2_, VIRTIO_REG_QUEUE_SEL_},
        {VIRTIO_IN_BOTH_, VIRTIO_LEGACY_DEVICE_STATUS, VIRTIO_RW1_, VIRTIO_REG_STATUS_},
        {VIRTIO_IN_BOTH_, VIRTIO_LEGACY_CONFIG_VECTOR, VIRTIO_RW2_, VIRTIO_REG_CONFIG_VECTOR_},
        {VIRTIO_IN_BOTH_, VIRTIO_LEGACY_QUEUE_VECTOR, VIRTIO_RW2_, VIRTIO_REG_QUEUE_VECTOR_},
        {VIRTIO_IN_RFC_, VIRTIO_RFC_DEVICE_FEATURES_HIGH, VIRTIO_R4_, VIRTIO_REG_OFFERED_HIGH_},
        {VIRTIO_IN_RFC_, VIRTIO_RFC_DRIVER_FEATURES_HIGH, VIRTIO_RW4_, VIRTIO_REG_ACCEPTED_HIGH_},
    };

    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (places[i].offset == offset && (places[i].views >> view & 1) != 0 &&
            (places[i].width & (access | 15)) == (access | width))
            return places[i].reg;
    }
    return VIRTIO_REG_NONE_;
}

VIRTIO_INLINE uint32_t virtio_half_(uint64_t value, unsigned high)
{
    return high != 0 ? (uint32_t)(value >> 32) : (uint32_t)value;
}
VIRTIO_INLINE bool virtio_power_of_2_(uint32_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}
/* The feature word that a register shows. */
VIRTIO_INLINE uint32_t virtio_dev_word_(const struct virtio_dev *dev, unsigned reg)
{
    if (reg == VIRTIO_REG_OFFERED_LOW_ || reg == VIRTIO_REG_ACCEPTED_LOW_)
        return 0;
    if (reg == VIRTIO_REG_OFFERED_HIGH_ || reg == VIRTIO_REG_ACCEPTED_HIGH_)
        return 1;
    return dev->reg.feature_select[reg == VIRTIO_REG_ACCEPTED_];
}

/* A vector exists below the table size (V-MSX-03). In the legacy layouts the registers do nothing
 * while MSI-X is off (R-AMB-5). */
VIRTIO_INLINE uint16_t virtio_dev_vector_get_(const struct virtio_dev *dev, enum virtio_view view,
                                              uint16_t vector)
{
    return virtio_view_legacy_(view) && !dev->msix_on ? (uint16_t)VIRTIO_VECTOR_NONE : vector;
}
VIRTIO_INLINE void virtio_dev_vector_set_(const struct virtio_dev *dev, enum virtio_view view,
                                          uint16_t *vector, uint32_t value)
{
    if (!virtio_view_legacy_(view) || dev->msix_on)
        *vector = (uint16_t)(value < dev->msix_vectors ? value : (uint32_t)VIRTIO_VECTOR_NONE);
}

/* Once per look at it, however often the configuration changed in between (V-CFG-01, T-35). */
VIRTIO_INLINE uint8_t virtio_dev_generation_(struct virtio_dev *dev)
{
    if (dev->reg.config_dirty)
        dev->reg.generation++;
    dev->reg.config_dirty = false;
    return dev->reg.generation;
}

VIRTIO_INLINE uint8_t virtio_dev_isr_take_(struct virtio_dev *dev)
{
    uint8_t isr = dev->reg.isr;

    dev->reg.isr = 0; /* V-ISR-03 */
    virtio_dev_line_(dev);
    return isr;
}

/* Length and base of the selected region; all ones if there is none (V-MMIO-06). */
VIRTIO_INLINE uint32_t virtio_dev_shm_(const struct virtio_dev *dev, unsigned which)
{
    for (uint32_t i = 0; i < dev->shm_count; i++) {
        const struct virtio_dev_shm *shm = &dev->shm[i];

        if (shm->id == dev->reg.shm_select)
            return virtio_half_(which < 2 ? shm->length : shm->base, which & 1);
    }
    return UINT32_MAX;
}

VIRTIO_INLINE uint32_t virtio_dev_queue_get_(const struct virtio_dev *dev, enum virtio_view view,
                                             unsigned reg)
{
    const struct virtio_dev_queue *q = virtio_dev_queue_(dev, dev->reg.queue_select);

    if (q == NULL) /* V-COM-07 */
        return reg == VIRTIO_REG_QUEUE_VECTOR_ ? VIRTIO_VECTOR_NONE : 0;
    switch (reg) {
    case VIRTIO_REG_QUEUE_MAX_: return virtio_dev_queue_max_(dev, q);
    case VIRTIO_REG_QUEUE_SIZE_: return virtio_dev_queue_size_(dev, q);
    case VIRTIO_REG_QUEUE_VECTOR_: return virtio_dev_vector_get_(dev, view, q->reg.vector);
    case VIRTIO_REG_QUEUE_ENABLE_:
    case VIRTIO_REG_QUEUE_READY_: return q->reg.state != VIRTIO_DEV_QUEUE_OFF;
    case VIRTIO_REG_NOTIFY_OFF_:
        return dev->notify_multiplier == 0 ? 0 : dev->reg.queue_select;
    case VIRTIO_REG_NOTIFY_DATA_:
        return virtio_dev_has_(dev, VIRTIO_FEATURE_NOTIF_CONFIG_DATA) ? q->notify_data : 0;
    case VIRTIO_REG_QUEUE_RESET_: return q->reg.state == VIRTIO_DEV_QUEUE_RESETTING;
    case VIRTIO_REG_QUEUE_PAGE_: return q->reg.page;
    default:
        reg -= VIRTIO_REG_ADDRESS_;
        return reg < 6 ? virtio_half_(q->reg.address[reg / 2], reg & 1) : 0;
    }
}

VIRTIO_INLINE uint32_t virtio_dev_get_(struct virtio_dev *dev, enum virtio_view view, unsigned reg)
{
    bool admin = (dev->offered.word[1] >> (VIRTIO_FEATURE_ADMIN_VQ - 32) & 1) != 0;

    switch (reg) {
    case VIRTIO_REG_NONE_: return 0;
    case VIRTIO_REG_MAGIC_: return VIRTIO_MMIO_MAGIC_NUMBER;
    case VIRTIO_REG_VERSION_: return view == VIRTIO_VIEW_MMIO ? 2 : 1;
    case VIRTIO_REG_DEVICE_ID_: return dev->device_type;
    case VIRTIO_REG_VENDOR_ID_: return dev->vendor_id;
    case VIRTIO_REG_OFFERED_SEL_: return dev->reg.feature_select[0];
    case VIRTIO_REG_ACCEPTED_SEL_: return dev->reg.feature_select[1];
    case VIRTIO_REG_OFFERED_:
    case VIRTIO_REG_OFFERED_LOW_:
    case VIRTIO_REG_OFFERED_HIGH_:
        return virtio_dev_offered_(dev, view, virtio_dev_word_(dev, reg));
    case VIRTIO_REG_ACCEPTED_:
    case VIRTIO_REG_ACCEPTED_LOW_:
    case VIRTIO_REG_ACCEPTED_HIGH_: { /* V-COM-02 */
        uint32_t word = virtio_dev_word_(dev, reg);

        return word < 4 ? dev->reg.accepted.word[word] & virtio_dev_offered_(dev, view, word) : 0;
    }
    case VIRTIO_REG_STATUS_: return virtio_dev_status_get_(dev);
    case VIRTIO_REG_GENERATION_: return virtio_dev_generation_(dev);
    case VIRTIO_REG_CONFIG_VECTOR_:
        return virtio_dev_vector_get_(dev, view, dev->reg.config_vector);
    case VIRTIO_REG_NUM_QUEUES_: return (uint32_t)dev->queue_count - dev->admin_count;
    case VIRTIO_REG_ADMIN_INDEX_: /* V-COM-06 */
        return admin ? (uint32_t)dev->queue_count - dev->admin_count : 0;
    case VIRTIO_REG_ADMIN_NUM_: return admin ? dev->admin_count : 0;
    case VIRTIO_REG_ISR_: return virtio_dev_isr_take_(dev);
    case VIRTIO_REG_IRQ_STATUS_: return dev->reg.isr;
    case VIRTIO_REG_SHM_:
    case VIRTIO_REG_SHM_ + 1:
    case VIRTIO_REG_SHM_ + 2:
    case VIRTIO_REG_SHM_ + 3: return virtio_dev_shm_(dev, reg - VIRTIO_REG_SHM_);
    case VIRTIO_REG_QUEUE_SEL_: return dev->reg.queue_select;
    default: return virtio_dev_queue_get_(dev, view, reg);
    }
}

/* Sizes that cannot be are ignored where the driver can read the register back; where it cannot,
 * they make the queue unusable rather than of another size than the driver thinks (V-COM-08,
 * V-MMIO-07, T-84, T-85). */
VIRTIO_INLINE void virtio_dev_size_set_(const struct virtio_dev *dev, enum virtio_view view,
                                        struct virtio_dev_queue *q, uint32_t value)
{
    bool packed = virtio_dev_has_(dev, VIRTIO_FEATURE_RING_PACKED) && !virtio_view_legacy_(view);

    if (value <= q->max && virtq_size_ok(value, packed ? VIRTQ_PACKED : 0))
        q->reg.size = (uint16_t)value;
    else if (view != VIRTIO_VIEW_COMMON)
        q->reg.size = 0;
}

/* Queues start when the features are settled. */
VIRTIO_INLINE void virtio_dev_enable_(struct virtio_dev *dev, uint16_t index)
{
    if (dev->queue[index].reg.state == VIRTIO_DEV_QUEUE_OFF &&
        (dev->reg.status & VIRTIO_STATUS_FEATURES_OK) != 0)
        virtio_dev_queue_start_(dev, index);
}

/* Parameters: latched while the queue is on (V-COM-08, V-MMIO-07). */
VIRTIO_INLINE void virtio_dev_queue_set_(struct virtio_dev *dev, enum virtio_view view,
                                         struct virtio_dev_queue *q, unsigned reg, uint32_t value)
{
    uint64_t *address;

    if (q->reg.state != VIRTIO_DEV_QUEUE_OFF)
        return;
    if (reg == VIRTIO_REG_QUEUE_SIZE_) {
        virtio_dev_size_set_(dev, view, q, value);
    } else if (reg == VIRTIO_REG_QUEUE_ALIGN_) {
        q->reg.align = virtio_power_of_2_(value) ? value : 0;
    } else if (reg >= VIRTIO_REG_ADDRESS_) {
        reg -= VIRTIO_REG_ADDRESS_;
        address = &q->reg.address[reg / 2];
        *address = reg & 1 ? (*address & UINT32_MAX) | (uint64_t)value << 32
                           : (*address & ~(uint64_t)UINT32_MAX) | value;
    }
}

VIRTIO_INLINE void virtio_dev_queue_write_(struct virtio_dev *dev, enum virtio_view view,
                                           unsigned reg, uint32_t value)
{
    uint16_t index = dev->reg.queue_select;
    struct virtio_dev_queue *q = virtio_dev_queue_(dev, index);

    if (q == NULL)
        return;
    switch (reg) {
    case VIRTIO_REG_QUEUE_VECTOR_: virtio_dev_vector_set_(dev, view, &q->reg.vector, value); break;
    case VIRTIO_REG_QUEUE_ENABLE_: /* a driver never writes 0 (D-COM-04) */
        if (value == 1)
            virtio_dev_enable_(dev, index);
        break;
    case VIRTIO_REG_QUEUE_READY_:
        if (value & 1)
            virtio_dev_enable_(dev, index);
        else
            virtio_dev_queue_stop_(dev, index, VIRTIO_DEV_QUEUE_STOPPING);
        break;
    case VIRTIO_REG_QUEUE_RESET_:
        if (value == 1 && virtio_dev_has_(dev, VIRTIO_FEATURE_RING_RESET))
            virtio_dev_queue_stop_(dev, index, VIRTIO_DEV_QUEUE_RESETTING);
        break;
    case VIRTIO_REG_QUEUE_PAGE_:
        if (view == VIRTIO_VIEW_MMIO_V1) {
            virtio_dev_page_set_(dev, index, value, dev->reg.page_size, q->reg.align);
            break;
        }
        virtio_dev_queue_set_(dev, view, q, VIRTIO_REG_QUEUE_SIZE_, virtio_dev_queue_max_(dev, q));
        virtio_dev_page_set_(dev, index, value, VIRTQ_LEGACY_ALIGN, VIRTQ_LEGACY_ALIGN);
        break;
    default: virtio_dev_queue_set_(dev, view, q, reg, value);
    }
}

VIRTIO_INLINE void virtio_dev_kick_(struct virtio_dev *dev, uint32_t index)
{
    if (index <= 0xffff && virtio_dev_ring(dev, (uint16_t)index) != NULL && dev->ops->kick != NULL)
        dev->ops->kick(dev->ctx, (uint16_t)index);
}

VIRTIO_INLINE void virtio_dev_set_(struct virtio_dev *dev, enum virtio_view view, unsigned reg,
                                   uint32_t value)
{
    switch (reg) {
    case VIRTIO_REG_NONE_: break;
    case VIRTIO_REG_OFFERED_SEL_: dev->reg.feature_select[0] = value; break;
    case VIRTIO_REG_ACCEPTED_SEL_: dev->reg.feature_select[1] = value; break;
    case VIRTIO_REG_ACCEPTED_:
    case VIRTIO_REG_ACCEPTED_LOW_:
    case VIRTIO_REG_ACCEPTED_HIGH_:
        virtio_dev_accept_(dev, view, virtio_dev_word_(dev, reg), value);
        break;
    case VIRTIO_REG_STATUS_: virtio_dev_status_set_(dev, view, (uint8_t)value); break;
    case VIRTIO_REG_CONFIG_VECTOR_:
        virtio_dev_vector_set_(dev, view, &dev->reg.config_vector, value);
        break;
    case VIRTIO_REG_IRQ_ACK_:
        dev->reg.isr &= (uint8_t)~value;
        virtio_dev_line_(dev);
        break;
    case VIRTIO_REG_NOTIFY_: virtio_dev_kick_(dev, value & 0xffff); break; /* V-NOTE-01 */
    case VIRTIO_REG_PAGE_SIZE_: dev->reg.page_size = virtio_power_of_2_(value) ? value : 0; break;
    case VIRTIO_REG_SHM_SEL_: dev->reg.shm_select = value; break;
    case VIRTIO_REG_QUEUE_SEL_:
        dev->reg.queue_select = value < 0xffff ? (uint16_t)value : 0xffff;
        break;
    default: virtio_dev_queue_write_(dev, view, reg, value);
    }
}

/* ---------------------------------------------------------------------------
 * 16. Device-side views
 * --------------------------------------------------------------------------- */

/** Bytes of the common configuration: as much as the offered features ask for (D-COM-06). */
VIRTIO_INLINE uint32_t virtio_dev_common_length(const struct virtio_dev *dev)
{
    if (virtio_features_has(&dev->offered, VIRTIO_FEATURE_ADMIN_VQ))
        return VIRTIO_COMMON_END;
    if (virtio_features_has(&dev->offered, VIRTIO_FEATURE_RING_RESET) ||
        virtio_features_has(&dev->offered, VIRTIO_FEATURE_NOTIF_CONFIG_DATA))
        return VIRTIO_COMMON_ADMIN_QUEUE_INDEX;
    return VIRTIO_COMMON_LENGTH;
}

/** Bytes of the notification structure, at least 4 (V-NTF-01, V-NTF-02). */
VIRTIO_INLINE uint32_t virtio_dev_notify_length(const struct virtio_dev *dev)
{
    uint32_t last = dev->queue_count != 0 ? dev->queue_count - 1u : 0;

    return last * dev->notify_multiplier + 4;
}

/* Where device configuration starts in a view; out of reach if there is none. */
VIRTIO_INLINE uint64_t virtio_dev_config_at_(const struct virtio_dev *dev, enum virtio_view view)
{
    switch (view) {
    case VIRTIO_VIEW_CONFIG:
    case VIRTIO_VIEW_RFC_CONFIG: return 0;
    case VIRTIO_VIEW_LEGACY: return dev->msix_on ? VIRTIO_LEGACY_CONFIG_MSIX : VIRTIO_LEGACY_CONFIG;
    case VIRTIO_VIEW_MMIO:
    case VIRTIO_VIEW_MMIO_V1: return VIRTIO_MMIO_REG_CONFIG;
    default: return UINT64_MAX;
    }
}

VIRTIO_INLINE uint32_t virtio_dev_config_read_(const struct virtio_dev *dev, enum virtio_view view,
                                               uint64_t offset, unsigned width)
{
    const uint8_t *config = dev->config;
    uint32_t value = 0;

    if (virtio_view_legacy_(view) && dev->config_legacy != NULL)
        config = dev->config_legacy;
    if (config == NULL)
        return 0;
    for (unsigned i = width; i-- != 0;)
        value = value << 8 | (offset + i < dev->config_length ? config[offset + i] : 0u);
    return value;
}
VIRTIO_INLINE void virtio_dev_config_write_(struct virtio_dev *dev, enum virtio_view view,
                                            uint64_t offset, unsigned width, uint32_t value)
{
    uint8_t bytes[4];

    if (dev->ops->config_write == NULL || offset >= dev->config_length ||
        (dev->reg.status & VIRTIO_STATUS_SUSPEND)) /* V-SUS-02 */
        return;
    for (unsigned i = 0; i < 4; i++, value >>= 8)
        bytes[i] = (uint8_t)value;
    if (width > dev->config_length - offset)
        width = (unsigned)(dev->config_length - offset);
    dev->ops->config_write(dev->ctx, virtio_view_legacy_(view), (uint32_t)offset, bytes, width);
}

/* The notification structure: 16 or 32 bits at queue_notify_off times the multiplier. What is
 * written matters only where all queues share one address (L-NOTE-01, D-NOTE-02, V-NOTE-01). */
VIRTIO_INLINE void virtio_dev_notify_write_(struct virtio_dev *dev, uint64_t offset, unsigned width,
                                            uint32_t value)
{
    uint32_t index = value & 0xffff, step = dev->notify_multiplier;

    if (width < 2 || offset > UINT32_MAX)
        return;
    if (step == 0 ? offset != 0 : (offset & (step - 1)) != 0)
        return;
    if (step != 0) {
        index = (uint32_t)offset / step; /* a shift would need what some CPUs have in libgcc */
    } else if (virtio_dev_has_(dev, VIRTIO_FEATURE_NOTIF_CONFIG_DATA)) {
        for (index = 0; index < dev->queue_count; index++)
            if (dev->queue[index].notify_data == (value & 0xffff))
                break;
    }
    virtio_dev_kick_(dev, index);
}

VIRTIO_INLINE uint32_t virtio_dev_read32_(struct virtio_dev *dev, enum virtio_view view,
                                          uint64_t offset, unsigned width)
{
    uint64_t config_at = virtio_dev_config_at_(dev, view);

    if (width != 1 && width != 2 && width != 4)
        return 0;
    if (offset >= config_at)
        return virtio_dev_config_read_(dev, view, offset - config_at, width);
    return virtio_dev_get_(dev, view, virtio_dev_find_(view, offset, width, VIRTIO_R_));
}
VIRTIO_INLINE void virtio_dev_write32_(struct virtio_dev *dev, enum virtio_view view,
                                       uint64_t offset, unsigned width, uint32_t value)
{
    uint64_t config_at = virtio_dev_config_at_(dev, view);

    if ((width != 1 && width != 2 && width != 4) || dev->reg.resetting)
        return;
    if (offset >= config_at)
        virtio_dev_config_write_(dev, view, offset - config_at, width, value);
    else if (view == VIRTIO_VIEW_NOTIFY)
        virtio_dev_notify_write_(dev, offset, width, value);
    else
        virtio_dev_set_(dev, view, virtio_dev_find_(view, offset, width, VIRTIO_W_), value);
}

/**
 * The driver loads `width` bytes at `offset` of a view. Any offset and width have a defined result,
 * see above.
 * @return the value in CPU order: byte 0 of the access is bits 7:0
 * VIRTIO 4.1.4, 4.2.2, 4.2.4; V-CFG-02, V-COM-01 to V-COM-07, V-MMIO-01 to V-MMIO-06.
 */
VIRTIO_INLINE uint64_t virtio_dev_read(struct virtio_dev *dev, enum virtio_view view,
                                       uint64_t offset, unsigned width)
{
    uint32_t low;

    if (offset > UINT32_MAX)
        return 0;
    if (width != 8)
        return virtio_dev_read32_(dev, view, offset, width);
    low = virtio_dev_read32_(dev, view, offset, 4);
    return low | (uint64_t)virtio_dev_read32_(dev, view, offset + 4, 4) << 32;
}

/** The driver stores the low `width` bytes of `value` at `offset` of a view; as virtio_dev_read().
 *  While a reset is going on stores do nothing. */
VIRTIO_INLINE void virtio_dev_write(struct virtio_dev *dev, enum virtio_view view, uint64_t offset,
                                    unsigned width, uint64_t value)
{
    static const uint32_t masks[] = {0, 0xff, 0xffff, 0, UINT32_MAX};

    if (offset > UINT32_MAX)
        return;
    if (width != 8) {
        virtio_dev_write32_(dev, view, offset, width,
                            width <= 4 ? (uint32_t)value & masks[width] : 0);
        return;
    }
    virtio_dev_write32_(dev, view, offset, 4, (uint32_t)value);
    virtio_dev_write32_(dev, view, offset + 4, 4, (uint32_t)(value >> 32));
}

/* ---------------------------------------------------------------------------
 * 17. Device-side PCI function
 * --------------------------------------------------------------------------- */

/** A view in a BAR. */
struct virtio_dev_place {
    uint32_t offset; /**< into the BAR, bytes */
    uint32_t length; /**< bytes; an access must lie inside */
    uint8_t bar;     /**< 0 to 5 */
    uint8_t view;    /**< enum virtio_view */
};

enum { VIRTIO_DEV_PCI_CONFIG = 256 /**< bytes of configuration space */ };

/** A PCI function around an emulated device. The caller fills `config` with the header and the
 *  capabilities as they are at power on (BARs with their type bits) and sets the other fields of
 *  the upper part. MSI-X table and pending bits are the VMM's. */
struct virtio_dev_pci {
    struct virtio_dev *dev;
    uint8_t config[VIRTIO_DEV_PCI_CONFIG];
    uint64_t bar_size[6]; /**< bytes, powers of two; 0 where there is no BAR, or its upper half */
    const struct virtio_dev_place *place; /**< array of place_count */
    uint8_t place_count;

    uint8_t writable[VIRTIO_DEV_PCI_CONFIG]; /**< bits that the guest can change */
    uint8_t msix;                            /**< offset of the MSI-X capability, or 0 */
    uint8_t pci_cfg;                         /**< offset of the PCI_CFG capability, or 0 */
};

VIRTIO_INLINE uint32_t virtio_dev_pci_dword_(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}
VIRTIO_INLINE void virtio_dev_pci_mask_(struct virtio_dev_pci *pci, unsigned at, uint32_t mask)
{
    for (unsigned i = 0; i < 4; i++, mask >>= 8)
        pci->writable[at + i] = (uint8_t)mask;
}

/* Address bits of the BARs: writing all ones and reading back tells the size. */
VIRTIO_INLINE void virtio_dev_pci_mask_bars_(struct virtio_dev_pci *pci)
{
    for (unsigned i = 0; i < 6; i++) {
        uint8_t type = pci->config[0x10 + 4 * i];
        uint64_t mask = ~(pci->bar_size[i] - 1);

        if (pci->bar_size[i] == 0)
            continue;
        virtio_dev_pci_mask_(pci, 0x10 + 4 * i, (uint32_t)mask & ~(type & 1 ? 3u : 15u));
        if ((type & 7) == 4 && i < 5)
            virtio_dev_pci_mask_(pci, 0x14 + 4 * i, (uint32_t)(mask >> 32));
    }
}

/* What the guest may write of one capability. */
VIRTIO_INLINE void virtio_dev_pci_mask_cap_(struct virtio_dev_pci *pci, uint8_t at)
{
    const uint8_t *cap = &pci->config[at];

    if (cap[0] == VIRTIO_PCI_ID_MSIX_ && at <= VIRTIO_DEV_PCI_CONFIG - 12) {
        pci->msix = at;
        pci->writable[at + 3] = 0xc0; /* enable, mask all */
        pci->dev->msix_vectors = (uint16_t)((cap[2] | (cap[3] & 7) << 8) + 1);
    } else if (cap[0] == VIRTIO_PCI_ID_VENDOR_ && at <= VIRTIO_DEV_PCI_CONFIG - 20 &&
               cap[2] >= 20 && cap[3] == VIRTIO_PCI_STRUCT_PCI_CFG) {
        pci->pci_cfg = at;
        pci->writable[at + 4] = 0xff; /* bar; then offset, length, data (D-CAP-06) */
        for (unsigned i = 8; i < 20; i++)
            pci->writable[at + i] = 0xff;
    }
}

/** Power on: finds out from the image what the guest may write, and how many vectors there are.
 *  Call virtio_dev_init() as well. The image's capability list is trusted to be one, and yet walked
 *  no further than it can go. */
VIRTIO_INLINE void virtio_dev_pci_init(struct virtio_dev_pci *pci)
{
    uint8_t at = pci->config[0x34] & 0xfc;

    pci->msix = pci->pci_cfg = 0;
    pci->dev->msix_vectors = 0;
    for (unsigned i = 0; i < VIRTIO_DEV_PCI_CONFIG; i++)
        pci->writable[i] = 0;
    virtio_dev_pci_mask_(pci, 0x04, 0x0407); /* I/O, memory, bus master, Interrupt Disable */
    pci->writable[0x3c] = 0xff;              /* Interrupt Line */
    virtio_dev_pci_mask_bars_(pci);
    for (unsigned hop = 0; hop < (256 - 0x40) / 4 && at >= 0x40; hop++) { /* all distinct dwords */
        virtio_dev_pci_mask_cap_(pci, at);
        at = pci->config[at + 1] & 0xfc;
    }
}

/* The structure in which all of an access lies, or NULL. */
VIRTIO_INLINE const struct virtio_dev_place *
virtio_dev_pci_find_(const struct virtio_dev_pci *pci, unsigned bar, uint64_t offset,
                     unsigned width)
{
    for (unsigned i = 0; i < pci->place_count; i++) {
        const struct virtio_dev_place *place = &pci->place[i];

        if (place->bar == bar && offset >= place->offset && width <= place->length &&
            offset - place->offset <= place->length - width)
            return place;
    }
    return NULL;
}

/** The driver loads from a BAR; outside of every place, and across the end of one, it reads 0. */
VIRTIO_INLINE uint64_t virtio_dev_pci_bar_read(struct virtio_dev_pci *pci, unsigned bar,
                                               uint64_t offset, unsigned width)
{
    const struct virtio_dev_place *place = virtio_dev_pci_find_(pci, bar, offset, width);

    if (place == NULL)
        return 0;
    return virtio_dev_read(pci->dev, (enum virtio_view)place->view, offset - place->offset, width);
}

/** The driver stores to a BAR. */
VIRTIO_INLINE void virtio_dev_pci_bar_write(struct virtio_dev_pci *pci, unsigned bar,
                                            uint64_t offset, unsigned width, uint64_t value)
{
    const struct virtio_dev_place *place = virtio_dev_pci_find_(pci, bar, offset, width);

    if (place != NULL)
        virtio_dev_write(pci->dev, (enum virtio_view)place->view, offset - place->offset, width,
                         value);
}

/* Does [offset, offset + width) of configuration space touch [at, at + length)? */
VIRTIO_INLINE bool virtio_dev_pci_touches_(unsigned offset, unsigned width, unsigned at,
                                           unsigned length)
{
    return offset < at + length && at < offset + width;
}

/* An access through the PCI_CFG window: to a structure that a capability announces, with an offset
 * that its width divides; 0 and no access otherwise. It ends at a view, never at configuration
 * space again (V-PCFG-01, V-PCFG-02, D-PCFG-01). */
VIRTIO_INLINE unsigned virtio_dev_pci_window_(const struct virtio_dev_pci *pci)
{
    const uint8_t *cap = &pci->config[pci->pci_cfg];
    uint32_t offset = virtio_dev_pci_dword_(cap + 8), width = virtio_dev_pci_dword_(cap + 12);
    const struct virtio_dev_place *place;

    if ((width != 1 && width != 2 && width != 4) || (offset & (width - 1)) != 0)
        return 0;
    place = virtio_dev_pci_find_(pci, cap[4], offset, width);
    return place != NULL && place->view != VIRTIO_VIEW_LEGACY ? width : 0;
}
VIRTIO_INLINE void virtio_dev_pci_window_read_(struct virtio_dev_pci *pci)
{
    uint8_t *cap = &pci->config[pci->pci_cfg];
    unsigned width = virtio_dev_pci_window_(pci);
    uint64_t value = 0;

    if (width != 0)
        value = virtio_dev_pci_bar_read(pci, cap[4], virtio_dev_pci_dword_(cap + 8), width);
    for (unsigned i = 0; i < 4; i++, value >>= 8)
        cap[16 + i] = (uint8_t)value;
}
VIRTIO_INLINE void virtio_dev_pci_window_write_(struct virtio_dev_pci *pci)
{
    const uint8_t *cap = &pci->config[pci->pci_cfg];
    unsigned width = virtio_dev_pci_window_(pci);
    uint32_t value = virtio_dev_pci_dword_(cap + 16);

    if (width != 0)
        virtio_dev_pci_bar_write(pci, cap[4], virtio_dev_pci_dword_(cap + 8), width, value);
}

/* Command register and MSI-X control into the device. */
VIRTIO_INLINE void virtio_dev_pci_follow_(struct virtio_dev_pci *pci)
{
    virtio_dev_irq_mode(pci->dev, pci->msix != 0 && (pci->config[pci->msix + 3] & 0x80) != 0,
                        (pci->config[5] & 4) != 0);
}

/** The guest reads 1, 2 or 4 bytes of configuration space, at any offset; 0 past its end. */
VIRTIO_INLINE uint32_t virtio_dev_pci_read(struct virtio_dev_pci *pci, unsigned offset,
                                           unsigned width)
{
    uint32_t value = 0;

    if ((width != 1 && width != 2 && width != 4) || offset >= VIRTIO_DEV_PCI_CONFIG)
        return 0;
    if (pci->pci_cfg != 0 && virtio_dev_pci_touches_(offset, width, pci->pci_cfg + 16u, 4))
        virtio_dev_pci_window_read_(pci);
    pci->config[6] &= 0xf7; /* Interrupt Status (V-ISR-02) */
    pci->config[6] |= pci->dev->reg.isr != 0 && !pci->dev->msix_on ? 8 : 0;
    for (unsigned i = width; i-- != 0;)
        value = value << 8 | (offset + i < VIRTIO_DEV_PCI_CONFIG ? pci->config[offset + i] : 0u);
    return value;
}

/** The guest writes 1, 2 or 4 bytes of configuration space. The VMM looks at the command register
 *  and the BARs in `config` afterwards, and maps accordingly; without Bus Master it must not serve
 *  queues, about which the device itself knows nothing. */
VIRTIO_INLINE void virtio_dev_pci_write(struct virtio_dev_pci *pci, unsigned offset, unsigned width,
                                        uint32_t value)
{
    if ((width != 1 && width != 2 && width != 4) || offset >= VIRTIO_DEV_PCI_CONFIG)
        return;
    for (unsigned i = offset; i < offset + width && i < VIRTIO_DEV_PCI_CONFIG; i++, value >>= 8)
        pci->config[i] = (uint8_t)((pci->config[i] & ~(uint32_t)pci->writable[i]) |
                                   (value & pci->writable[i]));
    virtio_dev_pci_follow_(pci);
    if (pci->pci_cfg != 0 && virtio_dev_pci_touches_(offset, width, pci->pci_cfg + 16u, 4))
        virtio_dev_pci_window_write_(pci);
}

/** Resets the function (bus reset, FLR): what the guest wrote to configuration space is gone, and
 *  the device is reset. */
VIRTIO_INLINE void virtio_dev_pci_reset(struct virtio_dev_pci *pci)
{
    for (unsigned i = 0; i < VIRTIO_DEV_PCI_CONFIG; i++)
        pci->config[i] &= (uint8_t)~pci->writable[i];
    virtio_dev_pci_follow_(pci);
    virtio_dev_reset(pci->dev);
}
/** @} */
#endif /* VIRTIO_HAVE_DEVICE */

#endif /* VIRTIO_CORE_H */
