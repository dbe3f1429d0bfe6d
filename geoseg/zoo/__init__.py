"""The embedded models: one folder each, found by name."""

from __future__ import annotations

from pathlib import Path

from geoseg.card import CARD_NAME, ModelFiles, read_model
from geoseg.errors import ModelError

__all__ = ["DEFAULT_MODEL", "find_model", "list_embedded"]

DEFAULT_MODEL = "landcover-ms"
_ROOT = Path(__file__).parent


def list_embedded() -> list[str]:
    """The names of the embedded models."""
    return sorted(p.parent.name for p in _ROOT.glob(f"*/{CARD_NAME}"))


def find_model(name: str | Path) -> ModelFiles:
    """Read a model by name or path.

    Args:
        name: an embedded model's name, or the path of a model folder or .zip. A path that exists
            is taken before a name.

    Raises:
        ModelError: there is no such model, or it is damaged.
    """
    if Path(name).exists():
        return read_model(name)
    if str(name) in list_embedded():
        return read_model(_ROOT / str(name))
    raise ModelError(
        f"no model {str(name)!r}: it is neither a model folder or .zip nor one of the embedded "
        f"{', '.join(list_embedded())}; see geoseg models list"
    )
