"""geoseg.training.cast_shadows: shadows laid over chips whose labels stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import label

from geoseg.errors import TrainingError
from geoseg.training.augment_options import Augmentation
from geoseg.training.cast_shadows import cast_shadows
from geoseg.training.chips import ChipSource
from tests.trainhelpers import BANDS, load_scenes, tiny_recipe

pytestmark = pytest.mark.extra("train")
RGB = ("red", "green", "blue")


def chip(side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(20, 235, (3, side, side)).astype(np.float32)


@pytest.mark.parametrize("shape", [(64, 64), (8, 8), (40, 90)])
def test_only_shadowed_pixels_change_and_they_are_darker_and_bluer(shape):
    x = chip(90)[:, : shape[0], : shape[1]].copy()
    x.flags.writeable = False
    changed = 0
    for seed in range(40):
        y = cast_shadows(np.random.default_rng(seed), x, RGB, 0.8)
        assert y.dtype == np.float32 and y.shape == x.shape
        dark = (y != x).any(axis=0)
        changed += dark.sum()
        ratio = y[:, dark] / x[:, dark]
        assert (ratio < 1).all() and (ratio >= 1 - 0.8 - 1e-6).all()
        red, green, blue = ratio
        assert (red < green).all() and (green < blue).all()
    assert 0.01 < changed / (40 * shape[0] * shape[1]) < 0.6


def test_shadows_are_whole_shapes_and_seeded():
    x = np.full((3, 96, 96), 100, np.float32)
    for seed in range(20):
        y = cast_shadows(np.random.default_rng(seed), x, RGB, 0.8)
        again = cast_shadows(np.random.default_rng(seed), x, RGB, 0.8)
        np.testing.assert_array_equal(y, again)
        _, count = label(y[0] < 95)
        # Six things at most, whose crowns may lie apart.
        assert 0 <= count <= 6 * 8
    assert not np.array_equal(y, cast_shadows(np.random.default_rng(99), x, RGB, 0.8))


def test_no_light_is_lost_below_0():
    x = np.full((3, 32, 32), -0.01, np.float32)
    np.testing.assert_array_equal(cast_shadows(np.random.default_rng(1), x, RGB, 1.0), x)


def test_a_chips_labels_stay_and_its_share_says_how_many_have_shadows(tmp_path):
    none = Augmentation(flips=False)
    config = tiny_recipe(tmp_path, augmentation=none)
    scenes = load_scenes(config, tmp_path / "scratch")
    dark = replace(config, augmentation=replace(none, cast=0.9, cast_share=1.0))
    half = replace(config, augmentation=replace(none, cast=0.9, cast_share=0.5))
    plain, shaded, some = (ChipSource(c, scenes, BANDS, 1.0) for c in (config, dark, half))
    with_shadow = 0
    for number in range(40):
        one, other = plain.chip(number), shaded.chip(number)
        assert one.probs.equal(other.probs) and one.weight.equal(other.weight)
        assert (other.pixels <= one.pixels).all()
        with_shadow += not some.chip(number).pixels.equal(one.pixels)
    assert 8 <= with_shadow <= 30


@pytest.mark.parametrize("key", ["cast", "cast_share"])
def test_no_more_light_is_lost_than_there_is(key):
    with pytest.raises(TrainingError, match=f"{key} is 1.5; it must be 0 to 1"):
        Augmentation(**{key: 1.5})
