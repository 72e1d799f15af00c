#include "columns.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "failure.h"

enum { LONGEST_PATH = 4096 };

int open_unnamed(const char *result, const char *purpose) {
    char path[LONGEST_PATH];
    int length = snprintf(path, sizeof path, "%s.partial.%s", result, purpose);
    if (length < 0 || (size_t)length >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file >= 0) unlink(path);
    return file;
}

void column_open(struct column *column, const char *result, const char *purpose) {
    memset(column, 0, sizeof *column);
    column->file = open_unnamed(result, purpose);
    if (column->file < 0) fail(EXIT_IO, "a file beside %s cannot be written: %s", result, strerror(errno));
}

static void flush(struct column *column) {
    const char *data = (const char *)column->buffer;
    size_t left = column->buffered * sizeof *column->buffer;
    while (left > 0) {
        ssize_t written = write(column->file, data, left);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail(EXIT_IO, "samples cannot be written: %s", strerror(errno));
        data += written;
        left -= (size_t)written;
    }
    column->buffered = 0;
}

void column_append(struct column *column, uint64_t value) {
    column->buffer[column->buffered++] = value;
    column->count++;
    if (column->buffered == COLUMN_BUFFERED) flush(column);
}

void column_print(struct column *column, FILE *stream) {
    flush(column);
    uint64_t left = column->count;
    if (lseek(column->file, 0, SEEK_SET) < 0) fail(EXIT_IO, "samples cannot be read: %s", strerror(errno));
    fputc('[', stream);
    while (left > 0) {
        size_t wanted = left < COLUMN_BUFFERED ? (size_t)left : COLUMN_BUFFERED;
        ssize_t got = read(column->file, column->buffer, wanted * sizeof *column->buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0 || (size_t)got % sizeof *column->buffer) fail(EXIT_IO, "samples cannot be read back");
        size_t values = (size_t)got / sizeof *column->buffer;
        for (size_t i = 0; i < values; i++) {
            fprintf(stream, left - i == column->count ? "%" PRIu64 : ",%" PRIu64, column->buffer[i]);
        }
        left -= values;
    }
    fputc(']', stream);
    close(column->file);
}
