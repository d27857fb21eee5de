/* Two nodes, A and B, in one process: storage, certificates and movers, over loopback, for one dataset. Does what standard input
 * says, a command a line, and answers each with a line: "ok ..." or "error ...".
 *
 *   pair BACKEND POOL_A POOL_B DIRECTORY [BYTES_PER_SECOND]
 *
 *   volume             the dataset is on A, and mounted: "ok PLACE"
 *   snapshot NAME      of A's volume
 *   send NAME          from A to B: "ok SECONDS BYTES SKIPPED", BYTES of the stream that were sent and SKIPPED that B had
 *   keep a|b NAME      deletes that node's other snapshots
 *   list a|b           the names of that node's snapshots
 *   point              from where B can continue an interrupted stream: "ok", or "ok NAME OFFSET", or "ok NAME token"
 *   drop b             B forgets the dataset
 *   promote NAME       B's snapshot becomes its volume, and is mounted: "ok PLACE"
 *
 * POOL is as in agent.yml. What is in DIRECTORY is made anew each time. */
#include "base/now.h"
#include "base/str.h"
#include "certs.h"
#include "drivers/storage.h"
#include "mover/mover.h"
#include "net/tls.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#define DATASET "dddddddd-0000-4000-8000-000000000001"
#define EPOCH 1
#define NEXT_EPOCH 2

struct side {
    struct uuid node;
    char *mounts;
    struct tls *tls;
    SSL_CTX *server, *client;
    struct storage *storage;
    struct mover *mover;
};

static struct side a, b;
static struct uuid dataset;

/* ---- set up ---- */

static void on_received(void *cookie, const struct uuid *id, uint64_t transfer, const char *snapshot)
{
    (void)cookie, (void)id, (void)transfer, (void)snapshot;
}

static struct err *make_dir(const char *path)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_errno(errno, "cannot make %s", path);
    return NULL;
}

static struct err *open_storage(struct side *s, const char *backend, const char *pool, const char *dir)
{
    CLEANUP_FREE char *state = xasprintf("%s/state", dir);
    json_t *options = json_pack("{ss ss}", "backend", backend, "pool", pool);
    struct storage_config config = {.dataset = options, .mount_root = s->mounts, .state_dir = state, .node = s->node};
    struct err *e = make_dir(dir);

    if (!e)
        e = make_dir(state);
    if (!e)
        e = make_dir(s->mounts);
    if (!e)
        e = storage_open(&config, &s->storage);
    json_decref(options);
    return e;
}

static struct err *load_tls(struct side *s, const char *certificates, const char *name)
{
    CLEANUP_FREE char *ca = xasprintf("%s/ca.crt", certificates), *crt = xasprintf("%s/%s.crt", certificates, name),
                      *key = xasprintf("%s/%s.key", certificates, name), *warning = NULL;

    TRY(tls_load(ca, crt, key, &warning, &s->tls));
    TRY(tls_server_context(s->tls, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_KTLS, &s->server));
    return tls_client_context(s->tls, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_KTLS, &s->client);
}

static struct err *open_side(struct side *s, const char *backend, const char *pool, const char *directory, const char *name,
                             uint64_t limit)
{
    CLEANUP_FREE char *dir = xasprintf("%s/%s", directory, name);

    s->mounts = xasprintf("%s/mounts", dir);
    TRY(open_storage(s, backend, pool, dir));
    TRY(load_tls(s, directory, name));
    return mover_start(&(struct mover_config){.storage = s->storage,
                                              .server = s->server,
                                              .client = s->client,
                                              .node = s->node,
                                              .address = "127.0.0.1",
                                              .bandwidth_limit = limit,
                                              .received = on_received},
                       &s->mover);
}

static void close_side(struct side *s)
{
    s->mover = mover_stop(s->mover);
    s->storage = storage_close(s->storage);
    SSL_CTX_free(s->server);
    SSL_CTX_free(s->client);
    s->tls = tls_free(s->tls);
    free(s->mounts);
}

static void make_certificates(const char *directory)
{
    struct certs_ca ca;

    certs_ca_new(&ca, CLUSTER_A);
    certs_ca_write(&ca, directory, "ca");
    certs_make(&ca, directory, "a", "node-" NODE_1, NULL, 0);
    certs_make(&ca, directory, "b", "node-" NODE_2, NULL, 0);
    certs_ca_free(&ca);
}

static struct err *open_both(const char *backend, const char *pool_a, const char *pool_b, const char *directory,
                             uint64_t limit)
{
    (void)uuid_parse(NODE_1, &a.node);
    (void)uuid_parse(NODE_2, &b.node);
    (void)uuid_parse(DATASET, &dataset);
    TRY(make_dir(directory));
    make_certificates(directory);
    TRY(open_side(&a, backend, pool_a, directory, "a", limit));
    return open_side(&b, backend, pool_b, directory, "b", /* limit= */ 0);
}

