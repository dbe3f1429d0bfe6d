"""How much memory a run may take."""

from __future__ import annotations

from dataclasses import dataclass

from geoseg.core.machine import available_cores, available_memory, peak_memory, resident_memory
from geoseg.errors import UsageError
from geoseg.prediction.block_memory import decoder_bytes
from geoseg.prediction.plan import Plan
from geoseg.prediction.preflight import sample_chips
from geoseg.runtimes import Runtime, checked

__all__ = ["Budget", "memory_budget"]

#: Of the memory that is free, what a run takes without --mem-limit.
USUAL_SHARE = 0.6
#: And at most.
MOST_SHARE = 0.9
#: What libraries take as they go: buffers of GDAL's drivers, Python's own objects, a heap for each
#: thread. With Python 3.13 and rasterio 1.5 a run took 103 MB.
SLACK_BYTES = 112 << 20


@dataclass(frozen=True)
class Budget:
    """Memory of a run.

    Attributes:
        limit: bytes of the process in all.
        arrays: of these, what is left for the network's arrays.
        at_most: for the arrays of a run that goes on with lanes which an earlier one cut by what
            was free then.
    """

    limit: int
    arrays: int
    at_most: int


def memory_budget(plan: Plan, runtime: Runtime) -> Budget:
    """Decide how much memory a run may take, once the runtime is loaded.

    With a limit of the user's the network is run on a few chips first: what it computes with is
    often more than what it weighs.

    Args:
        plan: with the user's limit; without one it is a share of what is free.
        runtime: of the run.

    Raises:
        UsageError: what is loaded takes as much already.
    """
    if plan.options.mem_limit is not None:
        _warm_up(plan, runtime)
    taken = resident_memory()
    free = available_memory()
    limit = plan.options.mem_limit or taken + int(USUAL_SHARE * free)
    rest = plan.cache_bytes + decoder_bytes(plan.read_bands) + plan.polygon_bytes + SLACK_BYTES
    arrays = limit - taken - rest
    if plan.options.mem_limit is not None and peak_memory() > limit:
        # What is compiled takes more in the making than after it.
        arrays = min(arrays, limit - peak_memory())
    if arrays <= 0:
        need = (limit - arrays) / 1e6
        raise UsageError(
            f"the memory limit is {limit / 1e6:.0f} MB, and {need:.0f} MB are needed before the "
            f"first pixel; raise --mem-limit"
        )
    at_most = arrays if plan.options.mem_limit else int(MOST_SHARE * free) - rest
    return Budget(limit, arrays, max(arrays, at_most))


def _warm_up(plan: Plan, runtime: Runtime) -> None:
    """Compute a chip in as many places at a time as the run will."""
    chips = sample_chips(plan, 1)
    many = (plan.options.threads or available_cores()) + 2
    for _ in checked.run(runtime, ((i, chip) for chip in chips for i in range(many)), 1):
        pass
