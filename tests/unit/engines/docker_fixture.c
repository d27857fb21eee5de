#include "docker_fixture.h"

#include "base/now.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <net/if.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SKIP 77

struct docker_fixture fixture;
static pid_t children[16]; /* of the inner program */

static void fail(const char *what)
{
    (void)fprintf(stderr, "docker fixture: %s: %s\n", what, strerror(errno));
    exit(1);
}

void fixture_sleep_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    (void)nanosleep(&ts, NULL);
}

static pid_t spawn(const char *const *argv, const char *log)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;

    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (log) {
        (void)posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND,
                                               0600);
        (void)posix_spawn_file_actions_adddup2(&actions, 1, 2);
    }
    errno = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (errno)
        fail(argv[0]);
    return pid;
}

pid_t fixture_spawn(const char *const *argv)
{
    pid_t pid = spawn(argv, NULL);

    for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
        if (!children[i]) {
            children[i] = pid;
            return pid;
        }
    }
    fail("too many children");
    return -1;
}

void fixture_end(pid_t pid, int signal)
{
    int status;

    (void)kill(pid, signal);
    (void)waitpid(pid, &status, 0);
    for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
        if (children[i] == pid)
            children[i] = 0;
    }
}

static int wait_child(pid_t pid, unsigned timeout_s)
{
    uint64_t end = now_os().mono_us + (uint64_t)timeout_s * USEC_PER_SEC;
    int status;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now_os().mono_us > end) {
            (void)kill(pid, SIGKILL);
            (void)waitpid(pid, &status, 0);
            return -1;
        }
        fixture_sleep_ms(5);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int fixture_run(unsigned timeout_s, const char *const *argv)
{
    return wait_child(spawn(argv, NULL), timeout_s);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)remove(path);
    return 0;
}

/* The engine leaves its cgroups behind. */
static void remove_cgroups(const char *name)
{
    static const char *const patterns[] = {"/sys/fs/cgroup/*/%s/*", "/sys/fs/cgroup/*/%s",
                                           "/sys/fs/cgroup/%s/*", "/sys/fs/cgroup/%s"};

    for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
        char pattern[256];
        glob_t g = {0};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void)snprintf(pattern, sizeof(pattern), patterns[i], name);
#pragma GCC diagnostic pop
        if (glob(pattern, GLOB_NOSORT, NULL, &g) == 0) {
            for (size_t k = 0; k < g.gl_pathc; k++)
                (void)rmdir(g.gl_pathv[k]);
        }
        globfree(&g);
    }
}

static bool have_program(const char *name)
{
    static const char *const folders[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin",
                                          "/usr/bin",        "/sbin",          "/bin"};

    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        char path[128];

        (void)snprintf(path, sizeof(path), "%s/%s", folders[i], name);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

int fixture_outside(const char *self)
{
    char dir[] = "/tmp/flocker-docker-XXXXXX";

    if (geteuid() != 0) {
        (void)fprintf(stderr, "skipped: needs root (namespaces and a Docker daemon of its own)\n");
        return SKIP;
    }
    if (!have_program("dockerd") || !have_program("busybox")) {
        (void)fprintf(stderr, "skipped: needs dockerd and busybox (docker.io, busybox-static)\n");
        return SKIP;
    }
    if (!mkdtemp(dir))
        fail(dir);
    const char *const argv[] = {
        "unshare", "--fork",        "--pid",   "--kill-child", "--mount-proc", "--mount", "--net",
        "--ipc",   "--propagation", "private", self,           "--inside",     dir,       NULL};
    int rc = wait_child(spawn(argv, NULL), 120);
    remove_cgroups(strrchr(dir, '/') + 1);
    (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return rc < 0 ? 1 : rc;
}

static void loopback_up(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &r) < 0)
        fail("loopback");
}

static void print_log(void)
{
    CLEANUP_FREE char *log = xasprintf("%s/dockerd.log", fixture.dir);
    const char *const argv[] = {"tail", "-n", "30", log, NULL};

    (void)fixture_run(5, argv);
}

