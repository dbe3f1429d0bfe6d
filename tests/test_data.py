"""geoseg.training.scenes: scenes on disk, sides that see nothing of each other, and what is
measured."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from scipy.ndimage import distance_transform_edt

import geoseg
from geoseg.errors import BandError, SceneError, TrainingError
from geoseg.networks.normalize import normalize
from geoseg.training.chips import ChipSource
from geoseg.training.class_pixels import pixels_by_class
from geoseg.training.class_weights import median_frequency_weights
from geoseg.training.held_out import held_out_windows, reflect, write_held_out
from geoseg.training.recipe import TrainConfig
from geoseg.training.scene_config import SceneConfig
from geoseg.training.scenes import load_scene
from geoseg.training.sides import split_scenes
from geoseg.training.split import MARGIN, TRAIN, VALIDATION, SplitConfig
from geoseg.training.statistics import band_statistics, measure_normalization
from geoseg.training.targets import UNKNOWN
from geoseg.training.teacher import load_teacher, teach
from tests.helpers import make_raster
from tests.trainhelpers import (
    BANDS,
    CLASSES,
    IDS,
    SPLIT,
    WILD,
    draw_classes,
    draw_pixels,
    load_scenes,
    place_of,
    scene_of,
    split_kinds,
    tiny_recipe,
    write_teacher,
)

# Nothing of one side is seen by the other


def splits() -> list[SplitConfig]:
    return [*split_kinds(), SplitConfig("scenes"), replace(SPLIT, fold=3, margin=0)]


def recipe_of(folder: Path, split: SplitConfig) -> TrainConfig:
    config = tiny_recipe(folder, scenes=1 if split.by in ("blocks", "random") else 3)
    scenes = config.scenes
    if split.by == "scenes":
        scenes = (*scenes[:2], replace(scenes[2], split="validation"))
    return replace(config, scenes=scenes, split=split, augmentation=WILD, class_weights="none")


def rewrite(config: TrainConfig, sides: list[np.ndarray], which: tuple[int, ...]) -> None:
    """Give the pixels of some sides other values, and shuffle their labels within blocks."""
    rng = np.random.default_rng(9)
    side = config.split.block if config.split.by == "blocks" else config.chip
    for scene, sides_here in zip(config.scenes, sides, strict=True):
        here = np.isin(sides_here, which)
        with rasterio.open(scene.path, "r+") as dataset:
            values = dataset.read()
            values[:, here] = rng.integers(1, 10000, (3, int(here.sum())))
            dataset.write(values)
        with rasterio.open(scene.labels[0], "r+") as dataset:
            ids = dataset.read(1)
            # Which blocks are held out depends on how much of each class is in them.
            for row in range(0, ids.shape[0], side):
                for col in range(0, ids.shape[1], side):
                    block = np.s_[row : row + side, col : col + side]
                    ids[block][here[block]] = rng.permutation(ids[block][here[block]])
            dataset.write(ids, 1)


@pytest.mark.parametrize("split", splits(), ids=lambda s: f"{s.by}-{s.fold}-{s.margin}")
def test_training_sees_nothing_of_held_out_pixels_and_the_margin(tmp_path, split):
    """Chips, normalization and class weights stay the same to the last bit."""
    config = recipe_of(tmp_path, split)
    seen = []
    for run in ("before", "after"):
        scenes = load_scenes(config, tmp_path / run)
        source = ChipSource(config, scenes, BANDS, 1.0)
        weights = median_frequency_weights(source.class_pixels, source.class_appearances)
        scale = measure_normalization(scenes, 3, "z-score", None)
        seen.append(([source.chip(i) for i in range(40)], weights.tolist(), scale))
        sides = [scene.sides.copy() for scene in scenes]
        if run == "before":
            assert all((s == VALIDATION).any() or split.by in ("files", "scenes") for s in sides)
            rewrite(config, sides, (VALIDATION, MARGIN))
    (chips, *measured), (after, *measured_after) = seen
    assert measured == measured_after
    for a, b in zip(chips, after, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.probs, b.probs) and torch.equal(a.weight, b.weight)


@pytest.mark.parametrize("split", splits(), ids=lambda s: f"{s.by}-{s.fold}-{s.margin}")
def test_judging_sees_nothing_of_training_pixels(tmp_path, split):
    config = recipe_of(tmp_path, split)
    seen = []
    for run in ("before", "after"):
        scenes = load_scenes(config, tmp_path / run)
        shown = [
            scene.cut(window.rows, window.cols, (VALIDATION, MARGIN))
            for scene in scenes
            for _, window in held_out_windows(scene, 64, 16)
        ]
        assert shown
        seen.append(shown)
        rewrite(config, [scene.sides.copy() for scene in scenes], (TRAIN,))
    for a, b in zip(*seen, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize("split", split_kinds(), ids=lambda s: s.by)
def test_every_labelled_pixel_is_held_out_in_exactly_one_fold(tmp_path, split):
    config = recipe_of(tmp_path, split)
    with rasterio.open(config.scenes[0].labels[0], "r+") as dataset:
        ids = dataset.read(1)
        ids[:40, :40] = 255  # some blocks hold no label
        dataset.write(ids, 1)
    scenes = tuple(replace(s, ignore_label=(255,)) for s in config.scenes)
    held = 0
    for fold in range(1, split.folds + 1):
        one = replace(config, scenes=scenes, split=replace(split, fold=fold))
        loaded = load_scenes(one, tmp_path / str(fold))
        sides = np.concatenate([scene.sides for scene in loaded])
        labelled = np.concatenate([scene.labelled for scene in loaded])
        assert {TRAIN, VALIDATION} <= set(np.unique(sides))
        held = held + ((sides == VALIDATION) & labelled).astype(int)
    np.testing.assert_array_equal(held, labelled.astype(int))


@pytest.mark.parametrize("split", split_kinds()[::2], ids=lambda s: s.by)
def test_what_is_held_out_follows_from_the_splits_own_seed(tmp_path, split):
    config = tiny_recipe(tmp_path, scenes=6, split=split)

    def sides(name, **changes):
        scenes = load_scenes(replace(config, **changes), tmp_path / name)
        return np.stack([scene.sides for scene in scenes])

    first = sides("first")
    np.testing.assert_array_equal(sides("training", seed=5), first)
    assert any((sides(str(n), split=replace(split, seed=n)) != first).any() for n in (1, 2, 3))


def test_scenes_of_one_place_lie_on_one_side(tmp_path):
    config = recipe_of(tmp_path, SplitConfig("files", folds=2))
    places = ("here", "there", "here")
    scenes = tuple(replace(s, place=p) for s, p in zip(config.scenes, places, strict=True))
    loaded = load_scenes(replace(config, scenes=scenes), tmp_path / "scratch")
    first, second, third = (int(scene.sides[0, 0]) for scene in loaded)
    assert first == third != second


def test_whole_scenes_are_counted_a_few_rows_at_a_time(tmp_path, monkeypatch):
    config = recipe_of(tmp_path, SplitConfig("files", folds=2))
    sides = []

    def spy(scene, classes, side, cell):
        sides.append(cell)
        return pixels_by_class(scene, classes, side, cell)

    monkeypatch.setattr("geoseg.training.sides.pixels_by_class", spy)
    load_scenes(config, tmp_path / "scratch")
    assert sides and max(sides) <= 1024


def test_a_side_with_nothing_on_it_is_told(tmp_path):
    config = recipe_of(tmp_path, replace(SPLIT, margin=96))
    with pytest.raises(TrainingError, match=r"no pixel on the training side .*margin 96 px"):
        load_scenes(config, tmp_path / "scratch")


# Reading


def one_scene(tmp_path: Path, values: np.ndarray, **raster: object) -> TrainConfig:
    """A scene with these numbers, all of it labelled."""
    config = tiny_recipe(tmp_path)
    path = make_raster(
        tmp_path / "scene.tif", values, **{"descriptions": BANDS[: len(values)], **raster}
    )
    labels = make_raster(tmp_path / "labels.tif", np.full((1, *values.shape[1:]), 3, np.uint8))
    return replace(config, scenes=(SceneConfig(path, labels=(labels,)),))


def load(config: TrainConfig, wanted: tuple[str, ...] = BANDS, **changes: object):
    scratch = config.scenes[0].path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return load_scene(config, replace(config.scenes[0], **changes), wanted, scratch, 0)


WHOLE = np.s_[:1000]
ALL_SIDES = (TRAIN, VALIDATION, MARGIN)


def test_values_are_physical_and_in_the_order_asked_for(tmp_path):
    values = np.random.default_rng(0).integers(1, 9999, (3, 40, 50)).astype(np.uint16)
    config = one_scene(tmp_path, values)
    scene = load(config, ("nir", "blue", "red"), scale=2e-4, offset=-0.1)
    # The recipe's own bands come first, as they stand in the recipe.
    pixels, seen = scene.cut(slice(5, 30), slice(10, 20), ALL_SIDES)
    np.testing.assert_allclose(pixels, values[:, 5:30, 10:20] * 2e-4 - 0.1, atol=1e-6)
    assert pixels.dtype == np.float32 and seen.all()
    part, _ = scene.cut(slice(5, 30), slice(10, 20), ALL_SIDES, [2, 0])
    np.testing.assert_array_equal(part, pixels[[2, 0]])
    index = np.array([3, 3, 39, 0])
    pixels, _ = scene.cut(index, slice(0, 50), ALL_SIDES)
    np.testing.assert_allclose(pixels, values[:, index] * 2e-4 - 0.1, atol=1e-6)


def test_a_teachers_further_bands_come_after_the_recipes_own(tmp_path):
    values = np.arange(4, dtype=np.uint16)[:, None, None] * 1000 + np.ones((4, 8, 8), np.uint16)
    config = one_scene(tmp_path, values, descriptions=("swir1", *BANDS))
    scene = load(config, (*BANDS, "swir1"))
    assert scene.pixels[:, 0, 0].tolist() == [1001, 2001, 3001, 1]


def test_what_was_not_measured_has_no_part_in_anything(tmp_path):
    values = np.random.default_rng(0).integers(1000, 2000, (3, 40, 50)).astype(np.uint16)
    hole = np.zeros((40, 50), bool)
    hole[10:20, 15:30] = True
    values[:, hole] = 0
    scene = load(one_scene(tmp_path, values, nodata=0))
    np.testing.assert_array_equal(scene.measured, ~hole)
    assert not scene.usable(slice(0, 40), TRAIN)[hole].any()
    mean, deviation = band_statistics([scene], 3)
    np.testing.assert_allclose(mean, values[:, ~hole].mean(axis=1) * 1e-4, rtol=1e-5)
    np.testing.assert_allclose(deviation, values[:, ~hole].std(axis=1) * 1e-4, rtol=1e-3)
    assert pixels_by_class(scene, 3, TRAIN, 16).sum() == (~hole).sum()
    # It looks like the nearest pixel that was measured.
    pixels, seen = scene.cut(slice(0, 40), slice(0, 50), ALL_SIDES)
    np.testing.assert_array_equal(seen, ~hole)
    far = distance_transform_edt(hole)
    for row, col in np.argwhere(hole)[::7]:
        distance = np.hypot(*(np.argwhere(~hole) - (row, col)).T)
        nearest = np.argwhere(~hole)[np.isclose(distance, far[row, col])]
        candidates = values[:, nearest[:, 0], nearest[:, 1]].T * np.float32(1e-4)
        assert np.isclose(candidates, pixels[:, row, col], atol=1e-6).all(axis=1).any()
    assert scene.cut(slice(11, 15), slice(16, 20), ALL_SIDES) is None


def test_nan_is_not_measured(tmp_path):
    values = np.full((3, 8, 8), 0.5, np.float32)
    values[1, 2, 3] = np.nan
    scene = load(one_scene(tmp_path, values), scale=1.0)
    assert scene.measured.sum() == 63 and not scene.measured[2, 3]
    pixels, _ = scene.cut(WHOLE, WHOLE, ALL_SIDES)
    assert np.isfinite(pixels).all()


def test_a_window_of_the_scene_and_windows_to_ignore(tmp_path):
    values = np.random.default_rng(0).integers(1, 9999, (3, 40, 50)).astype(np.uint16)
    config = one_scene(tmp_path, values)
    target = np.random.default_rng(1).integers(3, size=(40, 50))
    make_raster(config.scenes[0].labels[0], IDS[target][None])
    scene = load(config, window=(8, 4, 30, 20), ignore=((0, 0, 10, 10), (35, 20, 5, 30)))
    assert scene.shape == (30, 20)
    np.testing.assert_array_equal(scene.pixels, values[:, 8:38, 4:24])
    np.testing.assert_array_equal(scene.target, target[8:38, 4:24])
    expected = np.ones((40, 50), bool)
    expected[:10, :10] = expected[35:, 20:] = False
    np.testing.assert_array_equal(scene.measured, expected[8:38, 4:24])
    assert scene.grid.transform @ (0, 0) == place_of(0) @ (4, 8)
    with pytest.raises(TrainingError, match="does not lie in its 40 x 50 px"):
        load(config, window=(20, 0, 30, 20))


def test_scenes_outside_the_gsd_range_are_resampled_with_their_labels(tmp_path):
    values = np.random.default_rng(0).integers(1, 9999, (3, 40, 50)).astype(np.uint16)
    fine = Affine(5, 0, 500000, 0, -5, 5000000)
    config = one_scene(tmp_path, values, transform=fine)
    target = np.random.default_rng(1).integers(3, size=(20, 25)).repeat(2, 0).repeat(2, 1)
    make_raster(config.scenes[0].labels[0], IDS[target][None], transform=fine)
    scene = load(config)
    assert scene.shape == (20, 25)
    np.testing.assert_array_equal(scene.target, target[::2, ::2])
    means = values.reshape(3, 20, 2, 25, 2).mean(axis=(2, 4))
    assert np.abs(scene.pixels.astype(float) - means).mean() < 300
    assert load(replace(config, gsd_range=(5.0, 10.0))).shape == (40, 50)


def test_missing_bands_and_files_are_named(tmp_path):
    config = tiny_recipe(tmp_path)
    with pytest.raises(BandError, match="swir1"):
        load(replace(config, bands=("blue", "swir1")))
    with pytest.raises(SceneError, match=r"gone\.tif"):
        load(config, path=tmp_path / "gone.tif")
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(SceneError, match=r"text\.tif"):
        load(config, path=tmp_path / "text.tif")


def test_the_recipes_band_names_are_for_files_without_any(tmp_path):
    values = draw_pixels(0)
    config = tiny_recipe(tmp_path)
    path = make_raster(tmp_path / "plain.tif", values)
    with pytest.raises(BandError):
        load(config, path=path)
    scene = load(config, path=path, band_names=("nir", "red", "blue"))
    np.testing.assert_array_equal(scene.pixels, values[::-1])


def test_labels_of_another_place_are_told_with_both_extents(tmp_path):
    config = tiny_recipe(tmp_path)
    far = make_raster(
        tmp_path / "far.tif", np.full((1, 10, 10), 3, np.uint8), transform=place_of(50)
    )
    assert load(config).fault == ""
    fault = load(config, labels=(far,)).fault
    assert re.search(r"no label of far\.tif lies .*over \(500000.*far\.tif over \(548000", fault)
    values = {c.name: f"#11111{c.id}" for c in config.classes}
    black = make_raster(tmp_path / "black.tif", np.zeros((3, 96, 96), np.uint8))
    fault = load(replace(config, label_values=values), labels=(black,)).fault
    assert "though their extents meet; look at the ids, names" in fault


# Statistics


def test_normalization_counts_measured_training_pixels_and_each_scene_the_same():
    rng = np.random.default_rng(0)
    scenes, expected = [], []
    for side in (40, 12):
        pixels = rng.normal(0.3 if side == 40 else 0.6, 0.05, (2, side, side)).astype(np.float32)
        keep = rng.random((side, side)) < 0.5
        held = rng.random((side, side)) < 0.3
        pixels[:, ~keep | held] = 9.0
        sides = np.where(held, VALIDATION, TRAIN).astype(np.uint8)
        scenes.append(scene_of(pixels, np.zeros((side, side), int), keep, sides))
        expected.append(pixels[:, keep & ~held].astype(np.float64))
    scale = measure_normalization(scenes, 2, "z-score", None)
    mean = np.mean([x.mean(axis=1) for x in expected], axis=0)
    square = np.mean([(x**2).mean(axis=1) for x in expected], axis=0)
    np.testing.assert_allclose(scale.parameters["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(scale.parameters["stddev"], np.sqrt(square - mean**2), rtol=1e-4)


def test_log_logistic_puts_the_mean_of_the_logarithm_at_one_half():
    pixels = np.exp(np.random.default_rng(0).normal(-2, 0.5, (3, 50, 50)))
    measured = measure_normalization(
        [scene_of(pixels, np.zeros((50, 50), int))], 3, "log-logistic", (0.0, 2.0)
    )
    y = np.log1p(50 * pixels.clip(0, 2))
    x = (np.expm1(y.mean((1, 2))) / 50)[None, :, None, None]
    middle = normalize(torch.from_numpy(x), measured)
    torch.testing.assert_close(middle, torch.full_like(middle, 0.5), atol=1e-4, rtol=0)


def test_what_can_not_be_normalized_is_explained():
    flat = scene_of(np.ones((2, 8, 8)), np.zeros((8, 8), int))
    with pytest.raises(TrainingError, match=r"bands \[0, 1\] hold one value"):
        measure_normalization([flat], 2, "z-score", None)
    with pytest.raises(TrainingError, match="'min-max'"):
        measure_normalization([flat], 2, "min-max", None)
    empty = scene_of(np.ones((2, 8, 8)), np.zeros((8, 8), int), np.zeros((8, 8), bool))
    with pytest.raises(TrainingError, match="no pixel of the training side is measured"):
        measure_normalization([empty], 2, "z-score", None)
    negative = scene_of(np.linspace(-1, 1, 64).reshape(1, 8, 8), np.zeros((8, 8), int))
    with pytest.warns(RuntimeWarning), pytest.raises(TrainingError, match="no reflectance"):
        measure_normalization([negative], 1, "log-logistic", None)


@pytest.mark.parametrize("cell", [1, 7, 64, 1 << 30])
def test_counts_by_cell_and_class(cell):
    rng = np.random.default_rng(0)
    target = rng.choice([0, 1, 2, UNKNOWN], (50, 30))
    measured, sides = rng.random((50, 30)) < 0.8, rng.integers(3, size=(50, 30)).astype(np.uint8)
    scene = scene_of(rng.random((1, 50, 30)), target, measured, sides)
    counts = pixels_by_class(scene, 3, TRAIN, cell)
    assert counts.shape == (-(-50 // cell), -(-30 // cell), 3)
    for row in range(counts.shape[0]):
        for col in range(counts.shape[1]):
            here = np.s_[row * cell : (row + 1) * cell, col * cell : (col + 1) * cell]
            keep = measured[here] & (sides[here] == TRAIN)
            expected = [int((target[here][keep] == k).sum()) for k in range(3)]
            assert counts[row, col].tolist() == expected


# Windows


@pytest.mark.parametrize(("size", "halo"), [(32, 8), (64, 0), (200, 50), (20, 7)])
def test_held_out_pixels_are_covered_once_with_their_halo(size, halo):
    sides = np.zeros((70, 90), np.uint8)
    sides[10:40, 50:75] = VALIDATION
    sides[69, 0] = VALIDATION
    scene = scene_of(np.ones((1, 70, 90)), np.zeros((70, 90), int), sides=sides)
    covered = np.zeros((70, 90), int)
    for core, window in held_out_windows(scene, size, halo):
        covered[core.rows, core.cols] += 1
        assert window.height <= size and window.width <= size
        assert window.row == max(core.row - halo, 0) and window.col == max(core.col - halo, 0)
        assert window.bottom == min(core.bottom + halo, 70)
        assert window.right == min(core.right + halo, 90)
    assert covered.max() == 1 and (covered[sides == VALIDATION] == 1).all()


def test_a_span_lies_in_the_scene_or_goes_on_by_mirror():
    for start in (-30, 0, 5, 90):
        span = reflect(start, 20, 60)
        assert isinstance(span, slice)
        assert span.stop - span.start == 20 and span.start >= 0 and span.stop <= 60
    for start in (-13, 0, 4):
        mirrored = np.pad(np.arange(5), 40, "symmetric")[40 + start :][:17]
        np.testing.assert_array_equal(reflect(start, 17, 5), mirrored)


# Teachers, held-out labels


def test_a_teacher_fills_in_what_labels_leave_open(tmp_path):
    """In chips as it would at once."""
    write_teacher(tmp_path / "teacher")
    config = tiny_recipe(tmp_path, teacher=tmp_path / "teacher")
    teacher = load_teacher(config, torch.device("cpu"))
    assert teacher is not None
    with rasterio.open(config.scenes[0].labels[0], "r+") as dataset:
        ids = dataset.read(1)
        ids[:, 40:] = 255
        dataset.write(ids, 1)
    config = replace(config, scenes=(replace(config.scenes[0], ignore_label=(255,)),))
    scene = load(config, ignore=((0, 80, 10, 10),))
    labels = scene.target.copy()
    teach(scene, teacher, [BANDS.index(b) for b in teacher.card.bands])
    pixels, _ = scene.cut(WHOLE, WHOLE, ALL_SIDES, [BANDS.index(b) for b in teacher.card.bands])
    probs = teacher.probs(pixels)
    asked = scene.measured & ~scene.labelled
    np.testing.assert_array_equal(scene.target[~asked], labels[~asked])
    top = np.sort(probs, axis=0)
    clear = asked & (top[2] - top[1] > 1e-3) & (np.abs(top[2] - 0.5) > 1e-3)
    assert clear.sum() > 0.95 * asked.sum()
    np.testing.assert_array_equal(scene.target[clear], probs.argmax(axis=0)[clear])
    np.testing.assert_array_equal(scene.sure[clear], (top[2] > 0.5)[clear])
    assert not scene.sure[~asked].any()
    assert 0 < scene.sure.sum() < asked.sum()
    assert len(np.unique(scene.target[asked])) > 1


def test_held_out_labels_become_rasters_that_evaluate_takes(tmp_path):
    config = recipe_of(tmp_path, SPLIT)
    config = replace(
        config, scenes=tuple(replace(config.scenes[0], window=w) for w in (None, (0, 0, 96, 96)))
    )  # of the same name
    scenes = load_scenes(config, tmp_path / "scratch")
    files = write_held_out(tmp_path / "held_out", scenes, CLASSES)
    assert [f.name for f in files] == ["scene0.tif", "scene0-2.tif"]
    ids = IDS[draw_classes(0)]
    for file, scene in zip(files, scenes, strict=True):
        with rasterio.open(file) as dataset:
            found = dataset.read(1)
            assert dataset.nodata == 255 and dataset.crs == scene.grid.crs
            assert dataset.transform == scene.grid.transform
            assert dataset.colormap(1)[7] == (0xAA, 0xAA, 0xAA, 255)
        expected = np.where(scene.sides == VALIDATION, ids[:, : scene.shape[1]], 255)
        np.testing.assert_array_equal(found, expected)
    truth = make_raster(tmp_path / "map.tif", ids[None], transform=place_of(0))
    with rasterio.open(truth, "r+") as dataset:
        dataset.update_tags(1, **{f"class_{c.id}": c.name for c in CLASSES})
    matrix = geoseg.evaluate(truth, labels=files[0]).matrix
    assert matrix.trace() == matrix.sum() == (scenes[0].sides == VALIDATION).sum()


# Memory

MEMORY = """
import sys, threading, time
from pathlib import Path
import geoseg.training.scenes as data
from geoseg.training.recipe import TrainConfig
from geoseg.training.scene_config import SceneConfig
from geoseg.cards.legend import ClassInfo
from geoseg.training.sides import split_scenes
from geoseg.training.split import SplitConfig
from geoseg.training.statistics import measure_normalization
from geoseg.training.chips import ChipSource

