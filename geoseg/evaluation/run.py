"""How right a class raster or a model is: against labelled points, or against labels.

Points that were drawn by chance tell the accuracy of the map and the true areas of the classes,
with intervals (see :mod:`geoseg.evaluation.area_estimates`). Labels, as a raster or as polygons,
tell how their own pixels agree with the map (see :mod:`geoseg.evaluation.by_labels`), and nothing
of the ground that they leave out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from geoseg.cards.card import CARD_NAME
from geoseg.cards.files import ModelFiles, card_text
from geoseg.core.jsontext import builtin, json_text
from geoseg.core.names import public_name
from geoseg.core.staging import Staging, explain_write_error
from geoseg.errors import EvaluationError, OutputError, UsageError
from geoseg.evaluation.by_labels import compare
from geoseg.evaluation.csv_table import write_table
from geoseg.evaluation.html_page import page
from geoseg.evaluation.points import by_points
from geoseg.evaluation.result import Evaluation
from geoseg.evaluation.thumbnails import Pictures, class_colors
from geoseg.rasters.class_raster import open_class_raster
from geoseg.scene.scene import is_remote
from geoseg.scene.sources import Rules
from geoseg.zoo import check_changeable, find_model, list_embedded

if TYPE_CHECKING:
    from geoseg.events import Event, Progress
    from geoseg.prediction.run import Prediction

__all__ = ["evaluate"]


def evaluate(
    raster: str | Path,
    *,
    points: str | Path | None = None,
    labels: str | Path | None = None,
    column: str | None = None,
    ignore: Sequence[int | str] = (),
    colors: Sequence[str] = (),
    scene: str | Path | Sequence[str | Path] | None = None,
    bands: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    src_nodata: float | None = None,
    input_root: str | Path | Sequence[str | Path] = (),
    allow_vrt: str = "local",
    device: str = "auto",
    threads: int | None = None,
    probs: str | Path | None = None,
    boundary_tolerance: float | None = None,
    json: str | Path | None = None,
    csv: str | Path | None = None,
    html: str | Path | None = None,
    write_card: bool = False,
    write_temperature: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare a class raster, or a model's map of a scene, with what is really there.

    Rasters are read strip by strip, so that memory does not depend on their height. Polygons are
    held whole.

    Args:
        raster: class raster; its classes are those in its tags, or where it has none, those of
            its pixels. With ``scene``, a model: an embedded one's name, or a folder or .zip.
        points: vector file of labelled points: a random sample with the map's classes as strata,
            as :func:`geoseg.sample` draws it; or
        labels: raster of labels on any grid, with the map's ids, or vector file of polygons; in
            any CRS. At the centre of each of the map's pixels the label is taken that is there.
            Where polygons of different classes overlap, there is none.
        column: of points or polygons, with the name or id of the class that is really there, empty
            where nobody looked.  [default: reference for points, class_id for polygons] Points of
            a class that the map has not are errors of the map.
        ignore: labels that mean no class ("cloud", 0): ids, or for points and polygons names, too.
        colors: of labels that are a mask in class colours, each as "NAME=#RRGGBB"; any other
            colour is ignored.
        scene: what the model maps, as :func:`geoseg.predict` takes it. The map and its
            probabilities go into the system's temporary folder (TMPDIR) and are removed.
        bands: of the scene, and the next five, see
            :class:`geoseg.prediction.options.PredictOptions`.
        scale: quantity per number.
        offset: quantity at number 0.
        src_nodata: the scene's number for "not measured".
        input_root: folders into which files may point, see
            :class:`geoseg.prediction.options.PredictOptions`.
        allow_vrt: ``any`` lets files point anywhere.
        device: where the model runs.
        threads: for computing on a CPU.
        probs: raster of the map's probabilities, as ``geoseg predict --probs`` writes it: they are
            compared with how often the map is right (see :mod:`geoseg.evaluation.calibration`). A
            model's are at hand anyway.
        boundary_tolerance: metres by which a border may lie elsewhere (see
            :mod:`geoseg.evaluation.boundary_f1`); by default twice the side of a pixel in the map's
            middle.
        json: file for the report.
        csv: file for a table, one measure a line.
        html: file for a page with tables and pictures.
        write_card: put the scores into the card of the model, under ``evaluations``.
        write_temperature: put the temperature that fits these labels into the card, so that the
            model's probabilities are right on average from then on.
        overwrite: replace files that exist.
        progress: called with those of :mod:`geoseg.events` while the model runs.

    Returns:
        For points, accuracies and areas with 95 % intervals; for labels, the measures of
        :mod:`geoseg.evaluation.metrics`, :mod:`geoseg.evaluation.boundary_f1`,
        :mod:`geoseg.evaluation.polygon_scores` (polygons only) and
        :mod:`geoseg.evaluation.calibration` (with probabilities).

    Raises:
        UsageError: the options contradict each other, or a vector file lacks the column.
        SceneError: a raster can't be read.
        ModelError: the model can't be read.
        EvaluationError: map and labels don't overlap, can't be brought together, or differ in
            their classes; or the sample tells nothing.
        OutputError: a file can't be written.
    """
    if (points is None) == (labels is None):
        raise UsageError("give either points (--points) or labels (--labels)")
    if points is not None:
        for option, value in (("--probs", probs), ("--boundary-tolerance", boundary_tolerance)):
            if value is not None:
                raise UsageError(f"{option} is for labels; leave it out with --points")
    if colors and (points is not None or column is not None or ignore):
        raise UsageError(
            "--class gives the colours of a mask (--labels), of which all others are ignored; "
            "leave --points, --column and --ignore out"
        )
    boundary_tolerance = builtin(boundary_tolerance)
    if boundary_tolerance is not None and not 0 <= boundary_tolerance < math.inf:
        raise UsageError(
            f"the boundary tolerance is {boundary_tolerance:g} m; it must be at least 0"
        )
    rules = Rules.of(input_root, allow_vrt)
    reading = {"bands": bands, "scale": scale, "offset": offset, "src_nodata": src_nodata}
    files = None if scene is None else find_model(raster)
    _check_model_options(raster, files, {**reading, "threads": threads}, probs, labels)
    card = _card_to_write(files, write_card, write_temperature, labels)
    truth = points if labels is None else labels
    finals = [Path(path) for path in (json, csv, html) if path is not None]
    inputs = [truth, probs, *([raster] if scene is None else _paths(scene))]
    read = {Path(p).resolve() for p in inputs if p is not None and not is_remote(str(p))}
    if files is not None:
        read.add(files.path.resolve())
    for final in finals:
        resolved = final.resolve()
        if resolved in read or (files is not None and files.path.resolve() in resolved.parents):
            raise UsageError(f"{final} is an input of this run; give the output another name")
    finals += [card] if card is not None else []
    with (
        Staging(finals, overwrite=overwrite, replaced=[card] if card else []) as staging,
        ExitStack() as stack,
    ):
        run = None
        if files is not None and scene is not None:
            wanted: dict[str, Any] = {**reading, "device": device, "threads": threads}
            wanted |= {"input_root": rules.roots, "allow_vrt": rules.vrt}
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="geoseg-")))
            run = _run(raster, scene, folder, labels is not None, progress, wanted)
            raster, probs = run.raster, folder / "probs.tif"
        opened = stack.enter_context(open_class_raster(raster, rules=rules))
        if files is not None:
            opened = replace(opened, path=f"{files.card.name} on {_stem(scene)}")
        if labels is not None:
            found = compare(
                opened,
                public_name(labels),
                column=column,
                ignore=ignore,
                colors=colors,
                probs=probs,
                tolerance=boundary_tolerance,
                rules=rules,
            )
            done = Evaluation(found.report, found.matrix, None, found.warnings)
            pictures: Pictures | None = found.pictures
        else:
            truth = public_name(str(points))
            done, pictures = by_points(opened, truth, column or "reference", ignore, rules)
        if files is not None and run is not None:
            done = _with_model(done, files, run, scene)
        done = replace(done, report={"geoseg": version("geoseg"), **done.report})
        of_map = [c["id"] for c in done.report["classes"] if c["id"] is not None]
        inks = class_colors(opened.dataset, of_map)
        texts: dict[Path, str] = {}
        if json is not None:
            texts[Path(json)] = json_text(done.report, indent=2) + "\n"
        if csv is not None:
            texts[Path(csv)] = write_table(done.report)
        if html is not None:
            texts[Path(html)] = page(done.report, pictures, inks)
        if card is not None and files is not None:
            texts[card] = _new_card(files, done.report, scene, write_card, write_temperature)
        for path, text in texts.items():
            try:
                staging.path(path).write_text(text, encoding="utf-8", newline="")
            except OSError as error:
                raise explain_write_error(error, path) from error
        staging.publish(finals)
    return done


