"""Training: a recipe, scenes and a teacher or labels in; a model folder out.

``<output>.training`` beside the output holds the checkpoint and ``log.csv`` while it runs. A run
that was stopped goes on from there when the same command is given again, and ends with the same
weights as one that was never stopped.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geoseg.card import ModelCard, Normalization
from geoseg.data import ChipSampler, TrainingScene, coarsen, measure_normalization
from geoseg.errors import ModelError, OutputError, TrainingError
from geoseg.losses import Loss, make_loss, median_frequency_weights
from geoseg.metrics import confusion, iou, mean_iou, pixel_accuracy
from geoseg.models import create_model, save_model
from geoseg.models.normalize import normalize
from geoseg.models.table import chip_multiple
from geoseg.recipe import OPTIMIZERS, SCHEDULES, TrainConfig, load_config
from geoseg.targets import load_scene, load_teacher

__all__ = ["train"]

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "log.csv"
#: The label of pixels without a target; no class's channel, however many there are.
IGNORED = -1


def _validate(
    network: nn.Module,
    normalization: Normalization,
    scenes: Sequence[TrainingScene],
    factor: float,
    device: torch.device,
) -> NDArray[np.int64]:
    """The confusion matrix of the held-out scenes made ``factor`` times coarser."""
    classes = len(scenes[0].probs)
    counts = np.zeros((classes, classes), np.int64)
    for scene in scenes:
        pixels, probs, valid = (
            torch.from_numpy(scene.pixels),
            torch.from_numpy(scene.probs.astype(np.float32)),
            torch.from_numpy(scene.valid),
        )
        if factor != 1.0:
            height, width = (max(round(n / factor), 1) for n in scene.valid.shape)
            pixels, probs, valid = coarsen(pixels, probs, valid, (height, width))
        with torch.inference_mode():
            logits = network(normalize(pixels[None].to(device), normalization))[0].cpu()
        keep = valid.numpy()
        truth, predicted = probs.argmax(dim=0).numpy(), logits.argmax(dim=0).numpy()
        counts += confusion(truth[keep], predicted[keep], classes, ignore_index=None)
    return counts


def _agreement(counts: NDArray[np.int64]) -> dict[str, float]:
    """What log and card say about a confusion matrix."""
    return {
        "agreement": round(pixel_accuracy(counts), 4),
        "mean_iou": round(mean_iou(counts), 4),
    }


def _class_weights(
    config: TrainConfig, scenes: Sequence[TrainingScene]
) -> Sequence[float] | NDArray[np.float64] | None:
    """The recipe's class weights, measured on the training scenes where it says so."""
    if isinstance(config.class_weights, tuple):
        return config.class_weights
    if config.class_weights == "none":
        return None
    classes = len(config.classes)
    counts, appearances = np.zeros((2, classes), np.int64)
    for scene in scenes:
        pixels = np.bincount(scene.probs.argmax(axis=0)[scene.valid], minlength=classes)
        counts += pixels
        appearances += np.where(pixels > 0, pixels.sum(), 0)
    return median_frequency_weights(counts, appearances)


def _create(config: TrainConfig) -> nn.Module:
    """The network with its first weights."""
    options = dict(config.network_options)
    if options.get("encoder_weights") is not None:
        # Which of the bands the encoder has filters for already.
        options.setdefault("bands", config.bands)
    torch.manual_seed(config.seed)
    return create_model(
        config.network,
        in_channels=len(config.bands),
        classes=len(config.classes),
        **options,
    )


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


