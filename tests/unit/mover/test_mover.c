/* Two movers with their own storage, certificates and pools, over loopback. Argument: the storage
 * backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/now.h"
#include "base/random.h"
#include "base/str.h"
#include "certs.h"
#include "cut_proxy.h"
#include "drivers/storage.h"
#include "mover/mover.h"
#include "mover/mover_conn.h"
#include "net/tls.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define SKIP 77
#define NODE_3 "aaaaaaaa-0000-4000-8000-000000000003"
#define MIB (1024u * 1024)

struct side {
    struct uuid node;
    char dir[128];
    struct tls *tls;
    SSL_CTX *server, *client;
    struct storage *storage;
    struct mover *mover;
    atomic_int received; /* calls of the callback */
};

static const char *backend, *top; /* "fake" or "btrfs"; the test's folder */
static struct side a, b;
static struct cut_proxy *proxy; /* to b */
static struct random rnd;
static uint64_t seed = 42;

#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        struct err *ok_e_ = (expr);                                                                \
        if (ok_e_)                                                                                 \
            fail_msg("%s: %s: %s", #expr, err_code_name(ok_e_->code), ok_e_->text);                \
    } while (0)

static void check_err(struct err *e, enum err_code code, const char *word, int line)
{
    if (!e)
        fail_msg("line %d succeeded", line);
    else if (e->code != code || !strstr(e->text, word))
        fail_msg("line %d: %s: %s", line, err_code_name(e->code), e->text);
    (void)err_free(e);
}
#define assert_err(expr, code, word) check_err((expr), (code), (word), __LINE__)

