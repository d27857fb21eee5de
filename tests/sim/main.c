/* flocker-sim: runs simulated clusters, many seeds at once, and shows what went wrong. */
#include "sim.h"

#include "base/str.h"
#include "core/fault.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 50 /* seeds that one process runs at a time */
#define MAX_VIOLATIONS 10
#define MAX_JOBS 256

static const char usage[] =
    "usage: flocker-sim [--seeds N] [--first S] [--jobs J] [...]     run N clusters (default "
    "1000)\n"
    "       flocker-sim --seed S [--trace] [...]                     run one, event by event\n"
    "       flocker-sim --shrink S [...]                             find a shorter run that fails "
    "like S\n"
    "\n"
    "  --nodes N          so many nodes (1 to 8) instead of a number that the seed chooses\n"
    "  --datasets N       so many datasets (1 to 4)\n"
    "  --until SECONDS    faults and commands stop at this virtual time; then the cluster has 150 "
    "s to settle\n"
    "  --restores         the store may be lost and put back in every run, not only in one of 12\n"
    "  --skip-faults A,B  leave these faults out, by their numbers; A-B names a range\n"
    "  --skip-commands A,B\n"
    "  --jobs J           processes; default: one a processor\n"
    "  --stop             stop at the first violation (default: at the tenth)\n"
    "  --fault NAME       build in one deliberate mistake (flocker-sim-faulty only); 'list' names "
    "them\n"
    "\n"
    "The last line says how many seeds were run and how many violated an invariant; exit status 1 "
    "when any did.\n";

struct totals {
    uint64_t seeds, violations, events, moves, writes;
};

static bool skip_faults[MAX_INJECTED], skip_commands[MAX_INJECTED];

#ifdef FLOCKER_FAULTS
enum core_fault core_fault;

static bool set_fault(const char *name)
{
#define CORE_FAULT_NAME(fault) #fault,
    static const char *const names[] = {CORE_FAULTS(CORE_FAULT_NAME)};

    for (unsigned i = 0; i < FAULT_MAX; i++) {
        if (streq(names[i], name)) {
            core_fault = (enum core_fault)i;
            return true;
        }
    }
    for (unsigned i = 1; i < FAULT_MAX; i++)
        printf("%s\n", names[i]);
    return false;
}
#else
static bool set_fault(const char *name)
{
    fprintf(stderr, "--fault %s: this build has no faults; use flocker-sim-faulty\n", name);
    return false;
}
#endif

/* ---- one seed ---- */

static void print_violation(FILE *out, const struct sim_options *o, const struct sim_result *r)
{
    fprintf(out, "seed %llu at %.6f s: %s: %s\n", (unsigned long long)o->seed,
            (double)r->at_us / USEC_PER_SEC, violation_name(r->violation), r->why);
}

/* Runs it again to see its last events; a second run that differs is a violation of its own. */
static void explain(FILE *out, const struct sim_options *options, const struct sim_result *first)
{
    struct sim_options o = *options;
    struct sim_result *again = xcalloc(1, sizeof(*again));

    o.remember = true;
    o.trace = false;
    sim_run(&o, again);
    unsigned n = again->n_last < LAST_LINES ? again->n_last : LAST_LINES;
    for (unsigned i = again->n_last - n; i < again->n_last; i++)
        fprintf(out, "    %s\n", again->last[i % LAST_LINES]);
    if (again->violation != first->violation || again->at_us != first->at_us)
        fprintf(out, "    this seed does not replay exactly: the simulator is at fault\n");
    free(again);
}

static bool run_seed(const struct sim_options *options, struct totals *t, FILE *out)
{
    struct sim_result *r = xcalloc(1, sizeof(*r));

    sim_run(options, r);
    bool failed = r->violation != V_NONE;
    t->seeds++;
    t->events += r->events;
    t->moves += r->moves;
    t->writes += r->writes;
    t->violations += failed;
    if (failed) {
        print_violation(out, options, r);
        if (!options->trace)
            explain(out, options, r);
    }
    free(r);
    return !failed;
}

