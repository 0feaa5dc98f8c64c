// SPDX-License-Identifier: MIT-0
/* A console with several ports in a process of its own, for any front-end of vhost-user. Port 0 is
 * a console on this process's input and output; each other port has a name and a Unix socket.
 *
 *     build/vhost-console --socket con.sock --port log=log.sock
 *     linux.uml virtio_uml.device=con.sock:3 ...     # log.sock is the port that Linux calls "log"
 */
#define _GNU_SOURCE /* accept4, POLLRDHUP */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../device/console.h"
#include "vhost_daemon.h"

/* The host side of a port. */
struct host {
    const char *name;
    const char *path; /* of its socket; NULL: standard input and output */
    int listening;
    int in, out;  /* of whoever is there, or -1 */
    bool hungry;  /* the driver waits for input */
    bool blocked; /* output waits for room */
    bool ended;   /* whoever is there will send no more than what is unread */
    bool closing; /* the driver closed the port: the connection ends after its output */
};

struct daemon {
    struct vhu_backend backend;
    struct condev console;
    uint8_t config[CONDEV_CONFIG_SIZE];
    struct host host[CONDEV_PORTS];
    const char *socket;
};

/* A queue that is being served. */
struct work {
    struct daemon *daemon;
    unsigned queue;
    bool put_off;
};

static unsigned input_queue(uint32_t id)
{
    return id == 0 ? 0 : 2 + 2 * id;
}

static void wake(struct daemon *daemon, unsigned queue)
{
    vhu_queue_wake(&daemon->backend.queue[queue]);
}

/* ----- who is at a port ----- */

/* Something has changed on the host side of a port. */
static void wake_port(struct daemon *daemon, uint32_t id)
{
    wake(daemon, CONDEV_CONTROL_IN);
    wake(daemon, input_queue(id));
    wake(daemon, input_queue(id) + 1);
}

static void connected(struct daemon *daemon, uint32_t id, int in, int out)
{
    struct host *host = &daemon->host[id];

    host->in = in;
    host->out = out;
    condev_connect(&daemon->console, id, true);
    wake_port(daemon, id);
}

static void disconnect(struct daemon *daemon, uint32_t id, const char *why)
{
    struct host *host = &daemon->host[id];

    vhost_daemon_say("port %s: %s", host->name, why);
    if (host->path != NULL)
        close(host->in);
    host->in = host->out = -1;
    host->hungry = host->blocked = host->ended = host->closing = false;
    condev_connect(&daemon->console, id, false);
    wake_port(daemon, id);
}

