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
#include "drivers/backends.h"
#include "drivers/storage_priv.h"
#include "exec/exec.h"
#include "mover/mover.h"
#include "mover/mover_conn.h"
#include "net/tls.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/btrfs.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

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

static void start_mover_as(struct side *s, uint16_t version_max, uint64_t bandwidth_limit)
{
    struct mover_config config = {.version_max = version_max,
                                  .bandwidth_limit = bandwidth_limit,
                                  .storage = s->storage,
                                  .server = s->server,
                                  .client = s->client,
                                  .node = s->node,
                                  .address = "127.0.0.1",
                                  .received = on_received,
                                  .cookie = s};

    assert_ok(mover_start(&config, &s->mover));
}

static void start_mover(struct side *s)
{
    start_mover_as(s, /* version_max= */ 0, /* bandwidth_limit= */ 0);
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

/* Anew, with other settings; the proxy follows b. */
static void restart_mover(struct side *s, uint16_t version_max, uint64_t bandwidth_limit)
{
    s->mover = mover_stop(s->mover);
    start_mover_as(s, version_max, bandwidth_limit);
    if (s == &b) {
        proxy = cut_proxy_stop(proxy);
        proxy = cut_proxy_start(mover_port(b.mover));
    }
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

/* Should the connection of a send be kept for the next one? Most tests mean one of their own. */
static bool keep_connections;

static struct err *send_via(uint16_t port, const struct uuid *id, uint64_t transfer,
                            const char *snapshot, struct mover_progress *progress)
{
    struct mover_send send = {.dataset = *id,
                              .transfer = transfer,
                              .snapshot = snapshot,
                              .peer = b.node,
                              .peer_host = "127.0.0.1",
                              .peer_port = port,
                              .final = !keep_connections};

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
    assert_ok(storage_prune(b.storage, &id, "s1", NULL));
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

/* The streams of a transfer follow each other on one connection; one that is gone is missed by nobody. */
static void test_kept_connection(void **state)
{
    struct uuid id = new_dataset(1, 1000);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    uint16_t port = cut_proxy_port(proxy);
    unsigned before = cut_proxy_connections(proxy);
    char name[8];

    keep_connections = true;
    mover_announce(b.mover, &id, 5, &a.node);
    for (int i = 1; i <= 3; i++) {
        (void)snprintf(name, sizeof(name), "s%d", i);
        write_files(path, name, 1, 1000);
        assert_ok(storage_snapshot(a.storage, &id, name));
        assert_ok(send_via(port, &id, 5, name, NULL));
        assert_true(has_snapshot(&b, &id, name));
    }
    assert_ok(send_via(port, &id, 5, "s3", NULL)); /* there already */
    assert_int_equal(cut_proxy_connections(proxy), before + 1);

    cut_proxy_drop(proxy);
    sleep_ms(200);
    assert_ok(storage_snapshot(a.storage, &id, "s4"));
    assert_ok(send_via(port, &id, 5, "s4", NULL));
    assert_int_equal(cut_proxy_connections(proxy), before + 2);

    mover_forbid_sync(b.mover, &id, 5); /* waits for no connection without a stream */
    assert_err(send_via(port, &id, 5, "s4", NULL), ERR_DENIED, "not expected");
    mover_announce(b.mover, &id, 6, &a.node);
    unsigned now = cut_proxy_connections(proxy);
    assert_ok(send_via(port, &id, 6, "s4", NULL)); /* another transfer */
    assert_int_equal(cut_proxy_connections(proxy), now + 1);

    restart_mover(&b, 2, 0); /* knows of one stream a connection only */
    mover_announce(b.mover, &id, 6, &a.node);
    before = cut_proxy_connections(proxy);
    assert_ok(send_via(cut_proxy_port(proxy), &id, 6, "s4", NULL));
    assert_ok(send_via(cut_proxy_port(proxy), &id, 6, "s4", NULL));
    assert_int_equal(cut_proxy_connections(proxy), before + 2);
    restart_mover(&b, 0, 0);
    drop_dataset(&id);
    keep_connections = false;
}

/* After the last one nothing is kept. */
static void test_final_is_not_kept(void **state)
{
    struct uuid id = new_dataset(1, 1000);
    unsigned before = cut_proxy_connections(proxy);

    mover_announce(b.mover, &id, 5, &a.node);
    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    assert_ok(send_via(cut_proxy_port(proxy), &id, 5, "s1", NULL));
    assert_ok(send_via(cut_proxy_port(proxy), &id, 5, "s1", NULL));
    assert_int_equal(cut_proxy_connections(proxy), before + 2);
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

/* Both ends get their orders at the same time, and the source may be faster. */
static void test_announced_late(void **state)
{
    struct uuid id = new_dataset(1, 1000);
    struct sender s = {.id = id, .transfer = 5, .snapshot = "s1", .port = mover_port(b.mover)};

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    assert_int_equal(pthread_create(&s.thread, NULL, sender_main, &s), 0);
    sleep_ms(300);
    mover_announce(b.mover, &id, 5, &a.node);
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    assert_ok(s.err);
    assert_true(has_snapshot(&b, &id, "s1"));
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
    assert_ok(storage_prune(a.storage, &id, "s3", NULL));
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
    restart_mover(&b, 0, 0);
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

/* ---- going on after a cut ---- */

/* Slow enough that the receiver keeps up: what lies in its socket unread when the connection is
 * reset is lost. */
#define EASY_US 2000

/* How much of which stream is at b to go on from; 0 = nothing. */
static uint64_t point_at_b(const struct uuid *id)
{
    struct stream_point p = {0};

    assert_ok(storage_stream_point(b.storage, id, &p));
    uint64_t offset = p.snapshot ? p.offset : 0;
    stream_point_done(&p);
    return offset;
}

/* Waits until no thread of b works on the dataset any more. */
static void settle(const struct uuid *id)
{
    mover_forbid_sync(b.mover, id, 5);
    mover_announce(b.mover, id, 5, &a.node);
}

/* Sends s1 with a cut in the middle; b's point. */
static uint64_t send_cut_in_the_middle(const struct uuid *id, uint64_t at)
{
    cut_proxy_set(proxy, at, EASY_US);
    assert_err(send_via(cut_proxy_port(proxy), id, 5, "s1", NULL), ERR_UNAVAILABLE, "");
    cut_proxy_set(proxy, UINT64_MAX, 0);
    settle(id);
    return point_at_b(id);
}

static void test_resume(void **state)
{
    struct uuid id = new_dataset(6, MIB);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    struct mover_progress whole = {0};
    uint64_t sum = digest(path), seen = 0, went = 0;

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    assert_ok(send_via(cut_proxy_port(proxy), &id, 5, "s1", &whole));
    assert_int_equal(whole.skipped, 0);
    assert_ok(storage_destroy(b.storage, &id));
    /* A cut after each 1.5 MiB: together they cost no more than one stream, but for what was on the
     * way. */
    for (int i = 0; i < 3; i++) {
        struct mover_progress p = {0};

        cut_proxy_set(proxy, 3 * MIB / 2, EASY_US);
        assert_err(send_via(cut_proxy_port(proxy), &id, 5, "s1", &p), ERR_UNAVAILABLE, "");
        assert_false(p.skipping);
        assert_int_equal(p.skipped, seen);
        settle(&id);
        seen = point_at_b(&id);
        went += p.bytes;
    }
    if (streq(backend, "fake")) /* every whole frame that arrived counts */
        assert_true(seen > 3 * MIB + MIB / 2 && seen <= went);
    struct mover_progress last = {0};
    cut_proxy_set(proxy, UINT64_MAX, 0);
    assert_ok(send_via(cut_proxy_port(proxy), &id, 5, "s1", &last));
    assert_int_equal(last.skipped, seen);
    assert_int_equal(last.skipped + last.bytes, whole.bytes);
    if (streq(backend, "fake"))
        assert_true(cut_proxy_carried(proxy) < 3 * MIB);
    assert_int_equal(promoted_digest(&id, "s1", 9), sum);
    drop_dataset(&id);
}

/* Cut after each record of TLS, and so after each frame, of either side. */
static void test_cut_at_frames(void **state)
{
    struct uuid id = new_dataset(3, 150000); /* some frames */
    CLEANUP_FREE char *path = mount_path(&a, &id);
    uint64_t sum = digest(path), whole;
    unsigned cuts = 0, resumed = 0;

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    assert_ok(send_via(cut_proxy_port(proxy), &id, 5, "s1", NULL));
    unsigned records = cut_proxy_records(proxy);
    whole = cut_proxy_carried(proxy);
    assert_true(records > 8);
    assert_ok(storage_destroy(b.storage, &id));
    /* Where they speak all the time, what is cut off after the n-th record is another thing each time. */
    const unsigned step = MOVER_KEEPALIVE_US < USEC_PER_SEC ? 4 : 1;
    for (unsigned n = 0; n <= records; n += step) {
        CLEANUP_ERR struct err *e = NULL, *again = NULL;
        struct mover_progress p = {0};

        cut_proxy_set_records(proxy, n);
        e = send_via(cut_proxy_port(proxy), &id, 5, "s1", NULL);
        settle(&id);
        if (n % 8 == 0) { /* and once more anywhere */
            cut_proxy_set(proxy, random_below(&rnd, whole), 0);
            again = send_via(cut_proxy_port(proxy), &id, 5, "s1", NULL);
            settle(&id);
        }
        if ((e && e->code != ERR_UNAVAILABLE) || (again && again->code != ERR_UNAVAILABLE))
            fail_msg("cut after %u records: %s; %s", n, e ? e->text : "", again ? again->text : "");
        cut_proxy_set(proxy, UINT64_MAX, 0);
        assert_ok(send_via(cut_proxy_port(proxy), &id, 5, "s1", &p));
        cuts += e != NULL;
        resumed += p.skipped != 0;
        assert_int_equal(promoted_digest(&id, "s1", 9), sum);
        assert_ok(storage_destroy(b.storage, &id));
    }
    if (step == 1)
        assert_true(cuts >= records - 2);
    if (step == 1 && streq(backend, "fake"))
        assert_true(resumed >= 5);
    drop_dataset(&id);
}

/* What is there is no beginning of what would be sent: all of it anew. */
static void test_point_differs(void **state)
{
    if (!streq(backend, "fake"))
        skip(); /* how others keep it is their own affair */
    struct uuid id = new_dataset(4, MIB);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    CLEANUP_FREE char *tar = xasprintf("%s/main-pool/%s/work/tar", b.dir, UUID_STR(&id));
    struct mover_progress p = {0};
    uint64_t sum = digest(path);

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    assert_true(send_cut_in_the_middle(&id, 2 * MIB) > MIB);
    CLEANUP_CLOSE int fd = open(tar, O_RDWR | O_CLOEXEC);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, 700000), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 700000), 1);
    assert_ok(send_direct(&id, 5, "s1", &p));
    assert_int_equal(p.skipped, 0);
    assert_true(p.bytes > 4 * MIB);
    assert_int_equal(promoted_digest(&id, "s1", 9), sum);
    drop_dataset(&id);
}

/* A point of another snapshot is not for this stream. */
static void test_point_of_another(void **state)
{
    struct uuid id = new_dataset(4, MIB);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    struct mover_progress p = {0};

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    (void)send_cut_in_the_middle(&id, 2 * MIB);
    write_files(path, "more", 1, 1000);
    assert_ok(storage_snapshot(a.storage, &id, "s2"));
    assert_ok(send_direct(&id, 5, "s2", &p));
    assert_int_equal(p.skipped, 0);
    assert_int_equal(promoted_digest(&id, "s2", 9), digest(path));
    drop_dataset(&id);
}

/* ---- a backend with tokens: the fake one, which then does not tell offsets ---- */

static struct driver token_driver;
static atomic_int token_sends, token_refused;
static atomic_bool refuse_tokens;

static struct err *token_point(void *cookie, const struct uuid *dataset, struct stream_point *ret)
{
    TRY(driver_fake.stream_point(cookie, dataset, ret));
    if (ret->snapshot)
        ret->token = xasprintf("%llu", (unsigned long long)ret->offset);
    ret->hash_low = ret->hash_high = 0;
    return NULL;
}

static struct err *token_send(void *cookie, const struct uuid *dataset,
                              const struct stream_spec *stream, int fd, const atomic_bool *cancel)
{
    if (!stream->from)
        return driver_fake.send(cookie, dataset, stream, fd, cancel);
    if (atomic_load(&refuse_tokens)) {
        atomic_fetch_add(&token_refused, 1);
        return err_new(ERR_INVALID, "what is this token?");
    }
    atomic_fetch_add(&token_sends, 1);
    CLEANUP_FREE char *path =
        xasprintf("%s/main-pool/%s/snap/%s.tar", a.dir, UUID_STR(dataset), stream->snapshot);
    CLEANUP_FREE char *from = xasprintf("+%lld", atoll(stream->from->token) + 1);
    const char *const argv[] = {"tail", "-c", from, path, NULL};
    return exec_run(&(struct exec_request){.argv = argv, .stdout_fd = fd, .cancel = cancel}, NULL);
}

static void test_token(void **state)
{
    if (!streq(backend, "fake"))
        skip(); /* the backend of the test is made of the fake one */
    struct uuid id = new_dataset(4, MIB);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    const struct driver *before = b.storage->driver;
    uint64_t sum = digest(path);

    token_driver = driver_fake;
    token_driver.send = token_send;
    token_driver.stream_point = token_point;
    a.storage->driver = b.storage->driver = &token_driver;
    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    for (int refuse = 0; refuse < 2; refuse++) {
        struct mover_progress p = {0};

        atomic_store(&refuse_tokens, refuse == 1);
        uint64_t there = send_cut_in_the_middle(&id, 2 * MIB);
        assert_true(there > MIB);
        assert_ok(send_direct(&id, 5, "s1", &p));
        if (refuse)
            assert_true(p.bytes > 4 * MIB);
        else
            assert_true(p.bytes < 4 * MIB - there + MIB / 4);
        assert_int_equal(promoted_digest(&id, "s1", 9), sum);
        assert_ok(storage_destroy(b.storage, &id));
    }
    assert_int_equal(atomic_load(&token_sends), 1);
    assert_int_equal(atomic_load(&token_refused), 1);
    a.storage->driver = b.storage->driver = before;
    drop_dataset(&id);
}

/* ---- an older peer ---- */

static void test_version_1(void **state)
{
    for (int i = 0; i < 2; i++) {
        struct side *old = i ? &a : &b;
        struct uuid id = new_dataset(4, MIB);
        CLEANUP_FREE char *path = mount_path(&a, &id);
        struct mover_progress p = {0};
        struct mover_send what = {.dataset = id,
                                  .transfer = 5,
                                  .snapshot = "s1",
                                  .peer = b.node,
                                  .peer_host = "127.0.0.1",
                                  .peer_port = mover_port(b.mover)};

        restart_mover(old, 1, 0);
        what.peer_port = mover_port(b.mover);
        assert_ok(storage_snapshot(a.storage, &id, "s1"));
        mover_announce(b.mover, &id, 5, &a.node);
        (void)send_cut_in_the_middle(&id, 2 * MIB);
        assert_ok(send_direct(&id, 5, "s1", &p));
        assert_int_equal(p.skipped, 0);
        assert_int_equal(p.bytes, p.wire);
        assert_true(p.bytes > 4 * MIB);
        assert_err(mover_verify_sync(a.mover, &what, NULL), ERR_UNSUPPORTED, "older release");
        assert_int_equal(promoted_digest(&id, "s1", 9), digest(path));
        restart_mover(old, 0, 0);
        drop_dataset(&id);
    }
}

/* ---- compression, limit, comparing ---- */

/* `n` files of `size` bytes that compress well. */
static void write_text(const char *dir, unsigned n, size_t size)
{
    for (unsigned i = 0; i < n; i++) {
        CLEANUP_FREE char *path = xasprintf("%s/text-%u", dir, i);
        FILE *f = fopen(path, "we");

        assert_non_null(f);
        for (size_t at = 0; at < size;)
            at += (size_t)fprintf(f, "%llu of the things that are in it, and again\n",
                                  (unsigned long long)random_below(&rnd, 1000));
        assert_int_equal(fclose(f), 0);
    }
}

static void test_compress(void **state)
{
    struct uuid text = new_dataset(1, 1000), noise = new_dataset(8, MIB);
    CLEANUP_FREE char *at_text = mount_path(&a, &text), *at_noise = mount_path(&a, &noise);
    struct mover_progress p = {0}, q = {0}, fast = {0};

    write_text(at_text, 10, 2 * MIB);
    assert_ok(storage_snapshot(a.storage, &text, "s1"));
    assert_ok(storage_snapshot(a.storage, &noise, "s1"));
    mover_announce(b.mover, &text, 5, &a.node);
    mover_announce(b.mover, &noise, 5, &a.node);
    cut_proxy_set(proxy, UINT64_MAX, 1000); /* less than 16 MB a second */
    assert_ok(send_via(cut_proxy_port(proxy), &text, 5, "s1", &p));
    uint64_t carried = cut_proxy_carried(proxy);
    assert_ok(send_via(cut_proxy_port(proxy), &noise, 5, "s1", &q));
    cut_proxy_set(proxy, UINT64_MAX, 0);
    if (streq(backend, "fake")) { /* btrfs may have compressed it before */
        assert_true(p.bytes > 20 * MIB);
        assert_true(p.wire < p.bytes / 2);
        assert_true(carried < p.wire + MIB / 2);
    }
    assert_true(q.bytes > 8 * MIB && q.wire + q.bytes / 100 > q.bytes);
    assert_int_equal(promoted_digest(&text, "s1", 9), digest(at_text));
    assert_int_equal(promoted_digest(&noise, "s1", 9), digest(at_noise));
    /* A small one never: it is over before anything is known of the network. */
    struct uuid small = new_dataset(1, 1000);
    CLEANUP_FREE char *at_small = mount_path(&a, &small);
    write_text(at_small, 1, MIB / 2);
    assert_ok(storage_snapshot(a.storage, &small, "s1"));
    mover_announce(b.mover, &small, 5, &a.node);
    cut_proxy_set(proxy, UINT64_MAX, 1000);
    assert_ok(send_via(cut_proxy_port(proxy), &small, 5, "s1", &fast));
    cut_proxy_set(proxy, UINT64_MAX, 0);
    assert_int_equal(fast.wire, fast.bytes);
    drop_dataset(&text);
    drop_dataset(&noise);
    drop_dataset(&small);
}

static void test_limit(void **state)
{
    struct uuid one = new_dataset(3, MIB), two = new_dataset(3, MIB);
    struct sender s = {.id = one, .transfer = 5, .snapshot = "s1"};
    struct mover_send final = {.dataset = one,
                               .transfer = 5,
                               .snapshot = "s1",
                               .peer = b.node,
                               .peer_host = "127.0.0.1",
                               .peer_port = mover_port(b.mover),
                               .final = true};

    restart_mover(&a, 0, 2 * MIB);
    assert_ok(storage_snapshot(a.storage, &one, "s1"));
    assert_ok(storage_snapshot(a.storage, &two, "s1"));
    mover_announce(b.mover, &one, 5, &a.node);
    mover_announce(b.mover, &two, 5, &a.node);
    s.port = mover_port(b.mover);
    keep_connections = true; /* for final ones the limit does not hold */
    uint64_t began = now_os().mono_us;
    assert_int_equal(pthread_create(&s.thread, NULL, sender_main, &s), 0);
    assert_ok(send_direct(&two, 5, "s1", NULL));
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    assert_ok(s.err);
    uint64_t took = now_os().mono_us - began; /* 6 MiB at 2 MiB a second, together */
    assert_true(took > 2600 * USEC_PER_MSEC);
    keep_connections = false;
    /* A container waits for the last one: it is not slowed down. */
    assert_ok(storage_destroy(b.storage, &one));
    restart_mover(&a, 0, MIB / 4);
    began = now_os().mono_us;
    assert_ok(mover_send_sync(a.mover, &final, NULL));
    assert_true(now_os().mono_us - began < 6 * USEC_PER_SEC); /* not the twelve of the limit */
    restart_mover(&a, 0, 0);
    drop_dataset(&one);
    drop_dataset(&two);
}

/* Changes the copy at b behind everybody's back: it keeps its identity. */
static struct err *tamper_in(void *file, int root)
{
    uint64_t flags = 0;

    assert_int_equal(ioctl(root, BTRFS_IOC_SUBVOL_SETFLAGS, &flags), 0);
    CLEANUP_CLOSE int fd = openat(root, file, O_WRONLY | O_CLOEXEC);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(pwrite(fd, "x", 1, 4711), 1);
    struct timespec times[2] = {st.st_atim, st.st_mtim}; /* as a disk would do it */
    assert_int_equal(futimens(fd, times), 0);
    flags = BTRFS_SUBVOL_RDONLY;
    mem_closep(&fd);
    fd = -1;
    assert_int_equal(ioctl(root, BTRFS_IOC_SUBVOL_SETFLAGS, &flags), 0);
    return NULL;
}

static void tamper(const struct uuid *id, const char *snapshot, const char *file)
{
    assert_ok(b.storage->driver->snapshot_read(b.storage->cookie, id, snapshot, tamper_in, (void *)file));
}

static void test_verify(void **state)
{
    struct uuid id = new_dataset(3, MIB);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    struct mover_progress p = {0};
    struct mover_send what = {.dataset = id,
                              .transfer = 5,
                              .snapshot = "s1",
                              .peer = b.node,
                              .peer_host = "127.0.0.1",
                              .peer_port = mover_port(b.mover)};

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    assert_err(mover_verify_sync(a.mover, &what, NULL), ERR_NOT_FOUND, "not there");
    assert_ok(send_direct(&id, 5, "s1", NULL));
    if (streq(backend, "fake")) {
        assert_err(mover_verify_sync(a.mover, &what, NULL), ERR_UNSUPPORTED, "look into");
        drop_dataset(&id);
        return;
    }
    assert_ok(mover_verify_sync(a.mover, &what, &p));
    assert_true(has_snapshot(&b, &id, "s1"));
    tamper(&id, "s1", "file-1");
    assert_err(mover_verify_sync(a.mover, &what, &p), ERR_DIFFERS, "not the same");
    assert_false(has_snapshot(&b, &id, "s1")); /* deleted, so that it can be sent again */
    assert_ok(send_direct(&id, 5, "s1", NULL));
    assert_ok(mover_verify_sync(a.mover, &what, &p));
    atomic_store(&p.cancel, true);
    assert_err(mover_verify_sync(a.mover, &what, &p), ERR_CANCELLED, "");
    assert_true(has_snapshot(&b, &id, "s1"));
    assert_int_equal(promoted_digest(&id, "s1", 9), digest(path));
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

static void hostile_begin_as(struct mover_conn *c, const struct uuid *id, uint16_t version,
                             struct mover_begin begin)
{
    struct mover_header h;
    struct str payload = {0};

    hostile_hello(c, id, 5, version);
    assert_ok(mover_conn_expect(c, MOVER_OFFER, &h));
    (void)snprintf(begin.identity, sizeof(begin.identity), "aaaaaaaa-0000-4000-8000-00000000dead");
    mover_begin_encode(&begin, version, &payload);
    assert_ok(mover_conn_write(c, MOVER_BEGIN, payload.data, payload.len));
    str_done(&payload);
}

static void hostile_begin(struct mover_conn *c, const struct uuid *id, const char *base)
{
    struct mover_begin begin = {0};

    (void)snprintf(begin.base, sizeof(begin.base), "%s", base);
    hostile_begin_as(c, id, 1, begin);
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

/* Frames of version 2. */
static void test_hostile_2(void **state)
{
    struct uuid id = new_dataset(2, MIB);
    struct mover_conn *c;
    static uint8_t big[2 * MOVER_PAYLOAD_MAX], packed[4096];
    size_t n = ZSTD_compress(packed, sizeof(packed), big, sizeof(big), 1);

    assert_false(ZSTD_isError(n));
    mover_announce(b.mover, &id, 5, &a.node);
    c = hostile(a.client); /* more than a frame may hold, from some hundred bytes */
    hostile_begin_as(c, &id, 2, (struct mover_begin){0});
    assert_ok(mover_conn_write(c, MOVER_ZSTD, packed, n));
    hostile_answer(c, ERR_CORRUPT, "unpacked", __LINE__);
    c = hostile(a.client);
    hostile_begin_as(c, &id, 2, (struct mover_begin){0});
    assert_ok(mover_conn_write(c, MOVER_ZSTD, big, 1000));
    hostile_answer(c, ERR_CORRUPT, "zstd", __LINE__);
    c = hostile(a.client); /* compressed, though version 1 was agreed */
    hostile_begin_as(c, &id, 1, (struct mover_begin){0});
    assert_ok(mover_conn_write(c, MOVER_ZSTD, packed, n));
    hostile_answer(c, ERR_CORRUPT, "inside a stream", __LINE__);
    c = hostile(a.client); /* goes on from what was not offered */
    hostile_begin_as(c, &id, 2, (struct mover_begin){.from = MOVER_FROM_OFFSET, .offset = 1000});
    hostile_answer(c, ERR_CORRUPT, "goes on from", __LINE__);
    c = hostile(a.client);
    hostile_begin_as(c, &id, 2, (struct mover_begin){.from = MOVER_FROM_TOKEN});
    hostile_answer(c, ERR_CORRUPT, "goes on from", __LINE__);
    c = hostile(a.client); /* compares what is not there */
    struct mover_header h;
    hostile_hello(c, &id, 5, 2);
    assert_ok(mover_conn_expect(c, MOVER_OFFER, &h));
    assert_ok(mover_conn_write(c, MOVER_VERIFY, NULL, 0));
    hostile_answer(c, streq(backend, "fake") ? ERR_UNSUPPORTED : ERR_NOT_FOUND, "", __LINE__);
    assert_false(has_snapshot(&b, &id, "evil"));
    drop_dataset(&id);
}

/* One connection that fails with an error of the sender at b's point. *ret_offered: the point was offered. */
static void fail_at_point(const struct uuid *id, bool *ret_offered)
{
    struct mover_conn *c = hostile(a.client);
    struct mover_hello hello = {.version_min = 2, .version_max = 2, .dataset = *id, .transfer = 5,
                                .snapshot = "s1"};
    CLEANUP(mover_offer_done) struct mover_offer offer = {0};
    struct mover_begin begin = {.from = MOVER_FROM_OFFSET};
    struct err broken = {ERR_IO, (char[]){"the disk of the source"}};
    struct str hi = {0}, payload = {0};
    struct mover_header h;

    mover_hello_encode(&hello, &hi);
    assert_ok(mover_conn_write(c, MOVER_HELLO, hi.data, hi.len));
    assert_ok(mover_conn_expect(c, MOVER_OFFER, &h));
    assert_ok(mover_offer_decode(c->input, h.length, &offer));
    *ret_offered = offer.point.snapshot[0];
    if (*ret_offered) {
        begin.offset = offer.point.offset;
        (void)snprintf(begin.identity, sizeof(begin.identity), "%s", offer.point.identity);
        mover_begin_encode(&begin, 2, &payload);
        assert_ok(mover_conn_write(c, MOVER_BEGIN, payload.data, payload.len));
        mover_conn_end_with_error(c, &broken);
    }
    (void)mover_conn_free(c);
    str_done(&hi);
    str_done(&payload);
}

/* What fails again and again at one place is sent from the beginning. */
static void test_point_that_fails(void **state)
{
    struct uuid id = new_dataset(4, MIB);
    CLEANUP_FREE char *path = mount_path(&a, &id);
    struct mover_progress p = {0};
    bool offered = true;
    int tries = 0;

    assert_ok(storage_snapshot(a.storage, &id, "s1"));
    mover_announce(b.mover, &id, 5, &a.node);
    cut_proxy_set(proxy, 2 * MIB, EASY_US);
    assert_err(send_via(cut_proxy_port(proxy), &id, 5, "s1", NULL), ERR_UNAVAILABLE, "");
    cut_proxy_set(proxy, UINT64_MAX, 0);
    for (; offered && tries < 10; tries++)
        fail_at_point(&id, &offered);
    if (streq(backend, "fake"))
        assert_int_equal(tries, 4); /* three that failed, and one that was not offered it */
    assert_ok(send_direct(&id, 5, "s1", &p));
    assert_int_equal(p.skipped, 0);
    assert_int_equal(promoted_digest(&id, "s1", 9), digest(path));
    drop_dataset(&id);
}

/* ---- surroundings ---- */

static int run_inside(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_and_increments),
        cmocka_unit_test(test_kept_connection),
        cmocka_unit_test(test_final_is_not_kept),
        cmocka_unit_test(test_way_back),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_announced_late),
        cmocka_unit_test(test_other_snapshot),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_forbid_running),
        cmocka_unit_test(test_newer_connection),
        cmocka_unit_test(test_stop_receiver),
        cmocka_unit_test(test_stop_sender),
        cmocka_unit_test(test_receiver_full),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_hostile_2),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_cut_at_frames),
        cmocka_unit_test(test_point_differs),
        cmocka_unit_test(test_point_of_another),
        cmocka_unit_test(test_point_that_fails),
        cmocka_unit_test(test_token),
        cmocka_unit_test(test_version_1),
        cmocka_unit_test(test_compress),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_verify),
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
    (void)alarm(200); /* nothing here takes that long */
    return run_inside();
}
