"""Maps against labels: rasters and polygons, borders, objects, probabilities, the page."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
import torch
from affine import Affine
from PIL import Image

import geoseg
from geoseg.cards import card as card_module
from geoseg.cards.card import Normalization
from geoseg.cards.legend import ClassInfo
from geoseg.errors import EvaluationError, OutputError, SceneError, UsageError
from geoseg.evaluation import calibration
from geoseg.geo import geodesy
from geoseg.networks import create_model, save_model
from geoseg.rasters.writing import encode_probability
from tests import forked
from tests.helpers import make_raster, tiny_model

NAMES = {1: "water", 3: "trees", 7: "crops"}
UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
EXAMPLES = Path(__file__).parents[1] / "examples"


def make_map(path, ids, *, names=NAMES, colors=None, **options):
    options = {"nodata": 255, "transform": UTM, **options}
    make_raster(path, np.asarray(ids, np.uint8)[None], **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(1, **{f"class_{i}": name for i, name in names.items()})
        if colors:
            dataset.write_colormap(1, colors)
    return path


def blocks(seed=0, height=40, width=60):
    rng = np.random.default_rng(seed)
    small = rng.choice([1, 3, 3, 7, 255], (-(-height // 4), -(-width // 4)))
    return np.kron(small, np.ones((4, 4), int))[:height, :width].astype(np.uint8)


def to_polygons(path, ids, transform=UTM, crs="EPSG:32633", **columns):
    """The regions of a label raster, as a file."""
    found = list(rasterio.features.shapes(ids, ids != 255, transform=transform))
    frame = geopandas.GeoDataFrame(
        {"kind": [NAMES[int(v)] for _, v in found], **columns},
        geometry=[shapely.geometry.shape(s) for s, _ in found],
        crs=crs,
    )
    frame.to_file(path)
    return path


def make_probs(path, ids, *, dtype="uint8", order=(1, 3, 7), seed=0, **options):
    """Probabilities whose winner is the map's class; with predict's tags."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(len(order)), ids.shape).transpose(2, 0, 1)
    probs.sort(axis=0)
    out = np.zeros_like(probs)
    for k, i in enumerate(order):
        mine = ids == i
        others = [j for j in range(len(order)) if j != k]
        out[k][mine] = probs[-1][mine]
        for rank, j in enumerate(others):
            out[j][mine] = probs[rank][mine]
    valid = ids != 255
    values = encode_probability(out.astype(np.float32), valid, dtype)
    quantized = dtype == "uint8"
    make_raster(
        path,
        values,
        nodata=255 if quantized else float("nan"),
        scales=[1 / 254] * len(order) if quantized else None,
        **{"transform": UTM, "descriptions": [NAMES[i] for i in order], **options},
    )
    return path, out, valid


def other(ids, seed=5, share=0.2):
    """Labels: the map, moved, and partly something else."""
    rng = np.random.default_rng(seed)
    moved = np.roll(ids, (1, 2), (0, 1))
    return np.where(rng.random(ids.shape) < share, blocks(9), moved).astype(np.uint8)


