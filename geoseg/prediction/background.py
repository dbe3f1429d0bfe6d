"""What is done beside the network, each by a thread: readiness, overviews, polygons."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.importing import IMPORTING
from geoseg.core.staging import Staging
from geoseg.errors import (
    TooManyPolygonsError,
)
from geoseg.prediction.journal import StripStore
from geoseg.prediction.plan import OutputLane, Plan
from geoseg.prediction.run_log import RunLog
from geoseg.rasters.writing import (
    NODATA,
    decode_probability,
    write_overviews,
)
from geoseg.runtimes import Runtime
from geoseg.scene.reader import pixel_dtype

__all__ = ["Background", "in_background"]


#: Of polygons: they keep up with any network, and more would hold more strips in memory.
POLYGON_THREADS = 2


#: Seconds that threads have to end after Ctrl-C, before they are left behind.
PATIENCE = 1.0


@dataclass(frozen=True)
class Background:
    """What is done beside the network's work, each by a thread.

    Attributes:
        start: begins a further thing, once all strips are finished.
        readiness: what its first chip needs.
        overviews: the class raster's, made of finished strips.
        polygons: made of finished strips; whether there are any.
    """

    start: Callable[..., Future[Any]]
    readiness: Future[None]
    overviews: Future[list[Path]]
    polygons: Future[bool]

    def check(self) -> None:
        """Raise what one of them has failed by."""
        for future in (self.readiness, self.overviews, self.polygons):
            if future.done():
                future.result()


@contextmanager
def in_background(
    plan: Plan,
    runtime: Runtime,
    lanes: Sequence[OutputLane],
    store: StripStore,
    staging: Staging,
    log: RunLog,
    cancelled: threading.Event,
) -> Iterator[Background]:
    """Begin what is done beside; who leaves cancels what is not done."""
    finished = len(store) == len(lanes) * len(plan.chips.row_starts)
    threads = ThreadPoolExecutor(4, "geoseg-beside")
    futures: list[Future[Any]] = []

    def start(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        futures.append(threads.submit(function, *arguments))
        return futures[-1]

    patient = True
    try:
        yield Background(
            start,
            start(_get_ready, plan, None if finished else runtime, log),
            start(_write_overviews, store, log),
            start(_write_polygons, plan, store, staging, log, cancelled),
        )
    except KeyboardInterrupt:
        # Who interrupts does not wait for GDAL to finish a COG; nothing of it is needed.
        patient = False
        raise
    finally:
        cancelled.set()
        threads.shutdown(wait=patient, cancel_futures=True)
        wait(futures, PATIENCE)


def _get_ready(plan: Plan, runtime: Runtime | None, log: RunLog) -> None:
    """Do what needs no pixel while the first ones are read."""
    if runtime is None:
        return
    chips, dtype = plan.chips, pixel_dtype(plan.bands, plan.model_grid)
    shape = len(plan.bands), chips.chip_height, chips.chip_width
    with log.clock("load"):
        runtime.prepare(np.empty(shape, dtype))


def _write_overviews(store: StripStore, log: RunLog) -> list[Path]:
    """The class raster's overviews, as its rows are finished in all lanes."""
    grid = store.specs["raster"].grid

    rows = _Rows(store, log)
    with log.clock("overviews"):
        return write_overviews(
            lambda top, bottom: rows.ids(top, bottom)[0],
            (grid.height, grid.width),
            store.folder,
            NODATA,
        )


@dataclass(frozen=True)
class _Rows:
    """Rows of the run's rasters for who follows the network; each call waits for its rows."""

    store: StripStore
    log: RunLog

    def finished(self, name: str, top: int, bottom: int) -> NDArray[Any]:
        """Rows of a raster, (bands, bottom - top, width)."""
        with self.log.clock("wait for strips"):
            self.store.wait(bottom)
        return self.store.read(name, top, bottom)

    def ids(self, top: int, bottom: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Class ids, and where there are any."""
        found = self.finished("raster", top, bottom)[0]
        return found, found != NODATA

    def shares(self, name: str) -> Callable[[int, int], NDArray[np.float32]]:
        """Gives rows of probabilities."""
        return lambda top, bottom: decode_probability(self.finished(name, top, bottom))


def _write_polygons(
    plan: Plan, store: StripStore, staging: Staging, log: RunLog, cancelled: threading.Event
) -> bool:
    """Polygons of the class raster, as its rows are finished in all lanes.

    With --min-area the rows are looked at as they come, too, but which neighbour takes what is
    small is only known when all are there: the smallest region of the whole map goes first. Then
    they are read once more.

    Returns:
        Whether they were made. The class raster may have taken hours: it is not lost because it is
        too noisy for polygons.
    """
    final = plan.outputs.vector
    if final is None:
        return False
    # These libraries take half a second, which a runtime's first work leaves room for.
    with IMPORTING:
        from geoseg.core.jit import warm_up  # numba imports scipy
    warm_up()
    from geoseg.polygons.inputs import MapRows, with_not_sure
    from geoseg.polygons.options import MOST_POLYGONS
    from geoseg.polygons.polygonize import write_rows
    from geoseg.rasters.class_raster import grid_as_written

    def report(done: int, total: int) -> None:
        # Before, how far the network is says more.
        if store.rows == total:
            log.report("progress", stage="polygons", done=done, total=total)

    rows, raster = _Rows(store, log), plan.outputs.raster
    probs = rows.shares("probs") if "probs" in store.specs else None
    if probs is not None and plan.not_sure is not None:
        probs = with_not_sure(probs, len(plan.card.classes))
    try:
        with log.clock("polygons"):
            write_rows(
                staging.path(final),
                MapRows(
                    str(raster),
                    grid_as_written(plan.grid, raster),
                    rows.ids,
                    rows.shares("confidence"),
                    probs,
                ),
                plan.legend,
                min_area=plan.options.min_area,
                simplify=plan.options.simplify,
                threads=min(POLYGON_THREADS, plan.options.threads or os.cpu_count() or 1),
                most=float("inf") if plan.options.force else MOST_POLYGONS,
                progress=report,
                stopped=cancelled.is_set,
            )
    except TooManyPolygonsError as error:
        staging.path(final).unlink(missing_ok=True)
        old = f"; {final} is of an earlier run" if final.exists() else ""
        log.warn(f"there will be no polygons, but all other outputs{old}: {error}")
        return False
    return True
