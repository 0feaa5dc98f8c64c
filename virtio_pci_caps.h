// SPDX-License-Identifier: MIT-0
/**
 * @file virtio_pci_caps.h
 * @brief Where a PCI function keeps its virtio registers.
 *
 * One walk over configuration space serves three generations: the 2011 RFC's "flexible
 * configuration layout" (vendor capabilities of length 12), VIRTIO 1.x (length 16 and more) and the
 * legacy I/O BAR, with the RFC's fallback of each single structure to its legacy place. A scan
 * writes nothing, touches no register behind a BAR, and reads each dword of a list once. For
 * machines without firmware there is sizing and assignment of BARs; for authors of devices there
 * are the same capability lists the other way round. The file stands alone.
 *
 * How to use, as a driver:
 *
 *     struct virtio_pci_config config = {my_read32, my_write32, my_function};
 *     struct virtio_pci_bar bars[6];
 *     struct virtio_pci_layout layout;
 *     err = virtio_pci_bars_size(&config, bars);                 // what firmware assigned, or ...
 *     err = virtio_pci_bars_assign(&config, bars, &my_ranges);   // ... if there is no firmware
 *     err = virtio_pci_scan(&layout, &config, bars, 0);
 *     place = virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_DEVICE, layout.msix_on);
 *
 * As a device: virtio_pci_image_header(), then virtio_pci_image_caps(). To show what a function
 * has: virtio_pci_walk_begin(), then virtio_pci_walk_next() while it returns 1.
 *
 * Contents
 *
 *     1. Configuration
 *     2. Types
 *     3. Capabilities
 *     4. What a function has
 *     5. BARs and registers
 *     6. Images
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
 * Pure functions of their arguments; any context, but one function's configuration space is used by
 * one caller at a time. It is not trusted: walks are bounded, each dword of a capability is read
 * once, and an offset and length that came out of it lie inside the BAR they name.
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
    uint64_t base;   /**< bus address or port; a scan does not look at it */
    uint64_t length; /**< bytes */
    uint8_t kind;    /**< enum virtio_pci_bar_kind */
    uint8_t wide;    /**< 1: of 64 bits, the next BAR register is its upper half */
};

/** The structures, by the number in their capability. The first four mean the same in both
 *  families; the others are of VIRTIO 1.x. */
enum virtio_pci_struct {
    VIRTIO_PCI_STRUCT_COMMON = 1, /**< common configuration; RFC: virtio header */
    VIRTIO_PCI_STRUCT_NOTIFY = 2,
    VIRTIO_PCI_STRUCT_ISR = 3,
    VIRTIO_PCI_STRUCT_DEVICE = 4,        /**< device configuration */
    VIRTIO_PCI_STRUCT_PCI_CFG = 5,       /**< window into the BARs, in configuration space */
    VIRTIO_PCI_STRUCT_SHARED_MEMORY = 8, /**< a region, told apart by its id */
    VIRTIO_PCI_STRUCT_VENDOR = 9         /**< vendor data, in configuration space */
};

/** How a structure, or a whole function, is laid out. */
enum virtio_pci_generation {
    VIRTIO_PCI_NONE,
    VIRTIO_PCI_LEGACY,  /**< fixed places in BAR0 */
    VIRTIO_PCI_RFC2011, /**< capabilities of length 12 */
    VIRTIO_PCI_MODERN   /**< capabilities of VIRTIO 1.x */
};

/** What keeps a capability from being used, whatever the BARs are. */
enum virtio_pci_fault {
    VIRTIO_PCI_FAULT_NONE,
    /* To be passed over, nobody's fault: */
    VIRTIO_PCI_FAULT_LAYOUT, /**< length of no family (R-02, R-35) */
    VIRTIO_PCI_FAULT_TYPE,   /**< type not known (R-03, D-CAP-01) */
    VIRTIO_PCI_FAULT_BAR,    /**< 1.x: reserved BAR number (D-CAP-02) */
    /* Malformed, see virtio_pci_capability_malformed(): */
    VIRTIO_PCI_FAULT_END,     /**< runs out of configuration space */
    VIRTIO_PCI_FAULT_SHORT,   /**< capability shorter than its type needs */
    VIRTIO_PCI_FAULT_RFC_BAR, /**< RFC: BAR number above 5 (R-06) */
    VIRTIO_PCI_FAULT_ALIGN,   /**< offset not aligned (V-CAP-04) */
    VIRTIO_PCI_FAULT_LENGTH,  /**< structure shorter than its smallest form (R-12, D-CFG-04) */
    VIRTIO_PCI_FAULT_VENDOR   /**< vendor data of vendor 0x1af4, or no multiple of 4 (V-VND-01) */
};

/** One vendor-specific capability, decoded. Fields that its type or length does not have are 0. */
struct virtio_pci_capability {
    uint64_t offset; /**< bytes into the BAR; RFC: low bits already cleared (R-08) */
    uint64_t length; /**< bytes of the structure */
    uint32_t extra;  /**< NOTIFY of 1.x: multiplier; VENDOR: vendor id */
    uint8_t family;  /**< VIRTIO_PCI_RFC2011, VIRTIO_PCI_MODERN or, not known, VIRTIO_PCI_NONE */
    uint8_t fault;   /**< enum virtio_pci_fault */
    uint8_t at;      /**< configuration offset */
    uint8_t size;    /**< its own length, bytes */
    uint8_t type;    /**< enum virtio_pci_struct, or a number not known */
    uint8_t bar;     /**< 0 to 5 unless `fault` says otherwise; PCI_CFG: what the driver wrote */
    uint8_t id;      /**< SHARED_MEMORY: which region */
};

/** A walk over a capability list. Private but for the MSI-X fields, which are right at its end. */
struct virtio_pci_walk {
    const struct virtio_pci_config *config;
    uint32_t seen[2];      /**< a bit for each dword that held a capability's header */
    uint8_t next;          /**< configuration offset, 0 at the end */
    uint8_t msix;          /**< configuration offset of the MSI-X capability, or 0 */
    bool msix_on;          /**< MSI-X enabled */
    uint16_t msix_vectors; /**< its table size, 1 to 2048 */
};

/** Where one structure is. */
struct virtio_pci_place {
    uint8_t found;   /**< enum virtio_pci_generation */
    uint8_t bar;     /**< 0 to 5 */
    uint8_t cap;     /**< configuration offset of its capability; 0 for a legacy place */
    uint32_t offset; /**< bytes into the BAR */
    uint32_t length; /**< bytes, within the BAR; may be more than anybody knows how to use: map what
                          you need, 4096 at most for what is known today (R-11, D-CAP-05) */
};

