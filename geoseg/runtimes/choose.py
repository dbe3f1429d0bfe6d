"""Which runtime and precision: what is fastest here and gives the labels of fp32.

How fast each is, is a property of the model and the machine: it is measured once and kept. Whether
another one gives fp32's labels depends on the scene: it is measured on chips of each scene, spread
over all of it, or fp32 is taken.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import GRAPH_NAME
from geoseg.core.importing import IMPORTING, missing, package_version, require
from geoseg.core.machine import machine
from geoseg.errors import ModelError
from geoseg.runtimes import RUNTIMES, Request, Runtime, checked
from geoseg.runtimes.graph_runtime import CpuRuntime

__all__ = ["choose", "sample_size"]

#: The least share of fp32's labels that another precision must give on the scene at hand.
LEAST_AGREEMENT = 0.995

#: How sure that must be, as if the chips' shares were normally distributed.
CONFIDENCE = 0.975

#: Chips that are timed, and seconds after which no further one is.
TIMED_CHIPS, SECONDS = 4, 3.0

#: A scene of fewer chips is done before anything could be gained by trying.
WORTH_TRYING = 16

#: Labels are compared on no fewer chips than the first number, and no more than the second one.
LEAST_CHIPS, MOST_CHIPS = 4, 64

#: A scene of fewer chips is done by torch before a model without ``model.onnx`` is converted.
FEW_CHIPS = 32

#: Another precision must be this much faster than fp32 to be worth anything.
GAIN = 1.05

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


def choose(wanted: Request, runtime: str, precision: str, chips: int | None) -> Runtime:
    """Make the runtime that was asked for, or the best one.

    Args:
        wanted: what it is made for.
        runtime: its name, or ``auto``.
        precision: its name, or ``auto``.
        chips: how many the scene has, or None where that is not known.

    Returns:
        The runtime; its ``choice`` says why it is the one.

    Raises:
        DeviceError: the device or the precision isn't there.
        MissingExtraError: the runtime, or what makes the model's graph for it, is not installed.
        ModelError: the weights don't fit the network, or the runtime can't run it.
    """
    if runtime == "torch":
        require("torch", "--runtime torch")
    if runtime != "auto":
        return _best(wanted, _candidates((runtime,), precision, wanted.device), chips)
    if _wants_gpu(wanted.device):
        require("torch", f"--device {wanted.device}")
        return _best(wanted, _candidates(("torch",), precision, wanted.device), chips)
    if wanted.device == "auto" and wanted.report is not None and _nvidia() and missing("torch"):
        wanted.report(
            "the CPU computes, as what uses this machine's GPU is not installed; install it: "
            "pip install 'geoseg[torch]'"
        )
    if precision == "int8":
        return _best(wanted, [("openvino", "int8")], chips)
    plain = "fp32" if precision == "auto" else precision
    if wanted.files.graph is None and (chips is None or chips < FEW_CHIPS):
        require("torch", f"{wanted.files.path}: a model without {GRAPH_NAME}")
        made = RUNTIMES["torch"].load(wanted, plain)
        made.choice = (
            "the model has no model.onnx, and it takes longer to make one than to do a few chips; "
            "geoseg models graph writes it"
        )
        return made
    names = ("openvino", "onnxruntime") if precision == "auto" else ("openvino",)
    try:
        candidates = _candidates(names, precision, wanted.device)
        made = _best(wanted, candidates, chips)
        if len(candidates) == 1 and wanted.sample is not None:
            _prepare(made, list(wanted.sample()))
        return made
    except ModelError as error:
        if missing("torch"):
            raise
        # Wrong weights are refused by torch, too; what is left is a network that only torch runs.
        made = RUNTIMES["torch"].load(wanted, plain)
        made.choice = f"torch runs what OpenVINO can't: {error}"
        return made


def _candidates(names: Sequence[str], precision: str, device: str) -> list[tuple[str, str]]:
    """(runtime, precision) of what is to be tried; the first is the measure of the others."""
    if precision != "auto":
        return [(name, precision) for name in names]
    if names == ("onnxruntime",):
        return [("onnxruntime", "fp32")]  # refused later, with what to do, where it is missing
    return [(name, p) for name in names for p in RUNTIMES[name].precisions(device)]


def _wants_gpu(device: str) -> bool:
    """Whether a GPU was asked for, or is here and wasn't declined; torch is asked last."""
    if device != "auto":
        return device != "cpu"
    mac = sys.platform == "darwin" and platform.machine() == "arm64"
    if not (mac or _nvidia()) or missing("torch"):
        return False
    from geoseg.networks.device import pick_device

    return pick_device("auto").type != "cpu"


def _nvidia() -> bool:
    """Whether this machine has NVIDIA's driver, by what needs no torch."""
    return bool(shutil.which("nvidia-smi")) or Path("/dev/nvidiactl").exists()


