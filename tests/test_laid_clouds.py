"""geoseg.training.laid_clouds: clouds of known depth over clear ground."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.cards.legend import ClassInfo
from geoseg.errors import TrainingError
from geoseg.training.augment_options import Augmentation
from geoseg.training.chips import ChipSource
from geoseg.training.laid_clouds import (
    GROUND,
    SHADOW,
    THICK,
    THIN,
    Sky,
    _draw,
    fractal,
    lay_clouds,
    under_sky,
)
from geoseg.training.laid_clouds_options import CLOUD_BANDS, LaidClouds
from geoseg.training.recipe import TrainConfig
from geoseg.training.recipe_file import dump_config, load_config
from geoseg.training.targets import UNKNOWN
from tests.trainhelpers import scene_of, tiny_recipe

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
CLOUDS = LaidClouds("thin", "thick", "shadow", share=1.0)
SIDE = 40
CLASSES = tuple(
    ClassInfo(i, name, "#00000" + str(i))
    for i, name in enumerate(("clear", "thin", "thick", "shadow"))
)


def ground(value: float = 0.3) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    return (value * rng.uniform(0.8, 1.2, (6, SIDE, SIDE))).astype(np.float32)


def sky(depth: Any = 0.0, sunwards: Any = 0.0, **changes: Any) -> Sky:
    field = np.zeros((SIDE, SIDE), np.float32)
    plain = Sky(
        depth=field + np.float32(depth),
        shading=np.ones_like(field),
        blueness=0.0,
        colour=np.ones(6, np.float32),
        sunwards=field + np.float32(sunwards),
        diffuse=0.0,
        skylight=np.full(6, 0.2, np.float32),
        path=np.zeros(6, np.float32),
    )
    return plain._replace(**changes)


def test_a_sky_without_depth_changes_nothing() -> None:
    x = ground()
    seen, became = under_sky(x, BANDS, sky(path=np.full(6, 0.02, np.float32)), CLOUDS)
    np.testing.assert_allclose(seen, x, rtol=1e-6)
    assert (became == GROUND).all()


def test_a_thick_cloud_hides_the_ground_and_a_thin_one_does_not() -> None:
    x = ground()
    for depth, kept in ((1.0, 0.7), (1000.0, 0.05)):
        seen, _ = under_sky(x, BANDS, sky(depth), CLOUDS)
        assert (seen.std() / x.std() > kept) == (depth == 1)
    # White it is, as its colour says, but for what multiple reflections give back.
    assert abs(seen.mean() - 1) < 0.07
    with_ice = np.array([1, 1, 1, 1, 0.4, 0.3], np.float32)
    seen, _ = under_sky(x, BANDS, sky(1000.0, colour=with_ice), CLOUDS)
    np.testing.assert_allclose(seen.mean(axis=(1, 2)), with_ice, atol=0.05)


@given(st.floats(0, 200), st.floats(0, 200), st.floats(0, 1))
def test_what_a_pixel_became_agrees_with_the_depths(
    depth: float, sunwards: float, diffuse: float
) -> None:
    x = np.full((6, SIDE, SIDE), 0.1, np.float32)
    seen, became = under_sky(x, BANDS, sky(depth, sunwards, diffuse=diffuse), CLOUDS)
    back = 0.075 * depth / (1 + 0.075 * depth)
    behind = 0.075 * sunwards / (1 + 0.075 * sunwards)
    lost = diffuse * behind + (1 - diffuse) * (1 - np.exp(-0.2775 * sunwards))
    if min(abs(back - CLOUDS.thick_from), abs(back - CLOUDS.thin_from)) < 1e-4:
        return
    if abs(lost - CLOUDS.shadow_from) < 1e-4:
        return
    expected = GROUND
    if lost >= CLOUDS.shadow_from:
        expected = SHADOW
    if back >= CLOUDS.thin_from:
        expected = THICK if back >= CLOUDS.thick_from else THIN
    change = abs(seen - x).max()
    if abs(change - CLOUDS.visible) > 1e-4:
        hidden = expected != GROUND and change < CLOUDS.visible
        assert (became == (UNKNOWN if hidden else expected)).all()
    # The more cloud, the more light comes back from dark ground that lies in the sun.
    if sunwards == 0:
        more, _ = under_sky(x, BANDS, sky(depth + 1), CLOUDS)
        assert (more > seen - 1e-6).all()


def test_what_can_t_be_seen_is_not_learned() -> None:
    white, black = np.full((6, SIDE, SIDE), 0.95, np.float32), np.full((6, SIDE, SIDE), 0.01)
    over_snow = sky(1.5, 1.5, diffuse=1.0, skylight=np.zeros(6, np.float32))
    assert (under_sky(white, BANDS, over_snow, CLOUDS)[1] == UNKNOWN).all()
    dark = under_sky(black.astype(np.float32), BANDS, sky(0, 50.0), CLOUDS)
    assert (dark[1] == UNKNOWN).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_shadow_lies_as_far_from_its_cloud_as_was_asked_for(seed: int) -> None:
    x = np.full((6, 80, 80), 0.3, np.float32)
    a = replace(CLOUDS, kinds=(1, 0, 0, 0), distance=(9, 9))
    drawn = _draw(np.random.default_rng(seed), x, BANDS, a)
    inner = np.s_[12:-12, 12:-12]
    fits = []
    for down, right in product(range(-12, 13), repeat=2):
        moved = np.roll(drawn.depth, (down, right), (0, 1))[inner]
        slant = drawn.sunwards[inner].sum() / max(float(moved.sum()), 1e-9)
        fits.append((float(abs(drawn.sunwards[inner] - slant * moved).max()), down, right, slant))
    error, down, right, slant = min(fits)
    assert error < 1e-3 * drawn.sunwards.max() and abs(np.hypot(down, right) - 9) < 1
    assert 1 <= slant < 2.3


def test_a_shadow_is_darker_and_bluer_than_the_ground() -> None:
    x = np.full((6, SIDE, SIDE), 0.3, np.float32)
    skylight = np.array([CLOUD_BANDS[b].skylight for b in BANDS], np.float32)
    seen, became = under_sky(x, BANDS, sky(0, 50.0, skylight=skylight), CLOUDS)
    kept = seen.mean(axis=(1, 2))
    assert (became == SHADOW).all() and (np.diff(kept) < 0).all() and kept.max() < 0.15


def test_chips_are_the_same_by_seed_and_some_stay_clear() -> None:
    x = ground()
    some = replace(CLOUDS, share=0.5)
    untouched = 0
    for seed in range(40):
        first, again = (lay_clouds(np.random.default_rng(seed), x, BANDS, some) for _ in "ab")
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        assert np.isfinite(first[0]).all() and first[0].min() >= 0 and first[0].max() < 2.5
        untouched += int(np.array_equal(first[0], x))
    assert 8 <= untouched <= 32
    none = lay_clouds(np.random.default_rng(0), x, BANDS, replace(CLOUDS, share=0))
    assert none[0] is x and not none[1].any()


def test_a_fractal_is_alike_over_the_distances_that_are_asked_for() -> None:
    def alike(field: NDArray[np.float32], step: int) -> float:
        return float((field[step:] * field[:-step]).mean())

    rng = np.random.default_rng(3)
    smooth, rough = (fractal(rng, 128, h) for h in (1.4, 0.1))
    assert alike(smooth, 1) > alike(rough, 1) > 0.3
    small = [fractal(rng, 128, 0.7, largest=8) for _ in range(4)]
    assert abs(np.mean([alike(field, 40) for field in small])) < 0.1
    streaks = np.mean(
        [abs(np.diff(fractal(rng, 96, 0.7, stretch=6), axis=0)).mean() for _ in "abc"]
    )
    across = np.mean([abs(np.diff(fractal(rng, 96, 0.7, stretch=6), axis=1)).mean() for _ in "abc"])
    assert max(streaks, across) > 1.5 * min(streaks, across)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 1.2}, r"laid_clouds.share is 1.2; it must be 0 to 1"),
        ({"thin_from": 0.3}, r"give thin_from above 0 and below thick_from"),
        ({"thin_from": 0.0}, r"give thin_from above 0"),
        ({"shadow_from": 0.0}, r"shadow_from is 0; it must be above 0"),
        ({"kinds": (0, 0, 0, 0)}, r"give four shares \(cumulus"),
        ({"distance": (0.0, 5.0)}, r"give \(smallest, largest\) in px"),
        ({"distance": (3.0, 9999.0)}, r"at most 512"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        replace(CLOUDS, **changes)


def recipe(tmp_path: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "bands": ("blue", "red", "nir"),
        "classes": CLASSES,
        "laid_clouds": replace(CLOUDS, share=0.7, again=0),
        "clouds": ("thin", "thick", "shadow"),
        "chip": 32,
    }
    return tiny_recipe(tmp_path, **{**values, **changes})


def test_a_recipe_says_which_classes_they_are(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    path = tmp_path / "recipe.json"
    path.write_text(dump_config(config))
    assert load_config(path).laid_clouds == config.laid_clouds
    with pytest.raises(TrainingError, match=r"give three of the recipe's"):
        recipe(tmp_path, classes=CLASSES[1:], clouds=None)
    with pytest.raises(TrainingError, match=r"and thermal1 is none; leave it out"):
        recipe(tmp_path, bands=("blue", "red", "thermal1"))
    with pytest.raises(TrainingError, match=r"the quantity is number"):
        recipe(tmp_path, quantity="number")
    with pytest.raises(TrainingError, match=r"clouds names \['fog'\]"):
        recipe(tmp_path, clouds=("fog",))
    assert set(BANDS) < set(CLOUD_BANDS)


def test_chips_have_the_targets_of_the_clouds_that_are_laid_over_them(tmp_path: Path) -> None:
    config = recipe(tmp_path, augmentation=Augmentation(flips=False))
    scene = scene_of(ground()[:3], np.zeros((SIDE, SIDE), np.uint8))
    source = ChipSource(config, [scene], config.bands, 1.0)
    bare = ChipSource(replace(config, laid_clouds=None), [scene], config.bands, 1.0)
    found = np.zeros(4)
    for number in range(24):
        chip, under = source.chip(number), bare.chip(number)
        what = chip.probs.numpy().argmax(axis=0)
        known = chip.weight.numpy() > 0
        found += np.bincount(what[known], minlength=4)
        changed = abs(chip.pixels - under.pixels).numpy().max(axis=0)
        assert (changed[known & (what > 0)] >= CLOUDS.visible).all()
        assert (chip.probs.sum(dim=0) == 1).all()
        if not changed.any():
            assert (what == 0).all() and known.all()
    assert (found > 50).all()
    # What can't be seen has no part in it.
    bright = scene_of(np.full((3, SIDE, SIDE), 0.97), np.zeros((SIDE, SIDE), np.uint8))
    over_snow = ChipSource(config, [bright], config.bands, 1.0)
    chips = [over_snow.chip(number) for number in range(12)]
    assert any(0 < chip.weight.mean() < 1 for chip in chips)
    # Where people have seen clouds none are laid.
    scene.target[:] = 2
    chip = ChipSource(config, [scene], config.bands, 1.0).chip(1)
    assert (chip.probs[2] == 1).all()
