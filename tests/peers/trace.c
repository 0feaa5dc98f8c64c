// SPDX-License-Identifier: MIT-0
/*
 * Register traces: scripts of register accesses on a device of QEMU and on the register model of
 * virtio.h at the same time; see trace.h. Prints one line for each answer that differs:
 *
 *     run <tab> section: step <tab> QEMU's answer <tab> ours
 *
 * tests/trace.py compares these lines with those that docs/register-traces.md explains.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace_peers.h"

enum { LABEL_MAX = 160 };

/* ----- steps ----- */

void trace_section(struct trace *t, const char *name)
{
    t->section = name;
}

void trace_write(struct trace *t, enum trace_space space, uint32_t offset, unsigned width,
                 uint32_t value)
{
    for (unsigned i = 0; i < 2; i++)
        t->peer[i].write(t->peer[i].ctx, space, offset, width, value);
}

/* Notes an answer of both under a label; `digits` of it mean something. */
static void compare(struct trace *t, uint32_t theirs, uint32_t ours, unsigned digits,
                    const char *format, va_list arguments)
{
    char label[LABEL_MAX];

    (void)vsnprintf(label, sizeof(label), format, arguments);
    if (t->steps < TRACE_STEPS_MAX) {
        t->labels[t->steps] = malloc(strlen(t->section) + strlen(label) + 3);
        if (t->labels[t->steps] != NULL)
            (void)sprintf(t->labels[t->steps], "%s: %s", t->section, label);
    }
    t->steps++;
    if (theirs == ours && !t->verbose)
        return;
    t->differences += theirs != ours;
    printf("%s\t%s: %s\t0x%0*x\t0x%0*x\n", t->run, t->section, label, (int)digits, theirs,
           (int)digits, ours);
}

static uint32_t masked(uint32_t value, unsigned width)
{
    return width == 4 ? value : value & ((1u << 8 * width) - 1);
}

uint32_t trace_read(struct trace *t, enum trace_space space, uint32_t offset, unsigned width,
                    const char *format, ...)
{
    uint32_t value[2];
    va_list arguments;

    for (unsigned i = 0; i < 2; i++)
        value[i] = masked(t->peer[i].read(t->peer[i].ctx, space, offset, width), width);
    va_start(arguments, format);
    compare(t, value[0], value[1], 2 * width, format, arguments);
    va_end(arguments);
    return value[0];
}

void trace_line(struct trace *t, const char *format, ...)
{
    bool theirs = t->peer[0].line(t->peer[0].ctx), ours = t->peer[1].line(t->peer[1].ctx);
    va_list arguments;

    va_start(arguments, format);
    compare(t, theirs, ours, 1, format, arguments);
    va_end(arguments);
}

/* ----- the ring of queue 0, as bytes: little-endian in both memories ----- */

