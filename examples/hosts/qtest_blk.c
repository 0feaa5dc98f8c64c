// SPDX-License-Identifier: MIT-0
/*
 * Drives QEMU's own virtio-blk from an ordinary process.
 *
 * QEMU runs with its CPU halted; this program reaches its ports, registers and memory through the
 * qtest socket, finds the disk, and works on it with the front-end of examples/driver. The image is
 * read whole and compared with the file; with --write a pattern is written and found in the file;
 * with --reset-queue all of it happens again on a queue that was reset with requests in it. See
 * usage() for the options; exit status 0 means that everything was as it must be.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <string.h>

#include "job.h"
#include "qtest_virtio.h"
#include "show.h"

enum { RESET_REQUESTS = 5, SINGLE_READS = 40, ERR_TAKEN_BACK = -201, ERR_UNASKED = -202 };

/* One run. */
struct run {
    struct qtest_virtio host;
    bool write;
    const char *image;
    struct blk blk;
    const uint8_t *medium;
    uint64_t medium_size;
};

static const char *err_name(int err)
{
    switch (err) {
    case ERR_TAKEN_BACK: return "requests did not end with the reset of their queue";
    case ERR_UNASKED: return "the device interrupted though it was asked not to";
    default: return job_err_name(err);
    }
}

/* ----- the work ----- */

/* The first sector of the data in RAM, as the device sees it. */
static struct virtq_seg one_sector(const struct run *run)
{
    struct virtq_seg seg = {qtest_virtio_memory(&run->host, QTEST_VIRTIO_DATA_AT, 0).device,
                            BLK_SECTOR_SIZE};

    return seg;
}

/* Reads one sector. If interrupts are on it waits for one before it looks at the ring; if they are
 * off none may come. */
static int read_notified(struct run *run, bool on)
{
    struct virtq_seg seg = one_sector(run);
    struct virtq_driver *ring = &run->blk.queue.ring;
    struct blk_result result;
    int got = 0, err = blk_submit(&run->blk, BLK_READ, 0, &seg, 1, NULL);

    if (err != 0)
        return err;
    if (!on)
        virtq_driver_irq_off(ring);
    else if (virtq_driver_irq_on(ring))
        return JOB_ERR_DATA; /* nothing is in flight */
    (void)qtest_virtio_interrupted(&run->host);
    blk_kick(&run->blk);
    if (on && !qtest_virtio_wait(&run->host))
        return BLK_ERR_TIMEOUT;
    for (unsigned looks = 0; got == 0 && looks < 100000; looks++) {
        if (virtio_drv_needs_reset(&run->host.drv))
            return BLK_ERR_DEVICE;
        got = blk_complete(&run->blk, &result);
    }
    if (got == 1 && !on && qtest_virtio_interrupted(&run->host))
        return ERR_UNASKED;
    return got == 1 ? result.error : got < 0 ? got : BLK_ERR_TIMEOUT;
}

static int exercise(struct run *run, struct job *job)
{
    int err = job_read_all(job);

    if (err == 0 && run->write)
        err = job_write(job);
    if (err != 0 || run->host.options.msix)
        return err;
    for (unsigned i = 0; i < SINGLE_READS && err == 0; i++)
        err = read_notified(run, i % 2 == 0);
    if (err == 0)
        printf("  notified   %d reads with an interrupt, as many without\n", SINGLE_READS / 2);
    return err;
}

/* Puts requests into the ring, of which the device is not told: it cannot have begun with them, and
 * what a reset must give back is known. */
static int leave_requests(struct run *run, int marks[RESET_REQUESTS])
{
    struct virtq_seg seg = one_sector(run);
    int err = 0;

    for (unsigned i = 0; i < RESET_REQUESTS && err == 0; i++)
        err = blk_submit(&run->blk, BLK_READ, 0, &seg, 1, &marks[i]);
    virtq_driver_publish(&run->blk.queue.ring);
    return err;
}

