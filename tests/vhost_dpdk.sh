#!/bin/sh
# SPDX-License-Identifier: MIT-0
# The network driver as a vhost-user front-end of DPDK's vhost: testpmd sends every frame back.
# Usage: vhost_dpdk.sh path/to/vhost-front-net [all]
set -u
front=$1
all=${2:-}
. "$(dirname "$0")/support/result.sh"
if ! command -v dpdk-testpmd >/dev/null; then
    echo "skipped: dpdk-testpmd is not installed (dpdk-dev)"
    exit 77
fi

listening() { # the flag says that connections are accepted
    grep -q " 00010000 .* $dir/sock\$" /proc/net/unix
}

# Starts testpmd, in $peer; --stats-period keeps it going without a terminal. It has no files.
start() {
    dpdk-testpmd --lcores 0@0,1@0 --no-pci --no-huge --no-shconf -m 256 --no-telemetry \
        --vdev "net_vhost0,iface=$dir/sock,queues=1" -- --nb-cores=1 --forward-mode=io \
        --total-num-mbufs=4096 --stats-period 60 >"$dir/testpmd" 2>&1 </dev/null &
    peer=$!
    trap 'kill -9 $peer 2>/dev/null; rm -rf "$dir"' EXIT
    tries=0
    until listening && grep -q "Port statistics" "$dir/testpmd"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || return 1
        sleep 0.1
    done
}

# A run that must succeed, and whose output, as one line, must show `text` (a regular expression).
good() { # title, text, arguments
    title=$1
    text=$2
    shift 2
    timeout 60 "$front" "$@" "$dir/sock" >"$dir/log" 2>&1 &&
        tr '\n' ';' <"$dir/log" | grep -q "$text"
    result $? "$title"
}

# All that is offered but the features named; the output must show what is left.
cell() { # queue size, features refused...
    size=$1
    shift
    accepted="MTU MAC MRG_RXBUF INDIRECT_DESC EVENT_IDX VERSION_1 RING_PACKED IN_ORDER"
    title="$size entries, without:${*:+ $*}"
    format=packed
    refused=
    for name in "$@"; do
        accepted=$(echo "$accepted" | sed "s/ $name//")
        refused="$refused --refuse $name"
        [ "$name" != RING_PACKED ] || format=split
    done
    # shellcheck disable=SC2086
    good "$title" "features   $accepted;.*0, $size entries, $format;.* echoed     20000 frames" \
        --rounds 2 --queue-size "$size" $refused
}

if ! start; then
    cp "$dir/testpmd" "$dir/log"
    result 1 "testpmd runs"
    exit 1
fi
for packed in "" RING_PACKED; do
    for in_order in "" IN_ORDER; do
        for merging in "" MRG_RXBUF; do
            # shellcheck disable=SC2086
            cell 256 $packed $in_order $merging
            [ -n "$all" ] || continue
            for size in 64 1024; do
                # shellcheck disable=SC2086
                cell $size $packed $in_order $merging
            done
            for other in EVENT_IDX INDIRECT_DESC "EVENT_IDX INDIRECT_DESC"; do
                # shellcheck disable=SC2086
                cell 256 $packed $in_order $merging $other
            done
        done
    done
done
cell 100

# The back-end is killed while frames are on their way.
timeout 60 "$front" --rounds 1000000 "$dir/sock" >"$dir/log" 2>&1 &
running=$!
tries=0
until grep -q echoed "$dir/log" || [ $tries = 200 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
kill -9 $peer
wait $running
[ $? = 1 ] && grep -q "closed the connection" "$dir/log"
result $? "testpmd is killed in the middle: closed the connection"
wait $peer 2>/dev/null

echo "dpdk: $passed passed, $failed failed"
[ $failed = 0 ]
