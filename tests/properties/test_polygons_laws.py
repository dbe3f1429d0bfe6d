"""Laws of polygons: each holds for every class map, on every grid."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from scipy import ndimage

from geoseg.cards.legend import ClassInfo
from geoseg.polygons.polygonize import polygonize
from tests.maps import block_maps, nested, random_maps, spiral

NODATA = 255
CLASSES = [ClassInfo(i, f"class {i}", "#336699") for i in range(5)]


SHAPED = [
    np.array([[1]], np.uint8),
    np.array([[NODATA]], np.uint8),
    np.array([[1, 1, 2, NODATA, 2, 3]], np.uint8),
    np.array([[1, 1, 2, NODATA, 2, 3]], np.uint8).T.copy(),
    (np.indices((6, 7)).sum(axis=0) % 2).astype(np.uint8),
    np.where(np.indices((6, 7)).sum(axis=0) % 2, NODATA, 1).astype(np.uint8),
    nested(11, [0, 1, 2, NODATA]),
    spiral(11),
    # One region that touches itself at a corner, around a hole and around nodata.
    np.array([[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, NODATA, 1], [1, 1, 1, 1]], np.uint8),
    np.array([[1, 1, 1], [1, NODATA, 1], [1, 1, 2]], np.uint8),
    np.eye(5, dtype=np.uint8),
]

IDS = [0, 1, 2, NODATA]
maps = st.one_of(random_maps(IDS, 9), block_maps(IDS, 9), st.sampled_from(SHAPED))
grids = st.sampled_from(
    [
        ("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 6_600_000)),
        ("EPSG:32633", Affine(10, 0, 500_000, 0, 10, 6_600_000)),  # south-up
        ("EPSG:32633", Affine(8, 6, 500_000, 6, -8, 6_600_000)),  # rotated
        ("EPSG:4326", Affine(1e-4, 0, 179.9999, 0, -1e-4, 60)),
        ("EPSG:3857", Affine(10, 0, 1e6, 0, -10, 8_400_000)),
    ]
)


def polygons_of(classes, crs, transform, probability=None, **options):
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, array, nodata in (("c", classes, NODATA), ("p", probability, np.nan)):
            path = Path(folder) / f"{name}.tif"
            paths.append(None if array is None else path)
            if array is None:
                continue
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                height=array.shape[0],
                width=array.shape[1],
                count=1,
                dtype=array.dtype,
                crs=crs,
                transform=transform,
                nodata=nodata,
            ) as dataset:
                dataset.write(array, 1)
        return polygonize(paths[0], paths[1], CLASSES, **options)


def burn(polygons, values, shape, transform):
    if len(polygons) == 0:
        return np.full(shape, NODATA, np.uint8)
    pairs = zip(polygons, values, strict=True)
    return rasterio.features.rasterize(
        pairs, shape, fill=NODATA, transform=transform, dtype=np.uint8
    )


def count_regions(classes):
    return sum(ndimage.label(classes == c)[1] for c in set(classes.flat) - {NODATA})


def is_island(classes, region):
    """Whether nothing but nodata lies beside the region's pixels."""
    around = ndimage.binary_dilation(region) & ~region
    return bool((classes[around] == NODATA).all())


@given(maps, grids)
@settings(deadline=None)
def test_polygons_rasterised_back_give_the_class_raster(classes, grid):
    frame = polygons_of(classes, *grid)
    back = burn(frame.geometry, frame.class_id, classes.shape, grid[1])
    np.testing.assert_array_equal(back, classes)


@given(maps, grids)
@settings(deadline=None)
def test_polygons_are_a_valid_coverage_of_the_valid_pixels(classes, grid):
    frame = polygons_of(classes, *grid)
    polygons = frame.geometry.to_numpy()
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    pixel_area = abs(grid[1].determinant)
    valid = np.count_nonzero(classes != NODATA)
    # Degrees near 180 leave 9 digits for a pixel of 1e-4.
    assert shapely.area(polygons).sum() == pytest.approx(valid * pixel_area, rel=1e-8)
    assert shapely.union_all(polygons).area == pytest.approx(valid * pixel_area, rel=1e-8)


