"""JSON as the standard has it: it knows neither NaN nor infinities, which Python writes anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike, fspath
from typing import Any

__all__ = ["builtin", "builtin_fields", "json_text", "nodata_value", "plain"]


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Write a value as strict JSON.

    Args:
        value: of dicts, lists, tuples, texts, paths and numbers, numpy's ones and arrays, too.
        indent: spaces a level; None for one line.
        ascii_only: write other characters as escapes; they are in any case where a file's name
            is no valid text.

    Returns:
        The text, which can be written as UTF-8. NaN and infinities are null.
    """
    import json  # the command line's help does without

    value = plain(value)
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # bytes of a name that are no UTF-8, as surrogates
        return json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False)
    return text


def plain(value: Any) -> Any:
    """Make a value of what JSON has; NaN and infinities become None.

    Args:
        value: see :func:`json_text`.

    Raises:
        TypeError: something in it is none of these.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, PathLike):
        return plain(fspath(value))
    if hasattr(value, "tolist"):  # numpy's numbers and arrays, without importing numpy
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def _key(key: Any) -> str | float | None:
    """Turn a key of a mapping into JSON's; json makes texts of numbers."""
    found: Any = key.tolist() if hasattr(key, "tolist") else key
    if isinstance(found, PathLike):
        found = fspath(found)
    if found is None or isinstance(found, str | int | float):
        known: str | float | None = found
        return known
    raise TypeError(f"{key!r} is no key that JSON has")


def nodata_value(value: float | None) -> float | str | None:
    """Write the number for "not measured" as STAC's raster extension does.

    Args:
        value: of a band; None where it has none.

    Returns:
        The number, or ``"nan"``, ``"inf"`` or ``"-inf"``, so that they differ from "none".

    Examples:
        >>> nodata_value(float("nan")), nodata_value(-9999.0), nodata_value(None)
        ('nan', -9999.0, None)
    """
    if value is None or math.isfinite(value):
        return value
    return str(float(value))


def builtin(value: Any) -> Any:
    """Turn numpy's numbers in a value into Python's.

    Args:
        value: a number, or dicts, lists and tuples of them; anything else stays as it is.
    """
    if isinstance(value, dict):
        return {builtin(key): builtin(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(builtin(item) for item in value)
    return value.tolist() if type(value).__module__ == "numpy" else value


def builtin_fields(instance: Any) -> None:
    """Do the same to the fields of a dataclass, which may be frozen.

    Args:
        instance: of it, which is being made.
    """
    for field in fields(instance):
        object.__setattr__(instance, field.name, builtin(getattr(instance, field.name)))
