// SPDX-License-Identifier: MIT-0
/* A program with one ring format compiled in: the split ring, or with
 * -DVIRTIO_RING_ALWAYS=VIRTQ_PACKED the packed one. A queue of the other format is refused when it
 * starts, and its feature is not accepted. */
#include "tests/support/test_config.h"

#ifdef VIRTIO_RING_ALWAYS
#define VIRTIO_RING_FLAGS                                                                          \
    VIRTQ_EVENT_IDX | VIRTQ_IN_ORDER | VIRTQ_PACKED /* bare, as people write */
#else
#define VIRTIO_RING_FLAGS VIRTQ_EVENT_IDX | VIRTQ_IN_ORDER | VIRTQ_LEGACY
#endif

#include <criterion/criterion.h>
#include <string.h>

#include "virtio.h"

enum {
    NUM = 4,
    PRESENT = (VIRTIO_RING_FLAGS)&VIRTQ_PACKED,
    ABSENT = VIRTQ_PACKED - PRESENT,
    IS_PACKED = PRESENT != 0
};

static _Alignas(4096) uint8_t mem[VIRTIO_QUEUE_BYTES_LEGACY(NUM)];
static struct virtq_areas areas;
static struct virtq_driver driver;
static struct virtq_device device;
static struct virtq_slot slots[NUM];
static struct virtq_seg segs[NUM];
static struct virtq_chain chain;
static struct virtq_done done;

static void expect_refused(uint16_t flags)
{
    virtq_areas_set(&areas, mem, NUM, 64, flags);
    memset(mem, 0xa5, sizeof(mem));
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), VIRTQ_ERR_FLAGS);
    cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), VIRTQ_ERR_FLAGS);
    for (unsigned i = 0; i < sizeof(mem); i++)
        cr_assert_eq(mem[i], 0xa5);
}

Test(single_format, a_queue_of_the_other_is_refused)
{
    /* V-FEAT-03, T-75: never a ring of one format worked by the other's code */
    expect_refused(ABSENT);
    expect_refused(ABSENT | VIRTQ_EVENT_IDX);
    expect_refused(ABSENT | VIRTQ_EVENT_IDX | VIRTQ_IN_ORDER);
}

Test(single_format, a_property_that_is_left_out_is_refused)
{
    /* V-FEAT-03 */
    expect_refused(PRESENT | VIRTQ_INDIRECT);
    expect_refused(PRESENT | VIRTQ_EVENT_IDX | VIRTQ_ORDER_PLATFORM);
    expect_refused(PRESENT | VIRTQ_NOTIFY_ON_EMPTY);
}

Test(single_format, round_trips_of_the_one_that_is_there)
{
    /* the format is still told by the flags, and works */
    struct virtq_seg seg;

    seg.addr = 0x1000;
    seg.len = 64;
    virtq_areas_set(&areas, mem, NUM, 64, PRESENT);
    cr_assert_eq(virtq_driver_init(&driver, &areas, slots), 0);
    cr_assert_eq(virtq_device_init(&device, &areas, NULL, NULL), 0);
    chain.seg = segs;
    chain.capacity = NUM;
    for (uint32_t i = 0; i < 3 * NUM; i++) {
        cr_assert_eq(virtq_driver_add_writable(&driver, seg, &slots[i % NUM]), 0);
        virtq_driver_publish(&driver);
        cr_assert(virtq_driver_kick_due(&driver));
        cr_assert_eq(virtq_device_pop(&device, &chain), 1);
        cr_assert_eq(segs[0].len, 64);
        virtq_device_push(&device, chain.token, i);
        virtq_device_flush(&device);
        cr_assert(virtq_device_irq_due(&device));
        cr_assert_eq(virtq_driver_take(&driver, &done), 1);
        cr_assert_eq(done.cookie, &slots[i % NUM]);
        cr_assert_eq(done.written, i);
    }
}

/* ---------------------------------------------------------------------------
 * Negotiation, over a transport that offers everything
 * --------------------------------------------------------------------------- */
static uint8_t status;
static uint32_t accepted[4];
static unsigned enabled;

static uint8_t status_get(const struct virtio_drv *drv)
{
    (void)drv;
    return status;
}
static void status_set(const struct virtio_drv *drv, uint8_t value)
{
    (void)drv;
    status = value;
}
static uint32_t features_get(const struct virtio_drv *drv, unsigned word)
{
    (void)drv;
    (void)word;
    return UINT32_MAX;
}
static void features_set(const struct virtio_drv *drv, unsigned word, uint32_t value)
{
    (void)drv;
    accepted[word] = value;
}
static uint32_t queue_size(const struct virtio_drv *drv, uint16_t index)
{
    (void)drv;
    (void)index;
    return NUM;
}
static bool queue_in_use(const struct virtio_drv *drv)
{
    (void)drv;
    return false;
}
static int queue_enable(const struct virtio_drv *drv, uint16_t index,
                        const struct virtio_queue_addresses *at, struct virtio_notify *notify)
{
    (void)drv;
    (void)index;
    (void)at;
    (void)notify;
    enabled++;
    return 0;
}

static int set_up(const struct virtio_drv *drv)
{
    struct virtio_drv_queue queue;
    struct virtio_queue_setup setup;

    memset(&queue, 0, sizeof(queue));
    setup.num = NUM;
    setup.memory.cpu = mem;
    setup.memory.device = 0x10000;
    setup.memory.length = sizeof(mem);
    setup.slots = slots;
    return virtio_drv_queue_setup(drv, &queue, 0, &setup);
}

