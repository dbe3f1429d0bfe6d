import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import UsageError
from geoseg.geo.chip_grid import ChipGrid, Lane
from geoseg.geo.window import Window
from geoseg.prediction.stitch import StripEnd, stitch
from geoseg.prediction.tapers import TAPERS, axis_weights
from tests.helpers import by_row
from tests.oracles import EdgeDistance, Poisoned
from tests.properties.test_grid_laws import axes, grids


def run(grid, chips, classes, xp=np, lane=None, first=0, fill=0.0, **options):
    """Stitch chips and put the pieces together, NaN where there is none.

    Checks that pieces are disjoint, lie in the strip that is made and come in order.
    """
    if xp is np:
        tools = {"zeros": lambda s: np.full(s, fill, np.float32), "asarray": lambda a: a}
    else:
        tools = {"zeros": lambda s: torch.full(s, fill), "asarray": torch.from_numpy}
    lane = lane or Lane.whole(grid)
    out = np.full((classes, grid.height, grid.width), np.nan, np.float32)
    seen = np.zeros((grid.height, grid.width), bool)
    row, number, last = max(grid.row_starts[first], 0), first, (-1, -1)
    rows = by_row(chips, grid, first)
    for part in stitch(rows, grid, classes=classes, lane=lane, first=first, **tools, **options):
        window = part.window
        if isinstance(part, StripEnd):
            assert window == grid.strip(number, lane)
            number, last = number + 1, (-1, -1)
            if window is not None:
                assert (window.row, window.col) == (row, lane.left)
                assert window.right == lane.right
                row = window.bottom
            continue
        values = part.probs
        strip = grid.strip(number, lane)
        assert strip.intersection(window) == window
        assert (window.col, window.row) > last
        last = window.col, window.row
        assert tuple(values.shape) == (classes, window.height, window.width)
        assert not seen[window.rows, window.cols].any()
        seen[window.rows, window.cols] = True
        out[:, window.rows, window.cols] = values
    assert row == grid.height
    return out


class Around:
    """Random numbers wherever chips reach, and where the part lies among them."""

    def __init__(self, grid, channels, seed=0):
        self.top, self.left = -grid.row_starts[0], -grid.col_starts[0]
        height = grid.row_starts[-1] + grid.chip_height + self.top
        width = grid.col_starts[-1] + grid.chip_width + self.left
        random = np.random.default_rng(seed)
        self.values = random.random((channels, height, width), dtype=np.float32)
        self.part = self.values[
            :, self.top : self.top + grid.height, self.left : self.left + grid.width
        ]

    def __getitem__(self, window):
        return self.values[:, *self.at(window)]

    def at(self, window):
        return window.shifted(self.top, self.left).rows, window.shifted(self.top, self.left).cols


options = st.fixed_dictionaries({"taper": st.sampled_from(sorted(TAPERS))})


@given(grids(), options)
def test_stitching_the_scene_gives_the_scene(grid, options):
    scene = Around(grid, 2)
    out = run(grid, ((w, scene[w]) for w in grid.chips()), 2, **options)
    np.testing.assert_allclose(out, scene.part, atol=1e-5)


@given(grids(), options)
def test_weights_add_up_to_one_and_single_cover_is_exact(grid, options):
    for starts, chip, _, _, length, _ in axes(grid):
        total, cover = np.zeros(length), np.zeros(length, dtype=int)
        weights = axis_weights(starts, chip, length, inner=grid.weightless, **options)
        for start, weight in zip(starts, weights, strict=True):
            assert weight.min() >= 0
            here = np.arange(start, start + chip)
            inside = (here >= 0) & (here < length)
            assert not weight[~inside].any()
            total[here[inside]] += weight[inside]
            cover[here[inside]] += 1
        np.testing.assert_allclose(total, 1, atol=1e-5)
        assert (total[cover == 1] == 1.0).all()


@given(grids())
def test_torch_and_numpy_stitch_alike(grid):
    scene = Around(grid, 2)
    a = run(grid, ((w, scene[w]) for w in grid.chips()), 2)
    b = run(grid, ((w, torch.from_numpy(scene[w])) for w in grid.chips()), 2, xp=torch)
    np.testing.assert_array_equal(a, b)


def covered(grid, windows):
    """Pixels of the part that lie in some chips."""
    touched = np.zeros((grid.height, grid.width), dtype=bool)
    for w in windows:
        w = w.intersection(Window(0, 0, grid.height, grid.width))
        touched[w.rows, w.cols] = True
    return touched


