// SPDX-License-Identifier: MIT-0
/* The CPU's part of the Arm boards: interrupts, generic timer, end; see ../lib/arm_virt.c. */
#ifndef EXAMPLES_BOARDS_CPU_H
#define EXAMPLES_BOARDS_CPU_H

#include <stdbool.h>
#include <stdint.h>

#define CPU_NAME "aarch64"

static inline bool cpu_irq_off(void)
{
    uint64_t masks;

    __asm__ volatile("mrs %0, daif\n\tmsr daifset, #2" : "=r"(masks)::"memory");
    return (masks & 1 << 7) == 0;
}
static inline void cpu_irq_on(void)
{
    __asm__ volatile("msr daifclr, #2" ::: "memory");
}
/* Sleeps until an interrupt is pending, whether they are on or off. */
static inline void cpu_sleep(void)
{
    __asm__ volatile("dsb sy\n\twfi" ::: "memory");
}

static inline uint64_t cpu_counter(void)
{
    uint64_t value;

    __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(value)::"memory");
    return value;
}
static inline uint32_t cpu_counter_hertz(void)
{
    uint64_t value;

    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(value));
    return (uint32_t)value;
}
/* The timer's interrupt after that many counts; 0: no interrupt. */
static inline void cpu_timer(uint32_t counts)
{
    uint64_t enable = counts != 0;

    __asm__ volatile("msr cntv_tval_el0, %0\n\tmsr cntv_ctl_el0, %1\n\tisb"
                     :
                     : "r"((uint64_t)counts), "r"(enable)
                     : "memory");
}

/* Semihosting: SYS_EXIT_EXTENDED with a reason and a status. */
__attribute__((noreturn)) static inline void cpu_exit(int status)
{
    const uint64_t block[2] = {0x20026, (uint64_t)status};
    register uint64_t operation __asm__("x0") = 0x20;
    register const uint64_t *argument __asm__("x1") = block;

    __asm__ volatile("hlt #0xf000" : "+r"(operation) : "r"(argument) : "memory");
    for (;;)
        cpu_sleep();
}

#endif
