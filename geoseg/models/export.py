"""A model as ONNX, for runtimes other than torch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.card import ModelFiles
from geoseg.errors import ModelError, OutputError
from geoseg.models.folder import load_network

if TYPE_CHECKING:
    from torch import nn

__all__ = ["export_model", "export_onnx"]

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
        ModelError: the network has a part that ONNX can't express, or the packages that write ONNX
            are not installed.
        OutputError: the file exists already, or can't be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise OutputError(f"{path}: an ONNX file's name ends in .onnx")
    if path.exists():
        raise OutputError(f"{path} exists already; give another name, or remove it first")
    content = export_onnx(
        load_network(files),
        in_channels=len(files.card.bands),
        size=size or files.card.size,
        metadata={CARD_KEY: json.dumps(files.card.to_mlm(), ensure_ascii=False)},
    )
    partial = path.with_name(f".geoseg-{path.name}-{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.rename(path)
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def export_onnx(
    network: nn.Module, *, in_channels: int, size: int, metadata: dict[str, str] | None = None
) -> bytes:
    """A network as the bytes of an ONNX file.

    Args:
        network: gives logits; it is put into evaluation mode.
        in_channels: bands C.
        size: chip side, px.
        metadata: key -> text, kept in the file.

    Returns:
        An ONNX model, its weights inside.

    Raises:
        ModelError: as :func:`export_model`.
    """
    import torch

    from geoseg.models.crf import DenseCRF

    try:
        import onnx
        import onnxscript  # noqa: F401 - torch needs it, and says so less clearly
    except ImportError as error:
        raise ModelError(
            f"writing ONNX needs the packages onnx and onnxscript ({error}); install them: pip "
            f"install onnx onnxscript"
        ) from error
    options: dict[str, Any] = {
        "dynamo": True,
        "verbose": False,
        "input_names": ["pixels"],
        "output_names": ["logits"],
    }
    # A CRF takes its images one by one, which a graph can't do for a free number of them.
    if not any(isinstance(layer, DenseCRF) for layer in network.modules()):
        options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    # A batch of 1 would be taken for a constant where it is to stay free.
    example = torch.zeros((2 if "dynamic_shapes" in options else 1, in_channels, size, size))
    try:
        # torch tells its progress on standard output, which is ours for results.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(network.eval(), (example,), **options)
    except (RuntimeError, TypeError, ValueError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()
        raise ModelError(
            f"this network can't be written as ONNX ({cause[0] if cause else error!r}); a CRF must "
            f"have filter='window' or 'exact', since a lattice depends on its image"
        ) from error
    assert program is not None
    model = program.model_proto
    for key, text in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    try:
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())
    except ValueError as error:
        raise ModelError(
            f"this network is too large for one ONNX file, which holds 2 GB ({error})"
        ) from error
