// SPDX-License-Identifier: MIT-0
/*
 * Drives a vhost-user block device from an ordinary process.
 *
 * qemu-storage-daemon exports an image, or another back-end already listens; this program is the
 * front-end and the driver in one, with the memory, rings and eventfds of its own and the driver of
 * examples/driver unchanged. The image is read whole and compared with the file; with --write a
 * pattern is written and found in the file. See usage() for the options; exit status 0 means that
 * everything was as it must be.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../vhost_user/frontend.h"
#include "job.h"
#include "show.h"

enum {
    CONFIG_LENGTH = 60,  /* of a block device, as old as the features that are used */
    QUEUE_SIZE = 128,    /* what is asked for unless told otherwise */
    EXIT_WAIT_MS = 3000, /* for the daemon to end after SIGTERM */
    DAEMON_SOCKET = 3,   /* the descriptor that it finds its listening socket at */
    MAPPED = (BLK_MEMORY_SIZE + 4095) / 4096 * 4096,
    ERR_NO_PACKED = -201,
    ERR_CAPACITY = -202,
    ERR_QUEUES = -203
};

/* The back-end that was started here. */
struct daemon {
    pid_t pid; /* 0: none, or reaped */
    int log;   /* what it prints */
};

/* One run. */
struct run {
    const char *image;
    const char *socket;  /* of a running back-end; NULL: start one */
    const char *program; /* the one to start */
    bool write;
    bool packed;
    unsigned long queue_size, queues, regions, rounds, timeout_ms, reconnects;
    unsigned long reconnected;
    struct virtio_features refused;
    struct daemon daemon;
    struct vhu_frontend front;
    struct virtio_drv drv;
    struct blk blk;
    const uint8_t *medium;
    uint64_t medium_size;
};

static const char *err_name(int err)
{
    switch (err) {
    case ERR_NO_PACKED: return "the back-end does not offer RING_PACKED";
    case ERR_CAPACITY: return "the disk is not as large as the image";
    case ERR_QUEUES: return "the back-end has not as many queues as it was told to have";
    default: return job_err_name(err);
    }
}

/* ----- the back-end ----- */

/* A listening socket without a path, and a connection to it: nothing to collide on, to clean up or
 * to wait for. */
static int listen_and_connect(int *connected)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(sa_family_t); /* the kernel chooses an abstract name */
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *connected = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || *connected < 0 || bind(listener, (struct sockaddr *)&address, length) != 0)
        return -1;
    length = sizeof(address);
    if (getsockname(listener, (struct sockaddr *)&address, &length) != 0 ||
        listen(listener, 1) != 0 || connect(*connected, (struct sockaddr *)&address, length) != 0)
        return -1;
    return listener;
}

/* The child: becomes the daemon, with the listening socket as descriptor 3. */
static void become_daemon(const struct run *run, int listener, int log)
{
    char blockdev[4096 + 128], export[192];
    const char *const argv[] = {run->program, "--blockdev", blockdev, "--export", export, NULL};

    snprintf(blockdev, sizeof(blockdev), "driver=file,node-name=disk,read-only=%s,filename=%s",
             run->write ? "off" : "on", run->image);
    snprintf(export, sizeof(export),
             "type=vhost-user-blk,id=front,node-name=disk,addr.type=fd,addr.str=%d,writable=%s,"
             "num-queues=%lu",
             DAEMON_SOCKET, run->write ? "on" : "off", run->queues);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (dup2(log, 1) < 0 || dup2(log, 2) < 0)
        _exit(127);
    if (listener == DAEMON_SOCKET ? fcntl(listener, F_SETFD, 0) != 0
                                  : dup2(listener, DAEMON_SOCKET) < 0)
        _exit(127);
    execvp(run->program, (char *const *)(uintptr_t)argv);
    dprintf(2, "%s: %s\n", run->program, strerror(errno));
    _exit(127);
}

