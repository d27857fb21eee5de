#include "agent/plugin_internal.h"

#include "base/log.h"
#include "base/now.h"
#include "drivers/durable.h"
#include "net/handed.h"

#include <errno.h>
#include <libgen.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIR_MODE 0700 /* of the socket's own folder, if it is not there yet */
#define SOCKET_MODE 0600
#define LISTEN_AGAIN_US (5 * USEC_PER_SEC)
#define SAVE_AGAIN_US USEC_PER_SEC
#define COPY_DELAY_US (10 * USEC_PER_SEC)
/* More than calls may wait (OPS_MAX in plugin_calls.c), so that what is answered from memory always can be. */
#define HELD_MAX 512u

const struct agent_config *plugin_settings(const struct plugin *p)
{
    return p->config.context->config;
}

/* A size that nobody asked for must not make a volume impossible. */
static uint64_t default_size(const struct plugin *p)
{
    const struct storage *storage = p->config.context->storage;
    const struct agent_config *c = plugin_settings(p);

    return !c->has_default_size && storage && !storage_has_limits(storage) ? 0 : c->default_size;
}

const char *plugin_mountpoint(struct plugin *p, const struct uuid *dataset)
{
    free(p->path);
    p->path = xasprintf("%s/%s", p->config.context->mount_root, UUID_STR(dataset));
    return p->path;
}

/* ---- answers ---- */

static void release_text(void *cookie)
{
    free(cookie);
}

void plugin_reply(struct http_request *http, unsigned status, struct str *body)
{
    size_t n = body->len;
    char *text = str_steal(body);

    http_reply_shared(http, status, NULL, 0, text, n, release_text, text);
}

void plugin_reply_error(struct http_request *http, enum plugin_call call, const char *error)
{
    struct str body = {0};

    plugin_render_error(&body, call, error);
    plugin_reply(http, 200, &body);
}

/* Where the volume is mounted here, by what the agent's brain sees, or by what was told to Docker in this boot and not taken back: after
 * a restart the brain knows of no orders until the control service has told them. */
static const char *mounted_at(struct plugin *p, const struct volume_entry *v)
{
    const struct plugin_volume *used = uses_volume(&p->uses, v->name);

    if (node_volume_mounted(p->config.node, &v->dataset, 0) ||
        (used && uuid_eq(&used->dataset, &v->dataset) && uses_held(used)))
        return plugin_mountpoint(p, &v->dataset);
    return NULL;
}

static void answer_unknown(struct plugin *p, struct http_request *http, enum plugin_call call, const char *name)
{
    const struct agent_config *c = plugin_settings(p);
    CLEANUP_FREE char *text =
        p->known ? xasprintf("Could not find volume with given name. There is no volume '%s'.", name)
                 : xasprintf("It is not known yet which volumes there are: this node has not reached the control service at %s:%u.",
                             c->control_host, c->control_port);

    plugin_reply_error(http, call, text);
}

static void answer_get(struct plugin *p, struct http_request *http, const struct volume_entry *v)
{
    struct str body = {0};

    plugin_render_get(&body, v, mounted_at(p, v));
    plugin_reply(http, 200, &body);
}

static char *where_else(const struct volume_entry *v)
{
    if (v->reason.code != REASON_NONE)
        return xasprintf("Volume not available. It is not mounted on this node: %s.",
                         v->reason.text ? v->reason.text : reason_code_name(v->reason.code));
    if (v->home_host)
        return xasprintf("Volume not available. It is not mounted on this node; it belongs to node %.8s (%s).", UUID_STR(&v->home),
                         v->home_host);
    return xstrdup("Volume not available. It is not mounted on this node.");
}

static void answer_path(struct plugin *p, struct http_request *http, const struct volume_entry *v)
{
    const char *mountpoint = mounted_at(p, v);
    struct str body = {0};

    if (!mountpoint) {
        CLEANUP_FREE char *text = where_else(v);
        plugin_reply_error(http, PLUGIN_PATH, text);
        return;
    }
    plugin_render_mountpoint(&body, mountpoint);
    plugin_reply(http, 200, &body);
}

