"""geoseg.training.augment: how pixels are changed."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from geoseg.errors import TrainingError
from geoseg.training.augment import (
    WAVELENGTH,
    add_haze,
    blend_weights,
    change_light,
    coarsen,
    finish,
    grains,
    move_covariance,
    move_statistics,
    resize,
    roughen,
    smooth_field,
    turn,
)
from geoseg.training.augment_options import Augmentation
from tests.trainhelpers import WILD

NINE = tuple(WAVELENGTH)[:9]
BANDS = {1: ("nir",), 3: ("blue", "green", "red"), 9: NINE}
NONE = Augmentation()
#: Numbers that do nothing alone: how often the others happen, and how they are mixed.
SHARES = {
    "zoom_share",
    "gsd_share",
    "light_share",
    "haze_share",
    "veil_share",
    "blur_share",
    "saturation_share",
    "sharpen_share",
    "speckle_share",
    "shadow_share",
    "cast_share",
    "noise_share",
}


def reflectance(bands: int, side: int = 24) -> np.ndarray:
    rng = np.random.default_rng(bands)
    return rng.uniform(0.01, 0.6, (bands, side, side)).astype(np.float32)


def change(x: np.ndarray, a: Augmentation, seed: int, white: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    lit = change_light(rng, x, BANDS[len(x)], a, white)
    return finish(rng, roughen(rng, lit, a), a, white)


@pytest.mark.parametrize("white", [1.0, 255.0])
@pytest.mark.parametrize("bands", [1, 3, 9])
def test_all_at_once_stays_sound(bands, white):
    x = reflectance(bands) * np.float32(white)
    x.flags.writeable = False
    for seed in range(60):
        y = change(x, replace(WILD, haze=0.0 if white > 1 else WILD.haze), seed, white)
        assert y.dtype == np.float32 and y.shape == x.shape
        assert np.isfinite(y).all()


@pytest.mark.parametrize("bands", [1, 3, 9])
def test_nothing_asked_for_changes_nothing(bands):
    x = reflectance(bands)
    for seed in range(5):
        np.testing.assert_array_equal(change(x, NONE, seed), x)


LIGHT = [
    "gain", "band_gain", "tilt", "band_offset", "haze", "veil", "contrast", "brightness", "gamma",
    "saturation", "hue", "grey_share", "shuffle_share", "blur", "sharpen",
    "speckle", "shadow", "noise", "dropout",
]  # fmt: skip


@pytest.mark.parametrize("name", LIGHT)
def test_each_number_changes_chips_alone_and_0_turns_it_off(name):
    """What a number does depends on no other one."""
    x = reflectance(3)
    one = {name: getattr(WILD, name)} | {k: 1.0 for k in SHARES}
    alone = [change(x, replace(NONE, **one), seed) for seed in range(100)]
    assert any(not np.array_equal(y, x) for y in alone)
    for seed in range(5):
        off = change(x, replace(NONE, **{**one, name: 0.0}), seed)
        np.testing.assert_array_equal(off, x)


def test_every_number_of_light_is_tried_above():
    elsewhere = {"flips", "zoom", "gsd_max", "mix", "mix_again", "mix_kinds", "statistics"}
    # The slope of light comes after the teacher has answered.
    elsewhere |= {"covariance", "ease", "ease_to", "slope"}
    # Shadows that are cast have tests of their own.
    elsewhere |= {"cast"}
    assert {f.name for f in fields(Augmentation)} == {*LIGHT, *SHARES, *elsewhere}


def test_a_run_ends_with_all_light_and_colours_eased():
    """Nothing is eased but what changes them, and none of it is left out."""
    eased = replace(WILD, ease=0.25, ease_to=0.5).at(0.75)
    assert replace(WILD, ease=0.25).at(0.74) == replace(WILD, ease=0.25)
    halved = {f.name for f in fields(WILD) if getattr(eased, f.name) != getattr(WILD, f.name)}
    assert halved - {"ease", "ease_to"} == {*LIGHT, "grey_share", "shuffle_share", "dropout"} - {
        "noise",
        "blur",
        "sharpen",
        "speckle",
    }
    assert eased.hue == WILD.hue / 2 and eased.grey_share == WILD.grey_share / 2


def test_a_share_of_0_turns_off_what_it_is_the_share_of():
    x = reflectance(3)
    off = replace(WILD, grey_share=0, shuffle_share=0, dropout=0, contrast=0, brightness=0)
    off = replace(off, gamma=0, saturation=0, hue=0, **{k: 0.0 for k in SHARES})
    for seed in range(5):
        np.testing.assert_array_equal(change(x, off, seed), x)


def test_haze_rises_with_its_amount_most_in_blue_and_can_be_taken_away():
    x = np.full((3, 4, 4), 0.05, np.float32)
    bands = ("blue", "red", "nir")
    amounts = [0.0, 0.02, 0.05, 0.1]
    hazy = np.stack([add_haze(x, bands, a).mean(axis=(1, 2)) for a in amounts])
    np.testing.assert_allclose(hazy[0], 0.05, atol=1e-7)
    added = np.diff(hazy, axis=0)
    assert (added[:, 0] > 0).all()
    assert (added[:, 0] > added[:, 1]).all() and (added[:, 1] > added[:, 2]).all()
    y = reflectance(3)
    np.testing.assert_allclose(add_haze(add_haze(y, bands, 0.06), bands, -0.06), y, atol=1e-6)
    assert (add_haze(x, bands, -0.5 / 4.4) >= 0).all()


def test_dropout_loses_exactly_one_band_to_its_mean():
    for bands in (1, 3, 9):
        x = reflectance(bands)
        lost = set()
        for seed in range(60):
            y = change(x, replace(NONE, dropout=1.0), seed)
            changed = [k for k in range(bands) if not np.array_equal(x[k], y[k])]
            assert len(changed) == 1
            np.testing.assert_allclose(y[changed[0]], x[changed[0]].mean(), rtol=1e-5)
            lost |= set(changed)
        assert lost == set(range(bands))


def test_shuffled_bands_are_the_same_bands_and_grey_ones_are_all_alike():
    x = reflectance(3)
    y = change(x, replace(NONE, shuffle_share=1.0), 0)
    assert sorted(map(bytes, y)) == sorted(map(bytes, x))
    grey = change(x, replace(NONE, grey_share=1.0), 0)
    assert (grey == grey[0]).all()
    assert x.min() <= grey.min() and grey.max() <= x.max()


def test_hue_and_saturation_keep_the_mean_of_the_bands():
    x = reflectance(3)
    for a in (replace(NONE, hue=90.0), replace(NONE, saturation=0.5)):
        for seed in range(10):
            np.testing.assert_allclose(change(x, a, seed).mean(axis=0), x.mean(axis=0), atol=1e-6)


def test_statistics_move_towards_those_of_the_other_chip():
    x, other = reflectance(3) * 0.3, reflectance(3, 12) * 1.5

    def mean(v):
        return np.log1p(50 * v).mean(axis=(1, 2))

    for seed in range(20):
        far = np.random.default_rng(seed).uniform()
        y = move_statistics(np.random.default_rng(seed), x, other)
        assert y.dtype == np.float32 and (y >= 0).all()
        np.testing.assert_allclose(mean(y), mean(x) + far * (mean(other) - mean(x)), atol=0.02)
        np.testing.assert_allclose(move_statistics(np.random.default_rng(seed), x, x), x, atol=1e-5)


class _Far:
    """A generator that says how far."""

    def __init__(self, far):
        self._far = far

    def uniform(self):
        return self._far


def _correlated(bands, side, seed, spread):
    """Reflectance whose bands go together in a way of their own."""
    rng = np.random.default_rng(seed)
    mixture = (np.eye(bands) + 0.3 * rng.normal(size=(bands, bands))) * spread
    logs = np.tensordot(mixture, rng.normal(size=(bands, side, side)), 1) + 3
    return (np.expm1(logs.clip(0.1, None)) / 50).astype(np.float32)


def test_covariance_moves_to_that_of_the_other_chip_over_the_shortest_way():
    def spectra(v):
        return np.log1p(50 * v.astype(np.float64)).reshape(len(v), -1)

    x, other = _correlated(4, 64, 1, 0.3), _correlated(4, 48, 2, 0.25)
    mine, theirs = spectra(x), spectra(other)
    moved = spectra(move_covariance(_Far(1.0), x, other))
    np.testing.assert_allclose(moved.mean(axis=1), theirs.mean(axis=1), atol=0.01)
    # The 0.03 that keeps even chips from being divided by nothing is all that it lacks.
    np.testing.assert_allclose(np.cov(moved), np.cov(theirs), atol=0.01)
    # Of all linear maps that do so, it is the symmetric one without negative eigenvalues.
    centred = [v - v.mean(axis=1, keepdims=True) for v in (mine, moved)]
    way = np.linalg.lstsq(centred[0].T, centred[1].T, rcond=None)[0]
    np.testing.assert_allclose(way, way.T, atol=0.01)
    assert np.linalg.eigvalsh((way + way.T) / 2).min() > 0
    # Half of the way is half of the way.
    half = spectra(move_covariance(_Far(0.5), x, other))
    np.testing.assert_allclose(half, (mine + moved) / 2, atol=0.01)


@pytest.mark.parametrize("far", [0.0, 0.3, 1.0])
def test_covariance_leaves_a_chip_as_it_is_beside_itself(far):
    x = _correlated(4, 32, 3, 0.1)
    np.testing.assert_allclose(move_covariance(_Far(far), x, x), x, rtol=1e-4, atol=1e-6)


def test_an_even_chip_gets_no_noise_of_another_ones_contrast():
    even = np.full((4, 32, 32), 0.2, np.float32)
    even += np.random.default_rng(0).normal(0, 1e-5, even.shape).astype(np.float32)
    y = move_covariance(_Far(1.0), even, _correlated(4, 32, 4, 0.3))
    assert np.isfinite(y).all() and (y >= 0).all()
    assert (
        np.log1p(50 * y).std(axis=(1, 2)).max() < 3.1 * np.log1p(50 * even).std(axis=(1, 2)).max()
    )


@pytest.mark.parametrize("side", [8, 33, 96])
@pytest.mark.parametrize(
    "kinds", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 2, 3, 4)]
)
def test_weights_of_mixing_lie_between_0_and_1(side, kinds):
    for seed in range(40):
        own = blend_weights(np.random.default_rng(seed), side, kinds)
        assert own.shape == (side, side) and own.dtype == np.float32
        assert own.min() >= 0 and own.max() <= 1
        if kinds == (1, 0, 0, 0):
            assert np.ptp(own) == 0 and 0 < own[0, 0] < 1
        if kinds == (0, 0, 0, 1):
            assert set(np.unique(own)) <= {0.0, 1.0}
        if kinds == (0, 1, 0, 0):
            assert set(np.unique(own)) <= {0.0, 1.0} and own.min() == 0


def test_smooth_fields_have_mean_0_and_deviation_1():
    for seed in range(10):
        field = smooth_field(np.random.default_rng(seed), 64, 2, 8)
        assert abs(field.mean()) < 1e-4 and field.std() == pytest.approx(1, abs=1e-2)
        step = np.abs(np.diff(field, axis=1)).max()
        assert step < np.ptp(field) / 3


def test_grains_are_small():
    """Half of the pixels or so lie in runs of one sign that are a few pixels long."""
    for seed in range(10):
        field = grains(np.random.default_rng(seed), 96)
        assert abs(field.mean()) < 1e-4 and field.std() == pytest.approx(1, abs=1e-2)
        changes = (np.diff(np.sign(field), axis=1) != 0).mean()
        assert 1 / changes < 12


def test_sharpened_chips_are_rougher_and_no_darker_than_a_tenth():
    x = reflectance(3, 48)
    sharp = replace(NONE, sharpen=3.0, sharpen_share=1.0)
    for seed in range(10):
        y = roughen(np.random.default_rng(seed), x, sharp)
        assert y.std() > x.std() and (y >= 0.0999 * x).all()


def test_speckle_is_the_same_in_all_bands_and_leaves_the_mean_logarithm():
    x = reflectance(3, 48)
    y = roughen(np.random.default_rng(1), x, replace(NONE, speckle=0.3, speckle_share=1.0))
    ratio = np.log(y / x)
    np.testing.assert_allclose(ratio[1:], ratio[:1].repeat(2, 0), atol=1e-5)
    assert abs(ratio.mean()) < 1e-3 and 0.003 < ratio.std() < 0.31


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (1, 1)])
def test_coarsening_averages_areas_of_what_is_known(size):
    rng = np.random.default_rng(0)
    pixels, probs = rng.random((2, 6, 10)), rng.dirichlet((1, 1, 1), (6, 10)).transpose(2, 0, 1)
    valid = rng.random((6, 10)) < 0.6
    down, across = 6 // size[0], 10 // size[1]

    def blocks(x):
        return x.reshape(*x.shape[:-2], size[0], down, size[1], across)

    area = blocks(valid).sum(axis=(-3, -1))
    expected = blocks(probs * valid).sum(axis=(-3, -1)) / np.maximum(area, 1)
    tensors = (torch.from_numpy(x) for x in (pixels, probs, valid))
    coarse, target, known = coarsen(*tensors, size)
    np.testing.assert_allclose(coarse, blocks(pixels).mean(axis=(-3, -1)))
    np.testing.assert_allclose(target[:, area > 0], expected[:, area > 0], atol=1e-6)
    np.testing.assert_array_equal(known, area > down * across / 2)


def test_turning_and_flipping_gives_the_eight_ways_to_lay_a_square():
    x = torch.arange(9).view(1, 3, 3)
    ways = {tuple(turn(x, t, f).flatten().tolist()) for t in range(4) for f in (False, True)}
    assert len(ways) == 8
    assert torch.equal(turn(x, 0, False), x)
    stack = torch.stack((x[0], x[0] * 10))
    assert torch.equal(turn(stack, 3, True)[1], 10 * turn(x, 3, True)[0])


def test_resizing_keeps_a_ramp_in_its_place():
    """Corners are not aligned: pixel i of the result is centred on (i + 0.5) * own / side."""
    ramp = torch.arange(40, dtype=torch.float64).expand(1, 40, 40)
    for side in (20, 30, 40, 64):
        got = resize(ramp, side, side)[0, 0]
        expected = (torch.arange(side) + 0.5) * 40 / side - 0.5
        torch.testing.assert_close(got[4:-4], expected[4:-4].to(got.dtype), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gain": -0.1}, r"gain is -0\.1; it must be 0 and above"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"dropout": 1.5}, r"dropout is 1\.5; it must be 0 to 1"),
        ({"haze_share": 2.0}, "haze_share is 2"),
        ({"haze": 0.3}, r"haze is 0\.3; it must be 0 to 0\.2"),
        ({"zoom": (2.0, 1.0)}, "zoom is"),
        ({"gsd_max": 0.5}, r"gsd_max is 0\.5; it must be 1 at least"),
        ({"mix_kinds": (0.0, 0.0, 0.0, 0.0)}, "mix_kinds"),
        ({"mix_kinds": (1.0, -1.0, 1.0, 0.0)}, "mix_kinds"),
        ({"mix_kinds": (1.0, 1.0, 1.0)}, "give four shares"),
    ],
)
def test_a_wrong_number_is_explained(values, message):
    with pytest.raises(TrainingError, match=message):
        Augmentation(**values)
