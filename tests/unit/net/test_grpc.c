#include "grpc_world.h"

static void unary(enum transport transport)
{
    struct call c = {0};

    serve(transport);
    open_call(&c, "/t/Echo", 5000);
    assert_true(grpc_stream_send(c.stream, "hello", 5));
    grpc_stream_half_close(c.stream);
    assert_false(grpc_stream_send(c.stream, "more", 4));
    RUN_UNTIL(c.closed);
    assert_int_equal(c.status, GRPC_OK);
    assert_string_equal(c.text, "");
    assert_int_equal(c.messages, 1);
    assert_int_equal(c.bytes, 5);
    assert_int_equal(w->ready, 1);
    RUN_UNTIL(w->server_closed);
    assert_int_equal(w->server_status, GRPC_OK);
    assert_int_equal(w->half_closed, 1);
    assert_int_equal(w->failed, 0);
}

static void test_unary_unix(void **state)
{
    unary(UNIX);
}

static void test_unary_tcp(void **state)
{
    unary(PLAIN_TCP);
}

static void test_unary_mtls(void **state)
{
    unary(MTLS);
    assert_string_equal(w->peer_name, "node-" NODE_1);
}

static void thousand_messages(enum transport transport)
{
    struct call c = {.to_send = 1000, .half_close_after = true};

    serve(transport);
    open_call(&c, "/t/Echo", 0);
    call_send(&c);
    RUN_UNTIL(c.closed);
    assert_int_equal(c.status, GRPC_OK);
    assert_int_equal(c.messages, 1000);
    assert_int_equal(w->server_messages, 1000);
}

static void test_thousand_messages_unix(void **state)
{
    thousand_messages(UNIX);
}

static void test_thousand_messages_mtls(void **state)
{
    thousand_messages(MTLS);
}

static void large_message(enum transport transport)
{
    struct call c = {0};
    size_t n = 3u << 20;
    uint64_t sum = 0;
    CLEANUP_FREE uint8_t *message = xmalloc(n);

    for (size_t i = 0; i < n; i++) {
        message[i] = (uint8_t)(i * 2654435761u >> 13);
        sum = sum * 31 + message[i];
    }
    serve(transport);
    open_call(&c, "/t/Echo", 0);
    assert_true(grpc_stream_send(c.stream, message, n)); /* over the queue's limit, but alone */
    assert_int_equal(grpc_stream_queued(c.stream), n + 5);
    assert_false(grpc_stream_send(c.stream, "x", 1));
    RUN_UNTIL(c.messages == 1);
    assert_int_equal(c.bytes, n);
    assert_true(c.sum == sum);
    grpc_stream_half_close(c.stream);
    RUN_UNTIL(c.closed);
    assert_int_equal(c.status, GRPC_OK);
}

static void test_large_message_unix(void **state)
{
    large_message(UNIX);
}

static void test_large_message_mtls(void **state)
{
    large_message(MTLS);
}

static void test_empty_message(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/Echo", 0);
    assert_true(grpc_stream_send(c.stream, "", 0));
    grpc_stream_half_close(c.stream);
    RUN_UNTIL(c.closed);
    assert_int_equal(c.messages, 1);
    assert_int_equal(c.bytes, 0);
}

static void test_unknown_method(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/Nothing", 0);
    RUN_UNTIL(c.closed);
    assert_int_equal(c.status, GRPC_UNIMPLEMENTED);
    assert_string_equal(c.text, "there is no method /t/Nothing here");
    assert_int_equal(w->opened, 0);
    /* the connection lives on */
    struct call again = {0};
    open_call(&again, "/t/Refuse", 0);
    RUN_UNTIL(again.closed);
    assert_int_equal(w->failed, 0);
}

static void test_status_text_survives(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/Refuse", 0);
    RUN_UNTIL(c.closed && w->server_closed);
    assert_int_equal(c.status, GRPC_FAILED_PRECONDITION);
    assert_string_equal(c.text, NASTY_SEEN);
    assert_int_equal(w->server_status, GRPC_FAILED_PRECONDITION);
    assert_string_equal(w->server_text, NASTY);
}

