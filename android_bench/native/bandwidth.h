/* The rate at which the processor moves memory, for the roofline. */
#ifndef MVTOOL_BANDWIDTH_H
#define MVTOOL_BANDWIDTH_H

/* Prints one line of JSON with the best of several copies of `bytes` bytes; bytes read and written count together. */
int bandwidth_print(const char *bytes);

#endif
