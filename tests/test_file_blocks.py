"""A file's blocks are decoded as a whole, and once, however tall they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geoseg.core.gdal import block_cache
from geoseg.geo.window import Window
from geoseg.prediction import block_memory
from geoseg.prediction.chips import chip_rows
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import Plan, make_plan
from geoseg.prediction.preflight import sample_chips
from geoseg.scene.file_blocks import rows_of_blocks
from geoseg.scene.opening import open_scene
from geoseg.scene.reader import SceneReader
from tests.helpers import make_raster, tiny_model

HEIGHT, WIDTH, TALL = 3200, 160, 800
BANDS = ("red", "green")
#: Bytes of a cache that holds a row of blocks of one band, and not of both.
SMALL = TALL * WIDTH + (1 << 15)

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="counts what the kernel counted")


@given(
    row=st.integers(0, 5000),
    height=st.integers(1, 4000),
    starts=st.lists(st.tuples(st.integers(1, 2000), st.integers(-900, 900)), max_size=3),
)
def test_parts_make_up_the_window_and_none_lies_in_two_rows_of_blocks(
    row: int, height: int, starts: list[tuple[int, int]]
) -> None:
    window = Window(row, 3, height, 7)
    parts = rows_of_blocks(window, starts)
    rows = [r for part in parts for r in range(part.row, part.bottom)]
    assert rows == list(range(window.row, window.bottom))
    assert {(part.col, part.width) for part in parts} == {(3, 7)}
    for part in parts:
        for block, shift in starts:
            assert (part.row + shift) // block == (part.bottom - 1 + shift) // block


def tall_scene(folder: Path, kind: str) -> Path:
    """The same pixels in four rows of blocks, which some chips and windows reach across."""
    values = np.random.default_rng(0).integers(1, 255, (2, HEIGHT, WIDTH)).astype(np.uint8)
    values[:, 1500:1700, 50:100] = 0
    values[0, 700:800] = 0
    jp2: dict[str, Any] = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": "YES"}
    blocks = {"blockxsize": WIDTH, "blockysize": TALL}
    grid: dict[str, Any] = {"crs": "EPSG:32633", "nodata": 0}
    scene = folder / f"{kind}.jp2"
    if kind == "small blocks":
        return make_raster(
            folder / "small.tif", values, nodata=0, descriptions=BANDS,
            tiled=True, blockxsize=256, blockysize=256,
        )  # fmt: skip
    if kind == "strips":
        return make_raster(
            folder / "strips.tif", values, nodata=0, descriptions=BANDS, compress="deflate",
            blockysize=TALL, interleave="band",
        )  # fmt: skip
    if kind == "one jp2":
        with rasterio.open(
            scene, "w", **jp2, **blocks, **grid, height=HEIGHT, width=WIDTH, count=2,
            dtype="uint8", transform=Affine(10, 0, 500000, 0, -10, 5000000),
        ) as dataset:  # fmt: skip
            dataset.write(values)
            dataset.descriptions = BANDS
        return scene
    # A file for each band, the second one of pixels twice as large.
    several = folder / kind
    several.mkdir()
    for name, plane, gsd in zip(BANDS, values, (10, 20), strict=True):
        plane = plane[:: gsd // 10, :: gsd // 10] if kind == "two gsds" else plane
        size = gsd if kind == "two gsds" else 10
        with rasterio.open(
            several / f"{name}.jp2", "w", **jp2, **grid,
            blockxsize=plane.shape[1], blockysize=TALL,
            height=len(plane), width=plane.shape[1], count=1, dtype="uint8",
            transform=Affine(size, 0, 500000, 0, -size, 5000000),
        ) as dataset:  # fmt: skip
            dataset.write(plane[None])
    return several


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}
    folder = tmp_path_factory.mktemp("scenes")

    def scene(kind: str) -> Path:
        if kind not in made:
            made[kind] = tall_scene(folder, kind)
        return made[kind]

    return scene


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("m") / "model", BANDS, ("a", "b"), size=256)


def plan_of(scene: Path, model: Path, **options: Any) -> Plan:
    return make_plan(scene, PredictOptions(model=model, output=scene.parent / "o.tif", **options))


def read_of_files(plan: Plan, work: Callable[[], object]) -> float:
    """How often the scene's files were read while something was done."""

    def counted() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = counted()
    work()
    size = sum(Path(path).stat().st_size for path in plan.scene.paths)
    return (counted() - before) / size


def read_rows(plan: Plan, cache: int) -> None:
    with block_cache(cache), plan.ground_reader() as reader:
        for _ in chip_rows(reader, plan.chips, uniform=reader.uniform):
            pass


KINDS = ("strips", "one jp2", "files", "two gsds")


