// SPDX-License-Identifier: MIT-0
/* What virtio-lspci prints for people: a block for each function, label and text in two columns. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "lspci.h"

enum { LABEL = 11, LINE_WIDTH = 100 };

__attribute__((format(printf, 2, 3))) static void label(FILE *out, const char *format, ...)
{
    char text[LSPCI_NAME_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(out, "  %-*s ", LABEL, text);
}

/* ----- identity and BARs ----- */

static const char *kind_of(const struct lspci_report *report)
{
    if (lspci_field(report->function, 2, 2) >= 0x1040)
        return "non-transitional";
    if (lspci_unusable(report) != NULL)
        return "transitional id";
    return report->layout.generation == VIRTIO_PCI_MODERN ? "transitional" : "legacy";
}

static void show_identity(FILE *out, const struct lspci_report *report)
{
    const struct lspci_function *function = report->function;

    if (function->address[0] != '\0')
        fprintf(out, "%s  ", function->address);
    fprintf(out, "%04x:%04x  ", lspci_field(function, 0, 2), lspci_field(function, 2, 2));
    if (report->type != NULL)
        fprintf(out, "%s (%s)\n", report->type->text, report->type->key);
    else
        fprintf(out, "virtio device type %u\n", report->virtio_id);
    label(out, "kind");
    fprintf(out, "%s, device type %u, revision %u, subsystem %04x:%04x\n", kind_of(report),
            report->virtio_id, lspci_field(function, 8, 1), lspci_field(function, 0x2c, 2),
            lspci_field(function, 0x2e, 2));
    if (function->live.driver[0] != '\0') {
        label(out, "driver");
        fprintf(out, "%s", function->live.driver);
        if (function->live.device[0] != '\0')
            fprintf(out, ", %s", function->live.device);
        if (function->live.device_driver[0] != '\0')
            fprintf(out, ", %s", function->live.device_driver);
        fprintf(out, "\n");
    }
}

static void show_bar(FILE *out, const struct lspci_function *function, unsigned index)
{
    const struct lspci_bar *bar = &function->bars[index];

    label(out, "BAR %u", index);
    if (bar->pci.kind == VIRTIO_PCI_BAR_IO)
        fprintf(out, "I/O ports");
    else
        fprintf(out, "memory, %u bits%s", bar->pci.wide ? 64 : 32,
                bar->prefetchable ? ", prefetchable" : "");
    if (bar->pci.base != 0)
        fprintf(out, " at 0x%" PRIx64, bar->pci.base);
    else
        fprintf(out, " without an address");
    fprintf(out, ", 0x%" PRIx64 " bytes%s\n", bar->pci.length,
            function->sizes_known ? "" : " assumed");
}

static void show_bars(FILE *out, const struct lspci_function *function)
{
    bool any = false;

    for (unsigned i = 0; i < 6; i++) {
        if (function->bars[i].pci.kind == VIRTIO_PCI_BAR_NONE)
            continue;
        show_bar(out, function, i);
        any = true;
    }
    if (!any) {
        label(out, "BARs");
        fprintf(out, "none, or none with an address\n");
    } else if (!function->sizes_known) {
        label(out, "BAR sizes");
        fprintf(out, "not in a dump: each is assumed to be as large as its address allows\n");
    }
}

/* ----- capabilities and layout ----- */

