/* The TFLite C API (libtensorflowlite_c.so, libtensorflowlite_jni.so): the same functions in 2.9 and today.

   Declarations are ours (tensorflow/lite/core/c/c_api.h); ports are known by position. */
#include <stdint.h>

#include "copies.h"
#include "failure.h"
#include "library.h"
#include "mapped.h"
#include "native_log.h"

struct functions {
    const char *(*version)(void);
    void *(*create_model)(const void *memory, size_t bytes);
    void *(*create_options)(void);
    void (*set_threads)(void *options, int32_t threads);
    void *(*create_interpreter)(const void *model, const void *options);
    int (*allocate_tensors)(void *interpreter);
    int32_t (*input_count)(const void *interpreter);
    int32_t (*output_count)(const void *interpreter);
    void *(*input)(const void *interpreter, int32_t position);
    const void *(*output)(const void *interpreter, int32_t position);
    size_t (*byte_size)(const void *tensor);
    void *(*data)(const void *tensor);
    int (*invoke)(void *interpreter);
};

struct tflite {
    struct functions call;
    void *interpreter;
    struct copies copies;
};

static void open_library(struct backend *backend, const struct plan *plan) {
    (void)plan;
    struct tflite *self = backend->self;
    backend->library_version = self->call.version();
}

static void check_port(const char *side, const struct port *port, size_t count, size_t bytes) {
    if (port->position >= count) {
        fail(EXIT_MODEL, "the model has %zu %ss, the plan puts %s at position %zu", count, side, port->name,
             port->position);
    }
    if (bytes != port->bytes) {
        fail(EXIT_MODEL, "%s %zu of the model has %zu bytes, the plan says that %s has %zu", side, port->position,
             bytes, port->name, port->bytes);
    }
}

static const void *tensor_at(struct tflite *self, bool input, const struct port *port) {
    int32_t position = (int32_t)port->position;
    return input ? self->call.input(self->interpreter, position) : self->call.output(self->interpreter, position);
}

static void check_side(struct tflite *self, bool input, const struct port *port) {
    size_t count = (size_t)(input ? self->call.input_count : self->call.output_count)(self->interpreter);
    size_t bytes = port->position < count ? self->call.byte_size(tensor_at(self, input, port)) : 0;
    check_port(input ? "input" : "output", port, count, bytes);
}

static void check_counts(struct tflite *self, const struct plan *plan) {
    size_t inputs = (size_t)self->call.input_count(self->interpreter);
    size_t outputs = (size_t)self->call.output_count(self->interpreter);
    if (inputs != plan->input_count + plan->state_in_count || outputs != plan->output_count + plan->state_out_count) {
        fail(EXIT_MODEL, "the model has %zu inputs and %zu outputs, the plan says %zu and %zu", inputs, outputs,
             plan->input_count + plan->state_in_count, plan->output_count + plan->state_out_count);
    }
}

static void check_ports(struct tflite *self, const struct plan *plan) {
    check_counts(self, plan);
    for (size_t i = 0; i < plan->input_count; i++) check_side(self, true, &plan->inputs[i].port);
    for (size_t i = 0; i < plan->output_count; i++) check_side(self, false, &plan->outputs[i]);
    for (size_t i = 0; i < plan->state_in_count; i++) check_side(self, true, &plan->state_ins[i]);
    for (size_t i = 0; i < plan->state_out_count; i++) check_side(self, false, &plan->state_outs[i]);
}

static void load_model(struct backend *backend, const struct plan *plan) {
    struct tflite *self = backend->self;
    if (plan->weight_cache != NULL) {
        fail(EXIT_USAGE, "%s has the TfLite functions, which take no weight cache; give libLiteRt.so", backend->library);
    }
    struct mapped file = mapped_open(plan->model);
    void *model = self->call.create_model(file.memory, file.bytes);
    if (model == NULL) fail(EXIT_MODEL, "TFLite refuses the model %s", plan->model);
    void *options = self->call.create_options();
    self->call.set_threads(options, plan->threads);
    self->interpreter = self->call.create_interpreter(model, options);
    if (self->interpreter == NULL) fail(EXIT_MODEL, "TFLite makes no interpreter for %s", plan->model);
    int status = self->call.allocate_tensors(self->interpreter);
    if (status != 0) fail(EXIT_MODEL, "TFLite cannot allocate the tensors of %s (status %d)", plan->model, status);
    /* Weights are packed by now; what is still read, the runtime's own kernels' weights too, comes back. */
    if (!plan->keep_model_pages) mapped_release(&file);
    check_ports(self, plan);
    copies_make(&self->copies, plan->state_in_count);
}

