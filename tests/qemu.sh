#!/bin/sh
# SPDX-License-Identifier: MIT-0
# The block and the entropy front-end against QEMU's own devices: every transport, split and packed
# rings, event_idx and indirect on and off, MSI-X, queue sizes, a reset of the queue alone, and what
# goes wrong. Usage: qemu.sh path/to/qtest-blk path/to/qtest-rng
set -u
blk=$1
rng=$2
. "$(dirname "$0")/support/result.sh"

# A run that must succeed, must have seen interrupts (or none, with MSI-X on), and whose output, as
# one line, must show `text` (a regular expression).
good() { # title, text, program and its arguments
    title=$1
    text=$2
    shift 2
    timeout 120 "$@" >"$dir/log" 2>&1 && tr '\n' ';' <"$dir/log" | grep -q "$text"
    result $? "$title"
}
good_blk() { # title, text, arguments of qtest-blk without the image
    title=$1
    text=$2
    shift 2
    head -c 4194304 /dev/urandom >"$dir/disk.img"
    good "blk, $title" "$text" "$blk" "$@" "$dir/disk.img"
}
good_rng() { # title, text, arguments of qtest-rng
    title=$1
    text=$2
    shift 2
    good "rng, $title" "$text" "$rng" "$@"
}

# A run that must end with status 1 and this message, and leave the image alone.
bad() { # title, message, program and its arguments (the image included)
    title=$1
    message=$2
    shift 2
    head -c 65536 /dev/zero >"$dir/disk.img"
    timeout 120 "$@" >"$dir/log" 2>&1
    [ $? = 1 ] && grep -q "$message" "$dir/log" && cmp -s -n 65536 "$dir/disk.img" /dev/zero
    result $? "$title: $message"
}

# Both devices with each setting of the two features; what was negotiated, the ring's size and
# format are looked for in the output. Without a size the device proposes one.
matrix() { # transport, format, size for blk, size for rng
    packed=off
    [ "$2" = packed ] && packed=on
    for event_idx in on off; do
        for indirect in on off; do
            cell="$1, $2, event_idx=$event_idx indirect_desc=$indirect"
            features=
            [ $indirect = on ] && features=" INDIRECT_DESC"
            [ $event_idx = on ] && features="$features EVENT_IDX"
            features="\( ANY_LAYOUT\)\{0,1\}$features\( VERSION_1.*\)\{0,1\};"
            good_blk "$cell" \
                "  BLK_SIZE FLUSH$features.* ${3:-256} entries, $2;.*image.*read back equal" \
                --write --transport "$1" ${3:+--queue-size "$3"} --property packed=$packed \
                --property event_idx=$event_idx --property indirect_desc=$indirect
            good_rng "$cell" "features  $features.* ${4:-8} entries, $2;.*received" \
                --transport "$1" ${4:+--queue-size "$4"} --property packed=$packed \
                --property event_idx=$event_idx --property indirect_desc=$indirect
        done
    done
}

# On virtio-mmio QEMU takes up to 1024 entries for any queue; with fewer the ring wraps.
matrix pci-legacy split
for transport in pci-modern pci-modern-pio; do
    matrix $transport split
    matrix $transport packed
done
matrix virtio-mmio split 32 8
matrix virtio-mmio packed 30 7

good_blk "pci-legacy, MSI-X on: configuration at 24" "offset 0x0018" --msix --transport pci-legacy
good_blk "pci-legacy, MSI-X off: configuration at 20" "offset 0x0014" --transport pci-legacy
good_blk "pci-legacy stays split whatever is offered" "entries, split" --write \
    --transport pci-legacy --property packed=on
good_blk "pci-modern-pio notifies through an I/O BAR" "notify        BAR 2" \
    --transport pci-modern-pio
good_blk "pci-modern, read-only disk" "sectors, read-only" --transport pci-modern
for format in split packed; do
    packed=packed=off
    [ $format = packed ] && packed=packed=on
    good_blk "$format, MSI-X on" "MSI-X on.*entries, $format" --msix --property $packed
    good_rng "$format, MSI-X on" "MSI-X on.*entries, $format" --msix --property $packed
    good_blk "$format, notify page per queue" "entries, $format.*read back equal" --write \
        --property page-per-vq=on --property $packed
    good_rng "$format, notify page per queue" "entries, $format" --property page-per-vq=on \
        --property $packed
    good_blk "$format, a smaller queue than proposed" "queue      0, 8 entries, $format" --write \
        --queue-size 8 --property $packed
    for size in 1 2 4; do
        good_rng "$format, $size entries" "queue      0, $size entries, $format" \
            --queue-size $size --property $packed
    done
    good_blk "$format, queue reset to a smaller one" \
        "256 entries, $format.*read back equal.*taken back.*16 entries, $format.*read back equal" \
        --write --reset-queue 16 --property $packed
    good_blk "$format, queue reset to a larger one" \
        "16 entries, $format.*taken back.*256 entries, $format.*equal to the image" \
        --queue-size 16 --reset-queue 256 --property $packed
    good_rng "$format, queue reset, requests in the device" \
        "8 entries, $format.*taken back.*4 entries, $format.*equal to" \
        --reset-queue 4 --property $packed
