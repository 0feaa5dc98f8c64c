// SPDX-License-Identifier: MIT-0
/*
 * What virtio-lspci prints for programs: an object for each function.
 *
 * Keys are always there and in the same order; what is not known or not there is null. Numbers are
 * numbers; feature sets, of 128 bits, are strings in hex with their bits besides.
 */
#include <inttypes.h>

#include "lspci.h"

enum { INDENT = 2, TOP = 1 }; /* the array around it is the caller's */

/* Where the writing is. */
struct json {
    FILE *out;
    unsigned depth;
    bool first; /* nothing in this object or array yet */
};

/* ----- writing ----- */

static void put_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < ' ' || c > '~')
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

/* What comes before a value: a comma, a new line, its key unless it is in an array. */
static void put_key(struct json *json, const char *key)
{
    fprintf(json->out, "%s\n%*s", json->first ? "" : ",", (int)(INDENT * json->depth), "");
    json->first = false;
    if (key == NULL)
        return;
    put_string(json->out, key);
    fprintf(json->out, ": ");
}

static void put_open(struct json *json, const char *key, char bracket)
{
    put_key(json, key);
    fputc(bracket, json->out);
    json->depth++;
    json->first = true;
}

static void put_close(struct json *json, char bracket)
{
    json->depth--;
    if (!json->first)
        fprintf(json->out, "\n%*s", (int)(INDENT * json->depth), "");
    fputc(bracket, json->out);
    json->first = false;
}

static void put_number(struct json *json, const char *key, uint64_t value)
{
    put_key(json, key);
    fprintf(json->out, "%" PRIu64, value);
}

static void put_bool(struct json *json, const char *key, bool value)
{
    put_key(json, key);
    fprintf(json->out, value ? "true" : "false");
}

/* NULL and the empty text are null. */
static void put_text(struct json *json, const char *key, const char *text)
{
    put_key(json, key);
    if (text == NULL || text[0] == '\0')
        fprintf(json->out, "null");
    else
        put_string(json->out, text);
}

/* ----- parts of a function ----- */

static void put_bars(struct json *json, const struct lspci_function *function)
{
    put_bool(json, "bar_sizes_known", function->sizes_known);
    put_open(json, "bars", '[');
    for (unsigned i = 0; i < 6; i++) {
        const struct lspci_bar *bar = &function->bars[i];

        if (bar->pci.kind == VIRTIO_PCI_BAR_NONE)
            continue;
        put_open(json, NULL, '{');
        put_number(json, "bar", i);
        put_text(json, "kind", bar->pci.kind == VIRTIO_PCI_BAR_IO ? "io" : "memory");
        put_bool(json, "wide", bar->pci.wide != 0);
        put_bool(json, "prefetchable", bar->prefetchable);
        put_number(json, "address", bar->pci.base);
        put_number(json, function->sizes_known ? "size" : "assumed_size", bar->pci.length);
        put_close(json, '}');
    }
    put_close(json, ']');
}

static const char *generation(unsigned which)
{
    static const char *const names[] = {"", "legacy", "rfc2011", "modern"};

    return names[which <= VIRTIO_PCI_MODERN ? which : VIRTIO_PCI_NONE];
}

static void put_capability(struct json *json, const struct lspci_report *report,
                           const struct virtio_pci_capability *cap)
{
    put_open(json, NULL, '{');
    put_number(json, "at", cap->at);
    put_number(json, "size", cap->size);
    put_text(json, "family", generation(cap->family));
    put_number(json, "type", cap->type);
    put_text(json, "name", lspci_struct_name(cap->type));
    put_number(json, "bar", cap->bar);
    put_number(json, "id", cap->id);
    put_number(json, "offset", cap->offset);
    put_number(json, "length", cap->length);
    put_number(json, "extra", cap->extra);
    put_bool(json, "malformed", virtio_pci_capability_malformed(cap));
    put_text(json, "unused", lspci_unused(report, cap));
    put_close(json, '}');
}

static void put_capabilities(struct json *json, const struct lspci_report *report)
{
    if (report->msix != 0) {
        put_open(json, "msix", '{');
        put_number(json, "at", report->msix);
        put_number(json, "vectors", report->msix_vectors);
        put_bool(json, "enabled", report->msix_on);
        put_close(json, '}');
    } else {
        put_text(json, "msix", NULL);
    }
    put_open(json, "capabilities", '[');
    for (unsigned i = 0; i < report->cap_count; i++)
        put_capability(json, report, &report->caps[i]);
    put_close(json, ']');
    put_text(json, "capability_list_error", virtio_pci_err_name(report->list_error));
}

static void put_place(struct json *json, const struct lspci_report *report, unsigned which)
{
    const struct virtio_pci_place at = virtio_pci_locate(
        &report->layout, (enum virtio_pci_struct)which, report->layout.msix_on);

    if (at.found == VIRTIO_PCI_NONE) {
        put_text(json, lspci_struct_name(which), NULL);
        return;
    }
    put_open(json, lspci_struct_name(which), '{');
    put_text(json, "found", generation(at.found));
    put_number(json, "bar", at.bar);
    put_number(json, "offset", at.offset);
    put_number(json, "length", at.length);
    put_number(json, "cap", at.cap);
    put_close(json, '}');
}

