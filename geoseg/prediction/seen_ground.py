"""Which pixels that the network sees are made of measured ground alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.pixel_grid import ROUNDING, PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.plan import Plan
from geoseg.scene.cloud_reader import CloudReader
from geoseg.scene.reader import SceneReader
from geoseg.scene.resampling import Ranges, shared_ground, taken
from geoseg.scene.scene_band import finest_grid

__all__ = ["SeenGround", "any_between"]


class SeenGround:
    """The ground that the network sees, on its grid; use as a context manager.

    What is asked is not what :meth:`geoseg.scene.reader.SceneReader.read` calls measured: where
    bands are resampled, a measured pixel may be made of some that were not, or end with a file, and
    then it has another number in a scene where more was measured.
    """

    def __init__(self, plan: Plan) -> None:
        """Find out what each pixel is made from; opens the scene.

        Args:
            plan: of the run.

        Raises:
            SceneError: a file can't be opened.
        """
        self.height, self.width = plan.ground.height, plan.ground.width
        grid = _scene_ground(plan)
        (self._rows, self._ends), (self._cols, self._sides) = _made_from(plan, grid)
        self._stack = ExitStack()
        try:
            self._reader = SceneReader(plan.bands, grid, src_nodata=plan.options.src_nodata)
            self._stack.callback(self._reader.close)
            # Clouds take the pixels that they are out, and change no other one's number.
            self._clouds: CloudReader | None = None
            if plan.scene.clouds is not None:
                self._clouds = CloudReader(plan.scene.clouds, plan.ground)
                self._stack.callback(self._clouds.close)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> SeenGround:
        """For ``with``."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the files."""
        self._stack.close()

    def unsure(self, window: Window) -> NDArray[np.bool_]:
        """Find the pixels that were not measured, or are made of some that were not.

        Args:
            window: of the ground; it may reach beyond.

        Returns:
            (H, W); beyond the ground all are.

        Raises:
            SceneError: the scene can't be read.
        """
        found = np.ones((window.height, window.width), dtype=bool)
        inside = window.intersection(Window(0, 0, self.height, self.width))
        if inside is not None:
            place = inside.shifted(-window.row, -window.col)
            found[place.rows, place.cols] = self._inside(inside)
        return found

    def _inside(self, window: Window) -> NDArray[np.bool_]:
        rows = self._rows[0][window.rows], self._rows[1][window.rows]
        cols = self._cols[0][window.cols], self._cols[1][window.cols]
        top, left = int(rows[0][0]), int(cols[0][0])
        area = Window(top, left, int(rows[1][-1]) - top, int(cols[1][-1]) - left)
        known = self._reader.uniform(area)
        if known is None:
            missing = ~self._reader.read(area)[1]
        else:
            missing = np.full((area.height, area.width), not known[1])
        missing = any_between(missing, rows[0] - top, rows[1] - top, axis=0)
        missing = any_between(missing, cols[0] - left, cols[1] - left, axis=1)
        missing |= self._ends[window.rows, None] | self._sides[None, window.cols]
        if self._clouds is not None:
            missing |= self._clouds.read(window)
        return missing


def any_between(
    mask: NDArray[np.bool_], first: NDArray[np.int64], end: NDArray[np.int64], *, axis: int
) -> NDArray[np.bool_]:
    """Find the ranges along an axis that hold a True.

    Args:
        mask: (H, W).
        first: places where they begin, (n,).
        end: the first ones after, (n,).
        axis: 0 or 1.

    Returns:
        (n, W) or (H, n).

    >>> any_between(np.eye(3, dtype=bool), np.array([0, 1]), np.array([2, 2]), axis=0)
    array([[ True,  True, False],
           [False,  True, False]])
    """
    if len(first) == mask.shape[axis] and np.array_equal(end - first, np.ones(len(first))):
        return mask  # each place by itself
    before = [(0, 0), (0, 0)]
    before[axis] = (1, 0)
    counts = np.pad(np.cumsum(mask, axis=axis, dtype=np.int32), before)
    found: NDArray[np.bool_] = counts.take(end, axis) > counts.take(first, axis)
    return found


