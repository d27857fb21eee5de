/* The HTTP server through real sockets. The loop runs on a thread of its own; the test, on the main
 * thread, is the client and reaches into the server through on_loop(). */
#include "base/now.h"
#include "certs.h"
#include "net/handed.h"
#include "net/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"

#include <cmocka.h>

#define MS USEC_PER_MSEC
#define BIG_BYTES (8u << 20)

static char dir[256];
static struct certs_ca ca_a, ca_b;
static struct loop *loop;
static pthread_t loop_thread;
static struct http_server *server;
static uint16_t port;
static char *big;

/* What the handlers do and see; written on the loop, read by the test. */
static struct http_request *held[64];
static atomic_uint held_count, closes, releases, handled, stops;

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Waits until *v is `want`, at most 5 s. */
static void wait_for(atomic_uint *v, unsigned want, const char *what)
{
    for (int i = 0; i < 1000 && atomic_load(v) != want; i++)
        sleep_ms(5);
    if (atomic_load(v) != want)
        fail_msg("%s: %u instead of %u", what, atomic_load(v), want);
}

/* ---- handlers ---- */

static void on_close(void *cookie)
{
    atomic_fetch_add(&closes, 1);
}

static void release(void *cookie)
{
    atomic_fetch_add(&releases, 1);
}

static void reply_echo(struct http_request *r)
{
    CLEANUP_STR struct str s = {0};
    const char *value;
    size_t len;
    const char *body = http_request_body(r, &len);
    CLEANUP_FREE char *x = http_request_query_value(r, "x");

    str_appendf(&s, "%s|%s|%s|%s|", http_method_name(http_request_method(r)), http_request_path(r),
                http_request_query(r), x ? x : "-");
    for (unsigned i = 0; (value = http_request_header(r, "X-Tag", i)); i++)
        str_appendf(&s, "%s,", value);
    str_append(&s, "|");
    str_append_bytes(&s, body, len);
    struct http_header headers[] = {{"X-Echo", "yes"}, {"X-Bad", "a\r\nInjected: 1"}};
    http_reply(r, 200, headers, http_request_method(r) == HTTP_DELETE ? 2 : 1, s.data, s.len);
}

static void reply_peer(struct http_request *r)
{
    const struct http_peer *p = http_request_peer(r);
    CLEANUP_STR struct str s = {0};

    str_appendf(&s, "%s", p->has_identity ? tls_identity_user(&p->identity) : "-");
    if (p->has_uid)
        str_appendf(&s, "|%d", p->uid == getuid() && p->pid == getpid());
    http_reply(r, 200, NULL, 0, s.data, s.len);
}

static void hold(struct http_request *r)
{
    http_request_on_close(r, on_close, NULL);
    held[atomic_load(&held_count)] = r;
    atomic_fetch_add(&held_count, 1);
}

static void handler(struct http_request *r, void *cookie)
{
    const char *path = http_request_path(r);

    atomic_fetch_add(&handled, 1);
    if (streq(path, "/peer")) {
        reply_peer(r);
    } else if (streq(path, "/hold")) {
        hold(r);
    } else if (streq(path, "/drop")) {
        http_drop(r);
    } else if (streq(path, "/big")) {
        http_reply_shared(r, 200, NULL, 0, big, BIG_BYTES, release, NULL);
    } else if (streq(path, "/error")) {
        http_reply_error(r, 409, "It's \"%s\"\n\x01\\", "so");
    } else if (streq(path, "/none")) {
        http_reply(r, 204, NULL, 0, NULL, 0);
    } else if (streq(path, "/stream")) {
        struct http_header type = {"Content-Type", "text/event-stream"};

        http_stream_start(r, 200, &type, 1);
        http_stream_write(r, "data: 1\n\n", 9);
        hold(r);
    } else {
        reply_echo(r);
    }
}

/* ---- the server's thread ---- */

struct call {
    void (*fn)(void *cookie);
    void *cookie;
    sem_t done;
};

static void call_run(void *cookie)
{
    struct call *c = cookie;

    c->fn(c->cookie);
    sem_post(&c->done);
}

/* Runs fn on the loop and waits for it. */
static void on_loop(void (*fn)(void *cookie), void *cookie)
{
    struct call c = {.fn = fn, .cookie = cookie};
    struct timespec until;

    sem_init(&c.done, 0, 0);
    loop_post(loop, call_run, &c);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    assert_int_equal(sem_timedwait(&c.done, &until), 0);
    sem_destroy(&c.done);
}

static void *loop_main(void *cookie)
{
    struct err *e = loop_run(loop);

    if (e)
        abort();
    return NULL;
}

static void make_server(void *cookie)
{
    struct http_server_config *config = cookie;

    if (http_server_new(loop, config, handler, NULL, &server) ||
        http_server_listen_tcp(server, "127.0.0.1", 0, &port))
        abort();
}

static void start(struct http_server_config config)
{
    on_loop(make_server, &config);
    SSL_CTX_free(config.tls); /* the server has its own reference */
}

static void free_server(void *cookie)
{
    server = http_server_free(server);
}

static void answer_held(void *cookie)
{
    for (unsigned i = 0; i < atomic_load(&held_count); i++) {
        if (held[i])
            http_reply(held[i], 200, NULL, 0, "late", 4);
        held[i] = NULL;
    }
    atomic_store(&held_count, 0);
}

static void stop_loop(void *cookie)
{
    loop_stop(loop);
}

