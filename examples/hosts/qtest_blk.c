// SPDX-License-Identifier: MIT-0
/*
 * Drives QEMU's own virtio-blk from an ordinary process.
 *
 * QEMU runs with its CPU halted; this program reaches its ports, registers and memory through the
 * qtest socket, finds the disk, and works on it with the front-end of examples/driver. The image is
 * read whole and compared with the file; with --write a pattern is written and found in the file.
 * See usage() for the options; exit status 0 means that everything was as it must be.
 */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "job.h"
#include "qtest.h"
#include "qtest_pci.h"

enum {
    RAM_SIZE = 16 << 20,
    DRIVER_AT = 1 << 20, /* guest-physical: rings and requests */
    DATA_AT = 4 << 20,   /* guest-physical: data */
    WAIT_MS = 10000
};

enum transport { PCI_LEGACY, PCI_MODERN, PCI_MODERN_PIO, MMIO, TRANSPORT_COUNT };

static const char *const transport_names[] = {"pci-legacy", "pci-modern", "pci-modern-pio",
                                              "virtio-mmio"};

struct options {
    enum transport transport;
    bool msix;
    bool write;
    bool no_disk;
    uint16_t queue_size;
    const char *qemu;
    const char *image;
    char device[512]; /* QEMU's -device argument */
};

/* One run. */
struct host {
    struct options options;
    struct qtest qtest;
    struct virtio_drv drv;
    struct blk blk;
    uint8_t *medium;
    uint64_t medium_size;
    unsigned interrupts; /* ISR reads that said "queue" */
};

/* ----- registers: QEMU's ports and memory as windows of caller-supplied kind ----- */

static uint32_t io_read(void *ctx, uint64_t address, unsigned width)
{
    return qtest_in(ctx, (uint16_t)address, width);
}
static void io_write(void *ctx, uint64_t address, unsigned width, uint32_t value)
{
    qtest_out(ctx, (uint16_t)address, width, value);
}
static uint32_t memory_read(void *ctx, uint64_t address, unsigned width)
{
    return qtest_read(ctx, address, width);
}
static void memory_write(void *ctx, uint64_t address, unsigned width, uint32_t value)
{
    qtest_write(ctx, address, width, value);
}

static const struct virtio_window_ops io_ops = {io_read, io_write};
static const struct virtio_window_ops memory_ops = {memory_read, memory_write};

static struct virtio_window window(struct qtest *qtest, bool io, uint64_t base, uint64_t length)
{
    struct virtio_window w = {base, (uint32_t)length, VIRTIO_WINDOW_CALLER,
                              io ? &io_ops : &memory_ops, qtest};

    if (length == 0)
        w.kind = VIRTIO_WINDOW_NONE;
    return w;
}

/* ----- discovery ----- */

struct function {
    struct qtest *qtest;
    unsigned devfn;
};

static uint32_t config_read(void *ctx, uint16_t offset)
{
    const struct function *f = ctx;

    return qtest_pci_read32(f->qtest, f->devfn, offset);
}

static void enable_msix(const struct function *f, const struct virtio_pci_layout *layout)
{
    uint16_t control = (uint16_t)(layout->msix + 2u);
    uint32_t value = qtest_pci_read(f->qtest, f->devfn, control, 2);

    qtest_pci_write(f->qtest, f->devfn, control, 2, value | 0x8000u);
}

static int scan(const struct function *f, const struct qtest_pci_bar bars[6],
                struct virtio_pci_layout *layout)
{
    struct virtio_pci_config config = {config_read, (void *)f};
    struct virtio_pci_bar reach[6];

    for (unsigned i = 0; i < 6; i++) {
        reach[i].base = bars[i].base;
        reach[i].length = bars[i].size;
        reach[i].kind = VIRTIO_PCI_BAR_NONE;
        if (bars[i].size != 0)
            reach[i].kind = bars[i].io ? VIRTIO_PCI_BAR_IO : VIRTIO_PCI_BAR_MEM;
    }
    return virtio_pci_scan(layout, &config, reach, 0);
}

