"""Nodata that no tag declares: found, and what may be ground asked about."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import geoseg
from geoseg.cards.card import Normalization
from geoseg.cards.legend import ClassInfo
from geoseg.cards.quantities import possible_range, takes_8_bits
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.load import load_members
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.report import run_record
from geoseg.prediction.run_log import RunLog
from geoseg.prediction.scene_info import scene_info
from geoseg.scene.by_numbers import Asked, Taken, decide_by_numbers
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.survey import SampledWindow, Survey
from geoseg.scene.undeclared import Fill, find_fill
from geoseg.training.recipe import SplitConfig, TrainConfig
from geoseg.training.scene_config import SceneConfig
from geoseg.training.scenes import load_scene
from geoseg.zoo import find_model
from tests.helpers import make_raster, tiny_model

EXAMPLE = Path(__file__).parents[1] / "examples" / "landsat7_nc_2000.tif"
SIX = ("blue", "green", "red", "nir", "swir1", "swir2")
CODES = ("B2", "B3", "B4", "B8", "B11", "B12")


@pytest.fixture(scope="module")
def reflectance() -> NDArray[np.float32]:
    """R: 256 x 256 px of the example scene, reflectance of six bands."""
    with rasterio.open(EXAMPLE) as dataset:
        found = dataset.read()[:, 100:356:2, 100:356:2] * 1e-4
    return found.repeat(2, axis=1).repeat(2, axis=2).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(
        tmp_path_factory.mktemp("model") / "six",
        SIX,
        ("a", "b", "c", "d"),
        quantity="reflectance",
        plausible=find_model("landcover-ms").card.plausible,
        normalization=Normalization("z-score", {"mean": (0.1,) * 6, "stddev": (0.05,) * 6}),
    )


class Mapper:
    """Labels of a scene, and what was said of it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.report: dict[str, Any] = {}

    def __call__(
        self, values: NDArray[Any], names: Any = SIX, options: Any = None, **raster: Any
    ) -> NDArray[np.uint8]:
        scene = make_raster(self.folder / "scene.tif", values, descriptions=names, **raster)
        return self.of(scene, **(options or {}))

    def of(self, scene: Any, **options: Any) -> NDArray[np.uint8]:
        wanted = {"model": self.model, "no_vector": True, "overwrite": True, "restart": True}
        done = geoseg.predict(scene, self.folder / "map.tif", **wanted, **options)
        self.report = done.report
        with rasterio.open(done.raster) as dataset:
            found: NDArray[np.uint8] = dataset.read(1)
        return found

    @property
    def warnings(self) -> list[str]:
        return self.report["warnings"]


@pytest.fixture
def mapped(tmp_path: Path, model: Path) -> Mapper:
    return Mapper(tmp_path, model)


# --- numbers that no ground has ---


@pytest.mark.parametrize(
    "number",
    [-9999.0, -10000.0, -3.4028234663852886e38, 1e20, 9.96921e36, -0.2, -0.1],
    ids=lambda number: f"{number:.4g}",
)
def test_what_no_ground_has_is_nodata_as_if_a_tag_said_so(
    mapped: Mapper, reflectance: NDArray[np.float32], number: float
) -> None:
    """N2, of all kinds; the last two are 0 as Landsat's and Sentinel-2's scales make it."""
    values = reflectance.copy()
    values[:, :60] = number
    tagged = mapped(values, nodata=number)
    assert mapped.warnings == [] and mapped.report["scene"]["fill"] is None
    found = mapped(values)
    np.testing.assert_array_equal(found, tagged)
    assert (found[:60] == 255).all() and (found[60:] != 255).all()
    (said,) = mapped.warnings
    assert f"{np.float32(number):.8g} is taken as nodata" in said and "23.4 %" in said
    assert mapped.report["scene"]["fill"]["numbers"] == [float(np.float32(number))]
    assert mapped.report["undeclared_nodata"]["pixels"] == 60 * 256
    json.dumps(mapped.report, allow_nan=False)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_infinities_are_never_measured(
    mapped: Mapper, reflectance: NDArray[np.float32], number: float
) -> None:
    values = reflectance.copy()
    values[:, 70:120, 30:90] = number
    found = mapped(values)
    assert (found[70:120, 30:90] == 255).all() and (found == 255).sum() == 3000
    assert mapped.warnings == []


