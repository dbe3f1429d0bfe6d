"""The held-out side: its windows, and its labels as rasters for whoever checks."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import rasterio.warp
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.cards.legend import ClassInfo
from geoseg.core.gdal import GDAL_ERRORS, first_line
from geoseg.core.wording import counted
from geoseg.errors import OutputError
from geoseg.geo.window import Window
from geoseg.training.scenes import TrainingScene, short_names, squares
from geoseg.training.split import VALIDATION

__all__ = ["held_out_windows", "quiet", "reflect", "shown_size", "write_held_out"]


def held_out_windows(
    scene: TrainingScene, size: int, halo: int, side: int = VALIDATION
) -> Iterator[tuple[Window, Window]]:
    """Yield squares that cover a scene's held-out pixels once, each with the window around it.

    Args:
        scene: the scene.
        size: side of the window with its halo, px.
        halo: px around a square that the network sees besides.
        side: which of the held-out sides.

    Yields:
        (core, window): the core lies in the window, and both in the scene.
    """
    for core, window in squares(scene.shape, size, halo):
        if scene.usable(core.rows, side)[:, core.cols].any():
            yield core, window


def reflect(start: int, side: int, length: int) -> slice | NDArray[np.int64]:
    """Choose ``side`` px from ``start`` on; a scene that is too small is continued by mirror.

    Args:
        start: first px; moved so that the span lies in the scene where that is long enough.
        side: px.
        length: of the scene.
    """
    if side <= length:
        start = min(max(start, 0), length - side)
        return slice(start, start + side)
    index = np.arange(start, start + side) % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def shown_size(scenes: Sequence[TrainingScene]) -> str:
    """Say how much there is to learn from, for people."""
    pixels = sum(math.prod(scene.shape) for scene in scenes)
    return f"{counted(len(scenes), 'scene')}, {pixels / 1e6:.3g} Mpx"


def write_held_out(
    folder: Path, scenes: Sequence[TrainingScene], classes: Sequence[ClassInfo]
) -> list[Path]:
    """Write the held-out labels as class rasters, for ``geoseg evaluate``.

    Args:
        folder: for the files, one a scene with held-out labels, named after it.
        scenes: all of them, split.
        classes: the legend.

    Returns:
        The files.

    Raises:
        OutputError: one can't be written.
    """
    written: list[Path] = []
    names = {path: name.replace(os.sep, "-") for path, name in short_names(scenes).items()}
    ids = np.array([c.id for c in classes], np.uint8)
    for scene in scenes:
        parts = (scene.usable(rows, VALIDATION) & scene.labelled[rows] for rows in scene.strips())
        if not any(part.any() for part in parts):
            continue
        path = (
            folder / f"{names[str(scene.config.path)].removesuffix(scene.config.path.suffix)}.tif"
        )
        number = 2
        while path in written:  # windows of one file
            path, number = path.with_stem(f"{path.stem}-{number}"), number + 1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Half a file of a run that was killed: rasterio fails to replace what GDAL can't read.
            path.unlink(missing_ok=True)
            with (
                quiet(),
                rasterio.open(
                    path,
                    "w",
                    driver="GTiff",
                    height=scene.shape[0],
                    width=scene.shape[1],
                    count=1,
                    dtype="uint8",
                    nodata=255,
                    crs=scene.grid.crs,
                    transform=scene.grid.transform,
                    compress="deflate",
                    tiled=True,
                ) as dataset,
            ):
                for rows in scene.strips():
                    held = scene.usable(rows, VALIDATION) & scene.labelled[rows]
                    values = np.where(held, ids[scene.target[rows].clip(0, len(ids) - 1)], 255)
                    area = RasterioWindow(0, rows.start, scene.shape[1], rows.stop - rows.start)
                    dataset.write(values.astype(np.uint8), 1, window=area)
                dataset.update_tags(1, **{f"class_{c.id}": c.name for c in classes})
                dataset.write_colormap(1, {c.id: (*c.rgb, 255) for c in classes})
        except GDAL_ERRORS as error:
            raise OutputError(f"{path} can't be written ({first_line(error)})") from error
        written.append(path)
    return written


@contextmanager
def quiet() -> Iterator[None]:
    """Silence rasterio's warning of scenes without a place on Earth: they can be learned from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield
