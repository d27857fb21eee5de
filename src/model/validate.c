#include "model/validate.h"

#include "base/mem.h"
#include "base/now.h"
#include "base/str.h"
#include "model/compose.h"
#include "model/fence.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

#define MEMORY_LIMIT_MIN 1048576
#define CPU_SHARES_MAX 1024
#define COMMAND_LINE_MAX VALIDATE_MAX_COMMAND_LINE
#define PORT_MAX 65535

/* What the checks of one body share. */
struct check {
    json_t *errors; /* NULL = none yet */
};

static void complain(struct check *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void complain(struct check *c, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    if (!c->errors)
        c->errors = json_array();
    if (json_array_size(c->errors) >= VALIDATE_MAX_ERRORS)
        return;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        mem_exhausted();
    va_end(ap);
    /* A key of the client's may have been cut within a character. */
    if (!str_is_utf8(text, strlen(text))) {
        for (char *p = text; *p; p++)
            *p = (char)(isascii(*p) ? *p : '?');
    }
    (void)json_array_append_new(c->errors, json_string(text));
    free(text);
}

/* One key of an object: `check` looks at the value, complains about it under the name `where`, and
 * puts it into `to`. */
struct field {
    const char *key;
    bool required;
    void (*check)(struct check *c, const char *where, const json_t *v, void *to);
};

static const struct field *find_field(const struct field *fields, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++) {
        if (streq(fields[i].key, key))
            return &fields[i];
    }
    return NULL;
}

/* Keys come from the client: a long one is cut in messages. */
#define KEY_FMT "\"%s%.100s\""

/* `prefix` stands before the keys in messages: "" or "ports[0].". */
static void check_object(struct check *c, const char *prefix, const json_t *v,
                         const struct field *fields, size_t n, void *to)
{
    const char *key;
    json_t *item;

    if (!json_is_object(v)) {
        if (*prefix)
            complain(c, "\"%.*s\" must be an object", (int)strlen(prefix) - 1, prefix);
        else
            complain(c, "the body must be a JSON object");
        return;
    }
    json_object_foreach ((json_t *)v, key, item) {
        if (!find_field(fields, n, key))
            complain(c, KEY_FMT " is not a known key here", prefix, key);
    }
    for (size_t i = 0; i < n; i++) {
        CLEANUP_FREE char *where = xasprintf("%s%s", prefix, fields[i].key);

        item = json_object_get(v, fields[i].key);
        if (item)
            fields[i].check(c, where, item, to);
        else if (fields[i].required)
            complain(c, "\"%s\" is required", where);
    }
}

/* Values */

static size_t characters(const char *s)
{
    size_t n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* Texts that agents take (proto/codec.h) only on one line and no longer than `max` bytes. */
static bool check_line(struct check *c, const char *where, const char *s, size_t max)
{
    for (const char *p = s; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            complain(c, "\"%s\" must not have control characters", where);
            return false;
        }
    }
    if (strlen(s) > max)
        complain(c, "\"%s\" must have at most %zu bytes", where, max);
    return strlen(s) <= max;
}

static bool check_integer(struct check *c, const char *where, const json_t *v, json_int_t min,
                          json_int_t max, json_int_t *ret)
{
    if (!json_is_integer(v)) {
        complain(c, "\"%s\" must be a whole number", where);
        return false;
    }
    *ret = json_integer_value(v);
    if (*ret >= min && *ret <= max)
        return true;
    if (max == INT64_MAX)
        complain(c, "\"%s\" must be at least %lld", where, (long long)min);
    else
        complain(c, "\"%s\" must be from %lld to %lld", where, (long long)min, (long long)max);
    return false;
}

static void check_uuid_v4(struct check *c, const char *where, const json_t *v, struct uuid *ret)
{
    if (!json_is_string(v) || !uuid_parse_v4(json_string_value(v), ret))
        complain(c, "\"%s\" must be a version 4 UUID such as c2b7e0d4-5a61-4f3b-9c88-13579bdf2468",
                 where);
}

/* Datasets */

static void check_dataset_id(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct dataset *)to)->id);
}

static void check_primary(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct dataset *)to)->primary);
}

