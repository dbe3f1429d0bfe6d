"""Calibration against torchmetrics and against temperatures that are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassCalibrationError

from geoseg.evaluation import calibration
from geoseg.evaluation.calibration import BINS, Reliability, fit_temperature


def drawn(n, classes=4, spread=2.0, seed=0):
    """Probabilities that are right: each pixel's class is drawn by them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (n, classes))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (probs.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=classes - 1)
    return logits, probs, truth


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def scores(probs, truth, least=1e-12, cuts=()):
    probs = np.asarray(probs, np.float32)
    found = Reliability(probs.shape[1], least)
    edges = [0, *sorted(cuts), len(truth)]
    for a, b in itertools.pairwise(edges):
        part = np.s_[a:b]
        found.add(probs[part], truth[part], probs[part].argmax(axis=1), np.arange(a, b))
    return found.finish()


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 7])
def test_errors_are_those_of_torchmetrics(factor, classes):
    logits, _, truth = drawn(5000, classes)
    probs = softmax(factor * logits).astype(np.float32)
    found = scores(probs, truth)
    for norm, value in (("l1", found.ece), ("max", found.mce)):
        metric = MulticlassCalibrationError(classes, n_bins=BINS, norm=norm)
        expected = metric(torch.from_numpy(probs), torch.from_numpy(truth)).item()
        # It sums in float32, and has a bin of its own for a probability of exactly 1.
        assert value == pytest.approx(expected, abs=1e-5)


def test_scores_by_their_definitions():
    logits, _, truth = drawn(700)
    probs = softmax(1.7 * logits).astype(np.float32).astype(np.float64)
    found = scores(probs, truth)
    winner, best = probs.argmax(axis=1), probs.max(axis=1)
    for k in range(BINS):
        mine = (best > k / BINS) & (best <= (k + 1) / BINS)
        assert found.pixels[k] == mine.sum()
        if mine.any():
            assert found.confidence[k] == pytest.approx(best[mine].mean())
            assert found.accuracy[k] == pytest.approx((winner == truth)[mine].mean())
        else:
            assert np.isnan(found.confidence[k]) and np.isnan(found.accuracy[k])
    one_hot = np.eye(4)[truth]
    assert found.brier == pytest.approx(((probs - one_hot) ** 2).sum(axis=1).mean(), rel=1e-6)
    expected = -np.log(probs[np.arange(700), truth]).mean()
    assert found.nll == pytest.approx(expected, rel=1e-5)
    assert found.unlikely == 0 and found.sampled == 700


@pytest.mark.parametrize("factor", [0.25, 1.0, 2.0, 5.0])
def test_a_known_temperature_is_found(factor):
    """Logits that were multiplied by a number need that number as temperature."""
    logits, _, truth = drawn(200_000, spread=1.5)
    found = scores(softmax(factor * logits), truth)
    assert found.temperature == pytest.approx(factor, rel=0.02)
    assert found.ece_after < 0.006
    assert found.nll_after <= found.nll + 1e-9
    assert found.ece_sampled == pytest.approx(found.ece, abs=1e-5)


def test_no_other_temperature_is_better():
    logits, _, truth = drawn(3000)
    logs = np.log(softmax(2.2 * logits)).astype(np.float32)
    best = fit_temperature(logs, truth)

    def nll(t):
        soft = np.log(softmax(logs.astype(np.float64) / t))
        return -soft[np.arange(len(truth)), truth].mean()

    assert all(nll(best) <= nll(best * f) for f in (0.9, 0.99, 1.01, 1.1))


def test_where_no_temperature_is_best_there_is_none():
    probs = np.full((50, 3), [0.6, 0.3, 0.1], np.float32)
    assert math.isnan(scores(probs, np.zeros(50, int)).temperature)  # always right
    assert math.isnan(scores(probs, np.full(50, 2)).temperature)  # the less likely the more often
    none = scores(probs[:0], np.zeros(0, int))
    assert math.isnan(none.temperature) and math.isnan(none.ece) and math.isnan(none.brier)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3000), max_size=12), st.sampled_from([10**6, 500, 1]))
def test_it_does_not_matter_where_the_map_is_cut(cuts, sample):
    logits, _, truth = drawn(3000)
    probs = softmax(2 * logits)
    before = calibration.SAMPLE_PIXELS
    try:
        calibration.SAMPLE_PIXELS = sample
        whole, cut = scores(probs, truth), scores(probs, truth, cuts=cuts)
    finally:
        calibration.SAMPLE_PIXELS = before
    assert whole.sampled == cut.sampled == min(sample, 3000)
    for name in ("temperature", "nll_after", "ece_after", "ece_sampled"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(cut, name))
    for one, other in zip(vars(whole).values(), vars(cut).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_the_sample_is_even(monkeypatch):
    monkeypatch.setattr(calibration, "SAMPLE_PIXELS", 4000)
    logits, _, truth = drawn(100_000)
    found = Reliability(4, 1e-12)
    probs = softmax(3 * logits).astype(np.float32)
    found.add(probs, truth, probs.argmax(axis=1), np.arange(len(truth)))
    every = calibration._scramble(np.arange(len(truth)))
    assert len(np.unique(every)) == len(truth)
    kept = np.flatnonzero(np.isin(every, found._hash))
    counts = np.histogram(kept, 10, (0, len(truth)))[0]
    assert len(kept) == 4000 and abs(counts - 400).max() < 4 * math.sqrt(400)
    assert found.finish().temperature == pytest.approx(3, rel=0.1)


def test_eight_bits_are_nearly_enough_for_a_temperature():
    logits, _, truth = drawn(100_000, spread=1.5)
    probs = np.rint(softmax(2 * logits) * 254) / 254
    found = scores(probs, truth, least=0.5 / 254)
    assert found.temperature == pytest.approx(2, rel=0.1)
