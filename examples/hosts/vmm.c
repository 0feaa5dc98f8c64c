// SPDX-License-Identifier: MIT-0
/*
 * A small virtual machine monitor: one processor, some RAM, one virtio block device of this library
 * in a virtio-mmio slot or on a PCI bus, and a guest of its own that works on the disk
 * (vmm_guest.c). The bare-metal images of examples/boards/x86 run on it as well.
 *
 * The processor runs on one thread, the device on another: notifies go to it as an ioeventfd, its
 * interrupts to the guest as irqfds, and only the other registers stop the processor. With
 * --user-exits there is none of that, and one thread does it all. See usage() for the options; exit
 * status is that of the guest, or 77 where there is no KVM.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#endif
#include <stdio.h>

#ifndef __x86_64__
int main(void)
{
    printf("skipped: this machine is made for x86-64\n");
    return 77;
}
#else
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../device/blk.h"
#include "../device/function.h"
#include "../device/msix.h"
#include "vmm_guest.h"

/* Guest-physical addresses below the guest, and what is there. */
enum {
    SEGMENTS = 0x1000,
    TABLES = 0x2000, /* the root, one level of four directories, and those: 4 GiB in 2 MiB pages */
    STACK_END = 0x80000,
    GUEST_START = 0x100000,
    SKIPPED = 77,
    BLOCK_DEVICE = 2,
    QUEUE_SIZE = 64,
    PLACES = 5,       /* of a function, where a kick may arrive */
    MESSAGES_GSI = 24 /* interrupts of KVM's that are messages: beyond the pins of the I/O APIC */
};

static struct {
    int kvm, vm, vcpu;
    struct kvm_run *run;
    uint8_t *ram;
    uint64_t entry;               /* of the guest */
    bool bare_metal;              /* it is an image of examples/boards */
    bool user_exits, line, split; /* options */
    pthread_mutex_t lock;         /* around the device: both threads reach it */
    struct function function;
    struct msix msix;
    struct blkdev disk;
    uint32_t config_address;             /* of the PCI bus: bus, device, function, register */
    struct kvm_ioeventfd notify[PLACES]; /* as KVM has them; length 0: has not */
    int notified;                        /* eventfd: KVM to the device */
    int interrupt;                       /* eventfd: the line goes up */
    int ended;                           /* eventfd: the guest has ended that interrupt */
    int message[FUNCTION_VECTORS];       /* eventfds: of MSI-X */
    unsigned long exits, kicks, kick_exits, interrupts;
} vmm = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* A load or store of the guest's that no memory answers. */
struct access {
    uint64_t address;
    uint64_t value; /* what is stored, or what a load gets */
    unsigned width; /* bytes */
    bool port;
    bool write;
};

__attribute__((noreturn)) static void die(const char *what, const char *why)
{
    fprintf(stderr, "vmm: %s: %s\n", what, why);
    exit(1);
}

static int request(int fd, unsigned long number, void *argument, const char *what)
{
    int result = ioctl(fd, number, argument);

    if (result < 0)
        die(what, strerror(errno));
    return result;
}

static bool is_pci(void)
{
    return !function_is_mmio(vmm.function.view);
}

/* ----- memory ----- */

static void *guest_map(void *ctx, uint64_t address, uint32_t length)
{
    (void)ctx;
    if (address > VMM_RAM || length > VMM_RAM - address)
        return NULL;
    return vmm.ram + address;
}

/* Linear addresses are physical ones; the guest needs no segments but those of its interrupts. */
static void make_tables(void)
{
    static const uint64_t segments[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};
    uint64_t *tables = (uint64_t *)(void *)(vmm.ram + TABLES);
    const uint64_t present = 3, large = 0x80, per_table = 512;

    memcpy(vmm.ram + SEGMENTS, segments, sizeof(segments));
    tables[0] = (TABLES + 0x1000) | present;
    for (uint64_t i = 0; i < 4; i++)
        tables[per_table + i] = (TABLES + (2 + i) * 0x1000) | present;
    for (uint64_t i = 0; i < 4 * per_table; i++)
        tables[2 * per_table + i] = i << 21 | large | present;
}