static void sleep_ms(unsigned ms)
{
    (void)nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

/* ---- the two sides ---- */

static void on_received(void *cookie, const struct uuid *dataset, uint64_t transfer,
                        const char *snapshot)
{
    struct side *s = cookie;

    atomic_fetch_add(&s->received, 1);
}

static void open_storage(struct side *s, const char *sub, uint64_t pool_size)
{
    CLEANUP_FREE char *state = xasprintf("%s/%s-state", s->dir, sub);
    CLEANUP_FREE char *mounts = xasprintf("%s/%s-mounts", s->dir, sub);
    CLEANUP_FREE char *path = xasprintf("%s/%s-pool", s->dir, sub);
    json_t *options = streq(backend, "fake")
                          ? json_pack("{ss ss}", "backend", "fake", "root_path", path)
                          : json_pack("{ss ss sI}", "backend", "btrfs", "pool", path, "pool_size",
                                      (json_int_t)pool_size);
    struct storage_config config = {.dataset = options,
                                    .mount_root = mounts,
                                    .state_dir = state,
                                    .node = s->node,
                                    .cluster = UUID_NIL};

    assert_int_equal(mkdir(state, 0700), 0);
    assert_int_equal(mkdir(mounts, 0755), 0);
    assert_ok(storage_open(&config, &s->storage));
    json_decref(options);
}

static void start_mover(struct side *s)
{
    struct mover_config config = {.storage = s->storage,
                                  .server = s->server,
                                  .client = s->client,
                                  .node = s->node,
                                  .address = "127.0.0.1",
                                  .received = on_received,
                                  .cookie = s};

    assert_ok(mover_start(&config, &s->mover));
}

static void load_tls(struct side *s, const char *name)
{
    CLEANUP_FREE char *ca = xasprintf("%s/ca.crt", top), *crt = xasprintf("%s/%s.crt", top, name),
                      *key = xasprintf("%s/%s.key", top, name);
    char *warning = NULL;

    assert_ok(tls_load(ca, crt, key, &warning, &s->tls));
    free(warning);
    assert_ok(tls_server_context(s->tls, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_KTLS, &s->server));
    assert_ok(tls_client_context(s->tls, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_KTLS, &s->client));
}

static void side_open(struct side *s, const char *name, const char *node)
{
    assert_true(uuid_parse(node, &s->node));
    (void)snprintf(s->dir, sizeof(s->dir), "%s/%s", top, name);
    assert_int_equal(mkdir(s->dir, 0700), 0);
    load_tls(s, name);
    open_storage(s, "main", 600ull * MIB);
    start_mover(s);
}

static void side_close(struct side *s)
{
    s->mover = mover_stop(s->mover);
    s->storage = storage_close(s->storage);
    SSL_CTX_free(s->server);
    SSL_CTX_free(s->client);
    s->tls = tls_free(s->tls);
}

static int group_setup(void **state)
{
    struct certs_ca ca;

    rnd = random_seeded(&seed);
    certs_ca_new(&ca, CLUSTER_A);
    certs_ca_write(&ca, top, "ca");
    certs_make(&ca, top, "a", "node-" NODE_1, NULL, 0);
    certs_make(&ca, top, "b", "node-" NODE_2, NULL, 0);
    certs_make(&ca, top, "user", "user-eve", NULL, CERTS_CLIENT_AUTH);
    certs_ca_free(&ca);
    side_open(&a, "a", NODE_1);
    side_open(&b, "b", NODE_2);
    proxy = cut_proxy_start(mover_port(b.mover));
    return 0;
}

static int group_teardown(void **state)
{
    proxy = cut_proxy_stop(proxy);
    side_close(&a);
    side_close(&b);
    return 0;
}

/* ---- data ---- */

static char *mount_path(const struct side *s, const struct uuid *dataset)
{
    return xasprintf("%s/main-mounts/%s", s->dir, UUID_STR(dataset));
}

/* `n` files of `size` random bytes; an existing one is overwritten. */
static void write_files(const char *dir, const char *prefix, unsigned n, size_t size)
{
    CLEANUP_FREE uint64_t *buf = xmalloc(size + 8);

    for (unsigned i = 0; i < n; i++) {
        CLEANUP_FREE char *path = xasprintf("%s/%s-%u", dir, prefix, i);
        CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

        for (size_t k = 0; k <= size / 8; k++)
            buf[k] = random_next(&rnd);
        if (fd < 0 || write(fd, buf, size) != (ssize_t)size)
            fail_msg("%s: %s", path, strerror(errno));
    }
}

static XXH3_state_t *digest_state;

static int digest_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char buf[65536];

    (void)XXH3_64bits_update(digest_state, path + ftw->base, strlen(path + ftw->base));
    (void)XXH3_64bits_update(digest_state, &st->st_mode, sizeof(st->st_mode));
    if (type == FTW_F) {
        CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        while ((n = read(fd, buf, sizeof(buf))) > 0)
            (void)XXH3_64bits_update(digest_state, buf, (size_t)n);
    }
    return 0;
}

static int by_name(const struct dirent **x, const struct dirent **y)
{
    return strcmp((*x)->d_name, (*y)->d_name);
}

/* Of names, modes and contents of a flat folder. */
static uint64_t digest(const char *dir)
{
    struct dirent **entries;
    int n = scandir(dir, &entries, NULL, by_name);

    assert_true(n > 2);
    digest_state = XXH3_createState();
    (void)XXH3_64bits_reset(digest_state);
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') {
            CLEANUP_FREE char *path = xasprintf("%s/%s", dir, entries[i]->d_name);
            struct stat st;
            struct FTW ftw = {.base = (int)(strlen(path) - strlen(entries[i]->d_name))};

            assert_int_equal(lstat(path, &st), 0);
            (void)digest_one(path, &st, S_ISREG(st.st_mode) ? FTW_F : FTW_D, &ftw);
        }
        free(entries[i]);
    }
    free(entries);
    uint64_t sum = XXH3_64bits_digest(digest_state);
    XXH3_freeState(digest_state);
    return sum;
}

/* A new dataset on `a`, mounted, with data. */
static struct uuid new_dataset(unsigned n, size_t size)
{
    struct uuid id = uuid_random_v4(&rnd);
    struct metadata none = {0};
    CLEANUP_FREE char *path = mount_path(&a, &id);

