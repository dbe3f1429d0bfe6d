"""Rasters and models made for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import safetensors.numpy
from affine import Affine
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rasterio.enums import ColorInterp

from geoseg.cards.card import GRAPH_NAME, WEIGHTS_NAME, ModelCard
from geoseg.cards.files import ModelFiles, write_card
from geoseg.cards.legend import ClassInfo
from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.window import Window
from geoseg.graphs.binding import detach

COLORS = ("#419BDF", "#397D49", "#E49635", "#C4281B", "#A59B8F", "#B39FE1")


def make_raster(
    path: Path,
    values: NDArray[Any],
    *,
    crs: Any = "EPSG:32633",
    transform: Affine = Affine(10, 0, 500000, 0, -10, 5000000),
    descriptions: Sequence[str | None] | None = None,
    nodata: float | None = None,
    mask: NDArray[np.bool_] | None = None,
    internal_mask: bool = True,
    alpha: NDArray[np.uint8] | None = None,
    scales: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None,
    tags: dict[str, str] | None = None,
    **profile: Any,
) -> Path:
    """Write a GeoTIFF of values (C, H, W), with alpha as a further band."""
    if alpha is not None:
        values = np.concatenate([values, alpha[None].astype(values.dtype)])
    count, height, width = values.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal_mask),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=count,
            dtype=values.dtype,
            crs=crs,
            transform=transform,
            nodata=nodata,
            **profile,
        ) as dataset,
    ):
        if alpha is not None:
            dataset.colorinterp = [ColorInterp.gray] * (count - 1) + [ColorInterp.alpha]
        if descriptions is not None:
            for i, text in enumerate(descriptions, start=1):
                if text is not None:
                    dataset.set_band_description(i, text)
        if scales is not None:
            dataset.scales = tuple(scales)
        if offsets is not None:
            dataset.offsets = tuple(offsets)
        if tags:
            dataset.update_tags(**tags)
        dataset.write(values)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def tiny_model(
    folder: Path,
    bands: Sequence[str],
    classes: Sequence[str],
    *,
    network: str = "linear",
    seed: int = 0,
    graph: bool = True,
    **card: Any,
) -> Path:
    """Write a model folder with a seeded network.

    The network "linear" needs no torch: it is written with its ``model.onnx``, but where graph is
    False. Others are made by torch, and a test that asks for one is skipped where torch is missing.
    """
    legend = tuple(ClassInfo(i, n, COLORS[i % len(COLORS)]) for i, n in enumerate(classes))
    defaults: dict[str, Any] = {
        "name": folder.name,
        "description": "made for a test",
        "network": network,
        "bands": tuple(bands),
        "classes": legend,
        "gsd": 10.0,
        "gsd_range": (0.1, 100_000.0),
        "quantity": "number",
        "size": 64,
        "overlap": 16,
        "license": "Apache-2.0",
    }
    made = ModelCard(**{**defaults, **card})
    if network == "linear" and not made.network_options:
        _write_linear(made, folder, seed, graph)
        return folder
    torch = pytest.importorskip("torch")
    from geoseg.networks import create_model, save_model

    torch.manual_seed(seed)
    options = dict(made.network_options)
    net = create_model(network, in_channels=len(bands), classes=len(classes), **options)
    save_model(made, net.eval(), folder)
    return folder


def _write_linear(card: ModelCard, folder: Path, seed: int, graph: bool) -> None:
    """A model folder of :class:`geoseg.networks.linear.Linear`, as save_model writes it."""
    bands, classes = len(card.bands), len(card.classes)
    # The numbers that torch draws for such a convolution after torch.manual_seed(seed).
    random = np.random.RandomState(seed)
    bits = np.frombuffer(random.bytes(4 * classes * (bands + 1)), "<u4") & 0xFFFFFF
    reach = np.float32(1 / np.sqrt(bands))
    drawn = (bits / 2**24).astype(np.float32) * (2 * reach) - reach
    weight, bias = drawn[:-classes].reshape(classes, bands, 1, 1), drawn[-classes:]
    folder.mkdir(parents=True)
    weights = safetensors.numpy.save({"head.weight": weight, "head.bias": bias})
    (folder / WEIGHTS_NAME).write_bytes(weights)
    write_card(card, folder)
    if graph:
        (folder / GRAPH_NAME).write_bytes(linear_graph(ModelFiles(card, weights, folder, "")))


def linear_graph(files: ModelFiles) -> bytes:
    """The content of ``model.onnx`` for a model of the network "linear"."""
    bands, classes = len(files.card.bands), len(files.card.classes)
    tensors = safetensors.numpy.load(files.weights)
    names = {"head.weight": "weight", "head.bias": "bias"}
    pixels, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "height", "width"])
        for name, channels in (("pixels", bands), ("logits", classes))
    )
    node = helper.make_node("Conv", ["pixels", "weight", "bias"], ["logits"], name="head")
    graph = helper.make_graph(
        [node],
        "linear",
        [pixels],
        [logits],
        [numpy_helper.from_array(tensors[key], name) for key, name in names.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return detach(helper.make_model(graph, opset_imports=opset), files, multiple=1, least=1)


def by_row(
    chips: Iterable[tuple[Window, Any]], grid: ChipGrid, first: int = 0
) -> Iterator[tuple[None, list[tuple[Window, Any]]]]:
    """Chips as :func:`geoseg.prediction.stitch.stitch` takes them, each in its row.

    Those that come in a wrong order are left in it, in a row where they don't belong.
    """
    groups = [list(group) for _, group in groupby(chips, key=lambda chip: chip[0].row)]
    rows = grid.row_starts[first:]
    for row in rows:
        due = groups.pop(0) if groups and groups[0][0][0].row <= row else []
        yield None, due if row != rows[-1] else [*due, *(c for group in groups for c in group)]
