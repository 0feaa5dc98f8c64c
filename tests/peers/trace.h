// SPDX-License-Identifier: MIT-0
/**
 * @file trace.h
 * @brief The same register accesses on two devices, and every answer compared.
 *
 * A script (script_*.c) is written once and knows no device: it reads and writes registers by space,
 * offset and width. Both peers, a device of QEMU and the register model of virtio.h, get each access;
 * where the answers differ, a line says at which step. A step is named by its section and label, once
 * in a run.
 */
#ifndef TESTS_PEERS_TRACE_H
#define TESTS_PEERS_TRACE_H

#include "virtio.h"

/** What an offset counts from. A space that a peer does not have reads as all ones on both. */
enum trace_space {
    TRACE_PCI,     /**< PCI configuration space */
    TRACE_CAP,     /**< + enum virtio_pci_struct, or 5: that capability of configuration space */
    TRACE_CAP_WINDOW = TRACE_CAP + 5, /**< PCI_CFG */
    TRACE_CAP_MSIX, /**< the MSI-X capability */
    TRACE_COMMON,
    TRACE_NOTIFY,
    TRACE_ISR,
    TRACE_DEVICE,
    TRACE_LEGACY, /**< BAR0 of the legacy interface */
    TRACE_MMIO
};

/** One of the two devices. */
struct trace_peer {
    void *ctx;
    uint32_t (*read)(void *ctx, enum trace_space space, uint32_t offset, unsigned width);
    void (*write)(void *ctx, enum trace_space space, uint32_t offset, unsigned width,
                  uint32_t value);
    bool (*line)(void *ctx); /**< its interrupt line */
    uint8_t *ram;            /**< guest memory, whose first byte is at TRACE_RAM for the device */
    void (*settle)(void *ctx, const uint8_t *used, uint16_t idx); /**< waits for the used index */
    bool failed;             /**< the connection is lost */
};

enum {
    TRACE_QUEUES = 2,    /**< of the device, of ... */
    TRACE_ENTRIES = 256, /**< entries at most */
    TRACE_VECTORS = 3,
    TRACE_CONFIG_LENGTH = 57, /**< of QEMU's block device; the byte at 32 can be written */
    /** Where the scripts put queue 0, as an address of the device: desc, driver and device area of a
     *  split queue of TRACE_ENTRIES entries as a legacy device lays it out. */
    TRACE_DESC = 0x100000,
    TRACE_DRIVER_AREA = TRACE_DESC + 16 * TRACE_ENTRIES,
    TRACE_DEVICE_AREA = TRACE_DESC + 0x2000,
    TRACE_BUFFER = 0x110000,
    TRACE_RAM = 0,
    TRACE_RAM_SIZE = 16 << 20,
    TRACE_STEPS_MAX = 8192
};

struct trace {
    const char *run;     /**< name of the run */
    const char *section; /**< of the script */
    bool verbose;        /**< print every step */
    struct trace_peer peer[2]; /**< QEMU, ours */
    unsigned steps;
    unsigned differences;
    char *labels[TRACE_STEPS_MAX];
    struct trace_ring {
        uint16_t published, used; /* requests so far */
    } ring;
    uint32_t offered[2]; /**< features 0 to 63 that QEMU's device offers */
};

/** Begins a section of the script. */
void trace_section(struct trace *t, const char *name);

/** Writes to both. */
void trace_write(struct trace *t, enum trace_space space, uint32_t offset, unsigned width,
                 uint32_t value);

/** Reads from both and compares. @return what QEMU answered. */
uint32_t trace_read(struct trace *t, enum trace_space space, uint32_t offset, unsigned width,
                    const char *format, ...) __attribute__((format(printf, 5, 6)));

/** Compares the interrupt lines. */
void trace_line(struct trace *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Puts a request into split queue 0 at TRACE_DESC, on both sides; the caller kicks. */
void trace_request(struct trace *t);

/** Makes a descriptor that is not there available in split queue 0. */
void trace_break_ring(struct trace *t);

/** Waits until both devices have answered all requests. */
void trace_settle(struct trace *t);

/** Forgets all rings, as the devices do at a reset. */
void trace_clear_ring(struct trace *t);

/* The scripts; script_config() is device configuration at `base` of a space. */
void script_config(struct trace *t, enum trace_space space, uint32_t base);
void script_pci_modern(struct trace *t);
void script_pci_legacy(struct trace *t);
void script_pci_config(struct trace *t, bool modern);
void script_mmio(struct trace *t, bool legacy);

#endif
