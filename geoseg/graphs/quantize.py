"""A model's graph in whole numbers of 8 bits, and which of its layers spoil most by that."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.files import ModelFiles
from geoseg.core.importing import require
from geoseg.errors import ModelError
from geoseg.graphs.binding import LEAST_KEY, MULTIPLE_KEY, attach, graph_fits, note, noted
from geoseg.graphs.surround import surround
from geoseg.scene.radiometry import Radiometry

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["Draft", "quantize_graph"]

#: What takes the time, and what 8 bits make quicker.
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: So many of a tensor's numbers, in percent, lie within what its 8 bits can express: a scale for
#: the rarest ones, too, would be too coarse for the others.
_WITHIN = 99.99
#: Chips on which it is found out what each layer spoils, and the px of a side that suffice.
_RANKED_ON, _RANKED_SIDE = 2, 256


class Draft:
    """A network in 8 bits, any layers of which can be left in floating point."""

    def __init__(
        self, model: ModelProto, original: ModelProto, inputs: Sequence[NDArray[np.float32]]
    ) -> None:
        """Note what was quantized.

        Args:
            model: ``original`` with pairs of QuantizeLinear and DequantizeLinear.
            original: in floating point; the two share their names.
            inputs: normalized chips (1, C, H, W), to find out on what each layer spoils.
        """
        self._model = model
        self._inputs = tuple(inputs)
        self._tensors = {t.name: t for t in original.graph.initializer}
        self._exact = _exact_names(model, self._tensors)
        vain = {n.name for n in self._quantized(model) if self._in_vain(n)}
        self._vain = frozenset(vain | self._behind_the_last(vain))

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Name the layers that compute with 8 bits, the one that spoils most labels first."""
        names = [n.name for n in self._quantized(self._model) if n.name not in self._vain]
        harm = self._harm(names)
        return tuple(sorted(names, key=lambda name: -harm[name]))

    def without(self, layers: Collection[str]) -> ModelProto:
        """Make the network with these layers in floating point."""
        model = _copied(self._model)
        floating = set(layers) | self._vain
        floating |= self._behind_the_last(floating)
        for node in self._quantized(model):
            if node.name in floating:
                for i, name in enumerate(node.input):
                    node.input[i] = self._exact.get(name, name)
        self._finish(model)
        return model

    def _finish(self, model: ModelProto) -> None:
        """Give a changed graph what it needs of the original's tensors, and nothing else."""
        there = {t.name for t in model.graph.initializer}
        exact = set(self._exact.values()) - there
        model.graph.initializer.extend(t for n, t in self._tensors.items() if n in exact)
        _drop_unused(model)

    def _in_vain(self, node: NodeProto) -> bool:
        """Say whether 8 bits bring nothing: they follow a threshold, and weights have them, too."""
        if node.op_type in _HEAVY:
            return any(name not in self._exact for name in node.input[:2])
        return node.op_type in ("Relu", "Clip")

    def _quantized(self, model: ModelProto) -> list[NodeProto]:
        """Find the nodes that take quantized numbers."""
        return [n for n in model.graph.node if any(i in self._exact for i in n.input)]

    def _behind_the_last(self, floating: Collection[str]) -> set[str]:
        """Find the nodes that no heavy layer in 8 bits follows, and that are none themselves."""
        wanted: set[str] = set()
        behind: set[str] = set()
        for node in reversed(self._model.graph.node):
            whole = any(i in self._exact for i in node.input) and node.name not in floating
            if (node.op_type in _HEAVY and whole) or wanted.intersection(node.output):
                wanted.update(node.input)
            elif whole:
                behind.add(node.name)
        return behind

    def _harm(self, names: Sequence[str]) -> Mapping[str, float]:
        """Measure the share of labels that one layer in 8 bits alone changes, summed over chips."""
        import onnxruntime
        from onnx import TensorProto, helper

        model = _copied(self._model)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            for i, name in enumerate(node.input):
                if name not in self._exact:
                    continue
                if node.name not in names:
                    node.input[i] = self._exact[name]
                    continue
                # One graph with a switch a layer is made ready once.
                node.input[i] = f"geoseg:{node.name}:{i}"
                switch = ["geoseg:" + node.name, name, self._exact[name]]
                nodes.append(helper.make_node("Where", switch, [node.input[i]]))
            nodes.append(node)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        for name in names:
            info = helper.make_tensor_value_info("geoseg:" + name, TensorProto.BOOL, [])
            model.graph.input.append(info)
        self._finish(model)
        session = onnxruntime.InferenceSession(model.SerializeToString(), _options(onnxruntime))

        def labels(pixels: NDArray[np.float32], layer: str | None) -> NDArray[Any]:
            given: dict[str, Any] = {"geoseg:" + n: np.array(n == layer) for n in names}
            logits = session.run(None, {model.graph.input[0].name: pixels, **given})[0]
            return np.asarray(logits.argmax(axis=1))

        harm = dict.fromkeys(names, 0.0)
        for pixels in self._inputs:
            expected = labels(pixels, None)
            for name in names:
                harm[name] += float(np.mean(labels(pixels, name) != expected))
        return harm


class _Chips:
    """Chips as a network sees them, one by one: what onnxruntime calls a CalibrationDataReader."""

    def __init__(self, chips: Sequence[NDArray[Any]], graph: bytes, pixels: str) -> None:
        """Make ready to normalize.

        Args:
            chips: raw numbers (C, H, W).
            graph: that takes them, as ``raw``.
            pixels: the name of the network's input in it.
        """
        import onnxruntime

        self._chips = chips
        self._name = pixels
        self._session = onnxruntime.InferenceSession(graph, _options(onnxruntime))
        self._left: Iterator[NDArray[Any]] = iter(())

    def __len__(self) -> int:
        return len(self._chips)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these chips."""
        self._left = iter(self._chips[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Give the next chip as the network's input; None after the last one."""
        chip = next(self._left, None)
        return None if chip is None else {self._name: self.pixels(chip)}

    def pixels(self, chip: NDArray[Any]) -> NDArray[np.float32]:
        """Normalize a chip: float32 (1, C, H, W)."""
        return np.asarray(self._session.run([self._name], {"raw": chip[None]})[0])


