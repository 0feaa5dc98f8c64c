// SPDX-License-Identifier: MIT-0
/**
 * @file show.h
 * @brief What every host program prints of a device, in the same words: layout, features, queue.
 */
#ifndef EXAMPLES_HOSTS_SHOW_H
#define EXAMPLES_HOSTS_SHOW_H

#include <stdio.h>

#include "virtio.h"

/** A feature bit of a device type. */
struct show_bit {
    unsigned bit;
    const char *name;
};

/** Where the structures of a PCI function lie. */
static inline void show_layout(const struct virtio_pci_layout *layout)
{
    static const char *const names[] = {"", "common", "notify", "isr", "device config"};

    for (unsigned i = VIRTIO_PCI_STRUCT_COMMON; i <= VIRTIO_PCI_STRUCT_DEVICE; i++) {
        struct virtio_pci_place at =
            virtio_pci_locate(layout, (enum virtio_pci_struct)i, layout->msix_on);

        if (at.found != VIRTIO_PCI_NONE)
            printf("  layout     %-13s BAR %u offset 0x%04llx length %llu\n", names[i], at.bar,
                   (unsigned long long)at.offset, (unsigned long long)at.length);
    }
}

static inline void show_bits(const struct virtio_features *set, const struct show_bit *bits,
                             unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (virtio_features_has(set, bits[i].bit))
            printf(" %s", bits[i].name);
    }
}

/** The features that were accepted: those of the device type first. */
static inline void show_features(const struct virtio_drv *drv, const struct show_bit *type_bits,
                                 unsigned count)
{
    static const struct show_bit ring_bits[] = {
        {VIRTIO_FEATURE_ANY_LAYOUT, "ANY_LAYOUT"},
        {VIRTIO_FEATURE_INDIRECT_DESC, "INDIRECT_DESC"},
        {VIRTIO_FEATURE_EVENT_IDX, "EVENT_IDX"},
        {VIRTIO_FEATURE_VERSION_1, "VERSION_1"},
        {VIRTIO_FEATURE_ACCESS_PLATFORM, "ACCESS_PLATFORM"},
        {VIRTIO_FEATURE_RING_PACKED, "RING_PACKED"},
        {VIRTIO_FEATURE_IN_ORDER, "IN_ORDER"},
        {VIRTIO_FEATURE_ORDER_PLATFORM, "ORDER_PLATFORM"},
        {VIRTIO_FEATURE_NOTIFICATION_DATA, "NOTIFICATION_DATA"},
        {VIRTIO_FEATURE_NOTIF_CONFIG_DATA, "NOTIF_CONFIG_DATA"},
        {VIRTIO_FEATURE_RING_RESET, "RING_RESET"}};

    printf("  features  ");
    show_bits(&drv->accepted, type_bits, count);
    show_bits(&drv->accepted, ring_bits, sizeof(ring_bits) / sizeof(ring_bits[0]));
    printf("\n");
}

/** A queue's size and ring format. */
static inline void show_queue(const struct virtio_drv *drv, unsigned index, unsigned entries)
{
    printf("  queue      %u, %u entries, %s\n", index, entries,
           virtio_features_has(&drv->accepted, VIRTIO_FEATURE_RING_PACKED) ? "packed" : "split");
}

#endif
