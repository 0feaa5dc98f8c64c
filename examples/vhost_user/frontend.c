// SPDX-License-Identifier: MIT-0
/*
 * The front-end half of vhost-user as a transport; see frontend.h.
 *
 * Nothing is sent before the driver has agreed on features: what the driver does until then happens
 * here. FEATURES_OK sends features and memory, enabling a queue describes it, DRIVER_OK lets the
 * device look at the queues, a reset takes them away again.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif

#include "frontend.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "protocol.h"

/* Device addresses of the regions: not those of this process, and with holes in between. */
#define REGION_BASE UINT64_C(0x40000000)
#define REGION_STRIDE UINT64_C(0x200000000)

/* A fresh packed ring: both positions 0, both wrap counters 1. */
#define PACKED_BASE UINT32_C(0x80008000)

/* A request of ours. */
struct call {
    enum vhu_request request;
    const void *payload;
    uint32_t size;
    const int *fds;
    unsigned fd_count;
};

/* ----- errors and time ----- */

static const char *request_name(uint32_t request)
{
    switch (request) {
    case VHU_GET_FEATURES: return "GET_FEATURES";
    case VHU_SET_FEATURES: return "SET_FEATURES";
    case VHU_SET_OWNER: return "SET_OWNER";
    case VHU_SET_MEM_TABLE: return "SET_MEM_TABLE";
    case VHU_SET_VRING_NUM: return "SET_VRING_NUM";
    case VHU_SET_VRING_ADDR: return "SET_VRING_ADDR";
    case VHU_SET_VRING_BASE: return "SET_VRING_BASE";
    case VHU_GET_VRING_BASE: return "GET_VRING_BASE";
    case VHU_SET_VRING_KICK: return "SET_VRING_KICK";
    case VHU_SET_VRING_CALL: return "SET_VRING_CALL";
    case VHU_GET_PROTOCOL_FEATURES: return "GET_PROTOCOL_FEATURES";
    case VHU_SET_PROTOCOL_FEATURES: return "SET_PROTOCOL_FEATURES";
    case VHU_GET_QUEUE_NUM: return "GET_QUEUE_NUM";
    case VHU_SET_VRING_ENABLE: return "SET_VRING_ENABLE";
    case VHU_GET_CONFIG: return "GET_CONFIG";
    case VHU_SET_CONFIG: return "SET_CONFIG";
    case VHU_GET_INFLIGHT_FD: return "GET_INFLIGHT_FD";
    case VHU_SET_INFLIGHT_FD: return "SET_INFLIGHT_FD";
    case VHU_RESET_DEVICE: return "RESET_DEVICE";
    default: return "an unknown request";
    }
}

/* Keeps the first error: the later ones are its consequences. */
__attribute__((format(printf, 2, 3))) static int fail(struct vhu_frontend *fe, const char *format,
                                                      ...)
{
    va_list arguments;

    if (fe->error[0] == '\0') {
        va_start(arguments, format);
        (void)vsnprintf(fe->error, sizeof(fe->error), format, arguments);
        va_end(arguments);
    }
    return -1;
}

static bool failed(const struct vhu_frontend *fe)
{
    return !fe->open || fe->error[0] != '\0';
}

const char *vhu_frontend_error(const struct vhu_frontend *fe)
{
    return fe->error[0] != '\0' ? fe->error : NULL;
}

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits until the socket can be read or written; false at the deadline. */
static bool ready(const struct vhu_frontend *fe, short events, int64_t deadline)
{
    struct pollfd wait = {fe->socket, events, 0};
    int64_t left;

    for (left = deadline - now_ms(); left > 0; left = deadline - now_ms()) {
        if (poll(&wait, 1, (int)left) > 0)
            return true;
    }
    return false;
}

/* ----- messages ----- */

/* Sends a piece of a request; the descriptors go with its first byte. */
static int send_bytes(struct vhu_frontend *fe, const struct call *call, const void *data,
                      size_t size, unsigned fd_count)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(VHU_MAX_FDS * sizeof(int))];
    } control = {.space = {0}};
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    int64_t deadline = now_ms() + fe->setup.timeout_ms;

    if (fd_count != 0) {
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), call->fds, fd_count * sizeof(int));
    }
    while (iov.iov_len > 0) {
        ssize_t sent = sendmsg(fe->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent > 0) {
            iov.iov_base = (char *)iov.iov_base + sent;
            iov.iov_len -= (size_t)sent;
            message.msg_controllen = 0;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return fail(fe, "the back-end closed the connection at %s",
                        request_name(call->request));
        } else if (errno != EAGAIN && errno != EINTR) {
            return fail(fe, "%s could not be sent: %s", request_name(call->request),
                        strerror(errno));
        } else if (!ready(fe, POLLOUT, deadline)) {
            return fail(fe, "the back-end reads no requests (at %s)", request_name(call->request));
        }
    }
    return 0;
}

