/* Containers that are started only after others: who waits for whom, what of it is fulfilled, what is refused. */
#include "core/engine_internal.h"
#include "core/fault.h"

/* By the name of a container, which need not exist: who depends on it, by its committed or its newest value. */
struct dependents {
    char *name;
    struct container_entry **users;
    size_t n, cap;
    UT_hash_handle hh;
};

static struct dependents *dependents_of(const struct engine *e, const char *name)
{
    struct dependents *d;

    HASH_FIND_STR(e->dependents, name, d);
    return d;
}

static void begin_depending(struct engine *e, struct container_entry *entry, const char *name)
{
    struct dependents *d = dependents_of(e, name);

    if (!d) {
        d = xcalloc(1, sizeof(*d));
        d->name = xstrdup(name);
        HASH_ADD_KEYPTR(hh, e->dependents, d->name, strlen(d->name), d);
    }
    d->users = mem_grow(d->users, d->n, &d->cap, sizeof(struct container_entry *));
    d->users[d->n++] = entry;
}

static void dependents_free(struct engine *e, struct dependents *d)
{
    HASH_DEL(e->dependents, d);
    free(d->name);
    free(d->users);
    free(d);
}

static void stop_depending(struct engine *e, struct container_entry *entry, const char *name)
{
    struct dependents *d = dependents_of(e, name);

    for (size_t i = 0; i < d->n; i++) {
        if (d->users[i] != entry)
            continue;
        d->users[i] = d->users[--d->n];
        break;
    }
    if (!d->n)
        dependents_free(e, d);
}

void dependencies_free(struct engine *e)
{
    struct dependents *d, *next;

    HASH_ITER(hh, e->dependents, d, next)
        dependents_free(e, d);
}

void index_dependencies(struct engine *e, struct container_entry *entry)
{
    const struct container *now[2] = {entry->committed, entry->head == entry->committed ? NULL : entry->head};
    size_t n_before = entry->n_depends, most = 0;
    char **before = entry->depends;

    for (size_t i = 0; i < 2; i++)
        most += now[i] ? now[i]->n_depends_on : 0;
    if (!most && !n_before)
        return;
    entry->depends = xcalloc(most, sizeof(char *));
    entry->n_depends = 0;
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; now[i] && k < now[i]->n_depends_on; k++) {
            const char *name = now[i]->depends_on[k].name;
            if (i && now[0] && container_dependency(now[0], name))
                continue;
            entry->depends[entry->n_depends++] = xstrdup(name);
            begin_depending(e, entry, name);
        }
    }
    for (size_t i = 0; i < n_before; i++) {
        stop_depending(e, entry, before[i]);
        free(before[i]);
    }
    free(before);
}

void update_dependents(struct engine *e, const char *name)
{
    struct dependents *d = dependents_of(e, name);

    for (size_t i = 0; d && i < d->n; i++) {
        if (d->users[i]->committed)
            update_container_orders(e, d->users[i]);
    }
}

/* ---- what is fulfilled ---- */

/* NULL = it is; else what is in the way, in words that follow the container's name. */
static const char *missing_of_run(const struct container_report *r, enum dependency_condition condition)
{
    bool ended = r->run == CONTAINER_EXITED;

    if (condition == DEPENDENCY_STARTED)
        return r->run == CONTAINER_RUNNING || ended ? NULL : "which has not been started yet";
    if (condition == DEPENDENCY_COMPLETED) {
        if (!ended)
            return "which has not ended yet";
        return r->has_exit_code && r->exit_code == 0 ? NULL : "which ended with a failure";
    }
    if (r->run != CONTAINER_RUNNING)
        return "which does not run";
    if (r->health == HEALTH_HEALTHY)
        return NULL;
    return r->health == HEALTH_NONE       ? "which has no health check, and so is never known to be healthy"
           : r->health == HEALTH_STARTING ? "whose health is not known yet"
                                          : "which is unhealthy";
}

