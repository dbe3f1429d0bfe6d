"""Tables of a recipe's file, made into dataclasses whose fields they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from geoseg.errors import TrainingError

__all__ = ["check_kinds", "make_table"]


#: Type of a default -> what may stand in its place, and its name.
_KINDS: dict[type[Any], tuple[Any, str]] = {
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    bool: (bool, "true or false"),
    str: (str, "text"),
    tuple: (tuple, "a list"),
    dict: (Mapping, "a table of keys"),
}


#: Keys that take more than what their default is.
_FREE = ("class_weights",)


def make_table(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """Build a dataclass from a table; a misspelt key is an error, not a default in silence.

    Args:
        kind: the dataclass.
        values: the table.
        where: it stands, for messages.

    Raises:
        TrainingError: a key is unknown or missing, or a value is of another type.
    """
    if not isinstance(values, Mapping):
        raise TrainingError(f"{where}: found {values!r}; a table of keys belongs there")
    names = [f.name for f in fields(kind)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise TrainingError(f"{where}: the keys {unknown} are unknown; the keys are {names}")
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        raise TrainingError(f"{where}: the keys {missing} are missing; the keys are {names}")
    check_kinds(kind, values, where)
    try:
        return kind(**values)
    except TypeError as error:
        raise TrainingError(f"{where}: {error}") from error


def check_kinds(kind: type[Any], values: Mapping[str, Any], where: str) -> None:
    """Refuse values of another type than their default's.

    Args:
        kind: the dataclass whose defaults count.
        values: the table.
        where: it stands, for messages.

    Raises:
        TrainingError: one is.
    """
    for f in fields(kind):
        default = f.default_factory if f.default is MISSING else type(f.default)
        wanted, what = _KINDS.get(default, (object, ""))  # type: ignore[arg-type]
        if f.name not in values or f.name in _FREE:
            continue
        given = values[f.name]
        # To Python, true is a number, too.
        if not isinstance(given, wanted) or (isinstance(given, bool) and what.endswith("number")):
            raise TrainingError(f"{where}: {f.name} is {values[f.name]!r}; it must be {what}")