static void test_status_after_messages(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/LastWords", 0);
    assert_true(grpc_stream_send(c.stream, "a", 1));
    RUN_UNTIL(c.closed && w->server_closed);
    assert_int_equal(c.messages, 1);
    assert_int_equal(c.status, GRPC_ABORTED);
    assert_string_equal(c.text, "enough");
    assert_int_equal(w->server_status, GRPC_ABORTED);
}

static void test_server_limit(void **state)
{
    struct call c = {0};
    CLEANUP_FREE char *big = xcalloc(1, 2000);

    serve_with(UNIX, (struct grpc_server_options){.max_message = 1000});
    connect_client(UNIX);
    open_call(&c, "/t/Echo", 0);
    assert_true(grpc_stream_send(c.stream, big, 1000));
    RUN_UNTIL(c.messages == 1);
    assert_true(grpc_stream_send(c.stream, big, 1001));
    RUN_UNTIL(c.closed);
    assert_int_equal(c.status, GRPC_RESOURCE_EXHAUSTED);
    assert_string_equal(c.text, "a message of 1001 bytes is over the limit of 1000");
    assert_int_equal(w->server_messages, 1);
}

static void test_client_limit(void **state)
{
    struct call c = {0};
    CLEANUP_FREE char *big = xcalloc(1, 2000);

    serve_with(UNIX, (struct grpc_server_options){0});
    struct grpc_client_options o = client_options(UNIX);
    o.max_message = 1000;
    must(grpc_client_new(&o, &w->client));
    open_call(&c, "/t/Echo", 0);
    assert_true(grpc_stream_send(c.stream, big, 1001));
    RUN_UNTIL(c.closed && w->server_closed);
    assert_int_equal(c.status, GRPC_RESOURCE_EXHAUSTED);
    assert_int_equal(c.messages, 0);
    assert_int_equal(w->server_status, GRPC_CANCELLED);
}

static void test_client_cancels(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/Echo", 0);
    RUN_UNTIL(w->opened);
    grpc_stream_cancel(c.stream);
    assert_int_equal(c.closed, 0); /* not from inside the call */
    RUN_UNTIL(c.closed && w->server_closed);
    assert_int_equal(c.status, GRPC_CANCELLED);
    assert_int_equal(w->server_status, GRPC_CANCELLED);
    assert_int_equal(c.closed, 1);
}

static void test_server_cancels(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/Echo", 0);
    RUN_UNTIL(w->opened);
    grpc_stream_cancel(w->server_stream);
    RUN_UNTIL(c.closed && w->server_closed);
    assert_int_equal(c.status, GRPC_CANCELLED);
}

static void test_cancel_before_connected(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/Echo", 0);
    grpc_stream_cancel(c.stream);
    RUN_UNTIL(c.closed && w->ready);
    assert_int_equal(c.status, GRPC_CANCELLED);
    run_for(50);
    assert_int_equal(c.closed, 1);
    assert_int_equal(w->failed, 0);
}

static void test_client_deadline(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/Echo", 30);
    RUN_UNTIL(c.closed && w->server_closed);
    assert_int_equal(c.status, GRPC_DEADLINE_EXCEEDED);
}

static void client_vanishes(enum transport transport)
{
    struct call c = {0};

    serve(transport);
    open_call(&c, "/t/Echo", 0);
    RUN_UNTIL(w->opened);
    w->client = grpc_client_free(w->client);
    assert_int_equal(c.closed, 1);
    assert_int_equal(c.status, GRPC_CANCELLED);
    RUN_UNTIL(w->server_closed);
    assert_int_equal(w->server_status, GRPC_UNAVAILABLE);
    RUN_UNTIL(grpc_server_connections(w->server) == 0);
    assert_int_equal(w->failed, 0); /* whoever frees needs no telling */
}

