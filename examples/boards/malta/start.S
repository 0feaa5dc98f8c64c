// SPDX-License-Identifier: MIT-0
// From reset to board_main(), and from an interrupt to board_interrupt(). QEMU's malta has set the PCI
// bridge up as its firmware would, and comes here in kernel mode with interrupts off.

    .set noreorder
    .set noat
    .section .text.vectors, "ax"
// EBase points here: TLB refill at 0, cache error at 0x100, all other exceptions at 0x180. An interrupt
// has 0 in bits 6:2 of Cause.
vectors:
    b fault
    nop
    .org 0x100
    b fault
    nop
    .org 0x180
    mfc0 $k0, $13
    andi $k0, $k0, 0x7c
    bnez $k0, fault
    nop

// One that came in board_sleep() ends it, even before its `wait`.
    mfc0 $k0, $14 // EPC
    la $k1, board_sleep
    subu $k0, $k0, $k1
    sltiu $k0, $k0, sleep_end - board_sleep
    beqz $k0, interrupt
    nop
    la $k0, sleep_end
    mtc0 $k0, $14
    ehb

// What a C function may change, above the room for its a0 to a3. Interrupts stay off until eret, so
// that EPC keeps.
interrupt:
    addiu $sp, $sp, -96
    sw $at, 16($sp)
    sw $v0, 20($sp)
    sw $v1, 24($sp)
    sw $a0, 28($sp)
    sw $a1, 32($sp)
    sw $a2, 36($sp)
    sw $a3, 40($sp)
    sw $t0, 44($sp)
    sw $t1, 48($sp)
    sw $t2, 52($sp)
    sw $t3, 56($sp)
    sw $t4, 60($sp)
    sw $t5, 64($sp)
    sw $t6, 68($sp)
    sw $t7, 72($sp)
    sw $t8, 76($sp)
    sw $t9, 80($sp)
    sw $ra, 84($sp)
    mfhi $t0
    mflo $t1
    sw $t0, 88($sp)
    jal board_interrupt
    sw $t1, 92($sp)
    lw $t0, 88($sp)
    lw $t1, 92($sp)
    mthi $t0
    mtlo $t1
    lw $at, 16($sp)
    lw $v0, 20($sp)
    lw $v1, 24($sp)
    lw $a0, 28($sp)
    lw $a1, 32($sp)
    lw $a2, 36($sp)
    lw $a3, 40($sp)
    lw $t0, 44($sp)
    lw $t1, 48($sp)
    lw $t2, 52($sp)
    lw $t3, 56($sp)
    lw $t4, 60($sp)
    lw $t5, 64($sp)
    lw $t6, 68($sp)
    lw $t7, 72($sp)
    lw $t8, 76($sp)
    lw $t9, 80($sp)
    lw $ra, 84($sp)
    addiu $sp, $sp, 96
    eret

// Interrupts on, and sleeps until the next.
    .global board_sleep
board_sleep:
    ei
    ehb
    wait
sleep_end:
    jr $ra
    nop

// board_fault(name, cause, address): 64-bit arguments in a2 and a3, and on the stack above the room
// for a0 to a3; the upper half comes first.
fault:
    la $sp, stack_end - 32
    la $a0, fault_name
    move $a2, $zero
    mfc0 $a3, $13 // Cause
    mfc0 $t0, $14 // EPC
    sw $zero, 16($sp)
    j board_fault
    sw $t0, 20($sp)
fault_name:
    .asciz "CPU exception"

    .balign 4
    .global start
start:
    la $t0, vectors
    mtc0 $t0, $15, 1 // EBase, while exceptions still go to the boot vectors
    mtc0 $zero, $12  // Status: interrupts off, exceptions to ours
    ehb
    la $sp, stack_end - 32
    la $t0, bss_start
    la $t1, bss_end
1:  beq $t0, $t1, 2f
    nop
    sw $zero, 0($t0)
    b 1b
    addiu $t0, $t0, 4
2:  j board_main
    nop
