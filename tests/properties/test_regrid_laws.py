import math
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoseg.geo.model_grid import Taps
from geoseg.geo.window import Window
from geoseg.prediction.regrid import regrid


def cut(values, heights):
    """Strips of the given heights, in turn; each is a buffer that is overwritten after."""
    row = 0
    while row < values.shape[1]:
        height = min(heights[row % len(heights)], values.shape[1] - row)
        strip = values[:, row : row + height].copy()
        yield Window(row, 0, height, values.shape[2]), strip
        strip[:] = np.nan
        row += height


def taps(values, target, factor):
    """Where both grids begin at the world's own corner."""
    return tuple(
        Taps(0, length, share, 0, source - 1)
        for length, share, source in zip(target, factor, values.shape[1:], strict=True)
    )


def run(values, target, factor, heights):
    parts, rows = [], 0
    between = taps(values, target, factor)
    left, right = between[1].needed(0, target[1])
    values = values[:, :, left:right]
    for window, out in regrid(cut(values, heights), between, (0, 0), (0, target[1])):
        if window is None:
            continue
        assert window.row == rows and out.shape == (len(values), window.height, target[1])
        rows = window.bottom
        parts.append(out)
    assert rows == target[0]
    return np.concatenate(parts, axis=1)


sizes = st.integers(1, 25)
heights = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(sizes, sizes, sizes, sizes, heights)
def test_agrees_with_torch_for_any_strip_height(height, width, new_height, new_width, heights):
    values = np.random.default_rng(0).random((2, height, width), dtype=np.float32)
    factor = (new_height / height, new_width / width)
    out = run(values, (new_height, new_width), factor, heights)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None], size=(new_height, new_width), mode="bilinear"
    )[0].numpy()
    np.testing.assert_allclose(out, expected, atol=1e-5)


@given(sizes, sizes, st.floats(0.2, 6), heights)
def test_probabilities_still_add_up_to_one(height, width, factor, heights):
    values = np.random.default_rng(1).random((3, height, width), dtype=np.float32)
    values /= values.sum(axis=0)
    target = (math.ceil(height * factor), math.ceil(width * factor))
    out = run(values, target, (factor, factor), heights)
    np.testing.assert_allclose(out.sum(axis=0), 1, atol=1e-5)


@given(
    st.integers(-300, 300),
    st.sampled_from([0.5, 1 / 3, 2.0, 3.0, 0.9135]),
    st.integers(0, 20),
    st.integers(1, 12),
    heights,
)
def test_a_part_is_that_part_of_the_whole_bit_by_bit(place, factor, first, length, heights):
    """Of the model's pixels it is given those alone that it is made from."""
    values = np.random.default_rng(2).random((2, 40, 40), dtype=np.float32)
    low = math.ceil(place / factor)
    whole = Taps(place, int(38 * factor), factor, low, low + 39)
    between, every = (whole, whole), (0, whole.length)
    left, right = (edge - low for edge in whole.needed(0, whole.length))
    strips = cut(values[:, :, left:right], [7])
    out = np.concatenate(
        [v for w, v in regrid(strips, between, (low, low), every) if w is not None], axis=1
    )
    first = min(first, whole.length - 1)
    length = min(length, whole.length - first)
    part = replace(whole, first=place + first, length=length)
    top, bottom = part.needed(0, length)
    here = slice(top - low, bottom - low)
    strips = cut(values[:, here, here], heights)
    found = [v for w, v in regrid(strips, (part, part), (top, top), (0, length)) if w is not None]
    expected = out[:, first : first + length, first : first + length]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), expected)