static void make_memory(void)
{
    struct kvm_userspace_memory_region slot = {.memory_size = VMM_RAM};
    void *ram = mmap(NULL, VMM_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (ram == MAP_FAILED)
        die("guest memory", strerror(errno));
    vmm.ram = (uint8_t *)ram;
    slot.userspace_addr = (uintptr_t)ram;
    request(vmm.vm, KVM_SET_USER_MEMORY_REGION, &slot, "guest memory");
    make_tables();
}

/* Puts one segment of the guest's file where it belongs. */
static void load_segment(const char *path, FILE *file, const Elf64_Phdr *segment)
{
    if (segment->p_type != PT_LOAD || segment->p_memsz == 0)
        return;
    if (segment->p_paddr < GUEST_START || segment->p_paddr > VMM_RAM ||
        segment->p_memsz > VMM_RAM - segment->p_paddr || segment->p_filesz > segment->p_memsz)
        die(path, "a segment does not fit into guest memory");
    if (segment->p_filesz != 0 &&
        (fseek(file, (long)segment->p_offset, SEEK_SET) != 0 ||
         fread(vmm.ram + segment->p_paddr, segment->p_filesz, 1, file) != 1))
        die(path, "is cut short");
}

/* Where a bare-metal image wants to start, in protected mode: the note of PVH; 0: this is none. */
static uint32_t read_note(FILE *file, const Elf64_Phdr *segment)
{
    enum { PVH_ENTRY = 18 };
    struct {
        Elf64_Nhdr header;
        char name[4];
        uint32_t entry;
    } note;

    if (segment->p_type != PT_NOTE || segment->p_filesz < sizeof(note) ||
        fseek(file, (long)segment->p_offset, SEEK_SET) != 0 ||
        fread(&note, sizeof(note), 1, file) != 1)
        return 0;
    return note.header.n_type == PVH_ENTRY && memcmp(note.name, "Xen", 4) == 0 ? note.entry : 0;
}

static void load_guest(const char *path)
{
    FILE *file = fopen(path, "rb");
    Elf64_Phdr segment;
    Elf64_Ehdr header;
    uint32_t note = 0;

    if (file == NULL)
        die(path, strerror(errno));
    if (fread(&header, sizeof(header), 1, file) != 1 ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != EM_X86_64 ||
        header.e_phentsize != sizeof(segment))
        die(path, "is no x86-64 ELF file");
    for (unsigned i = 0; i < header.e_phnum; i++) {
        if (fseek(file, (long)(header.e_phoff + i * sizeof(segment)), SEEK_SET) != 0 ||
            fread(&segment, sizeof(segment), 1, file) != 1)
            die(path, "is cut short");
        load_segment(path, file, &segment);
        if (note == 0)
            note = read_note(file, &segment);
    }
    fclose(file);
    vmm.bare_metal = note != 0;
    vmm.entry = note != 0 ? note : header.e_entry;
}

/* ----- the processor ----- */

static void tell_cpuid(void)
{
    enum { ENTRIES = 256 };
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ENTRIES * sizeof(cpuid->entries[0]));

    if (cpuid == NULL)
        die("CPUID", strerror(ENOMEM));
    cpuid->nent = ENTRIES;
    request(vmm.kvm, KVM_GET_SUPPORTED_CPUID, cpuid, "CPUID");
    request(vmm.vcpu, KVM_SET_CPUID2, cpuid, "CPUID");
    free(cpuid);
}

/* Straight into 64-bit mode. */
static void set_long_mode(struct kvm_sregs *sregs)
{
    sregs->cs.l = 1;
    sregs->gdt.base = SEGMENTS;
    sregs->gdt.limit = 3 * 8 - 1;
    sregs->cr0 = 0x80000031; /* PG, NE, ET, PE */
    sregs->cr3 = TABLES;
    sregs->cr4 = 0x20;   /* PAE */
    sregs->efer = 0x500; /* LMA, LME */
}

