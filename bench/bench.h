// SPDX-License-Identifier: MIT-0
/*
 * What the programs of the bench share: options, the clock, and the lines they print. A program
 * makes one pass and prints `suite,case,unit,value` for each figure; lines that begin with '#' are
 * remarks. bench/run.py runs it several times. Included first, for the sake of the C library's
 * extensions.
 */
#ifndef BENCH_H
#define BENCH_H

#define _GNU_SOURCE

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __clang__
#define BENCH_COMPILER __VERSION__
#else
#define BENCH_COMPILER "gcc " __VERSION__
#endif
#ifndef BENCH_FLAGS
#define BENCH_FLAGS "not recorded"
#endif

/* Does `rounds` times what is measured; the ns it took. */
typedef double bench_work(void *ctx, unsigned long rounds);

/* A piece of work and the time of a round of it. */
struct bench_timing {
    bench_work *work;
    void *ctx;
    double ns;
};

enum { BENCH_SLICES_MAX = 9 };

static inline void bench_fail(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

/* --quick or nothing; --help prints `about` and ends. */
static inline bool bench_quick(int argc, char **argv, const char *about)
{
    bool quick = false;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            printf("usage: %s [--quick]\n%s", argv[0], about);
            exit(0);
        }
        if (strcmp(argv[i], "--quick") != 0) {
            fprintf(stderr, "%s: no option \"%s\", see --help\n", argv[0], argv[i]);
            exit(2);
        }
        quick = true;
    }
    printf("# compiler %s, flags %s\n", BENCH_COMPILER, BENCH_FLAGS);
    return quick;
}

static inline void bench_figure(const char *suite, const char *name, const char *unit, double value)
{
    printf("%s,%s,%s,%.3f\n", suite, name, unit, value);
}

/* Whoever computes this must do so: the decision to notify is part of what is measured. */
static inline void bench_use(bool value)
{
    __asm__ volatile("" : : "r"(value));
}

static inline double bench_now(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        bench_fail("no monotonic clock");
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* How many rounds take about `slice` ns. Warms up what they touch. A run that was interrupted says
 * nothing: it takes three slow ones to stop. */
static inline unsigned long bench_rounds(const struct bench_timing *timing, double slice)
{
    unsigned long rounds = 1;
    unsigned slow = 0;

    while (rounds < 1ul << 30 && slow < 3) {
        if (timing->work(timing->ctx, rounds) >= slice / 2) {
            slow++;
        } else {
            slow = 0;
            rounds *= 2;
        }
    }
    return rounds;
}

static inline int bench_compare_(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

/*
 * Times `count` pieces of work in turns, `slices` times each, so that a change of the machine's
 * mood meets all of them. What counts of one thread's slices is the fastest (rank 0): what disturbs
 * it only adds. Two threads can meet in lucky ways too: there it is the middle one.
 */
static inline void bench_time(struct bench_timing *timing, unsigned count, unsigned slices,
                              double slice, unsigned rank)
{
    double ns[4][BENCH_SLICES_MAX];
    unsigned long rounds[4];

    if (count > 4 || slices > BENCH_SLICES_MAX || rank >= slices)
        bench_fail("too much at once");
    for (unsigned i = 0; i < count; i++)
        rounds[i] = bench_rounds(&timing[i], slice);
    for (unsigned turn = 0; turn < slices; turn++) {
        for (unsigned i = 0; i < count; i++)
            ns[i][turn] = timing[i].work(timing[i].ctx, rounds[i]) / (double)rounds[i];
    }
    for (unsigned i = 0; i < count; i++) {
        qsort(ns[i], slices, sizeof(ns[i][0]), bench_compare_);
        timing[i].ns = ns[i][rank];
    }
}

#endif
