/* Runs a fuzz target without libFuzzer: its seeds, then seeds that were mutated in a reproducible
 * way.
 *
 *   smoke-NAME [ROUNDS]            default 4000
 *   smoke-NAME --write-seeds DIR   a corpus to start libFuzzer with */
#include "fuzz.h"

#include "base/random.h"

#include <signal.h>
#include <stdio.h>

#define DEFAULT_ROUNDS 4000ul
#define MAX_INPUT 65536u

static int write_seeds(const char *dir)
{
    for (unsigned i = 0;; i++) {
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
            if (s->len + n <= MAX_INPUT)
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
    unsigned seeds = 0;

    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && streq(argv[1], "--write-seeds"))
        return write_seeds(argv[2]);
    unsigned long rounds = argc == 2 ? strtoul(argv[1], NULL, 10) : DEFAULT_ROUNDS;
    for (;; seeds++) {
        CLEANUP_STR struct str seed = {0};
        if (!fuzz_seed(seeds, &seed))
            break;
        feed(seed.data, seed.len);
    }
    feed("", 0);
    for (unsigned long i = 0; i < rounds; i++) {
        CLEANUP_STR struct str s = {0};
        fuzz_seed((unsigned)random_below(&r, seeds), &s);
        mutate(&s, &r);
        feed(s.data, s.len);
    }
    printf("%u seeds and %lu mutations survived\n", seeds, rounds);
    return seeds ? 0 : 1;
}
