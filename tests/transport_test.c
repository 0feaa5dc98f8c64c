// SPDX-License-Identifier: MIT-0
/* virtio.h over the emulated function of examples/device, with every register access on record and
 * faults put in between; and the block front-end on top. */
#include <criterion/criterion.h>
#include <string.h>

#include "examples/device/blk.h"
#include "examples/device/function.h"
#include "examples/device/msix.h"
#include "examples/driver/blk.h"

enum { GUEST = 0x40000000, GUEST_SIZE = 1 << 20, DATA = 512 << 10, TRACE = 4096, SIZE = 64 };

struct access {
    bool write;
    unsigned width;
    uint32_t offset;
    uint32_t value;
};

/* A machine whose registers are on record. `fault` may replace what a read returns. */
static struct rig {
    struct function function;
    struct blkdev disk;
    struct virtio_pci_layout layout;
    struct virtio_window windows[6];
    struct virtio_drv drv;
    struct blk blk;
    struct access trace[TRACE];
    unsigned traced;
    bool line;
    bool stuck; /* the device takes no notice of kicks */
    bool (*fault)(uint32_t offset, uint32_t *value);
    unsigned faults;
    uint8_t medium[64 << 10];
} rig;

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
    struct virtio_dev *dev = &rig.function.dev;
    bool irq;
    int rc;

    (void)ctx;
    if (rig.stuck)
        return;
    do {
        rc = blkdev_serve(&rig.disk, virtio_dev_ring(dev, index), &irq);
        if (rc < 0)
            virtio_dev_needs_reset(dev);
        else if (irq)
            virtio_dev_interrupt(dev, index);
    } while (rc > 0);
}

static void line_changed(void *ctx, bool level)
{
    (void)ctx;
    rig.line = level;
}

static bool wait_for_line(void *ctx)
{
    uint32_t causes;

    (void)ctx;
    if (!rig.line)
        return false;
    causes = virtio_drv_irq_status(&rig.drv);
    virtio_drv_irq_ack(&rig.drv, causes);
    return (causes & VIRTIO_IRQ_QUEUE) != 0;
}

static struct virtio_window inner[6];

static void record(bool write, uint64_t offset, unsigned width, uint32_t value)
{
    struct access access = {write, width, (uint32_t)offset, value};

    if (rig.traced < TRACE)
        rig.trace[rig.traced++] = access;
}

static uint32_t traced_read(void *ctx, uintptr_t offset, unsigned width)
{
    const struct virtio_window *w = (const struct virtio_window *)ctx;
    uint32_t value = w->ops->read(w->ctx, offset, width);

    if (rig.fault != NULL && rig.fault((uint32_t)offset, &value))
        rig.faults++;
    record(false, offset, width, value);
    return value;
}

static void traced_write(void *ctx, uintptr_t offset, unsigned width, uint32_t value)
{
    const struct virtio_window *w = (const struct virtio_window *)ctx;

    record(true, offset, width, value);
    w->ops->write(w->ctx, offset, width, value);
}

static struct virtio_window traced_window(unsigned bar)
{
    static const struct virtio_window_ops ops = {traced_read, traced_write};
    struct virtio_window w = function_window(&rig.function, bar);

    inner[bar] = w;
    w.ops = &ops;
    w.ctx = &inner[bar];
    return w;
}

static void power_on(enum function_view view)
{
    static const struct virtio_dev_ops ops = {
        map, kicked, line_changed, NULL, NULL, NULL, NULL, NULL, NULL};
    struct function *f = &rig.function;

    memset(&rig, 0, sizeof(rig));
    memset(guest, 0, sizeof(guest));
    for (unsigned i = 0; i < sizeof(rig.medium); i++)
        rig.medium[i] = (uint8_t)(i * 31 + i / 512);
    rig.disk.data = rig.medium;
    rig.disk.size = sizeof(rig.medium);
    rig.disk.map = map;
    rig.disk.big_endian = VIRTIO_BIG_ENDIAN && function_is_legacy(view);
    memcpy(rig.disk.id, "serial 1", 9);
    f->view = view;
    f->queue[0].max = SIZE;
    f->dev.ops = &ops;
    f->dev.device_type = BLK_DEVICE_TYPE;
    f->dev.queue_count = 1;
    f->dev.big_endian = VIRTIO_BIG_ENDIAN;
    f->dev.config_length = BLKDEV_CONFIG_SIZE;
    virtio_features_add(&f->dev.offered, BLKDEV_FEATURE_FLUSH);
    virtio_features_add(&f->dev.offered, VIRTIO_FEATURE_INDIRECT_DESC);
    virtio_features_add(&f->dev.offered, VIRTIO_FEATURE_EVENT_IDX);
    blkdev_config(&rig.disk, f->config);
    cr_assert_eq(function_init(f), 0);
}

static int take_pci(void)
{
    struct virtio_pci_config config = {function_pci_read32, NULL, &rig.function};
    struct virtio_pci_bar bars[6];

    function_pci_bars(&rig.function, bars);
    cr_assert_eq(virtio_pci_scan(&rig.layout, &config, bars, 0), 0);
    for (unsigned i = 0; i < 6; i++)
        rig.windows[i] = traced_window(i);
    return virtio_drv_pci(&rig.drv, &rig.layout, rig.windows);
}

static int take_mmio(void)
{
    struct virtio_window w = traced_window(0);

    return virtio_drv_mmio(&rig.drv, &w);
}

static void take_device(enum function_view view)
{
    power_on(view);
    cr_assert_eq(function_is_mmio(view) ? take_mmio() : take_pci(), 0);
}

static int negotiate(void)
{
    static const struct virtio_features all = {{~0u, ~0u, ~0u, ~0u}}, none = {{0, 0, 0, 0}};
    int err = virtio_drv_begin(&rig.drv);

    return err != 0 ? err : virtio_drv_negotiate(&rig.drv, &all, &none);
}

static struct virtq_slot slots[SIZE];
static struct virtio_drv_queue queue;

static struct virtio_queue_setup good_setup(void)
{
    struct virtio_queue_setup setup = {SIZE, {guest, GUEST, DATA}, slots};

    return setup;
}

static int start_blk(void)
{
    struct blk_setup setup = {.memory = {guest, GUEST, DATA}, .wait = wait_for_line};

    return blk_start(&rig.blk, &rig.drv, &setup);
}

/* The device's first queue if it is on. */
static struct virtio_dev_queue *queue_on(void)
{
    return rig.function.queue[0].reg.state == VIRTIO_DEV_QUEUE_ON ? rig.function.queue : NULL;
}

static struct virtq_seg data(uint32_t offset, uint32_t len)
{
    struct virtq_seg seg = {GUEST + DATA + offset, len};

    return seg;
}

static uint32_t status_offset(enum function_view view)
{
    static const uint32_t offsets[] = {VIRTIO_COMMON_DEVICE_STATUS, VIRTIO_LEGACY_DEVICE_STATUS,
                                       VIRTIO_MMIO_REG_STATUS};

    return offsets[view];
}

#define VIEWS_TO(view, last) \
    for (enum function_view view = FUNCTION_PCI_MODERN; view <= last; \
         view = (enum function_view)(view + 1))
#define EACH_VIEW(view) VIEWS_TO(view, FUNCTION_MMIO) /* those with register tables of their own */

/* ----- life cycle ----- */

