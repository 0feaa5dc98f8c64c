// SPDX-License-Identifier: MIT-0
/* Echoes on every port of a console what comes in there, each byte changed by a number that is the
 * port's own: whoever sent it can tell whether each byte came back once, in order and from the same
 * port. Ends when port 0 reads "quit" and a newline. */
#include <stdio.h>

#include "../../driver/console.h"
#include "../../hosts/show.h"
#include "../board.h"

enum { PIECE = 4096, KEY = 0x55 /* plus the port */ };

/* What came in on a port and did not go out yet. */
struct echo {
    uint8_t bytes[PIECE];
    uint32_t at;
    uint32_t length;
    uint64_t in;
    uint64_t out;
};

static uint8_t memory[CONSOLE_MEMORY_SIZE] __attribute__((aligned(4096)));
static struct echo echo[CONSOLE_PORTS];
static struct board_device device;
static struct console console;
static unsigned quit_seen; /* characters of the word */

static const char quit_word[] = "quit\n";

static void look_for_quit(const uint8_t *bytes, uint32_t length)
{
    for (uint32_t i = 0; i < length && quit_word[quit_seen] != '\0'; i++) {
        if (bytes[i] == (uint8_t)quit_word[quit_seen])
            quit_seen++;
        else
            quit_seen = bytes[i] == (uint8_t)quit_word[0];
    }
}

static void print_name(const char *name)
{
    printf(" \"");
    for (; *name != '\0'; name++)
        printf("%c", *name < ' ' || *name > '~' ? '?' : *name);
    printf("\"");
}

static void print_counts(uint32_t port)
{
    printf("  port %u     in %llu bytes, out %llu\n", port, (unsigned long long)echo[port].in,
           (unsigned long long)echo[port].out);
}

static void on_added(uint32_t port)
{
    echo[port].at = echo[port].length = 0;
    echo[port].in = echo[port].out = 0;
    if (console_open(&console, port) != 0)
        printf("  port %u     cannot be opened\n", port);
}

static void on_resized(uint32_t port)
{
    struct console_size size;

    if (console_size(&console, port, &size) == 0)
        printf("  port %u     is %u x %u\n", port, size.columns, size.rows);
}

static void on_event(const struct console_event *event)
{
    static const char *const texts[] = {"added",  "refused", "removed", "named",
                                        "opened", "closed",  "is a console"};

    if (event->kind == CONSOLE_RESIZED) {
        on_resized(event->port);
        return;
    }
    printf("  port %u     %s", event->port, texts[event->kind]);
    if (event->kind == CONSOLE_REFUSED)
        printf(": %s", console_err_name(event->error));
    if (event->kind == CONSOLE_NAMED)
        print_name(console.port[event->port].name);
    printf("\n");
    if (event->kind == CONSOLE_ADDED)
        on_added(event->port);
    if (event->kind == CONSOLE_REMOVED)
        print_counts(event->port);
}

/* More input, if all that came before is out. */
static int fill(uint32_t port)
{
    struct echo *e = &echo[port];
    int got;

    if (e->at != e->length)
        return 0;
    e->at = e->length = 0;
    got = console_read(&console, port, e->bytes, PIECE);
    if (got <= 0)
        return got;
    if (port == 0)
        look_for_quit(e->bytes, (uint32_t)got);
    for (int i = 0; i < got; i++)
        e->bytes[i] = (uint8_t)(e->bytes[i] ^ (KEY + port));
    e->length = (uint32_t)got;
    e->in += e->length;
    return got;
}

/* What is there goes out, as far as there is room; into nowhere if nobody is there. */
static int drain(uint32_t port)
{
    struct echo *e = &echo[port];
    int got;

    if (e->at == e->length)
        return 0;
    got = console_write(&console, port, e->bytes + e->at, e->length - e->at);
    if (got == CONSOLE_ERR_CLOSED) {
        e->at = e->length;
        return 0;
    }
    if (got > 0) {
        e->at += (uint32_t)got;
        e->out += (uint32_t)got;
    }
    return got;
}

/* One round over all ports: how much was moved, or an error. */
static int serve(void)
{
    int moved = 0;

    for (uint32_t port = 0; port < CONSOLE_PORTS; port++) {
        int in = fill(port), out = in < 0 ? in : drain(port);

        if (out == CONSOLE_ERR_PORT)
            continue;
        if (out < 0)
            return out;
        moved += in + out;
    }
    return moved;
}

static int work(void)
{
    struct console_event event;
    int err = 0;

    board_wait_begin(&device);
    while (err == 0 && quit_word[quit_seen] != '\0') {
        int got;

        while ((got = console_poll(&console, &event)) > 0)
            on_event(&event);
        if (got == 0)
            got = serve();
        if (got < 0)
            return got;
        if (got > 0)
            board_wait_begin(&device);
        else
            err = console_wait(&console);
    }
    if (err == CONSOLE_ERR_TIMEOUT)
        printf("  nothing came in for %u seconds\n", BOARD_PATIENCE / 1000000);
    return err != 0 ? err : console_flush(&console, 0);
}

static void interrupted(void *ctx, uint32_t causes)
{
    (void)ctx;
    if (causes & VIRTIO_IRQ_CONFIG)
        console_config_changed(&console);
}

static void print_end(void)
{
    uint32_t dropped = 0;

    for (uint32_t port = 0; port < CONSOLE_PORTS; port++) {
        if (console.port[port].state == CONSOLE_PRESENT)
            print_counts(port);
    }
    for (unsigned i = 0; i < CONSOLE_DROPS; i++)
        dropped += console.dropped[i];
    printf("  dropped    %u\n", dropped);
    board_show_interrupts(&device);
}

static int run(void)
{
    struct console_setup setup = {.memory = {memory, board_device_address(memory), sizeof(memory)},
                                  .wait = board_wait,
                                  .wait_ctx = &device,
                                  .vectors = device.vectors};
    int err = console_emergency_write(&device.drv, '!');

    printf("  emergency  %s\n", err == 0 ? "character written" : console_err_name(err));
    device.handler = interrupted;
    err = console_start(&console, &device.drv, &setup);
    if (err != 0)
        return err;
    show_features(&device.drv, CONSOLE_DEVICE_TYPE);
    for (unsigned i = 0; i < console.queue_count; i++)
        show_queue(&device.drv, i, console.queue[i].entries);
    on_resized(0);
    err = work();
    print_end();
    return err == 0 ? console_stop(&console) : err;
}

int board_program(void)
{
    int err;

    if (!board_find(&device, CONSOLE_DEVICE_TYPE, 0))
        return 1;
    err = run();
    if (err != 0)
        printf("console: %s\n", console_err_name(err));
    return err == 0 ? 0 : 1;
}