/* ---- many seeds: blocks of them go round a few processes; answers are printed in their order ---- */

struct job {
    pid_t pid;
    FILE *from;
};

/* A block's answer: the totals, the length of the text, the text. */
static void work(const struct sim_options *options, uint64_t first, uint64_t seeds, uint64_t most,
                 unsigned job, unsigned jobs, FILE *to)
{
    for (uint64_t b = job; b * BLOCK < seeds; b += jobs) {
        struct totals t = {0};
        char *text = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&text, &len);
        uint64_t end = (b + 1) * BLOCK < seeds ? (b + 1) * BLOCK : seeds;
        struct sim_options o = *options;
        for (uint64_t i = b * BLOCK; i < end && t.violations < most; i++) {
            o.seed = first + i;
            run_seed(&o, &t, out);
        }
        if (fclose(out) != 0 || fwrite(&t, sizeof(t), 1, to) != 1 ||
            fwrite(&len, sizeof(len), 1, to) != 1 || fwrite(text, 1, len, to) != len ||
            fflush(to) != 0)
            _exit(2); /* nobody listens any more */
        free(text);
    }
}

static bool start_job(struct job *job, const struct sim_options *options, uint64_t first,
                      uint64_t seeds, uint64_t most, unsigned index, unsigned jobs)
{
    int fds[2];

    fflush(stdout);
    if (pipe(fds) != 0)
        return false;
    job->pid = fork();
    if (job->pid == 0) {
        close(fds[0]);
        FILE *to = fdopen(fds[1], "w");
        work(options, first, seeds, most, index, jobs, to);
        fclose(to);
        exit(0);
    }
    close(fds[1]);
    job->from = fdopen(fds[0], "r");
    return job->pid > 0 && job->from;
}

static bool take_block(struct job *job, struct totals *sum)
{
    struct totals t;
    size_t len;

    if (fread(&t, sizeof(t), 1, job->from) != 1 || fread(&len, sizeof(len), 1, job->from) != 1)
        return false;
    char *text = xmalloc(len + 1);
    bool whole = fread(text, 1, len, job->from) == len;
    fwrite(text, 1, len, stdout);
    free(text);
    sum->seeds += t.seeds;
    sum->violations += t.violations;
    sum->events += t.events;
    sum->moves += t.moves;
    sum->writes += t.writes;
    return whole;
}

static bool run_many(const struct sim_options *options, uint64_t first, uint64_t seeds,
                     uint64_t most, unsigned jobs, struct totals *sum)
{
    struct job job[MAX_JOBS] = {0};
    bool well = true;

    for (unsigned i = 0; i < jobs; i++)
        well = well && start_job(&job[i], options, first, seeds, most, i, jobs);
    for (uint64_t b = 0; well && b * BLOCK < seeds && sum->violations < most; b++) {
        if (!take_block(&job[b % jobs], sum)) {
            printf("the process for seeds %llu to %llu died\n",
                   (unsigned long long)(first + b * BLOCK),
                   (unsigned long long)(first + (b + 1) * BLOCK - 1));
            sum->violations++;
            well = false;
        }
    }
    for (unsigned i = 0; i < jobs; i++) {
        if (job[i].pid > 0 && (!well || sum->violations >= most))
            kill(job[i].pid, SIGKILL);
        if (job[i].from)
            fclose(job[i].from);
        if (job[i].pid > 0)
            waitpid(job[i].pid, NULL, 0);
    }
    return well;
}

/* ---- arguments ---- */

static bool number(const char *text, uint64_t low, uint64_t high, uint64_t *ret)
{
    char *end;

    *ret = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && !*end && *ret >= low && *ret <= high;
}

