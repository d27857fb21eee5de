/* Puts the routes into the kernel: nftables, Docker's chain, forwarding, tracked connections. docs/routes.md says what and why. */
#include "engines/routes.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "exec/exec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define IPTABLES_TIMEOUT_US (20 * 1000000ull)
#define INTERFACE_SIZE 16 /* IFNAMSIZ */
#define LISTING_MAX (4u << 20)

/* ---- nftables ---- */

/* Where there is no netfilter the library would end the process. */
static struct err *check_netfilter(void)
{
    CLEANUP_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

    return fd < 0 ? err_errno(errno, "nftables cannot be reached in this kernel") : NULL;
}

/* Runs commands; *ret_out (may be NULL) is what they print, as JSON; the caller frees it. */
static struct err *nft(const char *commands, char **ret_out)
{
    TRY(check_netfilter());
    struct nft_ctx *ctx = nft_ctx_new(NFT_CTX_DEFAULT);
    struct err *e = NULL;

    if (!ctx)
        mem_exhausted();
    if (nft_ctx_buffer_output(ctx) != 0 || nft_ctx_buffer_error(ctx) != 0)
        mem_exhausted();
    nft_ctx_output_set_flags(ctx, ret_out ? NFT_CTX_OUTPUT_JSON : 0);
    if (nft_run_cmd_from_buffer(ctx, commands) != 0) {
        const char *text = nft_ctx_get_error_buffer(ctx);
        size_t n = strcspn(text, "\n"); /* the lines after the first show the command */
        e = err_new(ERR_IO, "nftables refuses the routes: %.*s", (int)n, text);
    } else if (ret_out) {
        *ret_out = xstrdup(nft_ctx_get_output_buffer(ctx));
    }
    nft_ctx_free(ctx);
    return e;
}

static void names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

static struct err *list_tables(char ***ret_names, size_t *ret_n)
{
    CLEANUP_FREE char *json = NULL;

    TRY(nft("list tables inet", &json));
    return routes_parse_tables(json, ret_names, ret_n);
}

/* *ret_there: the table exists; then *ret is what it has. */
static struct err *read_table(const char *table, struct routed_set *ret, bool *ret_there, bool *ret_whole)
{
    CLEANUP_FREE char *json = NULL;
    CLEANUP_FREE char *command = xasprintf("list table inet %s", table);
    char **names;
    size_t n;

    *ret_there = *ret_whole = false;
    TRY(list_tables(&names, &n));
    for (size_t i = 0; i < n; i++)
        *ret_there = *ret_there || streq(names[i], table);
    names_free(names, n);
    if (!*ret_there)
        return NULL;
    TRY(nft(command, &json));
    return routes_parse(json, ret, ret_whole);
}

/* ---- the kernel's switches ---- */

static bool switch_is_on(const char *path)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char c = '0';

    return fd >= 0 && read(fd, &c, 1) == 1 && c != '0';
}

static struct err *set_switch(const char *path, bool on)
{
    if (switch_is_on(path) == on)
        return NULL;
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, on ? "1" : "0", 1) != 1)
        return err_errno(errno, "%s cannot be written", path);
    log_info("%s is %d now, for routes", path, on);
    return NULL;
}

/* Forwarding of IPv6 makes an interface that takes its address from routers forget them, unless it is told to take it all
 * the same. */
static struct err *forward_v6(void)
{
    static const char path[] = "/proc/sys/net/ipv6/conf/all/forwarding";
    struct ifaddrs *all = NULL;

    if (switch_is_on(path))
        return NULL;
    if (getifaddrs(&all) != 0)
        return err_errno(errno, "the interfaces of this host cannot be read");
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        CLEANUP_FREE char *accept = xasprintf("/proc/sys/net/ipv6/conf/%s/accept_ra", i->ifa_name);
        CLEANUP_CLOSE int fd = open(accept, O_RDWR | O_CLOEXEC);
        char c = '0';
        if (fd >= 0 && read(fd, &c, 1) == 1 && c == '1')
            (void)!pwrite(fd, "2", 1, 0);
    }
    freeifaddrs(all);
    return set_switch(path, true);
}

static char *localnet_path(const char *interface)
{
    return xasprintf("/proc/sys/net/ipv4/conf/%s/route_localnet", interface);
}

