"""Which runtime and precision: what is fastest here and gives the labels of fp32."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.card import GRAPH_NAME
from geoseg.errors import ModelError
from geoseg.importing import missing, package_version, require
from geoseg.runtimes import RUNTIMES, Request, Runtime
from geoseg.runtimes.cpu import CpuRuntime

__all__ = ["choose", "machine"]

#: The least share of fp32's labels that another precision must give.
AGREEMENT = 0.995

#: Chips that are tried, and seconds after which no further one is.
MOST_CHIPS, SECONDS = 4, 3.0

#: A scene of fewer chips is done before anything could be gained by trying.
WORTH_TRYING = 16

#: A scene of fewer chips is done by torch before a model without ``model.onnx`` is converted.
FEW_CHIPS = 32

#: Another precision must be this much faster than fp32 to be worth anything.
GAIN = 1.05


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
    if wanted.device == "auto" and wanted.tell is not None and _nvidia() and missing("torch"):
        wanted.tell(
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
            _prepare(made, list(wanted.sample())[:1])
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
        return [("onnxruntime", "fp32")]  # refused later, with what to do, where it lacks
    return [(name, p) for name in names for p in RUNTIMES[name].precisions(device)]


def _wants_gpu(device: str) -> bool:
    """Whether a GPU was asked for, or is here and wasn't declined; torch is asked last."""
    if device != "auto":
        return device != "cpu"
    mac = sys.platform == "darwin" and platform.machine() == "arm64"
    if not (mac or _nvidia()) or missing("torch"):
        return False
    from geoseg.runtimes.torch import pick_device

    return pick_device("auto").type != "cpu"


def _nvidia() -> bool:
    """Whether this machine has NVIDIA's driver, by what needs no torch."""
    return bool(shutil.which("nvidia-smi")) or Path("/dev/nvidiactl").exists()


def _best(wanted: Request, candidates: Sequence[tuple[str, str]], number: int | None) -> Runtime:
    """The only candidate, or the fastest sound one for a scene of so many chips."""
    name, precision = candidates[0]
    if len(candidates) == 1 or wanted.sample is None:
        made = RUNTIMES[name].load(wanted, precision)
        if len(candidates) > 1:
            made.choice = f"{name} {precision}, as nothing was tried"
        return made
    chips = list(wanted.sample())[:MOST_CHIPS]
    key = _key(wanted, candidates, chips)
    kept = _kept(wanted.cache.read(key), candidates)
    if kept is not None:
        name, precision = kept.runtime, kept.precision
    if kept is not None or len(chips) < 2 or (number is not None and number < WORTH_TRYING):
        made = RUNTIMES[name].load(wanted, precision)
        made.choice = (
            f"{kept.words()}, as an earlier run found"
            if kept is not None
            else f"{name} {precision}, as a few chips are done before others are tried"
        )
        _prepare(made, chips)
        return made
    runtimes, failed = _loaded(wanted, candidates, chips)
    trials = _try(runtimes, chips)
    best = min((t for t in trials if t.sound), key=lambda t: t.seconds)
    if trials[0].seconds < best.seconds * GAIN:
        best = trials[0]
    wanted.cache.write(key, json.dumps(asdict(best)).encode())
    made = runtimes[trials.index(best)]
    others = "; ".join([*(t.words() for t in trials if t is not best), *failed])
    made.choice = f"{best.words()}; tried on {len(chips)} chips: {others}"
    return made


def _loaded(
    wanted: Request, candidates: Sequence[tuple[str, str]], chips: Sequence[NDArray[Any]]
) -> tuple[list[Runtime], list[str]]:
    """The candidates that can run the network, and why the others can't.

    Raises:
        ModelError: the first one can't, which the others are measured by.
    """
    runtimes: list[Runtime] = []
    failed: list[str] = []
    for name, precision in candidates:
        try:
            made = RUNTIMES[name].load(wanted, precision)
            made.probs(chips[0][None])
        except ModelError as error:
            if not runtimes:
                raise
            failed.append(f"{name} {precision} can't run it: {error}")
        else:
            runtimes.append(made)
    return runtimes, failed


