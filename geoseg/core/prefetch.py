"""Run an iterator ahead in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import closing, nullcontext
from typing import Any, TypeVar

from geoseg.core.workers import StoppedError, leave

__all__ = ["prefetch"]

T = TypeVar("T")

_END = object()

#: Seconds that the thread has to end.
PATIENCE = 1.0


def prefetch(
    items: Iterable[T], depth: int = 1, cancelled: threading.Event | None = None
) -> Generator[T, None, None]:
    """Run an iterator ahead in a thread, so that reading overlaps with computing.

    An error in the iterator is raised here, at its place. Leaving the loop early ends the thread;
    one amid a slow read is left behind after a second, and closes the iterator when it is back.

    Args:
        items: the iterator.
        depth: how many items may wait.
        cancelled: once it is set, the thread ends after the item in hand.

    Raises:
        StoppedError: it was cancelled, and what is asked for won't come.
    """
    waiting: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    flags = [flag for flag in (stop, cancelled) if flag is not None]

    def put(item: object) -> bool:
        while not any(flag.is_set() for flag in flags):
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        if stop.is_set():
            return
        try:
            # Whatever the iterator has open is closed in the thread that used it.
            with closing(items) if isinstance(items, Generator) else nullcontext():
                for item in items:
                    if not put((item, None)):
                        return
            put((_END, None))
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            put((_END, error))

    thread = threading.Thread(target=work, name="geoseg-read", daemon=True)
    try:
        # Ctrl-C may be raised in here, when the thread is at work already.
        thread.start()
        while True:
            try:
                # Not longer: on Windows Ctrl-C is noticed after it alone.
                item, error = waiting.get(timeout=0.1)
            except queue.Empty:
                if cancelled is not None and cancelled.is_set():
                    raise StoppedError from None
                continue
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        if thread.is_alive():  # one that has not begun yet finds that it is to stop
            leave(thread, PATIENCE)