/* The interface by which the address is reached; "" when there is none. */
static void interface_to(const char *address, char ret[INTERFACE_SIZE])
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)}, own;
    socklen_t len = sizeof(own);
    CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifaddrs *all = NULL;

    ret[0] = '\0';
    if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1 ||
        connect(fd, (const struct sockaddr *)&to, sizeof(to)) != 0 || getsockname(fd, (struct sockaddr *)&own, &len) != 0 ||
        getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET &&
            ((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr.s_addr == own.sin_addr.s_addr)
            (void)snprintf(ret, INTERFACE_SIZE, "%s", i->ifa_name);
    }
    freeifaddrs(all);
}

/* A client on 127.0.0.1 reaches another node only through an interface that lets such addresses pass. It is guarded whoever opened
 * it; only what was opened here is closed again. */
static void choose_interfaces(const struct routes_config *c, struct routed_set *wanted, const struct routed_set *had)
{
    const char *last = "";

    for (size_t i = 0; i < wanted->n; i++) {
        char name[INTERFACE_SIZE];
        if (routed_is_v6(&wanted->ports[i]) || streq(wanted->ports[i].address, last))
            continue;
        last = wanted->ports[i].address;
        interface_to(last, name);
        if (!interface_is_plain(name) || streq(name, "lo"))
            continue;
        CLEANUP_FREE char *path = localnet_path(name);
        interfaces_add(&wanted->guarded, name);
        if (interfaces_has(&had->opened, name) || interfaces_has(c->opened, name) || !switch_is_on(path))
            interfaces_add(&wanted->opened, name);
    }
}

/* Behind the guard. */
static struct err *open_interfaces(const struct routes_config *c, const struct routed_set *wanted)
{
    for (size_t i = 0; i < wanted->opened.n; i++)
        interfaces_add(c->opened, wanted->opened.names[i]);
    for (size_t i = 0; i < wanted->guarded.n; i++) {
        CLEANUP_FREE char *path = localnet_path(wanted->guarded.names[i]);
        TRY(set_switch(path, true));
    }
    return NULL;
}

/* Before the guard is taken away. One that is gone needs nothing. */
static void close_interfaces(const struct interfaces *opened, const struct interfaces *still)
{
    for (size_t i = 0; i < opened->n; i++) {
        CLEANUP_FREE char *path = localnet_path(opened->names[i]);
        if (!interfaces_has(still, opened->names[i]))
            err_free(set_switch(path, false));
    }
}

static void close_unused(const struct routes_config *c, const struct routed_set *wanted, const struct routed_set *had)
{
    close_interfaces(&had->opened, &wanted->guarded);
    close_interfaces(c->opened, &wanted->guarded);
    interfaces_done(c->opened);
    for (size_t i = 0; i < wanted->opened.n; i++)
        interfaces_add(c->opened, wanted->opened.names[i]);
}

/* ---- Docker's chain ---- */

/* dockerd makes its chains with the same programs, so they know where the chain is (nftables, or the legacy tables) and write
 * rules that it can read. */
static struct err *list_docker(bool v6, char **ret_listing)
{
    const char *const argv[] = {v6 ? "ip6tables" : "iptables", "-w", "5", "-S", "DOCKER-USER", NULL};
    struct exec_request rq = {.argv = argv, .timeout_us = IPTABLES_TIMEOUT_US, .output_max = LISTING_MAX, .any_exit = true};
    CLEANUP_EXEC struct exec_result r = {0};
    struct err *e = exec_run(&rq, &r);

    *ret_listing = NULL;
    if (err_is(e, ERR_UNAVAILABLE)) { /* no such program: no Docker either */
        err_free(e);
        return NULL;
    }
    if (e)
        return e;
    if (r.status == 1) /* no such chain */
        return NULL;
    if (r.status != 0 || r.truncated)
        return err_new(ERR_IO, "%s -S DOCKER-USER ended with %d: %s", argv[0], r.status, r.err_text);
    *ret_listing = steal(&r.out);
    return NULL;
}

static struct err *restore(bool v6, const char *input)
{
    const char *const argv[] = {v6 ? "ip6tables-restore" : "iptables-restore", "-w", "5", "--noflush", NULL};
    CLEANUP_CLOSE int fd = memfd_create("routes", MFD_CLOEXEC);

    if (fd < 0 || write(fd, input, strlen(input)) != (ssize_t)strlen(input) || lseek(fd, 0, SEEK_SET) != 0)
        return err_errno(errno, "the rules for %s cannot be handed over", argv[0]);
    struct exec_request rq = {.argv = argv, .stdin_fd = fd, .timeout_us = IPTABLES_TIMEOUT_US};
    return exec_run(&rq, NULL);
}

