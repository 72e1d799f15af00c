#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failure.h"

static const char SCHEMA[] = "mvtool.plan/1";

enum { LARGEST_PLAN_BYTES = 1 << 22, MOST_WORDS = 16, MOST_THREADS = 1024, LONGEST_HEX = 2 * LONGEST_ELEMENT_BYTES };

/* 2^53: every whole number up to it is exact as a double. */
static const uint64_t LARGEST_NUMBER = UINT64_C(1) << 53;

struct line {
    const char *path;
    size_t number;
    size_t count;
    char *words[MOST_WORDS];
};

typedef void (*handler)(struct plan *, const struct line *);

struct keyword {
    const char *name;
    size_t words; /* keyword included */
    bool repeats;
    bool optional;
    handler take;
};

__attribute__((noreturn)) static void refuse(const struct line *line, const char *what, const char *got) {
    fail(EXIT_USAGE, "%s, line %zu: %s, got '%.80s'", line->path, line->number, what, got);
}

static uint64_t whole(const struct line *line, size_t at, const char *what) {
    const char *text = line->words[at];
    uint64_t value = 0;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9') refuse(line, what, text);
        value = value * 10 + (uint64_t)(*c - '0');
        if (value > LARGEST_NUMBER) refuse(line, what, text);
    }
    return value;
}

static uint64_t positive(const struct line *line, size_t at, const char *what) {
    uint64_t value = whole(line, at, what);
    if (value == 0) refuse(line, what, line->words[at]);
    return value;
}

static double decimal(const struct line *line, size_t at, const char *what) {
    const char *text = line->words[at];
    size_t length = strlen(text);
    /* No sign, exponent, infinity or hexadecimal digits, all of which strtod takes. */
    if (length > 32 || strspn(text, "0123456789.") != length) refuse(line, what, text);
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value > 1e9) refuse(line, what, text);
    return value;
}

static struct port port_of(const struct line *line, size_t position, size_t name, size_t bytes) {
    return (struct port){
        .position = (size_t)whole(line, position, "a position is a whole number"),
        .name = line->words[name],
        .bytes = (size_t)positive(line, bytes, "a size is a positive number of bytes"),
    };
}

static void *grown(void *array, size_t count, size_t size) {
    void *larger = realloc(array, (count + 1) * size);
    if (larger == NULL) fail(EXIT_RUN, "there is no memory for the plan");
    return larger;
}

static void take_runtime(struct plan *plan, const struct line *line) {
    if (plan->runtime != NULL && strcmp(plan->runtime, line->words[1]) != 0) {
        refuse(line, "this runner is for another runtime", line->words[1]);
    }
}

static void take_model(struct plan *plan, const struct line *line) {
    plan->model = line->words[1];
}

static void take_library(struct plan *plan, const struct line *line) {
    plan->library = strcmp(line->words[1], "-") == 0 ? NULL : line->words[1];
}

static void take_result(struct plan *plan, const struct line *line) {
    plan->result = line->words[1];
}

static void take_threads(struct plan *plan, const struct line *line) {
    uint64_t threads = positive(line, 1, "threads are a positive number");
    if (threads > MOST_THREADS) refuse(line, "threads are at most 1024", line->words[1]);
    plan->threads = (int)threads;
}

static void take_affinity(struct plan *plan, const struct line *line) {
    const char *mask = line->words[1];
    if (strspn(mask, "0123456789abcdefABCDEF") != strlen(mask) || strspn(mask, "0") == strlen(mask)) {
        refuse(line, "an affinity is a hexadecimal mask with at least one bit", mask);
    }
    plan->affinity = mask;
}

/* A library gets the name inside quotes. */
static void take_weight_cache(struct plan *plan, const struct line *line) {
    if (strpbrk(line->words[1], "'\"\\") != NULL) {
        refuse(line, "the name of a weight cache holds neither quotes nor backslashes", line->words[1]);
    }
    plan->weight_cache = line->words[1];
}

static void take_keep_model_pages(struct plan *plan, const struct line *line) {
    (void)line;
    plan->keep_model_pages = true;
}

static void take_input(struct plan *plan, const struct line *line) {
    plan->inputs = grown(plan->inputs, plan->input_count, sizeof *plan->inputs);
    plan->inputs[plan->input_count++] = (struct input){
        .port = port_of(line, 1, 2, 3),
        .file = line->words[4],
        .count = positive(line, 5, "a count is a positive number of stored arrays"),
    };
}

static int nibble(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
    return -1;
}

static void take_element(struct state *state, const struct line *line, const char *hex) {
    size_t length = strlen(hex);
    if (length == 0 || length % 2 || length > LONGEST_HEX)
        refuse(line, "an element is 1 to 16 bytes in hexadecimal", hex);
    state->element_bytes = length / 2;
    for (size_t i = 0; i < state->element_bytes; i++) {
        int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
        if (high < 0 || low < 0) refuse(line, "an element is 1 to 16 bytes in hexadecimal", hex);
        state->element[i] = (unsigned char)(high * 16 + low);
    }
    if (state->bytes % state->element_bytes) refuse(line, "the state is no whole number of elements", hex);
}

