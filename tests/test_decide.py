"""decide() against numpy's argmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoseg.decide import decide


@pytest.mark.parametrize("classes", [1, 2, 8, 255])
@pytest.mark.parametrize("steps", [2, 1 << 20])
def test_it_is_numpys_argmax_whose_ties_go_to_the_first(classes: int, steps: int) -> None:
    rng = np.random.default_rng(classes)
    whole = rng.integers(0, steps, (classes, 40, 33)).astype(np.float32) / steps
    probs = whole[:, 3:20, ::2]  # a part of a buffer, as strips are
    for given in (probs, torch.from_numpy(probs)):
        winner, best = decide(given)
        assert winner.dtype == np.uint8
        np.testing.assert_array_equal(winner, probs.argmax(axis=0))
        np.testing.assert_array_equal(best, probs.max(axis=0))


def test_it_leaves_the_probabilities_as_they_are() -> None:
    probs = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)
    before = probs.copy()
    decide(probs)
    np.testing.assert_array_equal(probs, before)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_nan_is_the_likeliest(where: int) -> None:
    probs = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)
    probs[where, 1, 2] = np.nan
    winner, best = decide(probs)
    assert np.isnan(best).sum() == 1 and np.isnan(best[1, 2])
    assert winner.max() < 3
    probs[:, 1, 2] = 0
    np.testing.assert_array_equal(np.delete(winner, 7), np.delete(probs.argmax(axis=0), 7))
