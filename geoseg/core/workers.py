"""Threads that work ahead of an iterator, in its order; work that can be stopped at any time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Stop", "StoppedError", "Workers", "leave", "left_behind", "stoppable"]

A = TypeVar("A")
B = TypeVar("B")

#: How often it is asked whether to stop, and how long work has to end in good order, s.
POLL, GRACE = 0.1, 0.5

#: That were left behind.
_LEFT: list[threading.Thread] = []


class StoppedError(Exception):
    """The work has been stopped by whoever asked for it."""


class Stop:
    """Stands between work and the one who waits for it: whether to stop, and what to report."""

    def __init__(self) -> None:
        """Nothing is to be stopped."""
        self._asked = threading.Event()
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def ask(self) -> None:
        """Have the work stop."""
        self._asked.set()

    def check(self) -> None:
        """See whether to stop; the work calls this now and then.

        Raises:
            StoppedError: it is to stop.
        """
        if self._asked.is_set():
            raise StoppedError

    def report(self, function: Callable[[], None]) -> None:
        """Have a function called in the thread that waits."""
        self._calls.put(function)


def stoppable(work: Callable[[Stop], B], stopped: Callable[[], bool] = lambda: False) -> B:
    """Do work in a thread of its own, and wait for it; who waits can leave at any time.

    Libraries in C (GDAL closing a large file, a sort) can't be interrupted. So the thread is left
    behind: it ends at its next :meth:`Stop.check`, and never keeps the process from ending.
    Whatever it has open must be its own.

    Args:
        work: called with the :class:`Stop` by which it asks and reports.
        stopped: asked about ten times a second.

    Returns:
        What ``work`` returns.

    Raises:
        StoppedError: ``stopped`` said so.
        BaseException: of the work, of what it had called here, or KeyboardInterrupt.
    """
    stop = Stop()
    done: deque[B] = deque(maxlen=1)
    failed: deque[BaseException] = deque(maxlen=1)

    def run() -> None:
        try:
            done.append(work(stop))
        except BaseException as error:  # noqa: BLE001 - it is raised where the work is waited for
            failed.append(error)
        stop.report(lambda: None)  # for who waits

    # What is set for who asks (such as how many pixels a raster may have) holds for the work, too.
    thread = threading.Thread(
        target=copy_context().run, args=(run,), name="geoseg-stoppable", daemon=True
    )
    try:
        # Ctrl-C may be raised in here, when the thread is at work already.
        thread.start()
        while not (done or failed):
            if stopped():
                raise StoppedError
            try:
                stop._calls.get(timeout=POLL)()
            except Empty:
                continue
        while not stop._calls.empty():
            stop._calls.get()()
    except BaseException:
        stop.ask()
        if thread.is_alive():  # one that has not begun yet finds that it is to stop
            leave(thread, GRACE)
        raise
    if failed:
        raise failed.pop()
    return done.pop()


def leave(thread: threading.Thread, seconds: float) -> None:
    """Wait for a thread that was asked to end, or leave it behind.

    Args:
        thread: that was started.
        seconds: to wait at most.
    """
    thread.join(seconds)
    if thread.is_alive():
        _LEFT.append(thread)


def left_behind() -> bool:
    """Whether work that was stopped has not ended yet.

    Python must not be taken down under it: a library that comes back from C meanwhile ends the
    process with an abort. ``os._exit`` is safe.
    """
    _LEFT[:] = [thread for thread in _LEFT if thread.is_alive()]
    return bool(_LEFT)


class Workers:
    """The threads of a computation: the caller's own, and those beside it.

    With one thread there are none beside it, and everything is done where it is asked for.

    Attributes:
        threads: in all.
        stop: asked before each item.
    """

    def __init__(self, threads: int = 1, stop: Stop | None = None) -> None:
        """Set up; use as a context manager.

        Args:
            threads: at least 1.
            stop: by which the computation is stopped; None: it never is.
        """
        self.threads = threads
        self.stop = stop or Stop()
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended = False
        # Python waits for the threads of its own pools when the process ends.
        self._beside = [
            threading.Thread(target=self._work, name=f"geoseg-worker-{i}", daemon=True)
            for i in range(1, threads)
        ]

    def __enter__(self) -> Workers:
        """Start."""
        for thread in self._beside:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the threads; what has not begun is left undone."""
        self._ended = True
        for _ in self._beside:
            self._tasks.put(None)
        for thread in self._beside:
            thread.join()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not self._ended:
                task()

    def map(self, function: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
        """Call a function with each item; the results come in order.

        Args:
            function: called in any of the threads.
            items: taken in the caller's thread.
            ahead: how many may be worked on, or wait, beyond the one that is yielded.

        Yields:
            The results; an error of the function is raised in its place.

        Raises:
            StoppedError: as asked.

        >>> with Workers(3) as workers:
        ...     list(workers.map(abs, [-3, 2, -1], ahead=2))
        [3, 2, 1]
        """
        waiting: deque[Future[B]] = deque()
        for item in items:
            self.stop.check()
            if not self._beside:
                taken = [item]
                del item
                yield function(taken.pop())  # both may be large: nothing here holds on to them
                continue
            future: Future[B] = Future()
            self._tasks.put(partial(_do, future, function, item))
            waiting.append(future)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _do(future: Future[Any], function: Callable[[A], Any], item: A) -> None:
    try:
        result = function(item)
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
        future.set_exception(error)
    else:
        future.set_result(result)
