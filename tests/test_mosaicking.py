"""geoseg mosaic: maps on one grid, their order, what is refused, and what is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.merge
import shapely
from affine import Affine
from click.testing import CliRunner

import geoseg
from geoseg.cli.app import _cli
from geoseg.errors import GeosegError
from geoseg.mosaicking import pixels
from geoseg.mosaicking.grid import MosaicGrid
from geoseg.polygons.polygonize import polygonize
from tests.events import check_event
from tests.mosaics import NAMES, land, place, read, write_map

OLD, NEW = "2023-06-01T10:00:00Z", "2024-06-01T10:00:00Z"


@pytest.fixture
def halves(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A map and two parts of it that overlap, as maps of their own."""
    whole = write_map(tmp_path / "whole.tif", land(1100, 1300, nodata=0.1))
    ids = read(whole)
    left = write_map(tmp_path / "a" / "left.tif", ids[:, :800], date=OLD)
    right = write_map(tmp_path / "b" / "right.tif", ids[:, 600:], place(0, 600), date=NEW)
    return whole, left, right


def test_two_halves_are_the_whole(halves: tuple[Path, Path, Path], tmp_path: Path) -> None:
    whole, left, right = halves
    events: list[Any] = []
    made = geoseg.mosaic([left, right], tmp_path / "m.tif", progress=events.append)
    with rasterio.open(made.raster) as mosaic, rasterio.open(whole) as map_:
        np.testing.assert_array_equal(mosaic.read(1), map_.read(1))
        assert mosaic.transform == map_.transform and mosaic.crs == map_.crs
        assert mosaic.nodata == 255 and mosaic.colormap(1)[7] == map_.colormap(1)[7]
        assert mosaic.tags(1) == map_.tags(1) and mosaic.descriptions == ("land cover",)
        assert json.loads(mosaic.tags()["GEOSEG_CLASSES"]) == {str(i): n for i, n in NAMES.items()}
    expected = polygonize(whole)
    found = geopandas.read_file(made.vector)
    assert sorted(shapely.normalize(g).wkb for g in found.geometry) == sorted(
        shapely.normalize(g).wkb for g in expected.geometry
    )
    kinds = [check_event(event) for event in events]
    assert {"MosaicProgress", "PolygonsProgress"} <= {*kinds} and kinds[-1] == "MosaicResult"
    report = json.loads((tmp_path / "m.json").read_text())
    assert report == made.report and report["resampling"] is None
    # The newer one is on top where both are.
    counts = {Path(entry["path"]).name: entry["pixels"] for entry in report["maps"]}
    ids = read(whole)
    assert counts["right.tif"] == (ids[:, 600:] != 255).sum()
    assert counts["left.tif"] == (ids[:, :600] != 255).sum()
    areas = expected.groupby("class_name").area_m2.sum()
    for entry in report["classes"]:
        assert entry["pixels"] == (ids == entry["id"]).sum()
        assert entry["area_m2"] == pytest.approx(areas[entry["name"]], rel=1e-6)


def test_a_virtual_mosaic_shows_the_same(halves: tuple[Path, Path, Path], tmp_path: Path) -> None:
    whole, left, right = halves
    made = geoseg.mosaic([left, right], tmp_path / "m.vrt")
    tif = geoseg.mosaic([left, right], tmp_path / "t.tif")
    np.testing.assert_array_equal(read(made.raster), read(whole))
    for key in ("maps", "pixels", "classes", "grid"):
        assert made.report[key] == tif.report[key]
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("a", "b", "m.vrt"):
        shutil.move(tmp_path / name, moved / name)
    np.testing.assert_array_equal(read(moved / "m.vrt"), read(whole))
    # It is a class raster like any other, and made by geoseg.
    polygons = geoseg.vectorize(moved / "m.vrt", tmp_path / "v.gpkg").polygons
    assert sum(polygons.values()) == len(geopandas.read_file(tif.vector))
    geoseg.mosaic(sorted(moved.glob("*/*.tif")), moved / "m.vrt", no_vector=True, overwrite=True)
    assert read(moved / "m.vrt").shape == (1100, 1300)


