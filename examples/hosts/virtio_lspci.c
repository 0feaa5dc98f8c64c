// SPDX-License-Identifier: MIT-0
/*
 * virtio-lspci: what a PCI function has for virtio, out of a dump of its configuration space or on a
 * running Linux. See usage(), and lspci.h for the parts.
 */
#include <stdlib.h>
#include <string.h>

#include "lspci.h"

/* The command line, and what became of it. */
struct run {
    bool json;
    bool registers_wanted;
    const char *sysfs;
    const struct virtio_names_type *type; /* of --type */
    bool features_given;
    struct virtio_features features;
    unsigned shown;
    int status; /* the greatest so far */
};

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: virtio-lspci [OPTION]... [WHAT]...\n"
            "Shows the virtio capabilities, register layout and features of PCI functions.\n"
            "WHAT is a function of this machine, [0000:]00:03.0; or a file with a dump of\n"
            "configuration space, as bytes or as lspci -xxx prints it; or -, a dump on standard\n"
            "input. Without any, all virtio functions of this machine are shown.\n"
            "  --json           for programs: one array, an object for each function\n"
            "  --features WORD  name the bits of this number (hex, up to 128 bits), too\n"
            "  --type NAME      with --features: name them for this device type and look at no\n"
            "                   function; net, blk, console, rng, ...\n"
            "  --registers      ask devices for the features they offer and for their queues,\n"
            "                   where no driver is bound (needs root)\n"
            "  --sysfs DIR      where sysfs is mounted, /sys if not said\n"
            "  --help           this text\n"
            "Nothing behind a BAR is touched without --registers. A dump does not say how large\n"
            "BARs are; they are assumed to be as large as their addresses allow.\n"
            "Exit status, the greatest that applies: 0 shown; 1 no virtio function; 2 wrong\n"
            "arguments; 3 something is unreadable or malformed; 4 a function's layout is unusable,\n"
            "or its registers could not be read.\n");
    return status;
}

/* ----- functions ----- */

static void worsen(struct run *run, int status)
{
    if (status > run->status)
        run->status = status;
}

/* One that was found: shown if it is virtio's. */
static bool show(void *ctx, struct lspci_function *function)
{
    static struct lspci_registers registers;
    static struct lspci_report report;
    struct run *run = (struct run *)ctx;

    if (!lspci_is_virtio(function))
        return true;
    memset(&report, 0, sizeof(report));
    worsen(run, lspci_examine(&report, function));
    report.given_known = run->features_given;
    report.given = run->features;
    if (run->registers_wanted) {
        worsen(run, lspci_registers_read(&registers, &report));
        report.registers = &registers;
    }
    if (run->shown++ != 0)
        printf(run->json ? "," : "\n");
    if (run->json)
        lspci_show_json(stdout, &report);
    else
        lspci_show_text(stdout, &report);
    return true;
}

static int show_what(struct run *run, const char *what)
{
    const char *end;

    if (what != NULL && !(lspci_is_address(what, &end) && *end == '\0'))
        return lspci_dump(what, show, run);
    return lspci_sysfs(run->sysfs, what, show, run);
}

/* Everything asked for, and what the program ends with. */
static int show_all(struct run *run, char **what)
{
    if (run->json)
        printf("[");
    if (run->type != NULL) {
        run->shown = 1;
        if (run->json)
            lspci_show_features_json(stdout, run->type, &run->features);
        else
            lspci_show_features_text(stdout, run->type, &run->features);
    } else if (*what == NULL) {
        worsen(run, show_what(run, NULL));
    }
    for (; *what != NULL; what++)
        worsen(run, show_what(run, *what));
    if (run->json)
        printf("\n]\n");
    if (run->shown == 0 && run->status == LSPCI_OK) {
        (void)lspci_error("no virtio function");
        run->status = LSPCI_NONE;
    }
    if (fflush(stdout) != 0)
        worsen(run, lspci_error("cannot write the output"));
    return run->status;
}

/* ----- the command line ----- */

static bool parse_features(struct run *run, const char *text)
{
    const char *digits = strncmp(text, "0x", 2) == 0 ? text + 2 : text;
    size_t count = strspn(digits, "0123456789abcdefABCDEF");

    if (count == 0 || count > 32 || digits[count] != '\0') {
        (void)lspci_error("\"%s\" is no number of up to 32 hex digits", text);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        size_t low = 4 * (count - 1 - i); /* the lowest bit of this digit */
        char digit[2] = {digits[i], '\0'};

        run->features.word[low / 32] |= (uint32_t)strtoul(digit, NULL, 16) << low % 32;
    }
    run->features_given = true;
    return true;
}

static bool parse_type(struct run *run, const char *key)
{
    run->type = virtio_names_find(key);
    if (run->type == NULL)
        (void)lspci_error("no device type \"%s\"", key);
    return run->type != NULL;
}

/* Takes an option: how many arguments it used, 0 if it is none, -1 if it is wrong. */
static int option(struct run *run, char **argv)
{
    if (strcmp(argv[0], "--json") == 0)
        run->json = true;
    else if (strcmp(argv[0], "--registers") == 0)
        run->registers_wanted = true;
    else if (argv[1] == NULL)
        return 0;
    else if (strcmp(argv[0], "--features") == 0)
        return parse_features(run, argv[1]) ? 2 : -1;
    else if (strcmp(argv[0], "--type") == 0)
        return parse_type(run, argv[1]) ? 2 : -1;
    else if (strcmp(argv[0], "--sysfs") == 0) {
        run->sysfs = argv[1];
        return 2;
    } else
        return 0;
    return 1;
}

/* Steps over the options; false after a message. */
static bool parse(struct run *run, char ***argv)
{
    while (**argv != NULL && strncmp(**argv, "--", 2) == 0) {
        int taken = option(run, *argv);

        if (taken == 0)
            (void)lspci_error("cannot do anything with \"%s\"", **argv);
        if (taken <= 0)
            return false;
        *argv += taken;
    }
    if (run->type != NULL && (!run->features_given || **argv != NULL)) {
        (void)lspci_error("--type goes with --features, and with nothing to look at");
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct run run = {.sysfs = "/sys"};

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, LSPCI_OK);
    argv++;
    if (!parse(&run, &argv))
        return usage(stderr, LSPCI_USAGE);
    return show_all(&run, argv);
}
