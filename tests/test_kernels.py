"""Compiled loops see to no bounds; here all of them are run with bounds that are seen to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.codegen import JITCPUCodegen

from geoseg.core.jit import kernel
from geoseg.errors import ModelError
from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.window import Window
from geoseg.prediction.stitch import stitch
from tests.helpers import by_row

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_no_kernel_reaches_beyond_an_array(tmp_path: Path) -> None:
    """Most of the time is compiling them all anew, without optimizing: an index is what it is."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernelbounds", str(tmp_path)],
        cwd=ROOT,
        env={
            **os.environ,
            "NUMBA_BOUNDSCHECK": "1",
            "NUMBA_OPT": "0",
            "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all within\n"


def test_chips_that_no_row_of_the_grid_holds_are_refused() -> None:
    """Otherwise they, and all after them, would be left out in silence."""
    grid = ChipGrid(50, 50, 20, 8)
    windows = [*grid.chips()]
    options = {"classes": 2, "zeros": lambda s: np.zeros(s, np.float32), "asarray": lambda a: a}
    swapped = [windows[1], windows[0], *windows[2:]]
    beside = [windows[0], Window(0, 5, 20, 20), *windows[1:]]
    below = [Window(7, 0, 20, 20), *windows]
    for order in (windows[::-1], [*windows[4:], *windows[:4]], swapped, beside, below):
        given = ((w, np.ones((2, 20, 20), np.float32)) for w in order)
        with pytest.raises(ModelError, match="row by row, each from the left"):
            list(stitch(by_row(given, grid), grid, **options))  # type: ignore[arg-type]


def test_no_kernel_is_compiled_in_the_main_thread() -> None:
    """Ctrl-C is raised there, and numba dies of it (a segmentation fault) amid LLVM's callbacks."""

    @kernel
    def add(a: int, b: int) -> int:
        return a + b

    seen = []
    with pytest.MonkeyPatch.context() as patch:
        place = JITCPUCodegen.set_env
        patch.setattr(
            JITCPUCodegen,
            "set_env",
            lambda *args: [seen.append(threading.current_thread()), place(*args)],
        )
        assert add(1, 2) == 3
    assert seen and threading.main_thread() not in seen
    with pytest.raises(numba.TypingError):
        add("a", 1)
