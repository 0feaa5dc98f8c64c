// SPDX-License-Identifier: MIT-0
/* virtio_pci_caps.h against configuration spaces written byte by byte. */
#include <criterion/criterion.h>
#include <string.h>

#include "virtio_pci_caps.h"

/* A function under test: its configuration space and BARs, and how often each dword was read. */
struct space {
    uint8_t bytes[256];
    uint8_t reads[64];
    struct virtio_pci_bar bars[6];
    unsigned tail; /* offset of the last capability's next pointer */
    unsigned end;  /* where the next capability goes */
};

static struct space space;

static uint32_t read32(void *ctx, uint16_t offset)
{
    struct space *s = ctx;
    const uint8_t *b = s->bytes + offset;

    cr_assert(offset < 256 && offset % 4 == 0);
    s->reads[offset / 4]++;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void set_bar(unsigned bar, uint8_t kind, uint64_t length)
{
    space.bars[bar].base = 0x1000;
    space.bars[bar].length = length;
    space.bars[bar].kind = kind;
}

/* A transitional function: BAR0 is I/O, BAR1 and BAR4 are memory. No capability yet. */
static void fresh(void)
{
    memset(&space, 0, sizeof(space));
    memcpy(space.bytes, "\xf4\x1a\x01\x10\x07\x00\x10\x00", 8);
    set_bar(0, VIRTIO_PCI_BAR_IO, 128);
    set_bar(1, VIRTIO_PCI_BAR_MEM, 0x2000);
    set_bar(4, VIRTIO_PCI_BAR_MEM, 0x4000);
    space.tail = 0x34;
    space.end = 0x40;
}

static void put32(unsigned at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        space.bytes[at + i] = (uint8_t)(value >> (8 * i));
}

/* Appends a capability of `size` bytes to the list; returns where it is. */
static unsigned append(const void *bytes, unsigned size)
{
    unsigned at = space.end;

    memcpy(space.bytes + at, bytes, size);
    space.bytes[at + 1] = 0;
    space.bytes[space.tail] = (uint8_t)at;
    space.tail = at + 1;
    space.end = (at + size + 3) & ~3u;
    return at;
}

static unsigned rfc(uint8_t id, uint8_t bir, uint32_t size, uint32_t offset)
{
    uint8_t cap[12] = {9, 0, 12, id, bir, (uint8_t)size, (uint8_t)(size >> 8),
                       (uint8_t)(size >> 16)};
    unsigned at = append(cap, sizeof(cap));

    put32(at + 8, offset);
    return at;
}

static unsigned modern(uint8_t type, uint8_t bar, uint32_t offset, uint32_t length, uint8_t cap_len)
{
    uint8_t cap[64] = {9, 0, cap_len, type, bar};
    unsigned at = append(cap, cap_len < 16 ? 16 : cap_len);

    put32(at + 8, offset);
    put32(at + 12, length);
    return at;
}

static void modern_set(uint32_t multiplier)
{
    unsigned notify;

    modern(1, 4, 0, 0x1000, 16);
    modern(3, 4, 0x1000, 0x1000, 16);
    modern(4, 4, 0x2000, 0x1000, 16);
    notify = modern(2, 4, 0x3000, 0x1000, 20);
    put32(notify + 16, multiplier);
}

static int scan(struct virtio_pci_layout *layout, unsigned policy)
{
    struct virtio_pci_config config = {read32, NULL, &space};

    return virtio_pci_scan(layout, &config, space.bars, policy);
}

static void expect_place(struct virtio_pci_place at, uint8_t found, uint8_t bar, uint32_t offset,
                         uint32_t length)
{
    cr_expect_eq(at.found, found, "found %u, not %u", at.found, found);
    cr_expect_eq(at.bar, bar, "bar %u, not %u", at.bar, bar);
    cr_expect_eq(at.offset, offset, "offset %#x, not %#x", at.offset, offset);
    cr_expect_eq(at.length, length, "length %u, not %u", at.length, length);
}

static struct virtio_pci_layout must_scan(void)
{
    struct virtio_pci_layout layout;

    cr_assert_eq(scan(&layout, 0), 0);
    return layout;
}

/* ----- golden vectors D.1 ----- */

Test(pci_caps, g01_header_size_above_bir_offset_masked)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-01, R-05, R-06, R-08, T-14 */
    append("\x09\x40\x0c\x01\x01\x20\x00\x00\x03\x10\x00\x00", 12);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_RFC2011);
    expect_place(layout.place[1], VIRTIO_PCI_RFC2011, 1, 0x1000, 32);
    cr_expect_eq(layout.place[1].cap, 0x40);
}

Test(pci_caps, g02_notify_offset_masked_to_two)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-02, R-08, R-22 */
    append("\x09\x50\x0c\x02\x00\x02\x00\x00\x11\x00\x00\x00", 12);
    layout = must_scan();
    expect_place(layout.place[2], VIRTIO_PCI_RFC2011, 0, 0x10, 2);
}

Test(pci_caps, g03_isr_offset_not_masked)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-03, R-08 */
    append("\x09\x60\x0c\x03\x00\x01\x00\x00\x13\x00\x00\x00", 12);
    layout = must_scan();
    expect_place(layout.place[3], VIRTIO_PCI_RFC2011, 0, 0x13, 1);
}

Test(pci_caps, g04_large_device_header_needs_a_large_bar)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-04, R-10, R-12 */
    append("\x09\x00\x0c\x04\x05\xff\xff\xff\x00\x00\x00\x80", 12);
    set_bar(5, VIRTIO_PCI_BAR_MEM, 0x80fffffe);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_LEGACY);
    cr_expect_eq(layout.ignored, 1);
    set_bar(5, VIRTIO_PCI_BAR_MEM, 0x80ffffff);
    layout = must_scan();
    expect_place(layout.place[4], VIRTIO_PCI_RFC2011, 5, 0x80000000, 0xffffff);
}

Test(pci_caps, g05_length_16_is_not_rfc)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-05, R-02, R-35, R-37, T-18 */
    append("\x09\x70\x10\x01\x01\x20\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00", 16);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_LEGACY);
}

