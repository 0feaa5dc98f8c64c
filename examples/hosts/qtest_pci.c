// SPDX-License-Identifier: MIT-0
/* PCI enumeration without firmware; see qtest_pci.h. */
#include "qtest_pci.h"

#include <stdio.h>

enum {
    CONFIG_ADDRESS = 0xcf8,
    CONFIG_DATA = 0xcfc,
    REG_ID = 0x00,
    REG_HEADER_TYPE = 0x0e,
    REG_IRQ_LINE = 0x3c,
    REG_IRQ_PIN = 0x3d,
    HEADER_MULTIFUNCTION = 0x80,
    DEVFN_COUNT = 256,
    PIIX_BRIDGE = 1 << 3, /* devfn of the interrupt router of pc */
    PIIX_ROUTES = 0x60,   /* its four route registers, disabled until somebody writes a line */
    ICH9_FIRST_LINE = 20, /* q35 wires its four shared lines to 20 to 23 without asking */
    ICH9_SLOTS = 25,      /* slots below this rotate over them */
    VIRT_FIRST_LINE = 3,
    LINE_UNKNOWN = 0xff
};

/* The host bridge at devfn 0 tells the boards apart. */
#define I440FX_ID UINT32_C(0x12378086)
#define Q35_ID UINT32_C(0x29c08086)
#define VIRT_ID UINT32_C(0x00081b36)

/*
 * Where neither q35 nor pc has anything before firmware has run: I/O above the ports of the
 * chipsets; memory above RAM (which ends at 2 GiB) and below the I/O APIC. On virt both are the
 * windows of its host bridge, as they are without high memory.
 */
#define IO_FIRST UINT64_C(0xc000)
#define IO_END UINT64_C(0x10000)
#define MEMORY_FIRST UINT64_C(0xe0000000)
#define MEMORY_END UINT64_C(0xfec00000)
#define VIRT_MEMORY_FIRST UINT64_C(0x10000000)
#define VIRT_MEMORY_END UINT64_C(0x3eff0000)
#define VIRT_ECAM UINT64_C(0x3f000000)

static void select_register(struct qtest *q, unsigned devfn, uint16_t offset)
{
    qtest_out(q, CONFIG_ADDRESS, 4, UINT32_C(0x80000000) | devfn << 8 | (offset & 0xfcu));
}

static uint16_t data_port(uint16_t offset)
{
    return (uint16_t)(CONFIG_DATA + (offset & 3));
}

static uint64_t ecam(unsigned devfn, uint16_t offset)
{
    return VIRT_ECAM + ((uint64_t)devfn << 12) + offset;
}

uint32_t qtest_pci_read(struct qtest *q, unsigned devfn, uint16_t offset, unsigned width)
{
    if (q->machine == QTEST_VIRT)
        return qtest_read(q, ecam(devfn, offset), width);
    select_register(q, devfn, offset);
    return qtest_in(q, data_port(offset), width);
}

void qtest_pci_write(struct qtest *q, unsigned devfn, uint16_t offset, unsigned width,
                     uint32_t value)
{
    if (q->machine == QTEST_VIRT) {
        qtest_write(q, ecam(devfn, offset), width, value);
        return;
    }
    select_register(q, devfn, offset);
    qtest_out(q, data_port(offset), width, value);
}

uint32_t qtest_pci_read32(struct qtest *q, unsigned devfn, uint16_t offset)
{
    return qtest_pci_read(q, devfn, offset, 4);
}

void qtest_pci_write32(struct qtest *q, unsigned devfn, uint16_t offset, uint32_t value)
{
    qtest_pci_write(q, devfn, offset, 4, value);
}

/* How many functions of the slot of `devfn` (function 0) are worth a look. */
static unsigned functions_in_slot(struct qtest *q, unsigned devfn)
{
    if (qtest_pci_read32(q, devfn, REG_ID) == UINT32_MAX)
        return 0;
    return (qtest_pci_read(q, devfn, REG_HEADER_TYPE, 1) & HEADER_MULTIFUNCTION) != 0 ? 8 : 1;
}

int qtest_pci_find(struct qtest *q, uint16_t vendor, uint16_t device_lo, uint16_t device_hi,
                   unsigned *devfn)
{
    unsigned slot;

    for (slot = 0; slot < DEVFN_COUNT; slot += 8) {
        const unsigned end = slot + functions_in_slot(q, slot);
        unsigned i;

        for (i = slot; i < end; i++) {
            const uint32_t id = qtest_pci_read32(q, i, REG_ID);
            const uint16_t device = (uint16_t)(id >> 16);

            if (id == UINT32_MAX || (id & 0xffff) != vendor)
                continue;
            if (device >= device_lo && device <= device_hi) {
                *devfn = i;
                return 0;
            }
        }
    }
    return -1;
}

