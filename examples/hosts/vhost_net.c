// SPDX-License-Identifier: MIT-0
/* Network devices in a process of its own, for the drivers of virtual machines and for any other
 * front-end of vhost-user. With one socket it is an echo, with several a switch between them.
 *
 *     build/vhost-net --socket a.sock --socket b.sock
 *     qemu-system-x86_64 -object memory-backend-memfd,id=m,size=512M,share=on \
 *         -machine memory-backend=m -chardev socket,id=c,path=a.sock \
 *         -netdev vhost-user,id=n,chardev=c -device virtio-net-pci,netdev=n ...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../device/net.h"
#include "vhost_daemon.h"

enum {
    PORTS = VHU_BACKENDS,
    QUEUES = 2,
    BATCH = 32,      /* frames between two decisions to interrupt */
    SHOWN = 8,       /* frames between two flushes: the other CPU works on them meanwhile */
    PATIENCE = 1000, /* turns without a frame, before a queue asks for kicks again */
    STATIONS = 256,
    MTU = 1500,
    LINE = 80
};

/* A connection of the switch. */
struct port {
    struct netdev net;
    uint8_t config[NETDEV_CONFIG_SIZE];
    const char *path;
    unsigned number;
    unsigned idle; /* turns without a frame */
    bool awake;    /* asked for no kicks */
};

/* Where an address was seen last. */
struct station {
    uint8_t mac[NETDEV_MAC_SIZE];
    uint8_t port;
    bool known;
};

static struct port ports[PORTS];
static struct vhu_backend backends[PORTS];
static unsigned port_count;
static struct station stations[STATIONS];

static void log_line(void *ctx, const char *line)
{
    const struct port *port = ctx;

    vhost_daemon_say("port %u: %s", port->number, line);
}

/* ----- where a frame goes: a set of ports, one bit each ----- */

static bool is_group(const uint8_t *mac)
{
    return mac[0] & 1;
}

/* Two addresses with one place take it from each other; frames to the one that lost it go
 * everywhere. */
static struct station *station_of(const uint8_t *mac)
{
    return &stations[(mac[5] + 31u * mac[4] + 7u * mac[3]) % STATIONS];
}

static unsigned lowest(unsigned set)
{
    return (unsigned)__builtin_ctz(set);
}

static void learn(const uint8_t *mac, unsigned port)
{
    struct station *station = station_of(mac);

    if (is_group(mac))
        return;
    memcpy(station->mac, mac, NETDEV_MAC_SIZE);
    station->port = (uint8_t)port;
    station->known = true;
}

static unsigned ports_for(const uint8_t *mac)
{
    const struct station *station = station_of(mac);

    if (station->known && memcmp(station->mac, mac, NETDEV_MAC_SIZE) == 0)
        return 1u << station->port;
    return (1u << port_count) - 1;
}

static unsigned targets(const struct port *from, const struct netdev_frame *frame)
{
    uint8_t mac[2 * NETDEV_MAC_SIZE]; /* destination, source */

    if (port_count == 1)
        return 1; /* the echo */
    netdev_peek(frame, mac, sizeof(mac));
    learn(mac + NETDEV_MAC_SIZE, from->number);
    return ports_for(mac) & ~(1u << from->number);
}

/* ----- the device ----- */

static struct vhu_queue *receive_queue(unsigned port)
{
    return &backends[port].queue[NETDEV_RECEIVE];
}

/* To each of the ports; at one without a driver it is lost, as on a cable that is not plugged in.
 */
static void forward(unsigned to, const struct netdev_frame *frame)
{
    for (; to != 0; to &= to - 1) {
        unsigned i = lowest(to);

        if (vhu_queue_ready(receive_queue(i)))
            netdev_put(&ports[i].net, &receive_queue(i)->ring, frame);
        else
            ports[i].net.dropped++;
    }
}

/* Shows the drivers what came so far. */
static void show(unsigned to)
{
    for (; to != 0; to &= to - 1) {
        struct vhu_queue *receive = receive_queue(lowest(to));

        if (vhu_queue_ready(receive))
            virtq_device_flush(&receive->ring);
    }
}

/* The same, and tells them. A driver that broke its queue hears of it when that is served. */
static void flush(unsigned to)
{
    for (; to != 0; to &= to - 1) {
        struct vhu_queue *receive = receive_queue(lowest(to));

        if (!vhu_queue_ready(receive))
            continue;
        vhu_queue_flush(receive);
        if (virtq_device_error(&receive->ring) != 0)
            vhu_queue_wake(receive);
    }
}

/* There was nothing: a driver that is busy sends more before a kick would be here. */
static int doze(struct port *port, struct vhu_queue *queue)
{
    if (port->idle++ < PATIENCE)
        return 1;
    port->idle = 0;
    port->awake = false;
    return virtq_device_kick_on(&queue->ring);
}

static int serve_transmit(struct port *port, struct vhu_queue *queue)
{
    static struct netdev_frame frames[BATCH];
    unsigned count, to, reached = 0;

    if (!port->awake)
        virtq_device_kick_off(&queue->ring);
    port->awake = true;
    count = netdev_take(&port->net, &queue->ring, frames, BATCH);
    if (count == 0)
        return virtq_device_error(&queue->ring) != 0 ? virtq_device_error(&queue->ring)
                                                     : doze(port, queue);
    for (unsigned i = 0; i < count; i++) {
        to = frames[i].length != 0 ? targets(port, &frames[i]) : 0;
        forward(to, &frames[i]);
        reached |= to;
        if (i % SHOWN == SHOWN - 1)
            show(reached);
    }
    flush(reached);
    vhu_queue_flush(queue);
    port->idle = 0;
    return 1;
}

