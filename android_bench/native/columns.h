/* Columns of numbers that grow on disk, not in memory: a long run must not raise the memory that it reports. */
#ifndef MVTOOL_COLUMNS_H
#define MVTOOL_COLUMNS_H

#include <stdint.h>
#include <stdio.h>

enum { COLUMN_BUFFERED = 512 };

struct column {
    int file;
    uint64_t count;
    size_t buffered;
    uint64_t buffer[COLUMN_BUFFERED];
};

/* A new file beside `result` whose name is gone at once, so that nothing stays behind however the process ends; -1
   where it cannot be made. */
int open_unnamed(const char *result, const char *purpose);

/* Opens an empty column and touches its buffer. */
void column_open(struct column *column, const char *result, const char *purpose);

void column_append(struct column *column, uint64_t value);

/* Writes `[1,2,3]`. */
void column_print(struct column *column, FILE *stream);

#endif
