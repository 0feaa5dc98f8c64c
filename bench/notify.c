// SPDX-License-Identifier: MIT-0
/*
 * What a notify and an interrupt cost: a VM of its own on /dev/kvm, without QEMU, whose guest does one
 * kind of register access in a loop.
 *
 *     notify [--quick]
 *
 * Prints lines `suite,case,unit,value`. ns is the host's CLOCK_MONOTONIC from entering the guest to the
 * end of its loop, less the same for the loop without the access, for one iteration; of each the fastest
 * of many short rounds, as whatever else the host does only makes them slower. exits is how often an
 * iteration came to this program, which only counts it. x is ns as a multiple of kvm/pio/ioeventfd. What
 * arrived, here and at each eventfd, must be what was sent, else the status is 1. The guest is
 * notify_guest.c.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <string.h>

static int usage(const char *argument)
{
    if (strcmp(argument, "--help") != 0) {
        fprintf(stderr, "notify: unknown argument \"%s\"; see --help\n", argument);
        return 1;
    }
    printf("usage: notify [--quick]\n"
           "What each kind of virtio notify and interrupt costs in a KVM guest without a system.\n"
           "Prints lines `suite,case,unit,value`; --quick measures for a shorter time.\n");
    return 0;
}

#ifdef __x86_64__
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "notify_guest.h"

#define REGISTERS UINT32_C(0xd0000000) /* of case n in page n, or 16 ports each */
#define LENGTH_OF(array) (sizeof(array) / sizeof((array)[0]))

enum {
    PORTS = 0x1000,
    PAGE = 4096,
    IMAGE = 0x100000, /* guest-physical address of this program */
    IMAGE_MAX = 0x1000000,
    TABLES = 24,
    STACK = 16384,
    CODE_SEGMENT = 0x08,
    DATA_SEGMENT = 0x10,
    QUEUES = 8,        /* of a device whose queues share a register */
    FIRST_VECTOR = 0x40,
    FIRST_PIN = 20,    /* of the I/O APIC; there is nothing else on it */
    MSI = 32,          /* the interrupt that is routed to a message; none of the I/O APIC's pins */
    FIRST_COUNT = 16,
    COUNT_MAX = 1 << 22,
    EMULATED_NS = 50,  /* an iteration of the empty loop that takes longer is interpreted */
    SLICE = 2000000,   /* nanoseconds that a round has to last at least */
    ROUNDS = 40,
    ROUNDS_QUICK = 10,
    SECONDS_MAX = 120  /* a guest that does not end by then never will */
};

/* Where an access goes. */
enum target { PORT, MMIO, CFG_CF8, CFG_ECAM };

/* What notices it: this program; an eventfd that matches the address alone, its length as well, or the
 * value too; an eventfd, but the device's event index keeps the driver from it. */
enum event { USER, ANY, LENGTH, MATCH, NEVER };

/* The interrupt that the eventfd causes. */
enum irq { NO_IRQ, IRQ_MSIX, IRQ_ISR, IRQ_MMIO };

/* A way to notify or to take an interrupt. */
struct way {
    const char *name; /* suite and case */
    guest_program *program;
    enum target target;
    uint8_t width; /* of the access, bytes */
    enum event event;
    uint8_t exits; /* to this program in an iteration */
    bool data;     /* NOTIFICATION_DATA: the value changes */
    enum irq irq;
};

