// SPDX-License-Identifier: MIT-0
/* The device side of virtio.h: registers of an emulated device in every view, accessed as a trap
 * handler would. Offsets and values are written out by hand; the names of the header are used only
 * where the tests play the device's author. */
#include <criterion/criterion.h>
#include <string.h>

#ifndef VIRTIO_RING_FLAGS
#define VIRTIO_RING_FLAGS 0x7f8 /* legacy rings of the other byte order too */
#endif
#include "virtio.h"

enum { GUEST = 0x40000000, GUEST_SIZE = 1 << 20, QUEUES = 4, SIZE = 64, CONFIG = 10 };
enum { COMMON = VIRTIO_VIEW_COMMON, NOTIFY = VIRTIO_VIEW_NOTIFY, ISR = VIRTIO_VIEW_ISR,
       PCICFG = VIRTIO_VIEW_CONFIG, LEGACY = VIRTIO_VIEW_LEGACY, RFC = VIRTIO_VIEW_RFC_HEADER,
       RFC_NOTIFY = VIRTIO_VIEW_RFC_NOTIFY, RFC_CONFIG = VIRTIO_VIEW_RFC_CONFIG,
       MMIO = VIRTIO_VIEW_MMIO, V1 = VIRTIO_VIEW_MMIO_V1 };

/* The device, and what it was told. */
static struct rig {
    struct virtio_dev dev;
    struct virtio_dev_queue queue[QUEUES];
    struct virtio_dev_pci pci;
    uint8_t config[CONFIG], config_legacy[CONFIG];
    unsigned kicks[QUEUES], ready[QUEUES], messages[8], stops[3], lines, maps, statuses;
    bool line, defer, refuse;
    uint32_t insist; /* features 32 to 63 without which it does not run */
    uint8_t was, now;
    uint16_t stopped_queue;
    bool wrote_legacy;
    uint32_t wrote_at, wrote_length;
    uint8_t wrote[4];
} rig;

static _Alignas(4096) uint8_t guest[GUEST_SIZE];

static void *map(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    cr_assert(len != 0 && addr + len >= addr);
    rig.maps++;
    if (addr < GUEST || addr - GUEST > GUEST_SIZE || len > GUEST_SIZE - (addr - GUEST))
        return NULL;
    return guest + (addr - GUEST);
}
static void kick(void *ctx, uint16_t queue)
{
    (void)ctx;
    cr_assert(queue < QUEUES);
    rig.kicks[queue]++;
}
static void line(void *ctx, bool level)
{
    (void)ctx;
    cr_expect(level != rig.line, "only changes are told");
    rig.line = level;
    rig.lines++;
}
static void msix(void *ctx, uint16_t vector)
{
    (void)ctx;
    cr_assert(vector < 8);
    rig.messages[vector]++;
}
static bool features(void *ctx, const struct virtio_features *accepted)
{
    (void)ctx;
    cr_expect_eq(accepted, &rig.dev.reg.accepted);
    return !rig.refuse && (accepted->word[1] & rig.insist) == rig.insist;
}
static void status(void *ctx, uint8_t was, uint8_t now)
{
    (void)ctx;
    rig.statuses++;
    rig.was = was;
    rig.now = now;
}
static void queue_ready(void *ctx, uint16_t queue)
{
    (void)ctx;
    rig.ready[queue]++;
}
static bool stop(void *ctx, enum virtio_stop what, uint16_t queue)
{
    (void)ctx;
    rig.stops[what]++;
    rig.stopped_queue = queue;
    return !rig.defer;
}
static void config_write(void *ctx, bool legacy, uint32_t offset, const uint8_t *bytes,
                         uint32_t len)
{
    (void)ctx;
    cr_assert(len >= 1 && len <= 4 && offset + len <= CONFIG);
    rig.wrote_legacy = legacy;
    rig.wrote_at = offset;
    rig.wrote_length = len;
    memcpy(rig.wrote, bytes, len);
}

static const struct virtio_dev_ops ops = {map,    kick,        line, msix,        features,
                                          status, queue_ready, stop, config_write};

static void power_on(void)
{
    memset(&rig, 0, sizeof(rig));
    memset(guest, 0, sizeof(guest));
    for (unsigned i = 0; i < CONFIG; i++) {
        rig.config[i] = (uint8_t)(0xc0 + i);
        rig.config_legacy[i] = (uint8_t)(0xe0 + i);
    }
    rig.dev.ops = &ops;
    rig.dev.device_type = 2;
    rig.dev.vendor_id = 0x554d4551;
    rig.dev.queue = rig.queue;
    rig.dev.queue_count = QUEUES;
    rig.dev.config = rig.config;
    rig.dev.config_length = CONFIG;
    rig.dev.msix_vectors = 8;
    rig.dev.notify_multiplier = 4;
    rig.dev.big_endian = VIRTIO_BIG_ENDIAN;
    rig.queue[0].max = SIZE;
    rig.queue[1].max = 16;
    rig.queue[2].max = 0; /* no such queue */
    rig.queue[3].max = 8;
    virtio_dev_init(&rig.dev);
}

static void offer(unsigned bit)
{
    virtio_features_add(&rig.dev.offered, bit);
}

static uint64_t rd(int view, uint64_t offset, unsigned width)
{
    return virtio_dev_read(&rig.dev, (enum virtio_view)view, offset, width);
}
static void wr(int view, uint64_t offset, unsigned width, uint64_t value)
{
    virtio_dev_write(&rig.dev, (enum virtio_view)view, offset, width, value);
}

/* The registers that the two modern transports share, where each has them. */
static const struct port {
    int view;
    unsigned offered_sel, offered, accepted_sel, accepted, status, status_width, generation,
        generation_width, select, size, enable, reset, width, address[3];
} ports[] = {{COMMON, 0, 4, 8, 12, 20, 1, 21, 1, 22, 24, 28, 58, 2, {32, 40, 48}},
             {MMIO, 0x14, 0x10, 0x24, 0x20, 0x70, 4, 0xfc, 4, 0x30, 0x38, 0x44, 0xc0, 4,
              {0x80, 0x90, 0xa0}}};

#define EACH_PORT(p) for (const struct port *p = ports; p < ports + 2; p++)

static uint8_t status_of(const struct port *p)
{
    return (uint8_t)rd(p->view, p->status, p->status_width);
}
static void set_status(const struct port *p, uint8_t value)
{
    wr(p->view, p->status, p->status_width, value);
}
static void accept_word(const struct port *p, uint32_t word, uint32_t bits)
{
    wr(p->view, p->accepted_sel, 4, word);
    wr(p->view, p->accepted, 4, bits);
}
static void up_to_features(const struct port *p, uint32_t low, uint32_t high)
{
    set_status(p, 0);
    set_status(p, 1);
    set_status(p, 3);
    accept_word(p, 0, low);
    accept_word(p, 1, high);
    set_status(p, 0x0b);
    cr_assert_eq(status_of(p), 0x0b);
}
/* Split: table, available ring, used ring on pages of their own. */
static void program(const struct port *p, unsigned index, unsigned size)
{
    wr(p->view, p->select, p->width, index);
    if (size != 0)
        wr(p->view, p->size, p->width, size);
    for (unsigned i = 0; i < 3; i++) {
        wr(p->view, p->address[i], 4, GUEST + index * 0x10000 + i * 0x4000);
        wr(p->view, p->address[i] + 4, 4, 0);
    }
}
static bool enable(const struct port *p, unsigned index, unsigned size)
{
    program(p, index, size);
    wr(p->view, p->enable, p->width, 1);
    return rd(p->view, p->enable, p->width) == 1;
}
static void notify(const struct port *p, unsigned index)
{
    if (p->view == MMIO)
        wr(MMIO, 0x50, 4, index);
    else
        wr(NOTIFY, 4 * index, 2, index);
}
/* Power on to DRIVER_OK with queue 0. */
static void up(const struct port *p, uint32_t low, uint32_t high)
{
    up_to_features(p, low, high | 1);
    cr_assert(enable(p, 0, 0));
    set_status(p, 0x0f);
    cr_assert_eq(status_of(p), 0x0f);
}

/* ----- device status and reset ----- */

Test(device_status, is_zero_at_power_on_and_only_gains_bits)
{
    EACH_PORT(p) { /* L-STATUS-01, L-STATUS-02, V-STATUS-04, T-29 */
        power_on();
        cr_expect_eq(status_of(p), 0);
        set_status(p, 1);
        set_status(p, 2);
        cr_expect_eq(status_of(p), 3, "a bit that is missing is not cleared");
        set_status(p, 0x80);
        cr_expect_eq(status_of(p), 0x83);
        set_status(p, 0x60);
        cr_expect_eq(status_of(p), 0x83, "not the driver's: NEEDS_RESET, bit 5");
        virtio_dev_needs_reset(&rig.dev);
        cr_expect_eq(status_of(p), 0xc3);
        set_status(p, 0x03);
        cr_expect_eq(status_of(p), 0xc3);
        set_status(p, 0);
        cr_expect_eq(status_of(p), 0);
        cr_expect_eq(rig.was, 0xc3);
        cr_expect_eq(rig.now, 0);
    }
}

Test(device_status, driver_ok_makes_queues_live)
{
    EACH_PORT(p) { /* V-STATUS-01, L-CLEAN-03, T-32 */
        power_on();
        up_to_features(p, 0, 1);
        cr_assert(enable(p, 0, 0));
        cr_expect_eq(rig.ready[0], 1);
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 0);
        cr_expect(virtio_dev_ring(&rig.dev, 0) == NULL);
        virtio_dev_interrupt(&rig.dev, 0);
        cr_expect_not(rig.line);
        set_status(p, 0x0f);
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 1);
        cr_expect(virtio_dev_ring(&rig.dev, 0) == &rig.queue[0].ring);
        virtio_dev_interrupt(&rig.dev, 0);
        cr_expect(rig.line);
        notify(p, 1);
        notify(p, 2);
        notify(p, 77);
        cr_expect_eq(rig.kicks[1] + rig.kicks[2] + rig.kicks[3], 0, "off, absent, out of range");
    }
}

Test(device_status, driver_ok_needs_features_ok)
{
    EACH_PORT(p) { /* V-INIT-02, D-INIT-01 */
        power_on();
        set_status(p, 0x07);
        cr_expect_eq(status_of(p), 0x03);
        set_status(p, 0x0f);
        cr_expect_eq(status_of(p), 0x03, "no VERSION_1: neither");
        accept_word(p, 1, 1);
        set_status(p, 0x0f);
        cr_expect_eq(status_of(p), 0x0f);
    }
}

Test(device_status, needs_reset_stops_queues_and_tells)
{
    EACH_PORT(p) { /* V-STATUS-02, V-STATUS-03 */
        power_on();
        up_to_features(p, 0, 1);
        virtio_dev_needs_reset(&rig.dev);
        cr_expect_not(rig.line, "before DRIVER_OK nobody listens");
        power_on();
        up(p, 0, 0);
        rig.statuses = 0;
        virtio_dev_needs_reset(&rig.dev);
        virtio_dev_needs_reset(&rig.dev);
        cr_expect_eq(rig.statuses, 1, "told once");
        cr_expect_eq(status_of(p), 0x4f);
        cr_expect(rig.line);
        cr_expect_eq(rig.dev.reg.isr, 2);
        cr_expect_eq(rig.now, 0x4f);
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 0);
        cr_expect(virtio_dev_ring(&rig.dev, 0) == NULL);
    }
}

