// SPDX-License-Identifier: MIT-0
/*
 * Drives QEMU's own virtio-rng from an ordinary process, with random bytes that are known.
 *
 * QEMU takes its entropy from a pipe whose other end is here (entropy.h): requests come back full,
 * partly filled, or stay in flight, just as it is fed. With --reset-queue the queue is reset on the
 * way, with requests waiting in the device. With --vhost-user the device is another process that QEMU
 * is the front-end of (build/vhost-rng), and --feed names the FIFO that this one reads. See usage() for the options; exit status 0 means that
 * everything was as it must be.
 */
#include <stdio.h>
#include <string.h>

#include "../driver/rng.h"
#include "entropy.h"
#include "qtest_virtio.h"
#include "show.h"

enum {
    REQUEST_MAX = 600, /* bytes */
    DEFAULT_BYTES = 128 << 10,
    ERR_DATA = -200,
    ERR_TAKEN_BACK = -201,
    ERR_UNASKED = -202,
    ERR_PIPE = -203
};

/* A request of this side: where it lies, and how much of it. */
struct piece {
    unsigned index;
    uint32_t length;
    bool in_flight;
};

/* One run. */
struct run {
    struct qtest_virtio host;
    struct rng rng;
    unsigned long bytes; /* to receive */
    const char *socket;  /* of a vhost-user back-end that is the device, or NULL: QEMU is */
    const char *feed;    /* the FIFO that it reads */
    struct entropy source;
    struct piece pieces[RNG_DEPTH];
    uint32_t wanted; /* bytes of all requests in flight */
    unsigned turns;
    unsigned requests;
    unsigned partial; /* requests that came back shorter than they were */
};

static const char *err_name(int err)
{
    switch (err) {
    case ERR_DATA: return "data differs from what the device was fed with";
    case ERR_TAKEN_BACK: return "requests did not end with the reset of their queue";
    case ERR_UNASKED: return "the device interrupted though it was asked not to";
    case ERR_PIPE: return "cannot feed the device";
    default: return rng_err_name(err);
    }
}

/* ----- requests ----- */

/* A number below `limit` that changes from one `turn` to the next. */
static uint32_t vary(uint64_t turn, uint32_t limit)
{
    return (uint32_t)((turn * 2654435761u >> 8) % limit);
}

/* Where the device finds an offset in RAM. */
static uint64_t device_address(const struct run *run, uint32_t at)
{
    return qtest_ram_base(&run->host.qtest) + at;
}

static uint32_t piece_at(const struct piece *piece)
{
    return QTEST_VIRTIO_DATA_AT + piece->index * REQUEST_MAX;
}

/* One to RNG_SEGS segments, one after the other, the last one as long as the rest. */
static unsigned cut(const struct run *run, const struct piece *piece,
                    struct virtq_seg seg[RNG_SEGS])
{
    unsigned most = run->rng.queue_size < RNG_SEGS ? run->rng.queue_size : RNG_SEGS;
    unsigned count = 1 + vary(run->requests, most), i;
    uint32_t at = 0, part = 1 + piece->length / (count + 1);

    for (i = 0; i + 1 < count && piece->length - at > part; i++) {
        seg[i].addr = device_address(run, piece_at(piece) + at);
        seg[i].len = part;
        at += part;
    }
    seg[i].addr = device_address(run, piece_at(piece) + at);
    seg[i].len = piece->length - at;
    return i + 1;
}

static int fill_ring(struct run *run)
{
    struct virtq_seg seg[RNG_SEGS];

    for (unsigned i = 0; i < RNG_DEPTH; i++) {
        struct piece *piece = &run->pieces[i];
        int err;

        if (piece->in_flight)
            continue;
        piece->index = i;
        piece->length = 1 + vary(run->requests, REQUEST_MAX);
        err = rng_submit(&run->rng, seg, cut(run, piece, seg), piece);
        if (err != 0)
            return err == VIRTQ_ERR_FULL && run->wanted != 0 ? 0 : err;
        piece->in_flight = true;
        run->wanted += piece->length;
        run->requests++;
    }
    return 0;
}

/*
 * Puts as many requests in flight as there is room for. QEMU asks its source for as much as the
 * ring holds, once at a kick and again when requests are left after an answer; what it asked for
 * twice and then finds no request for is lost. Hence a kick only when the device has nothing:
 * buffers that join others are published, and it finds them by itself. And hence the look at the
 * status first: a register is read when QEMU is through with its last answer.
 */
static int submit_all(struct run *run)
{
    bool idle = run->wanted == 0;
    int err = virtio_drv_needs_reset(&run->host.drv) ? RNG_ERR_DEVICE : fill_ring(run);

    if (err == 0 && idle)
        rng_kick(&run->rng);
    else if (err == 0)
        virtq_driver_publish(&run->rng.queue.ring);
    return err;
}

/* Are these the next bytes of the stream? */
static bool receive_at(struct run *run, uint32_t at, uint32_t length)
{
    const uint8_t *data = (const uint8_t *)qtest_ram(&run->host.qtest) + at;

    return entropy_receive(&run->source, data, length);
}

