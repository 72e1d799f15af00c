#include "library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "failure.h"

bool symbol_exists(void *handle, const char *name) {
    return dlsym(handle, name) != NULL;
}

void symbols_find(void *handle, const char *library, const struct symbol *symbols) {
    for (; symbols->name != NULL; symbols++) {
        void *found = dlsym(handle, symbols->name);
        if (found == NULL) {
            fail(EXIT_LIBRARY, "the library %s lacks the function %s; give another version of it", library,
                 symbols->name);
        }
        /* ISO C has no conversion from an object's address to a function's; POSIX says that the bytes are the same. */
        memcpy(symbols->address, &found, sizeof found);
    }
}

/* A name without a slash would be searched on the system's paths. */
static void *opened(const char *name) {
    char *path = allocate(strlen(name) + 3, 1);
    sprintf(path, "%s%s", strchr(name, '/') == NULL ? "./" : "", name);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *reason = dlerror();
        fail(EXIT_LIBRARY, "the library cannot be opened: %s", reason ? reason : name);
    }
    return handle;
}

static void open_library(struct backend *backend, const struct plan *plan) {
    if (plan->library == NULL) fail(EXIT_USAGE, "this runner opens a library, and the plan names none");
    void *handle = opened(plan->library);
    const char *slash = strrchr(plan->library, '/');
    backend->library = slash == NULL ? plan->library : slash + 1;
    if (symbol_exists(handle, "LiteRtCreateCompiledModel")) {
        litert_use(backend, handle);
    } else if (symbol_exists(handle, "TfLiteInterpreterCreate")) {
        tflite_use(backend, handle);
    } else {
        fail(EXIT_LIBRARY,
             "the library %s exports neither the LiteRt nor the TfLite functions; expected libLiteRt.so (2.1.6 or "
             "newer), "
             "libtensorflowlite_c.so or libtensorflowlite_jni.so",
             backend->library);
    }
    backend->open_library(backend, plan);
}

void backend_make(struct backend *backend, const struct plan *plan) {
    *backend = (struct backend){.open_library = open_library, .memory_includes = "[]", .plan = plan};
}
