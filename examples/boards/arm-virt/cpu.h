// SPDX-License-Identifier: MIT-0
/* The CPU's part of the Arm boards: interrupts, generic timer, end; see ../lib/arm_virt.c. */
#ifndef EXAMPLES_BOARDS_CPU_H
#define EXAMPLES_BOARDS_CPU_H

#include <stdbool.h>
#include <stdint.h>

#define CPU_NAME "arm"

static inline bool cpu_irq_off(void)
{
    uint32_t masks;

    __asm__ volatile("mrs %0, cpsr\n\tcpsid i" : "=r"(masks)::"memory");
    return (masks & 1u << 7) == 0;
}
static inline void cpu_irq_on(void)
{
    __asm__ volatile("cpsie i" ::: "memory");
}
/* Sleeps until an interrupt is pending, whether they are on or off. */
static inline void cpu_sleep(void)
{
    __asm__ volatile("dsb\n\twfi" ::: "memory");
}

/* CNTVCT, 64 bits in two registers. */
static inline uint64_t cpu_counter(void)
{
    uint64_t value;

    __asm__ volatile("isb\n\tmrrc p15, 1, %Q0, %R0, c14" : "=r"(value)::"memory");
    return value;
}
/* CNTFRQ. */
static inline uint32_t cpu_counter_hertz(void)
{
    uint32_t value;

    __asm__ volatile("mrc p15, 0, %0, c14, c0, 0" : "=r"(value));
    return value;
}
/* The timer's interrupt after that many counts; 0: no interrupt. CNTV_TVAL and CNTV_CTL. */
static inline void cpu_timer(uint32_t counts)
{
    uint32_t enable = counts != 0;

    __asm__ volatile("mcr p15, 0, %0, c14, c3, 0\n\tmcr p15, 0, %1, c14, c3, 1\n\tisb"
                     :
                     : "r"(counts), "r"(enable)
                     : "memory");
}

/* Semihosting: SYS_EXIT_EXTENDED with a reason and a status. */
__attribute__((noreturn)) static inline void cpu_exit(int status)
{
    const uint32_t block[2] = {0x20026, (uint32_t)status};
    register uint32_t operation __asm__("r0") = 0x20;
    register const uint32_t *argument __asm__("r1") = block;

    __asm__ volatile("svc #0x123456" : "+r"(operation) : "r"(argument) : "lr", "memory");
    for (;;)
        cpu_sleep();
}

#endif