def _best(wanted: Request, candidates: Sequence[Candidate], number: int | None) -> Runtime:
    """The only candidate, or the fastest one that gives the labels of the first on this scene."""
    name, precision = candidates[0]
    if len(candidates) == 1 or wanted.sample is None:
        made = RUNTIMES[name].load(wanted, precision)
        if len(candidates) > 1:
            made.choice = f"{name} {precision}, as nothing was tried"
        return made
    chips = list(wanted.sample())
    if len(chips) < LEAST_CHIPS or (number is not None and number < WORTH_TRYING):
        made = RUNTIMES[name].load(wanted, precision)
        made.choice = f"{name} {precision}, as a few chips are done before others are tried"
        _prepare(made, chips)
        return made
    load = cache(lambda candidate: RUNTIMES[candidate[0]].load(wanted, candidate[1]))
    key = _key(wanted, candidates, chips[0])
    failed: list[str] = []
    speeds = _kept_speeds(wanted.cache.read(f"speeds/{key}.json"), candidates)
    kept = speeds is not None
    if speeds is None:
        speeds, failed = _speeds(load, candidates, chips)
        content = [[*candidate, seconds] for candidate, seconds in speeds.items()]
        wanted.cache.write(f"speeds/{key}.json", json.dumps(content).encode())
    words = {c: _speed_in_words(c, seconds, speeds[candidates[0]]) for c, seconds in speeds.items()}
    best, judge = candidates[0], _Judge(wanted, load, candidates[0], chips, key)
    for candidate in sorted(speeds, key=lambda c: speeds[c]):
        if speeds[candidate] * GAIN > speeds[candidates[0]]:
            break
        try:
            found = judge.agreement(candidate)
        except ModelError as error:
            failed.append(f"{' '.join(candidate)} can't run it: {error}")
            del words[candidate]
            continue
        words[candidate] += f", {found.words()}"
        if found.sound:
            best = candidate
            break
        words[candidate] += f"; {100 * LEAST_AGREEMENT:g} % are asked for"
    made = load(best)
    _prepare(made, chips)
    others = [w for candidate, w in words.items() if candidate != best]
    when = "speeds as an earlier run found" if kept else "tried"
    made.choice = f"{words[best]}; {when}: {'; '.join([*others, *failed]) or 'no other'}"
    return made


def _prepare(made: Runtime, chips: Sequence[NDArray[Any]]) -> None:
    """Find out here what the runtime can't run, where torch may still take over.

    Raises:
        ModelError: it can't run the network.
    """
    if chips and isinstance(made, CpuRuntime):
        made.prepare(chips[0])


def _speeds(
    load: Callable[[Candidate], Runtime],
    candidates: Sequence[Candidate],
    chips: Sequence[NDArray[Any]],
) -> tuple[dict[Candidate, float], list[str]]:
    """Seconds a chip of each candidate, by turns on a few chips, and which can't run the network.

    Seconds are of CPU time, or on a GPU of the clock's.

    Raises:
        ModelError: the first one can't, which the others are measured by.
    """
    runtimes: dict[Candidate, Runtime] = {}
    failed: list[str] = []
    for candidate in candidates:
        try:
            made = load(candidate)
            # What is set up for the first chip is there then.
            checked.probs(made, chips[0][None])
        except ModelError as error:
            if not runtimes:
                raise
            failed.append(f"{' '.join(candidate)} can't run it: {error}")
        else:
            runtimes[candidate] = made
    # Neighbours on the machine change the clock's time, not that of the process.
    first = next(iter(runtimes.values()))
    clock = time.process_time if first.device == "cpu" else time.perf_counter
    seconds: dict[Candidate, list[float]] = {candidate: [] for candidate in runtimes}
    began = time.perf_counter()
    for done, pixels in enumerate(chips[:TIMED_CHIPS]):
        if done > 1 and time.perf_counter() - began > SECONDS:
            break
        for candidate, made in runtimes.items():
            start = clock()
            made.to_numpy(checked.probs(made, pixels[None]))
            seconds[candidate].append(clock() - start)
    # A clock of coarse ticks may see nothing.
    return {c: max(float(np.median(s)), 1e-9) for c, s in seconds.items()}, failed


def _speed_in_words(candidate: Candidate, seconds: float, first: float) -> str:
    words = f"{' '.join(candidate)}: {seconds:.2g} s a chip"
    return words if seconds == first else f"{words}, {first / seconds:.2g} times as fast as fp32"


def _kept_speeds(
    content: bytes | None, candidates: Sequence[Candidate]
) -> dict[Candidate, float] | None:
    """Look up what an earlier run measured, or None where there is nothing of use."""
    found = _json(content)
    if not isinstance(found, list):
        return None
    speeds: dict[Candidate, float] = {}
    for entry in found:
        if not isinstance(entry, list) or len(entry) != 3:
            return None
        name, precision, seconds = entry
        known = [c for c in candidates if c == (name, precision)]
        if not known or not isinstance(seconds, float) or not 0 < seconds < math.inf:
            return None
        speeds[known[0]] = seconds
    return speeds if candidates[0] in speeds else None


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


class _Judge:
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
    match _json(content):
        case [float(mean), float(least), int(chips)] if least <= mean <= 1 and 0 < chips < 1000:
            return Agreement(mean, least, chips)
    return None


def _json(content: bytes | None) -> Any:
    """Parsed, or None where it is none."""
    try:
        return json.loads(content or b"")
    except (ValueError, RecursionError):
        return None


def _key(wanted: Request, candidates: Sequence[Candidate], chip: NDArray[Any]) -> str:
    """The cache's name for what was tried: the model, the chips' kind, machine and versions."""
    packages = "geoseg", *sorted({c[0] for c in candidates})
    versions = [package_version(package) for package in packages]
    shape = [*chip.shape, chip.dtype.name]
    what = [wanted.files.sha256, list(candidates), wanted.device, machine(), versions, shape]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
