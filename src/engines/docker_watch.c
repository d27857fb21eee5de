/* One connection stays open on GET /events; nothing wakes the thread while nothing happens. While
 * the engine is away the thread tries again with growing pauses, and at once when the socket's
 * folder shows the socket anew. */
#include "engines/docker_watch.h"

#include "base/backoff.h"
#include "base/log.h"
#include "base/now.h"
#include "engines/docker_api.h"
#include "engines/docker_http.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/inotify.h>
#include <unistd.h>

#define VERSION_BODY_MAX (1024u * 1024)
#define IDLE_MS (24 * 3600 * 1000)

struct docker_watch {
    char *socket;
    char *socket_name; /* last part of the path */
    char *filters;     /* escaped */
    container_engine_changed_fn *changed;
    void *cookie;
    CURLM *multi;
    int inotify; /* of the socket's folder; -1 when it cannot be watched */
    pthread_t thread;
    atomic_bool stop;
    /* of the thread: */
    struct random random;
    struct backoff backoff;
    bool present; /* the engine answered last time */
};

/* One running request. */
struct transfer {
    struct docker_watch *w;
    CURL *easy;
    bool events;
    struct str body;
    struct docker_lines lines;
    bool matters;
};

static void tell(struct docker_watch *w)
{
    w->changed(w->cookie);
}

static struct err *on_event(void *cookie, const char *line, size_t n)
{
    struct transfer *t = cookie;

    t->matters |= docker_parse_event_matters(line, n);
    return NULL;
}

static long status_of(CURL *easy)
{
    long status = 0;

    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static size_t on_header(char *bytes, size_t size, size_t n, void *cookie)
{
    struct transfer *t = cookie;

    if (t->events && n <= 2 && status_of(t->easy) == 200) { /* the empty line: subscribed */
        t->w->present = true;
        backoff_reset(&t->w->backoff);
        tell(t->w);
    }
    return n;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *cookie)
{
    struct transfer *t = cookie;

    if (!t->events) {
        if (t->body.len + n > VERSION_BODY_MAX)
            return CURL_WRITEFUNC_ERROR;
        str_append_bytes(&t->body, bytes, n);
        return n;
    }
    t->matters = false;
    struct err *e = docker_lines_feed(&t->lines, bytes, n, on_event, t);
    if (e) {
        log_debug("container engine events: %s", e->text);
        (void)err_free(e);
        return CURL_WRITEFUNC_ERROR;
    }
    if (t->matters)
        tell(t->w); /* once for all that came together */
    return n;
}

/* true when the socket was made anew. */
static bool drain_inotify(const struct docker_watch *w)
{
    char buf[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)]
        __attribute__((aligned(__alignof__(struct inotify_event))));
    bool found = false;
    ssize_t n;

    while (w->inotify >= 0 && (n = read(w->inotify, buf, sizeof(buf))) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *e = (const void *)(buf + at);

            found |= (e->mask & IN_Q_OVERFLOW) || (e->len && streq(e->name, w->socket_name));
            at += (ssize_t)(sizeof(*e) + e->len);
        }
    }
    return found;
}

/* Sleeps until something happens on the running requests, `ms` passed, or stop; and, when
 * `for_socket`, until the socket appears. */
static bool wait(struct docker_watch *w, int ms, bool for_socket)
{
    struct curl_waitfd fd = {.fd = w->inotify, .events = CURL_WAIT_POLLIN};
    bool extra = for_socket && w->inotify >= 0;

    (void)curl_multi_poll(w->multi, extra ? &fd : NULL, extra ? 1 : 0, ms, NULL);
    return for_socket && drain_inotify(w);
}

static bool transfer_setup(struct transfer *t, const char *path)
{
    struct err *e = docker_http_easy(t->w->socket, path, &t->easy);
    bool bad = e != NULL;

    (void)err_free(e);
    if (bad)
        return false;
    bad |= curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body) != CURLE_OK;
    bad |= curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t) != CURLE_OK;
    bad |= curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header) != CURLE_OK;
    bad |= curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t) != CURLE_OK;
    if (!t->events)
        bad |= curl_easy_setopt(t->easy, CURLOPT_TIMEOUT, DOCKER_TIMEOUT_S) != CURLE_OK;
    return !bad && curl_multi_add_handle(t->w->multi, t->easy) == CURLM_OK;
}

/* Runs one request to its end, or to the stop of the watch. true: it ended with HTTP 200. */
static bool transfer_run(struct transfer *t, const char *path)
{
    bool ok = false;

    if (transfer_setup(t, path)) {
        int running = 1;

        while (!atomic_load(&t->w->stop) && curl_multi_perform(t->w->multi, &running) == CURLM_OK &&
               running)
            (void)wait(t->w, IDLE_MS, false);
        ok = !running && status_of(t->easy) == 200;
        (void)curl_multi_remove_handle(t->w->multi, t->easy);
    }
    curl_easy_cleanup(t->easy);
    t->easy = NULL;
    return ok;
}

