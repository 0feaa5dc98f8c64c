// SPDX-License-Identifier: MIT-0
/*
 * Functions out of a dump of configuration space: the bytes themselves, or what lspci -x prints.
 *
 * A text has one line for each function, with its address at the beginning, and then lines of 16
 * bytes, "10: 01 c0 ...", from 0 on without a gap. Blank lines and lines that begin with white
 * space (lspci -v) are passed over. Everything else is an error, with file and line.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lspci.h"

enum { INPUT_MOST = 64 << 20, LINE_MOST = 1000, BYTES_A_LINE = 16 };

/* A dump being read. */
struct dump {
    const char *name; /* for messages */
    unsigned line;
    lspci_found_fn found;
    void *ctx;
    bool open;      /* a function's first line was seen */
    bool stopped;   /* by `found` */
    unsigned count; /* of functions */
    struct lspci_function function;
};

/* ----- BARs out of their registers ----- */

/* A BAR is a power of two and aligned to itself: it is no larger than its address allows. */
static uint64_t most_at(uint64_t base, uint64_t limit)
{
    uint64_t lowest = base & (~base + 1);

    return lowest != 0 && lowest < limit ? lowest : limit;
}

/* The BAR whose register is at `index`; a register of zeros is no BAR, or one without address. */
static struct lspci_bar decode_bar(const struct lspci_function *function, unsigned index)
{
    uint32_t value = lspci_field(function, 0x10 + 4 * index, 4);
    struct lspci_bar bar = {{0, 0, VIRTIO_PCI_BAR_NONE, 0}, false};

    if (value == 0)
        return bar;
    if (value & 1) {
        bar.pci.kind = VIRTIO_PCI_BAR_IO;
        bar.pci.base = value & ~UINT32_C(3);
        bar.pci.length = most_at(bar.pci.base, UINT64_C(1) << 16);
        return bar;
    }
    bar.pci.kind = VIRTIO_PCI_BAR_MEM;
    bar.pci.base = value & ~UINT32_C(15);
    bar.pci.wide = (value & 6) == 4 && index < 5;
    bar.prefetchable = (value & 8) != 0;
    if (bar.pci.wide)
        bar.pci.base |= (uint64_t)lspci_field(function, 0x14 + 4 * index, 4) << 32;
    bar.pci.length = most_at(bar.pci.base, UINT64_C(1) << (bar.pci.wide ? 63 : 31));
    return bar;
}

static void decode_bars(struct lspci_function *function)
{
    static const struct lspci_bar none = {{0, 0, VIRTIO_PCI_BAR_NONE, 0}, false};

    for (unsigned i = 0; i < 6; i++) {
        function->bars[i] = decode_bar(function, i);
        if (function->bars[i].pci.wide)
            function->bars[++i] = none;
    }
}

/* ----- functions ----- */

static void begin(struct dump *dump)
{
    memset(&dump->function, 0, sizeof(dump->function));
    dump->function.source = dump->name;
    dump->function.config_file = -1;
    dump->open = true;
}

static int finish(struct dump *dump)
{
    const struct lspci_function *function = &dump->function;

    if (!dump->open)
        return LSPCI_OK;
    dump->open = false;
    if (function->config_size < LSPCI_CONFIG_MIN)
        return lspci_error("%s:%u: %s ends after %zu bytes of configuration space; 64 are the least",
                           dump->name, dump->line, function->address, function->config_size);
    decode_bars(&dump->function);
    dump->count++;
    dump->stopped = !dump->found(dump->ctx, &dump->function);
    return LSPCI_OK;
}

/* ----- text ----- */

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Steps over hex digits, `most` of them or fewer: how many there were. */
static unsigned take_hex(const char **text, unsigned most, unsigned *value)
{
    unsigned count = 0;

    *value = 0;
    for (; count < most && digit(**text) >= 0; count++, (*text)++)
        *value = *value << 4 | (unsigned)digit(**text);
    return count;
}

bool lspci_is_address(const char *text, const char **end)
{
    unsigned value, count = take_hex(&text, 8, &value);

    if (count >= 4 && *text == ':') {
        text++;
        count = take_hex(&text, 2, &value);
    }
    if (count != 2 || *text++ != ':' || take_hex(&text, 2, &value) != 2 || *text++ != '.')
        return false;
    *end = text + 1;
    return *text >= '0' && *text <= '7';
}

/* The 16 bytes of a line, from behind its colon on. */
static int take_bytes(struct dump *dump, const char *text)
{
    struct lspci_function *function = &dump->function;
    unsigned value;

    for (unsigned i = 0; i < BYTES_A_LINE; i++) {
        size_t blanks = strspn(text, " \t");

        if (text[blanks] == '\0')
            return lspci_error("%s:%u: the line ends after %u of %u bytes", dump->name, dump->line,
                               i, BYTES_A_LINE);
        text += blanks;
        if (blanks == 0 || take_hex(&text, 2, &value) != 2 || digit(*text) >= 0)
            return lspci_error("%s:%u: byte %u is not two hex digits between blanks", dump->name,
                               dump->line, i);
        function->config[function->config_size++] = (uint8_t)value;
    }
    if (text[strspn(text, " \t")] != '\0')
        return lspci_error("%s:%u: more than %u bytes in a line", dump->name, dump->line,
                           BYTES_A_LINE);
    return LSPCI_OK;
}

