"""The recipe of a run: the user's file, or one made from the data, with what the options change."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoseg.errors import UsageError
from geoseg.training.from_data import recipe_from_data
from geoseg.training.options import TrainOptions
from geoseg.training.recipe import TrainConfig
from geoseg.training.recipe_file import load_document, make_config

__all__ = ["make_recipe"]


def make_recipe(options: TrainOptions, output: str | Path) -> TrainConfig:
    """Make a run's recipe of the user's file, or of images and labels, and of the options.

    Args:
        options: what the user says.
        output: the model folder to be; it gives a model its name.

    Returns:
        The recipe.

    Raises:
        GeosegError: something is missing, or does not fit.
    """
    if options.config is not None:
        path = Path(options.config)
        document, base, where = load_document(path), path.resolve().parent, str(path)
    else:
        document, base = recipe_from_data(options, Path(output)), Path.cwd()
        where = "the options"
    _override(document, options)
    for text in options.changes:
        _merge(document, _parse(text))
    return make_config(document, base, where)


def _override(document: dict[str, Any], options: TrainOptions) -> None:
    """Put the options that replace a recipe's keys into a document."""
    keys = ("network", "teacher", "steps", "batch", "chip", "learning_rate", "loss", "precision")
    for key in (*keys, "seed"):
        if getattr(options, key) is not None:
            document[key] = getattr(options, key)
    if options.teacher is not None and Path(options.teacher).exists():
        document["teacher"] = str(Path(options.teacher).resolve())
    network = dict(document.get("network_options", {}))
    if options.network is not None and options.config is not None:
        network = {}  # those of the recipe's own network
    for key in ("encoder", "encoder_weights"):
        if getattr(options, key) is not None:
            network[key] = getattr(options, key)
    document["network_options"] = network
    split = dict(document.get("split", {}))
    for key, value in (("by", options.split), ("block", options.block), ("margin", options.margin)):
        if value is not None:
            split[key] = value
    if options.fold is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", options.fold)
        if match is None:
            raise UsageError(f"--fold is {options.fold!r}; give I/K, such as 1/5")
        split["fold"], split["folds"] = int(match[1]), int(match[2])
    document["split"] = split


def _parse(text: str) -> dict[str, Any]:
    """Read ``KEY=VALUE`` as TOML; what is no TOML value is text.

    Raises:
        UsageError: there is no key.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w.-]+", key.strip()):
        raise UsageError(f"--set {text!r}: give KEY=VALUE, such as ema=0.99 or augmentation.mix=0")
    try:
        tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--set {text!r}: {key!r} is no key of a recipe ({error})") from error
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{key} = {_quoted(value.strip())}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _merge(document: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put changes into a document, table by table; an empty table takes a table's keys away."""
    for key, value in changes.items():
        if value and isinstance(value, Mapping) and isinstance(document.get(key), Mapping):
            inner = dict(document[key])
            _merge(inner, value)
            document[key] = inner
        else:
            document[key] = value
