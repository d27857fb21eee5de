#include "exec/exec.h"

#include "base/now.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define CANCEL_POLL_MS 50
#define DRAIN_US 200000u /* for output that a grandchild keeps open after the program's end */
#define STOP_TEXT 300    /* characters of a program's complaint that go into an error */

extern char **environ;

struct capture {
    int fd; /* read end, -1 when finished */
    struct str text;
    size_t max;
    bool truncated;
};

struct run {
    const struct exec_request *request;
    pid_t pid;
    int pidfd;
    struct capture out, err;
};

static void capture_read(struct capture *c)
{
    char buf[16384];
    ssize_t n = read(c->fd, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        mem_closep(&c->fd);
        c->fd = -1;
        return;
    }
    size_t room = c->max - c->text.len;
    size_t take = (size_t)n < room ? (size_t)n : room;

    str_append_bytes(&c->text, buf, take);
    c->truncated |= take < (size_t)n;
}

static char **environment(void)
{
    size_t n = 0;

    while (environ[n])
        n++;
    char **env = xcalloc(n + 2, sizeof(*env));
    size_t used = 0;

    for (size_t i = 0; i < n; i++) {
        if (!str_has_prefix(environ[i], "LC_") && !str_has_prefix(environ[i], "LANG"))
            env[used++] = environ[i];
    }
    env[used] = (char *)"LC_ALL=C";
    return env;
}

static int set_actions(posix_spawn_file_actions_t *fa, const struct exec_request *r, int out,
                       int err)
{
    int rc = r->stdin_fd > 0 ? posix_spawn_file_actions_adddup2(fa, r->stdin_fd, 0)
                             : posix_spawn_file_actions_addopen(fa, 0, "/dev/null", O_RDONLY, 0);

    if (!rc)
        rc = posix_spawn_file_actions_adddup2(fa, r->stdout_fd > 0 ? r->stdout_fd : out, 1);
    if (!rc)
        rc = posix_spawn_file_actions_adddup2(fa, err, 2);
    if (!rc)
        rc = posix_spawn_file_actions_addclosefrom_np(fa, 3);
    return rc;
}

static int spawn(const struct exec_request *r, int out, int err, pid_t *ret_pid)
{
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    sigset_t none, all;
    char **env = environment();

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&at);
    posix_spawnattr_setsigmask(&at, &none);
    posix_spawnattr_setsigdefault(&at, &all);
    posix_spawnattr_setpgroup(&at, 0);
    posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                      POSIX_SPAWN_SETPGROUP);
    int rc = set_actions(&fa, r, out, err);

    if (!rc)
        rc = posix_spawnp(ret_pid, r->argv[0], &fa, &at, (char *const *)r->argv, env);
    posix_spawnattr_destroy(&at);
    posix_spawn_file_actions_destroy(&fa);
    free(env);
    return rc;
}

static uint64_t mono(void)
{
    return now_os().mono_us;
}

static int wait_ms(const struct run *run, uint64_t deadline)
{
    uint64_t now = mono();
    uint64_t ms = deadline == USEC_NEVER ? 60000
                  : deadline > now       ? (deadline - now) / USEC_PER_MSEC + 1
                                         : 0;

    if (run->request->cancel && ms > CANCEL_POLL_MS)
        ms = CANCEL_POLL_MS;
    return ms > 60000 ? 60000 : (int)ms;
}

/* Kills the whole group and the program itself (it may have left the group). The pid cannot have
 * been given to anybody else: it is not reaped yet. */
static void kill_run(struct run *run)
{
    (void)kill(-run->pid, SIGKILL);
    (void)kill(run->pid, SIGKILL);
}

static struct err *watch(struct run *run, uint64_t deadline)
{
    const struct exec_request *r = run->request;

    for (;;) {
        struct pollfd p[3] = {
            {run->pidfd, POLLIN, 0}, {run->out.fd, POLLIN, 0}, {run->err.fd, POLLIN, 0}};

        if (r->cancel && *r->cancel)
            return err_new(ERR_CANCELLED, "%s: stopped as asked", r->argv[0]);
        if (mono() >= deadline)
            return err_new(ERR_TIMEOUT, "%s did not finish within %.1f s and was killed",
                           r->argv[0], (double)r->timeout_us / USEC_PER_SEC);
        if (poll(p, 3, wait_ms(run, deadline)) < 0 && errno != EINTR)
            return err_errno(errno, "cannot wait for %s", r->argv[0]);
        if (p[1].revents)
            capture_read(&run->out);
        if (p[2].revents)
            capture_read(&run->err);
        if (p[0].revents && !p[1].revents && !p[2].revents)
            return NULL;
    }
}

