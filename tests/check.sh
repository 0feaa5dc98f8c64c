#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Every test, with a progress line each and "N passed, N failed" at the end. What belongs together is a lane,
# one step after the other; two lanes run at a time.
set -u
cd "$(dirname "$0")/.."
build=build/check
mkdir -p $build
warn="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wcast-align -Wundef -Werror"
common="-g $warn -I. -pthread"
config='-DVIRTIO_CONFIG_FILE="tests/support/test_config.h"'
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all"
demo="examples/hosts/demo.c examples/hosts/job.c examples/driver/blk.c examples/device/blk.c
    examples/device/function.c examples/hosts/virtio_names.c"
qtest="examples/hosts/qtest_virtio.c examples/hosts/qtest.c examples/hosts/qtest_pci.c
    examples/hosts/virtio_names.c"
qtest_blk="examples/hosts/qtest_blk.c examples/hosts/job.c examples/driver/blk.c $qtest"
qtest_rng="examples/hosts/qtest_rng.c examples/hosts/entropy.c examples/driver/rng.c $qtest"
vhost_front="examples/hosts/vhost_front_blk.c examples/vhost_user/frontend.c examples/hosts/job.c
    examples/hosts/virtio_names.c examples/driver/blk.c"
vhost_front_net="examples/hosts/vhost_front_net.c examples/vhost_user/frontend.c
    examples/hosts/virtio_names.c examples/driver/net.c"
lspci="examples/hosts/virtio_lspci.c examples/hosts/lspci_dump.c examples/hosts/lspci_sysfs.c
    examples/hosts/lspci_examine.c examples/hosts/lspci_registers.c examples/hosts/lspci_show.c
    examples/hosts/lspci_json.c examples/hosts/virtio_names.c"
vmm="examples/hosts/vmm.c examples/device/blk.c examples/device/function.c examples/device/msix.c"
vhost_backend="examples/hosts/vhost_daemon.c examples/vhost_user/backend.c examples/vhost_user/queue.c examples/vhost_user/loop.c
    examples/vhost_user/memory.c examples/vhost_user/inflight.c"
vhost_blk="examples/hosts/vhost_blk.c examples/device/blk.c $vhost_backend"
vhost_net="examples/hosts/vhost_net.c examples/device/net.c $vhost_backend"
vhost_console="examples/hosts/vhost_console.c examples/device/console.c $vhost_backend"
vhost_rng="examples/hosts/vhost_rng.c $vhost_backend"
rtos="examples/rtos/rtos_blk.c examples/driver/blk.c examples/device/blk.c examples/device/function.c"
rtos_config='-Itests/support/rtos -DVIRTIO_CONFIG_FILE="examples/rtos/virtio_port.h"'
parts="examples/driver/blk.c examples/device/blk.c examples/device/function.c examples/device/msix.c"
console="examples/driver/console.c examples/device/console.c examples/device/function.c"
net="examples/driver/net.c examples/device/function.c examples/boards/programs/net/stack.c"
suites="ring_test packed_test feature_test platform_test caps_test driver_test transport_test
    loopback_test single_format_test device_test net_test netdev_test console_test
    condev_test"
lite="-Itests/support/lite"
lane=alone
export CRITERION_JOBS=1
rm -f $build/counts.*

count() { # a suite's closing line, for the totals
    sed -n 's/.*Passing: \([0-9]*\) | Failing: \([0-9]*\) | Crashing: \([0-9]*\).*/\1 \2 \3/p
        s/^[a-z]*: *\([0-9]*\) .*passed, \([0-9]*\) failed$/\1 \2 0/p
        s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2 0/p' "$1" | tail -n 1
}

tally() { # passed, failed, skipped
    echo "$@" >>$build/counts.$lane
}

skip() { # title, reason
    echo "skipped $1: $2"
    tally 0 0 1
}

