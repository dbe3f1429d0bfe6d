"""geoseg.derived: a teacher's further bands from those that the network sees."""

from __future__ import annotations

import numpy as np
import pytest

from geoseg.derived import LEAST, MOST, DerivedBands
from geoseg.split import TRAIN, VALIDATION
from tests.trainhelpers import scene_of


def scene(pixels: np.ndarray):
    return scene_of(pixels.astype(np.float32), np.zeros(pixels.shape[1:], int))


def spectra(seed: int) -> np.ndarray:
    """Two bands and a third one that is a quadratic function of their logarithms, between them."""
    rng = np.random.default_rng(seed)
    two = rng.uniform(0.02, 0.4, (2, 80, 80))
    a, b = np.log1p(50 * two)
    third = np.expm1(0.1 + 0.5 * a + 0.4 * b - 0.01 * a * b + 0.005 * a**2) / 50
    return np.concatenate([two, third[None]])


def test_a_function_of_the_own_bands_is_found_again():
    pixels = spectra(0)
    inside = (pixels[2] >= LEAST * pixels[:2].min(0)) & (pixels[2] <= MOST * pixels[:2].max(0))
    assert inside.mean() > 0.9
    derive = DerivedBands([scene(spectra(1)), scene(spectra(2))], 2)
    wrong = pixels.astype(np.float32)
    wrong[2] = 0.9
    found = derive(wrong)
    np.testing.assert_array_equal(found[:2], wrong[:2])
    np.testing.assert_allclose(found[2][inside], pixels[2][inside], rtol=2e-3)
    assert (wrong[2] == np.float32(0.9)).all()


def test_held_out_and_unmeasured_pixels_have_no_part_in_the_fit():
    whole = scene(spectra(1))
    derive = DerivedBands([whole], 2)
    spoiled = scene(np.where(np.arange(80) < 40, spectra(1), 0.7))
    spoiled.sides[:] = TRAIN
    spoiled.sides[:, 40:60] = VALIDATION
    spoiled.measured[:, 60:] = False
    pixels = spectra(3).astype(np.float32)
    found = DerivedBands([spoiled], 2)(pixels)
    np.testing.assert_allclose(found, derive(pixels), rtol=2e-3)


@pytest.mark.parametrize("value", [-0.1, 0.0, 1e-6, 1.0, 5.0, 1e6])
def test_spectra_beyond_all_that_is_known_give_sound_numbers(value):
    derive = DerivedBands([scene(spectra(1))], 2)
    pixels = spectra(4).astype(np.float32)
    pixels[0, :40] = value
    pixels[1, :, :40] = value
    found = derive(pixels)[2]
    assert np.isfinite(found).all() and (found >= 0).all()
    assert (found <= MOST * pixels[:2].max(axis=0).clip(0) * 1.000001).all()


def test_chips_of_every_size_are_derived_pixel_by_pixel():
    derive = DerivedBands([scene(spectra(1))], 2)
    pixels = spectra(5).astype(np.float32)
    part = derive(pixels[:, 3:20, 5:9])
    np.testing.assert_allclose(part, derive(pixels)[:, 3:20, 5:9], rtol=1e-5)