static void take_client(struct daemon *daemon, uint32_t id)
{
    struct host *host = &daemon->host[id];
    int fd = accept4(host->listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    vhost_daemon_say("port %s: connected", host->name);
    connected(daemon, id, fd, fd);
}

/* ----- bytes ----- */

/* Nothing that was inherited is set to O_NONBLOCK, which others would notice; a pipe that has room
 * has room for PIPE_BUF, which is CONDEV_PIECE. For terminals see own_terminal(). */
static bool can(int fd, short what)
{
    struct pollfd item = {fd, what, 0};

    return poll(&item, 1, 0) > 0;
}

static bool is_passing(ssize_t done)
{
    return done < 0 && (errno == EAGAIN || errno == EINTR);
}

static uint32_t take_output(void *ctx, uint32_t id, const uint8_t *bytes, uint32_t length)
{
    struct daemon *daemon = ctx;
    struct host *host = &daemon->host[id];
    ssize_t put;

    host->blocked = !can(host->out, POLLOUT);
    if (host->blocked)
        return 0;
    put = write(host->out, bytes, length);
    if (put < 0 && !is_passing(put)) {
        disconnect(daemon, id, strerror(errno));
        return 0;
    }
    host->blocked = put < (ssize_t)length;
    return put < 0 ? 0 : (uint32_t)put;
}

/* A standard input that is at its end leaves the console open. */
static uint32_t give_input(void *ctx, uint32_t id, uint8_t *bytes, uint32_t room)
{
    struct daemon *daemon = ctx;
    struct host *host = &daemon->host[id];
    ssize_t got;

    host->hungry = !can(host->in, POLLIN);
    if (host->hungry)
        return 0;
    got = read(host->in, bytes, room);
    if (got > 0)
        return (uint32_t)got;
    if (is_passing(got))
        host->hungry = true;
    else if (host->path != NULL)
        disconnect(daemon, id, got == 0 ? "disconnected" : strerror(errno));
    return 0;
}

/* What the driver sent before it closed a port still goes out. */
static void opened(void *ctx, uint32_t id, bool open)
{
    struct daemon *daemon = ctx;
    struct host *host = &daemon->host[id];

    vhost_daemon_say("port %s: %s by the driver", host->name, open ? "opened" : "closed");
    if (!open)
        host->closing = host->path != NULL && host->in >= 0;
    wake(daemon, input_queue(id));
    wake(daemon, input_queue(id) + 1);
}

static const struct condev_ops console_ops = {take_output, give_input, opened};

/* ----- the queues ----- */

static uint32_t answer(void *ctx, const struct virtq_chain *chain)
{
    struct work *work = ctx;
    uint32_t written = condev_answer(&work->daemon->console, work->queue, chain);

    work->put_off = written == CONDEV_LATER;
    return work->put_off ? VHU_LATER : written;
}

/* More of a buffer that was put off only for the sake of the others, or the end of a connection
 * that has all its output. */
static int after_output(const struct work *work, int more)
{
    uint32_t id = work->queue == 1 ? 0 : work->queue / 2 - 1;
    struct host *host = &work->daemon->host[id];

    if (work->put_off)
        return !host->blocked;
    if (more == 0 && host->closing)
        disconnect(work->daemon, id, "disconnected");
    return more;
}

static int serve(void *ctx, struct vhu_queue *queue)
{
    struct work work = {ctx, queue->index, false};
    struct daemon *daemon = ctx;
    int more;

    daemon->console.multiport = (daemon->backend.accepted >> CONDEV_FEATURE_MULTIPORT & 1) != 0;
    more = vhu_queue_answer(queue, answer, &work);
    if (queue->index == CONDEV_CONTROL_OUT)
        wake(daemon, CONDEV_CONTROL_IN);
    else if (more >= 0 && queue->index % 2 == 1)
        return after_output(&work, more);
    return more;
}

/* An emergency write may have found the room that the console's output waits for. */
static void config_write(void *ctx, uint32_t offset, const uint8_t *bytes, uint32_t length)
{
    struct daemon *daemon = ctx;

    condev_config_write(&daemon->console, offset, bytes, length);
    wake(daemon, input_queue(0) + 1);
}

/* Without a driver there is no more output. */
static void reset(void *ctx)
{
    struct daemon *daemon = ctx;

    condev_reset(&daemon->console);
    for (uint32_t id = 0; id < daemon->console.port_count; id++) {
        daemon->host[id].hungry = daemon->host[id].blocked = false;
        if (daemon->host[id].closing)
            disconnect(daemon, id, "disconnected");
    }
}

/* ----- what to wait for: two descriptors of each port ----- */

/* Input only when it is wanted; else the end of a connection. */
static struct pollfd input_item(const struct host *host)
{
    short events = host->hungry ? POLLIN : host->path == NULL || host->ended ? 0 : POLLRDHUP;
    struct pollfd item = {events != 0 ? host->in : -1, events, 0};

    if (host->in < 0)
        item = (struct pollfd){host->listening, POLLIN, 0};
    return item;
}

static unsigned fds(void *ctx, struct pollfd *item)
{
    struct daemon *daemon = ctx;
    uint32_t count = daemon->console.port_count;

    for (uint32_t id = 0; id < count; id++) {
        const struct host *host = &daemon->host[id];

        item[2 * id] = input_item(host);
        item[2 * id + 1] = (struct pollfd){host->blocked ? host->out : -1, POLLOUT, 0};
    }
    return 2 * count;
}

static void input_ready(struct daemon *daemon, uint32_t id)
{
    struct host *host = &daemon->host[id];
    int unread = 0;

    if (host->in < 0) {
        take_client(daemon, id);
    } else if (host->hungry) {
        host->hungry = false;
        wake(daemon, input_queue(id));
    } else if (ioctl(host->in, FIONREAD, &unread) != 0 || unread == 0) {
        disconnect(daemon, id, "disconnected");
    } else {
        host->ended = true;
    }
}

static void ready(void *ctx, const struct pollfd *item)
{
    struct daemon *daemon = ctx;

    for (uint32_t id = 0; id < daemon->console.port_count; id++) {
        if (item[2 * id + 1].revents != 0) {
            daemon->host[id].blocked = false;
            wake(daemon, input_queue(id) + 1);
        }
        if (item[2 * id].revents != 0)
            input_ready(daemon, id);
    }
}

static const struct vhu_ops ops = {.serve = serve,
                                   .log = vhost_daemon_log,
                                   .fds = fds,
                                   .ready = ready,
                                   .config_write = config_write,
                                   .reset = reset};

/* ----- the process ----- */

static int open_ports(struct daemon *daemon)
{
    for (uint32_t id = 0; id < daemon->console.port_count; id++)
        daemon->host[id].in = daemon->host[id].out = daemon->host[id].listening = -1;
    for (uint32_t id = 0; id < daemon->console.port_count; id++) {
        struct host *host = &daemon->host[id];

        if (host->path == NULL)
            continue;
        host->listening = vhu_listen(host->path);
        if (host->listening < 0) {
            vhost_daemon_say("%s: %s", host->path, strerror(errno));
            return -1;
        }
    }
    return 0;
}

static void close_ports(struct daemon *daemon)
{
    for (uint32_t id = 0; id < daemon->console.port_count; id++) {
        if (daemon->host[id].listening >= 0)
            unlink(daemon->host[id].path);
    }
}

/* A terminal may have room for less than is written, and a line for somebody else who reads: it is
 * opened once more, so as not to block. Where that cannot be, it is used as it is. */
static int own_terminal(int fd, int flags)
{
    const char *path = isatty(fd) ? ttyname(fd) : NULL;
    int own = path != NULL ? open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;

    return own >= 0 ? own : fd;
}

static void set_up(struct daemon *daemon)
{
    struct condev *console = &daemon->console;
    struct vhu_backend *backend = &daemon->backend;

    console->ops = &console_ops;
    console->ops_ctx = daemon;
    console->map = vhu_backend_map;
    console->map_ctx = backend;
    backend->ops = &ops;
    backend->ctx = daemon;
    backend->features = condev_features(console);
    backend->config = daemon->config;
    backend->config_length = sizeof(daemon->config);
    backend->queue_count = (uint16_t)(2 * console->port_count + 2);
    vhu_backend_init(backend);
    for (uint32_t id = 0; id < console->port_count; id++)
        condev_plug(console, id, id == 0 ? NULL : daemon->host[id].name, id == 0);
    condev_config(console, daemon->config);
    if (daemon->host[0].path == NULL)
        connected(daemon, 0, own_terminal(STDIN_FILENO, O_RDONLY),
                  own_terminal(STDOUT_FILENO, O_WRONLY));
}

static int run(struct daemon *daemon)
{
    const uint32_t *dropped = daemon->console.dropped;
    char about[80];
    int rc = -1;

    if (open_ports(daemon) == 0) {
        set_up(daemon);
        snprintf(about, sizeof(about), "a console and %u other port%s",
                 (unsigned)(daemon->console.port_count - 1),
                 daemon->console.port_count == 2 ? "" : "s");
        rc = vhost_daemon_run(&daemon->backend, daemon->socket, about);
        vhost_daemon_say("control messages refused: %u short, %u unknown, %u for no port, "
                         "%u out of order",
                         (unsigned)dropped[CONDEV_DROP_SHORT], (unsigned)dropped[CONDEV_DROP_EVENT],
                         (unsigned)dropped[CONDEV_DROP_PORT], (unsigned)dropped[CONDEV_DROP_ORDER]);
    }
    close_ports(daemon);
    return rc == 0 ? STATUS_OK : STATUS_FAILED;
}

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: vhost-console --socket PATH [OPTION]... [--port NAME=PATH]...\n"
            "Serves a virtio console to the vhost-user front-ends that connect to PATH, one after\n"
            "the other, until SIGTERM or SIGINT. Port 0 is a console on standard input and output.\n"
            "  --console PATH       port 0 is at a Unix socket instead\n"
            "  --size COLUMNSxROWS  tell the driver how large the console is\n"
            "  --port NAME=PATH     one more port, up to %d of them, at a Unix socket: open on this\n"
            "                       side while somebody is connected; ends when the driver closes it\n"
            "Exit status: 0 after a signal, 1 on an error, 2 for wrong arguments.\n",
            CONDEV_PORTS - 1);
    return status;
}

