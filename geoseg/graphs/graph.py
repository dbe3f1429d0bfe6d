"""A model's ONNX graph, read and completed without torch.

``model.onnx`` beside a model's weights holds the network alone: normalized float32 chips
(1, C, H, W) in, logits (1, K, H, W) out. It stores no weights a second time: they are ONNX
external data that point into ``weights.safetensors``. :func:`attach` puts them in, :func:`apart`
hands them over beside the graph, and :func:`surround` adds what the card and the scene say, so that
one graph leads from raw numbers to probabilities.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import GRAPH_NAME, WEIGHTS_NAME, ModelCard
from geoseg.cards.files import ModelFiles
from geoseg.core.importing import import_openvino
from geoseg.errors import ModelError
from geoseg.scene.radiometry import Radiometry

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

__all__ = [
    "GRAPH_NORMALIZATIONS",
    "apart",
    "attach",
    "bind",
    "detach",
    "fill",
    "graph_fits",
    "identity",
    "is_ours",
    "note",
    "noted",
    "read_graph",
    "surround",
]

#: Keys of a graph's metadata.
WEIGHTS_KEY, NETWORK_KEY = "geoseg:weights", "geoseg:network"
MULTIPLE_KEY, LEAST_KEY = "geoseg:multiple", "geoseg:least"

#: Tensors below this size, in bytes, stay in the graph: a reference is hardly smaller.
_SMALL = 128


def identity(files: ModelFiles) -> dict[str, str]:
    """What a graph was made from, as it stands in its metadata."""
    card = files.card
    network = [card.network, dict(card.network_options), len(card.bands), len(card.classes)]
    return {
        WEIGHTS_KEY: files.weights_sha256,
        NETWORK_KEY: json.dumps(network, sort_keys=True),
    }


def detach(model: ModelProto, files: ModelFiles, **metadata: object) -> bytes:
    """A graph without the tensors that are in the model's weights anyway.

    Args:
        model: its tensors are inside; it is changed.
        files: the model that it was made from.
        **metadata: further entries, without their ``geoseg:``.

    Returns:
        The content of ``model.onnx``.
    """
    places = _places(files.weights)
    for tensor in model.graph.initializer:
        content = tensor.raw_data
        place = places.get(content) if len(content) >= _SMALL else None
        if place is None:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = tensor.EXTERNAL
        for key, value in (("location", WEIGHTS_NAME), ("offset", place), ("length", len(content))):
            tensor.external_data.add(key=key, value=str(value))
    # Where in the Python code a node came from is no business of a model file.
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for info in (*model.graph.value_info, *model.graph.initializer):
        info.ClearField("metadata_props")
    note(model, files, **metadata)
    return bytes(model.SerializeToString(deterministic=True))


def note(model: ModelProto, files: ModelFiles, **metadata: object) -> None:
    """Write into a graph what it was made from, and more, in place of what was there."""
    more = {f"geoseg:{key}": str(value) for key, value in metadata.items()}
    del model.metadata_props[:]
    for key, text in {**identity(files), **more}.items():
        model.metadata_props.add(key=key, value=text)


def noted(model: ModelProto) -> dict[str, str]:
    """What :func:`note` wrote."""
    return {entry.key: entry.value for entry in model.metadata_props}


def is_ours(path: Path) -> bool:
    """Whether a file is a graph that geoseg wrote, of whatever model."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return WEIGHTS_KEY in noted(onnx.load_model_from_string(path.read_bytes()))
    except (OSError, DecodeError):
        return False


def _places(weights: bytes) -> dict[bytes, int]:
    """Where each tensor's bytes begin in a safetensors file."""
    (length,) = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + length])
    places = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            places[weights[begin:end]] = begin
    return places


def attach(content: bytes, files: ModelFiles, name: str = GRAPH_NAME) -> ModelProto:
    """A graph with its tensors inside; the other way round of :func:`detach`.

    Args:
        content: of ``model.onnx``.
        files: the model that it lies beside.
        name: the file's, for messages.

    Returns:
        An ONNX model that refers to no file.

    Raises:
        ModelError: see :func:`bind`.
    """
    model = bind(content, files, name)
    fill(model, files)
    return model


