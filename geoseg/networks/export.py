"""A model as ONNX, for runtimes other than torch."""

from __future__ import annotations

import contextlib
import io
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.cards.card import GRAPH_NAME
from geoseg.cards.files import ModelFiles, read_model
from geoseg.cards.stac import to_mlm
from geoseg.core.files import write_whole
from geoseg.core.importing import import_openvino, require
from geoseg.errors import ModelError, OutputError
from geoseg.graphs.binding import bind, detach, is_ours
from geoseg.graphs.for_openvino import read_graph
from geoseg.networks.folder import load_network

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

__all__ = ["export_graph", "export_model", "export_onnx", "write_graph"]

#: The key of the ONNX file's metadata under which the card stands, as JSON.
CARD_KEY = "geoseg:card"


def export_model(files: ModelFiles, path: str | Path, *, size: int | None = None) -> Path:
    """Write a model as ONNX, with its card in the metadata.

    The graph takes ``pixels``, float32 (N, C, size, size), normalized as the card says, and gives
    ``logits``, float32 (N, K, size, size). N is free, or 1 with a CRF; the chip's side is not.

    Args:
        files: the model.
        path: of the new file; its name ends in .onnx.
        size: chip side, px; None for the card's.

    Returns:
        The path.

    Raises:
        MissingExtraError: the packages that write ONNX are not installed.
        ModelError: the network has a part that ONNX can't express.
        OutputError: the file exists already, or can't be written.
    """
    require("torch", "writing ONNX")
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise OutputError(f"{path}: an ONNX file's name ends in .onnx")
    if path.exists():
        raise OutputError(f"{path} exists already; give another name, or remove it first")
    content = export_onnx(
        load_network(files),
        in_channels=len(files.card.bands),
        size=size or files.card.size,
        metadata={CARD_KEY: json.dumps(to_mlm(files.card), ensure_ascii=False)},
    )
    _write(path, content)
    return path


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: it can't be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error}") from error


def export_onnx(
    network: nn.Module, *, in_channels: int, size: int, metadata: dict[str, str] | None = None
) -> bytes:
    """Turn a network into the bytes of an ONNX file.

    Args:
        network: gives logits; it is put into evaluation mode.
        in_channels: bands C.
        size: chip side, px.
        metadata: key -> text, kept in the file.

    Returns:
        An ONNX model, its weights inside.

    Raises:
        MissingExtraError: the packages that write ONNX are not installed.
        ModelError: the network has a part that ONNX can't express.
    """
    require("torch", "writing ONNX")
    import torch

    from geoseg.networks.crf import DenseCRF

    # A CRF takes its images one by one, which a graph can't do for a free number of them.
    free = not any(isinstance(layer, DenseCRF) for layer in network.modules())
    # A batch of 1 would be taken for a constant where it is to stay free.
    model = _export(
        network,
        (2 if free else 1, in_channels, size, size),
        {0: torch.export.Dim("batch")} if free else {},
        optimize=True,
    )
    for key, text in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    return _checked(model)


def write_graph(folder: str | Path) -> tuple[Path, str]:
    """Write ``model.onnx`` into a model folder, in place of an older one.

    With it OpenVINO and ONNX Runtime run the model, and torch is not imported.

    Args:
        folder: a model folder.

    Returns:
        The file's path, and which chips it takes, in words.

    Raises:
        MissingExtraError: the packages that write ONNX are not installed.
        ModelError: as :func:`export_graph`.
        OutputError: the file can't be written, or one is there that geoseg did not write.
    """
    require("torch", f"writing {GRAPH_NAME}")
    folder = Path(folder)
    files = read_model(folder)
    if not folder.is_dir():
        raise OutputError(f"{folder} is no folder; unpack the model, and zip it again afterwards")
    path = folder / GRAPH_NAME
    if path.exists() and not is_ours(path):
        raise OutputError(
            f"{path} was not written by geoseg, and stays; move it elsewhere, or copy the model "
            f"without it"
        )
    content, takes = export_graph(files)
    _write(path, content)
    return path, takes