static bool parse_size(struct daemon *daemon, const char *text)
{
    unsigned columns, rows;
    char end;

    if (sscanf(text, "%5ux%5u%c", &columns, &rows, &end) != 2 || columns > UINT16_MAX ||
        rows > UINT16_MAX)
        return false;
    condev_resize(&daemon->console, 0, (uint16_t)columns, (uint16_t)rows);
    return true;
}

static bool parse_port(struct daemon *daemon, char *text)
{
    char *equals = strchr(text, '=');
    struct host *host = &daemon->host[daemon->console.port_count];

    if (daemon->console.port_count == CONDEV_PORTS || equals == NULL || equals == text ||
        equals - text > CONDEV_NAME_MAX)
        return false;
    *equals = '\0';
    host->name = text;
    host->path = equals + 1;
    daemon->console.port_count++;
    return true;
}

static bool parse(int argc, char **argv, struct daemon *daemon)
{
    daemon->console.port_count = 1;
    daemon->host[0].name = "console";
    for (int i = 1; i < argc; i += 2) {
        char *value = argv[i + 1];

        if (value == NULL)
            return false;
        if (strcmp(argv[i], "--socket") == 0)
            daemon->socket = value;
        else if (strcmp(argv[i], "--console") == 0)
            daemon->host[0].path = value;
        else if (strcmp(argv[i], "--size") == 0) {
            if (!parse_size(daemon, value))
                return false;
        } else if (strcmp(argv[i], "--port") != 0 || !parse_port(daemon, value))
            return false;
    }
    return daemon->socket != NULL;
}

int main(int argc, char **argv)
{
    static struct daemon daemon;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, STATUS_OK);
    if (!parse(argc, argv, &daemon))
        return usage(stderr, STATUS_USAGE);
    if (vhost_daemon_begin("vhost-console") != 0)
        return STATUS_FAILED;
    return run(&daemon);
}
