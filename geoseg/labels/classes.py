"""Names and ids of labels' classes, matched with a legend's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import LabelError

__all__ = ["class_ids", "match_classes", "spelled"]


def spelled(value: Any) -> str:
    """Bring what was written into a table to one spelling; empty where nothing was.

    Examples:
        >>> spelled(" Water "), spelled(3.0), spelled(None), spelled(float("nan"))
        ('water', '3', '', '')
    """
    if value is None or value != value or str(value) == "<NA>":  # NaN is not itself
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip().casefold()


def class_ids(
    values: Iterable[Any],
    legend: Mapping[int, str],
    ignore: Sequence[int | str],
    path: str,
    *,
    owner: str = "the map",
    things: str = "points",
) -> tuple[NDArray[np.int64], int]:
    """Ids of what was written into a column.

    Numbers are ids. Text is a name, in capitals or not, and if no class is called so, an id.

    Args:
        values: (N,) as read.
        legend: id -> name of the classes.
        ignore: what means no class: ids or names.
        path: of the file, for messages.
        owner: whose classes they are, for messages.
        things: what the rows are, for messages.

    Returns:
        (N,) int64, -1 where nothing was written or it is ignored; and how many are ignored.

    Raises:
        LabelError: something is written that is no class.
    """
    ids, ignored, unknown = match_classes(values, legend, ignore)
    if unknown:
        shown = ", ".join(f"{value!r} ({n})" for value, n in unknown.most_common(8))
        known = ", ".join(f"{i} {name}" for i, name in legend.items())
        raise LabelError(
            f"{path}: {shown} is no class of {owner} ({known}); correct the column, or leave such "
            f"{things} out with --ignore"
        )
    return ids, ignored


def match_classes(
    values: Iterable[Any], legend: Mapping[int, str], ignore: Sequence[int | str]
) -> tuple[NDArray[np.int64], int, Counter[str]]:
    """As :func:`class_ids`, and how often what is written that is no class, instead of an error."""
    by_text = {str(i): i for i in legend}
    folded = Counter(name.casefold() for name in legend.values())
    by_text.update(
        (name.casefold(), i) for i, name in legend.items() if folded[name.casefold()] == 1
    )
    left_out = {spelled(value) for value in ignore}
    ids, ignored, unknown = [], 0, Counter[str]()
    for value in values:
        text = spelled(value)
        ids.append(-1)
        if text in left_out and text:
            ignored += 1
        elif text in by_text:
            ids[-1] = by_text[text]
        elif text:
            unknown[text if text.isdecimal() else str(value).strip()] += 1
    return np.array(ids, np.int64), ignored, unknown
