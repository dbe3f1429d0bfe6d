import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.core.importing import IMPORTING
from geoseg.core.prefetch import prefetch
from geoseg.core.workers import left_behind
from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.window import Window
from geoseg.prediction.chips import chip_rows
from geoseg.scene.fill import fill_nearest


class FakeReader:
    """A scene in memory that counts how often each pixel is read."""

    def __init__(self, pixels, valid):
        self.pixels, self.valid = pixels, valid
        self.reads = np.zeros(valid.shape, dtype=int)

    def read(self, window, out=None):
        assert window.intersection(Window(0, 0, *self.valid.shape)) == window, "outside the scene"
        self.reads[window.rows, window.cols] += 1
        part = np.s_[window.rows, window.cols]
        pixels = self.pixels[:, *part].copy()
        if out is not None:
            out[:] = pixels
        return pixels if out is None else out, self.valid[part].copy()


@st.composite
def grids(draw, longest=40):
    """Parts of scenes somewhere in the world, some of them with ground around them."""
    multiple = draw(st.sampled_from([1, 1, 2, 3, 4]))
    size = draw(st.integers(1, 16))
    overlap = draw(st.integers(0, size - 1))
    height, width = draw(st.integers(1, longest)), draw(st.integers(1, longest))
    above, left = (draw(st.sampled_from([0, 0, 1, 20])) for _ in range(2))
    below, right = (draw(st.sampled_from([0, 0, 1, 20])) for _ in range(2))
    return ChipGrid(
        height,
        width,
        size,
        overlap,
        multiple,
        border=draw(st.sampled_from([None, 0, 3])),
        row=draw(st.integers(-50, 50)),
        col=draw(st.integers(-50, 50)),
        ground=Window(-above, -left, above + height + below, left + width + right),
    )


def scene(grid, seed=0, gaps=0.0):
    """All the ground of a grid."""
    random = np.random.default_rng(seed)
    shape = grid.seen.height, grid.seen.width
    pixels = random.integers(0, 60000, (2, *shape)).astype("uint16")
    return FakeReader(pixels, random.random(shape) >= gaps)


def reflected(pixels, window):
    """A window of a scene that goes on mirrored on all sides."""

    def mirror(indexes, length):
        there_and_back = np.concatenate([np.arange(length), np.arange(length)[::-1]])
        return there_and_back[indexes % (2 * length)]

    rows = mirror(np.arange(window.row, window.bottom), pixels.shape[1])
    cols = mirror(np.arange(window.col, window.right), pixels.shape[2])
    return pixels[:, rows][:, :, cols]


def in_scene(grid, window):
    """Where a window lies in the scene's arrays, and what of it does."""
    placed = window.shifted(-grid.seen.row, -grid.seen.col)
    return placed, placed.intersection(Window(0, 0, grid.seen.height, grid.seen.width))


@given(grids())
def test_every_pixel_that_a_chip_sees_is_read_exactly_once(grid):
    reader = scene(grid)
    for _ in chip_rows(reader, grid):
        pass
    seen = np.zeros_like(reader.reads)
    for window in grid.chips():
        _, inside = in_scene(grid, window)
        seen[inside.rows, inside.cols] = 1
    np.testing.assert_array_equal(reader.reads, seen)


@given(grids())
def test_nothing_is_read_before_it_is_needed(grid):
    reader = scene(grid)
    for row in chip_rows(reader, grid):
        _, inside = in_scene(grid, row.windows[0])
        assert (reader.reads[inside.bottom :] == 0).all()
        assert row.pixels.shape[1] <= grid.chip_height


@given(grids())
def test_chips_are_the_grids_in_its_order(grid):
    windows = [w for row in chip_rows(scene(grid), grid) for w in row.windows]
    assert windows == list(grid.chips())


@given(grids())
def test_chips_hold_the_scenes_pixels_and_its_mirror_beyond_the_edge(grid):
    reader = scene(grid)
    for row in chip_rows(reader, grid):
        for window in row.windows:
            chip = row.chip(window)
            assert chip.dtype == np.uint16
            placed, inside = in_scene(grid, window)
            part = reader.pixels[:, inside.rows, inside.cols]
            np.testing.assert_array_equal(
                chip, reflected(part, placed.shifted(-inside.row, -inside.col))
            )
            if 2 * min(inside.height, inside.width) >= max(window.height, window.width):
                np.testing.assert_array_equal(chip, reflected(reader.pixels, placed))


