// SPDX-License-Identifier: MIT-0
/*
 * Drives a vhost-user network device that echoes, from an ordinary process.
 *
 * DPDK's testpmd with one port of its vhost and forward mode io sends every frame back where it
 * came from. This program is the front-end and the driver in one: it sends frames of all lengths,
 * in one to four segments, and compares each byte of what comes back, in its order. See usage() for
 * the options; exit status 0 means that everything was as it must be.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../driver/net.h"
#include "../vhost_user/frontend.h"
#include "show.h"

enum {
    WINDOW = 16, /* frames on their way at most: as many buffers wait for them */
    FRAME_ROOM = 2048,
    FRAME_MIN = 60,
    MAPPED = (NET_MEMORY_SIZE + 4095) / 4096 * 4096,
    FEATURE_MAC = 5,
    ERR_DATA = -200
};

/* One run. */
struct run {
    const char *socket;
    unsigned long frames, rounds, queue_size, timeout_ms;
    struct virtio_features refused;
    struct vhu_frontend front;
    struct virtio_drv drv;
    struct net net;
    struct virtio_dma data; /* FRAME_ROOM for each frame on its way */
    bool busy[WINDOW];      /* the device may still read it */
    unsigned long sent, received;
    uint64_t bytes;
};

/* Address, link up, one pair of queues, an MTU of 1500: this side's to give. */
static const uint8_t config[] = {0x02, 0, 0, 0, 0, 0x06, 1, 0, 1, 0, 0xdc, 0x05};

static const char *err_name(int err)
{
    return err == ERR_DATA ? "a frame did not come back as it went" : net_err_name(err);
}

/* ----- frames ----- */

/* Frame `number`: each length comes up, and no two neighbours share a byte of payload. Its length
 * is returned. */
static uint32_t make_frame(uint8_t *frame, unsigned long number)
{
    uint32_t length = FRAME_MIN + (uint32_t)(number * 397 % (NET_FRAME_MAX - FRAME_MIN + 1));

    memset(frame, 0xff, NET_MAC_SIZE);
    memcpy(frame + NET_MAC_SIZE, config, NET_MAC_SIZE);
    frame[12] = 0x88; /* for local experiments */
    frame[13] = 0xb5;
    for (uint32_t i = NET_FRAME_MIN; i < length; i++)
        frame[i] = (uint8_t)(number * 7 + i + (i >> 8) * 13);
    memcpy(frame + NET_FRAME_MIN, &number, sizeof(number));
    return length;
}

static int send_frame(struct run *run, unsigned long number)
{
    uint32_t slot = number % WINDOW, at = slot * FRAME_ROOM, done = 0;
    uint32_t length = make_frame((uint8_t *)run->data.cpu + at, number);
    unsigned count = 1 + number % NET_SEGS;
    struct virtq_seg seg[NET_SEGS];

    for (unsigned i = 0; i < count; i++) {
        seg[i].addr = run->data.device + at + done;
        seg[i].len = i == count - 1 ? length - done : length / count;
        done += seg[i].len;
    }
    return net_send(&run->net, seg, count, &run->busy[slot]);
}

/* Sends what the window and the queue have room for. */
static int send_some(struct run *run)
{
    void *cookie;
    int err = 0, got = net_sent(&run->net, &cookie);

    for (; got > 0; got = net_sent(&run->net, &cookie))
        *(bool *)cookie = false;
    if (got < 0)
        return got;
    while (run->sent < run->frames && run->sent - run->received < WINDOW &&
           !run->busy[run->sent % WINDOW]) {
        err = send_frame(run, run->sent);
        if (err != 0)
            break;
        run->busy[run->sent++ % WINDOW] = true;
    }
    return err == VIRTQ_ERR_FULL ? 0 : err;
}

/* Takes what came back: how many frames, or an error. */
static int receive_some(struct run *run)
{
    uint8_t frame[FRAME_ROOM], expected[FRAME_ROOM];
    int count = 0, got = net_receive(&run->net, frame, sizeof(frame));

    for (; got > 0; got = net_receive(&run->net, frame, sizeof(frame))) {
        uint32_t length = make_frame(expected, run->received);

        if (run->received == run->sent || (uint32_t)got != length ||
            memcmp(frame, expected, length) != 0)
            return ERR_DATA;
        run->received++;
        run->bytes += length;
        count++;
    }
    return got < 0 ? got : count;
}

static int echo(struct run *run)
{
    memset(run->busy, 0, sizeof(run->busy));
    run->sent = run->received = 0;
    run->bytes = 0;
    while (run->received < run->frames) {
        int err = send_some(run), got;

        net_kick(&run->net);
        got = err == 0 ? receive_some(run) : err;
        if (got == 0 && run->received < run->frames)
            got = net_wait(&run->net, run->sent == run->received);
        if (got < 0)
            return got;
    }
    printf("  echoed     %lu frames, %llu bytes, %llu in several buffers\n", run->received,
           (unsigned long long)run->bytes, (unsigned long long)run->net.merged);
    return 0;
}

/* ----- the run ----- */

