#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Prints the instructions that one operation of bench/ring_count executes, in the order of the code.

    bench/listing.py build/count/split round-trip

Runs the program under callgrind and the disassembler, and shows each instruction that is executed at
least once in ten operations: how often, and in which call of the library; then the sum of each call.
The compiler mixes neighbouring calls, so a line here and there is counted with the other. bench/count.sh
builds the programs.
"""
import re
import subprocess
import sys
import tempfile

OPERATIONS = 9600


def counts(program, case):
    """Executions per address of the program, as callgrind saw them."""
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["valgrind", "--tool=callgrind", "--dump-instr=yes",
                        f"--callgrind-out-file={out.name}", program, case, str(OPERATIONS)],
                       check=True, capture_output=True)
        executed, address, after_call = {}, 0, False
        for line in open(out.name, encoding="utf-8"):
            row = re.match(r"(0x[0-9a-f]+|[+-]\d+|\*) \S+ (\d+)$", line)
            if row:
                place = row.group(1)
                if place.startswith("0x"):
                    address = int(place, 16)
                elif place != "*":
                    address += int(place)
                if not after_call:  # the line after calls= is the cost of the callee
                    executed[address] = executed.get(address, 0) + int(row.group(2))
            after_call = line.startswith("calls=")
    return executed


def disassembly(program):
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", program], check=True,
                          capture_output=True, text=True).stdout
    for line in text.splitlines():
        name = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        code = re.match(r"\s+([0-9a-f]+):\s+(.*)$", line)
        if name:
            yield name.group(1), None, None
        elif code:
            yield None, int(code.group(1), 16), code.group(2)


def load_offset(executed, program):
    """How far from its place in the file valgrind loaded the program."""
    places = {address for _, address, _ in disassembly(program) if address is not None}
    hot = [address for address, count in executed.items() if count >= OPERATIONS]
    for offset in {0} | {(address - place) for address in hot[:1] for place in places}:
        if offset % 4096 == 0 and all(address - offset in places for address in hot):
            return offset
    sys.exit("listing.py: cannot match addresses")


def calls(program, addresses):
    """The public function of the library that each address was inlined from, or its own function."""
    text = subprocess.run(["addr2line", "-e", program, "-a", "-f", "-i"], check=True, text=True,
                          input="".join(f"{address:#x}\n" for address in addresses),
                          capture_output=True).stdout
    names, stack, address = {}, [], None
    for line in text.splitlines() + ["0x0"]:
        if re.match(r"0x[0-9a-f]+$", line):
            if address is not None:
                public = [name for name in stack if re.match(r"virtq_(driver|device)_.*[^_]$", name)]
                names[address] = (public or stack)[-1]
            stack, address = [], int(line, 16)
        elif not re.search(r":[\d?]+( |$)", line):
            stack.append(line.split(".")[0])
    return names


def main():
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    program, case = sys.argv[1:]
    executed = counts(program, case)
    offset = load_offset(executed, program)
    rows = [(address, code, executed.get(address + offset, 0) / OPERATIONS)
            for _, address, code in disassembly(program) if address is not None]
    rows = [row for row in rows if row[2] >= 0.9]
    names, sums = calls(program, [row[0] for row in rows]), {}
    for address, code, each in rows:
        name = names[address]
        sums[name] = sums.get(name, 0) + each
        code = re.sub(r"\s+", " ", re.sub(r"#.*<(.*)>|<.*>", r"\1", code)).strip()
        print(f"{each:6.2f}  {name.replace('virtq_', ''):24}  {code}")
    print()
    for name, each in sums.items():
        print(f"{each:6.2f}  {name}")
    print(f"{sum(sums.values()):6.2f}  in all")


if __name__ == "__main__":
    main()
