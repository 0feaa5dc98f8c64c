#!/bin/sh
# SPDX-License-Identifier: MIT-0
# The block and the entropy front-end against QEMU's devices: machine x transport x ring format x features, and
# each property that changes a layout. A line for each run, then a table of what ran.
# Usage: peers.sh path/to/qtest-blk path/to/qtest-rng
set -u
blk=$1
rng=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
: >"$dir/table"
passed=0
failed=0
runs=0

# One run of both programs: machine, transport, what is special, arguments... The output is judged by the
# programs: data against the image or what QEMU was fed with, interrupts by what the lines did.
both() {
    machine=$1
    transport=$2
    what=$3
    shift 3
    sizes=
    case $transport in virtio-mmio*) sizes=yes ;; esac # QEMU proposes 1024 entries there
    for program in "$blk" "$rng"; do
        set -- --machine "$machine" --transport "$transport" "$@"
        if [ "$program" = "$blk" ]; then
            head -c 1048576 /dev/urandom >"$dir/disk.img"
            timeout 120 "$program" "$@" ${sizes:+--queue-size 32} --write "$dir/disk.img" >"$dir/log" 2>&1
        else
            timeout 120 "$program" "$@" ${sizes:+--queue-size 8} >"$dir/log" 2>&1
        fi
        status=$?
        shift 4
        runs=$((runs + 1))
        if [ $status = 0 ]; then
            passed=$((passed + 1))
            echo "ok" >"$dir/mark"
        else
            failed=$((failed + 1))
            echo "FAILED" >"$dir/mark"
        fi
        printf '%4d  %-6s  %s, %s, %s, %s\n' $runs "$(cat "$dir/mark")" "$(basename "$program")" "$machine" \
            "$transport" "$what"
        [ $status = 0 ] || sed 's/^/              /' "$dir/log"
        echo "$machine|$transport|$(cat "$dir/mark")" >>"$dir/table"
    done
}

# Both settings of each feature in each ring format of the transport.
features() { # machine, transport, formats, title, arguments...
    machine=$1
    transport=$2
    formats=$3
    title=$4
    shift 4
    for packed in $formats; do
        for event_idx in on off; do
            for indirect in on off; do
                both "$machine" "$transport" \
                    "$title packed=$packed event_idx=$event_idx indirect_desc=$indirect" "$@" \
                    --property packed="$packed" --property event_idx=$event_idx \
                    --property indirect_desc=$indirect
            done
        done
    done
}

pci() { # machine
    features "$1" pci-legacy off "legacy-only,"
    features "$1" pci-modern "off on" "modern-only,"
    features "$1" pci-modern-pio "off on" "modern-only,"
    features "$1" pci-legacy off "transitional," --transitional
    features "$1" pci-modern "off on" "transitional," --transitional
    features "$1" pci-modern "off on" "through PCI_CFG," --pci-cfg
    for property in page-per-vq=on queue_reset=off queue_reset=on vectors=0 any_layout=off \
        notify_on_empty=off; do
        both "$1" pci-modern "$property" --property $property
        case $property in queue_reset*) continue ;; esac # modern only
        both "$1" pci-legacy "$property" --property $property
    done
    both "$1" pci-modern "MSI-X on" --msix
    both "$1" pci-legacy "MSI-X on" --msix
}

for program in qemu-system-x86_64 qemu-system-aarch64; do
    command -v $program >/dev/null || echo "skipped: $program is not installed" >>"$dir/skipped"
done
if command -v qemu-system-x86_64 >/dev/null; then
    pci q35
    pci pc
    features microvm virtio-mmio "off on" ""
    features microvm virtio-mmio-v1 off ""
fi
if command -v qemu-system-aarch64 >/dev/null; then
    pci virt
    features virt virtio-mmio "off on" ""
    features virt virtio-mmio-v1 off ""
fi

echo
printf '%-8s  %-15s  %6s  %6s\n' machine transport passed failed
sort "$dir/table" | awk -F'|' '{ n[$1 "|" $2 "|" $3]++; k[$1 "|" $2] = 1 }
    END { for (c in k) { split(c, a, "|"); printf "%-8s  %-15s  %6d  %6d\n", a[1], a[2], n[c "|ok"], n[c "|FAILED"] } }' |
    sort
[ ! -e "$dir/skipped" ] || cat "$dir/skipped"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