/* As PVH wants it; the boards look for no start info. */
static void set_protected_mode(struct kvm_sregs *sregs)
{
    sregs->cs.db = 1;
    sregs->cr0 = 0x11; /* ET, PE */
}

/* At the guest's first instruction; ours gets what it has to know as the argument of a function. */
static void start_processor(void)
{
    struct kvm_segment code = {.limit = UINT32_MAX, .selector = VMM_CODE_SEGMENT, .type = 11,
                               .present = 1, .s = 1, .g = 1};
    struct kvm_segment data = {.limit = UINT32_MAX, .selector = VMM_DATA_SEGMENT, .type = 3,
                               .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_regs regs = {.rip = vmm.entry, .rsp = STACK_END - 8 /* as after a call */,
                            .rflags = 2,
                            .rdi = (is_pci() ? (unsigned)VMM_GUEST_PCI : 0) |
                                   (vmm.line ? (unsigned)VMM_GUEST_LINE : 0)};
    struct kvm_sregs sregs;

    request(vmm.vcpu, KVM_GET_SREGS, &sregs, "registers");
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    if (vmm.bare_metal)
        set_protected_mode(&sregs);
    else
        set_long_mode(&sregs);
    request(vmm.vcpu, KVM_SET_SREGS, &sregs, "registers");
    request(vmm.vcpu, KVM_SET_REGS, &regs, "registers");
}

/* As firmware leaves them: the device's pin of the I/O APIC is a level, the local APIC is on. */
static void start_controllers(void)
{
    struct kvm_irqchip io = {.chip_id = KVM_IRQCHIP_IOAPIC};
    struct kvm_lapic_state local;
    const uint32_t enable = 0x1ff; /* and the spurious vector */
    const uint64_t level = 0x8000;

    request(vmm.vm, KVM_GET_IRQCHIP, &io, "I/O APIC");
    io.chip.ioapic.redirtbl[VMM_PIN].bits = level | VMM_VECTOR;
    request(vmm.vm, KVM_SET_IRQCHIP, &io, "I/O APIC");
    request(vmm.vcpu, KVM_GET_LAPIC, &local, "local APIC");
    memcpy(local.regs + 0xf0, &enable, sizeof(enable));
    request(vmm.vcpu, KVM_SET_LAPIC, &local, "local APIC");
}

static void make_processor(void)
{
    int size = request(vmm.kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "size of the shared page");
    void *run;

    vmm.vcpu = request(vmm.vm, KVM_CREATE_VCPU, NULL, "processor");
    run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vmm.vcpu, 0);
    if (run == MAP_FAILED)
        die("shared page", strerror(errno));
    vmm.run = (struct kvm_run *)run;
    tell_cpuid();
    start_controllers();
}

/* False: there is no KVM, and that has been said. */
static bool make_machine(void)
{
    struct kvm_pit_config timer = {.flags = 0};

    vmm.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vmm.kvm < 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return false;
    }
    vmm.vm = request(vmm.kvm, KVM_CREATE_VM, NULL, "VM");
    if (ioctl(vmm.vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0 && errno != EINVAL && errno != ENOTTY)
        die("TSS address", strerror(errno));
    request(vmm.vm, KVM_CREATE_IRQCHIP, NULL, "interrupt controllers");
    request(vmm.vm, KVM_CREATE_PIT2, &timer, "timer");
    make_memory();
    make_processor();
    return true;
}

/* ----- interrupts ----- */

static void signal_event(int event)
{
    const uint64_t one = 1;

    if (write(event, &one, sizeof(one)) != (ssize_t)sizeof(one))
        die("eventfd", strerror(errno));
}

/* Has it been signalled since the last time? */
static bool take_event(int event)
{
    uint64_t count;

    return read(event, &count, sizeof(count)) == (ssize_t)sizeof(count);
}

/* The line of the device. An irqfd only raises the pin; KVM lets go of it when the guest has ended
 * the interrupt, and then signals `ended`. */