/* The interpreter does not tell its delegates, and libraries as old as 2.9 create one without a word in the log. So
   silence proves nothing: it is never evidence for the runtime's own kernels. */
static struct delegate delegate(struct backend *backend) {
    (void)backend;
    if (native_log_saw_xnnpack()) {
        return (struct delegate){"XNNPACK", ACCELERATED_UNKNOWN,
                                 "the library logged that it created the XNNPACK delegate"};
    }
    return (struct delegate){"unknown", ACCELERATED_UNKNOWN, "the library did not log that it created a delegate"};
}

static void *map(struct backend *backend, enum side side, size_t index, bool write) {
    (void)write;
    struct tflite *self = backend->self;
    const struct plan *plan = backend->plan;
    const struct port *port = side == SIDE_INPUT      ? &plan->inputs[index].port
                              : side == SIDE_STATE_IN ? &plan->state_ins[index]
                                                      : &plan->outputs[index];
    void *memory = self->call.data(tensor_at(self, side != SIDE_OUTPUT, port));
    if (memory == NULL) fail(EXIT_RUN, "port %s of the model has no memory", port->name);
    return memory;
}

static void unmap(struct backend *backend, enum side side, size_t index) {
    (void)backend;
    (void)side;
    (void)index;
}

static void invoke(struct backend *backend) {
    struct tflite *self = backend->self;
    int status = self->call.invoke(self->interpreter);
    if (status != 0) fail(EXIT_RUN, "TFLite failed to execute the model (status %d)", status);
}

/* What the interpreter takes as the value of port `at` of a state: the slot behind it, or what the step gave. The planner
   never gives away the place of a graph's input (tensorflow/lite/arena_planner.cc), so slots outlive the invoke. */
static const void *source(struct tflite *self, const struct plan *plan, const struct state *state, size_t at) {
    size_t from = at + state->out_count;
    bool given = from >= state->in_count;
    const struct port *port =
        given ? &plan->state_outs[state->out + from - state->in_count] : &plan->state_ins[state->in + from];
    return self->call.data(tensor_at(self, !given, port));
}

static void loop_states(struct backend *backend) {
    struct tflite *self = backend->self;
    const struct plan *plan = backend->plan;
    for (size_t i = 0; i < plan->state_count; i++) {
        const struct state *state = &plan->states[i];
        for (size_t at = 0; at < state->in_count; at++) {
            self->copies.list[state->in + at] = (struct copy){
                .from = source(self, plan, state, at),
                .to = self->call.data(tensor_at(self, true, &plan->state_ins[state->in + at])),
                .bytes = state->bytes,
            };
        }
    }
    copies_run(&self->copies);
}

static void find_functions(struct functions *call, void *handle, const char *library) {
    const struct symbol symbols[] = {
        {"TfLiteVersion", &call->version},
        {"TfLiteModelCreate", &call->create_model},
        {"TfLiteInterpreterOptionsCreate", &call->create_options},
        {"TfLiteInterpreterOptionsSetNumThreads", &call->set_threads},
        {"TfLiteInterpreterCreate", &call->create_interpreter},
        {"TfLiteInterpreterAllocateTensors", &call->allocate_tensors},
        {"TfLiteInterpreterGetInputTensorCount", &call->input_count},
        {"TfLiteInterpreterGetOutputTensorCount", &call->output_count},
        {"TfLiteInterpreterGetInputTensor", &call->input},
        {"TfLiteInterpreterGetOutputTensor", &call->output},
        {"TfLiteTensorByteSize", &call->byte_size},
        {"TfLiteTensorData", &call->data},
        {"TfLiteInterpreterInvoke", &call->invoke},
        {NULL, NULL},
    };
    symbols_find(handle, library, symbols);
}

void tflite_use(struct backend *backend, void *handle) {
    struct tflite *self = allocate(1, sizeof *self);
    find_functions(&self->call, handle, backend->library);
    backend->api = "TfLite";
    backend->state_loop = "copy";
    backend->self = self;
    backend->open_library = open_library;
    backend->load_model = load_model;
    backend->delegate = delegate;
    backend->map = map;
    backend->unmap = unmap;
    backend->invoke = invoke;
    backend->loop_states = loop_states;
}
