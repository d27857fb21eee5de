/* What the gateway answers (JSON), as structures; pure. NULL is an empty answer. Everything in one comes from outside: lengths and counts are
 * limited, ids have the form of ids, sizes fit. Names of fields: dell/goscaleio, types/v1. */
#pragma once

#include "base/err.h"
#include "drivers/powerflex/name.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define PFX_ID_SIZE 33      /* with the NUL; ids are 16 hexadecimal digits, systems may have more */
#define PFX_GUID_SIZE 37    /* of an SDC, in lower case */
#define PFX_TOKEN_MAX 8192u /* of 4.x they are web tokens of a kilobyte or two */
#define PFX_OTHERS_MAX 4u

struct pfx_volume {
    char id[PFX_ID_SIZE];
    char name[PFX_NAME_SIZE];                 /* "" for one that is none of Flocker's */
    uint64_t size;                            /* bytes */
    bool here;                                /* mapped to the SDC that was asked about */
    bool elsewhere;                           /* mapped to others, or to all */
    size_t n_others;                          /* 0, and elsewhere: to all */
    char others[PFX_OTHERS_MAX][PFX_ID_SIZE]; /* the first of those */
};

struct pfx_volumes {
    struct pfx_volume *all;
    size_t n, cap;
};
void pfx_volumes_done(struct pfx_volumes *v);
#define CLEANUP_PFX_VOLUMES CLEANUP(pfx_volumes_done)

/* One volume; `sdc` is this host's. ERR_CORRUPT. */
struct err *pfx_volume_parse(const json_t *o, const char *sdc, struct pfx_volume *ret) MUST_USE;
/* A list of them; those whose names cannot be Flocker's are left out. */
struct err *pfx_volumes_parse(const json_t *o, const char *sdc, struct pfx_volumes *ret) MUST_USE;
/* {"id": ID}, as creations answer. */
struct err *pfx_created_parse(const json_t *o, char ret_id[PFX_ID_SIZE]) MUST_USE;
/* A bare id, as searches by name answer. */
struct err *pfx_id_parse(const json_t *o, char ret_id[PFX_ID_SIZE]) MUST_USE;
bool pfx_id_is_sane(const char *id);
/* A bare text: a token, printable and without blanks. The caller overwrites and frees it. The text of an error never shows it. */
struct err *pfx_token_parse(const json_t *o, char **ret_token) MUST_USE;
/* A bare text like "3.6" or "4.5.1". */
struct err *pfx_version_parse(const json_t *o, unsigned *ret_major, unsigned *ret_minor) MUST_USE;
/* The id of the one system behind the gateway. */
struct err *pfx_system_parse(const json_t *o, char ret_id[PFX_ID_SIZE]) MUST_USE;
/* Is what was deleted in the pool overwritten by zeros? Pools without that word always do. */
struct err *pfx_pool_parse(const json_t *o, bool *ret_zeros) MUST_USE;

struct pfx_sdc {
    char id[PFX_ID_SIZE];
    char guid[PFX_GUID_SIZE];
    char ip[64];       /* "": not told */
    bool disconnected; /* the system has lost it, and says so */
};
struct err *pfx_sdc_parse(const json_t *o, struct pfx_sdc *ret) MUST_USE;
struct pfx_sdcs {
    struct pfx_sdc *all;
    size_t n, cap;
};
void pfx_sdcs_done(struct pfx_sdcs *s);
#define CLEANUP_PFX_SDCS CLEANUP(pfx_sdcs_done)
/* Hosts that use NVMe are in the list as well, and have no GUID: what cannot be read is left out. */
struct err *pfx_sdcs_parse(const json_t *o, struct pfx_sdcs *ret) MUST_USE;
/* The one with this GUID (in lower case). ERR_NOT_FOUND. */
struct err *pfx_sdcs_find(const struct pfx_sdcs *s, const char *guid, struct pfx_sdc *ret) MUST_USE;
/* GUID of the one with this id, or NULL. */
const char *pfx_sdcs_guid(const struct pfx_sdcs *s, const char *id);
/* "9E56672F-2F4B-4A42-BFF4-88B6846FBFDA" in lower case; false when it is no GUID. */
bool pfx_guid_parse(const char *text, char ret[PFX_GUID_SIZE]);

/* ---- errors ---- */

enum pfx_failure_kind {
    PFX_REFUSED,   /* anything else that the system says no to */
    PFX_TROUBLE,   /* theirs, or no answer: later */
    PFX_LOGIN,     /* the token has ended, or user and password are wrong */
    PFX_FORBIDDEN, /* the user may not do this */
    PFX_NOT_FOUND, /* for certain; some say it by numbers that nobody wrote down, so PFX_REFUSED may mean it too */
    PFX_MAPPED,     /* already */
    PFX_NOT_MAPPED, /* already not */
    PFX_FAILURE_KIND_MAX,
};

struct pfx_failure {
    enum pfx_failure_kind kind;
    int code;
    char message[512];
};
/* Of an answer whose status is not 200; `o` is NULL when it is no JSON (a proxy's page). Never fails. */
struct pfx_failure pfx_failure_parse(int status, const json_t *o);
/* As an error: `what` is what was tried ("cannot map volume 0123"). */
struct err *pfx_failure_err(const struct pfx_failure *f, const char *what) MUST_USE;
