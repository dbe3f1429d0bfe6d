"""Making polygons ends soon after it is told to, wherever it is, and leaves nothing."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geoseg.cards.legend import ClassInfo
from geoseg.core.workers import StoppedError, left_behind, stoppable
from geoseg.geo.window import Window
from geoseg.polygons.inputs import MapRows
from geoseg.polygons.polygonize import write_polygons, write_rows
from geoseg.rasters.class_raster import open_class_raster, read_class_window
from tests import forked

#: It ends within 2 s; a machine that has other things to do may take longer.
SOON = 5.0
#: Pixels across a map of noise, whose polygons take some seconds.
SIDE = 1000


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    path = tmp_path_factory.mktemp("stopping") / "noise.tif"
    about = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "crs": "EPSG:32633"}
    place = from_origin(500_000, 5_500_000, 10, 10)
    side = SIDE
    with rasterio.open(path, "w", height=side, width=side, transform=place, **about) as dataset:
        dataset.write(np.random.default_rng(0).integers(0, 8, (side, side)).astype(np.uint8), 1)
        dataset.update_tags(1, **{f"class_{i}": f"class {i}" for i in range(8)})
    return path


def test_who_waits_can_leave():
    going = threading.Event()

    def work(stop):
        while not going.wait(0.01):
            pass  # a library that knows of nothing
        stop.check()

    begin = time.monotonic()
    with pytest.raises(StoppedError):
        stoppable(work, lambda: time.monotonic() - begin > 0.2)
    assert time.monotonic() - begin < 2
    assert left_behind()
    going.set()
    while left_behind():
        assert time.monotonic() - begin < 10
        time.sleep(0.01)


def test_results_errors_and_words_come_to_who_waits():
    told = []

    def work(stop):
        for i in range(3):
            stop.report(lambda i=i: told.append((i, threading.current_thread())))
        return 7

    assert stoppable(work) == 7
    assert told == [(i, threading.current_thread()) for i in range(3)]

    def fails(stop):
        raise ValueError("seven")

    with pytest.raises(ValueError, match="seven"):
        stoppable(fails)

    def tells(stop):
        stop.report(lambda: [][0])
        while True:
            stop.check()
            time.sleep(0.01)

    with pytest.raises(IndexError):
        stoppable(tells)
    assert not left_behind()


@pytest.mark.parametrize("options", [{}, {"min_area": 500.0, "simplify": 20.0}])
@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_stopped_wherever_it_is(noise, tmp_path, suffix, options):
    for seconds in (0.05, 0.5, 1.0):
        begin = time.monotonic()
        with pytest.raises(StoppedError):
            write_polygons(
                tmp_path / f"map{suffix}",
                noise,
                stopped=lambda begin=begin, seconds=seconds: time.monotonic() - begin > seconds,
                threads=2,
                most=float("inf"),
                **options,
            )
        assert time.monotonic() - begin < seconds + SOON
        assert not (tmp_path / f"map{suffix}").exists()
    while left_behind():
        time.sleep(0.1)
    assert os.listdir(tmp_path) == []


def test_a_reader_that_waits_forever_is_left(noise, tmp_path):
    classes = [ClassInfo(i, f"class {i}", "#000000") for i in range(8)]
    forever = threading.Event()
    with open_class_raster(noise) as raster:

        def ids(top, bottom):
            if top:
                forever.wait()
            return read_class_window(raster.dataset, "noise", Window(top, 0, bottom - top, SIDE))

        begin = time.monotonic()
        with pytest.raises(StoppedError):
            rows = MapRows("noise", raster.grid, ids)
            late = lambda: time.monotonic() - begin > 1  # noqa: E731
            write_rows(tmp_path / "map.gpkg", rows, classes, strip_rows=64, stopped=late)
        assert time.monotonic() - begin < SOON
        forever.set()
        while left_behind():
            time.sleep(0.1)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".gpkg", []),
        (".parquet", []),
        (".fgb", ["--min-area", "500", "--sieve", "3", "--simplify", "20", "--smooth", "1"]),
    ],
)
def test_ctrl_c_ends_vectorize_soon(noise, tmp_path, suffix, options):
    output = tmp_path / f"map{suffix}"
    arguments = [str(noise), "-o", str(output), "--force", "--overwrite", *options]
    code = "from geoseg.cli import main; main()"
    command = [sys.executable, "-c", code, "vectorize", *arguments]
    delay, interrupted = random.Random(suffix).uniform(0.3, 2.0), 0
    for _ in range(20):
        process = forked.Forked(command)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)  # of no effect on one that has ended
        begin = time.monotonic()
        _, said = process.communicate(timeout=120)
        assert time.monotonic() - begin < SOON
        if process.returncode == 0:  # a faster machine had made the polygons
            output.unlink()
            delay /= 2
            continue
        assert process.returncode == 130, said
        assert said.strip().splitlines()[-1].startswith("geoseg: error: interrupted")
        assert os.listdir(tmp_path) == []
        interrupted += 1
        if interrupted == 2:
            return
        delay *= 0.7
    pytest.fail("no run was interrupted")
