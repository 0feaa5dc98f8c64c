// SPDX-License-Identifier: MIT-0
/* An emulated device put together; see function.h. */
#include "function.h"

/* Structures in the memory BAR: one page each, as real devices do it. The MSI-X table has a place
 * but no memory: vectors are numbers here. */
enum {
    HEADER_AT = 0x0000,
    ISR_AT = 0x1000,
    CONFIG_AT = 0x2000,
    NOTIFY_AT = 0x3000,
    MSIX_AT = 0x4000,
    PENDING_AT = 0x5000,
    NOTIFY_MULTIPLIER = 4,
    PAGE = 0x1000
};

/* ----- PCI configuration space ----- */

static void put(uint8_t *at, uint32_t value, unsigned bytes)
{
    for (; bytes-- != 0; value >>= 8)
        *at++ = (uint8_t)value;
}

/* Appends a capability of `length` bytes to the list and returns its offset. */
static uint8_t add_cap(struct function *f, uint8_t id, uint8_t length)
{
    uint8_t *config = f->pci.config, *link = &config[0x34];
    uint8_t at = 0x40;

    while (*link != 0) {
        at = (uint8_t)((*link + config[*link + 2] + 3) & ~3);
        link = &config[*link + 1];
    }
    *link = at;
    config[at] = id;
    config[at + 2] = length;
    config[6] |= 0x10; /* status: capability list */
    return at;
}

/* 1.x, 4.1.4; `extra` follows the 16 bytes that all have. */
static void add_modern(struct function *f, uint8_t type, uint32_t offset, uint32_t size,
                       uint32_t extra)
{
    bool longer = type == 2 || type == 5;
    uint8_t *cap = &f->pci.config[add_cap(f, 9, longer ? 20 : 16)];

    cap[3] = type;
    cap[4] = type == 5 ? 0 : FUNCTION_MODERN_BAR;
    put(cap + 8, offset, 4);
    put(cap + 12, size, 4);
    if (longer)
        put(cap + 16, extra, 4);
}

/* The RFC: length 12, BAR and 24 bits of size in one dword. */
static void add_rfc(struct function *f, uint8_t id, uint32_t offset, uint32_t size)
{
    uint8_t *cap = &f->pci.config[add_cap(f, 9, 12)];

    cap[3] = id;
    cap[4] = FUNCTION_MODERN_BAR;
    put(cap + 5, size, 3);
    put(cap + 8, offset, 4);
}

static void add_msix(struct function *f)
{
    uint8_t *cap = &f->pci.config[add_cap(f, 0x11, 0)];

    put(cap + 2, FUNCTION_VECTORS - 1, 2); /* where others have their length */
    put(cap + 4, MSIX_AT | FUNCTION_MODERN_BAR, 4);
    put(cap + 8, PENDING_AT | FUNCTION_MODERN_BAR, 4);
}

/* Transitional device ids do not follow from the type (L-PCI-01). */
static uint16_t device_id(const struct function *f)
{
    static const uint16_t transitional[] = {0, 0x1000, 0x1001, 0x1003, 0x1005};
    uint32_t type = f->dev.device_type;

    if (f->view == FUNCTION_PCI_MODERN)
        return (uint16_t)(0x1040 + type);
    return type < sizeof(transitional) / 2 ? transitional[type] : 0x103f;
}

static void add_header(struct function *f)
{
    uint8_t *config = f->pci.config;
    bool modern = f->view == FUNCTION_PCI_MODERN;

    put(config + 0x00, 0x1af4, 2);
    put(config + 0x02, device_id(f), 2);
    put(config + 0x04, 7, 2); /* as firmware leaves it: decoding, bus master */
    config[0x08] = modern;    /* revision (V-PCI-01, V-PCI-02) */
    config[0x0b] = 0x01;      /* class: storage */
    put(config + 0x2c, 0x1af4, 2);
    put(config + 0x2e, modern ? 0x40u : f->dev.device_type, 2);
    config[0x3d] = 1; /* INTA */
    f->pci.bar_size[FUNCTION_MODERN_BAR] = FUNCTION_MODERN_LENGTH;
    put(config + 0x10 + 4 * FUNCTION_MODERN_BAR, 0xe0000000u, 4);
    if (!modern) {
        f->pci.bar_size[FUNCTION_LEGACY_BAR] = FUNCTION_LEGACY_LENGTH;
        put(config + 0x10 + 4 * FUNCTION_LEGACY_BAR, 0xc001, 4);
    }
}