/* New buffers are found when a frame comes. */
static int serve_receive(struct vhu_queue *queue)
{
    virtq_device_kick_off(&queue->ring);
    return virtq_device_error(&queue->ring);
}

static int serve(void *ctx, struct vhu_queue *queue)
{
    struct port *port = ctx;

    netdev_begin(&port->net, queue->backend->accepted);
    return queue->index == NETDEV_TRANSMIT ? serve_transmit(port, queue) : serve_receive(queue);
}

static const struct vhu_ops ops = {.serve = serve, .log = log_line};

static bool map(void *ctx, uint64_t addr, struct netdev_span *span)
{
    const struct vhu_mapping *mapping = vhu_backend_region(ctx, addr);

    if (mapping == NULL)
        return false;
    *span = (struct netdev_span){mapping->guest_addr, mapping->size, mapping->host};
    return true;
}

/* ----- the process ----- */

struct options {
    uint8_t mac[NETDEV_MAC_SIZE]; /* of port 0 */
    uint16_t mtu;
};

/* Port n has the address that is n after the first one's. */
static void set_up(const struct options *options, unsigned number)
{
    struct vhu_backend *backend = &backends[number];
    struct port *port = &ports[number];

    port->number = number;
    port->net.map = map;
    port->net.map_ctx = backend;
    port->net.mtu = options->mtu;
    memcpy(port->net.mac, options->mac, NETDEV_MAC_SIZE);
    port->net.mac[NETDEV_MAC_SIZE - 1] = (uint8_t)(options->mac[NETDEV_MAC_SIZE - 1] + number);
    netdev_config(&port->net, port->config);
    backend->ops = &ops;
    backend->ctx = port;
    backend->features = netdev_features();
    backend->config = port->config;
    backend->config_length = sizeof(port->config);
    backend->queue_count = QUEUES;
    backend->batches = true;
    vhu_backend_init(backend);
}

static int open_port(const struct port *port)
{
    const uint8_t *mac = port->net.mac;
    char about[LINE];

    snprintf(about, sizeof(about), "port %u: %02x:%02x:%02x:%02x:%02x:%02x%s", port->number, mac[0],
             mac[1], mac[2], mac[3], mac[4], mac[5], port_count == 1 ? ", an echo" : "");
    return vhost_daemon_open(&backends[port->number], port->path, about);
}

static void close_port(const struct port *port)
{
    const struct netdev *net = &port->net;

    vhost_daemon_close(&backends[port->number]);
    vhost_daemon_say("port %u: %llu frames from the driver, %llu refused; %llu to the driver, "
                     "%llu dropped, %llu buffers unusable",
                     port->number, (unsigned long long)net->taken, (unsigned long long)net->refused,
                     (unsigned long long)net->put, (unsigned long long)net->dropped,
                     (unsigned long long)net->unusable);
}

static int serve_ports(const struct options *options)
{
    unsigned open = 0;
    int rc = -1;

    for (unsigned i = 0; i < port_count; i++)
        set_up(options, i);
    while (open < port_count && open_port(&ports[open]) == 0)
        open++;
    if (open == port_count)
        rc = vhost_daemon_serve(backends, port_count);
    while (open != 0)
        close_port(&ports[--open]);
    return rc == 0 ? STATUS_OK : STATUS_FAILED;
}

static int usage(FILE *out, int status)
{
    fprintf(
        out,
        "usage: vhost-net --socket PATH [--socket PATH ...] [--mac ADDRESS] [--mtu BYTES]\n"
        "Serves virtio network devices to the vhost-user front-ends that connect, one device and\n"
        "one front-end at a time for each socket, until SIGTERM or SIGINT.\n"
        "With one socket each frame goes back to its sender, as it is: no address is changed.\n"
        "With several, up to %d, frames are switched between them: to where the destination was\n"
        "seen as a source, or else to all others.\n"
        "  --mac ADDRESS  of the first device, the next ones count up (default 02:00:00:00:00:01)\n"
        "  --mtu BYTES    %d to %d (default %d)\n"
        "A frame for a driver that has no buffers for it is dropped. Counts are printed at the "
        "end.\n"
        "Exit status: 0 after a signal, 1 on an error, 2 for wrong arguments.\n",
        PORTS, NETDEV_MTU_MIN, NETDEV_MTU_MAX, MTU);
    return status;
}

static bool parse_mac(const char *text, uint8_t mac[NETDEV_MAC_SIZE])
{
    int end = 0;

    return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3],
                  &mac[4], &mac[5], &end) == NETDEV_MAC_SIZE &&
           text[end] == '\0' && !is_group(mac);
}

static bool parse_mtu(const char *text, uint16_t *mtu)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (*text == '\0' || *end != '\0' || value < NETDEV_MTU_MIN || value > NETDEV_MTU_MAX)
        return false;
    *mtu = (uint16_t)value;
    return true;
}

static bool parse_option(const char *name, const char *value, struct options *options)
{
    if (strcmp(name, "--mac") == 0)
        return parse_mac(value, options->mac);
    if (strcmp(name, "--mtu") == 0)
        return parse_mtu(value, &options->mtu);
    if (strcmp(name, "--socket") != 0 || port_count == PORTS)
        return false;
    ports[port_count++].path = value;
    return true;
}

static bool parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc || !parse_option(argv[i], argv[i + 1], options))
            return false;
    }
    return port_count != 0;
}

int main(int argc, char **argv)
{
    struct options options = {{2, 0, 0, 0, 0, 1}, MTU};

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, STATUS_OK);
    if (!parse(argc, argv, &options))
        return usage(stderr, STATUS_USAGE);
    if (vhost_daemon_begin("vhost-net") != 0)
        return STATUS_FAILED;
    return serve_ports(&options);
}
