// SPDX-License-Identifier: MIT-0
/**
 * @file trace_peers.h
 * @brief The two devices of a register trace.
 */
#ifndef TESTS_PEERS_TRACE_PEERS_H
#define TESTS_PEERS_TRACE_PEERS_H

#include "trace.h"

/** What a run is about. */
enum trace_device {
    TRACE_PCI_MODERN,
    TRACE_PCI_TRANSITIONAL,
    TRACE_PCI_LEGACY,
    TRACE_MMIO_V2,
    TRACE_MMIO_V1,
    TRACE_DEVICES
};

extern const char *const trace_device_names[TRACE_DEVICES];

/** Starts QEMU with a block device of two queues. 0, or -1 and a message. */
int trace_qemu_open(struct trace_peer *peer, enum trace_device device);

/** Ends QEMU. 0, or -1 and a message if something went wrong since it was opened. */
int trace_qemu_close(struct trace_peer *peer);

/** Makes our model of the same device: what is a choice of the device (features, configuration,
 *  places of the structures) is read from QEMU's. 0, or -1 and a message. */
int trace_model_open(struct trace_peer *peer, enum trace_device device, struct trace_peer *qemu);

#endif