Test(life_cycle, status_bits_are_set_in_order_and_never_cleared)
{
    static const uint8_t modern[] = {0, 1, 3, 0xb, 0xf}, legacy[] = {0, 1, 3, 7};

    EACH_VIEW(view) { /* D-STATUS-01, D-STATUS-02, D-INIT-01, D-LEG-02, T-29, T-31 */
        bool old = view == FUNCTION_PCI_LEGACY;
        const uint8_t *expected = old ? legacy : modern;
        unsigned writes = 0;

        take_device(view);
        cr_assert_eq(negotiate(), 0);
        virtio_drv_ready(&rig.drv);
        for (unsigned i = 0; i < rig.traced; i++) {
            if (!rig.trace[i].write || rig.trace[i].offset != status_offset(view))
                continue;
            cr_assert(writes < (old ? sizeof(legacy) : sizeof(modern)));
            cr_expect_eq(rig.trace[i].value, expected[writes], "write %u: %#x", writes,
                         rig.trace[i].value);
            writes++;
        }
        cr_expect_eq(writes, old ? sizeof(legacy) : sizeof(modern));
    }
}

static bool late_reset(uint32_t offset, uint32_t *value)
{
    if (offset != status_offset(rig.function.view) || rig.faults >= 5)
        return false;
    *value = 0x0f;
    return true;
}

Test(life_cycle, reset_is_waited_for)
{
    EACH_VIEW(view) { /* D-RESET-01, D-RESET-02, T-30 */
        take_device(view);
        rig.fault = late_reset;
        cr_expect_eq(virtio_drv_reset(&rig.drv), 0);
        cr_expect_eq(rig.faults, 5);
    }
}

static bool never_reset(uint32_t offset, uint32_t *value)
{
    *value = offset == status_offset(rig.function.view) ? 0x0f : *value;
    return true;
}

static bool give_up_after_3(void *ctx)
{
    return ++*(unsigned *)ctx < 3;
}

Test(life_cycle, wait_for_reset_ends)
{
    unsigned looks = 0;

    take_device(FUNCTION_MMIO);
    rig.fault = never_reset;
    rig.drv.relax = give_up_after_3;
    rig.drv.relax_ctx = &looks;
    cr_expect_eq(virtio_drv_reset(&rig.drv), VIRTIO_ERR_TIMEOUT);
    cr_expect_eq(looks, 3);
    rig.drv.relax = NULL;
    cr_expect_eq(virtio_drv_begin(&rig.drv), VIRTIO_ERR_TIMEOUT);
}

static bool all_ones(uint32_t offset, uint32_t *value)
{
    (void)offset;
    *value = 0xffffffff;
    return true;
}

Test(life_cycle, unplugged_device_is_told_apart)
{
    take_device(FUNCTION_PCI_MODERN);
    rig.fault = all_ones;
    cr_expect_eq(virtio_drv_reset(&rig.drv), VIRTIO_ERR_GONE);
    cr_expect(virtio_drv_needs_reset(&rig.drv));
}

/* ----- features ----- */

Test(features, only_what_is_offered_wanted_and_known_is_accepted)
{
    /* NOTIF_CONFIG_DATA and RING_RESET where the transport has their registers. */
    static const uint32_t word_1[] = {0xfffc0fdf, 0, 0xfffc0d5f}; /* by enum function_view */

    EACH_VIEW(view) { /* D-FEAT-01, D-FEAT-02, D-FEAT-05, D-FEAT-06, D-LEG-10, T-12, T-37 */
        take_device(view);
        for (unsigned word = 0; word < 4; word++)
            rig.function.dev.offered.word[word] = ~0u;
        cr_assert_eq(negotiate(), 0);
        cr_expect_eq(rig.function.dev.reg.accepted.word[0],
                     view == FUNCTION_PCI_LEGACY ? 0x39ffffffu : 0x30ffffffu, "%#x",
                     rig.function.dev.reg.accepted.word[0]);
        cr_expect_eq(rig.function.dev.reg.accepted.word[1], word_1[view], "%#x",
                     rig.function.dev.reg.accepted.word[1]);
        cr_expect_eq(rig.function.dev.reg.accepted.word[2], view == FUNCTION_PCI_LEGACY ? 0 : ~0u);
        cr_expect_eq(memcmp(&rig.drv.accepted, &rig.function.dev.reg.accepted, 16), 0);
    }
}

Test(features, version_1_is_accepted_unasked)
{
    static const struct virtio_features none = {{0, 0, 0, 0}};

    take_device(FUNCTION_PCI_MODERN); /* D-FEAT-06, T-33 */
    cr_assert_eq(virtio_drv_begin(&rig.drv), 0);
    cr_assert_eq(virtio_drv_negotiate(&rig.drv, &none, &none), 0);
    cr_expect_eq(rig.function.dev.reg.accepted.word[1], 1);
    cr_expect_eq(rig.function.dev.reg.accepted.word[0], 0);
}

Test(features, missing_required_feature_fails_the_device)
{
    static const struct virtio_features none = {{0, 0, 0, 0}}, ro = {{1u << 5, 0, 0, 0}};

    take_device(FUNCTION_MMIO); /* D-FEAT-04, D-INIT-05 */
    cr_assert_eq(virtio_drv_begin(&rig.drv), 0);
    cr_expect_eq(virtio_drv_negotiate(&rig.drv, &none, &ro), VIRTIO_ERR_REQUIRED);
    cr_expect_eq(rig.function.dev.reg.status, 0x83);
}

Test(features, modern_transport_needs_version_1)
{
    static const struct virtio_features none = {{0, 0, 0, 0}};

    take_device(FUNCTION_PCI_MODERN);
    cr_assert_eq(virtio_drv_begin(&rig.drv), 0);
    rig.drv.offered.word[1] = 0;
    cr_expect_eq(virtio_drv_negotiate(&rig.drv, &none, &none), VIRTIO_ERR_NOT_MODERN);
    cr_expect(rig.function.dev.reg.status & VIRTIO_STATUS_FAILED);
}

static bool refuse_features(uint32_t offset, uint32_t *value)
{
    if (offset == status_offset(rig.function.view))
        *value &= ~(uint32_t)VIRTIO_STATUS_FEATURES_OK;
    return true;
}

Test(features, refused_set_is_an_error_and_failed)
{
    take_device(FUNCTION_MMIO); /* D-INIT-04, T-31 */
    rig.fault = refuse_features;
    cr_expect_eq(negotiate(), VIRTIO_ERR_FEATURES);
    cr_expect(rig.function.dev.reg.status & VIRTIO_STATUS_FAILED);
}

/* ----- configuration ----- */

static const struct virtio_config_field capacity = {0, 8};

/* After the first half of the capacity was read the disk grows by one, past 2^32 - 1 sectors. */
static void grow(void)
{
    bool big = rig.disk.big_endian;

    memset(rig.function.config, 0, 8);
    rig.function.config[big ? 3 : 4] = 1;
    virtio_dev_config_changed(&rig.function.dev);
}

static bool grow_between_halves(uint32_t offset, uint32_t *value)
{
    static const uint32_t config_at[] = {0x2000, VIRTIO_LEGACY_CONFIG, VIRTIO_MMIO_REG_CONFIG};

    (void)value;
    if (offset != config_at[rig.function.view] || rig.faults != 0)
        return false;
    grow();
    return true;
}

