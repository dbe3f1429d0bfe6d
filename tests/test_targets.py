"""geoseg.training.targets: labels of any kind on a scene's grid, and teachers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
import torch
from affine import Affine

from geoseg.cards.card import Normalization
from geoseg.errors import GeosegError, LabelError, TrainingError, UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.networks import load_network
from geoseg.networks.normalize import normalize
from geoseg.training.recipe import TrainConfig
from geoseg.training.scene_config import SceneConfig
from geoseg.training.split import SplitConfig
from geoseg.training.targets import UNKNOWN, open_targets
from geoseg.training.teacher import load_teacher
from geoseg.zoo import find_model
from tests.helpers import make_raster
from tests.trainhelpers import BANDS, CLASSES, IDS, tiny_recipe, write_teacher

UTM = "EPSG:32633"
#: A degenerate recipe: only its legend is looked at.
GRID = PixelGrid(60, 50, Affine(10, 0, 500000, 0, -10, 5000000), rasterio.crs.CRS.from_string(UTM))


def legend_of(tmp_path: Path, labels: tuple[Path, ...] = (), **changes: Any) -> TrainConfig:
    return TrainConfig(
        name="tiny",
        bands=BANDS,
        classes=CLASSES,
        scenes=(SceneConfig(tmp_path / "a.tif", labels=labels or (tmp_path / "none.tif",)),),
        split=SplitConfig("blocks"),
        **changes,
    )


def read(
    tmp_path: Path,
    *labels: Path,
    grid: PixelGrid = GRID,
    label_values: dict[str, Any] | None = None,
    **scene: Any,
) -> np.ndarray:
    """Targets of the whole grid, read in odd windows."""
    config = legend_of(tmp_path, labels, label_values=label_values or {})
    found = np.zeros((grid.height, grid.width), np.uint8)
    with open_targets(config, replace(config.scenes[0], **scene), grid) as targets:
        for row in range(0, grid.height, 23):
            for col in range(0, grid.width, 17):
                window = Window(row, col, min(23, grid.height - row), min(17, grid.width - col))
                found[window.rows, window.cols] = targets.read(window)
        targets.check("0 water, 3 trees, 7 bare")
    return found


# Polygons


def squares() -> tuple[geopandas.GeoDataFrame, np.ndarray]:
    """Slanted shapes with their classes, and what they are on the grid."""
    rng = np.random.default_rng(0)
    shapes, ids = [], []
    for row in range(3):
        for col in range(3):
            x, y = 500000 + 80 + 160 * col, 5000000 - 100 - 190 * row
            points = rng.uniform(-70, 70, (12, 2)) + np.array([x, y])
            shapes.append(shapely.MultiPoint(points).convex_hull)
            ids.append(int(rng.choice(IDS)))
    place = {int(i): k for k, i in enumerate(IDS)}
    burned = rasterio.features.rasterize(
        [(s, place[i]) for s, i in zip(shapes, ids, strict=True)],
        (GRID.height, GRID.width),
        fill=UNKNOWN,
        transform=GRID.transform,
        dtype=np.uint8,
    )
    names = [CLASSES[place[i]].name for i in ids]
    values = {"kind": names, "class_id": ids}
    return geopandas.GeoDataFrame(values, geometry=shapes, crs=UTM), burned


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb", "parquet"])
@pytest.mark.parametrize("column", ["kind", None])
def test_polygons_fill_the_pixels_whose_centres_they_hold(tmp_path, suffix, column):
    frame, expected = squares()
    path = tmp_path / f"labels.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path)
    found = read(tmp_path, path, column=column)
    # GeoJSON is in degrees, of which the file keeps some digits only.
    allowed = 3 if suffix == "geojson" else 0
    assert (found != expected).sum() <= allowed
    assert 0.1 < (found != UNKNOWN).mean() < 0.9


def test_label_values_stand_for_classes_in_a_column(tmp_path):
    frame, expected = squares()
    frame["code"] = frame["kind"].map({"water": "W1", "trees": 40, "bare": "cloud"}).astype(str)
    frame.to_file(tmp_path / "labels.gpkg")
    values = {"water": "W1", "trees": 40}
    found = read(
        tmp_path,
        tmp_path / "labels.gpkg",
        column="code",
        label_values=values,
        ignore_label=("Cloud",),
    )
    np.testing.assert_array_equal(found, np.where(expected == 2, UNKNOWN, expected))


def test_vector_labels_that_do_not_fit_are_explained(tmp_path):
    frame, _ = squares()
    frame.to_file(tmp_path / "labels.gpkg")
    with pytest.raises(UsageError, match=r"no column 'sort'; it has kind, class_id"):
        read(tmp_path, tmp_path / "labels.gpkg", column="sort")
    frame["kind"] = "lava"
    frame.to_file(tmp_path / "lava.gpkg")
    with pytest.raises(LabelError, match=r"'lava' \(9\) is no class of the recipe"):
        read(tmp_path, tmp_path / "lava.gpkg", column="kind")
    frame["class_id"] = 9
    frame.to_file(tmp_path / "nine.gpkg")
    with pytest.raises(LabelError, match=r"'9' \(9\) is no class"):
        read(tmp_path, tmp_path / "nine.gpkg")
    bare, _ = squares()
    bare.set_crs(None, allow_override=True).to_file(tmp_path / "bare.gpkg")
    with pytest.raises(LabelError, match=r"bare\.gpkg has no CRS"):
        read(tmp_path, tmp_path / "bare.gpkg")
    with pytest.raises(LabelError, match=r"a\.tif has no CRS"):
        read(tmp_path, tmp_path / "labels.gpkg", grid=replace(GRID, crs=None))
    with pytest.raises(TrainingError, match=r"gone\.gpkg: no such file"):
        read(tmp_path, tmp_path / "gone.gpkg")


# Points


def points(path: Path, lon_lat: list[tuple[float, float]], ids: list[int]) -> Path:
    shapes = [shapely.Point(p) for p in lon_lat]
    frame = geopandas.GeoDataFrame({"class_id": ids}, geometry=shapes, crs="EPSG:4326")
    frame.to_file(path)
    return path


def disc_area(grid: PixelGrid, inside: np.ndarray) -> float:
    """Square metres on the ellipsoid of the pixels of a grid."""
    geod = pyproj.Geod(ellps="WGS84")
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    total = 0.0
    for row, col in np.argwhere(inside):
        corners = [(col, row), (col + 1, row), (col + 1, row + 1), (col, row + 1)]
        x, y = zip(*(grid.transform @ c for c in corners), strict=True)
        total += abs(geod.polygon_area_perimeter(*to_degrees.transform(x, y))[0])
    return total


def grid_at(lon: float, lat: float, crs: str, res: float, side: int = 60) -> PixelGrid:
    """A grid around a place."""
    system = rasterio.crs.CRS.from_string(crs)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    transform = Affine(res, 0, x - res * side / 2, 0, -res, y + res * side / 2)
    return PixelGrid(side, side, transform, system)


@pytest.mark.parametrize(
    ("crs", "res"), [("EPSG:32635", 10.0), ("EPSG:3857", 20.0), ("EPSG:4326", 0.0001)]
)
@pytest.mark.parametrize("elsewhere", [None, (-70.0, -10.0)])
def test_points_become_discs_of_their_radius_on_the_ground(tmp_path, crs, res, elsewhere):
    """Metres are metres, whatever the scene's CRS is and wherever else the file has points."""
    here = (25.0, 62.0)
    places = [here] if elsewhere is None else [here, elsewhere]
    path = points(tmp_path / "points.gpkg", places, [3] * len(places))
    grid = grid_at(*here, crs, res)
    found = read(tmp_path, path, grid=grid, radius=100.0)
    assert set(np.unique(found)) == {1, UNKNOWN}
    assert disc_area(grid, found == 1) == pytest.approx(math.pi * 100**2, rel=0.02)


