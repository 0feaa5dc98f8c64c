#!/bin/sh
# SPDX-License-Identifier: MIT-0
# The small virtual machine monitor: what its guest did is seen in the disk's image. Skipped where
# there is no KVM. Usage: vmm.sh path/to/vmm
set -u
vmm=$1
. "$(dirname "$0")/support/result.sh"
if [ "$(uname -m)" != x86_64 ]; then
    echo "skipped: this machine is made for x86-64"
    exit 77
fi
make -s build/vmm-guest.elf || exit 1
guest=build/vmm-guest.elf
half=1048576

# The guest copies the first half of the disk onto the second.
good() { # title, text, arguments before the guest
    title=$1
    text=$2
    shift 2
    head -c $((2 * half)) /dev/urandom >"$dir/disk.img"
    head -c $half "$dir/disk.img" >"$dir/first"
    timeout 120 "$vmm" "$@" $guest "$dir/disk.img" >"$dir/log" 2>&1
    status=$?
    if [ $status = 77 ]; then
        cat "$dir/log"
        exit 77
    fi
    [ $status = 0 ] && grep -q "$text" "$dir/log" && cmp -s -n $half "$dir/first" "$dir/disk.img" &&
        tail -c $half "$dir/disk.img" | cmp -s - "$dir/first"
    result $? "$title"
}
bad() { # status, message, arguments
    expected=$1
    message=$2
    shift 2
    timeout 60 "$vmm" "$@" >"$dir/log" 2>&1
    [ $? = "$expected" ] && grep -q "$message" "$dir/log"
    result $? "$message"
}

good "notifies and interrupts through user exits" "^user exits: 513 requests, 65 kicks" --user-exits
for round in 1 2 3 4 5; do
    good "ioeventfd and irqfd, round $round" "^ioeventfd and irqfd: 513 requests"
done
truncate -s 1000 "$dir/odd"
truncate -s 4096 "$dir/small"
head -c 100 $guest >"$dir/header"
bad 1 "is no x86-64 ELF file" "$dir/small" "$dir/disk.img"
bad 1 "is cut short" "$dir/header" "$dir/disk.img"
bad 1 "none: No such file" "$dir/none" "$dir/disk.img"
bad 1 "whole number of sectors" $guest "$dir/odd"
bad 1 "image: No such file" $guest "$dir/image"
bad 2 "usage:" $guest
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && [ "$(stat -c %a /dev/kvm)" != 666 ]; then
    chmod 755 "$dir"
    cp "$vmm" "$dir/vmm"
    setpriv --reuid=65534 --clear-groups "$dir/vmm" $guest "$dir/disk.img" >"$dir/log" 2>&1
    [ $? = 77 ] && grep -q "skipped: /dev/kvm: Permission denied" "$dir/log"
    result $? "skipped: /dev/kvm: Permission denied"
fi

echo "vmm: $passed passed, $failed failed"
[ $failed = 0 ]
