"""Recipes as files: TOML or JSON, read and written."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoseg.cards.legend import ClassInfo
from geoseg.core.jsontext import json_text, nodata_value
from geoseg.errors import TrainingError
from geoseg.scene.sources import Rules
from geoseg.training.augment_options import Augmentation
from geoseg.training.laid_clouds_options import LaidClouds
from geoseg.training.pairing import find_files, pair
from geoseg.training.recipe import TrainConfig
from geoseg.training.scene_config import SceneConfig
from geoseg.training.split import SplitConfig
from geoseg.training.tables import make_table

__all__ = ["dump_config", "load_config", "load_document", "make_config"]


def load_config(path: str | Path) -> TrainConfig:
    """Read a recipe.

    ``${NAME}`` in a path stands for an environment variable; relative paths start at the recipe's
    folder, those of scenes at its ``folder``. A scene with ``images`` in place of ``path`` stands
    for many: files or globs, each paired with its ``labels`` (see
    :func:`geoseg.training.pairing.pair`); with ``columns`` the images of a folder, in order of
    their names, are parts of one picture, row by row with so many columns, and their labels
    parts of another one (see :func:`geoseg.training.joined_images.join`).

    Args:
        path: a TOML file, or JSON as :func:`dump_config` writes it.

    Raises:
        TrainingError: the file can't be read, a key is unknown or missing, or a variable is not
            set.
    """
    path = Path(path)
    return make_config(load_document(path), path.resolve().parent, str(path))


def load_document(path: Path) -> dict[str, Any]:
    """Read what a recipe's file holds, unchecked.

    Args:
        path: a TOML or JSON file.

    Raises:
        TrainingError: it can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise TrainingError(f"the recipe {path} can't be read: {error}") from error
    if not isinstance(document, dict):
        raise TrainingError(f"the recipe {path} holds no table of keys")
    return document


def make_config(document: Mapping[str, Any], base: Path, where: str) -> TrainConfig:
    """Build a recipe from what its file holds.

    Args:
        document: keys and values as TOML gives them.
        base: the folder at which relative paths start.
        where: for messages.

    Raises:
        TrainingError: as for :func:`load_config`.
    """
    values: dict[str, Any] = {k: _tuples(v) for k, v in document.items()}
    folder = _path(values.pop("folder", "."), base)
    values["scenes"] = _all_scenes(document, folder, where)
    values["classes"] = tuple(
        make_table(ClassInfo, entry, "classes")
        for entry in _tables(values.get("classes", ()), "classes", where)
    )
    if values.get("teacher") is not None:
        values["teacher"] = _teacher(values["teacher"], base)
    if values.get("start") is not None:
        values["start"] = _teacher(values["start"], base)
    stages = _tables(values.get("stages", ()), "stages", where)
    values["stages"] = tuple(
        {**stage, "scenes": _all_scenes(stage, folder, where)} if "scenes" in stage else stage
        for stage in stages
    )
    for key, kind in (
        ("augmentation", Augmentation),
        ("invariance", Augmentation),
        ("laid_clouds", LaidClouds),
        ("split", SplitConfig),
    ):
        if values.get(key) is not None:
            values[key] = make_table(kind, values[key], key)
    config: TrainConfig = make_table(TrainConfig, values, where)
    return config


def dump_config(config: TrainConfig) -> str:
    """Write a recipe as JSON that :func:`load_config` reads, with absolute paths.

    Args:
        config: the recipe.

    Returns:
        The text.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            # What is not there is the name of an embedded model.
            return str(value.absolute() if value.exists() else value)
        raise TypeError(value)  # pragma: no cover - a recipe holds nothing else

    document = asdict(config)
    for scene in (s for part in (document, *document["stages"]) for s in part.get("scenes", ())):
        for key in [k for k, v in scene.items() if v is None or v == () or v == {}]:
            del scene[key]
        if "src_nodata" in scene:
            scene["src_nodata"] = nodata_value(scene["src_nodata"])
        if scene["allow_vrt"] == "local":
            del scene["allow_vrt"]
    document = {k: v for k, v in document.items() if v is not None}
    return json_text(json.loads(json.dumps(document, default=plain)), indent=1) + "\n"


def _tuples(value: Any) -> Any:
    """Turn lists into tuples, at any depth."""
    if isinstance(value, list | tuple):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, Mapping):
        return {k: _tuples(v) for k, v in value.items()}
    return value


def _tables(value: Any, key: str, where: str) -> Sequence[Mapping[str, Any]]:
    """Refuse what is no list of tables.

    Raises:
        TrainingError: it is something else.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(v, Mapping) for v in value):
        raise TrainingError(f"{where}: {key} is {value!r}; it must be a list of tables of keys")
    return value


