/* A sum over the content of a folder that nobody changes, to compare copies of it. */
#pragma once

#include "base/err.h"
#include "drivers/storage.h"

#include <stdatomic.h>

/* Covers, in the order of the names' bytes: names, types, modes, owners, times of change of the
 * data, extended attributes, contents (holes are zeros), targets of symbolic links, numbers of
 * devices, and which names are links to one file. Not: inode numbers, other times, how the bytes
 * lie on the disk. XXH3, 128 bits: against chance and defects, not against malice; the nodes trust
 * each other's word here anyway. Stays on the folder's file system. Blocks; thread-safe. */
struct err *digest_tree(int root, const atomic_bool *cancel, char ret_digest[STORAGE_DIGEST_SIZE]) MUST_USE;
