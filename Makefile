# SPDX-License-Identifier: MIT-0
# make demo   needs only a C compiler and make;  make check   installs what it needs and tests all.

CC ?= cc
CFLAGS ?= -O2 -g
WARN = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wcast-align -Wundef
BUILD = build
COMPILE = $(CC) -std=c11 $(CFLAGS) $(WARN) -I.

HEADERS = virtio.h virtio_ring.h virtio_pci_caps.h
DRIVER = examples/driver/blk.c
DEVICE = examples/device/blk.c examples/device/function.c
DEMO = examples/hosts/demo.c examples/hosts/job.c $(DRIVER) $(DEVICE)
QTEST = examples/hosts/qtest_blk.c examples/hosts/qtest.c examples/hosts/qtest_pci.c \
        examples/hosts/job.c $(DRIVER)
ALL_HEADERS = $(HEADERS) $(wildcard examples/*/*.h)

.PHONY: help demo qtest check headers qemu bench-count docs install clean

help:
	@echo 'make demo [DISK=file] [TRANSPORT=t]  both ends of a block device in one process'
	@echo 'make check        install what is needed (Debian), run every test'
	@echo 'make qtest        build build/qtest-blk, which drives the virtio-blk of QEMU'
	@echo 'make qemu         the runs against QEMU alone'
	@echo 'make headers      compile the headers alone for every CPU'
	@echo 'make bench-count  instructions per ring operation, under callgrind'
	@echo 'make docs         API documentation in build/docs/html'
	@echo 'make clean        remove build/'

demo: $(BUILD)/demo
	@$(BUILD)/demo $(if $(TRANSPORT),--transport '$(TRANSPORT)') $(if $(DISK),'$(DISK)')

$(BUILD)/demo: $(DEMO) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(DEMO) -o $@

qtest: $(BUILD)/qtest-blk
$(BUILD)/qtest-blk: $(QTEST) $(ALL_HEADERS) | $(BUILD)
	$(COMPILE) $(QTEST) -o $@

install:
	tests/install.sh

check: install
	tests/check.sh

headers:
	tests/headers.sh

qemu: $(BUILD)/qtest-blk
	tests/qemu.sh $(BUILD)/qtest-blk

# Counted as shipped: -O2, whatever CFLAGS say.
$(BUILD)/ring_count: bench/ring_count.c virtio_ring.h | $(BUILD)
	$(CC) -std=c11 -O2 $(WARN) -I. $< -o $@
$(BUILD)/ring_count_apart: bench/ring_count.c virtio_ring.h | $(BUILD)
	$(CC) -std=c11 -O2 $(WARN) -DAPART -I. $< -o $@
bench-count: $(BUILD)/ring_count $(BUILD)/ring_count_apart
	bench/count.sh $^

docs: | $(BUILD)
	doxygen Doxyfile

$(BUILD):
	mkdir -p $@

clean:
	rm -rf $(BUILD)
