// SPDX-License-Identifier: MIT-0
/* What the fuzzers share: the input as a supply of numbers, 0 when it is used up, and an invariant that
 * ends the program. */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static const uint8_t *input;
static size_t input_left;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static uint64_t take_bytes(unsigned bytes)
{
    uint64_t value = 0;

    while (bytes-- != 0 && input_left != 0) {
        value = value << 8 | *input++;
        input_left--;
    }
    return value;
}

#endif