static void check_deleted(struct check *c, const char *where, const json_t *v, void *to)
{
    complain(c, "\"%s\" cannot be given when a dataset is created; delete it with DELETE", where);
}

static void check_maximum_size(struct check *c, const char *where, const json_t *v, void *to)
{
    struct dataset *d = to;
    json_int_t size;

    if (json_is_null(v) || !check_integer(c, where, v, DATASET_MIN_SIZE, INT64_MAX, &size))
        return;
    if (size % DATASET_SIZE_STEP)
        complain(c, "\"%s\" must be a multiple of %u", where, DATASET_SIZE_STEP);
    d->maximum_size = (uint64_t)size;
}

static bool check_metadata_entry(struct check *c, const char *key, const json_t *v)
{
    size_t n = characters(key);

    if (n < 1 || n > METADATA_MAX_CHARS || strchr(key, '\n')) {
        complain(
            c, "a key of \"metadata\" must have 1 to %d characters on one line; \"%.100s\" has %zu",
            METADATA_MAX_CHARS, key, n);
        return false;
    }
    if (!json_is_string(v) || characters(json_string_value(v)) > METADATA_MAX_CHARS) {
        complain(c, "\"metadata.%.100s\" must be a text of at most %d characters", key,
                 METADATA_MAX_CHARS);
        return false;
    }
    return true;
}

static void check_metadata(struct check *c, const char *where, const json_t *v, void *to)
{
    struct metadata *m = &((struct dataset *)to)->metadata;
    const char *key;
    json_t *item;

    if (!json_is_object(v)) {
        complain(c, "\"%s\" must be an object of texts", where);
        return;
    }
    if (json_object_size(v) > METADATA_MAX_ENTRIES) {
        complain(c, "\"%s\" must have at most %d keys", where, METADATA_MAX_ENTRIES);
        return;
    }
    m->entries = xcalloc(json_object_size(v), sizeof(*m->entries));
    json_object_foreach ((json_t *)v, key, item) {
        if (check_metadata_entry(c, key, item))
            m->entries[m->n++] = (struct metadata_entry){.key = xstrdup(key),
                                                         .value = xstrdup(json_string_value(item))};
    }
}

json_t *validate_dataset_create(const json_t *body, struct dataset **ret)
{
    static const struct field fields[] = {
        {"primary", true, check_primary},
        {"dataset_id", false, check_dataset_id},
        {"deleted", false, check_deleted},
        {"metadata", false, check_metadata},
        {"maximum_size", false, check_maximum_size},
    };
    struct dataset *d = dataset_new(UUID_NIL);
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), d);
    if (c.errors)
        dataset_free(d);
    else
        *ret = d;
    return c.errors;
}

static void check_node(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, to);
}

json_t *validate_dataset_update(const json_t *body, struct dataset **ret, bool *ret_has_metadata)
{
    static const struct field fields[] = {
        {"primary", false, check_primary},
        {"metadata", false, check_metadata},
        {"maximum_size", false, check_maximum_size},
    };
    struct dataset *d = dataset_new(UUID_NIL);
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), d);
    if (c.errors) {
        dataset_free(d);
        return c.errors;
    }
    *ret = d;
    *ret_has_metadata = json_object_get(body, "metadata") != NULL;
    return NULL;
}

/* Containers */

static bool alphanumeric(char ch)
{
    return isascii(ch) && isalnum((unsigned char)ch);
}

static void check_container_node(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct container *)to)->node);
}

static bool good_name(const char *s)
{
    if (!alphanumeric(s[0]) || !s[1] || strlen(s) > VALIDATE_MAX_NAME)
        return false;
    for (; *s; s++) {
        if (!alphanumeric(*s) && !strchr("_.-", *s))
            return false;
    }
    return true;
}

static void check_name(struct check *c, const char *where, const json_t *v, void *to)
{
    struct container *k = to;
    const char *name = json_string_value(v);

    if (name && *name == '/')
        name++;
    if (!name || !good_name(name)) {
        complain(c,
                 "\"%s\" must be 2 to %d letters, digits, \"_\", \".\" or \"-\", "
                 "and begin with a letter or digit",
                 where, VALIDATE_MAX_NAME);
        return;
    }
    free(k->name);
    k->name = xstrdup(name);
}

