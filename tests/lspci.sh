#!/bin/sh
# SPDX-License-Identifier: MIT-0
# virtio-lspci: the dumps of tests/dumps judged by pciutils and by lspci_judge.py, other forms of
# dumps, malformed ones, and trees made to look like Linux's sysfs. Usage: lspci.sh path/to/virtio-lspci
set -u
program=$1
here=$(dirname "$0")
dumps=$here/dumps
. "$(dirname "$0")/support/result.sh"
command -v lspci >/dev/null || { echo "lspci.sh: needs pciutils" >&2; exit 1; }

# Output as one line for a pattern over several: blanks squeezed, lines separated by ";".
flat() {
    tr '\n' ';' <"$1" | tr -s ' '
}

run() { # arguments; leaves $status, $dir/out, $dir/err
    timeout 20 "$program" "$@" >"$dir/out" 2>"$dir/err"
    status=$?
}

# A run that ends with this status, prints this (a regular expression) and no message.
shows() { # title, status, pattern, arguments
    title=$1 want=$2 pattern=$3
    shift 3
    run "$@"
    [ $status = "$want" ] && [ ! -s "$dir/err" ] && flat "$dir/out" | grep -q -e "$pattern"
    result $? "$title"
}

# A run that ends with this status and one line on standard error.
says() { # title, status, pattern, arguments
    title=$1 want=$2 pattern=$3
    shift 3
    run "$@"
    [ $status = "$want" ] && [ "$(wc -l <"$dir/err")" = 1 ] && grep -q -e "$pattern" "$dir/err"
    result $? "$title"
}

# The configuration space of one function of a dump as bytes, with changes "OFFSET=HEXBYTES".
bytes() { # dump, address, file, changes
    python3 - "$@" <<'EOF'
import sys
dump, address, to, *changes = sys.argv[1:]
block = next(b for b in open(dump).read().split("\n\n") if b.startswith(address))
data = bytearray.fromhex("".join(line.split(":")[1] for line in block.split("\n")[1:]))
for change in changes:
    at, _, new = change.partition("=")
    new = bytes.fromhex(new)
    data[int(at, 16):int(at, 16) + len(new)] = new
open(to, "wb").write(data)
EOF
}

# ----- dumps -----

