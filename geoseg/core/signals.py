"""Ctrl-C and SIGTERM, held back where half of something would be left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uninterrupted"]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM wait until what is done within is whole; then they come."""
    if threading.current_thread() is not threading.main_thread():
        # Python's handlers run in the main thread alone: nothing interrupts this one.
        yield
        return
    came: list[int] = []
    # A mask of this thread's would not do: another thread, a runtime's, would take the signal.
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that Python did not set and can't set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])
