"""Polygons: rasters of every kind in, files of every format out."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from rasterio.transform import Affine
from scipy import ndimage

from geoseg.cards.legend import ClassInfo
from geoseg.errors import OutputError, SceneError, UsageError
from geoseg.polygons.formats import FORMATS, check_suffix, write_frames
from geoseg.polygons.polygonize import polygonize

CLASSES = [ClassInfo(i, f"class {i}", "#336699") for i in range(8)]
COLUMNS = [
    *("class_id", "class_name", "area_m2", "perimeter_m", "pixels", "confidence", "confidence_min"),
    *("runner_up", "runner_up_probability", "geometry"),
]
UTM = "EPSG:32633"
UTM_GRID = Affine(10, 0, 500_000, 0, -10, 6_600_000)
SMALL = np.array(
    [
        [1, 1, 1, 2, 2, 255],
        [1, 3, 1, 2, 255, 255],
        [1, 1, 1, 1, 2, 2],
        [2, 2, 1, 255, 2, 1],
    ],
    dtype=np.uint8,
)


def write_raster(path, array, crs=UTM, transform=UTM_GRID, nodata=255, scale=None):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=array.shape[0],
        width=array.shape[1],
        count=1,
        dtype=array.dtype,
        crs=crs,
        transform=transform,
        nodata=nodata,
    ) as dataset:
        dataset.write(array, 1)
        if scale is not None:
            dataset.scales = (scale,)
    return path


def write_polygons(frame, path, layer="landcover"):
    write_frames([frame], frame.iloc[:0], path, layer, "Polygon", CLASSES)


def rotated(res, x, y):
    """A grid turned by 30 degrees."""
    return Affine(res * 0.75**0.5, res / 2, x, res / 2, -res * 0.75**0.5, y)


def smooth_classes(size, seed, noise=0.12):
    """Land cover as maps show it: patches, ragged borders, a little speckle, holes of nodata."""
    rng = np.random.default_rng(seed)
    fields = [
        ndimage.gaussian_filter(rng.standard_normal((size, size)), 10) * 24
        + noise * rng.standard_normal((size, size))
        for _ in range(6)
    ]
    classes = np.argmax(fields, axis=0).astype(np.uint8)
    classes[ndimage.gaussian_filter(rng.standard_normal((size, size)), 15) > 0.03] = 255
    return classes


def geodesic_area(polygon, crs, step):
    """The oracle: pyproj.Geod on a densified polygon, on the CRS's own ellipsoid."""
    crs = pyproj.CRS(crs)
    lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    dense = shapely.segmentize(polygon, step)
    exterior, *holes = (
        abs(crs.get_geod().polygon_area_perimeter(*lonlat.transform(*ring.xy))[0])
        for ring in (dense.exterior, *dense.interiors)
    )
    return exterior - sum(holes)


def test_columns_types_and_values(tmp_path):
    frame = polygonize(write_raster(tmp_path / "c.tif", SMALL), None, CLASSES)
    assert list(frame.columns) == COLUMNS
    assert frame.crs == UTM
    assert sorted(frame.class_id) == [1, 1, 2, 2, 2, 3]
    assert frame.class_id.dtype == np.int32
    assert (frame.class_name == "class " + frame.class_id.astype(str)).all()
    assert frame.confidence.isna().all()
    assert frame.confidence.dtype == np.float64
    ring = frame[frame.class_id == 3].geometry.iloc[0]
    assert ring.equals(shapely.box(500_010, 6_599_980, 500_020, 6_599_990))
    # UTM's scale on its central meridian is 0.9996: ground is larger than the map.
    assert frame[frame.class_id == 3].area_m2.iloc[0] == pytest.approx(100 / 0.9996**2, rel=1e-6)


