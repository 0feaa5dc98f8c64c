#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Instructions per operation, counted with callgrind as (count at N+100000 - count at N) / 100000 (of
# 9600 operations each, which gives the same), then per register access and kick; beside the limit and the
# budget. The limit is what was reached: a row above it fails. A limit above its budget is a debt;
# docs/budgets.md says why.
# Usage: count.sh [--csv] [ROW]; only rows whose title has ROW in it; --csv: figures as bench/run.py takes
# them, with no verdict. Builds what it needs under build/count. CC and VALGRIND as usual.
set -eu
cd "$(dirname "$0")/.."
cc=${CC:-gcc}
valgrind=${VALGRIND:-valgrind}
build=build/count
mkdir -p $build
csv=
if [ "${1:-}" = --csv ]; then
    csv=1
    shift
fi
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

compile() { # program, source, compiler options
    program=$build/$1
    source=bench/$2
    shift 2
    # shellcheck disable=SC2086
    $cc -std=c11 -O2 -g -I. "$@" "$source" -o "$program"
}

count() { # program, case, operations, callgrind options
    program=$build/$1
    case=$2
    operations=$3
    shift 3
    [ $# != 0 ] || set -- --toggle-collect=main # start-up varies with the environment
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
    if [ -n "$csv" ]; then
        name=$(echo "$1" | tr 'A-Z ' 'a-z-' | sed 's/^--/split-round-trip\//; s/,-/\//g; s/[()]//g')
        awk -v s="$suite" -v t="$name" -v n="$4" 'BEGIN {
            printf("%s,%s,instructions,%.2f\n", s, t, n / 9600) }'
        return
    fi
    awk -v t="$1" -v l="$2" -v b="$3" -v n="$4" 'BEGIN {
        n /= 9600
        printf("%-52s %8.2f   limit %4d   budget %4s   %s\n", t, n, l, b,
            (n > l) ? "WORSE" : (b != "-" && n > b) ? "over budget" : "ok")
        exit (n > l) }' || status=1
}

heading() {
    [ -n "$csv" ] || echo "$1"
}

row() { # title, limit, budget, program, case
    case $1 in *"$only"*) show "$1" "$2" "$3" "$(per_operation "$4" "$5")" ;; esac
}

# shellcheck disable=SC2086
{
    compile split ring_count.c $split -DRING_FLAGS=VIRTQ_INDIRECT
    compile split-apart ring_count.c $split -DAPART -DRING_FLAGS=VIRTQ_INDIRECT
    compile packed ring_count.c $packed '-DRING_FLAGS=VIRTQ_PACKED|VIRTQ_INDIRECT'
    compile in-order ring_count.c $in_order '-DRING_FLAGS=VIRTQ_IN_ORDER'
    compile packed-in-order ring_count.c $packed_in_order '-DRING_FLAGS=VIRTQ_PACKED|VIRTQ_IN_ORDER'
    compile any-split ring_count.c -DRING_FLAGS=VIRTQ_INDIRECT
    compile any-packed ring_count.c '-DRING_FLAGS=VIRTQ_PACKED|VIRTQ_INDIRECT'
}

suite=ring
heading "instructions per operation, x86-64, $($cc --version | head -n 1), -O2"
row "split round trip, 1 descriptor" 155 125 split round-trip
case "  of which driver side" in *"$only"*)
    show "  of which driver side (two calls included)" 88 65 "$(per_operation split-apart round-trip \
        --collect-atstart=no --toggle-collect=driver_send --toggle-collect=driver_receive)" ;;
esac
row "packed round trip, 1 descriptor" 205 110 packed round-trip
row "split round trip, IN_ORDER" 162 100 in-order round-trip
row "packed round trip, IN_ORDER" 207 100 packed-in-order round-trip
row "split chain of 3, direct" 322 210 split chain-direct
row "split chain of 3, indirect" 343 220 split chain-indirect
row "packed chain of 3, direct" 482 210 packed chain-direct
row "packed chain of 3, indirect" 427 220 packed chain-indirect
row "split batch of 32, per descriptor" 117 85 split batch
row "packed batch of 32, per descriptor" 159 75 packed batch
suppressed() { # title, limit, budget, program: what the decision adds to the loop around it
    case $1 in *"$only"*)
        show "$1" "$2" "$3" "$(($(per_operation "$4" kick-suppressed) -
            $(per_operation "$4" kick-baseline)))" ;;
    esac
}
suppressed "split kick decision, suppressed" 11 12 split
suppressed "packed kick decision, suppressed" 10 12 packed
row "split round trip, everything compiled in" 214 - any-split round-trip
row "packed round trip, everything compiled in" 268 - any-packed round-trip