Test(config, torn_value_is_read_again)
{
    EACH_VIEW(view) { /* D-CFG-01, D-CFG-02, D-LEG-07, T-36 */
        uint64_t value = 0;

        take_device(view);
        memset(rig.function.config + (rig.disk.big_endian ? 0 : 4), 0, 4);
        memset(rig.function.config + (rig.disk.big_endian ? 4 : 0), 0xff, 4);
        rig.fault = grow_between_halves;
        cr_assert_eq(virtio_drv_config_read(&rig.drv, &capacity, 1, &value), 0);
        cr_expect_eq(rig.faults, 1);
        cr_expect_eq(value, 0x100000000, "%#llx", (unsigned long long)value);
    }
}

static bool always_changing(uint32_t offset, uint32_t *value)
{
    (void)offset;
    (void)value;
    virtio_dev_config_changed(&rig.function.dev);
    rig.function.config[0]++;
    return true;
}

Test(config, device_that_keeps_changing_is_an_error)
{
    EACH_VIEW(view) {
        uint64_t value;

        take_device(view);
        rig.fault = always_changing;
        cr_expect_eq(virtio_drv_config_read(&rig.drv, &capacity, 1, &value),
                     VIRTIO_ERR_CONFIG_UNSTABLE);
    }
}

Test(config, fields_have_their_width_and_their_bounds)
{
    static const struct virtio_config_field fields[] = {{0, 1}, {2, 2}, {4, 4}, {8, 8}};
    static const struct virtio_config_field outside[] = {{0x100, 1}, {0xfd, 4}, {0xf9, 8}};
    uint64_t values[4];

    take_device(FUNCTION_MMIO); /* D-CFG-05, D-MMIO-03 */
    for (uint8_t i = 0; i < 16; i++)
        rig.function.config[i] = i;
    rig.traced = 0;
    cr_assert_eq(virtio_drv_config_read(&rig.drv, fields, 4, values), 0);
    cr_expect_eq(values[0], 0);
    cr_expect_eq(values[1], 0x0302);
    cr_expect_eq(values[2], 0x07060504);
    cr_expect_eq(values[3], 0x0f0e0d0c0b0a0908);
    for (unsigned i = 0; i < rig.traced; i++)
        cr_expect_eq(rig.trace[i].offset % rig.trace[i].width, 0);
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(virtio_drv_config_read(&rig.drv, &outside[i], 1, values),
                     VIRTIO_ERR_CONFIG_RANGE);
}

Test(config, legacy_place_follows_msix)
{
    uint64_t value = 0;

    take_device(FUNCTION_PCI_LEGACY); /* L-PLEG-05, R-17, T-17 */
    for (int on = 1; on >= 0; on--) {
        virtio_dev_irq_mode(&rig.function.dev, on != 0, false);
        rig.layout.msix_on = on != 0;
        cr_assert_eq(virtio_drv_pci(&rig.drv, &rig.layout, rig.windows), 0);
        cr_assert_eq(virtio_drv_config_read(&rig.drv, &capacity, 1, &value), 0);
        cr_expect_eq(value, 128, "MSI-X %d: %llu", on, (unsigned long long)value);
    }
}

/* ----- queues ----- */

Test(queues, set_up_on_every_transport)
{
    EACH_VIEW(view) { /* D-COM-03, D-MMIO-11, D-PLEG-06 */
        struct virtio_queue_setup setup = good_setup();
        struct virtq_offsets at =
            virtq_area_offsets(SIZE, view == FUNCTION_PCI_LEGACY ? 4096 : VIRTIO_RING_ALIGN, 0);

        take_device(view);
        cr_assert_eq(negotiate(), 0);
        cr_assert_eq(virtio_drv_queue_size(&rig.drv, 0), SIZE);
        cr_assert_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), 0);
        cr_expect(queue_on() != NULL);
        cr_expect_eq(queue_on()->ring.last + 1, SIZE);
        cr_expect_eq(rig.function.queue[0].reg.address[0], GUEST);
        cr_expect_eq(rig.function.queue[0].reg.address[1], GUEST + at.driver);
        cr_expect_eq(rig.function.queue[0].reg.address[2], GUEST + at.device);
        cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), VIRTIO_ERR_QUEUE_BUSY);
        cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 1, &setup), VIRTIO_ERR_NO_QUEUE);
    }
}

Test(queues, index_has_16_bits)
{
    /* L-VQ-01: 65536 virtqueues, 0 to 65535 */
    take_device(FUNCTION_MMIO);
    cr_assert_eq(negotiate(), 0);
    rig.traced = 0;
    cr_expect_eq(virtio_drv_queue_size(&rig.drv, 65535), 0, "there is one queue only");
    cr_assert_gt(rig.traced, 0);
    cr_expect_eq(rig.trace[0].offset, (uint32_t)VIRTIO_MMIO_REG_QUEUE_SEL);
    cr_expect_eq(rig.trace[0].value, 65535u);
}

static uint32_t reset_register(enum function_view view)
{
    struct virtio_window *regs = &rig.drv.regs;

    return view == FUNCTION_MMIO ? virtio_window_read32(regs, VIRTIO_MMIO_REG_QUEUE_RESET)
                                 : virtio_window_read16(regs, VIRTIO_COMMON_QUEUE_RESET);
}

Test(queues, reset_alone_and_enabled_again_with_another_size)
{
    EACH_VIEW(view) { /* D-RR-01 to D-RR-03, V-RR-01 to V-RR-04 */
        struct virtio_queue_setup setup = good_setup();

        if (view == FUNCTION_PCI_LEGACY)
            continue;
        take_device(view);
        virtio_features_add(&rig.function.dev.offered, VIRTIO_FEATURE_RING_RESET);
        cr_assert_eq(negotiate(), 0);
        cr_expect_eq(reset_register(view), 0);
        for (uint16_t num = SIZE; num != 0; num = (uint16_t)(num / 2)) {
            setup.num = num;
            cr_assert_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), 0);
            cr_expect(queue_on() != NULL);
            cr_expect_eq(queue_on()->ring.last + 1, num);
            cr_expect_eq(reset_register(view), 0);
            cr_assert_eq(virtio_drv_queue_reset(&rig.drv, &queue), 0);
            cr_expect(queue_on() == NULL);
            cr_expect_eq(reset_register(view), 0);
            cr_expect_eq(virtio_drv_queue_size(&rig.drv, 0), SIZE, "its maximum again");
        }
        cr_expect_eq(rig.function.dev.reg.status & VIRTIO_STATUS_NEEDS_RESET, 0);
    }
}

Test(queues, busy_queue_keeps_its_memory)
{
    struct virtio_queue_setup setup = good_setup();

    take_device(FUNCTION_MMIO);
    cr_assert_eq(negotiate(), 0);
    cr_assert_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), 0);
    guest[0] = 0xaa;
    cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), VIRTIO_ERR_QUEUE_BUSY);
    cr_expect_eq(guest[0], 0xaa);
}