@given(grids(), st.data())
def test_chips_that_are_left_out_change_only_their_own_pixels(grid, data):
    scene = Around(grid, 1)
    windows = list(grid.chips())
    left_out = data.draw(st.sets(st.sampled_from(windows)))
    out = run(grid, ((w, scene[w]) for w in windows if w not in left_out), 1)
    touched = covered(grid, left_out)
    np.testing.assert_allclose(out[:, ~touched], scene.part[:, ~touched], atol=1e-5)


@given(grids(), options, st.data())
def test_every_pixel_is_the_plain_sum_of_its_chips_bit_by_bit(grid, options, data):
    scene = Around(grid, 2)
    windows = list(grid.chips())
    left_out = data.draw(st.sets(st.sampled_from(windows)))
    chips = [(w, scene[w]) for w in windows if w not in left_out]
    weights = {**options, "inner": grid.weightless}
    rows = axis_weights(grid.row_starts, grid.chip_height, grid.height, **weights)
    cols = axis_weights(grid.col_starts, grid.chip_width, grid.width, **weights)
    sums = np.zeros_like(scene.values)
    for w, probs in chips:
        row, col = grid.row_starts.index(w.row), grid.col_starts.index(w.col)
        sums[:, *scene.at(w)] += probs * (rows[row][:, None] * cols[col])
    out = run(grid, chips, 2, **options)
    theirs = ~covered(grid, left_out)
    expected = sums[:, *scene.at(Window(0, 0, grid.height, grid.width))]
    np.testing.assert_array_equal(out[:, theirs], expected[:, theirs])
    # What waits may hold anything at first, and a lane or a later begin changes no bit, not even
    # of pixels that nobody asks for.
    left = data.draw(st.integers(0, grid.width - 1))
    lane = Lane.of(grid, left, data.draw(st.integers(left + 1, grid.width)))
    first = data.draw(st.integers(0, len(grid.row_starts) - 1))
    begun = [(w, p) for w, p in chips if w.col in lane.starts and w.row >= grid.row_starts[first]]
    complete = max(0, grid.row_starts[first - 1] + grid.chip_height) if first else 0
    again = run(grid, begun, 2, lane=lane, first=first, fill=np.nan, **options)
    here = np.s_[:, complete:, lane.left : lane.right]
    np.testing.assert_array_equal(again[here], out[here])


@settings(max_examples=30)
@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(0, 8),
    st.integers(1, 4),
    st.integers(-50, 50),
)
def test_margin_pixels_of_a_chip_never_count(height, width, margin, multiple, place):
    overlap = 2 * margin + multiple + 1
    grid = ChipGrid(height, width, 32, overlap, multiple, margin, margin, row=place, col=-place)
    if (grid.chip_height <= 2 * margin) or (grid.chip_width <= 2 * margin):
        return
    scene = Around(grid, 1)
    scene.values[:] = np.random.default_rng(1).integers(0, 3, scene.values.shape)
    runtime = Poisoned(3, margin)
    chips = ((w, runtime.probs(scene[w][None].astype(int))[0]) for w in grid.chips())
    out = run(grid, chips, 3).argmax(axis=0)
    ends = np.ones((height, width), dtype=bool)
    if margin:  # along the scene's own ends nothing better is to be had
        ends[:margin] = ends[:, :margin] = False
        ends[max(0, height - margin) :] = ends[:, max(0, width - margin) :] = False
    np.testing.assert_array_equal(out[ends], scene.part[0][ends])


def test_the_taper_favours_the_inside_of_chips():
    grid = ChipGrid(64, 200, size=64, overlap=32)
    runtime = EdgeDistance(2)

    def distance(**options):
        chips = ((w, runtime.probs(np.zeros((1, 1, w.height, w.width)))[0]) for w in grid.chips())
        return run(grid, chips, 2, **options)[0].mean()

    # Without a taper both chips count alike; with one, the chip whose edge is farther counts more.
    assert distance(taper="cosine") > distance(taper="none") + 0.01
    assert distance(taper="linear") > distance(taper="none") + 0.01
    assert distance(taper="gaussian") > distance(taper="none")


def test_seams_are_smooth_with_a_cosine():
    grid = ChipGrid(64, 200, size=64, overlap=32)
    levels = {w: np.float32(i % 2) for i, w in enumerate(grid.chips())}
    chips = ((w, np.full((1, 64, 64), v, dtype=np.float32)) for w, v in levels.items())
    out = run(grid, chips, 1)[0, 0]
    assert np.abs(np.diff(out)).max() < 0.1  # two flat chips without a taper would step by 0.5


def test_unknown_taper_is_refused():
    with pytest.raises(UsageError, match="one of cosine, linear, gaussian, none"):
        axis_weights([0], 4, 4, taper="hann")
