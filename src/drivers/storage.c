#include "drivers/storage_priv.h"

#include "base/log.h"
#include "base/str.h"
#include "drivers/digest.h"
#include "drivers/durable.h"
#include "drivers/growth.h"
#include "drivers/mark.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>


/* ---- opening ---- */

static struct err *make_mount_root(const char *wanted, char **ret_path)
{
    char path[PATH_MAX];

    if (*wanted != '/')
        return err_new(ERR_INVALID, "mount_root must be an absolute path, not %s", wanted);
    TRY(dir_make_path(wanted, 0700));
    if (chmod(wanted, 0700) < 0 || !realpath(wanted, path))
        return err_errno(errno, "cannot use %s for mounts", wanted);
    *ret_path = xstrdup(path);
    return NULL;
}

/* How file systems of attachable volumes are made and mounted. */
static struct err *take_mounting(struct storage *s, const json_t *o)
{
    static const char *const known[] = {"ext4", "xfs"};
    const char *wanted = driver_option_string(o, "filesystem", known[0]);
    const char *options = driver_option_string(o, "mount_options", NULL);
    bool discard = driver_option_bool(o, "discard", false);

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (streq(wanted, known[i]))
            s->filesystem = known[i];
    }
    if (!s->filesystem)
        return err_new(ERR_INVALID, "Configuration error: filesystem must be ext4 or xfs, not %.40s.",
                       wanted);
    if (options)
        TRY(err_wrap(mount_options_check(options), "Configuration error: mount_options"));
    if (options || discard)
        s->mount_options = xasprintf("%s%s%s", options ? options : "", options && discard ? "," : "",
                                     discard ? "discard" : "");
    return NULL;
}

struct err *storage_open(const struct storage_config *config, struct storage **ret_storage)
{
    const char *backend = json_string_value(json_object_get(config->dataset, "backend"));
    const struct driver *d;

    if (!json_is_object(config->dataset))
        return err_new(ERR_INVALID, "Configuration error: dataset must be an object.");
    if (!backend)
        return err_new(ERR_INVALID, "Configuration error: Required key backend is missing.");
    TRY(driver_find(backend, &d));
    TRY(driver_check_options(d, config->dataset));
    struct driver_config dc = {.options = config->dataset,
                               .state_dir = config->state_dir,
                               .node = config->node,
                               .cluster = config->cluster,
                               .budget = config->budget};
    struct storage *s = xcalloc(1, sizeof(*s));
    struct err *e = make_mount_root(config->mount_root, &s->mount_root);

    s->driver = d;
    s->no_space = config->no_space;
    s->no_space_cookie = config->cookie;
    if (!e && d->kind == STORAGE_ATTACHABLE)
        e = take_mounting(s, config->dataset);
    if (!e)
        e = err_wrap(d->open(&dc, &s->cookie), "backend %s", backend);
    if (!e)
        e = place_clean(s);
    if (e) {
        storage_close(s);
        return e;
    }
    *ret_storage = s;
    return NULL;
}

struct storage *storage_close(struct storage *s)
{
    if (!s)
        return NULL;
    if (s->cookie)
        s->driver->close(s->cookie);
    free(s->mount_root);
    free(s->mount_options);
    free(s);
    return NULL;
}

enum storage_kind storage_kind(const struct storage *s)
{
    return s->driver->kind;
}

const char *storage_backend(const struct storage *s)
{
    return s->driver->name;
}

struct uuid storage_shared_id(const struct storage *s)
{
    return s->driver->shared_id ? s->driver->shared_id(s->cookie) : UUID_NIL;
}

/* ---- looking ---- */

static bool is_local(const struct storage *s)
{
    return s->driver->kind == STORAGE_LOCAL;
}

bool storage_has_limits(const struct storage *s)
{
    const struct driver *d = s->driver;

    return !is_local(s) || (d->limit && (!d->has_limits || d->has_limits(s->cookie)));
}

