// SPDX-License-Identifier: MIT-0
/*
 * Offered features and queues out of the registers of a live function.
 *
 * To read them selectors are written, which would pull them away under a driver, so a function with
 * one is left alone. The ISR register is never read: that acknowledges an interrupt. Linux lets the
 * owner of the files resourceN map a memory BAR, and read and write the ports of an I/O BAR.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* mmap, pread */
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lspci.h"

/* An open resourceN. */
struct resource {
    int file;
    void *pages; /* NULL if it is not mapped */
    size_t size; /* of the pages */
};

__attribute__((format(printf, 2, 3))) static int refuse(struct lspci_registers *registers,
                                                       const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(registers->why_not, sizeof(registers->why_not), format, arguments);
    va_end(arguments);
    return LSPCI_UNUSABLE;
}

/* ----- access ----- */

/* Ports: in the CPU's byte order. A failure reads as all ones, as an absent device does. */
static uint32_t port_read(void *ctx, uintptr_t address, unsigned width)
{
    const struct resource *resource = (const struct resource *)ctx;
    uint32_t four;
    uint16_t two;
    uint8_t one;

    switch (width) {
    case 1: return pread(resource->file, &one, 1, (off_t)address) == 1 ? one : 0xff;
    case 2: return pread(resource->file, &two, 2, (off_t)address) == 2 ? two : 0xffff;
    default: return pread(resource->file, &four, 4, (off_t)address) == 4 ? four : UINT32_MAX;
    }
}

static void port_write(void *ctx, uintptr_t address, unsigned width, uint32_t value)
{
    const struct resource *resource = (const struct resource *)ctx;
    uint16_t two = (uint16_t)value;
    uint8_t one = (uint8_t)value;
    const void *bytes = width == 1 ? (const void *)&one : width == 2 ? (const void *)&two : &value;

    /* Selectors only, each read back through the register it selects: no answer is needed. */
    if (pwrite(resource->file, bytes, width, (off_t)address) != (ssize_t)width)
        return;
}

/* A window of `length` bytes on a structure: mapped, or through the file. */
static int open_window(struct lspci_registers *registers, struct resource *resource,
                       struct virtio_window *window, const struct virtio_pci_place *at, bool io,
                       uint32_t length)
{
    static const struct virtio_window_ops port_ops = {port_read, port_write};
    size_t page = (size_t)sysconf(_SC_PAGESIZE), into = at->offset % page;

    window->length = length;
    window->ops = &port_ops;
    window->ctx = resource;
    window->base = at->offset;
    window->kind = VIRTIO_WINDOW_CALLER;
    if (io)
        return LSPCI_OK;
    resource->size = into + length;
    resource->pages = mmap(NULL, resource->size, PROT_READ | PROT_WRITE, MAP_SHARED, resource->file,
                           (off_t)(at->offset - into));
    if (resource->pages == MAP_FAILED) {
        resource->pages = NULL;
        return refuse(registers, "cannot map resource%u: %s", at->bar, strerror(errno));
    }
    window->base = (uintptr_t)resource->pages + into;
    window->kind = VIRTIO_WINDOW_MMIO;
    return LSPCI_OK;
}

static int open_resource(struct lspci_registers *registers, struct resource *resource,
                         const char *directory, const struct virtio_pci_place *at, uint32_t length)
{
    char path[LSPCI_PATH_MAX + 16];
    struct stat stat;

    snprintf(path, sizeof(path), "%s/resource%u", directory, at->bar);
    resource->file = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
    if (resource->file < 0 || fstat(resource->file, &stat) != 0)
        return refuse(registers, "cannot open resource%u: %s", at->bar, strerror(errno));
    if (stat.st_size < 0 || (uint64_t)stat.st_size < (uint64_t)at->offset + length)
        return refuse(registers, "resource%u is too short", at->bar);
    return LSPCI_OK;
}

static void close_resource(struct resource *resource)
{
    if (resource->pages != NULL)
        (void)munmap(resource->pages, resource->size);
    if (resource->file >= 0)
        (void)close(resource->file);
}

/* ----- what they tell ----- */