struct listing {
    struct plugin *plugin;
    struct str body;
    const char *last;
};

/* Of two with the same name, only the first one is the volume. */
static bool list_one(void *cookie, const struct volume_entry *v)
{
    struct listing *l = cookie;

    if (!l->last || !streq(l->last, v->name))
        plugin_render_list_volume(&l->body, v, mounted_at(l->plugin, v));
    l->last = v->name;
    return true;
}

static void answer_list(struct plugin *p, struct http_request *http)
{
    struct listing l = {.plugin = p};

    plugin_render_list_begin(&l.body);
    agent_volumes_each(p->volumes, list_one, &l);
    plugin_render_list_end(&l.body);
    plugin_reply(http, 200, &l.body);
}

static void answer_from_memory(struct plugin *p, struct http_request *http, enum plugin_call call, const char *name)
{
    const struct volume_entry *v = agent_volumes_by_name(p->volumes, name);

    if (!v)
        answer_unknown(p, http, call, name);
    else if (call == PLUGIN_GET)
        answer_get(p, http, v);
    else
        answer_path(p, http, v);
}

static void answer(struct plugin *p, struct http_request *http, enum plugin_call call, struct plugin_request *r)
{
    struct str body = {0};

    switch (call) {
    case PLUGIN_ACTIVATE:
        plugin_render_activate(&body);
        break;
    case PLUGIN_CAPABILITIES:
        plugin_render_capabilities(&body);
        break;
    case PLUGIN_LIST:
        answer_list(p, http);
        return;
    case PLUGIN_GET:
    case PLUGIN_PATH:
        answer_from_memory(p, http, call, r->name);
        return;
    default:
        plugin_op_begin(p, http, call, r);
        return;
    }
    plugin_reply(http, 200, &body);
}

static void on_request(struct http_request *http, void *cookie)
{
    struct plugin *p = cookie;
    enum plugin_call call = plugin_call_of_path(http_request_path(http));
    struct plugin_request r = {0};
    size_t n;

    if (call == PLUGIN_CALL_INVALID) {
        http_reply_error(http, 404, "There is no call %.100s.", http_request_raw_path(http));
        return;
    }
    if (http_request_method(http) != HTTP_POST) {
        http_reply_error(http, 405, "Calls of a volume plugin are made with POST.");
        return;
    }
    const char *body = http_request_body(http, &n);
    CLEANUP_ERR struct err *e = plugin_request_parse(call, body, n, default_size(p), &r);
    if (e)
        plugin_reply_error(http, call, e->text);
    else
        answer(p, http, call, &r);
    plugin_request_done(&r);
}

/* ---- the uses on disk ---- */

static void save_start(struct plugin *p);

static void save_work(void *cookie)
{
    struct plugin *p = cookie;

    p->save_error = uses_save_sync(p->config.context->state_dir, p->save_text, p->save_n);
}

static void save_failed(struct plugin *p)
{
    CLEANUP_ERR struct err *e = steal(&p->save_error);

    if (!p->save_failed)
        log_error("which Docker volumes are mounted cannot be written down, so none can be mounted; trying again: %s", e->text);
    p->save_failed = true;
    timer_set(&p->save_again, now_os().mono_us + SAVE_AGAIN_US);
    plugin_calls_save_failed(p, e);
}

static void save_done(void *cookie)
{
    struct plugin *p = cookie;

    p->saving = false;
    free(steal(&p->save_text));
    if (p->save_error) {
        save_failed(p);
        return;
    }
    p->save_failed = false;
    p->saved_seq = p->saving_seq;
    if (p->saved_seq < p->seq)
        save_start(p);
    plugin_calls_saved(p);
}

static void save_start(struct plugin *p)
{
    p->saving = true;
    p->saving_seq = p->seq;
    p->save_text = uses_format(&p->uses, &p->config.context->era, &p->save_n);
    workers_submit(p->workers, save_work, save_done, p);
}