data.CACHE_BYTES = 16 << 20
folder = Path(sys.argv[1])
bands = tuple(f"band{i}" for i in range(1, 7))
config = TrainConfig(
    name="large",
    bands=bands,
    classes=(ClassInfo(1, "a", "#000000"), ClassInfo(2, "b", "#FFFFFF")),
    scenes=(
        SceneConfig(folder / "scene.tif", labels=(folder / "labels.tif",), bands=tuple("123456")),
    ),
    split=SplitConfig("blocks", block=256, margin=16),
    quantity="number",
    chip=64,
)

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

def run(number, window):
    scene = data.load_scene(
        config, SceneConfig(**{**vars(config.scenes[0]), "window": window}), bands, folder, number
    )
    split_scenes(config, [scene])
    measure_normalization([scene], 6, "z-score", None)
    source = ChipSource(config, [scene], bands, 255.0)
    for i in range(20):
        source.chip(i)

def watch():
    global peak
    while going:
        peak = max(peak, anonymous())
        time.sleep(0.002)

run(0, (0, 0, 2048, 512))  # what is loaded once
going, peaks = True, []
thread = threading.Thread(target=watch)
peak = 0
thread.start()
for number, window in enumerate(((0, 0, 2000, 2000), None), start=1):
    peak = 0
    run(number, window)
    peaks.append(peak)
