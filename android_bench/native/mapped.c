#include "mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failure.h"

struct mapped mapped_open(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    if (file < 0 || fstat(file, &facts) != 0) fail(EXIT_MODEL, "the model %s cannot be opened: %s", path, strerror(errno));
    if (facts.st_size <= 0) fail(EXIT_MODEL, "the model %s is empty", path);
    struct mapped mapped = {.bytes = (size_t)facts.st_size};
    mapped.memory = mmap(NULL, mapped.bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped.memory == MAP_FAILED) fail(EXIT_MODEL, "the model %s cannot be mapped: %s", path, strerror(errno));
    close(file);
    return mapped;
}

void mapped_release(const struct mapped *mapped) {
    if (madvise(mapped->memory, mapped->bytes, MADV_DONTNEED) != 0) {
        fail(EXIT_RUN, "the pages of the model cannot be given back: %s", strerror(errno));
    }
}
