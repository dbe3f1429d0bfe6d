"""What happens in a run: times, warnings and events, from whatever thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from geoseg.events import Event, Progress

__all__ = ["RunLog"]

T = TypeVar("T")


@dataclass
class RunLog:
    """Counts, times and warnings of a run, and who hears of them."""

    progress: Progress | None = None
    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    chips_run: int = 0
    chips_skipped: int = 0

    def __post_init__(self) -> None:
        """Set up what the clocks share."""
        self._lock = threading.Lock()
        self._nested = threading.local()
        self._owner = threading.get_ident()
        self._events: deque[Event] = deque()

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the time inside to a stage, less what clocks inside of it count; in any thread."""
        inner: list[float] = getattr(self._nested, "inner", [])
        self._nested.inner = inner
        inner.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            own = spent - inner.pop()
            if inner:
                inner[-1] += spent
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + own

    def clocked(self, stage: str, function: Callable[..., T]) -> Callable[..., T]:
        """A function whose calls are clocked."""

        def call(*arguments: Any) -> T:
            with self.clock(stage):
                return function(*arguments)

        return call

    def timed(self, stage: str, items: Iterable[T]) -> Generator[T, None, None]:
        """An iterator whose steps are clocked; closing it closes the iterator."""
        iterator = iter(items)
        try:
            while True:
                with self.clock(stage):
                    try:
                        item = next(iterator)
                    except StopIteration:
                        return
                yield item
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    def report(self, event: str, **values: Any) -> None:
        """Report an event.

        The receiver hears of all events in the thread that made this log, in their order: of what
        other threads report when that one reports next, or waits.
        """
        self._events.append(cast(Event, {"event": event, **values}))
        if threading.get_ident() == self._owner:
            self._deliver()

    def _deliver(self) -> None:
        while self._events:
            event = self._events.popleft()
            if self.progress is not None:
                self.progress(event)

    def wait(self, future: Future[T]) -> T:
        """Wait for what another thread does, and pass on what threads report meanwhile.

        Args:
            future: of its work.

        Returns:
            Its result; what it failed by is raised.
        """
        while not future.done():
            self._deliver()
            with suppress(TimeoutError):
                # Not longer: on Windows Ctrl-C is noticed after it alone.
                return future.result(timeout=0.1)
        self._deliver()
        return future.result()

    def warn(self, message: str) -> None:
        """Report and keep a warning."""
        self.warnings.append(message)
        self.report("warning", message=message)
