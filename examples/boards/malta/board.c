// SPDX-License-Identifier: MIT-0
/* QEMU's MIPS machine "malta" with a big-endian CPU: ISA UART and interrupt controllers, the CPU's
 * own timer, PCI behind a GT-64120 bridge. */
#include "../board.h"

/* Windows of the CPU on the lower 512 MiB, where all is: for memory and, uncached, for devices. */
#define CACHED UINT32_C(0x80000000)
#define UNCACHED UINT32_C(0xa0000000)

#define PCI_MEMORY UINT32_C(0x10000000)
#define PCI_MEMORY_END UINT32_C(0x17e00000)
#define PCI_PORTS (UNCACHED + UINT32_C(0x18000000))
#define BRIDGE (UNCACHED + UINT32_C(0x1be00000))

enum {
    UART_DATA = 0x3f8, /* port */
    UART_STATUS = 0x3fd,
    UART_READY = 0x20,
    BRIDGE_COMMAND = 0xc00,
    BRIDGE_NO_SWAP = 0x00010001, /* bytes of PCI data, as master and as target */
    BRIDGE_ACKNOWLEDGE = 0xc34,  /* the vector of the ISA interrupt that is pending */
    BRIDGE_CONFIG = 0xcf8,
    PIC = 0x20, /* ports of the first ISA interrupt controller, and of the second behind it */
    PIC_MASK = 0x21,
    PIC2 = 0xa0,
    PIC2_MASK = 0xa1,
    PIC2_LEVEL = 0x4d1,
    PIC_END = 0x20,
    SOUTH_BRIDGE_SLOT = 10,
    SOUTH_BRIDGE_LINES = 0x60, /* a byte for each PCI line: its ISA interrupt */
    FIRST_SLOT = 18,           /* of those four whose lines are rotated */
    COUNTS_PER_MICRO = 160,    /* half the CPU's 320 MHz; QEMU 7.2 rounds it to 6 ns */
    CAUSE_ISA = 1 << 10,       /* the same bits let them through in Status */
    CAUSE_TIMER = 1 << 15,
    STATUS_INTERRUPTS = 1 << 0,
    SEMIHOSTING_EXIT = 1
};

static const struct virtio_window ports = {PCI_PORTS, 0x10000, VIRTIO_WINDOW_MMIO, NULL, NULL};
static const struct virtio_window bridge = {BRIDGE, 0x1000, VIRTIO_WINDOW_MMIO, NULL, NULL};

/* ISA interrupts of the four PCI lines: the two that nothing else has, as firmware gives them. */
static const uint8_t isa_lines[4] = {10, 10, 11, 11};

/* In start.S. */
void board_sleep(void);

const char *board_name(void)
{
    return "malta";
}

void board_putc(char c)
{
    while ((virtio_window_read8(&ports, UART_STATUS) & UART_READY) == 0)
        continue;
    virtio_window_write8(&ports, UART_DATA, (uint8_t)c);
}

/* MIPS UHI semihosting. */
void board_exit(int status)
{
    register int operation __asm__("$25") = SEMIHOSTING_EXIT;
    register int argument __asm__("$4") = status;

    __asm__ volatile("sdbbp 1" : : "r"(operation), "r"(argument) : "memory");
    for (;;)
        continue;
}

/* From where the CPU sees it in its cached window. QEMU has RAM at the untranslated address too. */
uint64_t board_device_address(const void *memory)
{
    return (uintptr_t)memory - CACHED;
}

static uint32_t counter(void)
{
    uint32_t counts;

    __asm__ volatile("mfc0 %0, $9" : "=r"(counts));
    return counts;
}

/* The timer's interrupt after that many counts, and no earlier one. */
static void set_timer(uint32_t counts)
{
    __asm__ volatile("mtc0 %0, $11\n\tehb" : : "r"(counter() + counts));
}

/* The counter wraps in 26 seconds, so two calls must lie less than that apart. */
uint64_t board_micros(void)
{
    static uint64_t counts;

    counts += (uint32_t)(counter() - (uint32_t)counts);
    return counts / COUNTS_PER_MICRO;
}

bool board_irq_off(void)
{
    uint32_t status;

    __asm__ volatile("di %0\n\tehb" : "=r"(status)::"memory");
    return (status & STATUS_INTERRUPTS) != 0;
}
void board_irq_on(void)
{
    __asm__ volatile("ei\n\tehb" ::: "memory");
}

