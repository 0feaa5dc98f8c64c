// SPDX-License-Identifier: MIT-0
/* An emulated device put together; see function.h. */
#include "function.h"

#include "msix.h"

/* Structures in the memory BAR: one page each, as real devices do it. */
enum {
    HEADER_AT = 0x0000,
    ISR_AT = 0x1000,
    CONFIG_AT = 0x2000,
    NOTIFY_AT = 0x3000,
    NOTIFY_MULTIPLIER = 4,
    PAGE = 0x1000
};

/* ----- PCI configuration space ----- */

static bool modern(const struct function *f)
{
    return f->view == FUNCTION_PCI_MODERN;
}

static void put32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++, value >>= 8)
        at[i] = (uint8_t)value;
}

static int write_header(struct function *f)
{
    struct virtio_pci_identity who = {
        .type = (uint16_t)f->dev.device_type,
        .transitional = !modern(f),
        .revision = modern(f),
        .subsystem_vendor = 0x1af4,
        .subsystem = modern(f) ? 0x40 : (uint16_t)f->dev.device_type,
        .class_code = 0x010000, /* storage */
        .interrupt_pin = 1,
    };
    int err = virtio_pci_image_header(f->pci.config, &who);

    if (err != 0)
        return err;
    f->pci.config[0x04] = 7; /* as firmware leaves it: decoding, bus master */
    f->pci.bar_size[FUNCTION_MODERN_BAR] = FUNCTION_MODERN_LENGTH;
    put32(f->pci.config + 0x10 + 4 * FUNCTION_MODERN_BAR, 0xe0000000u);
    if (!modern(f)) {
        f->pci.bar_size[FUNCTION_LEGACY_BAR] = FUNCTION_LEGACY_LENGTH;
        put32(f->pci.config + 0x10 + 4 * FUNCTION_LEGACY_BAR, 0xc001);
    }
    return 0;
}

/* MSI-X, which is not virtio's, goes to `at`; `link` is the byte that leads to it. */
static void write_msix(uint8_t config[VIRTIO_DEV_PCI_CONFIG], uint8_t link, uint8_t at)
{
    config[0x06] |= 0x10; /* status: capability list */
    config[link] = at;
    put32(config + at, 0x11 | (FUNCTION_VECTORS - 1) << 16);
    put32(config + at + 4, FUNCTION_MSIX_AT | FUNCTION_MODERN_BAR);
    put32(config + at + 8, (FUNCTION_MSIX_AT + MSIX_PENDING_AT) | FUNCTION_MODERN_BAR);
}

static int write_capabilities(struct function *f)
{
    struct virtio_pci_capability caps[] = {
        {.offset = HEADER_AT, .length = VIRTIO_RFC_LENGTH, .type = VIRTIO_PCI_STRUCT_COMMON},
        {.offset = NOTIFY_AT, .length = 2, .type = VIRTIO_PCI_STRUCT_NOTIFY},
        {.offset = ISR_AT, .length = 1, .type = VIRTIO_PCI_STRUCT_ISR},
        {.offset = CONFIG_AT, .length = PAGE, .type = VIRTIO_PCI_STRUCT_DEVICE},
        {.type = VIRTIO_PCI_STRUCT_PCI_CFG},
    };
    unsigned count = modern(f) ? 5 : f->view == FUNCTION_PCI_LEGACY ? 0 : 4;
    struct virtio_pci_bar bars[6];
    int end;

    if (modern(f)) {
        caps[0].length = VIRTIO_COMMON_END; /* fields of no feature read 0 */
        caps[1].length = PAGE;
        caps[1].extra = NOTIFY_MULTIPLIER;
    }
    for (unsigned i = 0; i < 5; i++)
        caps[i].family = modern(f) ? VIRTIO_PCI_MODERN : VIRTIO_PCI_RFC2011;
    for (unsigned i = 0; i < 4; i++)
        caps[i].bar = FUNCTION_MODERN_BAR;
    function_pci_bars(f, bars);
    end = virtio_pci_image_caps(f->pci.config, 0x40, caps, count, bars);
    if (end < 0)
        return end;
    write_msix(f->pci.config, count == 0 ? 0x34 : (uint8_t)(caps[count - 1].at + 1), (uint8_t)end);
    return 0;
}

static void set_places(struct function *f)
{
    static const struct virtio_dev_place structures[] = {
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

    f->pci.place = modern(f) ? structures : old;
    f->pci.place_count = modern(f) ? 4 : f->view == FUNCTION_PCI_LEGACY ? 1 : 5;
}

static int pci_init(struct function *f)
{
    int err = write_header(f);

    if (err != 0)
        return err;
    err = write_capabilities(f);
    set_places(f);
    virtio_dev_pci_init(&f->pci);
    return err;
}

int function_init(struct function *f)
{
    int err = 0;

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
    if (!function_is_mmio(f->view))
        err = pci_init(f);
    virtio_dev_init(&f->dev);
    return err;
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
        bars[i].wide = 0;
        bars[i].kind = VIRTIO_PCI_BAR_NONE;
        if (bars[i].length != 0)
            bars[i].kind = io ? VIRTIO_PCI_BAR_IO : VIRTIO_PCI_BAR_MEM;
    }
}

/* ----- the driver's way in ----- */

static uint32_t bar_read(void *ctx, uintptr_t address, unsigned width)
{
    struct function_bar *bar = ctx;

    return (uint32_t)virtio_dev_pci_bar_read(&bar->function->pci, bar->bar, address, width);
}

static void bar_write(void *ctx, uintptr_t address, unsigned width, uint32_t value)
{
    struct function_bar *bar = ctx;

    virtio_dev_pci_bar_write(&bar->function->pci, bar->bar, address, width, value);
}

static enum virtio_view mmio_view(const struct function *f)
{
    return f->view == FUNCTION_MMIO ? VIRTIO_VIEW_MMIO : VIRTIO_VIEW_MMIO_V1;
}

static uint32_t mmio_read(void *ctx, uintptr_t address, unsigned width)
{
    struct function_bar *bar = ctx;
    struct function *f = bar->function;

    return (uint32_t)virtio_dev_read(&f->dev, mmio_view(f), address, width);
}

static void mmio_write(void *ctx, uintptr_t address, unsigned width, uint32_t value)
{
    struct function_bar *bar = ctx;
    struct function *f = bar->function;

    virtio_dev_write(&f->dev, mmio_view(f), address, width, value);
}

struct virtio_window function_window(struct function *f, unsigned bar)
{
    static const struct virtio_window_ops pci = {bar_read, bar_write};
    static const struct virtio_window_ops mmio = {mmio_read, mmio_write};
    bool slot = function_is_mmio(f->view);
    struct virtio_window window = {0, 0, VIRTIO_WINDOW_NONE, slot ? &mmio : &pci, &f->bar[bar]};

    window.length = (uint32_t)f->pci.bar_size[bar];
    if (slot)
        window.length = bar == 0 ? FUNCTION_MMIO_LENGTH : 0;
    if (window.length != 0)
        window.kind = VIRTIO_WINDOW_CALLER;
    return window;
}
