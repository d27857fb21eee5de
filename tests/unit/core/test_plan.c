/* What a node does next, case by case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "core/plan.h"

#define WAIT STEP_MAX /* expected: no step */

struct dataset_case {
    const char *name;
    /* told */
    enum role role;
    uint64_t epoch;
    bool born;
    const char *base, *keep;
    uint64_t transfer, number, compare, compared;
    bool not_live, in_use;
    /* seen */
    bool present, mounted, partial, attached;
    enum mark_state mark;
    uint64_t mark_epoch, mark_transfer;
    const char *mark_snapshot;
    uint64_t size, wanted_size;
    const char *snapshots[3];
    uint64_t announced, final_sent, gone;
    bool long_ago; /* the final one was sent */
    enum storage_kind storage;
    /* expected */
    enum step_kind step;
    const char *snapshot, *also;
    enum reason_code reason;
    bool stop_containers;
};

#define OWNED(e) .present = true, .mark = MARK_OWNED, .mark_epoch = (e)
#define RELEASED(e, t)                                                                             \
    .present = true, .mark = MARK_RELEASED, .mark_epoch = (e), .mark_transfer = (t),               \
    .mark_snapshot = "t9-final"

static const struct dataset_case cases[] = {
    /* Becoming an owner: only on a live order. */
    {"new", .role = ROLE_OWNER, .epoch = 5, .step = STEP_CREATE},
    {"new, not live", .role = ROLE_OWNER, .epoch = 5, .not_live = true, .step = WAIT, .reason = REASON_MOUNTING},
    {"made, birth not recorded", .role = ROLE_OWNER, .epoch = 5, OWNED(5), .step = WAIT, .reason = REASON_CREATING},
    {"born", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5), .step = STEP_MOUNT},
    {"born, not live", .role = ROLE_OWNER, .epoch = 5, .born = true, .not_live = true, OWNED(5), .step = WAIT,
     .reason = REASON_MOUNTING},
    {"mounted", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5), .mounted = true, .step = WAIT},
    {"mounted, not live: stays", .role = ROLE_OWNER, .epoch = 5, .born = true, .not_live = true, OWNED(5),
     .mounted = true, .step = WAIT},
    {"leftovers", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5), .mounted = true, .partial = true,
     .step = STEP_PRUNE},
    {"old snapshots", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5), .mounted = true, .snapshots = {"t4-1"},
     .step = STEP_PRUNE},
    {"grown", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5), .mounted = true, .size = 64, .wanted_size = 128,
     .step = STEP_GROW},
    {"grown, not live", .role = ROLE_OWNER, .epoch = 5, .born = true, .not_live = true, OWNED(5), .mounted = true,
     .size = 64, .wanted_size = 128, .step = STEP_GROW},
    {"grown already", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5), .mounted = true, .size = 128,
     .wanted_size = 128, .step = WAIT},
    {"larger than wanted: rounded up, or not known", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5),
     .mounted = true, .size = 192, .wanted_size = 128, .step = WAIT},
    {"no limit here", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5), .mounted = true, .wanted_size = 128,
     .step = WAIT},
    {"attachable: grown, too", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5), .mounted = true,
     .attached = true, .size = 64, .wanted_size = 128, .storage = STORAGE_ATTACHABLE, .step = STEP_GROW},
    {"attachable: mounted first", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(5),
     .attached = true, .size = 64, .wanted_size = 128, .storage = STORAGE_ATTACHABLE, .step = STEP_MOUNT},
    {"grown while it is copied: by the destination", .role = ROLE_SOURCE, .epoch = 5, .born = true, .transfer = 9, OWNED(5),
     .mounted = true, .size = 64, .wanted_size = 128, .step = STEP_SNAPSHOT, .snapshot = "t9-1"},
    /* Lost data are never replaced. */
    {"lost, with the mark", .role = ROLE_OWNER, .epoch = 5, .born = true, .mark = MARK_OWNED, .mark_epoch = 5,
     .step = WAIT, .reason = REASON_DATA_MISSING},
    {"lost, without mark", .role = ROLE_OWNER, .epoch = 5, .born = true, .step = WAIT, .reason = REASON_DATA_MISSING},
    {"lost before birth", .role = ROLE_OWNER, .epoch = 5, .mark = MARK_OWNED, .mark_epoch = 5, .step = STEP_CREATE},
    {"base missing", .role = ROLE_OWNER, .epoch = 5, .born = true, .base = "t4-final", .step = WAIT,
     .reason = REASON_DATA_MISSING},
    /* Taking over. */
    {"promote", .role = ROLE_OWNER, .epoch = 5, .born = true, .base = "t4-final", .snapshots = {"t4-1", "t4-final"},
     .step = STEP_PROMOTE, .snapshot = "t4-final"},
    {"promote, not live", .role = ROLE_OWNER, .epoch = 5, .born = true, .base = "t4-final", .not_live = true,
     .snapshots = {"t4-final"}, .step = WAIT, .reason = REASON_MOUNTING},
    {"promote, cut before", .role = ROLE_OWNER, .epoch = 5, .born = true, .base = "t4-final", .mark = MARK_PROMOTING,
     .mark_epoch = 5, .snapshots = {"t4-final"}, .step = STEP_PROMOTE, .snapshot = "t4-final"},
    {"promote over an older volume that is mounted", .role = ROLE_OWNER, .epoch = 5, .born = true, .base = "t4-final",
     RELEASED(3, 2), .mounted = true, .snapshots = {"t4-final"}, .step = STEP_UNMOUNT},
    {"owner again after a recall", .role = ROLE_OWNER, .epoch = 5, .born = true, RELEASED(3, 2), .step = STEP_CLAIM},
    {"owner again, never released", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(3), .mounted = true,
     .step = STEP_CLAIM},
    /* An order older than what this node knows: from another or older store. */
    {"released at that epoch", .role = ROLE_OWNER, .epoch = 5, .born = true, RELEASED(5, 9), .step = WAIT,
     .reason = REASON_STORE_UNKNOWN},
    {"owned later", .role = ROLE_OWNER, .epoch = 5, .born = true, OWNED(6), .step = WAIT, .reason = REASON_STORE_UNKNOWN},
    {"promoting later", .role = ROLE_OWNER, .epoch = 5, .born = true, .mark = MARK_PROMOTING, .mark_epoch = 7,
     .step = WAIT, .reason = REASON_STORE_UNKNOWN},
    /* Source: increments. */
    {"first snapshot", .role = ROLE_SOURCE, .epoch = 5, .born = true, .transfer = 9, OWNED(5), .mounted = true,
     .step = STEP_SNAPSHOT, .snapshot = "t9-1"},
    {"a fresh one after a restart", .role = ROLE_SOURCE, .epoch = 5, .born = true, .transfer = 9, OWNED(5), .mounted = true,
     .snapshots = {"t9-1"}, .step = STEP_SNAPSHOT, .snapshot = "t9-2"},
    {"prune what the newest makes useless", .role = ROLE_SOURCE, .epoch = 5, .born = true, .transfer = 9, OWNED(5),
     .mounted = true, .snapshots = {"t9-1", "t9-2"}, .step = STEP_PRUNE, .snapshot = "t9-2"},
    {"after the newest of them, in whatever order they are listed", .role = ROLE_SOURCE, .epoch = 5, .born = true,
     .transfer = 9, OWNED(5), .mounted = true, .snapshots = {"t9-2", "t9-1"}, .step = STEP_PRUNE, .snapshot = "t9-2"},
    {"what others made is not counted", .role = ROLE_SOURCE, .epoch = 5, .born = true, .transfer = 9, OWNED(5), .mounted = true,
     .snapshots = {"mine"}, .step = STEP_SNAPSHOT, .snapshot = "t9-1"},
    {"the final one is no increment", .role = ROLE_SOURCE, .epoch = 5, .born = true, .transfer = 9, OWNED(5), .mounted = true,
     .snapshots = {"t9-final"}, .step = STEP_SNAPSHOT, .snapshot = "t9-1"},
    {"source mounts first", .role = ROLE_SOURCE, .epoch = 5, .born = true, .transfer = 9, OWNED(5), .step = STEP_MOUNT},
    {"attachable: nothing to copy", .role = ROLE_SOURCE, .epoch = 5, .born = true, .transfer = 9, OWNED(5),
     .mounted = true, .storage = STORAGE_ATTACHABLE, .step = WAIT},
    /* Release. */
    {"release", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, OWNED(5), .mounted = true, .step = STEP_RELEASE,
     .snapshot = "t9-final"},
    {"release, in use", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, OWNED(5), .mounted = true, .in_use = true,
     .step = WAIT, .reason = REASON_STOPPING, .stop_containers = true},
    {"release needs no live order", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, .not_live = true, OWNED(5),
     .mounted = true, .step = STEP_RELEASE, .snapshot = "t9-final"},
    {"ship the final one", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, RELEASED(5, 9), .snapshots = {"t9-final"},
     .step = STEP_SEND, .snapshot = "t9-final"},
    {"shipped", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, RELEASED(5, 9), .final_sent = 9, .step = WAIT,
     .reason = REASON_RELEASING},
    {"shipped, and no answer for long", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, RELEASED(5, 9), .final_sent = 9,
     .long_ago = true, .step = STEP_SEND, .snapshot = "t9-final"},
    {"detached", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, RELEASED(5, 9), .storage = STORAGE_ATTACHABLE,
     .step = WAIT, .reason = REASON_RELEASING},
    {"nothing to release", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, .step = WAIT, .reason = REASON_DATA_MISSING},
    {"released for another transfer", .role = ROLE_RELEASE, .epoch = 5, .transfer = 8, RELEASED(5, 9), .step = WAIT,
     .reason = REASON_DATA_MISSING},
    {"owned at another epoch", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, OWNED(4), .step = WAIT,
     .reason = REASON_DATA_MISSING},
    {"released at another epoch", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, RELEASED(4, 9), .step = WAIT,
     .reason = REASON_DATA_MISSING},
    {"owned, but lost", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, .mark = MARK_OWNED, .mark_epoch = 5, .step = WAIT,
     .reason = REASON_DATA_MISSING},
    /* Not an owner. */
    {"an order of a later version", .role = ROLE_INVALID, .epoch = 5, OWNED(5), .mounted = true, .step = WAIT},
    {"receive", .role = ROLE_RECEIVE, .transfer = 9, .announced = 9, .step = WAIT},
    {"receive, still mounted", .role = ROLE_RECEIVE, .transfer = 9, RELEASED(5, 7), .mounted = true, .step = STEP_UNMOUNT},
    {"keep", .role = ROLE_KEEP, RELEASED(5, 9), .step = WAIT},
    {"keep, mounted and in use", .role = ROLE_KEEP, RELEASED(5, 9), .mounted = true, .in_use = true, .step = WAIT,
     .reason = REASON_STOPPING, .stop_containers = true},
    {"receive, but it got it later", .role = ROLE_RECEIVE, .transfer = 9, .number = 9, OWNED(10), .mounted = true, .in_use = true,
     .step = WAIT, .reason = REASON_STORE_UNKNOWN},
    {"keep, but it got it later", .role = ROLE_KEEP, .number = 9, OWNED(10), .mounted = true, .in_use = true, .step = WAIT,
     .reason = REASON_STORE_UNKNOWN},
    {"keep, mounted at an earlier epoch", .role = ROLE_KEEP, .number = 9, OWNED(9), .mounted = true, .step = STEP_UNMOUNT},
    {"keep, as a control service says it that tells no number", .role = ROLE_KEEP, OWNED(10), .mounted = true,
     .step = STEP_UNMOUNT},
    {"the mover takes no old transfer", .role = ROLE_RECEIVE, .transfer = 9, .announced = 8, .step = STEP_FORBID},
    {"nor one nobody asks for", .role = ROLE_NONE, .announced = 8, .step = STEP_FORBID},
    {"no order, no step", .role = ROLE_NONE, OWNED(5), .mounted = true, .step = WAIT},
    /* Attachable: what is attached and not wanted here goes back, whatever brought it. */
    {"stray after the release", .role = ROLE_RELEASE, .epoch = 5, .transfer = 9, RELEASED(5, 9), .attached = true,
     .storage = STORAGE_ATTACHABLE, .step = STEP_UNMOUNT},
    {"stray, kept", .role = ROLE_KEEP, .number = 9, .not_live = true, RELEASED(5, 9), .attached = true, .storage = STORAGE_ATTACHABLE,
     .step = STEP_UNMOUNT},
    {"stray where it is to go", .role = ROLE_RECEIVE, .transfer = 9, .number = 9, .present = true, .attached = true,
     .storage = STORAGE_ATTACHABLE, .step = STEP_UNMOUNT},
    {"taken while the machine was away", .role = ROLE_KEEP, .number = 9, OWNED(5), .attached = true, .storage = STORAGE_ATTACHABLE,
     .step = STEP_UNMOUNT},
    {"owned later than the order knows: stays", .role = ROLE_KEEP, .number = 9, OWNED(10), .attached = true, .storage = STORAGE_ATTACHABLE,
     .step = WAIT},
    {"stray after the removal", .role = ROLE_DROP, .number = 9, .gone = 9, .present = true, .attached = true, .storage = STORAGE_ATTACHABLE,
     .step = STEP_UNMOUNT},
    {"stray without an order", .role = ROLE_NONE, .present = true, .attached = true, .storage = STORAGE_ATTACHABLE, .step = STEP_UNMOUNT},
    {"stray, not live", .role = ROLE_NONE, .not_live = true, .present = true, .attached = true, .storage = STORAGE_ATTACHABLE, .step = WAIT},
    {"owned without an order: stays", .role = ROLE_NONE, OWNED(5), .attached = true, .storage = STORAGE_ATTACHABLE, .step = WAIT},
    {"mounted without an order: stays", .role = ROLE_NONE, .present = true, .attached = true, .mounted = true, .storage = STORAGE_ATTACHABLE,
     .step = WAIT},
    /* Replicas: only the snapshot, and only of what was released. */
    {"replica", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", RELEASED(5, 7), .snapshots = {"t7-final"},
     .step = STEP_DEMOTE, .snapshot = "t7-final"},
    {"replica, not live", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", .not_live = true, RELEASED(5, 7),
     .snapshots = {"t7-final"}, .step = WAIT, .reason = REASON_DELETING},
    {"replica, still mounted", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", RELEASED(5, 7), .mounted = true,
     .snapshots = {"t7-final"}, .step = STEP_UNMOUNT},
    {"replica, but it got it later", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", OWNED(10), .mounted = true,
     .snapshots = {"t7-final"}, .step = WAIT, .reason = REASON_STORE_UNKNOWN},
    {"replica, the volume is gone", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", .mark = MARK_RELEASED,
     .mark_epoch = 5, .snapshots = {"t7-6", "t7-final"}, .step = STEP_PRUNE, .snapshot = "t7-final", .also = ""},
    {"replica, half a stream", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", .mark = MARK_RELEASED,
     .mark_epoch = 5, .partial = true, .snapshots = {"t7-final"}, .step = STEP_PRUNE, .snapshot = "t7-final"},
    {"replica it is", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", .mark = MARK_RELEASED, .mark_epoch = 5,
     .snapshots = {"t7-final"}, .step = WAIT},
    {"replica of what is not there: nothing goes", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", RELEASED(5, 7),
     .snapshots = {"t7-6"}, .step = WAIT, .reason = REASON_DATA_MISSING},
    {"replica, but it is owned", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", OWNED(5),
     .snapshots = {"t7-final"}, .step = WAIT, .reason = REASON_STORE_UNKNOWN},
    {"replica, but it was released later", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", RELEASED(10, 11),
     .snapshots = {"t7-final"}, .step = WAIT, .reason = REASON_STORE_UNKNOWN},
    {"replica, but a newer transfer came", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", RELEASED(5, 7),
     .snapshots = {"t7-final", "t10-1"}, .step = WAIT, .reason = REASON_STORE_UNKNOWN},
    {"owner with a replica elsewhere", .role = ROLE_OWNER, .epoch = 8, .born = true, .base = "t7-final", .keep = "t7-final",
     OWNED(8), .mounted = true, .snapshots = {"t7-final"}, .step = WAIT},
    {"owner with a replica elsewhere: all else goes", .role = ROLE_OWNER, .epoch = 8, .born = true, .keep = "t7-final",
     OWNED(8), .mounted = true, .snapshots = {"t7-final", "t9-1"}, .step = STEP_PRUNE, .snapshot = "t7-final"},
    {"no replica any more", .role = ROLE_OWNER, .epoch = 8, .born = true, .base = "t7-final", OWNED(8), .mounted = true,
     .snapshots = {"t7-final"}, .step = STEP_PRUNE, .snapshot = ""},
    {"source with a replica: the first snapshot", .role = ROLE_SOURCE, .epoch = 8, .born = true, .transfer = 9,
     .keep = "t7-final", OWNED(8), .mounted = true, .snapshots = {"t7-final"}, .step = STEP_SNAPSHOT, .snapshot = "t9-1"},
    {"source with a replica: the next", .role = ROLE_SOURCE, .epoch = 8, .born = true, .transfer = 9, .keep = "t7-final",
     OWNED(8), .mounted = true, .snapshots = {"t7-final", "t9-1"}, .step = STEP_SNAPSHOT, .snapshot = "t9-2"},
    {"source with a replica: prune, but not that", .role = ROLE_SOURCE, .epoch = 8, .born = true, .transfer = 9,
     .keep = "t7-final", OWNED(8), .mounted = true, .snapshots = {"t7-final", "t9-1", "t9-2"}, .step = STEP_PRUNE,
     .snapshot = "t9-2", .also = "t7-final"},
    {"a replica is never mounted by an older order", .role = ROLE_OWNER, .epoch = 5, .born = true, .mark = MARK_RELEASED,
     .mark_epoch = 5, .snapshots = {"t7-final"}, .step = WAIT, .reason = REASON_STORE_UNKNOWN},
    {"nor by one that names no snapshot", .role = ROLE_OWNER, .epoch = 8, .born = true, .mark = MARK_RELEASED,
     .mark_epoch = 5, .snapshots = {"t7-final"}, .step = WAIT, .reason = REASON_DATA_MISSING},
    {"it gets its data by a move", .role = ROLE_OWNER, .epoch = 10, .born = true, .base = "t9-final", .mark = MARK_RELEASED,
     .mark_epoch = 5, .snapshots = {"t7-final", "t9-final"}, .step = STEP_PROMOTE, .snapshot = "t9-final"},
    /* Comparing a replica, as somebody asked: when nothing else is to do. */
    {"compare", .role = ROLE_OWNER, .epoch = 8, .born = true, .keep = "t7-final", .compare = 99, OWNED(8), .mounted = true,
     .snapshots = {"t7-final"}, .step = STEP_VERIFY, .snapshot = "t7-final"},
    {"compared", .role = ROLE_OWNER, .epoch = 8, .born = true, .keep = "t7-final", .compare = 99, .compared = 99, OWNED(8),
     .mounted = true, .snapshots = {"t7-final"}, .step = WAIT},
    {"compare, not live", .role = ROLE_OWNER, .epoch = 8, .born = true, .keep = "t7-final", .compare = 99, .not_live = true,
     OWNED(8), .mounted = true, .snapshots = {"t7-final"}, .step = WAIT},
    {"compare what is not there", .role = ROLE_OWNER, .epoch = 8, .born = true, .keep = "t7-final", .compare = 99, OWNED(8),
     .mounted = true, .step = WAIT},
    {"mount before comparing", .role = ROLE_OWNER, .epoch = 8, .born = true, .keep = "t7-final", .compare = 99, OWNED(8),
     .snapshots = {"t7-final"}, .step = STEP_MOUNT},
    {"prune before comparing", .role = ROLE_OWNER, .epoch = 8, .born = true, .keep = "t7-final", .compare = 99, OWNED(8),
     .mounted = true, .snapshots = {"t7-final", "t9-1"}, .step = STEP_PRUNE, .snapshot = "t7-final"},
    {"a replica that may be compared", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", .compare = 99, .announced = 99,
     .mark = MARK_RELEASED, .mark_epoch = 5, .snapshots = {"t7-final"}, .step = WAIT},
    {"and may not any more", .role = ROLE_REPLICA, .number = 9, .keep = "t7-final", .announced = 99, .mark = MARK_RELEASED,
     .mark_epoch = 5, .snapshots = {"t7-final"}, .step = STEP_FORBID},
    {"nor by the order to receive", .role = ROLE_RECEIVE, .transfer = 11, .announced = 99, .step = STEP_FORBID},
    /* Removing. */
    {"drop", .role = ROLE_DROP, .number = 9, RELEASED(5, 9), .step = STEP_DROP},
    {"drop, not live", .role = ROLE_DROP, .number = 9, .not_live = true, RELEASED(5, 9), .step = WAIT,
     .reason = REASON_DELETING},
    {"dropped", .role = ROLE_DROP, .number = 9, .step = WAIT},
    {"dropped but for the mark", .role = ROLE_DROP, .number = 9, .mark = MARK_RELEASED, .mark_epoch = 5,
     .step = STEP_DROP},
    {"dropped but for an empty folder", .role = ROLE_DROP, .number = 9, .partial = true, .step = STEP_DROP},
    {"drop, but newer data came", .role = ROLE_DROP, .number = 9, OWNED(10), .step = WAIT, .reason = REASON_STORE_UNKNOWN},
    {"drop, but a newer transfer came", .role = ROLE_DROP, .number = 9, .snapshots = {"t10-1"}, .step = WAIT,
     .reason = REASON_STORE_UNKNOWN},
    {"drop, with what others made", .role = ROLE_DROP, .number = 9, .snapshots = {"mine"}, .step = STEP_DROP},
    {"destroy", .role = ROLE_DESTROY, .number = 9, OWNED(5), .mounted = true, .step = STEP_DESTROY},
    {"destroy, in use", .role = ROLE_DESTROY, .number = 9, OWNED(5), .mounted = true, .in_use = true, .step = WAIT,
     .reason = REASON_STOPPING, .stop_containers = true},
    {"attachable: drop what is attached", .role = ROLE_DROP, .number = 9, .present = true, .attached = true,
     .storage = STORAGE_ATTACHABLE, .step = STEP_DROP},
    {"attachable: detached is dropped", .role = ROLE_DROP, .number = 9, .present = true, .storage = STORAGE_ATTACHABLE,
     .step = WAIT},
    {"attachable: dropped but for an empty folder", .role = ROLE_DROP, .number = 9, .present = true, .partial = true,
     .storage = STORAGE_ATTACHABLE, .step = STEP_DROP},
    {"attachable: drop what is mounted still", .role = ROLE_DROP, .number = 9, .present = true, .mounted = true,
     .storage = STORAGE_ATTACHABLE, .step = STEP_DROP},
    {"attachable: but not destroyed", .role = ROLE_DESTROY, .number = 9, .present = true, .storage = STORAGE_ATTACHABLE,
     .step = STEP_DESTROY},
    {"attachable: what appears after it was destroyed is not ours", .role = ROLE_DESTROY, .number = 9, .gone = 9,
     .present = true, .storage = STORAGE_ATTACHABLE, .step = WAIT},
};

