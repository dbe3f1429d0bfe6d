"""Several answers to each chip, averaged: turned and mirrored chips, several models.

Averaging a network's answers to the turned and mirrored chip (test-time augmentation) and those of
several networks (an ensemble) takes out part of their errors; how far the members agree is a
measure of what they know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geoseg.runtimes import NumpyArrays, Runtime, checked

__all__ = ["POSITIONS", "Ensemble"]

T = TypeVar("T")

#: Name of ``--tta`` -> (quarter turns, whether it is mirrored after) of each member.
POSITIONS: dict[str, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "d4": tuple((quarters, mirrored) for mirrored in (False, True) for quarters in range(4)),
}


class Ensemble(NumpyArrays):
    """Runtimes that answer to each chip in several positions; a runtime like any other.

    Its probabilities are the members' mean, a number more than there are classes where the
    agreement is asked for: the last channel is the share of members whose likeliest class is the
    mean's.
    """

    def __init__(
        self, runtimes: Sequence[Runtime], tta: str = "none", *, agreement: bool = False
    ) -> None:
        """Put members together.

        Args:
            runtimes: of models with the same bands and classes.
            tta: a key of :data:`POSITIONS`.
            agreement: give the members' agreement as a further channel.
        """
        first = runtimes[0]
        self._runtimes = tuple(runtimes)
        self._turns = POSITIONS[tta]
        self._agreement = agreement
        self.classes = first.classes + int(agreement)
        self.name = "+".join(dict.fromkeys(r.name for r in runtimes))
        self.precision = "+".join(dict.fromkeys(r.precision for r in runtimes))
        self.device = first.device
        self.choice = "; ".join(dict.fromkeys(r.choice for r in runtimes))
        self.graph = "+".join(r.graph for r in runtimes)

    def prepare(self, pixels: NDArray[Any]) -> None:
        """Make what the members need; see :meth:`geoseg.runtimes.Runtime.prepare`."""
        for runtime in self._runtimes:
            for quarters in {quarters % 2 for quarters, _ in self._turns}:
                runtime.prepare(np.rot90(pixels, quarters, axes=(-2, -1)))

    def run(
        self, chips: Iterable[tuple[T, NDArray[Any]]], batch_size: int | None = None
    ) -> Iterator[tuple[T, Any]]:
        """Each chip's mean probabilities; see :meth:`geoseg.runtimes.Runtime.run`."""
        copies = tee(chips, len(self._runtimes))
        answers = [
            checked.run(runtime, self._turned(copy), batch_size)
            for runtime, copy in zip(self._runtimes, copies, strict=True)
        ]
        try:
            while True:
                mean: Any = None
                item: Any = None
                labels: list[Any] = []
                for _ in self._turns:
                    for answer in answers:
                        try:
                            (item, back), probs = next(answer)
                        except StopIteration:
                            return
                        probs = back(self._runtimes[0].to_numpy(probs))
                        mean = probs.copy() if mean is None else np.add(mean, probs, out=mean)
                        if self._agreement:
                            labels.append(probs.argmax(axis=0))
                mean /= len(self._turns) * len(answers)
                yield item, self._with_agreement(mean, labels)
        finally:
            for answer in answers:
                answer.close()

    def _turned(
        self, chips: Iterable[tuple[T, NDArray[Any]]]
    ) -> Iterator[tuple[tuple[T, Callable[[Any], Any]], NDArray[Any]]]:
        """Each chip in all positions, with what turns the answer back."""
        for item, pixels in chips:
            for quarters, mirrored in self._turns:
                turned = np.rot90(pixels, quarters, axes=(-2, -1))
                turned = turned[..., ::-1] if mirrored else turned
                yield (item, _back(quarters, mirrored)), turned.copy()

    def _with_agreement(self, mean: Any, labels: Sequence[Any]) -> Any:
        if not self._agreement:
            return mean
        winner = mean.argmax(axis=0)
        alike = np.stack([own == winner for own in labels]).mean(axis=0, dtype=np.float32)
        return np.concatenate([mean, alike[None]])

    def probs(self, pixels: NDArray[Any]) -> Any:
        """Probabilities of a batch; see :meth:`geoseg.runtimes.Runtime.probs`."""
        return np.stack([probs for _, probs in self.run(enumerate(pixels))])


def _back(quarters: int, mirrored: bool) -> Callable[[Any], Any]:
    def turn(probs: Any) -> Any:
        straight = probs[..., ::-1] if mirrored else probs
        return np.rot90(straight, -quarters, axes=(-2, -1))

    return turn
