#!/bin/sh
# SPDX-License-Identifier: MIT-0
# The vhost-user entropy daemon behind QEMU's vhost-user-rng-pci, driven by the entropy driver: every byte is
# compared with what the daemon's source was fed with. Usage: vhost_rng.sh path/to/vhost-rng path/to/qtest-rng [all]
set -u
daemon=$1
rng=$2
all=${3:-}
. "$(dirname "$0")/support/result.sh"
if ! command -v qemu-system-x86_64 >/dev/null; then
    echo "skipped: qemu-system-x86_64 is not installed"
    exit 77
fi

# Starts the daemon, in $running, with these arguments; what it says goes to $dir/err.
start() {
    "$daemon" --socket "$dir/sock" "$@" 2>"$dir/err" &
    running=$!
    trap 'kill -9 $running 2>/dev/null; rm -rf "$dir"' EXIT
    tries=0
    until grep -q "at $dir/sock" "$dir/err" || [ $tries = 100 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
}
stop() { # title: a clean end
    kill -TERM $running
    wait $running && [ ! -e "$dir/sock" ] && grep -q "requests served" "$dir/err"
    result $? "$1"
}

mkfifo "$dir/feed"
good() { # title, text that the output must show as one line, arguments
    title=$1
    text=$2
    shift 2
    timeout 60 "$rng" --vhost-user "$dir/sock" --feed "$dir/feed" "$@" >"$dir/log" 2>&1 &&
        tr '\n' ';' <"$dir/log" | grep -q "$text"
    result $? "$title"
}

start --source "$dir/feed"
for format in split packed; do
    packed=packed=off
    [ $format = packed ] && packed=packed=on
    good "$format" "INDIRECT_DESC EVENT_IDX.*4 entries, $format;.*equal to what" --property $packed
    good "$format, MSI-X on" "MSI-X on.*$format;.*equal to what" --property $packed --msix
    [ -n "$all" ] || continue
    for size in 1 2; do
        good "$format, $size entries" "$size entries, $format;.*equal to what" --property $packed \
            --queue-size $size
    done
    for off in event_idx indirect_desc; do
        good "$format, $off=off" "$format;.*equal to what" --property $packed --property $off=off
    done
    good "$format, a megabyte" "received   1[0-9]\{6\} bytes" --property $packed --bytes 1048576
done
[ "$(grep -c "front-end went away" "$dir/err")" = "$(grep -c "front-end connected" "$dir/err")" ]
result $? "each front-end came and went"
stop "SIGTERM ends the daemon"

printf '%1000s' '' >"$dir/file"
start --source "$dir/file"
timeout 60 "$rng" --vhost-user "$dir/sock" --feed "$dir/feed" >"$dir/log" 2>&1
[ $? = 1 ] && grep -q "data differs" "$dir/log"
result $? "other bytes than those fed are noticed"
stop "SIGTERM ends a daemon with a regular file"

"$daemon" --help >"$dir/out" && grep -q "usage: vhost-rng" "$dir/out"
result $? "--help"
"$daemon" --socket "$dir/sock" --source "$dir/missing" 2>"$dir/err"
[ $? = 1 ] && grep -q "missing: No such file" "$dir/err"
result $? "no source: No such file"

echo "rng: $passed passed, $failed failed"
[ $failed = 0 ]