/** What virtio_pci_scan() found. */
struct virtio_pci_layout {
    uint8_t generation;                /**< enum virtio_pci_generation */
    bool legacy;                       /**< BAR0 offers the legacy interface as well */
    bool msix_on;                      /**< MSI-X enabled: at the scan, then as it was switched */
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

/** A shared memory region; what refers into it counts from its start (L-SHM-03). */
struct virtio_pci_shm {
    uint64_t offset; /**< bytes into the BAR */
    uint64_t length; /**< bytes, within the BAR */
    uint8_t bar;     /**< 0 to 5, in memory space */
    uint8_t cap;     /**< configuration offset of its capability */
};

/** Bus addresses or ports free to be assigned: next to end - 1, handed out upwards. */
struct virtio_pci_range {
    uint64_t next;
    uint64_t end;
};

/** What virtio_pci_bars_assign() hands out; keep it from one function to the next. */
struct virtio_pci_ranges {
    struct virtio_pci_range io;       /**< end 0: the machine has no I/O space */
    struct virtio_pci_range memory;   /**< only what is below 4 GiB is used */
    struct virtio_pci_range memory64; /**< 64-bit BARs go here first; may be empty */
};

/** Bits of the command register for virtio_pci_command(). */
enum virtio_pci_command_bit {
    VIRTIO_PCI_COMMAND_IO = 0x001,      /**< decode I/O BARs */
    VIRTIO_PCI_COMMAND_MEMORY = 0x002,  /**< decode memory BARs */
    VIRTIO_PCI_COMMAND_MASTER = 0x004,  /**< let it access memory, and send MSI-X */
    VIRTIO_PCI_COMMAND_INTX_OFF = 0x400 /**< never assert the interrupt pin */
};

/** Who a function is, for virtio_pci_image_header(). */
struct virtio_pci_identity {
    uint16_t type;             /**< virtio device type */
    bool transitional;         /**< with the legacy interface: id of 0x1000 to 0x1009 */
    uint8_t revision;          /**< transitional: 0; else 1 or more (V-PCI-01, V-PCI-02) */
    uint16_t subsystem_vendor; /**< 0x1af4 unless the machine has an id of its own */
    uint16_t subsystem;        /**< transitional: the type; else 0x40 or more */
    uint32_t class_code;       /**< 24 bits: base class << 16 | subclass << 8 | interface */
    uint8_t interrupt_pin;     /**< 0: no INTx; 1 to 4: INTA to INTD */
};

/** Errors of this file: negative, distinct from those of virtio_ring.h. */
enum virtio_pci_err {
    VIRTIO_PCI_ERR_NO_DEVICE = -40,  /**< configuration space reads as all ones */
    VIRTIO_PCI_ERR_LIST = -41,       /**< capability list cyclic or pointing outside */
    VIRTIO_PCI_ERR_MALFORMED = -42,  /**< a virtio capability is malformed */
    VIRTIO_PCI_ERR_INCOMPLETE = -43, /**< no generation has all the structures it needs */
    VIRTIO_PCI_ERR_ABSENT = -44,     /**< the function has no such region or capability */
    VIRTIO_PCI_ERR_VENDOR = -45,     /**< not data of that vendor */
    VIRTIO_PCI_ERR_RANGE = -46,      /**< offset outside the capability */
    VIRTIO_PCI_ERR_READ_ONLY = -47,  /**< needs write32 */
    VIRTIO_PCI_ERR_HEADER = -48,     /**< header type other than 0: a bridge */
    VIRTIO_PCI_ERR_ROOM = -49,       /**< no room left in the ranges, or in the image */
    VIRTIO_PCI_ERR_REFUSED = -50,    /**< a BAR does not hold the address written to it */
    VIRTIO_PCI_ERR_FIELD = -51       /**< a field that the header or capability cannot have */
};
/** @} */

/* ---------------------------------------------------------------------------
 * 3. Capabilities
 * --------------------------------------------------------------------------- */

enum {
    VIRTIO_PCI_VENDOR_ID_ = 0x1af4,
    VIRTIO_PCI_REG_COMMAND_ = 0x04, /* and status, in the upper half */
    VIRTIO_PCI_REG_BAR0_ = 0x10,
    VIRTIO_PCI_REG_LIST_ = 0x34,
    VIRTIO_PCI_STATUS_LIST_ = 0x10,
    VIRTIO_PCI_CAPS_FIRST_ = 0x40, /* lower is the header */
    VIRTIO_PCI_ID_VENDOR_ = 0x09,
    VIRTIO_PCI_ID_MSIX_ = 0x11,
    VIRTIO_PCI_RFC_LENGTH_ = 12,
    VIRTIO_PCI_CAP_DWORDS_ = 6 /* of the longest that is decoded */
};

VIRTIO_INLINE uint32_t virtio_pci_dword_(const struct virtio_pci_config *config, unsigned offset)
{
    return config->read32(config->ctx, (uint16_t)offset);
}

/* The length tells the families apart: 12 is the RFC's, 16 and more is 1.x.
 * Vendor data, which may be as short as 8, has a number that the RFC does not use. */
VIRTIO_INLINE uint8_t virtio_pci_family_(unsigned type, unsigned size)
{
    if (type == VIRTIO_PCI_STRUCT_VENDOR)
        return VIRTIO_PCI_MODERN;
    if (size == VIRTIO_PCI_RFC_LENGTH_)
        return VIRTIO_PCI_RFC2011;
    return size >= 16 ? VIRTIO_PCI_MODERN : VIRTIO_PCI_NONE;
}

/* Whether a type is something in a BAR. Vendor data is not, and where PCI_CFG points to, the driver
 * writes: no fault of the device (D-CAP-06). */
VIRTIO_INLINE bool virtio_pci_in_bar_(unsigned type)
{
    return type != VIRTIO_PCI_STRUCT_PCI_CFG && type != VIRTIO_PCI_STRUCT_VENDOR;
}

/* What a capability must have, by family and type. */
struct virtio_pci_rule_ {
    uint8_t size;   /* of the capability itself; 0: type not known */
    uint8_t align;  /* of the offset: the RFC masks with it, 1.x promises it (R-08, V-CAP-04) */
    uint8_t length; /* the least that is of use: larger is never wrong (R-12, D-CFG-04) */
};

/* The RFC says 28 for its header, whose fields sum to 32; 28 is accepted (R-AMB-1). How much of its
 * own configuration a device must have, only its driver knows (R-AMB-7). */
VIRTIO_INLINE struct virtio_pci_rule_ virtio_pci_rule_of_(unsigned family, unsigned type)
{
    static const struct virtio_pci_rule_ rfc[] = {
        {0, 1, 0}, {12, 4, 28}, {12, 2, 2}, {12, 1, 1}, {12, 1, 1}};
    static const struct virtio_pci_rule_ modern[] = {
        {0, 1, 0},  {16, 4, 56}, {20, 2, 2}, {16, 1, 1}, {16, 4, 1},
        {20, 1, 0}, {0, 1, 0},   {0, 1, 0},  {24, 1, 1}, {8, 1, 0}};

    if (family == VIRTIO_PCI_RFC2011)
        return rfc[type <= VIRTIO_PCI_STRUCT_DEVICE ? type : 0];
    return modern[type <= VIRTIO_PCI_STRUCT_VENDOR ? type : 0];
}

VIRTIO_INLINE uint8_t virtio_pci_fault_(const struct virtio_pci_capability *cap)
{
    struct virtio_pci_rule_ rule = virtio_pci_rule_of_(cap->family, cap->type);

    if (cap->family == VIRTIO_PCI_NONE)
        return VIRTIO_PCI_FAULT_LAYOUT;
    if (rule.size == 0)
        return VIRTIO_PCI_FAULT_TYPE;
    if (cap->size > 256u - cap->at)
        return VIRTIO_PCI_FAULT_END;
    if (cap->size < rule.size)
        return VIRTIO_PCI_FAULT_SHORT;
    if (cap->type == VIRTIO_PCI_STRUCT_VENDOR &&
        (cap->extra == VIRTIO_PCI_VENDOR_ID_ || cap->size % 4 != 0))
        return VIRTIO_PCI_FAULT_VENDOR;
    if (!virtio_pci_in_bar_(cap->type))
        return VIRTIO_PCI_FAULT_NONE;
    if (cap->bar > 5)
        return cap->family == VIRTIO_PCI_RFC2011 ? VIRTIO_PCI_FAULT_RFC_BAR : VIRTIO_PCI_FAULT_BAR;
    if ((cap->offset & (rule.align - 1u)) != 0)
        return VIRTIO_PCI_FAULT_ALIGN;
    return cap->length < rule.length ? VIRTIO_PCI_FAULT_LENGTH : VIRTIO_PCI_FAULT_NONE;
}

/* Decodes the first dwords of a capability. RFC: {id, next, 12, type; BAR, length of 24 bits;
 * offset}. 1.x: {id, next, size, type; BAR, id; offset; length; multiplier or upper
 * halves}, vendor data {...; vendor id} (L-CAP-10). */
VIRTIO_INLINE struct virtio_pci_capability
virtio_pci_decode_(unsigned at, const uint32_t dword[VIRTIO_PCI_CAP_DWORDS_])
{
    struct virtio_pci_capability cap = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

    cap.at = (uint8_t)at;
    cap.size = (uint8_t)(dword[0] >> 16);
    cap.type = (uint8_t)(dword[0] >> 24);
    cap.family = virtio_pci_family_(cap.type, cap.size);
    if (cap.type == VIRTIO_PCI_STRUCT_VENDOR) {
        cap.extra = dword[1] & 0xffff;
    } else {
        cap.bar = (uint8_t)dword[1];
        cap.offset = dword[2];
        cap.length = dword[3];
    }
    if (cap.family == VIRTIO_PCI_RFC2011) {
        cap.offset &= ~(uint64_t)(virtio_pci_rule_of_(cap.family, cap.type).align - 1);
        cap.length = dword[1] >> 8;
    } else if (cap.type != VIRTIO_PCI_STRUCT_VENDOR) {
        cap.id = (uint8_t)(dword[1] >> 8);
        if (cap.type == VIRTIO_PCI_STRUCT_NOTIFY)
            cap.extra = dword[4]; /* at 16 of this very capability (T-19) */
        if (cap.type == VIRTIO_PCI_STRUCT_SHARED_MEMORY) {
            cap.offset |= (uint64_t)dword[4] << 32;
            cap.length |= (uint64_t)dword[5] << 32;
        }
    }
    cap.fault = virtio_pci_fault_(&cap);
    return cap;
}

/* Reads a capability of which `header` is the first dword. Nothing beyond its end is read, and not
 * the data of PCI_CFG, which would be an access to the BAR. */
VIRTIO_INLINE struct virtio_pci_capability
virtio_pci_read_capability_(const struct virtio_pci_config *config, unsigned at, uint32_t header)
{
    uint32_t dword[VIRTIO_PCI_CAP_DWORDS_] = {header, 0, 0, 0, 0, 0};
    unsigned size = header >> 16 & 0xff, type = header >> 24;
    unsigned end = virtio_pci_rule_of_(virtio_pci_family_(type, size), type).size;

    if (end > size)
        end = size;
    if (end > 256 - at)
        end = 256 - at;
    if (type == VIRTIO_PCI_STRUCT_PCI_CFG && end > 16)
        end = 16;
    for (unsigned i = 1; i < end / 4; i++)
        dword[i] = virtio_pci_dword_(config, at + 4 * i);
    return virtio_pci_decode_(at, dword);
}

/** Begins a walk over the capability list; `config` must outlive it. */
VIRTIO_INLINE void virtio_pci_walk_begin(struct virtio_pci_walk *walk,
                                         const struct virtio_pci_config *config)
{
    uint32_t status = virtio_pci_dword_(config, VIRTIO_PCI_REG_COMMAND_) >> 16;

    walk->config = config;
    walk->seen[0] = walk->seen[1] = 0;
    walk->next = 0;
    if (status & VIRTIO_PCI_STATUS_LIST_)
        walk->next = (uint8_t)(virtio_pci_dword_(config, VIRTIO_PCI_REG_LIST_) & 0xfc);
    walk->msix = 0;
    walk->msix_on = false;
    walk->msix_vectors = 0;
}

/* The first MSI-X capability counts. */
VIRTIO_INLINE void virtio_pci_walk_msix_(struct virtio_pci_walk *walk, uint8_t at, uint32_t header)
{
    if (walk->msix != 0)
        return;
    walk->msix = at;
    walk->msix_vectors = (uint16_t)((header >> 16 & 0x7ff) + 1);
    walk->msix_on = header >> 31 != 0;
}

/**
 * The next vendor-specific capability in list order, which is the device's preference (D-CAP-03).
 * Usable, not known and malformed ones alike: cap->fault tells.
 * @return 1: `cap` holds one; 0: end of the list; VIRTIO_PCI_ERR_LIST, also at each later call
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_pci_walk_next(struct virtio_pci_walk *walk,
                                                        struct virtio_pci_capability *cap)
{
    while (walk->next != 0) {
        uint8_t at = walk->next;
        uint32_t *seen = &walk->seen[at >> 7], bit = UINT32_C(1) << (at >> 2 & 31), header;

        /* No dword twice: at most 48 are distinct, so every walk ends (D-CAP-07). */
        if (at < VIRTIO_PCI_CAPS_FIRST_ || (*seen & bit) != 0)
            return VIRTIO_PCI_ERR_LIST;
        *seen |= bit;
        header = virtio_pci_dword_(walk->config, at);
        walk->next = (uint8_t)(header >> 8 & 0xfc);
        if ((header & 0xff) == VIRTIO_PCI_ID_MSIX_)
            virtio_pci_walk_msix_(walk, at, header);
        if ((header & 0xff) != VIRTIO_PCI_ID_VENDOR_)
            continue;
        *cap = virtio_pci_read_capability_(walk->config, at, header);
        return 1;
    }
    return 0;
}

