// SPDX-License-Identifier: MIT-0
/* A virtio device on a QEMU of qtest.h; see qtest_virtio.h. */
#define _POSIX_C_SOURCE 200809L
#include "qtest_virtio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "qtest_pci.h"
#include "show.h"

enum {
    WAIT_MS = 10000,
    LOOKS_MAX = 2000 /* register reads of a device in reset: each takes a tenth of a millisecond */
};

static const char *const transport_names[] = {"pci-legacy", "pci-modern", "pci-modern-pio",
                                              "virtio-mmio", "virtio-mmio-v1"};

static bool on_mmio(const struct qtest_virtio *host)
{
    return host->options.transport >= QTEST_VIRTIO_MMIO;
}

struct virtio_dma qtest_virtio_memory(const struct qtest_virtio *host, uint32_t at,
                                      uint32_t length)
{
    struct virtio_dma memory = {(uint8_t *)qtest_ram(&host->qtest) + at,
                                qtest_ram_base(&host->qtest) + at, length};

    return memory;
}

/* ----- discovery ----- */

/* The first virtio function on the bus, if it is of this type; *id gets its vendor and device. */
static int find_function(struct qtest_pci_function *f, uint16_t type, uint32_t *id)
{
    uint32_t subsystem;

    if (qtest_pci_find(f->qtest, 0x1af4, 0x1000, 0x107f, &f->devfn) != 0)
        return VIRTIO_ERR_NO_DEVICE;
    *id = qtest_pci_read32(f->qtest, f->devfn, 0);
    subsystem = qtest_pci_read32(f->qtest, f->devfn, 0x2c);
    return virtio_pci_device_type((uint16_t)*id, (uint16_t)(*id >> 16),
                                  (uint16_t)(subsystem >> 16)) == type
               ? 0
               : VIRTIO_ERR_NO_DEVICE;
}

/* Makes a transitional function look as it does to a driver that knows no 1.x structures. */
static bool drive_legacy(struct virtio_pci_layout *layout)
{
    static const struct virtio_pci_place none = {VIRTIO_PCI_NONE, 0, 0, 0, 0};

    layout->generation = VIRTIO_PCI_LEGACY;
    for (unsigned i = 0; i < 5; i++)
        layout->place[i] = none;
    return layout->legacy;
}

/* The way to a BAR: its addresses, or the PCI_CFG capability. */
static struct virtio_window bar_window(struct qtest_virtio *host, unsigned bar,
                                       const struct virtio_pci_bar *place)
{
    struct virtio_window direct =
        qtest_window(&host->qtest, place->kind == VIRTIO_PCI_BAR_IO, place->base, place->length);

    if (!host->options.pci_cfg || place->length == 0)
        return direct;
    return virtio_pci_cfg_window(&host->access[bar], direct.length);
}

static int find_pci(struct qtest_virtio *host, uint16_t type)
{
    struct qtest_pci_function *f = &host->function;
    struct virtio_window windows[6];
    struct virtio_pci_layout layout;
    struct virtio_pci_bar bars[6];
    uint32_t id;
    int err;

    f->qtest = &host->qtest;
    err = find_function(f, type, &id);
    if (err != 0)
        return err;
    host->config = qtest_pci_config(f);
    if (qtest_pci_enable(&host->qtest, f->devfn, bars) != 0)
        return VIRTIO_ERR_GONE;
    err = virtio_pci_scan(&layout, &host->config, bars, 0);
    if (err == 0 && host->options.msix && layout.msix != 0)
        err = virtio_pci_msix_set_on(&host->config, &layout, true);
    if (err != 0)
        return err;
    if (host->options.transport == QTEST_PCI_LEGACY && !drive_legacy(&layout))
        return VIRTIO_ERR_LAYOUT;
    printf("  found      PCI function %04x:%04x, MSI-X %s\n", id & 0xffff, id >> 16,
           layout.msix_on ? "on" : "off");
    show_layout(&layout);
    host->line = qtest_pci_read(&host->qtest, f->devfn, 0x3c, 1);
    if (host->options.transport == QTEST_PCI_MODERN_PIO &&
        bars[layout.place[VIRTIO_PCI_STRUCT_NOTIFY].bar].kind != VIRTIO_PCI_BAR_IO)
        return VIRTIO_ERR_LAYOUT;
    if (host->options.pci_cfg && layout.pci_cfg == 0)
        return VIRTIO_ERR_LAYOUT;
    for (unsigned i = 0; i < 6; i++) {
        struct virtio_pci_cfg_access access = {&host->config, layout.pci_cfg, (uint8_t)i};

        host->access[i] = access;
        windows[i] = bar_window(host, i, &bars[i]);
    }
    return virtio_drv_pci(&host->drv, &layout, windows);
}

