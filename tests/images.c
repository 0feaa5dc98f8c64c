// SPDX-License-Identifier: MIT-0
/* Drives both sides of the ring through a fixed list of scenarios and prints, as JSON lines, what
 * was asked at the level of the API, what the calls answered, and which bytes of ring and table
 * memory changed. It judges nothing: tests/decoder.py does, which was written from the
 * specification alone. Run both with tests/images.sh. Prints the same on every CPU but for the byte
 * order of legacy rings. */
#define VIRTIO_RING_FLAGS 0x7f8 /* all, VIRTQ_FOREIGN_ENDIAN too */
#include "tests/support/test_config.h"

#include <stdio.h>
#include <string.h>

#include "virtio_ring.h"

enum {
    MOST = 256,       /* largest queue; also the bound of loops that a broken ring could keep
                         going */
    PAGE = 4096,      /* alignment of the memory, and of legacy rings */
    GUARD = 64,       /* bytes shown on either side of a ring */
    RING_FILL = 0xa5, /* what ring memory holds before a queue starts */
    TABLES = 256,     /* one for each buffer that can be outstanding */
    TABLE_ENTRIES = 8,
    TABLE_BYTES = 16 * TABLE_ENTRIES + 16, /* shown: one entry more than the table has */
    TABLE_FILL = 0x5a
};

VIRTIO_STATIC_ASSERT((VIRTIO_RING_FLAGS & VIRTQ_FOREIGN_ENDIAN) != 0, "all kinds of queues");

/* Where the device sees table 0; no alignment may be asked of it (V-IND-03). */
#define TABLE_BASE UINT64_C(0x123456789abcde02)

/* Memory to show: printed are the bytes that differ from what was printed last. */
struct region {
    const char *name;
    uint8_t *mem;
    uint8_t *seen;
    uint32_t bytes;
};

/* A buffer that the device side holds between pop and push. */
struct held {
    uint32_t token;
    uint32_t writable; /* bytes */
};

struct bench {
    uint16_t num;
    uint16_t flags;
    uint32_t align;
    struct virtq_position start;
    struct virtq_areas areas;
    struct virtq_driver driver;
    struct virtq_device device;
    struct virtq_slot slots[MOST];
    struct virtq_chain chain;
    struct virtq_seg popped[MOST];
    struct held held[MOST];
    uint32_t held_count;
    uint32_t serial;        /* of the buffer added last; its cookie */
    uint32_t owner[TABLES]; /* serial of the buffer that uses the table, or 0 */
    uint32_t random;
};

static _Alignas(4096) uint8_t ring_mem[PAGE + 3 * PAGE + PAGE];
static uint8_t ring_seen[sizeof(ring_mem)];
static _Alignas(8) uint8_t table_mem[TABLES * TABLE_BYTES];
static uint8_t table_seen[sizeof(table_mem)];
static struct region ring = {"ring", ring_mem + PAGE - GUARD, ring_seen, 0};
static struct region tables = {"tables", table_mem, table_seen, sizeof(table_mem)};
static struct bench bench;

/* ---------------------------------------------------------------------------
 * Printing
 * --------------------------------------------------------------------------- */
static void op(const char *name)
{
    printf("{\"op\":\"%s\"", name);
}

static void number(const char *key, long long value)
{
    printf(",\"%s\":%lld", key, value);
}

static void truth(const char *key, bool value)
{
    printf(",\"%s\":%s", key, value ? "true" : "false");
}

static void segments(const char *key, const struct virtq_seg *seg, uint32_t count)
{
    printf(",\"%s\":[", key);
    for (uint32_t i = 0; i < count; i++)
        printf("%s[%llu,%lu]", i > 0 ? "," : "", (unsigned long long)seg[i].addr,
               (unsigned long)seg[i].len);
    printf("]");
}

static void position(struct virtq_position at)
{
    number("avail_idx", at.avail_idx);
    number("used_idx", at.used_idx);
}

static uint32_t changed_run(const struct region *region, uint32_t at)
{
    uint32_t end = at;

    while (end < region->bytes && region->mem[end] != region->seen[end])
        end++;
    return end - at;
}

static void changes(struct region *region)
{
    const char *comma = "";

    printf(",\"%s\":[", region->name);
    if (memcmp(region->mem, region->seen, region->bytes) != 0) {
        for (uint32_t at = 0; at < region->bytes; at++) {
            uint32_t run = changed_run(region, at);

            if (run == 0)
                continue;
            printf("%s[%lu,\"", comma, (unsigned long)at);
            for (uint32_t i = at; i < at + run; i++)
                printf("%02x", region->mem[i]);
            printf("\"]");
            memcpy(region->seen + at, region->mem + at, run);
            at += run;
            comma = ",";
        }
    }
    printf("]");
}

static void end(const struct bench *b)
{
    changes(&ring);
    if (b->flags & VIRTQ_INDIRECT)
        changes(&tables);
    printf("}\n");
}

/* ---------------------------------------------------------------------------
 * Both sides, call by call
 * --------------------------------------------------------------------------- */
static const void *map_table(void *ctx, uint64_t addr, uint32_t len)
{
    uint64_t at = addr - TABLE_BASE;

    (void)ctx;
    return at < sizeof(table_mem) && len <= sizeof(table_mem) - at ? table_mem + at : NULL;
}