static void device_line(void *ctx, bool level)
{
    struct kvm_irq_level pin = {.irq = VMM_PIN, .level = level};

    (void)ctx;
    vmm.interrupts += level;
    if (vmm.user_exits)
        request(vmm.vm, KVM_IRQ_LINE, &pin, "interrupt");
    else if (level)
        signal_event(vmm.interrupt);
}

/* The guest has ended the interrupt; there may be another reason by now. */
static void line_ended(void)
{
    (void)pthread_mutex_lock(&vmm.lock);
    if (vmm.function.dev.line)
        signal_event(vmm.interrupt);
    (void)pthread_mutex_unlock(&vmm.lock);
}

static void device_message(void *ctx, uint16_t vector)
{
    (void)ctx;
    msix_raise(&vmm.msix, vector);
}

static void send_message(void *ctx, uint16_t vector, const struct msix_message *message)
{
    struct kvm_msi msi = {.address_lo = (uint32_t)message->address,
                          .address_hi = (uint32_t)(message->address >> 32),
                          .data = message->data};

    (void)ctx;
    vmm.interrupts++;
    if (vmm.user_exits)
        (void)ioctl(vmm.vm, KVM_SIGNAL_MSI, &msi); /* to nobody, if the guest wants it so */
    else
        signal_event(vmm.message[vector]);
}

/* Tells KVM what the irqfds lead to: the pin, and the messages as the guest has written them. */
static void route_interrupts(void)
{
    struct kvm_irq_routing *routes =
        calloc(1, sizeof(*routes) + (1 + FUNCTION_VECTORS) * sizeof(routes->entries[0]));

    if (routes == NULL)
        die("interrupt routes", strerror(ENOMEM));
    routes->nr = 1 + FUNCTION_VECTORS;
    for (uint16_t vector = 0; vector < FUNCTION_VECTORS; vector++) {
        struct kvm_irq_routing_entry *route = &routes->entries[vector];
        struct msix_message message = msix_message(&vmm.msix, vector);

        route->gsi = MESSAGES_GSI + (uint32_t)vector;
        route->type = KVM_IRQ_ROUTING_MSI;
        route->u.msi.address_lo = (uint32_t)message.address;
        route->u.msi.address_hi = (uint32_t)(message.address >> 32);
        route->u.msi.data = message.data;
    }
    routes->entries[FUNCTION_VECTORS].gsi = VMM_PIN;
    routes->entries[FUNCTION_VECTORS].type = KVM_IRQ_ROUTING_IRQCHIP;
    routes->entries[FUNCTION_VECTORS].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    routes->entries[FUNCTION_VECTORS].u.irqchip.pin = VMM_PIN;
    request(vmm.vm, KVM_SET_GSI_ROUTING, routes, "interrupt routes");
    free(routes);
}

static int make_event(void)
{
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (event < 0)
        die("eventfd", strerror(errno));
    return event;
}

static void connect_interrupts(void)
{
    struct kvm_irqfd line = {.gsi = VMM_PIN, .flags = KVM_IRQFD_FLAG_RESAMPLE};

    vmm.interrupt = make_event();
    vmm.ended = make_event();
    line.fd = (uint32_t)vmm.interrupt;
    line.resamplefd = (uint32_t)vmm.ended;
    request(vmm.vm, KVM_IRQFD, &line, "irqfd");
    for (uint32_t vector = 0; vector < FUNCTION_VECTORS; vector++) {
        struct kvm_irqfd message = {.gsi = MESSAGES_GSI + vector};

        vmm.message[vector] = make_event();
        message.fd = (uint32_t)vmm.message[vector];
        request(vmm.vm, KVM_IRQFD, &message, "irqfd");
    }
    route_interrupts();
}

/* ----- the PCI bus: a host bridge, which is but an identity, and the device ----- */

