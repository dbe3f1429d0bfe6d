"""Areas and perimeters of polygons in pixel coordinates, on the ellipsoid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from geoseg.core.jit import kernel
from geoseg.geo.geodesy import Floats, GroundGrid, Rings

__all__ = ["Measure"]

#: Largest error of the polynomials, as a share of what they stand for.
TOLERANCE = 1e-8
#: Pixels larger than this are measured edge by edge, m.
COARSE = 1000.0
#: Longest piece of an edge, px.
PIECE = 64.0
#: The ground is looked at at so many places a side, each a square of COARSE metres whose edges are
#: cut into pieces: of so many a side at most, however small pixels are.
PLACES, PIECES = 17, 256


@kernel
def _value(u: float, v: float, coefficients: NDArray[np.float64]) -> float:
    """Evaluate a polynomial sum c[i, j] u^i v^j, by Horner's rule."""
    rows, cols = coefficients.shape
    total = 0.0
    for i in range(rows - 1, -1, -1):
        row = 0.0
        for j in range(cols - 1, -1, -1):
            row = row * v + coefficients[i, j]
        total = total * u + row
    return total


@kernel
def _measure(
    xy: NDArray[np.float64],
    rings: NDArray[np.int64],
    polygons: NDArray[np.int64],
    size: NDArray[np.float64],
    integral: NDArray[np.float64],
    metric: NDArray[np.float64],
    piece: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Add up areas and perimeters; see :class:`Measure`."""
    count = len(polygons) - 1
    areas, lengths = np.zeros(count), np.zeros(count)
    du, dv = 2.0 / size[0], 2.0 / size[1]
    offset = 0.5 / np.sqrt(3.0)  # of the two points of Gauss's rule from the middle
    for p in range(count):
        area, length = 0.0, 0.0
        for ring in range(polygons[p], polygons[p + 1]):
            for k in range(rings[ring], rings[ring + 1] - 1):
                dx, dy = xy[k + 1, 0] - xy[k, 0], xy[k + 1, 1] - xy[k, 1]
                parts = int(np.ceil(max(abs(dx), abs(dy)) / piece))
                for i in range(parts):
                    at = (i + 0.5) / parts
                    u = (xy[k, 0] + at * dx) * du - 1.0
                    v = (xy[k, 1] + at * dy) * dv - 1.0
                    square = 0.0
                    if dx != 0:
                        square += dx * dx * _value(u, v, metric[0])
                    if dx != 0 and dy != 0:
                        square += 2.0 * dx * dy * _value(u, v, metric[1])
                    if dy != 0:
                        square += dy * dy * _value(u, v, metric[2])
                        su, sv = offset * dx / parts * du, offset * dy / parts * dv
                        under = _value(u - su, v - sv, integral) + _value(u + su, v + sv, integral)
                        area += under * 0.5 * dy / parts
                    length += np.sqrt(max(square, 0.0)) / parts
        areas[p], lengths[p] = abs(area), length
    return areas, lengths


@dataclass(frozen=True)
class Measure:
    """The ground under a raster, as polynomials of the place.

    The place is u = 2 col / width - 1 and v = 2 row / height - 1.

    With a(x, y) the square metres of ground per square pixel, an area is the integral of A dy
    round it, where A is that of a from x = 0 on (Green's theorem); a length is that of
    sqrt(E dx^2 + 2 F dx dy + G dy^2).

    Attributes:
        grid: the raster's.
        integral: coefficients of A; None where no polynomial is right to 1e-8 or pixels are
            coarser than a kilometre: then edges are projected one by one.
        metric: (3, n, n) of E, F and G.
    """

    grid: GroundGrid
    integral: Floats | None
    metric: Floats | None

    @classmethod
    def of(cls, grid: GroundGrid) -> Measure:
        """Fit the polynomials to the ground at PLACES x PLACES places."""
        if grid.crs is None:
            return cls(grid, None, None)
        pixel = max(grid.pixel_size())
        if not 0 < pixel <= COARSE:
            return cls(grid, None, None)
        node = np.cos(np.pi * (np.arange(PLACES) + 0.5) / PLACES)
        u, v = (a.ravel() for a in np.meshgrid(node, node, indexing="ij"))
        x, y = (u + 1) * grid.width / 2, (v + 1) * grid.height / 2
        side = COARSE / pixel
        centres = np.column_stack((x, y))
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * side / 2
        corners = (centres[:, None, :] + square).reshape(-1, 2)
        # Many pieces are projected some at a time.
        parts = np.split(grid.to_crs(corners), PLACES if side > PIECES else 1)
        each = np.arange(len(parts[0]) // 5 + 1)
        areas = [grid.areas(Rings(xy, 5 * each, each), side / PIECES) for xy in parts]
        density = np.concatenate(areas) / side**2
        geod = grid.crs.get_geod()
        assert geod is not None
        lengths = []
        for way in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
            half = np.array(way) * side / 2
            ends = [grid.to_lonlat(grid.to_crs(centres + sign * half)).T for sign in (-1, 1)]
            if not np.isfinite(ends).all():
                return cls(grid, None, None)
            lengths.append(geod.inv(*ends[0], *ends[1])[2] / side)
        e, g, d = (length**2 for length in lengths)
        targets = np.stack((density, e, (d - e - g) / 2, g), axis=1)
        if not np.isfinite(targets).all():
            return cls(grid, None, None)
        for degree in (1, 2, 3, 4, 6, 8, 10):
            basis = chebyshev.chebvander2d(u, v, [degree, degree])
            found = np.linalg.lstsq(basis, targets, rcond=None)[0]
            error = np.abs(basis @ found - targets).max(axis=0)
            if error[0] > TOLERANCE * density.min() or error[1:].max() > 1e-7 * min(
                e.min(), g.min()
            ):
                continue
            n = degree + 1
            power = np.zeros((n, n))  # of Chebyshev polynomials in powers
            for i in range(n):
                own = chebyshev.cheb2poly(np.eye(n)[i])
                power[i, : len(own)] = own
            a, *metric = (power.T @ c.reshape(n, n) @ power for c in found.T)
            integral = np.zeros((n + 1, n))
            integral[1:] = a / np.arange(1, n + 1)[:, None] * (grid.width / 2)
            # From u = -1 on, so that numbers are small where the raster begins.
            integral[0] = -((-1.0) ** np.arange(1, n + 1) @ integral[1:])
            return cls(grid, integral, np.stack(metric))
        return cls(grid, None, None)

    def __call__(self, rings: Rings) -> tuple[Floats, Floats]:
        """Geodesic areas and perimeters of P polygons in pixel coordinates.

        Returns:
            (P,) square metres and (P,) metres; NaN without a geographic or projected CRS.
        """
        if self.integral is None or self.metric is None:
            moved = rings._replace(xy=self.grid.to_crs(rings.xy))
            return self.grid.areas(moved), self.grid.perimeters(moved)
        size = np.array([self.grid.width, self.grid.height], np.float64)
        return _measure(*rings, size, self.integral, self.metric, PIECE)
