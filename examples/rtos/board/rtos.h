// SPDX-License-Identifier: MIT-0
/* The RTOS of the bare-metal boards: one task, which sleeps with the CPU. What the port asks for is
 * listed in ../rtos_blk.h. */
#ifndef EXAMPLES_RTOS_BOARD_RTOS_H
#define EXAMPLES_RTOS_BOARD_RTOS_H

#include <stdbool.h>
#include <stdint.h>

/* Of examples/boards/board.h, which includes the library and thereby this file. */
bool board_irq_off(void);
void board_irq_on(void);
void board_idle(void);
uint64_t board_device_address(const void *memory);
uint64_t board_micros(void);
__attribute__((noreturn)) void board_fault(const char *what, uint64_t cause, uint64_t address);

enum { RTOS_CACHE_LINE = 64 };

__attribute__((noreturn)) static inline void rtos_panic(const char *what)
{
    board_fault(what, 0, (uintptr_t)__builtin_return_address(0));
}

static inline void rtos_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* One CPU: whoever has interrupts off is alone. */
static inline unsigned rtos_irq_lock(void)
{
    return board_irq_off();
}
static inline void rtos_irq_unlock(unsigned were_on)
{
    if (were_on)
        board_irq_on();
}

struct rtos_sem {
    volatile unsigned count;
};

static inline void rtos_sem_init(struct rtos_sem *sem, unsigned count)
{
    sem->count = count;
}
static inline void rtos_sem_give(struct rtos_sem *sem)
{
    unsigned key = rtos_irq_lock();

    sem->count++;
    rtos_irq_unlock(key);
}
static inline bool rtos_sem_take(struct rtos_sem *sem, unsigned milliseconds)
{
    const uint64_t end = board_micros() + milliseconds * UINT64_C(1000);
    unsigned key = rtos_irq_lock();
    bool taken;

    while (sem->count == 0 && board_micros() < end)
        board_idle();
    taken = sem->count != 0;
    if (taken)
        sem->count--;
    rtos_irq_unlock(key);
    return taken;
}

static inline uint64_t rtos_dma_address(const void *memory)
{
    return board_device_address(memory);
}
/* The devices of an emulator see what is in the caches. On a machine where they do not, the next two are
 * loops over lines: `dc cvac` and `dc ivac` on Arm. */
static inline void rtos_cache_clean(const void *memory, uint32_t length)
{
    (void)memory;
    (void)length;
}
static inline void rtos_cache_invalidate(void *memory, uint32_t length)
{
    (void)memory;
    (void)length;
}

#endif
