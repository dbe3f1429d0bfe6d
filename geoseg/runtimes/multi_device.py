"""One scene on several devices, which take turns at batches of its chips."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle, islice
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from geoseg.runtimes import DeviceRuntime

__all__ = ["BatchRuntime", "MultiDevice"]

T = TypeVar("T")


class BatchRuntime(DeviceRuntime, Protocol):
    """A runtime that takes batches.

    Attributes:
        batch_size: chips in one forward pass, to begin with.
    """

    batch_size: int

    def answers(self, chips: Sequence[Any], shape: int) -> list[Any]:
        """Each chip's probabilities (K, H, W), on the runtime's device.

        Args:
            chips: raw numbers (C, H, W) of each, arrays or tensors on any device; those that do
                not fit into the device's memory together are computed in smaller batches, and so
                are all after them.
            shape: chips in a forward pass, at least as many as there are chips.

        Raises:
            DeviceError: not even one fits.
        """

    def take(self, probs: Any) -> Any:
        """Another one's probabilities, brought to this runtime's device."""


class MultiDevice:
    """The same network on several devices; a runtime like any other.

    Each device has a thread, so that all compute at once; what they give comes together on the
    first one, where it is stitched, in the order of the chips. Devices of one kind give the same
    bits, so it does not matter which of them a chip was computed on.
    """

    def __init__(self, runtimes: Sequence[BatchRuntime]) -> None:
        """Put them together.

        Args:
            runtimes: one a device.
        """
        first = runtimes[0]
        self._runtimes = tuple(runtimes)
        self.name, self.precision, self.classes = first.name, first.precision, first.classes
        self.device = "+".join(runtime.device for runtime in runtimes)
        self.choice, self.graph = first.choice, first.graph
        self.probs, self.zeros, self.prepare = first.probs, first.zeros, first.prepare
        self.asarray, self.to_numpy = first.asarray, first.to_numpy
        self.on_device, self.upload, self.download = (
            first.on_device,
            first.upload,
            first.download,
        )

    def run(
        self, chips: Iterable[tuple[T, NDArray[Any]]], batch_size: int | None = None
    ) -> Iterator[tuple[T, Any]]:
        """Each chip's probabilities; see :meth:`geoseg.runtimes.Runtime.run`."""
        first = self._runtimes[0]
        size = batch_size or first.batch_size
        waiting = iter(chips)
        with ExitStack() as stack:
            pools = [
                stack.enter_context(ThreadPoolExecutor(1, "geoseg-turn")) for _ in self._runtimes
            ]
            turns = cycle(zip(self._runtimes, pools, strict=True))
            begun: deque[tuple[list[T], Future[list[Any]]]] = deque()

            def oldest() -> Iterator[tuple[T, Any]]:
                items, answers = begun.popleft()
                yield from zip(items, map(first.take, answers.result()), strict=True)

            try:
                shape = 0
                while batch := list(islice(waiting, size)):
                    shape = shape or len(batch)
                    runtime, pool = next(turns)
                    pixels = [pixels for _, pixels in batch]
                    begun.append(
                        ([item for item, _ in batch], pool.submit(runtime.answers, pixels, shape))
                    )
                    # One that is computed and one that waits for each device.
                    if len(begun) == 2 * len(pools):
                        yield from oldest()
                while begun:
                    yield from oldest()
            finally:
                for _, answers in begun:
                    answers.cancel()
