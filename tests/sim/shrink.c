/* Finds a shorter run that fails in the same way: fewer datasets and nodes, an earlier end, and without the faults and
 * commands that it does not need. No randomness: the same seed always shrinks to the same run. */
#include "sim.h"

struct shrinking {
    struct sim_options options;
    bool faults[MAX_INJECTED], commands[MAX_INJECTED]; /* left out */
    enum violation wanted;
    struct sim_result result; /* of the shortest run so far */
    unsigned tries;
};

static bool still_fails(struct shrinking *k)
{
    struct sim_result *r = xcalloc(1, sizeof(*r));

    k->tries++;
    sim_run(&k->options, r);
    bool fails = r->violation == k->wanted;
    if (fails)
        k->result = *r;
    free(r);
    return fails;
}

static void try_unsigned(struct shrinking *k, unsigned *value, unsigned low, unsigned high)
{
    for (unsigned v = low; v < high; v++) {
        unsigned old = *value;
        *value = v;
        if (still_fails(k))
            return;
        *value = old;
    }
}

/* Leaves out runs of them, long ones first. */
static void leave_out(struct shrinking *k, bool *out, const unsigned *n)
{
    for (unsigned size = *n ? *n : 1; size; size /= 2) {
        for (unsigned at = 0; at < *n; at += size) {
            bool old[MAX_INJECTED];
            unsigned news = 0;
            memcpy(old, out, sizeof(old));
            for (unsigned i = at; i < at + size && i < *n; i++) {
                news += !out[i];
                out[i] = true;
            }
            if (news && !still_fails(k))
                memcpy(out, old, sizeof(old));
        }
    }
}

static void print_numbers(const char *option, const bool *out, unsigned n)
{
    const char *separator = option;

    for (unsigned i = 0; i < n; i++) {
        unsigned last = i;
        if (!out[i])
            continue;
        while (last + 1 < n && out[last + 1])
            last++;
        if (last > i)
            printf("%s%u-%u", separator, i, last);
        else
            printf("%s%u", separator, i);
        separator = ",";
        i = last;
    }
}

static unsigned left(const bool *out, unsigned n)
{
    unsigned count = 0;

    for (unsigned i = 0; i < n; i++)
        count += !out[i];
    return count;
}

static int nothing_fails(const struct shrinking *k)
{
    printf("seed %llu does not fail\n", (unsigned long long)k->options.seed);
    fflush(stdout);
    printf("1 seeds, 0 violations\n");
    return 0;
}

int sim_shrink(const struct sim_options *options)
{
    struct shrinking *k = xcalloc(1, sizeof(*k));

    k->options = *options;
    memcpy(k->faults, options->skip_faults, sizeof(k->faults));
    memcpy(k->commands, options->skip_commands, sizeof(k->commands));
    k->options.skip_faults = k->faults;
    k->options.skip_commands = k->commands;
    k->options.trace = false;
    sim_run(&k->options, &k->result);
    k->wanted = k->result.violation;
    if (!k->wanted) {
        int status = nothing_fails(k);
        free(k);
        return status;
    }
    for (;;) { /* again, as long as it gets shorter */
        unsigned size = left(k->faults, k->result.faults) + left(k->commands, k->result.commands);
        try_unsigned(k, &k->options.datasets, 1, k->result.datasets);
        try_unsigned(k, &k->options.nodes, 1, k->result.nodes);
        for (uint64_t us = USEC_PER_SEC; us < k->result.end_faults_us; us *= 2) {
            uint64_t old = k->options.until_us;
            k->options.until_us = us;
            if (still_fails(k))
                break;
            k->options.until_us = old;
        }
        leave_out(k, k->faults, &k->result.faults);
        leave_out(k, k->commands, &k->result.commands);
        if (left(k->faults, k->result.faults) + left(k->commands, k->result.commands) >= size)
            break;
    }
    struct sim_result *r = &k->result;
    printf("seed %llu at %.6f s: %s: %s\n", (unsigned long long)k->options.seed,
           (double)r->at_us / USEC_PER_SEC, violation_name(r->violation), r->why);
    printf(
        "%u tries; left: %u nodes, %u datasets, %u faults, %u commands, %llu events. See it with\n",
        k->tries, r->nodes, r->datasets, left(k->faults, r->faults), left(k->commands, r->commands),
        (unsigned long long)r->events);
    printf("  flocker-sim --seed %llu --trace", (unsigned long long)k->options.seed);
    if (k->options.nodes)
        printf(" --nodes %u", k->options.nodes);
    if (k->options.datasets)
        printf(" --datasets %u", k->options.datasets);
    if (k->options.until_us)
        printf(" --until %llu", (unsigned long long)(k->options.until_us / USEC_PER_SEC));
    if (k->options.restores)
        printf(" --restores");
    print_numbers(" --skip-faults ", k->faults, r->faults);
    print_numbers(" --skip-commands ", k->commands, r->commands);
    printf("\n");
    fflush(stdout);
    printf("1 seeds, 1 violations\n");
    free(k);
    return 1;
}