# Polygons


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".parquet"])
def test_polygons_give_what_their_raster_gives(tmp_path, suffix):
    ids = blocks()
    path = make_map(tmp_path / "map.tif", ids)
    labels = other(ids)
    raster = make_map(tmp_path / "labels.tif", labels)
    vector = to_polygons(tmp_path / "labels.gpkg", labels)
    if suffix == ".parquet":
        geopandas.read_file(vector).to_parquet(tmp_path / "l.parquet")
        vector = tmp_path / "l.parquet"
    elif suffix != ".gpkg":
        # GeoJSON is in degrees with 7 decimals: that moves borders by a centimetre.
        geopandas.read_file(vector).to_file(tmp_path / f"l{suffix}")
        vector = tmp_path / f"l{suffix}"
    one = geoseg.evaluate(path, labels=raster)
    two = geoseg.evaluate(path, labels=vector, column="kind")
    assert one.matrix.tolist() == two.matrix.tolist()
    assert one.report["counted"] == two.report["counted"]
    for key, value in one.report["measures"].items():
        assert two.report["measures"][key] == value
    frame = geopandas.read_file(vector) if suffix != ".parquet" else geopandas.read_parquet(vector)
    shares, right = [], []
    for shape, kind in zip(frame.to_crs("EPSG:32633").geometry, frame["kind"], strict=True):
        mask = rasterio.features.rasterize([shape], ids.shape, transform=UTM) == 1
        inside = ids[mask & (ids != 255)]
        if len(inside):
            counts = {i: int((inside == i).sum()) for i in NAMES}
            own = next(i for i, name in NAMES.items() if name == kind)
            shares.append(counts[own] / len(inside))
            right.append(all(counts[own] > n for i, n in counts.items() if i != own))
    objects = two.report["objects"]
    assert objects["polygons"] == len(shares) > 100
    assert objects["without_pixel"] == len(frame) - len(shares)
    assert objects["polygons_right"] == pytest.approx(np.mean(right))
    assert objects["polygons_mean_share"] == pytest.approx(np.mean(shares))
    assert objects["polygons_median_share"] == pytest.approx(np.median(shares))
    assert sum(c["polygons"] for c in two.report["classes"]) == objects["polygons"]


def test_a_map_agrees_with_its_own_polygons(tmp_path):
    ids = blocks()
    path = make_map(tmp_path / "map.tif", ids)
    done = geoseg.evaluate(path, labels=to_polygons(tmp_path / "l.gpkg", ids), column="kind")
    values = {k: v for k, v in done.report["measures"].items() if k != "polygons"}
    assert set(values.values()) == {1.0}
    assert done.report["counted"]["pixels"] == (ids != 255).sum()


def test_overlapping_polygons_of_two_classes_say_nothing_there(tmp_path):
    path = make_map(tmp_path / "map.tif", np.full((10, 10), 1))

    def box(left, right):
        return shapely.box(500_000 + 10 * left, 4_999_900, 500_000 + 10 * right, 5_000_000)

    frame = geopandas.GeoDataFrame(
        {"class_id": [1, 1, 3]}, geometry=[box(0, 4), box(2, 6), box(5, 8)], crs="EPSG:32633"
    )
    frame.to_file(tmp_path / "l.gpkg")
    done = geoseg.evaluate(path, labels=tmp_path / "l.gpkg")
    assert done.report["counted"]["disputed"] == 10
    assert done.report["counted"]["unlabelled"] == 20
    assert done.matrix.tolist() == [[50, 0, 0], [20, 0, 0], [0, 0, 0]]
    assert "overlap in 10 pixels" in done.warnings[0]
    assert done.report["objects"]["polygons"] == 3
    assert done.report["objects"]["polygons_right"] == pytest.approx(2 / 3)


def test_polygons_elsewhere_are_told_from_the_map(tmp_path):
    path = make_map(tmp_path / "map.tif", blocks())
    far = geopandas.GeoDataFrame(
        {"class_id": [1]}, geometry=[shapely.box(0, 0, 10, 10)], crs="EPSG:32633"
    )
    far.to_file(tmp_path / "far.gpkg")
    with pytest.raises(EvaluationError, match=r"500000, 4999600, 500600, 5000000.*0, 0, 10, 10"):
        geoseg.evaluate(path, labels=tmp_path / "far.gpkg")


# Strips


