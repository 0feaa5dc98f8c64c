# SPDX-License-Identifier: MIT-0
# A boot sector: copies sectors 1 to COUNT - 1 of the disk it was booted from to COUNT sectors further on,
# one by one, with the BIOS's int 13h; then says K on the serial port and ends the machine (isa-debug-exit).
.code16
.globl _start
.set BASE, 0x7c00
.set COUNT, 8192
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $BASE, %sp
    movb %dl, drive + BASE
    movw $1, %cx
next:
    movw %cx, lba + BASE
    movb $0x42, %ah             # extended read
    call disk
    addw $COUNT, lba + BASE
    movb $0x43, %ah             # extended write
    call disk
    incw %cx
    cmpw $COUNT, %cx
    jb next
    movw $0x3f8, %dx
    movb $'K', %al
    outb %al, %dx
    movw $0x501, %dx
    xorb %al, %al
    outb %al, %dx
stop:
    hlt
    jmp stop
disk:
    pushw %cx
    xorb %al, %al
    movb drive + BASE, %dl
    movw $packet + BASE, %si
    int $0x13
    jc stop
    popw %cx
    ret
drive:
    .byte 0
packet:
    .byte 16, 0
    .word 1, 0x1000, 0          # one sector, to 0:1000
lba:
    .quad 0
    .org 510
    .word 0xaa55
