/* State outputs copied to state inputs, where a runtime does not let buffers be swapped. */
#ifndef MVTOOL_COPIES_H
#define MVTOOL_COPIES_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct copy {
    const void *from;
    void *to;
    size_t bytes;
};

struct copies {
    struct copy *list;
    size_t count;
    bool planned;
    unsigned char *staging; /* NULL where no target overlaps another source */
};

void copies_make(struct copies *copies, size_t count);

/* Copies all of `list`, in its order. The first call looks whether a target overlaps a source of a later copy, which memory
   planners do: they give a state output the place of a state input that is dead by then. If so, all go through memory of
   their own. */
void copies_run(struct copies *copies);

#ifdef __cplusplus
}
#endif
#endif
