#include "base/options.h"

#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef HAVE_LIBSYSTEMD
#include <syslog.h>
#include <systemd/sd-journal.h>
#endif

#define MAX_OPTIONS 40
#define LONG_BASE 256 /* above every option letter */

enum { COMMON_VERSION = -100, COMMON_HELP, COMMON_VERBOSE, COMMON_LOGFILE, COMMON_JOURNALD };

static const struct cli_option common[] = {
    {COMMON_VERBOSE, 'v', "verbose", NULL, "Log more"},
    {COMMON_LOGFILE, 0, "logfile", "PATH", "Append log lines to this file"},
    {COMMON_JOURNALD, 0, "journald", NULL, "Send log lines to systemd's journal"},
    {COMMON_VERSION, 0, "version", NULL, "Print the version and exit"},
    {COMMON_HELP, 0, "help", NULL, "Print this text and exit"},
};

static void print_options(const struct cli_option *options, size_t n, FILE *to)
{
    for (size_t i = 0; i < n; i++) {
        const struct cli_option *o = &options[i];
        CLEANUP_STR struct str left = {0};
        if (o->letter)
            str_appendf(&left, "-%c, ", o->letter);
        else
            str_append(&left, "    ");
        str_appendf(&left, "--%s", o->name);
        if (o->arg && o->arg[0] == '[')
            str_appendf(&left, "[=%.*s]", (int)strlen(o->arg) - 2, o->arg + 1);
        else if (o->arg)
            str_appendf(&left, "=%s", o->arg);
        if (left.len > 28)
            fprintf(to, "  %s\n  %-28s  %s\n", left.data, "", o->help);
        else
            fprintf(to, "  %-28s  %s\n", left.data, o->help);
    }
}

void cli_print_help(const struct cli_spec *spec, FILE *to)
{
    fprintf(to, "Usage: %s\nOptions:\n", spec->synopsis);
    print_options(spec->options, spec->n_options, to);
    print_options(common, ARRAY_SIZE(common), to);
    if (spec->text)
        fprintf(to, "\n%s\n", spec->text);
}

int cli_usage_error(const struct cli_spec *spec, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    CLEANUP_FREE char *text = xvasprintf(fmt, ap);
    va_end(ap);
    cli_print_help(spec, stderr);
    fprintf(stderr, "ERROR: %s\n", text);
    return 1;
}

int cli_fail(struct err *e)
{
    fprintf(stderr, "Error: %s\n", e->text);
    err_free(e);
    return 1;
}

struct err *cli_parse_number(const char *what, const char *text, long min, long max,
                             long *ret_number)
{
    char *end;

    errno = 0;
    long v = strtol(text, &end, 10);
    if (end == text || *end || errno || v < min || v > max || !((*text >= '0' && *text <= '9')))
        return err_new(ERR_INVALID, "%s must be a whole number from %ld to %ld, not '%s'", what,
                       min, max, text);
    *ret_number = v;
    return NULL;
}

struct err *cli_parse_duration(const char *what, const char *text, uint64_t *ret_us)
{
    static const char units[] = "smhd";
    static const uint64_t seconds[] = {1, 60, 3600, 86400};
    size_t digits = strspn(text, "0123456789");
    const char *unit = text[digits] && !text[digits + 1] ? strchr(units, text[digits]) : NULL;
    uint64_t n = 0;

    for (size_t i = 0; i < digits && n < 1000000000; i++)
        n = n * 10 + (uint64_t)(text[i] - '0');
    if (!unit || !n || digits > 9)
        return err_new(ERR_INVALID, "%s must be a number with s, m, h or d, such as 30d, not '%s'", what, text);
    *ret_us = n * seconds[unit - units] * 1000000;
    return NULL;
}

/* The tables in getopt's form; `all[val - LONG_BASE]` is the option of a long form. */
struct forms {
    char letters[2 * MAX_OPTIONS + 4];
    struct option longs[MAX_OPTIONS + 1];
    const struct cli_option *all[MAX_OPTIONS];
    size_t n;
};

