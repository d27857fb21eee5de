#include "fake_volumes.h"

#include "base/now.h"
#include "base/str.h"

#include <stdio.h>
#include <sys/queue.h>

#define HOME "8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11"

struct fake_call {
    TAILQ_ENTRY(fake_call) link;
    uint64_t number;
    struct volume_call call;
    volume_answered_fn *answered;
    void *cookie;
    bool away;
    struct timer timer;
};

struct fake fake;
static TAILQ_HEAD(, fake_call) waiting = TAILQ_HEAD_INITIALIZER(waiting);
static uint64_t numbers;
static char agent_volumes_token; /* what the plugin gets as `struct agent_volumes *` */

struct agent_volumes *agent_volumes_new(const struct agent_volumes_config *config)
{
    fake.config = *config;
    return (struct agent_volumes *)(void *)&agent_volumes_token;
}

static void call_free(struct fake_call *c)
{
    TAILQ_REMOVE(&waiting, c, link);
    timer_cancel(&c->timer);
    volume_call_done(&c->call);
    free(c);
}

struct agent_volumes *agent_volumes_free(struct agent_volumes *v)
{
    (void)v;
    while (!TAILQ_EMPTY(&waiting))
        call_free(TAILQ_FIRST(&waiting));
    fake.config = (struct agent_volumes_config){0};
    return NULL;
}

void fake_init(struct loop *loop)
{
    fake = (struct fake){.loop = loop, .volumes = calloc(FAKE_VOLUMES_MAX, sizeof(struct fake_volume))};
}

static void drop_mounts(struct fake_volume *v)
{
    for (size_t i = 0; i < v->n_mounts; i++)
        free(v->mounts[i]);
    v->n_mounts = 0;
}

void fake_forget(void)
{
    for (size_t i = 0; i < fake.n; i++) {
        volume_entry_done(&fake.volumes[i].entry);
        drop_mounts(&fake.volumes[i]);
    }
    memset(fake.volumes, 0, fake.n * sizeof(*fake.volumes));
    fake.n = 0;
}

void fake_done(void)
{
    fake_forget();
    free(fake.volumes);
    fake = (struct fake){0};
}

struct fake_volume *fake_find(const char *name)
{
    for (size_t i = 0; i < fake.n; i++) {
        if (!fake.volumes[i].deleted && streq(fake.volumes[i].entry.name, name))
            return &fake.volumes[i];
    }
    return NULL;
}

static struct fake_volume *find_dataset(const struct uuid *id)
{
    for (size_t i = 0; i < fake.n; i++) {
        if (uuid_eq(&fake.volumes[i].entry.dataset, id))
            return &fake.volumes[i];
    }
    return NULL;
}

static void tell(struct fake_volume *v)
{
    if (fake.up && fake.config.changed)
        fake.config.changed(fake.config.cookie, &v->entry.dataset, v->deleted ? NULL : &v->entry);
}

struct fake_volume *fake_add(const char *name)
{
    struct fake_volume *v = &fake.volumes[fake.n++];
    char id[UUID_TEXT_SIZE];

    snprintf(id, sizeof(id), "3f0c9c1e-7b1d-4c7a-9d0e-%012zx", fake.n);
    (void)uuid_parse(id, &v->entry.dataset);
    (void)uuid_parse(HOME, &v->entry.home);
    v->entry.owner = v->entry.home;
    v->entry.home_host = xstrdup("192.0.2.7");
    v->entry.name = xstrdup(name);
    tell(v);
    return v;
}

void fake_hold(struct fake_volume *v, const char *who)
{
    v->held_by = who;
    tell(v);
}

void fake_mounted(struct fake_volume *v)
{
    v->mounted = true;
    fake.config.dataset_changed(fake.config.cookie, &v->entry.dataset);
}

bool fake_has_mount(const struct fake_volume *v, const char *mount)
{
    for (size_t i = 0; i < v->n_mounts; i++) {
        if (streq(v->mounts[i], mount))
            return true;
    }
    return false;
}

static void add_mount(struct fake_volume *v, const char *mount)
{
    if (!fake_has_mount(v, mount) && v->n_mounts < FAKE_MOUNTS_MAX)
        v->mounts[v->n_mounts++] = xstrdup(mount);
}

static void remove_mount(struct fake_volume *v, const char *mount)
{
    for (size_t i = 0; i < v->n_mounts; i++) {
        if (!streq(v->mounts[i], mount))
            continue;
        free(v->mounts[i]);
        v->mounts[i] = v->mounts[--v->n_mounts];
        return;
    }
}

/* ---- the session ---- */

static void take_use(void *cookie, const struct volume_use *u)
{
    struct fake_volume *v = u->name ? fake_find(u->name) : find_dataset(&u->dataset);

    (void)cookie;
    atomic_fetch_add(&fake.uses_told, 1);
    if (v && !v->held_by)
        add_mount(v, u->mount);
}

static void away(void)
{
    struct fake_call *c;

    TAILQ_FOREACH (c, &waiting, link) {
        c->away = true;
        timer_set(&c->timer, 0);
    }
}

void fake_session(bool up)
{
    if (up == fake.up)
        return;
    fake.up = up;
    if (!up) {
        away();
        fake.config.session(fake.config.cookie, false);
        return;
    }
    for (size_t i = 0; i < fake.n; i++)
        drop_mounts(&fake.volumes[i]);
    atomic_store(&fake.uses_told, 0);
    fake.config.each_use(fake.config.cookie, take_use, NULL);
    fake.config.session(fake.config.cookie, true);
    for (size_t i = 0; i < fake.n; i++) {
        if (!fake.volumes[i].deleted)
            tell(&fake.volumes[i]);
    }
    fake.config.complete(fake.config.cookie);
}

