"""How much memory a run may take."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from geoseg.errors import UsageError
from geoseg.plan import Plan
from geoseg.report import peak_memory

__all__ = ["Budget", "memory_budget"]

#: Of the memory that is free, what a run takes unless it is told otherwise.
USUAL_SHARE = 0.6
#: What libraries take as they go: buffers of GDAL's drivers, Python's own objects.
SLACK_BYTES = 64 << 20


@dataclass(frozen=True)
class Budget:
    """Memory of a run.

    Attributes:
        limit: bytes of the process in all.
        arrays: of these, what is left for the network's arrays.
    """

    limit: int
    arrays: int


def memory_budget(plan: Plan) -> Budget:
    """What a run may take, once the runtime is loaded.

    Args:
        plan: with the user's limit; without one it is a share of what is free.

    Raises:
        UsageError: what is loaded takes as much already.
    """
    taken = _resident()
    limit = plan.options.mem_limit or taken + int(USUAL_SHARE * _available())
    arrays = limit - taken - plan.cache_bytes - plan.polygon_bytes - SLACK_BYTES
    if arrays <= 0:
        need = (limit - arrays) / 1e6
        raise UsageError(
            f"the memory limit is {limit / 1e6:.0f} MB, and {need:.0f} MB are needed before the "
            f"first pixel; raise --mem-limit"
        )
    return Budget(limit, arrays)


def _resident() -> int:
    """Bytes that this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _available() -> int:
    """Bytes that are free on this machine, within the container's limit where there is one."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    except (OSError, ValueError, IndexError):
        pass
    try:
        group = Path("/sys/fs/cgroup")
        most = int((group / "memory.max").read_text(encoding="ascii"))
        found.append(max(0, most - int((group / "memory.current").read_text(encoding="ascii"))))
    except (OSError, ValueError):  # no such group, or "max"
        pass
    # Where nothing tells, as on a Mac: as much as a small machine has.
    return min(found, default=4 << 30)
