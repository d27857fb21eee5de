/* A certificate that is replaced while the program runs: when the files change (inotify on their directory), and when told
 * to, they are read again. New connections use the new certificate; those that are open stay. What cannot be used, or names
 * somebody else than before, is logged, and the old one stays in use. Loop thread; files are read on a thread of its own. */
#pragma once

#include "net/loop.h"
#include "net/tls.h"

struct tls_reload;

struct tls_reload_config {
    struct loop *loop;
    const char *dir; /* holds cluster.crt, NAME.crt and NAME.key */
    const char *name;
    const struct tls *tls; /* what was loaded from there at the start; not needed later */
    SSL_CTX *contexts[4];  /* made from it; the unused ones NULL; taken by reference */
};

struct tls_reload *tls_reload_new(const struct tls_reload_config *config);
/* Reads the files again, also when they look unchanged. */
void tls_reload_now(struct tls_reload *r);
struct tls_reload *tls_reload_free(struct tls_reload *r); /* accepts NULL; returns NULL */