static bool has_family(const struct routed_set *s, bool v6)
{
    for (size_t i = 0; i < s->n; i++) {
        if (routed_is_v6(&s->ports[i]) == v6)
            return true;
    }
    return false;
}

static struct err *pass_docker(const char *owner, const struct routed_set *wanted, const struct routed_set *had)
{
    for (int v6 = 0; v6 < 2; v6++) {
        CLEANUP_FREE char *listing = NULL;
        if (!has_family(wanted, v6) && !has_family(had, v6))
            continue;
        TRY(list_docker(v6, &listing));
        CLEANUP_FREE char *input = listing ? routes_render_docker(listing, owner, wanted, v6) : NULL;
        if (input)
            TRY(err_wrap(restore(v6, input), "Docker's chain DOCKER-USER cannot be given the rules for routes"));
    }
    return NULL;
}

/* ---- together ---- */

static int compare_ports(const void *a, const void *b)
{
    return (int)((const struct routed *)a)->port - (int)((const struct routed *)b)->port;
}

static bool is_excepted(const struct routes_config *c, uint16_t port)
{
    for (size_t i = 0; i < c->n_except; i++) {
        if (c->except[i] == port)
            return true;
    }
    return false;
}

#define LEFT_OUT_NAMED 5 /* so many ports are named */

char *routes_left_out(const struct routes_config *config, const struct port_route *routes, size_t n)
{
    CLEANUP_STR struct str ports = {0};
    size_t found = 0;

    for (size_t i = 0; i < n; i++) {
        if (!is_excepted(config, routes[i].port) || found++ >= LEFT_OUT_NAMED)
            continue;
        str_appendf(&ports, "%s%u (of container %s)", found > 1 ? ", " : "", routes[i].port,
                    routes[i].container);
    }
    if (!found)
        return NULL;
    if (found > LEFT_OUT_NAMED)
        str_appendf(&ports, " and %zu more", found - LEFT_OUT_NAMED);
    return xasprintf(
        "%s %s answer%s only on the node of the container, not on this one: this node keeps %s for "
        "itself (routes: "
        "except in agent.yml; Flocker's own ports always, and 22 unless that says something)",
        found > 1 ? "the ports" : "port", ports.data, found > 1 ? "" : "s",
        found > 1 ? "them" : "it");
}

static void choose(const struct routes_config *c, const struct port_route *routes, size_t n, const struct routed_set *had,
                   struct routed_set *ret)
{
    for (size_t i = 0; i < n; i++) {
        const struct routed *before = routes[i].host ? NULL : routed_set_find(had, routes[i].port);
        const char *host = before ? before->address : routes[i].host;
        unsigned char raw[sizeof(struct in6_addr)];
        if (!host || inet_pton(strchr(host, ':') ? AF_INET6 : AF_INET, host, raw) != 1)
            continue;
        if (is_excepted(c, routes[i].port) || str_equal_null(host, c->own_address))
            continue;
        routed_set_add(ret, routes[i].port, host);
    }
    if (ret->n)
        qsort(ret->ports, ret->n, sizeof(*ret->ports), compare_ports);
}

static void add_moved(struct moved_port *all, size_t *n, uint16_t port, const char *from, const char *to)
{
    struct moved_port *m = &all[(*n)++];

    m->port = port;
    (void)snprintf(m->from, sizeof(m->from), "%s", from);
    (void)snprintf(m->to, sizeof(m->to), "%s", to);
}

/* Ports that led elsewhere, or here, before. The caller frees them. */
static struct moved_port *compare(const struct routed_set *had, const struct routed_set *wanted, size_t *ret_n)
{
    struct moved_port *moved = xcalloc(had->n + wanted->n, sizeof(*moved));

    *ret_n = 0;
    for (size_t i = 0; i < wanted->n; i++) {
        const struct routed *w = &wanted->ports[i], *h = routed_set_find(had, w->port);
        if (!h || !streq(h->address, w->address))
            add_moved(moved, ret_n, w->port, "", w->address);
    }
    for (size_t i = 0; i < had->n; i++) {
        if (!routed_set_find(wanted, had->ports[i].port)) /* what Docker leads to a container here stays */
            add_moved(moved, ret_n, had->ports[i].port, had->ports[i].address, "");
    }
    return moved;
}

static struct err *forget_moved(const struct routed_set *had, const struct routed_set *wanted)
{
    size_t n, forgotten = 0;
    CLEANUP_FREE struct moved_port *moved = compare(had, wanted, &n);

    TRY(conntrack_forget_sync(moved, n, &forgotten));
    if (n)
        log_info("%zu routes to other nodes; %zu changed, %zu connections on them ended", wanted->n, n, forgotten);
    return NULL;
}

