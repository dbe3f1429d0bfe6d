"""geoseg.training.chips: what a network learns from."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geoseg.cards.legend import ClassInfo
from geoseg.errors import TrainingError
from geoseg.networks import load_network
from geoseg.networks.normalize import normalize
from geoseg.training.augment import blend_weights
from geoseg.training.augment_options import Augmentation
from geoseg.training.chips import Chip, ChipSource, _Cut, _mixed
from geoseg.training.loss_spec import make_loss
from geoseg.training.recipe import TrainConfig
from geoseg.training.scene_config import SceneConfig
from geoseg.training.scenes import TrainingScene
from geoseg.training.split import MARGIN, TRAIN, VALIDATION, SplitConfig
from geoseg.training.targets import UNKNOWN
from geoseg.training.teacher import Teacher, load_teacher
from geoseg.zoo import find_model
from tests.trainhelpers import BANDS, WILD, scene_of, tiny_recipe, write_teacher

NONE = Augmentation(flips=False)


def recipe_of(classes: int, bands: tuple[str, ...] = ("red", "nir"), **changes: object):
    legend = tuple(ClassInfo(k, f"class {k}", "#000000") for k in range(classes))
    values: dict[str, object] = {
        "name": "chips",
        "bands": bands,
        "classes": legend,
        "scenes": (SceneConfig(Path("a.tif"), labels=(Path("b.tif"),)),),
        "split": SplitConfig("blocks"),
        "quantity": "number",
        "batch": 4,
        "chip": 16,
        "augmentation": NONE,
    }
    return TrainConfig(**{**values, **changes})


def source_of(config: TrainConfig, *scenes: TrainingScene, teacher: Teacher | None = None):
    return ChipSource(config, scenes, config.bands, 1.0, teacher)


def equal(a: Chip, b: Chip) -> bool:
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("pixels", "probs", "weight"))


# Pixels and targets move together


def class_at(row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Of a scene whose bands are the row and the column of each pixel."""
    return (row // 5 + 2 * (col // 7)) % 4


def places(height: int = 100, width: int = 80, first: int = 0) -> TrainingScene:
    row, col = np.mgrid[:height, :width]
    return scene_of(np.stack((row + first, col)), class_at(row + first, col))


@pytest.mark.parametrize("chip", [8, 33, 80, 130])
@pytest.mark.parametrize("flips", [False, True])
def test_each_pixel_has_the_target_of_its_place(chip, flips):
    """Also where the scene is smaller than the chip and is continued by mirror."""
    config = recipe_of(4, chip=chip, augmentation=Augmentation(flips=flips))
    ways = set()
    for a_chip in source_of(config, places()).batch(0) + source_of(config, places()).batch(1):
        row, col = a_chip.pixels.numpy().astype(int)
        np.testing.assert_array_equal(a_chip.probs.argmax(0), class_at(row, col))
        assert (a_chip.probs.sum(0) == 1).all() and (a_chip.weight == 1).all()
        ways.add((int(np.sign(row[1, 0] - row[0, 0])), int(np.sign(col[0, 1] - col[0, 0]))))
    if chip < 80:
        assert (len(ways) > 2) == flips


@pytest.mark.parametrize("zoom", [(0.5, 0.5), (2.0, 2.0), (0.6, 1.9), (3.0, 5.0)])
def test_zoom_moves_pixels_and_targets_together_by_its_factor(zoom):
    config = recipe_of(4, chip=32, augmentation=Augmentation(flips=False, zoom=zoom))
    source = source_of(config, places())
    factors = []
    for number in range(40):
        chip = source.chip(number)
        row, col = chip.pixels.numpy()
        inner = np.s_[3:-3, 3:-3]  # the edges of a ramp are cut off
        # Halves of pixels lie on the border of two.
        safe = (np.abs(row % 1 - 0.5) > 0.1) & (np.abs(col % 1 - 0.5) > 0.1)
        expected = class_at(np.rint(row), np.rint(col))
        same = chip.probs.argmax(0).numpy() == expected
        assert same[inner][safe[inner]].all()
        assert safe[inner].mean() > 0.1 or zoom == (0.5, 0.5) or zoom == (2.0, 2.0)
        factors.append(20 / (row[26, 16] - row[6, 16]))
    assert zoom[0] * 0.93 < min(factors) and max(factors) < zoom[1] * 1.07
    if zoom == (0.6, 1.9):  # evenly in logarithm
        assert np.median(factors) == pytest.approx(np.sqrt(0.6 * 1.9), rel=0.25)


def test_cutmix_copies_pixels_and_targets_alike():
    mixing = Augmentation(flips=False, mix=1.0, mix_again=0.5, mix_kinds=(0.0, 1.0, 0.0, 0.0))
    config = recipe_of(4, chip=40, augmentation=mixing)
    source = source_of(config, places(), places(90, 60, first=1000))
    parts = 0
    for number in range(40):
        chip = source.chip(number)
        row, col = chip.pixels.numpy().astype(int)
        np.testing.assert_array_equal(chip.pixels.numpy(), np.stack((row, col)))
        np.testing.assert_array_equal(chip.probs.argmax(0), class_at(row, col))
        assert " with " in chip.origin
        parts += int(((row >= 1000).any()) and (row < 1000).any())
    assert parts > 5


#: Each kind of mixture alone.
KINDS = [tuple(float(i == k) for i in range(4)) for k in range(4)]


@pytest.mark.parametrize("kinds", KINDS)
def test_of_a_mixture_all_parts_must_be_seen_and_labelled(kinds):
    for seed in range(10):
        rng = np.random.default_rng([seed, 1])
        cuts = [
            _Cut(
                rng.random((1, 20, 20), np.float32),
                np.eye(2, dtype=np.float32)[rng.integers(2, size=(20, 20))].transpose(2, 0, 1),
                rng.random((20, 20)) < 0.5,
                rng.random((20, 20)) < 0.5,
                name,
            )
            for name in ("one", "two")
        ]
        changes = Augmentation(mix_kinds=kinds)
        mixed = _mixed(*cuts, np.random.default_rng(seed), changes)
        own = blend_weights(np.random.default_rng(seed), 20, kinds)
        one, two = own > 0, own < 1
        for name in ("seen", "labelled"):
            a, b = (getattr(cut, name) for cut in cuts)
            np.testing.assert_array_equal(getattr(mixed, name), (a | ~one) & (b | ~two))
        for name in ("pixels", "probs"):
            a, b = (getattr(cut, name) for cut in cuts)
            np.testing.assert_allclose(getattr(mixed, name), a * own + b * (1 - own), atol=1e-6)
        assert mixed.origin == "one with two"


def image_is_target(size: int = 40) -> TrainingScene:
    """A scene whose band k is the probability of its class k."""
    target = np.random.default_rng(0).integers(2, size=(size, size))
    return scene_of(np.stack((1 - target, target)), target)


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("gsd_max", [1.0, 2.5])
def test_mixed_and_coarse_chips_have_mixed_targets(kinds, gsd_max):
    changes = Augmentation(mix=1.0, mix_again=0.3, mix_kinds=kinds, gsd_max=gsd_max, gsd_share=0.7)
    config = recipe_of(2, batch=16, augmentation=changes)
    for chip in source_of(config, image_is_target()).batch(0):
        torch.testing.assert_close(chip.pixels, chip.probs.float(), atol=1e-3, rtol=0)
        assert chip.pixels.std() > 0.05 and (chip.weight == 1).all()
        assert chip.probs.dtype == torch.float16 and chip.pixels.dtype == torch.float32


@pytest.mark.parametrize("bands", [1, 3, 9])
def test_every_change_at_once_stays_sound(bands):
    names = ("blue", "green", "red", "nir", "swir1", "swir2", "rededge1", "nir08", "coastal")
    rng = np.random.default_rng(0)
    target = rng.choice([0, 1, UNKNOWN], (60, 70))
    scene = scene_of(
        rng.uniform(0, 0.6, (bands, 60, 70)),
        target,
        rng.random((60, 70)) < 0.8,
        rng.choice([TRAIN, VALIDATION, MARGIN], (60, 70), p=(0.8, 0.1, 0.1)).astype(np.uint8),
    )
    config = recipe_of(2, names[:bands], augmentation=WILD)
    source = source_of(config, scene)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chips = [source.chip(i) for i in range(40)]
    for chip in chips:
        assert chip.pixels.shape == (bands, 16, 16) and chip.pixels.dtype == torch.float32
        assert chip.probs.shape == (2, 16, 16) and chip.weight.shape == (16, 16)
        assert chip.pixels.isfinite().all() and chip.probs.isfinite().all()
        assert chip.probs.min() >= 0 and chip.probs.sum(0).max() <= 1.001
        assert ((chip.weight == 0) | (chip.weight == 1)).all()
        torch.testing.assert_close(
            chip.probs.float().sum(0)[chip.weight == 1],
            torch.ones(int(chip.weight.sum())),
            atol=2e-3,
            rtol=0,
        )


def test_light_changes_pixels_and_not_targets():
    scene = image_is_target()
    lit = Augmentation(flips=False, gain=0.1, noise=0.01, noise_share=1.0)
    a, b = (source_of(recipe_of(2, augmentation=x), scene).chip(3) for x in (NONE, lit))
    assert torch.equal(a.probs, b.probs) and torch.equal(a.weight, b.weight)
    assert not torch.equal(a.pixels, b.pixels)


@pytest.mark.parametrize("pool", [0, 8])
def test_light_is_eased_at_the_end_of_a_run(pool):
    """Of 10 steps the last 3: whatever is drawn before is changed, and nothing made after."""
    scene = image_is_target()
    lit = Augmentation(flips=False, gain=0.1, ease=0.3, ease_to=0.0)
    a, b = (
        source_of(recipe_of(2, steps=10, pool=pool, fresh=4, augmentation=x), scene)
        for x in (NONE, lit)
    )
    first = 28 + pool  # of the chips that come in at step 7
    for number in (0, first - 1):
        assert not torch.equal(a.chip(number).pixels, b.chip(number).pixels)
    for number in (first, first + 11):
        assert torch.equal(a.chip(number).pixels, b.chip(number).pixels)


# Weights


@pytest.mark.parametrize("changes", [NONE, Augmentation(gsd_max=2.0, mix=0.5)])
def test_only_measured_labelled_pixels_of_the_training_side_have_weight(changes):
    """A band tells the pixels that must not be seen, by a value that would stand out."""
    rng = np.random.default_rng(0)
    shape = (60, 60)
    target = np.where(rng.random(shape) < 0.6, rng.integers(2, size=shape), UNKNOWN)
    target[:, :25] = UNKNOWN
    measured = np.ones(shape, bool)
    measured[20:30] = False
    sides = np.zeros(shape, np.uint8)
    sides[40:, :] = MARGIN
    sides[48:, :] = VALIDATION
    hidden = ~measured | (sides != TRAIN)
    known = (target != UNKNOWN) & ~hidden
    pixels = np.stack((np.where(hidden, 1e6, 1.0), known))
    scene = scene_of(pixels, target, measured, sides)
    source = source_of(recipe_of(2, augmentation=changes), scene)
    weights = []
    for number in range(60):
        chip = source.chip(number)
        assert chip.pixels[0].max() < 1.001
        if changes is NONE:
            assert not chip.weight[chip.pixels[1] == 0].any()
        weights.append(float(chip.weight.mean()))
    assert 0.05 < np.mean(weights) < 0.9


@pytest.mark.parametrize("loss", ["soft_ce", "ce+0.5*dice", "focal(gamma=2)"])
def test_pixels_without_weight_change_nothing_in_the_loss(loss):
    target = np.random.default_rng(0).choice([0, 1, UNKNOWN], (60, 60), p=(0.1, 0.1, 0.8))
    scene = scene_of(np.random.default_rng(1).random((2, 60, 60)), target)
    chip = source_of(recipe_of(2), scene).chip(0)
    assert 0 < chip.weight.mean() < 0.5
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 16, 16, requires_grad=True)
    lost = make_loss(loss, ignore_index=-1)
    weight = chip.weight[None]
    value = lost(logits, chip.probs[None].float(), weight)
    value.backward()
    assert not logits.grad[:, :, chip.weight == 0].any() and logits.grad.any()
    other = torch.where(chip.weight == 1, chip.probs.float(), torch.rand(2, 16, 16))
    torch.testing.assert_close(lost(logits, other[None], weight), value)


