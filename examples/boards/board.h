// SPDX-License-Identifier: MIT-0
/**
 * @file board.h
 * @brief What a bare-metal program asks of its machine: console, time, interrupts, virtio devices.
 *
 * A board is a folder: start-up code, a linker script, and a board.c that implements section 1.
 * Section 2 is the same for all (lib/) and is what a program uses. One CPU, and memory that is
 * coherent with the devices. Section 3 helps to write a board.c.
 */
#ifndef EXAMPLES_BOARDS_BOARD_H
#define EXAMPLES_BOARDS_BOARD_H

#include "virtio.h"

/* ---------------------------------------------------------------------------
 * 1. What a board implements
 * --------------------------------------------------------------------------- */

/** Console, time and interrupts work from here on; interrupts are off. */
void board_start(void);

/** The machine's name, for the transcript. */
const char *board_name(void);

/** One character on the console; waits while that is busy. */
void board_putc(char c);

/** Ends the machine; 0 is success. */
__attribute__((noreturn)) void board_exit(int status);

/** Where the devices see memory of the program: what goes into descriptors and queue addresses. */
uint64_t board_device_address(const void *memory);

/** Microseconds since some moment in the past; never goes back. */
uint64_t board_micros(void);

/** Interrupts off and on. @return were they on? */
bool board_irq_off(void);
void board_irq_on(void);

/** Sleeps until an interrupt or for about a millisecond, whichever is first. Call it with interrupts
 *  off: one that came after the caller's last look ends the sleep. Its handler has run when this
 *  returns, and interrupts are off again. */
void board_idle(void);

/** Calls `handler` on an interrupt line, which others may share. False: the board polls, or has no
 *  such line, or BOARD_HANDLERS are connected already. */
bool board_irq_connect(unsigned line, void (*handler)(void *ctx), void *ctx);

/** A message-signalled interrupt. */
struct board_msi {
    uint64_t address;
    uint32_t data;
};

/** Reserves a message that calls `handler`. False: the board has none, or none left. */
bool board_msi_connect(struct board_msi *msi, void (*handler)(void *ctx), void *ctx);

/** The virtio-mmio slots of a machine. */
struct board_mmio {
    uintptr_t first;
    uint32_t step;       /**< bytes from one to the next, and of each */
    uint32_t count;      /**< 0: none */
    unsigned first_line; /**< interrupt line of the first slot; the others follow */
};
struct board_mmio board_mmio(void);

/** A PCI function and what it takes to reach its configuration space. */
struct board_function {
    uint16_t bdf;
    struct virtio_pci_cf8 ports;
    struct virtio_window ecam;
};

/** The PCI bus 0 of a machine. */
struct board_pci {
    /** Configuration space of function->bdf; `function` is kept. NULL: no PCI. */
    struct virtio_pci_config (*config)(struct board_function *function);
    struct virtio_window io;         /**< I/O space from port 0 on; kind NONE if there is none */
    uint64_t memory_offset;          /**< CPU address minus bus address of BARs in memory */
    struct virtio_pci_ranges ranges; /**< bus addresses free for BARs; what is found takes its part */
    /** Interrupt line of pins 1 to 4 (INTA to INTD) of a slot of bus 0. */
    unsigned (*line)(unsigned slot, unsigned pin);
};
struct board_pci *board_pci(void);

/* ---------------------------------------------------------------------------
 * 2. What a program uses
 * --------------------------------------------------------------------------- */

enum {
    BOARD_HANDLERS = 16,    /**< handlers connected at most */
    BOARD_VECTORS = 4,      /**< MSI-X vectors of one device at most */
    BOARD_PATIENCE = 10000000 /**< microseconds without progress until a wait gives up */
};

/** How a device's interrupts arrive. */
enum board_irq { BOARD_IRQ_NONE, BOARD_IRQ_LINE, BOARD_IRQ_MSIX };

struct board_device;

/** One MSI-X vector of a device. */
struct board_vector {
    struct board_device *device;
    uint16_t index;
};

/** A virtio device that was found, with its interrupt connected. */
struct board_device {
    struct virtio_drv drv;
    const char *transport; /**< its name, as the runs are told apart by it */
    enum board_irq irq;
    unsigned line;    /**< BOARD_IRQ_LINE */
    uint16_t vectors; /**< BOARD_IRQ_MSIX: entries of the table that are programmed */
    /** Called in interrupt context with bits of enum virtio_irq; set by the program or NULL. */
    void (*handler)(void *ctx, uint32_t causes);
    void *handler_ctx;
    volatile uint32_t interrupts; /**< taken so far */
    uint32_t seen;                /**< of these, by board_wait() */
    uint64_t began;               /**< board_micros() of board_wait_begin() */
    struct board_vector vector[BOARD_VECTORS];
    struct board_function function;
    struct virtio_pci_config config; /**< PCI */
    struct virtio_pci_layout layout;
    struct virtio_pci_bar bars[6];
    struct virtio_window windows[6];
};

/** Finds the device number `index` of a virtio device type, on PCI or in a virtio-mmio slot, and
 *  connects its interrupt: MSI-X if device and board have it, else its line, else none. Prints where
 *  it was found, or what there is instead.
 *  @return false: there is none, or it cannot be used */
bool board_find(struct board_device *dev, unsigned type, unsigned index);

/** Waits a moment for the device: until its next interrupt, for a millisecond, or, where there are
 *  none, not at all. A `wait` hook of the front-ends.
 *  @param device  struct board_device
 *  @return false: BOARD_PATIENCE is over since board_wait_begin(); interrupts that lead to nothing do
 *          not prolong it */
bool board_wait(void *device);

/** Something was done, or is about to be: the time that the device has begins anew. */
void board_wait_begin(struct board_device *dev);

/** Prints how many interrupts came, and of which kind. */
void board_show_interrupts(const struct board_device *dev);

/** The program of an image: returns its exit status. */
int board_program(void);

/* ---------------------------------------------------------------------------
 * 3. What lib/ has for a board.c
 * --------------------------------------------------------------------------- */

/** Runs board_program() and ends the machine; the start-up code calls it with a stack and with
 *  zeroed variables. */
__attribute__((noreturn)) void board_main(void);

/** The handlers of interrupt lines or messages, by a number of the board's. False: no room. */
bool board_handlers_add(unsigned number, void (*handler)(void *ctx), void *ctx);
void board_handlers_call(unsigned number);

/** Configuration space of function->bdf in an ECAM window that starts there: for board_pci::config. */
struct virtio_pci_config board_ecam(struct board_function *function, uint64_t base);

/** A CPU exception that nobody expects: prints it and ends the machine with status 2. */
__attribute__((noreturn)) void board_fault(const char *what, uint64_t cause, uint64_t address);

#endif
