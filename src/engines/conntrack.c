/* Tracked connections of ports whose applications moved. libnetfilter_conntrack and not the program: `conntrack` is one package
 * more on every node, and runs once a port; the library is there wherever iptables is, which Docker needs. */
#include "engines/routes.h"

#include "base/mem.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack_tcp.h>
#include <netinet/in.h>

struct search {
    const struct moved_port *ports;
    size_t n_ports;
    struct ifaddrs *local;
    uint8_t family;
    struct nf_conntrack **found;
    size_t n_found, cap_found;
};

static const void *address_of(const struct sockaddr *a)
{
    return a->sa_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr
                                    : (const void *)&((const struct sockaddr_in *)(const void *)a)->sin_addr;
}

static bool is_local(const struct search *s, const void *address)
{
    size_t n = s->family == AF_INET6 ? sizeof(struct in6_addr) : sizeof(struct in_addr);

    if (s->family == AF_INET && *(const uint8_t *)address == 127)
        return true;
    for (const struct ifaddrs *i = s->local; i; i = i->ifa_next) {
        if (i->ifa_addr && i->ifa_addr->sa_family == s->family && memcmp(address_of(i->ifa_addr), address, n) == 0)
            return true;
    }
    return false;
}

static bool went_another_way(const struct moved_port *p, const char *destination)
{
    if (p->from[0])
        return streq(p->from, destination) && !streq(p->to, destination);
    return !streq(p->to, destination);
}

static bool is_wanted(const struct search *s, const struct nf_conntrack *ct)
{
    bool v6 = s->family == AF_INET6;
    uint16_t port = ntohs(nfct_get_attr_u16(ct, ATTR_ORIG_PORT_DST));
    const void *local = nfct_get_attr(ct, v6 ? ATTR_ORIG_IPV6_DST : ATTR_ORIG_IPV4_DST);
    const void *to = nfct_get_attr(ct, v6 ? ATTR_REPL_IPV6_SRC : ATTR_REPL_IPV4_SRC);
    char destination[INET6_ADDRSTRLEN];

    if (nfct_get_attr_u8(ct, ATTR_ORIG_L4PROTO) != IPPROTO_TCP || !(nfct_get_attr_u32(ct, ATTR_STATUS) & IPS_DST_NAT) ||
        !local || !to || !inet_ntop(s->family, to, destination, sizeof(destination)))
        return false;
    for (size_t i = 0; i < s->n_ports; i++) {
        if (s->ports[i].port == port)
            return went_another_way(&s->ports[i], destination) && is_local(s, local);
    }
    return false;
}

static int look_at(enum nf_conntrack_msg_type type, struct nf_conntrack *ct, void *cookie)
{
    struct search *s = cookie;

    (void)type;
    if (is_wanted(s, ct)) {
        struct nf_conntrack *copy = nfct_clone(ct);
        if (!copy)
            mem_exhausted();
        s->found = mem_grow(s->found, s->n_found, &s->cap_found, sizeof(*s->found));
        s->found[s->n_found++] = copy;
    }
    return NFCT_CB_CONTINUE;
}

static struct err *forget(struct nfct_handle *h, struct search *s)
{
    uint32_t family = s->family;
    struct err *e = NULL;

    if (nfct_callback_register(h, NFCT_T_ALL, look_at, s) != 0 || nfct_query(h, NFCT_Q_DUMP, &family) != 0)
        return err_errno(errno, "the tracked connections cannot be read");
    nfct_callback_unregister(h);
    for (size_t i = 0; i < s->n_found && !e; i++) {
        if (nfct_query(h, NFCT_Q_DESTROY, s->found[i]) != 0 && errno != ENOENT) /* it may have ended by itself */
            e = err_errno(errno, "a tracked connection cannot be removed");
    }
    return e;
}

static struct err *forget_family(struct search *s, uint8_t family, size_t *n)
{
    struct nfct_handle *h = nfct_open(CONNTRACK, 0);

    if (!h)
        return err_errno(errno, "the tracked connections cannot be read");
    s->family = family;
    s->n_found = 0;
    struct err *e = forget(h, s);
    *n += s->n_found;
    for (size_t i = 0; i < s->n_found; i++)
        nfct_destroy(s->found[i]);
    (void)nfct_close(h);
    return e;
}

struct err *conntrack_forget_sync(const struct moved_port *ports, size_t n, size_t *ret_n)
{
    struct search s = {.ports = ports, .n_ports = n};

    *ret_n = 0;
    if (!n)
        return NULL;
    if (getifaddrs(&s.local) != 0)
        return err_errno(errno, "the addresses of this host cannot be read");
    struct err *e = forget_family(&s, AF_INET, ret_n);
    if (!e)
        e = forget_family(&s, AF_INET6, ret_n);
    freeifaddrs(s.local);
    free(s.found);
    return e;
}
