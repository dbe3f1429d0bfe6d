"""Clouds by a file of the user's: masks, cloud layers and polygons, on any grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from numpy.typing import NDArray
from rasterio.warp import transform
from shapely.geometry import Point, Polygon, box

import geoseg
from geoseg.archive.asked import Asked
from geoseg.cli.info import command as info
from geoseg.errors import GeosegError, OutputError, UsageError
from geoseg.geo.disk import Disk
from geoseg.geo.window import Window
from geoseg.prediction.cloud_files import SIDE
from geoseg.prediction.dry_run import dry_run
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.scene_clouds import open_with_clouds
from geoseg.scene.cloud_reader import CloudReader
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime
from tests.stacitems import earth_search, grid, numbers, save

SHAPE = 60, 80


class TwoClasses(NumpyRuntime):
    """The class is the remainder of the first band's number: only the pixel itself counts."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__(2)
        self.after = after

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        if self.after is not None and len(self.batches) > self.after:
            raise KeyboardInterrupt
        return np.floor(pixels[:, :1]) % 2 == np.arange(2)[None, :, None, None]


@pytest.fixture()
def scene(tmp_path: Path) -> Path:
    """Of 10 m, without a word of clouds."""
    values = numbers(3, 80)[:, : SHAPE[0]]
    return make_raster(tmp_path / "scene.tif", values, transform=grid(10), descriptions=("red",))


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", ("red",), ("a", "b"), size=32, overlap=8)


def mapped(scene: Path, model: Path, name: str = "map", **options: Any) -> Any:
    return geoseg.predict(
        scene, scene.parent / f"{name}.tif", model=model, no_vector=True,
        **{"runtime": TwoClasses(), "cloud_buffer": 0, **options},
    )  # fmt: skip


def nodata(result: Any) -> NDArray[np.bool_]:
    with rasterio.open(result.raster) as dataset:
        found: NDArray[np.bool_] = dataset.read(1) == 255
        return found


def blots(seed: int, height: int = SHAPE[0] // 2, width: int = SHAPE[1] // 2) -> NDArray[Any]:
    return np.random.default_rng(seed).random((height, width)) < 0.2


def left_out(scene: Path, file: Path, **options: Any) -> NDArray[np.bool_]:
    given = PredictOptions(**{"cloud_buffer": 0, "clouds": file, **options})
    opened = open_with_clouds(scene, given)
    assert opened.clouds is not None
    reader = CloudReader(opened.clouds, opened.grid)
    found = reader.read(Window(0, 0, opened.grid.height, opened.grid.width))
    reader.close()
    return found


@pytest.mark.parametrize("full", [1, 255])
@pytest.mark.parametrize("gap", [None, 0, 7])
def test_a_mask_says_which_pixels_are_clouds(scene: Path, full: int, gap: int | None) -> None:
    mask = blots(1)
    values = np.where(mask, full, 0).astype(np.uint8)
    if gap:
        values[3:5, 3:9] = gap
    file = make_raster(scene.with_name("mask.tif"), values[None], transform=grid(20), nodata=gap)
    wanted = (values != 0).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(left_out(scene, file), wanted)
    # What is unknown is not widened.
    wide = left_out(scene, file, cloud_buffer=40)
    opened = open_with_clouds(scene, PredictOptions(clouds=file))
    assert opened.clouds is not None
    clouds = Disk.of(opened.clouds.grid, 40).dilated(values == full) | (values != 0)
    np.testing.assert_array_equal(wide, clouds.repeat(2, axis=0).repeat(2, axis=1))


def test_a_mask_is_protected_reported_and_kept_in_mind(scene: Path, model: Path) -> None:
    mask = blots(2)
    file = scene.with_name("mask.tif")
    make_raster(file, mask[None].astype(np.uint8), transform=grid(20))
    result = mapped(scene, model, clouds=file)
    wanted = mask.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(nodata(result), wanted)
    assert result.report["clouds"] == {
        "layer": "the mask mask.tif", "source": "mask.tif", "buffer_m": 0,
        "pixels": wanted.sum(), "share": wanted.mean(),
    }  # fmt: skip
    assert result.report["options"]["clouds"] == "mask.tif"  # no path
    with pytest.raises(UsageError, match="is an input of this run"):
        mapped(scene, model, "mask", clouds=file, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        mapped(scene, model, "other", clouds=file, runtime=TwoClasses(after=9))
    make_raster(file, (~mask)[None].astype(np.uint8), transform=grid(20))
    with pytest.raises(OutputError, match=r"mask\.tif.*--restart"):
        mapped(scene, model, "other", clouds=file)


def test_a_part_of_a_scene_has_the_clouds_of_the_whole(scene: Path, model: Path) -> None:
    file = scene.with_name("clouds.fgb")
    place = Point(500000 + 333, 5000000 - 222)
    geopandas.GeoSeries([place.buffer(30)], crs="EPSG:32633").to_file(file)
    whole = nodata(mapped(scene, model, clouds=file, cloud_buffer=60))
    part = np.s_[25:60, 36:80]  # the cloud ends at column 36
    bounds = (500000 + 360, 5000000 - 600, 500800, 5000000 - 250)
    found = nodata(mapped(scene, model, "part", clouds=file, cloud_buffer=60, bbox=bounds))
    np.testing.assert_array_equal(found, whole[part])
    assert found.any() and not nodata(mapped(scene, model, "c", clouds=file))[part].any()


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "parquet"])
def test_polygons_of_another_crs(scene: Path, suffix: str) -> None:
    """What a polygon touches is left out: one that is smaller than a pixel is a cloud, too."""
    shapes = [box(500101, 4999721, 500199, 4999879), box(500503.1, 4999502, 500503.2, 4999502.1)]
    file = scene.with_name(f"clouds.{suffix}")
    frame = geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32633").to_crs("EPSG:4326")
    frame.to_parquet(file) if suffix == "parquet" else frame.to_file(file)
    wanted = np.zeros(SHAPE, bool)
    wanted[12:28, 10:20] = wanted[49, 50] = True
    np.testing.assert_array_equal(left_out(scene, file), wanted)


