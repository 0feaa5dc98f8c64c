// SPDX-License-Identifier: MIT-0
/* Reads a disk, writes each byte of its first half plus one into its second half, reads that back.
 * Whoever made the image can tell from it whether each byte went both ways. */
#include <stdio.h>

#include "../../driver/blk.h"
#include "../../hosts/show.h"
#include "../board.h"

enum {
    PIECE = 8 << 10,           /* bytes of one request */
    BATCH = BLK_DEPTH * PIECE, /* bytes in flight */
    SEGMENTS = 4,
    ERR_DATA = -200
};

static uint8_t memory[BLK_MEMORY_SIZE] __attribute__((aligned(4096)));
static uint8_t data[BATCH], copy[BATCH];
static struct board_device device;
static struct blk blk;

static const char *err_name(int err)
{
    return err == ERR_DATA ? "what was read back is not what was written" : blk_err_name(err);
}

/* Requests for `length` bytes at `at`, as many as it takes, in flight together. */
static int move(enum blk_type type, uint64_t at, uint8_t *bytes, uint32_t length)
{
    uint32_t done = 0;
    int err = 0;

    board_wait_begin(&device);
    while (err == 0 && done < length) {
        struct virtq_seg seg[SEGMENTS];
        uint32_t piece = length - done < PIECE ? length - done : PIECE;
        unsigned count = piece == PIECE ? SEGMENTS : 1;

        for (unsigned i = 0; i < count; i++) {
            seg[i].addr = board_device_address(bytes + done + i * (piece / count));
            seg[i].len = piece / count;
        }
        err = blk_submit(&blk, type, (at + done) / BLK_SECTOR_SIZE, seg, count, NULL);
        if (err == VIRTQ_ERR_FULL) { /* a small queue: what it holds first */
            err = blk_drain(&blk);
            continue;
        }
        done += piece;
    }
    return err != 0 ? err : blk_drain(&blk);
}

static uint32_t checksum(uint32_t sum, const uint8_t *bytes, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++) /* FNV-1a */
        sum = (sum ^ bytes[i]) * 0x01000193u;
    return sum;
}

static int read_all(uint64_t size)
{
    uint32_t sum = 0x811c9dc5u;

    for (uint64_t at = 0; at < size; at += BATCH) {
        uint32_t length = size - at < BATCH ? (uint32_t)(size - at) : (uint32_t)BATCH;
        int err = move(BLK_READ, at, data, length);

        if (err != 0)
            return err;
        sum = checksum(sum, data, length);
    }
    printf("  read       %llu bytes, checksum %08x\n", (unsigned long long)size,
           (unsigned)sum);
    return 0;
}

static int copy_piece(uint64_t at, uint64_t to, uint32_t length)
{
    int err = move(BLK_READ, at, data, length);

    for (uint32_t i = 0; i < length; i++)
        data[i]++;
    if (err == 0)
        err = move(BLK_WRITE, to, data, length);
    if (err == 0)
        err = move(BLK_READ, to, copy, length);
    for (uint32_t i = 0; i < length && err == 0; i++)
        err = data[i] == copy[i] ? 0 : ERR_DATA;
    return err;
}

static int copy_half(uint64_t size)
{
    uint64_t half = size / 2 / BLK_SECTOR_SIZE * BLK_SECTOR_SIZE;
    int err = 0;

    for (uint64_t at = 0; at < half && err == 0; at += BATCH)
        err = copy_piece(at, half + at, half - at < BATCH ? (uint32_t)(half - at) : (uint32_t)BATCH);
    if (err == 0)
        err = blk_flush(&blk);
    if (err == 0)
        printf("  wrote      %llu bytes, flushed, read back equal\n", (unsigned long long)half);
    return err;
}

static int work(void)
{
    uint64_t size = blk.capacity * BLK_SECTOR_SIZE;
    char id[BLK_ID_SIZE + 1];
    int err = blk_get_id(&blk, id);

    if (err != 0)
        return err;
    printf("  disk       \"%s\", %llu sectors%s\n", id, (unsigned long long)blk.capacity,
           blk.read_only ? ", read-only" : "");
    err = read_all(size);
    if (err == 0 && !blk.read_only)
        err = copy_half(size);
    return err;
}

static int run(void)
{
    struct blk_setup setup = {.memory = {memory, board_device_address(memory), sizeof(memory)},
                              .wait = board_wait,
                              .wait_ctx = &device,
                              .vectors = device.vectors};
    int err = blk_start(&blk, &device.drv, &setup);

    if (err != 0)
        return err;
    show_features(&device.drv, BLK_DEVICE_TYPE);
    show_queue(&device.drv, 0, blk.queue_size);
    err = work();
    board_show_interrupts(&device);
    return err == 0 ? blk_stop(&blk) : err;
}

int board_program(void)
{
    int err;

    if (!board_find(&device, BLK_DEVICE_TYPE, 0))
        return 1;
    err = run();
    if (err != 0)
        printf("blk: %s\n", err_name(err));
    return err == 0 ? 0 : 1;
}
