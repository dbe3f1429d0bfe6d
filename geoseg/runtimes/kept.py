"""Runtimes that a process keeps from one scene to the next, where it was told that more will come.

Compiling a network takes as long as a small scene. A worker of an archive compiles once for scenes
of one kind: of the same model, numbers and device.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from geoseg.runtimes import RUNTIMES, Request, Runtime

__all__ = ["keep", "load_or_take"]

#: What was loaded, the latest last; empty where nothing is to be kept.
_kept: OrderedDict[Any, Runtime] = OrderedDict()
_most = 0


def keep(most: int) -> None:
    """Keep runtimes from now on, in a process that predicts one scene at a time.

    Args:
        most: of them; 0 to let go of all.
    """
    global _most
    _most = most
    _shorten()


def load_or_take(wanted: Request, name: str, precision: str) -> Runtime:
    """Load a runtime, or take one that was kept.

    Args:
        wanted: what it is made for.
        name: a key of :data:`geoseg.runtimes.RUNTIMES`.
        precision: of its forward passes. One of 8 bits is made for its scene, and never kept.

    Raises:
        DeviceError: the device or the precision isn't there.
        ModelError: the model can't be run.
    """
    loader: Callable[[Request, str], Runtime] = RUNTIMES[name].load
    if not _most or precision == "int8":
        return loader(wanted, precision)
    numbers = wanted.radiometry.gain, wanted.radiometry.bias
    key = (wanted.files.sha256, wanted.device, wanted.threads, *numbers, name, precision)
    if key not in _kept:
        _kept[key] = loader(wanted, precision)
    _kept.move_to_end(key)
    _shorten()
    return _kept[key]


def _shorten() -> None:
    while len(_kept) > _most:
        _kept.popitem(last=False)