char *image_canonical(const char *image)
{
    const char *slash = strrchr(image, '/');
    const char *last = slash ? slash + 1 : image;
    const char *at = strchr(last, '@');
    const char *colon = strchr(last, ':');

    if (at)
        return at > last && at[1] ? xstrdup(image) : NULL;
    if (!colon)
        return *last ? xasprintf("%s:latest", image) : NULL;
    return colon > last && colon[1] ? xstrdup(image) : NULL;
}

static void check_image(struct check *c, const char *where, const json_t *v, void *to)
{
    struct container *k = to;

    if (!json_is_string(v)) {
        complain(c, "\"%s\" must be a text", where);
        return;
    }
    if (!check_line(c, where, json_string_value(v), VALIDATE_MAX_IMAGE))
        return;
    k->image = image_canonical(json_string_value(v));
    if (!k->image)
        complain(c, "\"%s\" must be repository, repository:tag or repository@digest", where);
}

/* A list with at least `min` and at most `max` different items. */
static bool check_list(struct check *c, const char *where, const json_t *v, size_t min, size_t max)
{
    size_t n = json_array_size(v);

    if (!json_is_array(v)) {
        complain(c, "\"%s\" must be a list", where);
        return false;
    }
    if (n < min || n > max) {
        if (n < min)
            complain(c, "\"%s\" must have at least %zu item; leave the key out instead", where,
                     min);
        else
            complain(c, "\"%s\" must have at most %zu items", where, max);
        return false;
    }
    return true;
}

static void check_port_number(struct check *c, const char *where, const json_t *v, json_int_t min,
                              uint16_t *ret)
{
    json_int_t n;

    if (check_integer(c, where, v, min, PORT_MAX, &n))
        *ret = (uint16_t)n;
}

static void check_internal(struct check *c, const char *where, const json_t *v, void *to)
{
    check_port_number(c, where, v, 1, &((struct port *)to)->internal);
}

static void check_external(struct check *c, const char *where, const json_t *v, void *to)
{
    check_port_number(c, where, v, 0, &((struct port *)to)->external); /* 0 = any */
}

static int compare_ports(const void *a, const void *b)
{
    const struct port *p = a, *q = b;

    if (p->internal != q->internal)
        return p->internal < q->internal ? -1 : 1;
    return (p->external > q->external) - (p->external < q->external);
}

static void check_ports(struct check *c, const char *where, const json_t *v, void *to)
{
    static const struct field fields[] = {{"internal", true, check_internal},
                                          {"external", true, check_external}};
    struct container *k = to;
    size_t i;
    json_t *item;

    if (!check_list(c, where, v, 1, PORT_MAX))
        return;
    k->ports = xcalloc(json_array_size(v), sizeof(*k->ports));
    json_array_foreach (v, i, item) {
        CLEANUP_FREE char *prefix = xasprintf("%s[%zu].", where, i);

        check_object(c, prefix, item, fields, ARRAY_SIZE(fields), &k->ports[k->n_ports++]);
    }
    qsort(k->ports, k->n_ports, sizeof(*k->ports), compare_ports);
    for (i = 1; i < k->n_ports && !c->errors; i++) {
        if (compare_ports(&k->ports[i - 1], &k->ports[i]) == 0)
            complain(c, "\"%s\" must not have the same item twice", where);
    }
}

static void check_alias(struct check *c, const char *where, const json_t *v, void *to)
{
    struct link *l = to;
    const char *s = json_string_value(v);
    size_t n = s ? strlen(s) : 0;

    for (size_t i = 0; i < n; i++) {
        if (!alphanumeric(s[i]))
            n = 0;
    }
    if (n == 0) {
        complain(c, "\"%s\" must be one or more letters and digits", where);
        return;
    }
    if (!check_line(c, where, s, VALIDATE_MAX_NAME))
        return;
    l->alias = xstrdup(s);
}

static void check_local_port(struct check *c, const char *where, const json_t *v, void *to)
{
    check_port_number(c, where, v, 1, &((struct link *)to)->local_port);
}

