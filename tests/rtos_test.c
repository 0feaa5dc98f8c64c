// SPDX-License-Identifier: MIT-0
/* The block driver under an RTOS (examples/rtos), on a machine of threads: several tasks on one disk,
 * interrupts in a thread of their own, a device that works at the same time as they do and does not see
 * the CPU's cache. A cache line that is dirty when it should not be is written back at the worst moment:
 * right after the device has put its data there. */
#define _POSIX_C_SOURCE 200809L
#include <criterion/criterion.h>

#include "examples/device/blk.h"
#include "examples/device/function.h"
#include "examples/rtos/rtos_blk.h"

enum {
    TASKS = 4,
    ROUNDS = 150,
    REGION = 64, /* sectors of each task */
    SECTORS = TASKS * REGION,
    MOST = 8 * BLK_SECTOR_SIZE, /* bytes of one request */
    DATA_AT = MACHINE_MEMORY / 2
};

struct task {
    pthread_t thread;
    unsigned index;
    uint32_t random;
    int err;   /* of the last request */
    int wrong; /* line of the first check that failed */
    uint8_t expected[REGION * BLK_SECTOR_SIZE];
};
static struct task tasks[TASKS];

struct machine_memory machine_memory = {.lock = PTHREAD_MUTEX_INITIALIZER};
pthread_mutex_t rtos_interrupts = PTHREAD_MUTEX_INITIALIZER;

/* What the device does instead of its work. */
enum fault { WELL, MUTE, BAD_RING, FAILS };

/* The device and who waits for it; its state is under its lock. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t kicked;
    pthread_t thread;
    bool work, stop, line;
    enum fault fault;
    struct function function;
    struct blkdev disk;
    uint8_t medium[SECTORS * BLK_SECTOR_SIZE];
} device = {.lock = PTHREAD_MUTEX_INITIALIZER, .kicked = PTHREAD_COND_INITIALIZER};

static struct virtio_drv drv;
static struct rtos_blk disk;

/* ---------------------------------------------------------------------------
 * The machine
 * --------------------------------------------------------------------------- */
static void *ram_at(void *ctx, uint64_t addr, uint32_t len)
{
    (void)ctx;
    if (addr < MACHINE_BASE || addr - MACHINE_BASE > MACHINE_MEMORY ||
        len > MACHINE_MEMORY - (addr - MACHINE_BASE))
        return NULL;
    return machine_memory.ram + (addr - MACHINE_BASE);
}

static void kicked(void *ctx, uint16_t queue)
{
    (void)ctx;
    (void)queue;
    device.work = true;
    pthread_cond_signal(&device.kicked);
}

static void line_changed(void *ctx, bool level)
{
    (void)ctx;
    device.line = level;
}

/* The driver's registers are reached by tasks and by the interrupt. */
static uint32_t locked_read(void *ctx, uintptr_t address, unsigned width)
{
    const struct virtio_window *window = (const struct virtio_window *)ctx;
    uint32_t value;

    pthread_mutex_lock(&device.lock);
    value = window->ops->read(window->ctx, address, width);
    pthread_mutex_unlock(&device.lock);
    return value;
}
static void locked_write(void *ctx, uintptr_t address, unsigned width, uint32_t value)
{
    const struct virtio_window *window = (const struct virtio_window *)ctx;

    pthread_mutex_lock(&device.lock);
    window->ops->write(window->ctx, address, width, value);
    pthread_mutex_unlock(&device.lock);
}

/* Lines that should have been clean go out now, over whatever the device wrote. */
static void evict(void)
{
    rtos_cache_clean(machine_memory.cached, MACHINE_MEMORY);
}

static void interrupt(void)
{
    uint32_t causes = virtio_drv_irq_status(&drv);

    virtio_drv_irq_ack(&drv, causes);
    rtos_blk_interrupt(&disk, causes);
}

/* With the device's lock. */
static void serve(void)
{
    struct virtq_device *ring = virtio_dev_ring(&device.function.dev, 0);
    bool irq = false;
    int rc;

    if (device.fault == FAILS)
        virtio_dev_needs_reset(&device.function.dev);
    if (device.fault != WELL && device.fault != BAD_RING)
        return;
    rc = blkdev_serve(&device.disk, ring, &irq);
    cr_assert_geq(rc, 0);
    device.work = rc > 0;
    if (device.fault == BAD_RING) /* far more used than was ever made available */
        __atomic_store_n((uint16_t *)ram_at(NULL, device.function.queue[0].reg.address[2] + 2, 2), 0x7777,
                         __ATOMIC_RELEASE);
    if (irq || device.fault == BAD_RING)
        virtio_dev_interrupt(&device.function.dev, 0);
}

