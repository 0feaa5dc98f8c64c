# SPDX-License-Identifier: MIT-0
# Images of the bare-metal programs: build/boards/FOLDER/PROGRAM.elf. A folder's board.mk names its
# compiler (CROSS_), what its CPU wants (CPU_), and sources beside start.S and *.c of its own (SOURCES_).
BOARD ?= aarch64-virt
DEVICE ?= blk
BOARD_FOLDERS = aarch64-virt arm-virt riscv64-virt malta x86
include $(BOARD_FOLDERS:%=examples/boards/%/board.mk)

BOARD_LIB = examples/boards/lib
BOARD_COMMON = $(addprefix $(BOARD_LIB)/,main.c device.c print.c string.c) examples/hosts/virtio_names.c
BOARD_HEADERS = $(ALL_HEADERS) $(wildcard examples/boards/*.h examples/boards/*/*.h \
    $(BOARD_LIB)/include/*.h examples/boards/programs/*/*.[ch] examples/rtos/*.[ch] examples/rtos/board/*.h)

# What a program needs beside the driver of its name.
PROGRAM_SOURCES_net = examples/boards/programs/net/stack.c
PROGRAM_SOURCES_rtos = examples/rtos/rtos_blk.c examples/driver/blk.c
PROGRAM_FLAGS_rtos = -Iexamples/rtos/board '-DVIRTIO_CONFIG_FILE="examples/rtos/virtio_port.h"'
PROGRAM_SOURCES_mmio = examples/driver/blk.c
PROGRAM_FLAGS_mmio = -DVIRTIO_WINDOW_ALWAYS=VIRTIO_WINDOW_MMIO '-DVIRTIO_TRANSPORT_ALWAYS=virtio_transport_mmio()'
PROGRAM_SOURCES_unplug = examples/driver/blk.c
PROGRAM_SOURCES_bench = examples/driver/blk.c

# Freestanding: of the compiler's own headers and those of lib/include, with no library but libgcc.
BOARD_FLAGS = -std=c11 -O2 -g $(WARN) -I. -ffreestanding -nostdinc -isystem $(BOARD_LIB)/include \
    -fno-tree-loop-distribute-patterns -fno-stack-protector -fno-pie -no-pie -static -nostdlib \
    -Wl,--build-id=none,--no-warn-rwx-segments

define board_rule
$(BUILD)/boards/$(1)/%.elf: examples/boards/programs/%.c $(BOARD_COMMON) $(SOURCES_$(1)) \
    $(wildcard examples/boards/$(1)/*) $(wildcard examples/driver/*.c) $(BOARD_HEADERS)
	@mkdir -p $$(@D)
	@command -v $(CROSS_$(1))gcc >/dev/null || \
	    { echo '$(CROSS_$(1))gcc is not installed: make install' >&2; exit 1; }
	@echo 'building $$@'
	@$(CROSS_$(1))gcc $(BOARD_FLAGS) -isystem $$$$($(CROSS_$(1))gcc -print-file-name=include) \
	    $(CPU_$(1)) -Iexamples/boards/$(1) -T examples/boards/$(1)/link.ld \
	    $(wildcard examples/boards/$(1)/*.S examples/boards/$(1)/*.c) $(SOURCES_$(1)) \
	    $(BOARD_COMMON) $$< $$(wildcard examples/driver/$$*.c) $$(PROGRAM_SOURCES_$$*) \
	    $$(PROGRAM_FLAGS_$$*) -lgcc -o $$@
endef
$(foreach folder,$(BOARD_FOLDERS),$(eval $(call board_rule,$(folder))))

# The host side knows which image a run needs.
BOARD_RUN = python3 examples/boards/host/run.py --board $(BOARD) --device $(DEVICE)

.PHONY: run boards console-soak
run:
	@image=$$($(BOARD_RUN) --image) && $(MAKE) -s "$$image"
	@$(BOARD_RUN) $(if $(TRANSPORT),--transport $(TRANSPORT)) $(PROPERTIES:%=--property %)

# The whole matrix, or with BOARDS="--board q35" a part of it.
boards:
	@$(MAKE) -s $$(tests/boards.py $(BOARDS) --images)
	@tests/boards.py $(BOARDS)

# Eight ports of a console in both directions, for so many seconds.
SOAK ?= 300
console-soak:
	@SOAK=$(SOAK) $(MAKE) -s run DEVICE=console-soak
