// SPDX-License-Identifier: MIT-0
/* The network front-end against a device on paper: registers are those of examples/device, the
 * queues are served here, truthfully or not. And the small IP host of the bare-metal program. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "examples/boards/programs/net/stack.h"
#include "examples/device/function.h"
#include "examples/driver/net.h"

enum {
    GUEST = 0x40000000,
    GUEST_SIZE = 1 << 19,
    DATA = 1 << 18, /* where frames to be sent are */
    SIZE = 256,
    FEATURE_MTU = 3,
    FEATURE_MAC = 5,
    FEATURE_MRG_RXBUF = 15,
    FEATURE_STATUS = 16,
    NEEDS_CSUM = 1,
    DATA_VALID = 2,
    TRUTH = -1
};

/* Each way to lay out ring and header. */
static const struct kind {
    const char *name;
    enum function_view view;
    bool merging;
    uint8_t bit[2]; /* ring features besides the usual ones; 0: none */
} kinds[] = {
    {"split", FUNCTION_PCI_MODERN, false, {0, 0}},
    {"split, merging", FUNCTION_MMIO, true, {0, 0}},
    {"split, merging, in order", FUNCTION_MMIO, true, {VIRTIO_FEATURE_IN_ORDER, 0}},
    {"packed", FUNCTION_MMIO, false, {VIRTIO_FEATURE_RING_PACKED, 0}},
    {"packed, merging", FUNCTION_PCI_MODERN, true, {VIRTIO_FEATURE_RING_PACKED, 0}},
    {"packed, merging, in order",
     FUNCTION_PCI_MODERN,
     true,
     {VIRTIO_FEATURE_RING_PACKED, VIRTIO_FEATURE_IN_ORDER}},
    {"legacy", FUNCTION_PCI_LEGACY, false, {VIRTIO_FEATURE_ANY_LAYOUT, 0}},
    {"legacy, merging", FUNCTION_MMIO_V1, true, {VIRTIO_FEATURE_ANY_LAYOUT, 0}},
    {"legacy, old layout", FUNCTION_MMIO_V1, false, {0, 0}},
    {"legacy, old layout, merging", FUNCTION_PCI_LEGACY, true, {0, 0}},
};
#define EACH_KIND(kind)                                                                            \
    for (const struct kind *kind = kinds; kind != kinds + sizeof(kinds) / sizeof(*kinds); kind++)

/* A buffer that the device has popped. */
struct spot {
    struct virtq_seg seg[NET_SEGS + 1];
    uint16_t count;
    uint32_t token;
    uint32_t room;
};

static struct rig {
    const struct kind *kind;
    struct function function;
    struct virtio_pci_layout layout;
    struct virtio_window windows[6];
    struct virtio_drv drv;
    struct net net;
    struct net_setup setup;
    struct spot held[SIZE]; /* receive buffers that the device has and has not used */
    unsigned held_count;
    bool line;
    unsigned waits;
    unsigned patience; /* waits until the hook gives up */
} rig;

static _Alignas(4096) uint8_t guest[GUEST_SIZE];
static const uint8_t mac[NET_MAC_SIZE] = {0x52, 0x54, 0, 0xa1, 0xb2, 0xc3};

static void *map(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    if (addr < GUEST || addr - GUEST > GUEST_SIZE || len > GUEST_SIZE - (addr - GUEST))
        return NULL;
    return guest + (addr - GUEST);
}

static void line_changed(void *ctx, bool level)
{
    (void)ctx;
    rig.line = level;
}

static bool wait_hook(void *ctx)
{
    (void)ctx;
    return ++rig.waits <= rig.patience;
}

/* In the device's byte order for headers and configuration. */
static void put16(void *at, uint16_t value)
{
    uint8_t *bytes = (uint8_t *)at;
    bool big = VIRTIO_BIG_ENDIAN && function_is_legacy(rig.kind->view);

    bytes[big] = (uint8_t)value;
    bytes[!big] = (uint8_t)(value >> 8);
}

static void set_link(bool up)
{
    put16(rig.function.config + 6, up);
    virtio_dev_config_changed(&rig.function.dev);
}

