"""How much memory and how many files a mosaic takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.mosaics import land, place, read, write_map

OLD, NEW = "2023-06-01T10:00:00Z", "2024-06-01T10:00:00Z"


LIMITED = """
import resource, sys
import geoseg, geoseg.polygons.polygonize
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
made = geoseg.mosaic(sys.argv[1], sys.argv[2], top=sys.argv[3])
print(made.report["pixels"]["valid"])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="files are limited by other means there")
@pytest.mark.parametrize(
    ("name", "top"), [("m.tif", "first"), ("m.tif", "confident"), ("m.vrt", "first")]
)
def test_few_files_are_open(tmp_path: Path, name: str, top: str) -> None:
    """300 maps with 64 descriptors for all."""
    rng = np.random.default_rng(0)
    ids = land(50, 50)
    for number in range(300):
        row, col = (int(n) for n in rng.integers(0, 600, 2))
        path = tmp_path / "out" / f"{number}" / "landcover.tif"
        write_map(path, ids, place(row, col), confidence=np.full(ids.shape, number % 250, np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "out"), str(tmp_path / name), top],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == (read(tmp_path / name) != 255).sum()


PEAK = """
import sys
import geoseg
from geoseg.core.machine import peak_memory
geoseg.mosaic(sys.argv[1], sys.argv[2], top=sys.argv[3], no_vector=True)
print(peak_memory())
"""


def peak(maps: Path, out: Path, top: str) -> int:
    command = [sys.executable, "-c", PEAK, str(maps), str(out), top]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("top", "maps"), [("first", 40), ("frequent", 15)])
def test_memory_does_not_grow_with_the_mosaic(tmp_path: Path, top: str, maps: int) -> None:
    """Maps of 16 Mpx in a row, 156,000 pixels wide; against one."""
    ids = land(500, 500).repeat(8, 0).repeat(8, 1)
    for number in range(maps):
        folder = "out" if number else "one"
        write_map(tmp_path / folder / f"{number}" / "landcover.tif", ids, place(0, 3900 * number))
    one, all_ = (peak(tmp_path / f, tmp_path / f"{f}.tif", top) for f in ("one", "out"))
    # The pixels of 40 are 640 MB; 64 MB are the blocks that GDAL keeps.
    assert all_ < one + 200e6, (one / 1e6, all_ / 1e6)
    assert all_ < 700e6
