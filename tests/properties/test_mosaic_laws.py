"""Laws of mosaics: what each rule takes, by a slow oracle; no window shows in the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS

import geoseg
from geoseg.cards.legend import ClassInfo
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.mosaicking import places as places_module
from geoseg.mosaicking.grid import MosaicGrid
from geoseg.mosaicking.maps import MapFile
from geoseg.mosaicking.places import Places
from geoseg.mosaicking.reading import Layer
from geoseg.mosaicking.tops import RULES
from tests.mosaics import NAMES, place, read, write_map

IDS = [*NAMES]


def stacks(most=6):
    """Ids and confidence (steps of 1/254; 255 is not known) of some maps, (N, H, W)."""
    shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5).map(
        lambda s: (min(s[0] + 1, most), *s[1:])
    )
    return shapes.flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape, elements=st.sampled_from([*IDS, 255])),
            # Few, so that there are many equals.
            hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 100, 101, 254, 255])),
        )
    )


def expected(top, ids, steps):
    """The class of a pixel, of its N ids and steps by rank, as one would do it on paper."""
    there = [n for n in range(len(ids)) if ids[n] != 255]
    if not there:
        return 255
    if top == "confident":
        # max takes the first of equals.
        return ids[max(there, key=lambda n: -1 if steps[n] == 255 else int(steps[n]))]
    if top == "frequent":
        votes = [int(ids[n]) for n in there]
        return max(votes, key=votes.count)
    return ids[there[0]]


def by_pixel(top, ids, steps):
    out = np.empty(ids.shape[1:], np.uint8)
    for y, x in np.ndindex(out.shape):
        out[y, x] = expected(top, ids[:, y, x], steps[:, y, x])
    return out


@settings(max_examples=300)
@given(stack=stacks(), top=st.sampled_from(["newest", "confident", "frequent"]))
def test_each_rule_takes_what_it_says(stack, top):
    ids, steps = stack
    shares = np.where(steps == 255, np.nan, steps / np.float32(254)).astype(np.float32)
    layers = [Layer(n, ids[n], shares[n]) for n in range(len(ids))]
    done = RULES[top](iter(layers), len(layers), ids.shape[1:], IDS)
    np.testing.assert_array_equal(done.ids, by_pixel(top, ids, steps))
    if top != "frequent":
        assert sum(done.pixels.values()) == (done.ids != 255).sum()
    else:
        assert done.pixels == {n: (ids[n] != 255).sum() for n in range(len(ids))}


@pytest.mark.parametrize("maps", [3, 40, 300])
def test_votes_of_many_maps_are_counted(maps):
    """In numbers of 8, 16 and 32 bits."""
    rng = np.random.default_rng(maps)
    ids = rng.choice(np.array([*IDS, 255], np.uint8), (maps, 6, 5), p=[0.3, 0.3, 0.2, 0.1, 0.1])
    done = RULES["frequent"]((Layer(n, i) for n, i in enumerate(ids)), maps, (6, 5), IDS)
    np.testing.assert_array_equal(done.ids, by_pixel("frequent", ids, ids))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 5),
    top=st.sampled_from(["newest", "confident", "frequent", "first", "last"]),
)
def test_a_mosaic_of_random_maps(tmp_path: Path, seed: int, count: int, top: str) -> None:
    """At random places, with random dates, against a stack of all in memory."""
    rng = np.random.default_rng(seed)
    ids = np.full((count, 40, 50), 255, np.uint8)
    steps = np.full(ids.shape, 255, np.uint8)
    paths, years = [], rng.permutation(count)
    for n in range(count):
        row, col, height, width = (int(v) for v in rng.integers((0, 0, 1, 1), (20, 25, 21, 26)))
        part = np.s_[row : row + height, col : col + width]
        ids[n][part] = rng.choice(np.array([*IDS, 255], np.uint8), (height, width))
        steps[n][part] = rng.integers(0, 256, (height, width))
        path = tmp_path / f"{seed}-{count}-{top}" / f"{n}" / "landcover.tif"
        date = f"{2000 + years[n]}-01-01T00:00:00Z"
        write_map(path, ids[n][part], place(row, col), date=date, confidence=steps[n][part])
        paths.append(path)
    if not (ids != 255).any():
        return
    order = {"first": range(count), "last": range(count)[::-1]}.get(top, np.argsort(-years))
    made = geoseg.mosaic(paths, tmp_path / "m.tif", top=top, no_vector=True, overwrite=True)
    rows, cols = place(0, 0).f, place(0, 0).c
    grid = made.report["grid"]
    y, x = round((rows - grid["transform"][5]) / 10), round((grid["transform"][2] - cols) / 10)
    rule = "newest" if top in ("first", "last") else top
    whole = by_pixel(rule, ids[[*order]], steps[[*order]])
    np.testing.assert_array_equal(
        read(made.raster), whole[y:, x:][: grid["height"], : grid["width"]]
    )


#: Mosaic's CRS, pixel's side, and a map's CRS, first corner and pixel's side.
PAIRS = [
    ("EPSG:32634", 10.0, "EPSG:32633", (720_000.0, 5_700_000.0), 10.0),
    ("EPSG:32633", 10.0, "EPSG:32633", (720_003.0, 5_700_004.0), 30.0),
    ("EPSG:3035", 10.0, "EPSG:32633", (720_000.0, 5_700_000.0), 10.0),
    ("EPSG:4326", 1e-4, "EPSG:32633", (720_000.0, 5_700_000.0), 10.0),
    ("EPSG:3857", 20.0, "EPSG:4326", (179.9, 70.0), 1e-4),
    ("EPSG:3413", 1000.0, "EPSG:4326", (-180.0, 90.0), 0.02),
    ("EPSG:32633", 300.0, "EPSG:32660", (300_000.0, 6_000_000.0), 100.0),
]


@pytest.mark.parametrize(("crs", "side", "of", "corner", "gsd"), PAIRS)
def test_places_are_those_of_exact_transformation(crs, side, of, corner, gsd):
    map_ = PixelGrid(3000, 3000, Affine(gsd, 0, corner[0], 0, -gsd, corner[1]), CRS.from_string(of))
    to = pyproj.Transformer.from_crs(of, crs, always_xy=True)
    x, y = to.transform(*(map_.transform @ (1200, 1300)))
    grid = MosaicGrid(CRS.from_string(crs), (0.0, 0.0), (side, -side), Window(0, 0, 1, 1))
    around = grid.touched((x, y, x + side, y + side))
    whole = Window(around.row - 150, around.col - 170, 300, 340)
    places = Places(grid, map_)
    rows, cols = places.pixels(whole)
    assert (rows >= 0).any()
    at = np.mgrid[whole.row : whole.bottom, whole.col : whole.right] + 0.5
    back = pyproj.Transformer.from_crs(crs, of, always_xy=True)
    x, y = back.transform(at[1] * side, -at[0] * side)
    if of == "EPSG:4326":
        x = np.where(x < corner[0], x + 360, x)
    col, row = (np.asarray(v) for v in ~map_.transform @ (x, y))
    inside = (row >= 0) & (row < 3000) & (col >= 0) & (col < 3000)
    off = (np.where(inside, row, -1) < 0) != (rows < 0)
    for exact, found in ((row, rows), (col, cols)):
        sure = np.abs(exact - np.round(exact)) > 0.01
        wrong = sure & inside & (rows >= 0) & (np.floor(exact) != found)
        assert not wrong.any()
        off &= sure
    assert not off.any()


@pytest.mark.parametrize("tolerance", [1e-3, 1e9])
@pytest.mark.parametrize(("crs", "side", "of", "corner", "gsd"), PAIRS)
def test_no_window_shows_in_places(monkeypatch, tolerance, crs, side, of, corner, gsd):
    """Also if lines were trusted where they are far off, as those of a row are in GDAL's warp."""
    monkeypatch.setattr(places_module, "TOLERANCE", tolerance)
    map_ = PixelGrid(3000, 3000, Affine(gsd, 0, corner[0], 0, -gsd, corner[1]), CRS.from_string(of))
    to = pyproj.Transformer.from_crs(of, crs, always_xy=True)
    x, y = to.transform(*(map_.transform @ (1200, 1300)))
    grid = MosaicGrid(CRS.from_string(crs), (0.0, 0.0), (side, -side), Window(0, 0, 1, 1))
    middle = grid.touched((x, y, x + side, y + side))
    whole = Window(middle.row - 150, middle.col - 170, 300, 340)
    places = Places(grid, map_)
    rows, cols = places.pixels(whole)
    rng = np.random.default_rng(0)
    for _ in range(20):
        top, left = (int(v) for v in rng.integers(0, 250, 2))
        part = Window(whole.row + top, whole.col + left, *(int(v) for v in rng.integers(1, 50, 2)))
        found = places.pixels(part)
        cut = np.s_[top : top + part.height, left : left + part.width]
        np.testing.assert_array_equal(found[0], rows[cut])
        np.testing.assert_array_equal(found[1], cols[cut])


def test_lines_are_trusted_only_where_they_are_straight():
    """Of a conformal map a cell's middle says nothing: what bends along x and y cancels there."""
    # z -> z + c z^2, whose second derivatives cancel.
    half = np.arange(-1, 2) * 1.0
    x, y = np.meshgrid(half, half)
    bent = np.stack((x + 0.01 * (x * x - y * y), y + 0.02 * x * y))
    assert places_module._off(bent)[0, 0] == pytest.approx(0.01)
    straight = np.stack((x + 2 * y, 3 * y - x))
    assert places_module._off(straight)[0, 0] == 0
    assert places_module._off(np.where(x > 0, np.inf, straight))[0, 0] == np.inf


def test_a_legend_is_compared_by_ids_and_names():
    from geoseg.mosaicking.maps import check_legends, differences

    one = (ClassInfo(0, "water", "#0000FF"), ClassInfo(1, "trees", "#00FF00"))
    grid = PixelGrid(1, 1, Affine.identity(), None)
    assert differences(one, one[::-1]) == []
    other = (ClassInfo(0, "water", "#000000"), ClassInfo(1, "trees", "#00FF00"))
    check_legends([MapFile("a", grid, one), MapFile("b", grid, other)])