Test(pci_caps, g06_unknown_ids_are_skipped)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-06, R-03, T-15 */
    rfc(0x05, 0, 4, 0);
    rfc(0xff, 9, 4, 0);
    rfc(0x00, 0, 4, 0);
    rfc(2, 0, 2, 16);
    cr_assert_eq(scan(&layout, VIRTIO_PCI_STRICT), 0);
    expect_place(layout.place[2], VIRTIO_PCI_RFC2011, 0, 16, 2);
    cr_expect_eq(layout.ignored, 0);
}

Test(pci_caps, g07_bir_6_is_malformed)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-07, R-06, R-09, R-25 */
    rfc(1, 6, 32, 0);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_LEGACY);
    cr_expect_eq(layout.ignored, 1);
    cr_expect_eq(scan(&layout, VIRTIO_PCI_STRICT), VIRTIO_PCI_ERR_MALFORMED);
}

Test(pci_caps, g08_header_sizes)
{
    static const struct {
        uint32_t size;
        bool ok;
    } cases[] = {{27, false}, {28, true}, {31, true}, {32, true}, {4096, true}};

    for (unsigned i = 0; i < 5; i++) { /* G-08, R-AMB-1, R-12 */
        struct virtio_pci_layout layout;

        fresh();
        rfc(1, 1, cases[i].size, 0x1000);
        layout = must_scan();
        cr_expect_eq(layout.generation == VIRTIO_PCI_RFC2011, cases[i].ok, "size %u",
                     cases[i].size);
    }
}

Test(pci_caps, g09_offset_plus_size_does_not_wrap)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-09, R-10, T-22 */
    set_bar(1, VIRTIO_PCI_BAR_MEM, (uint64_t)1 << 32);
    rfc(1, 1, 32, 0xfffffffc);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_LEGACY);
    cr_expect_eq(layout.ignored, 1);
}

Test(pci_caps, g10_only_header_and_device_present)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-10, R-15, R-17 */
    rfc(1, 1, 32, 0);
    rfc(4, 1, 64, 0x100);
    layout = must_scan();
    for (int msix = 0; msix < 2; msix++) {
        expect_place(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_NOTIFY, msix), VIRTIO_PCI_LEGACY,
                     0, 16, 2);
        expect_place(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_ISR, msix), VIRTIO_PCI_LEGACY, 0,
                     19, 1);
        expect_place(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_DEVICE, msix),
                     VIRTIO_PCI_RFC2011, 1, 0x100, 64);
    }
}

Test(pci_caps, g11_only_notify_present)
{
    struct virtio_pci_layout layout;

    fresh(); /* G-11, R-15, R-17, L-PLEG-05, T-16, T-17 */
    rfc(2, 1, 2, 0);
    layout = must_scan();
    expect_place(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_COMMON, true), VIRTIO_PCI_LEGACY, 0,
                 0, 24);
    expect_place(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_COMMON, false), VIRTIO_PCI_LEGACY, 0,
                 0, 20);
    expect_place(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_DEVICE, true), VIRTIO_PCI_LEGACY, 0,
                 24, 104);
    expect_place(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_DEVICE, false), VIRTIO_PCI_LEGACY, 0,
                 20, 108);
}

/* ----- fallback ----- */

Test(pci_caps, every_subset_of_rfc_structures)
{
    static const uint32_t legacy_at[2][5] = {{0, 0, 16, 19, 20}, {0, 0, 16, 19, 24}};

    for (unsigned set = 0; set < 16; set++) { /* */
        struct virtio_pci_layout layout;

        fresh();
        for (uint8_t id = 1; id <= 4; id++) {
            if (set >> (id - 1) & 1)
                rfc(id, 1, 32, 0x100u * id);
        }
        layout = must_scan();
        cr_expect_eq(layout.generation, set != 0 ? VIRTIO_PCI_RFC2011 : VIRTIO_PCI_LEGACY);
        for (unsigned check = 0; check < 8; check++) {
            unsigned msix = check & 1, id = 1 + check / 2;
            struct virtio_pci_place at =
                virtio_pci_locate(&layout, (enum virtio_pci_struct)id, msix != 0);
            bool present = (set >> (id - 1) & 1) != 0;

            cr_expect_eq(at.found, present ? VIRTIO_PCI_RFC2011 : VIRTIO_PCI_LEGACY);
            cr_expect_eq(at.bar, present ? 1 : 0);
            cr_expect_eq(at.offset, present ? 0x100u * id : legacy_at[msix][id]);
        }
    }
}

Test(pci_caps, rfc_without_legacy_needs_all_but_device)
{
    struct virtio_pci_layout layout;

    fresh(); /* */
    set_bar(0, VIRTIO_PCI_BAR_NONE, 0);
    rfc(1, 1, 32, 0);
    rfc(2, 1, 2, 0x40);
    cr_expect_eq(scan(&layout, 0), VIRTIO_PCI_ERR_INCOMPLETE);
    rfc(3, 1, 1, 0x50);
    layout = must_scan();
    cr_expect_eq(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_DEVICE, false).found,
                 VIRTIO_PCI_NONE);
}

Test(pci_caps, first_valid_rfc_capability_wins)
{
    struct virtio_pci_layout layout;

    fresh(); /* */
    rfc(1, 6, 32, 0);
    rfc(1, 1, 32, 0x80);
    rfc(1, 1, 32, 0x40);
    layout = must_scan();
    expect_place(layout.place[1], VIRTIO_PCI_RFC2011, 1, 0x80, 32);
}

/* ----- 1.x ----- */

Test(pci_caps, modern_set_is_found)
{
    struct virtio_pci_layout layout;

    fresh(); /* D-PLEG-01, L-NTF-01 */
    modern_set(4);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_MODERN);
    cr_expect(layout.legacy);
    expect_place(layout.place[1], VIRTIO_PCI_MODERN, 4, 0, 0x1000);
    expect_place(layout.place[2], VIRTIO_PCI_MODERN, 4, 0x3000, 0x1000);
    expect_place(layout.place[3], VIRTIO_PCI_MODERN, 4, 0x1000, 0x1000);
    expect_place(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_DEVICE, true), VIRTIO_PCI_MODERN, 4,
                 0x2000, 0x1000);
}

Test(pci_caps, notify_multiplier_is_read_at_16_of_the_chosen_capability)
{
    static const uint32_t values[] = {0, 2, 4, 4096};

    for (unsigned i = 0; i < 4; i++) { /* L-NTF-01, T-19, T-20 */
        fresh();
        modern_set(values[i]);
        put32(modern(2, 4, 0x3000, 0x1000, 24) + 16, 77);
        cr_expect_eq(must_scan().notify_multiplier, values[i]);
    }
}

