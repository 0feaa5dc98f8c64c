#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Compiles the headers alone for every CPU we promise, as C11 and C++17, with gcc and clang, with
# nothing but a freestanding compiler, and looks for symbols they would need from a library.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
warn="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wcast-align -Wundef -Werror"
bare="-ffreestanding -nostdlib"
# Every function becomes code, not only those that something calls.
emit="-DVIRTIO_INLINE=__attribute__((used))static"
# The compiler may emit these by itself from plain C; every freestanding target must have them.
allowed='^(memcpy|memset|memmove|memcmp|__aeabi_.*|__gnu_thumb1_case_.*|_(save|rest)gpr0_.*|_GLOBAL_OFFSET_TABLE_|\.TOC\.)$'

try() { # number, command...: an object file that needs nothing from a library
    object="$dir/$1.o"
    log="$dir/$1.log"
    shift
    "$@" -c -o "$object" >"$log" 2>&1 || return 1
    nm -u "$object" 2>/dev/null | awk '{print $2}' | grep -Ev "$allowed" >"$log" || return 0
    return 1
}

one() { # number, what, command...
    number=$1
    what=$2
    shift 2
    if try "$number" "$@"; then
        echo passed >"$dir/$number.result"
    else
        echo failed >"$dir/$number.result"
        { echo "FAILED: $what"; sed 's/^/    /' "$dir/$number.log"; }
    fi
    rm -f "$dir/$number.o"
}

# As many at a time as there are CPUs.
jobs=$(nproc)
number=0
compile() { # what, command...
    number=$((number + 1))
    one $number "$@" &
    [ $((number % jobs)) != 0 ] || wait
}

for header in virtio_ring.h virtio_pci_caps.h virtio.h; do
    printf '#include "%s"\n#include "%s"\nextern int unit;\nint unit;\n' $header $header \
        >"$dir/$header.c"
    cp "$dir/$header.c" "$dir/$header.cc"
done

while read -r cpu cc flags; do
    levels=-O2
    case $cpu in cortex*|rv32*) levels="-O2 -Os" ;; esac # -Os is for the small ones
    for header in virtio_ring.h virtio_pci_caps.h virtio.h; do
        for level in $levels; do
            # shellcheck disable=SC2086
            compile "$cpu $cc $level $header C11" \
                $cc $flags -std=c11 $level $warn $bare "$emit" -I. "$dir/$header.c"
        done
        case $cc in clang*) # the cross gcc packages have no C++
            # shellcheck disable=SC2086
            compile "$cpu $cc $header C++17" \
                $cc $flags -x c++ -std=c++17 -O2 $warn $bare "$emit" -I. "$dir/$header.cc" ;;
        esac
    done
done <<END
x86-64 gcc
x86-64 clang
i386 gcc -m32
i386 clang --target=i386-linux-gnu
aarch64 aarch64-linux-gnu-gcc
aarch64 clang --target=aarch64-linux-gnu
cortex-m0 arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb
cortex-m0 clang --target=thumbv6m-none-eabi
cortex-m4 arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb
cortex-m4 clang --target=thumbv7em-none-eabi
rv32imc riscv64-unknown-elf-gcc -march=rv32imc -mabi=ilp32
rv32imc clang --target=riscv32-none-elf -march=rv32imc -mabi=ilp32
rv64gc riscv64-unknown-elf-gcc -march=rv64gc -mabi=lp64d -mcmodel=medany
rv64gc clang --target=riscv64-none-elf -march=rv64gc
s390x s390x-linux-gnu-gcc
s390x clang --target=s390x-linux-gnu
ppc64 powerpc64-linux-gnu-gcc
ppc64 clang --target=powerpc64-linux-gnu
END

for header in virtio_ring.h virtio_pci_caps.h virtio.h; do
    for std in c++11 c++17 c++20; do
        # shellcheck disable=SC2086
        compile "x86-64 g++ $header $std" g++ -std=$std $warn $bare "$emit" -I. "$dir/$header.cc"
    done
done

# What a program can leave out, each by itself.
while read -r config; do
    for header in virtio_ring.h virtio.h; do
        compile "x86-64 gcc $header $config" \
            gcc -std=c11 -Os $warn $bare "$emit" "-D$config" -I. "$dir/$header.c"
        compile "ppc64 gcc $header $config" \
            powerpc64-linux-gnu-gcc -std=c11 -O2 $warn $bare "$emit" "-D$config" -I. "$dir/$header.c"
    done
done <<END
VIRTIO_HAVE_DRIVER=0
VIRTIO_HAVE_DEVICE=0
VIRTIO_RING_FLAGS=0
VIRTIO_RING_FLAGS=VIRTQ_PACKED
VIRTIO_RING_FLAGS=(VIRTQ_LEGACY|VIRTQ_FOREIGN_ENDIAN)
VIRTIO_RING_ALWAYS=VIRTQ_PACKED
VIRTIO_RING_ALWAYS=(VIRTQ_EVENT_IDX|VIRTQ_IN_ORDER)
VIRTIO_FAST_PATHS=0
END

# Beside Linux's own headers, in either order.
linux=
for name in ring pci config ids types blk mmio; do
    linux="$linux
#include <linux/virtio_$name.h>"
done
linux="$linux
#include <linux/pci_regs.h>"
printf '%s\n#include "virtio.h"\nextern int unit;\nint unit;\n' "$linux" >"$dir/after.c"
printf '#include "virtio.h"\n%s\nextern int unit;\nint unit;\n' "$linux" >"$dir/before.c"
for order in before after; do
    for cc in gcc clang; do
        # shellcheck disable=SC2086
        compile "$cc $order <linux/virtio_*.h>" $cc -std=gnu11 -Wall -Wextra -Werror -I. \
            "$dir/$order.c"
    done
done

wait
passed=$(cat "$dir"/*.result | grep -c passed || true)
failed=$((number - passed))
echo "headers: $passed compilations passed, $failed failed"
[ $failed = 0 ]
