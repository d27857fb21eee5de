/* Uses that nobody has: Docker does not give a mount back when it is killed at the wrong moment, and dvdcli may never. So it is looked from
 * time to time who uses the volumes that are mounted; of those that nobody uses for long, the uses end. A container holds its volume by
 * a mount in a namespace of its own, which is seen whatever the engine says; the engine is asked for those that are just being started. */
#include "agent/plugin_internal.h"

#include "base/log.h"
#include "base/now.h"

#define LOOKS 4 /* in the time after which a use is over */

struct looked {
    char *name;
    struct uuid dataset;
    bool used;
};

struct look {
    struct plugin *plugin;
    struct looked *volumes;
    size_t n;
    uint64_t began_us;
    struct err *error;
};

static void look_free(struct look *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->volumes[i].name);
    free(l->volumes);
    err_free(l->error);
    free(l);
}

static uint64_t unused_us(const struct plugin *p)
{
    return plugin_settings(p)->release_unused_s * (uint64_t)USEC_PER_SEC;
}

/* ---- looking ---- */

static void mark_used(struct look *l, char *const *names, size_t n)
{
    for (size_t i = 0; i < l->n; i++) {
        for (size_t k = 0; k < n && !l->volumes[i].used; k++)
            l->volumes[i].used = streq(l->volumes[i].name, names[k]);
    }
}

/* An engine that does not answer starts no containers. */
static struct err *ask_engine(struct look *l)
{
    char **names = NULL;
    size_t n = 0;
    struct err *e = container_engine_volumes_sync(l->plugin->config.context->engine, &names, &n);

    if (err_is(e, ERR_UNAVAILABLE))
        e = err_free(e);
    if (!e)
        mark_used(l, names, n);
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return e;
}

static void look_work(void *cookie)
{
    struct look *l = cookie;
    struct storage *storage = l->plugin->config.context->storage;

    l->error = ask_engine(l);
    for (size_t i = 0; i < l->n && !l->error; i++) {
        CLEANUP_FREE char *user = NULL;

        if (l->volumes[i].used)
            continue;
        l->error = storage_find_user(storage, &l->volumes[i].dataset, &user);
        l->volumes[i].used = user != NULL;
    }
}

/* ---- what follows ---- */

static bool is_waited_for(const struct plugin_volume *v)
{
    const struct plugin_use *use;

    LIST_FOREACH (use, &v->uses, link) {
        if (use->waiting)
            return true;
    }
    return false;
}

static void release(struct plugin *p, struct plugin_volume *v)
{
    log_warning("nobody on this node has used the volume %s for %u seconds, though it was mounted %zu times and not unmounted: its lease goes",
                v->name, plugin_settings(p)->release_unused_s, v->n);
    for (size_t n = v->n; n; n--)
        plugin_use_drop(p, LIST_FIRST(&v->uses));
}

static void take(struct plugin *p, const struct look *l, const struct looked *seen)
{
    struct plugin_volume *v = uses_volume(&p->uses, seen->name);
    uint64_t now_us = now_os().mono_us;

    if (!v || !uuid_eq(&v->dataset, &seen->dataset) || v->mounted_us >= l->began_us || is_waited_for(v))
        return;
    if (seen->used)
        v->unused_us = 0;
    else if (!v->unused_us)
        v->unused_us = l->began_us;
    else if (now_us - v->unused_us >= unused_us(p))
        release(p, v);
}

static void look_done(void *cookie)
{
    struct look *l = cookie;
    struct plugin *p = l->plugin;

    p->looking = false;
    if (l->error)
        log_debug("it cannot be seen who uses the Docker volumes: %s", l->error->text);
    for (size_t i = 0; i < l->n && !l->error; i++)
        take(p, l, &l->volumes[i]);
    look_free(l);
    plugin_users_watch(p);
}

static void look_begin(void *cookie)
{
    struct plugin *p = cookie;
    struct look *l = xcalloc(1, sizeof(*l));

    l->plugin = p;
    l->began_us = now_os().mono_us;
    l->volumes = xcalloc(p->uses.n + 1, sizeof(*l->volumes));
    for (const struct plugin_volume *v = p->uses.by_name; v; v = v->hh.next) {
        if (!uuid_is_nil(&v->dataset))
            l->volumes[l->n++] = (struct looked){xstrdup(v->name), v->dataset, false};
    }
    if (!p->config.context->storage || !l->n) {
        look_free(l);
        plugin_users_watch(p);
        return;
    }
    p->looking = true;
    workers_submit(p->look_workers, look_work, look_done, l);
}

void plugin_users_init(struct plugin *p)
{
    timer_init(&p->look_timer, p->config.loop, look_begin, p);
}

void plugin_users_watch(struct plugin *p)
{
    if (p->uses.n && unused_us(p) && !p->looking && !timer_is_set(&p->look_timer))
        timer_set(&p->look_timer, now_os().mono_us + unused_us(p) / LOOKS);
}