static const char *missing(const struct engine *e, const struct dependency *d)
{
    const struct container_entry *entry = container_entry_find(e, d->name);
    struct uuid run, prepare;

    if (!entry || !entry->committed)
        return "which does not exist";
    container_places(e, entry->committed, &run, &prepare);
    const struct container_report *r = container_report_of(entry, &run);
    if (!r || r->created != entry->committed->created)
        return "which has not been started yet";
    return missing_of_run(r, d->condition);
}

static const struct dependency *first_missing(const struct engine *e, const struct container *c, const char **ret_what)
{
    for (size_t i = 0; i < c->n_depends_on; i++) {
        *ret_what = missing(e, &c->depends_on[i]);
        if (*ret_what)
            return &c->depends_on[i];
    }
    return NULL;
}

bool is_held(const struct engine *e, const struct container_entry *entry)
{
    const struct container *c = entry->committed;
    const char *what;

    return entry->started < c->created && first_missing(e, c, &what) != NULL && !FAULT(FORGET_HOLD);
}

char *held_text(const struct engine *e, const struct container *c)
{
    const char *what;
    const struct dependency *d = first_missing(e, c, &what);

    if (!d)
        return xasprintf("container %s is being told that all it depends on is there", c->name);
    return xasprintf("container %s depends on container %s, %s", c->name, d->name, what);
}

/* ---- what has ended ---- */

void note_end(struct engine *e, struct container_entry *entry)
{
    const struct container *c = entry->committed;
    struct uuid run, prepare;

    if (!c || c->ended || entry->pending || e->commit_retry_us)
        return; /* whatever comes of that leads here again */
    container_places(e, c, &run, &prepare);
    const struct container_report *r = container_report_of(entry, &run);
    if (!r || !r->ended || r->created != c->created)
        return;
    struct container *ended = container_copy(c);
    ended->ended = true;
    propose_container(e, entry, ended);
}

void note_ends(struct engine *e)
{
    for (struct container_entry *c = e->containers; c; c = c->hh.next)
        note_end(e, c);
}

/* ---- what is refused ---- */

/* Does something that `c` depends on, by however many steps, depend on `c`? Then the first that does so itself. */
static const struct container_entry *circle_through(struct engine *e, const struct container *c)
{
    const struct container_entry *found = NULL;
    struct container_entry **todo = NULL;
    size_t n = 0, cap = 0;

    if (!dependents_of(e, c->name))
        return NULL;
    e->visits++;
    for (const struct container *k = c; k && !found;) {
        for (size_t i = 0; i < k->n_depends_on; i++) {
            struct container_entry *next = container_entry_find(e, k->depends_on[i].name);
            if (!next || !next->head || next->visit == e->visits)
                continue;
            next->visit = e->visits;
            todo = mem_grow(todo, n, &cap, sizeof(struct container_entry *));
            todo[n++] = next;
        }
        const struct container_entry *entry = n ? todo[--n] : NULL;
        k = entry ? entry->head : NULL;
        if (k && container_dependency(k, c->name))
            found = entry;
    }
    free(todo);
    return found;
}

enum result_code check_dependencies(struct engine *e, const struct container *c, struct command_result *r)
{
    for (size_t i = 0; i < c->n_depends_on; i++) {
        const struct container_entry *entry = container_entry_find(e, c->depends_on[i].name);
        if (streq(c->depends_on[i].name, c->name)) {
            r->text = xasprintf("%s depends on itself", c->name);
            return RESULT_DEPENDENCY_CIRCLE;
        }
        if (entry && entry->head)
            continue;
        r->text = xstrdup(c->depends_on[i].name);
        return RESULT_DEPENDENCY_MISSING;
    }
    const struct container_entry *found = circle_through(e, c);
    if (!found)
        return RESULT_OK;
    r->text = xasprintf("%s, on which %s depends, depends on it", found->name, c->name);
    return RESULT_DEPENDENCY_CIRCLE;
}
