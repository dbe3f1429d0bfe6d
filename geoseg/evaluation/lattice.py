"""Lattices: does something recur at every so many lines of a class raster?

In goes how often classes change across each line between two rows (or columns) of pixels, or how
many pixels of each row stand alone; out come the periods at which lines change more, or less, than
those near them, each with the chance that the ground alone does so.

What is on the ground is no white noise: neighbouring lines are alike, towns change more than lakes,
and a road along a row is a line that stands out by itself. So counts become scores first:

1. each line is compared with the median of the lines around it, and measured by their spread;
2. what is left is made white: its spectrum is divided by that of the frequencies around each;
3. ranks are turned into a normal distribution's quantiles, so that no line weighs too much.

The sum of the scores of a lattice's lines shows one that is weak and everywhere. How many of the
few lines lie on it that stand out most after step 1 shows one that is strong here and there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["LEVEL", "LONGEST", "Lattice", "LatticeSearch", "find_lattices", "tally"]

#: The longest period that is looked for, px.
LONGEST = 256
#: Fewer lines of a lattice than these show no period ...
FEWEST_LINES = 4
#: ... nor do fewer changes, at the lines of each phase: twice as many would often be chance.
FEWEST_CHANGES = 20
#: A lattice is reported where chance alone gives one in fewer maps than this share.
LEVEL = 0.01
#: A lattice's lines have at least so many changes more, or fewer, than the others, in the mean: a
#: straight border that climbs a pixel every so many lines makes one at each, and is ground.
LEAST_EXCESS = 2.0
#: Lines on either side with which one is compared, px; spreads are taken of twice as many.
NEAR = 16
#: Scores beyond these many spreads are cut off before the spectrum is made white: one line that
#: stands out has power at all frequencies.
FARTHEST = 4.0
#: Lines of a plain map hardly spread; that of a Poisson distribution is the least.
LEAST_SPREAD = 1.0
#: Shares of all lines that are taken as those which stand out most.
FEW = (0.005, 0.01, 0.02, 0.05)
#: Where the lines of a lattice that don't belong to a longer one stand out less than this share
#: of those which do, the longer one is meant.
EXPLAINED = 0.25
#: Lattices of one kind of line that are reported at most.
MOST_LATTICES = 4

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Lattice:
    """Lines that are alike and differ from the others.

    Attributes:
        period: px from one to the next.
        phase: number of the first; all lines ``k`` with ``k % period == phase`` belong to it.
        lines: how many there are.
        share: of the pairs across its lines that change.
        elsewhere: share of the pairs across all other lines that do.
        p_value: chance of such a lattice, of any period, on ground that has none.
    """

    period: int
    phase: int
    lines: int
    share: float
    elsewhere: float
    p_value: float


@dataclass(frozen=True)
class LatticeSearch:
    """What was looked for, and found.

    Attributes:
        longest: periods of 2 to this were looked for, px; None where even 2 shows nothing.
        p_value: of what stood out most, whether or not it is a lattice; None as ``longest``.
        lattices: those with p-values below ``LEVEL``, that which stands out most first.
    """

    longest: int | None
    p_value: float | None
    lattices: tuple[Lattice, ...]


@dataclass(frozen=True)
class _Candidate:
    log_p: float
    period: int
    phase: int
    hits: IntArray | None = None


def tally(
    ids: NDArray[Any], valid: NDArray[np.bool_]
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Count along the first axis what lattices are looked for in.

    Args:
        ids: (N, M) class ids.
        valid: (N, M), True where there is a class.

    Returns:
        (N - 1,) pairs of pixels that differ, and pairs, across the lines 1 to N - 1, of which line
        k is between row k - 1 and k; (N - 2,) pixels that differ from both neighbours across, which
        are alike, and pixels between two that have a class, of the rows 1 to N - 2.
    """
    both = valid[1:] & valid[:-1]
    differ = (ids[1:] != ids[:-1]) & both
    alone = differ[1:] & differ[:-1] & (ids[2:] == ids[:-2])
    triples = both[1:] & both[:-1]
    changes, pairs, standing, all_three = (
        part.sum(axis=1, dtype=np.int64) for part in (differ, both, alone, triples)
    )
    return changes, pairs, standing, all_three


