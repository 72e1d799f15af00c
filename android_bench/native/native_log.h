/* What the runtime library writes to standard error while it loads a model: it tells which delegate it made. */
#ifndef MVTOOL_NATIVE_LOG_H
#define MVTOOL_NATIVE_LOG_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Takes standard error up in a nameless file beside `result`; where there can be none, nothing is taken up. */
void native_log_start(const char *result);

/* Gives standard error back and passes on what was taken up; without `native_log_start` it does nothing. */
void native_log_stop(void);

/* Whether the library said that it created the XNNPACK delegate; known after `native_log_stop`. */
bool native_log_saw_xnnpack(void);

#ifdef __cplusplus
}
#endif
#endif