def test_several_kinds_of_fill_are_found_beside_a_declared_one(
    mapped: Mapper, reflectance: NDArray[np.float32]
) -> None:
    values = reflectance.copy()
    values[:, :20], values[:, 20:40], values[:, 40:60] = -9999, -10000, 7
    values[2, 60:80] = -9999  # in one band alone
    found = mapped(values, nodata=7)
    assert (found[:80] == 255).all() and (found[80:] != 255).all()
    assert mapped.report["scene"]["fill"]["numbers"] == [-10000.0, -9999.0]
    assert mapped.report["undeclared_nodata"]["pixels"] == 60 * 256


@pytest.mark.parametrize(
    ("dtype", "number", "options"),
    [
        (np.int16, -9999, {"scale": 1e-4, "offset": 0.0}),
        (np.int16, -32768, {"scale": 1e-4, "offset": 0.0}),
        (np.uint16, 65535, {"scale": 1e-4, "offset": 0.0}),
        (np.uint16, 0, {"scale": 1e-4, "offset": -0.1}),  # -0.1 in all bands
        (np.int32, -99999, {"scale": 1e-4, "offset": 0.0}),
    ],
)
def test_whole_numbers_too(
    mapped: Mapper, reflectance: NDArray[np.float32], dtype: Any, number: int, options: Any
) -> None:
    values = np.round((reflectance - options["offset"]) * 1e4).astype(dtype)
    values[:, :, :50] = number
    tagged = mapped(values, CODES, options, nodata=number)
    found = mapped(values, CODES, options)
    np.testing.assert_array_equal(found, tagged)
    assert (found[:, :50] == 255).all() and (found[:, 50:] != 255).all()
    assert mapped.report["scene"]["fill"]["numbers"] == [number]


@pytest.mark.parametrize("declared", [True, False])
def test_zeros_of_some_bands_are_no_ground_where_0_stands_for_less_than_any_has(
    mapped: Mapper, reflectance: NDArray[np.float32], declared: bool
) -> None:
    """Sentinel-2 since baseline 04.00: 0 in one band is -0.1, and was not measured."""
    values = np.round((reflectance + 0.1) * 1e4).astype(np.uint16)
    values[3, :, :50] = 0
    tag = {"nodata": 0} if declared else {}
    found = mapped(values, CODES, {"scale": 1e-4, "offset": -0.1}, **tag)
    assert (found[:, :50] == 255).all() and (found[:, 50:] != 255).all()
    assert any("0 is taken as nodata" in line for line in mapped.warnings) != declared
    # Without an offset it is darkness: no ground but water in the short-wave infrared.
    values = np.round(reflectance * 1e4).astype(np.uint16)
    values[3, :, :50] = 0
    assert (mapped(values, CODES, DN, **tag) != 255).all()


def test_a_scene_of_fill_alone_is_refused_as_such(
    mapped: Mapper, reflectance: NDArray[np.float32]
) -> None:
    with pytest.raises(
        geoseg.GeosegError, match="all pixels that were looked at are -9999"
    ) as said:
        mapped(np.full_like(reflectance, -9999))
    assert "--scale" not in str(said.value)


def test_where_the_unit_is_wrong_no_number_is_fill(
    mapped: Mapper, reflectance: NDArray[np.float32]
) -> None:
    """Thousands of numbers that no ground has are another unit, not a fill."""
    with pytest.raises(geoseg.GeosegError, match=r"--scale 0\.0001"):
        mapped(reflectance * 10000)
    values = reflectance * 10000
    values[:, :200] = -9999  # most of it; the advice is that of the rest
    with pytest.raises(geoseg.GeosegError, match=r"--scale 0\.0001"):
        mapped(values)
    found = mapped(values, options={"scale": 1e-4})
    assert (found[:200] == 255).all() and (found[200:] != 255).all()


@given(
    number=st.sampled_from([-9999.0, -10000.0, -3.4e38, 1e20, -1e6, 123456.0]),
    window=st.tuples(
        st.integers(0, 100), st.integers(0, 100), st.integers(4, 60), st.integers(4, 60)
    ),
    bands=st.sets(st.integers(0, 5), min_size=1),
    part=st.booleans(),
)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_map_is_that_of_the_scene_with_the_tag(
    mapped: Mapper,
    reflectance: NDArray[np.float32],
    number: float,
    window: tuple[int, int, int, int],
    bands: set[int],
    part: bool,
) -> None:
    """Whatever the number, its place and its bands, and whatever part is wanted."""
    values = reflectance[:, :128, :128].copy()
    row, col, height, width = window
    for band in bands:
        values[band, row : row + height, col : col + width] = number
    options = {"bbox": (500300.0, 4999400.0, 500900.0, 4999900.0)} if part else {}
    tagged = mapped(values, options=options, nodata=number)
    np.testing.assert_array_equal(mapped(values, options=options), tagged)