def _scene_ground(plan: Plan) -> PixelGrid:
    """The ground that the network sees, on the scene's own grid."""
    if not plan.resampled:
        return plan.ground
    full = finest_grid(plan.bands)
    place = plan.grid.place_in(full)
    assert place is not None, "the output is a part of the scene"
    part = Window(*place, plan.grid.height, plan.grid.width)
    return full.crop(part.around(shared_ground(plan.bands, full)))


def _made_from(plan: Plan, grid: PixelGrid) -> Iterator[tuple[Ranges, NDArray[np.bool_]]]:
    """What the pixels of the ground are made from, along both axes.

    Args:
        plan: of the run.
        grid: the ground's on which validity is read: no band has smaller pixels.

    Yields:
        For rows, then for columns: their ranges of the grid's, cut at its ends, and whether they
        reach beyond an end of a band's file.
    """
    found = [_of_band(of, plan.ground, grid) for of in dict.fromkeys(b.grid for b in plan.bands)]
    for axis, length in enumerate((grid.height, grid.width)):
        first = np.minimum.reduce([ranges[axis][0] for ranges, _ in found])
        end = np.maximum.reduce([ranges[axis][1] for ranges, _ in found])
        beyond = np.logical_or.reduce([ends[axis] for _, ends in found])
        beyond |= (first < 0) | (end > length)
        first = first.clip(0, length - 1)
        yield (first, end.clip(first + 1, length)), beyond


def _of_band(
    of: PixelGrid, ground: PixelGrid, grid: PixelGrid
) -> tuple[tuple[Ranges, Ranges], tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """The same of one band: ranges of the grid's rows and columns, and which reach beyond it."""
    ranges = taken(of, ground)
    if ranges is None:
        return _loosely(of, ground, grid)
    relative = ~grid.transform @ of.transform
    scales = ((relative.e, relative.f), (relative.a, relative.c))
    lengths = of.height, of.width
    beyond = [(first < 0) | (end > n) for (first, end), n in zip(ranges, lengths, strict=True)]
    there = []
    for (first, end), (scale, offset) in zip(ranges, scales, strict=True):
        edges = np.stack([first, end]) * scale + offset
        edges.sort(axis=0)  # a band may lie upside down
        there.append(
            (
                np.floor(edges[0] + ROUNDING).astype(np.int64),
                np.ceil(edges[1] - ROUNDING).astype(np.int64),
            )
        )
    return (there[0], there[1]), (beyond[0], beyond[1])


def _loosely(
    of: PixelGrid, ground: PixelGrid, grid: PixelGrid
) -> tuple[tuple[Ranges, Ranges], tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """A bound on the same for a band that is turned, or of another CRS."""
    if of.crs == grid.crs:
        t = ~grid.transform @ of.transform
        wide = max(abs(t.a) + abs(t.b), abs(t.d) + abs(t.e))
    else:
        # Both are measured: there is no resampling without.
        wide = max(of.gsd or (1.0,)) / min(grid.gsd or (1.0,))
    relative = ~grid.transform @ ground.transform
    axes = ((relative.e, relative.f, ground.height), (relative.a, relative.c, ground.width))
    found = []
    for scale, offset, count in axes:
        middle = offset + scale * (np.arange(count) + 0.5)
        # The kernel, and the pixel by which a file is extended at its ends.
        near = abs(scale) + 3 * wide
        found.append(
            (np.floor(middle - near).astype(np.int64), np.ceil(middle + near).astype(np.int64))
        )
    nowhere = [np.zeros(count, dtype=bool) for *_, count in axes]
    return (found[0], found[1]), (nowhere[0], nowhere[1])