def _all_scenes(document: Mapping[str, Any], folder: Path, where: str) -> tuple[SceneConfig, ...]:
    """Make the scenes of a recipe, or of one of its stages."""
    return tuple(
        scene
        for entry in _tables(document.get("scenes", ()), "scenes", where)
        for scene in _scenes(entry, folder, where)
    )


def _scenes(entry: Mapping[str, Any], folder: Path, where: str) -> list[SceneConfig]:
    """Make the scenes that one table stands for."""
    values: dict[str, Any] = {k: _tuples(v) for k, v in entry.items()}
    for key in ("labels", "images", "input_root"):
        if key in values:
            given = values[key] if isinstance(values[key], tuple) else (values[key],)
            values[key] = tuple(_path(text, folder) for text in given)
    if isinstance(values.get("ignore_label"), int | str):
        values["ignore_label"] = (values["ignore_label"],)
    if "input_root" in values:
        values["input_root"] = tuple(map(str, values["input_root"]))
    if "images" not in values:
        if "path" in values:
            values["path"] = _path(values["path"], folder)
        return [make_table(SceneConfig, values, f"{where}: scene {entry.get('path')}")]
    images, labels = values.pop("images"), values.pop("labels", ())
    rules = Rules.of(values.get("input_root", ()), values.get("allow_vrt", "local"))
    pairs = pair(find_files(images), find_files(labels), rules)
    if "columns" in values:
        # The joined pictures lie in geoseg's cache, and point to their parts.
        parts = [part for image, found in pairs for part in (image, *found)]
        folders = dict.fromkeys(str(part.resolve().parent) for part in parts)
        values["input_root"] = (*values.get("input_root", ()), *folders)
        pairs = _joined(pairs, values.pop("columns"), where, rules)
    return [
        make_table(SceneConfig, {**values, "path": path, "labels": found}, f"{where}: scene {path}")
        for path, found in pairs
    ]


def _joined(
    pairs: Sequence[tuple[Path, tuple[Path, ...]]], columns: Any, where: str, rules: Rules
) -> list[tuple[Path, tuple[Path, ...]]]:
    """Join the images of each folder into one picture, and their labels into another one.

    Raises:
        TrainingError: columns is no number of columns, or not each image has a label file.
    """
    from geoseg.training.joined_images import join

    if type(columns) is not int or columns < 1:
        raise TrainingError(f"{where}: columns is {columns!r}; it must be 1 at least")
    folders: dict[Path, list[tuple[Path, tuple[Path, ...]]]] = {}
    for path, labels in pairs:
        if len(labels) != 1:
            raise TrainingError(
                f"{where}: {path} has {len(labels)} label files; parts of a picture (columns) need "
                f"one each"
            )
        folders.setdefault(path.parent, []).append((path, labels))
    return [
        (
            join([path for path, _ in parts], columns, rules),
            (join([label for _, (label,) in parts], columns, rules),),
        )
        for parts in folders.values()
    ]


def _teacher(text: str, base: Path) -> Path:
    """Resolve the path of a model; the name of an embedded one stays as it is."""
    path = _path(text, base)
    return path if path.exists() or "/" in text or "$" in text else Path(text)


def _path(text: str | Path, base: Path) -> Path:
    """Resolve a path: put in environment variables, and start at a folder if it is relative."""

    def variable(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:
            raise TrainingError(
                f"the path {str(text)!r} needs the environment variable {match[1]}, which is not "
                f"set; set it to the folder that the recipe's first lines describe"
            )
        return value

    return base / re.sub(r"\$\{(\w+)\}", variable, str(text))
