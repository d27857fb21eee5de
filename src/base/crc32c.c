#include "base/crc32c.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#define POLYNOMIAL 0x82f63b78u

/* tables[k][b]: what byte b does to the sum when k more bytes follow. */
static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;

        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        tables[0][b] = crc;
    }
    for (size_t k = 1; k < 8; k++) {
        for (size_t b = 0; b < 256; b++)
            tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 255];
    }
}

static uint64_t load(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

uint32_t crc32c_tables(uint32_t crc, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;

    (void)pthread_once(&tables_once, make_tables);
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v = load(p) ^ crc;

        crc = 0;
        for (unsigned k = 0; k < 8; k++)
            crc ^= tables[7 - k][v >> 8 * k & 255];
    }
    while (n--)
        crc = crc >> 8 ^ tables[0][(crc ^ *p++) & 255];
    return crc;
}

#if defined(__x86_64__)
/* The instruction gives its result after three cycles but can begin each cycle: three parts of this size side by side. */
#define PART 2048u

/* shift[k][b]: what b << 8 * k becomes when PART zeros follow. */
static uint32_t shift[4][256];
static pthread_once_t shift_once = PTHREAD_ONCE_INIT;

static void make_shift(void)
{
    static const uint8_t zeros[PART];

    for (unsigned k = 0; k < 4; k++) {
        for (uint32_t b = 0; b < 256; b++)
            shift[k][b] = crc32c_tables(b << 8 * k, zeros, PART);
    }
}

static uint32_t over_zeros(uint32_t crc)
{
    return shift[0][crc & 255] ^ shift[1][crc >> 8 & 255] ^ shift[2][crc >> 16 & 255] ^ shift[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t three_parts(uint32_t crc, const uint8_t *p)
{
    uint64_t a = crc, b = 0, c = 0;

    for (size_t i = 0; i < PART; i += 8) {
        a = _mm_crc32_u64(a, load(p + i));
        b = _mm_crc32_u64(b, load(p + PART + i));
        c = _mm_crc32_u64(c, load(p + 2 * PART + i));
    }
    return over_zeros(over_zeros((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse(uint32_t crc, const uint8_t *p, size_t n)
{
    if (n >= 3 * PART)
        (void)pthread_once(&shift_once, make_shift);
    for (; n >= 3 * PART; p += 3 * PART, n -= 3 * PART)
        crc = three_parts(crc, p);
    uint64_t sum = crc;

    for (; n >= 8; p += 8, n -= 8)
        sum = _mm_crc32_u64(sum, load(p));
    crc = (uint32_t)sum;
    while (n--)
        crc = _mm_crc32_u8(crc, *p++);
    return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse(crc, bytes, n);
#endif
    return crc32c_tables(crc, bytes, n);
}