done
good_blk "packed, no power of two" "queue      0, 100 entries, packed.*read back equal" --write \
    --queue-size 100 --property packed=on
for size in 3 5 6; do
    good_rng "packed, $size entries" "queue      0, $size entries, packed" --queue-size $size \
        --property packed=on
done
good_rng "a few bytes at a time" "received   600 bytes" --bytes 1 --property max-bytes=100,period=1
good_rng "packed, queue reset from 5 to 7 entries" "5 entries, packed.*taken back.*7 entries" \
    --queue-size 5 --reset-queue 7 --property packed=on

# The other machines and register layouts, one run each; `make peers` crosses them with everything.
for cell in "virtio-mmio-v1:--transport virtio-mmio-v1" \
    "virt virtio-mmio-v1:--machine virt --transport virtio-mmio-v1" \
    "virt virtio-mmio:--machine virt --transport virtio-mmio --property packed=on" \
    "virt pci-modern:--machine virt --property packed=on" \
    "virt pci-legacy:--machine virt --transport pci-legacy" \
    "pc pci-modern:--machine pc" "pc pci-legacy:--machine pc --transport pci-legacy" \
    "transitional, driven modern:--transitional" \
    "transitional, driven legacy:--transitional --transport pci-legacy" \
    "registers through PCI_CFG:--pci-cfg" "virt, through PCI_CFG:--machine virt --pci-cfg"; do
    # On virtio-mmio QEMU proposes 1024 entries for any queue.
    size=
    case $cell in *mmio*) size="--queue-size 8" ;; esac
    # shellcheck disable=SC2086
    good_blk "${cell%%:*}" "read back equal" --write ${cell#*:} ${size:+--queue-size 32}
    # shellcheck disable=SC2086
    good_rng "${cell%%:*}" "received" ${cell#*:} $size
done

bad "blk, no QEMU" "qemu-that-is-not-there" "$blk" --qemu qemu-that-is-not-there "$dir/disk.img"
bad "rng, no QEMU" "qemu-that-is-not-there" "$rng" --qemu qemu-that-is-not-there
bad "blk, no image" "No such file" "$blk" "$dir/missing.img"
bad "blk, no device" "no device" "$blk" --no-device "$dir/disk.img"
bad "rng, no device" "no device" "$rng" --no-device
bad "unknown property" "colour" "$blk" --property colour=red "$dir/disk.img"
bad "feature set refused" "refused the feature set" "$blk" --property iommu_platform=on \
    "$dir/disk.img"
bad "queue size refused" "queue size not accepted" "$blk" --queue-size 512 "$dir/disk.img"
bad "packed, queue size refused" "queue size not accepted" "$blk" --queue-size 300 \
    --property packed=on "$dir/disk.img"
bad "split, no power of two" "not one a ring of this format" "$blk" --queue-size 100 "$dir/disk.img"
bad "legacy queue size is fixed" "queue size not accepted" "$blk" --queue-size 128 \
    --transport pci-legacy "$dir/disk.img"
bad "no queue reset where it is not offered" "cannot be reset alone" "$blk" --reset-queue 16 \
    --property queue_reset=off "$dir/disk.img"
bad "pci-legacy, no queue reset" "cannot be reset alone" "$rng" --reset-queue 4 \
    --transport pci-legacy
bad "pci-legacy has no PCI_CFG" "layout not supported" "$rng" --pci-cfg --transport pci-legacy
# QEMU offers RING_RESET on virtio-mmio, but has no QueueReset register there.
bad "virtio-mmio, queue reset without an answer" "did not finish in time" "$rng" --reset-queue 4 \
    --queue-size 8 --transport virtio-mmio
head -c 1000 /dev/zero >"$dir/odd.img"
bad "half a sector" "whole number of sectors" "$blk" "$dir/odd.img"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    head -c 65536 /dev/zero >"$dir/secret.img"
    chmod 600 "$dir/secret.img"
    chmod 755 "$dir"
    cp "$blk" "$dir/qtest-blk"
    setpriv --reuid=65534 --clear-groups "$dir/qtest-blk" "$dir/secret.img" >"$dir/log" 2>&1
    [ $? = 1 ] && grep -q "Permission denied" "$dir/log"
    result $? "image without permission: Permission denied"
fi

echo "qemu: $passed passed, $failed failed"
[ $failed = 0 ]
