#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Takes one ordered access or fence at a time out of a copy of virtio_ring.h, each that a comment
# "[A]" to "[D]" names, and demands that the tests notice: fetch_test, which looks at the order of
# accesses, and for A and B thread_test under TSan as well.
set -u
cd "$(dirname "$0")/.." || exit
build=build/ablation
cc=${CC:-gcc}
flags="-std=c11 -O1 -g -w -pthread -I$build -I. -Itests/support/lite"
passed=0
failed=0
rm -rf $build
mkdir -p $build

# A copy without the order that the comment in line $1 is about: in that line or the next with one.
ablate() {
    awk -v line="$1" '
        BEGIN {
            print "static inline unsigned short exchange_(unsigned short flags, unsigned short *word,"
            print "    unsigned short value) { flags = *word; *word = value; return flags; }"
        }
        NR == line { armed = 1 }
        armed && /virtq_(store_release|load_acquire|fence_full|exchange_full)_\(/ {
            sub(/virtq_store_release_\(/, "virtq_hint_set_(")
            sub(/virtq_load_acquire_\(/, "virtq_hint_get_(")
            sub(/virtq_fence_full_\(/, "(void)(")
            sub(/virtq_exchange_full_\(/, "exchange_(")
            armed = 0
        }
        { print }' virtio_ring.h >$build/virtio_ring.h
}

# shellcheck disable=SC2086
passes() { # test, compiler flags...
    test=$1
    shift
    cp "tests/$test.c" $build/ # beside the copy, so that it includes that one
    if ! $cc $flags "$@" $build/"$test".c -o $build/"$test" >$build/log 2>&1; then
        cat $build/log
        echo "0 passed, 1 failed"
        exit 1
    fi
    THREAD_SCALE=100 TSAN_OPTIONS=halt_on_error=1 timeout 60 $build/"$test" >$build/log 2>&1
}

verdict() { # 0 if as it should be, title
    if [ "$1" = 0 ]; then
        passed=$((passed + 1))
        echo "ok      $2"
    else
        failed=$((failed + 1))
        echo "FAILED  $2"
    fi
}

ablate 0
passes fetch_test
verdict $? "fetch_test with all in place"
passes thread_test -fsanitize=thread
verdict $? "thread_test with all in place"
# shellcheck disable=SC2013 # numbers
for line in $(grep -n '\[[A-D]\]' virtio_ring.h | grep -v ': \* |' | cut -d : -f 1); do
    letter=$(sed -n "$line s/.*\[\([A-D]\)\].*/\1/p" virtio_ring.h)
    ablate "$line"
    ! cmp -s virtio_ring.h $build/virtio_ring.h && ! passes fetch_test
    verdict $? "virtio_ring.h:$line without [$letter] fails fetch_test"
    case $letter in
    A | B)
        ! passes thread_test -fsanitize=thread
        verdict $? "virtio_ring.h:$line without [$letter] fails thread_test"
        ;;
    esac
done
# What x86 takes in the place of a fence is code of its own, which fetch_test does not see: each decision must
# have one locked instruction, as compiled by default.
decides() { # function that decides, its argument; optimisation
    printf '#include "virtio_ring.h"\nbool decide(struct %s *q) { return %s(q); }\n' "$2" "$1" >$build/decide.c
    $cc -std=c11 "$3" -I. -c $build/decide.c -o $build/decide.o &&
        [ "$(objdump -d $build/decide.o | grep -cE '	(lock|mfence|xchg .*\()')" -ge 1 ]
}
if [ "$(uname -m)" = x86_64 ]; then
    for level in -O1 -O2 -Os; do
        decides virtq_driver_kick_due virtq_driver $level && decides virtq_device_irq_due virtq_device $level
        verdict $? "both decisions to notify have a locked instruction, $level"
    done
fi
rm -r $build
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 20 ] # or it did not find them