/* The others are compared with the first one; interrupts use its register for a notify without one. */
static const struct way ways[] = {
    {"notify,kvm/pio/ioeventfd", guest_port_write16, PORT, 2, LENGTH, 0, false, NO_IRQ},
    {"notify,kvm/pio/ioeventfd/datamatch", guest_port_write16, PORT, 2, MATCH, 0, false, NO_IRQ},
    {"notify,kvm/pio/user", guest_port_write16, PORT, 2, USER, 1, false, NO_IRQ},
    {"notify,kvm/mmio/ioeventfd/2", guest_mmio_write16, MMIO, 2, LENGTH, 0, false, NO_IRQ},
    {"notify,kvm/mmio/ioeventfd/2/datamatch", guest_mmio_write16, MMIO, 2, MATCH, 0, false, NO_IRQ},
    {"notify,kvm/mmio/ioeventfd/4", guest_mmio_write32, MMIO, 4, LENGTH, 0, false, NO_IRQ},
    {"notify,kvm/mmio/ioeventfd/4/datamatch", guest_mmio_write32, MMIO, 4, MATCH, 0, false, NO_IRQ},
    {"notify,kvm/mmio/ioeventfd/any", guest_mmio_write16, MMIO, 2, ANY, 0, false, NO_IRQ},
    {"notify,kvm/mmio/user", guest_mmio_write16, MMIO, 2, USER, 1, false, NO_IRQ},
    {"notify,kvm/kick/suppressed", guest_kick, PORT, 2, NEVER, 0, false, NO_IRQ},
    {"notify,kvm/kick/pci-legacy", guest_kick, PORT, 2, MATCH, 0, false, NO_IRQ},
    {"notify,kvm/kick/pci-modern-pio", guest_kick, PORT, 2, LENGTH, 0, false, NO_IRQ},
    {"notify,kvm/kick/pci-modern", guest_kick, MMIO, 2, LENGTH, 0, false, NO_IRQ},
    {"notify,kvm/kick/pci-modern/any", guest_kick, MMIO, 2, ANY, 0, false, NO_IRQ},
    {"notify,kvm/kick/pci-modern/data", guest_kick, MMIO, 4, USER, 1, true, NO_IRQ},
    {"notify,kvm/kick/pci-modern/data-lost", guest_kick, MMIO, 4, LENGTH, 0, true, NO_IRQ},
    {"notify,kvm/kick/virtio-mmio", guest_kick, MMIO, 4, MATCH, 0, false, NO_IRQ},
    {"notify,kvm/kick/virtio-mmio/data", guest_kick, MMIO, 4, USER, 1, true, NO_IRQ},
    {"notify,kvm/kick/pci-cfg/cf8", guest_kick, CFG_CF8, 2, USER, 8, false, NO_IRQ},
    {"notify,kvm/kick/pci-cfg/ecam", guest_kick, CFG_ECAM, 2, USER, 4, false, NO_IRQ},
    {"irq,kvm/isr/pio", guest_port_isr, PORT, 1, USER, 1, false, NO_IRQ},
    {"irq,kvm/isr/mmio", guest_mmio_isr, MMIO, 1, USER, 1, false, NO_IRQ},
    {"irq,kvm/virtio-mmio/status-ack", guest_status_ack, MMIO, 4, USER, 2, false, NO_IRQ},
    {"irq,kvm/irqfd/msi-x", guest_round_trip, PORT, 2, LENGTH, 0, false, IRQ_MSIX},
    {"irq,kvm/irqfd/line/isr", guest_round_trip, PORT, 2, LENGTH, 1, false, IRQ_ISR},
    {"irq,kvm/irqfd/line/status-ack", guest_round_trip, PORT, 2, LENGTH, 2, false, IRQ_MMIO},
};

/* One of them, connected and measured. */
struct trial {
    const struct way *way;
    struct virtio_window window;
    struct virtio_window isr; /* what the handler of its interrupt accesses */
    int fd;                   /* its eventfd, or -1 */
    uint32_t count;           /* iterations in a round */
    double base, best;        /* nanoseconds of the fastest rounds, without and with the access */
};
static struct trial trials[LENGTH_OF(ways)];

static struct {
    int kvm, vm, vcpu;
    struct kvm_run *run;
    bool irqchip;
    int others;     /* the eventfd of queues that nobody kicks */
    uint64_t exits; /* of the last run */
} machine;

/* An entry of the interrupt descriptor table. */
struct gate {
    uint16_t offset0;
    uint16_t segment;
    uint16_t type;
    uint16_t offset16;
    uint32_t offset32;
    uint32_t reserved;
};

/* Memory of the guest that only the processor knows of. */
static _Alignas(PAGE) uint64_t tables[TABLES][PAGE / 8];
static _Alignas(16) uint8_t stack[STACK];
static uint64_t segments[3] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};
static struct gate gates[FIRST_VECTOR + 3];
extern char __executable_start[], end[]; /* the linker's: this program in memory */

__attribute__((noreturn)) static void die(const char *what, const char *why)
{
    fprintf(stderr, "notify: %s: %s\n", what, why);
    exit(1);
}

static int request(int fd, unsigned long number, void *argument, const char *what)
{
    int result = ioctl(fd, number, argument);

    if (result < 0)
        die(what, strerror(errno));
    return result;
}

/* ---- guest memory ---- */