def test_nodata_never_becomes_a_polygon(tmp_path):
    frame = polygonize(write_raster(tmp_path / "c.tif", SMALL), None, CLASSES)
    assert 255 not in set(frame.class_id)
    assert frame.area.sum() == 100.0 * np.count_nonzero(SMALL != 255)
    rows, cols = np.nonzero(SMALL == 255)
    centres = shapely.points(500_005 + 10.0 * cols, 6_599_995 - 10.0 * rows)
    assert not frame.union_all().intersects(shapely.MultiPoint(centres))


def test_nodata_by_value_where_the_file_declares_none(tmp_path):
    frame = polygonize(write_raster(tmp_path / "c.tif", SMALL, nodata=None), None, CLASSES)
    assert 255 not in set(frame.class_id)


@pytest.mark.parametrize(
    ("crs", "transform", "step"),
    [
        pytest.param(UTM, UTM_GRID, 1.0, id="utm"),
        pytest.param(UTM, Affine(10, 0, 800_000, 0, -10, 9_000_000), 1.0, id="utm-far-off"),
        pytest.param("EPSG:4326", Affine(1e-4, 0, 10, 0, -1e-4, 60), 1e-5, id="lonlat-60"),
        pytest.param("EPSG:4326", Affine(0.01, 0, 179.8, 0, -0.01, 60), 1e-4, id="beyond-180"),
        pytest.param("EPSG:4326", Affine(0.25, 0, 10, 0, -0.25, 80), 1e-3, id="coarse-80"),
        pytest.param("EPSG:4326", Affine(1e-3, 0, 10, 0, 1e-3, 60), 1e-5, id="south-up"),
        pytest.param("EPSG:4326", rotated(1e-3, 10, 60), 1e-5, id="rotated"),
        pytest.param("EPSG:3857", Affine(300, 0, 1e6, 0, -300, 8.4e6), 5.0, id="mercator"),
        pytest.param(UTM, rotated(10, 500_000, 6_600_000), 1.0, id="utm-rotated"),
        pytest.param("EPSG:3413", Affine(3000, 0, -1e5, 0, -3000, 1e5), 50.0, id="over-the-pole"),
        pytest.param("EPSG:5070", Affine(3e4, 0, -2e6, 0, -3e4, 3e6), 500.0, id="continent"),
        pytest.param("EPSG:2263", Affine(30, 0, 9e5, 0, -30, 2e5), 2.0, id="feet"),
        pytest.param(
            "EPSG:3857",
            Affine(500_937.7085, 0, -20_037_508.34, 0, -500_937.7085, 20_037_508.34),
            5000.0,
            id="mercator-world",
        ),
        pytest.param("EPSG:4326", Affine(4.5, 0, -180, 0, -2.8125, 90), 0.02, id="lonlat-world"),
    ],
)
@pytest.mark.parametrize("simplify", [False, True])
def test_area_is_geodesic(tmp_path, crs, transform, step, simplify):
    rng = np.random.default_rng(1)
    classes = ndimage.zoom(rng.choice(np.array([1, 2, 3, 255], np.uint8), (8, 10)), 8, order=0)
    classes[::3, ::5] = 2
    path = write_raster(tmp_path / "c.tif", classes, crs, transform)
    pixel = polygonize(path, None, CLASSES).area_m2.median() ** 0.5
    frame = polygonize(path, None, CLASSES, simplify=2 * pixel if simplify else 0)
    expected = [geodesic_area(p, crs, step) for p in frame.geometry]
    # The oracle's own chords are coarse for pixels of 300 km.
    rel = 1e-4 if transform.a == 4.5 and simplify else 1e-5
    np.testing.assert_allclose(frame.area_m2, expected, rtol=rel)


def test_area_of_the_whole_world(tmp_path):
    path = write_raster(
        tmp_path / "c.tif", np.ones((18, 36), np.uint8), "EPSG:4326", Affine(10, 0, 0, 0, -10, 90)
    )
    area = polygonize(path, None, CLASSES).area_m2.iloc[0]
    assert area == pytest.approx(510_065_621_724_088, rel=1e-9)  # WGS 84