# ---- register accesses and kicks ----
suite=access
heading "instructions per register access and kick, without the call, the return and the caller's accessors"

listing() { # program: the instructions of each function of bench/access.c that is counted
    objdump -d --no-show-raw-insn "$1" | awk '
        /^[0-9a-f]+ </ { name = substr($2, 2, length($2) - 3); next }
        name ~ /^(read|write|kick)[0-9]*_/ && /^ / { print name, $2, $3, $4 }'
}

# What each function executed itself, per call, its return taken off: a jump to the caller's accessor
# instead of a return is counted as the call that it is. A port access is a stand-in, one instruction as
# well (bench/access_port.h): but for it, the functions must be those of a program with the real ones.
count_access() { # program, flags of its queues: writes function and instructions to program.self
    name=$1
    shift
    compile "$name" access.c '-DVIRTIO_CONFIG_FILE="bench/access_port.h"' "$@"
    compile "$name-ports" access.c "$@"
    program=$build/$name
    for each in "$program" "$program-ports"; do
        listing "$each" | awk '$2 !~ /^(nop|xchg|cs$|data16)/ { n[$1]++ } # padding apart
            END { for (f in n) print f, n[f] }' | sort >"$each.sizes"
    done
    cmp "$program.sizes" "$program-ports.sizes" ||
        { echo "count.sh: a stand-in changes the code around it" >&2; exit 1; }
    "$valgrind" --tool=callgrind --callgrind-out-file=$build/out --compress-strings=no \
        --compress-pos=no "$program" 100 >$build/log 2>&1 || { cat $build/log >&2; exit 1; }
    listing "$program" | awk '
        FNR == NR { if ($2 == "jmp" && $3 $4 ~ /^\*|<caller_/) jumps[$1] = 1; next }
        /^fn=/ { name = substr($0, 4) }
        /^calls=/ { callee = 1; next }
        /^[0-9]/ { if (!callee) n[name] += $2; callee = 0 }
        END { for (f in n) print f, n[f] / 100 - !(f ~ /caller/ && f in jumps) }' - $build/out \
        >"$program.self"
}

accesses() { # kind as in titles and in functions, constant or not, limits and budget of each function
    kind=$1
    function=$2
    known=$3
    shift 3
    for what in read write; do
        for bits in 8 16 32; do
            title="$bits-bit $what, $kind, $known kind"
            budget=-
            case $function-$known in
            mmio-constant) budget=1 ;;
            mmio-non-constant) budget=4 ;;
            esac
            counted split "$title" "$1" "$budget" \
                "$what${bits}_$function$([ "$known" = non-constant ] || echo _constant)"
            shift
        done
    done
}

counted() { # program, title, limit, budget, function
    case $2 in *"$only"*)
        n=$(awk -v f="$5" '$1 == f { print $2 * 9600 }' "$build/access-$1.self")
        show "$2" "$3" "$4" "${n:?no function $5}" ;;
    esac
}

kicks() { # format; limits: suppressed, MMIO of 16 and 32 bits, with data, port, caller, kind known: MMIO, port
    counted "$1" "$1 kick, suppressed" "$2" 12 kick_suppressed
    counted "$1" "$1 kick, MMIO" "$3" 13 kick_mmio
    counted "$1" "$1 kick, MMIO, 32-bit" "$4" 13 kick_mmio32
    counted "$1" "$1 kick, MMIO, with data" "$5" 13 kick_mmio_data
    counted "$1" "$1 kick, port" "$6" 13 kick_port
    counted "$1" "$1 kick, caller" "$7" - kick_caller
    counted "$1" "$1 kick, MMIO, constant kind" "$8" 13 kick_mmio_constant
    counted "$1" "$1 kick, port, constant kind" "$9" 13 kick_port_constant
}

# shellcheck disable=SC2086
{
    count_access access-split $split
    count_access access-packed $packed
}
accesses MMIO mmio constant 1 1 1 1 1 1
accesses MMIO mmio non-constant 4 4 4 5 5 4
accesses port port constant 2 2 2 3 3 3
accesses port port non-constant 8 8 8 9 9 9
accesses caller caller constant 6 6 4 5 5 5
accesses caller caller non-constant 12 12 11 13 13 11
kicks split 10 16 20 20 28 26 13 13
kicks packed 9 22 26 26 34 32 19 19
exit $status