/* Returns a connection to a daemon that is started here, or -1. */
static int start_daemon(struct run *run)
{
    int connected, listener = listen_and_connect(&connected);

    run->daemon.log = memfd_create("log", MFD_CLOEXEC);
    if (listener < 0 || run->daemon.log < 0)
        return -1;
    (void)fflush(NULL);
    run->daemon.pid = fork();
    if (run->daemon.pid == 0)
        become_daemon(run, listener, run->daemon.log);
    (void)close(listener); /* so that the end of the daemon is the end of the connection */
    return run->daemon.pid > 0 ? connected : -1;
}

/* Waits a bounded time for the daemon to end. */
static bool reap(struct daemon *daemon)
{
    static const struct timespec pause = {0, 5000000};

    for (unsigned waited = 0; waited < EXIT_WAIT_MS; waited += 5) {
        if (waitpid(daemon->pid, NULL, WNOHANG) != 0) {
            daemon->pid = 0;
            return true;
        }
        (void)nanosleep(&pause, NULL);
    }
    return false;
}

/* Ends the daemon; with `quote` its first line is shown, which says more than a lost connection. */
static void stop_daemon(struct daemon *daemon, bool quote)
{
    char text[300];
    ssize_t got;

    if (daemon->pid <= 0)
        return;
    (void)kill(daemon->pid, SIGTERM);
    if (!reap(daemon)) {
        (void)kill(daemon->pid, SIGKILL);
        (void)reap(daemon);
    }
    got = pread(daemon->log, text, sizeof(text) - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (quote && text[0] != '\0')
        fprintf(stderr, "vhost-front-blk: it said \"%s\"\n", text);
    (void)close(daemon->log);
}

/* ----- the work ----- */

static int share(struct run *run)
{
    const uint64_t two[] = {MAPPED, JOB_DATA}, one[] = {MAPPED + JOB_DATA};

    return vhu_frontend_share(&run->front, run->regions == 2 ? two : one, (unsigned)run->regions);
}

static struct virtio_dma data_memory(const struct run *run)
{
    if (run->regions == 2)
        return vhu_frontend_memory(&run->front, 1, 0, JOB_DATA);
    return vhu_frontend_memory(&run->front, 0, MAPPED, JOB_DATA);
}

static int connect_front(struct run *run)
{
    const struct vhu_frontend_setup setup = {.queues = 1,
                                             .queues_counted = 1,
                                             .queue_size = BLK_QUEUE_MAX,
                                             .config_length = CONFIG_LENGTH,
                                             .resumable = run->reconnects != 0,
                                             .timeout_ms = (int)run->timeout_ms};
    int socket = run->socket != NULL ? vhu_frontend_connect(run->socket) : start_daemon(run);

    if (vhu_frontend_open(&run->front, socket, &setup) != 0)
        return VIRTIO_ERR_GONE;
    if (run->socket == NULL && vhu_frontend_queues(&run->front) != run->queues)
        return ERR_QUEUES;
    return vhu_frontend_drv(&run->front, &run->drv);
}

/* Has the back-end gone, and is there another one, as often as that is allowed? */
static bool reconnect(struct run *run)
{
    static const struct timespec pause = {0, 5000000};

    for (unsigned long waited = 0; waited < run->timeout_ms; waited += 5) {
        if (vhu_frontend_error(&run->front) == NULL || run->reconnected == run->reconnects)
            return false;
        if (vhu_frontend_reconnect(&run->front, vhu_frontend_connect(run->socket)) == 0) {
            run->reconnected++;
            return true;
        }
        (void)nanosleep(&pause, NULL);
    }
    return false;
}

/* The wait hook of the driver, which need not know that it waits for another back-end. */
static bool wait_or_reconnect(void *ctx)
{
    struct run *run = (struct run *)ctx;

    return vhu_frontend_wait(&run->front) || reconnect(run);
}

static int start(struct run *run)
{
    struct blk_setup setup = {.memory = vhu_frontend_memory(&run->front, 0, 0, MAPPED),
                              .wait = wait_or_reconnect,
                              .wait_ctx = run,
                              .refused = run->refused,
                              .queue_size = (uint16_t)run->queue_size};
    bool offered;
    int err = blk_start(&run->blk, &run->drv, &setup);

    if (err != 0)
        return err;
    offered = virtio_features_has(&run->drv.offered, VIRTIO_FEATURE_RING_PACKED);
    if (run->packed && !offered)
        return ERR_NO_PACKED;
    return run->blk.capacity == run->medium_size / BLK_SECTOR_SIZE ? 0 : ERR_CAPACITY;
}

static int exercise(struct run *run)
{
    struct virtio_dma data = data_memory(run);
    struct job job = {&run->blk, data.cpu, data.device, run->medium};
    int err = job_print_device(&run->blk);

    if (err == 0)
        err = job_read_all(&job);
    if (err == 0 && run->write)
        err = job_write(&job);
    return err;
}

/* One round: the device from a reset to a reset. */
static int one_round(struct run *run)
{
    int stopped, err = start(run);

    if (err != 0)
        return err;
    err = exercise(run);
    stopped = blk_stop(&run->blk);
    return err != 0 ? err : stopped;
}

static int work(struct run *run)
{
    int err = connect_front(run);

    if (err != 0)
        return err;
    printf("vhost-user, %s, %u queue%s\n", run->socket != NULL ? run->socket : run->program,
           vhu_frontend_queues(&run->front), vhu_frontend_queues(&run->front) == 1 ? "" : "s");
    for (unsigned long i = 0; i < run->rounds && err == 0; i++) {
        do /* a driver that was not running is started again */
            err = one_round(run);
        while (err != 0 && reconnect(run));
        (void)fflush(stdout); /* whoever watches counts rounds */
    }
    return err;
}

static int drive(struct run *run)
{
    int err = share(run) != 0 ? VIRTIO_ERR_GONE : work(run);
    const char *lost = vhu_frontend_error(&run->front);
    bool idle = vhu_frontend_interrupts(&run->front) == 0;

    if (lost != NULL || err != 0)
        fprintf(stderr, "vhost-front-blk: %s\n", lost != NULL ? lost : err_name(err));
    else if (idle)
        fprintf(stderr, "vhost-front-blk: the device never interrupted\n");
    else
        printf("  interrupts %u, each from an eventfd; %lu new back-ends\n",
               vhu_frontend_interrupts(&run->front), run->reconnected);
    vhu_frontend_close(&run->front);
    stop_daemon(&run->daemon, lost != NULL);
    return lost != NULL || err != 0 || idle;
}

/* ----- the command line ----- */

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: vhost-front-blk [OPTION]... IMAGE\n"
            "Drives a vhost-user block device that has IMAGE behind it; compares all that is\n"
            "read with the file.\n"
            "  --write          overwrite the start of IMAGE with a pattern, verify it there\n"
            "  --socket PATH    use the back-end that listens there; default: start one\n"
            "  --daemon PROGRAM the one to start instead of qemu-storage-daemon\n"
            "  --packed         packed rings; default: split\n"
            "  --event-idx off  do not use EVENT_IDX\n"
            "  --indirect off   do not use INDIRECT_DESC\n"
            "  --queue-size N   entries, default 128\n"
            "  --queues N       let the daemon have N queues; the first one is used\n"
            "  --regions N      1: rings and data in one piece of memory; default 2\n"
            "  --rounds N       reset the device and do it all again, N times\n"
            "  --reconnect N    up to N times, go on with the back-end that listens at PATH next\n"
            "  --timeout MS     for an answer, an interrupt or a back-end, default 10000\n"
            "  --help           this text\n");
    return status;
}

