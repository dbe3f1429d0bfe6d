"""The survey: one look at a whole scene, small, spread, along the edges, the same whoever asks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.run import predict
from geoseg.prediction.scene_info import scene_info
from geoseg.scene import survey as module
from geoseg.scene.block_layout import BlockLayout, read_bytes
from geoseg.scene.opening import open_scene
from geoseg.scene.reader import SceneReader
from geoseg.scene.sampling import SceneSampler
from geoseg.scene.survey import BUDGET, DEPTH, SIDE, SIDES, Survey, _lattice, _strips, survey
from tests.helpers import make_raster, tiny_model

UTM = CRS.from_epsg(32633)


def grid_of(height: int, width: int, size: float = 10.0) -> PixelGrid:
    return PixelGrid(height, width, Affine(size, 0, 5e5, 0, -size, 5e6), UTM)


def of_file(path: Path, **options: Any) -> Survey:
    scene = open_scene(path)
    return survey(scene.bands, scene.grid, clouds=scene.clouds, **options)


def where(windows: Any, grid: PixelGrid) -> np.ndarray[Any, Any]:
    counts = np.zeros((grid.height, grid.width), dtype=np.uint8)
    for window in windows:
        assert window.row >= 0 and window.col >= 0
        assert window.bottom <= grid.height and window.right <= grid.width
        counts[window.rows, window.cols] += 1
    return counts


# --- which windows ---


@given(
    st.integers(1, 1500),
    st.integers(1, 1500),
    st.sampled_from([(1, 0), (16, 0), (64, 64), (256, 256), (512, 512)]),
)
@settings(deadline=None, max_examples=60)
def test_windows_reach_all_edges_leave_no_wide_gap_and_never_overlap(
    height: int, width: int, block: tuple[int, int]
) -> None:
    grid = grid_of(height, width)
    layout = BlockLayout(grid, block[0], block[1] or width, block[0] * (block[1] or width))
    windows, step = _lattice([layout], grid)
    counts = where(windows, grid)
    assert step == 1 and counts.max() == 1
    for length, axis in ((height, 1), (width, 0)):
        hit = counts.any(axis=axis)
        assert hit[0] and hit[-1]
        gaps = np.diff(np.flatnonzero(np.concatenate([[True], hit, [True]]))) - 1
        assert gaps.max() <= length / 4
    assert counts.sum() <= (SIDES * SIDE) ** 2
    if height <= SIDES * SIDE and width <= SIDES * SIDE:
        assert counts.all(), "small scenes are seen wholly"
    edges = where(_strips([layout], grid, windows, step), grid) + counts
    for side in (edges[0], edges[-1], edges[:, 0], edges[:, -1]):
        assert side.all(), "the edges of all that is no wider than 2048 px are seen from end to end"


@pytest.mark.parametrize("side", [10_980, 40_000, 320_000])
@pytest.mark.parametrize(
    "layout",
    [
        {"height": 512, "width": 512, "size": 512 * 512 * 12},
        {"height": 256, "width": 256, "size": 256 * 256 * 18},
        {"height": 1, "width": 0, "size": 12},
        {"height": 8192, "width": 8192, "size": 8192**2 * 6, "levels": (2, 4, 8, 16, 32)},
        {"height": 1024, "width": 1024, "size": 12 << 20, "levels": (2, 4, 8), "wavelets": True},
        {"height": 6000, "width": 1024, "size": 73_728_000, "levels": (2, 4, 8), "wavelets": True},
    ],
)
def test_what_is_read_of_a_large_scene_is_little(side: int, layout: dict[str, Any]) -> None:
    grid = grid_of(side, side)
    size = layout["size"] * (1 if layout["width"] else side)
    found = BlockLayout(grid, **{**layout, "width": layout["width"] or side, "size": size})
    windows, step = _lattice([found], grid)
    strips = _strips([found], grid, windows, step)
    cost = read_bytes([found], grid, [*windows, *strips], step)
    assert cost <= BUDGET or (len(windows) == 4 and not strips)
    counts = {(w.row > side / 2, w.col > side / 2) for w in windows}
    assert len(counts) == 4, "every quarter is seen"


def test_wavelets_are_read_at_a_lower_resolution_and_blocks_that_are_large_by_overviews() -> None:
    grid = grid_of(10_980, 10_980)
    jpeg2000 = BlockLayout(grid, 1024, 1024, 2 << 20, (2, 4, 8, 16), wavelets=True)
    assert _lattice([jpeg2000] * 6, grid)[1] == 8
    plain = BlockLayout(grid, 512, 512, 512 * 512 * 2, (2, 4, 8, 16))
    assert _lattice([plain] * 6, grid)[1] == 1


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 300), st.integers(1, 300))
@settings(deadline=None, max_examples=60)
def test_costs_are_those_of_the_blocks_that_a_reader_touches(
    height: int, width: int, high: int, wide: int
) -> None:
    """Of a band with pixels twice as large, too; each block once."""
    grid = grid_of(2 * height, 2 * width)
    for ratio in (1, 2):
        file = grid_of(2 * height // ratio, 2 * width // ratio, 10.0 * ratio)
        layout = BlockLayout(file, high, wide, 7)
        windows = [Window(0, 0, height, width), Window(height // 2, 0, height, 2 * width)]
        touched = {
            (row // ratio // high, col // ratio // wide)
            for window in windows
            for row in {
                *range(window.row, window.bottom, min(high, window.height)),
                window.bottom - 1,
            }
            for col in {*range(window.col, window.right, min(wide, window.width)), window.right - 1}
        }
        assert layout.cost(grid, windows, 1) == 7 * len(touched)


# --- what is read ---


def test_a_small_scene_is_seen_wholly_and_once(tmp_path: Path) -> None:
    values = np.arange(2 * 300 * 500, dtype=np.uint32).reshape(2, 300, 500)
    seen = of_file(make_raster(tmp_path / "s.tif", values, nodata=7))
    assert seen.edges == () and seen.step == 1
    rows, cols = seen.places
    np.testing.assert_array_equal(seen.pixels, values[:, rows, cols])
    assert len({*zip(rows.tolist(), cols.tolist(), strict=True)}) == 300 * 500 == len(seen.valid)
    assert seen.valid.sum() == 300 * 500 - 1
    assert seen.measured.shape == (2, 300 * 500 - 1)


def test_of_a_large_scene_the_places_are_those_of_the_pixels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 60000, (1, 1500, 900), dtype=np.uint16)
    path = make_raster(tmp_path / "s.tif", values, tiled=True, blockxsize=256, blockysize=256)
    seen = of_file(path)
    rows, cols = seen.places
    np.testing.assert_array_equal(seen.pixels, values[:, rows, cols])
    assert len(seen.edges) == 4
    for sample in seen.edges:
        part = values[:, sample.window.rows, sample.window.cols]
        np.testing.assert_array_equal(sample.pixels, part)
        assert min(sample.window.height, sample.window.width) == DEPTH


@pytest.mark.parametrize("ratio", [2, 6])
def test_numbers_of_coarser_bands_are_those_of_the_files(tmp_path: Path, ratio: int) -> None:
    """Never a mixture of several, in which a number for nodata could not be found."""
    random = np.random.default_rng(1)
    fine = random.integers(1, 9000, (1, 240, 180), dtype=np.uint16)
    coarse = random.integers(1, 9000, (1, 240 // ratio, 180 // ratio), dtype=np.uint16)
    wide = Affine(10 * ratio, 0, 500000, 0, -10 * ratio, 5000000)
    make_raster(tmp_path / "B02.tif", fine)
    make_raster(tmp_path / "B11.tif", coarse, transform=wide)
    scene = open_scene([tmp_path / "B02.tif", tmp_path / "B11.tif"])
    seen = survey(scene.bands, scene.grid)
    rows, cols = seen.places
    assert seen.pixels.dtype == np.uint16
    np.testing.assert_array_equal(seen.pixels[0], fine[0, rows, cols])
    np.testing.assert_array_equal(seen.pixels[1], coarse[0, rows // ratio, cols // ratio])


def test_what_is_valid_is_what_the_reader_says(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    values = random.integers(0, 3, (2, 200, 300)).astype(np.float32)
    values[0, :20] = np.nan
    mask = random.random((200, 300)) > 0.2
    scene = open_scene(make_raster(tmp_path / "s.tif", values, mask=mask, nodata=None))
    seen = survey(scene.bands, scene.grid, src_nodata=0)
    with SceneReader(scene.bands, scene.grid, src_nodata=0) as reader:
        _, valid = reader.read(Window(0, 0, 200, 300))
    rows, cols = seen.places
    np.testing.assert_array_equal(seen.valid, valid[rows, cols])
    assert 0 < seen.valid_share < 1


@pytest.mark.parametrize("step", [2, 4, 8])
def test_every_so_many_th_pixel_is_one_of_an_overview_at_its_place(
    tmp_path: Path, step: int
) -> None:
    """Also of a coarser band, and of one whose overviews don't go so far."""
    row, col = np.mgrid[:512, :768]
    fine = (row * 64 + col).astype(np.float32)[None]
    make_raster(tmp_path / "B02.tif", fine)
    make_raster(tmp_path / "B11.tif", fine[:, ::2, ::2], transform=Affine(20, 0, 5e5, 0, -20, 5e6))
    with rasterio.open(tmp_path / "B02.tif", "r+") as dataset:
        dataset.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    scene = open_scene([tmp_path / "B02.tif", tmp_path / "B11.tif"])
    with SceneSampler(scene.bands, scene.grid) as reader:
        window = Window(64, 128, 256, 512)
        pixels, valid = reader.sample(window, step)
        assert valid.all() and valid.shape == (256 // step, 512 // step)
        levels = reader.layouts()[0].levels
    assert levels == (2, 4, 8)
    whole = fine[0, 64:320, 128:640].reshape(256 // step, step, 512 // step, step)
    for band in pixels:
        # Within the square that it stands for.
        low, high = whole.min(axis=(1, 3)), whole.max(axis=(1, 3))
        assert ((band >= low - 64 * 2) & (band <= high + 64 * 2)).all()


def test_of_a_sparse_file_blocks_are_looked_at_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 1, "nodata": 0, "crs": UTM}
    profile |= {"transform": Affine(10, 0, 5e5, 0, -10, 5e6), "BIGTIFF": "YES", "tiled": True}
    side = 60_000
    with rasterio.open(
        path,
        "w",
        height=side,
        width=side,
        sparse_ok=True,
        blockxsize=512,
        blockysize=512,
        **profile,
    ) as dataset:
        block = np.full((1, 512, 512), 500, dtype=np.uint16)
        for number in range(40):
            place = rasterio.windows.Window(
                512 * (5 + number % 7), 512 * (9 + number // 7), 512, 512
            )
            dataset.write(block, window=place)
    seen = of_file(path)
    assert seen.valid_share > 0
    assert (seen.measured == 500).all()
    assert math.isclose(seen.valid.sum(), 25 * SIDE**2)


def test_a_file_without_any_block_is_seen_at_once(tmp_path: Path) -> None:
    path = tmp_path / "empty.tif"
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 1, "nodata": 0, "crs": UTM}
    profile |= {"transform": Affine(10, 0, 5e5, 0, -10, 5e6), "BIGTIFF": "YES", "tiled": True}
    with rasterio.open(path, "w", height=320_000, width=320_000, sparse_ok=True, **profile):
        pass
    assert of_file(path).valid_share == 0


# --- who asks ---


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", ("red",), ("a", "b"), quantity="number")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(1, 255, (1, 700, 800), dtype=np.uint8)
    return make_raster(tmp_path / "scene.tif", values, descriptions=["red"])


def test_a_part_of_a_scene_has_the_survey_of_the_whole(
    tmp_path: Path, model: Path, scene: Path
) -> None:
    options = {"model": model, "output": tmp_path / "o.tif", "no_vector": True}
    whole = make_plan(scene, PredictOptions(**options))
    part = make_plan(scene, PredictOptions(**options, bbox=(501000, 4998000, 502000, 4999000)))
    assert part.grid.height == 100
    assert part.survey.grid == whole.survey.grid == whole.grid
    np.testing.assert_array_equal(part.survey.pixels, whole.survey.pixels)
    assert len(part.survey.edges) == 4


def test_numbers_are_looked_at_once(
    tmp_path: Path, model: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By info, by a dry run and by a run."""
    asked: list[Any] = []
    real = module.SceneSampler.sample

    def sample(self: Any, window: Window, step: int = 1) -> Any:
        asked.append((window, step))
        return real(self, window, step)

    monkeypatch.setattr(module.SceneSampler, "sample", sample)
    scene_info(scene, models=[model])
    once = list(asked)
    predict(scene, tmp_path / "map.tif", model=model, no_vector=True)
    assert asked == once * 2 and len(once) == 29
