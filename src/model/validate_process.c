/* How a container's process is started, watched and ended, and after which others. */
#include "base/now.h"
#include "model/validate_private.h"

#define COMMAND_LINE_MAX VALIDATE_MAX_COMMAND_LINE

/* NULL when it is no list; the caller frees it, and *ret_n texts in it, in any case. */
static char **check_strings(struct check *c, const char *where, const json_t *v, size_t *ret_n)
{
    size_t i;
    json_t *item;

    if (!check_list(c, where, v, 0, COMMAND_LINE_MAX))
        return NULL;
    char **strings = xcalloc(json_array_size(v), sizeof(*strings));
    json_array_foreach (v, i, item) {
        const char *s = json_string_value(item);

        if (!s || characters(s) > COMMAND_LINE_MAX)
            complain(c, "\"%s[%zu]\" must be a text of at most %d characters", where, i,
                     COMMAND_LINE_MAX);
        else
            strings[(*ret_n)++] = xstrdup(s);
    }
    return strings;
}

void check_command_line(struct check *c, const char *where, const json_t *v, void *to)
{
    struct container *k = to;

    k->command_line = check_strings(c, where, v, &k->n_command_line);
    k->has_command_line = k->command_line != NULL;
}

void check_entrypoint(struct check *c, const char *where, const json_t *v, void *to)
{
    struct container *k = to;

    k->entrypoint = check_strings(c, where, v, &k->n_entrypoint);
    k->has_entrypoint = k->entrypoint != NULL;
}

void check_user(struct check *c, const char *where, const json_t *v, void *to)
{
    const char *s = json_string_value(v);

    if (!s || !*s)
        complain(c, "\"%s\" must be a user's name or number, with \":\" and a group's if need be",
                 where);
    else if (check_line(c, where, s, VALIDATE_MAX_USER))
        ((struct container *)to)->user = xstrdup(s);
}

void check_working_dir(struct check *c, const char *where, const json_t *v, void *to)
{
    const char *s = json_string_value(v);

    if (!s || *s != '/')
        complain(c, "\"%s\" must be an absolute path", where);
    else if (check_line(c, where, s, VALIDATE_MAX_PATH))
        ((struct container *)to)->working_dir = xstrdup(s);
}

#define SIGNAL_MAX 20 /* characters; SIGRTMAX-14 has 11 */

void check_stop_signal(struct check *c, const char *where, const json_t *v, void *to)
{
    const char *s = json_string_value(v);
    size_t n = s ? strlen(s) : 0;

    for (size_t i = 0; i < n; i++) {
        if (!alphanumeric(s[i]) && !(i && strchr("+-", s[i])))
            n = 0;
    }
    if (n < 1 || n > SIGNAL_MAX)
        complain(c, "\"%s\" must be a signal's name or number, such as SIGQUIT", where);
    else
        ((struct container *)to)->stop_signal = xstrdup(s);
}

/* Seconds, made into `unit` parts of one, rounded. */
static bool check_amount(struct check *c, const char *where, const json_t *v, double min,
                         double max, uint64_t unit, uint64_t *ret)
{
    double n = json_number_value(v);

    if (!json_is_number(v)) {
        complain(c, "\"%s\" must be a number", where);
        return false;
    }
    if (!(n >= min && n <= max)) {
        complain(c, "\"%s\" must be from %g to %g", where, min, max);
        return false;
    }
    *ret = (uint64_t)(n * (double)unit + 0.5);
    return true;
}

#define MILLISECOND 0.001

void check_stop_grace(struct check *c, const char *where, const json_t *v, void *to)
{
    uint64_t ms;

    if (check_amount(c, where, v, MILLISECOND, VALIDATE_MAX_DURATION, MSEC_PER_SEC, &ms))
        ((struct container *)to)->stop_grace_ms = (uint32_t)ms;
}

void check_cpus(struct check *c, const char *where, const json_t *v, void *to)
{
    uint64_t nano;

    if (check_amount(c, where, v, 0.01, VALIDATE_MAX_CPUS, NANO_CPUS, &nano))
        ((struct container *)to)->nano_cpus = nano;
}

