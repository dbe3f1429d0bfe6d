"""Training: a recipe, scenes and labels or a teacher in; a model folder out.

``<output>.training`` beside the output holds checkpoint, log and curve (see
:mod:`geoseg.trainlog`). A run that was stopped goes on from there when the same command is given
again, and ends with the same weights as one that was never stopped.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geoseg.augment import coarsen
from geoseg.card import ModelCard, Normalization, read_model
from geoseg.chips import prefetch
from geoseg.data import (
    JUDGED,
    TrainingScene,
    band_statistics,
    held_out_windows,
    load_scene,
    measure_normalization,
    short_names,
    shown_size,
    split_scenes,
    teach,
    write_held_out,
)
from geoseg.errors import ModelError, OutputError, TrainingError, UsageError
from geoseg.losses import make_loss, median_frequency_weights
from geoseg.metrics import confusion, iou, mean_iou, pixel_accuracy
from geoseg.models import create_model, load_network, save_model
from geoseg.models.normalize import normalize
from geoseg.models.table import chip_multiple
from geoseg.recipe import OPTIMIZERS, PRECISIONS, SCHEDULES, TrainConfig, dump_config
from geoseg.report import Progress
from geoseg.runtimes.torch import pick_device
from geoseg.split import VALIDATION
from geoseg.targets import load_teacher
from geoseg.trainchips import Chip, ChipSource
from geoseg.trainlog import RECIPE_NAME, RunFolder
from geoseg.trainplan import TrainOptions, make_recipe
from geoseg.zoo import find_model

__all__ = ["train"]

#: The label of pixels without a target; no class's channel, however many there are.
IGNORED = -1
#: In the folder of a stage that is over: of what recipe it is.
DIGEST_NAME = "recipe.sha256"
#: Parts of a network that are its encoder, by the names of their modules.
ENCODERS = {"encoder", "backbone", "groups", "features"}
#: Seconds between two tellings of progress.
TELL_EVERY = 1.0


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
        config: a recipe (see :class:`geoseg.recipe.TrainConfig`), or the path of its file; None
            makes one from the options ``images`` and ``labels``.
        output: the new model folder. ``<output>.training`` keeps checkpoint, log, curve, recipe,
            TensorBoard events and the held-out labels as rasters.
        resume: go on from a checkpoint that is there; False starts from the first step.
        progress: called with event dicts: ``progress``, ``log``, ``note``, ``warning``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        devices: how many GPUs (or, on the CPU, processes) share each batch, through Lightning
            Fabric.
        threads: for computing on a CPU; None leaves one core to the making of chips.
        **options: the fields of :class:`geoseg.trainplan.TrainOptions`, where config is no
            :class:`~geoseg.recipe.TrainConfig`.

    Returns:
        The card that was written, with the scores on the held-out side.

    Raises:
        OutputError: the output exists already, or can't be written.
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
    output = Path(output)
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
    parts = output.with_name(output.name + ".training")
    if not resume:
        for number in range(1, len(stages)):
            shutil.rmtree(parts / f"stage{number}", ignore_errors=True)
    tell = _Teller(progress)
    for number, stage in enumerate(stages, start=1):
        if number > 1:
            stage = replace(stage, start=parts / f"stage{number - 1}")
        part = output if number == len(stages) else parts / f"stage{number}"
        if part.exists():
            _check_stage(part, stage)
            continue
        if len(stages) > 1:
            tell("note", message=f"stage {number} of {len(stages)}: {stage.steps} steps")
        card = _launch(stage, part, where, resume, progress, devices, threads)
        if part != output:
            (part / DIGEST_NAME).write_text(_digest(stage) + "\n", encoding="ascii")
    return card


def _check_stage(part: Path, config: TrainConfig) -> None:
    """Refuse a finished stage of another recipe.

    Raises:
        TrainingError: it is one, or its scenes or labels have changed.
    """
    file = part / DIGEST_NAME
    if not file.exists() or file.read_text(encoding="ascii").strip() != _digest(config):
        raise TrainingError(
            f"{part} is a stage of another recipe, or scenes or labels have changed since; train "
            f"from the first step (--no-resume), or give another output folder"
        )


def _launch(
    config: TrainConfig,
    output: Path,
    where: torch.device,
    resume: bool,
    progress: Progress | None,
    devices: int,
    threads: int | None,
) -> ModelCard:
    """One stage, in one process or several."""
    from lightning.fabric import Fabric

    accelerator = "gpu" if where.type == "cuda" else where.type
    fabric = Fabric(
        accelerator=accelerator,
        devices=[where.index] if where.index is not None else devices,
        strategy="auto" if devices == 1 else "ddp_spawn",
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
    )
    if devices == 1:
        return _run(fabric, config, output, resume, progress, threads)
    from torch.multiprocessing.spawn import ProcessRaisedException

    try:
        fabric.launch(_Processes(config, output, resume, progress, threads))
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
    resume: bool,
    progress: Progress | None,
    threads: int | None,
) -> ModelCard:
    """One process of a run; the first one reads, judges and writes."""
    tell = _Teller(progress if fabric.global_rank == 0 else None)
    folder = RunFolder(output, _digest(config))
    if not resume and fabric.global_rank == 0:
        folder.forget()
    fabric.barrier()
    state = folder.read()
    with _threads(threads, fabric.device):
        network = _create(config).to(fabric.device)
        _try(config, network, fabric.device)
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
    tell: _Teller,
) -> ModelCard:
    first_process = fabric.global_rank == 0
    teacher = load_teacher(config, fabric.device)
    bands = tuple(dict.fromkeys((*config.bands, *(teacher.card.bands if teacher else ()))))
    scenes = _read(fabric, config, bands, folder, tell)
    if first_process:
        if teacher is not None:
            for number, scene in enumerate(scenes, start=1):
                teach(scene, teacher, [bands.index(b) for b in teacher.card.bands])
                tell("progress", stage="teacher", done=number, total=len(scenes))
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
    normalization = _normalization(config, scenes)
    source = ChipSource(config, scenes, bands, _white(config, scenes), teacher)
    missing = [c.name for c, n in zip(config.classes, source.class_pixels, strict=True) if n == 0]
    if missing and teacher is None:
        tell.warn(f"no training pixel is {', '.join(missing)}: the model can't learn it")
    tell("note", message=f"{shown_size(scenes)}; {_shown_split(config, scenes)}")
    card = _card(config, normalization, chip_multiple(network))
    if first_process:
        _check_gsds(config, scenes, card)
    loss = make_loss(
        config.loss,
        weight=_class_weights(config, source),
        ignore_index=IGNORED,
        aux_weight=config.aux_weight,
    )

    # On a CPU this is about a third quicker.
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    optimizer = OPTIMIZERS[config.optimizer](
        _parameters(config, network), config.learning_rate, config.weight_decay
    )
    run = _State(config, network, average, optimizer, fabric)
    if state is not None:
        run.load(state)
        tell("note", message=f"going on after step {run.step} of {config.steps}")
    model, stepper = fabric.setup(network, optimizer)
    model.train()
    started, begun = time.monotonic(), run.step
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
                continue
            stop = False
            if first_process:
                row = run.judge(normalization, scenes, card)
                folder.save(run.state(), run.log)
                _write_events(writer, row)
                tell("log", seconds_left=round(left), **row)
                stop = run.patience_is_over()
            if fabric.broadcast(stop):
                tell("note", message=f"no better for {config.patience} validations: stopped")
                break
    if not first_process:
        return card
    chosen, step = run.chosen()
    scores = _scores(config, chosen, normalization, scenes, card, fabric.device)
    scores["weights_of_step"] = step
    card = card.with_scores(**scores)
    save_model(card, chosen.to(memory_format=torch.contiguous_format), output)
    folder.forget()
    return card


class _Teller:
    """Tells events, not too often."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._last = -math.inf

    def __call__(self, event: str, **values: Any) -> None:
        if self._progress is not None:
            self._progress({"event": event, **values})

    def warn(self, message: str) -> None:
        self("warning", message=message)

    def progress(self, done: int, total: int, loss: float, left: float) -> None:
        now = time.monotonic()
        if now - self._last >= TELL_EVERY or done == total:
            self._last = now
            self(
                "progress",
                stage="train",
                done=done,
                total=total,
                loss=round(loss, 4),
                seconds_left=round(left),
            )


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


