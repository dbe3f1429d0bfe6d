"""configs/landcover_aerial_2.py: the scenes that landcover-aerial-2 learns from."""

from __future__ import annotations

import json
import math
import runpy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geoseg.training.recipe_file import load_document

CONFIGS = Path(__file__).parents[1] / "configs"
SCRIPT: dict[str, Any] = runpy.run_path(str(CONFIGS / "landcover_aerial_2.py"))
IDS: dict[str, int] = SCRIPT["IDS"]


def write(path: Path, values: np.ndarray, driver: str, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver=driver,
            count=count,
            height=height,
            width=width,
            dtype="uint8",
            **options,
        ) as dataset:
            dataset.write(values)


def read(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            return dataset.read()


def corner(x: float, y: float, zoom: int) -> tuple[float, float]:
    """Longitude and latitude of a tile's north-western corner, as the web's maps are cut."""
    latitude = math.atan(math.sinh(math.pi * (1 - 2 * y / 2**zoom)))
    return x / 2**zoom * 360 - 180, math.degrees(latitude)


def test_tiles_are_joined_where_their_names_put_them(tmp_path):
    """Two tiles side by side and one far away; a house over the inner halves of the two."""
    zoom, x, y = 20, 619224, 523264
    source = tmp_path / "data/aerial/kampala"
    grey = np.full((3, 256, 256), 40, np.uint8)
    for n, (east, south) in enumerate(((0, 0), (1, 0), (9, 9))):
        # The last one has an alpha band, which hides its upper rows.
        tile = grey + np.uint8(n)
        if n == 2:
            alpha = np.full((1, 256, 256), 255, np.uint8)
            alpha[:, :10] = 0
            tile = np.concatenate((tile, alpha))
        write(source / f"OAM-{x + east}-{y + south}-{zoom}.png", tile, "PNG")
    west, north = corner(x + 0.5, y + 0.25, zoom)
    east, south = corner(x + 1.5, y + 0.5, zoom)
    ring = [[west, north], [east, north], [east, south], [west, south], [west, north]]
    house = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon"}}
    house["geometry"]["coordinates"] = [ring]  # type: ignore[index]
    text = json.dumps({"type": "FeatureCollection", "features": [house]})
    (source / "buildings_osm.geojson").write_text(text)
    SCRIPT["kampala"](tmp_path / "data", tmp_path / "made")
    made = sorted((tmp_path / "made/kampala/images").iterdir())
    by_shape = {read(path).shape: path for path in made}
    assert sorted(by_shape) == [(3, 256, 256), (3, 256, 512)]
    both = by_shape[3, 256, 512]
    assert (read(both)[:, :, :256] == 40).all() and (read(both)[:, :, 256:] == 41).all()
    expected = np.full((256, 512), IDS["not_building"])
    expected[64:128, 128:384] = IDS["building"]
    np.testing.assert_array_equal(read(both.parents[1] / "labels" / both.name)[0], expected)
    far = by_shape[3, 256, 256]
    labels = read(far.parents[1] / "labels" / far.name)[0]
    assert (labels[:10] == 0).all() and (labels[10:] == IDS["not_building"]).all()
    assert (read(far)[:, :10] == 0).all()


def test_what_an_index_says_is_what_is_sure(tmp_path):
    """Bands of lake, crops, a farm's trees, stubble and mud; and black ground."""
    columns = {
        # red, green, blue, nir, and how rough the near infrared is
        "water": (40, 60, 40, 15, 0),
        "low_vegetation": (60, 90, 60, 180, 3),
        "vegetation": (60, 90, 60, 180, 50),
        "dry": (160, 150, 120, 165, 3),
        "": (70, 75, 60, 65, 3),
    }
    rng = np.random.default_rng(0)
    parts = []
    for *mean, rough in columns.values():
        part = np.broadcast_to(np.array(mean, float)[:, None, None], (4, 40, 40)).copy()
        part[3] += rng.uniform(-rough, rough, (40, 40))
        parts.append(part)
    bands = np.concatenate(parts, axis=2).round().astype(np.uint8)
    bands[:, :5] = 0
    write(tmp_path / "data/imagery/naip/a.tif", bands, "GTiff")
    SCRIPT["north_dakota"](tmp_path / "data", tmp_path / "made")
    labels = read(tmp_path / "made/north-dakota/labels/a.tif")[0]
    assert (labels[:5] == 0).all()
    for n, name in enumerate(columns):
        inner = labels[10:35, n * 40 + 5 : n * 40 + 35]
        assert (inner == IDS.get(name, 0)).mean() > 0.95, name


def test_green_is_found_where_labels_leave_it_open():
    colors = {"vegetation": (60, 90, 50), "ground": (150, 100, 70), "not_building": (90, 95, 85)}
    rgb = np.array(list(colors.values()), np.uint8).T[:, None]
    made = SCRIPT["with_buildings"](rgb, [], rasterio.Affine.identity())[0]
    assert made.tolist() == [IDS[name] for name in colors]


def test_the_recipe_reads_each_id_as_what_the_script_means():
    names = {number: name for name, number in IDS.items()}
    maps = [
        scene["label_map"]
        for scene in load_document(CONFIGS / "landcover-aerial-2.toml")["scenes"]
        if "GEOSEG_PREPARED" in str(scene["labels"])
    ]
    assert len(maps) == 7
    for label_map in maps:
        assert label_map == {key: names[int(key)] for key in label_map}


@pytest.mark.parametrize("asked", [[], ["made"]])
def test_the_script_says_what_it_needs(tmp_path, monkeypatch, asked):
    monkeypatch.setenv("GEOSEG_DATA", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["landcover_aerial_2.py", *asked])
    with pytest.raises(SystemExit, match="usage: GEOSEG_DATA=FOLDER"):
        SCRIPT["main"]()
