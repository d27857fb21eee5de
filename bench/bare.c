/* What the REST API is compared with: libevent's own HTTP server with the same TLS set-up, and one fixed answer. Prints its
 * port, runs until it is killed. */
#include "base/str.h"
#include "measure.h"
#include "net/tls.h"

#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/http.h>
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

#define TAG "\"0123456789abcdef0123456789abcdef\""

struct bare {
    struct event_base *base;
    SSL_CTX *ctx;
    char *body;
    size_t n;
};

static struct bufferevent *accept_tls(struct event_base *base, void *cookie)
{
    struct bare *b = cookie;
    SSL *ssl = NULL;
    CLEANUP_ERR struct err *e = tls_server_ssl(b->ctx, &ssl);

    if (e)
        return NULL;
    return bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
}

static void answer(struct evhttp_request *r, void *cookie)
{
    struct bare *b = cookie;
    struct evkeyvalq *out = evhttp_request_get_output_headers(r);
    const char *has = evhttp_find_header(evhttp_request_get_input_headers(r), "If-None-Match");

    (void)evhttp_add_header(out, "ETag", TAG);
    (void)evhttp_add_header(out, "Cache-Control", "no-cache");
    (void)evhttp_add_header(out, "Content-Type", "application/json");
    if (has && streq(has, TAG)) {
        evhttp_send_reply(r, 304, "Not Modified", NULL);
        return;
    }
    (void)evbuffer_add_reference(evhttp_request_get_output_buffer(r), b->body, b->n, NULL, NULL);
    evhttp_send_reply(r, 200, "OK", NULL);
}

struct options {
    const char *certificates;
    long bytes;
};

static struct err *run(void *cookie, const char *operand)
{
    const struct options *o = cookie;
    size_t bytes = (size_t)o->bytes;
    struct bare b = {.base = event_base_new(), .n = bytes, .body = xmalloc(bytes)};
    struct sockaddr_in a;
    socklen_t len = sizeof(a);
    int on = 1;

    memset(b.body, 'x', bytes);
    TRY(measure_server(o->certificates, &b.ctx));
    struct evhttp *http = evhttp_new(b.base);
    evhttp_set_bevcb(http, accept_tls, &b);
    evhttp_set_gencb(http, answer, &b);
    struct evhttp_bound_socket *bound = evhttp_bind_socket_with_handle(http, LOOPBACK, 0);
    if (!bound || getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&a, &len) < 0)
        return err_new(ERR_IO, "cannot listen on " LOOPBACK);
    /* Connections inherit it; evhttp writes header and body apart. */
    (void)setsockopt(evhttp_bound_socket_get_fd(bound), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    printf("%u\n", ntohs(a.sin_port));
    (void)fflush(stdout);
    (void)event_base_dispatch(b.base);
    return NULL;
}

static struct err *take(void *cookie, int id, const char *value)
{
    struct options *o = cookie;

    if (id == 2)
        return cli_parse_number("--bytes", value, 1, 1 << 30, &o->bytes);
    o->certificates = value;
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'c', "certificates-directory", "DIR", "Holds cluster.crt, control-service.crt and control-service.key"},
        {2, 0, "bytes", "N", "Of the answer's body (300)"},
    };
    static const struct cli_spec spec = {.program = "bare",
                                         .synopsis = "bare [options]",
                                         .options = options,
                                         .n_options = ARRAY_SIZE(options),
                                         .text = "A bare HTTP server with one fixed answer.",
                                         .take = take};
    struct options o = {.certificates = ".", .bytes = 300};

    return measure_main(&spec, &o, argc, argv, run);
}
