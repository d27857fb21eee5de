#include "btrfs_nodes.h"

#include "base/str.h"
#include "content.h"

char *pool_of(const struct node *n)
{
    return xasprintf("%s/btrfs-pool", n->state_dir);
}

char *snapshot_path(const struct node *n, const struct uuid *id, const char *name)
{
    return xasprintf("%s/btrfs-pool/flocker/%s/snap/%s", n->state_dir, UUID_STR(id), name);
}

struct uuid new_volume(void)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(A->storage, &id, 0, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    return id;
}

void destroy_everywhere(const struct uuid *id)
{
    for (int i = 0; i < NODES; i++) {
        struct volume_state v;

        ok(storage_destroy(nodes[i].storage, id));
        ok(storage_observe(nodes[i].storage, id, &v));
        assert_true(volume_state_is_empty(&v));
        volume_state_done(&v);
    }
}

void assert_same(const struct uuid *id, const char *name, const char *when)
{
    CLEANUP_FREE char *a = snapshot_path(A, id, name), *b = snapshot_path(B, id, name);
    CLEANUP_FREE char *la = content_list(a), *lb = content_list(b), *ia = NULL, *ib = NULL;

    content_same(lb, la, when);
    ok(storage_snapshot_identity(A->storage, id, name, &ia));
    ok(storage_snapshot_identity(B->storage, id, name, &ib));
    assert_string_equal(ib, ia);
}

void pool_compress(const struct node *n, const char *how)
{
    CLEANUP_FREE char *pool = pool_of(n);

    shell("mount -o remount,compress=%s %s", how, pool);
}

/* Nothing but what is listed is left of it. */
void assert_tidy(const struct uuid *id)
{
    shell("test -z \"$(find %s/btrfs-pool/flocker/%s/incoming -mindepth 1 2>/dev/null)\"", B->state_dir, UUID_STR(id));
}
