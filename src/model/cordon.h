/* A node that gets nothing new by automatic placement (flockerctl drain, cordon). Who names it himself gets it. */
#pragma once

#include "base/uuid.h"

#include <stdint.h>

struct cordon {
    struct uuid node;
    uint64_t revision;
};
