// SPDX-License-Identifier: MIT-0
/*
 * One function for each way to reach a register, and for each end of a kick, for bench/count.sh: it
 * counts the instructions that a call of each executes itself, without the return and without what
 * the caller's own accessors do.
 *
 *     access N     calls each of them N times
 *
 * "constant": the program knows the kind and holds the base in a register. Otherwise the window is
 * one in memory, of whatever kind, and what is written is where a caller's accessor takes it, the
 * fourth argument, so that no move is counted which is this program's alone. Port I/O is
 * privileged, so that bench/access_port.h puts a move between the same registers in its place;
 * built without it, the program is for the disassembler only.
 */
#include <stdio.h>
#include <stdlib.h>

#include "virtio.h"

#ifdef __clang__
#define FUNCTION __attribute__((noinline))
#else
#define FUNCTION __attribute__((noipa))
#endif

enum { REGISTER = 0x10, QUEUE_SIZE = 16, BYTES = 64 };

/* ---- what the windows lead to ---- */
static _Alignas(64) uint8_t registers[64];

FUNCTION static uint32_t caller_read(void *ctx, uintptr_t address, unsigned width)
{
    (void)ctx;
    (void)address;
    return width;
}

FUNCTION static void caller_write(void *ctx, uintptr_t address, unsigned width, uint32_t value)
{
    (void)ctx;
    (void)address;
    (void)width;
    (void)value;
}

static const struct virtio_window_ops caller = {caller_read, caller_write};
#define OPS(kind) ((kind) == VIRTIO_WINDOW_CALLER ? &caller : NULL)

static struct virtio_window window_of(enum virtio_window_kind kind, uint64_t base)
{
    struct virtio_window window = {base, sizeof(registers), (uint8_t)kind, OPS(kind), NULL};

    return window;
}

/* ---- accessors ---- */
#define READ(bits, name, kind_)                                                                    \
    FUNCTION static uint##bits##_t read##bits##_##name##_constant(uint64_t base)                   \
    {                                                                                              \
        struct virtio_window window = {base, 0, kind_, OPS(kind_), NULL};                          \
                                                                                                   \
        return virtio_window_read##bits(&window, REGISTER);                                        \
    }                                                                                              \
    FUNCTION static uint##bits##_t read##bits##_##name(const struct virtio_window *window)         \
    {                                                                                              \
        return virtio_window_read##bits(window, REGISTER);                                         \
    }
#define WRITE(bits, name, kind_)                                                                   \
    FUNCTION static void write##bits##_##name##_constant(uint64_t base, uint##bits##_t value)      \
    {                                                                                              \
        struct virtio_window window = {base, 0, kind_, OPS(kind_), NULL};                          \
                                                                                                   \
        virtio_window_write##bits(&window, REGISTER, value);                                       \
    }                                                                                              \
    FUNCTION static void write##bits##_##name(const struct virtio_window *window, int second,      \
                                              int third, uint##bits##_t value)                     \
    {                                                                                              \
        (void)second, (void)third;                                                                 \
        virtio_window_write##bits(window, REGISTER, value);                                        \
    }
#define EACH_WIDTH(what, ...) what(8, __VA_ARGS__) what(16, __VA_ARGS__) what(32, __VA_ARGS__)
#define EACH(what)                                                                                 \
    EACH_WIDTH(what, mmio, VIRTIO_WINDOW_MMIO)                                                     \
    EACH_WIDTH(what, port, VIRTIO_WINDOW_PORT)                                                     \
    EACH_WIDTH(what, caller, VIRTIO_WINDOW_CALLER)

EACH(READ)
EACH(WRITE)

#define CALL(bits, name, kind_)                                                                    \
    {                                                                                              \
        uint64_t base = kind_ == VIRTIO_WINDOW_MMIO ? (uint64_t)(uintptr_t)registers : 0x1000;     \
        struct virtio_window window = window_of(kind_, base);                                      \
                                                                                                   \
        (void)read##bits##_##name##_constant(base);                                                \
        (void)read##bits##_##name(&window);                                                        \
        write##bits##_##name##_constant(base, 1);                                                  \
        write##bits##_##name(&window, 0, 0, 1);                                                    \
    }

static void call_accessors(unsigned long count)
{
    while (count-- != 0) {
        EACH(CALL)
    }
}