    assert_ok(storage_create(a.storage, &id, 0, &none, 1));
    assert_ok(storage_mount(a.storage, &id, 1));
    write_files(path, "file", n, size);
    return id;
}

static void drop_dataset(const struct uuid *id)
{
    assert_ok(storage_destroy(a.storage, id));
    assert_ok(storage_destroy(b.storage, id));
}

static bool has_snapshot(struct side *s, const struct uuid *id, const char *name)
{
    struct volume_state v = {0};

    assert_ok(storage_observe(s->storage, id, &v));
    bool has = volume_state_has_snapshot(&v, name);
    volume_state_done(&v);
    return has;
}

static struct err *send_via(uint16_t port, const struct uuid *id, uint64_t transfer,
                            const char *snapshot, struct mover_progress *progress)
{
    struct mover_send send = {.dataset = *id,
                              .transfer = transfer,
                              .snapshot = snapshot,
                              .peer = b.node,
                              .peer_host = "127.0.0.1",
                              .peer_port = port};

    return mover_send_sync(a.mover, &send, progress);
}

static struct err *send_direct(const struct uuid *id, uint64_t transfer, const char *snapshot,
                               struct mover_progress *progress)
{
    return send_via(mover_port(b.mover), id, transfer, snapshot, progress);
}

/* The digest of what `b` gets when it promotes the snapshot. */
static uint64_t promoted_digest(const struct uuid *id, const char *snapshot, uint64_t epoch)
{
    CLEANUP_FREE char *path = mount_path(&b, id);

    assert_ok(storage_promote(b.storage, id, snapshot, 0, epoch));
    assert_ok(storage_mount(b.storage, id, epoch));
    uint64_t sum = digest(path);
    assert_ok(storage_unmount(b.storage, id));
    return sum;
}

/* A send on a thread of its own. */
struct sender {
    struct uuid id;
    uint64_t transfer;
    const char *snapshot;
    uint16_t port;
    struct mover_progress progress;
    struct err *err;
    pthread_t thread;
    uint64_t ended_us;
};

static void *sender_main(void *cookie)
{
    struct sender *s = cookie;

    s->err = send_via(s->port, &s->id, s->transfer, s->snapshot, &s->progress);
    s->ended_us = now_os().mono_us;
    return NULL;
}

/* Starts it through the slow proxy and returns when data flow. */
static void sender_start_slow(struct sender *s, const struct uuid *id, uint64_t transfer)
{
    *s = (struct sender){
        .id = *id, .transfer = transfer, .snapshot = "s1", .port = cut_proxy_port(proxy)};
    cut_proxy_set(proxy, UINT64_MAX, 20000); /* 0.8 MB a second */
    assert_int_equal(pthread_create(&s->thread, NULL, sender_main, s), 0);
    for (int i = 0; i < 1000 && __atomic_load_n(&s->progress.bytes, __ATOMIC_RELAXED) == 0; i++)
        sleep_ms(10);
    assert_true(__atomic_load_n(&s->progress.bytes, __ATOMIC_RELAXED) > 0);
}

static void sender_join(struct sender *s)
{
    assert_int_equal(pthread_join(s->thread, NULL), 0);
    cut_proxy_set(proxy, UINT64_MAX, 0);
}

/* ---- tests ---- */

