# SPDX-License-Identifier: MIT-0
# make demo   needs only a C compiler and make;  make check   installs what it needs and tests all.

CC ?= cc
CFLAGS ?= -O2 -g
WARN = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wcast-align -Wundef
BUILD = build
COMPILE = $(CC) -std=c11 $(CFLAGS) $(WARN) -I.

HEADERS = virtio.h virtio_ring.h virtio_pci_caps.h
DRIVER = examples/driver/blk.c
DEVICE_SIDE = examples/device/blk.c examples/device/function.c
DEMO = examples/hosts/demo.c examples/hosts/job.c examples/hosts/virtio_names.c $(DRIVER) $(DEVICE_SIDE)
QTEST = examples/hosts/qtest_virtio.c examples/hosts/qtest.c examples/hosts/qtest_pci.c \
    examples/hosts/virtio_names.c
QTEST_BLK = examples/hosts/qtest_blk.c examples/hosts/job.c examples/driver/blk.c $(QTEST)
QTEST_RNG = examples/hosts/qtest_rng.c examples/hosts/entropy.c examples/driver/rng.c $(QTEST)
VHOST_FRONT_BLK = examples/hosts/vhost_front_blk.c examples/vhost_user/frontend.c examples/hosts/job.c \
    examples/hosts/virtio_names.c examples/driver/blk.c
VHOST_FRONT_NET = examples/hosts/vhost_front_net.c examples/vhost_user/frontend.c \
    examples/hosts/virtio_names.c examples/driver/net.c
LSPCI = $(addprefix examples/hosts/,virtio_lspci.c lspci_dump.c lspci_sysfs.c lspci_examine.c \
    lspci_registers.c lspci_show.c lspci_json.c virtio_names.c)
VHOST_BACKEND = examples/hosts/vhost_daemon.c \
    $(addprefix examples/vhost_user/,backend.c queue.c loop.c memory.c inflight.c)