static int send_call(struct vhu_frontend *fe, const struct call *call, uint32_t flags)
{
    char bytes[sizeof(struct vhu_header) + sizeof(union vhu_payload)];
    struct vhu_header header = {call->request, VHU_FLAG_VERSION | flags, call->size};

    if (failed(fe))
        return -1;
    memcpy(bytes, &header, sizeof(header));
    if (call->size != 0)
        memcpy(bytes + sizeof(header), call->payload, call->size);
    return send_bytes(fe, call, bytes, sizeof(header) + call->size, call->fd_count);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* Receives what there is, and keeps the descriptor that comes along. There is room for one: the kernel
 * drops any other. */
static ssize_t receive_some(struct vhu_frontend *fe, void *data, size_t size)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {data, size};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = CMSG_LEN(sizeof(int))};
    ssize_t got = recvmsg(fe->socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *item = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    if (item != NULL && item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_RIGHTS &&
        item->cmsg_len == CMSG_LEN(sizeof(int))) {
        close_fd(&fe->came_along);
        memcpy(&fe->came_along, CMSG_DATA(item), sizeof(int));
    }
    return got;
}

/* Receives exactly `size` bytes of the answer. */
static int receive_bytes(struct vhu_frontend *fe, enum vhu_request request, void *data, size_t size)
{
    int64_t deadline = now_ms() + fe->setup.timeout_ms;
    size_t have = 0;

    while (have < size) {
        ssize_t got = receive_some(fe, (char *)data + have, size - have);

        if (got > 0)
            have += (size_t)got;
        else if (got == 0 || errno == ECONNRESET)
            return fail(fe, "the back-end closed the connection at %s", request_name(request));
        else if (errno != EAGAIN && errno != EINTR)
            return fail(fe, "no answer to %s: %s", request_name(request), strerror(errno));
        else if (!ready(fe, POLLIN, deadline))
            return fail(fe, "the back-end did not answer %s within %d ms", request_name(request),
                        fe->setup.timeout_ms);
    }
    return 0;
}

/* Receives an answer of exactly `size` bytes; an empty one is a refusal where the caller allows it.
 * Returns the bytes of payload, or -1. */
static int receive_answer(struct vhu_frontend *fe, enum vhu_request request, void *payload,
                          uint32_t size, bool may_refuse)
{
    struct vhu_header header;

    close_fd(&fe->came_along);
    if (receive_bytes(fe, request, &header, sizeof(header)) != 0)
        return -1;
    if (header.request != (uint32_t)request)
        return fail(fe, "the back-end answered %s with request %u", request_name(request),
                    header.request);
    if ((header.flags & VHU_FLAG_VERSION_MASK) != VHU_FLAG_VERSION ||
        (header.flags & VHU_FLAG_REPLY) == 0)
        return fail(fe, "the back-end answered %s with flags 0x%x", request_name(request),
                    header.flags);
    if (header.size == 0 && may_refuse)
        return 0;
    if (header.size != size)
        return fail(fe, "the back-end answered %s with %u bytes, not %u", request_name(request),
                    header.size, size);
    return receive_bytes(fe, request, payload, size) != 0 ? -1 : (int)size;
}

/* A request whose answer is a number. */
static int ask(struct vhu_frontend *fe, enum vhu_request request, uint64_t *answer)
{
    struct call call = {request, NULL, 0, NULL, 0};

    if (send_call(fe, &call, 0) != 0)
        return -1;
    return receive_answer(fe, request, answer, sizeof(*answer), false) < 0 ? -1 : 0;
}

/* A request without an answer. With REPLY_ACK there is one all the same, and 1 means that the
 * back-end refused; without, whatever comes next finds out. */
static int tell(struct vhu_frontend *fe, const struct call *call)
{
    bool ack = (fe->protocol & 1u << VHU_PROTOCOL_REPLY_ACK) != 0;
    uint64_t result = 0;

    if (send_call(fe, call, ack ? VHU_FLAG_NEED_REPLY : 0) != 0)
        return -1;
    if (ack && receive_answer(fe, call->request, &result, sizeof(result), false) < 0)
        return -1;
    return result != 0;
}

