#include "fake_ec2.h"

#include "base/mem.h"
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

#define ARGS_MAX 16

static void run_it(int in, int out, const char *dir, const char *const *instances)
{
    const char *args[ARGS_MAX] = {"python3", "-B", FAKE_EC2, "--dir", dir};
    size_t n = 5;

    for (; *instances && n + 2 < ARGS_MAX; instances++) {
        args[n++] = "--instance";
        args[n++] = *instances;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(in, 0) == 0 && dup2(out, 1) == 1)
        (void)execv("/usr/bin/python3", (char *const *)args);
    _exit(127);
}

void fake_ec2_start(struct fake_ec2 *f, const char *dir, const char *const *instances)
{
    int in[2], out[2];
    char line[64] = "";

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    f->pid = fork();
    assert_true(f->pid >= 0);
    if (!f->pid)
        run_it(in[0], out[1], dir, instances);
    close(in[0]);
    close(out[1]);
    f->end = in[1];
    for (size_t n = 0; n + 1 < sizeof(line) && read(out[0], line + n, 1) == 1 && line[n] != '\n';
         n++)
        ;
    close(out[0]);
    if (sscanf(line, "port %u", &f->port) != 1)
        fail_msg("the EC2 of the tests did not start");
    (void)snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u", f->port);
}

void fake_ec2_stop(struct fake_ec2 *f)
{
    close(f->end);
    (void)waitpid(f->pid, NULL, 0);
}

static struct str control(struct fake_ec2 *f, const char *method, const char *body)
{
    struct http_client *c;
    struct http_answer a = {0};
    char url[64];

    (void)snprintf(url, sizeof(url), "%s/control", f->url);
    assert_null(http_client_new(&(struct http_client_options){.direct = true}, &c));
    struct err *e = http_client_call_sync(c,
                                          &(struct http_call){.method = method,
                                                              .url = url,
                                                              .body = body,
                                                              .body_size = body ? strlen(body) : 0,
                                                              .timeout_us = 30000000},
                                          &a);

    if (e || a.status != 200)
        fail_msg("the EC2 of the tests: %s", e ? e->text : a.body.data);
    http_client_free(c);
    return a.body;
}

void fake_ec2_tell(struct fake_ec2 *f, const char *fmt, ...)
{
    json_error_t wrong;
    va_list ap;

    va_start(ap, fmt);
    json_t *o = json_vpack_ex(&wrong, 0, fmt, ap);
    va_end(ap);
    if (!o)
        fail_msg("%s: %s", fmt, wrong.text);
    char *text = json_dumps(o, 0);
    struct str answer = control(f, "POST", text);

    str_done(&answer);
    free(text);
    json_decref(o);
}

json_t *fake_ec2_state(struct fake_ec2 *f)
{
    struct str answer = control(f, "GET", NULL);
    json_t *o = json_loads(answer.data, 0, NULL);

    assert_non_null(o);
    str_done(&answer);
    return o;
}

unsigned fake_ec2_calls(struct fake_ec2 *f, const char *action)
{
    json_t *o = fake_ec2_state(f);
    unsigned n = (unsigned)json_integer_value(json_object_get(json_object_get(o, "calls"), action));

    json_decref(o);
    return n;
}

char *fake_ec2_sent(struct fake_ec2 *f, const char *action, const char *parameter)
{
    json_t *o = fake_ec2_state(f);
    const char *value = json_string_value(
        json_object_get(json_object_get(json_object_get(o, "last"), action), parameter));
    char *copy = xstrdup(value ? value : "");

    json_decref(o);
    return copy;
}
