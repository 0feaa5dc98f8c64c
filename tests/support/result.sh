# SPDX-License-Identifier: MIT-0
# For scripts that count runs: a directory that goes away, and what each run gave. A failed one is quoted from
# log, out and err in that directory.
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
        cat "$dir/log" "$dir/out" "$dir/err" 2>/dev/null | head -n 40 | sed 's/^/          /'
    fi
}
