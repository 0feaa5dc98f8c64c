#!/bin/sh
# SPDX-License-Identifier: MIT-0
# The block driver as a vhost-user front-end: against qemu-storage-daemon, and against a back-end
# that answers wrongly. Usage: vhost_front.sh path/to/vhost-front-blk [all]
set -u
front=$1
all=${2:-}
own=${3:-}
here=$(dirname "$0")
. "$here/support/result.sh"

# A run that must succeed, and whose output, as one line, must show `text` (a regular expression).
good() { # title, text, arguments without the image
    title=$1
    text=$2
    shift 2
    head -c 2097152 /dev/urandom >"$dir/disk.img"
    timeout 120 "$front" "$@" "$dir/disk.img" >"$dir/log" 2>&1 &&
        tr '\n' ';' <"$dir/log" | grep -q "$text"
    result $? "$title"
}

# A run that must end with status 1 and this message, and leave the image alone.
bad() { # title, message, arguments without the image
    title=$1
    message=$2
    shift 2
    head -c 65536 /dev/zero >"$dir/disk.img"
    timeout 60 "$front" "$@" "$dir/disk.img" >"$dir/log" 2>&1
    [ $? = 1 ] && grep -q "$message" "$dir/log" && cmp -s -n 65536 "$dir/disk.img" /dev/zero
    result $? "$title: $message"
}

# Waits until `command...` succeeds: ten seconds at most.
await() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || return 1
        sleep 0.05
    done
}
listening() { # the flag says that connections are accepted
    grep -q " 00010000 .* $1\$" /proc/net/unix
}

