// SPDX-License-Identifier: MIT-0
/*
 * A small virtual machine monitor: one processor, some RAM, one virtio-mmio block device of this
 * library, and a guest of its own that works on the disk (vmm_guest.c).
 *
 * The processor runs on one thread, the device on another: notifies go to it as an ioeventfd, its
 * interrupts to the guest as an irqfd, and only the other registers stop the processor. With
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
#include "vmm_guest.h"

/* Guest-physical addresses below the guest, and what is there. */
enum {
    SEGMENTS = 0x1000,
    TABLES = 0x2000, /* the root, one level of four directories, and those: 4 GiB in 2 MiB pages */
    STACK_END = 0x80000,
    GUEST_START = 0x100000,
    SKIPPED = 77,
    BLOCK_DEVICE = 2,
    QUEUE_SIZE = 64
};

static struct {
    int kvm, vm, vcpu;
    struct kvm_run *run;
    uint8_t *ram;
    bool user_exits;
    bool more;            /* requests are left that nobody will kick for */
    pthread_mutex_t lock; /* around the device: both threads reach it */
    struct function function;
    struct blkdev disk;
    int notified;  /* eventfd: KVM to the device */
    int interrupt; /* eventfd: the device to KVM */
    unsigned long exits, kicks, interrupts;
} vmm = {.lock = PTHREAD_MUTEX_INITIALIZER};

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

/* Loads the guest; returns where it starts. */
static uint64_t load_guest(const char *path)
{
    FILE *file = fopen(path, "rb");
    Elf64_Phdr segment;
    Elf64_Ehdr header;

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
    }
    fclose(file);
    return header.e_entry;
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

