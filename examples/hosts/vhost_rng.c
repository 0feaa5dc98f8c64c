// SPDX-License-Identifier: MIT-0
/* An entropy device in a process of its own: hands the bytes of a file to the drivers of virtual
 * machines, and to any other front-end of vhost-user.
 *
 *     build/vhost-rng --socket rng.sock
 *     qemu-system-x86_64 -object memory-backend-memfd,id=m,size=512M,share=on -machine memory-backend=m \
 *         -chardev socket,id=c,path=rng.sock -device vhost-user-rng-pci,chardev=c ...
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../device/stream.h"
#include "vhost_daemon.h"

enum { PIECE = 4096 /* bytes for one request: a device may give less than was asked for */ };

struct options {
    const char *socket;
    const char *source;
};

struct daemon {
    struct vhu_backend backend;
    const char *name; /* of the source */
    int source;
    bool waiting; /* a request waits for the source */
    bool ended;   /* the source gives nothing any more */
    unsigned long long served;
    unsigned long long bytes;
};

/* ----- requests ----- */

/* Nothing came: the request waits (V-RNG-01), for ever if the source is at its end. */
static uint32_t put_off(struct daemon *daemon, ssize_t got)
{
    daemon->waiting = got < 0 && (errno == EAGAIN || errno == EINTR);
    if (!daemon->waiting && !daemon->ended) {
        vhost_daemon_say("%s: %s", daemon->name, got == 0 ? "is at its end" : strerror(errno));
        daemon->ended = true;
    }
    return VHU_LATER;
}

static uint32_t answer(void *ctx, const struct virtq_chain *chain)
{
    struct daemon *daemon = ctx;
    struct stream out = stream_out(chain, vhu_backend_map, &daemon->backend);
    uint64_t room = stream_length(&out);
    uint8_t bytes[PIECE];
    ssize_t got;

    if (room == 0) /* nothing that could be filled (D-RNG-01) */
        return 0;
    got = read(daemon->source, bytes, room < PIECE ? (size_t)room : PIECE);
    if (got <= 0)
        return put_off(daemon, got);
    daemon->served++;
    daemon->bytes += (unsigned long long)got;
    return stream_write(&out, bytes, (uint64_t)got) ? (uint32_t)got : 0;
}

static int serve(void *ctx, struct vhu_queue *queue)
{
    return vhu_queue_answer(queue, answer, ctx);
}

/* ----- the source ----- */

static unsigned fds(void *ctx, struct pollfd *item)
{
    struct daemon *daemon = ctx;

    *item = (struct pollfd){daemon->source, POLLIN, 0};
    return daemon->waiting;
}

static void ready(void *ctx, const struct pollfd *item)
{
    struct daemon *daemon = ctx;

    if (item->revents == 0)
        return;
    daemon->waiting = false;
    vhu_queue_wake(&daemon->backend.queue[0]);
}

static void reset(void *ctx)
{
    struct daemon *daemon = ctx;

    daemon->waiting = false;
}

static const struct vhu_ops ops = {
    .serve = serve, .log = vhost_daemon_log, .fds = fds, .ready = ready, .reset = reset};

/* ----- the process ----- */

static int set_up(struct daemon *daemon, const struct options *options)
{
    daemon->name = options->source;
    daemon->source = open(options->source, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (daemon->source < 0) {
        vhost_daemon_say("%s: %s", options->source, strerror(errno));
        return -1;
    }
    daemon->backend.ops = &ops;
    daemon->backend.ctx = daemon;
    daemon->backend.queue_count = 1;
    vhu_backend_init(&daemon->backend);
    return 0;
}

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: vhost-rng --socket PATH [--source FILE]\n"
                 "Serves the bytes of FILE as a virtio entropy device to the vhost-user\n"
                 "front-ends that connect to PATH, one after the other, until SIGTERM or SIGINT.\n"
                 "  --source FILE  default /dev/urandom; requests wait while FILE, a pipe or a\n"
                 "                 device, has nothing to give, and for ever at its end\n"
                 "Exit status: 0 after a signal, 1 on an error, 2 for wrong arguments.\n");
    return status;
}

static bool parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return false;
        if (strcmp(argv[i], "--socket") == 0)
            options->socket = argv[i + 1];
        else if (strcmp(argv[i], "--source") == 0)
            options->source = argv[i + 1];
        else
            return false;
    }
    return options->socket != NULL;
}

int main(int argc, char **argv)
{
    static struct daemon daemon;
    struct options options = {.source = "/dev/urandom"};
    int rc;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, STATUS_OK);
    if (!parse(argc, argv, &options))
        return usage(stderr, STATUS_USAGE);
    if (vhost_daemon_begin("vhost-rng") != 0 || set_up(&daemon, &options) != 0)
        return STATUS_FAILED;
    rc = vhost_daemon_run(&daemon.backend, options.socket, options.source);
    vhost_daemon_say("%llu requests served, %llu bytes", daemon.served, daemon.bytes);
    return rc == 0 ? STATUS_OK : STATUS_FAILED;
}
