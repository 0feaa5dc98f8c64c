// SPDX-License-Identifier: MIT-0
/* A load for a vhost-user block device: requests of one size, so many in flight, one after the other or
 * anywhere, for so long. Prints requests and bytes a second. bench/vhost_blk.py runs it.
 *
 *     build/bench/vhost_blk blk.sock randread 4096 32 3 split
 */
#include "bench.h"

#include "../examples/vhost_user/frontend.h"

enum {
    DEPTH_MAX = 64,
    QUEUE_SIZE = 256,
    BLOCK_MAX = 1 << 20,
    SECTOR = 512,
    CONFIG_LENGTH = 60,
    RING_BYTES = (VIRTIO_QUEUE_BYTES(QUEUE_SIZE) + 4095) / 4096 * 4096
};

/* What a request shares with the device, besides its data. */
struct wire {
    uint8_t table[3 * 16];
    uint32_t type; /* 0 read, 1 write */
    uint32_t reserved;
    uint64_t sector;
    uint8_t status;
    uint8_t padding[7];
};

struct load {
    bool write, random;
    unsigned long block, depth, seconds;
    struct vhu_frontend front;
    struct virtio_dma wires, data; /* struct wire and the data of each request */
    struct virtio_drv drv;
    struct virtio_drv_queue queue;
    struct virtq_slot slots[QUEUE_SIZE];
    uint64_t blocks, next, seed;
    unsigned long done;
};

static void fail_vhost(const struct load *load, const char *what)
{
    const char *why = vhu_frontend_error(&load->front);

    bench_fail(why != NULL ? why : what);
}

/* ----- the device ----- */

static void open_device(struct load *load, const char *path)
{
    const struct vhu_frontend_setup setup = {.queues = 1,
                                             .queues_counted = 1,
                                             .queue_size = QUEUE_SIZE,
                                             .config_length = CONFIG_LENGTH,
                                             .timeout_ms = 10000};
    const uint64_t lengths[] = {RING_BYTES + DEPTH_MAX * sizeof(struct wire),
                                (uint64_t)load->depth * load->block};

    if (vhu_frontend_share(&load->front, lengths, 2) != 0 ||
        vhu_frontend_open(&load->front, vhu_frontend_connect(path), &setup) != 0 ||
        vhu_frontend_drv(&load->front, &load->drv) != 0)
        fail_vhost(load, "no device");
    load->wires = vhu_frontend_memory(&load->front, 0, RING_BYTES, DEPTH_MAX * sizeof(struct wire));
    load->data = vhu_frontend_memory(&load->front, 1, 0, (uint32_t)lengths[1]);
    memset(load->data.cpu, 0x5a, lengths[1]);
}

static void start_device(struct load *load, bool packed)
{
    static const struct virtio_features required = {{0, 1, 0, 0}}; /* VERSION_1 */
    static const struct virtio_config_field capacity = {0, 8};
    struct virtio_queue_setup setup = {QUEUE_SIZE,
                                       vhu_frontend_memory(&load->front, 0, 0, RING_BYTES),
                                       load->slots};
    struct virtio_features wanted = {{0, 0, 0, 0}};
    uint64_t sectors = 0;

    virtio_features_add(&wanted, VIRTIO_FEATURE_VERSION_1);
    virtio_features_add(&wanted, VIRTIO_FEATURE_INDIRECT_DESC);
    virtio_features_add(&wanted, VIRTIO_FEATURE_EVENT_IDX);
    if (packed)
        virtio_features_add(&wanted, VIRTIO_FEATURE_RING_PACKED);
    if (virtio_drv_begin(&load->drv) != 0 ||
        virtio_drv_negotiate(&load->drv, &wanted, &required) != 0 ||
        virtio_drv_config_read(&load->drv, &capacity, 1, &sectors) != 0 ||
        virtio_drv_queue_setup(&load->drv, &load->queue, 0, &setup) != 0)
        fail_vhost(load, "the device cannot be set up");
    if (packed && !virtio_features_has(&load->drv.offered, VIRTIO_FEATURE_RING_PACKED))
        bench_fail("the back-end has no packed rings");
    load->blocks = sectors * SECTOR / load->block;
    if (load->blocks == 0)
        bench_fail("the disk is too small");
    virtio_drv_ready(&load->drv);
}

/* ----- requests ----- */

