#include "native_log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "columns.h"

/* tensorflow/lite/delegates/xnnpack/xnnpack_delegate.cc logs it once per process. */
static const char CREATED[] = "Created TensorFlow Lite XNNPACK delegate for CPU";

enum { CHUNK_BYTES = 4096, OVERLAP_BYTES = sizeof CREATED - 1 };

enum { CRASH_COUNT = 5 };

static const int CRASHES[CRASH_COUNT] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
/* Android's linker has handlers of its own, which write the reports of crashes. */
static struct sigaction earlier[CRASH_COUNT];
static int taken = -1;
static int original = -1;
static bool saw_xnnpack;

static void write_all(int file, const char *data, size_t length) {
    while (length > 0) {
        ssize_t written = write(file, data, length);
        if (written <= 0) return;
        data += written;
        length -= (size_t)written;
    }
}

static void handle_as_before(void) {
    for (size_t i = 0; i < CRASH_COUNT; i++) sigaction(CRASHES[i], &earlier[i], NULL);
}

/* A library that aborts says why just before; without this its last words would be lost. */
static void pass_on_and_crash(int number) {
    char chunk[CHUNK_BYTES];
    ssize_t length;
    for (off_t at = 0; (length = pread(taken, chunk, sizeof chunk, at)) > 0; at += length) {
        write_all(original, chunk, (size_t)length);
    }
    handle_as_before();
    raise(number);
}

static void handle_crashes(void) {
    struct sigaction handler = {.sa_handler = pass_on_and_crash};
    sigemptyset(&handler.sa_mask);
    for (size_t i = 0; i < CRASH_COUNT; i++) sigaction(CRASHES[i], &handler, &earlier[i]);
}

void native_log_start(const char *result) {
    taken = open_unnamed(result, "log");
    if (taken < 0) return;
    fflush(stderr);
    original = dup(STDERR_FILENO);
    if (original < 0 || dup2(taken, STDERR_FILENO) < 0) {
        close(taken);
        taken = -1;
        return;
    }
    handle_crashes();
}

static bool holds(const char *data, size_t length) {
    for (size_t at = 0; at + OVERLAP_BYTES <= length; at++) {
        if (memcmp(data + at, CREATED, OVERLAP_BYTES) == 0) return true;
    }
    return false;
}

static void pass_on(void) {
    char chunk[OVERLAP_BYTES + CHUNK_BYTES];
    size_t kept = 0;
    ssize_t length;
    for (off_t at = 0; (length = pread(taken, chunk + kept, CHUNK_BYTES, at)) > 0; at += length) {
        write_all(STDERR_FILENO, chunk + kept, (size_t)length);
        size_t filled = kept + (size_t)length;
        if (holds(chunk, filled)) saw_xnnpack = true;
        kept = filled < OVERLAP_BYTES ? filled : OVERLAP_BYTES;
        memmove(chunk, chunk + filled - kept, kept);
    }
}

void native_log_stop(void) {
    if (taken < 0) return;
    handle_as_before();
    fflush(stderr);
    dup2(original, STDERR_FILENO);
    close(original);
    pass_on();
    close(taken);
    taken = -1;
}

bool native_log_saw_xnnpack(void) {
    return saw_xnnpack;
}
