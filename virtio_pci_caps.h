// SPDX-License-Identifier: MIT-0
/**
 * @file virtio_pci_caps.h
 * @brief Where a PCI function keeps its virtio registers.
 *
 * One walk over configuration space serves three generations: the 2011 RFC's "flexible configuration
 * layout" (vendor capabilities of length 12), VIRTIO 1.x (length 16 and more) and the legacy I/O
 * BAR, with the RFC's fallback of each single structure to its legacy place. Nothing is written, no
 * register behind a BAR is touched, and each dword of configuration space is read once. The file
 * stands alone.
 *
 * How to use:
 *
 *     struct virtio_pci_config config = {my_read32, my_write32, my_function};
 *     struct virtio_pci_bar bars[6] = {...};       // as assigned; NONE where not reachable
 *     struct virtio_pci_layout layout;
 *     if (virtio_pci_scan(&layout, &config, bars, 0) == 0)
 *         place = virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_DEVICE, layout.msix_on);
 *
 * Contents
 *
 *     1. Configuration
 *     2. Types
 *     3. Interface
 *     4. Implementation
 */
#ifndef VIRTIO_PCI_LAYOUT_H
#define VIRTIO_PCI_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef VIRTIO_CONFIG_FILE
#include VIRTIO_CONFIG_FILE
#endif

/* ---------------------------------------------------------------------------
 * 1. Configuration
 * --------------------------------------------------------------------------- */
/* The same macros, with the same defaults, as in virtio_ring.h. */
#ifndef VIRTIO_INLINE
#define VIRTIO_INLINE static inline
#endif
#ifndef VIRTIO_NODISCARD
#define VIRTIO_NODISCARD __attribute__((warn_unused_result))
#endif

/* ---------------------------------------------------------------------------
 * 2. Types
 * --------------------------------------------------------------------------- */
/**
 * @defgroup virtio_pci PCI register layout
 * Pure functions of their arguments; any context. Configuration space is not trusted: the walk is
 * bounded, and an offset and length that came out of it lie inside the BAR they name.
 * @{
 */

/** Reads one dword of configuration space; `offset` is a multiple of 4 below 256, the value is in
 *  CPU order (byte 0 of the dword is bits 7:0). */
typedef uint32_t (*virtio_pci_read32_fn)(void *ctx, uint16_t offset);

/** Writes one dword of configuration space, all four bytes of it. */
typedef void (*virtio_pci_write32_fn)(void *ctx, uint16_t offset, uint32_t value);

/** A function's configuration space: ports 0xcf8/0xcfc, ECAM, a dump, a socket. */
struct virtio_pci_config {
    virtio_pci_read32_fn read32;
    virtio_pci_write32_fn write32; /**< NULL if it can only be read, as a dump */
    void *ctx;
};

enum virtio_pci_bar_kind { VIRTIO_PCI_BAR_NONE, VIRTIO_PCI_BAR_IO, VIRTIO_PCI_BAR_MEM };

/** One BAR as the caller can reach it. A BAR that is absent, unassigned, the upper half of a 64-bit
 *  one, or of a kind the caller cannot access is VIRTIO_PCI_BAR_NONE; structures in it are passed
 *  over (D-CAP-08). */
struct virtio_pci_bar {
    uint64_t base;   /**< for the caller; not looked at */
    uint64_t length; /**< bytes */
    uint8_t kind;    /**< enum virtio_pci_bar_kind */
};

/** The structures, by the number that both capability generations give them. */
enum virtio_pci_struct {
    VIRTIO_PCI_STRUCT_COMMON = 1, /**< common configuration; RFC: virtio header */
    VIRTIO_PCI_STRUCT_NOTIFY = 2,
    VIRTIO_PCI_STRUCT_ISR = 3,
    VIRTIO_PCI_STRUCT_DEVICE = 4 /**< device configuration */
};

/** How a structure, or a whole function, is laid out. */
enum virtio_pci_generation {
    VIRTIO_PCI_NONE,
    VIRTIO_PCI_LEGACY,  /**< fixed places in BAR0 */
    VIRTIO_PCI_RFC2011, /**< capabilities of length 12 */
    VIRTIO_PCI_MODERN   /**< capabilities of VIRTIO 1.x */
};

/** Where one structure is. */
struct virtio_pci_place {
    uint8_t found;   /**< enum virtio_pci_generation */
    uint8_t bar;     /**< 0 to 5 */
    uint8_t cap;     /**< configuration offset of its capability; 0 for a legacy place */
    uint32_t offset; /**< bytes into the BAR */
    uint32_t length; /**< bytes, within the BAR; may be more than anybody knows how to use */
};

