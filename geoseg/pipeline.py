"""The straight line of ``geoseg predict``: scene -> chips -> runtime -> stitch -> writers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.chips import ChipRow, chip_rows, prefetch
from geoseg.crf import ChipCRF
from geoseg.errors import ModelError, OutputError, SceneError
from geoseg.outputs import Staging, explain_write_error
from geoseg.plan import Plan, PredictOptions, make_plan
from geoseg.preflight import preflight
from geoseg.rasters import (
    NODATA,
    PROBABILITY_STEPS,
    RasterSpec,
    StripWriter,
    check_creation_options,
    encode_probability,
    write_qml,
)
from geoseg.regrid import regrid
from geoseg.report import ClassCounts, Progress, RunLog, plan_report, raster_tags, run_report
from geoseg.runtimes import Runtime, load_runtime
from geoseg.scene import gdal_options
from geoseg.stitch import stitch
from geoseg.window import Window

__all__ = ["Prediction", "predict"]

#: Rows that are classified and written at a time.
THIN_ROWS = 64


@dataclass(frozen=True)
class Prediction:
    """What a run made.

    Attributes:
        raster: the class raster.
        vector: the polygons, or None.
        report: the parsed JSON report.
    """

    raster: Path
    vector: Path | None
    report: dict[str, Any]


def predict(
    scene: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    progress: Progress | None = None,
    runtime: Runtime | None = None,
    **options: Any,
) -> Prediction:
    """Turn a scene into a class raster and polygons.

    Args:
        scene: a raster (path or URL), a list of one-band files, or a folder of them.
        output: the class raster; ``<scene>_landcover.tif`` in the current folder by default.
        progress: called with event dicts: ``start``, ``progress``, ``warning``, ``result``.
        runtime: in place of the model's own; for tests and experiments.
        **options: the fields of :class:`geoseg.plan.PredictOptions`.

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
    with log.clock("plan"):
        plan = make_plan(scene, PredictOptions(output=output, **options))
    outputs = plan.outputs
    with (
        Staging(outputs.all(), overwrite=plan.options.overwrite) as staging,
        gdal_options(plan.scene.paths[0], plan.cache_bytes),
        ExitStack() as stack,
    ):
        stack.enter_context(_final_names(staging))
        _check_disk(plan, staging)
        with log.clock("load"):
            runtime = runtime or load_runtime(
                plan.files,
                plan.radiometry,
                device=plan.options.device,
                threads=plan.options.threads,
            )
        log.tell("start", protocol=1, version=version("geoseg"), **plan_report(plan))
        for message in [*plan.warnings, *preflight(plan)]:
            log.warn(message)
        counts = _write_rasters(plan, runtime, staging, log)
        if outputs.vector is not None:
            _write_polygons(plan, staging, log)
        write_qml(staging.path(outputs.qml), plan.card.classes)
        if outputs.preview is not None:
            from geoseg.preview import write_preview

            with log.clock("preview"):
                write_preview(plan, staging.path(outputs.raster), staging.path(outputs.preview))
        text = json.dumps(run_report(plan, runtime, counts, log), indent=2, ensure_ascii=False)
        try:
            staging.path(outputs.report).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise explain_write_error(error, outputs.report) from error
        staging.publish(outputs.all())
    report: dict[str, Any] = json.loads(text)
    log.tell("result", **report["outputs"], report=str(outputs.report))
    return Prediction(outputs.raster, outputs.vector, report)


