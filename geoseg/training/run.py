"""Training: a recipe, scenes and labels or a teacher in; a model folder out.

``<output>.training`` beside the output holds checkpoint, log and curve (see
:mod:`geoseg.training.run_folder`). A run that was stopped goes on from there when the same command
is given again, and ends with the same weights as one that was never stopped.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geoseg.cards.card import ModelCard, Normalization
from geoseg.cards.files import read_model
from geoseg.core.prefetch import prefetch
from geoseg.errors import OutputError, TrainingError, UsageError
from geoseg.evaluation.metrics import mean_iou
from geoseg.events import LogEvent, Progress
from geoseg.networks import save_model
from geoseg.networks.create import chip_multiple
from geoseg.networks.device import pick_device
from geoseg.networks.normalize import normalize
from geoseg.scene.scene import first_line
from geoseg.training.chips import Chip, ChipSource
from geoseg.training.held_out import shown_size, write_held_out
from geoseg.training.loss_spec import make_loss
from geoseg.training.make_recipe import TrainOptions, make_recipe
from geoseg.training.recipe import TrainConfig
from geoseg.training.recipe_file import dump_config
from geoseg.training.run_folder import RECIPE_NAME, RunFolder, Teller, kept_alone
from geoseg.training.scenes import TrainingScene, teach
from geoseg.training.schedules import OPTIMIZERS, SCHEDULES, TRAINING_PRECISIONS
from geoseg.training.setup import (
    card_to_be,
    class_weights,
    create_network,
    find_normalization,
    parameter_groups,
    read_scenes,
    recipe_digest,
    shown_split,
    try_network,
    white_of,
)
from geoseg.training.sides import split_scenes
from geoseg.training.targets import load_teacher
from geoseg.training.validation import check_gsds, judge, scores_of

__all__ = ["train"]

#: The label of pixels without a target; no class's channel, however many there are.
IGNORED = -1
#: Seconds after which a checkpoint is written between two validations, too.
SAVE_EVERY = 180.0
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
        progress: called with those of :mod:`geoseg.events`: in this thread, or with several
            devices in the first one's process.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        devices: how many GPUs (or, on the CPU, processes) share each batch, through Lightning
            Fabric.
        threads: for computing on a CPU; None leaves one core to the making of chips.
        **options: the fields of :class:`geoseg.training.make_recipe.TrainOptions`, where config is
            no :class:`~geoseg.training.recipe.TrainConfig`.

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
    stages = config.in_stages()
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
    parts = RunFolder(output, "").path
    outputs = [*(parts / f"stage{number}" for number in range(1, len(stages))), output]
    tell = Teller(progress)
    with kept_alone(parts):
        if not resume:
            for part in outputs:
                RunFolder(part, "").forget()
            for part in outputs[:-1]:
                shutil.rmtree(part, ignore_errors=True)
        for number, (stage, part) in enumerate(zip(stages, outputs, strict=True), start=1):
            if number > 1:
                stage = replace(stage, start=outputs[number - 2])
            if part.exists():
                _check_stage(part, stage)
                continue
            if len(stages) > 1:
                tell.note(f"stage {number} of {len(stages)}: {stage.steps} steps")
            card = _launch(stage, part, where, progress, devices, threads)
            if part != output:
                (part / DIGEST_NAME).write_text(recipe_digest(stage) + "\n", encoding="ascii")
    tell({"event": "result", "model": str(output)})
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
    """One stage, in one process or several."""
    from lightning_fabric import Fabric

    # It would tell the user about precision and tensor cores, in the middle of the progress. Not
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
    """What each of several processes does.

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
    """One process of a run; the first one reads, judges and writes."""
    tell = Teller(progress if fabric.global_rank == 0 else None)
    folder = RunFolder(output, recipe_digest(config))
    state = folder.read()
    with _threads(threads, fabric.device):
        network = create_network(config).to(fabric.device)
        try_network(config, network, fabric.device)
        if fabric.global_rank == 0:
            folder.prepare()
        fabric.barrier()
        try:
            return _learn(fabric, config, output, folder, state, network, tell)
        finally:
            if fabric.global_rank == 0:
                folder.clean()


