#include "node.h"

#include "base/now.h"
#include "base/str.h"
#include "drivers/powerflex/name.h"
#include "exec/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_S 300 /* every step of ZFS starts a program */
#define SLOW_DEADLINE_S                                                                            \
    (4 * DEADLINE_S) /* in a guest; and where each step asks EC2 and waits for it */

const char *node_backend;
char *node_dir;
struct node nodes[NODES];
struct simulator node_ec2, node_array;
struct cloud node_cloud;
struct simulator node_between;
static char node_ids[NODES][UUID_TEXT_SIZE];

static struct exec_result sh(const char *command)
{
    const char *const argv[] = {"sh", "-c", command, NULL};
    struct exec_result r = {0};
    struct err *e = exec_run(
        &(struct exec_request){
            .argv = argv, .any_exit = true, .timeout_us = 60000000, .output_max = 1 << 20},
        &r);

    if (e)
        fail_msg("%s: %s", command, e->text);
    return r;
}

char *shell_out(const char *fmt, ...)
{
    va_list ap;
    CLEANUP_FREE char *command = NULL;

    va_start(ap, fmt);
    assert_true(vasprintf(&command, fmt, ap) >= 0);
    va_end(ap);
    struct exec_result r = sh(command);

    if (r.status)
        fail_msg("%s: status %d: %s", command, r.status, r.err_text);
    char *out = steal(&r.out);

    exec_result_done(&r);
    return out;
}

void shell(const char *fmt, ...)
{
    va_list ap;
    CLEANUP_FREE char *command = NULL;

    va_start(ap, fmt);
    assert_true(vasprintf(&command, fmt, ap) >= 0);
    va_end(ap);
    free(shell_out("%s", command));
}

void ok_(struct err *e, const char *what, int line)
{
    if (e)
        fail_msg("line %d: %s: %s: %s", line, what, err_code_name(e->code), e->text);
}

void fails_(struct err *e, enum err_code code, const char *part, const char *what, int line)
{
    if (!e)
        fail_msg("line %d: %s succeeded, wanted %s", line, what, err_code_name(code));
    if (e->code != code || (part && !strstr(e->text, part)))
        fail_msg("line %d: %s: got %s (%s), wanted %s (%s)", line, what, err_code_name(e->code),
                 e->text, err_code_name(code), part ? part : "");
    err_free(e);
}

/* ---- nodes ---- */

static bool is_openstack(void)
{
    return str_has_prefix(node_backend, "openstack");
}

static bool is_slow(void)
{
    return is_openstack() || streq(node_backend, "aws") || streq(node_backend, "powerflex") ||
           streq(node_backend, "xtremio");
}

uint64_t node_unit(void)
{
    return streq(node_backend, "aws") || is_openstack() ? 1ull << 30
           : streq(node_backend, "powerflex") ? 8ull << 30
                                              : 1;
}

const char *node_instance(const struct node *n)
{
    if (streq(node_backend, "powerflex"))
        return n == nodes ? "9e56672f-2f4b-4a42-bff4-88b6846fbfda"
                          : "9e56672f-2f4b-4a42-bff4-88b6846fbfdb";
    if (streq(node_backend, "aws"))
        return n == nodes ? "i-node-a" : "i-node-b";
    if (streq(node_backend, "openstack-nova"))
        return json_string_value(
            json_object_get(json_object_get(node_cloud.facts, "servers"), n == nodes ? "a" : "b"));
    if (is_openstack())
        return n == nodes ? node_ids[0] : node_ids[1];
    return n == nodes ? "node-a" : "node-b";
}

static json_t *aws_options(int i)
{
    CLEANUP_FREE char *root = xasprintf("%s/%d/host", node_dir, i);

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "backend", "aws", "region",
                     "eu-west-1", "zone", "eu-west-1a", "access_key_id", "AKIATEST",
                     "secret_access_key", "wJalr/K7MDENG+test=", "endpoint", node_ec2.url,
                     "compute_instance_id", node_instance(&nodes[i]), "host_root", root);
}

