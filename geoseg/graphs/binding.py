"""A model's ONNX graph and its weights: taken apart, put together, checked; without torch.

``model.onnx`` beside a model's weights holds the network alone: normalized float32 chips
(1, C, H, W) in, logits (1, K, H, W) out. It stores no weights a second time: they are ONNX
external data that point into ``weights.safetensors``. :func:`detach` takes them out, :func:`bind`
checks that they are there, :func:`attach` puts them in, and :func:`apart` hands them over beside
the graph.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import GRAPH_NAME, WEIGHTS_NAME, ModelCard
from geoseg.cards.files import ModelFiles
from geoseg.core.wording import counted
from geoseg.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

__all__ = [
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
]

#: Keys of a graph's metadata.
WEIGHTS_KEY, NETWORK_KEY = "geoseg:weights", "geoseg:network"
MULTIPLE_KEY, LEAST_KEY = "geoseg:multiple", "geoseg:least"

#: Tensors below this size, in bytes, stay in the graph: a reference is hardly smaller.
_SMALL = 128


def identity(files: ModelFiles) -> dict[str, str]:
    """Say what a graph is made from, as it stands in its metadata."""
    card = files.card
    network = [card.network, dict(card.network_options), len(card.bands), len(card.classes)]
    return {
        WEIGHTS_KEY: files.weights_sha256,
        NETWORK_KEY: json.dumps(network, sort_keys=True),
    }


def detach(model: ModelProto, files: ModelFiles, **metadata: object) -> bytes:
    """Take out of a graph the tensors that are in the model's weights anyway.

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
    """Read what :func:`note` wrote."""
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
    """Find where each tensor's bytes begin in a safetensors file."""
    (length,) = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + length])
    places = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            places[weights[begin:end]] = begin
    return places


def attach(content: bytes, files: ModelFiles, name: str = GRAPH_NAME) -> ModelProto:
    """Read a graph and put its tensors in, as :func:`detach` took them out.

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
    """Make inputs of the weights, so that a graph stays small: writing and parsing them takes time.

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


def _place(tensor: TensorProto) -> slice:
    """Say where a tensor's bytes are in the weights; :func:`bind` has checked that they are."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    return slice(int(place["offset"]), int(place["offset"]) + int(place["length"]))


def bind(content: bytes, files: ModelFiles, name: str = GRAPH_NAME) -> ModelProto:
    """Read a graph and check its references into the weights.

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
            raise ModelError(f"{where} does not say where {tensor.name!r} lies; {again}") from error
        inside = begin >= 0 and length >= 0 and begin + length <= len(files.weights)
        if location != WEIGHTS_NAME or not inside or length != math.prod(tensor.dims) * item:
            raise ModelError(
                f"{where} takes {tensor.name!r}, {math.prod(tensor.dims)} numbers of {item} bytes, "
                f"from {location!r}, bytes {begin} to {begin + length}; it may refer to "
                f"{WEIGHTS_NAME} beside it, which has {len(files.weights)}; {again}"
            )
    return model


def _check_signature(model: ModelProto, card: ModelCard, where: str, again: str) -> None:
    """Check that what a graph says of itself suits the card; it may leave sides open.

    Raises:
        ModelError: it doesn't.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for verb, values, channels, of in (
        ("take", inputs, len(card.bands), "band"),
        ("give", list(model.graph.output), len(card.classes), "class"),
    ):
        found = [_declared(value) for value in values]
        if len(found) != 1 or not _suits(found[0], (1, channels, None, None)):
            listed = " and ".join(_in_words(one) for one in found) or "nothing"
            raise ModelError(
                f"{where} {verb}s {listed}, and must {verb} FLOAT (1, {channels}, height, width), "
                f"as the card has {counted(channels, of)}; {again}"
            )
    (_, before), (_, after) = _declared(inputs[0]), _declared(model.graph.output[0])
    if not _suits(("FLOAT", after), (None, None, *(before or ())[2:])):
        raise ModelError(
            f"{where} takes {before} and gives {after}; both must have the same sides; {again}"
        )
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
    """Go through every tensor of a model: of its graph, the graphs within it, and its functions."""
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
