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
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "queue.h"

enum {
    LOOK = 32,        /* turns with work in them between two looks at the descriptors */
    POLL_INTERVAL = 1 /* milliseconds, for queues that nobody kicks */
};

/* How a turn of the loop ends a conversation. */
static const char stopped[] = "stopped";
static const char went_away[] = "front-end went away";

/* Shared memory whose file the front-end cuts off raises SIGBUS when touched: the front-end goes then,
 * and all that belonged to it, whatever was in the middle of being done for it or with it. */
static sigjmp_buf bus_return;
static volatile sig_atomic_t bus_expected;
static const uint8_t *volatile bus_at;

static void die_of_bus(void)
{
    signal(SIGBUS, SIG_DFL);
    raise(SIGBUS);
}

static void on_bus(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (!bus_expected) {
        die_of_bus();
        return;
    }
    bus_at = info->si_addr;
    siglongjmp(bus_return, 1);
}

static int address(const char *path, struct sockaddr_un *at)
{
    memset(at, 0, sizeof(*at));
    at->sun_family = AF_UNIX;
    if (*path == '\0' || strlen(path) >= sizeof(at->sun_path)) {
        errno = *path == '\0' ? ENOENT : ENAMETOOLONG;
        return -1;
    }
    memcpy(at->sun_path, path, strlen(path));
    return 0;
}

/* A socket file whose process is gone refuses connections; so does any other file, which stays. A
 * process that is there may be slow to accept, and is not waited for. */
static void remove_stale(const struct sockaddr_un *at)
{
    struct stat st;
    int probe;

    if (stat(at->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return;
    probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
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

/* The front-end goes. */
static void part(struct vhu_backend *backend, const char *why)
{
    vhu_log(backend, why == stopped || why == went_away ? "%s" : "connection dropped: %s", why);
    close(backend->connection);
    vhu_backend_reset(backend);
}

/* 0, or -1: the listening socket is of no more use. */
static int accept_frontend(struct vhu_backend *backend)
{
    int connection = accept(backend->listening, NULL, NULL);

    if (connection < 0)
        return errno == EINTR || errno == ECONNABORTED ? 0 : -1;
    if (fcntl(connection, F_SETFD, FD_CLOEXEC) != 0)
        return -1;
    backend->connection = connection;
    vhu_log(backend, "front-end connected");
    return 0;
}

/* What to wait for: the socket, the kick of each queue, what the device wants to know of. Returns where the
 * next one's go. */
static struct pollfd *watch(struct vhu_backend *backend, struct pollfd *item)
{
    int door = backend->connection >= 0 ? backend->connection : backend->listening;

    *item++ = (struct pollfd){door, POLLIN, 0};
    for (unsigned i = 0; i < backend->queue_count; i++)
        *item++ = (struct pollfd){backend->queue[i].kick, POLLIN, 0};
    backend->own = 0;
    if (backend->connection >= 0 && backend->ops->fds != NULL)
        backend->own = backend->ops->fds(backend->ctx, item);
    return item + backend->own;
}

/* What came of it: 0, or -1 with errno. */
static int attend(struct vhu_backend *backend, const struct pollfd *item)
{
    const char *why = NULL;

    if (backend->connection < 0)
        return item->revents != 0 ? accept_frontend(backend) : 0;
    for (unsigned i = 0; i < backend->queue_count; i++) {
        if (item[1 + i].revents != 0)
            read_kick(&backend->queue[i]);
    }
    if (backend->own != 0)
        backend->ops->ready(backend->ctx, &item[1 + backend->queue_count]);
    if (item->revents != 0)
        why = converse(backend);
    if (why != NULL)
        part(backend, why);
    return 0;
}

/* Waits for whatever can happen: 1; 0: stop; -1 with errno. */
static int look(struct vhu_backend *backend, unsigned count, int stop, int timeout)
{
    struct pollfd item[1 + VHU_BACKENDS * (1 + VHU_QUEUES + VHU_FDS)], *end = item;
    const struct pollfd *at = item;

    *end++ = (struct pollfd){stop, POLLIN, 0};
    for (unsigned i = 0; i < count; i++)
        end = watch(&backend[i], end);
    if (poll(item, (nfds_t)(end - item), timeout) < 0)
        return errno == EINTR ? 1 : -1;
    if (at++->revents != 0)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        if (attend(&backend[i], at) != 0)
            return -1;
        at += 1 + backend[i].queue_count + backend[i].own;
    }
    return 1;
}

static bool any_polled(const struct vhu_backend *backend, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < backend[i].queue_count; j++) {
            if (backend[i].queue[j].polled)
                return true;
        }
    }
    return false;
}

static int serve_all(struct vhu_backend *backend, unsigned count)
{
    int more = 0;

    for (unsigned i = 0; i < count; i++) {
        int rc = backend[i].connection >= 0 ? vhu_backend_serve(&backend[i]) : 0;

        if (rc < 0)
            part(&backend[i], backend[i].reason);
        else
            more |= rc;
    }
    return more;
}

/* 0: stop; -1 with errno. */
static int run(struct vhu_backend *backend, unsigned count, int stop)
{
    int more = 1;

    for (unsigned turn = 0;; turn++) {
        int timeout = more != 0 ? 0 : any_polled(backend, count) ? POLL_INTERVAL : -1;
        int rc = more == 0 || turn % LOOK == 0 ? look(backend, count, stop, timeout) : 1;

        if (rc <= 0)
            return rc;
        more = serve_all(backend, count);
    }
}

static bool shares(const struct vhu_backend *backend, const uint8_t *at)
{
    const uint8_t *inflight = backend->inflight;

    for (unsigned i = 0; i < backend->map.count; i++) {
        const struct vhu_mapping *m = &backend->map.mapping[i];
        const uint8_t *base = m->base;

        if (at >= base && at < base + m->length)
            return true;
    }
    return inflight != NULL && at >= inflight && at < inflight + backend->inflight_size;
}

/* After SIGBUS: the front-end whose memory that was goes. What was done for another one is shown to it
 * now: its next message may be to stop, and nothing may wait for a flush then. */
static void drop_cut_off(struct vhu_backend *backend, unsigned count)
{
    unsigned culprit = 0;

    while (culprit < count && !shares(&backend[culprit], bus_at))
        culprit++;
    if (culprit == count) {
        die_of_bus();
        return;
    }
    part(&backend[culprit], "shared memory is no longer there");
    for (unsigned i = 0; i < count; i++)
        vhu_backend_flush(&backend[i]);
}

int vhu_run(struct vhu_backend *backend, unsigned count, int stop)
{
    struct sigaction action = {0};
    int rc;

    action.sa_sigaction = on_bus;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a call descriptor may be a pipe without a reader */
    bus_expected = 1;
    if (sigsetjmp(bus_return, 1) != 0)
        drop_cut_off(backend, count);
    rc = run(backend, count, stop);
    bus_expected = 0;
    for (unsigned i = 0; i < count; i++) {
        if (backend[i].connection >= 0)
            part(&backend[i], stopped);
    }
    return rc;
}