step() { # title, command...
    title=$1
    shift
    status=0
    begin=$(date +%s)
    "$@" >$build/log.$lane 2>&1 || status=$?
    took=$(($(date +%s) - begin))
    if [ $status = 77 ]; then # not possible here: the last line says why
        skip "$title" "$(tail -n 1 $build/log.$lane | sed 's/^skipped: *//')"
        return
    fi
    # shellcheck disable=SC2046
    set -- $(count $build/log.$lane)
    ok=${1:-0}
    bad=$((${2:-0} + ${3:-0}))
    if [ $status = 0 ] && [ $bad = 0 ]; then
        [ "$ok" -gt 0 ] || ok=1
        echo "ok      $title ($ok), $took s"
    else
        [ "$bad" -gt 0 ] || bad=1
        { echo "FAILED  $title, $took s"; tail -n 40 $build/log.$lane | sed 's/^/        /'; } >$build/failed.$lane
        cat $build/failed.$lane
    fi
    tally $ok $bad 0
    sed -n 's/^ *skipped *//p' $build/log.$lane >$build/skipped.$lane
    while read -r reason; do # parts of it
        skip "$title" "$reason"
    done <$build/skipped.$lane
}

lanes() { # functions without arguments, each with its name as a lane
    pids=
    for lane in "$@"; do
        "$lane" &
        pids="$pids $!"
    done
    lane=alone
    for pid in $pids; do
        wait "$pid" || { echo "FAILED  one of the lanes $* ended before its time" && tally 0 1 0; }
    done
}

sources() { # of a suite
    case $1 in
    transport_test) echo "tests/$1.c $parts" ;;
    net_test) echo "tests/$1.c $net" ;;
    netdev_test) echo "tests/$1.c examples/device/net.c" ;;
    console_test) echo "tests/$1.c examples/driver/console.c examples/device/function.c" ;;
    condev_test) echo "tests/$1.c $console" ;;
    *) echo "tests/$1.c" ;;
    esac
}

build_and_run() { # program, compiler and its arguments
    program=$build/$1
    shift
    "$@" -o "$program" && timeout 600 "$program"
}

cross() { # program, emulator, compiler and its arguments
    program=$build/$1
    emulator=$2
    shift 2
    "$@" -static -o "$program" && timeout 900 "$emulator" "$program"
}

scaled() ( # divisor of the threads' work, command...
    export THREAD_SCALE="$1"
    shift
    "$@"
)

images() { # compiler, options, emulator or nothing
    # shellcheck disable=SC2086
    $1 -std=c11 -O1 $common "$config" $2 tests/images.c -o "$build/images-$1" &&
        tests/images.sh "$build/images-$1" $3
}

fuzz() { # which, inputs: always the same ones
    # shellcheck disable=SC2086
    clang -std=c11 -O1 $common -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        "tests/fuzz_$1.c" -o "$build/fuzz_$1" &&
        "$build/fuzz_$1" -seed=1 -runs="$2" -max_len=4096 -timeout=10
}

lspci() { # compiler
    # shellcheck disable=SC2086
    $1 -std=c11 -O1 $common "$config" $sanitize $lspci -o "$build/virtio-lspci-$1" &&
        tests/lspci.sh "$build/virtio-lspci-$1"
}

# ----- the lanes -----

general() { # what the compiler takes where it optimises for size
    for suite in ring_test packed_test feature_test loopback_test; do
        # shellcheck disable=SC2086
        step "$suite, no short ways" build_and_run "$suite-general" gcc -std=c11 -O1 $common \
            "$config" $lite -Wno-maybe-uninitialized -DVIRTIO_FAST_PATHS=0 "tests/$suite.c"
    done
}

