"""The hash by which a checkpoint knows its recipe: of the recipe and of the state of its files."""

from __future__ import annotations

import glob
import hashlib
from contextlib import suppress
from pathlib import Path

from geoseg.errors import GeosegError
from geoseg.labels.vector_files import is_vector
from geoseg.scene.files import files_behind
from geoseg.scene.opening import open_scene
from geoseg.scene.sources import Rules
from geoseg.training.held_out import quiet
from geoseg.training.recipe import TrainConfig

__all__ = ["recipe_digest"]


def recipe_digest(config: TrainConfig) -> str:
    """Hash a recipe and the sizes and times of its files; a checkpoint goes with these alone."""
    digest = hashlib.sha256(repr(config).encode())
    files: set[Path] = set()
    for model in (config.teacher, config.start):
        if model is not None:
            files.update(model.rglob("*") if model.is_dir() else [model])
    for scene in config.scenes:
        files.update(_scene_files(scene.path, scene.rules))
        for path in scene.labels:
            files.update(_label_files(path, scene.rules))
    for file in sorted(files):
        if file.is_file():
            about = file.stat()
            digest.update(f"{file}|{about.st_size}|{about.st_mtime_ns}".encode())
    return digest.hexdigest()


def _scene_files(path: Path, rules: Rules) -> list[Path]:
    """List what a scene is read from, and all else that lies at the top of its folder.

    What is wrong with a scene is reported when it is read.
    """
    inside = [*path.iterdir()] if path.is_dir() else [path]
    with suppress(GeosegError), quiet():
        inside += map(Path, open_scene(path, rules).files)
    return inside


def _label_files(path: Path, rules: Rules) -> list[Path]:
    """List a label file and what belongs to it: a shapefile's tables lie beside it."""
    if path.is_dir():
        return [*path.rglob("*")]
    if is_vector(path):
        return [*path.parent.glob(f"{glob.escape(path.stem)}.*")]
    return [path, *map(Path, files_behind(str(path), rules))]
