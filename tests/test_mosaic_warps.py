"""Mosaics of several CRSs: one map cut into two zones is one map again."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import Resampling

import geoseg
from geoseg.errors import SceneError, UsageError
from tests.mosaics import NAMES, land, place, read, write_map

CUT = 520


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of zone 33; its west as it is, its east as GDAL brings it to zone 34."""
    folder = tmp_path_factory.mktemp("zones")
    ids = land(1000, 1100, nodata=0.05)
    write_map(folder / "whole.tif", ids)
    write_map(folder / "west.tif", ids[:, : CUT + 8])
    to_zone(folder / "whole.tif", folder / "east.tif", CUT, "EPSG:32634")
    return folder


def to_zone(source: Path, path: Path, cut: int, crs: str) -> None:
    with rasterio.open(source) as dataset:
        ids, transform = dataset.read(1)[:, cut:], dataset.transform @ Affine.translation(cut, 0)
        bounds = rasterio.transform.array_bounds(*ids.shape, transform)
        there, width, height = rasterio.warp.calculate_default_transform(
            dataset.crs, crs, ids.shape[1], ids.shape[0], *bounds, resolution=10
        )
        there = Affine(10, 0, round(there.c, -1), 0, -10, round(there.f, -1))
        out = np.full((height + 2, width + 2), 255, np.uint8)
        rasterio.warp.reproject(
            ids,
            out,
            src_transform=transform,
            src_crs=dataset.crs,
            src_nodata=255,
            dst_transform=there,
            dst_crs=crs,
            dst_nodata=255,
            resampling=Resampling.nearest,
            tolerance=0,
        )
    write_map(path, out, there, crs=crs)


def near(ids: NDArray[np.uint8], reach: int) -> NDArray[np.bool_]:
    """Where some pixel within a reach has another value."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * reach + 1
    return np.asarray(maximum_filter(ids, size) != minimum_filter(ids, size))


def test_a_scene_of_two_zones_is_one_map(zones: Path, tmp_path: Path) -> None:
    made = geoseg.mosaic(
        [zones / "west.tif", zones / "east.tif"], tmp_path / "m.tif", crs="EPSG:32633", top="first"
    )
    ids = read(zones / "whole.tif")
    with rasterio.open(made.raster) as dataset:
        # The grid is that of the whole; it reaches further where the corners of the east do.
        away = ~dataset.transform @ (place().c, place().f)
        col, row = (round(v) for v in away)
        assert away == pytest.approx((col, row)) and 0 <= col <= 2 and 0 <= row < 60
        found = dataset.read(1)[row : row + ids.shape[0], col : col + ids.shape[1]]
    assert found.shape == ids.shape
    np.testing.assert_array_equal(found[:, :CUT], ids[:, :CUT])
    # There and back by nearest neighbour moves a pixel by half of one along each axis, turned by
    # five degrees: one in fifty leaves its own, and only at a border does that show.
    inside = np.s_[2:-2, CUT:-2]
    differ = (found != ids)[inside]
    assert not (differ & ~near(ids, 1)[inside]).any()
    assert 0.001 < differ.mean() < 0.01 and near(ids, 1).mean() > 0.25
    frame = geopandas.read_file(made.vector)
    assert shapely.coverage_is_valid(frame.geometry.values)
    assert frame.geometry.is_valid.all()
    whole = geoseg.vectorize(zones / "whole.tif", tmp_path / "whole.gpkg")
    areas, expected = (
        geopandas.read_file(path).groupby("class_name").area_m2.sum()
        for path in (made.vector, whole.path)
    )
    # Its own outline may differ by half a pixel around.
    assert areas.sum() == pytest.approx(expected.sum(), rel=1e-3)
    for name in NAMES.values():
        assert areas[name] == pytest.approx(expected[name], rel=1e-3)


def test_no_polygon_ends_where_scenes_meet(zones: Path, tmp_path: Path) -> None:
    """A lake that lies in both is one polygon."""
    ids = np.ones((300, 300), np.uint8)
    ids[100:200, 50:250] = 0
    write_map(tmp_path / "whole.tif", ids)
    write_map(tmp_path / "west.tif", ids[:, :155])
    to_zone(tmp_path / "whole.tif", tmp_path / "east.tif", 145, "EPSG:32634")
    for crs in ("EPSG:32633", "EPSG:32634", "EPSG:3035", "EPSG:4326"):
        maps = [tmp_path / "west.tif", tmp_path / "east.tif"]
        made = geoseg.mosaic(maps, tmp_path / "m.tif", crs=crs, top="first", overwrite=True)
        frame = geopandas.read_file(made.vector)
        assert sorted(frame.class_name) == ["trees", "water"]
        lake = frame[frame.class_name == "water"]
        with rasterio.open(made.raster) as dataset:
            assert dataset.crs == crs
        # 2 km x 1 km, of which the outline is off by half a pixel.
        assert lake.area_m2.item() == pytest.approx(2e6, rel=5e-3)


@pytest.mark.parametrize("crs", ["EPSG:32634", "EPSG:3035", "EPSG:3857", "EPSG:4326"])
def test_each_pixel_has_the_class_at_its_centre(zones: Path, tmp_path: Path, crs: str) -> None:
    """By PROJ, pixel by pixel; and as GDAL's warp has it, which is off by an eighth of a pixel."""
    west, out = zones / "west.tif", tmp_path / "m.tif"
    made = geoseg.mosaic(west, out, crs=crs, top="first", no_vector=True)
    with rasterio.open(out) as mosaic, rasterio.open(west) as source:
        found, ids, t = mosaic.read(1), source.read(1), mosaic.transform
        y, x = np.mgrid[0 : mosaic.height, 0 : mosaic.width] + 0.5
        to_map = pyproj.Transformer.from_crs(crs, "EPSG:32633", always_xy=True)
        places = ~source.transform @ to_map.transform(t.a * x + t.c, t.e * y + t.f)
        col, row = (np.floor(place).astype(int) for place in places)
        inside = (row >= 0) & (row < source.height) & (col >= 0) & (col < source.width)
        exact = np.full(found.shape, 255, np.uint8)
        exact[inside] = ids[row[inside], col[inside]]
        warped = np.full(found.shape, 255, np.uint8)
        options = {"dst_transform": t, "dst_crs": mosaic.crs, "dst_nodata": 255}
        rasterio.warp.reproject(
            rasterio.band(source, 1), warped, resampling=Resampling.nearest, **options
        )
    # Centres within a thousandth of a pixel of a border may go to either side.
    assert (found != exact).mean() < 5e-5
    assert (found != warped).mean() < 1e-2
    assert not ((found != warped) & ~near(exact, 1)).any()
    # All of the map is there: its corners alone are narrower than a pixel.
    assert inside.any(axis=0)[3:-3].all() and inside.any(axis=1)[3:-3].all()
    corners = {(0, 0), (0, ids.shape[1] - 1), (ids.shape[0] - 1, 0)}
    assert corners <= {*zip(row[inside].tolist(), col[inside].tolist(), strict=True)}
    across, down = made.report["grid"]["gsd"]
    assert max(across, down) == pytest.approx(10, rel=0.01)
    assert min(across, down) == pytest.approx(10 if crs != "EPSG:4326" else 6.3, rel=0.02)


