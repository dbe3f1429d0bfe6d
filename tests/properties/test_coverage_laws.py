"""Laws of the tracer, by GDAL's polygons and shapely's coverages, for any strips and threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.core.workers import Workers
from geoseg.polygons.counting import count_regions
from geoseg.polygons.coverage import polygons
from geoseg.polygons.options import METHODS, RingOptions
from geoseg.polygons.strips import CodeRows
from tests.maps import block_maps, nested, random_maps, spiral

EXAMPLES = Path(__file__).parents[2] / "examples"


def comb(size):
    """Two combs of teeth a pixel wide that reach between one another."""
    classes = np.ones((size, size), np.uint8)
    classes[1:, 1::2] = 2
    classes[-1] = 2
    return classes


def lens():
    """Two regions with a third between them that has two neighbours and two nodes."""
    classes = np.ones((9, 12), np.uint8)
    classes[5:] = 2
    classes[4, 3:9] = 3
    classes[5, 3:9] = 3
    classes[3, 5:7] = 3
    classes[6, 5:7] = 3
    return classes


def saw(size):
    """Regions that touch at corners only, along diagonals, and enclose others."""
    i, j = np.indices((size, size))
    return np.where((i + j) % 4 == 0, 1, np.where((i - j) % 4 == 0, 2, 3)).astype(np.uint8)


SHAPED = {
    "one pixel": np.array([[1]], np.uint8),
    "nothing": np.array([[0]], np.uint8),
    "row": np.array([[1, 1, 2, 0, 2, 3]], np.uint8),
    "column": np.array([[1, 1, 2, 0, 2, 3]], np.uint8).T.copy(),
    "checkerboard": (np.indices((20, 21)).sum(axis=0) % 2 + 1).astype(np.uint8),
    "checkerboard of nodata": (np.indices((20, 21)).sum(axis=0) % 2).astype(np.uint8),
    "spiral": spiral(31),
    "comb": comb(24),
    "nested": nested(25, [1, 2, 3, 0]),
    "lens": lens(),
    "saw": saw(23),
    "lines": np.array([[1, 2, 3]], np.uint8)[:, np.arange(30) % 3].repeat(9, axis=0),
    "hole at a corner": np.array(
        [[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], np.uint8
    ),
    "ring": np.array([[1, 1, 1, 1], [1, 2, 3, 1], [1, 3, 2, 1], [1, 1, 1, 1]], np.uint8),
}


def patches(seed, size=48):
    """Patches with specks."""
    rng = np.random.default_rng(seed)
    fields = [
        ndimage.gaussian_filter(rng.standard_normal((size, size)), 2)
        + 0.03 * rng.standard_normal((size, size))
        for _ in range(4)
    ]
    return np.argmax(fields, axis=0).astype(np.uint8)


maps = st.one_of(
    random_maps([0, 1, 2, 3], 12),
    block_maps([0, 1, 2, 3], 12),
    st.sampled_from(list(SHAPED.values())),
    st.integers(0, 1000).map(patches),
)
cuts = st.tuples(st.integers(1, 9), st.integers(1, 3))
shapes = st.builds(
    RingOptions,
    tolerance=st.sampled_from([0.0, 0.8, 1.5, 4.0, 100.0]),
    method=st.sampled_from(METHODS),
    smooth=st.integers(0, 2),
)


def coverage(codes, shape=None, rows=1000, threads=1):
    """[(geometry, code, pixels, first)], in the order of the first pixels."""
    height, width = codes.shape
    none = np.zeros((0, width), np.float32)
    bands = (CodeRows(codes[t : t + rows], none, none[None][:0]) for t in range(0, height, rows))
    shape = shape or RingOptions()
    found = []
    with Workers(threads) as workers:
        several = list(polygons(bands, width, height, shape, workers))
    for closed in several:
        xy, rings, parts = closed.rings
        kind, offsets = shapely.GeometryType.POLYGON, (rings, parts)
        if shape.connectivity == 8:
            kind, offsets = shapely.GeometryType.MULTIPOLYGON, (rings, parts, closed.features)
        geometries = shapely.from_ragged_array(kind, xy, offsets)
        columns = (closed.codes, closed.pixels, closed.first)
        found += zip(geometries, *(c.tolist() for c in columns), strict=True)
    return sorted(found, key=lambda f: f[3])


def plain(geometry):
    """Its parts without vertices on straight lines, from a defined start."""
    parts = (shapely.normalize(p) for p in shapely.get_parts(geometry))
    return tuple(sorted(shapely.normalize(shapely.simplify(p, 0)).wkb for p in parts))


def expected(codes, connectivity):
    """GDAL's polygons; with 8 its rings cross themselves, which make_valid cuts into parts."""
    shapes = rasterio.features.shapes(codes, codes != 0, connectivity)
    geometries = ((shapely.geometry.shape(shape), int(value)) for shape, value in shapes)
    return sorted((plain(shapely.make_valid(g)), value) for g, value in geometries)


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
def test_adversarial_maps_are_gdals(name, connectivity, rows):
    codes = SHAPED[name]
    found = coverage(codes, RingOptions(connectivity), rows, 2)
    assert sorted((plain(g), code) for g, code, *_ in found) == expected(codes, connectivity)