/** Whether the fault is the device's: not merely something that this file does not know. */
VIRTIO_INLINE bool virtio_pci_capability_malformed(const struct virtio_pci_capability *cap)
{
    return cap->fault >= VIRTIO_PCI_FAULT_END;
}

/** Whether what a capability points to lies within a BAR that is there (R-10, D-CAP-07). */
VIRTIO_INLINE bool virtio_pci_capability_fits(const struct virtio_pci_capability *cap,
                                              const struct virtio_pci_bar bars[6])
{
    const struct virtio_pci_bar *bar;

    if (cap->bar > 5)
        return false;
    bar = &bars[cap->bar]; /* no sum, which could wrap */
    return bar->kind != VIRTIO_PCI_BAR_NONE && cap->offset <= bar->length &&
           cap->length <= bar->length - cap->offset;
}

/* ---------------------------------------------------------------------------
 * 4. What a function has
 * --------------------------------------------------------------------------- */

enum {
    VIRTIO_PCI_LEGACY_HEADER_ = 20,     /* without, and ... */
    VIRTIO_PCI_LEGACY_HEADER_MSIX_ = 24 /* ... with the two vector registers (L-PLEG-05) */
};

/* What each family has so far. */
struct virtio_pci_scan_ {
    const struct virtio_pci_bar *bars;
    struct virtio_pci_place modern[5];
    struct virtio_pci_place rfc[5];
    uint32_t notify_multiplier;
    struct virtio_pci_layout *out;
};

