// SPDX-License-Identifier: MIT-0
/* The messages of a vhost-user back-end; see backend.h. */
#define _GNU_SOURCE /* memfd_create */
#include "backend.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "queue.h"
#include "virtio.h"

enum { LINE = 160, ALIGN_INFLIGHT = 8 };

#define BIT(n) (UINT64_C(1) << (n))

static const uint64_t protocol_features =
    BIT(VHU_PROTOCOL_MQ) | BIT(VHU_PROTOCOL_REPLY_ACK) | BIT(VHU_PROTOCOL_BACKEND_REQ) |
    BIT(VHU_PROTOCOL_CONFIG) | BIT(VHU_PROTOCOL_INFLIGHT_SHMFD) |
    BIT(VHU_PROTOCOL_RESET_DEVICE) | BIT(VHU_PROTOCOL_CONFIGURE_MEM_SLOTS) |
    BIT(VHU_PROTOCOL_STATUS);

static const uint64_t ring_features =
    BIT(VIRTIO_FEATURE_INDIRECT_DESC) | BIT(VIRTIO_FEATURE_EVENT_IDX) |
    BIT(VIRTIO_FEATURE_VERSION_1) | BIT(VIRTIO_FEATURE_RING_PACKED) |
    BIT(VIRTIO_FEATURE_IN_ORDER) | BIT(VHU_FEATURE_PROTOCOL_FEATURES);

/* What a handler works on. A descriptor that it keeps it replaces by -1 in `fd`. */
struct call {
    struct vhu_backend *backend;
    const struct vhu_message *message;
    int *fd;
    unsigned fds;
    struct vhu_answer *answer;
};

void vhu_log(const struct vhu_backend *backend, const char *format, ...)
{
    char line[LINE];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    backend->ops->log(backend->ctx, line);
}

static void answer_u64(const struct call *call, uint64_t value)
{
    call->answer->message.payload.u64 = value;
    call->answer->message.header.size = sizeof(value);
    call->answer->due = true;
}

/* ----- features ----- */

static const char *get_features(const struct call *call)
{
    answer_u64(call, call->backend->features | ring_features);
    return NULL;
}

static const char *set_features(const struct call *call)
{
    struct vhu_backend *backend = call->backend;
    uint64_t bits = call->message->payload.u64;

    if (bits & ~(backend->features | ring_features))
        return "features that were not offered";
    for (unsigned i = 0; i < backend->queue_count; i++) {
        vhu_queue_pause(&backend->queue[i]);
        if (!(bits & BIT(VHU_FEATURE_PROTOCOL_FEATURES)))
            backend->queue[i].enabled = true;
    }
    backend->accepted = bits;
    return NULL;
}

static uint64_t offered_protocol(const struct vhu_backend *backend)
{
    return protocol_features & ~(backend->batches ? BIT(VHU_PROTOCOL_INFLIGHT_SHMFD) : 0);
}

static const char *get_protocol_features(const struct call *call)
{
    answer_u64(call, offered_protocol(call->backend));
    return NULL;
}

static const char *set_protocol_features(const struct call *call)
{
    if (call->message->payload.u64 & ~offered_protocol(call->backend))
        return "protocol features that were not offered";
    call->backend->protocol = call->message->payload.u64;
    return NULL;
}

static const char *get_queue_num(const struct call *call)
{
    answer_u64(call, call->backend->queue_count);
    return NULL;
}

/* ----- life of the device ----- */

static const char *nothing(const struct call *call)
{
    (void)call;
    return NULL;
}

static const char *reset_owner(const struct call *call)
{
    for (unsigned i = 0; i < call->backend->queue_count; i++)
        call->backend->queue[i].enabled = false;
    return NULL;
}

static void reset_driver(const struct vhu_backend *backend)
{
    if (backend->ops->reset != NULL)
        backend->ops->reset(backend->ctx);
}

static const char *reset_device(const struct call *call)
{
    reset_driver(call->backend);
    for (unsigned i = 0; i < call->backend->queue_count; i++) {
        vhu_queue_stop(&call->backend->queue[i]);
        vhu_queue_reset(&call->backend->queue[i]);
    }
    return NULL;
}

static const char *set_backend_req_fd(const struct call *call)
{
    if (call->fds != 1)
        return "channel for requests without its descriptor";
    vhu_replace_fd(&call->backend->requests, call->fd[0]);
    call->fd[0] = -1;
    return NULL;
}

/* The driver's, as it says; nothing follows from it: messages of their own stop rings and reset. */
static const char *set_status(const struct call *call)
{
    if (call->message->payload.u64 > UINT8_MAX)
        return "status of more than eight bits";
    call->backend->status = (uint8_t)call->message->payload.u64;
    return NULL;
}

