"""Clouds that a scene's own layer shows are left out: pixel by pixel, however it is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import geoseg
from geoseg.errors import SceneError, UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.dry_run import dry_run
from geoseg.prediction.plan import Plan
from geoseg.scene.clouds import LAYERS, rule_of
from geoseg.scene.item import parse_item
from geoseg.scene.opening import open_scene
from geoseg.scene.reader import SceneReader
from geoseg.scene.sensors import SENSORS
from tests import forked, stacitems
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime
from tests.stacitems import earth_search, save

#: Of the Sentinel-2 scene classification: no data, defective, shadow, clouds, cirrus.
SCL_OUT = (0, 1, 3, 8, 9, 10)


class ThreeClasses(NumpyRuntime):
    """The class is the remainder of the first band's number: only the pixel itself counts."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__(3)
        self.after = after

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        if self.after is not None and len(self.batches) > self.after:
            raise KeyboardInterrupt
        return np.floor(pixels[:, :1]) % 3 == np.arange(3)[None, :, None, None]


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", ("red", "swir1"), ("a", "b", "c"), size=32, overlap=20)


def predict(
    source: Any, folder: Path, model: Path, after: int | None = None, **options: Any
) -> Any:
    folder.mkdir(exist_ok=True)
    runtime = ThreeClasses(after)
    options = {"cloud_buffer": 0, **options}
    return geoseg.predict(
        source, folder / "map.tif", model=model, runtime=runtime, overwrite=True,
        vector=folder / "map.parquet", **options,
    )  # fmt: skip


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        found: NDArray[Any] = dataset.read(1)
        return found