@pytest.mark.parametrize(
    ("crs", "res"), [("EPSG:32635", 10.0), ("EPSG:3857", 20.0), ("EPSG:4326", 0.0001)]
)
def test_a_point_labels_its_pixel_however_small_the_radius(tmp_path, crs, res):
    """Wherever in the pixel it lies; a point beyond the grid, none."""
    grid = grid_at(25.0, 62.0, crs, res)
    rng = np.random.default_rng(0)
    rows, cols = rng.permutation(60)[:20], rng.permutation(60)[:20]
    corners = zip(
        cols + rng.uniform(0.01, 0.99, 20), rows + rng.uniform(0.01, 0.99, 20), strict=True
    )
    places = [*(grid.transform @ c for c in corners), grid.transform @ (-0.5, 3.0)]
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    places = [to_degrees.transform(*place) for place in places]
    path = points(tmp_path / "points.gpkg", [*places, (-70.0, -10.0)], [7] * 22)
    expected = np.full((60, 60), UNKNOWN)
    expected[rows, cols] = 2
    np.testing.assert_array_equal(read(tmp_path, path, grid=grid, radius=0.001), expected)


def test_points_in_one_feature_label_a_pixel_each(tmp_path):
    two = shapely.MultiPoint([(500102, 4999897), (500322, 4999798)])
    one = shapely.Point(500109, 4999891)
    frame = geopandas.GeoDataFrame({"class_id": [3, 3]}, geometry=[two, one], crs=UTM)
    frame.to_file(tmp_path / "labels.gpkg")
    found = read(tmp_path, tmp_path / "labels.gpkg", radius=0.5)
    assert np.argwhere(found == 1).tolist() == [[10, 10], [20, 32]]
    assert (found != UNKNOWN).sum() == 2


