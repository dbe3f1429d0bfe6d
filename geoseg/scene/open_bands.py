"""Bands that one open file serves: their numbers, and what the file says of them pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.windows
from numpy.typing import NDArray

from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.resampling import Pixels
from geoseg.scene.scene_band import Mask

__all__ = ["OpenBands"]


@dataclass
class OpenBands:
    """Bands that one open dataset serves.

    Attributes:
        dataset: rasterio's.
        path: of the file.
        grid: the file's own.
        slots: places of the bands among those that are read.
        indexes: of the bands in the file, from 1.
        nodata: their number for "not measured", or None.
        fills: further such numbers, which no tag declares.
        dark_zeros: whether a nodata of 0 voids a pixel only where all bands are 0.
        masked: whether GDAL's mask says more than a nodata of 0 does.
        mapped: whether there is a mask that is more than a question of the pixel's own numbers.
        collar: which pixels of the file are a near-black collar, or None.
        alpha: index of the alpha band, or None.
        shift: (row, col) of the reader's grid in the file; None: it is resampled.
    """

    dataset: Any
    path: str
    grid: PixelGrid
    slots: list[int]
    indexes: list[int]
    nodata: float | None
    fills: tuple[float, ...]
    dark_zeros: bool
    masked: bool
    mapped: bool
    collar: Mask | None
    alpha: int | None
    shift: tuple[int, int] | None

    @property
    def dark(self) -> bool:
        """Whether 0 in all bands was not measured, and 0 in some of them was."""
        return self.dark_zeros and (self.nodata == 0 or 0 in self.fills)

    def read(
        self,
        area: rasterio.windows.Window,
        out: NDArray[Any] | None,
        shape: tuple[int, int] | None,
    ) -> Pixels:
        """Read a window of the file.

        Args:
            area: of its own grid.
            out: where the numbers go, if it is of their dtype.
            shape: rows and columns to read of the window, from overviews where there are any; None
                for all.

        Raises:
            RasterioError: GDAL can't read it; other errors of GDAL's as well.
        """
        dataset, nodata = self.dataset, self.nodata
        dtypes = dataset.dtypes
        kinds = {dtypes[i - 1] for i in self.indexes}

        def read(function: Callable[..., NDArray[Any]], indexes: list[int]) -> NDArray[Any]:
            size = {} if shape is None else {"out_shape": (len(indexes), *shape)}
            return function(indexes, window=area, **size)

        if out is not None and kinds == {out.dtype.name}:
            dataset.read(self.indexes, window=area, out=out)
            values = out
        else:
            values = read(dataset.read, self.indexes)
        votes: list[NDArray[np.bool_]] = []
        if self.masked:
            votes.append(read(dataset.read_masks, self.indexes) != 0)
        if self.alpha is not None:
            votes.append(read(dataset.read, [self.alpha]) != 0)
        if values.dtype.kind == "f":
            votes.append(np.isfinite(values))
        numbers = {*self.fills, *([] if nodata is None or math.isnan(nodata) else [nodata])}
        votes += [values != number for number in sorted(numbers) if number != 0 or not self.dark]
        if self.collar is not None:
            votes += self._outside_collar(area, values.shape[1:])
        measured = None
        for vote in votes:
            measured = vote if measured is None else measured & vote
        return Pixels(values, measured, values != 0 if self.dark else None)

    def _outside_collar(
        self, area: rasterio.windows.Window, shape: tuple[int, ...]
    ) -> list[NDArray[np.bool_]]:
        """A vote for all bands, (1, h, w), of as many rows and columns; none where all agree."""
        assert self.collar is not None
        window = Window(area.row_off, area.col_off, area.height, area.width)
        mask = self.collar.mask(window)
        if mask is None:
            return []
        rows, cols = (
            np.arange(n) * length // n for n, length in zip(shape, mask.shape, strict=True)
        )
        return [~mask[None, rows[:, None], cols[None, :]]]
