#!/bin/sh
# SPDX-License-Identifier: MIT-0
# With one ring format compiled in, no branch on the format is left. Shown by the disassembly: the
# functions are compiled from two copies of the header that differ in the value of VIRTQ_PACKED alone;
# code that looks at the bit differs, code that does not is the same instruction for instruction.
# Starting a queue looks at it, to refuse the other format, and is left out (init, check_areas_).
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
passed=0
failed=0
mkdir "$dir/one" "$dir/two" "$dir/bench"
cp bench/size.c "$dir/bench/"
cp virtio_ring.h "$dir/one/"
sed 's/^    VIRTQ_PACKED = 0x10,/    VIRTQ_PACKED = 0x1000,/' virtio_ring.h >"$dir/two/virtio_ring.h"
if cmp -s "$dir/one/virtio_ring.h" "$dir/two/virtio_ring.h"; then
    echo "one_format.sh: VIRTQ_PACKED is not where this test looks for it" >&2
    exit 1
fi

disassemble() { # copy of the header, level, options of the compiler
    copy=$1
    shift
    "${CC:-gcc}" -std=c11 -ffreestanding -fno-asynchronous-unwind-tables "-I$dir/$copy" \
        -DPART=PART_ALL "$@" -c "$dir/bench/size.c" -o "$dir/$copy.o"
    # The name of each function starts its part; addresses go, init goes.
    objdump -d --no-show-raw-insn -M intel "$dir/$copy.o" | awk '
        /^[0-9a-f]+ </ { name = $2; next }
        name !~ /_init|_check_areas_/ && /^ / { sub(/^ *[0-9a-f]+:\t/, ""); sub(/ *#.*/, "")
            gsub(/[0-9a-f]+ </, "<"); print name, $0 }' >"$dir/$copy.txt"
}

try() { # title, same or different, options
    title=$1
    expected=$2
    shift 2
    disassemble one "$@"
    disassemble two "$@"
    result=same
    cmp -s "$dir/one.txt" "$dir/two.txt" || result=different
    if [ $result = "$expected" ] && [ -s "$dir/one.txt" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $title: the code is $result ($(wc -l <"$dir/one.txt") instructions)"
        diff "$dir/one.txt" "$dir/two.txt" | head -n 20
    fi
}

for level in -O2 -Os; do
    # Left out, or always there; indirect code stays in.
    try "split alone, $level" same $level '-DVIRTIO_RING_FLAGS=(0x3f8 & ~VIRTQ_PACKED)'
    try "packed alone, $level" same $level '-DVIRTIO_RING_FLAGS=(0x3f8 | VIRTQ_PACKED)' \
        -DVIRTIO_RING_ALWAYS=VIRTQ_PACKED
    # The test must be able to see a branch where there is one.
    try "both formats, $level" different $level '-DVIRTIO_RING_FLAGS=(0x3f8 | VIRTQ_PACKED)'
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