Test(pci_caps, modern_device_without_configuration)
{
    struct virtio_pci_layout layout;

    fresh(); /* V-CAP-03: DEVICE only if the type has one; no fallback in 1.x */
    modern(1, 4, 0, 56, 16);
    modern(2, 4, 0x100, 2, 20);
    modern(3, 4, 0x200, 1, 16);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_MODERN);
    cr_expect_eq(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_DEVICE, false).found,
                 VIRTIO_PCI_NONE);
}

Test(pci_caps, common_configuration_of_56_bytes_is_enough_and_55_is_not)
{
    fresh(); /* T-25, D-CFG-04 */
    modern(1, 4, 0, 55, 16);
    modern_set(0);
    cr_expect_eq(must_scan().place[1].length, 0x1000);
    fresh();
    modern(1, 4, 0, 56, 16);
    modern_set(0);
    cr_expect_eq(must_scan().place[1].length, 56);
}

Test(pci_caps, reserved_types_bars_and_short_lengths_are_ignored)
{
    struct virtio_pci_layout layout;

    fresh(); /* D-CAP-01, D-CAP-02, D-CAP-04, R-02 */
    modern(6, 4, 0, 0x1000, 16);
    modern(0xff, 4, 0, 0x1000, 16);
    modern(1, 7, 0, 0x1000, 16);
    modern(1, 4, 0, 0x1000, 14);
    modern(1, 4, 0x40, 0x1000, 40);
    modern_set(0);
    cr_assert_eq(scan(&layout, VIRTIO_PCI_STRICT), 0);
    expect_place(layout.place[1], VIRTIO_PCI_MODERN, 4, 0x40, 0x1000);
}

Test(pci_caps, first_reachable_instance_wins)
{
    struct virtio_pci_layout layout;

    fresh(); /* D-CAP-03, D-CAP-08, T-24 */
    set_bar(2, VIRTIO_PCI_BAR_IO, 4);
    modern(2, 2, 0, 4, 20);
    modern_set(4);
    layout = must_scan();
    expect_place(layout.place[2], VIRTIO_PCI_MODERN, 2, 0, 4);
    cr_expect_eq(layout.notify_multiplier, 0);
    set_bar(2, VIRTIO_PCI_BAR_NONE, 0);
    layout = must_scan();
    expect_place(layout.place[2], VIRTIO_PCI_MODERN, 4, 0x3000, 0x1000);
    cr_expect_eq(layout.notify_multiplier, 4);
}

Test(pci_caps, structures_outside_their_bar_are_malformed)
{
    static const struct {
        uint32_t offset, length;
        bool ok;
    } cases[] = {{0x3f00, 0x100, true}, {0x3f00, 0x101, false}, {0x4000, 0x100, false},
                 {0xfffffff0, 0x20, false}, {0x10, 0xffffffff, false}, {0x2, 0x100, false}};

    for (unsigned i = 0; i < 6; i++) { /* D-CAP-07, V-CAP-04, T-22 */
        fresh();
        modern(1, 4, cases[i].offset, cases[i].length, 16);
        modern_set(0);
        cr_expect_eq(must_scan().place[1].offset == cases[i].offset, cases[i].ok, "case %u", i);
    }
}

Test(pci_caps, notify_capability_without_multiplier_is_malformed)
{
    fresh(); /* D-CAP-07 */
    modern(2, 4, 0x3100, 2, 16);
    modern_set(4);
    cr_expect_eq(must_scan().place[2].offset, 0x3000);
    cr_expect_eq(must_scan().ignored, 1);
}

Test(pci_caps, modern_wins_over_rfc_unless_incomplete)
{
    struct virtio_pci_layout layout;

    fresh(); /* */
    rfc(1, 1, 32, 0);
    modern_set(4);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_MODERN);
    cr_expect_eq(layout.place[1].bar, 4);
    fresh();
    rfc(1, 1, 32, 0);
    modern(2, 4, 0x3000, 0x1000, 20);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_RFC2011);
    cr_expect_eq(virtio_pci_locate(&layout, VIRTIO_PCI_STRUCT_NOTIFY, false).found,
                 VIRTIO_PCI_LEGACY);
}

Test(pci_caps, msix_and_pci_cfg_are_noted)
{
    struct virtio_pci_layout layout;
    unsigned msix;

    fresh(); /* L-MSX-01, D-PCFG-01 */
    msix = append("\x11\x00\x03\x80\x00\x00\x00\x00\x00\x00\x00\x00", 12);
    modern_set(4);
    modern(5, 0, 0, 0, 20);
    layout = must_scan();
    cr_expect_eq(layout.msix, msix);
    cr_expect_eq(layout.msix_vectors, 4);
    cr_expect(layout.msix_on);
    cr_expect_eq(layout.pci_cfg, space.end - 20);
    space.bytes[msix + 3] = 0;
    cr_expect_not(must_scan().msix_on);
}

/* ----- hostile lists ----- */

Test(pci_caps, cyclic_list_ends_with_an_error)
{
    struct virtio_pci_layout layout;

    fresh(); /* D-CAP-07, T-26 */
    modern_set(4);
    space.bytes[space.tail] = 0x40;
    layout.generation = 99;
    cr_expect_eq(scan(&layout, 0), VIRTIO_PCI_ERR_LIST);
    cr_expect_eq(layout.generation, 99, "output touched on error");
    cr_expect(space.reads[0x40 / 4] <= 48, "%u times around", space.reads[0x40 / 4]);
}

Test(pci_caps, pointer_into_the_header_ends_with_an_error)
{
    struct virtio_pci_layout layout;

    fresh();
    rfc(1, 1, 32, 0);
    space.bytes[space.tail] = 0x10;
    cr_expect_eq(scan(&layout, 0), VIRTIO_PCI_ERR_LIST);
}

Test(pci_caps, low_bits_of_pointers_are_masked)
{
    fresh(); /* D-CAP-07 */
    modern_set(4);
    space.bytes[0x34] |= 3;
    space.bytes[0x41] |= 2;
    cr_expect_eq(must_scan().generation, VIRTIO_PCI_MODERN);
}