@given(grids(), st.floats(0.0, 0.99), st.integers(0, 1000))
def test_measured_pixels_keep_their_numbers_and_others_get_one_of_the_chips(grid, gaps, seed):
    reader = scene(grid, seed, gaps)
    for row in chip_rows(reader, grid):
        for window in row.windows:
            placed, inside = in_scene(grid, window)
            valid = reader.valid[inside.rows, inside.cols]
            chip = row.chip(window)
            assert (chip is None) == (not valid.any())
            if chip is None:
                continue
            truth = reader.pixels[:, inside.rows, inside.cols]
            assert chip.shape == (2, window.height, window.width)
            own = inside.shifted(-placed.row, -placed.col)
            np.testing.assert_array_equal(chip[:, own.rows, own.cols][:, valid], truth[:, valid])
            np.testing.assert_array_equal(row.measured(window)[own.rows, own.cols], valid)
            assert row.measured(window).sum() == valid.sum()
            measured = {tuple(p) for p in truth[:, valid].T}
            assert {tuple(p) for p in chip.reshape(2, -1).T} <= measured


@given(grids(), st.integers(0, 1000))
def test_strips_cover_the_parts_validity_once(grid, seed):
    reader = scene(grid, seed, gaps=0.5)
    wanted = np.random.default_rng(seed + 1).random(reader.valid.shape) < 0.8
    for mask in (None, lambda window: wanted[window.rows, window.cols]):
        rows = [r for r in chip_rows(reader, grid, wanted=mask) if r.strip is not None]
        placed, _ = in_scene(grid, Window(0, 0, grid.height, grid.width))
        expected = reader.valid if mask is None else reader.valid & wanted
        found = np.concatenate([r.strip_input.valid for r in rows])
        np.testing.assert_array_equal(found, expected[placed.rows, placed.cols])
        row = 0
        for r in rows:
            assert r.strip == Window(row, 0, r.strip.height, grid.width)
            row = r.strip.bottom
        assert row == grid.height


@given(grids(), st.integers(0, 1000))
def test_chips_are_run_that_hold_what_is_measured_and_what_is_wanted(grid, seed):
    reader = scene(grid, seed, gaps=0.9)
    wanted = np.random.default_rng(seed + 1).random(reader.valid.shape) < 0.1
    for row in chip_rows(reader, grid, wanted=lambda window: wanted[window.rows, window.cols]):
        for window in row.windows:
            _, inside = in_scene(grid, window)
            masks = (mask[inside.rows, inside.cols].any() for mask in (reader.valid, wanted))
            assert (window in row.to_run) == all(masks)
        assert row.strip_input.run == len(row.to_run)


@given(grids(), st.integers(0, 1000))
def test_rows_where_nothing_is_wanted_are_not_read_and_change_no_chip(grid, seed):
    reader = scene(grid, seed, gaps=0.2)
    every = {w: row.chip(w) for row in chip_rows(reader, grid) for w in row.windows}
    reader.reads[:] = 0
    wanted = np.zeros_like(reader.valid)
    wanted[np.random.default_rng(seed).integers(0, len(wanted))] = True
    needed = np.zeros_like(wanted)
    for row in chip_rows(reader, grid, wanted=lambda window: wanted[window.rows, window.cols]):
        for window in row.to_run:
            np.testing.assert_array_equal(row.chip(window), every[window])
            _, inside = in_scene(grid, window)
            needed[inside.rows] = True
    assert not reader.reads[~needed].any()


def test_clouds_beyond_what_is_wanted_are_not_counted():
    grid = ChipGrid(4, 8, size=4, overlap=0)
    reader = scene(grid)
    clouds = np.zeros_like(reader.valid)
    clouds[:, 3:6] = True
    wanted = np.zeros_like(clouds)
    wanted[1:3] = True
    (row,) = chip_rows(
        reader,
        grid,
        left_out=lambda: clouds,
        wanted=lambda window: wanted[window.rows, window.cols],
    )
    assert row.strip_input.clouded == 6


