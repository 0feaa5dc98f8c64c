// SPDX-License-Identifier: MIT-0
/**
 * @file show.h
 * @brief What every host program prints of a device, in the same words: layout, features, queue.
 */
#ifndef EXAMPLES_HOSTS_SHOW_H
#define EXAMPLES_HOSTS_SHOW_H

#include <stdio.h>

#include "virtio.h"
#include "virtio_names.h"

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

/** The features that were accepted, by name; `type`: virtio device type. */
static inline void show_features(const struct virtio_drv *drv, unsigned type)
{
    const struct virtio_names_type *names = virtio_names_type(type);

    printf("  features  ");
    for (unsigned bit = 0; bit < 128; bit++) {
        const char *name = virtio_names_feature(names, bit);

        if (virtio_features_has(&drv->accepted, bit))
            printf(" %s", name != NULL ? name : "?");
    }
    printf("\n");
}

/** A queue's size and ring format. */
static inline void show_queue(const struct virtio_drv *drv, unsigned index, unsigned entries)
{
    printf("  queue      %u, %u entries, %s\n", index, entries,
           virtio_features_has(&drv->accepted, VIRTIO_FEATURE_RING_PACKED) ? "packed" : "split");
}

#endif
