// SPDX-License-Identifier: MIT-0
/*
 * The guest of vmm.c: 64-bit code without a system. It finds a virtio block device in an mmio slot
 * or on the PCI bus, copies the first half of the disk onto the second, and waits for interrupts in
 * between, with the driver of examples/driver. Compiled without red zone, FP and SIMD.
 */
#include "vmm_guest.h"

#include "../driver/blk.h"

enum {
    PIECE = 4096,
    DATA = BLK_DEPTH / 2 * PIECE,
    APIC_EOI = 0xb0,
    PCI_SLOTS = 32,
    MSIX_TABLE = 4,  /* into the capability: BAR in bits 2:0, offset in the others */
    MSIX_ENTRY = 16, /* address, data, mask */
    VECTORS = 2,     /* of MSI-X: the configuration's and the queue's */
    CONFIG_VECTOR = VMM_VECTOR + 1,
    QUEUE_VECTOR = VMM_VECTOR + 2
};

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
static struct gate gates[QUEUE_VECTOR + 1];
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

static void end_interrupt(void)
{
    *(volatile uint32_t *)(uintptr_t)(VMM_APIC + APIC_EOI) = 0;
}

/* The line: the device says what it wants, and lets go of it. */
__attribute__((interrupt)) static void line_interrupt(struct interrupt_frame *frame)
{
    (void)frame;
    virtio_drv_irq_ack(&drv, virtio_drv_irq_status(&drv));
    interrupted = true;
    end_interrupt();
}

/* A message is what it says. */
__attribute__((interrupt)) static void queue_interrupt(struct interrupt_frame *frame)
{
    (void)frame;
    interrupted = true;
    end_interrupt();
}

__attribute__((interrupt)) static void config_interrupt(struct interrupt_frame *frame)
{
    (void)frame;
    end("guest: an interrupt for a configuration that does not change", 1);
}

static void install_handler(unsigned vector, void (*handler)(struct interrupt_frame *frame))
{
    uintptr_t entry = (uintptr_t)handler;
    struct gate gate = {(uint16_t)entry, VMM_CODE_SEGMENT, 0x8e00, (uint16_t)(entry >> 16),
                        (uint32_t)(entry >> 32), 0};

    gates[vector] = gate;
}