def test_nodata_covers_nothing_in_a_virtual_mosaic_either(tmp_path: Path) -> None:
    ids = land(60, 60)
    holes = ids.copy()
    holes[10:30, 20:40] = 255
    maps = [write_map(tmp_path / f"{n}.tif", i) for n, i in (("top", holes), ("below", ids))]
    for name in ("m.vrt", "m.tif"):
        made = geoseg.mosaic(maps, tmp_path / name, top="first", no_vector=True, overwrite=True)
        np.testing.assert_array_equal(read(made.raster), ids)
        assert [entry["pixels"] for entry in made.report["maps"]] == [3200, 400]


def test_a_part_is_a_part_of_the_whole(halves: tuple[Path, Path, Path], tmp_path: Path) -> None:
    whole, left, right = halves
    with rasterio.open(whole) as dataset:
        window = rasterio.windows.Window(501, 300, 333, 222)
        west, south, east, north = dataset.window_bounds(window)
        expected = dataset.read(1, window=window)
    for name in ("m.tif", "m.vrt"):
        made = geoseg.mosaic(
            [left, right],
            tmp_path / name,
            bbox=(west + 4, south + 4, east - 4, north - 4),
            no_vector=True,
            overwrite=True,
        )
        np.testing.assert_array_equal(read(made.raster), expected)


def test_plain_maps_are_merged_as_rasterio_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = []
    for number in range(7):
        row, col = (int(n) for n in rng.integers(0, 300, 2))
        ids = land(200 + 10 * number, 260, seed=number, nodata=0.3)
        maps.append(write_map(tmp_path / f"{number}.tif", ids, place(row, col)))
    for top in ("first", "last"):
        made = geoseg.mosaic(maps, tmp_path / f"{top}.tif", top=top, no_vector=True)
        expected, transform = rasterio.merge.merge(maps, method=top, nodata=255)
        np.testing.assert_array_equal(read(made.raster), expected[0])
        with rasterio.open(made.raster) as dataset:
            assert dataset.transform == transform


@pytest.mark.parametrize("top", ["first", "frequent", "confident"])
@pytest.mark.parametrize("side", [16, 112, 512])
def test_windows_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: str, side: int
) -> None:
    """Nor does how many files are open, or how much of one is read at a time."""
    from geoseg.mosaicking import reading

    rng = np.random.default_rng(1)
    maps = []
    for number in range(5):
        ids = land(160, 150, seed=number, nodata=0.2)
        crs, transform = "EPSG:32633", place(20 * number, 15 * number)
        if number % 2:
            crs, transform = "EPSG:32634", Affine(10, 0, 277_000, 0, -10, 5_701_000)
        steps = rng.integers(0, 255, ids.shape).astype(np.uint8)
        path = tmp_path / f"{number}" / "landcover.tif"
        maps.append(write_map(path, ids, transform, crs=crs, confidence=steps))
    options = {"top": top, "crs": "EPSG:32633"}
    whole = geoseg.mosaic(maps, tmp_path / "a.tif", **options)
    monkeypatch.setattr(pixels, "WINDOW", side)
    monkeypatch.setattr(reading, "MOST_OPEN", 1)
    monkeypatch.setattr(reading, "MOST_READ", 1000)
    other = geoseg.mosaic(maps, tmp_path / "b.tif", **options)
    assert whole.raster.read_bytes() == other.raster.read_bytes()
    assert whole.report["maps"] == other.report["maps"]
    kept = [{k: v for k, v in entry.items() if k != "area_m2"} for entry in whole.report["classes"]]
    assert kept == [
        {k: v for k, v in entry.items() if k != "area_m2"} for entry in other.report["classes"]
    ]


