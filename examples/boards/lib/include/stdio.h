// SPDX-License-Identifier: MIT-0
/* printf on a board's console; see print.c for what it knows. */
#ifndef EXAMPLES_BOARDS_STDIO_H
#define EXAMPLES_BOARDS_STDIO_H

__attribute__((format(printf, 1, 2))) int printf(const char *format, ...);

#endif
