"""What a search for lattices found, in words and as JSON has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.evaluation.lattice import LONGEST, Lattice, LatticeSearch, find_lattices

__all__ = ["describe_lattices"]

IntArray = NDArray[np.int64]


def describe_lattices(
    axes: Mapping[str, Mapping[str, tuple[IntArray, IntArray]]],
) -> dict[str, Any]:
    """Look for lattices along both axes, and put into words what was found.

    Args:
        axes: for ``columns`` and ``rows``, of the ``lines`` between them the changes and the pairs,
            and of themselves the pixels that stand ``alone`` and all that could.

    Returns:
        As JSON has it: ``verdict`` (``lattice``, ``none`` or ``unknown``), ``message``,
        ``p_value``, and for each axis and kind the ``periods`` that were looked for, the
        ``p_value`` of what stood out most, and the ``lattices``.
    """
    searches = sum(len(kinds) for kinds in axes.values())
    found = {
        (axis, kind): find_lattices(*counts, searches)
        for axis, kinds in axes.items()
        for kind, counts in kinds.items()
    }
    report: dict[str, Any] = {"verdict": "unknown", "message": _UNKNOWN, "p_value": None}
    known = [(search.p_value, place) for place, search in found.items() if search.longest]
    if known:
        p_value, (axis, kind) = min(known, key=lambda pair: pair[0] or 0.0)
        lattices = found[axis, kind].lattices
        report["p_value"] = p_value
        report["verdict"] = "lattice" if lattices else "none"
        report["message"] = _told(axis, kind, lattices[0]) if lattices else _none(found, p_value)
    for (axis, kind), search in found.items():
        report.setdefault(axis, {})[kind] = {
            "periods": [2, search.longest] if search.longest else None,
            "p_value": search.p_value,
            "lattices": [
                {**asdict(lattice), "excess": lattice.share - lattice.elsewhere}
                for lattice in search.lattices
            ],
        }
    return report


def _told(axis: str, kind: str, lattice: Lattice) -> str:
    what = {
        "lines": f"between {axis} {{}} of the pixels change their class",
        "alone": f"of the pixels of {axis} {{}} differ from both neighbours",
    }[kind].format(f"{lattice.share:.2%}")
    return (
        f"a lattice of {lattice.period} px shows: {what} at numbers {lattice.phase}, "
        f"{lattice.phase + lattice.period}, ..., and {lattice.elsewhere:.2%} elsewhere "
        f"({_chance(lattice.p_value)})"
    )


def _none(found: Mapping[tuple[str, str], LatticeSearch], p_value: float | None) -> str:
    longest = {
        axis: search.longest or 1 for (axis, kind), search in found.items() if kind == "lines"
    }
    parts = [f"2 to {last} px between {axis}" for axis, last in longest.items() if last > 1]
    unknown = "" if min(longest.values()) == LONGEST else "; other periods are unknown"
    return f"no lattice of {' or '.join(parts) or '2 px'} ({_chance(p_value or 0.0)}){unknown}"


def _chance(p_value: float) -> str:
    return f"p = {p_value:.2g}" if p_value > 1e-99 else "p < 1e-99"


_UNKNOWN = (
    "unknown whether there is a lattice: there are too few lines, or hardly a class changes; "
    "check a larger map"
)