/* A device of that kind, switched on. */
static void power_on(const struct kind *kind)
{
    static const struct virtio_dev_ops ops = {map,  NULL, line_changed, NULL, NULL,
                                              NULL, NULL, NULL,         NULL};
    struct function *f = &rig.function;

    memset(&rig, 0, sizeof(rig));
    memset(guest, 0, sizeof(guest));
    rig.kind = kind;
    f->view = kind->view;
    f->queue[0].max = f->queue[1].max = SIZE;
    f->dev.ops = &ops;
    f->dev.device_type = NET_DEVICE_TYPE;
    f->dev.queue_count = 2;
    f->dev.big_endian = VIRTIO_BIG_ENDIAN;
    f->dev.config_length = 12;
    virtio_features_add(&f->dev.offered, FEATURE_MAC);
    virtio_features_add(&f->dev.offered, FEATURE_STATUS);
    virtio_features_add(&f->dev.offered, VIRTIO_FEATURE_EVENT_IDX);
    virtio_features_add(&f->dev.offered, VIRTIO_FEATURE_INDIRECT_DESC);
    if (kind->merging)
        virtio_features_add(&f->dev.offered, FEATURE_MRG_RXBUF);
    for (unsigned i = 0; i < 2 && kind->bit[i] != 0; i++)
        virtio_features_add(&f->dev.offered, kind->bit[i]);
    memcpy(f->config, mac, sizeof(mac));
    set_link(true);
    cr_assert_eq(function_init(f), 0);
    rig.setup.memory.cpu = guest;
    rig.setup.memory.device = GUEST;
    rig.setup.memory.length = NET_MEMORY_SIZE;
    rig.setup.wait = wait_hook;
}

static void take_device(void)
{
    struct virtio_pci_config config = {function_pci_read32, function_pci_write32, &rig.function};
    struct virtio_pci_bar bars[6];

    for (unsigned i = 0; i < 6; i++)
        rig.windows[i] = function_window(&rig.function, i);
    if (function_is_mmio(rig.kind->view)) {
        cr_assert_eq(virtio_drv_mmio(&rig.drv, &rig.windows[0]), 0);
        return;
    }
    function_pci_bars(&rig.function, bars);
    cr_assert_eq(virtio_pci_scan(&rig.layout, &config, bars, 0), 0);
    if (rig.setup.vectors != 0)
        cr_assert_eq(virtio_pci_msix_set_on(&config, &rig.layout, true), 0);
    cr_assert_eq(virtio_drv_pci(&rig.drv, &rig.layout, rig.windows), 0);
}

static int start(void)
{
    take_device();
    return net_start(&rig.net, &rig.drv, &rig.setup);
}

static void run(const struct kind *kind)
{
    power_on(kind);
    cr_assert_eq(start(), 0, "%s", kind->name);
}

/* ----- the device's hands ----- */

static struct virtq_device *ring(uint16_t queue)
{
    struct virtq_device *device = virtio_dev_ring(&rig.function.dev, queue);

    cr_assert_not_null(device);
    return device;
}

/* Pops one buffer; false: there is none. */
static bool pop(uint16_t queue, struct spot *spot)
{
    struct virtq_chain chain;
    int got;

    chain.seg = spot->seg;
    chain.capacity = NET_SEGS + 1;
    got = virtq_device_pop(ring(queue), &chain);
    cr_assert_geq(got, 0, "%s: %d", rig.kind->name, got);
    if (got == 0)
        return false;
    cr_assert_eq(queue == 0 ? chain.readable : chain.writable, 0); /* one direction each */
    spot->count = (uint16_t)(chain.readable + chain.writable);
    spot->token = chain.token;
    spot->room = 0;
    for (unsigned i = 0; i < spot->count; i++) {
        cr_assert_not_null(map(NULL, spot->seg[i].addr, spot->seg[i].len));
        spot->room += spot->seg[i].len;
    }
    return true;
}

/* The byte of a popped buffer. */
static uint8_t *byte_of(const struct spot *spot, uint32_t at)
{
    const struct virtq_seg *seg = spot->seg;

    cr_assert_lt(at, spot->room);
    while (at >= seg->len)
        at -= seg++->len;
    return guest + (seg->addr - GUEST) + at;
}

