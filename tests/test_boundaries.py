"""Boundary F1 against whole images and distance transforms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.evaluation.boundary_f1 import Boundaries

GSDS = [(10.0, 10.0), (7.0, 13.0), (30.0, 4.0)]


def image(seed, height=40, width=33, classes=4):
    """Patches of classes, some pixels of noise, and holes of -1."""
    rng = np.random.default_rng(seed)
    out = np.kron(rng.integers(0, classes, (8, 7)), np.ones((5, 5), int))[:height, :width]
    noise = rng.random(out.shape)
    out = np.where(noise < 0.05, rng.integers(0, classes, out.shape), out)
    return out.astype(np.int16)


def pair(seed):
    """Labels and a map that is like them, moved a bit; -1 in both where one is missing."""
    truth = image(seed)
    mapped = np.roll(image(seed), (1, 2), (0, 1))
    missing = np.kron(np.random.default_rng(seed).random((8, 7)) < 0.15, np.ones((5, 5), bool))
    missing = missing[: truth.shape[0], : truth.shape[1]]
    truth[missing] = mapped[missing] = -1
    return truth, mapped


def borders(places, k):
    """Pixels of class k that have a neighbour of another class, one by one."""
    out = np.zeros(places.shape, bool)
    for row, col in np.argwhere(places == k):
        for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
            inside = 0 <= r < places.shape[0] and 0 <= c < places.shape[1]
            out[row, col] |= inside and places[r, c] >= 0 and places[r, c] != k
    return out


def oracle(truth, mapped, gsd, tolerance, classes):
    """(met, all) border pixels of the labels and of the map, by class."""
    out = np.zeros((2, 2, classes), int)
    for k in range(classes):
        masks = [borders(side, k) for side in (truth, mapped)]
        for side in (0, 1):
            other = masks[1 - side]
            far = ndimage.distance_transform_edt(~other, sampling=gsd[::-1])
            near = (far <= tolerance * (1 + 1e-9)) & other.any()
            out[side, 0, k] = (masks[side] & near).sum()
            out[side, 1, k] = masks[side].sum()
    return out


def scores(truth, mapped, gsd, tolerance, classes=4, cuts=()):
    found = Boundaries(classes, gsd, tolerance)
    edges = [0, *sorted(cuts), len(truth)]
    for top, bottom in itertools.pairwise(edges):
        if bottom > top:
            found.add(truth[top:bottom].copy(), mapped[top:bottom].copy())
    return found.finish()


@pytest.mark.parametrize("gsd", GSDS)
@pytest.mark.parametrize("tolerance", [0, 9.9, 10, 20, 30, 31.7, 500])
@pytest.mark.parametrize("seed", range(3))
def test_border_pixels_are_met_as_distance_transforms_say(gsd, tolerance, seed):
    truth, mapped = pair(seed)
    (met_l, all_l), (met_m, all_m) = oracle(truth, mapped, gsd, tolerance, 4)
    found = scores(truth, mapped, gsd, tolerance)
    assert found.labelled.tolist() == all_l.tolist() and found.mapped.tolist() == all_m.tolist()
    np.testing.assert_allclose(found.recall, met_l / all_l)
    np.testing.assert_allclose(found.precision, met_m / all_m)
    p, r = found.precision, found.recall
    harmonic = 2 * p * r / np.maximum(p + r, 1e-9)
    np.testing.assert_allclose(found.f1, harmonic)
    assert found.mean_f1 == pytest.approx(found.f1.mean())


@settings(max_examples=60)
@given(
    st.integers(0, 5),
    st.lists(st.integers(0, 40), max_size=40),
    st.sampled_from(GSDS),
    st.floats(0, 200),
)
def test_it_does_not_matter_where_the_image_is_cut(seed, cuts, gsd, tolerance):
    truth, mapped = pair(seed)
    whole, cut = (scores(truth, mapped, gsd, tolerance, cuts=c) for c in ((), cuts))
    for one, other in zip(vars(whole).values(), vars(cut).values(), strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.integers(0, 9), st.sampled_from(GSDS))
def test_an_image_meets_its_own_borders(seed, gsd):
    truth, _ = pair(seed)
    found = scores(truth, truth, gsd, 0.0)
    assert set(found.f1.tolist()) == {1.0} == {found.mean_f1}


@given(st.integers(0, 5), st.floats(0, 100), st.floats(0, 100))
def test_a_wider_tolerance_never_meets_less(seed, one, other):
    truth, mapped = pair(seed)
    near, wide = (scores(truth, mapped, (10, 10), t) for t in sorted((one, other)))
    assert (near.recall <= wide.recall).all() and (near.precision <= wide.precision).all()


def test_a_straight_border_that_is_moved():
    truth = np.zeros((20, 20), np.int16)
    truth[:, 10:] = 1
    for moved in range(4):
        mapped = np.roll(truth, moved, axis=1)
        mapped[:, :moved] = 0
        for tolerance in range(4):
            found = scores(truth, mapped, (1, 1), tolerance, classes=3)
            assert found.f1[:2].tolist() == [float(moved <= tolerance)] * 2
            assert np.isnan(found.f1[2])


def test_the_edge_of_what_is_known_is_no_border():
    truth = np.full((9, 9), -1, np.int16)
    truth[2:5, 2:5] = 1
    found = scores(truth, truth, (1, 1), 2, classes=2)
    assert found.labelled.tolist() == [0, 0] and np.isnan(found.mean_f1)


def test_a_border_that_the_map_lacks_scores_nothing():
    mapped = np.zeros((9, 9), np.int16)
    truth = mapped.copy()
    truth[4:] = 1
    found = scores(truth, mapped, (1, 1), 2, classes=2)
    assert found.f1.tolist() == [0, 0] and found.labelled.tolist() == [9, 9]
    assert found.recall.tolist() == [0, 0] and np.isnan(found.precision).all()
    assert found.mean_f1 == 0


def test_without_a_border_in_the_labels_the_score_is_undefined():
    """Classes 0 and 1 touch in the labels, and class 2 stands alone; one pixel of it is wrong."""
    truth = np.full((12, 12), -1, np.int16)
    truth[:5, :4], truth[:5, 4:8], truth[7:, :4] = 0, 1, 2
    mapped = truth.copy()
    mapped[9, 1] = 1
    found = scores(truth, mapped, (1, 1), 0, classes=3)
    assert found.labelled.tolist() == [5, 5, 0] and found.mapped.tolist() == [5, 6, 4]
    # Of class 1 five of the map's six border pixels are met, and all five of the labels'.
    assert found.f1[:2].tolist() == [1, pytest.approx(10 / 11)] and np.isnan(found.f1[2])
    assert found.mean_f1 == pytest.approx((1 + 10 / 11) / 2)
