"""geoseg sample and geoseg evaluate, on rasters made by hand."""

from __future__ import annotations

import csv
import json
import math
import sys
import warnings

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import geoseg
from geoseg.cli import evaluate as evaluate_command
from geoseg.errors import EvaluationError, OutputError, SceneError, UsageError
from geoseg.evaluation.sample_design import allocate
from geoseg.geo import geodesy
from geoseg.labels import labels as labels_module
from geoseg.rasters import class_raster as classraster
from tests import forked
from tests.helpers import make_raster

NAMES = {1: "water", 3: "trees", 7: "crops"}
UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
TURNED = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
DEGREES = Affine(0.01, 0, 14, 0, -0.02, 60)


def make_map(path, ids, *, names=NAMES, **options):
    """A class raster as geoseg predict writes it."""
    options = {"nodata": 255, "transform": UTM, **options}
    make_raster(path, np.asarray(ids, np.uint8)[None], **options)
    if names:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(1, **{f"class_{i}": name for i, name in names.items()})
    return path


def blocks(height=40, width=60, seed=0):
    """Class ids in patches, with some nodata."""
    rng = np.random.default_rng(seed)
    small = rng.choice([1, 3, 3, 7, 255], (-(-height // 4), -(-width // 4)))
    return np.kron(small, np.ones((4, 4), int))[:height, :width].astype(np.uint8)


def labelled(path, xy, reference, *, crs="EPSG:32633", **columns):
    frame = geopandas.GeoDataFrame(
        {"reference": reference, **columns}, geometry=shapely.points(xy), crs=crs
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        frame.to_file(path)
    return path


def centres(transform, cols_rows):
    return [transform @ (c + 0.5, r + 0.5) for c, r in cols_rows]


# Sampling


@pytest.mark.parametrize(
    ("transform", "crs"),
    [(UTM, "EPSG:32633"), (TURNED, "EPSG:32633"), (DEGREES, "EPSG:4326"), (UTM, None)],
)
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])
def test_points_lie_at_the_centres_of_pixels_of_their_class(tmp_path, transform, crs, suffix):
    ids = blocks()
    path = make_map(tmp_path / "map.tif", ids, transform=transform, crs=crs)
    geoseg.sample(path, tmp_path / f"p{suffix}", count=200, seed=5)
    read = geopandas.read_parquet if suffix == ".parquet" else geopandas.read_file
    frame = read(tmp_path / f"p{suffix}")
    assert list(frame.columns) == ["id", "class_id", "class_name", "reference", "geometry"]
    assert frame["reference"].isna().all() and len(frame) == 200
    assert (frame.crs is None) == (crs is None) and frame.crs == crs
    places = np.array([~transform @ (p.x, p.y) for p in frame.geometry])
    np.testing.assert_allclose(places % 1, 0.5, atol=1e-6)
    cols, rows = np.floor(places).astype(int).T
    assert (ids[rows, cols] == frame["class_id"]).all()
    assert len(set(zip(cols, rows, strict=True))) == 200
    assert (frame["class_id"].map(NAMES) == frame["class_name"]).all()
    assert sorted(frame["id"]) == list(range(1, 201))


def test_the_order_does_not_tell_the_class(tmp_path):
    path = make_map(tmp_path / "map.tif", blocks())
    drawn = geoseg.sample(path, count=300).points
    changes = (drawn["class_id"].diff().iloc[1:] != 0).sum()
    assert changes > 120  # 2 in order of class, some 180 by chance


def test_blind_points_are_the_same_points(tmp_path):
    path = make_map(tmp_path / "map.tif", blocks())
    seen, blind = (geoseg.sample(path, count=50, blind=b).points for b in (False, True))
    assert list(blind.columns) == ["id", "reference", "geometry"]
    assert blind.geometry.equals(seen.geometry)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.integers(1, 12).flatmap(
        lambda w: st.lists(
            st.lists(st.sampled_from([1, 3, 7, 255]), min_size=w, max_size=w),
            min_size=1,
            max_size=12,
        )
    ),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
    allocation=st.sampled_from(["proportional", "equal"]),
)
def test_sampling_laws(tmp_path, ids, share, seed, allocation):
    ids = np.array(ids)
    present = [i for i in NAMES if (ids == i).any()]
    path = make_map(tmp_path / "map.tif", ids)
    if not present:
        with pytest.raises(SceneError, match="no pixel with a class"):
            geoseg.sample(path, count=1)
        return
    least = sum(min(2, int((ids == i).sum())) for i in present)
    count = least + round(share * ((ids != 255).sum() - least))
    drawn = geoseg.sample(path, count=count, seed=seed, allocation=allocation)
    assert len(drawn.points) == count == sum(s.points for s in drawn.strata)
    assert drawn.points.geometry.nunique() == count  # without replacement
    # Again, and in other strips.
    before = geodesy.CHUNK
    try:
        geodesy.CHUNK = 17
        again = geoseg.sample(path, count=count, seed=seed, allocation=allocation)
    finally:
        geodesy.CHUNK = before
    assert again.points.equals(drawn.points)


def test_another_seed_gives_other_points(tmp_path):
    path = make_map(tmp_path / "map.tif", blocks())
    one, two = (geoseg.sample(path, count=50, seed=s).points for s in (0, 1))
    assert not one.geometry.equals(two.geometry)


def test_every_pixel_of_a_class_has_the_same_chance(tmp_path):
    ids = np.full((4, 5), 1)
    ids[1:3, 2:4] = 3
    path = make_map(tmp_path / "map.tif", ids)
    hits = np.zeros(ids.shape)
    for seed in range(400):
        for p in geoseg.sample(path, count=6, allocation="equal", seed=seed).points.geometry:
            col, row = ~UTM @ (p.x, p.y)
            hits[int(row), int(col)] += 1
    # 3 of 16 and 3 of 4; four standard deviations.
    for class_id, chance in ((1, 3 / 16), (3, 3 / 4)):
        spread = 4 * math.sqrt(400 * chance * (1 - chance))
        assert (np.abs(hits[ids == class_id] - 400 * chance) < spread).all()


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.floats(0.01, 100)), min_size=1, max_size=8),
    st.integers(0, 60),
    st.floats(0, 1),
)
def test_allocation_keeps_its_bounds_and_its_sum(classes, least, share):
    pixels, weights = (np.array(column) for column in zip(*classes, strict=True))
    low = np.minimum(pixels, least)
    total = int(low.sum() + share * (pixels.sum() - low.sum()))
    points = allocate(pixels, total, weights, least)
    assert points.sum() == total
    assert (points >= low).all() and (points <= pixels).all()
    free = (points > low + 1) & (points < pixels - 1)
    if free.sum() > 1:  # what no bound holds is proportional
        rate = total / weights[free]
        one = points[free] / weights[free]
        assert (one.max() - one.min()) <= 2 / weights[free].min() + 1e-9 * rate.max()