/* A finished request: they come in ring order, each with the next bytes of the stream. */
static int check(struct run *run, const struct rng_result *result)
{
    struct piece *piece = result->cookie;

    if (!piece->in_flight || result->length > piece->length ||
        !receive_at(run, piece_at(piece), result->length))
        return ERR_DATA;
    piece->in_flight = false;
    run->wanted -= piece->length;
    run->partial += result->length < piece->length;
    return 0;
}

/* How much to feed the device with: no more than what is in flight holds. */
static uint32_t portion(const struct run *run)
{
    uint64_t owed = entropy_owed(&run->source);
    uint32_t room = owed < run->wanted ? run->wanted - (uint32_t)owed : 0;

    return room == 0 || run->turns % 3 == 0 ? room : 1 + vary(run->turns, room);
}

/* Takes what the device was fed with, as far as there are requests for it. */
static int take_all(struct run *run)
{
    struct rng_result result;
    int err = 0;

    while (err == 0 && entropy_owed(&run->source) != 0 && run->wanted != 0) {
        err = rng_await(&run->rng, &result);
        if (err == 0)
            err = check(run, &result);
    }
    return err;
}

/* The same without asking for interrupts: none may come. */
static int take_all_quietly(struct run *run)
{
    struct rng_result result;
    int got;

    for (unsigned looks = 0; looks < 100000; looks++) {
        if (entropy_owed(&run->source) == 0 || run->wanted == 0)
            return qtest_virtio_interrupted(&run->host) ? ERR_UNASKED : 0;
        if (virtio_drv_needs_reset(&run->host.drv))
            return RNG_ERR_DEVICE;
        got = rng_complete(&run->rng, &result);
        if (got == 1)
            got = check(run, &result);
        if (got != 0)
            return got;
    }
    return RNG_ERR_TIMEOUT;
}

/* Puts requests in flight and has some of them answered. In every other turn interrupts are off and
 * the ring is polled; in the others one must come before the ring is looked at. When a turn begins
 * the device has no request, or nothing to answer it with. */
static int turn(struct run *run, uint64_t until)
{
    bool quiet = ++run->turns % 2 == 0;
    struct virtq_driver *ring = &run->rng.queue.ring;
    int err;

    if (quiet)
        virtq_driver_irq_off(ring);
    else if (virtq_driver_irq_on(ring))
        return ERR_DATA;
    (void)qtest_virtio_interrupted(&run->host);
    err = submit_all(run);
    if (err == 0 && run->source.received < until && !entropy_feed(&run->source, portion(run)))
        err = ERR_PIPE;
    if (err != 0)
        return err;
    if (quiet)
        return take_all_quietly(run);
    return qtest_virtio_wait(&run->host) ? take_all(run) : RNG_ERR_TIMEOUT;
}

/* The simple call: fed with all of it beforehand, it returns with all of it. */
static int read_once(struct run *run)
{
    struct virtq_seg seg = {device_address(run, QTEST_VIRTIO_DATA_AT), REQUEST_MAX};
    int err = entropy_feed(&run->source, REQUEST_MAX) ? rng_read(&run->rng, seg) : ERR_PIPE;

    if (err != 0)
        return err;
    return receive_at(run, QTEST_VIRTIO_DATA_AT, REQUEST_MAX) ? 0 : ERR_DATA;
}

static int receive(struct run *run, uint64_t until)
{
    int err = 0;

    while (err == 0 && (run->source.received < until || entropy_owed(&run->source) != 0))
        err = turn(run, until);
    if (err == 0)
        printf("  received   %llu bytes equal to what the device was fed with, %u requests, %u partly "
               "filled\n",
               (unsigned long long)run->source.received, run->requests, run->partial);
    return err;
}

/* ----- the work ----- */

/* Answers what the device asked for before the reset: that must reach nobody any more (V-RR-01). */
static int answer_too_late(struct run *run)
{
    const uint8_t *data = (const uint8_t *)qtest_ram(&run->host.qtest) + QTEST_VIRTIO_DATA_AT;
    struct rng_result result;
    int got;

    if (!entropy_feed(&run->source, 1) || !entropy_taken(&run->source))
        return ERR_PIPE;
    if (virtio_drv_needs_reset(&run->host.drv))
        return RNG_ERR_DEVICE;
    got = rng_complete(&run->rng, &result);
    if (got != 0)
        return got > 0 ? ERR_TAKEN_BACK : got;
    for (uint32_t i = 0; i < RNG_DEPTH * REQUEST_MAX; i++) {
        if (data[i] != 0)
            return ERR_TAKEN_BACK;
    }
    run->source.received = run->source.fed; /* lost on the way */
    return 0;
}

/* Takes the requests in flight back from a queue that is reset. */
static int take_back(struct run *run)
{
    void *cookies[RNG_DEPTH];
    uint32_t length = 0;
    int count = rng_reset_queue(&run->rng, run->host.options.reset_size, cookies);

    for (int i = 0; i < count; i++) {
        struct piece *piece = cookies[i];

        length += piece->in_flight ? piece->length : 0;
        piece->in_flight = false;
    }
    if (count >= 0 && length != run->wanted)
        return ERR_TAKEN_BACK;
    run->wanted = 0;
    return count;
}