/* Routes the function's INTx on pc. The lines are free ISA interrupts, one for each of the four. */
static unsigned route_on_pc(struct qtest *q, unsigned slot, unsigned pin)
{
    static const uint8_t lines[] = {5, 7, 10, 11};
    const unsigned route = (slot - 1 + pin - 1) & 3;

    qtest_pci_write(q, PIIX_BRIDGE, (uint16_t)(PIIX_ROUTES + route), 1, lines[route]);
    return lines[route];
}

/* Makes the function's INTx reach the I/O APIC. Returns the pin there. */
static unsigned route_intx(struct qtest *q, unsigned devfn)
{
    const unsigned slot = devfn >> 3;
    const unsigned pin = qtest_pci_read(q, devfn, REG_IRQ_PIN, 1);
    const uint32_t board = qtest_pci_read32(q, 0, REG_ID);

    if (pin < 1 || pin > 4)
        return LINE_UNKNOWN;
    if (board == I440FX_ID)
        return route_on_pc(q, slot, pin);
    if (board == VIRT_ID)
        return VIRT_FIRST_LINE + (slot + pin - 1) % 4;
    if (board == Q35_ID && slot < ICH9_SLOTS)
        return ICH9_FIRST_LINE + (slot + pin - 1) % 4;
    return LINE_UNKNOWN;
}

static uint32_t port_read(void *qtest, uintptr_t address, unsigned width)
{
    return qtest_in(qtest, (uint16_t)address, width);
}
static void port_write(void *qtest, uintptr_t address, unsigned width, uint32_t value)
{
    qtest_out(qtest, (uint16_t)address, width, value);
}
static uint32_t memory_read(void *qtest, uintptr_t address, unsigned width)
{
    return qtest_read(qtest, address, width);
}
static void memory_write(void *qtest, uintptr_t address, unsigned width, uint32_t value)
{
    qtest_write(qtest, address, width, value);
}

struct virtio_window qtest_window(struct qtest *q, bool io, uint64_t base, uint64_t length)
{
    static const struct virtio_window_ops port = {port_read, port_write};
    static const struct virtio_window_ops memory = {memory_read, memory_write};
    struct virtio_window window = {base, (uint32_t)length, VIRTIO_WINDOW_CALLER,
                                   io ? &port : &memory, q};

    if (length == 0)
        window.kind = VIRTIO_WINDOW_NONE;
    return window;
}

struct virtio_pci_config qtest_pci_config(struct qtest_pci_function *f)
{
    f->ports.ports = qtest_window(f->qtest, true, CONFIG_ADDRESS, 8);
    f->ports.function = f->devfn << 8;
    f->ecam = qtest_window(f->qtest, false, ecam(f->devfn, 0), 4096);
    return f->qtest->machine == QTEST_VIRT ? virtio_pci_config_ecam(&f->ecam)
                                           : virtio_pci_config_cf8(&f->ports);
}

/* What is left of the board's windows. */
static struct virtio_pci_ranges free_ranges(const struct qtest *q)
{
    const bool virt = q->machine == QTEST_VIRT;
    struct virtio_pci_ranges ranges = {
        {IO_FIRST, IO_END},
        {virt ? VIRT_MEMORY_FIRST : MEMORY_FIRST, virt ? VIRT_MEMORY_END : MEMORY_END},
        {0, 0}};

    if (q->pci_io_next != 0)
        ranges.io.next = q->pci_io_next;
    if (q->pci_memory_next != 0)
        ranges.memory.next = q->pci_memory_next;
    return ranges;
}

int qtest_pci_enable(struct qtest *q, unsigned devfn, struct virtio_pci_bar bars[6])
{
    struct qtest_pci_function f = {.qtest = q, .devfn = devfn};
    const struct virtio_pci_config config = qtest_pci_config(&f);
    struct virtio_pci_ranges ranges = free_ranges(q);
    int err = virtio_pci_bars_size(&config, bars);

    if (err == 0)
        err = virtio_pci_bars_assign(&config, bars, &ranges);
    if (err != 0 && qtest_error(q) == NULL)
        (void)snprintf(q->error, sizeof q->error, "PCI function %02x.%x: %s", devfn >> 3, devfn & 7,
                       virtio_pci_err_name(err));
    if (qtest_error(q) != NULL)
        return -1;
    q->pci_io_next = ranges.io.next;
    q->pci_memory_next = ranges.memory.next;
    qtest_pci_write(q, devfn, REG_IRQ_LINE, 1, route_intx(q, devfn));
    return qtest_error(q) == NULL ? 0 : -1;
}