/* Negotiates VERSION_1 and, if `feature` is not 0, that one. */
static int negotiate(struct virtio_drv *drv, struct virtio_transport *transport, bool legacy,
                     unsigned feature)
{
    struct virtio_features wanted, none;

    memset(&wanted, 0, sizeof(wanted));
    memset(&none, 0, sizeof(none));
    memset(drv, 0, sizeof(*drv));
    memset(transport, 0, sizeof(*transport));
    transport->status_get = status_get;
    transport->status_set = status_set;
    transport->features_get = features_get;
    transport->features_set = features_set;
    transport->queue_size = queue_size;
    transport->queue_in_use = queue_in_use;
    transport->queue_enable = queue_enable;
    transport->feature_words = 4;
    transport->legacy = legacy;
    drv->transport = transport;
    enabled = 0;
    if (feature != 0)
        virtio_features_add(&wanted, feature);
    cr_assert_eq(virtio_drv_begin(drv), 0);
    return virtio_drv_negotiate(drv, &wanted, &none);
}

Test(single_format, the_feature_of_the_other_is_not_accepted)
{
    /* V-FEAT-03, T-75, D-FEAT-01: wanted and offered, but there is no code for it */
    struct virtio_transport transport;
    struct virtio_drv drv;

    cr_assert_eq(negotiate(&drv, &transport, false, VIRTIO_FEATURE_RING_PACKED), 0);
    cr_assert_eq(virtio_features_has(&drv.accepted, VIRTIO_FEATURE_RING_PACKED), IS_PACKED);
    cr_assert_eq((accepted[1] >> (VIRTIO_FEATURE_RING_PACKED - 32) & 1) != 0, IS_PACKED);
    cr_assert_eq(set_up(&drv), 0);
    cr_assert_eq(enabled, 1);
}

Test(single_format, without_packed_negotiated_there_is_no_queue)
{
    /* V-FEAT-03: a packed-only program on a device that was not asked for packed rings */
    struct virtio_transport transport;
    struct virtio_drv drv;

    cr_assert_eq(negotiate(&drv, &transport, false, 0), 0);
    cr_assert_eq(set_up(&drv), IS_PACKED ? VIRTQ_ERR_FLAGS : 0);
    cr_assert_eq(enabled, IS_PACKED ? 0 : 1);
}

Test(single_format, the_feature_of_a_property_that_is_left_out_is_not_accepted)
{
    /* V-FEAT-03, D-FEAT-01: on a modern device, and NOTIFY_ON_EMPTY on a legacy one */
    static const unsigned modern[] = {VIRTIO_FEATURE_INDIRECT_DESC, VIRTIO_FEATURE_ORDER_PLATFORM};
    struct virtio_transport transport;
    struct virtio_drv drv;

    if (IS_PACKED)
        return; /* there is no queue for these features alone */
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(negotiate(&drv, &transport, false, modern[i]), 0);
        cr_assert_not(virtio_features_has(&drv.accepted, modern[i]));
        cr_assert_eq(set_up(&drv), 0);
    }
    cr_assert_eq(negotiate(&drv, &transport, true, VIRTIO_FEATURE_NOTIFY_ON_EMPTY), 0);
    cr_assert_not(virtio_features_has(&drv.accepted, VIRTIO_FEATURE_NOTIFY_ON_EMPTY));
    cr_assert_eq(set_up(&drv), 0);
}

/* ----- an emulated device ----- */

static const struct virtio_dev_ops no_ops; /* no interest in anything */

/* Does the device take these features of words 0 and 1? Bytes of the common configuration. */
static bool device_takes(struct virtio_dev *dev, uint32_t low, uint32_t high)
{
    virtio_dev_write(dev, VIRTIO_VIEW_COMMON, 20, 1, 0);
    virtio_dev_write(dev, VIRTIO_VIEW_COMMON, 8, 4, 0);
    virtio_dev_write(dev, VIRTIO_VIEW_COMMON, 12, 4, low);
    virtio_dev_write(dev, VIRTIO_VIEW_COMMON, 8, 4, 1);
    virtio_dev_write(dev, VIRTIO_VIEW_COMMON, 12, 4, high);
    virtio_dev_write(dev, VIRTIO_VIEW_COMMON, 20, 1, 0x0b);
    return virtio_dev_read(dev, VIRTIO_VIEW_COMMON, 20, 1) == 0x0b;
}

Test(single_format, the_device_offers_and_takes_what_is_there)
{
    /* V-FEAT-01 to V-FEAT-03, V-INIT-02, T-75 */
    struct virtio_dev dev;

    memset(&dev, 0, sizeof(dev));
    dev.ops = &no_ops;
    dev.offered.word[0] = dev.offered.word[1] = ~0u;
    virtio_dev_init(&dev);
    cr_assert_eq(virtio_dev_read(&dev, VIRTIO_VIEW_COMMON, 4, 4), 0xa6ffffff,
                 "no INDIRECT_DESC, and none of the bits of legacy alone");
    virtio_dev_write(&dev, VIRTIO_VIEW_COMMON, 0, 4, 1);
    cr_assert_eq(virtio_dev_read(&dev, VIRTIO_VIEW_COMMON, 4, 4),
                 IS_PACKED ? 0xffffffef : 0xffffffeb, "no ORDER_PLATFORM, RING_PACKED as it is");
    cr_assert_eq(device_takes(&dev, 0, 1), !IS_PACKED);
    cr_assert_eq(device_takes(&dev, 1u << 29, 1u | 1u << 2), IS_PACKED);
    cr_assert_not(device_takes(&dev, 1u << 28, 1u | (IS_PACKED ? 1u << 2 : 0)));
}
