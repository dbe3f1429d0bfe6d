"""Preflight: wrong numbers are noticed before the work, sound ones are not complained of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.transform import from_origin

from geoseg.errors import RadiometryError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.preflight import (
    BandStatistics,
    _spread,
    band_statistics,
    plausibility_warnings,
    preflight,
)
from geoseg.prediction.run import predict
from geoseg.prediction.scene_info import scene_info
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.survey import SampledWindow, Survey
from geoseg.zoo import find_model
from tests.helpers import make_raster, tiny_model

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
#: Fields, forest, soil, town and water: reflectance of each in these bands.
SURFACES = np.array(
    [
        [0.04, 0.08, 0.06, 0.38, 0.22, 0.12],
        [0.02, 0.04, 0.02, 0.28, 0.13, 0.06],
        [0.09, 0.13, 0.17, 0.26, 0.34, 0.28],
        [0.12, 0.14, 0.16, 0.21, 0.22, 0.20],
        [0.05, 0.05, 0.03, 0.02, 0.01, 0.005],
    ]
)


def sound_scene(side: int = 64) -> NDArray[np.float64]:
    """Reflectance (C, H, W) of a landscape, water in a tenth of it."""
    random = np.random.default_rng(0)
    which = random.choice(len(SURFACES), size=(side, side), p=(0.3, 0.3, 0.2, 0.1, 0.1))
    return SURFACES[which].transpose(2, 0, 1) * random.uniform(0.8, 1.2, (1, side, side))


def warnings_of(tmp_path: Path, values: NDArray[Any], **options: Any) -> list[str]:
    card = find_model("landcover-ms").card
    model = tmp_path / "model"
    if not model.exists():
        tiny_model(
            model,
            card.bands,
            ("water", "land"),
            quantity="reflectance",
            plausible=card.plausible,
        )
    order = [BANDS.index(band) for band in card.bands]
    scene = make_raster(tmp_path / "scene.tif", values[order], descriptions=card.bands)
    output = tmp_path / "out.tif"
    return preflight(make_plan(scene, PredictOptions(model=model, output=output, **options)))


def dn(reflectance: NDArray[Any], scale: float = 1e-4, offset: float = 0.0) -> NDArray[np.uint16]:
    return np.round((reflectance - offset) / scale).clip(0, 65535).astype(np.uint16)


def test_a_sound_scene_gives_no_warning(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, sound_scene().astype(np.float32)) == []


def test_a_sound_scene_of_integers_gives_no_warning(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, dn(sound_scene()), scale=1e-4) == []


def test_a_sound_scene_with_the_offset_taken_off_gives_no_warning(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, dn(sound_scene(), offset=-0.1), scale=1e-4, offset=-0.1) == []


def test_landsat_numbers_with_their_own_scale_give_no_warning(tmp_path: Path) -> None:
    numbers = dn(sound_scene(), scale=2.75e-5, offset=-0.2)
    assert warnings_of(tmp_path, numbers, scale=2.75e-5, offset=-0.2) == []


@pytest.mark.parametrize(
    ("spoil", "options", "hint"),
    [
        (lambda r: dn(r), {"scale": 1e-8}, "--scale 0.0001"),
        (lambda r: (r * 400).clip(1, 255).astype(np.uint8), {"scale": 1.0}, "8-bit"),
        (lambda r: (r + 0.1).astype(np.float32), {}, "--offset -0.1"),
        (lambda r: dn(r, offset=-0.1), {"scale": 1e-4}, "--offset -0.1"),
        (lambda r: dn(r), {"scale": 1e-4, "offset": -0.1}, "--offset 0"),
    ],
    ids=["scaled twice", "8-bit", "+0.1", "+1000", "offset taken twice"],
)
def test_wrong_numbers_are_noticed_with_what_to_do(
    tmp_path: Path, spoil: Any, options: dict[str, Any], hint: str
) -> None:
    (warning,) = warnings_of(tmp_path, spoil(sound_scene()), **options)
    assert hint in warning


def test_an_offset_left_in_floats_is_taken_off_without_scaling(tmp_path: Path) -> None:
    scene = (sound_scene() + 0.1).astype(np.float32)
    (warning,) = warnings_of(tmp_path, scene)
    assert "--offset -0.1" in warning and "--scale" not in warning
    assert warnings_of(tmp_path, scene, offset=-0.1) == []


def advised(message: str) -> dict[str, float]:
    """The options that a message says to give."""
    found = re.findall(r"--(scale|offset) (-?[\d.e+-]*\d)", message.split(": give ")[-1])
    return {name: float(value) for name, value in found}


@pytest.mark.parametrize(
    ("spoil", "options", "advice"),
    [
        (lambda r: (r * 10000).astype(np.float64), {}, {"scale": 1e-4}),
        (lambda r: (r * 10000).astype(np.float32), {}, {"scale": 1e-4}),
        (lambda r: (r * 10000).astype(np.float32), {"offset": 0.0}, {"scale": 1e-4, "offset": 0}),
        (lambda r: (r / 10000).astype(np.float32), {}, {"scale": 1e4}),
        (lambda r: (r * 100 + 10).astype(np.float32), {}, {}),
        (lambda r: (r * 100000).astype(np.float32), {}, {}),
        (lambda r: (-10000 * r - 1000).astype(np.float32), {}, {}),
    ],
    ids=["float64", "float32", "offset 0", "/10000", "percent", "unknown", "negative"],
)
def test_numbers_that_cannot_be_reflectance_are_refused_and_the_advice_works(
    tmp_path: Path, spoil: Any, options: dict[str, Any], advice: dict[str, float]
) -> None:
    scene = spoil(sound_scene())
    with pytest.raises(RadiometryError, match="reflectance is 0 to 1") as error:
        warnings_of(tmp_path, scene, **options)
    if advice:
        assert advised(str(error.value)) == advice
        assert warnings_of(tmp_path, scene, **advice) == []
    else:
        assert "--scale" in str(error.value)


def test_what_the_user_says_with_scale_is_believed(tmp_path: Path) -> None:
    (warning,) = warnings_of(tmp_path, (sound_scene() * 10000).astype(np.float32), scale=1.0)
    assert "unusual" in warning


def test_a_frame_of_zeros_and_a_dark_or_cloudy_scene_are_not_refused(tmp_path: Path) -> None:
    framed = sound_scene().astype(np.float32)
    framed[:, :40] = 0
    assert len(warnings_of(tmp_path, framed)) <= 1
    dark = (sound_scene() * 0.02).astype(np.float32)
    assert len(warnings_of(tmp_path, dark)) == 1
    bright = (sound_scene() + 0.9).astype(np.float32)
    assert len(warnings_of(tmp_path, bright)) <= 1


CODES = {"S2": ("B2", "B3", "B4", "B8", "B11", "B12"), "L8": tuple(f"SR_B{i}" for i in range(2, 8))}


@pytest.mark.parametrize(
    ("file", "codes", "scale", "offset", "dtype"),
    [
        ("S2A_MSIL2A_20200320T033531_N0214_R061_T48QUE.tif", "S2", 1e-4, 0.0, np.float64),
        ("S2A_MSIL2A_20230320T033531_N0509_R061_T48QUE.tif", "S2", 1e-4, -0.1, np.float64),
        ("sentinel-2.tif", "S2", 1e-4, 0.0, np.float64),
        ("sentinel-2.tif", "S2", 1e-4, -0.1, np.float64),
        ("LC08_044034_20200318.tif", "L8", 2.75e-5, -0.2, np.float64),
        ("LC08_044034_20200318.tif", "L8", 2.75e-5, -0.2, np.int32),
        ("LC08_L2SP_044034_20200318_20200822_02_T1.tif", "L8", 2.75e-5, -0.2, np.float32),
    ],
)
def test_an_export_in_floats_is_refused_with_its_sensors_numbers_before_anything_is_kept(
    tmp_path: Path, file: str, codes: str, scale: float, offset: float, dtype: Any
) -> None:
    model = tiny_model(tmp_path / "model", BANDS, ("a", "b"), quantity="reflectance")
    values = np.tile((sound_scene() - offset) / scale, (1, 4, 4)).astype(dtype)
    scene = make_raster(tmp_path / file, values, descriptions=CODES[codes])
    folder = tmp_path / "out"
    folder.mkdir()
    wanted: dict[str, Any] = {"model": model, "no_vector": True}
    with pytest.raises(RadiometryError) as error:
        predict(scene, folder / "map.tif", **wanted)
    assert list(folder.iterdir()) == []
    # Where nothing tells the offset, both commands are there to choose from.
    choices = [advised(text) for text in str(error.value).split(", else ")]
    (given,) = [g for g in choices if g.get("offset", 0.0) == offset]
    assert given.get("scale") == scale
    assert len(choices) == (2 if file == "sentinel-2.tif" else 1)
    # The map of the numbers that are meant.
    floats = make_raster(
        tmp_path / "floats.tif",
        (values * scale + offset).astype(np.float32),
        descriptions=CODES[codes] if codes == "S2" else BANDS,
    )
    names = {"bands": "1,2,3,4,5,6"}
    predict(scene, folder / "map.tif", **wanted, **given)
    predict(floats, folder / "floats.tif", **wanted, **names)
    with rasterio.open(folder / "map.tif") as one, rasterio.open(folder / "floats.tif") as other:
        assert (one.read(1) == other.read(1)).mean() > 0.999


def test_info_says_so_too(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", BANDS, ("a", "b"), quantity="reflectance")
    scene = make_raster(tmp_path / "s.tif", sound_scene() * 10000, descriptions=BANDS)
    (tried,) = scene_info(scene, models=[model])["models"]
    assert not tried["fits"] and "--scale 0.0001" in tried["why"]


def test_the_warning_names_the_bands_what_was_found_and_what_was_expected() -> None:
    card = find_model("landcover-ms").card
    low, high = card.plausible["red"]
    statistics = [BandStatistics(band, 0.001, 0.1, 0.4) for band in card.bands]
    odd = [BandStatistics("red", 0.001, 7.25, 9.0) if s.name == "red" else s for s in statistics]
    assert plausibility_warnings(card, statistics) == []
    (warning,) = plausibility_warnings(card, odd)
    assert f"red 7.25 (expected {low:g} to {high:g})" in warning
    assert "blue" not in warning


def test_the_offset_is_told_although_a_median_is_odd_too() -> None:
    card = find_model("landcover-ms").card
    statistics = [BandStatistics(band, 0.11, 5.0, 6.0) for band in card.bands]
    (warning,) = plausibility_warnings(card, statistics)
    assert "--offset -0.1" in warning


def test_all_nodata_gives_no_statistics_and_no_warning(tmp_path: Path) -> None:
    empty = np.full((6, 20, 20), np.nan, dtype=np.float32)
    assert warnings_of(tmp_path, empty) == []


# --- statistics ---


def statistics_of(
    pixels: NDArray[Any],
    valid: NDArray[np.bool_] | None = None,
    gain: float = 1.0,
    bias: float = 0.0,
) -> tuple[list[BandStatistics], float]:
    n, *shape = pixels.shape
    valid = np.ones(shape, dtype=bool) if valid is None else valid
    sample = SampledWindow(Window(0, 0, *shape), pixels, valid)
    grid = PixelGrid(*shape, transform=Affine.identity(), crs=None)
    seen = Survey(grid, samples=(sample,))
    radiometry = Radiometry((gain,) * n, (bias,) * n, "test")
    return band_statistics(seen, radiometry, [f"b{i}" for i in range(n)]), seen.valid_share


def test_a_scene_of_one_pixel_has_statistics() -> None:
    (first, second), share = statistics_of(np.array([[[3]], [[5]]], np.uint16), None, 2.0, -1.0)
    assert share == 1
    assert (first.name, first.low, first.median, first.high) == ("b0", 5, 5, 5)
    assert second.median == 9


def test_only_measured_pixels_count() -> None:
    pixels = np.full((1, 10, 10), 1e9, dtype=np.float32)
    valid = np.zeros((10, 10), dtype=bool)
    pixels[0, :3], valid[:3] = 0.25, True
    (only,), share = statistics_of(pixels, valid)
    assert share == 0.3
    assert only.low == only.median == only.high == 0.25


def test_where_nothing_was_measured_there_are_no_statistics() -> None:
    nothing = np.zeros((7, 9), dtype=bool)
    assert statistics_of(np.zeros((2, 7, 9), dtype=np.int16), nothing) == ([], 0.0)


def test_unsigned_numbers_do_not_wrap_around_below_zero() -> None:
    (only,), _ = statistics_of(np.full((1, 3, 3), 10, dtype=np.uint8), None, 1.0, -20.0)
    assert only.median == -10


@pytest.mark.parametrize("count", [4, 8, 16, 64])
@pytest.mark.parametrize("shape", [(8, 8), (10, 10), (4, 16), (16, 4), (57, 57), (9, 31), (6, 64)])
def test_chips_are_taken_from_all_over_a_scene(shape, count):
    """From every half, and of 16 and more from every quarter, whatever the grid."""
    places = _spread(*shape, count)
    assert len(set(places)) == len(places) == min(count, shape[0] * shape[1])
    for n in (count, 2 * count):
        rows, cols = np.array(_spread(*shape, n)[:count]).T
        for place, length in ((rows, shape[0]), (cols, shape[1])):
            assert place.min() >= 0 and place.max() < length
            assert 0.25 <= np.mean(place < length / 2) <= 0.75
        for down in (False, True):
            for right in (False, True):
                inside = ((rows >= shape[0] / 2) == down) & ((cols >= shape[1] / 2) == right)
                assert inside.sum() >= count // 16


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2)])
def test_of_few_chips_all_are_taken(shape):
    rows, cols = shape
    assert sorted(_spread(rows, cols, 100)) == [(r, c) for r in range(rows) for c in range(cols)]


def test_a_scene_coarser_than_the_model_was_taught_is_warned_of(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"), gsd=10.0, gsd_range=(8.0, 12.0))
    for res, coarser in ((30.0, True), (5.0, False)):
        transform = from_origin(500_000, 5_000_000, res, res)
        scene = make_raster(
            tmp_path / f"{res:g}.tif", np.zeros((1, 40, 40), np.uint8), transform=transform
        )
        plan = make_plan(scene, PredictOptions(model=model, bands="1"))
        (line,) = (w for w in plan.warnings if "resampled" in w)
        assert ("choose a model for coarser scenes" in line) == coarser


def test_an_orthophoto_of_5_m_is_warned_of(shared: Path) -> None:
    """Row K2 of what the public reported: farmland became water, and only resampling was said."""
    scene = shared / "data/naip/m_4709963_se_14_1_20170827.tif"
    options = PredictOptions(model="landcover-aerial", band_names="red,green,blue,nir")
    (line,) = (w for w in make_plan(scene, options).warnings if "resampled" in w)
    assert "its map may be wrong all over: choose a model for coarser scenes" in line


def test_info_gives_the_reason_of_what_it_believes(tmp_path: Path) -> None:
    scene = make_raster(tmp_path / "s.tif", dn(sound_scene()), descriptions=BANDS, nodata=7)
    model = tiny_model(tmp_path / "model", BANDS, ("a", "b"), quantity="reflectance")
    found = scene_info(scene, models=[model])
    assert found["numbers"]["scale"] is None and "--scale" in found["numbers"]["why"]
    assert {band["nodata_by"] for band in found["bands"]} == {"the file's nodata tag"}
    assert {band["name_by"] for band in found["bands"]} == {"its label"}
    told = scene_info(scene, models=[model], scale=1e-4, band_names=",".join(BANDS))
    assert told["numbers"] == {"scale": [1e-4], "offset": [0.0], "why": "given by --scale/--offset"}
    assert {band["name_by"] for band in told["bands"]} == {"--band-names"}
