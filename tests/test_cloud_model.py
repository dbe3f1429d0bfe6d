"""Clouds by a model of geoseg's own form: the embedded clouds-ms, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

import geoseg
from geoseg.errors import BandError, UsageError
from geoseg.geo.window import Window
from geoseg.prediction import cloud_model
from geoseg.prediction.cloud_doubts import cloud_warnings
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.scene_clouds import open_with_clouds
from geoseg.scene.cloud_reader import CloudReader
from geoseg.scene.reader import SceneReader
from geoseg.scene.scene import FoundClouds
from geoseg.zoo import ZOO, choose_model, find_model, list_embedded, list_maps
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime
from tests.stacitems import grid

DATA = Path(__file__).parents[2] / "shared" / "data"
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
SIDE, MARGIN = 64, 8
INNER = SIDE - 2 * MARGIN


def scene_of(path: Path, height: int, width: int, metres: float = 20, **how: Any) -> Path:
    """Noise that is alike over some pixels."""
    coarse = np.random.default_rng(0).integers(1, 6000, (6, height // 4 + 1, width // 4 + 1))
    values = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width].astype(np.uint16)
    values[:, 3:9, 5:20] = 0
    given = {"transform": grid(metres), "descriptions": BANDS, "nodata": 0}
    return make_raster(path, values, **{**given, "scales": [1e-4] * 6, "offsets": [0] * 6, **how})


def clouds_folder(path: Path, **card: Any) -> Path:
    """A model of clouds, of a network that sees a pixel alone."""
    given: dict[str, Any] = {
        "clouds": ("haze", "shade"), "quantity": "reflectance", "size": SIDE, "gsd": 20.0,
        "overlap": 2 * MARGIN, "margin": MARGIN, "gsd_range": (18.0, 36.0),
    }  # fmt: skip
    return tiny_model(path, BANDS, ("clear", "haze", "shade"), **{**given, **card})


class Ramp(NumpyRuntime):
    """Calls haze where blue is above a ramp over the chip, so that an answer tells its place."""

    def __init__(self, radiometry: Any) -> None:
        super().__init__(3)
        self.gain, self.bias = radiometry.gain[0], radiometry.bias[0]

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        # What lies beyond the scene, or was not measured, looks like what lies nearest.
        assert pixels.min() >= 1
        haze = (pixels[:, 0] * self.gain + self.bias > RAMP).astype(np.float32)
        return np.stack([1 - haze, 0.4 * haze, 0.6 * haze], axis=1)


RAMP = 0.2 + 0.2 * np.add.outer(np.arange(SIDE), np.arange(SIDE)) / SIDE


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cloud_model, "load_runtime", lambda files, meaning, **how: Ramp(meaning))
    return clouds_folder(tmp_path / "clouds")


def found_in(scene: Path, model: Path | str) -> FoundClouds:
    found = open_with_clouds(scene, PredictOptions(clouds=model)).clouds
    assert isinstance(found, FoundClouds)
    return found


@pytest.mark.parametrize("metres", [10, 20, 30])
def test_the_model_sees_its_gsd_in_chips_of_the_world_s_grid(
    folder: Path, tmp_path: Path, metres: int
) -> None:
    scene = scene_of(tmp_path / "scene.tif", 4000 // metres, 3600 // metres, metres)
    clouds = found_in(scene, folder)
    assert clouds.grid.gsd is not None
    assert abs(clouds.grid.gsd[0] - max(metres, 20)) < 0.1
    opened = open_with_clouds(scene, PredictOptions(clouds="none"))
    with SceneReader(opened.choose(BANDS), clouds.grid) as reader:
        everything = Window(0, 0, clouds.grid.height, clouds.grid.width)
        numbers, valid = reader.read(everything)
    row, col = (np.arange(n) for n in (clouds.grid.height, clouds.grid.width))
    top, left = clouds.about[1]
    limit = RAMP[(row + top) % INNER + MARGIN][:, (col + left) % INNER + MARGIN]
    with clouds.finder() as find:
        answer = find(everything)
        np.testing.assert_array_equal(answer[valid], (numbers[0] * 1e-4 > limit)[valid])
        assert 0.2 < answer.mean() < 0.8
        for window in (Window(0, 0, 1, 1), Window(50, 40, 30, 60), Window(31, 8, 5, 90)):
            np.testing.assert_array_equal(find(window), answer[window.rows, window.cols])


def test_parts_lanes_and_cuts_have_the_clouds_of_the_whole(folder: Path, tmp_path: Path) -> None:
    scene = scene_of(tmp_path / "scene.tif", 400, 380, 10)
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"), size=64, overlap=8)
    given: dict[str, Any] = {"model": model, "clouds": folder, "cloud_buffer": 0}
    given |= {"no_vector": True}
    result = geoseg.predict(scene, tmp_path / "map.tif", runtime=Same(), **given)
    opened = open_with_clouds(scene, PredictOptions(clouds=folder, cloud_buffer=0))
    assert opened.clouds is not None
    reader = CloudReader(opened.clouds, opened.grid)
    left_out = reader.read(Window(0, 0, 400, 380))
    reader.close()
    left_out[3:9, 5:20] = True
    np.testing.assert_array_equal(read_all(result.raster)[0] == 255, left_out)
    assert result.report["clouds"]["layer"] == "the model clouds"
    assert result.report["clouds"]["source"] == "clouds, haze, shade"
    assert 0.1 < result.report["clouds"]["share"] < 0.9
    box = (500000 + 1000, 5000000 - 3000, 500000 + 2500, 5000000 - 500)
    cut = geoseg.predict(scene, tmp_path / "cut.tif", runtime=Same(), bbox=box, **given)
    np.testing.assert_array_equal(read_all(cut.raster)[0] == 255, left_out[50:300, 100:250])
    wider = geoseg.predict(
        scene, tmp_path / "wider.tif", runtime=Same(), **{**given, "cloud_buffer": 60}
    )
    more = read_all(wider.raster)[0] == 255
    assert more[left_out].all() and more.sum() > left_out.sum()
    # A file that was cut out of the scene.
    part = make_raster(
        tmp_path / "part.tif", read_all(scene)[:, 101:333, 77:301], descriptions=BANDS, nodata=0,
        transform=grid(10) @ Affine.translation(77, 101), scales=[1e-4] * 6, offsets=[0] * 6,
    )  # fmt: skip
    own = open_with_clouds(part, PredictOptions(clouds=folder, cloud_buffer=0))
    assert own.clouds is not None
    reader = CloudReader(own.clouds, own.grid)
    inner = np.s_[2:-2, 2:-2]  # pixels of 20 m that both hold
    seen = reader.read(Window(0, 0, 232, 224))
    reader.close()
    np.testing.assert_array_equal(seen[inner], left_out[101:333, 77:301][inner])


class Same(NumpyRuntime):
    """Says one class of everything."""

    def __init__(self) -> None:
        super().__init__(2)

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return np.stack([np.ones_like(pixels[:, 0]), np.zeros_like(pixels[:, 0])], axis=1)


def read_all(path: Path) -> NDArray[Any]:
    import rasterio

    with rasterio.open(path) as dataset:
        found: NDArray[Any] = dataset.read()
        return found


def test_what_a_model_does_not_take_is_refused_before_any_work(tmp_path: Path) -> None:
    folder = clouds_folder(tmp_path / "clouds")
    three = make_raster(tmp_path / "three.tif", np.ones((3, 40, 40), np.uint8))
    with pytest.raises(BandError, match=r"--clouds .*clouds: .*; or give --clouds FILE or none"):
        found_in(three, folder)
    coarse = scene_of(tmp_path / "coarse.tif", 40, 40, 100)
    with pytest.raises(UsageError, match="pixels is 100 m, and the model takes up to 36 m"):
        found_in(coarse, folder)
    scene = scene_of(tmp_path / "scene.tif", 40, 40)
    for name, clouds in (("nothing", None), ("ground", ())):
        other = clouds_folder(tmp_path / name, clouds=clouds)
        with pytest.raises(UsageError, match=r"names no classes that are clouds"):
            found_in(scene, other)


def cumulus(path: Path, share: float = 0.3) -> Path:
    """Woods under clouds that are laid as in training, at 20 m."""
    rng = np.random.default_rng(5)
    green = np.array([0.04, 0.06, 0.04, 0.35, 0.16, 0.07])[:, None, None]
    x = green * rng.uniform(0.9, 1.1, (6, 192, 192))
    white = np.zeros((192, 192), bool)
    for row, col in rng.integers(10, 182, (round(share * 60), 2)):
        radius = rng.integers(6, 14)
        far = np.hypot(*(np.indices(white.shape) - np.array([row, col])[:, None, None]))
        white |= far < radius
    cloud = np.array([0.6, 0.6, 0.61, 0.65, 0.5, 0.4])[:, None, None]
    x = np.where(white, cloud * rng.uniform(0.95, 1.05, x.shape), x)
    how = {"transform": grid(20), "descriptions": BANDS, "scales": [1e-4] * 6, "offsets": [0] * 6}
    return make_raster(path, (x * 1e4).astype(np.uint16), **how)


def test_a_scene_that_looks_cloudy_is_masked_where_the_map_has_no_clouds(tmp_path: Path) -> None:
    def planned(scene: Path, model: Path | str, **how: Any) -> Any:
        options = PredictOptions(model=model, output=tmp_path / "map.tif", no_vector=True, **how)
        plan = make_plan(scene, options)
        return plan, cloud_warnings(plan)

    def mapper(name: str, clouds: Any) -> Path:
        return tiny_model(
            tmp_path / name, BANDS, ("a", "b"), size=64, quantity="reflectance", clouds=clouds
        )

    cloudy, ground = cumulus(tmp_path / "cloudy.tif"), cumulus(tmp_path / "ground.tif", 0)
    blind, silent, sees = (
        mapper(name, clouds) for name, clouds in (("blind", ()), ("silent", None), ("sees", ("b",)))
    )
    plan, (line,) = planned(cloudy, blind)
    assert plan.scene.clouds.name == "the model clouds-ms" and plan.scene.clouds.buffer == 60
    assert "looks cloudy" in line and "clouds-ms" in line and "--clouds none" in line
    # Not where the scene is clear, the user says something, or the model sees clouds itself.
    assert planned(ground, blind)[0].scene.clouds is None
    assert planned(cloudy, blind, clouds="none")[0].scene.clouds is None
    plan, lines = planned(cloudy, sees)
    assert plan.scene.clouds is None and not lines
    plan, (line,) = planned(cloudy, silent)
    assert plan.scene.clouds is None and "--clouds clouds-ms" in line
    assert planned(cloudy, silent, clouds="clouds-ms")[1] == []
    # What landcover-ms says.
    plan, lines = planned(cloudy, "landcover-ms")
    assert plan.scene.clouds.name == "the model clouds-ms" and len(lines) == 1


def test_the_embedded_model_finds_clouds_and_its_runs_agree(tmp_path: Path) -> None:
    scene = cumulus(tmp_path / "cloudy.tif")
    given: dict[str, Any] = {"no_vector": True, "cloud_buffer": 0, "model": "landcover-ms"}
    given["precision"] = "fp32"
    by_itself = geoseg.predict(scene, tmp_path / "auto.tif", **given)
    named = geoseg.predict(scene, tmp_path / "named.tif", clouds="clouds-ms", **given)
    np.testing.assert_array_equal(read_all(by_itself.raster), read_all(named.raster))
    left_out = read_all(named.raster)[0] == 255
    white = read_all(scene)[0] > 4000
    assert left_out[white].mean() > 0.95 and left_out[~white].mean() < 0.1
    assert abs(named.report["clouds"]["share"] - left_out.mean()) < 1e-9
    one = geoseg.predict(scene, tmp_path / "one.tif", clouds="clouds-ms", threads=1, **given)
    np.testing.assert_array_equal(read_all(one.raster), read_all(named.raster))


@pytest.mark.skipif(not DATA.is_dir(), reason="the labels are not here")
@pytest.mark.parametrize(
    ("name", "clouds", "both"), [("landsat5", 0.7, 0.6), ("sentinel2", 0.75, 0.75)]
)
def test_people_s_clouds_are_found(name: str, clouds: float, both: float, tmp_path: Path) -> None:
    labelled = np.load(DATA / "labelled" / "csmask" / f"{name}.npz")
    values = np.clip(np.moveaxis(labelled["img"], -1, 0) * 1e4, 1, 65535).astype(np.uint16)
    how = {"transform": grid(30), "descriptions": BANDS, "scales": [1e-4] * 6, "offsets": [0] * 6}
    scene = make_raster(tmp_path / "scene.tif", values, **how)
    found = found_in(scene, "clouds-ms")
    with found.finder() as find:
        left_out = find(Window(0, 0, 512, 512))
    said = np.isin(labelled["msk"][..., 0], (0, 4))  # shadow, cloud
    assert (left_out & said).sum() / (left_out | said).sum() > both
    assert left_out[labelled["msk"][..., 0] == 4].mean() > clouds


def test_an_embedded_model_of_clouds_is_chosen_for_no_map(tmp_path: Path) -> None:
    assert "clouds-ms" in list_embedded() and "clouds-ms" not in list_maps()
    card = find_model("clouds-ms").card
    assert card.clouds == ("thin_cloud", "cloud", "cloud_shadow")
    size = sum(path.stat().st_size for path in (ZOO / "clouds-ms").iterdir())
    assert size < 2_000_000
    scene = open_with_clouds(scene_of(tmp_path / "scene.tif", 100, 100), PredictOptions())
    assert choose_model(scene)[0].card.name == "landcover-ms"


def test_the_linear_network_itself_is_asked(tmp_path: Path) -> None:
    scene = scene_of(tmp_path / "scene.tif", 120, 100)
    folder = clouds_folder(tmp_path / "clouds", seed=3)
    clouds = found_in(scene, folder)
    result = geoseg.predict(
        scene, tmp_path / "probs.tif", model=folder, clouds="none", no_vector=True,
        probs=tmp_path / "p.tif", probs_dtype="float32", precision="fp32",
    )  # fmt: skip
    assert result.report["clouds"] is None
    probs = read_all(tmp_path / "p.tif")
    with clouds.finder() as find:
        answer = find(Window(0, 0, 120, 100))
    known = np.isfinite(probs).all(axis=0) & (abs(probs[0] - 0.5) > 1e-4)
    known[3:9, 5:20] = False
    assert known.mean() > 0.5
    np.testing.assert_array_equal(answer[known], (probs[1:].sum(axis=0) > 0.5)[known])