static void flush(uint16_t queue)
{
    virtq_device_flush(ring(queue));
    if (virtq_device_irq_due(ring(queue)))
        virtio_dev_interrupt(&rig.function.dev, queue);
}

/* What the device says of a frame. */
struct tale {
    int buffers;        /* in the header, or TRUTH */
    int32_t written;    /* of the first buffer, or TRUTH */
    uint8_t flags, gso; /* in the header */
};
static const struct tale truth = {TRUTH, TRUTH, 0, 0};

static uint32_t header_size(void)
{
    return function_is_legacy(rig.kind->view) && !rig.kind->merging ? 10 : 12;
}

/* Receive buffers for so many bytes, as the first ones held; 0: there are not enough. */
static unsigned hold(uint32_t bytes)
{
    uint32_t room = 0;
    unsigned count = 0;

    while (room < bytes && count < SIZE) {
        if (count == rig.held_count && !pop(0, &rig.held[rig.held_count++])) {
            rig.held_count--;
            return 0;
        }
        room += rig.held[count++].room;
    }
    return count;
}

static void fill_header(uint8_t *header, unsigned count, const struct tale *tale)
{
    memset(header, 0, sizeof(struct net_header));
    header[0] = tale->flags;
    header[1] = tale->gso;
    put16(header + 10, (uint16_t)(tale->buffers == TRUTH ? (int)count : tale->buffers));
}

/* Puts header and frame into as many receive buffers as it takes, in full but for the last one, and
 * shows them together. False: there are not enough. */
static bool deliver(const uint8_t *frame, uint32_t length, const struct tale *tale)
{
    uint8_t header[sizeof(struct net_header)];
    uint32_t total = header_size() + length, done = 0;
    unsigned count = hold(total);

    if (count == 0)
        return false;
    cr_assert(count == 1 || rig.kind->merging);
    fill_header(header, count, tale);
    for (unsigned i = 0; i < count; i++) {
        const struct spot *spot = &rig.held[i];
        uint32_t piece = 0;

        for (; piece < spot->room && done < total; piece++, done++)
            *byte_of(spot, piece) =
                done < header_size() ? header[done] : frame[done - header_size()];
        virtq_device_push(ring(0), spot->token,
                          i == 0 && tale->written != TRUTH ? (uint32_t)tale->written : piece);
    }
    rig.held_count -= count;
    memmove(rig.held, rig.held + count, rig.held_count * sizeof(rig.held[0]));
    flush(0);
    return true;
}

/* ----- the driver's side ----- */

static const uint8_t *pattern(uint32_t seed)
{
    static uint8_t bytes[4096];

    for (uint32_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)((i + seed) * 2654435761u >> 13);
    return bytes;
}

/* Receives into memory of just that size, where a sanitizer watches its ends. */
static int receive(uint32_t capacity, const uint8_t *expected)
{
    uint8_t *frame = (uint8_t *)malloc(capacity);
    int got = net_receive(&rig.net, frame, capacity);

    cr_assert_leq(got, (int)capacity);
    if (got > 0 && expected != NULL)
        cr_expect_eq(memcmp(frame, expected, (size_t)got), 0, "%s: %d bytes", rig.kind->name, got);
    free(frame);
    return got;
}

/* The driver has given all its receive buffers to the device and goes on as if nothing had been. */
static void expect_whole(uint16_t free_count)
{
    cr_expect_eq(virtq_driver_free_count(&rig.net.receive.ring), free_count, "%s", rig.kind->name);
    net_kick(&rig.net);
    cr_assert(deliver(pattern(7), 1514, &truth));
    cr_expect_eq(receive(NET_FRAME_MAX, pattern(7)), 1514, "%s", rig.kind->name);
}

