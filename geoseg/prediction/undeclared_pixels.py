"""How many pixels of a map are nodata although no tag says so."""

from __future__ import annotations

import threading
from dataclasses import replace

from geoseg.geo.window import Window
from geoseg.prediction.area import in_polygons
from geoseg.prediction.plan import Plan
from geoseg.scene.reader import SceneReader

__all__ = ["count_undeclared"]

#: Pixels of a band that are read at a time.
AT_A_TIME = 1 << 21


def count_undeclared(plan: Plan, cancelled: threading.Event) -> int:
    """Count pixels of the map that are nodata by what was found in the numbers alone.

    The scene is read once more, twice over; without such a finding nothing is read.

    Args:
        plan: of the run.
        cancelled: ends it.

    Returns:
        Pixels; clouds may be among them.

    Raises:
        SceneError: the scene can't be read.
    """
    if all(not band.fills and band.collar is None for band in plan.bands):
        return 0
    declared = [replace(band, fills=(), collar=None) for band in plan.bands]
    grid, nodata = plan.grid, plan.options.src_nodata
    rows, count = max(1, AT_A_TIME // grid.width), 0
    with (
        SceneReader(plan.bands, grid, src_nodata=nodata) as reader,
        SceneReader(declared, grid, src_nodata=nodata) as by_tags,
    ):
        for top in range(0, grid.height, rows):
            if cancelled.is_set():
                break
            window = Window(top, 0, min(rows, grid.height - top), grid.width)
            _, measured = reader.read(window)
            lost = by_tags.read(window)[1] & ~measured
            if plan.aoi and lost.any():
                lost &= in_polygons(plan.aoi, grid, window)
            count += int(lost.sum())
    return count