static void take_interrupts(void)
{
    struct table table = {sizeof(gates) - 1, (uintptr_t)gates};

    install_handler(VMM_VECTOR, line_interrupt);
    install_handler(CONFIG_VECTOR, config_interrupt);
    install_handler(QUEUE_VECTOR, queue_interrupt);
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

/* Half of the requests that can be in flight, of one page each, as one batch. The interrupt is
 * asked for first and waited for: the device may have answered before the guest can look. */
static int move(enum blk_type type, uint64_t sector)
{
    int err = 0;

    for (uint32_t at = 0; at < DATA && err == 0; at += PIECE) {
        struct virtq_seg seg = {(uintptr_t)data + at, PIECE};

        err = blk_submit(&blk, type, sector + at / BLK_SECTOR_SIZE, &seg, 1, NULL);
    }
    if (err == 0 && virtq_driver_irq_on(&blk.queue.ring))
        err = BLK_ERR_DEVICE; /* an answer to nothing */
    if (err != 0)
        return err;
    blk_kick(&blk);
    (void)wait(NULL);
    return blk_drain(&blk);
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

/* ----- finding the device ----- */

/* A PCI function. */
static struct {
    struct virtio_pci_cf8 ports;
    struct virtio_pci_config config;
    struct virtio_pci_bar bars[6];
    struct virtio_pci_layout layout;
    struct virtio_window windows[6];
} pci;

/* Is there a block device in this slot of bus 0? */
static bool look_at(unsigned slot)
{
    struct virtio_window ports = {VMM_PORT_CONFIG, 8, VIRTIO_WINDOW_PORT, NULL, NULL};
    uint32_t id, subsystem;

    pci.ports.ports = ports;
    pci.ports.function = (uint32_t)virtio_pci_bdf(0, slot, 0) << 8;
    pci.config = virtio_pci_config_cf8(&pci.ports);
    id = pci.config.read32(pci.config.ctx, 0x00);
    subsystem = pci.config.read32(pci.config.ctx, 0x2c);
    return virtio_pci_device_type((uint16_t)id, (uint16_t)(id >> 16),
                                  (uint16_t)(subsystem >> 16)) == BLK_DEVICE_TYPE;
}

static struct virtio_window bar_window(const struct virtio_pci_bar *bar)
{
    static const uint8_t kinds[] = {VIRTIO_WINDOW_NONE, VIRTIO_WINDOW_PORT, VIRTIO_WINDOW_MMIO};
    struct virtio_window window = {bar->base, (uint32_t)bar->length, kinds[bar->kind], NULL, NULL};

    return window;
}

/* Nobody has assigned the BARs; the guest does it, and reads the capabilities. */
static int take_function(void)
{
    static struct virtio_pci_ranges free = {.io = {VMM_PCI_PORTS, VMM_PCI_PORTS_END},
                                            .memory = {VMM_PCI_MEMORY, VMM_PCI_MEMORY_END}};
    int err = virtio_pci_bars_size(&pci.config, pci.bars);

    if (err == 0)
        err = virtio_pci_bars_assign(&pci.config, pci.bars, &free);
    if (err == 0)
        err = virtio_pci_scan(&pci.layout, &pci.config, pci.bars, 0);
    if (err != 0) {
        print(virtio_pci_err_name(err));
        print("\n");
        return VIRTIO_ERR_LAYOUT;
    }
    for (unsigned i = 0; i < 6; i++)
        pci.windows[i] = bar_window(&pci.bars[i]);
    return 0;
}

/* Vectors become messages to the local APIC. */
static int start_messages(void)
{
    uint32_t place = pci.config.read32(pci.config.ctx, (uint16_t)(pci.layout.msix + MSIX_TABLE));
    uint32_t bar = place & 7, at = place & ~7u;
    struct virtio_window table;

    if (pci.layout.msix_vectors < VECTORS || bar > 5 || at > pci.windows[bar].length ||
        pci.windows[bar].length - at < VECTORS * MSIX_ENTRY)
        return VIRTIO_ERR_LAYOUT;
    for (unsigned i = 0; i < VECTORS; i++, at += MSIX_ENTRY) {
        table = virtio_window_sub(&pci.windows[bar], at, MSIX_ENTRY);
        virtio_window_write64(&table, 0, VMM_APIC);
        virtio_window_write32(&table, 8, CONFIG_VECTOR + i);
        virtio_window_write32(&table, 12, 0);
    }
    return virtio_pci_msix_set_on(&pci.config, &pci.layout, true) == 0 ? 0 : VIRTIO_ERR_LAYOUT;
}

/* How many vectors there are, 0: interrupts come through the line. */
static int find_pci(bool line)
{
    unsigned slot = 0;
    int err;

    while (!look_at(slot)) {
        if (++slot == PCI_SLOTS)
            return VIRTIO_ERR_NO_DEVICE;
    }
    err = take_function();
    if (err == 0 && !line)
        err = start_messages();
    if (err == 0)
        err = virtio_drv_pci(&drv, &pci.layout, pci.windows);
    return err != 0 ? err : line ? 0 : VECTORS;
}

static int find_slot(void)
{
    struct virtio_window window = {VMM_SLOT, VMM_SLOT_LENGTH, VIRTIO_WINDOW_MMIO, NULL, NULL};

    return virtio_drv_mmio(&drv, &window);
}

static int start(uint32_t what)
{
    struct blk_setup setup = {
        .memory = {ring, (uintptr_t)ring, sizeof(ring)}, .wait = wait, .queue_size = 64};
    int found = (what & VMM_GUEST_PCI) != 0 ? find_pci((what & VMM_GUEST_LINE) != 0) : find_slot();

    if (found < 0)
        return found;
    setup.vectors = (uint16_t)found;
    return blk_start(&blk, &drv, &setup);
}

/* What the run was about. */
static void print_device(void)
{
    static const char *const generations[] = {"virtio-mmio", "pci-legacy", "pci-rfc2011",
                                              "pci-modern"};

    print("guest: ");
    print(generations[pci.layout.generation]);
    print(blk.setup.vectors != 0 ? ", MSI-X" : ", line");
    print(virtio_features_has(&drv.accepted, VIRTIO_FEATURE_RING_PACKED) ? ", packed" : ", split");
    print("\n");
}

__attribute__((noreturn)) void vmm_guest(uint32_t what)
{
    int err;

    take_interrupts();
    err = start(what);
    if (err == 0) {
        print_device();
        err = copy();
    }
    if (err == 0)
        err = blk_stop(&blk);
    if (err != 0)
        end(blk_err_name(err), 1);
    end("guest: the first half of the disk is copied onto the second", 0);
}