# Drawing


@pytest.mark.parametrize("pool", [0, 20])
def test_what_a_step_sees_depends_on_seed_and_step_alone(pool):
    config = recipe_of(4, augmentation=WILD, pool=pool, bands=("blue", "nir"))
    going = source_of(config, places())
    for step in range(6):
        seen = going.batch(step)
        if step in (0, 3, 5):
            fresh = source_of(config, places()).batch(step)
            assert all(equal(a, b) for a, b in zip(seen, fresh, strict=True))
    other = source_of(replace(config, seed=1), places()).batch(5)
    assert not any(equal(a, b) for a, b in zip(seen, other, strict=True))
    assert len(going._pool) <= max(pool, 4)


def test_accumulating_sees_the_same_chips_in_smaller_batches():
    for pool in (0, 20):
        wide, narrow = (
            source_of(recipe_of(4, batch=b, accumulate=a, pool=pool, augmentation=WILD), places())
            for b, a in ((4, 1), (2, 2))
        )
        for step in range(3):
            pairs = zip(wide.batch(step), narrow.batch(step), strict=True)
            assert all(equal(a, b) for a, b in pairs)


def test_a_pool_keeps_chips_and_gets_fresh_ones_each_step():
    config = recipe_of(4, pool=20, fresh=3)
    source = source_of(config, places())
    made: list[int] = []
    make = source.chip
    source.chip = lambda number: made.append(number) or make(number)  # type: ignore[method-assign]
    steps = 200
    places_in_pool = set()
    for step in range(steps):
        drawn = source.batch(step)
        assert len({id(c) for c in drawn}) == 4
        places_in_pool |= {
            n - 3 * step for n, c in source._pool.items() if any(c is d for d in drawn)
        }
        assert min(source._pool) >= 3 * step and max(source._pool) < 3 * step + 20
    assert places_in_pool == set(range(20))
    assert len(made) == len(set(made))
    assert set(made) <= set(range(3 * steps + 20))
    # 20 / 3 steps' draws of 4 of 20: each number is drawn 1.3 times.
    assert len(made) > 0.6 * 3 * steps


