"""Times a contender from inside and prints its one JSON line.

`wall_s` and `cpu_s` cover the work between construction and `report`; `process_cpu_s` and `peak_rss_mb` cover the whole
process with its imports, as the kernel counts them. benches/run measures the process from outside as well.
"""

import json
import resource
import time


class Measure:
    def __init__(self, name):
        self.name = name
        self.wall = time.perf_counter()
        self.cpu = time.process_time()

    def report(self, items, size):
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({
            "name": self.name,
            "wall_s": round(wall, 6),
            "cpu_s": round(cpu, 6),
            "process_cpu_s": round(usage.ru_utime + usage.ru_stime, 6),
            "peak_rss_mb": round(peak_kib() / 1024, 1),
            "items": items,
            "bytes": size,
        }))


def peak_kib():
    # ru_maxrss would start from the parent's size at fork.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
