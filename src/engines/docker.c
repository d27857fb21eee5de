#include "base/backoff.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "engines/container_engine.h"
#include "engines/docker_api.h"
#include "engines/docker_http.h"
#include "engines/docker_process.h"
#include "engines/docker_watch.h"
#include "engines/neighbour.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONFIG_FILE_MAX (1024u * 1024)
#define CREATE_TRIES 3
#define STOP_FAILURES_MAX 5 /* answers of HTTP 5xx in a row */

struct container_engine {
    struct docker_http http;
    pthread_mutex_t lock;
    struct docker_watch *watch; /* under `lock` */
};

struct container_engine *container_engine_new(const char *socket_path)
{
    struct container_engine *ce = xcalloc(1, sizeof(*ce));

    docker_http_init(&ce->http, socket_path);
    (void)pthread_mutex_init(&ce->lock, NULL);
    return ce;
}

struct container_engine *container_engine_free(struct container_engine *ce)
{
    if (!ce)
        return NULL;
    container_engine_unwatch(ce);
    docker_http_done(&ce->http);
    (void)pthread_mutex_destroy(&ce->lock);
    free(ce);
    return NULL;
}

struct err *container_engine_watch(struct container_engine *ce, const struct uuid *cluster,
                                   container_engine_changed_fn *changed, void *cookie)
{
    struct err *e;

    (void)pthread_mutex_lock(&ce->lock);
    if (ce->watch)
        e = err_new(ERR_CONFLICT, "the container engine at %s is being watched already",
                    ce->http.socket);
    else
        e = docker_watch_start(ce->http.socket, cluster, changed, cookie, &ce->watch);
    (void)pthread_mutex_unlock(&ce->lock);
    return e;
}

void container_engine_unwatch(struct container_engine *ce)
{
    (void)pthread_mutex_lock(&ce->lock);
    struct docker_watch *w = steal(&ce->watch);
    (void)pthread_mutex_unlock(&ce->lock);
    (void)docker_watch_stop(w);
}

static char *message_of(const struct docker_response *r)
{
    return docker_parse_message(r->body.data, r->body.len);
}

static struct err *error_of(const struct docker_response *r, const char *what)
{
    CLEANUP_FREE char *message = message_of(r);

    return docker_error(r->status, message, what);
}

static void pause_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    (void)nanosleep(&ts, NULL);
}

/* `ref`: an id, or a name with our prefix. Absent is a success with *ret_found false. */
static struct err *inspect(struct container_engine *ce, const char *ref, const struct uuid *cluster,
                           struct docker_container *ret_container, bool *ret_found)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};
    char *escaped = curl_easy_escape(NULL, ref, 0);
    CLEANUP_FREE char *path = xasprintf("/containers/%s/json", escaped ? escaped : "");
    struct docker_request request = {.method = "GET", .path = path};

    curl_free(escaped);
    TRY(docker_http_call(&ce->http, &request, &r));
    CLEANUP_FREE char *message = message_of(&r);
    if (docker_is_absent(r.status, message)) {
        *ret_found = false;
        return NULL;
    }
    if (r.status != 200) {
        CLEANUP_FREE char *what = xasprintf("cannot look at container %s", ref);

        return error_of(&r, what);
    }
    TRY(docker_parse_inspect(r.body.data, r.body.len, cluster, ret_container));
    *ret_found = true;
    return NULL;
}

static char *engine_name(const char *name)
{
    return xasprintf("%s%s", CONTAINER_PREFIX, name);
}

/* ---- list ---- */

static void free_list(struct docker_container *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        docker_container_done(&list[i]);
    free(list);
}

/* The end of what the container wrote; NULL when the engine cannot tell (its log may be kept elsewhere). */
static char *last_words(struct container_engine *ce, const char *id)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};
    CLEANUP_FREE char *path = xasprintf("/containers/%s/logs?stdout=1&stderr=1&tail=%d", id, DOCKER_LOG_LINES);
    struct docker_request request = {.method = "GET", .path = path};
    struct err *e = docker_http_call(&ce->http, &request, &r);

    if (e)
        log_debug("no output of container %s: %s", id, e->text);
    bool ok = !e && r.status == 200;
    (void)err_free(e);
    return ok ? docker_parse_logs(r.body.data, r.body.len) : NULL;
}

/* Fills in what the list does not tell. A container that went away meanwhile is not `ours` any
 * more. */