/* No fault of the device, and of no use (D-CAP-02, D-CAP-08). */
VIRTIO_INLINE bool virtio_pci_out_of_reach_(const struct virtio_pci_capability *cap,
                                            const struct virtio_pci_bar bars[6])
{
    return cap->bar > 5 || bars[cap->bar].kind == VIRTIO_PCI_BAR_NONE;
}

/* A structure that has no fault, unless an earlier one of its type is there; false: not inside its
 * BAR. */
VIRTIO_INLINE bool virtio_pci_take_(struct virtio_pci_scan_ *scan,
                                    const struct virtio_pci_capability *cap)
{
    bool rfc = cap->family == VIRTIO_PCI_RFC2011;
    struct virtio_pci_place *place = rfc ? &scan->rfc[cap->type] : &scan->modern[cap->type];

    if (virtio_pci_out_of_reach_(cap, scan->bars))
        return true;
    if (!virtio_pci_capability_fits(cap, scan->bars))
        return false;
    if (place->found != VIRTIO_PCI_NONE)
        return true;
    place->found = cap->family;
    place->bar = cap->bar;
    place->cap = cap->at;
    place->offset = (uint32_t)cap->offset;
    place->length = (uint32_t)cap->length;
    if (cap->type == VIRTIO_PCI_STRUCT_NOTIFY && !rfc)
        scan->notify_multiplier = cap->extra;
    return true;
}

/* One capability of the walk; false: malformed. */
VIRTIO_INLINE bool virtio_pci_look_(struct virtio_pci_scan_ *scan,
                                    const struct virtio_pci_capability *cap)
{
    if (cap->fault != VIRTIO_PCI_FAULT_NONE)
        return !virtio_pci_capability_malformed(cap);
    if (cap->type == VIRTIO_PCI_STRUCT_PCI_CFG && scan->out->pci_cfg == 0)
        scan->out->pci_cfg = cap->at;
    return cap->type > VIRTIO_PCI_STRUCT_DEVICE || virtio_pci_take_(scan, cap);
}

VIRTIO_INLINE int virtio_pci_collect_(struct virtio_pci_scan_ *scan,
                                      const struct virtio_pci_config *config, unsigned policy)
{
    struct virtio_pci_capability cap;
    struct virtio_pci_walk walk;
    int got;

    virtio_pci_walk_begin(&walk, config);
    while ((got = virtio_pci_walk_next(&walk, &cap)) > 0) {
        if (virtio_pci_look_(scan, &cap))
            continue;
        scan->out->ignored++;
        if (policy & VIRTIO_PCI_STRICT)
            return VIRTIO_PCI_ERR_MALFORMED;
    }
    scan->out->msix = walk.msix;
    scan->out->msix_on = walk.msix_on;
    scan->out->msix_vectors = walk.msix_vectors;
    return got;
}

/* How many of the structures are there that every function needs: all but DEVICE. */
VIRTIO_INLINE unsigned virtio_pci_present_(const struct virtio_pci_place place[5])
{
    unsigned count = 0;

    for (unsigned type = VIRTIO_PCI_STRUCT_COMMON; type <= VIRTIO_PCI_STRUCT_ISR; type++)
        count += place[type].found != VIRTIO_PCI_NONE;
    return count;
}

/* One structure is enough if those that are not there have a legacy place. */
VIRTIO_INLINE bool virtio_pci_rfc_usable_(const struct virtio_pci_scan_ *scan)
{
    unsigned present = virtio_pci_present_(scan->rfc);

    if (present == 0 && scan->rfc[VIRTIO_PCI_STRUCT_DEVICE].found == VIRTIO_PCI_NONE)
        return false;
    return present == 3 || scan->out->legacy;
}

/* Chooses the generation and puts its places into the layout. */
VIRTIO_INLINE int virtio_pci_choose_(struct virtio_pci_scan_ *scan)
{
    struct virtio_pci_layout *out = scan->out;
    const struct virtio_pci_place *places = NULL;

    out->generation = VIRTIO_PCI_LEGACY;
    if (virtio_pci_present_(scan->modern) == 3) {
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
    if ((id & 0xffff) == VIRTIO_PCI_VENDOR_ID_ && id >> 16 >= 0x1040)
        return false;
    return bar0->kind == VIRTIO_PCI_BAR_IO && bar0->length >= VIRTIO_PCI_LEGACY_HEADER_;
}

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
 * @return 0; VIRTIO_PCI_ERR_NO_DEVICE, _LIST, _MALFORMED (with VIRTIO_PCI_STRICT), _INCOMPLETE
 */
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
    layout.ignored = layout.pci_cfg = 0;
    layout.notify_multiplier = 0;
    layout.legacy_length = bars[0].length < UINT32_MAX ? (uint32_t)bars[0].length : UINT32_MAX;
    scan.bars = bars;
    scan.notify_multiplier = 0;
    scan.out = &layout;
    for (unsigned type = 0; type < 5; type++)
        scan.modern[type] = scan.rfc[type] = layout.place[type] = none;

    id = virtio_pci_dword_(config, 0);
    if (id == UINT32_MAX)
        return VIRTIO_PCI_ERR_NO_DEVICE;
    layout.legacy = virtio_pci_has_legacy_(id, &bars[0]);
    err = virtio_pci_collect_(&scan, config, policy);
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

    if (which == VIRTIO_PCI_STRUCT_NOTIFY) {
        at.offset = 16;
        at.length = 2;
    } else if (which == VIRTIO_PCI_STRUCT_ISR) {
        at.offset = 19;
        at.length = 1;
    } else if (which == VIRTIO_PCI_STRUCT_DEVICE) {
        at.offset = header;
        at.length = layout->legacy_length > header ? layout->legacy_length - header : 0;
    }
    if (at.length == 0 || at.length > layout->legacy_length)
        at.found = VIRTIO_PCI_NONE;
    return at;
}

/**
 * The place of one structure; found is VIRTIO_PCI_NONE if the function has none. A legacy device
 * configuration moves with `msix_on`; nothing that was found through a capability does.
 */
VIRTIO_INLINE struct virtio_pci_place virtio_pci_locate(const struct virtio_pci_layout *layout,
                                                       enum virtio_pci_struct which, bool msix_on)
{
    static const struct virtio_pci_place none = {VIRTIO_PCI_NONE, 0, 0, 0, 0};
    struct virtio_pci_place at;

