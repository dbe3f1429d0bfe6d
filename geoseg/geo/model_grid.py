"""The grid that a network works on, where its gsd is not the scene's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window

__all__ = ["ModelGrid", "Taps", "on_model_grid"]


#: A scene may be this much coarser than the coarsest gsd of the card before it is refused.
COARSEST_FACTOR = 4.0


#: gsd is measured on the ellipsoid; a UTM zone's scale error must not count as "too fine".
GSD_SLACK = 1.01


#: Factors that are no whole number are rounded to so many binary digits, which is to within 0.8 %.
#: So scenes of one acquisition, whose gsd differs in the last digits, are resampled alike; and
#: places among their pixels are numbers that a float holds, the same in each window that is read.
DIGITS = 7


#: Px that a place may be off by rounding.
TINY = 1e-6


@dataclass(frozen=True)
class Taps:
    """Pixels of the model's grid between which those of the scene lie, along one axis.

    Everything is numbered on the world's grid, so that the numbers of a pixel are the same to the
    last bit, whatever part of a scene it is computed for.

    Attributes:
        first: pixel of the output.
        length: px of the output.
        factor: the scene's pixels per pixel of the model's grid.
        low: the model grid's first pixel.
        high: its last one.
    """

    first: int
    length: int
    factor: float
    low: int
    high: int

    def of(self, left: int, right: int) -> tuple[NDArray[np.int64], ...]:
        """The two pixels of the model's grid for each pixel of the output.

        Args:
            left: first pixel, counted from the output's own first one.
            right: the first one after.

        Returns:
            Both pixels' numbers on the world's grid, and the second one's share, float32.
        """
        numbers = np.arange(self.first + left, self.first + right)
        place = np.clip((numbers + 0.5) / self.factor - 0.5, self.low, self.high)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, self.high)
        return below, above, np.asarray(place - below, dtype=np.float32)

    def needed(self, left: int, right: int) -> tuple[int, int]:
        """The pixels of the model's grid that some of the output's are made from.

        Args:
            left: first pixel, counted from the output's own first one.
            right: the first one after.

        Returns:
            (first, the first after), on the world's grid.
        """
        below, above = (self.of(at, at + 1) for at in (left, right - 1))
        return int(below[0][0]), int(above[1][0]) + 1


@dataclass(frozen=True)
class ModelGrid:
    """The grid of all pixels of a scene that a network sees.

    Attributes:
        grid: of the pixels.
        place: (row, col) of its first one on the world's grid of such pixels.
        factor: (down, across): the scene's pixels per pixel of this grid; None where it is the
            scene's own.
    """

    grid: PixelGrid
    place: tuple[int, int]
    factor: tuple[float, float] | None = None

    def taps(self, scene: PixelGrid, part: Window) -> tuple[Taps, Taps] | None:
        """Where the pixels of a part of the scene lie among these, down and across.

        Args:
            scene: its grid.
            part: of the scene.

        Returns:
            None where the grids are one.
        """
        if self.factor is None:
            return None
        firsts = scene.place[0] + part.row, scene.place[1] + part.col
        lengths = part.height, part.width
        counts = self.grid.height, self.grid.width
        down, across = (
            Taps(first, length, factor, place, place + count - 1)
            for first, length, factor, place, count in zip(
                firsts, lengths, self.factor, self.place, counts, strict=True
            )
        )
        return down, across


def on_model_grid(
    grid: PixelGrid, gsd: float, gsd_range: tuple[float, float], name: str
) -> tuple[ModelGrid, list[str]]:
    """Find the grid that a network sees.

    Args:
        grid: the scene's.
        gsd: the model's, metres.
        gsd_range: the finest and coarsest gsd at which scenes are taken as they are.
        name: the model's, for messages.

    Returns:
        The scene's grid, or one of the model's gsd over the same ground, whose pixels lie at places
        that are fixed in the CRS; and what to report.

    Raises:
        SceneError: the scene is far too coarse.
    """
    own_grid = ModelGrid(grid, grid.place)
    if grid.gsd is None:
        return own_grid, [f"the scene's gsd is unknown: taken as the model's {gsd:g} m"]
    low, high = gsd_range[0] / GSD_SLACK, gsd_range[1] * GSD_SLACK
    if all(low <= own <= high for own in grid.gsd):
        return own_grid, []
    across, down = grid.gsd
    if max(grid.gsd) > high * COARSEST_FACTOR:
        raise SceneError(
            f"the scene's pixels are {across:.3g} x {down:.3g} m and the model {name!r} takes "
            f"{gsd_range[0]:g} to {gsd_range[1]:g} m: they hold too little to be refined to "
            f"{gsd:g} m; choose a model for coarser scenes"
        )
    what = (
        f"the scene's pixels of {across:.3g} x {down:.3g} m are resampled to the model's "
        f"{gsd:g} m, and the result back to the scene's grid"
    )
    if max(grid.gsd) > high:
        what += (
            f"; they hold less than the {gsd_range[0]:g} to {gsd_range[1]:g} m that {name!r} was "
            f"taught at, so that its map may be wrong all over: choose a model for coarser scenes"
        )
    return _zoomed(grid, snap(gsd / down), snap(gsd / across)), [what]


def snap(factor: float) -> float:
    """Round a factor to a whole number of pixels, a whole fraction of one, or DIGITS binary digits.

    A 2 m scene in UTM has pixels of 1.9996 m on the ellipsoid; five of them make 10 m.
    """
    whole = float(round(factor)) if factor >= 1 else 1 / round(1 / factor)
    if abs(whole / factor - 1) < 2 * (GSD_SLACK - 1):
        return whole
    part, power = math.frexp(factor)
    return math.ldexp(round(math.ldexp(part, DIGITS)), power - DIGITS)


def _zoomed(grid: PixelGrid, down: float, across: float) -> ModelGrid:
    """The grid of larger or smaller pixels whose centres lie in a scene.

    Args:
        grid: the scene's.
        down: its pixels per pixel of the new grid.
        across: the same along rows.
    """
    (top, bottom), (left, right) = (
        _within(place, place + length, factor)
        for place, length, factor in zip(
            grid.place, (grid.height, grid.width), (down, across), strict=True
        )
    )
    shift = Affine.translation(left * across - grid.place[1], top * down - grid.place[0])
    transform = grid.transform @ shift @ Affine.scale(across, down)
    zoomed = PixelGrid(bottom - top, right - left, transform, grid.crs)
    return ModelGrid(zoomed, (top, left), (down, across))


def _within(low: int, high: int, factor: float) -> tuple[int, int]:
    """The larger pixels whose centres lie in a range of pixels, at least one of them."""
    first, last = (math.ceil(edge / factor - 0.5 - TINY) for edge in (low, high))
    if first < last:
        return first, last
    middle = math.floor((low + high) / 2 / factor)
    return middle, middle + 1
