"""Polygons are made of finished strips while others are computed; nothing tells it but time."""

from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest

import geoseg
from geoseg.errors import OutputError, SceneError
from geoseg.polygons.source import Source
from geoseg.prediction import background
from geoseg.prediction.journal import StripStore
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import Plan, make_plan
from geoseg.prediction.strip import FinishedStrip
from tests import forked
from tests.helpers import make_raster, tiny_model
from tests.test_resume import (
    CLASSES,
    RASTERS,
    VECTOR,
    Smooth,
    Stops,
    contents,
    predict,
    scene_of,
)

ROWS = 7


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", ("red",), CLASSES)


@pytest.fixture(autouse=True)
def thin_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small scene has many of them, of other rows than the network's."""

    def strips(self: Any) -> Any:
        height = self.grid.height
        return ((top, min(top + ROWS, height)) for top in range(0, height, ROWS))

    monkeypatch.setattr(Source, "strips", strips)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("geoseg-")]


@pytest.mark.parametrize("options", [{}, {"min_area": 900.0}])
def test_rows_are_read_while_chips_are_computed(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, float]
) -> None:
    """The network waits for the polygons of what it has finished: it would wait in vain."""
    scene = scene_of(tmp_path)
    read: list[int] = []
    third = threading.Event()

    def noted(self: StripStore, name: str, top: int, bottom: int) -> Any:
        if name == "raster":
            read.append(bottom)
            if bottom > 50:
                third.set()
        return real(self, name, top, bottom)

    class Waits(Smooth):
        def answer(self, pixels: Any) -> Any:
            if len(self.batches) == chips - 5:
                assert third.wait(60), read
                assert max(read) < 150
            return super().answer(pixels)

    real = StripStore.read
    monkeypatch.setattr(StripStore, "read", noted)
    chips = predict(scene, tmp_path / "whole", model, Smooth(4), **options).report["chips"]["run"]
    read.clear()
    third.clear()
    result = predict(scene, tmp_path / "out", model, Waits(4), **options)
    assert read[-1] == 150 and {"polygons", "wait for strips"} <= set(result.report["seconds"])
    whole, out = (tmp_path / name / VECTOR for name in ("whole", "out"))
    assert whole.read_bytes() == out.read_bytes()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("options", [{}, {"min_area": 900.0, "simplify": 12.0}])
@pytest.mark.parametrize("lanes", [1, 3])
def test_the_file_is_that_of_the_finished_rasters(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    options: dict[str, float],
    lanes: int,
) -> None:
    monkeypatch.setattr(Plan, "lanes", lambda self, limit: self._lanes(lanes))
    scene = scene_of(tmp_path, width=260)
    folder = tmp_path / "out"
    result = predict(scene, folder, model, Smooth(4), probs_dtype=dtype, **options)
    again = folder / "again.parquet"
    geoseg.vectorize(
        result.raster,
        again,
        confidence=folder / "confidence.tif",
        probs=folder / "probs.tif",
        **options,
    )
    assert again.read_bytes() == (folder / VECTOR).read_bytes()


