// SPDX-License-Identifier: MIT-0
/* The network device against drivers on the library's own driver side, honest and hostile: frames
 * and buffers cut in every way, too short, too long, in the wrong direction, in no memory. */
#include <criterion/criterion.h>
#include <string.h>

#include "examples/device/net.h"

enum {
    NUM = 128,
    BASE = 0x10000, /* of guest memory, which is two pieces that touch */
    CUT = 0x40000,  /* where the second one starts */
    SIZE = 0x80000,
    FRAMES = BASE,     /* what is transmitted */
    BUFFERS = 0x20000, /* what is received into; over the cut from 0x3f800 on */
    MTU = 1500,
    LONGEST = MTU + NETDEV_FRAME_EXTRA,
    HEADER = NETDEV_HEADER_SIZE,
    NEEDS_CSUM = 1,
    GSO_TCPV4 = 1
};

static const uint64_t version_1 = UINT64_C(1) << 32;

struct side {
    struct virtq_slot slots[NUM];
    struct virtq_driver driver;
    struct virtq_device device;
    struct virtq_areas areas;
    _Alignas(64) uint8_t ring[VIRTQ_BYTES(NUM, 64)];
};

static struct side receive, transmit;
static struct netdev net;
static _Alignas(64) uint8_t guest[SIZE];
static uint8_t *moved; /* where the first piece is instead */
static uint8_t content[LONGEST + 1];
static struct netdev_frame frames[NUM];

static const uint16_t formats[] = {0, VIRTQ_IN_ORDER, VIRTQ_PACKED, VIRTQ_PACKED | VIRTQ_IN_ORDER};
#define EACH_FORMAT(flags)                                                                         \
    for (const uint16_t *flags = formats; flags != formats + sizeof(formats) / sizeof(*formats);   \
         flags++)

static bool map(void *ctx, uint64_t addr, struct netdev_span *span)
{
    uint64_t start = addr < CUT ? BASE : CUT, end = addr < CUT ? CUT : SIZE;

    cr_assert_eq(ctx, guest);
    if (addr < BASE || addr >= SIZE)
        return false;
    span->addr = start;
    span->size = end - start;
    span->at = addr < CUT && moved != NULL ? moved : guest + start;
    return true;
}

static void open_side(struct side *side, uint16_t flags)
{
    memset(side, 0, sizeof(*side));
    virtq_areas_set(&side->areas, side->ring, NUM, 64, flags);
    cr_assert_eq(virtq_driver_init(&side->driver, &side->areas, side->slots), 0);
    cr_assert_eq(virtq_device_init(&side->device, &side->areas, NULL, NULL), 0);
}

static void power_on(uint16_t flags, bool merging)
{
    uint64_t merge = merging ? UINT64_C(1) << NETDEV_FEATURE_MRG_RXBUF : 0;

    memset(&net, 0, sizeof(net));
    moved = NULL;
    for (unsigned i = 0; i < sizeof(content); i++)
        content[i] = (uint8_t)(i * 7 + (i >> 8));
    memset(guest, 0xee, sizeof(guest));
    net.map = map;
    net.map_ctx = guest;
    net.mtu = MTU;
    netdev_begin(&net, version_1 | merge);
    open_side(&receive, flags);
    open_side(&transmit, flags);
}

/* ----- the driver's hands ----- */

static struct virtq_seg seg(uint64_t addr, uint32_t len)
{
    struct virtq_seg s;

    s.addr = addr;
    s.len = len;
    return s;
}

static void add(struct side *side, const struct virtq_seg *s, unsigned readable, unsigned writable)
{
    struct virtq_buffer buffer;

    buffer.seg = s;
    buffer.readable = (uint16_t)readable;
    buffer.writable = (uint16_t)writable;
    cr_assert_eq(virtq_driver_add(&side->driver, &buffer, side), 0);
    virtq_driver_publish(&side->driver);
}

/* Takes back one buffer, which has to be there: bytes written. */
static uint32_t take(struct side *side)
{
    struct virtq_done done;

    virtq_device_flush(&side->device);
    cr_assert_eq(virtq_driver_take(&side->driver, &done), 1);
    return done.written;
}
static void nothing_used(struct side *side)
{
    struct virtq_done done;

    virtq_device_flush(&side->device);
    cr_assert_eq(virtq_driver_take(&side->driver, &done), 0);
}

