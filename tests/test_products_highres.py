"""WorldView, QuickBird, Pléiades and SPOT as delivered: bands, bits, and what is no reflectance."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geoseg.cards.card import Normalization
from geoseg.errors import BandError, RadiometryError, SceneError
from geoseg.prediction.run import predict
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import find_radiometry
from tests.helpers import make_raster, tiny_model
from tests.products_highres import airbus, counts, maxar

RGBN = ("blue", "green", "red", "nir")
EIGHT = ["coastal", "blue", "green", None, "red", None, "nir", None]


@pytest.mark.parametrize("xml", [False, True])
@pytest.mark.parametrize("kind", ["folder", "zip", "file"])
@pytest.mark.parametrize(
    ("satellite", "names"),
    [("WV02", EIGHT), ("QB02", list(RGBN)), ("GE01", ["red", "green", "blue"])],
)
def test_maxars_metadata_name_bands_and_bits(
    tmp_path: Path, xml: bool, kind: str, satellite: str, names: list[str | None]
) -> None:
    folder = maxar(tmp_path, counts(len(names)), satellite=satellite, xml=xml)
    source: Any = folder
    if kind == "zip":
        source = shutil.make_archive(str(tmp_path / "order"), "zip", folder)
    elif kind == "file":
        (source,) = folder.glob("*.TIF")
    scene = open_scene(source)
    assert [band.name for band in scene.bands] == names
    assert {band.bits for band in scene.bands} == {11} and {b.nodata for b in scene.bands} == {0}
    assert scene.sensor is not None and scene.sensor.name.startswith("WorldView")


def test_counts_are_no_reflectance_and_the_advice_works(tmp_path: Path) -> None:
    scene = open_scene(maxar(tmp_path, counts(4), satellite="GE01"))
    bands = scene.choose(RGBN)
    with pytest.raises(RadiometryError, match=r"no reflectance.*AComp.*--scale 0\.0001"):
        find_radiometry(scene, bands, "reflectance")
    assert find_radiometry(scene, bands, "reflectance", scale=1e-4).gain == (1e-4,) * 4
    assert find_radiometry(scene, bands, "number").gain == (1.0,) * 4


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({"bits": 8}, 8),
        ({"enhancement": "DRA"}, None),
        ({"satellite": "XX09"}, 16),
        ({"bits": 11}, 11),
    ],
)
def test_bits_are_what_the_metadata_say(tmp_path: Path, options: Any, bits: int | None) -> None:
    scene = open_scene(maxar(tmp_path, counts(4), **options))
    assert {band.bits for band in scene.bands} == {bits}


def test_bands_whose_order_is_unknown_stay_without_names(tmp_path: Path) -> None:
    folder = maxar(tmp_path / "a", counts(4), band_id="MS9")
    assert [band.name for band in open_scene(folder).bands] == [None] * 4
    folder = maxar(tmp_path / "b", counts(4), band_id="RGB")  # of three bands
    assert [band.name for band in open_scene(folder).bands] == [None] * 4
    with pytest.raises(BandError, match="--band-names"):
        open_scene(folder).choose(RGBN)


def test_a_picture_in_parts_is_refused_and_joined_by_the_advice(tmp_path: Path) -> None:
    values = counts(4)
    folder = maxar(tmp_path, values, satellite="GE01", parts=2)
    with pytest.raises(SceneError, match=r"in 2 parts.*gdalbuildvrt.*blue,green,red,nir") as caught:
        open_scene(folder)
    assert "_R*C*-056956784010_01_P001.TIF" in str(caught.value)
    assert len(list(folder.glob("*M2AS_R*C*-056956784010_01_P001.TIF"))) == 2
    # As gdalbuildvrt joins them.
    joined = make_raster(
        tmp_path / "scene.tif", values, transform=rasterio.Affine(0.5, 0, 0, 0, -0.5, 0)
    )
    scene = open_scene(joined, band_names=",".join(RGBN))
    assert [band.name for band in scene.bands] == list(RGBN)


def test_bits_of_a_file_itself(tmp_path: Path) -> None:
    path = make_raster(tmp_path / "s.tif", counts(4), nbits=11)
    assert {band.bits for band in open_scene(path).bands} == {11}
    plain = make_raster(tmp_path / "p.tif", counts(4))
    assert {band.bits for band in open_scene(plain).bands} == {None}


# Airbus

NEO = {"RGB_R1C1": (counts(3), ["R", "G", "B"]), "NED_R1C1": (counts(3), ["NIR", "RE", "DB"])}


@pytest.mark.parametrize("zipped", [False, True])
def test_pleiades_neo_is_one_scene_of_two_files(tmp_path: Path, zipped: bool) -> None:
    folder = airbus(tmp_path, NEO)
    source = shutil.make_archive(str(tmp_path / "order"), "zip", folder) if zipped else folder
    scene = open_scene(source)
    assert [b.name for b in scene.bands] == ["red", "green", "blue", "nir", None, "coastal"]
    assert {b.bits for b in scene.bands} == {12} and {b.nodata for b in scene.bands} == {0}
    with pytest.raises(RadiometryError, match=r"no reflectance.*--scale"):
        find_radiometry(scene, scene.choose(RGBN), "reflectance")


def test_reflectance_by_airbus_is_told_by_its_factors(tmp_path: Path) -> None:
    scene = open_scene(airbus(tmp_path, NEO, processing="REFLECTANCE", gain=8000))
    found = find_radiometry(scene, scene.choose(RGBN), "reflectance")
    assert found.gain == (1 / 8000,) * 4 and found.bias == (0,) * 4
    assert "Band_Reflectance" in found.source
    assert {b.bits for b in scene.bands} == {None}  # which are those of counts


def test_pleiades_without_a_list_of_its_bands_is_asked_for_them(tmp_path: Path) -> None:
    """Programs differ in what they take the order for."""
    picture = {"IMG_PHR1A_MS_R1C1": (counts(4), ["B2", "B1", "B0", "B3"])}
    folder = airbus(tmp_path / "a", picture, mission="PHR", indexed=False)
    with pytest.raises(BandError, match=r"4 bands carry no names.*--band-names"):
        open_scene(folder).choose(RGBN)
    scene = open_scene(next(folder.glob("*.TIF")), band_names="red,green,blue,nir")
    assert scene.choose(RGBN)[0].index == 3
    named = open_scene(airbus(tmp_path / "b", picture, mission="PHR"))
    assert [b.name for b in named.bands] == ["red", "green", "blue", "nir"]


def test_damaged_metadata_name_nothing(tmp_path: Path) -> None:
    folder = airbus(tmp_path, NEO)
    (path,) = folder.glob("DIM_*.XML")
    path.write_text(path.read_text().replace("<BAND_INDEX>1<", "<BAND_INDEX>one<"))
    scene = open_scene(folder)
    assert [b.name for b in scene.bands if b.index == 1] == [None, None]
    path.write_text("<Dimap_Document>")
    with pytest.raises(SceneError, match="named after a band"):
        open_scene(folder)
    assert np.all([b.name is None for b in open_scene(folder / "RGB_R1C1.TIF").bands])


def test_a_dark_picture_is_brought_to_8_bits_by_the_depth_that_its_metadata_say(
    tmp_path: Path,
) -> None:
    """Numbers of up to 900 look like 10 bits, and are 11."""
    screen = Normalization("min-max", {"minimum": (0.0,) * 3, "maximum": (255.0,) * 3})
    names = ("red", "green", "blue")
    model = tiny_model(tmp_path / "model", names, ("a", "b"), normalization=screen)
    folder = maxar(tmp_path, np.minimum(counts(4), 900), satellite="GE01")
    with pytest.raises(RadiometryError, match=r"11 bits: give --scale 0\.125,"):
        predict(folder, tmp_path / "map.tif", model=model, no_vector=True)
    assert predict(folder, tmp_path / "map.tif", model=model, no_vector=True, scale=0.125)