/* One round: the device from a reset to a reset. */
static int one_round(struct run *run)
{
    const struct net_setup setup = {.memory = vhu_frontend_memory(&run->front, 0, 0, MAPPED),
                                    .wait = vhu_frontend_wait,
                                    .wait_ctx = &run->front,
                                    .refused = run->refused,
                                    .queue_size = (uint16_t)run->queue_size};
    int stopped, err = net_start(&run->net, &run->drv, &setup);

    if (err != 0)
        return err;
    show_features(&run->drv, NET_DEVICE_TYPE);
    show_queue(&run->drv, 0, run->net.queue_size[0]);
    show_queue(&run->drv, 1, run->net.queue_size[1]);
    err = echo(run);
    stopped = net_stop(&run->net);
    return err != 0 ? err : stopped;
}

static int work(struct run *run)
{
    const struct vhu_frontend_setup setup = {.queues = 2,
                                             .queues_counted = 2,
                                             .queue_size = NET_QUEUE_MAX,
                                             .config_length = sizeof(config),
                                             .own_config = config,
                                             .own_features = 1u << FEATURE_MAC,
                                             .timeout_ms = (int)run->timeout_ms};
    const uint64_t lengths[] = {MAPPED, WINDOW * FRAME_ROOM};
    int err = 0;

    if (vhu_frontend_share(&run->front, lengths, 2) != 0 ||
        vhu_frontend_open(&run->front, vhu_frontend_connect(run->socket), &setup) != 0)
        return VIRTIO_ERR_GONE;
    run->data = vhu_frontend_memory(&run->front, 1, 0, WINDOW * FRAME_ROOM);
    err = vhu_frontend_drv(&run->front, &run->drv);
    for (unsigned long i = 0; i < run->rounds && err == 0; i++) {
        err = one_round(run);
        (void)fflush(stdout); /* whoever watches counts rounds */
    }
    return err;
}

static int drive(struct run *run)
{
    int err = work(run);
    const char *lost = vhu_frontend_error(&run->front);

    if (lost != NULL || err != 0)
        fprintf(stderr, "vhost-front-net: %s\n", lost != NULL ? lost : err_name(err));
    else
        printf("  interrupts %u, each from an eventfd\n", vhu_frontend_interrupts(&run->front));
    vhu_frontend_close(&run->front);
    return lost != NULL || err != 0;
}

/* ----- the command line ----- */

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: vhost-front-net [OPTION]... SOCKET\n"
            "Drives the vhost-user network device at SOCKET, which must send every frame\n"
            "back; compares what comes with what went.\n"
            "  --refuse NAME    do not use this feature (RING_PACKED, IN_ORDER, MRG_RXBUF ...)\n"
            "  --frames N       to send, default 20000\n"
            "  --queue-size N   entries of each queue, default 256\n"
            "  --rounds N       reset the device and do it all again, N times\n"
            "  --timeout MS     for an answer or an interrupt, default 10000\n"
            "  --help           this text\n");
    return status;
}

static bool number(const char *text, unsigned long low, unsigned long high, unsigned long *value)
{
    char *end;

    *value = strtoul(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == '\0' && *value >= low && *value <= high)
        return true;
    fprintf(stderr, "vhost-front-net: \"%s\" is not from %lu to %lu\n", text, low, high);
    return false;
}

static bool refuse(struct run *run, const char *text)
{
    for (unsigned bit = 0; bit < 128; bit++) {
        const char *name = virtio_names_feature(virtio_names_type(NET_DEVICE_TYPE), bit);

        if (name != NULL && strcmp(text, name) == 0) {
            virtio_features_add(&run->refused, bit);
            return true;
        }
    }
    fprintf(stderr, "vhost-front-net: no feature \"%s\"\n", text);
    return false;
}

static bool take(struct run *run, const char *name, const char *value)
{
    if (strcmp(name, "--refuse") == 0)
        return refuse(run, value);
    if (strcmp(name, "--frames") == 0)
        return number(value, 1, 1000000000, &run->frames);
    if (strcmp(name, "--queue-size") == 0)
        return number(value, 1, NET_QUEUE_MAX, &run->queue_size);
    if (strcmp(name, "--rounds") == 0)
        return number(value, 1, 1000000, &run->rounds);
    if (strcmp(name, "--timeout") == 0)
        return number(value, 1, 600000, &run->timeout_ms);
    fprintf(stderr, "vhost-front-net: cannot do anything with \"%s\"\n", name);
    return false;
}

static bool parse(struct run *run, int argc, char **argv)
{
    int i = 1;

    for (; i + 1 < argc; i += 2) {
        if (!take(run, argv[i], argv[i + 1]))
            return false;
    }
    run->socket = i < argc && argv[i][0] != '-' ? argv[i] : NULL;
    return run->socket != NULL;
}

int main(int argc, char **argv)
{
    static struct run run = {
        .frames = 20000, .rounds = 1, .queue_size = 256, .timeout_ms = 10000};

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    if (!parse(&run, argc, argv))
        return usage(stderr, 2);
    return drive(&run);
}
