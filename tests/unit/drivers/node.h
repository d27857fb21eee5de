/* Two "nodes" in a private mount namespace and a temporary folder, for the tests of storage.h.
 * Whatever a test leaves behind (mounts, loop devices, processes, files) is removed by the parent
 * process, also after a crash. */
#pragma once

#include "drivers/storage.h"
#include "cloud.h"
#include "fake_ec2.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <sys/types.h>

#define NODES 2
#define NODE_STRANGER "9e56672f-2f4b-4a42-bff4-0123456789ab" /* a host of the PowerFlex system that is no node */

struct node {
    struct storage *storage;
    struct storage_config config;
    char *state_dir, *mount_root;
    atomic_uint no_space; /* so often a receive found the storage full */
};

extern const char *node_backend;
extern char *node_dir; /* the temporary folder */
extern struct node nodes[NODES];
extern struct simulator node_ec2;   /* of the backend aws */
extern struct simulator node_array; /* of backends whose volumes are on a storage array */
extern struct cloud node_cloud;       /* of openstack (Cinder alone) and openstack-nova */
extern struct simulator node_between; /* of openstack-nova: between it and the driver */
/* Of openstack-nova: what the node is configured with. */
json_t *node_nova_options(const struct node *n);

/* Runs the tests in a child with a deadline; returns main()'s value. argv[1] names the backend. */
int node_main(int argc, char **argv, int (*run)(void));

void node_open(struct node *n);
void node_close(struct node *n);
/* As after a reboot: nothing mounted, no loop device bound, process new. */
void node_reboot(struct node *n);

struct uuid node_new_dataset(void);
struct volume_state node_look(struct node *n, const struct uuid *id); /* storage_observe(), which must succeed */
void node_shows(struct node *n, const struct uuid *id, bool present, bool attached, bool elsewhere);
/* A new dataset, made and mounted at epoch 1. */
struct uuid node_mounted(struct node *n, uint64_t size);
/* Gives such a one back, and destroys it. */
void node_end(struct node *n, const struct uuid *id);
/* Attachable: the step of sizes, and what the backend calls the node's machine. */
uint64_t node_unit(void);
const char *node_instance(const struct node *n);
/* xtremio: the array's disks are LUNs of a real iSCSI target. */
bool node_has_real_iscsi(void);
/* Attachable: the file behind the volume, and the folder with this node's mark. */
char *node_volume_file(const struct uuid *dataset);
char *node_mark_folder(const struct node *n, const struct uuid *dataset);
char *node_place(const struct node *n, const struct uuid *dataset);
/* Asserts that the call succeeded; shows the text of the error otherwise. */
void ok_(struct err *e, const char *what, int line);
#define ok(call) ok_((call), #call, __LINE__)
/* Asserts the code, and that the text contains `part` (may be NULL). */
void fails_(struct err *e, enum err_code code, const char *part, const char *what, int line);
#define fails(call, code, part) fails_((call), (code), (part), #call, __LINE__)

void write_file(const char *dir, const char *name, const void *bytes, size_t n);
char *read_text(const char *dir, const char *name); /* NULL when it cannot be read */
/* Runs a shell command (format) and asserts status 0; for setting scenes only. */
void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
char *shell_out(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A digest of names, modes, owners and contents of everything below the folder. */
char *digest(const char *dir);

/* A child process that runs `fn` and then waits to be killed; returns when fn is done. */
pid_t helper_start(void (*fn)(const char *), const char *arg);
void helper_stop(pid_t pid);

/* Sends from one node and receives on the other, at the same time. */
struct err *copy(struct node *from, struct node *to, const struct uuid *dataset, const char *base,
                 const char *snapshot);
