// SPDX-License-Identifier: MIT-0
/* QEMU's x86 machines pc, q35 and microvm: UART at COM1, local APIC and I/O APIC, isa-debug-exit;
 * PCI through CF8 on pc and ECAM on q35, as their firmware leaves it; virtio-mmio slots on microvm.
 *
 * Time is the CPU's time stamp counter, whose rate nobody tells. The one clock of known rate that
 * all three machines have is the interval timer (PIT): at the start it counts 10 ms down, and what
 * the time stamp counter and the local APIC's timer count meanwhile is their rate. */
#include <stdio.h>

#include "../board.h"

#define LOCAL_APIC UINT32_C(0xfee00000)
#define IO_APIC UINT32_C(0xfec00000) /* the second one of microvm is IO_APIC_STEP above */
#define IO_APIC_STEP UINT32_C(0x10000)
#define MMIO_SLOTS UINT32_C(0xfeb00000)

/* Free on pc and q35 beside what the firmware has assigned: it goes up from port 0xc000, and down
 * from the I/O APIC. RAM, and the ECAM window of q35 with it, end below. */
#define PCI_PORTS UINT32_C(0xd000)
#define PCI_PORTS_END UINT32_C(0x10000)
#define PCI_MEMORY UINT32_C(0xe0000000)
#define PCI_MEMORY_END UINT32_C(0xf0000000)

enum {
    UART = 0x3f8,
    UART_DATA = UART,
    UART_INTERRUPTS = UART + 1,
    UART_FIFO = UART + 2,
    UART_FORMAT = UART + 3,
    UART_STATUS = UART + 5,
    UART_8N1 = 0x03,
    UART_DIVISOR = 0x80, /* in UART_FORMAT: the first two registers are the divisor */
    UART_EMPTY = 0x20,

    PIC_MASK = 0x21,
    PIC2_MASK = 0xa1,

    PIT_COUNT = 0x40,
    PIT_COMMAND = 0x43,
    PIT_ONE_SHOT = 0x30,    /* channel 0, both bytes of the count, mode 0 */
    PIT_STATUS = 0xe2,      /* the status of channel 0 is read next */
    PIT_STATUS_MODE = 0x3f, /* in there: as in the command */
    PIT_STATUS_OUT = 0x80,  /* in there: the count has ended */
    PIT_10_MS = 1193182 / 100,
    PIT_POLLS = 1000000,
    PIT_TRIES = 20,

    APIC_ID = 0x020,
    APIC_END = 0x0b0,
    APIC_SPURIOUS = 0x0f0,
    APIC_ENABLE = 0x100, /* in there */
    APIC_TIMER = 0x320,
    APIC_TIMER_MASKED = 0x10000,
    APIC_TIMER_COUNT = 0x380,
    APIC_TIMER_LEFT = 0x390,
    APIC_TIMER_DIVIDER = 0x3e0,
    APIC_TIMER_BY_16 = 0x3,

    IO_APIC_DATA = 0x10,
    IO_APIC_ROUTES = 0x10, /* two registers for each line */
    IO_APIC_LINES = 24,
    IO_APIC_LEVEL = 0x8000,

    PCI_CF8 = 0xcf8,
    PCI_ID = 0x00,
    I440FX_ROUTER = 1 << 3, /* its PIIX bridge */
    PIIX_ROUTES = 0x60,     /* a byte for each of four routes: an ISA interrupt */
    PIIX_ROUTE_OFF = 0x80,
    ICH9_FIRST_LINE = 20, /* slots below ICH9_SLOTS rotate over four lines */
    ICH9_SLOTS = 25,
    MCH_ECAM = 0x60,
    MCH_ECAM_ON = 0x1,

    MMIO_FIRST_LINE = IO_APIC_LINES,
    NO_LINE = 0xff,

    /* ACPI hot-plug of pc: a bit for each slot of bus 0 */
    UNPLUG_WANTED = 0xae04,
    UNPLUG_EJECT = 0xae08,
    UNPLUG_BUS = 0xae10,

    FLAG_INTERRUPTS = 0x200,
    CODE_SEGMENT = 0x08, /* of start.S */
    GATE_INTERRUPT = 0x8e00,

    DEBUG_EXIT = 0xf4,
    DEBUG_EXIT_FIRST = 16 /* makes a status that QEMU alone never ends with */
};