@pytest.mark.parametrize(("rows", "sample"), [(1, 200), (3, 10**6), (7, 200)])
def test_nothing_depends_on_the_strips(tmp_path, monkeypatch, rows, sample):
    monkeypatch.setattr(calibration, "SAMPLE_PIXELS", sample)
    ids = blocks()
    path = make_map(tmp_path / "map.tif", ids)
    vector = to_polygons(tmp_path / "labels.gpkg", other(ids))
    probs, _, _ = make_probs(tmp_path / "p.tif", ids)
    options = {"labels": vector, "column": "kind", "probs": probs, "boundary_tolerance": 35}
    whole = geoseg.evaluate(path, **options, html=tmp_path / "a.html")
    monkeypatch.setattr(geodesy, "CHUNK", rows * 60)
    cut = geoseg.evaluate(path, **options, html=tmp_path / "b.html")

    def compare(one, two):
        if isinstance(one, dict):
            assert one.keys() == two.keys()
            for key in one:
                compare(one[key], two[key])
        elif isinstance(one, list):
            for a, b in zip(one, two, strict=True):
                compare(a, b)
        else:
            assert one == (pytest.approx(two) if isinstance(one, float) else two)

    compare(whole.report, cut.report)
    assert (tmp_path / "a.html").read_text() == (tmp_path / "b.html").read_text()


# Masks in class colours

COLORS = {1: (0, 0, 255), 3: (0x12, 0x80, 0x0A), 7: (255, 200, 0)}
CLASSES = ["Water=#0000FF", "3=#12800a", "crops=#FFC800"]


@pytest.mark.parametrize("kind", ["bands", "alpha", "table", "png", "other grid"])
def test_a_mask_in_colours_is_what_its_ids_are(tmp_path, monkeypatch, kind):
    ids = np.where(blocks() == 255, 1, blocks())
    truth = np.where(blocks(3) == 255, 99, blocks(3)).astype(np.uint8)  # 99: an edge's colour
    unseen = np.zeros(ids.shape, bool)
    bare = {"transform": Affine.identity(), "crs": None}  # PNGs have neither
    path = make_map(tmp_path / "map.tif", ids, **(bare if kind == "png" else {}))
    place = {"transform": UTM @ Affine.translation(-3, 2) if kind == "other grid" else UTM}
    rgb = np.zeros((3, *ids.shape), np.uint8)
    for i, color in {**COLORS, 99: (1, 2, 3)}.items():
        rgb[:, truth == i] = np.array(color)[:, None]
    mask = tmp_path / ("mask.png" if kind == "png" else "mask.tif")
    if kind == "png":
        Image.fromarray(rgb.transpose(1, 2, 0)).save(mask)
    elif kind == "table":
        make_map(
            mask, truth, names={}, colors={i: (*c, 255) for i, c in COLORS.items()}, nodata=None
        )
    elif kind == "alpha":
        unseen[:5] = True
        make_raster(mask, rgb, alpha=np.where(unseen, 0, 255).astype(np.uint8), **place)
    else:
        make_raster(mask, rgb, **place)
    written = np.where(unseen, 255, truth).astype(np.uint8)
    plain = make_map(tmp_path / "ids.tif", written, **(bare if kind == "png" else place))
    expected = geoseg.evaluate(path, labels=plain, ignore=[99])
    done = geoseg.evaluate(path, labels=mask, colors=CLASSES)
    assert done.matrix.tolist() == expected.matrix.tolist() and done.matrix.trace() > 100
    assert done.report["counted"] == expected.report["counted"]
    assert done.report["counted"]["ignored"] > 100
    monkeypatch.setattr(geodesy, "CHUNK", 130)
    assert geoseg.evaluate(path, labels=mask, colors=CLASSES).report == done.report


def test_colours_that_say_no_class(tmp_path):
    path = make_map(tmp_path / "map.tif", blocks())
    mask = make_raster(tmp_path / "mask.tif", np.zeros((3, 40, 60), np.uint8), transform=UTM)
    vector = to_polygons(tmp_path / "l.gpkg", blocks())
    for labels, colors, options, kind, words in (
        (mask, ["water"], {}, UsageError, "give NAME=#RRGGBB"),
        (mask, ["water=#00F"], {}, UsageError, "give NAME=#RRGGBB"),
        (mask, ["sand=#0000FF"], {}, EvaluationError, "no class 'sand'; it has 1 water"),
        (mask, [*CLASSES, "trees=#0000FF"], {}, UsageError, "another class already"),
        (mask, CLASSES, {"ignore": [1]}, UsageError, "leave --points, --column and --ignore"),
        (mask, CLASSES, {}, EvaluationError, "no pixel has both .* 2400 are ignored"),
        (path, CLASSES, {}, UsageError, "1 bands of uint8; it must have red, green and blue"),
        (vector, CLASSES, {}, UsageError, "is a vector file"),
        (mask, [], {}, SceneError, "3 bands of uint8.*--class NAME=#RRGGBB"),
    ):
        with pytest.raises(kind, match=words):
            geoseg.evaluate(path, labels=labels, colors=colors, **options)


