// SPDX-License-Identifier: MIT-0
/* An RTOS of threads on a machine whose devices do not see the CPU's cache, for rtos_test.c. What the port
 * asks for is listed in examples/rtos/rtos_blk.h. */
#ifndef TESTS_SUPPORT_RTOS_H
#define TESTS_SUPPORT_RTOS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    RTOS_CACHE_LINE = 64,
    MACHINE_MEMORY = 1 << 20,
    MACHINE_BASE = 0x40000000, /* what the device calls the first byte */
    MACHINE_HURRY = 10 /* time limits are so much shorter here */
};

/* Each byte twice. A device sees `ram`; a program sees `ram` through an uncached mapping, else `cached`. */
struct machine_memory {
    pthread_mutex_t lock;
    uint8_t ram[MACHINE_MEMORY] __attribute__((aligned(4096)));
    uint8_t cached[MACHINE_MEMORY] __attribute__((aligned(4096)));
    bool dirty[MACHINE_MEMORY / RTOS_CACHE_LINE];
};
extern struct machine_memory machine_memory;

/* Calls `line` for each cache line of `memory`, which is cached; the lock is held. */
static inline void machine_each_line(const void *memory, uint32_t length, void (*line)(size_t at))
{
    size_t at = (size_t)((const uint8_t *)memory - machine_memory.cached);

    pthread_mutex_lock(&machine_memory.lock);
    for (size_t i = at / RTOS_CACHE_LINE; i < (at + length) / RTOS_CACHE_LINE; i++)
        line(i);
    pthread_mutex_unlock(&machine_memory.lock);
}
static inline void machine_write_back(size_t line)
{
    size_t at = line * RTOS_CACHE_LINE;

    if (machine_memory.dirty[line])
        memcpy(machine_memory.ram + at, machine_memory.cached + at, RTOS_CACHE_LINE);
    machine_memory.dirty[line] = false;
}
static inline void machine_fetch(size_t line)
{
    size_t at = line * RTOS_CACHE_LINE;

    memcpy(machine_memory.cached + at, machine_memory.ram + at, RTOS_CACHE_LINE);
    machine_memory.dirty[line] = false;
}

static inline uint64_t rtos_dma_address(const void *memory)
{
    const uint8_t *p = (const uint8_t *)memory;
    bool cached = p >= machine_memory.cached && p < machine_memory.cached + MACHINE_MEMORY;

    return MACHINE_BASE + (uint64_t)(p - (cached ? machine_memory.cached : machine_memory.ram));
}
static inline void rtos_cache_clean(const void *memory, uint32_t length)
{
    machine_each_line(memory, length, machine_write_back);
}
static inline void rtos_cache_invalidate(void *memory, uint32_t length)
{
    machine_each_line(memory, length, machine_fetch);
}

__attribute__((noreturn)) static inline void rtos_panic(const char *what)
{
    fprintf(stderr, "panic: %s\n", what);
    abort();
}
static inline void rtos_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Interrupts come in a thread of their own. */
extern pthread_mutex_t rtos_interrupts;

static inline unsigned rtos_irq_lock(void)
{
    pthread_mutex_lock(&rtos_interrupts);
    return 0;
}
static inline void rtos_irq_unlock(unsigned key)
{
    (void)key;
    pthread_mutex_unlock(&rtos_interrupts);
}

struct rtos_sem {
    pthread_mutex_t lock;
    pthread_cond_t given;
    unsigned count;
};

static inline void rtos_sem_init(struct rtos_sem *sem, unsigned count)
{
    pthread_mutex_init(&sem->lock, NULL);
    pthread_cond_init(&sem->given, NULL);
    sem->count = count;
}
static inline void rtos_sem_give(struct rtos_sem *sem)
{
    pthread_mutex_lock(&sem->lock);
    sem->count++;
    pthread_cond_signal(&sem->given);
    pthread_mutex_unlock(&sem->lock);
}
static inline bool rtos_sem_take(struct rtos_sem *sem, unsigned milliseconds)
{
    struct timespec end;
    int err = 0;
    bool taken;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += milliseconds / MACHINE_HURRY / 1000;
    end.tv_nsec += (long)(milliseconds / MACHINE_HURRY % 1000) * 1000000;
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    pthread_mutex_lock(&sem->lock);
    while (sem->count == 0 && err == 0)
        err = pthread_cond_timedwait(&sem->given, &sem->lock, &end);
    taken = sem->count != 0;
    if (taken)
        sem->count--;
    pthread_mutex_unlock(&sem->lock);
    return taken;
}

#endif
