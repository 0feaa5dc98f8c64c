# SPDX-License-Identifier: MIT-0
# Without the MMU memory takes aligned accesses only.
CROSS_aarch64-virt = aarch64-linux-gnu-
CPU_aarch64-virt = -mgeneral-regs-only -mstrict-align -mno-outline-atomics
SOURCES_aarch64-virt = examples/boards/lib/arm_virt.c
