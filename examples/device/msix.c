// SPDX-License-Identifier: MIT-0
/* MSI-X of an emulated PCI function; see msix.h. */
#include "msix.h"

enum {
    ADDRESS,
    ADDRESS_HIGH,
    DATA,
    CONTROL,
    ENTRY = 16,              /* bytes */
    MASKED = 1,              /* in CONTROL */
    CAPABILITY_ON = 0x8000,  /* in Message Control */
    CAPABILITY_MASK = 0x4000 /* all vectors are masked */
};

/* What the guest can change of each dword: addresses are aligned, only one bit of control is there.
 */
static const uint32_t writable[] = {0xfffffffc, 0xffffffff, 0xffffffff, MASKED};

struct msix_message msix_message(const struct msix *msix, uint16_t vector)
{
    const uint32_t *entry = msix->table[vector];
    struct msix_message message = {entry[ADDRESS] | (uint64_t)entry[ADDRESS_HIGH] << 32,
                                   entry[DATA]};

    return message;
}

void msix_settle(struct msix *msix)
{
    for (uint16_t vector = 0; vector < msix->count && !msix->off; vector++) {
        struct msix_message message = msix_message(msix, vector);

        if ((msix->pending >> vector & 1) == 0 || (msix->table[vector][CONTROL] & MASKED) != 0)
            continue;
        msix->pending &= ~(UINT32_C(1) << vector);
        msix->send(msix->ctx, vector, &message);
    }
}

void msix_init(struct msix *msix)
{
    msix->off = true;
    msix->pending = 0;
    for (uint16_t vector = 0; vector < msix->count; vector++) {
        for (unsigned i = 0; i < 4; i++)
            msix->table[vector][i] = i == CONTROL ? MASKED : 0;
    }
}

void msix_control(struct msix *msix, uint16_t control)
{
    msix->off = (control & (CAPABILITY_ON | CAPABILITY_MASK)) != CAPABILITY_ON;
    msix_settle(msix);
}

void msix_raise(struct msix *msix, uint16_t vector)
{
    if (vector >= msix->count)
        return;
    msix->pending |= UINT32_C(1) << vector;
    msix_settle(msix);
}

static uint32_t read32(const struct msix *msix, uint64_t offset)
{
    if (offset < (uint64_t)msix->count * ENTRY)
        return msix->table[offset / ENTRY][offset % ENTRY / 4];
    return offset == MSIX_PENDING_AT ? msix->pending : 0;
}

static void write32(struct msix *msix, uint64_t offset, uint32_t value)
{
    unsigned field = offset % ENTRY / 4;

    if (offset < (uint64_t)msix->count * ENTRY)
        msix->table[offset / ENTRY][field] = value & writable[field];
}

static bool aligned(uint64_t offset, unsigned width)
{
    return (width == 4 || width == 8) && offset % width == 0;
}

uint64_t msix_read(const struct msix *msix, uint64_t offset, unsigned width)
{
    uint64_t value;

    if (!aligned(offset, width))
        return 0;
    value = read32(msix, offset);
    return width == 4 ? value : value | (uint64_t)read32(msix, offset + 4) << 32;
}

void msix_write(struct msix *msix, uint64_t offset, unsigned width, uint64_t value)
{
    if (!aligned(offset, width))
        return;
    write32(msix, offset, (uint32_t)value);
    if (width == 8)
        write32(msix, offset + 4, (uint32_t)(value >> 32));
}