Test(queues, wrong_sizes_and_memory_are_refused)
{
    EACH_VIEW(view) { /* D-COM-02, D-LEG-04, D-MMIO-05, T-84, T-90 */
        struct virtio_queue_setup setup = good_setup();
        bool old = view == FUNCTION_PCI_LEGACY;

        take_device(view);
        cr_assert_eq(negotiate(), 0);
        setup.num = 2 * SIZE;
        cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), VIRTIO_ERR_QUEUE_SIZE);
        setup.num = 48;
        cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup),
                     old ? (int)VIRTIO_ERR_QUEUE_SIZE : (int)VIRTQ_ERR_SIZE);
        setup = good_setup();
        setup.memory.length = virtio_drv_queue_bytes(&rig.drv, SIZE) - 1;
        cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup),
                     VIRTIO_ERR_QUEUE_MEMORY);
        setup = good_setup();
        setup.memory.device += 16;
        cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup),
                     VIRTIO_ERR_QUEUE_MEMORY);
        cr_expect(queue_on() == NULL);
        setup = good_setup();
        setup.num = SIZE / 2;
        cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup),
                     old ? VIRTIO_ERR_QUEUE_SIZE : 0);
    }
}

Test(queues, legacy_page_number_has_32_bits)
{
    struct virtio_queue_setup setup = good_setup();

    take_device(FUNCTION_PCI_LEGACY); /* D-PLEG-06, T-93 */
    cr_assert_eq(negotiate(), 0);
    setup.memory.device = (uint64_t)1 << 44;
    cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), VIRTIO_ERR_QUEUE_MEMORY);
    setup.memory.device = 0;
    cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), VIRTIO_ERR_QUEUE_MEMORY);
}

static bool shrink_queue(uint32_t offset, uint32_t *value)
{
    if (offset == VIRTIO_COMMON_QUEUE_SIZE && rig.faults++ != 0)
        *value = 8;
    return false;
}

Test(queues, size_that_does_not_read_back_is_refused)
{
    struct virtio_queue_setup setup = good_setup();

    take_device(FUNCTION_PCI_MODERN);
    cr_assert_eq(negotiate(), 0);
    rig.fault = shrink_queue;
    cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), VIRTIO_ERR_QUEUE_SIZE);
    cr_expect(queue_on() == NULL);
}

Test(queues, device_that_does_not_enable_is_refused)
{
    struct virtio_queue_setup setup = good_setup();

    setup.memory.device = GUEST + GUEST_SIZE; /* no memory there */
    take_device(FUNCTION_MMIO);
    cr_assert_eq(negotiate(), 0);
    cr_expect_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), VIRTIO_ERR_QUEUE_REFUSED);
}

/* ----- notify ----- */

static uint32_t fake_notify_off;

static bool notify_off(uint32_t offset, uint32_t *value)
{
    if (offset == VIRTIO_COMMON_QUEUE_NOTIFY_OFF)
        *value = fake_notify_off;
    return false;
}

Test(notify, address_is_queue_notify_off_times_multiplier)
{
    static const struct {
        uint32_t off, multiplier, at;
        int err;
    } cases[] = {
        {0, 4, 0x3000, 0},        {3, 4, 0x300c, 0},       {7, 0, 0x3000, 0},
        {1, 2, 0x3002, 0},        {0x7ff, 2, 0x3ffe, 0},   {0x800, 2, 0, VIRTIO_ERR_NOTIFY},
        {1, 4096, 0, VIRTIO_ERR_NOTIFY}, {0xffff, 0xffffffff, 0, VIRTIO_ERR_NOTIFY},
        {1, 3, 0, VIRTIO_ERR_NOTIFY},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct virtio_queue_setup setup = good_setup(); /* L-NTF-01, D-NTF-01, D-NTF-02, T-20, T-21 */

        take_device(FUNCTION_PCI_MODERN);
        cr_assert_eq(negotiate(), 0);
        rig.fault = notify_off;
        fake_notify_off = cases[i].off;
        rig.drv.notify_multiplier = cases[i].multiplier;
        cr_assert_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), cases[i].err, "case %u",
                     i);
        cr_expect_eq(queue_on() != NULL, cases[i].err == 0);
        if (cases[i].err == 0)
            cr_expect_eq(queue.notify.address, cases[i].at, "case %u", i);
    }
}

Test(notify, kick_is_one_write_of_the_right_width)
{
    static const struct access expected[] = {
        {true, 2, 0x3000, 0}, {true, 2, VIRTIO_LEGACY_QUEUE_NOTIFY, 0},
        {true, 4, VIRTIO_MMIO_REG_QUEUE_NOTIFY, 0}};

    EACH_VIEW(view) { /* D-NOTE-01, L-NOTE-01, D-MMIO-02 */
        struct virtio_queue_setup setup = good_setup();

        take_device(view);
        rig.stuck = true;
        cr_assert_eq(negotiate(), 0);
        cr_assert_eq(virtio_drv_queue_setup(&rig.drv, &queue, 0, &setup), 0);
        virtio_drv_ready(&rig.drv);
        rig.traced = 0;
        virtio_drv_kick(&queue); /* nothing published: no access */
        cr_assert_eq(rig.traced, 0);
        cr_assert_eq(virtq_driver_add_writable(&queue.ring, data(0, 16), NULL), 0);
        virtq_driver_publish(&queue.ring);
        virtio_drv_kick(&queue);
        virtio_drv_kick(&queue);
        cr_assert_eq(rig.traced, 1);
        cr_expect_eq(rig.trace[0].write, true);
        cr_expect_eq(rig.trace[0].width, expected[view].width);
        cr_expect_eq(rig.trace[0].offset, expected[view].offset);
        cr_expect_eq(rig.trace[0].value, 0);
    }
}

Test(notify, setting_up_never_kicks)
{
    EACH_VIEW(view) { /* D-INIT-06, T-32 */
        static const uint32_t at[] = {0x3000, VIRTIO_LEGACY_QUEUE_NOTIFY,
                                      VIRTIO_MMIO_REG_QUEUE_NOTIFY};

        take_device(view);
        cr_assert_eq(start_blk(), 0);
        for (unsigned i = 0; i < rig.traced; i++)
            cr_expect_not(rig.trace[i].write && rig.trace[i].offset == at[view]);
    }
}

/* ----- interrupts ----- */

Test(irq, causes_are_read_and_acknowledged)
{
    EACH_VIEW(view) { /* V-ISR-03, D-ISR-02, D-MMIO-08, T-39, T-83, T-95 */
        take_device(view);
        rig.function.dev.reg.isr = 0x82;
        virtio_dev_irq_mode(&rig.function.dev, false, false);
        rig.traced = 0;
        cr_expect_eq(virtio_drv_irq_status(&rig.drv), VIRTIO_IRQ_CONFIG);
        cr_expect_eq(rig.line, view == FUNCTION_MMIO);
        virtio_drv_irq_ack(&rig.drv, VIRTIO_IRQ_CONFIG);
        cr_expect_eq(rig.function.dev.reg.isr, view == FUNCTION_MMIO ? 0x80 : 0);
        cr_expect_eq(rig.traced, view == FUNCTION_MMIO ? 2 : 1);
    }
}

/* ----- virtio-mmio probe ----- */

static uint32_t mmio_registers[3];

static bool mmio_fault(uint32_t offset, uint32_t *value)
{
    if (offset < 12)
        *value = mmio_registers[offset / 4];
    return false;
}

