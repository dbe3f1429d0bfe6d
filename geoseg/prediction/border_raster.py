"""The raster that says where a class may depend on what lies beyond the measured ground."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.legend import ClassInfo
from geoseg.core.staging import Staging
from geoseg.geo.window import Window
from geoseg.prediction import later_raster
from geoseg.prediction.plan import Plan
from geoseg.prediction.rasters import raster_specs
from geoseg.prediction.run_log import RunLog
from geoseg.prediction.seen_ground import SeenGround, any_between
from geoseg.rasters.writing import RasterSpec

__all__ = ["border_note", "border_px", "write_border"]

NAME = "border"
LEGEND = (ClassInfo(0, "inside", "#F0F0F0"), ClassInfo(1, "border", "#D7301F"))
#: Pixels of the scene, or of the model's grid, that are read at a time, about.
AT_ONCE = 1 << 21


def border_px(plan: Plan) -> int:
    """How far the border reaches from an end of the measured ground, px of the model's grid.

    Args:
        plan: of the run.

    Returns:
        What the models' cards say; a chip's side where a class may depend on the whole chip.
    """
    return plan.chips.size if plan.chips.border is None else plan.chips.border


def border_note(plan: Plan) -> str | None:
    """Say why the border is taken as a chip's side, where it is asked for and so."""
    if plan.outputs.border is None or plan.chips.border is not None:
        return None
    side = f"--border is taken as a chip's side, {plan.chips.size} px"
    if plan.options.crf:
        return f"{side}: --crf brings each pixel of a chip into line with all others"
    for number, files in enumerate(plan.members):
        if files.card.border is None:
            name = plan.options.models[number] if plan.options.models else files.card.name
            return (
                f"{side}: the card of {name} does not say how far its predictions change with what "
                f"lies beyond; geoseg models probe {name} --write measures it"
            )
    return f"{side}: the model looks at the whole chip"


def write_border(
    plan: Plan, raster: Path, staging: Staging, cancelled: threading.Event, log: RunLog
) -> None:
    """Write the raster of a run whose class raster is finished.

    What a stopped run has made of it is not made again.

    Args:
        plan: of the run, which asks for it.
        raster: the class raster, which says where nodata is.
        staging: of the plan's outputs.
        cancelled: set when the run ends before its time.
        log: that clocks and reports.

    Raises:
        OutputError: the disk is full or fails.
        SceneError: the scene can't be read.
        StoppedError: the run has ended.
    """
    final = plan.outputs.border
    assert final is not None, "of a run that asks for it"

    def strips(
        plan: Plan, cols: tuple[int, int], numbers: tuple[int, int]
    ) -> Iterator[tuple[Window, NDArray[Any]]]:
        for window, near in _strips(plan, ground, cols, numbers):
            yield window, near.astype(np.uint8)

    with SeenGround(plan) as ground:
        later_raster.write_later(
            plan, NAME, final, _spec(plan), strips, raster, staging, cancelled, log
        )


def _spec(plan: Plan) -> RasterSpec:
    """Like the class raster, with a legend of its own."""
    like = raster_specs(plan)["raster"]
    legend = json.dumps({c.id: c.name for c in LEGEND})
    tags = {**like.tags, "GEOSEG_CLASSES": legend, "GEOSEG_BORDER": str(border_px(plan))}
    return replace(like, descriptions=(NAME,), classes=LEGEND, tags=tags)


def _strips(
    plan: Plan, ground: SeenGround, cols: tuple[int, int], numbers: tuple[int, int]
) -> Iterator[tuple[Window, NDArray[np.bool_]]]:
    """Find the border in strips of a lane.

    Args:
        plan: of the run.
        ground: that the network sees.
        cols: (first, the first after) of the lane, of the output.
        numbers: (first, the first after) of the strips.

    Yields:
        Windows of the output from the top, and what in them is within the border, (H, W).
    """
    top, end = (
        numbers[0] * later_raster.STRIP,
        min(numbers[1] * later_raster.STRIP, plan.grid.height),
    )
    above, below = _seen_pixels(plan, 0, top, end)
    lefts, rights = _seen_pixels(plan, 1, *cols)
    first = int(lefts[0])
    lane = first, int(rights.max()) + 1
    chunks = _near(ground, (int(above[0]), int(below.max()) + 1), lane, border_px(plan), plan)
    kept, have = np.zeros((0, lane[1] - lane[0]), dtype=bool), int(above[0])
    for row in range(top, end, later_raster.STRIP):
        here = slice(row - top, min(row + later_raster.STRIP, end) - top)
        start, stop = int(above[here][0]), int(below[here].max()) + 1
        parts = [kept]
        while have < stop:
            parts.append(next(chunks))
            have += len(parts[-1])
        kept = np.concatenate(parts)
        kept = kept[len(kept) - (have - start) :]
        # A pixel is interpolated from up to four, each of which may depend on what lies beyond.
        found = kept[above[here] - start] | kept[below[here] - start]
        found = found[:, lefts - first] | found[:, rights - first]
        yield Window(row, cols[0], len(found), found.shape[1]), found


def _seen_pixels(
    plan: Plan, axis: int, first: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The two pixels of the ground that the output's are made from along an axis, may be one."""
    seen = (plan.chips.seen.row, plan.chips.seen.col)[axis]
    if plan.taps is None:
        same = np.arange(first, end) - seen
        return same, same
    # Beyond the ends, too: where the ground ends, the last pixel stands for the next one.
    taps = replace(plan.taps[axis], low=plan.taps[axis].low - 1, high=plan.taps[axis].high + 1)
    below, above, share = taps.of(first, end)
    origin = (plan.chips.row, plan.chips.col)[axis] + seen
    return below - origin, np.where(share == 0, below, above) - origin


def _near(
    ground: SeenGround, rows: tuple[int, int], cols: tuple[int, int], border: int, plan: Plan
) -> Iterator[NDArray[np.bool_]]:
    """Find the pixels that have one within the border that is unsure, some rows at a time.

    Args:
        ground: that the network sees.
        rows: (first, the first after) of it.
        cols: (first, the first after) of it.
        border: px, in rows and in columns.
        plan: of the run.

    Yields:
        (n, columns), from the top.
    """
    down, across = plan.factor
    wide = cols[1] - cols[0] + 2 * border
    step = max(1, int(AT_ONCE / (wide * max(1.0, down * across))))
    places = np.arange(wide - 2 * border)
    # The last row up to here in which there is an unsure pixel near, by column: all that has to be
    # known of the rows above, however far the border reaches.
    last = np.full(len(places), rows[0] - 2 * border - 1, dtype=np.int32)
    for top in range(rows[0] - border, rows[1] + border, step):
        bottom = min(top + step, rows[1] + border)
        unsure = ground.unsure(Window(top, cols[0] - border, bottom - top, wide))
        beside = any_between(unsure, places, places + 2 * border + 1, axis=1)
        here = np.arange(top, bottom, dtype=np.int32)[:, None]
        latest = np.where(beside, here, last[None])
        np.maximum.accumulate(latest, axis=0, out=latest)
        last = latest[-1]
        # Of the row that lies as far above as the border reaches.
        near = latest >= here - 2 * border
        yield near[max(0, rows[0] + border - top) :]
