# SPDX-License-Identifier: MIT-0
# Debian's libgcc, for its 64-bit divisions, is position-independent and for a CPU with an FPU, which
# the linker would warn of: it makes stubs for the calls, and no floating point is passed.
CROSS_malta = mips-linux-gnu-
CPU_malta = -EB -mips32r2 -msoft-float -mno-abicalls -fno-pic -G 0 -Wl,--no-warn-mismatch
