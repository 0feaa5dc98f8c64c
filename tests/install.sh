#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Installs what `make check` needs, with the distribution's package manager (Debian 12 or later).
set -eu
packages="gcc g++ clang make binutils libclang-rt-14-dev libcriterion-dev valgrind gnuplot-nox doxygen python3
    linux-libc-dev pciutils qemu-system-x86 qemu-system-arm qemu-system-misc qemu-system-mips qemu-user-static
    qemu-system-common dpdk-dev
    gcc-mips-linux-gnu user-mode-linux busybox-static e2fsprogs
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-none-eabi gcc-riscv64-unknown-elf gcc-powerpc64-linux-gnu
    gcc-s390x-linux-gnu libc6-dev-s390x-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"

missing=
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "install.sh: no apt-get here; install these yourself:$missing" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "install.sh: need root to install:$missing" >&2; exit 1; }
    as_root=sudo
fi
echo "installing:$missing"
$as_root apt-get update -q
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -q -y --no-install-recommends $missing
