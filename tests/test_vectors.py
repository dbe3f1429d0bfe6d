"""Names of files and layers, and what is said of a file that can't be written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from rasterio.transform import from_origin

import geoseg
from geoseg.core.files import NAME_BYTES
from geoseg.errors import OutputError, UsageError
from geoseg.polygons.formats import VECTORIZE_FORMATS, check_layer, check_suffix

SUFFIXES = [suffix for suffix in VECTORIZE_FORMATS if suffix != ".json"]
NAMES = [
    *(
        "a;b",
        "a\nb",
        "a\tb",
        "a\\b",
        "a?b",
        "a#b",
        "a%20b",
        "a'b",
        'a"b',
        "a:b",
        "a|b",
        "a.b",
        "-x",
    ),
    *("-x", "ä ö", "GPKG:x", "vsimem", "http:x", "n" * 200, os.fsdecode(b"a\xffb")),
]


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "map.tif"
    about = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "crs": "EPSG:32633"}
    place = from_origin(500_000, 5_500_000, 10, 10)
    with rasterio.open(path, "w", height=9, width=9, transform=place, **about) as dataset:
        dataset.write(np.random.default_rng(0).integers(0, 3, (9, 9)).astype(np.uint8), 1)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_file_has_the_name_that_was_asked_for(raster, tmp_path, name, suffix):
    made = geoseg.vectorize(raster, tmp_path / f"{name}{suffix}").path
    (tmp_path / f"{name} x").mkdir()
    within = geoseg.vectorize(raster, tmp_path / f"{name} x" / f"map{suffix}").path
    for path in (made, within):
        assert path.is_file()
        # What is there under a plain name is whole.
        files = [p for p in path.parent.iterdir() if p.is_file() and p.stem == path.stem]
        for file in files:
            os.link(file, tmp_path / f"plain{file.suffix}")
        plain = tmp_path / f"plain{suffix}"
        read = geopandas.read_parquet if suffix == ".parquet" else pyogrio.read_dataframe
        assert len(read(plain))
        for file in files:
            (tmp_path / f"plain{file.suffix}").unlink()
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith((".geoseg", "polygons-"))]


def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path):
    path = Path("n" * (NAME_BYTES - 5) + ".gpkg")
    check_suffix(path)
    with pytest.raises(UsageError, match=f"name of {NAME_BYTES + 1} bytes, and {NAME_BYTES} are"):
        geoseg.vectorize(tmp_path / "missing.tif", tmp_path / f"n{path}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "layer", ["a;b", "a\nb", 'a"b', "a'b", "x" * 300, "ä", "a/b", "rtree_x"], ids=ascii
)
def test_a_layer_has_the_name_that_was_asked_for(raster, tmp_path, layer, suffix):
    path = geoseg.vectorize(raster, tmp_path / f"map{suffix}", layer=layer).path
    if suffix in (".gpkg", ".fgb", ".geojson"):
        assert pyogrio.list_layers(path)[0, 0] == layer


@pytest.mark.parametrize(
    "layer", ["", " ", "a\0b", "\ud800", "gpkg_contents", "SQLITE_x"], ids=ascii
)
def test_a_layers_name_that_can_not_be_is_refused_before_any_work(tmp_path, layer):
    with pytest.raises(UsageError, match=r"the layer's name .* \(--layer\)"):
        geoseg.vectorize(tmp_path / "missing.tif", tmp_path / "map.gpkg", layer=layer)
    with pytest.raises(UsageError, match="layer_styles"):
        check_layer(Path("map.gpkg"), "layer_styles")
    check_layer(Path("map.fgb"), "layer_styles")


def test_tiles_of_nothing_are_refused_in_words(raster, tmp_path):
    with pytest.raises(UsageError, match=r"there is no polygon.* choose \.gpkg"):
        geoseg.vectorize(raster, tmp_path / "map.pmtiles", only=[])
    geoseg.vectorize(raster, tmp_path / "map.gpkg", only=[])


def test_gdals_own_cause_is_told_in_one_line(raster, tmp_path, monkeypatch):
    def fails(*args, **options):
        raise pyogrio.errors.DataSourceError(f"{args[1]}: no such\ndriver")

    monkeypatch.setattr(pyogrio, "write_arrow", fails)
    with pytest.raises(OutputError, match=r"map\.fgb: no such driver; choose another") as error:
        geoseg.vectorize(raster, tmp_path / "map.fgb")
    assert "polygons-" not in str(error.value)
    assert "\n" not in str(error.value)
