#include "store/store.h"

#include "base/str.h"
#include "model/record.h"
#include "store/backend.h"

#include <inttypes.h>

static const char *const kind_names[] = {
    [STORE_DATASET] = "dataset",
    [STORE_CONTAINER] = "container",
    [STORE_LEASE] = "lease",
    [STORE_CORDON] = "cordon",
    [STORE_FENCE] = "fence",
    [STORE_SETTLED] = "restore",
};

const char *store_kind_name(enum store_kind kind)
{
    return kind_names[kind];
}

struct err *store_open(const char *dir, struct store **ret)
{
    return store_sqlite_open(dir, ret);
}

struct store *store_close(struct store *s)
{
    if (s)
        s->ops->close(s);
    return NULL;
}

struct uuid store_id(const struct store *s)
{
    return s->id;
}

uint64_t store_revision(const struct store *s)
{
    return atomic_load(&s->revision);
}

void store_content_done(struct store_content *c)
{
    for (size_t i = 0; i < c->n_datasets; i++)
        dataset_free(c->datasets[i]);
    for (size_t i = 0; i < c->n_containers; i++)
        container_free(c->containers[i]);
    for (size_t i = 0; i < c->n_leases; i++)
        lease_done(&c->leases[i]);
    free(c->datasets);
    free(c->containers);
    free(c->leases);
    free(c->cordons);
    for (size_t i = 0; i < c->n_fences; i++)
        fence_free(c->fences[i]);
    free(c->fences);
    history_done(&c->history);
    *c = (struct store_content){0};
}

struct loading {
    struct store_content content;
    size_t cap[STORE_KIND_MAX];
};

/* The key under which a record lies must be the one it says of itself. */
static struct err *check_key(const char *key, const char *own)
{
    if (streq(key, own))
        return NULL;
    return err_new(ERR_CORRUPT, "the record is that of \"%s\"", own);
}

static struct err *load_dataset(struct loading *l, const char *key, const char *value, size_t n)
{
    struct store_content *c = &l->content;
    struct dataset *d = NULL;

    TRY(record_dataset_decode(value, n, &d));
    c->datasets =
        mem_grow(c->datasets, c->n_datasets, &l->cap[STORE_DATASET], sizeof(struct dataset *));
    c->datasets[c->n_datasets++] = d;
    return check_key(key, UUID_STR(&d->id));
}

static struct err *load_container(struct loading *l, const char *key, const char *value, size_t n)
{
    struct store_content *c = &l->content;
    struct container *k = NULL;

    TRY(record_container_decode(value, n, &k));
    c->containers = mem_grow(c->containers, c->n_containers, &l->cap[STORE_CONTAINER],
                             sizeof(struct container *));
    c->containers[c->n_containers++] = k;
    return check_key(key, k->name);
}

static struct err *load_lease(struct loading *l, const char *key, const char *value, size_t n)
{
    struct store_content *c = &l->content;
    struct lease lease = {0};

    TRY(record_lease_decode(value, n, &lease));
    c->leases = mem_grow(c->leases, c->n_leases, &l->cap[STORE_LEASE], sizeof(struct lease));
    c->leases[c->n_leases++] = lease;
    return check_key(key, UUID_STR(&lease.dataset));
}

static struct err *load_cordon(struct loading *l, const char *key, const char *value, size_t n)
{
    struct store_content *c = &l->content;
    struct cordon cordon = {0};

    TRY(record_cordon_decode(value, n, &cordon));
    c->cordons = mem_grow(c->cordons, c->n_cordons, &l->cap[STORE_CORDON], sizeof(struct cordon));
    c->cordons[c->n_cordons++] = cordon;
    return check_key(key, UUID_STR(&cordon.node));
}

static struct err *load_fence(struct loading *l, const char *key, const char *value, size_t n)
{
    struct store_content *c = &l->content;
    struct fence *fence;

    TRY(record_fence_decode(value, n, &fence));
    c->fences = mem_grow(c->fences, c->n_fences, &l->cap[STORE_FENCE], sizeof(struct fence *));
    c->fences[c->n_fences++] = fence;
    return check_key(key, UUID_STR(&fence->node));
}

static struct err *load_record(void *cookie, enum store_kind kind, const char *key,
                               const char *value, size_t n)
{
    static struct err *(*const loaders[STORE_KIND_MAX])(struct loading * l, const char *key,
                                                        const char *value, size_t n) = {
        [STORE_DATASET] = load_dataset,
        [STORE_CONTAINER] = load_container,
        [STORE_LEASE] = load_lease,
        [STORE_CORDON] = load_cordon,
        [STORE_FENCE] = load_fence,
    };

    return err_wrap(loaders[kind](cookie, key, value, n), "%s \"%s\"", kind_names[kind], key);
}

struct err *store_load_sync(struct store *s, struct store_content *ret)
{
    struct loading l = {.content = {.revision = store_revision(s)}};
    struct err *e = s->ops->read_sync(s, load_record, &l);

    if (!e)
        e = s->ops->read_history_sync(s, &l.content.history);

    if (e) {
        store_content_done(&l.content);
        return err_wrap(e, "load the configuration from the store");
    }
    *ret = l.content;
    return NULL;
}

static struct err *check_change(const struct store_change *c, uint64_t last)
{
    if (c->revision <= last)
        return err_new(ERR_INTERNAL,
                       "commit to the store: revision %" PRIu64
                       " of %s \"%s\" is not above %" PRIu64
                       ": another control service may have changed this store",
                       c->revision, kind_names[c->kind], c->key, last);
    if (c->revision > INT64_MAX)
        return err_new(ERR_INTERNAL, "commit to the store: revision %" PRIu64 " is too high",
                       c->revision);
    if (!*c->key || strlen(c->key) > STORE_MAX_KEY)
        return err_new(ERR_INVALID, "the key of a %s must have 1 to %u bytes", kind_names[c->kind],
                       STORE_MAX_KEY);
    if (c->value && strlen(c->value) > STORE_MAX_VALUE)
        return err_new(ERR_INVALID,
                       "the record of %s \"%s\" has %zu bytes; the store takes up to %u",
                       kind_names[c->kind], c->key, strlen(c->value), STORE_MAX_VALUE);
    return NULL;
}

struct err *store_commit_sync(struct store *s, const struct store_change *changes, size_t n,
                              bool *ret_uncertain)
{
    uint64_t last = store_revision(s);

    *ret_uncertain = s->uncertain;
    if (s->uncertain)
        return err_new(ERR_IO, "the store takes no more changes: the disk failed during an earlier "
                               "commit; restart the control service");
    for (size_t i = 0; i < n; i++) {
        TRY(check_change(&changes[i], last));
        last = changes[i].revision;
    }
    if (n == 0)
        return NULL;
    struct err *e = s->ops->commit_sync(s, changes, n, ret_uncertain);
    if (!e)
        atomic_store(&s->revision, last);
    else
        s->uncertain = *ret_uncertain;
    return e;
}

void store_tidy_sync(struct store *s)
{
    s->ops->tidy_sync(s);
}

struct err *store_backup_begin_sync(struct store *s, const char *path, struct store_backup **ret)
{
    if (s->uncertain)
        return err_new(ERR_IO, "the store cannot be copied: the disk failed during an earlier commit; restart the "
                               "control service");
    return s->ops->backup_begin_sync(s, path, ret);
}

struct err *store_backup_step_sync(struct store_backup *b, bool *ret_done)
{
    return b->step_sync(b, ret_done);
}

struct store_backup *store_backup_end_sync(struct store_backup *b)
{
    if (b)
        b->end_sync(b);
    return NULL;
}
