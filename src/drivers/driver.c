#include "drivers/driver.h"

#include "base/str.h"
#include "drivers/backends.h"

static const struct driver *const backends[] = {
    &driver_aws, &driver_btrfs, &driver_fake, &driver_loopback, &driver_openstack, &driver_powerflex,
    &driver_xtremio, &driver_zfs,
};

/* Other names of them: those of Flocker 1's third parties, and of products that were renamed. */
static const struct {
    const char *name, *backend;
} aliases[] = {
    {"emc_xtremio_flocker_plugin", "xtremio"},
    {"scaleio", "powerflex"},
    {"scaleio_flocker_driver", "powerflex"},
};

struct err *driver_find(const char *backend, const struct driver **ret_driver)
{
    const char *name = backend;

    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
        if (streq(aliases[i].name, backend))
            name = aliases[i].backend;
    }
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        const struct driver *d = backends[i];

        if (!streq(d->name, name))
            continue;
        if (d->abi != DRIVER_ABI || d->size != sizeof(*d))
            return err_new(ERR_INTERNAL, "backend %s was built for another version of driver.h",
                           backend);
        *ret_driver = d;
        return NULL;
    }
    return err_new(ERR_INVALID, "'%s' is neither a built-in backend nor a 3rd party module.",
                   backend);
}

/* Of all attachable backends: storage.c makes the file systems and mounts them. */
static const struct driver_key attachable_keys[] = {
    {"filesystem", DRIVER_KEY_STRING, false},
    {"mount_options", DRIVER_KEY_STRING, false},
    {"discard", DRIVER_KEY_BOOL, false},
    {NULL},
};
static const struct driver_key no_keys[] = {{NULL}};

static const struct driver_key *common_keys(const struct driver *d)
{
    return d->kind == STORAGE_ATTACHABLE ? attachable_keys : no_keys;
}

static const struct driver_key *find_in(const struct driver_key *keys, const char *name)
{
    for (const struct driver_key *k = keys; k->name; k++) {
        if (streq(k->name, name))
            return k;
    }
    return NULL;
}

static const struct driver_key *find_key(const struct driver *d, const char *name)
{
    const struct driver_key *k = find_in(d->keys, name);

    return k ? k : find_in(common_keys(d), name);
}

static struct err *check_value(const struct driver *d, const struct driver_key *k, const json_t *v)
{
    uint64_t size;

    switch (k->type) {
    case DRIVER_KEY_STRING:
        if (json_is_string(v) && *json_string_value(v))
            return NULL;
        return err_new(ERR_INVALID,
                       "Configuration error: key %s of backend %s must be a non-empty string.",
                       k->name, d->name);
    case DRIVER_KEY_SIZE:
        if ((json_is_integer(v) && json_integer_value(v) > 0) ||
            (json_is_string(v) && driver_size_parse(json_string_value(v), &size) && size))
            return NULL;
        return err_new(ERR_INVALID,
                       "Configuration error: key %s of backend %s must be a size: a number of "
                       "bytes, or text like 20GiB.",
                       k->name, d->name);
    case DRIVER_KEY_NUMBER:
        if (json_is_integer(v) && json_integer_value(v) > 0 && json_integer_value(v) <= INT32_MAX)
            return NULL;
        return err_new(ERR_INVALID,
                       "Configuration error: key %s of backend %s must be a whole number above 0.",
                       k->name, d->name);
    case DRIVER_KEY_BOOL:
        if (json_is_boolean(v))
            return NULL;
        return err_new(ERR_INVALID,
                       "Configuration error: key %s of backend %s must be true or false.", k->name,
                       d->name);
    }
    return err_new(ERR_INTERNAL, "key %s has no type", k->name);
}

static char *known_keys(const struct driver *d)
{
    struct str s = {0};

    str_append(&s, "backend");
    for (const struct driver_key *k = d->keys; k->name; k++)
        str_appendf(&s, ", %s", k->name);
    for (const struct driver_key *k = common_keys(d); k->name; k++)
        str_appendf(&s, ", %s", k->name);
    return str_steal(&s);
}

