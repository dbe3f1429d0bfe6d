"""A map's probabilities, as ``geoseg predict --probs`` writes them, beside the map."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS, explain_read_error
from geoseg.core.names import public_name
from geoseg.errors import EvaluationError, SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.rasters.class_raster import ClassRaster
from geoseg.scene.files import opened
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["Probabilities", "open_probs"]

#: A softmax in float32 keeps small probabilities to seven digits; below this, they count as this.
LEAST_FLOAT = 1e-12


@dataclass(frozen=True)
class Probabilities:
    """An open raster of probabilities on a map's grid.

    Attributes:
        path: the file.
        dataset: rasterio's.
        bands: of each of the map's classes, from 1.
        least: half of the smallest step that the file can hold, or 1e-12 for floats. With eight
            bits, temperatures of very sure models come out some percent too low.
    """

    path: str
    dataset: Any
    bands: tuple[int, ...]
    least: float

    def rows(self, top: int, bottom: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read full-width rows.

        Returns:
            float32 (K, H, W), 0 to 1, in the order of the map's classes; and (H, W), True where
            all of them are there.

        Raises:
            SceneError: a block is damaged.
        """
        dataset = self.dataset
        window = RasterioWindow(0, top, dataset.width, bottom - top)
        try:
            raw = dataset.read(self.bands, window=window)
        except GDAL_ERRORS as error:
            raise SceneError(
                f"{self.path}: rows {top} to {bottom - 1} can't be read: "
                f"{explain_read_error(error, self.path)}"
            ) from error
        valid = np.isfinite(raw).all(axis=0)
        if dataset.nodata is not None and math.isfinite(dataset.nodata):
            valid &= (raw != dataset.nodata).all(axis=0)
        scale = np.array([dataset.scales[b - 1] for b in self.bands], np.float32)[:, None, None]
        probs = np.where(valid, raw * scale, np.float32(0))
        if probs.min() < 0 or probs.max() > 1.001:
            raise EvaluationError(
                f"{self.path} holds {probs.min():.4g} to {probs.max():.4g}; probabilities are 0 to "
                f"1: give the raster of geoseg predict --probs, with its scale tag"
            )
        return probs, valid


@contextmanager
def open_probs(
    path: str | Path, raster: ClassRaster, legend: dict[int, str], rules: Rules = LOCAL
) -> Iterator[Probabilities]:
    """Open the probabilities that a map was made of.

    Args:
        path: of what ``geoseg predict --probs`` writes: one band a class, uint8 with a scale tag or
            floats. Which band is which class is read from the tag GEOSEG_CLASSES, or else from the
            bands' names.
        raster: the map; the probabilities must lie on its very pixels.
        legend: id -> name of the map's classes.
        rules: what the file may point to.

    Raises:
        SceneError: it can't be opened.
        EvaluationError: it lies on another grid, or its bands are not the map's classes.
    """
    text = public_name(path)
    with opened(text, rules) as dataset:
        ours = raster.pixels
        if not ours.same_pixels(PixelGrid.of(dataset)):
            raise EvaluationError(
                f"{text} is {dataset.width} x {dataset.height} px and {raster.path} "
                f"{ours.width} x {ours.height} px, or they lie elsewhere; probabilities must lie "
                f"on the map's own pixels: give those that geoseg predict --probs wrote with it"
            )
        bands = _bands(dataset, legend)
        if bands is None:
            raise EvaluationError(
                f"{text} has {dataset.count} bands ({', '.join(map(str, dataset.descriptions))}) "
                f"and the map the classes {', '.join(legend.values())}; there must be one band for "
                f"each: give what geoseg predict --probs wrote with the map"
            )
        step = min(dataset.scales[b - 1] for b in bands)
        whole = np.dtype(dataset.dtypes[0]).kind in "iu"
        yield Probabilities(text, dataset, bands, step / 2 if whole else LEAST_FLOAT)


def _bands(dataset: Any, legend: dict[int, str]) -> tuple[int, ...] | None:
    """Find the band of each class, from 1; None where that is unknown."""
    try:
        named = json.loads(dataset.tags().get("GEOSEG_CLASSES", "{}"))
        order = [int(key) for key in named]
    except (ValueError, TypeError):
        order = []
    if not order:
        by_name = {name: i for i, name in legend.items()}
        order = [by_name.get(name, -1) for name in dataset.descriptions]
    if len(order) != dataset.count or sorted(order) != sorted(legend):
        return None
    return tuple(order.index(i) + 1 for i in legend)