def quantize_graph(
    files: ModelFiles, radiometry: Radiometry, graph: bytes, chips: Sequence[NDArray[Any]]
) -> Draft:
    """Quantize a network after training, on chips that show how large its numbers get.

    Weights get a scale a channel, what flows between layers one a tensor. The first convolution
    and those that no other follows stay in floating point: they cost little and spoil most.

    Args:
        files: the model.
        radiometry: what the chips' numbers mean.
        graph: of the model, the content of a ``model.onnx`` that takes these chips.
        chips: raw numbers (C, H, W), all of one shape and dtype.

    Returns:
        ONNX models like the one in ``graph``, tensors inside, bound to the same weights.

    Raises:
        MissingExtraError: onnxruntime, which does it, is not installed.
        ModelError: it refuses the network.
    """
    require("onnxruntime", "quantizing")
    height, width = chips[0].shape[1:]
    network = attach(graph, files)
    shapes = {k: v for k, v in noted(network).items() if k in (MULTIPLE_KEY, LEAST_KEY)}
    prepared = attach(graph, files)
    surround(prepared, files.card, radiometry, chips[0].dtype, height, width)
    whole = prepared.SerializeToString()
    with _refusals(files), tempfile.TemporaryDirectory(prefix="geoseg-") as folder:
        original = _folded(network, Path(folder))
        seen = _Chips(chips, whole, network.graph.input[0].name)
        model = _quantized(original, Path(folder), seen)
        note(model, files, **{key.removeprefix("geoseg:"): v for key, v in shapes.items()})
        inputs = [seen.pixels(chip) for chip in chips[:_RANKED_ON]]
        if graph_fits(network, *(min(side, _RANKED_SIDE) for side in (height, width))):
            inputs = [pixels[..., :_RANKED_SIDE, :_RANKED_SIDE] for pixels in inputs]
        return Draft(model, original, inputs)


@contextlib.contextmanager
def _refusals(files: ModelFiles) -> Iterator[None]:
    """Raise what onnxruntime refuses as a ModelError, and keep its advice out of the log.

    Raises:
        ModelError: it refused.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    failures: tuple[type[Exception], ...] = (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        *(e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)),
    )
    disabled = logging.root.manager.disable
    try:
        # It recommends a preparation of its own, which can't do more here.
        logging.disable(logging.WARNING)
        yield
    except failures as error:
        raise ModelError(
            f"{files.path}: this network can't be quantized ({error}); use --precision fp32"
        ) from error
    finally:
        logging.disable(disabled)


def _folded(network: ModelProto, folder: Path) -> ModelProto:
    """Fold batch norms into their convolutions, before scales are looked for."""
    import onnx
    import onnxruntime

    path = folder / "folded.onnx"
    options = _options(onnxruntime)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(network.SerializeToString(), options)
    folded: ModelProto = onnx.load(path)
    _name_nodes(folded)
    return folded


def _quantized(network: ModelProto, folder: Path, chips: _Chips) -> ModelProto:
    """Put pairs of QuantizeLinear and DequantizeLinear into a network."""
    import onnx
    from onnxruntime import quantization

    floating, quantized = folder / "folded.onnx", folder / "quantized.onnx"
    onnx.save(network, floating)
    # It prints what it counts.
    with contextlib.redirect_stdout(io.StringIO()):
        quantization.quantize_static(
            floating,
            quantized,
            chips,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.Percentile,
            nodes_to_exclude=_ends(network),
            extra_options={
                "CalibPercentile": _WITHIN,
                # Whatever the method: so many chips at a time are held in memory.
                "CalibStridedMinMax": 1,
                # A layer that is left in floating point needs its threshold.
                "QDQKeepRemovableActivations": True,
            },
        )
    model: ModelProto = onnx.load(quantized)
    return model


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own."""
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"geoseg:node:{number}"
        seen.add(node.name)


def _ends(model: ModelProto) -> list[str]:
    """Name the first heavy node, and all nodes that no heavy one follows."""
    heavy = [n.name for n in model.graph.node if n.op_type in _HEAVY]
    leads: set[str] = set()
    last: list[str] = []
    for node in reversed(model.graph.node):
        followed = bool(leads.intersection(node.output))
        if not followed:
            last.append(node.name)
        if followed or node.op_type in _HEAVY:
            leads.update(node.input)
    return [*heavy[:1], *last]


def _exact_names(model: ModelProto, tensors: Mapping[str, TensorProto]) -> dict[str, str]:
    """Map each dequantized tensor's name to that of the same numbers before they were quantized."""
    made = {n.output[0]: n for n in model.graph.node if n.op_type == "QuantizeLinear"}
    exact = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        if node.input[0] in made:
            exact[node.output[0]] = made[node.input[0]].input[0]
            continue
        # Weights are stored in 8 bits under a name that begins with theirs. Biases have 32 bits,
        # which is as good as exact, and keep their name.
        stored = node.input[0].removesuffix("_quantized")
        if stored in tensors and stored != node.output[0]:
            exact[node.output[0]] = stored
    return exact


def _copied(model: ModelProto) -> ModelProto:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def _drop_unused(model: ModelProto) -> None:
    """Take out nodes and tensors that lead to no output."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    nodes: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    tensors = {t.name: t for t in graph.initializer if t.name in needed}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(tensors.values())
