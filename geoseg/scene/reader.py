"""Reading: chosen bands of a scene on one pixel grid, and which pixels were measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import rasterio.features
import rasterio.warp
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling

from geoseg.core.gdal import GDAL_ERRORS, explain_read_error, first_line, retried
from geoseg.errors import BandError, SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.declared import has_blocks, pixel_limit
from geoseg.scene.scene import SceneBand, opened

__all__ = ["SceneReader", "pixel_dtype"]

#: Resampling works on squares of about this many pixels of the file or the grid, so that its
#: memory is small whatever the window.
RESAMPLE_SIDE = 1024


@dataclass(frozen=True)
class _Pixels:
    """Part of a file, or of the reader's grid.

    Attributes:
        values: (C, H, W).
        measured: (C, H, W) or (1, H, W), by everything but a nodata of 0; None where it all was.
        lit: (C, H, W), not 0 where nodata is 0; None where 0 is a number like any other.
    """

    values: NDArray[Any]
    measured: NDArray[np.bool_] | None
    lit: NDArray[np.bool_] | None


@dataclass
class _Source:
    """Bands that one open dataset serves."""

    dataset: Any
    path: str
    grid: PixelGrid  # the file's own
    slots: list[int]
    indexes: list[int]
    nodata: float | None
    masked: bool  # GDAL's mask says more than a nodata of 0 does
    mapped: bool  # GDAL's mask is more than a question of the pixel's own numbers
    alpha: int | None  # index of the alpha band
    shift: tuple[int, int] | None  # (row, col) of the reader's grid in the file; None: resample


class SceneReader:
    """Chosen bands of a scene on one pixel grid.

    Valid is where every band was measured: not nodata, not NaN, not masked by an alpha band or a
    mask. There is one exception. Where nodata is 0, a 0 in some bands only is darkness (water in
    the short-wave infrared) and the pixel is valid; it takes 0 in all such bands to void it.
    """

    def __init__(
        self,
        bands: Sequence[SceneBand],
        grid: PixelGrid,
        *,
        src_nodata: float | None = None,
        aoi: Sequence[Any] = (),
    ) -> None:
        """Open the files.

        Args:
            bands: in the order of the arrays that :meth:`read` gives.
            grid: the pixels that are wanted; other grids are resampled: averaged where the file's
                pixels are smaller, else bilinear.
            src_nodata: the number that means "not measured", in place of what the files say.
            aoi: geometries in the grid's CRS; pixels whose centre lies in none are not valid.

        Raises:
            SceneError: a file can't be opened or doesn't cover the grid.
        """
        self.bands = tuple(bands)
        self.grid = grid
        self.aoi = list(aoi)
        self.src_nodata = src_nodata
        self._stack = ExitStack()
        self._sources: list[_Source] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        #: dtype of the pixels that :meth:`read` gives.
        self.dtype = pixel_dtype(self.bands, grid)

    def __enter__(self) -> SceneReader:
        """For ``with``."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def _open(self) -> None:
        groups: dict[tuple[str, float | None, str], list[int]] = {}
        for slot, band in enumerate(self.bands):
            nodata = band.nodata if self.src_nodata is None else self.src_nodata
            # NaN is unequal to itself and would make a group a band.
            key = None if nodata is not None and math.isnan(nodata) else nodata
            groups.setdefault((band.path, key, band.dtype), []).append(slot)  # VRTs may mix dtypes
        for (path, nodata, _), slots in groups.items():
            band = self.bands[slots[0]]
            # Whoever opened the scene has seen that it is not too large.
            with pixel_limit(math.inf):
                dataset = self._stack.enter_context(opened(path, band.rules))
            indexes = [self.bands[s].index for s in slots]
            shift = _whole_pixel_shift(band.grid, self.grid)
            if shift is None:
                _check_resampling(band, self.grid)
            self._sources.append(
                _Source(
                    dataset,
                    path,
                    band.grid,
                    slots,
                    indexes,
                    nodata,
                    self._is_masked(dataset, indexes, nodata),
                    any(
                        MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
                        for flags in dataset.mask_flag_enums
                    ),
                    # GDAL's own masks know alpha only as the second or fourth band, as whole
                    # numbers, and without nodata.
                    next(
                        (
                            i
                            for i, color in enumerate(dataset.colorinterp, start=1)
                            if color == ColorInterp.alpha
                        ),
                        None,
                    ),
                    shift,
                )
            )

    def _is_masked(self, dataset: Any, indexes: Sequence[int], nodata: float | None) -> bool:
        """Whether GDAL's mask of these bands has to be read."""
        every = dataset.mask_flag_enums
        for flags in (every[i - 1] for i in indexes):
            if MaskFlags.all_valid in flags or MaskFlags.alpha in flags:
                continue
            if MaskFlags.nodata not in flags:
                return True
            # The user's src_nodata stands in place of the file's; 0 is looked at band by band.
            if self.src_nodata is None and (nodata != 0 or MaskFlags.per_dataset in flags):
                return True
        return False

    def uniform(self, window: Window) -> tuple[NDArray[Any], bool] | None:
        """What every pixel of a window is, where sparse files hold none of its blocks.

        Args:
            window: within the grid.

        Returns:
            (C,) in the reader's dtype, and whether they count as measured, as :meth:`read` would
            give them; None where it has to be read.

        Raises:
            SceneError: see :meth:`read`.
        """
        values = np.zeros((len(self.bands), 1, 1), self.dtype)
        measured, lit = True, list[bool]()
        for source in self._sources:
            direct = source.shift is not None
            area: Window | None = None
            if source.shift is not None:
                row, col = window.row + source.shift[0], window.col + source.shift[1]
                area = Window(row, col, window.height, window.width)
            else:
                area = _footprint(self.grid.crop(window), source.grid)
            bands = source.indexes if source.alpha is None else [*source.indexes, source.alpha]
            if area is None or source.mapped or source.dataset.driver != "GTiff":
                return None
            # Where the table of blocks is cut short, reading says so, but only as long as nobody
            # has looked a block up: then it counts as missing. So a pixel is read before, first of
            # the first block, which mostly is there, and then of the last one.
            corners = (area.row, area.col), (area.bottom - 1, area.right - 1)
            looked_at = Window(*corners[0], 1, 1), area
            for corner, look in zip(corners, looked_at, strict=True):
                part = self._read_file(source, Window(*corner, 1, 1))
                if has_blocks(source.dataset, source.path, bands, look):
                    return None
            there = part.measured is None or bool(part.measured.all())
            bright = part.lit is None or bool(part.lit.any())
            if not direct and there and bright:
                return None  # at a file's edge what is resampled differs
            measured &= there
            lit += [] if part.lit is None else [bright]
            values[source.slots] = part.values
        measured &= not lit or any(lit)
        if measured and self.aoi:
            return None
        if not measured:
            values[:] = 0
        return values[:, 0, 0], measured

    def read(
        self, window: Window, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The pixels of a window and which of them were measured.

        Args:
            window: within the grid.
            out: where the pixels go, (C, H, W) of the reader's dtype, or None for a new array.

        Returns:
            pixels (C, H, W) in the files' dtype (float32 for a mixture or after resampling), and
            valid (H, W), True = measured. Where not valid the pixels mean nothing, but are finite.

        Raises:
            SceneError: a block is damaged, or the server failed.
        """
        shape = (window.height, window.width)
        pixels = out
        if pixels is None:
            pixels = np.empty((len(self.bands), *shape), dtype=self.dtype)
        measured = np.ones(shape, dtype=bool)
        lit = np.zeros(shape, dtype=bool)  # not 0 in some band whose nodata is 0
        dark_votes = False
        for source in self._sources:
            if source.shift is None:
                part = self._resample(source, window)
            else:
                row, col = window.row + source.shift[0], window.col + source.shift[1]
                area = Window(row, col, window.height, window.width)
                # Straight to where the pixels go: a copy less.
                whole = source.slots == list(range(len(self.bands)))
                part = self._read_file(source, area, pixels if whole else None)
            if part.measured is not None:
                measured &= part.measured.all(axis=0)
                if part.values.dtype.kind == "f":
                    np.copyto(part.values, 0, where=~part.measured)
            if part.lit is not None:
                dark_votes = True
                lit |= part.lit.any(axis=0)
            if part.values is not pixels:
                pixels[source.slots] = part.values
        if dark_votes:
            measured &= lit
        if self.aoi:
            measured &= rasterio.features.geometry_mask(
                self.aoi, shape, self.grid.crop(window).transform, invert=True
            )
        return pixels, measured

    def _read_file(
        self, source: _Source, window: Window, out: NDArray[Any] | None = None
    ) -> _Pixels:
        """A window of the file's own grid, in ``out`` where its dtype is the file's."""
        area = rasterio.windows.Window(window.col, window.row, window.width, window.height)
        try:
            return retried(source.path, partial(self._read_area, source, area, out))
        except GDAL_ERRORS as error:
            raise SceneError(
                f"{source.path}: rows {window.row} to {window.bottom - 1} can't be read: "
                f"{explain_read_error(error, source.path)}"
            ) from error

    def _read_area(
        self, source: _Source, area: rasterio.windows.Window, out: NDArray[Any] | None
    ) -> _Pixels:
        dataset, nodata = source.dataset, source.nodata
        dtypes = dataset.dtypes
        kinds = {dtypes[i - 1] for i in source.indexes}
        if out is not None and kinds == {out.dtype.name}:
            dataset.read(source.indexes, window=area, out=out)
            values = out
        else:
            values = np.asarray(dataset.read(source.indexes, window=area))
        votes: list[NDArray[np.bool_]] = []
        if source.masked:
            votes.append(dataset.read_masks(source.indexes, window=area) != 0)
        if source.alpha is not None:
            votes.append(dataset.read([source.alpha], window=area) != 0)
        if values.dtype.kind == "f":
            votes.append(np.isfinite(values))
        if nodata is not None and nodata != 0 and not math.isnan(nodata):
            votes.append(values != nodata)
        measured = None
        for vote in votes:
            measured = vote if measured is None else measured & vote
        return _Pixels(values, measured, values != 0 if nodata == 0 else None)

    def _resample(self, source: _Source, window: Window) -> _Pixels:
        """A window of the reader's grid, from a file with another grid, as float32.

        What was not measured has no share in its neighbours. A pixel is measured where the file's
        pixel at its centre is.
        """
        shape = (len(source.indexes), window.height, window.width)
        values = np.full(shape, np.nan, dtype=np.float32)
        measured = np.zeros((1, *shape[1:]), dtype=bool)
        for block in _blocks(window, source.grid, self.grid):
            area = _footprint(self.grid.crop(block), source.grid)
            if area is None:
                continue
            part, area = _extend(self._read_file(source, area), area, source.grid)
            measured_values = part.values.astype(np.float32)
            for vote in (part.measured, part.lit):
                if vote is not None:
                    np.copyto(measured_values, np.nan, where=~vote)
            ground = (source.grid.crop(area), self.grid.crop(block))
            here = np.s_[
                :,
                block.row - window.row : block.bottom - window.row,
                block.col - window.col : block.right - window.col,
            ]
            values[here] = _warp(measured_values, *ground)
            # Measured is found by itself: darkness is no gap, and where bands have gaps of their
            # own GDAL closes small ones.
            whole = np.zeros((1, area.height, area.width), dtype=np.float32)
            if part.measured is not None:
                whole[0, ~part.measured.all(axis=0)] = np.nan
            measured[here] = np.isfinite(_warp(whole, *ground))
        present = np.isfinite(values)
        values[~present] = 0
        return _Pixels(values, measured, present if source.nodata == 0 else None)


def _extend(part: _Pixels, area: Window, of: PixelGrid) -> tuple[_Pixels, Window]:
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
    return _Pixels(np.pad(part.values, pad, mode="edge"), *votes), extended


def _blocks(window: Window, of: PixelGrid, to: PixelGrid) -> Iterator[Window]:
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


def _footprint(part: PixelGrid, of: PixelGrid) -> Window | None:
    """The window of the grid ``of`` that resampling to ``part`` looks at, or None."""
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


def _warp(values: NDArray[Any], of: PixelGrid, to: PixelGrid) -> NDArray[np.float32]:
    """Values (C, H, W) with NaN for gaps, averaged or interpolated onto another grid."""
    out = np.full((len(values), to.height, to.width), np.nan, dtype=np.float32)
    finer = abs(of.transform.determinant) < abs(to.transform.determinant) * 0.99
    rasterio.warp.reproject(
        values.astype(np.float32, copy=False),
        out,
        src_transform=of.transform,
        src_crs=of.crs,
        src_nodata=math.nan,
        dst_transform=to.transform,
        dst_crs=to.crs,
        dst_nodata=math.nan,
        resampling=Resampling.average if finer and of.crs == to.crs else Resampling.bilinear,
        # Otherwise a gap in one band only is mixed into its neighbours.
        UNIFIED_SRC_NODATA="NO",
    )
    return out


def pixel_dtype(bands: Sequence[SceneBand], grid: PixelGrid) -> np.dtype[Any]:
    """The dtype in which a :class:`SceneReader` gives bands: the files' own, where that can be.

    Args:
        bands: of the scene.
        grid: the reader's.
    """
    kinds = {b.dtype for b in bands}
    direct = len(kinds) == 1 and all(_whole_pixel_shift(b.grid, grid) is not None for b in bands)
    return np.dtype(kinds.pop() if direct else "float32")


def _whole_pixel_shift(of: PixelGrid, to: PixelGrid) -> tuple[int, int] | None:
    """(row, col) of the grid ``to`` within the grid ``of`` where they share pixels, else None."""
    if of.crs != to.crs:
        return None
    relative = ~of.transform @ to.transform
    row, col = round(relative.f), round(relative.c)
    # A thousandth of a pixel at each corner: what rounding in headers leaves. Two corners would
    # not do: a square grid that is transposed has both in their places.
    corners = [(0, 0), (to.width, 0), (0, to.height), (to.width, to.height)]
    apart = max(
        max(abs(x - c - col), abs(y - r - row)) for c, r in corners for x, y in [relative @ (c, r)]
    )
    inside = row >= 0 and col >= 0 and row + to.height <= of.height and col + to.width <= of.width
    return (row, col) if inside and apart < 1e-3 else None


def _check_resampling(band: SceneBand, grid: PixelGrid) -> None:
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
