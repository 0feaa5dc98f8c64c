#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Installs what `make check` needs, with the distribution's package manager (Debian 12 or later).
set -eu
cd "$(dirname "$0")/.."
packages="gcc g++ clang make binutils libclang-rt-14-dev libcriterion-dev valgrind gnuplot-nox doxygen python3
    linux-libc-dev pciutils qemu-system-x86 qemu-system-arm qemu-system-misc qemu-system-mips qemu-user-static
    qemu-system-common dpdk-dev
    gcc-mips-linux-gnu user-mode-linux busybox-static e2fsprogs
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-none-eabi gcc-riscv64-unknown-elf gcc-powerpc64-linux-gnu
    gcc-s390x-linux-gnu libc6-dev-s390x-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"
linux=build/linux

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
        return
    fi
    command -v sudo >/dev/null || { echo "install.sh: need root for: $*" >&2; return 1; }
    sudo "$@"
}

# Debian's kernel for guests of QEMU, unpacked only: it is not to become this machine's. What boots it is skipped
# where it cannot be had.
fetch_linux() {
    apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || as_root apt-get update -q
    rm -rf $linux.new
    mkdir -p $linux.new
    (
        cd $linux.new &&
            apt-get download -q "$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: //p')" &&
            dpkg-deb --fsys-tarfile linux-image-*.deb |
            tar x --wildcards './boot/vmlinuz-*' '*virtio*.ko' '*failover.ko' &&
            rm linux-image-*.deb
    ) && mv $linux.new $linux
}

missing=
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "install.sh: no apt-get here; install these yourself:$missing" >&2
        exit 1
    fi
    echo "installing:$missing"
    as_root apt-get update -q
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi
[ -d $linux ] || fetch_linux || echo "install.sh: no kernel for guests of QEMU (linux-image-cloud-amd64)" >&2