def test_a_radius_needs_a_crs_and_points_need_a_radius(tmp_path):
    path = points(tmp_path / "points.gpkg", [(15.0, 45.15)], [3])
    with pytest.raises(UsageError, match=r"no .*polygon"):
        read(tmp_path, path)
    with pytest.raises(LabelError, match="has no CRS"):
        read(tmp_path, path, grid=replace(GRID, crs=None), radius=50.0)
    geopandas.read_file(path).set_crs(None, allow_override=True).to_file(tmp_path / "bare.gpkg")
    with pytest.raises(TrainingError, match="radius is in metres, and neither"):
        read(tmp_path, tmp_path / "bare.gpkg", grid=replace(GRID, crs=None), radius=50.0)


def test_lines_get_a_width_and_polygons_stay_as_they_are(tmp_path):
    line = shapely.LineString([(500100, 4999700), (500400, 4999700)])
    square = shapely.box(500100, 4999450, 500200, 4999550)
    values = {"class_id": [0, 7]}
    frame = geopandas.GeoDataFrame(values, geometry=[line, square], crs=UTM)
    frame.to_file(tmp_path / "labels.gpkg")
    found = read(tmp_path, tmp_path / "labels.gpkg", radius=20.0)
    assert (found == 0).sum() * 100 == pytest.approx(300 * 40 + math.pi * 20**2, rel=0.05)
    np.testing.assert_array_equal(np.argwhere(found == 2).min(axis=0), (45, 10))
    assert (found == 2).sum() == 100


# Rasters of ids


def ids_raster(path: Path, **profile: Any) -> tuple[Path, np.ndarray]:
    ids = np.random.default_rng(1).choice(IDS, (10, 9)).repeat(8, axis=0).repeat(8, axis=1)
    return make_raster(path, ids[None], **profile), ids


def channels(ids: np.ndarray) -> np.ndarray:
    return np.searchsorted(IDS, ids)


def test_a_raster_on_the_scenes_grid_is_taken_as_it_is(tmp_path):
    path, ids = ids_raster(tmp_path / "labels.tif")
    grid = replace(GRID, height=ids.shape[0], width=ids.shape[1])
    np.testing.assert_array_equal(read(tmp_path, path, grid=grid), channels(ids))
    shifted = replace(grid, transform=grid.transform @ Affine.translation(16, -8))
    found = read(tmp_path, path, grid=shifted)
    np.testing.assert_array_equal(found[8:, :-16], channels(ids)[:-8, 16:])
    assert (found[:8] == UNKNOWN).all() and (found[:, -16:] == UNKNOWN).all()


