"""Probes: jobs on small windows of a few scenes, to learn what the others will take.

A probe is a job as a worker does it, reading and writing included, with the threads that a worker
has; but this process does it, alone, and into a folder that is removed.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from geoseg.archive.asked import Asked
from geoseg.archive.estimates import Measured, Rates
from geoseg.archive.plan_rows import PlanRow, plan_of
from geoseg.archive.sources import addresses
from geoseg.archive.stac_item import ITEM_NAME
from geoseg.archive.worker import run_job
from geoseg.core.wording import counted
from geoseg.errors import GeosegError
from geoseg.events import Progress
from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.window import Window
from geoseg.prediction.plan import Plan
from geoseg.runtimes.kept import keep

__all__ = ["SCENES", "probe"]

#: That are probed at most.
SCENES = 3
#: Sides of windows, in chips. The second is always tried: with one size alone, what each map costs
#: once would be taken for a cost of its pixels. A larger one is tried where the one before took
#: less than LITTLE seconds: it takes some seven times as long.
SIDES, LITTLE = (1, 3, 8, 20), 1.0
#: Seconds after which no probe begins, and after which one is given up.
ENOUGH, AT_MOST = 45.0, 300.0
#: Where windows lie, as shares of the scene's sides: the first of these that was measured.
_PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), (0.25, 0.75), (0.75, 0.25))


def probe(rows: Sequence[PlanRow], asked: Asked, suffix: str, report: Progress) -> Rates | None:
    """Do jobs on windows of scenes.

    Args:
        rows: scenes that can be opened, :data:`SCENES` of them at most.
        asked: of all jobs; with the threads and the memory of a worker.
        suffix: of the polygons' files.
        report: hears which probes failed.

    Returns:
        None where no probe came to an end.
    """
    measured, sides, probed = Measured(), list[tuple[int, int]](), 0
    try:
        with tempfile.TemporaryDirectory(prefix="geoseg-probe-") as folder:
            probing = _Probing(asked, suffix, Path(folder), report)
            for row in rows:
                before = measured.count
                for shape, seconds, written in probing.scene(row):
                    measured.add(shape[0] * shape[1], seconds, written)
                    sides.append(shape)
                probed += measured.count > before
    finally:
        keep(0)
    if not measured.count:
        return None
    (least, most) = min(sides, key=math.prod), max(sides, key=math.prod)
    size = _size(least) if least == most else f"{_size(least)} to {_size(most)}"
    threads = asked.options.get("threads")
    return measured.rates(
        f"{counted(measured.count, 'probe')} of {size} px in {counted(probed, 'scene')}, on this "
        f"machine with {counted(threads, 'thread') if threads else 'all its cores'}"
    )


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"


class _Probing:
    def __init__(self, asked: Asked, suffix: str, folder: Path, report: Progress) -> None:
        self._asked, self._suffix, self._folder, self._report = asked, suffix, folder, report
        self._began, self._number, self._warm = time.monotonic(), 0, False

    def scene(self, row: PlanRow) -> Iterator[tuple[tuple[int, int], float, int]]:
        """Give height and width, seconds and bytes of each window that was predicted."""
        try:
            plan = plan_of(row.record, self._asked, self._suffix, self._folder / row.key)
        except GeosegError as error:  # it could be opened a moment ago
            self._fail(row, str(error))
            return
        places, before = list(_PLACES), 0.0
        for side in SIDES:
            window = _window(plan, side, places[0])
            long = side not in SIDES[:2] and before > LITTLE
            if time.monotonic() - self._began > ENOUGH or long:
                return
            found = self._do(row, plan, window)
            while found is None and side == SIDES[0] and len(places) > 1:
                places.pop(0)
                window = _window(plan, side, places[0])
                found = self._do(row, plan, window)
            if found is None:
                return
            if not self._warm:  # networks are compiled, libraries loaded
                self._warm = True
                found = self._do(row, plan, window) or found
            yield found
            before = found[1]
            if (window.height, window.width) == (plan.grid.height, plan.grid.width):
                return

    def _do(
        self, row: PlanRow, plan: Plan, window: Window
    ) -> tuple[tuple[int, int], float, int] | None:
        """Do a job on a window; None where it failed, or nothing was measured there."""
        self._number += 1
        key = f"probe-{self._number}"
        left = AT_MOST - (time.monotonic() - self._began)
        here = {"bbox": _bounds(plan, window), "bbox_crs": None}
        source = addresses(row.record)
        source["options"] = {**source.get("options", {}), **here}
        outcome = run_job(
            {
                "key": key,
                "source": source,
                "out": str(self._folder),
                "options": dict(self._asked.options),
                "vector_suffix": self._suffix,
                "timeout": max(1.0, left),
                "also": list(self._asked.also),
            }
        )
        if outcome["outcome"] != "done":
            if outcome.get("kind") != "empty":
                self._fail(row, str(outcome.get("reason", "")))
            return None
        item = json.loads((self._folder / key / ITEM_NAME).read_text(encoding="utf-8"))
        height, width = item["properties"]["proj:shape"]
        return (height, width), outcome["seconds"], outcome["result"]["bytes"]

    def _fail(self, row: PlanRow, reason: str) -> None:
        self._report({"event": "warning", "message": f"a probe of {row.name} failed: {reason}"})


def _window(plan: Plan, side: int, place: tuple[float, float]) -> Window:
    """The window that so many chips around a place of a scene see, and no other chip."""
    grid, chips = plan.grid, plan.chips
    (top, bottom), (left, right) = (
        _between(starts, chip, chips, side, share, length, factor)
        for starts, chip, share, length, factor in (
            (chips.row_starts, chips.chip_height, place[0], grid.height, plan.factor[0]),
            (chips.col_starts, chips.chip_width, place[1], grid.width, plan.factor[1]),
        )
    )
    return Window(top, left, bottom - top, right - left)


def _between(
    starts: Sequence[int],
    chip: int,
    chips: ChipGrid,
    side: int,
    place: float,
    length: int,
    factor: float,
) -> tuple[int, int]:
    """Pixels of the output along one axis for which some chips are enough: (first, first after)."""
    first = min(max(round(place * len(starts) - side / 2), 0), max(len(starts) - side, 0))
    last = min(first + side, len(starts)) - 1
    # So far into a chip its neighbour has a weight.
    shared = chips.size - chips.stride - chips.weightless
    begin = 0 if first == 0 else math.ceil((starts[first] + shared) * factor)
    end = length
    if last + 1 < len(starts):
        end = math.floor((starts[last] + chip - shared) * factor)
    begin = min(max(begin, 0), length - 1)
    return begin, max(begin + 1, min(end, length))


def _bounds(plan: Plan, window: Window) -> tuple[float, float, float, float]:
    """West, south, east, north of a window, in the CRS of the scene."""
    corners = [
        plan.grid.transform @ (col, row)
        for col in (window.col, window.right)
        for row in (window.row, window.bottom)
    ]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
