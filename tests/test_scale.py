"""What is wide, high, sparse or of many bands costs what is there, not what is declared."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.plan import Plan, PredictOptions, make_plan
from tests.helpers import tiny_model


def sparse(
    path: Path,
    height: int,
    width: int,
    *,
    count: int = 1,
    nodata: float | None = 0,
    block: int = 512,
    gsd: float = 10,
    written: tuple[tuple[int, int], ...] = (),
) -> Path:
    """A GeoTIFF of uint8 in which only the blocks at some (row, col) of pixels exist, full of 7."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype="uint8",
        crs="EPSG:32633",
        transform=Affine(gsd, 0, 200000, 0, -gsd, 5000000),
        nodata=nodata,
        tiled=True,
        blockxsize=block,
        blockysize=block,
        SPARSE_OK=True,
        BIGTIFF="YES",
    ) as dataset:
        for row, col in written:
            area = rasterio.windows.Window(col, row, min(block, width - col), block)
            dataset.write(np.full((count, block, int(area.width)), 7, np.uint8), window=area)
    return path


def wide_plan(folder: Path, width: int, gsd: float = 10, **options: int) -> Plan:
    scene = sparse(folder / f"wide{width}-{gsd}.tif", 300, width, gsd=gsd)
    model = folder / "model"
    if not model.exists():
        tiny_model(model, ("red",), ("a", "b"), size=128, overlap=32, gsd_range=(8.0, 12.0))
    return make_plan(
        scene, PredictOptions(model=model, bands="1", output=folder / "o.tif", **options)
    )


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[Plan]:
    """Wide ones; the last ones are resampled, from finer and from coarser pixels."""
    folder = tmp_path_factory.mktemp("plans")
    shapes = [(129, 10.0), (3000, 10.0), (2999, 10.0), (2500, 3.3), (1500, 21.7)]
    return [wide_plan(folder, width, gsd) for width, gsd in shapes]


@settings(max_examples=60)
@given(which=st.integers(0, 4), share=st.floats(0.02, 1.2), data=st.data())
def test_lanes_are_the_fewest_that_fit_and_are_found_again(
    plans: list[Plan], which: int, share: float, data: st.DataObject
) -> None:
    plan = plans[which]
    most = len(plan.chips.col_starts)
    needs = [max(map(plan.lane_bytes, plan._lanes(count))) for count in range(1, most + 1)]
    limit = int(share * needs[0])
    fits = [count for count, need in enumerate(needs, start=1) if need <= limit]
    if fits:
        assert plan.lanes(limit) == plan._lanes(fits[0])
    count = data.draw(st.integers(1, most))
    lanes = plan._lanes(count)
    assert plan.lanes_at([lane.left for lane in lanes]) == lanes
    assert plan.lanes_at([lane.left + (lane.left > 0) for lane in lanes][1:]) is None


def test_lanes_of_a_very_wide_scene_are_found_in_no_time(tmp_path: Path) -> None:
    plan = wide_plan(tmp_path, 400_000)
    most = len(plan.chips.col_starts)
    limit = max(map(plan.lane_bytes, plan._lanes(most // 3)))
    start = time.process_time()
    lanes = plan.lanes(limit)
    assert plan.lanes_at([lane.left for lane in lanes]) == lanes
    assert plan.lanes_at(()) is None
    # It took two minutes; seconds leave room for a slow machine.
    assert time.process_time() - start < 10
