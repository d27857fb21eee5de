/* Names of volumes, as Flocker 1's driver for ScaleIO made them: "f", the id of the dataset in base 64 (22 characters,
 * '_' for '/'), and the first 8 digits of the cluster's id. 31 characters are all that PowerFlex takes. Pure. */
#pragma once

#include "base/uuid.h"

#include <stdbool.h>

#define PFX_NAME_SIZE 32 /* with the NUL */

const char *pfx_name_make(const struct uuid *cluster, const struct uuid *dataset,
                          char ret[PFX_NAME_SIZE]);
/* false: it is not the name of a volume of this cluster. */
bool pfx_name_parse(const char *name, const struct uuid *cluster, struct uuid *ret_dataset);
