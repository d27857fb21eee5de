#include "cloud.h"

#include "base/str.h"

#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ARGS_MAX 24
#define FACTS_MAX 65536

bool cloud_is_built(void)
{
    glob_t found;
    bool yes = !glob(OPENSTACK_CACHE "/cloud-data-*", 0, NULL, &found) && found.gl_pathc;

    globfree(&found);
    return yes;
}

static void run_it(int in, int out, const char *dir, bool keystone, const char *const *servers)
{
    const char *args[ARGS_MAX] = {"python3", "-B", OPENSTACK, "run",
                                  "--dir",   dir,  "--auth",  keystone ? "keystone" : "none"};
    size_t n = 8;

    for (; *servers && n + 2 < ARGS_MAX; servers++) {
        args[n++] = "--server";
        args[n++] = *servers;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(in, 0) == 0 && dup2(out, 1) == 1)
        (void)execv("/usr/bin/python3", (char *const *)args);
    _exit(127);
}

static char *read_line(int fd)
{
    CLEANUP_STR struct str line = {0};
    char c;

    while (line.len < FACTS_MAX && read(fd, &c, 1) == 1 && c != '\n')
        str_append_bytes(&line, &c, 1);
    return str_steal(&line);
}

/* What is mounted as NFS is a folder of this machine; see lab/openstack. */
static void no_nfs(struct cloud *c)
{
    CLEANUP_FREE char *how = xasprintf("lowerdir=%s:/usr/sbin", cloud_fact(c, "bin"));

    assert_int_equal(mount("overlay", "/usr/sbin", "overlay", 0, how), 0);
}

void cloud_start(struct cloud *c, const char *dir, bool keystone, const char *const *servers)
{
    int in[2], out[2];

    assert_int_equal(unshare(CLONE_NEWNET), 0);
    assert_int_equal(system("ip link set lo up"), 0);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    c->pid = fork();
    assert_true(c->pid >= 0);
    if (!c->pid)
        run_it(in[0], out[1], dir, keystone, servers);
    close(in[0]);
    close(out[1]);
    c->end = in[1];
    CLEANUP_FREE char *line = read_line(out[0]);

    close(out[0]);
    c->facts = json_loads(line, 0, NULL);
    if (!c->facts)
        fail_msg("the OpenStack of the tests did not start");
    no_nfs(c);
}

void cloud_stop(struct cloud *c)
{
    if (!c->pid)
        return;
    close(c->end);
    (void)waitpid(c->pid, NULL, 0);
    json_decref(c->facts);
    *c = (struct cloud){0};
}

const char *cloud_fact(const struct cloud *c, const char *name)
{
    const char *value = json_string_value(json_object_get(c->facts, name));

    if (!value)
        fail_msg("the OpenStack of the tests does not say its %s", name);
    return value;
}
