// SPDX-License-Identifier: MIT-0
/* A virtio console driver over any transport; see console.h. VIRTIO 5.3. */
#include "console.h"

enum {
    CONSOLE_FEATURE_SIZE = 0,
    CONSOLE_FEATURE_MULTIPORT = 1,
    CONSOLE_FEATURE_EMERG_WRITE = 2,
    CONSOLE_MSG_DEVICE_READY = 0,
    CONSOLE_MSG_DEVICE_ADD = 1,
    CONSOLE_MSG_DEVICE_REMOVE = 2,
    CONSOLE_MSG_PORT_READY = 3,
    CONSOLE_MSG_CONSOLE_PORT = 4,
    CONSOLE_MSG_RESIZE = 5,
    CONSOLE_MSG_PORT_OPEN = 6,
    CONSOLE_MSG_PORT_NAME = 7,
    CONSOLE_HEADER_SIZE = 8,
    CONSOLE_RESIZE_SIZE = 12,
    CONSOLE_CONTROL_IN = 2, /* queues */
    CONSOLE_CONTROL_OUT = 3
};

static const struct virtio_config_field console_fields_size[] = {{0, 2}, {2, 2}};
static const struct virtio_config_field console_field_max_ports = {4, 4};
static const struct virtio_config_field console_field_emergency = {8, 4};

/* ----- queues and their buffers ----- */

static bool console_is_control(unsigned queue)
{
    return queue == CONSOLE_CONTROL_IN || queue == CONSOLE_CONTROL_OUT;
}

static struct console_queue *console_input(struct console *con, uint32_t port)
{
    return &con->queue[port == 0 ? 0 : 2 + 2 * port];
}

static struct console_queue *console_output(struct console *con, uint32_t port)
{
    return console_input(con, port) + 1;
}

/* Of bits that are not all 0. Some CPUs need a library for the compiler's own way to say it. */
static unsigned console_lowest(uint32_t bits)
{
    unsigned at = 0;

    while ((bits >> at & 1) == 0)
        at++;
    return at;
}

static uint8_t *console_buffer(const struct console_queue *q, unsigned buffer)
{
    return q->cpu + buffer * q->size;
}

/* Adds a buffer that is the driver's: `length` bytes to be read, or all of it to be written if that
 * is 0 (D-CON-02). One descriptor each (D-CON-03). Published by console_push(). */
static int console_add(struct console_queue *q, unsigned buffer, uint32_t length)
{
    struct virtq_seg seg = {q->device + (uint64_t)buffer * q->size, length != 0 ? length : q->size};
    void *cookie = console_buffer(q, buffer);
    int err = length != 0 ? virtq_driver_add_readable(&q->queue.ring, seg, cookie)
                          : virtq_driver_add_writable(&q->queue.ring, seg, cookie);

    if (err != 0)
        return q->error = err;
    q->held &= ~(1u << buffer);
    q->last = (uint8_t)buffer;
    return 0;
}

static void console_push(struct console_queue *q)
{
    virtq_driver_publish(&q->queue.ring);
    virtio_drv_kick(&q->queue);
}

/* Gives the device every buffer to write to that is the driver's. */
static int console_post(struct console_queue *q)
{
    int err = q->error;

    if (q->held == 0)
        return err;
    while (err == 0 && q->held != 0)
        err = console_add(q, console_lowest(q->held), 0);
    console_push(q);
    return err;
}

/* Takes one buffer back. It is not marked as held yet: it may have to be read first. */
static int console_take(struct console_queue *q, struct console_chunk *chunk)
{
    struct virtq_done done = {NULL, 0};
    int got = virtq_driver_take(&q->queue.ring, &done);

    if (got > 0) {
        chunk->buffer = (uint8_t)((size_t)((uint8_t *)done.cookie - q->cpu) / q->size);
        chunk->length = (uint16_t)done.written;
    } else if (got < 0 && q->error == 0) {
        q->error = got;
    }
    return got;
}

