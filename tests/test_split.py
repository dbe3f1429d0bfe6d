"""geoseg.training.split: dealing places into folds, and the sides of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_cdt

from geoseg.errors import TrainingError
from geoseg.training.split import MARGIN, TRAIN, VALIDATION, SplitConfig, deal, fill_blocks


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(1, 25),
    st.integers(0, 20),
    st.integers(0, 2**32 - 1),
)
def test_sides_follow_from_the_distance_to_held_out_blocks(shape, block, margin, seed):
    down, across = (-(-n // block) for n in shape)
    held = np.random.default_rng(seed).random((down, across)) < 0.3
    sides = np.full(shape, 77, np.uint8)
    fill_blocks(sides, block, held, margin)
    out = held.repeat(block, axis=0).repeat(block, axis=1)[: shape[0], : shape[1]]
    far = distance_transform_cdt(~out, "chessboard") if out.any() else np.full(shape, 10**6)
    expected = np.where(far > margin, TRAIN, np.where(out, VALIDATION, MARGIN))
    np.testing.assert_array_equal(sides, expected)


@given(
    st.integers(2, 7),
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.integers(0, 99),
)
def test_places_of_one_class_and_size_are_dealt_evenly(folds, places, seed):
    """Of each class, the fold with most has one place more than that with fewest."""
    if sum(places) < folds:
        places = [*places, folds]
    counts = np.concatenate([np.eye(len(places))[[k] * n] for k, n in enumerate(places)])
    counts = (counts * 100).astype(np.int64)
    fold = deal(counts, folds, seed)
    for k in range(len(places)):
        held = np.bincount(fold[counts[:, k] > 0], minlength=folds)
        assert held.max() - held.min() <= 1


def spread(counts, fold, folds):
    """How far the folds' shares of each class lie apart, added up."""
    share = counts / np.maximum(counts.sum(axis=0), 1)
    held = np.stack([share[fold == f].sum(axis=0) for f in range(folds)])
    return float(np.ptp(held, axis=0).sum())


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_mixed_places_are_dealt_more_evenly_than_by_chance(folds):
    rng = np.random.default_rng(folds)
    for seed in range(10):
        # Few places hold most of a rare class, as scenes do.
        counts = (rng.dirichlet((5, 1, 0.05), 40) * rng.integers(50, 1000, (40, 1))).astype(int)
        chance = [
            spread(counts, np.random.default_rng(i).permutation(np.arange(40) % folds), folds)
            for i in range(50)
        ]
        assert spread(counts, deal(counts, folds, seed), folds) < np.percentile(chance, 10)


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_every_place_with_labels_is_in_one_fold_and_no_other_place_in_any(folds, seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, (30, 2)) * rng.integers(0, 2, (30, 1))
    if (counts.sum(axis=1) > 0).sum() < folds:
        return
    fold = deal(counts, folds, seed)
    np.testing.assert_array_equal(fold >= 0, counts.sum(axis=1) > 0)
    assert set(fold[fold >= 0]) == set(range(folds))
    np.testing.assert_array_equal(fold, deal(counts.copy(), folds, seed))


def test_another_seed_deals_equal_places_otherwise():
    counts = np.full((40, 1), 7)
    dealt = {tuple(deal(counts, 4, seed).tolist()) for seed in range(5)}
    assert len(dealt) == 5


def test_too_few_places_are_counted():
    with pytest.raises(
        TrainingError, match=r"2 places have labels, .* into 3 parts .*--fold 1/2.*--block"
    ):
        deal(np.array([[5], [0], [1]]), 3, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"by": "tiles"}, "by 'tiles'; it is by one of scenes, blocks, files, groups, random"),
        ({"folds": 1}, "folds is 1; 2 at least"),
        ({"fold": 6}, "fold is 6; it must be 1 to 5"),
        ({"fold": 0}, "fold is 0"),
        ({"block": 4}, "block is 4 px"),
        ({"margin": -1}, "margin is -1 px"),
        ({"seed": -1}, "the split's seed is -1"),
        ({"left_out": ("a",)}, "name groups and the split is by scenes"),
        (
            {"by": "groups", "chosen_by": ("a", "b"), "left_out": ("b",)},
            "b is in chosen_by and in left_out",
        ),
    ],
)
def test_a_wrong_split_is_explained(values, message):
    with pytest.raises(TrainingError, match=message):
        SplitConfig(**values)
