// SPDX-License-Identifier: MIT-0
// From reset to board_main(), and from an interrupt to board_interrupt(). QEMU's virt starts an ELF
// image in SVC mode with the MMU off. All runs in that mode, on its one stack.

    .arm
    .section .text.start, "ax"
    .global start
start:
    ldr r0, =vectors
    mcr p15, 0, r0, c12, c0, 0 // VBAR
    isb
    ldr sp, =stack_end
    ldr r0, =bss_start
    ldr r1, =bss_end
    mov r2, #0
1:  cmp r0, r1
    strlo r2, [r0], #4
    blo 1b
    b board_main
    .ltorg

// What a C function may change: r0 to r3, r12 and lr. The stack may have been off its 8 bytes.
interrupt:
    sub lr, lr, #4
    srsdb sp!, #0x13
    cps #0x13
    push {r0-r3, r12, lr}
    and r1, sp, #4
    sub sp, sp, r1
    push {r1, r2}
    bl board_interrupt
    pop {r1, r2}
    add sp, sp, r1
    pop {r0-r3, r12, lr}
    rfeia sp!

// board_fault(name, cause, address): 64-bit arguments start in an even register, or on the stack.
// The cause is the mode that the exception led to; the address is up to 8 bytes past the instruction.
fault:
    mov r4, lr
    mrs r2, cpsr
    cps #0x13
    ldr sp, =stack_end
    ldr r0, =fault_name
    and r2, r2, #0x1f
    mov r3, #0
    mov r5, #0
    push {r4, r5}
    b board_fault
fault_name:
    .asciz "CPU exception"

    .balign 32
vectors:
    b start
    .rept 5 // undefined instruction, SVC, prefetch and data abort, reserved
    b fault
    .endr
    b interrupt
    b fault
