// SPDX-License-Identifier: MIT-0
/* blk.c in a program whose devices are all virtio-mmio ones of version 2: with VIRTIO_WINDOW_ALWAYS and
 * VIRTIO_TRANSPORT_ALWAYS nothing of the other transports is in the image. */
#include "blk.c"