static void put_layout(struct json *json, const struct lspci_report *report)
{
    const struct virtio_pci_layout *layout = &report->layout;
    const char *unusable = lspci_unusable(report);

    put_text(json, "layout_error", unusable);
    if (unusable != NULL) {
        put_text(json, "layout", NULL);
        return;
    }
    put_open(json, "layout", '{');
    put_text(json, "generation", generation(layout->generation));
    put_bool(json, "legacy", layout->legacy);
    put_number(json, "malformed", layout->ignored);
    put_number(json, "notify_multiplier", layout->notify_multiplier);
    for (unsigned i = VIRTIO_PCI_STRUCT_COMMON; i <= VIRTIO_PCI_STRUCT_DEVICE; i++)
        put_place(json, report, i);
    put_number(json, "pci_cfg", layout->pci_cfg);
    put_close(json, '}');
}

static void put_set(struct json *json, const char *key, const struct virtio_names_type *type,
                    const struct virtio_features *set)
{
    if (set == NULL) {
        put_text(json, key, NULL);
        return;
    }
    put_open(json, key, '{');
    put_key(json, "value");
    fprintf(json->out, "\"0x%08" PRIx32 "%08" PRIx32 "%08" PRIx32 "%08" PRIx32 "\"", set->word[3],
            set->word[2], set->word[1], set->word[0]);
    put_open(json, "bits", '[');
    for (unsigned bit = 0; bit < 128; bit++) {
        if (!virtio_features_has(set, bit))
            continue;
        put_key(json, NULL);
        fprintf(json->out, "{\"bit\": %u, \"name\": ", bit);
        if (virtio_names_feature(type, bit) != NULL)
            put_string(json->out, virtio_names_feature(type, bit));
        else
            fprintf(json->out, "null");
        fputc('}', json->out);
    }
    put_close(json, ']');
    put_close(json, '}');
}

static void put_queues(struct json *json, const struct lspci_registers *registers)
{
    put_open(json, "queues", '[');
    for (unsigned i = 0; i < registers->queue_count; i++) {
        put_open(json, NULL, '{');
        put_number(json, "size", registers->queues[i].size);
        put_number(json, "notify_off", registers->queues[i].notify_off);
        put_close(json, '}');
    }
    put_close(json, ']');
}

static void put_registers(struct json *json, const struct lspci_report *report)
{
    const struct lspci_registers *registers = report->registers;

    put_text(json, "registers_error", registers != NULL ? registers->why_not : NULL);
    if (registers == NULL || registers->why_not[0] != '\0') {
        put_text(json, "registers", NULL);
        return;
    }
    put_open(json, "registers", '{');
    put_set(json, "offered", report->type, &registers->offered);
    put_number(json, "status", registers->status);
    put_queues(json, registers);
    put_close(json, '}');
}

static void put_live(struct json *json, const struct lspci_report *report)
{
    const struct lspci_live *live = &report->function->live;

    put_text(json, "driver", live->driver);
    put_text(json, "virtio_device", live->device);
    put_text(json, "virtio_driver", live->device_driver);
    put_set(json, "negotiated", report->type, live->negotiated_known ? &live->negotiated : NULL);
    if (live->status_known)
        put_number(json, "status", live->status);
    else
        put_text(json, "status", NULL);
}

/* ----- the whole ----- */

static void put_identity(struct json *json, const struct lspci_report *report)
{
    const struct lspci_function *function = report->function;

    put_text(json, "address", function->address);
    put_text(json, "dump", function->source);
    put_number(json, "vendor", lspci_field(function, 0, 2));
    put_number(json, "device", lspci_field(function, 2, 2));
    put_number(json, "revision", lspci_field(function, 8, 1));
    put_number(json, "subsystem_vendor", lspci_field(function, 0x2c, 2));
    put_number(json, "subsystem_device", lspci_field(function, 0x2e, 2));
    put_number(json, "virtio_id", report->virtio_id);
    put_text(json, "type", report->type != NULL ? report->type->key : NULL);
}

void lspci_show_json(FILE *out, const struct lspci_report *report)
{
    struct json json = {out, TOP, true};

    put_open(&json, NULL, '{');
    put_identity(&json, report);
    put_bars(&json, report->function);
    put_capabilities(&json, report);
    put_layout(&json, report);
    put_live(&json, report);
    put_set(&json, "given", report->type, report->given_known ? &report->given : NULL);
    put_registers(&json, report);
    put_close(&json, '}');
}

void lspci_show_features_json(FILE *out, const struct virtio_names_type *type,
                              const struct virtio_features *set)
{
    struct json json = {out, TOP, true};

    put_open(&json, NULL, '{');
    put_text(&json, "type", type->key);
    put_set(&json, "given", type, set);
    put_close(&json, '}');
}
