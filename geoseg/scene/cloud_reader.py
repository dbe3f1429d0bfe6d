"""Reading a cloud layer: which pixels of another grid are left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS, explain_read_error, retried
from geoseg.errors import BandError, SceneError
from geoseg.geo.disk import Disk
from geoseg.geo.pixel_grid import ROUNDING, PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.declared import pixel_limit
from geoseg.scene.files import opened
from geoseg.scene.resampling import blocks, check_resampling
from geoseg.scene.scene import CloudLayer, FoundClouds
from geoseg.scene.scene_band import SceneBand

__all__ = ["CloudReader"]


class CloudReader:
    """A cloud layer on a scene's pixel grid: each pixel has the layer's answer at its centre.

    Clouds are widened by the layer's buffer on its own grid, before: a window is read with what
    lies so far around it, and is the same in whatever part of the scene.
    """

    def __init__(self, layer: CloudLayer | FoundClouds, grid: PixelGrid) -> None:
        """Open the layer.

        Args:
            layer: of the scene, or what takes its place.
            grid: the pixels that are wanted.

        Raises:
            SceneError: the layer can't be opened or doesn't cover the grid.
        """
        self._layer, self._grid = layer, grid
        self._disk = _disk_of(layer)
        self._stack = ExitStack()
        self._found: Callable[[Window], tuple[NDArray[np.bool_], NDArray[np.bool_]]]
        if isinstance(layer, CloudLayer):
            self._check_covers(layer.band)
            with pixel_limit(math.inf):  # whoever opened the scene saw that it is not too large
                dataset = self._stack.enter_context(opened(layer.band.path, layer.band.rules))
            self._found = partial(_by_numbers, layer, dataset)
        else:
            find = self._stack.enter_context(layer.finder())
            self._found = lambda area: (find(area), np.zeros((area.height, area.width), bool))

    def _check_covers(self, band: SceneBand) -> None:
        """Refuse a layer that says nothing of part of the grid.

        Raises:
            SceneError: it is one.
        """
        layer, grid = band.grid, self._grid
        if grid.place_in(layer) is not None:
            return
        try:
            try:
                check_resampling(band, grid)
            except BandError:
                raise self._covers_a_part() from None
            if grid.crs != layer.crs:
                self._check_corners()
        except SceneError as error:
            raise SceneError(
                f"the cloud layer does not fit the scene: {error}; or do without it (--clouds none)"
            ) from error

    def _check_corners(self) -> None:
        """The same of a layer in another CRS: its pixels are found for points all along the ends.

        Raises:
            SceneError: more than a pixel of the grid lies beyond the layer.
        """
        grid, layer = self._grid, self._layer.grid
        along, down = np.linspace(0, grid.width, 22), np.linspace(0, grid.height, 22)
        cols = np.concatenate([along, along, np.zeros(22), np.full(22, grid.width)])
        rows = np.concatenate([np.zeros(22), np.full(22, grid.height), down, down])
        x, y = self._transformed(cols, rows)
        t = ~layer.transform
        col, row = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
        sizes = [a / b for a, b in zip(grid.gsd or (1, 1), layer.gsd or (1, 1), strict=True)]
        slack = max(1.0, *sizes) + ROUNDING
        inside = (-slack <= col) & (col <= layer.width + slack)
        inside &= (-slack <= row) & (row <= layer.height + slack)
        if not inside.all():
            raise self._covers_a_part()

    def _covers_a_part(self) -> SceneError:
        return SceneError(
            f"{self._layer.source} covers only part of the scene, and nothing is known of clouds "
            f"in the other; give a layer of all of it, or cut the scene (gdal_translate -projwin)"
        )

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Find which pixels the layer leaves out.

        Args:
            window: within the grid.

        Returns:
            (H, W), True = left out.

        Raises:
            SceneError: a block is damaged, or the server failed.
        """
        out = np.empty((window.height, window.width), dtype=bool)
        for block in blocks(window, self._layer.grid, self._grid):
            top, left = block.row - window.row, block.col - window.col
            here = np.s_[top : top + block.height, left : left + block.width]
            out[here] = self._read_block(block)
        return out

    def _read_block(self, block: Window) -> NDArray[np.bool_]:
        rows, cols = self._places(block)
        first, left = int(rows.min()), int(cols.min())
        area = Window(first, left, int(rows.max()) - first + 1, int(cols.max()) - left + 1)
        tall, wide = self._disk.height, self._disk.width
        whole = Window(0, 0, self._layer.grid.height, self._layer.grid.width)
        near = Window(
            area.row - tall, area.col - wide, area.height + 2 * tall, area.width + 2 * wide
        ).intersection(whole)
        assert near is not None, "the area lies in the layer"
        clouds, others = self._found(near)
        left_out = self._disk.dilated(clouds) | others
        return left_out[rows - near.row, cols - near.col]

    def _places(self, block: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The layer's row and column at each pixel's centre, each (H, W) or to be broadcast so.

        They are found from the pixel's place in the whole grid, so that they are the same in
        whichever window it is read.
        """
        grid, layer = self._grid, self._layer.grid
        col: Any = np.arange(block.col, block.right)[None, :] + 0.5
        row: Any = np.arange(block.row, block.bottom)[:, None] + 0.5
        if grid.crs == layer.crs:
            t = ~layer.transform @ grid.transform
        else:
            col, row = self._transformed(col, row)
            t = ~layer.transform
        # Each depends on one of them where the grids are not turned, and need not be made whole.
        across = t.a * col + t.c if t.b == 0 else t.a * col + t.b * row + t.c
        down = t.e * row + t.f if t.d == 0 else t.d * col + t.e * row + t.f
        # Rounding must not decide between two pixels where a centre lies on their border.
        found = (
            np.clip(np.floor(np.nan_to_num(place) + 1e-6), 0, size - 1).astype(np.int64)
            for place, size in ((down, layer.height), (across, layer.width))
        )
        rows, cols = found
        return rows, cols

    def _transformed(self, col: Any, row: Any) -> tuple[Any, Any]:
        """The grid's pixels in the layer's CRS, each (H, W)."""
        t = self._grid.transform
        x, y = t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f
        x, y = (np.where(np.isfinite(v), v, np.nan) for v in self._transformer.transform(x, y))
        return x, y

    @cached_property
    def _transformer(self) -> Any:
        from pyproj import Transformer

        grid, layer = self._grid.crs, self._layer.grid.crs
        assert grid is not None and layer is not None, "check_resampling has seen that both are"
        return Transformer.from_crs(grid.to_wkt(), layer.to_wkt(), always_xy=True)


def _by_numbers(
    layer: CloudLayer, dataset: Any, area: Window
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Clouds and what else is left out by a raster's numbers, (H, W) each, on its own grid."""
    clouds, others = (np.zeros((area.height, area.width), dtype=bool) for _ in range(2))
    for index in layer.rule.bands or (layer.band.index,):
        numbers = _numbers(layer.band.path, dataset, area, index)
        if numbers.dtype.kind == "f":
            missing = ~np.isfinite(numbers)
            numbers = _whole(numbers, missing, layer)
            others |= missing
        found = layer.rule.left_out(numbers)
        clouds |= found[0]
        others |= found[1]
    return clouds, others


def _numbers(path: str, dataset: Any, area: Window, index: int) -> NDArray[Any]:
    """Read a window of a band on the layer's own grid."""
    window = RasterioWindow(area.col, area.row, area.width, area.height)
    try:
        return np.asarray(retried(path, partial(dataset.read, index, window=window)))
    except GDAL_ERRORS as error:
        raise SceneError(
            f"{path}: rows {area.row} to {area.bottom - 1} of the cloud layer can't be read: "
            f"{explain_read_error(error, path)}; or do without it (--clouds none)"
        ) from error


def _whole(numbers: NDArray[Any], missing: NDArray[np.bool_], layer: CloudLayer) -> NDArray[Any]:
    """Turn classes or bits that a file stores as floating-point numbers back into whole ones.

    Raises:
        SceneError: they are none, as where classes were averaged.
    """
    found = np.where(missing, 0, numbers)
    whole = found.astype(np.int64)
    if not np.array_equal(whole, found):
        wrong = found[whole != found][0]
        raise SceneError(
            f"{layer.source} holds {wrong:g}, and {layer.name} has whole numbers alone: it was "
            f"averaged or resampled; give a layer of its own (--clouds FILE), or --clouds none"
        )
    return whole


def _disk_of(layer: CloudLayer | FoundClouds) -> Disk:
    """The disk by which clouds are widened.

    Raises:
        SceneError: metres are asked for and not known.
    """
    if layer.buffer and layer.grid.metric is None:
        raise SceneError(
            f"what lies within {layer.buffer:g} m of clouds is left out, and {layer.source} has no "
            f"CRS that gives metres; give --cloud-buffer 0, or give it a CRS (gdal_edit.py -a_srs)"
        )
    return Disk.of(layer.grid, layer.buffer)