/* A frame that is told of like this is dropped with this error, and nothing else happens. */
static void expect_dropped(uint32_t length, const struct tale *tale, uint32_t capacity, int error)
{
    uint16_t free_count = virtq_driver_free_count(&rig.net.receive.ring);
    uint64_t dropped = rig.net.dropped;

    cr_assert(deliver(pattern(length), length, tale));
    cr_expect_eq(receive(capacity, NULL), error, "%s: %u bytes", rig.kind->name, length);
    cr_expect(net_err_drops_frame(error));
    cr_expect_eq(rig.net.dropped, dropped + 1);
    cr_expect_eq(receive(capacity, NULL), 0, "%s", rig.kind->name);
    expect_whole(free_count);
}

static int send(uint32_t length, unsigned segments, void *cookie)
{
    struct virtq_seg seg[NET_SEGS + 1];
    uint32_t done = 0;

    for (unsigned i = 0; i < segments; i++) {
        seg[i].addr = GUEST + DATA + done;
        seg[i].len = i + 1 == segments ? length - done : length / segments;
        done += seg[i].len;
    }
    return net_send(&rig.net, seg, segments, cookie);
}

/* ----- configuration ----- */

Test(net_start, features_and_configuration)
{
    EACH_KIND(kind) { /* L-NET-02, L-NET-03 */
        run(kind);
        cr_expect_eq(memcmp(rig.net.mac, mac, sizeof(mac)), 0);
        cr_expect_eq(rig.net.mtu, 1500);
        cr_expect_eq(rig.net.merging, kind->merging);
        cr_expect_eq(rig.net.header_size, header_size(), "%s", kind->name);
        cr_expect_eq(rig.drv.accepted.word[0] & 0x00ffffffu,
                     1u << FEATURE_MAC | 1u << FEATURE_STATUS |
                         (uint32_t)kind->merging << FEATURE_MRG_RXBUF);
        cr_expect_eq(net_stop(&rig.net), 0);
    }
}

static void expect_mtu(uint16_t offered, uint16_t expected, bool accepted)
{
    power_on(&kinds[6]);
    virtio_features_add(&rig.function.dev.offered, FEATURE_MTU);
    put16(rig.function.config + 10, offered);
    cr_assert_eq(start(), 0);
    cr_expect_eq(rig.net.mtu, expected, "%u", offered);
    cr_expect_eq(virtio_features_has(&rig.drv.accepted, FEATURE_MTU), accepted, "%u", offered);
    cr_expect_eq(send(14u + expected, 1, NULL), 0);
    cr_expect_eq(send(15u + expected, 1, NULL), NET_ERR_LENGTH);
}

Test(net_start, mtu_is_kept_where_the_buffers_allow_it)
{
    expect_mtu(1400, 1400, true);
    expect_mtu(68, 68, true);
    expect_mtu(1500, 1500, true);
    expect_mtu(67, 1500, false);
    expect_mtu(1501, 1500, false);
    expect_mtu(9000, 1500, false);
}

Test(net_start, what_does_not_fit_is_named)
{
    power_on(&kinds[1]);
    rig.function.dev.offered.word[0] &= ~(1u << FEATURE_MAC);
    cr_expect_eq(start(), VIRTIO_ERR_REQUIRED);
    cr_expect(rig.function.dev.reg.status & VIRTIO_STATUS_FAILED);

    power_on(&kinds[1]);
    rig.setup.memory.length = 4096;
    cr_expect_eq(start(), NET_ERR_MEMORY);

    power_on(&kinds[1]);
    rig.setup.queue_size = 2 * NET_QUEUE_MAX;
    cr_expect_eq(start(), NET_ERR_QUEUE);

    power_on(&kinds[1]); /* two buffers of 512 bytes cannot take a frame */
    rig.setup.queue_size = 2;
    cr_expect_eq(start(), NET_ERR_QUEUE);

    power_on(&kinds[1]);
    rig.function.queue[1].max = 0;
    rig.setup.queue_size = 4;
    cr_expect_eq(start(), VIRTIO_ERR_NO_QUEUE);
}

Test(net_start, vectors_are_mapped)
{
    power_on(&kinds[0]);
    rig.setup.vectors = 4;
    cr_assert_eq(start(), 0);
    cr_expect_eq(rig.function.dev.reg.config_vector, 0);
    cr_expect_eq(rig.function.queue[0].reg.vector, 1);
    cr_expect_eq(rig.function.queue[1].reg.vector, 2);
}