for dump in "$dumps"/*.txt; do
    run --json "$dump"
    cp "$dir/out" "$dir/report.json"
    [ $status = 0 ] && python3 -m json.tool "$dir/report.json" >/dev/null 2>>"$dir/err"
    result $? "$(basename "$dump"): JSON"
    "$here/lspci_judge.py" "$dump" "$dir/report.json" >"$dir/out" 2>&1
    result $? "$(basename "$dump"): $(tail -n 1 "$dir/out")"
done

modern=$dumps/q35-modern.txt
both=$dumps/q35-transitional.txt
legacy=$dumps/pc-legacy.txt
rfc=$dumps/rfc2011.txt
shows "modern: identity" 0 \
    "^00:03.0 1af4:1042 block device (blk); kind non-transitional, device type 2, revision 1," \
    "$modern"
shows "modern: places" 0 \
    "layout VIRTIO 1.x; common BAR 4 offset 0x00000000 length 0x00001000 by \[40\]; notify" "$modern"
shows "modern: no capability is malformed" 0 "multiplier 4; cap \[60\]" "$modern"
shows "transitional: legacy as well" 0 "kind transitional,.*layout VIRTIO 1.x, legacy in BAR 0" \
    "$both"
shows "legacy: configuration behind the header" 0 \
    "kind legacy,.*device BAR 0 offset 0x00000014 length 0x00003fec legacy place, length assumed" \
    "$legacy"
shows "legacy with MSI-X on: configuration moves" 0 \
    "MSI-X, 2 vectors, enabled; layout legacy;.*device BAR 0 offset 0x00000018" \
    "$dumps/pc-msix-on.txt"
shows "notify through I/O" 0 "BAR 2 I/O ports at.*notify BAR 2 offset 0x00000000" \
    "$dumps/pc-pio-notify.txt"
shows "a page per queue" 0 "multiplier 4096" "$dumps/pc-page-per-vq.txt"
shows "RFC: all by capability" 0 "layout 2011 RFC, legacy.*isr BAR 0 offset 0x00000013.*by \[58\]" \
    "$rfc"
shows "RFC: what is missing is at its legacy place" 0 \
    "common BAR 1 offset 0x00000040 length 0x0000001c by \[5c\]; notify BAR 0.*legacy place" "$rfc"
shows "shared memory of 64 bits, vendor data" 0 \
    "shared-memory BAR 2 offset 0x100000000 length 0x200000000 id 0.*vendor 1234, 12 bytes" \
    "$dumps/shared-memory.txt"
shows "a BAR that is not there: the next of its type" 0 \
    "not used: its BAR is not there; .*notify BAR 0 offset 0x00003000" "$dumps/shared-memory.txt"
shows "sizes are assumed, and it says so" 0 \
    "BAR 4 memory, 64 bits, prefetchable at 0xe0004000, 0x4000 bytes assumed; BAR sizes not in" \
    "$modern"
shows "features are not in a dump" 0 "features not in a dump, nor are the queues" "$modern"

# ----- forms of dumps -----

"$program" "$both" >"$dir/expected"
for form in -xxx -nxxx -vvxxx; do
    lspci -F "$both" "$form" >"$dir/form.txt" 2>/dev/null
    run "$dir/form.txt"
    [ $status = 0 ] && [ ! -s "$dir/err" ] && cmp -s "$dir/expected" "$dir/out"
    result $? "as lspci $form prints it"
done
lspci -D -F "$both" -xxx >"$dir/form.txt" 2>/dev/null
shows "with the domain" 0 "^0000:00:03.0 1af4:1001 block" "$dir/form.txt"
lspci -F "$modern" -x >"$dir/form.txt" 2>/dev/null
shows "lspci -x: capabilities are cut off" 4 \
    "layout unusable: configuration space ends before the capabilities do" "$dir/form.txt"
sed 's/$/\r/' "$both" >"$dir/crlf.txt"
run "$dir/crlf.txt"
cmp -s "$dir/expected" "$dir/out"
result $? "with carriage returns"
run - <"$both"
cmp -s "$dir/expected" "$dir/out"
result $? "from standard input"
tr 'a-f' 'A-F' <"$both" >"$dir/upper.txt"
shows "capital digits" 0 "1af4:1001 block device" "$dir/upper.txt"
printf '%s' "$(cat "$both")" >"$dir/form.txt"
run "$dir/form.txt"
cmp -s "$dir/expected" "$dir/out"
result $? "without a new line at the end"
{
    printf '00:00.0 Host bridge\n'
    sed -n '2,18s/^00: f4 1a/00: 86 80/;2,18p' "$modern"
    cat "$both"
} >"$dir/form.txt"
run "$dir/form.txt"
[ $status = 0 ] && cmp -s "$dir/expected" "$dir/out"
result $? "other functions are passed over"
bytes "$modern" 00:04.0 "$dir/a.bin"
shows "bytes: 256" 0 "^1af4:1041 network device (net);.*layout VIRTIO 1.x; common BAR 4" "$dir/a.bin"
{ cat "$dir/a.bin"; head -c 3840 /dev/zero; } >"$dir/b.bin"
shows "bytes: 4096" 0 "^1af4:1041 network device" "$dir/b.bin"
head -c 64 "$dir/a.bin" >"$dir/b.bin"
shows "bytes: 64" 4 "unusable: configuration space ends" "$dir/b.bin"
shows "two dumps" 0 "^00:03.0 .*;;00:03.0 .*features" "$modern" "$both"

# ----- malformed capabilities -----

malformed() { # title, status, pattern, dump, address, changes
    title=$1 want=$2 pattern=$3
    shift 3
    dump=$1 address=$2
    shift 2
    bytes "$dump" "$address" "$dir/a.bin" "$@"
    shows "$title" "$want" "$pattern" "$dir/a.bin"
    run --json "$dir/a.bin"
    [ $status = "$want" ] && python3 -m json.tool "$dir/out" >/dev/null 2>>"$dir/err"
    result $? "$title: JSON"
}
malformed "a list in a circle" 4 "cap list .*cyclic.*layout unusable: .*cyclic" \
    "$modern" 00:03.0 41=40
malformed "a list that leads into the header" 4 "layout unusable: .*list" "$modern" 00:03.0 34=20
malformed "no list" 4 "layout unusable: no complete set" "$modern" 00:03.0 06=0000
malformed "BAR 6 of VIRTIO 1.x is reserved" 4 "BAR 6 .*; not used: reserved BAR.*unusable" \
    "$modern" 00:03.0 44=06
malformed "a transitional device falls back to legacy" 0 "not used: reserved BAR.*layout legacy;" \
    "$both" 00:03.0 44=06
malformed "BAR 6 of the RFC is malformed" 0 \
    "malformed, counts as absent: no such BAR.*RFC.*1 malformed; common BAR 0.*legacy place" \
    "$rfc" 00:03.0 44=06
malformed "structure too short" 4 "absent: structure too short.*unusable" "$modern" 00:03.0 4c=1000
malformed "capability too short" 4 "absent: capability too short.*unusable" "$modern" 00:03.0 72=10
malformed "offset not aligned" 4 "absent: offset not aligned.*unusable" "$modern" 00:03.0 48=02
malformed "beyond its BAR" 4 "not used: not inside its BAR.*unusable" "$modern" 00:03.0 48=0000ff00
malformed "out of configuration space" 0 "absent: runs out of configuration space" \
    "$modern" 00:03.0 41=f4 f4=09001001040000000000000000100000
malformed "a type not known" 0 "type 7 20 bytes; not used: type not known" "$modern" 00:03.0 87=07
malformed "a length not known" 0 "? type 5 15 bytes; not used: length not known" \
    "$modern" 00:03.0 86=0f
malformed "a device type not known" 0 "1af4:107f virtio device type 63;" "$modern" 00:03.0 02=7f10
malformed "a transitional id named by the subsystem" 0 "socket device (vsock).*device type 19" \
    "$both" 00:03.0 02=1210 2e=1300
bytes "$modern" 00:03.0 "$dir/a.bin" 00=ffffffff
says "no virtio function" 1 "no virtio function" "$dir/a.bin"

# ----- input that is none -----

bad() { # title, pattern (after the file's name), sed script over a good dump
    sed "$3" "$modern" >"$dir/bad.txt"
    says "$1" 3 "^virtio-lspci: $dir/bad.txt$2" "$dir/bad.txt"
}
bad "an odd digit" ":4: byte 2 is not two hex digits" '4s/^20: .. .. ../20: 00 00 0/'
bad "three digits" ":4: byte 0 is not two hex digits" '4s/^20: ../20: 000/'
bad "not hex" ":3: byte 1 is not two hex digits" '3s/^10: .. ../10: 00 0x/'
bad "no blank" ":3: byte 0 is not two hex digits" '3s/^10: /10:/'
bad "a short line" ":3: the line ends after 15 of 16 bytes" '3s/...$//'
bad "a long line" ":3: more than 16 bytes" '3s/$/ 00/'
bad "a line is missing" ":3: bytes from 0x20 on where those from 0x10 on are due" '3d'
bad "a line comes twice" ":4: bytes from 0x10 on where those from 0x20 on are due" '3p'
bad "no first line" ":1: bytes without a function's first line" '1d'
bad "something else" ":2: neither a function's first line nor bytes of one" '2s/^/What? /'
bad "a very long line" ":2: a line of more than 1000 characters" "2s/\$/$(printf '%1000s' x)/"
bad "truncated" ":4: 00:03.0 ends after 48 bytes" '5,$d'
bad "a function without bytes" ":3: 00:03.0 ends after 0 bytes" '2,17d'
bad "no function at all" ": text without a function" 's/^/ /'
{
    sed -n 1p "$modern"
    i=0
    while [ $i -le 256 ]; do
        printf '%02x: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n' $((i * 16))
        i=$((i + 1))
    done
} >"$dir/bad.txt"
says "more than 4096 bytes" 3 "bad.txt:258: more than 4096 bytes" "$dir/bad.txt"
sed '20s/ 00/ 0/' "$modern" >"$dir/bad.txt"
run "$dir/bad.txt"
[ $status = 3 ] && grep -q '^00:03.0' "$dir/out"
result $? "what comes before an error is shown"
run --json "$dir/bad.txt"
[ $status = 3 ] && python3 -m json.tool "$dir/out" >/dev/null 2>>"$dir/err"
result $? "JSON is complete after an error"
: >"$dir/empty"
says "an empty file" 3 "$dir/empty: empty" "$dir/empty"
says "empty standard input" 3 "standard input: empty" - </dev/null
says "a directory" 3 "$dir: Is a directory" "$dir"
says "no such file" 3 "$dir/missing: No such file" "$dir/missing"
head -c 40 "$dir/a.bin" >"$dir/b.bin"
says "too few bytes" 3 "b.bin: neither text nor.* this has 40" "$dir/b.bin"
head -c 66 "$dir/a.bin" >"$dir/b.bin"
says "half a dword" 3 "b.bin: neither text nor.* this has 66" "$dir/b.bin"
head -c 8192 /dev/zero >"$dir/b.bin"
says "too many bytes" 3 "b.bin: neither text nor.* this has 8192" "$dir/b.bin"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    cp "$modern" "$dir/secret.txt"
    chmod 600 "$dir/secret.txt"
    chmod 755 "$dir"
    cp "$program" "$dir/virtio-lspci"
    setpriv --reuid=65534 --clear-groups "$dir/virtio-lspci" "$dir/secret.txt" >"$dir/out" 2>"$dir/err"
    [ $? = 3 ] && grep -q "secret.txt: Permission denied" "$dir/err"
    result $? "a file without permission"
fi
if [ -e /dev/full ]; then
    "$program" "$modern" >/dev/full 2>"$dir/err"
    [ $? = 3 ] && grep -q "cannot write" "$dir/err"
    result $? "output that cannot be written"
fi

# ----- the command line -----

run --help
[ $status = 0 ] && grep -q 'usage: virtio-lspci' "$dir/out" && [ ! -s "$dir/err" ]
result $? "--help"
usage() { # title, pattern, arguments
    title=$1 pattern=$2
    shift 2
    run "$@"
    [ $status = 2 ] && [ ! -s "$dir/out" ] && head -n 1 "$dir/err" | grep -q -e "$pattern"
    result $? "$title"
}
usage "an unknown option" 'cannot do anything with "--colour"' --colour "$modern"
usage "an option without its value" 'cannot do anything with "--features"' --features
usage "features that are no number" '"0xz" is no number' --features 0xz "$modern"
usage "features of more than 128 bits" "is no number" --features 0x1ffffffffffffffffffffffffffffffff
usage "an unknown type" 'no device type "toaster"' --type toaster --features 1
usage "a type without features" "type goes with --features" --type net
shows "features by name" 0 "given 0x130000002; SIZE_MAX INDIRECT_DESC EVENT_IDX VERSION_1; *features" \
    --features 0x130000002 "$dumps/pc-page-per-vq.txt"
shows "features by type alone" 0 "^ net 0x20; MAC;$" --type net --features 20
shows "features of the fourth word" 0 "^ net 0x81[0]*; bit-120 bit-127;$" \
    --type net --features 81000000000000000000000000000000
shows "features beyond 64 bits" 0 "^ net 0x110000000000000000; RSS_CONTEXT HOST_UDP_TUNNEL_GSO_CSUM" \
    --type net --features 0x110000000000000000
shows "features as JSON" 0 '"bits": \[; {"bit": 5, "name": "RO"}; \]' --json --type blk --features 20

# ----- sysfs -----

# A tree with four functions: a bridge, a bound network device, a block device and a legacy entropy
# source that nobody drives. What lies behind their BARs is a file of zeros but for a few registers.
sysfs=$dir/sysfs
devices=$sysfs/bus/pci/devices
resource() { # directory, "first last flags" of the BARs
    at=$1
    shift
    for i in 0 1 2 3 4 5 6; do
        line="0x0000000000000000 0x0000000000000000 0x0000000000000000"
        for bar in "$@"; do
            [ "${bar%%:*}" = $i ] && line=${bar#*:}
        done
        echo "$line"
    done >"$at/resource"
}
function_of() { # address, dump, address there, changes
    at=$devices/$1
    mkdir -p "$at"
    dump=$2 there=$3
    shift 3
    bytes "$dump" "$there" "$at/config" "$@"
}
memory=0x0000000000040200
memory64=0x000000000014220c
io=0x0000000000040101
registers() { # file, size, OFFSET=HEXBYTES...
    python3 - "$@" <<'EOF'
import sys
to, size, *values = sys.argv[1:]
data = bytearray(int(size))
for value in values:
    at, _, new = value.partition("=")
    new = bytes.fromhex(new)
    data[int(at, 16):int(at, 16) + len(new)] = new
open(to, "wb").write(data)
EOF
}
make_tree() {
    rm -rf "$sysfs"
    mkdir -p "$sysfs/drivers/virtio-pci" "$sysfs/drivers/virtio_net"
    function_of 0000:00:00.0 "$modern" 00:03.0 00=8680
    rm -f "$at/resource"
    function_of 0000:00:03.0 "$modern" 00:04.0
    resource "$at" "1:0xe0008000 0xe0008fff $memory" "4:0xe000c000 0xe000ffff $memory64"
    ln -s ../../../../drivers/virtio-pci "$at/driver"
    mkdir "$at/virtio7"
    ln -s ../../../../../drivers/virtio_net "$at/virtio7/driver"
    # MAC, STATUS, EVENT_IDX, VERSION_1
    echo 0000010000000000100000000000010010000000000000000000000000000000 >"$at/virtio7/features"
    echo 0x0000000f >"$at/virtio7/status"
    function_of 0000:00:04.0 "$modern" 00:03.0
    resource "$at" "1:0xe0000000 0xe0000fff $memory" "4:0xe0004000 0xe0007fff $memory64"
    # common configuration at 0: features, 2 queues, status, sizes 256, notified with offset 3
    registers "$at/resource4" 16384 04=06020030 12=0200 14=01 18=0001 1e=0300
    function_of 0001:00:05.0 "$legacy" 00:06.0
    resource "$at" "0:0xc100 0xc11f $io"
    registers "$at/resource0" 32 00=00000031 12=03
}
make_tree
blk=0000:00:04.0
rng=0001:00:05.0
live() { # as `shows`, in the tree
    title=$1 want=$2 pattern=$3
    shift 3
    shows "sysfs: $title" "$want" "$pattern" --sysfs "$sysfs" "$@"
}
live "all virtio functions, in order" 0 "^0000:00:03.0 .*;;0000:00:04.0 .*;;0001:00:05.0 .*"
live "one by its address" 0 "^0000:00:04.0 1af4:1042 block" $blk
live "one without its domain" 0 "^0000:00:03.0 1af4:1041 network" 00:03.0
live "drivers" 0 "driver virtio-pci, virtio7, virtio_net; BAR 1 memory, 32" 00:03.0
live "BARs with their sizes" 0 \
    "BAR 1 memory, 32 bits at 0xe0008000, 0x1000 bytes; BAR 4 memory, 64 bits, prefetchable at 0xe000c000, 0x4000 bytes; cap" \
    00:03.0
live "negotiated features" 0 "negotiated 0x120010020; MAC STATUS EVENT_IDX VERSION_1; status 0x0f" \
    00:03.0
live "status" 0 "status 0x0f ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK;" 00:03.0
live "legacy: how long its configuration is" 0 \
    "device BAR 0 offset 0x00000014 length 0x0000000c legacy place;" $rng
live "no driver" 0 "no driver; --registers asks the device" $blk
live "registers are left to a driver" 4 \
    "registers not read: driver virtio-pci is bound, and reading them would disturb it" \
    --registers 00:03.0
cp "$devices/$blk/resource4" "$dir/before"
live "registers: offered features" 0 "offered 0x30000206300002063000020630000206; SIZE_MAX SEG_MAX" \
    --registers $blk
live "registers: status and queues" 0 \
    "status 0x01 ACKNOWLEDGE; queues 2; queue 0 256 entries, notified at BAR 4 offset 0x300c; queue 1" \
    --registers $blk
cmp -l "$dir/before" "$devices/$blk/resource4" >"$dir/out"
[ "$(tr -s ' ' <"$dir/out" | sed 's/^ //')" = "1 0 3
23 0 1" ]
result $? "sysfs: registers: only the two selectors are written"
live "registers through I/O" 0 \
    "offered 0x31000000; NOTIFY_ON_EMPTY INDIRECT_DESC EVENT_IDX; status 0x03 .*; queues 0" \
    --registers $rng
run --json --registers --sysfs "$sysfs"
[ $status = 4 ] && python3 - "$dir/out" 2>"$dir/err" <<'EOF'
import json, sys
net, blk, rng = json.load(open(sys.argv[1]))
assert net["driver"] == "virtio-pci" and net["virtio_device"] == "virtio7"
assert [b["name"] for b in net["negotiated"]["bits"]] == ["MAC", "STATUS", "EVENT_IDX", "VERSION_1"]
assert net["status"] == 15 and net["registers"] is None and "bound" in net["registers_error"]
assert net["bars"][1] == {"bar": 4, "kind": "memory", "wide": True, "prefetchable": True,
                          "address": 0xe000c000, "size": 0x4000}
assert blk["registers"]["queues"] == 2 * [{"size": 256, "notify_off": 3}]
assert blk["driver"] is None and blk["registers_error"] is None
assert rng["layout"]["device"] == {"found": "legacy", "bar": 0, "offset": 20, "length": 12, "cap": 0}
assert rng["registers"]["offered"]["value"] == "0x" + 24 * "0" + "31000000"
EOF
result $? "sysfs: JSON"

# Reading or writing a resource would wait for ever here.
rm "$devices/$blk/resource4" "$devices/$rng/resource0"
mkfifo "$devices/$blk/resource4" "$devices/$rng/resource0" "$devices/0000:00:03.0/resource4"
live "nothing behind a BAR is touched" 0 "^0000:00:03.0 .*;;0000:00:04.0 .*;;0001:00:05.0 "
live "nor with --registers where a driver is" 4 "driver virtio-pci is bound" --registers 00:03.0
make_tree

function_of $blk "$modern" 00:03.0 04=0000
live "registers of a function that does not decode" 4 "not read: the function does not decode memory" \
    --registers $blk
make_tree
registers "$devices/$blk/resource4" 40
live "a resource that is too short" 4 "registers not read: resource4 is too short" --registers $blk
rm "$devices/$blk/resource4"
live "a resource that is not there" 4 "not read: cannot open resource4: No such file" \
    --registers $blk
head -c 16384 /dev/zero | tr '\0' '\377' >"$devices/$blk/resource4"
live "a device without power" 4 "not read: they read as all ones" --registers $blk
head -c 64 "$devices/$blk/config" >"$dir/a.bin"
cp "$dir/a.bin" "$devices/$blk/config"
live "64 bytes for everybody but root" 4 "unusable: configuration space ends before" $blk
make_tree
resource "$devices/$blk" "1:0xe0000000 0xe0000fff $memory" "4:0x0 0x3fff 0x2014220c"
live "a BAR that has no address yet" 4 "not used: its BAR is not there.*layout unusable" $blk
function_of $blk "$rfc" 00:03.0
resource "$devices/$blk" "0:0xc000 0xc03f $io" "1:0xfebf0000 0xfebf01ff $memory"
registers "$devices/$blk/resource1" 512 00=02000000 18=04000000 12=03
live "registers of the RFC's header" 0 "offered 0x400000002; SIZE_MAX RING_PACKED; status 0x03" \
    --registers $blk

broken() { # title, pattern, file, text
    make_tree
    printf '%b' "$4" >"$devices/$3"
    says "sysfs: $1" 3 "$3$2" --sysfs "$sysfs"
    [ "$(grep -c '^0' "$dir/out")" = 2 ]
    result $? "sysfs: $1: the others are shown"
}
broken "half a resource" ":2: no first address" 0000:00:03.0/resource '0x0 0x0 0x0\n0x0 0x0\n'
broken "features that are none" ":1: not a string of 0 and 1" 0000:00:03.0/virtio7/features '0102\n'
broken "no features" ":1: not a string of 0 and 1" 0000:00:03.0/virtio7/features ''
broken "a status that is none" ":1: not a device status" 0000:00:03.0/virtio7/status 'ready\n'
broken "a short header" ": ends after 3 bytes" 0000:00:03.0/config 'abc'
make_tree
rm "$devices/$blk/resource"
says "sysfs: no resource" 3 "$blk/resource: No such file" --sysfs "$sysfs" $blk
says "sysfs: no such function" 3 "0000:00:1f.7/config: No such file" --sysfs "$sysfs" 00:1F.7
says "sysfs: no sysfs" 3 "nowhere/bus/pci/devices: No such file" --sysfs "$dir/nowhere"
says "sysfs: no virtio function there" 1 "no virtio function" --sysfs "$sysfs" 00:00.0

echo "lspci: $passed passed, $failed failed"
[ $failed = 0 ]
