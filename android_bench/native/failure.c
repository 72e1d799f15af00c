#include "failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "native_log.h"

static const char *unfinished;

void fail_deletes(const char *path) {
    unfinished = path;
}

void fail(enum exit_status status, const char *format, ...) {
    native_log_stop();
    va_list arguments;
    va_start(arguments, format);
    fputs("mvtool runner: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    fflush(stderr);
    if (unfinished != NULL) unlink(unfinished);
    /* Destructors of a runtime that is in the middle of something may hang or crash. */
    _exit(status);
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (memory == NULL) fail(EXIT_RUN, "there is no memory for %zu elements of %zu bytes", count, size);
    return memory;
}
