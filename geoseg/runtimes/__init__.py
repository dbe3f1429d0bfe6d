"""Runtimes: raw pixels in, probabilities out, on whatever device.

:data:`RUNTIMES` is the table; to add one, write a file with a loader and put a line there. The
files ``on_*.py`` are one each; :mod:`~geoseg.runtimes.choose` is ``auto``, which tries precisions
on the scene's own chips; :mod:`~geoseg.runtimes.int8` makes 8 bits;
:mod:`~geoseg.runtimes.ensemble` and :mod:`~geoseg.runtimes.multi_device` put several together;
:mod:`~geoseg.runtimes.checked` refuses what is no answer; ``kept.py`` keeps what was compiled for
the next scene. Start with :class:`Runtime`.

For other rooms:
    agreement: LEAST_CHIPS, sample_size
    checked: probs, run
    ensemble: Ensemble, POSITIONS
    int8: in_words, quantize_files
    kept: keep
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.files import ModelFiles
from geoseg.core.cache import Cache
from geoseg.core.importing import missing, require
from geoseg.errors import DeviceError, UsageError
from geoseg.scene.radiometry import Radiometry

__all__ = [
    "PRECISIONS",
    "RUNTIMES",
    "DeviceRuntime",
    "Entry",
    "NumpyArrays",
    "Request",
    "Runtime",
    "load_runtime",
    "on_device",
    "one_by_one",
]

T = TypeVar("T")

#: What a user may ask for.
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


class Runtime(Protocol):
    """A network made ready for one scene.

    Attributes:
        name: its key in :data:`RUNTIMES`.
        precision: of the forward passes: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        classes: K, channels of the probabilities.
        device: where it runs, in words.
        choice: why this runtime and precision, in words.
        graph: the SHA-256 of the graph that is run, hexadecimal; empty where card and weights say
            it all.
    """

    name: str
    precision: str
    classes: int
    device: str
    choice: str
    graph: str

    def prepare(self, pixels: NDArray[Any]) -> object:
        """Make what chips like this one need, once; any thread may ask for it.

        :meth:`run` does it when such a chip comes. Who knows what will come asks before, and does
        something else meanwhile.

        Args:
            pixels: (C, H, W); of its numbers only the dtype counts.

        Raises:
            ModelError: the network can't be run here.
        """

    def run(
        self, chips: Iterable[tuple[T, NDArray[Any]]], batch_size: int | None = None
    ) -> Iterator[tuple[T, Any]]:
        """Each chip's probabilities, in the order in which the chips come.

        Chips are taken as fast as the runtime can use them and no faster. What a chip's
        probabilities are does not depend on the chips around it.

        Args:
            chips: (what comes back with it, raw numbers (C, H, W)); arrays, or tensors on the
                device of a :class:`DeviceRuntime`.
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


