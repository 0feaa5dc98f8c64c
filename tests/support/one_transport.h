// SPDX-License-Identifier: MIT-0
/* The configuration of a program that knows one kind of window and one transport. */
#include "tests/support/test_config.h"

#define VIRTIO_WINDOW_ALWAYS VIRTIO_WINDOW_CALLER
#define VIRTIO_TRANSPORT_ALWAYS virtio_transport_mmio()