static void aws_start(void)
{
    CLEANUP_FREE char *dir = xasprintf("%s/ec2", node_dir);
    CLEANUP_FREE char *a = xasprintf("%s=%s/0/host", node_instance(&nodes[0]), node_dir);
    CLEANUP_FREE char *b = xasprintf("%s=%s/1/host", node_instance(&nodes[1]), node_dir);

    fake_ec2_start(&node_ec2, dir, (const char *const[]){a, b, NULL});
}

static json_t *powerflex_options(int i)
{
    CLEANUP_FREE char *root = xasprintf("%s/%d/host", node_dir, i);

    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:b, s:s, s:s, s:s}", "backend",
                     "scaleio_flocker_driver", "username", "flocker", "password",
                     "not/so+secret=", "mdm", "127.0.0.1", "port", (int)node_array.port, "ssl", 1,
                     "certificate", node_array.ca, "sdc_guid", node_instance(&nodes[i]),
                     "host_root", root);
}

static void powerflex_start(void)
{
    CLEANUP_FREE char *dir = xasprintf("%s/array", node_dir);
    CLEANUP_FREE char *a = xasprintf("%s=%s/0/host", node_instance(&nodes[0]), node_dir);
    CLEANUP_FREE char *b = xasprintf("%s=%s/1/host", node_instance(&nodes[1]), node_dir);

    simulator_start(&node_array, ARRAYS "/powerflex.py", dir,
                    (const char *const[]){"--tls", "--host", a, "--host", b, "--host", NODE_STRANGER "=", NULL});
}

/* The kernel's iSCSI, both sides: only in a guest that is thrown away (lab/uml-zfs sets this). */
bool node_has_real_iscsi(void)
{
    const char *told = getenv("FLOCKER_TEST_ISCSI");

    return told && streq(told, "kernel");
}

static json_t *xtremio_options(int i)
{
    CLEANUP_FREE char *root = xasprintf("%s/%d/host", node_dir, i);
    CLEANUP_FREE char *xms = xasprintf("127.0.0.1:%u", node_array.port);

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "backend", "emc_xtremio_flocker_plugin",
                     "xms_ip", xms, "xms_user", "flocker", "xms_password", "secret+/=", "ca_file",
                     node_array.ca, "compute_instance_id", node_instance(&nodes[i]), "host_root",
                     root);
}

/* Its hosts' programs (multipath, iscsiadm) are found first, and find it. */
static void xtremio_start(void)
{
    CLEANUP_FREE char *dir = xasprintf("%s/array", node_dir);
    CLEANUP_FREE char *a = xasprintf("%s=%s/0/host", node_instance(&nodes[0]), node_dir);
    CLEANUP_FREE char *b = xasprintf("%s=%s/1/host", node_instance(&nodes[1]), node_dir);
    CLEANUP_FREE char *san = xasprintf("%s/san", dir);
    CLEANUP_FREE char *path = xasprintf("%s:%s", ARRAYS "/san", getenv("PATH"));

    assert_int_equal(setenv("FLOCKER_TEST_SAN", san, 1) | setenv("PATH", path, 1), 0);
    simulator_start(&node_array,
                    node_has_real_iscsi() ? ARRAYS "/xtremio_iscsi.py" : ARRAYS "/xtremio.py", dir,
                    (const char *const[]){"--tls", "--host", a, "--host", b, NULL});
}

/* Cinder alone, whose volumes the nodes attach themselves. */
static json_t *cinder_options(void)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "backend", "openstack", "auth_plugin", "noauth",
                     "project_id", cloud_fact(&node_cloud, "project_id"), "volume_endpoint",
                     cloud_fact(&node_cloud, "volume_endpoint"), "attach", "cinder");
}