static void console_reclaim(struct console_queue *q)
{
    struct console_chunk chunk;

    while (console_take(q, &chunk) > 0)
        q->held |= 1u << chunk.buffer;
}

/* Has the device taken all that was published? It does so in order: what is not back when the last
 * one is was taken as well. It may be lost: QEMU keeps the buffer at which a socket was full when
 * the socket's reader goes away, or the port. */
static bool console_is_drained(const struct console_queue *q)
{
    return q->held == q->all || (q->held & 1u << q->last) != 0;
}

static void console_copy(uint8_t *to, const uint8_t *from, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        to[i] = from[i];
}

/* ----- bringing up ----- */

static int console_negotiate(struct console *con)
{
    static const struct virtio_features required = {{0, 0, 0, 0}};
    struct virtio_features wanted = {{1u << CONSOLE_FEATURE_SIZE | 1u << CONSOLE_FEATURE_MULTIPORT |
                                          1u << CONSOLE_FEATURE_EMERG_WRITE,
                                      0, 0, 0}};

    virtio_features_add_ring(&wanted);
    for (unsigned word = 0; word < 4; word++)
        wanted.word[word] &= ~con->setup.refused.word[word];
    return virtio_drv_negotiate(con->drv, &wanted, &required);
}

/* The size in the configuration is that of port 0 alone (D-CON-04). 1: it is another one, 0, or an
 * error. */
static int console_read_size(struct console *con)
{
    struct console_port *port = &con->port[0];
    struct console_size old = port->size;
    uint64_t value[2];
    int err;

    if (!virtio_features_has(&con->drv->accepted, CONSOLE_FEATURE_SIZE))
        return 0;
    err = virtio_drv_config_read(con->drv, console_fields_size, 2, value);
    if (err != 0)
        return err;
    port->sized = true;
    port->size.columns = (uint16_t)value[0];
    port->size.rows = (uint16_t)value[1];
    return old.columns != port->size.columns || old.rows != port->size.rows;
}

static int console_read_config(struct console *con)
{
    uint64_t value = 1;
    int err = 0;

    con->multiport = virtio_features_has(&con->drv->accepted, CONSOLE_FEATURE_MULTIPORT);
    if (con->multiport)
        err = virtio_drv_config_read(con->drv, &console_field_max_ports, 1, &value);
    if (err != 0)
        return err;
    if (value == 0)
        return CONSOLE_ERR_NO_PORTS;
    con->max_ports = (uint32_t)value;
    con->port_count = (uint16_t)(value < CONSOLE_PORTS ? value : (uint64_t)CONSOLE_PORTS);
    con->queue_count = (uint16_t)(con->multiport ? 2 * con->port_count + 2 : 2);
    return 0;
}

/* What a piece of memory has not given away yet. */
static int console_carve(struct virtio_dma *memory, uint32_t bytes, struct virtio_dma *piece)
{
    if (memory->length < bytes)
        return CONSOLE_ERR_MEMORY;
    *piece = *memory;
    piece->length = bytes;
    memory->cpu = (uint8_t *)memory->cpu + bytes;
    memory->device += bytes;
    memory->length -= bytes;
    return 0;
}

/* As many entries as there are buffers; a legacy PCI device has its own idea. */
static int console_setup_queue(struct console *con, uint16_t index, struct virtio_dma *memory)
{
    uint16_t wanted = console_is_control(index) ? CONSOLE_CONTROLS : CONSOLE_BUFFERS;
    uint16_t num = virtio_drv_queue_size(con->drv, index);
    struct console_queue *q = &con->queue[index];
    struct virtio_queue_setup setup;
    int err;

    if (num > wanted && !virtio_drv_transport(con->drv)->fixed_size)
        num = wanted;
    if (num == 0)
        return VIRTIO_ERR_NO_QUEUE;
    if (num > CONSOLE_QUEUE_MAX)
        return CONSOLE_ERR_QUEUE;
    err = console_carve(memory, virtio_drv_queue_bytes(con->drv, num), &setup.memory);
    if (err != 0)
        return err;
    q->entries = setup.num = num;
    setup.slots = con->slots[index];
    q->error = 0;
    q->all = UINT32_MAX >> (32 - (num < wanted ? num : wanted));
    q->held = q->all;
    return virtio_drv_queue_setup(con->drv, &q->queue, index, &setup);
}