Test(mmio, probe_tells_slots_apart)
{
    static const struct {
        uint32_t registers[3];
        unsigned reads;
        int err;
    } cases[] = {{{0x74726976, 2, 2}, 3, 0},
                 {{0x74726976, 2, 0}, 3, VIRTIO_ERR_NO_DEVICE},
                 {{0x74726976, 1, 2}, 3, 0},
                 {{0x74726976, 1, 0}, 3, VIRTIO_ERR_NO_DEVICE},
                 {{0x74726976, 0, 2}, 2, VIRTIO_ERR_VERSION},
                 {{0x74726976, 3, 2}, 2, VIRTIO_ERR_VERSION},
                 {{0x76697274, 2, 2}, 1, VIRTIO_ERR_MAGIC},
                 {{0xffffffff, 0xffffffff, 0xffffffff}, 1, VIRTIO_ERR_MAGIC}};

    for (unsigned i = 0; i < 8; i++) { /* D-MMIO-01, D-MLEG-05, T-82 */
        power_on(FUNCTION_MMIO);
        memcpy(mmio_registers, cases[i].registers, sizeof(mmio_registers));
        rig.fault = mmio_fault;
        cr_expect_eq(take_mmio(), cases[i].err, "case %u", i);
        cr_expect_eq(rig.traced, cases[i].reads, "case %u: %u reads", i, rig.traced);
    }
}

Test(mmio, control_registers_are_accessed_as_32_bits)
{
    take_device(FUNCTION_MMIO); /* D-MMIO-02, T-81 */
    cr_assert_eq(start_blk(), 0);
    for (unsigned i = 0; i < rig.traced; i++)
        cr_expect(rig.trace[i].width == 4 || rig.trace[i].offset >= VIRTIO_MMIO_REG_CONFIG);
}

/* ----- the emulated function by raw accesses ----- */

Test(function, rfc_structures_are_found_beside_the_legacy_bar)
{
    static const struct virtio_pci_place expected[5] = {
        {0, 0, 0, 0, 0},
        {VIRTIO_PCI_RFC2011, 4, 0x40, 0x0000, 32},
        {VIRTIO_PCI_RFC2011, 4, 0x4c, 0x3000, 2},
        {VIRTIO_PCI_RFC2011, 4, 0x58, 0x1000, 1},
        {VIRTIO_PCI_RFC2011, 4, 0x64, 0x2000, 0x1000}};
    struct virtio_pci_config config = {function_pci_read32, function_pci_write32, &rig.function};
    struct virtio_pci_layout layout;
    struct virtio_pci_bar bars[6];
    struct virtio_window mem, io;

    power_on(FUNCTION_PCI_RFC2011); /* */
    function_pci_bars(&rig.function, bars);
    cr_assert_eq(virtio_pci_scan(&layout, &config, bars, VIRTIO_PCI_STRICT), 0);
    cr_expect_eq(layout.generation, VIRTIO_PCI_RFC2011);
    cr_expect(layout.legacy);
    cr_expect_eq(layout.msix_vectors, 4);
    for (unsigned i = VIRTIO_PCI_STRUCT_COMMON; i <= VIRTIO_PCI_STRUCT_DEVICE; i++) {
        struct virtio_pci_place at = virtio_pci_locate(&layout, (enum virtio_pci_struct)i, false);

        cr_expect_eq(at.found, expected[i].found, "structure %u", i);
        cr_expect_eq(at.bar, expected[i].bar, "structure %u", i);
        cr_expect_eq(at.cap, expected[i].cap, "structure %u", i);
        cr_expect_eq(at.offset, expected[i].offset, "structure %u", i);
        cr_expect_eq(at.length, expected[i].length, "structure %u", i);
    }
    mem = function_window(&rig.function, 4);
    io = function_window(&rig.function, 0);
    virtio_window_write8(&mem, 18, 3);
    cr_expect_eq(virtio_window_read8(&io, 18), 3);
    cr_expect_eq(virtio_window_read32(&mem, 0x2000), virtio_window_read32(&io, 20));
}

Test(function, version_1_of_mmio)
{
    struct virtio_window w;

    power_on(FUNCTION_MMIO_V1); /* V-MMIO-01, V-MLEG-01 */
    w = function_window(&rig.function, 0);
    cr_expect_eq(virtio_window_read32(&w, 0), 0x74726976);
    cr_expect_eq(virtio_window_read32(&w, 4), 1);
    virtio_window_write32(&w, 0x28, 4096);
    virtio_window_write32(&w, 0x3c, 4096);
    virtio_window_write32(&w, 0x40, GUEST / 4096);
    cr_expect_eq(virtio_window_read32(&w, 0x40), GUEST / 4096);
    cr_expect(queue_on() != NULL);
    cr_expect_eq(function_window(&rig.function, 1).kind, VIRTIO_WINDOW_NONE);
}

Test(function, configuration_space_can_be_written)
{
    power_on(FUNCTION_PCI_MODERN); /* V-CAP-03, V-PCFG-01, V-MSX-02 */
    for (unsigned i = 0; i < 6; i++) {
        function_pci_write32(&rig.function, (uint16_t)(0x10 + 4 * i), ~0u);
        cr_expect_eq(function_pci_read32(&rig.function, (uint16_t)(0x10 + 4 * i)),
                     i == 4 ? 0xffff8000u : 0, "BAR %u", i);
    }
    cr_expect_eq(function_pci_read32(&rig.function, 0x84) >> 24, 5, "PCI_CFG");
    function_pci_write32(&rig.function, 0x88, 4);
    function_pci_write32(&rig.function, 0x8c, 0x2000);
    function_pci_write32(&rig.function, 0x90, 4);
    cr_expect_eq(function_pci_read32(&rig.function, 0x94), 128, "sectors");
    cr_expect_eq(function_pci_read32(&rig.function, 0x98) & 0xff, 0x11, "MSI-X");
    function_pci_write32(&rig.function, 0x98, 0x80000000);
    cr_expect(rig.function.dev.msix_on);
}

/* ----- windows ----- */

Test(window, mmio_registers_are_little_endian)
{
    static _Alignas(8) uint8_t memory[16];
    struct virtio_window w = {(uintptr_t)memory, sizeof(memory), VIRTIO_WINDOW_MMIO, NULL, NULL};
    struct virtio_window sub = virtio_window_sub(&w, 8, 8);

    virtio_window_write8(&w, 0, 0x12);
    virtio_window_write16(&w, 2, 0x3456);
    virtio_window_write32(&w, 4, 0x789abcde);
    virtio_window_write64(&sub, 0, 0x0123456789abcdef);
    cr_expect_eq(memcmp(memory, "\x12\x00\x56\x34\xde\xbc\x9a\x78\xef\xcd\xab\x89\x67\x45\x23\x01",
                        16),
                 0);
    cr_expect_eq(virtio_window_read8(&w, 0), 0x12);
    cr_expect_eq(virtio_window_read16(&w, 2), 0x3456);
    cr_expect_eq(virtio_window_read32(&w, 4), 0x789abcde);
    cr_expect_eq(virtio_window_read32(&sub, 4), 0x01234567);
}

Test(window, notify_store_is_little_endian)
{
    static _Alignas(4) uint8_t memory[4];
    struct virtio_notify notify = {(uintptr_t)memory, 0x1234, 0, VIRTIO_WINDOW_MMIO, 2, NULL, NULL};

    memset(memory, 0xff, 4);
    virtio_notify_send(&notify, 0);
    cr_expect_eq(memcmp(memory, "\x34\x12\xff\xff", 4), 0);
    notify.width = 4;
    virtio_notify_send(&notify, 0);
    cr_expect_eq(memcmp(memory, "\x34\x12\x00\x00", 4), 0);
}

