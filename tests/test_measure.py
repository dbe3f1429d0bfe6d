"""Areas and lengths on the ground: right, and of the same memory, at any size of a pixel."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine

import geoseg
from geoseg.geo.geodesy import GroundGrid, Rings
from geoseg.polygons.measure import Measure

UTM = "EPSG:32633"
#: Pixel sizes in the CRS's units: satellites, aircraft, drones, microscopes; degrees and kilometres
#: under a CRS of metres; nothing that exists.
SIZES = [30.0, 0.5, 0.02, 1e-3, 1e-4, 1e-9, 1e-13, 1e5, 1e9, 1e14]

PEAK = """
import json, resource, sys, tracemalloc
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
import numpy as np
from tests.test_measure import grid_of, squares
from geoseg.polygons.measure import Measure
rings = squares(256)
Measure.of(grid_of(30.0))(rings)  # what is imported and compiled once
found = []
for size in map(float, sys.argv[1:]):
    grid = grid_of(size)
    tracemalloc.start()
    areas, lengths = Measure.of(grid)(rings)
    np.asarray(grid.pixel_areas(0, 256))
    found.append([tracemalloc.get_traced_memory()[1], areas.tolist(), lengths.tolist()])
    tracemalloc.stop()
print(json.dumps(found))
"""


def grid_of(size, crs=UTM, origin=(500_000.0, 5_500_000.0), side=256):
    place = Affine(size, 0, origin[0], 0, -size, origin[1])
    return GroundGrid(side, side, tuple(place)[:6], pyproj.CRS(crs), pyproj.CRS(crs))


def squares(side):
    """Squares of 1, 2, 4 ... pixels at (3, 5), one polygon each, and the whole raster."""
    sides = [1, 2, 4, 64, 128]
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]], np.float64)
    xy = [corners * s + [3, 5] for s in sides] + [corners * side]
    each = np.arange(len(xy) + 1)
    return Rings(np.concatenate(xy), 5 * each, each)


def geodesic(grid, ring, steps=64):
    """The oracle: pyproj.Geod on a densified ring."""
    along = np.linspace(0, 1, steps, endpoint=False)[:, None]
    xy = np.concatenate([a + along * (b - a) for a, b in itertools.pairwise(ring)])
    lonlat = grid.to_lonlat(grid.to_crs(xy))
    area, length = grid.crs.get_geod().polygon_area_perimeter(*lonlat.T)
    return abs(area), length


@pytest.fixture(scope="module")
def peaks():
    """Bytes at their peak, areas and lengths, by size."""
    command = [sys.executable, "-c", PEAK, *map(str, SIZES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    return dict(zip(SIZES, json.loads(done.stdout), strict=True))


def test_memory_does_not_depend_on_the_size_of_a_pixel(peaks):
    for size, (peak, *_) in peaks.items():
        assert peak < 20e6, size


@pytest.mark.parametrize("size", [s for s in SIZES if s < 1e3])
def test_areas_of_small_pixels_are_right(peaks, size):
    # Of the same place, at a size that pyproj can measure: ground and pixels are alike.
    ratio = max(1.0, 0.5 / size)
    grid = grid_of(size * ratio)
    _, areas, lengths = peaks[size]
    rings = squares(256)
    for ring, (area, length) in enumerate(zip(areas, lengths, strict=True)):
        own = rings.xy[5 * ring : 5 * ring + 5]
        expected = geodesic(grid, own)
        # Half a metre of pixels reaches a little further than what it stands for.
        assert area * ratio**2 == pytest.approx(expected[0], rel=5e-7 if ratio == 1 else 2e-6)
        assert length * ratio == pytest.approx(expected[1], rel=5e-7 if ratio == 1 else 2e-6)


@pytest.mark.parametrize(
    ("crs", "origin"),
    [
        (UTM, (15.0, 50.0)),  # degrees under metres: a place on the equator, and a true one
        (UTM, (700_000.0, 5_500_000.0)),
        ("EPSG:4326", (15.0, 50.0)),
        ("EPSG:3857", (1_600_000.0, 6_400_000.0)),
        ("EPSG:2193", (1_600_000.0, 5_400_000.0)),
        ("EPSG:3031", (1_000_000.0, 200_000.0)),
        ("EPSG:2263", (980_000.0, 200_000.0)),  # US survey feet
    ],
)
def test_areas_of_tiny_pixels_follow_from_those_of_larger_ones(crs, origin):
    unit = pyproj.CRS(crs).axis_info[0].unit_conversion_factor
    metre = 1 / (unit * 6_371_000) if pyproj.CRS(crs).is_geographic else 1 / unit
    rings = squares(16)

    def measured(size):
        grid = grid_of(size * metre, crs, origin, 16)
        areas, lengths = Measure.of(grid)(rings)
        pixels = grid.pixel_areas(0, 16)
        width, height = grid.pixel_size()
        return areas / size**2, lengths / size, pixels / size**2, width / size, height / size

    expected = measured(1e-2)
    for size in (1e-4, 1e-9):
        for one, other in zip(measured(size), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=5e-7, err_msg=str(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("crs", "origin"),
    [(UTM, (1e12, 1e12)), (UTM, (1e300, -1e300)), ("EPSG:4326", (0, 95)), ("EPSG:4326", (1e9, 0))],
)
def test_where_there_is_no_ground_nothing_crashes(size, crs, origin):
    grid = grid_of(size, crs, origin, 16)
    with np.errstate(all="ignore"):
        areas, lengths = Measure.of(grid)(squares(16))
    assert len(areas) == len(lengths) == 6
    assert not np.isinf(areas).any()
    assert not np.isinf(lengths).any()


def test_a_pixel_size_of_old_maps_stays_to_the_last_bit():
    # It decides what is simplified and merged.
    for size in (0.5, 10.0, 30.0):
        grid = grid_of(size)
        x = y = 128
        corners = np.array([[x, y], [x + 1, y], [x, y + 1]], dtype=np.float64)
        (lon, lat), *others = grid.to_lonlat(grid.to_crs(corners)).tolist()
        geod = grid.crs.get_geod()
        assert grid.pixel_size() == tuple(geod.inv(lon, lat, *other)[2] for other in others)
    assert math.isclose(*grid_of(1e-9).pixel_size(), rel_tol=1e-6)


WHOLE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
import geoseg
geoseg.vectorize(sys.argv[1], sys.argv[2], layer="x")
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def write_noise(path, size, origin=(500_000.0, 5_500_000.0), side=256):
    about = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": UTM, "nodata": 255}
    place = Affine(size, 0, origin[0], 0, -size, origin[1])
    with rasterio.open(path, "w", height=side, width=side, transform=place, **about) as dataset:
        dataset.write(np.random.default_rng(0).integers(0, 4, (side, side)).astype(np.uint8), 1)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_vectorize_does_not_depend_on_the_size_of_a_pixel(tmp_path):
    used = {}
    for size, origin in (30.0, (5e5, 5.5e6)), (1e-3, (5e5, 5.5e6)):
        path = write_noise(tmp_path / f"{size}.tif", size, origin)
        command = [sys.executable, "-c", WHOLE, str(path), str(tmp_path / f"{size}.parquet")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{size}: {done.stderr[-500:]}"
        used[size] = int(done.stdout)
    assert max(used.values()) < 1.2 * used[30.0], used


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "pmtiles"])
@pytest.mark.parametrize(
    ("size", "origin"), [(1e-9, (500_000.0, 5_500_000.0)), (1e9, (0, 0)), (30.0, (1e12, 1e12))]
)
def test_any_grid_gives_a_file_or_a_refusal_in_words(tmp_path, size, origin, suffix):
    path = write_noise(tmp_path / "c.tif", size, origin, 32)
    try:
        geoseg.vectorize(path, tmp_path / f"c.{suffix}", sieve=2)
    except geoseg.errors.SceneError as error:  # before any work
        assert size > 1e-9 and "no place on Earth" in str(error) and "correct its CRS" in str(error)
    except geoseg.errors.GeosegError as error:
        assert suffix != "gpkg"
        assert "choose .gpkg" in str(error)


@pytest.mark.parametrize("units", ["m", "px"])
def test_a_map_where_there_is_no_ground_is_refused(tmp_path, units):
    path = write_noise(tmp_path / "c.tif", 30.0, (1e12, 1e12), 32)
    with pytest.raises(geoseg.errors.SceneError, match="no place on Earth"):
        geoseg.vectorize(path, tmp_path / "c.gpkg", simplify=2.0, units=units)
    assert not (tmp_path / "c.gpkg").exists()
