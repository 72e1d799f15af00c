/* The result of a launch (`mvtool.run/1`); its keys are in mvtool/bench/run_result.py. */
#ifndef MVTOOL_RESULT_H
#define MVTOOL_RESULT_H

#include "backend.h"
#include "measure.h"

/* Writes the plan's result file beside itself, and renames it when it is complete and on disk. */
void result_write(const struct plan *plan, const struct backend *backend, struct measurement *measured);

/* What `--version` prints. */
const char *runner_version(void);

#endif
