#include "simulator.h"

#include "base/str.h"
#include "net/http_client.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ARGS_MAX 24

static void run_it(int in, int out, const char *script, const char *dir, const char *const *more)
{
    const char *args[ARGS_MAX] = {"python3", "-B", script, "--dir", dir};

    for (size_t n = 5; *more && n + 1 < ARGS_MAX; more++)
        args[n++] = *more;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(in, 0) == 0 && dup2(out, 1) == 1)
        (void)execv("/usr/bin/python3", (char *const *)args);
    _exit(127);
}

static bool has_tls(const char *const *args)
{
    while (*args && !streq(*args, "--tls"))
        args++;
    return *args;
}

void simulator_start(struct simulator *s, const char *script, const char *dir,
                     const char *const *args)
{
    int in[2], out[2];
    char line[64] = "";

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (!s->pid)
        run_it(in[0], out[1], script, dir, args);
    close(in[0]);
    close(out[1]);
    s->end = in[1];
    for (size_t n = 0; n + 1 < sizeof(line) && read(out[0], line + n, 1) == 1 && line[n] != '\n';
         n++)
        ;
    close(out[0]);
    if (sscanf(line, "port %u", &s->port) != 1)
        fail_msg("%s did not start", script);
    (void)snprintf(s->url, sizeof(s->url), "http%s://127.0.0.1:%u", has_tls(args) ? "s" : "",
                   s->port);
    (void)snprintf(s->ca, sizeof(s->ca), "%s/ca.pem", dir);
    if (!has_tls(args))
        *s->ca = '\0';
}

void simulator_stop(struct simulator *s)
{
    close(s->end);
    (void)waitpid(s->pid, NULL, 0);
}

static struct str control(struct simulator *s, const char *method, const char *body)
{
    struct http_client *c;
    struct http_answer a = {0};
    char url[64];

    (void)snprintf(url, sizeof(url), "%s/control", s->url);
    assert_null(http_client_new(
        &(struct http_client_options){.direct = true, .ca_file = *s->ca ? s->ca : NULL}, &c));
    struct err *e = http_client_call_sync(c,
                                          &(struct http_call){.method = method,
                                                              .url = url,
                                                              .body = body,
                                                              .body_size = body ? strlen(body) : 0,
                                                              .timeout_us = 30000000},
                                          &a);

    if (e || a.status != 200)
        fail_msg("the simulator: %s", e ? e->text : a.body.data);
    http_client_free(c);
    return a.body;
}

void simulator_tell(struct simulator *s, const char *fmt, ...)
{
    json_error_t wrong;
    va_list ap;

    va_start(ap, fmt);
    json_t *o = json_vpack_ex(&wrong, 0, fmt, ap);
    va_end(ap);
    if (!o)
        fail_msg("%s: %s", fmt, wrong.text);
    char *text = json_dumps(o, 0);
    struct str answer = control(s, "POST", text);

    str_done(&answer);
    free(text);
    json_decref(o);
}

json_t *simulator_state(struct simulator *s)
{
    struct str answer = control(s, "GET", NULL);
    json_t *o = json_loads(answer.data, 0, NULL);

    assert_non_null(o);
    str_done(&answer);
    return o;
}

unsigned simulator_calls(struct simulator *s, const char *action)
{
    json_t *o = simulator_state(s);
    unsigned n = (unsigned)json_integer_value(json_object_get(json_object_get(o, "calls"), action));

    json_decref(o);
    return n;
}

char *simulator_sent(struct simulator *s, const char *action, const char *parameter)
{
    json_t *o = simulator_state(s);
    const char *value = json_string_value(
        json_object_get(json_object_get(json_object_get(o, "last"), action), parameter));
    char *copy = xstrdup(value ? value : "");

    json_decref(o);
    return copy;
}
