"""Model folders: a card and weights, in and out."""

from __future__ import annotations

import secrets
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.cards.card import CARD_NAME, GRAPH_NAME, INT8_NAME, WEIGHTS_NAME, ModelCard
from geoseg.cards.files import ModelFiles, read_model, write_card
from geoseg.core.importing import require
from geoseg.core.wording import counted
from geoseg.errors import ModelError, OutputError
from geoseg.networks.create import create_model

if TYPE_CHECKING:
    from torch import nn

__all__ = ["import_model", "load_network", "save_files", "save_model"]


def load_network(model: ModelFiles) -> nn.Module:
    """Build a model's network and fill in its weights.

    Args:
        model: what :func:`geoseg.cards.files.read_model` gave.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        MissingExtraError: torch and the like are not installed.
        ModelError: the weights are not safetensors, or not those of the card's network.
    """
    card = model.card
    # Whatever a card says, its weights are beside it: nothing is fetched for them.
    options = {k: v for k, v in card.network_options.items() if k != "encoder_weights"}
    network = create_model(
        card.network, in_channels=len(card.bands), classes=len(card.classes), **options
    )
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        network.load_state_dict(safetensors.torch.load(model.weights))
    except SafetensorError as error:
        raise ModelError(f"{model.path}: {WEIGHTS_NAME} is not safetensors ({error})") from error
    except RuntimeError as error:
        raise ModelError(
            f"{model.path}: the weights are not those of {card.network!r} with "
            f"{counted(len(card.bands), 'band')}, {counted(len(card.classes), 'class')} and "
            f"options {dict(card.network_options)}: {error}"
        ) from error
    return network.eval()


def save_model(
    card: ModelCard, network: nn.Module, folder: str | Path, notices: Iterable[Path] = ()
) -> None:
    """Write a model folder: all of it appears at once, or nothing does.

    Args:
        card: becomes ``model.json``.
        network: its parameters and buffers become ``weights.safetensors``.
        folder: the new folder; its parent is made where it is missing.
        notices: licence files to copy beside.

    Raises:
        OutputError: the folder exists already, or can't be written.
    """
    import safetensors.torch

    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with _new_folder(Path(folder)) as partial:
        # Not save_file, which lets nobody but the owner read the file.
        (partial / WEIGHTS_NAME).write_bytes(safetensors.torch.save(state))
        write_card(card, partial)
        for notice in notices:
            shutil.copyfile(notice, partial / notice.name)


def save_files(files: ModelFiles, folder: str | Path) -> None:
    """Write a model's files into a new folder: all of them appear at once, or none does.

    Args:
        files: the model.
        folder: the new folder; its parent is made where it is missing.

    Raises:
        OutputError: the folder exists already, or can't be written.
    """
    with _new_folder(Path(folder)) as partial:
        (partial / WEIGHTS_NAME).write_bytes(files.weights)
        write_card(files.card, partial)
        for name, content in ((GRAPH_NAME, files.graph), (INT8_NAME, files.int8)):
            if content is not None:
                (partial / name).write_bytes(content)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder to write into, that gets its name at the end.

    Raises:
        OutputError: the folder exists already, or can't be written.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists already; give another folder, or remove it first")
    # A sibling is on the same file system, so that the rename is atomic.
    partial = folder.with_name(f".geoseg-{folder.name[:200]}-{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:  # nothing of this run's is to be removed
        raise OutputError(f"the model folder {folder} can't be written: {error}") from error
    try:
        yield partial
        partial.rename(folder)
    except OSError as error:
        raise OutputError(f"the model folder {folder} can't be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def import_model(source: str | Path, folder: str | Path) -> ModelCard:
    """Turn a released model into a geoseg model folder.

    Args:
        source: a Dynamic World release (``weights.npz`` or the folder that holds it), or a geoseg
            model folder or .zip, which is checked and copied.
        folder: the new model folder.

    Returns:
        The card that was written.

    Raises:
        MissingExtraError: torch and the like are not installed.
        ModelError: the source is none of these, or its weights do not fit its network.
        OutputError: the folder exists already, or can't be written.
    """
    require("torch", "importing a model")
    source = Path(source)
    if not source.exists():
        raise ModelError(f"{source} does not exist; give a path to {_ACCEPTED}")
    release = source / "weights.npz" if source.is_dir() else source
    if release.suffix == ".npz" and release.is_file():
        card, network = _read_dynamicworld(release)
    elif (source / CARD_NAME).is_file() or (source.is_file() and zipfile.is_zipfile(source)):
        model = read_model(source)
        card, network = model.card, load_network(model)
    else:
        raise ModelError(f"{source} is no model that geoseg knows; it accepts {_ACCEPTED}")
    beside = source if source.is_dir() else source.parent
    notices = [beside / name for name in ("LICENSE", "NOTICE") if (beside / name).is_file()]
    save_model(card, network, folder, notices)
    return card


_ACCEPTED = (
    "a Dynamic World release (its weights.npz or the folder of it), a geoseg model folder or .zip"
)


def _read_dynamicworld(path: Path) -> tuple[ModelCard, nn.Module]:
    """Read the released arrays; no pickled object in the file is loaded."""
    import numpy as np

    from geoseg.networks.dynamicworld import DynamicWorld, release_card, release_state

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path} can't be read as .npz ({error}); geoseg accepts {_ACCEPTED}"
        ) from error
    network = DynamicWorld()
    network.load_state_dict(release_state(arrays))
    return release_card(), network
