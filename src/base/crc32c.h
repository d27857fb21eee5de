/* CRC-32C (Castagnoli), without inversion before and after: as the Linux kernel has it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Goes on from `crc` (0 at the beginning). Pure; thread-safe; by the processor's own instruction where it has one. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t n);
/* The same by tables, on any processor. */
uint32_t crc32c_tables(uint32_t crc, const void *bytes, size_t n);
