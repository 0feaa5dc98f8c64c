// SPDX-License-Identifier: MIT-0
/* Memory of a vhost-user front-end; see memory.h. */
#define _POSIX_C_SOURCE 200809L
#include "memory.h"

#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

static bool wraps(uint64_t addr, uint64_t size)
{
    return addr + size < addr;
}

uint64_t vhu_map_length(int fd, uint64_t length)
{
    struct stat st;
    uint64_t block;

    if (fstat(fd, &st) != 0 || st.st_size < 0 || length > (uint64_t)st.st_size)
        return 0;
    block = st.st_blksize > 0 ? (uint64_t)st.st_blksize : 1;
    return length + (block - length % block) % block;
}

/* The whole file up to the region's end: an offset into huge pages would have to be aligned to them. */
static const char *map_one(struct vhu_mapping *mapping, const struct vhu_region *region, int fd)
{
    uint64_t length = region->mmap_offset + region->size;
    void *base;

    if (region->size == 0)
        return "memory region of no bytes";
    if (wraps(region->mmap_offset, region->size) || wraps(region->guest_addr, region->size) ||
        wraps(region->user_addr, region->size) || length > SIZE_MAX / 2)
        return "memory region past the end of its address space";
    length = vhu_map_length(fd, length);
    if (length == 0)
        return "memory region past the end of its file";
    base = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return "memory region that cannot be mapped";
    mapping->guest_addr = region->guest_addr;
    mapping->user_addr = region->user_addr;
    mapping->size = region->size;
    mapping->base = base;
    mapping->length = (size_t)length;
    mapping->host = (uint8_t *)base + region->mmap_offset;
    return NULL;
}

void vhu_map_clear(struct vhu_map *map)
{
    while (map->count != 0) {
        map->count--;
        munmap(map->mapping[map->count].base, map->mapping[map->count].length);
    }
}

const char *vhu_map_add(struct vhu_map *map, const struct vhu_region *region, int fd)
{
    const char *why = "more memory regions than there are slots";

    if (map->count < VHU_MAX_SLOTS)
        why = map_one(&map->mapping[map->count], region, fd);
    map->count += why == NULL;
    return why;
}

const char *vhu_map_remove(struct vhu_map *map, const struct vhu_region *region)
{
    for (unsigned i = 0; i < map->count; i++) {
        struct vhu_mapping *m = &map->mapping[i];

        if (m->guest_addr != region->guest_addr || m->user_addr != region->user_addr ||
            m->size != region->size)
            continue;
        munmap(m->base, m->length);
        *m = map->mapping[--map->count];
        return NULL;
    }
    return "memory region that is not there";
}

const char *vhu_map_set(struct vhu_map *map, const struct vhu_memory *table, const int *fd)
{
    const char *why = NULL;

    vhu_map_clear(map);
    for (uint32_t i = 0; i < table->count && why == NULL; i++)
        why = vhu_map_add(map, &table->region[i], fd[i]);
    if (why != NULL)
        vhu_map_clear(map);
    return why;
}

/* Neither sum nor difference can wrap: `addr` is inside, and a region ends inside 64 bits. */
static bool holds(uint64_t start, uint64_t size, uint64_t addr, uint64_t len)
{
    return addr >= start && addr - start < size && len <= size - (addr - start);
}

void *vhu_map_guest(const struct vhu_map *map, uint64_t addr, uint64_t len)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct vhu_mapping *m = &map->mapping[i];

        if (holds(m->guest_addr, m->size, addr, len))
            return m->host + (addr - m->guest_addr);
    }
    return NULL;
}

void *vhu_map_user(const struct vhu_map *map, uint64_t addr, uint64_t len)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct vhu_mapping *m = &map->mapping[i];

        if (holds(m->user_addr, m->size, addr, len))
            return m->host + (addr - m->user_addr);
    }
    return NULL;
}

const struct vhu_mapping *vhu_map_region(const struct vhu_map *map, uint64_t addr)
{
    for (unsigned i = 0; i < map->count; i++) {
        if (addr - map->mapping[i].guest_addr < map->mapping[i].size)
            return &map->mapping[i];
    }
    return NULL;
}
