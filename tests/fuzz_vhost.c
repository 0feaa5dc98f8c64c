// SPDX-License-Identifier: MIT-0
/* A hostile vhost-user front-end with a hostile driver behind it, for libFuzzer (make fuzz FUZZ=vhost).
 * The input is a sequence of messages, with descriptors of real memory or of none, and of stores to that
 * memory. What must hold: nothing outside the memory is touched, no descriptor is lost, a buffer handed
 * to the device lies in one region or in none, and a turn of the loop comes back. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../examples/vhost_user/backend.c"
#include "../examples/vhost_user/inflight.c"
#include "../examples/vhost_user/memory.c"
#include "../examples/vhost_user/queue.c"
#include "support/fuzz_input.h"

enum { MEMORY_SIZE = 0x4000, QUEUES = 3, TURNS = 4 };

static const uint64_t guest_base = 0x100000, user_base = 0x7000000000;
static struct vhu_backend backend;
static uint8_t *memory;
static int memory_fd = -1;
static const uint8_t config[20] = {1, 2, 3};
static unsigned asked;

static void log_line(void *ctx, const char *line)
{
    CHECK(ctx == &backend && strlen(line) < LINE);
}

/* Touches all that the chain says is memory; puts every fifth off. */
static uint32_t answer(void *ctx, const struct virtq_chain *chain)
{
    uint32_t written = 0;

    CHECK(ctx == &backend && chain->readable + chain->writable <= VHU_SEGS);
    for (unsigned i = 0; i < (unsigned)chain->readable + chain->writable; i++) {
        uint32_t len = chain->seg[i].len;
        uint8_t *at = vhu_backend_map(&backend, chain->seg[i].addr, len);

        CHECK((at == NULL) == (vhu_backend_region(&backend, chain->seg[i].addr) == NULL));
        if (at == NULL || len == 0)
            continue;
        at[0] = at[len - 1];
        written += i >= chain->readable ? len : 0;
    }
    return ++asked % 5 == 0 ? VHU_LATER : written;
}

static int serve(void *ctx, struct vhu_queue *queue)
{
    CHECK(ctx == &backend);
    return vhu_queue_answer(queue, answer, ctx);
}

static const struct vhu_ops ops = {.serve = serve, .log = log_line};

/* Mostly numbers that lead somewhere: few queues, small rings, addresses in the memory. */
static uint64_t number(void)
{
    uint8_t how = (uint8_t)take_bytes(1);

    switch (how % 8) {
    case 0: return take_bytes(8);
    case 1: return take_bytes(4);
    case 2: return user_base + take_bytes(2) % MEMORY_SIZE / 16 * 16;
    case 3: return guest_base + take_bytes(2) % MEMORY_SIZE;
    case 4: return UINT64_C(1) << (how / 8 + 8 * (take_bytes(1) & 3)) % 64;
    default: return how / 8 % 4;
    }
}

