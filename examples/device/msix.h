// SPDX-License-Identifier: MIT-0
/**
 * @file msix.h
 * @brief MSI-X of an emulated PCI function: the table, the pending bits, and who sends when.
 *
 * The part that virtio.h leaves to the machine: there a vector is a number, here it becomes a
 * message (PCI 3.0, 6.8.2). Plain C; serialise all calls on one struct msix.
 */
#ifndef EXAMPLES_DEVICE_MSIX_H
#define EXAMPLES_DEVICE_MSIX_H

#include <stdbool.h>
#include <stdint.h>

enum {
    MSIX_VECTORS = 32,        /**< at most */
    MSIX_PENDING_AT = 0x1000, /**< the pending bits, behind the table */
    MSIX_LENGTH = 0x2000      /**< bytes of both */
};

/** What a vector is to the interrupt controller. */
struct msix_message {
    uint64_t address;
    uint32_t data;
};

/** Set the upper part, zero the rest, call msix_init(). */
struct msix {
    uint16_t count; /**< vectors, 1 to MSIX_VECTORS; those of the capability */
    /** Send this message. It must not call back into here. */
    void (*send)(void *ctx, uint16_t vector, const struct msix_message *message);
    void *ctx;

    bool off;                        /**< disabled, or all vectors masked */
    uint32_t table[MSIX_VECTORS][4]; /**< address low, high, data, control */
    uint32_t pending;                /**< a bit for each vector */
};

/** Power on: off, and each vector masked. */
void msix_init(struct msix *msix);

/** The guest wrote Message Control of the capability; what was pending may go out. */
void msix_control(struct msix *msix, uint16_t control);

/** The device has an interrupt: sends the message, or sets the pending bit of a masked vector. */
void msix_raise(struct msix *msix, uint16_t vector);

/** What a vector is now. */
struct msix_message msix_message(const struct msix *msix, uint16_t vector);

/** The guest loads or stores; `offset` counts from the table and is below MSIX_LENGTH. All but
 *  aligned 4 and 8 bytes reads 0 and ignores writes. */
uint64_t msix_read(const struct msix *msix, uint64_t offset, unsigned width);
void msix_write(struct msix *msix, uint64_t offset, unsigned width, uint64_t value);

/** Sends what is pending and no longer held back. Call it after msix_write(), once the machine knows
 *  of the messages as they are now. */
void msix_settle(struct msix *msix);

#endif
