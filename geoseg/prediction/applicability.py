"""How far a scene is like what its model was taught on: a warning, and a raster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.taught import UNLIKE
from geoseg.core.staging import Staging
from geoseg.errors import UsageError
from geoseg.geo.window import Window
from geoseg.prediction import later_raster
from geoseg.prediction.plan import Plan
from geoseg.prediction.rasters import raster_specs
from geoseg.prediction.run_log import RunLog
from geoseg.rasters.writing import NODATA, PROBABILITY_STEPS, RasterSpec, encode_probability

__all__ = ["check_taught", "untaught_warnings", "write_applicability"]

NAME = "applicability"
#: The share of the sampled pixels that are unlike the taught ones from which on it is said: of the
#: scenes that landcover-ms was taught on none has more than 0.13, and of those held out 0.32.
MOST_UNLIKE = 0.5


def check_taught(plan: Plan) -> None:
    """Refuse a raster of what is not known.

    Raises:
        UsageError: it is asked for, and the model's card does not say what it was taught on.
    """
    if plan.outputs.applicability is not None and plan.card.taught is None:
        raise UsageError(
            f"--applicability compares the scene with what the model was taught on, and the card "
            f"of {plan.card.name} does not say; geoseg models taught MODEL RECIPE --write adds it"
        )


def untaught_warnings(plan: Plan) -> list[str]:
    """Describe a scene much of which is unlike what the model was taught on.

    Args:
        plan: of the run.

    Returns:
        A line, or none.
    """
    taught, values = plan.card.taught, plan.survey.quantity(plan.radiometry)
    if taught is None or not values.size:
        return []
    share = float((taught.applicability(values, plan.card.quantity) < UNLIKE).mean())
    if share < MOST_UNLIKE:
        return []
    return [
        f"{share:.0%} of the scene looks like nothing that {plan.card.name} was taught on, so that "
        f"its classes there may mean little: --applicability FILE shows where, and labels of your "
        f"own (geoseg evaluate) how right it is"
    ]


def write_applicability(
    plan: Plan, raster: Path, staging: Staging, cancelled: threading.Event, log: RunLog
) -> None:
    """Write the raster of a run whose class raster is finished.

    Each pixel of the scene's own grid is compared by its bands' numbers alone.

    Args:
        plan: of the run, which asks for it.
        raster: the class raster, which says where nodata is.
        staging: of the plan's outputs.
        cancelled: set when the run ends before its time.
        log: that clocks and reports.

    Raises:
        OutputError: the disk is full or fails.
        SceneError: the scene can't be read.
        StoppedError: the run has ended.
    """
    final = plan.outputs.applicability
    assert final is not None, "of a run that asks for it"
    later_raster.write_later(
        plan, NAME, final, _spec(plan), _strips, raster, staging, cancelled, log
    )


def _spec(plan: Plan) -> RasterSpec:
    """Like the raster of the confidence, whether that is written or not."""
    like, dtype = raster_specs(plan)["raster"], plan.options.probs_dtype
    quantized = dtype == "uint8"
    return replace(
        like,
        dtype=dtype,
        nodata=NODATA if quantized else float("nan"),
        descriptions=(NAME,),
        scale=1 / PROBABILITY_STEPS if quantized else 1.0,
        classes=(),
        resampling="AVERAGE",
    )


def _strips(
    plan: Plan, cols: tuple[int, int], numbers: tuple[int, int]
) -> Iterator[tuple[Window, NDArray[np.uint8] | NDArray[np.float32]]]:
    """Compute strips of a lane from the top, each (H, W) as it is stored."""
    taught, radiometry = plan.card.taught, plan.radiometry
    assert taught is not None, "was checked"
    gain, bias = (np.array(v, np.float64)[:, None] for v in (radiometry.gain, radiometry.bias))
    with plan.reader(plan.grid) as reader:
        for top in range(
            numbers[0] * later_raster.STRIP,
            min(numbers[1] * later_raster.STRIP, plan.grid.height),
            later_raster.STRIP,
        ):
            height = min(later_raster.STRIP, plan.grid.height - top)
            window = Window(top, cols[0], height, cols[1] - cols[0])
            pixels, valid = reader.read(window)
            share = np.zeros(valid.shape, np.float32)
            values = pixels[:, valid].astype(np.float64) * gain + bias
            share[valid] = taught.applicability(values, plan.card.quantity)
            yield window, encode_probability(share, valid, plan.options.probs_dtype)