/** What virtio_pci_scan() found. */
struct virtio_pci_layout {
    uint8_t generation;                /**< enum virtio_pci_generation */
    bool legacy;                       /**< BAR0 offers the legacy interface as well */
    bool msix_on;                      /**< MSI-X enabled at the time of the scan */
    uint8_t ignored;                   /**< malformed capabilities passed over */
    uint8_t pci_cfg;                   /**< configuration offset of the PCI_CFG capability, or 0 */
    uint8_t msix;                      /**< configuration offset of the MSI-X capability, or 0 */
    uint16_t msix_vectors;             /**< its table size, 1 to 2048 */
    uint32_t notify_multiplier;        /**< bytes; 0: all queues share one address (L-NTF-01) */
    uint32_t legacy_length;            /**< bytes of BAR0 if `legacy` */
    struct virtio_pci_place place[5];  /**< by enum virtio_pci_struct; use virtio_pci_locate() */
};

/** Policies of virtio_pci_scan(). */
enum virtio_pci_policy {
    VIRTIO_PCI_STRICT = 1 /**< a malformed virtio capability fails the scan (R-25) */
};

/** Errors of this file: negative, distinct from those of virtio_ring.h. */
enum virtio_pci_err {
    VIRTIO_PCI_ERR_NO_DEVICE = -40, /**< configuration space reads as all ones */
    VIRTIO_PCI_ERR_LIST = -41,      /**< capability list cyclic or pointing outside */
    VIRTIO_PCI_ERR_MALFORMED = -42, /**< a virtio capability is malformed, with VIRTIO_PCI_STRICT */
    VIRTIO_PCI_ERR_INCOMPLETE = -43 /**< no generation has all the structures it needs */
};

/* ---------------------------------------------------------------------------
 * 3. Interface
 * --------------------------------------------------------------------------- */

/**
 * Finds the virtio structures of a function.
 *
 * VIRTIO 1.x is chosen if its common configuration, notification and ISR structures are usable;
 * else the RFC's layout if at least one of its structures is, each absent one at its legacy place;
 * else legacy. Of several capabilities for one structure the first usable wins
 * (D-CAP-03, R-14). A capability that is malformed counts as absent; one of a type or length
 * that is not known is skipped (R-02, R-03, D-CAP-01).
 *
 * @param out     written only on success
 * @param bars    the six BARs
 * @param policy  0 or VIRTIO_PCI_STRICT
 * @return 0 or one of enum virtio_pci_err
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_pci_scan(struct virtio_pci_layout *out,
                                                   const struct virtio_pci_config *config,
                                                   const struct virtio_pci_bar bars[6],
                                                   unsigned policy);

/**
 * The place of one structure; found is VIRTIO_PCI_NONE if the function has none. A legacy device
 * configuration moves with `msix_on`; nothing that was found through a capability does.
 */
VIRTIO_INLINE struct virtio_pci_place virtio_pci_locate(const struct virtio_pci_layout *layout,
                                                       enum virtio_pci_struct which, bool msix_on);

/** Text of an error of this file, or NULL if `err` is none of them. */
VIRTIO_INLINE const char *virtio_pci_err_name(int err);
/** @} */

/* ---------------------------------------------------------------------------
 * 4. Implementation
 * --------------------------------------------------------------------------- */

enum {
    VIRTIO_PCI_LEGACY_HEADER_ = 20,      /* without, and ... */
    VIRTIO_PCI_LEGACY_HEADER_MSIX_ = 24, /* ... with the two vector registers (L-PLEG-05) */
    VIRTIO_PCI_MAX_HOPS_ = 48,           /* (256 - 64) / 4: more cannot be distinct (D-CAP-07) */
    VIRTIO_PCI_ID_VENDOR_ = 0x09,
    VIRTIO_PCI_ID_MSIX_ = 0x11,
    VIRTIO_PCI_RFC_LENGTH_ = 12,
    VIRTIO_PCI_TYPE_PCI_CFG_ = 5
};

/* A scan under way: what each family has so far. */
struct virtio_pci_scan_ {
    const struct virtio_pci_config *config;
    const struct virtio_pci_bar *bars;
    struct virtio_pci_place modern[5];
    struct virtio_pci_place rfc[5];
    uint32_t notify_multiplier;
    struct virtio_pci_layout *out;
};

VIRTIO_INLINE uint32_t virtio_pci_dword_(const struct virtio_pci_config *config, unsigned offset)
{
    return config->read32(config->ctx, (uint16_t)offset);
}

