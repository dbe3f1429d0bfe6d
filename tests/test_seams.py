import json
from itertools import pairwise

import numpy as np
import pytest
import rasterio
from scipy.ndimage import gaussian_filter

import geoseg
from geoseg.cards.files import read_model
from geoseg.cli import main
from geoseg.errors import SceneError, UsageError
from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.geodesy import GroundGrid
from geoseg.geo.window import Window
from tests.helpers import make_raster, tiny_model
from tests.oracles import OneHot

CLASSES = ("water", "trees", "crops", "built")


def landscape(height, width, seed=0):
    """A class map as of the ground, uint8 (1, H, W): patches of all shapes."""
    random = np.random.default_rng(seed)
    fields = [gaussian_filter(random.normal(size=(height, width)), 3) for _ in CLASSES]
    return np.argmax(fields, axis=0).astype(np.uint8)[None]


@pytest.fixture
def model(tmp_path):
    return tiny_model(tmp_path / "model", ("red",), CLASSES, margin=3)


def predicted(tmp_path, model, values, runtime=None, **options):
    scene = make_raster(tmp_path / "scene.tif", values, descriptions=("red",), nodata=200)
    return geoseg.predict(
        scene,
        tmp_path / "map.tif",
        model=model,
        runtime=runtime or OneHot(len(CLASSES)),
        no_vector=True,
        overwrite=True,
        **options,
    ).raster


def with_tags_of(path, raster, ids):
    """Other pixels under the tags of a map."""
    with rasterio.open(raster) as dataset:
        tags = dataset.tags()
    tags.pop("AREA_OR_POINT", None)
    return make_raster(path, ids, nodata=255, tags=tags)


def chips_of(raster):
    """Where a map's chips lay."""
    with rasterio.open(raster) as dataset:
        chips = json.loads(dataset.tags()["GEOSEG_CHIPS"])
    return ChipGrid(**{**chips, "ground": Window(**chips["ground"])})


def other_class(ids, where):
    return np.where(where, (ids + 1) % len(CLASSES), ids).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_a_map_without_seams_has_none(tmp_path, model, seed):
    raster = predicted(tmp_path, model, landscape(410, 390, seed), size=64, overlap=16)
    found = geoseg.check_seams(raster)
    assert found.verdict == "none", found.message
    assert found.report["chips"]["total"] > 40
    assert not any(
        axis[kind]["stands_out"]
        for axis in found.report["axes"].values()
        for kind in ("begins", "middle", "ends", "blend")
    )


@pytest.mark.parametrize("seed", range(3))
def test_lines_at_which_chips_disagree_are_told(tmp_path, model, seed):
    """Every other column of chips is wrong for a part of its pixels: a cut, and no blend."""
    values = landscape(410, 390, seed)
    raster = predicted(tmp_path, model, values, size=64, overlap=16)
    middles = [s + 8 for s in chips_of(raster).col_starts[1:]]
    odd = np.searchsorted(middles, np.arange(390), side="right") % 2 == 1
    rough = np.random.default_rng(seed).random((410, 1)) < 0.3
    ids = other_class(values, odd[None, None, :] & rough[None])
    found = geoseg.check_seams(with_tags_of(tmp_path / "seams.tif", raster, ids))
    assert found.verdict == "seams"
    assert "between columns" in found.message and "middle" in found.message
    columns, rows = (found.report["axes"][name] for name in ("columns", "rows"))
    assert columns["middle"]["stands_out"] and columns["middle"]["ratio"] > 1.5
    assert not columns["begins"]["stands_out"] and not columns["ends"]["stands_out"]
    assert not any(rows[kind]["stands_out"] for kind in ("begins", "middle", "ends", "blend"))