/* ----- receiving ----- */

Test(net_receive, buffers_are_as_long_as_they_have_to_be)
{
    struct spot spot;

    EACH_KIND(kind) { /* D-NET-01, D-LEG-09 */
        bool old = function_is_legacy(kind->view) && kind->bit[0] == 0;
        unsigned count = 0;

        run(kind);
        for (; pop(0, &spot); count++) {
            cr_expect(kind->merging ? spot.room == NET_BUFFER_MERGED : spot.room >= 1526);
            cr_expect_eq(spot.count, old ? 2 : 1);
            cr_expect(!old || spot.seg[0].len == header_size());
        }
        cr_expect_eq(count, NET_RECEIVE_BYTES / (kind->merging ? NET_BUFFER_MERGED : NET_BUFFER));
    }
}

Test(net_receive, frames_of_every_length)
{
    EACH_KIND(kind) { /* L-NET-01, V-NET-01, T-94 */
        uint64_t merged = 0;

        run(kind);
        for (uint32_t length = NET_FRAME_MIN; length <= NET_FRAME_MAX; length++) {
            cr_assert(deliver(pattern(length), length, &truth), "%s: %u", kind->name, length);
            cr_assert_eq(receive(NET_FRAME_MAX, pattern(length)), (int)length, "%s", kind->name);
            cr_assert_eq(receive(NET_FRAME_MAX, NULL), 0);
            net_kick(&rig.net);
            merged += kind->merging && length + 12 > NET_BUFFER_MERGED;
        }
        cr_expect_eq(rig.net.merged, merged);
        cr_expect_eq(rig.net.dropped, 0);
    }
}

/* Bursts as large as the buffers allow, thousands of frames, in the order they came. */
static void press(const struct kind *kind, uint16_t queue_size)
{
    uint32_t in = 0, out = 0;
    uint16_t free_count;

    power_on(kind);
    rig.setup.queue_size = queue_size;
    cr_assert_eq(start(), 0, "%s: %u", kind->name, queue_size);
    free_count = virtq_driver_free_count(&rig.net.receive.ring);
    while (out < 3000) {
        while (deliver(pattern(in), NET_FRAME_MIN + in * 37 % 1501, &truth))
            in++;
        cr_assert_neq(in, out);
        for (; out < in; out++)
            cr_assert_eq(receive(NET_FRAME_MAX, pattern(out)),
                         (int)(NET_FRAME_MIN + out * 37 % 1501), "%s: %u", kind->name, out);
        cr_assert_eq(receive(NET_FRAME_MAX, NULL), 0);
        cr_assert_eq(virtq_driver_free_count(&rig.net.receive.ring), free_count);
        net_kick(&rig.net);
    }
    cr_expect_eq(rig.net.dropped, 0);
}

Test(net_receive, buffers_go_round_under_pressure)
{
    EACH_KIND(kind) {
        bool fixed = kind->view == FUNCTION_PCI_LEGACY;

        press(kind, 0);
        if (!fixed)
            press(kind, 8);
        if (!fixed && !function_is_legacy(kind->view))
            press(kind, 4);
    }
    press(&kinds[3], 1); /* packed: any size */
    press(&kinds[4], 3);
}

Test(net_receive, frame_longer_than_its_memory_is_dropped)
{
    EACH_KIND(kind) {
        run(kind);
        expect_dropped(1514, &truth, 1513, NET_ERR_LONG);
        expect_dropped(512, &truth, 100, NET_ERR_LONG);
        expect_dropped(15, &truth, 14, NET_ERR_LONG);
        expect_dropped(100, &truth, 1, NET_ERR_LONG);
        expect_dropped(1520, &truth, 1514, NET_ERR_LONG);
        if (kind->merging)
            expect_dropped(4096, &truth, 1514, NET_ERR_LONG);
    }
}

Test(net_receive, used_length_shorter_than_the_headers)
{
    EACH_KIND(kind) {
        struct tale tale = truth;

        run(kind);
        for (tale.written = 0; tale.written < (int)header_size() + 14; tale.written++)
            expect_dropped(100, &tale, 1514, NET_ERR_SHORT);
    }
}