@pytest.mark.parametrize("crs", ["EPSG:32634", "EPSG:4326", "EPSG:3857"])
def test_a_raster_of_another_crs_is_brought_to_the_scene_by_the_nearest_pixel(tmp_path, crs):
    path, _ = ids_raster(tmp_path / "labels.tif")
    whole = make_raster(
        tmp_path / "there.tif", *warped(path, crs), crs=crs, transform=warped_transform(path, crs)
    )
    found = read(tmp_path, whole)
    expected = np.full((GRID.height, GRID.width), 255, np.uint8)
    with rasterio.open(whole) as dataset:
        rasterio.warp.reproject(
            dataset.read(1),
            expected,
            src_transform=dataset.transform,
            src_crs=dataset.crs,
            src_nodata=255,
            dst_transform=GRID.transform,
            dst_crs=GRID.crs,
            dst_nodata=255,
            tolerance=0.001,
        )
    same = np.where(expected == 255, UNKNOWN, channels(expected)) == found
    assert same.mean() > 0.995
    assert (found != UNKNOWN).mean() > 0.9


def warped(path: Path, crs: str) -> tuple[np.ndarray]:
    with rasterio.open(path) as dataset:
        transform = warped_transform(path, crs)
        values = np.full((1, 90, 90), 255, np.uint8)
        rasterio.warp.reproject(
            dataset.read(1),
            values[0],
            src_transform=dataset.transform,
            src_crs=dataset.crs,
            dst_transform=transform,
            dst_crs=crs,
            dst_nodata=255,
        )
    return (np.where(values == 255, 0, values),)


def warped_transform(path: Path, crs: str) -> Affine:
    with rasterio.open(path) as dataset:
        bounds = rasterio.warp.transform_bounds(dataset.crs, crs, *dataset.bounds)
    return rasterio.transform.from_bounds(*bounds, 90, 90)


def test_of_several_label_files_the_first_one_counts(tmp_path):
    first = np.full((60, 50), 255, np.uint8)
    first[:, :20] = 3
    first[:5] = 9
    make_raster(tmp_path / "first.tif", first[None], nodata=255)
    make_raster(tmp_path / "second.tif", np.full((1, 60, 50), 7, np.uint8))
    found = read(tmp_path, tmp_path / "first.tif", tmp_path / "second.tif", ignore_label=(9,))
    expected = np.full((60, 50), 2)
    expected[5:, :20] = 1
    np.testing.assert_array_equal(found, expected)


def test_label_values_stand_for_classes_in_a_raster(tmp_path):
    values = np.random.default_rng(0).choice([11, 22, 7], (1, 60, 50)).astype(np.int32)
    make_raster(tmp_path / "labels.tif", values)
    found = read(tmp_path, tmp_path / "labels.tif", label_values={"water": 22, "trees": 11})
    np.testing.assert_array_equal(found, np.select([values[0] == 22, values[0] == 11], [0, 1], 2))
    with pytest.raises(TrainingError, match=r"'W' and .*is a raster of ids"):
        read(tmp_path, tmp_path / "labels.tif", label_values={"water": "W"})


def test_two_classes_with_one_value_are_refused(tmp_path):
    make_raster(tmp_path / "labels.tif", np.full((1, 60, 50), 7, np.uint8))
    with pytest.raises(TrainingError, match="7 stands for trees and bare"):
        read(tmp_path, tmp_path / "labels.tif", label_values={"trees": 7})
    make_raster(tmp_path / "colors.tif", np.full((3, 60, 50), 7, np.uint8))
    with pytest.raises(TrainingError, match="#AAAAAA stands for water and bare"):
        read(tmp_path, tmp_path / "colors.tif", label_values={"water": "#aaaaaa"})