static void clear_tables(struct bench *b)
{
    memset(table_mem, TABLE_FILL, sizeof(table_mem));
    memset(table_seen, TABLE_FILL, sizeof(table_seen));
    memset(b->owner, 0, sizeof(b->owner));
}

static void place(struct bench *b)
{
    struct virtq_offsets offsets = virtq_area_offsets(b->num, b->align, b->flags);

    memset(ring_mem, RING_FILL, sizeof(ring_mem));
    memset(ring_seen, RING_FILL, sizeof(ring_seen));
    ring.bytes = GUARD + offsets.total + GUARD;
    clear_tables(b);
    virtq_areas_set(&b->areas, ring_mem + PAGE, b->num, b->align, b->flags);
    op("areas");
    number("num", b->num);
    number("align", b->align);
    truth("packed", b->flags & VIRTQ_PACKED);
    truth("event_idx", b->flags & VIRTQ_EVENT_IDX);
    truth("indirect", b->flags & VIRTQ_INDIRECT);
    truth("in_order", b->flags & VIRTQ_IN_ORDER);
    truth("legacy", b->flags & VIRTQ_LEGACY);
    truth("foreign", b->flags & VIRTQ_FOREIGN_ENDIAN);
    truth("notify_on_empty", b->flags & VIRTQ_NOTIFY_ON_EMPTY);
    number("driver", offsets.driver);
    number("device", offsets.device);
    number("total", offsets.total);
    number("guard", GUARD);
    number("ring_fill", RING_FILL);
    number("table_fill", TABLE_FILL);
    number("table_bytes", TABLE_BYTES);
    number("table_count", TABLES);
    end(b);
}

static bool driver_init(struct bench *b)
{
    int rc;

    memset(&b->driver, 0, sizeof(b->driver));
    memset(b->owner, 0, sizeof(b->owner));
    op("driver_init");
    rc = virtq_driver_init(&b->driver, &b->areas, b->slots);
    number("rc", rc);
    end(b);
    return rc == 0;
}

static void driver_restore(struct bench *b, struct virtq_position at)
{
    op("driver_restore");
    position(at);
    number("rc", virtq_driver_restore(&b->driver, at));
    end(b);
}

static void driver_save(struct bench *b)
{
    op("driver_save");
    position(virtq_driver_save(&b->driver));
    end(b);
}

static bool device_init(struct bench *b)
{
    int rc;

    memset(&b->device, 0, sizeof(b->device));
    b->chain.seg = b->popped;
    b->chain.capacity = MOST;
    op("device_init");
    rc = virtq_device_init(&b->device, &b->areas, map_table, NULL);
    number("rc", rc);
    end(b);
    return rc == 0;
}

static void device_restore(struct bench *b, struct virtq_position at)
{
    op("device_restore");
    position(at);
    number("rc", virtq_device_restore(&b->device, at));
    end(b);
}

static struct virtq_position device_save(struct bench *b)
{
    struct virtq_position at = virtq_device_save(&b->device);

    op("device_save");
    position(at);
    end(b);
    return at;
}

/* Addresses and lengths in which no two bytes are alike; 256 of them stay below 2^32 bytes. */
static void segments_make(struct virtq_seg *seg, uint32_t count, uint32_t serial)
{
    for (uint32_t i = 0; i < count; i++) {
        seg[i].addr = UINT64_C(0x1122334400000000) + ((uint64_t)serial << 24) + i * 0x301u;
        seg[i].len = (i == 0 ? 0x01020304u : 0x00050607u) + serial + i;
    }
    if (serial % 7 == 3)
        seg[count - 1].len = 1;
}

/* A free one; when every table is out, so is every descriptor, and the add will be refused. */
static uint32_t table_get(struct bench *b)
{
    for (uint32_t i = 0; i < TABLES; i++)
        if (b->owner[i] == 0)
            return i;
    return 0;
}

static void tables_put(struct bench *b, uint32_t serial)
{
    for (uint32_t i = 0; i < TABLES; i++)
        if (b->owner[i] == serial)
            b->owner[i] = 0;
}

/* The call that fits the shape; every other buffer of a shape with a short form takes the general
 * one. */
static int add_direct(struct bench *b, const struct virtq_buffer *buffer, void *cookie)
{
    const struct virtq_seg *seg = buffer->seg;

    if (b->serial % 2 != 0 && buffer->readable == 1 && buffer->writable == 0)
        return virtq_driver_add_readable(&b->driver, seg[0], cookie);
    if (b->serial % 2 != 0 && buffer->readable == 0 && buffer->writable == 1)
        return virtq_driver_add_writable(&b->driver, seg[0], cookie);
    if (b->serial % 2 != 0 && buffer->readable == 1 && buffer->writable == 1)
        return virtq_driver_add_pair(&b->driver, seg[0], seg[1], cookie);
    return virtq_driver_add(&b->driver, buffer, cookie);
}

static int add_indirect(struct bench *b, const struct virtq_buffer *buffer, void *cookie)
{
    uint32_t at = table_get(b);
    struct virtq_table table;
    int rc;

    table.mem = table_mem + at * TABLE_BYTES;
    table.addr = TABLE_BASE + at * TABLE_BYTES;
    table.capacity = b->serial % 5 == 4 ? 2 : TABLE_ENTRIES;
    number("table", at);
    number("table_capacity", table.capacity);
    printf(",\"table_addr\":%llu", (unsigned long long)table.addr);
    rc = virtq_driver_add_indirect(&b->driver, buffer, &table, cookie);
    if (rc == 0)
        b->owner[at] = b->serial;
    return rc;
}