Test(net_receive, used_length_longer_than_the_buffer)
{
    EACH_KIND(kind) {
        uint32_t room = kind->merging ? NET_BUFFER_MERGED : NET_BUFFER;
        struct tale tale = {TRUTH, (int32_t)room + 1, 0, 0};

        run(kind);
        cr_assert(deliver(pattern(0), 100, &tale));
        if (function_is_legacy(kind->view)) { /* not to be relied on: D-LEG-06 */
            cr_expect_eq(receive(NET_FRAME_MAX, NULL),
                         kind->merging ? (int)(room - header_size()) : NET_ERR_LONG);
            continue;
        }
        cr_expect_eq(receive(NET_FRAME_MAX, NULL), VIRTQ_ERR_USED_LEN, "%s", kind->name);
        cr_expect_eq(receive(NET_FRAME_MAX, NULL), VIRTQ_ERR_BROKEN, "%s", kind->name);
        cr_expect_not(net_err_drops_frame(VIRTQ_ERR_USED_LEN));
    }
}

Test(net_receive, count_of_buffers_that_cannot_be)
{
    static const int counts[] = {0, 2, 3, 96, 97, 0x7fff, 0xffff}; /* the frame is in one */
    struct tale tale = truth;

    EACH_KIND(kind) {
        run(kind);
        for (unsigned i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
            tale.buffers = counts[i];
            if (kind->merging) {
                expect_dropped(100, &tale, 1514, NET_ERR_BUFFERS);
                continue;
            }
            cr_assert(deliver(pattern(i), 100, &tale)); /* the field means nothing */
            cr_expect_eq(receive(NET_FRAME_MAX, pattern(i)), 100, "%s", kind->name);
            net_kick(&rig.net);
        }
    }
}

Test(net_receive, count_of_buffers_below_the_truth)
{
    struct tale tale = truth;

    tale.buffers = 1;
    EACH_KIND(kind) { /* the rest passes for a frame of its own, whatever that is worth */
        uint16_t free_count;

        if (!kind->merging)
            continue;
        run(kind);
        free_count = virtq_driver_free_count(&rig.net.receive.ring);
        cr_assert(deliver(pattern(1), 1200, &tale));
        cr_expect_eq(receive(NET_FRAME_MAX, pattern(1)), 500, "%s", kind->name);
        while (receive(NET_FRAME_MAX, NULL) != 0)
            continue;
        expect_whole(free_count);
    }
}

Test(net_receive, offloads_that_were_not_agreed_on)
{
    static const struct tale partial = {TRUTH, TRUTH, NEEDS_CSUM, 0}, large = {TRUTH, TRUTH, 0, 1},
                             valid = {TRUTH, TRUTH, DATA_VALID, 0};

    EACH_KIND(kind) { /* L-NET-03 */
        run(kind);
        expect_dropped(1200, &partial, 1514, NET_ERR_OFFLOAD);
        expect_dropped(1200, &large, 1514, NET_ERR_OFFLOAD);
        cr_assert(deliver(pattern(1), 1200, &valid));
        cr_expect_eq(receive(NET_FRAME_MAX, pattern(1)), 1200, "%s", kind->name);
    }
}

/* ----- sending ----- */

Test(net_send, header_and_frame)
{
    struct spot spot;
    void *cookie;

    EACH_KIND(kind) { /* L-NET-01, D-NET-01, T-94 */
        run(kind);
        memcpy(guest + DATA, pattern(3), 1514);
        memset(rig.net.wire.cpu, 0xff, rig.net.wire.length); /* what was there must not be seen */
        for (unsigned segments = 1; segments <= NET_SEGS; segments++) {
            uint32_t length = 1514 - segments;

            cr_assert_eq(send(length, segments, &rig.drv), 0, "%s", kind->name);
            cr_expect_not(pop(1, &spot), "%s: nothing is published yet", kind->name);
            net_kick(&rig.net);
            cr_assert(pop(1, &spot));
            cr_expect_eq(spot.seg[0].len, header_size(), "%s", kind->name);
            cr_assert_eq(spot.room, header_size() + length, "%s", kind->name);
            for (uint32_t i = 0; i < spot.room; i++)
                cr_assert_eq(*byte_of(&spot, i),
                             i < header_size() ? 0 : pattern(3)[i - header_size()]);
            cr_expect_eq(net_sent(&rig.net, &cookie), 0);
            virtq_device_push(ring(1), spot.token, 0);
            flush(1);
            cr_assert_eq(net_sent(&rig.net, &cookie), 1);
            cr_expect_eq(cookie, &rig.drv);
        }
    }
}

