// SPDX-License-Identifier: MIT-0
/* An emulated virtio device in three views; see function.h. VIRTIO 2.1 to 2.6, 4.1, 4.2. */
#include "function.h"

/* Structures of the modern BAR: one page each, as real devices do it. */
enum {
    COMMON_AT = 0x0000,
    ISR_AT = 0x1000,
    CONFIG_AT = 0x2000,
    NOTIFY_AT = 0x3000,
    NOTIFY_MULTIPLIER = 4,
    COMMON_LENGTH = VIRTIO_COMMON_QUEUE_RESET + 2,
    PAGE = 0x1000
};

static bool legacy(const struct function *f)
{
    return f->view == FUNCTION_PCI_LEGACY;
}

static void set_irq_line(struct function *f)
{
    f->irq(f->ctx, f->isr != 0);
}

void function_reset(struct function *f)
{
    f->status = f->isr = 0;
    f->queue_select = 0;
    f->queue_size = f->queue_max;
    f->queue_page = 0;
    f->queue_enabled = false;
    for (unsigned i = 0; i < 3; i++)
        f->queue_address[i] = 0;
    for (unsigned word = 0; word < 4; word++)
        f->accepted.word[word] = 0;
    f->feature_select[0] = f->feature_select[1] = 0;
    f->offered.word[1] &= ~1u;
    f->offered.word[1] |= legacy(f) ? 0u : 1u; /* VERSION_1 */
    set_irq_line(f);
}

void function_interrupt(struct function *f, uint8_t causes)
{
    f->isr |= causes;
    set_irq_line(f);
}

void function_needs_reset(struct function *f)
{
    f->status |= VIRTIO_STATUS_NEEDS_RESET;
    f->queue_enabled = false;
    if (f->status & VIRTIO_STATUS_DRIVER_OK)
        function_interrupt(f, VIRTIO_IRQ_CONFIG); /* V-STATUS-03 */
}

/* ----- what the registers do ----- */

static uint32_t offered_word(const struct function *f)
{
    return f->feature_select[0] < 4 ? f->offered.word[f->feature_select[0]] : 0;
}

static void accept_word(struct function *f, uint32_t value)
{
    if (f->feature_select[1] < 4 && !(f->status & VIRTIO_STATUS_FEATURES_OK))
        f->accepted.word[f->feature_select[1]] = value;
}

static bool features_fit(const struct function *f)
{
    for (unsigned word = 0; word < 4; word++) {
        if (f->accepted.word[word] & ~f->offered.word[word])
            return false;
    }
    return legacy(f) || virtio_features_has(&f->accepted, VIRTIO_FEATURE_VERSION_1);
}

static void set_status(struct function *f, uint8_t value)
{
    uint8_t sticky = f->status & VIRTIO_STATUS_NEEDS_RESET; /* V-STATUS-04 */

    if (value == 0) {
        function_reset(f);
        return;
    }
    if ((value & ~f->status & VIRTIO_STATUS_FEATURES_OK) && !features_fit(f))
        value &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK; /* V-INIT-02 */
    f->status = value | sticky;
}

static uint8_t take_isr(struct function *f)
{
    uint8_t isr = f->isr;

    f->isr = 0; /* V-ISR-03 */
    set_irq_line(f);
    return isr;
}

static bool queue_selected(const struct function *f)
{
    return f->queue_select == 0;
}

static const void *map_table(void *function, uint64_t addr, uint32_t len)
{
    struct function *f = function;

    return f->map(f->ctx, addr, len);
}

/* Takes the queue into service if its memory is memory and its size is a size. */
static void enable_queue(struct function *f)
{
    struct virtq_areas areas;
    uint32_t num = f->queue_size;
    bool packed;

    areas.num = f->queue_size;
    areas.flags = virtio_features_ring_flags(&f->accepted);
    packed = (areas.flags & VIRTQ_PACKED) != 0;
    if (!virtq_size_ok(num, areas.flags) || num > f->queue_max)
        return;
    areas.desc = f->map(f->ctx, f->queue_address[0], 16 * num);
    areas.driver = f->map(f->ctx, f->queue_address[1], packed ? 4 : 6 + 2 * num);
    areas.device = f->map(f->ctx, f->queue_address[2], packed ? 4 : 6 + 8 * num);
    f->queue_enabled = virtq_device_init(&f->queue, &areas, map_table, f) == 0;
}

