// SPDX-License-Identifier: MIT-0
/* The guest of bench/notify.c: 64-bit code without a system, in loops of one kind of register access.
 * Compiled without red zone, FP and SIMD; it may use nothing but itself. */
#include "notify_guest.h"

#ifdef __x86_64__

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { APIC_END = 0xb0, PCI_CFG_CAP = 0x40 };

struct guest guest;

static _Alignas(64) uint8_t ring[VIRTIO_QUEUE_BYTES(GUEST_QUEUE_SIZE)];
static struct virtq_slot slots[GUEST_QUEUE_SIZE];

static void done(void)
{
    for (;;)
        VIRTIO_PORT_WRITE8(GUEST_DONE, 0);
}

/* One iteration: `window` is a copy, which stays in registers. */
typedef void step(const struct virtio_window *window, uint16_t value);

ALWAYS_INLINE void repeat(step *one)
{
    const struct virtio_window window = guest.window;
    const uint16_t value = guest.value;

    for (uint32_t left = guest.count; left != 0; left--) {
        one(&window, value);
        __asm__ volatile("" ::: "memory");
    }
    done();
}

ALWAYS_INLINE void nothing(const struct virtio_window *window, uint16_t value)
{
    (void)window;
    (void)value;
}
void guest_loop(void)
{
    repeat(nothing);
}

/* The window's kind is known to the compiler in each of these: the access is one instruction. */
ALWAYS_INLINE struct virtio_window of_kind(const struct virtio_window *window, uint8_t kind)
{
    struct virtio_window known = {window->base, window->length, kind, NULL, NULL};

    return known;
}

ALWAYS_INLINE void port_write16(const struct virtio_window *window, uint16_t value)
{
    struct virtio_window port = of_kind(window, VIRTIO_WINDOW_PORT);

    virtio_window_write16(&port, 0, value);
}
void guest_port_write16(void)
{
    repeat(port_write16);
}

ALWAYS_INLINE void mmio_write16(const struct virtio_window *window, uint16_t value)
{
    struct virtio_window mmio = of_kind(window, VIRTIO_WINDOW_MMIO);

    virtio_window_write16(&mmio, 0, value);
}
void guest_mmio_write16(void)
{
    repeat(mmio_write16);
}

ALWAYS_INLINE void mmio_write32(const struct virtio_window *window, uint16_t value)
{
    struct virtio_window mmio = of_kind(window, VIRTIO_WINDOW_MMIO);

    virtio_window_write32(&mmio, 0, value);
}
void guest_mmio_write32(void)
{
    repeat(mmio_write32);
}

ALWAYS_INLINE void port_isr(const struct virtio_window *window, uint16_t value)
{
    struct virtio_window port = of_kind(window, VIRTIO_WINDOW_PORT);

    (void)value;
    (void)virtio_window_read8(&port, 0);
}
void guest_port_isr(void)
{
    repeat(port_isr);
}

ALWAYS_INLINE void mmio_isr(const struct virtio_window *window, uint16_t value)
{
    struct virtio_window mmio = of_kind(window, VIRTIO_WINDOW_MMIO);

    (void)value;
    (void)virtio_window_read8(&mmio, 0);
}
void guest_mmio_isr(void)
{
    repeat(mmio_isr);
}

ALWAYS_INLINE void status_ack(const struct virtio_window *window, uint16_t value)
{
    struct virtio_window mmio = of_kind(window, VIRTIO_WINDOW_MMIO);

    (void)value;
    virtio_window_write32(&mmio, VIRTIO_MMIO_REG_IRQ_ACK,
                          virtio_window_read32(&mmio, VIRTIO_MMIO_REG_IRQ_STATUS));
}
void guest_status_ack(void)
{
    repeat(status_ack);
}

/* As one more buffer leaves the queue after it was added and published, before a device whose event
 * index is as far behind as told. */
ALWAYS_INLINE void publish(const struct virtio_window *window, uint16_t value)
{
    struct virtq_driver *q = &guest.queue.ring;
    uint16_t next = (uint16_t)(q->added_idx + 1);

    (void)window;
    (void)value;
    q->added_idx = q->published_idx = next;
    ((volatile uint16_t *)q->device)[2 + 4 * GUEST_QUEUE_SIZE] = (uint16_t)(next - guest.event_lag);
}
void guest_publish(void)
{
    repeat(publish);
}

ALWAYS_INLINE void publish_and_kick(const struct virtio_window *window, uint16_t value)
{
    publish(window, value);
    virtio_drv_kick(&guest.queue);
}
void guest_kick(void)
{
    repeat(publish_and_kick);
}

ALWAYS_INLINE void round_trip(const struct virtio_window *window, uint16_t value)
{
    uint32_t before = guest.interrupts, patience = GUEST_PATIENCE;

    port_write16(window, value);
    while (guest.interrupts == before && --patience != 0)
        __asm__ volatile("pause");
    guest.lost = guest.lost || patience == 0;
}
void guest_round_trip(void)
{
    repeat(round_trip);
}

/* clang fears for SIMD registers, which are not in use here. */
#ifdef __clang__
#pragma clang diagnostic ignored "-Winterrupt-service-routine"
#endif

ALWAYS_INLINE void end_interrupt(void)
{
    guest.interrupts++;
    *(volatile uint32_t *)(uintptr_t)(GUEST_APIC + APIC_END) = 0;
}
__attribute__((interrupt)) void guest_irq_msix(struct guest_frame *frame)
{
    (void)frame;
    end_interrupt();
}
__attribute__((interrupt)) void guest_irq_isr(struct guest_frame *frame)
{
    (void)frame;
    port_isr(&guest.isr, 0);
    end_interrupt();
}
__attribute__((interrupt)) void guest_irq_mmio(struct guest_frame *frame)
{
    (void)frame;
    status_ack(&guest.isr, 0);
    end_interrupt();
}

int guest_queue_setup(uint16_t event_lag)
{
    struct virtq_areas areas;

    guest.event_lag = event_lag;
    virtq_areas_set(&areas, ring, GUEST_QUEUE_SIZE, VIRTIO_RING_ALIGN, VIRTQ_EVENT_IDX);
    return virtq_driver_init(&guest.queue.ring, &areas, slots);
}

void guest_pci_cfg_setup(bool ecam)
{
    static struct virtio_pci_cf8 ports;
    static struct virtio_window function;
    static struct virtio_pci_config config;
    static struct virtio_pci_cfg_access access;
    const struct virtio_window cf8 = {GUEST_CF8, 8, VIRTIO_WINDOW_PORT, NULL, NULL};
    const struct virtio_window space = {GUEST_ECAM, 4096, VIRTIO_WINDOW_MMIO, NULL, NULL};
    struct virtio_window bar;

    ports.ports = cf8;
    function = space;
    config = ecam ? virtio_pci_config_ecam(&function) : virtio_pci_config_cf8(&ports);
    access.config = &config;
    access.cap = PCI_CFG_CAP;
    access.bar = 4;
    bar = virtio_pci_cfg_window(&access, 4096);
    guest.queue.notify.kind = bar.kind;
    guest.queue.notify.address = bar.base;
    guest.queue.notify.ops = bar.ops;
    guest.queue.notify.ctx = bar.ctx;
}

#endif
