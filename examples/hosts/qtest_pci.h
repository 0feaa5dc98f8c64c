// SPDX-License-Identifier: MIT-0
/**
 * @file qtest_pci.h
 * PCI on a QEMU of qtest.h (all but QTEST_MICROVM): what firmware would do, in four calls.
 *
 * Configuration space goes through the ports 0xcf8 and 0xcfc, which reach its first 256 bytes, on
 * QTEST_VIRT through ECAM. Only bus 0 exists: nobody has numbered buses behind bridges. A device
 * function is named by devfn = slot << 3 | function, so `addr=3` on QEMU's command line is devfn
 * 0x18.
 *
 * As everywhere in qtest.h, a broken connection reads as all ones: "no device".
 */
#ifndef QTEST_PCI_H
#define QTEST_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "qtest.h"
#include "virtio.h"

/** A function's configuration space. Set the first two, qtest_pci_config() does the rest. */
struct qtest_pci_function {
    struct qtest *qtest;
    unsigned devfn;
    struct virtio_pci_cf8 ports; /**< the way to it on a PC, */
    struct virtio_window ecam;   /**< and on QTEST_VIRT */
};

/** Reads 1, 2 or 4 bytes, naturally aligned, of a function's first 256 bytes of configuration
 * space. */
uint32_t qtest_pci_read(struct qtest *q, unsigned devfn, uint16_t offset, unsigned width);

/** Writes 1, 2 or 4 bytes, naturally aligned. */
void qtest_pci_write(struct qtest *q, unsigned devfn, uint16_t offset, unsigned width,
                     uint32_t value);

/** qtest_pci_read() of 4 bytes. */
uint32_t qtest_pci_read32(struct qtest *q, unsigned devfn, uint16_t offset);

/** qtest_pci_write() of 4 bytes. */
void qtest_pci_write32(struct qtest *q, unsigned devfn, uint16_t offset, uint32_t value);

/**
 * Finds the first function on bus 0 whose vendor fits and whose device id is in
 * device_lo..device_hi.
 *
 * @return 0 and *devfn; -1 if there is none (qtest_error() tells whether QEMU is to blame).
 */
int qtest_pci_find(struct qtest *q, uint16_t vendor, uint16_t device_lo, uint16_t device_hi,
                   unsigned *devfn);

/** Registers of QEMU as a window: ports or physical memory; kind NONE if `length` is 0. */
struct virtio_window qtest_window(struct qtest *q, bool io, uint64_t base, uint64_t length);

/** Configuration space of a function; `f` must outlive what is returned. */
struct virtio_pci_config qtest_pci_config(struct qtest_pci_function *f);

/**
 * Sizes and assigns the base address registers of a function of header type 0, then lets it decode
 * I/O and memory and master the bus. Addresses are handed out upwards, I/O from 0xc000 and memory
 * from the start of the board's window, and never taken back. INTx is routed too: the byte at 0x3c
 * of configuration space then holds its line as qtest_irq_level() counts them, or 0xff if there is
 * none.
 *
 * @return 0 and all six bars, or -1: see qtest_error().
 */
int qtest_pci_enable(struct qtest *q, unsigned devfn, struct virtio_pci_bar bars[6]);

#endif
