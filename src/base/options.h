/* Command-line options, the same way in every program (contract section 7): --version and --help
 * end with exit 0; an unknown option or a bad argument prints the usage text and `ERROR: <message>`
 * on standard error and ends with exit 1. Built on getopt_long; single-threaded. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct cli_option {
    int id;           /* > 0; handed to `take` */
    char letter;      /* 0 = long form only */
    const char *name; /* long form, without the dashes */
    const char *arg;  /* NULL = takes no argument; "[X]" = may take one (--name=X) */
    const char *help;
};

/* One program, or one command of a program. Static data. */
struct cli_spec {
    const char *program;  /* name for log lines */
    const char *synopsis; /* "flocker-ca [options] COMMAND" */
    const struct cli_option *options;
    size_t n_options;
    const char *text;     /* what it does; printed below the options, line breaks kept; or NULL */
    bool stop_at_operand; /* what follows the first operand belongs to a command */
    /* Takes one option; an error is a usage error. `value` is NULL for an option without argument.
     */
    struct err *(*take)(void *cookie, int id, const char *value);
};

enum cli_next {
    CLI_GO_ON,
    CLI_EXIT_OK,    /* --help or --version was printed */
    CLI_EXIT_ERROR, /* a usage error was printed */
};

/* Parses argv[1..]; also takes the options common to all programs (--version, --help, -v,
 * --logfile,
 * --journald) and sets up the log as they say. Operands are moved behind the options (unless
 * `stop_at_operand`); `*ret_operand` is the index of the first. May be called again for a command.
 */
enum cli_next cli_parse(const struct cli_spec *spec, void *cookie, int argc, char **argv,
                        int *ret_operand);
/* The same for a main function. False: that was all, and *ret_status is the exit status. */
bool cli_begin(const struct cli_spec *spec, void *cookie, int argc, char **argv, int *ret_operand,
               int *ret_status) MUST_USE;
void cli_print_help(const struct cli_spec *spec, FILE *to);
/* Prints the usage text and "ERROR: <message>" on standard error; returns 1, the exit status. */
int cli_usage_error(const struct cli_spec *spec, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Prints "Error: <text>" on standard error, frees `e`, returns 1. */
int cli_fail(struct err *e);

/* "45s", "90m", "12h" or "30d", more than nothing; in microseconds. */
struct err *cli_parse_duration(const char *what, const char *text, uint64_t *ret_us) MUST_USE;

/* A whole decimal number from `min` to `max`; `what` names it in the error. */
struct err *cli_parse_number(const char *what, const char *text, long min, long max,
                             long *ret_number) MUST_USE;