static void check_dataset(const struct dataset_case *c)
{
    struct order o = {.role = c->role,
                      .epoch = c->epoch,
                      .born = c->born,
                      .base = (char *)c->base,
                      .keep = (char *)c->keep,
                      .transfer = c->transfer,
                      .number = c->number,
                      .compare = c->compare,
                      .maximum_size = c->wanted_size,
                      .peer_host = (char *)"192.0.2.1",
                      .peer_port = 4525};
    char snapshots[3][SNAPSHOT_NAME_SIZE] = {{0}};
    struct volume_state v = {.present = c->present,
                             .attached = c->attached,
                             .mounted = c->mounted,
                             .partial = c->partial,
                             .size = c->size,
                             .mark = {.state = c->mark, .epoch = c->mark_epoch, .transfer = c->mark_transfer},
                             .snapshots = snapshots};
    struct copy_progress copy = {.final_sent = c->final_sent, .again_us = c->long_ago ? 1 : 2};
    const struct copy_limits limits = COPY_LIMITS_DEFAULT;

    for (; v.n_snapshots < 3 && c->snapshots[v.n_snapshots]; v.n_snapshots++)
        strncpy(snapshots[v.n_snapshots], c->snapshots[v.n_snapshots], SNAPSHOT_NAME_SIZE - 1);
    if (c->mark_snapshot)
        strncpy(v.mark.snapshot, c->mark_snapshot, SNAPSHOT_NAME_SIZE - 1);
    struct dataset_view view = {.order = c->role == ROLE_NONE ? NULL : &o,
                                .volume = &v,
                                .storage = c->storage,
                                .live = !c->not_live,
                                .in_use = c->in_use,
                                .gone = c->gone,
                                .announced = c->announced,
                                .compared = c->compared,
                                .copy = &copy,
                                .limits = &limits,
                                .mono_us = 1};
    struct decision d = plan_dataset(&view);
    bool same = d.act == (c->step != WAIT) && (!d.act || d.step.kind == c->step) &&
                (d.act || d.reason == c->reason) && d.stop_containers == c->stop_containers &&
                (!c->snapshot || streq(d.step.snapshot, c->snapshot)) &&
                (!c->also || streq(d.step.keep, c->also));
    if (!same)
        fail_msg("%s: %s %s, reason %s%s", c->name, d.act ? step_name(d.step.kind) : "no step", d.step.snapshot,
                 reason_code_name(d.reason), d.stop_containers ? ", stops containers" : "");
}

