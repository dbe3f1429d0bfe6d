"""How many of fp32's labels another precision gives, on chips of the scene at hand."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.importing import IMPORTING
from geoseg.runtimes import Request, Runtime, checked

__all__ = [
    "LEAST_AGREEMENT",
    "LEAST_CHIPS",
    "WORTH_TRYING",
    "Candidate",
    "Judge",
    "parsed",
    "sample_size",
]


#: The least share of fp32's labels that another precision must give on the scene at hand.
LEAST_AGREEMENT = 0.995


#: How sure that must be, as if the chips' shares were normally distributed.
CONFIDENCE = 0.975

#: A scene of fewer chips is done before anything could be gained by trying.
WORTH_TRYING = 16

#: Labels are compared on no fewer chips than the first number, and no more than the second one.
LEAST_CHIPS, MOST_CHIPS = 4, 64

#: (runtime, precision).
Candidate = tuple[str, str]


def sample_size(chips: int) -> int:
    """On how many of a scene's chips labels are compared.

    It is an eighth of them, as long as that is no more than 16, so that trying takes less time than
    it may save; in larger scenes 16, or a fiftieth where that is more.

    Args:
        chips: of the scene.

    Returns:
        1 where nothing is worth trying: whether a runtime runs at all is seen on one chip.

    >>> [sample_size(n) for n in (15, 16, 64, 128, 800, 1600, 100_000)]
    [1, 4, 8, 16, 16, 32, 64]
    """
    if chips < WORTH_TRYING:
        return 1
    return max(LEAST_CHIPS, min(max(min(chips // 8, 16), chips // 50), MOST_CHIPS))


@dataclass(frozen=True)
class Agreement:
    """How many of fp32's labels something else gives on a scene.

    Attributes:
        mean: share of labels on the chips that were looked at.
        least: what that share is at least over the whole scene, see :meth:`of`.
        chips: how many were looked at.
    """

    mean: float
    least: float
    chips: int

    @classmethod
    def of(cls, shares: Sequence[float]) -> Agreement:
        """From the share of each chip.

        The chips are a sample of the scene's, so their mean may be better than the scene's. It is
        at least the mean less Student's t (of 97.5 %) times the standard error of the chips'
        shares: 3.2 standard errors for 4 chips, 2.1 for 16, 2.0 for many. That allows for chips
        that differ as those which were looked at do. No sample allows for a kind of ground that it
        has no chip of, which is why the chips come from all over the scene.

        Args:
            shares: one a chip.
        """
        n, mean = len(shares), float(np.mean(shares))
        if n < LEAST_CHIPS:
            return cls(mean, 0.0, n)
        with IMPORTING:
            from scipy.special import stdtrit

        error = float(np.std(shares, ddof=1)) / math.sqrt(n)
        return cls(mean, mean - float(stdtrit(n - 1, CONFIDENCE)) * error, n)

    @property
    def sound(self) -> bool:
        """Whether it gives the labels of fp32."""
        return self.least >= LEAST_AGREEMENT

    def words(self) -> str:
        """For people; rounded down, so that 100 % are all."""
        words = f"{_percent(self.mean)} of fp32's labels on {self.chips} chips of this scene"
        if self.chips < LEAST_CHIPS:  # which say nothing of the rest
            return words
        return f"{words} (at least {_percent(self.least)} over all of it)"


def _percent(share: float) -> str:
    return f"{math.floor(10_000 * max(share, 0)) / 100:g} %"


class Judge:
    """Compares labels on the chips of a scene; what was found is kept for runs on the same."""

    def __init__(
        self,
        wanted: Request,
        load: Callable[[Candidate], Runtime],
        first: Candidate,
        chips: Sequence[NDArray[Any]],
        key: str,
    ) -> None:
        """Compute nothing yet.

        Args:
            wanted: with the cache.
            load: gives a candidate.
            first: whose labels are right.
            chips: of the scene.
            key: the cache's name for everything but the chips' numbers.
        """
        self._load, self._cache, self._chips = load, wanted.cache, chips
        radiometry = wanted.radiometry
        digest = hashlib.sha256(f"{key}{radiometry.gain}{radiometry.bias}".encode())
        for chip in chips:
            digest.update(np.ascontiguousarray(chip).data)
        self._key = digest.hexdigest()
        self._first = first
        self._expected: list[NDArray[np.uint8]] = []

    def agreement(self, candidate: Candidate) -> Agreement:
        """Compute the share of the first one's labels that a candidate gives.

        Raises:
            ModelError: it can't run the network.
        """
        name = f"labels/{self._key}-{'-'.join(candidate)}.json"
        kept = _kept_agreement(self._cache.read(name))
        if kept is not None:
            return kept
        found = self._compared(candidate)
        self._cache.write(name, json.dumps([found.mean, found.least, found.chips]).encode())
        return found

    def _labels(self, candidate: Candidate) -> Generator[NDArray[np.uint8], None, None]:
        made = self._load(candidate)
        for _, probs in checked.run(made, enumerate(self._chips)):
            yield made.to_numpy(probs).argmax(axis=0).astype(np.uint8)

    def _compared(self, candidate: Candidate) -> Agreement:
        self._expected = self._expected or list(self._labels(self._first))
        shares: list[float] = []
        with closing(self._labels(candidate)) as found:
            for labels, expected in zip(found, self._expected, strict=True):
                shares.append(float(np.mean(labels == expected)))
                # So many labels are lost that the rest can't make up for it.
                if sum(1 - share for share in shares) > (1 - LEAST_AGREEMENT) * len(self._chips):
                    break
        return Agreement.of(shares)


def _kept_agreement(content: bytes | None) -> Agreement | None:
    """Look up what an earlier run on this scene found, or None where there is nothing of use."""
    match parsed(content):
        case [float(mean), float(least), int(chips)] if least <= mean <= 1 and 0 < chips < 1000:
            return Agreement(mean, least, chips)
    return None


def parsed(content: bytes | None) -> Any:
    """Parsed, or None where it is none."""
    try:
        return json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
