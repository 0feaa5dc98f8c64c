// SPDX-License-Identifier: MIT-0
/**
 * @file qtest_virtio.h
 * @brief A virtio device of QEMU, found and ready for a front-end of examples/driver.
 *
 * What the host programs of qtest.h share: their common options, the start of QEMU with one device,
 * finding it (PCI function or virtio-mmio slot), its registers as windows, and its interrupts. The
 * device type is all that differs.
 *
 *     while (i < argc && (taken = qtest_virtio_option(&host, argv + i)) > 0)
 *         i += taken;
 *     qtest_virtio_start(&host, &device);
 *     err = qtest_virtio_find(&host, &device);
 *     ...front-end on host.drv, with qtest_virtio_wait as its wait hook and the memory at
 *     QTEST_VIRTIO_DRIVER_AT...
 *     return qtest_virtio_end(&host, err != 0 ? err_name(err) : NULL);
 */
#ifndef EXAMPLES_HOSTS_QTEST_VIRTIO_H
#define EXAMPLES_HOSTS_QTEST_VIRTIO_H

#include "qtest.h"
#include "qtest_pci.h"
#include "virtio.h"

enum {
    QTEST_VIRTIO_RAM_SIZE = 16 << 20,
    QTEST_VIRTIO_DRIVER_AT = 1 << 20, /**< offset in RAM: rings and requests */
    QTEST_VIRTIO_DATA_AT = 4 << 20    /**< offset in RAM: data, up to its end */
};

enum qtest_virtio_transport {
    QTEST_PCI_LEGACY,
    QTEST_PCI_MODERN,
    QTEST_PCI_MODERN_PIO, /**< notified through an I/O BAR */
    QTEST_VIRTIO_MMIO,
    QTEST_VIRTIO_MMIO_V1, /**< legacy registers */
    QTEST_TRANSPORT_COUNT
};

/** What the common options say. Zero is the default of all but the transport. */
struct qtest_virtio_options {
    enum qtest_virtio_transport transport;
    bool machine_given;
    enum qtest_machine machine; /**< else q35, or microvm for virtio-mmio */
    bool transitional;          /**< a PCI function that has both interfaces */
    bool msix;
    bool pci_cfg; /**< registers through the PCI_CFG capability, as where no BAR can be mapped */
    bool no_device;
    uint16_t queue_size; /**< 0: what the device proposes */
    uint16_t reset_size; /**< entries after a reset of the queue; 0: no such reset */
    const char *qemu;
    char properties[256]; /**< ",name=value" for each */
};

/** The device a program is about. */
struct qtest_virtio_device {
    uint16_t type;           /**< virtio device type */
    const char *name;        /**< of QEMU's device, without "-pci" or "-device" */
    const char *backend;     /**< its property that names the back-end */
    const char *argument[2]; /**< QEMU's option that makes the back-end */
    bool modern_only;        /**< a PCI function that cannot be anything else */
};

/** One run. Set program and options.transport, zero the rest. */
struct qtest_virtio {
    const char *program; /**< for messages */
    struct qtest_virtio_options options;
    struct qtest qtest;
    struct virtio_drv drv;
    struct qtest_pci_function function; /**< PCI: where it is, */
    struct virtio_pci_config config;    /**< its configuration space, */
    struct virtio_pci_cfg_access access[6]; /**< and the way through that to each BAR */
    unsigned line;       /**< its interrupt line; others are not looked at */
    unsigned interrupts; /**< ISR reads that said "queue" */
    unsigned looks;      /**< at a device that was still busy with a reset */
};

/** Text of the common options for a usage message. */
extern const char qtest_virtio_usage[];

/** Takes a common option: how many of `argv` it used, 0 if the first is none of them, -1 if it is
 *  wrong (a message is printed). `argv` ends with NULL. */
int qtest_virtio_option(struct qtest_virtio *host, char **argv);

/** Reads a number from `low` to `high`; if the text is none, says so ("no `what`"): false. */
bool qtest_virtio_number(const struct qtest_virtio *host, const char *text, const char *what,
                         unsigned long low, unsigned long high, unsigned long *number);

/** Starts QEMU with the device. 0 or -1; qtest_virtio_end() says why. */
int qtest_virtio_start(struct qtest_virtio *host, const struct qtest_virtio_device *device);

/** Finds the device, prints where, and fills in host->drv: 0 or VIRTIO_ERR_NO_DEVICE,
 *  VIRTIO_ERR_GONE, VIRTIO_ERR_LAYOUT, VIRTIO_ERR_WINDOW ... */
int qtest_virtio_find(struct qtest_virtio *host, const struct qtest_virtio_device *device);

/** The wait hook of a front-end: waits for the interrupt line, reads the cause, acknowledges. With
 *  MSI-X on there is no line: it waits a moment, and the used ring is polled. ctx: the host. */
bool qtest_virtio_wait(void *ctx);

/** Takes the interrupt that is pending, if there is one: has the device interrupted for a queue
 *  since the last look? With MSI-X on: false. */
bool qtest_virtio_interrupted(struct qtest_virtio *host);

/** The driver's memory at an offset in RAM, `length` bytes. */
struct virtio_dma qtest_virtio_memory(const struct qtest_virtio *host, uint32_t at,
                                      uint32_t length);

/** Ends the run and QEMU: prints what went wrong, if something did (`text`: the name of an error,
 *  or NULL), else how the device interrupted. Exit status: 1 after an error or without an
 *  interrupt. */
int qtest_virtio_end(struct qtest_virtio *host, const char *text);

#endif
