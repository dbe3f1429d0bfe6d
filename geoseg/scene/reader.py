"""Reading: chosen bands of a scene on one pixel grid, and which pixels were measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import numpy as np
import rasterio.features
import rasterio.warp
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

from geoseg.core.gdal import GDAL_ERRORS, explain_read_error, retried
from geoseg.errors import SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.cloud_reader import CloudReader
from geoseg.scene.declared import pixel_limit
from geoseg.scene.file_blocks import rows_of_blocks
from geoseg.scene.files import opened
from geoseg.scene.open_bands import OpenBands
from geoseg.scene.resampling import (
    Pixels,
    blocks,
    check_resampling,
    extend,
    footprint,
    warp,
)
from geoseg.scene.scene import CloudLayer, FoundClouds
from geoseg.scene.scene_band import SceneBand
from geoseg.scene.sparse_blocks import SparseBlocks

__all__ = ["SceneReader", "pixel_dtype"]


class SceneReader:
    """Chosen bands of a scene on one pixel grid.

    Valid is where every band was measured: not nodata, not NaN, not masked by an alpha band or a
    mask. There is one exception. Where nodata is 0, a 0 in some bands only is darkness (water in
    the short-wave infrared) and the pixel is valid; it takes 0 in all such bands to void it. A band
    in which 0 stands for less than any ground has (Landsat's -0.2) says that it is not so.
    """

    def __init__(
        self,
        bands: Sequence[SceneBand],
        grid: PixelGrid,
        *,
        src_nodata: float | None = None,
        aoi: Sequence[Any] = (),
        clouds: CloudLayer | FoundClouds | None = None,
    ) -> None:
        """Open the files.

        Args:
            bands: in the order of the arrays that :meth:`read` gives.
            grid: the pixels that are wanted; other grids are resampled: averaged where the file's
                pixels are smaller, else bilinear.
            src_nodata: the number that means "not measured", in place of what the files say.
            aoi: geometries in the grid's CRS; pixels whose centre lies in none are not valid.
            clouds: what says which pixels are clouds; None for all pixels.

        Raises:
            SceneError: a file can't be opened or doesn't cover the grid.
        """
        self.bands = tuple(bands)
        self.grid = grid
        self.aoi = list(aoi)
        self.src_nodata = src_nodata
        self._stack = ExitStack()
        self._sources: list[OpenBands] = []
        self._sparse: list[SparseBlocks] = []
        self._clouds: CloudReader | None = None
        self._left_out: NDArray[np.bool_] | None = None
        try:
            self._open()
            if clouds is not None:
                self._clouds = CloudReader(clouds, grid)
                self._stack.callback(self._clouds.close)
        except BaseException:
            self.close()
            raise
        # Of the files that are read as they are. What is resampled looks beyond a window.
        self._block_rows = {
            (blocks.height, source.shift[0])
            for source in self._sources
            if source.shift is not None
            and (blocks := self.bands[source.slots[0]].blocks) is not None
            and blocks.tall
        }
        #: dtype of the pixels that :meth:`read` gives.
        self.dtype = pixel_dtype(self.bands, grid)

    def __enter__(self) -> Self:
        """For ``with``."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def _open(self) -> None:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for slot, band in enumerate(self.bands):
            nodata = band.nodata if self.src_nodata is None else self.src_nodata
            # NaN is unequal to itself and would make a group a band.
            key = None if nodata is not None and math.isnan(nodata) else nodata
            # VRTs may mix dtypes.
            group = band.path, key, band.dtype, band.fills, band.dark_zeros, id(band.collar)
            groups.setdefault(group, []).append(slot)
        for (path, nodata, _, fills, dark_zeros, _), slots in groups.items():
            band = self.bands[slots[0]]
            # Whoever opened the scene has seen that it is not too large.
            with pixel_limit(math.inf):
                dataset = self._stack.enter_context(opened(path, band.rules))
            indexes = [self.bands[s].index for s in slots]
            shift = self.grid.place_in(band.grid)
            if shift is None:
                check_resampling(band, self.grid)
            self._sources.append(
                OpenBands(
                    dataset,
                    path,
                    band.grid,
                    slots,
                    indexes,
                    nodata,
                    fills,
                    dark_zeros,
                    self._is_masked(dataset, indexes, nodata),
                    any(
                        MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
                        for flags in dataset.mask_flag_enums
                    )
                    or band.collar is not None,
                    band.collar,
                    # GDAL's own masks know alpha only as the second or fourth band, as whole
                    # numbers, and without nodata.
                    next(
                        (
                            i
                            for i, color in enumerate(dataset.colorinterp, start=1)
                            if color == ColorInterp.alpha and band.alpha
                        ),
                        None,
                    ),
                    shift,
                )
            )
        for source in self._sources:
            bands = source.indexes if source.alpha is None else [*source.indexes, source.alpha]
            read = partial(self._read_file, source)
            self._sparse.append(SparseBlocks(source.dataset, source.path, bands, read))

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
        """Find what every pixel of a window is, where sparse files hold none of its blocks.

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
        for source, sparse in zip(self._sources, self._sparse, strict=True):
            direct = source.shift is not None
            area: Window | None = None
            if source.shift is not None:
                row, col = window.row + source.shift[0], window.col + source.shift[1]
                area = Window(row, col, window.height, window.width)
            else:
                area = footprint(self.grid.crop(window), source.grid)
            if area is None or source.mapped:
                return None
            part = sparse.pixel(area)
            if part is None:
                return None
            there = part.measured is None or bool(part.measured.all())
            bright = part.lit is None or bool(part.lit.any())
            if not direct and there and bright:
                return None  # at a file's edge what is resampled differs
            measured &= there
            lit += [] if part.lit is None else [bright]
            values[source.slots] = part.values
        measured &= not lit or any(lit)
        if measured and (self.aoi or self._clouds is not None):
            return None
        if not measured:
            values[:] = 0
        return values[:, 0, 0], measured

    def read(
        self, window: Window, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read the pixels of a window and which of them were measured.

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
        measured = np.empty(shape, dtype=bool)
        # One row of blocks after the other, of all files: so the cache need hold one row.
        for part in rows_of_blocks(window, self._block_rows):
            rows = slice(part.row - window.row, part.bottom - window.row)
            some = pixels[:, rows]
            read = partial(self._part, window=part, out=some)
            measured[rows] = self._join(some.shape[1:], some, read)
        if self.aoi:
            measured &= rasterio.features.geometry_mask(
                self.aoi, shape, self.grid.crop(window).transform, invert=True
            )
        self._left_out = None
        if self._clouds is not None and measured.any():
            self._left_out = self._clouds.read(window) & measured
            measured &= ~self._left_out
        return pixels, measured

    def _join(
        self, shape: tuple[int, int], pixels: NDArray[Any], part_of: Callable[[OpenBands], Pixels]
    ) -> NDArray[np.bool_]:
        """Bring together what the files hold: their pixels, and which were measured in all."""
        measured = np.ones(shape, dtype=bool)
        lit = np.zeros(shape, dtype=bool)  # not 0 in some band whose nodata is 0
        dark_votes = False
        for source in self._sources:
            part = part_of(source)
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
        return measured

    def _part(self, source: OpenBands, window: Window, out: NDArray[Any]) -> Pixels:
        if source.shift is None:
            return self._resample(source, window)
        row, col = window.row + source.shift[0], window.col + source.shift[1]
        area = Window(row, col, window.height, window.width)
        # Straight to where the pixels go: a copy less.
        whole = source.slots == list(range(len(self.bands)))
        return self._read_file(source, area, out if whole else None)

    def left_out(self) -> NDArray[np.bool_] | None:
        """Which pixels of the window that was read last were measured and are clouds.

        Returns:
            (H, W), True = left out; None where there are none, or without a cloud layer.
        """
        return self._left_out

    def _read_file(
        self,
        source: OpenBands,
        window: Window,
        out: NDArray[Any] | None = None,
        shape: tuple[int, int] | None = None,
    ) -> Pixels:
        """Read a window of the file's own grid, in ``out`` where its dtype is the file's.

        With a shape so many rows and columns of it, from overviews where there are any.
        """
        area = rasterio.windows.Window(window.col, window.row, window.width, window.height)
        try:
            return retried(source.path, partial(source.read, area, out, shape))
        except GDAL_ERRORS as error:
            raise SceneError(
                f"{source.path}: rows {window.row} to {window.bottom - 1} can't be read: "
                f"{explain_read_error(error, source.path)}"
            ) from error

    def _resample(self, source: OpenBands, window: Window) -> Pixels:
        """Read a window of the reader's grid, from a file with another grid, as float32.

        What was not measured has no share in its neighbours. A pixel is measured where the file's
        pixel at its centre is.
        """
        shape = (len(source.indexes), window.height, window.width)
        values = np.full(shape, np.nan, dtype=np.float32)
        measured = np.zeros((1, *shape[1:]), dtype=bool)
        for block in blocks(window, source.grid, self.grid):
            area = footprint(self.grid.crop(block), source.grid)
            if area is None:
                continue
            part, area = extend(self._read_file(source, area), area, source.grid)
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
            values[here] = warp(measured_values, *ground)
            # Measured is found by itself: darkness is no gap, and where bands have gaps of their
            # own GDAL closes small ones.
            whole = np.zeros((1, area.height, area.width), dtype=np.float32)
            if part.measured is not None:
                whole[0, ~part.measured.all(axis=0)] = np.nan
            measured[here] = np.isfinite(warp(whole, *ground))
        present = np.isfinite(values)
        values[~present] = 0
        return Pixels(values, measured, present if source.dark else None)


def pixel_dtype(bands: Sequence[SceneBand], grid: PixelGrid) -> np.dtype[Any]:
    """Find the dtype in which :class:`SceneReader` gives bands: the files' own, where possible.

    Args:
        bands: of the scene.
        grid: the reader's.
    """
    kinds = {b.dtype for b in bands}
    direct = len(kinds) == 1 and all(grid.place_in(b.grid) is not None for b in bands)
    return np.dtype(kinds.pop() if direct else "float32")
