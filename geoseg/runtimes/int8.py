"""A model's graph in 8 bits: its own, an earlier run's, or one for the scene at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import INT8_NAME
from geoseg.cards.files import ModelFiles
from geoseg.core.cache import Cache
from geoseg.core.importing import package_version, require
from geoseg.errors import ModelError, SceneError
from geoseg.graphs.binding import bind, identity, noted
from geoseg.graphs.quantize import Draft, quantize_graph
from geoseg.runtimes import Request, checked
from geoseg.runtimes.graph_runtime import graph_for
from geoseg.scene.radiometry import Radiometry

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["LEAST_AGREEMENT_INT8", "in_words", "quantize_files", "with_int8"]

#: The least share of fp32's labels that 8 bits must give; so much is aimed at on the chips that are
#: looked at, as others of the scene may do a little worse.
LEAST_AGREEMENT_INT8, AIM = 0.993, 0.994


def with_int8(wanted: Request) -> tuple[ModelFiles, str]:
    """A model with a graph in 8 bits.

    Args:
        wanted: the model, and what gives chips to calibrate on where it has no such graph.

    Returns:
        The model, and how well its 8 bits do, in words.

    Raises:
        MissingExtraError: onnxruntime, which quantizes, is not installed.
        ModelError: its own graph is another's, or the network can't be quantized.
        SceneError: there is no chip to calibrate on.
    """
    files = wanted.files
    own = files.int8 is not None
    if not own:
        require("onnxruntime", "--precision int8")
        chips = list(wanted.sample()) if wanted.sample is not None else []
        if not chips:
            raise SceneError(
                "int8 must see chips of a scene first, and here are none; write a model with it: "
                "geoseg models quantize MODEL SCENE -o FOLDER"
            )
        key = _key(wanted, chips)
        kept = wanted.cache.read(key)
        if kept is not None and _is_whole(kept, files):
            files = replace(files, int8=kept)
        else:
            files = quantize_files(files, wanted.radiometry, chips, wanted.cache)
            assert files.int8 is not None
            wanted.cache.write(key, files.int8)
    assert files.int8 is not None
    words = in_words(noted(bind(files.int8, files, INT8_NAME)), own=own)
    if wanted.report is not None:
        wanted.report(words)
    return files, f"asked for; {words}"


def in_words(found: Mapping[str, str], *, own: bool = False) -> str:
    """Say in words how well a graph in 8 bits does.

    Args:
        found: its notes.
        own: it came with the model, so that it was judged on another scene than the one at hand.
    """
    try:
        agreement, chips = float(found["geoseg:agreement"]), int(found["geoseg:chips"])
        floating = int(found.get("geoseg:floating", 0))
    except (KeyError, ValueError):
        return "int8 of the model's own, of which nobody noted how well it does"
    if own:
        words = (
            f"int8 gave {100 * agreement:.4g} % of fp32's labels on {chips} chips of the scene "
            f"that the model was quantized with; on this scene they were not compared"
        )
    else:
        words = (
            f"int8 gives {100 * agreement:.4g} % of fp32's labels on the {chips} chips of this "
            f"scene that it was judged on"
        )
    if floating:
        words += f"; {floating} of its layers are left in {found.get('geoseg:rest', 'fp32')}"
    if agreement < LEAST_AGREEMENT_INT8:
        words += (
            f"; that is less than {100 * LEAST_AGREEMENT_INT8:g} %, and leaving more layers in "
            f"floating point does not help: use --precision auto where labels matter"
        )
    return words


def quantize_files(
    files: ModelFiles, radiometry: Radiometry, chips: Sequence[NDArray[Any]], cache: Cache
) -> ModelFiles:
    """A model with a graph in 8 bits that gives fp32's labels.

    It is calibrated on every second chip and judged on the others. As many of the layers that spoil
    most are left in floating point as the labels ask for.

    Args:
        files: the model.
        radiometry: what the chips' numbers mean.
        chips: raw (C, H, W), all of one shape and dtype; a single one is used for both.
        cache: for the graph in fp32, where it has to be made.

    Returns:
        The model; its ``int8`` notes the share of fp32's labels on the chips that it was judged on,
        how many these are, the number of layers in floating point and their precision. The share
        is below :data:`LEAST_AGREEMENT_INT8` where no number of them suffices.

    Raises:
        ModelError: the network can't be quantized.
    """
    from geoseg.runtimes.on_openvino import OpenVinoRuntime, precisions

    graph = graph_for(files, chips[0].shape[1], chips[0].shape[2], cache)
    files = replace(files, graph=graph)
    draft = quantize_graph(files, radiometry, graph, chips[::2])
    judged = chips[1::2] or chips

    def labels(files: ModelFiles, precision: str) -> list[NDArray[Any]]:
        made = OpenVinoRuntime(files, radiometry, precision=precision, threads=None, cache=cache)
        return [probs.argmax(axis=0) for _, probs in checked.run(made, enumerate(judged))]

    expected = labels(files, "fp32")

    def tried(count: int, rest: str) -> tuple[float, ModelFiles]:
        """The share of fp32's labels with so many layers in floating point, and the model."""
        model = draft.without(draft.layers[:count] if count else ())
        _add_notes(model, chips=len(judged), floating=count, rest=rest)
        found = labels(replace(files, int8=model.SerializeToString()), "int8")
        share = float(np.mean([np.mean(a == b) for a, b in zip(expected, found, strict=True)]))
        _add_notes(model, agreement=share)
        return share, replace(files, int8=model.SerializeToString())

    found = []
    # Where bf16 itself changes too many labels, fp32 helps.
    for rest in [p for p in ("bf16", "fp32") if p in precisions()]:
        found.append(_fewest(partial(tried, rest=rest), draft))
        if found[-1][0] >= AIM:
            break
    return max(found, key=lambda pair: pair[0])[1]