static void forms_add(struct forms *f, const struct cli_option *options, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct cli_option *o = &options[i];
        if (f->n == MAX_OPTIONS)
            abort(); /* a table in this program is too long */
        int has_arg =
            !o->arg ? no_argument : (o->arg[0] == '[' ? optional_argument : required_argument);
        f->longs[f->n] = (struct option){o->name, has_arg, NULL, LONG_BASE + (int)f->n};
        f->all[f->n++] = o;
        if (o->letter) {
            size_t len = strlen(f->letters);
            f->letters[len] = o->letter;
            if (has_arg == required_argument)
                f->letters[len + 1] = ':';
        }
    }
}

static const struct cli_option *forms_find(const struct forms *f, int value)
{
    if (value >= LONG_BASE && value < LONG_BASE + (int)f->n)
        return f->all[value - LONG_BASE];
    for (size_t i = 0; i < f->n; i++) {
        if (f->all[i]->letter && f->all[i]->letter == value)
            return f->all[i];
    }
    return NULL;
}

static enum cli_next unknown_option(const struct cli_spec *spec, const struct forms *f, int value,
                                    char **argv)
{
    const struct cli_option *o = optopt ? forms_find(f, optopt) : NULL;

    if (value == ':')
        (void)cli_usage_error(spec, "option %s requires argument", argv[optind - 1]);
    else if (o)
        (void)cli_usage_error(spec, "option --%s must not have an argument", o->name);
    else if (optopt)
        (void)cli_usage_error(spec, "option -%c not recognized", optopt);
    else
        (void)cli_usage_error(spec, "option %s not recognized", argv[optind - 1]);
    return CLI_EXIT_ERROR;
}

static struct err *use_journal(const char *program)
{
#ifdef HAVE_LIBSYSTEMD
    int fd = sd_journal_stream_fd(program, LOG_INFO, /* level_prefix= */ 0);
    if (fd < 0)
        return err_new(ERR_UNAVAILABLE, "Journald unavailable on this machine: %s", strerror(-fd));
    log_use_fd(fd);
    return NULL;
#else
    (void)program;
    return err_new(
        ERR_UNAVAILABLE,
        "Journald unavailable on this machine: this program was built without libsystemd");
#endif
}

static struct err *take_common(const struct cli_spec *spec, int id, const char *value)
{
    switch (id) {
    case COMMON_VERBOSE:
        log_setup(spec->program, LOG_LEVEL_DEBUG);
        return NULL;
    case COMMON_LOGFILE: {
        int r = log_open_file(value);
        return r ? err_errno(-r, "cannot open the log file %s", value) : NULL;
    }
    default:
        return use_journal(spec->program);
    }
}

static enum cli_next take_one(const struct cli_spec *spec, void *cookie, const struct cli_option *o)
{
    if (o->id == COMMON_HELP) {
        cli_print_help(spec, stdout);
        return CLI_EXIT_OK;
    }
    if (o->id == COMMON_VERSION) {
        printf("%s\n", FLOCKER_VERSION);
        return CLI_EXIT_OK;
    }
    CLEANUP_ERR struct err *e =
        o->id < 0 ? take_common(spec, o->id, optarg) : spec->take(cookie, o->id, optarg);
    if (!e)
        return CLI_GO_ON;
    (void)cli_usage_error(spec, "%s", e->text);
    return CLI_EXIT_ERROR;
}

enum cli_next cli_parse(const struct cli_spec *spec, void *cookie, int argc, char **argv,
                        int *ret_operand)
{
    struct forms f = {.letters = ":"};
    int value;

    if (spec->stop_at_operand)
        memcpy(f.letters, "+:", 3);
    forms_add(&f, spec->options, spec->n_options);
    forms_add(&f, common, ARRAY_SIZE(common));
    optind = 0; /* GNU: start afresh */
    opterr = 0;
    while ((value = getopt_long(argc, argv, f.letters, f.longs, NULL)) != -1) {
        if (value == '?' || value == ':')
            return unknown_option(spec, &f, value, argv);
        const struct cli_option *o = forms_find(&f, value);
        enum cli_next next = o ? take_one(spec, cookie, o) : CLI_EXIT_ERROR;
        if (next != CLI_GO_ON)
            return next;
    }
    *ret_operand = optind;
    return CLI_GO_ON;
}

bool cli_begin(const struct cli_spec *spec, void *cookie, int argc, char **argv, int *ret_operand,
               int *ret_status)
{
    enum cli_next next = cli_parse(spec, cookie, argc, argv, ret_operand);

    *ret_status = next == CLI_EXIT_ERROR;
    return next == CLI_GO_ON;
}
