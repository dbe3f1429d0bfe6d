"""Kernels: functions that numba compiles, once for all runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock.

    What was compiled is kept beside the package, or in the user's cache folder where that can't be
    written (numba's rule), so that only the first run of all pays for it.

    Args:
        function: of what numba knows.

    Returns:
        The compiled function, to be called in the same way.
    """
    compiled: Any = numba.njit(cache=True, nogil=True)(function)
    return cast(F, compiled)


@kernel
def _nothing() -> None:
    """For its first call."""


# numba imports most of itself, and parts of scipy, when the first kernel of all is called. So it
# does that here, where who imports this module sees to it that nobody else imports scipy.
_nothing()