static uint64_t image_start(void)
{
    return (uintptr_t)__executable_start & ~(uint64_t)(PAGE - 1);
}

static uint64_t physical(const void *address)
{
    return (uintptr_t)address - image_start() + IMAGE;
}

/* Maps one page of guest-linear addresses. */
static void map(uint64_t linear, uint64_t to)
{
    static unsigned used = 1; /* the first one is the root */
    uint64_t *table = tables[0];

    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t *entry = &table[linear >> shift & 511];

        if (*entry == 0) {
            if (used == TABLES)
                die("page tables", "too few");
            *entry = physical(tables[used++]) | 3; /* present, writable */
        }
        table = tables[((*entry & ~(uint64_t)(PAGE - 1)) - physical(tables)) / PAGE];
    }
    table[linear >> 12 & 511] = to | 3;
}

/* This program, wherever it is in the host, is at the same linear addresses in the guest. */
static void make_memory(void)
{
    uint64_t length = ((uintptr_t)end - image_start() + PAGE - 1) & ~(uint64_t)(PAGE - 1);
    struct kvm_userspace_memory_region slot = {.guest_phys_addr = IMAGE,
                                               .memory_size = length,
                                               .userspace_addr = image_start()};

    if (length > IMAGE_MAX)
        die("guest memory", "this program is too large");
    request(machine.vm, KVM_SET_USER_MEMORY_REGION, &slot, "guest memory");
    for (uint64_t at = 0; at < length; at += PAGE)
        map(image_start() + at, IMAGE + at);
    for (unsigned i = 0; i < LENGTH_OF(ways); i++)
        map(REGISTERS + i * PAGE, REGISTERS + i * PAGE);
    map(GUEST_ECAM, GUEST_ECAM);
    map(GUEST_APIC, GUEST_APIC);
}

/* ---- the processor ---- */

/* Straight into 64-bit mode, with interrupts through `gates`. */
static void start_processor(void)
{
    struct kvm_segment code = {.limit = UINT32_MAX, .selector = CODE_SEGMENT, .type = 11,
                               .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {.limit = UINT32_MAX, .selector = DATA_SEGMENT, .type = 3,
                               .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_sregs sregs;

    request(machine.vcpu, KVM_GET_SREGS, &sregs, "registers");
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt.base = (uintptr_t)segments;
    sregs.gdt.limit = sizeof(segments) - 1;
    sregs.idt.base = (uintptr_t)gates;
    sregs.idt.limit = sizeof(gates) - 1;
    sregs.cr0 = 0x80000031; /* PG, NE, ET, PE */
    sregs.cr3 = physical(tables);
    sregs.cr4 = 0x20;   /* PAE */
    sregs.efer = 0x500; /* LMA, LME */
    request(machine.vcpu, KVM_SET_SREGS, &sregs, "registers");
}

static void tell_cpuid(void)
{
    enum { ENTRIES = 256 };
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ENTRIES * sizeof(cpuid->entries[0]));

    if (cpuid == NULL)
        die("CPUID", strerror(ENOMEM));
    cpuid->nent = ENTRIES;
    request(machine.kvm, KVM_GET_SUPPORTED_CPUID, cpuid, "CPUID");
    request(machine.vcpu, KVM_SET_CPUID2, cpuid, "CPUID");
    free(cpuid);
}

static void make_processor(void)
{
    int size = request(machine.kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "size of the shared page");

    machine.vcpu = request(machine.vm, KVM_CREATE_VCPU, NULL, "processor");
    machine.run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, machine.vcpu, 0);
    if (machine.run == MAP_FAILED)
        die("shared page", strerror(errno));
    tell_cpuid();
    start_processor();
}

/* ---- interrupts ---- */

static void make_gate(unsigned vector, void (*handler)(struct guest_frame *frame))
{
    uintptr_t entry = (uintptr_t)handler;
    struct gate gate = {.offset0 = (uint16_t)entry, .segment = CODE_SEGMENT, .type = 0x8e00,
                        .offset16 = (uint16_t)(entry >> 16), .offset32 = (uint32_t)(entry >> 32)};

    gates[vector] = gate;
}

static uint32_t gsi_of(enum irq irq)
{
    return irq == IRQ_MSIX ? (uint32_t)MSI : FIRST_PIN + (uint32_t)(irq - IRQ_ISR);
}