static void test_client_vanishes_unix(void **state)
{
    client_vanishes(UNIX);
}

static void test_client_vanishes_mtls(void **state)
{
    client_vanishes(MTLS);
}

static void server_vanishes(enum transport transport)
{
    struct call c = {0};

    serve(transport);
    open_call(&c, "/t/Echo", 0);
    RUN_UNTIL(w->opened);
    w->server = grpc_server_free(w->server);
    assert_int_equal(w->server_closed, 1);
    RUN_UNTIL(c.closed && w->failed);
    assert_int_equal(c.status, GRPC_UNAVAILABLE);
    assert_non_null(strstr(w->failure, "the peer closed the connection"));
    struct call late = {0};
    assert_null(grpc_client_call(w->client, "/t/Echo", &call_handlers, &late, 0));
    run_for(30);
    assert_int_equal(w->failed, 1);
    assert_int_equal(c.closed, 1);
}

static void test_server_vanishes_unix(void **state)
{
    server_vanishes(UNIX);
}

static void test_server_vanishes_mtls(void **state)
{
    server_vanishes(MTLS);
}

static void test_free_client_inside_callback(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/Echo", 0);
    c.free_on_message = w->client;
    for (int i = 0; i < 3; i++)
        assert_true(grpc_stream_send(c.stream, "x", 1));
    RUN_UNTIL(c.closed && w->server_closed);
    assert_int_equal(c.messages, 1); /* nothing comes after the freeing */
    assert_int_equal(c.status, GRPC_CANCELLED);
}

static void test_free_server_inside_callback(void **state)
{
    struct call c = {0}, other = {0};

    serve(UNIX);
    open_call(&other, "/t/Echo", 0);
    RUN_UNTIL(w->opened == 1);
    open_call(&c, "/t/Suicide", 0);
    for (int i = 0; i < 3; i++)
        assert_true(grpc_stream_send(c.stream, "x", 1));
    RUN_UNTIL(c.closed && other.closed && w->failed);
    assert_null(w->server);
    assert_int_equal(w->server_closed, 2);
}

static void test_drain(void **state)
{
    struct call c = {0};

    serve(UNIX);
    open_call(&c, "/t/Echo", 0);
    RUN_UNTIL(w->opened);
    grpc_server_drain(w->server);
    run_for(50);
    assert_int_equal(w->failed, 0); /* the open call goes on */
    assert_null(grpc_client_call(w->client, "/t/Echo", &call_handlers, &c, 0));
    assert_true(grpc_stream_send(c.stream, "still", 5));
    RUN_UNTIL(c.messages == 1);
    grpc_stream_half_close(c.stream);
    RUN_UNTIL(c.closed && w->failed);
    assert_int_equal(c.status, GRPC_OK);
    assert_non_null(strstr(w->failure, "the peer ends the connection"));
    RUN_UNTIL(grpc_server_connections(w->server) == 0);
}

static void test_idle_connections_are_closed(void **state)
{
    struct call c = {0};

    serve_with(UNIX, (struct grpc_server_options){.idle_ms = 60});
    connect_client(UNIX);
    open_call(&c, "/t/Echo", 0);
    RUN_UNTIL(w->opened);
    run_for(150);
    assert_int_equal(w->failed, 0); /* a stream is open: not idle */
    grpc_stream_half_close(c.stream);
    RUN_UNTIL(c.closed && w->failed);
    assert_int_equal(c.status, GRPC_OK);
}

static void test_hundred_streams(void **state)
{
    struct call calls[GRPC_MAX_STREAMS + 50] = {0};
    size_t done = 0;

    serve(UNIX);
    for (size_t i = 0; i < ARRAY_SIZE(calls);
         i++) { /* more than may be open at once: the rest waits */
        open_call(&calls[i], "/t/Echo", 0);
        assert_true(grpc_stream_send(calls[i].stream, "x", 1));
        grpc_stream_half_close(calls[i].stream);
    }
    while (done < ARRAY_SIZE(calls)) {
        RUN_UNTIL(calls[done].closed);
        assert_int_equal(calls[done].status, GRPC_OK);
        assert_int_equal(calls[done].messages, 1);
        done++;
    }
}