@only_linux
@pytest.mark.parametrize(("kind", "size"), [*((kind, 256) for kind in KINDS), ("one jp2", 1280)])
def test_each_block_is_decoded_once(
    scenes: Callable[[str], Path],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    size: int,
) -> None:
    """For rows of chips, and for chips all over the scene; a smaller cache decodes many times."""
    monkeypatch.setattr(block_memory, "LEAST_BYTES", 0)
    monkeypatch.setattr(block_memory, "TALL_ROWS", 1)
    plan = plan_of(scenes(kind), model, size=size)
    sample_chips(plan, 16)  # what is imported is read, too
    assert read_of_files(plan, lambda: read_rows(plan, plan.cache_bytes)) < 1.45
    assert read_of_files(plan, lambda: sample_chips(plan, 16)) < 1.45
    assert read_of_files(plan, lambda: read_rows(plan, SMALL)) > 1.5


@pytest.mark.parametrize("kind", ["strips", "one jp2", "files"])
def test_windows_across_blocks_are_those_of_small_blocks(
    scenes: Callable[[str], Path], kind: str
) -> None:
    tall, small = open_scene(scenes(kind)), open_scene(scenes("small blocks"))
    bands = tall.choose(BANDS), small.choose(BANDS)
    assert bands[0][0].blocks is not None and bands[0][0].blocks.tall
    windows = [
        Window(0, 0, 40, WIDTH), Window(1590, 3, 20, 133), Window(1600, 0, 5, 9),
        Window(690, 20, 820, 99), Window(1450, 40, 300, 70), Window(10, 140, 2980, 20),
    ]  # fmt: skip
    part = small.grid.crop(Window(7, 0, HEIGHT - 7, WIDTH))
    for grid in (small.grid, part):
        with SceneReader(bands[0], grid) as one, SceneReader(bands[1], grid) as other:
            for window in windows:
                for mine, theirs in zip(one.read(window), other.read(window), strict=True):
                    np.testing.assert_array_equal(mine, theirs)


def test_the_cache_holds_two_rows_of_tall_blocks_where_memory_allows(
    scenes: Callable[[str], Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_memory, "LEAST_BYTES", 0)
    monkeypatch.setattr(block_memory, "USUAL_BYTES", 1 << 18)
    monkeypatch.setattr(block_memory, "TALL_ROWS", 1)
    two_rows = 2 * 2 * TALL * WIDTH
    for kind in ("strips", "one jp2", "files"):
        plan = plan_of(scenes(kind), model)
        assert two_rows < plan.cache_bytes < 1.05 * two_rows
        assert not any("blocks" in w for w in plan.warnings)
        # A limit of which a quarter is less leaves it at what it was, and says so.
        limit = 4 * plan.cache_bytes
        assert plan_of(scenes(kind), model, mem_limit=limit).cache_bytes == plan.cache_bytes
        limited = plan_of(scenes(kind), model, mem_limit=limit - 4)
        assert limited.cache_bytes <= 1 << 18
        (said,) = (w for w in limited.warnings if "decoded again for each row of chips" in w)
        assert f"{WIDTH} x {TALL} px" in said and "--mem-limit 0.1GB" in said
    plain = plan_of(scenes("small blocks"), model, mem_limit=10 << 20)
    assert not any("blocks" in w for w in plain.warnings)


def test_scenes_of_small_blocks_have_the_cache_they_had(
    scenes: Callable[[str], Path], model: Path
) -> None:
    assert plan_of(scenes("small blocks"), model).cache_bytes == 64 << 20


def test_decoders_of_tall_blocks_count_for_the_limit_of_memory(
    scenes: Callable[[str], Path], model: Path
) -> None:
    def counted(kind: str) -> int:
        return block_memory.decoder_bytes(plan_of(scenes(kind), model).read_bands)

    assert counted("small blocks") == 0
    # Two threads may be at it, each with one file; JPEG 2000 is computed with 32 bits.
    assert counted("strips") >= 2 * TALL * WIDTH
    assert counted("files") >= 2 * 4 * TALL * WIDTH
    assert counted("one jp2") == 2 * counted("files")


FREED = """
import threading
from geoseg.core.machine import release_memory, resident_memory

held = []

def work():
    many = [bytearray(b"1" * 100_000) for _ in range(400)]
    held.append(bytearray(b"1" * 100_000))

before = resident_memory()
thread = threading.Thread(target=work)
thread.start()
thread.join()
kept = resident_memory()
release_memory()
print(kept - before, resident_memory() - before)
"""


@only_linux
def test_what_decoders_have_freed_is_given_back() -> None:
    """In a thread whose memory the C library keeps: what is freed below something that is not."""
    command = [sys.executable, "-c", FREED]  # of its own: others' threads have freed something, too
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    kept, left = map(int, done.stdout.split())
    if kept < 30 << 20:
        pytest.skip("this C library keeps nothing")
    assert left < 10 << 20
