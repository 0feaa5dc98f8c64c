// SPDX-License-Identifier: MIT-0
/*
 * Prints the configuration space of QEMU's virtio functions as `lspci -nxxx` does.
 *
 *     dump_pci [--qemu PROGRAM] [--msix] pc|q35 [QEMU ARGUMENT]...
 *
 * BARs are assigned first, as firmware would. With --msix MSI-X is switched on where there is any.
 * tests/dumps.sh makes the files of tests/dumps with it.
 */
#include <stdio.h>
#include <string.h>

#include "../examples/hosts/qtest_pci.h"

enum {
    VIRTIO_VENDOR = 0x1af4,
    DEVICE_FIRST = 0x1000,
    DEVICE_LAST = 0x107f,
    CONFIG_SIZE = 256,
    DEVFN_COUNT = 256,
    CAP_MSIX = 0x11
};

static bool is_virtio(uint32_t id)
{
    return (id & 0xffff) == VIRTIO_VENDOR && id >> 16 >= DEVICE_FIRST && id >> 16 <= DEVICE_LAST;
}

static void enable_msix(struct qtest *q, unsigned devfn)
{
    unsigned at = qtest_pci_read(q, devfn, 0x34, 1) & 0xfc;

    for (unsigned hops = 0; at >= 0x40 && hops < 48; hops++) {
        uint32_t header = qtest_pci_read32(q, devfn, (uint16_t)at);

        if ((header & 0xff) == CAP_MSIX) {
            qtest_pci_write(q, devfn, (uint16_t)(at + 2), 2, header >> 16 | 0x8000);
            return;
        }
        at = header >> 8 & 0xfc;
    }
}

static void print_function(struct qtest *q, unsigned devfn, uint32_t id)
{
    uint32_t class_revision = qtest_pci_read32(q, devfn, 0x08);

    printf("00:%02x.%x %04x: %04x:%04x", devfn >> 3, devfn & 7, class_revision >> 16, id & 0xffff,
           id >> 16);
    if ((class_revision & 0xff) != 0)
        printf(" (rev %02x)", class_revision & 0xff);
    for (uint16_t at = 0; at < CONFIG_SIZE; at++) {
        if (at % 16 == 0)
            printf("\n%02x:", at);
        printf(" %02x", qtest_pci_read(q, devfn, at, 1));
    }
    printf("\n\n");
}

static int dump(struct qtest *q, bool msix)
{
    struct virtio_pci_bar bars[6];
    unsigned count = 0;

    for (unsigned devfn = 0; devfn < DEVFN_COUNT; devfn++) {
        uint32_t id = qtest_pci_read32(q, devfn, 0);

        if (!is_virtio(id))
            continue;
        if (qtest_pci_enable(q, devfn, bars) != 0)
            break;
        if (msix)
            enable_msix(q, devfn);
        print_function(q, devfn, id);
        count++;
    }
    if (qtest_error(q) != NULL)
        fprintf(stderr, "dump_pci: %s\n", qtest_error(q));
    else if (count == 0)
        fprintf(stderr, "dump_pci: QEMU has no virtio function\n");
    return count == 0 || qtest_error(q) != NULL;
}

int main(int argc, char **argv)
{
    struct qtest_options options = {.ram_size = 16 << 20};
    static struct qtest q;
    bool msix = false;
    int i = 1, status = 1;

    if (argc > i + 1 && strcmp(argv[i], "--qemu") == 0) {
        options.qemu = argv[i + 1];
        i += 2;
    }
    if (argc > i && strcmp(argv[i], "--msix") == 0) {
        msix = true;
        i++;
    }
    if (argc <= i || (strcmp(argv[i], "pc") != 0 && strcmp(argv[i], "q35") != 0)) {
        fprintf(stderr, "usage: dump_pci [--qemu PROGRAM] [--msix] pc|q35 [QEMU ARGUMENT]...\n");
        return 2;
    }
    options.machine = strcmp(argv[i], "pc") == 0 ? QTEST_PC : QTEST_Q35;
    options.extra = (const char *const *)argv + i + 1;
    if (qtest_start(&q, &options) == 0)
        status = dump(&q, msix);
    else
        fprintf(stderr, "dump_pci: %s\n", qtest_error(&q));
    qtest_stop(&q);
    return status;
}
