"""A list of scenes with labels that did not teach a model, and what the model says of them."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import ModelCard
from geoseg.errors import EvaluationError, UsageError
from geoseg.evaluation.calibration import Reliability
from geoseg.evaluation.of_models import map_scene
from geoseg.evaluation.options import EvaluateOptions
from geoseg.evaluation.points import pixels_of
from geoseg.evaluation.probabilities import open_probs
from geoseg.labels.classes import class_ids
from geoseg.labels.labels import open_labels
from geoseg.labels.vector_files import read_features
from geoseg.rasters.class_raster import MAX_ID, ClassRaster, open_class_raster

__all__ = ["HeldOut", "Sampled", "read_held_out", "sample_of"]

#: Pixels of one scene: a large one shall not count more than many small ones.
MOST_PIXELS = 10_000
#: Pixels that are read at a time, and classes of each.
CHUNK = 1 << 22


@dataclass(frozen=True)
class HeldOut:
    """One entry of the list.

    Attributes:
        options: the scene, its labels or points, and how both are read, as for ``evaluate``.
        group: of scenes that are judged together, such as a sensor.
        label_map: id in a raster of labels -> a class of the model, by name or id; others mean
            nothing then.
        everywhere: the class that all of the scene is, in place of labels.
    """

    options: EvaluateOptions
    group: str = "all"
    label_map: Mapping[str, str | int] = field(default_factory=dict)
    everywhere: str | int | None = None


@dataclass(frozen=True)
class Sampled:
    """What a model says of labelled pixels.

    Attributes:
        group: of the scene.
        logs: logarithms of probabilities, float32 (n, K).
        truth: places of the true classes, int64 (n,).
    """

    group: str
    logs: NDArray[np.float32]
    truth: NDArray[np.int64]


#: What an entry may say besides what ``evaluate`` takes.
_OWN = ("group", "label_map", "everywhere")
_TAKEN = ("scene", "labels", "points", "column", "ignore", "colors", "bands", "band_names")
_ALSO = ("scale", "offset", "src_nodata", "nearblack", "stretch", "input_root", "allow_vrt")


def read_held_out(path: str | Path, **machine: Any) -> list[HeldOut]:
    """Read a list of scenes.

    Args:
        path: a TOML file with a table ``[[scenes]]`` for each. Paths in it start at its folder, or
            at its ``folder``; ``${NAME}`` in a path stands for an environment variable.
        **machine: options of ``evaluate`` for all of them: ``device``, ``threads``.

    Raises:
        UsageError: it can't be read, or an entry is wrong.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} can't be read as a list of scenes ({error}); it is a TOML file with a table "
            f"[[scenes]] for each"
        ) from error
    scenes = content.pop("scenes", None)
    folder = _place(path.parent, content.pop("folder", "."), path)
    if content or not isinstance(scenes, list) or not scenes:
        found = ", ".join(content) or "no scenes"
        raise UsageError(
            f"{path} has {found}; it has a table [[scenes]] for each scene, and folder"
        )
    return [_entry(entry, n, path, folder, machine) for n, entry in enumerate(scenes, start=1)]