def test_turning_a_pools_chip_leaves_the_pool_as_it_is():
    config = recipe_of(4, pool=4, fresh=1, augmentation=Augmentation())
    source = source_of(config, places())
    source.batch(0)
    kept = {n: c for n, c in source._pool.items() if n >= 1}
    source.batch(1)
    for number, chip in kept.items():
        assert source._pool[number] is chip
        assert equal(chip, source_of(config, places()).chip(number))


def test_rare_classes_are_drawn_as_often_as_common_ones():
    target = np.zeros((200, 200), int)
    target[90:94, 90:94] = 1
    scene = scene_of(np.random.default_rng(0).random((2, 200, 200)), target)

    def share(balance: float) -> float:
        source = source_of(recipe_of(2, chip=8, balance=balance), scene)
        return float(np.mean([float(source.chip(i).probs[1].max()) for i in range(200)]))

    assert share(0.0) < 0.05
    assert 0.4 < share(1.0) < 0.65


def test_chips_lie_everywhere_and_around_the_pixel_that_was_drawn():
    """Without balance each usable pixel is drawn alike."""
    config = recipe_of(4, chip=9, balance=0.0)
    source = source_of(config, places(40, 40))
    seen = np.zeros((40, 40), int)
    drawn = []
    for number in range(600):
        chip = source.chip(number)
        row, col = chip.pixels.numpy().astype(int)
        seen[row, col] += 1
        words = chip.origin.replace(",", "").split()
        at = int(words[words.index("row") + 1]), int(words[words.index("column") + 1])
        assert row.min() <= at[0] <= row.max() and col.min() <= at[1] <= col.max()
        drawn.append(at)
    assert (seen > 0).all()
    assert np.mean(drawn, axis=0) == pytest.approx((19.5, 19.5), abs=2)
    assert np.std(drawn, axis=0) == pytest.approx((11.5, 11.5), abs=1)


