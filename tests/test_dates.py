"""Bands of two dates are no scene."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import BandError
from geoseg.scene.dates import date_in
from geoseg.scene.opening import open_scene
from tests import products
from tests.helpers import make_raster
from tests.products import CODES, SIX, ground, numbers, raster

GROUND = ground()
FIRST, SECOND = "T33UUP_20220601T101559", "T33UUP_20220611T101559"


def two_dates(folder: Path) -> Path:
    """Blue and green of one day, the others of another."""
    for band, (code, _) in enumerate(CODES):
        raster(folder / f"{FIRST if band < 2 else SECOND}_{code}.tif", numbers(GROUND[band]))
    return folder


def test_bands_of_two_dates_are_refused_and_numbers_choose_among_them(tmp_path: Path) -> None:
    scene = open_scene(two_dates(tmp_path / "in"))
    with pytest.raises(BandError, match=r"of 2 dates.*2022-06-01: blue.*2022-06-11: red") as caught:
        scene.choose(SIX)
    assert "--bands" in str(caught.value)
    assert len(scene.choose(SIX, "1,2,3,4,5,6")) == 6
    scene.choose(("red", "nir"))  # of one date


def test_the_same_band_of_two_dates_says_so(tmp_path: Path) -> None:
    for name in (FIRST, SECOND):
        raster(tmp_path / f"{name}_B02.tif", numbers(GROUND[0]))
    with pytest.raises(BandError, match="of 2022-06-01 and 2022-06-11: a scene is of one date"):
        open_scene(tmp_path)


def test_bands_of_one_file_with_dates_in_their_names(tmp_path: Path) -> None:
    """As Earth Engine's toBands() writes them."""
    names = ["20220601_B2", "20220601_B3", "20220611_B4", "20220611_B8", "20220611_B11",
             "20220611_B12"]  # fmt: skip
    path = make_raster(tmp_path / "sentinel2.tif", numbers(GROUND), descriptions=names)
    with pytest.raises(BandError, match=r"of 2 dates.*--bands"):
        open_scene(path).choose(SIX)
    twice = [f"{day}_{code}" for day in ("20220601", "20220611") for code in ("B2", "B3", "B4")]
    path = make_raster(tmp_path / "sentinel2.tif", numbers(GROUND), descriptions=twice)
    with pytest.raises(BandError, match=r"20220601_B2 and 20220611_B2 are all blue.*--bands"):
        open_scene(path).choose(SIX[:3])
    assert [b.index for b in open_scene(path).choose(SIX[:3], "4,5,6")] == [4, 5, 6]


def test_files_of_folders_of_two_dates(tmp_path: Path) -> None:
    for day, code, band in (("2022-06-01", "B03", 1), ("2022-06-11", "B04", 2)):
        raster(tmp_path / day / f"{code}.tif", numbers(GROUND[band]))
    scene = open_scene(sorted(tmp_path.glob("*/*.tif")), band_names="green,red")
    with pytest.raises(BandError, match="of 2 dates"):
        scene.choose(("green", "red"))


def test_products_as_delivered_are_of_one_date(tmp_path: Path) -> None:
    """Their names also have the dates of processing."""
    for folder in (
        products.safe(tmp_path / "a", GROUND), products.landsat(tmp_path / "b", GROUND),
        products.hls(tmp_path / "c", GROUND, "L30"), products.maja(tmp_path / "d", GROUND),
    ):  # fmt: skip
        scene = open_scene(folder)
        assert scene.choose(SIX[:3])
    files = sorted((tmp_path / "a").glob("*/GRANULE/*/IMG_DATA/*/*_B*.jp2"))
    assert open_scene(files).choose(SIX)


@given(st.dates(date(1972, 1, 1), date(2099, 12, 31)), st.sampled_from(["%Y%m%d", "%Y-%m-%d"]))
def test_dates_are_found_in_names(day: date, form: str) -> None:
    assert date_in(f"LC08_193024_{day.strftime(form)}_20990101_B2") == day
    assert date_in(f"T33UUP.{day.strftime('%Y%j')}T101559.B02") == day


@pytest.mark.parametrize("text", ["B02", "20221301", "202206011", "1420220601", "x-2022-06_01"])
def test_other_numbers_are_no_dates(text: str) -> None:
    assert date_in(text) is None