/* Behind all the rings, which want to be aligned. */
static int console_setup_buffers(struct console *con, uint16_t index, struct virtio_dma *memory)
{
    bool control = console_is_control(index);
    uint32_t count = control ? CONSOLE_CONTROLS : CONSOLE_BUFFERS;
    struct console_queue *q = &con->queue[index];
    struct virtio_dma piece = {NULL, 0, 0};
    int err;

    q->size = control ? CONSOLE_CONTROL_SIZE : CONSOLE_BUFFER_SIZE;
    err = console_carve(memory, count * q->size, &piece);
    q->cpu = (uint8_t *)piece.cpu;
    q->device = piece.device;
    return err;
}

static int console_setup_queues(struct console *con)
{
    struct virtio_dma memory = con->setup.memory;
    int err = 0;

    if (con->setup.vectors != 0)
        err = virtio_drv_map_vectors(con->drv, con->queue_count, con->setup.vectors);
    err = err < 0 ? err : 0;
    for (uint16_t i = 0; i < con->queue_count && err == 0; i++)
        err = console_setup_queue(con, i, &memory);
    for (uint16_t i = 0; i < con->queue_count && err == 0; i++)
        err = console_setup_buffers(con, i, &memory);
    return err;
}

static bool console_send(struct console *con, uint32_t id, uint16_t event, uint16_t value);

/* Nothing happens before the driver asks for it: for input, and with DEVICE_READY for its ports. */
static int console_go(struct console *con)
{
    int err;

    if (!con->multiport) {
        con->port[0].state = CONSOLE_PRESENT;
        con->port[0].open = con->port[0].host_open = con->port[0].is_console = true;
        return console_post(console_input(con, 0));
    }
    err = console_post(&con->queue[CONSOLE_CONTROL_IN]);
    if (err != 0)
        return err;
    (void)console_send(con, 0, CONSOLE_MSG_DEVICE_READY, 1); /* D-CON-01; the queue is empty */
    console_push(&con->queue[CONSOLE_CONTROL_OUT]);
    return 0;
}

int console_start(struct console *con, struct virtio_drv *drv, const struct console_setup *setup)
{
    static const struct console_port none = {0};
    int err = virtio_drv_begin(drv);

    con->drv = drv;
    con->setup = *setup;
    con->config_changed = false;
    for (unsigned i = 0; i < CONSOLE_DROPS; i++)
        con->dropped[i] = 0;
    for (unsigned i = 0; i < CONSOLE_PORTS; i++)
        con->port[i] = none;
    if (err != 0)
        return err;
    err = console_negotiate(con);
    if (err == 0)
        err = console_read_config(con);
    if (err == 0)
        err = console_read_size(con);
    if (err >= 0)
        err = console_setup_queues(con);
    if (err == 0) {
        virtio_drv_ready(drv);
        err = console_go(con);
    }
    if (err != 0)
        virtio_drv_fail(drv);
    return err;
}

int console_stop(struct console *con)
{
    return virtio_drv_reset(con->drv);
}

/* ----- control messages ----- */

/* Their fields are little-endian, for a legacy device in the CPU's order. */
static bool console_big(const struct console *con)
{
    return VIRTIO_BIG_ENDIAN && virtio_drv_transport(con->drv)->legacy;
}

static uint32_t console_number(const struct console *con, const uint8_t *bytes, unsigned width)
{
    bool big = console_big(con);
    uint32_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value = value << 8 | bytes[big ? i : width - 1 - i];
    return value;
}

