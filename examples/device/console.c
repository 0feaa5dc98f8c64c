// SPDX-License-Identifier: MIT-0
/* A virtio console device; see console.h. VIRTIO 5.3. */
#include "console.h"

#include "stream.h"

enum {
    MSG_DEVICE_READY = 0,
    MSG_DEVICE_ADD = 1,
    MSG_DEVICE_REMOVE = 2,
    MSG_PORT_READY = 3,
    MSG_CONSOLE_PORT = 4,
    MSG_RESIZE = 5,
    MSG_PORT_OPEN = 6,
    MSG_PORT_NAME = 7,
    MSG_NONE = 8,
    HEADER_SIZE = 8,
    RESIZE_SIZE = 4,
    EMERGENCY_AT = 8,
    EMERGENCY_SIZE = 4
};

/* Bits of condev_port::tell: what the driver hears of a port once it has it. */
enum { TELL_CONSOLE = 1, TELL_NAME = 2, TELL_SIZE = 4 };

/* ----- the ports ----- */

/* Forgets what the driver knows and said of a port. */
static void forget(struct condev *dev, uint32_t id)
{
    struct condev_port *port = &dev->port[id];
    bool was_open = port->open;

    port->added = port->ready = port->open = false;
    port->told_connected = port->replaced = port->lapsed = false;
    port->consumed = 0;
    if (was_open)
        dev->ops->opened(dev->ops_ctx, id, false);
}

void condev_reset(struct condev *dev)
{
    dev->started = false;
    for (uint32_t id = 0; id < dev->port_count; id++)
        forget(dev, id);
}

void condev_plug(struct condev *dev, uint32_t id, const char *name, bool console)
{
    struct condev_port *port = &dev->port[id];

    port->name = name;
    port->console = console;
    port->present = true;
}

void condev_unplug(struct condev *dev, uint32_t id)
{
    struct condev_port *port = &dev->port[id];

    port->present = port->connected = port->sized = false;
    port->replaced = port->added;
}

void condev_connect(struct condev *dev, uint32_t id, bool connected)
{
    struct condev_port *port = &dev->port[id];

    port->connected = connected;
    if (!connected)
        port->lapsed = port->told_connected;
}

void condev_resize(struct condev *dev, uint32_t id, uint16_t columns, uint16_t rows)
{
    struct condev_port *port = &dev->port[id];

    port->columns = columns;
    port->rows = rows;
    port->sized = true;
    if (port->ready)
        port->tell |= TELL_SIZE;
}

/* Does the driver have this port, and no longer its predecessor? */
static bool works(const struct condev *dev, uint32_t id)
{
    const struct condev_port *port = &dev->port[id];

    if (!dev->multiport)
        return id == 0 && port->present;
    return port->ready && !port->replaced;
}

/* ----- control messages from the driver ----- */

static void port_ready(struct condev *dev, uint32_t id, bool taken)
{
    struct condev_port *port = &dev->port[id];

    if (port->ready) {
        dev->dropped[CONDEV_DROP_ORDER]++;
        return;
    }
    if (!taken) /* it has no use for the port, and is told nothing but of its end */
        return;
    port->ready = true;
    port->tell = (uint8_t)((port->console ? TELL_CONSOLE : 0) |
                           (port->name != NULL ? TELL_NAME : 0) | (port->sized ? TELL_SIZE : 0));
}

static void port_open(struct condev *dev, uint32_t id, bool open)
{
    struct condev_port *port = &dev->port[id];

    if (!port->ready) {
        dev->dropped[CONDEV_DROP_ORDER]++;
        return;
    }
    if (open == port->open)
        return;
    port->open = open;
    dev->ops->opened(dev->ops_ctx, id, open);
}

/* The driver starts, maybe again after a reset that nobody told us of. */
static void device_ready(struct condev *dev, bool ready)
{
    condev_reset(dev);
    dev->started = ready;
}

