"""The card of a model folder is replaced, as one file at once."""

from __future__ import annotations

from pathlib import Path

from geoseg.cards.card import CARD_NAME, ModelCard
from geoseg.cards.files import card_text
from geoseg.core.staging import Staging
from geoseg.core.write_errors import explain_write_error

__all__ = ["replace_card"]


def replace_card(card: ModelCard, folder: Path) -> Path:
    """Replace the card in a model's folder, at once.

    Returns:
        The file's path.

    Raises:
        OutputError: it can't be written.
    """
    path = folder / CARD_NAME
    with Staging([path], replaced=[path]) as staging:
        try:
            staging.path(path).write_text(card_text(card), encoding="utf-8")
        except OSError as error:
            raise explain_write_error(error, path) from error
        staging.publish([path])
    return path