# Borders


def test_borders_have_a_tolerance_in_metres(tmp_path):
    ids = np.full((20, 20), 1)
    ids[:, 10:] = 3
    moved = np.full((20, 20), 1)
    moved[:, 12:] = 3
    path = make_map(tmp_path / "map.tif", ids)
    labels = make_map(tmp_path / "l.tif", moved)
    # UTM is some 1.0004 m a metre here: 20.5 m reach two pixels, 19 do not.
    for tolerance, f1 in ((None, 1.0), (19, 0.0), (20.5, 1.0)):
        report = geoseg.evaluate(path, labels=labels, boundary_tolerance=tolerance).report
        assert report["measures"]["mean_boundary_f1"] == f1
    assert report["classes"][0]["mapped_border_pixels"] == 20
    assert report["classes"][2]["boundary_f1"] is None
    bare = make_map(tmp_path / "bare.tif", ids, crs=None)
    assert "boundaries" not in geoseg.evaluate(bare, labels=bare).report
    with pytest.raises(UsageError, match="no CRS that gives metres"):
        geoseg.evaluate(bare, labels=bare, boundary_tolerance=5)


def test_a_tolerance_beyond_the_map_is_refused_before_rows_are_listed(tmp_path, monkeypatch):
    path = make_map(tmp_path / "map.tif", np.ones((3, 4)))  # 30 m x 40 m
    made = []
    monkeypatch.setattr("geoseg.evaluation.by_labels.Boundaries", lambda *args: made.append(args))
    with pytest.raises(UsageError, match=r"1e\+09 m and .*map.tif measures \S+ m from corner"):
        geoseg.evaluate(path, labels=path, boundary_tolerance=1e9)
    assert not made
    monkeypatch.undo()
    report = geoseg.evaluate(path, labels=path, boundary_tolerance=49).report
    assert report["boundaries"] == {"tolerance_m": 49}


def test_where_map_or_labels_say_nothing_there_is_no_border(tmp_path):
    ids = np.full((20, 20), 1)
    ids[:, 10:] = 3
    known = np.full((20, 20), 1)
    known[:, 9:] = 255
    for one, two in ((ids, known), (known, ids)):
        path = make_map(tmp_path / "map.tif", one)
        labels = make_map(tmp_path / "l.tif", two)
        report = geoseg.evaluate(path, labels=labels).report
        for entry in report["classes"]:
            assert entry["mapped_border_pixels"] == entry["labelled_border_pixels"] == 0
        assert report["measures"]["mean_boundary_f1"] is None


# Probabilities


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("named", ["tags", "names"])
def test_probabilities_are_judged_at_the_mapped_class(tmp_path, dtype, named):
    ids = blocks()
    path = make_map(tmp_path / "map.tif", ids)
    labels = other(ids)
    order = (7, 1, 3)
    extra = {"tags": {"GEOSEG_CLASSES": json.dumps({i: NAMES[i] for i in order})}}
    if named == "tags":
        extra["descriptions"] = ["a", "b", "c"]
    else:
        extra = {}
    probs, values, valid = make_probs(tmp_path / "p.tif", ids, dtype=dtype, order=order, **extra)
    done = geoseg.evaluate(path, labels=make_map(tmp_path / "l.tif", labels), probs=probs)
    both = valid & (labels != 255)
    seen = values[:, both]
    if dtype == "uint8":
        seen = np.rint(seen * 254) / 254
    best, right = seen.max(axis=0), (ids == labels)[both]
    found = done.report["calibration"]
    assert found["pixels"] == both.sum() == sum(b["pixels"] for b in found["bins"])
    place = (np.ceil(best.astype(np.float32) * 15) - 1).clip(0, 14)
    gaps = [
        (abs(right[place == k].mean() - best[place == k].mean()), (place == k).sum())
        for k in range(15)
        if (place == k).any()
    ]
    assert found["ece"] == pytest.approx(sum(g * n for g, n in gaps) / both.sum(), abs=1e-3)
    truth = np.stack([labels[both] == i for i in order])
    assert found["brier"] == pytest.approx(((seen - truth) ** 2).sum(axis=0).mean(), rel=1e-5)
    assert done.report["measures"]["ece"] == found["ece"]


