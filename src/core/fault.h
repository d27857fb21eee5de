/* Deliberate mistakes, to prove that the simulator notices them (tests/sim). Only the simulator's own build of the core
 * has them (-DFLOCKER_FAULTS); everywhere else FAULT() is 0. */
#pragma once

#define CORE_FAULTS(X)                                                                                \
    X(NONE)                                                                                           \
    X(SKIP_RELEASED)    /* commit the new owner without the old one's release */                      \
    X(SKIP_RECEIVED)    /* ... or without the data having arrived */                                  \
    X(EARLY_REPLY)      /* answer before the commit */                                                \
    X(IGNORE_LEASE)     /* order the release in spite of a lease */                                   \
    X(LEASE_IN_RELEASE) /* grant a lease after the release order */                                   \
    X(RECREATE_BORN)    /* make a lost dataset anew, empty */                                         \
    X(PROMOTE_OTHER)    /* start from another snapshot than the final one */                          \
    X(MOUNT_UNBORN)     /* mount before the birth is recorded */                                      \
    X(SAME_EPOCH)       /* take a release order back without a new epoch */                           \
    X(FORGET_WAKE)      /* do not come back to a postponed step */                                    \
    X(REMOUNT_RELEASED) /* take a released volume again at the same epoch, when left alone */         \
    X(REUSE_EPOCH)      /* begin to count epochs anew for a dataset made anew */                      \
    X(DESTROY_UNKNOWN)  /* destroy what no order is there for */                                      \
    X(OLD_SESSION)      /* listen to a session after a newer one was opened */                        \
    X(FORGET_ERA)       /* let a machine with another boot id take a node's session over */           \
    X(STALE_TRANSFER)   /* take what was said about an earlier transfer for this one */               \
    X(OLDER_STORE)      /* obey a store that knows less than this node has seen */                    \
    X(BELIEVE_RESTORED) /* decide from a store that was put back as if nothing had happened since */  \
    X(LONE_RELEASE) /* order the release of one dataset of a container before the others are ready */ \
    X(FIRST_VOLUME)     /* start a container when the first of its datasets is there */               \
    X(FORGET_END)       /* start again what has ended for good */                                     \
    X(FORGET_HOLD)      /* start a container before what it depends on */                             \
    X(NO_CAP)           /* wait longer and longer after failures */                                   \
    X(STALE_REPLICA)    /* begin, on the way back, from what the replica had */                       \
    X(LEAK_REPLICA)     /* forget who has the replica when it ends */                                 \
    X(STALE_COMPARISON) /* take the result of an earlier comparison for this one's */                 \
    X(BLIND_COMPARISON) /* say that two snapshots are the same when they could not be compared */     \
    X(SHARE_LEASE)      /* give a node the lease that another node's mounts have */                   \
    X(DELETE_MOUNTED)   /* delete a dataset that another node than its owner has mounts of */          \
    X(LEAK_MOUNTS)      /* keep mounts that a node does not tell any more */                          \
    X(FENCE_SAME_EPOCH)  /* free a dataset of a fenced node without a new epoch */                          \
    X(FENCE_SILENT) /* take silence for a fence */ \
    X(KEEP_FENCED_MOUNT) /* let a node that comes back after a fence go on with what it had */ \
    X(DROP_FENCED) /* remove what a fenced node had of a dataset as any other copy */ \
    X(KEEP_STRAY)       /* leave a volume attached that nobody wants here */                          \
    X(LOST_LISTER)      /* name no other node to list the storage when the one that did is gone */    \
    X(MANY_LISTERS)     /* let every node list the storage for all */                                 \
    X(FORGET_SIGHTINGS) /* do not tell the others what the one saw */                                 \
    X(FORGET_ROUTE)     /* do not say that a port leads nowhere else any more */                      \
    X(STALE_DEVICE)     /* (driver) mount from the device name of the last time */                    \
    X(FORMAT_ANYWAY)    /* (driver) format a device that has a filesystem */                          \
    X(STALE_STREAM)     /* (mover) take a stream that was not announced */                            \
    X(RECEIVE_OVER)     /* (mover) receive onto a promoted dataset */

enum core_fault {
#define CORE_FAULT_ENUM(name) FAULT_##name,
    CORE_FAULTS(CORE_FAULT_ENUM)
#undef CORE_FAULT_ENUM
        FAULT_MAX
};

#ifdef FLOCKER_FAULTS
extern enum core_fault core_fault; /* defined by the simulator */
#define FAULT(name) (core_fault == FAULT_##name)
#else
#define FAULT(name) 0
#endif