def _fewest(
    tried: Callable[[int], tuple[float, ModelFiles]], draft: Draft
) -> tuple[float, ModelFiles]:
    """As few layers in floating point as suffice; where no number does, the best that was tried."""
    best = tried(0)
    if best[0] >= AIM:
        return best
    # So many that it suffices, then as few as that: mostly one or two do.
    fewer, count = 0, 1
    while True:
        count = min(count, len(draft.layers))
        enough = tried(count)
        if enough[0] >= AIM:
            break
        best = max(best, enough, key=lambda pair: pair[0])
        if count == len(draft.layers):
            return best
        fewer, count = count, 2 * count
    while count - fewer > 1:
        middle = (fewer + count) // 2
        pair = tried(middle)
        if pair[0] >= AIM:
            count, enough = middle, pair
        else:
            fewer = middle
    return enough


def _add_notes(model: ModelProto, **notes: object) -> None:
    for key, value in notes.items():
        model.metadata_props.add(key=f"geoseg:{key}", value=str(value))


def _is_whole(content: bytes, files: ModelFiles) -> bool:
    """Whether what was kept can be read and is this model's."""
    try:
        bind(content, files, INT8_NAME)
    except ModelError:
        return False
    return True


def _key(wanted: Request, chips: Sequence[NDArray[Any]]) -> str:
    """The cache's name for a graph: the model, the chips and what they mean."""
    from geoseg.runtimes.on_openvino import precisions

    card, radiometry = wanted.files.card, wanted.radiometry
    what = [identity(wanted.files), repr(card.normalization), radiometry.gain, radiometry.bias]
    # A model's own graph may do something else than its network.
    what.append(hashlib.sha256(wanted.files.graph or b"").hexdigest())
    what += [version("geoseg"), package_version("onnxruntime"), precisions(), str(AIM)]
    digest = hashlib.sha256(json.dumps(what).encode())
    for chip in chips:
        digest.update(f"{chip.dtype}{chip.shape}".encode())
        digest.update(np.ascontiguousarray(chip).tobytes())
    return f"int8/{digest.hexdigest()}.onnx"
