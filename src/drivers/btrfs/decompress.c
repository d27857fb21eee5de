#include "drivers/btrfs/decompress.h"

#include <linux/btrfs.h>
#include <zlib.h>
#include <zstd.h>

/* Both end at the end of the output, of the data, or of what can be understood: the disk has padding behind the data. */
static struct err *from_zlib(const uint8_t *from, size_t n_from, uint8_t *to, size_t n_to, size_t *ret_n)
{
    z_stream z = {.avail_in = (uInt)n_from, .next_out = to, .avail_out = (uInt)n_to};

    z.next_in = (z_const Bytef *)(uintptr_t)from;
    if (inflateInit(&z) != Z_OK)
        mem_exhausted();
    int rc = inflate(&z, Z_FINISH);

    *ret_n = n_to - z.avail_out;
    (void)inflateEnd(&z);
    if (rc == Z_MEM_ERROR)
        mem_exhausted();
    return rc == Z_STREAM_END || (rc == Z_BUF_ERROR && !z.avail_out)
               ? NULL
               : err_new(ERR_CORRUPT, "the stream has zlib data that are damaged");
}

static struct err *from_zstd(const uint8_t *from, size_t n_from, uint8_t *to, size_t n_to, size_t *ret_n)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    ZSTD_inBuffer in = {from, n_from, 0};
    ZSTD_outBuffer out = {to, n_to, 0};
    size_t rc = 1;

    if (!z)
        mem_exhausted();
    /* btrfs itself uses at most this. It bounds the memory. */
    (void)ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, 17);
    while (rc && !ZSTD_isError(rc) && out.pos < out.size) {
        size_t before = in.pos + out.pos;

        rc = ZSTD_decompressStream(z, &out, &in);
        if (in.pos + out.pos == before)
            break;
    }
    ZSTD_freeDStream(z);
    *ret_n = out.pos;
    return rc == 0 || (!ZSTD_isError(rc) && out.pos == out.size)
               ? NULL
               : err_new(ERR_CORRUPT, "the stream has zstd data that are damaged");
}

struct err *decompress(uint32_t compression, const uint8_t *from, size_t n_from, uint8_t *to, size_t n_to)
{
    size_t n = 0;

    if (compression == BTRFS_ENCODED_IO_COMPRESSION_ZLIB)
        TRY(from_zlib(from, n_from, to, n_to, &n));
    else if (compression == BTRFS_ENCODED_IO_COMPRESSION_ZSTD)
        TRY(from_zstd(from, n_from, to, n_to, &n));
    else
        return err_new(ERR_UNSUPPORTED,
                       "the stream has LZO data, and the kernel here did not take them as they are: give this pool the "
                       "sector size of the sender's, or recompress the volume there with zstd");
    memset(to + n, 0, n_to - n);
    return NULL;
}
