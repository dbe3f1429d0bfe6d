"""Rasters that are made of a scene once its class raster is finished, in strips of their own."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS
from geoseg.core.staging import Staging
from geoseg.core.workers import StoppedError
from geoseg.core.write_errors import explain_write_error
from geoseg.geo.window import Window
from geoseg.prediction.journal import StripStore
from geoseg.prediction.plan import Plan
from geoseg.prediction.rasters import explained, pixels_done
from geoseg.prediction.run_log import RunLog
from geoseg.prediction.strip import FinishedStrip
from geoseg.prediction.strip_files import forget_damaged
from geoseg.rasters.writing import NODATA, RasterSpec, write_cog, write_overviews

__all__ = ["LANE", "STRIP", "Strips", "write_later"]

#: Rows of a strip, and columns of a lane, of the output: multiples of a COG's blocks.
STRIP, LANE = 512, 1 << 14

#: (plan, (first column, the first after), (first strip, the first after)) -> windows of the output
#: from the top with their pixels (H, W).
Strips = Callable[[Plan, tuple[int, int], tuple[int, int]], Iterator[tuple[Window, NDArray[Any]]]]


def write_later(
    plan: Plan,
    name: str,
    final: Path,
    spec: RasterSpec,
    strips: Strips,
    raster: Path,
    staging: Staging,
    cancelled: threading.Event,
    log: RunLog,
) -> None:
    """Write a raster of a run whose class raster is finished.

    What a stopped run has made of it is not made again.

    Args:
        plan: of the run.
        name: of the raster among the run's.
        final: its path.
        spec: of it.
        strips: computes it.
        raster: the class raster, which says where nodata is.
        staging: of the plan's outputs.
        cancelled: set when the run ends before its time.
        log: that clocks and reports.

    Raises:
        OutputError: the disk is full or fails.
        SceneError: the scene can't be read.
        StoppedError: the run has ended.
    """
    height, width = plan.grid.height, plan.grid.width
    lanes = [(left, min(left + LANE, width)) for left in range(0, width, LANE)]
    folder = staging.scratch(name)
    with explained(final):
        forget_damaged(folder, lambda done, total: None)
    store = StripStore(folder, {name: spec}, len(lanes), cancelled)
    with log.clock(name):
        for number, cols in enumerate(lanes):
            for numbers in store.missing(number, math.ceil(height / STRIP)):
                for window, values in strips(plan, cols, numbers):
                    if cancelled.is_set():
                        raise StoppedError
                    found = np.where(_nodata(raster, window), spec.nodata, values)
                    made = found.astype(spec.dtype)
                    marked = int((made == 1).sum())
                    store.write(number, FinishedStrip(window, {name: made}, (marked,), 0, 0))
                    log.report(
                        "progress", stage=name, done=pixels_done(store), total=height * width
                    )
        store.check_all_there()
        halved = []
        if spec.resampling == "MODE":
            halved = write_overviews(
                lambda top, bottom: store.read(name, top, bottom)[0], (height, width), store.folder
            )
        with store.few_open():
            write_cog(store.mosaic(name, halved), staging.path(final), spec)
            store.verify(name, staging.path(final))


def _nodata(raster: Path, window: Window) -> NDArray[np.bool_]:
    """Where the class raster has nodata, (H, W)."""
    try:
        with rasterio.open(raster) as dataset:
            area = RasterioWindow(window.col, window.row, window.width, window.height)
            found: NDArray[np.bool_] = dataset.read(1, window=area) == NODATA
            return found
    except GDAL_ERRORS as error:
        raise explain_write_error(error, raster) from error