VHOST_BLK = examples/hosts/vhost_blk.c examples/device/blk.c $(VHOST_BACKEND)
VHOST_NET = examples/hosts/vhost_net.c examples/device/net.c $(VHOST_BACKEND)
VHOST_RNG = examples/hosts/vhost_rng.c $(VHOST_BACKEND)
VHOST_CONSOLE = examples/hosts/vhost_console.c examples/device/console.c $(VHOST_BACKEND)
ALL_HEADERS = $(HEADERS) $(wildcard examples/*/*.h)

.PHONY: help demo vhost vhost-peers vhost-soak vhost-bench qtest vhost-front vmm lspci check headers qemu peers bench bench-count \
    size ablation fuzz trace docs install clean

help:
	@echo 'make demo [DISK=file] [TRANSPORT=t]  both ends of a block device in one process'
	@echo 'make check        install what is needed (Debian), run every test'
	@echo 'make qtest        build build/qtest-blk and build/qtest-rng, which drive devices of QEMU'
	@echo 'make vhost-front  build build/vhost-front-blk and -net, which drive vhost-user devices, no VM'
	@echo 'make vmm          build build/vmm, which runs a guest on KVM with a disk of this library'
	@echo 'make vhost        build build/vhost-blk, -net, -console, -rng: devices for virtual machines over vhost-user'
	@echo 'make vhost-peers  Linux, user-mode and under QEMU, and DPDK use them, with file systems; and bad messages'
	@echo 'make vhost-soak [SOAK=3600]  kills vhost-blk among its requests for so many seconds; nothing may be lost'
	@echo 'make vhost-bench [QUICK=1]  vhost-net beside DPDK, vhost-blk beside qemu-storage-daemon'
	@echo 'make lspci        build build/virtio-lspci, which shows the virtio side of PCI functions'
	@echo 'make qemu         the runs against QEMU alone'
	@echo 'make run BOARD=aarch64-virt DEVICE=blk  a bare-metal program on a machine of QEMU'
	@echo 'make boards       all of them: board x transport x ring format x device, and what goes wrong'
	@echo 'make console-soak [SOAK=300]  eight ports of a console in both directions, for so many seconds'
	@echo 'make peers        the whole matrix: machines x transports x ring formats x features'
	@echo 'make headers      compile the headers alone for every CPU'
	@echo 'make bench [QUICK=1]  what a ring operation, a notify and an interrupt cost here; tables and plots'
	@echo 'make bench-count  instructions per ring operation, register access and kick, under callgrind'
	@echo 'make size         bytes of code for three CPUs, and of state'
	@echo 'make fuzz [FUZZ="ring caps device vhost"] [FUZZ_TIME=seconds]  a hostile peer for each of these'
	@echo 'make trace        register accesses on devices of QEMU and on the model: what differs'
	@echo 'make ablation     take out each memory barrier once and see the tests fail'
	@echo 'make docs         API documentation in build/docs/html'
	@echo 'make clean        remove build/'

demo: $(BUILD)/demo
	@$(BUILD)/demo $(if $(TRANSPORT),--transport '$(TRANSPORT)') $(if $(DISK),'$(DISK)')

$(BUILD)/demo: $(DEMO) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(DEMO) -o $@

qtest: $(BUILD)/qtest-blk $(BUILD)/qtest-rng
$(BUILD)/qtest-blk: $(QTEST_BLK) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(QTEST_BLK) -o $@
$(BUILD)/qtest-rng: $(QTEST_RNG) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(QTEST_RNG) -o $@

vhost-front: $(BUILD)/vhost-front-blk $(BUILD)/vhost-front-net
$(BUILD)/vhost-front-blk: $(VHOST_FRONT_BLK) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(VHOST_FRONT_BLK) -o $@
$(BUILD)/vhost-front-net: $(VHOST_FRONT_NET) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(VHOST_FRONT_NET) -o $@

VMM = examples/hosts/vmm.c examples/device/blk.c examples/device/function.c examples/device/msix.c
VMM_GUESTS = examples/hosts/vmm_guest.c tests/vmm_probe.c
VMM_GUEST_PARTS = examples/driver/blk.c examples/boards/lib/string.c
vmm: $(BUILD)/vmm $(BUILD)/vmm-guest.elf
$(BUILD)/vmm: $(VMM) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) -pthread $(VMM) -o $@
# 64-bit code without a system: no FP and SIMD, no red zone under its interrupts, no calls of libc.
$(BUILD)/vmm-%.elf: $(VMM_GUESTS) $(VMM_GUEST_PARTS) $(ALL_HEADERS) | $(BUILD)
	gcc -std=c11 -O2 $(WARN) -I. -Iexamples/boards/lib/include -ffreestanding -nostdlib -static -no-pie \
	    -fno-pic -mgeneral-regs-only -mno-red-zone -fno-stack-protector -fcf-protection=none \
	    -fno-tree-loop-distribute-patterns -Wl,-Ttext-segment=0x100000,-evmm_guest,--build-id=none \
	    $(filter %/vmm_$*.c,$(VMM_GUESTS)) $(VMM_GUEST_PARTS) -o $@

vhost: $(BUILD)/vhost-blk $(BUILD)/vhost-net $(BUILD)/vhost-rng $(BUILD)/vhost-console
$(BUILD)/vhost-blk: $(VHOST_BLK) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(VHOST_BLK) -o $@
$(BUILD)/vhost-net: $(VHOST_NET) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(VHOST_NET) -o $@
$(BUILD)/vhost-rng: $(VHOST_RNG) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(VHOST_RNG) -o $@
$(BUILD)/vhost-console: $(VHOST_CONSOLE) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(VHOST_CONSOLE) -o $@
vhost-peers: vhost $(BUILD)/qtest-rng
	tests/vhost.py $(BUILD)/vhost-blk
	tests/vhost_soak.py $(BUILD)/vhost-blk
	tests/vhost_linux.py $(BUILD)/vhost-blk || [ $$? = 77 ]
	tests/vhost_net.py $(BUILD)/vhost-net
	tests/vhost_console.py $(BUILD)/vhost-console
	tests/vhost_rng.py $(BUILD)/vhost-rng $(BUILD)/qtest-rng
vhost-soak: SOAK = 3600
vhost-soak: $(BUILD)/vhost-blk
	tests/vhost_soak.py --seconds $(SOAK) $<

lspci: $(BUILD)/virtio-lspci
$(BUILD)/virtio-lspci: $(LSPCI) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(LSPCI) -o $@

install:
	tests/install.sh

check: install
	tests/check.sh

headers:
	tests/headers.sh

qemu: $(BUILD)/qtest-blk $(BUILD)/qtest-rng
	tests/qemu.sh $^

# The whole matrix: machines, transports and features; vhost-user in both directions.
peers: qtest vhost-front vhost vhost-peers
	tests/peers.sh $(BUILD)/qtest-blk $(BUILD)/qtest-rng
	tests/vhost_front.sh $(BUILD)/vhost-front-blk all $(BUILD)/vhost-blk
	tests/vhost_dpdk.sh $(BUILD)/vhost-front-net all || [ $$? = 77 ]

# Counted and measured as shipped, with gcc -O2 and -Os, whatever CC and CFLAGS say.
bench-count:
	bench/count.sh

size:
	bench/size.sh

# Its guest is a part of the program that runs without a system, below an interrupt's stack frame.
NOTIFY_GUEST = -ffreestanding -fno-stack-protector \
    $(if $(findstring x86_64,$(shell $(CC) -dumpmachine)),-mno-red-zone -mgeneral-regs-only)
$(BUILD)/bench/notify: bench/notify.c bench/notify_guest.c bench/notify_guest.h $(HEADERS)
	@mkdir -p $(@D)
	$(CC) -std=c11 -O2 -g $(WARN) -I. $(NOTIFY_GUEST) -c bench/notify_guest.c -o $@_guest.o
	$(COMPILE) bench/notify.c $@_guest.o -o $@

# Each ordered access and fence taken out once: do the tests notice?
ablation:
	tests/ablation.sh

# The hostile peer: for either side of a queue (ring), for the capability scan (caps), for the registers of an
# emulated device (device), for the messages and rings of a vhost-user back-end (vhost). FUZZ_TIME seconds each
# (clang). Inputs that found something new are kept in build/fuzz; one that fails is named at the end.
FUZZ ?= ring caps device vhost
FUZZ_TIME ?= 60
fuzz: $(addprefix fuzz-,$(FUZZ))
fuzz-%: tests/fuzz_%.c | $(BUILD)
	mkdir -p $(BUILD)/fuzz/$*
	clang -std=c11 -O1 -g $(WARN) -I. -fsanitize=fuzzer,address,undefined \
	    -fno-sanitize-recover=all $< -o $(BUILD)/fuzz_$*
	cd $(BUILD)/fuzz/$* && ../../fuzz_$* -max_total_time=$(FUZZ_TIME) -max_len=4096 -timeout=5 \
	    -print_final_stats=1 .

TRACE = $(wildcard tests/peers/*.c) examples/hosts/qtest.c examples/hosts/qtest_pci.c
trace: $(BUILD)/trace
	$(BUILD)/trace
$(BUILD)/trace: $(TRACE) $(wildcard tests/peers/*.h) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(TRACE) -o $@

include examples/boards/boards.mk
include bench/bench.mk

docs: | $(BUILD)
	doxygen Doxyfile

$(BUILD):
	mkdir -p $@

clean:
	rm -rf $(BUILD)
