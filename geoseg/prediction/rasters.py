"""The rasters of a prediction: what they are, the room that they need, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from geoseg.cards.legend import NOT_SURE_TAG
from geoseg.core.staging import Staging
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import (
    OutputError,
)
from geoseg.prediction.journal import StripStore
from geoseg.prediction.plan import Plan
from geoseg.prediction.report import raster_tags
from geoseg.prediction.run_log import RunLog
from geoseg.rasters.writing import (
    NODATA,
    PROBABILITY_STEPS,
    RasterSpec,
    check_creation_options,
    write_cog,
)

__all__ = [
    "check_disk",
    "explained",
    "output_bytes",
    "pixels_done",
    "raster_specs",
    "write_rasters",
]


def pixels_done(store: StripStore) -> int:
    """Count the output's pixels in finished strips."""
    windows = (strip.window for strip in store.all())
    return sum(window.height * window.width for window in windows if window is not None)


def write_rasters(
    plan: Plan, store: StripStore, staging: Staging, overviews: Future[list[Path]], log: RunLog
) -> None:
    """Make the outputs' rasters from the finished strips."""
    store.check_all_there()
    outputs = plan.outputs
    finals = {
        "raster": outputs.raster,
        "probs": outputs.probs,
        "confidence": outputs.confidence,
        "agreement": outputs.agreement,
    }
    with log.clock("cog"), store.few_open():
        for name, final in finals.items():
            if final is not None:
                halved = overviews.result() if name == "raster" else ()
                write_cog(store.mosaic(name, halved), staging.path(final), store.specs[name])
                store.verify(name, staging.path(final))


@contextmanager
def explained(final: Path) -> Iterator[None]:
    """Raise what a file can't be written for in words of geoseg's own."""
    try:
        yield
    except OSError as error:
        raise explain_write_error(error, final) from error


def raster_specs(plan: Plan) -> dict[str, RasterSpec]:
    """Describe the rasters that are kept; polygons need the confidence, too."""
    outputs, card = plan.outputs, plan.card
    names = tuple(c.name for c in card.classes)
    dtype = plan.options.probs_dtype
    quantized = dtype == "uint8"
    raster = RasterSpec(
        plan.grid,
        "uint8",
        NODATA,
        ("land cover",),
        classes=plan.legend,
        tags=raster_tags(plan) | _legend_tags(plan),
        resampling="MODE",
        creation_options=check_creation_options(plan.options.creation_options),
    )
    probability = replace(
        raster,
        dtype=dtype,
        nodata=NODATA if quantized else float("nan"),
        descriptions=("confidence",),
        scale=1 / PROBABILITY_STEPS if quantized else 1.0,
        classes=(),
        tags=raster_tags(plan),
        resampling="AVERAGE",
    )
    specs = {"raster": raster}
    if outputs.confidence is not None or outputs.vector is not None:
        specs["confidence"] = probability
    if outputs.probs is not None:
        specs["probs"] = replace(probability, descriptions=names)
    if outputs.agreement is not None:
        specs["agreement"] = replace(probability, descriptions=("agreement",))
    return specs


def _legend_tags(plan: Plan) -> dict[str, str]:
    """Name what is not sure among the classes: it is no class of the probabilities' rasters."""
    own = plan.not_sure
    if own is None:
        return {}
    return {
        "GEOSEG_CLASSES": json.dumps({c.id: c.name for c in plan.legend}),
        NOT_SURE_TAG: str(own.id),
    }


def output_bytes(plan: Plan) -> dict[str, int]:
    """Compute each raster's size without compression, by its path."""
    outputs, pixels = plan.outputs, plan.grid.height * plan.grid.width
    item = 1 if plan.options.probs_dtype == "uint8" else 4
    sizes = {
        outputs.raster: 1,
        outputs.probs: item * len(plan.card.classes),
        outputs.confidence: item,
        outputs.agreement: item,
        outputs.border: 1,
        outputs.applicability: item,
    }
    return {str(path): pixels * size for path, size in sizes.items() if path is not None}


def check_disk(plan: Plan, store: StripStore, staging: Staging) -> None:
    """Refuse a run that can't fit even when its outputs are well compressed.

    Raises:
        OutputError: there is no room.
    """
    # Class rasters compress to an eighth or less, probabilities to about a third.
    need = sum(output_bytes(plan).values()) // 8
    # What of the strips is not packed, and not there yet; and the overviews.
    plain = sum(spec.is_plain for spec in store.specs.values())
    pixels = plan.grid.height * plan.grid.width
    need += plain * (pixels - pixels_done(store)) + pixels // 3
    if plan.outputs.border is not None:  # it has strips and overviews of its own
        need += pixels + pixels // 3
    free = staging.free_bytes()
    if free < need:
        raise OutputError(
            f"the run needs about {need / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; free "
            f"some space, or choose another folder with -o"
        )
