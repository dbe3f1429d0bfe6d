"""What geoseg mosaic refuses, in one line and without a file; and what a stopped run leaves."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.warp import reproject

import geoseg
from geoseg.errors import GeosegError, OutputError, UsageError
from geoseg.mosaicking import pixels
from tests.mosaics import NAMES, land, place, write_map

OLD, NEW = "2023-06-01T10:00:00Z", "2024-06-01T10:00:00Z"


def refused(match: str, maps: Any, output: Path, **options: Any) -> GeosegError:
    """An error in one line, and no file."""
    before = sorted(output.parent.rglob("*"))
    with pytest.raises(GeosegError, match=match) as caught:
        geoseg.mosaic(maps, output, **{"top": "first", **options})
    assert "\n" not in str(caught.value)
    assert sorted(output.parent.rglob("*")) == before
    return caught.value


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    ids, out = land(40, 50), tmp_path / "m.tif"
    one = write_map(tmp_path / "one.tif", ids)
    other = {**NAMES, 2: "grass"}
    grass = write_map(tmp_path / "grass.tif", ids, names=other)
    error = refused(
        r"one.tif and .*grass.tif have different classes: 2 is 'crops' in the first and 'grass' "
        r"in the second",
        [one, grass],
        out,
    )
    assert isinstance(error, UsageError)
    fewer = write_map(tmp_path / "fewer.tif", ids, names={i: NAMES[i] for i in (0, 1, 2)})
    refused("7 is 'built' in the first and no class in the second", [one, fewer], out)
    zone = write_map(tmp_path / "zone.tif", ids, crs="EPSG:32632")
    refused(
        r"2 CRSs: EPSG:32633 \(.*one.tif\); EPSG:32632 \(.*zone.tif\); .* with --crs",
        [one, zone],
        out,
    )
    bare = write_map(tmp_path / "bare.tif", ids, crs=None)
    refused("2 CRSs: EPSG:32633 .*; no CRS", [one, bare], out)
    refused("bare.tif has no CRS", [bare, bare], out, crs="EPSG:4326")
    refused("--crs 'nowhere'", [one], out, crs="nowhere")
    for number in (4978, 4979, 5773):  # of space, with heights, of heights alone
        refused("no CRS of a map", [one], out, crs=f"EPSG:{number}")
    refused("no date.*--top first", [one], out, top="newest")
    refused("no raster of confidence", [one], out, top="confident")
    refused("--top 'best': it must be one of newest", [one], out, top="best")
    refused("--res is -1", [one], out, res=-1)
    refused("--bbox .* lies outside the maps", [one], out, bbox=(0, 0, 1, 1))
    refused("--bbox", [one], out, bbox=(1, 0, 0, 1))
    refused("no map is given", [], out)
    refused("no such file", [tmp_path / "none.tif"], out)
    refused("holds no", [tmp_path / "empty"] if (tmp_path / "empty").mkdir() is None else [], out)
    refused("matches no file", [str(tmp_path / "x*.tif")], out)
    refused("ends in .tif", [one], tmp_path / "m.png")
    refused("px, and a raster may have", [one], out, res=1e-4)


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    ids, out = land(40, 50), tmp_path / "m.tif"
    unnamed = write_map(tmp_path / "unnamed.tif", ids, names={})
    refused("no names of classes", [unnamed], out)
    stray = write_map(tmp_path / "stray.tif", np.where(ids == 7, 9, ids).astype(np.uint8))
    refused(r"stray.tif holds the ids \[9\]", [stray], out)
    empty = write_map(tmp_path / "void.tif", np.full((9, 9), 255, np.uint8))
    for name in ("m.tif", "m.vrt"):
        refused("no pixel of the mosaic has a class", [empty], tmp_path / name)
    (tmp_path / "list.txt").write_text("list.txt\n")
    refused("is a list in a list", tmp_path / "list.txt", out)
    (tmp_path / "list.txt").write_text("# nothing\n")
    refused("names no map", tmp_path / "list.txt", out)
    one = write_map(tmp_path / "x" / "landcover.tif", ids, date="yesterday")
    refused("its datetime is 'yesterday'", [one], out)
    one.with_name("item.json").write_text("{")
    refused("item.json is no JSON", [one], out)


def test_when_a_map_was_made_is_no_date_of_its_scene(tmp_path: Path) -> None:
    one, two = (
        write_map(tmp_path / name / "landcover.tif", land(40, 50), date=date)
        for name, date in (("x", OLD), ("y", NEW))
    )
    geoseg.mosaic([one, two], tmp_path / "m.tif", top="newest", no_vector=True)
    item = json.loads(two.with_name("item.json").read_text())
    item["properties"]["geoseg:datetime_is_of_processing"] = True
    two.with_name("item.json").write_text(json.dumps(item))
    refused("properties.datetime", [one, two], tmp_path / "n.tif", top="newest")


def test_confidence_of_another_run_is_refused(tmp_path: Path) -> None:
    ids, out = land(40, 50), tmp_path / "m.tif"
    steps = np.zeros(ids.shape, np.uint8)
    one = write_map(tmp_path / "x" / "landcover.tif", ids, confidence=steps)
    geoseg.mosaic([one], out, top="confident", no_vector=True)
    write_map(one, ids, GEOSEG_SCENE="another")
    refused("of another scene or model", [one], tmp_path / "n.tif", top="confident")
    write_map(one, ids[1:])
    refused("is not the confidence of", [one], tmp_path / "n.tif", top="confident")


def test_a_virtual_mosaic_that_cannot_be_is_refused(tmp_path: Path) -> None:
    ids, out = land(40, 50), tmp_path / "m.vrt"
    one = write_map(tmp_path / "one.tif", ids)
    refused("--top frequent compares maps pixel by pixel", [one], out, top="frequent")
    finer = write_map(tmp_path / "finer.tif", ids, place(gsd=5))
    refused("one.tif would have to be resampled", [one, finer], out)
    other = write_map(tmp_path / "other.tif", np.where(ids == 1, 0, ids), nodata=1)
    refused("other.tif marks nodata by something other than 255", [one, other], out)
    refused("--co is for a GeoTIFF", [one], out, creation_options=["COMPRESS=ZSTD"])


def test_nothing_of_others_is_replaced(tmp_path: Path) -> None:
    ids = land(40, 50)
    one = write_map(tmp_path / "x" / "landcover.tif", ids, date=NEW)
    for name in ("landcover.tif", "item.tif"):
        refused("is an input of this run, or belongs to one", [one], one.with_name(name))
    for suffix in (".tif", ".vrt", ".qml", ".json", ".gpkg"):
        out = tmp_path / f"m{suffix}"
        out.write_text("<VRTDataset/>" if suffix == ".vrt" else "mine")
        raster = tmp_path / ("m.vrt" if suffix == ".vrt" else "m.tif")
        refused("exists already", [one], raster)
        error = refused("was not made by geoseg", [one], raster, overwrite=True)
        assert isinstance(error, OutputError)
        out.unlink()
    for name in ("m.tif", "m.vrt"):
        geoseg.mosaic([one], tmp_path / name)
        geoseg.mosaic([one], tmp_path / name, overwrite=True)
        (tmp_path / "m.gpkg").unlink()
        (tmp_path / "m.json").unlink()
        (tmp_path / "m.qml").unlink()


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    one = write_map(tmp_path / "maps" / "one.tif", np.random.default_rng(0).choice(
        np.array([*NAMES], np.uint8), (900, 900)
    ))  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (20_000, 250_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OutputError, match=r"the disk is full|can't be written") as caught:
                geoseg.mosaic([one], out / "m.tif", top="first", no_vector=True)
            assert ".geoseg" not in str(caught.value)
            assert os.listdir(out) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_not_read_back_as_written_is_no_mosaic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_map(tmp_path / "one.tif", land(90, 90))
    real = pixels.write_cog

    def damaged(source: Path, path: Path, spec: Any) -> None:
        real(source, path, spec)
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
            dataset.write(np.uint8([[255]]), 1, window=rasterio.windows.Window(30, 30, 1, 1))

    monkeypatch.setattr(pixels, "write_cog", damaged)
    refused("what was read back differs", [one], tmp_path / "m.tif")


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    one = write_map(tmp_path / "one.tif", land(3000, 400))

    def interrupt(event: Any) -> None:
        if event["event"] == "progress":
            raise KeyboardInterrupt

    for name in ("m.tif", "m.vrt"):
        with pytest.raises(KeyboardInterrupt):
            geoseg.mosaic([one], tmp_path / name, top="first", progress=interrupt)
        assert os.listdir(tmp_path) == ["one.tif"]


def test_a_map_of_floats_is_converted_by_the_advice(tmp_path: Path) -> None:
    """gdal_translate made the class 0 of what was nodata; gdalwarp does not."""
    ids = land(40, 50, nodata=0.2)
    assert (ids == 255).any() and (ids == 0).any()
    right = write_map(tmp_path / "right.tif", ids)
    floats = tmp_path / "floats.tif"
    values = np.where(ids == 255, np.float32(-3.4e38), ids.astype(np.float32))
    with rasterio.open(right) as dataset:
        profile = {**dataset.profile, "dtype": "float32", "nodata": float(np.float32(-3.4e38))}
        tags, names = dataset.tags(), dataset.tags(1)
    with rasterio.open(floats, "w", **profile) as dataset:
        dataset.write(values.astype(np.float32), 1)
        dataset.update_tags(**tags)
        dataset.update_tags(1, **names)
    refused(r"gdalwarp -ot Byte -dstnodata 255 floats\.tif", [floats], tmp_path / "m.tif")
    converted = np.zeros(ids.shape, np.uint8)
    with rasterio.open(floats) as dataset:
        reproject(
            dataset.read(1), converted, src_transform=dataset.transform, src_crs=dataset.crs,
            dst_transform=dataset.transform, dst_crs=dataset.crs, src_nodata=dataset.nodata,
            dst_nodata=255, init_dest_nodata=True,
        )  # fmt: skip
    np.testing.assert_array_equal(converted, ids)


@pytest.mark.parametrize("command", ["mosaic", "vectorize", "evaluate"])
def test_a_map_whose_coordinates_are_not_those_of_its_crs_is_refused(
    tmp_path: Path, command: str
) -> None:
    """Metres under EPSG:4326, as predict refuses them."""
    ids = land(40, 50)
    odd = write_map(tmp_path / "odd.tif", ids, crs="EPSG:4326")
    right = write_map(tmp_path / "right.tif", ids)
    match = r"odd.*outside its CRS EPSG:4326.*look like metres.*gdal_edit\.py -a_srs"
    if command == "mosaic":
        refused(match, [odd], tmp_path / "m.tif")
        return
    with pytest.raises(GeosegError, match=match):
        if command == "vectorize":
            geoseg.vectorize(odd, tmp_path / "m.gpkg")
        else:
            geoseg.evaluate(odd, labels=right)
    # As the advice has it.
    with rasterio.open(odd, "r+") as dataset:
        dataset.crs = rasterio.crs.CRS.from_epsg(32633)
    geoseg.vectorize(odd, tmp_path / "m.gpkg")
