// SPDX-License-Identifier: MIT-0
/*
 * Starts QEMU and speaks the qtest protocol with it; see qtest.h.
 *
 * Everything QEMU needs from us is an inherited descriptor: one end of a socket pair for the
 * protocol, anonymous files for RAM, firmware and its messages. So there is no path to collide on
 * or to clean up, and the end of either process shows at the other as the end of the stream.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create, pipe2 */
#endif

#include "qtest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_WAIT_MS = 3000, /* for QEMU to end by itself or after SIGTERM */
    ARGUMENTS_MAX = 160,
    BIOS_SIZE = 0x10000,
    BIOS_RESET_VECTOR = 0xfff0
};
/* Where QTEST_VIRT shows the ports of its PCI host bridge; without high memory, see the board. */
#define VIRT_PORTS UINT64_C(0x3eff0000)
#define RAM_MAX (UINT64_C(2) << 30) /* above this q35 moves a part of it beyond 4 GiB */
#define RAM_UNIT (UINT64_C(1) << 20)

/* What tells the boards apart. */
struct board {
    const char *name;
    const char *qemu;
    const char *options; /* of -machine */
    const char *cpu;     /* NULL: the machine's own */
    const char *irqs;    /* QOM path of what the interrupt lines end at */
    uint64_t ram_base;
    struct qtest_slots slots;
};

static const struct board boards[QTEST_MACHINE_COUNT] = {
    [QTEST_Q35] = {"q35", "qemu-system-x86_64", "", NULL, "ioapic", 0, {0, 0, 0}},
    [QTEST_PC] = {"pc", "qemu-system-x86_64", "", NULL, "ioapic", 0, {0, 0, 0}},
    /* One I/O APIC: the interception covers one, and the slots would be on the second. */
    [QTEST_MICROVM] = {"microvm",
                       "qemu-system-x86_64",
                       ",ioapic2=off",
                       NULL,
                       "ioapic",
                       0,
                       {UINT64_C(0xfeb00000), 8, 16}},
    /* All of PCI below 4 GiB. The GIC has no name of its own: it is the second device that the board
     * makes, after its one CPU. */
    [QTEST_VIRT] = {"virt",
                    "qemu-system-aarch64",
                    ",highmem=off,gic-version=2",
                    "cortex-a57",
                    "/machine/unattached/device[1]",
                    UINT64_C(0x40000000),
                    {UINT64_C(0x0a000000), 32, 16}}};

/* QEMU's arguments; the descriptors they name are inherited. */
struct command_line {
    char machine[64];
    char memory[24];
    char backend[96];
    char bios[32];
    char channel[48];
    const char *argv[ARGUMENTS_MAX];
};

/* What the child gets. All are closed in the parent once QEMU runs, except the log. */
struct inheritance {
    int socket;
    int ram;
    int bios;
};

/* ---- Errors and time ------------------------------------------------------------------------- */

/* Keeps the first error: the later ones are its consequences. */
__attribute__((format(printf, 2, 3))) static int fail(struct qtest *q, const char *format, ...)
{
    va_list arguments;

    if (q->error[0] == '\0') {
        va_start(arguments, format);
        (void)vsnprintf(q->error, sizeof q->error, format, arguments);
        va_end(arguments);
    }
    return -1;
}

const char *qtest_error(const struct qtest *q)
{
    return q->error[0] == '\0' ? NULL : q->error;
}

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* ---- The end of QEMU ------------------------------------------------------------------------- */

/* Waits for the child for a bounded time. Returns whether it is gone, and how in *status. */
static bool reap(struct qtest *q, int timeout_ms, int *status)
{
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = 2000000};
    const int64_t deadline = now_ms() + timeout_ms;

    for (;;) {
        const pid_t pid = waitpid(q->pid, status, WNOHANG);

        /* ECHILD: the caller ignores SIGCHLD or waits for any child; QEMU is gone all the same. */
        if (pid == q->pid || (pid < 0 && errno == ECHILD)) {
            if (pid < 0)
                *status = 0;
            q->pid = 0;
            return true;
        }
        if (now_ms() >= deadline)
            return false;
        (void)nanosleep(&pause, NULL);
    }
}

