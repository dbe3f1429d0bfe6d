"""The ONNX Runtime runtime, on a CPU."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from geoseg.cards.files import ModelFiles
from geoseg.core.cache import Cache
from geoseg.errors import DeviceError, ModelError
from geoseg.graphs.binding import fill
from geoseg.runtimes.graph_runtime import CpuRuntime, Program
from geoseg.scene.radiometry import Radiometry

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OnnxRuntime", "load"]

#: What it raises; they have nothing in common but Exception.
_FAILURES: tuple[type[Exception], ...] = (
    RuntimeError,
    *(e for e in vars(_state).values() if isinstance(e, type) and issubclass(e, Exception)),
)


def load(
    files: ModelFiles,
    radiometry: Radiometry,
    *,
    precision: str,
    threads: int | None,
    cache: Cache,
) -> OnnxRuntime:
    """Make a model ready for a scene; see :func:`geoseg.runtimes.load_runtime`."""
    if precision not in ("fp32", "int8"):
        raise DeviceError(
            f"precision {precision!r} was asked for, and onnxruntime computes in fp32 "
            f"or int8 on a CPU; use one of these, or --runtime openvino"
        )
    return OnnxRuntime(files, radiometry, precision=precision, threads=threads, cache=cache)


class OnnxRuntime(CpuRuntime):
    """A graph run by ONNX Runtime; see :class:`geoseg.runtimes.Runtime`."""

    name = "onnxruntime"

    def __init__(self, *args: Any, **options: Any) -> None:
        """As :class:`geoseg.runtimes.graph_runtime.CpuRuntime`."""
        super().__init__(*args, **options)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="geoseg-onnx")

    def _compile(self, model: ModelProto, dtype: np.dtype[Any]) -> Program:
        fill(model, self._files)
        options = onnxruntime.SessionOptions()
        # A chip is computed by the thread of the pool that has it.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except _FAILURES as error:
            raise ModelError(
                f"{self._files.path}: ONNX Runtime can't run this network ({error}); use --runtime "
                f"torch"
            ) from error
        return _Program(session, self._pool, dtype)


class _Program:
    """A session that several threads use; a future is a place to compute in."""

    def __init__(self, session: Any, pool: ThreadPoolExecutor, dtype: np.dtype[Any]) -> None:
        self._session = session
        self._pool = pool
        self._dtype = dtype

    def start(self, pixels: NDArray[Any]) -> Future[Any]:
        # A copy: the caller may use its array for the next chip.
        raw = np.array(pixels[None], dtype=self._dtype, order="C")
        return self._pool.submit(self._session.run, ["probs"], {"raw": raw})

    def wait(self, place: Any) -> NDArray[np.float32]:
        try:
            result: NDArray[np.float32] = place.result()[0]
        except _FAILURES as error:
            raise ModelError(
                f"ONNX Runtime failed while it computed a chip ({error}); use --runtime torch"
            ) from error
        return result

    def free(self, place: Any) -> None:
        place.cancel()
        wait([place])
