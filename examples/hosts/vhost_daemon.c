// SPDX-License-Identifier: MIT-0
/* What the vhost-user daemons have in common; see vhost_daemon.h. */
#define _POSIX_C_SOURCE 200809L
#include "vhost_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LINE = 512 };

static const char *program;
static int stop_pipe[2];

void vhost_daemon_log(void *ctx, const char *line)
{
    (void)ctx;
    fprintf(stderr, "%s: %s\n", program, line);
}

void vhost_daemon_say(const char *format, ...)
{
    char line[LINE];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    vhost_daemon_log(NULL, line);
}

static void on_signal(int number)
{
    char byte = (char)number;

    if (write(stop_pipe[1], &byte, 1) < 0)
        return; /* full: it is being told already */
}

int vhost_daemon_begin(const char *name)
{
    struct sigaction action = {0};

    program = name;
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    if (pipe(stop_pipe) == 0 && fcntl(stop_pipe[1], F_SETFL, O_NONBLOCK) == 0 &&
        sigaction(SIGTERM, &action, NULL) == 0 && sigaction(SIGINT, &action, NULL) == 0)
        return 0;
    vhost_daemon_say("%s", strerror(errno));
    return -1;
}

int vhost_daemon_open(struct vhu_backend *backend, const char *path, const char *about)
{
    backend->listening = vhu_listen(path);
    if (backend->listening < 0)
        vhost_daemon_say("%s: %s", path, strerror(errno));
    else
        vhost_daemon_say("%s, at %s", about, path);
    return backend->listening < 0 ? -1 : 0;
}

void vhost_daemon_close(struct vhu_backend *backend)
{
    struct sockaddr_un at = {0};
    socklen_t length = sizeof(at) - 1;

    if (getsockname(backend->listening, (struct sockaddr *)&at, &length) == 0)
        unlink(at.sun_path);
    close(backend->listening);
}

int vhost_daemon_serve(struct vhu_backend *backend, unsigned count)
{
    int rc = vhu_run(backend, count, stop_pipe[0]);

    if (rc != 0)
        vhost_daemon_say("%s", strerror(errno));
    return rc;
}

int vhost_daemon_run(struct vhu_backend *backend, const char *path, const char *about)
{
    int rc = vhost_daemon_open(backend, path, about);

    if (rc != 0)
        return rc;
    rc = vhost_daemon_serve(backend, 1);
    vhost_daemon_close(backend);
    return rc;
}