def test_an_id_outside_the_legend_is_counted(tmp_path):
    values = np.full((1, 60, 50), 3, np.uint8)
    values[0, :2] = 9
    values[0, 5, 5] = 12
    make_raster(tmp_path / "labels.tif", values)
    with pytest.raises(TrainingError, match=r"hold 9 \(100 px\), 12 \(1 px\), which are neither"):
        read(tmp_path, tmp_path / "labels.tif")
    found = read(tmp_path, tmp_path / "labels.tif", ignore_label=(9, 12))
    assert (found == UNKNOWN).sum() == 101 and (found == 1).sum() == 60 * 50 - 101


@pytest.mark.parametrize("bands", [1, 3])
def test_a_raster_without_a_crs_needs_the_scenes_own_size_and_no_crs(tmp_path, bands):
    color = np.array([0, 255, 0])[:, None, None] * np.ones((1, 60, 50))
    values = (color if bands == 3 else np.full((1, 60, 50), 3)).astype(np.uint8)
    bare = {"crs": None, "transform": Affine.identity()}
    path = make_raster(tmp_path / "labels.tif", values, **bare)
    grid = PixelGrid(60, 50, Affine.identity(), None)
    assert (read(tmp_path, path, grid=grid) == 1).all()
    with pytest.raises(LabelError, match=r"a\.tif \(61 x 50 px\) and .*tif \(60 x 50 px\) lie on"):
        read(tmp_path, path, grid=replace(grid, height=61))
    with pytest.raises(LabelError, match=r"labels\.tif has no CRS and .*a\.tif has one"):
        read(tmp_path, path)
    there = make_raster(tmp_path / "there.tif", values)
    with pytest.raises(LabelError, match=r"a\.tif has no CRS and .*there\.tif has one"):
        read(tmp_path, there, grid=grid)


# Masks in class colours