/* ---- commands: each says what stands behind "ok" ---- */

static struct side *side_named(const char *name)
{
    return streq(name, "a") ? &a : &b;
}

static void say_place(const struct side *s, struct str *out)
{
    str_appendf(out, " %s/%s", s->mounts, UUID_STR(&dataset));
}

static struct err *do_volume(struct str *out)
{
    TRY(storage_create(a.storage, &dataset, 0, NULL, EPOCH));
    TRY(storage_mount(a.storage, &dataset, EPOCH));
    say_place(&a, out);
    return NULL;
}

/* Each snapshot is a transfer of its own, as it is announced anew. */
static struct err *do_send(const char *name, struct str *out)
{
    static uint64_t transfer;
    struct mover_progress progress = {0};
    struct mover_send send = {.dataset = dataset,
                              .transfer = ++transfer,
                              .snapshot = name,
                              .peer = b.node,
                              .peer_host = "127.0.0.1",
                              .peer_port = mover_port(b.mover)};
    uint64_t begun = now_os().mono_us;

    mover_announce(b.mover, &dataset, transfer, &a.node);
    struct err *e = mover_send_sync(a.mover, &send, &progress);

    mover_forbid_sync(b.mover, &dataset, transfer);
    TRY(e);
    str_appendf(out, " %.3f %llu %llu", (double)(now_os().mono_us - begun) / USEC_PER_SEC, (unsigned long long)progress.bytes,
                (unsigned long long)progress.skipped);
    return NULL;
}

static struct err *do_list(struct side *s, struct str *out)
{
    struct volume_state v = {0};

    TRY(storage_observe(s->storage, &dataset, &v));
    for (size_t i = 0; i < v.n_snapshots; i++)
        str_appendf(out, " %s", v.snapshots[i]);
    volume_state_done(&v);
    return NULL;
}

static struct err *do_point(struct str *out)
{
    struct stream_point p = {0};

    TRY(storage_stream_point(b.storage, &dataset, &p));
    if (p.snapshot && p.token)
        str_appendf(out, " %s token", p.snapshot);
    else if (p.snapshot)
        str_appendf(out, " %s %llu", p.snapshot, (unsigned long long)p.offset);
    stream_point_done(&p);
    return NULL;
}

static struct err *do_promote(const char *name, struct str *out)
{
    TRY(storage_promote(b.storage, &dataset, name, 0, NEXT_EPOCH));
    TRY(storage_mount(b.storage, &dataset, NEXT_EPOCH));
    say_place(&b, out);
    return NULL;
}

static struct err *command(const char *verb, const char *first, const char *second, struct str *out)
{
    if (streq(verb, "volume"))
        return do_volume(out);
    if (streq(verb, "snapshot"))
        return storage_snapshot(a.storage, &dataset, first);
    if (streq(verb, "send"))
        return do_send(first, out);
    if (streq(verb, "keep"))
        return storage_prune(side_named(first)->storage, &dataset, second, NULL);
    if (streq(verb, "list"))
        return do_list(side_named(first), out);
    if (streq(verb, "point"))
        return do_point(out);
    if (streq(verb, "drop"))
        return storage_drop(b.storage, &dataset);
    if (streq(verb, "promote"))
        return do_promote(first, out);
    return err_new(ERR_INVALID, "there is no command %s", verb);
}

static void serve(void)
{
    char line[256], verb[16], first[64], second[64];

    while (fgets(line, sizeof(line), stdin)) {
        CLEANUP_STR struct str out = {0};

        verb[0] = first[0] = second[0] = '\0';
        (void)sscanf(line, "%15s %63s %63s", verb, first, second);
        CLEANUP_ERR struct err *e = command(verb, first, second, &out);

        if (e)
            (void)printf("error %s: %s\n", err_code_name(e->code), e->text);
        else
            (void)printf("ok%s\n", out.data ? out.data : "");
        (void)fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5 && argc != 6) {
        (void)fprintf(stderr, "usage: pair BACKEND POOL_A POOL_B DIRECTORY [BYTES_PER_SECOND]\n");
        return 2;
    }
    CLEANUP_ERR struct err *e = open_both(argv[1], argv[2], argv[3], argv[4], argc == 6 ? strtoull(argv[5], NULL, 10) : 0);

    if (e)
        (void)fprintf(stderr, "pair: %s\n", e->text);
    else
        serve();
    close_side(&a);
    close_side(&b);
    return e ? 1 : 0;
}
