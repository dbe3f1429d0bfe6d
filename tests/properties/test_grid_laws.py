import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import UsageError
from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.window import Window
from geoseg.prediction.tapers import TAPERS, axis_weights


@st.composite
def grids(draw):
    """Parts of scenes somewhere in the world, with ground around them."""
    size = draw(st.integers(1, 40))
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    above, below, left, right = (draw(st.sampled_from([0, 0, 1, 7, 60])) for _ in range(4))
    return ChipGrid(
        height,
        width,
        size=size,
        overlap=draw(st.integers(0, size - 1)),
        multiple=draw(st.integers(1, 9)),
        margin=draw(st.integers(0, 12)),
        border=draw(st.one_of(st.none(), st.integers(0, 60))),
        row=draw(st.integers(-400, 400)),
        col=draw(st.integers(-400, 400)),
        ground=Window(-above, -left, above + height + below, left + width + right),
    )


def axes(grid):
    """(first pixels, side, first pixel of the ground, length of it, length, place) of both axes."""
    seen = grid.seen
    yield grid.row_starts, grid.chip_height, seen.row, seen.height, grid.height, grid.row
    yield grid.col_starts, grid.chip_width, seen.col, seen.width, grid.width, grid.col


@given(grids())
def test_every_pixel_lies_in_a_chip(grid):
    for starts, chip, _, _, length, _ in axes(grid):
        seen = {pixel for start in starts for pixel in range(start, start + chip)}
        assert seen >= set(range(length))


@given(grids())
def test_chips_have_one_shape_and_lie_at_fixed_places_of_the_world(grid):
    for chip in grid.chips():
        assert (chip.height, chip.width) == (grid.chip_height, grid.chip_width)
        assert chip.intersection(Window(0, 0, grid.height, grid.width))
    for starts, chip, first, ground, _, place in axes(grid):
        assert chip % grid.multiple == 0
        alone = len(starts) == 1 and chip <= grid.size + grid.multiple
        for start in starts:
            assert (place + start) % grid.multiple == 0
            assert alone or (place + start) % grid.stride == 0
            # It sees some ground.
            assert start < first + ground and start + chip > first


@given(grids())
def test_hardly_more_chips_than_beginning_at_the_corner_takes(grid):
    whole = grid.of_all
    for starts, chip, _, ground, _, _ in axes(whole):
        before = 1 + max(0, -(-(ground - chip) // whole.stride))
        # Each lies on the world's grid, and has its say wherever it counts.
        wide = whole.size - whole.stride > whole.weightless + (
            whole.size if whole.border is None else whole.border
        )
        assert len(starts) <= before + (1 if not wide else 1 + -(-whole.size // whole.stride))


@given(grids(), st.sampled_from(sorted(TAPERS)))
def test_a_part_has_those_of_the_wholes_chips_that_count_in_it_with_their_weights(grid, taper):
    weighing = {"taper": taper, "inner": grid.weightless}
    for (mine, chip, first, *_, length, _), (theirs, side, *_, whole, _) in zip(
        axes(grid), axes(grid.of_all), strict=True
    ):
        assert chip == side
        own, found = (
            dict(zip(starts, axis_weights(starts, chip, n, **weighing), strict=True))
            for starts, n in ((mine, length), (theirs, whole))
        )
        assert {start - first for start in own} <= set(found)
        for start, weights in found.items():
            here = np.arange(start, start + chip) + first
            inside = (here >= 0) & (here < length)
            if start + first in own:
                np.testing.assert_array_equal(own[start + first][inside], weights[inside])
            else:
                assert not weights[inside].any()


@given(grids())
def test_no_chip_twice_and_the_length_is_the_count(grid):
    chips = list(grid.chips())
    assert len(set(chips)) == len(chips) == len(grid)


@given(grids())
def test_neighbours_share_the_overlap_or_up_to_a_multiple_more(grid):
    for starts, chip, *_ in axes(grid):
        for a, b in itertools.pairwise(starts):
            assert b - a == grid.stride
            # The multiple wins: chips must lie in phase.
            assert a + chip - b >= grid.overlap or grid.stride == grid.multiple


def test_no_more_chips_than_needed():
    assert len(ChipGrid(512, 512, size=512, overlap=128)) == 1
    assert len(ChipGrid(512, 512, size=512, overlap=128, multiple=32, row=7, col=9)) == 1
    assert len(ChipGrid(513, 512, size=512, overlap=128)) == 2
    assert len(ChipGrid(3200, 3200, size=512, overlap=128)) == 64
    assert len(ChipGrid(3200, 3200, size=512, overlap=128, row=1, col=-1)) == 81


def test_chips_that_count_only_where_the_end_does_are_left_out():
    """The chips that begin at -3 and at 9 have a say in the first and in the last pixels alone."""
    far = ChipGrid(11, 1, size=6, overlap=3, row=1, border=4)
    assert far.row_starts == [-1, 2, 5]
    near = ChipGrid(11, 1, size=6, overlap=3, row=1, border=0)
    assert near.row_starts == [-4, -1, 2, 5, 8]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": 0, "overlap": 0}, "size is 0"),
        ({"size": 8, "overlap": 8}, "overlap is 8"),
        ({"size": 8, "overlap": -1}, "overlap is -1"),
        ({"size": 8, "overlap": 0, "multiple": 0}, "multiple is 0"),
        ({"size": 8, "overlap": 0, "margin": -1}, "margin is -1"),
        ({"size": 8, "overlap": 0, "border": -1}, "border -1"),
        ({"size": 8, "overlap": 0, "ground": Window(1, 0, 9, 10)}, "does not hold the part"),
    ],
)
def test_numbers_that_make_no_grid_are_refused(options, word):
    with pytest.raises(UsageError, match=word):
        ChipGrid(10, 10, **options)