/* The nodes are servers of Nova's; what the driver says to it and to Cinder goes through a program that can spoil it. */
json_t *node_nova_options(const struct node *n)
{
    CLEANUP_FREE char *root = xasprintf("%s/%d/host", node_dir, (int)(n - nodes));
    CLEANUP_FREE char *volumes = xasprintf("%s/volume", node_between.url);
    CLEANUP_FREE char *servers = xasprintf("%s/compute", node_between.url);

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "backend", "openstack",
                     "auth_url", cloud_fact(&node_cloud, "auth_url"), "region",
                     cloud_fact(&node_cloud, "region"), "username",
                     cloud_fact(&node_cloud, "username"), "password",
                     cloud_fact(&node_cloud, "password"), "project_name",
                     cloud_fact(&node_cloud, "project_name"), "compute_instance_id",
                     node_instance(n), "volume_endpoint", volumes, "compute_endpoint", servers,
                     "host_root", root);
}

static void between_start(void)
{
    simulator_start(&node_between, OPENSTACK_BETWEEN, node_dir,
                    (const char *const[]){"--volume", cloud_fact(&node_cloud, "volume_endpoint"),
                                          "--compute", cloud_fact(&node_cloud, "compute_endpoint"),
                                          "--identity", cloud_fact(&node_cloud, "auth_url"), NULL});
}

static void openstack_start(void)
{
    CLEANUP_FREE char *dir = xasprintf("%s/cloud", node_dir);
    CLEANUP_FREE char *a = xasprintf("a=%s/0/host", node_dir);
    CLEANUP_FREE char *b = xasprintf("b=%s/1/host", node_dir);
    bool nova = streq(node_backend, "openstack-nova");

    cloud_start(&node_cloud, dir, nova,
                nova ? (const char *const[]){a, b, NULL} : (const char *const[]){NULL});
    if (nova)
        between_start();
}

static json_t *options(int i)
{
    if (streq(node_backend, "xtremio"))
        return xtremio_options(i);
    if (streq(node_backend, "powerflex"))
        return powerflex_options(i);
    if (streq(node_backend, "openstack-nova"))
        return node_nova_options(&nodes[i]);
    if (is_openstack())
        return cinder_options();
    if (streq(node_backend, "aws"))
        return aws_options(i);
    if (streq(node_backend, "loopback"))
        return json_pack("{s:s, s:s+, s:s}", "backend", "loopback", "root_path", node_dir,
                         "/shared", "compute_instance_id", node_instance(&nodes[i]));
    if (streq(node_backend, "fake")) {
        CLEANUP_FREE char *root = xasprintf("%s/%d/root", node_dir, i);

        return json_pack("{s:s, s:s}", "backend", "fake", "root_path", root);
    }
    if (streq(node_backend, "zfs"))
        return json_pack("{s:s, s:s+}", "backend", "zfs", "pool", "flocker-", i ? "b" : "a");
    CLEANUP_FREE char *pool = xasprintf("%s/%d/pool.img", node_dir, i);

    return json_pack("{s:s, s:s, s:s}", "backend", "btrfs", "pool", pool, "pool_size", "2GiB");
}

static pid_t zfs_daemon;

/* The module's ZFS: only in a guest that is thrown away (lab/uml-zfs sets this). */
static bool zfs_in_kernel(void)
{
    const char *which = getenv("FLOCKER_TEST_ZFS");

    return which && streq(which, "kernel");
}

/* One daemon for both pools, in this mount namespace alone; it ends with this process. */
static void zfs_start_daemon(void)
{
    CLEANUP_FREE char *log = xasprintf("%s/zfs-fuse.log", node_dir);
    pid_t parent = getpid();

    shell(
        "mount -t tmpfs none /run && mkdir /run/zfs /run/lock && mount -t tmpfs none /var/lib/zfs");
    zfs_daemon = fork();
    assert_true(zfs_daemon >= 0);
    if (!zfs_daemon) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent && freopen(log, "w", stdout) && dup2(1, 2) == 2)
            (void)execlp("zfs-fuse", "zfs-fuse", "--no-daemon", "--no-kstat-mount", "--pidfile",
                         "/run/zfs/pid", NULL);
        _exit(127);
    }
    shell("for i in $(seq 200); do zpool list >/dev/null 2>&1 && break; sleep 0.05; done; zpool "
          "list");
}