static void check_remote_port(struct check *c, const char *where, const json_t *v, void *to)
{
    check_port_number(c, where, v, 1, &((struct link *)to)->remote_port);
}

/* They stay in the order given: that is the one in which they are checked further. */
static void refuse_equal_links(struct check *c, const char *where, const struct container *k)
{
    CLEANUP_FREE struct link *sorted = xmemdup(k->links, k->n_links * sizeof(*sorted));

    qsort(sorted, k->n_links, sizeof(*sorted), link_compare);
    for (size_t i = 1; i < k->n_links; i++) {
        if (link_compare(&sorted[i - 1], &sorted[i]) == 0) {
            complain(c, "\"%s\" must not have the same item twice", where);
            break;
        }
    }
}

static void check_links(struct check *c, const char *where, const json_t *v, void *to)
{
    static const struct field fields[] = {{"alias", true, check_alias},
                                          {"local_port", true, check_local_port},
                                          {"remote_port", true, check_remote_port}};
    struct container *k = to;
    size_t i;
    json_t *item;

    if (!check_list(c, where, v, 1, PORT_MAX))
        return;
    k->links = xcalloc(json_array_size(v), sizeof(*k->links));
    json_array_foreach (v, i, item) {
        CLEANUP_FREE char *prefix = xasprintf("%s[%zu].", where, i);

        check_object(c, prefix, item, fields, ARRAY_SIZE(fields), &k->links[k->n_links++]);
    }
    if (!c->errors)
        refuse_equal_links(c, where, k);
}

/* A name and its value; at most `max` bytes together. */
static bool check_entry(struct check *c, const char *where, const char *key, const json_t *item, size_t max)
{
    if (!*key)
        complain(c, "a key of \"%s\" must not be empty", where);
    else if (!json_is_string(item))
        complain(c, "\"%s.%.100s\" must be a text", where, key);
    else if (strlen(key) + json_string_length(item) > max)
        complain(c, "\"%s.%.100s\" must have at most %zu bytes with its name", where, key, max);
    else
        return true;
    return false;
}

/* An object of texts with at most `most` keys. */
static bool check_texts(struct check *c, const char *where, const json_t *v, size_t most)
{
    if (!json_is_object(v))
        complain(c, "\"%s\" must be an object of texts", where);
    else if (json_object_size(v) > most)
        complain(c, "\"%s\" must have at most %zu keys", where, most);
    else
        return true;
    return false;
}

static void check_environment(struct check *c, const char *where, const json_t *v, void *to)
{
    struct container *k = to;
    const char *key;
    json_t *item;

    if (!check_texts(c, where, v, VALIDATE_MAX_VARIABLES))
        return;
    k->environment = xcalloc(json_object_size(v), sizeof(*k->environment));
    json_object_foreach ((json_t *)v, key, item) {
        if (check_entry(c, where, key, item, VALIDATE_MAX_VARIABLE))
            k->environment[k->n_environment++] =
                (struct env_entry){.name = xstrdup(key), .value = xstrdup(json_string_value(item))};
    }
}

static void check_labels(struct check *c, const char *where, const json_t *v, void *to)
{
    struct container *k = to;
    const char *key;
    json_t *item;

    if (!check_texts(c, where, v, VALIDATE_MAX_LABELS))
        return;
    k->labels = xcalloc(json_object_size(v), sizeof(*k->labels));
    json_object_foreach ((json_t *)v, key, item) {
        if (!strncmp(key, CONTAINER_LABEL_RESERVED, sizeof(CONTAINER_LABEL_RESERVED) - 1))
            complain(c, "\"%s.%.100s\": labels that begin with \"" CONTAINER_LABEL_RESERVED "\" are Flocker's own",
                     where, key);
        else if (check_entry(c, where, key, item, VALIDATE_MAX_LABEL))
            k->labels[k->n_labels++] =
                (struct env_entry){.name = xstrdup(key), .value = xstrdup(json_string_value(item))};
    }
}

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

static void check_command_line(struct check *c, const char *where, const json_t *v, void *to)
{
    struct container *k = to;

    k->command_line = check_strings(c, where, v, &k->n_command_line);
    k->has_command_line = k->command_line != NULL;
}

