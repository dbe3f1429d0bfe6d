"""One look at a whole scene before the work: small windows all over it, and along its edges.

What is decided by a scene's numbers is decided by these, whatever part of it is wanted, so that a
part has the map that it has in the whole. How much is read depends on bytes alone, not on how fast
they come: it is the same on every machine. All that looks at numbers before a run takes them from
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.gdal import block_cache, over_network
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.block_layout import BlockLayout, read_bytes
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.sampling import SceneSampler
from geoseg.scene.scene import CloudLayer
from geoseg.scene.scene_band import SceneBand

__all__ = ["SIDE", "SampledWindow", "Survey", "survey"]

#: Windows of the lattice have this side, px, and are SIDES a row and a column of it.
SIDE, SIDES = 128, 5
#: Decoded bytes that are read, as if of DEFLATE; see block_layout. A quarter of a second.
BUDGET = 64 << 20
#: What is tried in turn, until it is within the budget: windows along each axis, and their side.
#: Overviews come before what is less than LEAST of them.
TRIED = ((5, 128), (4, 128), (4, 64), (3, 64), (3, 32), (2, 32), (2, 16))
LEAST = 3
#: Rows and columns along the scene's edge that strips have, and the longest edge that is looked at
#: from end to end, both px; of longer ones so many parts are, of SIDE px.
DEPTH, WHOLE_EDGE = 16, 2048
PARTS = (16, 8, 4)
#: GDAL's block cache meanwhile, in which rows of blocks stay for the next window.
CACHE_BYTES = 128 << 20
#: So many blocks of a sparse file are looked for where it has none at the lattice's places.
LOOKED_FOR = 25


@dataclass(frozen=True, eq=False)
class SampledWindow:
    """A window of which every so-many-th pixel was read.

    Attributes:
        window: of the survey's grid.
        pixels: (C, h, w), as the files hold them.
        valid: (h, w), True = measured and no cloud; elsewhere the pixels mean nothing.
    """

    window: Window
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Survey:
    """What was seen of a scene.

    Attributes:
        grid: the scene's pixels that all bands cover.
        step: px of the grid from one sampled pixel to the next; more than 1 where overviews were
            read.
        samples: spread evenly over the scene; none overlap.
        edges: along the scene's edge, besides.
    """

    grid: PixelGrid
    step: int = 1
    samples: tuple[SampledWindow, ...] = ()
    edges: tuple[SampledWindow, ...] = ()

    @cached_property
    def pixels(self) -> NDArray[Any]:
        """Raw numbers of the even samples, (C, n)."""
        if not self.samples:
            return np.zeros((0, 0))
        return np.concatenate([s.pixels.reshape(len(s.pixels), -1) for s in self.samples], axis=1)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Which of these were measured and are no cloud, (n,)."""
        return np.concatenate([np.zeros(0, bool), *(s.valid.ravel() for s in self.samples)])

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Where they lie on the grid: rows and columns, (2, n)."""
        found = [np.zeros((2, 0), np.int64)]
        for sample in self.samples:
            rows, cols = (
                np.arange(min(self.step, length) // 2, length, self.step) + first
                for first, length in (
                    (sample.window.row, sample.window.height),
                    (sample.window.col, sample.window.width),
                )
            )
            found.append(np.stack(np.meshgrid(rows, cols, indexing="ij")).reshape(2, -1))
        return np.concatenate(found, axis=1)

    @cached_property
    def all_measured(self) -> NDArray[Any]:
        """Raw numbers of all samples that are valid, those along the edge too, (C, n)."""
        along = [s.pixels[:, s.valid] for s in self.edges]
        return np.concatenate([self.measured, *along], axis=1) if along else self.measured

    def without(self, unmeasured: Callable[[SampledWindow], NDArray[np.bool_]]) -> Survey:
        """Have pixels count as not measured.

        Args:
            unmeasured: gives which of a sample's are so, (h, w).
        """
        samples, edges = (
            tuple(replace(s, valid=s.valid & ~unmeasured(s)) for s in found)
            for found in (self.samples, self.edges)
        )
        return replace(self, samples=samples, edges=edges)

    def from_edges(self, deep: int) -> Iterator[tuple[int, NDArray[Any], NDArray[np.bool_]]]:
        """What was seen beside each of the scene's sides.

        Args:
            deep: rows or columns, of those that were sampled.

        Yields:
            A side's number, and pixels (C, h, w) and validity (h, w) turned so that the first row
            is the outermost one.
        """
        for sample in (*self.samples, *self.edges):
            window = sample.window
            right, bottom = window.right == self.grid.width, window.bottom == self.grid.height
            for side, there in enumerate((window.row == 0, right, bottom, window.col == 0)):
                if there:
                    pixels = np.rot90(sample.pixels, side, (1, 2))
                    yield side, pixels[:, :deep], np.rot90(sample.valid, side)[:deep]

    @property
    def valid_share(self) -> float:
        """Of the even samples, those that are valid; 0 where nothing was read."""
        return float(self.valid.mean()) if self.valid.size else 0.0

    @cached_property
    def measured(self) -> NDArray[Any]:
        """Raw numbers of the even samples that are valid, (C, n)."""
        return self.pixels[:, self.valid]

    def quantity(self, radiometry: Radiometry) -> NDArray[np.float64]:
        """The quantity of the even samples that are valid, (C, n).

        Args:
            radiometry: from numbers to it, of the bands.
        """
        gain, bias = (np.array(each)[:, None] for each in (radiometry.gain, radiometry.bias))
        found: NDArray[np.float64] = self.measured * gain + bias
        return found


def survey(
    bands: Sequence[SceneBand],
    grid: PixelGrid,
    *,
    src_nodata: float | None = None,
    clouds: CloudLayer | None = None,
) -> Survey:
    """Look at a scene.

    Args:
        bands: that are read.
        grid: the scene's pixels that all of them cover.
        src_nodata: the number that means "not measured", in place of what the files say.
        clouds: what says which pixels are clouds.

    Raises:
        SceneError: a file can't be opened, or a block is damaged.
    """
    with (
        block_cache(CACHE_BYTES),
        SceneSampler(bands, grid, src_nodata=src_nodata, clouds=clouds) as reader,
    ):
        layouts = reader.layouts()
        windows, step = _lattice(layouts, grid)
        # Of a server's file they would take a request each.
        remote = any(over_network(band.path) for band in bands)
        strips = [] if remote else _strips(layouts, grid, windows, step)
        # From the top: what is no blocks, but one stream, is read through once.
        order = sorted({*windows, *strips}, key=lambda w: (w.row, w.col))
        found = {window: _sample(reader, window, step) for window in order}
        samples = tuple(found[window] for window in windows)
        if not any(s.valid.any() for s in samples):
            there = reader.blocks_there(LOOKED_FOR)
            samples += tuple(_sample(reader, w, step) for w in there if w not in found)
        return Survey(grid, step, samples, tuple(found[w] for w in strips))


def _sample(reader: SceneSampler, window: Window, step: int) -> SampledWindow:
    empty = reader.uniform(window)
    if empty is None:
        return SampledWindow(window, *reader.sample(window, step))
    values, measured = empty
    shape = tuple(len(range(min(step, n) // 2, n, step)) for n in (window.height, window.width))
    pixels = np.broadcast_to(values[:, None, None], (len(values), *shape))
    return SampledWindow(window, pixels, np.full(shape, measured))


def _lattice(layouts: Sequence[BlockLayout], grid: PixelGrid) -> tuple[list[Window], int]:
    """Find windows to read, evenly spread, within the budget, and their step."""
    levels = sorted({level for layout in layouts for level in layout.levels})
    largest = max(layouts, key=lambda layout: layout.height * layout.width)
    block = largest.height, largest.width
    tried = [(1, *each) for each in TRIED]
    first = [each for each in tried if each[1] > LEAST]
    overviews = [(level, *each) for level in levels for each in TRIED if each[0] > LEAST]
    windows: list[Window] = []
    for step, count, side in (*first, *overviews, *(t for t in tried if t not in first)):
        rows = _places(grid.height, count, side * step, block[0])
        cols = _places(grid.width, count, side * step, block[1])
        windows = [Window(row, col, height, width) for row, height in rows for col, width in cols]
        if read_bytes(layouts, grid, windows, step) <= BUDGET:
            return windows, step
    return windows, 1


def _places(length: int, count: int, side: int, block: int) -> list[tuple[int, int]]:
    """First places along an axis, and lengths: of all of it, or of parts from end to end."""
    if length <= count * side:
        parts = math.ceil(length / side)
        ends = [round(i * length / parts) for i in range(parts + 1)]
        return [(first, end - first) for first, end in pairwise(ends)]
    last = length - side
    firsts = [round(last * i / (count - 1)) for i in range(count)]
    if side <= block:
        # Where it lies in two blocks, both are decoded.
        for i, first in enumerate(firsts[1:-1], start=1):
            border = (first + side - 1) // block * block
            if first < border:
                moved = border if first + side - border > side // 2 else border - side
                if firsts[i - 1] + side <= moved and moved + side <= firsts[i + 1]:
                    firsts[i] = moved
    return [(first, side) for first in firsts]


def _strips(
    layouts: Sequence[BlockLayout], grid: PixelGrid, windows: Sequence[Window], step: int
) -> list[Window]:
    """Find windows along the scene's edge, as many as the budget leaves room for."""
    if sum(w.height * w.width for w in windows) == grid.height * grid.width:
        return []
    deep, long = DEPTH * step, SIDE * step
    for parts in (0, *PARTS):
        if parts == 0 and max(grid.height, grid.width) > WHOLE_EDGE * step:
            continue
        strips = list(_along_edges(grid, deep, long, parts))
        if read_bytes(layouts, grid, [*windows, *strips], step) <= BUDGET:
            return strips
    return []


def _along_edges(grid: PixelGrid, deep: int, long: int, parts: int) -> Iterator[Window]:
    """Strips along all four edges: all of each, or so many parts."""
    high, wide = min(deep, grid.height), min(deep, grid.width)
    for col, width in _pieces(grid.width, long, parts):
        for row in dict.fromkeys((0, grid.height - high)):
            yield Window(row, col, high, width)
    for row, height in _pieces(grid.height, long, parts):
        for col in dict.fromkeys((0, grid.width - wide)):
            yield Window(row, col, height, wide)


def _pieces(length: int, long: int, parts: int) -> list[tuple[int, int]]:
    if parts == 0 or length <= parts * long:
        return [(0, length)]
    # In the middles of equal shares: the lattice has the corners.
    return [(round((i + 0.5) * length / parts - long / 2), long) for i in range(parts)]
