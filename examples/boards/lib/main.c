// SPDX-License-Identifier: MIT-0
/* From start-up code to program and to the end; interrupt handlers by number. See board.h. */
#include <stdio.h>

#include "../board.h"

static struct {
    unsigned number;
    void (*handler)(void *ctx);
    void *ctx;
} handlers[BOARD_HANDLERS];
static unsigned handler_count;

bool board_handlers_add(unsigned number, void (*handler)(void *ctx), void *ctx)
{
    if (handler_count == BOARD_HANDLERS)
        return false;
    handlers[handler_count].number = number;
    handlers[handler_count].handler = handler;
    handlers[handler_count++].ctx = ctx;
    return true;
}

void board_handlers_call(unsigned number)
{
    for (unsigned i = 0; i < handler_count; i++) {
        if (handlers[i].number == number)
            handlers[i].handler(handlers[i].ctx);
    }
}

void board_fault(const char *what, uint64_t cause, uint64_t address)
{
    printf("%s: cause 0x%llx at 0x%llx\n", what, (unsigned long long)cause,
           (unsigned long long)address);
    board_exit(2);
}

void board_main(void)
{
    int status;

    board_start();
    status = board_program();
    printf("%s\n", status == 0 ? "done" : "FAILED");
    board_exit(status);
}