Test(device_reset, brings_everything_back)
{
    EACH_PORT(p) { /* V-RESET-01 to V-RESET-04, V-COM-04, V-MMIO-03, V-RR-03, V-MSX-02 */
        power_on();
        offer(VIRTIO_FEATURE_RING_RESET);
        up_to_features(p, 0, 1u | 1u << 8);
        cr_assert(enable(p, 0, 8));
        cr_assert(enable(p, 1, 4));
        set_status(p, 0x0f);
        wr(COMMON, 16, 2, 1);
        wr(COMMON, 26, 2, 2);
        virtio_dev_interrupt(&rig.dev, 0);
        virtio_dev_config_changed(&rig.dev);
        cr_expect_eq(rig.dev.reg.isr, 3);
        cr_expect(rig.line);
        set_status(p, 0);
        cr_expect_eq(status_of(p), 0);
        cr_expect_not(rig.line);
        cr_expect_eq(rd(ISR, 0, 1), 0);
        cr_expect_eq(rd(MMIO, 0x60, 4), 0);
        cr_expect_eq(rd(COMMON, 16, 2), 0xffff);
        cr_expect_eq(rd(COMMON, 8, 4), 0);
        cr_expect_eq(rd(COMMON, 12, 4), 0);
        cr_expect_eq(rd(COMMON, 22, 2), 0, "queue_select");
        for (unsigned i = 0; i < 2; i++) {
            wr(COMMON, 22, 2, i);
            cr_expect_eq(rd(COMMON, 24, 2), i == 0 ? 64 : 16);
            cr_expect_eq(rd(COMMON, 26, 2), 0xffff);
            cr_expect_eq(rd(COMMON, 28, 2), 0);
            cr_expect_eq(rd(COMMON, 58, 2), 0);
            cr_expect_eq(rd(COMMON, 32, 8), 0);
            cr_expect(virtio_dev_ring(&rig.dev, (uint16_t)i) == NULL);
        }
        virtio_dev_interrupt(&rig.dev, 0);
        virtio_dev_config_changed(&rig.dev);
        notify(p, 0);
        cr_expect_not(rig.line, "nothing after a reset");
        cr_expect_eq(rig.kicks[0], 0);
        for (unsigned word = 0; word < 4; word++)
            cr_expect_eq(rig.dev.reg.accepted.word[word], 0);
        set_status(p, 1);
        virtio_dev_config_changed(&rig.dev);
        up(p, 0, 1u << 8); /* V-FEAT-04: what was accepted once is again */
        cr_expect_not(rig.line, "nor is it owed afterwards");
    }
}

Test(device_reset, can_take_its_time)
{
    EACH_PORT(p) { /* V-COM-03, V-RESET-02, D-RESET-02 */
        power_on();
        up(p, 0, 0);
        rig.stops[VIRTIO_STOP_RESET] = 0;
        rig.defer = true;
        set_status(p, 0);
        cr_expect_eq(rig.stops[VIRTIO_STOP_RESET], 1);
        cr_expect_eq(status_of(p), 0x0f);
        set_status(p, 0);
        set_status(p, 1);
        virtio_dev_reset(&rig.dev);
        cr_expect_eq(rig.stops[VIRTIO_STOP_RESET], 1, "asked once");
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 0);
        cr_expect(virtio_dev_ring(&rig.dev, 0) == NULL);
        virtio_dev_interrupt(&rig.dev, 0);
        virtio_dev_config_changed(&rig.dev);
        cr_expect_not(rig.line);
        wr(p->view, p->select, p->width, 1);
        cr_expect_eq(rig.dev.reg.queue_select, 0, "stores do nothing");
        virtio_dev_needs_reset(&rig.dev);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_SUSPEND, 0);
        cr_expect_neq(status_of(p), 0);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_RESET, 0);
        cr_expect_eq(status_of(p), 0);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_RESET, 0);
        rig.defer = false;
        up(p, 0, 0);
        rig.defer = true; /* even one that finds the status at 0 */
        set_status(p, 0);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_RESET, 0);
        set_status(p, 0);
        cr_expect_neq(status_of(p), 0);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_RESET, 0);
        cr_expect_eq(status_of(p), 0);
    }
}

/* ----- features ----- */

static uint32_t offered_word(const struct port *p, uint32_t word)
{
    wr(p->view, p->offered_sel, 4, word);
    return (uint32_t)rd(p->view, p->offered, 4);
}

Test(device_features, selectors_show_128_bits_and_nothing_beyond)
{
    /* V-COM-01, L-FEAT-07, V-FEAT-03, V-FEAT-05, V-RES-03, T-06, T-12, D-FEAT-05, D-LEG-10 */
    static const uint32_t all[2][2] = {{0xb6ffffff, 0xffffffff}, {0xb6ffffff, 0xfffffd5f}};

    EACH_PORT(p) {
        power_on();
        cr_expect_eq(offered_word(p, 1), 1, "VERSION_1 by itself");
        cr_expect_eq(offered_word(p, 0), 0);
        for (unsigned word = 0; word < 4; word++)
            rig.dev.offered.word[word] = ~0u;
        cr_expect_eq(offered_word(p, 0), all[p - ports][0], "%#x", offered_word(p, 0));
        cr_expect_eq(offered_word(p, 1), all[p - ports][1], "%#x", offered_word(p, 1));
        cr_expect_eq(offered_word(p, 2), ~0u);
        cr_expect_eq(offered_word(p, 3), ~0u);
        cr_expect_eq(offered_word(p, 4), 0);
        cr_expect_eq(offered_word(p, 0x80000000), 0);
        cr_expect_eq(offered_word(p, ~0u), 0);
    }
}

Test(device_features, accepted_bits_read_back_and_freeze)
{
    power_on(); /* V-COM-02, D-INIT-03 */
    offer(5);
    offer(70);
    accept_word(&ports[0], 0, 0xff);
    accept_word(&ports[0], 2, 1u << 6);
    accept_word(&ports[0], 77, ~0u);
    wr(COMMON, 8, 4, 0);
    cr_expect_eq(rd(COMMON, 12, 4), 1u << 5, "valid ones only");
    wr(COMMON, 8, 4, 2);
    cr_expect_eq(rd(COMMON, 12, 4), 1u << 6);
    wr(COMMON, 8, 4, 77);
    cr_expect_eq(rd(COMMON, 12, 4), 0);
    up_to_features(&ports[0], 1u << 5, 1);
    accept_word(&ports[0], 0, 0);
    accept_word(&ports[0], 1, 0);
    cr_expect_eq(rig.dev.reg.accepted.word[0], 1u << 5);
    cr_expect_eq(rig.dev.reg.accepted.word[1], 1);
    wr(LEGACY, 4, 4, 0);
    cr_expect_eq(rig.dev.reg.accepted.word[0], 1u << 5, "by no window");
}

Test(device_features, unfit_sets_are_refused)
{
    EACH_PORT(p) { /* V-INIT-02, V-FEAT-01, V-FEAT-02, V-FEAT-05, V-RES-02 */
        power_on();
        offer(5);
        set_status(p, 3);
        set_status(p, 0x0b);
        cr_expect_eq(status_of(p), 3, "without VERSION_1");
        accept_word(p, 1, 1);
        accept_word(p, 0, 1u << 6);
        set_status(p, 0x0b);
        cr_expect_eq(status_of(p), 3, "not offered");
        accept_word(p, 0, 1u << 5);
        rig.refuse = true;
        set_status(p, 0x0b);
        cr_expect_eq(status_of(p), 3, "the device does not want it");
        rig.refuse = false;
        set_status(p, 0x0b);
        cr_expect_eq(status_of(p), 0x0b);
        set_status(p, 0);
        accept_word(p, 1, 1);
        set_status(p, 0x0b);
        cr_expect_eq(status_of(p), 0x0b, "any subset");
    }
}

Test(device_features, translated_memory_may_be_insisted_on)
{
    EACH_PORT(p) { /* V-RES-01: ACCESS_PLATFORM is offered as given, and may be demanded */
        power_on();
        offer(VIRTIO_FEATURE_ACCESS_PLATFORM);
        rig.insist = 1u << (VIRTIO_FEATURE_ACCESS_PLATFORM - 32);
        cr_expect_eq(offered_word(p, 1), 3);
        set_status(p, 3);
        accept_word(p, 1, 1);
        set_status(p, 0x0b);
        cr_expect_eq(status_of(p), 3);
        accept_word(p, 1, 3);
        set_status(p, 0x0b);
        cr_expect_eq(status_of(p), 0x0b);
    }
}

/* ----- device configuration ----- */

Test(device_config, any_width_at_any_offset_is_bytes)
{
    static const int views[] = {PCICFG, RFC_CONFIG, MMIO, V1, LEGACY};
    static const unsigned at[] = {0, 0, 0x100, 0x100, 20};

    power_on(); /* V-CFG-02, V-INIT-01, L-CFG-06, L-PLEG-04, L-PLEG-05, D-PLEG-03, R-28 */
    for (unsigned v = 0; v < 5; v++) {
        for (unsigned offset = 0; offset < CONFIG + 9; offset++) {
            for (unsigned width = 0; width <= 9; width++) {
                uint64_t expected = 0;
                bool is_width = width == 1 || width == 2 || width == 4 || width == 8;

                for (unsigned i = 0; i < width && is_width; i++)
                    expected |= (uint64_t)(offset + i < CONFIG ? 0xc0u + offset + i : 0) << 8 * i;
                cr_expect_eq(rd(views[v], at[v] + offset, width), expected, "view %d %u/%u",
                             views[v], offset, width);
            }
        }
    }
    rig.dev.config = NULL;
    cr_expect_eq(rd(MMIO, 0x100, 4), 0);
    cr_expect_eq(rd(PCICFG, 0xffffffffffffffff, 4), 0);
    cr_expect_eq(rd(PCICFG, 0xfffffffc, 8), 0);
    wr(COMMON, UINT64_MAX - 3, 8, UINT64_MAX); /* its upper half is not at 0 */
    cr_expect_eq(rd(COMMON, 0, 4), 0);
}

Test(device_config, legacy_views_show_guest_order)
{
    power_on(); /* L-LEG-05, R-27, D-MLEG-04 */
    rig.dev.config_legacy = rig.config_legacy;
    cr_expect_eq(rd(PCICFG, 1, 2), 0xc2c1);
    cr_expect_eq(rd(MMIO, 0x101, 2), 0xc2c1);
    cr_expect_eq(rd(RFC_CONFIG, 1, 2), 0xe2e1);
    cr_expect_eq(rd(LEGACY, 21, 2), 0xe2e1);
    cr_expect_eq(rd(V1, 0x101, 2), 0xe2e1);
}

Test(device_config, writes_are_clipped_and_told)
{
    power_on(); /* V-LEG-02, V-CFG-02 */
    wr(PCICFG, 3, 2, 0xaabbccdd);
    cr_expect_eq(rig.wrote_at, 3);
    cr_expect_eq(rig.wrote_length, 2);
    cr_expect_eq(memcmp(rig.wrote, "\xdd\xcc", 2), 0);
    cr_expect_not(rig.wrote_legacy);
    wr(LEGACY, 20 + 8, 4, 0x11223344); /* before any status */
    cr_expect_eq(rig.wrote_at, 8);
    cr_expect_eq(rig.wrote_length, 2, "the rest is past the end");
    cr_expect_eq(memcmp(rig.wrote, "\x44\x33", 2), 0);
    cr_expect(rig.wrote_legacy);
    wr(MMIO, 0x100, 8, 0x8877665544332211); /* two halves */
    cr_expect_eq(rig.wrote_at, 4);
    cr_expect_eq(memcmp(rig.wrote, "\x55\x66\x77\x88", 4), 0);
    rig.wrote_length = 0;
    wr(MMIO, 0x10a, 1, 1);
    wr(MMIO, 0x100, 3, 1);
    wr(MMIO, 0x100, 0, 1);
    wr(PCICFG, 0x100000000, 1, 1);
    cr_expect_eq(rig.wrote_length, 0);
    cr_expect_eq(rig.config[0], 0xc0, "what is stored is the device's affair");
}

