// SPDX-License-Identifier: MIT-0
// From the PVH entry point to board_main() in long mode, and from an interrupt to
// board_interrupt(). QEMU starts an ELF image with the note below on pc, q35 and microvm alike.

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18 // bytes of the name, of the value; XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad start

PAGE = 0x83 // present, writable, of 2 MiB
PAGE_UNCACHED = 0x18
TABLE = 0x03 // present, writable
EFER = 0xc0000080
EFER_LONG_MODE = 0x100
CR0_PAGING = 0x80000000
CR4_PHYSICAL_ADDRESS_EXTENSION = 0x20

    .bss
    .balign 4096
directories: // one for each GiB
    .skip 4 * 4096
pointers:
    .skip 4096
root:
    .skip 4096

    .section .rodata
    .balign 8
segments:
    .quad 0
    .quad 0x00af9b000000ffff // code, 64 bits
    .quad 0x00cf93000000ffff // data
segments_end:
segments_pointer:
    .word segments_end - segments - 1
    .long segments
CODE_SEGMENT = 0x08
DATA_SEGMENT = 0x10

// 32-bit protected mode with flat segments, without paging; interrupts are off.
    .section .text.start, "ax"
    .code32
    .global start
start:
    cld
    movl $bss_start, %edi
    movl $bss_end, %ecx
    subl %edi, %ecx
    shrl $2, %ecx
    xorl %eax, %eax
    rep stosl

// Each address of the first 4 GiB is what it was; from 2 GiB on, where RAM has ended, are devices.
    movl $directories, %edi
    movl $PAGE, %eax
1:  movl %eax, (%edi)
    testl %eax, %eax
    jns 2f
    orl $PAGE_UNCACHED, (%edi)
2:  addl $8, %edi
    addl $0x200000, %eax
    jnc 1b
    movl $directories + TABLE, pointers
    movl $directories + 0x1000 + TABLE, pointers + 8
    movl $directories + 0x2000 + TABLE, pointers + 16
    movl $directories + 0x3000 + TABLE, pointers + 24
    movl $pointers + TABLE, root

    movl $root, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $CR4_PHYSICAL_ADDRESS_EXTENSION, %eax
    movl %eax, %cr4
    movl $EFER, %ecx
    rdmsr
    orl $EFER_LONG_MODE, %eax
    wrmsr
    movl %cr0, %eax
    orl $CR0_PAGING, %eax
    movl %eax, %cr0
    lgdt segments_pointer
    ljmp $CODE_SEGMENT, $long_mode

    .code64
long_mode:
    movl $DATA_SEGMENT, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movl $stack_end, %esp
    call board_main

// One entry of 16 bytes for each vector. The CPU pushes an error code for some exceptions; for all
// other vectors the entry does.
WITH_ERROR_CODE = 0x60227d00
    .global interrupt_entries
    .balign 16
interrupt_entries:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector >= 32 || !(WITH_ERROR_CODE >> (vector & 31) & 1)
    pushq $0
    .endif
    pushq $vector
    jmp interrupt
    .set vector, vector + 1
    .endr

// What a C function may change; the code uses no FP or SIMD registers. The CPU aligns the stack
// before it pushes five words; with vector, error code and these it is aligned again.
interrupt:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    cld
    movq 72(%rsp), %rdi // vector
    movq 88(%rsp), %rsi // where it came
    call board_interrupt
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

    .section .note.GNU-stack, "", @progbits
