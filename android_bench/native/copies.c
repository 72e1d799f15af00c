#include "copies.h"

#include <stdint.h>
#include <string.h>

#include "failure.h"

void copies_make(struct copies *copies, size_t count) {
    *copies = (struct copies){.list = allocate(count, sizeof *copies->list), .count = count};
}

static bool overlap(const struct copy *target, const struct copy *source) {
    uintptr_t to = (uintptr_t)target->to, from = (uintptr_t)source->from;
    return to < from + source->bytes && from < to + target->bytes;
}

static bool overlapping(const struct copies *copies) {
    for (size_t i = 0; i < copies->count; i++) {
        for (size_t j = i; j < copies->count; j++) {
            bool same = i == j && copies->list[i].to == copies->list[j].from;
            if (!same && overlap(&copies->list[i], &copies->list[j])) return true;
        }
    }
    return false;
}

static void plan_staging(struct copies *copies) {
    copies->planned = true;
    if (!overlapping(copies)) return;
    size_t bytes = 0;
    for (size_t i = 0; i < copies->count; i++) bytes += copies->list[i].bytes;
    copies->staging = allocate(bytes, 1);
}

void copies_run(struct copies *copies) {
    if (!copies->planned) plan_staging(copies);
    unsigned char *staged = copies->staging;
    for (size_t i = 0; i < copies->count; i++) {
        struct copy *copy = &copies->list[i];
        if (copies->staging == NULL) {
            if (copy->to != copy->from) memcpy(copy->to, copy->from, copy->bytes);
            continue;
        }
        memcpy(staged, copy->from, copy->bytes);
        copy->from = staged;
        staged += copy->bytes;
    }
    if (copies->staging == NULL) return;
    for (size_t i = 0; i < copies->count; i++) memcpy(copies->list[i].to, copies->list[i].from, copies->list[i].bytes);
}