Test(device_config, generation_is_bumped_once_a_look)
{
    EACH_PORT(p) { /* V-CFG-01, V-CFG-04, T-35 */
        uint64_t before, after;

        power_on();
        up(p, 0, 0);
        before = rd(p->view, p->generation, p->generation_width);
        cr_expect_eq(rd(p->view, p->generation, p->generation_width), before);
        for (unsigned changes = 1; changes <= 1024; changes *= 2) {
            for (unsigned i = 0; i < changes; i++) {
                virtio_dev_config_changed(&rig.dev);
                (void)rd(PCICFG, 0, 4); /* the driver reads a field between any two */
            }
            after = rd(p->view, p->generation, p->generation_width);
            cr_expect_neq(after, before, "%u changes", changes);
            cr_expect_eq(rd(p->view, p->generation, p->generation_width), after);
            before = after;
        }
        virtio_dev_config_changed(&rig.dev);
        set_status(p, 0);
        cr_expect_neq(rd(p->view, p->generation, p->generation_width), before, "nor lost by reset");
    }
}

Test(device_config, change_is_notified_once_the_driver_listens)
{
    EACH_PORT(p) { /* V-CFG-03, V-ISR-01 */
        power_on();
        virtio_dev_config_changed(&rig.dev);
        accept_word(p, 1, 1);
        set_status(p, 0x0f);
        cr_expect_not(rig.line, "there was no driver then");
        up_to_features(p, 0, 1);
        virtio_dev_config_changed(&rig.dev);
        cr_expect_not(rig.line);
        set_status(p, 0x0f);
        cr_expect(rig.line);
        cr_expect_eq(rd(ISR, 0, 1), 2);
        virtio_dev_config_changed(&rig.dev);
        cr_expect_eq(rd(ISR, 0, 1), 2);
        cr_expect_eq(rd(ISR, 0, 1), 0);
    }
}

/* ----- queues ----- */

Test(device_queue, absent_and_out_of_range_ones_are_harmless)
{
    static const uint32_t absent[] = {2, 4, 0x7fff, 0xffff, 0x10000, 0xffffffff};

    EACH_PORT(p) { /* V-COM-05, V-COM-07, L-VQ-01, T-28 */
        power_on();
        up_to_features(p, 0, 1);
        for (unsigned i = 0; i < 6 && (p->view == MMIO || absent[i] <= 0xffff); i++) {
            cr_expect_not(enable(p, absent[i], 4), "queue %#x", absent[i]);
            wr(COMMON, 26, 2, 3);
            cr_expect_eq(rd(COMMON, 24, 2), 0);
            cr_expect_eq(rd(COMMON, 26, 2), 0xffff);
            cr_expect_eq(rd(COMMON, 28, 2), 0);
            cr_expect_eq(rd(COMMON, 30, 2), 0);
            cr_expect_eq(rd(COMMON, 32, 8), 0);
            cr_expect_eq(rd(MMIO, 0x34, 4), 0);
            wr(MMIO, 0xc0, 4, 1);
        }
        cr_expect_eq(rig.maps, 0);
        wr(p->view, p->select, p->width, 1);
        cr_expect_eq(rd(COMMON, 18, 2), 4);
        cr_expect_eq(rd(COMMON, 24, 2), 16);
        cr_expect_eq(rd(COMMON, 30, 2), 1);
        cr_expect_eq(rd(MMIO, 0x34, 4), 16);
    }
}

Test(device_queue, size_is_honoured_within_its_maximum)
{
    static const uint32_t good[] = {1, 2, 32, 64}, bad[] = {0, 3, 48, 65, 128, 0xffff};

    EACH_PORT(p) { /* V-COM-05, V-COM-08, V-MMIO-07, D-COM-02, T-84, T-85 */
        for (unsigned i = 0; i < 4; i++) {
            power_on();
            up_to_features(p, 0, 1);
            cr_assert(enable(p, 0, good[i]));
            cr_expect_eq(rig.queue[0].ring.last + 1u, good[i]);
            if (p->view == COMMON)
                cr_expect_eq(rd(COMMON, 24, 2), good[i]);
        }
        for (unsigned i = 0; i < 6; i++) {
            power_on();
            up_to_features(p, 0, 1);
            program(p, 0, 32);
            wr(p->view, p->size, p->width, bad[i]);
            wr(p->view, p->enable, p->width, 1);
            if (p->view == COMMON) {
                cr_expect_eq(rd(COMMON, 24, 2), 32, "ignored, and the driver can see it");
                cr_expect_eq(rig.queue[0].ring.last, 31);
            } else {
                cr_expect_eq(rd(MMIO, 0x44, 4), 0, "refused: the driver cannot see it");
                wr(MMIO, 0x38, 4, 8);
                wr(MMIO, 0x44, 4, 1);
                cr_expect_eq(rd(MMIO, 0x44, 4), 1);
            }
        }
    }
}

Test(device_queue, packed_sizes_need_no_power_of_two)
{
    EACH_PORT(p) { /* V-COM-05, T-75 */
        power_on();
        offer(VIRTIO_FEATURE_RING_PACKED);
        rig.queue[0].max = 48;
        up_to_features(p, 0, 1);
        wr(p->view, p->select, p->width, 0);
        cr_expect_eq(rd(COMMON, 24, 2), 32, "split");
        cr_expect_eq(rd(MMIO, 0x34, 4), 32);
        up_to_features(p, 0, 1u | 1u << 2);
        wr(p->view, p->select, p->width, 0);
        cr_expect_eq(rd(COMMON, 24, 2), 48);
        cr_assert(enable(p, 0, 7));
        cr_expect_eq(rig.queue[0].ring.last, 6);
        cr_expect_eq(rig.queue[0].ring.flags & VIRTQ_PACKED, VIRTQ_PACKED);
    }
}

Test(device_queue, parameters_are_latched_while_it_is_on)
{
    EACH_PORT(p) { /* V-COM-08, V-MMIO-07, D-COM-03, D-COM-04, D-MMIO-06 */
        struct virtio_dev_queue_regs before;

        power_on();
        up(p, 0, 0);
        before = rig.queue[0].reg;
        program(p, 0, 4);
        for (unsigned i = 0; i < 3; i++)
            wr(p->view, p->address[i], 4, 0x1234);
        wr(p->view, p->enable, p->width, 1);
        if (p->view == COMMON)
            wr(COMMON, 28, 2, 0); /* a driver never does */
        cr_expect_eq(memcmp(&before, &rig.queue[0].reg, sizeof(before)), 0);
        cr_expect_eq(rig.ready[0], 1);
        cr_expect_eq(rd(COMMON, 28, 2), 1);
        cr_expect(virtio_dev_ring(&rig.dev, 0) != NULL);
    }
}

Test(device_queue, memory_must_be_memory)
{
    static const uint64_t bad[] = {0, GUEST + GUEST_SIZE, GUEST + GUEST_SIZE - 16, GUEST + 1,
                                   UINT64_MAX - 15, 0x100000000 + GUEST};

    EACH_PORT(p) { /* V-MMIO-04 */
        for (unsigned i = 0; i < 6; i++) {
            for (unsigned area = 0; area < 3; area++) {
                power_on();
                up_to_features(p, 0, 1);
                program(p, 0, 32);
                wr(p->view, p->address[area], 4, bad[i] & UINT32_MAX);
                wr(p->view, p->address[area] + 4, 4, bad[i] >> 32);
                wr(p->view, p->enable, p->width, 1);
                cr_expect_eq(rd(p->view, p->enable, p->width), 0, "area %u at %#llx", area,
                             (unsigned long long)bad[i]);
                cr_expect_eq(rig.ready[0], 0);
                set_status(p, 0x0f);
                notify(p, 0);
                cr_expect_eq(rig.kicks[0], 0);
            }
        }
    }
}

Test(device_queue, is_not_enabled_before_features_are_settled)
{
    EACH_PORT(p) {
        power_on();
        set_status(p, 3);
        cr_expect_not(enable(p, 0, 0));
        accept_word(p, 1, 1);
        set_status(p, 0x0b);
        wr(p->view, p->enable, p->width, 0);
        cr_expect_eq(rd(p->view, p->enable, p->width), 0);
        cr_expect(enable(p, 0, 0));
    }
}

Test(device_queue, addresses_have_64_bits_in_two_halves)
{
    power_on(); /* L-CAP-10, D-CAP-09 */
    for (unsigned i = 0; i < 3; i++) {
        wr(COMMON, 32 + 8 * i, 4, 0x11111111 * (i + 1));
        wr(COMMON, 36 + 8 * i, 4, 0x01010101 * (i + 1));
        cr_expect_eq(rig.queue[0].reg.address[i],
                     0x0101010100000000u * (i + 1) + 0x11111111u * (i + 1));
        cr_expect_eq(rd(COMMON, 32 + 8 * i, 4), 0x11111111 * (i + 1));
        cr_expect_eq(rd(COMMON, 36 + 8 * i, 4), 0x01010101 * (i + 1));
        wr(COMMON, 32 + 8 * i, 8, 0xfedcba9876543210);
        cr_expect_eq(rd(COMMON, 32 + 8 * i, 8), 0xfedcba9876543210);
        wr(MMIO, 0x80 + 0x10 * i, 4, 5 + i);
        wr(MMIO, 0x84 + 0x10 * i, 4, 9 + i);
        cr_expect_eq(rig.queue[0].reg.address[i], (uint64_t)(9 + i) << 32 | (5 + i));
        cr_expect_eq(rd(MMIO, 0x80 + 0x10 * i, 4), 0, "write only");
    }
}

Test(device_queue, mmio_ready_stops_and_starts)
{
    power_on(); /* L-MMIO-08, D-MMIO-07, V-MMIO-04 */
    up(&ports[1], 0, 0);
    wr(MMIO, 0x44, 4, 0);
    cr_expect_eq(rd(MMIO, 0x44, 4), 0);
    cr_expect_eq(rig.stops[VIRTIO_STOP_QUEUE], 1);
    wr(MMIO, 0x50, 4, 0);
    cr_expect_eq(rig.kicks[0], 0);
    virtio_dev_interrupt(&rig.dev, 0);
    cr_expect_not(rig.line);
    wr(MMIO, 0x44, 4, 1); /* its parameters are still there */
    cr_expect_eq(rd(MMIO, 0x44, 4), 1);
    rig.defer = true;
    wr(MMIO, 0x44, 4, 0);
    cr_expect_eq(rd(MMIO, 0x44, 4), 1, "still in use");
    cr_expect_eq(rd(MMIO, 0xc0, 4), 0, "but no reset");
    cr_expect(virtio_dev_ring(&rig.dev, 0) == NULL);
    virtio_dev_stopped(&rig.dev, VIRTIO_STOP_QUEUE, 0);
    cr_expect_eq(rd(MMIO, 0x44, 4), 0);
    cr_expect_eq(rd(MMIO, 0xc0, 4), 0);
}

/* ----- RING_RESET ----- */

Test(device_queue_reset, needs_the_feature)
{
    EACH_PORT(p) { /* V-RR-02, D-RR-04 */
        power_on();
        up(p, 0, 0);
        wr(p->view, p->reset, p->width, 1);
        cr_expect_eq(rd(p->view, p->reset, p->width), 0);
        cr_expect_eq(rd(p->view, p->enable, p->width), 1);
    }
}