/* The one bounds check: [offset, offset + length) inside the BAR, without a sum that could wrap. */
VIRTIO_INLINE bool virtio_pci_inside_(const struct virtio_pci_bar bars[6], uint8_t bar,
                                      uint32_t offset, uint32_t length)
{
    if (bar > 5)
        return false;
    return offset <= bars[bar].length && length <= bars[bar].length - offset;
}

/* Structure alignment, a power of two: the RFC masks with it, 1.x promises it (R-08, V-CAP-04). */
VIRTIO_INLINE uint32_t virtio_pci_alignment_(unsigned type, bool rfc)
{
    if (type == VIRTIO_PCI_STRUCT_COMMON)
        return 4;
    if (type == VIRTIO_PCI_STRUCT_NOTIFY)
        return 2;
    return type == VIRTIO_PCI_STRUCT_DEVICE && !rfc ? 4 : 1;
}

/* Smallest length that is of use; larger is never wrong (R-12, D-CFG-04). The RFC says 28 for its
 * header, whose fields sum to 32; 28 is accepted (R-AMB-1). */
VIRTIO_INLINE uint32_t virtio_pci_min_length_(unsigned type, bool rfc)
{
    if (type == VIRTIO_PCI_STRUCT_COMMON)
        return rfc ? 28 : 56;
    return type == VIRTIO_PCI_STRUCT_NOTIFY ? 2 : 1;
}

/* One structure of a capability into `place` unless an earlier one is there; false: malformed. One
 * in a BAR that the caller cannot reach is no fault of the device: passed over (D-CAP-08). */
VIRTIO_INLINE bool virtio_pci_take_(const struct virtio_pci_scan_ *scan,
                                    struct virtio_pci_place place[5], unsigned type,
                                    struct virtio_pci_place at)
{
    bool rfc = at.found == VIRTIO_PCI_RFC2011;

    if (at.bar <= 5 && scan->bars[at.bar].kind == VIRTIO_PCI_BAR_NONE)
        return true;
    if (at.offset & (virtio_pci_alignment_(type, rfc) - 1))
        return false;
    if (at.length < virtio_pci_min_length_(type, rfc) ||
        !virtio_pci_inside_(scan->bars, at.bar, at.offset, at.length))
        return false;
    if (place[type].found == VIRTIO_PCI_NONE)
        place[type] = at;
    return true;
}

/* A capability of length 12: {id, next, 12, structure; bir, size 24 bits; offset}. */
VIRTIO_INLINE bool virtio_pci_rfc_cap_(struct virtio_pci_scan_ *scan, unsigned cap, unsigned type)
{
    struct virtio_pci_place at;
    uint32_t size_bir, offset;

    if (type < VIRTIO_PCI_STRUCT_COMMON || type > VIRTIO_PCI_STRUCT_DEVICE)
        return true;
    size_bir = virtio_pci_dword_(scan->config, cap + 4);
    offset = virtio_pci_dword_(scan->config, cap + 8);
    at.found = VIRTIO_PCI_RFC2011;
    at.bar = (uint8_t)size_bir;
    at.cap = (uint8_t)cap;
    at.offset = offset & ~(virtio_pci_alignment_(type, true) - 1);
    at.length = size_bir >> 8;
    return virtio_pci_take_(scan, scan->rfc, type, at);
}

/* A structure of VIRTIO 1.x: struct virtio_pci_cap, with the multiplier behind it for NOTIFY. */
VIRTIO_INLINE bool virtio_pci_modern_struct_(struct virtio_pci_scan_ *scan, unsigned cap,
                                             unsigned type, unsigned cap_length)
{
    bool notify = type == VIRTIO_PCI_STRUCT_NOTIFY;
    bool first = scan->modern[type].found == VIRTIO_PCI_NONE;
    struct virtio_pci_place at;

    if (notify && cap_length < 20)
        return false;
    at.found = VIRTIO_PCI_MODERN;
    at.bar = (uint8_t)virtio_pci_dword_(scan->config, cap + 4);
    at.cap = (uint8_t)cap;
    if (at.bar > 5)
        return true; /* reserved: ignored, not malformed (D-CAP-02) */
    at.offset = virtio_pci_dword_(scan->config, cap + 8);
    at.length = virtio_pci_dword_(scan->config, cap + 12);
    if (!virtio_pci_take_(scan, scan->modern, type, at))
        return false;
    /* Always at 16 of the capability chosen (T-19). */
    if (notify && first && scan->modern[type].found != VIRTIO_PCI_NONE)
        scan->notify_multiplier = virtio_pci_dword_(scan->config, cap + 16);
    return true;
}

