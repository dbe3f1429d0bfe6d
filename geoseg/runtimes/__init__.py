"""Runtimes: raw pixels in, probabilities out, on whatever device.

:data:`RUNTIMES` is the table; to add one, write a file with a loader and put a line there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.card import ModelFiles
from geoseg.radiometry import Radiometry

__all__ = ["RUNTIMES", "Runtime", "load_runtime"]


class Runtime(Protocol):
    """A network made ready for one scene.

    Attributes:
        classes: K, channels of the probabilities.
        device: where it runs, in words.
    """

    classes: int
    device: str

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