Test(device_queue_reset, can_take_its_time)
{
    EACH_PORT(p) { /* V-RR-01 to V-RR-04, V-MMIO-05, D-RR-01 to D-RR-03, T-40 */
        power_on();
        offer(VIRTIO_FEATURE_RING_RESET);
        up_to_features(p, 0, 1u | 1u << 8);
        cr_assert(enable(p, 0, 32));
        cr_assert(enable(p, 1, 0));
        set_status(p, 0x0f);
        rig.queue[0].ring.popped_idx = 5;
        wr(p->view, p->select, p->width, 0);
        wr(COMMON, 26, 2, 3);
        rig.defer = true;
        wr(p->view, p->reset, p->width, 1);
        wr(p->view, p->reset, p->width, 1);
        cr_expect_eq(rig.stops[VIRTIO_STOP_QUEUE], 1);
        cr_expect_eq(rig.stopped_queue, 0);
        cr_expect_eq(rd(p->view, p->reset, p->width), 1);
        cr_expect_eq(rd(p->view, p->enable, p->width), 1);
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 0);
        cr_expect(virtio_dev_ring(&rig.dev, 0) == NULL);
        notify(p, 1);
        cr_expect_eq(rig.kicks[1], 1, "the others go on");
        wr(p->view, p->enable, p->width, 1);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_QUEUE, 1);
        cr_expect(virtio_dev_ring(&rig.dev, 1) != NULL, "that one was not asked");
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_QUEUE, 0);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_QUEUE, 99);
        cr_expect_eq(rd(p->view, p->reset, p->width), 0);
        cr_expect_eq(rd(p->view, p->enable, p->width), 0);
        cr_expect_eq(rd(COMMON, 24, 2), 64, "parameters at their default");
        cr_expect_eq(rd(COMMON, 26, 2), 0xffff);
        cr_expect_eq(rd(COMMON, 32, 8), 0);
        virtio_dev_interrupt(&rig.dev, 0);
        cr_expect_not(rig.line);
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 0);
        cr_assert(enable(p, 0, 4));
        cr_expect_eq(rig.queue[0].ring.last, 3);
        cr_expect_eq(rig.queue[0].ring.popped_idx, 0, "a fresh ring");
        cr_expect_eq(rd(p->view, p->reset, p->width), 0);
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 1);
        rig.defer = false;
        wr(p->view, p->reset, p->width, 0);
        wr(p->view, p->reset, p->width, 2);
        cr_expect_eq(rd(p->view, p->enable, p->width), 1, "only 1 resets");
        wr(p->view, p->reset, p->width, 1);
        cr_expect_eq(rd(p->view, p->reset, p->width), 0, "at once");
        cr_expect_eq(rd(p->view, p->enable, p->width), 0);
    }
}

/* ----- SUSPEND ----- */

enum { SUSPEND_BIT = 1 << 11 };

Test(device_suspend, is_ignored_before_it_is_due)
{
    EACH_PORT(p) { /* V-SUS-01, D-SUS-01 */
        power_on();
        offer(VIRTIO_FEATURE_SUSPEND);
        set_status(p, 0x13);
        up_to_features(p, 0, 1u | SUSPEND_BIT);
        set_status(p, 0x1b);
        cr_expect_eq(status_of(p), 0x0b);
        set_status(p, 0x1f);
        cr_expect_eq(status_of(p), 0x0f, "not together with DRIVER_OK either");
        cr_expect_eq(rig.stops[VIRTIO_STOP_SUSPEND], 0);
        power_on();
        up(p, 0, 0); /* not negotiated */
        set_status(p, 0x1f);
        cr_expect_eq(status_of(p), 0x0f);
    }
}

Test(device_suspend, and_resume)
{
    EACH_PORT(p) { /* V-SUS-02, V-SUS-03, V-SUS-05, D-SUS-02, D-SUS-03 */
        power_on();
        offer(VIRTIO_FEATURE_SUSPEND);
        up(p, 0, SUSPEND_BIT);
        rig.defer = true;
        set_status(p, 0x1f);
        set_status(p, 0x1f);
        cr_expect_eq(rig.stops[VIRTIO_STOP_SUSPEND], 1);
        cr_expect_eq(status_of(p), 0x0f, "not yet");
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 0, "nothing new is taken");
        cr_expect(virtio_dev_ring(&rig.dev, 0) == NULL);
        virtio_dev_interrupt(&rig.dev, 0); /* for what was in flight */
        cr_expect_eq(rd(ISR, 0, 1), 1);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_SUSPEND, 0);
        cr_expect_eq(status_of(p), 0x1b);
        cr_expect_eq(rig.now, 0x1b);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_SUSPEND, 0);
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 0);
        virtio_dev_interrupt(&rig.dev, 0);
        virtio_dev_config_changed(&rig.dev);
        cr_expect_eq(rig.dev.reg.isr, 0);
        wr(PCICFG, 0, 1, 7);
        cr_expect_eq(rig.wrote_length, 0);
        set_status(p, 0x1b);
        cr_expect_eq(status_of(p), 0x1b);
        set_status(p, 0x1f);
        cr_expect_eq(status_of(p), 0x0f);
        cr_expect_eq(rd(ISR, 0, 1), 3, "what was kept back");
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 1);
        wr(PCICFG, 0, 1, 7);
        cr_expect_eq(rig.wrote_length, 1);
        rig.defer = false;
        set_status(p, 0x1f);
        cr_expect_eq(status_of(p), 0x1b, "at once");
        set_status(p, 0x0f);
        cr_expect_eq(status_of(p), 0x0f);
        cr_expect_eq(rd(ISR, 0, 1), 0);
    }
}

Test(device_suspend, a_queue_set_up_through_the_legacy_window_rests_too)
{
    /* V-SUS-02: only a hostile driver mixes the windows */
    power_on();
    offer(VIRTIO_FEATURE_SUSPEND);
    wr(LEGACY, 14, 2, 0);
    wr(LEGACY, 8, 4, GUEST / 4096);
    cr_assert_neq(rd(LEGACY, 8, 4), 0);
    set_status(&ports[0], 3);
    accept_word(&ports[0], 1, 1u | SUSPEND_BIT);
    set_status(&ports[0], 0x0b);
    set_status(&ports[0], 0x0f);
    wr(LEGACY, 16, 2, 0);
    cr_expect_eq(rig.kicks[0], 1);
    set_status(&ports[0], 0x1f);
    cr_assert_eq(status_of(&ports[0]), 0x1b);
    wr(LEGACY, 16, 2, 0);
    cr_expect_eq(rig.kicks[0], 1);
    cr_expect(virtio_dev_ring(&rig.dev, 0) == NULL);
}

Test(device_suspend, failure_asks_for_a_reset)
{
    EACH_PORT(p) { /* V-SUS-04 */
        power_on();
        offer(VIRTIO_FEATURE_SUSPEND);
        up(p, 0, SUSPEND_BIT);
        rig.defer = true;
        set_status(p, 0x1f);
        virtio_dev_needs_reset(&rig.dev);
        cr_expect_eq(status_of(p), 0x4f);
        cr_expect_eq(rd(ISR, 0, 1), 2);
        rig.defer = false;
        set_status(p, 0);
        cr_expect_eq(status_of(p), 0);
        virtio_dev_stopped(&rig.dev, VIRTIO_STOP_SUSPEND, 0);
        cr_expect_eq(status_of(p), 0, "came too late");
        up(p, 0, SUSPEND_BIT);
        set_status(p, 0x1f);
        virtio_dev_needs_reset(&rig.dev);
        cr_expect_eq(status_of(p), 0x5b);
        cr_expect_eq(rd(ISR, 0, 1), 0, "silent while it is suspended");
        set_status(p, 0x5f);
        cr_expect_eq(status_of(p), 0x4f);
        cr_expect_eq(rd(ISR, 0, 1), 2);
        notify(p, 0);
        cr_expect_eq(rig.kicks[0], 0);
    }
}

/* ----- notifications ----- */

Test(device_notify, address_names_the_queue)
{
    static const uint32_t multipliers[] = {2, 4, 4096};

    for (unsigned i = 0; i < 3; i++) { /* L-NTF-01, V-NTF-01, V-NTF-02, V-NOTE-01, V-VQ-03, T-21 */
        uint32_t m = multipliers[i];

        power_on();
        rig.dev.notify_multiplier = m;
        up_to_features(&ports[0], 0, 1);
        cr_assert(enable(&ports[0], 0, 0) && enable(&ports[0], 3, 0));
        set_status(&ports[0], 0x0f);
        wr(COMMON, 22, 2, 3);
        cr_expect_eq(rd(COMMON, 30, 2), 3);
        cr_expect_eq(virtio_dev_notify_length(&rig.dev), 3 * m + 4);
        wr(NOTIFY, 3 * m, 2, 3);
        wr(NOTIFY, 3 * m, 4, 0xffff0000); /* what is written is a hint */
        cr_expect_eq(rig.kicks[3], 2);
        wr(NOTIFY, 3 * m + 1, 2, 3);
        wr(NOTIFY, 3 * m, 1, 3);
        wr(NOTIFY, 4 * m, 2, 0);
        wr(NOTIFY, m, 2, 0);
        wr(NOTIFY, 0xfffffff0, 4, 0);
        wr(NOTIFY, 0x100000000, 2, 0);
        wr(NOTIFY, 0xfffffffc, 8, 0); /* whose upper half is past 32 bits */
        cr_expect_eq(rig.kicks[0], 0);
        cr_expect_eq(rig.kicks[3], 2);
        cr_expect_eq(rd(NOTIFY, 0, 4), 0);
    }
}

Test(device_notify, shared_address_goes_by_what_is_written)
{
    power_on(); /* L-NTF-01, L-NOTE-01, D-NOTE-02 */
    offer(VIRTIO_FEATURE_NOTIF_CONFIG_DATA);
    offer(VIRTIO_FEATURE_NOTIFICATION_DATA);
    rig.dev.notify_multiplier = 0;
    rig.queue[3].notify_data = 0x5a5a;
    up_to_features(&ports[0], 0, 1u | 1u << 6);
    cr_assert(enable(&ports[0], 0, 0) && enable(&ports[0], 3, 0));
    set_status(&ports[0], 0x0f);
    cr_expect_eq(rd(COMMON, 30, 2), 0, "all at one place");
    cr_expect_eq(rd(COMMON, 56, 2), 0, "not negotiated");
    wr(NOTIFY, 0, 4, 0x80010003);
    cr_expect_eq(rig.kicks[3], 1);
    wr(NOTIFY, 4, 4, 3);
    cr_expect_eq(rig.kicks[3], 1);
    up_to_features(&ports[0], 0, 1u | 1u << 6 | 1u << 7);
    cr_assert(enable(&ports[0], 0, 0) && enable(&ports[0], 3, 0));
    set_status(&ports[0], 0x0f);
    cr_expect_eq(rd(COMMON, 56, 2), 0x5a5a);
    wr(NOTIFY, 0, 4, 0x80015a5a);
    wr(NOTIFY, 0, 2, 0x5a5a);
    cr_expect_eq(rig.kicks[3], 3);
    wr(NOTIFY, 0, 2, 3);
    cr_expect_eq(rig.kicks[3], 3, "the index means nothing now");
    wr(NOTIFY, 0, 2, 0);
    cr_expect_eq(rig.kicks[0], 1);
}

Test(device_notify, mmio_goes_by_the_index)
{
    power_on(); /* L-NOTE-01, L-NOTE-04 */
    offer(VIRTIO_FEATURE_NOTIFICATION_DATA);
    up_to_features(&ports[1], 0, 1u | 1u << 6);
    cr_assert(enable(&ports[1], 3, 0));
    set_status(&ports[1], 0x0f);
    wr(MMIO, 0x50, 4, 0x80070003);
    wr(MMIO, 0x50, 2, 3);
    cr_expect_eq(rig.kicks[3], 1);
    cr_expect_eq(rd(MMIO, 0x50, 4), 0);
}

/* ----- interrupts ----- */

Test(device_irq, isr_is_cleared_by_reading)
{
    power_on(); /* L-ISR-01, V-ISR-01 to V-ISR-03 */
    up(&ports[0], 0, 0);
    virtio_dev_interrupt(&rig.dev, 0);
    virtio_dev_interrupt(&rig.dev, 0);
    cr_expect(rig.line);
    cr_expect_eq(rig.lines, 1);
    virtio_dev_config_changed(&rig.dev);
    cr_expect_eq(rd(ISR, 0, 2), 0, "not its width");
    cr_expect_eq(rd(ISR, 1, 1), 0);
    cr_expect(rig.line);
    cr_expect_eq(rd(ISR, 0, 1), 3);
    cr_expect_not(rig.line);
    cr_expect_eq(rd(ISR, 0, 1), 0);
    wr(ISR, 0, 1, 3);
    cr_expect_eq(rig.dev.reg.isr, 0);
}