static struct err *complete(struct container_engine *ce, const struct uuid *cluster,
                            struct docker_container *c)
{
    struct docker_container full = {0};
    bool found;

    TRY(inspect(ce, c->id, cluster, &full, &found));
    docker_container_done(c);
    if (found)
        *c = full;
    return NULL;
}

struct err *container_engine_list_sync(struct container_engine *ce, const struct uuid *cluster,
                                       struct container_state **ret_states, size_t *ret_n)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};
    CLEANUP_FREE char *filters = docker_render_filters(cluster, false);
    char *escaped = curl_easy_escape(NULL, filters, 0);
    CLEANUP_FREE char *path =
        xasprintf("/containers/json?all=1&filters=%s", escaped ? escaped : "");
    struct docker_request request = {.method = "GET", .path = path};
    struct docker_container *list;
    struct err *e = NULL;
    size_t n, used = 0;

    curl_free(escaped);
    TRY(docker_http_call(&ce->http, &request, &r));
    if (r.status != 200)
        return error_of(&r, "cannot list the containers");
    TRY(docker_parse_list(r.body.data, r.body.len, cluster, &list, &n));
    for (size_t i = 0; i < n && !e; i++)
        e = complete(ce, cluster, &list[i]);
    if (e) {
        free_list(list, n);
        return e;
    }
    struct container_state *states = xcalloc(n, sizeof(*states));
    for (size_t i = 0; i < n; i++) {
        if (!list[i].ours)
            continue;
        struct container_state *s = &states[used++];
        *s = (struct container_state){.name = steal(&list[i].name),
                                      .run = list[i].run,
                                      .created = list[i].created,
                                      .era = list[i].era,
                                      .exit_code = list[i].exit_code,
                                      .health = list[i].health};
        memcpy(s->spec, list[i].spec, sizeof(s->spec));
        if (s->run == CONTAINER_EXITED)
            s->last_words = last_words(ce, list[i].id);
    }
    free_list(list, n);
    *ret_states = states;
    *ret_n = used;
    return NULL;
}

struct err *container_engine_volumes_sync(struct container_engine *ce, char ***ret_names, size_t *ret_n)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};
    struct docker_request request = {.method = "GET", .path = "/containers/json"};

    TRY(docker_http_call(&ce->http, &request, &r));
    if (r.status != 200)
        return error_of(&r, "cannot list the running containers");
    return docker_parse_volumes(r.body.data, r.body.len, ret_names, ret_n);
}

/* ---- images ---- */

struct err *container_engine_has_image_sync(struct container_engine *ce, const char *image,
                                            bool *ret_present)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};
    CLEANUP_FREE char *repository = NULL, *tag = NULL, *path = NULL;

    TRY(docker_image_split(image, &repository, &tag)); /* after this it is safe in a path */
    path = xasprintf("/images/%s/json", image);
    struct docker_request request = {.method = "GET", .path = path};
    TRY(docker_http_call(&ce->http, &request, &r));
    if (r.status != 200 && r.status != 404) {
        CLEANUP_FREE char *what = xasprintf("cannot look for image %s", image);

        return error_of(&r, what);
    }
    *ret_present = r.status == 200;
    return NULL;
}

/* The login state of the user we run as; NULL when there is none. Secret. */
static char *read_docker_config(size_t *ret_n)
{
    const char *folder = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
    struct passwd pw, *found = NULL;
    char buf[4096];
    struct str text = {0};

    if (!folder && !home && getpwuid_r(geteuid(), &pw, buf, sizeof(buf), &found) == 0 && found)
        home = pw.pw_dir;
    if (!folder && !home)
        return NULL;
    CLEANUP_FREE char *path =
        folder ? xasprintf("%s/config.json", folder) : xasprintf("%s/.docker/config.json", home);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    while (fd >= 0 && text.len <= CONFIG_FILE_MAX) {
        char chunk[4096];
        ssize_t n = read(fd, chunk, sizeof(chunk));

        if (n <= 0)
            break;
        str_append_bytes(&text, chunk, (size_t)n);
        explicit_bzero(chunk, sizeof(chunk));
    }
    *ret_n = text.len <= CONFIG_FILE_MAX ? text.len : 0;
    return str_steal(&text);
}