enum how { DIRECT, INDIRECT };

static bool add(struct bench *b, uint32_t readable, uint32_t writable, enum how how)
{
    struct virtq_seg seg[MOST + 1];
    struct virtq_buffer buffer;
    void *cookie = (void *)(uintptr_t)(b->serial + 1);
    int rc;

    b->serial++;
    segments_make(seg, readable + writable, b->serial);
    buffer.seg = seg;
    buffer.readable = (uint16_t)readable;
    buffer.writable = (uint16_t)writable;
    op("add");
    number("cookie", b->serial);
    segments("readable", seg, readable);
    segments("writable", seg + readable, writable);
    rc = how == INDIRECT ? add_indirect(b, &buffer, cookie) : add_direct(b, &buffer, cookie);
    number("rc", rc);
    number("free", virtq_driver_free_count(&b->driver));
    end(b);
    return rc == 0;
}

static void publish(struct bench *b)
{
    op("publish");
    virtq_driver_publish(&b->driver);
    number("notification_data", virtq_driver_notification_data(&b->driver));
    end(b);
}

static void kick_due(struct bench *b)
{
    op("kick_due");
    truth("result", virtq_driver_kick_due(&b->driver));
    end(b);
}

static void publish_and_kick(struct bench *b)
{
    publish(b);
    kick_due(b);
}

static uint32_t bytes_of(const struct virtq_seg *seg, uint32_t count)
{
    uint32_t bytes = 0;

    for (uint32_t i = 0; i < count; i++)
        bytes += seg[i].len;
    return bytes;
}

static bool pop(struct bench *b)
{
    struct held *held;
    int rc;

    op("pop");
    rc = virtq_device_pop(&b->device, &b->chain);
    number("rc", rc);
    if (rc == 1 && b->held_count < MOST) {
        held = &b->held[b->held_count++];
        held->token = b->chain.token;
        held->writable = bytes_of(b->popped + b->chain.readable, b->chain.writable);
        number("token", held->token);
        segments("readable", b->popped, b->chain.readable);
        segments("writable", b->popped + b->chain.readable, b->chain.writable);
    }
    end(b);
    return rc == 1;
}

static void pop_all(struct bench *b)
{
    for (uint32_t i = 0; i <= MOST && pop(b); i++)
        ;
}

enum fill { FULL, ALL, PARTLY, LITTLE, NOTHING }; /* ALL: as FULL, but by the plain call */

static uint32_t written_of(uint32_t writable, enum fill fill)
{
    switch (fill) {
    case FULL:
    case ALL: return writable;
    case PARTLY: return writable > 0 ? writable - 1 : 0;
    case LITTLE: return writable > 0 ? 1 : 0;
    case NOTHING: break;
    }
    return 0;
}

static void push(struct bench *b, uint32_t which, enum fill fill)
{
    struct held held;
    uint32_t written;

    if (which >= b->held_count)
        return;
    held = b->held[which];
    written = written_of(held.writable, fill);
    b->held_count--;
    memmove(&b->held[which], &b->held[which + 1], (b->held_count - which) * sizeof(held));
    op("push");
    number("token", held.token);
    number("written", written);
    truth("full", fill == FULL);
    if (fill == FULL)
        virtq_device_push_full(&b->device, held.token, written);
    else
        virtq_device_push(&b->device, held.token, written);
    end(b);
}

static void flush(struct bench *b)
{
    op("flush");
    virtq_device_flush(&b->device);
    end(b);
}

static void irq_due(struct bench *b)
{
    op("irq_due");
    truth("result", virtq_device_irq_due(&b->device));
    end(b);
}

static void flush_and_irq(struct bench *b)
{
    flush(b);
    irq_due(b);
}

static void taken(struct bench *b, const struct virtq_done *done, int count)
{
    printf(",\"done\":[");
    for (int i = 0; i < count; i++) {
        uint32_t serial = (uint32_t)(uintptr_t)done[i].cookie;

        printf("%s[%lu,%lu]", i > 0 ? "," : "", (unsigned long)serial,
               (unsigned long)done[i].written);
        tables_put(b, serial);
    }
    printf("]");
    number("free", virtq_driver_free_count(&b->driver));
}

static bool take(struct bench *b)
{
    struct virtq_done done;
    int rc = virtq_driver_take(&b->driver, &done);

    op("take");
    number("max", 1);
    number("rc", rc);
    taken(b, &done, rc);
    end(b);
    return rc == 1;
}

static void take_all(struct bench *b)
{
    for (uint32_t i = 0; i <= MOST && take(b); i++)
        ;
}

static bool take_batch(struct bench *b, uint16_t max)
{
    struct virtq_done done[MOST];
    int32_t rc = virtq_driver_take_batch(&b->driver, done, max);

    op("take");
    number("max", max);
    number("rc", rc);
    taken(b, done, rc);
    end(b);
    return rc > 0;
}

static void irq_off(struct bench *b)
{
    op("irq_off");
    virtq_driver_irq_off(&b->driver);
    end(b);
}