static bool number(const char *text, const char *what, unsigned long low, unsigned long high,
                   unsigned long *value)
{
    char *end;

    *value = strtoul(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == '\0' && *value >= low && *value <= high)
        return true;
    fprintf(stderr, "vhost-front-blk: \"%s\" is no %s (%lu to %lu)\n", text, what, low, high);
    return false;
}

static bool refuse(struct run *run, const char *text, unsigned bit)
{
    if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0) {
        fprintf(stderr, "vhost-front-blk: \"%s\" is neither on nor off\n", text);
        return false;
    }
    if (strcmp(text, "off") == 0)
        virtio_features_add(&run->refused, bit);
    return true;
}

/* Takes an option with a value: 1 taken, 0 none of them, -1 wrong. */
static int take_value(struct run *run, const char *name, const char *value)
{
    static const struct {
        const char *name, *what;
        size_t at;
        unsigned long low, high;
    } numbers[] = {
        {"--queue-size", "queue size", offsetof(struct run, queue_size), 1, BLK_QUEUE_MAX},
        {"--queues", "number of queues", offsetof(struct run, queues), 1, VHU_FRONTEND_RINGS},
        {"--regions", "number of regions", offsetof(struct run, regions), 1, 2},
        {"--rounds", "number of rounds", offsetof(struct run, rounds), 1, 1000000},
        {"--reconnect", "number of times", offsetof(struct run, reconnects), 1, 1000000},
        {"--timeout", "time in milliseconds", offsetof(struct run, timeout_ms), 1, 600000}};

    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        unsigned long *to = (unsigned long *)(void *)((char *)run + numbers[i].at);

        if (strcmp(name, numbers[i].name) == 0)
            return number(value, numbers[i].what, numbers[i].low, numbers[i].high, to) ? 1 : -1;
    }
    if (strcmp(name, "--socket") == 0)
        run->socket = value;
    else if (strcmp(name, "--daemon") == 0)
        run->program = value;
    else if (strcmp(name, "--event-idx") == 0)
        return refuse(run, value, VIRTIO_FEATURE_EVENT_IDX) ? 1 : -1;
    else if (strcmp(name, "--indirect") == 0)
        return refuse(run, value, VIRTIO_FEATURE_INDIRECT_DESC) ? 1 : -1;
    else
        return 0;
    return 1;
}

