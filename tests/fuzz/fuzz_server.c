/* Connections of the HTTP server. The first byte chooses:
 *   e  a handler that tells what it was asked: requests and answers are the same whatever the pieces
 *      in which the bytes come
 *   r  the REST API with the real engine; R: every second commit fails. What is answered is HTTP and
 *      JSON, or metrics */
#include "fuzz.h"

#include "control/rest.h"
#include "model/json.h"
#include "model/record.h"
#include "net/http_private.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURNS 3
#define TURNS_MAX 200
#define HEAD_MAX 1024
#define BODY_MAX 2048

static struct loop *loop;

struct talk {
    int fd;
    struct str heard; /* what the handler was asked */
    struct str said;  /* what came back */
    size_t requests;
};

/* ---- the server's handler ---- */

static void note(struct str *to, const char *text)
{
    str_append(to, text ? text : "(none)");
    str_append(to, "|");
}

static void echo(struct http_request *r, void *cookie)
{
    struct talk *t = cookie;
    size_t n;
    const char *body = http_request_body(r, &n);
    CLEANUP_FREE char *value = http_request_query_value(r, "a");

    t->requests++;
    RULE(n <= BODY_MAX && body[n] == '\0');
    note(&t->heard, http_method_name(http_request_method(r)));
    note(&t->heard, http_request_path(r));
    note(&t->heard, http_request_raw_path(r));
    note(&t->heard, http_request_query(r));
    note(&t->heard, value);
    for (unsigned i = 0; i < r->head->header_count; i++) {
        note(&t->heard, r->head->headers[i].name);
        note(&t->heard, r->head->headers[i].value);
    }
    str_append_bytes(&t->heard, body, n);
    str_append(&t->heard, "\n");
    http_reply(r, 200, NULL, 0, body, n);
}

/* ---- the client ---- */

static void stop(void *cookie)
{
    loop_stop(cookie);
}

static bool hear(struct talk *t)
{
    char buf[8192];
    ssize_t n;
    bool any = false;

    while ((n = read(t->fd, buf, sizeof(buf))) > 0) {
        str_append_bytes(&t->said, buf, (size_t)n);
        any = true;
    }
    return any;
}

/* Until nothing more comes back. */
static void run(struct talk *t)
{
    for (int quiet = 0, turns = 0; quiet < TURNS && turns < TURNS_MAX; turns++) {
        loop_post(loop, stop, loop);
        RULE(!loop_run(loop));
        quiet = hear(t) ? 0 : quiet + 1;
    }
}

static void talk(struct talk *t, struct http_server *s, const uint8_t *data, size_t size,
                 const struct random *r)
{
    struct http_peer peer = {.address = "192.0.2.1:1"};
    int pair[2];

    RULE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    t->fd = pair[1];
    http_conn_accept(s, pair[0], &peer);
    for (size_t at = 0; at < size;) {
        size_t piece = r ? fuzz_piece(r, size - at) : size - at;
        ssize_t n = send(t->fd, data + at, piece, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        at += (size_t)n;
        run(t);
    }
    (void)shutdown(t->fd, SHUT_WR);
    run(t);
    close(t->fd);
}

static void talk_done(struct talk *t)
{
    str_done(&t->heard);
    str_done(&t->said);
}

/* ---- echo ---- */

/* Takes out what depends on the moment. */
static char *timeless(const struct str *said)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n"; /* told only to a client whose body has not come yet */
    CLEANUP_STR struct str out = {0};
    const char *p = said->data ? said->data : "";

    while (*p) {
        const char *end = p + strcspn(p, "\n");
        end += *end == '\n';
        const char *found = strstr(p, go_on); /* the answer before it need not end with a line */
        if (found && found < end)
            end = found;
        if (!str_has_prefix(p, "Date: "))
            str_append_bytes(&out, p, (size_t)(end - p));
        p = end == found ? end + strlen(go_on) + strlen("\r\n") : end;
    }
    return str_steal(&out);
}

static void echo_once(const uint8_t *data, size_t size, const struct random *r, struct talk *t)
{
    struct http_server_config config = {.max_header_bytes = HEAD_MAX, .max_body_bytes = BODY_MAX};
    struct http_server *s = NULL;

    RULE(!http_server_new(loop, &config, echo, t, &s));
    talk(t, s, data, size, r);
    http_server_free(s);
    run(&(struct talk){.fd = -1});
}

static void echo_twice(const uint8_t *data, size_t size, const struct random *r)
{
    CLEANUP(talk_done) struct talk whole = {0};
    CLEANUP(talk_done) struct talk pieces = {0};

    if (memchr(data, '\0', size)) /* the comparison is of texts */
        return;
    echo_once(data, size, NULL, &whole);
    echo_once(data, size, r, &pieces);
    RULE(whole.requests == pieces.requests && whole.heard.len == pieces.heard.len);
    RULE(!whole.heard.len || !memcmp(whole.heard.data, pieces.heard.data, whole.heard.len));
    CLEANUP_FREE char *a = timeless(&whole.said);
    CLEANUP_FREE char *b = timeless(&pieces.said);
    RULE(streq(a, b));
}

