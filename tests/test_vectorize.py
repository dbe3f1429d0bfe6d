"""The command: every format, options and errors; coverage in strips, on threads."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET

import geopandas
import geopandas.testing
import numpy as np
import pyarrow.parquet
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from rasterio.transform import Affine
from scipy import ndimage

import geoseg
import geoseg.polygons.features
from geoseg.core.ours import SHORT_NAMES
from geoseg.errors import OutputError, SceneError, UsageError
from geoseg.polygons.formats import VECTORIZE_FORMATS
from geoseg.polygons.polygonize import polygonize
from tests import forked
from tests.helpers import make_raster

NAMES = {1: "wood", 2: "water & ice", 5: "rock"}
COLOURS = {1: (10, 120, 30, 255), 2: (0, 0, 200, 255), 5: (128, 128, 128, 255)}
COLUMNS = [
    *("class_id", "class_name", "area_m2", "perimeter_m", "pixels", "confidence", "confidence_min"),
    *("runner_up", "runner_up_probability", "geometry"),
]


def land(size, seed, ids=(1, 2, 5), noise=0.1):
    """A map with patches, specks and nodata."""
    rng = np.random.default_rng(seed)
    fields = [
        ndimage.gaussian_filter(rng.standard_normal((size, size)), 5) * 15
        + noise * rng.standard_normal((size, size))
        for _ in ids
    ]
    classes = np.array(ids, np.uint8)[np.argmax(fields, axis=0)]
    classes[ndimage.gaussian_filter(rng.standard_normal((size, size)), 8) > 0.06] = 255
    return classes


def write(path, classes, crs="EPSG:32633", **tags):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=classes.shape[-2],
        width=classes.shape[-1],
        count=1 if classes.ndim == 2 else len(classes),
        dtype=classes.dtype,
        crs=crs,
        transform=Affine(10, 0, 500_000, 0, -10, 6_600_000),
        nodata=255 if classes.dtype == np.uint8 else None,
    ) as dataset:
        dataset.write(classes, *([1] if classes.ndim == 2 else []))
        if tags.pop("legend", True) and classes.ndim == 2 and classes.dtype == np.uint8:
            dataset.write_colormap(1, COLOURS)
            dataset.update_tags(1, **{f"class_{i}": name for i, name in NAMES.items()})
    return path


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    return write(tmp_path_factory.mktemp("map") / "map.tif", land(120, 1))


def read(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, layer=0)


def command(*args, cwd):
    return forked.run([sys.executable, "-m", "geoseg", "vectorize", *args], cwd=cwd)


@pytest.mark.parametrize("suffix", [s for s in VECTORIZE_FORMATS if s != ".pmtiles"])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_one_table_in_every_format(raster, tmp_path, suffix, connectivity):
    path = tmp_path / f"out{suffix}"
    written = geoseg.vectorize(raster, path, connectivity=connectivity, strip_rows=17)
    frame = polygonize(raster, connectivity=connectivity)
    back = read(path)
    assert written.path == path
    assert written.polygons == {
        name: int((frame.class_name == name).sum()) for name in NAMES.values()
    }
    names = SHORT_NAMES if suffix == ".shp" else {}
    assert list(back.columns) == [names.get(c, c) for c in COLUMNS]
    assert max(map(len, names.values()), default=0) <= 10
    assert len(back) == len(frame)
    assert set(back.class_name) == set(NAMES.values())
    assert back.crs == ("EPSG:4326" if "json" in suffix else frame.crs)
    assert sorted(zip(back.class_id, back.pixels, strict=True)) == sorted(
        zip(frame.class_id, frame.pixels, strict=True)
    )
    assert back.area_m2.sum() == pytest.approx(frame.area_m2.sum(), rel=1e-9)
    if "json" not in suffix:
        assert back.area.sum() == pytest.approx(frame.area.sum(), rel=1e-12)
        key = [shapely.normalize(g).wkb for g in back.geometry]
        expected = [shapely.normalize(g) for g in frame.geometry]
        if suffix == ".shp":  # has no multi-polygons of one part
            expected = [
                g.geoms[0] if len(shapely.get_parts(g)) == 1 and connectivity == 8 else g
                for g in expected
            ]
        assert sorted(key) == sorted(g.wkb for g in expected)


def test_tiles_hold_every_polygon_at_every_zoom(tmp_path):
    """Noise of 90,000 pixels, of which GDAL's own limits on a tile would leave a part out."""
    rng = np.random.default_rng(0)
    raster = write(tmp_path / "noise.tif", rng.choice(np.uint8([1, 2, 5]), (300, 300)))
    with rasterio.open(raster, "r+") as dataset:
        # At the equator, where a pixel is smallest on the map.
        dataset.transform = Affine(10, 0, 500_000, 0, -10, 1_000)
    frame = polygonize(raster)
    written = geoseg.vectorize(raster, tmp_path / "a.pmtiles", layer="land cover")
    assert sum(written.polygons.values()) == len(frame)
    assert pyogrio.list_layers(tmp_path / "a.pmtiles")[:, 0].tolist() == ["land cover"]
    mercator = frame.to_crs(3857)
    total = mercator.area.sum()
    fields = pyogrio.read_info(tmp_path / "a.pmtiles")["fields"].tolist()
    assert {*COLUMNS} - {*fields} == {"geometry"}
    for zoom in range(10, 14):  # of 10 m
        back = pyogrio.read_dataframe(tmp_path / "a.pmtiles", ZOOM_LEVEL=str(zoom))
        assert back.crs == "EPSG:3857"
        assert back.area.sum() == pytest.approx(total, rel=0.02)
        assert set(back.class_name) == set(frame.class_name)
        step = 2 * np.pi * 6378137 / 4096 / 2**zoom
        np.testing.assert_allclose(back.total_bounds, mercator.total_bounds, atol=1.01 * step)
        # One cut by a tile's edge has a part on either side of it.
        assert len(back) >= len(frame)
    with pytest.raises(pyogrio.errors.DataSourceError):
        pyogrio.read_dataframe(tmp_path / "a.pmtiles", ZOOM_LEVEL="14")