static bool irq_on(struct bench *b)
{
    bool result = virtq_driver_irq_on(&b->driver);

    op("irq_on");
    truth("result", result);
    end(b);
    return result;
}

static void irq_on_after(struct bench *b)
{
    op("irq_on_after");
    truth("result", virtq_driver_irq_on_after(&b->driver));
    end(b);
}

static void kick_off(struct bench *b)
{
    op("kick_off");
    virtq_device_kick_off(&b->device);
    end(b);
}

static bool kick_on(struct bench *b)
{
    bool result = virtq_device_kick_on(&b->device);

    op("kick_on");
    truth("result", result);
    end(b);
    return result;
}

static void detach(struct bench *b)
{
    uint16_t at = 0;
    void *cookie;
    const char *comma = "";

    op("detach");
    printf(",\"cookies\":[");
    for (uint32_t i = 0; i <= MOST && virtq_driver_detach(&b->driver, &at, &cookie); i++) {
        printf("%s%lu", comma, (unsigned long)(uintptr_t)cookie);
        comma = ",";
    }
    printf("]");
    end(b);
    b->held_count = 0;
}

/* ---------------------------------------------------------------------------
 * A peer's own hand: what the other side may legally write
 * --------------------------------------------------------------------------- */
static void poke(struct bench *b, const struct region *region, uint8_t *at, const uint8_t *bytes,
                 uint32_t count)
{
    memcpy(at, bytes, count);
    op("poke");
    printf(",\"region\":\"%s\"", region->name);
    number("at", at - region->mem);
    printf(",\"bytes\":\"");
    for (uint32_t i = 0; i < count; i++)
        printf("%02x", bytes[i]);
    printf("\"");
    end(b);
}

/* Found out without the header's help. */
static bool cpu_is_big(void)
{
    const uint16_t one = 1;

    return *(const uint8_t *)&one == 0;
}

static void put16(const struct bench *b, uint8_t *at, uint16_t value)
{
    bool foreign = (b->flags & VIRTQ_FOREIGN_ENDIAN) != 0;
    bool big = (b->flags & VIRTQ_LEGACY) != 0 && cpu_is_big() != foreign;

    at[big] = (uint8_t)value;
    at[!big] = (uint8_t)(value >> 8);
}

static void split_event(struct bench *b, const char *side, uint16_t event)
{
    bool device = strcmp(side, "device") == 0;
    uint8_t *area = (uint8_t *)(device ? b->areas.device : b->areas.driver);

    put16(b, area + 4 + b->num * (device ? 8 : 2), event);
    op("peer_event");
    printf(",\"side\":\"%s\"", side);
    number("event", event);
    end(b);
}

static void packed_event(struct bench *b, const char *side, uint16_t desc, uint16_t mode)
{
    bool device = strcmp(side, "device") == 0;
    uint8_t *area = (uint8_t *)(device ? b->areas.device : b->areas.driver);

    put16(b, area, desc);
    put16(b, area + 2, mode);
    op("peer_event");
    printf(",\"side\":\"%s\"", side);
    number("event", desc);
    number("mode", mode);
    end(b);
}

/* ---------------------------------------------------------------------------
 * Scripts: what every kind of queue goes through
 * --------------------------------------------------------------------------- */
typedef void (*script_fn)(struct bench *b);

static uint32_t random_below(struct bench *b, uint32_t limit)
{
    b->random = b->random * 1664525u + 1013904223u;
    return (b->random >> 16) % limit;
}

static uint32_t at_most(uint32_t value, uint32_t limit)
{
    return value < limit ? value : limit;
}

/* Which buffer to complete next: the newest, unless the order is promised. */
static uint32_t last_held(const struct bench *b)
{
    return b->flags & VIRTQ_IN_ORDER ? 0 : b->held_count - 1;
}

static bool start_sides(struct bench *b)
{
    struct virtq_position zero = {0, 0};
    bool moved;

    if (b->flags & VIRTQ_PACKED)
        zero.avail_idx = zero.used_idx = 0x8000;
    moved = memcmp(&b->start, &zero, sizeof(zero)) != 0;
    b->held_count = 0;
    if (!driver_init(b))
        return false;
    if (moved)
        driver_restore(b, b->start);
    if (!device_init(b))
        return false;
    if (moved)
        device_restore(b, b->start);
    return true;
}

/* Rounds of a script: several laps of a small ring, but not of one that has many slots to print. */
static uint32_t rounds(const struct bench *b, uint32_t small)
{
    return b->num > 8 ? 2 : small;
}

/* One buffer through all its stations, asking everything that can be asked on the way. */
static void one_buffer(struct bench *b, uint32_t readable, uint32_t writable, enum how how,
                       enum fill fill)
{
    if (readable + writable > b->num)
        return;
    add(b, readable, writable, how);
    pop(b);
    publish_and_kick(b);
    driver_save(b);
    take(b);
    pop(b);
    device_save(b);
    pop(b);
    kick_on(b);
    push(b, 0, fill);
    take(b);
    flush_and_irq(b);
    irq_on(b);
    take(b);
    take(b);
    irq_on(b);
}