    if (which < VIRTIO_PCI_STRUCT_COMMON || which > VIRTIO_PCI_STRUCT_DEVICE)
        return none; /* the others can be several: see virtio_pci_walk_next() */
    at = layout->place[which];
    /* 1.x has no fallback: a structure is there or not. */
    if (at.found == VIRTIO_PCI_NONE && layout->legacy && layout->generation != VIRTIO_PCI_MODERN)
        return virtio_pci_legacy_place_(layout, which, msix_on);
    return at;
}

/**
 * Finds the shared memory region `id`. Which ids there are, virtio_pci_walk_next() tells.
 * @param out  written only on success
 * @return 0; VIRTIO_PCI_ERR_ABSENT: none, or in a BAR out of reach; VIRTIO_PCI_ERR_MALFORMED: not
 *         inside its BAR, not in memory, or a second one with this id (V-SHM-01);
 *         VIRTIO_PCI_ERR_LIST
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_pci_find_shm(const struct virtio_pci_config *config,
                                                       const struct virtio_pci_bar bars[6],
                                                       uint8_t id, struct virtio_pci_shm *out)
{
    struct virtio_pci_shm found = {0, 0, 0, 0};
    struct virtio_pci_capability cap;
    struct virtio_pci_walk walk;
    int got;

    virtio_pci_walk_begin(&walk, config);
    while ((got = virtio_pci_walk_next(&walk, &cap)) > 0) {
        if (cap.type != VIRTIO_PCI_STRUCT_SHARED_MEMORY || cap.family != VIRTIO_PCI_MODERN ||
            cap.id != id || virtio_pci_out_of_reach_(&cap, bars))
            continue;
        if (cap.fault != VIRTIO_PCI_FAULT_NONE || !virtio_pci_capability_fits(&cap, bars) ||
            bars[cap.bar].kind != VIRTIO_PCI_BAR_MEM || found.cap != 0)
            return VIRTIO_PCI_ERR_MALFORMED;
        found.offset = cap.offset;
        found.length = cap.length;
        found.bar = cap.bar;
        found.cap = cap.at;
    }
    if (got < 0)
        return got;
    if (found.cap == 0)
        return VIRTIO_PCI_ERR_ABSENT;
    *out = found;
    return 0;
}

/**
 * Reads a byte of vendor data, which is for debugging and reports only.
 * @param cap     of type VIRTIO_PCI_STRUCT_VENDOR, from virtio_pci_walk_next()
 * @param vendor  whose format the caller knows; nothing is read of another's (D-VND-01)
 * @param offset  bytes from the start of the capability; its own data begins at 6
 * @return the byte, or VIRTIO_PCI_ERR_VENDOR, VIRTIO_PCI_ERR_RANGE
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_pci_vendor_read8(const struct virtio_pci_config *config,
                                                           const struct virtio_pci_capability *cap,
                                                           uint16_t vendor, unsigned offset)
{
    unsigned at = cap->at + offset;

    if (cap->type != VIRTIO_PCI_STRUCT_VENDOR || cap->fault != VIRTIO_PCI_FAULT_NONE ||
        cap->extra != vendor)
        return VIRTIO_PCI_ERR_VENDOR;
    if (offset >= cap->size)
        return VIRTIO_PCI_ERR_RANGE;
    return (int)(virtio_pci_dword_(config, at & 0xfc) >> (8 * (at & 3)) & 0xff);
}

/* Type of a transitional device id, 0x1000 plus the index; 0: none (L-PCI-01). Both directions read
 * this table. */
VIRTIO_INLINE uint16_t virtio_pci_transitional_type_(unsigned index)
{
    static const uint8_t types[] = {1, 2, 5, 3, 8, 4, 0, 0, 0, 9};

    return index < sizeof(types) ? types[index] : 0;
}

/** Virtio device type of a PCI function, or 0 if it is none (L-PCI-01): modern ids are 0x1040 plus
 *  the type; transitional ones have a type each, or else have it in the subsystem id. Revision and
 *  subsystem vendor do not matter (D-PCI-02). */
VIRTIO_INLINE uint16_t virtio_pci_device_type(uint16_t vendor, uint16_t device, uint16_t subsystem)
{
    uint16_t type;

    if (vendor != VIRTIO_PCI_VENDOR_ID_ || device < 0x1000 || device > 0x107f)
        return 0;
    if (device >= 0x1040)
        return (uint16_t)(device - 0x1040);
    type = virtio_pci_transitional_type_(device - 0x1000u);
    return type != 0 ? type : subsystem;
}

/* ---------------------------------------------------------------------------
 * 5. BARs and registers
 * --------------------------------------------------------------------------- */

VIRTIO_INLINE void virtio_pci_put_(const struct virtio_pci_config *config, unsigned offset,
                                   uint32_t value)
{
    config->write32(config->ctx, (uint16_t)offset, value);
}

/** Sets and clears bits of the command register, enum virtio_pci_command_bit; the status register
 *  in the same dword, which clears what is written as 1, is left alone.
 *  @return 0 or VIRTIO_PCI_ERR_READ_ONLY */
VIRTIO_INLINE int virtio_pci_command(const struct virtio_pci_config *config, uint16_t set,
                                     uint16_t clear)
{
    uint32_t command;

    if (config->write32 == NULL)
        return VIRTIO_PCI_ERR_READ_ONLY;
    command = virtio_pci_dword_(config, VIRTIO_PCI_REG_COMMAND_) & 0xffff;
    virtio_pci_put_(config, VIRTIO_PCI_REG_COMMAND_, (command & ~(uint32_t)clear) | set);
    return 0;
}

/* Which bits of a BAR register can be written; it is left as it was, which is *was. */
VIRTIO_INLINE uint32_t virtio_pci_writable_(const struct virtio_pci_config *config, unsigned reg,
                                            uint32_t *was)
{
    uint32_t bits;

    *was = virtio_pci_dword_(config, reg);
    virtio_pci_put_(config, reg, UINT32_MAX);
    bits = virtio_pci_dword_(config, reg);
    virtio_pci_put_(config, reg, *was);
    return bits;
}

/* One BAR register, or two. Its length is the lowest address bit that can be written; upper ones
 * may be wired to 0. A 64-bit BAR has no place at 5, and memory types other than 32 and 64 bits are
 * reserved: nothing there. */
VIRTIO_INLINE struct virtio_pci_bar virtio_pci_bar_size_(const struct virtio_pci_config *config,
                                                         unsigned index)
{
    unsigned reg = VIRTIO_PCI_REG_BAR0_ + 4 * index;
    struct virtio_pci_bar bar = {0, 0, VIRTIO_PCI_BAR_NONE, 0};
    uint32_t was, was_high = 0, low = virtio_pci_writable_(config, reg, &was);
    bool io = (low & 1) != 0;
    uint64_t bits = low & (io ? ~UINT32_C(3) : ~UINT32_C(15));

    if (!io && (low & 6) == 4 && index < 5) {
        bar.wide = 1;
        bits |= (uint64_t)virtio_pci_writable_(config, reg + 4, &was_high) << 32;
    } else if (!io && (low & 6) != 0) {
        return bar;
    }
    if (bits == 0)
        return bar;
    bar.kind = io ? VIRTIO_PCI_BAR_IO : VIRTIO_PCI_BAR_MEM;
    bar.length = bits & (~bits + 1);
    bar.base = ((uint64_t)was_high << 32 | was) & ~(bar.length - 1);
    return bar;
}