/* Where the guest has put a BAR; 0: nowhere, or the device must not decode it. */
static uint64_t bar_address(unsigned bar)
{
    uint32_t command = function_pci_read32(&vmm.function, 0x04);
    uint32_t value = function_pci_read32(&vmm.function, (uint16_t)(0x10 + 4 * bar));
    bool port = (value & 1) != 0;

    if ((command & (port ? VIRTIO_PCI_COMMAND_IO : VIRTIO_PCI_COMMAND_MEMORY)) == 0)
        return 0;
    return value & (port ? ~UINT32_C(3) : ~UINT32_C(15));
}

/* Is all of an access in this BAR? */
static bool bar_has(unsigned bar, const struct access *access)
{
    uint64_t base = bar_address(bar), size = vmm.function.pci.bar_size[bar];
    bool port = (vmm.function.pci.config[0x10 + 4 * bar] & 1) != 0;

    return base != 0 && port == access->port && access->address >= base &&
           access->width <= size && access->address - base <= size - access->width;
}

static void msix_access(struct access *access, uint64_t offset)
{
    if (!access->write) {
        access->value = msix_read(&vmm.msix, offset, access->width);
        return;
    }
    msix_write(&vmm.msix, offset, access->width, access->value);
    if (!vmm.user_exits)
        route_interrupts();
    msix_settle(&vmm.msix);
}

static void bar_access(struct access *access, unsigned bar)
{
    struct virtio_dev_pci *pci = &vmm.function.pci;
    uint64_t offset = access->address - bar_address(bar);

    if (bar == FUNCTION_MODERN_BAR && offset - FUNCTION_MSIX_AT < MSIX_LENGTH)
        msix_access(access, offset - FUNCTION_MSIX_AT);
    else if (access->write)
        virtio_dev_pci_bar_write(pci, bar, offset, access->width, access->value);
    else
        access->value = virtio_dev_pci_bar_read(pci, bar, offset, access->width);
}

/* The event of a kick of queue 0 in one structure of the function; length 0 where none arrives. If
 * the queues share a register, its value tells them apart. */
static struct kvm_ioeventfd kick_event(const struct virtio_dev_place *place)
{
    const struct kvm_ioeventfd none = {.len = 0};
    struct kvm_ioeventfd event = {.len = 2, .fd = vmm.notified};
    uint64_t base = bar_address(place->bar);

    event.addr = base + place->offset;
    if (place->view == VIRTIO_VIEW_RFC_NOTIFY) {
        event.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
    } else if (place->view == VIRTIO_VIEW_LEGACY) {
        event.addr += VIRTIO_LEGACY_QUEUE_NOTIFY;
        event.flags = KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO;
    } else if (place->view != VIRTIO_VIEW_NOTIFY) {
        return none;
    }
    return base != 0 ? event : none;
}

static void connect_kick(struct kvm_ioeventfd *now, struct kvm_ioeventfd wanted)
{
    if (memcmp(now, &wanted, sizeof(wanted)) == 0)
        return;
    if (now->len != 0) {
        now->flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
        request(vmm.vm, KVM_IOEVENTFD, now, "ioeventfd");
    }
    if (wanted.len != 0)
        request(vmm.vm, KVM_IOEVENTFD, &wanted, "ioeventfd");
    *now = wanted;
}

/* The guest has written to configuration space: BARs may have moved, messages may go out now. */
static void function_changed(void)
{
    const struct virtio_dev_pci *pci = &vmm.function.pci;
    const uint8_t *control = &pci->config[pci->msix + 2];

    msix_control(&vmm.msix, (uint16_t)(control[0] | control[1] << 8));
    for (unsigned i = 0; i < pci->place_count && !vmm.user_exits; i++)
        connect_kick(&vmm.notify[i], kick_event(&pci->place[i]));
}

/* Configuration space of the function that is selected: offset 0 to 255, within a dword. */
static void config_access(struct access *access, unsigned offset)
{
    static const uint32_t bridge[] = {0x12378086, 0, 0x06000000 /* host bridge */};
    const uint32_t on = 0x80000000, device = on | VMM_PCI_SLOT << 11;
    uint32_t function = vmm.config_address & ~UINT32_C(0xff);

    if (function == on && !access->write) {
        access->value = offset / 4 < 3 ? bridge[offset / 4] >> offset % 4 * 8 : 0;
    } else if (function == device && !access->write) {
        access->value = virtio_dev_pci_read(&vmm.function.pci, offset, access->width);
    } else if (function == device) {
        virtio_dev_pci_write(&vmm.function.pci, offset, access->width, (uint32_t)access->value);
        function_changed();
    }
}

