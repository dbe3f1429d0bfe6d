"""What is odd about a plan: said before the run, each in a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoseg.prediction.plan import Plan

__all__ = ["oddities"]


def oddities(plan: Plan) -> Iterator[str]:
    """Warn of what is odd about the radiometry, the chips, the bands and the CRS.

    Args:
        plan: of the run.

    Yields:
        Lines for the user.
    """
    chips, margin = plan.chips, plan.chips.margin
    yield from plan.scene.notes
    if plan.radiometry.doubt:
        yield plan.radiometry.doubt
    if len(chips) > 1 and chips.size - chips.stride <= 2 * margin and margin:
        yield (
            f"overlap {plan.options.overlap} is at most twice the model's margin of {margin} px: "
            f"seams may show; give --overlap {2 * margin + 1} or more"
        )
    if plan.options.bands is None:
        for band, wanted in zip(plan.bands, plan.card.bands, strict=True):
            if band.name != wanted:
                yield f"the scene's {band} serves as the model's {wanted}"
    if plan.grid.crs is None:
        yield "the scene has no CRS: polygons are in the file's own coordinates, areas unknown"
