#include "measure.h"

#include "base/str.h"
#include "net/tls.h"

#include <time.h>

uint64_t measure_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

void latencies_add(struct latencies *l, uint64_t ns)
{
    l->ns = mem_grow(l->ns, l->n, &l->cap, sizeof(*l->ns));
    l->ns[l->n++] = ns;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

double latencies_ms(struct latencies *l, double share)
{
    if (!l->n)
        return 0;
    qsort(l->ns, l->n, sizeof(*l->ns), compare);
    return (double)l->ns[(size_t)((double)(l->n - 1) * share)] / 1e6;
}

void latencies_print(struct latencies *l, const char *name, FILE *to)
{
    static const struct {
        const char *name;
        double share;
    } columns[] = {{"p50", 0.5}, {"p99", 0.99}, {"max", 1}};

    for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
        fprintf(to, "%s\"%s%s%s_ms\":%.4f", i ? "," : "", name, *name ? "_" : "", columns[i].name,
                latencies_ms(l, columns[i].share));
}

void latencies_done(struct latencies *l)
{
    free(l->ns);
    *l = (struct latencies){0};
}

/* Two rounds of splitmix64. */
static uint64_t scatter(uint64_t n)
{
    uint64_t x = (n + 1) * 0x9e3779b97f4a7c15;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static struct uuid made_up(uint64_t n)
{
    uint64_t words[2] = {scatter(n), scatter(~n)};
    struct uuid id;

    memcpy(id.b, words, sizeof(id.b));
    id.b[6] = (uint8_t)((id.b[6] & 0x0f) | 0x40);
    id.b[8] = (uint8_t)((id.b[8] & 0x3f) | 0x80);
    return id;
}

struct uuid measure_node(uint64_t n)
{
    return made_up((1ull << 62) + n);
}

struct uuid measure_dataset(uint64_t n)
{
    return made_up(n);
}

int measure_main(const struct cli_spec *spec, void *options, int argc, char **argv,
                 struct err *(*run)(void *options, const char *operand))
{
    int first;

    switch (cli_parse(spec, options, argc, argv, &first)) {
    case CLI_EXIT_OK:
        return 0;
    case CLI_EXIT_ERROR:
        return 1;
    case CLI_GO_ON:
        break;
    }
    struct err *e = run(options, first == argc - 1 ? argv[first] : NULL);
    return e ? cli_fail(e) : 0;
}

static struct err *load(const char *certificates, const char *name, struct tls **ret)
{
    CLEANUP_FREE char *ca = xasprintf("%s/cluster.crt", certificates);
    CLEANUP_FREE char *certificate = xasprintf("%s/%s.crt", certificates, name);
    CLEANUP_FREE char *key = xasprintf("%s/%s.key", certificates, name);
    CLEANUP_FREE char *warning = NULL;

    return tls_load(ca, certificate, key, &warning, ret);
}

struct err *measure_server(const char *certificates, SSL_CTX **ret_ctx)
{
    struct tls *tls;

    TRY(load(certificates, "control-service", &tls));
    struct err *e = tls_server_context(tls, TLS_KIND_USER, TLS_EOF_OK | TLS_ALPN_HTTP1, ret_ctx);
    tls_free(tls);
    return e;
}

struct err *measure_client(const char *certificates, const char *name, unsigned tls_flags, SSL_CTX **ret_ctx)
{
    struct tls *tls;

    TRY(load(certificates, name, &tls));
    struct err *e = tls_client_context(tls, TLS_KIND_CONTROL_SERVICE, tls_flags, ret_ctx);
    tls_free(tls);
    return e;
}
