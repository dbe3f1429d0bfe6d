"""Before the work: does the scene look like what the model was taught on?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import ModelCard
from geoseg.core.gdal import block_cache
from geoseg.errors import RadiometryError
from geoseg.geo.window import Window
from geoseg.prediction.applicability import untaught_warnings
from geoseg.prediction.block_memory import release_decoders
from geoseg.prediction.chips import ChipRow
from geoseg.prediction.cloud_doubts import cloud_warnings
from geoseg.prediction.likeness import (
    check_no_picture,
    likelier_warnings,
    nodata_warnings,
    unlike_warnings,
)
from geoseg.prediction.plan import Plan
from geoseg.scene.radiometry import TELL, Radiometry, convention
from geoseg.scene.survey import Survey

__all__ = [
    "BandStatistics",
    "band_statistics",
    "plausibility_warnings",
    "preflight",
    "sample_chips",
]

#: Snow and clouds are little above 1, and the darkest water is brighter than this: medians of
#: most bands beyond are no reflectance.
MOST_REFLECTANCE, LEAST_REFLECTANCE = 5.0, 1e-4
#: What is advised where no option makes an unusual scene a sound one.
UNSURE = "check --scale, --offset, the order of --bands, and that the scene is cloud-free"
#: Corrected for the air, dark water comes out a little below 0; medians below this are no ground.
BELOW_ZERO = -0.05


def sample_chips(plan: Plan, count: int, *, of_all: bool = False) -> list[NDArray[Any]]:
    """Chips of a scene, spread evenly, as the network would see them.

    Args:
        plan: of the run.
        count: how many; fewer come where little was measured.
        of_all: take them from all over the scene, whatever part of it is wanted.

    Returns:
        Raw numbers (C, H, W) of each.

    Raises:
        SceneError: the scene can't be read.
    """
    chips = plan.chips.of_all if of_all else plan.chips
    rows, cols, seen = chips.row_starts, chips.col_starts, chips.seen
    # Of twice as many places, since some may be without a measured pixel.
    places = dict(enumerate(_spread(len(rows), len(cols), 2 * count)))
    found: dict[int, NDArray[Any]] = {}
    with block_cache(plan.cache_bytes), plan.ground_reader() as reader:
        while places and len(found) < count:
            some = list(places)[: count - len(found)]
            # From the top, as files are decoded: whoever goes to and fro decodes all again.
            for number in sorted(some, key=places.__getitem__):
                row, col = places.pop(number)
                window = Window(rows[row], cols[col], chips.chip_height, chips.chip_width)
                inside = window.intersection(seen)
                assert inside is not None, "a chip sees some ground"
                pixels, valid = reader.read(inside.shifted(-seen.row, -seen.col))
                alone = ChipRow(row, (window,), pixels, valid, inside.row, inside.col, None)
                chip = alone.chip(window)
                if chip is not None:
                    found[number] = chip
    release_decoders(plan.read_bands)
    return [found[number] for number in sorted(found)]


def _spread(rows: int, cols: int, count: int) -> list[tuple[int, int]]:
    """Places in a lattice, each once, of which the first few are spread over all of it, too.

    They follow the additive sequence of the plastic number, whose first points, however many, lie
    evenly in rows and in columns (Roberts 2018, the R2 sequence). Every so-and-so-many-th chip
    would come from a few columns alone where that number and the columns have a common factor.
    """
    found: dict[tuple[int, int], None] = {}
    plastic = 1.324717957244746
    for i in range(16 * count):
        down, across = (0.5 + i / plastic) % 1, (0.5 + i / plastic**2) % 1
        found[int(rows * down), int(cols * across)] = None
        if len(found) == min(count, rows * cols):
            break
    return list(found)


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


def band_statistics(
    survey: Survey, radiometry: Radiometry, names: Sequence[str]
) -> list[BandStatistics]:
    """Describe the numbers of a scene.

    Args:
        survey: of the chosen bands.
        radiometry: from numbers to the quantity.
        names: of the bands.

    Returns:
        One statistics a band; none where no sampled pixel was measured.
    """
    values = survey.measured
    if values.shape[1] == 0:
        return []
    gain, bias = np.array(radiometry.gain), np.array(radiometry.bias)
    # In the file's own numbers, which are sorted several times faster. A gain may be negative.
    found = np.percentile(values, (1, 50, 99), axis=1).astype(np.float64) * gain + bias
    low, median, high = np.sort(found, axis=0)
    return [
        BandStatistics(name, float(low[i]), float(median[i]), float(high[i]))
        for i, name in enumerate(names)
    ]


def _check_reflectance(plan: Plan, statistics: Sequence[BandStatistics]) -> None:
    """Refuse numbers that can't be reflectance: a map of them is wrong, whatever it looks like.

    What the user says with --scale is believed, and only warned of.

    Args:
        plan: of the run.
        statistics: of its bands, in the model's quantity.

    Raises:
        RadiometryError: most medians are far above 1 or as good as nothing, or half are below 0.
    """
    if plan.options.scale is not None or not statistics:
        return
    medians = np.array([s.median for s in statistics])
    what = _impossible(medians)
    if what is None:
        return
    seen = plan.survey.all_measured
    if seen.size and seen.min() == seen.max():
        raise RadiometryError(
            f"{plan.scene.name}: all pixels that were looked at are {seen.min():.8g} in all bands, "
            f"and no ground has that as reflectance: nothing was measured, as it seems; give "
            f"another scene, or --src-nodata {seen.min():.8g} if some part of it was"
        )
    listed = ", ".join(f"{s.name} {s.median:.4g}" for s in statistics)
    gain, bias = np.array(plan.radiometry.gain), np.array(plan.radiometry.bias)
    raise RadiometryError(
        f"{plan.scene.name}: the median of {what} ({listed}), and reflectance is 0 "
        f"to 1, so these are other numbers ({plan.radiometry.source}); "
        f"{_what_to_say(plan, (medians - bias) / gain)}"
    )


def _impossible(medians: NDArray[np.float64]) -> str | None:
    """Find out of which bands the medians lie where, if no ground has such reflectance."""
    if (medians > MOST_REFLECTANCE).mean() > 0.5:
        return f"most bands is above {MOST_REFLECTANCE:g}"
    if (medians < BELOW_ZERO).mean() >= 0.5:
        return f"at least half of the bands is below {BELOW_ZERO:g}"
    # All 0 is a frame that nobody declared, not the ground.
    if ((medians > 0) & (medians < LEAST_REFLECTANCE)).mean() > 0.5:
        return f"most bands is below {LEAST_REFLECTANCE:g}"
    return None


def _what_to_say(plan: Plan, numbers: NDArray[np.float64]) -> str:
    """The options that make the medians of a file's numbers those of a sound scene."""
    known = convention(plan.scene, plan.bands)
    if known is not None and _is_sound(plan.card, numbers * known.scale + known.offset):
        return f"{known.why}: give {known.options}"
    return _by_numbers(plan.card, numbers, plan.options.offset) or TELL


