#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Bytes of .text for three CPUs, -Os -ffreestanding, one out-of-line copy of each function, linked, beside the
# limit and the budget; then bytes of state. The limit is what was reached: a row above it fails. A limit
# above its budget is a debt; docs/budgets.md says why.
set -eu
cd "$(dirname "$0")/.."
build=build/size
mkdir -p $build
status=0

show() { # title, CPU, bytes, limit, budget
    awk -v t="$1" -v c="$2" -v n="$3" -v l="$4" -v b="$5" 'BEGIN {
        printf("%-44s %-10s %6d   limit %5d   budget %5s   %s\n", t, c, n, l, b,
            (n > l) ? "WORSE" : (b != "-" && n > b) ? "over budget" : "ok")
        exit (n > l) }' || status=1
}

text() { # title, CPU, limit, budget, compiler options
    title=$1
    cpu=$2
    limit=$3
    budget=$4
    shift 4
    case $cpu in
    cortex-m4) prefix=arm-none-eabi- target="-mcpu=cortex-m4 -mthumb" ;;
    rv32imc) prefix=riscv64-unknown-elf- target="-march=rv32imc -mabi=ilp32" ;;
    *) prefix='' target='' ;;
    esac
    # shellcheck disable=SC2086
    ${prefix}gcc $target -std=c11 -Os -ffreestanding -fno-asynchronous-unwind-tables -I. "$@" \
        -nostdlib -static -Wl,-e,0 bench/size.c -o $build/size.elf
    bytes=$(${prefix}size -A $build/size.elf | awk '/^\.text/ { n += $2 } END { print n }')
    show "$title" "$cpu" "$bytes" "$limit" "$budget"
}

split() { # CPU, limit and budget of the driver side, of the device side
    text "split driver data path, no indirect" "$1" "$2" "$3" -DPART=PART_SPLIT_DRIVER \
        -DVIRTIO_RING_FLAGS=VIRTQ_EVENT_IDX
    text "split device data path, no indirect" "$1" "$4" "$5" -DPART=PART_SPLIT_DEVICE \
        -DVIRTIO_RING_FLAGS=VIRTQ_EVENT_IDX
}
packed() { # CPU, limit, budget
    text "packed driver and device data path" "$1" "$2" "$3" -DPART=PART_DATA_PATH \
        -DVIRTIO_RING_ALWAYS=VIRTQ_PACKED '-DVIRTIO_RING_FLAGS=(VIRTQ_PACKED|VIRTQ_EVENT_IDX)'
}
all() { # CPU, limit, budget
    text "both formats, both sides, everything" "$1" "$2" "$3" -DPART=PART_ALL
}
# A program that has no other devices says so; the second row is of one that does not. memcpy, which a
# compiler may call for a struct, is the platform's.
mmio() { # CPU, limit, budget, limit of the second row
    text "virtio-mmio v2 driver, complete" "$1" "$2" "$3" -DPART=PART_MMIO \
        -DVIRTIO_RING_FLAGS=VIRTQ_EVENT_IDX -Wl,--defsym=memcpy=0 \
        -DVIRTIO_WINDOW_ALWAYS=VIRTIO_WINDOW_MMIO '-DVIRTIO_TRANSPORT_ALWAYS=virtio_transport_mmio()'
    text "  beside other transports" "$1" "$4" - -DPART=PART_MMIO \
        -DVIRTIO_RING_FLAGS=VIRTQ_EVENT_IDX -Wl,--defsym=memcpy=0
}

echo "bytes of .text, gcc -Os -ffreestanding"
split cortex-m4 474 480 434 480
split rv32imc 558 560 502 560
split x86-64 589 640 493 640
packed cortex-m4 1200 1200
packed rv32imc 1386 1400
packed x86-64 1447 1600
all cortex-m4 3600 4096
all rv32imc 4302 4608
all x86-64 4529 5120
mmio cortex-m4 1536 1536 2048
mmio rv32imc 1732 1843 2402
mmio x86-64 1805 2048 2750

echo "bytes of state a queue"
cat >$build/state.c <<'END'
#include "virtio_ring.h"
char driver[sizeof(struct virtq_driver)], slot[sizeof(struct virtq_slot)];
char device[sizeof(struct virtq_device)];
END
state() { # CPU, compiler, size of a slot
    # shellcheck disable=SC2086
    $2 -std=c11 -ffreestanding -I. -fno-common -c $build/state.c -o $build/state.o
    for row in driver:48 slot:"$3" device:64; do
        bytes=$(nm -S -t d $build/state.o | awk -v s="${row%%:*}" '$4 == s { print $2 + 0 }')
        show "state, ${row%%:*}" "$1" "$bytes" "${row#*:}" "${row#*:}"
    done
}
state 64-bit gcc 16
state 32-bit "gcc -m32" 12
exit $status