def expected(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The map of an Earth Search item by numpy alone, and where it is cloud."""
    clouds = np.isin(read(folder / "SCL.tif"), SCL_OUT).repeat(2, axis=0).repeat(2, axis=1)
    return np.where(clouds, 255, read(folder / "B04.tif") % 3).astype(np.uint8), clouds


def test_clouds_are_nodata_pixel_by_pixel(tmp_path: Path, model: Path) -> None:
    """A layer of 20 m on bands of 10 m."""
    source = save(tmp_path, earth_search(tmp_path))
    wanted, clouds = expected(tmp_path)
    assert 0.2 < clouds.mean() < 0.8
    notes: list[str] = []
    result = predict(
        source, tmp_path / "out", model,
        progress=lambda e: notes.append(e["message"]) if e["event"] == "note" else None,
    )  # fmt: skip
    np.testing.assert_array_equal(read(result.raster), wanted)
    assert result.report["clouds"] == {
        "layer": "Sentinel-2 scene classification (SCL)",
        "source": "scl",
        "buffer_m": 0,
        "pixels": int(clouds.sum()),
        "share": clouds.mean(),
    }
    assert any(f"{clouds.mean():.1%} of the measured pixels are left out" in n for n in notes)
    assert result.report["pixels"]["nodata"] == clouds.sum()
    mapped = predict(source, tmp_path / "all", model, clouds="none")
    np.testing.assert_array_equal(read(mapped.raster), read(tmp_path / "B04.tif") % 3)
    assert mapped.report["clouds"] is None


def test_lanes_and_strips_change_nothing(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path, earth_search(tmp_path))
    whole = predict(source, tmp_path / "whole", model, size=64, overlap=8)
    for count, size, overlap in ((1, 32, 20), (2, 32, 8), (3, 16, 12), (100, 16, 4)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Plan, "lanes", lambda self, limit, n=count: self._lanes(n))
            other = predict(source, tmp_path / "other", model, size=size, overlap=overlap)
        assert other.report["memory"]["lanes"] >= min(count, 3)
        np.testing.assert_array_equal(read(other.raster), read(whole.raster))
        assert other.report["clouds"] == whole.report["clouds"]
        vectors = (tmp_path / name / "map.parquet" for name in ("whole", "other"))
        assert len({path.read_bytes() for path in vectors}) == 1


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    tmp_path: Path, model: Path, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "lanes", lambda self, limit: self._lanes(lanes))
    source = save(tmp_path, earth_search(tmp_path))
    whole = predict(source, tmp_path / "whole", model)
    chips = whole.report["chips"]["run"]
    for after in (chips // 4, chips // 2, chips - 2):
        folder = tmp_path / f"stopped{after}"
        with pytest.raises(KeyboardInterrupt):
            predict(source, folder, model, after)
        with suppress(KeyboardInterrupt):
            predict(source, folder, model, chips // 3)
        again = predict(source, folder, model)
        assert again.report["clouds"] == whole.report["clouds"]
        for name in ("map.tif", "map.parquet"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_stopped_run_does_not_go_on_with_other_clouds(tmp_path: Path, model: Path) -> None:
    value = earth_search(tmp_path)
    source = save(tmp_path, value)
    with pytest.raises(KeyboardInterrupt):
        predict(source, tmp_path / "out", model, 24)
    with pytest.raises(geoseg.errors.OutputError, match="--restart"):
        predict(source, tmp_path / "out", model, clouds="none")
    stacitems.scl_file(tmp_path / "SCL.tif")  # another file of the same
    with pytest.raises(geoseg.errors.OutputError, match="--restart"):
        predict(source, tmp_path / "out", model)
    # An item that only says something else, and is no file.
    value |= {"id": "a", "collection": None, "properties": {}}
    scl = value["assets"]["scl"]
    scl["classification:classes"] = [{"value": 8, "name": "cloud"}]
    href = str(tmp_path / "none.json")
    with pytest.raises(KeyboardInterrupt):
        predict(parse_item(value, href), tmp_path / "other", model, 24)
    scl["classification:classes"][0]["value"] = 9
    with pytest.raises(geoseg.errors.OutputError, match="clouds read"):
        predict(parse_item(value, href), tmp_path / "other", model)


@pytest.mark.parametrize("gsd", [25.0, 4.0])
def test_a_resampled_scene_has_its_clouds(tmp_path: Path, gsd: float) -> None:
    """The network sees another grid; the map is on the scene's own."""
    model = tiny_model(
        tmp_path / "model", ("red", "swir1"), ("a", "b", "c"),
        size=16, overlap=8, gsd=gsd, gsd_range=(gsd * 0.9, gsd * 1.1),
    )  # fmt: skip
    source = save(tmp_path, earth_search(tmp_path))
    _, clouds = expected(tmp_path)
    result = predict(source, tmp_path / "out", model)
    assert result.report["model_grid"]["resampled"]
    np.testing.assert_array_equal(read(result.raster) == 255, clouds)
    assert result.report["clouds"]["pixels"] == clouds.sum()


def test_a_part_of_a_scene_has_its_clouds(tmp_path: Path, model: Path) -> None:
    """A bbox that begins within a pixel of the layer; what lies outside of it is not counted."""
    source = save(tmp_path, earth_search(tmp_path))
    wanted, clouds = expected(tmp_path)
    west, north, south = 500000 + 10 * 13, 5000000 - 10 * 7, 5000000 - 10 * 60
    box = (west, south, west + 10 * 50, north)
    result = predict(source, tmp_path / "out", model, bbox=box)
    part = np.s_[7:60, 13:63]
    np.testing.assert_array_equal(read(result.raster), wanted[part])
    assert result.report["clouds"]["pixels"] == clouds[part].sum()


def test_what_was_not_measured_is_not_cloud(tmp_path: Path, model: Path) -> None:
    value = earth_search(tmp_path)
    for code in ("B04", "B11"):
        with rasterio.open(tmp_path / f"{code}.tif", "r+") as dataset:
            band = dataset.read()
            band[:, : band.shape[1] // 2] = 0
            dataset.write(band)
    _, clouds = expected(tmp_path)
    report = predict(save(tmp_path, value), tmp_path / "out", model).report["clouds"]
    measured = clouds[48:]
    assert report["pixels"] == measured.sum() and report["share"] == measured.mean()


def test_a_scene_of_clouds_alone_is_said(tmp_path: Path, model: Path) -> None:
    value = earth_search(tmp_path)
    full = np.full((1, 48, 48), 9, np.uint8)
    make_raster(tmp_path / "SCL.tif", full, transform=stacitems.grid(20), nodata=0)
    with pytest.raises(SceneError, match=r"all 9216 measured pixels are clouds .*--clouds none"):
        predict(save(tmp_path, value), tmp_path / "out", model)


def test_a_layer_that_is_missing_or_wrong_is_said(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path, earth_search(tmp_path))
    small = np.ones((1, 10, 10), np.uint8)
    make_raster(tmp_path / "SCL.tif", small, transform=stacitems.grid(20))
    with pytest.raises(SceneError, match=r"cloud layer does not fit .*--clouds none"):
        predict(source, tmp_path / "out", model)
    make_raster(tmp_path / "SCL.tif", small.astype(np.float32), transform=stacitems.grid(20))
    with pytest.raises(SceneError, match="a cloud layer has whole numbers"):
        open_scene(source)
    (tmp_path / "SCL.tif").unlink()
    with pytest.raises(SceneError, match="no such file"):
        open_scene(source)
    assert open_scene(source, clouds="none").clouds is None
    with pytest.raises(UsageError, match=r"--clouds all: there is no such file.*auto, none"):
        predict(source, tmp_path / "out", model, clouds="all")


def test_a_dry_run_skips_chips_of_clouds(tmp_path: Path, model: Path) -> None:
    value = earth_search(tmp_path)
    layer = np.full((1, 48, 48), 4, np.uint8)
    layer[:, 20:] = 8
    make_raster(tmp_path / "SCL.tif", layer, transform=stacitems.grid(20), nodata=0)
    source = save(tmp_path, value)
    out = str(tmp_path / "x.tif")
    assert dry_run(source, out, model=model, no_vector=True, cloud_buffer=0).skipped > 0
    assert dry_run(source, out, model=model, no_vector=True, clouds="none").skipped == 0


def test_a_sparse_scene_is_read_for_its_clouds(tmp_path: Path, model: Path) -> None:
    """Rows of which the file holds no block, and whose 0 is a number."""
    value = earth_search(tmp_path)
    for key, code in (("red", "B04"), ("swir16", "B11")):
        make_raster(
            tmp_path / f"{code}.tif", np.zeros((1, 96, 96), np.uint16),
            transform=stacitems.grid(10), sparse_ok=True, blockysize=16,
        )  # fmt: skip
        value["assets"][key]["raster:bands"] = []
        value["assets"][key]["href"] = f"./{code}.tif"
    value |= {"id": "a", "collection": None}
    value["properties"] = {"platform": "landsat-8"}
    fields = [{"name": "cloud", "offset": 1, "length": 1}]
    value["assets"]["scl"]["classification:bitfields"] = fields
    layer = read(tmp_path / "SCL.tif")
    result = predict(save(tmp_path, value), tmp_path / "out", model)
    clouds = ((layer & 2) != 0).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(read(result.raster) == 255, clouds)
    assert result.report["clouds"]["layer"] == "classes of scl"


# The layers of other products


@pytest.mark.parametrize(
    ("make", "file", "out"),
    [
        (stacitems.planetary_landsat, "QA_PIXEL.tif", lambda n: (n & 0b11111) != 0),
        (lambda folder: stacitems.hls(folder, "L30"), "Fmask.tif", lambda n: (n & 0b1111) != 0),
        (lambda folder: stacitems.hls(folder, "S30"), "Fmask.tif", lambda n: (n & 0b1111) != 0),
        (stacitems.planetary_sentinel2, "SCL.tif", lambda n: np.isin(n, SCL_OUT)),
        (stacitems.stac11, "SCL_20m.tif", lambda n: np.isin(n, SCL_OUT)),
    ],
)
def test_layers_of_archives(
    tmp_path: Path, make: Callable[[Path], dict[str, Any]], file: str, out: Callable[[Any], Any]
) -> None:
    scene = open_scene(save(tmp_path, make(tmp_path)))
    assert scene.clouds is not None and Path(scene.clouds.band.path).name == file
    bands = scene.choose(("red", "swir1"))
    with SceneReader(bands, scene.grid, clouds=scene.clouds) as reader:
        _, valid = reader.read(Window(0, 0, scene.grid.height, scene.grid.width))
        left_out = reader.left_out()
    clouds = out(read(tmp_path / file))
    factor = scene.grid.height // len(clouds)
    wanted = clouds.repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(~valid, wanted)
    np.testing.assert_array_equal(left_out, wanted)


def test_snow_and_water_stay() -> None:
    found = {key: rule for (key, _), rule in LAYERS.items()}
    assert not np.any(found["scl"].left_out(np.array([2, 4, 5, 6, 7, 11])))
    ground = np.array([1 << 5, 1 << 6, 1 << 7, 21824 & ~31])
    assert not np.any(found["qa_pixel"].left_out(ground))
    assert not np.any(found["fmask"].left_out(np.array([16, 32, 64, 128, 224])))


def test_what_is_no_cloud_is_told_from_clouds() -> None:
    """Which are widened; a number of fill has all bits of HLS, and any in Landsat."""
    for (key, _), numbers, clouds, others in (
        (("scl", ""), [0, 1, 3, 8, 9, 10], [0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]),
        (("qa_pixel", ""), [1, 2, 4, 8, 16, 9], [0, 0, 1, 1, 1, 0], [1, 1, 0, 0, 0, 1]),
        (("fmask", ""), [1, 2, 4, 8, 255], [1, 1, 0, 1, 0], [0, 0, 1, 0, 1]),
    ):
        rule = next(rule for (name, _), rule in LAYERS.items() if name == key)
        found = rule.left_out(np.array(numbers, np.uint16))
        np.testing.assert_array_equal(found, np.array([clouds, others], bool))


def test_a_layer_of_another_sensor_is_not_taken_for_one_that_is_known() -> None:
    sensors = {s.name: s for s in SENSORS}
    assert rule_of("fmask", sensors["Sentinel-2"]) is None  # whose numbers differ between tools
    assert rule_of("SCL", None) is None
    assert rule_of("scl-jp2", sensors["Sentinel-2"]) is LAYERS["scl", "Sentinel-2"]
    assert rule_of("QA_PIXEL", sensors["Landsat 4-7 level 2"]) is LAYERS["qa_pixel", "Landsat"]


def test_names_of_classes_make_a_rule() -> None:
    def numbers(name: str, *said: dict[int, str] | None) -> list[tuple[int, ...]]:
        rule = rule_of(name, None, *said)
        assert rule is not None
        return [(*kind.values, *kind.bits) for kind in (rule.clouds, rule.rim, rule.unmeasured)]

    names = {0: "nodata", 1: "valid", 2: "cloud", 3: "cloud_shadow", 4: "snow", 5: "water"}
    assert numbers("oa_fmask", names) == [(2, 3), (), (0,)]
    names = {1: "clear", 2: "cloud_low_probability", 3: "thin_cirrus_cloud", 4: "cast_shadows"}
    assert numbers("mask", names) == [(3,), (), ()]
    assert rule_of("landcover", None, {1: "water", 2: "shadow"}) is None
    assert rule_of("mask", None, {1: "no_cloud", 2: "cloud_free"}) is None
    bits = dict(enumerate(stacitems.QA_BITS))
    assert numbers("qa", None, bits) == [(2, 3, 4), (1,), (0,)]


# However it is read


@given(data=st.data())
def test_a_pixel_has_the_same_clouds_in_whichever_window(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Against the layer's number at each pixel's centre, found one by one."""
    folder = tmp_path_factory.getbasetemp() / "windows"
    folder.mkdir(exist_ok=True)
    source = folder / "item.json"
    if not source.exists():
        value = earth_search(folder)
        noise = np.random.default_rng(2).integers(0, 12, (1, 48, 48)).astype(np.uint8)
        make_raster(folder / "SCL.tif", noise, transform=stacitems.grid(20), nodata=0)
        save(folder, value)
    scene = open_scene(source)
    assert scene.clouds is not None
    zoom = data.draw(st.sampled_from([0.5, 1.0, 1.7, 2.0, 3.0, 4.0]))
    east = data.draw(st.sampled_from([0.0, 0.25, 4.0]))
    moved = scene.grid.transform @ Affine.translation(east, 0) @ Affine.scale(zoom)
    side = int(80 / zoom)
    grid = PixelGrid(side, side, moved, scene.grid.crs)
    row, col = data.draw(st.integers(0, side - 1)), data.draw(st.integers(0, side - 1))
    height = data.draw(st.integers(1, side - row))
    width = data.draw(st.integers(1, side - col))
    window = Window(row, col, height, width)
    with SceneReader(scene.choose(("red",)), grid, clouds=scene.clouds) as reader:
        reader.read(window)
        found = reader.left_out()
    layer = read(folder / "SCL.tif")
    for i in range(0, height, 3):
        for j in range(0, width, 3):
            x, y = moved @ (col + j + 0.5, row + i + 0.5)
            number = layer[int((5000000 - y + 1e-4) // 20), int((x - 500000 + 1e-4) // 20)]
            assert found is not None
            assert found[i, j] == (number in SCL_OUT)


def test_a_layer_in_another_crs(tmp_path: Path) -> None:
    """Of the neighbouring zone; its numbers are those at the pixels' centres."""
    from rasterio.warp import transform

    source = save(tmp_path, earth_search(tmp_path))
    x, y = transform("EPSG:32633", "EPSG:32634", [500500], [4999500])
    grid = PixelGrid(300, 300, Affine(20, 0, x[0] - 3000, 0, -20, y[0] + 3000), None)
    layer = np.random.default_rng(1).integers(0, 12, (1, 300, 300)).astype(np.uint8)
    make_raster(tmp_path / "SCL.tif", layer, crs="EPSG:32634", transform=grid.transform)
    scene = open_scene(source)
    with SceneReader(scene.choose(("red",)), scene.grid, clouds=scene.clouds) as reader:
        reader.read(Window(10, 20, 60, 50))
        found = reader.left_out()
    rows, cols = np.mgrid[10:70, 20:70] + 0.5
    xs, ys = transform(
        "EPSG:32633", "EPSG:32634", (500000 + 10 * cols).ravel(), (5000000 - 10 * rows).ravel()
    )
    at = [~grid.transform @ point for point in zip(xs, ys, strict=True)]
    assert all(0 <= c < 300 and 0 <= r < 300 for c, r in at)
    wanted = [layer[0, int(r), int(c)] in SCL_OUT for c, r in at]
    assert found is not None
    np.testing.assert_array_equal(found.ravel(), wanted)
    # One that ends within the scene says nothing of the rest.
    moved = grid.transform @ Affine.translation(140, 0)
    make_raster(tmp_path / "SCL.tif", layer, crs="EPSG:32634", transform=moved)
    scene = open_scene(source)
    with pytest.raises(SceneError, match=r"covers only part of the scene.*--clouds none"):
        SceneReader(scene.choose(("red",)), scene.grid, clouds=scene.clouds)


def test_the_command_line_says_clouds(tmp_path: Path, model: Path) -> None:
    save(tmp_path, earth_search(tmp_path))

    def geoseg_command(*args: str) -> str:
        command = [sys.executable, "-m", "geoseg", *args, "-m", "model"]
        done = forked.run(command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = geoseg_command("info", "item.json", "--asset", "red,swir16")
    assert "Sentinel-2 scene classification (SCL): scl" in shown
    geoseg_command(
        "predict", "item.json", "-o", "x.tif", "--no-vector", "--asset", "red", "--asset", "swir16",
        "--cloud-buffer", "0",
    )  # fmt: skip
    report = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert report["options"]["assets"] == ["red", "swir16"]
    assert report["clouds"]["pixels"] == expected(tmp_path)[1].sum()
