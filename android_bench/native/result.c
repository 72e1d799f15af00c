#include "result.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "failure.h"

#ifndef MVTOOL_RUNNER_NAME
#define MVTOOL_RUNNER_NAME "mvtool-run"
#endif
#ifndef MVTOOL_RUNNER_VERSION
#define MVTOOL_RUNNER_VERSION "unknown"
#endif

#if defined(__clang__)
static const char COMPILER[] = __VERSION__;
#else
static const char COMPILER[] = "gcc " __VERSION__;
#endif

#if defined(__aarch64__)
static const char ABI[] = "arm64-v8a";
#elif defined(__x86_64__)
static const char ABI[] = "x86_64";
#elif defined(__arm__)
static const char ABI[] = "armeabi-v7a";
#elif defined(__i386__)
static const char ABI[] = "x86";
#else
static const char ABI[] = "unknown";
#endif

const char *runner_version(void) {
    return MVTOOL_RUNNER_NAME " " MVTOOL_RUNNER_VERSION;
}

/* Names come from the plan and the library and may hold any byte; what is no printable ASCII is escaped. */
static void print_text(FILE *stream, const char *text) {
    if (text == NULL) {
        fputs("null", stream);
        return;
    }
    fputc('"', stream);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\') {
            fprintf(stream, "\\%c", *c);
        } else if (*c < ' ' || *c > '~') {
            fprintf(stream, "\\u%04x", *c);
        } else {
            fputc(*c, stream);
        }
    }
    fputc('"', stream);
}

static void print_field(FILE *stream, const char *key, const char *text, const char *after) {
    fprintf(stream, "\"%s\":", key);
    print_text(stream, text);
    fputs(after, stream);
}

static void print_facts(FILE *stream, const struct backend *backend, const struct delegate *delegate) {
    static const char *const ACCELERATED[] = {"null", "false", "true"};
    fputs("\"runner\":{", stream);
    print_field(stream, "name", MVTOOL_RUNNER_NAME, ",");
    print_field(stream, "version", MVTOOL_RUNNER_VERSION, ",");
    print_field(stream, "compiler", COMPILER, ",");
    print_field(stream, "abi", ABI, "},\n\"library\":{");
    print_field(stream, "file", backend->library, ",");
    print_field(stream, "version", backend->library_version, ",");
    print_field(stream, "api", backend->api, "},\n\"delegate\":{");
    print_field(stream, "name", delegate->name, ",");
    fprintf(stream, "\"fully_accelerated\":%s,", ACCELERATED[delegate->accelerated]);
    print_field(stream, "evidence", delegate->evidence, "},\n");
}

static void print_settings(FILE *stream, const struct plan *plan, const struct backend *backend) {
    char mask[AFFINITY_TEXT];
    affinity_get(mask);
    fprintf(stream, "\"threads\":%d,", plan->threads);
    print_field(stream, "affinity", plan->affinity == NULL ? NULL : mask, ",");
    print_field(stream, "state_loop", backend->state_loop, ",\n");
}

static void print_check(FILE *stream, const struct plan *plan) {
    if (plan->check_steps == 0) {
        fputs("\"check\":null,\n", stream);
        return;
    }
    fprintf(stream, "\"check\":{\"steps\":%" PRIu64 ",", plan->check_steps);
    print_field(stream, "file", plan->check_file, "},\n");
}

static void print_column(FILE *stream, const char *key, struct column *column, const char *after) {
    fprintf(stream, "\"%s\":", key);
    column_print(column, stream);
    fputs(after, stream);
}

static void print_times(FILE *stream, struct measurement *measured) {
    fprintf(stream, "\"library_ns\":%" PRIu64 ",\"load_ns\":%" PRIu64 ",", measured->library_ns, measured->load_ns);
    fprintf(stream, "\"reset_ns\":%" PRIu64 ",\"first_ns\":%" PRIu64 ",\n", measured->reset_ns, measured->first_ns);
}

static void print_samples(FILE *stream, struct measurement *measured) {
    print_column(stream, "warmup_ns", &measured->warmup, ",\n\"samples\":{");
    print_column(stream, "start_ns", &measured->start, ",\n");
    print_column(stream, "input_ns", &measured->input, ",\n");
    print_column(stream, "inference_ns", &measured->inference, ",\n");
    print_column(stream, "state_ns", &measured->state, ",\n");
    print_column(stream, "output_ns", &measured->output, ",\n");
    print_column(stream, "late_ns", &measured->late, "},\n");
}

static void print_counters(FILE *stream, const struct memory_mark *mark) {
    fprintf(stream, "\"vm_hwm_kb\":%llu,\"vm_rss_kb\":%llu,\"vm_swap_kb\":%llu,", mark->vm_hwm_kb, mark->vm_rss_kb,
            mark->vm_swap_kb);
    fprintf(stream, "\"rss_anon_kb\":%llu,\"rss_file_kb\":%llu,\"rss_shmem_kb\":%llu}", mark->rss_anon_kb,
            mark->rss_file_kb, mark->rss_shmem_kb);
}

static void print_memory(FILE *stream, const struct plan *plan, const struct measurement *measured) {
    static const char *const NAMES[PLACES] = {"start", "library", "loaded", "first", "end"};
    fputs("\"memory\":[", stream);
    for (size_t i = 0; i < PLACES; i++) {
        fprintf(stream, "%s{\"at\":\"%s\",", i ? "," : "", NAMES[i]);
        print_counters(stream, &measured->memory[i]);
    }
    fputs("],\n\"marks\":[", stream);
    for (size_t i = 0; i < measured->mark_count; i++) {
        fprintf(stream, "%s{\"calls\":%" PRIu64 ",", i ? "," : "", plan->marks[i]);
        print_counters(stream, &measured->marks[i]);
    }
    fputs("],\n", stream);
}

static void print_all(FILE *stream, const struct plan *plan, const struct backend *backend,
                      struct measurement *measured) {
    fputs("{\"schema\":\"mvtool.run/1\",\n", stream);
    print_facts(stream, backend, &measured->delegate);
    print_settings(stream, plan, backend);
    print_times(stream, measured);
    print_check(stream, plan);
    print_samples(stream, measured);
    print_memory(stream, plan, measured);
    fprintf(stream, "\"memory_includes\":%s,\n", backend->memory_includes);
    fprintf(stream, "\"stopped\":\"%s\",\n", measured->out_of_time ? "time" : "complete");
    fputs("\"end\":\"mvtool.run/1 complete\"}\n", stream);
}

void result_write(const struct plan *plan, const struct backend *backend, struct measurement *measured) {
    static const char SUFFIX[] = ".partial";
    char *partial = allocate(strlen(plan->result) + sizeof SUFFIX, 1);
    strcpy(partial, plan->result);
    strcat(partial, SUFFIX);
    FILE *stream = fopen(partial, "we");
    if (stream == NULL) fail(EXIT_IO, "%s cannot be written: %s", partial, strerror(errno));
    fail_deletes(partial);
    print_all(stream, plan, backend, measured);
    if (fflush(stream) != 0 || ferror(stream) || fsync(fileno(stream)) != 0 || fclose(stream) != 0) {
        fail(EXIT_IO, "%s cannot be written: %s", partial, strerror(errno));
    }
    if (rename(partial, plan->result) != 0) fail(EXIT_IO, "%s cannot be written: %s", plan->result, strerror(errno));
    fail_deletes(NULL);
}