def test_grid_that_reaches_beyond_the_pole(tmp_path):
    path = write_raster(
        tmp_path / "c.tif", np.ones((1, 4), np.uint8), "EPSG:4326", Affine(1, 0, 0, 0, -1, 90.5)
    )
    other = write_raster(
        tmp_path / "d.tif", np.ones((1, 4), np.uint8), "EPSG:4326", Affine(1, 0, 0, 0, -0.5, 90)
    )
    areas = [polygonize(p, None, CLASSES).area_m2.iloc[0] for p in (path, other)]
    assert areas[0] == pytest.approx(areas[1], rel=1e-9)


def test_confidence_is_the_mean_over_the_polygon(tmp_path):
    rng = np.random.default_rng(4)
    probability = rng.uniform(0.2, 1, SMALL.shape).astype(np.float32)
    probability[SMALL == 255] = np.nan
    path = write_raster(tmp_path / "c.tif", SMALL)
    floats = write_raster(tmp_path / "p.tif", probability, nodata=np.nan)
    # 251 is above 1 when its scale is forgotten, and nodata must not count as 255 / 250.
    coded = np.where(SMALL == 255, 255, np.nan_to_num(probability) * 250).astype(np.uint8)
    bytes_ = write_raster(tmp_path / "q.tif", coded, scale=0.004)
    for confidence, tolerance in ((floats, 1e-6), (bytes_, 0.004)):
        frame = polygonize(path, confidence, CLASSES)
        for polygon, mean in zip(frame.geometry, frame.confidence, strict=True):
            inside = rasterio.features.rasterize([polygon], SMALL.shape, transform=UTM_GRID) == 1
            assert mean == pytest.approx(probability[inside].mean(), abs=tolerance)


def test_confidence_unknown_at_some_pixels(tmp_path):
    probability = np.full(SMALL.shape, 0.5, np.float32)
    probability[SMALL == 3] = np.nan
    probability[0, 0] = np.nan
    frame = polygonize(
        write_raster(tmp_path / "c.tif", SMALL),
        write_raster(tmp_path / "p.tif", probability, nodata=np.nan),
        CLASSES,
    )
    assert frame.confidence[frame.class_id == 3].isna().all()
    assert (frame.confidence[frame.class_id != 3] == 0.5).all()


def test_confidence_without_its_scale_is_refused(tmp_path):
    with pytest.raises(SceneError, match="scale"):
        polygonize(
            write_raster(tmp_path / "c.tif", SMALL),
            write_raster(tmp_path / "p.tif", np.full(SMALL.shape, 200, np.uint8)),
            CLASSES,
        )


def test_confidence_of_another_grid_is_refused(tmp_path):
    shifted = Affine(10, 0, 500_010, 0, -10, 6_600_000)
    with pytest.raises(UsageError, match="grid"):
        polygonize(
            write_raster(tmp_path / "c.tif", SMALL),
            write_raster(tmp_path / "p.tif", SMALL * np.float32(0), transform=shifted),
            CLASSES,
        )


@pytest.mark.parametrize(
    ("array", "nodata", "match"),
    [
        (SMALL + np.float32(0.5), 255.5, "holds 1.5; a class raster has whole numbers"),
        (SMALL.astype(np.complex64), None, "complex64"),
        (np.where(SMALL == 255, np.float32(-3.4e38), SMALL), None, "nodata unset"),
        (SMALL.astype(np.int16) - 5, None, "nodata unset"),
    ],
)
def test_what_is_no_class_raster_is_refused(tmp_path, array, nodata, match):
    path = write_raster(tmp_path / "c.tif", array, nodata=nodata)
    with pytest.raises(SceneError, match=match):
        polygonize(path, None, CLASSES)


def test_missing_rasters(tmp_path):
    path = write_raster(tmp_path / "c.tif", SMALL)
    with pytest.raises(SceneError, match=r"gone\.tif"):
        polygonize(tmp_path / "gone.tif", None, CLASSES)
    with pytest.raises(SceneError, match=r"gone\.tif"):
        polygonize(path, tmp_path / "gone.tif", CLASSES)


