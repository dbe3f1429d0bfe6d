"""The straight line of ``geoseg evaluate``: a map, or a model's map of a scene, against the truth.

Points that were drawn by chance give the accuracy of the map and the true areas of the classes,
with intervals (see :mod:`geoseg.evaluation.area_estimates`). Labels, as a raster or as polygons,
say how their own pixels agree with the map (see :mod:`geoseg.evaluation.by_labels`), and nothing
of the ground that they leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from geoseg.cards.files import ModelFiles
from geoseg.core.jsontext import json_text
from geoseg.core.names import public_name
from geoseg.core.staging import Staging
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import UsageError
from geoseg.evaluation.by_labels import by_labels
from geoseg.evaluation.csv_table import write_table
from geoseg.evaluation.html_page import page
from geoseg.evaluation.of_models import (
    card_to_write,
    check_model_options,
    map_scene,
    new_card,
    scene_name,
    scene_paths,
    with_model,
)
from geoseg.evaluation.options import EvaluateOptions
from geoseg.evaluation.points import by_points
from geoseg.evaluation.result import Evaluation
from geoseg.evaluation.thumbnails import RGB, Pictures, class_colors
from geoseg.rasters.class_raster import open_class_raster
from geoseg.scene.sources import is_remote
from geoseg.zoo import find_model

if TYPE_CHECKING:
    from geoseg.events import Progress

__all__ = ["evaluate"]


def evaluate(raster: str | Path, *, progress: Progress | None = None, **options: Any) -> Evaluation:
    """Compare a class raster, or a model's map of a scene, with what is really there.

    Rasters are read strip by strip, so that memory does not depend on their height. Polygons are
    held whole.

    Args:
        raster: class raster; its classes are those in its tags, or where it has none, those of
            its pixels. With ``scene``, a model: an embedded one's name, or a folder or .zip.
        progress: called with each event (see :mod:`geoseg.events`) while a model runs.
        **options: the fields of :class:`geoseg.evaluation.options.EvaluateOptions`: ``points`` or
            ``labels``, files for the results, and more.

    Returns:
        For points, accuracies and areas with 95 % intervals. For labels, the confusion matrix and
        what follows from it, the boundary F1, how many polygons are right (labels that are
        polygons), and how well probabilities are calibrated (if there are any).

    Raises:
        UsageError: the options contradict each other, or a vector file has no such column.
        SceneError: a raster can't be read.
        ModelError: the model can't be read.
        EvaluationError: map and labels don't overlap, can't be brought together, or differ in
            their classes; or nothing can be said from the sample.
        OutputError: a file can't be written.

    Example:
        >>> import geoseg
        >>> done = geoseg.evaluate("map.tif", labels="fields.gpkg")  # doctest: +SKIP
        >>> done.report["measures"]["mean_iou"]  # doctest: +SKIP
    """
    asked = EvaluateOptions(**options)
    files = None if asked.scene is None else find_model(raster)
    check_model_options(raster, files, asked)
    card = card_to_write(files, asked)
    finals = _finals(raster, files, asked) + ([] if card is None else [card])
    with Staging(finals, overwrite=asked.overwrite, replaced=[card] if card else []) as staging:
        done, pictures, colors = _judge(raster, files, asked, progress)
        texts = _texts(done, pictures, colors, asked)
        if card is not None and files is not None:
            texts[card] = new_card(files, done.report, asked)
        for path, text in texts.items():
            try:
                staging.path(path).write_text(text, encoding="utf-8", newline="")
            except OSError as error:
                raise explain_write_error(error, path) from error
        staging.publish(finals)
    return done


def _finals(raster: str | Path, files: ModelFiles | None, asked: EvaluateOptions) -> list[Path]:
    """List the files that are asked for.

    Raises:
        UsageError: one is an input.
    """
    truth = asked.points if asked.labels is None else asked.labels
    mapped = [raster] if asked.scene is None else scene_paths(asked.scene)
    inputs = [truth, asked.probs, *mapped]
    read = {Path(p).resolve() for p in inputs if p is not None and not is_remote(str(p))}
    if files is not None:
        read.add(files.path.resolve())
    finals = [Path(path) for path in (asked.json, asked.csv, asked.html) if path is not None]
    for final in finals:
        resolved = final.resolve()
        if resolved in read or (files is not None and files.path.resolve() in resolved.parents):
            raise UsageError(f"{final} is an input of this run; give the output another name")
    return finals


def _judge(
    raster: str | Path,
    files: ModelFiles | None,
    asked: EvaluateOptions,
    progress: Progress | None,
) -> tuple[Evaluation, Pictures, dict[int, RGB]]:
    """Compare a map, which a model makes first, with points or labels.

    Returns:
        What was found, pictures of map and labels, and the colours of the classes.
    """
    with ExitStack() as stack:
        run, probs = None, asked.probs
        if files is not None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="geoseg-")))
            run = map_scene(raster, folder, asked, progress, probs=asked.labels is not None)
            raster, probs = run.raster, folder / "probs.tif"
        opened = stack.enter_context(open_class_raster(raster, rules=asked.rules))
        if files is not None:
            opened = replace(opened, path=f"{files.card.name} on {scene_name(asked.scene)}")
        if asked.labels is not None:
            done, pictures = by_labels(opened, public_name(asked.labels), asked, probs)
        else:
            done, pictures = by_points(opened, public_name(str(asked.points)), asked)
        if files is not None and run is not None:
            done = with_model(done, files, run, asked.scene)
        done = replace(done, report={"geoseg": version("geoseg"), **done.report})
        of_map = [c["id"] for c in done.report["classes"] if c["id"] is not None]
        return done, pictures, class_colors(opened.dataset, of_map)


def _texts(
    done: Evaluation, pictures: Pictures, colors: Mapping[int, RGB], asked: EvaluateOptions
) -> dict[Path, str]:
    """Write the texts of the files that are asked for."""
    texts: dict[Path, str] = {}
    if asked.json is not None:
        texts[Path(asked.json)] = json_text(done.report, indent=2) + "\n"
    if asked.csv is not None:
        texts[Path(asked.csv)] = write_table(done.report)
    if asked.html is not None:
        texts[Path(asked.html)] = page(done.report, pictures, colors)
    return texts