/* Cuts `text` down to the line that tells most: the first one that is no warning, else the first.
 */
static const char *telling_line(char *text)
{
    char *rest = text;
    char *line;

    while ((line = strtok_r(rest, "\r\n", &rest)) != NULL) {
        if (strstr(line, "warning:") == NULL)
            return line;
    }
    return text[0] == '\0' ? "it printed nothing" : text;
}

/* The stream from QEMU ended or broke: finds out why. */
static int connection_lost(struct qtest *q)
{
    int status = 0;
    /* First, because the last words may come after the end of the stream. */
    const bool gone = reap(q, EXIT_WAIT_MS, &status);
    char text[400];
    const ssize_t got = pread(q->log, text, sizeof text - 1, 0);
    const char *line;

    text[got > 0 ? got : 0] = '\0';
    line = telling_line(text);
    if (!gone)
        return fail(q, "QEMU closed the qtest connection but still runs: %s", line);
    if (WIFSIGNALED(status))
        return fail(q, "QEMU was killed by signal %d: %s", WTERMSIG(status), line);
    return fail(q, "QEMU exited with status %d: %s", WEXITSTATUS(status), line);
}

void qtest_stop(struct qtest *q)
{
    int status;

    if (!q->open)
        return;
    if (q->pid > 0) {
        (void)kill(q->pid, SIGTERM);
        if (!reap(q, EXIT_WAIT_MS, &status)) {
            (void)kill(q->pid, SIGKILL);
            (void)reap(q, EXIT_WAIT_MS, &status);
        }
    }
    close_fd(&q->socket);
    close_fd(&q->log);
    if (q->ram != NULL)
        (void)munmap(q->ram, q->ram_size);
    q->ram = NULL;
    q->ram_size = 0;
    q->pid = 0;
    q->open = false;
    (void)fail(q, "QEMU was stopped");
}

/* ---- The protocol: one line per command, one per reply, IRQ lines at any time ------------------
 */

/* Moves the first complete line of rx to `line`. Returns whether there was one. */
static bool take_line(struct qtest *q, char *line)
{
    char *const end = memchr(q->rx, '\n', q->rx_used);
    size_t length;

    if (end == NULL)
        return false;
    length = (size_t)(end - q->rx);
    memcpy(line, q->rx, length);
    line[length] = '\0';
    q->rx_used -= length + 1;
    memmove(q->rx, end + 1, q->rx_used);
    return true;
}