Test(device_irq, mmio_bits_stay_until_acknowledged)
{
    power_on(); /* V-MMIO-02, D-MMIO-08 */
    up(&ports[1], 0, 0);
    virtio_dev_interrupt(&rig.dev, 0);
    virtio_dev_config_changed(&rig.dev);
    cr_expect_eq(rd(MMIO, 0x60, 4), 3);
    cr_expect_eq(rd(MMIO, 0x60, 4), 3);
    wr(MMIO, 0x64, 4, 1);
    cr_expect_eq(rd(MMIO, 0x60, 4), 2);
    cr_expect(rig.line);
    wr(MMIO, 0x64, 4, 0xfffffffc);
    cr_expect(rig.line);
    wr(MMIO, 0x64, 4, 2);
    cr_expect_not(rig.line);
    wr(MMIO, 0x60, 4, 3);
    cr_expect_eq(rd(MMIO, 0x60, 4), 0, "the driver cannot set them");
}

Test(device_irq, vectors_read_back_or_none)
{
    power_on(); /* L-MSX-01, V-MSX-02 to V-MSX-04, D-MSX-02, D-MSX-03, T-41 */
    up(&ports[0], 0, 0);
    virtio_dev_irq_mode(&rig.dev, true, false);
    for (unsigned v = 0; v < 12; v++) {
        wr(COMMON, 16, 2, v);
        wr(COMMON, 26, 2, 11 - v);
        cr_expect_eq(rd(COMMON, 16, 2), v < 8 ? v : 0xffff);
        cr_expect_eq(rd(COMMON, 26, 2), 11 - v < 8 ? 11 - v : 0xffff);
    }
    wr(COMMON, 16, 2, 5);
    wr(COMMON, 26, 2, 6);
    virtio_dev_interrupt(&rig.dev, 0);
    cr_expect_eq(rig.messages[6], 1);
    cr_expect_eq(rig.dev.reg.isr, 0, "R-31");
    virtio_dev_config_changed(&rig.dev);
    cr_expect_eq(rig.messages[5], 1);
    cr_expect_eq(rig.dev.reg.isr, 2, "V-ISR-01");
    cr_expect_not(rig.line);
    wr(COMMON, 16, 2, 0xffff);
    wr(COMMON, 26, 2, 0xffff);
    virtio_dev_interrupt(&rig.dev, 0);
    virtio_dev_config_changed(&rig.dev);
    cr_expect_eq(rig.messages[5] + rig.messages[6], 2, "unmapped");
    cr_expect_not(rig.line);
    wr(COMMON, 16, 2, 6);
    wr(COMMON, 26, 2, 6);
    virtio_dev_interrupt(&rig.dev, 0);
    virtio_dev_config_changed(&rig.dev);
    cr_expect_eq(rig.messages[6], 3, "any event, any vector");
    virtio_dev_irq_mode(&rig.dev, false, false);
    cr_expect(rig.line, "INTx says what is still pending");
    set_status(&ports[0], 0);
    cr_expect_eq(rd(COMMON, 16, 2), 0xffff);
    power_on();
    rig.dev.msix_vectors = 0;
    virtio_dev_irq_mode(&rig.dev, true, false);
    wr(COMMON, 16, 2, 0);
    cr_expect_eq(rd(COMMON, 16, 2), 0xffff, "no MSI-X capability");
    up(&ports[0], 0, 0);
    virtio_dev_interrupt(&rig.dev, 0);
    cr_expect(rig.line);
}

/* ----- administration queues ----- */

Test(device_admin, queues_appear_with_the_feature)
{
    power_on(); /* V-COM-06, L-VQ-01 */
    rig.dev.admin_count = 1;
    cr_expect_eq(rd(COMMON, 18, 2), 3);
    cr_expect_eq(rd(COMMON, 60, 4), 0, "not offered");
    cr_expect_eq(rd(COMMON, 60, 2), 0);
    offer(VIRTIO_FEATURE_ADMIN_VQ);
    cr_expect_eq(rd(COMMON, 60, 2), 3);
    cr_expect_eq(rd(COMMON, 62, 2), 1);
    up_to_features(&ports[0], 0, 1);
    cr_expect_not(enable(&ports[0], 3, 0), "not negotiated");
    cr_expect_eq(rd(COMMON, 24, 2), 0);
    up_to_features(&ports[0], 0, 1u | 1u << 9);
    cr_expect(enable(&ports[0], 3, 0));
    cr_expect_eq(rd(COMMON, 18, 2), 3);
}

Test(device_common, length_follows_what_is_offered)
{
    power_on(); /* D-COM-06, T-25 */
    cr_expect_eq(virtio_dev_common_length(&rig.dev), 56);
    offer(VIRTIO_FEATURE_NOTIF_CONFIG_DATA);
    cr_expect_eq(virtio_dev_common_length(&rig.dev), 60);
    power_on();
    offer(VIRTIO_FEATURE_RING_RESET);
    cr_expect_eq(virtio_dev_common_length(&rig.dev), 60);
    offer(VIRTIO_FEATURE_ADMIN_VQ);
    cr_expect_eq(virtio_dev_common_length(&rig.dev), 64);
}

/* ----- virtio-mmio ----- */

Test(device_mmio, identifies_itself)
{
    power_on(); /* V-MMIO-01, D-MMIO-01 */
    cr_expect_eq(rd(MMIO, 0, 4), 0x74726976);
    cr_expect_eq(rd(MMIO, 4, 4), 2);
    cr_expect_eq(rd(V1, 0, 4), 0x74726976);
    cr_expect_eq(rd(V1, 4, 4), 1);
    cr_expect_eq(rd(MMIO, 8, 4), 2);
    cr_expect_eq(rd(V1, 12, 4), 0x554d4551);
}

Test(device_mmio, shared_memory_regions)
{
    static const struct virtio_dev_shm shm[] = {{1, 0x123456789a, 0xfedcba9876}, {200, 5, 6}};

    power_on(); /* V-MMIO-06, L-SHM-03 */
    cr_expect_eq(rd(MMIO, 0xb0, 8), UINT64_MAX, "none at all");
    rig.dev.shm = shm;
    rig.dev.shm_count = 2;
    wr(MMIO, 0xac, 4, 1);
    cr_expect_eq(rd(MMIO, 0xb0, 4), 0xdcba9876);
    cr_expect_eq(rd(MMIO, 0xb4, 4), 0xfe);
    cr_expect_eq(rd(MMIO, 0xb8, 4), 0x3456789a);
    cr_expect_eq(rd(MMIO, 0xbc, 4), 0x12);
    wr(MMIO, 0xac, 4, 200);
    cr_expect_eq(rd(MMIO, 0xb0, 4), 6);
    cr_expect_eq(rd(MMIO, 0xb8, 4), 5);
    wr(MMIO, 0x70, 4, 0);
    cr_expect_eq(rd(MMIO, 0xb0, 4), 0xffffffff, "reset selects 0");
    wr(MMIO, 0xac, 4, 257);
    cr_expect_eq(rd(MMIO, 0xb0, 4), 0xffffffff);
    cr_expect_eq(rd(MMIO, 0xb4, 4), 0xffffffff);
    cr_expect_eq(rd(MMIO, 0xb8, 4), 0xffffffff);
    cr_expect_eq(rd(MMIO, 0xbc, 4), 0xffffffff);
    cr_expect_eq(rd(V1, 0xb0, 4), 0, "not in version 1");
}

static void v1_up_to_queue(void)
{
    power_on();
    wr(V1, 0x70, 4, 1);
    wr(V1, 0x70, 4, 3);
    wr(V1, 0x24, 4, 0);
    wr(V1, 0x20, 4, 0);
    wr(V1, 0x30, 4, 0);
}

Test(device_mmio_v1, queue_address_is_page_times_size)
{
    static const uint32_t pages[] = {512, 4096, 65536};

    for (unsigned i = 0; i < 3; i++) { /* V-MLEG-01, D-MLEG-01, D-MLEG-02, T-86, T-87, T-89 */
        for (uint32_t align = 4; align <= 8192; align *= 2) {
            uint32_t used = (18u * 16 + 6 + align - 1) / align * align;

            v1_up_to_queue();
            wr(V1, 0x28, 4, pages[i]);
            cr_expect_eq(rd(V1, 0x40, 4), 0);
            cr_expect_eq(rd(V1, 0x34, 4), 64);
            wr(V1, 0x38, 4, 16);
            wr(V1, 0x3c, 4, align);
            wr(V1, 0x40, 4, (GUEST + 0x10000) / pages[i]);
            cr_expect_eq(rd(V1, 0x40, 4), (GUEST + 0x10000) / pages[i]);
            cr_expect_eq(rig.queue[0].ring.last, 15);
            cr_expect_eq((uint8_t *)rig.queue[0].ring.desc - guest, 0x10000);
            cr_expect_eq((uint8_t *)rig.queue[0].ring.driver - guest, 0x10000 + 256);
            cr_expect_eq((uint8_t *)rig.queue[0].ring.device - guest, (long)(0x10000 + used));
            cr_expect(rig.queue[0].ring.flags & VIRTQ_LEGACY);
            wr(V1, 0x50, 4, 0);
            cr_expect_eq(rig.kicks[0], 1, "V-LEG-02: before DRIVER_OK");
            wr(V1, 0x70, 4, 0);
            cr_expect_eq(rd(V1, 0x40, 4), 0);
            wr(V1, 0x3c, 4, align);
            wr(V1, 0x40, 4, (GUEST + 0x10000) / pages[i]);
            cr_expect_eq(rd(V1, 0x40, 4), 0, "no page size since the reset");
        }
    }
}

Test(device_mmio_v1, nonsense_is_refused)
{
    static const uint32_t bad[][4] = { /* page size, align, size, page */
        {0, 4096, 16, GUEST / 4096},    {4096, 0, 16, GUEST / 4096}, {4095, 4096, 16, GUEST / 4096},
        {4096, 6, 16, GUEST / 4096},    {4096, 2, 16, GUEST / 4096}, {4096, 4096, 0, GUEST / 4096},
        {4096, 4096, 17, GUEST / 4096}, {4096, 4096, 128, GUEST / 4096},
        {4096, 4096, 16, 0xffffffff},   {0x80000000, 0x80000000, 16, 0xffffffff}};

    for (unsigned i = 0; i < 10; i++) { /* V-MLEG-02, D-MLEG-03, V-MMIO-07 */
        v1_up_to_queue();
        wr(V1, 0x28, 4, bad[i][0]);
        wr(V1, 0x38, 4, bad[i][2]);
        wr(V1, 0x3c, 4, bad[i][1]);
        wr(V1, 0x40, 4, bad[i][3]);
        cr_expect_eq(rd(V1, 0x40, 4), 0, "case %u", i);
        cr_expect(rig.maps == 0 || i > 7, "case %u", i);
        wr(V1, 0x70, 4, 7);
        wr(V1, 0x50, 4, 0);
        cr_expect_eq(rig.kicks[0], 0, "case %u", i);
    }
}

Test(device_mmio_v1, page_zero_stops_and_features_are_legacy)
{
    v1_up_to_queue(); /* D-MLEG-03, D-MLEG-04, V-LEG-01 */
    for (unsigned word = 0; word < 4; word++)
        rig.dev.offered.word[word] = ~0u;
    wr(V1, 0x14, 4, 1);
    cr_expect_eq(rd(V1, 0x10, 4), 0xfffff400, "none of 32 to 41, nor 43");
    wr(V1, 0x14, 4, 0);
    cr_expect_eq(rd(V1, 0x10, 4), 0xffffffff);
    wr(V1, 0x24, 4, 1);
    wr(V1, 0x20, 4, 0xffffffff);
    cr_expect_eq(rig.dev.reg.accepted.word[1], 0xfffff400);
    wr(V1, 0x28, 4, 4096);
    wr(V1, 0x3c, 4, 4096);
    wr(V1, 0x40, 4, GUEST / 4096);
    cr_assert_eq(rd(V1, 0x40, 4), GUEST / 4096);
    wr(V1, 0x40, 4, GUEST / 4096 + 1);
    cr_expect_eq(rd(V1, 0x40, 4), GUEST / 4096, "in use");
    rig.defer = true;
    wr(V1, 0x40, 4, 0);
    cr_expect_eq(rd(V1, 0x40, 4), GUEST / 4096, "still in use");
    virtio_dev_stopped(&rig.dev, VIRTIO_STOP_QUEUE, 0);
    cr_expect_eq(rd(V1, 0x40, 4), 0);
    wr(V1, 0x40, 4, GUEST / 4096 + 1);
    cr_expect_eq(rd(V1, 0x40, 4), GUEST / 4096 + 1);
    wr(V1, 0x70, 4, 0x1f);
    cr_expect_eq(rd(V1, 0x70, 4), 0x07, "no FEATURES_OK, no SUSPEND");
    wr(V1, 0x24, 4, 0);
    wr(V1, 0x20, 4, 1);
    cr_expect_eq(rig.dev.reg.accepted.word[0], 0, "settled at DRIVER_OK");
}