static int find_mmio(struct qtest_virtio *host, uint16_t type)
{
    struct qtest_slots slots = qtest_slots(&host->qtest);

    for (unsigned slot = 0; slot < slots.count; slot++) {
        uint64_t base = slots.base + (uint64_t)slot * QTEST_SLOT_SIZE;
        struct virtio_window w = qtest_window(&host->qtest, false, base, QTEST_SLOT_SIZE);
        int err = virtio_drv_mmio(&host->drv, &w);

        if (err != 0 && err != VIRTIO_ERR_NO_DEVICE)
            return err;
        if (err == 0 && host->drv.device_type == type) {
            host->line = slots.line + slot;
            printf("  found      virtio-mmio slot %u at 0x%llx\n", slot, (unsigned long long)base);
            return 0;
        }
    }
    return VIRTIO_ERR_NO_DEVICE;
}

/* The driver's patience with a device in reset, over the whole run. */
static bool look_again(void *ctx)
{
    struct qtest_virtio *host = ctx;

    return ++host->looks < LOOKS_MAX && qtest_error(&host->qtest) == NULL;
}

int qtest_virtio_find(struct qtest_virtio *host, const struct qtest_virtio_device *device)
{
    host->drv.relax = look_again;
    host->drv.relax_ctx = host;
    return on_mmio(host) ? find_mmio(host, device->type) : find_pci(host, device->type);
}

/* ----- interrupts ----- */

static bool acknowledge(struct qtest_virtio *host)
{
    uint32_t causes = virtio_drv_irq_status(&host->drv);

    virtio_drv_irq_ack(&host->drv, causes);
    host->interrupts += (causes & VIRTIO_IRQ_QUEUE) != 0;
    return (causes & VIRTIO_IRQ_QUEUE) != 0;
}

bool qtest_virtio_interrupted(struct qtest_virtio *host)
{
    for (unsigned i = 0; i < 3; i++) /* QEMU may put an interrupt off by a turn of its main loop */
        (void)virtio_drv_transport(&host->drv)->status_get(&host->drv);
    /* With MSI-X the ISR register means nothing for queues (D-ISR-01). */
    return !host->options.msix && acknowledge(host);
}

bool qtest_virtio_wait(void *ctx)
{
    static const struct timespec pause = {0, 1000000};
    struct qtest_virtio *host = ctx;

    if (host->options.msix) {
        nanosleep(&pause, NULL);
        return qtest_error(&host->qtest) == NULL;
    }
    for (unsigned waited = 0; !qtest_irq_level(&host->qtest, host->line); waited += 100) {
        if (qtest_poll(&host->qtest, 100) < 0 || waited >= WAIT_MS)
            return false;
    }
    (void)acknowledge(host);
    return qtest_error(&host->qtest) == NULL;
}

static bool interrupts_seen(const struct qtest_virtio *host)
{
    if (host->options.msix) {
        printf("  interrupts none: MSI-X on and no vector assigned, used ring polled\n");
        return host->interrupts == 0;
    }
    printf("  interrupts %u, each from the line and the interrupt status\n", host->interrupts);
    if (host->interrupts == 0)
        fprintf(stderr, "%s: the device never interrupted\n", host->program);
    return host->interrupts != 0;
}

/* ----- the run ----- */

/* What the transport makes of the name and the properties of QEMU's device. */
static const char *form(const struct qtest_virtio_options *options, bool modern_only)
{
    static const char *const forms[] = {"-pci,addr=3,disable-modern=on,disable-legacy=off",
                                        "-pci,addr=3,disable-legacy=on",
                                        "-pci,addr=3,disable-legacy=on,modern-pio-notify=on",
                                        "-device", "-device"};
    static const char *const transitional[] = {
        "-pci,addr=3,disable-modern=off,disable-legacy=off",
        "-pci,addr=3,disable-modern=off,disable-legacy=off",
        "-pci,addr=3,disable-modern=off,disable-legacy=off,modern-pio-notify=on"};

    if (modern_only && options->transport == QTEST_PCI_MODERN)
        return "-pci,addr=3";
    if (options->transitional && options->transport <= QTEST_PCI_MODERN_PIO)
        return transitional[options->transport];
    return forms[options->transport];
}

static enum qtest_machine machine(const struct qtest_virtio *host)
{
    if (host->options.machine_given)
        return host->options.machine;
    return on_mmio(host) ? QTEST_MICROVM : QTEST_Q35;
}

int qtest_virtio_start(struct qtest_virtio *host, const struct qtest_virtio_device *device)
{
    const struct qtest_virtio_options *options = &host->options;
    char text[512];
    const char *extra[] = {device->argument[0],
                           device->argument[1],
                           "-device",
                           text,
                           "-global",
                           options->transport == QTEST_VIRTIO_MMIO_V1
                               ? "virtio-mmio.force-legacy=true"
                               : "virtio-mmio.force-legacy=false",
                           NULL};
    struct qtest_options qtest = {.qemu = options->qemu,
                                  .machine = machine(host),
                                  .ram_size = QTEST_VIRTIO_RAM_SIZE,
                                  .extra = options->no_device ? NULL : extra};

    snprintf(text, sizeof(text), "%s%s,%s%s", device->name, form(options, device->modern_only),
             device->backend, options->properties);
    printf("%s on %s, QEMU %s\n", transport_names[options->transport],
           qtest_machine_name(qtest.machine), text);
    return qtest_start(&host->qtest, &qtest) != 0 ? -1 : qtest_irq_intercept(&host->qtest);
}