struct err *driver_check_options(const struct driver *d, const json_t *options)
{
    const char *name;
    json_t *value;

    json_object_foreach ((json_t *)options, name, value) {
        const struct driver_key *k = find_key(d, name);

        if (streq(name, "backend"))
            continue;
        if (!k) {
            CLEANUP_FREE char *known = known_keys(d);

            return err_new(ERR_INVALID,
                           "Configuration error: backend %s has no key %s (it knows: %s).", d->name,
                           name, known);
        }
        TRY(check_value(d, k, value));
    }
    for (const struct driver_key *k = d->keys; k->name; k++) {
        if (k->required && !json_object_get(options, k->name))
            return err_new(ERR_INVALID, "Configuration error: Required key %s is missing.",
                           k->name);
    }
    return NULL;
}

const char *driver_option_string(const json_t *options, const char *key, const char *fallback)
{
    const json_t *v = json_object_get(options, key);

    return json_is_string(v) ? json_string_value(v) : fallback;
}

uint64_t driver_option_size(const json_t *options, const char *key, uint64_t fallback)
{
    const json_t *v = json_object_get(options, key);
    uint64_t size;

    if (json_is_integer(v) && json_integer_value(v) > 0)
        return (uint64_t)json_integer_value(v);
    if (json_is_string(v) && driver_size_parse(json_string_value(v), &size))
        return size;
    return fallback;
}

unsigned driver_option_number(const json_t *options, const char *key, unsigned fallback)
{
    const json_t *v = json_object_get(options, key);

    return json_is_integer(v) ? (unsigned)json_integer_value(v) : fallback;
}

bool driver_option_bool(const json_t *options, const char *key, bool fallback)
{
    const json_t *v = json_object_get(options, key);

    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

static bool unit_shift(const char *unit, unsigned *ret_shift)
{
    static const char letters[] = "kmgt";
    const char *at = *unit ? strchr(letters, *unit | 0x20) : NULL;

    *ret_shift = at ? (unsigned)(at - letters + 1) * 10 : 0;
    if (at)
        unit++;
    return streq(unit, "") || !strcasecmp(unit, "b") || (at && !strcasecmp(unit, "ib"));
}

bool driver_size_parse(const char *text, uint64_t *ret_size)
{
    uint64_t n = 0;
    unsigned shift;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(n, 10u, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
            return false;
    }
    if (p == text)
        return false;
    if (*p == ' ')
        p++;
    if (!unit_shift(p, &shift) || n > (uint64_t)INT64_MAX >> shift)
        return false;
    *ret_size = n << shift;
    return true;
}

struct volume_state *volume_list_get(struct volume_list *l, const struct uuid *dataset)
{
    for (size_t i = l->n; i > 0; i--) {
        if (uuid_eq(&l->states[i - 1].dataset, dataset))
            return &l->states[i - 1];
    }
    l->states = mem_grow(l->states, l->n, &l->cap, sizeof(*l->states));
    l->states[l->n] = (struct volume_state){.dataset = *dataset};
    return &l->states[l->n++];
}

void volume_list_done(struct volume_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        volume_state_done(&l->states[i]);
    free(l->states);
    *l = (struct volume_list){0};
}

static int by_order(const void *a, const void *b)
{
    const struct snapshot_found *x = a, *y = b;

    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return strcmp(x->name, y->name);
}

void volume_state_set_snapshots(struct volume_state *v, struct snapshot_found *found, size_t n)
{
    if (!n)
        return;
    qsort(found, n, sizeof(*found), by_order);
    v->snapshots = xcalloc(n, sizeof(*v->snapshots));
    v->n_snapshots = (unsigned)n;
    for (size_t i = 0; i < n; i++)
        memcpy(v->snapshots[i], found[i].name, SNAPSHOT_NAME_SIZE);
}

bool snapshot_name_is_valid(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

    return n > 0 && n < SNAPSHOT_NAME_SIZE && !name[n] && name[0] != '-';
}
