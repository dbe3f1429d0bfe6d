"""What is odd about a plan: said before the run, each in a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from geoseg.cards.card import ModelCard
from geoseg.geo.chip_grid import ChipGrid
from geoseg.prediction.block_memory import blocks_warning
from geoseg.prediction.options import PredictOptions
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.scene import Scene
from geoseg.scene.scene_band import SceneBand, finest_grid

__all__ = ["oddities"]


def oddities(
    scene: Scene,
    bands: Sequence[SceneBand],
    radiometry: Radiometry,
    card: ModelCard,
    chips: ChipGrid,
    options: PredictOptions,
) -> Iterator[str]:
    """Warn of what is odd about the radiometry, the chips, the bands, the files and the CRS.

    Args:
        scene: what was opened.
        bands: of it, in the model's order.
        radiometry: from numbers to the card's quantity.
        card: the model's.
        chips: where they lie.
        options: the user's.

    Yields:
        Lines for the user.
    """
    margin = chips.margin
    yield from scene.notes
    if radiometry.doubt:
        yield radiometry.doubt
    if len(chips) > 1 and chips.size - chips.stride <= 2 * margin and margin:
        yield (
            f"overlap {chips.overlap} is at most twice the model's margin of {margin} px: "
            f"seams may show; give --overlap {2 * margin + 1} or more"
        )
    if options.bands is None:
        for band, wanted in zip(bands, card.bands, strict=True):
            if band.name != wanted:
                yield f"the scene's {band} serves as the model's {wanted}"
    yield from blocks_warning((*bands, *scene.cloud_bands), options.mem_limit)
    if finest_grid(bands).crs is None:
        yield "the scene has no CRS: polygons are in the file's own coordinates, areas unknown"
