// SPDX-License-Identifier: MIT-0
/* The same work as blk.c, as a task of an RTOS does it: it sleeps until an interrupt says that its request
 * is done. Interrupts are on all the time. */
#include <stdio.h>

#include "../../hosts/show.h"
#include "../../rtos/rtos_blk.h"
#include "../board.h"

enum { PIECE = 32 << 10, ERR_DATA = -200, ERR_POLLED = -201 };

static uint8_t memory[BLK_MEMORY_SIZE] __attribute__((aligned(4096)));
static uint8_t data[PIECE] __attribute__((aligned(RTOS_CACHE_LINE)));
static uint8_t copy[PIECE] __attribute__((aligned(RTOS_CACHE_LINE)));
static struct board_device device;
static struct rtos_blk disk;

static const char *err_name(int err)
{
    switch (err) {
    case ERR_DATA: return "what was read back is not what was written";
    case ERR_POLLED: return "this board has no interrupts, and the tasks would sleep forever";
    default: return rtos_blk_err_name(err);
    }
}

static int copy_piece(uint64_t from, uint64_t to, uint32_t length)
{
    int err = rtos_blk_read(&disk, from / BLK_SECTOR_SIZE, data, length);

    for (uint32_t i = 0; i < length; i++)
        data[i]++;
    if (err == 0)
        err = rtos_blk_write(&disk, to / BLK_SECTOR_SIZE, data, length);
    if (err == 0)
        err = rtos_blk_read(&disk, to / BLK_SECTOR_SIZE, copy, length);
    for (uint32_t i = 0; i < length && err == 0; i++)
        err = data[i] == copy[i] ? 0 : ERR_DATA;
    return err;
}

static int task(void)
{
    uint64_t half = disk.blk.capacity / 2 * BLK_SECTOR_SIZE;
    int err = 0;

    for (uint64_t at = 0; at < half && err == 0; at += PIECE)
        err = copy_piece(at, half + at, half - at < PIECE ? (uint32_t)(half - at) : (uint32_t)PIECE);
    if (err == 0)
        err = rtos_blk_flush(&disk);
    if (err == 0)
        printf("  wrote      %llu bytes, flushed, read back equal\n", (unsigned long long)half);
    return err;
}

static int run(void)
{
    struct virtio_dma dma = {memory, rtos_dma_address(memory), sizeof(memory)};
    int err;

    if (device.irq == BOARD_IRQ_NONE)
        return ERR_POLLED;
    device.handler = rtos_blk_interrupt;
    device.handler_ctx = &disk;
    err = rtos_blk_start(&disk, &device.drv, dma, device.vectors);
    if (err != 0)
        return err;
    board_irq_on();
    show_features(&device.drv, BLK_DEVICE_TYPE);
    show_queue(&device.drv, 0, disk.blk.queue_size);
    err = task();
    board_show_interrupts(&device);
    return err == 0 ? blk_stop(&disk.blk) : err;
}

int board_program(void)
{
    int err;

    if (!board_find(&device, BLK_DEVICE_TYPE, 0))
        return 1;
    err = run();
    if (err != 0)
        printf("rtos: %s\n", err_name(err));
    return err == 0 ? 0 : 1;
}
