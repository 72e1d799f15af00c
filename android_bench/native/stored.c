#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pread */
#endif
#include "stored.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failure.h"

void stored_open(struct stored *stored, const char *path, size_t bytes, uint64_t count) {
    *stored = (struct stored){.path = path, .file = open(path, O_RDONLY | O_CLOEXEC), .bytes = bytes};
    if (stored->file < 0) fail(EXIT_IO, "%s cannot be opened: %s", path, strerror(errno));
    struct stat facts;
    if (fstat(stored->file, &facts) != 0) fail(EXIT_IO, "%s cannot be read: %s", path, strerror(errno));
    /* The product may not fit into 64 bits. */
    if (facts.st_size < 0 || (uint64_t)facts.st_size / bytes != count || (uint64_t)facts.st_size % bytes) {
        fail(EXIT_IO, "%s has %lld bytes, the plan says %" PRIu64 " times %zu", path, (long long)facts.st_size, count,
             bytes);
    }
}

void stored_read(const struct stored *stored, uint64_t index, void *memory) {
    char *to = memory;
    size_t left = stored->bytes;
    off_t at = (off_t)(index * stored->bytes);
    while (left > 0) {
        ssize_t got = pread(stored->file, to, left, at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(EXIT_IO, "%s cannot be read: %s", stored->path, strerror(errno));
        if (got == 0) fail(EXIT_IO, "%s has become shorter", stored->path);
        to += got;
        at += got;
        left -= (size_t)got;
    }
}

void dump_open(struct dump *dump, const char *path) {
    *dump = (struct dump){.path = path, .file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
    if (dump->file < 0) fail(EXIT_IO, "%s cannot be written: %s", path, strerror(errno));
}

void dump_write(struct dump *dump, const void *memory, size_t bytes) {
    const char *from = memory;
    while (bytes > 0) {
        ssize_t written = write(dump->file, from, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail(EXIT_IO, "%s cannot be written: %s", dump->path, strerror(errno));
        from += written;
        bytes -= (size_t)written;
    }
}

void dump_close(struct dump *dump) {
    if (close(dump->file) != 0) fail(EXIT_IO, "%s cannot be written: %s", dump->path, strerror(errno));
}