/* Resets the queue while the device waits for entropy, with as many requests in flight as fit. */
static int reset_queue(struct run *run)
{
    uint8_t *data = (uint8_t *)qtest_ram(&run->host.qtest) + QTEST_VIRTIO_DATA_AT;
    int err = submit_all(run), count;

    if (err != 0)
        return err;
    count = take_back(run);
    if (count < 0)
        return count;
    memset(data, 0, RNG_DEPTH * REQUEST_MAX);
    printf("  reset      queue 0 alone, %d requests taken back\n", count);
    show_queue(&run->host.drv, 0, run->rng.queue_size);
    return answer_too_late(run);
}

static int work(struct run *run, const struct qtest_virtio_device *device)
{
    struct qtest_virtio *host = &run->host;
    struct rng_setup setup = {.wait = qtest_virtio_wait,
                              .wait_ctx = host,
                              .queue_size = host->options.queue_size};
    int err = qtest_virtio_find(host, device);

    setup.memory = qtest_virtio_memory(host, QTEST_VIRTIO_DRIVER_AT, RNG_MEMORY_SIZE);
    if (err == 0)
        err = rng_start(&run->rng, &host->drv, &setup);
    if (err != 0)
        return err;
    show_features(&host->drv, RNG_DEVICE_TYPE);
    show_queue(&host->drv, 0, run->rng.queue_size);
    err = read_once(run);
    if (err == 0)
        err = receive(run, run->bytes);
    if (err == 0 && host->options.reset_size != 0)
        err = reset_queue(run);
    if (err == 0 && host->options.reset_size != 0)
        err = receive(run, 2 * run->bytes);
    return err == 0 ? rng_stop(&run->rng) : err;
}

/* Opens the source of the device, and says what QEMU's device is then: its name, and with what. */
static int open_source(struct run *run, struct qtest_virtio_device *device, char *text, size_t size)
{
    device->type = RNG_DEVICE_TYPE;
    device->argument[1] = text;
    if (run->socket != NULL) {
        snprintf(text, size, "socket,id=device,path=%s", run->socket);
        device->name = "vhost-user-rng";
        device->backend = "chardev=device";
        device->argument[0] = "-chardev";
        device->modern_only = true;
        return entropy_open_fifo(&run->source, run->feed);
    }
    if (entropy_open(&run->source) != 0)
        return -1;
    snprintf(text, size, "rng-random,id=entropy,filename=/proc/self/fd/%d", run->source.out);
    device->name = "virtio-rng";
    device->backend = "rng=entropy";
    device->argument[0] = "-object";
    return 0;
}

static int drive(struct run *run)
{
    struct qtest_virtio_device device = {0};
    char text[200];
    int err = 0;

    if (open_source(run, &device, text, sizeof(text)) != 0) {
        perror("qtest-rng: source");
        return 1;
    }
    if (qtest_virtio_start(&run->host, &device) == 0)
        err = work(run, &device);
    return qtest_virtio_end(&run->host, err != 0 ? err_name(err) : NULL);
}

/* ----- the command line ----- */

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: qtest-rng [OPTION]...\n"
            "Drives QEMU's virtio-rng; compares all bytes with those that QEMU was fed with.\n"
            "  --bytes N        receive at least N bytes, 131072 if not said\n"
            "  --vhost-user S   the device is the back-end at this socket ...\n"
            "  --feed FIFO      ... and reads this\n"
            "%s",
            qtest_virtio_usage);
    return status;
}

/* An option of this program's own, as qtest_virtio_option(). */
static int take_option(struct run *run, char **argv)
{
    const char *name = argv[0], *value = argv[1];

    if (value == NULL)
        return 0;
    if (strcmp(name, "--bytes") == 0)
        return qtest_virtio_number(&run->host, value, "number of bytes", 1, 1u << 30, &run->bytes)
                   ? 2
                   : -1;
    if (strcmp(name, "--vhost-user") == 0)
        run->socket = value;
    else if (strcmp(name, "--feed") == 0)
        run->feed = value;
    else
        return 0;
    return 2;
}

static bool parse(struct run *run, char **argv)
{
    while (*argv != NULL) {
        int taken = qtest_virtio_option(&run->host, argv);

        if (taken == 0)
            taken = take_option(run, argv);
        if (taken == 0)
            fprintf(stderr, "qtest-rng: cannot do anything with \"%s\"\n", *argv);
        if (taken <= 0)
            return false;
        argv += taken;
    }
    return (run->socket == NULL) == (run->feed == NULL);
}

int main(int argc, char **argv)
{
    static struct run run = {
        .host = {.program = "qtest-rng", .options = {.transport = QTEST_PCI_MODERN}},
        .bytes = DEFAULT_BYTES};

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    if (!parse(&run, argv + 1))
        return usage(stderr, 2);
    return drive(&run);
}