static bool numbers(const char *text, bool *set)
{
    while (*text) {
        char *end;
        unsigned long a = strtoul(text, &end, 10), b = a;
        if (end == text)
            return false;
        if (*end == '-')
            b = strtoul(end + 1, &end, 10);
        for (unsigned long i = a; i <= b && i < MAX_INJECTED; i++)
            set[i] = true;
        if (*end && *end != ',')
            return false;
        text = *end ? end + 1 : end;
    }
    return true;
}

struct arguments {
    struct sim_options options;
    uint64_t seeds, first, jobs, most;
    bool one, shrink;
};

static bool set_argument(struct arguments *a, const char *name, const char *value)
{
    uint64_t n = 0;
    bool well = true;

    if (streq(name, "--seeds"))
        well = number(value, 1, UINT64_MAX, &a->seeds);
    else if (streq(name, "--first"))
        well = number(value, 0, UINT64_MAX, &a->first);
    else if (streq(name, "--jobs"))
        well = number(value, 1, MAX_JOBS, &a->jobs);
    else if (streq(name, "--seed") || streq(name, "--shrink"))
        well = number(value, 0, UINT64_MAX, &a->options.seed);
    else if (streq(name, "--nodes") && (well = number(value, 1, MAX_NODES, &n)))
        a->options.nodes = (unsigned)n;
    else if (streq(name, "--datasets") && (well = number(value, 1, MAX_DATASETS, &n)))
        a->options.datasets = (unsigned)n;
    else if (streq(name, "--until") && (well = number(value, 1, 86400, &n)))
        a->options.until_us = n * USEC_PER_SEC;
    else if (streq(name, "--skip-faults"))
        well = numbers(value, skip_faults);
    else if (streq(name, "--skip-commands"))
        well = numbers(value, skip_commands);
    else if (streq(name, "--fault"))
        return set_fault(value);
    else
        well =
            well && (streq(name, "--nodes") || streq(name, "--datasets") || streq(name, "--until"));
    a->one = a->one || streq(name, "--seed");
    a->shrink = a->shrink || streq(name, "--shrink");
    if (!well)
        fprintf(stderr, "flocker-sim: %s %s is not understood\n%s", name, value, usage);
    return well;
}

static bool parse(struct arguments *a, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (streq(argv[i], "--trace"))
            a->options.trace = true;
        else if (streq(argv[i], "--restores"))
            a->options.restores = true;
        else if (streq(argv[i], "--stop"))
            a->most = 1;
        else if (i + 1 >= argc) {
            fputs(usage, stderr);
            return false;
        } else if (!set_argument(a, argv[i], argv[i + 1])) {
            return false;
        } else {
            i++;
        }
    }
    return true;
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    struct arguments a = {.seeds = 1000,
                          .first = 1,
                          .most = MAX_VIOLATIONS,
                          .jobs = processors < 1          ? 1
                                  : processors > MAX_JOBS ? MAX_JOBS
                                                          : (uint64_t)processors};
    struct totals sum = {0};

    if (argc == 2 && streq(argv[1], "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(&a, argc, argv))
        return 2;
    a.options.skip_faults = skip_faults;
    a.options.skip_commands = skip_commands;
    if (a.shrink)
        return sim_shrink(&a.options);
    double began = seconds();
    bool well = true;
    if (a.one)
        run_seed(&a.options, &sum, stdout);
    else
        well = run_many(&a.options, a.first, a.seeds, a.most, (unsigned)a.jobs, &sum);
    double took = seconds() - began;
    printf("%llu events, %llu moves asked for, %llu writes; %.0f seeds per second\n",
           (unsigned long long)sum.events, (unsigned long long)sum.moves,
           (unsigned long long)sum.writes, took > 0 ? (double)sum.seeds / took : 0);
    fflush(stdout);
    printf("%llu seeds, %llu violations\n", (unsigned long long)sum.seeds,
           (unsigned long long)sum.violations);
    return well && !sum.violations ? 0 : 1;
}