static unsigned vector_of(enum irq irq)
{
    return FIRST_VECTOR + (unsigned)(irq - IRQ_MSIX);
}

/* A message, and two pins of the I/O APIC; the old controllers are not connected. */
static void route(void)
{
    struct kvm_irq_routing *routing = calloc(1, sizeof(*routing) + 3 * sizeof(routing->entries[0]));

    if (routing == NULL)
        die("interrupt routes", strerror(ENOMEM));
    routing->nr = 3;
    for (enum irq irq = IRQ_MSIX; irq <= IRQ_MMIO; irq++) {
        struct kvm_irq_routing_entry *entry = &routing->entries[irq - IRQ_MSIX];

        entry->gsi = gsi_of(irq);
        if (irq == IRQ_MSIX) {
            entry->type = KVM_IRQ_ROUTING_MSI;
            entry->u.msi.address_lo = GUEST_APIC;
            entry->u.msi.data = vector_of(irq);
        } else {
            entry->type = KVM_IRQ_ROUTING_IRQCHIP;
            entry->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
            entry->u.irqchip.pin = entry->gsi;
        }
    }
    request(machine.vm, KVM_SET_GSI_ROUTING, routing, "interrupt routes");
    free(routing);
}

/* The pins are edge-triggered: the pulse of an irqfd. */
static void start_controllers(void)
{
    struct kvm_irqchip io = {.chip_id = KVM_IRQCHIP_IOAPIC};
    struct kvm_lapic_state local;
    const uint32_t enable = 0x1ff; /* and the spurious vector */

    request(machine.vm, KVM_GET_IRQCHIP, &io, "I/O APIC");
    for (enum irq irq = IRQ_ISR; irq <= IRQ_MMIO; irq++)
        io.chip.ioapic.redirtbl[gsi_of(irq)].bits = vector_of(irq);
    request(machine.vm, KVM_SET_IRQCHIP, &io, "I/O APIC");
    request(machine.vcpu, KVM_GET_LAPIC, &local, "local APIC");
    memcpy(local.regs + 0xf0, &enable, sizeof(enable));
    request(machine.vcpu, KVM_SET_LAPIC, &local, "local APIC");
    make_gate(vector_of(IRQ_MSIX), guest_irq_msix);
    make_gate(vector_of(IRQ_ISR), guest_irq_isr);
    make_gate(vector_of(IRQ_MMIO), guest_irq_mmio);
}

/* ---- registers ---- */

static int make_eventfd(void)
{
    int fd = eventfd(0, EFD_NONBLOCK);

    if (fd < 0)
        die("eventfd", strerror(errno));
    return fd;
}

static void connect_event(const struct trial *trial, int fd, uint16_t value)
{
    const struct way *way = trial->way;
    struct kvm_ioeventfd event = {.addr = trial->window.base,
                                  .len = way->event == ANY ? 0 : way->width,
                                  .fd = fd,
                                  .datamatch = value};

    if (way->target == PORT)
        event.flags |= KVM_IOEVENTFD_FLAG_PIO;
    if (way->event == MATCH)
        event.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
    request(machine.vm, KVM_IOEVENTFD, &event, way->name);
}

/* A register whose eventfds match values belongs to several queues: the last one is kicked. */
static uint16_t queue_of(const struct way *way)
{
    return way->event == MATCH ? QUEUES - 1 : 0;
}

static void connect_irq(const struct trial *trial)
{
    struct kvm_irqfd interrupt = {.fd = (uint32_t)trial->fd, .gsi = gsi_of(trial->way->irq)};

    request(machine.vm, KVM_IRQFD, &interrupt, trial->way->name);
}

/* False: not in this VM. */
static bool make_trial(struct trial *trial, const struct way *way, unsigned number)
{
    struct virtio_window port = {PORTS + 16 * number, 8, VIRTIO_WINDOW_PORT, NULL, NULL};
    struct virtio_window mmio = {REGISTERS + PAGE * number, PAGE, VIRTIO_WINDOW_MMIO, NULL, NULL};

    if (way->irq != NO_IRQ && !machine.irqchip)
        return false;
    trial->way = way;
    trial->window = way->target == PORT ? port : mmio;
    port.base += 8;
    trial->isr = way->irq == IRQ_ISR ? port : mmio;
    trial->fd = -1;
    if (way->event == USER)
        return true;
    trial->fd = make_eventfd();
    connect_event(trial, trial->fd, queue_of(way));
    for (uint16_t queue = 0; queue < queue_of(way); queue++)
        connect_event(trial, machine.others, queue);
    if (way->irq != NO_IRQ)
        connect_irq(trial);
    return true;
}

