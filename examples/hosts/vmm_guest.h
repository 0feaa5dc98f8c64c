// SPDX-License-Identifier: MIT-0
/**
 * @file vmm_guest.h
 * @brief The machine that vmm.c makes and vmm_guest.c runs on.
 *
 * One processor, in 64-bit mode from the first instruction on, linear addresses equal to physical
 * ones below 4 GiB; RAM from 0; one device, in a virtio-mmio slot or on a PCI bus; its line is a
 * level at a pin of the I/O APIC and arrives as a vector of the local APIC; ports. What is there,
 * the guest gets as the argument of its entry: bits of enum vmm_guest_bit.
 */
#ifndef EXAMPLES_HOSTS_VMM_GUEST_H
#define EXAMPLES_HOSTS_VMM_GUEST_H

#include <stdint.h>

enum vmm_guest_bit {
    VMM_GUEST_PCI = 1, /**< the device is on the PCI bus, else in the slot */
    VMM_GUEST_LINE = 2 /**< use its line even if it has MSI-X */
};

#define VMM_SLOT UINT32_C(0xd0000000)       /**< registers of the device */
#define VMM_PCI_MEMORY UINT32_C(0xe0000000) /**< free for BARs */
#define VMM_PCI_MEMORY_END UINT32_C(0xf0000000)
#define VMM_APIC UINT32_C(0xfee00000) /**< local APIC; messages to it are interrupts */

enum {
    VMM_RAM = 8 << 20,       /**< bytes */
    VMM_SLOT_LENGTH = 0x200, /**< bytes */
    VMM_PIN = 20,            /**< of the device, at the I/O APIC */
    VMM_VECTOR = 0x40,       /**< that its level causes */
    VMM_CODE_SEGMENT = 0x08,
    VMM_DATA_SEGMENT = 0x10,
    VMM_PORT_PRINT = 0xe9,   /**< a character to print */
    VMM_PORT_END = 0xf4,     /**< ends the machine with this exit status */
    VMM_PORT_CONFIG = 0xcf8, /**< PCI configuration space: address, then data */
    VMM_PORT_CONFIG_DATA = 0xcfc,
    VMM_PCI_PORTS = 0xc000, /**< free for BARs */
    VMM_PCI_PORTS_END = 0xd000,
    VMM_PCI_SLOT = 1 /**< of the device on bus 0; where it is, the guest finds out */
};

#endif
