"""Where the mosaic's pixels lie: its CRS, the size of a pixel, and how much of the ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import pyproj.exceptions
from affine import Affine
from rasterio.crs import CRS

from geoseg.core.gdal import GDAL_ERRORS, first_line
from geoseg.errors import UsageError
from geoseg.geo.pixel_grid import ROUNDING, PixelGrid
from geoseg.geo.window import Window
from geoseg.mosaicking.maps import MapFile, named

__all__ = ["Box", "MosaicGrid", "choose_grid", "footprints"]

Box = tuple[float, float, float, float]

#: Sizes of pixels that differ by no more than a UTM zone's scale are the same.
SCALE_ERROR = 0.01
#: An outline is followed in pieces of so many px, and of so many at most.
PIECE, MOST_PIECES = 64, 1024
#: What a CRS that PROJ doesn't know ends in.
BAD_CRS: tuple[type[Exception], ...] = (*GDAL_ERRORS, ValueError)
#: A rounding error is no further pixel.
EDGE = 1e-6


@dataclass(frozen=True)
class MosaicGrid:
    """An endless grid of pixels, and the part of it that is the mosaic.

    Places are counted from the endless grid's origin, so that a part has the pixels of the whole,
    to the last bit.

    Attributes:
        crs: or None.
        origin: x, y of the corner of pixel (0, 0), CRS units.
        step: CRS units a column, and a row (below 0).
        window: the mosaic, in pixels of the endless grid.
    """

    crs: CRS | None
    origin: tuple[float, float]
    step: tuple[float, float]
    window: Window

    def pixels(self, window: Window | None = None) -> PixelGrid:
        """Give the mosaic, or a window of the endless grid, as a pixel grid."""
        w = self.window if window is None else window
        (across, down), (x, y) = self.step, self.origin
        transform = Affine(across, 0, x + w.col * across, 0, down, y + w.row * down)
        return PixelGrid(w.height, w.width, transform, self.crs)

    def place_of(self, grid: PixelGrid) -> Window | None:
        """Find a grid's pixels among those of the endless grid; None where they are others."""
        t = grid.transform
        if grid.crs != self.crs or t.b != 0 or t.d != 0:
            return None
        ends = np.array([[0, 0], [grid.width, grid.height]])
        xy = ends * [t.a, t.e] + [t.c, t.f]
        placed = (xy - self.origin) / self.step
        col, row = (round(float(place)) for place in placed[0])
        if np.abs(placed - ends - [col, row]).max() > ROUNDING:
            return None
        return Window(row, col, grid.height, grid.width)

    def touched(self, box: Box) -> Window:
        """Find the pixels of the endless grid that a box touches.

        Args:
            box: west, south, east, north in the mosaic's CRS.
        """
        west, south, east, north = box
        col = math.floor((west - self.origin[0]) / self.step[0] + EDGE)
        right = math.ceil((east - self.origin[0]) / self.step[0] - EDGE)
        row = math.floor((north - self.origin[1]) / self.step[1] + EDGE)
        bottom = math.ceil((south - self.origin[1]) / self.step[1] - EDGE)
        return Window(row, col, max(1, bottom - row), max(1, right - col))


def choose_grid(
    maps: Sequence[MapFile], crs: str | None, res: float | None, bbox: Box | None
) -> tuple[MosaicGrid, list[str]]:
    """Decide where the mosaic's pixels lie.

    Args:
        maps: at least one.
        crs: that the user wants, or None.
        res: side of a pixel that the user wants, CRS units, or None.
        bbox: that the user wants, in the mosaic's CRS, or None.

    Returns:
        The grid; and what to report.

    Raises:
        UsageError: the CRS is unknown or was not chosen, a map has no place in it, or the part
            holds no map.
    """
    target = _crs(maps, crs)
    boxes = [box for m in maps for box in footprints(m, target)]
    around = (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )
    grid, notes = _anchored(maps, target, res, around)
    window = grid.touched(around)
    if bbox is not None:
        found = window.intersection(grid.touched(bbox))
        if found is None:
            shown = [",".join(f"{v:.10g}" for v in box) for box in (bbox, around)]
            raise UsageError(
                f"--bbox {shown[0]} lies outside the maps, which cover {shown[1]} in "
                f"{target or 'their own coordinates'}"
            )
        window = found
    return MosaicGrid(grid.crs, grid.origin, grid.step, window), notes


def _crs(maps: Sequence[MapFile], wanted: str | None) -> CRS | None:
    """Find the mosaic's CRS.

    Raises:
        UsageError: see :func:`choose_grid`.
    """
    known: list[tuple[CRS | None, list[str]]] = []
    for m in maps:
        group = next((paths for crs, paths in known if crs == m.grid.crs), None)
        if group is None:
            known.append((m.grid.crs, [m.path]))
        else:
            group.append(m.path)
    without = next((paths for crs, paths in known if crs is None), [])
    if wanted is not None:
        try:
            target = CRS.from_user_input(wanted)
        except BAD_CRS as error:
            why = first_line(error)
            raise UsageError(f"--crs {wanted!r}: {why}; give e.g. EPSG:3035") from error
        if not _is_flat(target):
            raise UsageError(
                f"--crs {wanted!r} is no CRS of a map: that has two axes, of metres or degrees; "
                f"give e.g. EPSG:3035"
            )
        if without:
            raise UsageError(
                f"{named(without)} {'has' if len(without) == 1 else 'have'} no CRS, so --crs can't "
                f"be applied; give the raster its CRS (gdal_edit.py -a_srs)"
            )
        return target
    if len(known) > 1:
        shown = "; ".join(f"{crs or 'no CRS'} ({named(paths)})" for crs, paths in known[:5])
        more = f"; and {len(known) - 5} more" if len(known) > 5 else ""
        raise UsageError(
            f"the maps lie in {len(known)} CRSs: {shown}{more}; choose the mosaic's with --crs, "
            f"one of these or one for all of the ground, such as EPSG:3035 for Europe"
        )
    return known[0][0]