static int setup(void **state)
{
    atomic_store(&held_count, 0);
    atomic_store(&closes, 0);
    atomic_store(&releases, 0);
    atomic_store(&handled, 0);
    atomic_store(&stops, 0);
    server = NULL;
    assert_null(loop_new(&loop));
    assert_int_equal(pthread_create(&loop_thread, NULL, loop_main, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    on_loop(free_server, NULL);
    on_loop(answer_held, NULL); /* handles outlive connection and server */
    loop_post(loop, stop_loop, NULL);
    pthread_join(loop_thread, NULL);
    loop = loop_free(loop);
    return 0;
}

/* ---- the client ---- */

static int dial_to(const struct sockaddr *sa, socklen_t len)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = {.tv_sec = 5};

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    if (connect(fd, sa, len) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int dial(void)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = dial_to((struct sockaddr *)&in, sizeof(in));

    assert_true(fd >= 0);
    return fd;
}

static void put_bytes(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t w = send(fd, bytes, n, MSG_NOSIGNAL);

        if (w <= 0)
            return; /* the other side closed: what it said will be looked at */
        bytes += w;
        n -= (size_t)w;
    }
}

static void put(int fd, const char *text)
{
    put_bytes(fd, text, strlen(text));
}

/* Reads until `text` has come (or the end); the caller frees. */
static char *get_until(int fd, const char *text)
{
    struct str s = {0};
    char buf[4096];
    ssize_t n;

    str_append(&s, "");
    while (!(text && s.data && strstr(s.data, text)) && (n = recv(fd, buf, sizeof(buf), 0)) > 0)
        str_append_bytes(&s, buf, (size_t)n);
    return str_steal(&s);
}

/* Reads to the end of the connection; fails when it does not end within 5 s or ends with a reset.
 */
static char *get_all(int fd)
{
    struct str s = {0};
    char buf[65536];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
        str_append_bytes(&s, buf, (size_t)n);
    if (n < 0)
        fail_msg("the connection did not end well: %s", strerror(errno));
    return str_steal(&s);
}

static void expect(const char *got, const char *words)
{
    if (!strstr(got, words))
        fail_msg("wanted \"%s\", got \"%s\"", words, got);
}

/* One connection: sends, reads all, closes. */
static char *talk(const char *text)
{
    int fd = dial();

    put(fd, text);
    char *got = get_all(fd);
    close(fd);
    return got;
}

static uint64_t mono_ms(void)
{
    return now_os().mono_us / 1000;
}

/* ---- tests: requests and answers ---- */

static void test_methods(void **state)
{
    static const char *const methods[] = {"GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};
    int fd;

    start((struct http_server_config){0});
    fd = dial(); /* one connection for all */
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        CLEANUP_FREE char *text =
            xasprintf("%s /a%%20b?x=1%%2B HTTP/1.1\r\nX-Tag: p\r\nx-tag: q\r\n"
                      "Content-Length: 4\r\n\r\nbody",
                      methods[i]);
        CLEANUP_FREE char *want = xasprintf("\r\n\r\n%s|/a b|x=1%%2B|1+|p,q,|body", methods[i]);

        put(fd, text);
        CLEANUP_FREE char *got = get_until(fd, want);
        expect(got, "HTTP/1.1 200 OK\r\nDate: ");
        expect(got, "\r\nX-Echo: yes\r\nContent-Type: application/json\r\nContent-Length: ");
        expect(got, "\r\nConnection: keep-alive\r\n");
        expect(got, want);
        assert_null(strstr(got, "Injected"));
    }
    put(fd, "HEAD /x HTTP/1.1\r\nConnection: close\r\n\r\n");
    CLEANUP_FREE char *got = get_all(fd);
    expect(got, "Content-Length: 12\r\nConnection: close\r\n\r\n");
    assert_int_equal(strcmp(strstr(got, "\r\n\r\n"), "\r\n\r\n"), 0); /* no body */
    close(fd);
    assert_int_equal(atomic_load(&handled), ARRAY_SIZE(methods) + 1);
}

static void test_kinds_of_answers(void **state)
{
    start((struct http_server_config){0});
    CLEANUP_FREE char *error = talk("GET /error HTTP/1.0\r\n\r\n");
    expect(error, "HTTP/1.1 409 Conflict\r\n");
    expect(error, "\r\n\r\n{\"description\": \"It's \\\"so\\\"\\n\\u0001\\\\\"}");
    CLEANUP_FREE char *none = talk("GET /none HTTP/1.1\r\nConnection: close\r\n\r\n");
    expect(none, "HTTP/1.1 204 No Content\r\n");
    assert_null(strstr(none, "Content-"));
    CLEANUP_FREE char *drop = talk("GET /drop HTTP/1.1\r\n\r\n");
    assert_string_equal(drop, "");
    CLEANUP_FREE char *all = talk("GET /big HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_int_equal(strlen(strstr(all, "\r\n\r\n") + 4), BIG_BYTES);
    wait_for(&releases, 1, "releases");
    CLEANUP_FREE char *head = talk("HEAD /big HTTP/1.1\r\nConnection: close\r\n\r\n");
    expect(head, "Content-Length: 8388608\r\n");
    wait_for(&releases, 2, "releases");
}

static void test_pipelining(void **state)
{
    start((struct http_server_config){0});
    CLEANUP_FREE char *got = talk("\r\nPOST /1 HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"
                                  "POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "3\r\ncde\r\n2\r\nfg\r\n0\r\n\r\n"
                                  "GET /3 HTTP/1.1\r\nConnection: close\r\n\r\n"
                                  "GET /never HTTP/1.1\r\n\r\n");
    const char *one = strstr(got, "POST|/1||-||ab"), *two = strstr(got, "POST|/2||-||cdefg");
    const char *three = strstr(got, "GET|/3||-||");

    assert_true(one && two && three && one < two && two < three);
    assert_null(strstr(got, "never"));
    /* A request that follows a held one waits its turn. */
    int fd = dial();
    put(fd, "GET /hold HTTP/1.1\r\n\r\nGET /after HTTP/1.1\r\nConnection: close\r\n\r\n");
    wait_for(&held_count, 1, "held");
    sleep_ms(20);
    assert_int_equal(atomic_load(&handled), 4);
    on_loop(answer_held, NULL);
    CLEANUP_FREE char *both = get_all(fd);
    expect(both, "\r\n\r\nlateHTTP/1.1 200 OK");
    expect(both, "GET|/after");
    close(fd);
}

/* The empty line that old clients send in front of a request, in two pieces. */
static void test_empty_line_in_pieces(void **state)
{
    start((struct http_server_config){0});
    int fd = dial();

    put(fd, "\r");
    sleep_ms(20);
    put(fd, "\nGET /1 HTTP/1.1\r\nConnection: close\r\n\r\n");
    CLEANUP_FREE char *got = get_all(fd);
    expect(got, "GET|/1");
    close(fd);
}

static void test_half_closed_client_is_served(void **state)
{
    start((struct http_server_config){0});
    int fd = dial();
    put(fd, "GET /1 HTTP/1.1\r\n\r\nGET /big HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
    shutdown(fd, SHUT_WR);
    CLEANUP_FREE char *got = get_all(fd);
    expect(got, "GET|/1");
    expect(got, "GET|/3");
    close(fd);
}

static void test_garbage(void **state)
{
    static const char *const cases[] = {
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "hello\r\n",
        "GET / HTTP/1.1\n\n",
        "GET /1 HTTP/1.1\r\n\r\n{{{{",
        "POST / HTTP/1.1\r\nContent-Length : 4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nbody",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    };

    start((struct http_server_config){0});
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *got = talk(cases[i]);

        expect(got, "HTTP/1.1 400 Bad Request\r\n");
        expect(got, "\r\nConnection: close\r\n\r\n{\"description\": \"");
    }
    int fd = dial();
    put_bytes(fd, "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 26);
    CLEANUP_FREE char *nul = get_all(fd);
    expect(nul, "holds a NUL byte");
    close(fd);
    assert_int_equal(atomic_load(&handled), 1); /* "/1" */
}

static void test_expect_continue(void **state)
{
    start((struct http_server_config){0});
    int fd = dial();
    put(fd, "POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n"
            "Connection: close\r\n\r\n");
    CLEANUP_FREE char *go = get_until(fd, "\r\n\r\n");
    assert_string_equal(go, "HTTP/1.1 100 Continue\r\n\r\n");
    put(fd, "abc");
    CLEANUP_FREE char *got = get_all(fd);
    expect(got, "POST|/||-||abc");
    close(fd);
}

/* ---- tests: held requests and streams ---- */

static void test_deferred_answer(void **state)
{
    start((struct http_server_config){
        .idle_us = 50 * MS, .stall_us = 50 * MS, .request_us = 50 * MS});
    int fd = dial();
    put(fd, "GET /hold HTTP/1.1\r\nConnection: close\r\n\r\n");
    wait_for(&held_count, 1, "held");
    sleep_ms(120); /* no deadline of the connection ends a held request */
    on_loop(answer_held, NULL);
    CLEANUP_FREE char *got = get_all(fd);
    expect(got, "\r\n\r\nlate");
    assert_int_equal(atomic_load(&closes), 0);
    close(fd);
}

static void late_on_close(void *cookie)
{
    http_request_on_close(held[0], on_close, NULL);
    http_request_on_close(held[1], on_close, NULL);
    http_drop(held[1]); /* takes its call back */
    held[1] = NULL;
}

static void test_client_leaves_before_the_answer(void **state)
{
    start((struct http_server_config){0});
    for (unsigned i = 0; i < 20; i++) {
        int fd = dial();

        put(fd, "POST /hold HTTP/1.1\r\nContent-Length: 1\r\n\r\nx");
        wait_for(&held_count, i + 1, "held");
        if (i % 2) /* a reset instead of an end */
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
        close(fd);
    }
    wait_for(&closes, 20, "on-close calls");
    assert_int_equal(http_server_connections(server), 0);
    on_loop(late_on_close, NULL); /* set when the client has gone already: called soon */
    wait_for(&closes, 21, "on-close calls");
    sleep_ms(10);
    assert_int_equal(atomic_load(&closes), 21);
    on_loop(answer_held, NULL); /* harmless */
}

static void test_handles_outlive_the_server(void **state)
{
    start((struct http_server_config){0});
    int fd = dial(), fd2 = dial();
    put(fd, "GET /hold HTTP/1.1\r\n\r\n");
    put(fd2, "GET /stream HTTP/1.1\r\n\r\n");
    wait_for(&held_count, 2, "held");
    on_loop(free_server, NULL);
    assert_int_equal(atomic_load(&closes), 2);
    on_loop(answer_held, NULL);
    close(fd);
    close(fd2);
}

static void stream_write(void *cookie)
{
    http_stream_write(held[0], cookie, strlen(cookie));
}

static void stream_end(void *cookie)
{
    http_stream_end(held[0]);
    held[0] = NULL;
}

static void test_stream(void **state)
{
    start((struct http_server_config){.stall_us = 50 * MS});
    int fd = dial();
    put(fd, "GET /stream HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\nConnection: close\r\n\r\n");
    CLEANUP_FREE char *first = get_until(fd, "9\r\ndata: 1\n\n\r\n");
    expect(first, "\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n");
    sleep_ms(120); /* quiet, but nobody stalls */
    on_loop(stream_write, (void *)"data: two\n\n");
    CLEANUP_FREE char *second = get_until(fd, "\n\n\r\n");
    assert_string_equal(second, "b\r\ndata: two\n\n\r\n");
    on_loop(stream_end, NULL);
    CLEANUP_FREE char *rest = get_all(fd);
    assert_int_equal(strncmp(rest, "0\r\n\r\nHTTP/1.1 200 OK", 20), 0);
    expect(rest, "GET|/next");
    close(fd);
    assert_int_equal(atomic_load(&closes), 0);
    /* HTTP/1.0 knows no chunks: the end of the connection is the end. */
    atomic_store(&held_count, 0);
    fd = dial();
    put(fd, "GET /stream HTTP/1.0\r\n\r\n");
    wait_for(&held_count, 1, "held");
    on_loop(stream_end, NULL);
    CLEANUP_FREE char *old = get_all(fd);
    expect(old, "Connection: close\r\n\r\ndata: 1\n\n");
    close(fd);
}

static void test_stream_client_goes(void **state)
{
    start((struct http_server_config){0});
    for (unsigned i = 0; i < 20; i++) {
        int fd = dial();

        put(fd, "GET /stream HTTP/1.1\r\n\r\n");
        CLEANUP_FREE char *got = get_until(fd, "data: 1");
        close(fd);
    }
    wait_for(&closes, 20, "on-close calls");
    on_loop(stream_write, (void *)"nobody listens");
    on_loop(answer_held, NULL);
}

static atomic_size_t queued;

static void stream_flood(void *cookie)
{
    for (int i = 0; i < 8 && !http_request_is_gone(held[0]); i++)
        http_stream_write(held[0], big, BIG_BYTES);
    atomic_store(&queued, http_stream_queued(held[0]));
}

static void test_slow_reader_of_a_stream(void **state)
{
    start((struct http_server_config){.stall_us = 200 * MS});
    int fd = dial();
    put(fd, "GET /stream HTTP/1.1\r\n\r\n");
    wait_for(&held_count, 1, "held");
    on_loop(stream_flood, NULL);
    assert_true(atomic_load(&queued) > BIG_BYTES); /* the handler can see it */
    wait_for(&closes, 1, "on-close calls");        /* and the server acts */
    assert_int_equal(http_server_connections(server), 0);
    close(fd);
}

static void test_slow_reader_of_an_answer(void **state)
{
    char buf[1000];
    int fd, small = 4096;

    start((struct http_server_config){.stall_us = 150 * MS});
    fd = dial();
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    /* More than any socket buffer takes. */
    put(fd, "GET /big HTTP/1.1\r\n\r\nGET /big HTTP/1.1\r\n\r\n");
    uint64_t began = mono_ms();
    while (atomic_load(&releases) == 0 && mono_ms() - began < 5000) {
        if (recv(fd, buf, 1, MSG_DONTWAIT) == 0) /* a byte now and then is not progress */
            break;
        sleep_ms(10);
    }
    wait_for(&releases, 1, "releases");
    assert_true(mono_ms() - began < 3000);
    close(fd);
}

/* ---- tests: limits ---- */

static void test_size_limits(void **state)
{
    CLEANUP_STR struct str head = {0}, chunked = {0};

    start((struct http_server_config){.max_header_bytes = 1000, .max_body_bytes = 1000});
    str_append(&head, "GET / HTTP/1.1\r\nA: ");
    for (int i = 0; i < 2000; i++)
        str_append(&head, "x");
    str_append(&head, "\r\n\r\n");
    CLEANUP_FREE char *a = talk(head.data);
    expect(a, "HTTP/1.1 431 ");
    expect(a, "{\"description\": \"The head of the request is too large.\"}");
    CLEANUP_FREE char *b = talk("POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n");
    expect(b, "HTTP/1.1 413 ");
    expect(b, "{\"description\": \"The body of the request is too large.\"}");
    str_append(&chunked, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 101; i++)
        str_append(&chunked, "A\r\n0123456789\r\n");
    CLEANUP_FREE char *c = talk(chunked.data);
    expect(c, "HTTP/1.1 413 ");
    CLEANUP_FREE char *d = talk("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                                "fffffffffffffff\r\nabc");
    expect(d, "HTTP/1.1 413 ");
    assert_int_equal(atomic_load(&handled), 0);
    /* Refused while it still sends: the answer must arrive all the same. */
    int fd = dial();
    put(fd, "POST / HTTP/1.1\r\nContent-Length: 4000000\r\n\r\n");
    put_bytes(fd, big, 4000000);
    CLEANUP_FREE char *e = get_all(fd);
    expect(e, "HTTP/1.1 413 ");
    close(fd);
    CLEANUP_FREE char *f =
        talk("POST / HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
    expect(f, "HTTP/1.1 200 ");
}

/* Sends `text` a byte each 20 ms until the server ends it; how long that took. */
static uint64_t drip(const char *text, char **ret_got)
{
    uint64_t began = mono_ms();
    int fd = dial();

    for (const char *p = text; *p && mono_ms() - began < 4000; p++) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};

        put_bytes(fd, p, 1);
        if (poll(&pfd, 1, 20) > 0)
            break;
    }
    *ret_got = get_until(fd, NULL);
    close(fd);
    return mono_ms() - began;
}

static void test_time_limits(void **state)
{
    CLEANUP_STR struct str slow_body = {0}, slow_head = {0};
    uint64_t began;

    start((struct http_server_config){
        .idle_us = 300 * MS, .stall_us = 200 * MS, .request_us = 600 * MS});
    began = mono_ms(); /* nothing at all */
    CLEANUP_FREE char *idle = talk("");
    assert_string_equal(idle, "");
    assert_in_range(mono_ms() - began, 290, 2000);
    began = mono_ms(); /* idle after a request */
    CLEANUP_FREE char *again = talk("GET / HTTP/1.1\r\n\r\n");
    expect(again, "200 OK");
    assert_in_range(mono_ms() - began, 290, 2000);
    began = mono_ms(); /* a head that stops */
    CLEANUP_FREE char *head = talk("GET / HTTP/1.1\r\nHost");
    expect(head, "HTTP/1.1 408 Request Timeout\r\n");
    assert_in_range(mono_ms() - began, 190, 2000);
    began = mono_ms(); /* a body that stops */
    CLEANUP_FREE char *body = talk("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc");
    expect(body, "HTTP/1.1 408 Request Timeout\r\n");
    assert_in_range(mono_ms() - began, 190, 2000);
    /* One byte after the other: never stalls, and ends at the absolute deadline. */
    str_append(&slow_head, "GET / HTTP/1.1\r\nA: ");
    str_append(&slow_body, "POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n");
    for (int i = 0; i < 300; i++) {
        str_append(&slow_head, "x");
        str_append(&slow_body, "x");
    }
    CLEANUP_FREE char *got_head = NULL, *got_body = NULL;
    assert_in_range(drip(slow_head.data, &got_head), 590, 3500);
    expect(got_head, "HTTP/1.1 408 ");
    assert_in_range(drip(slow_body.data, &got_body), 590, 3500);
    expect(got_body, "HTTP/1.1 408 ");
    assert_int_equal(atomic_load(&handled), 1);
}

static void test_held_limit(void **state)
{
    int fd[3];

    start((struct http_server_config){.max_held = 2});
    for (unsigned i = 0; i < 2; i++) {
        fd[i] = dial();
        put(fd[i], i ? "GET /stream HTTP/1.1\r\n\r\n" : "GET /hold HTTP/1.1\r\n\r\n");
        wait_for(&held_count, i + 1, "held");
    }
    fd[2] = dial();
    put(fd[2], "GET /hold HTTP/1.1\r\n\r\n");
    CLEANUP_FREE char *got = get_until(fd[2], "later.\"}");
    expect(got, "HTTP/1.1 503 Service Unavailable\r\n");
    expect(got, "\r\nRetry-After: 1\r\n");
    expect(got, "\r\nConnection: keep-alive\r\n"); /* the same connection may try again */
    close(fd[0]);
    wait_for(&closes, 1, "on-close calls");
    put(fd[2], "GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
    CLEANUP_FREE char *now = get_all(fd[2]);
    expect(now, "HTTP/1.1 200 OK\r\n");
    close(fd[1]);
    close(fd[2]);
}

static int dial_from(const char *source)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(inet_pton(AF_INET, source, &from.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static bool is_closed(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

/* All connections wait for their answers: the next client waits too. */
static void test_connection_limit(void **state)
{
    start((struct http_server_config){.max_connections = 2});
    int a = dial(), b = dial();
    put(a, "GET /hold HTTP/1.1\r\n\r\n");
    put(b, "GET /hold HTTP/1.1\r\n\r\n");
    wait_for(&held_count, 2, "held");
    int c = dial(); /* waits in the kernel's queue */
    put(c, "GET /3 HTTP/1.1\r\nConnection: close\r\n\r\n");
    sleep_ms(150);
    assert_int_equal(atomic_load(&handled), 2);
    close(a);
    CLEANUP_FREE char *three = get_all(c);
    expect(three, "GET|/3");
    close(b);
    close(c);
}

/* Who holds most connections and does nothing with them, loses the oldest of those. */
static void test_crowd(void **state)
{
    start((struct http_server_config){.max_connections = 4});
    int lone = dial_from("127.0.0.3"), busy = dial_from("127.0.0.2");
    put(busy, "GET /hold HTTP/1.1\r\n\r\n");
    wait_for(&held_count, 1, "held");
    int slow = dial_from("127.0.0.2");
    put(slow, "GET / HT");
    sleep_ms(30);
    int idle = dial_from("127.0.0.2");
    put(idle, "GET /1 HTTP/1.1\r\n\r\n");
    CLEANUP_FREE char *one = get_until(idle, "GET|/1");
    int fresh = dial_from("127.0.0.4");
    put(fresh, "GET /2 HTTP/1.1\r\n\r\n");
    CLEANUP_FREE char *two = get_until(fresh, "GET|/2");
    assert_true(is_closed(slow));
    assert_false(is_closed(idle));
    put(lone, "GET /3 HTTP/1.1\r\n\r\n");
    CLEANUP_FREE char *three = get_until(lone, "GET|/3");
    int next = dial_from("127.0.0.4");
    put(next, "GET /4 HTTP/1.1\r\n\r\n");
    CLEANUP_FREE char *four = get_until(next, "GET|/4");
    assert_true(is_closed(idle)); /* the one that is busy is the service's turn */
    close(slow);
    close(idle);
    close(busy);
    close(lone);
    close(fresh);
    close(next);
}

/* ---- tests: stopping and listening ---- */

static void stopped(void *cookie)
{
    atomic_fetch_add(&stops, 1);
}

static void stop_server(void *cookie)
{
    http_server_stop(server, now_os().mono_us + *(uint64_t *)cookie, stopped, NULL);
}

static void test_graceful_stop(void **state)
{
    uint64_t grace = 5 * USEC_PER_SEC;

    start((struct http_server_config){0});
    int idle = dial(), busy = dial(), stream = dial(), partial = dial();
    put(idle, "GET / HTTP/1.1\r\n\r\n");
    CLEANUP_FREE char *first = get_until(idle, "GET|/");
    put(stream, "GET /stream HTTP/1.1\r\n\r\n");
    wait_for(&held_count, 1, "held");
    put(busy, "GET /hold HTTP/1.1\r\n\r\n");
    wait_for(&held_count, 2, "held");
    put(partial, "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na");
    sleep_ms(30);
    on_loop(stop_server, &grace);
    CLEANUP_FREE char *nothing = get_all(idle);
    assert_string_equal(nothing, "");
    CLEANUP_FREE char *events = get_all(stream);
    expect(events, "data: 1\n\n\r\n0\r\n\r\n");
    assert_int_equal(atomic_load(&closes), 1);
    assert_int_equal(atomic_load(&stops), 0);
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(dial_to((struct sockaddr *)&in, sizeof(in)), -1);
    put(partial, "bc");
    CLEANUP_FREE char *whole = get_all(partial);
    expect(whole, "POST|/||-||abc");
    on_loop(answer_held, NULL);
    CLEANUP_FREE char *late = get_all(busy);
    expect(late, "Connection: close\r\n\r\nlate");
    close(busy);
    close(partial);
    close(idle);
    close(stream);
    wait_for(&stops, 1, "stops");
}

static void test_stop_at_the_deadline(void **state)
{
    uint64_t grace = 100 * MS, began;

    start((struct http_server_config){0});
    int fd = dial();
    put(fd, "GET /hold HTTP/1.1\r\n\r\n");
    wait_for(&held_count, 1, "held");
    began = mono_ms();
    on_loop(stop_server, &grace);
    wait_for(&stops, 1, "stops");
    assert_in_range(mono_ms() - began, 95, 2000);
    assert_int_equal(atomic_load(&closes), 1);
    close(fd);
}

static struct err *listen_error;
static const char *listen_path;

static void listen_tcp_again(void *cookie)
{
    uint16_t got;

    listen_error = http_server_listen_tcp(server, cookie, port, &got);
}

static void listen_v6(void *cookie)
{
    listen_error = http_server_listen_tcp(server, "::1", 0, cookie);
}

static void listen_unix(void *cookie)
{
    listen_error = http_server_listen_unix(server, listen_path, 0600);
}

static void test_listen_errors(void **state)
{
    start((struct http_server_config){0});
    on_loop(listen_tcp_again, (void *)"127.0.0.1");
    assert_true(err_is(listen_error, ERR_BUSY));
    listen_error = err_free(listen_error);
    on_loop(listen_tcp_again, (void *)"192.0.2.1"); /* not ours */
    assert_non_null(listen_error);
    assert_non_null(strstr(listen_error->text, "cannot listen on 192.0.2.1 port"));
    listen_error = err_free(listen_error);
    on_loop(listen_tcp_again, (void *)"not an address");
    assert_true(err_is(listen_error, ERR_NOT_FOUND));
    listen_error = err_free(listen_error);
}

static void test_ipv6(void **state)
{
    uint16_t port6 = 0;

    start((struct http_server_config){0});
    on_loop(listen_v6, &port6);
    if (listen_error) {
        print_message("no IPv6 loopback here: %s\n", listen_error->text);
        listen_error = err_free(listen_error);
        skip();
    }
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port6), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = dial_to((struct sockaddr *)&in6, sizeof(in6));
    assert_true(fd >= 0);
    put(fd, "GET /six HTTP/1.1\r\nConnection: close\r\n\r\n");
    CLEANUP_FREE char *got = get_all(fd);
    expect(got, "GET|/six");
    close(fd);
}

static void test_unix_socket(void **state)
{
    CLEANUP_FREE char *path = xasprintf("%s/api.sock", dir);
    CLEANUP_FREE char *file = xasprintf("%s/a.crt", dir);
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct stat st;
    int stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
    assert_int_equal(bind(stale, (struct sockaddr *)&sun, sizeof(sun)), 0);
    close(stale); /* the file of a dead process stays */
    start((struct http_server_config){0});
    listen_path = path;
    on_loop(listen_unix, NULL);
    assert_null(listen_error);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    int fd = dial_to((struct sockaddr *)&sun, sizeof(sun));
    assert_true(fd >= 0);
    put(fd, "GET /peer HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n");
    CLEANUP_FREE char *got = get_all(fd);
    expect(got, "\r\n\r\n-|1");
    close(fd);
    on_loop(listen_unix, NULL); /* a second one: the first lives */
    assert_true(err_is(listen_error, ERR_BUSY));
    listen_error = err_free(listen_error);
    listen_path = file;
    on_loop(listen_unix, NULL);
    assert_true(err_is(listen_error, ERR_EXISTS));
    listen_error = err_free(listen_error);
    on_loop(free_server, NULL);
    assert_int_equal(stat(path, &st), -1); /* tidied up */
}

static void listen_fd(void *cookie)
{
    listen_error = http_server_listen_fd(server, *(int *)cookie);
}

static int listening(const struct sockaddr_un *sun)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (const struct sockaddr *)sun, sizeof(*sun)), 0);
    assert_int_equal(listen(fd, 5), 0);
    return fd;
}

/* A socket that somebody else made is served, and stays when the server goes. */
static void test_listen_fd(void **state)
{
    CLEANUP_FREE char *path = xasprintf("%s/handed.sock", dir);
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct stat st;
    int pair[2];

    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
    int fd = listening(&sun);
    start((struct http_server_config){0});
    on_loop(listen_fd, &fd);
    assert_null(listen_error);
    int client = dial_to((struct sockaddr *)&sun, sizeof(sun));
    assert_true(client >= 0);
    put(client, "GET /peer HTTP/1.1\r\nConnection: close\r\n\r\n");
    CLEANUP_FREE char *got = get_all(client);
    expect(got, "\r\n\r\n-|1");
    close(client);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    on_loop(listen_fd, &pair[0]);
    assert_true(err_is(listen_error, ERR_INVALID));
    listen_error = err_free(listen_error);
    assert_int_equal(fcntl(pair[0], F_GETFD), -1); /* taken all the same */
    close(pair[1]);
    on_loop(free_server, NULL);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(unlink(path), 0);
}

/* In a process of its own, as systemd starts one: socket number 3 is ours, number 4 is not. */
static int handed_child(int fd, int other, pid_t pid)
{
    char text[32];

    if (dup2(fd, 13) < 0 || dup2(other, 14) < 0 || dup2(13, 4) < 0 || dup2(14, 3) < 0)
        return 1;
    snprintf(text, sizeof(text), "%d", (int)(pid ? pid : getpid()));
    setenv("LISTEN_PID", text, 1);
    setenv("LISTEN_FDS", "2", 1);
    int first = handed_socket(AF_UNIX);
    if (pid)
        return first != -1;
    if (first != 4 || !(fcntl(4, F_GETFD) & FD_CLOEXEC) || !(fcntl(4, F_GETFL) & O_NONBLOCK))
        return 2;
    if (handed_socket(AF_UNIX) != -1 || handed_socket(AF_INET) != -1)
        return 3;
    setenv("LISTEN_FDS", "2x", 1);
    return handed_socket(AF_UNIX) == -1 ? 0 : 4;
}

static void expect_handed(int fd, int other, pid_t pid)
{
    int status = 0;
    pid_t child = fork();

    if (!child)
        _exit(handed_child(fd, other, pid));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_handed_socket(void **state)
{
    CLEANUP_FREE char *path = xasprintf("%s/systemd.sock", dir);
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int other = open("/dev/null", O_RDONLY | O_CLOEXEC);

    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
    int fd = listening(&sun);
    expect_handed(fd, other, 0);
    expect_handed(fd, other, 1); /* for somebody else */
    assert_int_equal(handed_socket(AF_UNIX), -1);
    close(fd);
    close(other);
    assert_int_equal(unlink(path), 0);
}

/* ---- tests: TLS ---- */

static SSL_CTX *context(const char *name, bool is_server)
{
    CLEANUP_FREE char *ca = xasprintf("%s/a.crt", dir);
    CLEANUP_FREE char *crt = xasprintf("%s/%s.crt", dir, name);
    CLEANUP_FREE char *key = xasprintf("%s/%s.key", dir, name);
    CLEANUP_FREE char *warning = NULL;
    struct tls *t = NULL;
    SSL_CTX *ctx = NULL;

    assert_null(tls_load(ca, crt, key, &warning, &t));
    if (is_server)
        assert_null(tls_server_context(t, TLS_KIND_USER, TLS_ALPN_HTTP1 | TLS_EOF_OK, &ctx));
    else
        assert_null(tls_client_context(t, TLS_KIND_CONTROL_SERVICE, TLS_EOF_OK, &ctx));
    tls_free(t);
    return ctx;
}

/* One request over TLS; what came back, "" when refused. */
static char *talk_tls(const char *cert, const char *text)
{
    SSL_CTX *ctx;
    SSL *ssl = NULL;
    struct str s = {0};
    char buf[65536];
    int fd = dial(), n;

    if (cert && !str_has_prefix(cert, "b-")) {
        ctx = context(cert, false);
        assert_null(tls_client_ssl(ctx, NULL, &ssl));
    } else { /* no certificate, or a foreign one: a client without our checks */
        ctx = SSL_CTX_new(TLS_client_method());
        if (cert) {
            CLEANUP_FREE char *crt = xasprintf("%s/%s.crt", dir, cert);
            CLEANUP_FREE char *key = xasprintf("%s/%s.key", dir, cert);

            assert_int_equal(SSL_CTX_use_certificate_file(ctx, crt, SSL_FILETYPE_PEM), 1);
            assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM), 1);
        }
        ssl = SSL_new(ctx);
        SSL_set_connect_state(ssl);
    }
    SSL_set_fd(ssl, fd);
    str_append(&s, "");
    if (SSL_do_handshake(ssl) == 1 && SSL_write(ssl, text, (int)strlen(text)) > 0) {
        while ((n = SSL_read(ssl, buf, sizeof(buf))) > 0)
            str_append_bytes(&s, buf, (size_t)n);
        if (s.len > 0 && SSL_get_error(ssl, n) != SSL_ERROR_ZERO_RETURN)
            fail_msg("the TLS connection ended without a good-bye");
    }
    ERR_clear_error();
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
    return str_steal(&s);
}

static void start_tls(struct http_server_config config)
{
    config.tls = context("control", true);
    start(config);
}

static void test_tls_peers(void **state)
{
    static const char *const refused[] = {"node", "control", NULL, "b-alice"};

    start_tls((struct http_server_config){0});
    CLEANUP_FREE char *alice = talk_tls("alice", "GET /peer HTTP/1.1\r\nConnection: close\r\n\r\n");
    expect(alice, "\r\n\r\nalice");
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        CLEANUP_FREE char *got =
            talk_tls(refused[i], "GET /peer HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert_string_equal(got, "");
    }
    assert_int_equal(atomic_load(&handled), 1);
    CLEANUP_FREE char *all = talk_tls("alice", "GET /big HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_int_equal(strlen(strstr(all, "\r\n\r\n") + 4), BIG_BYTES);
    CLEANUP_FREE char *bad = talk_tls("alice", "nonsense\r\n\r\n");
    expect(bad, "HTTP/1.1 400 ");
}

static void test_tls_big_bodies(void **state)
{
    CLEANUP_STR struct str s = {0};

    start_tls((struct http_server_config){0});
    str_append(&s, "POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n");
    str_append_bytes(&s, big, 1000000);
    CLEANUP_FREE char *got = talk_tls("alice", s.data);
    assert_int_equal(strlen(strstr(got, "\r\n\r\n") + 4), 1000000 + strlen("POST|/||-||"));
}

/* Requests without waiting for answers, more than is read ahead: none is left lying anywhere. */
static void test_tls_pipelining(void **state)
{
    const size_t n = 6000;
    size_t answers = 0;
    CLEANUP_STR struct str s = {0};

    start_tls((struct http_server_config){.stall_us = 1000 * MS});
    for (size_t i = 0; i < n; i++)
        str_appendf(&s, "GET /no/%zu/way HTTP/1.1\r\nHost: a\r\n\r\n", i);
    str_append(&s, "GET /last HTTP/1.1\r\nConnection: close\r\n\r\n");
    for (int round = 0; round < 5; round++) {
        CLEANUP_FREE char *got = talk_tls("alice", s.data);
        answers = 0;
        for (const char *p = got; (p = strstr(p, "HTTP/1.1 200 ")); p++)
            answers++;
        assert_int_equal(answers, n + 1);
    }
}

static void test_tls_client_leaves(void **state)
{
    SSL_CTX *ctx = context("alice", false);

    start_tls((struct http_server_config){0});
    for (unsigned i = 0; i < 10; i++) {
        const char *text = i % 2 ? "GET /hold HTTP/1.1\r\n\r\n" : "GET /stream HTTP/1.1\r\n\r\n";
        SSL *ssl = NULL;
        int fd = dial();

        assert_null(tls_client_ssl(ctx, NULL, &ssl));
        SSL_set_fd(ssl, fd);
        assert_int_equal(SSL_do_handshake(ssl), 1);
        assert_true(SSL_write(ssl, text, (int)strlen(text)) > 0);
        wait_for(&held_count, i + 1, "held");
        if (i % 3 == 0)
            SSL_shutdown(ssl);
        SSL_free(ssl);
        close(fd);
    }
    SSL_CTX_free(ctx);
    wait_for(&closes, 10, "on-close calls");
    on_loop(answer_held, NULL);
}

static void test_not_tls_on_the_tls_port(void **state)
{
    start_tls((struct http_server_config){.handshake_us = 300 * MS, .idle_us = 400 * MS});
    CLEANUP_FREE char *plain = talk("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(plain, "HTTP/1.1 400 Bad Request\r\n");
    expect(plain, "{\"description\": \"This port speaks HTTPS only, with client certificates.\"}");
    int fd = dial();
    put_bytes(fd, big, 100000); /* garbage */
    CLEANUP_FREE char *garbage = get_until(fd, NULL);
    assert_null(strstr(garbage, "HTTP"));
    close(fd);
    uint64_t began = mono_ms(); /* half a ClientHello, then silence */
    fd = dial();
    put_bytes(fd, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
    CLEANUP_FREE char *half = get_until(fd, NULL);
    assert_in_range(mono_ms() - began, 290, 2000);
    close(fd);
    began = mono_ms(); /* nothing at all */
    fd = dial();
    CLEANUP_FREE char *nothing = get_until(fd, NULL);
    assert_in_range(mono_ms() - began, 290, 2000);
    close(fd);
    assert_int_equal(atomic_load(&handled), 0);
    wait_for(&closes, 0, "on-close calls");
}

static int group_setup(void **state)
{
    certs_dir_make(dir, sizeof(dir));
    certs_ca_new(&ca_a, CLUSTER_A);
    certs_ca_new(&ca_b, CLUSTER_B);
    certs_ca_write(&ca_a, dir, "a");
    certs_make(&ca_a, dir, "control", "control-service", NULL, CERTS_SAN_CONTROL);
    certs_make(&ca_a, dir, "alice", "user-alice", NULL, CERTS_CLIENT_AUTH);
    certs_make(&ca_a, dir, "node", "node-" NODE_1, NULL, 0);
    certs_make(&ca_b, dir, "b-alice", "user-alice", CLUSTER_A, CERTS_CLIENT_AUTH);
    big = xmalloc(BIG_BYTES + 1);
    memset(big, 'b', BIG_BYTES);
    big[BIG_BYTES] = '\0';
    return 0;
}

static int group_teardown(void **state)
{
    certs_ca_free(&ca_a);
    certs_ca_free(&ca_b);
    certs_dir_remove(dir);
    free(big);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_methods),
        TEST(test_kinds_of_answers),
        TEST(test_pipelining),
        TEST(test_empty_line_in_pieces),
        TEST(test_half_closed_client_is_served),
        TEST(test_garbage),
        TEST(test_expect_continue),
        TEST(test_deferred_answer),
        TEST(test_client_leaves_before_the_answer),
        TEST(test_handles_outlive_the_server),
        TEST(test_stream),
        TEST(test_stream_client_goes),
        TEST(test_slow_reader_of_a_stream),
        TEST(test_slow_reader_of_an_answer),
        TEST(test_size_limits),
        TEST(test_time_limits),
        TEST(test_held_limit),
        TEST(test_connection_limit),
        TEST(test_crowd),
        TEST(test_graceful_stop),
        TEST(test_stop_at_the_deadline),
        TEST(test_listen_errors),
        TEST(test_ipv6),
        TEST(test_unix_socket),
        TEST(test_listen_fd),
        TEST(test_handed_socket),
        TEST(test_tls_peers),
        TEST(test_tls_big_bodies),
        TEST(test_tls_pipelining),
        TEST(test_tls_client_leaves),
        TEST(test_not_tls_on_the_tls_port),
    };

    return cmocka_run_group_tests_name("http_server", tests, group_setup, group_teardown);
}