def find_lattices(changes: IntArray, pairs: IntArray, searches: int = 1) -> LatticeSearch:
    """Look for lines that recur.

    Args:
        changes: (N,) pairs of pixels across each line that differ.
        pairs: (N,) all pairs; lines with 0 are left out.
        searches: how many such searches a reader looks at together; p-values allow for it.

    Returns:
        The lattices, those of one period once. What a found lattice explains (its multiples, its
        divisors) is taken out before the next is looked for.
    """
    at = np.flatnonzero(pairs > 0)
    most = min(LONGEST, len(at) // FEWEST_LINES)
    longest = min(most, int(changes.sum()) // FEWEST_CHANGES)
    if longest < 2:
        return LatticeSearch(None, None, ())
    counts = changes[at].astype(float)
    rest = _residuals(counts, pairs[at].astype(float))
    white = _whitened(np.clip(rest, -FARTHEST, FARTHEST))
    first: float | None = None
    found: dict[int, Lattice] = {}
    used = np.zeros(len(at), np.bool_)
    for _ in range(MOST_LATTICES):
        left = [period for period in range(2, most + 1) if period not in found]
        if not left:
            break
        few = list(_standing_out(at[~used], rest[~used]))
        candidates = list(_candidates(at[~used], counts[~used], _scores(white[~used]), few, left))
        best = min(candidates, key=lambda candidate: candidate.log_p)
        p_value = min(1.0, searches * math.exp(min(0.0, best.log_p)))
        first = p_value if first is None else first
        if p_value >= LEVEL:
            break
        clear = [c for c in candidates if searches * math.exp(min(0.0, c.log_p)) < LEVEL]
        best = _longer(best, clear, at[~used], rest[~used])
        if best.period in found:
            break
        found[best.period] = _lattice(best, changes, pairs, p_value)
        phases = at % best.period
        rest = rest - _means(phases, rest, best.period)[phases]
        white = white - _means(phases, white, best.period)[phases]
        if best.period > 2:
            # Half of the lines are too many to do without.
            used |= phases == best.phase
    return LatticeSearch(longest, first, tuple(found.values()))


def _longer(
    best: _Candidate, clear: list[_Candidate], at: IntArray, rest: FloatArray
) -> _Candidate:
    """Find the lattice whose lines stand out, where those of the best are more than it has.

    Args:
        best: what stands out most.
        clear: all that stand out.
        at: (N,) numbers of the lines.
        rest: (N,) as ``_residuals`` gives them.
    """
    rest = np.clip(rest, -FARTHEST, FARTHEST)
    for longer in sorted(clear, key=lambda candidate: candidate.period):
        if longer.period % best.period or longer.period == best.period:
            continue
        if longer.log_p > best.log_p / 2:  # by chance some more of its lines were touched
            continue
        on = at % longer.period == longer.phase
        between = (at % best.period == longer.phase % best.period) & ~on
        off = at % best.period != longer.phase % best.period
        if not (between.any() and off.any()):
            continue
        usual = rest[off].mean()
        if abs(rest[between].mean() - usual) < EXPLAINED * abs(rest[on].mean() - usual):
            best = longer
    if best.hits is not None:
        # It may be longer than what is looked for.
        period = int(np.gcd.reduce(np.diff(np.sort(best.hits))))
        best = replace(best, period=period, phase=int(best.hits[0]) % period)
    return best


def _lattice(best: _Candidate, changes: IntArray, pairs: IntArray, p_value: float) -> Lattice:
    phase = best.phase
    on = np.arange(len(pairs)) % best.period == phase
    share, elsewhere = (int(changes[k].sum()) / max(1, int(pairs[k].sum())) for k in (on, ~on))
    if best.period == 2 and share < elsewhere:
        # Fewer at every other line is more at those between.
        phase, on, share, elsewhere = 1 - phase, ~on, elsewhere, share
    lines = int((pairs[on] > 0).sum())
    return Lattice(best.period, phase, lines, share, elsewhere, p_value)


def _residuals(changes: FloatArray, pairs: FloatArray) -> FloatArray:
    """Compare each line with those near it, in spreads, (N,)."""
    # Of a binomial share this has the same spread everywhere.
    angle = np.arcsin(np.sqrt((changes + 0.375) / (pairs + 0.75)))
    rest = 2 * np.sqrt(pairs) * (angle - _around(angle, NEAR))
    # The median of a normal distribution's absolute values is 0.6745 spreads.
    spread = _around(np.abs(rest), 2 * NEAR) / 0.6745
    return rest / np.maximum(spread, LEAST_SPREAD)


def _whitened(rest: FloatArray) -> FloatArray:
    """Divide the spectrum by that of the frequencies around each.

    The median passes over the few frequencies of a lattice, so that they stay.
    """
    spectrum = np.fft.rfft(rest)
    power = np.abs(spectrum[1:]) ** 2
    usual = _around(power, min(max(16, len(power) // 12), 64))
    usual = np.maximum(usual, 1e-3 * usual.max() + 1e-12)
    spectrum[1:] /= np.sqrt(usual)
    spectrum[0] = 0
    return np.fft.irfft(spectrum, len(rest))


def _around(values: FloatArray, half: int) -> FloatArray:
    """Compute the median of ``half`` values on either side, (N,).

    The value itself would be one of its own parity too many: where every other line stands out,
    the median would alternate, too.
    """
    windows = sliding_window_view(np.pad(values, half, mode="reflect"), 2 * half + 1)
    return np.asarray(np.median(np.delete(windows, half, axis=1), axis=1))


def _scores(white: FloatArray) -> FloatArray:
    """Turn ranks into quantiles of the normal distribution, (N,); ties share theirs."""
    _, which, counts = np.unique(np.round(white, 9), return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / len(white)
    normal = NormalDist()
    return np.array([normal.inv_cdf(share) for share in middle])[which]


def _means(phases: IntArray, values: FloatArray, period: int) -> FloatArray:
    lines = np.bincount(phases, minlength=period)
    return np.asarray(np.bincount(phases, values, period) / np.maximum(lines, 1))


def _candidates(
    at: IntArray,
    counts: FloatArray,
    scores: FloatArray,
    few: list[tuple[int, IntArray]],
    periods: list[int],
) -> Iterator[_Candidate]:
    """Of each period the phase that stands out most, by the sum of scores and by the few.

    The logarithms of p-values allow for all phases and periods. The shorter a period, the more
    it may take of the level: long ones have more phases, and their fundamental is the likelier.

    Args:
        at: (N,) numbers of the lines.
        counts: (N,) changes.
        scores: (N,) of a standard normal distribution.
        few: those which stand out most, as they come from ``_standing_out``.
        periods: those that are looked for, px.
    """
    harmonic = sum(1 / period for period in periods)
    for period in periods:
        phases = at % period
        lines = np.bincount(phases, minlength=period)
        others = len(at) - lines
        on = np.bincount(phases, counts, period)
        excess = on / np.maximum(lines, 1) - (counts.sum() - on) / np.maximum(others, 1)
        excess[np.minimum(lines, others) < FEWEST_LINES] = 0
        # Half the level is for the sums, half for the few.
        tries = math.log(2 * harmonic * period * period)
        spread = np.sqrt(np.maximum(lines * others / len(at), 1))
        sums = np.bincount(phases, scores, period) / spread
        sums[np.sign(sums) * excess < LEAST_EXCESS] = 0
        phase = int(np.abs(sums).argmax())
        yield _Candidate(tries + _log_normal_tails(float(sums[phase])), period, phase)
        for sign, numbers in few:
            places = numbers % period
            hits = np.bincount(places, minlength=period)
            hits[sign * excess < LEAST_EXCESS] = 0
            phase = int(hits.argmax())
            tail = _log_binomial_tail(int(hits[phase]), len(numbers), lines[phase] / len(at))
            there = numbers[places == phase]
            yield _Candidate(tries + math.log(len(few)) + tail, period, phase, there)


def _standing_out(at: IntArray, rest: FloatArray) -> Iterator[tuple[int, IntArray]]:
    """Give the lines that change most (1), and least (-1); of neighbours that which does more."""
    for sign in (1, -1):
        signed = sign * rest
        beside = np.pad(signed, 1, constant_values=-np.inf)
        peak = (signed >= beside[:-2]) & (signed >= beside[2:]) & (signed > 1)
        places = np.flatnonzero(peak)
        places = places[np.argsort(-signed[places], kind="stable")]
        for share in FEW:
            count = math.ceil(share * len(at))
            if FEWEST_LINES <= count <= len(places):
                yield sign, at[places[:count]]


def _log_normal_tails(score: float) -> float:
    """Compute the logarithm of the chance of a normal number at least as far from 0."""
    score = abs(score)
    if score < 25:
        return math.log(math.erfc(score / math.sqrt(2)))
    # There erfc comes near the least number of float64; this is right to 1 in 1000.
    return -score * score / 2 - math.log(score * math.sqrt(math.pi / 2))


def _log_binomial_tail(hits: int, tries: int, share: float) -> float:
    """Compute the logarithm of the chance of at least so many hits."""
    if hits <= tries * share:
        return 0.0
    k = np.arange(hits, tries + 1)
    logs = _log_factorials(tries)
    terms = logs[tries] - logs[k] - logs[tries - k]
    terms = terms + k * math.log(share) + (tries - k) * math.log1p(-share)
    return min(0.0, float(np.logaddexp.reduce(terms)))


@lru_cache
def _log_factorials(last: int) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, last + 1)))])
