/* mvtool-run-tflite and mvtool-run-executorch: executes one launch of a benchmark as a plan file says. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <signal.h>
#include <sys/prctl.h>
#endif

#include "backend.h"
#include "bandwidth.h"
#include "clock.h"
#include "failure.h"
#include "measure.h"
#include "result.h"

#ifndef MVTOOL_RUNTIME
#error "CMakeLists.txt defines MVTOOL_RUNTIME"
#endif

/* The process that must not be outlived; whoever starts this program on a machine of its own sets it to its number. */
static const char PARENT[] = "MVTOOL_END_WITH_PARENT";

/* A launch whose reader was killed would go on for its whole time and disturb the next one. */
static void end_with_parent(void) {
#ifdef __linux__
    const char *text = getenv(PARENT);
    if (text == NULL) return;
    char *end;
    errno = 0;
    long parent = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || parent <= 0) {
        fail(EXIT_USAGE, "%s is '%s', expected the number of the process that started this one", PARENT, text);
    }
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail(EXIT_RUN, "no signal at the parent's end: %s", strerror(errno));
    /* It may have ended before that call; another process is the parent then. */
    if (getppid() != (pid_t)parent) fail(EXIT_RUN, "the process %ld, named by %s, is not the parent", parent, PARENT);
#endif
}

static int launch(const char *path) {
    static struct measurement measured;
    static struct backend backend;
    struct plan plan = plan_read(path, MVTOOL_RUNTIME);
    if (plan.affinity != NULL) affinity_set(plan.affinity);
    /* A result of an earlier launch must not pass for that of this one. */
    if (unlink(plan.result) != 0 && errno != ENOENT)
        fail(EXIT_IO, "%s cannot be deleted: %s", plan.result, strerror(errno));
    backend_make(&backend, &plan);
    measure(&measured, &backend, &plan);
    result_write(&plan, &backend, &measured);
    return 0;
}

int main(int count, char **arguments) {
    end_with_parent();
    if (count == 2 && strcmp(arguments[1], "--version") == 0) return puts(runner_version()) < 0;
    if (count == 3 && strcmp(arguments[1], "--bandwidth") == 0) return bandwidth_print(arguments[2]);
    if (count != 2 || arguments[1][0] == '-') {
        fail(EXIT_USAGE, "usage: PROGRAM PLAN | --bandwidth BYTES | --version");
    }
    int status = launch(arguments[1]);
    /* A runtime's destructors are no part of a measurement, and some crash at exit. */
    fflush(NULL);
    _exit(status);
}