def test_a_large_scene_does_not_give_all_chips():
    large, small = places(200, 200), places(20, 20, first=1000)
    source = source_of(recipe_of(4, chip=8, balance=0.0), large, small)
    share = np.mean([float(source.chip(i).pixels[0].max()) >= 1000 for i in range(400)])
    assert share == pytest.approx(20 / 220, abs=0.04)


def test_nothing_to_learn_from_is_told():
    empty = scene_of(np.ones((2, 8, 8)), np.zeros((8, 8), int), np.zeros((8, 8), bool))
    with pytest.raises(TrainingError, match="no pixel of the training side has a target"):
        source_of(recipe_of(2), empty)


def test_pixels_by_class_and_the_scenes_in_which_it_appears():
    target = np.full((64, 64), UNKNOWN)
    target[:10, :10], target[20:22, :10] = 0, 1
    other = np.full((30, 30), 0)
    source = source_of(
        recipe_of(3),
        scene_of(np.ones((2, 64, 64)), target),
        scene_of(np.ones((2, 30, 30)), other),
    )
    assert source.class_pixels.tolist() == [1000, 20, 0]
    assert source.class_appearances.tolist() == [1020, 120, 0]


# Teachers


def taught(tmp_path: Path, **changes: object) -> tuple[ChipSource, TrainingScene, Teacher]:
    """A scene of noise without labels in its right half, and a teacher."""
    write_teacher(tmp_path / "teacher")
    config = tiny_recipe(tmp_path, teacher=tmp_path / "teacher", augmentation=NONE, **changes)
    teacher = load_teacher(config, torch.device("cpu"))
    assert teacher is not None
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 0.4, (3, 80, 80)).astype(np.float32)
    target = rng.integers(3, size=(80, 80))
    scene = scene_of(pixels, target)
    scene.labelled[:, 50:] = False
    return ChipSource(config, [scene], BANDS, 1.0, teacher), scene, teacher