static void *device_thread(void *nothing)
{
    pthread_mutex_lock(&device.lock);
    while (!device.stop) {
        bool line;

        while (!device.work && !device.stop)
            pthread_cond_wait(&device.kicked, &device.lock);
        device.work = false;
        if (device.stop)
            break;
        serve();
        line = device.line;
        pthread_mutex_unlock(&device.lock);
        evict();
        if (line)
            interrupt();
        pthread_mutex_lock(&device.lock);
    }
    pthread_mutex_unlock(&device.lock);
    return nothing;
}

static void power_on(uint16_t entries, bool indirect)
{
    static const struct virtio_dev_ops ops = {.map = ram_at, .kick = kicked, .line = line_changed};
    struct virtio_dev *dev = &device.function.dev;

    memset(&device.function, 0, sizeof(device.function));
    memset(&device.disk, 0, sizeof(device.disk));
    memset(&machine_memory.dirty, 0, sizeof(machine_memory.dirty));
    memset(device.medium, 0, sizeof(device.medium));
    memset(tasks, 0, sizeof(tasks));
    device.work = device.stop = device.line = false;
    device.fault = WELL;
    device.disk.data = device.medium;
    device.disk.size = sizeof(device.medium);
    device.disk.map = ram_at;
    device.function.view = FUNCTION_MMIO;
    device.function.queue[0].max = entries;
    dev->ops = &ops;
    dev->device_type = BLK_DEVICE_TYPE;
    dev->queue_count = 1;
    dev->config_length = BLKDEV_CONFIG_SIZE;
    virtio_features_add(&dev->offered, BLKDEV_FEATURE_FLUSH);
    virtio_features_add(&dev->offered, VIRTIO_FEATURE_EVENT_IDX);
    if (indirect)
        virtio_features_add(&dev->offered, VIRTIO_FEATURE_INDIRECT_DESC);
    blkdev_config(&device.disk, device.function.config);
    cr_assert_eq(function_init(&device.function), 0);
}

/* Starts the disk, rings and headers in uncached memory. */
static int try_start(uint16_t entries, bool indirect)
{
    static const struct virtio_window_ops ops = {locked_read, locked_write};
    static struct virtio_window inner;
    struct virtio_window outer;
    struct virtio_dma memory = {machine_memory.ram, MACHINE_BASE, DATA_AT};

    power_on(entries, indirect);
    inner = function_window(&device.function, 0);
    outer = inner;
    outer.ops = &ops;
    outer.ctx = &inner;
    cr_assert_eq(pthread_create(&device.thread, NULL, device_thread, NULL), 0);
    cr_assert_eq(virtio_drv_mmio(&drv, &outer), 0);
    return rtos_blk_start(&disk, &drv, memory, 0);
}

static void start(uint16_t entries, bool indirect)
{
    cr_assert_eq(try_start(entries, indirect), 0);
}

static void stop(void)
{
    pthread_mutex_lock(&device.lock);
    device.stop = true;
    pthread_cond_signal(&device.kicked);
    pthread_mutex_unlock(&device.lock);
    pthread_join(device.thread, NULL);
}

static void set_fault(enum fault fault)
{
    pthread_mutex_lock(&device.lock);
    device.fault = fault;
    pthread_mutex_unlock(&device.lock);
}

/* ---------------------------------------------------------------------------
 * Tasks
 * --------------------------------------------------------------------------- */
static uint32_t next(struct task *task, uint32_t limit)
{
    task->random = task->random * 1664525u + 1013904223u;
    return (task->random >> 16) % limit;
}

/* The task's own buffer, in cached memory. */
static uint8_t *buffer_of(const struct task *task)
{
    return machine_memory.cached + DATA_AT + task->index * MOST;
}

/* The CPU writes: the lines are dirty from then on. */
static void fill(struct task *task, uint32_t length)
{
    uint8_t *buffer = buffer_of(task);
    size_t line = (size_t)(buffer - machine_memory.cached) / RTOS_CACHE_LINE;

    pthread_mutex_lock(&machine_memory.lock);
    for (uint32_t i = 0; i < length; i++)
        buffer[i] = (uint8_t)next(task, 256);
    memset(machine_memory.dirty + line, true, length / RTOS_CACHE_LINE);
    pthread_mutex_unlock(&machine_memory.lock);
}

static void write_some(struct task *task, uint32_t at, uint32_t length)
{
    fill(task, length);
    memcpy(task->expected + at, buffer_of(task), length);
    task->err = rtos_blk_write(&disk, task->index * REGION + at / BLK_SECTOR_SIZE, buffer_of(task),
                               length);
}

