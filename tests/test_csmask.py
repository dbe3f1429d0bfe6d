"""Clouds by a network, at 30 m: the same in every part of a scene; most with a tiny one."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from affine import Affine
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import geoseg
from geoseg.core.importing import EXTRAS
from geoseg.errors import BandError, MissingExtraError, UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction import csmask
from geoseg.prediction.csmask import BANDS, INNER, MARGIN, SIDE
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.scene_clouds import open_with_clouds
from geoseg.prediction.scene_info import scene_info
from geoseg.scene.cloud_reader import CloudReader
from geoseg.scene.reader import SceneReader
from geoseg.scene.scene import FoundClouds
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime
from tests.stacitems import earth_search, grid, save

DATA = Path(__file__).parents[2] / "shared" / "data"
#: Of the tiny network: reflectance that is cloud, which grows along a chip's rows and columns, so
#: that an answer tells where in its chip a pixel lies.
RAMP = (0.3 + 0.1 * np.add.outer(np.arange(SIDE), np.arange(SIDE)) / SIDE).astype(np.float32)
MEAN, SPREAD = 0.25, 0.5


@pytest.fixture()
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the name, whose network calls blue above the ramp cloud, and red too shadow."""
    folder = tmp_path / "site" / "ukis_csmask"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('__version__ = "1.0.0"\n', encoding="utf-8")
    shape = ["n", 6, SIDE, SIDE]
    weights = np.zeros((3, 6, 1, 1), np.float32)
    weights[1, 0] = weights[2, 2] = SPREAD
    bias = np.stack([np.zeros_like(RAMP), MEAN - RAMP, MEAN - RAMP])[None]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "weights"], ["seen"]),
            helper.make_node("Add", ["seen", "bias"], ["output"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model_6b_l1c.onnx")
    about = {"data": {"dataset_statistics": {"img": [[MEAN] * 6, [SPREAD] * 6]}}}
    (folder / "model_6b_l1c.json").write_text(json.dumps(about), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder.parent))
    sys.modules.pop("ukis_csmask", None)
    importlib.invalidate_caches()
    yield folder
    sys.modules.pop("ukis_csmask", None)


def scene_of(
    path: Path, height: int, width: int, metres: float = 10, seed: int = 0, at: Any = None
) -> Path:
    """Noise of 0 to 0.6 that is alike over some pixels, so that at 30 m some of it is left."""
    random = np.random.default_rng(seed)
    coarse = random.integers(1, 6000, (6, height // 4 + 1, width // 4 + 1))
    values = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width].astype(np.uint16)
    values[:, 3:9, 5:20] = 0
    return make_raster(
        path, values, transform=at or grid(metres), descriptions=BANDS, nodata=0,
        scales=[1e-4] * 6, offsets=[0] * 6,
    )  # fmt: skip


def found_in(scene: Path, **options: Any) -> FoundClouds:
    found = open_with_clouds(scene, PredictOptions(**{"clouds": "csmask", **options})).clouds
    assert isinstance(found, FoundClouds)
    return found


def whole(pixels: PixelGrid) -> Window:
    return Window(0, 0, pixels.height, pixels.width)


@pytest.mark.parametrize("metres", [10, 20, 30])
def test_the_network_sees_reflectance_at_30_m_in_chips_of_the_world_s_grid(
    package: Path, tmp_path: Path, metres: float
) -> None:
    scene = scene_of(tmp_path / "scene.tif", 7000 // int(metres), 6400 // int(metres), metres)
    clouds = found_in(scene)
    assert clouds.grid.gsd is not None and 29 < clouds.grid.gsd[0] < 31
    opened = open_with_clouds(scene, PredictOptions(clouds="none"))
    with SceneReader(opened.choose(BANDS), clouds.grid) as reader:
        numbers, valid = reader.read(whole(clouds.grid))
    row, col = (np.arange(n) for n in (clouds.grid.height, clouds.grid.width))
    top, left = clouds.about[1]
    limit = RAMP[(row + top) % INNER + MARGIN][:, (col + left) % INNER + MARGIN]
    expected = (numbers[0] * 1e-4 > limit) | (numbers[2] * 1e-4 > limit)
    with clouds.finder() as find:
        answer = find(whole(clouds.grid))
        # One number in thousands lies on the ramp itself.
        assert (answer != expected)[valid].mean() < 1e-3
        assert 0.2 < answer.mean() < 0.8
        for window in (Window(0, 0, 1, 1), Window(150, 100, 70, 60), Window(31, 8, 5, 190)):
            np.testing.assert_array_equal(find(window), answer[window.rows, window.cols])


def test_a_part_of_the_ground_has_the_answers_of_the_whole(package: Path, tmp_path: Path) -> None:
    """Of a file that was cut out of a scene, anywhere; and with --bbox."""
    scene = scene_of(tmp_path / "scene.tif", 720, 700)
    values = geoseg_read(scene)
    part = make_raster(
        tmp_path / "part.tif", values[:, 101:613, 77:555], descriptions=BANDS, nodata=0,
        transform=grid(10) @ Affine.translation(77, 101), scales=[1e-4] * 6, offsets=[0] * 6,
    )  # fmt: skip
    left_out = []
    for file in (scene, part):
        opened = open_with_clouds(file, PredictOptions(clouds="csmask", cloud_buffer=0))
        assert opened.clouds is not None
        reader = CloudReader(opened.clouds, opened.grid)
        left_out.append(reader.read(whole(opened.grid)))
        reader.close()
    inner = np.s_[3:-3, 3:-3]  # pixels of 30 m that both hold
    np.testing.assert_array_equal(left_out[1][inner], left_out[0][101:613, 77:555][inner])
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"), size=128, overlap=8)
    given: dict[str, Any] = {
        "model": model, "clouds": "csmask", "no_vector": True, "cloud_buffer": 0,
    }  # fmt: skip
    result = geoseg.predict(scene, tmp_path / "map.tif", runtime=Same(), **given)
    np.testing.assert_array_equal(geoseg_read(result.raster)[0][20:] == 255, left_out[0][20:])
    assert result.report["clouds"]["layer"] == "the network of ukis-csmask at 30 m"
    assert result.report["clouds"]["source"].startswith("ukis-csmask 1.")
    box = (500000 + 3000, 5000000 - 6000, 500000 + 5500, 5000000 - 2500)
    cut = geoseg.predict(scene, tmp_path / "cut.tif", runtime=Same(), bbox=box, **given)
    np.testing.assert_array_equal(geoseg_read(cut.raster)[0] == 255, left_out[0][250:600, 300:550])


class Same(NumpyRuntime):
    """Says one class of everything."""

    def __init__(self) -> None:
        super().__init__(2)

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return np.stack([np.ones_like(pixels[:, 0]), np.zeros_like(pixels[:, 0])], axis=1)


def geoseg_read(path: Path) -> NDArray[Any]:
    import rasterio

    with rasterio.open(path) as dataset:
        found: NDArray[Any] = dataset.read()
        return found


def test_each_chip_is_computed_once_for_all_readers(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scene_of(tmp_path / "scene.tif", 400, 400, 30)
    asked: list[Window] = []
    answer = csmask._Csmask._answer
    monkeypatch.setattr(
        csmask._Csmask, "_answer",
        lambda self, reader, square: [asked.append(square), answer(self, reader, square)][1],
    )  # fmt: skip
    clouds = found_in(scene)
    for _ in range(2):
        with clouds.finder() as find:
            first = find(whole(clouds.grid))
    assert len(asked) == len(set(asked)) <= 16
    # What is no longer kept is computed again, to the same.
    monkeypatch.setattr(csmask, "MOST_KEPT", 1)
    clouds = found_in(scene)
    asked.clear()
    with clouds.finder() as find:
        for _ in range(2):
            np.testing.assert_array_equal(find(whole(clouds.grid)), first)
    assert len(asked) > len(set(asked))


def test_auto_takes_it_where_a_scene_has_no_layer_and_is_one_for_it(
    package: Path, tmp_path: Path
) -> None:
    def layer(scene: Path, **options: Any) -> str | None:
        clouds = open_with_clouds(scene, PredictOptions(**options)).clouds
        return None if clouds is None else clouds.name

    large = scene_of(tmp_path / "large.tif", SIDE, SIDE, 30)
    assert layer(large) == "the network of ukis-csmask at 30 m"
    assert layer(large, clouds="none") is None
    item = save(tmp_path, earth_search(tmp_path))
    assert layer(item) == "Sentinel-2 scene classification (SCL)"
    assert layer(item, clouds="csmask") == "the network of ukis-csmask at 30 m"
    small = scene_of(tmp_path / "small.tif", 90, 90, 30)
    assert layer(small) is None
    assert layer(small, clouds="csmask") == "the network of ukis-csmask at 30 m"
    three = make_raster(tmp_path / "three.tif", np.ones((3, 300, 300), np.uint8))
    assert layer(three) is None
    assert layer(scene_of(tmp_path / "coarse.tif", 300, 300, 100)) is None
    told = scene_info(large, models=["landcover-ms"])
    assert told["clouds"]["layer"] == "the network of ukis-csmask at 30 m"
    assert told["models"][0]["fits"]


def test_what_csmask_does_not_take_is_refused_before_any_work(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = make_raster(tmp_path / "three.tif", np.ones((3, 40, 40), np.uint8))
    with pytest.raises(BandError, match=r"--clouds csmask: .*--clouds FILE or none"):
        found_in(three)
    with pytest.raises(UsageError, match="pixels is 100 m, and the network takes up to 33 m"):
        found_in(scene_of(tmp_path / "coarse.tif", 40, 40, 100))
    scene = scene_of(tmp_path / "scene.tif", 40, 40)
    (package / "model_6b_l1c.json").unlink()
    with pytest.raises(MissingExtraError, match=r"has no model_6b_l1c\.onnx.*ukis-csmask==1.0.0"):
        found_in(scene)
    monkeypatch.setitem(EXTRAS, "clouds", ("geoseg_test_package",))
    with pytest.raises(MissingExtraError, match=r"pip install 'geoseg\[clouds\]'"):
        found_in(scene)
    assert open_with_clouds(scene_of(scene, 300, 300, 30), PredictOptions()).clouds is None


def as_scene(path: Path, reflectance: NDArray[Any], metres: float = 30) -> Path:
    values = np.clip(np.round(reflectance * 1e4), 1, 65535).astype(np.uint16)
    return make_raster(
        path, values, transform=grid(metres), descriptions=BANDS, scales=[1e-4] * 6,
        offsets=[0] * 6,
    )  # fmt: skip


@pytest.mark.extra("clouds")
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real scenes are not here")
def test_real_clouds_are_found_and_real_ground_is_not_taken_for_them(tmp_path: Path) -> None:
    def left_out(reflectance: NDArray[Any], metres: float = 30) -> NDArray[np.bool_]:
        found = found_in(as_scene(tmp_path / "scene.tif", reflectance, metres))
        with found.finder() as find:
            return find(whole(found.grid))

    labelled = np.load(DATA / "labelled" / "csmask" / "landsat5.npz")
    found = left_out(np.moveaxis(labelled["img"], -1, 0))
    seen = np.isin(labelled["msk"][..., 0], (0, 4))  # shadow, cloud
    assert (found & seen).sum() / (found | seen).sum() > 0.75
    for name in ("oli_bengaluru", "hls_texas_brush", "oli_rondonia_2019"):
        bands = geoseg_read(DATA / "imagery" / "six" / f"{name}.tif") / 1e4
        assert left_out(bands).mean() < 0.01, name
    # At 10 m, and on polar rock that the package's network for surface reflectance errs on.
    nine = geoseg_read(DATA / "sentinel2" / "scenes" / "s2100k_445.tif") / 1e4
    assert left_out(nine[[0, 1, 2, 6, 7, 8]], 10).mean() < 0.01
