#include "bandwidth.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "failure.h"

enum { COPIES = 8 };

static const unsigned long long LEAST_BYTES = 1 << 12, MOST_BYTES = 1ULL << 32;

static size_t size_of(const char *text) {
    char *end = NULL;
    errno = 0;
    unsigned long long bytes = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || bytes < LEAST_BYTES || bytes > MOST_BYTES) {
        fail(EXIT_USAGE, "--bandwidth takes a number of bytes from 4096 to 4294967296, got '%.80s'", text);
    }
    return (size_t)bytes;
}

int bandwidth_print(const char *text) {
    size_t bytes = size_of(text);
    unsigned char *from = allocate(bytes, 1), *to = allocate(bytes, 1);
    /* Untouched pages of a process are one and the same page of zeros. */
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    uint64_t best = UINT64_MAX;
    unsigned sum = 0;
    for (int copy = 0; copy < COPIES; copy++) {
        from[copy] = (unsigned char)copy;
        uint64_t begin = now_ns();
        memcpy(to, from, bytes);
        uint64_t took = now_ns() - begin;
        /* What nobody reads a compiler need not copy. */
        sum += to[(size_t)copy * (bytes / COPIES)];
        if (took > 0 && took < best) best = took;
    }
    double rate = 2.0 * (double)bytes / ((double)best * 1e-9);
    printf("{\"bytes_per_second\":%.0f,\"bytes\":%zu,\"copies\":%d,\"sum\":%u}\n", rate, bytes, COPIES, sum);
    free(from);
    free(to);
    return fflush(stdout) == 0 ? 0 : EXIT_IO;
}