static void console_put(const struct console *con, uint8_t *bytes, unsigned width, uint32_t value)
{
    bool big = console_big(con);

    for (unsigned i = 0; i < width; i++)
        bytes[big ? width - 1 - i : i] = (uint8_t)(value >> 8 * i);
}

/* Adds a control message; it is sent by the next console_push(). False: no room. */
static bool console_send(struct console *con, uint32_t id, uint16_t event, uint16_t value)
{
    struct console_queue *q = &con->queue[CONSOLE_CONTROL_OUT];
    uint8_t *bytes;
    unsigned buffer;

    if (q->held == 0)
        console_reclaim(q);
    if (q->held == 0)
        return false;
    buffer = console_lowest(q->held);
    bytes = console_buffer(q, buffer);
    console_put(con, bytes, 4, id);
    console_put(con, bytes + 4, 2, event);
    console_put(con, bytes + 6, 2, value);
    return console_add(q, buffer, CONSOLE_HEADER_SIZE) == 0;
}

/* A control message in private memory. */
struct console_message {
    uint32_t id;
    uint16_t event;
    uint16_t value;
    uint32_t length; /* with its header */
    uint8_t bytes[CONSOLE_CONTROL_SIZE];
};

/* Takes the next message and gives its buffer back. Each byte is read once: the device can write to
 * it at any time. */
static int console_receive(struct console *con, struct console_message *message)
{
    struct console_queue *q = &con->queue[CONSOLE_CONTROL_IN];
    struct console_chunk chunk = {0, 0};
    const volatile uint8_t *from;
    int got = console_take(q, &chunk);

    if (got <= 0)
        return got;
    from = console_buffer(q, chunk.buffer);
    for (unsigned i = 0; i < chunk.length; i++)
        message->bytes[i] = from[i];
    for (unsigned i = chunk.length; i < CONSOLE_RESIZE_SIZE; i++)
        message->bytes[i] = 0;
    message->length = chunk.length;
    message->id = console_number(con, message->bytes, 4);
    message->event = (uint16_t)console_number(con, message->bytes + 4, 2);
    message->value = (uint16_t)console_number(con, message->bytes + 6, 2);
    q->held |= 1u << chunk.buffer;
    return got;
}

static bool console_drop(struct console *con, enum console_drop why)
{
    con->dropped[why]++;
    return false;
}

static bool console_report(struct console_event *event, enum console_event_kind kind,
                           uint32_t port)
{
    event->kind = kind;
    event->port = port;
    event->error = 0;
    return true;
}

/* ----- data queues ----- */

/* Input of a port that is open waits for its reader, other input is dropped. */
static void console_collect_input(struct console *con, uint32_t id)
{
    struct console_port *port = &con->port[id];
    struct console_queue *q = console_input(con, id);
    bool wanted = port->state == CONSOLE_PRESENT && port->open;
    struct console_chunk chunk;

    while (console_take(q, &chunk) > 0) {
        if (wanted && chunk.length != 0) {
            port->input[(port->first + port->count++) % CONSOLE_BUFFERS] = chunk;
            continue;
        }
        con->dropped[CONSOLE_DROP_INPUT] += chunk.length;
        q->held |= 1u << chunk.buffer;
    }
    if (port->state == CONSOLE_PRESENT)
        (void)console_post(q);
}

static void console_collect(struct console *con, uint32_t id)
{
    console_collect_input(con, id);
    console_reclaim(console_output(con, id));
}

/* Takes the first of a port's buffers out of its input. */
static void console_consume(struct console *con, uint32_t id)
{
    struct console_port *port = &con->port[id];

    console_input(con, id)->held |= 1u << port->input[port->first].buffer;
    port->first = (uint8_t)((port->first + 1) % CONSOLE_BUFFERS);
    port->count--;
    port->consumed = 0;
}

