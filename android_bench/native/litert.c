/* The LiteRT C API (libLiteRt.so, 2.1.6 or newer): compiled model, tensor buffers whose handles are swapped.

   Declarations are ours, of the functions that are called; handles are pointers, a status is an int, 0 for success
   (litert/c/litert_common.h, litert_compiled_model.h, litert_model.h, litert_tensor_buffer.h). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "library.h"
#include "mapped.h"
#include "native_log.h"

enum { ACCELERATOR_CPU = 1, LOCK_READ = 0, LOCK_WRITE = 1, SIGNATURE = 0 };

/* litert/c/litert_model_types.h declares these 72 bytes stable; nothing in them is read here. */
struct tensor_type {
    uint64_t words[9];
};

struct functions {
    int (*create_environment)(int count, const void *options, void **environment);
    int (*create_model)(void *environment, const void *memory, size_t bytes, void **model);
    int (*create_options)(void **options);
    int (*set_accelerators)(void *options, int accelerators);
    int (*create_opaque)(const char *name, void *payload, void (*destroy)(void *), void **opaque);
    int (*add_opaque)(void *options, void *opaque);
    int (*create_compiled)(void *environment, void *model, void *options, void **compiled);
    int (*fully_accelerated)(void *compiled, bool *answer);
    int (*model_signature)(void *model, size_t index, void **signature);
    int (*input_count)(void *signature, size_t *count);
    int (*output_count)(void *signature, size_t *count);
    int (*input_name)(void *signature, size_t index, const char **name);
    int (*output_name)(void *signature, size_t index, const char **name);
    int (*input_tensor)(void *signature, size_t index, void **tensor);
    int (*output_tensor)(void *signature, size_t index, void **tensor);
    int (*tensor_type)(void *tensor, struct tensor_type *type);
    int (*input_requirements)(void *compiled, size_t signature, size_t index, void **requirements);
    int (*output_requirements)(void *compiled, size_t signature, size_t index, void **requirements);
    int (*create_buffer)(void *environment, const struct tensor_type *type, void *requirements, void **buffer);
    int (*buffer_size)(void *buffer, size_t *size);
    int (*packed_size)(void *buffer, size_t *size);
    int (*lock)(void *buffer, void **memory, int mode);
    int (*unlock)(void *buffer);
    int (*run)(void *compiled, size_t signature, size_t inputs, void **input, size_t outputs, void **output);
};

/* One side of the signature: buffers in its order, and for every line of the plan the index in it. */
struct ports {
    size_t count;
    void **buffers;
};

struct litert {
    struct functions call;
    void *environment;
    void *model;
    void *compiled;
    void *signature;
    struct ports in;
    struct ports out;
    size_t *input_at;
    size_t *state_in_at;
    size_t *state_out_at;
    size_t *output_at;
    bool copies;
};

static void check(int status, enum exit_status kind, const char *what) {
    if (status != 0) fail(kind, "LiteRT failed to %s (status %d)", what, status);
}

static void open_environment(struct backend *backend, const struct plan *plan) {
    (void)plan;
    struct litert *self = backend->self;
    check(self->call.create_environment(0, NULL, &self->environment), EXIT_LIBRARY, "make an environment");
}

/* The CPU accelerator takes its options as TOML under this name (litert/c/options/litert_cpu_options.cc). */
static void *cpu_options(struct litert *self, const struct plan *plan) {
    enum { LONGEST_OPTION = 64 };
    size_t length = 2 * LONGEST_OPTION + (plan->weight_cache == NULL ? 0 : strlen(plan->weight_cache));
    char *text = allocate(length, 1);
    int used = snprintf(text, length, "num_threads = %d\n", plan->threads);
    if (plan->weight_cache != NULL) {
        snprintf(text + used, length - (size_t)used, "weight_cache_file_path = \"%s\"\n", plan->weight_cache);
    }
    void *opaque = NULL;
    check(self->call.create_opaque("xnnpack", text, free, &opaque), EXIT_MODEL, "make the processor's options");
    return opaque;
}

