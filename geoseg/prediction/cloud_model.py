"""Clouds by a model of geoseg's own form: the embedded clouds-ms, or a folder.

It computes in fp32 by one runtime, whatever the map's model is computed by: a run that goes on sees
the same clouds.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import CARD_NAME
from geoseg.cards.files import ModelFiles, read_model
from geoseg.errors import BandError, RadiometryError, SceneError, UsageError
from geoseg.geo.model_grid import ModelGrid, on_model_grid
from geoseg.prediction.cloud_network import CloudNetwork
from geoseg.prediction.options import PredictOptions
from geoseg.runtimes import Runtime, checked, load_runtime
from geoseg.scene.clouds import CLOUD_MODEL
from geoseg.scene.radiometry import Radiometry, find_radiometry
from geoseg.scene.scene import FoundClouds, Scene
from geoseg.scene.scene_band import SceneBand, finest_grid
from geoseg.zoo import ZOO

__all__ = ["by_model", "is_model_folder", "model_if_it_can"]

#: Side of the smallest scene of which the model is asked unasked, px of its grid: half of that of
#: the chips that it has learned from.
LEAST = 64


def is_model_folder(named: str | Path) -> bool:
    """Say whether it is a model's folder."""
    return (Path(named) / CARD_NAME).is_file()


def model_if_it_can(scene: Scene, options: PredictOptions) -> FoundClouds | None:
    """Give a scene's clouds by the embedded model where the scene is one for it.

    Args:
        scene: that has no cloud layer.
        options: the user's.

    Returns:
        None where bands, unit or pixel size don't suit it, or the scene is less than a chip.
    """
    try:
        found = by_model(scene, CLOUD_MODEL, options)
    except (SceneError, BandError, RadiometryError, UsageError):
        return None
    return found if min(found.grid.height, found.grid.width) >= LEAST else None


def by_model(scene: Scene, named: str | Path, options: PredictOptions) -> FoundClouds:
    """Have a scene's clouds found by a model; nothing is computed before they are asked for.

    Args:
        scene: with the model's bands.
        named: the embedded model's name, or a model's folder.
        options: the user's.

    Raises:
        ModelError: it can't be read.
        BandError: a band is missing.
        RadiometryError: nothing says what the numbers mean.
        UsageError: it is no model of clouds, or the pixels are too large or of unknown size.
    """
    # The embedded one, whatever lies in the current folder.
    files = read_model(ZOO / CLOUD_MODEL if named == CLOUD_MODEL else named)
    what = f"--clouds {named}"
    card = files.card
    if not card.clouds or card.activation == "sigmoid":
        raise UsageError(
            f"{what}: the card of this model names no classes that are clouds (geoseg:clouds), of "
            f"which one alone is true of a pixel; give {CLOUD_MODEL}, a model that geoseg train "
            f"makes of a recipe with clouds, or a mask"
        )
    try:
        bands = scene.choose(card.bands)
    except BandError as error:
        raise BandError(f"{what}: {error}; or give --clouds FILE or none") from error
    radiometry = find_radiometry(
        scene, bands, card.quantity, scale=options.scale, offset=options.offset
    )
    full = finest_grid(bands)
    if full.gsd is None or max(full.gsd) > card.gsd_range[1]:
        size = "unknown" if full.gsd is None else f"{max(full.gsd):.3g} m"
        raise UsageError(
            f"{what}: the size of the scene's pixels is {size}, and the model takes up to "
            f"{card.gsd_range[1]:g} m; give --clouds FILE or none"
        )
    seen, _ = on_model_grid(full, card.gsd, card.gsd_range, card.name)
    network = _CloudModel(files, bands, radiometry, seen, options)
    return FoundClouds(
        f"the model {card.name}",
        f"{card.name}, {', '.join(card.clouds)}",
        seen.grid,
        network.opened,
        paths=(str(files.path),),
        about=(files.sha256, list(seen.place)),
        by=card.name,
    )


class _CloudModel(CloudNetwork):
    """A model, for one scene."""

    def __init__(
        self,
        files: ModelFiles,
        bands: tuple[SceneBand, ...],
        radiometry: Radiometry,
        seen: ModelGrid,
        options: PredictOptions,
    ) -> None:
        card = files.card
        # At least half of a chip is trusted.
        margin = min(max(card.margin, card.overlap // 2), card.size // 4)
        super().__init__(bands, seen, card.size, margin, options.src_nodata)
        self._files, self._radiometry, self._threads = files, radiometry, options.threads
        names = [c.name for c in card.classes]
        self._places = [names.index(name) for name in card.clouds or ()]

    def _ask(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        probs = self._runtime.to_numpy(checked.probs(self._runtime, pixels[None]))[0]
        found: NDArray[np.bool_] = probs[self._places].sum(axis=0) > 0.5
        return found

    @cached_property
    def _runtime(self) -> Runtime:
        # Not by trial, and in fp32: otherwise a run that goes on could see other clouds.
        return load_runtime(
            self._files,
            self._radiometry,
            runtime="openvino",
            precision="fp32",
            device="cpu",
            threads=self._threads,
        )