static void show_capability(FILE *out, const struct lspci_report *report,
                            const struct virtio_pci_capability *cap)
{
    const char *unused = lspci_unused(report, cap), *name = lspci_struct_name(cap->type);
    char number[16];

    snprintf(number, sizeof(number), "type %u", cap->type);
    label(out, "cap [%02x]", cap->at);
    fprintf(out, "%-10s  %-13s ",
            cap->family != VIRTIO_PCI_NONE ? lspci_generation_name(cap->family) : "?",
            cap->family != VIRTIO_PCI_NONE && name != NULL ? name : number);
    if (cap->type == VIRTIO_PCI_STRUCT_VENDOR)
        fprintf(out, " vendor %04x, %u bytes", cap->extra, cap->size);
    else if (cap->fault == VIRTIO_PCI_FAULT_LAYOUT || cap->fault == VIRTIO_PCI_FAULT_TYPE)
        fprintf(out, " %u bytes", cap->size); /* what the others mean is not known */
    else
        fprintf(out, " BAR %u  offset 0x%08" PRIx64 "  length 0x%08" PRIx64, cap->bar, cap->offset,
                cap->length);
    if (cap->family == VIRTIO_PCI_MODERN && cap->type == VIRTIO_PCI_STRUCT_NOTIFY)
        fprintf(out, "  multiplier %" PRIu32, cap->extra);
    if (cap->type == VIRTIO_PCI_STRUCT_SHARED_MEMORY)
        fprintf(out, "  id %u", cap->id);
    fprintf(out, "\n");
    if (unused != NULL) {
        label(out, "%s", "");
        fprintf(out, "%s: %s\n",
                virtio_pci_capability_malformed(cap) ? "malformed, counts as absent" : "not used",
                unused);
    }
}

static void show_capabilities(FILE *out, const struct lspci_report *report)
{
    if (report->msix != 0) {
        label(out, "cap [%02x]", report->msix);
        fprintf(out, "MSI-X, %u vectors, %s\n", report->msix_vectors,
                report->msix_on ? "enabled" : "disabled");
    }
    for (unsigned i = 0; i < report->cap_count; i++)
        show_capability(out, report, &report->caps[i]);
    if (report->list_error != 0) {
        label(out, "cap list");
        fprintf(out, "%s\n", virtio_pci_err_name(report->list_error));
    }
}

static void show_place(FILE *out, const struct lspci_report *report, unsigned which)
{
    const struct virtio_pci_place at = virtio_pci_locate(
        &report->layout, (enum virtio_pci_struct)which, report->layout.msix_on);
    /* Only this one goes on to the end of the BAR. */
    bool assumed = which == VIRTIO_PCI_STRUCT_DEVICE && !report->function->sizes_known;

    label(out, "  %s", lspci_struct_name(which));
    if (at.found == VIRTIO_PCI_NONE) {
        fprintf(out, "none\n");
        return;
    }
    fprintf(out, "BAR %u  offset 0x%08" PRIx32 "  length 0x%08" PRIx32 "  ", at.bar, at.offset,
            at.length);
    if (at.found == VIRTIO_PCI_LEGACY)
        fprintf(out, "legacy place%s\n", assumed ? ", length assumed" : "");
    else
        fprintf(out, "by [%02x]\n", at.cap);
}

static void show_layout(FILE *out, const struct lspci_report *report)
{
    const struct virtio_pci_layout *layout = &report->layout;

    label(out, "layout");
    if (lspci_unusable(report) != NULL) {
        fprintf(out, "unusable: %s\n", lspci_unusable(report));
        return;
    }
    fprintf(out, "%s", lspci_generation_name(layout->generation));
    if (layout->legacy && layout->generation != VIRTIO_PCI_LEGACY)
        fprintf(out, ", legacy in BAR 0 as well");
    if (layout->ignored != 0)
        fprintf(out, ", %u malformed", layout->ignored);
    fprintf(out, "\n");
    for (unsigned i = VIRTIO_PCI_STRUCT_COMMON; i <= VIRTIO_PCI_STRUCT_DEVICE; i++)
        show_place(out, report, i);
    if (layout->pci_cfg != 0) {
        label(out, "  %s", lspci_struct_name(VIRTIO_PCI_STRUCT_PCI_CFG));
        fprintf(out, "in configuration space  by [%02x]\n", layout->pci_cfg);
    }
}

/* ----- features and queues ----- */

/* The words as one number, without zeros in front of it. */
static void show_words(FILE *out, const struct virtio_features *set)
{
    unsigned top = 3;

    while (top > 0 && set->word[top] == 0)
        top--;
    fprintf(out, "0x%" PRIx32, set->word[top]);
    while (top-- > 0)
        fprintf(out, "%08" PRIx32, set->word[top]);
}

