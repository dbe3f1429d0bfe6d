"""Threads that work ahead of an iterator, in its order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

__all__ = ["Workers"]

A = TypeVar("A")
B = TypeVar("B")


class Workers:
    """The threads of a computation: the caller's own, and those beside it.

    With one thread there are none beside it, and everything is done where it is asked for.

    Attributes:
        threads: in all.
    """

    def __init__(self, threads: int = 1) -> None:
        """Set up; use as a context manager.

        Args:
            threads: at least 1.
        """
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "geoseg-worker") if threads > 1 else None

    def __enter__(self) -> Workers:
        """Start."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the threads; what has not begun is left undone."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
        """A function of each item, in order.

        Args:
            function: called in any of the threads.
            items: taken in the caller's thread.
            ahead: how many may be worked on, or wait, beyond the one that is yielded.

        Yields:
            The results; an error of the function is raised in its place.

        >>> with Workers(3) as workers:
        ...     list(workers.map(abs, [-3, 2, -1], ahead=2))
        [3, 2, 1]
        """
        if self._pool is None:
            yield from map(function, items)
            return
        waiting: deque[Future[B]] = deque()
        for item in items:
            waiting.append(self._pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