Test(pci_caps, capability_past_the_end_is_malformed)
{
    struct virtio_pci_layout layout;

    fresh();
    space.end = 0xf8;
    append("\x09\x00\x0c\x01\x01\x20\x00\x00", 8);
    cr_expect_eq(scan(&layout, VIRTIO_PCI_STRICT), VIRTIO_PCI_ERR_MALFORMED);
    cr_expect_eq(must_scan().generation, VIRTIO_PCI_LEGACY);
}

Test(pci_caps, no_function_and_no_list)
{
    struct virtio_pci_layout layout;

    memset(&space, 0, sizeof(space));
    memset(space.bytes, 0xff, sizeof(space.bytes));
    cr_expect_eq(scan(&layout, 0), VIRTIO_PCI_ERR_NO_DEVICE);
    fresh();
    modern_set(4);
    space.bytes[6] = 0; /* status: no capability list */
    cr_expect_eq(must_scan().generation, VIRTIO_PCI_LEGACY);
    set_bar(0, VIRTIO_PCI_BAR_MEM, 128); /* R-AMB-2: legacy is in I/O space */
    cr_expect_eq(scan(&layout, 0), VIRTIO_PCI_ERR_INCOMPLETE);
    set_bar(0, VIRTIO_PCI_BAR_IO, 19);
    cr_expect_eq(scan(&layout, 0), VIRTIO_PCI_ERR_INCOMPLETE);
}

Test(pci_caps, modern_only_function_has_no_legacy_interface)
{
    struct virtio_pci_layout layout;

    fresh(); /* V-PLEG-03, D-PLEG-02 */
    space.bytes[2] = 0x42; /* device id 0x1042 */
    cr_expect_eq(scan(&layout, 0), VIRTIO_PCI_ERR_INCOMPLETE);
    rfc(2, 1, 2, 0);
    cr_expect_eq(scan(&layout, 0), VIRTIO_PCI_ERR_INCOMPLETE);
    modern_set(4);
    cr_expect_not(must_scan().legacy);
}

Test(pci_caps, structure_in_a_bar_out_of_reach_is_not_malformed)
{
    struct virtio_pci_layout layout;

    fresh(); /* D-CAP-08 */
    put32(modern(2, 2, 0, 4, 20) + 16, 77);
    modern_set(4);
    cr_assert_eq(scan(&layout, VIRTIO_PCI_STRICT), 0);
    cr_expect_eq(layout.ignored, 0);
    cr_expect_eq(layout.place[2].bar, 4);
    cr_expect_eq(layout.notify_multiplier, 4);
}

Test(pci_caps, other_capabilities_are_not_virtio)
{
    fresh(); /* */
    append("\x05\x00\x0c\x01\x01\x20\x00\x00\x00\x00\x00\x00", 12);
    cr_expect_eq(must_scan().generation, VIRTIO_PCI_LEGACY);
}

Test(pci_caps, each_dword_is_read_once)
{
    fresh();
    append("\x11\x00\x03\x80\x00\x00\x00\x00\x00\x00\x00\x00", 12);
    rfc(1, 1, 32, 0);
    modern_set(4);
    must_scan();
    for (unsigned i = 0; i < 64; i++)
        cr_expect(space.reads[i] <= 1, "dword %#x read %u times", 4 * i, space.reads[i]);
}

Test(pci_caps, error_names)
{
    for (int err = VIRTIO_PCI_ERR_INCOMPLETE; err <= VIRTIO_PCI_ERR_NO_DEVICE; err++)
        cr_expect(virtio_pci_err_name(err) != NULL && virtio_pci_err_name(err)[0] != '\0');
    cr_expect(virtio_pci_err_name(0) == NULL);
}

/* ----- shared memory and vendor data ----- */

static unsigned shm(uint8_t id, uint8_t bar, uint64_t offset, uint64_t length)
{
    unsigned at = modern(8, bar, (uint32_t)offset, (uint32_t)length, 24);

    space.bytes[at + 5] = id;
    put32(at + 16, (uint32_t)(offset >> 32));
    put32(at + 20, (uint32_t)(length >> 32));
    return at;
}

Test(pci_caps, shared_memory_regions_by_id)
{
    /* V-SHM-01, V-SHM-02, L-SHM-03: 64-bit places inside their BAR, told apart by id, never a
     * structure */
    struct virtio_pci_config config = {read32, NULL, &space};
    struct virtio_pci_shm at = {0, 0, 0, 0};

    fresh();
    modern_set(4);
    space.bars[2].kind = VIRTIO_PCI_BAR_MEM;
    space.bars[2].length = UINT64_C(0x400000000);
    shm(0, 2, UINT64_C(0x100000000), UINT64_C(0x300000000)); /* to the last byte */
    shm(7, 2, 0, 0x1000);
    shm(9, 2, UINT64_C(0x100000000), UINT64_C(0x300000001));
    cr_expect_eq(virtio_pci_find_shm(&config, space.bars, 1, &at), VIRTIO_PCI_ERR_ABSENT);
    cr_expect_eq(virtio_pci_find_shm(&config, space.bars, 9, &at), VIRTIO_PCI_ERR_MALFORMED);
    cr_expect_eq(at.length, 0);
    cr_assert_eq(virtio_pci_find_shm(&config, space.bars, 0, &at), 0);
    cr_expect(at.bar == 2 && at.offset == UINT64_C(0x100000000) &&
              at.length == UINT64_C(0x300000000));
    cr_assert_eq(virtio_pci_find_shm(&config, space.bars, 7, &at), 0);
    cr_expect_eq(at.length, 0x1000);
    cr_expect_eq(must_scan().place[VIRTIO_PCI_STRUCT_DEVICE].offset, 0x2000);
    space.bars[2].kind = VIRTIO_PCI_BAR_NONE;
    cr_expect_eq(virtio_pci_find_shm(&config, space.bars, 7, &at), VIRTIO_PCI_ERR_ABSENT);
    space.bars[2].kind = VIRTIO_PCI_BAR_IO;
    cr_expect_eq(virtio_pci_find_shm(&config, space.bars, 7, &at), VIRTIO_PCI_ERR_MALFORMED);
}

Test(pci_caps, a_region_id_is_unique)
{
    struct virtio_pci_config config = {read32, NULL, &space};
    struct virtio_pci_shm at;

    fresh(); /* V-SHM-01 */
    space.bars[2].kind = VIRTIO_PCI_BAR_MEM;
    space.bars[2].length = 0x10000;
    shm(3, 2, 0, 0x1000);
    shm(3, 2, 0x1000, 0x1000);
    cr_expect_eq(virtio_pci_find_shm(&config, space.bars, 3, &at), VIRTIO_PCI_ERR_MALFORMED);
}

