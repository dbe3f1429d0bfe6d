"""Training: a recipe, scenes and labels or a teacher in; a model folder out.

Here a run becomes stages, and a stage processes; :mod:`geoseg.training.setup` and
:mod:`geoseg.training.loop` are what each process does. ``<output>.training`` beside the output
holds checkpoint, log and curve (see :mod:`geoseg.training.run_folder`). A run that was stopped goes
on from there when the same command is given again, and ends with the same weights as one that was
never stopped.

What a run keeps to:

- A scene is read once, strip by strip, by the same reader as in prediction, into flat files that
  are mapped into memory: pixels as numbers, measured, target, side. Memory does not grow with the
  scenes.
- Side of a pixel: training, validation, or margin. A training chip may lie anywhere, but pixels of
  other sides are filled from the nearest of its own, as what was not measured is; so no chip ever
  knows a held-out pixel, whatever its size and place. When judged, a network sees held-out pixels
  and the margin.
- Scenes of one ground (the same place, or overlapping footprints) lie on one side: files go
  together, blocks are dealt once for all of them where they share a grid, and are refused where
  they do not.
- Chip number i depends on (seed, i), a step's batch on (seed, step): resuming, several processes
  and a pool of kept chips change nothing in what is drawn.
- With a teacher, a chip is changed first and the teacher answers for what it has become. Where it
  was sharpened, the card's temperature undoes it. On a CPU it runs in OpenVINO (three to four times
  torch's speed for the Dynamic World network).
- The first process reads, judges and writes; Lightning Fabric carries the others.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geoseg.cards.card import ModelCard
from geoseg.cards.files import read_model
from geoseg.core.jsontext import json_text
from geoseg.errors import OutputError, TrainingError, UsageError
from geoseg.events import Progress
from geoseg.networks import save_model
from geoseg.networks.device import pick_device
from geoseg.training.cross_validation import SCORES_NAME, leave_each_out, runs_of
from geoseg.training.digest import recipe_digest
from geoseg.training.loop import learn
from geoseg.training.make_recipe import make_recipe
from geoseg.training.network_setup import create_network, try_network
from geoseg.training.options import TrainOptions
from geoseg.training.process import Process, Reporter
from geoseg.training.recipe import TrainConfig
from geoseg.training.run_folder import RunFolder, kept_alone
from geoseg.training.schedules import TRAINING_PRECISIONS
from geoseg.training.setup import set_up
from geoseg.training.validation import scores_of

__all__ = ["train"]

#: In the folder of a stage that is over: of what recipe it is.
DIGEST_NAME = "recipe.sha256"


def train(
    config: str | Path | TrainConfig | None,
    output: str | Path,
    *,
    resume: bool = True,
    progress: Progress | None = None,
    device: str = "auto",
    devices: int = 1,
    threads: int | None = None,
    **options: Any,
) -> ModelCard:
    """Train a model and write its folder.

    Args:
        config: a recipe (see :class:`geoseg.training.recipe.TrainConfig`), or the path of its file;
            None makes one from the options ``images`` and ``labels``.
        output: the new model folder. ``<output>.training`` keeps checkpoint, log, curve, recipe,
            TensorBoard events and the held-out labels as rasters.
        resume: go on from a checkpoint that is there; False starts from the first step.
        progress: called with each event (see :mod:`geoseg.events`): in this thread, or with several
            devices in the first one's process.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        devices: how many GPUs (or, on the CPU, processes) share each batch, through Lightning
            Fabric.
        threads: how many compute on a CPU; None leaves one core to the making of chips.
        **options: the fields of :class:`geoseg.training.options.TrainOptions`, where config is no
            :class:`~geoseg.training.recipe.TrainConfig`.

    Returns:
        The card that was written, with the scores on the held-out side.

    Raises:
        OutputError: the output exists already, can't be written, or another run is at work on it.
        TrainingError: the recipe is wrong, labels don't fit, the loss is no number, or the
            checkpoint is of another recipe.
        SceneError: a scene can't be read.
        ModelError: the teacher can't be read, or the network does not take its options.
        DeviceError: the device isn't there.
        UsageError: options are missing or contradict each other.

    Example:
        >>> import geoseg
        >>> card = geoseg.train(  # doctest: +SKIP
        ...     None, "mymodel", images=["scene.tif"], labels=["fields.gpkg"], column="crop"
        ... )
    """
    output, devices = Path(output), int(devices)
    threads = None if threads is None else int(threads)
    if output.exists():
        raise OutputError(f"{output} exists already; give another folder, or remove it first")
    if not isinstance(config, TrainConfig):
        config = make_recipe(TrainOptions(config=config, **options), output)
    elif options:
        raise UsageError(f"{', '.join(options)}: a recipe says so itself; change the recipe")
    where = pick_device(device)
    stages, runs = config.in_stages(), runs_of(config)
    _check_devices((*stages, *runs.values()), where, devices)
    how = (resume, where, progress, devices, threads)
    if runs:
        folder = RunFolder(output, "")

        def train_one(run: TrainConfig, part: Path) -> ModelCard:
            Reporter(progress).note(f"without {part.name}: {run.steps} steps")
            return _train_stages((run,), part, *how, keep_digest=True)

        with kept_alone(folder.path):
            scores = leave_each_out(config, folder.path / "without", train_one)
            folder.write(SCORES_NAME, json_text(scores, indent=1).encode() + b"\n")
    card = _train_stages(stages, output, *how)
    Reporter(progress)({"event": "result", "model": str(output)})
    return card


def _check_devices(stages: Sequence[TrainConfig], where: torch.device, devices: int) -> None:
    """Refuse a batch that the devices can't share, and a precision that they don't have.

    Raises:
        TrainingError: a stage asks for one.
    """
    for stage in stages:
        if devices < 1 or stage.batch % devices:
            raise TrainingError(
                f"batch is {stage.batch} chips for {devices} devices; it must be a multiple of them"
            )
        if stage.precision == "float16" and where.type != "cuda":
            raise TrainingError(
                f"precision is float16 and the device {where.type}; float16 is for CUDA: use "
                f"bfloat16"
            )


def _train_stages(
    stages: Sequence[TrainConfig],
    output: Path,
    resume: bool,
    where: torch.device,
    progress: Progress | None,
    devices: int,
    threads: int | None,
    keep_digest: bool = False,
) -> ModelCard:
    """Train one stage after the other; each begins with the weights of the one before.

    A stage that is over is a model folder in the run's folder, and is not trained again; nor is the
    output, where its digest is kept.
    """
    parts = RunFolder(output, "").path
    outputs = [*(parts / f"stage{number}" for number in range(1, len(stages))), output]
    report = Reporter(progress)
    with kept_alone(parts):
        if not resume:
            for part in outputs:
                RunFolder(part, "").forget()
            for part in outputs if keep_digest else outputs[:-1]:
                shutil.rmtree(part, ignore_errors=True)
        for number, (stage, part) in enumerate(zip(stages, outputs, strict=True), start=1):
            if number > 1:
                stage = replace(stage, start=outputs[number - 2])
            if part.exists():
                _check_stage(part, stage)
                card = read_model(part).card
                continue
            if len(stages) > 1:
                report.note(f"stage {number} of {len(stages)}: {stage.steps} steps")
            card = _launch(stage, part, where, progress, devices, threads)
            if part != output or keep_digest:
                (part / DIGEST_NAME).write_text(recipe_digest(stage) + "\n", encoding="ascii")
    return card


def _check_stage(part: Path, config: TrainConfig) -> None:
    """Refuse a finished stage of another recipe.

    Raises:
        TrainingError: it is one, or its scenes or labels have changed.
    """
    file = part / DIGEST_NAME
    if not file.exists() or file.read_text(encoding="ascii").strip() != recipe_digest(config):
        raise TrainingError(
            f"{part} is a stage of another recipe, or scenes or labels have changed since; train "
            f"from the first step (--no-resume), or give another output folder"
        )


def _launch(
    config: TrainConfig,
    output: Path,
    where: torch.device,
    progress: Progress | None,
    devices: int,
    threads: int | None,
) -> ModelCard:
    """Train one stage, in one process or several."""
    from lightning_fabric import Fabric

    # It would write about precision and tensor cores in the middle of the progress. Not
    # its parent, whose level is set whenever it is imported.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)

    accelerator = "gpu" if where.type == "cuda" else where.type
    fabric = Fabric(
        accelerator=accelerator,
        devices=[where.index] if where.index is not None else devices,
        strategy="auto" if devices == 1 else "ddp_spawn",
        precision=TRAINING_PRECISIONS[config.precision],  # type: ignore[arg-type]
    )
    if devices == 1:
        return _run(fabric, config, output, progress, threads)
    from torch.multiprocessing.spawn import ProcessRaisedException

    try:
        fabric.launch(_Processes(config, output, progress, threads))
    except ProcessRaisedException as error:
        # The text ends with the line of the error that one of the processes raised.
        kind, _, message = str(error).strip().splitlines()[-1].partition(": ")
        if not kind.startswith("geoseg."):
            raise
        raise TrainingError(message) from error
    return read_model(output).card


class _Processes:
    """Does what each of several processes does.

    Neither the arguments nor the result may be a frozen dataclass: Fabric takes those apart.
    """

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __call__(self, fabric: Any) -> None:
        _run(fabric, *self._arguments)


def _run(
    fabric: Any,
    config: TrainConfig,
    output: Path,
    progress: Progress | None,
    threads: int | None,
) -> ModelCard:
    """Do what one process of a stage does."""
    report = Reporter(progress if fabric.global_rank == 0 else None)
    folder = RunFolder(output, recipe_digest(config))
    process = Process(fabric, config, folder, report)
    checkpoint = folder.read()
    with _threads(threads, fabric.device):
        network = create_network(config).to(fabric.device)
        try_network(config, network, fabric.device)
        if process.first:
            folder.prepare()
        fabric.barrier()
        try:
            return _learn_and_save(process, network, checkpoint, output)
        finally:
            if process.first:
                folder.clean()


def _learn_and_save(
    process: Process, network: nn.Module, checkpoint: dict[str, Any] | None, output: Path
) -> ModelCard:
    """Learn, and in the first process judge what was learned and write the model folder."""
    setup = set_up(process, network)
    state = learn(process, setup, network, checkpoint)
    if not process.first:
        return setup.card
    chosen, step = state.chosen()
    scores = scores_of(process.config, chosen, setup.scenes, setup.card)
    left_out = process.folder.path / SCORES_NAME
    if left_out.exists():
        scores["cross_validation"] = json.loads(left_out.read_text(encoding="utf-8"))
    card = setup.card.with_scores(**scores, weights_of_step=step)
    save_model(card, chosen.to(memory_format=torch.contiguous_format), output)
    process.folder.forget()
    return card


@contextmanager
def _threads(threads: int | None, device: torch.device) -> Iterator[None]:
    """Set torch's threads on a CPU, and put them back afterwards."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        spare = max(1, (os.cpu_count() or 1) - 1)
        torch.set_num_threads(threads or min(before, spare))
    try:
        yield
    finally:
        torch.set_num_threads(before)
