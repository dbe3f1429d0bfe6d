"""The straight line of ``geoseg predict``: scene -> chips -> runtime -> stitch -> writers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.core.gdal import block_cache
from geoseg.core.jsontext import json_text
from geoseg.core.staging import Staging
from geoseg.core.wording import counted
from geoseg.core.workers import stoppable
from geoseg.errors import (
    ProbabilitiesError,
    RadiometryError,
    SceneError,
    UsageError,
)
from geoseg.events import PROTOCOL, Progress
from geoseg.geo.window import Window
from geoseg.prediction.applicability import check_taught, write_applicability
from geoseg.prediction.background import Background, in_background
from geoseg.prediction.border_raster import border_note, write_border
from geoseg.prediction.budget import memory_budget
from geoseg.prediction.engine import predict_strips
from geoseg.prediction.journal import StripStore
from geoseg.prediction.load import lanes_of, load_members
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.paths import Outputs, old_companions
from geoseg.prediction.plan import OutputLane, Plan, make_plan
from geoseg.prediction.preflight import preflight
from geoseg.prediction.rasters import (
    check_disk,
    explained,
    raster_specs,
    write_rasters,
)
from geoseg.prediction.report import (
    ClassCounts,
    plan_report,
    run_record,
    run_report,
    runtime_report,
)
from geoseg.prediction.run_log import RunLog
from geoseg.prediction.staged import other_layers, staged
from geoseg.prediction.undeclared_pixels import count_undeclared
from geoseg.rasters.writing import (
    write_qml,
)
from geoseg.runtimes import Runtime
from geoseg.scene.opening import Source

__all__ = ["Loaded", "Prediction", "begin", "kept_strips", "load", "make_map", "predict"]

#: Errors that end the same command each time, so that what it has finished is of no use.
STOPS_EACH_TIME = (ProbabilitiesError, RadiometryError, UsageError)


@dataclass(frozen=True)
class Prediction:
    """What a run made.

    Attributes:
        raster: the class raster.
        vector: the polygons; None where they were not asked for, or would have been too many.
        report: the parsed JSON report.
    """

    raster: Path
    vector: Path | None
    report: dict[str, Any]


def predict(
    scene: Source,
    output: str | Path | None = None,
    *,
    progress: Progress | None = None,
    runtime: Runtime | str = "auto",
    **options: Any,
) -> Prediction:
    """Turn a scene into a class raster and polygons.

    A run that was stopped, by whatever, goes on where it was when the same command is given again,
    and ends with the same bytes.

    Args:
        scene: a raster (path or URL), a list of one-band files, a folder of them, a product as it
            is delivered (a folder, a .zip or a .tar), or a STAC item (path, URL or parsed JSON).
        output: the class raster; ``<scene>_landcover.tif`` in the current folder by default.
        progress: called with each event (see :mod:`geoseg.events`).
        runtime: ``auto``, ``openvino``, ``onnxruntime``, ``torch``, or a runtime of the caller's
            own (:class:`geoseg.runtimes.Runtime`).
        **options: the fields of :class:`geoseg.prediction.options.PredictOptions`.

    Returns:
        Paths and report.

    Raises:
        GeosegError: with a line that says what was found, the rule, and what to do. No output has
            appeared then.

    Example:
        >>> import geoseg
        >>> result = geoseg.predict("scene.tif", "map.tif", model="landcover-ms")  # doctest: +SKIP
        >>> result.report["classes"][0]  # doctest: +SKIP
    """
    log = RunLog(progress)
    name = runtime if isinstance(runtime, str) else "auto"
    plan, staging = begin(scene, PredictOptions(output=output, runtime=name, **options), log)
    restart = plan.options.restart
    loaded = load(plan, runtime, (None if restart else staging.earlier()) or {}, log)
    staging.resumable(loaded.record, restart=restart)
    return make_map(plan, loaded, staging, log)


@dataclass(frozen=True)
class Loaded:
    """What computes a scene, and how.

    Attributes:
        runtime: the network.
        lanes: of the output.
        record: all that a strip's bytes depend on (``report.run_record``).
        memory: what the report says of it.
    """

    runtime: Runtime
    lanes: Sequence[OutputLane]
    record: dict[str, Any]
    memory: dict[str, int]


def begin(scene: Source, options: PredictOptions, log: RunLog) -> tuple[Plan, Staging]:
    """Make the plan of a run with all that is odd about it, and see that outputs can be written.

    Raises:
        GeosegError: something doesn't fit; nothing was written.
    """
    with log.clock("plan"):
        plan = make_plan(scene, options)
        check_taught(plan)
        plan = replace(plan, warnings=(*plan.warnings, *preflight(plan)))
    return plan, staged(plan)


def load(
    plan: Plan,
    runtime: Runtime | str,
    earlier: Mapping[str, Any],
    log: RunLog,
    *,
    same_lanes: bool = False,
) -> Loaded:
    """Load the models, and cut lanes by the memory that is left; a stopped run's choices stay.

    Args:
        plan: of the run.
        runtime: the caller's own, or what is asked for.
        earlier: the record of a run that was stopped; empty for none.
        log: that clocks.
        same_lanes: have the earlier run's, even where memory was less now.

    Raises:
        GeosegError: a model can't be loaded, or memory is too small.
    """
    with log.clock("load"):
        if isinstance(runtime, str):
            # In a thread of its own. What is tried may compute in the thread that asks, with AMX
            # where the CPU has it, and Linux has killed a main thread that had (SIGSEGV by the
            # kernel) when Ctrl-C came. And who waits can leave at once.
            runtime = stoppable(lambda stop: load_members(plan, log, earlier))
        budget = memory_budget(plan, runtime)
    before = plan.lanes_at(earlier.get("lanes", ())) if same_lanes else None
    lanes = before or lanes_of(plan, budget, earlier)
    memory = {
        "limit_bytes": budget.limit,
        "lanes": len(lanes),
        "arrays_bytes": max(plan.lane_bytes(lane) for lane in lanes),
    }
    return Loaded(runtime, lanes, run_record(plan, runtime, lanes), memory)


def make_map(plan: Plan, loaded: Loaded, staging: Staging, log: RunLog) -> Prediction:
    """Compute the strips that are not finished, and make the outputs of all.

    Args:
        plan: of the run.
        loaded: what computes.
        staging: of the plan's outputs; resumable.
        log: that clocks and reports.

    Raises:
        GeosegError: no output has appeared then.
    """
    runtime, lanes, memory = loaded.runtime, loaded.lanes, loaded.memory
    others = other_layers(plan)
    with staging, block_cache(plan.cache_bytes), staging.speaking_of_finals():
        cancelled = threading.Event()  # what every thread of the run looks at
        store = StripStore(staging.scratch("strips"), raster_specs(plan), len(lanes), cancelled)
        check_disk(plan, store, staging)
        _report_start(plan, runtime, store, memory, log)
        with (
            kept_strips(staging, store, log),
            in_background(plan, runtime, lanes, store, staging, log, cancelled) as background,
        ):
            predict_strips(plan, runtime, lanes, store, background.check, log, cancelled)
            counts = _count_classes(plan, store, log)
            found = log.wait(background.start(count_undeclared, plan, cancelled))
            counts = replace(counts, undeclared=found)
            outputs = _write_outputs(plan, store, staging, background, cancelled, log)
            plan = replace(plan, outputs=outputs)
            text = json_text({**run_report(plan, runtime, counts, log), "memory": memory}, indent=2)
            with explained(outputs.report):
                staging.path(outputs.report).write_text(text + "\n", encoding="utf-8")
            if others is not None and outputs.vector is not None:
                others.add(staging.path(outputs.vector))
            staging.publish(outputs.all())
    report: dict[str, Any] = json.loads(text)
    log.report("result", **report["outputs"], report=str(outputs.report))
    return Prediction(outputs.raster, outputs.vector, report)


def _report_start(
    plan: Plan, runtime: Runtime, store: StripStore, memory: dict[str, int], log: RunLog
) -> None:
    """Report what was decided, what is odd about it, and what is there already."""
    log.report(
        "start",
        protocol=PROTOCOL,
        version=version("geoseg"),
        memory=memory,
        runtime=runtime_report(runtime),
        **plan_report(plan),
    )
    for message in (*plan.warnings, *old_companions(plan.outputs)):
        log.warn(message)
    if (note := border_note(plan)) is not None:
        log.report("note", message=note)
    if len(store):
        log.report("note", message=f"going on after {counted(len(store), 'finished strip')}")


def _write_outputs(
    plan: Plan,
    store: StripStore,
    staging: Staging,
    background: Background,
    cancelled: threading.Event,
    log: RunLog,
) -> Outputs:
    """Make the files of finished strips, and wait for what is made in the background.

    Returns:
        The final paths, without the polygons where these were too many.
    """
    outputs = plan.outputs
    with log.clock("wait for rasters"):
        log.wait(background.start(write_rasters, plan, store, staging, background.overviews, log))
    log.wait(background.readiness)
    if outputs.border is not None:
        raster = staging.path(outputs.raster)
        with log.clock("wait for border"):
            log.wait(background.start(write_border, plan, raster, staging, cancelled, log))
    if outputs.applicability is not None:
        raster = staging.path(outputs.raster)
        with log.clock("wait for applicability"):
            log.wait(background.start(write_applicability, plan, raster, staging, cancelled, log))
    with log.clock("wait for polygons"):
        if not log.wait(background.polygons):
            outputs = replace(outputs, vector=None)
    with explained(outputs.qml):
        write_qml(staging.path(outputs.qml), plan.legend)
    if outputs.preview is not None:
        from geoseg.prediction.preview import write_preview

        with log.clock("preview"), explained(outputs.preview):
            write_preview(plan, staging.path(outputs.raster), staging.path(outputs.preview))
    return outputs


@contextmanager
def kept_strips(staging: Staging, store: StripStore, log: RunLog) -> Iterator[None]:
    """Keep finished strips where the run was stopped, by whatever but what stops it each time."""
    try:
        yield
    except BaseException as error:
        # A driver that failed, a bug in the caller's progress function: half a day's work is kept.
        found = any(any(strip.counts) for strip in store.all())
        staging.keep = found and not isinstance(error, STOPS_EACH_TIME)
        if staging.keep:
            are = "is" if len(store) == 1 else "are"
            kept = f"{counted(len(store), 'finished strip')} {are} kept"
            if isinstance(error, KeyboardInterrupt):
                message = f"{kept}: the same command goes on after them"
                raise KeyboardInterrupt(message) from error
            # Who hears of it may be what failed.
            with suppress(Exception):
                log.report(
                    "note",
                    message=f"{kept}: once the cause is gone, the same command goes on after them",
                )
        raise


def _count_classes(plan: Plan, store: StripStore, log: RunLog) -> ClassCounts:
    """Pixels, areas and chips of all strips.

    Raises:
        SceneError: no pixel was measured.
    """
    per_class = np.zeros(len(plan.legend), dtype=np.int64)
    area = np.zeros(len(per_class)) if plan.grid.gsd else None
    clouded = 0
    for strip in store.all():
        log.chips_run += strip.chips_run
        log.chips_skipped += strip.chips_skipped
        clouded += strip.clouded
        if strip.window is not None:
            counts = np.array(strip.counts)
            per_class += counts
            if area is not None:
                area += counts * _pixel_area(plan, strip.window)
    found = ClassCounts(per_class, area, clouded)
    _check_measured(plan, found, log)
    return found


def _check_measured(plan: Plan, counts: ClassCounts, log: RunLog) -> None:
    """Report what was left out for clouds.

    Raises:
        SceneError: no pixel is left.
    """
    name, clouds = plan.scene.name, plan.scene.clouds
    if counts.valid == 0 and clouds is not None and counts.clouded:
        raise SceneError(
            f"{name}: all {counts.clouded} measured pixels are clouds or their shadows by "
            f"{clouds.name}{_around(clouds.buffer)}, and these are left out; take another scene, "
            f"or map them with --clouds none"
        )
    if counts.valid == 0:
        raise SceneError(
            f"{name}: no pixel was measured (all nodata, masked, or outside the AOI); check "
            f"--src-nodata, --bbox and --aoi"
        )
    if clouds is not None:
        log.report(
            "note",
            message=f"{counts.cloud_share:.1%} of the measured pixels are left out: clouds and "
            f"their shadows by {clouds.name}{_around(clouds.buffer)}; --clouds none maps them",
        )


def _around(buffer: float) -> str:
    """Say what is left out beside clouds."""
    return f" and {buffer:g} m around" if buffer else ""


def _pixel_area(plan: Plan, strip: Window) -> float:
    """Square metres of a pixel in the middle of a strip, on the ellipsoid."""
    area = plan.grid.crop(strip).pixel_area
    return float("nan") if area is None else area
