#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "model/reason.h"

#include <stdio.h>

static char *document;

static int load_document(void **state)
{
    static char text[1u << 17];
    FILE *f = fopen(REASONS_MD, "re");

    (void)state;
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    assert_true(n > 0 && n < sizeof(text) - 1);
    assert_int_equal(fclose(f), 0);
    text[n] = '\0';
    document = text;
    return 0;
}

/* The section of a code, from its heading to the next; the caller frees it. */
static char *section_of(const char *name)
{
    CLEANUP_FREE char *heading = xasprintf("\n## `%s`\n", name);
    const char *start = strstr(document, heading);

    if (!start)
        fail_msg("docs/reasons.md has no section \"## `%s`\"", name);
    start += strlen(heading);
    assert_null(strstr(start, heading)); /* once only */
    const char *end = strstr(start, "\n## ");
    return xstrndup(start, end ? (size_t)(end - start) : strlen(start));
}

static void test_every_code_is_documented(void **state)
{
    static const char *const parts[] = {"**Meaning.** ", "**What one sees.** ", "**To do.** "};

    (void)state;
    for (int c = 0; c < REASON_CODE_MAX; c++) {
        const char *name = reason_code_name((enum reason_code)c);
        CLEANUP_FREE char *section = section_of(name);
        for (size_t i = 0; i < 3; i++) {
            const char *part = strstr(section, parts[i]);
            if (!part || strcspn(part + strlen(parts[i]), "\n") < 5)
                fail_msg("%s: %smissing or empty", name, parts[i]);
        }
    }
}

static void test_every_section_is_a_code(void **state)
{
    unsigned n = 0;

    (void)state;
    for (const char *p = document; (p = strstr(p, "\n## "));) {
        p += strlen("\n## ");
        CLEANUP_FREE char *line = xstrndup(p, strcspn(p, "\n"));
        size_t len = strlen(line);
        assert_true(len > 2 && line[0] == '`' && line[len - 1] == '`');
        line[len - 1] = '\0';
        if (reason_code_parse(line + 1) == REASON_CODE_INVALID)
            fail_msg("docs/reasons.md tells of a code %s, which there is not", line + 1);
        n++;
    }
    assert_int_equal(n, REASON_CODE_MAX);
}

static void test_names_and_advice(void **state)
{
    (void)state;
    for (int c = 0; c < REASON_CODE_MAX; c++) {
        enum reason_code code = (enum reason_code)c;
        assert_true(strlen(reason_code_name(code)) > 0);
        assert_int_equal(reason_code_parse(reason_code_name(code)), code);
        assert_true(strlen(reason_advice(code)) >= 10);
        size_t n = strlen(reason_advice(code));
        assert_int_equal(reason_advice(code)[n - 1], '.');
    }
    assert_int_equal(reason_code_parse("no-such-code"), REASON_CODE_INVALID);
    assert_string_equal(reason_code_name(REASON_CODE_INVALID), "none");
    assert_string_equal(reason_advice(REASON_CODE_MAX), "");
}

static void test_since_stands_while_the_code_does(void **state)
{
    struct reason r = {0}, copy;

    (void)state;
    reason_set(&r, REASON_COPYING, 100, 0, "a");
    reason_set(&r, REASON_COPYING, 200, 300, r.text); /* its own text */
    assert_int_equal(r.since_us, 100);
    assert_int_equal(r.retry_us, 300);
    assert_string_equal(r.text, "a");
    reason_copy(&copy, &r);
    reason_set(&r, REASON_NO_SPACE, 400, 0, NULL);
    assert_int_equal(r.since_us, 400);
    assert_null(r.text);
    assert_string_equal(copy.text, "a");
    reason_done(&r);
    assert_int_equal(r.code, REASON_NONE);
    reason_set(&r, REASON_NO_SPACE, 500, 0, NULL);
    assert_int_equal(r.since_us, 500);
    reason_done(&r);
    reason_done(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_is_documented),
        cmocka_unit_test(test_every_section_is_a_code),
        cmocka_unit_test(test_names_and_advice),
        cmocka_unit_test(test_since_stands_while_the_code_does),
    };

    return cmocka_run_group_tests_name("reason", tests, load_document, NULL);
}