# Before the first step


def _digest(config: TrainConfig) -> str:
    """Of the recipe and the state of its files: a checkpoint goes with these alone."""
    digest = hashlib.sha256(repr(config).encode())
    named = [config.teacher, config.start, *(p for s in config.scenes for p in (s.path, *s.labels))]
    for path in sorted({path for path in named if path is not None}):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                about = file.stat()
                digest.update(f"{file}|{about.st_size}|{about.st_mtime_ns}".encode())
    return digest.hexdigest()


def _create(config: TrainConfig) -> nn.Module:
    """The network with its first weights."""
    options = dict(config.network_options)
    if options.get("encoder_weights") is not None:
        # Which of the bands the encoder has filters for already.
        options.setdefault("bands", config.bands)
    torch.manual_seed(config.seed)
    if config.start is not None:
        options.pop("encoder_weights", None)
    network = create_model(
        config.network,
        in_channels=len(config.bands),
        classes=len(config.classes),
        **options,
    )
    if config.start is not None:
        _begin_with(config, network)
    return network


def _begin_with(config: TrainConfig, network: nn.Module) -> None:
    """Take over a model's weights, all that have the same name and shape.

    Raises:
        TrainingError: the model takes other bands or values, or hardly anything of it fits.
    """
    assert config.start is not None
    model = find_model(config.start)
    for name in ("bands", "quantity"):
        theirs, ours = getattr(model.card, name), getattr(config, name)
        if theirs != ours:
            raise TrainingError(
                f"start: {config.start} has the {name} {theirs} and the recipe {ours}; they must "
                f"be the same, in the same order"
            )
    given = load_network(model).state_dict()
    own = network.state_dict()
    fits = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    known, total = (sum(v.numel() for v in state.values()) for state in (fits, own))
    if known < total / 2:
        raise TrainingError(
            f"start: {config.start} is {model.card.network!r} and fits {known} of the {total} "
            f"numbers of {config.network!r} with {dict(config.network_options)}; give its own "
            f"network and options: {dict(model.card.network_options)}"
        )
    network.load_state_dict(fits, strict=False)


