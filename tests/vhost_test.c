// SPDX-License-Identifier: MIT-0
/* The vhost-user front-end as a transport, against a back-end that a thread of this test plays:
 * what the block and the network driver do not use of it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../examples/vhost_user/frontend.h"
#include "../examples/vhost_user/protocol.h"

enum { CONFIG_LENGTH = 16, HEARD_MAX = 256, QUEUES = 2, QUEUE_SIZE = 8 };

/* The back-end's side. Its thread and the test take turns: every request here has an answer. */
static struct {
    int socket;
    pthread_t thread;
    uint32_t heard[HEARD_MAX];
    unsigned count;
    uint32_t refused; /* this request, with REPLY_ACK */
    struct vhu_config written;
    uint8_t config[CONFIG_LENGTH];
    int kick[QUEUES];
    int call[QUEUES];
    uint32_t base[QUEUES];
    unsigned queues;
    uint64_t lacks; /* of the features */
    int record;     /* of requests in flight: sent, unless it is -1 */
    ino_t recorded; /* and which one came back */
} backend;

static struct vhu_frontend fe;
static struct virtio_drv drv;
static struct virtq_slot slots[QUEUE_SIZE];

static void backend_keep(const struct vhu_message *message, int fd)
{
    unsigned index = (unsigned)message->payload.u64 % QUEUES;
    struct stat st;

    if (message->header.request == VHU_SET_INFLIGHT_FD && fstat(fd, &st) == 0)
        backend.recorded = st.st_ino;
    if (message->header.request == VHU_SET_VRING_KICK)
        backend.kick[index] = fd;
    else if (message->header.request == VHU_SET_VRING_CALL)
        backend.call[index] = fd;
    else
        (void)close(fd);
}

/* Receives one request, with the last descriptor that came along, or false at the end. */
static bool backend_hear(struct vhu_message *message)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(VHU_MAX_FDS * sizeof(int))];
    } control;
    struct iovec iov = {&message->header, sizeof(message->header)};
    struct msghdr part = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
                          .msg_controllen = sizeof(control.space)};
    struct cmsghdr *cmsg;
    int fds[VHU_MAX_FDS];
    size_t count = 0;

    if (recvmsg(backend.socket, &part, MSG_WAITALL) != (ssize_t)sizeof(message->header) ||
        (message->header.size != 0 &&
         recv(backend.socket, &message->payload, message->header.size, MSG_WAITALL) < 0))
        return false;
    cmsg = CMSG_FIRSTHDR(&part);
    if (cmsg != NULL) {
        count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(cmsg), count * sizeof(int));
    }
    for (size_t i = 0; i < count; i++)
        backend_keep(message, fds[i]);
    return true;
}

/* Makes the answer in place; false if none is due. */
static bool backend_answer(struct vhu_message *m)
{
    bool ack = (m->header.flags & VHU_FLAG_NEED_REPLY) != 0;
    uint32_t request = m->header.request;

    m->header.flags = VHU_FLAG_VERSION | VHU_FLAG_REPLY;
    if (request == VHU_SET_VRING_BASE)
        backend.base[m->payload.state.index] = m->payload.state.num;
    if (request == VHU_GET_INFLIGHT_FD)
        m->payload.inflight.mmap_size = 4096;
    if (request == VHU_GET_VRING_BASE || request == VHU_GET_INFLIGHT_FD)
        return true;
    if (request == VHU_GET_CONFIG) {
        memcpy(m->payload.config.data, backend.config, m->payload.config.size);
        return true;
    }
    if (request == VHU_SET_CONFIG)
        backend.written = m->payload.config;
    m->header.size = sizeof(m->payload.u64);
    m->payload.u64 = request == backend.refused;
    if (request == VHU_GET_FEATURES)
        m->payload.u64 = (UINT64_C(1) << VIRTIO_FEATURE_VERSION_1 |
                          UINT64_C(1) << VIRTIO_FEATURE_RING_RESET |
                          1u << VHU_FEATURE_PROTOCOL_FEATURES) & ~backend.lacks;
    else if (request == VHU_GET_PROTOCOL_FEATURES)
        m->payload.u64 = 1u << VHU_PROTOCOL_MQ | 1u << VHU_PROTOCOL_REPLY_ACK |
                         1u << VHU_PROTOCOL_CONFIG | 1u << VHU_PROTOCOL_INFLIGHT_SHMFD;
    else if (request == VHU_GET_QUEUE_NUM)
        m->payload.u64 = backend.queues;
    else
        return ack;
    return true;
}