def _entry(
    entry: Any, number: int, path: Path, folder: Path, machine: Mapping[str, Any]
) -> HeldOut:
    where = f"scene {number} of {path}"
    known = (*_OWN, *_TAKEN, *_ALSO)
    strange = sorted(set(entry) - set(known)) if isinstance(entry, dict) else ["no table"]
    if strange:
        raise UsageError(f"{where} has {strange[0]}; it may have {', '.join(known)}")
    if "scene" not in entry:
        raise UsageError(f"{where} has no scene; it needs one, and labels, points or everywhere")
    given = {key: value for key, value in entry.items() if key not in _OWN}
    for key in ("scene", "labels", "points"):
        if key in given:
            one = given[key]
            many = [_place(folder, part, path) for part in one] if isinstance(one, list) else None
            given[key] = many or _place(folder, one, path)
    if "everywhere" in entry:
        if {"labels", "points", "label_map"} & set(entry):
            raise UsageError(f"{where} has everywhere and labels; give one of them")
        given["labels"] = given["scene"]  # stands for them: is not opened
    own = {key: entry[key] for key in _OWN if key in entry}
    if "label_map" in own and not (isinstance(own["label_map"], dict) and "labels" in given):
        raise UsageError(f"{where}: label_map says what ids in a raster of labels mean; give both")
    ids = own.get("label_map", {})
    if strange := [key for key in ids if not (key.isdecimal() and int(key) <= MAX_ID)]:
        raise UsageError(f"{where}: label_map has {strange[0]!r}; its keys are ids, 0 to {MAX_ID}")
    try:
        return HeldOut(EvaluateOptions(**given, **machine), **own)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _place(folder: Path, text: Any, path: Path) -> Path:
    """Resolve a path: put in environment variables, and start at a folder if it is relative."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise UsageError(
                f"{path}: {str(text)!r} needs the environment variable {match[1]}, which is not "
                f"set; set it"
            )
        return os.environ[match[1]]

    return folder / re.sub(r"\$\{(\w+)\}", value, str(text))


def sample_of(model: str | Path, card: ModelCard, held: HeldOut) -> Sampled:
    """Map a scene, and take its labelled pixels, at most ten thousand of them by chance.

    Args:
        model: a path or an embedded model's name.
        card: of the model.
        held: the scene.

    Raises:
        GeosegError: the scene can't be mapped, or labels can't be read.
        EvaluationError: no pixel has a class and a label.
    """
    with TemporaryDirectory(prefix="geoseg-") as temporary:
        folder = Path(temporary)
        run = map_scene(model, folder, held.options, None, probs=True)
        legend = {c.id: c.name for c in card.classes}
        with (
            open_class_raster(run.raster) as raster,
            open_probs(folder / "probs.tif", raster, legend) as probs,
            _truth(held, raster, legend) as truth_of,
        ):
            found = Reliability(len(legend), probs.least, MOST_PIXELS)
            width = raster.grid.width
            rows = max(1, CHUNK // (width * len(legend)))
            for top in range(0, raster.grid.height, rows):
                bottom = min(top + rows, raster.grid.height)
                places = truth_of(top, bottom)
                given, there = probs.rows(top, bottom)
                used = there & (places >= 0)
                each = given[:, used].T
                index = np.flatnonzero(used) + top * width
                found.add(each, places[used], each.argmax(axis=1), index)
    logs, truth, _ = found.sample()
    if not len(truth):
        raise EvaluationError(
            f"{held.options.scene}: no pixel has both a class and a label; see that they lie on "
            f"one ground, and what label_map and ignore leave"
        )
    return Sampled(held.group, logs, truth)


@contextmanager
def _truth(held: HeldOut, raster: ClassRaster, legend: dict[int, str]) -> Iterator[Any]:
    """Open what is really there.

    Yields:
        (top, bottom) -> places of the true classes among the legend's, int64 (H, W), -1 where
        nothing is known.
    """
    options = held.options
    own = {i: place for place, i in enumerate(legend)}
    if held.everywhere is not None:
        (place,) = _named([held.everywhere], legend, "everywhere")
        shape = raster.grid.width
        yield lambda top, bottom: np.full((bottom - top, shape), own[place], np.int64)
        return
    if options.points is not None:
        column = options.column or "reference"
        path = str(options.points)
        frame = read_features(path, column, ("Point",), "point", options.rules)
        ids, _ = class_ids(frame[column], legend, options.ignore, path)
        cols, rows, _ = pixels_of(frame, raster, path)
        inside = (cols >= 0) & (cols < raster.grid.width) & (ids >= 0)

        def at_points(top: int, bottom: int) -> NDArray[np.int64]:
            found = np.full((bottom - top, raster.grid.width), -1, np.int64)
            here = np.flatnonzero(inside & (rows >= top) & (rows < bottom))
            found[rows[here] - top, cols[here]] = [own[i] for i in ids[here].tolist()]
            return found

        yield at_points
        return
    table = np.full(65537, -1, np.int64)
    if held.label_map:
        means = _named(held.label_map.values(), legend, "label_map")
        table[[int(key) for key in held.label_map]] = [own[i] for i in means]
    else:
        table[list(own)] = list(own.values())
    assert options.labels is not None, "an entry has labels, points or everywhere"
    with open_labels(
        options.labels, raster.pixels, legend, raster.path,
        column=options.column, ignore=options.ignore, owner="the model", rules=options.rules,
    ) as labels:  # fmt: skip

        def of_labels(top: int, bottom: int) -> NDArray[np.int64]:
            ids, known, _, _ = labels.strip(top, bottom)
            numbers = np.where(known & (ids >= 0) & (ids <= 65535), ids.astype(np.int64), 65536)
            found: NDArray[np.int64] = table[numbers]
            strange = np.unique(numbers[(found < 0) & (numbers < 65536)])
            if strange.size and not held.label_map:
                raise EvaluationError(
                    f"{options.labels} holds the ids {strange[:8].tolist()}, which are no class of "
                    f"the model; say with label_map what ids mean, or leave them out with ignore"
                )
            return found

        yield of_labels


def _named(values: Any, legend: dict[int, str], key: str) -> list[int]:
    """Find the ids of classes that are given by name or id."""
    listed = list(values)
    ids, _ = class_ids(listed, legend, (), key, owner="the model", things="entries")
    return [int(i) for i in ids]