static void test_datasets(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        check_dataset(&cases[i]);
}

struct container_case {
    const char *name;
    bool no_order, prepare;
    enum restart_policy policy;
    uint32_t retries;
    enum container_run run;
    uint64_t created; /* of what is here; the order's is 5 */
    int exit_code;
    bool ended, unknown, not_synced, must_stop, no_volume, image_ready, pull, revive;
    unsigned restarts;
    enum step_kind step;
    enum reason_code reason;
    bool hold, other_spec;
};

static const struct container_case container_cases[] = {
    {"start", .step = STEP_START},
    {"fetch", .pull = true, .step = STEP_IMAGE},
    {"engine unknown", .unknown = true, .step = WAIT, .reason = REASON_ENGINE_UNAVAILABLE},
    {"no volume yet", .no_volume = true, .step = WAIT, .reason = REASON_WAITING_FOR_DATASET},
    {"runs", .run = CONTAINER_RUNNING, .created = 5, .step = WAIT},
    {"an earlier one of that name", .run = CONTAINER_RUNNING, .created = 4, .step = STEP_STOP},
    {"not ours to keep", .no_order = true, .run = CONTAINER_RUNNING, .created = 5, .step = STEP_STOP},
    {"unless the orders are not all known", .no_order = true, .not_synced = true, .run = CONTAINER_RUNNING, .created = 5,
     .step = WAIT},
    {"but a dataset that leaves is", .no_order = true, .not_synced = true, .must_stop = true, .run = CONTAINER_RUNNING,
     .created = 5, .step = STEP_STOP},
    {"its dataset leaves", .must_stop = true, .run = CONTAINER_RUNNING, .created = 5, .step = STEP_STOP},
    {"its dataset left", .must_stop = true, .step = WAIT, .reason = REASON_WAITING_FOR_DATASET},
    {"made, not started", .run = CONTAINER_CREATED, .created = 5, .step = STEP_START},
    /* policies */
    {"never", .run = CONTAINER_EXITED, .created = 5, .step = WAIT, .reason = REASON_CONTAINER_EXITED},
    {"never, but the host died", .run = CONTAINER_EXITED, .created = 5, .revive = true, .step = STEP_START},
    {"always", .policy = RESTART_ALWAYS, .run = CONTAINER_EXITED, .created = 5, .restarts = 1000, .step = STEP_START},
    {"on-failure, failed", .policy = RESTART_ON_FAILURE, .run = CONTAINER_EXITED, .created = 5, .exit_code = 1,
     .restarts = 1000, .step = STEP_START},
    {"on-failure, well", .policy = RESTART_ON_FAILURE, .run = CONTAINER_EXITED, .created = 5, .step = WAIT,
     .reason = REASON_CONTAINER_EXITED},
    {"on-failure, last try", .policy = RESTART_ON_FAILURE, .retries = 3, .run = CONTAINER_EXITED, .created = 5,
     .exit_code = 1, .restarts = 3, .step = STEP_START},
    {"on-failure, too often", .policy = RESTART_ON_FAILURE, .retries = 3, .run = CONTAINER_EXITED, .created = 5,
     .exit_code = 1, .restarts = 4, .step = WAIT, .reason = REASON_CONTAINER_EXITED},
    /* what it depends on */
    {"held, no image yet", .hold = true, .step = STEP_IMAGE},
    {"held", .hold = true, .image_ready = true, .step = WAIT, .reason = REASON_WAITING_FOR_DEPENDENCY},
    {"held, made, not started", .hold = true, .image_ready = true, .run = CONTAINER_CREATED, .created = 5, .step = WAIT,
     .reason = REASON_WAITING_FOR_DEPENDENCY},
    {"held, but it runs", .hold = true, .run = CONTAINER_RUNNING, .created = 5, .step = WAIT},
    {"held, but it ran", .hold = true, .policy = RESTART_ALWAYS, .run = CONTAINER_EXITED, .created = 5,
     .step = STEP_START},
    {"held, and another runs", .hold = true, .run = CONTAINER_RUNNING, .created = 4, .step = STEP_STOP},
 {"ended for good", .ended = true, .image_ready = true, .step = WAIT, .reason = REASON_CONTAINER_EXITED},
    {"ended for good, and the host was started anew", .ended = true, .run = CONTAINER_EXITED, .created = 5, .revive = true, .step = WAIT,
     .reason = REASON_CONTAINER_EXITED},
    {"ended for good as it was", .ended = true, .run = CONTAINER_EXITED, .created = 4, .step = STEP_STOP},
    {"of other settings", .other_spec = true, .run = CONTAINER_RUNNING, .created = 5, .step = STEP_STOP},
    /* getting ready */
    {"prepare", .prepare = true, .step = STEP_IMAGE},
    {"prepared", .prepare = true, .image_ready = true, .step = WAIT},
    {"prepare, and stop what runs", .prepare = true, .run = CONTAINER_RUNNING, .created = 5, .step = STEP_STOP},
};

