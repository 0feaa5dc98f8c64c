// SPDX-License-Identifier: MIT-0
/*
 * The guest of vmm.c: 64-bit code without a system. It finds a virtio block device in an mmio slot,
 * copies the first half of the disk onto the second, and waits for interrupts in between, with the
 * driver of examples/driver. Compiled without red zone, FP and SIMD.
 */
#include "vmm_guest.h"

#include "../driver/blk.h"

enum { PIECE = 4096, DATA = BLK_DEPTH / 2 * PIECE, APIC_EOI = 0xb0 };

/* An entry of the interrupt descriptor table. */
struct gate {
    uint16_t offset0;
    uint16_t segment;
    uint16_t type;
    uint16_t offset16;
    uint32_t offset32;
    uint32_t reserved;
};

struct table {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct interrupt_frame;

static struct virtio_drv drv;
static struct blk blk;
static struct gate gates[VMM_VECTOR + 1];
static volatile bool interrupted;
static _Alignas(4096) uint8_t ring[BLK_MEMORY_SIZE];
static _Alignas(4096) uint8_t data[DATA];

static void print(const char *text)
{
    while (*text != '\0')
        VIRTIO_PORT_WRITE8(VMM_PORT_PRINT, (uint8_t)*text++);
}

__attribute__((noreturn)) static void end(const char *text, uint8_t status)
{
    print(text);
    print("\n");
    for (;;)
        VIRTIO_PORT_WRITE8(VMM_PORT_END, status);
}

__attribute__((interrupt)) static void take_interrupt(struct interrupt_frame *frame)
{
    (void)frame;
    virtio_drv_irq_ack(&drv, virtio_drv_irq_status(&drv));
    interrupted = true;
    *(volatile uint32_t *)(uintptr_t)(VMM_APIC + APIC_EOI) = 0;
}

static void install_handler(void)
{
    uintptr_t entry = (uintptr_t)take_interrupt;
    struct gate gate = {(uint16_t)entry, VMM_CODE_SEGMENT, 0x8e00, (uint16_t)(entry >> 16),
                        (uint32_t)(entry >> 32), 0};
    struct table table = {sizeof(gates) - 1, (uintptr_t)gates};

    gates[VMM_VECTOR] = gate;
    __asm__ volatile("lidt %0; sti" : : "m"(table) : "memory");
}

/* Sleeps until an interrupt; `sti` lets none in before `hlt`. */
static bool wait(void *ctx)
{
    (void)ctx;
    __asm__ volatile("cli" ::: "memory");
    while (!interrupted)
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    interrupted = false;
    __asm__ volatile("sti" ::: "memory");
    return true;
}

/* Half a queue of requests of one page each, as one batch. */
static int move(enum blk_type type, uint64_t sector)
{
    int err = 0;

    for (uint32_t at = 0; at < DATA && err == 0; at += PIECE) {
        struct virtq_seg seg = {(uintptr_t)data + at, PIECE};

        err = blk_submit(&blk, type, sector + at / BLK_SECTOR_SIZE, &seg, 1, NULL);
    }
    return err == 0 ? blk_drain(&blk) : err;
}

static int copy(void)
{
    uint64_t half = blk.capacity / 2, step = DATA / BLK_SECTOR_SIZE;
    int err = 0;

    for (uint64_t sector = 0; sector + step <= half && err == 0; sector += step) {
        err = move(BLK_READ, sector);
        if (err == 0)
            err = move(BLK_WRITE, half + sector);
    }
    return err == 0 ? blk_flush(&blk) : err;
}

static int start(void)
{
    struct virtio_window window = {VMM_SLOT, VMM_SLOT_LENGTH, VIRTIO_WINDOW_MMIO, NULL, NULL};
    struct blk_setup setup = {.memory = {ring, (uintptr_t)ring, sizeof(ring)},
                              .wait = wait,
                              .queue_size = 64};
    int err = virtio_drv_mmio(&drv, &window);

    return err == 0 ? blk_start(&blk, &drv, &setup) : err;
}

__attribute__((noreturn)) void vmm_guest(void)
{
    int err;

    install_handler();
    err = start();
    if (err == 0)
        err = copy();
    if (err == 0)
        err = blk_stop(&blk);
    if (err != 0)
        end(blk_err_name(err), 1);
    end("guest: the first half of the disk is copied onto the second", 0);
}
