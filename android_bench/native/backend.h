/* A runtime as the measuring loop sees it. Both programs measure with the same loop, through this interface. */
#ifndef MVTOOL_BACKEND_H
#define MVTOOL_BACKEND_H

#include <stdbool.h>
#include <stddef.h>

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

enum side { SIDE_INPUT, SIDE_STATE_IN, SIDE_OUTPUT };

enum accelerated { ACCELERATED_UNKNOWN, ACCELERATED_PARTLY, ACCELERATED_FULLY };

/* What ran the graph and from what that is known; strings live as long as the process. */
struct delegate {
    const char *name;
    enum accelerated accelerated;
    const char *evidence;
};

/* Every function fails with a message instead of returning an error. `index` counts the plan's inputs, its outputs, or the
   ports of its `state_ins`. */
struct backend {
    const char *api;             /* LiteRt, TfLite or ExecuTorch */
    const char *library;         /* file name of the runtime library */
    const char *library_version; /* as the library tells, or NULL */
    const char *state_loop;      /* swap, alias or copy; known once the model is loaded */
    const char *memory_includes; /* JSON array of what an app's process would not hold */

    /* Opens the library and makes its environment. */
    void (*open_library)(struct backend *, const struct plan *);
    /* Loads and compiles the model, allocates ports and checks that they are those of the plan. */
    void (*load_model)(struct backend *, const struct plan *);
    /* Delegate that really ran; called after the first invoke, when everything lazy has happened. */
    struct delegate (*delegate)(struct backend *);
    /* Memory of a port, to be written or read until `unmap`. */
    void *(*map)(struct backend *, enum side, size_t index, bool write);
    void (*unmap)(struct backend *, enum side, size_t index);
    void (*invoke)(struct backend *);
    /* Makes every state output a state input of the next invoke, and moves the slots of a ring up. */
    void (*loop_states)(struct backend *);

    const struct plan *plan;
    void *self;
};

/* The runtime of this program. */
void backend_make(struct backend *, const struct plan *);

#ifdef __cplusplus
}
#endif
#endif