/* ----- legacy PCI ----- */

Test(device_legacy, whole_life)
{
    /* V-PLEG-01, V-PLEG-02, V-LEG-01, V-LEG-02, D-PLEG-06, D-LEG-02, D-LEG-04, L-LEG-03, R-30 */
    power_on();
    rig.dev.offered.word[0] = 0x39000001;
    rig.dev.offered.word[1] = 0xffffffff;
    wr(LEGACY, 18, 1, 0);
    wr(LEGACY, 18, 1, 1);
    wr(LEGACY, 18, 1, 3);
    cr_expect_eq(rd(LEGACY, 0, 4), 0x39000001);
    wr(LEGACY, 4, 4, 0xffffffff);
    cr_expect_eq(rd(LEGACY, 4, 4), 0x39000001, "what is not offered is dropped");
    cr_expect_eq(rig.dev.reg.accepted.word[1], 0);
    wr(LEGACY, 14, 2, 1);
    cr_expect_eq(rd(LEGACY, 14, 2), 1);
    cr_expect_eq(rd(LEGACY, 12, 2), 16);
    cr_expect_eq(rd(LEGACY, 8, 4), 0);
    wr(LEGACY, 12, 2, 4);
    wr(LEGACY, 8, 4, GUEST / 4096 + 2);
    cr_expect_eq(rd(LEGACY, 8, 4), GUEST / 4096 + 2);
    cr_expect_eq(rig.queue[1].ring.last, 15, "no negotiation");
    cr_expect_eq((uint8_t *)rig.queue[1].ring.driver - guest, 2 * 4096 + 256);
    cr_expect_eq((uint8_t *)rig.queue[1].ring.device - guest, 3 * 4096);
    cr_expect_eq(rig.queue[1].ring.flags & (VIRTQ_LEGACY | VIRTQ_PACKED | VIRTQ_EVENT_IDX |
                                            VIRTQ_INDIRECT | VIRTQ_NOTIFY_ON_EMPTY),
                 VIRTQ_LEGACY | VIRTQ_EVENT_IDX | VIRTQ_INDIRECT | VIRTQ_NOTIFY_ON_EMPTY);
    wr(LEGACY, 16, 2, 1);
    cr_expect_eq(rig.kicks[1], 1);
    virtio_dev_interrupt(&rig.dev, 1);
    cr_expect(rig.line);
    cr_expect_eq(rd(LEGACY, 19, 1), 1);
    cr_expect_not(rig.line);
    wr(LEGACY, 18, 1, 7);
    cr_expect_eq(rd(LEGACY, 18, 1), 7);
    wr(LEGACY, 8, 4, 0);
    cr_expect_eq(rd(LEGACY, 8, 4), 0);
    wr(LEGACY, 16, 2, 1);
    cr_expect_eq(rig.kicks[1], 1);
    wr(LEGACY, 14, 2, 2);
    cr_expect_eq(rd(LEGACY, 12, 2), 0);
    wr(LEGACY, 8, 4, GUEST / 4096);
    cr_expect_eq(rd(LEGACY, 8, 4), 0);
    wr(LEGACY, 18, 1, 0);
    cr_expect_eq(rd(LEGACY, 18, 1), 0);
}

Test(device_legacy, config_moves_with_msix)
{
    power_on(); /* L-PLEG-05, R-17, R-31, T-17 */
    cr_expect_eq(rd(LEGACY, 20, 2), 0xc1c0);
    virtio_dev_irq_mode(&rig.dev, true, false);
    cr_expect_eq(rd(LEGACY, 20, 2), 0xffff);
    wr(LEGACY, 20, 2, 3);
    wr(LEGACY, 22, 2, 4);
    cr_expect_eq(rd(LEGACY, 20, 2), 3);
    cr_expect_eq(rd(LEGACY, 22, 2), 4);
    cr_expect_eq(rd(LEGACY, 24, 2), 0xc1c0);
    wr(LEGACY, 22, 2, 8);
    cr_expect_eq(rd(LEGACY, 22, 2), 0xffff);
    virtio_dev_irq_mode(&rig.dev, false, false);
    cr_expect_eq(rd(LEGACY, 20, 2), 0xc1c0);
    cr_expect_eq(rig.wrote_length, 0);
}

/* The guest's way of writing a number. */
static void guest_put(uint32_t at, uint64_t value, unsigned bytes, bool big)
{
    for (unsigned i = 0; i < bytes; i++, value >>= 8)
        guest[at + (big ? bytes - 1 - i : i)] = (uint8_t)value;
}

Test(device_legacy, ring_is_in_guest_byte_order)
{
    for (unsigned big = 0; big < 2; big++) { /* L-LEG-05, T-91 */
        bool can = big == VIRTIO_BIG_ENDIAN || (VIRTQ_CAN_ & VIRTQ_FOREIGN_ENDIAN) != 0;
        struct virtq_seg seg = {0, 0};
        struct virtq_chain chain = {&seg, 1, 0, 0, 0};

        power_on();
        rig.dev.big_endian = big != 0;
        guest_put(0, 0x123456789abc, 8, big != 0);
        guest_put(8, 0x55aa, 4, big != 0);
        guest_put(64 * 16 + 2, 1, 2, big != 0);
        wr(LEGACY, 8, 4, GUEST / 4096);
        cr_expect_eq(rd(LEGACY, 8, 4), can ? GUEST / 4096 : 0, "refused if not compiled in");
        if (!can)
            continue;
        cr_assert_eq(virtq_device_pop(&rig.queue[0].ring, &chain), 1);
        cr_expect_eq(seg.addr, 0x123456789abc);
        cr_expect_eq(seg.len, 0x55aau);
    }
    power_on();
    rig.dev.big_endian = !VIRTIO_BIG_ENDIAN;
    up(&ports[0], 0, 0); /* of no concern to a modern driver */
}

Test(device_legacy, pages_are_not_for_a_modern_driver)
{
    power_on(); /* V-LEG-01, T-88 */
    up_to_features(&ports[0], 0, 1);
    wr(LEGACY, 8, 4, GUEST / 4096);
    cr_expect_eq(rd(LEGACY, 8, 4), 0);
    cr_expect_eq(rig.maps, 0);
    power_on();
    offer(VIRTIO_FEATURE_RING_PACKED);
    accept_word(&ports[0], 1, 1u << 2); /* begun in one window, gone on in another */
    wr(LEGACY, 8, 4, GUEST / 4096);
    cr_expect_eq(rig.queue[0].ring.flags, VIRTQ_LEGACY);
    power_on();
    wr(COMMON, 24, 2, 4);
    wr(LEGACY, 8, 4, GUEST / 4096);
    cr_expect_eq(rig.queue[0].ring.last, 63, "the size that the legacy window shows");
}

/* ----- the RFC of 2011 ----- */

Test(device_rfc, two_windows_are_one_device)
{
    static const struct {
        unsigned offset, width;
        uint32_t value;
    } both[] = {{4, 4, 0x11}, {14, 2, 1}, {8, 4, GUEST / 4096}, {18, 1, 3}, {20, 2, 5}, {22, 2, 6}};

    for (unsigned from_rfc = 0; from_rfc < 2; from_rfc++) { /* T-92 */
        int here = from_rfc ? RFC : LEGACY, there = from_rfc ? LEGACY : RFC;

        power_on();
        virtio_dev_irq_mode(&rig.dev, true, false);
        rig.dev.offered.word[0] = 0xff;
        for (unsigned i = 0; i < 6; i++) {
            wr(here, both[i].offset, both[i].width, both[i].value);
            cr_expect_eq(rd(there, both[i].offset, both[i].width), both[i].value, "%u",
                         both[i].offset);
        }
        cr_expect_eq(rd(RFC, 12, 2), 16);
        cr_expect_eq(rd(LEGACY, 12, 2), 16);
        cr_expect_eq(rd(RFC, 0, 4), rd(LEGACY, 0, 4));
        wr(RFC_NOTIFY, 0, 2, 1);
        wr(LEGACY, 16, 2, 1);
        cr_expect_eq(rig.kicks[1], 2);
        rig.dev.reg.isr = 1;
        cr_expect_eq(rd(from_rfc ? ISR : LEGACY, from_rfc ? 0 : 19, 1), 1);
        cr_expect_eq(rd(from_rfc ? LEGACY : ISR, from_rfc ? 19 : 0, 1), 0, "read once");
        cr_expect_eq(rd(RFC_CONFIG, 0, 4), rd(LEGACY, 24, 4));
        wr(there, 18, 1, 0);
        cr_expect_eq(rd(here, 18, 1), 0);
        cr_expect_eq(rd(here, 8, 4), 0);
    }
}

Test(device_rfc, header_stays_in_place)
{
    power_on(); /* R-AMB-1, R-AMB-4, R-AMB-5 */
    rig.dev.offered.word[0] = 0x80000000;
    rig.dev.offered.word[1] = 0xffffffff;
    rig.dev.reg.isr = 3;
    for (unsigned on = 0; on < 2; on++) {
        virtio_dev_irq_mode(&rig.dev, on != 0, false);
        wr(RFC, 20, 2, 2);
        wr(RFC, 22, 2, 7);
        cr_expect_eq(rd(RFC, 20, 2), on ? 2 : 0xffff);
        cr_expect_eq(rd(RFC, 22, 2), on ? 7 : 0xffff);
        cr_expect_eq(rig.dev.reg.config_vector, on ? 2 : 0xffff);
        cr_expect_eq(rd(RFC, 24, 4), 0xfffff400);
        wr(RFC, 28, 4, 0xf0000000);
        cr_expect_eq(rd(RFC, 28, 4), 0xf0000000);
        wr(RFC, 4, 4, 0); /* bit 31 switches nothing */
        cr_expect_eq(rd(RFC, 28, 4), 0xf0000000);
        cr_expect_eq(rd(RFC, 24, 4), 0xfffff400);
        for (unsigned offset = 16; offset < 20; offset++) {
            for (unsigned width = 1; width <= 8; width *= 2) {
                if (offset == 18 && width == 1)
                    continue;
                cr_expect_eq(rd(RFC, offset, width), 0);
                wr(RFC, offset, width, 0);
            }
        }
        cr_expect_eq(rig.dev.reg.isr, 3, "read here it is not acknowledged");
        cr_expect_eq(rig.kicks[0], 0);
    }
}

Test(device_rfc, rings_are_legacy)
{
    power_on(); /* R-AMB-6 */
    rig.dev.offered.word[1] = 0xffffffff;
    wr(RFC, 28, 4, 0xffffffff);
    wr(RFC, 8, 4, GUEST / 4096);
    cr_expect_eq(rd(RFC, 8, 4), GUEST / 4096);
    cr_expect_eq(rig.queue[0].ring.flags & (VIRTQ_LEGACY | VIRTQ_PACKED | VIRTQ_IN_ORDER),
                 VIRTQ_LEGACY);
    cr_expect_eq(rd(RFC, 21, 1), 0, "no generation here");
}

/* ----- every access has a defined result ----- */