static void script_single(struct bench *b)
{
    enum how table = b->flags & VIRTQ_INDIRECT ? INDIRECT : DIRECT;

    for (uint32_t lap = 0; lap < (b->num > 3 ? 1u : 2u); lap++) {
        one_buffer(b, 1, 0, DIRECT, NOTHING);
        one_buffer(b, 0, 1, DIRECT, PARTLY);
        one_buffer(b, 1, 1, DIRECT, ALL);
        one_buffer(b, 2, 1, table, FULL);
        one_buffer(b, 1, 0, table, FULL);
        one_buffer(b, 0, 2, table, LITTLE);
        one_buffer(b, 0, 1, DIRECT, NOTHING);
        one_buffer(b, 3, 0, table, ALL);
        one_buffer(b, 2, 2, table, NOTHING);
    }
}

/* Lists of as many descriptors as the ring has; one more fits never, and nothing while they are
 * out. */
static void script_ring(struct bench *b)
{
    static const enum fill fills[5] = {PARTLY, NOTHING, ALL, LITTLE, FULL};

    add(b, b->num, 1, DIRECT);
    for (uint32_t lap = 0; lap < 5; lap++) {
        uint32_t readable = lap == 0 ? b->num : lap == 1 ? 0 : b->num / lap;

        add(b, readable, b->num - readable, DIRECT);
        add(b, 1, 0, DIRECT);
        publish_and_kick(b);
        add(b, 0, 1, DIRECT);
        pop_all(b);
        push(b, 0, fills[lap]);
        flush_and_irq(b);
        add(b, 0, 1, DIRECT);
        take_all(b);
        irq_on(b);
        kick_on(b);
    }
}

/* Lists of one to three descriptors until the ring is full, so that some lie across its end;
 * completed from the newest to the oldest, two with each flush. */
static void fill_ring(struct bench *b, uint32_t round)
{
    for (uint32_t count = 0; count <= MOST; count++) {
        uint32_t length = at_most(1 + (round + count) % 3, b->num);
        uint32_t readable = (round + count) % (length + 1);
        enum how how = (round + count) % 4 == 1 && (b->flags & VIRTQ_INDIRECT) ? INDIRECT : DIRECT;

        if (!add(b, readable, length - readable, how))
            break;
        if (count % 2 == 1)
            publish_and_kick(b);
    }
    publish_and_kick(b);
}

static void script_lists(struct bench *b)
{
    for (uint32_t round = 0; round < rounds(b, 4); round++) {
        fill_ring(b, round);
        pop_all(b);
        kick_on(b);
        for (uint32_t i = 0; b->held_count > 0; i++) {
            push(b, last_held(b), (enum fill)((round + i) % 5));
            if (i % 2 == 1)
                flush_and_irq(b);
            if (i % 3 == 2)
                take(b);
        }
        flush_and_irq(b);
        take_all(b);
        irq_on(b);
    }
}

/* Everything at once: one publish, one flush. With IN_ORDER the runs of full buffers become batches
 * of one used entry each, some across the end of the ring. */
static void script_batch(struct bench *b)
{
    static const enum fill fills[8] = {FULL, FULL, PARTLY, FULL, ALL, NOTHING, FULL, FULL};

    for (uint32_t round = 0; round < rounds(b, 5); round++) {
        uint32_t want = b->num > 4 ? b->num - round : b->num;

        for (uint32_t i = 0; i < want; i++)
            add(b, i % 2, 1 - i % 2, DIRECT);
        publish_and_kick(b);
        pop_all(b);
        for (uint32_t i = 0; b->held_count > 0; i++)
            push(b, last_held(b), fills[(round + i) % 8]);
        take(b);
        irq_on(b);
        flush_and_irq(b);
        irq_on(b);
        irq_on_after(b);
        for (uint32_t i = 0; i <= MOST && take_batch(b, (uint16_t)(1 + round * 2)); i++)
            irq_on(b);
        irq_on(b);
    }
}

/* Notifications off, on, and on after a while, around each decision. */
static void script_events(struct bench *b)
{
    for (uint32_t round = 0; round < 4; round++) {
        uint32_t fits = at_most(b->num, 4 + round);

        kick_off(b);
        irq_off(b);
        add(b, 1, 0, DIRECT);
        publish_and_kick(b);
        kick_due(b);
        kick_on(b);
        pop_all(b);
        kick_on(b);
        for (uint32_t i = 1; i < fits; i++)
            add(b, 0, 1, DIRECT);
        publish_and_kick(b);
        pop_all(b);
        push(b, 0, ALL);
        flush_and_irq(b);
        irq_due(b);
        irq_on_after(b);
        while (b->held_count > 0) {
            push(b, last_held(b), LITTLE);
            flush_and_irq(b);
            irq_on_after(b);
        }
        irq_off(b);
        take_all(b);
        irq_on_after(b);
        irq_on(b);
    }
}

/* The device side moves to another process with buffers in flight; then the queue is given up, its
 * buffers are taken back, and it starts again smaller. */
static void script_move(struct bench *b)
{
    struct virtq_position at;
    uint16_t num = b->num;

    for (uint32_t round = 0; round < rounds(b, 3); round++) {
        fill_ring(b, round);
        pop(b);
        pop(b);
        push(b, 0, PARTLY);
        flush_and_irq(b);
        at = device_save(b);
        if (!device_init(b))
            return;
        device_restore(b, at);
        pop_all(b);
        while (b->held_count > 0)
            push(b, 0, LITTLE);
        flush_and_irq(b);
        take_all(b);
        driver_save(b);
    }
    fill_ring(b, 1);
    detach(b);
    b->num = num > 1 ? num / 2 : 1;
    place(b);
    if (driver_init(b) && device_init(b))
        one_buffer(b, 0, 1, DIRECT, ALL);
    b->num = num;
}

