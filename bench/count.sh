#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Instructions per operation, counted with callgrind as (count at N+100000 - count at N) / 100000 (of
# 9600 operations each, which gives the same), beside the limit and the budget. The limit is what was
# reached: a row above it fails. A limit above its budget is a debt; docs/budgets.md says why.
# Usage: count.sh [ROW]; builds what it needs under build/count. CC and VALGRIND as usual.
set -eu
cd "$(dirname "$0")/.."
cc=${CC:-gcc}
valgrind=${VALGRIND:-valgrind}
build=build/count
mkdir -p $build
only=${1:-}
status=0

# What a program that knows its queues says: VIRTIO_RING_FLAGS and VIRTIO_RING_ALWAYS.
split="-DVIRTIO_RING_FLAGS=(VIRTQ_EVENT_IDX|VIRTQ_INDIRECT) -DVIRTIO_RING_ALWAYS=VIRTQ_EVENT_IDX"
packed="-DVIRTIO_RING_FLAGS=(VIRTQ_PACKED|VIRTQ_EVENT_IDX|VIRTQ_INDIRECT)
    -DVIRTIO_RING_ALWAYS=(VIRTQ_PACKED|VIRTQ_EVENT_IDX)"
in_order="-DVIRTIO_RING_FLAGS=(VIRTQ_EVENT_IDX|VIRTQ_INDIRECT|VIRTQ_IN_ORDER)
    -DVIRTIO_RING_ALWAYS=(VIRTQ_EVENT_IDX|VIRTQ_IN_ORDER)"
packed_in_order="-DVIRTIO_RING_FLAGS=(VIRTQ_PACKED|VIRTQ_EVENT_IDX|VIRTQ_INDIRECT|VIRTQ_IN_ORDER)
    -DVIRTIO_RING_ALWAYS=(VIRTQ_PACKED|VIRTQ_EVENT_IDX|VIRTQ_IN_ORDER)"

compile() { # program, compiler options
    program=$build/$1
    shift
    # shellcheck disable=SC2086
    $cc -std=c11 -O2 -g -I. "$@" bench/ring_count.c -o "$program"
}

count() { # program, case, operations, callgrind options
    program=$build/$1
    case=$2
    operations=$3
    shift 3
    "$valgrind" --tool=callgrind --callgrind-out-file=$build/out "$@" "$program" "$case" \
        "$operations" >$build/log 2>&1 || { cat $build/log >&2; exit 1; }
    sed -n 's/^totals: //p' $build/out
}

per_operation() { # as count, without the operations
    program=$1
    case=$2
    shift 2
    low=$(count "$program" "$case" 960 "$@")
    high=$(count "$program" "$case" 10560 "$@")
    echo "$((high - low))"
}

show() { # title, limit, budget, instructions of 9600 operations
    awk -v t="$1" -v l="$2" -v b="$3" -v n="$4" 'BEGIN {
        n /= 9600
        printf("%-52s %8.2f   limit %4d   budget %4s   %s\n", t, n, l, b,
            (n > l) ? "WORSE" : (b != "-" && n > b) ? "over budget" : "ok")
        exit (n > l) }' || status=1
}

row() { # title, limit, budget, program, case
    case $1 in *"$only"*) show "$1" "$2" "$3" "$(per_operation "$4" "$5")" ;; esac
}

# shellcheck disable=SC2086
{
    compile split $split -DRING_FLAGS=VIRTQ_INDIRECT
    compile split-apart $split -DAPART -DRING_FLAGS=VIRTQ_INDIRECT
    compile packed $packed '-DRING_FLAGS=VIRTQ_PACKED|VIRTQ_INDIRECT'
    compile in-order $in_order '-DRING_FLAGS=VIRTQ_IN_ORDER'
    compile packed-in-order $packed_in_order '-DRING_FLAGS=VIRTQ_PACKED|VIRTQ_IN_ORDER'
    compile any-split -DRING_FLAGS=VIRTQ_INDIRECT
    compile any-packed '-DRING_FLAGS=VIRTQ_PACKED|VIRTQ_INDIRECT'
}

echo "instructions per operation, x86-64, $($cc --version | head -n 1), -O2"
row "split round trip, 1 descriptor" 157 125 split round-trip
case "  of which driver side" in *"$only"*)
    show "  of which driver side (two calls included)" 87 65 "$(per_operation split-apart round-trip \
        --collect-atstart=no --toggle-collect=driver_send --toggle-collect=driver_receive)" ;;
esac
row "packed round trip, 1 descriptor" 216 110 packed round-trip
row "split round trip, IN_ORDER" 165 100 in-order round-trip
row "packed round trip, IN_ORDER" 221 100 packed-in-order round-trip
row "split chain of 3, direct" 387 210 split chain-direct
row "split chain of 3, indirect" 371 220 split chain-indirect
row "packed chain of 3, direct" 563 210 packed chain-direct
row "packed chain of 3, indirect" 519 220 packed chain-indirect
row "split batch of 32, per descriptor" 119 85 split batch
row "packed batch of 32, per descriptor" 163 75 packed batch
suppressed() { # title, limit, budget, program: what the decision adds to the loop around it
    case $1 in *"$only"*)
        show "$1" "$2" "$3" "$(($(per_operation "$4" kick-suppressed) -
            $(per_operation "$4" kick-baseline)))" ;;
    esac
}
suppressed "split kick decision, suppressed" 12 12 split
suppressed "packed kick decision, suppressed" 14 12 packed
row "split round trip, everything compiled in" 219 - any-split round-trip
row "packed round trip, everything compiled in" 271 - any-packed round-trip
exit $status
