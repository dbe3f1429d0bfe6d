"""Reading: chosen bands of a scene on one pixel grid, and which pixels were measured."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.errors
import rasterio.features
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT

from geoseg.errors import BandError, SceneError
from geoseg.pixelgrid import PixelGrid
from geoseg.scene import SceneBand, first_line, gdal_options, is_remote, opened
from geoseg.window import Window

__all__ = ["SceneReader"]

#: Reading a window of a remote file is tried this often.
REMOTE_TRIES = 3


@dataclass
class _Source:
    """Bands that one open dataset serves on the reader's grid."""

    dataset: Any
    path: str
    slots: list[int]
    indexes: list[int]
    nodata: float | None
    window_of: tuple[int, int] | None  # offset into the file, or None for a virtual warp
    votes: bool  # the file can say that a pixel was not measured


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
        direct = all(s.window_of is not None for s in self._sources)
        kinds = {b.dtype for b in self.bands}
        #: dtype of the pixels that :meth:`read` gives.
        self.dtype = np.dtype(kinds.pop() if direct and len(kinds) == 1 else "float32")

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
        groups: dict[tuple[str, float | None], list[int]] = {}
        for slot, band in enumerate(self.bands):
            nodata = band.nodata if self.src_nodata is None else self.src_nodata
            # NaN is unequal to itself and would make a group a band.
            key = None if nodata is not None and math.isnan(nodata) else nodata
            groups.setdefault((band.path, key), []).append(slot)
        for (path, nodata), slots in groups.items():
            band = self.bands[slots[0]]
            self._stack.enter_context(gdal_options(path))
            dataset = self._stack.enter_context(opened(path))
            indexes = [self.bands[s].index for s in slots]
            flags = [dataset.mask_flag_enums[i - 1] for i in indexes]
            votes = (
                self.src_nodata is not None
                or any(MaskFlags.all_valid not in f for f in flags)
                or any(self.bands[s].dtype.startswith("float") for s in slots)
            )
            shift = _whole_pixel_shift(band.grid, self.grid)
            if shift is None:
                dataset = self._stack.enter_context(self._warped(dataset, band, nodata))
            self._sources.append(_Source(dataset, path, slots, indexes, nodata, shift, votes))

    def _warped(self, dataset: Any, band: SceneBand, nodata: float | None) -> Any:
        """The file on the reader's grid, as float32 with NaN where nothing was measured."""
        if band.grid.crs is None or self.grid.crs is None:
            raise SceneError(
                f"{band.label} has another grid than the scene and no CRS to bring it there; "
                f"give all bands one grid"
            )
        _check_cover(band, self.grid)
        finer = abs(band.grid.transform.determinant) < abs(self.grid.transform.determinant) * 0.99
        same_crs = band.grid.crs == self.grid.crs
        is_float = band.dtype.startswith("float")
        options: dict[str, Any] = {
            "crs": self.grid.crs,
            "transform": self.grid.transform,
            "height": self.grid.height,
            "width": self.grid.width,
            "resampling": Resampling.average if finer and same_crs else Resampling.bilinear,
            "dtype": "float32",
            "nodata": math.nan,
        }
        if nodata is not None or is_float:
            options["src_nodata"] = math.nan if nodata is None else nodata
        return WarpedVRT(dataset, **options)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The pixels of a window and which of them were measured.

        Args:
            window: within the grid.

        Returns:
            pixels (C, H, W) in the files' dtype (float32 for a mixture or after resampling), and
            valid (H, W), True = measured. Where not valid the pixels mean nothing, but are finite.

        Raises:
            SceneError: a block is damaged, or the server failed.
        """
        shape = (window.height, window.width)
        pixels = np.empty((len(self.bands), *shape), dtype=self.dtype)
        measured = np.ones(shape, dtype=bool)
        lit = np.zeros(shape, dtype=bool)  # not 0 in some band whose nodata is 0
        dark_votes = False
        for source in self._sources:
            values = self._read_source(source, window)
            present = self._present(source, values, window)
            if present is not None:
                if source.nodata == 0:
                    dark_votes = True
                    lit |= present.any(axis=0)
                    values[~present] = 0
                else:
                    measured &= present.all(axis=0)
                    if values.dtype.kind == "f":
                        values[~np.isfinite(values)] = 0
            pixels[source.slots] = values
        if dark_votes:
            measured &= lit
        if self.aoi:
            measured &= rasterio.features.geometry_mask(
                self.aoi, shape, self.grid.crop(window).transform, invert=True
            )
        return pixels, measured

    def _read_source(self, source: _Source, window: Window) -> NDArray[Any]:
        row, col = source.window_of or (0, 0)
        area = rasterio.windows.Window(
            window.col + col, window.row + row, window.width, window.height
        )
        tries = REMOTE_TRIES if is_remote(source.path) else 1
        for attempt in range(tries):
            try:
                return np.asarray(source.dataset.read(source.indexes, window=area))
            except (rasterio.errors.RasterioError, OSError) as error:
                # GDAL retries refused requests but not bodies that were cut short.
                if attempt + 1 < tries:
                    time.sleep(0.5 * 2**attempt)
                    continue
                raise SceneError(
                    f"{source.path}: rows {window.row} to {window.bottom - 1} can't be read "
                    f"({first_line(error)}): the file is damaged or cut short; fetch it again"
                ) from error
        raise AssertionError("unreachable")

    def _present(
        self, source: _Source, values: NDArray[Any], window: Window
    ) -> NDArray[np.bool_] | None:
        """Where each band of a source was measured, (C, H, W); None where it all was."""
        if source.window_of is None:
            return np.asarray(np.isfinite(values))
        if not source.votes:
            return None
        if self.src_nodata is not None:
            present = values != self.src_nodata
        else:
            row, col = source.window_of
            area = rasterio.windows.Window(
                window.col + col, window.row + row, window.width, window.height
            )
            present = source.dataset.read_masks(source.indexes, window=area) != 0
        if values.dtype.kind == "f":
            present = present & np.isfinite(values)
        return np.asarray(present, dtype=bool)


def _whole_pixel_shift(of: PixelGrid, to: PixelGrid) -> tuple[int, int] | None:
    """(row, col) of the grid ``to`` within the grid ``of`` where they share pixels, else None."""
    if of.crs != to.crs:
        return None
    relative = ~of.transform @ to.transform
    row, col = round(relative.f), round(relative.c)
    # A thousandth of a pixel over the whole width: what rounding in headers leaves.
    far = relative @ (to.width, to.height)
    near = (abs(relative.c - col), abs(relative.f - row))
    end = (abs(far[0] - to.width - col), abs(far[1] - to.height - row))
    inside = row >= 0 and col >= 0 and row + to.height <= of.height and col + to.width <= of.width
    return (row, col) if inside and max(*near, *end) < 1e-3 else None


def _check_cover(band: SceneBand, grid: PixelGrid) -> None:
    """Refuse a band that leaves more than a pixel of the grid uncovered.

    Raises:
        BandError: it does.
    """
    if band.grid.crs != grid.crs:
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