/* Vectors, which also are the numbers of the handlers: exceptions come first. */
enum {
    VECTOR_TIMER = 0x20,
    VECTOR_LINES = 0x30,
    VECTOR_MESSAGES = 0x80,
    VECTOR_SPURIOUS = 0xff /* its four lowest bits are set on any CPU */
};

#define MCH_ECAM_BASE UINT32_C(0xfc000000) /* bits in there; a longer window leaves some at 0 */
#define I440FX_ID UINT32_C(0x12378086)
#define Q35_ID UINT32_C(0x29c08086)

static struct {
    const char *name;
    uint32_t host_bridge; /* its PCI id; all ones: there is no PCI */
    uint64_t ecam;        /* 0: configuration space is reached through CF8 */
    unsigned lines;       /* of all I/O APICs */
    uint64_t clock_micro; /* counts of the time stamp counter in a microsecond */
    uint32_t timer_milli; /* counts of the local APIC's timer in a millisecond */
} board;

/* An entry of the interrupt descriptor table. */
struct gate {
    uint16_t offset0;
    uint16_t segment;
    uint16_t type;
    uint16_t offset16;
    uint32_t offset32;
    uint32_t reserved;
};
static struct gate gates[256];
extern const uint8_t interrupt_entries[256][16];

static volatile uint32_t *apic(uint32_t offset)
{
    return (volatile uint32_t *)(uintptr_t)(LOCAL_APIC + offset);
}

static uint64_t time_stamp(void)
{
    uint32_t low, high;

    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

const char *board_name(void)
{
    return board.name;
}

void board_putc(char c)
{
    while ((VIRTIO_PORT_READ8(UART_STATUS) & UART_EMPTY) == 0)
        continue;
    VIRTIO_PORT_WRITE8(UART_DATA, (uint8_t)c);
}

void board_exit(int status)
{
    VIRTIO_PORT_WRITE32(DEBUG_EXIT, (uint32_t)status + DEBUG_EXIT_FIRST);
    for (;;)
        __asm__ volatile("cli\n\thlt");
}

uint64_t board_device_address(const void *memory)
{
    return (uintptr_t)memory;
}

uint64_t board_micros(void)
{
    return time_stamp() / board.clock_micro;
}

bool board_irq_off(void)
{
    uint64_t flags;

    __asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags) : : "memory");
    return (flags & FLAG_INTERRUPTS) != 0;
}
void board_irq_on(void)
{
    __asm__ volatile("sti\n\tnop" ::: "memory"); /* they come after the instruction behind sti */
}

/* On pc QEMU asks the guest to eject what is to be removed, and ACPI code of an operating system
 * does. Here it is this, one slot at a time, so that a program loses a device while it uses it. */
static void eject(void)
{
    uint32_t wanted = VIRTIO_PORT_READ32(UNPLUG_WANTED);

    if (wanted != 0)
        VIRTIO_PORT_WRITE32(UNPLUG_EJECT, wanted & (~wanted + 1));
}

void board_idle(void)
{
    *apic(APIC_TIMER_COUNT) = board.timer_milli;
    __asm__ volatile("sti\n\thlt\n\tcli" ::: "memory");
    *apic(APIC_TIMER_COUNT) = 0;
    if (board.host_bridge == I440FX_ID)
        eject();
}

/* The way from the interrupt entries to the handlers. */
void board_interrupt(uint64_t vector, uint64_t address)
{
    if (vector < VECTOR_TIMER)
        board_fault("CPU exception", vector, address);
    if (vector == VECTOR_SPURIOUS)
        return;
    if (vector != VECTOR_TIMER)
        board_handlers_call((unsigned)vector);
    *apic(APIC_END) = 0;
}

static void start_uart(void)
{
    VIRTIO_PORT_WRITE8(UART_INTERRUPTS, 0);
    VIRTIO_PORT_WRITE8(UART_FORMAT, UART_DIVISOR);
    VIRTIO_PORT_WRITE8(UART_DATA, 1); /* 115200 baud */
    VIRTIO_PORT_WRITE8(UART_INTERRUPTS, 0);
    VIRTIO_PORT_WRITE8(UART_FORMAT, UART_8N1);
    VIRTIO_PORT_WRITE8(UART_FIFO, 1);
}

