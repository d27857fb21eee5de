/* The routes as text: for nft and from it, for iptables-restore. No I/O. */
#include "engines/routes.h"

#include "base/mem.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <xxhash.h>

void interfaces_done(struct interfaces *i)
{
    for (size_t k = 0; k < i->n; k++)
        free(i->names[k]);
    free(i->names);
    *i = (struct interfaces){0};
}

bool interfaces_has(const struct interfaces *i, const char *name)
{
    for (size_t k = 0; k < i->n; k++) {
        if (streq(i->names[k], name))
            return true;
    }
    return false;
}

void interfaces_add(struct interfaces *i, const char *name)
{
    if (interfaces_has(i, name))
        return;
    i->names = mem_grow(i->names, i->n, &i->cap, sizeof(char *));
    i->names[i->n++] = xstrdup(name);
}

bool interface_is_plain(const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-@:";
    size_t n = strlen(name);

    return n > 0 && n < 16 && name[0] != '.' && strspn(name, plain) == n;
}

static bool interfaces_same(const struct interfaces *a, const struct interfaces *b)
{
    bool same = a->n == b->n;

    for (size_t k = 0; k < a->n && same; k++)
        same = interfaces_has(b, a->names[k]);
    return same;
}

void routed_set_done(struct routed_set *s)
{
    interfaces_done(&s->guarded);
    interfaces_done(&s->opened);
    free(s->ports);
    *s = (struct routed_set){0};
}

void routed_set_add(struct routed_set *s, uint16_t port, const char *address)
{
    s->ports = mem_grow(s->ports, s->n, &s->cap, sizeof(*s->ports));
    struct routed *r = &s->ports[s->n++];
    r->port = port;
    (void)snprintf(r->address, sizeof(r->address), "%s", address);
}