@pytest.mark.parametrize("halo", [0, 12])
@pytest.mark.parametrize("pool", [0, 8])
def test_a_teacher_answers_for_the_chip_it_sees_and_labels_go_before_it(tmp_path, halo, pool):
    source, scene, teacher = taught(tmp_path, teacher_halo=halo, pool=pool)
    network = load_network(find_model(tmp_path / "teacher"))
    both = 0
    for chip in (chip for step in range(6) for chip in source.batch(step)):
        # Where the chip lies.
        first = np.argwhere(scene.pixels[0] == chip.pixels[0, 0, 0].item())
        ((row, col),) = first.tolist()
        np.testing.assert_array_equal(chip.pixels, scene.pixels[:, row : row + 16, col : col + 16])
        assert halo <= row <= 80 - 16 - halo and halo <= col <= 80 - 16 - halo
        larger = scene.pixels[[2, 0, 1], row - halo : row + 16 + halo, col - halo : col + 16 + halo]
        with torch.inference_mode():
            x = normalize(torch.from_numpy(larger)[None], teacher.card.normalization)
            answer = network(x).softmax(1)[0][:, halo : halo + 16, halo : halo + 16]
        labelled = scene.labelled[row : row + 16, col : col + 16]
        target = scene.target[row : row + 16, col : col + 16]
        expected = np.where(labelled, np.eye(3)[target].transpose(2, 0, 1), answer)
        np.testing.assert_allclose(chip.probs.float(), expected, atol=1e-3)
        assert (chip.weight == 1).all()
        both += int(labelled.any() and not labelled.all())
    assert both


def test_a_teacher_sees_what_the_network_sees(tmp_path):
    """Light, mixing and noise come before it is asked."""
    source, _, teacher = taught(tmp_path)
    wild = replace(source._config, augmentation=replace(WILD, gsd_max=1.0, flips=False))
    bare = scene_of(np.random.default_rng(0).uniform(0, 0.4, (3, 80, 80)), np.zeros((80, 80), int))
    bare.labelled[:] = False
    source = ChipSource(wild, [bare], BANDS, 1.0, teacher)
    for number in range(20):
        chip = source.chip(number)
        answer = teacher.probs(chip.pixels.numpy()[[2, 0, 1]])
        np.testing.assert_allclose(chip.probs.float(), answer, atol=1e-3)


def test_a_teachers_answer_is_sharpened(tmp_path):
    """A temperature of one half squares its probabilities."""
    soft, _, _ = taught(tmp_path)
    sharp, _, _ = taught(tmp_path / "sharp", teacher_temperature=0.5)
    for number in range(10):
        a, b = soft.chip(number), sharp.chip(number)
        squares = a.probs.float() ** 2
        torch.testing.assert_close(b.probs.float(), squares / squares.sum(0), atol=2e-3, rtol=0)