def test_class_outside_the_legend_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\[3\].*\[1, 2\]"):
        polygonize(write_raster(tmp_path / "c.tif", SMALL), None, CLASSES[1:3])


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["min_area", "simplify"])
def test_impossible_options_are_refused(tmp_path, name, value):
    with pytest.raises(UsageError, match=name):
        polygonize(write_raster(tmp_path / "c.tif", SMALL), None, CLASSES, **{name: value})


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_without_a_geographic_or_projected_crs(tmp_path, crs):
    path = write_raster(tmp_path / "c.tif", SMALL, crs)
    frame = polygonize(path, None, CLASSES)
    assert (frame.crs is None) == (crs is None)
    assert frame.area_m2.isna().all()
    assert frame.total_bounds.tolist() == [500_000, 6_599_960, 500_060, 6_600_000]
    for option in ("min_area", "simplify"):
        with pytest.raises(UsageError, match="CRS"):
            polygonize(path, None, CLASSES, **{option: 1.0})
    with pytest.raises(UsageError, match=r"choose \.gpkg"):
        write_polygons(frame, tmp_path / "o.geojson")
    for suffix in (".gpkg", ".fgb", ".parquet"):
        write_polygons(frame, tmp_path / f"o{suffix}")
        assert read_back(tmp_path / f"o{suffix}").area_m2.isna().all()


def read_back(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    # A GeoPackage has the styles as a second table.
    return geopandas.read_file(path, layer=0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])
def test_formats_give_back_what_was_written(tmp_path, suffix):
    frame = polygonize(write_raster(tmp_path / "c.tif", SMALL), None, CLASSES)
    path = tmp_path / f"o{suffix}"
    write_polygons(frame, path)
    back = read_back(path)
    assert list(back.columns) == COLUMNS
    assert back.crs == frame.crs
    assert back.confidence.isna().all()
    assert set(back.geom_type) == {"Polygon"}
    # FlatGeobuf puts features in the order of its index.
    written, read = ([g.wkb for g in f.geometry] for f in (frame, back))
    back = back.iloc[[read.index(wkb) for wkb in written]]
    for column in ("class_id", "class_name", "area_m2"):
        assert back[column].tolist() == frame[column].tolist()


def test_gpkg_layer_name(tmp_path):
    frame = polygonize(write_raster(tmp_path / "c.tif", SMALL), None, CLASSES)
    write_polygons(frame, tmp_path / "a.gpkg")
    write_polygons(frame, tmp_path / "b.gpkg", layer="forest")
    assert pyogrio.list_layers(tmp_path / "a.gpkg")[0, 0] == "landcover"
    assert pyogrio.list_layers(tmp_path / "b.gpkg")[0, 0] == "forest"


@pytest.mark.parametrize("suffix", [".geojson", ".json"])
def test_geojson_is_rfc_7946(tmp_path, suffix):
    frame = polygonize(
        write_raster(tmp_path / "c.tif", SMALL, transform=Affine(10, 0, 5e5, 0, 10, 6.6e6)),
        None,
        CLASSES,
    )
    path = tmp_path / f"o{suffix}"
    write_polygons(frame, path)
    collection = json.loads(path.read_text())
    assert "crs" not in collection
    assert len(collection["features"]) == len(frame)
    holes = 0
    for feature in collection["features"]:
        assert feature["properties"]["confidence"] is None
        exterior, *interiors = feature["geometry"]["coordinates"]
        assert shapely.LinearRing(exterior).is_ccw
        assert not any(shapely.LinearRing(ring).is_ccw for ring in interiors)
        holes += len(interiors)
        for lon, lat in exterior:
            assert 15 <= lon < 15.01
            assert 59 < lat < 60
            assert lon == round(lon, 7)
    assert holes == 1