/* What is still in the pipes; not for ever, somebody else may hold their other ends. */
static void drain(struct run *run)
{
    uint64_t end = mono() + DRAIN_US;

    while ((run->out.fd >= 0 || run->err.fd >= 0) && mono() < end) {
        struct pollfd p[2] = {{run->out.fd, POLLIN, 0}, {run->err.fd, POLLIN, 0}};

        if (poll(p, 2, 20) < 0 && errno != EINTR)
            return;
        if (p[0].revents)
            capture_read(&run->out);
        if (p[1].revents)
            capture_read(&run->err);
    }
}

/* One line out of a program's complaint: the end says most. */
static char *complaint(const char *text)
{
    size_t n = strlen(text);

    while (n && (text[n - 1] == '\n' || text[n - 1] == ' '))
        n--;
    size_t from = n > STOP_TEXT ? n - STOP_TEXT : 0;
    char *s = xstrndup(text + from, n - from);

    for (char *c = s; *c; c++) {
        if (*c == '\n')
            *c = ';';
    }
    return s;
}

static void printable(char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < ' ' && *s != '\n' && *s != '\t')
            *s = '?';
    }
}

static struct err *judge(const struct run *run, const siginfo_t *si, const char *err_text)
{
    const struct exec_request *r = run->request;
    CLEANUP_FREE char *words = complaint(err_text);
    const char *sep = *words ? ": " : "";

    if (si->si_code != CLD_EXITED)
        return err_new(ERR_IO, "%s was killed by signal %d%s%s", r->argv[0], si->si_status, sep,
                       words);
    if (si->si_status && !r->any_exit)
        return err_new(ERR_IO, "%s failed with status %d%s%s", r->argv[0], si->si_status, sep,
                       words);
    return NULL;
}

static struct err *finish(struct run *run, struct err *e, struct exec_result *ret)
{
    siginfo_t si = {0};

    if (e)
        kill_run(run);
    while (waitid(P_PIDFD, (id_t)run->pidfd, &si, WEXITED) < 0) {
        if (errno != EINTR)
            return e ? e : err_errno(errno, "cannot wait for %s", run->request->argv[0]);
    }
    if (e)
        return e;
    drain(run);
    CLEANUP_FREE char *err_text = str_steal(&run->err.text);

    printable(err_text);
    TRY(judge(run, &si, err_text));
    if (ret) {
        ret->out_len = run->out.text.len;
        ret->out = str_steal(&run->out.text);
        ret->err_text = steal(&err_text);
        ret->status = si.si_status;
        ret->truncated = run->out.truncated || run->err.truncated;
    }
    return NULL;
}

static struct err *start(struct run *run)
{
    const struct exec_request *r = run->request;
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    int rc = 0;

    if (r->stdout_fd <= 0 && pipe2(out, O_CLOEXEC) < 0)
        return err_errno(errno, "cannot make a pipe for %s", r->argv[0]);
    run->out.fd = out[0];
    if (pipe2(err, O_CLOEXEC) < 0)
        rc = errno;
    run->err.fd = err[0];
    if (!rc)
        rc = spawn(r, out[1], err[1], &run->pid);
    mem_closep(&out[1]);
    mem_closep(&err[1]);
    if (rc == ENOENT)
        return err_new(ERR_UNAVAILABLE, "the program %s is not installed", r->argv[0]);
    if (rc)
        return err_errno(rc, "cannot start %s", r->argv[0]);
    run->pidfd = pidfd_open(run->pid, 0);
    if (run->pidfd >= 0)
        return NULL;
    rc = errno;
    kill_run(run);
    (void)waitpid(run->pid, NULL, 0);
    return err_errno(rc, "cannot watch %s", r->argv[0]);
}

struct err *exec_run(const struct exec_request *request, struct exec_result *ret_result)
{
    size_t max = request->output_max ? request->output_max : EXEC_OUTPUT_MAX;
    struct run run = {.request = request,
                      .pidfd = -1,
                      .out = {-1, {0}, max, false},
                      .err = {-1, {0}, max, false}};
    uint64_t deadline = request->timeout_us ? mono() + request->timeout_us : USEC_NEVER;
    struct err *e = start(&run);

    if (!e)
        e = finish(&run, watch(&run, deadline), ret_result);
    mem_closep(&run.pidfd);
    mem_closep(&run.out.fd);
    mem_closep(&run.err.fd);
    str_done(&run.out.text);
    str_done(&run.err.text);
    return e;
}

void exec_result_done(struct exec_result *r)
{
    free(r->out);
    free(r->err_text);
    *r = (struct exec_result){0};
}