@pytest.mark.parametrize("gsd", [2.5, 40.0])
def test_it_holds_where_the_grid_is_resampled(
    tmp_path: Path, reflectance: NDArray[np.float32], gsd: float
) -> None:
    """What is fill has no share in its neighbours."""
    card = {"gsd": gsd, "gsd_range": (gsd * 0.9, gsd * 1.1), "quantity": "reflectance"}
    mapped = Mapper(tmp_path, tiny_model(tmp_path / "model", SIX, ("a", "b", "c"), **card))
    values = reflectance[:, :96, :96].copy()
    values[:, 20:50, 30:60] = -9999
    tagged = mapped(values, nodata=-9999)
    np.testing.assert_array_equal(mapped(values), tagged)
    assert mapped.report["model_grid"]["resampled"]
    assert (tagged == 255).sum() == 900 == mapped.report["undeclared_nodata"]["pixels"]


def test_it_holds_for_bands_with_larger_pixels(
    tmp_path: Path, mapped: Mapper, reflectance: NDArray[np.float32]
) -> None:
    """Of a mixture of fill and ground nothing would be left to be recognised."""
    files, tagged = [], []
    for folder, found in (("plain", files), ("tagged", tagged)):
        (tmp_path / folder).mkdir()
        for i, name in enumerate(SIX):
            ratio = 2 if i > 3 else 1
            values = reflectance[i : i + 1, ::ratio, ::ratio].copy()
            values[:, : 80 // ratio] = -9999
            place = Affine(10 * ratio, 0, 5e5, 0, -10 * ratio, 5e6)
            path = tmp_path / folder / f"{name}.tif"
            nodata = -9999 if folder == "tagged" else None
            found.append(make_raster(path, values, transform=place, nodata=nodata))
    right = mapped.of(tagged)
    np.testing.assert_array_equal(mapped.of(files), right)
    assert mapped.report["scene"]["fill"]["numbers"] == [-9999.0]
    assert (right[:80] == 255).all() and (right[82:] != 255).all()


def test_a_run_that_was_stopped_under_another_decision_begins_anew(
    tmp_path: Path, model: Path, reflectance: NDArray[np.float32]
) -> None:
    values = reflectance.copy()
    values[:, :60] = -9999
    scene = make_raster(tmp_path / "s.tif", values, descriptions=SIX)
    options = {"model": model, "output": tmp_path / "o.tif", "no_vector": True}
    plan = make_plan(scene, PredictOptions(**options))
    assert all(band.fills == (-9999.0,) for band in plan.bands)
    assert plan.survey.valid_share == pytest.approx(196 / 256)
    runtime = load_members(plan, RunLog(None))
    assert run_record(plan, runtime, [])["fill"] == [-9999.0]


def test_training_leaves_the_same_out(tmp_path: Path, reflectance: NDArray[np.float32]) -> None:
    values = reflectance[:, :128, :128].copy()
    values[:, :40] = -9999
    labels = make_raster(tmp_path / "l.tif", np.zeros((1, 128, 128), np.uint8))
    scene = SceneConfig(make_raster(tmp_path / "s.tif", values, descriptions=SIX), (labels,))
    classes = (ClassInfo(0, "a", "#000000"), ClassInfo(1, "b", "#ffffff"))
    config = TrainConfig("t", SIX, classes, (scene,), split=SplitConfig(by="blocks"))
    found = load_scene(config, scene, SIX, tmp_path, 0)
    assert not found.measured[:40].any() and found.measured[40:].all()
    assert "-9999" in found.notes[0]


# --- 0 in all bands ---


def numbers(reflectance: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.round(reflectance * 10000).astype(np.uint16)


DN = {"scale": 1e-4, "offset": 0.0}


def test_zeros_along_the_edge_are_asked_about_and_the_advice_works(
    mapped: Mapper, reflectance: NDArray[np.float32]
) -> None:
    """N1."""
    values = numbers(reflectance)
    values[:, :60] = 0
    found = mapped(values, CODES, DN)
    (said,) = mapped.warnings
    assert "23.4 % of the scene is 0 in all bands" in said and "--src-nodata 0;" in said
    assert (found != 255).all()
    told = mapped(values, CODES, {**DN, "src_nodata": 0.0})
    assert mapped.warnings == [] and (told[:60] == 255).all() and (told[60:] != 255).all()
    kept = mapped(values, CODES, {**DN, "src_nodata": math.nan})
    assert mapped.warnings == [] and (kept == found).all()
    # Of a part that has none of it, too.
    mapped(values, CODES, {**DN, "bbox": (500100.0, 4997600.0, 502000.0, 4998900.0)})
    assert "--src-nodata 0" in mapped.warnings[0]


@pytest.mark.parametrize("place", ["corner", "thin", "inside", "diagonal"])
def test_zeros_are_noticed_wherever_they_lie(
    mapped: Mapper, reflectance: NDArray[np.float32], place: str
) -> None:
    values = numbers(reflectance)
    row, col = np.mgrid[:256, :256]
    where = {
        "corner": (row < 40) & (col > 200),
        "thin": col < 2,
        "inside": (row // 30 == 4) & (col // 30 == 4),
        "diagonal": row + col < 100,
    }[place]
    values[:, where] = 0
    mapped(values, CODES, DN)
    assert "--src-nodata 0" in mapped.warnings[0]


def test_water_a_little_below_nothing_is_neither_fill_nor_asked_about(
    mapped: Mapper, reflectance: NDArray[np.float32]
) -> None:
    """As the correction for the air leaves it; nothing of it is 0."""
    values = reflectance.copy()
    noise = np.random.default_rng(0).uniform(-0.006, -0.002, (6, 60, 256))
    values[:, :60] = noise
    assert (mapped(values) != 255).all() and mapped.warnings == []


def test_dark_water_and_declared_zeros_are_not_asked_about(
    mapped: Mapper, reflectance: NDArray[np.float32]
) -> None:
    values = numbers(reflectance)
    values[3:, :60] = 0  # black in the infrared
    mapped(values, CODES, DN)
    assert not any("src-nodata" in line for line in mapped.warnings)
    values[:, :60] = 0
    mapped(values, CODES, DN, nodata=0)
    assert not any("src-nodata" in line for line in mapped.warnings)


def test_who_has_another_tag_is_told_what_the_advice_replaces(
    mapped: Mapper, reflectance: NDArray[np.float32]
) -> None:
    values = numbers(reflectance)
    values[:, :60] = 0
    mapped(values, CODES, DN, nodata=65535)
    assert "(in place of the file's 65535)" in mapped.warnings[0]


@pytest.mark.parametrize("number", [1, 10000, 55000])
def test_one_number_along_the_edge_is_asked_about_and_the_advice_works(
    mapped: Mapper, reflectance: NDArray[np.float32], number: int
) -> None:
    """It could be ground: nothing, white sand, or what no scale was known for."""
    values = numbers(reflectance)
    values[:, :, :60] = number
    mapped(values, CODES, DN, nodata=None)
    said = [line for line in mapped.warnings if "src-nodata" in line]
    if number == 55000:  # 5.5 is beyond all ground
        assert f"{number} is taken as nodata" in said[0]
        return
    assert f"all bands are {number}, 23.4 % of the scene" in said[0]
    found = mapped(values, CODES, {**DN, "src_nodata": float(number)})
    np.testing.assert_array_equal(found == 255, (values == number).any(axis=0))
    assert not any("src-nodata" in line for line in mapped.warnings)
    mapped(values, CODES, {**DN, "src_nodata": math.nan})
    assert not any("src-nodata" in line for line in mapped.warnings)


def test_info_asks_too(tmp_path: Path, model: Path, reflectance: NDArray[np.float32]) -> None:
    values = numbers(reflectance)
    values[:, :60] = 0
    scene = make_raster(tmp_path / "s.tif", values, descriptions=CODES)
    (tried,) = scene_info(scene, models=[model], scale=1e-4, offset=0.0)["models"]
    assert any("--src-nodata 0" in line for line in tried["notes"])


# --- the rule by itself ---


def seen_of(pixels: NDArray[Any]) -> Survey:
    height, width = pixels.shape[1:]
    grid = PixelGrid(height, width, Affine.identity(), None)
    sample = SampledWindow(Window(0, 0, height, width), pixels, np.ones((height, width), bool))
    return Survey(grid, samples=(sample,))


def plain(count: int) -> Radiometry:
    return Radiometry((1.0,) * count, (0.0,) * count, "test")


@given(st.integers(0, 2**32), st.floats(0.2, 500), st.sampled_from([0.0, 0.3, 0.97]))
@settings(max_examples=40, deadline=None)
def test_measurements_of_whatever_unit_are_no_fill(seed: int, unit: float, share: float) -> None:
    """With or without a fill beside them, that alone is found."""
    random = np.random.default_rng(seed)
    pixels = (random.gamma(2, 0.1, (3, 64, 64)) * unit).astype(np.float32)
    filled = random.random((64, 64)) < share
    pixels[:, filled] = -9999
    found = find_fill((), seen_of(pixels), plain(3), (-0.5, 3.0), -0.05)
    assert found.numbers == ((-9999.0,) if share else ())
    assert found.share == pytest.approx(filled.mean())


def test_a_fill_that_was_mixed_with_ground_at_its_border_is_found() -> None:
    pixels = np.full((1, 64, 64), 0.2, dtype=np.float32)
    pixels[:, :20] = -9999
    pixels[0, 20] = np.linspace(-9999, 0, 64)  # as bilinear resampling leaves it
    assert find_fill((), seen_of(pixels), plain(1), (-0.5, 3.0), -0.05).numbers == (-9999.0,)


def test_a_scene_of_one_number_has_no_fill() -> None:
    pixels = np.full((2, 64, 64), 7.0, dtype=np.float32)
    assert find_fill((), seen_of(pixels), plain(2), (-0.5, 3.0), -0.05) == Fill()


def test_what_is_possible_is_what_the_model_takes() -> None:
    screen = Normalization("z-score", {"mean": (127.5,) * 3, "stddev": (127.5,) * 3})
    radar = Normalization("z-score", {"mean": (-11.0,) * 3, "stddev": (5.0,) * 3})
    raw = Normalization("min-max", {"minimum": (0.0,) * 3, "maximum": (10000.0,) * 3})
    rgb = ("red", "green", "blue")
    assert possible_range("number", screen, rgb) == (-255.0, 1275.0)
    assert takes_8_bits("number", screen, rgb)
    low, _ = possible_range("number", radar, rgb)
    assert -1000 < low < -40 and not takes_8_bits("number", radar, rgb)
    assert possible_range("number", raw, rgb)[1] > 65535 and not takes_8_bits("number", raw, rgb)
    assert possible_range("number", Normalization()) == (-1e19, 1e19)
    assert takes_8_bits("number", find_model("landcover-aerial").card.normalization, rgb)


# --- real files ---


@pytest.mark.slow
def test_no_real_scene_is_accused_but_those_that_have_an_undeclared_frame(shared: Path) -> None:
    """All pictures and scenes of several bands; twelve have a black frame, and one a white one."""
    framed, looked_at = set(), 0
    for path in sorted((shared / "data").rglob("*")):
        named = path.name.replace("unlabelled", "")
        if path.suffix not in (".tif", ".jpg", ".png") or "masks" in path.parts or "label" in named:
            continue
        with rasterio.open(path) as dataset:
            if dataset.count < 3:
                continue
            dtype = dataset.dtypes[0]
        scene = open_scene(path)
        count = len(scene.bands)
        gain = 1e-4 if dtype == "uint16" else 1.0
        radiometry = Radiometry((gain,) * count, (0.0,) * count, "known")
        quantity = "number" if dtype == "uint8" else "reflectance"
        screen = Normalization("z-score", {"mean": (127.5,), "stddev": (127.5,)})
        taken = Taken(quantity, screen if dtype == "uint8" else None, ("red",))
        found = decide_by_numbers(scene.name, scene.bands, scene.grid, radiometry, taken, Asked())
        assert found.fill == Fill(), path
        looked_at += 1
        if found.notes:
            framed.add(path.name)
    assert looked_at > 400
    assert {name for name in framed if not name.startswith("3band_0130222231")} == {
        "unlabelled_5c15321f63d9810007f8b06f_10_00000.tif",
        "5b3622402b6a08001185f8d8_10_00004.tif",  # white, two thirds of it
        "southerncalimg38b.jpg",
    }
    assert len(framed) == 13


def test_real_folders_of_one_band_files_are_not_accused(shared: Path) -> None:
    """Of 10, 20 and 60 m."""
    found = [
        *(shared / "data/sentinel2/majortom").glob("S2*"),
        *(shared / "data/sentinel2/ssl4eo").glob("L*/2*"),
    ]
    assert len(found) >= 3
    for folder in found:
        options = {"model": "landcover-ms", "no_vector": True, "scale": 1e-4, "offset": 0.0}
        plan = make_plan(folder, PredictOptions(**options))
        assert plan.fill == Fill()
        assert not any("nodata" in line for line in plan.warnings)