static int tell_u64(struct vhu_frontend *fe, enum vhu_request request, uint64_t value)
{
    struct call call = {request, &value, sizeof(value), NULL, 0};

    return tell(fe, &call);
}

static int tell_ring(struct vhu_frontend *fe, enum vhu_request request, uint16_t index,
                     uint32_t num)
{
    struct vhu_vring_state state = {index, num};
    struct call call = {request, &state, sizeof(state), NULL, 0};

    return tell(fe, &call);
}

/* Without REPLY_ACK: has the back-end read everything, and is it still there? */
static int settle(struct vhu_frontend *fe)
{
    uint64_t features;

    if (fe->protocol & 1u << VHU_PROTOCOL_REPLY_ACK)
        return 0;
    return ask(fe, VHU_GET_FEATURES, &features);
}

/* ----- shared memory ----- */

int vhu_frontend_share(struct vhu_frontend *fe, const uint64_t *lengths, unsigned count)
{
    if (count > VHU_FRONTEND_REGIONS)
        return fail(fe, "%u pieces of shared memory are too many", count);
    for (unsigned i = 0; i < count; i++) {
        struct vhu_frontend_region *region = &fe->region[i];
        void *cpu = MAP_FAILED;

        region->fd = memfd_create("vhost-user", MFD_CLOEXEC);
        if (region->fd >= 0 && ftruncate(region->fd, (off_t)lengths[i]) == 0)
            cpu = mmap(NULL, (size_t)lengths[i], PROT_READ | PROT_WRITE, MAP_SHARED, region->fd, 0);
        if (cpu == MAP_FAILED)
            return fail(fe, "no shared memory of %llu bytes: %s", (unsigned long long)lengths[i],
                        strerror(errno));
        region->cpu = (uint8_t *)cpu;
        region->device = REGION_BASE + i * REGION_STRIDE;
        region->length = lengths[i];
        fe->region_count = i + 1;
    }
    return 0;
}

struct virtio_dma vhu_frontend_memory(const struct vhu_frontend *fe, unsigned region,
                                      uint64_t offset, uint32_t length)
{
    struct virtio_dma memory = {fe->region[region].cpu + offset,
                                fe->region[region].device + offset, length};

    return memory;
}

/* Ring addresses are given as addresses of this process. 0: not in any region. */
static uint64_t user_address(const struct vhu_frontend *fe, uint64_t device)
{
    for (unsigned i = 0; i < fe->region_count; i++) {
        const struct vhu_frontend_region *region = &fe->region[i];

        if (device >= region->device && device - region->device < region->length)
            return (uint64_t)(uintptr_t)region->cpu + (device - region->device);
    }
    return 0;
}

static int tell_memory(struct vhu_frontend *fe)
{
    struct vhu_memory memory = {.count = fe->region_count};
    struct call call = {VHU_SET_MEM_TABLE, &memory, 0, NULL, fe->region_count};
    int fds[VHU_FRONTEND_REGIONS];

    for (unsigned i = 0; i < fe->region_count; i++) {
        memory.region[i].guest_addr = fe->region[i].device;
        memory.region[i].size = fe->region[i].length;
        memory.region[i].user_addr = (uint64_t)(uintptr_t)fe->region[i].cpu;
        fds[i] = fe->region[i].fd;
    }
    call.size = VHU_MEMORY_HEADER + fe->region_count * (uint32_t)sizeof(struct vhu_region);
    call.fds = fds;
    return tell(fe, &call);
}

/* ----- device configuration ----- */

/* Fetches it whole, from its start: some back-ends do not look at the offset. */
static int fetch_config(struct vhu_frontend *fe)
{
    struct vhu_config config = {.size = fe->setup.config_length};
    struct call call = {VHU_GET_CONFIG, &config, VHU_CONFIG_HEADER + config.size, NULL, 0};
    int got;

    if (send_call(fe, &call, 0) != 0)
        return -1;
    got = receive_answer(fe, VHU_GET_CONFIG, &config, call.size, true);
    if (got < 0)
        return -1;
    if (got == 0)
        return fail(fe, "the back-end refuses %u bytes of device configuration",
                    fe->setup.config_length);
    if (config.offset != 0 || config.size != fe->setup.config_length)
        return fail(fe, "the back-end answered GET_CONFIG with %u bytes at %u", config.size,
                    config.offset);
    if (memcmp(fe->config, config.data, config.size) != 0) {
        memcpy(fe->config, config.data, config.size);
        fe->generation++;
    }
    return 0;
}