void board_idle(void)
{
    set_timer(1000 * COUNTS_PER_MICRO);
    board_sleep();
    (void)board_irq_off();
}

/* The way from the exception vector to the handlers. */
void board_interrupt(void)
{
    uint32_t cause;
    unsigned number;

    __asm__ volatile("mfc0 %0, $13" : "=r"(cause));
    if ((cause & CAUSE_TIMER) != 0)
        set_timer(UINT32_MAX);
    if ((cause & CAUSE_ISA) == 0)
        return;
    number = virtio_window_read32(&bridge, BRIDGE_ACKNOWLEDGE) & 15;
    board_handlers_call(number);
    if (number >= 8)
        virtio_window_write8(&ports, PIC2, PIC_END);
    virtio_window_write8(&ports, PIC, PIC_END);
}

/* Both controllers, the second behind input 2 of the first. The lower four bits of a vector are the
 * interrupt's number. All inputs are masked but that of the second controller. */
static void start_pics(void)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } steps[] = {{PIC, 0x11},      {PIC_MASK, 0x00},  {PIC_MASK, 1 << 2}, {PIC_MASK, 0x01},
                 {PIC2, 0x11},     {PIC2_MASK, 0x08}, {PIC2_MASK, 2},     {PIC2_MASK, 0x01},
                 {PIC_MASK, 0xfb}, {PIC2_MASK, 0xff}};

    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        virtio_window_write8(&ports, steps[i].port, steps[i].value);
}

static struct virtio_pci_config pci_config(struct board_function *function)
{
    function->ports.ports = virtio_window_sub(&bridge, BRIDGE_CONFIG, 8);
    function->ports.function = (uint32_t)function->bdf << 8;
    return virtio_pci_config_cf8(&function->ports);
}

/* PCI lines go to ISA interrupts, of which those are level-triggered. */
static void route_lines(void)
{
    struct board_function south_bridge = {.bdf = virtio_pci_bdf(0, SOUTH_BRIDGE_SLOT, 0)};
    struct virtio_pci_config config = pci_config(&south_bridge);
    uint32_t lines = 0;
    uint8_t level = 0;

    for (unsigned i = 0; i < 4; i++) {
        lines |= (uint32_t)isa_lines[i] << 8 * i;
        level |= (uint8_t)(1u << (isa_lines[i] - 8));
    }
    config.write32(config.ctx, SOUTH_BRIDGE_LINES, lines);
    virtio_window_write8(&ports, PIC2_LEVEL, level);
}

/* QEMU's bridge minds the setting for configuration data alone: little-endian for all functions, as
 * its own registers are. */
void board_start(void)
{
    virtio_window_write32(&bridge, BRIDGE_COMMAND, BRIDGE_NO_SWAP);
    start_pics();
    route_lines();
    set_timer(UINT32_MAX);
    __asm__ volatile("mtc0 %0, $12\n\tehb" : : "r"(CAUSE_ISA | CAUSE_TIMER));
}

bool board_irq_connect(unsigned line, void (*handler)(void *ctx), void *ctx)
{
    uint8_t mask = virtio_window_read8(&ports, PIC2_MASK);

    if (!board_handlers_add(line, handler, ctx))
        return false;
    virtio_window_write8(&ports, PIC2_MASK, (uint8_t)(mask & ~(1u << (line - 8))));
    return true;
}

bool board_msi_connect(struct board_msi *msi, void (*handler)(void *ctx), void *ctx)
{
    (void)msi, (void)handler, (void)ctx;
    return false;
}

struct board_mmio board_mmio(void)
{
    struct board_mmio none = {0, 0, 0, 0};

    return none;
}

static unsigned pci_line(unsigned slot, unsigned pin)
{
    unsigned rotated = slot >= FIRST_SLOT && slot < FIRST_SLOT + 4 ? slot - FIRST_SLOT : 0;

    return isa_lines[(rotated + pin - 1) % 4];
}

struct board_pci *board_pci(void)
{
    static struct board_pci pci = {pci_config,
                                   {PCI_PORTS, 0x10000, VIRTIO_WINDOW_MMIO, NULL, NULL},
                                   UNCACHED,
                                   {{0x1000, 0x10000}, {PCI_MEMORY, PCI_MEMORY_END}, {0, 0}},
                                   pci_line};

    return &pci;
}
