// SPDX-License-Identifier: MIT-0
/*
 * Both ends of a virtio block device in one process.
 *
 * The device side serves a disk image; the driver side finds it over an emulated transport, reads
 * all of it, writes, reads back and compares. Nothing but libc is needed.
 *
 *     make demo                         a 16 MiB image made on the spot, over all three transports
 *     make demo DISK=file               the user's image; writes stay in memory, never in the file
 *     make demo TRANSPORT=virtio-mmio   one transport only
 */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../device/blk.h"
#include "../device/function.h"
#include "job.h"
#include "show.h"

enum {
    GUEST_BASE = 0x40000000, /* where guest memory seems to lie: no host address works by accident */
    GUEST_SIZE = 4 << 20,
    DATA_AT = 2 << 20, /* in guest memory: the driver's data buffers */
    QUEUE_SIZE = 128,
    MADE_SIZE = 16 << 20
};

/* One machine: guest memory, the device in it, the disk behind that, and the driver. */
struct machine {
    uint8_t *memory;
    struct function function;
    struct blkdev disk;
    struct virtio_drv drv;
    struct blk blk;
    bool irq_line;
    unsigned kicks;
    unsigned irqs;
};

static void *guest_map(void *ctx, uint64_t addr, uint32_t len)
{
    struct machine *machine = ctx;

    if (addr < GUEST_BASE || addr - GUEST_BASE > GUEST_SIZE ||
        len > GUEST_SIZE - (addr - GUEST_BASE))
        return NULL;
    return machine->memory + (addr - GUEST_BASE);
}

/* The device's half of the work happens inside the driver's kick. */
static void device_kicked(void *ctx, uint16_t queue)
{
    struct machine *machine = ctx;
    struct virtio_dev *dev = &machine->function.dev;
    bool irq;
    int rc;

    machine->kicks++;
    do {
        rc = blkdev_serve(&machine->disk, virtio_dev_ring(dev, queue), &irq);
        if (rc < 0)
            virtio_dev_needs_reset(dev);
        else if (irq)
            virtio_dev_interrupt(dev, queue);
    } while (rc > 0);
}

static void device_line(void *ctx, bool level)
{
    struct machine *machine = ctx;

    machine->irqs += level && !machine->irq_line;
    machine->irq_line = level;
}

/* The driver waits: in one process either the interrupt is there already or it never comes. */
static bool driver_wait(void *ctx)
{
    struct machine *machine = ctx;
    uint32_t causes;

    if (!machine->irq_line)
        return false;
    causes = virtio_drv_irq_status(&machine->drv);
    virtio_drv_irq_ack(&machine->drv, causes);
    return (causes & VIRTIO_IRQ_QUEUE) != 0;
}

static const char *view_name(enum function_view view)
{
    static const char *const names[] = {"pci-modern", "pci-legacy", "virtio-mmio", "pci-rfc2011",
                                        "virtio-mmio-v1"};

    return names[view];
}

/* ----- discovery, as a kernel would do it ----- */

static int find_pci(struct machine *machine)
{
    struct virtio_pci_config config = {function_pci_read32, NULL, &machine->function};
    struct virtio_window windows[6];
    struct virtio_pci_layout layout;
    struct virtio_pci_bar bars[6];
    uint32_t id = function_pci_read32(&machine->function, 0);
    int err;

    function_pci_bars(&machine->function, bars);
    err = virtio_pci_scan(&layout, &config, bars, 0);
    if (err != 0)
        return err;
    printf("  found      PCI function %04x:%04x\n", id & 0xffff, id >> 16);
    for (unsigned i = 0; i < 6; i++)
        windows[i] = function_window(&machine->function, i);
    show_layout(&layout);
    return virtio_drv_pci(&machine->drv, &layout, windows);
}

static int find_mmio(struct machine *machine)
{
    struct virtio_window window = function_window(&machine->function, 0);
    int err = virtio_drv_mmio(&machine->drv, &window);

    if (err == 0)
        printf("  found      virtio-mmio slot, version %u, device type %u\n",
               machine->function.view == FUNCTION_MMIO ? 2 : 1,
               machine->drv.device_type);
    return err;
}

static int start(struct machine *machine)
{
    struct blk_setup setup = {.wait = driver_wait, .wait_ctx = machine};
    int err = function_is_mmio(machine->function.view) ? find_mmio(machine) : find_pci(machine);

    if (err != 0)
        return err;
    setup.memory.cpu = machine->memory;
    setup.memory.device = GUEST_BASE;
    setup.memory.length = DATA_AT;
    err = blk_start(&machine->blk, &machine->drv, &setup);
    return err != 0 ? err : job_print_device(&machine->blk);
}

