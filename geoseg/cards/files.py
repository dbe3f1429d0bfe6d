"""A model as files: a folder or .zip of card, weights and graphs."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from geoseg.cards.card import CARD_NAME, GRAPH_NAME, INT8_NAME, WEIGHTS_NAME, ModelCard
from geoseg.cards.stac import from_mlm, to_mlm
from geoseg.core.wording import counted
from geoseg.errors import ModelError

__all__ = ["ModelFiles", "card_text", "read_model", "write_card"]


#: Larger files are not read: they are no card, and no weights or graph that a machine could hold.
MAX_CARD_BYTES = 1_000_000
MAX_WEIGHTS_BYTES = 8_000_000_000
MAX_GRAPH_BYTES = 2_000_000_000


@dataclass(frozen=True)
class ModelFiles:
    """A model as found on disk.

    Attributes:
        card: its card.
        weights: the content of ``weights.safetensors``.
        path: the folder or .zip.
        sha256: of all its files that a map may depend on, hexadecimal: of card, weights and both
            graphs, those that are there; the same for a folder and a .zip of it.
        graph: the content of ``model.onnx``, or None; :func:`geoseg.graphs.binding.attach` reads
            it.
        int8: the content of ``model.int8.onnx``, or None.
    """

    card: ModelCard
    weights: bytes
    path: Path
    sha256: str
    graph: bytes | None = None
    int8: bytes | None = None

    @cached_property
    def weights_sha256(self) -> str:
        """Hash the weights alone, hexadecimal; large ones take a moment."""
        return hashlib.sha256(self.weights).hexdigest()


def read_model(path: str | Path) -> ModelFiles:
    """Read a model folder or .zip. No code in it is run.

    Args:
        path: a folder with ``model.json`` and ``weights.safetensors``, and ``model.onnx`` and
            ``model.int8.onnx`` where there are any, or a .zip of these.

    Raises:
        ModelError: a file is missing, too large or not what it should be.
    """
    path = Path(path)
    try:
        if path.is_dir():
            card_bytes = _read_file(path / CARD_NAME, MAX_CARD_BYTES)
            weights = _read_file(path / WEIGHTS_NAME, MAX_WEIGHTS_BYTES)
            graphs = [
                _read_file(path / name, MAX_GRAPH_BYTES) if (path / name).exists() else None
                for name in (GRAPH_NAME, INT8_NAME)
            ]
        elif path.is_file() and zipfile.is_zipfile(path):
            card_bytes, weights, *graphs = _read_zip(path)
        else:
            raise ModelError(
                f"{path} is not a model: a model is a folder or .zip with {CARD_NAME} and "
                f"{WEIGHTS_NAME}; geoseg models list shows the ones that are here"
            )
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{path} can't be read as a model ({error}); fetch it again") from error
    try:
        item = json.loads(card_bytes)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {CARD_NAME} is not JSON ({error})") from error
    if not isinstance(item, dict):
        raise ModelError(f"{path}: {CARD_NAME} must hold one JSON object")
    digest = hashlib.sha256()
    for name, content in zip(
        (CARD_NAME, WEIGHTS_NAME, GRAPH_NAME, INT8_NAME),
        (card_bytes, weights, *graphs),
        strict=True,
    ):
        if content is not None:
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    return ModelFiles(from_mlm(item), weights, path, digest.hexdigest(), *graphs)


def _read_file(path: Path, limit: int) -> bytes:
    if not path.is_file():
        raise ModelError(
            f"{path.parent} has no {path.name}: a model folder holds {CARD_NAME} and {WEIGHTS_NAME}"
        )
    if path.stat().st_size > limit:
        raise ModelError(f"{path} is {path.stat().st_size} bytes; at most {limit} are read")
    return path.read_bytes()


def _read_zip(path: Path) -> tuple[bytes, bytes, bytes | None, bytes | None]:
    """Read the files of a zipped model, at its top or in one folder; nothing is extracted."""
    with zipfile.ZipFile(path) as archive:
        found: list[bytes | None] = []
        folders: set[str] = set()
        for name, limit in (
            (CARD_NAME, MAX_CARD_BYTES),
            (WEIGHTS_NAME, MAX_WEIGHTS_BYTES),
            (GRAPH_NAME, MAX_GRAPH_BYTES),
            (INT8_NAME, MAX_GRAPH_BYTES),
        ):
            members = [i for i in archive.infolist() if i.filename.split("/")[-1] == name]
            if name in (GRAPH_NAME, INT8_NAME) and not members:
                found.append(None)
                continue
            if len(members) != 1 or members[0].filename.count("/") > 1:
                raise ModelError(
                    f"{path} holds {counted(len(members), 'file')} named {name}; a zipped "
                    f"model holds one, at its top or in one folder"
                )
            if members[0].file_size > limit:
                raise ModelError(f"{path}: {name} is larger than {limit} bytes")
            folders.add(members[0].filename.rpartition("/")[0])
            found.append(archive.read(members[0]))
    if len(folders) > 1:
        raise ModelError(f"{path} holds {CARD_NAME} and {WEIGHTS_NAME} in two folders; keep one")
    card, weights, graph, int8 = found
    assert card is not None and weights is not None
    return card, weights, graph, int8


def write_card(card: ModelCard, folder: str | Path) -> Path:
    """Write ``model.json`` into a folder.

    Returns:
        The file's path.
    """
    path = Path(folder) / CARD_NAME
    path.write_text(card_text(card), encoding="utf-8")
    return path


def card_text(card: ModelCard) -> str:
    """Give the content of ``model.json``."""
    return json.dumps(to_mlm(card), indent=2, ensure_ascii=False) + "\n"