Test(net_send, frames_that_cannot_be)
{
    run(&kinds[0]);
    cr_expect_eq(send(100, 0, NULL), NET_ERR_SEGMENTS);
    cr_expect_eq(send(100, NET_SEGS + 1, NULL), NET_ERR_SEGMENTS);
    cr_expect_eq(send(13, 1, NULL), NET_ERR_LENGTH);
    cr_expect_eq(send(1515, 2, NULL), NET_ERR_LENGTH);
    cr_expect_eq(send(14, 1, NULL), 0);
}

Test(net_send, as_many_as_there_are_places)
{
    struct spot spot;
    void *cookie;

    EACH_KIND(kind) {
        run(kind);
        for (unsigned round = 0; round < 100; round++) {
            for (unsigned i = 0; i < NET_DEPTH; i++)
                cr_assert_eq(send(60, 2, guest + i), 0, "%s", kind->name);
            cr_expect_eq(send(60, 2, NULL), NET_ERR_BUSY);
            net_kick(&rig.net);
            while (pop(1, &spot))
                virtq_device_push(ring(1), spot.token, 0);
            flush(1);
            for (unsigned i = 0; i < NET_DEPTH; i++) {
                cr_assert_eq(net_sent(&rig.net, &cookie), 1, "%s", kind->name);
                cr_expect_eq(cookie, guest + i);
            }
            cr_expect_eq(net_sent(&rig.net, &cookie), 0);
        }
    }
}

/* ----- waiting, link ----- */

Test(net_wait, interrupts_come_when_they_are_waited_for)
{
    struct spot spot;
    void *cookie;

    EACH_KIND(kind) {
        run(kind);
        rig.patience = 100;
        cr_assert_eq(send(60, 1, NULL), 0);
        net_kick(&rig.net);
        cr_assert(pop(1, &spot));
        virtq_device_push(ring(1), spot.token, 0);
        flush(1);
        cr_expect_not(rig.line, "%s: sent, nobody waits", kind->name);
        cr_expect_eq(net_wait(&rig.net, true), 0);
        cr_expect_eq(rig.waits, 0, "%s: it was sent already", kind->name);
        cr_assert_eq(net_sent(&rig.net, &cookie), 1);

        cr_expect_eq(net_wait(&rig.net, false), 0);
        cr_expect_eq(rig.waits, 1, "%s", kind->name);
        cr_assert(deliver(pattern(0), 60, &truth));
        cr_expect(rig.line, "%s", kind->name);
        cr_expect_eq(net_wait(&rig.net, false), 0);
        cr_expect_eq(rig.waits, 1, "%s: it came already", kind->name);
    }
}

Test(net_wait, ends)
{
    run(&kinds[0]);
    cr_expect_eq(net_wait(&rig.net, false), NET_ERR_TIMEOUT);
    cr_expect_eq(net_wait(&rig.net, true), NET_ERR_TIMEOUT);
    virtio_dev_needs_reset(&rig.function.dev);
    cr_expect_eq(net_wait(&rig.net, false), NET_ERR_DEVICE);
    cr_expect_eq(net_link(&rig.net), NET_ERR_DEVICE);
}

Test(net_link, goes_down_and_up)
{
    EACH_KIND(kind) { /* L-NET-02 */
        run(kind);
        cr_expect_eq(net_link(&rig.net), 1, "%s", kind->name);
        set_link(false);
        cr_expect(rig.line, "%s", kind->name);
        cr_expect_eq(virtio_drv_irq_status(&rig.drv), VIRTIO_IRQ_CONFIG);
        cr_expect_eq(net_link(&rig.net), 0, "%s", kind->name);
        set_link(true);
        cr_expect_eq(net_link(&rig.net), 1, "%s", kind->name);
    }
}

