// SPDX-License-Identifier: MIT-0
/**
 * @file queue.h
 * @brief The rings of a back-end, for the other files of it: when they start and stop.
 */
#ifndef EXAMPLES_VHOST_USER_QUEUE_H
#define EXAMPLES_VHOST_USER_QUEUE_H

#include "backend.h"

/** Prints a line through the device's log. */
void vhu_log(const struct vhu_backend *backend, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** A queue of which nothing is told. Its descriptors are not closed. */
void vhu_queue_init(struct vhu_queue *queue);

/** Lets go of the ring, to start again where it stood once something is to be served. */
void vhu_queue_pause(struct vhu_queue *queue);

/** Stops the ring: the position it stands at is in `base`. */
void vhu_queue_stop(struct vhu_queue *queue);

/** Closes the queue's descriptors and forgets everything about it. */
void vhu_queue_reset(struct vhu_queue *queue);

/** Serves it once if there may be something. @return 1: more; 0; negative: the connection has to end for
 *  the back-end's `reason` */
int vhu_queue_serve(struct vhu_queue *queue);

/** Eight bytes to an eventfd or a pipe, if there is one: if it is full, the other side knows. */
void vhu_signal_fd(int fd);

/** Puts `fd` (or -1) in the place of a descriptor of a queue. */
void vhu_replace_fd(int *place, int fd);

#endif