def _try(config: TrainConfig, network: nn.Module, device: torch.device) -> None:
    """Send zeros through a copy: what does not fit is told before the scenes are read.

    Raises:
        TrainingError: the network takes no such chips, or gives logits of another shape.
    """
    zeros = torch.zeros(config.batch, len(config.bands), config.chip, config.chip, device=device)
    try:
        with torch.no_grad():
            output = copy.deepcopy(network).train()(zeros)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the network {config.network!r} fails on {config.batch} chips of {config.chip} px "
            f"({error}); change batch, chip or network_options"
        ) from error
    logits = dict(output) if isinstance(output, Mapping) else {"out": output}
    wanted = (config.batch, len(config.classes), config.chip, config.chip)
    for name, value in logits.items():
        if tuple(value.shape) != wanted:
            raise TrainingError(
                f"the network {config.network!r} gives {name} of the shape {tuple(value.shape)}; "
                f"logits must have one channel a class at the chip's size, {wanted}: change chip "
                f"or network_options"
            )


def _read(
    fabric: Any, config: TrainConfig, bands: Sequence[str], folder: RunFolder, tell: _Teller
) -> list[TrainingScene]:
    """All scenes; the first process reads them into flat files, the others map these."""
    scenes: dict[int, TrainingScene] = {}
    asked = [i for i, s in enumerate(config.scenes) if s.labels or config.teacher is not None]
    for first in (True, False):
        if (fabric.global_rank == 0) == first:
            for done, i in enumerate(asked, start=1):
                scene = config.scenes[i]
                scenes[i] = load_scene(config, scene, bands, folder.scratch, i, fill=first)
                tell("progress", stage="scenes", done=done, total=len(asked))
        fabric.barrier()
    kept = [i for i, s in scenes.items() if not s.fault or config.teacher is not None]
    if fabric.global_rank == 0 and not kept:
        raise TrainingError(next(s.fault for s in scenes.values() if s.fault))
    for i, scene in enumerate(config.scenes):
        if i not in asked:
            tell.warn(f"{scene.path} has no labels: it is left out")
        elif scenes[i].fault:
            tell.warn(scenes[i].fault)
    return [scenes[i] for i in fabric.broadcast(kept)]


def _normalization(config: TrainConfig, scenes: Sequence[TrainingScene]) -> Normalization:
    if config.normalization_parameters:
        return Normalization(
            config.normalization, dict(config.normalization_parameters), config.clip
        )
    if config.start is not None:
        # What its weights are used to.
        return find_model(config.start).card.normalization
    return measure_normalization(scenes, len(config.bands), config.normalization, config.clip)


def _white(config: TrainConfig, scenes: Sequence[TrainingScene]) -> float:
    """The value of white: 1 for reflectance, 255 for bytes, else what few pixels exceed."""
    if config.quantity == "reflectance":
        return 1.0
    if all(scene.pixels.dtype == np.uint8 for scene in scenes):
        return 255.0
    mean, deviation = band_statistics(scenes, len(config.bands))
    return float((mean + 3 * deviation).max())