class _Folder:
    """Checkpoint and log of a run, each written whole or not at all."""

    def __init__(self, output: Path, digest: str) -> None:
        self.path = output.with_name(output.name + ".training")
        self._digest = digest

    def write(self, state: dict[str, Any], log: Sequence[Mapping[str, float]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(log[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(log)
        buffer = io.BytesIO()
        torch.save({**state, "log": list(log), "recipe": self._digest}, buffer)
        contents = {LOG_NAME: text.getvalue().encode(), CHECKPOINT_NAME: buffer.getvalue()}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                partial = self.path / f".{name}.partial"
                partial.write_bytes(content)
                partial.replace(self.path / name)
        except OSError as error:
            raise OutputError(f"the checkpoint in {self.path} can't be written: {error}") from error

    def forget(self) -> None:
        """Remove the checkpoint; the log stays."""
        (self.path / CHECKPOINT_NAME).unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """The checkpoint, or None where there is none. Nothing in it can run code.

        Raises:
            TrainingError: it is of another recipe, or damaged.
        """
        file = self.path / CHECKPOINT_NAME
        if not file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError, OSError) as error:
            raise TrainingError(
                f"the checkpoint {file} can't be read ({error}); remove it to start again"
            ) from error
        if state.get("recipe") != self._digest:
            raise TrainingError(
                f"the checkpoint {file} is of another recipe; train from the first step "
                f"(--no-resume), or give another output folder"
            )
        return state


def train(
    config: str | Path | TrainConfig,
    output: str | Path,
    *,
    resume: bool = True,
    progress: Callable[[str], None] | None = None,
    device: str = "cpu",
) -> ModelCard:
    """Train a model and write its folder.

    Args:
        config: a recipe (see :class:`TrainConfig`), or the path of its TOML file.
        output: the new model folder. ``<output>.training`` keeps checkpoint and log.
        resume: go on from a checkpoint that is there; False starts from the first step.
        progress: called with one line of text now and then.
        device: a torch device.

    Returns:
        The card that was written, with the scores on the held-out scenes.

    Raises:
        OutputError: the output exists already, or can't be written.
        TrainingError: the recipe is wrong, the loss is no number, or the checkpoint is of another
            recipe.
        SceneError: a scene can't be read.
        ModelError: the teacher can't be read, or the network does not take its options.
    """
    if not isinstance(config, TrainConfig):
        config = load_config(config)
    output = Path(output)
    if output.exists():
        raise OutputError(f"{output} exists already; give another folder, or remove it first")
    say = progress or (lambda line: None)
    where = torch.device(device)
    folder = _Folder(output, hashlib.sha256(repr(config).encode()).hexdigest())
    if not resume:
        folder.forget()
    state = folder.read()

    network = _create(config).to(where)
    _try(config, network, where)
    scenes: list[TrainingScene] = []
    teacher = load_teacher(config, where)
    for scene in config.scenes:
        scenes.append(load_scene(config, scene, teacher, where))
        say(f"scene {len(scenes)} of {len(config.scenes)}: {scene.name}")
    taught = [scene for scene in scenes if scene.config.split == "train"]
    held_out = [scene for scene in scenes if scene.config.split == "validation"]
    normalization = measure_normalization(taught, config.normalization, config.clip)
    sampler = ChipSampler(
        taught,
        config.bands,
        size=config.chip,
        balance=config.balance,
        augmentation=config.augmentation,
    )
    card = _card(config, normalization, chip_multiple(network))

    loss = make_loss(
        config.loss,
        weight=_class_weights(config, taught),
        ignore_index=IGNORED,
        aux_weight=config.aux_weight,
    )
    # On a CPU this is about a third quicker.
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    optimizer = OPTIMIZERS[config.optimizer](
        network.parameters(), config.learning_rate, config.weight_decay
    )
    first = 0
    log: list[dict[str, float]] = []
    losses: list[float] = []
    if state is not None:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first, log = state["step"], state["log"]
        say(f"going on after step {first} of {config.steps}")

    network.train()
    for step in range(first, config.steps):
        # A generator for each step: what step 500 draws does not depend on where the run began.
        rng = np.random.default_rng([config.seed, step])
        batch = sampler.batch(rng, config.batch)
        # So for what networks draw themselves, such as dropout.
        torch.manual_seed(int(rng.integers(2**63)))
        losses.append(_step(config, step, batch, network, loss, optimizer, card))
        _average(average, network, config.ema, step)
        if (step + 1) % config.every and step + 1 < config.steps:
            continue
        row = {"step": float(step + 1), "loss": float(np.mean(losses))}
        losses = []
        for factor in config.validation_gsds:
            counts = _validate(average, normalization, held_out, factor, where)
            for name, value in _agreement(counts).items():
                row[f"{name}_{config.gsd * factor:g}m"] = value
        log.append(row)
        folder.write(
            {
                "step": step + 1,
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            log,
        )
        say(", ".join(f"{k} {v:g}" for k, v in row.items()))

    scores = _scores(config, average, normalization, held_out, where)
    card = card.with_scores(**scores)
    save_model(card, average.to(memory_format=torch.contiguous_format), output)
    folder.forget()
    return card


def _step(
    config: TrainConfig,
    step: int,
    batch: tuple[Tensor, Tensor, Tensor],
    network: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    card: ModelCard,
) -> float:
    """One batch forwards and backwards; gives its loss."""
    device = next(network.parameters()).device
    pixels, probs, weight = (x.to(device) for x in batch)
    for group in optimizer.param_groups:
        group["lr"] = _learning_rate(config, step)
    x = normalize(pixels, card.normalization).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        output = network(x)
    value = loss(output, probs, weight)
    if not torch.isfinite(value):
        raise TrainingError(
            f"the loss is {value.item()} at step {step + 1}; lower learning_rate, and look for "
            f"values that are no numbers in scenes and labels; the checkpoint before it is kept"
        )
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(value)
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(value.item())


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
            normalization=normalization,
            plausible=config.plausible,
            license=config.license,
            provenance=config.provenance,
            **{"multiple": multiple, **config.inference},
        )
    except (ModelError, TypeError, ValueError) as error:
        raise TrainingError(f"the recipe makes no sound model card: {error}") from error


def _scores(
    config: TrainConfig,
    network: nn.Module,
    normalization: Normalization,
    held_out: Sequence[TrainingScene],
    device: torch.device,
) -> dict[str, Any]:
    """What the card says about the held-out scenes, over all pixels and place by place."""
    places: dict[str, list[TrainingScene]] = {}
    for scene in held_out:
        places.setdefault(scene.config.place, []).append(scene)
    scores: dict[str, Any] = {
        "held_out_pixels": int(sum(scene.valid.sum() for scene in held_out)),
        "compared_with": (
            "the teacher's most likely class, which is no ground truth"
            if config.teacher
            else "labels"
        ),
        f"agreement_by_place_at_{config.gsd:g}m": {
            place: _agreement(_validate(network, normalization, scenes, 1.0, device))["agreement"]
            for place, scenes in sorted(places.items())
        },
    }
    for factor in config.validation_gsds:
        counts = _validate(network, normalization, held_out, factor, device)
        scores[f"at_{config.gsd * factor:g}m"] = {
            **_agreement(counts),
            "iou": {
                c.name: round(float(value), 4)
                for c, value in zip(config.classes, iou(counts), strict=True)
                if not np.isnan(value)
            },
        }
    return scores
