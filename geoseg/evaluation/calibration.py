"""Whether a probability of 0.8 is right in 8 of 10 pixels, and a temperature that corrects it.

The formulas are those of Guo et al. 2017, "On calibration of modern neural networks",
https://arxiv.org/abs/1706.04599: reliability diagram, expected and maximum calibration error over
bins of equal width, negative log likelihood, temperature scaling; and Brier 1950,
https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2, in its form for several classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

__all__ = [
    "BINS",
    "Calibration",
    "Reliability",
    "binned_sample",
    "errors_of",
    "fit_temperature",
    "softened",
]

BINS = 15
#: Pixels that a temperature is fitted to at most, and numbers that are kept of them.
SAMPLE_PIXELS = 1_000_000
SAMPLE_NUMBERS = 10_000_000
#: Temperatures beyond these say that there is no sound one.
COLDEST, HOTTEST = 0.02, 50.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What probabilities are worth; float64.

    Attributes:
        pixels: int64 (BINS,) of each bin of the mapped class's probability, (0, 1/15], ...
        confidence: (BINS,) their mean probability; NaN for an empty bin.
        accuracy: (BINS,) their share that is right.
        ece: expected calibration error, the mean of |accuracy - confidence| over pixels.
        mce: the largest of these differences.
        brier: mean over pixels of the sum over classes of (p - truth)^2, 0 to 2.
        nll: mean over pixels of -log p of the true class, in nats, with p at least ``least`` of
            the file.
        unlikely: pixels whose mapped class is not the most probable one.
        sampled: pixels that the temperature was fitted to.
        temperature: softmax(log p / T) has the least ``nll`` of these pixels; NaN where none of
            0.02 to 50 has.
        nll_after: ``nll`` of these pixels, with the temperature.
        ece_after: ``ece`` of these pixels, with the temperature.
        ece_sampled: ``ece`` of these pixels, without the temperature.
    """

    pixels: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    ece: float
    mce: float
    brier: float
    nll: float
    unlikely: int
    sampled: int
    temperature: float
    nll_after: float
    ece_after: float
    ece_sampled: float


