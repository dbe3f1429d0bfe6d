"""A model's graph in 8 bits: its own, an earlier run's, or one for the scene at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.card import INT8_NAME, ModelFiles
from geoseg.errors import ModelError, SceneError
from geoseg.models.graph import bind, identity, noted
from geoseg.models.quantize import quantize_graph
from geoseg.radiometry import Radiometry
from geoseg.runtimes import Request
from geoseg.runtimes.cache import Cache
from geoseg.runtimes.cpu import graph_for

__all__ = ["quantize_files", "with_int8"]


def with_int8(wanted: Request) -> tuple[ModelFiles, str]:
    """A model with a graph in 8 bits.

    Args:
        wanted: the model, and what gives chips to calibrate on where it has no such graph.

    Returns:
        The model, and how well its 8 bits do, in words.

    Raises:
        ModelError: its own graph is another's, or the network can't be quantized.
        SceneError: there is no chip to calibrate on.
    """
    files = wanted.files
    if files.int8 is None:
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
    found = noted(bind(files.int8, files, INT8_NAME))
    words = (
        f"int8 gives {100 * float(found.get('geoseg:agreement', 'nan')):.4g} % of fp32's labels on "
        f"the {found.get('geoseg:chips')} chips that it was calibrated on"
    )
    if wanted.tell is not None:
        wanted.tell(words)
    return files, f"asked for; {words}"


def quantize_files(
    files: ModelFiles, radiometry: Radiometry, chips: Sequence[NDArray[Any]], cache: Cache
) -> ModelFiles:
    """A model with a graph in 8 bits that was calibrated on chips.

    Args:
        files: the model.
        radiometry: what the chips' numbers mean.
        chips: raw (C, H, W), all of one shape and dtype.
        cache: for the graph in fp32, where it has to be made.

    Returns:
        The model; its ``int8`` notes the share of fp32's labels on these chips.

    Raises:
        ModelError: the network can't be quantized.
    """
    from geoseg.runtimes.openvino import OpenVinoRuntime

    graph = graph_for(files, chips[0].shape[1], chips[0].shape[2], cache)
    model = quantize_graph(files, radiometry, graph, chips)
    files = replace(files, graph=graph, int8=model.SerializeToString())
    fp32, int8 = (
        OpenVinoRuntime(files, radiometry, precision=p, threads=None, cache=cache)
        for p in ("fp32", "int8")
    )
    pairs = zip(fp32.run(enumerate(chips)), int8.run(enumerate(chips)), strict=True)
    alike = [np.mean(a.argmax(axis=0) == b.argmax(axis=0)) for (_, a), (_, b) in pairs]
    for key, value in (("agreement", float(np.mean(alike))), ("chips", len(chips))):
        model.metadata_props.add(key=f"geoseg:{key}", value=str(value))
    return replace(files, int8=model.SerializeToString())


def _is_whole(content: bytes, files: ModelFiles) -> bool:
    """Whether what was kept can be read and is this model's."""
    try:
        bind(content, files, INT8_NAME)
    except ModelError:
        return False
    return True


def _key(wanted: Request, chips: Sequence[NDArray[Any]]) -> str:
    """The cache's name for a graph: the model, the chips and what they mean."""
    card, radiometry = wanted.files.card, wanted.radiometry
    what = [identity(wanted.files), repr(card.normalization), radiometry.gain, radiometry.bias]
    what += [version("geoseg"), version("onnxruntime")]
    digest = hashlib.sha256(json.dumps(what).encode())
    for chip in chips:
        digest.update(f"{chip.dtype}{chip.shape}".encode())
        digest.update(np.ascontiguousarray(chip).tobytes())
    return f"int8/{digest.hexdigest()}.onnx"
