"""geoseg.training.joined_images: parts of one picture, joined."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import SceneError, TrainingError
from geoseg.scene.opening import open_scene
from geoseg.scene.sources import Rules
from geoseg.training.joined_images import join
from geoseg.training.recipe_file import load_config
from tests.helpers import make_raster
from tests.trainhelpers import BANDS

HEIGHTS, WIDTHS = (5, 7, 4), (6, 3)


def write(path: Path, pixels: NDArray[np.uint8], **profile: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_raster(path, pixels, **{"crs": None, "transform": Affine.identity(), **profile})


def read(path: Path) -> NDArray[np.uint8]:
    with warnings.catch_warnings(), rasterio.open(path) as dataset:
        warnings.simplefilter("ignore")
        pixels: NDArray[np.uint8] = dataset.read()
        return pixels


def cut(folder: Path, whole: NDArray[np.uint8]) -> list[Path]:
    """A picture as parts of 3 rows and 2 columns, 1.tif to 6.tif."""
    rows, cols = np.cumsum((0, *HEIGHTS)), np.cumsum((0, *WIDTHS))
    return [
        write(
            folder / f"{2 * r + c + 1}.tif", whole[:, rows[r] : rows[r + 1], cols[c] : cols[c + 1]]
        )
        for r in range(3)
        for c in range(2)
    ]


def picture(bands: int, dtype: str = "uint8") -> NDArray[np.uint8]:
    shape = (bands, sum(HEIGHTS), sum(WIDTHS))
    return np.random.default_rng(0).integers(1, 250, shape).astype(dtype)


@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, "uint8"), (3, "uint8"), (6, "uint16"), (2, "float32")]
)
def test_parts_joined_are_the_picture_that_was_cut(tmp_path, bands, dtype):
    whole = picture(bands, dtype)
    path = join(cut(tmp_path, whole), 2)
    np.testing.assert_array_equal(read(path), whole)
    assert path.stem == "1"
    if (bands, dtype) == (3, "uint8"):
        assert [b.name for b in open_scene(path, Rules.of(tmp_path)).bands] == [
            "red",
            "green",
            "blue",
        ]


def test_one_column_and_one_part(tmp_path):
    part = picture(3)
    paths = [write(tmp_path / f"{i}.tif", part + i) for i in range(3)]
    np.testing.assert_array_equal(
        read(join(paths, 1)), np.concatenate([part + i for i in range(3)], axis=1)
    )
    np.testing.assert_array_equal(read(join(paths[:1], 1)), part)


def test_colour_tables_are_resolved_part_by_part(tmp_path):
    """The same colour has another number in each part."""
    red, blue = (200, 10, 20, 255), (1, 2, 250, 255)
    numbers = np.array([[[0, 1], [1, 0]]], np.uint8)
    parts = []
    for name, table in (("a", {0: red, 1: blue}), ("b", {0: blue, 1: red})):
        parts.append(write(tmp_path / f"{name}.tif", numbers, photometric="palette"))
        with rasterio.open(parts[-1], "r+") as dataset:
            dataset.write_colormap(1, table)
    plain = np.broadcast_to(np.array(red[:3], np.uint8)[:, None, None], (3, 2, 2))
    parts.append(write(tmp_path / "c.tif", plain))
    found = read(join(parts, 3))
    colors = np.array([red[:3], blue[:3]], np.uint8)
    expected = np.concatenate([colors[numbers[0]], colors[1 - numbers[0]]], axis=1)
    np.testing.assert_array_equal(found[:, :, :4], expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(found[:, :, 4:], plain)


def test_a_changed_part_is_another_picture(tmp_path):
    parts = cut(tmp_path, picture(1))
    before = join(parts, 2)
    assert join(parts, 2) == before
    os.utime(parts[3], ns=(1, 1))
    assert join(parts, 2) != before


def test_parts_that_do_not_fit_are_refused(tmp_path):
    parts = cut(tmp_path, picture(3))
    for wrong, columns, message in (
        (parts[:5], 2, "5 parts don't fill rows of 2"),
        (
            [*parts[:3], parts[2], *parts[4:]],
            2,
            r"3\.tif has 7 rows and 6 columns, where row 2, column 2 .* has 7 and 3",
        ),
        ([*parts[:5], write(tmp_path / "x.tif", picture(1)[:, :4, :3])], 2, "hold .* bands"),
        ([*parts[:5], write(tmp_path / "crs.tif", picture(3), crs="EPSG:32633")], 2, "has a CRS"),
    ):
        with pytest.raises(TrainingError, match=message):
            join(wrong, columns)
    (tmp_path / "bad.tif").write_bytes(b"no raster")
    with pytest.raises(SceneError, match=r"bad\.tif"):
        join([*parts[:5], tmp_path / "bad.tif"], 2)
    with pytest.raises(TrainingError, match="complex64"):
        join([write(tmp_path / "c.tif", picture(1, "complex64"))], 1)


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "file"))
    with pytest.raises(TrainingError, match="GEOSEG_CACHE"):
        join([write(tmp_path / "a.tif", picture(1))], 1)


def recipe(folder: Path, columns: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(
        f"""
        name = "it"
        bands = {list(BANDS)}
        gsd = 1.0
        gsd_range = [0.5, 2.0]
        quantity = "number"
        split = {{ by = "blocks" }}
        classes = [{{ id = 0, name = "a", color = "#000000" }},
                   {{ id = 1, name = "b", color = "#FFFFFF" }}]
        [[scenes]]
        images = "tile_*/images/*.tif"
        labels = "tile_*/masks/*.tif"
        columns = {columns}
        """
    )
    return path


def test_a_recipe_joins_the_images_of_each_folder_and_their_labels(tmp_path):
    whole = {}
    for tile in ("tile_1", "tile_2"):
        for kind in ("images", "masks"):
            whole[tile, kind] = picture(3 if kind == "images" else 1) // (2 + (tile == "tile_2"))
            cut(tmp_path / tile / kind, whole[tile, kind])
    scenes = load_config(recipe(tmp_path, "2")).scenes
    assert len(scenes) == 2
    for scene, tile in zip(scenes, ("tile_1", "tile_2"), strict=True):
        np.testing.assert_array_equal(read(scene.path), whole[tile, "images"])
        np.testing.assert_array_equal(read(scene.labels[0]), whole[tile, "masks"])


@pytest.mark.parametrize("columns", ["0", "true", '"two"', "2.0"])
def test_columns_are_a_number(tmp_path, columns):
    for kind in ("images", "masks"):
        cut(tmp_path / "tile_1" / kind, picture(1))
    with pytest.raises(TrainingError, match="columns is"):
        load_config(recipe(tmp_path, columns))


def test_parts_of_a_picture_need_labels_of_their_own(tmp_path):
    cut(tmp_path / "tile_1" / "images", picture(1))
    path = recipe(tmp_path, "2")
    path.write_text(path.read_text().replace('labels = "tile_*/masks/*.tif"', ""))
    with pytest.raises(TrainingError, match="has 0 label files"):
        load_config(path)
