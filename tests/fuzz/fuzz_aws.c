/* What AWS answers. The first byte chooses: v a page of volumes, c the answer to CreateVolume, i a page of instances, z zones, e an
 * error, m a change of a volume, x any XML, r keys of a role, p a file of profiles, t a time, u the address of a container's keys. */
#include "fuzz.h"

#include "drivers/aws/keys.h"
#include "drivers/aws/reply.h"
#include "drivers/aws/xml.h"

static void check_volume(const struct aws_volume *v)
{
    RULE(str_has_prefix(v->id, "vol-") && strlen(v->id) < AWS_ID_SIZE && !strpbrk(v->id, "/ .\n"));
    RULE(v->size && v->size % (1u << 30) == 0 && v->size <= 1ull << 50);
    RULE(v->n_attachments <= AWS_ATTACHMENTS_MAX && *aws_volume_status_name(v->status));
    for (size_t i = 0; i < v->n_attachments; i++)
        RULE(v->attachments[i].status != AWS_DETACHED &&
             *aws_attachment_status_name(v->attachments[i].status));
}

/* A second page only adds; one that is refused adds nothing. */
static void volumes(const char *bytes, size_t n)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes v = {0};

    if (fuzz_refused(aws_volumes_parse(bytes, n, &v), ERR_CORRUPT)) {
        RULE(!v.n && !v.next);
        return;
    }
    size_t first = v.n;

    RULE(!v.next || (*v.next && strlen(v.next) <= AWS_PAGE_TOKEN_MAX));
    for (size_t i = 0; i < v.n; i++)
        check_volume(&v.all[i]);
    RULE(!aws_volumes_parse(bytes, n, &v) && v.n == 2 * first);
    RULE(fuzz_refused(aws_volumes_parse(bytes, n / 2, &v), ERR_CORRUPT) && v.n == 2 * first);
}

static void created(const char *bytes, size_t n)
{
    struct aws_volume v;

    if (!fuzz_refused(aws_volume_parse(bytes, n, &v), ERR_CORRUPT))
        check_volume(&v);
}

static void instances(const char *bytes, size_t n)
{
    CLEANUP_AWS_INSTANCES struct aws_instances all = {0};

    if (fuzz_refused(aws_instances_parse(bytes, n, &all), ERR_CORRUPT)) {
        RULE(!all.n);
        return;
    }
    for (size_t i = 0; i < all.n; i++)
        RULE(str_has_prefix(all.all[i].id, "i-"));
}

static void modification(const char *bytes, size_t n)
{
    struct aws_modification m;

    if (fuzz_refused(aws_modification_parse(bytes, n, &m), ERR_CORRUPT))
        return;
    RULE(!m.failed || m.ended);
    RULE(!*m.state ? !m.target_size : m.target_size % (1u << 30) == 0);
    RULE(!strpbrk(m.message, "\r\n"));
}

static void zones(const char *bytes, size_t n)
{
    CLEANUP_FREE char *names = NULL;

    if (!fuzz_refused(aws_zones_parse(bytes, n, &names), ERR_CORRUPT))
        RULE(str_is_utf8(names, strlen(names)));
}

static void failure(const char *bytes, size_t n)
{
    struct aws_failure f = aws_failure_parse(400, bytes, n), g = aws_failure_parse(503, bytes, n);
    CLEANUP_ERR struct err *e = aws_failure_err(&f, "x");

    RULE(*f.code && f.kind < AWS_FAILURE_KIND_MAX && !strpbrk(e->text, "\r\n"));
    RULE(g.kind == f.kind || (f.kind == AWS_FAILED && g.kind == AWS_TROUBLE));
}

static size_t count(const struct xml *x, unsigned depth)
{
    size_t n = 0;

    for (; x; x = x->next) {
        RULE(depth <= XML_DEPTH_MAX && *x->name && x->text && !strchr(x->name, ':'));
        n += 1 + count(x->first, depth + 1);
    }
    return n;
}

static void xml(const char *bytes, size_t n)
{
    CLEANUP_XML struct xml *root = NULL;

    if (!fuzz_refused(xml_parse(bytes, n, &root), ERR_CORRUPT))
        RULE(count(root, 1) <= XML_NODES_MAX && !root->next);
}

static void check_keys(const struct aws_keys *k)
{
    RULE(*k->id && *k->secret && (!k->token || *k->token));
    RULE(!strpbrk(k->id, " \r\n") && !strpbrk(k->secret, " \r\n") &&
         (!k->token || !strpbrk(k->token, " \r\n")));
}

static void role(const char *bytes, size_t n)
{
    CLEANUP_AWS_KEYS struct aws_keys k = {0};

    if (!fuzz_refused(aws_keys_parse(bytes, n, &k), ERR_CORRUPT))
        check_keys(&k);
}

static void profiles(const char *text)
{
    CLEANUP_AWS_KEYS struct aws_keys k = {0};
    CLEANUP_ERR struct err *e = aws_keys_of_profile(text, "default", &k);

    RULE(!e || (*e->text && (e->code == ERR_INVALID || e->code == ERR_NOT_FOUND)));
    if (!e)
        check_keys(&k);
}

static void when(const char *text)
{
    uint64_t us;

    if (aws_time_parse(text, &us))
        RULE(us % 1000000 == 0 && strlen(text) >= 20);
}

static void address(const char *text)
{
    if (aws_container_url_is_safe(text))
        RULE(str_has_prefix(text, "http") && !strpbrk(text, "@\\ \r\n"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_choice choices[] = {
        {'v', .bytes = volumes}, {'c', .bytes = created},      {'i', .bytes = instances},
        {'z', .bytes = zones},   {'e', .bytes = failure},      {'x', .bytes = xml},
        {'r', .bytes = role},    {'p', .text = profiles},      {'t', .text = when},
        {'u', .text = address},  {'m', .bytes = modification},
    };

    return fuzz_choose(choices, ARRAY_SIZE(choices), data, size);
}