static void read_some(struct task *task, uint32_t at, uint32_t length)
{
    fill(task, length); /* something else, and dirty */
    task->err = rtos_blk_read(&disk, task->index * REGION + at / BLK_SECTOR_SIZE, buffer_of(task),
                              length);
    if (task->err == 0 && memcmp(buffer_of(task), task->expected + at, length) != 0)
        task->wrong = __LINE__;
}

static void *task_main(void *argument)
{
    struct task *task = (struct task *)argument;

    for (unsigned i = 0; i < ROUNDS && task->err == 0 && task->wrong == 0; i++) {
        uint32_t length = (1 + next(task, 8)) * BLK_SECTOR_SIZE;
        uint32_t at = next(task, REGION - 7) * BLK_SECTOR_SIZE;

        if (next(task, 2) != 0)
            write_some(task, at, length);
        else
            read_some(task, at, length);
    }
    if (task->err == 0)
        task->err = rtos_blk_flush(&disk);
    return NULL;
}

static void run_tasks(void)
{
    for (unsigned i = 0; i < TASKS; i++) {
        tasks[i].index = i;
        tasks[i].random = i + 1;
        cr_assert_eq(pthread_create(&tasks[i].thread, NULL, task_main, &tasks[i]), 0);
    }
    for (unsigned i = 0; i < TASKS; i++)
        pthread_join(tasks[i].thread, NULL);
}

/* ---------------------------------------------------------------------------
 * Tests
 * --------------------------------------------------------------------------- */
static void all_well(uint16_t entries, bool indirect)
{
    start(entries, indirect);
    run_tasks();
    for (unsigned i = 0; i < TASKS; i++) {
        cr_assert_eq(tasks[i].err, 0, "task %u: %s", i, rtos_blk_err_name(tasks[i].err));
        cr_assert_eq(tasks[i].wrong, 0, "task %u, line %d", i, tasks[i].wrong);
        cr_assert_eq(memcmp(device.medium + i * sizeof(tasks[i].expected), tasks[i].expected,
                            sizeof(tasks[i].expected)),
                     0, "the medium of task %u", i);
    }
    cr_assert_eq(device.disk.refused, 0);
    cr_assert_geq(device.disk.served, TASKS * ROUNDS);
    stop();
}

Test(rtos, tasks_share_a_disk)
{
    all_well(64, true);
}
Test(rtos, tasks_share_a_queue_that_holds_two_requests)
{
    all_well(8, false);
}
Test(rtos, tasks_share_a_queue_that_holds_one_request)
{
    all_well(4, false);
}
Test(rtos, a_queue_that_holds_no_request_is_refused)
{
    cr_assert_eq(try_start(2, true), RTOS_BLK_ERR_QUEUE);
    cr_assert_eq(drv.transport->status_get(&drv), 0, "reset");
    stop();
}

/* All tasks end with this error, and so does who comes later. */
static void all_fail(enum fault fault, int error)
{
    start(16, true);
    set_fault(fault);
    run_tasks();
    for (unsigned i = 0; i < TASKS; i++)
        cr_assert_eq(tasks[i].err, error, "task %u: %s", i, rtos_blk_err_name(tasks[i].err));
    set_fault(WELL);
    cr_assert_eq(rtos_blk_read(&disk, 0, buffer_of(&tasks[0]), BLK_SECTOR_SIZE), error);
    stop();
}

Test(rtos, a_device_without_an_answer_is_given_up)
{
    all_fail(MUTE, BLK_ERR_TIMEOUT);
}
Test(rtos, a_broken_queue_wakes_everybody)
{
    all_fail(BAD_RING, VIRTQ_ERR_USED_IDX);
}
Test(rtos, a_device_that_needs_a_reset_wakes_everybody)
{
    all_fail(FAILS, BLK_ERR_DEVICE);
}

Test(rtos, a_buffer_has_cache_lines_of_its_own)
{
    start(16, true);
    cr_assert_eq(rtos_blk_read(&disk, 0, buffer_of(&tasks[0]) + 8, BLK_SECTOR_SIZE),
                 RTOS_BLK_ERR_BUFFER);
    cr_assert_eq(rtos_blk_write(&disk, 0, buffer_of(&tasks[0]), 100), RTOS_BLK_ERR_BUFFER);
    cr_assert_eq(rtos_blk_read(&disk, SECTORS, buffer_of(&tasks[0]), BLK_SECTOR_SIZE), BLK_ERR_RANGE);
    cr_assert_eq(rtos_blk_read(&disk, 0, buffer_of(&tasks[0]), BLK_SECTOR_SIZE), 0);
    cr_assert_eq(device.disk.served, 1);
    stop();
}
