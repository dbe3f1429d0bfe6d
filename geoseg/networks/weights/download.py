"""Published weights files: where they lie on this machine, and how they are fetched."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import torch

from geoseg.errors import ModelError
from geoseg.networks.weights.state import SUFFIXES

__all__ = ["Release", "find_release", "hub_release", "weights_folder"]

#: Seconds that one step of a download may stand still. Hugging Face's own client tries each of two
#: file names six times: 46 s without a network, as measured with huggingface_hub 2.4.
TIMEOUT = 10.0


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


def weights_folder() -> Path:
    """Say where published weights files are kept; ``TORCH_HOME`` moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def hub_release(
    repository: str, file: str, *, url: str = "", revision: str | None = None
) -> Release:
    """Describe a file on the Hugging Face Hub as a release.

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
