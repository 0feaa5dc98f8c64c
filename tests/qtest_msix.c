// SPDX-License-Identifier: MIT-0
/*
 * MSI-X of QEMU's virtio-blk with three queues, on modern and legacy functions with tables of 0 to
 * 8 entries. The table's addresses point into RAM, so that a message is a word there: each queue's
 * request must write the word of the vector that virtio_drv_map_vectors() gave it, and no other.
 * Ends "N passed, N failed".
 */
#include <stdio.h>
#include <string.h>

#include "examples/hosts/qtest_virtio.h"

enum { QUEUES = 3, ENTRIES = 8, VECTORS_MAX = 8, MESSAGES_AT = QTEST_VIRTIO_DATA_AT, LOOKS = 2000 };

static struct machine {
    struct qtest_virtio host;
    struct virtio_drv_queue queue[QUEUES];
    struct virtq_slot slots[QUEUES][ENTRIES];
} m;

static int complain(const char *what)
{
    fprintf(stderr, "qtest-msix: %s\n", what);
    return -1;
}

static uint32_t message_of(unsigned vector)
{
    return 0xc0de0001 + vector;
}

static volatile uint32_t *word_of(unsigned vector)
{
    return (volatile uint32_t *)qtest_virtio_memory(&m.host, MESSAGES_AT + 4 * vector, 4).cpu;
}

static uint64_t bar_base(unsigned bar)
{
    uint32_t low = qtest_pci_read32(m.host.function.qtest, m.host.function.devfn,
                                    (uint16_t)(0x10 + 4 * bar));

    return low & ~UINT32_C(15); /* 64-bit BARs are assigned below 4 GiB here */
}

/* Fills the table; its size is in the capability, 0 without one. */
static unsigned program_table(void)
{
    struct virtio_pci_capability cap;
    struct virtio_pci_walk walk;
    uint32_t place;
    uint64_t table;

    virtio_pci_walk_begin(&walk, &m.host.config);
    while (virtio_pci_walk_next(&walk, &cap) > 0) {
    }
    if (walk.msix == 0)
        return 0;
    place = m.host.config.read32(m.host.config.ctx, (uint16_t)(walk.msix + 4));
    table = bar_base(place & 7) + (place & ~UINT32_C(7));
    for (unsigned i = 0; i < walk.msix_vectors && i < VECTORS_MAX; i++) {
        uint64_t to = qtest_virtio_memory(&m.host, MESSAGES_AT + 4 * i, 4).device;

        qtest_write(&m.host.qtest, table + 16 * i, 4, (uint32_t)to);
        qtest_write(&m.host.qtest, table + 16 * i + 4, 4, (uint32_t)(to >> 32));
        qtest_write(&m.host.qtest, table + 16 * i + 8, 4, message_of(i));
        qtest_write(&m.host.qtest, table + 16 * i + 12, 4, 0); /* not masked */
    }
    return walk.msix_vectors;
}

static int set_up(void)
{
    for (uint16_t i = 0; i < QUEUES; i++) {
        uint16_t num = m.host.drv.transport->fixed_size ? virtio_drv_queue_size(&m.host.drv, i)
                                                        : (uint16_t)ENTRIES;
        uint32_t at = QTEST_VIRTIO_DRIVER_AT + ((uint32_t)i << 16);
        struct virtio_queue_setup setup = {num, qtest_virtio_memory(&m.host, at, 1 << 16),
                                           m.slots[i]};
        int err = num > ENTRIES ? VIRTIO_ERR_QUEUE_SIZE
                                : virtio_drv_queue_setup(&m.host.drv, &m.queue[i], i, &setup);

        if (err != 0)
            return complain(virtio_err_name(err));
    }
    virtio_drv_ready(&m.host.drv);
    return 0;
}