# Models


def _check_model_options(
    raster: str | Path,
    files: ModelFiles | None,
    reading: dict[str, Any],
    probs: str | Path | None,
    labels: str | Path | None,
) -> None:
    """Refuse options that only a model has, without one, and the other way round.

    Raises:
        UsageError: it is so.
    """
    if files is not None:
        if probs is not None:
            raise UsageError("--probs is of a map; a model's probabilities are at hand: leave it")
        return
    given = [name for name, value in reading.items() if value is not None]
    if given:
        raise UsageError(
            f"--{given[0].replace('_', '-')} says how a model reads its scene; give a model and "
            f"--scene, or leave it out"
        )
    path = Path(raster)
    known = not path.exists() and str(raster) in list_embedded()
    if known or path.is_dir() or path.suffix.lower() == ".zip":
        raise UsageError(
            f"{raster} is a model, not a map; say with --scene what it shall map, or give a class "
            f"raster"
        )


def _card_to_write(
    files: ModelFiles | None, scores: bool, temperature: bool, labels: str | Path | None
) -> Path | None:
    """The card's file, where it shall be written.

    Raises:
        UsageError: it can't be.
    """
    if not (scores or temperature):
        return None
    option = "--write-card" if scores else "--write-temperature"
    if files is None:
        raise UsageError(f"{option} writes into a model's card; give a model and --scene")
    check_changeable(files, option)
    if temperature and labels is None:
        raise UsageError("--write-temperature needs --labels: points are too few to fit it")
    if temperature and files.card.activation != "softmax":
        raise UsageError(
            f"the model's activation is {files.card.activation}; a temperature is of softmax: "
            f"leave --write-temperature out"
        )
    return files.path / CARD_NAME


