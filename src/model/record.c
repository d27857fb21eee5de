/* Leases, cordons, fences; datasets and containers are in record_dataset.c and record_container.c. */
#include "model/record.h"

#include "base/str.h"
#include "model/record_json.h"

/* Leases */

/* What is only acquired by the API can still be read by an older version; since when is not worth more. */
char *record_lease_encode(const struct lease *l)
{
    bool by_mounts = l->n_mounts > 0;
    struct record_writer w = record_begin(by_mounts ? RECORD_FORMAT_MOUNTS : RECORD_FORMAT);

    if (!by_mounts && !l->acquired)
        w.failed = true;
    record_set(&w, "dataset", record_own_id(&l->dataset));
    record_set(&w, "revision", record_number(l->revision));
    record_set(&w, "node", record_id(&l->node));
    record_set(&w, "expires_wall_us", l->expires ? record_number(l->expires_wall_us) : json_null());
    if (by_mounts) {
        json_t *mounts = json_array();
        for (size_t i = 0; i < l->n_mounts; i++)
            record_append(&w, mounts, json_string(l->mounts[i]));
        record_set(&w, "acquired", json_boolean(l->acquired));
        record_set(&w, "since_us", record_number(l->since_us));
        record_set(&w, "mounts", mounts);
    }
    return record_finish(&w);
}

static void get_mount(struct record_reader *r, struct lease *l, const json_t *v)
{
    const char *text = json_string_value(v);
    size_t n = json_string_length(v);

    if (!text || !n || n > MOUNT_ID_MAX ||
        (l->n_mounts && strcmp(l->mounts[l->n_mounts - 1], text) >= 0))
        record_wrong(r, "mounts", "a sorted list of ids");
    else
        lease_add_mount(l, text);
}

static void get_mounts(struct record_reader *r, struct lease *l)
{
    json_t *mounts = record_take(r, "mounts");

    if (mounts && (!json_is_array(mounts) || !json_array_size(mounts) ||
                   json_array_size(mounts) > LEASE_MOUNTS_MAX))
        record_wrong(r, "mounts", "a sorted list of ids");
    for (size_t i = 0; !r->err && i < json_array_size(mounts); i++)
        get_mount(r, l, json_array_get(mounts, i));
    json_decref(mounts);
}

struct err *record_lease_decode(const char *text, size_t n, struct lease *ret)
{
    struct lease l = {0};
    struct record_reader r;

    TRY(record_parse("lease", RECORD_FORMAT_MOUNTS, text, n, &r));
    l.dataset = record_get_id(&r, "dataset", false);
    l.revision = record_get_number(&r, "revision", UINT64_MAX);
    l.node = record_get_id(&r, "node", true);
    json_t *expires = record_take(&r, "expires_wall_us");
    if (expires && !json_is_null(expires)) {
        l.expires = true;
        l.expires_wall_us = record_value_number(&r, "expires_wall_us", expires, UINT64_MAX);
    }
    json_decref(expires);
    l.acquired = true;
    if (r.format >= RECORD_FORMAT_MOUNTS) {
        l.acquired = record_get_bool(&r, "acquired");
        l.since_us = record_get_number(&r, "since_us", UINT64_MAX);
        get_mounts(&r, &l);
    }
    if (!r.err && l.expires && !l.acquired)
        record_wrong(&r, "expires_wall_us", "null, as the API has not acquired it");
    struct err *e = record_parse_end(&r);
    if (e) {
        lease_done(&l);
        return e;
    }
    *ret = l;
    return NULL;
}

/* Cordons */

char *record_cordon_encode(const struct cordon *c)
{
    struct record_writer w = record_begin(RECORD_FORMAT);

    record_set(&w, "node", record_own_id(&c->node));
    record_set(&w, "revision", record_number(c->revision));
    return record_finish(&w);
}

struct err *record_cordon_decode(const char *text, size_t n, struct cordon *ret)
{
    struct cordon c = {0};
    struct record_reader r;

    TRY(record_parse("cordon", RECORD_FORMAT, text, n, &r));
    c.node = record_get_id(&r, "node", false);
    c.revision = record_get_number(&r, "revision", UINT64_MAX);
    TRY(record_parse_end(&r));
    *ret = c;
    return NULL;
}

/* Fences */

char *record_fence_encode(const struct fence *f)
{
    struct record_writer w = record_begin(RECORD_FORMAT);

    record_set(&w, "node", record_own_id(&f->node));
    record_set(&w, "revision", record_number(f->revision));
    record_set(&w, "era", record_id(&f->era));
    record_set(&w, "at_us", record_number(f->at_us));
    record_set(&w, "who", json_string(f->who));
    record_set(&w, "why", json_string(f->why));
    return record_finish(&w);
}

struct err *record_fence_decode(const char *text, size_t n, struct fence **ret)
{
    struct record_reader r;

    TRY(record_parse("fence", RECORD_FORMAT, text, n, &r));
    struct fence *f = xcalloc(1, sizeof(*f));
    f->node = record_get_id(&r, "node", false);
    f->revision = record_get_number(&r, "revision", UINT64_MAX);
    f->era = record_get_id(&r, "era", true);
    f->at_us = record_get_number(&r, "at_us", UINT64_MAX);
    f->who = record_get_text(&r, "who", false);
    f->why = record_get_text(&r, "why", false);
    struct err *e = record_parse_end(&r);
    if (e) {
        fence_free(f);
        return e;
    }
    *ret = f;
    return NULL;
}