/* Words `at` and `at + 1`. */
static void take_reset(struct state *state, const struct line *line, size_t at) {
    const char *kind = line->words[at], *value = line->words[at + 1];
    if (strcmp(kind, "file") == 0) {
        state->reset_file = value;
    } else if (strcmp(kind, "element") == 0) {
        take_element(state, line, value);
    } else {
        refuse(line, "a reset value is 'element' or 'file'", kind);
    }
}

/* The ports of a ring follow it, line by line. */
static void check_last_ring(const struct plan *plan, const struct line *line) {
    if (plan->state_count == 0) return;
    const struct state *last = &plan->states[plan->state_count - 1];
    if (last->in + last->in_count != plan->state_in_count || last->out + last->out_count != plan->state_out_count) {
        refuse(line, "a ring lacks some of its 'slot' or 'newest' lines", last->name);
    }
}

static void add_state(struct plan *plan, const struct line *line, struct state state) {
    check_last_ring(plan, line);
    state.in = plan->state_in_count;
    state.out = plan->state_out_count;
    plan->states = grown(plan->states, plan->state_count, sizeof *plan->states);
    plan->states[plan->state_count++] = state;
}

static void add_state_in(struct plan *plan, struct port port) {
    plan->state_ins = grown(plan->state_ins, plan->state_in_count, sizeof *plan->state_ins);
    plan->state_ins[plan->state_in_count++] = port;
}

static void add_state_out(struct plan *plan, struct port port) {
    plan->state_outs = grown(plan->state_outs, plan->state_out_count, sizeof *plan->state_outs);
    plan->state_outs[plan->state_out_count++] = port;
}

static void take_state(struct plan *plan, const struct line *line) {
    struct port in = port_of(line, 2, 3, 6), out = port_of(line, 4, 5, 6);
    struct state state = {.name = line->words[1], .bytes = in.bytes, .in_count = 1, .out_count = 1};
    take_reset(&state, line, 7);
    add_state(plan, line, state);
    add_state_in(plan, in);
    add_state_out(plan, out);
}

static void take_ring(struct plan *plan, const struct line *line) {
    struct state state = {
        .name = line->words[1],
        .in_count = (size_t)positive(line, 2, "slots are a positive number"),
        .out_count = (size_t)positive(line, 3, "new entries are a positive number"),
        .bytes = (size_t)positive(line, 4, "a size is a positive number of bytes"),
    };
    if (state.out_count >= state.in_count) refuse(line, "a ring has more slots than new entries", line->words[3]);
    take_reset(&state, line, 5);
    add_state(plan, line, state);
}

static struct port ring_port(const struct plan *plan, const struct line *line, bool in) {
    const struct state *ring = plan->state_count ? &plan->states[plan->state_count - 1] : NULL;
    bool wanted = ring != NULL && (in ? plan->state_in_count < ring->in + ring->in_count
                                      : plan->state_out_count < ring->out + ring->out_count);
    if (!wanted) refuse(line, "the line belongs to no ring before it", line->words[0]);
    return (struct port){
        .position = (size_t)whole(line, 1, "a position is a whole number"),
        .name = line->words[2],
        .bytes = ring->bytes,
    };
}

static void take_slot(struct plan *plan, const struct line *line) {
    add_state_in(plan, ring_port(plan, line, true));
}

static void take_newest(struct plan *plan, const struct line *line) {
    add_state_out(plan, ring_port(plan, line, false));
}

static void take_output(struct plan *plan, const struct line *line) {
    plan->outputs = grown(plan->outputs, plan->output_count, sizeof *plan->outputs);
    plan->outputs[plan->output_count++] = port_of(line, 1, 2, 3);
}

static void take_check(struct plan *plan, const struct line *line) {
    plan->check_steps = positive(line, 1, "steps are a positive number");
    plan->check_file = line->words[2];
}

static void take_warmup(struct plan *plan, const struct line *line) {
    plan->warmup_invokes = whole(line, 1, "invokes are a whole number");
    plan->warmup_seconds = decimal(line, 2, "seconds are a decimal number");
}

static void take_timed(struct plan *plan, const struct line *line) {
    plan->min_invokes = positive(line, 1, "timed invokes are a positive number");
    plan->min_seconds = decimal(line, 2, "seconds are a decimal number");
    plan->max_seconds = decimal(line, 3, "seconds are a decimal number");
}

static void take_pace(struct plan *plan, const struct line *line) {
    plan->calls_per_second = decimal(line, 1, "a pace is a positive number of calls per second");
    if (plan->calls_per_second < 1e-3) refuse(line, "a pace is at least 0.001 calls per second", line->words[1]);
}

static void take_mark(struct plan *plan, const struct line *line) {
    uint64_t calls = positive(line, 1, "a mark is a positive number of calls");
    if (plan->mark_count > 0 && calls <= plan->marks[plan->mark_count - 1]) {
        refuse(line, "marks grow from line to line", line->words[1]);
    }
    plan->marks = grown(plan->marks, plan->mark_count, sizeof *plan->marks);
    plan->marks[plan->mark_count++] = calls;
}

