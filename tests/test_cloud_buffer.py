"""What lies near clouds is left out, too: so many metres on the ground, however it is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS

import geoseg
from geoseg.errors import SceneError, UsageError
from geoseg.geo.disk import Disk
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import Plan
from geoseg.scene.cloud_reader import CloudReader
from geoseg.scene.clouds import CloudRule, Numbers
from geoseg.scene.scene import CloudLayer
from geoseg.scene.scene_band import SceneBand
from tests import stacitems
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime

UTM = CRS.from_epsg(32633)
#: Pixels of whatever kind, about (15 E, 45 N).
GRIDS = {
    "square": (UTM, Affine(20, 0, 5e5, 0, -20, 5e6)),
    "unequal": (UTM, Affine(10, 0, 5e5, 0, -35, 5e6)),
    "turned": (UTM, Affine.translation(5e5, 5e6) @ Affine.rotation(33) @ Affine.scale(20, -15)),
    "sheared": (UTM, Affine(20, 12, 5e5, -4, -20, 5e6)),
    "upside down": (UTM, Affine(-20, 0, 5e5, 0, 20, 5e6)),
    "degrees": (CRS.from_epsg(4326), Affine(2e-4, 0, 15, 0, -2e-4, 45)),
    "feet": (CRS.from_epsg(2263), Affine(80, 0, 1e6, 0, -80, 2e5)),
}


def by_brute_force(mask: NDArray[np.bool_], grid: PixelGrid, radius: float) -> NDArray[np.bool_]:
    """Every pixel against every cloud, with lengths taken from gsd and the angle of the axes."""
    gsd, area = grid.gsd, grid.pixel_area
    assert gsd is not None and area is not None
    angle = math.asin(min(1.0, area / (gsd[0] * gsd[1])))
    t = grid.transform
    if (t.a * t.b + t.d * t.e) < 0:  # of a CRS of equal units
        angle = math.pi - angle
    out = np.zeros_like(mask)
    here = np.argwhere(mask)
    for row, col in np.ndindex(mask.shape):
        down, across = (here - (row, col)).T
        x = across * gsd[0] + down * gsd[1] * math.cos(angle)
        y = down * gsd[1] * math.sin(angle)
        out[row, col] = bool((np.hypot(x, y) <= radius * 1.01).any())
    return out


@given(data=st.data())
def test_a_disk_is_that_of_brute_force(data: st.DataObject) -> None:
    crs, transform = GRIDS[data.draw(st.sampled_from(sorted(GRIDS)))]
    height, width = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 14))
    radius = data.draw(st.sampled_from([0.0, 1.0, 20.0, 47.3, 60.0, 100.0, 333.3]))
    mask = np.zeros((height, width), bool)
    for _ in range(data.draw(st.integers(0, 3))):
        mask[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = True
    grid = PixelGrid(height, width, transform, crs)
    found = Disk.of(grid, radius).dilated(mask)
    np.testing.assert_array_equal(found, by_brute_force(mask, grid, radius))


def layer_of(
    path: Path, numbers: NDArray[Any], grid: PixelGrid, buffer: float, rule: CloudRule
) -> CloudLayer:
    make_raster(path, numbers[None], crs=grid.crs, transform=grid.transform)
    band = SceneBand(None, "clouds", str(path), 1, str(numbers.dtype), None, None, None, grid)
    return CloudLayer(band, rule, path.name, buffer)


@given(data=st.data())
def test_a_window_has_the_clouds_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of grids of whatever kind, on pixels of another size than the layer's."""
    folder = tmp_path_factory.getbasetemp() / "near"
    folder.mkdir(exist_ok=True)
    kind = data.draw(st.sampled_from(sorted(GRIDS)))
    crs, transform = GRIDS[kind]
    grid = PixelGrid(40, 36, transform, crs)
    seed = data.draw(st.integers(0, 3))
    numbers = (np.random.default_rng(seed).random((40, 36)) < 0.004).astype(np.uint8)
    numbers[np.random.default_rng(seed + 9).random((40, 36)) < 0.004] = 2
    rule = CloudRule("mask", Numbers((1,)), unmeasured=Numbers((2,)))
    radius = data.draw(st.sampled_from([0.0, 60.0, 130.0]))
    layer = layer_of(folder / "clouds.tif", numbers, grid, radius, rule)
    zoom = data.draw(st.sampled_from([0.5, 1, 2]))
    side = Window(0, 0, int(40 / zoom), int(36 / zoom))
    fine = PixelGrid(side.height, side.width, transform @ Affine.scale(zoom), crs)
    row = data.draw(st.integers(0, side.height - 1))
    col = data.draw(st.integers(0, side.width - 1))
    window = Window(
        row, col, data.draw(st.integers(1, side.height - row)),
        data.draw(st.integers(1, side.width - col)),
    )  # fmt: skip
    reader = CloudReader(layer, fine)
    whole, part = reader.read(side), reader.read(window)
    reader.close()
    np.testing.assert_array_equal(part, whole[window.rows, window.cols])
    expected = Disk.of(grid, radius).dilated(numbers == 1) | (numbers == 2)
    rows, cols = (
        np.minimum(((np.arange(n) + 0.5) * zoom + 1e-6).astype(int), most - 1)
        for n, most in ((side.height, 40), (side.width, 36))
    )
    np.testing.assert_array_equal(whole, expected[rows][:, cols])