/* The client does not take; the server's queue must stay within its limit, and all must arrive in
 * the end. */
static void slow_reader(enum transport transport)
{
    struct call c = {0};

    w->blast_left = 3000; /* 30 MB */
    serve_with(transport, (struct grpc_server_options){.max_queue = 200000});
    connect_client(transport);
    open_call(&c, "/t/Blast", 0);
    grpc_stream_pause(c.stream);
    grpc_stream_half_close(c.stream);
    RUN_UNTIL(w->opened);
    run_for(100);
    assert_int_equal(c.messages, 0);
    assert_true(w->blast_left > 2900); /* the windows and the queue together, not more */
    assert_true(w->queued_peak <= 200000);
    assert_true(grpc_stream_queued(w->server_stream) > 100000);
    grpc_stream_resume(c.stream);
    RUN_UNTIL(c.closed);
    assert_int_equal(c.messages, 3000);
    assert_int_equal(c.status, GRPC_OK);
    assert_true(w->queued_peak <= 200000);
}

static void test_slow_reader_unix(void **state)
{
    slow_reader(UNIX);
}

static void test_slow_reader_mtls(void **state)
{
    slow_reader(MTLS);
}

static void test_paused_stream_does_not_stop_others(void **state)
{
    struct call paused = {0}, other = {.to_send = 1000, .half_close_after = true};

    w->blast_left = 300;
    serve(UNIX);
    open_call(&paused, "/t/Blast", 0);
    grpc_stream_pause(paused.stream);
    RUN_UNTIL(w->opened);
    open_call(&other, "/t/Echo", 0);
    call_send(&other);
    RUN_UNTIL(other.closed);
    assert_int_equal(other.messages, 1000);
    assert_int_equal(paused.messages, 0);
    assert_int_equal(paused.closed, 0);
    grpc_stream_cancel(paused.stream); /* its end is told to `paused`, which must still be there */
    RUN_UNTIL(paused.closed);
}

/* Messages that wait behind a pause come before the end. */
static void test_pause_holds_the_end_back(void **state)
{
    struct call c = {0};

    w->blast_left = 2;
    serve(UNIX);
    open_call(&c, "/t/Blast", 0);
    grpc_stream_pause(c.stream);
    grpc_stream_half_close(c.stream);
    RUN_UNTIL(w->server_closed);
    run_for(30);
    assert_int_equal(c.closed, 0);
    grpc_stream_resume(c.stream);
    RUN_UNTIL(c.closed);
    assert_int_equal(c.messages, 2);
    assert_int_equal(c.status, GRPC_OK);
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_unary_unix),
        T(test_unary_tcp),
        T(test_unary_mtls),
        T(test_thousand_messages_unix),
        T(test_thousand_messages_mtls),
        T(test_large_message_unix),
        T(test_large_message_mtls),
        T(test_empty_message),
        T(test_unknown_method),
        T(test_status_text_survives),
        T(test_status_after_messages),
        T(test_server_limit),
        T(test_client_limit),
        T(test_client_cancels),
        T(test_server_cancels),
        T(test_cancel_before_connected),
        T(test_client_deadline),
        T(test_client_vanishes_unix),
        T(test_client_vanishes_mtls),
        T(test_server_vanishes_unix),
        T(test_server_vanishes_mtls),
        T(test_free_client_inside_callback),
        T(test_free_server_inside_callback),
        T(test_drain),
        T(test_idle_connections_are_closed),
        T(test_hundred_streams),
        T(test_slow_reader_unix),
        T(test_slow_reader_mtls),
        T(test_paused_stream_does_not_stop_others),
        T(test_pause_holds_the_end_back),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
