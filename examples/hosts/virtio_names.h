// SPDX-License-Identifier: MIT-0
/**
 * @file virtio_names.h
 * @brief Names of virtio device types, feature bits and status bits, for people to read.
 *
 * The names are those of the specification without their prefixes: VIRTIO_NET_F_MAC is "MAC".
 */
#ifndef EXAMPLES_HOSTS_VIRTIO_NAMES_H
#define EXAMPLES_HOSTS_VIRTIO_NAMES_H

#include <stdint.h>

/** A feature bit, or a status value. */
struct virtio_names_bit {
    uint8_t bit;
    const char *name;
};

/** A device type. `bits` ends with an entry without a name; NULL if it has no features. */
struct virtio_names_type {
    uint8_t id;
    const char *key;  /**< one short word */
    const char *text; /**< what it is */
    const struct virtio_names_bit *bits;
};

/** The type with this virtio device id, or NULL. */
const struct virtio_names_type *virtio_names_type(unsigned id);

/** The type with this key, or NULL. */
const struct virtio_names_type *virtio_names_find(const char *key);

/** Name of a feature bit (0 to 127) of a device of `type` (may be NULL), or NULL. */
const char *virtio_names_feature(const struct virtio_names_type *type, unsigned bit);

/** Name of bit 0 to 7 of the device status, or NULL. */
const char *virtio_names_status(unsigned bit);

#endif