static bool backend_send(const struct vhu_message *message)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct iovec iov[] = {{(void *)(uintptr_t)&message->header, sizeof(message->header)},
                          {(void *)(uintptr_t)&message->payload, message->header.size}};
    struct msghdr whole = {.msg_iov = iov, .msg_iovlen = 2};

    if (message->header.request == VHU_GET_INFLIGHT_FD && backend.record >= 0) {
        whole.msg_control = control.space;
        whole.msg_controllen = sizeof(control.space);
        CMSG_FIRSTHDR(&whole)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&whole)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&whole)->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&whole)), &backend.record, sizeof(int));
    }
    return sendmsg(backend.socket, &whole, MSG_NOSIGNAL) >= 0;
}

static void *backend_serve(void *unused)
{
    struct vhu_message message;

    while (backend.count < HEARD_MAX && backend_hear(&message)) {
        backend.heard[backend.count++] = message.header.request;
        if (backend_answer(&message) && !backend_send(&message))
            break;
    }
    return unused;
}

static struct vhu_frontend_setup plain_setup(void)
{
    struct vhu_frontend_setup setup = {.queues = 1,
                                       .queues_counted = 1,
                                       .queue_size = QUEUE_SIZE,
                                       .config_length = CONFIG_LENGTH,
                                       .timeout_ms = 5000};

    return setup;
}

/* Returns the other end of the connection. */
static int backend_start(void)
{
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    backend.socket = pair[1];
    backend.count = 0;
    cr_assert_eq(pthread_create(&backend.thread, NULL, backend_serve, NULL), 0);
    return pair[0];
}

static void backend_end(void)
{
    (void)shutdown(backend.socket, SHUT_RDWR);
    (void)pthread_join(backend.thread, NULL);
    (void)close(backend.socket);
}

static void connect_to(const struct vhu_frontend_setup *setup)
{
    const uint64_t length = 1 << 16;

    backend.queues = QUEUES;
    backend.record = memfd_create("record", MFD_CLOEXEC);
    cr_assert_eq(vhu_frontend_share(&fe, &length, 1), 0);
    cr_assert_eq(vhu_frontend_open(&fe, backend_start(), setup), 0);
    cr_assert_eq(vhu_frontend_drv(&fe, &drv), 0);
}

static void connect_both(void)
{
    const struct vhu_frontend_setup setup = plain_setup();

    connect_to(&setup);
}

static void connect_resumable(void)
{
    struct vhu_frontend_setup setup = plain_setup();

    setup.resumable = true;
    connect_to(&setup);
}

static void disconnect(void)
{
    vhu_frontend_close(&fe);
    backend_end();
    (void)close(backend.record);
}

static void negotiate(void)
{
    const struct virtio_features required = {{0, 1u << (VIRTIO_FEATURE_RING_RESET - 32), 0, 0}};

    cr_assert_eq(virtio_drv_begin(&drv), 0);
    cr_assert_eq(virtio_drv_negotiate(&drv, &required, &required), 0);
}

static int set_up(struct virtio_drv_queue *queue, uint16_t index)
{
    struct virtio_queue_setup setup = {
        QUEUE_SIZE, vhu_frontend_memory(&fe, 0, 0, 4096), slots};

    return virtio_drv_queue_setup(&drv, queue, index, &setup);
}

/* The last requests that the back-end heard; nothing is on its way. */
static void expect_heard(const uint32_t *requests, unsigned count)
{
    cr_assert(backend.count >= count);
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(backend.heard[backend.count - count + i], requests[i]);
}

TestSuite(vhost_frontend, .init = connect_both, .fini = disconnect);

Test(vhost_frontend, a_change_of_the_configuration_is_a_generation)
{
    static const struct virtio_config_field field = {4, 4};
    uint64_t value = 0;
    uint32_t before = drv.transport->config_generation(&drv);

    cr_assert_eq(drv.transport->config_generation(&drv), before);
    memcpy(backend.config + 4, "\x44\x33\x22\x11", 4);
    cr_assert_eq(virtio_drv_config_read(&drv, &field, 1, &value), 0);
    cr_assert_eq(value, 0x11223344);
    cr_assert_neq(drv.transport->config_generation(&drv), before);
}

Test(vhost_frontend, a_write_to_the_configuration_is_a_message)
{
    static const struct virtio_config_field word = {8, 4}, byte = {3, 1};

    cr_assert_eq(virtio_drv_config_write(&drv, word, 0x11223344), 0);
    cr_assert_eq(backend.written.offset, 8);
    cr_assert_eq(backend.written.size, 4);
    cr_assert_eq(backend.written.flags, 0);
    cr_assert_eq(memcmp(backend.written.data, "\x44\x33\x22\x11", 4), 0);
    cr_assert_eq(virtio_drv_config_write(&drv, byte, 0x5a), 0);
    cr_assert_eq(backend.written.offset, 3);
    cr_assert_eq(backend.written.size, 1);
    cr_assert_eq(backend.written.data[0], 0x5a);
}

