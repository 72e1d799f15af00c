/* Memory counters of this process, from /proc/self/status. */
#ifndef MVTOOL_MEMORY_H
#define MVTOOL_MEMORY_H

/* In the order of a launch; their names are those of `mvtool.bench.record.Place`. */
enum place { AT_START, AT_LIBRARY, AT_LOADED, AT_FIRST, AT_END, PLACES };

struct memory_mark {
    unsigned long long vm_hwm_kb;
    unsigned long long vm_rss_kb;
    unsigned long long vm_swap_kb;
};

/* `getrusage` is no substitute: its peak begins with that of the process that called exec. */
struct memory_mark memory_now(void);

#endif
