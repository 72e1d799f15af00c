/* The functions of LiteRT that the runner calls, around one "model" with a state, by the names of its signature:

   inputs   frame float32[4], state_in float32[2]
   outputs  state_out float32[2], scores float32[3]

   It computes what tflite.c does. FAKE_PADDED=1 gives output buffers more bytes than input buffers; FAKE_PARTLY=1
   leaves operators to the runtime's own kernels; FAKE_FAIL=NAME lets a function fail. Compiled with -DOLD it is a
   library from before version 2.1.6. */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct port {
    const char *name;
    size_t bytes;
};

struct buffer {
    size_t packed;
    size_t bytes;
    float *data;
};

static const struct port inputs[] = {{"frame", 16}, {"state_in", 8}};
static const struct port outputs[] = {{"state_out", 8}, {"scores", 12}};
static int anything;

static int status(const char *name) {
    const char *wish = getenv("FAKE_FAIL");
    return wish != NULL && strcmp(wish, name) == 0 ? 3 : 0;
}

#ifndef OLD
int LiteRtCreateModelFromAllocation(void) {
    return 1;
}
#endif

int LiteRtCreateEnvironment(int count, const void *options, void **environment) {
    (void)count;
    (void)options;
    *environment = &anything;
    return status("environment");
}

int LiteRtCreateModelFromBuffer(void *environment, const void *memory, size_t bytes, void **model) {
    (void)environment;
    (void)memory;
    (void)bytes;
    *model = &anything;
    return status("model");
}

int LiteRtCreateOptions(void **options) {
    *options = &anything;
    return 0;
}

int LiteRtSetOptionsHardwareAccelerators(void *options, int accelerators) {
    (void)options;
    return accelerators == 1 ? 0 : 1;
}

int LiteRtCreateOpaqueOptions(const char *name, void *payload, void (*destroy)(void *), void **opaque) {
    fprintf(stderr, "fake: %s %s", name, (const char *)payload);
    destroy(payload);
    *opaque = &anything;
    return 0;
}

int LiteRtAddOpaqueOptions(void *options, void *opaque) {
    (void)options;
    (void)opaque;
    return 0;
}

int LiteRtCreateCompiledModel(void *environment, void *model, void *options, void **compiled) {
    (void)environment;
    (void)model;
    (void)options;
    *compiled = &anything;
    return status("compile");
}

int LiteRtCompiledModelIsFullyAccelerated(void *compiled, bool *answer) {
    (void)compiled;
    *answer = getenv("FAKE_PARTLY") == NULL;
    return 0;
}

int LiteRtGetModelSignature(void *model, size_t index, void **signature) {
    (void)model;
    *signature = &anything;
    return (int)index;
}

int LiteRtGetNumSignatureInputs(void *signature, size_t *count) {
    (void)signature;
    *count = 2;
    return 0;
}

int LiteRtGetNumSignatureOutputs(void *signature, size_t *count) {
    (void)signature;
    *count = 2;
    return 0;
}

int LiteRtGetSignatureInputName(void *signature, size_t index, const char **name) {
    (void)signature;
    *name = inputs[index].name;
    return 0;
}

int LiteRtGetSignatureOutputName(void *signature, size_t index, const char **name) {
    (void)signature;
    *name = outputs[index].name;
    return 0;
}

int LiteRtGetSignatureInputTensorByIndex(void *signature, size_t index, void **tensor) {
    (void)signature;
    *tensor = (void *)&inputs[index];
    return 0;
}

int LiteRtGetSignatureOutputTensorByIndex(void *signature, size_t index, void **tensor) {
    (void)signature;
    *tensor = (void *)&outputs[index];
    return 0;
}

int LiteRtGetRankedTensorType(void *tensor, unsigned char type[72]) {
    memset(type, 0, 72);
    memcpy(type, &tensor, sizeof tensor);
    return 0;
}

int LiteRtGetCompiledModelInputBufferRequirements(void *compiled, size_t signature, size_t index, void **requirements) {
    (void)compiled;
    (void)index;
    *requirements = NULL;
    return (int)signature;
}

int LiteRtGetCompiledModelOutputBufferRequirements(void *compiled, size_t signature, size_t index,
                                                   void **requirements) {
    (void)compiled;
    (void)index;
    *requirements = getenv("FAKE_PADDED") ? &anything : NULL;
    return (int)signature;
}

int LiteRtCreateManagedTensorBufferFromRequirements(void *environment, const unsigned char type[72], void *requirements,
                                                    void **made) {
    (void)environment;
    struct port *port;
    memcpy(&port, type, sizeof port);
    struct buffer *buffer = calloc(1, sizeof *buffer);
    buffer->packed = port->bytes;
    buffer->bytes = port->bytes + (requirements == NULL ? 0 : 64);
    buffer->data = calloc(1, buffer->bytes);
    *made = buffer;
    return 0;
}

int LiteRtGetTensorBufferSize(void *buffer, size_t *size) {
    *size = ((struct buffer *)buffer)->bytes;
    return 0;
}

int LiteRtGetTensorBufferPackedSize(void *buffer, size_t *size) {
    *size = ((struct buffer *)buffer)->packed;
    return 0;
}

int LiteRtLockTensorBuffer(void *buffer, void **memory, int mode) {
    (void)mode;
    *memory = ((struct buffer *)buffer)->data;
    return status("lock");
}

int LiteRtUnlockTensorBuffer(void *buffer) {
    (void)buffer;
    return 0;
}

int LiteRtRunCompiledModel(void *compiled, size_t signature, size_t in_count, struct buffer **in, size_t out_count,
                           struct buffer **out) {
    (void)compiled;
    if (signature != 0 || in_count != 2 || out_count != 2) return 1;
    const float *frame = in[0]->data, *state = in[1]->data;
    float *next = out[0]->data, *scores = out[1]->data, sum = frame[0] + frame[1] + frame[2] + frame[3];
    scores[0] = sum;
    scores[1] = state[0];
    scores[2] = state[1];
    next[0] = state[0] + sum;
    next[1] = state[1] * 0.5f;
    return status("run");
}