static struct err *read_mark(struct storage *s, const struct uuid *dataset,
                             struct volume_mark *ret_mark)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(s->driver->mark_dir(s->cookie, dataset, /* create= */ false, &dir));
    return mark_read(dir, ret_mark);
}

static struct err *write_mark(struct storage *s, const struct uuid *dataset,
                              const struct volume_mark *m)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(s->driver->mark_dir(s->cookie, dataset, /* create= */ true, &dir));
    return mark_write(dir, m);
}

static struct err *write_owned(struct storage *s, const struct uuid *dataset, uint64_t epoch)
{
    return write_mark(s, dataset, &(struct volume_mark){.state = MARK_OWNED, .epoch = epoch});
}

/* A volume whose file system has not grown yet is as large as it was. */
static struct err *take_growth(int dir, struct volume_state *v)
{
    uint64_t until_then;

    TRY(growth_read(dir, &until_then));
    if (until_then && until_then < v->size)
        v->size = until_then;
    return NULL;
}

static struct err *complete_mark(struct storage *s, struct volume_state *v)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(s->driver->mark_dir(s->cookie, &v->dataset, /* create= */ false, &dir));
    TRY(mark_read(dir, &v->mark));
    /* Or an empty folder: something was killed before the first mark or after the last. It goes with the next drop, so it
     * must be seen, or nobody would order that. */
    if (v->mark.state == MARK_PROMOTING ||
        (dir >= 0 && v->mark.state == MARK_NONE && !v->attached && !v->n_snapshots))
        v->partial = true;
    return dir >= 0 && !is_local(s) ? take_growth(dir, v) : NULL;
}

/* Adds to the driver's answer what it does not know. */
static struct err *complete_state(struct storage *s, struct volume_state *v,
                                  const struct mount_table *t)
{
    v->mounted = place_is_mounted(s, v, t, &v->device);
    return complete_mark(s, v);
}

struct err *storage_list(struct storage *s, struct volume_state **ret_states, size_t *ret_n)
{
    CLEANUP_MOUNTS struct mount_table t = {0};
    size_t n = 0;
    struct volume_state *states = NULL;

    TRY(mount_table_read(&t));
    TRY(s->driver->list(s->cookie, &states, &n));
    for (size_t i = 0; i < n; i++) {
        struct err *e = complete_state(s, &states[i], &t);

        /* It must not hide the others. Without a mark nothing is done with it, and each verb says
         * why. */
        if (e)
            log_error("dataset %s: %s", UUID_STR(&states[i].dataset), e->text);
        err_free(e);
    }
    *ret_states = states;
    *ret_n = n;
    return NULL;
}

static int by_dataset(const void *a, const void *b)
{
    return uuid_cmp(&((const struct volume_state *)a)->dataset, &((const struct volume_state *)b)->dataset);
}

/* As complete_state(), but what was known to be mounted is told by its device's number. */
static struct err *complete_known(struct storage *s, struct volume_state *v, const struct volume_state *known,
                                  const struct mount_table *t)
{
    if (!known)
        return complete_state(s, v, t);
    v->mounted = place_is_still_mounted(s, known, t);
    if (v->mounted)
        v->device = xstrdup_null(known->device);
    return complete_mark(s, v);
}

static struct err *backend_again(struct storage *s, const struct volume_state *known, size_t n, unsigned flags,
                                 struct volume_state **ret_states, size_t *ret_n)
{
    if (!(flags & LIST_HERE_ONLY))
        return s->driver->list(s->cookie, ret_states, ret_n);
    *ret_states = xcalloc(n, sizeof(**ret_states));
    *ret_n = n;
    for (size_t i = 0; i < n; i++)
        (*ret_states)[i] = (struct volume_state){.dataset = known[i].dataset,
                                                 .present = known[i].present,
                                                 .attached = known[i].attached,
                                                 .attached_elsewhere = known[i].attached_elsewhere,
                                                 .size = known[i].size};
    return NULL;
}