@pytest.mark.parametrize(("kind", "inset"), [("begins", 3), ("ends", 16 - 3)])
def test_chips_begin_and_end_at_their_margin(tmp_path, model, kind, inset):
    values = landscape(410, 390)
    raster = predicted(tmp_path, model, values, size=64, overlap=16)
    lines = [s + inset for s in chips_of(raster).row_starts[1:-1]]
    odd = np.searchsorted(lines, np.arange(410), side="right") % 2 == 1
    part = np.random.default_rng(0).random((1, 390)) < 0.3
    ids = other_class(values, (odd[:, None] & part)[None])
    found = geoseg.check_seams(with_tags_of(tmp_path / "seams.tif", raster, ids))
    told = [
        (name, k)
        for name, axis in found.report["axes"].items()
        for k in ("begins", "middle", "ends")
        if axis[k]["stands_out"]
    ]
    assert told == [("rows", kind)]


def test_a_blend_that_is_rougher_than_the_rest_is_told(tmp_path, model):
    """Labels that flip here and there wherever chips overlap, and no line."""
    values = landscape(410, 390)
    raster = predicted(tmp_path, model, values, size=64, overlap=16)
    shared = np.zeros(390, bool)
    for start in chips_of(raster).col_starts[1:-1]:
        shared[start + 3 : start + 13] = True
    speckle = np.random.default_rng(0).random((410, 390)) < 0.08
    ids = other_class(values, (speckle & shared)[None])
    found = geoseg.check_seams(with_tags_of(tmp_path / "seams.tif", raster, ids))
    assert found.report["axes"]["columns"]["blend"]["stands_out"]