/* Waits for bytes until the deadline. Returns 1 when there are some, 0 when not, -1 on failure. */
static int fill(struct qtest *q, int64_t deadline)
{
    for (;;) {
        const int64_t left = deadline - now_ms();
        struct pollfd wait = {.fd = q->socket, .events = POLLIN, .revents = 0};
        const int ready = poll(&wait, 1, left > 0 ? (int)left : 0);
        ssize_t got;

        if (ready == 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return fail(q, "poll on the qtest connection: %s", strerror(errno));
        got = ready < 0
                  ? -1
                  : recv(q->socket, q->rx + q->rx_used, sizeof q->rx - q->rx_used, MSG_DONTWAIT);
        if (got > 0) {
            q->rx_used += (size_t)got;
            return 1;
        }
        if (got == 0 || (errno != EINTR && errno != EAGAIN))
            return connection_lost(q);
    }
}

/*
 * Gets the next line, of up to sizeof q->rx bytes with its NUL. Returns 1, 0 when none came before
 * the deadline, or -1.
 */
static int next_line(struct qtest *q, char *line, int64_t deadline)
{
    while (!take_line(q, line)) {
        int ready;

        if (q->rx_used == sizeof q->rx)
            return fail(q, "QEMU sent an over-long line: %.40s...", q->rx);
        ready = fill(q, deadline);
        if (ready <= 0)
            return ready;
    }
    return 1;
}

/* Notes `IRQ raise N` and `IRQ lower N`. Returns whether the line was one of these. */
static bool take_irq(struct qtest *q, const char *line)
{
    const bool raise = strncmp(line, "IRQ raise ", 10) == 0;
    unsigned long number;

    if (!raise && strncmp(line, "IRQ lower ", 10) != 0)
        return false;
    number = strtoul(line + 10, NULL, 10);
    if (number >= QTEST_IRQ_LINES)
        return true;
    q->irq_changes++;
    if (raise) {
        q->irq_raised[number]++;
        q->irq_level |= UINT64_C(1) << number;
    } else {
        q->irq_level &= ~(UINT64_C(1) << number);
    }
    return true;
}

/* Gets the reply to `command` (which ends in a newline) and its value, or 0 if it carries none. */
static int take_reply(struct qtest *q, const char *command, uint32_t *value)
{
    const int64_t deadline = now_ms() + QTEST_TIMEOUT_MS;
    const int shown = (int)strcspn(command, "\n");
    char line[sizeof q->rx];
    int got;

    do {
        got = next_line(q, line, deadline);
    } while (got > 0 && take_irq(q, line));
    if (got < 0)
        return -1;
    if (got == 0)
        return fail(q, "QEMU did not answer \"%.*s\" within %d s", shown, command,
                    QTEST_TIMEOUT_MS / 1000);
    if (strncmp(line, "OK", 2) != 0)
        return fail(q, "QEMU answered \"%.*s\" with \"%.80s\"", shown, command, line);
    *value = (uint32_t)strtoull(line + 2, NULL, 0);
    return 0;
}

/* Sends one command and waits for its reply. Returns the value in it, all ones on failure. */
__attribute__((format(printf, 2, 3))) static uint32_t ask(struct qtest *q, const char *format, ...)
{
    char command[96];
    uint32_t value = 0;
    va_list arguments;
    int length;

    if (q->error[0] != '\0')
        return UINT32_MAX;
    va_start(arguments, format);
    length = vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    /* At most one command is on its way, so a full socket means that QEMU stopped reading. */
    if (send(q->socket, command, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT) != length) {
        (void)(errno == EAGAIN ? fail(q, "QEMU does not read commands") : connection_lost(q));
        return UINT32_MAX;
    }
    return take_reply(q, command, &value) == 0 ? value : UINT32_MAX;
}

/* The letter that selects an access size in a command, 0 (and an error) if there is none. */
static char suffix(struct qtest *q, unsigned width)
{
    if (width != 1 && width != 2 && width != 4) {
        (void)fail(q, "an access of %u bytes was asked for; 1, 2 and 4 exist", width);
        return 0;
    }
    return width == 1 ? 'b' : width == 2 ? 'w' : 'l';
}

const char *qtest_machine_name(enum qtest_machine machine)
{
    return boards[machine].name;
}

struct qtest_slots qtest_slots(const struct qtest *q)
{
    return boards[q->machine].slots;
}

uint32_t qtest_in(struct qtest *q, uint16_t port, unsigned width)
{
    if (q->machine == QTEST_VIRT)
        return qtest_read(q, VIRT_PORTS + port, width);
    return ask(q, "in%c 0x%x\n", suffix(q, width), port);
}

void qtest_out(struct qtest *q, uint16_t port, unsigned width, uint32_t value)
{
    if (q->machine == QTEST_VIRT)
        qtest_write(q, VIRT_PORTS + port, width, value);
    else
        (void)ask(q, "out%c 0x%x 0x%" PRIx32 "\n", suffix(q, width), port, value);
}

uint32_t qtest_read(struct qtest *q, uint64_t address, unsigned width)
{
    return ask(q, "read%c 0x%" PRIx64 "\n", suffix(q, width), address);
}

void qtest_write(struct qtest *q, uint64_t address, unsigned width, uint32_t value)
{
    (void)ask(q, "write%c 0x%" PRIx64 " 0x%" PRIx32 "\n", suffix(q, width), address, value);
}

void *qtest_ram(const struct qtest *q)
{
    return q->ram;
}

uint64_t qtest_ram_base(const struct qtest *q)
{
    return boards[q->machine].ram_base;
}

size_t qtest_ram_size(const struct qtest *q)
{
    return q->ram_size;
}

/* ---- Interrupt lines ---------------------------------------------------------------------------
 */

int qtest_irq_intercept(struct qtest *q)
{
    /* Channel 0 of the timer to mode 1, without a trigger: it comes to rest low. */
    if (q->machine != QTEST_VIRT)
        qtest_out(q, 0x43, 1, 0x32);
    (void)ask(q, "irq_intercept_in %s\n", boards[q->machine].irqs);
    return q->error[0] == '\0' ? 0 : -1;
}

int qtest_poll(struct qtest *q, int timeout_ms)
{
    const unsigned before = q->irq_changes;
    char line[sizeof q->rx];
    int64_t deadline;
    int got;

    if (q->error[0] != '\0')
        return -1;
    deadline = now_ms() + timeout_ms;
    while ((got = next_line(q, line, deadline)) > 0) {
        if (!take_irq(q, line))
            return fail(q, "QEMU sent \"%.80s\" unasked", line);
        deadline = 0; /* waits for the first change only */
    }
    return got < 0 ? -1 : (int)(q->irq_changes - before);
}

unsigned qtest_irq_raised(const struct qtest *q, unsigned line)
{
    return line < QTEST_IRQ_LINES ? q->irq_raised[line] : 0;
}

bool qtest_irq_level(const struct qtest *q, unsigned line)
{
    return line < QTEST_IRQ_LINES && (q->irq_level >> line & 1) != 0;
}

/* ---- The start of QEMU -------------------------------------------------------------------------
 */

static int create_ram(struct qtest *q, uint64_t size, int *fd)
{
    void *ram;

    if (size == 0 || size > RAM_MAX || size % RAM_UNIT != 0)
        return fail(q, "RAM of %" PRIu64 " bytes: it must be 1 MiB to 2 GiB in steps of 1 MiB",
                    size);
    *fd = memfd_create("qtest-ram", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, (off_t)size) != 0)
        return fail(q, "cannot create the RAM file: %s", strerror(errno));
    ram = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (ram == MAP_FAILED)
        return fail(q, "cannot map the RAM file: %s", strerror(errno));
    q->ram = ram;
    q->ram_size = (size_t)size;
    return 0;
}