def _paths(scene: str | Path | Sequence[str | Path]) -> list[str]:
    return [public_name(s) for s in ([scene] if isinstance(scene, str | Path) else scene)]


def _stem(scene: Any) -> str:
    return Path(_paths(scene)[0].split("?")[0]).name


def _run(
    model: str | Path,
    scene: str | Path | Sequence[str | Path],
    folder: Path,
    probs: bool,
    progress: Progress | None,
    options: dict[str, Any],
) -> Prediction:
    """A model's map of a scene, and its probabilities as floats, in a folder."""
    from geoseg.prediction.run import predict  # maps are judged without torch

    def hear(event: Event) -> None:
        # Warnings are in the report, and would be heard twice.
        if progress is not None and event["event"] in ("start", "progress"):
            progress(event)

    try:
        return predict(
            scene,
            folder / "map.tif",
            model=model,
            probs=folder / "probs.tif" if probs else None,
            probs_dtype="float32",
            no_vector=True,
            progress=hear,
            **options,
        )
    except OutputError as error:
        raise OutputError(
            f"the map and its probabilities can't be kept in the temporary folder {folder.parent} "
            f"({error}); set TMPDIR to a folder with more room"
        ) from error


def _with_model(done: Evaluation, files: ModelFiles, run: Prediction, scene: Any) -> Evaluation:
    """An evaluation that says which model was judged, on what, and how quick it was.

    Mpx/s are measured pixels by the time from the first chip to the finished files: what is spent
    once, on planning and loading, is left out.
    """
    seconds = run.report["seconds"]
    spent = seconds["total"] - seconds["plan"] - seconds["load"]
    report = {
        "model": {
            "name": files.card.name,
            "path": str(files.path),
            "sha256": files.sha256,
            "temperature": files.card.temperature,
        },
        "scene": _paths(scene),
        "speed": {
            "mpx_s": run.report["pixels"]["valid"] / 1e6 / max(spent, 1e-3),
            "seconds": seconds,
            "device": run.report["runtime"]["device"],
        },
        **done.report,
    }
    if "calibration" in report:
        report["calibration"]["probs"] = report["map"]  # those in the folder are gone by then
    warnings = (*run.report["warnings"], *done.warnings)
    report["warnings"] = list(warnings)
    return replace(done, report=report, warnings=warnings)


def _new_card(
    files: ModelFiles, report: dict[str, Any], scene: Any, scores: bool, temperature: bool
) -> str:
    """The card's new text.

    Raises:
        EvaluationError: no temperature fits.
    """
    card = files.card
    if scores:
        truth = report.get("labels") or report["points"]
        entry: dict[str, Any] = {"scene": _stem(scene), "counted": report["counted"]}
        if card.temperature != 1.0:
            entry["temperature"] = card.temperature
        if "measures" in report:
            entry["measures"] = report["measures"]
            entry["iou"] = {c["name"]: c["iou"] for c in report["classes"]}
            found = report["calibration"]
            entry["calibration"] = {k: v for k, v in found.items() if k != "probs"}
        else:
            entry["overall_accuracy"] = report["overall_accuracy"]
            for name in ("users_accuracy", "producers_accuracy"):
                entry[name] = {c["name"]: c[name] for c in report["classes"]}
        earlier = card.scores.get("evaluations", {})
        kept = dict(earlier) if isinstance(earlier, Mapping) else {"earlier": earlier}
        card = card.with_scores(evaluations={**kept, f"{_stem(scene)} with {_stem(truth)}": entry})
    if temperature:
        fitted = report["calibration"]["temperature"]["value"]
        if fitted is None:
            raise EvaluationError(
                f"no temperature of 0.02 to 50 fits {report['labels']}, so none was written; all "
                f"pixels are right, or probabilities tell nothing: leave --write-temperature out"
            )
        # What was fitted softens probabilities that the card's own temperature had softened.
        card = replace(card, temperature=files.card.temperature * fitted)
    return card_text(card)


# Points
