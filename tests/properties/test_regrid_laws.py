import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

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


def run(values, target, factor, heights):
    parts, rows = [], 0
    for window, out in regrid(cut(values, heights), values.shape[1:], target, factor):
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
    target = (max(1, int(height * factor)), max(1, int(width * factor)))
    out = run(values, target, (factor, factor), heights)
    np.testing.assert_allclose(out.sum(axis=0), 1, atol=1e-5)
