"""Files of tensors, and networks that are filled with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from geoseg.errors import ModelError

__all__ = [
    "RGB",
    "SUFFIXES",
    "EncoderState",
    "bands_of_file",
    "load_encoder_state",
    "one_line",
    "read_state",
    "some",
]

#: What three channels of ImageNet weights are.
RGB = ("red", "green", "blue")

#: Weights files that are read.
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class EncoderState:
    """Pretrained weights of an encoder.

    Attributes:
        state: parameters and buffers, in the names of the whole classification network.
        in_channels: bands that they take.
        bands: these by geoseg's names, None where unknown.
    """

    state: dict[str, Tensor]
    in_channels: int
    bands: tuple[str | None, ...]


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a file of tensors; nothing in it is run.

    Args:
        path: a .safetensors file, or one that torch saved. Tensors below ``state_dict`` or
            ``model`` are taken from there, and a leading ``module.`` is dropped.

    Returns:
        Name -> tensor, on the CPU.

    Raises:
        ModelError: the file is not there, is broken, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no weights file {path}; give the path of an existing file")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises errors of pickle, which is imported nowhere
        raise ModelError(
            f"{path} can't be read as a weights file ({one_line(error)}); fetch it again, or "
            f"save its tensors alone as .safetensors"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(
            f"{path} holds more than named tensors; save the network's state_dict() alone"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def load_encoder_state(
    network: nn.Module, source: EncoderState, unused: Sequence[str] = ()
) -> None:
    """Fill a feature network with weights, completely.

    timm's feature networks rename what they take over: ``blocks.0.x`` may become ``blocks_0.x``,
    ``model.blocks.0.x`` or ``body.blocks.0.x``.

    Args:
        network: built for ``source.in_channels`` bands; changed in place. What it leaves out of
            the whole network is passed over.
        source: the weights.
        unused: modules of the network that no feature passes through; the weights need not have
            them.

    Raises:
        ModelError: a parameter or buffer has no source, or another shape.
    """
    given = {_plain(key): value for key, value in source.state.items()}
    filled: dict[str, Tensor] = {}
    missing: list[str] = []
    other: list[str] = []
    for key, value in network.state_dict().items():
        found = given.get(_plain(key))
        fits = found is not None and found.shape == value.shape
        spare = key.removeprefix("model.").split(".")[0] in unused
        if fits and found is not None:
            filled[key] = found
        elif spare or (found is None and key.endswith("num_batches_tracked")):
            filled[key] = value
        elif found is None:
            missing.append(key)
        else:
            other.append(f"{key} {tuple(found.shape)} instead of {tuple(value.shape)}")
    if len(given) != len(source.state) or missing or other:
        raise ModelError(
            f"the weights do not fit this encoder: {some('missing are', missing)}"
            f"{some('of another shape are', other)}every parameter must have its source; give the "
            f"weights of this very encoder, for the same img_size"
        )
    network.load_state_dict(filled)


def _plain(key: str) -> str:
    """Strip a parameter's name of what feature networks change in it."""
    return re.sub(r"^(model|body)\.", "", key).replace(".", "_")


def some(word: str, names: list[str]) -> str:
    """List names in a message: ``missing are a, b, c and 5 more; ``, or nothing.

    Args:
        word: before the names.
        names: any number of them.
    """
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{word} {', '.join(names[:3])}{more}; "


def bands_of_file(channels: int) -> tuple[str | None, ...]:
    """Name the bands that the weights of a file take: red, green and blue if three, else unknown.

    Args:
        channels: of the first convolution.
    """
    return RGB if channels == 3 else (None,) * channels


def one_line(error: BaseException) -> str:
    """Put a library's message on one line, cut after 40 words."""
    return " ".join(str(error).split()[:40]) or type(error).__name__