static void mixed_add(struct bench *b)
{
    uint32_t length = 1 + random_below(b, at_most(b->num, TABLE_ENTRIES));
    uint32_t readable = random_below(b, length + 1);
    bool table = (b->flags & VIRTQ_INDIRECT) != 0 && random_below(b, 2) == 0;

    add(b, readable, length - readable, table ? INDIRECT : DIRECT);
}

static void mixed_push(struct bench *b)
{
    uint32_t which;

    if (b->held_count == 0)
        return;
    which = b->flags & VIRTQ_IN_ORDER ? 0 : random_below(b, b->held_count);
    push(b, which, (enum fill)random_below(b, 5));
}

static void mixed_step(struct bench *b)
{
    switch (random_below(b, 14)) {
    case 0:
    case 1:
    case 2: mixed_add(b); break;
    case 3: publish(b); break;
    case 4: publish_and_kick(b); break;
    case 5:
    case 6: pop(b); break;
    case 7:
    case 8: mixed_push(b); break;
    case 9: flush_and_irq(b); break;
    case 10: take_batch(b, (uint16_t)(1 + random_below(b, 3))); break;
    case 11: random_below(b, 3) == 0 ? irq_off(b) : (void)irq_on(b); break;
    case 12: random_below(b, 3) == 0 ? kick_off(b) : (void)kick_on(b); break;
    default: random_below(b, 2) == 0 ? (void)take(b) : flush(b); break;
    }
}

/* No plan at all, but the same on every run. */
static void script_mixed(struct bench *b)
{
    for (uint32_t i = 0; i < 150; i++)
        mixed_step(b);
}

/* ---------------------------------------------------------------------------
 * Queues
 * --------------------------------------------------------------------------- */
struct script {
    const char *name;
    script_fn run;
};

static const struct script scripts[] = {
    {"single", script_single}, {"ring", script_ring},     {"lists", script_lists},
    {"batch", script_batch},   {"events", script_events}, {"move", script_move},
    {"mixed", script_mixed},
};
enum { SCRIPTS = sizeof(scripts) / sizeof(scripts[0]) };

static void scenario(const struct bench *b, const char *name)
{
    printf("{\"scenario\":\"%s %u%s%s%s%s%s: %s\"}\n", b->flags & VIRTQ_PACKED ? "packed" : "split",
           b->num, b->flags & VIRTQ_LEGACY ? " legacy" : "",
           b->flags & VIRTQ_FOREIGN_ENDIAN ? " foreign" : "",
           b->flags & VIRTQ_EVENT_IDX ? " event_idx" : "",
           b->flags & VIRTQ_INDIRECT ? " indirect" : "",
           b->flags & VIRTQ_IN_ORDER ? " in_order" : "", name);
}

static void prepare(struct bench *b, uint16_t num, uint32_t align, uint16_t flags)
{
    memset(b, 0, sizeof(*b));
    b->num = num;
    b->align = align;
    b->flags = flags;
    b->random = 2463534242u;
}

static struct virtq_position both_at(uint16_t idx)
{
    struct virtq_position at;

    at.avail_idx = idx;
    at.used_idx = idx;
    return at;
}

static void run_from(struct bench *b, script_fn run, uint16_t idx)
{
    b->start = both_at(idx);
    place(b);
    if (start_sides(b))
        run(b);
}

static void split_queue(uint16_t num, uint32_t align, uint16_t flags)
{
    static const uint16_t starts[] = {0, 65533};
    struct bench *b = &bench;

    for (uint32_t s = 0; s < SCRIPTS; s++) {
        prepare(b, num, align, flags);
        scenario(b, scripts[s].name);
        for (uint32_t i = 0; i < 2; i++)
            run_from(b, scripts[s].run, starts[i]);
    }
}

/* Every slot and wrap counter of a small ring; of a large one its start and both sides of its end.
 */
static void packed_starts(struct bench *b, script_fn run)
{
    if (b->num > 8) {
        run_from(b, run, 0x8000);
        run_from(b, run, (uint16_t)(b->num - 1));
        return;
    }
    for (uint32_t slot = 0; slot < b->num; slot++) {
        run_from(b, run, (uint16_t)(0x8000 | slot));
        run_from(b, run, (uint16_t)slot);
    }
}

static void packed_queue(uint16_t num, uint16_t flags)
{
    struct bench *b = &bench;

    for (uint32_t s = 0; s < SCRIPTS; s++) {
        prepare(b, num, 64, (uint16_t)(flags | VIRTQ_PACKED));
        scenario(b, scripts[s].name);
        packed_starts(b, scripts[s].run);
    }
}

static uint16_t features(uint32_t which)
{
    return (uint16_t)((which & 1 ? VIRTQ_EVENT_IDX : 0) | (which & 2 ? VIRTQ_INDIRECT : 0) |
                      (which & 4 ? VIRTQ_IN_ORDER : 0));
}