/* A frame of `len` bytes behind its header, in guest memory at `at`. */
static void write_frame(uint64_t at, uint32_t len)
{
    memset(guest + at, 0, HEADER);
    memcpy(guest + at + HEADER, content, len);
}

static void send(uint32_t len)
{
    struct virtq_seg whole = seg(FRAMES, HEADER + len);

    write_frame(FRAMES, len);
    add(&transmit, &whole, 1, 0);
}

/* A receive buffer of `len` bytes; several do not touch. */
static void give(uint64_t at, uint32_t len)
{
    struct virtq_seg whole = seg(at, len);

    add(&receive, &whole, 0, 1);
}

/* ----- the owner's ----- */

/* A round of an echo: frames taken. */
static unsigned echo(void)
{
    unsigned count = netdev_take(&net, &transmit.device, frames, NUM);

    for (unsigned i = 0; i < count; i++) {
        if (frames[i].length != 0)
            netdev_put(&net, &receive.device, &frames[i]);
    }
    return count;
}

/* Nothing but this frame, whole, is in the buffer. */
static void holds_frame(uint64_t at, uint32_t len, unsigned buffers)
{
    uint8_t header[HEADER] = {0};

    header[10] = (uint8_t)buffers;
    cr_assert_eq(memcmp(guest + at, header, HEADER), 0);
    cr_assert_eq(memcmp(guest + at + HEADER, content, len), 0, "%u bytes", len);
    cr_assert_eq(guest[at + HEADER + len], 0xee, "%u bytes", len);
}

/* One frame of `len` bytes through the echo, into one buffer that it fits. */
static void goes_round(uint32_t len)
{
    memset(guest + BUFFERS, 0xee, HEADER + len + 1);
    send(len);
    give(BUFFERS, HEADER + len);
    cr_assert_eq(echo(), 1);
    take(&transmit);
    cr_assert_eq(take(&receive), HEADER + len);
    holds_frame(BUFFERS, len, 1);
}

/* The frame that was added to be sent is refused, and completed; the next one goes round. */
static void is_refused(void)
{
    uint64_t refused = net.refused, taken = net.taken;

    cr_assert_eq(echo(), 1);
    cr_assert_eq(frames[0].length, 0);
    cr_assert_eq(take(&transmit), 0);
    cr_assert(net.refused == refused + 1 && net.taken == taken);
    goes_round(60);
}

Test(netdev, features_and_configuration)
{
    uint8_t config[NETDEV_CONFIG_SIZE];
    static const uint8_t mac[NETDEV_MAC_SIZE] = {2, 1, 2, 3, 4, 5};

    memcpy(net.mac, mac, sizeof(mac));
    net.mtu = 0x2328;
    netdev_config(&net, config);
    cr_assert_eq(memcmp(config, "\2\1\2\3\4\5\1\0\0\0\x28\x23", sizeof(config)), 0);
    cr_assert_eq(netdev_features(), 0x18028);
}

Test(netdev, frames_of_every_length)
{
    /* V-NET-01 (VIRTIO 5.1.6.4): num_buffers is 1 without MRG_RXBUF. */
    EACH_FORMAT(flags)
    {
        for (int merging = 0; merging < 2; merging++) {
            power_on(*flags, merging != 0);
            for (uint32_t len = NETDEV_FRAME_MIN; len <= LONGEST; len++)
                goes_round(len);
            cr_assert_eq(net.taken, LONGEST - NETDEV_FRAME_MIN + 1);
            cr_assert(net.put == net.taken && net.refused + net.dropped + net.unusable == 0);
        }
    }
}

/* A header that is right already, and one that is not in a single byte. */
Test(netdev, headers_that_the_buffer_had_before)
{
    EACH_FORMAT(flags)
    {
        power_on(*flags, false);
        for (unsigned wrong = 0; wrong <= HEADER; wrong++) {
            send(60);
            give(BUFFERS, HEADER + 60);
            memset(guest + BUFFERS, 0, HEADER);
            guest[BUFFERS + 10] = 1;
            if (wrong != HEADER)
                guest[BUFFERS + wrong] ^= 0x80;
            cr_assert_eq(echo(), 1);
            take(&transmit);
            cr_assert_eq(take(&receive), HEADER + 60);
            holds_frame(BUFFERS, 60, 1);
        }
    }
}