Test(window, an_unusable_device_configuration_is_refused)
{
    static const enum function_view views[] = {FUNCTION_PCI_MODERN, FUNCTION_PCI_RFC2011};

    for (unsigned i = 0; i < 2; i++) {
        struct virtio_pci_place *place = &rig.layout.place[VIRTIO_PCI_STRUCT_DEVICE];

        take_device(views[i]);
        place->found = rig.layout.place[VIRTIO_PCI_STRUCT_COMMON].found;
        place->bar = 5; /* where nothing else is */
        place->offset = 0;
        place->length = 4;
        rig.windows[5] = rig.windows[FUNCTION_MODERN_BAR];
        cr_expect_eq(virtio_drv_pci(&rig.drv, &rig.layout, rig.windows), 0);
        rig.windows[5].ops = NULL;
        cr_expect_eq(virtio_drv_pci(&rig.drv, &rig.layout, rig.windows), VIRTIO_ERR_WINDOW);
    }
}

Test(window, unusable_windows_are_refused)
{
    static const struct virtio_window none = {0, 0, VIRTIO_WINDOW_NONE, NULL, NULL},
                                      no_ops = {0, 512, VIRTIO_WINDOW_CALLER, NULL, NULL};
    static const struct virtio_window_ops ops = {NULL, NULL};
    static const struct virtio_pci_place nowhere = {VIRTIO_PCI_NONE, 0, 0, 0, 0};
    struct virtio_window bars[6] = {{0, 19, VIRTIO_WINDOW_PORT, NULL, NULL}};
    struct virtio_pci_layout layout;

    memset(&rig.drv, 0, sizeof(rig.drv));
    cr_expect_eq(virtio_drv_mmio(&rig.drv, &none), VIRTIO_ERR_WINDOW);
    cr_expect_eq(virtio_drv_mmio(&rig.drv, &no_ops), VIRTIO_ERR_WINDOW);
    memset(&layout, 0, sizeof(layout));
    layout.generation = VIRTIO_PCI_LEGACY;
    layout.legacy = true;
    layout.legacy_length = 64;
    for (unsigned i = 0; i < 5; i++)
        layout.place[i] = nowhere;
    cr_expect_eq(virtio_drv_pci(&rig.drv, &layout, bars), VIRTIO_ERR_WINDOW);
    bars[0].length = 64;
    cr_expect_eq(virtio_drv_pci(&rig.drv, &layout, bars), VIRTIO_HAVE_PORT ? 0 : VIRTIO_ERR_WINDOW);
    bars[0].ops = &ops; /* would be called instead */
    cr_expect_eq(virtio_drv_pci(&rig.drv, &layout, bars), VIRTIO_ERR_WINDOW);
}

Test(names, every_error_has_its_own_text)
{
    static const int last[][2] = {{VIRTQ_ERR_AVAIL_HEAD, VIRTQ_ERR_SIZE},
                                  {VIRTQ_ERR_INDIRECT_MAP, VIRTQ_ERR_CHAIN_NEXT},
                                  {VIRTIO_PCI_ERR_INCOMPLETE, VIRTIO_PCI_ERR_NO_DEVICE},
                                  {VIRTIO_ERR_NO_RESET, VIRTIO_ERR_NO_DEVICE},
                                  {VIRTIO_ERR_DEV_STATE, VIRTIO_ERR_DEV_STATE},
                                  {BLK_ERR_DEVICE, BLK_ERR_IO}};

    for (unsigned i = 0; i < sizeof(last) / sizeof(last[0]); i++) {
        for (int err = last[i][0]; err <= last[i][1]; err++) {
            cr_expect(strcmp(blk_err_name(err), "unknown error") != 0, "%d", err);
            cr_expect(err == last[i][0] ||
                      strcmp(blk_err_name(err), blk_err_name(err - 1)) != 0);
        }
    }
    cr_expect_eq(strcmp(virtio_err_name(12345), "unknown error"), 0);
}

Test(names, device_type_from_pci_ids)
{
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1042, 0), 2); /* D-PCI-01, L-PCI-01 */
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1001, 2), 2);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1080, 2), 0);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x0fff, 2), 0);
    cr_expect_eq(virtio_pci_device_type(0x8086, 0x1042, 2), 0);
}

/* ----- the block front-end over all of it ----- */

/* ----- MSI-X of the emulated function ----- */

enum { MSIX_ON = 0x8000, MSIX_ALL_MASKED = 0x4000 };

static struct {
    struct msix msix;
    unsigned sent[MSIX_VECTORS];
    struct msix_message last;
} messages;

static void message_sent(void *ctx, uint16_t vector, const struct msix_message *message)
{
    (void)ctx;
    messages.sent[vector]++;
    messages.last = *message;
}

static struct msix *msix_power_on(void)
{
    memset(&messages, 0, sizeof(messages));
    messages.msix.count = 3;
    messages.msix.send = message_sent;
    memset(messages.msix.table, 0xff, sizeof(messages.msix.table));
    msix_init(&messages.msix);
    return &messages.msix;
}

/* The guest writes a message and unmasks it. */
static void msix_program(struct msix *msix, unsigned vector, uint64_t address, uint32_t data)
{
    msix_write(msix, 16 * vector, 8, address);
    msix_write(msix, 16 * vector + 8, 4, data);
    msix_write(msix, 16 * vector + 12, 4, 0);
    msix_settle(msix);
}

Test(msix, masked_until_the_guest_says_otherwise)
{
    struct msix *msix = msix_power_on();

    for (unsigned vector = 0; vector < 3; vector++) {
        cr_expect_eq(msix_read(msix, 16 * vector, 8), 0);
        cr_expect_eq(msix_read(msix, 16 * vector + 8, 8), UINT64_C(1) << 32, "masked");
    }
    msix_control(msix, MSIX_ON);
    msix_raise(msix, 1);
    msix_raise(msix, 1);
    msix_raise(msix, 3); /* there is no such vector */
    cr_expect_eq(msix_read(msix, MSIX_PENDING_AT, 8), 2);
    msix_program(msix, 0, 0xfee00000, 0x30);
    cr_expect_eq(messages.sent[0] + messages.sent[1], 0);
    msix_program(msix, 1, 0x1fee01000, 0x31);
    cr_expect_eq(messages.sent[1], 1, "once, however often it was raised");
    cr_expect_eq(messages.last.address, 0x1fee01000);
    cr_expect_eq(messages.last.data, 0x31);
    cr_expect_eq(msix_read(msix, MSIX_PENDING_AT, 4), 0);
    msix_settle(msix);
    msix_raise(msix, 1);
    cr_expect_eq(messages.sent[1], 2);
    msix_write(msix, 16 + 12, 4, 1);
    msix_raise(msix, 1);
    cr_expect_eq(messages.sent[1], 2);
    cr_expect_eq(msix_read(msix, MSIX_PENDING_AT, 4), 2);
}

Test(msix, nothing_goes_out_while_it_is_off_or_all_are_masked)
{
    static const uint16_t silent[] = {0, MSIX_ALL_MASKED, MSIX_ON | MSIX_ALL_MASKED};
    struct msix *msix = msix_power_on();

    msix_program(msix, 2, 0xfee00000, 0x32);
    msix_raise(msix, 2);
    cr_expect_eq(messages.sent[2], 0, "off at power on");
    for (unsigned i = 0; i < 3; i++) {
        msix_control(msix, silent[i]);
        msix_raise(msix, 2);
        msix_settle(msix);
        cr_expect_eq(messages.sent[2], i);
        msix_control(msix, MSIX_ON);
        cr_expect_eq(messages.sent[2], i + 1);
    }
}