def test_polygons_are_the_same_in_whichever_window(tmp_path: Path) -> None:
    """With corners on those of pixels, at places that no float holds, where rounding decides."""
    pixels = Affine(1 / 3, 0, 5e5 + 0.1, 0, -1 / 3, 5e6 + 0.7)
    big = np.ones((1, 40, SIDE + 300), np.uint16)
    scene = make_raster(tmp_path / "scene.tif", big, transform=pixels)
    random = np.random.default_rng(1)
    shapes = []
    for left in range(0, SIDE + 280, 4):
        corners = random.integers((left, -5), (left + 30, 45), (4, 2)).tolist()
        shapes.append(Polygon([pixels @ corner for corner in corners]))
    geopandas.GeoSeries(shapes, crs="EPSG:32633").to_file(tmp_path / "clouds.gpkg")
    given = PredictOptions(clouds=tmp_path / "clouds.gpkg", cloud_buffer=0)
    opened = open_with_clouds(scene, given)
    assert opened.clouds is not None
    reader = CloudReader(opened.clouds, opened.grid)
    whole = reader.read(Window(0, 0, 40, SIDE + 300))
    assert 0.02 < whole.mean() < 0.98
    for row, col in ((r, c) for r in (3, 17) for c in range(0, SIDE + 280, 40)):
        window = Window(row, col, 8, 41)
        inside = window.intersection(Window(0, 0, 40, SIDE + 300))
        assert inside is not None
        np.testing.assert_array_equal(reader.read(inside), whole[inside.rows, inside.cols])


def test_a_mask_in_another_crs_is_looked_up_at_the_centres(scene: Path) -> None:
    (x,), (y,) = transform("EPSG:32633", "EPSG:4326", [500400], [4999700])
    t = Affine(3e-4, 0, x - 0.03, 0, -3e-4, y + 0.03)
    mask = np.random.default_rng(4).random((200, 200)) < 0.3
    file = scene.with_name("mask.tif")
    make_raster(file, mask[None].astype(np.uint8), crs="EPSG:4326", transform=t)
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    lon, lat = transform(
        "EPSG:32633", "EPSG:4326", (500000 + 10 * cols).ravel(), (5000000 - 10 * rows).ravel()
    )
    at = [~t @ point for point in zip(lon, lat, strict=True)]
    wanted = np.array([mask[int(r), int(c)] for c, r in at]).reshape(SHAPE)
    np.testing.assert_array_equal(left_out(scene, file), wanted)


def test_a_layer_of_a_product_is_known_by_its_name_and_the_sensor(scene: Path) -> None:
    values = np.random.default_rng(5).integers(0, 12, (1, 30, 40)).astype(np.uint8)
    wanted = np.isin(values[0], (0, 1, 3, 8, 9, 10)).repeat(2, axis=0).repeat(2, axis=1)
    named = make_raster(
        scene.with_name("S2A_MSIL2A_20220601T100031_SCL_20m.tif"), values, transform=grid(20)
    )
    np.testing.assert_array_equal(left_out(scene, named), wanted)
    bare = make_raster(scene.with_name("SCL.tif"), values, transform=grid(20))
    with pytest.raises(UsageError, match=r"as SCL it would be known .*, which is unknown"):
        left_out(scene, bare)
    sentinel = scene.rename(scene.with_name("S2A_MSIL2A_20220601T100031.tif"))
    np.testing.assert_array_equal(left_out(sentinel, bare), wanted)


def test_a_file_takes_the_place_of_an_item_s_own_layer(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path, earth_search(tmp_path))
    mask = blots(6, 96, 96)
    file = make_raster(tmp_path / "mask.tif", mask[None].astype(np.uint8), transform=grid(10))
    np.testing.assert_array_equal(left_out(source, file), mask)
    done = CliRunner().invoke(info, [str(source), "-m", str(model), "--clouds", str(file)])
    assert "the mask mask.tif: mask.tif" in done.output


