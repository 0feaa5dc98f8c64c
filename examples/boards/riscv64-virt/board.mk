# SPDX-License-Identifier: MIT-0
# The image lies 2 GiB up, further than absolute addresses of the small code model reach.
CROSS_riscv64-virt = riscv64-unknown-elf-
CPU_riscv64-virt = -march=rv64imac_zicsr -mabi=lp64 -mcmodel=medany
