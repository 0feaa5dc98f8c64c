// SPDX-License-Identifier: MIT-0
/* Reads random bytes and prints them, so that whoever fed the device can compare. */
#include <stdio.h>

#include "../../driver/rng.h"
#include "../../hosts/show.h"
#include "../board.h"

enum { TOTAL = 512, LINE = 64 };

static uint8_t memory[RNG_MEMORY_SIZE] __attribute__((aligned(4096)));
static uint8_t data[TOTAL];
static struct board_device device;
static struct rng rng;

static void print_bytes(void)
{
    for (unsigned at = 0; at < TOTAL; at += LINE) {
        printf("  bytes      ");
        for (unsigned i = 0; i < LINE; i++)
            printf("%02x", data[at + i]);
        printf("\n");
    }
}

static int run(void)
{
    struct rng_setup setup = {.memory = {memory, board_device_address(memory), sizeof(memory)},
                              .wait = board_wait,
                              .wait_ctx = &device,
                              .vectors = device.vectors};
    struct virtq_seg seg = {board_device_address(data), TOTAL};
    int err = rng_start(&rng, &device.drv, &setup);

    if (err != 0)
        return err;
    show_features(&device.drv, RNG_DEVICE_TYPE);
    show_queue(&device.drv, 0, rng.queue_size);
    board_wait_begin(&device);
    err = rng_read(&rng, seg);
    if (err != 0)
        return err;
    print_bytes();
    board_show_interrupts(&device);
    return rng_stop(&rng);
}

int board_program(void)
{
    int err;

    if (!board_find(&device, RNG_DEVICE_TYPE, 0))
        return 1;
    err = run();
    if (err != 0)
        printf("rng: %s\n", rng_err_name(err));
    return err == 0 ? 0 : 1;
}
