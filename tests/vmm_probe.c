// SPDX-License-Identifier: MIT-0
/*
 * The other guest of vmm.c: one that tries on the PCI bus what a driver does not. It has the parts of
 * the guest that copies, prints the first thing that is not as it has to be, and ends with status 1.
 */
#define vmm_guest copying_guest
#include "../examples/hosts/vmm_guest.c"
#undef vmm_guest

enum { MOMENT = 50000, GARBAGE = 8000, NOTIFY_PAGE = 0x3000, TABLE_AT = 0x4000 };

static unsigned ignore;  /* so many interrupts of the line are not acknowledged */
static unsigned ignored; /* these were */

static void expect(bool good, const char *what)
{
    if (good)
        return;
    print("probe: not so: ");
    end(what, 1);
}

/* Long enough for another thread to do what it should not. */
static void moment(void)
{
    for (volatile unsigned i = 0; i < MOMENT; i++)
        continue;
}

/* One that comes twice, as it may where KVM ends it before the guest does, is not one more. */
__attribute__((interrupt)) static void careless_interrupt(struct interrupt_frame *frame)
{
    (void)frame;
    if (ignore != 0) {
        ignore--;
        ignored++;
    } else if (virtio_drv_irq_status(&drv) != 0) {
        interrupted = true;
    }
    end_interrupt();
}

/* ----- configuration space ----- */

/* A string instruction, of which the monitor may see several loads at once. */
static void try_string(void)
{
    static uint16_t words[8];
    uint16_t *to = words;
    unsigned long count = 8;

    __asm__ volatile("rep insw"
                     : "+D"(to), "+c"(count)
                     : "d"(VMM_PORT_CONFIG_DATA)
                     : "memory");
    for (unsigned i = 0; i < 8; i++)
        expect(words[i] == 0x1af4, "each word of a string");
}

static void try_bus(void)
{
    expect(!look_at(0) && pci.config.read32(pci.config.ctx, 0) == 0x12378086, "slot 0 is a bridge");
    expect(pci.config.read32(pci.config.ctx, 8) >> 16 == 0x0600, "that of a host");
    for (unsigned slot = VMM_PCI_SLOT + 1; slot < PCI_SLOTS; slot++) {
        expect(!look_at(slot), "no other slot has the device");
        expect(pci.config.read32(pci.config.ctx, 0) == UINT32_MAX, "other slots are empty");
    }
    expect(look_at(VMM_PCI_SLOT), "the device is in its slot");
    VIRTIO_PORT_WRITE32(VMM_PORT_CONFIG, VMM_PCI_SLOT << 11);
    expect(VIRTIO_PORT_READ32(VMM_PORT_CONFIG_DATA) == UINT32_MAX, "an address that is not enabled");
    VIRTIO_PORT_WRITE32(VMM_PORT_CONFIG, 0x80000000u | VMM_PCI_SLOT << 11);
    VIRTIO_PORT_WRITE8(VMM_PORT_CONFIG, 0);
    expect(VIRTIO_PORT_READ32(VMM_PORT_CONFIG) == (0x80000000u | VMM_PCI_SLOT << 11),
           "the address has 32 bits");
    expect(VIRTIO_PORT_READ16(VMM_PORT_CONFIG_DATA) == 0x1af4, "a word");
    try_string();
    expect(VIRTIO_PORT_READ8(VMM_PORT_CONFIG_DATA + 1) == 0x1a, "a byte");
    expect(VIRTIO_PORT_READ16(VMM_PORT_CONFIG_DATA + 3) == 0xffff, "across the end of a dword");
}

static uint16_t queues(uint64_t base)
{
    struct virtio_window window = {base + pci.layout.place[VIRTIO_PCI_STRUCT_COMMON].offset, 64,
                                   VIRTIO_WINDOW_MMIO, NULL, NULL};

    return virtio_window_read16(&window, VIRTIO_COMMON_NUM_QUEUES);
}

/* Registers are where the BAR says, and only while they are decoded. */
static void try_bars(void)
{
    unsigned bar;
    uint64_t old, moved = VMM_PCI_MEMORY_END - 0x100000;

    expect((pci.config.read32(pci.config.ctx, 4) & 0xffff) == 0, "nothing is decoded at power on");
    expect(virtio_pci_bars_size(&pci.config, pci.bars) == 0, "BARs have sizes");
    for (unsigned i = 0; i < 6; i++)
        expect(pci.bars[i].base == 0, "nobody has assigned BARs");
    expect(take_function() == 0, "the function can be used");
    bar = pci.layout.place[VIRTIO_PCI_STRUCT_COMMON].bar;
    old = pci.bars[bar].base;
    expect(queues(old) == 1, "registers are in their BAR");
    (void)virtio_pci_command(&pci.config, 0, VIRTIO_PCI_COMMAND_MEMORY);
    expect(queues(old) == 0xffff, "they are not while it is off");
    pci.config.write32(pci.config.ctx, (uint16_t)(0x10 + 4 * bar), (uint32_t)moved);
    (void)virtio_pci_command(&pci.config, VIRTIO_PCI_COMMAND_MEMORY, 0);
    expect(queues(old) == 0xffff && queues(moved) == 1, "they move with it");
    pci.bars[bar].base = moved;
    pci.windows[bar] = bar_window(&pci.bars[bar]);
    expect(virtio_drv_pci(&drv, &pci.layout, pci.windows) == 0, "a driver finds them");
}

/* ----- requests ----- */

static void start_disk(uint16_t vectors)
{
    struct blk_setup setup = {.memory = {ring, (uintptr_t)ring, sizeof(ring)},
                              .wait = wait,
                              .queue_size = 64,
                              .vectors = vectors};

    expect(blk_start(&blk, &drv, &setup) == 0, "the disk starts");
}