def _by_numbers(card: ModelCard, numbers: NDArray[np.float64], offset: float | None) -> str:
    """What the medians alone say of a file's numbers, with the options for it; "" if nothing.

    Args:
        card: of the model.
        numbers: medians of the bands, as they stand in the file.
        offset: that the user gave.
    """
    if np.all((numbers > 0) & (numbers <= 255)) and np.any(numbers > MOST_REFLECTANCE):
        return (
            "if they are percent, give --scale 0.01; if they are 8-bit values for the screen, use "
            "the original product"
        )
    for scale in (1.0, 1e-4, 1e4):
        if _is_sound(card, numbers * scale + (offset or 0.0)):
            also = "" if offset is None else f" --offset {offset:g}"
            times = "" if scale == 1 else f" x {1 / scale:g}"
            return f"they look like reflectance{times}: give --scale {scale:g}{also}"
    return ""


def _is_sound(card: ModelCard, medians: NDArray[np.float64]) -> bool:
    """Whether these may be the medians of a scene's reflectance, band by band."""
    ranges = [card.plausible.get(name, (0.0, 1.0)) for name in card.bands]
    inside = [low <= m <= high for m, (low, high) in zip(medians, ranges, strict=True)]
    # A scene may be unusual in some bands.
    return bool(np.mean(inside) > 0.5 and medians.min() > -0.2 and medians.max() < 1.5)