struct err *storage_list_again(struct storage *s, const struct volume_state *known, size_t n_known, unsigned flags,
                               struct volume_state **ret_states, size_t *ret_n)
{
    CLEANUP_MOUNTS struct mount_table t = {0};
    struct volume_state *sorted = NULL;

    if (is_local(s))
        return storage_list(s, ret_states, ret_n);
    TRY(mount_table_read(&t));
    TRY(backend_again(s, known, n_known, flags, ret_states, ret_n));
    if (n_known) {
        sorted = xmemdup(known, n_known * sizeof(*known));
        qsort(sorted, n_known, sizeof(*sorted), by_dataset);
    }
    for (size_t i = 0; i < *ret_n; i++) {
        struct volume_state *v = &(*ret_states)[i];
        const struct volume_state *k = n_known ? bsearch(v, sorted, n_known, sizeof(*sorted), by_dataset) : NULL;
        struct err *e = complete_known(s, v, k, &t);

        if (e)
            log_error("dataset %s: %s", UUID_STR(&v->dataset), e->text);
        err_free(e);
    }
    free(sorted);
    return NULL;
}

struct where_attached storage_where(const struct storage *s, const struct sighting *seen)
{
    return sighting_where(seen->hosts, s->driver->instance_id ? s->driver->instance_id(s->cookie) : "");
}

static struct err *observe(struct storage *s, const struct uuid *dataset, struct volume_state *v)
{
    CLEANUP_MOUNTS struct mount_table t = {0};

    TRY(mount_table_read(&t));
    TRY(s->driver->inspect(s->cookie, dataset, v));
    v->dataset = *dataset;
    return complete_state(s, v, &t);
}

struct err *storage_observe(struct storage *s, const struct uuid *dataset,
                            struct volume_state *ret_state)
{
    struct volume_state v = {.dataset = *dataset};
    struct err *e = observe(s, dataset, &v);

    if (e) {
        volume_state_done(&v);
        return err_wrap(e, "dataset %s", UUID_STR(dataset));
    }
    *ret_state = v;
    return NULL;
}

/* ---- creating and owning ---- */

static struct err *need_local(const struct storage *s, const char *what)
{
    if (is_local(s))
        return NULL;
    return err_new(ERR_UNSUPPORTED, "backend %s cannot %s: its volumes are moved by detaching",
                   s->driver->name, what);
}

static struct err *need_name(const char *name)
{
    if (snapshot_name_is_valid(name))
        return NULL;
    return err_new(ERR_INVALID, "'%s' cannot be the name of a snapshot", name);
}

/* May the dataset become owned at `epoch`, given its mark? The mark only ever goes up. */
static struct err *check_epoch(const struct volume_mark *m, uint64_t epoch)
{
    if (!epoch)
        return err_new(ERR_INVALID, "an epoch is at least 1");
    if (m->state == MARK_RELEASED && m->epoch >= epoch)
        return err_new(ERR_CONFLICT,
                       "released for ever at epoch %" PRIu64 ", cannot be owned at epoch %" PRIu64,
                       m->epoch, epoch);
    if (m->state != MARK_NONE && m->epoch > epoch)
        return err_new(ERR_CONFLICT,
                       "belongs to epoch %" PRIu64 " already, which is above %" PRIu64, m->epoch,
                       epoch);
    return NULL;
}

static struct err *check_not_promoting(const struct volume_mark *m)
{
    if (m->state != MARK_PROMOTING)
        return NULL;
    return err_new(ERR_CONFLICT,
                   "snapshot %s is being made the volume of epoch %" PRIu64
                   " and that is not finished: promote again",
                   m->snapshot, m->epoch);
}

static struct err *wanted_profile(const struct storage *s, const struct metadata *metadata,
                                  const char **ret_profile)
{
    const char *p = metadata ? metadata_get(metadata, METADATA_PROFILE) : NULL;

    *ret_profile = NULL;
    if (!p)
        return NULL;
    if (!streq(p, "gold") && !streq(p, "silver") && !streq(p, "bronze"))
        return err_new(ERR_INVALID,
                       "metadata " METADATA_PROFILE " must be gold, silver or bronze, not '%s'", p);
    if (s->driver->create_profiled)
        *ret_profile = p;
    else
        log_warning("backend %s has no storage profiles: '%s' is not used", s->driver->name, p);
    return NULL;
}