static const char *get_status(const struct call *call)
{
    answer_u64(call, call->backend->status);
    return NULL;
}

/* ----- memory ----- */

/* Rings look for their memory anew when they go on. */
static void pause_rings(struct vhu_backend *backend)
{
    for (unsigned i = 0; i < backend->queue_count; i++)
        vhu_queue_pause(&backend->queue[i]);
}

static const char *get_max_mem_slots(const struct call *call)
{
    answer_u64(call, VHU_MAX_SLOTS);
    return NULL;
}

static const char *add_mem_reg(const struct call *call)
{
    if (call->fds != 1)
        return "memory region without its descriptor";
    pause_rings(call->backend);
    return vhu_map_add(&call->backend->map, &call->message->payload.slot.region, call->fd[0]);
}

static const char *rem_mem_reg(const struct call *call)
{
    pause_rings(call->backend);
    return vhu_map_remove(&call->backend->map, &call->message->payload.slot.region);
}

static const char *set_mem_table(const struct call *call)
{
    const struct vhu_memory *table = &call->message->payload.memory;
    uint32_t size = call->message->header.size;

    if (size < VHU_MEMORY_HEADER || table->count > VHU_MAX_REGIONS)
        return "memory table of no sense";
    if (size < VHU_MEMORY_HEADER + table->count * sizeof(struct vhu_region))
        return "memory table shorter than its regions";
    if (call->fds != table->count)
        return "memory table with more or fewer descriptors than regions";
    pause_rings(call->backend);
    return vhu_map_set(&call->backend->map, table, call->fd);
}

/* ----- rings ----- */

static struct vhu_queue *queue_of(const struct call *call, uint64_t index)
{
    return index < call->backend->queue_count ? &call->backend->queue[index] : NULL;
}

static const char *set_vring_num(const struct call *call)
{
    struct vhu_queue *queue = queue_of(call, call->message->payload.state.index);
    uint32_t num = call->message->payload.state.num;

    if (queue == NULL)
        return "queue that does not exist";
    if (queue->live)
        return "new size for a running ring";
    if (num == 0 || num > VIRTQ_MAX_SIZE)
        return "ring size that no ring can have";
    queue->num = (uint16_t)num;
    return NULL;
}

static const char *set_vring_addr(const struct call *call)
{
    struct vhu_queue *queue = queue_of(call, call->message->payload.ring.index);

    if (queue == NULL)
        return "queue that does not exist";
    if (call->message->payload.ring.flags != 0)
        return "log of writes, which is not offered";
    vhu_queue_pause(queue);
    queue->addr = call->message->payload.ring;
    queue->has_addr = true;
    return NULL;
}

static const char *set_vring_base(const struct call *call)
{
    struct vhu_queue *queue = queue_of(call, call->message->payload.state.index);

    if (queue == NULL)
        return "queue that does not exist";
    if (queue->live)
        return "new position for a running ring";
    queue->base = call->message->payload.state.num;
    return NULL;
}

static const char *get_vring_base(const struct call *call)
{
    struct vhu_queue *queue = queue_of(call, call->message->payload.state.index);

    if (queue == NULL)
        return "queue that does not exist";
    vhu_queue_stop(queue);
    call->answer->message.payload.state.index = queue->index;
    call->answer->message.payload.state.num = queue->base;
    call->answer->message.header.size = sizeof(struct vhu_vring_state);
    call->answer->due = true;
    return NULL;
}

/* Comes before SET_FEATURES as well: QEMU enables the rings of a network device when it is plugged in. */
static const char *set_vring_enable(const struct call *call)
{
    struct vhu_queue *queue = queue_of(call, call->message->payload.state.index);
    uint32_t on = call->message->payload.state.num;

    if (queue == NULL)
        return "queue that does not exist";
    if (on > 1)
        return "ring neither enabled nor disabled";
    queue->enabled = on == 1;
    return NULL;
}

/* The queue and the descriptor of SET_VRING_KICK and the like, which does not block while the front-end
 * leaves it so. */
static const char *take_fd(const struct call *call, struct vhu_queue **queue, int *fd)
{
    uint64_t what = call->message->payload.u64;

    *queue = queue_of(call, what & VHU_VRING_INDEX_MASK);
    *fd = -1;
    if (*queue == NULL || what > (VHU_VRING_INDEX_MASK | VHU_VRING_NO_FD))
        return "queue that does not exist";
    if (call->fds != (what & VHU_VRING_NO_FD ? 0 : 1))
        return "queue without the descriptor announced, or with one too many";
    if (call->fds == 0)
        return NULL;
    if (fcntl(call->fd[0], F_SETFL, fcntl(call->fd[0], F_GETFL) | O_NONBLOCK) != 0)
        return "descriptor that cannot be used";
    *fd = call->fd[0];
    call->fd[0] = -1;
    return NULL;
}

