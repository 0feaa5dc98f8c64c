// SPDX-License-Identifier: MIT-0
/**
 * @file qtest.h
 * QEMU as a remote machine whose registers an ordinary Linux process can touch.
 *
 * qtest_start() runs a QEMU of its own and speaks the text protocol of its `-qtest` option: port
 * I/O, memory-mapped registers and interrupt lines become function calls. The guest's CPU sleeps
 * and no firmware runs, so every device is in its reset state and belongs to the caller. The
 * guest's RAM is shared: what the caller writes through qtest_ram() is what a device reads by DMA.
 *
 * This is no virtio code. It knows nothing of devices; qtest_pci.h adds PCI enumeration.
 *
 *     struct qtest q;
 *     const char *extra[] = {"-device", "virtio-rng-pci,addr=3", NULL};
 *     const struct qtest_options options = {.machine = QTEST_Q35, .ram_size = 64u << 20, .extra =
 * extra};
 *
 *     if (qtest_start(&q, &options) != 0)
 *         fprintf(stderr, "%s\n", qtest_error(&q));
 *     qtest_out(&q, 0xcf8, 4, 0x80001800);
 *     printf("%08x\n", qtest_in(&q, 0xcfc, 4));
 *     qtest_stop(&q);
 *
 * Errors are sticky: after the first one every read returns all ones, every write does nothing and
 * qtest_error() says what happened. No call waits longer than QTEST_TIMEOUT_MS for QEMU. Nothing
 * is left behind in the file system, and QEMU is killed when the thread that started it ends.
 *
 * One struct qtest may be used by one thread at a time; different ones are independent.
 */
#ifndef QTEST_H
#define QTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    QTEST_TIMEOUT_MS = 20000, /**< Longest wait for one reply of QEMU. */
    QTEST_IRQ_LINES = 64,     /**< Interrupt lines that are tracked; an I/O APIC has 24. */
    QTEST_SLOT_SIZE = 0x200   /**< Bytes of a virtio-mmio slot. */
};

/** The board QEMU imitates. */
enum qtest_machine {
    QTEST_Q35,     /**< x86-64: PCI Express root bus, ICH9. */
    QTEST_PC,      /**< x86-64: conventional PCI, i440FX. */
    QTEST_MICROVM, /**< x86-64: no PCI, virtio-mmio slots. */
    QTEST_VIRT,    /**< aarch64: PCI Express with ECAM, ports mapped in memory; virtio-mmio slots. */
    QTEST_MACHINE_COUNT
};

/**
 * The virtio-mmio slots of a board: slot i is at base + i * QTEST_SLOT_SIZE and interrupts on line
 * `line` + i. QEMU fills the highest slot first. Legacy registers (version 1) are QEMU's default;
 * pass `-global virtio-mmio.force-legacy=false` for version 2.
 */
struct qtest_slots {
    uint64_t base;
    unsigned count; /**< 0: the board has none */
    unsigned line;
};

/** What to start. */
struct qtest_options {
    const char *qemu; /**< Program, searched in PATH; NULL: the usual name for the machine. */
    enum qtest_machine machine;
    uint64_t ram_size; /**< Bytes: a multiple of 1 MiB, at most 2 GiB. */
    const char *const
        *extra; /**< More arguments of QEMU (drives, devices), NULL at the end; or NULL. */
};

/** One running QEMU. Every field is private to qtest.c and qtest_pci.c. */
struct qtest {
    enum qtest_machine machine;
    bool open;          /* holds a process, a socket, a log or a mapping */
    pid_t pid;          /* our child, or 0 once it is reaped */
    int socket;         /* our end of the protocol */
    int log;            /* what QEMU prints; quoted when it dies */
    void *ram;          /* guest physical qtest_ram_base() */
    size_t ram_size;    /* bytes mapped at ram */
    size_t rx_used;     /* bytes in rx that are no complete line yet, or not taken */
    char rx[512];       /* from QEMU */
    uint64_t irq_level; /* bit n: line n is high */
    unsigned irq_raised[QTEST_IRQ_LINES]; /* rising edges so far */
    unsigned irq_changes;                 /* all edges so far */
    uint64_t pci_io_next;                 /* qtest_pci.c: first free I/O port, 0 before the first */
    uint64_t pci_memory_next;             /* qtest_pci.c: first free address, 0 before the first */
    char error[512];                      /* empty while all is well */
};

