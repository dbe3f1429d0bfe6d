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
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import GRAPH_NAME
from geoseg.core.importing import missing, package_version, require
from geoseg.core.machine import machine
from geoseg.errors import ModelError
from geoseg.runtimes import RUNTIMES, Request, Runtime, checked
from geoseg.runtimes.agreement import (
    LEAST_AGREEMENT,
    LEAST_CHIPS,
    WORTH_TRYING,
    Candidate,
    Judge,
    parsed,
)
from geoseg.runtimes.graph_runtime import CpuRuntime
from geoseg.runtimes.kept import load_or_take

__all__ = ["choose"]


#: Chips that are timed, and seconds after which no further one is.
TIMED_CHIPS, SECONDS = 4, 3.0

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
        made = load_or_take(wanted, "torch", plain)
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
        made = load_or_take(wanted, "torch", plain)
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
        made = load_or_take(wanted, name, precision)
        if len(candidates) > 1:
            made.choice = f"{name} {precision}, as nothing was tried"
        return made
    chips = list(wanted.sample())
    if len(chips) < LEAST_CHIPS or (number is not None and number < WORTH_TRYING):
        made = load_or_take(wanted, name, precision)
        made.choice = f"{name} {precision}, as a few chips are done before others are tried"
        _prepare(made, chips)
        return made
    load = cache(lambda candidate: load_or_take(wanted, candidate[0], candidate[1]))
    key = _key(wanted, candidates, chips[0])
    failed: list[str] = []
    speeds = _kept_speeds(wanted.cache.read(f"speeds/{key}.json"), candidates)
    kept = speeds is not None
    if speeds is None:
        speeds, failed = _speeds(load, candidates, chips)
        content = [[*candidate, seconds] for candidate, seconds in speeds.items()]
        wanted.cache.write(f"speeds/{key}.json", json.dumps(content).encode())
    words = {c: _speed_in_words(c, seconds, speeds[candidates[0]]) for c, seconds in speeds.items()}
    best, judge = candidates[0], Judge(wanted, load, candidates[0], chips, key)
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
    found = parsed(content)
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


def _key(wanted: Request, candidates: Sequence[Candidate], chip: NDArray[Any]) -> str:
    """The cache's name for what was tried: the model, the chips' kind, machine and versions."""
    packages = "geoseg", *sorted({c[0] for c in candidates})
    versions = [package_version(package) for package in packages]
    shape = [*chip.shape, chip.dtype.name]
    what = [wanted.files.sha256, list(candidates), wanted.device, machine(), versions, shape]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
