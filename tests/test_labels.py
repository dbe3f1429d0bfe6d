"""Labels on a pixel grid: polygons are what their rasterised selves are, however they are cut."""

from __future__ import annotations

import warnings

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg.errors import EvaluationError, LabelError, TrainingError, UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.labels.labels import open_labels
from geoseg.labels.polygons import read_polygons
from geoseg.labels.vector_files import is_vector
from tests.helpers import make_raster

LEGEND = {1: "water", 3: "trees", 7: "crops"}
UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
TURNED = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
GRID = PixelGrid(50, 60, UTM, CRS.from_epsg(32633))


def write(path, shapes, ids, crs="EPSG:32633", column="class_id"):
    frame = geopandas.GeoDataFrame({column: ids}, geometry=list(shapes), crs=crs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        frame.to_file(path)
    return path


def blobs(seed, count=25, transform=UTM, size=(60, 50)):
    """Stars with holes, some of two parts, in CRS coordinates; they overlap."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        parts = []
        for _ in range(rng.integers(1, 3)):
            angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
            radius = rng.uniform(4, 12, 9)
            x, y = rng.uniform(-3, size[0] + 3), rng.uniform(-3, size[1] + 3)
            ring = np.column_stack((x + radius * np.cos(angle), y + radius * np.sin(angle)))
            hole = np.column_stack((x + 0.3 * (ring[:, 0] - x), y + 0.3 * (ring[:, 1] - y)))
            star = shapely.make_valid(shapely.Polygon(ring)) - shapely.Polygon(hole).buffer(0)
            parts.append(star)
        union = shapely.union_all(parts)
        polygons = [p for p in shapely.get_parts(union) if p.geom_type == "Polygon"]
        shape = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
        moved = shapely.transform(
            shape, lambda xy: np.column_stack(transform @ (xy[:, 0], xy[:, 1]))
        )
        shapes.append(moved)
    return shapes


def burnt(shapes, ids, grid, touched=None):
    """(H, W) ids and (H, W) number of different classes, by GDAL, class by class."""
    shape = (grid.height, grid.width)
    out, classes = np.zeros(shape, int), np.zeros(shape, int)
    for i in set(ids):
        mine = [(s, 1) for s, j in zip(shapes, ids, strict=True) if i == j]
        mask = rasterio.features.rasterize(mine, shape, transform=grid.transform) == 1
        out[mask] = i
        classes += mask
    return out, classes


@pytest.mark.parametrize("transform", [UTM, TURNED])
@pytest.mark.parametrize("seed", range(6))
def test_polygons_are_filled_as_gdal_fills_them(tmp_path, seed, transform):
    grid = PixelGrid(50, 60, transform, GRID.crs)
    shapes = blobs(seed, transform=transform)
    ids = np.random.default_rng(seed).choice(list(LEGEND), len(shapes)).tolist()
    path = write(tmp_path / "l.gpkg", shapes, ids)
    placed = read_polygons(path, None, LEGEND).on(grid, "map.tif")
    found = placed.strip(0, 50)
    out, classes = burnt(shapes, ids, grid)
    assert (found.known == (classes == 1)).all() and (found.disputed == (classes > 1)).all()
    assert found.disputed.any() and found.known.any()
    assert (found.ids[found.known] == out[found.known]).all()
    # Each feature by itself, those that overlap too.
    members = placed.members(Window(0, 0, 50, 60))
    for i, shape in enumerate(shapes):
        mask = np.zeros((50, 60), int)
        mine = members.feature == i
        np.add.at(mask, (members.row[mine], members.col[mine]), 1)
        expected = rasterio.features.rasterize([(shape, 1)], (50, 60), transform=transform)
        assert (mask == expected).all()


@settings(max_examples=40)
@given(
    st.integers(0, 49),
    st.integers(0, 59),
    st.integers(1, 50),
    st.integers(1, 60),
    st.integers(0, 3),
)
def test_a_window_is_a_part_of_the_whole(tmp_path_factory, row, col, height, width, seed):
    path = tmp_path_factory.getbasetemp() / f"window-{seed}.gpkg"
    shapes = blobs(seed)
    if not path.exists():
        write(path, shapes, [list(LEGEND)[i % 3] for i in range(len(shapes))])
    placed = read_polygons(path, None, LEGEND).on(GRID, "map.tif")
    window = Window(row, col, min(height, 50 - row), min(width, 60 - col))
    part, whole = placed.window(window), placed.strip(0, 50)
    for one, all_ in zip(part, whole, strict=True):
        np.testing.assert_array_equal(one, all_[window.rows, window.cols])
    some, every = placed.members(window), placed.members(Window(0, 0, 50, 60))
    inside = {
        (f, r - row, c - col)
        for f, r, c in zip(*every, strict=True)
        if row <= r < window.bottom and col <= c < window.right
    }
    assert set(zip(*some, strict=True)) == inside and len(some.row) == len(inside)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_polygons_that_share_edges_share_no_pixel_and_leave_none(tmp_path, step):
    """Also where the edges run exactly through the pixels' centres."""
    cuts = np.arange(-0.5, 61, step)
    shapes = [shapely.box(x, y, x + step, y + step) for x in cuts for y in cuts]
    slanted = [shapely.transform(s, lambda xy: xy @ [[1, 0.5], [0, 1]] - [0, 20]) for s in shapes]
    for kind in (shapes, slanted):
        world = [
            shapely.transform(s, lambda xy: np.column_stack(UTM @ (xy[:, 0], xy[:, 1])))
            for s in kind
        ]
        path = write(tmp_path / "l.fgb", world, [1] * len(world))
        placed = read_polygons(path, None, LEGEND).on(GRID, "map.tif")
        members = placed.members(Window(0, 0, 50, 60))
        count = np.zeros((50, 60), int)
        np.add.at(count, (members.row, members.col), 1)
        assert count.max() == 1
        assert (count[:40, :30] == 1).all()


def test_long_edges_of_another_crs_are_curves(tmp_path):
    """A box of degrees, 400 km wide, in UTM: its edges sag by kilometres."""
    box = shapely.box(12, 58, 19, 60)
    path = write(tmp_path / "l.gpkg", [box], [3], crs="EPSG:4326")
    grid = PixelGrid(300, 500, Affine(1000, 0, 250_000, 0, -1000, 6_700_000), GRID.crs)
    found = read_polygons(path, None, LEGEND).on(grid, "map.tif").strip(0, 300)
    cols, rows = np.meshgrid(np.arange(500) + 0.5, np.arange(300) + 0.5)
    back = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    lon, lat = back.transform(*(grid.transform @ (cols, rows)))
    expected = (lon > 12) & (lon < 19) & (lat > 58) & (lat < 60)
    off = [abs(lat - 58), abs(lat - 60), abs(lon - 12), abs(lon - 19)]
    near = np.min(off, axis=0) < 4e-4  # some 20 to 40 m, a thirtieth of a pixel
    assert expected.sum() > 50_000 and near.sum() < 200
    assert (found.known == expected)[~near].all()


def test_neighbours_of_another_crs_stay_neighbours(tmp_path):
    """Both sides of a border become the same curve, however each polygon runs along it."""
    lon, lat = np.linspace(10, 20, 8), np.linspace(54, 62, 8)
    boxes = [
        shapely.box(lon[i], lat[j], lon[i + 1], lat[j + 1], ccw=(i + j) % 2 == 0)
        for i in range(7)
        for j in range(7)
    ]
    path = write(tmp_path / "l.gpkg", boxes, [1] * len(boxes), crs="EPSG:4326")
    grid = PixelGrid(400, 400, Affine(1000, 0, 300_000, 0, -1000, 6_600_000), GRID.crs)
    placed = read_polygons(path, None, LEGEND).on(grid, "map.tif")
    members = placed.members(Window(0, 0, 400, 400))
    count = np.zeros((400, 400), int)
    np.add.at(count, (members.row, members.col), 1)
    assert (count == 1).all() and len(np.unique(members.feature)) == 20


def test_polygons_that_are_not_valid_are_mended(tmp_path):
    def world(*xy):
        return [UTM @ p for p in xy]

    bow = shapely.Polygon(world((2, 2), (12, 12), (12, 2), (2, 12)))
    twice = shapely.MultiPolygon(
        [shapely.Polygon(world(*shapely.box(a, 20, a + 10, 30).exterior.coords)) for a in (20, 25)]
    )
    path = write(tmp_path / "l.gpkg", [bow, twice], [1, 3])
    placed = read_polygons(path, None, LEGEND).on(GRID, "map.tif")
    found = placed.strip(0, 50)
    assert found.known[25, 20:35].all() and (found.ids == 3).sum() == 150
    assert found.known[7, 3] and found.known[7, 10] and not found.known[3, 7]
    members = placed.members(Window(0, 0, 50, 60))
    assert (members.feature == 1).sum() == 150


def test_classes_by_name_or_id_and_those_left_out(tmp_path):
    lefts = range(500_000, 500_300, 50)
    shapes = [shapely.box(x, 4_999_900, x + 50, 5_000_000) for x in lefts]
    seen = ["Water", "3", None, "cloud", " crops ", ""]
    path = write(tmp_path / "l.geojson", shapes, seen, column="seen")
    with pytest.raises(LabelError, match=r"'cloud' \(1\) is no class of the map .*polygons out"):
        read_polygons(path, "seen", LEGEND)
    polygons = read_polygons(path, "seen", LEGEND, ignore=["CLOUD"])
    assert polygons.ids.tolist() == [1, 3, 7] and polygons.rows.tolist() == [0, 1, 4]
    assert (polygons.features, polygons.unlabelled, polygons.ignored) == (6, 2, 1)
    found = polygons.on(GRID, "map.tif").strip(0, 10)
    assert found.known[0, :30].tolist() == ([True] * 10 + [False] * 10 + [True] * 5 + [False] * 5)


def test_files_that_are_no_labels(tmp_path):
    box = shapely.box(500_000, 4_999_900, 500_050, 5_000_000)
    bare = write(tmp_path / "bare.fgb", [box], [1], crs=None)
    lines = write(tmp_path / "lines.gpkg", [shapely.LineString(box.exterior.coords)], [1])
    none = write(tmp_path / "none.gpkg", [box], [""])
    named = write(tmp_path / "named.gpkg", [box], ["water"], column="kind")
    two = write(tmp_path / "two.gpkg", [box], [1])
    geopandas.GeoDataFrame({"class_id": [1]}, geometry=[box], crs="EPSG:32633").to_file(
        two, layer="other"
    )
    empty = write(tmp_path / "empty.gpkg", [box, None, shapely.Polygon()], [1, 1, 1])
    cases = [
        (lines, None, UsageError, "1 rows that are no polygon"),
        (empty, None, UsageError, "2 of its 3 rows have no geometry"),
        (none, None, LabelError, "none of its 1 polygons has a class"),
        (named, None, UsageError, "no column 'class_id'.*which of kind"),
        (named, "kin", UsageError, "no column 'kin'; it has kind"),
        (two, None, UsageError, "layers two, other"),
        (bare, None, LabelError, "bare.fgb has no CRS and map.tif has one"),
        (tmp_path / "gone.parquet", None, UsageError, "no such file"),
    ]
    for path, column, kind, words in cases:
        assert is_vector(path)
        with (
            pytest.raises(kind, match=words),
            open_labels(path, GRID, LEGEND, "map.tif", column=column),
        ):
            pass
    assert issubclass(LabelError, EvaluationError) and issubclass(LabelError, TrainingError)


def test_without_a_place_in_the_grids_crs_there_is_no_label(tmp_path):
    far = shapely.box(-170, -89.9, -160, -89)
    path = write(tmp_path / "l.gpkg", [far], [1], crs="EPSG:4326")
    mercator = PixelGrid(10, 10, Affine(1000, 0, 0, 0, -1000, 0), CRS.from_epsg(2154))
    placed = read_polygons(path, None, LEGEND).on(mercator, "map.tif")
    assert not placed.strip(0, 10).known.any()


def test_rasters_and_polygons_are_opened_alike(tmp_path):
    ids = np.kron([[1, 3], [7, 255]], np.ones((25, 30), int)).astype(np.uint8)
    raster = make_raster(tmp_path / "l.tif", ids[None], nodata=255, transform=UTM)
    shapes, values = [], []
    for shape, value in rasterio.features.shapes(ids, ids != 255, transform=UTM):
        shapes.append(shapely.geometry.shape(shape))
        values.append(LEGEND[int(value)])
    vector = write(tmp_path / "l.parquet.gpkg", shapes, values)
    finer = PixelGrid(70, 90, UTM @ Affine.translation(-3, 4.2) @ Affine.scale(0.71), GRID.crs)
    for grid in (GRID, finer):
        read = []
        for path in (raster, vector):
            with open_labels(path, grid, LEGEND, "map.tif") as labels:
                strip = labels.strip(3, grid.height)
                read.append(np.where(strip.known, strip.ids, 255))
                part = labels.window(Window(4, 5, 6, 7))
                np.testing.assert_array_equal(part.known, strip.known[1:7, 5:12])
        np.testing.assert_array_equal(*read)
    assert not is_vector(raster)