/* Straight into 64-bit mode, at the guest's first instruction. */
static void start_processor(uint64_t entry)
{
    struct kvm_segment code = {.limit = UINT32_MAX, .selector = VMM_CODE_SEGMENT, .type = 11,
                               .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {.limit = UINT32_MAX, .selector = VMM_DATA_SEGMENT, .type = 3,
                               .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_regs regs = {.rip = entry, .rsp = STACK_END - 8 /* as after a call */, .rflags = 2};
    struct kvm_sregs sregs;

    request(vmm.vcpu, KVM_GET_SREGS, &sregs, "registers");
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt.base = SEGMENTS;
    sregs.gdt.limit = 3 * 8 - 1;
    sregs.cr0 = 0x80000031; /* PG, NE, ET, PE */
    sregs.cr3 = TABLES;
    sregs.cr4 = 0x20;   /* PAE */
    sregs.efer = 0x500; /* LMA, LME */
    request(vmm.vcpu, KVM_SET_SREGS, &sregs, "registers");
    request(vmm.vcpu, KVM_SET_REGS, &regs, "registers");
}

/* The device's pin of the I/O APIC is an edge, the pulse of an irqfd; the local APIC is on. */
static void start_controllers(void)
{
    struct kvm_irqchip io = {.chip_id = KVM_IRQCHIP_IOAPIC};
    struct kvm_lapic_state local;
    const uint32_t enable = 0x1ff; /* and the spurious vector */

    request(vmm.vm, KVM_GET_IRQCHIP, &io, "I/O APIC");
    io.chip.ioapic.redirtbl[VMM_PIN].bits = VMM_VECTOR;
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
    vmm.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vmm.kvm < 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return false;
    }
    vmm.vm = request(vmm.kvm, KVM_CREATE_VM, NULL, "VM");
    if (ioctl(vmm.vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0 && errno != EINVAL && errno != ENOTTY)
        die("TSS address", strerror(errno));
    request(vmm.vm, KVM_CREATE_IRQCHIP, NULL, "interrupt controllers");
    make_memory();
    make_processor();
    return true;
}

/* ----- the device ----- */

/* One batch of requests, so that the other thread can have the device in between. */
static void device_kicked(void *ctx, uint16_t queue)
{
    struct virtio_dev *dev = &vmm.function.dev;
    bool irq;
    int rc;

    (void)ctx;
    vmm.kicks++;
    do {
        rc = blkdev_serve(&vmm.disk, virtio_dev_ring(dev, queue), &irq);
        if (rc < 0)
            virtio_dev_needs_reset(dev);
        else if (irq)
            virtio_dev_interrupt(dev, queue);
    } while (rc > 0 && vmm.user_exits); /* the guest stands still meanwhile and adds nothing */
    vmm.more = rc > 0;
}

static void set_pin(unsigned level)
{
    struct kvm_irq_level pin = {.irq = VMM_PIN, .level = level};

    request(vmm.vm, KVM_IRQ_LINE, &pin, "interrupt");
}

/* The line goes up: an edge at the I/O APIC. While it is up no other is needed: the guest looks at
 * the ring after it has acknowledged. */
static void device_line(void *ctx, bool level)
{
    const uint64_t one = 1;

    (void)ctx;
    if (!level)
        return;
    vmm.interrupts++;
    if (vmm.user_exits) {
        set_pin(1);
        set_pin(0);
    } else if (write(vmm.interrupt, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
        die("irqfd", strerror(errno));
    }
}

static bool device_turn(void)
{
    bool more;

    (void)pthread_mutex_lock(&vmm.lock);
    virtio_dev_write(&vmm.function.dev, VIRTIO_VIEW_MMIO, VIRTIO_MMIO_REG_QUEUE_NOTIFY, 4, 0);
    more = vmm.more;
    vmm.more = false;
    (void)pthread_mutex_unlock(&vmm.lock);
    return more;
}

/* The device's thread: each notify is a write to the register that KVM caught, and so is each turn that is
 * left of it. A guest that never stops adding requests keeps this thread, and nobody else. */
static void *device_thread(void *unused)
{
    uint64_t count;

    while (read(vmm.notified, &count, sizeof(count)) == (ssize_t)sizeof(count)) {
        while (device_turn())
            continue;
    }
    return unused;
}

static void connect_events(void)
{
    struct kvm_ioeventfd event = {.addr = VMM_SLOT + VIRTIO_MMIO_REG_QUEUE_NOTIFY, .len = 4,
                                  .flags = KVM_IOEVENTFD_FLAG_DATAMATCH}; /* queue 0 */
    struct kvm_irqfd irq = {.gsi = VMM_PIN};
    pthread_t thread;

    vmm.notified = eventfd(0, EFD_CLOEXEC);
    vmm.interrupt = eventfd(0, EFD_CLOEXEC);
    if (vmm.notified < 0 || vmm.interrupt < 0)
        die("eventfd", strerror(errno));
    event.fd = vmm.notified;
    irq.fd = (uint32_t)vmm.interrupt;
    request(vmm.vm, KVM_IOEVENTFD, &event, "ioeventfd");
    request(vmm.vm, KVM_IRQFD, &irq, "irqfd");
    if (pthread_create(&thread, NULL, device_thread, NULL) != 0)
        die("thread", "not started");
}

static void make_device(void)
{
    static const struct virtio_dev_ops ops = {
        .map = guest_map, .kick = device_kicked, .line = device_line};
    struct virtio_dev *dev = &vmm.function.dev;

    memcpy(vmm.disk.id, "vmm-disk", 9);
    vmm.disk.map = guest_map;
    vmm.function.view = FUNCTION_MMIO;
    vmm.function.queue[0].max = QUEUE_SIZE;
    dev->ops = &ops;
    dev->device_type = BLOCK_DEVICE;
    dev->queue_count = 1;
    dev->config_length = BLKDEV_CONFIG_SIZE;
    virtio_features_add(&dev->offered, BLKDEV_FEATURE_FLUSH);
    virtio_features_add(&dev->offered, VIRTIO_FEATURE_INDIRECT_DESC);
    virtio_features_add(&dev->offered, VIRTIO_FEATURE_EVENT_IDX);
    virtio_features_add(&dev->offered, VIRTIO_FEATURE_RING_PACKED);
    blkdev_config(&vmm.disk, vmm.function.config);
    if (function_init(&vmm.function) != 0)
        die("device", "not made");
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

/* A register of the device; elsewhere there is nothing. */
static void serve_mmio(void)
{
    struct kvm_run *run = vmm.run;
    uint64_t offset = run->mmio.phys_addr - VMM_SLOT, value = 0;
    unsigned width = run->mmio.len;

    if (run->mmio.phys_addr < VMM_SLOT || offset >= VMM_SLOT_LENGTH || width > 4) {
        memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
        return;
    }
    (void)pthread_mutex_lock(&vmm.lock);
    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, width);
        virtio_dev_write(&vmm.function.dev, VIRTIO_VIEW_MMIO, (uint32_t)offset, width,
                         (uint32_t)value);
    } else {
        value = virtio_dev_read(&vmm.function.dev, VIRTIO_VIEW_MMIO, (uint32_t)offset, width);
        memcpy(run->mmio.data, &value, sizeof(run->mmio.data));
    }
    (void)pthread_mutex_unlock(&vmm.lock);
}

/* A port: -1, or the exit status that the guest ends with. */
static int serve_port(void)
{
    struct kvm_run *run = vmm.run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    if (run->io.direction == KVM_EXIT_IO_IN)
        memset(data, 0xff, run->io.size);
    else if (run->io.port == VMM_PORT_PRINT)
        putchar(*data);
    else if (run->io.port == VMM_PORT_END)
        return *data;
    return -1;
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

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: vmm [--user-exits] GUEST IMAGE\n"
            "Runs GUEST (build/vmm-guest.elf) on KVM with IMAGE as the disk of a virtio-mmio\n"
            "block device. The guest copies the first half of the disk onto the second.\n"
            "  --user-exits  notifies and interrupts without ioeventfd and irqfd\n"
            "  --help        this text\n"
            "Exit status: that of the guest; 77 where there is no KVM.\n");
    return status;
}

int main(int argc, char **argv)
{
    uint64_t entry;
    int status;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    vmm.user_exits = argc == 4 && strcmp(argv[1], "--user-exits") == 0;
    if (argc != 3 && !vmm.user_exits)
        return usage(stderr, 2);
    if (!make_machine())
        return SKIPPED;
    entry = load_guest(argv[argc - 2]);
    open_disk(argv[argc - 1]);
    make_device();
    start_processor(entry);
    status = run_guest();
    (void)pthread_mutex_lock(&vmm.lock); /* for good: the device's thread does nothing more */
    printf("%s: %llu requests, %lu kicks, %lu interrupts, %lu exits\n",
           vmm.user_exits ? "user exits" : "ioeventfd and irqfd",
           (unsigned long long)vmm.disk.served, vmm.kicks, vmm.interrupts, vmm.exits);
    return status;
}
#endif