/* A firmware that parks the CPU at its reset vector: what runs on the machine is the caller. */
static int create_bios(struct qtest *q, int *fd)
{
    static const unsigned char x86[] = {0xfa, 0xf4, 0xeb, 0xfd}; /* cli; 1: hlt; jmp 1b */
    static const unsigned char arm[] = {0x7f, 0x20, 0x03, 0xd5, 0xff, 0xff, 0xff, 0x17}; /* wfi; b */
    const bool virt = q->machine == QTEST_VIRT;
    const ssize_t size = virt ? (ssize_t)sizeof arm : (ssize_t)sizeof x86;

    *fd = memfd_create("qtest-bios", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, BIOS_SIZE) != 0 ||
        pwrite(*fd, virt ? arm : x86, (size_t)size, virt ? 0 : BIOS_RESET_VECTOR) != size)
        return fail(q, "cannot create the firmware file: %s", strerror(errno));
    return 0;
}

static int create_channels(struct qtest *q, struct inheritance *given)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return fail(q, "cannot create a socket pair: %s", strerror(errno));
    q->socket = pair[0];
    given->socket = pair[1];
    q->log = memfd_create("qtest-log", MFD_CLOEXEC);
    if (q->log < 0)
        return fail(q, "cannot create the log file: %s", strerror(errno));
    return 0;
}