/**
 * Finds kind and length of the six BARs, and what is assigned to them. Decoding is off meanwhile;
 * afterwards all registers are as before. base is 0 in a BAR that nobody has assigned.
 * @param bars  written only on success
 * @return 0; VIRTIO_PCI_ERR_READ_ONLY, _NO_DEVICE, _HEADER
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_pci_bars_size(const struct virtio_pci_config *config,
                                                        struct virtio_pci_bar bars[6])
{
    static const struct virtio_pci_bar none = {0, 0, VIRTIO_PCI_BAR_NONE, 0};
    uint32_t command;

    if (config->write32 == NULL)
        return VIRTIO_PCI_ERR_READ_ONLY;
    if (virtio_pci_dword_(config, 0) == UINT32_MAX)
        return VIRTIO_PCI_ERR_NO_DEVICE;
    if ((virtio_pci_dword_(config, 0x0c) >> 16 & 0x7f) != 0)
        return VIRTIO_PCI_ERR_HEADER; /* other registers where the BARs would be */
    command = virtio_pci_dword_(config, VIRTIO_PCI_REG_COMMAND_) & 0xffff;
    virtio_pci_put_(config, VIRTIO_PCI_REG_COMMAND_,
                    command & ~(uint32_t)(VIRTIO_PCI_COMMAND_IO | VIRTIO_PCI_COMMAND_MEMORY));
    for (unsigned i = 0; i < 6; i++) {
        bars[i] = virtio_pci_bar_size_(config, i);
        if (bars[i].wide)
            bars[++i] = none;
    }
    virtio_pci_put_(config, VIRTIO_PCI_REG_COMMAND_, command);
    return 0;
}

/* Takes naturally aligned room below `limit`. */
VIRTIO_INLINE bool virtio_pci_take_room_(struct virtio_pci_bar *bar, struct virtio_pci_range *range,
                                         uint64_t limit)
{
    uint64_t end = range->end < limit ? range->end : limit;
    uint64_t base = (range->next + (bar->length - 1)) & ~(bar->length - 1);

    if (base < range->next || base > end || bar->length > end - base)
        return false;
    bar->base = base;
    range->next = base + bar->length;
    return true;
}

/* A machine without I/O space does without I/O BARs (D-CAP-08). */
VIRTIO_INLINE bool virtio_pci_place_bar_(struct virtio_pci_bar *bar,
                                         struct virtio_pci_ranges *ranges)
{
    const uint64_t limit = (uint64_t)UINT32_MAX + 1;

    if (bar->kind == VIRTIO_PCI_BAR_IO && ranges->io.end == 0)
        bar->kind = VIRTIO_PCI_BAR_NONE;
    if (bar->kind == VIRTIO_PCI_BAR_NONE)
        return true;
    if (bar->kind == VIRTIO_PCI_BAR_IO)
        return virtio_pci_take_room_(bar, &ranges->io, limit);
    if (bar->wide && virtio_pci_take_room_(bar, &ranges->memory64, UINT64_MAX))
        return true;
    return virtio_pci_take_room_(bar, &ranges->memory, limit);
}

/* Writes a BAR; false: it did not keep the address, as when the upper half of an I/O BAR is wired
 * to 0 and the range lies above. */
VIRTIO_INLINE bool virtio_pci_write_bar_(const struct virtio_pci_config *config, unsigned index,
                                         const struct virtio_pci_bar *bar)
{
    unsigned reg = VIRTIO_PCI_REG_BAR0_ + 4 * index;
    uint32_t high = (uint32_t)(bar->base >> 32), mask = bar->kind == VIRTIO_PCI_BAR_IO ? 3 : 15;

    if (bar->kind == VIRTIO_PCI_BAR_NONE)
        return true;
    virtio_pci_put_(config, reg, (uint32_t)bar->base);
    if (bar->wide)
        virtio_pci_put_(config, reg + 4, high);
    if ((virtio_pci_dword_(config, reg) & ~mask) != (uint32_t)bar->base)
        return false;
    return !bar->wide || virtio_pci_dword_(config, reg + 4) == high;
}

/**
 * Assigns all BARs, naturally aligned, then lets the function decode them and master the bus.
 * @param bars    from virtio_pci_bars_size(); base is set. Without I/O space, I/O BARs become NONE
 * @param ranges  what was taken is taken off. Neither is touched on error
 * @return 0; VIRTIO_PCI_ERR_READ_ONLY; _ROOM: nothing was written; _REFUSED: decoding is off
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_pci_bars_assign(const struct virtio_pci_config *config,
                                                          struct virtio_pci_bar bars[6],
                                                          struct virtio_pci_ranges *ranges)
{
    struct virtio_pci_ranges left = *ranges;
    struct virtio_pci_bar placed[6];
    uint16_t decode = 0;

    for (unsigned i = 0; i < 6; i++) {
        placed[i] = bars[i];
        if (!virtio_pci_place_bar_(&placed[i], &left))
            return VIRTIO_PCI_ERR_ROOM;
        if (placed[i].kind != VIRTIO_PCI_BAR_NONE)
            decode |= placed[i].kind == VIRTIO_PCI_BAR_IO ? VIRTIO_PCI_COMMAND_IO
                                                          : VIRTIO_PCI_COMMAND_MEMORY;
    }
    if (virtio_pci_command(config, 0, VIRTIO_PCI_COMMAND_IO | VIRTIO_PCI_COMMAND_MEMORY) != 0)
        return VIRTIO_PCI_ERR_READ_ONLY;
    for (unsigned i = 0; i < 6; i++) {
        if (!virtio_pci_write_bar_(config, i, &placed[i]))
            return VIRTIO_PCI_ERR_REFUSED;
    }
    for (unsigned i = 0; i < 6; i++)
        bars[i] = placed[i];
    *ranges = left;
    return virtio_pci_command(config, (uint16_t)(decode | VIRTIO_PCI_COMMAND_MASTER), 0);
}

/**
 * Switches MSI-X, with no mask over all vectors. Program its table before switching it on; the
 * interrupt pin is then not used. A legacy device configuration moves: locate it again (R-17,
 * T-17).
 * @param layout  its msix_on follows
 * @return 0; VIRTIO_PCI_ERR_READ_ONLY, VIRTIO_PCI_ERR_ABSENT
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_pci_msix_set_on(const struct virtio_pci_config *config,
                                                          struct virtio_pci_layout *layout, bool on)
{
    uint32_t header;

    if (config->write32 == NULL)
        return VIRTIO_PCI_ERR_READ_ONLY;
    if (layout->msix == 0)
        return VIRTIO_PCI_ERR_ABSENT;
    header = virtio_pci_dword_(config, layout->msix);
    if ((header & 0xff) != VIRTIO_PCI_ID_MSIX_)
        return VIRTIO_PCI_ERR_ABSENT; /* gone since the scan */
    /* Enable is bit 31, the mask is bit 30. */
    header = (header & UINT32_C(0x3fffffff)) | (uint32_t)on << 31;
    virtio_pci_put_(config, layout->msix, header);
    layout->msix_on = on;
    return 0;
}