static void console_discard_input(struct console *con, uint32_t id)
{
    struct console_port *port = &con->port[id];

    console_collect_input(con, id);
    while (port->count != 0) {
        con->dropped[CONSOLE_DROP_INPUT] +=
            (uint32_t)port->input[port->first].length - port->consumed;
        console_consume(con, id);
    }
}

/* ----- ports come and go ----- */

/* A port that cannot be taken: its id is as free as before. */
static bool console_refuse(struct console *con, uint32_t id, int error, struct console_event *event)
{
    (void)console_send(con, id, CONSOLE_MSG_PORT_READY, 0);
    (void)console_report(event, CONSOLE_REFUSED, id);
    event->error = error;
    return true;
}

/* Takes a port that was added, once no output of its predecessor is left: the device might let it
 * come out of the new one. Input of the predecessor is dropped; buffers for input that the device
 * has from then are the new port's, none is posted twice. */
static bool console_occupy(struct console *con, uint32_t id, struct console_event *event)
{
    static const struct console_port fresh = {0};
    struct console_port *port = &con->port[id];
    struct console_queue *in = console_input(con, id), *out = console_output(con, id);
    int err;

    console_collect(con, id);
    err = out->error;
    if (err == 0 && !console_is_drained(out))
        return false;
    if (err == 0)
        err = console_post(in);
    if (err != 0) {
        port->state = CONSOLE_ABSENT;
        return console_refuse(con, id, err, event);
    }
    *port = fresh;
    port->state = CONSOLE_PRESENT;
    if (id == 0)
        (void)console_read_size(con);
    (void)console_send(con, id, CONSOLE_MSG_PORT_READY, 1);
    return console_report(event, CONSOLE_ADDED, id);
}

static bool console_on_add(struct console *con, uint32_t id, struct console_event *event)
{
    if (id >= con->max_ports)
        return console_refuse(con, id, CONSOLE_ERR_ID_RANGE, event);
    if (id >= con->port_count)
        return console_refuse(con, id, CONSOLE_ERR_ID_QUEUES, event);
    if (con->port[id].state == CONSOLE_PRESENT) /* stays as it is, and is as ready as it was */
        (void)console_send(con, id, CONSOLE_MSG_PORT_READY, 1);
    if (con->port[id].state != CONSOLE_ABSENT)
        return console_drop(con, CONSOLE_DROP_DUPLICATE);
    con->port[id].state = CONSOLE_DRAINING;
    return console_occupy(con, id, event);
}

static bool console_on_remove(struct console *con, uint32_t id, struct console_event *event)
{
    struct console_port *port = &con->port[id];
    bool was = port->state == CONSOLE_PRESENT;

    port->state = CONSOLE_ABSENT; /* so that what is dropped now stays with the driver */
    port->open = port->host_open = port->blocked = false;
    console_discard_input(con, id);
    return was && console_report(event, CONSOLE_REMOVED, id);
}

/* A name ends with the message, or where there is a zero byte: QEMU sends one. A longer one than is
 * kept is cut between two characters. */
static bool console_on_name(struct console *con, const struct console_message *message,
                            struct console_event *event)
{
    const uint8_t *name = message->bytes + CONSOLE_HEADER_SIZE;
    char *kept = con->port[message->id].name;
    uint32_t length = 0;

    while (length < message->length - CONSOLE_HEADER_SIZE && name[length] != 0)
        length++;
    if (length >= CONSOLE_NAME_SIZE) {
        (void)console_drop(con, CONSOLE_DROP_NAME);
        length = CONSOLE_NAME_SIZE - 1;
        while (length != 0 && (name[length] & 0xc0) == 0x80)
            length--;
    }
    console_copy((uint8_t *)kept, name, length);
    kept[length] = '\0';
    return console_report(event, CONSOLE_NAMED, message->id);
}

static bool console_on_open(struct console *con, const struct console_message *message,
                            struct console_event *event)
{
    struct console_port *port = &con->port[message->id];
    bool open = message->value != 0;

