/* Files of the run's folder: stored arrays that are fed in turn, and the dump of outputs. */
#ifndef MVTOOL_STORED_H
#define MVTOOL_STORED_H

#include <stddef.h>
#include <stdint.h>

struct stored {
    const char *path;
    int file;
    size_t bytes;
};

/* Opens a file of `count` arrays of `bytes`; fails where it has another size. */
void stored_open(struct stored *stored, const char *path, size_t bytes, uint64_t count);

/* Reads array number `index` right into `memory`; a mapped file would count as memory of the process. */
void stored_read(const struct stored *stored, uint64_t index, void *memory);

struct dump {
    const char *path;
    int file;
};

void dump_open(struct dump *dump, const char *path);
void dump_write(struct dump *dump, const void *memory, size_t bytes);
void dump_close(struct dump *dump);

#endif
