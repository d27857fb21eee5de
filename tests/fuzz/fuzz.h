/* What each fuzz target offers to its two drivers, libFuzzer and fuzz_smoke.c. */
#pragma once

#include "base/err.h"
#include "base/random.h"
#include "base/str.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Feeds one input; aborts when a rule is broken. Returns 0, or -1 when the input is not worth keeping. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Optional: appends the i-th valid input to `out`; false when there are no more. For seeds that our own encoders make,
 * so that they grow with the protocol; others are files in corpus/. */
bool fuzz_seed(unsigned i, struct str *out);

#define RULE(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: broken rule: %s\n", __FILE__, __LINE__, #condition);     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* For cutting a stream in pieces: the same cuts for the same input. */
static inline uint64_t fuzz_hash(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* Length of the next piece of `left` > 0 bytes: mostly short, sometimes long. */
static inline size_t fuzz_piece(const struct random *r, size_t left)
{
    size_t n = 1 + random_below(r, random_below(r, 4) ? 8 : 600);

    return n < left ? n : left;
}

/* The bytes as a NUL-terminated text; what follows a NUL is not seen. The caller frees it. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    return xstrndup((const char *)data, size);
}

/* Was it refused, as an error of this kind with a text? */
static inline bool fuzz_refused(struct err *e, enum err_code code)
{
    if (!e)
        return false;
    RULE(err_is(e, code) && *e->text);
    err_free(e);
    return true;
}

/* One of the things that a target feeds; it gets what follows the letter as bytes, or as a text. */
struct fuzz_choice {
    char letter;
    void (*bytes)(const char *bytes, size_t n);
    void (*text)(const char *text);
};

/* Lets the first byte choose. Returns what LLVMFuzzerTestOneInput() has to. */
static inline int fuzz_choose(const struct fuzz_choice *choices, size_t n, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < n && size; i++) {
        if ((uint8_t)choices[i].letter != data[0])
            continue;
        if (choices[i].bytes) {
            choices[i].bytes((const char *)data + 1, size - 1);
            return 0;
        }
        CLEANUP_FREE char *text = fuzz_text(data + 1, size - 1);
        choices[i].text(text);
        return 0;
    }
    return -1;
}
