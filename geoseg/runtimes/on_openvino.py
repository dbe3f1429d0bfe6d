"""The OpenVINO runtime, on a CPU."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.files import ModelFiles
from geoseg.core.cache import Cache
from geoseg.core.importing import import_openvino
from geoseg.errors import DeviceError, ModelError
from geoseg.graphs.binding import noted
from geoseg.graphs.for_openvino import read_graph
from geoseg.runtimes.graph_runtime import CpuRuntime, Program
from geoseg.scene.radiometry import Radiometry

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OpenVinoRuntime", "load", "precisions"]

openvino = import_openvino()

#: Precision -> (OpenVINO's name for it, the capability that a CPU must have).
_PRECISIONS = {
    "fp32": ("f32", "FP32"),
    "bf16": ("bf16", "BF16"),
    "fp16": ("f16", "FP16"),
    # Which layers compute in 8 bits the graph itself says, and in what the others do.
    "int8": ("f32", "INT8"),
}


def precisions() -> tuple[str, ...]:
    """The precisions that this CPU computes in, fp32 first."""
    has = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(p for p, (_, capability) in _PRECISIONS.items() if capability in has)


def load(
    files: ModelFiles,
    radiometry: Radiometry,
    *,
    precision: str,
    threads: int | None,
    cache: Cache,
) -> OpenVinoRuntime:
    """Make a model ready for a scene; see :func:`geoseg.runtimes.load_runtime`."""
    if precision not in precisions():
        raise DeviceError(
            f"precision {precision!r} was asked for, and OpenVINO computes in "
            f"{', '.join(precisions())} on this CPU; use one of these, or --precision auto"
        )
    return OpenVinoRuntime(files, radiometry, precision=precision, threads=threads, cache=cache)


class OpenVinoRuntime(CpuRuntime):
    """A graph compiled by OpenVINO; see :class:`geoseg.runtimes.Runtime`."""

    name = "openvino"

    def _compile(self, model: ModelProto, dtype: np.dtype[Any]) -> Program:
        core = openvino.Core()
        sides = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]]
        rest = self.precision
        if rest == "int8" and "bf16" in precisions():
            rest = noted(model).get("geoseg:rest", "fp32")
            if rest not in ("bf16", "fp32"):
                raise ModelError(
                    f"{self._files.path}: its graph in 8 bits wants the rest in {rest[:40]!r}; it "
                    f"may be bf16 or fp32; write it anew with geoseg models quantize"
                )
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[rest][0],
            # As many streams as threads: each chip is computed by one thread.
            "NUM_STREAMS": str(self.threads),
            "INFERENCE_NUM_THREADS": str(self.threads),
            # Pinned threads of two processes would fight for the same cores.
            "ENABLE_CPU_PINNING": "NO",
        }
        try:
            read = read_graph(core, model, self._files)
            self._check_output(read.output(0), sides)
            compiled = core.compile_model(read, "CPU", settings)
            return _Program(compiled, self.threads + 1)
        except RuntimeError as error:
            raise ModelError(
                f"{self._files.path}: OpenVINO can't run this network ({_line(error)}); use "
                f"--runtime torch"
            ) from error

    def _check_output(self, probs: Any, sides: Sequence[int]) -> None:
        """Refuse a graph that OpenVINO finds to give something else than the card says.

        Raises:
            ModelError: it does.
        """
        found, expected = probs.partial_shape, [1, self.classes, *sides]
        if not found.compatible(openvino.PartialShape(expected)):
            raise ModelError(
                f"{self._files.path}: its graph gives {found} for a chip of {sides[0]}x{sides[1]} "
                f"px, and the card's {self.classes} classes need {expected}; remove its "
                f"model.onnx, or write it anew with geoseg models graph"
            )


class _Program:
    """A compiled model and its requests; a request is a place to compute in."""

    def __init__(self, compiled: Any, places: int) -> None:
        self._requests = deque(compiled.create_infer_request() for _ in range(places))
        # A request keeps what it computes with, but not always the model that it is of.
        self._compiled = compiled

    def start(self, pixels: NDArray[Any]) -> Any:
        request = self._requests.popleft()
        request.get_input_tensor().data[0] = pixels
        request.start_async()
        return request

    def wait(self, place: Any) -> NDArray[np.float32]:
        try:
            place.wait()
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO failed while it computed a chip ({_line(error)}); use --runtime torch"
            ) from error
        result: NDArray[np.float32] = place.get_output_tensor(0).data
        return result

    def free(self, place: Any) -> None:
        # What went wrong is raised by wait(), for whoever asked for this chip.
        with contextlib.suppress(RuntimeError):
            place.wait()
        self._requests.append(place)


def _line(error: Exception) -> str:
    """The last line of what OpenVINO says, which names the cause."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