static int find_pci(struct host *host)
{
    struct function f = {&host->qtest, 0};
    struct virtio_window windows[6];
    struct virtio_pci_layout layout;
    struct qtest_pci_bar bars[6];
    uint32_t id, subsystem;
    int err;

    if (qtest_pci_find(&host->qtest, 0x1af4, 0x1000, 0x107f, &f.devfn) != 0)
        return VIRTIO_ERR_NO_DEVICE;
    id = qtest_pci_read32(&host->qtest, f.devfn, 0);
    subsystem = qtest_pci_read32(&host->qtest, f.devfn, 0x2c);
    if (virtio_pci_device_type((uint16_t)id, (uint16_t)(id >> 16), (uint16_t)(subsystem >> 16)) !=
        BLK_DEVICE_TYPE)
        return VIRTIO_ERR_NO_DEVICE;
    if (qtest_pci_enable(&host->qtest, f.devfn, bars) != 0)
        return VIRTIO_ERR_GONE;
    err = scan(&f, bars, &layout);
    if (err == 0 && host->options.msix && layout.msix != 0) {
        enable_msix(&f, &layout);
        err = scan(&f, bars, &layout);
    }
    if (err != 0)
        return err;
    printf("  found      PCI function %04x:%04x, MSI-X %s\n", id & 0xffff, id >> 16,
           layout.msix_on ? "on" : "off");
    job_print_layout(&layout);
    if (host->options.transport == PCI_MODERN_PIO &&
        !bars[layout.place[VIRTIO_PCI_STRUCT_NOTIFY].bar].io)
        return VIRTIO_ERR_LAYOUT;
    for (unsigned i = 0; i < 6; i++)
        windows[i] = window(&host->qtest, bars[i].io, bars[i].base, bars[i].size);
    return virtio_drv_pci(&host->drv, &layout, windows);
}

static int find_mmio(struct host *host)
{
    for (unsigned slot = 0; slot < QTEST_MICROVM_SLOT_COUNT; slot++) {
        uint64_t base = QTEST_MICROVM_SLOTS + (uint64_t)slot * QTEST_MICROVM_SLOT_SIZE;
        struct virtio_window w = window(&host->qtest, false, base, QTEST_MICROVM_SLOT_SIZE);
        int err = virtio_drv_mmio(&host->drv, &w);

        if (err != 0 && err != VIRTIO_ERR_NO_DEVICE)
            return err;
        if (err == 0 && host->drv.device_type == BLK_DEVICE_TYPE) {
            printf("  found      virtio-mmio slot %u at 0x%llx\n", slot, (unsigned long long)base);
            return 0;
        }
    }
    return VIRTIO_ERR_NO_DEVICE;
}

/* ----- interrupts ----- */

static bool any_line(const struct qtest *qtest)
{
    for (unsigned line = 0; line < QTEST_IRQ_LINES; line++) {
        if (qtest_irq_level(qtest, line))
            return true;
    }
    return false;
}

/* The driver's wait: for the interrupt line, then the cause, then the acknowledgement. With MSI-X
 * on there is no line, and the used ring is polled. */
static bool wait_for_device(void *ctx)
{
    static const struct timespec pause = {0, 1000000};
    struct host *host = ctx;
    uint32_t causes;

    if (host->options.msix) {
        nanosleep(&pause, NULL);
        return qtest_error(&host->qtest) == NULL;
    }
    for (unsigned waited = 0; !any_line(&host->qtest); waited += 100) {
        if (qtest_poll(&host->qtest, 100) < 0 || waited >= WAIT_MS)
            return false;
    }
    causes = virtio_drv_irq_status(&host->drv);
    virtio_drv_irq_ack(&host->drv, causes);
    host->interrupts += (causes & VIRTIO_IRQ_QUEUE) != 0;
    return qtest_error(&host->qtest) == NULL;
}