static struct err *round_size(const struct storage *s, uint64_t *size)
{
    uint64_t unit = s->driver->allocation_unit ? s->driver->allocation_unit(s->cookie) : 1;

    if (*size && is_local(s) && !s->driver->limit)
        return err_new(ERR_UNSUPPORTED,
                       "backend %s cannot limit the size of a dataset: create it without "
                       "maximum_size",
                       s->driver->name);
    if (*size % unit == 0)
        return NULL;
    if (__builtin_add_overflow(*size, unit - *size % unit, size))
        return err_new(ERR_INVALID, "the size is too large");
    return NULL;
}

static struct err *create(struct storage *s, const struct uuid *dataset, uint64_t size,
                          const struct metadata *metadata, uint64_t epoch)
{
    struct volume_mark m;
    const char *profile;

    TRY(read_mark(s, dataset, &m));
    TRY(check_epoch(&m, epoch));
    TRY(check_not_promoting(&m));
    TRY(wanted_profile(s, metadata, &profile));
    TRY(round_size(s, &size));
    if (profile)
        TRY(s->driver->create_profiled(s->cookie, dataset, size, profile));
    else
        TRY(s->driver->create(s->cookie, dataset, size));
    return m.state == MARK_OWNED && m.epoch == epoch ? NULL : write_owned(s, dataset, epoch);
}

struct err *storage_create(struct storage *s, const struct uuid *dataset, uint64_t maximum_size,
                           const struct metadata *metadata, uint64_t epoch)
{
    return err_wrap(create(s, dataset, maximum_size, metadata, epoch), "dataset %s",
                    UUID_STR(dataset));
}

static struct err *inspect_present(struct storage *s, const struct uuid *dataset)
{
    struct volume_state v = {0};
    struct err *e = s->driver->inspect(s->cookie, dataset, &v);

    if (!e && !v.present)
        e = err_new(ERR_NOT_FOUND, "there is no volume of it here");
    volume_state_done(&v);
    return e;
}

static struct err *claim(struct storage *s, const struct uuid *dataset, uint64_t epoch)
{
    struct volume_mark m;

    TRY(read_mark(s, dataset, &m));
    TRY(check_epoch(&m, epoch));
    TRY(check_not_promoting(&m));
    TRY(inspect_present(s, dataset));
    return m.state == MARK_OWNED && m.epoch == epoch ? NULL : write_owned(s, dataset, epoch);
}

struct err *storage_claim(struct storage *s, const struct uuid *dataset, uint64_t epoch)
{
    return err_wrap(claim(s, dataset, epoch), "dataset %s", UUID_STR(dataset));
}

static struct err *promote(struct storage *s, const struct uuid *dataset, const char *snapshot,
                           uint64_t size, uint64_t epoch, const struct volume_state *v)
{
    struct volume_mark m = {.state = MARK_PROMOTING, .epoch = epoch};

    TRY(check_epoch(&v->mark, epoch));
    if (v->mark.state == MARK_OWNED && v->mark.epoch == epoch)
        return NULL;
    if (v->mounted)
        return err_new(ERR_CONFLICT, "the volume is mounted and cannot be replaced by snapshot %s",
                       snapshot);
    if (!volume_state_has_snapshot(v, snapshot))
        return err_new(ERR_NOT_FOUND, "there is no snapshot %s here", snapshot);
    TRY(round_size(s, &size));
    memcpy(m.snapshot, snapshot, strlen(snapshot) + 1);
    if (v->present || !s->driver->promotes_at_once)
        TRY(write_mark(s, dataset, &m));
    TRY(s->driver->promote(s->cookie, dataset, snapshot, size));
    return write_owned(s, dataset, epoch);
}