def test_olofsson_gives_small_classes_their_minimum():
    pixels = np.array([20_000, 15_000, 320_000, 645_000])
    assert allocate(pixels, 641, pixels / 1e6, 75).tolist() == [75, 75, 163, 328]
    assert allocate(pixels, 640, np.ones(4), 2).tolist() == [160] * 4


def test_the_count_comes_from_a_target_standard_error(tmp_path):
    ids = np.repeat([1, 3, 7], [200, 3200, 6600]).reshape(100, 100)
    # In UTM areas differ by less than a thousandth here.
    path = make_map(tmp_path / "map.tif", ids)
    expected = {"water": 0.7, "3": 0.9, "crops": 0.95}
    drawn = geoseg.sample(path, target_se=0.01, expected=expected, allocation="olofsson")
    spread = sum(w * math.sqrt(u * (1 - u)) for w, u in ((0.02, 0.7), (0.32, 0.9), (0.66, 0.95)))
    assert len(drawn.points) == math.ceil((spread / 0.01) ** 2)
    assert drawn.strata[0].points == 50
    for target, count in ((0.5, 6), (0.001, 10_000)):  # the classes' minimum; all there is
        assert len(geoseg.sample(path, target_se=target).points) == count


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either count"),
        ({"count": 9, "target_se": 0.1}, "either count"),
        ({"count": 3}, "need at least 2 each, 6 in all"),
        ({"count": 100_000}, "more than the map's"),
        ({"count": 60, "allocation": "olofsson"}, "need at least 50 each, 150"),
        ({"count": 9, "allocation": "random"}, "proportional, equal, olofsson"),
        ({"target_se": 0.01, "expected": {"water": 0.9}}, "one for each class"),
        ({"target_se": 0.01, "expected": 1.2}, "at most 1"),
        ({"target_se": -1}, "between 0 and 1"),
        ({"count": 9, "seed": -1}, "from 0"),
        ({"count": 9, "output": "points.csv"}, "vector files are written as"),
    ],
)
def test_options_that_no_sample_fits(tmp_path, options, words):
    path = make_map(tmp_path / "map.tif", blocks())
    with pytest.raises(UsageError, match=words):
        geoseg.sample(path, **options)


def test_rasters_that_are_no_maps(tmp_path):
    scene = make_raster(tmp_path / "scene.tif", np.ones((3, 4, 4), np.uint8))
    with pytest.raises(SceneError, match="3 bands"):
        geoseg.sample(scene, count=4)
    probs = make_raster(tmp_path / "probs.tif", np.full((1, 4, 4), 0.25, np.float32))
    with pytest.raises(SceneError, match=r"probs\.tif holds 0\.25; a class raster has whole"):
        geoseg.sample(probs, count=4)
    other = make_map(tmp_path / "other.tif", [[1, 9]])
    with pytest.raises(SceneError, match=r"ids \[9\].*\[1, 3, 7\]"):
        geoseg.sample(other, count=2)
    with pytest.raises(SceneError, match="no such file"):
        geoseg.sample(tmp_path / "none.tif", count=2)


def test_the_sample_warns_of_pixels_of_unequal_size(tmp_path):
    path = make_map(tmp_path / "map.tif", np.full((400, 4), 3), transform=DEGREES, crs="EPSG:4326")
    (unequal,) = geoseg.sample(path, count=9).warnings
    assert "equal-area" in unequal
    assert geoseg.sample(make_map(tmp_path / "u.tif", blocks()), count=9).warnings == ()


def test_an_existing_output_and_the_map_are_kept(tmp_path):
    path = make_map(tmp_path / "map.tif", blocks())
    (tmp_path / "p.gpkg").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        geoseg.sample(path, tmp_path / "p.gpkg", count=9)
    assert (tmp_path / "p.gpkg").read_text() == "mine"
    gpkg = path.rename(tmp_path / "q.gpkg")  # GDAL opens a map by what is in it
    with pytest.raises(UsageError, match="is an input"):
        geoseg.sample(gpkg, gpkg, count=9, overwrite=True)


def test_geojson_points_come_back_onto_their_pixels_beyond_180(tmp_path):
    transform = Affine(0.5, 0, 175, 0, -0.5, 10)
    path = make_map(tmp_path / "map.tif", blocks(20, 40), transform=transform, crs="EPSG:4326")
    geoseg.sample(path, tmp_path / "p.geojson", count=60)
    frame = geopandas.read_file(tmp_path / "p.geojson")
    assert frame.geometry.x.between(-180, 180).all() and (frame.geometry.x < 0).any()


