# SPDX-License-Identifier: MIT-0
# Programs of the bench: build/bench/NAME from bench/NAME.c. Of ring.c and threads.c there is one for each
# ring format, and for variants of the library, named in the program's name (bench/format.h). bench/run.py
# has the list and asks for them.
BENCH_HEADERS = $(HEADERS) $(wildcard bench/*.h)
BENCH_FORMAT = -DBENCH_PACKED=$(if $(findstring packed,$*),1,0) \
    -DBENCH_IN_ORDER=$(if $(findstring in-order,$*),1,0) $(if $(findstring no-fence,$*),-DBENCH_PLAIN=1) \
    $(if $(findstring plain,$*),-DBENCH_PLAIN=2) $(if $(findstring any,$*),-DBENCH_ANY=1)
BENCH_COMPILE = $(COMPILE) -pthread '-DBENCH_FLAGS="$(CFLAGS)"'

$(BUILD)/bench/ring-%: bench/ring.c $(BENCH_HEADERS)
	@mkdir -p $(@D)
	@$(BENCH_COMPILE) $(BENCH_FORMAT) $< -o $@
$(BUILD)/bench/threads-%: bench/threads.c $(BENCH_HEADERS)
	@mkdir -p $(@D)
	@$(BENCH_COMPILE) $(BENCH_FORMAT) $< -o $@
$(BUILD)/bench/vhost_blk: bench/vhost_blk.c examples/vhost_user/frontend.c $(BENCH_HEADERS) \
    $(wildcard examples/vhost_user/*.h)
	@mkdir -p $(@D)
	@$(BENCH_COMPILE) $(filter %.c,$^) -o $@
$(BUILD)/bench/%: bench/%.c $(BENCH_HEADERS)
	@mkdir -p $(@D)
	@$(BENCH_COMPILE) $< -o $@

# All of the bench, a few minutes; with QUICK=1 shorter and rougher, under a minute.
bench:
	@bench/run.py $(if $(QUICK),--quick)

# Back-ends of vhost-user beside those of others, each pair under one driver: vhost-net and DPDK's, four minutes;
# vhost-blk and qemu-storage-daemon, seven.
vhost-bench: $(BUILD)/vhost-net $(BUILD)/vhost-blk $(BUILD)/bench/vhost_blk
	@bench/vhost_net.py $(if $(QUICK),--quick) $(BUILD)/vhost-net || [ $$? = 77 ]
	@bench/vhost_blk.py $(if $(QUICK),--quick) $(BUILD)/vhost-blk $(BUILD)/bench/vhost_blk || [ $$? = 77 ]