def test_probabilities_that_are_not_the_maps(tmp_path):
    ids = blocks()
    path = make_map(tmp_path / "map.tif", ids)
    wrong, _, _ = make_probs(tmp_path / "other.tif", np.where(ids == 255, 255, blocks(3)))
    assert any(
        "not the most probable" in w
        for w in geoseg.evaluate(path, labels=path, probs=wrong).warnings
    )
    moved, _, _ = make_probs(tmp_path / "moved.tif", ids, transform=UTM @ Affine.translation(1, 0))
    few, _, _ = make_probs(tmp_path / "few.tif", ids, order=(1, 3))
    nines = np.full((3, 40, 60), 9, np.uint8)
    scene = make_raster(tmp_path / "s.tif", nines, descriptions=list(NAMES.values()), transform=UTM)
    for probs, words in (
        (moved, "must lie on the map's own pixels"),
        (few, "one band for each"),
        (scene, "holds 9 to 9; probabilities are 0 to 1"),
    ):
        with pytest.raises(EvaluationError, match=words):
            geoseg.evaluate(path, labels=path, probs=probs)
    with pytest.raises(SceneError, match="no such file"):
        geoseg.evaluate(path, labels=path, probs=tmp_path / "none.tif")


# Models


def linear_model(folder, factor=1.0, **card):
    """Logistic regression by least squares on the example scene, made too sure by a factor."""
    with rasterio.open(EXAMPLES / "landsat7_nc_2000.tif") as dataset:
        pixels = dataset.read().astype(np.float64)
        seen = (dataset.read_masks() > 0).all(axis=0)
    with rasterio.open(EXAMPLES / "landsat7_nc_2000_labels.tif") as dataset:
        labels = dataset.read(1)
    seen &= labels > 0
    mean, spread = pixels[:, seen].mean(axis=1), pixels[:, seen].std(axis=1)
    x = ((pixels[:, seen].T - mean) / spread).astype(np.float32)
    y = labels[seen].astype(np.int64) - 1
    features = np.column_stack((x, np.ones(len(x))))
    weights = np.linalg.lstsq(features, np.eye(7)[y], rcond=None)[0] * 4 * factor
    net = create_model("linear", in_channels=6, classes=7)
    with torch.no_grad():
        net.head.weight.copy_(torch.from_numpy(weights[:6].T[..., None, None]))
        net.head.bias.copy_(torch.from_numpy(weights[6]))
    names = ["developed", "agriculture", "herbaceous", "shrubland", "forest", "water", "sediment"]
    info = card_module.ModelCard(
        name="a-linear-model",
        description="made for a test",
        network="linear",
        bands=("blue", "green", "red", "nir", "swir1", "swir2"),
        classes=tuple(ClassInfo(i, n, f"#{i * 1000:06X}") for i, n in enumerate(names, 1)),
        gsd=28.5,
        gsd_range=(20.0, 40.0),
        quantity="number",
        normalization=Normalization("z-score", {"mean": tuple(mean), "stddev": tuple(spread)}),
        size=512,
        overlap=0,
        license="Apache-2.0",
        **card,
    )
    save_model(info, net.eval(), folder)
    return folder


