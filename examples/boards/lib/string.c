// SPDX-License-Identifier: MIT-0
/* The few functions of string.h, short rather than fast. Compiled so that no loop of these becomes a
 * call of itself. */
#include <string.h>

void *memcpy(void *to, const void *from, size_t length)
{
    return memmove(to, from, length);
}

void *memmove(void *to, const void *from, size_t length)
{
    char *t = to;
    const char *f = from;

    if (t <= f) {
        for (size_t i = 0; i < length; i++)
            t[i] = f[i];
    } else {
        while (length-- > 0)
            t[length] = f[length];
    }
    return to;
}

void *memset(void *to, int byte, size_t length)
{
    char *t = to;

    for (size_t i = 0; i < length; i++)
        t[i] = (char)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t length)
{
    const unsigned char *x = a, *y = b;

    for (size_t i = 0; i < length; i++) {
        if (x[i] != y[i])
            return x[i] - y[i];
    }
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;

    while (text[length] != '\0')
        length++;
    return length;
}

int strcmp(const char *a, const char *b)
{
    size_t i = 0;

    while (a[i] != '\0' && a[i] == b[i])
        i++;
    return (unsigned char)a[i] - (unsigned char)b[i];
}