static int build_command_line(struct qtest *q, const struct qtest_options *options,
                              const struct inheritance *given, struct command_line *c)
{
    const struct board *const board = &boards[options->machine];
    const char *const fixed[] = {options->qemu != NULL ? options->qemu : board->qemu,
                                 "-nodefaults",
                                 "-no-user-config",
                                 "-display",
                                 "none",
                                 "-accel",
                                 "tcg",
                                 "-machine",
                                 c->machine,
                                 "-m",
                                 c->memory,
                                 "-object",
                                 c->backend,
                                 "-bios",
                                 c->bios,
                                 "-chardev",
                                 c->channel,
                                 "-qtest",
                                 "chardev:qtest",
                                 "-qtest-log",
                                 "/dev/null"};
    const size_t count = sizeof fixed / sizeof fixed[0];
    const char *const *extra = options->extra;
    size_t n;

    (void)snprintf(c->machine, sizeof c->machine, "%s,memory-backend=ram%s", board->name,
                   board->options);
    (void)snprintf(c->memory, sizeof c->memory, "%" PRIu64 "M", options->ram_size / RAM_UNIT);
    (void)snprintf(c->backend, sizeof c->backend,
                   "memory-backend-file,id=ram,share=on,size=%s,mem-path=/proc/self/fd/%d",
                   c->memory, given->ram);
    (void)snprintf(c->bios, sizeof c->bios, "/proc/self/fd/%d", given->bios);
    (void)snprintf(c->channel, sizeof c->channel, "socket,id=qtest,fd=%d", given->socket);
    memcpy(c->argv, fixed, sizeof fixed);
    n = count;
    if (board->cpu != NULL) {
        c->argv[n++] = "-cpu";
        c->argv[n++] = board->cpu;
    }
    for (; extra != NULL && *extra != NULL; extra++) {
        if (n == ARGUMENTS_MAX - 1)
            return fail(q, "more than %zu extra arguments for QEMU", ARGUMENTS_MAX - 1 - count);
        c->argv[n++] = *extra;
    }
    c->argv[n] = NULL;
    return 0;
}

/* In the child: lets QEMU inherit what is for it. Only async-signal-safe calls from here on. */
static bool hand_over(const struct inheritance *given, int log)
{
    const int empty = open("/dev/null", O_RDONLY | O_CLOEXEC);

    return empty >= 0 && dup2(empty, STDIN_FILENO) >= 0 && dup2(log, STDOUT_FILENO) >= 0 &&
           dup2(log, STDERR_FILENO) >= 0 && fcntl(given->socket, F_SETFD, 0) == 0 &&
           fcntl(given->ram, F_SETFD, 0) == 0 && fcntl(given->bios, F_SETFD, 0) == 0;
}

/* In the child: becomes QEMU, or tells `report` the errno and ends. */
static void become_qemu(const struct command_line *c, const struct inheritance *given, int log,
                        int report, pid_t parent)
{
    int reason;

    /* The parent may have died before the request; then nobody is left to tell. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent && hand_over(given, log))
        (void)execvp(c->argv[0], (char *const *)c->argv);
    reason = errno;
    if (write(report, &reason, sizeof reason) < 0)
        _exit(126);
    _exit(127);
}

/* Starts the child. The report pipe closes when exec succeeds, so reading it tells the two apart.
 */
static int spawn(struct qtest *q, const struct command_line *c, const struct inheritance *given)
{
    const pid_t parent = getpid();
    int report[2];
    int reason = 0;
    ssize_t got;

    if (pipe2(report, O_CLOEXEC) != 0)
        return fail(q, "cannot create a pipe: %s", strerror(errno));
    q->pid = fork();
    if (q->pid == 0)
        become_qemu(c, given, q->log, report[1], parent);
    close_fd(&report[1]);
    if (q->pid < 0) {
        q->pid = 0;
        close_fd(&report[0]);
        return fail(q, "cannot start a process: %s", strerror(errno));
    }
    do {
        got = read(report[0], &reason, sizeof reason);
    } while (got < 0 && errno == EINTR);
    close_fd(&report[0]);
    if (got > 0)
        return fail(q, "cannot run %s: %s", c->argv[0], strerror(reason));
    return 0;
}

int qtest_start(struct qtest *q, const struct qtest_options *options)
{
    struct inheritance given = {.socket = -1, .ram = -1, .bios = -1};
    struct command_line line;

    memset(q, 0, sizeof *q);
    q->machine = options->machine;
    q->socket = -1;
    q->log = -1;
    q->open = true;
    if (create_ram(q, options->ram_size, &given.ram) == 0 && create_bios(q, &given.bios) == 0 &&
        create_channels(q, &given) == 0 && build_command_line(q, options, &given, &line) == 0)
        (void)spawn(q, &line, &given);
    close_fd(&given.socket);
    close_fd(&given.ram);
    close_fd(&given.bios);
    /* QEMU answers from its main loop: the first reply says that all devices exist. */
    (void)ask(q, "endianness\n");
    return q->error[0] == '\0' ? 0 : -1;
}
