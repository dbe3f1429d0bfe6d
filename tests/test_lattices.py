"""Lattices: found where they were laid, at the right axis, period and phase, and nowhere else."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from scipy.ndimage import gaussian_filter

import geoseg
from benchmarks.lattices import copied_rows, cuts, searched, touched_lines, wrong_rows
from geoseg.cli import main
from geoseg.evaluation import lattice
from geoseg.evaluation.lattice import find_lattices, tally
from geoseg.geo.geodesy import GroundGrid
from tests.helpers import make_raster

SCENE = Path(__file__).parents[1] / "examples" / "landsat7_nc_2000.tif"


@pytest.fixture(scope="module")
def labels():
    """People's labels of the example scene: a real map that has no lattice."""
    with rasterio.open(SCENE.with_name("landsat7_nc_2000_labels.tif")) as dataset:
        return dataset.read(1), dataset.read_masks(1) != 0


@pytest.fixture(scope="module")
def houses(shared):
    """People's labels of Dubai, 1600 x 1500 px, which have no lattice either."""
    parts = sorted((shared / "data/dubai/tile_2/masks").glob("*.png"))
    values = [np.asarray(Image.open(part).convert("RGB")) for part in parts]
    mosaic = np.vstack([np.hstack(values[row : row + 3]) for row in (0, 3, 6)])
    colours = [(60, 16, 152), (132, 41, 246), (110, 193, 228), (254, 221, 58), (226, 169, 41)]
    far = [np.abs(mosaic.astype(np.int16) - colour).sum(axis=-1) for colour in colours]
    return np.argmin(far, axis=0).astype(np.uint8), np.ones(mosaic.shape[:2], bool)


def told(ids, valid):
    """What is found: axis, kind, period and phase, the likeliest of each first."""
    return [
        (*key, found.period, found.phase)
        for key, search in searched(ids, valid).items()
        for found in search.lattices
    ]


def turned(axis, *arrays):
    return arrays if axis == "rows" else [array.T for array in arrays]


def lay(how, ids, axis, period, phase, share, part, seed=0):
    """Lay a lattice into a map."""
    random = np.random.default_rng(seed)
    (ids,) = turned(axis, ids)
    rows = touched_lines(len(ids), period, phase, share, random)
    return turned(axis, how(ids, rows, part, random))[0], len(rows)


# What is counted


def test_pairs_and_pixels_that_stand_alone_are_counted():
    random = np.random.default_rng(0)
    ids, valid = random.integers(0, 3, (13, 9)), random.random((13, 9)) < 0.8
    changes, pairs, alone, triples = tally(ids, valid)
    for k in range(1, 13):
        there = [c for c in range(9) if valid[k, c] and valid[k - 1, c]]
        assert pairs[k - 1] == len(there)
        assert changes[k - 1] == sum(ids[k, c] != ids[k - 1, c] for c in there)
    for k in range(1, 12):
        there = [c for c in range(9) if valid[k - 1 : k + 2, c].all()]
        assert triples[k - 1] == len(there)
        assert alone[k - 1] == sum(ids[k - 1, c] == ids[k + 1, c] != ids[k, c] for c in there)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_strips_change_nothing(labels, tmp_path, monkeypatch, rows):
    ids, _ = lay(wrong_rows, labels[0], "rows", 8, 3, 1, 0.2)
    raster = make_raster(tmp_path / "map.tif", ids[None])
    whole = geoseg.check_seams(raster).report["lattice"]
    found = searched(ids, np.ones(ids.shape, bool))
    for (axis, kind), search in found.items():
        assert whole[axis][kind]["p_value"] == search.p_value
        assert [entry["phase"] for entry in whole[axis][kind]["lattices"]] == [
            entry.phase for entry in search.lattices
        ]
    monkeypatch.setattr(
        GroundGrid,
        "strips",
        lambda self: ((t, min(t + rows, self.height)) for t in range(0, self.height, rows)),
    )
    assert geoseg.check_seams(raster).report["lattice"] == whole


