"""End a process whose job hangs where no event comes: in a library, on a disk, in a driver."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["GRACE", "ended_after"]

#: Seconds after its time in which a job may still end in order, at its next event.
GRACE = 30.0

_lock = threading.Lock()
#: When the process ends, one entry for each job that has a time limit.
_deadlines: dict[object, float] = {}


@contextmanager
def ended_after(seconds: float | None) -> Iterator[None]:
    """End this process where what is inside takes :data:`GRACE` longer than it may.

    The jobs that the process is at beside this one go with it; who waits for them sees that their
    worker is gone.

    Args:
        seconds: that it may take; None for any time.
    """
    if seconds is None:
        yield
        return
    job = object()
    with _lock:
        _deadlines[job] = time.monotonic() + seconds + GRACE
        _arm()
    try:
        yield
    finally:
        with _lock:
            del _deadlines[job]
            _arm()


def _arm() -> None:
    """Set the clock to the first deadline.

    It is a thread of C: one of Python would wait for a library that keeps the interpreter's lock.
    """
    if not _deadlines:
        faulthandler.cancel_dump_traceback_later()
        return
    left = max(min(_deadlines.values()) - time.monotonic(), 0.001)
    faulthandler.dump_traceback_later(left, exit=True, file=_nowhere())


def _nowhere() -> int:
    """A file for the traceback that comes with it: nobody looks at a worker's terminal."""
    global _sink
    if _sink is None:
        _sink = os.open(os.devnull, os.O_WRONLY)
    return _sink


_sink: int | None = None
