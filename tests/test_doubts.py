"""Doubts before a run, on real scenes: each is said of what was spoiled, none of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from geoseg.errors import GeosegError
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.preflight import preflight
from geoseg.prediction.spectra import BANDS, MISTAKEN, Likelier, likelier
from tests.helpers import make_raster

NINE = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B11", "B12")
#: Five scenes of five kinds of ground: a river plain, Brazilian fields, a town, a steppe, a wood.
FIVE = (
    "imagery/six/oli_rondonia_2019.tif",
    "imagery/six/etm_pennsylvania_july.tif",
    "imagery/six/oli_bengaluru.tif",
    "imagery/six/tm_canberra_1992.tif",
    "imagery/six/oli_marburg_2013.tif",
)
#: Of as many pixels a side at most, from the middle.
SIDE = 400


def reflectance(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_], Any]:
    """(6, H, W) from the middle of a file, what was measured, and where it is."""
    with rasterio.open(path) as dataset:
        places = range(6) if dataset.count == 6 else (0, 1, 2, 6, 7, 8)
        height, width = min(SIDE, dataset.height), min(SIDE, dataset.width)
        row, col = (dataset.height - height) // 2, (dataset.width - width) // 2
        window = Window(col, row, width, height)
        read = dataset.read([i + 1 for i in places], window=window)
        where = {"transform": dataset.window_transform(window), "crs": dataset.crs}
    return (read * np.float32(1e-4)), (read != 0).any(axis=0), where


def doubts(scene: Any, **options: Any) -> list[str]:
    """All that is said before a run of landcover-ms."""
    wanted = {"model": "landcover-ms", "output": "unused.tif", "no_vector": True, **options}
    plan = make_plan(scene, PredictOptions(**wanted))
    return [*plan.warnings, *preflight(plan)]


class Spoiled:
    """Writes what was made of a real scene."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self.path = folder, path
        self.sound, self.measured, self.where = reflectance(path)

    def scene(self, values: NDArray[Any], names: Any = BANDS, **more: Any) -> Path:
        if values.dtype.kind == "f":
            values = np.where(self.measured, values, np.nan).astype(np.float32)
        made = {**self.where, "descriptions": names, **more}
        return make_raster(self.folder / "scene.tif", values, **made)