def test_a_part_of_a_warped_mosaic_is_a_part_of_the_whole(zones: Path, tmp_path: Path) -> None:
    maps = [zones / "west.tif", zones / "east.tif"]
    options = {"crs": "EPSG:3035", "top": "first", "no_vector": True}
    whole = geoseg.mosaic(maps, tmp_path / "whole.tif", **options)
    with rasterio.open(whole.raster) as dataset:
        window = rasterio.windows.Window(311, 207, 401, 503)
        west, south, east, north = dataset.window_bounds(window)
        expected = dataset.read(1, window=window)
    part = geoseg.mosaic(maps, tmp_path / "part.tif", bbox=(west, south, east, north), **options)
    np.testing.assert_array_equal(read(part.raster), expected)


def test_the_grid_is_anchored_at_multiples_of_a_pixel(zones: Path, tmp_path: Path) -> None:
    for res, crs in ((25.0, "EPSG:3035"), (7.5, "EPSG:32633"), (2e-4, "EPSG:4326")):
        made = geoseg.mosaic(
            zones / "west.tif", tmp_path / "m.tif", crs=crs, res=res, top="first", no_vector=True,
            overwrite=True,
        )  # fmt: skip
        a, b, x, d, e, y = made.report["grid"]["transform"]
        assert (a, b, d, e) == (res, 0, 0, -res)
        assert x / res == pytest.approx(round(x / res), abs=1e-6)
        assert y / res == pytest.approx(round(y / res), abs=1e-6)