/* Registers read out of the last answer, so that all fields are of one moment. */
static uint32_t config_read(void *ctx, uintptr_t offset, unsigned width)
{
    const struct vhu_frontend *fe = (const struct vhu_frontend *)ctx;
    uint32_t value = 0;

    for (unsigned i = width; i-- > 0;)
        value = value << 8 | fe->config[offset + i];
    return value;
}

static void config_write(void *ctx, uintptr_t offset, unsigned width, uint32_t value)
{
    struct vhu_frontend *fe = (struct vhu_frontend *)ctx;
    struct vhu_config config = {.offset = (uint32_t)offset, .size = width};
    struct call call = {VHU_SET_CONFIG, &config, VHU_CONFIG_HEADER + width, NULL, 0};

    if (fe->setup.own_config != NULL)
        return; /* nothing in it is the driver's to write */
    for (unsigned i = 0; i < width; i++)
        config.data[i] = (uint8_t)(value >> 8 * i);
    if (tell(fe, &call) > 0)
        (void)fail(fe, "the back-end refuses to have its configuration written at %u",
                   config.offset);
}

static const struct virtio_window_ops config_ops = {config_read, config_write};

/* ----- queues ----- */

/* Takes the signal that is in an eventfd, if there is one. */
static bool drain(int fd)
{
    uint64_t count;

    return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count);
}

/* A kick: the address is the eventfd. A full counter is a kick that is still to be seen. */
static void kick_write(void *ctx, uintptr_t address, unsigned width, uint32_t value)
{
    static const uint64_t one = 1;
    ssize_t written;

    (void)ctx;
    (void)width;
    (void)value;
    do
        written = write((int)address, &one, sizeof(one));
    while (written < 0 && errno == EINTR);
}

static uint32_t kick_read(void *ctx, uintptr_t address, unsigned width)
{
    (void)ctx;
    (void)address;
    (void)width;
    return UINT32_MAX;
}

static const struct virtio_window_ops kick_ops = {kick_read, kick_write};

static struct vhu_frontend *self(const struct virtio_drv *drv)
{
    return (struct vhu_frontend *)drv->regs.ctx;
}

static bool has_config(const struct vhu_frontend *fe)
{
    return fe->setup.config_length != 0 && (fe->setup.own_config != NULL ||
                                            (fe->protocol & 1u << VHU_PROTOCOL_CONFIG) != 0);
}

static bool has_enable(const struct vhu_frontend *fe)
{
    return (fe->offered & 1u << VHU_FEATURE_PROTOCOL_FEATURES) != 0;
}

static int tell_event(struct vhu_frontend *fe, enum vhu_request request, uint16_t index, int fd)
{
    uint64_t which = index;
    struct call call = {request, &which, sizeof(which), &fd, 1};

    return tell(fe, &call);
}

/* The record of requests in flight, which outlives the back-end: 0, 1 if it refuses, -1. */
static int tell_record(struct vhu_frontend *fe)
{
    struct call call = {VHU_SET_INFLIGHT_FD, &fe->inflight, sizeof(fe->inflight), &fe->record, 1};

    return tell(fe, &call);
}

/* Has the back-end make one, before the first queue of `num` entries. */
static int begin_record(struct vhu_frontend *fe, uint16_t num)
{
    struct vhu_inflight wanted = {.queue_count = (uint16_t)fe->queues, .queue_size = num};
    struct call call = {VHU_GET_INFLIGHT_FD, &wanted, sizeof(wanted), NULL, 0};
    int err;

    if (fe->record >= 0)
        return num != fe->inflight.queue_size;
    if (send_call(fe, &call, 0) != 0 || receive_answer(fe, VHU_GET_INFLIGHT_FD, &fe->inflight,
                                                       sizeof(fe->inflight), false) < 0)
        return -1;
    if (fe->inflight.mmap_size == 0 || fe->came_along < 0)
        return 1;
    fe->record = fe->came_along;
    fe->came_along = -1;
    err = tell_record(fe);
    if (err != 0)
        close_fd(&fe->record); /* the back-end writes to none */
    return err;
}

