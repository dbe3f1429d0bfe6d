"""What is geoseg's own among vector files, and what is somebody's work."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import struct
import time
import zlib
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from rasterio.transform import from_origin

import geoseg
from geoseg.core.ours import COLUMNS, is_ours
from geoseg.polygons.formats import VECTORIZE_FORMATS, files_of, write_points
from geoseg.polygons.polygonize import polygonize

SUFFIXES = [suffix for suffix in VECTORIZE_FORMATS if suffix != ".json"]


def write_map(path, classes, tags=True):
    about = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "crs": "EPSG:32633"}
    height, width = classes.shape
    place = from_origin(500_000, 5_500_000, 10, 10)
    with rasterio.open(path, "w", height=height, width=width, transform=place, **about) as dataset:
        dataset.write(classes, 1)
        if tags:
            dataset.update_tags(1, class_0="wood", class_1="water", class_2="rock")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A vector file of each format, of noise and of nothing."""
    folder = tmp_path_factory.mktemp("ours")
    noise = np.random.default_rng(0).integers(0, 3, (40, 40)).astype(np.uint8)
    maps = {
        "noise": write_map(folder / "noise.tif", noise),
        "none": write_map(folder / "none.tif", np.full((40, 40), 255, np.uint8)),
        "untagged": write_map(folder / "untagged.tif", np.full((40, 40), 255, np.uint8), False),
    }
    for name, path in maps.items():
        for suffix in SUFFIXES:
            if suffix == ".pmtiles" and name != "noise":
                continue  # there are none without a tile
            geoseg.vectorize(path, folder / f"{name}{suffix}", layer='land;cover\'s "own"')
    return folder


@pytest.fixture
def gpkg(folder, tmp_path):
    return Path(shutil.copy(folder / "noise.gpkg", tmp_path / "map.gpkg"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["noise", "none", "untagged"])
def test_what_geoseg_wrote_is_its_own(folder, name, suffix):
    for path in files_of(folder / f"{name}{suffix}"):
        assert not path.exists() or is_ours(path)


def test_columns_are_those_of_the_table(folder):
    assert tuple(polygonize(folder / "noise.tif").columns) == (*COLUMNS, "geometry")


def test_nothing_is_written_by_looking(gpkg):
    before = gpkg.read_bytes(), os.stat(gpkg).st_mtime_ns
    assert is_ours(gpkg)
    assert (gpkg.read_bytes(), os.stat(gpkg).st_mtime_ns) == before
    assert os.listdir(gpkg.parent) == ["map.gpkg"]


def test_a_layer_of_the_users_own_makes_it_theirs(gpkg):
    own = geopandas.read_file(gpkg)
    own.to_file(gpkg, layer="fields", mode="a")
    assert not is_ours(gpkg)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE qgis_projects (name TEXT, metadata BLOB, content BLOB)",
        'ALTER TABLE "land;cover\'s ""own""" ADD COLUMN checked TEXT',
        "INSERT INTO layer_styles (f_table_name, styleName) VALUES ('x', 'mine')",
        "UPDATE layer_styles SET styleName = 'mine'",
        "INSERT INTO gpkg_contents (table_name, data_type) VALUES ('pictures', 'tiles')",
        "DELETE FROM gpkg_geometry_columns",
    ],
)
def test_whatever_else_a_geopackage_holds_makes_it_the_users(gpkg, sql):
    assert is_ours(gpkg)
    with sqlite3.connect(gpkg) as database:
        database.execute(sql)
    database.close()
    assert not is_ours(gpkg)


def test_unsaved_changes_make_it_the_users(gpkg):
    Path(f"{gpkg}-wal").write_bytes(b"x")
    assert not is_ours(gpkg)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_table_is_the_users(folder, tmp_path, suffix):
    frame = polygonize(folder / "noise.tif")[["class_id", "geometry"]]
    path = tmp_path / f"own{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path)
    assert path.exists()
    assert not is_ours(path)


def test_what_geopandas_wrote_of_our_columns_is_the_users(folder, tmp_path):
    frame = polygonize(folder / "noise.tif")
    frame.to_parquet(tmp_path / "own.parquet")
    frame.to_file(tmp_path / "own.gpkg")
    assert not is_ours(tmp_path / "own.parquet")
    assert not is_ours(tmp_path / "own.gpkg")


def test_points_are_no_polygons(folder, tmp_path):
    drawn = geoseg.sample(folder / "noise.tif", count=30)
    for suffix in (".gpkg", ".geojson", ".fgb", ".parquet"):
        write_points(drawn.points, tmp_path / f"points{suffix}")
        assert not is_ours(tmp_path / f"points{suffix}")


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".json", ".dbf", ".prj"])
def test_what_is_no_such_file_is_not_ours(folder, tmp_path, suffix):
    path = tmp_path / f"own{suffix}"
    assert not is_ours(path)
    for content in (b"", b"{", b"\0" * 200, b"PAR1PAR1", b"SQLite format 3\0"):
        path.write_bytes(content)
        assert not is_ours(path)
    # What is in the file counts, not what it is called.
    (tmp_path / "vrt.gpkg").write_text("<OGRVRTDataSource></OGRVRTDataSource>")
    assert not is_ours(tmp_path / "vrt.gpkg")
    path.unlink()
    path.mkdir()
    assert not is_ours(path)
    path.rmdir()
    os.mkfifo(path)
    assert not is_ours(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_file_is_no_error(folder, tmp_path, suffix):
    source = folder / f"noise{suffix if suffix != '.shp' else '.dbf'}"
    whole = source.read_bytes()
    rng = random.Random(0)
    path = tmp_path / source.name
    for _ in range(300):
        damaged = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for _ in range(min(len(damaged), rng.choice([1, 5, 50]))):
            where = rng.choice([500, 5000, len(damaged)])
            damaged[rng.randrange(min(where, len(damaged)))] = rng.randrange(256)
        path.write_bytes(damaged)
        is_ours(path)


def test_a_hostile_geopackage_is_given_up_quickly(tmp_path):
    path = tmp_path / "map.gpkg"
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE VIEW gpkg_contents AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
            " SELECT i + 1 FROM n) SELECT i AS table_name, 'x' AS data_type FROM n WHERE i < 0"
        )
    database.close()
    start = time.monotonic()
    assert not is_ours(path)
    assert time.monotonic() - start < 2


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "map.pmtiles"
    pack = zlib.compressobj(wbits=31)
    packed = pack.compress(bytes(500_000_000)) + pack.flush()
    header = b"PMTiles\x03" + bytes(16) + struct.pack("<QQ", 127, len(packed))
    path.write_bytes(header.ljust(127, b"\0") + packed)
    start = time.monotonic()
    assert not is_ours(path)
    assert time.monotonic() - start < 1


def test_geojson_that_qgis_wrote_on_is_the_users(folder, tmp_path):
    path = tmp_path / "map.geojson"
    text = json.loads((folder / "noise.geojson").read_text())
    for feature in text["features"]:
        feature["properties"]["checked"] = True
    path.write_text(json.dumps(text))
    assert not is_ours(path)
    assert pyogrio.list_layers(path).shape == (1, 2)
