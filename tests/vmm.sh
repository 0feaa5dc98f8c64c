#!/bin/sh
# SPDX-License-Identifier: MIT-0
# The small virtual machine monitor: what its guest did is seen in the disk's image, and what it cost in the
# exits. Skipped where there is no KVM. Usage: vmm.sh path/to/vmm
set -u
vmm=$1
. "$(dirname "$0")/support/result.sh"
if [ "$(uname -m)" != x86_64 ]; then
    echo "skipped: this machine is made for x86-64"
    exit 77
fi
make -s build/vmm-guest.elf build/vmm-probe.elf || exit 1
guest=build/vmm-guest.elf

# The guest copies the first half of the disk onto the second, in requests of a page, and flushes. Sets the
# numbers of the last line.
copy() { # bytes of a half, options
    half=$1
    shift
    head -c $((2 * half)) /dev/urandom >"$dir/disk.img"
    head -c "$half" "$dir/disk.img" >"$dir/first"
    timeout 30 "$vmm" "$@" $guest "$dir/disk.img" >"$dir/log" 2>&1
    status=$?
    if [ $status = 77 ]; then
        cat "$dir/log"
        exit 77
    fi
    [ $status = 0 ] && cmp -s -n "$half" "$dir/first" "$dir/disk.img" &&
        tail -c "$half" "$dir/disk.img" | cmp -s - "$dir/first" || return 1
    number='\([0-9]*\)'
    # shellcheck disable=SC2046
    set -- $(sed -n "s/.*: $number requests, $number kicks ($number exits), $number interrupts, $number exits in all$/\
\1 \2 \3 \4 \5/p" "$dir/log")
    [ $# = 5 ] || return 1
    requests=$1 kicks=$2 kick_exits=$3 interrupts=$4 exits=$5
    [ "$requests" = $((2 * half / 4096 + 1)) ] && [ "$interrupts" -gt 1 ]
}

# Two disks, the second twice as large: what it has more of exits is what its kicks and interrupts cost. A KVM
# that ends a level-triggered interrupt when it delivers it, and not when the guest does, may deliver it again:
# then up to twice as many.
costs() { # exits of a kick, of an interrupt, options
    a_kick=$1
    an_interrupt=$2
    shift 2
    copy 262144 "$@" && [ "$kick_exits" = $((a_kick * kicks)) ] || return 1
    few_kicks=$kick_exits few_interrupts=$((an_interrupt * interrupts)) few_exits=$exits
    copy 524288 "$@" && [ "$kick_exits" = $((a_kick * kicks)) ] || return 1
    more=$((exits - few_exits - kick_exits + few_kicks))
    [ $more -ge $((an_interrupt * interrupts - 2 * few_interrupts)) ] &&
        [ $more -le $((2 * an_interrupt * interrupts - few_interrupts)) ]
}

good() { # exits of an interrupt, transport as the guest names it, interrupt, ring, options
    an_interrupt=$1
    text="guest: $2, $3, $4"
    title="$2, $3, $4"
    shift 4
    costs 0 "$an_interrupt" "$@" && grep -qx "$text" "$dir/log" && grep -q "^ioeventfd and irqfd: " "$dir/log"
    result $? "$title: ioeventfd and irqfd"
    costs 1 "$an_interrupt" "$@" --user-exits && grep -qx "$text" "$dir/log" && grep -q "^user exits: " "$dir/log"
    result $? "$title: user exits"
}
probe() { # title, exits for kicks, options: tries what a driver does not
    title=$1
    text=$2
    shift 2
    timeout 30 "$vmm" --transport pci "$@" build/vmm-probe.elf "$dir/disk.img" >"$dir/log" 2>&1 &&
        grep -qx "probe: all is as it has to be" "$dir/log" && grep -q " kicks ($text exits)" "$dir/log"
    result $? "$title"
}
bare_metal() { # options: an image of examples/boards writes each byte of the first half plus one to the second
    head -c 65536 /dev/urandom >"$dir/disk.img"
    head -c 32768 "$dir/disk.img" | LC_ALL=C tr '\000-\377' '\001-\377\000' >"$dir/second"
    timeout 60 "$vmm" "$@" "$dir/boards/x86/blk.elf" "$dir/disk.img" >"$dir/log" 2>&1 && grep -qx "done" "$dir/log" &&
        tail -c 32768 "$dir/disk.img" | cmp -s - "$dir/second"
    result $? "a bare-metal image: $*"
}
bad() { # status, message, arguments
    expected=$1
    message=$2
    shift 2
    timeout 60 "$vmm" "$@" >"$dir/log" 2>&1
    [ $? = "$expected" ] && grep -q "$message" "$dir/log"
    result $? "$message"
}

good 2 virtio-mmio line packed
good 2 virtio-mmio line split --split --transport mmio
good 0 pci-modern MSI-X packed --transport pci
good 0 pci-modern MSI-X split --transport pci --split
good 1 pci-modern line packed --transport pci --line
good 1 pci-modern line split --transport pci --line --split
good 0 pci-legacy MSI-X split --transport pci-legacy
good 1 pci-legacy line split --transport pci-legacy --line
good 0 pci-rfc2011 MSI-X split --transport pci-rfc2011
good 1 pci-rfc2011 line split --transport pci-rfc2011 --line
probe "a guest that tries what it may: ioeventfd and irqfd" 0
probe "a guest that tries what it may: user exits" "[1-9]*" --user-exits
if make -s "BUILD=$dir" "$dir/boards/x86/blk.elf" >"$dir/log" 2>&1; then
    bare_metal --transport pci
    bare_metal --transport pci-legacy --user-exits
else
    result 1 "a bare-metal image builds"
fi
timeout 60 "$vmm" "$dir/boards/x86/blk.elf" "$dir/disk.img" >"$dir/log" 2>&1
[ $? = 1 ] && grep -q "no block device" "$dir/log"
result $? "a bare-metal image finds no device outside of PCI"
truncate -s 1000 "$dir/odd"
truncate -s 4096 "$dir/small"
head -c 100 $guest >"$dir/header"
: >"$dir/empty"
bad 1 "is no x86-64 ELF file" "$dir/small" "$dir/disk.img"
bad 1 "is cut short" "$dir/header" "$dir/disk.img"
bad 1 "none: No such file" "$dir/none" "$dir/disk.img"
bad 1 "odd: size is not a whole number of sectors" --transport pci $guest "$dir/odd"
bad 1 "empty: size is not a whole number of sectors" $guest "$dir/empty"
bad 1 "image: No such file" $guest "$dir/image"
bad 2 "usage:" $guest
bad 2 "usage:" --transport isa $guest "$dir/disk.img"
bad 2 "usage:" --transport
bad 2 "usage:" --msix $guest "$dir/disk.img"
bad 0 "usage:" --help
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && [ "$(stat -c %a /dev/kvm)" != 666 ]; then
    chmod 755 "$dir"
    cp "$vmm" "$dir/vmm"
    setpriv --reuid=65534 --clear-groups "$dir/vmm" $guest "$dir/disk.img" >"$dir/log" 2>&1
    [ $? = 77 ] && grep -q "skipped: /dev/kvm: Permission denied" "$dir/log"
    result $? "skipped: /dev/kvm: Permission denied"
fi

echo "vmm: $passed passed, $failed failed"
[ "$failed" = 0 ]