static const char *set_vring_kick(const struct call *call)
{
    struct vhu_queue *queue;
    int fd;
    const char *why = take_fd(call, &queue, &fd);

    if (why != NULL)
        return why;
    vhu_replace_fd(&queue->kick, fd);
    queue->polled = fd < 0;
    queue->pending = true; /* a kick may have been lost with the back-end before us */
    return NULL;
}

static const char *set_vring_call(const struct call *call)
{
    struct vhu_queue *queue;
    int fd;
    const char *why = take_fd(call, &queue, &fd);

    if (why != NULL)
        return why;
    vhu_replace_fd(&queue->call, fd);
    vhu_signal_fd(fd); /* a call may have been lost with the back-end before us */
    return NULL;
}

static const char *set_vring_err(const struct call *call)
{
    struct vhu_queue *queue;
    int fd;
    const char *why = take_fd(call, &queue, &fd);

    if (why == NULL)
        vhu_replace_fd(&queue->err, fd);
    return why;
}

/* ----- configuration ----- */

/* Some front-ends send no room for the answer's data, most do. */
static bool config_sized(const struct vhu_message *message)
{
    uint32_t data = message->header.size - VHU_CONFIG_HEADER;

    return message->header.size >= VHU_CONFIG_HEADER &&
           message->payload.config.size <= VHU_MAX_CONFIG &&
           (data == 0 || data == message->payload.config.size);
}

/* Bytes behind the end of the configuration read 0. */
static const char *get_config(const struct call *call)
{
    const struct vhu_config *wanted = &call->message->payload.config;
    struct vhu_config *config = &call->answer->message.payload.config;

    if (!config_sized(call->message) || wanted->offset > VHU_MAX_CONFIG - wanted->size)
        return "configuration outside its space";
    config->offset = wanted->offset;
    config->size = wanted->size;
    config->flags = wanted->flags;
    for (uint32_t i = 0; i < wanted->size; i++) {
        uint32_t at = wanted->offset + i;

        config->data[i] = at < call->backend->config_length ? call->backend->config[at] : 0;
    }
    call->answer->message.header.size = VHU_CONFIG_HEADER + wanted->size;
    call->answer->due = true;
    return NULL;
}

/* A driver that tries to write where it cannot is not the front-end's fault. */
static const char *set_config(const struct call *call)
{
    const struct vhu_config *config = &call->message->payload.config;
    struct vhu_backend *backend = call->backend;

    if (!config_sized(call->message) || config->offset > VHU_MAX_CONFIG - config->size ||
        call->message->header.size != VHU_CONFIG_HEADER + config->size)
        return "configuration outside its space";
    if (backend->ops->config_write != NULL) {
        backend->ops->config_write(backend->ctx, config->offset, config->data, config->size);
        return NULL;
    }
    vhu_log(backend, "configuration written, which is read-only; ignored");
    if (call->message->header.flags & VHU_FLAG_NEED_REPLY &&
        backend->protocol & BIT(VHU_PROTOCOL_REPLY_ACK))
        answer_u64(call, 1);
    return NULL;
}

/* ----- requests in flight ----- */

static void inflight_clear(struct vhu_backend *backend)
{
    for (unsigned i = 0; i < backend->queue_count; i++)
        backend->queue[i].track.region = NULL;
    if (backend->inflight != NULL)
        munmap(backend->inflight, backend->inflight_size);
    backend->inflight = NULL;
}

static const char *inflight_map(struct vhu_backend *backend, const struct vhu_inflight *shape,
                                int fd)
{
    uint64_t length = shape->mmap_offset + shape->mmap_size;

    for (unsigned i = 0; i < backend->queue_count; i++) {
        if (backend->queue[i].live)
            return "in-flight region for a running ring";
    }
    inflight_clear(backend);
    if (length < shape->mmap_size || length > SIZE_MAX / 2 ||
        shape->mmap_offset % ALIGN_INFLIGHT != 0)
        return "in-flight region of no sense";
    length = vhu_map_length(fd, length);
    if (length == 0)
        return "in-flight region past the end of its file";
    backend->inflight = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (backend->inflight == MAP_FAILED) {
        backend->inflight = NULL;
        return "in-flight region that cannot be mapped";
    }
    backend->inflight_size = (size_t)length;
    backend->inflight_shape = *shape;
    return NULL;
}

