"""A STAC item that was downloaded with its files is evidence of what their numbers mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoseg.errors import RadiometryError
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import find_radiometry
from geoseg.scene.scene import Scene
from tests import products
from tests.helpers import make_raster
from tests.products import CODES, SIX, ground, numbers, raster
from tests.stacitems import item

GROUND = ground()
KEYS = ("blue", "green", "red", "nir", "swir16", "swir22")


def earth_search(applied: bool | None = True, **other: Any) -> dict[str, Any]:
    """Earth Search's, with addresses on its server; more assets than were downloaded."""
    assets: dict[str, Any] = {
        key: {
            "href": f"https://sentinel-cogs.s3.us-west-2.amazonaws.com/S2B_33UUP/{code}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "eo:bands": [{"name": key, "common_name": key}],
            "raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": -0.1}],
        }
        for key, (code, _) in zip(KEYS, CODES, strict=True)
    }
    assets["aot"] = {"href": "https://sentinel-cogs.s3.us-west-2.amazonaws.com/S2B_33UUP/AOT.tif"}
    about = {} if applied is None else {"earthsearch:boa_offset_applied": applied}
    about |= {"s2:processing_baseline": "05.09", "platform": "sentinel-2b"}
    return item("S2B_33UUP_20220601_0_L2A", "sentinel-2-l2a", assets, **{**about, **other})


def planetary_computer(baseline: str = "04.00") -> dict[str, Any]:
    assets = {
        code: {"href": f"https://sentinel2l2a01.blob.core.windows.net/x/{code}.tif?sig=a",
               "eo:bands": [{"name": code, "common_name": key}]}
        for key, (code, _) in zip(KEYS, CODES, strict=True)
    }  # fmt: skip
    about = {"s2:processing_baseline": baseline, "platform": "Sentinel-2B"}
    return item("S2B_MSIL2A_20220601", "sentinel-2-l2a", assets, **about)


def put(folder: Path, value: dict[str, Any], name: str = "S2B_33UUP_20220601_0_L2A.json") -> Path:
    (folder / name).write_text(json.dumps(value))
    return folder


def offset_of(scene: Scene, offset: float) -> None:
    found = find_radiometry(scene, scene.choose(SIX), "reflectance")
    assert found.gain == pytest.approx((1e-4,) * 6)
    assert found.bias == pytest.approx((offset,) * 6)


@pytest.mark.parametrize(
    ("value", "added"),
    [
        (earth_search(True), 0),
        (earth_search(False), 1000),
        (planetary_computer("04.00"), 1000),
        (planetary_computer("03.01"), 0),
    ],
    ids=["taken off", "still in", "baseline 04.00", "baseline 03.01"],
)
def test_the_item_beside_files_says_whether_the_offset_is_in_them(
    tmp_path: Path, value: dict[str, Any], added: int
) -> None:
    folder = products.loose(tmp_path, GROUND, "july", added=added)
    with pytest.raises(RadiometryError, match=r"--scale 0\.0001 --offset"):
        offset_of(open_scene(folder), 0)
    scene = open_scene(put(folder, value))
    offset_of(scene, -added / 10000)
    assert scene.name == "july" and scene.item is not None
    assert any("names these files" in note for note in scene.notes)
    # A run sees that the item has changed.
    assert str(folder / "S2B_33UUP_20220601_0_L2A.json") in scene.files


def test_an_item_leads_to_no_file_elsewhere(tmp_path: Path) -> None:
    folder = products.loose(tmp_path, GROUND, "july")
    secret = products.loose(tmp_path, GROUND[:, :8, :8], "private")
    value = earth_search()
    for asset in value["assets"].values():
        asset["href"] = str(secret / Path(asset["href"]).name)
    scene = open_scene(put(folder, value))
    assert {str(Path(path).parent) for path in scene.paths} == {str(folder)}
    offset_of(scene, 0)


@pytest.mark.parametrize("spoil", ["half", "two", "another file", "floats", "no item"])
def test_an_item_that_is_not_sure_to_be_of_the_files_tells_nothing(
    tmp_path: Path, spoil: str
) -> None:
    folder = products.loose(tmp_path, GROUND, "july")
    value = earth_search()
    if spoil == "half":
        del value["assets"]["red"]
    elif spoil == "two":
        put(folder, planetary_computer(), "other.json")
    elif spoil == "another file":
        raster(folder / "B05.tif", numbers(GROUND[2]))
    elif spoil == "floats":
        for band, (code, _) in enumerate(CODES):
            raster(folder / f"{code}.tif", GROUND[band].astype(np.float32))
    else:
        value = {"assets": [1], "type": "Feature"}
    scene = open_scene(put(folder, value))
    assert scene.item is None
    if spoil == "floats":
        found = find_radiometry(scene, scene.choose(SIX), "reflectance")
        assert found.gain == (1.0,) * 6 and found.bias == (0.0,) * 6
        return
    with pytest.raises(RadiometryError, match=r"--scale 0\.0001 --offset"):
        offset_of(scene, 0)


def test_a_products_metadata_come_before_an_item(tmp_path: Path) -> None:
    """USGS puts an item into its archives, too."""
    folder = products.landsat(tmp_path, GROUND)
    assets = {path.stem: {"href": f"https://x.org/{path.name}", "raster:bands": [{"scale": 5}]}
              for path in folder.glob("*.TIF")}  # fmt: skip
    scene = open_scene(put(folder, item("LC08", "landsat-c2l2-sr", assets)))
    assert scene.item is None
    assert find_radiometry(scene, scene.choose(SIX), "reflectance").gain == (2.75e-5,) * 6


@pytest.mark.parametrize("form", ["txt", None])
def test_a_thermal_band_spoils_no_folder_and_is_no_reflectance(
    tmp_path: Path, form: str | None
) -> None:
    folder = products.landsat(tmp_path, GROUND, form=form)
    raster(folder / f"{folder.name}_ST_B10.TIF", np.full((32, 32), 44000, np.uint16), 30)
    raster(folder / f"{folder.name}_ST_QA.TIF", np.full((32, 32), 200, np.int16), 30)
    scene = open_scene(folder)
    found = find_radiometry(scene, scene.choose(SIX), "reflectance")
    assert found.gain == (2.75e-5,) * 6 and found.bias == (-0.2,) * 6
    with pytest.raises(RadiometryError, match=r"units differ|kelvin = number \* 0\.00341802"):
        find_radiometry(scene, scene.choose(("red", "thermal1")), "reflectance")
    floats = make_raster(
        tmp_path / "floats.tif", np.ones((2, 8, 8), np.float32), descriptions=["red", "thermal1"]
    )
    assert find_radiometry(open_scene(floats), open_scene(floats).bands, "reflectance").gain