/* A vendor capability whose first dword is `header`: false if it is virtio's and malformed. The
 * length tells the families apart: 12 is the RFC's, 16 and more is 1.x, the rest is unknown and
 * skipped. */
VIRTIO_INLINE bool virtio_pci_vendor_cap_(struct virtio_pci_scan_ *scan, unsigned cap,
                                          uint32_t header)
{
    unsigned length = header >> 16 & 0xff, type = header >> 24;

    if (length < VIRTIO_PCI_RFC_LENGTH_)
        return true;
    if (length > 256 - cap)
        return false; /* runs out of configuration space */
    if (length == VIRTIO_PCI_RFC_LENGTH_)
        return virtio_pci_rfc_cap_(scan, cap, type);
    if (length < 16)
        return true;
    if (type == VIRTIO_PCI_TYPE_PCI_CFG_ && length >= 20 && scan->out->pci_cfg == 0)
        scan->out->pci_cfg = (uint8_t)cap;
    if (type < VIRTIO_PCI_STRUCT_COMMON || type > VIRTIO_PCI_STRUCT_DEVICE)
        return true;
    return virtio_pci_modern_struct_(scan, cap, type, length);
}

/* Walks the capability list. */
VIRTIO_INLINE int virtio_pci_walk_(struct virtio_pci_scan_ *scan, unsigned policy)
{
    uint32_t status = virtio_pci_dword_(scan->config, 0x04) >> 16;
    unsigned cap;

    if (!(status & 0x10)) /* no list */
        return 0;
    cap = virtio_pci_dword_(scan->config, 0x34) & 0xfc;
    for (unsigned hops = 0; cap != 0; hops++) {
        uint32_t header;

        if (cap < 0x40 || hops >= VIRTIO_PCI_MAX_HOPS_)
            return VIRTIO_PCI_ERR_LIST;
        header = virtio_pci_dword_(scan->config, cap);
        if ((header & 0xff) == VIRTIO_PCI_ID_MSIX_ && scan->out->msix == 0) {
            scan->out->msix = (uint8_t)cap;
            scan->out->msix_vectors = (uint16_t)((header >> 16 & 0x7ff) + 1);
            scan->out->msix_on = header >> 31 != 0;
        }
        if ((header & 0xff) == VIRTIO_PCI_ID_VENDOR_ &&
            !virtio_pci_vendor_cap_(scan, cap, header)) {
            scan->out->ignored++;
            if (policy & VIRTIO_PCI_STRICT)
                return VIRTIO_PCI_ERR_MALFORMED;
        }
        cap = header >> 8 & 0xfc;
    }
    return 0;
}

VIRTIO_INLINE bool virtio_pci_modern_usable_(const struct virtio_pci_scan_ *scan)
{
    return scan->modern[VIRTIO_PCI_STRUCT_COMMON].found != VIRTIO_PCI_NONE &&
           scan->modern[VIRTIO_PCI_STRUCT_NOTIFY].found != VIRTIO_PCI_NONE &&
           scan->modern[VIRTIO_PCI_STRUCT_ISR].found != VIRTIO_PCI_NONE;
}

/* Usable if one structure is there, and each that is not has a legacy place; the device's own
 * configuration may be missing. */
VIRTIO_INLINE bool virtio_pci_rfc_usable_(const struct virtio_pci_scan_ *scan)
{
    unsigned present = 0;

    for (unsigned type = VIRTIO_PCI_STRUCT_COMMON; type <= VIRTIO_PCI_STRUCT_DEVICE; type++) {
        if (scan->rfc[type].found != VIRTIO_PCI_NONE)
            present++;
        else if (!scan->out->legacy && type != VIRTIO_PCI_STRUCT_DEVICE)
            return false;
    }
    return present != 0;
}

/* Chooses the generation and puts its places into the layout. */
VIRTIO_INLINE int virtio_pci_choose_(struct virtio_pci_scan_ *scan)
{
    struct virtio_pci_layout *out = scan->out;
    const struct virtio_pci_place *places = NULL;

    out->generation = VIRTIO_PCI_LEGACY;
    if (virtio_pci_modern_usable_(scan)) {
        out->generation = VIRTIO_PCI_MODERN;
        out->notify_multiplier = scan->notify_multiplier;
        places = scan->modern;
    } else if (virtio_pci_rfc_usable_(scan)) {
        out->generation = VIRTIO_PCI_RFC2011;
        places = scan->rfc;
    } else if (!out->legacy) {
        return VIRTIO_PCI_ERR_INCOMPLETE;
    }
    for (unsigned type = 0; places != NULL && type < 5; type++)
        out->place[type] = places[type];
    return 0;
}