static const char *check_inflight(const struct call *call)
{
    const struct vhu_inflight *shape = &call->message->payload.inflight;
    uint32_t size = call->message->header.size;

    if (!(call->backend->protocol & BIT(VHU_PROTOCOL_INFLIGHT_SHMFD)))
        return "in-flight region, but the feature is not agreed";
    if (size != sizeof(*shape) && size != VHU_INFLIGHT_SIZE)
        return "message of a wrong size";
    if (shape->queue_count == 0 || shape->queue_count > call->backend->queue_count ||
        shape->queue_size == 0 || shape->queue_size > VIRTQ_MAX_SIZE)
        return "in-flight region for queues that do not exist";
    return NULL;
}

static const char *get_inflight_fd(const struct call *call)
{
    struct vhu_inflight shape = call->message->payload.inflight;
    const char *why = check_inflight(call);
    int fd;

    if (why != NULL)
        return why;
    /* of the larger format: which one it will be need not be agreed yet */
    shape.mmap_size = vhu_track_size(shape.queue_size, VIRTQ_PACKED) * shape.queue_count;
    shape.mmap_offset = 0;
    shape.padding = 0;
    fd = memfd_create("vhost-user-inflight", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)shape.mmap_size) != 0)
        why = "no memory for an in-flight region";
    if (why == NULL)
        why = inflight_map(call->backend, &shape, fd);
    if (why != NULL) {
        if (fd >= 0)
            close(fd);
        return why;
    }
    call->answer->message.payload.inflight = shape;
    call->answer->message.header.size = call->message->header.size;
    call->answer->fd = fd;
    call->answer->due = true;
    return NULL;
}

static const char *set_inflight_fd(const struct call *call)
{
    const char *why = check_inflight(call);

    if (why == NULL && call->fds != 1)
        why = "in-flight region without its descriptor";
    if (why == NULL)
        why = inflight_map(call->backend, &call->message->payload.inflight, call->fd[0]);
    return why;
}

/* ----- dispatch ----- */

enum { ANY_SIZE = 0xffff };

/* Payload size and descriptors that a request has; one with ANY_SIZE looks at them itself. */
static const struct rule {
    uint16_t request;
    uint16_t size;
    uint8_t fds;
    const char *name;
    const char *(*handle)(const struct call *call);
} rules[] = {
    {VHU_GET_FEATURES, 0, 0, "GET_FEATURES", get_features},
    {VHU_SET_FEATURES, 8, 0, "SET_FEATURES", set_features},
    {VHU_SET_OWNER, 0, 0, "SET_OWNER", nothing},
    {VHU_RESET_OWNER, 0, 0, "RESET_OWNER", reset_owner},
    {VHU_SET_MEM_TABLE, ANY_SIZE, VHU_MAX_FDS, "SET_MEM_TABLE", set_mem_table},
    {VHU_SET_VRING_NUM, 8, 0, "SET_VRING_NUM", set_vring_num},
    {VHU_SET_VRING_ADDR, 40, 0, "SET_VRING_ADDR", set_vring_addr},
    {VHU_SET_VRING_BASE, 8, 0, "SET_VRING_BASE", set_vring_base},
    {VHU_GET_VRING_BASE, 8, 0, "GET_VRING_BASE", get_vring_base},
    {VHU_SET_VRING_KICK, 8, 1, "SET_VRING_KICK", set_vring_kick},
    {VHU_SET_VRING_CALL, 8, 1, "SET_VRING_CALL", set_vring_call},
    {VHU_SET_VRING_ERR, 8, 1, "SET_VRING_ERR", set_vring_err},
    {VHU_GET_PROTOCOL_FEATURES, 0, 0, "GET_PROTOCOL_FEATURES", get_protocol_features},
    {VHU_SET_PROTOCOL_FEATURES, 8, 0, "SET_PROTOCOL_FEATURES", set_protocol_features},
    {VHU_GET_QUEUE_NUM, 0, 0, "GET_QUEUE_NUM", get_queue_num},
    {VHU_SET_VRING_ENABLE, 8, 0, "SET_VRING_ENABLE", set_vring_enable},
    {VHU_SET_BACKEND_REQ_FD, 0, 1, "SET_BACKEND_REQ_FD", set_backend_req_fd},
    {VHU_GET_CONFIG, ANY_SIZE, 0, "GET_CONFIG", get_config},
    {VHU_SET_CONFIG, ANY_SIZE, 0, "SET_CONFIG", set_config},
    {VHU_GET_INFLIGHT_FD, ANY_SIZE, 0, "GET_INFLIGHT_FD", get_inflight_fd},
    {VHU_SET_INFLIGHT_FD, ANY_SIZE, 1, "SET_INFLIGHT_FD", set_inflight_fd},
    {VHU_RESET_DEVICE, 0, 0, "RESET_DEVICE", reset_device},
    {VHU_GET_MAX_MEM_SLOTS, 0, 0, "GET_MAX_MEM_SLOTS", get_max_mem_slots},
    {VHU_ADD_MEM_REG, 40, 1, "ADD_MEM_REG", add_mem_reg},
    {VHU_REM_MEM_REG, 40, 1, "REM_MEM_REG", rem_mem_reg}, /* some send a descriptor, of no use */
    {VHU_SET_STATUS, 8, 0, "SET_STATUS", set_status},
    {VHU_GET_STATUS, 0, 0, "GET_STATUS", get_status},
};

