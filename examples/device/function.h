// SPDX-License-Identifier: MIT-0
/**
 * @file function.h
 * @brief An emulated virtio device with one queue, as a PCI function and as a virtio-mmio slot.
 *
 * One device state, three ways in: PCI configuration space with a memory BAR of 1.x structures, the
 * legacy I/O BAR, and virtio-mmio registers. The driver's register accesses go in, callbacks come
 * out. Any access of any width at any offset has a defined result: what is not a register reads 0
 * and ignores writes.
 */
#ifndef EXAMPLES_DEVICE_FUNCTION_H
#define EXAMPLES_DEVICE_FUNCTION_H

#include "virtio.h"

enum function_view { FUNCTION_PCI_MODERN, FUNCTION_PCI_LEGACY, FUNCTION_MMIO };

enum {
    FUNCTION_CONFIG_MAX = 96,    /**< bytes of device configuration */
    FUNCTION_LEGACY_BAR = 0,     /**< I/O BAR, legacy view */
    FUNCTION_LEGACY_LENGTH = 128,
    FUNCTION_MODERN_BAR = 4,     /**< memory BAR, modern view */
    FUNCTION_MODERN_LENGTH = 0x4000,
    FUNCTION_MMIO_LENGTH = 0x200
};

/** The emulated device. Set the upper part, zero the rest, then use the calls. */
struct function {
    enum function_view view;
    uint16_t device_type;
    uint16_t queue_max;
    struct virtio_features offered; /**< VERSION_1 is added and removed with the view */
    uint8_t config[FUNCTION_CONFIG_MAX];
    uint16_t config_length;
    /** Guest memory, as for struct blkdev. */
    void *(*map)(void *ctx, uint64_t addr, uint32_t len);
    /** The queue was kicked: serve it. */
    void (*kick)(void *ctx);
    /** The interrupt line changed. */
    void (*irq)(void *ctx, bool level);
    void *ctx;

    uint8_t status;
    uint8_t isr;
    uint8_t generation;
    bool msix_on;
    uint16_t queue_select;
    uint32_t feature_select[2]; /**< offered, accepted */
    struct virtio_features accepted;
    uint16_t queue_size;
    uint64_t queue_address[3]; /**< desc, driver, device */
    uint32_t queue_page;       /**< legacy */
    bool queue_enabled;
    struct virtq_device queue; /**< meaningful while queue_enabled */
};

/** Puts the device into the state after a reset. */
void function_reset(struct function *f);

/** PCI configuration space, an aligned dword. Has the form of virtio_pci_read32_fn. */
uint32_t function_pci_read32(void *function, uint16_t offset);

/** The six BARs as a capability scan wants them. */
void function_pci_bars(const struct function *f, struct virtio_pci_bar bars[6]);

/** The driver's way to the registers: of one BAR, or of the mmio slot (bar 0). */
struct virtio_window function_window(struct function *f, unsigned bar);

/** Raises the interrupt line for the given causes (enum virtio_irq). */
void function_interrupt(struct function *f, uint8_t causes);

/** Sets DEVICE_NEEDS_RESET, with the configuration interrupt if the driver was ready. */
void function_needs_reset(struct function *f);

#endif