Test(net_link, is_up_where_the_device_cannot_say)
{
    power_on(&kinds[0]);
    set_link(false);
    virtio_features_add(&rig.setup.refused, FEATURE_STATUS);
    cr_assert_eq(start(), 0);
    cr_expect_eq(net_link(&rig.net), 1);
}

/* ----- the host of the bare-metal program ----- */

static const uint8_t echo_request[] = {
    0x52, 0x54, 0x00, 0xa1, 0xb2, 0xc3, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00,
    0x45, 0x00, 0x00, 0x1f, 0x00, 0x07, 0x00, 0x00, 0x40, 0x01, 0x62, 0xc7, 10,   0,
    2,    2,    10,   0,    2,    15,                                           /* IP, 31 bytes */
    0x08, 0x00, 0x24, 0x98, 0x00, 0x01, 0x00, 0x02, 'o',  'd',  'd',            /* ICMP echo */
};
static const uint8_t echo_reply[] = {
    0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x52, 0x54, 0x00, 0xa1, 0xb2, 0xc3, 0x08, 0x00,
    0x45, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x40, 0x00, 0x40, 0x01, 0x22, 0xce, 10,   0,
    2,    15,   10,   0,    2,    2,
    0x00, 0x00, 0x2c, 0x98, 0x00, 0x01, 0x00, 0x02, 'o',  'd',  'd',
};

static const uint8_t arp_request[] = {
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x08, 0x06,
    0x00, 0x01, 0x08, 0x00, 6,    4,    0x00, 0x01,                         /* request */
    0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 10,   0,    2,    2,                /* sender */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 10,   0,    2,    15,               /* target */
};

static int take(struct net_stack *stack, const uint8_t *frame, uint32_t length, uint8_t *answer)
{
    uint8_t *copy = (uint8_t *)malloc(length + 1); /* at its end, where a sanitizer watches */
    uint32_t got;

    if (length != 0)
        memcpy(copy + 1, frame, length);
    got = net_stack_take(stack, copy + 1, length, answer);
    free(copy);
    return (int)got;
}

static struct net_stack host(void)
{
    struct net_stack stack = {{0x52, 0x54, 0, 0xa1, 0xb2, 0xc3}, {10, 0, 2, 15}, {10, 0, 2, 2},
                              {0}, false, false, 0};

    return stack;
}

Test(net_stack, answers_an_echo)
{
    struct net_stack stack = host();
    uint8_t answer[NET_STACK_FRAME];

    cr_assert_eq(take(&stack, echo_request, sizeof(echo_request), answer),
                 (int)sizeof(echo_reply));
    cr_expect_eq(memcmp(answer, echo_reply, sizeof(echo_reply)), 0);
    cr_expect_eq(stack.dropped, 0);
}

Test(net_stack, nothing_short_or_changed_is_answered)
{
    struct net_stack stack = host();
    uint8_t answer[NET_STACK_FRAME], frame[sizeof(echo_request)];

    for (uint32_t length = 0; length < sizeof(echo_request); length++)
        cr_expect_eq(take(&stack, echo_request, length, answer), 0, "%u", length);
    cr_expect_eq(stack.dropped, sizeof(echo_request));
    for (uint32_t length = 0; length < sizeof(arp_request); length++)
        cr_expect_eq(take(&stack, arp_request, length, answer), 0, "%u", length);
    cr_expect_eq(take(&stack, arp_request, sizeof(arp_request), answer), 42);
    for (uint32_t bit = 0; bit < 8 * sizeof(frame); bit++) {
        bool sender = bit >= 6 * 8 && bit < 12 * 8 && bit != 6 * 8; /* anybody may ask */

        memcpy(frame, echo_request, sizeof(frame));
        frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_expect_eq(take(&stack, frame, sizeof(frame), answer), sender ? (int)sizeof(frame) : 0,
                     "%u", bit);
    }
    cr_expect_eq(take(&stack, pattern(0), NET_STACK_FRAME + 1, answer), 0);
}