static void check_health_test(struct check *c, const char *where, const json_t *v, void *to)
{
    struct health_check *h = to;

    h->test = check_strings(c, where, v, &h->n_test);
    bool command = h->n_test >= 2 && streq(h->test[0], "CMD");
    bool shell = h->n_test == 2 && streq(h->test[0], "CMD-SHELL");
    if (h->test && !command && !shell)
        complain(c,
                 "\"%s\" must be \"CMD\" and a program with its arguments, or \"CMD-SHELL\" and "
                 "one command; "
                 "to have no check, give \"disable\": true",
                 where);
}

static void check_health_disable(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_true(v))
        complain(c, "\"%s\" must be true, or left out", where);
    ((struct health_check *)to)->disabled = json_is_true(v);
}

static void check_health_interval(struct check *c, const char *where, const json_t *v, void *to)
{
    (void)check_amount(c, where, v, MILLISECOND, VALIDATE_MAX_DURATION, MSEC_PER_SEC,
                       &((struct health_check *)to)->interval_ms);
}

static void check_health_timeout(struct check *c, const char *where, const json_t *v, void *to)
{
    (void)check_amount(c, where, v, MILLISECOND, VALIDATE_MAX_DURATION, MSEC_PER_SEC,
                       &((struct health_check *)to)->timeout_ms);
}

static void check_health_start(struct check *c, const char *where, const json_t *v, void *to)
{
    (void)check_amount(c, where, v, MILLISECOND, VALIDATE_MAX_DURATION, MSEC_PER_SEC,
                       &((struct health_check *)to)->start_period_ms);
}

static void check_health_retries(struct check *c, const char *where, const json_t *v, void *to)
{
    json_int_t n;

    if (check_integer(c, where, v, 1, INT32_MAX, &n))
        ((struct health_check *)to)->retries = (uint32_t)n;
}

void check_health(struct check *c, const char *where, const json_t *v, void *to)
{
    static const struct field fields[] = {
        {"test", false, check_health_test},          {"disable", false, check_health_disable},
        {"interval", false, check_health_interval},  {"timeout", false, check_health_timeout},
        {"start_period", false, check_health_start}, {"retries", false, check_health_retries},
    };
    CLEANUP_FREE char *prefix = xasprintf("%s.", where);
    struct health_check *h = xcalloc(1, sizeof(*h));

    ((struct container *)to)->health = h;
    check_object(c, prefix, v, fields, ARRAY_SIZE(fields), h);
    bool more = h->n_test || h->interval_ms || h->timeout_ms || h->start_period_ms || h->retries;
    if (h->disabled && more)
        complain(c, "\"%sdisable\" goes with no other key of \"%s\"", prefix, where);
    else if (!h->disabled && !more && json_is_object(v) && !c->errors)
        complain(c, "\"%s\" says nothing; leave the key out for the image's own check", where);
}

static void check_dependency_name(struct check *c, const char *where, const json_t *v, void *to)
{
    const char *name = json_string_value(v);

    if (name && *name == '/')
        name++;
    if (!name || !good_name(name))
        complain(c, "\"%s\" must be the name of a container", where);
    else
        ((struct dependency *)to)->name = xstrdup(name);
}

static void check_condition(struct check *c, const char *where, const json_t *v, void *to)
{
    enum dependency_condition d =
        json_is_string(v) ? dependency_condition_parse(json_string_value(v)) : DEPENDENCY_INVALID;

    if ((int)d == DEPENDENCY_INVALID)
        complain(c, "\"%s\" must be \"started\", \"healthy\" or \"completed\"", where);
    else
        ((struct dependency *)to)->condition = d;
}

void check_depends_on(struct check *c, const char *where, const json_t *v, void *to)
{
    static const struct field fields[] = {{"name", true, check_dependency_name},
                                          {"condition", false, check_condition}};
    struct container *k = to;
    size_t i;
    json_t *item;

    if (!check_list(c, where, v, 1, VALIDATE_MAX_DEPENDENCIES))
        return;
    k->depends_on = xcalloc(json_array_size(v), sizeof(*k->depends_on));
    json_array_foreach (v, i, item) {
        CLEANUP_FREE char *prefix = xasprintf("%s[%zu].", where, i);
        struct dependency d = {0};

        check_object(c, prefix, item, fields, ARRAY_SIZE(fields), &d);
        if (!d.name)
            continue;
        if (container_dependency(k, d.name))
            complain(c, "\"%s\" must not have the same name twice: \"%s\"", where, d.name);
        k->depends_on[k->n_depends_on++] = d;
    }
}