Test(msix, accesses_are_aligned_dwords_and_quadwords)
{
    struct msix *msix = msix_power_on();

    msix_write(msix, 0, 4, 0x12345677);
    msix_write(msix, 4, 4, 0x89abcdef);
    msix_write(msix, 8, 8, UINT64_C(0xfffffffe00c0ffee));
    cr_expect_eq(msix_read(msix, 0, 8), UINT64_C(0x89abcdef12345674), "addresses are aligned");
    cr_expect_eq(msix_read(msix, 8, 8), 0x00c0ffee, "of control there is one bit");
    for (unsigned width = 0; width < 9; width++) {
        for (uint64_t offset = 0; offset < MSIX_LENGTH; offset++) {
            if ((width == 4 || width == 8) && offset % width == 0 && offset < 3 * 16)
                continue;
            msix_write(msix, offset, width, UINT64_MAX);
            cr_assert_eq(msix_read(msix, offset, width), 0, "%#x/%u", (unsigned)offset, width);
        }
    }
    cr_expect_eq(msix_read(msix, 0, 8), UINT64_C(0x89abcdef12345674));
    cr_expect_eq(msix_read(msix, 8, 8), 0x00c0ffee);
    cr_expect_eq(msix_read(msix, 16, 4), 0);
}

Test(blk, reads_writes_flushes_and_names)
{
    VIEWS_TO(view, FUNCTION_MMIO_V1) { /* D-MLEG-02, V-MLEG-01: both sides in every layout */
        char id[BLK_ID_SIZE + 1];

        take_device(view);
        cr_assert_eq(start_blk(), 0);
        cr_assert_eq(rig.blk.capacity, 128);
        cr_assert_eq(blk_read(&rig.blk, 3, data(0, 1024)), 0);
        cr_expect_eq(memcmp(guest + DATA, rig.medium + 3 * 512, 1024), 0);
        memset(guest + DATA, 0x5a, 512);
        cr_assert_eq(blk_write(&rig.blk, 127, data(0, 512)), 0);
        cr_expect_eq(memcmp(rig.medium + 127 * 512, guest + DATA, 512), 0);
        for (unsigned i = 0; i < 512; i++) /* V-SPLIT-01: what is readable is not written */
            cr_assert_eq(guest[DATA + i], 0x5a);
        cr_expect_eq(blk_flush(&rig.blk), 0);
        cr_assert_eq(blk_get_id(&rig.blk, id), 0);
        cr_expect_str_eq(id, "serial 1");
        cr_expect_eq(blk_stop(&rig.blk), 0);
        cr_expect_eq(rig.function.dev.reg.status, 0);
    }
}

Test(blk, every_feature_of_the_ring)
{
    static const unsigned bits[] = {VIRTIO_FEATURE_RING_PACKED, VIRTIO_FEATURE_IN_ORDER,
                                    VIRTIO_FEATURE_ORDER_PLATFORM, VIRTIO_FEATURE_NOTIFICATION_DATA,
                                    VIRTIO_FEATURE_NOTIF_CONFIG_DATA, VIRTIO_FEATURE_RING_RESET};

    EACH_VIEW(view) { /* the front-end names none of them */
        for (unsigned set = 0; set < 1u << 6 && view != FUNCTION_PCI_LEGACY; set++) {
            take_device(view);
            for (unsigned i = 0; i < 6; i++)
                if (set >> i & 1)
                    virtio_features_add(&rig.function.dev.offered, bits[i]);
            cr_assert_eq(start_blk(), 0);
            cr_expect_eq(virtio_features_has(&rig.drv.accepted, bits[0]), set & 1);
            for (unsigned times = 0; times < 40; times++)
                cr_assert_eq(blk_read(&rig.blk, times, data(0, 1024)), 0);
            cr_expect_eq(memcmp(guest + DATA, rig.medium + 39 * 512, 1024), 0);
            memset(guest + DATA, (int)set, 512);
            cr_assert_eq(blk_write(&rig.blk, 127, data(0, 512)), 0);
            cr_expect_eq(memcmp(rig.medium + 127 * 512, guest + DATA, 512), 0);
            cr_expect_eq(blk_stop(&rig.blk), 0);
        }
    }
}

Test(blk, bad_requests_do_not_reach_the_device)
{
    /* D-BLK-01 */
    struct virtq_seg many[BLK_DATA_SEGS + 1];

    take_device(FUNCTION_PCI_MODERN);
    cr_assert_eq(start_blk(), 0);
    for (unsigned i = 0; i <= BLK_DATA_SEGS; i++)
        many[i] = data(0, 512);
    cr_expect_eq(blk_read(&rig.blk, 128, data(0, 512)), BLK_ERR_RANGE);
    cr_expect_eq(blk_read(&rig.blk, 127, data(0, 1024)), BLK_ERR_RANGE);
    cr_expect_eq(blk_read(&rig.blk, UINT64_MAX, data(0, 512)), BLK_ERR_RANGE);
    cr_expect_eq(blk_read(&rig.blk, 0, data(0, 100)), BLK_ERR_RANGE);
    cr_expect_eq(blk_submit(&rig.blk, BLK_READ, 0, many, BLK_DATA_SEGS + 1, NULL),
                 BLK_ERR_SEGMENTS);
    cr_expect_eq(blk_submit(&rig.blk, BLK_READ, 0, many, 0, NULL), BLK_ERR_SEGMENTS);
    rig.blk.read_only = true;
    cr_expect_eq(blk_write(&rig.blk, 0, data(0, 512)), BLK_ERR_READ_ONLY);
    cr_expect_eq(rig.disk.served, 0);
}

Test(blk, errors_of_the_device_come_through)
{
    take_device(FUNCTION_PCI_MODERN);
    cr_assert_eq(start_blk(), 0);
    rig.disk.size = 512; /* the medium shrank */
    cr_expect_eq(blk_read(&rig.blk, 1, data(0, 512)), BLK_ERR_IO);
    cr_expect_eq(blk_submit(&rig.blk, (enum blk_type)99, 0, NULL, 0, NULL), 0);
    cr_expect_eq(blk_drain(&rig.blk), BLK_ERR_UNSUPPORTED);
    rig.stuck = true;
    cr_expect_eq(blk_read(&rig.blk, 0, data(0, 512)), BLK_ERR_TIMEOUT);
}

Test(blk, sixteen_requests_and_no_more)
{
    struct blk_result result;
    struct virtq_seg seg;
    int cookies[BLK_DEPTH];
    unsigned done = 0;

    take_device(FUNCTION_MMIO);
    cr_assert_eq(start_blk(), 0);
    for (unsigned i = 0; i < BLK_DEPTH; i++) {
        seg = data(i * 512, 512);
        cr_assert_eq(blk_submit(&rig.blk, BLK_READ, i, &seg, 1, &cookies[i]), 0);
    }
    cr_expect_eq(blk_submit(&rig.blk, BLK_READ, 0, &seg, 1, NULL), BLK_ERR_BUSY);
    cr_expect_eq(blk_complete(&rig.blk, &result), 0, "nothing before the kick");
    blk_kick(&rig.blk);
    while (blk_complete(&rig.blk, &result) == 1) {
        cr_expect_eq(result.error, 0);
        cr_expect_eq((int *)result.cookie - cookies, (long)done);
        done++;
    }
    cr_expect_eq(done, BLK_DEPTH);
    cr_expect_eq(memcmp(guest + DATA, rig.medium, BLK_DEPTH * 512), 0);
}