def test_it_is_a_cloud_optimized_geotiff_of_the_most_frequent_classes(tmp_path: Path) -> None:
    from rio_cogeo import cog_validate

    from geoseg.rasters.writing import halve

    ids = np.full((3001, 2777), 255, np.uint8)
    ids[100:700, 2000:] = land(600, 777)
    ids[2400:, :900] = land(601, 900, seed=1)
    maps = [
        write_map(tmp_path / "a.tif", ids[:800]),
        write_map(tmp_path / "b.tif", ids[800:], place(800)),
    ]
    made = geoseg.mosaic(maps, tmp_path / "m.tif", top="first", no_vector=True)
    assert cog_validate(made.raster) == (True, [], [])
    with rasterio.open(made.raster) as dataset:
        np.testing.assert_array_equal(dataset.read(1), ids)
        assert dataset.overviews(1) == [2, 4, 8]
        for level in range(3):
            ids = halve(ids)
            with rasterio.open(made.raster, overview_level=level) as overview:
                np.testing.assert_array_equal(overview.read(1), ids)
        # What no map covers takes no room.
        assert dataset.get_tag_item("BLOCK_OFFSET_0_3", "TIFF", bidx=1) is None


def archive(folder: Path, dates: list[str | None]) -> list[Path]:
    """An archive of scenes that lie one on another, each of one class of its own."""
    for number, date in enumerate(dates):
        ids = np.full((20, 20), [*NAMES][number], np.uint8)
        write_map(folder / f"scene{number}" / "landcover.tif", ids, date=date)
    return sorted(folder.glob("*/landcover.tif"))


def test_maps_are_named_in_many_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = archive(tmp_path / "out", [OLD, NEW, OLD])
    write_map(tmp_path / "out" / ".geoseg-at-work" / "landcover.tif", land(20, 20))
    (tmp_path / "maps.txt").write_text("# all of them\nout/scene0\n\nout/scene[12]/*.tif\n")
    monkeypatch.chdir(tmp_path)
    for number, names in enumerate(
        ("out", paths, "out/*/landcover.tif", "maps.txt", ["out/scene2", "out/scene0", paths[1]])
    ):
        events: list[Any] = []
        made = geoseg.mosaic(names, f"{number}.tif", no_vector=True, progress=events.append)
        assert len(made.report["maps"]) == 3
        assert (read(made.raster) == [*NAMES][1]).all()
        assert not [e for e in events if e["event"] == "warning"]
    events = []
    geoseg.mosaic(["out", *paths[:1]], "twice.tif", no_vector=True, progress=events.append)
    said = [e["message"] for e in events if e["event"] == "warning"]
    assert said == ["out/scene0/landcover.tif is named more than once; it counts once".replace(
        "out/scene0/landcover.tif", str(paths[0])
    )]  # fmt: skip


@pytest.mark.parametrize(
    ("dates", "winner"),
    [
        ((OLD, NEW, OLD), 1),
        ((NEW, OLD, OLD), 0),
        # The same moment in another zone is not newer: the first one counts.
        ((OLD, "2024-06-01T12:00:00+02:00", NEW), 1),
        ((OLD, NEW, "2024-06-01T10:00:00.5Z"), 2),
        # Where no zone is given it is UTC.
        (("2024-06-01T11:00:00+02:00", "2024-06-01T10:00:00", OLD), 1),
    ],
)
def test_the_newest_is_on_top(tmp_path: Path, dates: tuple[str, ...], winner: int) -> None:
    archive(tmp_path / "out", list(dates))
    made = geoseg.mosaic(tmp_path / "out", tmp_path / "m.tif", no_vector=True)
    assert (read(made.raster) == [*NAMES][winner]).all()


def test_equal_votes_and_confidence_go_to_the_newest(tmp_path: Path) -> None:
    paths = archive(tmp_path / "out", [OLD, NEW, OLD])
    for path in paths:
        steps = np.full((20, 20), 100, np.uint8)
        with rasterio.open(path) as dataset:
            ids, date = dataset.read(1), json.loads(path.with_name("item.json").read_text())
        write_map(path, ids, date=date["properties"]["datetime"], confidence=steps)
    for top in ("frequent", "confident"):
        made = geoseg.mosaic(paths, tmp_path / f"{top}.tif", top=top, no_vector=True)
        assert (read(made.raster) == [*NAMES][1]).all()