static void from_driver(struct condev *dev, struct stream *in)
{
    uint8_t bytes[HEADER_SIZE];
    uint32_t id, event, value;

    if (!stream_read(in, bytes, sizeof(bytes))) {
        dev->dropped[CONDEV_DROP_SHORT]++;
        return;
    }
    id = (uint32_t)stream_number(bytes, 4, dev->big_endian);
    event = (uint32_t)stream_number(bytes + 4, 2, dev->big_endian);
    value = (uint32_t)stream_number(bytes + 6, 2, dev->big_endian);
    if (event == MSG_DEVICE_READY)
        device_ready(dev, value != 0);
    else if (event != MSG_PORT_READY && event != MSG_PORT_OPEN)
        dev->dropped[CONDEV_DROP_EVENT]++;
    else if (id >= dev->port_count || !dev->port[id].added)
        dev->dropped[CONDEV_DROP_PORT]++;
    else if (event == MSG_PORT_READY)
        port_ready(dev, id, value != 0);
    else
        port_open(dev, id, value != 0);
}

/* ----- control messages to the driver ----- */

struct message {
    uint32_t id;
    unsigned event;
    uint16_t value;
    uint32_t length; /* of what follows the header */
    uint8_t bytes[CONDEV_NAME_MAX];
};

/* What the driver has to be told of a port next. */
static unsigned event_due(const struct condev_port *port)
{
    if (port->replaced)
        return MSG_DEVICE_REMOVE;
    if (!port->added)
        return port->present ? MSG_DEVICE_ADD : MSG_NONE;
    if (!port->ready)
        return MSG_NONE;
    if (port->tell & TELL_CONSOLE)
        return MSG_CONSOLE_PORT;
    if (port->tell & TELL_NAME)
        return MSG_PORT_NAME;
    if (port->tell & TELL_SIZE)
        return MSG_RESIZE;
    return port->lapsed || port->told_connected != port->connected ? MSG_PORT_OPEN : MSG_NONE;
}

static void put_name(const struct condev_port *port, struct message *message)
{
    while (message->length < CONDEV_NAME_MAX && port->name[message->length] != '\0') {
        message->bytes[message->length] = (uint8_t)port->name[message->length];
        message->length++;
    }
}

/* The next message, if there is one: V-CON-01, in that a port is added once and removed once. */
static bool next_message(const struct condev *dev, struct message *message)
{
    const struct condev_port *port = NULL;

    message->event = MSG_NONE;
    message->value = 1;
    message->length = 0;
    if (!dev->started)
        return false;
    for (uint32_t id = 0; id < dev->port_count && message->event == MSG_NONE; id++) {
        port = &dev->port[id];
        message->id = id;
        message->event = event_due(port);
    }
    if (message->event == MSG_NONE)
        return false;
    if (message->event == MSG_PORT_OPEN) {
        message->value = !port->told_connected;
    } else if (message->event == MSG_PORT_NAME) {
        put_name(port, message);
    } else if (message->event == MSG_RESIZE) {
        stream_put(message->bytes, 2, dev->big_endian, port->columns);
        stream_put(message->bytes + 2, 2, dev->big_endian, port->rows);
        message->length = RESIZE_SIZE;
    }
    return true;
}

/* The driver knows now. */
static void told(struct condev *dev, const struct message *message)
{
    struct condev_port *port = &dev->port[message->id];

    switch (message->event) {
    case MSG_DEVICE_ADD: port->added = true; break;
    case MSG_DEVICE_REMOVE: forget(dev, message->id); break;
    case MSG_CONSOLE_PORT: port->tell &= (uint8_t)~TELL_CONSOLE; break;
    case MSG_PORT_NAME: port->tell &= (uint8_t)~TELL_NAME; break;
    case MSG_RESIZE: port->tell &= (uint8_t)~TELL_SIZE; break;
    default:
        port->told_connected = message->value != 0;
        port->lapsed = false;
        break;
    }
}

/* A buffer without room for a header comes back empty; one that is too short for the rest gets what
 * fits, so that no driver waits for ever for what comes after it. */
static uint32_t to_driver(struct condev *dev, struct stream *out)
{
    uint64_t room = stream_length(out);
    uint8_t header[HEADER_SIZE];
    struct message message;

    if (room < HEADER_SIZE)
        return 0;
    if (!next_message(dev, &message))
        return CONDEV_LATER;
    if (message.length > room - HEADER_SIZE)
        message.length = (uint32_t)(room - HEADER_SIZE);
    stream_put(header, 4, dev->big_endian, message.id);
    stream_put(header + 4, 2, dev->big_endian, message.event);
    stream_put(header + 6, 2, dev->big_endian, message.value);
    if (!stream_write(out, header, HEADER_SIZE) ||
        !stream_write(out, message.bytes, message.length))
        return 0;
    told(dev, &message);
    return HEADER_SIZE + message.length;
}

