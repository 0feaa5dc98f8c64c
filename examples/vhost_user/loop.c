// SPDX-License-Identifier: MIT-0
/* The socket of a vhost-user back-end, and the loop over everything that happens; see backend.h. */
#define _DEFAULT_SOURCE /* MSG_CMSG_CLOEXEC */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "queue.h"

enum {
    POLL_STOP = 0,
    POLL_CONNECTION = 1,
    POLL_KICKS = 2,
    POLL_INTERVAL = 1 /* milliseconds, for queues that nobody kicks */
};

/* How a turn of the loop ends a conversation. */
static const char stopped[] = "stopped";
static const char went_away[] = "front-end went away";

/* Shared memory whose file the front-end cuts off raises SIGBUS when touched: the front-end goes then,
 * and all that belonged to it, whatever was in the middle of being done for it. */
static sigjmp_buf bus_return;
static volatile sig_atomic_t bus_expected;

static void on_bus(int number)
{
    if (bus_expected)
        siglongjmp(bus_return, 1);
    signal(number, SIG_DFL);
    raise(number);
}

static int address(const char *path, struct sockaddr_un *at)
{
    memset(at, 0, sizeof(*at));
    at->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(at->sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(at->sun_path, path, strlen(path));
    return 0;
}

/* A socket file whose process is gone refuses connections. */
static void remove_stale(const struct sockaddr_un *at)
{
    int probe = socket(AF_UNIX, SOCK_STREAM, 0);

    if (probe < 0)
        return;
    if (connect(probe, (const struct sockaddr *)at, sizeof(*at)) != 0 && errno == ECONNREFUSED)
        unlink(at->sun_path);
    close(probe);
}

int vhu_listen(const char *path)
{
    struct sockaddr_un at;
    int listening;

    if (address(path, &at) != 0)
        return -1;
    remove_stale(&at);
    listening = socket(AF_UNIX, SOCK_STREAM, 0);
    if (listening < 0)
        return -1;
    if (bind(listening, (const struct sockaddr *)&at, sizeof(at)) != 0 ||
        listen(listening, 4) != 0 || fcntl(listening, F_SETFD, FD_CLOEXEC) != 0) {
        close(listening);
        return -1;
    }
    return listening;
}

/* ----- messages in and out ----- */

/* Keeps the descriptors that came along; false if there are too many for one message. */
static bool take_fds(struct vhu_backend *backend, struct msghdr *got)
{
    struct cmsghdr *item;
    bool fits = !(got->msg_flags & MSG_CTRUNC);

    for (item = CMSG_FIRSTHDR(got); item != NULL; item = CMSG_NXTHDR(got, item)) {
        size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(item) + i * sizeof(fd), sizeof(fd));
            if (backend->in_fds < VHU_MAX_FDS) {
                backend->in_fd[backend->in_fds++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

/* Reads up to `want` bytes to `to`: 1 all of them, 0 not yet, or why not. */
static int receive(struct vhu_backend *backend, uint8_t *to, size_t want, const char **why)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(VHU_MAX_FDS * sizeof(int))];
    struct iovec iov = {to, want};
    struct msghdr message = {0};
    ssize_t got;

    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    got = recvmsg(backend->connection, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    if (got <= 0) {
        *why = backend->in_got != 0 ? "front-end went away within a message" : went_away;
        return 0;
    }
    backend->in_got += (size_t)got;
    if (!take_fds(backend, &message))
        *why = "more descriptors than a message can have";
    return (size_t)got == want && *why == NULL;
}

/* Reads on in the message that is arriving: is it complete? Never reads into the next one, whose
 * descriptors would be taken for this one's. */
static bool receive_message(struct vhu_backend *backend, const char **why)
{
    struct vhu_message *in = &backend->in;
    size_t header = sizeof(in->header), got = backend->in_got;

    if (got < header) {
        if (!receive(backend, (uint8_t *)&in->header + got, header - got, why))
            return false;
        got = header;
    }
    if (in->header.size > sizeof(in->payload)) {
        *why = "message longer than any";
        return false;
    }
    if (got == header + in->header.size)
        return true;
    return receive(backend, (uint8_t *)&in->payload + (got - header),
                   header + in->header.size - got, why) == 1;
}

static bool send_answer(struct vhu_backend *backend, struct vhu_answer *answer)
{
    struct vhu_message *out = &answer->message;
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov[2] = {{&out->header, sizeof(out->header)}, {&out->payload, out->header.size}};
    struct msghdr message = {0};
    ssize_t sent;

    message.msg_iov = iov;
    message.msg_iovlen = 2;
    if (answer->fd >= 0) {
        struct cmsghdr *item;

        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        item = CMSG_FIRSTHDR(&message);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(item), &answer->fd, sizeof(int));
    }
    sent = sendmsg(backend->connection, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    vhu_replace_fd(&answer->fd, -1);
    return sent == (ssize_t)(sizeof(out->header) + out->header.size);
}

/* One message, if it is there: NULL, or why the connection ends. */
static const char *converse(struct vhu_backend *backend)
{
    struct vhu_answer answer;
    const char *why = NULL;
    unsigned fds;

    if (!receive_message(backend, &why))
        return why;
    fds = backend->in_fds;
    backend->in_got = 0;
    backend->in_fds = 0;
    why = vhu_backend_handle(backend, &backend->in, backend->in_fd, fds, &answer);
    if (why == NULL && answer.due && !send_answer(backend, &answer))
        why = "front-end does not read its answers";
    return why;
}

/* ----- the loop ----- */

/* Eight bytes of an eventfd or a pipe; an end of file kicks never again. */
static void read_kick(struct vhu_queue *queue)
{
    uint64_t kicks;
    ssize_t got = read(queue->kick, &kicks, sizeof(kicks));

    queue->pending = true;
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        vhu_log(queue->backend, "queue %u: kick descriptor is at its end", queue->index);
        vhu_replace_fd(&queue->kick, -1);
    }
}

/* Waits for what can happen to a conversation: NULL, or how it ended. */
static const char *wait_for(struct vhu_backend *backend, int stop, int timeout)
{
    struct pollfd item[POLL_KICKS + VHU_QUEUES + VHU_FDS];
    struct pollfd *own = &item[POLL_KICKS + backend->queue_count];
    unsigned own_count = backend->ops->fds != NULL ? backend->ops->fds(backend->ctx, own) : 0;

    item[POLL_STOP] = (struct pollfd){stop, POLLIN, 0};
    item[POLL_CONNECTION] = (struct pollfd){backend->connection, POLLIN, 0};
    for (unsigned i = 0; i < backend->queue_count; i++)
        item[POLL_KICKS + i] = (struct pollfd){backend->queue[i].kick, POLLIN, 0};
    if (poll(item, POLL_KICKS + backend->queue_count + own_count, timeout) < 0)
        return errno == EINTR ? NULL : "poll failed";
    if (item[POLL_STOP].revents != 0)
        return stopped;
    for (unsigned i = 0; i < backend->queue_count; i++) {
        if (item[POLL_KICKS + i].revents != 0)
            read_kick(&backend->queue[i]);
    }
    if (own_count != 0)
        backend->ops->ready(backend->ctx, own);
    return item[POLL_CONNECTION].revents != 0 ? converse(backend) : NULL;
}

static bool any_polled(const struct vhu_backend *backend)
{
    for (unsigned i = 0; i < backend->queue_count; i++) {
        if (backend->queue[i].polled)
            return true;
    }
    return false;
}

/* Serves one front-end to its end: how it ended. */
static const char *serve_frontend(struct vhu_backend *backend, int stop)
{
    const char *volatile why = NULL;
    volatile int more = 0;

    if (sigsetjmp(bus_return, 1) != 0) {
        bus_expected = 0;
        return "shared memory is no longer there";
    }
    bus_expected = 1;
    while (why == NULL) {
        why = wait_for(backend, stop, more != 0 ? 0 : any_polled(backend) ? POLL_INTERVAL : -1);
        if (why == NULL) {
            more = vhu_backend_serve(backend);
            why = more < 0 ? backend->reason : NULL;
        }
    }
    bus_expected = 0;
    return why;
}

/* 1: a front-end is there; 0: stop; -1: error. */
static int accept_frontend(struct vhu_backend *backend, int listening, int stop)
{
    struct pollfd item[] = {{stop, POLLIN, 0}, {listening, POLLIN, 0}};

    do {
        if (poll(item, 2, -1) < 0)
            continue;
        if (item[0].revents != 0)
            return 0;
        backend->connection = accept(listening, NULL, NULL);
        if (backend->connection >= 0)
            return fcntl(backend->connection, F_SETFD, FD_CLOEXEC) == 0 ? 1 : -1;
    } while (errno == EINTR || errno == ECONNABORTED);
    return -1;
}

int vhu_backend_run(struct vhu_backend *backend, int listening, int stop)
{
    struct sigaction action = {0};
    const char *why = NULL;
    int rc;

    action.sa_handler = on_bus;
    sigaction(SIGBUS, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a call descriptor may be a pipe without a reader */
    while (why != stopped) {
        rc = accept_frontend(backend, listening, stop);
        if (rc <= 0)
            return rc;
        vhu_log(backend, "front-end connected");
        why = serve_frontend(backend, stop);
        vhu_log(backend, why == stopped || why == went_away ? "%s" : "connection dropped: %s", why);
        vhu_backend_reset(backend);
        close(backend->connection);
    }
    return 0;
}