static struct err *drop_table(const char *table)
{
    CLEANUP_FREE char *command = xasprintf("delete table inet %s", table);

    return nft(command, NULL);
}

static struct err *change_table(const struct routes_config *c, const char *table, const struct routed_set *wanted,
                                const struct routed_set *had)
{
    CLEANUP_FREE char *commands = routes_render(table, wanted);

    if (has_family(wanted, false))
        TRY(set_switch("/proc/sys/net/ipv4/ip_forward", true));
    if (has_family(wanted, true))
        TRY(forward_v6());
    close_unused(c, wanted, had);
    TRY(nft(commands, NULL));
    return open_interfaces(c, wanted);
}

struct err *routes_apply_sync(const struct routes_config *config, const struct port_route *routes, size_t n)
{
    CLEANUP_FREE char *table = xasprintf(ROUTES_TABLE_PREFIX "%s", UUID_STR(&config->node));
    CLEANUP(routed_set_done) struct routed_set had = {0}, wanted = {0};
    bool there, whole;

    TRY(read_table(table, &had, &there, &whole));
    choose(config, routes, n, &had, &wanted);
    choose_interfaces(config, &wanted, &had);
    TRY(pass_docker(table + strlen(ROUTES_TABLE_PREFIX), &wanted, &had));
    if (!wanted.n && !there)
        return NULL;
    if (wanted.n && whole && routed_set_same(&wanted, &had))
        return open_interfaces(config, &wanted); /* somebody may have closed one */
    if (wanted.n) {
        TRY(change_table(config, table, &wanted, &had));
    } else {
        close_unused(config, &wanted, &had);
        TRY(drop_table(table));
    }
    return forget_moved(&had, &wanted);
}

static struct err *leave_docker(void)
{
    for (int v6 = 0; v6 < 2; v6++) {
        CLEANUP_FREE char *listing = NULL;
        struct err *e = list_docker(v6, &listing);
        if (e && v6) { /* a host without IPv6 */
            err_free(e);
            continue;
        }
        TRY(e);
        CLEANUP_FREE char *input = listing ? routes_render_docker_removal(listing) : NULL;
        if (input)
            TRY(restore(v6, input));
    }
    return NULL;
}

struct err *routes_remove_sync(size_t *ret_n)
{
    struct err *e = NULL;
    char **names;
    size_t n;

    *ret_n = 0;
    TRY(leave_docker());
    TRY(list_tables(&names, &n));
    for (size_t i = 0; i < n && !e; i++) {
        CLEANUP(routed_set_done) struct routed_set had = {0}, none = {0};
        bool there, whole;
        e = read_table(names[i], &had, &there, &whole);
        if (e || !there)
            continue;
        close_interfaces(&had.opened, &none.guarded);
        e = drop_table(names[i]);
        if (!e)
            e = forget_moved(&had, &none);
        *ret_n += !e;
    }
    names_free(names, n);
    return e;
}

/* ---- noticing changes ---- */

struct routes_watch {
    int fd;
    struct watch *watch;
    loop_fn *changed;
    void *cookie;
};

static void on_change(void *cookie, unsigned ready)
{
    struct routes_watch *w = cookie;
    char buffer[16384];
    bool any = false;
    ssize_t n;

    (void)ready;
    while ((n = recv(w->fd, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0 || (n < 0 && errno == ENOBUFS))
        any = true;
    if (any)
        w->changed(w->cookie);
}

struct err *routes_watch_new(struct loop *loop, loop_fn *changed, void *cookie, struct routes_watch **ret)
{
    struct sockaddr_nl own = {.nl_family = AF_NETLINK, .nl_groups = 1u << (NFNLGRP_NFTABLES - 1)};
    struct routes_watch *w = xcalloc(1, sizeof(*w));

    w->changed = changed;
    w->cookie = cookie;
    w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
    struct err *e = w->fd < 0 || bind(w->fd, (const struct sockaddr *)&own, sizeof(own)) != 0
                        ? err_errno(errno, "changes of nftables cannot be watched")
                        : watch_new(loop, w->fd, WATCH_READ, on_change, w, &w->watch);
    if (e)
        routes_watch_free(w);
    else
        *ret = w;
    return e;
}

struct routes_watch *routes_watch_free(struct routes_watch *w)
{
    if (!w)
        return NULL;
    watch_free(w->watch);
    if (w->fd >= 0)
        (void)close(w->fd);
    free(w);
    return NULL;
}
