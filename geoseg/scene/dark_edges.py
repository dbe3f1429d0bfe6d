"""Black, or one number alone, along a scene's edge: fill that nobody declared, or ground?

It is asked about, not decided: no number distinguishes night water from a frame. Of 494 real files
these rules ask about thirteen, which all have an undeclared frame, and about no dark or bright
picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geoseg.core.wording import percent
from geoseg.scene.scene_band import SceneBand
from geoseg.scene.survey import DEPTH, Survey

__all__ = ["NEAR_BLACK", "said_of_dark_edges", "said_of_flat_edges"]

#: Of 8 bits; as GDAL's nearblack has it.
NEAR_BLACK = 15
#: So many black pixels in a row along the edge are no shadow.
RUN = 32
#: A collar is as good as black, but for what JPEG makes beside the picture: more than half of its
#: near-black pixels on a side are at most 1 (of frames 91 to 100 %, of dark pictures up to 18 %).
BLACK, MOST = 1, 0.5
#: A frame of exact zeros has less near it that is not: then it needs no --nearblack.
CLEAN = 0.995
#: What is so near a fill, in shares of it, is mostly the fill itself; around what is too bright for
#: the numbers much is nearly so.
NEAR, ALONE = 0.06, 0.9
#: Pictures of more than 8 bits have no ground that is 0 in all bands: this share of the scene is
#: asked about wherever it lies.
SOME, LEAST = 0.001, 64


@dataclass
class _Side:
    """Dark pixels beside long runs of such on one side of the scene."""

    near: int = 0
    black: int = 0
    zero: int = 0


def said_of_dark_edges(seen: Survey, bands: Sequence[SceneBand]) -> list[str]:
    """Ask about black along the edge that no tag declares.

    Args:
        seen: of the bands, with what is declared taken out.
        bands: that are read.

    Returns:
        A line with the options that settle it, or none.
    """
    zeros = _share(seen, 0)
    found = any(side.zero for side in _sides(seen, 0))
    declared = next((band.nodata for band in bands if band.nodata is not None), None)
    instead = "" if declared is None else f" (in place of the file's {declared:g})"
    if all(band.dtype == "uint8" for band in bands):
        frame = [s for s in _sides(seen, NEAR_BLACK) if s.black > MOST * s.near]
        if sum(s.zero for s in frame) < CLEAN * sum(s.near for s in frame):
            return [
                f"along the scene's edge lies a near-black collar, about "
                f"{percent(_share(seen, BLACK))} of the scene, which no tag declares, so that it "
                f"is mapped as ground; --nearblack makes it nodata"
            ]
    elif zeros >= SOME and zeros * seen.valid.size >= LEAST:
        found = True
    if not found:
        return []
    # What lies along the edge of a picture alone: shadows amid it may be black, too.
    collar = "--nearblack, or " if all(band.dtype == "uint8" for band in bands) else ""
    return [
        f"{percent(zeros)} of the scene is 0 in all bands, which no tag declares, so that it is "
        f"mapped as ground; if it was not measured, give {collar}--src-nodata 0{instead}; if it "
        f"was, --src-nodata nan"
    ]


def _share(seen: Survey, most: int) -> float:
    """Of the scene, what is at most this in all bands and counts as measured."""
    if not seen.valid.any():
        return 0.0
    # Below 0 it is something else: dark water after the correction for the air.
    dark = ((seen.pixels >= 0) & (seen.pixels <= most)).all(axis=0)
    return float((dark & seen.valid).mean())


def _sides(seen: Survey, most: int) -> list[_Side]:
    """Count pixels beside long runs, on the scene's outermost pixels, of what is at most this.

    Args:
        seen: of the scene.
        most: in all bands.
    """
    sides = [_Side() for _ in range(4)]
    for number, pixels, valid in seen.from_edges(DEPTH):
        # Below 0 it is something else.
        dark = ((pixels >= 0) & (pixels <= most)).all(axis=0) & valid
        for first, end in _runs(dark[0]):
            if end - first < min(RUN, dark.shape[1]):
                continue
            values = pixels[:, :, first:end][:, dark[:, first:end]]
            sides[number].near += values.shape[1]
            sides[number].black += int((values <= BLACK).all(axis=0).sum())
            sides[number].zero += int((values == 0).all(axis=0).sum())
    return sides


def said_of_flat_edges(seen: Survey, bands: Sequence[SceneBand]) -> list[str]:
    """Ask about one number, the same in all bands, along the edge: a white collar, or a fill of 1.

    Args:
        seen: of the bands, with what is declared, and 0, taken out.
        bands: that are read.

    Returns:
        A line with the options that settle it, or none.
    """
    found: dict[float, int] = {}
    for _, pixels, valid in seen.from_edges(DEPTH):
        flat = (pixels == pixels[:1]).all(axis=0) & valid & (pixels[0] != 0)
        line = pixels[0, 0]
        for first, end in _runs(flat[0]):
            ends = [first, *(np.flatnonzero(np.diff(line[first:end])) + first + 1), end]
            for left, right in pairwise(ends):
                beside = (pixels[0, :, left:right] == line[left]) & flat[:, left:right]
                if right - left >= min(RUN, len(line)) and beside.mean() >= CLEAN:
                    found[float(line[left])] = found.get(float(line[left]), 0) + right - left
    if not found:
        return []
    number = max(found, key=lambda each: found[each])
    exact, near = (_around(seen, number, slack) for slack in (0.0, NEAR * abs(number)))
    if exact.sum() < ALONE * near.sum():
        return []  # sand and snow that are too bright for the numbers, amid others nearly so
    share = float(exact.mean())
    declared = next((band.nodata for band in bands if band.nodata is not None), None)
    instead = "" if declared is None else f" (in place of the file's {declared:g})"
    black = number <= NEAR_BLACK and all(band.dtype == "uint8" for band in bands)
    collar = "--nearblack, or " if black else ""
    return [
        f"along the scene's edge all bands are {number:.8g}, {percent(share)} of the scene, and no "
        f"tag declares it, so that it is mapped as ground; if it was not measured, give "
        f"{collar}--src-nodata {number:.8g}{instead}; if it was, --src-nodata nan"
    ]


def _around(seen: Survey, number: float, slack: float) -> NDArray[np.bool_]:
    """Which of the even samples are measured, and near a number in all bands."""
    pixels = seen.pixels.astype(np.float64)
    near: NDArray[np.bool_] = (abs(pixels - number) <= slack).all(axis=0) & seen.valid
    return near


def _runs(line: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First places of runs of True, and the first ones after."""
    if not line.any():
        return []
    steps = np.diff(np.concatenate([[False], line, [False]]).astype(np.int8))
    return list(zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True))