static void save_again(void *cookie)
{
    struct plugin *p = cookie;

    if (!p->saving && p->saved_seq < p->seq)
        save_start(p);
}

uint64_t plugin_save(struct plugin *p)
{
    p->seq++;
    if (!p->saving && !timer_is_set(&p->save_again))
        save_start(p);
    return p->seq;
}

/* A record that cannot be read says nothing: the mounts in it are found again by Docker's next Unmount, or never. Better than to refuse
 * all work of the node. */
static void load_uses(struct plugin *p)
{
    CLEANUP_ERR struct err *e = uses_load_sync(p->config.context->state_dir, &p->config.context->era, &p->uses);

    if (e)
        log_error("which Docker volumes are mounted is not known any more; containers keep them, but moves may wait for those: %s", e->text);
    if (p->uses.n)
        log_info("%zu mounts of Docker volumes go on", p->uses.n);
}

/* ---- the copy of the catalogue ---- */

static void remember(void *cookie, const struct volume_entry *v)
{
    struct plugin *p = cookie;

    agent_volumes_remember(p->volumes, v);
}

static void load_copy(struct plugin *p)
{
    CLEANUP_ERR struct err *e = copy_load_sync(p->config.context->state_dir, remember, p);

    if (e)
        log_warning("the copy of the catalogue of volumes is damaged; it will be made anew: %s", e->text);
    p->known = !e && agent_volumes_count(p->volumes) > 0;
}

static void copy_work(void *cookie)
{
    struct plugin *p = cookie;

    p->copy_error = copy_save_sync(p->config.context->state_dir, p->copy_text.data, p->copy_text.len);
}

static void copy_wanted(struct plugin *p)
{
    p->copy_due = true;
    if (!p->copying && !timer_is_set(&p->copy_timer))
        timer_set(&p->copy_timer, now_os().mono_us + COPY_DELAY_US);
}

static void copy_done_on_loop(void *cookie)
{
    struct plugin *p = cookie;
    CLEANUP_ERR struct err *e = steal(&p->copy_error);

    p->copying = false;
    str_done(&p->copy_text);
    if (e)
        log_warning("the catalogue of volumes cannot be copied to disk: %s", e->text);
    if (p->copy_due || e)
        copy_wanted(p);
}

static bool copy_one(void *cookie, const struct volume_entry *v)
{
    copy_append(cookie, v);
    return true;
}

/* Never a catalogue that is only half there: one that was whole once stays so, whatever session brings the changes. */
static void copy_start(void *cookie)
{
    struct plugin *p = cookie;

    if (!p->known)
        return; /* completeness makes it due again */
    p->copy_due = false;
    p->copying = true;
    copy_begin(&p->copy_text);
    agent_volumes_each(p->volumes, copy_one, &p->copy_text);
    copy_end(&p->copy_text);
    workers_submit(p->look_workers, copy_work, copy_done_on_loop, p);
}

/* ---- what the control service tells ---- */

static void each_use(void *cookie, void (*fn)(void *fn_cookie, const struct volume_use *), void *fn_cookie)
{
    struct plugin *p = cookie;
    struct plugin_use *use;

    for (struct plugin_volume *v = p->uses.by_name; v; v = v->hh.next) {
        LIST_FOREACH (use, &v->uses, link) {
            bool known = !uuid_is_nil(&v->dataset);
            struct volume_use told = {.dataset = v->dataset, .name = known ? NULL : v->name, .mount = use->mount};

            fn(fn_cookie, &told);
        }
    }
}

static void volume_changed(void *cookie, const struct uuid *dataset, const struct volume_entry *now)
{
    struct plugin *p = cookie;

    copy_wanted(p);
    plugin_calls_changed(p, dataset, now ? now->name : NULL);
}

static void catalogue_complete(void *cookie)
{
    struct plugin *p = cookie;

    p->known = true;
    copy_wanted(p);
}

/* When a session ends nobody knows when the next begins: what is due is copied now. */
static void session(void *cookie, bool up)
{
    struct plugin *p = cookie;

    if (!up && timer_is_set(&p->copy_timer))
        timer_set(&p->copy_timer, now_os().mono_us);
    plugin_calls_session(p, up);
}

