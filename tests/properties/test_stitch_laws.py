import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import UsageError
from geoseg.geo.chip_grid import ChipGrid, Lane
from geoseg.prediction.stitch import StripEnd, stitch
from geoseg.prediction.tapers import TAPERS, axis_weights
from tests.helpers import by_row
from tests.oracles import EdgeDistance, Poisoned
from tests.properties.test_grid_laws import grids


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
    row, number, last = grid.row_starts[first], first, (-1, -1)
    rows = by_row(chips, grid, first)
    for part in stitch(rows, grid, classes=classes, lane=lane, first=first, **tools, **options):
        window = part.window
        if isinstance(part, StripEnd):
            assert window == grid.strip(number, lane)
            assert (window.row, window.col) == (row, lane.left)
            assert window.right == lane.right
            row, number, last = window.bottom, number + 1, (-1, -1)
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


def padded_scene(grid, channels, seed=0):
    shape = (channels, grid.height + grid.multiple, grid.width + grid.multiple)
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


options = st.fixed_dictionaries(
    {"taper": st.sampled_from(sorted(TAPERS)), "margin": st.integers(0, 12)}
)


@given(grids(), options)
def test_stitching_the_scene_gives_the_scene(grid, options):
    scene = padded_scene(grid, 2)
    chips = ((w, scene[:, w.rows, w.cols]) for w in grid.chips())
    out = run(grid, chips, 2, **options)
    np.testing.assert_allclose(out, scene[:, : grid.height, : grid.width], atol=1e-5)


@given(grids(), options)
def test_weights_add_up_to_one_and_single_cover_is_exact(grid, options):
    for starts, chip, length in (
        (grid.row_starts, grid.chip_height, grid.height),
        (grid.col_starts, grid.chip_width, grid.width),
    ):
        total = np.zeros(length + grid.multiple)
        cover = np.zeros(length + grid.multiple, dtype=int)
        for start, weight in zip(
            starts, axis_weights(starts, chip, length, **options), strict=True
        ):
            assert weight.min() >= 0
            total[start : start + chip] += weight
            cover[start : start + chip] += 1
        np.testing.assert_allclose(total[:length], 1, atol=1e-5)
        assert (total[:length][cover[:length] == 1] == 1.0).all()


@given(grids())
def test_torch_and_numpy_stitch_alike(grid):
    scene = padded_scene(grid, 2)
    a = run(grid, ((w, scene[:, w.rows, w.cols]) for w in grid.chips()), 2)
    b = run(
        grid, ((w, torch.from_numpy(scene[:, w.rows, w.cols])) for w in grid.chips()), 2, xp=torch
    )
    np.testing.assert_array_equal(a, b)


def covered(grid, windows):
    """Pixels of the scene that lie in some chips."""
    touched = np.zeros((grid.height, grid.width), dtype=bool)
    for w in windows:
        touched[w.rows, w.cols] = True
    return touched


@given(grids(), st.data())
def test_chips_that_are_left_out_change_only_their_own_pixels(grid, data):
    scene = padded_scene(grid, 1)
    windows = list(grid.chips())
    left_out = data.draw(st.sets(st.sampled_from(windows)))
    out = run(grid, ((w, scene[:, w.rows, w.cols]) for w in windows if w not in left_out), 1)
    touched = covered(grid, left_out)
    expected = scene[:, : grid.height, : grid.width]
    np.testing.assert_allclose(out[:, ~touched], expected[:, ~touched], atol=1e-5)


@given(grids(), options, st.data())
def test_every_pixel_is_the_plain_sum_of_its_chips_bit_by_bit(grid, options, data):
    scene = padded_scene(grid, 2)
    windows = list(grid.chips())
    left_out = data.draw(st.sets(st.sampled_from(windows)))
    chips = [(w, scene[:, w.rows, w.cols]) for w in windows if w not in left_out]
    rows = axis_weights(grid.row_starts, grid.chip_height, grid.height, **options)
    cols = axis_weights(grid.col_starts, grid.chip_width, grid.width, **options)
    expected = np.zeros_like(scene)
    for w, probs in chips:
        row, col = grid.row_starts.index(w.row), grid.col_starts.index(w.col)
        expected[:, w.rows, w.cols] += probs * (rows[row][:, None] * cols[col])
    out = run(grid, chips, 2, **options)
    theirs = ~covered(grid, left_out)
    expected = expected[:, : grid.height, : grid.width]
    np.testing.assert_array_equal(out[:, theirs], expected[:, theirs])
    # What waits may hold anything at first, and a lane or a later begin changes no bit, not even
    # of pixels that nobody asks for.
    left = data.draw(st.integers(0, grid.width - 1))
    lane = Lane.of(grid, left, data.draw(st.integers(left + 1, grid.width)))
    first = data.draw(st.integers(0, len(grid.row_starts) - 1))
    begun = [(w, p) for w, p in chips if w.col in lane.starts and w.row >= grid.row_starts[first]]
    complete = grid.row_starts[first - 1] + grid.chip_height if first else 0
    again = run(grid, begun, 2, lane=lane, first=first, fill=np.nan, **options)
    here = np.s_[:, complete:, lane.left : lane.right]
    np.testing.assert_array_equal(again[here], out[here])


@settings(max_examples=30)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 8), st.integers(1, 4))
def test_margin_pixels_of_a_chip_never_count(height, width, margin, multiple):
    size = 32
    grid = ChipGrid(height, width, size, overlap=2 * margin + multiple + 1, multiple=multiple)
    if (grid.chip_height <= 2 * margin) or (grid.chip_width <= 2 * margin):
        return
    scene = np.random.default_rng(1).integers(0, 3, (1, height + multiple, width + multiple))
    runtime = Poisoned(3, margin)
    chips = ((w, runtime.probs(scene[None, :, w.rows, w.cols])[0]) for w in grid.chips())
    out = run(grid, chips, 3, margin=margin).argmax(axis=0)
    inner = np.ones((height, width), dtype=bool)
    if margin:  # along the scene's own edge nothing better is to be had
        inner[:margin] = inner[:, :margin] = False
        inner[max(0, height - margin - multiple) :] = False
        inner[:, max(0, width - margin - multiple) :] = False
    np.testing.assert_array_equal(out[inner], scene[0, :height, :width][inner])


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
