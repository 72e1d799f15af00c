/* One launch: load, check, warm up, measure. */
#ifndef MVTOOL_MEASURE_H
#define MVTOOL_MEASURE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "columns.h"
#include "memory.h"

struct measurement {
    uint64_t library_ns;
    uint64_t load_ns;
    uint64_t reset_ns;
    uint64_t first_ns;
    struct column warmup;
    struct column start;
    struct column input;
    struct column inference;
    struct column state;
    struct column output;
    struct column late; /* empty where frames are not paced */
    struct memory_mark memory[PLACES];
    struct memory_mark *marks; /* one per mark of the plan */
    size_t mark_count;         /* of those that were reached */
    struct delegate delegate;
    bool out_of_time; /* `max_seconds` ended the timed part */
};

/* Does what the plan asks for; fails instead of returning an error. */
void measure(struct measurement *measured, struct backend *backend, const struct plan *plan);

#endif