static void check_container(const struct container_case *c)
{
    struct container config = {.name = (char *)"c",
                               .created = 5,
                               .ended = c->ended,
                               .restart_policy = c->policy,
                               .maximum_retry_count = c->retries,
                               .volumes = &(struct container_volume){.mountpoint = (char *)"/data"},
                               .n_volumes = 1};
    struct container_order o = {c->prepare ? CONTAINER_PREPARE : CONTAINER_RUN, &config, c->hold};
    struct container_state s = {.run = c->run, .created = c->created, .exit_code = c->exit_code};
    struct container_view v = {.order = c->no_order ? NULL : &o,
                               .state = c->run == CONTAINER_ABSENT ? NULL : &s,
                               .known = !c->unknown,
                               .synced = !c->not_synced,
                               .live = true,
                               .other_spec = c->other_spec,
                               .must_stop = c->must_stop,
                               .volumes_usable = !c->no_volume,
                               .image_ready = c->image_ready,
                               .pull = c->pull,
                               .revive = c->revive,
                               .restarts = c->restarts};
    struct decision d = plan_container(&v);
    bool same = d.act == (c->step != WAIT) && (!d.act || d.step.kind == c->step) && (d.act || d.reason == c->reason);

    if (!same)
        fail_msg("%s: %s, reason %s", c->name, d.act ? step_name(d.step.kind) : "no step", reason_code_name(d.reason));
}

