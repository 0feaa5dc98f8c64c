// SPDX-License-Identifier: MIT-0
/**
 * @file function.h
 * @brief An emulated device put together: a PCI function in three layouts, or a virtio-mmio slot.
 *
 * The registers are the library's (virtio.h, device side). What a machine adds is here: a
 * configuration space, BARs, and a struct virtio_window through which a driver in the same process
 * reaches it all.
 */
#ifndef EXAMPLES_DEVICE_FUNCTION_H
#define EXAMPLES_DEVICE_FUNCTION_H

#include "virtio.h"

enum function_view {
    FUNCTION_PCI_MODERN,
    FUNCTION_PCI_LEGACY,
    FUNCTION_MMIO,
    FUNCTION_PCI_RFC2011, /**< structures of the RFC, and the legacy BAR beside them (R-19) */
    FUNCTION_MMIO_V1
};

enum {
    FUNCTION_CONFIG_MAX = 96, /**< bytes of device configuration */
    FUNCTION_QUEUES = 18,     /**< at most */
    FUNCTION_VECTORS = 4,     /**< of MSI-X */
    FUNCTION_LEGACY_BAR = 0,  /**< I/O */
    FUNCTION_LEGACY_LENGTH = 128,
    FUNCTION_MODERN_BAR = 4, /**< memory, also for the structures of the RFC */
    FUNCTION_MODERN_LENGTH = 0x8000,
    FUNCTION_MSIX_AT = 0x4000, /**< in that BAR: room for msix.h; without it, vectors are numbers */
    FUNCTION_MMIO_LENGTH = 0x200
};

struct function;
/** What a window of one BAR carries along. */
struct function_bar {
    struct function *function;
    uint8_t bar;
};

/** An emulated device. Set `view`, queue[].max and the upper part of `dev` but for its `queue` and
 *  `config`, which are those of this struct; then function_init(). Do not move it. */
struct function {
    enum function_view view;
    struct virtio_dev dev;
    struct virtio_dev_queue queue[FUNCTION_QUEUES];
    uint8_t config[FUNCTION_CONFIG_MAX];

    struct virtio_dev_pci pci;
    struct function_bar bar[6];
};

/** Is the view reached as a virtio-mmio slot? */
static inline bool function_is_mmio(enum function_view view)
{
    return view == FUNCTION_MMIO || view == FUNCTION_MMIO_V1;
}

/** Does its driver speak legacy: registers, ring and configuration without VERSION_1? */
static inline bool function_is_legacy(enum function_view view)
{
    return view != FUNCTION_PCI_MODERN && view != FUNCTION_MMIO;
}

/** Power on. @return 0, or VIRTIO_PCI_ERR_FIELD: a device type without a transitional PCI id, in a
 *  layout that needs one. */
int function_init(struct function *f);

/** PCI configuration space, an aligned dword: virtio_pci_read32_fn and virtio_pci_write32_fn. */
uint32_t function_pci_read32(void *function, uint16_t offset);
void function_pci_write32(void *function, uint16_t offset, uint32_t value);

/** The six BARs as a capability scan wants them. */
void function_pci_bars(const struct function *f, struct virtio_pci_bar bars[6]);

/** The driver's way to the registers: of one BAR, or of the mmio slot (bar 0). */
struct virtio_window function_window(struct function *f, unsigned bar);

#endif