def _write_rasters(plan: Plan, runtime: Runtime, staging: Staging, log: RunLog) -> ClassCounts:
    """Run the network over the scene and write the class raster and its companions."""
    outputs, card, grid = plan.outputs, plan.card, plan.grid
    ids = np.array([c.id for c in card.classes], dtype=np.uint8)
    per_class = np.zeros(len(ids), dtype=np.int64)
    area = np.zeros(len(ids)) if grid.gsd else None
    with ExitStack() as stack:
        writers = _open_writers(plan, staging, stack)
        for window, probs, valid in _thin(_strips(plan, runtime, log)):
            with log.clock("write"):
                if not (np.isfinite(probs).all(axis=0) | ~valid).all():
                    raise ModelError(
                        f"the model gave NaN or infinite probabilities in rows {window.row} to "
                        f"{window.bottom - 1}; its weights or the scene's --scale are wrong"
                    )
                winner = probs.argmax(axis=0)
                classes = np.where(valid, ids[winner], np.uint8(NODATA))
                writers["raster"].write(window, classes)
                counts = np.bincount(winner[valid], minlength=len(ids))
                per_class += counts
                if area is not None:
                    area += counts * _pixel_area(plan, window)
                if "confidence" in writers:
                    best = np.take_along_axis(probs, winner[None], axis=0)[0]
                    writers["confidence"].write(
                        window, encode_probability(best, valid, plan.options.probs_dtype)
                    )
                if "probs" in writers:
                    writers["probs"].write(
                        window, encode_probability(probs, valid, plan.options.probs_dtype)
                    )
            log.tell("progress", stage="predict", done=window.bottom, total=grid.height)
        if per_class.sum() == 0:
            raise SceneError(
                f"{plan.scene.name}: no pixel was measured (all nodata, masked, or outside the "
                f"AOI); check --src-nodata, --bbox and --aoi"
            )
        with log.clock("cog"):
            writers["raster"].finish(staging.path(outputs.raster))
            if outputs.probs is not None:
                writers["probs"].finish(staging.path(outputs.probs))
            if outputs.confidence is not None:
                writers["confidence"].finish(staging.path(outputs.confidence))
    return ClassCounts(per_class, area)


def _thin(
    strips: Iterable[tuple[Window, NDArray[np.float32], NDArray[np.bool_]]],
) -> Iterator[tuple[Window, NDArray[np.float32], NDArray[np.bool_]]]:
    """Strips cut into thinner ones: what is made of a strip's rows is then small, too."""
    for window, probs, valid in strips:
        for top in range(0, window.height, THIN_ROWS):
            rows = slice(top, min(top + THIN_ROWS, window.height))
            thin = Window(window.row + top, 0, rows.stop - top, window.width)
            yield thin, probs[:, rows], valid[rows]


def _strips(
    plan: Plan, runtime: Runtime, log: RunLog
) -> Iterator[tuple[Window, NDArray[np.float32], NDArray[np.bool_]]]:
    """Probabilities (K, H, W) and validity (H, W) of finished strips of the output's grid."""
    valid_of: dict[int, NDArray[np.bool_]] = {}
    with ExitStack() as stack:
        reader = stack.enter_context(plan.reader(plan.model_grid))
        rows = stack.enter_context(
            _closing(prefetch(log.timed("read", chip_rows(reader, plan.chips))))
        )
        strips: Iterator[tuple[Window, Any]] = stitch(
            _forward(plan, runtime, rows, valid_of, log),
            plan.chips,
            classes=runtime.classes,
            zeros=runtime.zeros,
            asarray=runtime.asarray,
            taper=plan.options.taper,
            margin=plan.card.margin,
        )
        arrays = ((window, runtime.to_numpy(probs)) for window, probs in strips)
        if not plan.resampled:
            for window, probs in arrays:
                yield window, probs, valid_of.pop(window.row)
            return
        own = stack.enter_context(plan.reader(plan.grid))
        shapes = [(g.height, g.width) for g in (plan.model_grid, plan.grid)]
        for window, probs in regrid(arrays, shapes[0], shapes[1], plan.factor):
            with log.clock("read"):
                valid = own.read(window)[1]
            # Beside a chip that was skipped there may be nothing to interpolate from.
            yield window, probs, valid & (probs.sum(axis=0) > 0)


