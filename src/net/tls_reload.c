#include "net/tls_reload.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "net/workers.h"

#include <errno.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whoever copies a certificate and its key does not do it in one instant. */
#define SETTLE_US (300 * USEC_PER_MSEC)
#define EVENTS (IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ATTRIB)

enum { FILE_CA, FILE_CERT, FILE_KEY, FILE_MAX };

/* Tells one content of a file from another without reading it. */
struct look {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec changed;
};

struct tls_reload {
    struct loop *loop;
    struct tls_identity own;
    SSL_CTX *contexts[4];
    char *dir;
    char *paths[FILE_MAX];
    struct workers *workers;
    int inotify;
    struct watch *watch;
    struct timer settle;
    bool busy, again,
        forced; /* a read is under way; another must follow; whatever the files look like */
    /* The worker's while `busy`. */
    struct look looks[FILE_MAX]; /* when they were last read */
    bool look_only;              /* nothing to read when they look the same */
    struct tls *read;            /* NULL: not read */
    struct err *error;
    char *warning;
};

static struct look look_at(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return (struct look){0};
    return (struct look){st.st_dev, st.st_ino, st.st_size, st.st_ctim};
}

static bool same_look(const struct look *a, const struct look *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Remembers how the files look; true when they look different from before. */
static bool take_looks(struct tls_reload *r)
{
    bool changed = false;

    for (int i = 0; i < FILE_MAX; i++) {
        struct look now = look_at(r->paths[i]);
        changed |= !same_look(&now, &r->looks[i]);
        r->looks[i] = now;
    }
    return changed;
}

static void read_files(void *cookie)
{
    struct tls_reload *r = cookie;

    if (take_looks(r) || !r->look_only)
        r->error = tls_load(r->paths[FILE_CA], r->paths[FILE_CERT], r->paths[FILE_KEY], &r->warning,
                            &r->read);
}

static struct err *use(struct tls_reload *r, const struct tls *t)
{
    const struct tls_identity *id = tls_own_identity(t);

    if (!streq(id->name, r->own.name) || !uuid_eq(&id->cluster, &r->own.cluster))
        return err_new(ERR_INVALID,
                       "%s is now that of \"%s\" of cluster %s, but this program runs as \"%s\" of "
                       "cluster %s; "
                       "restart it if that is meant",
                       r->paths[FILE_CERT], id->name, UUID_STR(&id->cluster), r->own.name,
                       UUID_STR(&r->own.cluster));
    for (size_t i = 0; i < ARRAY_SIZE(r->contexts) && r->contexts[i]; i++)
        TRY(tls_context_renew(r->contexts[i], t));
    return NULL;
}

static void start_read(struct tls_reload *r);

static void files_read(void *cookie)
{
    struct tls_reload *r = cookie;
    struct err *e = steal(&r->error);

    r->busy = false;
    if (r->warning)
        log_warning("%s", r->warning);
    free(steal(&r->warning));
    if (r->read) {
        e = use(r, r->read);
        r->read = tls_free(r->read);
        if (!e)
            log_info("the certificate %s was read again; new connections use it",
                     r->paths[FILE_CERT]);
    }
    if (e)
        log_error("%s; what was read before stays in use", e->text);
    err_free(e);
    if (r->again)
        start_read(r);
}

static void start_read(struct tls_reload *r)
{
    if (r->busy) {
        r->again = true;
        return;
    }
    r->busy = true;
    r->again = false;
    r->look_only = !r->forced;
    r->forced = false;
    workers_submit(r->workers, read_files, files_read, r);
}

static void settled(void *cookie)
{
    start_read(cookie);
}

static void directory_changed(void *cookie, unsigned ready)
{
    struct tls_reload *r = cookie;
    char buf[4096];

    (void)ready;
    while (read(r->inotify, buf, sizeof(buf)) >
           0) /* which name it was does not matter: it may be a link to them */
        ;
    if (!timer_is_set(&r->settle))
        timer_set(&r->settle, now_os().mono_us + SETTLE_US);
}

static struct err *watch_directory(struct tls_reload *r)
{
    r->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (r->inotify < 0 || inotify_add_watch(r->inotify, r->dir, EVENTS) < 0)
        return err_errno(errno, "%s cannot be watched, so new certificates are read on SIGHUP only",
                         r->dir);
    return watch_new(r->loop, r->inotify, WATCH_READ, directory_changed, r, &r->watch);
}

struct tls_reload *tls_reload_new(const struct tls_reload_config *config)
{
    struct tls_reload *r = xcalloc(1, sizeof(*r));

    r->loop = config->loop;
    r->own = *tls_own_identity(config->tls);
    for (size_t i = 0; i < ARRAY_SIZE(r->contexts) && config->contexts[i]; i++) {
        r->contexts[i] = config->contexts[i];
        SSL_CTX_up_ref(r->contexts[i]);
    }
    r->dir = xstrdup(config->dir);
    r->paths[FILE_CA] = xasprintf("%s/cluster.crt", config->dir);
    r->paths[FILE_CERT] = xasprintf("%s/%s.crt", config->dir, config->name);
    r->paths[FILE_KEY] = xasprintf("%s/%s.key", config->dir, config->name);
    r->workers = workers_new(config->loop, 1, "certificates");
    timer_init(&r->settle, config->loop, settled, r);
    CLEANUP_ERR struct err *e = watch_directory(r);
    if (e)
        log_warning("%s", e->text);
    (void)take_looks(r);
    return r;
}

void tls_reload_now(struct tls_reload *r)
{
    r->forced = true;
    start_read(r);
}

struct tls_reload *tls_reload_free(struct tls_reload *r)
{
    if (!r)
        return NULL;
    timer_cancel(&r->settle);
    r->again = false;
    workers_stop(r->workers);
    watch_free(r->watch);
    if (r->inotify >= 0)
        (void)close(r->inotify);
    for (size_t i = 0; i < ARRAY_SIZE(r->contexts); i++)
        SSL_CTX_free(r->contexts[i]);
    for (int i = 0; i < FILE_MAX; i++)
        free(r->paths[i]);
    free(r->dir);
    free(r);
    return NULL;
}