static void put(uint8_t *at, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static void descriptor(uint8_t *ram, unsigned index, uint64_t addr, uint32_t len, uint16_t flags,
                       uint16_t next)
{
    uint8_t *at = ram + TRACE_DESC + 16 * index;

    put(at, addr, 8);
    put(at + 8, len, 4);
    put(at + 12, flags, 2);
    put(at + 14, next, 2);
}

/* A block device's GET_ID: header, 20 bytes of id, status. */
void trace_request(struct trace *t)
{
    uint16_t slot = t->ring.published++ % TRACE_ENTRIES;

    for (unsigned i = 0; i < 2; i++) {
        uint8_t *ram = t->peer[i].ram;

        put(ram + TRACE_BUFFER, 8, 8);
        put(ram + TRACE_BUFFER + 8, 0, 8);
        descriptor(ram, 0, TRACE_BUFFER, 16, 1, 1);
        descriptor(ram, 1, TRACE_BUFFER + 16, 20, 3, 2);
        descriptor(ram, 2, TRACE_BUFFER + 36, 1, 2, 0);
        put(ram + TRACE_DRIVER_AREA + 4 + 2 * slot, 0, 2);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        put(ram + TRACE_DRIVER_AREA + 2, t->ring.published, 2);
    }
    t->ring.used = t->ring.published;
}

void trace_break_ring(struct trace *t)
{
    uint16_t slot = t->ring.published++ % TRACE_ENTRIES;

    for (unsigned i = 0; i < 2; i++) {
        uint8_t *available = t->peer[i].ram + TRACE_DRIVER_AREA;

        put(available + 4 + 2 * slot, TRACE_ENTRIES, 2);
        put(available + 2, t->ring.published, 2);
    }
}

void trace_clear_ring(struct trace *t)
{
    for (unsigned i = 0; i < 2; i++)
        memset(t->peer[i].ram + TRACE_DESC, 0, 0x4000);
    t->ring.published = 0;
    t->ring.used = 0;
}

void trace_settle(struct trace *t)
{
    for (unsigned i = 0; i < 2; i++)
        t->peer[i].settle(t->peer[i].ctx, t->peer[i].ram + TRACE_DEVICE_AREA + 2, t->ring.used);
}

/* ----- runs ----- */

static void run_script(struct trace *t, enum trace_device device)
{
    bool modern = device == TRACE_PCI_MODERN || device == TRACE_PCI_TRANSITIONAL;

    if (device == TRACE_MMIO_V1 || device == TRACE_MMIO_V2) {
        script_mmio(t, device == TRACE_MMIO_V1);
        return;
    }
    if (modern)
        script_pci_modern(t);
    if (device != TRACE_PCI_MODERN)
        script_pci_legacy(t);
    script_pci_config(t, modern);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A step is known by its label: no two may have the same. */
static int check_labels(struct trace *t)
{
    int status = 0;

    if (t->steps > TRACE_STEPS_MAX) {
        fprintf(stderr, "trace: more than %d steps\n", TRACE_STEPS_MAX);
        return 1;
    }
    qsort(t->labels, t->steps, sizeof(t->labels[0]), by_text);
    for (unsigned i = 1; i < t->steps; i++) {
        if (strcmp(t->labels[i - 1], t->labels[i]) == 0) {
            fprintf(stderr, "trace: %s: two steps \"%s\"\n", t->run, t->labels[i]);
            status = 1;
        }
    }
    for (unsigned i = 0; i < t->steps; i++)
        free(t->labels[i]);
    return status;
}

static int run(enum trace_device device, bool verbose)
{
    static struct trace trace;
    int status;

    memset(&trace, 0, sizeof(trace));
    trace.run = trace_device_names[device];
    trace.verbose = verbose;
    if (trace_qemu_open(&trace.peer[0], device) != 0)
        return 1;
    status = trace_model_open(&trace.peer[1], device, &trace.peer[0]);
    if (status == 0)
        run_script(&trace, device);
    if (trace_qemu_close(&trace.peer[0]) != 0 || status != 0)
        return 1;
    fprintf(stderr, "trace: %s: %u steps, %u differences\n", trace.run, trace.steps,
            trace.differences);
    return check_labels(&trace);
}

int main(int argc, char **argv)
{
    bool verbose = argc > 1 && strcmp(argv[1], "--all") == 0;
    const char *only = argc > 1 + verbose ? argv[1 + verbose] : NULL;
    int status = 0;

    if (argc > 2 + verbose || (only != NULL && only[0] == '-')) {
        fprintf(stderr, "usage: trace [--all] [RUN]\nRuns:");
        for (unsigned i = 0; i < TRACE_DEVICES; i++)
            fprintf(stderr, " %s", trace_device_names[i]);
        fprintf(stderr, "\n");
        return 2;
    }
    for (unsigned i = 0; i < TRACE_DEVICES; i++) {
        if (only == NULL || strcmp(only, trace_device_names[i]) == 0)
            status |= run((enum trace_device)i, verbose);
    }
    return status;
}