def _forward(
    plan: Plan,
    runtime: Runtime,
    rows: Iterable[ChipRow],
    valid_of: dict[int, NDArray[np.bool_]],
    log: RunLog,
) -> Iterator[tuple[Window, Any]]:
    """Each chip's probabilities, in the grid's order; all-nodata chips are left out."""
    crf = ChipCRF(plan.card, plan.radiometry, plan.crf) if plan.crf else None

    def chips() -> Iterator[tuple[_Chip, NDArray[Any]]]:
        for row in rows:
            valid_of[row.strip.row] = row.strip_valid
            for window in row.windows:
                with log.clock("chips"):
                    pixels = row.chip(window)
                if pixels is None:
                    log.chips_skipped += 1
                elif crf is None:
                    yield _Chip(window), pixels
                else:
                    yield _Chip(window, pixels, row.measured(window)), pixels

    for chip, probs in log.timed("forward", runtime.run(chips(), plan.options.batch_size)):
        if crf is not None:
            assert chip.pixels is not None and chip.measured is not None
            with log.clock("crf"):
                probs = crf(probs[None], chip.pixels[None], chip.measured[None], [chip.window])[0]
        log.chips_run += 1
        done = log.chips_run + log.chips_skipped
        log.tell("progress", stage="chips", done=done, total=len(plan.chips))
        yield chip.window, probs


@dataclass(frozen=True)
class _Chip:
    """What is still needed of a chip when its probabilities come back.

    Attributes:
        window: where it lies.
        pixels: raw numbers (C, H, W), where a CRF follows.
        measured: (H, W), likewise.
    """

    window: Window
    pixels: NDArray[Any] | None = None
    measured: NDArray[np.bool_] | None = None


@contextmanager
def _final_names(staging: Staging) -> Iterator[None]:
    """Errors speak of the outputs' final paths, not of hidden ones that are gone by then."""
    try:
        yield
    except OutputError as error:
        raise OutputError(staging.final_names(str(error))) from error


@contextmanager
def _closing(items: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Close a generator at the end, so that its thread stops before the files are closed."""
    try:
        yield items
    finally:
        items.close()  # type: ignore[attr-defined]


def _open_writers(plan: Plan, staging: Staging, stack: ExitStack) -> dict[str, StripWriter]:
    """One writer a raster; confidence is also needed for the polygons."""
    outputs, card = plan.outputs, plan.card
    names = tuple(c.name for c in card.classes)
    dtype = plan.options.probs_dtype
    quantized = dtype == "uint8"
    raster = RasterSpec(
        plan.grid,
        "uint8",
        NODATA,
        ("land cover",),
        classes=card.classes,
        tags=raster_tags(plan),
        resampling="MODE",
        creation_options=check_creation_options(plan.options.creation_options),
    )
    probability = replace(
        raster,
        dtype=dtype,
        nodata=NODATA if quantized else float("nan"),
        descriptions=("confidence",),
        scale=1 / PROBABILITY_STEPS if quantized else 1.0,
        classes=(),
        resampling="AVERAGE",
    )
    specs = {"raster": raster}
    if outputs.confidence is not None or outputs.vector is not None:
        specs["confidence"] = probability
    if outputs.probs is not None:
        specs["probs"] = replace(probability, descriptions=names)
    return {
        name: stack.enter_context(StripWriter(spec, staging.scratch(f"{name}.tif")))
        for name, spec in specs.items()
    }


def _write_polygons(plan: Plan, staging: Staging, log: RunLog) -> None:
    """Polygons of the finished class raster."""
    from geoseg.polygons import polygonize
    from geoseg.vectors import write_polygons

    vector = plan.outputs.vector
    assert vector is not None
    log.tell("progress", stage="polygons", done=0, total=1)
    with log.clock("polygons"):
        frame = polygonize(
            staging.path(plan.outputs.raster),
            staging.scratch("confidence.tif"),
            plan.card.classes,
            min_area=plan.options.min_area,
            simplify=plan.options.simplify,
        )
        write_polygons(frame, staging.path(vector))
    log.tell("progress", stage="polygons", done=1, total=1)


def _pixel_area(plan: Plan, strip: Window) -> float:
    """Square metres of a pixel in the middle of a strip, on the ellipsoid."""
    area = plan.grid.crop(strip).pixel_area
    return float("nan") if area is None else area


def _check_disk(plan: Plan, staging: Staging) -> None:
    """Refuse a run whose outputs can't fit even when well compressed.

    Raises:
        OutputError: there is no room.
    """
    # Class rasters compress to an eighth or less, probabilities to about a third.
    need = sum(plan.output_bytes.values()) // 8
    free = staging.free_bytes()
    if free < need:
        raise OutputError(
            f"the outputs need about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; free "
            f"some space, or choose another folder with -o"
        )