def colored(with_unknown: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(3, 60, 50) colours and their places in the legend; a strip has a colour that is no class."""
    target = np.random.default_rng(2).integers(3, size=(60, 50)).astype(np.uint8)
    rgb = np.array([c.rgb for c in CLASSES], np.uint8)[target].transpose(2, 0, 1).copy()
    if with_unknown:
        rgb[:, 10:12] = 1
        target[10:12] = UNKNOWN
    return rgb, target


BARE = PixelGrid(60, 50, Affine.identity(), None)


def write_png(path: Path, values: np.ndarray, palette: list[int] | None = None) -> Path:
    from PIL import Image

    if palette is None:
        Image.fromarray(np.moveaxis(values, 0, -1)).save(path)
    else:
        picture = Image.fromarray(values, "P")
        picture.putpalette(palette)
        picture.save(path)
    return path


def test_masks_in_class_colours(tmp_path):
    rgb, target = colored()
    path = write_png(tmp_path / "mask.png", rgb)
    np.testing.assert_array_equal(read(tmp_path, path, grid=BARE), target)
    rgba = np.concatenate((rgb, np.full((1, 60, 50), 255, np.uint8)))
    rgba[3, 20:25] = 0
    path = write_png(tmp_path / "transparent.png", rgba)
    target[20:25] = UNKNOWN
    np.testing.assert_array_equal(read(tmp_path, path, grid=BARE), target)


def test_colours_of_the_recipe_go_before_the_legends(tmp_path):
    rgb, target = colored()
    rgb[:, target == 1] = np.array([[18], [52], [86]])
    path = write_png(tmp_path / "mask.png", rgb)
    found = read(tmp_path, path, grid=BARE, label_values={"trees": "#123456"})
    np.testing.assert_array_equal(found, target)
    with pytest.raises(TrainingError, match=r"'green' and .*is a raster of colours"):
        read(tmp_path, path, grid=BARE, label_values={"trees": "green"})


def test_a_palette_png(tmp_path):
    """The numbers in it mean nothing, its colours do."""
    _, target = colored()
    numbers = np.array([5, 9, 2], np.uint8)[target.clip(0, 2)]
    numbers[target == UNKNOWN] = 1
    palette = [0] * 768
    for number, c in zip((5, 9, 2), CLASSES, strict=True):
        palette[3 * number : 3 * number + 3] = c.rgb
    palette[3:6] = 1, 1, 1
    path = write_png(tmp_path / "mask.png", numbers, palette)
    values = {c.name: c.color for c in CLASSES}
    np.testing.assert_array_equal(read(tmp_path, path, grid=BARE, label_values=values), target)
    plain = make_raster(tmp_path / "plain.tif", numbers[None], crs=None)
    with pytest.raises(TrainingError, match="without a colour table"):
        read(tmp_path, plain, grid=PixelGrid(60, 50, GRID.transform, None), label_values=values)


@pytest.mark.parametrize("palette", [False, True])
def test_masks_in_colours_on_another_grid(tmp_path, palette):
    rgb, target = colored()
    path = tmp_path / "mask.tif"
    if palette:
        numbers = np.where(target == UNKNOWN, 1, np.array([5, 9, 2])[target.clip(0, 2)])
        make_raster(path, numbers[None].astype(np.uint8))
        with rasterio.open(path, "r+") as dataset:
            table = {n: (*c.rgb, 255) for n, c in zip((5, 9, 2), CLASSES, strict=True)}
            dataset.write_colormap(1, {1: (1, 1, 1, 255), **table})
    else:
        make_raster(path, rgb)
    values = {c.name: c.color for c in CLASSES}
    np.testing.assert_array_equal(read(tmp_path, path, label_values=values), target)
    shifted = replace(GRID, transform=GRID.transform @ Affine.translation(-7, 4))
    found = read(tmp_path, path, grid=shifted, label_values=values)
    np.testing.assert_array_equal(found[:-4, 7:], target[4:, :-7])
    # Beyond the mask nothing is known, though black might be a class.
    black = read(tmp_path, path, grid=shifted, label_values={**values, "water": "#000000"})
    assert (black[:, :7] == UNKNOWN).all() and (black[-4:] == UNKNOWN).all()


# Teachers


def test_a_teacher_answers_as_its_network_does(tmp_path):
    card = write_teacher(tmp_path / "teacher")
    config = tiny_recipe(tmp_path, teacher=tmp_path / "teacher")
    teacher = load_teacher(config, torch.device("cpu"))
    assert teacher is not None and teacher.card == card
    values = np.random.default_rng(0).random((3, 20, 30), np.float32)
    with torch.inference_mode():
        x = normalize(torch.from_numpy(values)[None], card.normalization)
        expected = load_network(find_model(tmp_path / "teacher"))(x).softmax(1)[0]
    np.testing.assert_allclose(teacher.probs(values), expected, atol=1e-6)
    np.testing.assert_allclose(teacher.probs(values).sum(axis=0), 1, atol=1e-5)
    assert load_teacher(replace(config, teacher=None), torch.device("cpu")) is None


def test_chips_of_the_recipes_size_are_answered_by_the_fastest_runtime(tmp_path):
    """It is fixed beforehand, not tried: the same seed shall give the same weights."""
    write_teacher(tmp_path / "teacher")
    config = tiny_recipe(
        tmp_path, teacher=tmp_path / "teacher", chip=32, teacher_halo=4, steps=1000
    )
    teacher = load_teacher(config, torch.device("cpu"))
    assert teacher is not None
    assert (teacher.runtime.name, teacher.runtime.precision) == ("openvino", "fp32")
    values = np.random.default_rng(0).random((3, 40, 40), np.float32)
    by_torch = replace(teacher, side=0).probs(values)
    np.testing.assert_allclose(teacher.probs(values), by_torch, atol=1e-5)
    np.testing.assert_array_equal(teacher.probs(values), teacher.probs(values))


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"classes": CLASSES[::-1]}, "must be the same, in the same order"),
        ({"quantity": "number"}, "the teacher takes number and the recipe reflectance"),
        ({"activation": "sigmoid"}, "only softmax can be learned"),
    ],
)
def test_a_teacher_of_another_kind_is_refused(tmp_path, card, message):
    scale = Normalization("z-score", {"mean": (0.1,) * 3, "stddev": (0.1,) * 3})
    write_teacher(tmp_path / "teacher", normalization=scale, **card)
    config = tiny_recipe(tmp_path, teacher=tmp_path / "teacher")
    with pytest.raises(GeosegError, match=message):
        load_teacher(config, torch.device("cpu"))
