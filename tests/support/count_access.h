// SPDX-License-Identifier: MIT-0
/* Records every access that virtio_ring.h makes to shared memory, and every fence, in program order.
 * Include it before virtio_ring.h, in one source file of a program. */
#ifndef COUNT_ACCESS_H
#define COUNT_ACCESS_H

#include <stddef.h>
#include <stdint.h>

enum access_kind {
    ACCESS_LOAD = 1,
    ACCESS_LOAD_RELAXED,
    ACCESS_LOAD_ACQUIRE,
    ACCESS_STORE,
    ACCESS_STORE_RELAXED,
    ACCESS_STORE_RELEASE,
    ACCESS_FENCE
};

struct access {
    enum access_kind kind;
    const void *at;
    unsigned bytes;
};

enum { ACCESS_MAX = 4096 };
static struct access access_log[ACCESS_MAX];
static unsigned access_count;

static inline void access_note(enum access_kind kind, const void *at, unsigned bytes)
{
    struct access access = {kind, at, bytes};

    access_log[access_count++ % ACCESS_MAX] = access;
}

#define ACCESS_DEFINE_(bits)                                                                       \
    static inline uint##bits##_t access_load##bits(enum access_kind kind, const void *at)          \
    {                                                                                              \
        access_note(kind, at, bits / 8);                                                           \
        return *(const uint##bits##_t *)at;                                                        \
    }                                                                                              \
    static inline void access_store##bits(enum access_kind kind, void *at, uint##bits##_t value)   \
    {                                                                                              \
        access_note(kind, at, bits / 8);                                                           \
        *(uint##bits##_t *)at = value;                                                             \
    }
ACCESS_DEFINE_(8)
ACCESS_DEFINE_(16)
ACCESS_DEFINE_(32)
ACCESS_DEFINE_(64)

#define VIRTIO_LOAD8(p) access_load8(ACCESS_LOAD, (p))
#define VIRTIO_LOAD16(p) access_load16(ACCESS_LOAD, (p))
#define VIRTIO_LOAD32(p) access_load32(ACCESS_LOAD, (p))
#define VIRTIO_LOAD64(p) access_load64(ACCESS_LOAD, (p))
#define VIRTIO_STORE8(p, v) access_store8(ACCESS_STORE, (p), (v))
#define VIRTIO_STORE16(p, v) access_store16(ACCESS_STORE, (p), (v))
#define VIRTIO_STORE32(p, v) access_store32(ACCESS_STORE, (p), (v))
#define VIRTIO_STORE64(p, v) access_store64(ACCESS_STORE, (p), (v))
#define VIRTIO_LOAD_ACQUIRE16(p) access_load16(ACCESS_LOAD_ACQUIRE, (p))
#define VIRTIO_LOAD_RELAXED16(p) access_load16(ACCESS_LOAD_RELAXED, (p))
#define VIRTIO_LOAD_RELAXED32(p) access_load32(ACCESS_LOAD_RELAXED, (p))
#define VIRTIO_STORE_RELAXED32(p, v) access_store32(ACCESS_STORE_RELAXED, (p), (v))
#define VIRTIO_STORE_RELEASE16(p, v) access_store16(ACCESS_STORE_RELEASE, (p), (v))
#define VIRTIO_STORE_RELAXED16(p, v) access_store16(ACCESS_STORE_RELAXED, (p), (v))
#define VIRTIO_FENCE_FULL() access_note(ACCESS_FENCE, NULL, 0)

#endif /* COUNT_ACCESS_H */
