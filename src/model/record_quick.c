#include "model/record_quick.h"

#include "base/mem.h"
#include "model/record.h"

#define HOLDERS_MAX 64 /* the search for repetitions is quadratic */

/* The rest of the text. `p` becomes NULL at the first thing that is not as expected; it stays so. */
struct text {
    const char *p, *end;
};

static bool literal(struct text *t, const char *what, size_t n)
{
    if (!t->p || (size_t)(t->end - t->p) < n || memcmp(t->p, what, n) != 0)
        return false;
    t->p += n;
    return true;
}

static void expect(struct text *t, const char *what, size_t n)
{
    if (!literal(t, what, n))
        t->p = NULL;
}
#define EXPECT(t, s) expect((t), (s), sizeof(s) - 1)
#define LITERAL(t, s) literal((t), (s), sizeof(s) - 1)

static uint64_t number(struct text *t)
{
    const char *begin = t->p;
    uint64_t v = 0;

    if (!begin)
        return 0;
    while (t->p < t->end && *t->p >= '0' && *t->p <= '9' && t->p - begin < 18)
        v = v * 10 + (uint64_t)(*t->p++ - '0');
    /* No digits, a zero in front, or more than surely fit. */
    if (t->p == begin || (*begin == '0' && t->p - begin > 1) || t->p == t->end || (*t->p >= '0' && *t->p <= '9'))
        t->p = NULL;
    return v;
}

static bool boolean(struct text *t)
{
    if (LITERAL(t, "true"))
        return true;
    EXPECT(t, "false");
    return false;
}

/* Of a digit of a lower-case UUID; -1 for other characters. */
static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A quoted UUID; never nil, which is written as null. */
static struct uuid id(struct text *t)
{
    struct uuid u = UUID_NIL;
    const char *p;
    int wrong = 0;

    EXPECT(t, "\"");
    p = t->p;
    if (!p || t->end - p < UUID_TEXT_SIZE - 1) {
        t->p = NULL;
        return u;
    }
    for (size_t i = 0; i < sizeof(u.b); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            wrong |= *p++ != '-';
        int high = digit(p[0]), low = digit(p[1]);
        wrong |= high < 0 || low < 0;
        u.b[i] = (uint8_t)(((unsigned)high << 4) | (unsigned)low);
        p += 2;
    }
    t->p = wrong || uuid_is_nil(&u) ? NULL : p;
    EXPECT(t, "\"");
    return u;
}

static struct uuid id_or_null(struct text *t)
{
    return LITERAL(t, "null") ? UUID_NIL : id(t);
}

/* A quoted text of printable ASCII without escapes; NULL when it is something else. The caller frees it. */
static char *string(struct text *t)
{
    EXPECT(t, "\"");
    if (!t->p)
        return NULL;
    const char *begin = t->p;
    while (t->p < t->end && *t->p >= ' ' && *t->p <= '~' && *t->p != '"' && *t->p != '\\')
        t->p++;
    size_t n = (size_t)(t->p - begin);
    EXPECT(t, "\"");
    return t->p ? xstrndup(begin, n) : NULL;
}

static void metadata(struct text *t, struct metadata *m)
{
    EXPECT(t, "{");
    if (!t->p || LITERAL(t, "}"))
        return;
    m->entries = xcalloc(METADATA_MAX_ENTRIES, sizeof(*m->entries));
    do {
        if (m->n == METADATA_MAX_ENTRIES) {
            t->p = NULL;
            return;
        }
        char *key = string(t);
        EXPECT(t, ":");
        char *value = string(t);
        if (!t->p || metadata_get(m, key)) {
            free(key);
            free(value);
            t->p = NULL;
            return;
        }
        m->entries[m->n++] = (struct metadata_entry){key, value};
    } while (LITERAL(t, ","));
    EXPECT(t, "}");
    m->entries = xrealloc(m->entries, m->n, sizeof(*m->entries));
}

static void holders(struct text *t, struct dataset *d)
{
    EXPECT(t, "[");
    if (!t->p || LITERAL(t, "]"))
        return;
    do {
        struct uuid holder = id(t);
        if (!t->p || d->n_holders == HOLDERS_MAX || dataset_has_holder(d, &holder)) {
            t->p = NULL;
            return;
        }
        dataset_add_holder(d, &holder);
    } while (LITERAL(t, ","));
    EXPECT(t, "]");
}

_Static_assert(RECORD_FORMAT == 1, "another format has other fields");

static void fields(struct text *t, struct dataset *d)
{
    EXPECT(t, "{\"format\":1,\"id\":");
    d->id = id(t);
    EXPECT(t, ",\"revision\":");
    d->revision = number(t);
    EXPECT(t, ",\"primary\":");
    d->primary = id_or_null(t);
    EXPECT(t, ",\"deleted\":");
    d->deleted = boolean(t);
    EXPECT(t, ",\"deleted_us\":");
    d->deleted_us = number(t);
    EXPECT(t, ",\"maximum_size\":");
    d->maximum_size = number(t);
    EXPECT(t, ",\"metadata\":");
    metadata(t, &d->metadata);
    EXPECT(t, ",\"owner\":");
    d->owner = id_or_null(t);
    EXPECT(t, ",\"epoch\":");
    d->epoch = number(t);
    EXPECT(t, ",\"born\":");
    d->born = boolean(t);
    EXPECT(t, ",\"recalled\":");
    d->recalled = boolean(t);
    EXPECT(t, ",\"purge\":");
    d->purge = boolean(t);
    EXPECT(t, ",\"dropped\":");
    d->dropped = boolean(t);
    EXPECT(t, ",\"base\":");
    d->base = LITERAL(t, "null") ? NULL : string(t);
    EXPECT(t, ",\"tombstone\":");
    d->tombstone = number(t);
    EXPECT(t, ",\"number\":");
    d->number = number(t);
    EXPECT(t, ",\"holders\":");
    holders(t, d);
    EXPECT(t, ",\"transfer\":null}");
}

struct dataset *record_dataset_quick(const char *text, size_t n)
{
    struct text t = {text, text + n};
    struct dataset *d = dataset_new(UUID_NIL);

    fields(&t, d);
    return t.p == t.end ? d : dataset_free(d);
}
