"""The embedded models: one folder each, found by name, or chosen for a scene.

In goes a name, a path or a scene; out comes a model, read. Card and weights are what ``geoseg
train`` made of the recipes in configs/; to add a model, put a folder of them here. Names and
colours of a model's classes stand in its card, ``model.json``, and in the recipe for the next
training. Start with :func:`find_model`.
"""

from __future__ import annotations

import math
from pathlib import Path

from geoseg.cards.card import CARD_NAME, ModelCard
from geoseg.cards.files import ModelFiles, read_model
from geoseg.errors import BandError, ModelError, UsageError
from geoseg.scene.scene import Scene
from geoseg.scene.scene_band import finest_grid

__all__ = ["ZOO", "check_changeable", "choose_model", "find_model", "list_embedded", "list_maps"]

#: Where they are.
ZOO = Path(__file__).resolve().parent


def list_embedded() -> list[str]:
    """List the names of the embedded models."""
    return sorted(p.parent.name for p in ZOO.glob(f"*/{CARD_NAME}"))


def list_maps() -> list[str]:
    """List the names of those that make maps of the ground; a model of clouds is for these."""
    return [name for name in list_embedded() if not find_model(name).card.clouds]


def find_model(name: str | Path) -> ModelFiles:
    """Read a model by name or path.

    Args:
        name: an embedded model's name, or the path of a model folder or .zip. A path that exists
            is taken before a name.

    Returns:
        Its card, and the contents of its files.

    Raises:
        ModelError: there is no such model, or it is damaged.
    """
    if Path(name).exists():
        return read_model(name)
    if str(name) in list_embedded():
        return read_model(ZOO / str(name))
    raise ModelError(
        f"no model {str(name)!r}: it is neither a model folder or .zip nor one of the embedded "
        f"{', '.join(list_embedded())}; see geoseg models list"
    )


def check_changeable(files: ModelFiles, option: str) -> None:
    """Refuse to write into a model that is not the user's own folder.

    Embedded models are everybody's on a machine, and new with each installation.

    Args:
        files: the model.
        option: what would write, for the message.

    Raises:
        UsageError: it is embedded, or a .zip.
    """
    embedded = files.path.resolve().parent == ZOO
    if embedded or not files.path.is_dir():
        what = "an embedded model" if embedded else "a .zip"
        raise UsageError(
            f"{files.path} is {what}, which stays as it is; copy it into a folder of your own for "
            f"{option}"
        )


def choose_model(scene: Scene, bands: str | None = None) -> tuple[ModelFiles, str]:
    """Choose the embedded model that suits a scene.

    Its bands must be in the scene. Of several models the one whose range of gsd is nearest to the
    scene's is taken, and of equally near ones that with more bands.

    Args:
        scene: what was opened.
        bands: what the user says of them, see :meth:`geoseg.scene.scene.Scene.choose`.

    Returns:
        The model, and why it was taken.

    Raises:
        BandError: no embedded model's bands are in the scene.
    """
    fits: list[tuple[float, int, ModelFiles, tuple[float, float] | None]] = []
    refused = []
    for name in list_maps():
        files = find_model(name)
        try:
            chosen = scene.choose(files.card.bands, bands)
        except BandError as error:
            refused.append((name, error))
            continue
        gsd = finest_grid(chosen).gsd
        fits.append((_distance(gsd, files.card), -len(files.card.bands), files, gsd))
    if not fits:
        why = "; ".join(f"{name}: {error}" for name, error in refused)
        raise BandError(f"no embedded model takes this scene ({why}); give one with -m")
    _, _, files, gsd = min(fits, key=lambda fit: fit[:2])
    card = files.card
    why = f"the scene has its bands ({', '.join(card.bands)})"
    if gsd is None:
        why += "; the scene's gsd is unknown"
    else:
        low, high = card.gsd_range
        why += f"; pixels of {max(gsd):.3g} m, and it takes {low:g} to {high:g} m"
    others = [fit[2].card for fit in fits if fit[2] is not files]
    if others and gsd is not None:
        why += "; others take " + ", ".join(
            f"{other.gsd_range[0]:g} to {other.gsd_range[1]:g} m ({other.name})" for other in others
        )
    return files, why


def _distance(gsd: tuple[float, float] | None, card: ModelCard) -> float:
    """Measure how far a scene's gsd lies from what a model takes: a logarithm, 0 within."""
    if gsd is None:
        return 0.0
    low, high = card.gsd_range
    return max(math.log(low / min(gsd)), math.log(max(gsd) / high), 0.0)