going = False
thread.join()
print(peaks[1] - peaks[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_hold_the_scene(tmp_path):
    """Flat files that are mapped can be dropped by the system at any time; they are not counted."""
    side = 4000
    shape = {"height": side, "width": side, "tiled": True, "blockxsize": 256, "blockysize": 256}
    where = {"driver": "GTiff", "crs": "EPSG:32633", "transform": place_of(0), **shape}
    rng = np.random.default_rng(0)
    with (
        rasterio.open(tmp_path / "scene.tif", "w", count=6, dtype="uint16", **where) as scene,
        rasterio.open(tmp_path / "labels.tif", "w", count=1, dtype="uint8", **where) as labels,
    ):
        for row in range(0, side, 256):
            window = rasterio.windows.Window(0, row, side, min(256, side - row))
            shape = (6, window.height, side)
            scene.write(rng.integers(1, 9999, shape, dtype=np.uint16), window=window)
            labels.write(rng.integers(1, 3, (1, *shape[1:]), dtype=np.uint8), window=window)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Four times as many pixels; they would be 288 MB more as float32.
    assert int(done.stdout) < 0.3 * (6 * side * side * 4 * 3 / 4)


# Scenes that show the same ground


def copied(scene: SceneConfig, to: Path, **changes: Any) -> SceneConfig:
    return SceneConfig(Path(shutil.copyfile(scene.path, to)), scene.labels, **changes)


@pytest.mark.parametrize("by", ["blocks", "files", "random"])
def test_two_dates_of_one_place_lie_on_one_side(by: str, tmp_path: Path) -> None:
    """By their footprints alone: nobody said that they are of one place."""
    config = tiny_recipe(tmp_path, 3, split=SplitConfig(by, block=16, margin=4, folds=2))
    again = (copied(s, tmp_path / f"again{i}.tif") for i, s in enumerate(config.scenes))
    scenes = load_scenes(replace(config, scenes=(*config.scenes, *again)), tmp_path)
    for first, second in zip(scenes[:3], scenes[3:], strict=True):
        np.testing.assert_array_equal(first.sides, second.sides)
    sides = np.concatenate([scene.sides.ravel() for scene in scenes])
    assert (sides == VALIDATION).any() and (sides == TRAIN).any()


def test_blocks_of_other_grids_over_the_same_ground_are_refused(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, split=SplitConfig("blocks", block=16, margin=4, folds=2))
    shifted = copied(config.scenes[0], tmp_path / "shifted.tif")
    with rasterio.open(shifted.path, "r+") as dataset:
        dataset.transform = dataset.transform @ Affine.translation(5, 3)
    config = replace(config, scenes=(*config.scenes, shifted))
    with pytest.raises(TrainingError, match=r"same ground in different grids.*split by files"):
        load_scenes(config, tmp_path)
    # Together they are one place, which can't be dealt into two parts.
    with pytest.raises(TrainingError, match="1 places have labels"):
        load_scenes(replace(config, split=SplitConfig("files", folds=2)), tmp_path)


def test_overlap_across_the_users_own_split_is_told(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, 2)
    first, second = config.scenes
    held = copied(first, tmp_path / "copy.tif", split="validation")
    scenes = (first, replace(second, split="validation"), held)
    config = replace(config, scenes=scenes, split=SplitConfig("scenes"))
    (doubt,) = split_scenes(config, load_scenes(config, tmp_path))
    assert "both sides" in doubt and "copy.tif" in doubt and "scene1.tif" not in doubt
