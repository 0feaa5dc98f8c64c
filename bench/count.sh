#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Instructions per operation, counted with callgrind as (count at N+100000 - count at N) / 100000,
# beside what was reached before and the budget to be reached. Fails when one is above what was reached
# before. Usage: count.sh ring_count ring_count_apart
set -eu
together=$1
apart=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

count() { # operations, program, callgrind options
    operations=$1
    program=$2
    shift 2
    valgrind --tool=callgrind --callgrind-out-file="$dir/out" "$@" "$program" "$operations" \
        >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
    sed -n 's/^totals: //p' "$dir/out"
}

status=0
row() { # title, limit, budget, then the arguments of count after the number of operations
    title=$1
    limit=$2
    budget=$3
    shift 3
    low=$(count 1000 "$@")
    high=$(count 101000 "$@")
    awk -v t="$title" -v l="$limit" -v b="$budget" -v n="$((high - low))" 'BEGIN {
        n /= 100000
        printf("%-44s %8.2f   limit %4d   budget %4d   %s\n", t, n, l, b,
            (n > l) ? "WORSE" : (n > b) ? "over budget" : "ok")
        exit (n > l) }' || status=1
}

echo "instructions per operation, x86-64, $(${CC:-cc} --version | head -n 1), -O2"
row "split round trip, 1 descriptor" 201 125 "$together"
row "  of which driver side (two calls included)" 108 65 "$apart" \
    --collect-atstart=no --toggle-collect=driver_send --toggle-collect=driver_receive
exit $status
