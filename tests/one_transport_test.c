// SPDX-License-Identifier: MIT-0
/* A program with one kind of window and one transport compiled in (tests/support/one_transport.h): its
 * device works, whatever the window says, and those of other kinds are refused untouched. */
#include <criterion/criterion.h>
#include <string.h>

#include "examples/device/blk.h"
#include "examples/device/function.h"
#include "examples/driver/blk.h"

enum { GUEST = 0x40000000, GUEST_SIZE = 1 << 20, DATA = 512 << 10, SIZE = 16 };

static struct function function;
static struct blkdev disk;
static struct virtio_drv drv;
static struct blk blk;
static bool line;
static unsigned accesses;
static uint8_t medium[4096];
static _Alignas(4096) uint8_t guest[GUEST_SIZE];

static void *map(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    if (addr < GUEST || addr - GUEST > GUEST_SIZE || len > GUEST_SIZE - (addr - GUEST))
        return NULL;
    return guest + (addr - GUEST);
}

static void kicked(void *ctx, uint16_t index)
{
    bool irq;

    (void)ctx;
    cr_assert_eq(blkdev_serve(&disk, virtio_dev_ring(&function.dev, index), &irq), 0);
    if (irq)
        virtio_dev_interrupt(&function.dev, index);
}

static void line_changed(void *ctx, bool level)
{
    (void)ctx;
    line = level;
}

static bool wait_for_line(void *ctx)
{
    uint32_t causes;

    (void)ctx;
    if (!line)
        return false;
    causes = virtio_drv_irq_status(&drv);
    virtio_drv_irq_ack(&drv, causes);
    return (causes & VIRTIO_IRQ_QUEUE) != 0;
}

static struct virtio_window inner;

static uint32_t counted_read(void *ctx, uintptr_t offset, unsigned width)
{
    (void)ctx;
    accesses++;
    return inner.ops->read(inner.ctx, offset, width);
}

static void counted_write(void *ctx, uintptr_t offset, unsigned width, uint32_t value)
{
    (void)ctx;
    accesses++;
    inner.ops->write(inner.ctx, offset, width, value);
}

static struct virtio_window power_on(enum function_view view, unsigned bar)
{
    static const struct virtio_dev_ops ops = {.map = map, .kick = kicked, .line = line_changed};
    static const struct virtio_window_ops counted = {counted_read, counted_write};
    struct virtio_window w;

    memset(&function, 0, sizeof(function));
    memset(&drv, 0, sizeof(drv));
    for (unsigned i = 0; i < sizeof(medium); i++)
        medium[i] = (uint8_t)(i * 31 + i / 512);
    disk.data = medium;
    disk.size = sizeof(medium);
    disk.map = map;
    function.view = view;
    function.queue[0].max = SIZE;
    function.dev.ops = &ops;
    function.dev.device_type = BLK_DEVICE_TYPE;
    function.dev.queue_count = 1;
    function.dev.big_endian = VIRTIO_BIG_ENDIAN;
    function.dev.config_length = BLKDEV_CONFIG_SIZE;
    virtio_features_add(&function.dev.offered, VIRTIO_FEATURE_EVENT_IDX);
    virtio_features_add(&function.dev.offered, VIRTIO_FEATURE_RING_PACKED);
    blkdev_config(&disk, function.config);
    cr_assert_eq(function_init(&function), 0);
    inner = function_window(&function, bar);
    w = inner;
    w.ops = &counted;
    accesses = 0;
    return w;
}

Test(one_transport, its_device_works)
{
    struct virtio_window w = power_on(FUNCTION_MMIO, 0);
    struct blk_setup setup = {.memory = {guest, GUEST, DATA}, .wait = wait_for_line};
    struct virtq_seg seg = {GUEST + DATA, 1024};

    cr_assert_eq(virtio_drv_mmio(&drv, &w), 0);
    cr_expect(drv.transport == NULL);
    cr_expect_str_eq(virtio_drv_transport(&drv)->name, "virtio-mmio");
    cr_assert_eq(blk_start(&blk, &drv, &setup), 0);
    cr_expect(virtio_features_has(&drv.accepted, VIRTIO_FEATURE_RING_PACKED));
    cr_assert_eq(blk_read(&blk, 1, seg), 0);
    cr_expect_arr_eq(guest + DATA, medium + 512, 1024);
}

Test(one_transport, windows_of_other_kinds_are_refused)
{
    struct virtio_window w = power_on(FUNCTION_MMIO, 0);

    for (unsigned kind = VIRTIO_WINDOW_NONE; kind <= VIRTIO_WINDOW_MMIO; kind++) {
        w.kind = (uint8_t)kind;
        cr_expect_eq(virtio_drv_mmio(&drv, &w), VIRTIO_ERR_WINDOW);
    }
    cr_expect_eq(accesses, 0);
}

Test(one_transport, version_1_is_refused)
{
    struct virtio_window w = power_on(FUNCTION_MMIO_V1, 0); /* D-MMIO-01 */

    cr_expect_eq(virtio_drv_mmio(&drv, &w), VIRTIO_ERR_VERSION);
    cr_expect_eq(accesses, 2, "magic and version");
}

Test(one_transport, pci_is_refused)
{
    static const enum function_view views[] = {FUNCTION_PCI_MODERN, FUNCTION_PCI_LEGACY,
                                               FUNCTION_PCI_RFC2011};

    for (unsigned i = 0; i < 3; i++) {
        struct virtio_window windows[6];
        struct virtio_pci_config config = {function_pci_read32, NULL, &function};
        struct virtio_pci_layout layout;
        struct virtio_pci_bar bars[6];

        for (unsigned bar = 0; bar < 6; bar++)
            windows[bar] = power_on(views[i], bar);
        function_pci_bars(&function, bars);
        cr_assert_eq(virtio_pci_scan(&layout, &config, bars, 0), 0);
        cr_expect_eq(virtio_drv_pci(&drv, &layout, windows), VIRTIO_ERR_LAYOUT);
        cr_expect_eq(accesses, 0);
    }
}
