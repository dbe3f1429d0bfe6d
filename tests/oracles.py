"""Runtimes whose right answer is known without a trained network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.runtimes import one_by_one


class NumpyRuntime:
    """The parts that all of them share."""

    name = "oracle"
    precision = "fp32"
    choice = "asked for"
    graph = ""
    device = "cpu"

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.batches: list[int] = []

    def prepare(self, pixels: NDArray[Any]) -> None:
        pass

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return np.zeros(shape, dtype=np.float32)

    def asarray(self, array: NDArray[np.float32]) -> Any:
        return array

    def to_numpy(self, array: Any) -> NDArray[np.float32]:
        return np.asarray(array)

    def probs(self, pixels: NDArray[Any]) -> Any:
        self.batches.append(len(pixels))
        return self.answer(pixels).astype(np.float32)

    def run(self, chips: Any, batch_size: int | None = None) -> Any:
        return one_by_one(self.probs, chips)

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError


class Identity(NumpyRuntime):
    """Probabilities are the pixels: stitching gives the scene back."""

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return pixels.astype(np.float32)


class OneHot(NumpyRuntime):
    """The class is the pixel's own value in the first band."""

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return pixels[:, :1] == np.arange(self.classes)[None, :, None, None]


class EdgeDistance(NumpyRuntime):
    """The answer depends only on the place in the chip: shows the taper and any order."""

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        n, _, h, w = pixels.shape
        rows = np.minimum(np.arange(h), h - 1 - np.arange(h))
        cols = np.minimum(np.arange(w), w - 1 - np.arange(w))
        distance = np.minimum(rows[:, None], cols[None, :]) / max(h, w)
        first = np.broadcast_to(distance, (n, 1, h, w))
        rest = np.zeros((n, self.classes - 2, h, w))
        return np.concatenate([first, 1 - first, rest], axis=1)


class Poisoned(NumpyRuntime):
    """Right inside the chip, wrong in its outermost ``margin`` pixels, as networks are."""

    def __init__(self, classes: int, margin: int) -> None:
        super().__init__(classes)
        self.margin = margin

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        right = (pixels[:, :1] == np.arange(self.classes)[None, :, None, None]).astype(np.float32)
        poisoned = np.roll(right, 1, axis=1) * 1000
        m = self.margin
        if m == 0:
            return right
        if min(right.shape[2:]) > 2 * m:
            poisoned[:, :, m:-m, m:-m] = right[:, :, m:-m, m:-m]
        return poisoned