/* Where a ring is to go on. A split one says itself how far the back-end before had come. */
static uint32_t ring_base(const struct vhu_frontend *fe, const struct virtio_queue_addresses *at)
{
    const volatile uint8_t *used;

    if (fe->accepted & UINT64_C(1) << VIRTIO_FEATURE_RING_PACKED)
        return PACKED_BASE;
    used = (const volatile uint8_t *)(uintptr_t)user_address(fe, at->device);
    return used[2] | (uint32_t)used[3] << 8; /* no back-end writes now */
}

/* Describes a queue to the back-end: 0, 1 if it refuses, -1. */
static int describe_ring(struct vhu_frontend *fe, uint16_t index,
                         const struct virtio_queue_addresses *at)
{
    struct vhu_vring_addr address = {.index = index,
                                     .desc = user_address(fe, at->desc),
                                     .used = user_address(fe, at->device),
                                     .avail = user_address(fe, at->driver)};
    struct call call = {VHU_SET_VRING_ADDR, &address, sizeof(address), NULL, 0};
    struct vhu_frontend_ring *ring = &fe->ring[index];
    int err = tell_ring(fe, VHU_SET_VRING_NUM, index, at->num);

    if (err == 0)
        err = tell_ring(fe, VHU_SET_VRING_BASE, index, ring_base(fe, at));
    if (err == 0)
        err = tell(fe, &call);
    if (err == 0)
        err = tell_event(fe, VHU_SET_VRING_CALL, index, ring->call);
    if (err == 0)
        err = tell_event(fe, VHU_SET_VRING_KICK, index, ring->kick);
    return err != 0 ? err : settle(fe);
}

/* The device may look at a queue once the driver is ready; a back-end without ENABLE waits for the
 * first kick, which comes no earlier. */
static int enable_ring(struct vhu_frontend *fe, uint16_t index)
{
    return has_enable(fe) ? tell_ring(fe, VHU_SET_VRING_ENABLE, index, 1) : 0;
}

/* Takes a queue away from the back-end, which has finished with it when it answers. */
static void stop_ring(struct vhu_frontend *fe, uint16_t index)
{
    struct vhu_vring_state state = {index, 0};
    struct call call = {VHU_GET_VRING_BASE, &state, sizeof(state), NULL, 0};
    struct vhu_frontend_ring *ring = &fe->ring[index];

    if (has_enable(fe))
        (void)tell_ring(fe, VHU_SET_VRING_ENABLE, index, 0);
    if (send_call(fe, &call, 0) == 0 &&
        receive_answer(fe, VHU_GET_VRING_BASE, &state, sizeof(state), false) > 0 &&
        state.index != index)
        (void)fail(fe, "the back-end stopped queue %u, not %u", state.index, index);
    close_fd(&ring->kick);
    close_fd(&ring->call);
    ring->in_use = false;
}

static uint32_t queue_size(const struct virtio_drv *drv, uint16_t index)
{
    struct vhu_frontend *fe = self(drv);

    if (index >= fe->queues || failed(fe))
        return 0;
    fe->selected = index;
    return fe->setup.queue_size;
}

static bool queue_in_use(const struct virtio_drv *drv)
{
    return self(drv)->ring[self(drv)->selected].in_use;
}

static int queue_enable(const struct virtio_drv *drv, uint16_t index,
                        const struct virtio_queue_addresses *at, struct virtio_notify *notify)
{
    struct virtio_notify kick = {0, index, 0, VIRTIO_WINDOW_CALLER, 4, &kick_ops, NULL};
    struct vhu_frontend *fe = self(drv);
    struct vhu_frontend_ring *ring = &fe->ring[index];
    int err;

    if (!user_address(fe, at->desc) || !user_address(fe, at->driver) ||
        !user_address(fe, at->device))
        return VIRTIO_ERR_QUEUE_MEMORY;
    ring->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ring->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err = ring->kick < 0 || ring->call < 0 ? fail(fe, "no eventfd: %s", strerror(errno)) : 0;
    if (err == 0 && fe->setup.resumable)
        err = begin_record(fe, at->num);
    if (err == 0)
        err = describe_ring(fe, index, at);
    if (err == 0 && (fe->status & VIRTIO_STATUS_DRIVER_OK) != 0)
        err = enable_ring(fe, index);
    if (err != 0) {
        close_fd(&ring->kick);
        close_fd(&ring->call);
        return err > 0 ? VIRTIO_ERR_QUEUE_REFUSED : VIRTIO_ERR_GONE;
    }
    ring->in_use = true;
    ring->at = *at;
    kick.address = (uint64_t)ring->kick;
    *notify = kick;
    return 0;
}

