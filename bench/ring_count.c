// SPDX-License-Identifier: MIT-0
/*
 * One-descriptor round trips through a split ring, for counting instructions under callgrind.
 *
 *     ring_count N
 *
 * Built with -DAPART each side's part is a function of its own, which callgrind's --toggle-collect
 * can single out.
 *
 * One writable buffer of 64 bytes, queue size 256, EVENT_IDX on: what the budgets speak of.
 */
#include <stdio.h>
#include <stdlib.h>

#include "virtio_ring.h"

#ifdef APART
#define SIDE __attribute__((noinline))
#else
#define SIDE static
#endif

enum { SIZE = 256 };

static struct virtq_driver driver;
static struct virtq_device device;
static unsigned long kicks, irqs;

SIDE bool driver_send(struct virtq_seg seg, void *cookie)
{
    if (virtq_driver_add_writable(&driver, seg, cookie) != 0)
        return false;
    virtq_driver_publish(&driver);
    kicks += virtq_driver_kick_due(&driver);
    return true;
}

SIDE bool device_serve(struct virtq_chain *chain)
{
    if (virtq_device_pop(&device, chain) != 1)
        return false;
    virtq_device_push(&device, chain->token, chain->seg[0].len);
    virtq_device_flush(&device);
    irqs += virtq_device_irq_due(&device);
    return true;
}

SIDE bool driver_receive(void *cookie)
{
    struct virtq_done done;

    return virtq_driver_take(&driver, &done) == 1 && done.cookie == cookie && done.written == 64;
}

static bool round_trips(unsigned long count)
{
    static uint8_t buffer[64];
    struct virtq_seg seg[4], data = {(uint64_t)(uintptr_t)buffer, sizeof(buffer)};
    struct virtq_chain chain = {.seg = seg, .capacity = 4};

    while (count-- != 0) {
        if (!driver_send(data, buffer) || !device_serve(&chain) || !driver_receive(buffer))
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static _Alignas(4096) uint8_t memory[VIRTQ_SPLIT_BYTES(SIZE, 4096)];
    static struct virtq_slot slots[SIZE];
    struct virtq_areas areas;

    if (argc != 2) {
        fprintf(stderr, "usage: ring_count N\n");
        return 2;
    }
    virtq_split_areas(&areas, memory, SIZE, 4096);
    areas.flags = VIRTQ_EVENT_IDX;
    if (virtq_driver_init(&driver, &areas, slots) != 0 ||
        virtq_device_init(&device, &areas, NULL, NULL) != 0 ||
        !round_trips(strtoul(argv[1], NULL, 10))) {
        fprintf(stderr, "ring_count: round trip failed\n");
        return 1;
    }
    printf("%lu kicks, %lu interrupts due\n", kicks, irqs);
    return 0;
}
