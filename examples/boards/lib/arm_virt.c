// SPDX-License-Identifier: MIT-0
/* QEMU's Arm machine "virt", 64 and 32 bits: PL011 UART, GICv2 with its MSI frame, generic timer, PCI
 * through ECAM, virtio-mmio slots. cpu.h of the board has the CPU's instructions. */
#include <cpu.h>

#include "../board.h"

#define UART UINT32_C(0x09000000)
#define DISTRIBUTOR UINT32_C(0x08000000)
#define CPU_INTERFACE UINT32_C(0x08010000)
#define MSI_FRAME UINT32_C(0x08020000)
#define MMIO_SLOTS UINT32_C(0x0a000000)
#define PCI_PORTS UINT32_C(0x3eff0000)
#define PCI_ECAM UINT32_C(0x3f000000)
#define PCI_MEMORY UINT32_C(0x10000000)
#define PCI_MEMORY_END UINT32_C(0x3eff0000)

enum {
    UART_DATA = 0x00,
    UART_FLAGS = 0x18,
    UART_FULL = 1 << 5,
    GICD_ENABLE = 0x000,
    GICD_SET_ENABLE = 0x100, /* a bit for each interrupt */
    GICD_TARGETS = 0x800,    /* a byte for each */
    GICD_CONFIG = 0xc00,     /* two bits for each; the upper one: edge */
    GICC_ENABLE = 0x00,
    GICC_PRIORITY_MASK = 0x04,
    GICC_ACKNOWLEDGE = 0x0c,
    GICC_END = 0x10,
    MSI_TYPE = 0x008,
    MSI_SEND = 0x040,
    TIMER_INTERRUPT = 27,
    FIRST_SHARED = 32, /* shared interrupts have numbers from here on */
    PCI_FIRST_LINE = FIRST_SHARED + 3,
    MMIO_FIRST_LINE = FIRST_SHARED + 16,
    NO_INTERRUPT = 1020 /* and above */
};

static volatile uint32_t *reg(uint32_t base, uint32_t offset)
{
    return (volatile uint32_t *)(uintptr_t)(base + offset);
}

const char *board_name(void)
{
    return CPU_NAME " virt";
}

void board_putc(char c)
{
    while ((*reg(UART, UART_FLAGS) & UART_FULL) != 0)
        continue;
    *reg(UART, UART_DATA) = (uint8_t)c;
}

void board_exit(int status)
{
    cpu_exit(status);
}

uint64_t board_device_address(const void *memory)
{
    return (uintptr_t)memory;
}

uint64_t board_micros(void)
{
    return cpu_counter() / (cpu_counter_hertz() / 1000000);
}

bool board_irq_off(void)
{
    return cpu_irq_off();
}
void board_irq_on(void)
{
    cpu_irq_on();
}

void board_idle(void)
{
    cpu_timer(cpu_counter_hertz() / 1000);
    cpu_sleep();
    cpu_irq_on();
    cpu_irq_off();
    cpu_timer(0);
}

/* The way from the interrupt vector to the handlers. */
void board_interrupt(void)
{
    uint32_t number = *reg(CPU_INTERFACE, GICC_ACKNOWLEDGE);

    if ((number & 0x3ff) >= NO_INTERRUPT)
        return;
    if ((number & 0x3ff) == TIMER_INTERRUPT)
        cpu_timer(0);
    else
        board_handlers_call(number & 0x3ff);
    *reg(CPU_INTERFACE, GICC_END) = number;
}

static void enable(unsigned number)
{
    *reg(DISTRIBUTOR, GICD_SET_ENABLE + number / 32 * 4) = 1u << number % 32;
}

void board_start(void)
{
    *reg(DISTRIBUTOR, GICD_ENABLE) = 1;
    *reg(CPU_INTERFACE, GICC_PRIORITY_MASK) = 0xff;
    *reg(CPU_INTERFACE, GICC_ENABLE) = 1;
    cpu_timer(0);
    enable(TIMER_INTERRUPT);
}

/* A shared interrupt goes to CPU 0. */
static bool connect(unsigned number, bool edge, void (*handler)(void *ctx), void *ctx)
{
    unsigned shift = number % 16 * 2 + 1;

    if (!board_handlers_add(number, handler, ctx))
        return false;
    *((volatile uint8_t *)reg(DISTRIBUTOR, GICD_TARGETS) + number) = 1;
    if (edge)
        *reg(DISTRIBUTOR, GICD_CONFIG + number / 16 * 4) |= 1u << shift;
    enable(number);
    return true;
}

bool board_irq_connect(unsigned line, void (*handler)(void *ctx), void *ctx)
{
    return connect(line, false, handler, ctx);
}

/* The frame turns a store of an interrupt's number into that interrupt; its type register says which
 * numbers are its own. */
bool board_msi_connect(struct board_msi *msi, void (*handler)(void *ctx), void *ctx)
{
    static unsigned used;
    uint32_t type = *reg(MSI_FRAME, MSI_TYPE);
    unsigned first = type >> 16 & 0x3ff, count = type & 0x3ff;

    if (used == count || !connect(first + used, true, handler, ctx))
        return false;
    msi->address = MSI_FRAME + MSI_SEND;
    msi->data = first + used++;
    return true;
}

struct board_mmio board_mmio(void)
{
    struct board_mmio mmio = {MMIO_SLOTS, 0x200, 32, MMIO_FIRST_LINE};

    return mmio;
}

static struct virtio_pci_config pci_config(struct board_function *function)
{
    return board_ecam(function, PCI_ECAM);
}

static unsigned pci_line(unsigned slot, unsigned pin)
{
    return PCI_FIRST_LINE + (slot + pin - 1) % 4;
}

struct board_pci *board_pci(void)
{
    static struct board_pci pci = {
        pci_config,
        {PCI_PORTS, 0x10000, VIRTIO_WINDOW_MMIO, NULL, NULL},
        0,
        {{0x1000, 0x10000}, {PCI_MEMORY, PCI_MEMORY_END}, {0, 0}},
        pci_line};

    return &pci;
}