Test(pci_caps, vendor_data_is_read_by_who_knows_it)
{
    /* V-VND-01, D-VND-01: several, of 8 bytes and more; never of vendor 0x1af4 or of an odd size */
    struct virtio_pci_config config = {read32, NULL, &space};
    struct virtio_pci_capability cap;
    struct virtio_pci_walk walk;
    unsigned faults[3] = {0, 0, 0}, n = 0;

    fresh();
    append("\x09\x00\x08\x09\x86\x80\x5a\xa5", 8);
    append("\x09\x00\x0c\x09\xf4\x1a\x01\x02\x03\x04\x05\x06", 12);
    append("\x09\x00\x0a\x09\x86\x80\x01\x02\x03\x04", 10);
    virtio_pci_walk_begin(&walk, &config);
    while (virtio_pci_walk_next(&walk, &cap) > 0) {
        cr_assert(n < 3);
        cr_expect_eq(cap.type, VIRTIO_PCI_STRUCT_VENDOR);
        faults[n++] = cap.fault;
        if (n != 1) {
            cr_expect_eq(virtio_pci_vendor_read8(&config, &cap, 0x8086, 6), VIRTIO_PCI_ERR_VENDOR);
            continue;
        }
        cr_expect_eq(virtio_pci_vendor_read8(&config, &cap, 0x8086, 6), 0x5a);
        cr_expect_eq(virtio_pci_vendor_read8(&config, &cap, 0x8086, 7), 0xa5);
        cr_expect_eq(virtio_pci_vendor_read8(&config, &cap, 0x8086, 8), VIRTIO_PCI_ERR_RANGE);
        cr_expect_eq(virtio_pci_vendor_read8(&config, &cap, 0x1022, 6), VIRTIO_PCI_ERR_VENDOR);
    }
    cr_expect(n == 3 && faults[0] == 0 && faults[1] == VIRTIO_PCI_FAULT_VENDOR &&
              faults[2] == VIRTIO_PCI_FAULT_VENDOR);
}

Test(pci_caps, structures_may_be_longer_than_known)
{
    /* D-CAP-05, V-CAP-01, D-CFG-04: a structure or capability that grew at
     * its tail is placed as before, and the multiplier is where it always was */
    struct virtio_pci_layout layout;
    unsigned notify;

    fresh();
    set_bar(1, VIRTIO_PCI_BAR_MEM, 0x10000);
    rfc(1, 1, 0xffff, 0);
    layout = must_scan();
    expect_place(layout.place[1], VIRTIO_PCI_RFC2011, 1, 0, 0xffff);
    fresh();
    modern(1, 4, 0, 0x1000, 48);
    modern(3, 4, 0x1000, 0x800, 16);
    notify = modern(2, 4, 0x3000, 0x1000, 40);
    put32(notify + 16, 4096);
    put32(notify + 20, 0xffffffff);
    layout = must_scan();
    cr_expect_eq(layout.generation, VIRTIO_PCI_MODERN);
    cr_expect_eq(layout.notify_multiplier, 4096);
    expect_place(layout.place[3], VIRTIO_PCI_MODERN, 4, 0x1000, 0x800);
}

Test(pci_caps, device_types)
{
    /* L-PCI-01, L-PCI-02, D-PCI-01, D-PCI-02: by id; revision and subsystem do not matter where the
     * id says it */
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1041, 0x1100), 1);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1042, 0), 2);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x107f, 0), 0x3f);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1003, 0x1100), 3);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1005, 0x1100), 4);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1009, 9), 9);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1040, 2), 0);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x0fff, 2), 0);
    cr_expect_eq(virtio_pci_device_type(0x1af4, 0x1080, 2), 0);
    cr_expect_eq(virtio_pci_device_type(0x8086, 0x1042, 2), 0);
}

/* ----- BARs ----- */

/* A function whose BARs answer as PCI says: `mask` has the address bits that can be written. */
static struct {
    uint32_t mask[6], type[6], value[6];
    uint32_t command, header;
    unsigned decoding_writes, writes;
} card;

static uint32_t card_read(void *ctx, uint16_t offset)
{
    (void)ctx;
    if (offset == 0)
        return 0x10421af4;
    if (offset == 4)
        return card.command;
    if (offset == 0x0c)
        return card.header << 16;
    if (offset == 0x40)
        return 0xc0070011; /* MSI-X, on, all masked, 8 vectors */
    cr_assert(offset >= 0x10 && offset < 0x28);
    return card.value[offset / 4 - 4] | card.type[offset / 4 - 4];
}
static void card_write(void *ctx, uint16_t offset, uint32_t value)
{
    (void)ctx;
    card.writes++;
    if (offset == 4) {
        cr_assert_eq(value >> 16, 0); /* the status bits would be cleared by ones */
        card.command = (card.command & 0xffff0000) | value;
    } else if (offset == 0x40) {
        card.header = value; /* borrowed */
    } else {
        cr_assert(offset >= 0x10 && offset < 0x28);
        card.decoding_writes += (card.command & 3) != 0;
        card.value[offset / 4 - 4] = value & card.mask[offset / 4 - 4];
    }
}

static const struct virtio_pci_config card_config = {card_read, card_write, NULL};

static void card_fresh(void)
{
    memset(&card, 0, sizeof(card));
    card.command = 0x12340507;
    card.mask[0] = 0x0000ffc0; /* I/O, 64 bytes, upper half wired to 0 */
    card.type[0] = 1;
    card.value[0] = 0xc000;
    card.mask[1] = 0xfffff000; /* memory below 4 GiB, 4 KiB */
    card.mask[2] = 0xffffc000; /* 64 bits wide, 16 KiB */
    card.type[2] = 0xc;
    card.mask[3] = 0xffffffff;
    card.value[3] = 0x12;
    card.mask[5] = 0xfffff000; /* 64 bits wide in the last register: cannot be */
    card.type[5] = 4;
}