static uint64_t next_block(struct load *load)
{
    if (!load->random)
        return load->next++ % load->blocks;
    load->seed = load->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (load->seed >> 33) % load->blocks;
}

static struct wire *wire_of(const struct load *load, unsigned long slot)
{
    return (struct wire *)load->wires.cpu + slot;
}

static void submit(struct load *load, unsigned long slot)
{
    struct wire *wire = wire_of(load, slot);
    uint64_t at = load->wires.device + slot * sizeof(*wire);
    struct virtq_seg seg[3] = {{at + offsetof(struct wire, type), 16},
                               {load->data.device + slot * load->block, (uint32_t)load->block},
                               {at + offsetof(struct wire, status), 1}};
    struct virtq_buffer buffer = {seg, load->write ? 2 : 1, load->write ? 1 : 2};
    struct virtq_table table = {wire->table, at, 3};

    wire->type = load->write;
    wire->sector = next_block(load) * (load->block / SECTOR);
    wire->status = 0xff;
    if (virtq_driver_add_indirect(&load->queue.ring, &buffer, &table, wire) != 0)
        bench_fail("the queue is full");
}

/* Takes what is finished, and with `again` puts as much in its place: how many. */
static unsigned long turn(struct load *load, bool again)
{
    struct virtq_done done;
    unsigned long count = 0;
    int got;

    while ((got = virtq_driver_take(&load->queue.ring, &done)) > 0) {
        struct wire *wire = done.cookie;

        if (*(volatile uint8_t *)&wire->status != 0)
            bench_fail("a request failed");
        count++;
        if (again)
            submit(load, (unsigned long)(wire - wire_of(load, 0)));
    }
    if (got < 0)
        bench_fail("the queue is broken");
    if (again && count != 0) {
        virtq_driver_publish(&load->queue.ring);
        virtio_drv_kick(&load->queue);
    }
    return count;
}

static void wait_for_device(struct load *load)
{
    if (!virtq_driver_irq_on(&load->queue.ring) && !vhu_frontend_wait(&load->front))
        fail_vhost(load, "the device does not answer");
}

/* Nanoseconds that it took; load->done is how many requests. */
static double work(struct load *load)
{
    double begin = bench_now(), end = begin + (double)load->seconds * 1e9, now = begin;
    unsigned long pending = load->depth;

    for (unsigned long slot = 0; slot < load->depth; slot++)
        submit(load, slot);
    virtq_driver_publish(&load->queue.ring);
    virtio_drv_kick(&load->queue);
    while (pending != 0) {
        unsigned long count = turn(load, now < end);

        load->done += count;
        if (now >= end)
            pending -= count;
        now = bench_now();
        if (count == 0 && pending != 0)
            wait_for_device(load);
    }
    return now - begin;
}

/* ----- the command line ----- */

static unsigned long number(const char *text, unsigned long high)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || value == 0 || value > high)
        bench_fail("a number is none, or out of range");
    return value;
}

/* Which of these words it is; `count`: none. */
static unsigned word(const char *text, const char *const *words, unsigned count)
{
    unsigned at = 0;

    while (at < count && strcmp(text, words[at]) != 0)
        at++;
    return at;
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"read", "write", "randread", "randwrite"};
    static const char *const rings[] = {"split", "packed"};
    static struct load load = {.seed = 1};
    unsigned kind = argc == 7 ? word(argv[2], kinds, 4) : 4;
    unsigned ring = argc == 7 ? word(argv[6], rings, 2) : 2;
    double took;

    if (kind == 4 || ring == 2) {
        fprintf(stderr, "usage: vhost_blk SOCKET [rand]read|[rand]write BLOCK DEPTH SECONDS "
                        "split|packed\n");
        return 2;
    }
    load.random = kind >= 2;
    load.write = kind % 2 == 1;
    load.block = number(argv[3], BLOCK_MAX) / SECTOR * SECTOR;
    load.depth = number(argv[4], DEPTH_MAX);
    load.seconds = number(argv[5], 3600);
    open_device(&load, argv[1]);
    start_device(&load, ring == 1);
    took = work(&load);
    printf("%.0f requests/s, %.1f MB/s\n", (double)load.done * 1e9 / took,
           (double)load.done * (double)load.block * 1e3 / took);
    if (virtio_drv_reset(&load.drv) != 0)
        fail_vhost(&load, "the device cannot be reset");
    vhu_frontend_close(&load.front);
    return 0;
}
