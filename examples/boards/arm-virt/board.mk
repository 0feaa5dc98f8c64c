# SPDX-License-Identifier: MIT-0
# Without the MMU memory takes aligned accesses only.
CROSS_arm-virt = arm-none-eabi-
CPU_arm-virt = -mcpu=cortex-a15 -marm -mfloat-abi=soft -mno-unaligned-access
SOURCES_arm-virt = examples/boards/lib/arm_virt.c