static void all_split(void)
{
    static const uint16_t nums[] = {1, 2, 4, 8, MOST};

    for (uint32_t n = 0; n < sizeof(nums) / sizeof(nums[0]); n++) {
        for (uint32_t which = 0; which < 8; which++)
            split_queue(nums[n], 64, features(which));
        for (uint32_t which = 0; which < 4; which++)
            split_queue(nums[n], PAGE, features(which) | VIRTQ_LEGACY);
    }
    for (uint32_t which = 0; which < 4; which++)
        split_queue(4, 4, features(which) | VIRTQ_LEGACY | VIRTQ_FOREIGN_ENDIAN);
}

static void all_packed(void)
{
    static const uint16_t nums[] = {1, 2, 3, 5, 7, 8, MOST};

    for (uint32_t n = 0; n < sizeof(nums) / sizeof(nums[0]); n++)
        for (uint32_t which = 0; which < 8; which++)
            packed_queue(nums[n], features(which));
}

/* ---------------------------------------------------------------------------
 * Layout and event tests
 * --------------------------------------------------------------------------- */
static void offsets(uint16_t num, uint32_t align, uint16_t flags)
{
    struct virtq_offsets at = virtq_area_offsets(num, align, flags);

    op("offsets");
    truth("packed", flags & VIRTQ_PACKED);
    number("num", num);
    number("align", align);
    number("driver", at.driver);
    number("device", at.device);
    number("total", at.total);
    number("bytes",
           flags & VIRTQ_PACKED ? VIRTQ_PACKED_BYTES(num, align) : VIRTQ_BYTES(num, align));
    printf("}\n");
}

static void all_offsets(void)
{
    static const uint32_t aligns[] = {4, 16, 64, 4096, 65536};

    printf("{\"scenario\":\"layout\"}\n");
    for (uint32_t a = 0; a < 5; a++) {
        for (uint32_t num = 1; num <= 32768; num *= 2) {
            offsets((uint16_t)num, aligns[a], 0);
            offsets((uint16_t)num, aligns[a], VIRTQ_LEGACY);
        }
        for (uint32_t num = 1; num <= 32768; num = num * 2 + num / 3)
            offsets((uint16_t)num, aligns[a], VIRTQ_PACKED);
        offsets(32768, aligns[a], VIRTQ_PACKED);
    }
}

static void event_formula(void)
{
    static const uint16_t at[] = {0, 1, 2, 3, 4, 5, 32767, 32768, 65533, 65534, 65535};
    enum { COUNT = sizeof(at) / sizeof(at[0]) };

    printf("{\"scenario\":\"event formula\"}\n");
    for (uint32_t i = 0; i < COUNT * COUNT * COUNT; i++) {
        uint16_t event = at[i % COUNT];
        uint16_t now = at[i / COUNT % COUNT];
        uint16_t old = at[i / COUNT / COUNT];

        op("event_due");
        number("event", event);
        number("now", now);
        number("old", old);
        truth("result", virtq_event_due(event, now, old));
        printf("}\n");
    }
}

/* `count` buffers go through the ring from `start` in one batch, with both events at `event`. */
static void split_event_case(uint16_t flags, uint16_t start, uint32_t count, uint16_t event)
{
    struct bench *b = &bench;

    b->start = both_at(start);
    b->flags = flags;
    if (!start_sides(b))
        return;
    split_event(b, "device", event);
    split_event(b, "driver", event);
    for (uint32_t i = 0; i < count; i++)
        add(b, 1, 0, DIRECT);
    publish_and_kick(b);
    pop_all(b);
    while (b->held_count > 0)
        push(b, 0, NOTHING);
    flush_and_irq(b);
}

static void split_events(uint16_t flags)
{
    static const uint16_t starts[] = {0, 2, 3, 32766, 65532, 65534, 65535};

    prepare(&bench, 8, 64, flags);
    scenario(&bench, "event walk");
    place(&bench);
    for (uint32_t i = 0; i < 7; i++)
        for (uint32_t count = 0; count <= 5; count++)
            for (uint32_t event = 0; event < 10; event++)
                split_event_case(flags, starts[i], count, (uint16_t)(starts[i] + event - 2));
}

/* A list of `count` slots at `start`, with both sides' events at `event`. */
static void packed_event_case(struct bench *b, uint16_t start, uint32_t count, uint16_t event)
{
    b->start = both_at(start);
    if (!start_sides(b))
        return;
    packed_event(b, "device", event, VIRTQ_EVENT_DESC);
    packed_event(b, "driver", event, VIRTQ_EVENT_DESC);
    add(b, count, 0, DIRECT);
    publish_and_kick(b);
    pop_all(b);
    push(b, 0, NOTHING);
    flush_and_irq(b);
}

static uint16_t packed_position(uint32_t num, uint32_t i)
{
    return (uint16_t)(i % num | (i < num ? 0x8000u : 0));
}

static void packed_events(uint16_t num)
{
    struct bench *b = &bench;

    prepare(b, num, 64, VIRTQ_PACKED | VIRTQ_EVENT_IDX);
    scenario(b, "event walk");
    place(b);
    for (uint32_t start = 0; start < 2u * num; start++)
        for (uint32_t count = 1; count <= num; count++)
            for (uint32_t event = 0; event < 2u * num; event++)
                packed_event_case(b, packed_position(num, start), count,
                                  packed_position(num, event));
}