static void start_gates(void)
{
    uintptr_t base = (uintptr_t)gates;
    uint16_t pointer[5] = {sizeof(gates) - 1, (uint16_t)base, (uint16_t)(base >> 16),
                           (uint16_t)(base >> 32), (uint16_t)(base >> 48)};

    for (unsigned vector = 0; vector < 256; vector++) {
        uintptr_t entry = (uintptr_t)interrupt_entries[vector];
        struct gate gate = {.offset0 = (uint16_t)entry,
                            .segment = CODE_SEGMENT,
                            .type = GATE_INTERRUPT,
                            .offset16 = (uint16_t)(entry >> 16),
                            .offset32 = (uint32_t)(entry >> 32)};

        gates[vector] = gate;
    }
    __asm__ volatile("lidt %0" : : "m"(pointer) : "memory");
}

/* All interrupts come through the APICs: the two old controllers are masked. */
static void start_interrupts(void)
{
    VIRTIO_PORT_WRITE8(PIC_MASK, 0xff);
    VIRTIO_PORT_WRITE8(PIC2_MASK, 0xff);
    *apic(APIC_SPURIOUS) = APIC_ENABLE | VECTOR_SPURIOUS;
    *apic(APIC_TIMER_DIVIDER) = APIC_TIMER_BY_16;
}

/* What both clocks count in 10 ms. */
struct rates {
    uint64_t clocks;
    uint64_t excess; /* of these at most too many */
    uint32_t counts;
};

static uint8_t pit_status(void)
{
    VIRTIO_PORT_WRITE8(PIT_COMMAND, PIT_STATUS);
    return VIRTIO_PORT_READ8(PIT_COUNT);
}

/* Measures once; false: nothing ends the count. */
static bool measure(struct rates *rates)
{
    uint64_t begin, before, last;
    uint8_t status = 0;

    *apic(APIC_TIMER) = APIC_TIMER_MASKED | VECTOR_TIMER;
    VIRTIO_PORT_WRITE8(PIT_COMMAND, PIT_ONE_SHOT);
    begin = time_stamp();
    *apic(APIC_TIMER_COUNT) = UINT32_MAX;
    VIRTIO_PORT_WRITE8(PIT_COUNT, PIT_10_MS & 0xff);
    VIRTIO_PORT_WRITE8(PIT_COUNT, PIT_10_MS >> 8);
    before = last = time_stamp();
    rates->excess = last - begin;
    for (unsigned i = 0; i < PIT_POLLS && (status & PIT_STATUS_OUT) == 0; i++) {
        before = last;
        last = time_stamp();
        status = pit_status();
        if ((status & PIT_STATUS_MODE) != PIT_ONE_SHOT)
            return false;
    }
    rates->counts = UINT32_MAX - *apic(APIC_TIMER_LEFT);
    last = time_stamp();
    rates->excess += last - before; /* the count ended after the last but one look */
    rates->clocks = last - begin;
    return (status & PIT_STATUS_OUT) != 0;
}

/* The host may stop the machine at any time: a measurement counts when that did not make it longer
 * by more than 1 %. */
static bool measure_well(struct rates *best)
{
    bool measured = measure(best);

    for (unsigned i = 1; i < PIT_TRIES && measured && best->excess > best->clocks / 100; i++) {
        struct rates rates;

        measured = measure(&rates);
        if (measured && rates.excess < best->excess)
            *best = rates;
    }
    return measured;
}

static void start_clock(void)
{
    struct rates rates;

    if (!measure_well(&rates) || rates.clocks < 10000 || rates.counts < 10) {
        printf("no clock: there is no interval timer, or what it measures does not count\n");
        board_exit(2);
    }
    board.clock_micro = rates.clocks / 10000;
    board.timer_milli = rates.counts / 10;
    *apic(APIC_TIMER_COUNT) = 0;
    *apic(APIC_TIMER) = VECTOR_TIMER;
}

static struct virtio_pci_config pci_config(struct board_function *function)
{
    struct virtio_window ports = {PCI_CF8, 8, VIRTIO_WINDOW_PORT, NULL, NULL};

    if (board.ecam != 0)
        return board_ecam(function, board.ecam);
    function->ports.ports = ports;
    function->ports.function = (uint32_t)function->bdf << 8;
    return virtio_pci_config_cf8(&function->ports);
}

