/* Attaches volumes of an EC2 as the agent does, and by hand with no more than the calls that it takes. Prints times in milliseconds, ours
 * and by hand, a pair a line: in `one` of a volume from nothing to mounted (by hand: the calls, mkfs), in `many` of N that exist,
 * all at once, to attached. */
#include "base/now.h"
#include "base/str.h"
#include "drivers/aws/aws.h"
#include "drivers/aws/disk.h"
#include "drivers/filesystem.h"
#include "drivers/storage_priv.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define GIB (1ull << 30)
#define MANY_MAX 100u

static struct storage *storage;
static struct aws *aws;
static char *host_root;

static struct uuid new_dataset(void)
{
    struct random r = random_os();

    return uuid_random_v4(&r);
}

static double ms_since(uint64_t began)
{
    return (double)(now_os().mono_us - began) / USEC_PER_MSEC;
}

/* ---- by hand ---- */

static struct err *wait_state(const char *id, enum aws_volume_status status, bool attached)
{
    struct wait w = wait_for(60);
    struct aws_volume v;
    bool found;

    w.pause_us = 5000; /* as soon as can be */
    do {
        struct ec2_try t = aws_try(&w);

        TRY(aws_look_again(aws, &t, id, &v, &found));
        if (found && v.status == status &&
            (!attached || (v.n_attachments && v.attachments[0].status == AWS_ATTACHED)))
            return NULL;
        w.pause_us = 5000;
    } while (wait_more(&w));
    return err_new(ERR_TIMEOUT, "volume %s stays as it is", id);
}

static struct err *attach_by_hand(const char *id, unsigned n)
{
    struct wait w = wait_for(60);
    struct ec2_try t = aws_try(&w);
    char name[AWS_NAME_SIZE];

    aws_device_name(n, name);
    TRY(ec2_attach_sync(aws->ec2, &t, id, aws->instance, name));
    return wait_state(id, AWS_VOLUME_IN_USE, /* attached= */ true);
}

static struct err *detach_by_hand(const char *id)
{
    struct wait w = wait_for(60);
    struct ec2_try t = aws_try(&w);

    TRY(ec2_detach_sync(aws->ec2, &t, id, aws->instance));
    return wait_state(id, AWS_VOLUME_AVAILABLE, /* attached= */ false);
}

static struct err *mkfs_by_hand(const char *id)
{
    CLEANUP_FREE char *path = NULL;
    CLEANUP_CLOSE int intent = open("/dev/null", O_RDONLY | O_CLOEXEC);

    TRY(aws_disk_find(host_root, id, GIB, GIB, "", &path));
    return path ? filesystem_make("ext4", path, intent) : err_new(ERR_IO, "no device of %s", id);
}

static struct err *one_by_hand(double *ret_ms)
{
    CLEANUP_FREE char *token = xstrdup(UUID_STR(&(struct uuid){.b = {0}}));
    struct uuid id = new_dataset();
    const struct ec2_filter tags[] = {{"Name", "by hand"}, {NULL, NULL}};
    struct ec2_new_volume how = {
        .zone = aws->zone, .type = "gp3", .size = GIB, .client_token = token, .tags = tags};
    struct wait w = wait_for(60);
    struct ec2_try t = aws_try(&w);
    uint64_t began = now_os().mono_us;
    struct aws_volume v;

    memcpy(token, UUID_STR(&id), strlen(token));
    TRY(ec2_create_sync(aws->ec2, &t, &how, &v));
    TRY(wait_state(v.id, AWS_VOLUME_AVAILABLE, /* attached= */ false));
    TRY(attach_by_hand(v.id, 0));
    TRY(mkfs_by_hand(v.id));
    *ret_ms = ms_since(began);
    TRY(detach_by_hand(v.id));
    return ec2_delete_sync(aws->ec2, &t, v.id);
}

/* ---- one ---- */

static struct err *one_of_ours(double *ret_ms)
{
    struct uuid id = new_dataset();
    uint64_t began = now_os().mono_us;

    TRY(storage_create(storage, &id, GIB, NULL, 1));
    TRY(storage_mount(storage, &id, 1));
    *ret_ms = ms_since(began);
    return storage_destroy(storage, &id);
}

