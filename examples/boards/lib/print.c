// SPDX-License-Identifier: MIT-0
/* printf on a board's console: %c %s %d %u %x %llu %llx, a width with 0 or -, a precision of %s. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "../board.h"

/* One conversion. */
struct spec {
    bool left;     /* - */
    char fill;     /* 0 or a space */
    int width;     /* characters at least */
    int precision; /* %s: characters at most, or -1 */
    bool wide;     /* ll */
};

static int put(const char *text, int length)
{
    for (int i = 0; i < length; i++)
        board_putc(text[i]);
    return length;
}

static int pad(char fill, int count)
{
    for (int i = 0; i < count; i++)
        board_putc(fill);
    return count > 0 ? count : 0;
}

static int put_field(const struct spec *spec, const char *text, int length)
{
    int count = spec->left ? 0 : pad(spec->fill, spec->width - length);

    count += put(text, length);
    return count + (spec->left ? pad(' ', spec->width - length) : 0);
}

static int put_number(const struct spec *spec, uint64_t value, unsigned base, bool minus)
{
    char text[24];
    int at = sizeof(text);

    do {
        text[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    if (minus)
        text[--at] = '-';
    return put_field(spec, text + at, (int)sizeof(text) - at);
}

static int put_string(const struct spec *spec, const char *text)
{
    int length = 0;

    while (length != spec->precision && text[length] != '\0')
        length++;
    return put_field(spec, text, length);
}

static const char *read_number(const char *at, int *value)
{
    *value = 0;
    while (*at >= '0' && *at <= '9')
        *value = *value * 10 + (*at++ - '0');
    return at;
}

/* What is between % and the conversion's letter. */
static const char *read_spec(const char *at, struct spec *spec, va_list *args)
{
    spec->left = *at == '-';
    if (spec->left)
        at++;
    spec->fill = *at == '0' ? '0' : ' ';
    at = read_number(at, &spec->width);
    spec->precision = -1;
    if (at[0] == '.' && at[1] == '*') {
        spec->precision = va_arg(*args, int);
        at += 2;
    }
    spec->wide = at[0] == 'l' && at[1] == 'l';
    return spec->wide ? at + 2 : at;
}

static int convert(char letter, const struct spec *spec, va_list *args)
{
    char c;
    int value;

    switch (letter) {
    case 'c':
        c = (char)va_arg(*args, int);
        return put_field(spec, &c, 1);
    case 's': return put_string(spec, va_arg(*args, const char *));
    case 'd':
        value = va_arg(*args, int);
        return put_number(spec, (uint64_t)(value < 0 ? -(int64_t)value : value), 10, value < 0);
    case 'u':
    case 'x':
        return put_number(spec, spec->wide ? va_arg(*args, unsigned long long)
                                           : va_arg(*args, unsigned),
                          letter == 'x' ? 16 : 10, false);
    default: return put(&letter, 1);
    }
}

int printf(const char *format, ...)
{
    struct spec spec;
    va_list args;
    int count = 0;

    va_start(args, format);
    for (const char *at = format; *at != '\0'; at++) {
        if (*at != '%') {
            count += put(at, 1);
            continue;
        }
        at = read_spec(at + 1, &spec, &args);
        if (*at == '\0')
            break;
        count += convert(*at, &spec, &args);
    }
    va_end(args);
    return count;
}
