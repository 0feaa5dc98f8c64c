// SPDX-License-Identifier: MIT-0
/* The main job of a block host: read, compare, write, verify; see job.h. */
#define _POSIX_C_SOURCE 200809L
#include "job.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "show.h"

const uint8_t *job_open_image(const char *path, bool writable, uint64_t *size)
{
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    void *medium = MAP_FAILED;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) != 0) {
        perror(path);
    } else if (st.st_size < BLK_SECTOR_SIZE || st.st_size % BLK_SECTOR_SIZE != 0) {
        fprintf(stderr, "%s: size is not a whole number of sectors (512 bytes)\n", path);
    } else {
        *size = (uint64_t)st.st_size;
        medium = mmap(NULL, (size_t)*size, PROT_READ, MAP_SHARED, fd, 0);
        if (medium == MAP_FAILED)
            perror(path);
    }
    if (fd >= 0)
        (void)close(fd);
    return medium != MAP_FAILED ? (const uint8_t *)medium : NULL;
}

int job_print_device(struct blk *blk)
{
    char id[BLK_ID_SIZE + 1];
    int err = blk_get_id(blk, id);

    if (err != 0)
        return err;
    show_features(blk->drv, BLK_DEVICE_TYPE);
    show_queue(blk->drv, 0, blk->queue_size);
    printf("  disk       \"%s\", %llu sectors%s\n", id, (unsigned long long)blk->capacity,
           blk->read_only ? ", read-only" : "");
    return 0;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t checksum(uint64_t sum, const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++) /* FNV-1a */
        sum = (sum ^ data[i]) * 0x100000001b3u;
    return sum;
}

/* Submits `length` bytes at `at` in four segments, so that chains and tables have some length. */
static int submit(struct job *job, enum blk_type type, uint64_t at, uint32_t offset,
                  uint32_t length)
{
    uint32_t quarter = length / 4 / BLK_SECTOR_SIZE * BLK_SECTOR_SIZE, done = 0;
    struct virtq_seg seg[4];
    unsigned count = 0;

    while (done < length) {
        seg[count].addr = job->data_device + offset + done;
        seg[count].len = count == 3 || quarter == 0 ? length - done : quarter;
        done += seg[count++].len;
    }
    return blk_submit(job->blk, type, at / BLK_SECTOR_SIZE, seg, count, NULL);
}

/* Length of the request that starts at `sector`: from one sector to JOB_PIECE bytes, mostly small,
 * so that the ring wraps often and at ever other places. */
static uint32_t piece(uint64_t sector)
{
    uint32_t mixed = (uint32_t)(sector * 2654435761u >> 16);

    if (mixed % 16 == 0)
        return JOB_PIECE;
    return (1 + mixed % 20) * BLK_SECTOR_SIZE;
}

/* Moves up to JOB_DATA bytes between the data memory and the disk at `at`, in one batch of as many
 * requests as the driver and the queue hold: how many, or a negative error. */
static int64_t move(struct job *job, enum blk_type type, uint64_t at, uint64_t end)
{
    uint32_t moved = 0;
    int err = 0;

    while (err == 0 && at + moved < end && moved < JOB_DATA) {
        uint64_t left = end - at - moved;
        uint32_t length = piece((at + moved) / BLK_SECTOR_SIZE);

        if (length > left)
            length = (uint32_t)left;
        err = submit(job, type, at + moved, moved, length);
        moved += err == 0 ? length : 0;
    }
    if (err == 0 || ((err == VIRTQ_ERR_FULL || err == BLK_ERR_BUSY) && moved != 0))
        err = blk_drain(job->blk);
    return err != 0 ? err : (int64_t)moved;
}

int job_read_all(struct job *job)
{
    uint64_t size = job->blk->capacity * BLK_SECTOR_SIZE, sum = 0xcbf29ce484222325u;
    double took = 0;

    for (uint64_t at = 0; at < size;) {
        double begin = seconds();
        int64_t moved = move(job, BLK_READ, at, size);

        if (moved < 0)
            return (int)moved;
        took += seconds() - begin;
        if (memcmp(job->data, job->medium + at, (size_t)moved) != 0)
            return JOB_ERR_DATA;
        sum = checksum(sum, job->data, (size_t)moved);
        at += (uint64_t)moved;
    }
    printf("  read       %llu bytes equal to the image, checksum %016llx, %.0f MB/s\n",
           (unsigned long long)size, (unsigned long long)sum, (double)size / (took + 1e-9) / 1e6);
    return 0;
}

/* Moves the first `length` bytes of the disk, at most JOB_DATA, in as many batches as it takes. */
static int move_all(struct job *job, enum blk_type type, uint64_t length)
{
    struct job rest = *job;
    uint64_t at = 0;

    while (at < length) {
        int64_t moved = move(&rest, type, at, length);

        if (moved < 0)
            return (int)moved;
        at += (uint64_t)moved;
        rest.data_device = job->data_device + at;
    }
    return 0;
}

static int compare(struct job *job, uint64_t length)
{
    return memcmp(job->data, job->medium, (size_t)length) == 0 ? 0 : JOB_ERR_DATA;
}

int job_write(struct job *job)
{
    uint64_t size = job->blk->capacity * BLK_SECTOR_SIZE;
    uint64_t length = size < JOB_DATA ? size : JOB_DATA;
    int err;

    for (uint64_t i = 0; i < length; i++) /* nothing that the image holds already */
        job->data[i] = (uint8_t)(job->medium[i] + 1 + i % 251);
    err = move_all(job, BLK_WRITE, length);
    if (err == 0)
        err = blk_flush(job->blk);
    if (err == 0)
        err = compare(job, length);
    if (err != 0)
        return err;
    memset(job->data, 0, (size_t)length);
    err = move_all(job, BLK_READ, length);
    if (err == 0)
        err = compare(job, length);
    if (err == 0)
        printf("  write      %llu bytes, flushed, on the medium, read back equal\n",
               (unsigned long long)length);
    return err;
}

const char *job_err_name(int err)
{
    return err == JOB_ERR_DATA ? "data differs from the image" : blk_err_name(err);
}