/* What each view shows in the state below, written out by hand; `how`: 1 readable, 2 writable. */
struct cell {
    unsigned offset, width, how;
    uint32_t value;
};
static const struct cell common_cells[] = {
    {0, 4, 3, 1},      {4, 4, 1, 0x101},   {8, 4, 3, 1},       {12, 4, 3, 0x101}, {16, 2, 3, 5},
    {18, 2, 1, 4},     {20, 1, 3, 0x0f},   {21, 1, 1, 0},      {22, 2, 3, 1},     {24, 2, 3, 8},
    {26, 2, 3, 6},     {28, 2, 3, 1},      {30, 2, 1, 1},      {32, 4, 3, GUEST + 0x10000},
    {36, 4, 3, 0},     {40, 4, 3, GUEST + 0x14000}, {44, 4, 3, 0}, {48, 4, 3, GUEST + 0x18000},
    {52, 4, 3, 0},     {56, 2, 1, 0},      {58, 2, 3, 0},      {60, 2, 1, 0},     {62, 2, 1, 0}};
static const struct cell mmio_cells[] = {
    {0x00, 4, 1, 0x74726976}, {0x04, 4, 1, 2}, {0x08, 4, 1, 2}, {0x0c, 4, 1, 0x554d4551},
    {0x10, 4, 1, 0x101}, {0x14, 4, 2, 0}, {0x20, 4, 2, 0}, {0x24, 4, 2, 0}, {0x30, 4, 2, 0},
    {0x34, 4, 1, 16},    {0x38, 4, 2, 0}, {0x44, 4, 3, 1}, {0x50, 4, 2, 0}, {0x60, 4, 1, 1},
    {0x64, 4, 2, 0},     {0x70, 4, 3, 0x0f}, {0x80, 4, 2, 0}, {0x84, 4, 2, 0}, {0x90, 4, 2, 0},
    {0x94, 4, 2, 0},     {0xa0, 4, 2, 0}, {0xa4, 4, 2, 0}, {0xac, 4, 2, 0}, {0xb0, 4, 1, ~0u},
    {0xb4, 4, 1, ~0u},   {0xb8, 4, 1, ~0u}, {0xbc, 4, 1, ~0u}, {0xc0, 4, 3, 0}, {0xfc, 4, 1, 0}};
static const struct cell v1_cells[] = {
    {0x00, 4, 1, 0x74726976}, {0x04, 4, 1, 1}, {0x08, 4, 1, 2}, {0x0c, 4, 1, 0x554d4551},
    {0x10, 4, 1, 0},     {0x14, 4, 2, 0}, {0x20, 4, 2, 0}, {0x24, 4, 2, 0}, {0x28, 4, 2, 0},
    {0x30, 4, 2, 0},     {0x34, 4, 1, 16}, {0x38, 4, 2, 0}, {0x3c, 4, 2, 0}, {0x40, 4, 3, 0},
    {0x50, 4, 2, 0},     {0x60, 4, 1, 1}, {0x64, 4, 2, 0}, {0x70, 4, 3, 0x0f}};
static const struct cell legacy_cells[] = {
    {0, 4, 1, 0x20}, {4, 4, 3, 0x20}, {8, 4, 3, 0}, {12, 2, 1, 16}, {14, 2, 3, 1}, {16, 2, 2, 0},
    {18, 1, 3, 0x0f}, {19, 1, 1, 1}};
static const struct cell rfc_cells[] = {
    {0, 4, 1, 0x20}, {4, 4, 3, 0x20}, {8, 4, 3, 0}, {12, 2, 1, 16}, {14, 2, 3, 1},
    {18, 1, 3, 0x0f}, {20, 2, 3, 0xffff}, {22, 2, 3, 0xffff}, {24, 4, 1, 0}, {28, 4, 3, 0}};
static const struct cell isr_cells[] = {{0, 1, 1, 1}};
static const struct cell rfc_notify_cells[] = {{0, 2, 2, 0}};
static const struct cell notify_cells[] = {{0, 2, 2, 0}, {0, 4, 2, 0}, {4, 2, 2, 0}, {4, 4, 2, 0},
                                           {12, 2, 2, 0}, {12, 4, 2, 0}};

#define NOWHERE UINT64_MAX
static const struct layout {
    int view;
    const struct cell *cells;
    unsigned count;
    uint64_t config_at;
} layouts[] = {{COMMON, common_cells, 23, NOWHERE},        {MMIO, mmio_cells, 29, 0x100},
               {V1, v1_cells, 18, 0x100},              {LEGACY, legacy_cells, 8, 20},
               {RFC, rfc_cells, 10, NOWHERE},              {ISR, isr_cells, 1, NOWHERE},
               {RFC_NOTIFY, rfc_notify_cells, 1, NOWHERE}, {NOTIFY, notify_cells, 6, NOWHERE},
               {PCICFG, NULL, 0, 0},                   {RFC_CONFIG, NULL, 0, 0}};

static const struct cell *cell_at(const struct layout *l, uint64_t offset, unsigned width,
                                  unsigned how)
{
    for (unsigned i = 0; i < l->count; i++)
        if (l->cells[i].offset == offset && l->cells[i].width == width && l->cells[i].how & how)
            return &l->cells[i];
    return NULL;
}

/* Queue 1 running, word 1 of the features selected, an interrupt pending. */
static void sweep_state(void)
{
    power_on();
    offer(5);
    offer(VIRTIO_FEATURE_RING_RESET);
    up_to_features(&ports[0], 0x20, 0x101);
    cr_assert(enable(&ports[0], 1, 8));
    set_status(&ports[0], 0x0f);
    wr(COMMON, 0, 4, 1);
    wr(COMMON, 8, 4, 1);
    wr(COMMON, 16, 2, 5);
    wr(COMMON, 26, 2, 6);
    virtio_dev_interrupt(&rig.dev, 1);
}

static uint32_t sweep_expect(const struct layout *l, uint64_t offset, unsigned width)
{
    const struct cell *cell = cell_at(l, offset, width, 1);
    uint32_t value = 0;

    if (offset < l->config_at)
        return cell != NULL ? cell->value : 0;
    for (unsigned i = 0; i < width; i++)
        value |= offset - l->config_at + i < CONFIG
                     ? (uint32_t)(0xc0 + offset - l->config_at + i) << 8 * i
                     : 0;
    return value;
}

Test(device_sweep, reads)
{
    static const uint64_t far_away[] = {0xfff8, 0xfffffff8, 0x100000000, UINT64_MAX - 7,
                                        UINT64_MAX};
    static struct rig before;

    sweep_state(); /* V-COM-01 to V-COM-07, V-MMIO-01, V-MMIO-06, R-28, R-AMB-4, R-AMB-5, T-81 */
    before = rig;
    for (unsigned v = 0; v < sizeof(layouts) / sizeof(layouts[0]); v++) {
        const struct layout *l = &layouts[v];

        for (uint64_t i = 0; i < 0x180 + 5 * 8; i++) {
            uint64_t offset = i < 0x180 ? i : far_away[(i - 0x180) / 8] + i % 8;

            for (unsigned width = 0; width < 18; width++) {
                uint64_t expected = 0, value;

                if (offset <= UINT32_MAX && (width == 1 || width == 2 || width == 4))
                    expected = sweep_expect(l, offset, width);
                else if (offset <= UINT32_MAX && width == 8)
                    expected = sweep_expect(l, offset, 4) |
                               (uint64_t)sweep_expect(l, offset + 4, 4) << 32;
                value = rd(l->view, offset, width);
                cr_expect_eq(value, expected, "view %d, %#llx/%u: %#llx, not %#llx", l->view,
                             (unsigned long long)offset, width, (unsigned long long)value,
                             (unsigned long long)expected);
                if (!(width == 1 && expected != 0 && (l->view == ISR || l->view == LEGACY)))
                    cr_assert_eq(memcmp(&before, &rig, sizeof(rig)), 0, "side effect, view %d, %u",
                                 l->view, (unsigned)offset);
                rig = before;
            }
        }
    }
}

Test(device_sweep, writes_reach_registers_only)
{
    static struct rig before;

    sweep_state(); /* D-COM-01, D-MMIO-02, V-NOTE-01, R-23, R-AMB-4, R-AMB-5 */
    before = rig;
    for (unsigned v = 0; v < sizeof(layouts) / sizeof(layouts[0]); v++) {
        const struct layout *l = &layouts[v];

        for (uint64_t offset = 0; offset < 0x180; offset++) {
            for (unsigned width = 0; width < 18; width++) {
                static const uint64_t values[] = {0, 1, 0xff, 0x55aa55aa, UINT64_MAX};
                bool reaches = cell_at(l, offset, width, 2) != NULL;

                if (width == 8)
                    reaches = cell_at(l, offset, 4, 2) || cell_at(l, offset + 4, 4, 2);
                if ((width == 1 || width == 2 || width == 4) && offset >= l->config_at)
                    reaches = offset - l->config_at < CONFIG;
                if (width == 8 && offset + 4 >= l->config_at)
                    reaches = reaches || offset < l->config_at + CONFIG;
                if (reaches && offset >= l->config_at)
                    continue; /* told, see above */
                for (unsigned i = 0; i < 5; i++) {
                    wr(l->view, offset, width, values[i]);
                    if (!reaches)
                        cr_expect_eq(memcmp(&before, &rig, sizeof(rig)), 0, "view %d, %#llx/%u",
                                     l->view, (unsigned long long)offset, width);
                    cr_expect_eq(rig.queue[1].max, 16);
                    cr_expect_eq(rig.dev.offered.word[0], 0x20);
                    rig = before;
                }
            }
        }
    }
}

/* ----- the PCI function ----- */

/* A function with everything: 1.x capabilities in BAR 4 (64 bits, memory), legacy BAR 0 (I/O),
 * MSI-X. */
static const struct virtio_dev_place places[] = {{0x0000, 64, 4, VIRTIO_VIEW_COMMON},
                                                 {0x1000, 1, 4, VIRTIO_VIEW_ISR},
                                                 {0x2000, 0x100, 4, VIRTIO_VIEW_CONFIG},
                                                 {0x3000, 0x100, 4, VIRTIO_VIEW_NOTIFY},
                                                 {0, 64, 0, VIRTIO_VIEW_LEGACY}};

static void pci_power_on(void)
{
    static const uint8_t caps[] = {
        0x09, 0x50, 16, 1, 4, 0, 0, 0, 0, 0,    0, 0, 64, 0, 0, 0, /* 0x40 */
        0x09, 0x64, 20, 2, 4, 0, 0, 0, 0, 0x30, 0, 0, 0,  1, 0, 0, 4, 0, 0, 0,
        0x09, 0x78, 20, 5, 0, 0, 0, 0, 0, 0,    0, 0, 0,  0, 0, 0, 0, 0, 0, 0, /* 0x64: PCI_CFG */
        0x11, 0x84, 7,  0, 4, 0x40, 0, 0, 4, 0x50, 0, 0,                       /* 0x78: MSI-X */
        0x09, 0x00, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0}; /* of the RFC's length: no PCI_CFG */

    power_on();
    memcpy(rig.pci.config + 0x40, caps, sizeof(caps));
    memcpy(rig.pci.config, "\xf4\x1a\x01\x10\x00\x00\x10\x00\x00\x00\x00\x01", 12);
    rig.pci.config[0x10] = rig.pci.config[0x18] = 0x01;
    rig.pci.config[0x20] = 0x0c; /* 64 bits, prefetchable */
    rig.pci.config[0x34] = 0x40;
    rig.pci.config[0x3d] = 1;
    rig.pci.bar_size[0] = 64;
    rig.pci.bar_size[2] = 4;
    rig.pci.bar_size[4] = 0x200000000;
    rig.pci.dev = &rig.dev;
    rig.pci.place = places;
    rig.pci.place_count = 5;
    rig.dev.msix_vectors = 99;
    virtio_dev_pci_init(&rig.pci);
    virtio_dev_init(&rig.dev);
}
static uint32_t cfg_rd(unsigned offset, unsigned width)
{
    return virtio_dev_pci_read(&rig.pci, offset, width);
}
static void cfg_wr(unsigned offset, unsigned width, uint32_t value)
{
    virtio_dev_pci_write(&rig.pci, offset, width, value);
}