# shellcheck disable=SC2086,SC2046
native() { # compiler, its C++
    cc=$1
    for suite in $suites; do
        step "$suite, $cc, ASan and UBSan" build_and_run "$suite-$cc" $cc -std=c11 -O1 \
            $common "$config" $sanitize $(sources $suite) -lcriterion
    done
    step "fetch_test, $cc" build_and_run "fetch-$cc" $cc -std=c11 -O1 $common $sanitize \
        tests/fetch_test.c -lcriterion
    step "vhost_test, $cc, ASan and UBSan" build_and_run "vhost-$cc" $cc -std=c11 -O1 $common \
        "$config" $sanitize tests/vhost_test.c examples/vhost_user/frontend.c -lcriterion
    step "single_format_test, $cc, packed" build_and_run "single-$cc" $cc -std=c11 -O1 $common \
        "$config" $sanitize -DVIRTIO_RING_ALWAYS=VIRTQ_PACKED tests/single_format_test.c \
        -lcriterion
    step "one_transport_test, $cc" build_and_run "one-transport-$cc" $cc -std=c11 -O1 $common \
        '-DVIRTIO_CONFIG_FILE="tests/support/one_transport.h"' $sanitize tests/one_transport_test.c $parts \
        -lcriterion
    step "device_test, $cc, one byte order" build_and_run "device-order-$cc" $cc -std=c11 -O1 \
        $common "$config" $sanitize -DVIRTIO_RING_FLAGS=0x3f8 tests/device_test.c -lcriterion
    # gcc warns that TSan does not see fences; the test's first comment says what that means.
    step "thread_test, $cc, TSan" scaled 8 build_and_run "tsan-$cc" $cc -std=c11 -O1 $common \
        -Wno-unknown-warning-option -Wno-tsan $lite -fsanitize=thread tests/thread_test.c
    step "rtos_test, $cc, ASan and UBSan" build_and_run "rtos-$cc" $cc -std=c11 -O1 $common \
        $sanitize $rtos_config tests/rtos_test.c $rtos -lcriterion
    step "rtos_test, $cc, TSan" build_and_run "rtos-tsan-$cc" $cc -std=c11 -O1 $common \
        -Wno-unknown-warning-option -Wno-tsan $lite -fsanitize=thread $rtos_config \
        tests/rtos_test.c $rtos
    step "demo, $cc, ASan and UBSan" build_and_run "demo-$cc" $cc -std=c11 -O1 $common \
        "$config" $sanitize $demo
    step "virtio-lspci, $cc, ASan and UBSan" lspci $cc
    step "C++17 round trip, $cc" build_and_run "cxx-$cc" "$2" -std=c++17 -O1 $common \
        "$config" $sanitize tests/cxx_test.cc
    step "one format leaves no branch, $cc" env CC=$cc tests/one_format.sh
}
native_gcc() { native gcc g++; general; }
native_clang() { native clang clang++; }

# The same C sources read as C++17: what only C allows is let through in them; the headers are
# held to the full warning set in C++ above.
# shellcheck disable=SC2086,SC2046
as_cxx() {
    for suite in $suites; do
        step "$suite as C++17, g++, ASan and UBSan" build_and_run "$suite-cxx" g++ -x c++ \
            -std=c++17 -fpermissive -w '-D_Alignas(n)=__attribute__((aligned(n)))' -O0 -g -I. \
            "$config" $sanitize $(sources $suite) -lcriterion
    done
    step "ring images" images gcc "$sanitize" ""
    step "each rule has a test" tests/rules.py --quiet
    step "hostile peer of a queue, 300000 inputs" fuzz ring 300000
    step "hostile configuration space, 200000 inputs" fuzz caps 200000
    step "hostile driver of an emulated device, 200000 inputs" fuzz device 200000
    step "API documentation" make -s docs
}

# Criterion's stand-in ends a failed test with longjmp, which gcc does not see.
# shellcheck disable=SC2086,SC2046
foreign() { # compiler's prefix, emulator
    for suite in $suites; do
        step "$suite, $1" cross "$suite-$1" "$2" "$1-gcc" -std=c11 -O1 $common "$config" $lite \
            -Wno-maybe-uninitialized $(sources $suite)
    done
    step "ring images, $1" images "$1-gcc" -static "$2"
    step "demo, $1" cross "demo-$1" "$2" "$1-gcc" -std=c11 -O1 $common "$config" $demo
}