static void set_queue_page(struct function *f, uint32_t page)
{
    struct virtq_offsets at = virtq_area_offsets(f->queue_max, VIRTQ_LEGACY_ALIGN, VIRTQ_LEGACY);

    f->queue_page = page;
    f->queue_enabled = false;
    if (page == 0)
        return;
    f->queue_size = f->queue_max;
    f->queue_address[0] = (uint64_t)page * VIRTQ_LEGACY_ALIGN;
    f->queue_address[1] = f->queue_address[0] + at.driver;
    f->queue_address[2] = f->queue_address[0] + at.device;
    enable_queue(f);
}

/* RING_RESET: takes effect at once, so that the register never reads 1 (V-RR-01 to V-RR-03). */
static void reset_queue(struct function *f, uint32_t value)
{
    if (value == 1 && virtio_features_has(&f->accepted, VIRTIO_FEATURE_RING_RESET)) {
        f->queue_enabled = false;
        f->queue_size = f->queue_max;
    }
}

/* The content is a hint: what is available says the ring (V-NOTE-01). */
static void notified(struct function *f, uint32_t value)
{
    uint32_t index = value & 0xffff;
    bool live = legacy(f) || (f->status & VIRTIO_STATUS_DRIVER_OK); /* V-STATUS-01, V-LEG-02 */

    if (index == 0 && f->queue_enabled && live && !(f->status & VIRTIO_STATUS_NEEDS_RESET))
        f->kick(f->ctx);
}

static void set_half(uint64_t *value, bool high, uint32_t half)
{
    if (high)
        *value = (*value & UINT32_MAX) | (uint64_t)half << 32;
    else
        *value = (*value & ~(uint64_t)UINT32_MAX) | half;
}

/* Device configuration at any width; nothing past its end. */
static uint32_t read_config(const struct function *f, uint32_t offset, unsigned width)
{
    uint32_t value = 0;

    for (unsigned i = width; i-- != 0;)
        value = value << 8 | (offset + i < f->config_length ? f->config[offset + i] : 0u);
    return value;
}

/* ----- virtio-mmio ----- */

static uint32_t mmio_read(struct function *f, uint32_t offset, unsigned width)
{
    if (offset >= VIRTIO_MMIO_REG_CONFIG)
        return read_config(f, offset - VIRTIO_MMIO_REG_CONFIG, width);
    if (width != 4)
        return 0;
    switch (offset) {
    case VIRTIO_MMIO_REG_MAGIC: return VIRTIO_MMIO_MAGIC_NUMBER;
    case VIRTIO_MMIO_REG_VERSION: return 2;
    case VIRTIO_MMIO_REG_DEVICE_ID: return f->device_type;
    case VIRTIO_MMIO_REG_DEVICE_FEATURES: return offered_word(f);
    case VIRTIO_MMIO_REG_QUEUE_SIZE_MAX: return queue_selected(f) ? f->queue_max : 0;
    case VIRTIO_MMIO_REG_QUEUE_READY: return queue_selected(f) && f->queue_enabled;
    case VIRTIO_MMIO_REG_IRQ_STATUS: return f->isr;
    case VIRTIO_MMIO_REG_STATUS: return f->status;
    case VIRTIO_MMIO_REG_CONFIG_GENERATION: return f->generation;
    default: return 0;
    }
}

static void mmio_write_queue(struct function *f, uint32_t offset, uint32_t value)
{
    if (!queue_selected(f))
        return;
    if (offset == VIRTIO_MMIO_REG_QUEUE_RESET) {
        reset_queue(f, value);
        return;
    }
    if (offset == VIRTIO_MMIO_REG_QUEUE_READY) {
        if ((value & 1) == 0)
            f->queue_enabled = false;
        else if (!f->queue_enabled)
            enable_queue(f);
        return;
    }
    if (f->queue_enabled)
        return;
    if (offset == VIRTIO_MMIO_REG_QUEUE_SIZE)
        f->queue_size = value <= f->queue_max ? (uint16_t)value : 0;
    else
        set_half(&f->queue_address[(offset - VIRTIO_MMIO_REG_QUEUE_DESC) / 0x10], offset & 4,
                 value);
}