/**
 * Starts QEMU and waits until its devices exist. `*q` may hold anything but a running QEMU.
 * Call qtest_stop() afterwards, also when this fails.
 *
 * @return 0, or -1: see qtest_error().
 */
int qtest_start(struct qtest *q, const struct qtest_options *options);

/**
 * Ends QEMU and unmaps the RAM. May be called twice, after a failed start, and on a zeroed struct.
 * qtest_error() still tells the first error afterwards.
 */
void qtest_stop(struct qtest *q);

/** The first error as one line without a newline, or NULL while there was none. */
const char *qtest_error(const struct qtest *q);

/** Name of a machine as QEMU's `-machine` knows it. */
const char *qtest_machine_name(enum qtest_machine machine);

/** The board's virtio-mmio slots. */
struct qtest_slots qtest_slots(const struct qtest *q);

/** Reads port I/O of 1, 2 or 4 bytes; on a board without ports, those of the PCI host bridge.
 *  @return The value; all ones (32 bits) after an error. */
uint32_t qtest_in(struct qtest *q, uint16_t port, unsigned width);

/** Writes port I/O of 1, 2 or 4 bytes. */
void qtest_out(struct qtest *q, uint16_t port, unsigned width, uint32_t value);

/**
 * Reads 1, 2 or 4 bytes of physical memory; meant for registers, see qtest_ram() for RAM.
 * @return The value; all ones (32 bits) after an error.
 */
uint32_t qtest_read(struct qtest *q, uint64_t address, unsigned width);

/** Writes 1, 2 or 4 bytes of physical memory. When it returns, the device has seen the write. */
void qtest_write(struct qtest *q, uint64_t address, unsigned width, uint32_t value);

/**
 * The guest's RAM, ram_size bytes, until qtest_stop(); NULL after a failed start. Guest physical
 * address is qtest_ram_base() plus the offset, except that 0xa0000 to 0xfffff are no RAM for a device
 * of a PC: use what is above 1 MiB (below it, QTEST_VIRT has its device tree). Devices access it from
 * other threads of another process; order accesses as on hardware.
 */
void *qtest_ram(const struct qtest *q);

/** Guest physical address of the first byte of qtest_ram(). */
uint64_t qtest_ram_base(const struct qtest *q);

/** Size of qtest_ram() in bytes. */
size_t qtest_ram_size(const struct qtest *q);

/**
 * Reports interrupt lines from now on instead of delivering them. Line numbers are the pins of the
 * I/O APIC, on QTEST_VIRT the shared interrupts of the GIC. Call it before a device can interrupt.
 * Stops the timer of a PC, whose line 0 would change 36 times a second.
 *
 * @return 0, or -1: see qtest_error().
 */
int qtest_irq_intercept(struct qtest *q);

/**
 * Takes changes of interrupt lines that have arrived, waiting up to timeout_ms for the first one.
 * Any line counts: wait for a certain one in a loop.
 * Every other access takes them too, so a line that a register access changes is up to date when
 * that access returns.
 *
 * @return Number of changes taken, 0 when there were none, or -1: see qtest_error().
 */
int qtest_poll(struct qtest *q, int timeout_ms);

/** How often a line went from low to high since the start. Does not itself look for news. */
unsigned qtest_irq_raised(const struct qtest *q, unsigned line);

/** Whether a line is high as far as was heard. Does not itself look for news. */
bool qtest_irq_level(const struct qtest *q, unsigned line);

#endif