def test_confidence_is_found_by_the_report_of_a_map(tmp_path: Path) -> None:
    """Of maps that lie side by side, as predict writes them."""
    rng, maps = np.random.default_rng(0), []
    for number in range(2):
        ids = np.full((30, 30), number, np.uint8)
        steps = rng.integers(0, 255, ids.shape).astype(np.uint8)
        path = write_map(tmp_path / "x" / f"{number}.tif", ids, confidence=steps)
        path.with_name("confidence.tif").rename(path.with_name(f"{number}_sure.tif"))
        report = {"geoseg": "0", "outputs": {"confidence": f"elsewhere/{number}_sure.tif"}}
        path.with_suffix(".json").write_text(json.dumps(report))
        maps.append(path)
    made = geoseg.mosaic(maps, tmp_path / "m.tif", top="confident", no_vector=True)
    sure = [read(tmp_path / "x" / f"{number}_sure.tif").astype(int) for number in range(2)]
    sure = [np.where(s == 255, -1, s) for s in sure]
    np.testing.assert_array_equal(read(made.raster), (sure[1] > sure[0]).astype(np.uint8))


def test_what_is_odd_is_reported(tmp_path: Path) -> None:
    ids = land(40, 50)
    one = write_map(tmp_path / "1.tif", ids, GEOSEG_MODEL="a", GEOSEG_MODEL_SHA256="1")
    two = write_map(
        tmp_path / "2.tif", ids, place(gsd=20), GEOSEG_MODEL="b", GEOSEG_MODEL_SHA256="2"
    )
    made = geoseg.mosaic([one, two], tmp_path / "m.tif", top="first")
    models, sizes = made.report["warnings"]
    assert "by 2 models" in models and "a (" in models
    assert "2 sizes: 10 m" in sizes
    assert [entry["resampled"] for entry in made.report["maps"]] == [False, True]
    assert "nearest neighbour" in made.report["resampling"]
    with rasterio.open(made.raster) as dataset:
        assert "GEOSEG_MODEL" not in dataset.tags()
    # Each pixel of 20 m is four of 10 m.
    expected = ids.repeat(2, 0).repeat(2, 1)
    expected[:40, :50] = ids
    np.testing.assert_array_equal(read(made.raster), expected)


def test_too_many_polygons_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geoseg.mosaicking import run

    monkeypatch.setattr(run, "MOST_POLYGONS", 10)
    one = write_map(tmp_path / "one.tif", land(200, 200))
    made = geoseg.mosaic([one], tmp_path / "m.tif", top="first")
    assert made.vector is None and not (tmp_path / "m.gpkg").exists()
    (warning,) = made.report["warnings"]
    assert f"geoseg vectorize {tmp_path / 'm.tif'} --sieve" in warning
    assert geoseg.mosaic([one], tmp_path / "m.tif", top="first", force=True, overwrite=True).vector


def test_the_command(halves: tuple[Path, Path, Path], tmp_path: Path) -> None:
    whole, left, right = halves
    out = tmp_path / "m.tif"
    arguments = ["mosaic", str(left), str(right), "-o", str(out), "--simplify", "15"]
    done = CliRunner().invoke(_cli, [*arguments, "--min-area", "5000", "--co", "COMPRESS=ZSTD"])
    assert done.exit_code == 0, done.output
    assert "of 2 maps" in done.output and str(out) in done.output
    np.testing.assert_array_equal(read(out), read(whole))
    frame = geopandas.read_file(out.with_suffix(".gpkg"))
    expected = polygonize(whole, min_area=5000, simplify=15)
    assert sorted(frame.area_m2) == pytest.approx(sorted(expected.area_m2))
    done = CliRunner().invoke(_cli, [*arguments, "--max-pixels", "1000"])
    assert isinstance(done.exception, GeosegError)


def test_a_grid_finds_its_pixels_anywhere() -> None:
    grid = MosaicGrid(None, (3.0, 7.0), (0.1, -0.1), pixels.Window(-4, -9, 30, 20))
    part = pixels.Window(12, 5, 8, 9)
    assert grid.place_of(grid.pixels(part)) == part
    west, north = grid.pixels(part).transform @ (0, 0)
    east, south = grid.pixels(part).transform @ (9, 8)
    assert grid.touched((west, south, east, north)) == part