Test(netdev, a_batch_is_shown_by_one_flush)
{
    EACH_FORMAT(flags)
    {
        power_on(*flags, false);
        for (unsigned i = 0; i < NUM; i++) {
            send(100);
            give(BUFFERS + 0x400 * i, 512);
        }
        cr_assert_eq(echo(), NUM);
        for (unsigned i = 0; i < NUM; i++) {
            take(&transmit);
            cr_assert_eq(take(&receive), HEADER + 100);
            holds_frame(BUFFERS + 0x400 * i, 100, 1);
        }
    }
}

/* 2.7.4.1: a device makes no assumption about how a buffer is cut. */
Test(netdev, header_and_frame_cut_anywhere)
{
    enum { LEN = 60, WHOLE = HEADER + LEN, APART = 1024 };
    uint8_t got[WHOLE];

    EACH_FORMAT(flags)
    {
        power_on(*flags, false);
        for (uint32_t first = 1; first < WHOLE - 1; first++) {
            for (uint32_t second = 1; second < WHOLE - first; second += 5) {
                uint32_t third = WHOLE - first - second;
                struct virtq_seg from[] = {seg(FRAMES, first), seg(FRAMES + APART, second),
                                           seg(FRAMES + 2 * APART, third)};
                struct virtq_seg to[] = {seg(BUFFERS, second), seg(BUFFERS + APART, first),
                                         seg(BUFFERS + 2 * APART, 500)};

                write_frame(FRAMES, LEN);
                memcpy(guest + FRAMES + 2 * APART, guest + FRAMES + first + second, third);
                memcpy(guest + FRAMES + APART, guest + FRAMES + first, second);
                memset(guest + FRAMES + first, 0xee, WHOLE - first);
                add(&transmit, from, 3, 0);
                add(&receive, to, 0, 3);
                cr_assert_eq(echo(), 1);
                cr_assert(take(&transmit) == 0 && take(&receive) == WHOLE);
                memcpy(got, guest + BUFFERS, second);
                memcpy(got + second, guest + BUFFERS + APART, first);
                memcpy(got + second + first, guest + BUFFERS + 2 * APART, third);
                cr_assert_eq(memcmp(got + HEADER, content, LEN), 0, "%u, %u", first, second);
                add(&transmit, from, 3, 0);
                give(BUFFERS, 512);
                cr_assert_eq(echo(), 1);
                cr_assert(take(&transmit) == 0 && take(&receive) == WHOLE);
                cr_assert_eq(memcmp(guest + BUFFERS + HEADER, content, LEN), 0);
            }
        }
    }
}

Test(netdev, memory_in_two_pieces)
{
    enum { LEN = 1000 };

    power_on(0, false);
    for (uint32_t before = 1; before <= HEADER + LEN; before++) {
        struct virtq_seg whole = seg(CUT - before, HEADER + LEN);

        write_frame(CUT - before, LEN);
        add(&transmit, &whole, 1, 0);
        give(BUFFERS, 2048);
        cr_assert_eq(echo(), 1);
        cr_assert(take(&transmit) == 0 && take(&receive) == HEADER + LEN);
        cr_assert_eq(memcmp(guest + BUFFERS + HEADER, content, LEN), 0);
        send(LEN);
        give(CUT - before, 2048);
        cr_assert_eq(echo(), 1);
        cr_assert(take(&transmit) == 0 && take(&receive) == HEADER + LEN);
        cr_assert_eq(memcmp(guest + CUT - before + HEADER, content, LEN), 0);
    }
}

Test(netdev, memory_that_moves)
{
    static uint8_t elsewhere[CUT - BASE];

    power_on(0, false);
    goes_round(60);
    memcpy(elsewhere, guest + BASE, sizeof(elsewhere));
    moved = elsewhere;
    netdev_begin(&net, version_1);
    send(100); /* not seen: it is in the memory of before */
    give(BUFFERS, 512);
    cr_assert_eq(echo(), 1);
    cr_assert_eq(take(&receive), HEADER + 100);
    cr_assert_eq(memcmp(elsewhere + (BUFFERS - BASE) + HEADER, content, 60), 0);
    cr_assert_eq(guest[BUFFERS + HEADER + 60], 0xee);
}