static bool ask_version(struct docker_watch *w, unsigned *ret_minor)
{
    struct transfer t = {.w = w};
    bool ok = transfer_run(&t, "/version");

    if (ok) {
        struct err *e = docker_parse_version(t.body.data, t.body.len, ret_minor);

        ok = !e;
        (void)err_free(e);
    }
    str_done(&t.body);
    return ok;
}

/* Docker does not know a volume plugin before somebody asks it for volumes, and until then Swarm gives its host no task with a volume of
 * that plugin. So it is asked once, beside the events: another plugin may make it slow to answer. The answer says nothing. */
static void mention_volumes(struct transfer *t, unsigned minor)
{
    CLEANUP_FREE char *path = xasprintf("/v1.%u/volumes", minor);

    if (!transfer_setup(t, path)) {
        curl_easy_cleanup(t->easy);
        t->easy = NULL;
    }
}

/* Returns when the engine is away, does not want us, or the watch is stopped. */
static void follow(struct docker_watch *w)
{
    struct transfer t = {.w = w, .events = true}, volumes = {.w = w};
    unsigned minor;

    if (!ask_version(w, &minor))
        return;
    mention_volumes(&volumes, minor);
    /* `since`: the engine sends its headers a moment before it subscribes us. */
    CLEANUP_FREE char *path =
        xasprintf("/v1.%u/events?since=%llu&filters=%s", minor,
                  (unsigned long long)(now_os().wall_us / USEC_PER_SEC), w->filters);
    (void)transfer_run(&t, path);
    str_done(&t.lines.rest);
    if (volumes.easy)
        (void)curl_multi_remove_handle(w->multi, volumes.easy);
    curl_easy_cleanup(volumes.easy);
    str_done(&volumes.body);
}

static void *watch_main(void *cookie)
{
    struct docker_watch *w = cookie;

    (void)pthread_setname_np(pthread_self(), DOCKER_WATCH_THREAD);
    while (!atomic_load(&w->stop)) {
        (void)drain_inotify(w); /* from here on a new socket cuts the pause short */
        follow(w);
        if (w->present && !atomic_load(&w->stop)) {
            w->present = false;
            tell(w);
        }
        backoff_fail(&w->backoff, now_os().mono_us, &w->random);
        for (uint64_t now = now_os().mono_us; !atomic_load(&w->stop) && now < w->backoff.next_us;
             now = now_os().mono_us) {
            if (wait(w, (int)((w->backoff.next_us - now) / 1000 + 1), true)) {
                backoff_reset(&w->backoff);
                break;
            }
        }
    }
    return NULL;
}

static int watch_folder(const char *socket)
{
    const char *slash = strrchr(socket, '/');
    CLEANUP_FREE char *folder =
        slash ? xstrndup(socket, (size_t)(slash - socket) + 1) : xstrdup(".");
    CLEANUP_CLOSE int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

    if (fd < 0 || inotify_add_watch(fd, folder, IN_CREATE | IN_MOVED_TO) < 0) {
        log_debug("cannot watch %s: %m; the pauses between tries decide when a new socket is seen",
                  folder);
        return -1;
    }
    return steal_fd(&fd);
}

static struct docker_watch *watch_free(struct docker_watch *w)
{
    curl_multi_cleanup(w->multi);
    mem_closep(&w->inotify);
    free(w->socket);
    free(w->socket_name);
    free(w->filters);
    free(w);
    return NULL;
}

struct err *docker_watch_start(const char *socket, const struct uuid *cluster,
                               container_engine_changed_fn *changed, void *cookie,
                               struct docker_watch **ret_watch)
{
    CURL *easy;

    TRY(docker_http_easy(socket, "/", &easy)); /* also makes sure that curl is initialised */
    curl_easy_cleanup(easy);
    struct docker_watch *w = xcalloc(1, sizeof(*w));
    const char *slash = strrchr(socket, '/');

    w->socket = xstrdup(socket);
    w->socket_name = xstrdup(slash ? slash + 1 : socket);
    CLEANUP_FREE char *filters = docker_render_filters(cluster, true);
    char *escaped = curl_easy_escape(NULL, filters, 0);
    w->filters = xstrdup_null(escaped);
    curl_free(escaped);
    w->changed = changed;
    w->cookie = cookie;
    w->random = random_os();
    w->multi = curl_multi_init();
    w->inotify = watch_folder(socket);
    int rc = w->multi && w->filters ? pthread_create(&w->thread, NULL, watch_main, w) : EAGAIN;
    if (rc) {
        (void)watch_free(w);
        return err_errno(rc, "cannot start watching the container engine at %s", socket);
    }
    *ret_watch = w;
    return NULL;
}

struct docker_watch *docker_watch_stop(struct docker_watch *w)
{
    if (!w)
        return NULL;
    atomic_store(&w->stop, true);
    (void)curl_multi_wakeup(w->multi);
    (void)pthread_join(w->thread, NULL);
    return watch_free(w);
}