/* The legacy interface is in BAR0, in I/O space (R-AMB-2). Device ids from 0x1040 on never have it:
 * an I/O BAR0 there can be the trap for legacy drivers, which must not be touched (V-PLEG-03). */
VIRTIO_INLINE bool virtio_pci_has_legacy_(uint32_t id, const struct virtio_pci_bar *bar0)
{
    if ((id & 0xffff) == 0x1af4 && id >> 16 >= 0x1040)
        return false;
    return bar0->kind == VIRTIO_PCI_BAR_IO && bar0->length >= VIRTIO_PCI_LEGACY_HEADER_;
}

VIRTIO_NODISCARD VIRTIO_INLINE int virtio_pci_scan(struct virtio_pci_layout *out,
                                                   const struct virtio_pci_config *config,
                                                   const struct virtio_pci_bar bars[6],
                                                   unsigned policy)
{
    static const struct virtio_pci_place none = {VIRTIO_PCI_NONE, 0, 0, 0, 0};
    struct virtio_pci_layout layout;
    struct virtio_pci_scan_ scan;
    uint32_t id;
    int err;

    layout.generation = VIRTIO_PCI_NONE;
    layout.msix_on = false;
    layout.ignored = layout.pci_cfg = layout.msix = 0;
    layout.msix_vectors = 0;
    layout.notify_multiplier = 0;
    layout.legacy_length = bars[0].length < UINT32_MAX ? (uint32_t)bars[0].length : UINT32_MAX;
    scan.config = config;
    scan.bars = bars;
    scan.notify_multiplier = 0;
    scan.out = &layout;
    for (unsigned type = 0; type < 5; type++)
        scan.modern[type] = scan.rfc[type] = layout.place[type] = none;

    id = virtio_pci_dword_(config, 0);
    if (id == UINT32_MAX)
        return VIRTIO_PCI_ERR_NO_DEVICE;
    layout.legacy = virtio_pci_has_legacy_(id, &bars[0]);
    err = virtio_pci_walk_(&scan, policy);
    if (err == 0)
        err = virtio_pci_choose_(&scan);
    if (err == 0)
        *out = layout;
    return err;
}

/* A structure's place in the legacy layout of BAR0 (A.2, A.4). */
VIRTIO_INLINE struct virtio_pci_place virtio_pci_legacy_place_(
    const struct virtio_pci_layout *layout, enum virtio_pci_struct which, bool msix_on)
{
    uint32_t header = msix_on ? VIRTIO_PCI_LEGACY_HEADER_MSIX_ : VIRTIO_PCI_LEGACY_HEADER_;
    struct virtio_pci_place at = {VIRTIO_PCI_LEGACY, 0, 0, 0, header};

    switch (which) {
    case VIRTIO_PCI_STRUCT_NOTIFY:
        at.offset = 16;
        at.length = 2;
        break;
    case VIRTIO_PCI_STRUCT_ISR:
        at.offset = 19;
        at.length = 1;
        break;
    case VIRTIO_PCI_STRUCT_DEVICE:
        at.offset = header;
        at.length = layout->legacy_length > header ? layout->legacy_length - header : 0;
        break;
    default: break;
    }
    if (at.length == 0 || at.length > layout->legacy_length)
        at.found = VIRTIO_PCI_NONE;
    return at;
}

VIRTIO_INLINE struct virtio_pci_place virtio_pci_locate(const struct virtio_pci_layout *layout,
                                                       enum virtio_pci_struct which, bool msix_on)
{
    struct virtio_pci_place at = layout->place[which];

    /* 1.x has no fallback: a structure is there or not. */
    if (at.found == VIRTIO_PCI_NONE && layout->legacy && layout->generation != VIRTIO_PCI_MODERN)
        return virtio_pci_legacy_place_(layout, which, msix_on);
    return at;
}

VIRTIO_INLINE const char *virtio_pci_err_name(int err)
{
    switch (err) {
    case VIRTIO_PCI_ERR_NO_DEVICE: return "no PCI function there";
    case VIRTIO_PCI_ERR_LIST: return "PCI capability list is cyclic or leads outside";
    case VIRTIO_PCI_ERR_MALFORMED: return "malformed virtio capability";
    case VIRTIO_PCI_ERR_INCOMPLETE: return "no complete set of virtio structures in reachable BARs";
    default: return NULL;
    }
}

#endif /* VIRTIO_PCI_LAYOUT_H */