@pytest.mark.parametrize("west", [-183, 177, 190, 357])
def test_geojson_beyond_the_antimeridian(tmp_path, west):
    path = write_raster(tmp_path / "c.tif", SMALL, "EPSG:4326", Affine(1, 0, west, 0, -1, 10))
    write_polygons(polygonize(path, None, CLASSES), tmp_path / "o.geojson")
    back = geopandas.read_file(tmp_path / "o.geojson")
    assert back.total_bounds[0] >= -180
    assert back.total_bounds[2] <= 180
    assert shapely.area(back.geometry.values).sum() == np.count_nonzero(SMALL != 255)
    assert back.is_valid.all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("options", [{}, {"min_area": 500.0, "simplify": 20.0}])
def test_a_raster_of_nodata_gives_an_empty_file(tmp_path, suffix, options):
    nothing = np.full((3, 4), 255, np.uint8)
    confidence = write_raster(tmp_path / "p.tif", np.full((3, 4), np.nan, "f4"), nodata=np.nan)
    frame = polygonize(write_raster(tmp_path / "c.tif", nothing), confidence, CLASSES, **options)
    some = polygonize(write_raster(tmp_path / "d.tif", SMALL), None, CLASSES)
    assert frame.dtypes.equals(some.dtypes)
    write_polygons(frame, tmp_path / f"o{suffix}")
    back = read_back(tmp_path / f"o{suffix}")
    assert len(back) == 0
    if suffix not in (".geojson", ".json"):  # where columns are known from features alone
        assert list(back.columns) == COLUMNS


def test_check_suffix():
    for suffix in FORMATS:
        check_suffix(Path(f"out{suffix}"))
        check_suffix(Path(f"out{suffix.upper()}"))
    for bad in ("out.shp", "out", "out.gpkg.zip"):
        with pytest.raises(UsageError, match=r"\.gpkg, \.fgb, \.parquet, \.geojson"):
            check_suffix(Path(bad))


@pytest.mark.parametrize("suffix", FORMATS)
def test_missing_folder(tmp_path, suffix):
    frame = polygonize(write_raster(tmp_path / "c.tif", SMALL), None, CLASSES)
    with pytest.raises(OutputError, match="can't be written"):
        write_polygons(frame, tmp_path / "missing" / f"o{suffix}")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB: the same errors as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", FORMATS)
def test_full_disk(tmp_path, suffix, request):
    noise = np.random.default_rng(0).integers(0, 5, (150, 150)).astype(np.uint8)
    frame = polygonize(write_raster(tmp_path / "c.tif", noise), None, CLASSES)
    request.getfixturevalue("full_disk")
    with pytest.raises(OutputError, match=r"the disk is full|can't be written"):
        write_polygons(frame, tmp_path / f"o{suffix}")


def test_simplify_is_in_metres_on_the_ground(tmp_path):
    # A staircase of 1-pixel steps: its triangles have half a pixel's area, so it becomes a line
    # at a tolerance of 0.71 pixels. At latitude 60 a pixel of 10 Mercator metres is 5 m.
    stairs = np.tri(40, 40, dtype=np.uint8) + 1
    _, north = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(0, 60)
    path = write_raster(tmp_path / "c.tif", stairs, "EPSG:3857", Affine(10, 0, 0, 0, -10, north))
    exact, below, above = (
        shapely.get_num_coordinates(
            polygonize(path, None, CLASSES, simplify=5.0 * part).geometry.values
        ).sum()
        for part in (0.0, 0.69, 0.73)
    )
    assert exact == below
    assert above < exact / 3


def test_simplify_keeps_the_scene_edge(tmp_path):
    path = write_raster(tmp_path / "c.tif", smooth_classes(64, 2))
    exact = polygonize(path, None, CLASSES)
    simple = polygonize(path, None, CLASSES, simplify=30.0)
    assert len(simple) == len(exact)
    assert shapely.equals(simple.union_all(), exact.union_all())