class Reliability:
    """Adds up over parts of a map how right probabilities are.

    Memory is a sample of at most 1e7 probabilities, twice.
    """

    def __init__(self, classes: int, least: float, most: int | None = None) -> None:
        """Begin before the first part.

        Args:
            classes: K.
            least: probabilities below count as this one where a logarithm is taken.
            most: pixels of the sample; None for a million.
        """
        self._least = least
        self._bins = np.zeros((3, BINS))  # pixels, sum of probabilities, pixels that are right
        self._brier = self._nll = 0.0
        self._unlikely = 0
        self._size = max(1, min(most or SAMPLE_PIXELS, SAMPLE_NUMBERS // classes))
        self._hash = np.zeros(0, np.uint64)
        self._logs = np.zeros((0, classes), np.float32)
        self._facts = np.zeros((0, 2), np.int64)

    def add(
        self,
        probs: NDArray[np.float32],
        truth: NDArray[np.int64],
        mapped: NDArray[np.int64],
        index: NDArray[np.int64],
    ) -> None:
        """Take pixels with a class and a label.

        Args:
            probs: (N, K), 0 to 1.
            truth: (N,) places of the true classes, 0 to K - 1.
            mapped: (N,) of the mapped ones.
            index: (N,) number of the pixel in the map, row * width + column: the sample is drawn
                by it, so that it does not depend on how the map is cut.
        """
        if not len(truth):
            return
        each = np.arange(len(truth))
        confidence, right = probs[each, mapped].astype(np.float64), truth == mapped
        self._bins += _binned(confidence, right)
        self._unlikely += int((confidence < probs.max(axis=1)).sum())
        target = np.zeros(probs.shape, np.float32)
        target[each, truth] = 1
        self._brier += float(np.square(probs - target, dtype=np.float64).sum())
        logs = self.logs(probs)
        self._nll -= float(logs[each, truth].sum(dtype=np.float64))
        hashed = _scramble(index)
        if len(self._hash) >= self._size:
            few = hashed < self._hash.max()
            hashed, logs = hashed[few], logs[few]
            truth, mapped = truth[few], mapped[few]
        self._hash = np.concatenate((self._hash, hashed))
        self._logs = np.concatenate((self._logs, logs))
        self._facts = np.concatenate((self._facts, np.column_stack((truth, mapped))))
        if len(self._hash) > self._size:
            # Those with the smallest hashes: hashes are distinct, as pixels are.
            kept = np.argpartition(self._hash, self._size - 1)[: self._size]
            self._hash, self._logs = self._hash[kept], self._logs[kept]
            self._facts = self._facts[kept]

    def logs(self, probs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logarithms of probabilities that add up to 1, (N, K)."""
        clipped = np.maximum(probs, np.float32(self._least))
        return np.asarray(np.log(clipped / clipped.sum(axis=1, keepdims=True)))

    def sample(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Give the sampled pixels: (n, K) logarithms, (n,) true and (n,) mapped classes."""
        order = np.argsort(self._hash)  # sums don't depend on the order of arrival
        truth, mapped = self._facts[order].T
        return self._logs[order], truth, mapped

    def finish(self) -> Calibration:
        """Fit the temperature and give the scores."""
        pixels = self._bins[0]
        total = pixels.sum()
        ece, mce, confidence, accuracy = errors_of(self._bins)
        logs, truth, mapped = self.sample()
        temperature = fit_temperature(logs, truth)
        nll_after = ece_after = math.nan
        ece_sampled = errors_of(binned_sample(logs, truth, mapped, 1.0))[0]
        if math.isfinite(temperature):
            nll_after = _nll(logs, truth, temperature)
            ece_after = errors_of(binned_sample(logs, truth, mapped, temperature))[0]
        return Calibration(
            pixels.astype(np.int64),
            confidence,
            accuracy,
            ece,
            mce,
            self._brier / total if total else math.nan,
            self._nll / total if total else math.nan,
            self._unlikely,
            len(truth),
            temperature,
            nll_after,
            ece_after,
            ece_sampled,
        )


def _binned(confidence: Floats, right: NDArray[np.bool_]) -> Floats:
    """Count by bins, (3, BINS): pixels, sums of probabilities, right pixels."""
    place = (np.ceil(confidence * BINS).astype(np.int64) - 1).clip(0, BINS - 1)
    weights = (None, confidence, right)
    return np.stack([np.bincount(place, w, BINS).astype(np.float64) for w in weights])


def errors_of(bins: Floats) -> tuple[float, float, Floats, Floats]:
    """Compute ECE, MCE, and mean probability and accuracy of each bin."""
    pixels, sums, right = bins
    none = np.full(BINS, np.nan)
    confidence = np.divide(sums, pixels, out=none.copy(), where=pixels > 0)
    accuracy = np.divide(right, pixels, out=none.copy(), where=pixels > 0)
    if not pixels.any():
        return math.nan, math.nan, confidence, accuracy
    gap = np.abs(accuracy - confidence)
    ece = float(np.nansum(gap * pixels) / pixels.sum())
    return ece, float(np.nanmax(gap)), confidence, accuracy


def _chunks(logs: NDArray[np.float32]) -> Iterator[slice]:
    """Yield rows, about a million numbers at a time."""
    rows = max(1, (1 << 20) // logs.shape[1])
    for start in range(0, len(logs), rows):
        yield slice(start, start + rows)


def softened(logs: NDArray[np.float32], temperature: float) -> Floats:
    """Compute log softmax(log p / T), float64 (N, K)."""
    z = logs.astype(np.float64) / temperature
    z -= z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def binned_sample(
    logs: NDArray[np.float32],
    truth: NDArray[np.int64],
    mapped: NDArray[np.int64],
    temperature: float,
) -> Floats:
    """Count a sample's pixels by bins, with a temperature."""
    bins = np.zeros((3, BINS))
    for part in _chunks(logs):
        soft = np.exp(softened(logs[part], temperature))
        picked = soft[np.arange(len(soft)), mapped[part]]
        bins += _binned(picked, truth[part] == mapped[part])
    return bins


def _nll(logs: NDArray[np.float32], truth: NDArray[np.int64], temperature: float) -> float:
    """Compute the mean of -log p of the true class, with a temperature."""
    total = 0.0
    for part in _chunks(logs):
        soft = softened(logs[part], temperature)
        total -= float(soft[np.arange(len(soft)), truth[part]].sum())
    return total / len(truth)


def fit_temperature(logs: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Find the temperature with the least mean negative log likelihood of the truth.

    With u = 1/T the likelihood's slope, the mean over pixels of (the mean of log p under
    softmax(u log p)) - (log p of the truth), rises with u, so it has one zero or none.

    Args:
        logs: (N, K), logarithms of probabilities.
        truth: (N,), places of the true classes.

    Returns:
        T > 0; NaN where none of 0.02 to 50 is best: without pixels, where all pixels are right, or
        where probabilities say nothing.

    Examples:
        Called right in 2 of 3 pixels, each time with 90 %:

        >>> logs = np.log(np.array([[0.9, 0.1]] * 3, np.float32))
        >>> T = fit_temperature(logs, np.array([0, 0, 1]))
        >>> round(1 / (1 + (1 / 9) ** (1 / T)), 4)
        0.6667
    """
    if not len(truth):
        return math.nan
    picked = float(np.take_along_axis(logs, truth[:, None], axis=1).mean(dtype=np.float64))

    def slope(log_u: float) -> float:
        total = 0.0
        for part in _chunks(logs):
            weights = np.exp(softened(logs[part], math.exp(-log_u)))
            total += float((weights * logs[part]).sum())
        return total / len(truth) - picked

    low, high = -math.log(HOTTEST), -math.log(COLDEST)
    if not slope(low) < 0 < slope(high):
        return math.nan
    return math.exp(-float(brentq(slope, low, high, xtol=1e-9, rtol=1e-12)))


def _scramble(index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash to 64 bits without collisions: the finaliser of splitmix64 (Steele et al. 2014)."""
    x = index.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(x ^ (x >> np.uint64(31)))
