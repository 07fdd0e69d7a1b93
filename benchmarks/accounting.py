"""What the operating system says about processes: CPU time, memory, cores. Also the line about the machine.

CPU time is the kernel's own account of a process and its children, threads included, to the nanosecond where
the system has per-process clocks (Linux) and to its clock tick elsewhere.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_HAS_CLOCKS = sys.platform == "linux"


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_of(process: psutil.Process) -> float:
    if _HAS_CLOCKS:
        try:
            # clock_getcpuclockid(3): another process's clock is its inverted id and the bits "scheduler".
            return time.clock_gettime((~process.pid << 3) | 2)
        except OSError:
            return 0.0
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


class CpuClock:
    """The CPU seconds that a process and the children it has at the first reading have used so far."""

    def __init__(self, pid: int) -> None:
        self._family = _family(pid)

    def read(self) -> float:
        return sum(map(_cpu_of, self._family))


def resident(pid: int) -> int:
    """Bytes of physical memory of a process and its children; shared pages count in each of them."""
    total = 0
    for process in _family(pid):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


class Cores:
    """Which core runs what: the measured process alone on one, stub and load generator on the other."""

    def __init__(self) -> None:
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.pinned = len(self._all) >= 2

    def measured(self) -> None:
        """Move to the core of the measured process; what is started now inherits it."""
        if self.pinned:
            os.sched_setaffinity(0, {self._all[1]})

    def load(self) -> None:
        if self.pinned:
            os.sched_setaffinity(0, {self._all[0]})

    def release(self) -> None:
        if self.pinned:
            os.sched_setaffinity(0, set(self._all))


def machine() -> str:
    """One line: processor, cores, memory, system, interpreter."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = psutil.virtual_memory().total / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, load before the run {load}"
    )
