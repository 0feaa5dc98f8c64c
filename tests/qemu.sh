#!/bin/sh
# SPDX-License-Identifier: MIT-0
# The block front-end against QEMU's own virtio-blk: every transport, event_idx and indirect on and
# off, MSI-X, and what goes wrong. Usage: qemu.sh path/to/qtest-blk
set -u
program=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
passed=0
failed=0

result() { # status, title
    if [ "$1" = 0 ]; then
        passed=$((passed + 1))
        echo "  ok      $2"
    else
        failed=$((failed + 1))
        echo "  FAILED  $2"
        sed 's/^/          /' "$dir/log"
    fi
}

# A run that must succeed, must have seen interrupts (or none, with MSI-X on), and must show `line`.
good() { # title, line to find, arguments
    title=$1
    line=$2
    shift 2
    head -c 4194304 /dev/urandom >"$dir/disk.img"
    timeout 120 "$program" "$@" "$dir/disk.img" >"$dir/log" 2>&1 && grep -q "$line" "$dir/log"
    result $? "$title"
}

# A run that must end with status 1 and this message, and leave the image alone.
bad() { # title, message, arguments (the image included)
    title=$1
    message=$2
    shift 2
    head -c 65536 /dev/zero >"$dir/disk.img"
    timeout 120 "$program" "$@" >"$dir/log" 2>&1
    [ $? = 1 ] && grep -q "$message" "$dir/log" && cmp -s -n 65536 "$dir/disk.img" /dev/zero
    result $? "$title: $message"
}

for transport in pci-legacy pci-modern pci-modern-pio virtio-mmio; do
    for event_idx in on off; do
        for indirect in on off; do
            good "$transport event_idx=$event_idx indirect_desc=$indirect" \
                "read back equal" --write --transport $transport \
                --property event_idx=$event_idx --property indirect_desc=$indirect
        done
    done
done
good "pci-legacy, MSI-X on: configuration at 24" "offset 0x0018" --msix --transport pci-legacy
good "pci-legacy, MSI-X off: configuration at 20" "offset 0x0014" --transport pci-legacy
good "pci-modern, MSI-X on" "MSI-X on" --msix --transport pci-modern
good "pci-modern, notify page per queue" "read back equal" --write --property page-per-vq=on
good "pci-modern-pio notifies through an I/O BAR" "notify        BAR 2" --transport pci-modern-pio
good "pci-modern, a smaller queue than proposed" "queue      0, 8 entries" --write --queue-size 8
good "virtio-mmio, a smaller queue than proposed" "queue      0, 16 entries" \
    --write --queue-size 16 --transport virtio-mmio
good "pci-modern, read-only disk" "sectors, read-only" --transport pci-modern

bad "no QEMU" "qemu-that-is-not-there" --qemu qemu-that-is-not-there "$dir/disk.img"
bad "no image" "No such file" "$dir/missing.img"
bad "no device" "no device" --no-disk "$dir/disk.img"
bad "unknown property" "colour" --property colour=red "$dir/disk.img"
bad "feature set refused" "refused the feature set" --property iommu_platform=on "$dir/disk.img"
bad "queue size refused" "queue size not accepted" --queue-size 512 "$dir/disk.img"
bad "legacy queue size is fixed" "queue size not accepted" \
    --queue-size 128 --transport pci-legacy "$dir/disk.img"
head -c 1000 /dev/zero >"$dir/odd.img"
bad "half a sector" "whole number of sectors" "$dir/odd.img"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    head -c 65536 /dev/zero >"$dir/secret.img"
    chmod 600 "$dir/secret.img"
    chmod 755 "$dir"
    cp "$program" "$dir/qtest-blk"
    setpriv --reuid=65534 --clear-groups "$dir/qtest-blk" "$dir/secret.img" >"$dir/log" 2>&1
    [ $? = 1 ] && grep -q "Permission denied" "$dir/log"
    result $? "image without permission: Permission denied"
fi

echo "qemu: $passed passed, $failed failed"
[ $failed = 0 ]
