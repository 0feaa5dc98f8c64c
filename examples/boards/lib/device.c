// SPDX-License-Identifier: MIT-0
/* Finds virtio devices on a board and connects their interrupts; see board.h, section 2. */
#include <stdio.h>

#include "../../hosts/virtio_names.h"
#include "../board.h"

enum {
    SLOTS = 32,
    FUNCTIONS = 8,
    PCI_ID = 0x00,
    PCI_HEADER_TYPE = 0x0c, /* bits 16 to 23 of this dword */
    PCI_SUBSYSTEM = 0x2c,
    PCI_PIN = 0x3c,       /* bits 8 to 15 of this dword */
    MSIX_TABLE = 4,       /* into the capability: BAR in bits 2:0, offset in the others */
    MSIX_ENTRY = 16       /* address, upper address, data, mask */
};

/* The interrupt of a line: it may be shared, so the device is asked. */
static void line_interrupt(void *ctx)
{
    struct board_device *dev = ctx;
    uint32_t causes = virtio_drv_irq_status(&dev->drv);

    if (causes == 0)
        return;
    dev->interrupts++;
    virtio_drv_irq_ack(&dev->drv, causes);
    if (dev->handler != NULL)
        dev->handler(dev->handler_ctx, causes);
}

/* An MSI-X message is the device's own. The first vector is that of configuration, and of the queues
 * too if the device has no other. */
static void msix_interrupt(void *ctx)
{
    const struct board_vector *vector = ctx;
    struct board_device *dev = vector->device;

    dev->interrupts++;
    if (dev->handler != NULL)
        dev->handler(dev->handler_ctx,
                     vector->index == 0 ? VIRTIO_IRQ_CONFIG | VIRTIO_IRQ_QUEUE : VIRTIO_IRQ_QUEUE);
}

struct virtio_pci_config board_ecam(struct board_function *function, uint64_t base)
{
    uint64_t space = base + virtio_pci_ecam_offset(function->bdf);
    struct virtio_window window = {(uintptr_t)space, 4096, VIRTIO_WINDOW_MMIO, NULL, NULL};

    function->ecam = window;
    return virtio_pci_config_ecam(&function->ecam);
}

/* Where a BAR is for the CPU: nowhere if that is beyond its addresses. */
static struct virtio_window bar_window(const struct board_pci *pci, const struct virtio_pci_bar *bar)
{
    uint64_t base = bar->base + pci->memory_offset;
    struct virtio_window window = {(uintptr_t)base, (uint32_t)bar->length, VIRTIO_WINDOW_MMIO, NULL,
                                   NULL};

    if (bar->kind == VIRTIO_PCI_BAR_IO)
        return virtio_window_sub(&pci->io, bar->base, (uint32_t)bar->length);
    if (bar->kind == VIRTIO_PCI_BAR_NONE || base > UINTPTR_MAX)
        window.kind = VIRTIO_WINDOW_NONE;
    return window;
}

/* Programs entries of the MSI-X table, which are masked until now, as far as there are messages. */
static void program_table(struct board_device *dev)
{
    uint32_t table = dev->config.read32(dev->config.ctx, (uint16_t)(dev->layout.msix + MSIX_TABLE));
    uint32_t at = table & ~7u;
    const struct virtio_window *bar;
    struct board_msi msi;

    if ((table & 7) > 5)
        return;
    bar = &dev->windows[table & 7];
    while (dev->vectors < BOARD_VECTORS && dev->vectors < dev->layout.msix_vectors) {
        struct board_vector *vector = &dev->vector[dev->vectors];

        if (bar->kind == VIRTIO_WINDOW_NONE || at > bar->length || bar->length - at < MSIX_ENTRY)
            return;
        vector->device = dev;
        vector->index = dev->vectors;
        if (!board_msi_connect(&msi, msix_interrupt, vector))
            return;
        virtio_window_write64(bar, at, msi.address);
        virtio_window_write32(bar, at + 8, msi.data);
        virtio_window_write32(bar, at + 12, 0);
        at += MSIX_ENTRY;
        dev->vectors++;
    }
}

static void connect_line(struct board_device *dev, unsigned line)
{
    if (!board_irq_connect(line, line_interrupt, dev))
        return;
    dev->irq = BOARD_IRQ_LINE;
    dev->line = line;
}

static void connect_pci(struct board_device *dev, const struct board_pci *pci)
{
    unsigned pin = dev->config.read32(dev->config.ctx, PCI_PIN) >> 8 & 0xff;

    if (dev->layout.msix != 0)
        program_table(dev);
    if (dev->vectors != 0 && virtio_pci_msix_set_on(&dev->config, &dev->layout, true) == 0) {
        dev->irq = BOARD_IRQ_MSIX;
        return;
    }
    dev->vectors = 0;
    if (pin >= 1 && pin <= 4)
        connect_line(dev, pci->line(dev->function.bdf >> 3 & 31, pin));
}

static const char *pci_transport(const struct board_device *dev)
{
    if (dev->layout.generation != VIRTIO_PCI_MODERN)
        return "pci-legacy";
    return dev->bars[dev->layout.place[VIRTIO_PCI_STRUCT_NOTIFY].bar].kind == VIRTIO_PCI_BAR_IO
               ? "pci-modern-pio"
               : "pci-modern";
}