def test_a_network_that_errs_at_its_chips_edges_is_told(tmp_path):
    """What predict really makes of it, without and with a margin."""

    class Errs(OneHot):
        def answer(self, pixels):
            right = super().answer(pixels).astype(np.float32)
            wrong = np.roll(right, 1, axis=1)
            edge = np.ones(right.shape[2:], bool)
            edge[3:-3, 3:-3] = False
            edge &= np.random.default_rng(0).random(edge.shape) < 0.7
            return np.where(edge, 50 * wrong, right)

    values = landscape(410, 390)
    for margin, verdict in ((0, "seams"), (3, "none")):
        model = tiny_model(tmp_path / f"model{margin}", ("red",), CLASSES, margin=margin)
        raster = predicted(tmp_path, model, values, Errs(4), size=64, overlap=16)
        # The scene's own edge is wrong in any case, and lies along all lines of the other axis.
        assert geoseg.check_seams(raster).verdict == verdict


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_every_pair_of_valid_neighbours_counts_once(tmp_path, monkeypatch, rows):
    ids = landscape(90, 70)
    ids[0, 20:33, 10:50] = 255
    ids[0, :, 60] = 255
    raster = make_raster(tmp_path / "map.tif", ids, nodata=255)
    monkeypatch.setattr(
        GroundGrid,
        "strips",
        lambda self: ((t, min(t + rows, self.height)) for t in range(0, self.height, rows)),
    )
    report = geoseg.check_seams(raster, size=32, overlap=8).report
    values = ids[0].astype(int)
    for name, table, starts in (
        ("columns", values.T, [0, 24, 48]),
        ("rows", values, [0, 24, 48, 72]),
    ):
        a, b = table[:-1], table[1:]
        both = (a != 255) & (b != 255)
        changes, pairs = ((a != b) & both).sum(axis=1), both.sum(axis=1)  # line k is at k - 1
        groups = {"begins": [], "middle": [], "ends": [], "blend": []}
        for before, after in pairwise(starts):
            end = before + 32
            groups["begins"].append(after)
            groups["middle"].append((after + end) // 2)
            groups["ends"].append(end)
            groups["blend"] += range(after, end + 1)
        blend = sorted(set(groups["blend"]))
        groups["interior"] = [k for k in range(1, len(table)) if k not in blend]
        for kind, lines in groups.items():
            at = np.array(sorted({k for k in lines if k < len(table)})) - 1
            share = changes[at].sum() / pairs[at].sum()
            assert report["axes"][name][kind]["share"] == pytest.approx(share), (name, kind)
            assert report["axes"][name][kind]["lines"] == (pairs[at] > 0).sum()
        assert report["axes"][name]["seams"] == len(starts) - 1


def test_one_chip_has_no_seams_and_hardly_an_interior_tells_nothing(tmp_path, model):
    values = landscape(60, 50)
    found = geoseg.check_seams(predicted(tmp_path, model, values, size=64, overlap=16))
    assert found.verdict == "none" and "one chip" in found.message
    found = geoseg.check_seams(predicted(tmp_path, model, values, size=20, overlap=19))
    assert found.verdict == "unknown"


def test_a_single_class_with_a_wrong_chip_is_told(tmp_path):
    """Elsewhere nothing changes at all: there is no ratio, and no seam is missed for that."""
    ids = np.zeros((1, 100, 100), np.uint8)
    raster = make_raster(tmp_path / "plain.tif", ids, nodata=255)
    assert geoseg.check_seams(raster, size=50, overlap=0).verdict == "none"
    ids[0, :50, :50] = 1
    raster = make_raster(tmp_path / "seam.tif", ids, nodata=255)
    found = geoseg.check_seams(raster, size=50, overlap=0)
    assert found.verdict == "seams"
    assert found.report["axes"]["rows"]["middle"]["ratio"] is None
    json.dumps(found.report, allow_nan=False)


def test_where_chips_lay_must_be_known(tmp_path, model):
    values = landscape(100, 90)
    bare = make_raster(tmp_path / "bare.tif", values)
    found = geoseg.check_seams(bare)  # lattices need no chips
    assert found.report["chips"] is None and found.report["axes"] == {}
    assert found.verdict == found.report["lattice"]["verdict"] == "none"
    with pytest.raises(UsageError, match="go together"):
        geoseg.check_seams(bare, size=32)
    with pytest.raises(UsageError, match="overlap is 32"):
        geoseg.check_seams(bare, size=32, overlap=32)
    for text in ("{", "[]", "{}", '{"size": 0}'):
        broken = make_raster(tmp_path / "broken.tif", values, tags={"GEOSEG_CHIPS": text})
        with pytest.raises(UsageError, match="no chip grid"):
            geoseg.check_seams(broken)
    raster = predicted(tmp_path, model, values, size=32, overlap=8)
    part = with_tags_of(tmp_path / "part.tif", raster, values[:, 5:])
    with pytest.raises(UsageError, match=r"95x90 px.*100x90"):
        geoseg.check_seams(part)
    assert geoseg.check_seams(part, size=32, overlap=8).verdict in ("none", "unknown")
    with pytest.raises(SceneError):
        geoseg.check_seams(tmp_path / "none.tif")


def test_a_resampled_run_is_refused(tmp_path):
    model = tiny_model(tmp_path / "coarse", ("red",), CLASSES, gsd=20.0, gsd_range=(20.0, 40.0))
    assert read_model(model).card.gsd == 20.0
    raster = predicted(tmp_path, model, landscape(100, 90), size=32, overlap=8)
    with pytest.raises(UsageError, match="resampled"):
        geoseg.check_seams(raster)


def test_check_seams_from_the_command_line(tmp_path, model, capsys):
    raster = predicted(tmp_path, model, landscape(200, 190), size=64, overlap=16)
    with pytest.raises(SystemExit) as end:
        main(["check-seams", str(raster), "--json"])
    assert not end.value.code
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "none"
    assert report["chips"] == {"size": 64, "overlap": 16, "stride": 48, "margin": 3, "total": 25}
    with pytest.raises(SystemExit):
        main(["check-seams", str(raster)])
    out = capsys.readouterr().out
    assert "25 chips of 64 px, 48 px apart" in out and "no seams" in out
    with pytest.raises(SystemExit) as end:
        main(["check-seams", str(raster), "--size", "64"])
    assert end.value.code == 2
