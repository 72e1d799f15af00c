/* The functions of the TFLite C API that the runner calls, around one "model" with a state.

   inputs   0 state float32[2], 1 frame float32[4]
   outputs  0 scores float32[3], 1 state float32[2]

   scores = (sum of the frame, state[0], state[1]); state' = (state[0] + sum of the frame, state[1] * 0.5).
   FAKE_FAIL=allocate|invoke|abort makes that fail, FAKE_STATES=FILE appends the state input of every invoke. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float state_in[2], frame[4], scores[3], state_out[2];

struct tensor {
    void *data;
    size_t bytes;
};

static struct tensor inputs[] = {{state_in, sizeof state_in}, {frame, sizeof frame}};
static struct tensor outputs[] = {{scores, sizeof scores}, {state_out, sizeof state_out}};

static int must_fail(const char *where) {
    const char *wish = getenv("FAKE_FAIL");
    return wish != NULL && strcmp(wish, where) == 0;
}

const char *TfLiteVersion(void) {
    return "0.0.0-fake";
}

void *TfLiteModelCreate(const void *memory, size_t bytes) {
    return bytes >= 4 && memcmp(memory, "FAKE", 4) == 0 ? inputs : NULL;
}

void *TfLiteInterpreterOptionsCreate(void) {
    return inputs;
}

void TfLiteInterpreterOptionsSetNumThreads(void *options, int32_t threads) {
    (void)options;
    fprintf(stderr, "fake: %d threads\n", (int)threads);
}

void *TfLiteInterpreterCreate(const void *model, const void *options) {
    (void)model;
    (void)options;
    if (getenv("FAKE_XNNPACK")) fputs("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", stderr);
    return inputs;
}

int TfLiteInterpreterAllocateTensors(void *interpreter) {
    (void)interpreter;
    if (must_fail("abort")) {
        fputs("fake: the last words\n", stderr);
        abort();
    }
    return must_fail("allocate");
}

int32_t TfLiteInterpreterGetInputTensorCount(const void *interpreter) {
    (void)interpreter;
    return 2;
}

int32_t TfLiteInterpreterGetOutputTensorCount(const void *interpreter) {
    (void)interpreter;
    return 2;
}

void *TfLiteInterpreterGetInputTensor(const void *interpreter, int32_t position) {
    (void)interpreter;
    return &inputs[position];
}

const void *TfLiteInterpreterGetOutputTensor(const void *interpreter, int32_t position) {
    (void)interpreter;
    return &outputs[position];
}

size_t TfLiteTensorByteSize(const void *tensor) {
    return ((const struct tensor *)tensor)->bytes;
}

void *TfLiteTensorData(const void *tensor) {
    return ((const struct tensor *)tensor)->data;
}

static void note_state(void) {
    const char *path = getenv("FAKE_STATES");
    if (path == NULL) return;
    FILE *file = fopen(path, "ab");
    if (file == NULL) return;
    fwrite(state_in, sizeof state_in, 1, file);
    fclose(file);
}

int TfLiteInterpreterInvoke(void *interpreter) {
    (void)interpreter;
    if (must_fail("invoke")) return 1;
    note_state();
    float sum = frame[0] + frame[1] + frame[2] + frame[3];
    scores[0] = sum;
    scores[1] = state_in[0];
    scores[2] = state_in[1];
    state_out[0] = state_in[0] + sum;
    state_out[1] = state_in[1] * 0.5f;
    return 0;
}
