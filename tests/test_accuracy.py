"""Olofsson et al. 2014: their example, the corners, and a world whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import EvaluationError, UsageError
from geoseg.evaluation.area_estimates import estimate, sample_size

#: The paper's sample counts: deforestation, forest gain, stable forest, stable non-forest.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
SHARES = np.array([0.02, 0.015, 0.32, 0.645])


def test_the_papers_example():
    found = estimate(COUNTS, SHARES * 10_000_000)
    assert found.overall.value == pytest.approx(0.947, abs=5e-4)
    assert found.overall.margin == pytest.approx(0.018, abs=5e-4)
    np.testing.assert_allclose(found.users.value, [0.88, 0.73, 0.93, 0.96], atol=0.005)
    np.testing.assert_allclose(found.users.margin, [0.07, 0.10, 0.04, 0.02], atol=0.005)
    np.testing.assert_allclose(found.producers.value, [0.75, 0.85, 0.93, 0.96], atol=0.0051)
    np.testing.assert_allclose(found.producers.margin, [0.21, 0.25, 0.03, 0.02], atol=0.005)
    assert found.areas.value[0] == pytest.approx(235_086, abs=0.5)
    assert found.areas.margin[0] == pytest.approx(68_418, abs=0.5)
    assert found.areas.low[0] == pytest.approx(235_086 - 68_418, abs=1)
    assert found.areas.high[0] == pytest.approx(235_086 + 68_418, abs=1)
    # The first row of its error matrix in shares of the area.
    np.testing.assert_allclose(found.matrix[0], [0.0176, 0, 0.0013, 0.0011], atol=5e-5)


def test_formulas_written_out_by_hand():
    """Eq. 1 to 11 as loops over classes, with nothing shared with the module."""
    found = estimate(COUNTS, SHARES)
    n, w, q = COUNTS.sum(axis=1), SHARES, 4
    p = [[w[i] * COUNTS[i, j] / n[i] for j in range(q)] for i in range(q)]
    for j in range(q):
        column = sum(p[i][j] for i in range(q))
        u, r = COUNTS[j, j] / n[j], p[j][j] / column
        error = sum(
            (w[i] * p[i][j] - p[i][j] ** 2) / (n[i] - 1)
            for i in range(q)  # eq. 10
        )
        assert found.areas.standard_error[j] == pytest.approx(error**0.5)
        own = w[j] ** 2 * (1 - r) ** 2 * u * (1 - u) / (n[j] - 1)
        others = sum(
            w[i] ** 2 * COUNTS[i, j] / n[i] * (1 - COUNTS[i, j] / n[i]) / (n[i] - 1)
            for i in range(q)
            if i != j
        )
        assert found.producers.standard_error[j] ** 2 == pytest.approx(
            (own + r**2 * others) / column**2
        )


@pytest.mark.slow
def test_unbiased_and_intervals_cover_95_percent():
    rng = np.random.default_rng(0)
    pixels = np.array([4_000, 16_000, 80_000])
    truth = np.array([[0.8, 0.15, 0.05], [0.1, 0.85, 0.05], [0.02, 0.08, 0.9]])
    world = np.rint(pixels[:, None] * truth).astype(int)  # map class by true class
    area, right = world.sum(axis=0), np.trace(world) / world.sum()
    producer = np.diag(world) / area
    drawn = np.array([100, 100, 200])
    runs = 2_000
    tables = np.stack(
        [
            rng.multivariate_hypergeometric(world[i], drawn[i], size=runs, method="marginals")
            for i in range(3)
        ],
        axis=1,
    )
    found = [estimate(table, pixels) for table in tables]
    for name, expected in (("areas", area), ("overall", right), ("producers", producer)):
        value = np.array([getattr(f, name).value for f in found])
        margin = np.array([getattr(f, name).margin for f in found])
        bias = value.mean(axis=0) - expected
        # Producer's accuracy is a ratio, so it is unbiased only as samples grow.
        slack = 4.0 if name != "producers" else 12.0
        assert (np.abs(bias) < slack * value.std(axis=0) / runs**0.5).all(), name
        covered = (np.abs(value - expected) <= margin).mean(axis=0)
        assert (covered > 0.92).all() and (covered < 0.975).all(), (name, covered)
        # What the formula says of its own spread is the spread that is seen.
        np.testing.assert_allclose((margin / 1.96).mean(axis=0), value.std(axis=0), rtol=0.08)


def test_a_single_point_tells_no_standard_error():
    found = estimate(np.array([[1, 0], [2, 8]]), [10, 90])
    assert found.users.value[0] == 1 and np.isnan(found.users.standard_error[0])
    assert found.overall.value == pytest.approx(0.1 + 0.9 * 0.8)
    assert np.isnan(found.overall.standard_error)
    assert np.isnan(found.areas.standard_error).all()
    assert found.users.standard_error[1] == pytest.approx((0.8 * 0.2 / 9) ** 0.5)


def test_a_class_that_was_looked_at_everywhere_has_no_sampling_error():
    found = estimate(np.array([[1, 0], [2, 8]]), [10, 90], complete=[True, False])
    assert found.users.standard_error[0] == 0
    rest = estimate(np.array([[2, 8], [2, 8]])[[1, 1]], [10, 90])  # the other class alone
    assert found.users.standard_error[1] == rest.users.standard_error[1]
    assert found.overall.standard_error == pytest.approx(0.9 * found.users.standard_error[1])


def test_a_class_that_only_the_reference_knows():
    found = estimate(np.array([[9, 0, 1], [0, 10, 0], [0, 0, 0]]), [50, 50, 0])
    assert found.areas.value == pytest.approx([45, 50, 5])
    assert np.isnan(found.users.value[2]) and np.isnan(found.users.standard_error[2])
    assert found.producers.value[2] == found.producers.standard_error[2] == 0
    assert np.isfinite(found.areas.standard_error).all()


def test_a_class_that_is_nowhere_is_undefined_and_changes_nothing():
    small = estimate(np.array([[9, 1], [2, 8]]), [60, 40])
    large = estimate(np.array([[9, 1, 0], [2, 8, 0], [0, 0, 0]]), [60, 40, 0])
    assert np.isnan(large.producers.value[2]) and np.isnan(large.users.value[2])
    assert large.areas.value[2] == large.areas.standard_error[2] == 0
    for name in ("users", "producers", "areas"):
        np.testing.assert_array_equal(getattr(large, name).value[:2], getattr(small, name).value)
    assert large.overall == small.overall


@pytest.mark.parametrize(
    ("counts", "areas", "words"),
    [
        ([[5, 0], [0, 0]], [1, 1], "no labelled point lies on the class land"),
        ([[5, 0], [0, 5]], [1, 0], "the class land, whose mapped area is 0"),
        ([[5, 0], [0, 5]], [1, 1, 1], "K classes need"),
        ([[5, 0]], [1, 1], "K classes need"),
        ([[5, -1], [0, 5]], [1, 1], "at least 0"),
        ([[5, 0.5], [0, 5]], [1, 1], "whole"),
        ([[5, np.nan], [0, 5]], [1, 1], "finite"),
        ([[5, 0], [0, 5]], [1, np.nan], "finite"),
        ([[0, 0], [0, 0]], [0, 0], "above 0"),
        ([], [], "K classes need"),
    ],
)
def test_what_nothing_can_be_told_from_is_refused(counts, areas, words):
    with pytest.raises(EvaluationError, match=words):
        estimate(np.array(counts), areas, ["water", "land"])


tables = st.integers(1, 5).flatmap(
    lambda k: st.tuples(
        st.lists(st.lists(st.integers(0, 30), min_size=k, max_size=k), min_size=k, max_size=k),
        st.lists(st.floats(0.01, 100), min_size=k, max_size=k),
    )
)


@given(tables)
def test_laws(drawn):
    counts = np.array(drawn[0]) + 2 * np.eye(len(drawn[0]), dtype=int)
    areas = np.array(drawn[1])
    found = estimate(counts, areas)
    assert found.matrix.sum() == pytest.approx(1)
    assert found.areas.value.sum() == pytest.approx(areas.sum())
    # Accuracies weigh themselves together to the overall one, from the map's and the truth's side.
    assert found.users.value @ (areas / areas.sum()) == pytest.approx(found.overall.value)
    truth = found.areas.value / areas.sum()
    assert found.producers.value @ truth == pytest.approx(found.overall.value)
    # Units of the areas change nothing but the areas.
    scaled = estimate(counts, areas * 900)
    np.testing.assert_allclose(scaled.areas.margin, 900 * found.areas.margin)
    np.testing.assert_allclose(scaled.producers.margin, found.producers.margin)
    # Nor does the order of the classes.
    turned = estimate(counts[::-1, ::-1], areas[::-1])
    np.testing.assert_allclose(turned.areas.margin[::-1], found.areas.margin)


def test_sample_size_is_the_papers():
    assert sample_size(SHARES, [0.7, 0.6, 0.9, 0.95], 0.01) == 641
    assert sample_size([3, 1], [1, 1], 0.01) == 1


@pytest.mark.parametrize(("users", "se"), [([0.8], 0), ([0.8], 1), ([0.8], np.nan), ([0], 0.1)])
def test_sample_size_refuses_nonsense(users, se):
    with pytest.raises(UsageError):
        sample_size([1], users, se)
