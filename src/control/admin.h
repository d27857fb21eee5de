/* What the machine's root asks of the running service: a unix socket in the data directory, which only its owner may open.
 *
 *   POST /backup    copies the store beside itself; 200 {"path": "..."} when it is complete (not flushed). Who asked
 *                   takes the file away; what is left is removed at the next start.
 *
 * Loop thread. */
#pragma once

#include "net/loop.h"
#include "store/writer.h"

#define ADMIN_SOCKET "control.sock"

struct admin;

/* `writer` must outlive the admin. */
struct err *admin_new(struct loop *l, struct store_writer *writer, const char *data_path,
                      struct admin **ret) MUST_USE;
/* After store_writer_stop(). Accepts NULL; returns NULL. */
struct admin *admin_free(struct admin *a);
