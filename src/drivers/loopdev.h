/* Loop devices, by ioctl. They belong to the whole machine: other hosts of a lab, containers and
 * people use them too, so a device is told by its backing file (device and inode), never by name or
 * path, and one whose file is not ours is never touched. All block; thread-safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>

/* The device bound to this file; *ret_path NULL: none. The caller frees it. */
struct err *loopdev_find(dev_t dev, ino_t ino, char **ret_path) MUST_USE;
/* Binds a free device to the file. `autoclear`: it is unbound when its last user closes it, so keep
 * *ret_fd open until it is mounted. Direct I/O when the file can do it. The caller frees the path
 * and closes the descriptor. */
struct err *loopdev_bind(int file, const char *name, bool autoclear, char **ret_path,
                         int *ret_fd) MUST_USE;
/* The file has become larger: so does the device. */
struct err *loopdev_resize(const char *path, dev_t dev, ino_t ino) MUST_USE;
/* Unbinds the device if it is bound to this file, and waits until it is. ERR_BUSY: somebody has it
 * open. */
struct err *loopdev_unbind(const char *path, dev_t dev, ino_t ino) MUST_USE;