static void take_maps(struct plan *plan, const struct line *line) {
    plan->maps_file = line->words[1];
}

static const struct keyword KEYWORDS[] = {
    {"runtime", 2, false, false, take_runtime}, {"model", 2, false, false, take_model},
    {"library", 2, false, false, take_library}, {"result", 2, false, false, take_result},
    {"threads", 2, false, false, take_threads}, {"affinity", 2, false, true, take_affinity},
    {"input", 6, true, true, take_input},       {"state", 9, true, true, take_state},
    {"ring", 7, true, true, take_ring},         {"slot", 3, true, true, take_slot},
    {"newest", 3, true, true, take_newest},
    {"output", 4, true, true, take_output},     {"check", 3, false, true, take_check},
    {"warmup", 3, false, false, take_warmup},   {"timed", 4, false, false, take_timed},
    {"pace", 2, false, true, take_pace},        {"weight_cache", 2, false, true, take_weight_cache},
    {"mark", 2, true, true, take_mark},         {"maps", 2, false, true, take_maps},
    {"keep_model_pages", 1, false, true, take_keep_model_pages},
};

enum { KEYWORD_COUNT = sizeof KEYWORDS / sizeof *KEYWORDS };

static char *content_of(const char *path, size_t *length) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) fail(EXIT_IO, "the plan %s cannot be opened: %s", path, strerror(errno));
    struct stat facts;
    if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) fail(EXIT_IO, "the plan %s is no file", path);
    if (facts.st_size > LARGEST_PLAN_BYTES) fail(EXIT_USAGE, "%s is no plan: it has more than 4 MiB", path);
    char *text = allocate((size_t)facts.st_size + 1, 1);
    size_t filled = 0;
    while (filled < (size_t)facts.st_size) {
        ssize_t got = read(file, text + filled, (size_t)facts.st_size - filled);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) fail(EXIT_IO, "the plan %s cannot be read", path);
        filled += (size_t)got;
    }
    close(file);
    *length = filled;
    return text;
}

/* The words of a line, which are separated by single spaces; an empty word refuses itself later. */
static void split(struct line *line, char *text) {
    line->count = 0;
    for (char *word = text; word != NULL;) {
        if (line->count == MOST_WORDS) refuse(line, "a line has at most 16 words", line->words[0]);
        line->words[line->count++] = word;
        word = strchr(word, ' ');
        if (word != NULL) *word++ = '\0';
    }
    for (size_t i = 0; i < line->count; i++) {
        if (line->words[i][0] == '\0') refuse(line, "words are separated by one space", line->words[0]);
        for (const char *c = line->words[i]; *c; c++) {
            if ((unsigned char)*c < ' ' || *c == 127)
                refuse(line, "a word holds no control characters", line->words[0]);
        }
    }
}

static void take(struct plan *plan, const struct line *line, bool seen[KEYWORD_COUNT]) {
    for (size_t i = 0; i < KEYWORD_COUNT; i++) {
        const struct keyword *keyword = &KEYWORDS[i];
        if (strcmp(keyword->name, line->words[0]) != 0) continue;
        if (line->count != keyword->words)
            refuse(line, "the line has another number of words than it must", keyword->name);
        if (seen[i] && !keyword->repeats) refuse(line, "the line is repeated", keyword->name);
        seen[i] = true;
        keyword->take(plan, line);
        return;
    }
    refuse(line, "the line is not known", line->words[0]);
}

static void check_nothing_missing(const struct line *line, const bool seen[KEYWORD_COUNT]) {
    for (size_t i = 0; i < KEYWORD_COUNT; i++) {
        if (!seen[i] && !KEYWORDS[i].optional) refuse(line, "a line is missing before the end", KEYWORDS[i].name);
    }
}

struct plan plan_read(const char *path, const char *runtime) {
    size_t length = 0;
    char *text = content_of(path, &length);
    struct plan plan = {.runtime = runtime};
    struct line line = {.path = path, .number = 1};
    bool seen[KEYWORD_COUNT] = {false};
    bool ended = false;
    if (memchr(text, '\0', length) != NULL) fail(EXIT_USAGE, "%s is no plan: it holds bytes that are no text", path);
    for (char *start = text; start < text + length; line.number++) {
        char *end = strchr(start, '\n');
        if (end == NULL) refuse(&line, "the plan breaks off within a line", start);
        *end = '\0';
        if (ended) refuse(&line, "nothing may follow 'end'", start);
        split(&line, start);
        if (line.number == 1) {
            if (line.count != 1 || strcmp(start, SCHEMA) != 0)
                refuse(&line, "a plan begins with 'mvtool.plan/1'", start);
        } else if (line.count == 1 && strcmp(start, "end") == 0) {
            check_nothing_missing(&line, seen);
            check_last_ring(&plan, &line);
            ended = true;
        } else {
            take(&plan, &line, seen);
        }
        start = end + 1;
    }
    if (!ended) refuse(&line, "a plan ends with 'end'", "nothing");
    return plan;
}
