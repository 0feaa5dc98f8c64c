#!/bin/sh
# SPDX-License-Identifier: MIT-0
# The block and the entropy front-end against QEMU's devices: machine x transport x ring format x
# features, and each property that changes a layout. A line for each run, then a table of what ran.
# Usage: peers.sh path/to/qtest-blk path/to/qtest-rng
set -u
blk=$1
rng=$2
. "$(dirname "$0")/support/result.sh"
: >"$dir/table"

# One run of both programs. They compare the data with the image or with what QEMU was fed with, and
# see the interrupts; what was negotiated is looked for here, in their output as one line.
both() { # machine, transport, what is special, what must be shown (a regular expression), arguments...
    machine=$1
    transport=$2
    what=$3
    text=$4
    shift 4
    size=
    case $transport in virtio-mmio*) size=yes ;; esac # QEMU proposes 1024 entries there
    one blk ${size:+32} "$@"
    one rng ${size:+8} "$@"
}

one() { # blk or rng, queue size or nothing, arguments...
    program=$1
    shift
    case ${1:-} in
    [0-9]*) set -- --queue-size "$@" ;;
    esac
    path=$rng
    if [ "$program" = blk ]; then
        path=$blk
        head -c 1048576 /dev/urandom >"$dir/disk.img"
        set -- "$@" --write "$dir/disk.img"
    fi
    timeout 120 "$path" --machine "$machine" --transport "$transport" "$@" >"$dir/log" 2>&1 &&
        tr '\n' ';' <"$dir/log" | grep -q "$text"
    status=$?
    result $status "$program, $machine, $transport, $what"
    echo "$machine|$transport|$status" >>"$dir/table"
}

# Both settings of each feature in each ring format of the transport.
features() { # machine, transport, formats, title, arguments...
    on=$1
    through=$2
    formats=$3
    title=$4
    shift 4
    for packed in $formats; do
        format=split
        [ "$packed" = off ] || format=packed
        for event_idx in on off; do
            for indirect in on off; do
                accepted=
                [ $indirect = off ] || accepted=" INDIRECT_DESC"
                [ $event_idx = off ] || accepted="$accepted EVENT_IDX"
                # Nothing between the device's own features and those of VERSION_1 but these.
                both "$on" "$through" \
                    "$title packed=$packed event_idx=$event_idx indirect_desc=$indirect" \
                    "features  \( BLK_SIZE FLUSH\)\{0,1\}\( ANY_LAYOUT\)\{0,1\}$accepted\( VERSION_1.*\)\{0,1\};.*entries, $format;" \
                    "$@" --property packed="$packed" --property event_idx=$event_idx \
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
    for property in page-per-vq=on vectors=0 any_layout=off notify_on_empty=off; do
        both "$1" pci-modern "$property" "VERSION_1" --property $property
        both "$1" pci-legacy "$property" "entries, split" --property $property
    done
    both "$1" pci-modern "queue_reset=on" "VERSION_1 RING_RESET" --property queue_reset=on
    both "$1" pci-modern "queue_reset=off" "VERSION_1\( RING_PACKED\)\{0,1\};" \
        --property queue_reset=off
    both "$1" pci-modern "MSI-X on" "MSI-X on" --msix
    both "$1" pci-legacy "MSI-X on" "MSI-X on.*offset 0x0018" --msix
}

x86=no
arm=no
command -v qemu-system-x86_64 >/dev/null && x86=yes
command -v qemu-system-aarch64 >/dev/null && arm=yes
if [ $x86 = yes ]; then
    pci q35
    pci pc
    features microvm virtio-mmio "off on" ""
    features microvm virtio-mmio-v1 off ""
fi
if [ $arm = yes ]; then
    pci virt
    features virt virtio-mmio "off on" ""
    features virt virtio-mmio-v1 off ""
fi

echo
printf '%-8s  %-15s  %6s  %6s\n' machine transport passed failed
sort "$dir/table" | awk -F'|' '
    function row() { if (key != "") printf "%-8s  %-15s  %6d  %6d\n", m, t, ok, bad }
    key != $1 "|" $2 { row(); key = $1 "|" $2; m = $1; t = $2; ok = bad = 0 }
    { if ($3 == 0) ok++; else bad++ }
    END { row() }'
[ $x86 = yes ] || echo "skipped  q35, pc, microvm: qemu-system-x86_64 is not installed"
[ $arm = yes ] || echo "skipped  virt: qemu-system-aarch64 is not installed"
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed != 0 ]