/* 5.1.6.1: ten bytes before a frame if neither VERSION_1 nor MRG_RXBUF is negotiated. */
Test(netdev, legacy_header)
{
    struct virtq_seg whole = seg(FRAMES, 10 + 60);

    power_on(0, false);
    netdev_begin(&net, 0);
    memset(guest + FRAMES, 0, 10);
    memcpy(guest + FRAMES + 10, content, 60);
    add(&transmit, &whole, 1, 0);
    give(BUFFERS, 200);
    cr_assert_eq(echo(), 1);
    cr_assert_eq(take(&receive), 10 + 60);
    cr_assert_eq(memcmp(guest + BUFFERS + 10, content, 60), 0);
    netdev_begin(&net, UINT64_C(1) << NETDEV_FEATURE_MRG_RXBUF);
    cr_assert_eq(net.header, HEADER);
}

Test(netdev, addresses_are_seen_before_the_frame_is_put)
{
    struct virtq_seg from[] = {seg(FRAMES, HEADER + 5), seg(FRAMES + HEADER + 5, 55)};
    uint8_t seen[12];

    power_on(0, false);
    write_frame(FRAMES, 60);
    add(&transmit, from, 2, 0);
    cr_assert_eq(netdev_take(&net, &transmit.device, frames, 1), 1);
    netdev_peek(&frames[0], seen, sizeof(seen));
    cr_assert_eq(memcmp(seen, content, sizeof(seen)), 0);
    cr_assert_eq(frames[0].length, 60);
}

/* ----- bad frames ----- */

Test(netdev, frames_too_short_or_too_long)
{
    struct virtq_seg cut[] = {seg(FRAMES, 100), seg(FRAMES + 100, HEADER + LONGEST + 1 - 100)};

    EACH_FORMAT(flags)
    {
        power_on(*flags, true);
        for (uint32_t len = 1; len < HEADER + NETDEV_FRAME_MIN; len++) {
            struct virtq_seg whole = seg(FRAMES, len);

            add(&transmit, &whole, 1, 0);
            is_refused();
        }
        send(LONGEST + 1);
        is_refused();
        write_frame(FRAMES, LONGEST + 1);
        add(&transmit, cut, 2, 0);
        is_refused();
    }
}

Test(netdev, offloads_that_were_not_offered)
{
    power_on(0, false);
    for (unsigned bit = 0; bit < 8; bit++) {
        send(60);
        guest[FRAMES] = (uint8_t)(1u << bit);
        cr_assert_eq(echo(), 1);
        take(&transmit);
        cr_assert_eq(frames[0].length != 0, 1u << bit != NEEDS_CSUM); /* others are ignored */
    }
    send(60);
    guest[FRAMES + 1] = GSO_TCPV4;
    is_refused();
}

Test(netdev, frames_in_no_memory_or_in_writable_memory)
{
    EACH_FORMAT(flags)
    {
        struct virtq_seg outside[] = {seg(FRAMES, 40), seg(SIZE, 40)};
        struct virtq_seg over[] = {seg(SIZE - 100, 101)};
        struct virtq_seg top[] = {seg(UINT64_MAX - 100, 100)};
        struct virtq_seg whole[] = {seg(FRAMES, 72), seg(FRAMES + 72, 100)};

        power_on(*flags, false);
        write_frame(FRAMES, 60);
        memset(guest + SIZE - 100, 0, 100);
        add(&transmit, outside, 2, 0);
        is_refused();
        add(&transmit, over, 1, 0);
        is_refused();
        add(&transmit, top, 1, 0);
        is_refused();
        write_frame(FRAMES, 60);
        add(&transmit, whole, 0, 1);
        is_refused();
        write_frame(FRAMES, 60);
        add(&transmit, whole, 1, 1);
        is_refused();
    }
}