struct err *storage_promote(struct storage *s, const struct uuid *dataset, const char *snapshot,
                            uint64_t maximum_size, uint64_t epoch)
{
    struct volume_state v = {0};

    TRY(need_local(s, "promote snapshots"));
    TRY(need_name(snapshot));
    TRY(storage_observe(s, dataset, &v));
    struct err *e = promote(s, dataset, snapshot, maximum_size, epoch, &v);

    volume_state_done(&v);
    return err_wrap(e, "dataset %s", UUID_STR(dataset));
}

/* The volume, its device and the file system, one after the other; each looks at what is. */
static struct err *grow_attached(struct storage *s, const struct uuid *dataset, uint64_t size)
{
    struct volume_state v = {0};
    CLEANUP_CLOSE int dir = -1;

    TRY(storage_observe(s, dataset, &v));
    bool ready = v.mounted;
    uint64_t is = v.size;

    volume_state_done(&v);
    if (!ready)
        return err_new(ERR_CONFLICT, "the volume is not mounted here: it grows once it is");
    TRY(s->driver->mark_dir(s->cookie, dataset, /* create= */ true, &dir));
    TRY(growth_note(dir, is));
    TRY(s->driver->grow(s->cookie, dataset, size));
    TRY(place_grow(s, dataset, size));
    return growth_forget(dir);
}

static struct err *grow(struct storage *s, const struct uuid *dataset, uint64_t size, uint64_t epoch)
{
    struct volume_mark m;

    if (is_local(s) ? !s->driver->limit : !s->driver->grow)
        return err_new(ERR_UNSUPPORTED, "backend %s cannot make a volume larger", s->driver->name);
    TRY(read_mark(s, dataset, &m));
    if (m.state != MARK_OWNED || m.epoch != epoch)
        return err_new(ERR_CONFLICT, "this node does not own it at that epoch");
    TRY(inspect_present(s, dataset));
    TRY(round_size(s, &size));
    return is_local(s) ? s->driver->limit(s->cookie, dataset, size) : grow_attached(s, dataset, size);
}

struct err *storage_grow(struct storage *s, const struct uuid *dataset, uint64_t maximum_size,
                         uint64_t epoch)
{
    return err_wrap(grow(s, dataset, maximum_size, epoch), "dataset %s", UUID_STR(dataset));
}

/* ---- mounting ---- */

static struct err *mount_owned(struct storage *s, const struct uuid *dataset, uint64_t epoch)
{
    struct volume_mark m;

    TRY(read_mark(s, dataset, &m));
    TRY(check_not_promoting(&m));
    if (m.state == MARK_RELEASED)
        return err_new(ERR_CONFLICT, "released for ever at epoch %" PRIu64 ", not mounted",
                       m.epoch);
    if (m.state != MARK_OWNED || m.epoch != epoch)
        return err_new(ERR_CONFLICT,
                       "the volume here belongs to epoch %" PRIu64 ", not to %" PRIu64
                       ": not mounted",
                       m.epoch, epoch);
    if (!is_local(s))
        TRY(s->driver->attach(s->cookie, dataset));
    return place_mount(s, dataset);
}

struct err *storage_mount(struct storage *s, const struct uuid *dataset, uint64_t epoch)
{
    return err_wrap(mount_owned(s, dataset, epoch), "dataset %s", UUID_STR(dataset));
}

static struct err *take_away(struct storage *s, const struct uuid *dataset, uint64_t epoch, const struct uuid *nodes, size_t n)
{
    struct volume_mark m;

    TRY(read_mark(s, dataset, &m));
    if (m.state != MARK_OWNED || m.epoch != epoch)
        return err_new(ERR_CONFLICT, "this node does not own it at that epoch");
    for (size_t i = 0; i < n; i++)
        TRY(s->driver->detach_from(s->cookie, dataset, &nodes[i]));
    return NULL;
}

