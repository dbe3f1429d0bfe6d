"""Where each pixel of the mosaic lies in a map.

A mosaic is made in windows, and a pixel must get the same class whatever window it is made in.
GDAL's warp is fast since it transforms a few pixels of a row exactly and those between by lines,
and which pixels these are depends on the window. Here they are the corners of cells that are
counted from the endless grid's origin: a pixel lies in one cell, whoever asks.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyproj
from numpy.typing import NDArray

from geoseg.geo.geodesy import Floats
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.mosaicking.grid import MosaicGrid

__all__ = ["CELL", "Places"]

#: Side of a cell, px of the mosaic; even.
CELL = 64
#: A cell in which straight lines are further off than this, px of the map, is transformed exactly.
TOLERANCE = 1e-3
#: Pixels nearer than this to the border of a map's pixel lie on it, px: what rounding leaves.
ON_BORDER = 1e-9


class Places:
    """Finds pixels of a mosaic in a map."""

    def __init__(self, mosaic: MosaicGrid, grid: PixelGrid) -> None:
        """Set up the transformation.

        Args:
            mosaic: whose pixels are looked for.
            grid: the map's.

        Raises:
            pyproj.exceptions.ProjError: there is no way from one CRS to the other.
        """
        self.mosaic = mosaic
        self.grid = grid
        self.aligned = mosaic.place_of(grid)
        self._from_crs = ~grid.transform

    @cached_property
    def _transformer(self) -> pyproj.Transformer | None:
        if self.mosaic.crs == self.grid.crs:
            return None
        assert self.mosaic.crs is not None and self.grid.crs is not None
        return pyproj.Transformer.from_crs(
            self.mosaic.crs.to_wkt(), self.grid.crs.to_wkt(), always_xy=True
        )

    @cached_property
    def _turn(self) -> tuple[float, float] | None:
        """The map's middle and a full turn, in units of x; None where x is no longitude."""
        crs = self.grid.crs
        if self._transformer is None or crs is None or not crs.is_geographic:
            return None
        middle, _ = self.grid.transform @ (self.grid.width / 2, self.grid.height / 2)
        return middle, 2 * np.pi / float(crs.units_factor[1])

    def pixels(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the map's pixels in which the centres of the mosaic's lie.

        Args:
            window: in pixels of the endless grid.

        Returns:
            Rows and columns, (H, W) each; -1 where the map has no pixel.
        """
        col, row = self._cells(window)
        inside = (row > -ON_BORDER) & (row < self.grid.height - ON_BORDER)
        inside &= (col > -ON_BORDER) & (col < self.grid.width - ON_BORDER)
        found = (np.where(inside, place + ON_BORDER, -1.0) for place in (row, col))
        rows, cols = (np.floor(place).astype(np.int64) for place in found)
        return rows, cols

    def _exact(self, cols: Floats, rows: Floats) -> Floats:
        """Transform places in the endless grid, of one shape, into columns and rows; (2, ...)."""
        x = self.mosaic.origin[0] + cols * self.mosaic.step[0]
        y = self.mosaic.origin[1] + rows * self.mosaic.step[1]
        if self._transformer is not None:
            x, y = (np.asarray(v, np.float64) for v in self._transformer.transform(x, y))
        if self._turn is not None:
            middle, turn = self._turn
            x = x - turn * np.round((x - middle) / turn)
        a, b, c, d, e, f = tuple(self._from_crs)[:6]
        return np.stack((a * x + b * y + c, d * x + e * y + f))

    @np.errstate(invalid="ignore", over="ignore")  # places without ground are infinite
    def _cells(self, window: Window) -> Floats:
        """Find columns and rows of the map, (2, H, W), at the centres of the window's pixels."""
        top, left = window.row // CELL, window.col // CELL
        down, across = (window.bottom - 1) // CELL + 1 - top, (window.right - 1) // CELL + 1 - left
        half = CELL // 2
        y, x = np.meshgrid(
            np.arange(top * CELL, (top + down) * CELL + 1, half, dtype=np.float64),
            np.arange(left * CELL, (left + across) * CELL + 1, half, dtype=np.float64),
            indexing="ij",
        )
        known = self._exact(x, y)
        corners = known[:, ::2, ::2]
        bad = _off(known) > TOLERANCE
        fraction = (np.arange(CELL) + 0.5) / CELL
        # Rows of cells: first along x, then along y.
        along = corners[:, :, :-1, None] * (1 - fraction) + corners[:, :, 1:, None] * fraction
        along = along.reshape(2, down + 1, across * CELL)
        weight = fraction[:, None]
        out = along[:, :-1, None] * (1 - weight) + along[:, 1:, None] * weight
        out = out.reshape(2, down * CELL, across * CELL)
        for row, col in np.argwhere(bad):
            y, x = np.mgrid[0:CELL, 0:CELL] + 0.5
            y, x = y + (top + row) * CELL, x + (left + col) * CELL
            place = np.s_[:, row * CELL : (row + 1) * CELL, col * CELL : (col + 1) * CELL]
            out[place] = self._exact(x, y)
        first, second = window.row - top * CELL, window.col - left * CELL
        return out[:, first : first + window.height, second : second + window.width]


def _off(known: Floats) -> Floats:
    """Find how far straight lines between a cell's corners are off, (rows, columns) of cells.

    At the middles of its four sides and its own: of a conformal map the last one alone says
    nothing, since what bends along x and along y cancels there.

    Args:
        known: (2, 2 rows + 1, 2 columns + 1), corners, sides' middles and cells' middles.
    """
    corners = known[:, ::2, ::2]
    sides = (corners[:, :, :-1] + corners[:, :, 1:]) / 2  # along x
    ends = (corners[:, :-1] + corners[:, 1:]) / 2  # along y
    middle = (sides[:, :-1] + sides[:, 1:]) / 2
    above = np.abs(known[:, ::2, 1::2] - sides).max(axis=0)
    beside = np.abs(known[:, 1::2, ::2] - ends).max(axis=0)
    off = np.abs(known[:, 1::2, 1::2] - middle).max(axis=0)
    for each in (above[:-1], above[1:], beside[:, :-1], beside[:, 1:]):
        off = np.maximum(off, each)
    return np.where(np.isnan(off), np.inf, off)
