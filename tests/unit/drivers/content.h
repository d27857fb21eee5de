/* Trees with one of everything, and what a tree holds as text. */
#pragma once

/* Fills the folder, which is on btrfs, with every kind of file, attribute and extent; needs root. */
void content_make(const char *dir);
/* A few of them, for streams of few commands. */
void content_make_small(const char *dir);
/* Changes, moves, links, clones and removes some of it; `lap` makes each time different. */
void content_change(const char *dir, int lap);
/* A line for each thing below the folder: name, kind, mode, owner, time, device, links, attributes, a hash of the bytes. The
 * caller frees it. */
char *content_list(const char *dir);
/* Fails with the first line that differs. */
void content_same(const char *got, const char *want, const char *when);