def _learn(
    fabric: Any,
    config: TrainConfig,
    output: Path,
    folder: RunFolder,
    state: dict[str, Any] | None,
    network: nn.Module,
    tell: Teller,
) -> ModelCard:
    first_process = fabric.global_rank == 0
    teacher = load_teacher(config, fabric.device)
    bands = tuple(dict.fromkeys((*config.bands, *(teacher.card.bands if teacher else ()))))
    scenes = read_scenes(fabric, config, bands, folder, tell)
    if first_process:
        if teacher is not None:
            for number, scene in enumerate(scenes, start=1):
                teach(scene, teacher, [bands.index(b) for b in teacher.card.bands])
                tell(
                    {"event": "progress", "stage": "teacher", "done": number, "total": len(scenes)}
                )
        for doubt in split_scenes(config, scenes):
            tell.warn(doubt)
        folder.write(RECIPE_NAME, dump_config(config).encode())
        write_held_out(folder.held_out, scenes, config.classes)
    fabric.barrier()
    if config.split.by == "random":
        tell.warn(
            "the split is random: training and validation chips are neighbours and look alike, so "
            "the scores flatter; split by blocks or files for honest ones"
        )
    normalization = find_normalization(config, scenes)
    source = ChipSource(config, scenes, bands, white_of(config, scenes), teacher)
    missing = [c.name for c, n in zip(config.classes, source.class_pixels, strict=True) if n == 0]
    if missing and teacher is None:
        tell.warn(f"no training pixel is {', '.join(missing)}: the model can't learn it")
    tell.note(f"{shown_size(scenes)}; {shown_split(config, scenes)}")
    card = card_to_be(config, normalization, chip_multiple(network))
    if first_process:
        check_gsds(config, scenes, card)
    loss = make_loss(
        config.loss,
        weight=class_weights(config, source),
        ignore_index=IGNORED,
        aux_weight=config.aux_weight,
    )

    # On a CPU this is about a third quicker.
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    optimizer = OPTIMIZERS[config.optimizer](
        parameter_groups(config, network), config.learning_rate, config.weight_decay
    )
    run = _State(config, network, average, optimizer, fabric)
    if state is not None:
        run.load(state)
        tell.note(f"going on after step {run.step} of {config.steps}")
    model, stepper = fabric.setup(network, optimizer)
    model.train()
    started = saved = time.monotonic()
    begun = run.step
    # A run may have been stopped between its last validation and the model.
    end = run.step if run.patience_is_over() else config.steps
    batches = prefetch(_share(source.batch(step), config, fabric) for step in range(run.step, end))
    with closing(_events(folder, run.step)) if first_process else nullcontext() as writer:
        for chips in batches:
            # A seed for each step, and what it draws does not depend on where the run began.
            torch.manual_seed(
                int(np.random.default_rng([config.seed, 2, run.step]).integers(2**63))
            )
            if run.step >= config.freeze_norm * config.steps:
                _freeze_norms(network)
            run.losses.append(_step(fabric, config, run.step, chips, model, loss, stepper, card))
            _average(average, network, config.ema, run.step)
            run.step += 1
            left = (time.monotonic() - started) / (run.step - begun) * (config.steps - run.step)
            tell.progress(run.step, config.steps, run.losses[-1], left)
            if run.step % config.every and run.step < config.steps:
                if first_process and time.monotonic() - saved >= SAVE_EVERY:
                    folder.save(run.state())
                    saved = time.monotonic()
                continue
            stop = False
            if first_process:
                row = run.judge(normalization, scenes, card)
                folder.write_log(run.log)
                folder.save(run.state())
                saved = time.monotonic()
                _write_events(writer, row)
                tell(_log_event(row, left))
                stop = run.patience_is_over()
            if fabric.broadcast(stop):
                tell.note(f"no better for {config.patience} validations: stopped")
                break
    if not first_process:
        return card
    chosen, step = run.chosen()
    scores = scores_of(config, chosen, normalization, scenes, card, fabric.device)
    scores["weights_of_step"] = step
    card = card.with_scores(**scores)
    save_model(card, chosen.to(memory_format=torch.contiguous_format), output)
    folder.forget()
    return card


@contextmanager
def _threads(threads: int | None, device: torch.device) -> Iterator[None]:
    """Threads of torch on a CPU, put back afterwards."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        spare = max(1, (os.cpu_count() or 1) - 1)
        torch.set_num_threads(threads or min(before, spare))
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Steps


def _share(chips: list[Chip], config: TrainConfig, fabric: Any) -> list[list[Chip]]:
    """This process's chips, one list a forward pass."""
    own = chips[fabric.global_rank :: fabric.world_size]
    size = config.batch // fabric.world_size
    return [own[i : i + size] for i in range(0, len(own), size)]