def _shown_split(config: TrainConfig, scenes: Sequence[TrainingScene]) -> str:
    held = sum(int(s.usable(rows, VALIDATION).sum()) for s in scenes for rows in s.strips())
    return f"split by {config.split.by}, {held} pixels with a target held out"


def _class_weights(
    config: TrainConfig, source: ChipSource
) -> Sequence[float] | NDArray[np.float64] | None:
    """The recipe's class weights, measured on the training side where it says so."""
    if isinstance(config.class_weights, tuple):
        return config.class_weights
    if config.class_weights == "none":
        return None
    return median_frequency_weights(source.class_pixels, source.class_appearances)


def _parameters(config: TrainConfig, network: nn.Module) -> list[dict[str, Any]]:
    """The optimizer's groups: those of the encoder may learn at a smaller rate.

    Raises:
        TrainingError: a smaller rate is asked for and the network has no encoder.
    """
    named = list(network.named_parameters())
    encoder = [p for name, p in named if ENCODERS & set(name.split("."))]
    if config.encoder_rate == 1.0:
        return [{"params": [p for _, p in named], "rate": 1.0}]
    if not encoder:
        raise TrainingError(
            f"encoder_rate is {config.encoder_rate} and the network {config.network!r} has no "
            f"encoder; leave it out"
        )
    ids = {id(p) for p in encoder}
    return [
        {"params": [p for _, p in named if id(p) not in ids], "rate": 1.0},
        {"params": encoder, "rate": config.encoder_rate},
    ]


def _temperature(config: TrainConfig) -> float:
    """What brings back a teacher's own softness where its sharpened answer was learned."""
    only_taught = config.teacher is not None and not any(s.labels for s in config.scenes)
    return 1 / config.teacher_temperature if only_taught else 1.0


def _card(config: TrainConfig, normalization: Normalization, multiple: int) -> ModelCard:
    """The card of the model to be, made before training so that its errors come first."""
    try:
        return ModelCard(
            name=config.name,
            description=config.description,
            network=config.network,
            # The card's weights are the whole network's: nothing is to be fetched for its encoder.
            network_options={
                k: v for k, v in config.network_options.items() if k != "encoder_weights"
            },
            bands=config.bands,
            classes=config.classes,
            gsd=config.gsd,
            gsd_range=config.gsd_range,
            quantity=config.quantity,
            normalization=normalization,
            temperature=_temperature(config),
            plausible=config.plausible,
            license=config.license,
            provenance=config.provenance,
            **{"multiple": multiple, **config.inference},
        )
    except (ModelError, TypeError, ValueError) as error:
        raise TrainingError(f"the recipe makes no sound model card: {error}") from error


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
    optimizer.step()
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
        self.step, self.log = state["step"], state["log"]
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
            found = _judge(config, self._average, normalization, scenes, factor, card, device)
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


# Judging


