/* The plan of a launch (`mvtool.plan/1`); its grammar is in mvtool/bench/plan.py. */
#ifndef MVTOOL_PLAN_H
#define MVTOOL_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { LONGEST_ELEMENT_BYTES = 16 };

struct port {
    size_t position;
    const char *name;
    size_t bytes;
};

struct input {
    struct port port;
    const char *file;
    uint64_t count;
};

/* A step takes `in_count` ports, oldest first, and gives `out_count`, the newest of them. Before the next step the values
   move up: port i takes what port i + out_count had, and the last ports take what the step gave. A state that is not
   held in slots has one of each. */
struct state {
    const char *name;
    size_t bytes;  /* of each port */
    size_t in;     /* first of its ports in `state_ins` */
    size_t in_count;
    size_t out;    /* first of its ports in `state_outs` */
    size_t out_count;
    const char *reset_file; /* NULL where one element is repeated */
    unsigned char element[LONGEST_ELEMENT_BYTES];
    size_t element_bytes;
};

struct plan {
    const char *runtime;
    const char *model;
    const char *library; /* NULL where it is linked into the runner */
    const char *result;
    int threads;
    const char *affinity; /* hexadecimal mask, or NULL */
    const char *weight_cache; /* file of the packed weights, or NULL */
    bool keep_model_pages;    /* in memory after the weights are packed */
    struct input *inputs;
    size_t input_count;
    struct state *states;
    size_t state_count;
    struct port *state_ins; /* of all states, in their order */
    size_t state_in_count;
    struct port *state_outs;
    size_t state_out_count;
    struct port *outputs;
    size_t output_count;
    uint64_t check_steps; /* 0 for none */
    const char *check_file;
    uint64_t warmup_invokes;
    double warmup_seconds;
    uint64_t min_invokes;
    double min_seconds;
    double max_seconds;
    double calls_per_second; /* 0 for flat out */
    uint64_t *marks; /* timed calls after which memory is read, growing */
    size_t mark_count;
    const char *maps_file; /* for the mappings after the last call, or NULL */
};

/* Reads a plan; fails with the number of the line that is wrong. Its strings live as long as the process. */
struct plan plan_read(const char *path, const char *runtime);

#ifdef __cplusplus
}
#endif
#endif
