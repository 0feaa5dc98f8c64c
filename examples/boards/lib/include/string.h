// SPDX-License-Identifier: MIT-0
/* What a compiler wants of any C program, and what the examples use. */
#ifndef EXAMPLES_BOARDS_STRING_H
#define EXAMPLES_BOARDS_STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int byte, size_t length);
int memcmp(const void *a, const void *b, size_t length);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);

#endif
