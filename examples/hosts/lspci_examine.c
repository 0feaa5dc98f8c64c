// SPDX-License-Identifier: MIT-0
/* What a function's configuration space means: its type, its capabilities, its layout. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pread */
#endif

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "lspci.h"

int lspci_error(const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "virtio-lspci: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    return LSPCI_INPUT;
}

static uint32_t decode(const uint8_t *bytes, unsigned width)
{
    uint32_t value = 0;

    while (width-- > 0)
        value = value << 8 | bytes[width];
    return value;
}

uint32_t lspci_field(const struct lspci_function *function, unsigned offset, unsigned width)
{
    return decode(function->config + offset, width);
}

bool lspci_is_virtio(const struct lspci_function *function)
{
    uint32_t device = lspci_field(function, 2, 2);

    return lspci_field(function, 0, 2) == 0x1af4 && device >= 0x1000 && device <= 0x107f;
}

/*
 * Reads configuration space for virtio_pci_scan(). A live one is read dword by dword as it is asked
 * for: the data register of a PCI_CFG capability, which nobody asks for, makes the device read
 * behind a BAR.
 */
static uint32_t read_config(void *ctx, uint16_t offset)
{
    struct lspci_report *report = (struct lspci_report *)ctx;
    const struct lspci_function *function = report->function;
    uint8_t bytes[4];

    if (offset + 4u <= function->config_size)
        return decode(function->config + offset, 4);
    if (function->config_file >= 0 && pread(function->config_file, bytes, 4, offset) == 4)
        return decode(bytes, 4);
    report->cut = true;
    return 0;
}

static void list_capabilities(struct lspci_report *report, const struct virtio_pci_config *config)
{
    struct virtio_pci_walk walk;
    int got;

    virtio_pci_walk_begin(&walk, config);
    do {
        got = virtio_pci_walk_next(&walk, &report->caps[report->cap_count]);
        report->cap_count += got > 0;
    } while (got > 0 && report->cap_count < LSPCI_CAP_MAX);
    report->list_error = got < 0 ? got : 0;
    report->msix = walk.msix;
    report->msix_on = walk.msix_on;
    report->msix_vectors = walk.msix_vectors;
}

int lspci_examine(struct lspci_report *report, const struct lspci_function *function)
{
    const struct virtio_pci_config config = {read_config, NULL, report};
    struct virtio_pci_bar bars[6];

    report->function = function;
    report->virtio_id = virtio_pci_device_type((uint16_t)lspci_field(function, 0, 2),
                                               (uint16_t)lspci_field(function, 2, 2),
                                               (uint16_t)lspci_field(function, 0x2e, 2));
    report->type = virtio_names_type(report->virtio_id);
    report->cut = false;
    report->cap_count = 0;
    for (unsigned i = 0; i < 6; i++)
        bars[i] = function->bars[i].pci;
    list_capabilities(report, &config);
    report->layout_error = virtio_pci_scan(&report->layout, &config, bars, 0);
    return lspci_unusable(report) != NULL ? LSPCI_UNUSABLE : LSPCI_OK;
}

const char *lspci_unusable(const struct lspci_report *report)
{
    if (report->cut)
        return "configuration space ends before the capabilities do";
    return report->layout_error != 0 ? virtio_pci_err_name(report->layout_error) : NULL;
}

const char *lspci_struct_name(unsigned type)
{
    switch (type) {
    case VIRTIO_PCI_STRUCT_COMMON: return "common";
    case VIRTIO_PCI_STRUCT_NOTIFY: return "notify";
    case VIRTIO_PCI_STRUCT_ISR: return "isr";
    case VIRTIO_PCI_STRUCT_DEVICE: return "device";
    case VIRTIO_PCI_STRUCT_PCI_CFG: return "pci-cfg";
    case VIRTIO_PCI_STRUCT_SHARED_MEMORY: return "shared-memory";
    case VIRTIO_PCI_STRUCT_VENDOR: return "vendor";
    default: return NULL;
    }
}

const char *lspci_generation_name(unsigned generation)
{
    static const char *const names[] = {"none", "legacy", "2011 RFC", "VIRTIO 1.x"};

    return names[generation <= VIRTIO_PCI_MODERN ? generation : VIRTIO_PCI_NONE];
}

/* Of a capability without fault that points into a BAR. */
static const char *unused_structure(const struct lspci_report *report,
                                    const struct virtio_pci_capability *cap)
{
    struct virtio_pci_bar bars[6];
    const struct virtio_pci_layout *layout = &report->layout;

    for (unsigned i = 0; i < 6; i++)
        bars[i] = report->function->bars[i].pci;
    if (bars[cap->bar].kind == VIRTIO_PCI_BAR_NONE)
        return "its BAR is not there";
    if (!virtio_pci_capability_fits(cap, bars))
        return "not inside its BAR";
    if (cap->type == VIRTIO_PCI_STRUCT_SHARED_MEMORY)
        return bars[cap->bar].kind == VIRTIO_PCI_BAR_MEM ? NULL : "its BAR is not memory";
    if (report->layout_error != 0)
        return NULL;
    if (cap->family != layout->generation)
        return "the layout is of another generation";
    return layout->place[cap->type].cap == cap->at ? NULL : "an earlier one is used";
}

const char *lspci_unused(const struct lspci_report *report, const struct virtio_pci_capability *cap)
{
    if (cap->fault != VIRTIO_PCI_FAULT_NONE)
        return virtio_pci_fault_name(cap->fault);
    if (cap->type == VIRTIO_PCI_STRUCT_VENDOR)
        return NULL;
    if (cap->type == VIRTIO_PCI_STRUCT_PCI_CFG) {
        bool later = report->layout_error == 0 && report->layout.pci_cfg != cap->at;

        return later ? "an earlier one is used" : NULL;
    }
    return unused_structure(report, cap);
}