static void read_modern(struct lspci_registers *registers, const struct virtio_window *common)
{
    for (unsigned i = 0; i < 4; i++) {
        virtio_window_write32(common, VIRTIO_COMMON_DEVICE_FEATURE_SELECT, i);
        registers->offered.word[i] = virtio_window_read32(common, VIRTIO_COMMON_DEVICE_FEATURE);
    }
    registers->status = virtio_window_read8(common, VIRTIO_COMMON_DEVICE_STATUS);
    registers->queue_count = virtio_window_read16(common, VIRTIO_COMMON_NUM_QUEUES);
    for (unsigned i = 0; i < registers->queue_count; i++) {
        struct lspci_queue *queue = &registers->queues[i];

        virtio_window_write16(common, VIRTIO_COMMON_QUEUE_SELECT, (uint16_t)i);
        queue->size = virtio_window_read16(common, VIRTIO_COMMON_QUEUE_SIZE);
        queue->notify_off = virtio_window_read16(common, VIRTIO_COMMON_QUEUE_NOTIFY_OFF);
    }
}

/* The legacy header, and the RFC's, which is the same with more feature bits behind it. They do not
 * say how many queues there are; the first without a size ends them. */
static void read_header(struct lspci_registers *registers, const struct virtio_window *header)
{
    registers->offered.word[0] = virtio_window_read32(header, VIRTIO_LEGACY_DEVICE_FEATURES);
    if (header->length >= VIRTIO_RFC_LENGTH)
        registers->offered.word[1] = virtio_window_read32(header, VIRTIO_RFC_DEVICE_FEATURES_HIGH);
    registers->status = virtio_window_read8(header, VIRTIO_LEGACY_DEVICE_STATUS);
    for (unsigned i = 0; i < LSPCI_QUEUE_MAX; i++) {
        virtio_window_write16(header, VIRTIO_LEGACY_QUEUE_SELECT, (uint16_t)i);
        registers->queues[i].size = virtio_window_read16(header, VIRTIO_LEGACY_QUEUE_SIZE);
        if (registers->queues[i].size == 0)
            return;
        registers->queue_count = i + 1;
    }
}

/* ----- the work ----- */

/* Why the registers may not be touched: the answer of refuse(), or LSPCI_OK. */
static int allowed(struct lspci_registers *registers, const struct lspci_report *report,
                   const struct virtio_pci_place *at, bool io)
{
    const struct lspci_function *function = report->function;
    const char *driver = function->live.driver;
    uint32_t command = lspci_field(function, 4, 2);

    if (function->source != NULL)
        return refuse(registers, "a dump has none");
    if (driver[0] != '\0')
        return refuse(registers, "driver %s is bound, and reading them would disturb it", driver);
    if (report->layout_error != 0 || report->cut || at->found == VIRTIO_PCI_NONE)
        return refuse(registers, "the layout is not usable");
    if ((command & (io ? VIRTIO_PCI_COMMAND_IO : VIRTIO_PCI_COMMAND_MEMORY)) == 0)
        return refuse(registers, "the function does not decode %s (its file `enable` is 0)",
                      io ? "I/O ports" : "memory");
    return LSPCI_OK;
}

/* How much of the structure is looked at: of a header without the RFC's high feature words the part
 * before the vectors. */
static uint32_t used_length(const struct virtio_pci_place *at)
{
    if (at->found == VIRTIO_PCI_MODERN)
        return VIRTIO_COMMON_LENGTH;
    return at->length >= VIRTIO_RFC_LENGTH ? VIRTIO_RFC_LENGTH : VIRTIO_LEGACY_CONFIG;
}

static int read_all(struct lspci_registers *registers, const struct virtio_window *window)
{
    if (registers->found == VIRTIO_PCI_MODERN)
        read_modern(registers, window);
    else
        read_header(registers, window);
    if (registers->status == VIRTIO_STATUS_GONE)
        return refuse(registers, "they read as all ones: no power, or unplugged");
    return LSPCI_OK;
}

int lspci_registers_read(struct lspci_registers *registers, const struct lspci_report *report)
{
    struct virtio_pci_place at = {VIRTIO_PCI_NONE, 0, 0, 0, 0};
    struct resource resource = {-1, NULL, 0};
    struct virtio_window window;
    bool io;
    int status;

    registers->why_not[0] = '\0';
    registers->queue_count = 0;
    memset(&registers->offered, 0, sizeof(registers->offered));
    if (report->layout_error == 0)
        at = virtio_pci_locate(&report->layout, VIRTIO_PCI_STRUCT_COMMON, report->layout.msix_on);
    registers->found = at.found;
    io = report->function->bars[at.bar].pci.kind == VIRTIO_PCI_BAR_IO;
    status = allowed(registers, report, &at, io);
    if (status != LSPCI_OK)
        return status;
    status = open_resource(registers, &resource, report->function->live.directory, &at,
                           used_length(&at));
    if (status == LSPCI_OK)
        status = open_window(registers, &resource, &window, &at, io, used_length(&at));
    if (status == LSPCI_OK)
        status = read_all(registers, &window);
    close_resource(&resource);
    return status;
}