# Lattices that are there


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize("period", [2, 3, 4, 7, 8, 16, 32, 64])
@pytest.mark.parametrize("how", [wrong_rows, cuts])
def test_a_lattice_of_all_its_lines_is_found(labels, how, period, axis):
    """Three in ten pixels are wrong, or cut off from the row above."""
    phase = period - 1
    ids, _ = lay(how, labels[0], axis, period, phase, 1, 0.3)
    found = told(ids, labels[1])
    kind = "alone" if how is wrong_rows else "lines"
    assert (axis, kind, period, phase) in found
    # Neither a harmonic nor the other axis.
    assert {(there, length) for there, _, length, _ in found} == {(axis, period)}


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize("period", [4, 8, 16, 32, 64, 128, 256])
def test_one_row_in_a_hundred_is_enough(houses, period, axis):
    """Of a lattice's lines some are touched, together 1 % of all; of long periods one a period."""
    ids, valid = houses
    phase = period // 3
    ids, touched = lay(wrong_rows, ids, axis, period, phase, 0.01, 0.3)
    assert touched <= 0.01 * max(ids.shape) + 1
    assert (axis, "alone", period, phase) in told(ids, valid)


@pytest.mark.parametrize("period", [2, 3])
def test_short_periods_need_more_rows(houses, period):
    """Sixteen rows are all even in one of 65,536 cases / 2, and there are many periods."""
    ids, valid = houses
    found = told(lay(wrong_rows, ids, "rows", period, 1, 0.02, 0.3)[0], valid)
    assert ("rows", "alone", period, 1) in found


def test_a_weak_lattice_is_found_by_all_of_its_lines(labels):
    """No line stands out by itself: 2 % of its pixels are cut off."""
    ids, _ = lay(cuts, labels[0], "rows", 4, 2, 1, 0.02)
    assert told(ids, labels[1]) == [("rows", "lines", 4, 2)]


def smooth(random, length):
    """Neighbouring lines are so much alike that every other one hardly differs by chance."""
    return 150 * np.exp(gaussian_filter(random.normal(size=length), 1.5))


def uneven(random, length):
    """A town, in which lines differ by hundreds, and plains, where the lattice shows."""
    town = np.arange(length) < length // 3
    return np.where(town, 500 * np.exp(0.5 * random.normal(size=length)), 30)


@pytest.mark.parametrize(("mean", "period", "more"), [(smooth, 2, 20), (uneven, 4, 12)])
def test_lines_are_compared_with_what_is_usual_around_them(mean, period, more):
    random = np.random.default_rng(2)
    lines = np.arange(300)
    hits = 0
    for _ in range(10):
        changes = np.minimum(random.poisson(mean(random, 300)), 3000)
        changes[lines % period == 1] += more
        found = find_lattices(changes, np.full(300, 4000)).lattices
        hits += [(entry.period, entry.phase) for entry in found[:1]] == [(period, 1)]
    assert hits >= 8


def test_lines_that_change_less_are_a_lattice(houses):
    """Rows that were copied from those above."""
    ids, valid = houses
    ids = np.where(np.random.default_rng(0).random(ids.shape) < 0.02, 1, ids)  # as of pixels
    found = searched(lay(copied_rows, ids, "rows", 10, 4, 1, 1)[0], valid)
    (first, *_) = found["rows", "lines"].lattices
    assert (first.period, first.phase, first.share) == (10, 4, 0)
    assert first.p_value < 1e-6


def test_a_few_lines_that_change_less_are_a_lattice():
    """One in a hundred is a copy, and all of them lie on one lattice."""
    random = np.random.default_rng(0)
    changes = random.poisson(60, 1000)
    changes[random.choice(np.arange(3, 1000, 10), 10, replace=False)] = 0
    (found,) = find_lattices(changes, np.full(1000, 2000)).lattices
    assert (found.period, found.phase) == (10, 3)
    assert found.share < found.elsewhere


def test_every_other_line_is_not_taken_for_usual():
    """Of 33 lines 17 have one parity: their median would be that of this parity alone."""
    changes = np.tile([5, 80], 150) + np.random.default_rng(0).integers(0, 3, 300)
    (found,) = find_lattices(changes, np.full(300, 2000)).lattices
    assert (found.period, found.phase) == (2, 1)
    assert found.p_value < 1e-40


