// SPDX-License-Identifier: MIT-0
/* A host with a fixed IPv4 address: answers ARP, ICMP echo and a UDP echo on port 7, and asks for
 * its gateway. Ends with a datagram "quit", when the link goes down, or when nothing comes any
 * more. */
#include <stdio.h>
#include <string.h>

#include "../../driver/net.h"
#include "../../hosts/show.h"
#include "../board.h"
#include "net/stack.h"

enum { ERR_LINK = -200 };

static uint8_t memory[NET_MEMORY_SIZE] __attribute__((aligned(4096)));
static uint8_t frame[NET_FRAME_MAX];
static uint8_t answers[NET_DEPTH][NET_FRAME_MAX];
static void *idle[NET_DEPTH]; /* those of them that are not on their way out */
static unsigned idle_count;
static unsigned received, sent;
static volatile bool changed; /* the configuration */
static struct board_device device;
static struct net net;
static struct net_stack stack = {.address = {10, 0, 2, 15}, .gateway = {10, 0, 2, 2}};

static const char *err_name(int err)
{
    return err == ERR_LINK ? "link is down" : net_err_name(err);
}

static void print_mac(const char *before, const uint8_t mac[6])
{
    printf("%s%02x:%02x:%02x:%02x:%02x:%02x\n", before, mac[0], mac[1], mac[2], mac[3], mac[4],
           mac[5]);
}

/* In interrupt context. */
static void interrupted(void *ctx, uint32_t causes)
{
    (void)ctx;
    if ((causes & VIRTIO_IRQ_CONFIG) != 0)
        changed = true;
}

static int check_link(void)
{
    int up;

    if (!changed && device.irq != BOARD_IRQ_NONE)
        return 0;
    changed = false;
    up = net_link(&net);
    return up == 0 ? ERR_LINK : up > 0 ? 0 : up;
}

/* Sends the first of the idle answers: the Ethernet header and the rest, as most stacks have them
 * apart. */
static int send(uint32_t length)
{
    uint8_t *answer = idle[idle_count - 1];
    uint64_t address = board_device_address(answer);
    struct virtq_seg seg[2] = {{address, NET_FRAME_MIN},
                               {address + NET_FRAME_MIN, length - NET_FRAME_MIN}};
    int err = net_send(&net, seg, 2, answer);

    if (err == 0)
        idle_count--;
    return err;
}

/* Takes back the answers that have gone out. */
static int collect(void)
{
    int got;

    while ((got = net_sent(&net, &idle[idle_count])) > 0) {
        idle_count++;
        sent++;
    }
    return got;
}

/* One frame: 1 there was one, 0 there was none, or an error. */
static int serve_one(void)
{
    bool known = stack.gateway_known;
    int got = net_receive(&net, frame, sizeof(frame)), err;
    uint32_t length;

    if (got <= 0)
        return net_err_drops_frame(got) ? 1 : got;
    received++;
    board_wait_begin(&device);
    length = net_stack_take(&stack, frame, (uint32_t)got, idle[idle_count - 1]);
    err = length != 0 ? send(length) : 0;
    if (stack.gateway_known && !known)
        print_mac("  gateway    10.0.2.2 is at ", stack.gateway_mac);
    return err != 0 ? err : 1;
}

/* All frames that are there, as long as there is memory for answers. */
static int serve(void)
{
    int got = collect();

    while (got >= 0 && idle_count != 0 && !stack.quit) {
        got = serve_one();
        if (got == 0)
            break;
        if (got > 0)
            got = collect();
    }
    net_kick(&net);
    return got < 0 ? got : 0;
}

/* Until the last frame has gone out. */
static int finish(void)
{
    int err = collect();

    while (err == 0 && idle_count < NET_DEPTH) {
        err = net_wait(&net, true);
        if (err == 0)
            err = collect();
    }
    return err;
}

static int work(void)
{
    int err = send(net_stack_ask(&stack, idle[idle_count - 1]));

    board_wait_begin(&device);
    while (err == 0) {
        err = serve();
        if (err == 0 && stack.quit)
            return finish();
        if (err == 0)
            err = net_wait(&net, idle_count == 0);
        if (err == 0)
            err = check_link();
    }
    return err;
}

static int begin(void)
{
    int up = net_link(&net);

    show_features(&device.drv, NET_DEVICE_TYPE);
    show_queue(&device.drv, 0, net.queue_size[0]);
    show_queue(&device.drv, 1, net.queue_size[1]);
    print_mac("  address    ", net.mac);
    if (up >= 0)
        printf("  link       %s, MTU %u\n", up > 0 ? "up" : "down", net.mtu);
    memcpy(stack.mac, net.mac, sizeof(stack.mac));
    for (idle_count = 0; idle_count < NET_DEPTH; idle_count++)
        idle[idle_count] = answers[idle_count];
    return up == 0 ? ERR_LINK : up > 0 ? 0 : up;
}

static int run(void)
{
    struct net_setup setup = {.memory = {memory, board_device_address(memory), sizeof(memory)},
                              .wait = board_wait,
                              .wait_ctx = &device,
                              .vectors = device.vectors};
    int err;

    device.handler = interrupted;
    err = net_start(&net, &device.drv, &setup);
    if (err != 0)
        return err;
    err = begin();
    if (err == 0)
        err = work();
    printf("  frames     %u received, %u sent, %u merged, %u malformed, %u dropped\n", received,
           sent, (unsigned)net.merged, (unsigned)stack.dropped, (unsigned)net.dropped);
    board_show_interrupts(&device);
    return err == 0 ? net_stop(&net) : err;
}

int board_program(void)
{
    int err;

    if (!board_find(&device, NET_DEVICE_TYPE, 0))
        return 1;
    err = run();
    if (err != 0)
        printf("net: %s\n", err_name(err));
    return err == 0 ? 0 : 1;
}
