"""A model's graph in whole numbers of 8 bits."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.card import ModelFiles
from geoseg.errors import ModelError
from geoseg.models.graph import LEAST_KEY, MULTIPLE_KEY, attach, note, noted, surround
from geoseg.radiometry import Radiometry

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["quantize_graph"]


def quantize_graph(
    files: ModelFiles, radiometry: Radiometry, graph: bytes, chips: Sequence[NDArray[Any]]
) -> ModelProto:
    """Quantize a network after training, on chips that show how large its numbers get.

    Weights get a scale a channel, what flows between layers one a tensor. The first and the last
    convolution stay in float32: they cost little and spoil most.

    Args:
        files: the model.
        radiometry: what the chips' numbers mean.
        graph: of the model, the content of a ``model.onnx`` that takes these chips.
        chips: raw numbers (C, H, W), all of one shape and dtype.

    Returns:
        An ONNX model like the one in ``graph``, its tensors inside, bound to the same weights.

    Raises:
        ModelError: onnxruntime, which does it, is not installed, or it refuses the network.
    """
    try:
        import onnxruntime
        from onnxruntime import quantization
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise ModelError(
            f"quantizing needs the package onnxruntime ({error}); install it: pip install "
            f"'geoseg[onnxruntime]'"
        ) from error
    import onnx

    height, width = chips[0].shape[1:]
    network = attach(graph, files)
    shapes = {k: v for k, v in noted(network).items() if k in (MULTIPLE_KEY, LEAST_KEY)}
    name = network.graph.input[0].name
    prepared = attach(graph, files)
    surround(prepared, files.card, radiometry, chips[0].dtype, height, width)
    whole = prepared.SerializeToString()
    failures: tuple[type[Exception], ...] = (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        *(e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)),
    )

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """The chips as the network sees them, one by one."""

        def __init__(self) -> None:
            session = onnxruntime.InferenceSession(whole, _options(onnxruntime))
            self._inputs: Iterator[dict[str, NDArray[np.float32]]] = (
                {name: session.run([name], {"raw": chip[None]})[0]} for chip in chips
            )

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._inputs, None)

    disabled = logging.root.manager.disable
    with tempfile.TemporaryDirectory(prefix="geoseg-") as folder:
        folded, quantized = Path(folder) / "folded.onnx", Path(folder) / "quantized.onnx"
        try:
            # It recommends a preparation of its own, which can't do more here.
            logging.disable(logging.WARNING)
            # Batch norms are folded into their convolutions before scales are looked for.
            options = _options(onnxruntime)
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(folded)
            onnxruntime.InferenceSession(network.SerializeToString(), options)
            convolutions = [n.name for n in onnx.load(folded).graph.node if n.op_type == "Conv"]
            quantization.quantize_static(
                folded,
                quantized,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=[*convolutions[:1], *convolutions[-1:]],
            )
            model = onnx.load(quantized)
        except failures as error:
            raise ModelError(
                f"{files.path}: this network can't be quantized ({error}); use --precision fp32"
            ) from error
        finally:
            logging.disable(disabled)
    note(model, files, **{key.removeprefix("geoseg:"): value for key, value in shapes.items()})
    return model


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options
