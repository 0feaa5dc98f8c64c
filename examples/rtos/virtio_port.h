// SPDX-License-Identifier: MIT-0
/*
 * The port's answers to section 1 of virtio_ring.h and virtio.h: name this file in VIRTIO_CONFIG_FILE for
 * the whole program. docs/porting.md walks through it; what is not here keeps its default.
 */
#ifndef EXAMPLES_RTOS_VIRTIO_PORT_H
#define EXAMPLES_RTOS_VIRTIO_PORT_H

#include "rtos.h"

/* The queues that this program can have: split ones, and nothing is compiled for others. */
#define VIRTIO_RING_FLAGS (VIRTQ_EVENT_IDX | VIRTQ_INDIRECT | VIRTQ_LEGACY)

/* A mistake of ours, never of the device's, stops the system. */
#define VIRTIO_ASSERT(condition) ((condition) ? (void)0 : rtos_panic(#condition))

/* Barriers. The compiler's are right for every CPU that gcc and clang know; a port that has its own,
 * because its devices sit behind a bus with rules of its own, puts them here. */
#define VIRTIO_FENCE_FULL() rtos_fence()

#endif
