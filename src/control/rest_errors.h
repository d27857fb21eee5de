/* The errors of the REST API: X(identifier, name, status, description).
 *
 * Those that begin with HTTP are sent by the HTTP server, and may answer any request. The names are
 * those of the examples in api/openapi.yaml; a test holds the two lists against each
 * other. The descriptions that the contract knows (section 1.1) are its own words; those with a "%s"
 * say more where they are sent. */
#pragma once

#define REST_ERRORS(X)                                                                             \
    X(NO_ROUTE, "NoRoute", 404, "There is nothing at this path.")                                  \
    X(METHOD, "MethodNotAllowed", 405, "The method %s is not allowed here; %s.")                   \
    X(HTTP_SYNTAX, "BadRequest", 400, "%s")                                                        \
    X(HTTP_TOO_LARGE, "ContentTooLarge", 413, "The body of the request is too large.")             \
    X(HTTP_BUSY, "TooManyRequests", 503,                                                           \
      "Too many requests wait for their answers. Try again later.")                                \
    X(NOT_JSON, "NotJSON", 400,                                                                    \
      "The request body could not be decoded according to the value of the\nContent-Type header.") \
    X(SCHEMA, "SchemaMismatch", 400, "The provided JSON doesn't match the required schema.")       \
    X(BAD_ID, "BadId", 400, "The path ends with '%s'")                                             \
    X(BAD_PARAMETER, "BadParameter", 400, "The parameter %s")                                      \
    X(TAG_MISMATCH, "TagMismatch", 412, "Tag doesn't match. Required: %s, current: %s")            \
    X(DATASET_EXISTS, "DatasetExists", 409, "The provided dataset_id is already in use.")          \
    X(DATASET_NOT_FOUND, "DatasetNotFound", 404, "Dataset not found.")                             \
    X(DATASET_DELETED, "DatasetDeleted", 405, "The dataset has been deleted.")                     \
    X(DATASET_OF_CONTAINER, "DatasetOfContainer", 409,                                             \
      "The dataset is used by the container %s; move the container instead.")                      \
    X(DATASET_SHRINKS, "DatasetShrinks", 409,                                                      \
      "The maximum_size of a dataset can only grow, and only when it had one.")                    \
    X(DATASET_FIXED, "DatasetFixed", 409,                                                          \
      "The storage backend of the dataset's node cannot make a volume larger.")                    \
    X(DATASET_ELSEWHERE, "DatasetElsewhere", 409, "The dataset is on another node.")               \
    X(DATASET_IN_USE, "DatasetInUse", 409, "The dataset is being used by another container.")      \
    X(CONTAINER_EXISTS, "ContainerExists", 409, "The container name already exists.")              \
    X(CONTAINER_NOT_FOUND, "ContainerNotFound", 404, "Container not found.")                       \
    X(PORT_IN_USE, "PortInUse", 409, "A specified external port is already in use.")               \
    X(LINK_ALIAS, "LinkAlias", 409, "Link aliases must be unique.")                                \
    X(LINK_PORT, "LinkPort", 409, "The local ports in a container's links must be unique.")        \
    X(DEPENDENCY_MISSING, "DependencyMissing", 409,                                                \
      "A container that it depends on does not exist; create that one first.")                     \
    X(DEPENDENCY_CIRCLE, "DependencyCircle", 409,                                                  \
      "Containers cannot depend on each other in a circle: none of them could start first.")       \
    X(LEASE_NOT_FOUND, "LeaseNotFound", 404, "Lease not found.")                                   \
    X(LEASE_HELD, "LeaseHeld", 409, "Lease already held.")                                         \
    X(LEASE_RELEASING, "LeaseReleasing", 409,                                                      \
      "The dataset is just leaving that node; try again when it has arrived at its new one.")      \
    X(RELEASES_UNKNOWN, "ReleasesUnknown", 409,                                                    \
      "The store was put back from a copy, and the dataset may be leaving that node since.")       \
    X(NODES_AWAY, "NodesAway", 409,                                                                \
      "Nodes that may know better have not told what they have. Bring them back, or say that "     \
      "they do not matter (anyway).")                                                              \
    X(DATASET_NOT_THERE, "DatasetNotThere", 409, "That node has nothing of the dataset.")          \
    X(DATASET_NOT_IN_DOUBT, "DatasetNotInDoubt", 409,                                              \
      "The store knows where the data of the dataset are.")                                        \
    X(DATASET_MOUNTED, "DatasetMounted", 409,                                                      \
      "Another node uses the dataset, or is about to: its data count, or it must stop first.")     \
    X(DATASET_CHANGING, "DatasetChanging", 409,                                                    \
      "A change of the dataset is just being recorded; try again.")                                \
    X(REPLICA_NOT_FOUND, "ReplicaNotFound", 404, "The dataset has no replica.")                    \
    X(COMPARISON_NOT_NOW, "ComparisonNotNow", 409, "The replica cannot be compared now: %s.")      \
    X(COMPARISON_SOON, "ComparisonSoon", 409, "The replica cannot be compared yet: %s.")           \
    X(DATASET_LEAVING, "DatasetLeaving", 409,                                                      \
      "A dataset that is being removed must be gone before its id is used again.")                 \
    X(NODE_NOT_FOUND, "NodeNotFound", 404, "Node not found.")                                      \
    X(NODE_CONNECTED, "NodeConnected", 409,                                                        \
      "The node is not off: it is connected. Move what is on it with flockerctl drain. If it has just been switched off, its " \
      "session ends within 30 seconds; try again then.")                                           \
    X(NODE_FENCED, "NodeFenced", 409, "The node is fenced: it gets nothing until flockerctl unfence.") \
    X(COPY_NOT_FOUND, "CopyNotFound", 404, "That node keeps no copy of the dataset since it was fenced.") \
    X(COPY_NEEDED, "CopyNeeded", 409,                                                              \
      "No node owns the dataset yet: that copy may be all that there is of it.")                   \
    X(ERA_NOT_FOUND, "EraNotFound", 404, "No node found with given era.")                          \
    X(EVENTS_GONE, "EventsGone", 410,                                                              \
      "The events after %s are not known any more; read the state, then go on from now.")          \
    X(TOO_MANY_READERS, "TooManyReaders", 503, "There are already %d readers of events.")          \
    X(COMPOSITION, "Composition", 400, "%s")                                                       \
    X(STORE_FAILED, "StoreFailed", 503, "Nothing was changed, because it could not be stored: %s") \
    X(STORE_LATE, "StoreLate", 503,                                                                \
      "The disk has not answered for 30 seconds; look whether the change was made.")               \
    X(ENDING, "Ending", 503, "The control service is ending; look whether the change was made.")   \
    X(NOT_READY, "NotReady", 503, "The control service is not ready: %s")

enum rest_error {
#define REST_ERROR_ID(id, name, status, text) REST_ERROR_##id,
    REST_ERRORS(REST_ERROR_ID)
#undef REST_ERROR_ID
        REST_ERROR_MAX
};

struct rest_error_entry {
    const char *name;
    unsigned status;
    const char *text;
};

extern const struct rest_error_entry rest_errors[REST_ERROR_MAX];