static void add_capabilities(struct function *f)
{
    static const struct virtio_dev_place modern[] = {
        {HEADER_AT, VIRTIO_COMMON_END, FUNCTION_MODERN_BAR, VIRTIO_VIEW_COMMON},
        {ISR_AT, PAGE, FUNCTION_MODERN_BAR, VIRTIO_VIEW_ISR},
        {CONFIG_AT, PAGE, FUNCTION_MODERN_BAR, VIRTIO_VIEW_CONFIG},
        {NOTIFY_AT, PAGE, FUNCTION_MODERN_BAR, VIRTIO_VIEW_NOTIFY},
    };
    static const struct virtio_dev_place old[] = {
        {0, FUNCTION_LEGACY_LENGTH, FUNCTION_LEGACY_BAR, VIRTIO_VIEW_LEGACY},
        {HEADER_AT, VIRTIO_RFC_LENGTH, FUNCTION_MODERN_BAR, VIRTIO_VIEW_RFC_HEADER},
        {ISR_AT, 1, FUNCTION_MODERN_BAR, VIRTIO_VIEW_ISR},
        {CONFIG_AT, PAGE, FUNCTION_MODERN_BAR, VIRTIO_VIEW_RFC_CONFIG},
        {NOTIFY_AT, 2, FUNCTION_MODERN_BAR, VIRTIO_VIEW_RFC_NOTIFY},
    };

    if (f->view == FUNCTION_PCI_MODERN) {
        add_modern(f, 1, HEADER_AT, VIRTIO_COMMON_END, 0); /* fields of no feature read 0 */
        add_modern(f, 2, NOTIFY_AT, PAGE, NOTIFY_MULTIPLIER);
        add_modern(f, 3, ISR_AT, 1, 0);
        add_modern(f, 4, CONFIG_AT, PAGE, 0);
        add_modern(f, 5, 0, 0, 0);
    } else if (f->view == FUNCTION_PCI_RFC2011) {
        add_rfc(f, 1, HEADER_AT, VIRTIO_RFC_LENGTH);
        add_rfc(f, 2, NOTIFY_AT, 2);
        add_rfc(f, 3, ISR_AT, 1);
        add_rfc(f, 4, CONFIG_AT, PAGE);
    }
    add_msix(f); /* last: its third byte is no length */
    f->pci.place = f->view == FUNCTION_PCI_MODERN ? modern : old;
    f->pci.place_count = 4;
    if (f->view != FUNCTION_PCI_MODERN)
        f->pci.place_count = f->view == FUNCTION_PCI_LEGACY ? 1 : 5;
}

void function_init(struct function *f)
{
    f->dev.queue = f->queue;
    f->dev.config = f->config;
    f->dev.notify_multiplier = NOTIFY_MULTIPLIER;
    f->pci.dev = &f->dev;
    for (unsigned i = 0; i < VIRTIO_DEV_PCI_CONFIG; i++)
        f->pci.config[i] = 0;
    for (unsigned i = 0; i < 6; i++) {
        f->bar[i].function = f;
        f->bar[i].bar = (uint8_t)i;
        f->pci.bar_size[i] = 0;
    }
    if (f->view != FUNCTION_MMIO && f->view != FUNCTION_MMIO_V1) {
        add_header(f);
        add_capabilities(f);
        virtio_dev_pci_init(&f->pci);
    }
    virtio_dev_init(&f->dev);
}

uint32_t function_pci_read32(void *function, uint16_t offset)
{
    struct function *f = function;

    return virtio_dev_pci_read(&f->pci, offset, 4);
}

void function_pci_write32(void *function, uint16_t offset, uint32_t value)
{
    struct function *f = function;

    virtio_dev_pci_write(&f->pci, offset, 4, value);
}

void function_pci_bars(const struct function *f, struct virtio_pci_bar bars[6])
{
    for (unsigned i = 0; i < 6; i++) {
        bool io = i == FUNCTION_LEGACY_BAR;

        bars[i].base = io ? 0xc000 : 0xe0000000u;
        bars[i].length = f->pci.bar_size[i];
        bars[i].kind = VIRTIO_PCI_BAR_NONE;
        if (bars[i].length != 0)
            bars[i].kind = io ? VIRTIO_PCI_BAR_IO : VIRTIO_PCI_BAR_MEM;
    }
}

/* ----- the driver's way in ----- */

static uint32_t bar_read(void *ctx, uint64_t address, unsigned width)
{
    struct function_bar *bar = ctx;

    return (uint32_t)virtio_dev_pci_bar_read(&bar->function->pci, bar->bar, address, width);
}

static void bar_write(void *ctx, uint64_t address, unsigned width, uint32_t value)
{
    struct function_bar *bar = ctx;

    virtio_dev_pci_bar_write(&bar->function->pci, bar->bar, address, width, value);
}

static enum virtio_view mmio_view(const struct function *f)
{
    return f->view == FUNCTION_MMIO ? VIRTIO_VIEW_MMIO : VIRTIO_VIEW_MMIO_V1;
}

static uint32_t mmio_read(void *ctx, uint64_t address, unsigned width)
{
    struct function_bar *bar = ctx;
    struct function *f = bar->function;

    return (uint32_t)virtio_dev_read(&f->dev, mmio_view(f), address, width);
}

static void mmio_write(void *ctx, uint64_t address, unsigned width, uint32_t value)
{
    struct function_bar *bar = ctx;
    struct function *f = bar->function;

    virtio_dev_write(&f->dev, mmio_view(f), address, width, value);
}

struct virtio_window function_window(struct function *f, unsigned bar)
{
    static const struct virtio_window_ops pci = {bar_read, bar_write};
    static const struct virtio_window_ops mmio = {mmio_read, mmio_write};
    bool slot = f->view == FUNCTION_MMIO || f->view == FUNCTION_MMIO_V1;
    struct virtio_window window = {0, 0, VIRTIO_WINDOW_NONE, slot ? &mmio : &pci, &f->bar[bar]};

    window.length = (uint32_t)f->pci.bar_size[bar];
    if (slot)
        window.length = bar == 0 ? FUNCTION_MMIO_LENGTH : 0;
    if (window.length != 0)
        window.kind = VIRTIO_WINDOW_CALLER;
    return window;
}
