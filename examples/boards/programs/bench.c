// SPDX-License-Identifier: MIT-0
/* What a kick, an interrupt's acknowledgement and a configuration read take on this machine, with a real
 * device behind the registers: each in a loop, less what the loop takes. */
#include <stdio.h>

#include "../../driver/blk.h"
#include "../board.h"

enum {
    ROUNDS = 60,
    SLICE = 1000, /* microseconds that a round has to last at least */
    FIRST_COUNT = 256,
    COUNT_MAX = 1 << 26
};

static uint8_t memory[BLK_MEMORY_SIZE] __attribute__((aligned(4096)));
static struct board_device device;
static struct blk blk;
static volatile uint32_t sink;

/* ---- what is measured: one of each ---- */

static void nothing(void)
{
}

/* The device is told, whether it wants to know or not; there is nothing in its queue. */
static void kick(void)
{
    virtio_notify_send(&blk.queue.notify, virtq_driver_notification_data(&blk.queue.ring));
}

/* Nothing was published, so that nobody is told. */
static void suppressed(void)
{
    virtio_drv_kick(&blk.queue);
}

static void acknowledge(void)
{
    sink = virtio_drv_irq_status(&device.drv);
    virtio_drv_irq_ack(&device.drv, VIRTIO_IRQ_QUEUE);
}

static void status(void)
{
    sink = virtio_drv_transport(&device.drv)->status_get(&device.drv);
}

/* The capacity, consistent. */
static void config(void)
{
    static const struct virtio_config_field field = {0, 8};
    uint64_t value;

    sink = (uint32_t)virtio_drv_config_read(&device.drv, &field, 1, &value);
}

static void pci_config(void)
{
    sink = device.config.read32(device.config.ctx, 0);
}

/* ---- loops ---- */

/* A figure: suite and name, what it is of, iterations in a round, microseconds of the fastest one. */
struct figure {
    const char *name;
    void (*one)(void);
    uint32_t count;
    uint64_t best;
};

static uint64_t run(const struct figure *figure)
{
    void (*volatile called)(void) = figure->one; /* the same call for each, the empty one included */
    uint64_t begin = board_micros();

    for (uint32_t left = figure->count; left != 0; left--)
        called();
    return board_micros() - begin;
}

static void choose_count(struct figure *figure)
{
    figure->count = FIRST_COUNT;
    while (figure->count < COUNT_MAX && run(figure) < SLICE)
        figure->count *= 2;
}

/* Of many short rounds over the whole time the fastest: what else the host does only makes them slower. */
static void measure(struct figure *figures, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        choose_count(&figures[i]);
        figures[i].best = UINT64_MAX;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < count; i++) {
            uint64_t micros = run(&figures[i]);

            if (micros < figures[i].best)
                figures[i].best = micros;
        }
    }
}

/* Hundredths of nanoseconds of an iteration. */
static uint64_t per_iteration(const struct figure *figure)
{
    return figure->best * 100000 / figure->count;
}

/* The first one is the loop. */
static void show(const struct figure *figures, unsigned count)
{
    uint64_t loop = per_iteration(&figures[0]);

    for (unsigned i = 0; i < count; i++) {
        uint64_t took = per_iteration(&figures[i]);

        if (i != 0)
            took = took > loop ? took - loop : 0;
        printf("  took       %s %llu.%02u ns\n", figures[i].name, (unsigned long long)(took / 100),
               (unsigned)(took % 100));
    }
}

static void measure_all(void)
{
    bool pci = device.config.read32 != NULL;
    struct figure figures[] = {{"notify/loop", nothing, 0, 0},
                               {"notify/suppressed", suppressed, 0, 0},
                               {"notify/kick", kick, 0, 0},
                               {pci ? "irq/isr" : "irq/status-ack", acknowledge, 0, 0},
                               {"access/status", status, 0, 0},
                               {"access/config", config, 0, 0},
                               {"access/pci-config", pci_config, 0, 0}};
    unsigned count = sizeof(figures) / sizeof(figures[0]) - (pci ? 0 : 1);

    measure(figures, count);
    show(figures, count);
}

/* A request shows that kicks reach the device. */
static int work(void)
{
    char id[BLK_ID_SIZE + 1];
    int err;

    board_wait_begin(&device);
    err = blk_get_id(&blk, id);
    if (err != 0)
        return err;
    printf("  disk       \"%s\"\n", id);
    measure_all();
    err = blk_get_id(&blk, id); /* and that it has come through all of them */
    return err == 0 ? blk_stop(&blk) : err;
}

int board_program(void)
{
    struct blk_setup setup = {.memory = {memory, board_device_address(memory), sizeof(memory)},
                              .wait = board_wait,
                              .wait_ctx = &device};
    int err;

    if (!board_find(&device, BLK_DEVICE_TYPE, 0))
        return 1;
    setup.vectors = device.vectors;
    err = blk_start(&blk, &device.drv, &setup);
    if (err == 0)
        err = work();
    if (err != 0)
        printf("bench: %s\n", blk_err_name(err));
    return err == 0 ? 0 : 1;
}
