"""Where compiled kernels are kept, and that a run does without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import geoseg

#: Halves a class raster, where every block of four has a clear majority.
CODE = """
import numpy as np
from geoseg.rasters.halving import halve

classes = np.repeat(np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8), 2, 0), 2, 1)
halved = np.empty((8, 8), np.uint8)
halve(classes, 255, halved)
assert np.array_equal(halved, np.arange(64).reshape(8, 8))
print(halve.stats.cache_path, sum(halve.stats.cache_hits.values()))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of geoseg that has no place for kernels, for root either."""
    root = tmp_path / "root"
    shutil.copytree(
        Path(geoseg.__file__).parent,
        root / "geoseg",
        ignore=shutil.ignore_patterns("__pycache__", "zoo"),
    )
    for folder in [root / "geoseg", *(p for p in (root / "geoseg").rglob("*") if p.is_dir())]:
        (folder / "__pycache__").write_text("a file, where a folder should be")
    return root


def run(copy: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG", "GEOSEG"))}
    return subprocess.run(
        [sys.executable, "-c", CODE],
        env={**kept, "PYTHONPATH": str(copy), **environment},
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_kernels_are_kept_in_geosegs_own_folder_where_the_package_is_read_only(
    copy: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = run(copy, GEOSEG_CACHE=str(cache))
    assert (first.returncode, first.stderr) == (0, "")
    where, hits = first.stdout.split()
    assert Path(where).is_relative_to(cache / "kernels") and hits == "0"
    second = run(copy, GEOSEG_CACHE=str(cache))
    assert (second.returncode, second.stdout.split()) == (0, [where, "1"])


def test_without_a_place_for_kernels_a_run_says_so_once_and_goes_on(copy: Path) -> None:
    done = run(copy, GEOSEG_CACHE=os.devnull + "/cache", HOME=os.devnull)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "0"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("compiled code can't be kept") and "set GEOSEG_CACHE to" in line


def test_the_users_own_folder_comes_first(copy: Path, tmp_path: Path) -> None:
    done = run(copy, GEOSEG_CACHE=str(tmp_path / "cache"), NUMBA_CACHE_DIR=str(tmp_path / "numba"))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.split()[0]).is_relative_to(tmp_path / "numba")
    assert not (tmp_path / "cache").exists()