/* The ports of configuration mechanism 1: address, and data. */
static void config_port(struct access *access)
{
    unsigned byte = access->address & 3;

    if (access->address >= VMM_PORT_CONFIG_DATA && byte + access->width <= 4)
        config_access(access, (vmm.config_address & 0xfc) + byte);
    else if (access->address != VMM_PORT_CONFIG || access->width != 4)
        return;
    else if (access->write)
        vmm.config_address = (uint32_t)access->value;
    else
        access->value = vmm.config_address;
}

static void pci_access(struct access *access)
{
    if (access->port && access->address - VMM_PORT_CONFIG < 8) {
        config_port(access);
        return;
    }
    for (unsigned bar = 0; bar < 6; bar++) {
        if (bar_has(bar, access)) {
            bar_access(access, bar);
            return;
        }
    }
}

/* ----- the device ----- */

/* A PCI function that is not bus master must not reach memory. */
static bool device_may_work(void)
{
    return !is_pci() || (vmm.function.pci.config[4] & VIRTIO_PCI_COMMAND_MASTER) != 0;
}

/* One batch of requests, so that the other thread can have the device in between. */
static void device_kicked(void *ctx, uint16_t queue)
{
    struct virtio_dev *dev = &vmm.function.dev;
    bool irq;
    int rc;

    (void)ctx;
    vmm.kicks++;
    if (!device_may_work())
        return;
    do {
        rc = blkdev_serve(&vmm.disk, virtio_dev_ring(dev, queue), &irq);
        if (rc < 0)
            virtio_dev_needs_reset(dev);
        else if (irq)
            virtio_dev_interrupt(dev, queue);
    } while (rc > 0 && vmm.user_exits); /* the guest stands still meanwhile and adds nothing */
    if (rc > 0) /* nobody kicks for those that are left */
        signal_event(vmm.notified);
}

/* A kick that KVM caught, in whatever layout. */
static void kick_caught(void)
{
    (void)pthread_mutex_lock(&vmm.lock);
    virtio_dev_write(&vmm.function.dev, VIRTIO_VIEW_MMIO, VIRTIO_MMIO_REG_QUEUE_NOTIFY, 4, 0);
    (void)pthread_mutex_unlock(&vmm.lock);
}

/* The device's thread. A guest that never stops adding requests keeps it busy, and nobody else. */
static void *device_thread(void *unused)
{
    struct pollfd events[] = {{.fd = vmm.notified, .events = POLLIN},
                              {.fd = vmm.ended, .events = POLLIN}};

    while (poll(events, 2, -1) > 0 || errno == EINTR) {
        if (take_event(vmm.ended))
            line_ended();
        if (take_event(vmm.notified))
            kick_caught();
    }
    return unused;
}

static void connect_events(void)
{
    struct kvm_ioeventfd slot = {.addr = VMM_SLOT + VIRTIO_MMIO_REG_QUEUE_NOTIFY, .len = 4,
                                 .flags = KVM_IOEVENTFD_FLAG_DATAMATCH}; /* queue 0 */
    pthread_t thread;

    slot.fd = vmm.notified = make_event();
    connect_interrupts();
    if (!is_pci())
        connect_kick(&vmm.notify[0], slot);
    if (pthread_create(&thread, NULL, device_thread, NULL) != 0)
        die("thread", "not started");
}