Test(netdev, frames_of_many_segments)
{
    struct virtq_seg from[NETDEV_PIECES + 1];

    EACH_FORMAT(flags)
    {
        power_on(*flags, false);
        for (uint32_t i = 0; i <= NETDEV_PIECES; i++)
            from[i] = seg(FRAMES + 2 * i, 2);
        write_frame(FRAMES, 200);
        give(BUFFERS, 512);
        add(&transmit, from, NETDEV_PIECES, 0);
        cr_assert_eq(echo(), 1);
        cr_assert_eq(take(&receive), 2 * NETDEV_PIECES);
        holds_frame(BUFFERS, 2 * NETDEV_PIECES - HEADER, 1);
        take(&transmit);
        add(&transmit, from, NETDEV_PIECES + 1, 0);
        is_refused();
        write_frame(FRAMES, 200);
        from[NETDEV_PIECES - 1] = seg(CUT - 1, 2); /* one piece more than segments */
        add(&transmit, from, NETDEV_PIECES, 0);
        is_refused();
    }
}

/* ----- buffers ----- */

Test(netdev, a_frame_over_several_buffers)
{
    /* V-NET-01: all buffers but the last are filled; the first says how many they are. */
    EACH_FORMAT(flags)
    {
        power_on(*flags, true);
        for (uint32_t size = HEADER; size <= 700; size += 43) {
            for (uint32_t len = 50; len <= LONGEST; len += 123) {
                uint32_t buffers = (HEADER + len + size - 1) / size, left = HEADER + len;
                uint8_t got[HEADER + LONGEST], *to = got;

                if (buffers > NETDEV_BUFFERS)
                    continue;
                for (uint32_t i = 0; i < buffers; i++)
                    give(BUFFERS + 1024 * i, size);
                send(len);
                cr_assert_eq(echo(), 1);
                take(&transmit);
                for (uint32_t i = 0; i < buffers; i++, left -= left < size ? left : size) {
                    uint32_t written = take(&receive);

                    cr_assert_eq(written, left < size ? left : size, "buffer %u of %u", i, buffers);
                    memcpy(to, guest + BUFFERS + 1024 * i, written);
                    to += written;
                }
                cr_assert(got[10] == buffers && got[11] == 0);
                cr_assert_eq(memcmp(got + HEADER, content, len), 0);
            }
        }
        cr_assert(net.put == net.taken && net.dropped == 0);
    }
}

Test(netdev, too_few_buffers_stay_for_a_shorter_frame)
{
    EACH_FORMAT(flags)
    {
        power_on(*flags, true);
        for (unsigned turn = 0; turn < 3 * NUM; turn++) {
            give(BUFFERS, 100);
            give(BUFFERS + 1024, 100);
            send(200 - HEADER + 1);
            cr_assert_eq(echo(), 1);
            take(&transmit);
            nothing_used(&receive);
            cr_assert_eq(net.dropped, turn + 1);
            send(200 - HEADER);
            cr_assert_eq(echo(), 1);
            take(&transmit);
            cr_assert(take(&receive) == 100 && take(&receive) == 100);
        }
        send(60); /* and with none at all */
        cr_assert_eq(echo(), 1);
        cr_assert_eq(net.dropped, 3 * NUM + 1);
        cr_assert(net.put == 3 * NUM && net.unusable == 0);
    }
}

Test(netdev, a_buffer_too_small_without_merging)
{
    EACH_FORMAT(flags)
    {
        power_on(*flags, false);
        give(BUFFERS, HEADER + 99);
        give(BUFFERS + 1024, 512);
        send(100);
        cr_assert_eq(echo(), 1);
        nothing_used(&receive);
        cr_assert_eq(net.dropped, 1);
        send(99);
        cr_assert_eq(echo(), 1);
        cr_assert_eq(take(&receive), HEADER + 99);
        holds_frame(BUFFERS, 99, 1);
    }
}

Test(netdev, more_buffers_than_a_frame_may_take)
{
    EACH_FORMAT(flags)
    {
        power_on(*flags, true);
        for (unsigned i = 0; i < NUM; i++)
            give(BUFFERS + 64 * i, 14);
        send(14 * NETDEV_BUFFERS - HEADER + 1);
        cr_assert_eq(echo(), 1);
        nothing_used(&receive);
        send(14 * NETDEV_BUFFERS - HEADER);
        cr_assert_eq(echo(), 1);
        for (unsigned i = 0; i < NETDEV_BUFFERS; i++)
            cr_assert_eq(take(&receive), 14);
        nothing_used(&receive);
    }
}