static void mmio_write(struct function *f, uint32_t offset, unsigned width, uint32_t value)
{
    if (width != 4)
        return;
    switch (offset) {
    case VIRTIO_MMIO_REG_DEVICE_FEATURES_SEL: f->feature_select[0] = value; break;
    case VIRTIO_MMIO_REG_DRIVER_FEATURES: accept_word(f, value); break;
    case VIRTIO_MMIO_REG_DRIVER_FEATURES_SEL: f->feature_select[1] = value; break;
    case VIRTIO_MMIO_REG_QUEUE_SEL: f->queue_select = value < 0xffff ? (uint16_t)value : 0xffff; break;
    case VIRTIO_MMIO_REG_QUEUE_NOTIFY: notified(f, value); break;
    case VIRTIO_MMIO_REG_IRQ_ACK:
        f->isr &= (uint8_t)~value;
        set_irq_line(f);
        break;
    case VIRTIO_MMIO_REG_STATUS: set_status(f, (uint8_t)value); break;
    case VIRTIO_MMIO_REG_QUEUE_SIZE:
    case VIRTIO_MMIO_REG_QUEUE_READY:
    case VIRTIO_MMIO_REG_QUEUE_DESC:
    case VIRTIO_MMIO_REG_QUEUE_DESC + 4:
    case VIRTIO_MMIO_REG_QUEUE_DRIVER:
    case VIRTIO_MMIO_REG_QUEUE_DRIVER + 4:
    case VIRTIO_MMIO_REG_QUEUE_DEVICE:
    case VIRTIO_MMIO_REG_QUEUE_DEVICE + 4:
    case VIRTIO_MMIO_REG_QUEUE_RESET: mmio_write_queue(f, offset, value); break;
    default: break;
    }
}

/* ----- PCI modern ----- */

static uint32_t common_read(const struct function *f, uint32_t offset)
{
    bool selected = queue_selected(f);

    switch (offset) {
    case VIRTIO_COMMON_DEVICE_FEATURE_SELECT: return f->feature_select[0];
    case VIRTIO_COMMON_DEVICE_FEATURE: return offered_word(f);
    case VIRTIO_COMMON_DRIVER_FEATURE_SELECT: return f->feature_select[1];
    case VIRTIO_COMMON_CONFIG_MSIX_VECTOR: return 0xffff;
    case VIRTIO_COMMON_NUM_QUEUES: return 1;
    case VIRTIO_COMMON_DEVICE_STATUS: return f->status;
    case VIRTIO_COMMON_CONFIG_GENERATION: return f->generation;
    case VIRTIO_COMMON_QUEUE_SELECT: return f->queue_select;
    case VIRTIO_COMMON_QUEUE_SIZE: return selected ? f->queue_size : 0;
    case VIRTIO_COMMON_QUEUE_MSIX_VECTOR: return 0xffff;
    case VIRTIO_COMMON_QUEUE_ENABLE: return selected && f->queue_enabled;
    default: return 0; /* among them queue_notify_off, queue_notif_config_data and queue_reset */
    }
}

static void common_write_queue(struct function *f, uint32_t offset, uint32_t value)
{
    if (!queue_selected(f))
        return;
    if (offset == VIRTIO_COMMON_QUEUE_RESET)
        reset_queue(f, value);
    if (f->queue_enabled || offset > VIRTIO_COMMON_QUEUE_DEVICE + 4)
        return;
    if (offset == VIRTIO_COMMON_QUEUE_ENABLE && value == 1)
        enable_queue(f);
    else if (offset == VIRTIO_COMMON_QUEUE_SIZE && value <= f->queue_max)
        f->queue_size = (uint16_t)value; /* V-COM-08: a larger one is ignored */
    else if (offset >= VIRTIO_COMMON_QUEUE_DESC)
        set_half(&f->queue_address[(offset - VIRTIO_COMMON_QUEUE_DESC) / 8], offset & 4, value);
}

