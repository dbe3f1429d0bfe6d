import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import UsageError
from geoseg.geo.chip_grid import ChipGrid


@st.composite
def grids(draw):
    size = draw(st.integers(1, 40))
    return ChipGrid(
        height=draw(st.integers(1, 150)),
        width=draw(st.integers(1, 150)),
        size=size,
        overlap=draw(st.integers(0, size - 1)),
        multiple=draw(st.integers(1, 9)),
    )


@given(grids())
def test_every_pixel_lies_in_a_chip(grid):
    seen = np.zeros((grid.height, grid.width), dtype=int)
    for chip in grid.chips():
        seen[chip.rows, chip.cols] += 1
    assert seen.min() >= 1


@given(grids())
def test_chips_have_one_shape_start_in_phase_and_hardly_leave_the_scene(grid):
    for chip in grid.chips():
        assert (chip.height, chip.width) == (grid.chip_height, grid.chip_width)
        assert chip.height % grid.multiple == chip.width % grid.multiple == 0
        assert chip.row % grid.multiple == chip.col % grid.multiple == 0
        assert chip.row >= 0 and chip.bottom < grid.height + grid.multiple
        assert chip.col >= 0 and chip.right < grid.width + grid.multiple


@given(grids())
def test_no_chip_twice_and_the_length_is_the_count(grid):
    chips = list(grid.chips())
    assert len(set(chips)) == len(chips) == len(grid)


@given(grids())
def test_neighbours_share_at_least_the_overlap(grid):
    if grid.size - grid.overlap < grid.multiple:
        return  # the multiple wins: chips must start in phase
    for starts, chip in ((grid.row_starts, grid.chip_height), (grid.col_starts, grid.chip_width)):
        for a, b in itertools.pairwise(starts):
            assert a + chip - b >= grid.overlap


def test_no_more_chips_than_needed():
    assert len(ChipGrid(512, 512, size=512, overlap=128)) == 1
    assert len(ChipGrid(513, 512, size=512, overlap=128)) == 2
    assert len(ChipGrid(3200, 3200, size=512, overlap=128)) == 64


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": 0, "overlap": 0}, "size is 0"),
        ({"size": 8, "overlap": 8}, "overlap is 8"),
        ({"size": 8, "overlap": -1}, "overlap is -1"),
        ({"size": 8, "overlap": 0, "multiple": 0}, "multiple is 0"),
    ],
)
def test_numbers_that_make_no_grid_are_refused(options, word):
    with pytest.raises(UsageError, match=word):
        ChipGrid(10, 10, **options)
