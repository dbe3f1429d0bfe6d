"""Kernels: functions that numba compiles, once for all runs."""

from __future__ import annotations

import functools
import logging
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from geoseg.core.folders import cache_folder
from geoseg.core.importing import IMPORTING
from geoseg.core.workers import Stop, stoppable

__all__ = ["kernel", "warm_up"]

F = TypeVar("F", bound=Callable[..., Any])

#: Held while numba's folder for kernels is set, which is one setting for the whole process.
_SETTING = threading.Lock()


def kernel(function: F) -> F:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock.

    What was compiled is kept beside its module, or in geoseg's cache folder where that can't be
    written, so that only the first run of all pays for it. ``NUMBA_CACHE_DIR`` comes before both.
    Where nothing can be kept, every run compiles anew, which is said once.

    Args:
        function: of what numba knows.

    Returns:
        The compiled function, to be called in the same way.
    """
    compiled: Any
    config: Any = numba.config
    with _SETTING:
        given = config.CACHE_DIR
        config.CACHE_DIR = given or _elsewhere(Path(function.__code__.co_filename).parent)
        try:
            compiled = numba.njit(cache=True, nogil=True)(function)
        except RuntimeError:  # numba found no folder that it can write
            _say_that_nothing_is_kept()
            compiled = numba.njit(nogil=True)(function)
        finally:
            config.CACHE_DIR = given
    compiled._compile_for_args = functools.partial(_beside_main, compiled._compile_for_args)
    return cast(F, compiled)


def _beside_main(compile_: Callable[..., Any], *args: Any) -> Any:
    """Compile, or load what was compiled before, in another thread than the main one.

    In the main thread Ctrl-C may be raised at any moment, also in a function that LLVM calls.
    There it is lost, or leaves a module half made, and the process dies of it.
    """

    def work(stop: Stop | None = None) -> Any:
        # Who else imports scipy meanwhile might find it half made (see warm_up).
        with IMPORTING:
            return compile_(*args)

    main = threading.current_thread() is threading.main_thread()
    return stoppable(work) if main else work()


@functools.cache
def _elsewhere(folder: Path) -> str:
    """Find the folder for kernels where none can be kept beside their module; else nothing."""
    beside = folder / "__pycache__"
    try:
        beside.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return ""
    except OSError:
        pass
    try:
        return str(cache_folder() / "kernels")
    except RuntimeError:  # the user has no home folder
        return ""


@functools.cache
def _say_that_nothing_is_kept() -> None:
    """Warn on standard error, or wherever the program has its log."""
    logging.getLogger("geoseg").warning(
        "compiled code can't be kept, neither beside geoseg nor in its cache folder, so every run "
        "compiles it again, which takes some ten seconds; set GEOSEG_CACHE to a folder of your own"
    )


@kernel
def _nothing() -> None:
    """Do nothing, for the sake of the first call."""


def warm_up() -> None:
    """Have numba import most of itself, and parts of scipy: it does so at the first call of all.

    It takes half a second, for which there is time before the first chip is computed.
    """
    _nothing()