def _is_flat(crs: CRS) -> bool:
    """Whether a CRS has two axes, as a map does; others are of space, of heights or of nothing."""
    known = pyproj.CRS.from_user_input(crs)
    return (known.is_projected or known.is_geographic) and len(known.axis_info) == 2


def _anchored(
    maps: Sequence[MapFile], crs: CRS | None, res: float | None, around: Box
) -> tuple[MosaicGrid, list[str]]:
    """Choose the endless grid: that of the maps in its CRS, or multiples of a pixel's side."""
    own = [m.grid for m in maps if m.grid.crs == crs]
    side, note = (res, "") if res is not None else _finest(maps, crs, around)
    for grid in own[:1]:
        t = grid.transform
        # Where all maps share a grid, its pixels need not be square.
        wanted = (t.a, t.e) == (side, -side) or (res is None and len(own) == len(maps))
        for origin in ((0.0, 0.0), (t.c, t.f)):
            shared = MosaicGrid(crs, origin, (t.a, t.e), Window(0, 0, 1, 1))
            if t.a > 0 > t.e and wanted and all(shared.place_of(one) for one in own):
                return shared, []
    anchored = MosaicGrid(crs, (0.0, 0.0), (side, -side), Window(0, 0, 1, 1))
    return anchored, [note] if note else []


def _finest(maps: Sequence[MapFile], crs: CRS | None, around: Box) -> tuple[float, str]:
    """Find the side of the finest map's pixels, units of the mosaic's CRS; and what to report."""
    native = [(_side(m.grid), m) for m in maps]
    if all(m.grid.crs == crs for m in maps):
        return min(native, key=lambda pair: pair[0])[0], ""
    measured = [(min(m.grid.gsd), m) for m in maps if m.grid.gsd]
    x, y = (around[0] + around[2]) / 2, (around[1] + around[3]) / 2
    assert crs is not None
    unit = 1e-3 if crs.is_geographic else 1.0
    one = PixelGrid(1, 1, Affine(unit, 0, x - unit / 2, 0, -unit, y + unit / 2), crs).gsd
    if len(measured) < len(maps) or one is None:
        raise UsageError(
            f"how many metres a unit of {crs} has is unknown where the maps lie, and so is a "
            f"pixel's side; give it with --res"
        )
    metres, finest = min(measured, key=lambda pair: pair[0])
    exact = metres / max(one) * unit
    own, source = _side(finest.grid), finest.grid.crs
    if source is not None and not source.is_geographic and not crs.is_geographic:
        own *= source.linear_units_factor[1] / crs.linear_units_factor[1]
        if abs(own / exact - 1) <= SCALE_ERROR:
            return own, ""
    side = float(f"{exact:.3g}")
    return side, (
        f"a pixel's side is {side:g} {'degrees' if crs.is_geographic else 'CRS units'}, after the "
        f"finest map's {metres:.3g} m ({finest.path}); --res chooses another"
    )


def _side(grid: PixelGrid) -> float:
    """Find the shorter side of a grid's pixels, CRS units."""
    t = grid.transform
    return min(math.hypot(t.a, t.d), math.hypot(t.b, t.e))


def footprints(one: MapFile, crs: CRS | None) -> list[Box]:
    """Find where a map lies in a CRS.

    Args:
        one: the map.
        crs: of the mosaic.

    Returns:
        A box of west, south, east and north; two where it lies on both sides of the antimeridian.

    Raises:
        UsageError: it has no place in the CRS.
    """
    grid = one.grid
    corners = [grid.transform @ (c, r) for c in (0, grid.width) for r in (0, grid.height)]
    x, y = zip(*corners, strict=True)
    own = (min(x), min(y), max(x), max(y))
    if crs == grid.crs:
        return [own]
    assert crs is not None and grid.crs is not None
    pieces = min(MOST_PIECES, max(21, max(grid.height, grid.width) // PIECE))
    try:
        transformer = pyproj.Transformer.from_crs(grid.crs.to_wkt(), crs.to_wkt(), always_xy=True)
        west, south, east, north = transformer.transform_bounds(*own, densify_pts=pieces)
    except pyproj.exceptions.ProjError as error:
        raise UsageError(_no_place(one, crs, f" ({first_line(error)})")) from error
    if not all(map(math.isfinite, (west, south, east, north))):
        raise UsageError(_no_place(one, crs, ""))
    if west > east:
        return [(west, south, 180.0, north), (-180.0, south, east, north)]
    return [(west, south, east, north)]


def _no_place(one: MapFile, crs: CRS, why: str) -> str:
    return (
        f"{one.path} can't be brought from {one.grid.crs} to {crs}{why}: it has no place there; "
        f"choose another --crs, or leave this map out"
    )