@given(maps)
@settings(deadline=None)
def test_polygons_are_the_4_connected_regions(classes):
    """The oracle: GDAL's own polygons of the class raster, free of straight-on vertices."""
    grid = Affine(1, 0, 3, 0, 1, 5)
    frame = polygons_of(classes, None, grid)
    expected = rasterio.features.shapes(classes, classes != NODATA, 4, grid)
    found, oracle = (
        sorted(
            (int(value), shapely.simplify(shapely.normalize(geometry), 0).normalize().wkt)
            for geometry, value in pairs
        )
        for pairs in (
            zip(frame.geometry, frame.class_id, strict=True),
            ((shapely.geometry.shape(shape), value) for shape, value in expected),
        )
    )
    assert found == oracle
    assert len(frame) == count_regions(classes)


@given(maps, grids, st.sampled_from([0.3, 0.8, 1.0, 1.5, 3.0, 50.0]))
@settings(deadline=None)
def test_simplified_polygons_are_a_valid_coverage_and_none_is_lost(classes, grid, pixels):
    exact = polygons_of(classes, *grid)
    if len(exact) == 0:
        return
    tolerance = pixels * exact.area_m2.sum() ** 0.5 / np.count_nonzero(classes != NODATA) ** 0.5
    simple = polygons_of(classes, *grid, simplify=tolerance)
    polygons = simple.geometry.to_numpy()
    assert simple.class_id.tolist() == exact.class_id.tolist()
    assert (simple.geom_type == "Polygon").all()
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert (shapely.area(polygons) > 0.1 * abs(grid[1].determinant)).all()
    # Borders to nodata and to the scene's edge stay: neither gap nor overlap, and no nodata.
    assert shapely.union_all(polygons).symmetric_difference(
        shapely.union_all(exact.geometry.to_numpy())
    ).area == pytest.approx(0, abs=1e-6 * abs(grid[1].determinant))


@given(maps, grids, st.sampled_from([1.5, 2.5, 4.5, 1000.0]))
@settings(deadline=None)
def test_min_area_leaves_only_islands_small_and_every_pixel_in_its_place(classes, grid, pixels):
    exact = polygons_of(classes, *grid)
    if len(exact) == 0:
        return
    min_area = float(pixels * exact.area_m2.sum() / np.count_nonzero(classes != NODATA))
    frame = polygons_of(classes, *grid, min_area=min_area)
    merged = burn(frame.geometry, frame.class_id, classes.shape, grid[1])
    np.testing.assert_array_equal(merged == NODATA, classes == NODATA)
    assert len(frame) == count_regions(merged)  # what merged is one polygon, nothing is cut
    assert shapely.coverage_is_valid(frame.geometry.values)
    # PROJ is right to nanometres, so the area of a 10 m pixel to 1e-9 or so.
    assert frame.area_m2.sum() == pytest.approx(exact.area_m2.sum(), rel=1e-7)
    for polygon, area in zip(frame.geometry, frame.area_m2, strict=True):
        if area < min_area * (1 - 1e-6):
            assert is_island(merged, burn([polygon], [1], classes.shape, grid[1]) == 1)
    # A region that was large enough keeps every pixel.
    for polygon, area, class_id in zip(exact.geometry, exact.area_m2, exact.class_id, strict=True):
        if area >= min_area * (1 + 1e-6):
            region = burn([polygon], [1], classes.shape, grid[1]) == 1
            assert (merged[region] == class_id).all()


@given(maps, grids, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 250.0]))
@settings(deadline=None)
def test_confidence_is_the_mean_of_the_polygons_pixels(classes, grid, seed, min_area):
    probability = np.random.default_rng(seed).uniform(0, 1, classes.shape).astype(np.float32)
    probability[classes == NODATA] = np.nan
    frame = polygons_of(classes, *grid, probability, min_area=min_area)
    for polygon, confidence in zip(frame.geometry, frame.confidence, strict=True):
        inside = burn([polygon], [1], classes.shape, grid[1]) == 1
        assert confidence == pytest.approx(probability[inside].mean(dtype=float), rel=1e-9)