static void check_entrypoint(struct check *c, const char *where, const json_t *v, void *to)
{
    struct container *k = to;

    k->entrypoint = check_strings(c, where, v, &k->n_entrypoint);
    k->has_entrypoint = k->entrypoint != NULL;
}

static void check_user(struct check *c, const char *where, const json_t *v, void *to)
{
    const char *s = json_string_value(v);

    if (!s || !*s)
        complain(c, "\"%s\" must be a user's name or number, with \":\" and a group's if need be", where);
    else if (check_line(c, where, s, VALIDATE_MAX_USER))
        ((struct container *)to)->user = xstrdup(s);
}

static void check_working_dir(struct check *c, const char *where, const json_t *v, void *to)
{
    const char *s = json_string_value(v);

    if (!s || *s != '/')
        complain(c, "\"%s\" must be an absolute path", where);
    else if (check_line(c, where, s, VALIDATE_MAX_PATH))
        ((struct container *)to)->working_dir = xstrdup(s);
}

#define SIGNAL_MAX 20 /* characters; SIGRTMAX-14 has 11 */

static void check_stop_signal(struct check *c, const char *where, const json_t *v, void *to)
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
static bool check_amount(struct check *c, const char *where, const json_t *v, double min, double max, uint64_t unit,
                         uint64_t *ret)
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

static void check_stop_grace(struct check *c, const char *where, const json_t *v, void *to)
{
    uint64_t ms;

    if (check_amount(c, where, v, MILLISECOND, VALIDATE_MAX_DURATION, MSEC_PER_SEC, &ms))
        ((struct container *)to)->stop_grace_ms = (uint32_t)ms;
}

static void check_cpus(struct check *c, const char *where, const json_t *v, void *to)
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
                 "\"%s\" must be \"CMD\" and a program with its arguments, or \"CMD-SHELL\" and one command; "
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

static void check_health(struct check *c, const char *where, const json_t *v, void *to)
{
    static const struct field fields[] = {
        {"test", false, check_health_test},       {"disable", false, check_health_disable},
        {"interval", false, check_health_interval}, {"timeout", false, check_health_timeout},
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

static void check_dependencies(struct check *c, const char *where, const json_t *v, void *to)
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

static void check_cpu_shares(struct check *c, const char *where, const json_t *v, void *to)
{
    json_int_t n;

    if (check_integer(c, where, v, 1, CPU_SHARES_MAX, &n))
        ((struct container *)to)->cpu_shares = (uint32_t)n;
}

static void check_memory_limit(struct check *c, const char *where, const json_t *v, void *to)
{
    json_int_t n;

    if (check_integer(c, where, v, MEMORY_LIMIT_MIN, INT64_MAX, &n))
        ((struct container *)to)->memory_limit = (uint64_t)n;
}

static void check_swappiness(struct check *c, const char *where, const json_t *v, void *to)
{
    json_int_t n;

    if (check_integer(c, where, v, 0, 100, &n))
        ((struct container *)to)->swappiness = (uint32_t)n;
}

static void check_policy_name(struct check *c, const char *where, const json_t *v, void *to)
{
    enum restart_policy p =
        json_is_string(v) ? restart_policy_parse(json_string_value(v)) : RESTART_POLICY_INVALID;

    if ((int)p == RESTART_POLICY_INVALID)
        complain(c, "\"%s\" must be \"never\", \"always\" or \"on-failure\"", where);
    else
        ((struct container *)to)->restart_policy = p;
}

static void check_retry_count(struct check *c, const char *where, const json_t *v, void *to)
{
    json_int_t n;

    if (check_integer(c, where, v, 1, INT32_MAX, &n))
        ((struct container *)to)->maximum_retry_count = (uint32_t)n;
}

static void check_restart_policy(struct check *c, const char *where, const json_t *v, void *to)
{
    static const struct field fields[] = {{"name", true, check_policy_name},
                                          {"maximum_retry_count", false, check_retry_count}};
    CLEANUP_FREE char *prefix = xasprintf("%s.", where);
    const struct container *k = to;

    check_object(c, prefix, v, fields, ARRAY_SIZE(fields), to);
    if (k->maximum_retry_count && k->restart_policy != RESTART_ON_FAILURE)
        complain(c, "\"%smaximum_retry_count\" goes with the policy \"on-failure\" only", prefix);
}

static void check_volume_dataset(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct container_volume *)to)->dataset);
}

