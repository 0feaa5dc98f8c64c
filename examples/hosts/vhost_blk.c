// SPDX-License-Identifier: MIT-0
/* A block device in a process of its own: serves a file to the drivers of virtual machines, and to any
 * other front-end of vhost-user.
 *
 *     build/vhost-blk --socket blk.sock --image disk.img
 *     qemu-system-x86_64 -object memory-backend-memfd,id=m,size=512M,share=on -machine memory-backend=m \
 *         -chardev socket,id=c,path=blk.sock -device vhost-user-blk-pci,chardev=c ...
 */
#define _GNU_SOURCE /* fallocate */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../device/blk.h"
#include "vhost_daemon.h"

enum { ZEROES = 1 << 16, LINE = 400 };

struct options {
    const char *socket;
    const char *image;
    bool read_only;
    uint16_t queues;
};

struct daemon {
    struct vhu_backend backend;
    struct blkdev disk;
    uint8_t config[BLKDEV_CONFIG_SIZE];
    int image;
};

/* ----- the medium: a file ----- */

static bool image_read(void *ctx, uint64_t at, void *to, uint32_t len)
{
    struct daemon *daemon = ctx;
    uint8_t *byte = to;

    while (len != 0) {
        ssize_t got = pread(daemon->image, byte, len, (off_t)at);

        if (got == 0 || (got < 0 && errno != EINTR))
            return false;
        if (got < 0)
            continue;
        byte += got;
        at += (uint64_t)got;
        len -= (uint32_t)got;
    }
    return true;
}

static bool image_write(void *ctx, uint64_t at, const void *from, uint32_t len)
{
    struct daemon *daemon = ctx;
    const uint8_t *byte = from;

    while (len != 0) {
        ssize_t put = pwrite(daemon->image, byte, len, (off_t)at);

        if (put == 0 || (put < 0 && errno != EINTR))
            return false;
        if (put < 0)
            continue;
        byte += put;
        at += (uint64_t)put;
        len -= (uint32_t)put;
    }
    return true;
}

static bool image_flush(void *ctx)
{
    struct daemon *daemon = ctx;

    return fdatasync(daemon->image) == 0;
}

static bool punch(struct daemon *daemon, uint64_t at, uint64_t len)
{
    return fallocate(daemon->image, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
                     (off_t)len) == 0;
}

/* A hole reads as zeroes; where none can be made, or none may, zeroes are written. */
static bool image_zero(void *ctx, uint64_t at, uint64_t len, bool unmap)
{
    static const uint8_t zeroes[ZEROES];

    if (len == 0 || (unmap && punch(ctx, at, len)))
        return true;
    while (len != 0) {
        uint32_t piece = len < ZEROES ? (uint32_t)len : ZEROES;

        if (!image_write(ctx, at, zeroes, piece))
            return false;
        at += piece;
        len -= piece;
    }
    return true;
}

/* A file system that cannot make holes keeps the content, which is as good. */
static bool image_discard(void *ctx, uint64_t at, uint64_t len)
{
    return len == 0 || punch(ctx, at, len) || errno == EOPNOTSUPP;
}

static const struct blkdev_ops image_ops = {image_read, image_write, image_flush, image_zero,
                                            image_discard};

/* ----- the device ----- */

static uint32_t answer(void *ctx, const struct virtq_chain *chain)
{
    struct daemon *daemon = ctx;

    return blkdev_answer(&daemon->disk, chain);
}

static int serve(void *ctx, struct vhu_queue *queue)
{
    return vhu_queue_answer(queue, answer, ctx);
}

static const struct vhu_ops ops = {.serve = serve, .log = vhost_daemon_log};

/* The name by which the driver knows the disk: that of its file, as far as it fits. */
static void set_id(struct blkdev *disk, const char *path)
{
    const char *slash = strrchr(path, '/');

    snprintf(disk->id, sizeof(disk->id), "%s", slash != NULL ? slash + 1 : path);
}