static char *auth_for(const char *image)
{
    CLEANUP_FREE char *registry = docker_image_registry(image);
    size_t n = 0;
    char *config = read_docker_config(&n);
    char *auth = config ? docker_registry_auth(config, n, registry) : NULL;

    if (config)
        explicit_bzero(config, strlen(config));
    free(config);
    return auth;
}

struct pull {
    struct docker_layers layers;
    struct pull_progress *progress; /* or NULL */
};

static struct err *on_pull_line(void *cookie, const char *line, size_t n)
{
    struct pull *p = cookie;
    uint64_t bytes, total;

    TRY(docker_parse_pull_line(line, n));
    docker_layers_take(&p->layers, line, n, &bytes, &total);
    if (p->progress) {
        atomic_store(&p->progress->bytes, bytes);
        atomic_store(&p->progress->total, total);
    }
    return NULL;
}

static char *pull_path(const char *repository, const char *tag)
{
    char *r = curl_easy_escape(NULL, repository, 0), *t = curl_easy_escape(NULL, tag, 0);
    char *path = xasprintf("/images/create?fromImage=%s&tag=%s", r ? r : "", t ? t : "");

    curl_free(r);
    curl_free(t);
    return path;
}

struct err *container_engine_pull_sync(struct container_engine *ce, const char *image, const atomic_bool *cancel,
                                       struct pull_progress *progress)
{
    struct pull pull = {.progress = progress};
    CLEANUP(docker_response_done) struct docker_response r = {0};
    CLEANUP_FREE char *repository = NULL, *tag = NULL, *path = NULL;
    bool present = false;

    TRY(docker_image_split(image, &repository, &tag));
    path = pull_path(repository, tag);
    char *auth = auth_for(image);
    struct docker_request request = {.method = "POST",
                                     .path = path,
                                     .registry_auth = auth,
                                     .timeout_s = DOCKER_LONG_TIMEOUT_S,
                                     .stream = true,
                                     .cancel = cancel,
                                     .line = on_pull_line,
                                     .cookie = &pull};
    struct err *e = docker_http_call(&ce->http, &request, &r);
    docker_layers_done(&pull.layers);
    if (auth)
        explicit_bzero(auth, strlen(auth));
    free(auth);
    if (e)
        return err_wrap(e, "cannot fetch image %s", image);
    if (r.status != 200) {
        CLEANUP_FREE char *message = message_of(&r);

        return docker_pull_error(r.status, message, image);
    }
    TRY(container_engine_has_image_sync(ce, image, &present));
    if (!present)
        return err_new(ERR_UNAVAILABLE, "cannot fetch image %s: the engine ended without it",
                       image);
    return NULL;
}

/* ---- start ---- */

/* Removes a container that does not run. Anonymous volumes go only with one that never ran: nobody
 * wrote there. */
static struct err *remove_container(struct container_engine *ce, const struct docker_container *c,
                                    long *ret_status, char **ret_message)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};
    CLEANUP_FREE char *path =
        xasprintf("/containers/%s?v=%d&force=0", c->id, c->run == CONTAINER_CREATED);
    struct docker_request request = {.method = "DELETE", .path = path};

    TRY(docker_http_call(&ce->http, &request, &r));
    *ret_status = r.status;
    *ret_message = message_of(&r);
    return NULL;
}

/* Looks who has the name. *ret_done: it runs as wanted. Otherwise the name is free when this
 * returns NULL. */
static struct err *clear_name(struct container_engine *ce, const struct container_start *start,
                              const char *name, bool *ret_done)
{
    CLEANUP(docker_container_done) struct docker_container c = {0};
    CLEANUP_FREE char *message = NULL;
    bool found;
    long status;

    *ret_done = false;
    TRY(inspect(ce, name, &start->cluster, &c, &found));
    if (!found)
        return NULL;
    if (!c.ours)
        return err_new(ERR_EXISTS,
                       "cannot start container %s: the engine has a container %s that was not made "
                       "by this cluster; remove or rename it",
                       start->config->name, name);
    if (c.run == CONTAINER_RUNNING) {
        *ret_done = c.created == start->config->created;
        return *ret_done
                   ? NULL
                   : err_new(ERR_CONFLICT,
                             "cannot start container %s: it runs as configured at revision %llu, "
                             "configuration, wanted is %llu; it has to be stopped first",
                             start->config->name, (unsigned long long)c.created,
                             (unsigned long long)start->config->created);
    }
    TRY(remove_container(ce, &c, &status, &message));
    if (status == 204 || status == 200 || status == 404)
        return NULL;
    CLEANUP_FREE char *what = xasprintf("cannot replace container %s", start->config->name);
    return docker_error(status, message, what);
}

