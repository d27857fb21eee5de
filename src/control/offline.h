/* What `flocker-control` does with a store besides serving it. Each prints what it did on standard output; they block. */
#pragma once

#include "base/err.h"

/* Copies the store in `data_path` to `file`: by the service that runs on it, or, when none does, from the files. */
struct err *offline_backup(const char *data_path, const char *file) MUST_USE;
/* Puts such a copy in its place; `replace`: also where there is a store already. */
struct err *offline_restore(const char *data_path, const char *file, bool replace) MUST_USE;
/* Fills an empty store with what the original Flocker kept in `file`; all of it or nothing. `empty`: its datasets are to be
 * made anew (model/import.h). */
struct err *offline_import(const char *data_path, const char *file, bool empty) MUST_USE;
