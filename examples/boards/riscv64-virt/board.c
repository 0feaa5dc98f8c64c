// SPDX-License-Identifier: MIT-0
/* QEMU's RISC-V machine "virt", in M mode: 16550 UART, CLINT timer, PLIC, PCI through ECAM,
 * virtio-mmio slots. It has no message-signalled interrupts. */
#include "../board.h"

#define TEST_DEVICE UINT32_C(0x00100000)
#define TIMER UINT32_C(0x02000000)
#define PCI_PORTS UINT32_C(0x03000000)
#define INTERRUPTS UINT32_C(0x0c000000)
#define UART UINT32_C(0x10000000)
#define MMIO_SLOTS UINT32_C(0x10001000)
#define PCI_ECAM UINT32_C(0x30000000)
#define PCI_MEMORY UINT32_C(0x40000000)
#define PCI_MEMORY_END UINT32_C(0x80000000)

#define CAUSE_TIMER (UINT64_C(1) << 63 | 7)
#define CAUSE_EXTERNAL (UINT64_C(1) << 63 | 11)

enum {
    TEST_PASS = 0x5555,
    TEST_FAIL = 0x3333, /* and the status in the upper half */
    TIMER_COMPARE = 0x4000,
    TIMER_NOW = 0xbff8,
    TICKS_PER_MICRO = 10,
    UART_DATA = 0,
    UART_STATUS = 5,
    UART_READY = 0x20,
    PLIC_PRIORITY = 0x000000, /* a word for each source */
    PLIC_ENABLE = 0x002000,   /* a bit for each source, for M mode of CPU 0 */
    PLIC_THRESHOLD = 0x200000,
    PLIC_CLAIM = 0x200004,
    PCI_FIRST_LINE = 32,
    MSTATUS_INTERRUPTS = 1 << 3,
    MIE_TIMER = 1 << 7,
    MIE_EXTERNAL = 1 << 11
};

static volatile uint32_t *reg(uint32_t base, uint32_t offset)
{
    return (volatile uint32_t *)(uintptr_t)(base + offset);
}

static volatile uint64_t *timer(uint32_t offset)
{
    return (volatile uint64_t *)(uintptr_t)(TIMER + offset);
}

const char *board_name(void)
{
    return "riscv64 virt";
}

void board_putc(char c)
{
    volatile uint8_t *uart = (volatile uint8_t *)(uintptr_t)UART;

    while ((uart[UART_STATUS] & UART_READY) == 0)
        continue;
    uart[UART_DATA] = (uint8_t)c;
}

void board_exit(int status)
{
    *reg(TEST_DEVICE, 0) = status == 0 ? TEST_PASS : (uint32_t)status << 16 | TEST_FAIL;
    for (;;)
        __asm__ volatile("wfi");
}

uint64_t board_device_address(const void *memory)
{
    return (uintptr_t)memory;
}

uint64_t board_micros(void)
{
    return *timer(TIMER_NOW) / TICKS_PER_MICRO;
}

bool board_irq_off(void)
{
    uint64_t status;

    __asm__ volatile("csrrc %0, mstatus, %1" : "=r"(status) : "r"(MSTATUS_INTERRUPTS) : "memory");
    return (status & MSTATUS_INTERRUPTS) != 0;
}
void board_irq_on(void)
{
    __asm__ volatile("csrs mstatus, %0" : : "r"(MSTATUS_INTERRUPTS) : "memory");
}

static void timer_off(void)
{
    *timer(TIMER_COMPARE) = UINT64_MAX;
}

/* wfi ends when an interrupt is pending, whether they are on or off. */
void board_idle(void)
{
    *timer(TIMER_COMPARE) = *timer(TIMER_NOW) + 1000 * TICKS_PER_MICRO;
    __asm__ volatile("wfi" ::: "memory");
    board_irq_on();
    (void)board_irq_off();
    timer_off();
}

/* The way from the trap vector to the handlers. */
void board_trap(uint64_t cause, uint64_t address)
{
    uint32_t source;

    if (cause == CAUSE_TIMER) {
        timer_off();
        return;
    }
    if (cause != CAUSE_EXTERNAL)
        board_fault("CPU exception", cause, address);
    source = *reg(INTERRUPTS, PLIC_CLAIM);
    if (source == 0)
        return;
    board_handlers_call(source);
    *reg(INTERRUPTS, PLIC_CLAIM) = source;
}

void board_start(void)
{
    timer_off();
    *reg(INTERRUPTS, PLIC_THRESHOLD) = 0;
    __asm__ volatile("csrs mie, %0" : : "r"(MIE_TIMER | MIE_EXTERNAL));
}

bool board_irq_connect(unsigned line, void (*handler)(void *ctx), void *ctx)
{
    if (!board_handlers_add(line, handler, ctx))
        return false;
    *reg(INTERRUPTS, PLIC_PRIORITY + line * 4) = 1;
    *reg(INTERRUPTS, PLIC_ENABLE + line / 32 * 4) |= 1u << line % 32;
    return true;
}

bool board_msi_connect(struct board_msi *msi, void (*handler)(void *ctx), void *ctx)
{
    (void)msi, (void)handler, (void)ctx;
    return false;
}

struct board_mmio board_mmio(void)
{
    struct board_mmio mmio = {MMIO_SLOTS, 0x1000, 8, 1};

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
