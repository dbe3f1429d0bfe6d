"""Runs every kernel on small maps; with NUMBA_BOUNDSCHECK=1 an index beyond an array is an error.

A program of its own, since numba reads its settings when it is imported. Its argument is a folder
to work in.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numba
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio import open as open_raster

import geoseg
from geoseg.core.jit import kernel
from geoseg.geo.chip_grid import ChipGrid, Lane
from geoseg.geo.window import Window
from geoseg.prediction.decide import decide
from geoseg.prediction.stitch import Piece, stitch
from geoseg.rasters.writing import halve
from tests.helpers import by_row

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"connectivity": 8, "simplify": 20.0, "smooth": 2},
    {"min_area": 900.0, "simplify": 15.0, "algorithm": "douglas-peucker"},
    {"sieve": 4, "min_hole": 2000.0, "connectivity": 8, "smooth": 1},
)


def maps() -> Iterator[NDArray[np.uint8]]:
    """Noise, blocks, stripes, rings, single rows, columns and pixels, some with nodata (255)."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 5, (23, 37)).astype(np.uint8)
    yield noise
    yield np.where(random.random(noise.shape) < 0.3, 255, noise).astype(np.uint8)
    yield random.integers(0, 3, (6, 9)).repeat(4, 0).repeat(3, 1).astype(np.uint8)
    yield (np.indices((20, 31)).sum(axis=0) % 2).astype(np.uint8)
    ring = np.abs(np.indices((25, 25)) - 12).max(axis=0)
    yield (ring // 2 % 4).astype(np.uint8)
    for shape in ((1, 1), (1, 40), (40, 1), (2, 2), (17, 2)):
        yield random.integers(0, 3, shape).astype(np.uint8)
    yield np.full((9, 8), 255, np.uint8)
    yield np.zeros((9, 8), np.uint8)


def vectorize(folder: Path) -> None:
    """Each map with all options, in strips of several heights."""
    for number, values in enumerate(maps()):
        height, width = values.shape
        profile = {"driver": "GTiff", "height": height, "width": width, "crs": "EPSG:32633"}
        profile["transform"] = Affine(10, 0, 500000, 0, -10, 5000000)
        path, sure = folder / f"{number}.tif", folder / f"{number}-sure.tif"
        with open_raster(path, "w", count=1, dtype="uint8", nodata=255, **profile) as file:
            file.write(values, 1)
        with open_raster(sure, "w", count=1, dtype="float32", nodata=np.nan, **profile) as file:
            file.write(np.random.default_rng(0).random(values.shape, np.float32), 1)
        for i, options in enumerate(OPTIONS):
            for rows in (1, 3) if number < 2 else (3, 64):
                given = {"strip_rows": rows, "threads": 2, **options}
                if i % 2:
                    given["confidence"] = sure
                geoseg.vectorize(path, folder / "out.parquet", overwrite=True, **given)


def predict() -> None:
    """Chips of several grids and lanes, stitched and decided on."""
    random = np.random.default_rng(0)
    for size, overlap, multiple in ((16, 4, 1), (16, 15, 1), (9, 0, 1), (12, 5, 4), (64, 8, 1)):
        somewhere = {"margin": 2, "border": 3, "row": 5, "col": -3, "ground": Window(-9, 0, 60, 50)}
        grids = (ChipGrid(37, 45, size, overlap, multiple, **at) for at in ({}, somewhere))
        for grid, (left, right) in product(grids, ((0, 45), (0, 20), (20, 45))):
            lane = Lane.of(grid, left, right)
            windows = [w for r in grid.row_starts for w in grid.row_chips(r)]
            shape = 3, grid.chip_height, grid.chip_width
            chips = [
                (w, random.random(shape, np.float32))
                for w in windows
                if w.col in lane.starts and random.random() < 0.9
            ]
            for part in stitch(
                by_row(chips, grid),
                grid,
                classes=3,
                zeros=lambda shape: np.zeros(shape, np.float32),
                asarray=lambda array: array,
                lane=lane,
            ):
                if isinstance(part, Piece):
                    valid = random.random((part.window.height, part.window.width)) < 0.9
                    decide(part.probs, valid, np.array([4, 0, 200], np.uint8), 255)
    for values in maps():
        halve(values)


@kernel
def _beyond(numbers: NDArray[np.int64], place: int) -> int:
    return int(numbers[place])


if __name__ == "__main__":
    assert numba.config.BOUNDSCHECK == 1
    try:
        _beyond(np.zeros(3, np.int64), 4)
    except IndexError:
        pass
    else:
        raise SystemExit("an index beyond an array was not seen")
    predict()
    vectorize(Path(sys.argv[1]))
    sys.stdout.write("all within\n")