/* ---- the calls ---- */

static void create(const struct volume_call *c, struct volume_answer *a)
{
    struct fake_volume *v = fake_find(c->name);

    a->code = v ? VOLUME_OK : VOLUME_CREATED;
    if (!v) {
        v = fake_add(c->name);
        v->entry.maximum_size = c->maximum_size;
    }
    a->dataset = v->entry.dataset;
}

static void use(const struct volume_call *c, struct volume_answer *a)
{
    struct fake_volume *v = fake_find(c->name);

    if (fake.on_use)
        fake.on_use(c->name, c->mount);
    a->code = !v ? VOLUME_NOT_FOUND : v->held_by ? VOLUME_HELD : fake.releasing ? VOLUME_RELEASING : VOLUME_OK;
    if (a->code == VOLUME_HELD)
        a->text = xasprintf("The volume %s is in use on node %s.", c->name, v->held_by);
    if (a->code == VOLUME_RELEASING)
        a->text = xstrdup("It is just leaving this node.");
    if (a->code != VOLUME_OK)
        return;
    add_mount(v, c->mount);
    a->dataset = v->entry.dataset;
    a->epoch = 7;
    if (!fake.mounts_late)
        fake_mounted(v);
}

static void removal(const struct volume_call *c, struct volume_answer *a)
{
    struct fake_volume *v = fake_find(c->name);

    a->code = v && (v->n_mounts || v->held_by) ? VOLUME_HELD : VOLUME_OK;
    if (a->code == VOLUME_HELD)
        a->text = xasprintf("The volume %s is in use: %zu mounts.", c->name, v->n_mounts);
    else if (v) {
        v->deleted = true;
        tell(v);
    }
}

static void unuse(const struct volume_call *c)
{
    struct fake_volume *v = uuid_is_nil(&c->dataset) ? fake_find(c->name) : find_dataset(&c->dataset);

    if (v)
        remove_mount(v, c->mount);
}

static void answer(const struct volume_call *c, struct volume_answer *a)
{
    if (fake.fails) {
        a->code = VOLUME_FAILED;
        a->text = xstrdup("The store is full.");
        return;
    }
    switch (c->kind) {
    case VOLUME_CREATE:
        create(c, a);
        break;
    case VOLUME_USE:
        use(c, a);
        break;
    case VOLUME_REMOVE:
        removal(c, a);
        break;
    default:
        unuse(c);
        break;
    }
}

static void on_due(void *cookie)
{
    struct fake_call *c = cookie;
    struct volume_answer a = {.number = c->number, .code = c->away ? VOLUME_AWAY : VOLUME_OK};
    volume_answered_fn *answered = c->answered;
    void *to = c->cookie;

    if (!c->away)
        answer(&c->call, &a);
    call_free(c);
    answered(to, &a);
    volume_answer_done(&a);
}

uint64_t agent_volumes_call(struct agent_volumes *v, const struct volume_call *call, volume_answered_fn *answered, void *cookie)
{
    struct fake_call *c = xcalloc(1, sizeof(*c));

    (void)v;
    c->number = ++numbers;
    volume_call_copy(&c->call, call);
    c->answered = answered;
    c->cookie = cookie;
    c->away = !fake.up;
    timer_init(&c->timer, fake.loop, on_due, c);
    atomic_fetch_add(&fake.calls[call->kind], 1);
    TAILQ_INSERT_TAIL(&waiting, c, link);
    if (c->away || !fake.silent)
        timer_set(&c->timer, now_os().mono_us + (c->away ? 0 : fake.answer_us));
    return c->number;
}

void agent_volumes_forget(struct agent_volumes *v, uint64_t number)
{
    struct fake_call *c;

    (void)v;
    TAILQ_FOREACH (c, &waiting, link) {
        if (c->number == number) {
            call_free(c);
            return;
        }
    }
}

/* ---- what is known ---- */

void agent_volumes_hurry(struct agent_volumes *v, uint64_t until_us)
{
    (void)v;
    fake.hurry_until_us = until_us;
}

bool agent_volumes_is_up(const struct agent_volumes *v)
{
    (void)v;
    return fake.up;
}

const struct volume_entry *agent_volumes_by_name(const struct agent_volumes *v, const char *name)
{
    struct fake_volume *f = fake_find(name);

    (void)v;
    return f ? &f->entry : NULL;
}

const struct volume_entry *agent_volumes_by_id(const struct agent_volumes *v, const struct uuid *dataset)
{
    struct fake_volume *f = find_dataset(dataset);

    (void)v;
    return f ? &f->entry : NULL;
}

size_t agent_volumes_count(const struct agent_volumes *v)
{
    (void)v;
    return fake.n;
}

void agent_volumes_each(const struct agent_volumes *v, bool (*fn)(void *cookie, const struct volume_entry *), void *cookie)
{
    bool more = true;

    (void)v;
    for (size_t i = 0; i < fake.n && more; i++)
        more = fake.volumes[i].deleted || fn(cookie, &fake.volumes[i].entry);
}

void agent_volumes_remember(struct agent_volumes *v, const struct volume_entry *e)
{
    (void)v;
    if (!fake_find(e->name))
        (void)fake_add(e->name);
}

bool node_volume_mounted(const struct node *n, const struct uuid *dataset, uint64_t epoch)
{
    struct fake_volume *f = find_dataset(dataset);

    (void)n;
    return f && f->mounted && epoch <= 7;
}