/* ---------------------------------------------------------------------------
 * 6. Images
 * --------------------------------------------------------------------------- */

/** A dword of 256 bytes at `image`, on any CPU; has the form of virtio_pci_read32_fn, so that dumps
 *  and images can be walked. */
VIRTIO_INLINE uint32_t virtio_pci_image_read32(void *image, uint16_t offset)
{
    const uint8_t *byte = (const uint8_t *)image + offset;

    return byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 | (uint32_t)byte[3] << 24;
}

VIRTIO_INLINE void virtio_pci_image_put_(uint8_t *image, unsigned offset, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        image[offset + i] = (uint8_t)(value >> (8 * i));
}

/* PCI device id; 0: there is none, or what goes with it is not allowed. */
VIRTIO_INLINE uint32_t virtio_pci_device_id_(const struct virtio_pci_identity *identity)
{
    unsigned index = 0;

    if (identity->type == 0 || identity->type > 0x3f)
        return 0;
    if (!identity->transitional) /* V-PCI-01 */
        return identity->revision < 1 || identity->subsystem < 0x40 ? 0 : 0x1040u + identity->type;
    if (identity->revision != 0 || identity->subsystem != identity->type) /* V-PCI-02 */
        return 0;
    while (index < 0x40 && virtio_pci_transitional_type_(index) != identity->type)
        index++;
    return index < 0x40 ? 0x1000 + index : 0;
}

/**
 * Writes the 64 bytes of a type 0 header. BARs, command and status are 0, there is no list.
 * @return 0; VIRTIO_PCI_ERR_FIELD, and nothing is written: no such type (or it has no transitional
 *         id), or values that V-PCI-01 or V-PCI-02 forbid
 */
VIRTIO_NODISCARD VIRTIO_INLINE int
virtio_pci_image_header(uint8_t image[256], const struct virtio_pci_identity *identity)
{
    uint32_t device = virtio_pci_device_id_(identity);

    if (device == 0 || identity->class_code > 0xffffff || identity->interrupt_pin > 4)
        return VIRTIO_PCI_ERR_FIELD;
    for (unsigned i = 0; i < VIRTIO_PCI_CAPS_FIRST_; i += 4)
        virtio_pci_image_put_(image, i, 0);
    virtio_pci_image_put_(image, 0x00, device << 16 | VIRTIO_PCI_VENDOR_ID_);
    virtio_pci_image_put_(image, 0x08, identity->class_code << 8 | identity->revision);
    virtio_pci_image_put_(image, 0x2c,
                          (uint32_t)identity->subsystem << 16 | identity->subsystem_vendor);
    virtio_pci_image_put_(image, 0x3c, (uint32_t)identity->interrupt_pin << 8);
    return 0;
}

/* The other way round than virtio_pci_decode_(). */
VIRTIO_INLINE void virtio_pci_encode_(const struct virtio_pci_capability *cap,
                                      uint32_t dword[VIRTIO_PCI_CAP_DWORDS_])
{
    bool shm = cap->type == VIRTIO_PCI_STRUCT_SHARED_MEMORY;

    dword[0] = VIRTIO_PCI_ID_VENDOR_ | (uint32_t)cap->size << 16 | (uint32_t)cap->type << 24;
    dword[1] = cap->bar | (uint32_t)cap->id << 8;
    dword[2] = (uint32_t)cap->offset;
    dword[3] = (uint32_t)cap->length;
    dword[4] = shm ? (uint32_t)(cap->offset >> 32) : cap->extra;
    dword[5] = shm ? (uint32_t)(cap->length >> 32) : 0;
    if (cap->family == VIRTIO_PCI_RFC2011)
        dword[1] = cap->bar | (uint32_t)cap->length << 8;
    if (cap->type == VIRTIO_PCI_STRUCT_VENDOR)
        dword[1] = cap->extra;
}

/* Makes sure that a capability can be written, and points where it may. What would be decoded to
 * something else than was given cannot be said: RFC lengths above 24 bits, offsets that would be
 * masked, an id in the RFC's family. */
VIRTIO_INLINE bool virtio_pci_cap_ok_(const struct virtio_pci_capability *cap,
                                      const struct virtio_pci_bar bars[6])
{
    bool single = cap->type == VIRTIO_PCI_STRUCT_NOTIFY || cap->type == VIRTIO_PCI_STRUCT_ISR;
    uint32_t dword[VIRTIO_PCI_CAP_DWORDS_];
    struct virtio_pci_capability back;

    virtio_pci_encode_(cap, dword);
    back = virtio_pci_decode_(cap->at, dword);
    if (back.fault != VIRTIO_PCI_FAULT_NONE || back.family != cap->family ||
        back.bar != cap->bar || back.id != cap->id || back.extra != cap->extra ||
        back.offset != cap->offset || back.length != cap->length)
        return false;
    if (!virtio_pci_in_bar_(cap->type))
        return true;
    if (!virtio_pci_capability_fits(cap, bars))
        return false;
    if (cap->type == VIRTIO_PCI_STRUCT_SHARED_MEMORY)
        return bars[cap->bar].kind == VIRTIO_PCI_BAR_MEM;
    if (single) /* the multiplier is 0 or an even power of 2 (V-NTF-01) */
        return cap->extra != 1 && (cap->extra & (cap->extra - 1)) == 0;
    /* In the legacy window a longer header would lie over the device's configuration. Only
     * the single registers may be there. */
    return cap->family != VIRTIO_PCI_RFC2011 || cap->bar != 0 ||
           bars[0].kind != VIRTIO_PCI_BAR_IO || cap->offset >= VIRTIO_PCI_LEGACY_HEADER_MSIX_;
}

/* What the table must have as a whole, and must not have twice. */
VIRTIO_INLINE int virtio_pci_table_check_(const struct virtio_pci_capability *caps, unsigned count,
                                          bool legacy)
{
    /* Bits by type. PCI_CFG is not for drivers that reach the BARs, but V-CAP-03 wants it. */
    const uint32_t structures = 0x3e, modern_all = 0x2e, rfc_all = 0x0e;
    uint32_t modern = 0, rfc = 0;

    for (unsigned i = 0; i < count; i++) {
        *(caps[i].family == VIRTIO_PCI_RFC2011 ? &rfc : &modern) |= UINT32_C(1) << caps[i].type;
        for (unsigned j = 0; j < i && caps[i].type == VIRTIO_PCI_STRUCT_SHARED_MEMORY; j++) {
            if (caps[j].type == caps[i].type && caps[j].id == caps[i].id)
                return VIRTIO_PCI_ERR_FIELD; /* V-SHM-01 */
        }
    }
    if ((modern & structures) != 0 && (modern & modern_all) != modern_all)
        return VIRTIO_PCI_ERR_INCOMPLETE;
    if (rfc != 0 && (rfc & rfc_all) != rfc_all && !legacy)
        return VIRTIO_PCI_ERR_INCOMPLETE;
    return 0;
}

