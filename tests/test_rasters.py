"""geoseg.rasters.writing: class rasters at half size, and COGs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import geoseg
from geoseg.errors import OutputError
from geoseg.rasters.writing import halve, write_overviews
from tests.helpers import make_raster, tiny_model
from tests.oracles import OneHot

sides = st.integers(1, 9)


def by_counting(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = classes.shape
    out = np.full(((height + 1) // 2, (width + 1) // 2), 255, np.uint8)
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            four = classes[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel()
            found = [v for v in four if v != 255]
            if found:
                # Of equals the first one.
                out[row, col] = max(found, key=found.count)
    return out


@given(sides, sides, st.integers(0, 1000))
def test_half_is_the_most_frequent_class_of_four(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.array([0, 1, 7, 255], np.uint8), (height, width))
    np.testing.assert_array_equal(halve(classes), by_counting(classes))


@pytest.mark.parametrize("shape", [(512, 400), (513, 700), (1100, 2051)])
def test_a_class_rasters_overviews_are_these(tmp_path: Path, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (shape[0] // 3 + 1, shape[1] // 3 + 1))
    values = np.kron(coarse, np.ones((3, 3)))[None, : shape[0], : shape[1]].astype(np.uint8)
    values[0, 100:300, 50:250] = 9
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b", "c", "d"))
    scene = make_raster(tmp_path / "scene.tif", values, descriptions=("red",), nodata=9)
    geoseg.predict(scene, tmp_path / "out.tif", model=model, runtime=OneHot(4), no_vector=True)
    expected = np.where(values[0] == 9, 255, values[0]).astype(np.uint8)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        factors = dataset.overviews(1)
    assert len(factors) == (0 if max(shape) <= 512 else 1 if max(shape) <= 1024 else 3)
    for level in range(len(factors)):
        expected = halve(expected)
        with rasterio.open(tmp_path / "out.tif", overview_level=level) as dataset:
            np.testing.assert_array_equal(dataset.read(1), expected)


@pytest.mark.parametrize("shape", [(512, 512), (513, 40), (40, 1025), (1100, 2051), (2300, 530)])
@pytest.mark.parametrize(("strip", "rows"), [(1, 2), (1, 64), (1 << 17, 64), (1 << 22, 64)])
def test_overviews_are_made_of_rows_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], strip: int, rows: int
) -> None:
    """Whatever their number; each row is asked for once."""
    monkeypatch.setattr("geoseg.rasters.writing.OVERVIEW_STRIP", strip)
    monkeypatch.setattr("geoseg.rasters.writing.OVERVIEW_ROWS", rows)
    rng = np.random.default_rng(0)
    classes = rng.choice(np.array([0, 1, 7, 255], np.uint8), shape)
    asked: list[int] = []

    def read(top: int, bottom: int) -> NDArray[np.uint8]:
        asked.extend(range(top, bottom))
        return classes[top:bottom]

    paths = write_overviews(read, shape, tmp_path)
    assert asked == (list(range(shape[0])) if paths else [])
    expected = classes
    for path in paths:
        expected = halve(expected)
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(dataset.read(1), expected)
    assert max(expected.shape) <= 512


def test_overviews_that_find_no_room_say_so(tmp_path: Path) -> None:
    classes = np.zeros((1024, 1024), np.uint8)
    with pytest.raises(OutputError, match="missing"):
        write_overviews(lambda a, b: classes[a:b], classes.shape, tmp_path / "missing")
