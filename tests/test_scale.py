"""What is wide, high, sparse or of many bands costs what is there, not what is declared."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.cli.app import _cli
from geoseg.errors import SceneError, UsageError
from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.window import Window
from geoseg.prediction.chips import chip_rows
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import Plan, make_plan
from geoseg.prediction.report import raster_tags
from geoseg.prediction.run import predict
from geoseg.prediction.scene_info import scene_info
from geoseg.scene.opening import open_scene
from geoseg.scene.reader import SceneReader
from tests import forked
from tests.helpers import make_raster, tiny_model


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


# --- declared size ---


def header(path: Path, width: int, height: int, rows: int) -> Path:
    """A TIFF of 122 bytes: it declares strips, and its table of them lies nowhere."""
    strips = -(-height // rows)
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, strips, 8),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
        (279, 4, strips, 8),
    ]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4))
    return path


def geoseg(*arguments: str | Path, cwd: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """A command, and the most memory it took in GB."""
    code = (
        "import sys\nfrom geoseg.cli import main\nfrom geoseg.core.machine import peak_memory\n"
        "try:\n    main()\nfinally:\n    print('PEAK', peak_memory(), file=sys.stderr)"
    )
    done = forked.run([sys.executable, "-c", code, *arguments], cwd=cwd, timeout=120)
    lines = done.stderr.splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("PEAK"))
    done.stderr = "\n".join(line for line in lines if not line.startswith("PEAK"))
    return done, peak / 1e9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    return tiny_model(folder, ("red",), ("a", "b"), size=256, overlap=64)


@pytest.mark.parametrize(
    ("shape", "rows", "options", "says"),
    [
        ((2**31 - 1, 65535), 1, (), "in smaller blocks"),
        ((2**31 - 1, 65535), 65535, (), "in smaller blocks"),
        ((65535, 2**31 - 1), 1, (), "--max-pixels 1.5e+14"),
        ((65535, 2**31 - 1), 1, ("--max-pixels", "1e15"), "in a file of 122 bytes"),
        ((60_000, 60_000), 60_000, (), "damaged or cut short"),
    ],
)
def test_a_header_that_declares_what_no_file_holds_is_refused_at_once(
    tmp_path: Path,
    model: Path,
    shape: tuple[int, int],
    rows: int,
    options: tuple[str, ...],
    says: str,
) -> None:
    scene = header(tmp_path / "bomb.tif", *shape, rows)
    assert scene.stat().st_size == 122
    start = time.monotonic()
    done, peak = geoseg("predict", scene, "-m", model, "--bands", "1", *options, cwd=tmp_path)
    assert time.monotonic() - start < 30
    assert done.returncode == 1 and says in done.stderr.splitlines()[-1], done.stderr
    assert peak < 1


def test_more_pixels_than_are_allowed_are_refused_with_the_option_that_allows_them(
    tmp_path: Path, model: Path
) -> None:
    scene = make_raster(tmp_path / "s.tif", np.full((1, 30, 50), 3, np.uint8), descriptions=["red"])
    options: dict[str, Any] = {"model": model, "output": tmp_path / "map.tif"}
    with pytest.raises(SceneError, match=r"50 x 30 px.*--max-pixels 1.5e\+03"):
        make_plan(scene, PredictOptions(**options, max_pixels=1400))
    with pytest.raises(SceneError, match="--max-pixels"):
        scene_info(scene, models=[model], max_pixels=1400)
    plan = make_plan(scene, PredictOptions(**options, max_pixels=1500))
    with plan.reader(plan.grid) as reader:
        assert reader.read(Window(0, 0, 30, 50))[1].all()
    assert "max_pixels" not in raster_tags(plan)["GEOSEG_OPTIONS"]
    with pytest.raises(UsageError, match="max_pixels"):
        PredictOptions(max_pixels=float("nan"))


# --- what is not there ---


@pytest.mark.parametrize(("side", "nodata"), [(320_000, 9), (320_000, None), (1_000_000, 0)])
def test_a_dry_run_of_a_huge_sparse_scene_looks_at_what_is_there(
    tmp_path: Path, model: Path, nodata: int | None, side: int
) -> None:
    written = ((0, 0), (side // 2 // 512 * 512, side // 3 // 512 * 512))
    scene = sparse(tmp_path / "huge.tif", side, side, nodata=nodata, gsd=0.5, written=written)
    start = time.monotonic()
    done, peak = geoseg(
        *("predict", scene, "-m", model, "--bands", "1", "--dry-run", "--no-vector"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 110
    assert peak < 1.5
    run, skipped = map(int, re.findall(r"(\d+) to run, (\d+) skipped", done.stdout)[0])
    # Chips of 256 px every 192 px; two blocks of 512 px are there, or all 0 is measured.
    assert 10 < run < 40 if nodata is not None else skipped == 0


def rows_of(reader: SceneReader, grid: ChipGrid, sparsely: bool) -> list[Any]:
    found: list[Any] = []
    uniform = {"uniform": reader.uniform} if sparsely else {}
    for row in chip_rows(reader, grid, **uniform):
        chips = [row.chip(w) for w in row.windows]
        measured = [row.is_measured(w) for w in row.windows]
        found.append((row.strip, row.strip_input.valid, chips, measured))
    return found


@pytest.mark.parametrize("nodata", [0, 7, 9, None])
@pytest.mark.parametrize("src_nodata", [None, 0, 7])
@pytest.mark.parametrize("gsd", [10.0, 20.0])
def test_chips_are_those_of_a_scene_whose_blocks_are_all_read(
    tmp_path: Path, nodata: int | None, src_nodata: int | None, gsd: float
) -> None:
    path = sparse(
        tmp_path / "s.tif", 700, 330, count=2, nodata=nodata, block=64, written=((256, 64),)
    )
    scene = open_scene(path)
    whole = scene.grid
    pixels = whole if gsd == 10 else whole.zoom(2, 2)
    grid = ChipGrid(pixels.height, pixels.width, 48, 8)
    with SceneReader(scene.bands, pixels, src_nodata=src_nodata) as reader:
        asked = [reader.uniform(Window(0, 0, 40, pixels.width))]
        assert gsd != 10 or asked[0] is not None
        there = Window(256, 64, 4, 4) if gsd == 10 else Window(128, 32, 2, 2)
        # GDAL does not write what is all nodata into a sparse file.
        assert nodata == 7 or reader.uniform(there) is None
        for one, other in zip(
            rows_of(reader, grid, True), rows_of(reader, grid, False), strict=True
        ):
            assert one[0] == other[0] and one[3] == other[3]
            np.testing.assert_array_equal(one[1], other[1])
            for mine, theirs in zip(one[2], other[2], strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_a_table_of_blocks_that_is_cut_short_is_no_sparse_file(tmp_path: Path) -> None:
    path = sparse(tmp_path / "s.tif", 40_000, 40_000, block=64, written=((39_936, 39_936),))
    table = path.read_bytes()
    for share in (0.2, 0.5, 0.8, 0.99):
        path.write_bytes(table[: int(share * len(table))])
        scene = open_scene(path)
        grid = ChipGrid(40_000, 40_000, 512, 0)
        with (
            SceneReader(scene.bands, scene.grid) as reader,
            pytest.raises(SceneError, match="damaged or cut short"),
        ):
            for _ in chip_rows(reader, grid, uniform=reader.uniform):
                pass


def test_a_map_of_a_sparse_scene_is_that_of_one_that_holds_every_block(
    tmp_path: Path, model: Path
) -> None:
    scene = sparse(tmp_path / "s.tif", 1500, 700, block=64, written=((640, 128), (704, 128)))
    with rasterio.open(scene) as dataset:
        values = dataset.read()
    (tmp_path / "whole").mkdir()
    whole = make_raster(
        tmp_path / "whole" / "s.tif",
        values,
        nodata=0,
        transform=Affine(10, 0, 200000, 0, -10, 5000000),
    )
    maps = []
    for number, path in enumerate((scene, whole)):
        folder = tmp_path / str(number)
        folder.mkdir()
        options: dict[str, Any] = {"model": model, "bands": "1", "precision": "fp32"}
        predict(path, folder / "map.tif", vector=folder / "map.parquet", **options)
        maps.append([(folder / f"map.{kind}").read_bytes() for kind in ("tif", "parquet")])
    assert maps[0] == maps[1]


def test_a_dry_run_goes_lane_by_lane_within_the_limit(tmp_path: Path) -> None:
    scene = sparse(
        tmp_path / "wide.tif",
        520,
        120_000,
        count=12,  # all columns at a time are 2.5 GB
        written=tuple((0, col) for col in range(0, 120_000, 512)),
    )
    names = tuple(f"b{number}" for number in range(1, 13))
    model = tiny_model(tmp_path / "model", names, ("a", "b"), size=512)
    bands = ",".join(str(number) for number in range(1, 13))
    arguments = ("predict", scene, "-m", model, "--bands", bands, "--dry-run", "--no-vector")
    free, _ = geoseg(*arguments, "--mem-limit", "20GB", cwd=tmp_path)
    done, peak = geoseg(*arguments, "--mem-limit", "1500MB", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert peak < 1.5
    said = [line for line in done.stdout.splitlines() if line.startswith("memory")]
    assert float(said[0].split()[2]) <= 1.5
    # Chips that reach into two lanes are counted once.
    assert free.stdout.splitlines()[0] == done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    "command", ["vectorize", "mosaic", "sample", "evaluate", "predict", "info"]
)
def test_commands_that_read_rasters_take_the_limit(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raster = make_raster(
        tmp_path / "map.tif",
        np.full((1, 30, 50), 3, np.uint8),
        tags={"GEOSEG_CLASSES": '{"3": "forest"}'},
    )
    needs = {
        "evaluate": ["--labels", str(raster)],
        "sample": ["-n", "9", "-o", str(tmp_path / "p.gpkg")],
    }
    arguments = [command, str(raster), *needs.get(command, [])]
    done = CliRunner().invoke(_cli, [*arguments, "--max-pixels", "1400"])
    assert isinstance(done.exception, SceneError), done.output
    assert "50 x 30 px" in str(done.exception) and "--max-pixels 1.5e+03" in str(done.exception)
