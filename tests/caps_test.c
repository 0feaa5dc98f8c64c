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
