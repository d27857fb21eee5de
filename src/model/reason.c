#include "model/reason.h"

#include "base/mem.h"
#include "base/str.h"

static const struct {
    const char *name;
    const char *advice;
} table[REASON_CODE_MAX] = {
    [REASON_NONE] = {"none", "Nothing to do."},
    [REASON_NODE_DISCONNECTED] =
        {"node-disconnected",
         "Check that the node is up, that flocker-agent runs there (its log says why it is "
         "refused, if it is) and reaches port 4524 of the control service. If it is off and stays off: flockerctl fence NODE."},
    [REASON_OWNER_DISCONNECTED] = {"owner-disconnected",
                                   "Bring the node named in the text back; a silent node may still "
                                   "be writing, so nobody else gets the data. If you know that it is off: flockerctl "
                                   "fence NODE says what that would free and lose."},
    [REASON_DESTINATION_DISCONNECTED] = {"destination-disconnected",
                                         "Bring the node named in the text back, or move the "
                                         "dataset to another node (flockerctl move)."},
    [REASON_LEASE_HELD] = {"lease-held",
                           "Release the lease (DELETE /v1/configuration/leases/<dataset_id>), or "
                           "wait until it expires."},
    [REASON_IN_USE_BY_CONTAINER] = {"in-use-by-container",
                                    "Delete the container named in the text (flockerctl "
                                    "destroy-container); then the dataset is destroyed."},
    [REASON_CREATING] = {"creating", "Wait; the volume is being made."},
    [REASON_MOUNTING] = {"mounting", "Wait; the volume is being mounted."},
    [REASON_COPYING] = {"copying",
                        "Wait; the data are being copied while the source stays in use."},
    [REASON_RELEASING] = {"releasing",
                          "Wait; the source stops writing and ships the last changes."},
    [REASON_PROMOTING] = {"promoting", "Wait; the received data become the volume."},
    [REASON_VOLUME_BUSY] = {"volume-busy",
                            "Stop the process named in the text; Flocker goes on by itself."},
    [REASON_DATA_MISSING] =
        {"data-missing", "The data are not where they were last. Bring the storage back; Flocker "
                         "looks again every few seconds and never replaces lost data by an empty "
                         "volume. To give the data up, destroy the dataset (flockerctl destroy)."},
    [REASON_NO_SPACE] = {"no-space", "Free space in the storage of the node named in the text, or "
                                     "enlarge it; it is tried again."},
    [REASON_STORAGE_ERROR] =
        {"storage-error",
         "Look at the text and at the log of flocker-agent on that node; it is tried again."},
    [REASON_STORAGE_MISSING] = {"storage-missing",
                                "Make the pool or root path that agent.yml names available on the "
                                "node named in the text; the agent takes it by itself."},
    [REASON_TRANSFER_FAILED] =
        {"transfer-failed",
         "Look at the text and at the logs of flocker-agent on both nodes; it is tried again."},
    [REASON_PEER_UNREACHABLE] = {"peer-unreachable",
                                 "Check that flocker-agent runs on the destination and that the "
                                 "owner's node reaches port 4525 there; it is tried again."},
    [REASON_BACKEND_MISMATCH] = {"backend-mismatch",
                                 "Move the dataset to a node with the same backend (flockerctl "
                                 "move), or correct the backend in agent.yml."},
    [REASON_CANNOT_MOVE] = {"cannot-move",
                            "Move the dataset to a node that shares this storage (flockerctl "
                            "move), or give the node the same storage in agent.yml."},
    [REASON_WAITING_FOR_DATASET] = {"waiting-for-dataset",
                                    "Ask for that dataset's own reason with flockerctl why; the "
                                    "container starts when all its datasets are there."},
    [REASON_WAITING_FOR_IMAGE] = {"waiting-for-image", "Wait; the image is being fetched."},
    [REASON_IMAGE_MISSING] = {"image-missing",
                              "Load the image on that node (docker load), or create the container "
                              "anew with the right image name; it is tried again."},
    [REASON_IMAGE_PULL_FAILED] =
        {"image-pull-failed",
         "Check the name of the image, that the node reaches the registry, and that root is logged "
         "in to it there (docker login); it is tried again."},
    [REASON_PORT_IN_USE] = {"port-in-use",
                            "Stop what uses the port on that node, or create the container anew "
                            "with another external port; it is tried again."},
    [REASON_START_FAILED] = {"start-failed",
                             "Look at the text; create the container anew with a corrected "
                             "configuration, or mend the node. It is tried again."},
    [REASON_STOP_FAILED] =
        {"stop-failed",
         "Look at the text and at the log of the Docker daemon on that node; it is tried again."},
    [REASON_CONTAINER_EXITED] = {"container-exited",
                                 "Look at its output (docker logs flocker--NAME on the node); to "
                                 "start it again, delete it and create it anew."},
    [REASON_CRASH_LOOP] = {"crash-loop", "Look at its output (docker logs flocker--NAME on the "
                                         "node); it is started again after a growing delay."},
    [REASON_NAME_TAKEN] = {"name-taken",
                           "Remove or rename (docker rm, docker rename) the foreign container on "
                           "the node that has the name in the text; it is tried again."},
    [REASON_ROUTES_FAILED] =
        {"routes-failed",
         "Look at the text and at the log of flocker-agent on that node. Until it is mended the ports named by flockerctl "
         "list-containers may not answer there; they do on the node that runs the container. It is tried again."},
    [REASON_ENGINE_UNAVAILABLE] =
        {"engine-unavailable",
         "Start the Docker daemon on that node, or correct docker: socket in agent.yml there."},
    [REASON_STORE_UNKNOWN] =
        {"store-unknown",
         "The control service answers from another or an older store than the node obeyed before. "
         "Bring the right store back (--data-path of flocker-control). If the new one is meant: "
         "stop flocker-agent on the node, run flocker-agent --adopt there, start it again. When all "
         "nodes obey and it stays so, say which node's data count: flockerctl adopt DATASET --node NODE."},
    [REASON_DELETING] = {"deleting", "Wait; the data are being destroyed."},
    [REASON_WAITING_FOR_HOLDERS] = {"waiting-for-holders",
                                    "Bring the nodes named in the text back; they may still hold "
                                    "data of the dataset, which must be destroyed there too."},
    [REASON_RECORDING] = {"recording", "Wait; a change is being written to the store."},
    [REASON_STORE_FAILED] = {"store-failed", "Make room on the disk of the control service's data "
                                             "path, or make it writable; it is tried again."},
    [REASON_STORE_RESTORED] =
        {"store-restored",
         "Bring all nodes back that were part of the cluster when the old store was lost, those that joined after the copy "
         "was made too. Then say so: flockerctl adopt."},
    [REASON_WAITING_FOR_DEPENDENCY] =
        {"waiting-for-dependency",
         "Ask for the reason of the container on which it depends with flockerctl why; it starts when that one is as its "
         "depends_on says."},
    [REASON_NODE_FENCED] =
        {"node-fenced", "Move it to another node (flockerctl move or move-container; flockerctl drain NODE moves all), or bring the "
                        "node back. When it is back and this stays: flockerctl unfence NODE."},
    [REASON_DATA_ON_FENCED_NODE] =
        {"data-on-fenced-node", "Bring the node named in the text back: no other has the data. If its disk is lost, so are they: "
                                "destroy the dataset (flockerctl destroy)."},
    [REASON_NODE_UNHEARD] =
        {"node-unheard", "Make the storage of the node named in the text answer (its own reasons and the log of flocker-agent there say "
                         "why it does not). If that node has no part in this: stop flocker-agent there."},
    [REASON_COPY_KEPT] =
        {"copy-kept", "Save what you miss from that copy, then remove it: flockerctl drop-copy DATASET NODE. The dataset itself "
                      "can be used meanwhile, elsewhere."},
    [REASON_STORAGE_LIMIT] =
        {"storage-limit", "The text says which limit is reached. Move datasets away from that node, or use a larger kind of machine, or have the "
                          "account's limit raised; of a limit in time, wait. It is tried again by itself."},
    [REASON_STOPPING] = {"stopping", "Wait; the container is being stopped."},
    [REASON_CHANGES_TOO_FAST] =
        {"changes-too-fast", "Slow down or stop what writes to the volume, or allow a longer pause (move: max-pause-ms in "
                             "agent.yml of the node that has it); it is tried again by itself."},
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
