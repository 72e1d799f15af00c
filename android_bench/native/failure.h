/* How a runner ends early: a message on standard error, an exit status, and no result file. */
#ifndef MVTOOL_FAILURE_H
#define MVTOOL_FAILURE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum exit_status {
    EXIT_USAGE = 64,   /* command line or plan */
    EXIT_LIBRARY = 65, /* runtime library */
    EXIT_MODEL = 66,   /* artifact, or ports that are not those of the plan */
    EXIT_RUN = 67,     /* invoking, affinity, clock */
    EXIT_IO = 68       /* reading or writing a file */
};

/* Prints `format`, deletes the unfinished result and exits. */
__attribute__((noreturn, format(printf, 2, 3))) void fail(enum exit_status status, const char *format, ...);

/* Names the unfinished file that `fail` deletes; NULL for none. The string must outlive the process. */
void fail_deletes(const char *path);

/* Allocates zeroed memory or fails. */
void *allocate(size_t count, size_t size);

#ifdef __cplusplus
}
#endif
#endif
