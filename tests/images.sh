#!/bin/sh
# SPDX-License-Identifier: MIT-0
# Ring images against the second decoder. Usage: images.sh path/to/images [emulator, arguments]
set -u
program=$1
shift
tests=$(dirname "$0")
file=$(mktemp)
trap 'rm -f "$file"' EXIT
status=0

# A program that dies leaves its list without the last line, which the decoder counts as a failure.
"$@" "$program" >"$file" || status=1
python3 "$tests/decoder.py" "$file" || status=1
exit $status
