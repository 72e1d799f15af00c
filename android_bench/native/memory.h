/* Memory counters of this process, from /proc/self/status. */
#ifndef MVTOOL_MEMORY_H
#define MVTOOL_MEMORY_H

/* In the order of a launch; their names are those of `mvtool.bench.record.Place`. */
enum place { AT_START, AT_LIBRARY, AT_LOADED, AT_FIRST, AT_END, PLACES };

struct memory_mark {
    unsigned long long vm_hwm_kb;
    unsigned long long vm_rss_kb;
    unsigned long long vm_swap_kb;
    unsigned long long rss_anon_kb; /* rss_* add up to vm_rss_kb */
    unsigned long long rss_file_kb;
    unsigned long long rss_shmem_kb;
};

/* `getrusage` is no substitute: its peak begins with that of the process that called exec. */
struct memory_mark memory_now(void);

/* Copies /proc/self/smaps, which tells what every mapping holds, to a file. */
void memory_maps(const char *path);

#endif