static void fill(struct vhu_message *message)
{
    uint32_t request = message->header.request;
    union vhu_payload *payload = &message->payload;

    if (request == VHU_SET_FEATURES) {
        payload->u64 = ring_features & ~(take_bytes(1) << 28 | take_bytes(1) << 32);
    } else if (request == VHU_SET_MEM_TABLE) {
        payload->memory.count = (uint32_t)take_bytes(1) % 4;
        for (unsigned i = 0; i < 3; i++) {
            struct vhu_region *region = &payload->memory.region[i];
            uint64_t at = (uint64_t)i * MEMORY_SIZE / 4;

            region->guest_addr = guest_base + at;
            region->user_addr = user_base + at;
            region->mmap_offset = at;
            region->size = take_bytes(1) % 8 != 0 ? MEMORY_SIZE / 4 : number();
        }
    } else if (request == VHU_ADD_MEM_REG || request == VHU_REM_MEM_REG) {
        payload->slot.padding = 0;
        payload->slot.region.guest_addr = guest_base + take_bytes(1) % 4 * (MEMORY_SIZE / 4);
        payload->slot.region.user_addr = user_base;
        payload->slot.region.mmap_offset = 0;
        payload->slot.region.size = take_bytes(1) % 8 != 0 ? MEMORY_SIZE / 4 : number();
    } else if (request == VHU_SET_VRING_ADDR) {
        payload->ring.index = (uint32_t)take_bytes(1) % 4;
        payload->ring.flags = 0;
        payload->ring.desc = number();
        payload->ring.avail = number();
        payload->ring.used = number();
    } else if (request == VHU_GET_INFLIGHT_FD || request == VHU_SET_INFLIGHT_FD) {
        payload->inflight.mmap_size = number();
        payload->inflight.mmap_offset = take_bytes(2) / 8 * 8;
        payload->inflight.queue_count = (uint16_t)number();
        payload->inflight.queue_size = (uint16_t)number();
    } else if (take_bytes(1) % 8 == 0) {
        for (unsigned i = 0; i < 64; i++)
            ((uint8_t *)payload)[i] = (uint8_t)take_bytes(1);
    } else {
        payload->state.index = (uint32_t)take_bytes(1) % 4;
        payload->state.num = (uint32_t)number();
    }
}

static int descriptor(void)
{
    return take_bytes(1) % 2 ? fcntl(memory_fd, F_DUPFD_CLOEXEC, 0) : eventfd(0, EFD_CLOEXEC);
}

/* The size a request should have, or another one. */
static uint32_t size_of(const struct vhu_message *message)
{
    const struct rule *rule = rule_of(message->header.request);

    if (rule == NULL || take_bytes(1) % 16 == 0)
        return (uint32_t)(take_bytes(2) % (sizeof(message->payload) + 1));
    if (rule->size != ANY_SIZE)
        return rule->size;
    if (message->header.request == VHU_SET_MEM_TABLE)
        return VHU_MEMORY_HEADER + message->payload.memory.count * 32;
    return message->header.request >= VHU_GET_INFLIGHT_FD ? 24 : VHU_CONFIG_HEADER;
}

static bool send_one(void)
{
    struct vhu_message message = {{(uint32_t)take_bytes(1) % 42, VHU_FLAG_VERSION, 0}, {0}};
    int fd[VHU_MAX_FDS];
    unsigned fds = 0;
    struct vhu_answer answered;
    const char *why;

    fill(&message);
    message.header.size = size_of(&message);
    message.header.flags |= take_bytes(1) % 4 == 0 ? VHU_FLAG_NEED_REPLY : 0;
    if (message.header.request == VHU_SET_MEM_TABLE)
        fds = message.payload.memory.count % VHU_MAX_FDS;
    else
        fds = (unsigned)take_bytes(1) % 3;
    for (unsigned i = 0; i < fds; i++)
        fd[i] = message.header.request == VHU_SET_MEM_TABLE ? fcntl(memory_fd, F_DUPFD_CLOEXEC, 0)
                                                            : descriptor();
    why = vhu_backend_handle(&backend, &message, fd, fds, &answered);
    CHECK(why == NULL || strlen(why) != 0);
    CHECK(answered.fd < 0 || answered.due);
    CHECK(!answered.due || answered.message.header.size <= sizeof(answered.message.payload));
    vhu_replace_fd(&answered.fd, -1);
    return why == NULL;
}

static void store(void)
{
    uint64_t at = take_bytes(1 + take_bytes(1) % 4 / 3) % MEMORY_SIZE, value = number();
    size_t width = (size_t)1 << take_bytes(1) % 4;

    if (at + width <= MEMORY_SIZE)
        memcpy(memory + at, &value, width);
}