static void queue_reset(const struct virtio_drv *drv, uint16_t index)
{
    if (self(drv)->ring[index].in_use)
        stop_ring(self(drv), index);
}

static bool queue_resetting(const struct virtio_drv *drv)
{
    (void)drv; /* the back-end's answer was its end */
    return false;
}

/* ----- features, status ----- */

/* What no back-end may be asked for: the two bits that mean something else in this protocol, and
 * what would need more than an eventfd for a kick and a region for an address. */
static uint64_t not_for_drivers(void)
{
    return UINT64_C(1) << VHU_FEATURE_PROTOCOL_FEATURES | UINT64_C(1) << 26 /* dirty page log */ |
           UINT64_C(1) << VIRTIO_FEATURE_ACCESS_PLATFORM |
           UINT64_C(1) << VIRTIO_FEATURE_NOTIFICATION_DATA |
           UINT64_C(1) << VIRTIO_FEATURE_SUSPEND;
}

static uint32_t features_get(const struct virtio_drv *drv, unsigned word)
{
    uint64_t offered = self(drv)->offered & ~not_for_drivers();

    return (uint32_t)((offered | self(drv)->setup.own_features) >> 32 * word);
}

static void features_set(const struct virtio_drv *drv, unsigned word, uint32_t value)
{
    struct vhu_frontend *fe = self(drv);

    fe->accepted &= ~(UINT64_C(0xffffffff) << 32 * word);
    fe->accepted |= (uint64_t)value << 32 * word;
}

static bool agree(struct vhu_frontend *fe)
{
    uint64_t bits = (fe->accepted | 1u << VHU_FEATURE_PROTOCOL_FEATURES) & fe->offered;

    return tell_u64(fe, VHU_SET_FEATURES, bits) == 0 && tell_memory(fe) == 0 && settle(fe) == 0;
}

static void start(struct vhu_frontend *fe)
{
    for (uint16_t i = 0; i < fe->queues; i++) {
        if (fe->ring[i].in_use && enable_ring(fe, i) > 0)
            (void)fail(fe, "the back-end refuses to enable queue %u", i);
    }
    (void)settle(fe);
}

static void reset(struct vhu_frontend *fe)
{
    struct call call = {VHU_RESET_DEVICE, NULL, 0, NULL, 0};

    for (uint16_t i = 0; i < fe->queues; i++) {
        if (fe->ring[i].in_use)
            stop_ring(fe, i);
    }
    fe->accepted = 0;
    close_fd(&fe->record);
    if ((fe->protocol & 1u << VHU_PROTOCOL_RESET_DEVICE) != 0 && fe->status != 0 &&
        tell(fe, &call) > 0)
        (void)fail(fe, "the back-end refuses to be reset");
    fe->status = 0;
}

static uint8_t status_get(const struct virtio_drv *drv)
{
    return failed(self(drv)) ? (uint8_t)VIRTIO_STATUS_GONE : self(drv)->status;
}

static void status_set(const struct virtio_drv *drv, uint8_t status)
{
    struct vhu_frontend *fe = self(drv);
    uint8_t added = (uint8_t)(status & ~fe->status);

    if (failed(fe))
        return;
    if (status == 0) {
        reset(fe);
        return;
    }
    if ((added & VIRTIO_STATUS_FEATURES_OK) != 0 && !agree(fe))
        status = (uint8_t)(status & ~VIRTIO_STATUS_FEATURES_OK);
    fe->status = status;
    if ((added & VIRTIO_STATUS_DRIVER_OK) != 0)
        start(fe);
}

static uint32_t config_generation(const struct virtio_drv *drv)
{
    if (self(drv)->setup.own_config == NULL)
        (void)fetch_config(self(drv));
    return self(drv)->generation;
}

/* ----- interrupts ----- */

static bool take_interrupts(struct vhu_frontend *fe)
{
    bool any = false;

    for (unsigned i = 0; i < fe->queues; i++) {
        if (fe->ring[i].in_use && drain(fe->ring[i].call)) {
            fe->interrupts++;
            any = true;
        }
    }
    return any;
}

static uint32_t irq_status(const struct virtio_drv *drv)
{
    return take_interrupts(self(drv)) ? VIRTIO_IRQ_QUEUE : 0;
}

