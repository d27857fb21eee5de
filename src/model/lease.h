/* A v1 lease: keeps a dataset on a node (contract sections 1.4 and 1.5). */
#pragma once

#include "base/uuid.h"

#include <stdbool.h>
#include <stdint.h>

struct lease {
    struct uuid dataset;
    uint64_t revision;
    struct uuid node;
    bool expires;
    uint64_t expires_wall_us; /* valid when `expires`; what a restart goes by */
};
