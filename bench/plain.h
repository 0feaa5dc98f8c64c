// SPDX-License-Identifier: MIT-0
/*
 * VIRTIO_CONFIG_FILE of the bench alone: the library without what makes it right between two CPUs,
 * to see what that costs. Good for one thread that plays both sides, and for nothing else.
 *
 * BENCH_PLAIN 1: no fence instruction. 2: also no acquire, release or volatile access. The compiler
 * is still held at the fences, so that it does not merge the two sides into one.
 */
#define VIRTIO_FENCE_FULL() __atomic_signal_fence(__ATOMIC_SEQ_CST)

#if BENCH_PLAIN == 2
#define VIRTIO_LOAD8(p) (*(const uint8_t *)(p))
#define VIRTIO_LOAD16(p) (*(const uint16_t *)(p))
#define VIRTIO_LOAD32(p) (*(const uint32_t *)(p))
#define VIRTIO_LOAD64(p) (*(const uint64_t *)(p))
#define VIRTIO_STORE8(p, v) ((void)(*(uint8_t *)(p) = (v)))
#define VIRTIO_STORE16(p, v) ((void)(*(uint16_t *)(p) = (v)))
#define VIRTIO_STORE32(p, v) ((void)(*(uint32_t *)(p) = (v)))
#define VIRTIO_STORE64(p, v) ((void)(*(uint64_t *)(p) = (v)))
#define VIRTIO_LOAD_ACQUIRE16(p) VIRTIO_LOAD16(p)
#define VIRTIO_LOAD_RELAXED16(p) VIRTIO_LOAD16(p)
#define VIRTIO_LOAD_RELAXED32(p) VIRTIO_LOAD32(p)
#define VIRTIO_STORE_RELEASE16(p, v) VIRTIO_STORE16(p, v)
#define VIRTIO_STORE_RELAXED16(p, v) VIRTIO_STORE16(p, v)
#define VIRTIO_STORE_RELAXED32(p, v) VIRTIO_STORE32(p, v)
#endif
