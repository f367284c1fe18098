"""What the machine says of itself and of what processes used. Read from /proc; where there is none, all is None."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from rowlock import __version__

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
CORES = os.cpu_count() or 1
SYNCS = 40
SYNC_BYTES = 8192
# Fields of /proc/<pid>/stat behind the name: parent; user, system, and the same of children that are gone.
PARENT, USED = 1, slice(11, 15)
BUSY = (0, 1, 2, 5, 6, 7)  # of /proc/stat: user, nice, system, irq, softirq, steal


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that a process and all its descendants have used so far."""
    family = _family(pid)
    return sum(sum(map(int, fields[USED])) for fields in family.values()) / TICKS if family else None


def busy_seconds() -> float | None:
    """Return the CPU time that the whole machine has used so far, whoever it was for."""
    try:
        numbers = (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    return sum(int(numbers[it]) for it in BUSY) / TICKS


def forget_peak(pid: int) -> None:
    """Let `peak_megabytes` begin anew with what the process and its descendants have now."""
    for it in _family(pid):
        with contextlib.suppress(OSError):
            (PROC / str(it) / "clear_refs").write_text("5")


def peak_megabytes(pid: int) -> float | None:
    """Return the most memory (10⁶ bytes of resident set) that one process had: this one, or a descendant.

    It counts from the process's begin, or from `forget_peak` on.
    """
    return max((it for it in map(_peak_megabytes, _family(pid)) if it is not None), default=None)


def _peak_megabytes(pid: int) -> float | None:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return found[0] * 1024 / 1e6 if found else None


def sync_milliseconds(folder: Path) -> float:
    """Return the median time that making a written page durable takes: what a commit has to wait for at least."""
    file = folder / "sync-probe"
    spent: list[float] = []
    with file.open("wb", buffering=0) as probe:
        for _ in range(SYNCS):
            probe.write(b"\0" * SYNC_BYTES)
            started = time.perf_counter()
            os.fsync(probe.fileno())
            spent.append(time.perf_counter() - started)
    file.unlink()
    return median(spent) * 1000


def description() -> dict[str, Any]:
    """Describe machine and software."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": CORES,
        "python": sys.version.split()[0],
        "rowlock": __version__,
    }


def _processor() -> str:
    try:
        lines = (PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _family(pid: int) -> dict[int, list[str]]:
    """Return a process and all its descendants, of those that `_processes` returns."""
    processes = _processes()
    family, grown = set[int](), {pid} & processes.keys()
    while grown:
        family |= grown
        grown = {it for it, fields in processes.items() if int(fields[PARENT]) in family} - family
    return {it: processes[it] for it in family}


def _processes() -> dict[int, list[str]]:
    """Return the fields of each process's `stat` from its state on; those before may hold spaces."""
    processes = {}
    for entry in PROC.glob("[0-9]*/stat"):
        try:
            processes[int(entry.parent.name)] = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended just now
    return processes
