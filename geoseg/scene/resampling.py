"""Pixels of a file brought to another grid: which part of the file, and the warp."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling

from geoseg.core.gdal import GDAL_ERRORS, first_line
from geoseg.errors import BandError, SceneError
from geoseg.geo.pixel_grid import ROUNDING, PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.scene_band import SceneBand

__all__ = [
    "Pixels",
    "Ranges",
    "at_centres",
    "blocks",
    "check_resampling",
    "extend",
    "footprint",
    "shared_ground",
    "taken",
    "warp",
]

#: First places along an axis, and the first ones after, each (n,).
Ranges = tuple[NDArray[np.int64], NDArray[np.int64]]

#: Resampling works on squares of about this many pixels of the file or the grid, so that its
#: memory is small whatever the window.
RESAMPLE_SIDE = 1024
#: Pixels that lie on one plane are counted in this CRS; any would do.
PLANE = CRS.from_epsg(3857)
#: What rounding leaves in a scale, over a window of thousands of pixels, and in a place, px.
SCALE_SLACK, PLACE_SLACK = 1e-9, 1e-6


@dataclass(frozen=True)
class Pixels:
    """Part of a file, or of the reader's grid.

    Attributes:
        values: (C, H, W).
        measured: (C, H, W) or (1, H, W), by everything but a nodata of 0; None where it all was.
        lit: (C, H, W), not 0 where nodata is 0; None where 0 is a number like any other.
    """

    values: NDArray[Any]
    measured: NDArray[np.bool_] | None
    lit: NDArray[np.bool_] | None


def extend(part: Pixels, area: Window, of: PixelGrid) -> tuple[Pixels, Window]:
    """Repeat the file's outermost pixels once beyond its edges.

    Bands of one product end within a pixel of each other, seldom at the same place: a 20 m band
    may leave the last 10 m column of its scene half uncovered.
    """
    above, left = int(area.row == 0), int(area.col == 0)
    below, right = int(area.bottom == of.height), int(area.right == of.width)
    pad = ((0, 0), (above, below), (left, right))
    votes = [None if v is None else np.pad(v, pad, mode="edge") for v in (part.measured, part.lit)]
    extended = Window(
        area.row - above,
        area.col - left,
        area.height + above + below,
        area.width + left + right,
    )
    return Pixels(np.pad(part.values, pad, mode="edge"), *votes), extended


def blocks(window: Window, of: PixelGrid, to: PixelGrid) -> Iterator[Window]:
    """Cut a window of the grid ``to`` where its parts would hold too many pixels of ``of``."""
    side = RESAMPLE_SIDE
    if of.crs == to.crs:
        ratio = math.sqrt(abs(of.transform.determinant / to.transform.determinant))
        side = max(1, int(side * min(1.0, ratio)))
    elif of.gsd is not None and to.gsd is not None:
        side = max(1, int(side * min(1.0, of.gsd[0] / to.gsd[0], of.gsd[1] / to.gsd[1])))
    # In step with the grid, not the window: a pixel is the same in whichever window it is read.
    for row in range(window.row // side * side, window.bottom, side):
        for col in range(window.col // side * side, window.right, side):
            block = Window(row, col, side, side).intersection(window)
            if block is not None:
                yield block


def footprint(part: PixelGrid, of: PixelGrid) -> Window | None:
    """Find the window of the grid ``of`` that resampling to ``part`` looks at, or None."""
    # Along all four edges: in another CRS they are curves.
    x = np.linspace(0, part.width, 22)
    y = np.linspace(0, part.height, 22)
    edges = [*((c, r) for c in x for r in (0, part.height)), *((c, r) for r in y for c in x[::21])]
    points = [part.transform @ edge for edge in edges]
    if part.crs != of.crs:
        points = _transform(points, part, of)
        if not points:
            return None
    inverse = ~of.transform
    cols, rows = zip(*(inverse @ p for p in points), strict=True)
    # The kernel's reach: a pixel of the coarser of both grids, and one for rounding.
    wide = math.ceil(max(1.0, (max(cols) - min(cols)) / part.width)) + 1
    high = math.ceil(max(1.0, (max(rows) - min(rows)) / part.height)) + 1
    col, row = math.floor(min(cols)) - wide, math.floor(min(rows)) - high
    right, bottom = math.ceil(max(cols)) + wide, math.ceil(max(rows)) + high
    return Window(row, col, bottom - row, right - col).intersection(
        Window(0, 0, of.height, of.width)
    )


def _transform(
    points: Sequence[tuple[float, float]], of: PixelGrid, to: PixelGrid
) -> list[tuple[float, float]]:
    """Points in the CRS of ``of`` in the CRS of ``to``, without those that it has no place for.

    Raises:
        SceneError: the two can't be brought together.
    """
    columns = [p[0] for p in points], [p[1] for p in points]
    try:
        xs, ys = rasterio.warp.transform(of.crs, to.crs, *columns)[:2]
    except GDAL_ERRORS as error:
        raise SceneError(
            f"the bands' grids can't be brought together ({first_line(error)[:100]}); give all "
            f"bands one CRS"
        ) from error
    return [p for p in zip(xs, ys, strict=True) if all(map(math.isfinite, p))]


def warp(values: NDArray[Any], of: PixelGrid, to: PixelGrid) -> NDArray[np.float32]:
    """Values (C, H, W) with NaN for gaps, averaged or interpolated onto another grid."""
    out = np.full((len(values), to.height, to.width), np.nan, dtype=np.float32)
    source, target, crs = of.transform, to.transform, (of.crs, to.crs)
    if of.crs == to.crs:
        # Counted in pixels: far from the CRS's origin rounding would give a pixel another number in
        # each window that it is read with.
        source = Affine.translation(1, 1)
        target = source @ _rounded(~of.transform @ to.transform)
        crs = PLANE, PLANE
    rasterio.warp.reproject(
        values.astype(np.float32, copy=False),
        out,
        src_transform=source,
        src_crs=crs[0],
        src_nodata=math.nan,
        dst_transform=target,
        dst_crs=crs[1],
        dst_nodata=math.nan,
        resampling=Resampling.average if _is_averaged(of, to) else Resampling.bilinear,
        # Otherwise a gap in one band only is mixed into its neighbours.
        UNIFIED_SRC_NODATA="NO",
    )
    return out


def taken(of: PixelGrid, to: PixelGrid) -> tuple[Ranges, Ranges] | None:
    """Find the pixels of a file that each pixel of another grid is made from by :func:`warp`.

    Args:
        of: the file's grid.
        to: the other one.

    Returns:
        For rows, and for columns: (first, the first after), each (n,) int64, a pair for every one
        of the other grid. They reach beyond the file where it ends before. None where the grids
        have other CRSs or are turned against each other.
    """
    if of.crs != to.crs:
        return None
    relative = _rounded(~of.transform @ to.transform)
    if relative.b or relative.d:
        return None
    same = to.place_in(of) is not None
    axes = ((relative.e, relative.f, to.height), (relative.a, relative.c, to.width))

    def along(scale: float, offset: float, count: int) -> Ranges:
        step = abs(scale)
        # What is averaged lies in the pixel; what is interpolated has its centre within a pixel
        # of the coarser grid.
        half = step / 2 if _is_averaged(of, to) else max(1.0, step) - 0.5
        middle = offset + scale * (np.arange(count) + 0.5)
        if same:
            first = np.floor(middle)
            return first.astype(np.int64), first.astype(np.int64) + 1
        return (
            np.floor(middle - half + PLACE_SLACK).astype(np.int64),
            np.ceil(middle + half - PLACE_SLACK).astype(np.int64),
        )

    down, across = (along(*axis) for axis in axes)
    return down, across


def at_centres(
    of: PixelGrid, to: PixelGrid, window: Window, step: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Find the pixels of a file at the centres of every so-many-th pixel of a window.

    Args:
        of: the file's grid.
        to: the window's.
        window: of it.
        step: px from one to the next.

    Returns:
        Rows (n,) and columns (m,), in the file; None where the grids have other CRSs or are turned
        against each other.
    """
    if of.crs != to.crs:
        return None
    relative = _rounded(~of.transform @ to.transform)
    if relative.b or relative.d:
        return None

    def along(first: int, length: int, scale: float, offset: float, most: int) -> NDArray[np.int64]:
        middle = np.arange(first + min(step, length) // 2, first + length, step) + 0.5
        # Bands of one product end within a pixel of each other.
        found: NDArray[np.int64] = np.floor(middle * scale + offset + PLACE_SLACK).astype(np.int64)
        return found.clip(0, most - 1)

    return (
        along(window.row, window.height, relative.e, relative.f, of.height),
        along(window.col, window.width, relative.a, relative.c, of.width),
    )


def _is_averaged(of: PixelGrid, to: PixelGrid) -> bool:
    """Whether pixels of a file are averaged, for they are smaller, or else interpolated."""
    finer = abs(of.transform.determinant) < abs(to.transform.determinant) * 0.99
    return finer and of.crs == to.crs


def _rounded(relative: Affine) -> Affine:
    """From one grid's pixels to another's, without what rounding has left in the last digits.

    A scale that is a whole number of some part of a pixel is made so, and then places lie on such
    parts.
    """
    a, b, c, d, e, f, *_ = relative
    across, down = _parts(a), _parts(e)
    return Affine(
        *(_near(a, across, SCALE_SLACK), _near(b, 1, SCALE_SLACK), _near(c, across, PLACE_SLACK)),
        *(_near(d, 1, SCALE_SLACK), _near(e, down, SCALE_SLACK), _near(f, down, PLACE_SLACK)),
    )


def _parts(scale: float) -> int:
    """Into how many parts a pixel is cut so that a scale is a whole number of them; 1 if none is.

    Scales are whole numbers, or one parted by a whole number, or have few binary digits; see
    :func:`geoseg.geo.model_grid.snap`.
    """
    fraction = round(1 / abs(scale)) if scale else 1
    for parts in (1, fraction, *(1 << power for power in range(1, 11))):
        if parts and abs(scale * parts - round(scale * parts)) < SCALE_SLACK * parts:
            return parts
    return 1


def _near(number: float, parts: int, slack: float) -> float:
    """The nearest whole number of parts, where it is within a slack."""
    rounded = round(number * parts) / parts
    return rounded if abs(number - rounded) < slack else number


def shared_ground(bands: Sequence[SceneBand], grid: PixelGrid) -> Window:
    """The pixels of a grid that all bands cover, as the network sees nothing where one is missing.

    Args:
        bands: that are read.
        grid: the scene's, or the one that it is resampled to.

    Returns:
        The window; all of the grid where a band is of another CRS, or where none is left: reading
        finds out then.
    """
    whole = Window(0, 0, grid.height, grid.width)
    found: Window | None = whole
    for band in bands:
        if found is None or band.grid.crs != grid.crs:
            return whole
        relative = ~grid.transform @ band.grid.transform
        cols, rows = zip(
            *(
                relative @ (col, row)
                for col in (0, band.grid.width)
                for row in (0, band.grid.height)
            ),
            strict=True,
        )
        # Bands of one product end within a pixel of each other.
        slack = max(1.0, math.sqrt(abs(relative.determinant))) + ROUNDING
        low = math.ceil(min(rows) - slack), math.ceil(min(cols) - slack)
        high = math.floor(max(rows) + slack), math.floor(max(cols) + slack)
        if low[0] >= high[0] or low[1] >= high[1]:
            return whole
        found = found.intersection(Window(*low, high[0] - low[0], high[1] - low[1]))
    return whole if found is None else found


def check_resampling(band: SceneBand, grid: PixelGrid) -> None:
    """Refuse a band that can't be resampled, or leaves more than a pixel of the grid uncovered.

    Raises:
        SceneError: it does.
    """
    if band.grid.crs is None or grid.crs is None:
        raise SceneError(
            f"{band.label} has another grid than the scene and no CRS to bring it there; "
            f"give all bands one grid"
        )
    if band.grid.crs != grid.crs:
        _transform([grid.transform @ (grid.width / 2, grid.height / 2)], grid, band.grid)
        return
    inverse = ~band.grid.transform
    corners = [(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)]
    size = [abs(band.grid.transform.determinant), abs(grid.transform.determinant)]
    slack = max(1.0, math.sqrt(size[1] / size[0])) + 1e-3
    for corner in corners:
        col, row = inverse @ (grid.transform @ corner)
        if not (
            -slack <= col <= band.grid.width + slack and -slack <= row <= band.grid.height + slack
        ):
            raise BandError(
                f"{band} covers only part of the scene: its file is {band.grid.width}x"
                f"{band.grid.height} px and the scene reaches to its column {col:.0f}, row "
                f"{row:.0f}; give bands of one scene, or --bbox"
            )