class _Judgement:
    """How a network did on the held-out side.

    Attributes:
        counts: int64 (K, K), all scenes together.
        scenes: by scene: its counts, and of the pixels of which a teacher is sure (right, all).
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)
        self.scenes: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def add(self, place: str, counts: NDArray[np.int64], sure: NDArray[np.int64]) -> None:
        """Count a window of a scene."""
        self.counts += counts
        before = self.scenes.get(place)
        self.scenes[place] = (
            (counts, sure) if before is None else (before[0] + counts, before[1] + sure)
        )

    def summary(self) -> dict[str, float]:
        """What the log says."""
        found = {
            "agreement": round(pixel_accuracy(self.counts), 4),
            "mean_iou": round(mean_iou(self.counts), 4),
        }
        return {**found, **self.by_scene()}

    def by_scene(self) -> dict[str, float]:
        """Averages over scenes, for a teacher; empty without one."""
        sure = [s[0] / s[1] for _, s in self.scenes.values() if s[1] > 0]
        if not sure:
            return {}
        every = [pixel_accuracy(counts) for counts, _ in self.scenes.values() if counts.any()]
        return {
            "scene_agreement": round(float(np.mean(every)), 4),
            "scene_agreement_where_sure": round(float(np.mean(sure)), 4),
        }


def _judge(
    config: TrainConfig,
    network: nn.Module,
    normalization: Normalization,
    scenes: Sequence[TrainingScene],
    factor: float,
    card: ModelCard,
    device: torch.device,
) -> _Judgement:
    """Predict the held-out side made ``factor`` times coarser, and count."""
    classes = len(config.classes)
    found = _Judgement(classes)
    for held in _held_out(config, scenes, factor, card):
        x = normalize(held.pixels[None].to(device), normalization)
        with torch.inference_mode():
            logits = network(x.contiguous(memory_format=torch.channels_last))
        predicted = logits[0].argmax(dim=0).cpu().numpy()
        right = np.zeros(2, np.int64)
        if factor == 1.0:
            right[:] = (predicted == held.truth)[held.sure].sum(), held.sure.sum()
        truth = held.truth[held.keep].astype(np.int64)
        counts = confusion(truth, predicted[held.keep], classes, ignore_index=None)
        found.add(str(held.scene.config.path), counts, right)
    return found


class _HeldOut(NamedTuple):
    """A window of the held-out side.

    Attributes:
        scene: where it lies.
        pixels: float32 (C, H, W), physical values.
        truth: (H, W), places in the legend.
        keep: bool (H, W), True where the network is judged.
        sure: bool, True where a teacher is sure; at the scene's own gsd only.
    """

    scene: TrainingScene
    pixels: Tensor
    truth: NDArray[Any]
    keep: NDArray[np.bool_]
    sure: NDArray[np.bool_]


def _held_out(
    config: TrainConfig, scenes: Sequence[TrainingScene], factor: float, card: ModelCard
) -> Iterator[_HeldOut]:
    """The held-out side made ``factor`` times coarser, window by window."""
    halo = min(max(card.margin, card.overlap // 2), card.size // 4)
    legend = np.arange(len(config.classes), dtype=np.uint8)[:, None, None]
    for scene in scenes:
        for core, window in held_out_windows(scene, card.size, halo):
            cut = scene.cut(window.rows, window.cols, JUDGED, slice(len(config.bands)))
            if cut is None:
                continue
            inside = np.zeros((window.height, window.width), bool)
            row, col = core.row - window.row, core.col - window.col
            inside[row : row + core.height, col : col + core.width] = True
            valid = inside & scene.usable(window.rows, VALIDATION)[:, window.cols]
            target = scene.target[window.rows, window.cols]
            sure = scene.sure[window.rows, window.cols] & valid
            pixels = torch.from_numpy(cut[0])
            truth, keep = target, valid
            if factor != 1.0:
                size = max(round(window.height / factor), 1), max(round(window.width / factor), 1)
                probs = torch.from_numpy((target[None] == legend).astype(np.float32))
                pixels, probs, known = coarsen(pixels, probs, torch.from_numpy(valid), size)
                truth, keep = probs.argmax(dim=0).numpy(), known.numpy()
            yield _HeldOut(scene, pixels, truth, keep, sure)


def _check_gsds(config: TrainConfig, scenes: Sequence[TrainingScene], card: ModelCard) -> None:
    """Refuse a gsd at which nothing of the held-out side is left.

    Raises:
        TrainingError: there is one.
    """
    for factor in config.validation_gsds:
        if not any(held.keep.any() for held in _held_out(config, scenes, factor, card)):
            raise TrainingError(
                f"nothing held out is left at {factor:g} times the gsd of {config.gsd:g} m; leave "
                f"it out of validation_gsds, or hold out larger places"
            )


def _scores(
    config: TrainConfig,
    network: nn.Module,
    normalization: Normalization,
    scenes: Sequence[TrainingScene],
    card: ModelCard,
    device: torch.device,
) -> dict[str, Any]:
    """What the card says about the held-out side."""
    labelled = any(scene.config.labels for scene in scenes)
    scores: dict[str, Any] = {
        "split": f"by {config.split.by}"
        + (
            ""
            if config.split.by == "scenes"
            else f", part {config.split.fold} of {config.split.folds} held out"
        ),
        "compared_with": "labels"
        if labelled
        else "the teacher's most likely class, which is no ground truth",
    }
    if config.keep == "best":
        scores["chosen"] = "the step that did best on these same held-out pixels, which flatters"
    for factor in config.validation_gsds:
        found = _judge(config, network, normalization, scenes, factor, card, device)
        scores.setdefault("held_out_pixels", int(found.counts.sum()))
        entry: dict[str, Any] = {
            **found.summary(),
            "iou": {
                c.name: round(float(value), 4)
                for c, value in zip(config.classes, iou(found.counts), strict=True)
                if not np.isnan(value)
            },
        }
        if factor == 1.0 and 1 < len(found.scenes) <= 50:
            entry["agreement_by_scene"] = {
                name: round(pixel_accuracy(found.scenes[path][0]), 4)
                for path, name in short_names(scenes).items()
                if path in found.scenes
            }
        scores[f"at_{config.gsd * factor:g}m"] = entry
    return scores


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