def test_failing_polygons_end_the_run_at_once_and_keep_the_strips(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    chips = predict(scene, tmp_path / "whole", model, Smooth(4)).report["chips"]["run"]
    failed = threading.Event()

    def full(self: StripStore, name: str, top: int, bottom: int) -> Any:
        if bottom > 50:
            failed.set()
            raise OutputError("the disk is full")
        return real(self, name, top, bottom)

    class Slow(Smooth):
        def answer(self, pixels: Any) -> Any:
            if len(self.batches) > chips // 2:
                failed.wait(60)
            return super().answer(pixels)

    real = StripStore.read
    with monkeypatch.context() as patch:
        patch.setattr(StripStore, "read", full)
        runtime = Slow(4)
        with pytest.raises(OutputError, match="the disk is full"):
            predict(scene, folder, model, runtime)
    assert len(runtime.batches) < chips
    assert not threads()
    assert [p.name for p in folder.iterdir()] == [".geoseg-out.tif"]
    predict(scene, folder, model, Smooth(4))
    assert (folder / VECTOR).read_bytes() == (tmp_path / "whole" / VECTOR).read_bytes()


@pytest.mark.parametrize(
    ("what", "error"),
    [("pixel_dtype", SceneError("damaged")), ("write_overviews", OutputError("full"))],
)
def test_what_fails_beside_the_network_ends_the_run_at_once(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, what: str, error: Exception
) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    chips = predict(scene, tmp_path / "whole", model, Smooth(4)).report["chips"]["run"]
    failed = threading.Event()

    def fails(*_: Any) -> Any:
        failed.set()
        raise error

    class Slow(Smooth):
        def answer(self, pixels: Any) -> Any:
            if len(self.batches) > chips // 2:
                failed.wait(60)
            return super().answer(pixels)

    runtime = Slow(4)
    with monkeypatch.context() as patch:
        patch.setattr(background, what, fails)
        with pytest.raises(type(error), match=str(error)):
            predict(scene, folder, model, runtime)
    assert len(runtime.batches) < chips
    assert not threads()
    predict(scene, folder, model, Smooth(4))
    assert contents(folder) == contents(tmp_path / "whole")


def test_the_runtime_is_told_beforehand_what_will_come(tmp_path: Path, model: Path) -> None:
    """Its chips' shape and dtype, resampled or not; once."""

    class Told(Smooth):
        def __init__(self, classes: int) -> None:
            super().__init__(classes)
            self.told: list[Any] = []
            self.came: set[Any] = set()

        def prepare(self, pixels: Any) -> None:
            self.told.append((pixels.shape, pixels.dtype))

        def answer(self, pixels: Any) -> Any:
            self.came.add((pixels.shape[1:], pixels.dtype))
            return super().answer(pixels)

    for gsd in (10.0, 4.0):
        folder = tmp_path / str(gsd)
        folder.mkdir()
        runtime = Told(4)
        predict(scene_of(folder, gsd=gsd), folder / "out", model, runtime)
        assert set(runtime.told) == runtime.came and len(runtime.told) == 1


@pytest.mark.parametrize("error", [RuntimeError("boom"), SceneError("gone"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [0, 60])
def test_a_failing_run_is_told_as_it_is_and_leaves_no_thread(
    tmp_path: Path, model: Path, error: BaseException, after: int
) -> None:
    class Breaks(Stops):
        def answer(self, pixels: Any) -> Any:
            if len(self.batches) > after:
                raise error
            return super().answer(pixels)

    with pytest.raises(type(error), match=str(error) or None):
        predict(scene_of(tmp_path), tmp_path / "out", model, Breaks(4, 10**6))
    # Ctrl-C does not wait for those that are in a library's hands; they end by themselves.
    until = time.monotonic() + 20
    while threads() and time.monotonic() < until:
        time.sleep(0.1)
    assert not threads()


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson"])
def test_what_a_killed_run_has_left_of_its_polygons_is_begun_anew(
    tmp_path: Path, model: Path, suffix: str
) -> None:
    """A whole file, as just before the outputs get their names; and a torn one."""
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    vector = folder / f"out{suffix}"
    before = predict(scene, folder, model, Smooth(4), vector=vector)
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    for share in (1.0, 0.4):
        with pytest.raises(KeyboardInterrupt):
            predict(scene, folder, model, Stops(4, 60), vector=vector)
        hidden = folder / ".geoseg-out.tif"
        for name, data in files.items():
            (hidden / name).write_bytes(data[: int(share * len(data))])
        (hidden / f"{vector.name}-journal").write_bytes(b"of another time")
        after = predict(scene, folder, model, Smooth(4), vector=vector)
        assert after.report["classes"] == before.report["classes"]
        assert {p.name for p in folder.iterdir()} == set(files)
        if suffix != ".gpkg":  # which says when it was made
            assert vector.read_bytes() == files[vector.name]


@pytest.mark.parametrize("share", [0.05, 0.95])
def test_noise_costs_the_polygons_and_not_the_raster(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Noticed early, and late in the run; told what to do; made all the same with force."""
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    whole = predict(scene, tmp_path / "whole", model, Smooth(4))
    found = len(geopandas.read_parquet(tmp_path / "whole" / VECTOR))
    monkeypatch.setattr("geoseg.polygons.options.MOST_POLYGONS", int(share * found))
    told: list[dict[str, Any]] = []
    result = predict(scene, folder, model, Smooth(4), progress=told.append)
    assert result.vector is None and "vector" not in result.report["outputs"]
    (warning,) = result.report["warnings"]
    assert f"geoseg vectorize {folder / 'out.tif'} --sieve 10" in warning
    assert "--force" in warning and "polygons in its first" in warning
    assert sum(event["event"] == "warning" for event in told) == 1
    assert told[-1]["event"] == "result" and "vector" not in told[-1]
    assert {p.name for p in folder.iterdir()} == {*RASTERS, "out.qml", "out.json"}
    assert contents(folder, RASTERS) == contents(tmp_path / "whole", RASTERS)
    result = predict(scene, folder, model, Smooth(4), force=True)
    assert result.vector is not None and result.report["warnings"] == []
    assert contents(folder) == contents(tmp_path / "whole")
    again = predict(scene, folder, model, Smooth(4))
    assert again.report["classes"] == whole.report["classes"]
    assert f"{folder / VECTOR} is of an earlier run" in again.report["warnings"][0]


def test_rows_of_strips(tmp_path: Path) -> None:
    from rasterio.transform import from_origin

    from geoseg.geo.pixel_grid import PixelGrid
    from geoseg.geo.window import Window
    from geoseg.rasters.writing import RasterSpec

    grid = PixelGrid(9, 6, from_origin(0, 0, 1, 1), None)
    store = StripStore(tmp_path / "strips", {"raster": RasterSpec(grid, "uint8", 255, ("x",))}, 2)
    values = np.arange(54, dtype=np.uint8).reshape(9, 6)
    for top, bottom in ((0, 4), (4, 9)):
        for lane, (left, right) in enumerate(((0, 4), (4, 6))):
            window = Window(top, left, bottom - top, right - left)
            part = values[top:bottom, left:right]
            store.write(lane, FinishedStrip(window, {"raster": part}, (0,), 1, 0))
            store.write(lane, FinishedStrip(None, {}, (0,), 1, 0))
            assert store.rows == (bottom if lane else top)
    for top in range(9):
        for bottom in range(top + 1, 10):
            rows = store.read("raster", top, bottom)
            np.testing.assert_array_equal(rows, values[None, top:bottom])


#: Gets Ctrl-C when all strips are finished and polygons are being made of them.
INTERRUPTED = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
import geoseg
from tests.oracles import OneHot
signal.signal(signal.SIGINT, signal.default_int_handler)
came = []
def hears(event):
    if event["event"] == "progress" and event["stage"] == "polygons" and not came:
        came.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
try:
    geoseg.predict(sys.argv[2], sys.argv[3], model=sys.argv[4], runtime=OneHot(4), progress=hears,
                   force=True)
except KeyboardInterrupt as error:
    print(time.monotonic() - came[0], error, flush=True)
    os._exit(130)
"""


@pytest.mark.slow
def test_ctrl_c_while_polygons_are_made_ends_at_once_and_keeps_the_strips(tmp_path: Path) -> None:
    """It took 46 seconds for 9 Mpx of noise, and then everything was thrown away."""
    model = tiny_model(tmp_path / "model", ("red",), CLASSES, size=256)
    noise = np.random.default_rng(0).integers(0, 4, (1, 2000, 2000)).astype(np.uint8)
    scene = make_raster(tmp_path / "scene.tif", noise, descriptions=("red",), tiled=True)
    output = tmp_path / "out.tif"
    command = [sys.executable, "-c", INTERRUPTED, Path(__file__).parents[1], scene, output, model]
    done = forked.run(command)
    assert done.returncode == 130, done.stderr
    seconds, message = done.stdout.split(maxsplit=1)
    # Two are promised, on a machine that has nothing else to do.
    assert float(seconds) < 4
    assert re.search("finished strips? (is|are) kept: the same command goes on", message)
    strips = tmp_path / ".geoseg-out.tif" / "scratch" / "strips"
    rows = make_plan(scene, PredictOptions(model=model)).chips.row_starts
    assert len(list(strips.glob("strip-*.json"))) == len(rows)
