"""Labels as images whose colours are classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS, explain_read_error, gdal_options
from geoseg.core.names import public_name
from geoseg.errors import LabelError, UsageError
from geoseg.geo.geodesy import GroundGrid, Ints
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.labels.classes import match_classes
from geoseg.labels.labels import RasterLabels, bounds_in, on_grid
from geoseg.labels.vector_files import is_vector
from geoseg.labels.window import Labels, check_crs
from geoseg.rasters.class_raster import ClassRaster
from geoseg.scene.files import opened
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["ColorLabels", "color_table", "colors_on_grid", "open_color_labels", "parse_colors"]


@dataclass(frozen=True)
class ColorLabels(RasterLabels):
    """A mask in class colours on a pixel grid; any other colour (an edge, say) is ignored.

    Attributes:
        colors: 0xRRGGBB -> id.
        table: (256,) 0xRRGGBB of each number, of a mask with a colour table; None of one in bands.
    """

    colors: Mapping[int, int] = field(default_factory=dict)
    table: Ints | None = None

    def window(self, window: Window) -> Labels:
        """Read labels of a window of the grid; see :meth:`RasterLabels.window`."""
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            bands = self.dataset.read([1] if self.table is not None else [1, 2, 3], window=area)
            there = self.dataset.dataset_mask(window=area) != 0
        except GDAL_ERRORS as error:
            raise LabelError(
                f"{self.path}: rows {window.row} to {window.bottom - 1} can't be read: "
                f"{explain_read_error(error, self.path)}"
            ) from error
        if self.table is not None:
            found = self.table[bands[0]]
        else:
            red, green, blue = bands.astype(np.int64)
            found = (red << 16) + (green << 8) + blue
        ids = np.full(found.shape, -1, np.int64)
        for color, class_id in self.colors.items():
            ids[found == color] = class_id
        known = there & (ids >= 0)
        return Labels(ids, known, np.zeros(ids.shape, bool), there & ~known)


def parse_colors(classes: Sequence[str], legend: Mapping[int, str]) -> dict[int, int]:
    """Read which colour is which class: 0xRRGGBB -> id.

    Args:
        classes: ``NAME=#RRGGBB``, where the name may be an id.
        legend: id -> name of the map's classes.

    Raises:
        UsageError: one is not written so, or a colour stands for two classes.
        LabelError: a name is no class.

    Examples:
        >>> parse_colors(["Water=#0000FF"], {3: "water"})
        {255: 3}
    """
    colors: dict[int, int] = {}
    for text in classes:
        name, _, color = text.rpartition("=")
        if not name or not re.fullmatch("#[0-9A-Fa-f]{6}", color):
            raise UsageError(f"--class {text}: give NAME=#RRGGBB, a class and its colour in a mask")
        ids, _, unknown = match_classes([name], legend, ())
        if unknown:
            known = ", ".join(f"{i} {name}" for i, name in legend.items())
            raise LabelError(f"--class {text}: the map has no class {name!r}; it has {known}")
        if colors.setdefault(int(color[1:], 16), int(ids[0])) != ids[0]:
            raise UsageError(f"--class {text}: this colour is another class already; give each one")
    return colors


@contextmanager
def open_color_labels(
    path: str | Path,
    grid: PixelGrid,
    colors: Mapping[int, int],
    other: str,
    rules: Rules = LOCAL,
) -> Iterator[ColorLabels]:
    """Open a mask in class colours, and bring it to a pixel grid.

    Args:
        path: a raster of red, green and blue, or of one band with a colour table.
        grid: any.
        colors: 0xRRGGBB -> class id.
        other: whose grid it is, a path, for messages.
        rules: what the file may point to.

    Raises:
        UsageError: the file holds no colours.
        SceneError: it can't be read.
        LabelError: labels and grid can't be brought together.
    """
    path = public_name(path)
    if is_vector(path):
        raise UsageError(f"--class gives colours of a mask, and {path} is a vector file")
    with gdal_options(path), opened(path, rules) as dataset:
        bands = dataset.count - (ColorInterp.alpha in dataset.colorinterp)
        palette = bands == 1 and dataset.colorinterp[0] == ColorInterp.palette
        if dataset.dtypes[0] != "uint8" or not (bands == 3 or palette):
            raise UsageError(
                f"--class gives colours of a mask, and {path} has {bands} bands of "
                f"{dataset.dtypes[0]}; it must have red, green and blue in uint8, or a colour table"
            )
        table = color_table(dataset) if palette else None
        with colors_on_grid(dataset, path, grid, colors, other, table) as labels:
            yield labels


def color_table(dataset: Any) -> Ints:
    """Look up the colour of each number, (256,) 0xRRGGBB, -1 where there is none.

    Args:
        dataset: rasterio's, open, of one band.

    Raises:
        ValueError: it has no colour table.
    """
    table = np.full(256, -1, np.int64)
    for number, (red, green, blue, _) in dataset.colormap(1).items():
        table[number] = (red << 16) + (green << 8) + blue
    return table


@contextmanager
def colors_on_grid(
    dataset: Any,
    path: str,
    grid: PixelGrid,
    colors: Mapping[int, int],
    other: str,
    table: Ints | None,
) -> Iterator[ColorLabels]:
    """Bring an open mask in class colours to a pixel grid.

    Args:
        dataset: rasterio's, of red, green and blue, or of one band with a colour table.
        path: of its file.
        grid: any.
        colors: 0xRRGGBB -> class id.
        other: whose grid it is, a path, for messages.
        table: of :func:`color_table`, which a virtual warp does not have; or None.

    Raises:
        LabelError: labels and grid can't be brought together.
    """
    labels = ClassRaster(path, dataset, GroundGrid.of(dataset), {})
    check_crs(grid.crs is not None, other, dataset.crs is not None, path)
    with on_grid(labels, grid, other) as placed:
        yield ColorLabels(labels, placed, bounds_in(grid.crs, labels), colors=colors, table=table)