const struct routed *routed_set_find(const struct routed_set *s, uint16_t port)
{
    for (size_t low = 0, high = s->n; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (s->ports[middle].port == port)
            return &s->ports[middle];
        if (s->ports[middle].port < port)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

bool routed_set_same(const struct routed_set *a, const struct routed_set *b)
{
    if (a->n != b->n || !interfaces_same(&a->guarded, &b->guarded) || !interfaces_same(&a->opened, &b->opened))
        return false;
    for (size_t i = 0; i < a->n; i++) {
        if (a->ports[i].port != b->ports[i].port || !streq(a->ports[i].address, b->ports[i].address))
            return false;
    }
    return true;
}

bool routed_is_v6(const struct routed *r)
{
    return strchr(r->address, ':') != NULL;
}

/* ---- nft ---- */

static void append_elements(struct str *s, const char *table, const struct routed_set *set, bool v6)
{
    const char *family = v6 ? "6" : "4";
    bool any = false;
    CLEANUP_STR struct str to = {0};
    CLEANUP_STR struct str at = {0};

    for (size_t i = 0; i < set->n; i++) {
        const struct routed *r = &set->ports[i];
        if (routed_is_v6(r) != v6)
            continue;
        str_appendf(&to, "%s%u : %s", any ? ", " : "", r->port, r->address);
        str_appendf(&at, "%s%s . %u", any ? ", " : "", r->address, r->port);
        any = true;
    }
    if (!any)
        return;
    str_appendf(s, "add element inet %s to%s { %s }\n", table, family, to.data);
    str_appendf(s, "add element inet %s at%s { %s }\n", table, family, at.data);
}

static void append_interfaces(struct str *s, const char *table, const char *set, const struct interfaces *i)
{
    for (size_t k = 0; k < i->n; k++)
        str_appendf(s, "add element inet %s %s { \"%s\" }\n", table, set, i->names[k]);
}

/* Before Docker's own chains (dstnat, -100): a connection takes the first destination that it is given. The guard stands before
 * connections are looked up (raw, -300): answers to a routed connection from 127.0.0.1 still have another destination there. */
static const char layout[] =
    "add table inet %1$s\n"
    "add map inet %1$s to4 { type inet_service : ipv4_addr; }\n"
    "add map inet %1$s to6 { type inet_service : ipv6_addr; }\n"
    "add set inet %1$s at4 { type ipv4_addr . inet_service; }\n"
    "add set inet %1$s at6 { type ipv6_addr . inet_service; }\n"
    "add set inet %1$s localnet { type ifname; }\n"
    "add set inet %1$s opened { type ifname; }\n"
    "add chain inet %1$s guard { type filter hook prerouting priority -310; }\n"
    "add chain inet %1$s prerouting { type nat hook prerouting priority -110; }\n"
    "add chain inet %1$s output { type nat hook output priority -110; }\n"
    "add chain inet %1$s postrouting { type nat hook postrouting priority 90; }\n"
    "flush table inet %1$s\n"
    "flush map inet %1$s to4\n"
    "flush map inet %1$s to6\n"
    "flush set inet %1$s at4\n"
    "flush set inet %1$s at6\n"
    "flush set inet %1$s localnet\n"
    "flush set inet %1$s opened\n"
    "add rule inet %1$s guard iifname @localnet ip daddr 127.0.0.0/8 drop\n"
    "add rule inet %1$s guard iifname @localnet ip saddr 127.0.0.0/8 drop\n"
    "add rule inet %1$s prerouting fib daddr type local dnat ip to tcp dport map @to4\n"
    "add rule inet %1$s prerouting fib daddr type local dnat ip6 to tcp dport map @to6\n"
    "add rule inet %1$s output fib daddr type local dnat ip to tcp dport map @to4\n"
    "add rule inet %1$s output fib daddr type local dnat ip6 to tcp dport map @to6\n"
    "add rule inet %1$s postrouting ct status dnat ip daddr . tcp dport @at4 masquerade\n"
    "add rule inet %1$s postrouting ct status dnat ip6 daddr . tcp dport @at6 masquerade\n";

char *routes_render(const char *table, const struct routed_set *set)
{
    struct str s = {0};

    str_appendf(&s, layout, table);
    append_elements(&s, table, set, /* v6= */ false);
    append_elements(&s, table, set, /* v6= */ true);
    append_interfaces(&s, table, "localnet", &set->guarded);
    append_interfaces(&s, table, "opened", &set->opened);
    return s.data;
}

static int compare_routed(const void *a, const void *b)
{
    return (int)((const struct routed *)a)->port - (int)((const struct routed *)b)->port;
}

static bool take_ports(const json_t *map, struct routed_set *set)
{
    const json_t *pair;
    size_t i;

    json_array_foreach (json_object_get(map, "elem"), i, pair) {
        json_int_t port = json_integer_value(json_array_get(pair, 0));
        const char *address = json_string_value(json_array_get(pair, 1));
        unsigned char raw[sizeof(struct in6_addr)];
        if (port < 1 || port > UINT16_MAX || !address || strlen(address) >= INET6_ADDRSTRLEN ||
            inet_pton(strchr(address, ':') ? AF_INET6 : AF_INET, address, raw) != 1)
            return false;
        routed_set_add(set, (uint16_t)port, address);
    }
    return true;
}

static bool take_interfaces(const json_t *list, struct interfaces *ret)
{
    const json_t *name;
    size_t i;

    json_array_foreach (json_object_get(list, "elem"), i, name) {
        const char *text = json_string_value(name);
        if (!text || !interface_is_plain(text))
            return false;
        interfaces_add(ret, text);
    }
    return true;
}

static const char *name_of(const json_t *object)
{
    const char *name = json_string_value(json_object_get(object, "name"));

    return name ? name : "";
}

struct err *routes_parse(const char *json, struct routed_set *ret, bool *ret_whole)
{
    CLEANUP(json_decrefp) json_t *root = json_loads(json, 0, NULL);
    const json_t *list = json_object_get(root, "nftables"), *item;
    struct routed_set set = {0};
    unsigned rules = 0, chains = 0;
    bool good = json_is_array(list);
    size_t i;

    json_array_foreach (list, i, item) {
        const json_t *map = json_object_get(item, "map"), *names = json_object_get(item, "set");
        rules += json_object_get(item, "rule") != NULL;
        chains += json_object_get(item, "chain") != NULL;
        if (map && (streq(name_of(map), "to4") || streq(name_of(map), "to6")))
            good = good && take_ports(map, &set);
        if (names && streq(name_of(names), "localnet"))
            good = good && take_interfaces(names, &set.guarded);
        if (names && streq(name_of(names), "opened"))
            good = good && take_interfaces(names, &set.opened);
    }
    if (!good) {
        routed_set_done(&set);
        return err_new(ERR_CORRUPT, "what nftables says about our table cannot be understood");
    }
    if (set.n)
        qsort(set.ports, set.n, sizeof(*set.ports), compare_routed);
    *ret = set;
    *ret_whole = rules == ROUTES_RULES && chains == ROUTES_CHAINS;
    return NULL;
}

static bool is_our_table(const json_t *table)
{
    const char *family = json_string_value(json_object_get(table, "family"));
    const char *name = name_of(table);
    struct uuid node;

    return family && streq(family, "inet") && str_has_prefix(name, ROUTES_TABLE_PREFIX) &&
           uuid_parse(name + strlen(ROUTES_TABLE_PREFIX), &node);
}

struct err *routes_parse_tables(const char *json, char ***ret_names, size_t *ret_n)
{
    CLEANUP(json_decrefp) json_t *root = json_loads(json, 0, NULL);
    const json_t *list = json_object_get(root, "nftables"), *item;
    char **names = NULL;
    size_t n = 0, cap = 0, i;

    if (!json_is_array(list))
        return err_new(ERR_CORRUPT, "the list of nftables' tables cannot be understood");
    json_array_foreach (list, i, item) {
        const json_t *table = json_object_get(item, "table");
        if (!table || !is_our_table(table))
            continue;
        names = mem_grow(names, n, &cap, sizeof(char *));
        names[n++] = xstrdup(name_of(table));
    }
    *ret_names = names;
    *ret_n = n;
    return NULL;
}

/* ---- Docker's chain ---- */

#define CHAIN "DOCKER-USER"
#define COMMENT "--comment \"flocker " /* as iptables writes it: then the owner, and the digest of all its rules */
#define PORTS_A_RULE 15                /* more the multiport match does not take */

static size_t append_ports(struct str *s, const struct routed_set *set, size_t first)
{
    const char *address = set->ports[first].address;
    unsigned n = 0;
    size_t i;

    for (i = first; i < set->n && n < PORTS_A_RULE; i++) {
        if (streq(set->ports[i].address, address))
            str_appendf(s, "%s%u", n++ ? "," : "", set->ports[i].port);
    }
    return i;
}

static bool is_new_address(const struct routed_set *set, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (streq(set->ports[k].address, set->ports[i].address))
            return false;
    }
    return true;
}

static void append_rules(struct str *rules, const char *address, const char *ports, bool v6)
{
    const char *bits = v6 ? "128" : "32";

    str_appendf(rules, "-d %s/%s -p tcp -m multiport --dports %s -m conntrack --ctstate DNAT --ctdir ORIGINAL\n", address, bits,
                ports);
    str_appendf(rules, "-s %s/%s -p tcp -m multiport --sports %s -m conntrack --ctstate DNAT --ctdir REPLY\n", address, bits,
                ports);
}

/* One rule a line, both ways, without comment and target. */
static void render_rules(const struct routed_set *set, bool v6, struct str *rules)
{
    for (size_t i = 0; i < set->n; i++) {
        if (routed_is_v6(&set->ports[i]) != v6 || !is_new_address(set, i))
            continue;
        for (size_t next = i; next < set->n;) {
            CLEANUP_STR struct str ports = {0};
            size_t first = next;
            while (first < set->n && !streq(set->ports[first].address, set->ports[i].address))
                first++;
            if (first == set->n)
                break;
            next = append_ports(&ports, set, first);
            append_rules(rules, set->ports[i].address, ports.data, v6);
        }
    }
}

/* What the chain has: how many rules are ours (as far as `owner` says; NULL = anybody's) and up to date, and where the next
 * ones belong. */
struct chain {
    struct str removals; /* commands */
    unsigned ours, current;
    unsigned foreign;
    bool returns; /* the last foreign rule is Docker's */
};

static void read_rule(struct chain *c, const char *rule, size_t n, const char *owner, const char *digest)
{
    CLEANUP_FREE char *text = xstrndup(rule, n);
    const char *mark = strstr(text, COMMENT);
    CLEANUP_FREE char *whose = mark ? xstrndup(mark + strlen(COMMENT), UUID_TEXT_SIZE - 1) : NULL;
    struct uuid id;

    if (!whose || !uuid_parse(whose, &id) || (owner && !streq(whose, owner))) {
        c->foreign++;
        c->returns = streq(text, "-j RETURN");
        return;
    }
    CLEANUP_FREE char *full = xasprintf(COMMENT "%s %s\"", whose, digest);
    c->ours++;
    c->current += strstr(text, full) != NULL;
    str_appendf(&c->removals, "-D " CHAIN " %s\n", text);
}

static void read_chain(struct chain *c, const char *listing, const char *owner, const char *digest)
{
    static const char prefix[] = "-A " CHAIN " ";

    for (const char *line = listing; *line;) {
        size_t n = strcspn(line, "\n");
        if (n > strlen(prefix) && strncmp(line, prefix, strlen(prefix)) == 0)
            read_rule(c, line + strlen(prefix), n - strlen(prefix), owner, digest);
        line += n + (line[n] == '\n');
    }
}

static unsigned count_lines(const char *s)
{
    unsigned n = 0;

    for (; s && *s; s++)
        n += *s == '\n';
    return n;
}

char *routes_render_docker(const char *listing, const char *owner, const struct routed_set *set, bool v6)
{
    CLEANUP_STR struct str rules = {0};
    struct chain c = {0};
    char digest[17];
    struct str out = {0};

    render_rules(set, v6, &rules);
    (void)snprintf(digest, sizeof(digest), "%016" PRIx64, (uint64_t)XXH3_64bits(rules.data ? rules.data : "", rules.len));
    read_chain(&c, listing, owner, digest);
    unsigned wanted = count_lines(rules.data), place = c.foreign + (c.returns ? 0 : 1);
    if (c.ours == wanted && c.current == wanted) {
        str_done(&c.removals);
        return NULL;
    }
    str_appendf(&out, "*filter\n%s", c.removals.data ? c.removals.data : "");
    str_done(&c.removals);
    for (const char *line = rules.data; line && *line;) {
        size_t n = strcspn(line, "\n");
        str_appendf(&out, "-I " CHAIN " %u %.*s -m comment " COMMENT "%s %s\" -j ACCEPT\n", place++, (int)n, line, owner, digest);
        line += n + 1;
    }
    str_append(&out, "COMMIT\n");
    return out.data;
}

char *routes_render_docker_removal(const char *listing)
{
    struct chain c = {0};

    read_chain(&c, listing, NULL, "");
    if (!c.ours) {
        str_done(&c.removals);
        return NULL;
    }
    char *out = xasprintf("*filter\n%sCOMMIT\n", c.removals.data);
    str_done(&c.removals);
    return out;
}