def test_the_strength_is_the_share_that_changes(labels):
    ids = labels[0]
    laid, _ = lay(cuts, ids, "rows", 16, 5, 1, 0.25)
    (found,) = searched(laid, labels[1])["rows", "lines"].lattices
    changes, pairs, *_ = tally(laid, labels[1])
    on = np.arange(1, len(laid)) % 16 == 5
    assert found.share == pytest.approx(changes[on].sum() / pairs[on].sum())
    assert found.elsewhere == pytest.approx(changes[~on].sum() / pairs[~on].sum())
    assert found.share - found.elsewhere == pytest.approx(0.25, abs=0.03)
    assert found.lines == (pairs[on] > 0).sum()


def test_two_lattices_are_both_found_and_no_multiple_of_them(houses):
    ids, valid = houses
    ids, _ = lay(cuts, ids, "rows", 2, 0, 1, 0.05)
    ids, _ = lay(wrong_rows, ids, "rows", 48, 7, 1, 0.5)
    found = told(ids, valid)
    assert ("rows", "lines", 2, 0) in found and ("rows", "alone", 48, 7) in found
    assert {period for *_, period, _ in found} == {2, 48}


def test_a_gap_without_classes_does_not_shift_the_phase(labels):
    ids, _ = lay(wrong_rows, labels[0], "rows", 16, 9, 1, 0.3)
    valid = labels[1].copy()
    valid[100:131] = False
    assert ("rows", "alone", 16, 9) in told(ids, valid)


# None where there is none


def ground(random, length):
    """Changes as of ground, and no lattice: neighbours are alike, towns and lakes, roads."""
    height = gaussian_filter(random.normal(size=length), 1.5) * 2
    town = np.exp(gaussian_filter(random.normal(size=length), 25) * 8)
    mean = 60 * town * np.exp(0.4 * height) + 2
    roads = random.random(length) < 0.02
    mean = random.gamma(20, mean / 20) * np.where(roads, 3, 1)
    return np.minimum(random.poisson(mean), 4000)


def test_autocorrelated_ground_is_no_lattice():
    """The level holds: where chance gives a lattice in at most one map in a hundred."""
    random = np.random.default_rng(5)
    pairs = np.full(220, 4000)
    p_values = np.array([find_lattices(ground(random, 220), pairs).p_value for _ in range(250)])
    assert np.mean(p_values < lattice.LEVEL) <= 0.01
    assert np.mean(p_values < 0.1) <= 0.1
    assert np.mean(p_values < 0.9) > 0.2  # no level is kept by never saying anything


def windows(ids, valid, count, seed):
    """Parts of a map, 200 to 1000 px a side; benchmarks/lattices.py looks at hundreds more."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        height, width = (int(random.integers(200, min(1000, n) + 1)) for n in ids.shape)
        top = int(random.integers(ids.shape[0] - height + 1))
        left = int(random.integers(ids.shape[1] - width + 1))
        there = slice(top, top + height), slice(left, left + width)
        yield ids[there], valid[there]


def test_labels_of_the_example_scene_have_no_lattice(labels):
    assert told(*labels) == []
    assert [found for part in windows(*labels, 15, 0) if (found := told(*part))] == []


@pytest.fixture(scope="module")
def vegetation(shared):
    """A Sentinel-2 scene in five classes of its pixels' vegetation index."""
    (folder,) = shared.glob("data/sentinel2/majortom/S2*")
    red, nir = (
        rasterio.open(next(folder.glob(f"*{band}*.tif"))).read(1).astype(float)
        for band in ("B04", "B08")
    )
    index = (nir - red) / (nir + red + 1)
    ids = np.digitize(index, np.quantile(index, [0.2, 0.4, 0.6, 0.8])).astype(np.uint8)
    return ids, np.ones(ids.shape, bool)


def test_real_maps_give_at_most_one_false_alarm_in_a_hundred(labels, houses, vegetation):
    parts = [
        part
        for ids, valid in (labels, houses, vegetation)
        for part in ((ids, valid), *windows(ids, valid, 33, 1))
    ]
    alarms = [found for part in parts if (found := told(*part))]
    assert len(alarms) <= 0.01 * len(parts), alarms