/* ----- the run ----- */

static int work(struct host *host)
{
    uint8_t *ram = qtest_ram(&host->qtest);
    struct blk_setup setup = {.memory = {ram + DRIVER_AT, DRIVER_AT, DATA_AT - DRIVER_AT},
                              .wait = wait_for_device,
                              .wait_ctx = host,
                              .queue_size = host->options.queue_size};
    struct job job = {&host->blk, ram + DATA_AT, DATA_AT, host->medium};
    int err = host->options.transport == MMIO ? find_mmio(host) : find_pci(host);

    if (err == 0)
        err = blk_start(&host->blk, &host->drv, &setup);
    if (err == 0)
        err = job_print_device(&host->blk);
    if (err != 0)
        return err;
    if (host->blk.capacity != host->medium_size / BLK_SECTOR_SIZE)
        return JOB_ERR_DATA;
    err = job_read_all(&job);
    if (err == 0 && host->options.write)
        err = job_write(&job);
    if (err == 0)
        err = blk_stop(&host->blk);
    return err;
}

static bool interrupts_seen(const struct host *host)
{
    if (host->options.msix) {
        printf("  interrupts none: MSI-X on and no vector assigned, used ring polled\n");
        return host->interrupts == 0;
    }
    printf("  interrupts %u, each from the line and the interrupt status\n", host->interrupts);
    if (host->interrupts == 0)
        fprintf(stderr, "qtest-blk: the device never interrupted\n");
    return host->interrupts != 0;
}

static int run(struct host *host)
{
    char blockdev[4096 + 128];
    const char *extra[] = {"-blockdev", blockdev, "-device", host->options.device, "-global",
                           "virtio-mmio.force-legacy=false", NULL};
    struct qtest_options options = {
        .qemu = host->options.qemu,
        .machine = host->options.transport == MMIO ? QTEST_MICROVM : QTEST_Q35,
        .ram_size = RAM_SIZE,
        .extra = host->options.no_disk ? NULL : extra};
    int err;

    snprintf(blockdev, sizeof(blockdev), "driver=file,node-name=disk,read-only=%s,filename=%s",
             host->options.write ? "off" : "on", host->options.image);
    printf("%s, QEMU %s\n", transport_names[host->options.transport], host->options.device);
    if (qtest_start(&host->qtest, &options) != 0 || qtest_irq_intercept(&host->qtest) != 0) {
        fprintf(stderr, "qtest-blk: %s\n", qtest_error(&host->qtest));
        return 1;
    }
    err = work(host);
    if (qtest_error(&host->qtest) != NULL)
        fprintf(stderr, "qtest-blk: %s\n", qtest_error(&host->qtest));
    else if (err != 0)
        fprintf(stderr, "qtest-blk: %s\n", job_err_name(err));
    return err == 0 && interrupts_seen(host) ? 0 : 1;
}

/* The image as anybody else sees it: a shared mapping shows what QEMU writes. */
static int open_image(struct host *host)
{
    const char *path = host->options.image;
    struct stat st;
    int fd = open(path, (host->options.write ? O_RDWR : O_RDONLY) | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0) {
        perror(path);
        return -1;
    }
    host->medium_size = (uint64_t)st.st_size;
    if (st.st_size < BLK_SECTOR_SIZE || st.st_size % BLK_SECTOR_SIZE != 0) {
        fprintf(stderr, "%s: size is not a whole number of sectors (512 bytes)\n", path);
        close(fd);
        return -1;
    }
    host->medium = mmap(NULL, (size_t)host->medium_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (host->medium == MAP_FAILED) {
        perror(path);
        return -1;
    }
    return 0;
}

/* ----- the command line ----- */

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: qtest-blk [OPTION]... IMAGE\n"
            "Drives QEMU's virtio-blk with IMAGE behind it; compares all that is read with the file.\n"
            "  --transport T   pci-legacy, pci-modern (default), pci-modern-pio or virtio-mmio\n"
            "  --write         overwrite the start of IMAGE with a pattern and verify it there\n"
            "  --msix          switch MSI-X on first (moves the configuration of a legacy device)\n"
            "  --queue-size N  ask for N entries instead of what the device proposes\n"
            "  --property P    a property of the QEMU device, e.g. event_idx=off; may be repeated\n"
            "  --no-disk       start QEMU without the device\n"
            "  --qemu PROGRAM  instead of qemu-system-x86_64\n");
    return status;
}