Test(blk, hostile_device_breaks_the_queue_only)
{
    uint8_t *used;

    take_device(FUNCTION_PCI_MODERN);
    cr_assert_eq(start_blk(), 0);
    rig.stuck = true;
    used = map(NULL, rig.function.queue[0].reg.address[2], 4);
    used[2] = used[3] = 0x77;
    cr_expect_eq(blk_read(&rig.blk, 0, data(0, 512)), VIRTQ_ERR_USED_IDX);
    cr_expect_eq(blk_read(&rig.blk, 0, data(0, 512)), VIRTQ_ERR_BROKEN);
}

Test(blk, hostile_driver_makes_the_device_ask_for_a_reset)
{
    uint8_t *avail;

    take_device(FUNCTION_PCI_MODERN); /* V-STATUS-02, V-STATUS-03 */
    cr_assert_eq(start_blk(), 0);
    avail = map(NULL, rig.function.queue[0].reg.address[1], 4);
    avail[2] = avail[3] = 0x77;
    virtio_notify_send(&rig.blk.queue.notify, 0);
    cr_expect(virtio_drv_needs_reset(&rig.drv));
    cr_expect_eq(virtio_drv_irq_status(&rig.drv), VIRTIO_IRQ_CONFIG);
}

/* ---------------------------------------------------------------------------
 * The block device alone, with a medium of hooks
 * --------------------------------------------------------------------------- */
static unsigned hooks_called;

static bool hook_move(void *ctx, uint64_t at, void *to, uint32_t len)
{
    (void)ctx;
    hooks_called++;
    memcpy(to, rig.medium + at, len);
    return true;
}
static bool hook_write(void *ctx, uint64_t at, const void *from, uint32_t len)
{
    (void)ctx;
    hooks_called++;
    memcpy(rig.medium + at, from, len);
    return true;
}
static bool hook_flush(void *ctx)
{
    (void)ctx;
    hooks_called++;
    return true;
}
static bool hook_zero(void *ctx, uint64_t at, uint64_t len, bool unmap)
{
    (void)ctx;
    (void)unmap;
    hooks_called++;
    memset(rig.medium + at, 0, (size_t)len);
    return true;
}
static bool hook_discard(void *ctx, uint64_t at, uint64_t len)
{
    return hook_zero(ctx, at, len, true);
}

static void hooked_disk(void)
{
    static const struct blkdev_ops ops = {hook_move, hook_write, hook_flush, hook_zero, hook_discard};

    power_on(FUNCTION_PCI_MODERN);
    rig.disk.ops = &ops;
    rig.disk.queues = 1;
    hooks_called = 0;
}

static void put_number(uint8_t *at, unsigned width, uint64_t value)
{
    for (unsigned i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

/* Status of a request whose data, `length` bytes of guest memory at 64, go to the device. */
static uint8_t ask(uint32_t type, uint64_t sector, uint32_t length)
{
    struct virtq_seg seg[3] = {{GUEST, 16}, {GUEST + 64, length}, {GUEST + 32, 1}};
    struct virtq_chain chain = {seg, 3, 2, 1, 0};

    put_number(guest, 4, type);
    put_number(guest + 8, 8, sector);
    guest[32] = 0xff;
    cr_expect(blkdev_answer(&rig.disk, &chain) <= 1);
    return guest[32];
}

/* The same for one range of a discard (11) or of a write-zeroes (13). */
static uint8_t ask_range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    put_number(guest + 64, 8, sector);
    put_number(guest + 72, 4, sectors);
    put_number(guest + 76, 4, flags);
    return ask(type, 0, 16);
}

Test(blkdev, requests_it_does_not_support_are_answered_so)
{
    enum { OK, IOERR, UNSUPP };

    hooked_disk(); /* V-BLK-01 */
    cr_expect_eq(ask(99, 0, 16), UNSUPP);
    cr_expect_eq(ask_range(11, 0, 1, 1), UNSUPP, "a discard has no flags");
    cr_expect_eq(ask_range(11, 0, 1, 2), UNSUPP);
    cr_expect_eq(ask_range(13, 0, 1, 2), UNSUPP);
    cr_expect_eq(ask_range(13, 0, 129, 0), IOERR, "beyond the end");
    cr_expect_eq(ask_range(13, UINT64_MAX, 1, 0), IOERR);
    cr_expect_eq(ask_range(13, 0, 0, 0), OK);
    hooks_called = 0;
    put_number(guest + 72, 4, 1);
    cr_expect_eq(ask(13, 0, 24), IOERR, "a range and a half");
    cr_expect_eq(hooks_called, 0, "and nothing was done");
    cr_expect_eq(ask_range(13, 2, 1, 1), OK);
    cr_expect_eq(rig.medium[2 * 512 + 7], 0);
    cr_expect(rig.medium[2 * 512 - 1] != 0);
    cr_expect(rig.medium[3 * 512 + 7] != 0);
    cr_expect_eq(ask(1, 5, 512), OK);
    cr_expect_eq(memcmp(rig.medium + 5 * 512, guest + 64, 512), 0);
    rig.disk.ops = NULL;
    cr_expect_eq(ask_range(13, 0, 1, 0), UNSUPP, "not offered without hooks");
}

Test(blkdev, a_read_only_disk_is_not_written)
{
    uint8_t config[BLKDEV_CONFIG_SIZE];

    hooked_disk(); /* V-BLK-01, L-BLK-01, L-BLK-02 */
    rig.disk.read_only = true;
    cr_expect_eq(ask(1, 0, 512), 1);
    cr_expect_eq(ask_range(11, 0, 1, 0), 1);
    cr_expect_eq(ask_range(13, 0, 1, 0), 1);
    cr_expect_eq(hooks_called, 0);
    cr_expect_eq(blkdev_features(&rig.disk), 1u << 2 | 1u << 5 | 1u << 6 | 1u << 9);
    blkdev_config(&rig.disk, config);
    for (unsigned i = 36; i < BLKDEV_CONFIG_SIZE; i++)
        cr_expect_eq(config[i], 0, "byte %u is of what is not offered", i);
    rig.disk.read_only = false;
    blkdev_config(&rig.disk, config);
    for (unsigned i = 57; i < BLKDEV_CONFIG_SIZE; i++)
        cr_expect_eq(config[i], 0, "padding at %u", i);
    cr_expect_eq(config[56], 1);
}

Test(blkdev, a_batch_has_an_end)
{
    struct virtq_seg seg;
    bool irq;
    struct virtq_device *ring;

    take_device(FUNCTION_PCI_MODERN);
    cr_assert_eq(start_blk(), 0);
    rig.stuck = true;
    for (unsigned i = 0; i < BLK_DEPTH; i++) {
        seg = data(i * 512, 512);
        cr_assert_eq(blk_submit(&rig.blk, BLK_READ, i, &seg, 1, NULL), 0);
    }
    blk_kick(&rig.blk);
    ring = virtio_dev_ring(&rig.function.dev, 0);
    cr_expect_eq(blkdev_serve(&rig.disk, ring, &irq), 1, "there may be more");
    cr_expect_eq(rig.disk.served, BLKDEV_BATCH);
    cr_expect_eq(blkdev_serve(&rig.disk, ring, &irq), 0, "there was not, and kicks are wanted");
    cr_expect_not(irq);
}