static void zfs_start(void)
{
    if (!zfs_in_kernel())
        zfs_start_daemon();
    for (int i = 0; i < NODES; i++)
        shell("mkdir -p %s/%d && truncate -s 2G %s/%d/pool.img && zpool create -m none flocker-%c "
              "%s/%d/pool.img",
              node_dir, i, node_dir, i, i ? 'b' : 'a', node_dir, i);
}

static void note_no_space(void *cookie)
{
    atomic_fetch_add(&((struct node *)cookie)->no_space, 1);
}

static void node_setup(int i, struct uuid cluster)
{
    struct node *n = &nodes[i];
    struct random r = random_os();

    n->state_dir = xasprintf("%s/%d/state", node_dir, i);
    n->mount_root = xasprintf("%s/%d/flocker", node_dir, i);
    shell("mkdir -p -m 700 %s %s", n->state_dir, n->mount_root);
    /* Like a real host, whose mounts are shared. */
    shell("mount --bind %s %s && mount --make-shared %s", n->mount_root, n->mount_root,
          n->mount_root);
    n->config = (struct storage_config){.dataset = options(i),
                                        .mount_root = n->mount_root,
                                        .state_dir = n->state_dir,
                                        .node = uuid_random_v4(&r),
                                        .cluster = cluster,
                                        .no_space = note_no_space,
                                        .cookie = n};
    (void)uuid_format(&n->config.node, node_ids[i]);
    node_open(n);
}

void node_open(struct node *n)
{
    ok(storage_open(&n->config, &n->storage));
}

void node_close(struct node *n)
{
    n->storage = storage_close(n->storage);
}

/* Unmounts what is below the folder and unbinds loop devices of files below it. Only these. */
static void sweep(const char *dir)
{
    CLEANUP_FREE char *command = xasprintf(
        "for m in $(awk -v d=%s/ 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | tac); do "
        "case $m in */flocker) ;; *) umount $m;; esac; done; "
        "losetup -l -n -O NAME,BACK-FILE | awk -v d=%s/ 'index($2, d) == 1 {print $1}' | "
        "xargs -r -n1 losetup -d; "
        /* What was mounted in a namespace that is gone is told by its file alone. */
        "for f in %s/cloud/export/volume-*; do losetup -n -O NAME -j $f; done 2>/dev/null | xargs -r -n1 losetup -d",
        dir, dir, dir);
    struct exec_result r = sh(command);

    exec_result_done(&r);
}

void node_reboot(struct node *n)
{
    CLEANUP_FREE char *dir = xasprintf("%s/%d", node_dir, (int)(n - nodes));

    node_close(n);
    sweep(streq(node_backend, "loopback") ? node_dir : dir);
    if (streq(node_backend, "xtremio"))
        simulator_tell(&node_array, "{s:[s]}", "reboot", node_instance(n));
    node_open(n);
}

struct uuid node_new_dataset(void)
{
    struct random r = random_os();

    return uuid_random_v4(&r);
}

struct volume_state node_look(struct node *n, const struct uuid *id)
{
    struct volume_state v;

    ok(storage_observe(n->storage, id, &v));
    return v;
}

void node_shows(struct node *n, const struct uuid *id, bool present, bool attached, bool elsewhere)
{
    struct volume_state v = node_look(n, id);

    assert_int_equal(v.present, present);
    assert_int_equal(v.attached, attached);
    assert_int_equal(v.attached_elsewhere, elsewhere);
    volume_state_done(&v);
}

struct uuid node_mounted(struct node *n, uint64_t size)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(n->storage, &id, size, NULL, 1));
    ok(storage_mount(n->storage, &id, 1));
    return id;
}

void node_end(struct node *n, const struct uuid *id)
{
    ok(storage_release(n->storage, id, 1, 1, ""));
    ok(storage_destroy(n->storage, id));
    node_shows(n, id, false, false, false);
}

char *node_place(const struct node *n, const struct uuid *dataset)
{
    return xasprintf("%s/%s", n->mount_root, UUID_STR(dataset));
}

