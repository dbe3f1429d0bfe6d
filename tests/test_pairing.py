"""geoseg.training.pairing: which labels belong to which image."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine

from geoseg.errors import TrainingError
from geoseg.training.pairing import find_files, pair
from tests.helpers import make_raster


def image(path: Path, east: float = 0.0, crs: str | None = "EPSG:32633") -> Path:
    """16 px of 10 m, so many metres east of the first one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = Affine(10, 0, 500000 + east, 0, -10, 5000000)
    return make_raster(path, np.ones((1, 16, 16), np.uint8), crs=crs, transform=transform)


def vector(path: Path, *boxes: tuple[float, float], crs: str | None = "EPSG:32633") -> Path:
    """Squares of 100 m from so many metres east to so many."""
    shapes = [shapely.box(500000 + a, 4999900, 500000 + b, 5000000) for a, b in boxes]
    frame = geopandas.GeoDataFrame({"class_id": [1] * len(shapes)}, geometry=shapes, crs=crs)
    frame.to_file(path)
    return path


def names(pairs):
    return [(i.name, tuple(p.name for p in found)) for i, found in pairs]


def test_the_same_name_in_folders_of_their_own(tmp_path):
    images = [tmp_path / f"tile_{n}" / "images" / f"{x}.tif" for n in (1, 2) for x in "ab"]
    labels = [tmp_path / f"tile_{n}" / "masks" / f"{x}.png" for n in (1, 2) for x in "ab"]
    assert pair(images, labels[::-1]) == [(i, (p,)) for i, p in zip(images, labels, strict=True)]


def test_a_name_that_begins_with_the_images_in_the_same_folder(tmp_path):
    """Also where one image's name begins with another's, as tile_1 and tile_10."""
    images = [tmp_path / f"tile_{n}.tif" for n in range(1, 13)]
    labels = [tmp_path / f"tile_{n}_labels.tif" for n in range(1, 13)]
    assert pair(images, labels[::-1]) == [(i, (p,)) for i, p in zip(images, labels, strict=True)]


def test_labels_in_the_folder_of_the_images_are_no_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        image(tmp_path / "both" / f"{name}.tif")
        image(tmp_path / "both" / f"{name}_labels.tif")
    images = find_files([Path("both")])
    labels = find_files([tmp_path / "both" / "*_labels.tif"])
    assert names(pair(images, labels)) == [
        ("a.tif", ("a_labels.tif",)),
        ("b.tif", ("b_labels.tif",)),
    ]
    with pytest.raises(TrainingError, match=r"a\.tif and all .* --labels 'both/\*_labels\.tif'"):
        pair(images, find_files([Path("both")]))


def test_one_image_and_one_label_file_need_no_names(tmp_path):
    assert pair([tmp_path / "a.tif"], [tmp_path / "z.gpkg"]) == [
        (tmp_path / "a.tif", (tmp_path / "z.gpkg",))
    ]


def test_without_labels_every_image_is_alone(tmp_path):
    assert pair([tmp_path / "a.tif", tmp_path / "b.tif"], []) == [
        (tmp_path / "a.tif", ()),
        (tmp_path / "b.tif", ()),
    ]


def test_by_place_every_image_gets_all_labels_that_reach_over_it(tmp_path):
    images = [image(tmp_path / f"{n}.tif", 1000 * n) for n in range(3)]
    west = vector(tmp_path / "west.gpkg", (50, 1100))
    east = vector(tmp_path / "east.geojson", (1050, 1060))
    assert names(pair(images, [west, east])) == [
        ("0.tif", ("west.gpkg",)),
        ("1.tif", ("west.gpkg", "east.geojson")),
        ("2.tif", ()),
    ]
    # The label file's own CRS does not matter.
    moved = geopandas.read_file(west).to_crs("EPSG:3857")
    moved.to_file(tmp_path / "moved.gpkg")
    assert names(pair(images, [tmp_path / "moved.gpkg"])) == [
        ("0.tif", ("moved.gpkg",)),
        ("1.tif", ("moved.gpkg",)),
        ("2.tif", ()),
    ]


def test_labels_of_another_place_are_told_with_both_extents(tmp_path):
    images = [image(tmp_path / "a.tif"), image(tmp_path / "b.tif", 200)]
    far = vector(tmp_path / "far.gpkg", (90000, 91000))
    with pytest.raises(TrainingError, match=r"a\.tif reaches over 15, .*far\.gpkg over 16\.1"):
        pair(images, [far])


def test_neither_names_nor_places(tmp_path):
    bare = [image(tmp_path / f"{x}.tif", crs=None) for x in "ab"]
    labels = [image(tmp_path / "labels" / f"{x}.tif") for x in "cd"]
    with pytest.raises(TrainingError, match=r"a\.tif has no CRS"):
        pair(bare, labels)
    with pytest.raises(TrainingError, match=r"the names don't pair them .*a\.tif has no CRS"):
        pair(labels, bare)


def test_files_folders_and_globs(tmp_path):
    for name in ("b.tif", "a.tif", "sub/c.jp2", "d.geojson", "notes.txt", ".hidden.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_files([tmp_path / "b.tif", tmp_path])
    assert found == [tmp_path / n for n in ("b.tif", "a.tif", "d.geojson", "sub/c.jp2")]
    assert find_files([tmp_path / "*.tif"]) == [tmp_path / "a.tif", tmp_path / "b.tif"]
    with pytest.raises(TrainingError, match="none matches"):
        find_files([tmp_path / "*.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="no raster or vector file"):
        find_files([tmp_path / "empty"])


def test_a_folder_of_bands_is_one_scene(tmp_path):
    product = tmp_path / "S2B_MSIL2A_20200223T032739"
    for band in ("B02", "B03", "B04"):
        image(product / f"T48QUE_20200223T032739_{band}.tif")
    assert find_files([product]) == [product]