    if (open == port->host_open)
        return false;
    port->host_open = open;
    return console_report(event, open ? CONSOLE_OPENED : CONSOLE_CLOSED, message->id);
}

/* D-CON-01 */
static bool console_on_console(struct console *con, uint32_t id, struct console_event *event)
{
    struct console_port *port = &con->port[id];
    bool was = port->is_console;

    (void)console_send(con, id, CONSOLE_MSG_PORT_OPEN, 1);
    port->is_console = port->open = true;
    return !was && console_report(event, CONSOLE_IS_CONSOLE, id);
}

static bool console_on_resize(struct console *con, const struct console_message *message,
                              struct console_event *event)
{
    struct console_port *port = &con->port[message->id];

    if (message->length < CONSOLE_RESIZE_SIZE)
        return console_drop(con, CONSOLE_DROP_SHORT);
    port->size.columns = (uint16_t)console_number(con, message->bytes + CONSOLE_HEADER_SIZE, 2);
    port->size.rows = (uint16_t)console_number(con, message->bytes + CONSOLE_HEADER_SIZE + 2, 2);
    port->sized = true;
    return console_report(event, CONSOLE_RESIZED, message->id);
}

/* Handles one message, with at most one in answer. True: it is an event. */
static bool console_handle(struct console *con, const struct console_message *message,
                           struct console_event *event)
{
    uint32_t id = message->id;

    if (message->length < CONSOLE_HEADER_SIZE)
        return console_drop(con, CONSOLE_DROP_SHORT);
    if (message->event == CONSOLE_MSG_DEVICE_ADD)
        return console_on_add(con, id, event);
    if (message->event == CONSOLE_MSG_DEVICE_READY || message->event == CONSOLE_MSG_PORT_READY ||
        message->event > CONSOLE_MSG_PORT_NAME)
        return console_drop(con, CONSOLE_DROP_EVENT);
    if (id >= con->port_count || con->port[id].state == CONSOLE_ABSENT)
        return console_drop(con, CONSOLE_DROP_PORT);
    if (message->event == CONSOLE_MSG_DEVICE_REMOVE)
        return console_on_remove(con, id, event);
    if (con->port[id].state != CONSOLE_PRESENT)
        return console_drop(con, CONSOLE_DROP_PORT);
    switch (message->event) {
    case CONSOLE_MSG_CONSOLE_PORT: return console_on_console(con, id, event);
    case CONSOLE_MSG_RESIZE: return console_on_resize(con, message, event);
    case CONSOLE_MSG_PORT_OPEN: return console_on_open(con, message, event);
    default: return console_on_name(con, message, event);
    }
}

/* ----- poll and wait ----- */

static int console_poll_config(struct console *con, struct console_event *event)
{
    int changed;

    if (!con->config_changed)
        return 0;
    con->config_changed = false; /* before the look: a change after it counts again */
    if (virtio_drv_needs_reset(con->drv))
        return CONSOLE_ERR_DEVICE;
    changed = console_read_size(con);
    if (changed > 0 && con->port[0].state == CONSOLE_PRESENT)
        return console_report(event, CONSOLE_RESIZED, 0);
    return changed < 0 ? changed : 0;
}

/* Ports that waited for the device to give old output back. */
static bool console_poll_draining(struct console *con, struct console_event *event)
{
    for (uint32_t id = 0; id < con->port_count; id++) {
        if (con->port[id].state == CONSOLE_DRAINING &&
            con->queue[CONSOLE_CONTROL_OUT].held != 0 && console_occupy(con, id, event))
            return true;
    }
    return false;
}

/* Messages up to the next event, as long as there is room for an answer, and no more at a time than
 * the device may have sent honestly. */