/* Assigns the BARs, as firmware may not have, and takes the function. */
static int take_function(struct board_device *dev, struct board_pci *pci)
{
    int err = virtio_pci_bars_size(&dev->config, dev->bars);

    if (err == 0)
        err = virtio_pci_bars_assign(&dev->config, dev->bars, &pci->ranges);
    if (err == 0)
        err = virtio_pci_scan(&dev->layout, &dev->config, dev->bars, 0);
    if (err != 0) {
        printf("PCI %u.%u: %s\n", dev->function.bdf >> 3 & 31, dev->function.bdf & 7,
               virtio_pci_err_name(err));
        return VIRTIO_ERR_LAYOUT;
    }
    for (unsigned i = 0; i < 6; i++)
        dev->windows[i] = bar_window(pci, &dev->bars[i]);
    connect_pci(dev, pci);
    dev->transport = pci_transport(dev);
    return virtio_drv_pci(&dev->drv, &dev->layout, dev->windows);
}

/* Virtio device type of the function, 0 if it is none of virtio's. */
static unsigned function_type(const struct board_device *dev)
{
    uint32_t id = dev->config.read32(dev->config.ctx, PCI_ID);
    uint32_t subsystem = dev->config.read32(dev->config.ctx, PCI_SUBSYSTEM);

    return virtio_pci_device_type((uint16_t)id, (uint16_t)(id >> 16), (uint16_t)(subsystem >> 16));
}

/* What is looked for: so many of a type are passed over. */
struct search {
    unsigned type;
    unsigned index;
};

/* Is this the one? */
static bool matches(struct search *search, unsigned type, const char *where, unsigned place)
{
    const struct virtio_names_type *name = virtio_names_type(type);

    if (type == search->type)
        return search->index-- == 0;
    printf("%s %u has a virtio device of type %u (%s)\n", where, place, type,
           name != NULL ? name->text : "unknown");
    return false;
}

static int find_pci(struct board_device *dev, struct search *search)
{
    static const struct virtio_pci_config none;
    struct board_pci *pci = board_pci();

    for (unsigned bdf = 0; pci != NULL && bdf < SLOTS * FUNCTIONS; bdf++) {
        unsigned type;

        dev->function.bdf = (uint16_t)bdf;
        dev->config = pci->config(&dev->function);
        if (bdf % FUNCTIONS == 0 && dev->config.read32(dev->config.ctx, PCI_ID) == UINT32_MAX) {
            bdf += FUNCTIONS - 1;
            continue;
        }
        type = function_type(dev);
        if (type != 0 && matches(search, type, "PCI slot", bdf >> 3))
            return take_function(dev, pci);
        if (bdf % FUNCTIONS == 0 &&
            (dev->config.read32(dev->config.ctx, PCI_HEADER_TYPE) >> 16 & 0x80) == 0)
            bdf += FUNCTIONS - 1;
    }
    dev->config = none;
    return VIRTIO_ERR_NO_DEVICE;
}

static int find_mmio(struct board_device *dev, struct search *search)
{
    const struct board_mmio mmio = board_mmio();

    for (unsigned slot = 0; slot < mmio.count; slot++) {
        struct virtio_window window = {mmio.first + slot * mmio.step, mmio.step, VIRTIO_WINDOW_MMIO,
                                       NULL, NULL};
        int err = virtio_drv_mmio(&dev->drv, &window);

        if (err == VIRTIO_ERR_NO_DEVICE)
            continue;
        if (err != 0) {
            printf("virtio-mmio slot %u: %s\n", slot, virtio_err_name(err));
            continue;
        }
        if (!matches(search, dev->drv.device_type, "virtio-mmio slot", slot))
            continue;
        dev->transport = virtio_drv_transport(&dev->drv)->legacy ? "virtio-mmio-v1" : "virtio-mmio";
        connect_line(dev, mmio.first_line + slot);
        return 0;
    }
    return VIRTIO_ERR_NO_DEVICE;
}

bool board_find(struct board_device *dev, unsigned type, unsigned index)
{
    static const struct board_device none;
    const struct virtio_names_type *name = virtio_names_type(type);
    struct search search = {type, index};
    int err;

    *dev = none;
    err = find_pci(dev, &search);
    if (err == VIRTIO_ERR_NO_DEVICE)
        err = find_mmio(dev, &search);
    if (err == VIRTIO_ERR_NO_DEVICE)
        printf("%s: no %s\n", board_name(), name->text);
    else if (err != 0)
        printf("%s, %s: %s\n", board_name(), name->text, virtio_err_name(err));
    else
        printf("%s, %s on %s\n", board_name(), name->text, dev->transport);
    board_wait_begin(dev);
    return err == 0;
}

void board_show_interrupts(const struct board_device *dev)
{
    board_irq_on(); /* for one that is pending */
    (void)board_irq_off();
    if (dev->irq == BOARD_IRQ_NONE)
        printf("  interrupts none, polled\n");
    else if (dev->irq == BOARD_IRQ_MSIX)
        printf("  interrupts %u, MSI-X, %u vectors\n", (unsigned)dev->interrupts,
               dev->vectors);
    else
        printf("  interrupts %u, line %u\n", (unsigned)dev->interrupts, dev->line);
}

void board_wait_begin(struct board_device *dev)
{
    dev->began = board_micros();
}

bool board_wait(void *device)
{
    struct board_device *dev = device;

    if (dev->irq != BOARD_IRQ_NONE && dev->seen == dev->interrupts)
        board_idle();
    dev->seen = dev->interrupts;
    return board_micros() - dev->began < BOARD_PATIENCE;
}
