"""Class maps of awkward shapes, and strategies that draw others."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


def spiral(size):
    """One arm of class 1, a pixel wide, that winds to the middle through class 2."""
    classes = np.full((size, size), 2, np.uint8)
    row, col, step = 0, -1, (0, 1)
    for length in [size, *np.repeat(np.arange(size - 1, 0, -2), 2)]:
        for _ in range(length):
            row, col = row + step[0], col + step[1]
            classes[row, col] = 1
        step = (step[1], -step[0])
    return classes


def nested(size, ids):
    """Squares within squares, of four ids in turn: holes in holes."""
    i, j = np.indices((size, size))
    depth = np.minimum(np.minimum(i, j), np.minimum(size - 1 - i, size - 1 - j))
    return np.array(ids, np.uint8)[depth % 4]


def random_maps(ids, side):
    """Noise of some ids, up to ``side`` pixels high and wide."""
    return hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=side),
        elements=st.sampled_from(ids),
        fill=st.nothing(),
    )


def block_maps(ids, side):
    """The same, with pixels of several rows and columns."""
    return st.tuples(random_maps(ids, side), st.integers(1, 4), st.integers(1, 4)).map(
        lambda m: m[0].repeat(m[1], axis=0).repeat(m[2], axis=1)
    )
