/* What nft and iptables print, as the routes read it. Input: a letter, then the text.
 * 'n': a table of ours, as JSON. 't': the list of tables. 'd': the rules of DOCKER-USER. */
#include "fuzz.h"

#include "base/mem.h"
#include "base/str.h"
#include "engines/routes.h"

#include <string.h>

#define OWNER "3f0c9c1e-6f0a-4bb0-9f0e-8a9b2c6d7e51"

static void table(const char *text)
{
    CLEANUP(routed_set_done) struct routed_set set = {0};
    bool whole;
    CLEANUP_ERR struct err *e = routes_parse(text, &set, &whole);

    if (e)
        return;
    for (size_t i = 0; i < set.n; i++) {
        RULE(set.ports[i].port > 0 && strlen(set.ports[i].address) < INET6_ADDRSTRLEN);
        RULE(!i || set.ports[i - 1].port <= set.ports[i].port);
        RULE(routed_set_find(&set, set.ports[i].port));
    }
    for (size_t i = 0; i < set.guarded.n; i++)
        RULE(interface_is_plain(set.guarded.names[i]));
    RULE(routed_set_same(&set, &set));
    CLEANUP_FREE char *commands = routes_render("flocker-x", &set);
    for (size_t i = 0; i < set.n; i++) /* nothing that could be another command */
        RULE(strspn(set.ports[i].address, "0123456789abcdefABCDEF:.") == strlen(set.ports[i].address));
}

static void tables(const char *text)
{
    char **names;
    size_t n;
    CLEANUP_ERR struct err *e = routes_parse_tables(text, &names, &n);

    for (size_t i = 0; !e && i < n; i++) {
        RULE(strspn(names[i], "flocker-0123456789abcdefABCDEF") == strlen(names[i]));
        free(names[i]);
    }
    if (!e)
        free(names);
}

static unsigned lines(const char *text, const char *start)
{
    unsigned n = 0;

    for (const char *l = text; l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : "")
        n += strncmp(l, start, strlen(start)) == 0;
    return n;
}

/* Only rules that bear our mark are ever taken away, and as many as there should be are added. */
static void docker(const char *text)
{
    CLEANUP(routed_set_done) struct routed_set set = {0};

    routed_set_add(&set, 80, "10.0.0.2");
    CLEANUP_FREE char *input = routes_render_docker(text, OWNER, &set, false);
    CLEANUP_FREE char *removal = routes_render_docker_removal(text);
    RULE(!input || lines(input, "-I DOCKER-USER ") == 2);
    for (const char *l = input; l && (l = strstr(l, "\n-D DOCKER-USER ")); l++) {
        CLEANUP_FREE char *line = xstrndup(l + 1, strcspn(l + 1, "\n"));
        RULE(strstr(line, "--comment \"flocker " OWNER));
    }
    RULE(!removal || lines(removal, "-I DOCKER-USER ") == 0);
    RULE(!removal || lines(removal, "-D DOCKER-USER ") <= lines(text, "-A DOCKER-USER "));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_choice choices[] = {{'n', .text = table}, {'t', .text = tables}, {'d', .text = docker}};

    return fuzz_choose(choices, ARRAY_SIZE(choices), data, size);
}