LABELS = {"labels": EXAMPLES / "landsat7_nc_2000_labels.tif", "ignore": [0], "device": "cpu"}
SCENE = EXAMPLES / "landsat7_nc_2000.tif"


@pytest.fixture
def model(tmp_path):
    return linear_model(tmp_path / "model", factor=3.0)


def test_a_model_is_judged_as_its_map_is(tmp_path, model):
    geoseg.predict(
        SCENE,
        tmp_path / "m.tif",
        model=model,
        no_vector=True,
        probs=tmp_path / "p.tif",
        probs_dtype="float32",
        device="cpu",
    )
    events = []
    done = geoseg.evaluate(model, scene=SCENE, **LABELS, progress=events.append)
    again = geoseg.evaluate(
        tmp_path / "m.tif", labels=LABELS["labels"], ignore=[0], probs=tmp_path / "p.tif"
    )
    report = done.report
    assert done.matrix.tolist() == again.matrix.tolist()
    for key in ("measures", "classes", "counted", "boundaries", "counts"):
        assert report[key] == again.report[key]
    assert report["model"]["sha256"] == geoseg.load_model(model).sha256
    assert report["speed"]["mpx_s"] > 0 and "forward" in report["speed"]["seconds"]
    assert report["map"] == "a-linear-model on landsat7_nc_2000.tif"
    assert report["measures"]["pixel_accuracy"] > 0.6
    assert {e["event"] for e in events} == {"start", "progress"}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "m.json",
        "m.qml",
        "m.tif",
        "model",
        "p.tif",
    ]


def test_a_temperature_that_is_written_is_the_right_one(tmp_path, model):
    before = geoseg.load_model(model)
    first = geoseg.evaluate(model, scene=SCENE, **LABELS, write_temperature=True, write_card=True)
    fitted = first.report["calibration"]["temperature"]
    assert fitted["value"] > 1.5 and fitted["ece_after"] < fitted["ece_before"] / 2
    card = geoseg.load_model(model).card
    assert card.temperature == fitted["value"] and card.classes == before.card.classes
    second = geoseg.evaluate(model, scene=SCENE, **LABELS, write_temperature=True)
    # No label has changed, the probabilities are those that were foretold, and nothing is left.
    assert second.matrix.tolist() == first.matrix.tolist()
    now = second.report["calibration"]
    assert now["ece"] == pytest.approx(fitted["ece_after"], abs=1e-4)
    # Probabilities below 1e-12 counted as that the first time.
    assert now["nll"] == pytest.approx(fitted["nll_after"], abs=2e-3)
    assert now["temperature"]["value"] == pytest.approx(1, abs=1e-2)
    card = geoseg.load_model(model).card
    assert card.temperature == pytest.approx(fitted["value"], rel=1e-2)
    assert geoseg.load_model(model).weights == before.weights


def test_scores_in_the_card_are_the_same_each_time(tmp_path, model):
    texts = []
    for _ in range(2):
        geoseg.evaluate(model, scene=SCENE, **LABELS, write_card=True)
        texts.append((model / "model.json").read_text())
    assert texts[0] == texts[1]
    ((name, entry),) = geoseg.load_model(model).card.scores["evaluations"].items()
    assert name == "landsat7_nc_2000.tif with landsat7_nc_2000_labels.tif"
    assert entry["scene"] == "landsat7_nc_2000.tif"
    assert set(entry["iou"]) == {c.name for c in geoseg.load_model(model).card.classes}
    assert "ece" in entry["calibration"] and "mpx_s" not in texts[0]
    assert geoseg.load_model(model).card.temperature == 1.0


