#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Makes the configuration space dumps of tests/dumps anew from QEMU's devices (all but rfc2011.txt,
# which no device has). Usage: dumps.sh [directory]
set -eu
cd "$(dirname "$0")/.."
to=${1:-tests/dumps}
mkdir -p build "$to"
${CC:-cc} -std=c11 -O1 -g -Wall -Wextra -Wpedantic -Wconversion -Wshadow -I. tests/dump_pci.c examples/hosts/qtest.c \
    examples/hosts/qtest_pci.c -o build/dump_pci

dump() { # file, machine, QEMU arguments
    name=$1
    shift
    build/dump_pci "$@" >"$to/$name.txt"
}

null="-blockdev null-co,node-name=null,read-zeroes=on"
# shellcheck disable=SC2086
for machine in pc q35; do
    modern=disable-legacy=on,disable-modern=off
    both=disable-legacy=off,disable-modern=off
    legacy=disable-legacy=off,disable-modern=on
    for kind in modern both legacy; do
        eval "with=\$$kind"
        [ $kind = both ] && kind=transitional
        dump $machine-$kind $machine $null -netdev user,id=net \
            -device virtio-blk-pci,addr=3,drive=null,$with \
            -device virtio-net-pci,addr=4,netdev=net,$with -device virtio-serial-pci,addr=5,$with \
            -device virtio-rng-pci,addr=6,$with -device virtio-balloon-pci,addr=7,$with \
            -device virtio-scsi-pci,addr=8,$with
    done
    dump $machine-pio-notify $machine $null \
        -device virtio-blk-pci,addr=3,drive=null,$modern,modern-pio-notify=on \
        -device virtio-rng-pci,addr=4,$both,modern-pio-notify=on
    dump $machine-page-per-vq $machine $null \
        -device virtio-blk-pci,addr=3,drive=null,$modern,page-per-vq=on \
        -device virtio-net-pci,addr=4,$both,page-per-vq=on
    dump $machine-msix-on --msix $machine $null \
        -device virtio-blk-pci,addr=3,drive=null,$legacy \
        -device virtio-net-pci,addr=4,$both -device virtio-rng-pci,addr=5,$modern
    dump $machine-other $machine -device virtio-gpu-pci,addr=3 \
        -device virtio-keyboard-pci,addr=4 -device virtio-iommu-pci,addr=5
done
