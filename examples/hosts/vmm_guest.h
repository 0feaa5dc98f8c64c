// SPDX-License-Identifier: MIT-0
/**
 * @file vmm_guest.h
 * @brief The machine that vmm.c makes and vmm_guest.c runs on.
 *
 * One processor, in 64-bit mode from the first instruction on, linear addresses equal to physical
 * ones below 4 GiB; RAM from 0; one virtio-mmio slot, whose interrupt is an edge at a pin of the
 * I/O APIC and arrives as a vector of the local APIC; two ports.
 */
#ifndef EXAMPLES_HOSTS_VMM_GUEST_H
#define EXAMPLES_HOSTS_VMM_GUEST_H

#include <stdint.h>

#define VMM_SLOT UINT32_C(0xd0000000) /**< registers of the device */
#define VMM_APIC UINT32_C(0xfee00000) /**< local APIC */

enum {
    VMM_RAM = 8 << 20,       /**< bytes */
    VMM_SLOT_LENGTH = 0x200, /**< bytes */
    VMM_PIN = 20,            /**< of the device, at the I/O APIC */
    VMM_VECTOR = 0x40,       /**< that its edge causes */
    VMM_CODE_SEGMENT = 0x08,
    VMM_DATA_SEGMENT = 0x10,
    VMM_PORT_PRINT = 0xe9, /**< a character to print */
    VMM_PORT_END = 0xf4    /**< ends the machine with this exit status */
};

#endif