static void compile(struct litert *self, const struct plan *plan) {
    void *options = NULL;
    struct mapped file = mapped_open(plan->model);
    check(self->call.create_model(self->environment, file.memory, file.bytes, &self->model), EXIT_MODEL,
          "load the model");
    check(self->call.create_options(&options), EXIT_MODEL, "make options");
    check(self->call.set_accelerators(options, ACCELERATOR_CPU), EXIT_MODEL, "choose the processor");
    check(self->call.add_opaque(options, cpu_options(self, plan)), EXIT_MODEL, "set the processor's options");
    check(self->call.create_compiled(self->environment, self->model, options, &self->compiled), EXIT_MODEL,
          "compile the model");
    /* Weights are packed by now; what little is still read comes back. */
    if (!plan->keep_model_pages) mapped_release(&file);
    check(self->call.model_signature(self->model, SIGNATURE, &self->signature), EXIT_MODEL, "find a signature");
}

static void *buffer_of(struct litert *self, bool input, size_t index) {
    void *tensor = NULL, *requirements = NULL, *buffer = NULL;
    struct tensor_type type;
    check((input ? self->call.input_tensor : self->call.output_tensor)(self->signature, index, &tensor), EXIT_MODEL,
          "find a tensor");
    check(self->call.tensor_type(tensor, &type), EXIT_MODEL, "tell the type of a tensor");
    check((input ? self->call.input_requirements : self->call.output_requirements)(self->compiled, SIGNATURE, index,
                                                                                   &requirements),
          EXIT_MODEL, "tell what a buffer needs");
    check(self->call.create_buffer(self->environment, &type, requirements, &buffer), EXIT_MODEL, "make a buffer");
    return buffer;
}

static struct ports ports_of(struct litert *self, bool input) {
    struct ports ports = {0};
    check((input ? self->call.input_count : self->call.output_count)(self->signature, &ports.count), EXIT_MODEL,
          "count the ports");
    ports.buffers = allocate(ports.count, sizeof *ports.buffers);
    for (size_t i = 0; i < ports.count; i++) ports.buffers[i] = buffer_of(self, input, i);
    return ports;
}

/* Index in the signature of the port with this name, checked to have the plan's size. */
static size_t index_of(struct litert *self, bool input, const struct port *port) {
    const struct ports *ports = input ? &self->in : &self->out;
    for (size_t i = 0; i < ports->count; i++) {
        const char *name = NULL;
        check((input ? self->call.input_name : self->call.output_name)(self->signature, i, &name), EXIT_MODEL,
              "name a port");
        if (strcmp(name, port->name) != 0) continue;
        size_t bytes = 0;
        check(self->call.packed_size(ports->buffers[i], &bytes), EXIT_MODEL, "tell the size of a port");
        if (bytes != port->bytes) {
            fail(EXIT_MODEL, "port %s of the model has %zu bytes, the plan says %zu", name, bytes, port->bytes);
        }
        return i;
    }
    fail(EXIT_MODEL, "the model's signature has no %s named %s", input ? "input" : "output", port->name);
}

static void check_count(const char *what, size_t in_model, size_t in_plan) {
    if (in_model != in_plan) fail(EXIT_MODEL, "the model has %zu %s, the plan says %zu", in_model, what, in_plan);
}

static void find_ports(struct litert *self, const struct plan *plan) {
    check_count("inputs", self->in.count, plan->input_count + plan->state_in_count);
    check_count("outputs", self->out.count, plan->output_count + plan->state_out_count);
    self->input_at = allocate(plan->input_count, sizeof *self->input_at);
    self->state_in_at = allocate(plan->state_in_count, sizeof *self->state_in_at);
    self->state_out_at = allocate(plan->state_out_count, sizeof *self->state_out_at);
    self->output_at = allocate(plan->output_count, sizeof *self->output_at);
    for (size_t i = 0; i < plan->input_count; i++) self->input_at[i] = index_of(self, true, &plan->inputs[i].port);
    for (size_t i = 0; i < plan->output_count; i++) self->output_at[i] = index_of(self, false, &plan->outputs[i]);
    for (size_t i = 0; i < plan->state_in_count; i++) self->state_in_at[i] = index_of(self, true, &plan->state_ins[i]);
    for (size_t i = 0; i < plan->state_out_count; i++) {
        self->state_out_at[i] = index_of(self, false, &plan->state_outs[i]);
    }
}

