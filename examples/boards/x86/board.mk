# SPDX-License-Identifier: MIT-0
# One image for three machines. An interrupt may use the stack below the stack pointer, and saves no
# FP or SIMD registers.
CROSS_x86 = x86_64-linux-gnu-
CPU_x86 = -mno-red-zone -mgeneral-regs-only
BOARD_FOLDER_q35 = x86
BOARD_FOLDER_pc = x86
BOARD_FOLDER_microvm = x86