def fill(model: ModelProto, files: ModelFiles) -> None:
    """Put the tensors that lie in the weights into a graph.

    Args:
        model: what :func:`bind` gave; it is changed.
        files: the model that it is of.
    """
    for tensor in _tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            tensor.raw_data = files.weights[_place(tensor)]
            tensor.ClearField("data_location")
            del tensor.external_data[:]


def apart(model: ModelProto, files: ModelFiles) -> dict[str, NDArray[Any]]:
    """Make inputs of the weights, so that a graph stays small: to write and parse them takes time.

    Args:
        model: what :func:`bind` gave; it is changed. Nothing in it refers to a file any more.
        files: the model that it is of.

    Returns:
        What to give each of the new inputs.
    """
    from onnx import helper

    arrays, rest = {}, []
    for tensor in model.graph.initializer:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        # Whole numbers may be shapes, which a reader wants to know; bfloat16 is not numpy's.
        if tensor.data_location != tensor.EXTERNAL or dtype.kind != "f":
            rest.append(tensor)
            continue
        place = _place(tensor)
        values = np.frombuffer(memoryview(files.weights)[place], dtype)
        arrays[tensor.name] = values.reshape(tuple(tensor.dims))
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        model.graph.input.append(value)
    del model.graph.initializer[:]
    model.graph.initializer.extend(rest)
    fill(model, files)
    return arrays


def read_graph(core: Any, model: ModelProto, files: ModelFiles) -> Any:
    """An ONNX graph as OpenVINO's model.

    Args:
        core: an ``openvino.Core``.
        model: what :func:`bind` gave, completed or not; it is changed.
        files: the model that it is of.

    Raises:
        RuntimeError: OpenVINO can't read it.
    """
    openvino = import_openvino()
    weights = apart(model, files)
    read = core.read_model(model.SerializeToString())
    for parameter in list(read.get_parameters()):
        values = weights.get(parameter.get_friendly_name())
        if values is not None:
            constant = openvino.opset13.constant(values)
            for user in parameter.output(0).get_target_inputs():
                user.replace_source_output(constant.output(0))
            read.remove_parameter(parameter)
    read.validate_nodes_and_infer_types()
    return read


def _place(tensor: TensorProto) -> slice:
    """Where a tensor's bytes are in the weights; :func:`bind` has seen to it that they are."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    return slice(int(place["offset"]), int(place["offset"]) + int(place["length"]))


def bind(content: bytes, files: ModelFiles, name: str = GRAPH_NAME) -> ModelProto:
    """A graph whose references into the weights were checked.

    Args:
        content: of ``model.onnx``.
        files: the model that it lies beside.
        name: the file's, for messages.

    Returns:
        An ONNX model; its tensors are where they were.

    Raises:
        ModelError: it is no ONNX, belongs to other weights or another network, takes or gives
            something else than the card says, or refers to anything but the weights.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import helper

    where = f"{files.path}: {name}"
    command = "graph" if name == GRAPH_NAME else "quantize"
    again = f"remove it, or write it anew with geoseg models {command}"
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError(f"{where} is not ONNX ({error}); {again}") from error
    found = noted(model)
    for key, expected in identity(files).items():
        if found.get(key) != expected:
            raise ModelError(
                f"{where} was made from other files than it lies beside ({key} is "
                f"{found.get(key)!r} and must be {expected!r}); {again}"
            )
    _check_signature(model, files.card, where, again)
    for tensor in _tensors(model):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        try:
            location = place["location"]
            begin, length = int(place["offset"]), int(place["length"])
            item = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        except (KeyError, ValueError) as error:
            raise ModelError(f"{where} garbles the place of {tensor.name!r}; {again}") from error
        inside = begin >= 0 and length >= 0 and begin + length <= len(files.weights)
        if location != WEIGHTS_NAME or not inside or length != math.prod(tensor.dims) * item:
            raise ModelError(
                f"{where} takes {tensor.name!r}, {math.prod(tensor.dims)} numbers of {item} bytes, "
                f"from {location!r}, bytes {begin} to {begin + length}; it may refer to "
                f"{WEIGHTS_NAME} beside it, which has {len(files.weights)}; {again}"
            )
    return model