class NumpyArrays:
    """The part of a runtime that says that its probabilities are numpy arrays."""

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A float32 array of zeros."""
        return np.zeros(shape, dtype=np.float32)

    def asarray(self, array: NDArray[np.float32]) -> Any:
        """The array itself."""
        return array

    def to_numpy(self, array: Any) -> NDArray[np.float32]:
        """The array itself."""
        result: NDArray[np.float32] = array
        return result


class DeviceRuntime(Runtime, Protocol):
    """A runtime with a memory of its own, which takes chips that lie there already.

    Rows of chips go there once and finished strips come back once, whatever the number of chips.

    Attributes:
        on_device: True.
    """

    on_device: bool

    def upload(self, arrays: Sequence[NDArray[Any]]) -> Callable[[], list[Any]]:
        """Begin to copy arrays to the device, together; any thread may do it.

        Args:
            arrays: of any dtypes and shapes; they may change once this returns.

        Returns:
            A function to be called by the thread that computes, which gives the tensors; what is
            computed with them waits for the copy, the caller does not.
        """

    def download(self, tensors: Sequence[Any]) -> Callable[[], list[NDArray[Any]]]:
        """Begin to copy tensors from the device, together, once they are computed.

        Args:
            tensors: of any dtypes and shapes, on the device.

        Returns:
            A function that waits for the copy and gives the arrays; any thread may call it.
        """


def on_device(runtime: Runtime) -> DeviceRuntime | None:
    """The runtime, where it has a memory of its own, else None."""
    return cast(DeviceRuntime, runtime) if getattr(runtime, "on_device", False) else None


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


@dataclass(frozen=True)
class Request:
    """What a runtime is made for.

    Attributes:
        files: the model.
        radiometry: what the scene's numbers mean.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``cuda:all`` or ``mps``.
        threads: for computing on a CPU; None leaves it to the runtime.
        cache: what earlier runs made.
        sample: gives the first chips of the scene, raw (C, H, W), or None.
        report: called with notes for the user, or None.
    """

    files: ModelFiles
    radiometry: Radiometry
    device: str
    threads: int | None
    cache: Cache
    sample: Callable[[], Sequence[NDArray[Any]]] | None = None
    report: Callable[[str], None] | None = None


def _torch(wanted: Request, precision: str) -> Runtime:
    from geoseg.runtimes.on_torch import load

    return load(
        wanted.files,
        wanted.radiometry,
        precision=precision,
        device=wanted.device,
        threads=wanted.threads,
    )


def _torch_precisions(device: str) -> tuple[str, ...]:
    from geoseg.networks.device import pick_device
    from geoseg.runtimes.on_torch import precisions

    where = pick_device(device)
    # What a CPU gains by torch's autocast it gains by OpenVINO, too, and more.
    return ("fp32",) if where.type == "cpu" else precisions(where)


def _load_cpu(load: Callable[..., Runtime], wanted: Request, precision: str) -> Runtime:
    """Load one of the runtimes that take graphs; int8 has a graph of its own."""
    if wanted.device not in ("auto", "cpu"):
        raise DeviceError(
            f"device {wanted.device!r} was asked for, and this runtime computes on the CPU; use "
            f"--runtime torch for it, or --device cpu"
        )
    files, why = wanted.files, "asked for"
    if precision == "int8":
        from geoseg.runtimes.int8 import with_int8

        files, why = with_int8(wanted)
    made = load(
        files,
        wanted.radiometry,
        precision=precision,
        threads=wanted.threads,
        cache=wanted.cache,
    )
    made.choice = why
    return made


def _openvino(wanted: Request, precision: str) -> Runtime:
    from geoseg.runtimes.on_openvino import load

    return _load_cpu(load, wanted, precision)


def _openvino_precisions(device: str) -> tuple[str, ...]:
    from geoseg.runtimes.on_openvino import precisions

    # 8 bits change labels; they are for those who ask for them.
    return tuple(p for p in precisions() if p != "int8")


def _onnxruntime(wanted: Request, precision: str) -> Runtime:
    require("onnxruntime", "--runtime onnxruntime")
    from geoseg.runtimes.on_onnxruntime import load

    return _load_cpu(load, wanted, precision)


def _onnxruntime_precisions(device: str) -> tuple[str, ...]:
    return () if missing("onnxruntime") else ("fp32",)


_DEVICES = re.compile(r"auto|cpu|cuda(:\d+|:all)?|mps")


@dataclass(frozen=True)
class Entry:
    """A line of :data:`RUNTIMES`.

    Attributes:
        load: makes the runtime in a precision.
        precisions: those worth trying on a device, fp32 first.
    """

    load: Callable[[Request, str], Runtime]
    precisions: Callable[[str], tuple[str, ...]]


RUNTIMES: dict[str, Entry] = {
    "openvino": Entry(_openvino, _openvino_precisions),
    "onnxruntime": Entry(_onnxruntime, _onnxruntime_precisions),
    "torch": Entry(_torch, _torch_precisions),
}


def load_runtime(
    files: ModelFiles,
    radiometry: Radiometry,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    sample: Callable[[], Sequence[NDArray[Any]]] | None = None,
    chips: int | None = None,
    report: Callable[[str], None] | None = None,
) -> Runtime:
    """Make a model ready for a scene.

    ``auto`` takes torch on a GPU where one is there or asked for, and else what
    :func:`geoseg.runtimes.choose.choose` finds.

    Args:
        files: the model.
        radiometry: what the scene's numbers mean.
        runtime: a key of :data:`RUNTIMES`, or ``auto``.
        precision: ``fp32``, ``bf16``, ``fp16``, ``int8`` or ``auto``, which never takes int8.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``cuda:all`` or ``mps``.
        threads: for computing on a CPU; None leaves it to the runtime.
        sample: gives the first chips of the scene, raw (C, H, W), four or so; it is called only
            where something has to be tried on them, and without it nothing is tried.
        chips: how many chips the scene has, or None where that is not known.
        report: called with notes for the user.

    Raises:
        DeviceError: the device or the precision isn't there.
        MissingExtraError: the runtime, or what makes the model's graph for it, is not installed.
        ModelError: the weights don't fit the network, or the runtime can't run it.
        SceneError: int8 has no chip to be calibrated on.
        UsageError: a name is unknown, or threads is below 1.
    """
    from geoseg.runtimes.choose import choose

    for option, value, known in (
        ("runtime", runtime, ("auto", *RUNTIMES)),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise UsageError(f"--{option} {value} is unknown; it must be one of {', '.join(known)}")
    if not _DEVICES.fullmatch(device):
        raise DeviceError(
            f"device {device!r} is unknown; it must be auto, cpu, cuda, cuda:N, cuda:all or mps"
        )
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}: at least one thread is needed to compute")
    wanted = Request(files, radiometry, device, threads, Cache(report), sample, report)
    return choose(wanted, runtime, precision, chips)