static void check_mountpoint(struct check *c, const char *where, const json_t *v, void *to)
{
    const char *s = json_string_value(v);

    if (!s || *s != '/' || strchr(s, '\n'))
        complain(c, "\"%s\" must be an absolute path", where);
    else if (check_line(c, where, s, VALIDATE_MAX_PATH))
        ((struct container_volume *)to)->mountpoint = xstrdup(s);
}

static void check_read_only(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_boolean(v))
        complain(c, "\"%s\" must be true or false", where);
    ((struct container_volume *)to)->read_only = json_is_true(v);
}

/* "/a/../b" may be inside another volume or not: that depends on what the image and the other volumes have there. */
static bool goes_up(const char *path)
{
    for (const char *p = path; (p = strstr(p, "/..")); p += 3) {
        if (p[3] == '/' || !p[3])
            return true;
    }
    return false;
}

static void check_against_others(struct check *c, const char *where, const struct container *k,
                                 const struct container_volume *v)
{
    for (size_t i = 0; i < k->n_volumes; i++) {
        if (uuid_eq(&k->volumes[i].dataset, &v->dataset))
            complain(c, "\"%s\" must not have the same dataset twice: %s", where,
                     UUID_STR(&v->dataset));
        if (mountpoint_compare(k->volumes[i].mountpoint, v->mountpoint) == 0)
            complain(c, "\"%s\" must not have the same mountpoint twice: %s", where, v->mountpoint);
    }
}

static void check_volumes(struct check *c, const char *where, const json_t *v, void *to)
{
    static const struct field fields[] = {{"dataset_id", true, check_volume_dataset},
                                          {"mountpoint", true, check_mountpoint},
                                          {"read_only", false, check_read_only}};
    struct container *k = to;
    size_t i;
    json_t *item;

    if (!check_list(c, where, v, 0, VALIDATE_MAX_VOLUMES))
        return;
    json_array_foreach (v, i, item) {
        CLEANUP_FREE char *prefix = xasprintf("%s[%zu].", where, i);
        struct container_volume one = {0};

        check_object(c, prefix, item, fields, ARRAY_SIZE(fields), &one);
        CLEANUP_FREE char *mountpoint = one.mountpoint;
        if (!mountpoint)
            continue;
        if (json_array_size(v) > 1 && goes_up(mountpoint))
            complain(c, "\"%smountpoint\" must not have \"..\" beside other volumes", prefix);
        check_against_others(c, where, k, &one);
        container_add_volume(k, &one.dataset, mountpoint, one.read_only);
    }
    container_settle_volumes(k);
}

json_t *validate_container_create(const json_t *body, struct container **ret)
{
    static const struct field fields[] = {
        {"node_uuid", true, check_container_node},
        {"name", true, check_name},
        {"image", true, check_image},
        {"ports", false, check_ports},
        {"environment", false, check_environment},
        {"restart_policy", false, check_restart_policy},
        {"command_line", false, check_command_line},
        {"volumes", false, check_volumes},
        {"cpu_shares", false, check_cpu_shares},
        {"memory_limit", false, check_memory_limit},
        {"swappiness", false, check_swappiness},
        {"links", false, check_links},
        {"entrypoint", false, check_entrypoint},
        {"user", false, check_user},
        {"working_dir", false, check_working_dir},
        {"stop_signal", false, check_stop_signal},
        {"stop_grace_period", false, check_stop_grace},
        {"labels", false, check_labels},
        {"healthcheck", false, check_health},
        {"cpus", false, check_cpus},
        {"depends_on", false, check_dependencies},
    };
    struct container *k = container_new("");
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), k);
    if (c.errors)
        container_free(k);
    else
        *ret = k;
    return c.errors;
}

