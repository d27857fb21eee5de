/* What a Compose file says about this machine (variables, files of variables), said so that the control service needs no
 * more than the file. */
#pragma once

#include "base/err.h"

#include <jansson.h>

/* Changes the content of the file at `path`: merge keys ("<<") are merged, variables replaced by those of the environment and
 * of .env beside the file, those of env_file added to `environment`, and the project's name is set: `project`, or else the
 * file's own, or else the folder's. Prints a warning for each variable that is not set. */
struct err *deploy_compose_settle(json_t *file, const char *path, const char *project) MUST_USE;

/* Merges the "<<" of all objects in `value`. Pure. */
struct err *deploy_merge_keys(json_t *value) MUST_USE;
