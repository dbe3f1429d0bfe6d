"""The machine that geoseg runs on: its memory and cores, within the limits of containers.

Linux puts the processes of a container, or of a batch job, into control groups, which lie in one
another; each may have limits (https://docs.kernel.org/admin-guide/cgroup-v1/ and cgroup-v2.html).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

__all__ = [
    "available_cores",
    "available_memory",
    "machine",
    "machine_mark",
    "peak_memory",
    "release_memory",
    "resident_memory",
]

#: Where Linux shows control groups, and those of this process.
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def machine() -> list[Any]:
    """Describe what sets this machine apart from others that share a home folder, for JSON."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.startswith(("model name", "flags"))]
        model = "\n".join(sorted(set(lines)))
    except OSError:
        model = platform.processor()
    return [platform.machine(), model, os.cpu_count()]


def machine_mark() -> str:
    """Shorten to a name what sets this machine apart from others."""
    return hashlib.sha256(json.dumps(machine()).encode()).hexdigest()[:12]


def available_cores() -> int:
    """Count the cores that this process may use, by its affinity and its containers' limits."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    for group in _groups("cpu"):
        try:
            if (group / "cpu.max").exists():
                quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
            else:
                quota, period = (
                    (group / f"cpu.cfs_{name}_us").read_text(encoding="ascii")
                    for name in ("quota", "period")
                )
            if int(quota) > 0:
                cores = min(cores, math.ceil(int(quota) / int(period)))
        except (OSError, ValueError):  # no limit
            continue
    return max(1, cores)


def resident_memory() -> int:
    """Bytes that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Bytes that this process has held at most so far."""
    try:
        # What getrusage gives counts the memory of the process that started this one, too.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, ValueError, StopIteration):  # not Linux
        pass
    try:
        import resource
    except ImportError:  # Windows
        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def release_memory() -> None:
    """Give back to the system what was freed, where the C library would keep it for later."""
    with suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def available_memory() -> int:
    """Bytes that this process may still take, by what is free and its containers' limits."""
    found = [int(psutil.virtual_memory().available)]
    for group in _groups("memory"):
        try:
            if (group / "memory.max").exists():
                most, used = (_number(group / f"memory.{name}") for name in ("max", "current"))
                files = "inactive_file "
            else:
                most, used = (_number(group / f"memory.{n}_in_bytes") for n in ("limit", "usage"))
                files = "total_inactive_file "
            # Of files that were read and are not in use the kernel frees what is asked for.
            for line in (group / "memory.stat").read_text(encoding="ascii").splitlines():
                if line.startswith(files):
                    used -= int(line.split()[1])
            found.append(max(0, most - used))
        except (OSError, ValueError):  # no limit
            continue
    return min(found)


def _groups(controller: str) -> Iterator[Path]:
    """List the folders of this process's control groups for memory or CPU time, and the outer ones.

    Yields:
        Of version 2, whose hierarchy is one, and of version 1, which has one for each controller.
        From inside a container its own group may be shown as the outermost one, whatever path is
        named; so the outermost folder is always among them.
    """
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = GROUPS / controller if controllers else GROUPS
        if not controllers and (GROUPS / "unified").is_dir():
            top = GROUPS / "unified"  # both versions are there
        inner = Path(path.lstrip("/"))
        for part in dict.fromkeys((inner, *inner.parents)):
            if ".." not in part.parts:
                yield top / part


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
