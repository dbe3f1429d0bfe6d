"""Seams: does a class raster change more often where its chips met than elsewhere?

Between any two neighbouring columns of pixels there is a line, and a share of the pixel pairs
across it differ in their class. What is on the ground knows nothing of the chips, so that lines
where one chip hands over to the next should have the same share as the others. The same holds for
rows. What is kept is four numbers a line, so memory does not depend on the raster's area.

Of a raster of any program, the same counts show lattices of other periods:
:mod:`~geoseg.evaluation.lattice`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.names import public_name
from geoseg.errors import UsageError
from geoseg.evaluation.lattice import tally
from geoseg.evaluation.lattice_report import describe_lattices
from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.window import Window
from geoseg.rasters.class_raster import ClassRaster, open_class_raster
from geoseg.scene.sources import Rules

__all__ = ["Seams", "check_seams"]

#: Seams are reported where lines change this much more often than the others ...
RATIO = 1.1
#: ... and by more than this many standard errors. Eight kinds of lines are looked at, and shares
#: of lines have long tails, so that two or three would often be chance.
ERRORS = 4.0
#: Fewer lines than these don't show what is usual.
FEWEST_LINES = 16

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Seams:
    """What a search for seams found.

    Attributes:
        verdict: ``seams``, ``none``, or ``unknown`` where there is nothing to compare; where it
            isn't known where chips lay, ``lattice`` in place of ``seams``.
        message: the same in words.
        report: as JSON has it.
    """

    verdict: str
    message: str
    report: dict[str, Any]


def check_seams(
    raster: str | Path,
    *,
    size: int | None = None,
    overlap: int | None = None,
    multiple: int = 1,
    input_root: str | Path | Sequence[str | Path] = (),
    allow_vrt: str = "local",
) -> Seams:
    """Compare how often classes change where chips meet with how often they do elsewhere.

    Args:
        raster: a class raster. That of ``geoseg predict`` says itself where its chips lay. Of
            others, without size and overlap, only lattices are looked for.
        size: chip side, px, for the map of another program.
        overlap: px that neighbouring chips share, total.
        multiple: chip sides and places are multiples of this, px.
        input_root: folders into which files may point, besides their own.
        allow_vrt: ``any`` lets files point anywhere.

    Returns:
        A verdict, and in its report for columns and for rows: the share of changes across the lines
        where the next chip ``begins`` to count, in the ``middle`` of the overlap, where the chip
        before ``ends`` to, across all lines from the first to the last of these (``blend``), and
        across the others (``interior``). ``lattice`` has what recurs at other periods.

    Raises:
        UsageError: the chips lay on another grid: the scene was resampled for the network, or the
            raster was cut out of a larger one.
        SceneError: the raster can't be read.
    """
    if (size is None) != (overlap is None):
        raise UsageError("--size and --overlap go together; give both, or none")
    with open_class_raster(raster, rules=Rules.of(input_root, allow_vrt)) as opened:
        if size is None or overlap is None:
            grid = _from_tags(opened)
        else:
            height, width = opened.grid.height, opened.grid.width
            grid = ChipGrid(height, width, size, overlap, multiple)
        columns, rows = _count(opened)
    lattice = describe_lattices({"columns": columns.counts(), "rows": rows.counts()})
    if grid is None:
        verdict, message = lattice["verdict"], lattice["message"]
        report = {"raster": public_name(raster), "chips": None, "axes": {}, "lattice": lattice}
        return Seams(verdict, message, report | {"verdict": verdict, "message": message})
    axes = {
        "columns": _axis(grid.col_starts, grid.chip_width, grid.weightless, columns),
        "rows": _axis(grid.row_starts, grid.chip_height, grid.weightless, rows),
    }
    verdict, message = _verdict(axes)
    report = {
        "raster": public_name(raster),
        "chips": {
            "size": grid.size,
            "overlap": grid.overlap,
            "stride": grid.stride,
            "margin": grid.margin,
            "total": len(grid),
        },
        "axes": axes,
        "lattice": lattice,
        "verdict": verdict,
        "message": message,
    }
    return Seams(verdict, message, report)


def _from_tags(raster: ClassRaster) -> ChipGrid | None:
    """Read the chip grid, as ``geoseg predict`` left it; None where there is none.

    Raises:
        UsageError: they are of another grid of pixels.
    """
    text = raster.dataset.tags().get("GEOSEG_CHIPS")
    if text is None:
        return None
    try:
        chips = json.loads(text)
        ground = chips.pop("ground")
        grid = ChipGrid(**chips, ground=ground and Window(**ground))
        len(grid)
    except (ValueError, LookupError, TypeError, AttributeError, UsageError) as error:
        raise UsageError(
            f"{raster.path}: its tag GEOSEG_CHIPS is {text[:60]!r}, which is no chip grid; give "
            f"--size and --overlap"
        ) from error
    height, width = raster.grid.height, raster.grid.width
    if (grid.height, grid.width) != (height, width):
        raise UsageError(
            f"{raster.path} is {height}x{width} px, and its chips lay on a grid of {grid.height}x"
            f"{grid.width}: the scene was resampled for the network, or this is a part of a map. "
            f"Chips then begin and end within pixels; check a whole map of a scene whose gsd "
            f"the model takes as it is"
        )
    return grid


@dataclass(frozen=True)
class _Lines:
    """How often classes change across each line along an axis; line k is between k - 1 and k.

    Attributes:
        changes: pairs of pixels across it that differ, (length,).
        pairs: pairs that both have a class, (length,); 0 for number 0.
        alone: pixels of row (or column) k that differ from both neighbours across its lines,
            which are alike, (length,).
        triples: pixels that have a class, as both neighbours have, (length,).
    """

    changes: IntArray
    pairs: IntArray
    alone: IntArray
    triples: IntArray

    @classmethod
    def none(cls, length: int) -> _Lines:
        """Begin to count."""
        return cls(*(np.zeros(length, np.int64) for _ in range(4)))

    def counts(self) -> dict[str, tuple[IntArray, IntArray]]:
        """By kind, as lattices are looked for."""
        return {"lines": (self.changes, self.pairs), "alone": (self.alone, self.triples)}


def _count(raster: ClassRaster) -> tuple[_Lines, _Lines]:
    """Count changes across columns' and rows' lines, in one pass."""
    columns, rows = _Lines.none(raster.grid.width), _Lines.none(raster.grid.height)
    above: tuple[NDArray[Any], NDArray[np.bool_]] | None = None
    for strip in raster.strips():
        ids, valid, top = strip.ids, strip.valid, strip.top
        found = tally(ids.T, valid.T)
        columns.changes[1:] += found[0]
        columns.pairs[1:] += found[1]
        columns.alone[1:-1] += found[2]
        columns.triples[1:-1] += found[3]
        if above is not None:
            ids, valid = np.vstack([above[0], ids]), np.vstack([above[1], valid])
            top -= len(above[0])
        found = tally(ids, valid)
        rows.changes[top + 1 : strip.bottom], rows.pairs[top + 1 : strip.bottom] = found[:2]
        inner = slice(top + 1, top + 1 + len(found[2]))
        rows.alone[inner], rows.triples[inner] = found[2:]
        above = ids[-2:], valid[-2:]
    return columns, rows


def _axis(starts: Sequence[int], chip: int, margin: int, lines: _Lines) -> dict[str, Any]:
    """Compute the shares of changes along one axis."""
    length = len(lines.pairs)
    kinds: dict[str, list[int]] = {"begins": [], "middle": [], "ends": [], "blend": []}
    for left, right in pairwise(starts):
        shared = left + chip - right
        # As in stitch.axis_weights.
        inner = max(0, min(margin, (shared - 1) // 2))
        begin, end = right + inner, left + chip - inner
        kinds["begins"].append(begin)
        kinds["middle"].append((begin + end) // 2)
        kinds["ends"].append(end)
        kinds["blend"].extend(range(begin, end + 1))
    interior = np.ones(length, np.bool_)
    interior[[line for line in kinds["blend"] if 0 <= line < length]] = False
    interior &= lines.pairs > 0
    usual = _share(lines, np.flatnonzero(interior))
    spread = None
    if usual is not None and interior.sum() >= FEWEST_LINES:
        pairs = lines.pairs[interior]
        shares = lines.changes[interior] / pairs
        spread = math.sqrt(float(np.average((shares - usual) ** 2, weights=pairs)))
    found: dict[str, Any] = {
        "seams": len(starts) - 1,
        "interior": {"lines": int(interior.sum()), "share": usual, "spread": spread},
    }
    for kind, numbers in kinds.items():
        there = np.unique([n for n in numbers if 0 <= n < length and lines.pairs[n]]).astype(
            np.int64
        )
        share = _share(lines, there)
        entry: dict[str, Any] = {"lines": len(there), "share": share}
        entry |= {"ratio": None, "stands_out": None}
        if share is not None and usual is not None and spread is not None:
            # Lines of one seam are alike, so each seam counts once.
            error = spread / math.sqrt(min(len(there), len(starts) - 1))
            entry["ratio"] = share / usual if usual else None
            entry["stands_out"] = share > RATIO * usual and share - usual > ERRORS * error
        found[kind] = entry
    return found


def _share(lines: _Lines, numbers: IntArray) -> float | None:
    """Compute the share of the pairs across these lines that differ."""
    pairs = int(lines.pairs[numbers].sum())
    return int(lines.changes[numbers].sum()) / pairs if pairs else None


def _verdict(axes: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Say whether there are seams: a word, and what it means."""
    if not any(axis["seams"] for axis in axes.values()):
        return "none", "one chip covers the map, so nothing can show"
    kinds = [(name, kind, axes[name][kind]) for name in axes for kind in _WHERE]
    seen = [found for found in kinds if found[2]["stands_out"]]
    if seen:
        name, kind, entry = max(seen, key=lambda found: found[2]["share"])
        usual = axes[name]["interior"]["share"]
        return "seams", (
            f"seams show: between {name} {entry['share']:.2%} of the pixels change their class "
            f"{_WHERE[kind]}, and {usual:.2%} elsewhere"
        )
    if all(entry["stands_out"] is None for _, _, entry in kinds):
        return "unknown", (
            "unknown: hardly a line lies outside the blend of two chips; check a map with "
            "larger chips or less overlap"
        )
    return "none", "no seams: where chips meet, classes change no more often than chance allows"


_WHERE = {
    "begins": "where chips begin",
    "middle": "in the middle of the overlap",
    "ends": "where chips end",
    "blend": "over the whole blend of two chips",
}