static int console_poll_control(struct console *con, struct console_event *event)
{
    struct console_queue *in = &con->queue[CONSOLE_CONTROL_IN];
    struct console_queue *out = &con->queue[CONSOLE_CONTROL_OUT];
    struct console_message message;
    bool is_event = false;
    int got = 1;

    console_reclaim(out);
    for (unsigned i = 0; i < CONSOLE_CONTROLS && out->held != 0 && !is_event; i++) {
        got = console_receive(con, &message);
        if (got <= 0)
            break;
        is_event = console_handle(con, &message, event);
    }
    (void)console_post(in);
    if (is_event || console_poll_draining(con, event))
        return 1;
    console_push(out); /* after the buffers that will take the answers to it */
    return in->error != 0 ? in->error : out->error;
}

int console_poll(struct console *con, struct console_event *event)
{
    int got = console_poll_config(con, event);

    if (got != 0)
        return got;
    for (uint32_t id = 0; id < con->port_count; id++)
        console_collect(con, id);
    return con->multiport ? console_poll_control(con, event) : 0;
}

/* Asks for the interrupt of one queue, or for none. True: there is something already. */
static bool console_arm(struct console_queue *q, bool on)
{
    if (on)
        return virtq_driver_irq_on(&q->queue.ring);
    virtq_driver_irq_off(&q->queue.ring);
    return false;
}

/* A port whose output is not blocked does not care when the device consumes it. While there is no
 * room for answers, no message is taken either. */
static bool console_arm_all(struct console *con)
{
    bool pending = con->config_changed;

    for (uint32_t id = 0; id < con->port_count; id++) {
        const struct console_port *port = &con->port[id];

        pending = console_arm(console_input(con, id), true) || pending;
        pending = console_arm(console_output(con, id),
                              port->blocked || port->state == CONSOLE_DRAINING) ||
                  pending;
    }
    if (con->multiport) {
        bool room = con->queue[CONSOLE_CONTROL_OUT].held != 0;

        pending = console_arm(&con->queue[CONSOLE_CONTROL_IN], room) || pending;
        pending = console_arm(&con->queue[CONSOLE_CONTROL_OUT], !room) || pending;
    }
    return pending;
}

static int console_wait_once(struct console *con)
{
    if (con->setup.wait(con->setup.wait_ctx))
        return 0;
    return virtio_drv_needs_reset(con->drv) ? CONSOLE_ERR_DEVICE : CONSOLE_ERR_TIMEOUT;
}

int console_wait(struct console *con)
{
    if (con->multiport)
        console_push(&con->queue[CONSOLE_CONTROL_OUT]);
    return console_arm_all(con) ? 0 : console_wait_once(con);
}

/* ----- what a caller does with a port ----- */

static struct console_port *console_find(struct console *con, uint32_t id)
{
    bool there = id < con->port_count && con->port[id].state == CONSOLE_PRESENT;

    return there ? &con->port[id] : NULL;
}

int console_read(struct console *con, uint32_t id, void *bytes, uint32_t size)
{
    struct console_port *port = console_find(con, id);
    struct console_queue *q;
    uint32_t done = 0;
    int err;

    if (port == NULL)
        return CONSOLE_ERR_PORT;
    q = console_input(con, id);
    while (done < size && port->count != 0) {
        struct console_chunk chunk = port->input[port->first];
        uint32_t left = (uint32_t)chunk.length - port->consumed;
        uint32_t piece = size - done < left ? size - done : left;

        console_copy((uint8_t *)bytes + done, console_buffer(q, chunk.buffer) + port->consumed,
                     piece);
        port->consumed = (uint16_t)(port->consumed + piece);
        if (piece == left)
            console_consume(con, id);
        done += piece;
    }
    err = console_post(q);
    return done != 0 ? (int)done : err;
}