static char *aws_volume_file(const struct uuid *dataset)
{
    json_t *state = fake_ec2_state(&node_ec2), *volume;
    char *file = NULL;
    size_t i;

    json_array_foreach (json_object_get(state, "volumes"), i, volume) {
        const char *of = json_string_value(
            json_object_get(json_object_get(volume, "tags"), "flocker-dataset-id"));

        if (of && streq(of, UUID_STR(dataset)))
            file = xstrdup(json_string_value(json_object_get(volume, "file")));
    }
    json_decref(state);
    assert_non_null(file);
    return file;
}

static char *powerflex_volume_file(const struct uuid *dataset)
{
    json_t *state = simulator_state(&node_array), *volume;
    struct uuid of;
    char *file = NULL;
    size_t i;

    json_array_foreach (json_object_get(state, "volumes"), i, volume) {
        if (pfx_name_parse(json_string_value(json_object_get(volume, "name")),
                           &nodes[0].config.cluster, &of) &&
            uuid_eq(&of, dataset))
            file = xstrdup(json_string_value(json_object_get(volume, "file")));
    }
    json_decref(state);
    assert_non_null(file);
    return file;
}

static char *xtremio_volume_file(const struct uuid *dataset)
{
    json_t *state = simulator_state(&node_array), *volume;
    CLEANUP_FREE char *name = xasprintf("block-%s", UUID_STR(dataset));
    char *file = NULL;
    size_t i;

    json_array_foreach (json_object_get(state, "volumes"), i, volume) {
        if (str_has_prefix(json_string_value(json_object_get(volume, "name")), name))
            file = xstrdup(json_string_value(json_object_get(volume, "file")));
    }
    json_decref(state);
    assert_non_null(file);
    return file;
}

char *node_volume_file(const struct uuid *dataset)
{
    if (streq(node_backend, "xtremio"))
        return xtremio_volume_file(dataset);
    if (streq(node_backend, "powerflex"))
        return powerflex_volume_file(dataset);
    if (is_openstack())
        return shell_out("echo -n %s/cloud/export/volume-$(cat %s/openstack/volumes/%s)", node_dir,
                         nodes[0].state_dir, UUID_STR(dataset));
    if (streq(node_backend, "aws"))
        return aws_volume_file(dataset);
    return shell_out("find %s/shared -name 'block-%s*' | tr -d '\\n'", node_dir, UUID_STR(dataset));
}

char *node_mark_folder(const struct node *n, const struct uuid *dataset)
{
    if (is_openstack())
        return xasprintf("%s/openstack/marks/%s", n->state_dir, UUID_STR(dataset));
    if (streq(node_backend, "aws") || streq(node_backend, "powerflex") ||
        streq(node_backend, "xtremio"))
        return xasprintf("%s/%s/marks/%s", n->state_dir, node_backend, UUID_STR(dataset));
    return xasprintf("%s/shared/marks/%s/%s", node_dir, node_instance(n), UUID_STR(dataset));
}

/* ---- files ---- */

void write_file(const char *dir, const char *name, const void *bytes, size_t n)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
}

char *read_text(const char *dir, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char buf[4096];
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

    return n < 0 ? NULL : xstrndup(buf, (size_t)n);
}

char *digest(const char *dir)
{
    return shell_out("tar -C %s --sort=name --format=ustar --mtime=@0 -cf - . | sha256sum", dir);
}

/* ---- helpers ---- */

pid_t helper_start(void (*fn)(const char *), const char *arg)
{
    int p[2];
    char c;

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fn(arg);
        (void)!write(p[1], "x", 1);
        alarm(DEADLINE_S);
        for (;;)
            pause();
    }
    close(p[1]);
    assert_int_equal(read(p[0], &c, 1), 1);
    close(p[0]);
    return pid;
}

void helper_stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

struct sending {
    struct node *from;
    const struct uuid *dataset;
    const char *base, *snapshot;
    int fd;
    struct err *e;
};

