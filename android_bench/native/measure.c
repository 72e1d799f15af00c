#include "measure.h"

#include <string.h>

#include "clock.h"
#include "failure.h"
#include "native_log.h"
#include "stored.h"

/* What one step took, in nanoseconds. */
struct step {
    uint64_t start;
    uint64_t input;
    uint64_t inference;
    uint64_t output;
    uint64_t state;
};

struct stream {
    struct backend *backend;
    const struct plan *plan;
    struct stored *frames;   /* one per input */
    struct stored *resets;   /* one per state; closed where an element is repeated */
    unsigned char **results; /* one per output: where an app would hold its copy */
};

static void stream_open(struct stream *stream, struct backend *backend, const struct plan *plan) {
    stream->backend = backend;
    stream->plan = plan;
    stream->frames = allocate(plan->input_count, sizeof *stream->frames);
    stream->resets = allocate(plan->state_count, sizeof *stream->resets);
    stream->results = allocate(plan->output_count, sizeof *stream->results);
    for (size_t i = 0; i < plan->input_count; i++) {
        stored_open(&stream->frames[i], plan->inputs[i].file, plan->inputs[i].port.bytes, plan->inputs[i].count);
    }
    for (size_t i = 0; i < plan->state_count; i++) {
        const struct state *state = &plan->states[i];
        if (state->reset_file == NULL) continue;
        stored_open(&stream->resets[i], state->reset_file, state->bytes, state->in_count);
    }
    for (size_t i = 0; i < plan->output_count; i++) stream->results[i] = allocate(plan->outputs[i].bytes, 1);
}

static void fill(unsigned char *memory, const struct state *state) {
    if (state->element_bytes == 1) {
        memset(memory, state->element[0], state->bytes);
        return;
    }
    for (size_t at = 0; at < state->bytes; at += state->element_bytes) {
        memcpy(memory + at, state->element, state->element_bytes);
    }
}

static uint64_t reset(struct stream *stream) {
    struct backend *backend = stream->backend;
    uint64_t begin = now_ns();
    for (size_t i = 0; i < stream->plan->state_count; i++) {
        const struct state *state = &stream->plan->states[i];
        for (size_t slot = 0; slot < state->in_count; slot++) {
            void *memory = backend->map(backend, SIDE_STATE_IN, state->in + slot, true);
            if (state->reset_file != NULL) {
                stored_read(&stream->resets[i], slot, memory);
            } else {
                fill(memory, state);
            }
            backend->unmap(backend, SIDE_STATE_IN, state->in + slot);
        }
    }
    return now_ns() - begin;
}

static void read_frames(struct stream *stream, uint64_t call) {
    struct backend *backend = stream->backend;
    for (size_t i = 0; i < stream->plan->input_count; i++) {
        void *memory = backend->map(backend, SIDE_INPUT, i, true);
        stored_read(&stream->frames[i], call % stream->plan->inputs[i].count, memory);
        backend->unmap(backend, SIDE_INPUT, i);
    }
}

static void read_results(struct stream *stream) {
    struct backend *backend = stream->backend;
    for (size_t i = 0; i < stream->plan->output_count; i++) {
        const void *memory = backend->map(backend, SIDE_OUTPUT, i, false);
        memcpy(stream->results[i], memory, stream->plan->outputs[i].bytes);
        backend->unmap(backend, SIDE_OUTPUT, i);
    }
}

/* Outputs are read before states are looped: a memory planner may give an output the place of a state input. */
static struct step step(struct stream *stream, uint64_t call, uint64_t start) {
    read_frames(stream, call);
    uint64_t fed = now_ns();
    stream->backend->invoke(stream->backend);
    uint64_t invoked = now_ns();
    read_results(stream);
    uint64_t given = now_ns();
    stream->backend->loop_states(stream->backend);
    uint64_t looped = now_ns();
    return (struct step){start, fed - start, invoked - fed, given - invoked, looped - given};
}

static void write_states(struct stream *stream, struct dump *dump) {
    struct backend *backend = stream->backend;
    for (size_t i = 0; i < stream->plan->state_in_count; i++) {
        dump_write(dump, backend->map(backend, SIDE_STATE_IN, i, false), stream->plan->state_ins[i].bytes);
        backend->unmap(backend, SIDE_STATE_IN, i);
    }
}