static void test_containers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(container_cases); i++)
        check_container(&container_cases[i]);
}

static void test_increments_end(void **state)
{
    const struct copy_limits l = {.rounds = 8, .small_us = 300000, .pause_us = 20 * USEC_PER_SEC};
    struct copy_progress p = {.transfer = 9, .round = 1};

    (void)state;
    plan_copy_sent(&p, &l, 60 * USEC_PER_SEC, 100);
    assert_int_equal(p.copied, 0);
    plan_copy_sent(&p, &l, 6 * USEC_PER_SEC, 200);
    assert_int_equal(p.copied, 0); /* shrinks: go on */
    plan_copy_sent(&p, &l, l.small_us, 300);
    assert_int_equal(p.copied, 9);
    assert_int_equal(p.again_us, 300 + COPY_AGAIN_US);
    plan_copy_sent(&p, &l, l.small_us, 400);
    assert_int_equal(p.again_us, 400 + 2 * COPY_AGAIN_US);
    for (int i = 0; i < 20; i++)
        plan_copy_sent(&p, &l, l.small_us, 500);
    assert_true(p.again_us >= 500 + COPY_AGAIN_MAX_US && p.again_us < 500 + 2 * COPY_AGAIN_MAX_US);

    struct copy_progress stuck = {.transfer = 9, .round = 1}; /* written as fast as copied */
    plan_copy_sent(&stuck, &l, 10 * USEC_PER_SEC, 1);
    plan_copy_sent(&stuck, &l, 9 * USEC_PER_SEC, 2);
    assert_int_equal(stuck.copied, 9);

    const struct copy_limits patient = {.rounds = 8, .small_us = 300000, .pause_us = 1000 * USEC_PER_SEC};
    struct copy_progress slow = {.transfer = 9, .round = 1};
    unsigned rounds = 0;
    for (uint64_t took = 1000 * USEC_PER_SEC; !slow.copied && rounds < 100; took = took * 7 / 10, rounds++)
        plan_copy_sent(&slow, &patient, took, 1);
    assert_int_equal(rounds, patient.rounds);
}