def _step(
    fabric: Any,
    config: TrainConfig,
    step: int,
    parts: list[list[Chip]],
    model: nn.Module,
    loss: Any,
    optimizer: Any,
    card: ModelCard,
) -> float:
    """One step of the optimizer; gives its loss."""
    for group in optimizer.param_groups:
        group["lr"] = _learning_rate(config, step) * group["rate"]
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for number, chips in enumerate(parts, start=1):
        pixels, probs, weight = (
            torch.stack([getattr(chip, name) for chip in chips]).to(fabric.device)
            for name in ("pixels", "probs", "weight")
        )
        x = normalize(pixels, card.normalization).contiguous(memory_format=torch.channels_last)
        with fabric.no_backward_sync(model, enabled=number < len(parts)):
            value = loss(model(x), probs.float(), weight) / len(parts)
            if not torch.isfinite(value):
                origins = "; ".join(dict.fromkeys(chip.origin for chip in chips))
                raise TrainingError(
                    f"the loss is {value.item()} at step {step + 1}, with chips of {origins}; "
                    f"look for values that are no numbers there, or start anew with a lower "
                    f"learning_rate (--no-resume)"
                )
            fabric.backward(value)
        total += float(value.item())
    fabric.clip_gradients(model, optimizer, max_norm=1.0, error_if_nonfinite=False)
    try:
        optimizer.step()
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        raise TrainingError(
            f"the optimizer's numbers grow beyond float32 at step {step + 1} "
            f"({first_line(error)}); start anew (--no-resume) with a lower learning_rate, "
            f"encoder_rate or weight_decay"
        ) from error
    return total


def _freeze_norms(network: nn.Module) -> None:
    """Let batch norms use their running statistics, and leave these as they are."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then the schedule's fall down to 0 after the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * SCHEDULES[config.schedule](done)


def _average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the network; quicker in the first steps, when it knows nothing."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, now in zip(
            average.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(now, 1.0 - decay)
            else:
                mean.copy_(now)


class _State:
    """What a run knows at a step, and what its checkpoint holds."""

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        fabric: Any,
    ) -> None:
        self.step = 0
        self.losses: list[float] = []
        self.log: list[dict[str, float]] = []
        self._config = config
        self._network = network
        self._average = average
        self._optimizer = optimizer
        self._fabric = fabric
        self._best: dict[str, Tensor] | None = None
        self._best_score = -math.inf
        self._best_step = 0

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "step": self.step,
            "losses": self.losses,
            "log": self.log,
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._fabric._precision.state_dict(),
            "best_score": self._best_score,
            "best_step": self._best_step,
        }
        if self._best is not None:
            state["best"] = self._best
        return state

    def load(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self._fabric._precision.load_state_dict(state["scaler"])
        self.step, self.losses, self.log = state["step"], state["losses"], state["log"]
        self._best = state.get("best")
        self._best_score, self._best_step = state["best_score"], state["best_step"]

    def judge(
        self, normalization: Normalization, scenes: Sequence[TrainingScene], card: ModelCard
    ) -> dict[str, float]:
        """Validate the average; the row goes to the log."""
        config = self._config
        row = {"step": float(self.step), "loss": float(np.mean(self.losses))}
        row["learning_rate"] = _learning_rate(config, self.step - 1)
        self.losses = []
        device = next(self._average.parameters()).device
        ious = []
        for factor in config.validation_gsds:
            found = judge(config, self._average, normalization, scenes, factor, card, device)
            for name, value in found.summary().items():
                row[f"{name}_{config.gsd * factor:g}m"] = value
            ious.append(mean_iou(found.counts))
        self.log.append(row)
        score = float(np.mean(ious))
        if score > self._best_score:
            self._best_score, self._best_step = score, self.step
            if config.keep == "best":
                now = self._average.state_dict()
                self._best = {k: v.detach().clone() for k, v in now.items()}
        return row

    def patience_is_over(self) -> bool:
        """Whether the last validations were no better than one before them."""
        patience = self._config.patience
        since = sum(1 for row in self.log if row["step"] > self._best_step)
        return patience > 0 and since >= patience

    def chosen(self) -> tuple[nn.Module, int]:
        """The weights that become the model, and their step."""
        if self._config.keep == "best" and self._best is not None:
            self._average.load_state_dict(self._best)
            return self._average, self._best_step
        return self._average, self.step


def _log_event(row: Mapping[str, float], left: float) -> LogEvent:
    """A row of the log as an event."""
    own = ("step", "loss", "learning_rate")
    return {
        "event": "log",
        "step": row["step"],
        "loss": row["loss"],
        "learning_rate": row["learning_rate"],
        "scores": {name: value for name, value in row.items() if name not in own},
        "seconds_left": round(left),
    }


# TensorBoard


def _events(folder: RunFolder, step: int) -> Any:
    from tensorboardX import SummaryWriter

    try:
        return SummaryWriter(str(folder.path), purge_step=step + 1 if step else None)
    except OSError as error:
        raise OutputError(f"events can't be written to {folder.path}: {error}") from error


def _write_events(writer: Any, row: Mapping[str, float]) -> None:
    for name, value in row.items():
        if name != "step" and math.isfinite(value):
            writer.add_scalar(name, value, int(row["step"]))
    writer.flush()
