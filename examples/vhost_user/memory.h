// SPDX-License-Identifier: MIT-0
/**
 * @file memory.h
 * @brief The memory that a vhost-user front-end shares: mapped, and looked up with checks.
 */
#ifndef EXAMPLES_VHOST_USER_MEMORY_H
#define EXAMPLES_VHOST_USER_MEMORY_H

#include "protocol.h"

/** A mapped region. */
struct vhu_mapping {
    uint64_t guest_addr;
    uint64_t user_addr;
    uint64_t size;
    uint8_t *host; /**< where this process sees its first byte */
    void *base;    /**< what mmap() gave, and how much: the file from its start on */
    size_t length;
};

struct vhu_map {
    struct vhu_mapping mapping[VHU_MAX_SLOTS];
    unsigned count;
};

/** Maps the regions of a table, each from its descriptor, in place of what was mapped before. The
 *  descriptors stay the caller's.
 *  @return NULL, or why nothing is mapped now */
const char *vhu_map_set(struct vhu_map *map, const struct vhu_memory *table, const int *fd);

/** Maps one region more, from its descriptor, which stays the caller's.
 *  @return NULL, or why it is not mapped */
const char *vhu_map_add(struct vhu_map *map, const struct vhu_region *region, int fd);

/** Maps a region no longer: the one at these addresses and of this size.
 *  @return NULL, or why not */
const char *vhu_map_remove(struct vhu_map *map, const struct vhu_region *region);

/** How much to map, and to unmap later, of a file for its first `length` bytes: whole blocks, which are
 *  pages where those are huge, since munmap() takes no less of them. 0: the file does not hold as many
 *  bytes, and what lies behind its end raises SIGBUS when touched. */
uint64_t vhu_map_length(int fd, uint64_t length);

/** Maps nothing any more. */
void vhu_map_clear(struct vhu_map *map);

/** Where this process reaches all `len` bytes at guest address `addr`, or NULL. */
void *vhu_map_guest(const struct vhu_map *map, uint64_t addr, uint64_t len);

/** Likewise for an address of the front-end: those of the rings. */
void *vhu_map_user(const struct vhu_map *map, uint64_t addr, uint64_t len);

/** The region that guest address `addr` lies in, or NULL. */
const struct vhu_mapping *vhu_map_region(const struct vhu_map *map, uint64_t addr);

#endif