def test_tiles_need_a_place_in_web_mercator(tmp_path):
    bare = write(tmp_path / "bare.tif", np.ones((8, 8), np.uint8), crs=None)
    far = write(tmp_path / "far.tif", np.ones((8, 8), np.uint8), crs="EPSG:4326")
    with rasterio.open(far, "r+") as dataset:
        dataset.transform = Affine(0.001, 0, 20, 0, -0.001, 85.055)
    for path in (bare, far):
        with pytest.raises(UsageError, match=r"Web Mercator.*gpkg"):
            geoseg.vectorize(path, tmp_path / "a.pmtiles")
    assert not (tmp_path / "a.pmtiles").exists()


def test_geopackage_has_the_classes_colours(raster, tmp_path):
    geoseg.vectorize(raster, tmp_path / "a.gpkg", layer="land cover")
    with sqlite3.connect(tmp_path / "a.gpkg") as database:
        ((table, column, qml, default),) = database.execute(
            "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
        ).fetchall()
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
        geometry = database.execute("SELECT * FROM gpkg_geometry_columns").fetchall()
    assert (table, default) == ("land cover", 1)
    assert geometry[0][:3] == ("land cover", column, "POLYGON")
    renderer = ET.fromstring(qml.split(">", 1)[1]).find("renderer-v2")
    colours = {
        symbol.get("name"): symbol.find("layer/prop[@k='color']").get("v")
        for symbol in renderer.iter("symbol")
    }
    found = {
        int(c.get("value")): (c.get("label"), colours[c.get("symbol")])
        for c in renderer.iter("category")
    }
    assert found == {i: (NAMES[i], ",".join(map(str, COLOURS[i]))) for i in NAMES}


def test_geoparquet_says_what_it_holds(raster, tmp_path):
    geoseg.vectorize(raster, tmp_path / "a.parquet")
    metadata = json.loads(pyarrow.parquet.read_metadata(tmp_path / "a.parquet").metadata[b"geo"])
    column = metadata["columns"]["geometry"]
    frame = geopandas.read_parquet(tmp_path / "a.parquet")
    assert metadata["version"] == "1.1.0"
    assert metadata["primary_column"] == "geometry"
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Polygon"]
    assert column["orientation"] == "counterclockwise"
    assert shapely.is_ccw(shapely.get_exterior_ring(frame.geometry.values)).all()
    assert column["bbox"] == frame.total_bounds.tolist()
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32633}


