/* uthash; without memory it ends the process as everything else does (its own way is a silent exit). */
#pragma once

#include "base/mem.h"

#define uthash_fatal(text) mem_exhausted()
#include <uthash.h>
