/* Options of the programs, and the pair of files that flocker-ca writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "cli/ca_x509.h"
#include "base/options.h"
#include "cli/pair_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct taken {
    struct str list; /* "id=value;" */
};

static struct err *take(void *cookie, int id, const char *value)
{
    struct taken *t = cookie;

    if (value && streq(value, "bad"))
        return err_new(ERR_INVALID, "bad is bad");
    str_appendf(&t->list, "%d=%s;", id, value ? value : "-");
    return NULL;
}

static const struct cli_option options[] = {
    {1, 'f', "flag", NULL, "A flag"},
    {2, 'n', "number", "N", "A number"},
    {3, 0, "wait", "[SECONDS]", "May take a value"},
    {4, 'q', "a-rather-long-option-name", "VALUE", "Help stands on its own line"},
};

static struct cli_spec spec = {
    .program = "test",
    .synopsis = "test [options]",
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .take = take,
};

/* Runs cli_parse over the words; standard output and error go to *ret_text. */
static enum cli_next parse(const char *const *words, struct taken *t, int *ret_operand, char **argv,
                           char **ret_text)
{
    char path[] = "/tmp/flocker-test-options-XXXXXX";
    int argc = 0, fd = mkostemp(path, O_CLOEXEC);
    int out = dup(1), err = dup(2);

    assert_true(fd >= 0 && out >= 0 && err >= 0);
    for (argv[argc++] = (char *)"test"; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    argv[argc] = NULL;
    (void)fflush(NULL);
    assert_true(dup2(fd, 1) >= 0 && dup2(fd, 2) >= 0);
    enum cli_next next = cli_parse(&spec, t, argc, argv, ret_operand);
    (void)fflush(NULL);
    assert_true(dup2(out, 1) >= 0 && dup2(err, 2) >= 0);
    (void)close(out);
    (void)close(err);
    (void)close(fd);
    assert_null(text_file_read("Cannot read.", path, ret_text));
    (void)unlink(path);
    return next;
}

static void assert_parsed(const char *const *words, const char *expected, const char *operands)
{
    struct taken t = {0};
    CLEANUP_FREE char *text = NULL;
    CLEANUP_STR struct str rest = {0};
    char *argv[32];
    int first = -1;

    assert_int_equal(parse(words, &t, &first, argv, &text), CLI_GO_ON);
    assert_string_equal(text, "");
    for (char **p = argv + first; *p; p++)
        str_appendf(&rest, "%s;", *p);
    assert_string_equal(t.list.data ? t.list.data : "", expected);
    assert_string_equal(rest.data ? rest.data : "", operands);
    str_done(&t.list);
}

static void assert_stops(const char *const *words, enum cli_next expected, const char *part)
{
    struct taken t = {0};
    CLEANUP_FREE char *text = NULL;
    char *argv[32];
    int first = -1;

    assert_int_equal(parse(words, &t, &first, argv, &text), expected);
    if (!strstr(text, part))
        fail_msg("'%s' is not in: %s", part, text);
    assert_int_equal(first, -1);
    str_done(&t.list);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void test_accepted(void **state)
{
    assert_parsed(WORDS(), "", "");
    assert_parsed(WORDS("-f", "-n", "3", "--number=4", "--number", "5"), "1=-;2=3;2=4;2=5;", "");
    assert_parsed(WORDS("-fn7", "x"), "1=-;2=7;", "x;");
    assert_parsed(WORDS("x", "-f", "y"), "1=-;", "x;y;");
    assert_parsed(WORDS("--wait", "9"), "3=-;", "9;");
    assert_parsed(WORDS("--wait=9"), "3=9;", "");
    assert_parsed(WORDS("--", "-f"), "", "-f;");
    assert_parsed(WORDS("-f", "x"), "1=-;", "x;"); /* a second parse starts afresh */
    spec.stop_at_operand = true;
    assert_parsed(WORDS("-f", "x", "-n", "3"), "1=-;", "x;-n;3;");
    spec.stop_at_operand = false;
}

static void test_refused(void **state)
{
    assert_stops(WORDS("--bogus"), CLI_EXIT_ERROR, "\nERROR: option --bogus not recognized\n");
    assert_stops(WORDS("--bogus=1"), CLI_EXIT_ERROR, "\nERROR: option --bogus=1 not recognized\n");
    assert_stops(WORDS("-x"), CLI_EXIT_ERROR, "\nERROR: option -x not recognized\n");
    assert_stops(WORDS("-fx"), CLI_EXIT_ERROR, "\nERROR: option -x not recognized\n");
    assert_stops(WORDS("-n"), CLI_EXIT_ERROR, "\nERROR: option -n requires argument\n");
    assert_stops(WORDS("--number"), CLI_EXIT_ERROR, "\nERROR: option --number requires argument\n");
    assert_stops(WORDS("--flag=1"), CLI_EXIT_ERROR,
                 "\nERROR: option --flag must not have an argument\n");
    assert_stops(WORDS("-n", "bad"), CLI_EXIT_ERROR, "\nERROR: bad is bad\n");
    assert_stops(WORDS("--logfile=/nonexistent/x/y"), CLI_EXIT_ERROR,
                 "cannot open the log file /nonexistent/x/y: ");
    assert_stops(WORDS("-x"), CLI_EXIT_ERROR, "Usage: test [options]\nOptions:\n  -f, --flag ");
}

static void test_help_and_version(void **state)
{
    assert_stops(WORDS("--version"), CLI_EXIT_OK, FLOCKER_VERSION "\n");
    assert_stops(WORDS("--help"), CLI_EXIT_OK, "Usage: test [options]\nOptions:\n");
    assert_stops(WORDS("--help"), CLI_EXIT_OK,
                 "\n      --wait[=SECONDS]          May take a value\n");
    assert_stops(WORDS("--help"), CLI_EXIT_OK, "\n      --logfile=PATH ");
    assert_stops(WORDS("--help", "--bogus"), CLI_EXIT_OK, "Usage"); /* the first decides */
}

static void test_numbers(void **state)
{
    static const char *const bad[] = {
        "", "x", "1x", "-1", "+1", " 1", "101", "99999999999999999999", "0x1", "1.0"};
    long v = 7;

    assert_null(cli_parse_number("n", "100", 0, 100, &v));
    assert_int_equal(v, 100);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err *e = cli_parse_number("n", bad[i], 0, 100, &v);
        if (!e)
            fail_msg("'%s' was accepted", bad[i]);
        err_free(e);
        assert_int_equal(v, 100);
    }
}

static void test_pair_of_files(void **state)
{
    char directory[] = "/tmp/flocker-test-pair-XXXXXX";
    struct pair_files f;
    struct stat st;
    char *text = NULL;

    assert_non_null(mkdtemp(directory));
    pair_files_name(&f, directory, "x");
    assert_null(pair_files_check(&f));
    assert_null(pair_files_write(&f, "the key", "the certificate"));
    assert_null(text_file_read("Cannot read.", f.key, &text));
    assert_string_equal(text, "the key");
    free(text);
    assert_int_equal(stat(f.certificate, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    struct err *e = pair_files_check(&f);
    assert_true(err_is(e, ERR_EXISTS));
    err_free(e);

    /* The certificate's name is taken: the new key does not stay. */
    assert_int_equal(unlink(f.key), 0);
    e = pair_files_write(&f, "another key", "another certificate");
    assert_true(err_is(e, ERR_EXISTS));
    assert_true(str_has_prefix(e->text, "Unable to write certificate file. File exists: "));
    err_free(e);
    assert_int_equal(lstat(f.key, &st), -1);
    assert_null(text_file_read("Cannot read.", f.certificate, &text));
    assert_string_equal(text, "the certificate");
    free(text);
    assert_int_equal(unlink(f.certificate), 0);
    assert_int_equal(rmdir(directory), 0); /* nothing else was left there */
    pair_files_done(&f);
}

static void test_reading_is_limited(void **state)
{
    char *text = NULL;
    struct err *e = text_file_read("Sentence.", "/dev/zero", &text);

    assert_true(err_is(e, ERR_INVALID));
    err_free(e);
    e = text_file_read("Sentence.", "/nonexistent", &text);
    assert_string_equal(e->text, "Sentence. No such file or directory: /nonexistent");
    err_free(e);
    e = text_file_read("Sentence.", "/", &text);
    assert_non_null(e);
    err_free(e);
}

static void test_hosts(void **state)
{
    static const struct {
        const char *host;
        bool good, address;
    } cases[] = {
        {"localhost", true, false},
        {"a.b-c.example", true, false},
        {"a_b", true, false},
        {"10.0.0.1", true, true},
        {"::1", true, true},
        {"", false, false},
        {".", false, false},
        {"a.", false, false},
        {"-a", false, false},
        {"a-", false, false},
        {"a-.b", false, false},
        {"a b", false, false},
        {"a,b", false, false},
        {"*.a", false, false},
        {"fe80::1%eth0", false, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        bool address = !cases[i].address;
        struct err *e = ca_check_host(cases[i].host, &address);
        if (!e != cases[i].good)
            fail_msg("'%s'", cases[i].host);
        if (!e)
            assert_int_equal(address, cases[i].address);
        err_free(e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_pair_of_files),
        cmocka_unit_test(test_reading_is_limited),
        cmocka_unit_test(test_hosts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
