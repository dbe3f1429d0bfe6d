"""geoseg.geo.pixel_grid: which grids share their pixels."""

from __future__ import annotations

import pytest
from affine import Affine
from rasterio.crs import CRS

from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window

UTM = CRS.from_epsg(32633)
GRID = PixelGrid(40, 50, Affine(10, 0, 500_000, 0, -10, 5_000_000), UTM)


def moved(col: float, row: float, scale: float = 1.0) -> PixelGrid:
    return PixelGrid(
        40, 50, GRID.transform @ Affine.translation(col, row) @ Affine.scale(scale), UTM
    )


def test_a_part_lies_where_it_was_cut_out() -> None:
    part = GRID.crop(Window(3, 7, 20, 30))
    assert part.place_in(GRID) == (3, 7)
    assert GRID.place_in(part) is None
    assert not part.same_pixels(GRID)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (GRID, True),
        (moved(0.0005, -0.0005), True),
        (moved(0.002, 0), False),
        (moved(0, 0, 1.0001), False),
        (moved(1, 0), False),
        (PixelGrid(40, 50, GRID.transform, None), False),
        (PixelGrid(41, 50, GRID.transform, UTM), False),
    ],
)
def test_what_rounding_leaves_makes_no_other_grid(other: PixelGrid, same: bool) -> None:
    assert GRID.same_pixels(other) is same
    assert other.same_pixels(GRID) is same


def test_a_tolerance_of_half_a_pixel() -> None:
    assert moved(0.4, -0.4).same_pixels(GRID, tolerance=0.5)
    assert not moved(0.6, 0).same_pixels(GRID, tolerance=0.5)


def test_a_square_grid_that_is_transposed_is_another_one() -> None:
    square = PixelGrid(40, 40, GRID.transform, UTM)
    turned = PixelGrid(40, 40, GRID.transform @ Affine(0, 1, 0, 1, 0, 0), UTM)
    assert not turned.same_pixels(square)