def test_a_chip_without_a_measured_pixel_is_none_beside_one_that_has_one():
    grid = ChipGrid(4, 8, size=4, overlap=0)
    reader = scene(grid)
    reader.valid[:] = False
    reader.valid[3, 7] = True
    (row,) = chip_rows(reader, grid)
    left, right = (row.chip(window) for window in row.windows)
    assert left is None
    assert (right == reader.pixels[:, 3, 7][:, None, None]).all()


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000), st.floats(0.01, 1.0),
    st.sampled_from(["uint8", "int16", "float32"]),
)  # fmt: skip
def test_fill_nearest_takes_a_pixel_at_the_smallest_distance(height, width, seed, share, dtype):
    random = np.random.default_rng(seed)
    valid = random.random((height, width)) < share
    valid[random.integers(height), random.integers(width)] = True
    # Each pixel holds its own place.
    place = np.stack(np.mgrid[:height, :width]).astype(dtype)
    before = place.copy()
    filled = fill_nearest(place, valid)
    assert filled.dtype == dtype
    np.testing.assert_array_equal(place, before)
    measured = np.argwhere(valid)
    for row, col in np.ndindex(height, width):
        found = filled[:, row, col].astype(int)
        assert valid[*found]
        nearest = ((measured - (row, col)) ** 2).sum(axis=1).min()
        assert ((found - (row, col)) ** 2).sum() == nearest


def reading_threads():
    return [t for t in threading.enumerate() if t.name == "geoseg-read"]


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4))
def test_prefetch_keeps_items_and_their_order(items, depth):
    assert list(prefetch(items, depth)) == items
    assert not reading_threads()


@given(st.integers(0, 6), st.integers(1, 3))
def test_prefetch_raises_an_error_at_its_place(good, depth):
    def items():
        yield from range(good)
        raise OSError("the disk is gone")

    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        for item in prefetch(items(), depth):
            seen.append(item)
    assert seen == list(range(good))
    assert not reading_threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_prefetch_hands_on_what_is_no_exception_of_its_own(error):
    def items():
        yield 1
        raise error

    with pytest.raises(error):
        list(prefetch(items()))


def test_prefetch_takes_none_and_exceptions_as_items():
    items = [None, ValueError("an item"), (1, None)]
    assert list(prefetch(items)) == items


def test_prefetch_runs_ahead_by_its_depth_and_no_further():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    ahead = prefetch(items(), depth=2)
    assert next(ahead) == 0
    until = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.05)
    # One taken, two waiting, one in the thread's hand.
    assert made == [0, 1, 2, 3]
    ahead.close()


def test_prefetch_works_in_another_thread():
    here = threading.get_ident()
    assert list(prefetch(threading.get_ident() for _ in range(1))) != [here]


@pytest.mark.parametrize("taken", [1, 3])
def test_leaving_the_loop_early_ends_the_thread_and_the_iterator(taken):
    closed = []

    def items():
        try:
            for i in range(1000):  # noqa: UP028 - try needs the loop
                yield i
        finally:
            closed.append(True)

    ahead = prefetch(items())
    for _ in range(taken):
        next(ahead)
    ahead.close()
    assert not reading_threads()
    assert closed == [True]


def test_an_error_in_the_consumer_ends_the_thread():
    with pytest.raises(ZeroDivisionError):
        for _ in prefetch(range(1000)):
            raise ZeroDivisionError
    # The generator goes when the frame that holds it does.
    until = time.monotonic() + 5
    while reading_threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert not reading_threads()


def test_parts_of_scipy_are_not_imported_by_two_threads_at_once():
    """The polygons' thread imports numba, which imports scipy, while the first chips are filled."""
    valid = np.ones((4, 4), bool)
    valid[0, 0] = False
    filled = []
    pixels = np.arange(16.0).reshape(1, 4, 4)
    thread = threading.Thread(target=lambda: filled.append(fill_nearest(pixels, valid)))
    with IMPORTING:
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join()
    assert filled[0][0, 0, 0] in (1.0, 4.0)


def test_who_leaves_amid_a_slow_read_waits_a_second_and_the_thread_closes_what_it_has_open():
    go, events = threading.Event(), []

    def slow():
        try:
            yield 1
            go.wait(20)
            events.append("read")
            yield 2
        finally:
            events.append("closed by " + threading.current_thread().name)

    ahead = prefetch(slow())
    assert next(ahead) == 1
    begin = time.monotonic()
    ahead.close()
    assert time.monotonic() - begin < 3
    assert left_behind()
    go.set()
    while left_behind():
        time.sleep(0.01)
    assert events == ["read", "closed by geoseg-read"]


def test_an_interrupt_amid_the_start_of_the_thread_leaves_no_reader_behind(monkeypatch):
    """Or what it reads is closed under it: a segmentation fault in GDAL."""
    closed = []
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    def items():
        try:
            for number in range(1000):
                time.sleep(0.001)
                yield number
        finally:
            closed.append(threading.current_thread().name)

    ahead = prefetch(items())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(ahead)
    assert closed in ([], ["geoseg-read"])
    assert not [t for t in threading.enumerate() if t.name == "geoseg-read"]
