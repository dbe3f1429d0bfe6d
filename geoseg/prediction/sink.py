"""The sink: one thread that takes finished strips, keeps them and hands them on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

from geoseg.prediction.journal import StripStore
from geoseg.prediction.run_log import RunLog
from geoseg.prediction.strip import Strip

__all__ = ["Sink"]

#: Seconds that the last strip has after Ctrl-C.
PATIENCE = 1.0


class Sink:
    """Takes strips in their order: one is written while the next one is made.

    Its thread writes each to the journal (:class:`geoseg.prediction.journal.StripStore`), which
    wakes the makers of overviews and polygons and gives them the strip from memory.
    """

    def __init__(self, store: StripStore, log: RunLog) -> None:
        """Start the thread; use as a context manager.

        Args:
            store: of the strips.
            log: that clocks writing, and waiting for it.
        """
        self._store, self._log = store, log
        self._thread = ThreadPoolExecutor(1, "geoseg-sink")
        self._last: Future[None] | None = None

    def put(self, lane: int, strip: Strip) -> None:
        """Hand over a strip; waits until the one before is written.

        Args:
            lane: its number.
            strip: that is closed.

        Raises:
            OutputError: the one before could not be written.
            ProbabilitiesError: the one before held a NaN.
        """
        self._wait()
        self._last = self._thread.submit(self._take, lane, strip)

    def _take(self, lane: int, strip: Strip) -> None:
        with self._log.clock("write"):
            self._store.write(lane, strip.finish())

    def _wait(self) -> None:
        if self._last is not None:
            with self._log.clock("wait for writing"):
                self._last.result()

    def __enter__(self) -> Sink:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the last strip; what it failed by is raised unless something failed before.

        Who interrupts waits for a slow disk no longer than :data:`PATIENCE`.
        """
        try:
            if kind is None:
                self._wait()
            elif self._last is not None:
                patient = not issubclass(kind, KeyboardInterrupt)
                wait([self._last], None if patient else PATIENCE)
        finally:
            self._thread.shutdown(wait=False)