static int exercise(struct machine *machine)
{
    struct job job = {&machine->blk, machine->memory + DATA_AT, GUEST_BASE + DATA_AT,
                      machine->disk.data};
    int err = job_read_all(&job);

    if (err == 0)
        err = job_write(&job);
    if (err != 0)
        return err;
    printf("  requests   %llu served, %u kicks, %u interrupts\n",
           (unsigned long long)machine->disk.served, machine->kicks, machine->irqs);
    return blk_stop(&machine->blk);
}

static int run(enum function_view view, uint8_t *image, uint64_t size)
{
    static struct machine machine; /* the driver's slots are too large for a small stack */
    static const struct virtio_dev_ops ops = {
        .map = guest_map, .kick = device_kicked, .line = device_line};
    struct function *function = &machine.function;
    struct virtio_dev *dev = &function->dev;
    int err;

    memset(&machine, 0, sizeof(machine));
    machine.memory = aligned_alloc(4096, GUEST_SIZE);
    if (machine.memory == NULL) {
        fprintf(stderr, "demo: out of memory\n");
        return 1;
    }
    machine.disk.data = image;
    machine.disk.size = size;
    memcpy(machine.disk.id, "demo-disk", 10);
    machine.disk.map = guest_map;
    machine.disk.map_ctx = &machine;
    machine.disk.big_endian = VIRTIO_BIG_ENDIAN && function_is_legacy(view);
    function->view = view;
    function->queue[0].max = QUEUE_SIZE;
    dev->ops = &ops;
    dev->ctx = &machine;
    dev->device_type = BLK_DEVICE_TYPE;
    dev->queue_count = 1;
    dev->big_endian = VIRTIO_BIG_ENDIAN;
    dev->config_length = BLKDEV_CONFIG_SIZE;
    virtio_features_add(&dev->offered, BLKDEV_FEATURE_FLUSH);
    virtio_features_add(&dev->offered, VIRTIO_FEATURE_INDIRECT_DESC);
    virtio_features_add(&dev->offered, VIRTIO_FEATURE_EVENT_IDX);
    blkdev_config(&machine.disk, function->config);
    printf("%s\n", view_name(view));
    err = function_init(function);
    if (err == 0)
        err = start(&machine);
    if (err == 0)
        err = exercise(&machine);
    free(machine.memory);
    if (err != 0)
        fprintf(stderr, "demo: %s: %s\n", view_name(view), job_err_name(err));
    return err != 0;
}

/* ----- the image ----- */

static uint8_t *make_image(uint64_t *size)
{
    uint8_t *image = malloc(MADE_SIZE);
    uint32_t state = 1;

    *size = MADE_SIZE;
    for (size_t i = 0; image != NULL && i < MADE_SIZE; i++) {
        state = state * 1664525u + 1013904223u;
        image[i] = (uint8_t)(state >> 24);
    }
    if (image == NULL)
        fprintf(stderr, "demo: out of memory\n");
    return image;
}

/* Maps a private copy of the user's image: what the demo writes never reaches the file. */
static uint8_t *open_image(const char *path, uint64_t *size)
{
    struct stat st;
    void *image;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0) {
        perror(path);
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < BLK_SECTOR_SIZE) {
        fprintf(stderr, "%s: not a file of at least one sector (512 bytes)\n", path);
        close(fd);
        return NULL;
    }
    *size = (uint64_t)st.st_size / BLK_SECTOR_SIZE * BLK_SECTOR_SIZE;
    image = mmap(NULL, (size_t)*size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    if (image == MAP_FAILED) {
        perror(path);
        return NULL;
    }
    return image;
}

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: demo [--transport pci-modern|pci-legacy|pci-rfc2011|virtio-mmio|virtio-mmio-v1] "
                 "[IMAGE]\n"
                 "Runs a virtio block device and its driver in one process. Without an IMAGE it\n"
                 "makes one of 16 MiB; with one, writes go to a private copy, never to the file.\n");
    return status;
}

int main(int argc, char **argv)
{
    const char *transport = NULL, *path = NULL;
    bool found = false;
    uint64_t size = 0;
    uint8_t *image;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            return usage(stdout, 0);
        else if (strcmp(argv[i], "--transport") == 0 && i + 1 < argc)
            transport = argv[++i];
        else if (argv[i][0] == '-' || path != NULL)
            return usage(stderr, 2);
        else
            path = argv[i];
    }
    image = path != NULL ? open_image(path, &size) : make_image(&size);
    if (image == NULL)
        return 1;
    printf("image        %s, %llu bytes\n", path != NULL ? path : "made for this run",
           (unsigned long long)size);
    for (int view = FUNCTION_PCI_MODERN; view <= FUNCTION_MMIO_V1; view++) {
        if (transport != NULL && strcmp(transport, view_name((enum function_view)view)) != 0)
            continue;
        found = true;
        if (run((enum function_view)view, image, size) != 0)
            return 1;
    }
    if (!found)
        return usage(stderr, 2);
    printf("all data verified\n");
    return 0;
}
