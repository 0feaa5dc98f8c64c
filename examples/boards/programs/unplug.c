// SPDX-License-Identifier: MIT-0
/* Reads a disk over and over until it cannot: whoever runs it takes the device away, or makes the
 * disk smaller, and is told in one line. Ends with status 1, as a program whose disk is lost
 * should. */
#include <stdio.h>

#include "../../driver/blk.h"
#include "../board.h"

enum {
    SECTORS = 16,           /* of one request */
    MICROSECONDS = 20000000 /* for so long at most */
};

static uint8_t memory[BLK_MEMORY_SIZE] __attribute__((aligned(4096)));
static uint8_t data[SECTORS * BLK_SECTOR_SIZE];
static struct board_device device;
static struct blk blk;

/* Where there is no function any more, configuration space reads as all ones. What its BARs read as
 * is the bridge's choice: all ones on hardware, on QEMU 0 if they were in memory. */
static bool gone(void)
{
    const struct virtio_pci_config *config = &device.config;

    return config->read32 != NULL && config->read32(config->ctx, 0) == UINT32_MAX;
}

/* A device that is gone never answers: that is seen long before board_wait() loses patience. */
static bool wait_for_disk(void *ctx)
{
    return board_wait(ctx) && !virtio_drv_needs_reset(&device.drv) && !gone();
}

/* Reads the whole disk once; *sector is where it failed. */
static int read_all(uint64_t *sector)
{
    for (uint64_t at = 0; at < blk.capacity; at += SECTORS) {
        uint64_t left = blk.capacity - at, count = left < SECTORS ? left : SECTORS;
        struct virtq_seg seg = {board_device_address(data), (uint32_t)count * BLK_SECTOR_SIZE};
        int err;

        *sector = at;
        board_wait_begin(&device);
        err = blk_read(&blk, at, seg);
        if (err != 0)
            return err;
    }
    return 0;
}

/* The same until there is an error, or time is up. */
static int read_on(uint64_t *sector)
{
    uint64_t begin = board_micros();
    int err = read_all(sector);

    if (err != 0)
        return err;
    printf("  reading    %llu sectors over and over\n", (unsigned long long)blk.capacity);
    while (err == 0 && board_micros() - begin < MICROSECONDS)
        err = read_all(sector);
    return err;
}

static void show_end(int err, uint64_t sector)
{
    if (err != 0 && gone())
        printf("blk: %s\n", blk_err_name(VIRTIO_ERR_GONE));
    else if (err != 0)
        printf("blk: sector %llu: %s\n", (unsigned long long)sector, blk_err_name(err));
    else
        printf("blk: the disk is still there after %u seconds\n", MICROSECONDS / 1000000);
}

int board_program(void)
{
    struct blk_setup setup = {.memory = {memory, board_device_address(memory), sizeof(memory)},
                              .wait = wait_for_disk,
                              .wait_ctx = &device};
    uint64_t sector = 0;
    int err;

    if (!board_find(&device, BLK_DEVICE_TYPE, 0))
        return 2;
    setup.vectors = device.vectors;
    err = blk_start(&blk, &device.drv, &setup);
    if (err != 0) {
        printf("blk: %s\n", blk_err_name(err));
        return 2;
    }
    err = read_on(&sector);
    board_show_interrupts(&device);
    show_end(err, sector);
    return err != 0 ? 1 : 0;
}