/* The first invoke; where a check is asked for, it is the check's first. */
static void first_steps(struct measurement *measured, struct stream *stream) {
    const struct plan *plan = stream->plan;
    uint64_t steps = plan->check_steps ? plan->check_steps : 1;
    struct dump dump = {0};
    if (plan->check_steps) dump_open(&dump, plan->check_file);
    reset(stream);
    for (uint64_t call = 0; call < steps; call++) {
        struct step took = step(stream, call, now_ns());
        if (call == 0) {
            measured->first_ns = took.inference;
            measured->memory[AT_FIRST] = memory_now();
        }
        if (!plan->check_steps) continue;
        for (size_t i = 0; i < plan->output_count; i++) dump_write(&dump, stream->results[i], plan->outputs[i].bytes);
    }
    if (plan->check_steps == 0) return;
    write_states(stream, &dump);
    dump_close(&dump);
}

static void warm_up(struct measurement *measured, struct stream *stream) {
    const struct plan *plan = stream->plan;
    uint64_t begin = now_ns(), enough_ns = (uint64_t)(plan->warmup_seconds * 1e9);
    for (uint64_t call = 0; call < plan->warmup_invokes || now_ns() - begin < enough_ns; call++) {
        column_append(&measured->warmup, step(stream, call, now_ns()).inference);
    }
}

static void append(struct measurement *measured, const struct step *took, uint64_t begin) {
    column_append(&measured->start, took->start - begin);
    column_append(&measured->input, took->input);
    column_append(&measured->inference, took->inference);
    column_append(&measured->state, took->state);
    column_append(&measured->output, took->output);
}

static void mark(struct measurement *measured, const struct plan *plan, uint64_t calls) {
    if (measured->mark_count == plan->mark_count || plan->marks[measured->mark_count] != calls) return;
    measured->marks[measured->mark_count++] = memory_now();
}

/* Nanoseconds after the begin at which call number `call` is due. */
static uint64_t due_after(const struct plan *plan, uint64_t call) {
    return (uint64_t)((double)call * 1e9 / plan->calls_per_second);
}

/* A frame that comes late is not skipped: the next ones run on at once until the stream has caught up. How long a paced
   part lasts is counted in due times, so that it always has the same frames. The warm-up runs flat out, so a pause of one
   frame gives the first paced call the idle processor that the others find. */
static void timed_part(struct measurement *measured, struct stream *stream) {
    const struct plan *plan = stream->plan;
    bool paced = plan->calls_per_second > 0;
    uint64_t enough_ns = (uint64_t)(plan->min_seconds * 1e9), most_ns = (uint64_t)(plan->max_seconds * 1e9);
    if (paced) sleep_until(now_ns() + due_after(plan, 1));
    uint64_t begin = now_ns();
    for (uint64_t call = 0;; call++) {
        uint64_t start = call == 0 ? begin : now_ns();
        uint64_t due = begin + (paced ? due_after(plan, call) : 0), reached = (paced ? due : start) - begin;
        if (call >= plan->min_invokes && reached >= enough_ns) return;
        if (call > 0 && (reached >= most_ns || start - begin >= most_ns)) {
            measured->out_of_time = true;
            return;
        }
        if (paced && due > start) {
            sleep_until(due);
            start = now_ns();
        }
        struct step took = step(stream, call, start);
        append(measured, &took, begin);
        mark(measured, plan, call + 1);
        if (paced) column_append(&measured->late, start - due);
    }
}

static void open_columns(struct measurement *measured, const char *result) {
    column_open(&measured->warmup, result, "warmup");
    column_open(&measured->start, result, "start");
    column_open(&measured->input, result, "input");
    column_open(&measured->inference, result, "inference");
    column_open(&measured->state, result, "state");
    column_open(&measured->output, result, "output");
    column_open(&measured->late, result, "late");
}

static void load(struct measurement *measured, struct backend *backend, const struct plan *plan) {
    native_log_start(plan->result);
    uint64_t begin = now_ns();
    backend->open_library(backend, plan);
    uint64_t opened = now_ns();
    measured->library_ns = opened - begin;
    measured->memory[AT_LIBRARY] = memory_now();
    begin = now_ns();
    backend->load_model(backend, plan);
    measured->load_ns = now_ns() - begin;
    measured->memory[AT_LOADED] = memory_now();
}

void measure(struct measurement *measured, struct backend *backend, const struct plan *plan) {
    struct stream stream;
    open_columns(measured, plan->result);
    measured->marks = allocate(plan->mark_count, sizeof *measured->marks);
    stream_open(&stream, backend, plan);
    measured->memory[AT_START] = memory_now();
    load(measured, backend, plan);
    first_steps(measured, &stream);
    /* Some runtimes prepare their delegate in the first invoke, so the log is complete only now. */
    native_log_stop();
    measured->delegate = backend->delegate(backend);
    warm_up(measured, &stream);
    measured->reset_ns = reset(&stream);
    timed_part(measured, &stream);
    measured->memory[AT_END] = memory_now();
    if (plan->maps_file != NULL) memory_maps(plan->maps_file);
}
