/* The protocol of Docker's volume plugins, version 1: bodies of calls in, bodies of answers out. Pure; thread-safe. */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "model/volume_call.h"

#define PLUGIN_BODY_MAX 65536u /* of a call */
/* Mount and Unmount without an id: engines older than 1.12, and dvdcli. */
#define PLUGIN_NO_ID "no-id"
/* In the metadata of a dataset that was made for an anonymous volume: nobody but its container knows its name. */
#define PLUGIN_ANONYMOUS_KEY "io.flocker.anonymous"

enum plugin_call {
    PLUGIN_ACTIVATE,
    PLUGIN_CAPABILITIES,
    PLUGIN_CREATE,
    PLUGIN_REMOVE,
    PLUGIN_MOUNT,
    PLUGIN_UNMOUNT,
    PLUGIN_PATH,
    PLUGIN_GET,
    PLUGIN_LIST,
    PLUGIN_CALL_MAX,
    PLUGIN_CALL_INVALID = -1,
};

enum plugin_call plugin_call_of_path(const char *path); /* "/VolumeDriver.Mount" */
const char *plugin_call_name(enum plugin_call call);    /* "Mount" */

struct plugin_request {
    char *name; /* of those that are about one volume: 1 to METADATA_MAX_CHARS characters on one line */
    char *id;   /* MOUNT, UNMOUNT: 1 to MOUNT_ID_MAX bytes */
    uint64_t maximum_size;    /* CREATE: 0 = not limited */
    struct metadata metadata; /* CREATE: with "name" */
};

/* What Create takes when it names no size; 0 = no limit. Keys that are not known are let pass, but for those in Opts. ERR_INVALID says
 * what is wrong and what is right. An empty body has no name: Docker repeats calls without it (the reader it sends from is used up). */
struct err *plugin_request_parse(enum plugin_call call, const char *body, size_t n, uint64_t default_size,
                                 struct plugin_request *ret) MUST_USE;
void plugin_request_done(struct plugin_request *r);

/* 64 hexadecimal digits: so Docker names volumes that nobody named. */
bool plugin_name_is_anonymous(const char *name);

/* Answers. `error` NULL is well; `call` says what else must be in it. */
void plugin_render_error(struct str *out, enum plugin_call call, const char *error);
void plugin_render_activate(struct str *out);
void plugin_render_capabilities(struct str *out);
void plugin_render_mountpoint(struct str *out, const char *mountpoint); /* of MOUNT and PATH */
/* `mountpoint`: here, or NULL. */
void plugin_render_get(struct str *out, const struct volume_entry *v, const char *mountpoint);
/* LIST: begin, volumes, end. */
void plugin_render_list_begin(struct str *out);
void plugin_render_list_volume(struct str *out, const struct volume_entry *v, const char *mountpoint);
void plugin_render_list_end(struct str *out);