static void common_write(struct function *f, uint32_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_COMMON_DEVICE_FEATURE_SELECT: f->feature_select[0] = value; break;
    case VIRTIO_COMMON_DRIVER_FEATURE_SELECT: f->feature_select[1] = value; break;
    case VIRTIO_COMMON_DRIVER_FEATURE: accept_word(f, value); break;
    case VIRTIO_COMMON_DEVICE_STATUS: set_status(f, (uint8_t)value); break;
    case VIRTIO_COMMON_QUEUE_SELECT: f->queue_select = (uint16_t)value; break;
    default:
        if ((offset & 1) == 0 && offset < COMMON_LENGTH)
            common_write_queue(f, offset, value);
    }
}

static uint32_t modern_read(struct function *f, uint32_t offset, unsigned width)
{
    switch (offset & ~(uint32_t)(PAGE - 1)) {
    case COMMON_AT: return common_read(f, offset - COMMON_AT);
    case ISR_AT: return offset == ISR_AT ? take_isr(f) : 0;
    case CONFIG_AT: return read_config(f, offset - CONFIG_AT, width);
    default: return 0;
    }
}

static void modern_write(struct function *f, uint32_t offset, uint32_t value)
{
    if (offset < PAGE)
        common_write(f, offset - COMMON_AT, value);
    else if (offset == NOTIFY_AT)
        notified(f, value);
}

/* ----- PCI legacy ----- */

static uint32_t legacy_read(struct function *f, uint32_t offset, unsigned width)
{
    uint32_t config_at = f->msix_on ? VIRTIO_LEGACY_CONFIG_MSIX : VIRTIO_LEGACY_CONFIG;

    if (offset >= config_at)
        return read_config(f, offset - config_at, width);
    switch (offset) {
    case VIRTIO_LEGACY_DEVICE_FEATURES: return f->offered.word[0];
    case VIRTIO_LEGACY_DRIVER_FEATURES: return f->accepted.word[0];
    case VIRTIO_LEGACY_QUEUE_ADDRESS: return queue_selected(f) ? f->queue_page : 0;
    case VIRTIO_LEGACY_QUEUE_SIZE: return queue_selected(f) ? f->queue_max : 0;
    case VIRTIO_LEGACY_QUEUE_SELECT: return f->queue_select;
    case VIRTIO_LEGACY_DEVICE_STATUS: return f->status;
    case VIRTIO_LEGACY_ISR: return take_isr(f);
    default: return offset >= VIRTIO_LEGACY_CONFIG ? 0xffff : 0; /* vectors: none assigned */
    }
}

static void legacy_write(struct function *f, uint32_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_LEGACY_DRIVER_FEATURES: f->accepted.word[0] = value & f->offered.word[0]; break;
    case VIRTIO_LEGACY_QUEUE_ADDRESS:
        if (queue_selected(f))
            set_queue_page(f, value);
        break;
    case VIRTIO_LEGACY_QUEUE_SELECT: f->queue_select = (uint16_t)value; break;
    case VIRTIO_LEGACY_QUEUE_NOTIFY: notified(f, value); break;
    case VIRTIO_LEGACY_DEVICE_STATUS: set_status(f, (uint8_t)value); break;
    default: break;
    }
}

/* ----- PCI configuration space ----- */

/* A chain of 1.x capabilities: COMMON, NOTIFY, ISR, DEVICE, PCI_CFG (V-CAP-03). */
static const struct capability {
    uint8_t at, next, length, type;
    uint32_t offset, size, extra;
} capabilities[] = {
    {0x40, 0x50, 16, 1, COMMON_AT, COMMON_LENGTH, 0},
    {0x50, 0x64, 20, 2, NOTIFY_AT, PAGE, NOTIFY_MULTIPLIER},
    {0x64, 0x74, 16, 3, ISR_AT, 1, 0},
    {0x74, 0x84, 16, 4, CONFIG_AT, PAGE, 0},
    {0x84, 0x00, 20, 5, 0, 0, 0},
};

static uint32_t capability_dword(const struct capability *cap, uint32_t offset)
{
    switch (offset - cap->at) {
    case 0:
        return 0x09u | (uint32_t)cap->next << 8 | (uint32_t)cap->length << 16 |
               (uint32_t)cap->type << 24;
    case 4: return cap->type == 5 ? 0 : FUNCTION_MODERN_BAR;
    case 8: return cap->offset;
    case 12: return cap->size;
    default: return cap->extra;
    }
}