Test(pci_bars, sized_and_left_as_they_were)
{
    /* I/O, 32 and 64 bits; not decoding meanwhile */
    struct virtio_pci_bar bars[6];
    uint32_t before[6];

    card_fresh();
    memcpy(before, card.value, sizeof(before));
    cr_assert_eq(virtio_pci_bars_size(&card_config, bars), 0);
    cr_expect(bars[0].kind == VIRTIO_PCI_BAR_IO && bars[0].length == 64 && bars[0].base == 0xc000);
    cr_expect(bars[1].kind == VIRTIO_PCI_BAR_MEM && bars[1].length == 4096 && !bars[1].wide);
    cr_expect(bars[2].kind == VIRTIO_PCI_BAR_MEM && bars[2].length == 0x4000 && bars[2].wide);
    cr_expect_eq(bars[2].base, UINT64_C(0x1200000000));
    for (unsigned i = 3; i < 6; i++)
        cr_expect_eq(bars[i].kind, VIRTIO_PCI_BAR_NONE);
    cr_expect_eq(memcmp(before, card.value, sizeof(before)), 0);
    cr_expect_eq(card.command, 0x12340507);
    cr_expect_eq(card.decoding_writes, 0);
}

Test(pci_bars, assigned_aligned_and_in_range)
{
    struct virtio_pci_ranges ranges = {{0xc001, 0xd000}, {0xe0000100, 0xe0002000}, {0, 0}};
    struct virtio_pci_bar bars[6];

    card_fresh(); /* */
    card.command &= 0xffff0000;
    cr_assert_eq(virtio_pci_bars_size(&card_config, bars), 0);
    /* No room for the wide one: nothing is written, nothing taken. */
    card.writes = 0;
    cr_expect_eq(virtio_pci_bars_assign(&card_config, bars, &ranges), VIRTIO_PCI_ERR_ROOM);
    cr_expect(card.writes == 0 && ranges.io.next == 0xc001 && bars[1].base == 0);
    ranges.memory64.next = UINT64_C(0x800001000);
    ranges.memory64.end = UINT64_C(0x800010000);
    cr_assert_eq(virtio_pci_bars_assign(&card_config, bars, &ranges), 0);
    cr_expect(card.value[0] == 0xc040 && bars[0].base == 0xc040);
    cr_expect(card.value[1] == 0xe0001000 && bars[1].base == 0xe0001000);
    cr_expect(card.value[2] == 0x4000 && card.value[3] == 8);
    cr_expect_eq(bars[2].base, UINT64_C(0x800004000));
    cr_expect_eq(card.command & 0xffff, 7);
    cr_expect_eq(card.decoding_writes, 0);
    cr_expect(ranges.io.next == 0xc080 && ranges.memory.next == 0xe0002000);
    /* A machine without I/O space does without that BAR. */
    ranges.io.end = 0;
    ranges.memory.next = 0xe0000000;
    cr_assert_eq(virtio_pci_bars_assign(&card_config, bars, &ranges), 0);
    cr_expect(bars[0].kind == VIRTIO_PCI_BAR_NONE && (card.command & 3) == 2);
    /* A BAR that does not keep its address: decoding stays off. */
    card_fresh();
    cr_assert_eq(virtio_pci_bars_size(&card_config, bars), 0);
    ranges.io.next = 0x10000;
    ranges.io.end = 0x20000;
    ranges.memory.next = 0xe0000000;
    cr_expect_eq(virtio_pci_bars_assign(&card_config, bars, &ranges), VIRTIO_PCI_ERR_REFUSED);
    cr_expect_eq(card.command & 3, 0);
}

Test(pci_bars, what_cannot_be_sized)
{
    struct virtio_pci_config dump = {card_read, NULL, NULL};
    struct virtio_pci_ranges ranges = {{0, 0}, {0, 0}, {0, 0}};
    struct virtio_pci_bar bars[6];
    struct virtio_pci_layout layout;

    card_fresh();
    memset(&layout, 0, sizeof(layout));
    memset(bars, 0, sizeof(bars));
    cr_expect_eq(virtio_pci_bars_size(&dump, bars), VIRTIO_PCI_ERR_READ_ONLY);
    cr_expect_eq(virtio_pci_bars_assign(&dump, bars, &ranges), VIRTIO_PCI_ERR_READ_ONLY);
    cr_expect_eq(virtio_pci_command(&dump, 1, 0), VIRTIO_PCI_ERR_READ_ONLY);
    cr_expect_eq(virtio_pci_msix_set_on(&dump, &layout, true), VIRTIO_PCI_ERR_READ_ONLY);
    card.header = 1;
    cr_expect_eq(virtio_pci_bars_size(&card_config, bars), VIRTIO_PCI_ERR_HEADER);
    cr_expect_eq(card.writes, 0);
}

Test(pci_bars, msix_and_command_bits)
{
    /* enable is bit 31 of the first dword, the mask of all is bit 30 */
    struct virtio_pci_layout layout;

    card_fresh();
    memset(&layout, 0, sizeof(layout));
    cr_expect_eq(virtio_pci_msix_set_on(&card_config, &layout, true), VIRTIO_PCI_ERR_ABSENT);
    layout.msix = 0x40;
    cr_assert_eq(virtio_pci_msix_set_on(&card_config, &layout, true), 0);
    cr_expect(card.header == 0x80070011 && layout.msix_on);
    cr_assert_eq(virtio_pci_msix_set_on(&card_config, &layout, false), 0);
    cr_expect(card.header == 0x00070011 && !layout.msix_on);
    cr_assert_eq(virtio_pci_command(&card_config, VIRTIO_PCI_COMMAND_INTX_OFF, 0x101), 0);
    cr_expect_eq(card.command, 0x12340406);
}

Test(pci_bars, msix_table_sizes)
{
    /* L-MSX-01, V-MSX-01, D-MSX-01: the field is the size less one, of 11 bits */
    static const struct {
        uint8_t low, high;
        unsigned vectors;
        bool on;
    } cases[] = {{0, 0, 1, false},
                 {1, 0x80, 2, true},
                 {0xff, 0x07, 2048, false},
                 {0xff, 0xff, 2048, true},
                 {0, 0x78, 1, false}};

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t cap[12] = {0x11, 0, cases[i].low, cases[i].high};
        struct virtio_pci_layout layout;

        fresh();
        append(cap, sizeof(cap));
        layout = must_scan();
        cr_expect_eq(layout.msix, 0x40);
        cr_expect_eq(layout.msix_vectors, cases[i].vectors, "case %u", i);
        cr_expect_eq(layout.msix_on, cases[i].on);
    }
}