/* ----- data ----- */

static uint32_t input(struct condev *dev, uint32_t id, struct stream *out)
{
    uint64_t room = stream_length(out);
    uint8_t bytes[CONDEV_PIECE];
    uint32_t got;

    if (room == 0)
        return 0;
    if (!works(dev, id) || !dev->port[id].connected || (dev->multiport && !dev->port[id].open))
        return CONDEV_LATER;
    if (room > CONDEV_PIECE)
        room = CONDEV_PIECE;
    got = dev->ops->input(dev->ops_ctx, id, bytes, (uint32_t)room);
    if (got == 0)
        return CONDEV_LATER;
    return stream_write(out, bytes, got) ? got : 0;
}

/* Up to where the host side takes no more, or it is the others' turn. What of a buffer was taken is
 * not offered again; that the driver may have changed it meanwhile harms nobody else. */
static uint32_t output(struct condev *dev, uint32_t id, struct stream *in)
{
    struct condev_port *port = &dev->port[id];
    uint32_t most = CONDEV_MOST;
    uint8_t bytes[CONDEV_PIECE];

    stream_skip(in, port->consumed);
    while (works(dev, id) && port->connected && stream_length(in) != 0) {
        uint64_t left = stream_length(in);
        uint32_t piece = left < CONDEV_PIECE ? (uint32_t)left : CONDEV_PIECE, taken;

        if (most == 0)
            return CONDEV_LATER;
        if (!stream_read(in, bytes, piece))
            break;
        taken = dev->ops->output(dev->ops_ctx, id, bytes, piece);
        port->consumed += taken;
        if (taken < piece && port->connected)
            return CONDEV_LATER;
        most -= piece;
    }
    port->consumed = 0;
    return 0;
}

uint32_t condev_answer(struct condev *dev, unsigned queue, const struct virtq_chain *chain)
{
    bool control = queue == CONDEV_CONTROL_IN || queue == CONDEV_CONTROL_OUT;
    struct stream in = stream_in(chain, dev->map, dev->map_ctx);
    struct stream out = stream_out(chain, dev->map, dev->map_ctx);
    uint32_t id = queue < 2 ? 0 : queue / 2 - 1;

    if ((control && !dev->multiport) || (!control && id >= dev->port_count))
        return 0;
    if (queue == CONDEV_CONTROL_IN)
        return to_driver(dev, &out);
    if (queue % 2 == 0)
        return input(dev, id, &out);
    if (!control)
        return output(dev, id, &in);
    from_driver(dev, &in);
    return 0;
}

/* ----- configuration ----- */

uint64_t condev_features(const struct condev *dev)
{
    return UINT64_C(1) << CONDEV_FEATURE_MULTIPORT | UINT64_C(1) << CONDEV_FEATURE_EMERG_WRITE |
           (dev->port[0].sized ? UINT64_C(1) << CONDEV_FEATURE_SIZE : 0);
}

void condev_config(const struct condev *dev, uint8_t config[CONDEV_CONFIG_SIZE])
{
    for (unsigned i = 0; i < CONDEV_CONFIG_SIZE; i++)
        config[i] = 0;
    stream_put(config, 2, dev->big_endian, dev->port[0].columns);
    stream_put(config + 2, 2, dev->big_endian, dev->port[0].rows);
    stream_put(config + 4, 4, dev->big_endian, dev->port_count);
}

void condev_config_write(struct condev *dev, uint32_t offset, const uint8_t *bytes,
                         uint32_t length)
{
    uint32_t at = dev->big_endian ? EMERGENCY_AT + EMERGENCY_SIZE - 1 : EMERGENCY_AT;

    if (dev->port[0].connected && at - offset < length) /* which is large if it is before */
        (void)dev->ops->output(dev->ops_ctx, 0, bytes + (at - offset), 1);
}