def _prepare(made: Runtime, chips: Sequence[NDArray[Any]]) -> None:
    """Find out here what the runtime can't run, where torch may still take over.

    Raises:
        ModelError: it can't run the network.
    """
    if chips and isinstance(made, CpuRuntime):
        made.prepare(chips[0])


@dataclass(frozen=True)
class Trial:
    """What came out of trying one candidate; "fp32" is the first one.

    Attributes:
        runtime: its name.
        precision: its name.
        seconds: a chip, of CPU time or on a GPU of the clock's.
        agreement: share of fp32's labels that it gives.
        speed: how many times as fast as fp32.
    """

    runtime: str
    precision: str
    seconds: float
    agreement: float
    speed: float

    @property
    def sound(self) -> bool:
        """Whether it gives the labels of fp32."""
        return self.agreement >= AGREEMENT

    def words(self) -> str:
        """The trial for people."""
        return (
            f"{self.runtime} {self.precision}: {self.seconds:.2g} s a chip, {self.speed:.2g} times "
            f"as fast as fp32, {100 * self.agreement:.4g} % of its labels"
        )


def _try(runtimes: Sequence[Runtime], chips: Sequence[NDArray[Any]]) -> list[Trial]:
    """Time precisions by turns on a few chips, and compare their labels with the first one's.

    Args:
        runtimes: each has had a chip, so that what is set up for the first one is there.
        chips: at least two.
    """
    # Neighbours on the machine change the clock's time, not that of the process.
    clock = time.process_time if runtimes[0].device == "cpu" else time.perf_counter
    seconds: list[list[float]] = [[] for _ in runtimes]
    alike = np.zeros(len(runtimes))
    began, done = time.perf_counter(), 0
    for pixels in chips:
        expected = None
        for i, made in enumerate(runtimes):
            start = clock()
            probs = made.to_numpy(made.probs(pixels[None]))
            seconds[i].append(clock() - start)
            labels = probs.argmax(axis=1)
            expected = labels if expected is None else expected
            alike[i] += np.mean(labels == expected)
        done += 1
        if done > 1 and time.perf_counter() - began > SECONDS:
            break
    least = [float(np.median(s)) for s in seconds]
    return [
        Trial(made.name, made.precision, s, float(share) / done, least[0] / s)
        for made, s, share in zip(runtimes, least, alike, strict=True)
    ]


def _kept(content: bytes | None, candidates: Sequence[tuple[str, str]]) -> Trial | None:
    """What an earlier run found, or None where there is nothing of use."""
    try:
        trial = Trial(**json.loads(content or b""))
        trial.words()
    except (ValueError, TypeError):
        return None
    # The first one is the measure of the others, so it is sound by itself.
    known = (trial.runtime, trial.precision) in candidates
    return trial if known and trial.sound else None


def _key(
    wanted: Request, candidates: Sequence[tuple[str, str]], chips: Sequence[NDArray[Any]]
) -> str:
    """The cache's name for a trial: the model, the chips' kind, the machine and the versions."""
    versions = [
        package_version(package) for package in ("geoseg", *sorted({c[0] for c in candidates}))
    ]
    shape = [*chips[0].shape, chips[0].dtype.name] if chips else []
    what = [wanted.files.sha256, list(candidates), wanted.device, machine(), versions, shape]
    return f"choices/{hashlib.sha256(json.dumps(what).encode()).hexdigest()}.json"


def machine() -> list[Any]:
    """What tells this machine from others that share a home folder, for JSON."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.startswith(("model name", "flags"))]
        model = "\n".join(sorted(set(lines)))
    except OSError:
        model = platform.processor()
    return [platform.machine(), model, os.cpu_count()]
