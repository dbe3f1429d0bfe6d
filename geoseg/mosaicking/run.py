"""``geoseg mosaic``: maps in, one map of all of them out, whole or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.session import DummySession

from geoseg.core.gdal import block_cache
from geoseg.core.jsontext import json_text
from geoseg.core.staging import Staging
from geoseg.core.workers import Stop, stoppable
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import SceneError, TooManyPolygonsError, UsageError
from geoseg.events import Progress
from geoseg.mosaicking.finding import files_about, find_maps
from geoseg.mosaicking.grid import MosaicGrid, choose_grid
from geoseg.mosaicking.maps import MapFile, check_legends, in_order, look_at, named, oddities
from geoseg.mosaicking.options import MosaicOptions
from geoseg.mosaicking.pixels import Made, compose, write_raster
from geoseg.mosaicking.reading import Layers
from geoseg.mosaicking.report import RESAMPLING, mosaic_report, mosaic_tags
from geoseg.mosaicking.virtual import check_virtual, leads_out, move_virtual, write_virtual
from geoseg.polygons.formats import check_suffix
from geoseg.polygons.options import MOST_POLYGONS
from geoseg.polygons.polygonize import write_polygons
from geoseg.prediction.run_log import RunLog
from geoseg.rasters.writing import (
    NODATA,
    RasterSpec,
    check_creation_options,
    try_creation_options,
    write_qml,
)
from geoseg.scene.declared import pixels_allowed
from geoseg.scene.sources import Rules

__all__ = ["Mosaic", "mosaic"]

#: Bytes of GDAL's block cache: some rows of blocks of the maps that lie side by side.
CACHE = 64 << 20
#: Files of a virtual raster that GDAL keeps open while polygons are made of it.
POOL = 32
#: Seconds between two events of progress.
EVERY = 1.0


@dataclass(frozen=True)
class Mosaic:
    """What was made.

    Attributes:
        raster: the class raster, or the virtual one.
        vector: the polygons; None where they were not asked for, or would have been too many.
        report: the parsed JSON report.
    """

    raster: Path
    vector: Path | None
    report: dict[str, Any]


@dataclass(frozen=True)
class _Outputs:
    """Final paths; None is not wanted."""

    raster: Path
    qml: Path
    report: Path
    vector: Path | None

    @property
    def virtual(self) -> bool:
        return self.raster.suffix.lower() == ".vrt"

    def all(self) -> list[Path]:
        """In the order in which they are published; the report last, as the sign of success."""
        wanted = (self.raster, self.qml, self.vector, self.report)
        return [path for path in wanted if path is not None]


@dataclass(frozen=True)
class _Plan:
    """What was decided before any work.

    Attributes:
        maps: by rank, the one on top first.
        mosaic: where the pixels lie.
        options: of the run.
        rules: what maps may point to.
        outputs: final paths.
        spec: what the raster is.
    """

    maps: list[MapFile]
    mosaic: MosaicGrid
    options: MosaicOptions
    rules: Rules
    outputs: _Outputs
    spec: RasterSpec


def mosaic(
    maps: str | Path | Sequence[str | Path],
    output: str | Path = "mosaic.tif",
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Mosaic:
    """Make one map of many: a class raster, and polygons that no scene's border cuts.

    Args:
        maps: class rasters that ``geoseg predict`` made; patterns (``maps/*.tif``); folders, which
            stand for every ``*/landcover.tif`` in them; or text files (.txt) with one of these a
            line. All must have the same classes.
        output: the class raster, .tif; or .vrt for a virtual raster, which names the maps and holds
            no pixels, if they lie on one grid.
        progress: called with each event (see :mod:`geoseg.events`).
        **options: the fields of :class:`geoseg.mosaicking.options.MosaicOptions`.

    Returns:
        Paths and report.

    Raises:
        UsageError: the maps do not fit together, or the options don't fit them.
        SceneError: a map is no class raster, or is damaged.
        OutputError: an output can't be written. No output has appeared then.

    Example:
        >>> import geoseg
        >>> geoseg.mosaic("archive", "map.tif", crs="EPSG:3035").vector  # doctest: +SKIP
    """
    log = RunLog(progress)
    with log.clock("plan"):
        chosen = MosaicOptions(**options)
        outputs = _outputs_of(Path(output), chosen)
        paths, twice = find_maps(maps)
        _protect_inputs(outputs, paths)
        staging = Staging(outputs.all(), overwrite=chosen.overwrite)
        plan = _make_plan(paths, outputs, chosen, log)
    for path in twice:
        log.warn(f"{path} is named more than once; it counts once")
    with staging, staging.speaking_of_finals():
        with log.clock("raster"):
            made, resampled = stoppable(lambda stop: _write_raster(plan, staging, log, stop))
        with log.clock("polygons"):
            outputs = _write_polygons(plan, staging, log)
        _write_qml(plan, staging)
        written = {"raster": outputs.raster}
        if outputs.vector is not None:
            written["vector"] = outputs.vector
        report = mosaic_report(plan.maps, resampled, plan.mosaic, chosen, made, written, log)
        text = json_text(report, indent=2)
        try:
            staging.path(outputs.report).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise explain_write_error(error, outputs.report) from error
        staging.publish(outputs.all())
    named_paths = {kind: str(path) for kind, path in written.items()}
    log.report("result", **named_paths, maps=len(plan.maps), report=str(outputs.report))
    return Mosaic(outputs.raster, outputs.vector, json.loads(text))


def _outputs_of(raster: Path, options: MosaicOptions) -> _Outputs:
    if raster.suffix.lower() not in (".tif", ".tiff", ".vrt"):
        raise UsageError(
            f"-o {raster}: the mosaic is a GeoTIFF or a virtual raster, so the name ends in .tif "
            f"or .vrt"
        )
    vector = None
    if not options.no_vector:
        vector = Path(options.vector) if options.vector else raster.with_suffix(".gpkg")
        check_suffix(vector)
    if raster.suffix.lower() == ".vrt" and options.creation_options:
        raise UsageError("--co is for a GeoTIFF; a virtual raster (.vrt) has no such options")
    return _Outputs(raster, raster.with_suffix(".qml"), raster.with_suffix(".json"), vector)


def _protect_inputs(outputs: _Outputs, paths: Sequence[str]) -> None:
    """Refuse to overwrite a map, or what belongs to it, --overwrite or not.

    Raises:
        UsageError: an output is one.
    """
    read = {file.resolve() for path in paths for file in files_about(path) if file.exists()}
    for output in outputs.all():
        if output.resolve() in read:
            raise UsageError(
                f"{output} is an input of this run, or belongs to one; give the output another name"
            )


def _make_plan(
    paths: Sequence[str], outputs: _Outputs, options: MosaicOptions, log: RunLog
) -> _Plan:
    """Look at all maps, and decide everything before any work.

    Raises:
        GeosegError: see :func:`mosaic`.
    """
    rules = Rules.of(options.input_root, options.allow_vrt)
    try_creation_options(options.creation_options, ["uint8"])
    confidence = options.top == "confident"
    maps = [look_at(path, rules, confidence=confidence) for path in paths]
    check_legends(maps)
    for message in oddities(maps):
        log.warn(message)
    grid, notes = choose_grid(maps, options.crs, options.res, options.bbox)
    for note in notes:
        log.report("note", message=note)
    pixels, most = grid.window.height * grid.window.width, pixels_allowed()
    if pixels > most:
        raise UsageError(
            f"the mosaic would have {grid.window.width} x {grid.window.height} px, and a raster "
            f"may have {most:.3g}: choose a --bbox, a coarser --res, a --crs in which the maps lie "
            f"together, or give --max-pixels {pixels:.2g}"
        )
    ranked = in_order(maps, options.top)
    if outputs.virtual:
        check_virtual(ranked, grid, options.top)
    pixel_grid = grid.pixels()
    if outputs.vector is not None and pixel_grid.gsd is None:
        _check_metres(outputs.vector, options)
    spec = RasterSpec(
        pixel_grid,
        "uint8",
        NODATA,
        ("land cover",),
        classes=maps[0].classes,
        tags=mosaic_tags(maps, options),
        resampling="MODE",
        # Where no map lies, there need not be blocks.
        creation_options={
            "SPARSE_OK": "TRUE",
            **check_creation_options(options.creation_options),
        },
    )
    return _Plan(ranked, grid, options, rules, outputs, spec)


def _check_metres(vector: Path, options: MosaicOptions) -> None:
    """Refuse polygons that need metres where there are none.

    Raises:
        UsageError: they do.
    """
    if vector.suffix.lower() in (".geojson", ".json"):
        raise UsageError(
            f"{vector}: GeoJSON is longitude and latitude on WGS 84, and the maps have no CRS to "
            f"bring them there; choose .gpkg"
        )
    if options.min_area > 0 or options.simplify > 0:
        raise UsageError(
            "--min-area and --simplify are in metres, and the maps have no CRS that gives metres; "
            "leave them out, or give the maps a CRS (gdal_edit.py -a_srs)"
        )


def _write_raster(
    plan: _Plan, staging: Staging, log: RunLog, stop: Stop
) -> tuple[Made, list[bool]]:
    """Make the raster, in a thread that can be left.

    Returns:
        What was made, and which maps were resampled.
    """
    told = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told >= EVERY:
            told = time.monotonic()
            stop.report(lambda: log.report("progress", stage="mosaic", done=done, total=total))

    final, top = plan.outputs.raster, plan.options.top
    made = Made(np.zeros(len(plan.maps), np.int64))
    layers = Layers(plan.mosaic, plan.maps, plan.rules, confidence=top == "confident")
    with block_cache(CACHE), layers:
        resampled = layers.resampled
        if any(resampled):
            paths = [m.path for m, other in zip(plan.maps, resampled, strict=True) if other]
            message = f"{named(paths)}: resampled by {RESAMPLING}"
            stop.report(lambda: log.report("note", message=message))
        windows = compose(layers, top, stop, report, made)
        if not plan.outputs.virtual:
            scratch = staging.scratch("mosaic")
            write_raster(windows, staging.path(final), scratch, plan.spec, made)
            return made, resampled
        for _ in windows:  # they are counted
            pass
        if not made.per_class.any():
            raise SceneError("no pixel of the mosaic has a class; check --bbox")
        virtual = staging.scratch("mosaic.vrt")
        write_virtual(virtual, plan.maps, plan.mosaic, plan.spec)
        move_virtual(virtual, staging.path(final), final)
    return made, resampled


def _write_polygons(plan: _Plan, staging: Staging, log: RunLog) -> _Outputs:
    """Make polygons of the finished raster.

    Returns:
        The final paths, without the polygons where these were too many.
    """
    outputs, options = plan.outputs, plan.options
    raster, rules = staging.path(outputs.raster), plan.rules
    if outputs.virtual:
        raster = staging.scratch("mosaic.vrt")
        folders = {os.path.dirname(os.path.realpath(m.path)) for m in plan.maps}
        rules = replace(rules, roots=(*rules.roots, *sorted(folders)))
        out = leads_out(plan.maps, outputs.raster)
        if out:
            log.warn(
                f"{outputs.raster} names maps outside of its folder, in {named(out)}: geoseg reads "
                f"it with --input-root for each of these alone"
            )
    if outputs.vector is None:
        return outputs
    few = {"GDAL_MAX_DATASET_POOL_SIZE": POOL} if outputs.virtual else {}
    try:
        with rasterio.Env(session=DummySession(), **few):
            write_polygons(
                staging.path(outputs.vector),
                raster,
                rules=rules,
                min_area=options.min_area,
                simplify=options.simplify,
                threads=0,
                most=float("inf") if options.force else MOST_POLYGONS,
                progress=lambda done, total: log.report(
                    "progress", stage="polygons", done=done, total=total
                ),
            )
    except TooManyPolygonsError as error:
        staging.path(outputs.vector).unlink(missing_ok=True)
        told = str(error).replace(str(raster), str(outputs.raster))
        log.warn(f"there are no polygons, but all other outputs: {told}")
        return replace(outputs, vector=None)
    return outputs


def _write_qml(plan: _Plan, staging: Staging) -> None:
    try:
        write_qml(staging.path(plan.outputs.qml), plan.spec.classes)
    except OSError as error:
        raise explain_write_error(error, plan.outputs.qml) from error
