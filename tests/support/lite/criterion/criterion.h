// SPDX-License-Identifier: MIT-0
/* A stand-in for the part of Criterion that the tests use, for programs that run under qemu-user
 * where libcriterion is not at hand. All tests run in one process, one after the other: a failed
 * cr_assert leaves its test by longjmp, a crash ends the program. Ends: "N passed, N failed". */
#ifndef LITE_CRITERION_H
#define LITE_CRITERION_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lite_test {
    const char *suite, *name;
    void (*run)(void);
    void (*init)(void);
    void (*fini)(void);
    const char *description;
    double timeout; /* accepted, not enforced */
    bool disabled;
    struct lite_test *next; /* a suite's settings have no run function */
};

/* Weak, so that several test files can be linked into one program. */
__attribute__((weak)) struct lite_test *lite_tests, **lite_tests_end;
__attribute__((weak)) jmp_buf lite_exit;
__attribute__((weak)) bool lite_failed;

__attribute__((weak)) void lite_register(struct lite_test *test)
{
    if (lite_tests_end == NULL)
        lite_tests_end = &lite_tests;
    *lite_tests_end = test;
    lite_tests_end = &test->next;
}

__attribute__((weak)) void lite_fail(bool fatal, const char *file, int line, const char *what,
                                     const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: failed: %s ", file, line, what);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    lite_failed = true;
    if (fatal)
        longjmp(lite_exit, 1);
}

__attribute__((weak)) void lite_hook(const char *suite, bool before)
{
    for (const struct lite_test *at = lite_tests; at != NULL; at = at->next) {
        void (*hook)(void) = before ? at->init : at->fini;

        if (at->run == NULL && strcmp(at->suite, suite) == 0 && hook != NULL)
            hook();
    }
}

__attribute__((weak)) void lite_run(const struct lite_test *test)
{
    lite_failed = false;
    if (setjmp(lite_exit) == 0) {
        lite_hook(test->suite, true);
        if (test->init != NULL)
            test->init();
        test->run();
        if (test->fini != NULL)
            test->fini();
        lite_hook(test->suite, false);
    }
    if (lite_failed)
        fprintf(stderr, "FAIL %s::%s\n", test->suite, test->name);
}

__attribute__((weak)) int main(void)
{
    unsigned passed = 0, failed = 0;

    for (const struct lite_test *at = lite_tests; at != NULL; at = at->next) {
        if (at->run == NULL || at->disabled)
            continue;
        lite_run(at);
        failed += lite_failed;
        passed += !lite_failed;
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0 || passed == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The extra comma or text at the end of each list keeps the variable part non-empty. */
#define Test(...) LITE_TEST_(__VA_ARGS__, )
#define LITE_TEST_(s, n, ...)                                                                      \
    static void s##_##n##_run(void);                                                               \
    static struct lite_test s##_##n##_test = {.suite = #s, .name = #n, .run = s##_##n##_run,       \
                                              __VA_ARGS__};                                        \
    LITE_ENTER_(s##_##n)                                                                           \
    static void s##_##n##_run(void)

#define TestSuite(...) LITE_SUITE_(__VA_ARGS__, )
#define LITE_SUITE_(s, ...)                                                                        \
    static struct lite_test s##_suite_test = {.suite = #s, __VA_ARGS__};                           \
    LITE_ENTER_(s##_suite)                                                                         \
    _Static_assert(1, "takes the semicolon")

#define LITE_ENTER_(id)                                                                            \
    __attribute__((constructor)) static void id##_enter(void)                                      \
    {                                                                                              \
        lite_register(&id##_test);                                                                 \
    }

#define LITE_CHECK_(fatal, condition, what, ...)                                                   \
    ((condition) ? (void)0 : lite_fail((fatal), __FILE__, __LINE__, what, __VA_ARGS__))
#define LITE_1_(fatal, not_, text, a, ...) LITE_CHECK_(fatal, not_(a), text, __VA_ARGS__)
#define LITE_2_(fatal, op, text, a, b, ...) LITE_CHECK_(fatal, (a)op(b), text, __VA_ARGS__)
#define LITE_STR_(fatal, op, text, a, b, ...)                                                      \
    LITE_CHECK_(fatal, strcmp((a), (b)) op 0, text, __VA_ARGS__)

#define cr_assert(...) LITE_1_(true, , #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_not(...) LITE_1_(true, !, "not " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_null(...) LITE_1_(true, NULL ==, "null: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_not_null(...) LITE_1_(true, NULL !=, "not null: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_eq(...) LITE_2_(true, ==, "equal: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_neq(...) LITE_2_(true, !=, "not equal: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_lt(...) LITE_2_(true, <, "less: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_leq(...) LITE_2_(true, <=, "at most: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_gt(...) LITE_2_(true, >, "greater: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_geq(...) LITE_2_(true, >=, "at least: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_str_eq(...) LITE_STR_(true, ==, "same text: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_assert_fail(...) LITE_1_(true, , "fail", false, __VA_ARGS__, "")
#define cr_expect(...) LITE_1_(false, , #__VA_ARGS__, __VA_ARGS__, "")
#define cr_expect_not(...) LITE_1_(false, !, "not " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_expect_eq(...) LITE_2_(false, ==, "equal: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_expect_neq(...) LITE_2_(false, !=, "not equal: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_expect_str_eq(...) LITE_STR_(false, ==, "same text: " #__VA_ARGS__, __VA_ARGS__, "")
#define cr_log_info(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

#endif /* LITE_CRITERION_H */