/* Transitional device ids do not follow from the type (L-PCI-01). */
static uint32_t pci_device_id(const struct function *f)
{
    static const uint16_t transitional[] = {0, 0x1000, 0x1001, 0x1003, 0x1005};

    if (!legacy(f))
        return 0x1040u + f->device_type;
    return f->device_type < sizeof(transitional) / 2 ? transitional[f->device_type] : 0x103fu;
}

uint32_t function_pci_read32(void *function, uint16_t offset)
{
    const struct function *f = function;

    switch (offset) {
    case 0x00: return 0x1af4u | pci_device_id(f) << 16;
    case 0x04: return legacy(f) ? 0x00000003u : 0x00100006u; /* status: capability list */
    case 0x08: return 0x01800000u | (legacy(f) ? 0u : 1u);    /* class: storage; revision */
    case 0x10: return legacy(f) ? 0xc001u : 0;
    case 0x20: return legacy(f) ? 0 : 0xe0000000u;
    case 0x2c: return 0x1af4u | (uint32_t)f->device_type << 16;
    case 0x34: return legacy(f) ? 0 : capabilities[0].at;
    default: break;
    }
    for (unsigned i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]) && !legacy(f); i++) {
        if (offset >= capabilities[i].at && offset < capabilities[i].at + capabilities[i].length)
            return capability_dword(&capabilities[i], offset);
    }
    return 0;
}

void function_pci_bars(const struct function *f, struct virtio_pci_bar bars[6])
{
    for (unsigned i = 0; i < 6; i++) {
        bars[i].base = bars[i].length = 0;
        bars[i].kind = VIRTIO_PCI_BAR_NONE;
    }
    if (legacy(f)) {
        bars[FUNCTION_LEGACY_BAR].base = 0xc000;
        bars[FUNCTION_LEGACY_BAR].length = FUNCTION_LEGACY_LENGTH;
        bars[FUNCTION_LEGACY_BAR].kind = VIRTIO_PCI_BAR_IO;
    } else {
        bars[FUNCTION_MODERN_BAR].base = 0xe0000000;
        bars[FUNCTION_MODERN_BAR].length = FUNCTION_MODERN_LENGTH;
        bars[FUNCTION_MODERN_BAR].kind = VIRTIO_PCI_BAR_MEM;
    }
}

/* ----- the driver's way in ----- */

static uint32_t window_read(void *ctx, uint64_t address, unsigned width)
{
    struct function *f = ctx;

    switch (f->view) {
    case FUNCTION_MMIO: return mmio_read(f, (uint32_t)address, width);
    case FUNCTION_PCI_LEGACY: return legacy_read(f, (uint32_t)address, width);
    default: return modern_read(f, (uint32_t)address, width);
    }
}

static void window_write(void *ctx, uint64_t address, unsigned width, uint32_t value)
{
    struct function *f = ctx;

    switch (f->view) {
    case FUNCTION_MMIO: mmio_write(f, (uint32_t)address, width, value); break;
    case FUNCTION_PCI_LEGACY: legacy_write(f, (uint32_t)address, value); break;
    default: modern_write(f, (uint32_t)address, value);
    }
}

struct virtio_window function_window(struct function *f, unsigned bar)
{
    static const struct virtio_window_ops ops = {window_read, window_write};
    static const struct {
        unsigned bar;
        uint32_t length;
    } place[] = {
        [FUNCTION_PCI_MODERN] = {FUNCTION_MODERN_BAR, FUNCTION_MODERN_LENGTH},
        [FUNCTION_PCI_LEGACY] = {FUNCTION_LEGACY_BAR, FUNCTION_LEGACY_LENGTH},
        [FUNCTION_MMIO] = {0, FUNCTION_MMIO_LENGTH},
    };
    struct virtio_window window = {0, 0, VIRTIO_WINDOW_NONE, &ops, f};

    if (bar == place[f->view].bar) {
        window.length = place[f->view].length;
        window.kind = VIRTIO_WINDOW_CALLER;
    }
    return window;
}