@given(maps, st.sampled_from([4, 8]), cuts)
@settings(deadline=None)
def test_polygons_are_gdals(codes, connectivity, cut):
    found = coverage(codes, RingOptions(connectivity), *cut)
    assert sorted((plain(g), code) for g, code, *_ in found) == expected(codes, connectivity)
    for geometry, code, pixels, first in found:
        assert geometry.area == pixels
        assert codes.flat[first] == code
        assert shapely.Point(first % codes.shape[1] + 0.5, first // codes.shape[1] + 0.5).within(
            geometry
        )


@given(maps, shapes, cuts)
@settings(deadline=None)
def test_strips_and_threads_change_nothing(codes, shape, cut):
    one = [(g.normalize().wkb, *rest) for g, *rest in coverage(codes, shape)]
    other = [(g.normalize().wkb, *rest) for g, *rest in coverage(codes, shape, *cut)]
    assert one == other


@given(maps, shapes)
@settings(deadline=None, max_examples=200)
def test_a_generalized_map_is_a_valid_coverage_of_the_same_regions(codes, shape):
    exact, found = coverage(codes), coverage(codes, shape)
    assert [f[1:] for f in found] == [f[1:] for f in exact]
    geometries = np.array([f[0] for f in found], object)
    assert shapely.is_valid(geometries).all()
    assert shapely.coverage_is_valid(geometries)
    assert (shapely.area(geometries) > 0).all()
    # The rim stays, so nothing is lost to nodata.
    whole = shapely.union_all([f[0] for f in exact])
    assert shapely.symmetric_difference(
        shapely.union_all(geometries), whole, grid_size=0
    ).area == pytest.approx(0, abs=1e-9)
    holes = [len(shapely.get_parts(shapely.get_rings(f[0]))) for f in found]
    assert holes == [len(shapely.get_parts(shapely.get_rings(f[0]))) for f in exact]


@given(maps, st.integers(1, 4))
@settings(deadline=None)
def test_smoothing_stays_within_half_a_pixel(codes, times):
    exact, smooth = coverage(codes), coverage(codes, RingOptions(smooth=times))
    for (one, *_), (other, *_) in zip(exact, smooth, strict=True):
        assert shapely.hausdorff_distance(one.boundary, other.boundary, densify=0.25) < 0.5


@given(maps, cuts)
@settings(deadline=None)
def test_regions_are_counted_as_they_are_made(codes, cut):
    found, rows, width = len(coverage(codes)), cut[0], codes.shape[1]

    def parts():
        return (codes[top : top + rows] for top in range(0, len(codes), rows))

    assert count_regions(parts, width, found) == (0, 0)
    if found:
        regions, corners = count_regions(parts, width, found - 1)
        assert regions == found and corners > 0


def test_the_example_labels_are_gdals():
    path = next(EXAMPLES.glob("*labels*.tif"))
    with rasterio.open(path) as dataset:
        codes = np.where(dataset.read_masks(1) > 0, dataset.read(1).astype(int) + 1, 0)
    codes = codes.astype(np.uint8)
    for connectivity in (4, 8):
        found = coverage(codes, RingOptions(connectivity), 37, 2)
        assert sorted((plain(g), c) for g, c, *_ in found) == expected(codes, connectivity)
    for shape in (
        RingOptions(tolerance=1.5),
        RingOptions(tolerance=2.0, method=METHODS[1], smooth=2),
    ):
        geometries = np.array([f[0] for f in coverage(codes, shape, 37, 2)], object)
        assert shapely.is_valid(geometries).all()
        assert shapely.coverage_is_valid(geometries)


def test_visvalingam_and_whyatt_take_the_smallest_triangle_first():
    # A step of one pixel (triangles of half a square pixel) beside one of two (one).
    codes = np.ones((8, 12), np.uint8)
    codes[4:, :] = 2
    codes[3, 4:] = 2
    codes[2, 8:] = 2
    for tolerance, vertices in ((0.5, 6), (20.0, 2)):
        (upper, *_), _ = coverage(codes, RingOptions(tolerance=tolerance))
        border = [c for c in upper.exterior.coords[:-1] if c[1] > 0]
        assert len(border) == vertices


def test_douglas_and_peucker_keep_what_is_far():
    codes = np.ones((12, 20), np.uint8)
    codes[6:] = 2
    codes[5, 5:7] = 2  # one pixel off the line
    codes[2:6, 12:14] = 2  # four
    for tolerance, far, near in ((0.9, 2, 5), (1.5, 2, 6), (5.0, 6, 6)):
        (upper, *_), _ = coverage(codes, RingOptions(tolerance=tolerance, method=METHODS[1]))
        ys = [y for x, y in upper.exterior.coords if 0 < x < 20]
        assert min([*(y for y in ys if y > 0), 6]) == far
        inside = [y for x, y in upper.exterior.coords if 4 < x < 8 and y > 0]
        assert min([*inside, 6]) == near
