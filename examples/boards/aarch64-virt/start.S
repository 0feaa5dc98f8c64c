// SPDX-License-Identifier: MIT-0
// From reset to board_main(), and from an interrupt to board_interrupt(). QEMU's virt starts an ELF
// image at EL1 with the MMU off.

    .section .text.start, "ax"
    .global start
start:
    adrp x0, vectors
    add x0, x0, :lo12:vectors
    msr vbar_el1, x0
    isb
    adrp x0, stack_end
    add x0, x0, :lo12:stack_end
    mov sp, x0
    adrp x0, bss_start
    add x0, x0, :lo12:bss_start
    adrp x1, bss_end
    add x1, x1, :lo12:bss_end
1:  cmp x0, x1
    b.hs 2f
    stp xzr, xzr, [x0], #16
    b 1b
2:  b board_main

// What a C function may change: x0 to x18 and x30. The code uses no FP or SIMD registers.
interrupt:
    stp x0, x1, [sp, #-176]!
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x30, [sp, #144]
    mrs x0, elr_el1
    mrs x1, spsr_el1
    stp x0, x1, [sp, #160]
    bl board_interrupt
    ldp x0, x1, [sp, #160]
    msr elr_el1, x0
    msr spsr_el1, x1
    ldp x18, x30, [sp, #144]
    ldp x16, x17, [sp, #128]
    ldp x14, x15, [sp, #112]
    ldp x12, x13, [sp, #96]
    ldp x10, x11, [sp, #80]
    ldp x8, x9, [sp, #64]
    ldp x6, x7, [sp, #48]
    ldp x4, x5, [sp, #32]
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp], #176
    eret

fault:
    adrp x0, fault_name
    add x0, x0, :lo12:fault_name
    mrs x1, esr_el1
    mrs x2, elr_el1
    b board_fault
fault_name:
    .asciz "CPU exception"

    // Four entries for each of four origins; ours is the second, the current EL with its own stack.
    .balign 2048
vectors:
    .rept 5
    b fault
    .balign 128
    .endr
    b interrupt
    .balign 128
    .rept 10
    b fault
    .balign 128
    .endr