# shellcheck disable=SC2086
qemu_devices() {
    step "hostile front-end of a vhost-user back-end, 200000 inputs" fuzz vhost 200000
    step "qtest-blk builds, clang" clang -std=c11 -O2 $common $qtest_blk -o $build/qtest-blk-clang
    step "qtest-rng builds, clang" clang -std=c11 -O2 $common $qtest_rng -o $build/qtest-rng-clang
    step "qtest-blk builds, gcc, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize \
        $qtest_blk -o $build/qtest-blk
    step "qtest-rng builds, gcc, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize \
        $qtest_rng -o $build/qtest-rng
    step "QEMU's virtio-blk and virtio-rng" tests/qemu.sh $build/qtest-blk $build/qtest-rng
    step "vhost-front-blk builds, clang" clang -std=c11 -O2 $common $vhost_front \
        -o $build/vhost-front-blk-clang
    step "vhost-front-blk builds, gcc, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize \
        $vhost_front -o $build/vhost-front-blk
    step "qemu-storage-daemon's vhost-user-blk" tests/vhost_front.sh $build/vhost-front-blk
    step "vhost-front-net builds, clang" clang -std=c11 -O2 $common $vhost_front_net \
        -o $build/vhost-front-net-clang
    step "vhost-front-net builds, gcc, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize \
        $vhost_front_net -o $build/vhost-front-net
    step "DPDK's vhost" tests/vhost_dpdk.sh $build/vhost-front-net
    step "vmm builds, clang" clang -std=c11 -O2 $common $vmm -o $build/vmm-clang
    step "vmm builds, gcc, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize $vmm \
        -o $build/vmm
    step "a guest on KVM" tests/vmm.sh $build/vmm
    step "vhost-blk builds, clang" clang -std=c11 -O2 $common $vhost_blk -o $build/vhost-blk-clang
    step "vhost-blk builds, gcc, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize $vhost_blk \
        -o $build/vhost-blk
    step "vhost-blk under Linux's driver and bad messages" tests/vhost.py --quick $build/vhost-blk
    step "vhost-blk killed among its requests" tests/vhost_soak.py $build/vhost-blk
    step "vhost-blk under Debian's kernel in QEMU, packed rings" tests/vhost_linux.py --quick \
        $build/vhost-blk
    step "vhost-net builds, clang" clang -std=c11 -O2 $common $vhost_net -o $build/vhost-net-clang
    step "vhost-net builds, gcc, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize $vhost_net \
        -o $build/vhost-net
    step "vhost-net under DPDK's and Linux's drivers and bad messages" tests/vhost_net.py --quick \
        $build/vhost-net
    step "vhost-console builds, clang" clang -std=c11 -O2 $common $vhost_console \
        -o $build/vhost-console-clang
    step "vhost-console builds, gcc, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize \
        $vhost_console -o $build/vhost-console
    step "vhost-console under Linux's driver and bad messages" tests/vhost_console.py --quick \
        $build/vhost-console
    step "vhost-rng builds, clang" clang -std=c11 -O2 $common $vhost_rng -o $build/vhost-rng-clang
    step "vhost-rng builds, gcc, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize $vhost_rng \
        -o $build/vhost-rng
    step "vhost-rng under QEMU and bad messages" tests/vhost_rng.py --quick $build/vhost-rng \
        $build/qtest-rng
    step "qtest-msix builds, sanitized" gcc -std=c11 -O1 $common "$config" $sanitize \
        tests/qtest_msix.c $qtest -o $build/qtest-msix
    step "MSI-X vectors of QEMU's virtio-blk" $build/qtest-msix
    step "register traces, built sanitized" gcc -std=c11 -O1 $common "$config" $sanitize \
        tests/peers/*.c examples/hosts/qtest.c examples/hosts/qtest_pci.c \
        -o $build/trace
    step "registers of QEMU's devices and of the model" tests/trace.py $build/trace
}

bare_metal() {
    # shellcheck disable=SC2046
    step "bare-metal images" make -s $(tests/boards.py --quick --images)
    step "bare-metal programs on seven machines" tests/boards.py --quick
    step "instructions per operation" make -s bench-count
    step "the bench runs and compares" tests/bench.py
    step "bytes of code and state" make -s size
}

# What shows a lost wake-up only if two CPUs are free.
# shellcheck disable=SC2086
threads() {
    for cc in gcc clang; do
        step "thread_test, $cc, optimised" build_and_run "thread-$cc" $cc -std=c11 -O2 $common \
            tests/thread_test.c -lcriterion
    done
    step "thread_test, aarch64" scaled 4 cross thread-aarch64 qemu-aarch64-static \
        aarch64-linux-gnu-gcc -std=c11 -O2 $common $lite -Wno-maybe-uninitialized tests/thread_test.c
    step "no barrier can be left out" tests/ablation.sh
}

step "headers alone, every CPU" tests/headers.sh
# Two lanes of about the same length.
s390x_and_devices() {
    foreign s390x-linux-gnu qemu-s390x-static
    qemu_devices
}
cxx_arm_and_boards() {
    as_cxx
    foreign arm-linux-gnueabihf qemu-arm-static
    bare_metal
}

lanes native_gcc native_clang
lanes s390x_and_devices cxx_arm_and_boards
threads

awk '{ passed += $1; failed += $2; skipped += $3 }
    END { print passed + 0 " passed, " failed + 0 " failed, " skipped + 0 " skipped"; exit failed != 0 }' $build/counts.*