class TwoClasses(NumpyRuntime):
    """The class is the remainder of the first band's number: only the pixel itself counts."""

    def __init__(self) -> None:
        super().__init__(2)

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return np.floor(pixels[:, :1]) % 2 == np.arange(2)[None, :, None, None]


def scene_with(folder: Path, numbers: NDArray[np.uint8]) -> Path:
    value = stacitems.earth_search(folder)
    make_raster(folder / "SCL.tif", numbers[None], transform=stacitems.grid(20), nodata=0)
    return stacitems.save(folder, value)


def predict(source: Path, folder: Path, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    model = folder.parent / "model"
    if not model.exists():
        tiny_model(model, ("red", "swir1"), ("a", "b"), size=32, overlap=20)
    return geoseg.predict(
        source, folder / "map.tif", model=model, runtime=TwoClasses(), no_vector=True, **options
    )


def ids(result: Any) -> NDArray[Any]:
    with rasterio.open(result.raster) as dataset:
        found: NDArray[Any] = dataset.read(1)
        return found


def test_sixty_metres_around_clouds_are_nodata_and_none_around_gaps(tmp_path: Path) -> None:
    numbers = np.full((48, 48), 4, np.uint8)
    numbers[10, 12], numbers[40, 40] = 9, 1  # a cloud; a defective pixel
    source = scene_with(tmp_path, numbers)
    result = predict(source, tmp_path / "out")
    # Three pixels of 20 m, as a disk.
    down, across = np.mgrid[-10:38, -12:36]
    left_out = np.hypot(down, across) <= 3
    left_out[40, 40] = True
    wanted = left_out.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(ids(result) == 255, wanted)
    assert result.report["clouds"]["buffer_m"] == 60
    assert result.report["clouds"]["pixels"] == wanted.sum() == 4 * (29 + 1)


def test_parts_lanes_and_strips_have_the_clouds_of_the_whole(tmp_path: Path) -> None:
    """A cloud beyond the part's end reaches into it."""
    numbers = np.full((48, 48), 4, np.uint8)
    numbers[10, 12] = numbers[14, 30] = numbers[41, 3] = 9
    source = scene_with(tmp_path, numbers)
    whole = predict(source, tmp_path / "whole")
    west, north = 5e5 + 10 * 28, 5e6 - 10 * 24  # the clouds end at column 26 and row 22
    part = predict(source, tmp_path / "part", bbox=(west, north - 500, west + 500, north))
    found = ids(part)
    np.testing.assert_array_equal(found, ids(whole)[24:74, 28:78])
    assert part.report["clouds"]["pixels"] == (found == 255).sum() > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "lanes", lambda self, limit: self._lanes(3))
        lanes = predict(source, tmp_path / "lanes", size=16, overlap=4)
    np.testing.assert_array_equal(ids(lanes), ids(whole))
    assert lanes.report["clouds"] == whole.report["clouds"]


def test_a_stopped_run_does_not_go_on_with_another_buffer(tmp_path: Path) -> None:
    class Stops(TwoClasses):
        def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
            if len(self.batches) > 24:
                raise KeyboardInterrupt
            return super().answer(pixels)

    source = scene_with(tmp_path, np.full((48, 48), 4, np.uint8))
    model = tiny_model(tmp_path / "model", ("red", "swir1"), ("a", "b"), size=32, overlap=20)
    with pytest.raises(KeyboardInterrupt):
        geoseg.predict(source, tmp_path / "x.tif", model=model, runtime=Stops(), no_vector=True)
    with pytest.raises(geoseg.errors.OutputError, match=r"cloud_buffer was 60.*--restart"):
        geoseg.predict(
            source, tmp_path / "x.tif", model=model, runtime=TwoClasses(), no_vector=True,
            cloud_buffer=0,
        )  # fmt: skip


def test_metres_that_nobody_knows_or_that_are_none_are_refused(tmp_path: Path) -> None:
    for wrong in (-1, math.nan, math.inf, 1e5):
        with pytest.raises(UsageError, match="cloud buffer is"):
            PredictOptions(cloud_buffer=wrong)
    grid = PixelGrid(8, 8, Affine(20, 0, 0, 0, -20, 0), None)
    numbers, rule = np.zeros((8, 8), np.uint8), CloudRule("mask", Numbers((1,)))
    layer = layer_of(tmp_path / "clouds.tif", numbers, grid, 60, rule)
    with pytest.raises(SceneError, match=r"no CRS that gives metres; give --cloud-buffer 0"):
        CloudReader(layer, grid)
    # The advice works.
    reader = CloudReader(layer_of(tmp_path / "clouds.tif", numbers, grid, 0, rule), grid)
    assert not reader.read(Window(0, 0, 8, 8)).any()
