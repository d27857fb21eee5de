/* The file in which the original Flocker kept its configuration, current_configuration.json, in all its versions 1 to 6
 * (contract section 5.6). Pure functions, thread-safe. */
#pragma once

#include "base/err.h"
#include "model/container.h"
#include "model/dataset.h"
#include "model/lease.h"

#define IMPORT_VERSION_MAX 6

/* Take the datasets as not yet written. Otherwise each is taken as one that has data on its node: where they are not, the
 * node says so, and nothing is made in their place. */
#define IMPORT_EMPTY 1u

struct import {
    int version;
    struct dataset **datasets; /* owned, like all that follows */
    size_t n_datasets;
    struct container **containers;
    size_t n_containers;
    struct lease *leases;
    size_t n_leases;
    uint64_t revision; /* the highest in the records; each has its own */
    char **notes;      /* a sentence for each thing that was not taken, or not as it is */
    size_t n_notes;
};

void import_done(struct import *i);

/* Reads the text. ERR_CORRUPT: not such a file, or damaged; says where. ERR_UNSUPPORTED: of a version that is not known. */
struct err *import_parse(const char *text, size_t n, unsigned flags, struct import *ret) MUST_USE;