/* Written as fast as it is copied, and one increment takes longer than the pause may. */
static void test_changes_too_fast(void **state)
{
    const struct copy_limits l = {.rounds = 3, .small_us = 300000, .pause_us = 20 * USEC_PER_SEC};
    struct copy_progress p = {.transfer = 9, .round = 1};
    struct volume_state volume = {.present = true, .mounted = true, .mark = {.state = MARK_OWNED, .epoch = 4}};
    struct order order = {.role = ROLE_SOURCE, .epoch = 4, .born = true, .transfer = 9, .peer_host = (char *)"h"};
    struct dataset_view v = {.order = &order, .volume = &volume, .live = true, .copy = &p, .limits = &l, .mono_us = 7};

    (void)state;
    for (int i = 0; i < 2; i++)
        plan_copy_sent(&p, &l, 30 * USEC_PER_SEC, 5);
    assert_int_equal(p.copied, 0);
    struct decision d = plan_dataset(&v);
    assert_false(d.act);
    assert_int_equal(d.reason, REASON_CHANGES_TOO_FAST);
    assert_non_null(strstr(d.text, "after 2 increments one still takes 30000 ms, and the pause of a move may be 20000 ms"));
    assert_int_equal(d.wake_us, 5 + COPY_AGAIN_US);
    v.mono_us = d.wake_us; /* a series of its own, from the next number on */
    d = plan_dataset(&v);
    assert_true(d.act);
    assert_int_equal(d.step.kind, STEP_SNAPSHOT);
    assert_string_equal(d.step.snapshot, "t9-3");
    plan_copy_sent(&p, &l, 40 * USEC_PER_SEC, v.mono_us);
    assert_true(plan_dataset(&v).act);
    plan_copy_sent(&p, &l, 30 * USEC_PER_SEC, v.mono_us);
    assert_true(plan_dataset(&v).act); /* shrinks */
    plan_copy_sent(&p, &l, 21 * USEC_PER_SEC, v.mono_us);
    assert_false(plan_dataset(&v).act);
    assert_int_equal(p.again_us, v.mono_us + 2 * COPY_AGAIN_US);
    v.mono_us = p.again_us;
    plan_copy_sent(&p, &l, 50 * USEC_PER_SEC, v.mono_us);
    plan_copy_sent(&p, &l, l.small_us, v.mono_us);
    assert_int_equal(p.copied, 9);
    assert_false(p.too_fast);
    assert_int_equal(p.again_us, v.mono_us + COPY_AGAIN_US);
}

