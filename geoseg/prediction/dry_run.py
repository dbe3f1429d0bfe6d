"""What a run would do and cost, without writing anything."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.core.gdal import block_cache
from geoseg.core.machine import available_cores, peak_memory
from geoseg.errors import SceneError, UsageError
from geoseg.events import Progress
from geoseg.geo.window import Window
from geoseg.prediction.budget import memory_budget
from geoseg.prediction.chip_crf import ChipCRF
from geoseg.prediction.chips import chip_rows
from geoseg.prediction.load import load_members
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.paths import old_companions
from geoseg.prediction.plan import OutputLane, Plan
from geoseg.prediction.rasters import output_bytes
from geoseg.prediction.report import plan_report, runtime_report
from geoseg.prediction.run import begin
from geoseg.prediction.run_log import RunLog
from geoseg.runtimes import Runtime, checked
from geoseg.scene.opening import Source

__all__ = ["DryRun", "dry_run"]

#: A dry run times at least this many chips.
PROBE_CHIPS = 4
#: More is not taken to read the scene, however much is free.
READ_BYTES = 1 << 29


@dataclass(frozen=True)
class DryRun:
    """What a run would cost.

    Attributes:
        chips: all of them.
        skipped: of these, all nodata.
        seconds: estimated for the whole run, from a probe of a few chips.
        memory_bytes: estimated peak of the process.
        output_bytes: file -> size without compression, an upper bound.
        report: as JSON.
    """

    chips: int
    skipped: int
    seconds: float
    memory_bytes: int
    output_bytes: dict[str, int]
    report: dict[str, Any]


class _Chip(NamedTuple):
    """A chip to try: where it lies, raw numbers (C, H, W), which were measured (H, W)."""

    window: Window
    pixels: NDArray[Any]
    measured: NDArray[np.bool_]


def _to_read(plan: Plan, lanes: Sequence[OutputLane], limit: int) -> Sequence[OutputLane]:
    """Lanes to read the scene by: the run's, or narrower ones where the scene is very wide."""
    try:
        return plan.lanes(min(limit, READ_BYTES))
    except UsageError:
        return lanes


def _read(plan: Plan, lanes: Sequence[OutputLane], wanted: int) -> tuple[int, list[_Chip]]:
    """Read a scene's validity.

    Args:
        plan: of the run.
        lanes: to read it by.
        wanted: how many chips to keep.

    Returns:
        How many chips hold a measured pixel, and the first of them.
    """
    needed, some, done = 0, list[_Chip](), -plan.chips.size
    with plan.ground_reader() as reader:
        for lane in lanes:
            rows = chip_rows(
                reader, plan.chips, lane.model, uniform=reader.uniform, wanted=plan.wanted
            )
            # Chips that reach into two lanes are run for both, but are no more chips.
            shared = bisect_right(lane.model.starts, done)
            for row in rows:
                windows = row.to_run
                if shared:
                    first = bisect_right(windows, done, key=lambda window: window.col)
                    windows = windows[first:]
                needed += len(windows)
                for window in windows[: wanted - len(some)]:
                    if (pixels := row.chip(window)) is not None:
                        some.append(_Chip(window, pixels, row.measured(window)))
            done = lane.model.starts[-1]
    return needed, some


def _seconds_a_chip(plan: Plan, runtime: Runtime, chips: Sequence[_Chip]) -> float:
    """Run the network, and the CRF, on some chips."""
    crf = ChipCRF(plan.card, plan.radiometry, plan.crf) if plan.crf else None
    given = [(chip, chip.pixels) for chip in chips]
    for _ in checked.run(runtime, given[:1]):  # warms up
        pass
    start = time.perf_counter()
    for chip, probs in checked.run(runtime, given, plan.options.batch_size, classes=plan.channels):
        probs = probs[None, : len(plan.card.classes)]
        if crf is not None:
            place = plan.chips.place(chip.window)
            probs = crf(probs, chip.pixels[None], chip.measured[None], [place])
        runtime.to_numpy(probs)
    return (time.perf_counter() - start) / len(chips)


def dry_run(
    scene: Source,
    output: str | Path | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> DryRun:
    """Say what :func:`geoseg.predict` would do and cost; write nothing.

    The whole scene's validity is read, and the network runs on a few chips.

    Args:
        scene: as for ``predict``.
        output: as for ``predict``.
        progress: as for ``predict``.
        **options: as for ``predict``.

    Returns:
        What the run would cost, and the plan.

    Raises:
        GeosegError: where ``predict`` would raise one.
    """
    log = RunLog(progress)
    plan, _ = begin(scene, PredictOptions(output=output, **options), log)
    with block_cache(plan.cache_bytes):
        runtime = load_members(plan, log)
        budget = memory_budget(plan, runtime)
        lanes = plan.lanes(budget.arrays)
        # As many chips as are computed at a time, twice.
        wanted = max(PROBE_CHIPS, 2 * (plan.options.threads or available_cores()))
        for message in [*plan.warnings, *old_companions(plan.outputs)]:
            log.warn(message)
        held = peak_memory()
        with log.clock("read"):
            needed, some = _read(plan, _to_read(plan, lanes, budget.arrays), wanted)
    if not some:
        raise SceneError(
            f"{plan.scene.name}: no pixel was measured (all nodata, masked, or outside the AOI)"
        )
    seconds = log.seconds["read"] + _seconds_a_chip(plan, runtime, some) * needed
    arrays = max(plan.lane_bytes(lane) for lane in lanes)
    memory = max(held + arrays + plan.polygon_bytes, peak_memory())
    sizes = output_bytes(plan)
    report = {
        **plan_report(plan),
        "runtime": runtime_report(runtime),
        "chips": {"total": len(plan.chips), "run": needed, "skipped": len(plan.chips) - needed},
        "seconds": seconds,
        "memory_bytes": memory,
        "output_bytes": sizes,
        "warnings": log.warnings,
    }
    return DryRun(len(plan.chips), len(plan.chips) - needed, seconds, memory, sizes, report)