def test_on_both_sides_of_the_antimeridian(tmp_path: Path) -> None:
    """Maps of zones 60 and 1 that meet at 180 degrees, in CRSs that do and don't have it inside."""
    ids = land(200, 200)
    # At 64 degrees north 180 degrees is at x = 646,000 in zone 60.
    corner = Affine(200, 0, 620_000, 0, -200, 7_120_000)
    far = write_map(tmp_path / "60.tif", ids, corner, crs="EPSG:32660")
    polar = geoseg.mosaic(far, tmp_path / "p.tif", crs="EPSG:3995", top="first", no_vector=True)
    valid = polar.report["pixels"]["valid"] * np.prod(polar.report["grid"]["gsd"])
    assert valid == pytest.approx(200**4, rel=0.05)
    geographic = geoseg.mosaic(
        far, tmp_path / "g.tif", crs="EPSG:4326", res=0.004, top="first", no_vector=True
    )
    with rasterio.open(geographic.raster) as dataset:
        assert dataset.bounds.left == pytest.approx(-180, abs=0.01)
        assert dataset.bounds.right == pytest.approx(180, abs=0.01)
        found = (dataset.read(1) != 255).any(axis=0)
    # Both ends are covered without a gap, and the world between is not.
    assert found[:60].all() and found[-120:].all() and not found[3000:-3000].any()
    zone = geoseg.mosaic(far, tmp_path / "z.tif", crs="EPSG:32601", top="first", no_vector=True)
    assert zone.report["pixels"]["valid"] == pytest.approx(ids.size, rel=0.02)


def test_a_map_without_a_place_in_the_crs_is_named(tmp_path: Path) -> None:
    odd = write_map(tmp_path / "odd.tif", land(20, 20), Affine(10, 0, 9e12, 0, -10, 9e12))
    sound = write_map(tmp_path / "sound.tif", land(20, 20))
    with pytest.raises(SceneError, match=r"odd.tif: its coordinates are .* no place on Earth"):
        geoseg.mosaic([sound, odd], tmp_path / "m.tif", crs="EPSG:4326", top="first")


def test_turned_maps_are_resampled_into_north_up_ones(tmp_path: Path) -> None:
    ids = land(90, 70)
    south_up = write_map(tmp_path / "s.tif", ids[::-1], place(90) @ Affine.scale(1, -1))
    made = geoseg.mosaic(south_up, tmp_path / "m.tif", top="first", no_vector=True)
    np.testing.assert_array_equal(read(made.raster), ids)
    turned = write_map(tmp_path / "t.tif", ids, place() @ Affine.rotation(30))
    made = geoseg.mosaic(turned, tmp_path / "t2.tif", top="first", no_vector=True)
    assert made.report["pixels"]["valid"] == pytest.approx(ids.size, rel=0.02)


def test_maps_without_a_crs(tmp_path: Path) -> None:
    ids = land(90, 70)
    maps = [
        write_map(tmp_path / "a.tif", ids[:50], Affine(1, 0, 0, 0, -1, 0), crs=None),
        write_map(tmp_path / "b.tif", ids[50:], Affine(1, 0, 0, 0, -1, -50), crs=None),
    ]
    made = geoseg.mosaic(maps, tmp_path / "m.tif", top="first")
    np.testing.assert_array_equal(read(made.raster), ids)
    assert made.report["classes"][0]["area_m2"] is None
    with pytest.raises(UsageError, match="--min-area and --simplify are in metres"):
        geoseg.mosaic(maps, tmp_path / "n.tif", top="first", simplify=3)
    with pytest.raises(UsageError, match="GeoJSON is longitude and latitude"):
        geoseg.mosaic(maps, tmp_path / "n.tif", top="first", vector=tmp_path / "n.geojson")


def test_maps_in_the_mosaics_crs_keep_their_pixels(tmp_path: Path) -> None:
    """Also where these are no multiples of a pixel's side, as Landsat's are not."""
    ids = land(300, 300)
    shift = Affine.translation(0.5, 0.25)
    write_map(tmp_path / "whole.tif", ids, place() @ shift)
    west = write_map(tmp_path / "west.tif", ids[:, :200], place() @ shift)
    to_zone(tmp_path / "whole.tif", tmp_path / "east.tif", 180, "EPSG:32634")
    for maps in ([west, tmp_path / "east.tif"], [tmp_path / "east.tif", west]):
        made = geoseg.mosaic(
            maps, tmp_path / "m.tif", crs="EPSG:32633", no_vector=True, overwrite=True,
            top="first" if maps[0] == west else "last",
        )  # fmt: skip
        resampled = {Path(e["path"]).stem: e["resampled"] for e in made.report["maps"]}
        assert resampled == {"west": False, "east": True}
        assert made.report["warnings"] == []
        with rasterio.open(made.raster) as dataset:
            col, row = (round(v) for v in ~dataset.transform @ (place() @ shift @ (0, 0)))
            found = dataset.read(1)[row : row + 300, col : col + 200]
        np.testing.assert_array_equal(found, ids[:, :200])
