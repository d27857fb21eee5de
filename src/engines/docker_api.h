/* The documents of the Docker Engine API as pure functions: bytes in, structs out, and back. Every
 * byte from the engine is checked; what a parser refuses is ERR_CORRUPT. Thread-safe. */
#pragma once

#include "base/err.h"
#include "engines/container_engine.h"
#include "model/container.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* API versions 1.N that we speak. The engine's range must meet ours. 1.30 is Docker 17.06: older ones leave out, without a
 * word, settings that we send (mounts before 1.25, a health check's start_period before 1.29). */
#define DOCKER_API_MINOR_MIN 30u
#define DOCKER_API_MINOR_MAX 52u

#define DOCKER_ID_MAX 64u       /* hexadecimal digits */
#define DOCKER_MESSAGE_MAX 2000 /* bytes of an engine's text that we hand on */

/* One container as the engine describes it. */
struct docker_container {
    char id[DOCKER_ID_MAX + 1];
    char *name;     /* as configured, when `ours`; else NULL */
    bool ours;      /* labels and name are ours and of the wanted cluster */
    enum container_run run;
    uint64_t created;
    struct uuid era; /* nil when the label is damaged */
    pid_t pid;       /* of its first process in the engine's pid namespace; 0 = none */
    int exit_code;
    enum container_health health;
    char spec[CONTAINER_SPEC_SIZE]; /* "" when it has no such label: an older agent made it */
    unsigned stop_timeout_s;        /* it was made with; 0 = none */
};

void docker_container_done(struct docker_container *c);

/* Answer of GET /version: the version to use. ERR_UNSUPPORTED: the ranges do not meet. */
struct err *docker_parse_version(const char *body, size_t n, unsigned *ret_minor) MUST_USE;
/* Answer of GET /containers/json: only those that are ours, and who they are. The state in it is of no use: Docker
 * tells of a death before it changes its list, which then says "running" of a container that is gone; only
 * GET /containers/<id>/json waits for the truth. The caller frees the elements with docker_container_done() and the
 * array. */
struct err *docker_parse_list(const char *body, size_t n, const struct uuid *cluster,
                              struct docker_container **ret_list, size_t *ret_n) MUST_USE;
/* The same answer, of all containers: the names of the volumes that they use. The caller frees each and the array. */
struct err *docker_parse_volumes(const char *body, size_t n, char ***ret_names, size_t *ret_n) MUST_USE;
/* Answer of GET /containers/<id or name>/json. */
struct err *docker_parse_inspect(const char *body, size_t n, const struct uuid *cluster,
                                 struct docker_container *ret_container) MUST_USE;
/* The same answer: the container's addresses in the engine's networks, at most DOCKER_ADDRESSES_MAX. The caller frees
 * each. */
#define DOCKER_ADDRESSES_MAX 16
struct err *docker_parse_addresses(const char *body, size_t n, char *ret_addresses[DOCKER_ADDRESSES_MAX],
                                   size_t *ret_n) MUST_USE;
/* Answer of GET /containers/<id>/logs: the last DOCKER_LOG_LINES lines that are not empty, with " | " in between, at
 * most DOCKER_LOG_BYTES (what is before that is left out), in valid UTF-8 without control characters; the escape
 * sequences of terminals are taken out. NULL when nothing is left; the caller frees it. */
#define DOCKER_LOG_LINES 5
#define DOCKER_LOG_BYTES 500
char *docker_parse_logs(const char *body, size_t n);
/* Answer of POST /containers/create. */
struct err *docker_parse_created(const char *body, size_t n,
                                 char ret_id[DOCKER_ID_MAX + 1]) MUST_USE;
/* At most DOCKER_MESSAGE_MAX bytes, cut between characters, without white space around; a sentence of ours when nothing
 * is left. The caller frees it. */
char *docker_message_shorten(const char *s);
/* The sentence inside an error answer, shortened; never NULL; the caller frees it. */
char *docker_parse_message(const char *body, size_t n);
/* One line of POST /images/create: the error that it tells, or NULL. Lines that are no JSON are an
 * error. */
struct err *docker_parse_pull_line(const char *line, size_t n) MUST_USE;
/* The layers of an image that is being fetched, as the lines above tell of them; zeroed at first. */
#define DOCKER_LAYERS_MAX 256 /* what is beyond is not counted */
struct docker_layers {
    struct docker_layer {
        char id[16];
        uint64_t bytes, total;
    } *layers;
    size_t n;
};
/* Takes what the line tells of one; *ret_bytes and *ret_total are the sums so far. */
void docker_layers_take(struct docker_layers *l, const char *line, size_t n, uint64_t *ret_bytes, uint64_t *ret_total);
void docker_layers_done(struct docker_layers *l);
/* One line of GET /events: does it say that a container came, went, or runs or stopped running? */
bool docker_parse_event_matters(const char *line, size_t n);

/* Does the answer say that there is no such container? Podman says so with 500 when it goes away meanwhile. */
bool docker_is_absent(long status, const char *message);
/* The error of an answer outside 2xx. `what` is the failed action. */
struct err *docker_error(long status, const char *message, const char *what) MUST_USE;
/* The same when a container could not be made or started: a taken port is ERR_BUSY and named. */
struct err *docker_start_error(long status, const char *message, const struct container *config,
                               bool creating) MUST_USE;
/* The same for a pull that failed before its progress stream began. */
struct err *docker_pull_error(long status, const char *message, const char *image) MUST_USE;

/* Where the volume is mounted on the host; the caller frees it. */
char *container_volume_path(const struct container_start *s, const struct container_volume *v);
/* Body of POST /containers/create. ERR_INVALID: settings that cannot be told to the engine. */
struct err *docker_render_create(const struct container_start *start, bool selinux,
                                 char **ret_json) MUST_USE;
/* Value of the `filters` parameter (to be escaped) for GET /containers/json or GET /events. */
char *docker_render_filters(const struct uuid *cluster, bool events);

/* Takes an image name apart: repository, and tag or digest ("latest" when there is none).
 * ERR_INVALID: characters that no image name has. */
struct err *docker_image_split(const char *image, char **ret_repository, char **ret_tag) MUST_USE;
/* The registry's key in config.json: host, or "index.docker.io" for Docker Hub. The caller frees
 * it. */
char *docker_image_registry(const char *image);
/* Value of X-Registry-Auth for the registry from the text of config.json; NULL when there is no
 * entry or it cannot be read. Secret; the caller frees it. */
char *docker_registry_auth(const char *config, size_t n, const char *registry);
