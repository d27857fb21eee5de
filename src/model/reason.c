#include "model/reason.h"

#include "base/mem.h"
#include "base/str.h"

static const struct {
    const char *name;
    const char *advice;
} table[REASON_CODE_MAX] = {
    [REASON_NONE] = {"none", "Nothing to do."},
    [REASON_NODE_DISCONNECTED] = {"node-disconnected",
                                  "Check that the node is up, that flocker-agent runs there and reaches port 4524 of the control service."},
    [REASON_OWNER_DISCONNECTED] = {"owner-disconnected",
                                   "Bring the node that owns the dataset back; a silent node may still be writing, so nobody else gets the data."},
    [REASON_DESTINATION_DISCONNECTED] = {"destination-disconnected",
                                         "Bring the destination node back, or set primary to another node."},
    [REASON_LEASE_HELD] = {"lease-held", "Release the lease (DELETE /v1/configuration/leases/<dataset>) or wait until it expires."},
    [REASON_IN_USE_BY_CONTAINER] = {"in-use-by-container", "Delete the container that uses the dataset, or move it."},
    [REASON_CREATING] = {"creating", "Wait; the volume is being made."},
    [REASON_MOUNTING] = {"mounting", "Wait; the volume is being mounted."},
    [REASON_COPYING] = {"copying", "Wait; the data are being copied while the source stays in use."},
    [REASON_RELEASING] = {"releasing", "Wait; the source stops writing and ships the last changes."},
    [REASON_PROMOTING] = {"promoting", "Wait; the received data become the volume."},
    [REASON_VOLUME_BUSY] = {"volume-busy", "Stop the process named in the text; Flocker goes on by itself."},
    [REASON_DATA_MISSING] = {"data-missing",
                             "The data are not where they were last. Bring the storage back; Flocker never replaces lost data by an empty volume. Delete the dataset to give it up."},
    [REASON_NO_SPACE] = {"no-space", "Free space in the pool, or enlarge it."},
    [REASON_STORAGE_ERROR] = {"storage-error", "Look at the text and at the agent's log on that node."},
    [REASON_STORAGE_MISSING] = {"storage-missing", "Make the pool or path named in agent.yml available on that node."},
    [REASON_TRANSFER_FAILED] = {"transfer-failed", "Flocker tries again by itself; look at the text and at the agents' logs."},
    [REASON_PEER_UNREACHABLE] = {"peer-unreachable", "Check that the agents reach each other on port 4525."},
    [REASON_BACKEND_MISMATCH] = {"backend-mismatch", "Give both nodes the same backend in agent.yml, or choose another node."},
    [REASON_CANNOT_MOVE] = {"cannot-move", "Choose a node that shares this storage."},
    [REASON_WAITING_FOR_DATASET] = {"waiting-for-dataset", "See the reason of the dataset."},
    [REASON_WAITING_FOR_IMAGE] = {"waiting-for-image", "Wait; the image is being fetched."},
    [REASON_IMAGE_MISSING] = {"image-missing", "Correct the image's name, or load the image on that node."},
    [REASON_IMAGE_PULL_FAILED] = {"image-pull-failed", "Check the registry, its credentials and the image's name."},
    [REASON_PORT_IN_USE] = {"port-in-use", "Stop what uses the port on that node, or choose another external port."},
    [REASON_START_FAILED] = {"start-failed", "Look at the text; correct the container's configuration."},
    [REASON_STOP_FAILED] = {"stop-failed", "Look at the text and at the container engine's log on that node."},
    [REASON_CONTAINER_EXITED] = {"container-exited", "The restart policy does not start it again; look at its log, delete and create it anew."},
    [REASON_CRASH_LOOP] = {"crash-loop", "Look at the container's log; it is started again after a growing delay."},
    [REASON_NAME_TAKEN] = {"name-taken", "Remove or rename the foreign container of that name on the node."},
    [REASON_ENGINE_UNAVAILABLE] = {"engine-unavailable", "Start the Docker daemon on that node."},
    [REASON_STORE_UNKNOWN] = {"store-unknown",
                              "The control service answers from another or an older store than before. If that is meant, run `flocker-agent --adopt` on the node."},
    [REASON_DELETING] = {"deleting", "Wait; the data are being destroyed."},
    [REASON_WAITING_FOR_HOLDERS] = {"waiting-for-holders", "Bring the nodes named in the text back; they still hold data of the dataset."},
    [REASON_RECORDING] = {"recording", "Wait; a change is being written to the store."},
    [REASON_STORE_FAILED] = {"store-failed", "Make room on the disk of the control service's data path, or make it writable; it is tried again."},
    [REASON_STOPPING] = {"stopping", "Wait; the container is being stopped."},
};

const char *reason_code_name(enum reason_code code)
{
    if ((int)code < 0 || code >= REASON_CODE_MAX)
        return "none";
    return table[code].name;
}

enum reason_code reason_code_parse(const char *name)
{
    for (int i = 0; i < REASON_CODE_MAX; i++) {
        if (streq(table[i].name, name))
            return (enum reason_code)i;
    }
    return REASON_CODE_INVALID;
}

const char *reason_advice(enum reason_code code)
{
    if ((int)code < 0 || code >= REASON_CODE_MAX)
        return "";
    return table[code].advice;
}

void reason_set(struct reason *r, enum reason_code code, uint64_t wall_us, uint64_t retry_us,
                const char *text)
{
    char *copy = xstrdup_null(text); /* `text` may be r->text */

    if (r->code != code || !r->since_us)
        r->since_us = wall_us;
    r->code = code;
    r->retry_us = retry_us;
    free(r->text);
    r->text = copy;
}

void reason_copy(struct reason *to, const struct reason *from)
{
    *to = *from;
    to->text = xstrdup_null(from->text);
}

void reason_done(struct reason *r)
{
    free(r->text);
    *r = (struct reason){0};
}