# Reading


def test_memory_is_a_strip(tmp_path, monkeypatch):
    ids = blocks(100, 50)
    path = make_map(tmp_path / "map.tif", ids)
    points = tmp_path / "p.gpkg"
    drawn = geoseg.sample(path, count=60).points
    drawn["reference"] = drawn["class_name"]
    drawn.to_file(points)
    monkeypatch.setattr(geodesy, "CHUNK", 500)
    reads = []
    original = classraster.read_class_window

    def counted(dataset, name, window):
        reads.append((window.row, window.bottom))
        return original(dataset, name, window)

    monkeypatch.setattr(classraster, "read_class_window", counted)
    monkeypatch.setattr(labels_module, "read_class_window", counted)
    once = [(top, top + 10) for top in range(0, 100, 10)]
    geoseg.sample(path, count=60)
    assert reads == once * 2
    reads.clear()
    geoseg.evaluate(path, points=points)
    assert reads == once * 2
    reads.clear()
    geoseg.evaluate(path, labels=path)
    assert sorted(reads) == sorted(once * 2)


@pytest.mark.parametrize(
    ("transform", "crs"), [(UTM, "EPSG:32633"), (TURNED, "EPSG:32633"), (DEGREES, "EPSG:4326")]
)
def test_areas_are_geodesic_and_do_not_depend_on_strips(tmp_path, monkeypatch, transform, crs):
    ids = blocks()
    path = make_map(tmp_path / "map.tif", ids, transform=transform, crs=crs)
    with classraster.open_class_raster(path) as raster:
        whole = classraster.survey(raster)
        monkeypatch.setattr(geodesy, "CHUNK", 130)
        cut = classraster.survey(raster)
    assert whole.pixels.tolist() == [(ids == i).sum() for i in NAMES]
    np.testing.assert_allclose(whole.area_m2, cut.area_m2, rtol=1e-9)
    # Oracle: pyproj's own area of each pixel's outline, finely cut.
    geod = pyproj.CRS(crs).get_geod()
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    areas = np.zeros(256)
    for row, col in np.ndindex(*ids.shape):
        outline = shapely.segmentize(shapely.box(col, row, col + 1, row + 1), 0.2)
        xy = np.array([transform @ p for p in shapely.get_coordinates(outline)])
        areas[ids[row, col]] += abs(geod.polygon_area_perimeter(*to_degrees.transform(*xy.T))[0])
    np.testing.assert_allclose(whole.area_m2, areas[list(NAMES)], rtol=2e-5)


# Points


def test_points_give_the_accuracies_of_the_estimator(tmp_path):
    """The paper's counts, on a map whose pixels are as large as each other."""
    counts = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
    shares = [20, 15, 320, 645]
    names = {1: "deforestation", 2: "forest gain", 3: "stable forest", 4: "stable non-forest"}
    ids = np.repeat([1, 2, 3, 4], np.array(shares) * 10).reshape(100, 100)
    path = make_map(tmp_path / "map.tif", ids, names=names, crs="EPSG:3035")
    xy, reference = [], []
    for i, row in enumerate(counts, start=1):
        rows, cols = np.nonzero(ids == i)
        picks = np.random.default_rng(i).permutation(len(rows))[: row.sum()]
        xy += centres(UTM, zip(cols[picks], rows[picks], strict=True))
        reference += [names[j] for j, n in enumerate(row, start=1) for _ in range(n)]
    xy.append(xy[0])
    points = labelled(tmp_path / "p.gpkg", xy, [*reference, None], crs="EPSG:3035")
    done = geoseg.evaluate(path, points=points)
    assert done.matrix.T.tolist() == counts.tolist()
    report = done.report
    assert report["counted"]["used"] == 640 and report["counted"]["unlabelled"] == 1
    overall = report["overall_accuracy"]
    assert overall["value"] == pytest.approx(0.947, abs=5e-4)
    assert overall["high"] - overall["low"] == pytest.approx(2 * 0.018, abs=1e-3)
    area = report["classes"][0]["area"]
    assert area["value"] == pytest.approx(1_000_000 * 0.0235086, rel=1e-4)
    assert report["classes"][0]["mapped_area"] == pytest.approx(20_000, rel=1e-4)
    assert area["high"] - area["value"] == pytest.approx(1_000_000 * 0.0068418, rel=1e-4)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("kind", ["name", "NAME", "id", "text", "float"])
def test_reference_by_name_or_id_and_points_in_any_crs(tmp_path, crs, kind):
    path = make_map(tmp_path / "map.tif", blocks(), transform=TURNED)
    drawn = geoseg.sample(path, count=90, blind=True, seed=2).points
    truth = geoseg.sample(path, count=90, seed=2).points["class_id"]
    drawn["seen"] = {
        "name": truth.map(NAMES),
        "NAME": truth.map(NAMES).str.upper() + " ",
        "id": truth,
        "text": truth.astype(str),
        "float": truth.where(drawn["id"] > 5).astype(float),
    }[kind]
    drawn.to_crs(crs).to_file(tmp_path / "p.gpkg")
    done = geoseg.evaluate(path, points=tmp_path / "p.gpkg", column="seen")
    assert done.report["overall_accuracy"]["value"] == 1.0
    assert done.report["counted"]["unlabelled"] == (5 if kind == "float" else 0)
    for entry in done.report["classes"]:
        assert entry["area"]["value"] == pytest.approx(entry["mapped_area"])


