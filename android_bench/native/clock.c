#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* cpu_set_t */
#endif
#include "clock.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "failure.h"

static const uint64_t SECOND_NS = 1000000000;

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

void sleep_until(uint64_t due_ns) {
    struct timespec due = {.tv_sec = (time_t)(due_ns / SECOND_NS), .tv_nsec = (long)(due_ns % SECOND_NS)};
    int error;
    do {
        error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    } while (error == EINTR);
    if (error != 0) fail(EXIT_RUN, "waiting for the due time of a frame failed: %s", strerror(error));
}

static unsigned digit_of(char c) {
    return (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
}

void affinity_set(const char *mask) {
    cpu_set_t set;
    CPU_ZERO(&set);
    size_t length = strlen(mask);
    for (size_t digit = 0; digit < length; digit++) {
        unsigned value = digit_of(mask[length - 1 - digit]);
        for (unsigned bit = 0; bit < 4; bit++) {
            size_t processor = digit * 4 + bit;
            if (!(value >> bit & 1)) continue;
            if (processor >= CPU_SETSIZE) fail(EXIT_RUN, "the affinity names processor %zu, there are none", processor);
            CPU_SET(processor, &set);
        }
    }
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        fail(EXIT_RUN, "the system refuses the affinity %.80s: %s; name processors that it has", mask, strerror(errno));
    }
}

void affinity_get(char text[AFFINITY_TEXT]) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        fail(EXIT_RUN, "the affinity cannot be read: %s", strerror(errno));
    }
    size_t filled = 0;
    for (size_t digit = CPU_SETSIZE / 4; digit-- > 0;) {
        unsigned value = 0;
        for (size_t bit = 0; bit < 4; bit++) value |= (unsigned)(CPU_ISSET(digit * 4 + bit, &set) != 0) << bit;
        if ((value != 0 || filled > 0) && filled + 1 < AFFINITY_TEXT) text[filled++] = "0123456789abcdef"[value];
    }
    text[filled] = '\0';
}