/* Reads a sector through a queue and waits for its end. */
static int request(unsigned i)
{
    struct virtio_dma memory = qtest_virtio_memory(&m.host, MESSAGES_AT + 0x1000, 0x1000);
    struct virtq_seg seg[3] = {
        {memory.device, 16}, {memory.device + 512, 512}, {memory.device + 16, 1}};
    struct virtq_buffer buffer = {seg, 1, 2};
    struct virtq_done done;

    memset(memory.cpu, 0, 16); /* IN of sector 0 */
    if (virtq_driver_add(&m.queue[i].ring, &buffer, &m) != 0)
        return complain("no room for a request");
    virtq_driver_publish(&m.queue[i].ring);
    virtio_drv_kick(&m.queue[i]);
    for (unsigned looks = 0; looks < LOOKS; looks++) {
        int got = virtq_driver_take(&m.queue[i].ring, &done);

        if (got != 0)
            return got > 0 ? 0 : complain(virtio_err_name(got));
        (void)m.host.drv.transport->status_get(&m.host.drv); /* lets QEMU go on */
    }
    return complain("a request does not end");
}

/* One request on each queue: the vector's word is written, the others are not. */
static int expect_messages(int used)
{
    for (uint16_t i = 0; i < QUEUES; i++) {
        unsigned mine = virtio_vector_of_queue(used, i);

        for (unsigned v = 0; v < VECTORS_MAX; v++)
            *word_of(v) = 0;
        if (request(i) != 0)
            return -1;
        for (unsigned turns = 0; turns < 5; turns++)
            (void)m.host.drv.transport->status_get(&m.host.drv);
        for (unsigned v = 0; v < VECTORS_MAX; v++) {
            if (*word_of(v) != (v == mine ? message_of(v) : 0)) {
                fprintf(stderr, "qtest-msix: queue %u, vector %u: word %u is 0x%x\n", i, mine, v,
                        *word_of(v));
                return -1;
            }
        }
    }
    return 0;
}

static int drive(unsigned vectors, int expected)
{
    static const struct virtio_features none = {{0, 0, 0, 0}},
                                        mq = {{1u << 12, 0, 0, 0}}; /* several queues */
    unsigned table = program_table();
    int used, err = virtio_drv_begin(&m.host.drv);

    if (err == 0)
        err = virtio_drv_negotiate(&m.host.drv, &mq, &none);
    if (err != 0)
        return complain(virtio_err_name(err));
    if (table != vectors)
        return complain("a table of another size");
    used = virtio_drv_map_vectors(&m.host.drv, QUEUES, (uint16_t)table);
    if (used != expected)
        return complain("other vectors than expected");
    if (used < 0)
        return 0;
    return set_up() != 0 ? -1 : expect_messages(used);
}

static int run(enum qtest_virtio_transport transport, unsigned vectors, int expected)
{
    static const struct qtest_virtio_device blk = {
        2, "virtio-blk", "drive=disk",
        {"-blockdev", "null-co,node-name=disk,size=1048576,read-zeroes=on"}, false};
    int status;

    memset(&m, 0, sizeof(m));
    m.host.program = "qtest-msix";
    m.host.options.transport = transport;
    m.host.options.msix = true;
    snprintf(m.host.options.properties, sizeof(m.host.options.properties),
             ",num-queues=%d,queue-size=%d,vectors=%u", QUEUES, ENTRIES, vectors);
    status = qtest_virtio_start(&m.host, &blk);
    if (status == 0)
        status = qtest_virtio_find(&m.host, &blk) == 0 ? drive(vectors, expected) : -1;
    if (qtest_error(&m.host.qtest) != NULL)
        status = complain(qtest_error(&m.host.qtest));
    qtest_stop(&m.host.qtest);
    printf("  %s  %u entries, %d used\n", status == 0 ? "ok    " : "FAILED", vectors, expected);
    return status;
}

int main(void)
{
    static const struct {
        unsigned vectors;
        int used;
    } cases[] = {{0, VIRTIO_ERR_VECTOR}, {1, 1}, {2, 2}, {3, 2}, {4, 4}, {8, 4}};
    unsigned passed = 0, failed = 0;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        *(run(QTEST_PCI_MODERN, cases[i].vectors, cases[i].used) == 0 ? &passed : &failed) += 1;
        *(run(QTEST_PCI_LEGACY, cases[i].vectors, cases[i].used) == 0 ? &passed : &failed) += 1;
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0;
}