static void irq_ack(const struct virtio_drv *drv, uint32_t causes)
{
    (void)drv; /* taking it was that */
    (void)causes;
}

/* The socket became readable though nothing was asked: the end of the connection, or nonsense. */
static void unasked(struct vhu_frontend *fe)
{
    char byte;
    ssize_t got = recv(fe->socket, &byte, 1, MSG_DONTWAIT | MSG_PEEK);

    if (got > 0)
        (void)fail(fe, "the back-end sent a message that nobody asked for");
    else if (got == 0 || errno != EAGAIN)
        (void)fail(fe, "the back-end closed the connection");
}

bool vhu_frontend_wait(void *ctx)
{
    struct vhu_frontend *fe = (struct vhu_frontend *)ctx;
    int64_t deadline = now_ms() + fe->setup.timeout_ms, left;
    struct pollfd fds[1 + VHU_FRONTEND_RINGS] = {{fe->socket, POLLIN, 0}};
    nfds_t count = 1;

    for (unsigned i = 0; i < fe->queues; i++) {
        if (!failed(fe) && fe->ring[i].in_use)
            fds[count++] = (struct pollfd){fe->ring[i].call, POLLIN, 0};
    }
    for (left = deadline - now_ms(); left > 0 && !failed(fe); left = deadline - now_ms()) {
        if (poll(fds, count, (int)left) <= 0)
            continue;
        if (take_interrupts(fe))
            return true;
        if (fds[0].revents != 0)
            unasked(fe);
    }
    return false;
}

uint32_t vhu_frontend_interrupts(const struct vhu_frontend *fe)
{
    return fe->interrupts;
}

/* ----- the connection ----- */

int vhu_frontend_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int reason = errno;

        (void)close(fd);
        errno = reason;
        return -1;
    }
    return fd;
}

/* Protocol features: those that this file uses and the back-end has. */
static int negotiate_protocol(struct vhu_frontend *fe)
{
    uint64_t offered, wanted = 1u << VHU_PROTOCOL_MQ | 1u << VHU_PROTOCOL_REPLY_ACK |
                               1u << VHU_PROTOCOL_CONFIG | 1u << VHU_PROTOCOL_RESET_DEVICE;

    fe->protocol = 0;
    if (fe->setup.resumable)
        wanted |= 1u << VHU_PROTOCOL_INFLIGHT_SHMFD;
    if (!has_enable(fe))
        return 0;
    if (ask(fe, VHU_GET_PROTOCOL_FEATURES, &offered) != 0 ||
        tell_u64(fe, VHU_SET_PROTOCOL_FEATURES, offered & wanted) != 0)
        return -1;
    fe->protocol = offered & wanted;
    return 0;
}

static int count_queues(struct vhu_frontend *fe)
{
    uint64_t units;

    fe->queues = fe->setup.queues;
    if ((fe->protocol & 1u << VHU_PROTOCOL_MQ) == 0)
        return 0;
    if (ask(fe, VHU_GET_QUEUE_NUM, &units) != 0)
        return -1;
    if (units == 0 || units > VHU_MAX_QUEUES)
        return fail(fe, "the back-end says that it has %llu queues", (unsigned long long)units);
    fe->queues = (unsigned)units * fe->setup.queues_counted;
    if (fe->queues > VHU_FRONTEND_RINGS)
        fe->queues = VHU_FRONTEND_RINGS;
    return 0;
}

/* The first messages on a socket, up to what the device is. */
static int introduce(struct vhu_frontend *fe)
{
    struct call owner = {VHU_SET_OWNER, NULL, 0, NULL, 0};

    if (ask(fe, VHU_GET_FEATURES, &fe->offered) != 0 || negotiate_protocol(fe) != 0 ||
        count_queues(fe) != 0)
        return -1;
    if (fe->setup.resumable && (fe->protocol & 1u << VHU_PROTOCOL_INFLIGHT_SHMFD) == 0)
        return fail(fe, "the back-end keeps no record of requests in flight");
    if (tell(fe, &owner) != 0)
        return fail(fe, "the back-end refuses an owner");
    return fe->setup.own_config == NULL && has_config(fe) ? fetch_config(fe) : 0;
}