/* A capability as it goes to `at`. */
VIRTIO_INLINE struct virtio_pci_capability virtio_pci_at_(struct virtio_pci_capability cap,
                                                          unsigned at)
{
    cap.at = (uint8_t)at;
    if (cap.size == 0)
        cap.size = virtio_pci_rule_of_(cap.family, cap.type).size;
    return cap;
}

/* Where the capabilities end, once each of them is known to be good; or an error. */
VIRTIO_INLINE int virtio_pci_caps_end_(unsigned at, const struct virtio_pci_capability *caps,
                                       unsigned count, const struct virtio_pci_bar bars[6])
{
    if (at % 4 != 0 || at < VIRTIO_PCI_CAPS_FIRST_)
        return VIRTIO_PCI_ERR_FIELD;
    for (unsigned i = 0; i < count; i++) {
        struct virtio_pci_capability cap = virtio_pci_at_(caps[i], at);

        if (at > 256u - cap.size)
            return VIRTIO_PCI_ERR_ROOM;
        if (!virtio_pci_cap_ok_(&cap, bars))
            return VIRTIO_PCI_ERR_FIELD;
        at += (cap.size + 3u) & ~3u;
    }
    return (int)at;
}

/* The byte to which the next capability is linked: the list pointer, or the last one's next. No
 * capability may begin where new ones go, from `first` to `end`. */
VIRTIO_INLINE int virtio_pci_caps_tail_(const uint8_t image[256], unsigned first, unsigned end)
{
    unsigned link = VIRTIO_PCI_REG_LIST_, at, hops = 0;

    if ((image[VIRTIO_PCI_REG_COMMAND_ + 2] & VIRTIO_PCI_STATUS_LIST_) == 0)
        return (int)link;
    for (; (at = image[link] & 0xfcu) != 0; link = at + 1) {
        if (at < VIRTIO_PCI_CAPS_FIRST_ || ++hops > (256 - VIRTIO_PCI_CAPS_FIRST_) / 4)
            return VIRTIO_PCI_ERR_LIST;
        if (at >= first && at < end)
            return VIRTIO_PCI_ERR_ROOM;
    }
    return (int)link;
}

/**
 * Writes capabilities behind those already in the list, in the order given: best first (V-CAP-02).
 *
 * Each must be one that virtio_pci_walk_next() would return without fault, within its BAR. All
 * structures of a generation go into one call: 1.x needs COMMON, NOTIFY, ISR and PCI_CFG (V-CAP-03;
 * DEVICE is up to the type), the RFC a legacy BAR0 for what is left out. A device offering
 * NOTIFICATION_DATA aligns NOTIFY and its multiplier to 4 itself. The data of vendor capabilities,
 * and whatever else makes `size` larger than needed, is 0 and the caller's to fill in.
 *
 * @param at     where the first one goes: a multiple of 4, from 0x40 on
 * @param caps   `size` may be 0: as small as possible. size and at are set; fault is not looked at
 * @param bars   kind and length as the device will show them
 * @return first free offset, up to 256; VIRTIO_PCI_ERR_FIELD, _ROOM (too long, or over another
 *         capability), _INCOMPLETE, _LIST. Nothing is written on error.
 */
VIRTIO_NODISCARD VIRTIO_INLINE int virtio_pci_image_caps(uint8_t image[256], unsigned at,
                                                         struct virtio_pci_capability *caps,
                                                         unsigned count,
                                                         const struct virtio_pci_bar bars[6])
{
    int end = virtio_pci_caps_end_(at, caps, count, bars), link, err;
    uint32_t dword[VIRTIO_PCI_CAP_DWORDS_];

    if (end < 0)
        return end;
    err = virtio_pci_table_check_(
        caps, count, virtio_pci_has_legacy_(virtio_pci_image_read32(image, 0), &bars[0]));
    if (err != 0)
        return err;
    link = virtio_pci_caps_tail_(image, at, (unsigned)end);
    if (link < 0)
        return link;
    for (unsigned i = 0; i < count; i++) {
        caps[i] = virtio_pci_at_(caps[i], at);
        virtio_pci_encode_(&caps[i], dword);
        for (unsigned n = 0; n < (caps[i].size + 3u) / 4; n++)
            virtio_pci_image_put_(image, at + 4 * n, n < VIRTIO_PCI_CAP_DWORDS_ ? dword[n] : 0);
        image[link] = (uint8_t)at;
        image[VIRTIO_PCI_REG_COMMAND_ + 2] |= VIRTIO_PCI_STATUS_LIST_;
        link = (int)at + 1;
        at += (caps[i].size + 3u) & ~3u;
    }
    return end;
}

/** Text of an error of this file, or NULL if `err` is none of them. */
VIRTIO_INLINE const char *virtio_pci_err_name(int err)
{
    switch (err) {
    case VIRTIO_PCI_ERR_NO_DEVICE: return "no PCI function there";
    case VIRTIO_PCI_ERR_LIST: return "PCI capability list is cyclic or leads outside";
    case VIRTIO_PCI_ERR_MALFORMED: return "malformed virtio capability";
    case VIRTIO_PCI_ERR_INCOMPLETE: return "no complete set of virtio structures in reachable BARs";
    case VIRTIO_PCI_ERR_ABSENT: return "the function has no such region or capability";
    case VIRTIO_PCI_ERR_VENDOR: return "not data of this vendor";
    case VIRTIO_PCI_ERR_RANGE: return "offset outside the capability";
    case VIRTIO_PCI_ERR_READ_ONLY: return "configuration space cannot be written";
    case VIRTIO_PCI_ERR_HEADER: return "PCI function is a bridge";
    case VIRTIO_PCI_ERR_ROOM: return "no room for a BAR or a capability";
    case VIRTIO_PCI_ERR_REFUSED: return "a BAR does not keep its address";
    case VIRTIO_PCI_ERR_FIELD: return "value that a PCI header or capability cannot have";
    default: return NULL;
    }
}

/** Text of an enum virtio_pci_fault. */
VIRTIO_INLINE const char *virtio_pci_fault_name(unsigned fault)
{
    switch (fault) {
    case VIRTIO_PCI_FAULT_NONE: return "usable";
    case VIRTIO_PCI_FAULT_LAYOUT: return "length not known";
    case VIRTIO_PCI_FAULT_TYPE: return "type not known";
    case VIRTIO_PCI_FAULT_BAR: return "reserved BAR";
    case VIRTIO_PCI_FAULT_END: return "runs out of configuration space";
    case VIRTIO_PCI_FAULT_SHORT: return "capability too short";
    case VIRTIO_PCI_FAULT_RFC_BAR: return "no such BAR";
    case VIRTIO_PCI_FAULT_ALIGN: return "offset not aligned";
    case VIRTIO_PCI_FAULT_LENGTH: return "structure too short";
    case VIRTIO_PCI_FAULT_VENDOR: return "vendor id or size not allowed";
    default: return "unknown fault";
    }
}

#endif /* VIRTIO_PCI_LAYOUT_H */