static void tell(uint32_t request, union vhu_payload payload, int fd)
{
    struct vhu_message message = {{request, VHU_FLAG_VERSION, 0}, payload};
    struct vhu_answer answered;

    message.header.size = rule_of(request)->size;
    if (message.header.size == ANY_SIZE)
        message.header.size = request == VHU_SET_MEM_TABLE ? VHU_MEMORY_HEADER + 32 : 24;
    CHECK(vhu_backend_handle(&backend, &message, &fd, fd >= 0, &answered) == NULL);
    vhu_replace_fd(&answered.fd, -1);
}

/* What a good front-end does: a ring of four entries at the start of the memory, split or packed, with
 * an in-flight region that may hold anything. Its base is the input's. */
static void shake_hands(uint8_t how)
{
    uint64_t features = ring_features & ~(how & 2 ? UINT64_C(1) << VIRTIO_FEATURE_RING_PACKED : 0);
    struct vhu_memory table = {1, 0, {{guest_base, MEMORY_SIZE, user_base, 0}}};
    struct vhu_vring_addr ring = {0, 0, user_base, user_base + 0xc0, user_base + 0x80, 0};
    struct vhu_inflight inflight = {0x1000, 0x100, 1, 4, 0};

    features &= ~(how & 4 ? UINT64_C(1) << VIRTIO_FEATURE_EVENT_IDX : 0);
    tell(VHU_SET_FEATURES, (union vhu_payload){.u64 = features}, -1);
    tell(VHU_SET_PROTOCOL_FEATURES, (union vhu_payload){.u64 = offered_protocol(&backend)}, -1);
    tell(VHU_SET_MEM_TABLE, (union vhu_payload){.memory = table}, fcntl(memory_fd, F_DUPFD_CLOEXEC, 0));
    if (how & 8)
        tell(VHU_SET_INFLIGHT_FD, (union vhu_payload){.inflight = inflight},
             fcntl(memory_fd, F_DUPFD_CLOEXEC, 0));
    tell(VHU_SET_VRING_NUM, (union vhu_payload){.state = {0, 4}}, -1);
    tell(VHU_SET_VRING_ADDR, (union vhu_payload){.ring = ring}, -1);
    tell(VHU_SET_VRING_BASE, (union vhu_payload){.state = {0, (uint32_t)number()}}, -1);
    tell(VHU_SET_VRING_CALL, (union vhu_payload){.u64 = 0}, eventfd(0, EFD_CLOEXEC));
    tell(VHU_SET_VRING_KICK, (union vhu_payload){.u64 = VHU_VRING_NO_FD}, -1);
    tell(VHU_SET_VRING_ENABLE, (union vhu_payload){.state = {0, 1}}, -1);
}

static void open_backend(void)
{
    if (memory_fd < 0) {
        memory_fd = memfd_create("fuzz", MFD_CLOEXEC);
        CHECK(memory_fd >= 0 && ftruncate(memory_fd, MEMORY_SIZE) == 0);
        memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
        CHECK(memory != MAP_FAILED);
    }
    memset(memory, 0, MEMORY_SIZE);
    backend.ops = &ops;
    backend.ctx = &backend;
    backend.config = config;
    backend.config_length = sizeof(config);
    backend.queue_count = QUEUES;
    vhu_backend_init(&backend);
    asked = 0;
}

static int lowest_fd(void)
{
    int fd = dup(memory_fd);

    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool going = true;
    uint8_t how;
    int lowest;

    input = data;
    input_left = size;
    open_backend();
    lowest = lowest_fd();
    how = (uint8_t)take_bytes(1);
    if (how & 1) {
        for (unsigned i = how >> 4; i != 0; i--)
            store();
        shake_hands(how);
    }
    while (going && input_left != 0) {
        if (take_bytes(1) % 4 != 0)
            store();
        else
            going = send_one();
        for (unsigned turn = 0; going && turn < TURNS; turn++)
            going = vhu_backend_serve(&backend) >= 0;
        backend.queue[0].pending = true; /* as a kick would */
    }
    vhu_backend_reset(&backend);
    CHECK(lowest_fd() == lowest); /* no descriptor stayed open, or was closed twice */
    return 0;
}
