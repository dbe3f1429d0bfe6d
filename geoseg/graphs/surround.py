"""What stands round a network in a graph: the way from raw numbers in, and to probabilities out.

Scaling stays in fp32: OpenVINO rounds whatever comes before the first layer to bf16, unless it
leads to an output of the graph; therefore ``pixels`` is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.cards.card import ModelCard
from geoseg.scene.radiometry import Radiometry

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

__all__ = ["GRAPH_NORMALIZATIONS", "surround"]


class _Builder:
    """Strings ONNX nodes together, one after another."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self.nodes: list[Any] = []

    def node(self, kind: str, *inputs: str | float | Sequence[float], **attributes: Any) -> str:
        """Add a node of these inputs: a name, a number, or one number a band; give its name."""
        from onnx import helper

        name = f"geoseg:{kind}:{len(self.nodes)}"
        names = [i if isinstance(i, str) else self._constant(i) for i in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return name

    def _constant(self, value: float | Sequence[float]) -> str:
        from onnx import numpy_helper

        array = np.asarray(value, np.float32)
        name = f"geoseg:constant:{len(self._graph.initializer)}"
        array = array.reshape(1, -1, 1, 1) if array.ndim else array
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name


def _none(b: _Builder, x: str, p: Any) -> str:
    return x


def _z_score(b: _Builder, x: str, p: Any) -> str:
    return b.node("Div", b.node("Sub", x, p["mean"]), p["stddev"])


def _min_max(b: _Builder, x: str, p: Any) -> str:
    low, high = (np.asarray(p[key], np.float32) for key in ("minimum", "maximum"))
    return b.node("Div", b.node("Sub", x, p["minimum"]), list(high - low))


def _log_logistic(b: _Builder, x: str, p: Any) -> str:
    x = b.node("Log", b.node("Add", b.node("Mul", x, 50.0), 1.0))
    x = b.node("Div", b.node("Sub", x, p["center"]), p["spread"])
    return b.node("Sigmoid", b.node("Sub", b.node("Mul", x, 5.0), 1.0))


#: What :data:`geoseg.networks.normalize.NORMALIZATIONS` does, as nodes.
GRAPH_NORMALIZATIONS: dict[str, Callable[[_Builder, str, Any], str]] = {
    "none": _none,
    "z-score": _z_score,
    "min-max": _min_max,
    "log-logistic": _log_logistic,
}


def surround(
    model: ModelProto,
    card: ModelCard,
    radiometry: Radiometry,
    dtype: np.dtype[Any],
    height: int,
    width: int,
) -> None:
    """Complete a network's graph, so that it leads from raw numbers to probabilities.

    Then it has the input ``raw`` (1, C, H, W) of the scene's dtype, and the outputs ``probs``,
    float32 (1, K, H, W), and ``pixels``, the network's input, float32 (1, C, H, W).

    Args:
        model: what :func:`geoseg.graphs.binding.bind` or ``attach`` gave; it is changed.
        card: what its network takes and gives.
        radiometry: from the scene's numbers to the card's quantity.
        dtype: of the scene's numbers.
        height: of a chip, px.
        width: of a chip, px.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    pixels, logits = graph.input[0].name, graph.output[0].name
    b = _Builder(graph)
    x = b.node("Cast", "raw", to=TensorProto.FLOAT)
    x = b.node("Add", b.node("Mul", x, radiometry.gain), radiometry.bias)
    if card.normalization.clip is not None:
        x = b.node("Clip", x, *card.normalization.clip)
    x = GRAPH_NORMALIZATIONS[card.normalization.kind](b, x, card.normalization.parameters)
    b.nodes.append(helper.make_node("Identity", [x], [pixels]))
    before = len(b.nodes)
    y = b.node("Div", logits, card.temperature) if card.temperature != 1.0 else logits
    kind = {"softmax": "Softmax", "sigmoid": "Sigmoid", "none": "Identity"}[card.activation]
    axis: dict[str, Any] = {"axis": 1} if kind == "Softmax" else {}
    b.nodes.append(helper.make_node(kind, [y], ["probs"], **axis))
    nodes = [*b.nodes[:before], *graph.node, *b.nodes[before:]]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    shape = [1, len(card.bands), height, width]
    numbers = helper.np_dtype_to_tensor_dtype(dtype)
    graph.input.append(helper.make_tensor_value_info("raw", numbers, shape))
    # A runtime computes what comes just before an output in float32 whatever the precision of the
    # rest: numbers such as 4013 would lose their last digits in bfloat16.
    for name, channels in (("probs", len(card.classes)), (pixels, len(card.bands))):
        shape = [1, channels, height, width]
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