/* ----- images ----- */

/* I/O, 32 and 64 bits. */
static const struct virtio_pci_bar image_bars[6] = {
    {0, 64, VIRTIO_PCI_BAR_IO, 0},    {0, 0x4000, VIRTIO_PCI_BAR_MEM, 0},
    {0, UINT64_C(0x400000000), VIRTIO_PCI_BAR_MEM, 1}, {0, 0, VIRTIO_PCI_BAR_NONE, 0},
    {0, 0, VIRTIO_PCI_BAR_NONE, 0},   {0, 0, VIRTIO_PCI_BAR_NONE, 0}};

static struct virtio_pci_capability cap_of(uint8_t family, uint8_t type, uint8_t bar,
                                           uint64_t offset, uint64_t length, uint32_t extra)
{
    struct virtio_pci_capability cap;

    memset(&cap, 0, sizeof(cap));
    cap.family = family;
    cap.type = type;
    cap.bar = bar;
    cap.offset = offset;
    cap.length = length;
    cap.extra = extra;
    return cap;
}

static void image_fresh(uint8_t image[256], bool transitional)
{
    struct virtio_pci_identity who;

    memset(&who, 0, sizeof(who));
    memset(image, 0xee, 256);
    who.type = 2;
    who.transitional = transitional;
    who.revision = transitional ? 0 : 1;
    who.subsystem_vendor = 0x1af4;
    who.subsystem = transitional ? 2 : 0x1100;
    who.class_code = 0x018000;
    who.interrupt_pin = 1;
    cr_assert_eq(virtio_pci_image_header(image, &who), 0);
}

Test(pci_image, header)
{
    /* L-PCI-01, V-PCI-01, V-PCI-02 */
    static const uint16_t transitional[][2] = {{1, 0x1000}, {2, 0x1001}, {5, 0x1002}, {3, 0x1003},
                                               {8, 0x1004}, {4, 0x1005}, {9, 0x1009}};
    struct virtio_pci_identity who;
    uint8_t image[256];

    image_fresh(image, false);
    cr_expect_eq(memcmp(image, "\xf4\x1a\x42\x10\0\0\0\0\x01\x00\x80\x01", 12), 0);
    cr_expect_eq(memcmp(image + 0x2c, "\xf4\x1a\x00\x11", 4), 0);
    cr_expect(image[0x3d] == 1 && image[0x40] == 0xee && image[0x34] == 0);
    memset(&who, 0, sizeof(who));
    who.transitional = true;
    for (unsigned i = 0; i < 7; i++) {
        who.type = who.subsystem = transitional[i][0];
        cr_assert_eq(virtio_pci_image_header(image, &who), 0);
        cr_expect_eq(image[2] | image[3] << 8, transitional[i][1]);
    }
    who.type = who.subsystem = 16; /* has no transitional id */
    cr_expect_eq(virtio_pci_image_header(image, &who), VIRTIO_PCI_ERR_FIELD);
    who.type = who.subsystem = 2;
    who.revision = 1;
    cr_expect_eq(virtio_pci_image_header(image, &who), VIRTIO_PCI_ERR_FIELD);
    who.transitional = false;
    who.subsystem = 0x3f;
    cr_expect_eq(virtio_pci_image_header(image, &who), VIRTIO_PCI_ERR_FIELD);
    who.subsystem = 0x40;
    cr_expect_eq(virtio_pci_image_header(image, &who), 0);
    who.revision = 0;
    cr_expect_eq(virtio_pci_image_header(image, &who), VIRTIO_PCI_ERR_FIELD);
}

Test(pci_image, rfc_capabilities_as_golden_bytes)
{
    /* G-01 to G-03, R-01 to, R-AMB-1, R-AMB-3, R-AMB-7 */
    struct virtio_pci_capability caps[3] = {
        cap_of(VIRTIO_PCI_RFC2011, 1, 1, 0x1000, 32, 0),
        cap_of(VIRTIO_PCI_RFC2011, 2, 0, 0x10, 2, 0), cap_of(VIRTIO_PCI_RFC2011, 3, 0, 0x13, 1, 0)};
    uint8_t image[256];

    image_fresh(image, true);
    cr_assert_eq(virtio_pci_image_caps(image, 0x40, caps, 3, image_bars), 0x40 + 36);
    cr_expect_eq(memcmp(image + 0x40, "\x09\x4c\x0c\x01\x01\x20\x00\x00\x00\x10\x00\x00"
                                      "\x09\x58\x0c\x02\x00\x02\x00\x00\x10\x00\x00\x00"
                                      "\x09\x00\x0c\x03\x00\x01\x00\x00\x13\x00\x00\x00",
                        36),
                 0);
    cr_expect(image[0x34] == 0x40 && image[6] == 0x10);
}

Test(pci_image, modern_capabilities_as_golden_bytes)
{
    /* V-CAP-01 to V-CAP-04, V-SHM-01, V-VND-01, L-CAP-10: behind what is in the list already */
    struct virtio_pci_capability caps[7] = {
        cap_of(VIRTIO_PCI_MODERN, 1, 1, 0, 60, 0),
        cap_of(VIRTIO_PCI_MODERN, 2, 1, 0x3000, 0x1000, 4),
        cap_of(VIRTIO_PCI_MODERN, 3, 1, 0x1001, 1, 0),
        cap_of(VIRTIO_PCI_MODERN, 4, 1, 0x2000, 96, 0),
        cap_of(VIRTIO_PCI_MODERN, 5, 0, 0, 0, 0),
        cap_of(VIRTIO_PCI_MODERN, 8, 2, UINT64_C(0x100000000), UINT64_C(0x200000000), 0),
        cap_of(VIRTIO_PCI_MODERN, 9, 0, 0, 0, 0x8086)};
    uint8_t image[256];

    caps[5].id = 3;
    image_fresh(image, false);
    image[6] = 0x10;
    image[0x34] = 0x40;
    memcpy(image + 0x40, "\x11\x00\x07\x00\x01\x00\x00\x00\x01\x08\x00\x00", 12);
    cr_assert_eq(virtio_pci_image_caps(image, 0x4c, caps, 7, image_bars), 0x4c + 120);
    cr_expect_eq(image[0x41], 0x4c);
    cr_expect_eq(memcmp(image + 0x4c, "\x09\x5c\x10\x01\x01\0\0\0\0\0\0\0\x3c\0\0\0"
                                      "\x09\x70\x14\x02\x01\0\0\0\0\x30\0\0\0\x10\0\0\x04\0\0\0"
                                      "\x09\x80\x10\x03\x01\0\0\0\x01\x10\0\0\x01\0\0\0"
                                      "\x09\x90\x10\x04\x01\0\0\0\0\x20\0\0\x60\0\0\0"
                                      "\x09\xa4\x14\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                      "\x09\xbc\x18\x08\x02\x03\0\0\0\0\0\0\0\0\0\0\x01\0\0\0"
                                      "\x02\0\0\0"
                                      "\x09\x00\x08\x09\x86\x80\0\0",
                        120),
                 0);
}