Test(vhost_frontend, a_refused_write_ends_the_device)
{
    static const struct virtio_config_field byte = {3, 1};

    backend.refused = VHU_SET_CONFIG;
    cr_assert_eq(virtio_drv_config_write(&drv, byte, 1), 0);
    cr_assert_eq(drv.transport->status_get(&drv), VIRTIO_STATUS_GONE);
    cr_assert(strstr(vhu_frontend_error(&fe), "configuration written at 3") != NULL);
    cr_assert_eq(virtio_drv_begin(&drv), VIRTIO_ERR_GONE);
}

Test(vhost_frontend, a_queue_is_reset_alone_and_set_up_again)
{
    static const uint32_t stopped[] = {VHU_SET_VRING_ENABLE, VHU_GET_VRING_BASE};
    static const uint32_t again[] = {VHU_SET_VRING_NUM,  VHU_SET_VRING_BASE, VHU_SET_VRING_ADDR,
                                     VHU_SET_VRING_CALL, VHU_SET_VRING_KICK, VHU_SET_VRING_ENABLE};
    struct virtio_drv_queue queue;

    negotiate();
    cr_assert_eq(set_up(&queue, 1), 0);
    cr_assert_eq(set_up(&queue, 1), VIRTIO_ERR_QUEUE_BUSY);
    virtio_drv_ready(&drv);
    cr_assert_eq(virtio_drv_queue_reset(&drv, &queue), 0);
    expect_heard(stopped, 2);
    cr_assert_eq(set_up(&queue, 1), 0);
    expect_heard(again, 6);
}

Test(vhost_frontend, kicks_and_interrupts_are_eventfds)
{
    struct pollfd kicked = {-1, POLLIN, 0};
    const uint64_t one = 1;
    struct virtio_drv_queue queue;

    negotiate();
    cr_assert_eq(set_up(&queue, 1), 0);
    virtio_drv_ready(&drv);
    kicked.fd = backend.kick[1];
    cr_assert_eq(poll(&kicked, 1, 0), 0);
    virtio_notify_send(&queue.notify, 0);
    cr_assert_eq(poll(&kicked, 1, 0), 1);
    cr_assert_eq(virtio_drv_irq_status(&drv), 0);
    cr_assert_eq(write(backend.call[1], &one, sizeof(one)), (ssize_t)sizeof(one));
    cr_assert_eq(virtio_drv_irq_status(&drv), VIRTIO_IRQ_QUEUE);
    cr_assert_eq(virtio_drv_irq_status(&drv), 0);
    cr_assert_eq(write(backend.call[1], &one, sizeof(one)), (ssize_t)sizeof(one));
    cr_assert(vhu_frontend_wait(&fe));
    cr_assert_eq(vhu_frontend_interrupts(&fe), 2);
}

Test(vhost_frontend, what_the_back_end_cannot_reach_is_not_a_queue)
{
    struct virtio_queue_setup setup = {
        QUEUE_SIZE, vhu_frontend_memory(&fe, 0, 0, 4096), slots};
    struct virtio_drv_queue queue;

    negotiate();
    cr_assert_eq(set_up(&queue, QUEUES), VIRTIO_ERR_NO_QUEUE);
    cr_assert_eq(set_up(&queue, 0xffff), VIRTIO_ERR_NO_QUEUE);
    setup.memory.device += 1 << 16;
    cr_assert_eq(virtio_drv_queue_setup(&drv, &queue, 0, &setup), VIRTIO_ERR_QUEUE_MEMORY);
    setup.memory.device = (uint64_t)(uintptr_t)setup.memory.cpu;
    cr_assert_eq(virtio_drv_queue_setup(&drv, &queue, 0, &setup), VIRTIO_ERR_QUEUE_MEMORY);
    cr_assert_null(vhu_frontend_error(&fe));
}

TestSuite(vhost_frontend_resumable, .init = connect_resumable, .fini = disconnect);

/* A running device, whose back-end has completed five requests of a split ring. */
static void run_and_lose(struct virtio_drv_queue *queue)
{
    negotiate();
    cr_assert_eq(set_up(queue, 1), 0);
    virtio_drv_ready(&drv);
    fe.region[0].cpu[fe.ring[1].at.device - fe.region[0].device + 2] = 5;
    backend_end();
    cr_assert_not(vhu_frontend_wait(&fe));
    cr_assert_eq(drv.transport->status_get(&drv), VIRTIO_STATUS_GONE);
}

