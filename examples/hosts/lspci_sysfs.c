// SPDX-License-Identifier: MIT-0
/*
 * PCI functions out of Linux's sysfs. Only files that are safe to read beside a driver are read:
 * the first 64 bytes of `config` and then what is asked for, `resource`, names of drivers, and what
 * the bound virtio driver tells of its device.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* scandir, pread, readlink */
#endif

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lspci.h"

/* Flags of Linux's resources, as `resource` shows them. */
enum {
    RESOURCE_IO = 0x100,
    RESOURCE_MEM = 0x200,
    RESOURCE_PREFETCH = 0x2000,
    RESOURCE_MEM_64 = 0x100000,
    RESOURCE_UNSET = 0x20000000 /* it has no address yet */
};

enum { TEXT_MAX = 1024 };

/* ----- files ----- */

/* "directory/name"; false after a message if that is too long. */
static bool join(char path[LSPCI_PATH_MAX], const char *directory, const char *name)
{
    if (snprintf(path, LSPCI_PATH_MAX, "%s/%s", directory, name) < LSPCI_PATH_MAX)
        return true;
    (void)lspci_error("%s/%s: %s", directory, name, strerror(ENAMETOOLONG));
    return false;
}

/* The text of a small file: LSPCI_OK, or a message. */
static int read_text(const char *path, char text[TEXT_MAX])
{
    FILE *file = fopen(path, "r");
    size_t size;
    int status = LSPCI_OK;

    if (file == NULL)
        return lspci_error("%s: %s", path, strerror(errno));
    size = fread(text, 1, TEXT_MAX - 1, file);
    text[size] = '\0';
    if (ferror(file))
        status = lspci_error("%s: %s", path, strerror(errno));
    (void)fclose(file);
    return status;
}

/* The last part of what a symbolic link names; empty if there is none. */
static void read_link(const char *directory, const char *name, char target[LSPCI_NAME_MAX])
{
    char path[LSPCI_PATH_MAX], text[LSPCI_PATH_MAX];
    const char *slash;
    ssize_t size;

    target[0] = '\0';
    if (!join(path, directory, name))
        return;
    size = readlink(path, text, sizeof(text) - 1);
    if (size <= 0)
        return;
    text[size] = '\0';
    slash = strrchr(text, '/');
    snprintf(target, LSPCI_NAME_MAX, "%.*s", LSPCI_NAME_MAX - 1, slash != NULL ? slash + 1 : text);
}

/* ----- one function ----- */

static struct lspci_bar decode_resource(uint64_t first, uint64_t last, uint64_t flags)
{
    struct lspci_bar bar = {{0, 0, VIRTIO_PCI_BAR_NONE, 0}, false};

    if ((flags & (RESOURCE_IO | RESOURCE_MEM)) == 0 || (flags & RESOURCE_UNSET) != 0 ||
        last <= first)
        return bar;
    bar.pci.kind = flags & RESOURCE_IO ? VIRTIO_PCI_BAR_IO : VIRTIO_PCI_BAR_MEM;
    bar.pci.base = first;
    bar.pci.length = last - first + 1;
    bar.pci.wide = (flags & RESOURCE_MEM_64) != 0;
    bar.prefetchable = (flags & RESOURCE_PREFETCH) != 0;
    return bar;
}