def plausibility_warnings(
    card: ModelCard, statistics: Sequence[BandStatistics], radiometry: Radiometry | None = None
) -> list[str]:
    """Describe what is odd about a scene, in words that say what to do.

    Args:
        card: its ``plausible`` ranges hold the medians of sound scenes.
        statistics: of the scene's bands.
        radiometry: what they were made with; None for reflectance x 10000.
    """
    left_in = _offset_warning(card, statistics, radiometry)
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
    hint = _hint(card, np.array([s.median for s in statistics]), radiometry)
    return [f"the scene's median {card.quantity} is unusual: {listed}; {hint}"]


def _hint(card: ModelCard, medians: NDArray[np.float64], radiometry: Radiometry | None) -> str:
    """What may be wrong with these medians; options are named if they make them those of a scene.

    Bands that are in a wrong order, clouds or snow make a scene unusual in some bands only.
    """
    count = len(medians)
    gain, bias = np.full(count, 1e-4), np.zeros(count)
    if radiometry is not None:
        gain, bias = np.array(radiometry.gain), np.array(radiometry.bias)
    if card.quantity != "reflectance" or _is_sound(card, medians):
        return UNSURE
    same = np.all(gain == gain[0]) and np.all(bias == bias[0])
    if same and (medians < 0).any() and _is_sound(card, medians + 0.1):
        offset = round(float(bias[0]) + 0.1, 6)
        return (
            f"an offset may have been taken off twice: try --scale {gain[0]:g} --offset {offset:g}"
        )
    return _by_numbers(card, (medians - bias) / gain, None) or UNSURE


def _offset_warning(
    card: ModelCard, statistics: Sequence[BandStatistics], radiometry: Radiometry | None
) -> list[str]:
    """The offset of 1000 that Sentinel-2 baseline 04.00 adds, left in.

    Land and water scenes have some dark pixels in some band; with the offset none is below 0.1, but
    for a little noise: of 82 real scenes the darkest with it are at 0.100, and none without it lies
    between the bounds.
    """
    if card.quantity != "reflectance" or not statistics:
        return []
    darkest = min(s.low for s in statistics)
    if 0.098 <= darkest <= 0.13:
        gain, bias = (radiometry.gain[0], radiometry.bias[0]) if radiometry else (1e-4, 0.0)
        if radiometry and len({*radiometry.gain}) + len({*radiometry.bias}) > 2:
            return []  # no one scale and offset says it, and Sentinel-2 has one for all bands
        # Floating-point numbers that are reflectance already are not scaled once more.
        scale = "" if gain == 1 else f"--scale {gain:g} "
        return [
            f"no band has reflectance below {darkest:.3f}: if this is Sentinel-2 of processing "
            f"baseline 04.00 or later, 1000 has been added to its numbers: give {scale}"
            f"--offset {round(bias - 0.1, 6):g}"
        ]
    return []


def preflight(plan: Plan) -> list[str]:
    """Look for what is odd about the scene's numbers.

    Raises:
        RadiometryError: they can't be what the model takes.
    """
    release_decoders(plan.read_bands)  # of the survey
    statistics = band_statistics(plan.survey, plan.radiometry, plan.card.bands)
    found = plausibility_warnings(plan.card, statistics, plan.radiometry)
    if plan.card.quantity == "reflectance":
        _check_reflectance(plan, statistics)
        check_no_picture(plan)
        # A scale or an offset that makes the scene a sound one explains an odd order, too.
        if not found or UNSURE in found[0]:
            more = likelier_warnings(plan) or cloud_warnings(plan)
            found = more or found or unlike_warnings(plan)
    # One line of a scene: what is wrong with its numbers explains that it is strange.
    found = found or untaught_warnings(plan)
    return [*nodata_warnings(plan), *found]