/* False: there is no KVM, and that has been said. */
static bool make_machine(void)
{
    machine.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (machine.kvm < 0) {
        if (errno == ENOENT)
            printf("# skipped notify/kvm: no /dev/kvm\n");
        else
            printf("# skipped notify/kvm: /dev/kvm: %s\n", strerror(errno));
        return false;
    }
    machine.vm = request(machine.kvm, KVM_CREATE_VM, NULL, "VM");
    if (ioctl(machine.vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0 && errno != EINVAL && errno != ENOTTY)
        die("TSS address", strerror(errno));
    machine.irqchip = ioctl(machine.vm, KVM_CREATE_IRQCHIP, 0) == 0;
    if (!machine.irqchip)
        printf("# skipped irq/kvm/irqfd: no interrupt controllers in KVM: %s\n", strerror(errno));
    machine.others = make_eventfd();
    make_memory();
    make_processor();
    if (machine.irqchip) {
        start_controllers();
        route();
    }
    return true;
}

/* ---- runs ---- */

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* One access that came here: a device would act on it. Reads answer 1. False: the guest is done. */
static bool serve_exit(const char *name)
{
    struct kvm_run *run = machine.run;
    char text[64];

    machine.exits++;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        if (run->io.port == GUEST_DONE)
            return false;
        if (run->io.direction == KVM_EXIT_IO_IN)
            memset((char *)run + run->io.data_offset, 1, run->io.size);
        return true;
    case KVM_EXIT_MMIO:
        if (!run->mmio.is_write)
            memset(run->mmio.data, 1, run->mmio.len);
        return true;
    default:
        snprintf(text, sizeof(text), "the guest stopped with exit reason %u", run->exit_reason);
        die(name, text);
    }
}

/* Nanoseconds from the start of a program to its end. */
static double run(const char *name, guest_program *program)
{
    struct kvm_regs regs = {.rip = (uintptr_t)program,
                            .rsp = (uintptr_t)stack + sizeof(stack) - 8, /* as after a call */
                            .rflags = 0x202};                            /* interrupts */
    double begin;

    request(machine.vcpu, KVM_SET_REGS, &regs, "registers");
    machine.exits = 0;
    begin = now_ns();
    do {
        if (ioctl(machine.vcpu, KVM_RUN, 0) < 0)
            die(name, strerror(errno));
    } while (serve_exit(name));
    machine.exits--; /* the last one */
    return now_ns() - begin;
}