static uint32_t pci_read(uint16_t bdf, uint16_t offset)
{
    struct board_function function = {.bdf = bdf};
    struct virtio_pci_config config = pci_config(&function);

    return config.read32(config.ctx, offset);
}

/* The firmware has set the window up and says there where it is. */
static void find_ecam(void)
{
    uint32_t low = pci_read(0, MCH_ECAM), high = pci_read(0, MCH_ECAM + 4);

    if ((low & MCH_ECAM_ON) != 0 && high == 0)
        board.ecam = low & MCH_ECAM_BASE;
}

/* The host bridge tells the machines apart. */
static void find_machine(void)
{
    board.host_bridge = pci_read(0, PCI_ID);
    board.lines = IO_APIC_LINES;
    switch (board.host_bridge) {
    case I440FX_ID: board.name = "pc (PCI through CF8)"; break;
    case Q35_ID:
        find_ecam();
        board.name = board.ecam != 0 ? "q35 (PCI through ECAM)" : "q35 (PCI through CF8)";
        break;
    case UINT32_MAX:
        board.name = "microvm";
        board.lines = 2 * IO_APIC_LINES;
        break;
    default:
        printf("PCI host bridge %08x is of no machine that this image knows\n", board.host_bridge);
        board_exit(2);
    }
}

void board_start(void)
{
    start_uart();
    start_gates();
    start_interrupts();
    find_machine();
    start_clock();
    if (board.host_bridge == I440FX_ID)
        VIRTIO_PORT_WRITE32(UNPLUG_BUS, 0);
}

static void io_apic_write(unsigned line, uint32_t index, uint32_t value)
{
    uintptr_t base = IO_APIC + line / IO_APIC_LINES * IO_APIC_STEP;

    *(volatile uint32_t *)base = index;
    *(volatile uint32_t *)(base + IO_APIC_DATA) = value;
}

/* PCI and virtio-mmio lines are active high on all three machines. */
bool board_irq_connect(unsigned line, void (*handler)(void *ctx), void *ctx)
{
    uint32_t route = IO_APIC_ROUTES + 2 * (line % IO_APIC_LINES);

    if (line >= board.lines || !board_handlers_add(VECTOR_LINES + line, handler, ctx))
        return false;
    io_apic_write(line, route + 1, *apic(APIC_ID) & UINT32_C(0xff000000));
    io_apic_write(line, route, IO_APIC_LEVEL | (VECTOR_LINES + line));
    return true;
}

bool board_msi_connect(struct board_msi *msi, void (*handler)(void *ctx), void *ctx)
{
    static unsigned vector = VECTOR_MESSAGES;

    if (vector == VECTOR_SPURIOUS || !board_handlers_add(vector, handler, ctx))
        return false;
    msi->address = LOCAL_APIC | *apic(APIC_ID) >> 24 << 12;
    msi->data = vector++;
    return true;
}

struct board_mmio board_mmio(void)
{
    unsigned count = board.host_bridge == UINT32_MAX ? IO_APIC_LINES : 0;
    struct board_mmio mmio = {MMIO_SLOTS, 0x200, count, MMIO_FIRST_LINE};

    return mmio;
}

/* On pc the firmware has chosen an ISA interrupt for each of the four routes. */
static unsigned pci_line(unsigned slot, unsigned pin)
{
    unsigned line;

    if (board.host_bridge == Q35_ID)
        return slot < ICH9_SLOTS ? ICH9_FIRST_LINE + (slot + pin - 1) % 4 : NO_LINE;
    line = pci_read(I440FX_ROUTER, PIIX_ROUTES) >> (slot + pin - 2) % 4 * 8 & 0xff;
    return (line & PIIX_ROUTE_OFF) == 0 ? line : NO_LINE;
}

struct board_pci *board_pci(void)
{
    static struct board_pci pci = {
        pci_config,
        {0, 0x10000, VIRTIO_WINDOW_PORT, NULL, NULL},
        0,
        {{PCI_PORTS, PCI_PORTS_END}, {PCI_MEMORY, PCI_MEMORY_END}, {0, 0}},
        pci_line};

    return board.host_bridge != UINT32_MAX ? &pci : NULL;
}