/* A buffer that can hold no frame at all is completed empty; the one behind it is used next. */
Test(netdev, unusable_buffers)
{
    static const struct {
        struct virtq_seg seg[2];
        unsigned readable, writable;
    } bad[] = {
        {{{BUFFERS, 512}, {BUFFERS + 512, 512}}, 1, 1}, {{{BUFFERS, 512}, {0, 0}}, 1, 0},
        {{{BUFFERS, HEADER - 1}, {0, 0}}, 0, 1},        {{{SIZE, 512}, {0, 0}}, 0, 1},
        {{{BUFFERS, HEADER}, {BASE - 10, 100}}, 0, 2},  {{{UINT64_MAX - 9, 9}, {0, 0}}, 0, 1}};

    EACH_FORMAT(flags)
    {
        for (int merging = 0; merging < 2; merging++) {
            power_on(*flags, merging != 0);
            for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                add(&receive, bad[i].seg, bad[i].readable, bad[i].writable);
                send(60);
                cr_assert_eq(echo(), 1);
                take(&transmit);
                cr_assert_eq(take(&receive), 0, "buffer %u", i);
                cr_assert(net.unusable == i + 1 && net.dropped == i + 1);
            }
            goes_round(60);
        }
    }
}

Test(netdev, an_unusable_buffer_behind_a_good_one)
{
    EACH_FORMAT(flags)
    {
        struct virtq_seg nowhere = seg(SIZE, 512);

        power_on(*flags, true);
        give(BUFFERS, 100);
        add(&receive, &nowhere, 0, 1);
        send(200);
        cr_assert_eq(echo(), 1);
        nothing_used(&receive); /* it is not the first one */
        cr_assert(net.dropped == 1 && net.unusable == 0);
        send(60);
        cr_assert_eq(echo(), 1);
        cr_assert_eq(take(&receive), HEADER + 60);
        send(60);
        cr_assert_eq(echo(), 1);
        cr_assert_eq(take(&receive), 0);
        cr_assert_eq(net.unusable, 1);
    }
}

/* What is popped in vain is given back; that the driver broke the queue is not forgotten with it.
 */
/* Under the sanitizer, which stops a memcpy() of this. */
Test(netdev, a_buffer_over_the_frame_itself)
{
    struct virtq_seg frame = seg(FRAMES + 64, HEADER + 200), half[2];

    for (unsigned pieces = 1; pieces <= 2; pieces++) {
        for (unsigned at = 0; at <= 128; at += 32) {
            power_on(0, false);
            write_frame(FRAMES + 64, 200);
            half[0] = seg(FRAMES + at, HEADER + 100);
            half[1] = seg(FRAMES + at + HEADER + 100, 100);
            add(&transmit, &frame, 1, 0);
            if (pieces == 1)
                give(FRAMES + at, HEADER + 200);
            else
                add(&receive, half, 0, 2);
            cr_assert_eq(echo(), 1);
            take(&transmit);
            cr_assert_eq(take(&receive), HEADER + 200);
            if (at <= 32 && pieces == 1)
                cr_assert_eq(memcmp(guest + FRAMES + at + HEADER, content, 200), 0);
        }
    }
}

Test(netdev, a_broken_queue_stays_broken)
{
    for (int merging = 0; merging < 2; merging++) {
        power_on(0, merging != 0);
        give(BUFFERS, 100);
        receive.ring[16 * NUM + 2] ^= 0x80; /* the available index */
        for (unsigned turn = 0; turn < 3; turn++) {
            send(60);
            cr_assert_eq(echo(), 1);
            cr_assert_eq(virtq_device_error(&receive.device), VIRTQ_ERR_AVAIL_IDX);
        }
        cr_assert_eq(net.dropped, 3);
    }
    power_on(0, true);
    give(BUFFERS, 100);
    give(BUFFERS + 1024, 100);
    memset(receive.ring + 16 * NUM + 6, 0xff, 2); /* the second head */
    send(150);
    cr_assert_eq(echo(), 1);
    cr_assert_eq(virtq_device_error(&receive.device), VIRTQ_ERR_AVAIL_HEAD);
    transmit.ring[16 * NUM + 3] ^= 1;
    cr_assert_eq(echo(), 0);
    cr_assert_eq(virtq_device_error(&transmit.device), VIRTQ_ERR_AVAIL_IDX);
}
