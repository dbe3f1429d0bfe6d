"""A CRS that contradicts the coordinates is said before any work."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg.errors import SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.scene.opening import open_scene
from geoseg.scene.place import check_place
from tests import forked
from tests.helpers import make_raster, tiny_model

METRES = Affine(10, 0, 500000, 0, -10, 5000000)
DEGREES = Affine(1e-4, 0, 15, 0, -1e-4, 45)


@pytest.mark.parametrize(
    ("crs", "transform", "words"),
    [
        ("EPSG:4326", METRES, "outside its CRS EPSG:4326: that is of longitude and latitude"),
        ("EPSG:32633", DEGREES, "which is longitude and latitude, and its CRS EPSG:32633 is of m"),
    ],
    ids=["metres under degrees", "degrees under metres"],
)
def test_a_crs_that_contradicts_the_coordinates_is_said_before_any_work(
    tmp_path: Path, crs: str, transform: Affine, words: str
) -> None:
    names = ("red", "nir")
    values = np.random.default_rng(0).random((2, 256, 256), np.float32)
    make_raster(tmp_path / "s.tif", values, crs=crs, transform=transform, descriptions=names)
    tiny_model(tmp_path / "model", names, ("a", "b"))
    command = [sys.executable, "-m", "geoseg", "predict", "s.tif", "-m", "model"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = forked.run(command, cwd=tmp_path)
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert "gdal_edit.py -a_srs" in done.stderr and done.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "s.tif"]
    # KiB, of the largest child so far.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(before, 1_000_000)


def test_what_lies_far_outside_the_area_of_its_crs_is_noted(tmp_path: Path) -> None:
    far = Affine(10, 0, 500000 + 2_500_000, 0, -10, 5000000)  # feet for metres, say
    scene = open_scene(make_raster(tmp_path / "s.tif", np.ones((1, 9, 9), "uint8"), transform=far))
    (note,) = scene.notes
    assert "far outside the area of its CRS EPSG:32633" in note and "12°E and 18°E" in note


def test_coordinates_without_a_place_on_earth_are_refused() -> None:
    grid = PixelGrid(9, 9, Affine(10, 0, 5e9, 0, -10, 5e9), CRS.from_epsg(32633))
    with pytest.raises(SceneError, match="no place on Earth for its middle"):
        check_place(grid, "s")


@pytest.mark.parametrize(
    ("epsg", "transform", "size"),
    [
        (4326, Affine(0.25, 0, -180.125, 0, -0.25, 90.125), (721, 1440)),  # of pixel centres
        (4326, Affine(0.1, 0, 170, 0, -0.1, 10), (100, 300)),  # across the antimeridian
        (4326, Affine(0.1, 0, 0, 0, -0.1, 90), (1800, 3600)),  # from 0 to 360
        (3857, Affine(1e4, 0, -2e7, 0, -1e4, 2e7), (4000, 4000)),
        (32633, Affine(0.005, 0, 0, 0, -0.005, 40), (100, 100)),  # a survey at the equator
        (32633, Affine(10, 0, 150_000, 0, -10, 5_000_000), (100, 100)),  # in the next zone
        (32733, Affine(10, 0, 500_000, 0, -10, 9_999_999), (100, 100)),
        (3031, Affine(100, 0, -1000, 0, -100, 1000), (20, 20)),  # the south pole
        (32119, Affine(28.5, 0, 630534, 0, -28.5, 228114), (443, 489)),
        (2154, Affine(0.2, 0, 650_000, 0, -0.2, 6_860_000), (100, 100)),
        (3832, Affine(100, 0, 0, 0, -100, 0), (9, 9)),  # whose area crosses the antimeridian
        (27700, Affine(1, 0, 50, 0, -1, 80), (30, 30)),
    ],
)
def test_nobody_is_accused_wrongly(epsg: int, transform: Affine, size: tuple[int, int]) -> None:
    assert check_place(PixelGrid(*size, transform, CRS.from_epsg(epsg)), "s") == []


def test_a_crs_that_is_like_one_of_epsgs_is_not_taken_for_it() -> None:
    """rasterio takes this one, of UTM zone 16, for one of Mexico."""
    text = "+proj=tmerc +lon_0=-87 +k=0.9996 +x_0=500000 +ellps=GRS80 +towgs84=0,0,0 +units=m"
    grid = PixelGrid(9, 9, Affine(30, 0, 648735, 0, -30, 4211835), CRS.from_string(text))
    assert check_place(grid, "s") == []


@given(
    st.sampled_from([4326, 32601, 32633, 32760, 3857, 3413, 27700]),
    st.floats(-1, 1), st.floats(-1, 1), st.floats(1e-7, 1e4), st.integers(1, 2000),
)  # fmt: skip
def test_degrees_and_metres_are_told_apart(
    epsg: int, x: float, y: float, pixel: float, size: int
) -> None:
    """Whatever lies where, a check ends without an error of its own; metres are never degrees."""
    crs = CRS.from_epsg(epsg)
    metres = Affine(pixel, 0, 1e5 + 1e6 * abs(x), 0, -pixel, 1e6 + 5e6 * abs(y) + size * pixel)
    grid = PixelGrid(size, size, metres, crs)
    if crs.is_geographic:
        with pytest.raises(SceneError, match="look like metres"):
            check_place(grid, "s")
    else:
        assert not any("longitude and latitude" in note for note in check_place(grid, "s"))


def test_small_pixels_keep_the_memory_limit(tmp_path: Path) -> None:
    """Areas of polygons are measured on the ground, however small a pixel is: here 5 mm."""
    rgb = np.random.default_rng(0).integers(1, 255, (3, 64, 64)).astype("uint8")
    values = rgb.repeat(8, 1).repeat(8, 2)
    small = Affine(0.005, 0, 500000, 0, -0.005, 5000000)
    make_raster(tmp_path / "s.tif", values, transform=small, descriptions=("red", "green", "blue"))
    code = (
        "import geoseg\n"
        "from geoseg.core.machine import peak_memory\n"
        "geoseg.predict('s.tif', model='landcover-aerial', mem_limit=10**9)\n"
        "print(peak_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 10**9
    assert (tmp_path / "s_landcover.gpkg").exists()
