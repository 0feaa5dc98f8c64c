// SPDX-License-Identifier: MIT-0
/* blk.c in a program whose devices are all virtio-mmio ones of version 2: with VIRTIO_WINDOW_ALWAYS and
 * VIRTIO_TRANSPORT_ALWAYS no other transport is in the image. Not on x86, which uses ports as well. */
#include "blk.c"