def export_graph(files: ModelFiles, shape: tuple[int, int] | None = None) -> tuple[bytes, str]:
    """Turn a model's network into the content of ``model.onnx``; see :mod:`geoseg.graphs.binding`.

    Args:
        files: the model.
        shape: height and width of the chips that it takes, px; None for all that suit the network
            if that is possible, and else the card's size.

    Returns:
        The content, and which chips it takes, in words.

    Raises:
        MissingExtraError: the packages that write ONNX are not installed.
        ModelError: the network has a part that ONNX can't express, OpenVINO gives other numbers
            than torch, or the weights do not fit.
    """
    require("torch", f"writing {GRAPH_NAME}")
    import torch

    network, card = load_network(files), files.card
    bands = len(card.bands)
    if shape is None:
        multiple = math.lcm(card.multiple, int(getattr(network, "size_multiple", 1)))
        least = multiple * math.ceil(int(getattr(network, "size_least", 1)) / multiple)
        side = max(2 * least, multiple * math.ceil(card.size / multiple))
        height, width = torch.export.Dim("height"), torch.export.Dim("width")
        if multiple > 1:
            height, width = multiple * height, multiple * width
        try:
            with _same_padding():
                model = _export(
                    network,
                    (1, bands, side, side + multiple),
                    {2: height, 3: width},
                    optimize=False,
                )
        except ModelError:
            model = None
        if model is not None:
            content = detach(model, files, multiple=multiple, least=least)
            shapes = ((least, least + multiple), (side + multiple, side))
            if all(_alike(network, content, files, *shape) for shape in shapes):
                return content, f"chips with sides of a multiple of {multiple} px"
        shape = (card.size, card.size)
    content = detach(_export(network, (1, bands, *shape), {}, optimize=False), files)
    if not _alike(network, content, files, *shape):
        # An antialiased resize, for one, is another one there, without a word.
        raise ModelError(
            f"{card.name}: OpenVINO gives other numbers than torch for the network "
            f"{card.network!r}; use --runtime torch"
        )
    return content, f"chips of {shape[0]}x{shape[1]} px alone"


def _alike(network: nn.Module, content: bytes, files: ModelFiles, height: int, width: int) -> bool:
    """Check whether a graph gives the network's logits for chips of a shape."""
    import torch

    openvino = import_openvino()

    x = torch.rand(1, len(files.card.bands), height, width, generator=torch.manual_seed(0))
    with torch.inference_mode():
        expected = network(x).numpy()
    try:
        core = openvino.Core()
        model = read_graph(core, bind(content, files), files)
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        found = core.compile_model(model, "CPU", settings)([x.numpy()])[0]
    except RuntimeError:
        return False
    spread = float(expected.max() - expected.min())
    return bool(found.shape == expected.shape and abs(found - expected).max() <= 1e-3 * spread)


@contextlib.contextmanager
def _same_padding() -> Iterator[None]:
    """Let timm's "same" convolutions pad by what they pad where their stride divides the sides.

    They work it out from the sides, whose symbols grow with every layer: for some networks that
    takes the exporter longer than anyone waits.
    """
    from timm.layers.conv2d_same import Conv2dSame
    from torch.nn import functional as F

    def forward(self: Any, x: Any) -> Any:
        pads: list[int] = []
        for k, s, d in zip(
            reversed(self.kernel_size), reversed(self.stride), reversed(self.dilation), strict=True
        ):
            total = max((k - 1) * d + 1 - s, 0)
            pads += [total // 2, total - total // 2]
        x = F.pad(x, pads)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    original = Conv2dSame.forward
    Conv2dSame.forward = forward
    try:
        yield
    finally:
        Conv2dSame.forward = original


def _export(
    network: nn.Module, shape: tuple[int, ...], free: dict[int, Any], *, optimize: bool
) -> ModelProto:
    """Turn a network into an ONNX model.

    Args:
        network: gives logits; it is put into evaluation mode.
        shape: (N, C, H, W) of an example.
        free: axis -> symbol of those that may have other lengths.
        optimize: whether to fold batch norms into convolutions; else the tensors stay the
            network's own.

    Raises:
        ModelError: ONNX can't express it.
    """
    import torch
    from onnxscript import optimizer

    options: dict[str, Any] = {"dynamic_shapes": (free,)} if free else {}
    try:
        # torch prints its progress on standard output, which is ours for results.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.eval(),
                (torch.zeros(shape),),
                dynamo=True,
                verbose=False,
                input_names=["pixels"],
                output_names=["logits"],
                optimize=optimize,
                **options,
            )
            assert program is not None
            if not optimize:
                optimizer.fold_constants_ir(program.model)
                optimizer.remove_unused_nodes(program.model)
    except (RuntimeError, TypeError, ValueError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()
        raise ModelError(
            f"this network can't be written as ONNX ({cause[0] if cause else error!r}); a CRF must "
            f"have filter='window' or 'exact', since a lattice depends on its image"
        ) from error
    return program.model_proto


def _checked(model: ModelProto) -> bytes:
    """Check that a model keeps ONNX's own rules, and give its bytes.

    Raises:
        ModelError: it is too large.
    """
    import onnx

    try:
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())
    except ValueError as error:
        raise ModelError(
            f"this network is too large for one ONNX file, which holds 2 GB ({error})"
        ) from error