# Starts a back-end, in $peer. It ends with the connection or, forgotten, by the timeout.
fake() { # fault, protocol features
    rm -f "$dir/sock"
    timeout 30 "$here/vhost_fake.py" "$dir/sock" "$@" >"$dir/heard" 2>&1 &
    peer=$!
    await listening "$dir/sock"
}
wrong() { # message, fault, protocol features, arguments
    message=$1
    what=$2
    features=${3:-0x209} # MQ, REPLY_ACK, CONFIG
    [ $# -lt 3 ] && shift 2 || shift 3
    fake "$what" "$features"
    bad "$what, protocol features $features" "$message" --timeout 1000 --socket "$dir/sock" "$@"
    wait $peer
}
heard() { # title, requests in their order, from what the back-end heard
    printf '%s\n' "$2" | tr ' ' '\n' >"$dir/expected"
    sed 's/ .*//' "$dir/heard" >"$dir/log"
    cmp -s "$dir/log" "$dir/expected"
    result $? "$1"
}
said() { # title, what a line that the back-end heard must look like
    grep -q "$2" "$dir/heard" || cp "$dir/heard" "$dir/log"
    grep -q "$2" "$dir/heard"
    result $? "$1"
}

# ----- a real back-end -----

features() { # EVENT_IDX, INDIRECT_DESC, as they must show
    accepted=
    [ "$2" = off ] || accepted=" INDIRECT_DESC"
    [ "$1" = off ] || accepted="$accepted EVENT_IDX"
    echo "features   BLK_SIZE FLUSH$accepted VERSION_1;"
}
cell() { # EVENT_IDX, INDIRECT_DESC, queue size, regions, queues
    good "event_idx=$1 indirect_desc=$2, $3 entries, $4 regions, $5 queues" \
        "$5 queue.*$(features "$1" "$2").* $3 entries, split;.*to the image.*read back equal" \
        --write --rounds 2 --event-idx "$1" --indirect "$2" --queue-size "$3" --regions "$4" \
        --queues "$5"
}

kill_daemon() { # the back-end is killed in the middle
    head -c 2097152 /dev/urandom >"$dir/disk.img"
    rm -f "$dir/sock"
    qemu-storage-daemon --blockdev "driver=file,node-name=f,filename=$dir/disk.img" \
        --export "vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=$dir/sock,writable=on" &
    peer=$!
    await listening "$dir/sock"
    timeout 60 "$front" --write --rounds 1000000 --socket "$dir/sock" "$dir/disk.img" \
        >"$dir/log" 2>&1 &
    running=$!
    await grep -q "read back equal" "$dir/log"
    kill -9 $peer
    wait $running
    [ $? = 1 ] && grep -q "closed the connection" "$dir/log" && [ "$(wc -l <"$dir/log")" -gt 5 ]
    result $? "the daemon is killed in the middle: closed the connection"
    wait $peer 2>/dev/null
}

if command -v qemu-storage-daemon >/dev/null; then
    for event_idx in on off; do
        for indirect in on off; do
            for size in 8 128 ${all:+16 64 1024}; do
                for regions in 2 ${all:+1}; do
                    cell $event_idx $indirect $size $regions 1
                    [ -z "$all" ] || cell $event_idx $indirect $size $regions 4
                done
            done
        done
    done
    [ -n "$all" ] || cell on on 128 1 4
    good "read-only export" "features   RO.*sectors, read-only.*equal to the image"
    bad "packed rings, not offered" "does not offer RING_PACKED" --packed
    bad "no power of two" "not one a ring of this format" --queue-size 100
    bad "a queue shorter than a request" "more segments than the queue has" --queue-size 2
    kill_daemon
else
    echo "  skipped  qemu-storage-daemon is not installed"
fi

# ----- our own back-end: packed rings too, and one process for all front-ends -----

own_cell() { # split or packed, EVENT_IDX, INDIRECT_DESC, queue size, regions
    format=$1
    shift
    head -c 2097152 /dev/urandom >"$dir/own.img"
    option=
    [ "$format" = split ] || option=--packed
    timeout 60 "$front" --write --rounds 2 --socket "$dir/sock" --event-idx "$1" --indirect "$2" \
        --queue-size "$3" --regions "$4" $option "$dir/own.img" >"$dir/log" 2>&1 &&
        tr '\n' ';' <"$dir/log" | grep -q " $3 entries, $format;.*to the image.*read back equal"
    result $? "own back-end, $format, event_idx=$1 indirect_desc=$2, $3 entries, $4 regions"
}

serve() { # starts our own back-end, in $peer
    "$own" --socket "$dir/sock" --image "$dir/own.img" >>"$dir/served" 2>&1 &
    peer=$!
    trap 'kill -9 $peer 2>/dev/null; rm -rf "$dir"' EXIT
}
reconnect() { # split or packed: the back-end is killed and another one started until the job is done
    option=
    [ "$1" = split ] || option=--packed
    head -c 2097152 /dev/urandom >"$dir/own.img"
    rm -f "$dir/sock" "$dir/served"
    serve
    await listening "$dir/sock"
    timeout 120 "$front" --write --rounds 100 --reconnect 100000 --socket "$dir/sock" $option \
        "$dir/own.img" >"$dir/log" 2>&1 &
    running=$!
    while kill -0 $running 2>/dev/null; do
        sleep 0.03
        kill -9 $peer
        wait $peer 2>/dev/null
        serve
    done
    kill -9 $peer
    wait $peer 2>/dev/null
    wait $running
    ended=$?
    again=$(sed -n 's/.* \([0-9]*\) new back-ends$/\1/p' "$dir/log")
    [ $ended = 0 ] && [ "$again" -gt 10 ] && grep -q "in flight served again" "$dir/served" &&
        ! grep -q "dropped\|left alone" "$dir/served"
    result $? "own back-end killed again and again, $1: the driver goes on with the next one"
}

if [ -n "$own" ]; then
    rm -f "$dir/sock"
    head -c 2097152 /dev/zero >"$dir/own.img"
    serve
    await listening "$dir/sock"
    for event_idx in on off; do
        for indirect in on off; do
            for regions in 2 1; do
                for size in 8 128 1024; do
                    own_cell split $event_idx $indirect $size $regions
                    own_cell packed $event_idx $indirect $size $regions
                done
                for size in 7 100; do
                    own_cell packed $event_idx $indirect $size $regions
                done
            done
        done
    done
    kill $peer
    wait $peer
    reconnect split
    reconnect packed
fi

# ----- no back-end, or a bad one -----

bad "no socket" "No such file" --socket "$dir/none"
: >"$dir/file"
bad "a file" "Connection refused" --socket "$dir/file"
bad "a path too long for a socket" "name too long" --socket "$dir/$(printf '%0120d' 0)"
bad "no daemon" "no-such-daemon: No such file" --daemon no-such-daemon
bad "a daemon that ends at once" "closed the connection at GET_FEATURES" --daemon false

setup="GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM SET_OWNER"
ring="SET_VRING_NUM SET_VRING_BASE SET_VRING_ADDR SET_VRING_CALL SET_VRING_KICK"
wrong "device does not answer" none
heard "requests in their order" "$setup GET_CONFIG SET_FEATURES SET_MEM_TABLE GET_CONFIG \
GET_CONFIG $ring SET_VRING_ENABLE SET_VRING_ENABLE GET_VRING_BASE"
said "no feature that means something else here" "SET_FEATURES.*ack 0x170000000"
said "two regions, two descriptors" "SET_MEM_TABLE 72 bytes, 2 fds, ack +0x[0-9a-f]* +0x"
said "a split ring starts at 0" "SET_VRING_BASE.*queue 0: 0x0$"
wrong "no record of requests in flight" none 0x209 --reconnect 1
wrong "device does not answer" none 0x209 --packed --regions 1
said "a packed ring starts with both wrap counters" "SET_VRING_BASE.*queue 0: 0x80008000$"
said "RING_PACKED goes to the back-end" "SET_FEATURES.*0x570000000"
said "one region" "SET_MEM_TABLE 40 bytes, 1 fds"
wrong "device does not answer" none 0x2209
said "a reset resets the device" "RESET_DEVICE"
wrong "device does not answer" none 0x201
heard "without REPLY_ACK a question settles it" "$setup GET_CONFIG SET_FEATURES SET_MEM_TABLE \
GET_FEATURES GET_CONFIG GET_CONFIG $ring GET_FEATURES SET_VRING_ENABLE GET_FEATURES \
SET_VRING_ENABLE GET_VRING_BASE"
wrong "outside the device configuration" none 1
wrong "outside the device configuration" none -1
heard "no protocol features, none asked for" \
    "GET_FEATURES SET_OWNER SET_FEATURES SET_MEM_TABLE GET_FEATURES"

wrong "GET_FEATURES with 4 bytes, not 8" size
wrong "GET_FEATURES with 4294967280 bytes" huge
wrong "GET_PROTOCOL_FEATURES with request 1" request
wrong "GET_QUEUE_NUM with flags 0x1" flags
wrong "GET_QUEUE_NUM with flags 0x6" version
wrong "has 0 queues" queues-0
wrong "has 1099511627776 queues" queues-many
wrong "refuses 60 bytes of device configuration" config-refused
wrong "GET_CONFIG with 20 bytes, not 72" config-short
wrong "GET_CONFIG with 60 bytes at 4" config-elsewhere
wrong "refuses an owner" refuse-SET_OWNER
wrong "refused the feature set" refuse-SET_FEATURES
wrong "refused the feature set" refuse-SET_MEM_TABLE
for request in NUM BASE ADDR CALL KICK; do
    wrong "did not enable the queue" refuse-SET_VRING_$request
done
wrong "refuses to enable queue 0" refuse-SET_VRING_ENABLE
wrong "stopped queue 3, not 0" other-queue
wrong "a message that nobody asked for" unasked
for request in GET_FEATURES SET_FEATURES GET_CONFIG SET_VRING_KICK GET_VRING_BASE; do
    wrong "closed the connection at $request" close-$request
    wrong "did not answer $request within 1000 ms" silent-$request
done
wrong "closed the connection" close-SET_MEM_TABLE 0x201
wrong "closed the connection at GET_CONFIG" half-GET_CONFIG

echo "vhost: $passed passed, $failed failed"
[ $failed = 0 ]