/* One request, and an interrupt when it is done. */
static void submit(void)
{
    struct virtq_seg seg = {(uintptr_t)data, PIECE};

    expect(blk_submit(&blk, BLK_READ, 0, &seg, 1, NULL) == 0, "there is room for a request");
    expect(!virtq_driver_irq_on(&blk.queue.ring), "nothing is done before it is asked for");
    blk_kick(&blk);
}

static void try_bus_master(void)
{
    struct blk_result result;

    (void)virtio_pci_command(&pci.config, 0, VIRTIO_PCI_COMMAND_MASTER);
    submit();
    moment();
    expect(blk_complete(&blk, &result) == 0, "no access to memory without Bus Master");
    (void)virtio_pci_command(&pci.config, VIRTIO_PCI_COMMAND_MASTER, 0);
    virtio_notify_send(&blk.queue.notify, 0);
    (void)wait(NULL);
    expect(blk_drain(&blk) == 0, "with it the request is served");
}

/* The line stays up until the device is asked why. */
static void try_level(void)
{
    ignore = 3;
    submit();
    (void)wait(NULL);
    expect(ignored == 3 && ignore == 0, "an interrupt comes again while its reason is there");
    expect(blk_drain(&blk) == 0, "the request is served");
}

static uint64_t pending(void)
{
    return virtio_window_read32(&pci.windows[4], TABLE_AT + 0x1000);
}

/* A request whose end is seen in the ring. */
static void poll_one(void)
{
    struct blk_result result;

    submit();
    while (blk_complete(&blk, &result) == 0)
        moment();
}

/* A message may go where no processor is. */
static void try_nobody(void)
{
    virtio_window_write32(&pci.windows[4], TABLE_AT + MSIX_ENTRY, VMM_APIC | 0x55000);
    poll_one();
    virtio_window_write32(&pci.windows[4], TABLE_AT + MSIX_ENTRY, VMM_APIC);
}

/* A masked interrupt is pending, and comes when it is no longer masked. */
static void try_mask(const char *what, void (*mask)(bool on))
{
    interrupted = false;
    mask(true);
    poll_one();
    while (pending() == 0) /* it is sent behind the request */
        moment();
    expect(!interrupted && pending() == 2, what);
    mask(false);
    (void)wait(NULL);
    expect(pending() == 0, what);
}

static void mask_vector(bool on)
{
    virtio_window_write32(&pci.windows[4], TABLE_AT + MSIX_ENTRY + 12, on);
}

static void mask_function(bool on)
{
    uint32_t header = pci.config.read32(pci.config.ctx, pci.layout.msix) & ~UINT32_C(0x40000000);

    pci.config.write32(pci.config.ctx, pci.layout.msix, header | (uint32_t)on << 30);
}

/* ----- garbage ----- */

static uint32_t number(void)
{
    static uint32_t state = 1;

    state = state * 1664525 + 1013904223;
    return state >> 8;
}

static void access_memory(uint32_t offset, uint32_t value)
{
    struct virtio_window window = pci.windows[4];

    switch (number() % 6) {
    case 0: virtio_window_write8(&window, offset, (uint8_t)value); break;
    case 1: virtio_window_write16(&window, offset & ~1u, (uint16_t)value); break;
    case 2: virtio_window_write32(&window, offset & ~3u, value); break;
    case 3: (void)virtio_window_read8(&window, offset); break;
    case 4: *(volatile uint64_t *)(uintptr_t)(window.base + (offset & ~7u)) = value; break;
    default: (void)*(volatile uint64_t *)(uintptr_t)(window.base + (offset & ~7u)); break;
    }
}

/* Into all registers but those of kicks, and into configuration space but for its command, its BAR
 * and MSI-X Enable; without Bus Master, so that what it makes of the ring does not matter. */
static void write_garbage(void)
{
    uint32_t length = pci.windows[4].length;

    __asm__ volatile("cli" ::: "memory");
    (void)virtio_pci_command(&pci.config, 0, VIRTIO_PCI_COMMAND_MASTER);
    for (unsigned i = 0; i < GARBAGE; i++) {
        uint32_t offset = number() % length, at = number() % 64 * 4;

        if (offset < NOTIFY_PAGE || offset >= TABLE_AT)
            access_memory(offset, number());
        if (i % 16 == 0 && at >= 0x24 && at != pci.layout.msix)
            pci.config.write32(pci.config.ctx, (uint16_t)at, number());
    }
    (void)virtio_pci_command(&pci.config, VIRTIO_PCI_COMMAND_MASTER, 0);
    __asm__ volatile("sti" ::: "memory");
}

__attribute__((noreturn)) void vmm_guest(uint32_t what)
{
    (void)what;
    take_interrupts();
    install_handler(VMM_VECTOR, careless_interrupt);
    try_bus();
    try_bars();
    start_disk(0);
    try_bus_master();
    try_level();
    expect(blk_stop(&blk) == 0 && start_messages() == 0, "MSI-X can be switched on");
    start_disk(VECTORS);
    try_nobody();
    try_mask("a masked vector is pending", mask_vector);
    try_mask("all masked vectors are pending", mask_function);
    expect(blk_stop(&blk) == 0 && virtio_pci_msix_set_on(&pci.config, &pci.layout, false) == 0,
           "MSI-X can be switched off");
    write_garbage();
    start_disk(0);
    expect(move(BLK_READ, 0) == 0, "the disk works after garbage");
    end("probe: all is as it has to be", 0);
}
