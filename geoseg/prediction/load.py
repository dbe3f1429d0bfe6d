"""Models made ready for a scene, as an earlier run of the same chose."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from geoseg.core.machine import machine_mark
from geoseg.prediction.budget import Budget
from geoseg.prediction.plan import OutputLane, Plan
from geoseg.prediction.preflight import sample_chips
from geoseg.prediction.run_log import RunLog
from geoseg.runtimes import PRECISIONS, RUNTIMES, Runtime, load_runtime
from geoseg.runtimes.agreement import LEAST_CHIPS, sample_size
from geoseg.runtimes.ensemble import Ensemble
from geoseg.scene.reader import pixel_dtype

__all__ = ["lanes_of", "load_members"]


#: Chips on which 8 bits are calibrated and judged.
INT8_CHIPS = 16


#: Chips that a choice is made on may take so much memory, or 4 of them what they need.
SAMPLE_BYTES = 64 << 20


def lanes_of(plan: Plan, budget: Budget, earlier: Mapping[str, Any]) -> tuple[OutputLane, ...]:
    """Take the lanes of the run that was stopped where they fit, else cut new ones."""
    before = plan.lanes_at(earlier.get("lanes", ()))
    if before and max(plan.lane_bytes(lane) for lane in before) <= budget.at_most:
        return before
    return plan.lanes(budget.arrays)


def load_members(plan: Plan, log: RunLog, earlier: Mapping[str, Any] | None = None) -> Runtime:
    """The runtime of a plan's model, or of all its models and turned chips.

    Args:
        plan: of the run.
        log: to which notes for the user are reported.
        earlier: the record of a run that was stopped: what it chose is not chosen anew.

    Raises:
        GeosegError: see :func:`geoseg.runtimes.load_runtime`.
    """
    options = plan.options
    runtime, precision = _chosen_before(plan, earlier or {}) or (options.runtime, options.precision)
    count = _sample_size(plan, precision)
    # Calibrated on all of the scene, a part of it gets the numbers that it has in the whole map.
    sample = cache(lambda: sample_chips(plan, count, of_all=precision == "int8"))
    runtimes = [
        load_runtime(
            files,
            plan.radiometry,
            runtime=runtime,
            precision=precision,
            device=options.device,
            threads=options.threads,
            sample=sample,
            chips=len(plan.chips),
            report=lambda message: log.report("note", message=message),
        )
        for files in plan.members
    ]
    if (runtime, precision) != (options.runtime, options.precision):
        for made in runtimes:
            made.choice = f"as the run that was stopped; {made.choice}"
    if len(runtimes) == 1 and options.tta == "none":
        return runtimes[0]
    return Ensemble(runtimes, options.tta, agreement=plan.outputs.agreement is not None)


def _sample_size(plan: Plan, precision: str) -> int:
    """Count the chips that a choice is made on, or 8 bits are calibrated with."""
    if precision == "int8":
        return INT8_CHIPS
    if precision != "auto":
        return 1
    chips, dtype = plan.chips, pixel_dtype(plan.bands, plan.model_grid)
    each = len(plan.bands) * chips.chip_height * chips.chip_width * np.dtype(dtype).itemsize
    return min(sample_size(len(chips)), max(LEAST_CHIPS, SAMPLE_BYTES // each))


def _chosen_before(plan: Plan, earlier: Mapping[str, Any]) -> tuple[str, str] | None:
    """The runtime and precision of a run that was stopped on this machine."""
    before, here = earlier.get("runtime"), machine_mark()
    if not isinstance(before, list) or len(before) != 3 or earlier.get("machine") != here:
        return None
    name, precision, _ = before
    # Several models may each have a choice of their own.
    if len(plan.members) > 1 or name not in RUNTIMES or precision not in PRECISIONS:
        return None
    options = plan.options
    asked = (options.runtime, name), (options.precision, precision)
    return (name, precision) if all(a in ("auto", b) for a, b in asked) else None