Test(vhost_frontend_resumable, another_back_end_hears_what_the_first_one_heard)
{
    static const uint32_t all[] = {
        VHU_GET_FEATURES,  VHU_GET_PROTOCOL_FEATURES, VHU_SET_PROTOCOL_FEATURES,
        VHU_GET_QUEUE_NUM, VHU_SET_OWNER,             VHU_GET_CONFIG,
        VHU_SET_FEATURES,  VHU_SET_MEM_TABLE,         VHU_SET_INFLIGHT_FD,
        VHU_SET_VRING_NUM, VHU_SET_VRING_BASE,        VHU_SET_VRING_ADDR,
        VHU_SET_VRING_CALL, VHU_SET_VRING_KICK,       VHU_SET_VRING_ENABLE};
    struct pollfd kicked = {-1, POLLIN, 0};
    struct virtio_drv_queue queue;
    struct stat st;

    run_and_lose(&queue);
    backend.recorded = 0;
    cr_assert_eq(vhu_frontend_reconnect(&fe, -1), -1);
    cr_assert_eq(vhu_frontend_reconnect(&fe, backend_start()), 0);
    cr_assert_eq(backend.count, sizeof(all) / sizeof(all[0]));
    expect_heard(all, sizeof(all) / sizeof(all[0]));
    cr_assert_eq(backend.base[1], 5);
    cr_assert_eq(fstat(backend.record, &st), 0);
    cr_assert_eq(backend.recorded, st.st_ino);
    kicked.fd = backend.kick[1];
    cr_assert_eq(poll(&kicked, 1, 0), 1);
    cr_assert_null(vhu_frontend_error(&fe));
    cr_assert(drv.transport->status_get(&drv) & VIRTIO_STATUS_DRIVER_OK);
}

Test(vhost_frontend_resumable, another_device_is_not_gone_on_with)
{
    struct virtio_drv_queue queue;

    run_and_lose(&queue);
    backend.queues = 1;
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(vhu_frontend_reconnect(&fe, backend_start()), -1);
        cr_assert(strstr(vhu_frontend_error(&fe), "another device") != NULL);
        backend_end();
    }
    backend.queues = QUEUES;
    backend.lacks = UINT64_C(1) << VIRTIO_FEATURE_RING_RESET;
    cr_assert_eq(vhu_frontend_reconnect(&fe, backend_start()), -1);
    cr_assert(strstr(vhu_frontend_error(&fe), "another device") != NULL);
    backend_end();
    backend.lacks = 0;
    backend.refused = VHU_SET_INFLIGHT_FD;
    cr_assert_eq(vhu_frontend_reconnect(&fe, backend_start()), -1);
    cr_assert(strstr(vhu_frontend_error(&fe), "refuses the queues") != NULL);
    backend_end();
    backend.refused = 0;
    cr_assert_eq(vhu_frontend_reconnect(&fe, backend_start()), 0);
}

Test(vhost_frontend_resumable, one_record_serves_queues_of_one_size)
{
    struct virtio_queue_setup setup = {
        QUEUE_SIZE / 2, vhu_frontend_memory(&fe, 0, 4096, 4096), slots};
    struct virtio_drv_queue queue;

    negotiate();
    cr_assert_eq(set_up(&queue, 0), 0);
    cr_assert_eq(virtio_drv_queue_setup(&drv, &queue, 1, &setup), VIRTIO_ERR_QUEUE_REFUSED);
}

Test(vhost_frontend_resumable, a_record_without_memory_is_none)
{
    struct virtio_drv_queue queue;

    negotiate();
    (void)close(backend.record);
    backend.record = -1;
    cr_assert_eq(set_up(&queue, 0), VIRTIO_ERR_QUEUE_REFUSED);
}

Test(vhost_frontend, goes_on_with_no_other_back_end_without_a_record)
{
    struct virtio_drv_queue queue;

    run_and_lose(&queue);
    cr_assert_eq(vhu_frontend_reconnect(&fe, backend_start()), -1);
    cr_assert(strstr(vhu_frontend_error(&fe), "nobody recorded") != NULL);
}

Test(vhost_frontend_alone, what_does_not_fit_is_refused)
{
    const uint64_t lengths[VHU_FRONTEND_REGIONS + 1] = {4096, 4096, 4096, 4096, 4096};
    struct vhu_frontend_setup setup = plain_setup();
    int pair[2];

    cr_assert_eq(vhu_frontend_share(&fe, lengths, VHU_FRONTEND_REGIONS + 1), -1);
    memset(&fe, 0, sizeof(fe));
    setup.config_length = VHU_FRONTEND_CONFIG + 1;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    cr_assert_eq(vhu_frontend_open(&fe, pair[0], &setup), -1);
    cr_assert(strstr(vhu_frontend_error(&fe), "more queues or configuration") != NULL);
    vhu_frontend_close(&fe);
    (void)close(pair[1]);
}