static void dataset_changed(void *cookie, const struct uuid *dataset)
{
    plugin_calls_dataset_changed(cookie, dataset);
}

struct agent_volumes_config plugin_volumes_config(struct plugin *p)
{
    return (struct agent_volumes_config){.loop = p->config.loop,
                                         .each_use = each_use,
                                         .changed = volume_changed,
                                         .complete = catalogue_complete,
                                         .session = session,
                                         .dataset_changed = dataset_changed,
                                         .cookie = p};
}

/* ---- the socket ---- */

static struct err *make_server(struct plugin *p)
{
    struct http_server_config config = {.name = "docker plugin", .max_body_bytes = PLUGIN_BODY_MAX, .max_held = HELD_MAX};

    return http_server_new(p->config.loop, &config, on_request, p, &p->server);
}

static struct err *listen_on_path(struct plugin *p)
{
    const char *path = plugin_settings(p)->plugin_socket;
    CLEANUP_FREE char *own = xstrdup(path);
    CLEANUP_FREE char *above = xstrdup(path);
    const char *folder = dirname(own);

    (void)dirname(above);
    TRY(dir_make_path(dirname(above), 0755));
    if (mkdir(folder, DIR_MODE) != 0 && errno != EEXIST)
        return err_errno(errno, "cannot make the folder %s", folder);
    return http_server_listen_unix(p->server, path, SOCKET_MODE);
}

static void listen_now(void *cookie)
{
    struct plugin *p = cookie;
    CLEANUP_ERR struct err *e = listen_on_path(p);

    if (e && !str_equal_null(p->listen_failure, e->text))
        log_error("Docker's volumes cannot be served; trying again: %s", e->text);
    free(p->listen_failure);
    p->listen_failure = e ? xstrdup(e->text) : NULL;
    if (e)
        timer_set(&p->listen_again, now_os().mono_us + LISTEN_AGAIN_US);
}

static void serve(struct plugin *p)
{
    int fd = handed_socket(AF_UNIX);
    CLEANUP_ERR struct err *e = make_server(p);

    if (!e && fd >= 0)
        e = http_server_listen_fd(p->server, fd);
    else if (!e)
        listen_now(p);
    if (e)
        log_error("Docker's volumes cannot be served: %s", e->text);
}

void plugin_start(struct plugin *p, struct agent_volumes *volumes)
{
    p->volumes = volumes;
    load_uses(p);
    load_copy(p);
    plugin_users_watch(p);
    serve(p);
}

struct plugin *plugin_new(const struct plugin_config *config)
{
    struct plugin *p = xcalloc(1, sizeof(*p));

    p->config = *config;
    TAILQ_INIT(&p->ops);
    TAILQ_INIT(&p->drops);
    p->workers = workers_new(config->loop, 1, "mounts");
    p->look_workers = workers_new(config->loop, 1, "volume-users");
    timer_init(&p->listen_again, config->loop, listen_now, p);
    timer_init(&p->save_again, config->loop, save_again, p);
    timer_init(&p->drop_again, config->loop, plugin_drops_retry, p);
    timer_init(&p->copy_timer, config->loop, copy_start, p);
    plugin_users_init(p);
    return p;
}

struct plugin *plugin_free(struct plugin *p)
{
    if (!p)
        return NULL;
    plugin_calls_done(p);
    p->server = http_server_free(p->server);
    timer_cancel(&p->listen_again);
    timer_cancel(&p->save_again);
    timer_cancel(&p->drop_again);
    timer_cancel(&p->copy_timer);
    timer_cancel(&p->look_timer);
    p->workers = workers_stop(p->workers);
    p->look_workers = workers_stop(p->look_workers);
    timer_cancel(&p->save_again);
    timer_cancel(&p->copy_timer);
    timer_cancel(&p->look_timer);
    uses_done(&p->uses);
    free(p->listen_failure);
    free(p->path);
    free(p);
    return NULL;
}