@pytest.fixture(params=FIVE)
def spoiled(request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> Spoiled:
    return Spoiled(tmp_path, shared / "data" / request.param)


def test_untouched_nothing_is_said(spoiled: Spoiled) -> None:
    assert doubts(spoiled.scene(spoiled.sound)) == []


@pytest.mark.parametrize("scale", [1e4, 1e-4, 100.0])
def test_a_wrong_scale_is_refused(spoiled: Spoiled, scale: float) -> None:
    with pytest.raises(GeosegError, match=r"reflectance is 0 to 1.*--scale"):
        doubts(spoiled.scene(spoiled.sound * scale))


def test_an_offset_that_was_left_in_is_warned_of(spoiled: Spoiled) -> None:
    (line,) = doubts(spoiled.scene(spoiled.sound + 0.1))
    assert "--offset -0.1" in line


def test_an_offset_that_was_taken_off_twice_is_said(spoiled: Spoiled) -> None:
    scene = spoiled.scene(spoiled.sound - 0.1)
    try:
        lines = doubts(scene)
    except GeosegError as error:
        lines = [str(error)]
    assert lines and any("--offset 0.1" in line or "--scale" in line for line in lines)


def test_what_is_like_no_ground_is_warned_of(spoiled: Spoiled) -> None:
    """Bands of which each was stretched by itself, in as many steps as floats have."""
    low, high = np.percentile(spoiled.sound[:, spoiled.measured], (2, 98), axis=1)
    stretched = (spoiled.sound - low[:, None, None]) / (high - low)[:, None, None]
    (line,) = doubts(spoiled.scene(np.clip(stretched, 0.003, 1)))
    assert "check --scale" in line and ("unusual" in line or "reflect like no land" in line)


@pytest.mark.parametrize("whole", [False, True], ids=["floats", "uint8"])
def test_a_stretched_picture_is_refused(spoiled: Spoiled, whole: bool) -> None:
    low, high = np.percentile(spoiled.sound[:, spoiled.measured], (2, 98), axis=1)
    grey = (spoiled.sound - low[:, None, None]) / (high - low)[:, None, None]
    grey = np.rint(np.clip(grey, 0, 1) * 255)
    scene = spoiled.scene(grey.astype(np.uint8) if whole else grey.astype(np.float32) / 255)
    with pytest.raises(GeosegError, match="8-bit"):
        doubts(scene)


@pytest.mark.parametrize("order", MISTAKEN[:-1], ids=",".join)
def test_a_wrong_order_is_warned_of_and_the_advice_works(
    spoiled: Spoiled, order: tuple[str, ...]
) -> None:
    """Where it is said wrongly what the bands are; all but the last two changed, that is rare."""
    given = spoiled.sound[[BANDS.index(name) for name in order]]
    scene = spoiled.scene(given, names=None)
    (line,) = (w for w in doubts(scene, band_names=",".join(BANDS)) if "--band-names" in w)
    advice = line.split("--band-names ")[1].split()[0]
    assert advice == ",".join(order)
    assert doubts(scene, band_names=advice) == []


def test_pixels_of_another_size_are_said(spoiled: Spoiled) -> None:
    for factor in (0.1, 3.0):
        transform = spoiled.where["transform"] @ Affine.scale(factor)
        lines = doubts(spoiled.scene(spoiled.sound, transform=transform))
        assert any("resampled to the model's" in line for line in lines)
    transform = spoiled.where["transform"] @ Affine.scale(10.0)
    with pytest.raises(GeosegError, match="hold too little"):
        doubts(spoiled.scene(spoiled.sound, transform=transform))


def test_a_scene_that_is_mostly_nodata_is_warned_of(spoiled: Spoiled) -> None:
    values = spoiled.sound.copy()
    values[:, values.shape[1] // 20 :] = np.nan
    lines = doubts(spoiled.scene(values))
    assert any("are nodata" in line and "--src-nodata" in line for line in lines), lines


def real_scenes(shared: Path) -> Iterator[tuple[Path, str]]:
    for pattern in ("sentinel2/scenes/*.tif", "imagery/scenes/*.tif", "imagery/six/*.tif"):
        for path in sorted((shared / "data").glob(pattern)):
            with rasterio.open(path) as dataset:
                yield path, ",".join(BANDS if dataset.count == 6 else NINE)


#: Scenes that are cloudy, which was seen by looking at them.
CLOUDY = {
    "oli_alabama_2015.tif",
    "oli_kentucky_lake.tif",
    "s2_mountain_snow_mosaic.tif",
    "s2_rockies_t11uns_20250403.tif",
    "s2_rockies_t11uns_20250423.tif",
}


@pytest.mark.slow
def test_no_real_scene_is_accused_but_those_with_clouds(shared: Path) -> None:
    said: dict[str, list[str]] = {}
    for path, names in real_scenes(shared):
        wanted = {"band_names": _words(names), "scale": 1e-4, "offset": 0.0}
        plan = make_plan(path, PredictOptions(model="landcover-ms", **wanted))
        # Nothing is believed because the user says it.
        lines = preflight(replace(plan, options=replace(plan.options, scale=None)))
        if lines:
            said[path.name] = lines
    assert said.keys() == CLOUDY
    assert all(len(lines) == 1 and "looks cloudy" in lines[0] for lines in said.values())


_NAMES = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "swir1", "swir2")
_WORDS: Mapping[str, str] = dict(zip(NINE, _NAMES, strict=True))


def _words(codes: str) -> str:
    return ",".join(_WORDS.get(code, code) for code in codes.split(","))


@pytest.mark.parametrize("name", ["landsat5", "sentinel2"])
def test_orders_are_known_on_ground_that_the_mixture_was_not_fitted_to(
    shared: Path, name: str
) -> None:
    """Clouds, shadows, water and land of two scenes by others."""
    image = np.load(shared / f"data/labelled/csmask/{name}.npz")["img"].reshape(-1, 6).T
    assert likelier(image[:, ::50], BANDS) is None
    for order in MISTAKEN[1:]:
        given = image[[BANDS.index(band) for band in order], ::50]
        assert likelier(given, BANDS) == Likelier(order, 0.0)


def test_bands_that_are_not_known_are_left_where_they_are() -> None:
    random = np.random.default_rng(0)
    green = np.array([0.04, 0.07, 0.05, 0.12, 0.25, 0.35, 0.36, 0.2, 0.1])
    names = tuple(_WORDS.values())
    pixels = green[:, None] * random.uniform(0.8, 1.2, (9, 500))
    assert likelier(pixels, names) is None
    last = likelier(pixels[[0, 1, 2, 3, 4, 5, 7, 8, 6]], names)
    assert last == Likelier((*names[:6], "swir1", "swir2", "nir"), 0.0)
    assert likelier(pixels[:2], names[:2]) is None
    assert likelier(pixels[:3], ("blue", "blue", "red")) is None
    assert likelier(pixels[:, :0], names) is None
