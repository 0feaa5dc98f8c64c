// SPDX-License-Identifier: MIT-0
/**
 * @file vhost_daemon.h
 * @brief What the vhost-user daemons have in common: a name, a socket, and an end by signal.
 */
#ifndef EXAMPLES_HOSTS_VHOST_DAEMON_H
#define EXAMPLES_HOSTS_VHOST_DAEMON_H

#include "../vhost_user/backend.h"

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

/** Prints a line, after the program's name, to stderr; a `log` hook whose ctx is not looked at. */
void vhost_daemon_log(void *ctx, const char *line);

/** Likewise, formatted. */
void vhost_daemon_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Gives the program its name, and has SIGTERM and SIGINT from now on end vhost_daemon_serve().
 *  0, or -1 after a message. */
int vhost_daemon_begin(const char *name);

/** Serves front-ends at the Unix socket `path` until a signal, and removes the socket. Says what is
 *  served, `about`, and where. 0, or -1 after a message. */
int vhost_daemon_run(struct vhu_backend *backend, const char *path, const char *about);

/** The steps of it, for several back-ends: open each, serve all, close each. */
int vhost_daemon_open(struct vhu_backend *backend, const char *path, const char *about);
int vhost_daemon_serve(struct vhu_backend *backend, unsigned count);
void vhost_daemon_close(struct vhu_backend *backend);

#endif
