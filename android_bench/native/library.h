/* The runtime library of .tflite files, opened while running. */
#ifndef MVTOOL_LIBRARY_H
#define MVTOOL_LIBRARY_H

#include <stdbool.h>

#include "backend.h"

struct symbol {
    const char *name;
    void *address; /* of a pointer to a function */
};

/* Finds every symbol or fails with the name of the one that is missing. The list ends with a NULL name. */
void symbols_find(void *handle, const char *library, const struct symbol *symbols);

bool symbol_exists(void *handle, const char *name);

/* The two interfaces; each fills in the functions of a backend whose library is open. */
void litert_use(struct backend *backend, void *handle);
void tflite_use(struct backend *backend, void *handle);

#endif
