"""Before the work: does the scene look like what the model was taught on?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.card import ModelCard
from geoseg.chips import ChipRow
from geoseg.gdal import block_cache
from geoseg.plan import Plan
from geoseg.radiometry import Radiometry
from geoseg.reader import SceneReader
from geoseg.window import Window

__all__ = [
    "BandStatistics",
    "plausibility_warnings",
    "preflight",
    "sample_bands",
    "sample_chips",
]

#: Windows are read on a lattice of SAMPLES x SAMPLES, each of SAMPLE_SIZE px.
SAMPLES = 5
SAMPLE_SIZE = 128


def sample_chips(plan: Plan, count: int) -> list[NDArray[Any]]:
    """Chips of a scene, spread evenly, as the network would see them.

    Args:
        plan: of the run.
        count: how many; fewer come where little was measured.

    Returns:
        Raw numbers (C, H, W) of each.

    Raises:
        SceneError: the scene can't be read.
    """
    chips = plan.chips
    rows, cols = chips.row_starts, chips.col_starts
    grid = Window(0, 0, plan.model_grid.height, plan.model_grid.width)
    found: list[NDArray[Any]] = []
    # Of twice as many places, since some may be without a measured pixel.
    tries = min(2 * count, len(chips))
    places = [round((i + 0.5) * len(chips) / tries - 0.5) for i in range(tries)]
    # First every second one, which are spread over the whole scene, too.
    with block_cache(plan.cache_bytes), plan.reader(plan.model_grid) as reader:
        for place in [*places[::2], *places[1::2]]:
            row, col = divmod(place, len(cols))
            window = Window(rows[row], cols[col], chips.chip_height, chips.chip_width)
            inside = window.intersection(grid)
            assert inside is not None
            pixels, valid = reader.read(inside)
            chip = ChipRow((window,), pixels, valid, window.col, inside).chip(window)
            if chip is not None:
                found.append(chip)
            if len(found) == count:
                break
    return found


@dataclass(frozen=True)
class BandStatistics:
    """Of a sample of valid pixels, in the model's quantity.

    Attributes:
        name: of the band.
        low: 1st percentile.
        median: 50th percentile.
        high: 99th percentile.
    """

    name: str
    low: float
    median: float
    high: float


def sample_bands(
    reader: SceneReader, radiometry: Radiometry, names: Sequence[str]
) -> tuple[list[BandStatistics], float]:
    """Read small windows all over the scene.

    Args:
        reader: of the chosen bands.
        radiometry: from numbers to the quantity.
        names: of the bands.

    Returns:
        One statistics a band (none where no sampled pixel was measured), and the share of sampled
        pixels that were.
    """
    kept: list[NDArray[Any]] = []
    seen = 0
    for window in _lattice(reader.grid.height, reader.grid.width):
        pixels, valid = reader.read(window)
        seen += valid.size
        kept.append(pixels[:, valid])
    values = np.concatenate(kept, axis=1)
    share = values.shape[1] / seen
    if values.shape[1] == 0:
        return [], share
    gain, bias = np.array(radiometry.gain), np.array(radiometry.bias)
    # In the file's own numbers, which are sorted several times faster. A gain may be negative.
    found = np.percentile(values, (1, 50, 99), axis=1).astype(np.float64) * gain + bias
    low, median, high = np.sort(found, axis=0)
    statistics = [
        BandStatistics(name, float(low[i]), float(median[i]), float(high[i]))
        for i, name in enumerate(names)
    ]
    return statistics, share


def _lattice(height: int, width: int) -> list[Window]:
    rows, cols = (_places(length) for length in (height, width))
    return [
        Window(r, c, min(SAMPLE_SIZE, height), min(SAMPLE_SIZE, width)) for r in rows for c in cols
    ]


def _places(length: int) -> list[int]:
    last = max(0, length - SAMPLE_SIZE)
    return sorted({round(last * i / (SAMPLES - 1)) for i in range(SAMPLES)})


def plausibility_warnings(card: ModelCard, statistics: Sequence[BandStatistics]) -> list[str]:
    """What is odd about a scene, in words that say what to do.

    Args:
        card: its ``plausible`` ranges hold the medians of sound scenes.
        statistics: of the scene's bands.
    """
    left_in = _offset_warning(card, statistics)
    outside = [
        (s, card.plausible[s.name])
        for s in statistics
        if s.name in card.plausible
        and not card.plausible[s.name][0] <= s.median <= card.plausible[s.name][1]
    ]
    if not outside or left_in:
        return left_in
    listed = ", ".join(
        f"{s.name} {s.median:.4g} (expected {low:g} to {high:g})" for s, (low, high) in outside
    )
    medians = np.array([s.median for s in statistics])
    if (medians > 5).mean() > 0.5:
        hint = "the numbers look like scaled integers: try --scale 0.0001"
        if medians.max() <= 255:
            hint = "the numbers look like 8-bit screen values, not reflectance: use the original"
    elif (medians < 0).any():
        hint = "an offset may have been taken off twice: try --offset 0 with the right --scale"
    elif (np.abs(medians) < 1e-3).all():
        hint = "the numbers look scaled twice: try --scale 1"
    else:
        hint = "check --scale, --offset, the order of --bands, and that the scene is cloud-free"
    return [f"the scene's median {card.quantity} is unusual: {listed}; {hint}"]


def _offset_warning(card: ModelCard, statistics: Sequence[BandStatistics]) -> list[str]:
    """The offset of 1000 that Sentinel-2 baseline 04.00 adds, left in.

    Land and water scenes have some dark pixels in some band; with the offset none is below 0.1.
    """
    if card.quantity != "reflectance" or not statistics:
        return []
    darkest = min(s.low for s in statistics)
    if 0.095 <= darkest <= 0.13:
        return [
            f"no band has reflectance below {darkest:.3f}: if this is Sentinel-2 of processing "
            f"baseline 04.00 or later, 1000 has been added to its numbers: give --scale 0.0001 "
            f"--offset -0.1"
        ]
    return []


def preflight(plan: Plan) -> list[str]:
    """What is odd about the scene's numbers."""
    with plan.reader(plan.grid) as reader:
        statistics, _ = sample_bands(reader, plan.radiometry, plan.card.bands)
    return plausibility_warnings(plan.card, statistics)