static const struct rule *rule_of(uint32_t request)
{
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (rules[i].request == request)
            return &rules[i];
    }
    return NULL;
}

static const char *carry_out(const struct call *call)
{
    const struct vhu_header *header = &call->message->header;
    const struct rule *rule = rule_of(header->request);
    const char *why;

    if ((header->flags & VHU_FLAG_VERSION_MASK) != VHU_FLAG_VERSION ||
        header->flags & VHU_FLAG_REPLY)
        return "message of another version, or an answer";
    if (rule == NULL)
        return "request that is not known here";
    if (rule->size != ANY_SIZE && rule->size != header->size)
        why = "message of a wrong size";
    else if (call->fds > rule->fds)
        why = "descriptors that the message has no use for";
    else
        why = rule->handle(call);
    if (why == NULL)
        return NULL;
    snprintf(call->backend->reason, VHU_REASON, "%s: %s", rule->name, why);
    return call->backend->reason;
}

const char *vhu_backend_handle(struct vhu_backend *backend, const struct vhu_message *message,
                               const int *fd, unsigned fds, struct vhu_answer *answer)
{
    int own[VHU_MAX_FDS];
    struct call call = {backend, message, own, fds, answer};
    const char *why;

    memset(answer, 0, sizeof(*answer));
    answer->message.header.request = message->header.request;
    answer->message.header.flags = VHU_FLAG_VERSION | VHU_FLAG_REPLY;
    answer->fd = -1;
    for (unsigned i = 0; i < fds; i++)
        own[i] = fd[i];
    why = carry_out(&call);
    for (unsigned i = 0; i < fds; i++)
        vhu_replace_fd(&own[i], -1);
    if (why == NULL && !answer->due && message->header.flags & VHU_FLAG_NEED_REPLY &&
        backend->protocol & BIT(VHU_PROTOCOL_REPLY_ACK))
        answer_u64(&call, 0);
    return why;
}

/* ----- a front-end comes and goes ----- */

void vhu_backend_init(struct vhu_backend *backend)
{
    for (unsigned i = 0; i < backend->queue_count; i++) {
        backend->queue[i].backend = backend;
        backend->queue[i].index = (uint16_t)i;
        vhu_queue_init(&backend->queue[i]);
    }
    backend->map.count = 0;
    backend->accepted = backend->protocol = 0;
    backend->status = 0;
    backend->inflight = NULL;
    backend->connection = backend->requests = -1;
    backend->in_got = 0;
    backend->in_fds = 0;
}

void vhu_backend_reset(struct vhu_backend *backend)
{
    reset_driver(backend);
    inflight_clear(backend);
    vhu_replace_fd(&backend->requests, -1);
    vhu_map_clear(&backend->map);
    for (unsigned i = 0; i < backend->queue_count; i++)
        vhu_queue_reset(&backend->queue[i]);
    for (unsigned i = 0; i < backend->in_fds; i++)
        close(backend->in_fd[i]);
    vhu_backend_init(backend);
}

void vhu_backend_flush(struct vhu_backend *backend)
{
    for (unsigned i = 0; i < backend->queue_count; i++) {
        if (backend->queue[i].live)
            vhu_queue_flush(&backend->queue[i]);
    }
}

int vhu_backend_serve(struct vhu_backend *backend)
{
    int more = 0;

    backend->woken = false;
    for (unsigned i = 0; i < backend->queue_count; i++) {
        int rc = vhu_queue_serve(&backend->queue[i]);

        if (rc < 0)
            return rc;
        more |= rc;
    }
    return more != 0 || backend->woken;
}
