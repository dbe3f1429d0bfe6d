"""Runtimes: raw pixels in, probabilities out, on whatever device.

:data:`RUNTIMES` is the table; to add one, write a file with a loader and put a line there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from geoseg.card import ModelFiles
from geoseg.radiometry import Radiometry

__all__ = ["RUNTIMES", "Runtime", "load_runtime", "one_by_one"]

T = TypeVar("T")


class Runtime(Protocol):
    """A network made ready for one scene.

    Attributes:
        name: its key in :data:`RUNTIMES`.
        precision: of the forward passes: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        classes: K, channels of the probabilities.
        device: where it runs, in words.
    """

    name: str
    precision: str
    classes: int
    device: str

    def run(
        self, chips: Iterable[tuple[T, NDArray[Any]]], batch_size: int | None = None
    ) -> Iterator[tuple[T, Any]]:
        """Each chip's probabilities, in the order in which the chips come.

        Chips are taken as fast as the runtime can use them and no faster. What a chip's
        probabilities are does not depend on the chips around it.

        Args:
            chips: (what comes back with it, raw numbers (C, H, W)).
            batch_size: the most chips in one forward pass on a GPU; a CPU takes them one by one,
                which is fastest there and gives the same bits whatever is asked for.

        Yields:
            (what came with the chip, float32 (K, H, W)); the array may be overwritten once the
            next one is asked for.
        """

    def probs(self, pixels: NDArray[Any]) -> Any:
        """Probabilities of a batch.

        Args:
            pixels: raw numbers as in the scene's files, (N, C, H, W), any real dtype.

        Returns:
            float32 (N, K, H, W), a numpy array or a tensor on the runtime's device.
        """

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A float32 array of zeros on the runtime's device."""

    def asarray(self, array: NDArray[np.float32]) -> Any:
        """A float32 numpy array on the runtime's device."""

    def to_numpy(self, array: Any) -> NDArray[np.float32]:
        """The other way round; may share memory."""


def one_by_one(
    probs: Callable[[NDArray[Any]], Any], chips: Iterable[tuple[T, NDArray[Any]]]
) -> Iterator[tuple[T, Any]]:
    """The plainest :meth:`Runtime.run`.

    Args:
        probs: of a batch.
        chips: (what comes back with it, raw numbers (C, H, W)).
    """
    for item, pixels in chips:
        yield item, probs(pixels[None])[0]


def _torch(files: ModelFiles, radiometry: Radiometry, device: str, threads: int | None) -> Runtime:
    from geoseg.runtimes.torch import load

    return load(files, radiometry, device=device, threads=threads)


RUNTIMES: dict[str, Callable[[ModelFiles, Radiometry, str, int | None], Runtime]] = {
    "torch": _torch,
}


def load_runtime(
    files: ModelFiles,
    radiometry: Radiometry,
    *,
    runtime: str = "torch",
    device: str = "auto",
    threads: int | None = None,
) -> Runtime:
    """Make a model ready for a scene.

    Args:
        files: the model.
        radiometry: what the scene's numbers mean.
        runtime: a key of :data:`RUNTIMES`.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        threads: for computing on a CPU; None leaves it to the runtime.

    Raises:
        DeviceError: the device isn't there.
        ModelError: the weights don't fit the network.
    """
    return RUNTIMES[runtime](files, radiometry, device, threads)