def test_points_that_tell_nothing_are_counted(tmp_path):
    ids = np.full((10, 10), 1)
    ids[:, 5:] = 3
    ids[0, 0] = 255
    path = make_map(tmp_path / "map.tif", ids)
    xy = centres(UTM, [(1, 1), (2, 2), (7, 7), (8, 8), (0, 0), (-1, 3), (99, 3), (3, 3), (4, 4)])
    seen = ["water", "trees", "trees", "trees", "water", "water", "water", "cloud", ""]
    points = labelled(tmp_path / "p.gpkg", xy, seen)
    done = geoseg.evaluate(path, points=points, ignore=["Cloud"])
    assert done.report["counted"] == {
        "points": 9,
        "used": 4,
        "unlabelled": 1,
        "ignored": 1,
        "outside": 2,
        "on_nodata": 1,
        "not_sure": 0,
    }
    (warning,) = done.warnings
    assert "2 labelled points lie outside the map and 1 on its nodata" in warning
    assert done.matrix.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    # Crops are in the legend, and nowhere on the map.
    assert done.report["classes"][2]["users_accuracy"]["value"] is None


def test_a_class_of_the_legend_that_only_the_reference_knows(tmp_path):
    ids = np.full((10, 10), 1)
    path = make_map(tmp_path / "map.tif", ids)
    points = labelled(
        tmp_path / "p.gpkg", centres(UTM, [(i, i) for i in range(10)]), [1] * 8 + [7] * 2
    )
    done = geoseg.evaluate(path, points=points)
    crops = done.report["classes"][2]
    assert crops["area"]["value"] == pytest.approx(0.2 * 10_000, rel=1e-3)
    assert crops["producers_accuracy"]["value"] == 0


