/* Runs a fuzz target without libFuzzer: its seeds, then seeds that were mutated in a reproducible
 * way.
 *
 *   smoke-NAME DIR ROUNDS          the seeds are the files in DIR and what fuzz_seed() makes
 *   smoke-NAME --write-seeds DIR   writes the latter */
#include "fuzz.h"

#include <dirent.h>
#include <signal.h>

#define MAX_SEED 65536u
#define MAX_FILE (1u << 20)

struct seeds {
    struct str *list;
    size_t n, cap;
};

bool fuzz_seed(unsigned i, struct str *out) __attribute__((weak));

static int write_seeds(const char *dir)
{
    for (unsigned i = 0; fuzz_seed; i++) {
        CLEANUP_STR struct str seed = {0};
        CLEANUP_FREE char *path = xasprintf("%s/seed-%u", dir, i);
        if (!fuzz_seed(i, &seed))
            return 0;
        FILE *f = fopen(path, "we");
        if (!f || fwrite(seed.data, 1, seed.len, f) != seed.len || fclose(f) != 0) {
            perror(path);
            return 1;
        }
    }
    return 0;
}

static void add(struct seeds *s, struct str *seed)
{
    s->list = mem_grow(s->list, s->n, &s->cap, sizeof(*s->list));
    s->list[s->n++] = *seed;
    *seed = (struct str){0};
}

static bool add_file(struct seeds *s, const char *path)
{
    CLEANUP_FREE char *bytes = xmalloc(MAX_FILE);
    CLEANUP_STR struct str seed = {0};
    FILE *f = fopen(path, "re");

    if (!f) {
        perror(path);
        return false;
    }
    str_append_bytes(&seed, bytes, fread(bytes, 1, MAX_FILE, f));
    (void)fclose(f);
    add(s, &seed);
    return true;
}

/* Sorted by name, so that each run is the same. */
static bool add_files(struct seeds *s, const char *dir)
{
    struct dirent **names;
    int n = scandir(dir, &names, NULL, alphasort);
    bool ok = n >= 0;

    if (n < 0)
        perror(dir);
    for (int i = 0; i < n; i++) {
        CLEANUP_FREE char *path = xasprintf("%s/%s", dir, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            ok &= add_file(s, path);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return ok;
}

/* A heap block of exactly this size, so that reading past the end is seen. */
static void feed(const char *bytes, size_t n)
{
    CLEANUP_FREE uint8_t *copy = xmalloc(n);

    if (n)
        memcpy(copy, bytes, n);
    LLVMFuzzerTestOneInput(copy, n);
}

static void mutate(struct str *s, const struct random *r)
{
    size_t changes = 1 + random_below(r, 6);

    for (size_t i = 0; i < changes && s->len; i++) {
        size_t at = random_below(r, s->len);
        switch (random_below(r, 5)) {
        case 0:
            s->data[at] = (char)random_next(r);
            break;
        case 1:
            s->data[at] = (char)(s->data[at] ^ (1 << random_below(r, 8)));
            break;
        case 2: /* cut */
            s->len = at;
            break;
        case 3: { /* take a piece out */
            size_t n = 1 + random_below(r, s->len - at);
            memmove(s->data + at, s->data + at + n, s->len - at - n);
            s->len -= n;
            break;
        }
        default: { /* repeat a piece at the end */
            size_t n = 1 + random_below(r, s->len - at);
            CLEANUP_FREE char *piece = xmemdup(s->data + at, n);
            if (s->len + n <= MAX_SEED)
                str_append_bytes(s, piece, n);
            break;
        }
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t state = 20261122;
    struct random r = random_seeded(&state);
    struct seeds seeds = {0};

    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && streq(argv[1], "--write-seeds"))
        return write_seeds(argv[2]);
    if (argc != 3 || !add_files(&seeds, argv[1]))
        return 2;
    for (unsigned i = 0; fuzz_seed; i++) {
        CLEANUP_STR struct str seed = {0};
        if (!fuzz_seed(i, &seed))
            break;
        add(&seeds, &seed);
    }
    unsigned long rounds = strtoul(argv[2], NULL, 10);
    for (size_t i = 0; i < seeds.n; i++)
        feed(seeds.list[i].data, seeds.list[i].len);
    feed("", 0);
    for (unsigned long i = 0; seeds.n && i < rounds; i++) {
        CLEANUP_STR struct str s = {0};
        const struct str *seed = &seeds.list[random_below(&r, seeds.n)];
        str_append_bytes(&s, seed->data, seed->len);
        mutate(&s, &r);
        feed(s.data, s.len);
    }
    printf("%zu seeds and %lu mutations survived\n", seeds.n, rounds);
    for (size_t i = 0; i < seeds.n; i++)
        str_done(&seeds.list[i]);
    free(seeds.list);
    return seeds.n ? 0 : 1;
}
