"""Compares values with TypedDicts."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import (
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from geoseg.events import Event


def check_event(event: Any) -> str:
    """The name of the TypedDict that an event is of.

    Raises:
        AssertionError: it is of none: a field is missing, unknown or of another type.
    """
    kinds = get_args(Event)
    alike = [
        kind
        for kind in kinds
        if all(
            event.get(name) in get_args(hint)
            for name, hint in get_type_hints(kind).items()
            if name in ("event", "stage")
        )
    ]
    faults = {kind.__name__: list(_faults(event, kind, kind.__name__)) for kind in alike}
    fitting = [name for name, found in faults.items() if not found]
    assert len(fitting) == 1, f"{event}: {faults or 'no such event'}"
    return fitting[0]


def _faults(value: Any, hint: Any, where: str) -> list[str]:
    """Where a value is not of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_typeddict(hint):
        return _faults_of_fields(value, hint, where)
    if hint is Any:
        return []
    if origin is Literal:
        return [] if value in arguments else [f"{where} is {value!r}"]
    if origin in (Union, types.UnionType):
        found = [_faults(value, one, where) for one in arguments]
        return [] if [] in found else found[0]
    if origin in (list, tuple):
        if not isinstance(value, origin):
            return [f"{where} is a {type(value).__name__}"]
        return [fault for item in value for fault in _faults(item, arguments[0], where)]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where} is a {type(value).__name__}"]
        inner = [_faults(item, arguments[1], f"{where}[{k!r}]") for k, item in value.items()]
        return [fault for faults in inner for fault in faults] + [
            f"{where} has the key {k!r}" for k in value if not isinstance(k, arguments[0])
        ]
    kinds = (int, float) if hint is float else hint
    fits = isinstance(value, kinds) and not (isinstance(value, bool) and hint is not bool)
    return [] if fits and type(value).__module__ != "numpy" else [f"{where} is {value!r}"]


def _faults_of_fields(value: Any, hint: Any, where: str) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{where} is a {type(value).__name__}"]
    hints = get_type_hints(hint)
    # __required_keys__ knows no NotRequired where annotations are texts.
    extras = get_type_hints(hint, include_extras=True)
    needed = {name for name, extra in extras.items() if get_origin(extra) is not NotRequired}
    found = [f"{where} is without {name}" for name in needed - set(value)]
    found += [f"{where} has {name}" for name in set(value) - set(hints)]
    for name in set(value) & set(hints):
        found += _faults(value[name], hints[name], f"{where}.{name}")
    return found