/* ---- kicks ---- */
/* How a queue's notification goes out, and whether the device wants it. */
#define KICK(name)                                                                                 \
    FUNCTION static void kick_##name(struct virtio_drv_queue *q)                                   \
    {                                                                                              \
        virtio_drv_kick(q);                                                                        \
    }
KICK(suppressed)
KICK(mmio)
KICK(mmio32)
KICK(mmio_data)
KICK(port)
KICK(caller)

/* The program knows of which kind and width the notify register is, and that it takes no data. */
#define KICK_CONSTANT(name, kind_, width_)                                                         \
    FUNCTION static void kick_##name##_constant(struct virtio_drv_queue *q)                        \
    {                                                                                              \
        struct virtio_notify notify = {q->notify.address, q->notify.value, 0, kind_, width_,       \
                                       NULL, NULL};                                                \
                                                                                                   \
        if (virtq_driver_kick_due(&q->ring))                                                       \
            virtio_notify_send(&notify, 0);                                                        \
    }
KICK_CONSTANT(mmio, VIRTIO_WINDOW_MMIO, 2)
KICK_CONSTANT(port, VIRTIO_WINDOW_PORT, 2)

static const struct {
    void (*kick)(struct virtio_drv_queue *q);
    enum virtio_window_kind kind;
    uint8_t width;
    uint16_t data_mask;
    bool wanted;
} kicks[] = {{kick_suppressed, VIRTIO_WINDOW_MMIO, 2, 0, false},
             {kick_mmio, VIRTIO_WINDOW_MMIO, 2, 0, true},
             {kick_mmio32, VIRTIO_WINDOW_MMIO, 4, 0, true},
             {kick_mmio_data, VIRTIO_WINDOW_MMIO, 4, 0xffff, true},
             {kick_port, VIRTIO_WINDOW_PORT, 2, 0, true},
             {kick_caller, VIRTIO_WINDOW_CALLER, 2, 0, true},
             {kick_mmio_constant, VIRTIO_WINDOW_MMIO, 2, 0, true},
             {kick_port_constant, VIRTIO_WINDOW_PORT, 2, 0, true}};

static void check(bool ok)
{
    if (ok)
        return;
    fprintf(stderr, "access: the queue does not work\n");
    exit(1);
}

/* A buffer there and back; the device asks for the kick of the next one, or for none. */
static void round_trip(struct virtio_drv_queue *q, struct virtq_device *device, unsigned which)
{
    struct virtq_seg to = {(uint64_t)(uintptr_t)registers, BYTES}, seg[1];
    struct virtq_chain chain = {.seg = seg, .capacity = 1};
    struct virtq_done done;

    if (kicks[which].wanted)
        check(!virtq_device_kick_on(device));
    else
        virtq_device_kick_off(device);
    check(virtq_driver_add_writable(&q->ring, to, q) == 0);
    virtq_driver_publish(&q->ring);
    kicks[which].kick(q);
    check(virtq_device_pop(device, &chain) == 1);
    virtq_device_push(device, chain.token, BYTES);
    virtq_device_flush(device);
    check(virtq_driver_take(&q->ring, &done) == 1);
}

static void call_kick(unsigned which, unsigned long count)
{
    static _Alignas(64) uint8_t memory[VIRTQ_BYTES(QUEUE_SIZE, 64)];
    static struct virtq_slot slots[QUEUE_SIZE];
    static struct virtio_drv_queue q;
    struct virtq_device device;
    struct virtq_areas areas;

    virtq_areas_set(&areas, memory, QUEUE_SIZE, 64, VIRTQ_EVENT_IDX | (VIRTIO_RING_ALWAYS));
    check(virtq_driver_init(&q.ring, &areas, slots) == 0);
    check(virtq_device_init(&device, &areas, NULL, NULL) == 0);
    q.notify = (struct virtio_notify){(uint64_t)(uintptr_t)registers, 0, kicks[which].data_mask,
                                      (uint8_t)kicks[which].kind, kicks[which].width,
                                      OPS(kicks[which].kind), NULL};
    while (count-- != 0)
        round_trip(&q, &device, which);
}

int main(int argc, char **argv)
{
    unsigned long count;

    if (argc != 2) {
        fprintf(stderr, "usage: access N\n");
        return 2;
    }
    count = strtoul(argv[1], NULL, 10);
    call_accessors(count);
    for (unsigned which = 0; which < sizeof(kicks) / sizeof(kicks[0]); which++)
        call_kick(which, count);
    return 0;
}