/* With `verify` the copy is compared when it would be enough, and increments follow once more. */
static void test_verify(void **state)
{
    const struct copy_limits l = {.rounds = 8, .small_us = 300000, .pause_us = 20 * USEC_PER_SEC, .verify = true};
    struct copy_progress p = {.transfer = 9, .round = 1};
    char names[][SNAPSHOT_NAME_SIZE] = {"t9-2"};
    struct volume_state volume = {.present = true,
                                  .mounted = true,
                                  .mark = {.state = MARK_OWNED, .epoch = 4},
                                  .snapshots = names,
                                  .n_snapshots = 1};
    struct order order = {.role = ROLE_SOURCE, .epoch = 4, .born = true, .transfer = 9, .peer_host = (char *)"h",
                          .peer_port = 7};
    struct dataset_view v = {.order = &order, .volume = &volume, .live = true, .copy = &p, .limits = &l, .mono_us = 7};

    (void)state;
    plan_copy_sent(&p, &l, 60 * USEC_PER_SEC, 1);
    assert_false(p.verify);
    plan_copy_sent(&p, &l, l.small_us, 2);
    assert_int_equal(p.copied, 0); /* not before it is compared */
    struct decision d = plan_dataset(&v);
    assert_true(d.act);
    assert_int_equal(d.step.kind, STEP_VERIFY);
    assert_string_equal(d.step.snapshot, "t9-2");
    assert_int_equal(d.step.peer_port, 7);
    plan_copy_verified(&p);
    d = plan_dataset(&v); /* much may have been written meanwhile */
    assert_int_equal(d.step.kind, STEP_SNAPSHOT);
    assert_string_equal(d.step.snapshot, "t9-3");
    plan_copy_sent(&p, &l, 5 * USEC_PER_SEC, 3);
    assert_int_equal(p.copied, 0);
    plan_copy_sent(&p, &l, l.small_us, 4);
    assert_int_equal(p.copied, 9);

    /* The snapshot to compare is gone: another round first. */
    struct copy_progress lost = {.transfer = 9, .round = 6, .verify = true};
    v.copy = &lost;
    assert_int_equal(plan_dataset(&v).step.kind, STEP_SNAPSHOT);
    plan_copy_sent(&lost, &l, l.small_us, 5);
    assert_true(lost.verify);
}