/* A line "OFFSET: BYTES", `text` at its colon. */
static int take_hex_line(struct dump *dump, const char *text, unsigned offset)
{
    const struct lspci_function *function = &dump->function;

    if (!dump->open)
        return lspci_error("%s:%u: bytes without a function's first line", dump->name, dump->line);
    if (offset != function->config_size)
        return lspci_error("%s:%u: bytes from 0x%02x on where those from 0x%02zx on are due",
                           dump->name, dump->line, offset, function->config_size);
    if (function->config_size >= LSPCI_CONFIG_MAX)
        return lspci_error("%s:%u: more than %u bytes of configuration space", dump->name,
                           dump->line, LSPCI_CONFIG_MAX);
    return take_bytes(dump, text + 1);
}

/* Any line, of the text's or a short one. */
static int take_line(struct dump *dump, const char *line)
{
    const char *text = line, *end;
    unsigned offset, digits;
    int status;

    if (*line == '\0' || isspace((unsigned char)*line))
        return LSPCI_OK;
    if (lspci_is_address(line, &end) && (*end == '\0' || isspace((unsigned char)*end))) {
        status = finish(dump);
        begin(dump);
        snprintf(dump->function.address, sizeof(dump->function.address), "%.*s",
                 (int)(end - line), line);
        return status;
    }
    digits = take_hex(&text, 4, &offset);
    if (digits >= 2 && *text == ':')
        return take_hex_line(dump, text, offset);
    return lspci_error("%s:%u: neither a function's first line nor bytes of one", dump->name,
                       dump->line);
}

/* `text` ends with a NUL, and is changed. */
static int take_text(struct dump *dump, char *text)
{
    char *next;
    int status = LSPCI_OK;

    for (; status == LSPCI_OK && !dump->stopped && *text != '\0'; text = next) {
        size_t length = strcspn(text, "\n");

        next = text + length + (text[length] == '\n');
        dump->line++;
        if (length > LINE_MOST)
            return lspci_error("%s:%u: a line of more than %u characters", dump->name, dump->line,
                               LINE_MOST);
        while (length != 0 && isspace((unsigned char)text[length - 1]))
            length--;
        text[length] = '\0';
        status = take_line(dump, text);
    }
    return status == LSPCI_OK && !dump->stopped ? finish(dump) : status;
}

/* ----- files ----- */

static int take_binary(struct dump *dump, const uint8_t *bytes, size_t size)
{
    if (size < LSPCI_CONFIG_MIN || size > LSPCI_CONFIG_MAX || size % 4 != 0)
        return lspci_error("%s: neither text nor configuration space, which has %u to %u bytes, a "
                           "multiple of 4; this has %zu",
                           dump->name, LSPCI_CONFIG_MIN, LSPCI_CONFIG_MAX, size);
    begin(dump);
    memcpy(dump->function.config, bytes, size);
    dump->function.config_size = size;
    return finish(dump);
}

/* Text has no control characters; configuration space has zeros, or is all ones. */
static bool is_text(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((bytes[i] < ' ' && !isspace(bytes[i])) || bytes[i] == 0xff)
            return false;
    }
    return true;
}

/* Reads all of a file and puts a NUL behind it: its bytes, to be freed, or NULL after a message. */
static uint8_t *read_all(FILE *file, const char *name, size_t *size)
{
    size_t room = 1 << 16;
    uint8_t *bytes = malloc(room);

    for (*size = 0; bytes != NULL; room *= 2) {
        uint8_t *more;

        *size += fread(bytes + *size, 1, room - 1 - *size, file);
        if (ferror(file) || *size < room - 1 || room >= INPUT_MOST)
            break;
        more = realloc(bytes, room * 2);
        if (more == NULL)
            free(bytes);
        bytes = more;
    }
    if (bytes == NULL || ferror(file))
        lspci_error("%s: %s", name, strerror(errno));
    else if (*size == 0)
        lspci_error("%s: empty", name);
    else if (*size >= INPUT_MOST - 1)
        lspci_error("%s: more than %u bytes", name, INPUT_MOST - 1);
    else {
        bytes[*size] = '\0';
        return bytes;
    }
    free(bytes);
    return NULL;
}

static int take_all(struct dump *dump, uint8_t *bytes, size_t size)
{
    int status;

    if (!is_text(bytes, size))
        return take_binary(dump, bytes, size);
    status = take_text(dump, (char *)bytes);
    if (status == LSPCI_OK && dump->count == 0)
        return lspci_error("%s: text without a function's configuration space", dump->name);
    return status;
}

int lspci_dump(const char *path, lspci_found_fn found, void *ctx)
{
    static struct dump dump;
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "rb");
    uint8_t *bytes;
    size_t size;
    int status = LSPCI_INPUT;

    if (file == NULL)
        return lspci_error("%s: %s", path, strerror(errno));
    memset(&dump, 0, sizeof(dump));
    dump.name = standard ? "standard input" : path;
    dump.found = found;
    dump.ctx = ctx;
    bytes = read_all(file, dump.name, &size);
    if (bytes != NULL)
        status = take_all(&dump, bytes, size);
    free(bytes);
    if (!standard)
        (void)fclose(file);
    return status;
}
