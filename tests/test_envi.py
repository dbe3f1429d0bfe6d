"""ENVI files: interleaves, wavelengths, nodata and the scale factor of their headers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg.errors import BandError, RadiometryError, SceneError
from geoseg.geo.window import Window
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import find_radiometry
from geoseg.scene.reader import SceneReader
from tests.helpers import make_raster
from tests.products import SIX, grid, ground, numbers

GROUND = ground(16)
LENGTHS = (492.4, 559.8, 664.6, 832.8, 1613.7, 2202.4)


def envi(path: Path, interleave: str = "BIL", lines: str = "", names: str = "") -> Path:
    """Write six bands and a header as ENVI has it."""
    values = numbers(GROUND, dtype="int16")
    values[:, 0, 0] = -9999
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", driver="ENVI", height=16, width=16, count=6, dtype="int16",
        crs="EPSG:32633", transform=grid(10), INTERLEAVE=interleave,
    ) as dataset:  # fmt: skip
        dataset.write(values)
    Path(f"{path}.aux.xml").unlink(missing_ok=True)
    header = path.with_suffix(".hdr")
    text = re.sub(r"band names = \{[^}]*\}\n?", "", header.read_text())
    assert f"interleave = {interleave.lower()}" in text
    header.write_text(f"{text}{lines}{names}")
    return path


WHOLE = (
    f"wavelength units = Nanometers\nwavelength = {{{', '.join(map(str, LENGTHS))}}}\n"
    "data ignore value = -9999\nreflectance scale factor = 10000.0\n"
)


@pytest.mark.parametrize("interleave", ["BSQ", "BIL", "BIP"])
@pytest.mark.parametrize("kind", ["file", "header", "folder", "zip"])
def test_an_envi_file_says_what_it_holds(tmp_path: Path, interleave: str, kind: str) -> None:
    path = envi(tmp_path / "in" / "scene.dat", interleave, WHOLE)
    source = {"file": path, "header": path.with_suffix(".hdr"), "folder": path.parent}.get(kind)
    if source is None:
        source = Path(shutil.make_archive(str(tmp_path / "scene"), "zip", path.parent))
    scene = open_scene(source)
    bands = scene.choose(SIX)
    found = find_radiometry(scene, bands, "reflectance")
    with SceneReader(bands, scene.grid) as reader:
        values, valid = reader.read(Window(0, 0, 16, 16))
    assert (~valid).sum() == 1 and {band.nodata for band in bands} == {-9999}
    real = values * np.array(found.gain)[:, None, None]
    assert np.abs(real - GROUND)[:, valid].max() < 1e-4
    if kind != "zip":
        assert str(path.with_suffix(".hdr")) in scene.files


@pytest.mark.parametrize("end", ["", ".img", ".bsq"])
def test_the_raster_of_a_header_is_found_under_any_suffix(tmp_path: Path, end: str) -> None:
    path = envi(tmp_path / "scene.dat", lines=WHOLE)
    path.rename(tmp_path / f"scene{end}")
    assert open_scene(tmp_path / "scene.hdr").bands[0].name == "blue"


@pytest.mark.parametrize("value", ["0", "-1", "nan", "much"])
def test_a_factor_that_is_none_leaves_the_unit_open(tmp_path: Path, value: str) -> None:
    lines = WHOLE.replace("10000.0", value)
    scene = open_scene(envi(tmp_path / "scene.dat", lines=lines))
    with pytest.raises(RadiometryError, match=r"unit is unknown.*--scale"):
        find_radiometry(scene, scene.choose(SIX), "reflectance")


def test_names_of_bands_without_wavelengths(tmp_path: Path) -> None:
    names = f"band names = {{{', '.join(SIX)}}}\n"
    assert [b.name for b in open_scene(envi(tmp_path / "a.dat", names=names)).bands] == list(SIX)
    with pytest.raises(BandError, match="--band-names"):
        open_scene(envi(tmp_path / "b.dat")).choose(SIX)


def test_a_folder_of_several_rasters_is_no_scene_without_names(tmp_path: Path) -> None:
    make_raster(tmp_path / "a.tif", GROUND, descriptions=SIX)
    assert open_scene(tmp_path).choose(SIX)
    make_raster(tmp_path / "b.tif", GROUND, descriptions=SIX)
    with pytest.raises(SceneError, match="holds 2 raster files and none is named after a band"):
        open_scene(tmp_path)


def test_a_layer_alone_is_no_scene(tmp_path: Path) -> None:
    make_raster(tmp_path / "x_SCL.tif", np.ones((1, 8, 8), np.uint8))
    with pytest.raises(SceneError, match="holds 1 raster files"):
        open_scene(tmp_path)