static void test_full_and_increments(void **state)
{
    struct uuid id = new_dataset(8, MIB);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    struct mover_progress first = {0}, second = {0}, none = {0};
    int before = atomic_load(&b.received);

    mover_announce(b.mover, &id, 5, &a.node);
    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    uint64_t sum1 = digest(path);
    assert_ok(send_direct(&id, 5, "s1", &first));
    assert_true(has_snapshot(&b, &id, "s1"));
    assert_int_equal(atomic_load(&b.received), before + 1);
    assert_true(first.bytes > 8 * MIB);

    write_files(path, "more", 1, MIB);
    assert_ok(storage_snapshot(a.storage, &id, "s2"));
    uint64_t sum2 = digest(path);
    assert_int_not_equal(sum1, sum2);
    assert_ok(send_direct(&id, 5, "s2", &second));
    assert_true(has_snapshot(&b, &id, "s2"));
    assert_int_equal(atomic_load(&b.received), before + 2);
    if (streq(backend, "btrfs"))
        assert_true(second.bytes < 2 * MIB); /* an increment */

    assert_ok(send_direct(&id, 5, "s2", &none)); /* there already */
    assert_int_equal(none.bytes, 0);
    assert_err(send_direct(&id, 5, "s3", NULL), ERR_NOT_FOUND, "s3");
    assert_err(send_direct(&id, 5, "../s1", NULL), ERR_INVALID, "name");

    /* The increment still finds its base when only the first is left at the destination. */
    assert_ok(storage_prune(b.storage, &id, "s1"));
    assert_false(has_snapshot(&b, &id, "s2"));
    struct mover_progress again = {0};
    assert_ok(send_direct(&id, 5, "s2", &again));
    if (streq(backend, "btrfs"))
        assert_true(again.bytes > 0 && again.bytes < 2 * MIB);
    assert_int_equal(promoted_digest(&id, "s2", 9), sum2);
    mover_forbid_sync(b.mover, &id, 5);
    assert_err(send_direct(&id, 5, "s2", NULL), ERR_DENIED, "not expected");
    drop_dataset(&id);
}

/* There and back: what b made of it goes to a as an increment on the common snapshot. */
static void test_way_back(void **state)
{
    struct uuid id = new_dataset(4, MIB);
    CLEANUP_FREE char *at_b = mount_path(&b, &id), *at_a = mount_path(&a, &id);
    struct mover_progress back = {0};

    mover_announce(b.mover, &id, 5, &a.node);
    assert_ok(storage_release(a.storage, &id, 1, 5, "s1"));
    assert_ok(send_direct(&id, 5, "s1", NULL));
    mover_forbid_sync(b.mover, &id, 5);
    assert_ok(storage_promote(b.storage, &id, "s1", 0, 6));
    assert_ok(storage_mount(b.storage, &id, 6));
    write_files(at_b, "at-b", 1, MIB);
    uint64_t sum = digest(at_b);
    assert_ok(storage_release(b.storage, &id, 6, 7, "s2"));
    mover_announce(a.mover, &id, 7, &b.node);
    struct mover_send send = {.dataset = id,
                              .transfer = 7,
                              .snapshot = "s2",
                              .peer = a.node,
                              .peer_host = "127.0.0.1",
                              .peer_port = mover_port(a.mover)};
    assert_ok(mover_send_sync(b.mover, &send, &back));
    if (streq(backend, "btrfs"))
        assert_true(back.bytes < 2 * MIB);
    mover_forbid_sync(a.mover, &id, 7);
    assert_ok(storage_promote(a.storage, &id, "s2", 0, 8));
    assert_ok(storage_mount(a.storage, &id, 8));
    assert_int_equal(digest(at_a), sum);
    drop_dataset(&id);
}

static void test_refused(void **state)
{
    struct uuid id = new_dataset(1, 1000), stranger, other = id;

    assert_true(uuid_parse(NODE_3, &stranger));
    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    assert_err(send_direct(&id, 5, "s1", NULL), ERR_DENIED, "not expected");
    mover_announce(b.mover, &id, 5, &stranger);
    assert_err(send_direct(&id, 5, "s1", NULL), ERR_DENIED, "from node " NODE_3);
    mover_announce(b.mover, &id, 5, &a.node); /* replaces the source */
    assert_err(send_direct(&id, 6, "s1", NULL), ERR_DENIED, "transfer 6");
    other.b[0] ^= 1;
    mover_announce(b.mover, &other, 7, &a.node);
    assert_err(send_direct(&id, 7, "s1", NULL), ERR_DENIED, "transfer 7");
    assert_false(has_snapshot(&b, &id, "s1"));
    /* Whoever answers must be the node that was meant. */
    struct mover_send send = {.dataset = id,
                              .transfer = 5,
                              .snapshot = "s1",
                              .peer = stranger,
                              .peer_host = "127.0.0.1",
                              .peer_port = mover_port(b.mover)};
    assert_err(mover_send_sync(a.mover, &send, NULL), ERR_DENIED, NODE_2);
    /* Nobody there. */
    CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof(at);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0); /* bound, not listening */
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    assert_err(send_via(ntohs(at.sin_port), &id, 5, "s1", NULL), ERR_UNAVAILABLE, "refused");
    assert_ok(send_direct(&id, 5, "s1", NULL));
    drop_dataset(&id);
}