/* What an event structure may say besides DESC, and the reserved mode. */
static void event_modes(struct bench *b)
{
    static const uint16_t modes[] = {VIRTQ_EVENT_ENABLE, VIRTQ_EVENT_DISABLE, 3};

    for (uint32_t i = 0; i < 3; i++) {
        packed_event(b, "device", 0x1234, modes[i]);
        packed_event(b, "driver", 0x1234, modes[i]);
        add(b, 1, 1, DIRECT);
        publish_and_kick(b);
        pop_all(b);
        push(b, 0, ALL);
        flush_and_irq(b);
        take_all(b);
    }
}

static void packed_modes(void)
{
    struct bench *b = &bench;

    prepare(b, 4, 64, VIRTQ_PACKED | VIRTQ_EVENT_IDX);
    scenario(b, "event modes");
    run_from(b, event_modes, 0x8000);
}

/* The device runs out of buffers while the driver wants no interrupts. */
static void run_empty(struct bench *b)
{
    for (uint32_t round = 0; round < 3; round++) {
        irq_off(b);
        add(b, 1, 0, DIRECT);
        add(b, 0, 1, DIRECT);
        add(b, 0, 1, DIRECT);
        publish_and_kick(b);
        for (uint32_t i = 0; i < 3; i++) {
            pop(b);
            push(b, 0, ALL);
            flush_and_irq(b);
        }
        take_all(b);
    }
}

static void notify_on_empty(uint16_t flags)
{
    struct bench *b = &bench;

    prepare(b, 4, PAGE, flags | VIRTQ_LEGACY | VIRTQ_NOTIFY_ON_EMPTY);
    scenario(b, "notify_on_empty");
    run_from(b, run_empty, 0);
}

/* What the peer leaves in fields that have no meaning must not matter: the next of a last
 * descriptor, WRITE beside INDIRECT (V-IND-01), ids and flags in a packed table (V-IND-04), ids
 * before a list's last (D-PACK-06), and all but flags and id of a used descriptor without WRITE
 * (D-PACK-11). */
static void split_leftovers(struct bench *b)
{
    uint8_t *desc = (uint8_t *)b->areas.desc;
    static const uint8_t next[2] = {0xff, 0xff};
    static const uint8_t flags = VIRTQ_DESC_FLAG_INDIRECT | VIRTQ_DESC_FLAG_WRITE;

    for (uint32_t round = 0; round < 3; round++) {
        add(b, 1, 1, INDIRECT);
        publish_and_kick(b);
        for (uint32_t i = 0; i < b->num; i++) {
            if ((desc[16 * i + 12] & VIRTQ_DESC_FLAG_INDIRECT) == 0)
                continue;
            poke(b, &ring, desc + 16 * i + 12, &flags, 1);
            poke(b, &ring, desc + 16 * i + 14, next, 2);
        }
        poke(b, &tables, table_mem + 16 + 14, next, 2);
        pop_all(b);
        push(b, 0, PARTLY);
        flush_and_irq(b);
        take_all(b);
    }
}

static void packed_leftovers(struct bench *b)
{
    uint8_t *desc = (uint8_t *)b->areas.desc;
    static const uint8_t junk[14] = {0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7,
                                     0xd8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t readable[4] = {0xfe, 0xff, 0xff & ~VIRTQ_DESC_FLAG_WRITE, 0xff};
    static const uint8_t writable[4] = {0xff, 0xff, 0xff, 0xff};
    uint8_t flags;

    add(b, 1, 1, DIRECT);
    publish_and_kick(b);
    poke(b, &ring, desc + 12, junk + 12, 2);
    pop_all(b);
    push(b, 0, NOTHING);
    flush_and_irq(b);
    flags = desc[14] | VIRTQ_DESC_FLAG_NEXT | VIRTQ_DESC_FLAG_INDIRECT;
    poke(b, &ring, desc, junk, 12);
    poke(b, &ring, desc + 14, &flags, 1);
    take_all(b);
    add(b, 1, 1, INDIRECT);
    publish_and_kick(b);
    flags = desc[32 + 14] | VIRTQ_DESC_FLAG_WRITE;
    poke(b, &ring, desc + 32 + 14, &flags, 1);
    poke(b, &tables, table_mem + 12, readable, 4);
    poke(b, &tables, table_mem + 16 + 12, writable, 4);
    pop_all(b);
    push(b, 0, PARTLY);
    flush_and_irq(b);
    take_all(b);
}

static void leftovers(uint16_t flags)
{
    struct bench *b = &bench;

    prepare(b, 4, 64, flags | VIRTQ_INDIRECT);
    scenario(b, "leftovers");
    if (flags & VIRTQ_PACKED)
        run_from(b, packed_leftovers, 0x8000);
    else
        run_from(b, split_leftovers, 0);
}

static void golden(void)
{
    all_offsets();
    event_formula();
    split_events(VIRTQ_EVENT_IDX);
    split_events(VIRTQ_EVENT_IDX | VIRTQ_LEGACY);
    for (uint16_t num = 1; num <= 5; num++)
        packed_events(num);
    packed_modes();
    notify_on_empty(0);
    notify_on_empty(VIRTQ_EVENT_IDX);
    leftovers(0);
    leftovers(VIRTQ_PACKED);
}

int main(void)
{
    printf("{\"cpu\":\"%s\"}\n", cpu_is_big() ? "big" : "little");
    golden();
    all_split();
    all_packed();
    printf("{\"end\":true}\n");
    return 0;
}