static void *send_it(void *cookie)
{
    struct sending *s = cookie;

    const struct stream_spec stream = {.base = s->base, .snapshot = s->snapshot};

    s->e = storage_send(s->from->storage, s->dataset, &stream, s->fd, NULL);
    close(s->fd);
    return NULL;
}

struct err *copy(struct node *from, struct node *to, const struct uuid *dataset, const char *base,
                 const char *snapshot)
{
    int p[2];
    pthread_t t;
    CLEANUP_FREE char *identity = NULL;

    TRY(storage_snapshot_identity(from->storage, dataset, snapshot, &identity));
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    struct sending s = {from, dataset, base, snapshot, p[1], NULL};

    assert_int_equal(pthread_create(&t, NULL, send_it, &s), 0);
    const struct stream_spec stream = {.base = base, .snapshot = snapshot, .identity = identity};
    struct err *e = storage_receive(to->storage, dataset, &stream, p[0]);

    close(p[0]);
    pthread_join(t, NULL);
    if (!e)
        return s.e;
    err_free(s.e);
    return e;
}

/* ---- the whole ---- */

static void child_main(int (*run)(void))
{
    signal(SIGPIPE, SIG_IGN);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        perror("private mount namespace");
        _exit(2);
    }
    if (streq(node_backend, "zfs"))
        zfs_start();
    if (streq(node_backend, "aws"))
        aws_start();
    if (streq(node_backend, "powerflex"))
        powerflex_start();
    if (streq(node_backend, "xtremio"))
        xtremio_start();
    if (is_openstack())
        openstack_start();
    struct random r = random_os();
    struct uuid cluster = uuid_random_v4(&r);

    for (int i = 0; i < NODES; i++)
        node_setup(i, cluster);
    int rc = run();

    for (int i = 0; i < NODES; i++)
        node_close(&nodes[i]);
    sweep(node_dir);
    if (node_ec2.pid)
        fake_ec2_stop(&node_ec2);
    if (node_array.pid)
        simulator_stop(&node_array);
    if (node_between.pid)
        simulator_stop(&node_between);
    cloud_stop(&node_cloud);
    if (zfs_daemon)
        helper_stop(zfs_daemon);
    exit(rc); /* with the sanitizers' last words */
}

static volatile pid_t child_pid;

/* The tests are asked to end: their folder must still be cleared. */
static void end_child(int sig)
{
    kill(child_pid, SIGKILL);
}

int node_main(int argc, char **argv, int (*run)(void))
{
    char template[] = "/var/tmp/flocker-test-XXXXXX";
    int status = 0;

    if (geteuid() != 0) {
        (void)puts("skipped: mounts need root");
        return 77;
    }
    node_backend = argc > 1 ? argv[1] : "fake";
    if (streq(node_backend, "zfs") && !zfs_in_kernel() &&
        system("command -v zfs-fuse zfs zpool >/dev/null && test -c /dev/fuse")) {
        (void)puts("skipped: needs zfs-fuse (scripts/install-deps installs it where Debian has it) "
                   "and /dev/fuse");
        return 77;
    }
    if (is_openstack() && !cloud_is_built()) {
        (void)puts("skipped: needs an OpenStack (lab/openstack build, some minutes)");
        return 77;
    }
    node_dir = mkdtemp(template);
    if (!node_dir)
        return 2;
    pid_t pid = fork();

    if (pid < 0)
        return 2;
    if (!pid) {
        alarm(zfs_in_kernel() || is_slow() ? SLOW_DEADLINE_S : DEADLINE_S);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        child_main(run);
    }
    child_pid = pid;
    signal(SIGTERM, end_child);
    signal(SIGINT, end_child);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    /* The namespace is gone, and its mounts with it; loop devices are not. */
    sweep(node_dir);
    CLEANUP_FREE char *rm = xasprintf("rm -rf --one-file-system %s", node_dir);
    struct exec_result r = sh(rm);

    exec_result_done(&r);
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    (void)printf("the tests ended by signal %d\n", WTERMSIG(status));
    return 1;
}