static struct err *check_volumes_are_here(const struct container_start *start)
{
    for (size_t i = 0; start->mount_root && i < start->config->n_volumes; i++) {
        CLEANUP_FREE char *path = container_volume_path(start, &start->config->volumes[i]);
        struct stat st;
        if (stat(path, &st) || !S_ISDIR(st.st_mode))
            return err_new(ERR_INVALID, "cannot start container %s: its volume %s is not here",
                           start->config->name, path);
    }
    return NULL;
}

static struct err *create(struct container_engine *ce, const struct container_start *start,
                          const char *name, char ret_id[DOCKER_ID_MAX + 1], bool *ret_conflict)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};
    bool selinux = access("/sys/fs/selinux/enforce", F_OK) == 0;
    CLEANUP_FREE char *body = NULL;

    if (selinux)
        TRY(check_volumes_are_here(start));
    TRY(docker_render_create(start, selinux, &body));
    char *escaped = curl_easy_escape(NULL, name, 0);
    CLEANUP_FREE char *path = xasprintf("/containers/create?name=%s", escaped ? escaped : "");
    curl_free(escaped);
    struct docker_request request = {.method = "POST", .path = path, .body = body};
    TRY(docker_http_call(&ce->http, &request, &r));
    *ret_conflict = r.status == 409;
    if (r.status == 201)
        return docker_parse_created(r.body.data, r.body.len, ret_id);
    CLEANUP_FREE char *message = message_of(&r);
    return docker_start_error(r.status, message, start->config, true);
}

/* Makes the container; *ret_done: it runs already. */
static struct err *make(struct container_engine *ce, const struct container_start *start,
                        char ret_id[DOCKER_ID_MAX + 1], bool *ret_done)
{
    CLEANUP_FREE char *name = engine_name(start->config->name);

    for (int i = 0;; i++) {
        bool conflict = false;

        TRY(clear_name(ce, start, name, ret_done));
        if (*ret_done)
            return NULL;
        struct err *e = create(ce, start, name, ret_id, &conflict);
        if (!e || !conflict || i + 1 == CREATE_TRIES)
            return e;
        (void)err_free(e);
        pause_ms(
            50); /* somebody took the name meanwhile, or its removal is not finished: look again */
    }
}

/* Clients that knocked while the container was away must not have to wait; that it failed is no failure of the start. */
static void announce_addresses(struct container_engine *ce, const char *id)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};
    CLEANUP_FREE char *path = xasprintf("/containers/%s/json", id);
    struct docker_request request = {.method = "GET", .path = path};
    char *addresses[DOCKER_ADDRESSES_MAX];
    size_t n = 0;
    struct err *e = docker_http_call(&ce->http, &request, &r);

    if (!e && r.status == 200)
        e = docker_parse_addresses(r.body.data, r.body.len, addresses, &n);
    for (size_t i = 0; i < n; i++) {
        if (!e)
            e = neighbour_forget_unanswered_sync(addresses[i]);
        free(addresses[i]);
    }
    if (e)
        log_debug("container %s: %s", id, e->text);
    (void)err_free(e);
}

struct err *container_engine_start_sync(struct container_engine *ce,
                                        const struct container_start *start)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};
    struct docker_container c = {.run = CONTAINER_CREATED};
    bool done;

    TRY(make(ce, start, c.id, &done));
    if (done)
        return NULL;
    CLEANUP_FREE char *path = xasprintf("/containers/%s/start", c.id);
    struct docker_request request = {.method = "POST", .path = path};
    TRY(docker_http_call(&ce->http, &request, &r));
    if (r.status == 204 || r.status == 304) {
        announce_addresses(ce, c.id);
        return NULL;
    }
    CLEANUP_FREE char *message = message_of(&r);
    struct err *e = docker_start_error(r.status, message, start->config, false);

    /* What cannot be started must not keep its ports. If this fails, the next start replaces it. */
    CLEANUP_FREE char *why = NULL;
    long status = 0;
    struct err *failed = remove_container(ce, &c, &status, &why);
    if (failed)
        log_debug("container %s: %s", start->config->name, failed->text);
    (void)err_free(failed);
    return e;
}