def _check_signature(model: ModelProto, card: ModelCard, where: str, again: str) -> None:
    """See to it that what a graph says of itself suits the card; it may leave sides open.

    Raises:
        ModelError: it doesn't.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for verb, values, channels, of in (
        ("take", inputs, len(card.bands), "bands"),
        ("give", list(model.graph.output), len(card.classes), "classes"),
    ):
        found = [_declared(value) for value in values]
        if len(found) != 1 or not _suits(found[0], (1, channels, None, None)):
            listed = " and ".join(_in_words(one) for one in found) or "nothing"
            raise ModelError(
                f"{where} {verb}s {listed}, and must {verb} FLOAT (1, {channels}, height, width), "
                f"as the card has {channels} {of}; {again}"
            )
    (_, before), (_, after) = _declared(inputs[0]), _declared(model.graph.output[0])
    if not _suits(("FLOAT", after), (None, None, *(before or ())[2:])):
        raise ModelError(f"{where} takes {before} and gives {after}, of other sides; {again}")
    for key in (MULTIPLE_KEY, LEAST_KEY):
        text = noted(model).get(key, "1")
        if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
            raise ModelError(f"{where} notes {key} {text[:40]!r}, which is no side in px; {again}")


#: A tensor's type and its sides, None where they are open, or None where nothing is said of them.
_Declared = tuple[str, tuple[int | None, ...] | None]


def _declared(value: ValueInfoProto) -> _Declared:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    kinds = dict(map(reversed, TensorProto.DataType.items()))
    kind = str(kinds.get(tensor.elem_type, "no tensor"))
    if not tensor.HasField("shape"):
        return kind, None
    return kind, tuple(
        axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim
    )


def _suits(found: _Declared, expected: tuple[int | None, ...]) -> bool:
    kind, sides = found
    return (
        kind == "FLOAT"
        and sides is not None
        and len(sides) == len(expected)
        and all(a == b or a is None or b is None for a, b in zip(sides, expected, strict=True))
    )


def _in_words(declared: _Declared) -> str:
    kind, sides = declared
    listed = "?" if sides is None else ", ".join("?" if s is None else str(s) for s in sides)
    return f"{kind} ({listed})"


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: of its graph, the graphs within it, and its functions."""
    yield from _tensors_of(model.graph.initializer, model.graph.node)
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for function in model.functions:
        yield from _tensors_of((), function.node)


def _tensors_of(
    initializers: Iterable[TensorProto], nodes: Iterable[NodeProto]
) -> Iterator[TensorProto]:
    yield from initializers
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _tensors_of(inner.initializer, inner.node)


def graph_fits(model: ModelProto, height: int, width: int) -> bool:
    """Whether a graph takes chips of this shape.

    Args:
        model: with what :func:`detach` noted.
        height: of a chip, px.
        width: of a chip, px.
    """
    found = noted(model)
    multiple, least = int(found.get(MULTIPLE_KEY, 1)), int(found.get(LEAST_KEY, 1))
    shape = model.graph.input[0].type.tensor_type.shape.dim
    return all(
        side == axis.dim_value
        if axis.HasField("dim_value")
        else side % multiple == 0 and side >= least
        for side, axis in zip((height, width), shape[2:], strict=True)
    )


class _Builder:
    """Strings ONNX nodes together, one after another."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self.nodes: list[Any] = []

    def node(self, kind: str, *inputs: str | float | Sequence[float], **attributes: Any) -> str:
        """A node of these inputs: a name, a number, or one number a band; gives its name."""
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
    """Make it the graph from raw numbers to probabilities.

    It has then the input ``raw`` (1, C, H, W) of the scene's dtype, and the outputs ``probs``,
    float32 (1, K, H, W), and ``pixels``, the network's input, float32 (1, C, H, W).

    Args:
        model: what :func:`bind` or :func:`attach` gave; it is changed.
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