int console_write(struct console *con, uint32_t id, const void *bytes, uint32_t length)
{
    struct console_port *port = console_find(con, id);
    struct console_queue *q;
    uint32_t done = 0;

    if (port == NULL)
        return CONSOLE_ERR_PORT;
    if (!port->open || (!port->host_open && !port->is_console))
        return CONSOLE_ERR_CLOSED;
    q = console_output(con, id);
    console_reclaim(q);
    while (q->error == 0 && done < length && q->held != 0) {
        unsigned buffer = console_lowest(q->held);
        uint32_t piece = length - done < q->size ? length - done : q->size;

        console_copy(console_buffer(q, buffer), (const uint8_t *)bytes + done, piece);
        if (console_add(q, buffer, piece) == 0)
            done += piece;
    }
    if (q->error != 0)
        return q->error;
    if (done != 0)
        console_push(q);
    port->blocked = done < length;
    return (int)done;
}

int console_flush(struct console *con, uint32_t id)
{
    struct console_queue *q;

    if (console_find(con, id) == NULL)
        return CONSOLE_ERR_PORT;
    q = console_output(con, id);
    for (;;) {
        int err;

        console_reclaim(q);
        if (q->error != 0 || console_is_drained(q))
            return q->error;
        if (console_arm(q, true))
            continue;
        err = console_wait_once(con);
        if (err != 0)
            return err;
    }
}

static int console_set_open(struct console *con, uint32_t id, bool open)
{
    struct console_port *port = console_find(con, id);

    if (port == NULL)
        return CONSOLE_ERR_PORT;
    if (!con->multiport)
        return CONSOLE_ERR_SINGLE;
    if (port->open == open)
        return 0;
    if (!console_send(con, id, CONSOLE_MSG_PORT_OPEN, open))
        return CONSOLE_ERR_BUSY;
    console_discard_input(con, id);
    (void)console_post(console_input(con, id));
    port->open = open;
    return 0;
}

int console_open(struct console *con, uint32_t port)
{
    return console_set_open(con, port, true);
}
int console_close(struct console *con, uint32_t port)
{
    return console_set_open(con, port, false);
}

int console_size(const struct console *con, uint32_t id, struct console_size *size)
{
    if (id >= con->port_count || con->port[id].state != CONSOLE_PRESENT)
        return CONSOLE_ERR_PORT;
    if (!con->port[id].sized)
        return CONSOLE_ERR_NO_SIZE;
    *size = con->port[id].size;
    return 0;
}

void console_config_changed(struct console *con)
{
    con->config_changed = true;
}

int console_emergency_write(const struct virtio_drv *drv, char c)
{
    uint32_t offered = virtio_drv_transport(drv)->features_get(drv, 0);

    if ((offered & 1u << CONSOLE_FEATURE_EMERG_WRITE) == 0)
        return CONSOLE_ERR_NO_EMERGENCY;
    /* The low byte is all that counts. QEMU looks for it in the little-endian place even where a
     * legacy device is big-endian. */
    return virtio_drv_config_write(drv, console_field_emergency,
                                   (uint8_t)c * (VIRTIO_BIG_ENDIAN ? 0x01000001u : 1u));
}

const char *console_err_name(int err)
{
    switch (err) {
    case CONSOLE_ERR_MEMORY: return "memory given to the driver is too small";
    case CONSOLE_ERR_QUEUE: return "device wants a larger queue than this driver has";
    case CONSOLE_ERR_NO_PORTS: return "device can have no port at all";
    case CONSOLE_ERR_PORT: return "no such port";
    case CONSOLE_ERR_CLOSED: return "port is closed";
    case CONSOLE_ERR_BUSY: return "too many control messages on their way";
    case CONSOLE_ERR_SINGLE: return "device has one console, which cannot be closed";
    case CONSOLE_ERR_NO_SIZE: return "size of the port is not known";
    case CONSOLE_ERR_NO_EMERGENCY: return "device has no emergency write";
    case CONSOLE_ERR_TIMEOUT: return "device does not answer";
    case CONSOLE_ERR_DEVICE: return "device failed and wants a reset";
    case CONSOLE_ERR_ID_RANGE: return "device added a port that it cannot have";
    case CONSOLE_ERR_ID_QUEUES: return "device added a port that this driver has no queues for";
    default: return virtio_err_name(err);
    }
}