struct err *storage_take_away(struct storage *s, const struct uuid *dataset, uint64_t epoch, const struct uuid *nodes, size_t n)
{
    if (is_local(s) || !s->driver->detach_from)
        return NULL;
    return err_wrap(take_away(s, dataset, epoch, nodes, n), "dataset %s", UUID_STR(dataset));
}

struct err *storage_unmount(struct storage *s, const struct uuid *dataset)
{
    struct volume_state v = {0};

    TRY(err_wrap(s->driver->inspect(s->cookie, dataset, &v), "dataset %s", UUID_STR(dataset)));
    v.dataset = *dataset;
    struct err *e = place_unmount(s, &v);

    volume_state_done(&v);
    return err_wrap(e, "dataset %s", UUID_STR(dataset));
}

/* Detaches and makes sure that the backend itself says so. */
static struct err *detach(struct storage *s, const struct uuid *dataset)
{
    struct volume_state v = {0};

    TRY(s->driver->detach(s->cookie, dataset));
    TRY(s->driver->inspect(s->cookie, dataset, &v));
    struct err *e = v.attached
                        ? err_new(ERR_BUSY, "backend %s says that the volume is still attached",
                                  s->driver->name)
                        : NULL;

    volume_state_done(&v);
    return e;
}

struct err *storage_detach(struct storage *s, const struct uuid *dataset)
{
    return is_local(s) ? NULL : err_wrap(detach(s, dataset), "dataset %s", UUID_STR(dataset));
}

/* ---- snapshots ---- */

struct err *storage_find_user(struct storage *s, const struct uuid *dataset, char **ret_user)
{
    return place_find_user(s, dataset, ret_user);
}

struct err *storage_snapshot(struct storage *s, const struct uuid *dataset, const char *name)
{
    TRY(need_local(s, "take snapshots"));
    TRY(need_name(name));
    return err_wrap(s->driver->snapshot(s->cookie, dataset, name), "dataset %s", UUID_STR(dataset));
}

static struct err *check_releasable(const struct storage *s, const struct volume_mark *m,
                                    uint64_t epoch)
{
    TRY(check_epoch(m, epoch));
    TRY(check_not_promoting(m));
    if (m->state == MARK_NONE && is_local(s))
        return err_new(ERR_CONFLICT, "this node does not own it, so it cannot release it");
    return NULL;
}

static struct err *release(struct storage *s, const struct volume_state *v,
                           const struct volume_mark *wanted)
{
    if (v->mark.state == MARK_RELEASED && v->mark.epoch == wanted->epoch &&
        v->mark.transfer == wanted->transfer && streq(v->mark.snapshot, wanted->snapshot))
        return NULL;
    TRY(check_releasable(s, &v->mark, wanted->epoch));
    struct err *busy = place_unmount(s, v);
    if (busy) {
        place_flush(s, &v->dataset); /* so that there is little to write once it is free */
        return busy;
    }
    if (!is_local(s)) {
        TRY(detach(s, &v->dataset));
    } else {
        /* Taken before a crash, maybe, and written to since then: not the final one. */
        if (volume_state_has_snapshot(v, wanted->snapshot))
            TRY(s->driver->snapshot_delete(s->cookie, &v->dataset, wanted->snapshot));
        TRY(s->driver->snapshot(s->cookie, &v->dataset, wanted->snapshot));
    }
    return write_mark(s, &v->dataset, wanted);
}

struct err *storage_release(struct storage *s, const struct uuid *dataset, uint64_t epoch,
                            uint64_t transfer, const char *snapshot)
{
    struct volume_mark wanted = {.state = MARK_RELEASED, .epoch = epoch, .transfer = transfer};
    struct volume_state v = {0};

    if (snapshot && (is_local(s) || *snapshot)) {
        TRY(need_name(snapshot));
        memcpy(wanted.snapshot, snapshot, strlen(snapshot) + 1);
    } else if (is_local(s)) {
        return err_new(ERR_INVALID, "a release needs the name of its final snapshot");
    }
    TRY(storage_observe(s, dataset, &v));
    struct err *e = release(s, &v, &wanted);

    volume_state_done(&v);
    return err_wrap(e, "dataset %s", UUID_STR(dataset));
}