static void make_device(void)
{
    static const struct virtio_dev_ops ops = {.map = guest_map, .kick = device_kicked,
                                              .line = device_line, .msix = device_message};
    struct virtio_dev *dev = &vmm.function.dev;

    memcpy(vmm.disk.id, "vmm-disk", 9);
    vmm.disk.map = guest_map;
    vmm.function.queue[0].max = QUEUE_SIZE;
    dev->ops = &ops;
    dev->device_type = BLOCK_DEVICE;
    dev->queue_count = 1;
    dev->config_length = BLKDEV_CONFIG_SIZE;
    virtio_features_add(&dev->offered, BLKDEV_FEATURE_FLUSH);
    virtio_features_add(&dev->offered, VIRTIO_FEATURE_INDIRECT_DESC);
    virtio_features_add(&dev->offered, VIRTIO_FEATURE_EVENT_IDX);
    if (!vmm.split)
        virtio_features_add(&dev->offered, VIRTIO_FEATURE_RING_PACKED);
    blkdev_config(&vmm.disk, vmm.function.config);
    vmm.msix.count = FUNCTION_VECTORS;
    vmm.msix.send = send_message;
    msix_init(&vmm.msix);
    if (function_init(&vmm.function) != 0)
        die("device", "not made");
    if (is_pci()) /* there was no firmware: BARs and commands are the guest's */
        virtio_dev_pci_reset(&vmm.function.pci);
    if (!vmm.user_exits)
        connect_events();
}

static void open_disk(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;
    void *data;

    if (fd < 0 || fstat(fd, &st) != 0)
        die(path, strerror(errno));
    if (st.st_size < BLKDEV_SECTOR || st.st_size % BLKDEV_SECTOR != 0)
        die(path, "size is not a whole number of sectors (512 bytes)");
    data = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        die(path, strerror(errno));
    (void)close(fd);
    vmm.disk.data = (uint8_t *)data;
    vmm.disk.size = (uint64_t)st.st_size;
}

/* ----- running ----- */

static void slot_access(struct access *access)
{
    uint64_t offset = access->address - VMM_SLOT;

    if (access->port || access->address < VMM_SLOT || offset >= VMM_SLOT_LENGTH ||
        access->width > 4)
        return;
    if (access->write)
        virtio_dev_write(&vmm.function.dev, VIRTIO_VIEW_MMIO, offset, access->width, access->value);
    else
        access->value = virtio_dev_read(&vmm.function.dev, VIRTIO_VIEW_MMIO, offset, access->width);
}

/* Elsewhere there is nothing: a load gets ones. */
static void serve(struct access *access, uint8_t *data)
{
    unsigned long kicks;

    access->value = access->write ? 0 : UINT64_MAX;
    if (access->write)
        memcpy(&access->value, data, access->width);
    (void)pthread_mutex_lock(&vmm.lock);
    kicks = vmm.kicks;
    if (is_pci())
        pci_access(access);
    else
        slot_access(access);
    vmm.kick_exits += vmm.kicks - kicks;
    (void)pthread_mutex_unlock(&vmm.lock);
    if (!access->write)
        memcpy(data, &access->value, access->width);
}

static void serve_mmio(void)
{
    struct kvm_run *run = vmm.run;
    struct access access = {.address = run->mmio.phys_addr, .width = run->mmio.len,
                            .write = run->mmio.is_write};

    serve(&access, run->mmio.data);
}

/* One access to a port: -1, or the exit status that the guest ends with. A bare-metal image prints to
 * the UART of a PC, and ends with QEMU's isa-debug-exit. */
static int access_port(uint8_t *data)
{
    enum { UART = 0x3f8, UART_STATUS = UART + 5, UART_EMPTY = 0x60, FIRST_STATUS = 16 };

    const struct kvm_run *run = vmm.run;
    struct access access = {.address = run->io.port, .width = run->io.size, .port = true,
                            .write = run->io.direction == KVM_EXIT_IO_OUT};

    if (access.write && run->io.port == VMM_PORT_END)
        return vmm.bare_metal ? (uint8_t)(*data - FIRST_STATUS) : *data;
    if (access.write && run->io.port == (vmm.bare_metal ? UART : VMM_PORT_PRINT))
        putchar(*data);
    else if (!access.write && run->io.port == UART_STATUS)
        *data = UART_EMPTY;
    else
        serve(&access, data);
    return -1;
}

