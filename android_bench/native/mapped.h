/* A file mapped for reading, whose pages are given back when they are no longer needed. */
#ifndef MVTOOL_MAPPED_H
#define MVTOOL_MAPPED_H

#include <stddef.h>

struct mapped {
    void *memory;
    size_t bytes;
};

/* Maps a whole file, or fails. It stays mapped as long as the process. */
struct mapped mapped_open(const char *path);

/* Lets go of the pages in memory. What is read afterwards comes back from the file, page by page. */
void mapped_release(const struct mapped *mapped);

#endif