static struct err *prune(struct storage *s, const struct volume_state *v, const char *keep,
                         const char *also)
{
    TRY(s->driver->tidy(s->cookie, &v->dataset));
    for (size_t i = 0; i < v->n_snapshots; i++) {
        const char *name = v->snapshots[i];
        bool source = v->mark.state == MARK_PROMOTING && streq(name, v->mark.snapshot);

        if (!source && !str_equal_null(name, keep) && !str_equal_null(name, also))
            TRY(s->driver->snapshot_delete(s->cookie, &v->dataset, name));
    }
    return NULL;
}

struct err *storage_snapshot_delete(struct storage *s, const struct uuid *dataset, const char *name)
{
    TRY(need_local(s, "delete snapshots"));
    TRY(need_name(name));
    return err_wrap(s->driver->snapshot_delete(s->cookie, dataset, name), "dataset %s",
                    UUID_STR(dataset));
}

struct err *storage_prune(struct storage *s, const struct uuid *dataset, const char *keep,
                          const char *also)
{
    struct volume_state v = {0};

    TRY(need_local(s, "delete snapshots"));
    TRY(storage_observe(s, dataset, &v));
    struct err *e = prune(s, &v, keep, also);

    volume_state_done(&v);
    return err_wrap(e, "dataset %s", UUID_STR(dataset));
}

static struct err *demote(struct storage *s, const struct volume_state *v, const char *snapshot)
{
    if (!s->driver->demote)
        return err_new(ERR_UNSUPPORTED, "backend %s keeps no replicas", s->driver->name);
    if (v->mark.state != MARK_RELEASED)
        return err_new(ERR_CONFLICT, "this node did not release it: the volume is kept");
    if (!volume_state_has_snapshot(v, snapshot))
        return err_new(ERR_NOT_FOUND, "there is no snapshot %s here", snapshot);
    TRY(place_unmount(s, v));
    return s->driver->demote(s->cookie, &v->dataset, snapshot);
}

struct err *storage_demote(struct storage *s, const struct uuid *dataset, const char *snapshot)
{
    struct volume_state v = {0};

    TRY(need_local(s, "keep replicas"));
    TRY(need_name(snapshot));
    TRY(storage_observe(s, dataset, &v));
    struct err *e = v.present ? demote(s, &v, snapshot) : NULL;

    volume_state_done(&v);
    return err_wrap(e, "dataset %s", UUID_STR(dataset));
}

struct err *storage_space(struct storage *s, uint64_t *ret_total, uint64_t *ret_free)
{
    if (s->driver->space)
        return err_wrap(s->driver->space(s->cookie, ret_total, ret_free), "the space of the storage");
    *ret_total = *ret_free = 0;
    return NULL;
}

void stream_point_done(struct stream_point *p)
{
    free(p->snapshot);
    free(p->identity);
    free(p->base);
    free(p->token);
    *p = (struct stream_point){0};
}

static struct err *need_stream(const struct storage *s, const struct stream_spec *stream, const char *what)
{
    TRY(need_local(s, what));
    TRY(need_name(stream->snapshot));
    return stream->base ? need_name(stream->base) : NULL;
}

struct err *storage_send(struct storage *s, const struct uuid *dataset,
                         const struct stream_spec *stream, int fd, const atomic_bool *cancel)
{
    TRY(need_stream(s, stream, "send snapshots"));
    return err_wrap(s->driver->send(s->cookie, dataset, stream, fd, cancel),
                    "dataset %s: sending snapshot %s", UUID_STR(dataset), stream->snapshot);
}

struct err *storage_receive(struct storage *s, const struct uuid *dataset,
                            const struct stream_spec *stream, int fd)
{
    TRY(need_stream(s, stream, "receive snapshots"));
    struct err *e = s->driver->receive(s->cookie, dataset, stream, fd);

    if (err_is(e, ERR_NO_SPACE) && s->no_space)
        s->no_space(s->no_space_cookie);
    return err_wrap(e, "dataset %s: receiving snapshot %s", UUID_STR(dataset), stream->snapshot);
}