def test_points_judge_a_model_too(tmp_path, model):
    geoseg.predict(SCENE, tmp_path / "m.tif", model=model, no_vector=True, device="cpu")
    drawn = geoseg.sample(tmp_path / "m.tif", count=60).points
    drawn["reference"] = drawn["class_name"]
    drawn.to_file(tmp_path / "p.gpkg")
    done = geoseg.evaluate(
        model,
        scene=SCENE,
        points=tmp_path / "p.gpkg",
        device="cpu",
        write_card=True,
        html=tmp_path / "p.html",
    )
    assert done.report["overall_accuracy"]["value"] == 1.0
    entry = geoseg.load_model(model).card.scores["evaluations"]["landsat7_nc_2000.tif with p.gpkg"]
    assert entry["overall_accuracy"]["value"] == 1.0 and "calibration" not in entry
    assert "Overall accuracy 1.0000" in Page((tmp_path / "p.html").read_text()).words


def test_a_failed_run_leaves_card_and_folder_as_they_were(tmp_path, model):
    before = (model / "model.json").read_bytes()
    (tmp_path / "r.json").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        geoseg.evaluate(model, scene=SCENE, **LABELS, write_card=True, json=tmp_path / "r.json")
    bad = make_map(tmp_path / "bad.tif", [[1]])
    with pytest.raises(EvaluationError, match="no pixel has both"):
        geoseg.evaluate(model, scene=SCENE, labels=bad, device="cpu", write_card=True)
    assert (model / "model.json").read_bytes() == before
    assert sorted(p.name for p in model.iterdir()) == ["model.json", "weights.safetensors"]


def test_a_full_temporary_folder_is_named(tmp_path, model, monkeypatch):
    monkeypatch.setattr("geoseg.core.staging.Staging.free_bytes", lambda self: 10)
    with pytest.raises(OutputError, match=r"temporary folder .*set TMPDIR to a folder with more"):
        geoseg.evaluate(model, scene=SCENE, **LABELS)


def test_what_a_model_can_not_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_map("map.tif", [[1]])
    tiny_model(Path("soft"), ("red",), ("a", "b"))
    tiny_model(Path("sigmoid"), ("red",), ("a", "b"), activation="sigmoid")
    labels = {"labels": "map.tif"}
    for raster, options, words in (
        ("soft", labels, "is a model, not a map; say with --scene"),
        ("landcover-ms", labels, "is a model, not a map"),
        ("map.tif", {**labels, "scale": 2.0}, "--scale says how a model reads"),
        ("map.tif", {**labels, "write_card": True}, "--write-card writes into a model's card"),
        ("soft", {**labels, "scene": "map.tif", "probs": "p.tif"}, "at hand"),
        ("landcover-ms", {**labels, "scene": "map.tif", "write_card": True}, "embedded model"),
        ("sigmoid", {**labels, "scene": "map.tif", "write_temperature": True}, "is sigmoid"),
        ("soft", {"points": "p", "scene": "map.tif", "write_temperature": True}, "needs --labels"),
        ("map.tif", {"points": "p", "boundary_tolerance": 3}, "is for labels"),
        ("map.tif", {**labels, "boundary_tolerance": -3}, "at least 0"),
        ("soft", {**labels, "scene": "s.tif", "html": "soft/a.html"}, "is an input"),
        ("soft", {**labels, "scene": "s.tif", "html": "s.tif"}, "is an input"),
    ):
        with pytest.raises(UsageError, match=words):
            geoseg.evaluate(raster, **options)


# The page


