"""Where pixels lie on the ground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from affine import Affine
from rasterio.crs import CRS

from geoseg.geo.window import Window

__all__ = ["ROUNDING", "PixelGrid"]

#: Pixels are numbered from the one that this part of a pixel before the CRS's origin lies in. Grids
#: mostly begin on whole pixels or on halves and quarters of them; there, two scenes of one grid
#: would get other numbers for a rounding error. The golden section is far from all of these.
FRACTION = (3 - math.sqrt(5)) / 2

#: How far the corners of one grid may be from where the other has them, px: what rounding in
#: headers leaves.
ROUNDING = 1e-3


@dataclass(frozen=True)
class PixelGrid:
    """Where pixels lie on the ground.

    Attributes:
        height: rows, px.
        width: columns, px.
        transform: from (column, row) to CRS coordinates; any affine.
        crs: or None.
    """

    height: int
    width: int
    transform: Affine
    crs: CRS | None

    @classmethod
    def of(cls, dataset: Any) -> PixelGrid:
        """Take the grid of an open dataset of rasterio's."""
        return cls(dataset.height, dataset.width, dataset.transform, dataset.crs)

    @cached_property
    def gsd(self) -> tuple[float, float] | None:
        """Metres per pixel along x and y at the grid's centre, on the ellipsoid; None without CRS.

        Measured on WGS 84, so it is true for degrees, feet and Web Mercator alike.
        """
        return self._measured[:2] if self._measured else None

    @cached_property
    def place(self) -> tuple[int, int]:
        """(row, col) of the first pixel on the world's grid.

        That is this grid extended without end, numbered from the CRS's origin: pixels of two scenes
        that are one on the ground have one number. A grid that is shifted by part of a pixel
        keeps its pixels, and their numbers are those of the nearest ones.
        """
        col, row = ~self.transform @ (0.0, 0.0)
        if not (math.isfinite(row) and math.isfinite(col)):
            return 0, 0
        return math.floor(FRACTION - row), math.floor(FRACTION - col)

    @property
    def pixel_area(self) -> float | None:
        """Square metres of the pixel at the grid's centre, also of a sheared one; or None."""
        measured = self._measured
        return measured[0] * measured[1] * abs(measured[2]) if measured else None

    @property
    def metric(self) -> tuple[float, float, float] | None:
        """The three numbers that make square metres of a step of pixels; None without CRS.

        They are (a, b, c) of ``a * cols**2 + 2 * b * cols * rows + c * rows**2``, at the grid's
        centre, also of a turned or sheared grid.
        """
        if self._measured is None:
            return None
        across, down, _, cosine = self._measured
        return across**2, across * down * cosine, down**2

    @cached_property
    def _measured(self) -> tuple[float, float, float, float] | None:
        """(metres along x, metres along y, sine and cosine between) at the grid's centre."""
        if self.crs is None:
            return None
        from pyproj import Geod, Transformer
        from pyproj.exceptions import ProjError

        col, row = self.width / 2, self.height / 2
        points = [self.transform @ p for p in ((col, row), (col + 1, row), (col, row + 1))]
        try:
            to_degrees = Transformer.from_crs(self.crs.to_wkt(), "EPSG:4326", always_xy=True)
            x, y = to_degrees.transform([p[0] for p in points], [p[1] for p in points])
        except ProjError:
            return None  # an engineering CRS has no place on the ellipsoid
        if not all(math.isfinite(lon) and abs(lat) <= 90 for lon, lat in zip(x, y, strict=True)):
            return None
        geod = Geod(ellps="WGS84")
        east, _, across = geod.inv(x[0], y[0], x[1], y[1])
        south, _, down = geod.inv(x[0], y[0], x[2], y[2])
        if not (math.isfinite(across) and across > 0 and down > 0):
            return None
        between = math.radians(east - south)
        return across, down, math.sin(between), math.cos(between)

    def place_in(self, whole: PixelGrid, tolerance: float = ROUNDING) -> tuple[int, int] | None:
        """Find where this grid's pixels are among those of another one.

        Args:
            whole: the other grid.
            tolerance: how far a corner may be off, px.

        Returns:
            (row, col) of this grid's first pixel in the other; None where their pixels differ, or
            this grid reaches beyond the other.
        """
        if self.crs != whole.crs:
            return None
        relative = ~whole.transform @ self.transform
        row, col = round(relative.f), round(relative.c)
        inside = (
            row >= 0
            and col >= 0
            and row + self.height <= whole.height
            and col + self.width <= whole.width
        )
        # Two corners would not do: a square grid that is transposed has both in their places.
        corners = [(x, y) for x in (0, self.width) for y in (0, self.height)]
        apart = max(
            max(abs(x - c - col), abs(y - r - row))
            for c, r in corners
            for x, y in [relative @ (c, r)]
        )
        return (row, col) if inside and apart <= tolerance else None

    def same_pixels(self, other: PixelGrid, tolerance: float = ROUNDING) -> bool:
        """Whether two grids have the same pixels.

        Args:
            other: the other grid.
            tolerance: how far a corner may be off, px.
        """
        same_size = (self.height, self.width) == (other.height, other.width)
        return same_size and self.place_in(other, tolerance) == (0, 0)

    def crop(self, window: Window) -> PixelGrid:
        """Cut out the part of the grid in a window."""
        shift = Affine.translation(window.col, window.row)
        return PixelGrid(window.height, window.width, self.transform @ shift, self.crs)

    def zoom(self, factor_x: float, factor_y: float) -> PixelGrid:
        """Make a grid over the same ground whose pixels are larger by the factors.

        The last row and column may reach beyond the ground by less than a pixel.
        """
        return PixelGrid(
            max(1, math.ceil(self.height / factor_y - 1e-6)),
            max(1, math.ceil(self.width / factor_x - 1e-6)),
            self.transform @ Affine.scale(factor_x, factor_y),
            self.crs,
        )
