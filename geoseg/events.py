"""The protocol of progress: every event that a run sends, and its fields.

A function's ``progress`` is called with these dicts, and the command line's ``--progress json``
prints each as one line of strict JSON (UTF-8) on standard output. ``event`` says what an event is,
and ``stage`` what a progress event is about. A later version of geoseg may add events and fields
within a protocol's number; it renames or removes none.

Which events come, in this order:

- ``predict``: start, then progress, note and warning as they come, and result.
- ``predict --dry-run``: note and warning, and on the command line dry-run. The function returns
  what that holds.
- ``vectorize``, on the command line: progress and result.
- ``mosaic``: progress, note and warning as they come, and result.
- ``train``: progress, note, warning and log as they come, and result. Each stage of a recipe has
  its own count of steps.
- ``evaluate``: of a model start and progress of its prediction. On the command line warning and
  result, too.
- ``sample``, on the command line: warning and result.
- ``batch``: note and progress as they come, and on the command line result.
- ``batch --dry-run``: note, progress and warning as they come, and on the command line dry-run.
- On the command line alive comes wherever there would be no other line for a second; and a run
  whose events nobody reads any more ends as if it were interrupted, within some seconds.
- On the command line any of them ends with error where it fails, which may come first; a run that
  was interrupted has the code 130.

Events arrive in the thread that called, one at a time, but for training on several devices: there
they arrive in the first of the processes, to which the receiver is sent (it must be one that can
be pickled, a module's function, say). A receiver that raises ends the run.

The file is long because a program that reads the events needs the whole protocol in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "PROTOCOL",
    "AliveEvent",
    "ArchiveProgress",
    "BatchDryRunEvent",
    "BatchResult",
    "BorderProgress",
    "ChipsEstimate",
    "CloudsReport",
    "DryRunEvent",
    "ErrorEvent",
    "EvaluateResult",
    "Event",
    "GridReport",
    "ItemReport",
    "LogEvent",
    "MemoryReport",
    "ModelGridReport",
    "ModelReport",
    "MosaicProgress",
    "MosaicResult",
    "NoteEvent",
    "PlanProgress",
    "PlanReport",
    "PolygonsProgress",
    "PredictProgress",
    "PredictResult",
    "Progress",
    "RadiometryReport",
    "RefusedScene",
    "RuntimeReport",
    "SampleResult",
    "SceneReport",
    "ScenesProgress",
    "StartEvent",
    "TrainProgress",
    "TrainResult",
    "VectorizeResult",
    "WarningEvent",
]

#: The number of this protocol; StartEvent has it.
PROTOCOL = 1


class ModelReport(TypedDict):
    """The model of a plan; where there are several, the first one.

    Attributes:
        name: its card's.
        path: its folder or .zip.
        sha256: of its files.
        license: SPDX identifier, or ``other``.
        chosen: why it was taken, in words.
    """

    name: str
    path: str
    sha256: str
    license: str
    chosen: str


class RadiometryReport(TypedDict):
    """What the scene's numbers mean: quantity = number * gain + bias.

    Attributes:
        gain: one a band.
        bias: one a band.
        source: where they come from, in words.
        doubt: what to check, or "".
    """

    gain: list[float] | tuple[float, ...]
    bias: list[float] | tuple[float, ...]
    source: str
    doubt: str


class ItemReport(TypedDict):
    """The STAC item that a scene was opened from.

    Attributes:
        id: its identifier.
        collection: of which it is a part; None where it isn't said.
        href: its path or address; None where it isn't known.
        datetime: when the scene was acquired; None where it isn't said.
    """

    id: str
    collection: str | None
    href: str | None
    datetime: str | None


class CloudsReport(TypedDict):
    """The layer that says which pixels are clouds.

    Attributes:
        layer: its kind.
        source: the item's asset, or the product's file, that it is.
        buffer_m: how far around clouds all is left out, too, metres.
    """

    layer: str
    source: str
    buffer_m: float


class FillReport(TypedDict):
    """Numbers that are nodata although no tag says so.

    Attributes:
        numbers: as they stand in the files; 0 only where it is that in all bands.
        sampled_share: of the pixels of the whole scene that were looked at.
    """

    numbers: list[float | str]
    sampled_share: float


class SceneReport(TypedDict):
    """The scene.

    Attributes:
        name: without suffix.
        paths: its files, or URLs.
        sensor: its name; None where it is unknown.
        bands: the model's band -> the file's band, in words.
        radiometry: what its numbers mean.
        ignored: what of the scene is not used, a line each.
        item: the STAC item that it was opened from; None for other scenes.
        clouds: the layer by which clouds are left out; None where none is used.
        fill: numbers that are nodata although no tag says so; None where there are none.
    """

    name: str
    paths: list[str]
    sensor: str | None
    bands: dict[str, str]
    radiometry: RadiometryReport
    ignored: list[str]
    item: ItemReport | None
    clouds: CloudsReport | None
    fill: FillReport | None


class GridReport(TypedDict):
    """The output's pixel grid.

    Attributes:
        height: px.
        width: px.
        crs: authority and code, or WKT; None without one.
        transform: a, b, c, d, e, f of the affine transform from pixels to the CRS.
        gsd: metres per pixel, (x, y); None where they are unknown.
    """

    height: int
    width: int
    crs: str | None
    transform: list[float]
    gsd: list[float] | None


class ModelGridReport(TypedDict):
    """The pixel grid that the network sees.

    Attributes:
        height: px.
        width: px.
        resampled: whether it is another one than the output's.
    """

    height: int
    width: int
    resampled: bool


class PlanReport(TypedDict):
    """What was decided before any work.

    Attributes:
        model: the first one.
        members: the names of all models.
        scene: what was opened.
        grid: the output's pixel grid.
        model_grid: the pixel grid that the network sees.
        options: those of :class:`geoseg.prediction.options.PredictOptions`, without paths.
    """

    model: ModelReport
    members: list[str]
    scene: SceneReport
    grid: GridReport
    model_grid: ModelGridReport
    options: dict[str, Any]


class RuntimeReport(TypedDict):
    """What computes.

    Attributes:
        name: of the runtime.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        device: ``cpu``, ``cuda:0`` and the like.
        choice: why, in words.
    """

    name: str
    precision: str
    device: str
    choice: str


class MemoryReport(TypedDict):
    """The memory that a run may take.

    Attributes:
        limit_bytes: of the process in all.
        lanes: into which the scene is cut.
        arrays_bytes: of the widest lane's arrays.
    """

    limit_bytes: int
    lanes: int
    arrays_bytes: int


class StartEvent(PlanReport):
    """The plan is made, everything is checked, the network is loaded.

    Attributes:
        event: what it is.
        protocol: the number of the protocol, now 1.
        version: of geoseg.
        memory: what the run may take.
        runtime: what computes.
    """

    event: Literal["start"]
    protocol: int
    version: str
    memory: MemoryReport
    runtime: RuntimeReport


class PredictProgress(TypedDict):
    """How far the network is; at least a second apart, or at a finished strip.

    Attributes:
        event: what it is.
        stage: of what.
        done: px of the output.
        total: px of the output.
        mpx_s: million pixels a second.
        seconds_left: at this speed, rounded.
        bottleneck: what takes longest: ``reading``, ``computing`` or ``writing``.
    """

    event: Literal["progress"]
    stage: Literal["predict"]
    done: int
    total: int
    mpx_s: float
    seconds_left: int
    bottleneck: str


class PolygonsProgress(TypedDict):
    """How far the polygons are.

    Attributes:
        event: what it is.
        stage: of what.
        done: rows of the class raster.
        total: rows of the class raster.
    """

    event: Literal["progress"]
    stage: Literal["polygons"]
    done: int
    total: int


class BorderProgress(TypedDict):
    """How far the raster of the border is, or that of the applicability.

    Attributes:
        event: what it is.
        stage: of what.
        done: px of the output.
        total: px of the output.
    """

    event: Literal["progress"]
    stage: Literal["border", "applicability"]
    done: int
    total: int


class MosaicProgress(TypedDict):
    """How far the raster of a mosaic is; at least a second apart, and at its end.

    Attributes:
        event: what it is.
        stage: of what.
        done: windows of the mosaic.
        total: windows of the mosaic.
    """

    event: Literal["progress"]
    stage: Literal["mosaic"]
    done: int
    total: int


class ScenesProgress(TypedDict):
    """How far reading is before training, or a teacher's prediction of what was read.

    Attributes:
        event: what it is.
        stage: of what.
        done: scenes.
        total: scenes.
    """

    event: Literal["progress"]
    stage: Literal["scenes", "teacher"]
    done: int
    total: int


class ArchiveProgress(TypedDict):
    """How far an archive is; at least a second apart.

    Attributes:
        event: what it is.
        stage: of what.
        done: scenes that are done, or in quarantine.
        total: scenes that the run was asked for.
        running: scenes that workers are at.
        quarantined: scenes in quarantine.
        mpx_s: million pixels a second, of all workers.
        seconds_left: at this speed, rounded; None where that is not known.
    """

    event: Literal["progress"]
    stage: Literal["archive"]
    done: int
    total: int
    running: int
    quarantined: int
    mpx_s: float
    seconds_left: int | None


class PlanProgress(TypedDict):
    """How far the plan of an archive is; at least a second apart, and at its end.

    Attributes:
        event: what it is.
        stage: of what.
        done: scenes that were looked at.
        total: scenes of the manifest.
        refused: of those that were looked at.
    """

    event: Literal["progress"]
    stage: Literal["plan"]
    done: int
    total: int
    refused: int


class TrainProgress(TypedDict):
    """How far training is; at least a second apart, and at the last step.

    Attributes:
        event: what it is.
        stage: of what.
        done: steps of the optimizer.
        total: steps of the optimizer.
        loss: of the last one.
        seconds_left: at this speed, rounded.
    """

    event: Literal["progress"]
    stage: Literal["train"]
    done: int
    total: int
    loss: float
    seconds_left: int


class LogEvent(TypedDict):
    """A validation.

    Attributes:
        event: what it is.
        step: of the optimizer, a whole number.
        loss: on the training side, the mean since the validation before.
        learning_rate: of the step.
        scores: on the held-out side, by name and gsd: ``mean_iou_10m``, ``agreement_10m`` and,
            with a teacher, others; 0 to 1. NaN, in JSON null, where nothing was held out.
        seconds_left: of training, rounded.
    """

    event: Literal["log"]
    step: float
    loss: float
    learning_rate: float
    scores: dict[str, float]
    seconds_left: int


class NoteEvent(TypedDict):
    """Something that is good to know.

    Attributes:
        event: what it is.
        message: a line.
    """

    event: Literal["note"]
    message: str


class WarningEvent(TypedDict):
    """Something that may make the result wrong.

    Attributes:
        event: what it is.
        message: a line; the report has it, too.
    """

    event: Literal["warning"]
    message: str


class PredictResult(TypedDict):
    """The outputs are in place; those that were not asked for are left out.

    Attributes:
        event: what it is.
        raster: path of the class raster.
        vector: path of the polygons; also left out where they would have been too many.
        probs: path of the probabilities.
        confidence: path of the winning probability.
        agreement: path of the members' agreement.
        border: path of the raster of the border.
        applicability: path of the raster of the likeness to what was taught.
        preview: path of the picture.
        report: path of the JSON report.
    """

    event: Literal["result"]
    raster: str
    vector: NotRequired[str]
    probs: NotRequired[str]
    confidence: NotRequired[str]
    agreement: NotRequired[str]
    border: NotRequired[str]
    applicability: NotRequired[str]
    preview: NotRequired[str]
    report: str


class VectorizeResult(TypedDict):
    """The polygons are in place.

    Attributes:
        event: what it is.
        vector: their path.
        polygons: class -> how many.
    """

    event: Literal["result"]
    vector: str
    polygons: dict[str, int]


class BatchResult(TypedDict):
    """What could be done of an archive is done.

    Attributes:
        event: what it is.
        archive: path of its folder.
        counts: scenes by state: ``waiting``, ``running``, ``done``, ``quarantined``.
        stopped: why the run ended before all was done; "" else.
    """

    event: Literal["result"]
    archive: str
    counts: dict[str, int]
    stopped: str


class MosaicResult(TypedDict):
    """The mosaic is in place.

    Attributes:
        event: what it is.
        raster: path of the class raster, or of the virtual one.
        vector: path of the polygons; left out where they were not asked for, or would have been
            too many.
        maps: how many it was made of.
        report: path of the JSON report.
    """

    event: Literal["result"]
    raster: str
    vector: NotRequired[str]
    maps: int
    report: str


class EvaluateResult(TypedDict):
    """The accuracy is known, and the files that were asked for are in place.

    Attributes:
        event: what it is.
        files: their paths: of the reports, and of a model's card that was written.
        report: what the JSON report holds.
    """

    event: Literal["result"]
    files: list[str]
    report: dict[str, Any]


class SampleResult(TypedDict):
    """The points are in place.

    Attributes:
        event: what it is.
        vector: their path.
        points: class -> how many.
    """

    event: Literal["result"]
    vector: str
    points: dict[str, int]


class TrainResult(TypedDict):
    """The model is in place.

    Attributes:
        event: what it is.
        model: path of its folder.
    """

    event: Literal["result"]
    model: str


class ChipsEstimate(TypedDict):
    """Chips of a run to be.

    Attributes:
        total: all of them.
        run: those that the network sees.
        skipped: those without a measured pixel.
    """

    total: int
    run: int
    skipped: int


class DryRunEvent(PlanReport):
    """What a run would cost.

    Attributes:
        event: what it is.
        runtime: what would compute.
        chips: how many there would be.
        seconds: that it would take.
        memory_bytes: of the process at most.
        output_bytes: path -> bytes without compression, an upper bound.
        warnings: that were sent as events, too.
    """

    event: Literal["dry-run"]
    runtime: RuntimeReport
    chips: ChipsEstimate
    seconds: float
    memory_bytes: int
    output_bytes: dict[str, int]
    warnings: list[str]


class RefusedScene(TypedDict):
    """A scene that a run would put into quarantine.

    Attributes:
        name: of the scene.
        reason: why, a line.
    """

    name: str
    reason: str


class BatchDryRunEvent(TypedDict):
    """What a run over an archive would do and cost.

    Attributes:
        event: what it is.
        archive: path of its folder.
        files: paths of the plan's table, and of the same as GeoJSON.
        to_do: scenes that would be done.
        counts: scenes by state: ``new``, ``waiting``, ``recompute``, ``refused``, ``running``,
            ``done``, ``quarantined``.
        refused: scenes that are refused by kind.
        examples: a few of these.
        pixels: of all maps that would be made.
        worker_seconds: that this would take one worker; None where that is not known.
        wall_seconds: that it would take all workers; None where that is not known.
        bytes: of all files that would be made; None where that is not known.
        workers: that would be at work.
        price: worker-hours times the price of one; None where that is not known.
        basis: from what times and sizes are known.
    """

    event: Literal["dry-run"]
    archive: str
    files: list[str]
    to_do: int
    counts: dict[str, int]
    refused: dict[str, int]
    examples: list[RefusedScene]
    pixels: int
    worker_seconds: float | None
    wall_seconds: float | None
    bytes: int | None
    workers: int
    price: float | None
    basis: str


class AliveEvent(TypedDict):
    """The run is at work, and has nothing to report; on the command line alone.

    Attributes:
        event: what it is.
    """

    event: Literal["alive"]


class ErrorEvent(TypedDict):
    """The command failed; the last event, on the command line alone (functions raise).

    Attributes:
        event: what it is.
        code: the process's exit code: 1 failed, 2 wrong usage, 130 interrupted.
        message: a line, which is on standard error, too.
    """

    event: Literal["error"]
    code: int
    message: str


Event = (
    StartEvent
    | PredictProgress
    | PolygonsProgress
    | BorderProgress
    | MosaicProgress
    | ScenesProgress
    | ArchiveProgress
    | PlanProgress
    | TrainProgress
    | LogEvent
    | NoteEvent
    | WarningEvent
    | PredictResult
    | VectorizeResult
    | MosaicResult
    | EvaluateResult
    | SampleResult
    | BatchResult
    | TrainResult
    | DryRunEvent
    | BatchDryRunEvent
    | AliveEvent
    | ErrorEvent
)

#: What a run's ``progress`` is.
Progress = Callable[[Event], None]