int vhu_frontend_open(struct vhu_frontend *fe, int socket, const struct vhu_frontend_setup *setup)
{
    if (socket < 0)
        return fail(fe, "no connection: %s", strerror(errno));
    fe->setup = *setup;
    fe->socket = socket;
    fe->open = true;
    fe->record = fe->came_along = -1;
    for (unsigned i = 0; i < VHU_FRONTEND_RINGS; i++)
        fe->ring[i].kick = fe->ring[i].call = -1;
    if (setup->queues > VHU_FRONTEND_RINGS || setup->config_length > VHU_FRONTEND_CONFIG)
        return fail(fe, "more queues or configuration than a front-end has");
    if (setup->own_config != NULL)
        memcpy(fe->config, setup->own_config, setup->config_length);
    return introduce(fe);
}

/* Tells a new back-end what the driver told the one before. */
static int repeat(struct vhu_frontend *fe)
{
    int err = 0;

    if ((fe->status & VIRTIO_STATUS_FEATURES_OK) != 0 && !agree(fe))
        return fail(fe, "the new back-end refuses the features of the one before");
    if (fe->record >= 0)
        err = tell_record(fe);
    for (uint16_t i = 0; i < fe->queues && err == 0; i++) {
        if (fe->ring[i].in_use)
            err = describe_ring(fe, i, &fe->ring[i].at);
    }
    if (err != 0)
        return fail(fe, "the new back-end refuses the queues of the one before");
    if ((fe->status & VIRTIO_STATUS_DRIVER_OK) != 0)
        start(fe);
    return failed(fe) ? -1 : 0;
}

/* Is it the device that the driver knows? */
static int introduce_again(struct vhu_frontend *fe)
{
    unsigned queues = fe->queues;
    int err = introduce(fe);
    bool fewer = fe->queues < queues;

    fe->queues = queues;
    if (err == 0 && (fewer || (fe->accepted & ~fe->offered & ~fe->setup.own_features) != 0))
        err = fail(fe, "the new back-end is another device");
    return err;
}

int vhu_frontend_reconnect(struct vhu_frontend *fe, int socket)
{
    if (socket < 0)
        return -1;
    close_fd(&fe->socket);
    fe->socket = socket;
    fe->error[0] = '\0';
    if (!fe->setup.resumable)
        return fail(fe, "nobody recorded what was in flight");
    if (introduce_again(fe) != 0 || repeat(fe) != 0)
        return -1;
    for (unsigned i = 0; i < fe->queues; i++) { /* a kick may have been lost with the old one */
        if (fe->ring[i].in_use)
            kick_write(NULL, (uintptr_t)fe->ring[i].kick, 4, 0);
    }
    return 0;
}

unsigned vhu_frontend_queues(const struct vhu_frontend *fe)
{
    return fe->queues;
}

static const struct virtio_transport transport = {
    .name = "vhost-user",
    .status_get = status_get,
    .status_set = status_set,
    .features_get = features_get,
    .features_set = features_set,
    .config_generation = config_generation,
    .queue_size = queue_size,
    .queue_in_use = queue_in_use,
    .queue_enable = queue_enable,
    .queue_reset = queue_reset,
    .queue_resetting = queue_resetting,
    .irq_status = irq_status,
    .irq_ack = irq_ack,
    .feature_words = 2,
};

int vhu_frontend_drv(struct vhu_frontend *fe, struct virtio_drv *drv)
{
    if (failed(fe))
        return VIRTIO_ERR_GONE;
    drv->transport = &transport;
    drv->regs.kind = VIRTIO_WINDOW_CALLER;
    drv->regs.ops = &kick_ops;
    drv->regs.ctx = fe;
    if (has_config(fe)) {
        drv->config = drv->regs;
        drv->config.ops = &config_ops;
        drv->config.length = fe->setup.config_length;
    }
    drv->transport_bits = 1u << (VIRTIO_FEATURE_RING_RESET - 32);
    return 0;
}

void vhu_frontend_close(struct vhu_frontend *fe)
{
    for (unsigned i = 0; fe->open && i < VHU_FRONTEND_RINGS; i++) {
        close_fd(&fe->ring[i].kick);
        close_fd(&fe->ring[i].call);
    }
    if (fe->open) {
        close_fd(&fe->socket);
        close_fd(&fe->record);
        close_fd(&fe->came_along);
    }
    for (unsigned i = 0; i < fe->region_count; i++) {
        (void)munmap(fe->region[i].cpu, (size_t)fe->region[i].length);
        close_fd(&fe->region[i].fd);
    }
    fe->region_count = 0;
    fe->open = false;
}