def test_a_dry_run_skips_chips_of_clouds_by_a_file(scene: Path, model: Path) -> None:
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[:, :, 30:] = 1
    file = make_raster(scene.with_name("mask.tif"), mask, transform=grid(10))
    out = scene.with_name("x.tif")
    assert dry_run(scene, out, model=model, no_vector=True, clouds=file).skipped > 0
    assert dry_run(scene, out, model=model, no_vector=True).skipped == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: make_raster(f, np.eye(60, 80)[None] * 50, transform=grid(10)), "are float64; a"),
        (
            lambda f: make_raster(
                f, (np.arange(4800).reshape(1, 60, 80) % 101).astype(np.uint8), transform=grid(10)
            ),
            r"its numbers are 0, 1, 2, .*gdal_calc.py -A .*A>40",
        ),
        (
            lambda f: make_raster(f, np.eye(60, 80)[None] * 0.9, transform=grid(10)),
            r"are float64; .*A>0\.4",
        ),
        (
            lambda f: make_raster(f, np.eye(60, 80, dtype=np.uint8)[None] + 1, transform=grid(10)),
            r"its numbers are 1, 2.*A==2",
        ),
        (
            lambda f: make_raster(f, np.ones((2, 60, 80), np.uint8), transform=grid(10)),
            "has 2 bands, and a mask has one",
        ),
        (
            lambda f: make_raster(f, np.ones((1, 60, 40), np.uint8), transform=grid(10)),
            r"mask.tif covers only part of the scene.*gdal_translate -projwin",
        ),
        (lambda f: f.write_text("no raster"), "mask.tif"),
        (lambda f: f, "there is no such file"),
    ],
)
def test_what_says_nothing_of_clouds_is_refused_before_any_work(
    scene: Path, model: Path, make: Any, said: str
) -> None:
    file = scene.with_name("mask.tif")
    make(file)
    with pytest.raises(GeosegError, match=said) as caught:
        mapped(scene, model, clouds=file)
    assert "\n" not in str(caught.value) and "--bbox" not in str(caught.value)
    assert not scene.with_name("map.tif").exists()


def test_a_mask_without_a_crs_on_the_scenes_own_pixels_is_taken(scene: Path, model: Path) -> None:
    values = np.zeros((1, *SHAPE), np.uint8)
    values[0, 10:20, 30:50] = 1
    maps = []
    for crs in ("EPSG:32633", None):
        mask = make_raster(scene.with_name("mask.tif"), values, transform=grid(10), crs=crs)
        maps.append(nodata(mapped(scene, model, str(crs), clouds=mask)))
    np.testing.assert_array_equal(*maps)
    elsewhere = grid(10) @ Affine.translation(1, 0)
    make_raster(scene.with_name("mask.tif"), values, transform=elsewhere, crs=None)
    with pytest.raises(GeosegError, match="no CRS"):
        mapped(scene, model, clouds=scene.with_name("mask.tif"))


def test_polygons_that_are_none_or_lie_elsewhere_are_refused(scene: Path) -> None:
    file = scene.with_name("clouds.gpkg")
    for shape, said in (
        (box(400000, 4999000, 400100, 4999100), r"touches the scene scene.*--clouds none"),
        (Point(500100, 4999900), "holds no polygon"),
    ):
        geopandas.GeoSeries([shape], crs="EPSG:32633").to_file(file)
        with pytest.raises(UsageError, match=said):
            left_out(scene, file)
    file = scene.with_name("clouds.shp")
    with pytest.warns(UserWarning, match="crs"):
        geopandas.GeoSeries([box(500100, 4999500, 500200, 4999600)]).to_file(file)
    with pytest.raises(UsageError, match="the file has no CRS"):
        left_out(scene, file)


def test_a_file_may_not_lead_elsewhere(scene: Path, tmp_path_factory: Any) -> None:
    away = tmp_path_factory.mktemp("away") / "mask.tif"
    make_raster(away, np.ones((1, *SHAPE), np.uint8), transform=grid(10))
    file = scene.with_name("mask.vrt")
    file.write_text(
        f'<VRTDataset rasterXSize="80" rasterYSize="60"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{away}</SourceFilename></SimpleSource></VRTRasterBand>"
        f"</VRTDataset>",
        encoding="utf-8",
    )
    with pytest.raises(GeosegError, match="--input-root"):
        left_out(scene, file)


def test_an_archive_has_no_file_for_all_its_scenes(scene: Path) -> None:
    listed = r"a file of one scene's clouds.*auto, none, clouds-ms, csmask"
    with pytest.raises(UsageError, match=listed):
        Asked.of("landcover-ms", {"clouds": str(scene)}, ())
    assert Asked.of("landcover-ms", {"clouds": "none"}, ()).meant == {"clouds": "none"}
    assert json.dumps(Asked.of("landcover-ms", {"cloud_buffer": 30.0}, ()).meant)