/* ---- the REST API ---- */

struct bench {
    struct engine *engine;
    struct rest *rest;
    bool failing;
    unsigned commits;
};

static void check_batch(const struct batch *batch)
{
    for (size_t i = 0; i < batch->n; i++) {
        const struct change *c = &batch->changes[i];
        CLEANUP_FREE char *text = c->dataset     ? record_dataset_encode(c->dataset)
                                  : c->container ? record_container_encode(c->container)
                                  : c->lease     ? record_lease_encode(c->lease)
                                                 : xstrdup("gone");
        RULE(text && *c->key);
    }
}

static void carry_out(struct bench *b, const struct effect *f)
{
    if (f->kind == EFFECT_REPLY) {
        rest_reply(b->rest, f->command, &f->result);
    } else if (f->kind == EFFECT_CHANGED) {
        rest_changed(b->rest, f->object, f->name);
    } else if (f->kind == EFFECT_COMMIT) {
        check_batch(f->batch);
        if (b->failing && b->commits++ & 1)
            engine_commit_failed(b->engine, now_os(), f->batch->id, "the disk\nis full");
        else
            engine_committed(b->engine, now_os(), f->batch->id);
    }
}

static void drain(void *cookie)
{
    struct bench *b = cookie;
    struct effect *f;

    engine_flush(b->engine, now_os());
    while ((f = engine_next(b->engine))) {
        carry_out(b, f);
        effect_free(f);
        engine_flush(b->engine, now_os());
    }
}

static void submit(void *cookie, struct command *c)
{
    struct bench *b = cookie;

    engine_command(b->engine, now_os(), c);
}

static const char *value_of(const char *head, const char *name)
{
    CLEANUP_FREE char *start = xasprintf("\r\n%s: ", name);
    const char *at = strstr(head, start);

    return at ? at + strlen(start) : NULL;
}

/* One answer; returns what follows it. NULL: it cannot be told how long it is (an answer to HEAD, an endless one). */
static const char *check_answer(const char *said, const char *end)
{
    const char *head_end = strstr(said, "\r\n\r\n");
    unsigned status = (unsigned)strtoul(said + strlen("HTTP/1.1 "), NULL, 10);

    RULE(str_has_prefix(said, "HTTP/1.1 ") && status >= 100 && status < 600 && head_end);
    CLEANUP_FREE char *head = xstrndup(said, (size_t)(head_end + 2 - said));
    const char *length = value_of(head, "Content-Length"), *body = head_end + 4;
    RULE(status == 100 || value_of(head, "Connection"));
    if (status == 100 || status == 304)
        return body;
    if (!length)
        return NULL;
    size_t n = strtoul(length, NULL, 10);
    if (n > (size_t)(end - body) || str_has_prefix(body, "HTTP/1.1 "))
        return NULL;
    if (str_has_prefix(value_of(head, "Content-Type"), "text/plain; ")) { /* the metrics */
        RULE(status == 200 && n > 0 && body[n - 1] == '\n');
        return body + n;
    }
    json_t *v = NULL;
    RULE(!json_parse(body, n, &v));
    RULE(status < 400 || json_is_string(json_object_get(v, "description")));
    json_decref(v);
    return body + n;
}

static void rest_talk(const uint8_t *data, size_t size, bool failing)
{
    static const struct uuid store = {{0x5, 1, 1, 1, 1, 1, 0x41, 1, 0x81}};
    struct generation life = {store, 0};
    uint64_t seed = size;
    struct bench b = {.failing = failing};
    CLEANUP(talk_done) struct talk t = {0};
    struct http_server *s = NULL;

    b.engine = engine_new(&(struct history){store, &life, 1}, 0, random_seeded(&seed));
    b.rest = rest_new(&(struct rest_config){
        .loop = loop, .engine = b.engine, .submit = submit, .cookie = &b});
    RULE(!http_server_new(loop, &(struct http_server_config){0}, rest_handle, b.rest, &s));
    loop_on_idle(loop, drain, &b);
    talk(&t, s, data, size, NULL);
    if (t.said.len && !memchr(t.said.data, '\0', t.said.len)) {
        for (const char *p = t.said.data; p && *p;)
            p = check_answer(p, t.said.data + t.said.len);
    }
    http_server_free(s);
    run(&(struct talk){.fd = -1});
    rest_free(b.rest);
    loop_off_idle(loop, drain, &b);
    engine_free(b.engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t state = fuzz_hash(data, size);
    struct random r = random_seeded(&state);

    if (!loop)
        RULE(!loop_new(&loop));
    switch (size ? data[0] : 0) {
    case 'e':
        echo_twice(data + 1, size - 1, &r);
        return 0;
    case 'r':
    case 'R':
        rest_talk(data + 1, size - 1, data[0] == 'R');
        return 0;
    default:
        return -1;
    }
}