void fixture_start_dockerd(void)
{
    const char *d = fixture.dir;
    CLEANUP_FREE char *data = xasprintf("%s/data", d), *exec = xasprintf("%s/exec", d),
                      *pid = xasprintf("%s/dockerd.pid", d), *log = xasprintf("%s/dockerd.log", d),
                      *config = xasprintf("%s/daemon.json", d),
                      *host = xasprintf("unix://%s", fixture.socket),
                      *cgroup = xasprintf("%s", strrchr(d, '/'));
    const char *const argv[] = {"dockerd",
                                "--data-root",
                                data,
                                "--exec-root",
                                exec,
                                "--pidfile",
                                pid,
                                "--config-file",
                                config,
                                "-H",
                                host,
                                "--storage-driver",
                                "vfs",
                                "--cgroup-parent",
                                cgroup,
                                "--bip",
                                "172.29.0.1/24",
                                NULL};
    struct container_engine *ce = container_engine_new(fixture.socket);
    struct uuid nobody = UUID_NIL;
    struct err *e = NULL;

    (void)unlink(pid); /* a killed daemon leaves it */
    fixture.dockerd = spawn(argv, log);
    for (int i = 0; i < 600; i++) {
        struct container_state *states = NULL;
        size_t n;

        (void)err_free(e);
        e = container_engine_list_sync(ce, &nobody, &states, &n);
        free(states);
        if (!e)
            break;
        fixture_sleep_ms(25);
    }
    if (e) {
        (void)fprintf(stderr, "dockerd does not come up: %s\n", e->text);
        print_log();
        exit(1);
    }
    (void)container_engine_free(ce);
}

void fixture_stop_dockerd(void)
{
    fixture_end(fixture.dockerd, SIGTERM);
    fixture.dockerd = 0;
}

static void import_image(void)
{
    static const char script[] =
        "set -e; cd \"$1\"; mkdir -p root/bin root/data root/tmp; cp \"$(command -v busybox)\" "
        "root/bin/busybox; "
        "chroot root /bin/busybox --install -s /bin; tar -C root -cf root.tar .; "
        "docker -H \"unix://$2\" import root.tar \"$3\" >/dev/null; rm -rf root root.tar";
    const char *const argv[] = {"sh",        "-c",           script,     "sh",
                                fixture.dir, fixture.socket, TEST_IMAGE, NULL};

    if (fixture_run(30, argv) != 0) {
        print_log();
        fail("image");
    }
}

void fixture_setup(const char *dir)
{
    (void)snprintf(fixture.dir, sizeof(fixture.dir), "%s", dir);
    (void)snprintf(fixture.socket, sizeof(fixture.socket), "%s/run/docker.sock", dir);
    if (mount("tmpfs", dir, "tmpfs", 0, "mode=700") ||
        mount("tmpfs", "/run", "tmpfs", 0, "mode=755"))
        fail("tmpfs");
    CLEANUP_FREE char *run = xasprintf("%s/run", dir), *config = xasprintf("%s/daemon.json", dir),
                      *docker_config = xasprintf("%s/client", dir);
    if (mkdir(run, 0700) || mkdir(docker_config, 0700) || setenv("DOCKER_CONFIG", docker_config, 1))
        fail(run);
    FILE *f = fopen(config, "we");
    if (!f || fputs("{}", f) < 0 || fclose(f))
        fail(config);
    loopback_up();
    fixture_start_dockerd();
    import_image();
}

void fixture_teardown(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
        if (children[i])
            fixture_end(children[i], SIGKILL);
    }
    if (fixture.dockerd)
        fixture_stop_dockerd();
}

long fixture_call(const char *method, const char *path, const char *body, char **ret_body)
{
    struct docker_http h;
    struct docker_response r = {0};
    struct docker_request request = {.method = method, .path = path, .body = body};

    docker_http_init(&h, fixture.socket);
    struct err *e = docker_http_call(&h, &request, &r);
    if (e) {
        (void)fprintf(stderr, "%s %s: %s\n", method, path, e->text);
        print_log();
        exit(1);
    }
    docker_http_done(&h);
    if (ret_body)
        *ret_body = str_steal(&r.body);
    docker_response_done(&r);
    return r.status;
}