/* A name, in a new line if this one is full. */
static void show_name(FILE *out, const char *name, unsigned *column)
{
    if (*column + 1 + strlen(name) > LINE_WIDTH) {
        fprintf(out, "\n  %*s", LABEL, "");
        *column = 2 + LABEL;
    }
    fprintf(out, " %s", name);
    *column += 1 + (unsigned)strlen(name);
}

static void show_set(FILE *out, const char *what, const struct virtio_names_type *type,
                     const struct virtio_features *set)
{
    unsigned column = LINE_WIDTH;

    label(out, "%s", what);
    show_words(out, set);
    for (unsigned bit = 0; bit < 128; bit++) {
        const char *name = virtio_names_feature(type, bit);
        char number[16];

        snprintf(number, sizeof(number), "bit-%u", bit);
        if (virtio_features_has(set, bit))
            show_name(out, name != NULL ? name : number, &column);
    }
    fprintf(out, "\n");
}

void lspci_show_features_text(FILE *out, const struct virtio_names_type *type,
                              const struct virtio_features *set)
{
    show_set(out, type->key, type, set);
}

static void show_status(FILE *out, uint8_t status)
{
    label(out, "status");
    fprintf(out, "0x%02x", status);
    for (unsigned bit = 0; bit < 8; bit++) {
        if ((status >> bit & 1) != 0)
            fprintf(out, " %s", virtio_names_status(bit) != NULL ? virtio_names_status(bit) : "?");
    }
    fprintf(out, "\n");
}

static void show_queue(FILE *out, const struct lspci_report *report, unsigned index)
{
    const struct lspci_queue *queue = &report->registers->queues[index];
    const struct virtio_pci_place at = virtio_pci_locate(
        &report->layout, VIRTIO_PCI_STRUCT_NOTIFY, report->layout.msix_on);
    uint64_t offset = at.offset;

    label(out, "queue %u", index);
    if (queue->size == 0) {
        fprintf(out, "not available\n");
        return;
    }
    if (report->registers->found == VIRTIO_PCI_MODERN)
        offset += (uint64_t)queue->notify_off * report->layout.notify_multiplier;
    fprintf(out, "%u entries, notified at BAR %u offset 0x%" PRIx64 "\n", queue->size, at.bar,
            offset);
}

static void show_registers(FILE *out, const struct lspci_report *report)
{
    const struct lspci_registers *registers = report->registers;

    if (registers->why_not[0] != '\0') {
        label(out, "registers");
        fprintf(out, "not read: %s\n", registers->why_not);
        return;
    }
    show_set(out, "offered", report->type, &registers->offered);
    show_status(out, registers->status);
    label(out, "queues");
    fprintf(out, "%" PRIu32 "\n", registers->queue_count);
    for (unsigned i = 0; i < registers->queue_count; i++)
        show_queue(out, report, i);
}

static void show_features(FILE *out, const struct lspci_report *report)
{
    const struct lspci_live *live = &report->function->live;

    if (report->given_known)
        show_set(out, "given", report->type, &report->given);
    if (live->negotiated_known)
        show_set(out, "negotiated", report->type, &live->negotiated);
    if (live->status_known)
        show_status(out, live->status);
    if (report->registers != NULL) {
        show_registers(out, report);
        return;
    }
    label(out, live->negotiated_known ? "queues" : "features");
    if (report->function->source != NULL)
        fprintf(out, "not in a dump, nor are the queues\n");
    else if (live->driver[0] != '\0')
        fprintf(out, "only registers tell, and the driver has them\n");
    else
        fprintf(out, "no driver; --registers asks the device, and for its queues\n");
}

void lspci_show_text(FILE *out, const struct lspci_report *report)
{
    show_identity(out, report);
    show_bars(out, report->function);
    show_capabilities(out, report);
    show_layout(out, report);
    show_features(out, report);
}
