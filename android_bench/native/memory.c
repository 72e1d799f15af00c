#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failure.h"
#include "stored.h"

enum { STATUS_BYTES = 8192 };

static unsigned long long counter(const char *status, const char *name) {
    const char *line = strstr(status, name);
    /* A kernel without swap leaves out VmSwap. */
    return line == NULL ? 0 : strtoull(line + strlen(name), NULL, 10);
}

struct memory_mark memory_now(void) {
    static char status[STATUS_BYTES];
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (file < 0) fail(EXIT_IO, "/proc/self/status cannot be read: %s", strerror(errno));
    size_t filled = 0;
    for (ssize_t got; filled < sizeof status - 1; filled += (size_t)got) {
        got = read(file, status + filled, sizeof status - 1 - filled);
        if (got <= 0) break;
    }
    close(file);
    status[filled] = '\0';
    if (strstr(status, "\nVmHWM:") == NULL) fail(EXIT_IO, "/proc/self/status tells no VmHWM");
    return (struct memory_mark){
        .vm_hwm_kb = counter(status, "\nVmHWM:"),
        .vm_rss_kb = counter(status, "\nVmRSS:"),
        .vm_swap_kb = counter(status, "\nVmSwap:"),
        .rss_anon_kb = counter(status, "\nRssAnon:"),
        .rss_file_kb = counter(status, "\nRssFile:"),
        .rss_shmem_kb = counter(status, "\nRssShmem:"),
    };
}

void memory_maps(const char *path) {
    static char chunk[STATUS_BYTES];
    struct dump dump;
    int file = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    if (file < 0) fail(EXIT_IO, "/proc/self/smaps cannot be read: %s", strerror(errno));
    dump_open(&dump, path);
    for (ssize_t got; (got = read(file, chunk, sizeof chunk)) != 0;) {
        if (got < 0) fail(EXIT_IO, "/proc/self/smaps cannot be read: %s", strerror(errno));
        dump_write(&dump, chunk, (size_t)got);
    }
    close(file);
    dump_close(&dump);
}