/* The six BARs are the first lines of `resource`: first address, last address, flags. */
static int read_bars(struct lspci_function *function)
{
    char path[LSPCI_PATH_MAX], text[TEXT_MAX];
    const char *line = text;

    if (!join(path, function->live.directory, "resource") || read_text(path, text) != LSPCI_OK)
        return LSPCI_INPUT;
    for (unsigned i = 0; i < 6; i++) {
        uint64_t first, last, flags;

        if (sscanf(line, "%" SCNx64 " %" SCNx64 " %" SCNx64, &first, &last, &flags) != 3)
            return lspci_error("%s:%u: no first address, last address and flags", path, i + 1);
        function->bars[i] = decode_resource(first, last, flags);
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    function->sizes_known = true;
    return LSPCI_OK;
}

/* A string of 0 and 1, bit 0 first. */
static int read_features(struct lspci_live *live, const char *directory)
{
    char path[LSPCI_PATH_MAX], text[TEXT_MAX];
    size_t length;

    if (!join(path, directory, "features") || read_text(path, text) != LSPCI_OK)
        return LSPCI_INPUT;
    length = strspn(text, "01");
    if (length == 0 || (text[length] != '\0' && text[length] != '\n'))
        return lspci_error("%s:1: not a string of 0 and 1", path);
    for (unsigned bit = 0; bit < length && bit < 128; bit++) {
        if (text[bit] == '1')
            virtio_features_add(&live->negotiated, bit);
    }
    live->negotiated_known = true;
    return LSPCI_OK;
}

static int read_status(struct lspci_live *live, const char *directory)
{
    char path[LSPCI_PATH_MAX], text[TEXT_MAX], *end;
    unsigned long value;

    if (!join(path, directory, "status") || read_text(path, text) != LSPCI_OK)
        return LSPCI_INPUT;
    value = strtoul(text, &end, 16);
    if (end == text || value > 0xff)
        return lspci_error("%s:1: not a device status", path);
    live->status = (uint8_t)value;
    live->status_known = true;
    return LSPCI_OK;
}

/* The virtio device that a driver made of the function, if there is one: "virtioN" in `directory`.
 */
static int read_virtio(struct lspci_live *live)
{
    char path[LSPCI_PATH_MAX];
    struct dirent *entry;
    DIR *directory = opendir(live->directory);

    if (directory == NULL)
        return lspci_error("%s: %s", live->directory, strerror(errno));
    while (live->device[0] == '\0' && (entry = readdir(directory)) != NULL) {
        if (strncmp(entry->d_name, "virtio", 6) == 0 && isdigit((unsigned char)entry->d_name[6]))
            snprintf(live->device, LSPCI_NAME_MAX, "%.*s", LSPCI_NAME_MAX - 1, entry->d_name);
    }
    (void)closedir(directory);
    if (live->device[0] == '\0')
        return LSPCI_OK;
    if (!join(path, live->directory, live->device))
        return LSPCI_INPUT;
    read_link(path, "driver", live->device_driver);
    return read_features(live, path) == LSPCI_OK ? read_status(live, path) : LSPCI_INPUT;
}

/* The beginning of configuration space, which tells whether the rest is of interest. */
static int read_header(struct lspci_function *function)
{
    char path[LSPCI_PATH_MAX];
    ssize_t size;

    if (!join(path, function->live.directory, "config"))
        return LSPCI_INPUT;
    function->config_file = open(path, O_RDONLY | O_CLOEXEC);
    if (function->config_file < 0)
        return lspci_error("%s: %s", path, strerror(errno));
    size = pread(function->config_file, function->config, LSPCI_CONFIG_MIN, 0);
    if (size < 0)
        return lspci_error("%s: %s", path, strerror(errno));
    function->config_size = (size_t)size;
    if (size < LSPCI_CONFIG_MIN)
        return lspci_error("%s: ends after %zd bytes of configuration space; %u are the least", path,
                           size, LSPCI_CONFIG_MIN);
    return LSPCI_OK;
}

static int read_rest(struct lspci_function *function)
{
    int status = read_bars(function);

    read_link(function->live.directory, "driver", function->live.driver);
    return status == LSPCI_OK ? read_virtio(&function->live) : status;
}

/* Clears *go_on if `found` does not want more. */
static int take_function(const char *devices, const char *address, lspci_found_fn found, void *ctx,
                         bool *go_on)
{
    static struct lspci_function function;
    int status;

    memset(&function, 0, sizeof(function));
    function.config_file = -1;
    snprintf(function.address, sizeof(function.address), "%s", address);
    if (!join(function.live.directory, devices, address))
        return LSPCI_INPUT;
    status = read_header(&function);
    if (status == LSPCI_OK && lspci_is_virtio(&function))
        status = read_rest(&function);
    if (status == LSPCI_OK)
        *go_on = found(ctx, &function);
    if (function.config_file >= 0)
        (void)close(function.config_file);
    return status;
}

/* ----- all of them ----- */

static int is_function(const struct dirent *entry)
{
    const char *end;

    return lspci_is_address(entry->d_name, &end) && *end == '\0' &&
           strlen(entry->d_name) < LSPCI_NAME_MAX;
}

static int take_each(const char *devices, lspci_found_fn found, void *ctx)
{
    struct dirent **entries;
    int count = scandir(devices, &entries, is_function, alphasort), status = LSPCI_OK;
    bool go_on = true;

    if (count < 0)
        return lspci_error("%s: %s", devices, strerror(errno));
    for (int i = 0; i < count; i++) {
        if (go_on && take_function(devices, entries[i]->d_name, found, ctx, &go_on) != LSPCI_OK)
            status = LSPCI_INPUT;
        free(entries[i]);
    }
    free(entries);
    return status;
}

int lspci_sysfs(const char *sysfs, const char *address, lspci_found_fn found, void *ctx)
{
    char devices[LSPCI_PATH_MAX], name[LSPCI_NAME_MAX];
    bool go_on;
    size_t i;

    if (!join(devices, sysfs, "bus/pci/devices"))
        return LSPCI_INPUT;
    if (address == NULL)
        return take_each(devices, found, ctx);
    /* sysfs always has the domain, and small letters. */
    snprintf(name, sizeof(name), "%s%s", address[2] == ':' ? "0000:" : "", address);
    for (i = 0; name[i] != '\0'; i++)
        name[i] = (char)tolower((unsigned char)name[i]);
    return take_function(devices, name, found, ctx, &go_on);
}