def test_reference_classes_that_the_map_has_not_are_its_errors(tmp_path):
    """Olofsson et al. 2014 by hand: of 60 % a sixth is wetland, of 40 % a quarter."""
    ids = np.full((10, 10), 1)
    ids[6:] = 3
    path = make_map(tmp_path / "map.tif", ids, names=None, crs=None)
    xy = centres(UTM, [(i % 10, i // 10) for i in range(30)])
    xy += centres(UTM, [(i % 10, 6 + i // 10) for i in range(20)])
    seen = (
        ["1"] * 20 + ["3"] * 5 + ["wetland"] * 3 + ["Wetland "] * 2 + ["3"] * 15 + ["wetland"] * 5
    )
    points = labelled(tmp_path / "p.gpkg", xy, seen, crs=None)
    done = geoseg.evaluate(path, points=points)
    assert done.matrix.tolist() == [[20, 0, 0], [5, 15, 0], [5, 5, 0]]
    report = done.report
    # 0.6 x 20/30 + 0.4 x 15/20, and the root of 0.36 x 2/9 / 29 + 0.16 x 3/16 / 19.
    assert report["overall_accuracy"]["value"] == pytest.approx(0.7)
    assert report["overall_accuracy"]["standard_error"] == pytest.approx(0.065860, abs=1e-6)
    one, three, wetland = report["classes"]
    assert [c["id"] for c in report["classes"]] == [1, 3, None]
    assert one["users_accuracy"]["value"] == pytest.approx(2 / 3)
    assert three["users_accuracy"]["value"] == pytest.approx(3 / 4)
    assert three["producers_accuracy"]["value"] == pytest.approx(0.3 / (0.1 + 0.3))
    assert (wetland["name"], wetland["mapped_area"], wetland["reference_points"]) == (
        "wetland",
        0,
        10,
    )
    assert wetland["users_accuracy"]["value"] is None
    assert wetland["producers_accuracy"]["value"] == 0
    assert wetland["area"]["value"] == pytest.approx(100 * (0.6 * 5 / 30 + 0.4 * 5 / 20))
    # The root of 0.36 x 5/36 / 29 + 0.16 x 3/16 / 19, of 100 pixels.
    assert wetland["area"]["standard_error"] == pytest.approx(5.7472, abs=1e-4)
    assert "the map has no class wetland (10): it is wrong at these points" in done.warnings[0]
    without = geoseg.evaluate(path, points=points, ignore=["wetland"])
    assert without.report["overall_accuracy"]["value"] == pytest.approx(0.6 * 0.8 + 0.4)
    assert without.warnings == done.warnings[1:]


def test_a_number_that_is_no_id_of_the_map_is_a_class_too(tmp_path):
    path = make_map(tmp_path / "map.tif", [[1, 1, 1, 3, 3]], crs=None)
    xy = centres(UTM, [(i, 0) for i in range(5)])
    points = labelled(tmp_path / "p.gpkg", xy, [1, 1, 9, 3, None], crs=None)
    done = geoseg.evaluate(path, points=points, html=tmp_path / "r.html", csv=tmp_path / "r.csv")
    assert [c["name"] for c in done.report["classes"]] == ["water", "trees", "crops", "9"]
    assert done.matrix[3].tolist() == [1, 0, 0, 0]


def test_names_that_are_none_of_the_maps_are_refused(tmp_path):
    """Were all of them map errors, a map without names would be called wrong everywhere."""
    xy = centres(UTM, [(0, 0), (1, 0)])
    points = labelled(tmp_path / "p.gpkg", xy, ["forest", "water"])
    bare = make_map(tmp_path / "map.tif", [[1, 3]], names=None)
    with pytest.raises(
        EvaluationError, match=r"'forest' \(1\).*is no class of the map \(1 class 1"
    ):
        geoseg.evaluate(bare, points=points)
    twice = make_map(tmp_path / "twice.tif", [[1, 3]], names={1: "water", 3: "Water", 7: "forest"})
    with pytest.raises(EvaluationError, match=r"'water' \(1\) is no class of the map \(1 water"):
        geoseg.evaluate(twice, points=points)


def test_one_point_in_a_class_and_two_in_a_pixel_are_warned_of(tmp_path):
    ids = np.full((10, 10), 1)
    ids[:, 5:] = 3
    path = make_map(tmp_path / "map.tif", ids)
    points = labelled(
        tmp_path / "p.gpkg", centres(UTM, [(1, 1), (1, 1), (7, 7)]), ["water", "water", "trees"]
    )
    done = geoseg.evaluate(path, points=points)
    twice, single = done.warnings
    assert "1 labelled points lie in a pixel that holds another" in twice
    assert "trees" in single
    assert done.report["overall_accuracy"]["standard_error"] is None


def test_a_class_of_one_pixel_is_known_when_that_is_labelled(tmp_path):
    """Nothing is left to chance there, so it does not void the other classes' intervals."""
    ids = np.full((10, 10), 1)
    ids[0, 0] = 3
    path = make_map(tmp_path / "map.tif", ids)
    drawn = geoseg.sample(path, count=11).points
    drawn["reference"] = ["water"] * 2 + ["trees"] * 9
    drawn.to_file(tmp_path / "p.gpkg")
    done = geoseg.evaluate(path, points=tmp_path / "p.gpkg")
    assert done.warnings == ()
    assert done.report["classes"][1]["users_accuracy"]["standard_error"] == 0
    assert done.report["overall_accuracy"]["standard_error"] > 0
    assert all(c["area"]["standard_error"] is not None for c in done.report["classes"])


def test_points_drawn_from_another_map_are_refused(tmp_path):
    path = make_map(tmp_path / "map.tif", blocks(seed=0))
    other = make_map(tmp_path / "other.tif", blocks(seed=1))
    drawn = geoseg.sample(path, count=60).points
    drawn["reference"] = drawn["class_name"]
    drawn.to_file(tmp_path / "p.gpkg")
    geoseg.evaluate(path, points=tmp_path / "p.gpkg")
    with pytest.raises(EvaluationError, match="were drawn on another class"):
        geoseg.evaluate(other, points=tmp_path / "p.gpkg")


def test_point_files_that_are_none(tmp_path):
    path = make_map(tmp_path / "map.tif", np.full((10, 10), 1))
    points = labelled(tmp_path / "p.gpkg", centres(UTM, [(1, 1), (2, 2)]), [None, None], seen=1)
    cases = [
        (points, {}, EvaluationError, "none of its 2 points has a class in the column 'reference'"),
        (points, {"column": "truth"}, UsageError, "no column 'truth'; it has reference, seen"),
        (tmp_path / "none.gpkg", {}, UsageError, "no such file"),
        (path, {}, UsageError, "can't be read as a vector file|table without geometry"),
    ]
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    cases.append((tmp_path / "t.csv", {}, UsageError, "table without geometry"))
    away = labelled(tmp_path / "away.gpkg", [(0, 0), (10, 10)], [1, 1])
    cases.append((away, {}, EvaluationError, "500000, 4999900, 500100, 5000000.*0, 0, 10, 10"))
    bare = labelled(tmp_path / "bare.gpkg", centres(UTM, [(1, 1)]), [1], crs=None)
    cases.append((bare, {}, EvaluationError, "bare.gpkg has no CRS"))
    box = geopandas.GeoDataFrame(
        {"reference": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32633"
    )
    box.to_file(tmp_path / "box.gpkg")
    cases.append((tmp_path / "box.gpkg", {}, UsageError, "1 rows that are no single point"))
    for file, options, kind, words in cases:
        with pytest.raises(kind, match=words):
            geoseg.evaluate(path, points=file, **options)


def test_without_crs_areas_are_pixels(tmp_path):
    ids = np.full((10, 10), 1)
    ids[:, 7:] = 3
    path = make_map(tmp_path / "map.tif", ids, crs=None)
    where = [(1, 1), (2, 2), (8, 8), (9, 9)]
    points = labelled(tmp_path / "p.gpkg", centres(UTM, where), [1, 3, 3, 3], crs=None)
    done = geoseg.evaluate(path, points=points)
    assert done.report["area_unit"] == "px" and "areas are pixels" in done.warnings[0]
    assert [c["area"]["value"] for c in done.report["classes"]] == pytest.approx([35, 65, 0])


def test_sampling_and_evaluation_together_find_the_true_areas(tmp_path):
    """A world that is known everywhere: the intervals hold its areas nearly always."""
    rng = np.random.default_rng(3)
    truth = blocks(80, 80, seed=4)
    truth[truth == 255] = 3
    wrong = rng.random(truth.shape) < 0.15
    mapped = np.where(wrong, rng.choice([1, 3, 7], truth.shape), truth)
    path = make_map(tmp_path / "map.tif", mapped, crs="EPSG:3035")
    area = np.array([(truth == i).sum() for i in NAMES]) * 100.0
    held = []
    for seed in range(30):
        drawn = geoseg.sample(path, count=200, allocation="equal", seed=seed, blind=True).points
        places = np.array([~UTM @ (p.x, p.y) for p in drawn.geometry]).astype(int)
        drawn["reference"] = truth[places[:, 1], places[:, 0]]
        drawn.to_file(tmp_path / "p.fgb")
        areas = geoseg.evaluate(path, points=tmp_path / "p.fgb").accuracy.areas
        held.append((areas.low <= area) & (area <= areas.high))
    assert 0.87 < np.mean(held) <= 1


# Rasters of labels


@pytest.mark.parametrize("transform", [UTM, TURNED])
def test_a_map_agrees_with_itself(tmp_path, transform):
    ids = blocks()
    path = make_map(tmp_path / "map.tif", ids, transform=transform)
    done = geoseg.evaluate(path, labels=path)
    assert set(done.report["measures"].values()) == {1.0}
    assert done.report["counted"]["pixels"] == (ids != 255).sum() == done.matrix.trace()
    assert done.accuracy is None and done.warnings == ()


def test_confusion_by_hand(tmp_path):
    path = make_map(tmp_path / "map.tif", [[1, 1, 3, 3], [7, 255, 255, 3]])
    labels = make_map(tmp_path / "labels.tif", [[1, 3, 3, 255], [7, 1, 255, 9]], names=None)
    with pytest.raises(EvaluationError, match=r"holds the ids 9 \(1 px\).*1 water, 3 trees"):
        geoseg.evaluate(path, labels=labels)
    done = geoseg.evaluate(path, labels=labels, ignore=[9])
    assert done.matrix.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]  # labels in rows
    assert done.report["counted"] == {
        "pixels": 4,
        "unlabelled": 1,
        "ignored": 1,
        "disputed": 0,
        "on_nodata": 1,
        "not_sure": 0,
    }
    assert done.report["measures"]["pixel_accuracy"] == 0.75
    water, trees, crops = done.report["classes"]
    assert (water["iou"], trees["recall"], crops["f1"]) == (0.5, 0.5, 1.0)
    assert water["labels_on_nodata"] == 1 and water["precision"] == 0.5
    assert "1 labelled pixels have no class" in done.warnings[0]
    ignored = geoseg.evaluate(path, labels=labels, ignore=["9", 1])
    assert ignored.report["counted"]["ignored"] == 3


GRIDS = {
    "shifted": ("EPSG:32633", UTM @ Affine.translation(-7, 5)),
    "coarse": ("EPSG:32633", UTM @ Affine.translation(-3, -2) @ Affine.scale(3.7131, 2.3317)),
    "fine": ("EPSG:32633", UTM @ Affine.translation(4.3, 2.1) @ Affine.scale(0.3137, 0.2919)),
    "turned": ("EPSG:32633", TURNED @ Affine.translation(-2, -20)),
    "degrees": ("EPSG:4326", None),
    "mercator": ("EPSG:3857", None),
    "south up": ("EPSG:32633", UTM @ Affine.translation(0, 50) @ Affine.scale(1, -1)),
}


def nearest(ids, transform, crs, labels, known, label_transform, label_crs):
    """(H, W) label at each pixel's centre, and where there is one: pixel by pixel."""
    out, found = np.zeros(ids.shape, int), np.zeros(ids.shape, bool)
    change = pyproj.Transformer.from_crs(crs, label_crs, always_xy=True)
    edge = np.zeros(ids.shape, bool)
    for row, col in np.ndindex(*ids.shape):
        x, y = ~label_transform @ change.transform(*(transform @ (col + 0.5, row + 0.5)))
        edge[row, col] = min(x % 1, 1 - x % 1, y % 1, 1 - y % 1) < 1e-3
        if 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1] and known[int(y), int(x)]:
            out[row, col], found[row, col] = labels[int(y), int(x)], True
    return out, found, edge


@pytest.mark.parametrize("mark", ["nodata", "mask", "alpha", "nothing"])
@pytest.mark.parametrize("grid", GRIDS)
def test_labels_on_any_grid_are_the_nearest_ones(tmp_path, monkeypatch, grid, mark):
    ids = blocks(30, 44)
    path = make_map(tmp_path / "map.tif", ids, names={0: "zero", **NAMES})
    crs, transform = GRIDS[grid]
    if transform is None:
        change = pyproj.Transformer.from_crs("EPSG:32633", crs, always_xy=True)
        left, top = change.transform(500_051.3, 4_999_963.1)
        step = change.transform(500_058.96, 4_999_953.77)
        transform = Affine(step[0] - left, 0, left, 0, step[1] - top, top)
    rng = np.random.default_rng(8)
    labels = rng.choice([0, 1, 3, 7], (37, 41)).astype(np.uint8)
    known = rng.random(labels.shape) < 0.8 if mark != "nothing" else np.ones(labels.shape, bool)
    options = {"crs": crs, "transform": transform}
    if mark == "nodata":
        make_raster(
            tmp_path / "l.tif", np.where(known, labels, 99)[None].astype("u1"), nodata=99, **options
        )
    elif mark == "mask":
        make_raster(tmp_path / "l.tif", labels[None], mask=known, **options)
    elif mark == "alpha":
        alpha = np.where(known, 255, 0).astype(np.uint8)
        make_raster(tmp_path / "l.tif", labels[None], alpha=alpha, **options)
    else:
        make_raster(tmp_path / "l.tif", labels[None], **options)
    expected, found, edge = nearest(ids, UTM, "EPSG:32633", labels, known, transform, crs)
    # A centre on the border of two labels is at either: leave such pixels out of the map.
    assert edge.mean() < 0.05
    make_map(tmp_path / "map.tif", np.where(edge, 255, ids), names={0: "zero", **NAMES})
    counts = np.zeros((4, 4), int)
    table = {0: 0, 1: 1, 3: 2, 7: 3}
    for row, col in zip(*np.nonzero(found & (ids != 255) & ~edge), strict=True):
        counts[table[expected[row, col]], table[int(ids[row, col])]] += 1
    assert counts.sum() > 50
    done = geoseg.evaluate(path, labels=tmp_path / "l.tif")
    assert done.matrix.tolist() == counts.tolist()
    monkeypatch.setattr(geodesy, "CHUNK", 100)
    assert geoseg.evaluate(path, labels=tmp_path / "l.tif").report == done.report


def test_labels_are_found_to_a_thousandth_of_their_pixel_along_curves(tmp_path):
    """A row of the map is a curve among the labels, and GDAL cuts curves short by default."""
    ids = np.random.default_rng(0).choice([1, 3, 7], (4, 4000))
    transform = Affine(100, 0, 300_000, 0, -100, 7_000_000)
    path = make_map(tmp_path / "map.tif", ids, transform=transform)
    cols, rows = np.meshgrid(np.arange(4000) + 0.5, np.arange(4) + 0.5)
    change = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    lon, lat = change.transform(*(transform @ (cols, rows)))
    there = Affine(0.001, 0, lon.min() - 0.0107, 0, -0.001, lat.max() + 0.0103)
    x, y = ~there @ (lon, lat)
    labels = np.full((int(y.max()) + 9, int(x.max()) + 9), 1, np.uint8)
    labels[:] = np.random.default_rng(1).choice([1, 3, 7], labels.shape)
    make_map(tmp_path / "labels.tif", labels, names=None, transform=there, crs="EPSG:4326")
    sure = (np.abs(x % 1 - 0.5) < 0.498) & (np.abs(y % 1 - 0.5) < 0.498)
    make_map(tmp_path / "map.tif", np.where(sure, ids, 255), transform=transform)
    found = labels[y.astype(int), x.astype(int)]
    expected = [[int((sure & (found == i) & (ids == j)).sum()) for j in NAMES] for i in NAMES]
    assert geoseg.evaluate(path, labels=tmp_path / "labels.tif").matrix.tolist() == expected


def test_a_map_without_legend_has_the_classes_of_its_pixels(tmp_path):
    path = make_map(tmp_path / "map.tif", [[2, 2, 5]], names=None)
    report = geoseg.evaluate(path, labels=path).report
    assert [(c["id"], c["name"]) for c in report["classes"]] == [(2, "class 2"), (5, "class 5")]


def test_labels_with_another_legend_are_warned_of(tmp_path):
    path = make_map(tmp_path / "map.tif", [[1, 3, 7]])
    labels = make_map(tmp_path / "l.tif", [[1, 3, 7]], names={1: "Water", 3: "forest", 7: "crops"})
    (warning,) = geoseg.evaluate(path, labels=labels).warnings
    assert "3 (trees, forest)" in warning and "Water" not in warning


def test_names_stand_in_the_files_tags_too(tmp_path):
    tags = {"GEOSEG_CLASSES": json.dumps({"3": "trees", "1": "water"})}
    path = make_map(tmp_path / "map.tif", [[1, 3]], names=None, tags=tags)
    report = geoseg.evaluate(path, labels=path).report
    assert [(c["id"], c["name"]) for c in report["classes"]] == [(1, "water"), (3, "trees")]
    broken = make_map(tmp_path / "b.tif", [[1]], names=None, tags={"GEOSEG_CLASSES": "{water"})
    with pytest.raises(SceneError, match="must be a JSON object"):
        geoseg.evaluate(broken, labels=path)


def test_labels_that_can_not_be_compared(tmp_path):
    path = make_map(tmp_path / "map.tif", np.full((10, 10), 1))
    away = UTM @ Affine.translation(1000, 1000)
    cases = [
        (make_map(tmp_path / "a.tif", [[1]], transform=away), "510000, 4989990, 510010, 4990000"),
        (make_map(tmp_path / "b.tif", [[1]], crs=None), "b.tif has no CRS"),
        (make_map(tmp_path / "c.tif", np.full((10, 10), 255)), "no pixel has both"),
    ]
    bare = make_map(tmp_path / "bare.tif", np.full((10, 10), 1), crs=None)
    for labels, words in cases:
        with pytest.raises(EvaluationError, match=words):
            geoseg.evaluate(path, labels=labels)
    with pytest.raises(EvaluationError, match="different grids and have no CRS"):
        geoseg.evaluate(bare, labels=cases[1][0])
    assert geoseg.evaluate(bare, labels=bare).report["measures"]["pixel_accuracy"] == 1
    hollow = make_map(tmp_path / "h.tif", np.full((10, 10), 255))
    with pytest.raises(EvaluationError, match="100 labels lie on the map's nodata"):
        geoseg.evaluate(hollow, labels=path)
    strange = make_map(tmp_path / "s.tif", [[1, 9]])
    with pytest.raises(EvaluationError, match=r"s.tif holds the ids 9 \(1 px\), and the legend"):
        geoseg.evaluate(strange, labels=strange, ignore=[9])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either points"),
        ({"points": "p.gpkg", "labels": "l.tif"}, "either points"),
        ({"labels": "map.tif", "column": "x"}, "is of points"),
        ({"labels": "map.tif", "ignore": ["cloud"]}, "ignored by id"),
        ({"labels": "map.tif", "json": "map.tif", "overwrite": True}, "is an input"),
    ],
)
def test_options_that_contradict(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    make_map("map.tif", [[1]])
    with pytest.raises(UsageError, match=words):
        geoseg.evaluate("map.tif", **options)


# The command line


def run(*args, cwd):
    return forked.run([sys.executable, "-m", "geoseg", *args], cwd=cwd)


def one_line(result):
    (line,) = (s for s in result.stderr.splitlines() if s.startswith("geoseg: error:"))
    assert "Traceback" not in result.stderr
    return line


def test_from_the_map_to_its_accuracy_on_the_command_line(tmp_path):
    make_map(tmp_path / "map.tif", blocks())
    args = ("map.tif", "-o", "p.gpkg", "-n", 160, "--allocation", "olofsson")
    result = run("sample", *args, "--min-per-class", 40, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "p.gpkg: 160 points" in result.stdout
    frame = geopandas.read_file(tmp_path / "p.gpkg")
    assert frame["class_name"].value_counts().min() == 40
    frame["reference"] = frame["class_name"]
    frame.loc[:3, "reference"] = "crops"
    frame.loc[4, "reference"] = None
    frame.to_file(tmp_path / "labelled.gpkg")
    result = run(
        *("evaluate", "map.tif", "--points", "labelled.gpkg", "--json", "r.json"),
        *("--csv", "r.csv"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "159 of 160 points (1 unlabelled)" in result.stdout and "trees" in result.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    with open(tmp_path / "r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (overall,) = (row for row in rows if row["class_id"] == "")
    assert float(overall["value"]) == report["overall_accuracy"]["value"]
    (area,) = (r for r in rows if (r["class_name"], r["measure"]) == ("trees", "area_m2"))
    assert float(area["high"]) == report["classes"][1]["area"]["high"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["map.tif", "p.gpkg", "labelled.gpkg", "r.json", "r.csv"]
    )


def test_labels_on_the_command_line(tmp_path):
    make_map(tmp_path / "map.tif", blocks())
    result = run("evaluate", "map.tif", "--labels", "map.tif", "--csv", "r.csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "kappa                  1.0000" in result.stdout
    assert "3,trees,iou,1.0,,," in (tmp_path / "r.csv").read_text().splitlines()
    again = run("evaluate", "map.tif", "--labels", "map.tif", "--csv", "r.csv", cwd=tmp_path)
    assert again.returncode == 1 and "exists already" in one_line(again)


def matrix_lines(text, title):
    """The lines of a matrix, from its head."""
    lines = text.splitlines()
    start = lines.index(f"{title}, map in columns:") + 1
    return lines[start : start + 4]


def test_the_confusion_matrix_is_in_terminal_table_and_page(tmp_path):
    names = {1: "water", 3: "stable woodland of oak", 5: "stable woodland of ash"}
    ids = np.repeat([1, 3, 5], [60, 30, 10]).reshape(10, 10)
    seen = ids.copy()
    seen[0, :2], seen[9, :3] = 3, 1
    make_map(tmp_path / "map.tif", ids, names=names, crs=None)
    make_map(tmp_path / "l.tif", seen, names=names, crs=None)
    result = run("evaluate", "map.tif", "--labels", "l.tif", "--csv", "l.csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert matrix_lines(result.stdout, "pixels, labels in rows") == [
        "                   1 water 3 stabl. 5 stabl.",
        "1 water                 58        0        3",
        "3 stable woodland.       2       30        0",
        "5 stable woodland.       0        0        7",
    ]
    table = (tmp_path / "l.csv").read_text().splitlines()
    assert "1,water,pixels_mapped_as_5,3,,," in table and len(table) == len(set(table))
    # Of the ten points on water one is moss, which the map has not.
    xy = centres(UTM, [(i, r) for r in (0, 7, 9) for i in range(10)])
    there = [1] * 9 + ["moss"] + [3] * 10 + [1] * 3 + [5] * 7
    labelled(tmp_path / "p.gpkg", xy, list(map(str, there)), crs=None)
    outputs = ("--csv", "p.csv", "--html", "p.html")
    result = run("evaluate", "map.tif", "--points", "p.gpkg", *outputs, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    title = "% of the mapped area, reference in rows"
    assert matrix_lines(result.stdout, title) == [
        "                   1 water 3 stabl. 5 stabl.",
        "1 water              54.00     0.00     3.00",
        "3 stable woodland.    0.00    30.00     0.00",
        "5 stable woodland.    0.00     0.00     7.00",
    ]
    assert "\nmoss                  6.00     0.00     0.00" in result.stdout
    table = (tmp_path / "p.csv").read_text().splitlines()
    assert "1,water,points_mapped_as_5,3,,," in table
    (share,) = (row for row in table if row.startswith(",moss,area_share_mapped_as_1,"))
    assert float(share.split(",")[3]) == pytest.approx(0.06)
    page = (tmp_path / "p.html").read_text()
    assert "Share of the mapped area" in page and ">0.5400<br>" in page and ">0.0600<br>" in page


def test_a_matrix_of_nine_classes_goes_on_100_columns(capsys):
    classes = [{"id": i, "name": f"class of land {i}"} for i in range(9)]
    rows = np.full((9, 9), 99_999_999).tolist()
    rows[0][0] = 12_345_678_901
    evaluate_command._print_matrix("pixels", classes, rows, evaluate_command._count)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 100
    assert lines[1].split()[-9:] == ["1.23e+10", *["99999999"] * 8]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["evaluate", "map.tif"], 2, "--points"),
        (["evaluate", "map.tif", "--labels", "none.tif"], 1, "no such file"),
        (["evaluate", "map.tif", *("--labels", "map.tif") * 2], 2, "--labels is given 2 times"),
        (["evaluate", "map.tif", *("--points", "p.gpkg") * 2], 2, "--points is given 2 times"),
        (["evaluate", "map.tif", "--labels", "other.tif"], 1, "--ignore"),
        (["sample", "map.tif", "-o", "p.gpkg"], 2, "--target-se"),
        (["sample", "map.tif", "-o", "p.gpkg", "-n", "9", "--min-per-class", "9"], 2, "olofsson"),
        (["sample", "map.tif", "-o", "p.gpkg", "-n", "9", "--expected", "0.9"], 2, "--target-se"),
        (
            ["sample", "map.tif", "-o", "p.gpkg", "--target-se", "0.1", "--expected", "water=x"],
            2,
            "CLASS=NUMBER",
        ),
        (["sample", "map.tif", "-o", "no/p.gpkg", "-n", "9"], 1, "no folder"),
    ],
)
def test_errors_are_one_line_and_a_code(tmp_path, args, code, words):
    make_map(tmp_path / "map.tif", blocks())
    make_map(tmp_path / "other.tif", [[8]], names=None)
    result = run(*args, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert words in one_line(result)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "other.tif"]