struct err *storage_stream_point(struct storage *s, const struct uuid *dataset,
                                 struct stream_point *ret_point)
{
    TRY(need_local(s, "continue a stream"));
    *ret_point = (struct stream_point){0};
    if (!s->driver->stream_point)
        return NULL;
    return err_wrap(s->driver->stream_point(s->cookie, dataset, ret_point),
                    "dataset %s: what an interrupted stream left", UUID_STR(dataset));
}

struct err *storage_snapshot_identity(struct storage *s, const struct uuid *dataset,
                                      const char *snapshot, char **ret_identity)
{
    TRY(need_local(s, "tell snapshots apart"));
    TRY(need_name(snapshot));
    return err_wrap(s->driver->identity(s->cookie, dataset, snapshot, ret_identity),
                    "dataset %s: snapshot %s", UUID_STR(dataset), snapshot);
}

struct err *storage_stream_size(struct storage *s, const struct uuid *dataset,
                                const struct stream_spec *stream, uint64_t *ret_bytes)
{
    TRY(need_stream(s, stream, "send snapshots"));
    if (!s->driver->stream_size) {
        *ret_bytes = 0;
        return NULL;
    }
    return err_wrap(s->driver->stream_size(s->cookie, dataset, stream, ret_bytes),
                    "dataset %s: the size of snapshot %s", UUID_STR(dataset), stream->snapshot);
}

struct digest_job {
    const atomic_bool *cancel;
    char *digest;
};

static struct err *digest_snapshot(void *cookie, int root)
{
    const struct digest_job *j = cookie;

    return digest_tree(root, j->cancel, j->digest);
}

struct err *storage_snapshot_digest(struct storage *s, const struct uuid *dataset, const char *snapshot,
                                    const atomic_bool *cancel, char ret_digest[STORAGE_DIGEST_SIZE])
{
    struct digest_job job = {cancel, ret_digest};

    TRY(need_local(s, "compare snapshots"));
    TRY(need_name(snapshot));
    if (!s->driver->snapshot_read)
        return err_new(ERR_UNSUPPORTED, "backend %s cannot look into its snapshots to compare them",
                       s->driver->name);
    return err_wrap(s->driver->snapshot_read(s->cookie, dataset, snapshot, digest_snapshot, &job),
                    "dataset %s: snapshot %s", UUID_STR(dataset), snapshot);
}

/* ---- the end ---- */

static struct err *remove_mark(struct storage *s, const struct uuid *dataset)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(s->driver->mark_dir(s->cookie, dataset, /* create= */ false, &dir));
    if (dir >= 0 && !is_local(s))
        TRY(place_forget(dir));
    if (dir >= 0)
        TRY(mark_remove(dir));
    return s->driver->forget(s->cookie, dataset);
}

static struct err *drop(struct storage *s, const struct uuid *dataset, bool destroy)
{
    struct volume_state v = {0};
    /* The mark is not read: a damaged one must not keep a volume from being removed on an explicit
     * order. */
    struct err *e = s->driver->inspect(s->cookie, dataset, &v);

    v.dataset = *dataset;
    if (!e)
        e = place_unmount(s, &v);
    if (!e && !is_local(s) && v.present)
        e = detach(s, dataset);
    if (!e && (is_local(s) || destroy))
        e = s->driver->destroy(s->cookie, dataset);
    volume_state_done(&v);
    return e ? e : remove_mark(s, dataset);
}

struct err *storage_drop(struct storage *s, const struct uuid *dataset)
{
    return err_wrap(drop(s, dataset, /* destroy= */ false), "dataset %s", UUID_STR(dataset));
}

struct err *storage_destroy(struct storage *s, const struct uuid *dataset)
{
    return err_wrap(drop(s, dataset, /* destroy= */ true), "dataset %s", UUID_STR(dataset));
}
