"""A model is judged by the map that it makes of a scene; its card may take the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.cards.card import CARD_NAME
from geoseg.cards.files import ModelFiles, card_text
from geoseg.core.names import public_name
from geoseg.errors import EvaluationError, OutputError, UsageError
from geoseg.evaluation.options import EvaluateOptions
from geoseg.evaluation.result import Evaluation
from geoseg.zoo import check_changeable, list_embedded

if TYPE_CHECKING:
    from geoseg.events import Event, Progress
    from geoseg.prediction.run import Prediction

__all__ = [
    "card_to_write",
    "check_model_options",
    "map_scene",
    "new_card",
    "scene_name",
    "scene_paths",
    "with_model",
]


def check_model_options(
    raster: str | Path, files: ModelFiles | None, options: EvaluateOptions
) -> None:
    """Refuse options that only a model has, without one, and the other way round.

    Args:
        raster: the map, or the model.
        files: of the model; None for a map.
        options: of the user.

    Raises:
        UsageError: there is one.
    """
    if files is not None:
        if options.probs is not None:
            raise UsageError("--probs is of a map; a model's probabilities are at hand: leave it")
        return
    reading = {**options.reading, "threads": options.threads}
    given = [name for name, value in reading.items() if value is not None and value is not False]
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


def card_to_write(files: ModelFiles | None, options: EvaluateOptions) -> Path | None:
    """Find the file of the card that is to be written; None where none is.

    Args:
        files: of the model; None for a map.
        options: of the user.

    Raises:
        UsageError: there is no card, it must not be changed, or the options don't suit it.
    """
    if not (options.write_card or options.write_temperature):
        return None
    option = "--write-card" if options.write_card else "--write-temperature"
    if files is None:
        raise UsageError(f"{option} writes into a model's card; give a model and --scene")
    check_changeable(files, option)
    if options.write_temperature and options.labels is None:
        raise UsageError("--write-temperature needs --labels: points are too few to fit it")
    if options.write_temperature and files.card.activation != "softmax":
        raise UsageError(
            f"the model's activation is {files.card.activation}; a temperature is of softmax: "
            f"leave --write-temperature out"
        )
    return files.path / CARD_NAME


def scene_paths(scene: str | Path | Sequence[str | Path]) -> list[str]:
    """List a scene's paths as they may be shown."""
    return [public_name(s) for s in ([scene] if isinstance(scene, str | Path) else scene)]


def scene_name(scene: Any) -> str:
    """Give a scene or labels the name of the first file, without folders."""
    return Path(scene_paths(scene)[0].split("?")[0]).name


def map_scene(
    model: str | Path,
    folder: Path,
    options: EvaluateOptions,
    progress: Progress | None,
    *,
    probs: bool,
) -> Prediction:
    """Map a scene with a model into a folder: ``map.tif``, and where asked for ``probs.tif``.

    Args:
        model: a path or an embedded model's name.
        folder: for both, empty.
        options: of the user, with a scene.
        progress: called with the events of the run, but for its warnings.
        probs: whether probabilities are wanted.

    Raises:
        GeosegError: see :func:`geoseg.predict`.
        OutputError: the folder can't hold them.
    """
    from geoseg.prediction.run import predict  # maps are judged without torch

    def hear(event: Event) -> None:
        # Warnings are in the report, and would be heard twice.
        if progress is not None and event["event"] in ("start", "progress"):
            progress(event)

    assert options.scene is not None
    try:
        return predict(
            options.scene,
            folder / "map.tif",
            model=model,
            probs=folder / "probs.tif" if probs else None,
            probs_dtype="float32",
            no_vector=True,
            progress=hear,
            **options.reading,
            device=options.device,
            threads=options.threads,
            input_root=options.rules.roots,
            allow_vrt=options.rules.vrt,
        )
    except OutputError as error:
        raise OutputError(
            f"the map and its probabilities can't be kept in the temporary folder {folder.parent} "
            f"({error}); set TMPDIR to a folder with more room"
        ) from error


def with_model(done: Evaluation, files: ModelFiles, run: Prediction, scene: Any) -> Evaluation:
    """Add which model was judged, on what scene, and how quick it was.

    Mpx/s are measured pixels by the time from the first chip to the finished files: what is spent
    once, on planning and loading, is left out.

    Args:
        done: of the map.
        files: of the model.
        run: that made the map.
        scene: that was mapped.
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
        "scene": scene_paths(scene),
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


def new_card(files: ModelFiles, report: dict[str, Any], options: EvaluateOptions) -> str:
    """Write the text of a card with the scores, the temperature, or both.

    Args:
        files: of the model.
        report: of its evaluation.
        options: of the user, with a scene.

    Raises:
        EvaluationError: no temperature fits.
    """
    card = files.card
    if options.write_card:
        truth = report.get("labels") or report["points"]
        scene = scene_name(options.scene)
        entry = {"scene": scene, **_scores(report, card.temperature)}
        earlier = card.scores.get("evaluations", {})
        kept = dict(earlier) if isinstance(earlier, Mapping) else {"earlier": earlier}
        card = card.with_scores(evaluations={**kept, f"{scene} with {scene_name(truth)}": entry})
    if options.write_temperature:
        fitted = report["calibration"]["temperature"]["value"]
        if fitted is None:
            raise EvaluationError(
                f"no temperature of 0.02 to 50 fits {report['labels']}, so none was written; all "
                f"pixels are right, or probabilities say nothing: leave --write-temperature out"
            )
        # What was fitted softens probabilities that the card's own temperature had softened.
        card = replace(card, temperature=files.card.temperature * fitted)
    return card_text(card)


def _scores(report: dict[str, Any], temperature: float) -> dict[str, Any]:
    """Choose what of a report a card keeps."""
    scores: dict[str, Any] = {"counted": report["counted"]}
    if temperature != 1.0:
        scores["temperature"] = temperature
    if "measures" in report:
        scores["measures"] = report["measures"]
        scores["iou"] = {c["name"]: c["iou"] for c in report["classes"]}
        found = report["calibration"]
        scores["calibration"] = {k: v for k, v in found.items() if k != "probs"}
    else:
        scores["overall_accuracy"] = report["overall_accuracy"]
        for name in ("users_accuracy", "producers_accuracy"):
            scores[name] = {c["name"]: c[name] for c in report["classes"]}
    return scores
