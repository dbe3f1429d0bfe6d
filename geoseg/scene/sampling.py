"""Reading every so-many-th pixel of a scene, as the files hold it: numbers that are never mixed."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.window import Window
from geoseg.scene.block_layout import BlockLayout, layout_of
from geoseg.scene.open_bands import OpenBands
from geoseg.scene.reader import SceneReader
from geoseg.scene.resampling import Pixels, at_centres
from geoseg.scene.sparse_blocks import some_blocks

__all__ = ["SceneSampler"]

#: Of a block that a sparse file holds, so much is read at most, px a side.
LARGEST = 128


class SceneSampler(SceneReader):
    """A reader that gives the files' own numbers, whatever grids the bands have.

    What :class:`~geoseg.scene.reader.SceneReader` gives of a band with other pixels is a mixture of
    several, in which a number that stands for "not measured" could not be found.
    """

    def sample(self, window: Window, step: int = 1) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read every so-many-th pixel of a window; overviews are taken where there are any.

        Args:
            window: within the grid.
            step: px from one to the next.

        Returns:
            pixels (C, h, w), of a dtype that holds the numbers of all files, and valid (h, w), True
            = measured and no cloud. Where not valid the pixels mean nothing, but are finite.

        Raises:
            SceneError: a block is damaged, or the server failed.
        """
        top, left = (min(step, length) // 2 for length in (window.height, window.width))
        shape = len(range(top, window.height, step)), len(range(left, window.width, step))
        dtype = np.result_type(*{band.dtype for band in self.bands})
        pixels = np.empty((len(self.bands), *shape), dtype=dtype)
        measured = self._join(shape, pixels, partial(self._at_centres, window=window, step=step))
        if self._clouds is not None and measured.any():
            measured &= ~self._clouds.read(window)[top::step, left::step]
        return pixels, measured

    def layouts(self) -> list[BlockLayout]:
        """Look up the blocks of all files."""
        return [layout_of(s.dataset, s.grid, s.indexes) for s in self._sources]

    def blocks_there(self, most: int) -> list[Window]:
        """Find blocks that sparse files hold, spread over the scene.

        Args:
            most: so many at most.

        Returns:
            Windows of the grid, each at most :data:`LARGEST` px a side; none where no file of the
            grid's own pixels can be asked.
        """
        for source in self._sources:
            if source.shift is not None:
                found = some_blocks(source.dataset, source.path, source.indexes[0], most)
                down, right = source.shift
                whole = Window(0, 0, self.grid.height, self.grid.width)
                windows = [block.shifted(-down, -right).intersection(whole) for block in found]
                return [_cut(window) for window in windows if window is not None]
        return []

    def _at_centres(self, source: OpenBands, window: Window, step: int) -> Pixels:
        """Read a file's pixels at the centres of the grid's."""
        if source.shift is not None and step == 1:
            return self._read_file(source, window.shifted(*source.shift))
        places = at_centres(source.grid, self.grid, window, step)
        if places is None:
            top, left = (min(step, length) // 2 for length in (window.height, window.width))
            return _taken(self._resample(source, window), np.s_[:, top::step, left::step])
        rows, cols = places
        area = Window(
            int(rows.min()),
            int(cols.min()),
            int(rows.max() - rows.min()) + 1,
            int(cols.max() - cols.min()) + 1,
        )
        high, wide = min(area.height, len(rows)), min(area.width, len(cols))
        part = self._read_file(source, area, shape=(high, wide) if step > 1 else None)
        if step > 1:
            down = (rows - area.row) * high // area.height
            across = (cols - area.col) * wide // area.width
        else:
            down, across = rows - area.row, cols - area.col
        return _taken(part, np.s_[:, down[:, None], across[None, :]])


def _cut(window: Window) -> Window:
    """The middle of a window."""
    height, width = min(window.height, LARGEST), min(window.width, LARGEST)
    row = window.row + (window.height - height) // 2
    return Window(row, window.col + (window.width - width) // 2, height, width)


def _taken(part: Pixels, places: Any) -> Pixels:
    """Take some pixels (C, h, w) of a part."""
    votes = [None if vote is None else vote[places] for vote in (part.measured, part.lit)]
    return Pixels(part.values[places], votes[0], votes[1])