static int open_image(struct daemon *daemon, const struct options *options)
{
    int access = options->read_only ? O_RDONLY : O_RDWR;
    struct stat st;

    daemon->image = open(options->image, access | O_CLOEXEC);
    if (daemon->image < 0 || fstat(daemon->image, &st) != 0) {
        vhost_daemon_say("%s: %s", options->image, strerror(errno));
        return -1;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < BLKDEV_SECTOR) {
        vhost_daemon_say("%s: not a file of at least one sector (512 bytes)", options->image);
        return -1;
    }
    if (!options->read_only && flock(daemon->image, LOCK_EX | LOCK_NB) != 0) {
        vhost_daemon_say("%s: in use by another process", options->image);
        return -1;
    }
    daemon->disk.size = (uint64_t)st.st_size / BLKDEV_SECTOR * BLKDEV_SECTOR;
    return 0;
}

static int set_up(struct daemon *daemon, const struct options *options)
{
    struct blkdev *disk = &daemon->disk;

    if (open_image(daemon, options) != 0)
        return -1;
    disk->ops = &image_ops;
    disk->ops_ctx = daemon;
    disk->read_only = options->read_only;
    disk->queues = options->queues;
    disk->map = vhu_backend_map;
    disk->map_ctx = &daemon->backend;
    set_id(disk, options->image);
    blkdev_config(disk, daemon->config);
    daemon->backend.ops = &ops;
    daemon->backend.ctx = daemon;
    daemon->backend.features = blkdev_features(disk);
    daemon->backend.config = daemon->config;
    daemon->backend.config_length = sizeof(daemon->config);
    daemon->backend.queue_count = options->queues;
    vhu_backend_init(&daemon->backend);
    return 0;
}

/* ----- the process ----- */

static int run(struct daemon *daemon, const struct options *options)
{
    char about[LINE];
    int rc;

    snprintf(about, sizeof(about), "%s: %llu sectors%s, %u queue%s", options->image,
             (unsigned long long)(daemon->disk.size / BLKDEV_SECTOR),
             options->read_only ? ", read-only" : "", options->queues,
             options->queues == 1 ? "" : "s");
    rc = vhost_daemon_run(&daemon->backend, options->socket, about);
    if (!options->read_only && fdatasync(daemon->image) != 0) {
        vhost_daemon_say("%s: %s", options->image, strerror(errno));
        rc = -1;
    }
    vhost_daemon_say("%llu requests served, %llu refused", (unsigned long long)daemon->disk.served,
                     (unsigned long long)daemon->disk.refused);
    return rc == 0 ? STATUS_OK : STATUS_FAILED;
}

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: vhost-blk --socket PATH --image FILE [--read-only] [--queues N]\n"
            "Serves FILE as a virtio block device to the vhost-user front-ends that connect to PATH,\n"
            "one after the other, until SIGTERM or SIGINT.\n"
            "  --read-only  offer VIRTIO_BLK_F_RO, and open the file for reading\n"
            "  --queues N   request queues, 1 to %d (default 1)\n"
            "Exit status: 0 after a signal, 1 on an error, 2 for wrong arguments.\n",
            VHU_QUEUES);
    return status;
}

static bool parse_queues(const char *text, uint16_t *queues)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (*text == '\0' || *end != '\0' || value < 1 || value > VHU_QUEUES)
        return false;
    *queues = (uint16_t)value;
    return true;
}

static bool parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i++) {
        bool value = i + 1 < argc;

        if (strcmp(argv[i], "--read-only") == 0)
            options->read_only = true;
        else if (strcmp(argv[i], "--socket") == 0 && value)
            options->socket = argv[++i];
        else if (strcmp(argv[i], "--image") == 0 && value)
            options->image = argv[++i];
        else if (strcmp(argv[i], "--queues") == 0 && value) {
            if (!parse_queues(argv[++i], &options->queues))
                return false;
        } else
            return false;
    }
    return options->socket != NULL && options->image != NULL;
}

int main(int argc, char **argv)
{
    static struct daemon daemon;
    struct options options = {.queues = 1};

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, STATUS_OK);
    if (!parse(argc, argv, &options))
        return usage(stderr, STATUS_USAGE);
    if (vhost_daemon_begin("vhost-blk") != 0 || set_up(&daemon, &options) != 0)
        return STATUS_FAILED;
    return run(&daemon, &options);
}