static uint64_t signals(int fd)
{
    uint64_t count = 0;

    if (fd >= 0 && read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        die("eventfd", strerror(errno));
    return count;
}

static void expect(const char *name, const char *what, uint64_t got, uint64_t expected)
{
    if (got == expected)
        return;
    fprintf(stderr, "notify: %s: %llu %s, and %llu were to come\n", name, (unsigned long long)got,
            what, (unsigned long long)expected);
    exit(1);
}

/* Where a kick goes, as the transports resolve it. */
static void prepare_kick(const struct trial *trial)
{
    const struct way *way = trial->way;
    struct virtio_notify notify = {.address = trial->window.base,
                                   .value = queue_of(way),
                                   .data_mask = way->data ? 0xffff : 0,
                                   .kind = trial->window.kind,
                                   .width = way->width};

    guest.queue.notify = notify;
    if (way->target == CFG_CF8 || way->target == CFG_ECAM)
        guest_pci_cfg_setup(way->target == CFG_ECAM);
}

/* All that a program is told. */
static void prepare(const struct trial *trial)
{
    const struct way *way = trial->way;

    if (guest_queue_setup(way->event == NEVER ? GUEST_KICK_SUPPRESSED : GUEST_KICK_NEEDED) != 0)
        die(way->name, "the ring was refused");
    prepare_kick(trial);
    guest.count = trial->count;
    guest.window = trial->window;
    guest.isr = trial->isr;
    guest.value = queue_of(way);
    guest.interrupts = 0;
    guest.lost = false;
}

/* The loop with the access; everything must arrive. */
static double run_trial(const struct trial *trial)
{
    const struct way *way = trial->way;
    bool irq = way->irq != NO_IRQ; /* KVM takes its signals */
    bool signalled = way->event != USER && way->event != NEVER && !irq;
    double ns;

    prepare(trial);
    ns = run(way->name, way->program);
    if (guest.lost)
        die(way->name, "an interrupt did not come");
    expect(way->name, "exits", machine.exits, (uint64_t)trial->count * way->exits);
    expect(way->name, "signals", signals(trial->fd), signalled ? trial->count : 0);
    expect(way->name, "signals of other queues", signals(machine.others), 0);
    expect(way->name, "interrupts", guest.interrupts, irq ? trial->count : 0);
    return ns;
}

/* The loop without it. That of an interrupt still has a notify, which causes none. */
static double run_base(const struct trial *trial)
{
    const struct way *way = trial->way;
    bool irq = way->irq != NO_IRQ;
    guest_program *base = way->program == guest_kick ? guest_publish : guest_loop;
    double ns;

    prepare(trial);
    guest.window = trials[0].window;
    ns = run(way->name, irq ? guest_port_write16 : base);
    expect(way->name, "exits", machine.exits, 0);
    expect(way->name, "signals", signals(trials[0].fd), irq ? trial->count : 0);
    return ns;
}

static void choose_count(struct trial *trial)
{
    trial->count = FIRST_COUNT;
    while (trial->count < COUNT_MAX && run_trial(trial) < SLICE)
        trial->count *= 2;
}

/* One after the other, and all of them again, so that each has the machine at its best some time. */
static void measure(unsigned count, unsigned rounds)
{
    for (unsigned i = 0; i < count; i++) {
        choose_count(&trials[i]);
        trials[i].base = run_base(&trials[i]);
        trials[i].best = run_trial(&trials[i]);
    }
    for (unsigned round = 1; round < rounds; round++) {
        for (unsigned i = 0; i < count; i++) {
            double base = run_base(&trials[i]), all = run_trial(&trials[i]);

            trials[i].base = base < trials[i].base ? base : trials[i].base;
            trials[i].best = all < trials[i].best ? all : trials[i].best;
        }
    }
}

/* ---- results ---- */

static bool has_hardware(void)
{
    char line[4096];
    bool found = false;
    FILE *file = fopen("/proc/cpuinfo", "r");

    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL)
        found = strncmp(line, "flags", 5) == 0 &&
                (strstr(line, " vmx") != NULL || strstr(line, " svm") != NULL);
    if (file != NULL)
        fclose(file);
    return found;
}

/* The empty loop, and what it says about the processor. */
static void show_loop(void)
{
    const struct trial *trial = &trials[0];
    double ns = trial->base / trial->count;

    printf("notify,kvm/loop,ns,%.2f\n", ns);
    if (!has_hardware() || ns > EMULATED_NS)
        printf("# notify/kvm and irq/kvm: no VMX or SVM here, these are the costs of the emulator "
               "behind /dev/kvm\n");
}

/* Nanoseconds of one access. */
static double cost(const struct trial *trial)
{
    return (trial->best - trial->base) / trial->count;
}

static void show(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct way *way = trials[i].way;

        printf("%s,ns,%.1f\n", way->name, cost(&trials[i]));
        printf("%s,exits,%u\n", way->name, way->exits);
        printf("%s,x,%.3f\n", way->name, cost(&trials[i]) / cost(&trials[0]));
    }
    printf("irq,kvm/msi-x,exits,0\n"); /* the handler accesses no register */
}

static void out_of_time(int number)
{
    static const char text[] = "notify: the guest does not end\n";

    (void)number;
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    _exit(1);
}

int main(int argc, char **argv)
{
    bool quick = argc == 2 && strcmp(argv[1], "--quick") == 0;
    unsigned count = 0;

    if (argc > 1 && !quick)
        return usage(argv[1]);
    signal(SIGALRM, out_of_time);
    alarm(SECONDS_MAX);
    if (!make_machine())
        return 0;
    for (unsigned i = 0; i < LENGTH_OF(ways); i++)
        count += make_trial(&trials[count], &ways[i], i);
    measure(count, quick ? ROUNDS_QUICK : ROUNDS);
    show_loop();
    show(count);
    return 0;
}

#else

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--quick") != 0)
        return usage(argv[1]);
    printf("# skipped notify/kvm: its guest is x86-64\n");
    return 0;
}

#endif
