// SPDX-License-Identifier: MIT-0
/* The headers used from C++: a round trip through a ring, a layout scan, a device brought up over a
 * register window of our own. Ends with "N passed, N failed". */
#include <cstdio>
#include <cstring>

#include "virtio.h"

namespace
{
int passed, failed;

void expect(bool ok, const char *what)
{
    ok ? passed++ : failed++;
    if (!ok)
        std::printf("FAILED: %s\n", what);
}

alignas(4096) uint8_t memory[VIRTQ_BYTES(4, 4096)];
virtq_slot slots[4];

void ring_round_trip()
{
    virtq_areas areas{};
    virtq_driver driver{};
    virtq_device device{};
    virtq_seg segments[4]{};
    virtq_chain chain{segments, 4, 0, 0, 0};
    virtq_done done{};
    int request = 0;

    virtq_areas_set(&areas, memory, 4, 4096, VIRTQ_EVENT_IDX);
    expect(virtq_driver_init(&driver, &areas, slots) == 0, "driver init");
    expect(virtq_device_init(&device, &areas, nullptr, nullptr) == 0, "device init");
    expect(virtq_driver_add_pair(&driver, {0x1000, 16}, {0x2000, 8}, &request) == 0, "add pair");
    virtq_driver_publish(&driver);
    expect(virtq_driver_kick_due(&driver), "kick due");
    expect(virtq_device_pop(&device, &chain) == 1, "pop");
    expect(chain.readable == 1 && chain.writable == 1 && segments[1].addr == 0x2000, "segments");
    virtq_device_push(&device, chain.token, 8);
    virtq_device_flush(&device);
    expect(virtq_device_irq_due(&device), "interrupt due");
    expect(virtq_driver_take(&driver, &done) == 1, "take");
    expect(done.cookie == &request && done.written == 8, "cookie and length");
}

uint32_t absent(void *, uint16_t)
{
    return UINT32_MAX;
}

void scan_nothing()
{
    virtio_pci_config config{absent, nullptr, nullptr};
    virtio_pci_bar bars[6]{};
    virtio_pci_layout layout{};

    expect(virtio_pci_scan(&layout, &config, bars, 0) == VIRTIO_PCI_ERR_NO_DEVICE, "no device");
}

uint8_t registers[0x200];

uint32_t register_read(void *, uint64_t address, unsigned width)
{
    uint32_t value = 0;

    for (unsigned i = width; i-- != 0;)
        value = value << 8 | registers[address + i];
    return value;
}
void register_write(void *, uint64_t address, unsigned width, uint32_t value)
{
    for (unsigned i = 0; i < width; i++)
        registers[address + i] = static_cast<uint8_t>(value >> (8 * i));
}

void probe_mmio()
{
    static const virtio_window_ops ops{register_read, register_write};
    virtio_window window{0, sizeof(registers), VIRTIO_WINDOW_CALLER, &ops, nullptr};
    virtio_drv drv{};

    expect(virtio_drv_mmio(&drv, &window) == VIRTIO_ERR_MAGIC, "no magic");
    std::memcpy(registers, "virt\2\0\0\0\2\0\0\0", 12);
    expect(virtio_drv_mmio(&drv, &window) == 0 && drv.device_type == 2, "probe");
    expect(virtio_drv_begin(&drv) == 0, "begin");
    expect(registers[0x70] == 3, "ACKNOWLEDGE and DRIVER");
}
} // namespace

int main()
{
    ring_round_trip();
    scan_nothing();
    probe_mmio();
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