class Page(html.parser.HTMLParser):
    """What a page holds: its words, pictures and references."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.pictures, self.references = [], [], [], []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "src" and value.startswith("data:image/png;base64,"):
                self.pictures.append(Image.open(io.BytesIO(base64.b64decode(value[22:]))))
                self.pictures[-1].load()
            elif name in ("src", "href", "srcset", "action", "background", "data"):
                self.references.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_the_page_holds_all_and_refers_to_nothing(tmp_path):
    ids = blocks()
    colors = {1: (10, 20, 30, 255), 3: (40, 50, 60, 255), 7: (70, 80, 90, 255)}
    names = {1: "water", 3: "<b>trees & co</b>", 7: "crops"}
    path = make_map(tmp_path / "map.tif", ids, names=names, colors=colors)
    labels = other(ids)
    probs, _, _ = make_probs(
        tmp_path / "p.tif", ids, tags={"GEOSEG_CLASSES": json.dumps({i: "x" for i in names})}
    )
    raster = make_map(tmp_path / "l.tif", labels, names=names)
    done = geoseg.evaluate(path, labels=raster, probs=probs, html=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert not page.open and not page.references
    assert not {"script", "link", "iframe", "b"} & set(page.tags)
    assert "http" not in text and "url(" not in text
    assert "<b>trees & co</b>" in page.words and "nan" not in page.words.casefold()
    for value in done.report["measures"].values():
        assert f"{value:.4f}" in page.words
    mapped, truth, agree, diagram = page.pictures
    assert mapped.size == truth.size == agree.size == (60, 40) and min(diagram.size) > 300
    rgba = np.asarray(mapped.convert("RGBA"))
    for i, color in colors.items():
        assert (rgba[ids == i] == color).all()
    assert (rgba[ids == 255, 3] == 0).all()
    assert (np.asarray(truth.convert("RGBA"))[labels == 3, :3] == colors[3][:3]).all()
    both = (ids != 255) & (labels != 255)
    same = np.asarray(agree.convert("RGBA"))
    assert (same[~both, 3] == 0).all()
    assert len(np.unique(same[both & (ids == labels)], axis=0)) == 1
    assert len(np.unique(same[both], axis=0)) == 2


@pytest.mark.parametrize("shape", [(2500, 30), (30, 2500), (901, 5), (1, 1)])
def test_pictures_of_large_maps_are_small(tmp_path, monkeypatch, shape):
    ids = np.random.default_rng(0).choice([1, 3, 7], shape).astype(np.uint8)
    path = make_map(tmp_path / "map.tif", ids)
    sizes = []
    for chunk in (1 << 20, shape[1] * 7):
        monkeypatch.setattr(geodesy, "CHUNK", chunk)
        geoseg.evaluate(path, labels=path, html=tmp_path / "r.html", overwrite=True)
        mapped = np.asarray(Page((tmp_path / "r.html").read_text()).pictures[0].convert("RGBA"))
        assert max(mapped.shape[:2]) <= 900 and (mapped[..., 3] == 255).all()
        sizes.append(mapped)
    np.testing.assert_array_equal(*sizes)


# The command line


def run(*args, cwd):
    return forked.run([sys.executable, "-m", "geoseg", *args], cwd=cwd)


def test_a_model_on_the_command_line(tmp_path, model):
    args = ("evaluate", "model", "--scene", SCENE, "--labels", LABELS["labels"], "--ignore", 0)
    outputs = ("--json", "r.json", "--csv", "r.csv", "--html", "r.html", "--write-card")
    result = run(*args, *outputs, "--device", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for words in ("Mpx/s on cpu", "border f1", "with temperature", "r.html", "card was written"):
        assert words in result.stdout
    text = (tmp_path / "r.json").read_text()
    report = json.loads(text, parse_constant=pytest.fail)  # of NaN and Infinity
    assert ",,ece," in (tmp_path / "r.csv").read_text()
    assert "evaluations" in (tmp_path / "model" / "model.json").read_text()
    assert report["calibration"]["bins"][0]["accuracy"] is None
    refused = run("evaluate", "landcover-ms", "--labels", "x.tif", cwd=tmp_path)
    assert refused.returncode == 2 and "say with --scene" in refused.stderr


def test_polygons_on_the_command_line(tmp_path):
    ids = blocks()
    make_map(tmp_path / "map.tif", ids)
    to_polygons(tmp_path / "l.gpkg", ids)
    result = run(
        *("evaluate", "map.tif", "--labels", "l.gpkg", "--column", "kind"),
        *("--ignore", "Crops", "--csv", "r.csv"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "polygons right         1.0000" in result.stdout
    assert "3,trees,polygons_right,1.0,,," in (tmp_path / "r.csv").read_text().splitlines()
    lost = run("evaluate", "map.tif", "--labels", "l.gpkg", cwd=tmp_path)
    assert lost.returncode == 2 and "which of kind holds the class" in lost.stderr
