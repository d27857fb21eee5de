/* Ports that lead to other nodes: what the packet filter of this node must hold for them, and putting it there.
 *
 * A table of our own in nftables, one a node identity, so that several agents can live in one network namespace: it changes the
 * destination of connections to a routed port of any local address, and their source, so that the answers come back here. In
 * the chain DOCKER-USER, where there is one, commented rules let these connections through Docker's filter. Nothing else is
 * touched. Functions ending in _sync block and run on a worker, one at a time. */
#pragma once

#include "base/err.h"
#include "model/agent.h"
#include "net/loop.h"

#include <netinet/in.h>

#define ROUTES_TABLE_PREFIX "flocker-" /* the table is called so, and then the node's uuid */
#define ROUTES_RULES 8                 /* so many rules it has */
#define ROUTES_CHAINS 4

/* A port and the address of the node that answers it. */
struct routed {
    uint16_t port;
    char address[INET6_ADDRSTRLEN];
};

struct interfaces {
    char **names;
    size_t n, cap;
};

bool interface_is_plain(const char *name); /* can be part of a path and of a command; the kernel takes odd ones, too */
void interfaces_done(struct interfaces *i);
void interfaces_add(struct interfaces *i, const char *name); /* no effect when it is there */
bool interfaces_has(const struct interfaces *i, const char *name);

/* Sorted by port. */
struct routed_set {
    struct routed *ports;
    size_t n, cap;
    struct interfaces guarded; /* clients on 127.0.0.1 go out by them, so their route_localnet is on, and the table guards them */
    struct interfaces opened;  /* those of them whose switch was off before */
};

void routed_set_done(struct routed_set *s);
void routed_set_add(struct routed_set *s, uint16_t port, const char *address); /* the caller keeps the order */
const struct routed *routed_set_find(const struct routed_set *s, uint16_t port);
bool routed_set_same(const struct routed_set *a, const struct routed_set *b);
bool routed_is_v6(const struct routed *r);

/* ---- pure ---- */

/* Commands for nft that make the table hold exactly the set, in one transaction, whether it is there or not. The caller frees
 * them. */
char *routes_render(const char *table, const struct routed_set *set);
/* What `nft -j list table inet NAME` says. *ret_whole: all our chains and rules are there. ERR_CORRUPT: no such answer. */
struct err *routes_parse(const char *json, struct routed_set *ret, bool *ret_whole) MUST_USE;
/* The names of our tables, of any node, in what `nft -j list tables` says. The caller frees each and the array. */
struct err *routes_parse_tables(const char *json, char ***ret_names, size_t *ret_n) MUST_USE;

/* What to give to `iptables-restore --noflush` (v6: ip6tables-restore) so that DOCKER-USER has the rules for the set, behind those
 * of the administrator and before Docker's RETURN; NULL when it has them. `listing`: of `iptables -S DOCKER-USER`. `owner`: word in
 * the comments, the node's uuid. The caller frees it. */
char *routes_render_docker(const char *listing, const char *owner, const struct routed_set *set, bool v6);
/* The same, to take away the rules of all owners. */
char *routes_render_docker_removal(const char *listing);

/* ---- putting it there ---- */

struct routes_config {
    struct uuid node;
    const char *own_address;  /* routes to it are left out: two nodes share one address */
    const uint16_t *except;   /* ports that are never routed on this node */
    size_t n_except;
    struct interfaces *opened; /* what earlier calls opened: the table that says so may be taken away by others; updated */
};

/* Changes what differs from `routes`, at once; then the tracked connections of ports that lead elsewhere now are forgotten, so that
 * their clients notice. A route without a host stays as it is. Turns forwarding on in the kernel when there is anything to
 * forward. No effect when all is there. */
struct err *routes_apply_sync(const struct routes_config *config, const struct port_route *routes, size_t n) MUST_USE;
/* The ports that a container has on another node and that do not lead there from here, because of config->except: a sentence, NULL
 * when there are none. The caller frees it. */
char *routes_left_out(const struct routes_config *config, const struct port_route *routes,
                      size_t n);
/* Takes away what any agent has put there, in this network namespace. *ret_n: so many tables. */
struct err *routes_remove_sync(size_t *ret_n) MUST_USE;

/* A port whose connections go another way now. */
struct moved_port {
    uint16_t port;
    char from[INET6_ADDRSTRLEN]; /* only those to there; "" = all but those to `to` */
    char to[INET6_ADDRSTRLEN];   /* "" = nowhere else */
};
/* Forgets the tracked connections to these ports of local addresses whose destination was changed. */
struct err *conntrack_forget_sync(const struct moved_port *ports, size_t n, size_t *ret_n) MUST_USE;

/* Calls `changed` on the loop after anybody changed nftables here (also ourselves). */
struct routes_watch;
struct err *routes_watch_new(struct loop *loop, loop_fn *changed, void *cookie, struct routes_watch **ret) MUST_USE;
struct routes_watch *routes_watch_free(struct routes_watch *w); /* accepts NULL; returns NULL */
