"""decide() against numpy's argmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoseg.prediction.decide import decide


@pytest.mark.parametrize("classes", [1, 2, 8, 255])
@pytest.mark.parametrize("steps", [2, 1 << 20])
def test_it_is_numpys_argmax_whose_ties_go_to_the_first(classes: int, steps: int) -> None:
    rng = np.random.default_rng(classes)
    whole = rng.integers(0, steps, (classes, 40, 33)).astype(np.float32) / steps
    probs = whole[:, 3:20, ::2]  # a part of a buffer
    valid = rng.random((40, 40))[:17, 1:18] < 0.8
    legend = rng.permutation(255).astype(np.uint8)[:classes]
    for given in (probs, torch.from_numpy(probs)):
        decided = decide(given, valid, legend, 255)
        assert decided.ids.dtype == np.uint8 and decided.finite
        expected = np.where(valid, legend[probs.argmax(axis=0)], 255)
        np.testing.assert_array_equal(decided.ids, expected)
        np.testing.assert_array_equal(decided.best, probs.max(axis=0))
        np.testing.assert_array_equal(decided.counts, [(expected == i).sum() for i in legend])


@pytest.mark.parametrize("width", [127, 128, 129, 256, 1025])
def test_many_pixels_of_a_class_are_counted(width: int) -> None:
    probs = np.zeros((2, 3, width), np.float32)
    probs[1] = 1.0
    valid = np.ones((3, width), np.bool_)
    decided = decide(probs, valid, np.array([4, 0], np.uint8), 255)
    assert decided.counts.tolist() == [0, 3 * width]


def test_it_leaves_the_probabilities_as_they_are() -> None:
    probs = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)
    before = probs.copy()
    decide(probs, np.ones((4, 5), np.bool_), np.arange(3, dtype=np.uint8), 255)
    np.testing.assert_array_equal(probs, before)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_is_not_finite_is_the_likeliest_and_told(where: int, number: float) -> None:
    probs = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)
    legend, valid = np.arange(3, dtype=np.uint8), np.ones((4, 5), np.bool_)
    expected = decide(probs, valid, legend, 255)
    probs[where, 1, 2] = number
    for given in (probs, torch.from_numpy(probs)):
        decided = decide(given, valid, legend, 255)
        assert not decided.finite
        assert (~np.isfinite(decided.best)).sum() == 1 and not np.isfinite(decided.best[1, 2])
        same = np.arange(20) != 7
        np.testing.assert_array_equal(decided.ids.ravel()[same], expected.ids.ravel()[same])
        # Of a pixel that was not measured nobody asks.
        hidden = valid.copy()
        hidden[1, 2] = False
        decided = decide(given, hidden, legend, 255)
        assert decided.finite and decided.ids[1, 2] == 255 and decided.counts.sum() == 19