Test(device_pci, guest_writes_what_it_may)
{
    uint8_t image[256], expected[256];

    pci_power_on(); /* V-PCI-02, D-CAP-06, R-05, L-MSX-01 */
    cr_expect_eq(rig.dev.msix_vectors, 8);
    memcpy(image, rig.pci.config, 256);
    memcpy(expected, image, 256);
    for (unsigned offset = 0; offset < 256; offset++)
        if (offset < 0x74 || offset > 0x77)
            cfg_wr(offset, 1, 0xff);
    memcpy(expected + 4, "\x07\x04", 2);
    memcpy(expected + 0x10, "\xc1\xff\xff\xff", 4); /* 64 bytes of I/O */
    memcpy(expected + 0x18, "\xfd\xff\xff\xff", 4); /* 4 bytes */
    memcpy(expected + 0x20, "\x0c\x00\x00\x00\xfe\xff\xff\xff", 8); /* 8 GiB */
    expected[0x3c] = 0xff;
    expected[0x68] = 0xff;
    memset(expected + 0x6c, 0xff, 8);
    expected[0x7b] = 0xc0;
    for (unsigned offset = 0; offset < 256; offset++)
        cr_expect_eq(rig.pci.config[offset], expected[offset], "%#x: %#x", offset,
                     rig.pci.config[offset]);
    virtio_dev_pci_reset(&rig.pci);
    for (unsigned offset = 0; offset < 256; offset++)
        cr_expect_eq(rig.pci.config[offset], image[offset], "%#x", offset);
    cr_expect_not(rig.dev.msix_on);
}

Test(device_pci, configuration_is_bytes_at_any_offset)
{
    pci_power_on(); /* */
    for (unsigned offset = 0; offset < 0x110; offset++) {
        for (unsigned width = 0; width < 10; width++) {
            uint32_t expected = 0;

            for (unsigned i = 0; i < width && (width == 1 || width == 2 || width == 4); i++)
                expected |= (offset + i < 256 ? (uint32_t)rig.pci.config[offset + i] : 0) << 8 * i;
            cr_expect_eq(cfg_rd(offset, width), expected, "%#x/%u", offset, width);
        }
    }
    cr_expect_eq(cfg_rd(0xffffffff, 4), 0);
    cfg_wr(0xfffffffe, 4, 0xffffffff);
    cfg_wr(0xff, 4, 0xffffffff);
    cfg_wr(4, 3, 0xffffffff);
    cr_expect_eq(cfg_rd(4, 2), 0);
}

Test(device_pci, interrupt_status_and_disable)
{
    pci_power_on(); /* V-ISR-02, V-ISR-03 */
    up(&ports[0], 0, 0);
    cr_expect_eq(cfg_rd(6, 1), 0x10);
    virtio_dev_interrupt(&rig.dev, 0);
    cr_expect_eq(cfg_rd(6, 1), 0x18);
    cr_expect(rig.line);
    cfg_wr(5, 1, 4);
    cr_expect_not(rig.line);
    cr_expect_eq(cfg_rd(4, 4), 0x00180400);
    cfg_wr(4, 2, 0);
    cr_expect(rig.line);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 4, 0x1000, 1), 1);
    cr_expect_eq(cfg_rd(6, 1), 0x10);
    cr_expect_not(rig.line);
    cfg_wr(0x7a, 2, 0x8000); /* MSI-X */
    cr_expect(rig.dev.msix_on);
    virtio_dev_pci_bar_write(&rig.pci, 4, 26, 2, 3);
    virtio_dev_interrupt(&rig.dev, 0);
    virtio_dev_config_changed(&rig.dev);
    cr_expect_eq(rig.messages[3], 1);
    cr_expect_eq(cfg_rd(6, 1), 0x10);
    cr_expect_not(rig.line);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 0, 22, 2), 3, "V-MSX-03, other window");
    cfg_wr(0x7a, 2, 0);
    cr_expect(rig.line);
}

Test(device_pci, bars_lead_to_views)
{
    static const struct virtio_dev_place cut = {0x2000, 6, 4, VIRTIO_VIEW_CONFIG};

    pci_power_on(); /* R-22, V-PLEG-01 */
    virtio_dev_pci_bar_write(&rig.pci, 4, 20, 1, 1);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 4, 20, 1), 1);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 0, 18, 1), 1);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 4, 0x2001, 2), 0xc2c1);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 4, 0x2004, 8), 0xc9c8c7c6c5c4);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 0, 20, 4), 0xc3c2c1c0);
    for (unsigned bar = 0; bar < 9; bar++) {
        virtio_dev_pci_bar_write(&rig.pci, bar, 0x20ff, 2, 1);
        cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, bar, 0x4000, 4), 0);
        cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, bar, 0x0ffe, 4), 0, "across a start");
        cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, bar, 62, 4), 0, "across an end");
        cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, bar, UINT64_MAX, 4), 0);
        cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, bar, 0x1000, 0x1001), 0);
    }
    cr_expect_eq(rig.wrote_length, 0);
    rig.pci.place = &cut;
    rig.pci.place_count = 1;
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 4, 0x2004, 2), 0xc5c4);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 4, 0x2004, 4), 0, "across its end");
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 4, 0x2005, 2), 0);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 4, 0x2000, 8), 0);
}

static void aim(uint8_t bar, uint32_t offset, uint32_t width)
{
    cfg_wr(0x68, 1, bar);
    cfg_wr(0x6c, 4, offset);
    cfg_wr(0x70, 4, width);
}

Test(device_pci, window_in_configuration_space)
{
    pci_power_on(); /* V-PCFG-01, V-CAP-03 */
    aim(4, 20, 1);
    cfg_wr(0x74, 4, 0x55aa0001);
    cr_expect_eq(virtio_dev_pci_bar_read(&rig.pci, 4, 20, 1), 1);
    cr_expect_eq(cfg_rd(0x74, 4), 1);
    cr_expect_eq(cfg_rd(0x74, 1), 1);
    aim(4, 22, 2);
    cfg_wr(0x74, 2, 3);
    cr_expect_eq(rd(COMMON, 22, 2), 3);
    cr_expect_eq(cfg_rd(0x74, 2), 3);
    aim(4, 0x2004, 4);
    cr_expect_eq(cfg_rd(0x74, 4), 0xc7c6c5c4);
    rig.dev.reg.isr = 2;
    aim(4, 0x1000, 1);
    cr_expect_eq(cfg_rd(0x68, 4) & 0xff, 4, "elsewhere it touches nothing");
    cr_expect_eq(rig.dev.reg.isr, 2);
    cr_expect_eq(cfg_rd(0x74, 1), 2);
    cr_expect_eq(rig.dev.reg.isr, 0, "read means acknowledged here too");
    up(&ports[0], 0, 0);
    aim(4, 0x3000, 2);
    cfg_wr(0x74, 2, 0);
    cr_expect_eq(rig.kicks[0], 1);
}

Test(device_pci, window_is_validated)
{
    static const struct {
        uint8_t bar;
        uint32_t offset, width;
    } bad[] = {{4, 0, 0},  {4, 0, 3},      {4, 0, 8},          {4, 0, 0xffffffff}, {4, 2, 4},
               {4, 21, 2}, {4, 64, 4},     {4, 0x4000, 4},     {3, 0, 4},          {6, 0, 4},
               {255, 0, 4}, {0, 0, 4},     {4, 0xfffffffc, 4}, {4, 0x1001, 1},
               {4, 0x2001, 2}};

    pci_power_on(); /* V-PCFG-02, D-PCFG-01 */
    rig.dev.offered.word[0] = 0xffffffff;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct virtio_dev_regs before = rig.dev.reg;

        aim(bad[i].bar, bad[i].offset, bad[i].width);
        cfg_wr(0x74, 4, 0xffffffff);
        cr_expect_eq(cfg_rd(0x74, 4), 0, "case %u", i);
        cr_expect_eq(memcmp(&before, &rig.dev.reg, sizeof(before)), 0, "case %u", i);
    }
}

/* ----- migration ----- */

Test(device_restore, continues_where_it_was)
{
    static struct virtio_dev_regs regs;
    static struct virtio_dev_queue_regs queues[QUEUES];
    static struct virtq_position at[QUEUES];

    power_on();
    offer(5);
    up_to_features(&ports[0], 0x20, 1);
    cr_assert(enable(&ports[0], 0, 8) && enable(&ports[0], 3, 0));
    set_status(&ports[0], 0x0f);
    wr(COMMON, 16, 2, 4);
    virtio_dev_interrupt(&rig.dev, 0);
    rig.queue[3].ring.popped_idx = rig.queue[3].ring.pushed_idx = 0xfffe;
    rig.queue[3].ring.flushed_idx = 0xfffe;
    regs = rig.dev.reg;
    for (unsigned i = 0; i < QUEUES; i++)
        queues[i] = rig.queue[i].reg;
    at[0] = virtq_device_save(&rig.queue[0].ring);
    at[3] = virtq_device_save(&rig.queue[3].ring);
    power_on();
    offer(5);
    cr_assert_eq(virtio_dev_restore(&rig.dev, &regs, queues, at), 0);
    cr_expect_eq(memcmp(&regs, &rig.dev.reg, sizeof(regs)), 0);
    cr_expect(rig.line);
    cr_expect_eq(rd(COMMON, 20, 1), 0x0f);
    cr_expect_eq(rd(COMMON, 16, 2), 4);
    cr_expect_eq(rig.queue[3].ring.popped_idx, 0xfffe);
    cr_expect_eq(rig.queue[0].ring.last, 7);
    notify(&ports[0], 3);
    cr_expect_eq(rig.kicks[3], 1);
    cr_expect_eq(rig.ready[0] + rig.ready[3], 0);
}

Test(device_restore, takes_nothing_that_cannot_be)
{
    static struct virtio_dev_queue_regs off[QUEUES], queues[QUEUES];
    static struct virtq_position at[QUEUES];
    struct virtio_dev_regs idle, regs;

    for (unsigned i = 0; i < 14; i++) {
        power_on();
        idle = regs = rig.dev.reg;
        for (unsigned q = 0; q < QUEUES; q++)
            off[q] = queues[q] = rig.queue[q].reg;
        queues[1].address[0] = GUEST;
        queues[1].address[1] = GUEST + 0x4000;
        queues[1].address[2] = GUEST + 0x8000;
        queues[1].state = VIRTIO_DEV_QUEUE_ON;
        regs.status = 0x0f;
        regs.accepted.word[1] = 1;
        memset(at, 0, sizeof(at));
        cr_assert_eq(virtio_dev_restore(&rig.dev, &regs, queues, at), 0);
        virtio_dev_init(&rig.dev);
        regs.resetting = i == 0;
        regs.suspending = i == 1;
        regs.status |= i == 2 ? 0x20 : i == 12 ? 0x10 : 0;
        regs.accepted.word[1] = i != 13;
        regs.isr = i == 3 ? 4 : 0;
        regs.config_vector = i == 4 ? 8 : 0xffff;
        regs.accepted.word[2] = i == 5;
        queues[1].state = i == 6 ? VIRTIO_DEV_QUEUE_RESETTING : VIRTIO_DEV_QUEUE_ON;
        queues[1].vector = i == 7 ? 8 : 0xffff;
        queues[1].size = i == 8 ? 32 : VIRTIO_DEV_SIZE_DEFAULT;
        queues[1].address[1] += i == 9 ? GUEST : 0;
        queues[2].state = i == 10;
        at[1].avail_idx = i == 11 ? 17 : 0;
        cr_expect(virtio_dev_restore(&rig.dev, &regs, queues, at) < 0, "case %u", i);
        cr_expect_eq(memcmp(&idle, &rig.dev.reg, sizeof(idle)), 0, "case %u", i);
        for (unsigned q = 0; q < QUEUES; q++)
            cr_expect_eq(memcmp(&off[q], &rig.queue[q].reg, sizeof(off[q])), 0, "case %u", i);
        cr_expect(virtio_dev_ring(&rig.dev, 1) == NULL, "case %u", i);
    }
}