static int reset_queue(struct run *run)
{
    static int marks[RESET_REQUESTS];
    void *cookies[BLK_DEPTH];
    unsigned found = 0;
    int err = leave_requests(run, marks), count;

    if (err != 0)
        return err;
    count = blk_reset_queue(&run->blk, run->host.options.reset_size, cookies);
    if (count < 0)
        return count;
    for (int i = 0; i < count; i++) {
        for (unsigned mark = 0; mark < RESET_REQUESTS; mark++)
            found |= (cookies[i] == &marks[mark]) * 1u << mark;
    }
    if (count != RESET_REQUESTS || found != (1u << RESET_REQUESTS) - 1)
        return ERR_TAKEN_BACK;
    printf("  reset      queue 0 alone, %d requests taken back\n", count);
    show_queue(&run->host.drv, 0, run->blk.queue_size);
    return 0;
}

static int work(struct run *run, const struct qtest_virtio_device *device)
{
    struct qtest_virtio *host = &run->host;
    struct blk_setup setup = {.wait = qtest_virtio_wait,
                              .wait_ctx = host,
                              .queue_size = host->options.queue_size};
    struct virtio_dma data = qtest_virtio_memory(host, QTEST_VIRTIO_DATA_AT, JOB_DATA);
    struct job job = {&run->blk, data.cpu, data.device, run->medium};
    int err = qtest_virtio_find(host, device);

    setup.memory = qtest_virtio_memory(host, QTEST_VIRTIO_DRIVER_AT, BLK_MEMORY_SIZE);
    if (err == 0)
        err = blk_start(&run->blk, &host->drv, &setup);
    if (err == 0)
        err = job_print_device(&run->blk);
    if (err != 0)
        return err;
    if (run->blk.capacity != run->medium_size / BLK_SECTOR_SIZE)
        return JOB_ERR_DATA;
    err = exercise(run, &job);
    if (err == 0 && host->options.reset_size != 0)
        err = reset_queue(run);
    if (err == 0 && host->options.reset_size != 0)
        err = exercise(run, &job);
    return err == 0 ? blk_stop(&run->blk) : err;
}

static int drive(struct run *run)
{
    char blockdev[4096 + 128];
    struct qtest_virtio_device device = {
        BLK_DEVICE_TYPE, "virtio-blk", "drive=disk", {"-blockdev", blockdev}, false};
    int err = 0;

    snprintf(blockdev, sizeof(blockdev), "driver=file,node-name=disk,read-only=%s,filename=%s",
             run->write ? "off" : "on", run->image);
    if (qtest_virtio_start(&run->host, &device) == 0)
        err = work(run, &device);
    return qtest_virtio_end(&run->host, err != 0 ? err_name(err) : NULL);
}

/* ----- the command line ----- */

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: qtest-blk [OPTION]... IMAGE\n"
            "Drives QEMU's virtio-blk with IMAGE behind it; compares all that is read with the file.\n"
            "  --write          overwrite the start of IMAGE with a pattern and verify it there\n"
            "%s",
            qtest_virtio_usage);
    return status;
}

static bool parse(struct run *run, char **argv)
{
    while (*argv != NULL) {
        int taken = qtest_virtio_option(&run->host, argv);

        if (taken == 0 && strcmp(*argv, "--write") == 0) {
            run->write = true;
            taken = 1;
        } else if (taken == 0 && **argv != '-' && run->image == NULL) {
            run->image = *argv;
            taken = 1;
        }
        if (taken == 0)
            fprintf(stderr, "qtest-blk: cannot do anything with \"%s\"\n", *argv);
        if (taken <= 0)
            return false;
        argv += taken;
    }
    if (run->image != NULL && strchr(run->image, ',') != NULL)
        fprintf(stderr, "qtest-blk: QEMU cannot take a path with a comma\n");
    return run->image != NULL && strchr(run->image, ',') == NULL;
}

int main(int argc, char **argv)
{
    static struct run run = {
        .host = {.program = "qtest-blk", .options = {.transport = QTEST_PCI_MODERN}}};

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    if (!parse(&run, argv + 1))
        return usage(stderr, 2);
    run.medium = job_open_image(run.image, run.write, &run.medium_size);
    if (run.medium == NULL)
        return 1;
    return drive(&run);
}
