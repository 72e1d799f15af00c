/* Time in nanoseconds of CLOCK_MONOTONIC, and the processors that the process may use. */
#ifndef MVTOOL_CLOCK_H
#define MVTOOL_CLOCK_H

#include <stddef.h>
#include <stdint.h>

uint64_t now_ns(void);

/* Sleeps until `due_ns`; returns at once where that is past. */
void sleep_until(uint64_t due_ns);

/* Pins the process, and every thread that it makes later, to the processors of a hexadecimal mask. */
void affinity_set(const char *mask);

enum { AFFINITY_TEXT = 272 };

/* The mask that holds, in hexadecimal. */
void affinity_get(char text[AFFINITY_TEXT]);

#endif