/* A copy that differs is made anew; the second time the move stays. */
static void test_verify_differs(void **state)
{
    const struct copy_limits l = {.rounds = 8, .small_us = 300000, .pause_us = 20 * USEC_PER_SEC, .verify = true};
    struct copy_progress p = {.transfer = 9, .round = 3, .verify = true};
    struct volume_state volume = {.present = true, .mounted = true, .mark = {.state = MARK_OWNED, .epoch = 4}};
    struct order order = {.role = ROLE_SOURCE, .epoch = 4, .born = true, .transfer = 9, .peer_host = (char *)"h"};
    struct dataset_view v = {.order = &order, .volume = &volume, .live = true, .copy = &p, .limits = &l, .mono_us = 7};

    (void)state;
    plan_copy_differs(&p, "digest 1, here 2");
    struct decision d = plan_dataset(&v);
    assert_true(d.act);
    assert_int_equal(d.step.kind, STEP_SNAPSHOT);
    plan_copy_sent(&p, &l, l.small_us, 5);
    assert_true(p.verify && p.copied == 0);
    plan_copy_differs(&p, "digest 3, here 4");
    d = plan_dataset(&v);
    assert_false(d.act);
    assert_int_equal(d.reason, REASON_TRANSFER_FAILED);
    assert_non_null(strstr(d.text, "digest 3, here 4"));
    order.transfer = 10; /* another move may try */
    d = plan_dataset(&v);
    assert_true(d.act);
    assert_string_equal(d.step.snapshot, "t10-1");
}

static void test_newest_received(void **state)
{
    char names[][SNAPSHOT_NAME_SIZE] = {"t9-10", "t9-9",  "t10-1", "t9-x", "other",        "t9-",
                                        "t-1",   "t9-99x", "t9x",   "tx",   "t9-4294967295"};
    struct volume_state v = {.snapshots = names, .n_snapshots = ARRAY_SIZE(names)};

    (void)state;
    assert_string_equal(plan_received(&v, 9), "t9-10");
    assert_string_equal(plan_received(&v, 10), "t10-1");
    assert_null(plan_received(&v, 11));
    memcpy(names[1], "t9-final", sizeof("t9-final"));
    assert_string_equal(plan_received(&v, 9), "t9-final");
}

/* Containers run only on what is mounted here at the very epoch. */
static void test_usable(void **state)
{
    const struct order good = {.role = ROLE_OWNER, .epoch = 5, .born = true};
    const struct volume_state there = {.present = true, .mounted = true, .mark = {.state = MARK_OWNED, .epoch = 5}};
    struct order o = good;
    struct volume_state v = there;

    (void)state;
    assert_true(plan_dataset_is_usable(&o, &v));
    assert_false(plan_dataset_is_usable(NULL, &v));
    o.role = ROLE_SOURCE;
    assert_true(plan_dataset_is_usable(&o, &v));
    o.role = ROLE_RELEASE;
    assert_false(plan_dataset_is_usable(&o, &v));
    o = good;
    o.born = false;
    assert_false(plan_dataset_is_usable(&o, &v));
    o = good;
    o.epoch = 6;
    assert_false(plan_dataset_is_usable(&o, &v));
    o = good;
    v.mounted = false;
    assert_false(plan_dataset_is_usable(&o, &v));
    v.present = false;
    assert_false(plan_dataset_is_usable(&o, &v));
    v = there;
    v.mark.state = MARK_RELEASED;
    assert_false(plan_dataset_is_usable(&o, &v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datasets),
        cmocka_unit_test(test_containers),
        cmocka_unit_test(test_increments_end),
        cmocka_unit_test(test_changes_too_fast),
        cmocka_unit_test(test_verify),
        cmocka_unit_test(test_verify_differs),
        cmocka_unit_test(test_newest_received),
        cmocka_unit_test(test_usable),
    };

    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