int qtest_virtio_end(struct qtest_virtio *host, const char *text)
{
    const char *broken = qtest_error(&host->qtest);
    int status = 1;

    if (broken != NULL || text != NULL)
        fprintf(stderr, "%s: %s\n", host->program, broken != NULL ? broken : text);
    else if (interrupts_seen(host))
        status = 0;
    qtest_stop(&host->qtest);
    return status;
}

/* ----- the command line ----- */

const char qtest_virtio_usage[] =
    "  --transport T    pci-legacy, pci-modern (default), pci-modern-pio, virtio-mmio or\n"
    "                   virtio-mmio-v1\n"
    "  --machine M      q35 (default), pc, microvm (default for virtio-mmio) or virt (aarch64)\n"
    "  --transitional   a PCI function that has both interfaces; the transport says which to drive\n"
    "  --msix           switch MSI-X on first (moves the configuration of a legacy device)\n"
    "  --pci-cfg        reach the registers through the PCI_CFG capability, not the BARs\n"
    "  --queue-size N   ask for N entries instead of what the device proposes\n"
    "  --reset-queue N  reset the queue alone on the way, set it up again with N entries\n"
    "  --property P     a property of the QEMU device, e.g. packed=on; may be repeated\n"
    "  --no-device      start QEMU without the device\n"
    "  --qemu PROGRAM   instead of qemu-system-x86_64 or, for virt, qemu-system-aarch64\n"
    "  --help           this text\n";

bool qtest_virtio_number(const struct qtest_virtio *host, const char *text, const char *what,
                         unsigned long low, unsigned long high, unsigned long *number)
{
    char *end;

    *number = strtoul(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == '\0' && *number >= low && *number <= high)
        return true;
    fprintf(stderr, "%s: \"%s\" is no %s\n", host->program, text, what);
    return false;
}

static int take_transport(struct qtest_virtio *host, const char *name)
{
    for (unsigned i = 0; i < QTEST_TRANSPORT_COUNT; i++) {
        if (strcmp(name, transport_names[i]) == 0) {
            host->options.transport = (enum qtest_virtio_transport)i;
            return 2;
        }
    }
    fprintf(stderr, "%s: no transport \"%s\"\n", host->program, name);
    return -1;
}

static int take_machine(struct qtest_virtio *host, const char *name)
{
    for (unsigned i = 0; i < QTEST_MACHINE_COUNT; i++) {
        if (strcmp(name, qtest_machine_name((enum qtest_machine)i)) == 0) {
            host->options.machine = (enum qtest_machine)i;
            host->options.machine_given = true;
            return 2;
        }
    }
    fprintf(stderr, "%s: no machine \"%s\"\n", host->program, name);
    return -1;
}

static int take_size(const struct qtest_virtio *host, const char *text, uint16_t *size)
{
    unsigned long value;

    if (!qtest_virtio_number(host, text, "queue size", 1, VIRTQ_MAX_SIZE, &value))
        return -1;
    *size = (uint16_t)value;
    return 2;
}

static int take_property(struct qtest_virtio *host, const char *property)
{
    char *properties = host->options.properties;
    size_t used = strlen(properties), room = sizeof(host->options.properties) - used;

    if (strlen(property) + 2 > room) {
        fprintf(stderr, "%s: too many properties\n", host->program);
        return -1;
    }
    snprintf(properties + used, room, ",%s", property);
    return 2;
}

int qtest_virtio_option(struct qtest_virtio *host, char **argv)
{
    struct qtest_virtio_options *options = &host->options;
    const char *name = argv[0], *value = argv[1];

    if (strcmp(name, "--msix") == 0) {
        options->msix = true;
        return 1;
    }
    if (strcmp(name, "--pci-cfg") == 0) {
        options->pci_cfg = true;
        return 1;
    }
    if (strcmp(name, "--transitional") == 0) {
        options->transitional = true;
        return 1;
    }
    if (strcmp(name, "--no-device") == 0) {
        options->no_device = true;
        return 1;
    }
    if (value == NULL)
        return 0;
    if (strcmp(name, "--transport") == 0)
        return take_transport(host, value);
    if (strcmp(name, "--machine") == 0)
        return take_machine(host, value);
    if (strcmp(name, "--queue-size") == 0)
        return take_size(host, value, &options->queue_size);
    if (strcmp(name, "--reset-queue") == 0)
        return take_size(host, value, &options->reset_size);
    if (strcmp(name, "--property") == 0)
        return take_property(host, value);
    if (strcmp(name, "--qemu") != 0)
        return 0;
    options->qemu = value;
    return 2;
}