static struct err *one(unsigned rounds)
{
    double ours = 0, theirs = 0;

    for (unsigned i = 0; i < rounds; i++) {
        TRY(one_of_ours(&ours));
        TRY(one_by_hand(&theirs));
        (void)printf("%.1f %.1f\n", ours, theirs);
    }
    return NULL;
}

/* ---- many ---- */

struct job {
    pthread_t thread;
    struct uuid id;
    char volume[AWS_ID_SIZE];
    unsigned n;
    struct err *(*run)(struct job *j);
    struct err *error;
};

static struct err *job_make(struct job *j)
{
    struct aws_volume v;
    bool found;

    TRY(storage_create(storage, &j->id, GIB, NULL, 1));
    TRY(storage_mount(storage, &j->id, 1)); /* makes the file system */
    TRY(storage_unmount(storage, &j->id));
    TRY(aws_detach(aws, &j->id));
    TRY(aws_find(aws, &j->id, &v, &found));
    memcpy(j->volume, v.id, sizeof(j->volume));
    return NULL;
}

static struct err *job_mount(struct job *j)
{
    return storage_mount(storage, &j->id, 1);
}

static struct err *job_unmount(struct job *j)
{
    TRY(storage_unmount(storage, &j->id));
    return aws_detach(aws, &j->id);
}

static struct err *job_by_hand(struct job *j)
{
    return attach_by_hand(j->volume, j->n);
}

static struct err *job_destroy(struct job *j)
{
    return storage_destroy(storage, &j->id);
}

static void *job_main(void *cookie)
{
    struct job *j = cookie;

    j->error = j->run(j);
    return NULL;
}

static struct err *all(struct job *jobs, unsigned n, struct err *(*run)(struct job *j),
                       double *ret_ms)
{
    uint64_t began = now_os().mono_us;
    struct err *e = NULL;

    for (unsigned i = 0; i < n; i++) {
        jobs[i].run = run;
        if (pthread_create(&jobs[i].thread, NULL, job_main, &jobs[i]))
            return err_new(ERR_INTERNAL, "no thread");
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(jobs[i].thread, NULL);
        e = e ? e : steal(&jobs[i].error);
    }
    *ret_ms = ms_since(began);
    return e;
}

static struct err *many(unsigned n)
{
    static struct job jobs[MANY_MAX];
    double ours, theirs, other;

    n = n < MANY_MAX ? n : MANY_MAX;
    for (unsigned i = 0; i < n; i++) {
        jobs[i].id = new_dataset();
        jobs[i].n = i;
    }
    TRY(all(jobs, n, job_make, &other));
    TRY(all(jobs, n, job_mount, &ours));
    TRY(all(jobs, n, job_unmount, &other));
    TRY(all(jobs, n, job_by_hand, &theirs));
    (void)printf("%.1f %.1f\n", ours, theirs);
    return all(jobs, n, job_destroy, &other);
}

/* ---- the whole ---- */

static struct err *run(char **argv)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "backend", "aws", "region",
                          "eu-west-1", "zone", "eu-west-1a", "access_key_id", "AKIATEST",
                          "secret_access_key", "wJalr/K7MDENG+test=", "endpoint", argv[1],
                          "compute_instance_id", "i-0aaa", "host_root", argv[2]);
    struct storage_config config = {.dataset = o,
                                    .state_dir = argv[3],
                                    .mount_root = argv[4],
                                    .node = new_dataset(),
                                    .cluster = new_dataset()};
    unsigned n = (unsigned)strtoul(argv[6], NULL, 10);

    host_root = argv[2];
    struct err *e = storage_open(&config, &storage);

    if (!e) {
        aws = storage->cookie;
        e = streq(argv[5], "one") ? one(n) : many(n);
        storage_close(storage);
    }
    json_decref(o);
    return e;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        (void)fprintf(stderr, "usage: attach ENDPOINT HOST_ROOT STATE_DIR MOUNT_ROOT one|many N\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    CLEANUP_ERR struct err *e = run(argv);

    if (e)
        (void)fprintf(stderr, "attach: %s\n", e->text);
    return e ? 1 : 0;
}