/* Of a string instruction KVM may have several in one exit. */
static int serve_port(void)
{
    const struct kvm_run *run = vmm.run;
    uint8_t *data = (uint8_t *)vmm.run + run->io.data_offset;
    int status = -1;

    for (uint32_t i = 0; i < run->io.count && status < 0; i++, data += run->io.size)
        status = access_port(data);
    return status;
}

static int run_guest(void)
{
    int status = -1;

    while (status < 0) {
        if (ioctl(vmm.vcpu, KVM_RUN, 0) < 0) {
            if (errno == EINTR)
                continue;
            die("guest", strerror(errno));
        }
        vmm.exits++;
        if (vmm.run->exit_reason == KVM_EXIT_IO)
            status = serve_port();
        else if (vmm.run->exit_reason == KVM_EXIT_MMIO)
            serve_mmio();
        else {
            fprintf(stderr, "vmm: the guest stopped with exit reason %u\n", vmm.run->exit_reason);
            return 1;
        }
    }
    return status;
}

/* ----- the command line ----- */

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: vmm [OPTION...] GUEST IMAGE\n"
            "Runs GUEST (build/vmm-guest.elf) on KVM with IMAGE as the disk of a virtio block\n"
            "device. The guest copies the first half of the disk onto the second. Or GUEST is a\n"
            "bare-metal image for a PC of QEMU (build/boards/x86/blk.elf), with the disk on PCI.\n"
            "  --transport NAME  mmio (virtio-mmio, without this option), pci, pci-legacy or\n"
            "                    pci-rfc2011\n"
            "  --user-exits      notifies and interrupts without ioeventfd and irqfd\n"
            "  --line            build/vmm-guest.elf takes no MSI-X, but the line of PCI\n"
            "  --split           the device offers no packed ring\n"
            "  --help            this text\n"
            "Exit status: that of the guest; 77 where there is no KVM.\n");
    return status;
}

static const struct {
    const char *name;
    enum function_view view;
} transports[] = {{"mmio", FUNCTION_MMIO},
                  {"pci", FUNCTION_PCI_MODERN},
                  {"pci-legacy", FUNCTION_PCI_LEGACY},
                  {"pci-rfc2011", FUNCTION_PCI_RFC2011}};
enum { TRANSPORTS = sizeof(transports) / sizeof(transports[0]) };

static bool set_transport(const char *name)
{
    for (unsigned i = 0; i < TRANSPORTS; i++) {
        if (strcmp(name, transports[i].name) == 0) {
            vmm.function.view = transports[i].view;
            return true;
        }
    }
    return false;
}

/* Sets the options; the number of the first argument behind them, or 0. */
static int parse(int argc, char **argv)
{
    int at = 1;

    vmm.function.view = FUNCTION_MMIO;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--user-exits") == 0)
            vmm.user_exits = true;
        else if (strcmp(argv[at], "--line") == 0)
            vmm.line = true;
        else if (strcmp(argv[at], "--split") == 0)
            vmm.split = true;
        else if (strcmp(argv[at], "--transport") != 0 || ++at == argc || !set_transport(argv[at]))
            return 0;
    }
    return argc - at == 2 ? at : 0;
}

int main(int argc, char **argv)
{
    int at, status;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    at = parse(argc, argv);
    if (at == 0)
        return usage(stderr, 2);
    if (!make_machine())
        return SKIPPED;
    load_guest(argv[at]);
    open_disk(argv[at + 1]);
    make_device();
    start_processor();
    status = run_guest();
    (void)pthread_mutex_lock(&vmm.lock); /* for good: the device's thread does nothing more */
    printf("%s: %llu requests, %lu kicks (%lu exits), %lu interrupts, %lu exits in all\n",
           vmm.user_exits ? "user exits" : "ioeventfd and irqfd",
           (unsigned long long)vmm.disk.served, vmm.kicks, vmm.kick_exits, vmm.interrupts,
           vmm.exits);
    return status;
}
#endif
