// SPDX-License-Identifier: MIT-0
/*
 * The ring format a bench program is built for, and the library as a program with such queues alone
 * would have it. Set by the build: BENCH_PACKED and BENCH_IN_ORDER, 0 or 1; BENCH_ANY 1: the
 * library with all of it compiled in; BENCH_PLAIN (plain.h): without fences, or without any ordered
 * access.
 */
#ifndef BENCH_FORMAT_H
#define BENCH_FORMAT_H

#ifndef BENCH_ANY
#define BENCH_ANY 0
#endif
#ifndef BENCH_PLAIN
#define BENCH_PLAIN 0
#endif

#if !BENCH_ANY
#define VIRTIO_RING_ALWAYS ((BENCH_PACKED * VIRTQ_PACKED) | (BENCH_IN_ORDER * VIRTQ_IN_ORDER))
#define VIRTIO_RING_FLAGS (VIRTQ_EVENT_IDX | VIRTQ_INDIRECT | VIRTIO_RING_ALWAYS)
#endif
#if BENCH_PLAIN
#define VIRTIO_CONFIG_FILE "bench/plain.h"
#endif
#include "virtio_ring.h"

#define BENCH_FORMAT (BENCH_PACKED ? "packed" : "split"), (BENCH_IN_ORDER ? "-in-order" : "")
#define BENCH_VARIANT                                                                              \
    (BENCH_ANY          ? "/any"                                                                   \
     : BENCH_PLAIN == 1 ? "/no-fence"                                                              \
     : BENCH_PLAIN == 2 ? "/plain"                                                                 \
                        : "")
#define BENCH_SHIPPED (!BENCH_ANY && !BENCH_PLAIN)

enum {
    BENCH_RING_FLAGS = (BENCH_PACKED * VIRTQ_PACKED) | (BENCH_IN_ORDER * VIRTQ_IN_ORDER)
};

#endif
