/* Bodies about containers. */
#include "model/validate_private.h"

#include <ctype.h>

#define MEMORY_LIMIT_MIN 1048576
#define CPU_SHARES_MAX 1024
#define PORT_MAX 65535

static void check_container_node(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct container *)to)->node);
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
static bool check_entry(struct check *c, const char *where, const char *key, const json_t *item,
                        size_t max)
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
            complain(c,
                     "\"%s.%.100s\": labels that begin with \"" CONTAINER_LABEL_RESERVED
                     "\" are Flocker's own",
                     where, key);
        else if (check_entry(c, where, key, item, VALIDATE_MAX_LABEL))
            k->labels[k->n_labels++] =
                (struct env_entry){.name = xstrdup(key), .value = xstrdup(json_string_value(item))};
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
        {"depends_on", false, check_depends_on},
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