json_t *validate_container_update(const json_t *body, struct uuid *ret_node)
{
    static const struct field fields[] = {{"node_uuid", true, check_node}};
    struct uuid node = UUID_NIL;
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), &node);
    if (!c.errors)
        *ret_node = node;
    return c.errors;
}

/* Compositions */

static void check_part(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_object(v))
        complain(c, "\"%s\" must be an object", where);
}

static void check_spread(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_boolean(v))
        complain(c, "\"%s\" must be true or false", where);
}

json_t *validate_compose(const json_t *body)
{
    /* A Compose file says itself where its services are, or they are spread. */
    bool alone = compose_is_services(json_object_get(body, "applications")) || json_is_true(json_object_get(body, "spread"));
    const struct field fields[] = {{"applications", true, check_part},
                                   {"deployment", !alone, check_part},
                                   {"spread", false, check_spread}};
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), NULL);
    return c.errors;
}

/* Leases */

static void check_lease_dataset(struct check *c, const char *where, const json_t *v, void *to)
{
    struct uuid *dataset = &((struct lease_request *)to)->dataset;

    if (!json_is_string(v) || !uuid_parse(json_string_value(v), dataset) || uuid_is_nil(dataset))
        complain(c, "\"%s\" must be a UUID, and not the nil one", where);
}

static void check_lease_node(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct lease_request *)to)->node);
}

static void check_expires(struct check *c, const char *where, const json_t *v, void *to)
{
    struct lease_request *l = to;
    double us = json_number_value(v) * USEC_PER_SEC;

    if (!json_is_number(v) && !json_is_null(v)) {
        complain(c, "\"%s\" must be a number of seconds or null", where);
        return;
    }
    l->expires = !json_is_null(v);
    if (us >= (double)VALIDATE_MAX_LEASE_US)
        l->expires_in_us = VALIDATE_MAX_LEASE_US;
    else if (us <= -(double)VALIDATE_MAX_LEASE_US)
        l->expires_in_us = -VALIDATE_MAX_LEASE_US;
    else
        l->expires_in_us = (int64_t)us;
}

json_t *validate_lease(const json_t *body, struct lease_request *ret)
{
    static const struct field fields[] = {
        {"dataset_id", true, check_lease_dataset},
        {"node_uuid", true, check_lease_node},
        {"expires", true, check_expires},
    };
    struct lease_request l = {0};
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), &l);
    if (!c.errors)
        *ret = l;
    return c.errors;
}

/* Adoptions */

struct adoption {
    struct uuid node;
    bool anyway;
};

static void check_anyway(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_boolean(v))
        complain(c, "\"%s\" must be true or false", where);
    ((struct adoption *)to)->anyway = json_is_true(v);
}

static void check_adopted_node(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct adoption *)to)->node);
}

json_t *validate_adoption(const json_t *body, bool *ret_anyway)
{
    static const struct field fields[] = {{"anyway", false, check_anyway}};
    struct adoption a = {0};
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), &a);
    if (!c.errors)
        *ret_anyway = a.anyway;
    return c.errors;
}

json_t *validate_dataset_adoption(const json_t *body, struct uuid *ret_node, bool *ret_anyway)
{
    static const struct field fields[] = {{"node_uuid", true, check_adopted_node}, {"anyway", false, check_anyway}};
    struct adoption a = {0};
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), &a);
    if (!c.errors) {
        *ret_node = a.node;
        *ret_anyway = a.anyway;
    }
    return c.errors;
}

/* Fences */

static void check_confirmed(struct check *c, const char *where, const json_t *v, void *to)
{
    (void)to;
    if (!json_is_true(v))
        complain(c, "\"%s\" must be true: whoever asks for a fence signs that the node is off", where);
}

static void check_why(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_string(v) || characters(json_string_value(v)) > FENCE_MAX_TEXT)
        complain(c, "\"%s\" must be a text of at most %d characters", where, FENCE_MAX_TEXT);
    else
        *(const char **)to = json_string_value(v);
}

json_t *validate_fence(const json_t *body, const char **ret_why)
{
    static const struct field fields[] = {{"confirm_off", true, check_confirmed}, {"reason", false, check_why}};
    const char *why = "";
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), &why);
    if (!c.errors)
        *ret_why = why;
    return c.errors;
}
