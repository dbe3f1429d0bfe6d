"""Polygons as objects, counted one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geoseg.evaluation.polygon_scores import Objects
from geoseg.labels.polygons import PixelsOfFeatures


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.integers(-1, 2), max_size=9)),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 20),
)
def test_shares_are_those_of_each_polygon(polygons, step):
    own = np.array([k for k, _ in polygons])
    pixels = [(f, v) for f, (_, values) in enumerate(polygons) for v in values]
    found = Objects(own, 3)
    for start in range(0, len(pixels), step):
        feature, places = np.array(pixels[start : start + step]).T
        col = np.arange(len(feature))
        found.add(PixelsOfFeatures(feature, np.zeros_like(col), col), places[None].astype(np.int16))
    scores = found.finish()
    shares, right, classes = [], [], []
    for k, values in polygons:
        counted = [v for v in values if v >= 0]
        if counted:
            times = [counted.count(j) for j in range(3)]
            others = [n for j, n in enumerate(times) if j != k]
            shares.append(times[k] / len(counted))
            right.append(times[k] > max(others))
            classes.append(k)
    groups = [(k, np.array(classes) == k) for k in range(3)]
    groups.append((3, np.full(len(classes), True)))
    for place, mine in groups:
        n = int(mine.sum())
        total = sum(1 for k, _ in polygons if place in (k, 3))
        assert (scores.polygons[place], scores.empty[place]) == (n, total - n)
        if n:
            assert np.isclose(scores.right[place], np.array(right)[mine].mean())
            assert np.isclose(scores.mean_share[place], np.array(shares)[mine].mean())
            assert np.isclose(scores.median_share[place], np.median(np.array(shares)[mine]))
        else:
            values = (scores.right, scores.mean_share, scores.median_share)
            assert all(np.isnan(v[place]) for v in values)