static void **state_in(struct litert *self, const struct state *state, size_t at) {
    return &self->in.buffers[self->state_in_at[state->in + at]];
}

static void **state_out(struct litert *self, const struct state *state, size_t at) {
    return &self->out.buffers[self->state_out_at[state->out + at]];
}

static size_t size_of(struct litert *self, void *buffer) {
    size_t size = 0;
    check(self->call.buffer_size(buffer, &size), EXIT_MODEL, "tell a size");
    return size;
}

/* A buffer can take the place of another only where the runtime asks for the same size, padding included. */
static bool swappable(struct litert *self, const struct plan *plan) {
    for (size_t i = 0; i < plan->state_count; i++) {
        const struct state *state = &plan->states[i];
        size_t wanted = size_of(self, *state_in(self, state, 0));
        for (size_t at = 1; at < state->in_count; at++) {
            if (size_of(self, *state_in(self, state, at)) != wanted) return false;
        }
        for (size_t at = 0; at < state->out_count; at++) {
            if (size_of(self, *state_out(self, state, at)) != wanted) return false;
        }
    }
    return true;
}

static void load_model(struct backend *backend, const struct plan *plan) {
    struct litert *self = backend->self;
    compile(self, plan);
    self->in = ports_of(self, true);
    self->out = ports_of(self, false);
    find_ports(self, plan);
    self->copies = !swappable(self, plan);
    backend->state_loop = self->copies ? "copy" : "swap";
}

static struct delegate delegate(struct backend *backend) {
    struct litert *self = backend->self;
    bool fully = false;
    check(self->call.fully_accelerated(self->compiled, &fully), EXIT_RUN, "tell what was accelerated");
    if (fully) {
        return (struct delegate){
            "XNNPACK", ACCELERATED_FULLY,
            native_log_saw_xnnpack()
                ? "LiteRtCompiledModelIsFullyAccelerated is true with the CPU accelerator alone, and "
                  "the library logged that it created the XNNPACK delegate"
                : "LiteRtCompiledModelIsFullyAccelerated is true with the CPU accelerator alone, "
                  "which is XNNPACK"};
    }
    if (native_log_saw_xnnpack()) {
        return (struct delegate){"XNNPACK", ACCELERATED_PARTLY,
                                 "the library logged that it created the XNNPACK delegate; "
                                 "LiteRtCompiledModelIsFullyAccelerated is false"};
    }
    return (struct delegate){"unknown", ACCELERATED_PARTLY,
                             "LiteRtCompiledModelIsFullyAccelerated is false, and the library logged no delegate"};
}

static void *buffer_at(struct litert *self, enum side side, size_t index) {
    switch (side) {
        case SIDE_INPUT: return self->in.buffers[self->input_at[index]];
        case SIDE_STATE_IN: return self->in.buffers[self->state_in_at[index]];
        case SIDE_OUTPUT: return self->out.buffers[self->output_at[index]];
    }
    return NULL;
}

static void *locked(struct litert *self, void *buffer, bool write) {
    void *memory = NULL;
    check(self->call.lock(buffer, &memory, write ? LOCK_WRITE : LOCK_READ), EXIT_RUN, "lock a buffer");
    return memory;
}

static void *map(struct backend *backend, enum side side, size_t index, bool write) {
    return locked(backend->self, buffer_at(backend->self, side, index), write);
}

static void unmap(struct backend *backend, enum side side, size_t index) {
    struct litert *self = backend->self;
    check(self->call.unlock(buffer_at(self, side, index)), EXIT_RUN, "unlock a buffer");
}

static void invoke(struct backend *backend) {
    struct litert *self = backend->self;
    check(
        self->call.run(self->compiled, SIGNATURE, self->in.count, self->in.buffers, self->out.count, self->out.buffers),
        EXIT_RUN, "run the model");
}

static void copy(struct litert *self, void *from, void *to, size_t bytes) {
    memcpy(locked(self, to, true), locked(self, from, false), bytes);
    check(self->call.unlock(from), EXIT_RUN, "unlock a buffer");
    check(self->call.unlock(to), EXIT_RUN, "unlock a buffer");
}