def test_min_area_gives_a_speck_to_the_longest_border(tmp_path):
    classes = np.array([[1, 1, 2], [1, 3, 2], [1, 1, 2], [1, 1, 2]], np.uint8)
    frame = polygonize(write_raster(tmp_path / "c.tif", classes), None, CLASSES, min_area=150.0)
    assert sorted(frame.class_id) == [1, 2]
    assert sorted(frame.area.tolist()) == [400.0, 800.0]


def test_min_area_measures_borders_on_the_ground(tmp_path):
    # At latitude 80 a pixel is six times as high as wide: one border to the side is more than two
    # borders above and below.
    classes = np.array([[1, 1, 1], [1, 3, 2], [1, 1, 1]], np.uint8)
    classes[1, 0] = 255
    grid = Affine(0.01, 0, 10, 0, -0.01, 80)
    path = write_raster(tmp_path / "c.tif", classes, "EPSG:4326", grid)
    one_pixel = polygonize(path, None, CLASSES).area_m2.min()
    frame = polygonize(path, None, CLASSES, min_area=one_pixel * 1.1)
    assert sorted((frame.area_m2 / one_pixel).round()) == [2, 3, 3]


def test_min_area_joins_what_meets_through_the_speck(tmp_path):
    # Each 1 alone is too small; through the 3 they are one region, large enough.
    classes = np.array([[2, 2, 2, 2, 2], [1, 1, 3, 1, 1], [2, 2, 2, 2, 2]], np.uint8)
    classes[[0, 2], 2] = 255
    frame = polygonize(write_raster(tmp_path / "c.tif", classes), None, CLASSES, min_area=195.0)
    assert sorted(frame.class_id) == [1, 2, 2, 2, 2]


def test_min_area_follows_latitude(tmp_path):
    # The same three pixels, at the equator and at 60 degrees, where they cover half the ground.
    classes = np.full((601, 8), 1, np.uint8)
    classes[[5, 595], 2:5] = 2
    path = write_raster(
        tmp_path / "c.tif", classes, "EPSG:4326", Affine(0.1, 0, 10, 0, -0.1, 60.05)
    )
    areas = polygonize(path, None, CLASSES).set_index("class_id").area_m2.loc[2]
    frame = polygonize(path, None, CLASSES, min_area=float(areas.mean()))
    assert areas.max() > 1.9 * areas.min()
    assert frame.area_m2[frame.class_id == 2].tolist() == [areas.max()]


def test_min_area_keeps_islands(tmp_path):
    classes = np.full((5, 5), 255, np.uint8)
    classes[1, 1], classes[3, 3] = 1, 2
    frame = polygonize(write_raster(tmp_path / "c.tif", classes), None, CLASSES, min_area=1e6)
    assert sorted(frame.class_id) == [1, 2]


@pytest.mark.parametrize("options", [{}, {"simplify": 15.0}, {"min_area": 2000.0}])
def test_a_real_looking_map(tmp_path, options):
    classes = smooth_classes(512, 5)
    frame = polygonize(write_raster(tmp_path / "c.tif", classes), None, CLASSES, **options)
    polygons = frame.geometry.to_numpy()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == pytest.approx(
        100.0 * np.count_nonzero(classes != 255), rel=1e-12
    )
    if "min_area" in options:
        # Only where nodata is all around.
        small = np.flatnonzero(frame.area_m2 < 2000.0)
        tree = shapely.STRtree(polygons)
        for i in small:
            near = [j for j in tree.query(polygons[i], "intersects") if j != i]
            shared = shapely.length(shapely.intersection(polygons[i], polygons[near]))
            assert not shared.any()
    if not options:
        back = rasterio.features.rasterize(
            zip(polygons, frame.class_id, strict=True),
            classes.shape,
            fill=255,
            transform=UTM_GRID,
            dtype=np.uint8,
        )
        np.testing.assert_array_equal(back, classes)