@pytest.mark.skipif(shutil.which("ogrinfo") is None, reason="GDAL's programs are not here")
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".shp"])
def test_ogrinfo_reads_it(raster, tmp_path, suffix):
    path = tmp_path / f"landcover{suffix}"
    count = sum(geoseg.vectorize(raster, path).polygons.values())
    told = subprocess.run(
        ["ogrinfo", "-ro", "-so", path, "landcover"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"Feature Count: {count}" in told.stdout
    assert "Warning" not in told.stderr and "ERROR" not in told.stderr


def test_neither_strips_nor_threads_change_anything(raster):
    options = {"simplify": 15.0, "smooth": 2, "min_area": 300.0, "min_hole": 900.0}
    for some in ({}, options):
        one = polygonize(raster, **some, strip_rows=1000)
        for rows, threads in ((1, 1), (7, 2), (50, 3)):
            other = polygonize(raster, **some, strip_rows=rows, threads=threads)
            assert shapely.equals_exact(
                shapely.normalize(one.geometry.values), shapely.normalize(other.geometry.values)
            ).all()
            same = one.drop(columns="geometry").compare(
                other.drop(columns="geometry").assign(
                    area_m2=one.area_m2, perimeter_m=one.perimeter_m
                )
            )
            assert same.empty
            np.testing.assert_allclose(one.area_m2, other.area_m2, rtol=1e-12)
            np.testing.assert_allclose(one.perimeter_m, other.perimeter_m, rtol=1e-12)


@pytest.mark.parametrize("suffix", [".fgb", ".parquet", ".geojson", ".shp"])
def test_threads_change_no_byte(raster, tmp_path, suffix):
    files = set()
    for threads in (1, 2, 4):
        path = tmp_path / str(threads) / f"landcover{suffix}"
        path.parent.mkdir()
        geoseg.vectorize(raster, path, simplify=15.0, strip_rows=9, threads=threads)
        files.add(tuple(p.read_bytes() for p in sorted(path.parent.iterdir())))
    assert len(files) == 1


@pytest.mark.parametrize("suffix", [".fgb", ".parquet", ".geojson"])
@pytest.mark.parametrize("only", [None, (1,)])
def test_parts_of_a_strip_change_no_byte(raster, tmp_path, monkeypatch, suffix, only):
    files, groups = set(), set()
    for part, threads in ((1 << 20, 1), (100, 1), (1, 2)):
        monkeypatch.setattr(geoseg.polygons.features, "PART", part)
        path = tmp_path / f"{part}{suffix}"
        geoseg.vectorize(raster, path, strip_rows=40, threads=threads, only=only)
        files.add(path.read_bytes())
        if suffix == ".parquet":
            groups.add(pyarrow.parquet.ParquetFile(path).num_row_groups)
    assert len(files) == 1
    assert groups == ({3} if suffix == ".parquet" else set())


@pytest.mark.parametrize(
    "options",
    [
        {"simplify": 12.0},
        {"simplify": 40.0},
        {"simplify": 20.0, "algorithm": "douglas-peucker"},
        {"smooth": 3},
        {"simplify": 25.0, "smooth": 2},
        {"simplify": 3.0, "units": "px", "smooth": 5},
    ],
)
def test_simplified_and_smoothed_coverages_are_valid(raster, options):
    exact = polygonize(raster)
    frame = polygonize(raster, **options, strip_rows=11)
    polygons = frame.geometry.to_numpy()
    assert frame.class_id.tolist() == exact.class_id.tolist()
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.area(polygons).sum() == pytest.approx(exact.area.sum(), rel=1e-12)
    assert not shapely.equals_exact(polygons, exact.geometry.to_numpy()).all()
    if "simplify" in options and "smooth" not in options:
        count = shapely.get_num_coordinates(polygons).sum()
        assert count < 0.7 * shapely.get_num_coordinates(exact.geometry.values).sum()
    if options == {"smooth": 3}:
        distance = shapely.hausdorff_distance(polygons, exact.geometry.to_numpy())
        assert distance.max() < 10


def test_simplified_areas_and_perimeters_are_those_of_the_shapes(raster):
    frame = polygonize(raster, simplify=25.0, smooth=1)
    geod = frame.crs.get_geod()
    for polygon, area, perimeter in zip(
        frame.to_crs(frame.crs.geodetic_crs).geometry[:40],
        frame.area_m2,
        frame.perimeter_m,
        strict=False,
    ):
        length = sum(geod.geometry_length(r) for r in (polygon.exterior, *polygon.interiors))
        assert area == pytest.approx(abs(geod.geometry_area_perimeter(polygon)[0]), rel=1e-6)
        assert perimeter == pytest.approx(length, rel=1e-6)


def test_classes_left_out_are_still_neighbours(raster):
    all_ = polygonize(raster, simplify=20.0)
    only = polygonize(raster, simplify=20.0, only=["water & ice", 5])
    expected = all_[all_.class_id.isin([2, 5])].reset_index(drop=True)
    assert only.geometry.geom_equals_exact(expected.geometry, 0).all()
    assert only.pixels.tolist() == expected.pixels.tolist()


def test_merged_classes_have_no_border(raster, tmp_path):
    with rasterio.open(raster) as dataset:
        classes = dataset.read(1)
    classes[classes == 5] = 1
    expected = polygonize(write(tmp_path / "merged.tif", classes))
    frame = polygonize(raster, merge={"rock": "wood"})
    assert frame.geometry.geom_equals_exact(expected.geometry, 0).all()
    assert frame.class_id.tolist() == expected.class_id.tolist()


def test_minimum_by_class(tmp_path):
    classes = np.full((9, 9), 1, np.uint8)
    classes[1:3, 1:3], classes[5:7, 5:7] = 2, 5
    path = write(tmp_path / "c.tif", classes)
    frame = polygonize(path, min_area={"rock": 500.0})
    assert sorted(frame.class_id) == [1, 2]
    frame = polygonize(path, min_hole={"wood": 500.0})
    assert sorted(frame.class_id) == [1]
    frame = polygonize(path, min_hole={"rock": 500.0})
    assert sorted(frame.class_id) == [1, 2, 5]


def test_sieve_counts_pixels(raster):
    frame = polygonize(raster, sieve=6)
    exact = polygonize(raster)
    assert (exact.pixels < 6).sum() > 10
    small = frame[frame.pixels < 6]
    others = frame.geometry[~frame.index.isin(small.index)].union_all()
    assert not shapely.length(shapely.intersection(small.geometry.values, others)).any()
    assert frame.pixels.sum() == exact.pixels.sum()


def test_what_has_grown_enough_stays(tmp_path):
    # The 2 goes to the 5; together they have as many pixels as are asked for.
    classes = np.ones((4, 5), np.uint8)
    classes[1:3, 1:4] = 5
    classes[1, 2] = 2
    path = write(tmp_path / "c.tif", classes)
    for options in ({"sieve": 6}, {"sieve": 6, "min_area": 10.0}, {"min_area": 550.0}):
        assert sorted(polygonize(path, **options).pixels) == [6, 14]
    for options in ({"sieve": 7}, {"sieve": 7, "min_area": 10.0}, {"min_area": 650.0}):
        assert sorted(polygonize(path, **options).pixels) == [20]


def test_a_hole_of_several_regions_is_filled(tmp_path):
    classes = np.ones((9, 12), np.uint8)
    classes[2:4, 2:4], classes[4:6, 2:4] = 2, 5  # a hole of 8 pixels, of two regions
    classes[2, 7], classes[3, 7] = 2, 255  # nodata in it
    classes[6, 0] = 2  # at the edge, which is no hole
    path = write(tmp_path / "c.tif", classes)
    assert sorted(polygonize(path, min_hole=790.0).pixels) == [1, 1, 4, 4, 97]
    assert sorted(polygonize(path, min_hole=810.0).pixels) == [1, 1, 105]
    assert sorted(polygonize(path, min_hole={"water & ice": 9e9}).pixels) == [1, 1, 4, 4, 97]


def probabilities(classes, seed):
    """(3, H, W), the map's class the highest."""
    rng = np.random.default_rng(seed)
    probs = rng.uniform(0.05, 1, (3, *classes.shape)).astype(np.float32)
    for k, i in enumerate(NAMES):
        probs[k][classes == i] += 1
    probs /= probs.sum(axis=0)
    probs[:, classes == 255] = np.nan
    return probs


def test_probabilities_over_polygons(tmp_path):
    classes = land(50, 3)
    probs = probabilities(classes, 3)
    path, many = write(tmp_path / "c.tif", classes), write(tmp_path / "p.tif", probs)
    frame = polygonize(path, probs_path=many, strip_rows=9)
    names = list(NAMES.values())
    for row in frame.itertuples():
        inside = (
            rasterio.features.rasterize(
                [row.geometry], classes.shape, transform=Affine(10, 0, 500_000, 0, -10, 6_600_000)
            )
            == 1
        )
        own = names.index(row.class_name)
        means = probs[:, inside].mean(axis=1, dtype=float)
        others = np.delete(means, own)
        assert row.pixels == inside.sum()
        assert row.confidence == pytest.approx(means[own], rel=1e-6)
        assert row.confidence_min == pytest.approx(probs[own][inside].min(), rel=1e-6)
        assert row.runner_up_probability == pytest.approx(others.max(), rel=1e-6)
        assert row.runner_up == np.delete(names, own)[others.argmax()]


def test_a_speck_goes_to_the_likeliest_neighbour(tmp_path):
    # The longest border is with wood, the higher probability is rock's.
    classes = np.array([[1, 1, 5], [1, 2, 5], [1, 1, 5]], np.uint8)
    probs = np.stack([np.where(classes == i, 0.8, 0.1) for i in NAMES]).astype(np.float32)
    probs[:, 1, 1] = 0.2, 0.5, 0.3
    path, many = write(tmp_path / "c.tif", classes), write(tmp_path / "p.tif", probs)
    assert sorted(polygonize(path, sieve=2).pixels) == [3, 6]
    assert sorted(polygonize(path, probs_path=many, sieve=2).pixels) == [4, 5]


def test_ids_of_other_types_and_without_a_legend(tmp_path):
    classes = land(40, 4).astype(np.int32)
    classes[classes == 5] = 4000
    with rasterio.open(
        tmp_path / "c.tif",
        "w",
        driver="GTiff",
        height=40,
        width=40,
        count=1,
        dtype="int32",
        crs="EPSG:32633",
        transform=Affine(10, 0, 5e5, 0, -10, 6.6e6),
        nodata=255,
    ) as dataset:
        dataset.write(classes, 1)
    frame = polygonize(tmp_path / "c.tif")
    assert set(frame.class_id) == {1, 2, 4000}
    assert set(frame.class_name) == {"class 1", "class 2", "class 4000"}
    assert frame.pixels.sum() == (classes != 255).sum()


@pytest.mark.parametrize("nodata", [-3.4e38, float(np.finfo(np.float32).min), np.nan, -9999.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_numbers_that_are_written_as_floats_are_ids(tmp_path, dtype, nodata):
    """As QGIS' raster calculator writes them."""
    classes = land(60, 4)
    where = {"transform": Affine(10, 0, 5e5, 0, -10, 6.6e6)}
    whole = make_raster(tmp_path / "whole.tif", classes[None], nodata=255, **where)
    floats = np.where(classes == 255, nodata, classes).astype(dtype)
    path = make_raster(tmp_path / "f.tif", floats[None], nodata=nodata, **where)
    geopandas.testing.assert_geodataframe_equal(polygonize(path), polygonize(whole))
    done = command(path.name, "--sieve", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_floats_that_are_not_whole_are_refused_and_leave_nothing(tmp_path):
    values = land(60, 4).astype(np.float32)[None]
    values[0, -1, -1] = 1.25
    make_raster(tmp_path / "f.tif", values, nodata=255)
    done = command("f.tif", cwd=tmp_path)
    assert done.returncode == 1 and "f.tif holds 1.25; a class raster has whole" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["f.tif"]


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ({}, {0, 255}),
        ({"nodata": 255}, {0}),
        ({"nodata": 0}, {255}),
        ({"mask": True}, {0}),
        ({"alpha": True}, {0}),
        ({"legend": {0: "no", 1: "yes"}}, {0}),
        ({"legend": {0: "no", 255: "yes"}}, {0, 255}),
    ],
    ids=str,
)
def test_255_is_a_class_unless_a_tag_says_otherwise(tmp_path, how, found):
    mask = np.where(land(60, 4) == 1, 255, 0).astype(np.uint8)
    other = {key: (mask == 0) for key in ("mask",) if key in how}
    if "alpha" in how:
        other["alpha"] = np.where(mask == 0, 255, 0).astype(np.uint8)
    path = make_raster(tmp_path / "m.tif", mask[None], nodata=how.get("nodata"), **other)
    if "legend" in how:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(1, **{f"class_{i}": name for i, name in how["legend"].items()})
    frame = polygonize(path)
    assert set(frame.class_id) == found
    assert frame.pixels.sum() == sum((mask == i).sum() for i in found)


def test_a_mask_of_0_and_255_is_chosen_from_by_255(tmp_path):
    mask = np.where(land(100, 4) == 1, 255, 0).astype(np.uint8)
    make_raster(tmp_path / "m.tif", mask[None])
    done = command("m.tif", "--classes", "255", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "m.gpkg").pixels.sum() == (mask == 255).sum()


def test_noise_is_refused_before_the_work(tmp_path):
    """By an exact count of the whole map: not one polygon more, and none is begun."""
    noise = np.random.default_rng(0).choice(np.array([1, 2, 5], np.uint8), (300, 300))
    noise[100:130, 50:90] = 255
    path = write(tmp_path / "n.tif", noise)
    found = len(polygonize(path, most=float("inf")))
    assert found > 10_000
    for rows in (1, 7, 1000):
        assert len(polygonize(path, most=found, strip_rows=rows)) == found
        with pytest.raises(UsageError, match=r"0.0\d+ million polygons.*GB.*--sieve 10.*--force"):
            polygonize(path, most=found - 1, strip_rows=rows)
    with pytest.raises(UsageError, match="would give"):
        geoseg.vectorize(path, tmp_path / "n.gpkg", most=found - 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n.tif"]


def test_noise_anywhere_is_counted(tmp_path):
    """A sample of strips would not see it."""
    classes = np.full((400, 100), 1, np.uint8)
    classes[301:309] = np.indices((8, 100)).sum(axis=0) % 2 + 1
    path = write(tmp_path / "n.tif", classes)
    found = len(polygonize(path))
    assert found == 802 - 100  # the map around takes half of the squares at its rims
    with pytest.raises(UsageError, match="would give"):
        polygonize(path, most=found - 1, strip_rows=8)


def test_what_is_still_noise_after_the_sieve_is_refused_while_it_is_made(tmp_path):
    noise = np.random.default_rng(0).choice(np.array([1, 2, 5], np.uint8), (300, 300))
    path = write(tmp_path / "n.tif", noise)
    found = len(polygonize(path, sieve=4))
    assert len(polygonize(path, sieve=4, most=found)) == found
    told = r"in its first \d+ of 300 rows: in all, .* million and a file of about .*--force"
    with pytest.raises(UsageError, match=told):
        geoseg.vectorize(path, tmp_path / "n.gpkg", sieve=4, most=found // 3, strip_rows=20)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n.tif"]


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["none.tif"], 1, "no such file"),
        (["text.tif"], 1, "not a raster"),
        (["scene.tif"], 1, "3 bands"),
        (["map.tif", "-o", "x.csv"], 2, ".gpkg, .fgb"),
        (["map.tif", "-o", "text.tif"], 2, ".gpkg, .fgb"),
        (["map.tif", "-o", "old.gpkg"], 1, "exists already"),
        (["map.tif", "-o", "no/x.gpkg"], 1, "no folder"),
        (["map.tif", "--min-area", "a lot"], 2, "CLASS=NUMBER"),
        (["map.tif", "--min-area", "-5"], 2, "at least 0"),
        (["map.tif", "--simplify", "nan"], 2, "finite"),
        (["map.tif", "--classes", "wood,mauve"], 2, "no class 'mauve'"),
        (["map.tif", "--merge", "wood"], 2, "CLASS=CLASS"),
        (["map.tif", "--merge", "wood=rock", "--merge", "wood=water"], 2, "part of two"),
        (["map.tif", "--merge", "wood=snow"], 2, "no class 'snow'"),
        (["map.tif", "--connectivity", "6"], 2, "'4', '8'"),
        (["map.tif", "--confidence", "scene.tif"], 2, "1 bands"),
        (["map.tif", "-m", "nothing"], 1, "no model 'nothing'"),
        (["plain.tif", "--simplify", "5"], 2, "no geographic or projected CRS"),
        (["plain.tif", "-o", "x.geojson"], 2, "choose .gpkg"),
        (["torn.tif"], 1, "damaged or cut short"),
        (["stray.tif"], 2, "holds the class ids [9]"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_errors_are_one_line_and_leave_nothing(tmp_path, args, code, word):
    classes = land(120, 1)
    write(tmp_path / "map.tif", classes)
    write(tmp_path / "plain.tif", classes, crs=None)
    write(tmp_path / "scene.tif", np.stack([classes] * 3))
    stray = classes.copy()
    stray[-1, -1] = 9
    write(tmp_path / "stray.tif", stray)
    write(tmp_path / "torn.tif", np.tile(classes, (8, 8)), legend=False)
    os.truncate(tmp_path / "torn.tif", (tmp_path / "torn.tif").stat().st_size // 2)
    (tmp_path / "text.tif").write_text("no raster")
    (tmp_path / "old.gpkg").write_text("old")
    before = sorted(p.name for p in tmp_path.iterdir())
    result = command(*args, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "old.gpkg").read_text() == "old"


def test_the_command_writes_and_tells(tmp_path):
    write(tmp_path / "map.tif", land(120, 1))
    options = ("--simplify", "15", "--smooth", "1", "--sieve", "4", "--min-hole", "wood=900")
    result = command("map.tif", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "map.gpkg"
    frame = read(tmp_path / "map.gpkg")
    assert shapely.coverage_is_valid(frame.geometry.values)
    told = command("map.tif", "-o", "m.shp", "--progress", "json", "-j", "2", cwd=tmp_path)
    events = [json.loads(line) for line in told.stdout.splitlines() if "alive" not in line]
    assert events[-1]["event"] == "result"
    assert sum(events[-1]["polygons"].values()) == len(read(tmp_path / "m.shp"))
    assert events[-2] == {"event": "progress", "stage": "polygons", "done": 120, "total": 120}
    again = command("map.tif", "-o", "m.shp", "--overwrite", "--classes", "1", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert set(read(tmp_path / "m.shp").class_id) == {1}


def test_a_failure_in_the_middle_is_told_as_it_is(tmp_path, raster):
    with rasterio.open(raster) as dataset:
        classes = dataset.read(1)
    classes[-1, -1] = 9
    path = write(tmp_path / "c.tif", classes)
    for suffix in VECTORIZE_FORMATS:
        with pytest.raises(UsageError, match=r"\[9\]"):
            geoseg.vectorize(path, tmp_path / f"o{suffix}", strip_rows=10, most=float("inf"))
    assert [p.name for p in tmp_path.iterdir()] == ["c.tif"]
    with pytest.raises((OutputError, SceneError)):
        geoseg.vectorize(tmp_path / "gone.tif", tmp_path / "o.gpkg")


def test_layers_of_a_geopackage(raster, tmp_path):
    geoseg.vectorize(raster, tmp_path / "a.gpkg")
    assert pyogrio.list_layers(tmp_path / "a.gpkg").tolist() == [
        ["landcover", "Polygon"],
        ["layer_styles", None],
    ]