static void copy_up(struct litert *self, const struct state *state) {
    for (size_t at = 0; at < state->in_count; at++) {
        size_t from = at + state->out_count;
        void *source = from < state->in_count ? *state_in(self, state, from)
                                              : *state_out(self, state, from - state->in_count);
        copy(self, source, *state_in(self, state, at), state->bytes);
    }
}

/* One place of the queue at a time: the oldest buffer is free and takes the next new entry. */
static void move_up(struct litert *self, const struct state *state) {
    for (size_t step = 0; step < state->out_count; step++) {
        void *oldest = *state_in(self, state, 0);
        for (size_t at = 1; at < state->in_count; at++) *state_in(self, state, at - 1) = *state_in(self, state, at);
        void **given = state_out(self, state, step);
        *state_in(self, state, state->in_count - 1) = *given;
        *given = oldest;
    }
}

static void loop_states(struct backend *backend) {
    struct litert *self = backend->self;
    for (size_t i = 0; i < backend->plan->state_count; i++) {
        (self->copies ? copy_up : move_up)(self, &backend->plan->states[i]);
    }
}

static void find_functions(struct functions *call, void *handle, const char *library) {
    const struct symbol symbols[] = {
        {"LiteRtCreateEnvironment", &call->create_environment},
        {"LiteRtCreateModelFromBuffer", &call->create_model},
        {"LiteRtCreateOptions", &call->create_options},
        {"LiteRtSetOptionsHardwareAccelerators", &call->set_accelerators},
        {"LiteRtCreateOpaqueOptions", &call->create_opaque},
        {"LiteRtAddOpaqueOptions", &call->add_opaque},
        {"LiteRtCreateCompiledModel", &call->create_compiled},
        {"LiteRtCompiledModelIsFullyAccelerated", &call->fully_accelerated},
        {"LiteRtGetModelSignature", &call->model_signature},
        {"LiteRtGetNumSignatureInputs", &call->input_count},
        {"LiteRtGetNumSignatureOutputs", &call->output_count},
        {"LiteRtGetSignatureInputName", &call->input_name},
        {"LiteRtGetSignatureOutputName", &call->output_name},
        {"LiteRtGetSignatureInputTensorByIndex", &call->input_tensor},
        {"LiteRtGetSignatureOutputTensorByIndex", &call->output_tensor},
        {"LiteRtGetRankedTensorType", &call->tensor_type},
        {"LiteRtGetCompiledModelInputBufferRequirements", &call->input_requirements},
        {"LiteRtGetCompiledModelOutputBufferRequirements", &call->output_requirements},
        {"LiteRtCreateManagedTensorBufferFromRequirements", &call->create_buffer},
        {"LiteRtGetTensorBufferSize", &call->buffer_size},
        {"LiteRtGetTensorBufferPackedSize", &call->packed_size},
        {"LiteRtLockTensorBuffer", &call->lock},
        {"LiteRtUnlockTensorBuffer", &call->unlock},
        {"LiteRtRunCompiledModel", &call->run},
        {NULL, NULL},
    };
    symbols_find(handle, library, symbols);
}

void litert_use(struct backend *backend, void *handle) {
    /* Version 2.1.6 gave LiteRtCreateModelFromBuffer another argument under the same name. The libraries tell no
       version; this function is exported since the day after. */
    if (!symbol_exists(handle, "LiteRtCreateModelFromAllocation")) {
        fail(EXIT_LIBRARY,
             "the library %s is a LiteRT older than 2.1.6 (it lacks LiteRtCreateModelFromAllocation), whose functions "
             "take other arguments; give libLiteRt.so of version 2.1.6 or newer",
             backend->library);
    }
    struct litert *self = allocate(1, sizeof *self);
    find_functions(&self->call, handle, backend->library);
    backend->api = "LiteRt";
    backend->self = self;
    backend->open_library = open_environment;
    backend->load_model = load_model;
    backend->delegate = delegate;
    backend->map = map;
    backend->unmap = unmap;
    backend->invoke = invoke;
    backend->loop_states = loop_states;
}