static bool parse(struct run *run, char **argv)
{
    for (; *argv != NULL; argv++) {
        int taken = argv[1] != NULL ? take_value(run, argv[0], argv[1]) : 0;

        if (taken < 0)
            return false;
        if (taken > 0)
            argv++;
        else if (strcmp(*argv, "--write") == 0)
            run->write = true;
        else if (strcmp(*argv, "--packed") == 0)
            run->packed = true;
        else if (**argv != '-' && run->image == NULL)
            run->image = *argv;
        else
            return fprintf(stderr, "vhost-front-blk: cannot do anything with \"%s\"\n", *argv) < 0;
    }
    if (run->image != NULL && run->socket == NULL && strchr(run->image, ',') != NULL) {
        fprintf(stderr, "vhost-front-blk: the daemon cannot take a path with a comma\n");
        return false;
    }
    if (run->reconnects != 0 && run->socket == NULL)
        return fprintf(stderr, "vhost-front-blk: --reconnect needs --socket\n") < 0;
    if (!run->packed)
        virtio_features_add(&run->refused, VIRTIO_FEATURE_RING_PACKED);
    return run->image != NULL;
}

int main(int argc, char **argv)
{
    static struct run run = {.program = "qemu-storage-daemon",
                             .queue_size = QUEUE_SIZE,
                             .queues = 1,
                             .regions = 2,
                             .rounds = 1,
                             .timeout_ms = 10000};

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    if (!parse(&run, argv + 1))
        return usage(stderr, 2);
    run.medium = job_open_image(run.image, run.write, &run.medium_size);
    if (run.medium == NULL)
        return 1;
    return drive(&run);
}
