"""Where a run's outputs are staged; of a GeoPackage that is there already the other layers stay."""

from __future__ import annotations

from geoseg.core.staging import Staging
from geoseg.polygons.formats.layers import OtherLayers
from geoseg.prediction.plan import Plan

__all__ = ["other_layers", "staged"]

#: The layer that polygons are written into.
LAYER = "landcover"


def other_layers(plan: Plan) -> OtherLayers | None:
    """Find the layers that a plan's polygons are written beside; None where there are none.

    Raises:
        OutputError: the file has a layer of the same name that is not to be replaced.
    """
    if plan.outputs.vector is None:
        return None
    return OtherLayers.of(
        plan.outputs.vector, LAYER, overwrite=plan.options.overwrite,
        otherwise="another name with --vector",
    )  # fmt: skip


def staged(plan: Plan) -> Staging:
    """Stage a plan's outputs.

    Raises:
        OutputError: one exists and is not to be replaced, or geoseg did not make it.
    """
    others = other_layers(plan)
    replaced = [] if others is None else [others.path]
    return Staging(plan.outputs.all(), overwrite=plan.options.overwrite, replaced=replaced)