/* A snapshot of the same name and other content is never taken for the wanted one. */
static void test_other_snapshot(void **state)
{
    struct uuid id = new_dataset(1, 1000);
    struct metadata none = {0};
    CLEANUP_FREE char *path = mount_path(&b, &id);

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    assert_ok(storage_create(b.storage, &id, 0, &none, 1));
    assert_ok(storage_mount(b.storage, &id, 1));
    write_files(path, "foreign", 1, 1000);
    assert_ok(storage_snapshot(b.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    assert_err(send_direct(&id, 5, "s1", NULL), ERR_CONFLICT, "another snapshot s1");
    /* Nor as a base: s2 goes whole, though both have an s1. */
    struct mover_progress p = {0};
    CLEANUP_FREE char *at_a = mount_path(&a, &id);
    write_files(at_a, "big", 4, MIB);
    assert_ok(storage_snapshot(a.storage, &id, "s2"));
    uint64_t sum = digest(at_a);
    assert_ok(storage_snapshot(a.storage, &id, "s3"));
    assert_ok(storage_prune(a.storage, &id, "s3"));
    assert_ok(send_direct(&id, 5, "s3", &p));
    assert_true(p.bytes > 4 * MIB);
    assert_ok(storage_unmount(b.storage, &id));
    assert_int_equal(promoted_digest(&id, "s3", 9), sum);
    drop_dataset(&id);
}

/* Cut at random bytes; each time nothing wrong is listed, and a repetition without the cut
 * succeeds. */
static void test_cuts(void **state)
{
    struct uuid id = new_dataset(3, MIB);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    uint64_t sum = digest(path), whole;
    int n_cut = 0;

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    assert_ok(send_via(cut_proxy_port(proxy), &id, 5, "s1", NULL));
    whole = cut_proxy_carried(proxy);
    assert_true(whole > 3 * MIB);
    assert_ok(storage_destroy(b.storage, &id));
    for (int i = 0; i < 24; i++) {
        /* Beginning, anywhere, and the last bytes, in which END and ACK are. */
        uint64_t at = i % 3 == 0   ? random_below(&rnd, 6000)
                      : i % 3 == 1 ? random_below(&rnd, whole)
                                   : whole - random_below(&rnd, 400);
        CLEANUP_ERR struct err *e = NULL;

        cut_proxy_set(proxy, at, 0);
        e = send_via(cut_proxy_port(proxy), &id, 5, "s1", NULL);
        cut_proxy_set(proxy, UINT64_MAX, 0);
        if (e && e->code != ERR_UNAVAILABLE)
            fail_msg("cut at %llu of %llu: %s: %s", (unsigned long long)at,
                     (unsigned long long)whole, err_code_name(e->code), e->text);
        /* What was confirmed is there, and what is listed is complete, whatever the sender knows. */
        mover_forbid_sync(b.mover, &id, 5); /* its thread may be at work still */
        mover_announce(b.mover, &id, 5, &a.node);
        bool there = has_snapshot(&b, &id, "s1");
        assert_true(e || there);
        n_cut += e != NULL;
        if (there) {
            assert_int_equal(promoted_digest(&id, "s1", 9), sum);
            assert_ok(storage_destroy(b.storage, &id));
        }
        if (i % 6 == 5) {
            assert_ok(send_direct(&id, 5, "s1", NULL));
            assert_int_equal(promoted_digest(&id, "s1", 9), sum);
            assert_ok(storage_destroy(b.storage, &id));
        }
    }
    assert_true(n_cut >= 12); /* the proxy does cut */
    assert_ok(send_direct(&id, 5, "s1", NULL));
    assert_int_equal(promoted_digest(&id, "s1", 9), sum);
    mover_forbid_sync(b.mover, &id, 5);
    drop_dataset(&id);
}

static void test_cancel(void **state)
{
    struct uuid id = new_dataset(6, MIB);
    struct sender s;

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    sender_start_slow(&s, &id, 5);
    uint64_t began = now_os().mono_us;
    atomic_store(&s.progress.cancel, true);
    sender_join(&s);
    assert_true(s.ended_us - began < USEC_PER_SEC);
    assert_err(s.err, ERR_CANCELLED, "cancelled");
    assert_false(has_snapshot(&b, &id, "s1"));
    assert_ok(send_direct(&id, 5, "s1", NULL));
    drop_dataset(&id);
}

static void test_forbid_running(void **state)
{
    struct uuid id = new_dataset(6, MIB);
    struct sender s;

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    sender_start_slow(&s, &id, 5);
    uint64_t began = now_os().mono_us;
    mover_forbid_sync(b.mover, &id, 5);
    assert_true(now_os().mono_us - began < USEC_PER_SEC);
    /* No thread works on it: it can be destroyed at once. */
    assert_false(has_snapshot(&b, &id, "s1"));
    assert_ok(storage_destroy(b.storage, &id));
    sender_join(&s);
    assert_err(s.err, ERR_DENIED, "not expected any more");
    assert_ok(storage_destroy(b.storage, &id));
    drop_dataset(&id);
}

static void test_newer_connection(void **state)
{
    struct uuid id = new_dataset(6, MIB);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    struct sender s;

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    sender_start_slow(&s, &id, 5);
    assert_ok(send_direct(&id, 5, "s1", NULL)); /* takes over */
    sender_join(&s);
    assert_err(s.err, ERR_CONFLICT, "took over");
    assert_int_equal(promoted_digest(&id, "s1", 9), digest(path));
    drop_dataset(&id);
}

static void test_stop_receiver(void **state)
{
    struct uuid id = new_dataset(6, MIB);
    struct sender s;

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    sender_start_slow(&s, &id, 5);
    uint64_t began = now_os().mono_us;
    b.mover = mover_stop(b.mover);
    assert_true(now_os().mono_us - began < 2 * USEC_PER_SEC);
    sender_join(&s);
    assert_err(s.err, ERR_UNAVAILABLE, "stopping");
    assert_false(has_snapshot(&b, &id, "s1"));
    start_mover(&b);
    proxy = cut_proxy_stop(proxy);
    proxy = cut_proxy_start(mover_port(b.mover));
    assert_err(send_direct(&id, 5, "s1", NULL), ERR_DENIED,
               "not expected"); /* a new one knows of nothing */
    mover_announce(b.mover, &id, 5, &a.node);
    assert_ok(send_direct(&id, 5, "s1", NULL));
    drop_dataset(&id);
}

static void test_stop_sender(void **state)
{
    struct uuid id = new_dataset(6, MIB);
    struct sender s;

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    sender_start_slow(&s, &id, 5);
    uint64_t began = now_os().mono_us;
    a.mover = mover_stop(a.mover);
    assert_true(now_os().mono_us - began < USEC_PER_SEC);
    sender_join(&s);
    assert_err(s.err, ERR_CANCELLED, "stopping");
    start_mover(&a);
    assert_ok(send_direct(&id, 5, "s1", NULL));
    drop_dataset(&id);
}

/* The sender learns the receiver's true reason. */
static void test_receiver_full(void **state)
{
    struct uuid id = new_dataset(40, 4 * MIB);
    struct storage *roomy = b.storage;
    CLEANUP_FREE char *small = xasprintf("%s/small-pool", b.dir);

    if (streq(backend, "fake")) {
        assert_int_equal(mkdir(small, 0700), 0);
        assert_int_equal(mount("tmpfs", small, "tmpfs", 0, "size=20m"), 0);
    }
    b.mover = mover_stop(b.mover);
    open_storage(&b, "small", 128 * MIB);
    start_mover(&b);
    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    struct err *e = send_direct(&id, 5, "s1", NULL);
    bool has = has_snapshot(&b, &id, "s1");
    b.mover = mover_stop(b.mover);
    b.storage = storage_close(b.storage);
    b.storage = roomy;
    start_mover(&b);
    proxy = cut_proxy_stop(proxy);
    proxy = cut_proxy_start(mover_port(b.mover));
    assert_false(has);
    /* The code is the driver's; the reason must come through in words: where, and what. */
    assert_non_null(e);
    assert_true(err_is(e, ERR_NO_SPACE) || err_is(e, ERR_IO));
    assert_non_null(strstr(e->text, "node " NODE_2));
    assert_true(strcasestr(e->text, "no space left") || strstr(e->text, "is full"));
    (void)err_free(e);
    drop_dataset(&id);
}

/* ---- peers that do not keep to the protocol ---- */

/* A connection to b with a certificate; NULL when the handshake (or the first byte after it) fails.
 */
static struct mover_conn *hostile(SSL_CTX *ctx)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(mover_port(b.mover))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SSL *ssl = NULL;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    mover_socket_tune(fd);
    assert_ok(tls_client_ssl(ctx, &b.node, &ssl));
    struct mover_conn *c = mover_conn_new(fd, ssl);
    assert_ok(mover_conn_handshake(c));
    return c;
}

static void hostile_hello(struct mover_conn *c, const struct uuid *id, uint64_t transfer,
                          uint16_t version_min)
{
    struct mover_hello hello = {.version_min = version_min,
                                .version_max = version_min,
                                .dataset = *id,
                                .transfer = transfer};
    struct str payload = {0};

    (void)snprintf(hello.snapshot, sizeof(hello.snapshot), "evil");
    mover_hello_encode(&hello, &payload);
    assert_ok(mover_conn_write(c, MOVER_HELLO, payload.data, payload.len));
    str_done(&payload);
}

static void hostile_begin(struct mover_conn *c, const struct uuid *id, const char *base)
{
    struct mover_begin begin = {.identity = "no such identity"};
    struct mover_header h;
    struct str payload = {0};

    hostile_hello(c, id, 5, 1);
    assert_ok(mover_conn_expect(c, MOVER_OFFER, &h));
    (void)snprintf(begin.base, sizeof(begin.base), "%s", base);
    mover_begin_encode(&begin, 1, &payload);
    assert_ok(mover_conn_write(c, MOVER_BEGIN, payload.data, payload.len));
    str_done(&payload);
}

static void hostile_end(struct mover_conn *c, uint64_t length, uint64_t hash)
{
    struct mover_end end = {length, hash};
    struct str payload = {0};

    mover_end_encode(&end, &payload);
    assert_ok(mover_conn_write(c, MOVER_END, payload.data, payload.len));
    str_done(&payload);
}

/* What b answers in the end. */
static void hostile_answer(struct mover_conn *c, enum err_code code, const char *word, int line)
{
    struct mover_header h;
    struct err *e;

    while (!(e = mover_conn_read(c, &h)))
        assert_true(h.type != MOVER_ACK);
    check_err(e, code, word, line);
    (void)mover_conn_free(c);
}

static void test_hostile(void **state)
{
    struct uuid id = new_dataset(2, MIB);
    struct side user = {0};
    struct mover_header h;
    static uint8_t junk[MOVER_PAYLOAD_MAX];
    struct mover_conn *c;

    for (size_t i = 0; i < sizeof(junk); i++)
        junk[i] = (uint8_t)random_next(&rnd);
    mover_announce(b.mover, &id, 5, &a.node);
    /* A user's certificate: TLS 1.3 tells the client only when it reads. */
    load_tls(&user, "user");
    c = hostile(user.client);
    CLEANUP_ERR struct err *e = mover_conn_read(c, &h);
    assert_true(err_is(e, ERR_DENIED));
    (void)mover_conn_free(c);
    SSL_CTX_free(user.server);
    SSL_CTX_free(user.client);
    (void)tls_free(user.tls);

    c = hostile(a.client); /* not a greeting */
    assert_ok(mover_conn_write(c, MOVER_DATA, junk, 100));
    hostile_answer(c, ERR_CORRUPT, "frame", __LINE__);
    c = hostile(a.client); /* a version that does not exist yet */
    hostile_hello(c, &id, 5, 9);
    hostile_answer(c, ERR_UNSUPPORTED, "9 to 9", __LINE__);
    c = hostile(a.client); /* rubbish instead of frames */
    size_t put;
    assert_int_equal(SSL_write_ex(c->ssl, junk, 1000, &put), 1);
    hostile_answer(c, ERR_CORRUPT, "", __LINE__);
    c = hostile(a.client); /* rubbish as a stream */
    hostile_begin(c, &id, "");
    assert_ok(mover_conn_write(c, MOVER_DATA, junk, sizeof(junk)));
    hostile_end(c, sizeof(junk), XXH3_64bits(junk, sizeof(junk)));
    struct err *said;
    while (!(said = mover_conn_read(c, &h)))
        assert_true(h.type != MOVER_ACK);
    (void)err_free(said);
    (void)mover_conn_free(c);
    c = hostile(a.client); /* a wrong sum */
    hostile_begin(c, &id, "");
    hostile_end(c, 0, 1);
    hostile_answer(c, ERR_CORRUPT, "not what the source sent", __LINE__);
    c = hostile(a.client); /* a base that is not there */
    hostile_begin(c, &id, "nothing");
    hostile_end(c, 0, XXH3_64bits("", 0));
    hostile_answer(c, ERR_NOT_FOUND, "nothing", __LINE__);
    c = hostile(a.client); /* a second greeting inside the stream */
    hostile_begin(c, &id, "");
    hostile_hello(c, &id, 5, 1);
    hostile_answer(c, ERR_CORRUPT, "inside a stream", __LINE__);
    for (int i = 0; i < 8; i++) /* gone without a word, at every point */
        (void)mover_conn_free(hostile(a.client));
    c = hostile(a.client);
    hostile_hello(c, &id, 5, 1);
    (void)mover_conn_free(c);
    assert_false(has_snapshot(&b, &id, "evil"));

    assert_ok(storage_snapshot(a.storage, &id, "s1")); /* b is none the worse */
    assert_ok(send_direct(&id, 5, "s1", NULL));
    drop_dataset(&id);
}

/* ---- surroundings ---- */

static int run_inside(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_and_increments),
        cmocka_unit_test(test_way_back),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_other_snapshot),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_forbid_running),
        cmocka_unit_test(test_newer_connection),
        cmocka_unit_test(test_stop_receiver),
        cmocka_unit_test(test_stop_sender),
        cmocka_unit_test(test_receiver_full),
        cmocka_unit_test(test_hostile),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)remove(path);
    return 0;
}

/* Runs this program again in a mount namespace of its own: its mounts end with it. */
static int run_outside(const char *self, const char *which)
{
    char dir[] = "/tmp/flocker-mover-XXXXXX";
    int status = 0;
    pid_t pid;

    if (geteuid() != 0) {
        (void)fprintf(stderr, "skipped: needs root (mounts)\n");
        return SKIP;
    }
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    const char *const argv[] = {"unshare", "--mount", "--propagation", "private", self, which,
                                dir,       NULL};
    int rc = posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ);
    if (rc == 0)
        (void)waitpid(pid, &status, 0);
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return rc == 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s fake|btrfs\n", argv[0]);
        return 2;
    }
    backend = argv[1];
    if (argc < 3)
        return run_outside(argv[0], backend);
    top = argv[2];
    (void)alarm(100); /* nothing here takes that long */
    return run_inside();
}
