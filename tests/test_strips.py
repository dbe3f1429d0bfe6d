"""Finished strips on disk, and the virtual raster over them."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.errors import OutputError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.journal import StripStore
from geoseg.prediction.plan import HELD_STRIPS
from geoseg.prediction.strip import FinishedStrip
from geoseg.rasters.writing import RasterSpec
from tests.helpers import make_raster

HEIGHT, STRIPS = 8, 60


def store_of(folder: Path) -> tuple[StripStore, np.ndarray]:
    """Two lanes of many strips."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 9, (HEIGHT * STRIPS, 40)).astype(np.uint8)
    grid = PixelGrid(*pixels.shape, Affine(10, 0, 500000, 0, -10, 5000000), None)
    store = StripStore(folder, {"raster": RasterSpec(grid, "uint8", 255, ("land cover",))}, 2)
    for lane, (left, right) in enumerate(((0, 25), (25, 40))):
        for row in range(0, HEIGHT * STRIPS, HEIGHT):
            window = Window(row, left, HEIGHT, right - left)
            part = {"raster": pixels[window.rows, window.cols]}
            store.write(lane, FinishedStrip(window, part, (1,), 1, 0))
    return store, pixels


def open_strips(folder: Path) -> int:
    """How many of this process's open files are strips."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # that of the listing itself
            continue
        found += path.parent == folder and path.name.startswith("raster-")
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("few", [True, False])
def test_few_strips_are_open_at_once_while_they_become_one_raster(
    tmp_path: Path, few: bool
) -> None:
    """Each has buffers of its own: of a scene of 100,000 rows they were 0.1 GB."""
    # In a process of its own: GDAL takes the limit up where no other virtual raster is open, and
    # an earlier test may have stopped amid one.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        found = process.submit(most_open, tmp_path, few).result(timeout=60)
    assert found <= 16 if few else found > 60, "without the limit the test would show nothing"


def most_open(folder: Path, few: bool) -> int:
    """How many strips are open when a virtual raster over them has been read."""
    store, pixels = store_of(folder)
    limit = store.few_open() if few else nullcontext()
    with limit, rasterio.open(store.mosaic("raster")) as dataset:
        np.testing.assert_array_equal(dataset.read(1), pixels)
        return open_strips(folder)


@pytest.mark.parametrize("strip", [0, 1, STRIPS - 1])
def test_a_raster_that_is_not_what_its_strips_were_is_refused(tmp_path: Path, strip: int) -> None:
    store, pixels = store_of(tmp_path)
    path = tmp_path / "whole.tif"
    for wrong in (0, 1):
        pixels[strip * HEIGHT + 1, 30] += wrong
        make_raster(path, pixels[None])
        if wrong:
            with pytest.raises(OutputError, match="differs from what was written"):
                store.verify("raster", path)
        else:
            store.verify("raster", path)


def test_the_newest_strips_are_read_from_memory_and_older_ones_from_disk(tmp_path: Path) -> None:
    grid = PixelGrid(50, 7, Affine(10, 0, 0, 0, -10, 0), None)
    store = StripStore(tmp_path / "s", {"raster": RasterSpec(grid, "uint8", 255, ("x",))}, 1)
    pixels = np.random.default_rng(0).integers(0, 9, (50, 7), np.uint8)
    for top in range(0, 50, 10):
        window = Window(top, 0, 10, 7)
        part = {"raster": pixels[window.rows].copy()}
        store.write(0, FinishedStrip(window, part, (1,), 1, 0))
        assert len(store._held) <= HELD_STRIPS
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            store,
            "_from_disk",
            lambda *given: [opened.append(given[2]), StripStore._from_disk(store, *given)][1],
        )
        np.testing.assert_array_equal(store.read("raster", 33, 50)[0], pixels[33:])
        assert opened == []
        np.testing.assert_array_equal(store.read("raster", 5, 47)[0], pixels[5:47])
        assert opened == [0, 1, 2]
    again = StripStore(tmp_path / "s", {"raster": RasterSpec(grid, "uint8", 255, ("x",))}, 1)
    np.testing.assert_array_equal(again.read("raster", 0, 50)[0], pixels)


@pytest.mark.parametrize("seed", range(4))
def test_strips_are_found_in_any_order_and_those_between_are_missing(
    tmp_path: Path, seed: int
) -> None:
    """Rows wait for those above; what is written joins what lies below it."""
    store, pixels = store_of(tmp_path)
    rng = np.random.default_rng(seed)
    gone = [
        rng.random(STRIPS) < share for share in ((0.5, 0.1), (1, 0), (0, 0.9), (0.02, 0.02))[seed]
    ]
    for lane, numbers in enumerate(gone):
        for number in np.flatnonzero(numbers):
            (tmp_path / f"strip-{lane}-{number}.json").unlink()
    again = StripStore(tmp_path, store.specs, 2)
    assert len(again) == 2 * STRIPS - sum(int(numbers.sum()) for numbers in gone)
    tops = [int(np.argmax([*numbers, True])) for numbers in gone]
    assert again.rows == HEIGHT * min(tops)
    for lane, (left, right) in enumerate(((0, 25), (25, 40))):
        parts = again.missing(lane, STRIPS)
        found = [number for first, last in parts for number in range(first, last)]
        assert found == np.flatnonzero(gone[lane]).tolist()
        assert all(b < c for (_, b), (c, _) in pairwise(parts)), "a strip lies between two ranges"
        assert again.missing(lane, 7) == [(a, min(b, 7)) for a, b in parts if a < 7]
        for number in found:
            window = Window(number * HEIGHT, left, HEIGHT, right - left)
            part = {"raster": pixels[window.rows, window.cols]}
            again.write(lane, FinishedStrip(window, part, (1,), 1, 0))
        assert again.missing(lane, STRIPS) == []
    assert again.rows == HEIGHT * STRIPS and len(again) == 2 * STRIPS
    np.testing.assert_array_equal(again.read("raster", 0, HEIGHT * STRIPS)[0], pixels)


def test_memory_holds_the_newest_strips_alone_where_others_lie_between(tmp_path: Path) -> None:
    grid = PixelGrid(80, 7, Affine(10, 0, 0, 0, -10, 0), None)
    specs = {"raster": RasterSpec(grid, "uint8", 255, ("x",))}

    def write(store: StripStore, number: int) -> None:
        part = {"raster": np.full((10, 7), number, np.uint8)}
        store.write(0, FinishedStrip(Window(10 * number, 0, 10, 7), part, (1,), 1, 0))

    below = StripStore(tmp_path / "s", specs, 1, first=3)
    write(below, 3)
    write(below, 4)
    store = StripStore(tmp_path / "s", specs, 1)
    for number in (0, 1, 2, 5, 6, 7):
        write(store, number)
        assert len(store._held) <= HELD_STRIPS
    rows = np.arange(8, dtype=np.uint8).repeat(10)
    np.testing.assert_array_equal(store.read("raster", 0, 80)[0], np.tile(rows[:, None], 7))


def test_half_a_strip_of_a_run_that_was_killed_is_written_anew(tmp_path: Path) -> None:
    """Whatever its length: GDAL fails in many ways at half a file, and rasterio at some of them."""
    grid = PixelGrid(16, 9, Affine(10, 0, 0, 0, -10, 0), None)
    specs = {"raster": RasterSpec(grid, "uint8", 255, ("x",))}
    pixels = np.random.default_rng(0).integers(0, 9, (16, 9), np.uint8)
    strip = FinishedStrip(Window(0, 0, 16, 9), {"raster": pixels}, (1,), 1, 0)
    StripStore(tmp_path / "whole", specs, 1).write(0, strip)
    whole = next((tmp_path / "whole").glob("*.tif")).read_bytes()
    killed = tmp_path / "killed"
    for length in (*range(9), *range(9, len(whole), 29)):
        shutil.rmtree(killed, ignore_errors=True)
        killed.mkdir()
        (killed / "raster-0-0.tif").write_bytes(whole[:length])
        store = StripStore(killed, specs, 1)
        assert len(store) == 0
        store.write(0, strip)
        np.testing.assert_array_equal(StripStore(killed, specs, 1).read("raster", 0, 16)[0], pixels)