Test(pci_image, what_no_device_may_have)
{
    /* V-CAP-03, V-CAP-04, V-NTF-01, V-SHM-01, V-SHM-02, V-VND-01: nothing
     * is written then */
    const struct {
        struct virtio_pci_capability cap;
        int err;
    } cases[] = {
        {cap_of(VIRTIO_PCI_RFC2011, 1, 1, 0x1002, 32, 0), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_RFC2011, 1, 1, 0x1000, 27, 0), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_RFC2011, 1, 1, 0x3ff0, 32, 0), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_RFC2011, 4, 2, 0, 0x1000000, 0), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_RFC2011, 1, 0, 0, 32, 0), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_RFC2011, 1, 6, 0, 32, 0), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_RFC2011, 3, 3, 0, 1, 0), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_MODERN, 2, 1, 0, 4, 3), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_MODERN, 9, 0, 0, 0, 0x1af4), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_MODERN, 8, 0, 0, 16, 0), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_MODERN, 7, 1, 0, 16, 0), VIRTIO_PCI_ERR_FIELD},
        {cap_of(VIRTIO_PCI_MODERN, 1, 1, 0, 56, 0), VIRTIO_PCI_ERR_INCOMPLETE}};
    uint8_t image[256], before[256];

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct virtio_pci_capability cap = cases[i].cap;

        image_fresh(image, true);
        memcpy(before, image, 256);
        cr_expect_eq(virtio_pci_image_caps(image, 0x40, &cap, 1, image_bars), cases[i].err,
                     "case %u", i);
        cr_expect_eq(memcmp(before, image, 256), 0, "case %u", i);
    }
}

Test(pci_image, sets_that_are_not_whole)
{
    /* R-19, V-CAP-03, V-SHM-01: the RFC's may lean on a legacy BAR0 and on nothing else; a region
     * id is said once */
    struct virtio_pci_bar modern_only[6];
    struct virtio_pci_capability header = cap_of(VIRTIO_PCI_RFC2011, 1, 1, 0, 32, 0);
    struct virtio_pci_capability regions[2] = {cap_of(VIRTIO_PCI_MODERN, 8, 2, 0, 0x1000, 0),
                                               cap_of(VIRTIO_PCI_MODERN, 8, 2, 0x1000, 0x1000, 0)};
    uint8_t image[256];

    memcpy(modern_only, image_bars, sizeof(modern_only));
    modern_only[0].kind = VIRTIO_PCI_BAR_NONE;
    image_fresh(image, true);
    cr_expect_eq(virtio_pci_image_caps(image, 0x40, &header, 1, modern_only),
                 VIRTIO_PCI_ERR_INCOMPLETE);
    cr_expect_eq(image[0x34], 0);
    cr_expect_eq(virtio_pci_image_caps(image, 0x40, &header, 1, image_bars), 0x4c);
    image_fresh(image, false);
    cr_expect_eq(virtio_pci_image_caps(image, 0x40, regions, 2, image_bars), VIRTIO_PCI_ERR_FIELD);
    cr_expect_eq(image[0x34], 0);
    regions[1].id = 1;
    cr_expect_eq(virtio_pci_image_caps(image, 0x40, regions, 2, image_bars), 0x70);
}

Test(pci_image, no_room)
{
    struct virtio_pci_capability cap = cap_of(VIRTIO_PCI_RFC2011, 3, 1, 0, 1, 0);
    uint8_t image[256];

    image_fresh(image, true);
    cr_expect_eq(virtio_pci_image_caps(image, 0xf8, &cap, 1, image_bars), VIRTIO_PCI_ERR_ROOM);
    cr_expect_eq(virtio_pci_image_caps(image, 0x3c, &cap, 1, image_bars), VIRTIO_PCI_ERR_FIELD);
    cr_expect_eq(virtio_pci_image_caps(image, 0x42, &cap, 1, image_bars), VIRTIO_PCI_ERR_FIELD);
    cr_expect_eq(virtio_pci_image_caps(image, 0xf4, &cap, 1, image_bars), 0x100);
    cr_expect_eq(virtio_pci_image_caps(image, 0xec, &cap, 1, image_bars), VIRTIO_PCI_ERR_ROOM);
}

Test(pci_image, an_rfc_subset_is_found_again)
{
    /* every subset of the four structures, through the image */
    for (unsigned subset = 1; subset < 16; subset++) {
        struct virtio_pci_capability caps[4];
        struct virtio_pci_config config;
        struct virtio_pci_layout layout;
        uint8_t image[256];
        unsigned n = 0;

        image_fresh(image, true);
        for (uint8_t type = 1; type <= 4; type++) {
            if (subset >> (type - 1) & 1)
                caps[n++] = cap_of(VIRTIO_PCI_RFC2011, type, 1, 0x100u * type, 64, 0);
        }
        cr_assert_eq(virtio_pci_image_caps(image, 0x50, caps, n, image_bars), 0x50 + 12 * (int)n);
        config.read32 = virtio_pci_image_read32;
        config.write32 = NULL;
        config.ctx = image;
        cr_assert_eq(virtio_pci_scan(&layout, &config, image_bars, VIRTIO_PCI_STRICT), 0);
        for (unsigned type = 1; type <= 4; type++) {
            struct virtio_pci_place at =
                virtio_pci_locate(&layout, (enum virtio_pci_struct)type, false);

            if (subset >> (type - 1) & 1)
                expect_place(at, VIRTIO_PCI_RFC2011, 1, 0x100 * type, 64);
            else
                cr_expect(at.found == VIRTIO_PCI_LEGACY && at.bar == 0);
        }
    }
}