def test_maps_of_geoseg_have_none_but_that_of_their_network(tmp_path):
    """landcover-ms computes at half of the scene's resolution: every other line changes more."""
    raster = geoseg.predict(SCENE, tmp_path / "map.tif", no_vector=True, threads=1).raster
    with rasterio.open(raster) as dataset:
        ids, valid = dataset.read(1), dataset.read_masks(1) != 0
    for part in [(ids, valid), *windows(ids, valid, 15, 0)]:
        assert {period for *_, period, _ in told(*part)} <= {2}


def test_a_straight_border_is_no_lattice():
    """It climbs a pixel every 13 columns: one change more at each of them is no fault of a map."""
    row, column = np.indices((400, 500))
    ids = np.where(row > 100 + column / 13, 1, 0)
    ids[(row - 250) ** 2 + (column - 250) ** 2 < 90**2] = 2
    assert told(ids, np.ones(ids.shape, bool)) == []


# Unknown


def test_too_few_lines_or_changes_are_unknown(tmp_path, labels):
    ids, valid = labels
    found = searched(ids[:30, :100], valid[:30, :100])
    assert found["rows", "lines"].longest <= 29 // 4
    assert found["columns", "lines"].longest <= 99 // 4
    plain = np.zeros((1, 300, 300), np.uint8)
    plain[0, 100:105, 100:105] = 1
    found = geoseg.check_seams(make_raster(tmp_path / "plain.tif", plain))
    assert found.verdict == "unknown" and "larger map" in found.message
    assert found.report["lattice"]["p_value"] is None
    assert found.report["lattice"]["rows"]["lines"]["periods"] is None


def test_longer_periods_than_are_known_are_not_denied(tmp_path, labels):
    found = geoseg.check_seams(make_raster(tmp_path / "map.tif", labels[0][None, :300, :280]))
    assert found.verdict == "none"
    assert "2 to 69 px between columns" in found.message
    assert "2 to 74 px between rows" in found.message
    assert "other periods are unknown" in found.message


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 3), (3, 1)])
def test_tiny_maps_are_unknown(tmp_path, shape):
    raster = make_raster(tmp_path / "tiny.tif", np.ones((1, *shape), np.uint8))
    assert geoseg.check_seams(raster).verdict == "unknown"


# The command


def test_check_seams_tells_a_lattice_of_any_map(tmp_path, labels, capsys):
    ids, _ = lay(wrong_rows, labels[0], "columns", 8, 3, 1, 0.3)
    raster = make_raster(tmp_path / "map.tif", ids[None])
    found = geoseg.check_seams(raster)
    assert found.verdict == "lattice" and "a lattice of 8 px" in found.message
    assert "columns" in found.message and "numbers 3, 11, ..." in found.message
    json.dumps(found.report, allow_nan=False)
    with pytest.raises(SystemExit) as end:
        main(["check-seams", str(raster)])
    assert not end.value.code
    assert capsys.readouterr().out == found.message + "\n"
    with pytest.raises(SystemExit):
        main(["check-seams", str(raster), "--json"])
    report = json.loads(capsys.readouterr().out)
    (lattice,) = report["lattice"]["columns"]["alone"]["lattices"]
    assert (lattice["period"], lattice["phase"]) == (8, 3)
    assert lattice["excess"] == lattice["share"] - lattice["elsewhere"] > 0.2
    assert report["lattice"]["p_value"] < 1e-10


def test_a_lattice_changes_no_verdict_on_seams(tmp_path, labels, capsys):
    """With chips given, lines where they met are judged as ever, and the lattice beside them."""
    ids, _ = lay(wrong_rows, labels[0], "rows", 8, 3, 1, 0.3)
    raster = make_raster(tmp_path / "map.tif", ids[None])
    found = geoseg.check_seams(raster, size=100, overlap=0)
    assert found.verdict in ("none", "seams") and "lattice" not in found.message
    assert found.report["lattice"]["verdict"] == "lattice"
    with pytest.raises(SystemExit):
        main(["check-seams", str(raster), "--size", "100", "--overlap", "0"])
    *_, seams, last = capsys.readouterr().out.splitlines()
    assert seams == found.message and last == found.report["lattice"]["message"]
