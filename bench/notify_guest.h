// SPDX-License-Identifier: MIT-0
/*
 * What bench/notify.c (the host) and bench/notify_guest.c (its guest) share. The guest is this very
 * program: its functions and variables lie in the guest at the addresses that they have in the host.
 */
#ifndef BENCH_NOTIFY_GUEST_H
#define BENCH_NOTIFY_GUEST_H

#include "virtio.h"

#define GUEST_APIC UINT32_C(0xfee00000)
#define GUEST_ECAM UINT32_C(0xe0000000) /* of bus 0; the device is function 0 */

enum {
    GUEST_QUEUE_SIZE = 256,
    GUEST_CF8 = 0xcf8,
    GUEST_DONE = 0x4f0,         /* the port that a program writes to at its end */
    GUEST_PATIENCE = 100000000, /* looks for an interrupt until it counts as lost */
    GUEST_KICK_NEEDED = 1,      /* guest.event_lag: the device waits for just this buffer */
    GUEST_KICK_SUPPRESSED = 0x8000 /* and for one that is far away */
};

/* What a program is told, and what it tells. */
struct guest {
    uint32_t count; /* iterations */
    struct virtio_window window; /* the register that it accesses */
    uint16_t value;              /* and what it writes there */
    struct virtio_window isr;    /* what an interrupt handler accesses */
    struct virtio_drv_queue queue; /* of guest_kick() and guest_publish() */
    uint16_t event_lag;            /* how far the device's event index is behind what is published */
    volatile uint32_t interrupts;
    bool lost; /* an interrupt did not come */
};
extern struct guest guest;

/* Writes GUEST_DONE at its end and never returns. */
typedef void guest_program(void);

/* Loops without a register access, to be subtracted: the bare one, and one that makes a buffer
 * available with each iteration. */
guest_program guest_loop, guest_publish;
/* One register access an iteration (guest_status_ack: two). */
guest_program guest_port_write16, guest_mmio_write16, guest_mmio_write32;
guest_program guest_port_isr, guest_mmio_isr, guest_status_ack;
/* guest_publish(), and virtio_drv_kick(). */
guest_program guest_kick;
/* Notifies as guest_port_write16() and waits for the interrupt that this causes. */
guest_program guest_round_trip;

/* Interrupt handlers: with MSI-X, with the ISR register, with that of virtio-mmio. */
struct guest_frame;
void guest_irq_msix(struct guest_frame *frame);
void guest_irq_isr(struct guest_frame *frame);
void guest_irq_mmio(struct guest_frame *frame);

/* Host: an empty queue, with its device side where GUEST_KICK_ says. */
int guest_queue_setup(uint16_t event_lag);
/* Host: a kick through the PCI_CFG capability, over CF8 or ECAM. */
void guest_pci_cfg_setup(bool ecam);

#endif