/* ---- stop ---- */

/* One stop: what is known of it between the rounds. */
struct stopping {
    const char *name;
    unsigned timeout_s;
    uint64_t deadline_us;
    int process; /* pidfd of the first process; -1 */
    unsigned failures;
    struct err *last; /* what the engine said last */
};

static bool is_expected(long status)
{
    /* done, there already, gone, or under way */
    return (status >= 200 && status < 300) || status == 304 || status == 404 || status == 409;
}

static struct err *note(struct stopping *s, long status, const char *message)
{
    CLEANUP_FREE char *what = xasprintf("cannot stop container %s", s->name);

    if (status != 204 && status != 304 && status != 404) {
        (void)err_free(s->last);
        s->last = docker_error(status, message, what);
    }
    if (is_expected(status))
        return NULL;
    if (status < 500 || ++s->failures > STOP_FAILURES_MAX)
        return steal(&s->last);
    return NULL; /* engines answer 500 to a stop that meets the container's own end: look again */
}

static struct err *ask_stop(struct container_engine *ce, struct stopping *s,
                            const struct docker_container *c)
{
    CLEANUP(docker_response_done) struct docker_response r = {0};

    if (c->stop_timeout_s && c->stop_timeout_s != s->timeout_s) {
        s->deadline_us -= s->timeout_s * (uint64_t)USEC_PER_SEC;
        s->deadline_us += c->stop_timeout_s * (uint64_t)USEC_PER_SEC;
        s->timeout_s = c->stop_timeout_s;
    }
    CLEANUP_FREE char *path = xasprintf("/containers/%s/stop?t=%u", c->id, s->timeout_s);
    struct docker_request request = {
        .method = "POST", .path = path, .timeout_s = DOCKER_LONG_TIMEOUT_S + (long)s->timeout_s};

    if (s->process < 0)
        s->process = docker_process_open(c->pid, c->id);
    TRY(docker_http_call(&ce->http, &request, &r));
    CLEANUP_FREE char *message = message_of(&r);
    return note(s, r.status, message);
}

/* Brings the container one step nearer to its end; *ret_gone when nothing of ours has the name any
 * more. */
static struct err *stop_step(struct container_engine *ce, const struct uuid *cluster,
                             struct stopping *s, bool *ret_gone)
{
    CLEANUP_FREE char *name = engine_name(s->name), *message = NULL;
    CLEANUP(docker_container_done) struct docker_container c = {0};
    bool found;
    long status;

    TRY(inspect(ce, name, cluster, &c, &found));
    *ret_gone = !found || !c.ours;
    if (*ret_gone)
        return NULL;
    if (c.run == CONTAINER_RUNNING)
        return ask_stop(ce, s, &c);
    TRY(remove_container(ce, &c, &status, &message));
    return note(s, status, message);
}

static struct err *too_late(const struct stopping *s, const char *what)
{
    return err_new(ERR_TIMEOUT, "container %s %s after %ld seconds%s%s", s->name, what,
                   (long)s->timeout_s + DOCKER_LONG_TIMEOUT_S, s->last ? ": " : "",
                   s->last ? s->last->text : "");
}

struct err *container_engine_stop_sync(struct container_engine *ce, const char *name,
                                       const struct uuid *cluster, unsigned timeout_s)
{
    struct stopping s = {.name = name, .timeout_s = timeout_s, .process = -1};
    struct err *e = NULL;
    bool gone = false;

    s.deadline_us = now_os().mono_us + ((uint64_t)timeout_s + DOCKER_LONG_TIMEOUT_S) * USEC_PER_SEC;
    for (unsigned round = 0; !gone && !e; round++) {
        uint64_t now = now_os().mono_us;

        if (now >= s.deadline_us)
            e = too_late(&s, "is not gone");
        else if (round > 3) /* stop, remove, look: more rounds mean waiting for somebody */
            pause_ms(round < 8 ? 50u << (round - 4) : 1000u);
        if (!e)
            e = stop_step(ce, cluster, &s, &gone);
    }
    if (!e) {
        uint64_t now = now_os().mono_us;
        uint64_t left = now < s.deadline_us ? (s.deadline_us - now) / 1000 : 0;

        if (!docker_process_wait(s.process, (int)left))
            e = too_late(&s, "still has a process");
    }
    mem_closep(&s.process);
    (void)err_free(s.last);
    return e;
}