static bool parse_transport(const char *name, enum transport *transport)
{
    for (unsigned i = 0; i < TRANSPORT_COUNT; i++) {
        if (strcmp(name, transport_names[i]) == 0) {
            *transport = (enum transport)i;
            return true;
        }
    }
    fprintf(stderr, "qtest-blk: no transport \"%s\"\n", name);
    return false;
}

static bool parse_queue_size(const char *text, uint16_t *size)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    *size = (uint16_t)value;
    if (*end == '\0' && value != 0 && value <= VIRTQ_MAX_SIZE)
        return true;
    fprintf(stderr, "qtest-blk: \"%s\" is no queue size\n", text);
    return false;
}

static bool add_property(char properties[256], const char *property)
{
    size_t used = strlen(properties);

    if (strlen(property) + 2 > 256 - used) {
        fprintf(stderr, "qtest-blk: too many properties\n");
        return false;
    }
    snprintf(properties + used, 256 - used, ",%s", property);
    return true;
}

/* Options with a value; false if one is unknown or wrong. */
static bool parse_valued(struct options *options, char properties[256], const char *name,
                         const char *value)
{
    if (strcmp(name, "--transport") == 0)
        return parse_transport(value, &options->transport);
    if (strcmp(name, "--queue-size") == 0)
        return parse_queue_size(value, &options->queue_size);
    if (strcmp(name, "--property") == 0)
        return add_property(properties, value);
    if (strcmp(name, "--qemu") == 0) {
        options->qemu = value;
        return true;
    }
    fprintf(stderr, "qtest-blk: no option \"%s\"\n", name);
    return false;
}

static bool parse(struct options *options, int argc, char **argv)
{
    static const char *const devices[] = {
        "virtio-blk-pci,drive=disk,addr=3,disable-modern=on,disable-legacy=off",
        "virtio-blk-pci,drive=disk,addr=3,disable-legacy=on",
        "virtio-blk-pci,drive=disk,addr=3,disable-legacy=on,modern-pio-notify=on",
        "virtio-blk-device,drive=disk"};
    char properties[256] = "";

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--write") == 0)
            options->write = true;
        else if (strcmp(argv[i], "--msix") == 0)
            options->msix = true;
        else if (strcmp(argv[i], "--no-disk") == 0)
            options->no_disk = true;
        else if (argv[i][0] == '-' && i + 1 < argc) {
            if (!parse_valued(options, properties, argv[i], argv[i + 1]))
                return false;
            i++;
        } else if (argv[i][0] == '-' || options->image != NULL)
            return false;
        else
            options->image = argv[i];
    }
    snprintf(options->device, sizeof(options->device), "%s%s", devices[options->transport],
             properties);
    if (options->image != NULL && strchr(options->image, ',') != NULL)
        fprintf(stderr, "qtest-blk: QEMU cannot take a path with a comma\n");
    return options->image != NULL && strchr(options->image, ',') == NULL;
}

int main(int argc, char **argv)
{
    static struct host host = {.options = {.transport = PCI_MODERN}};
    int status;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    if (!parse(&host.options, argc, argv))
        return usage(stderr, 2);
    if (open_image(&host) != 0)
        return 1;
    status = run(&host);
    qtest_stop(&host.qtest);
    return status;
}
