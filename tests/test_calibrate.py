"""``geoseg models calibrate``: one temperature from scenes with labels, and what it is worth."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

import geoseg
from geoseg.cli import main
from geoseg.errors import EvaluationError, LabelError, UsageError
from geoseg.evaluation.calibrating import LEASTS, judged
from geoseg.evaluation.held_out import Sampled, read_held_out, sample_of
from tests.helpers import make_raster, tiny_model

UTM = "EPSG:32633"
CLASSES = ("water", "trees", "crops")
WHERE = Affine(10, 0, 500000, 0, -10, 5000000)


def scene(path: Path, seed: int, side: int = 60) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(0, 1, (3, side, side)).astype(np.float32)
    make_raster(path, values, crs=UTM, transform=WHERE, descriptions=("red", "green", "blue"))
    return values


def said(model: Path, path: Path) -> NDArray[np.float32]:
    out = path.parent / f"{path.stem}-said"
    out.mkdir()
    probs = out / "probs.tif"
    geoseg.predict(
        path, out / "map.tif", model=model, probs=probs, probs_dtype="float32", no_vector=True
    )
    import rasterio

    with rasterio.open(probs) as dataset:
        found: NDArray[np.float32] = dataset.read()
        return found


def truth_of(probs: NDArray[np.float32], temperature: float, seed: int) -> NDArray[np.uint8]:
    """Draw what is really there as if probabilities with a temperature were right."""
    logs = np.log(np.maximum(probs, 1e-12)) / temperature
    shares = np.exp(logs - logs.max(axis=0))
    shares /= shares.sum(axis=0)
    drawn = np.random.default_rng(seed).random(probs.shape[1:])
    return (drawn[None] > shares.cumsum(axis=0)).sum(axis=0).clip(0, 2).astype(np.uint8)


@pytest.fixture()
def listed(tmp_path: Path) -> tuple[Path, Path]:
    """A model that is too sure by half, and a list of four scenes; labels of each kind."""
    model = tiny_model(tmp_path / "model", ("red", "green", "blue"), CLASSES, size=32, overlap=8)
    lines = []
    for seed in range(4):
        path = tmp_path / f"s{seed}.tif"
        scene(path, seed)
        truth = truth_of(said(model, path), 2.0, seed)
        labels = tmp_path / f"l{seed}.tif"
        group = ("A", "B")[seed % 2]
        if seed == 1:
            # Other ids, and some that mean nothing.
            others = np.where(truth == 2, 9, truth + 5).astype(np.uint8)
            others[:5] = 77
            make_raster(labels, others[None], crs=UTM, transform=WHERE)
            how = f'labels = "{labels.name}"\nlabel_map = {{ 5 = "water", 6 = 1, 9 = "Crops" }}'
        elif seed == 2:
            rows, cols = (a.ravel() for a in np.mgrid[:60:2, :60])
            frame = geopandas.GeoDataFrame(
                {"cover": [CLASSES[i] for i in truth[rows, cols]]},
                geometry=geopandas.points_from_xy(500005 + 10 * cols, 4999995 - 10 * rows),
                crs=UTM,
            )
            frame.to_file(tmp_path / "points.gpkg")
            how = 'points = "points.gpkg"\ncolumn = "cover"'
        else:
            make_raster(labels, truth[None], crs=UTM, transform=WHERE)
            how = f'labels = "{labels.name}"'
        lines.append(f'[[scenes]]\nscene = "s{seed}.tif"\ngroup = "{group}"\n{how}\n')
    file = tmp_path / "held-out.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return model, file


def test_the_temperature_is_found_and_makes_probabilities_right(
    listed: tuple[Path, Path], capsys: Any
) -> None:
    model, file = listed
    heard: list[Any] = []
    done = geoseg.calibrate(model, file, progress=heard.append)
    report = done.report
    assert done.card.temperature == report["temperature"] == pytest.approx(2.0, rel=0.08)
    assert report["pixels"] == 3600 + 55 * 60 + 1800 + 3600
    assert {g: s["scenes"] for g, s in report["groups"].items()} == {"A": 2, "B": 2}
    assert report["ece"] < 0.03 < report["ece_before"]
    assert [e["done"] for e in heard] == [1, 2, 3, 4]
    assert done.written is None and geoseg.load_model(model).card.temperature == 1.0
    # Written, what was fitted is there, and fits: the next one finds nothing to change.
    with pytest.raises(SystemExit) as end:
        main(["models", "calibrate", str(model), str(file), "--write"])
    assert end.value.code == 0
    assert "was written" in capsys.readouterr().out
    card = geoseg.load_model(model).card
    assert card.temperature == pytest.approx(done.card.temperature, rel=1e-6)
    assert card.scores["calibration"]["groups"].keys() == {"A", "B"}
    again = geoseg.calibrate(model, file)
    assert again.card.temperature == pytest.approx(card.temperature, rel=1e-3)
    assert again.report["ece_before"] == pytest.approx(report["ece"], abs=0.01)


def a_sample(group: str, seed: int, temperature: float, pixels: int = 3000) -> Sampled:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet((0.5, 0.5, 0.5, 0.5), pixels).astype(np.float32).clip(1e-6)
    logs = np.log(probs / probs.sum(axis=1, keepdims=True))
    shares = np.exp(logs / temperature)
    shares /= shares.sum(axis=1, keepdims=True)
    truth = (rng.random((pixels, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    return Sampled(group, logs.astype(np.float32), truth.astype(np.int64))


def test_a_scene_has_no_say_in_what_it_is_judged_by() -> None:
    """One of three is far from the others: with its own temperature it would look better."""
    samples = [a_sample("a", 0, 1.0), a_sample("a", 1, 1.0), a_sample("b", 2, 4.0)]
    _, report = judged(samples)
    without, _ = judged(samples[:2])
    low, high = report["temperatures_apart"]
    assert low == pytest.approx(without)
    own = np.exp(samples[2].logs / without)
    own /= own.sum(axis=1, keepdims=True)
    best, right = own.max(axis=1), own.argmax(axis=1) == samples[2].truth
    place = np.ceil(best * 15).astype(int) - 1
    gaps = [abs((best - right)[place == k].sum()) for k in range(15)]
    assert report["groups"]["b"]["ece"] == pytest.approx(sum(gaps) / len(best), abs=1e-6)
    assert report["groups"]["b"]["ece"] > 0.1 and high > 1.2


def test_what_a_least_confidence_takes_away() -> None:
    samples = [a_sample("a", 3, 1.0), a_sample("a", 4, 1.0)]
    _, report = judged(samples)
    # The temperature of each is the other's.
    temperatures = [judged([samples[1 - i]] * 2)[0] for i in (0, 1)]
    best, right = [], []
    for sample, temperature in zip(samples, temperatures, strict=True):
        shares = np.exp(sample.logs.astype(float) / temperature)
        shares /= shares.sum(axis=1, keepdims=True)
        best += shares.max(axis=1).tolist()
        right += (shares.argmax(axis=1) == sample.truth).tolist()
    sure, correct = np.array(best), np.array(right)
    for entry, least in zip(report["min_confidence"], LEASTS, strict=True):
        doubted = sure < least
        assert entry["value"] == least
        assert entry["not_sure"] == pytest.approx(doubted.mean())
        assert entry["errors"] == pytest.approx((doubted & ~correct).sum() / (~correct).sum())
        assert entry["accuracy"] == pytest.approx(correct[~doubted].mean())


def test_all_of_a_scene_may_be_one_class(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", ("red", "green", "blue"), CLASSES, size=32, overlap=8)
    values = scene(tmp_path / "s0.tif", 0)
    file = tmp_path / "held-out.toml"
    file.write_text('[[scenes]]\nscene = "s0.tif"\neverywhere = "trees"\n')
    (held,) = read_held_out(file)
    found = sample_of(model, geoseg.load_model(model).card, held)
    assert found.truth.tolist() == [1] * values[0].size
    file.write_text('[[scenes]]\nscene = "s0.tif"\neverywhere = "sea"\n')
    (held,) = read_held_out(file)
    with pytest.raises(LabelError, match=r"'sea' .* is no class of the model"):
        sample_of(model, geoseg.load_model(model).card, held)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("scenes = 3", r"no scenes; it has a table \[\[scenes\]\]"),
        ("[[scenes]", "can't be read as a list of scenes"),
        ('other = 1\n[[scenes]]\nscene = "a"', "has other; it has a table"),
        ('[[scenes]]\nlabels = "a"', "has no scene; it needs one"),
        ('[[scenes]]\nscene = "a"\nlables = "b"', "has lables; it may have group"),
        ('[[scenes]]\nscene = "a"', "scene 1 of .*give either points"),
        ('[[scenes]]\nscene = "a"\nlabels = "b"\neverywhere = "x"', "has everywhere and labels"),
        ('[[scenes]]\nscene = "${NOT_THERE}/a"\nlabels = "b"', "NOT_THERE, which is not set"),
        ('[[scenes]]\nscene = "a"\npoints = "b"\nlabel_map = {}', "label_map says what ids"),
        ('[[scenes]]\nscene = "a"\nlabels = "b"\nlabel_map = { x = 1 }', "its keys are ids"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path: Path, text: str, match: str) -> None:
    file = tmp_path / "held-out.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=match):
        read_held_out(file)


def test_what_can_not_be_calibrated_is_refused(tmp_path: Path, listed: tuple[Path, Path]) -> None:
    model, file = listed
    single = tmp_path / "single.toml"
    single.write_text('[[scenes]]\nscene = "s0.tif"\nlabels = "l0.tif"\n')
    with pytest.raises(UsageError, match="lists 1 scene; give 2 at least"):
        geoseg.calibrate(model, single)
    with pytest.raises(UsageError, match="is an embedded model, which stays as it is"):
        geoseg.calibrate("landcover-ms", file, write=True)
    wrong = tmp_path / "wrong.toml"
    text = file.read_text()
    wrong.write_text(text.replace('labels = "l0.tif"', 'labels = "l1.tif"'))
    with pytest.raises(EvaluationError, match=r"holds the ids \[5, 6, 9, 77\], which are no class"):
        geoseg.calibrate(model, wrong)
    empty = tmp_path / "empty.toml"
    empty.write_text(text.replace('5 = "water", 6 = 1, 9 = "Crops"', '42 = "water"'))
    with pytest.raises(EvaluationError, match="no pixel has both a class and a label"):
        geoseg.calibrate(model, empty)
    shutil.rmtree(model)
