"""Reading a cloud layer: which pixels of another grid are left out."""

from __future__ import annotations

import math
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS, explain_read_error, retried
from geoseg.errors import SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.declared import pixel_limit
from geoseg.scene.files import opened
from geoseg.scene.resampling import blocks, check_resampling
from geoseg.scene.scene import CloudLayer

__all__ = ["CloudReader"]


class CloudReader:
    """A cloud layer on a scene's pixel grid: each pixel has the layer's number at its centre."""

    def __init__(self, layer: CloudLayer, grid: PixelGrid) -> None:
        """Open the layer.

        Args:
            layer: of the scene.
            grid: the pixels that are wanted.

        Raises:
            SceneError: the layer can't be opened or doesn't cover the grid.
        """
        self._layer, self._grid = layer, grid
        try:
            check_resampling(layer.band, grid)
        except SceneError as error:
            raise SceneError(
                f"the cloud layer does not fit the scene: {error}; or do without it (--clouds none)"
            ) from error
        self._stack = ExitStack()
        with pixel_limit(math.inf):  # whoever opened the scene has seen that it is not too large
            self._dataset: Any = self._stack.enter_context(
                opened(layer.band.path, layer.band.rules)
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
        for block in blocks(window, self._layer.band.grid, self._grid):
            top, left = block.row - window.row, block.col - window.col
            here = np.s_[top : top + block.height, left : left + block.width]
            out[here] = self._read_block(block)
        return out

    def _read_block(self, block: Window) -> NDArray[np.bool_]:
        rows, cols = self._places(block)
        first, left = int(rows.min()), int(cols.min())
        area = Window(first, left, int(rows.max()) - first + 1, int(cols.max()) - left + 1)
        rule = self._layer.rule
        left_out = np.zeros((area.height, area.width), dtype=bool)
        for index in rule.bands or (self._layer.band.index,):
            left_out |= rule.left_out(self._numbers(area, index))
        return left_out[rows - first, cols - left]

    def _places(self, block: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The layer's row and column at each pixel's centre, each (H, W) or to be broadcast so.

        They are found from the pixel's place in the whole grid, so that they are the same in
        whichever window it is read.
        """
        grid, layer = self._grid, self._layer.band.grid
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

        grid, layer = self._grid.crs, self._layer.band.grid.crs
        assert grid is not None and layer is not None, "check_resampling has seen that both are"
        return Transformer.from_crs(grid.to_wkt(), layer.to_wkt(), always_xy=True)

    def _numbers(self, area: Window, index: int) -> NDArray[Any]:
        """Read a window of a band on the layer's own grid."""
        path = self._layer.band.path
        window = RasterioWindow(area.col, area.row, area.width, area.height)
        try:
            return np.asarray(retried(path, partial(self._dataset.read, index, window=window)))
        except GDAL_ERRORS as error:
            raise SceneError(
                f"{path}: rows {area.row} to {area.bottom - 1} of the cloud layer can't be read: "
                f"{explain_read_error(error, path)}; or do without it (--clouds none)"
            ) from error
