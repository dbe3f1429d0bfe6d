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
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geoseg.card import ClassInfo, ModelCard, Normalization, read_model
from geoseg.data import (
    LOOKS,
    Augmentation,
    ChipSampler,
    SceneConfig,
    TrainingScene,
    add_haze,
    coarsen,
    label_probs,
    measure_normalization,
    read_pixels,
    teacher_probs,
)
from geoseg.errors import ModelError, OutputError, TrainingError
from geoseg.losses import soft_cross_entropy
from geoseg.models import create_model, load_network, save_model
from geoseg.models.normalize import normalize

__all__ = ["TrainConfig", "agreement", "confusion", "load_config", "load_scene", "train"]

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "log.csv"


@dataclass(frozen=True)
class TrainConfig:
    """A recipe. The field names are the keys of the TOML file.

    Attributes:
        name: of the model, a slug.
        description: one paragraph for people.
        bands: the input bands by common name.
        classes: the legend.
        scenes: what to learn from and what to hold out.
        network: a name of :func:`geoseg.models.list_models`.
        network_options: keyword arguments of it.
        normalization: ``log-logistic`` or ``z-score``; measured on the training scenes.
        clip: (low, high) for the reflectance before it, or None.
        gsd: metres per pixel of the scenes.
        gsd_range: for the card.
        inference: the card's size, overlap, margin and multiple.
        plausible: for the card: band -> (low, high) of a sound scene's median.
        license: for the card.
        provenance: for the card.
        teacher: a model folder or .zip whose probabilities are learned, or None: labels only.
        teacher_haze: path radiances in blue (see :func:`geoseg.data.add_haze`) through which the
            teacher gets to see surface reflectance; its answers are averaged. For a teacher that
            was taught on top-of-atmosphere reflectance.
        steps: batches in all.
        batch: chips in one batch.
        chip: their side, px.
        learning_rate: the highest.
        weight_decay: of AdamW.
        warmup: steps over which the learning rate rises; then it falls as a half cosine to 0.
        ema: decay of the moving average of the weights, which is what is validated and saved.
        precision: ``float32``, or ``bfloat16`` for the network's forward and backward pass: quicker
            where the hardware has it; weights, loss and validation stay float32.
        balance: share of the chips laid around a class drawn evenly.
        every: steps between two rows of the log, each with a validation and a checkpoint.
        validation_gsds: multiples of gsd at which the held-out scenes are judged.
        seed: of everything random.
        augmentation: how chips are changed.
    """

    name: str
    description: str
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    scenes: tuple[SceneConfig, ...]
    network: str = "unet"
    network_options: Mapping[str, Any] = field(default_factory=dict)
    normalization: str = "log-logistic"
    clip: tuple[float, float] | None = (0.0, 2.0)
    gsd: float = 10.0
    gsd_range: tuple[float, float] = (8.0, 13.0)
    inference: Mapping[str, Any] = field(default_factory=dict)
    plausible: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    license: str = "other"
    provenance: str = ""
    teacher: Path | None = None
    teacher_haze: tuple[float, ...] = (0.0,)
    steps: int = 1000
    batch: int = 8
    chip: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 100
    ema: float = 0.998
    precision: str = "float32"
    balance: float = 0.5
    every: int = 250
    validation_gsds: tuple[float, ...] = (1.0,)
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        """Check what would otherwise fail late, or not at all.

        Raises:
            TrainingError: a value breaks its rule.
        """
        sides: dict[str, set[str]] = {}
        for scene in self.scenes:
            if scene.split not in ("train", "validation"):
                raise TrainingError(
                    f"{scene.path}: split is {scene.split!r}; it is train or validation"
                )
            if scene.look not in LOOKS:
                raise TrainingError(f"{scene.path}: look is {scene.look!r}; it is one of {LOOKS}")
            sides.setdefault(scene.place, set()).add(scene.split)
        both = sorted(place for place, splits in sides.items() if len(splits) > 1)
        if both:
            raise TrainingError(
                f"the places {both} are on both sides of the split; all scenes of a place go to "
                f"one side, or the scores mean nothing"
            )
        for split in ("train", "validation"):
            if not any(scene.split == split for scene in self.scenes):
                raise TrainingError(
                    f"no scene has split = {split!r}; name at least one place for it"
                )
        if self.precision not in ("float32", "bfloat16"):
            raise TrainingError(f"precision is {self.precision!r}; it is float32 or bfloat16")
        names = [c.name for c in self.classes]
        for scene in self.scenes:
            if scene.relabel is not None and scene.relabel not in names:
                raise TrainingError(
                    f"{scene.path}: relabel is {scene.relabel!r}; the classes are {names}"
                )
            if scene.labels is None and scene.relabel is None and self.teacher is None:
                raise TrainingError(
                    f"{scene.path} has no labels and the recipe has no teacher; give one of them"
                )
        for name in ("steps", "batch", "chip", "every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be 1 at least")
        if self.chip < 8:
            raise TrainingError(f"chip is {self.chip} px; it must be 8 at least")


def load_config(path: str | Path) -> TrainConfig:
    """Read a recipe.

    ``${NAME}`` in a path stands for an environment variable; relative paths start at the recipe's
    folder, those of scenes at its ``folder``.

    Raises:
        TrainingError: the file is not TOML, a key is unknown or missing, or a variable is not set.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"the recipe {path} can't be read: {error}") from error
    base = path.resolve().parent
    folder = _path(document.pop("folder", "."), base)
    scenes = tuple(_scene(entry, folder) for entry in document.pop("scenes", []))
    classes = tuple(_make(ClassInfo, entry, "classes") for entry in document.pop("classes", []))
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in document.items()
    }
    if "teacher" in values:
        values["teacher"] = _path(values["teacher"], base)
    if "plausible" in values:
        values["plausible"] = {k: tuple(v) for k, v in values["plausible"].items()}
    if "augmentation" in values:
        values["augmentation"] = _make(Augmentation, values["augmentation"], "augmentation")
    config: TrainConfig = _make(
        TrainConfig, {**values, "scenes": scenes, "classes": classes}, str(path)
    )
    return config


def _scene(entry: Mapping[str, Any], folder: Path) -> SceneConfig:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    for key in ("path", "labels", "answer"):
        if key in values:
            values[key] = _path(values[key], folder)
    if "ignore" in values:
        values["ignore"] = tuple(tuple(window) for window in values["ignore"])
    scene: SceneConfig = _make(SceneConfig, values, f"scene {entry.get('path')}")
    return scene


def _make(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """Build a dataclass from a table; a misspelt key is an error, not a default in silence."""
    names = [f.name for f in fields(kind)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise TrainingError(f"{where}: the keys {unknown} are unknown; the keys are {names}")
    try:
        return kind(**values)
    except TypeError as error:
        raise TrainingError(f"{where}: {error}") from error


def _path(text: str, base: Path) -> Path:
    def variable(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:
            raise TrainingError(
                f"the path {text!r} needs the environment variable {match[1]}, which is not set; "
                f"set it to the folder that the recipe's first lines describe"
            )
        return value

    return base / re.sub(r"\$\{(\w+)\}", variable, text)


def load_scene(
    config: TrainConfig,
    scene: SceneConfig,
    teacher: tuple[ModelCard, nn.Module] | None,
    device: torch.device,
) -> TrainingScene:
    """Read a scene and find its targets.

    Args:
        config: the recipe.
        scene: one of its scenes.
        teacher: card and network, on the device.
        device: where the teacher is.

    Raises:
        SceneError: a file can't be read, or a band is missing.
        TrainingError: labels or windows do not fit the scene.
    """
    pixels, valid = read_pixels(scene.path, config.bands, scene)
    shape = valid.shape
    if scene.labels is not None:
        ids = [c.id for c in config.classes]
        probs, known = label_probs(scene.labels, ids, scene.ignore_label, shape)
        valid = valid & known
    elif scene.relabel is not None:
        probs = np.zeros((len(config.classes), *shape), np.float16)
        probs[[c.name for c in config.classes].index(scene.relabel)] = 1.0
    elif teacher is not None:
        card, network = teacher
        seen, seen_valid = read_pixels(scene.answer or scene.path, card.bands, scene)
        if seen_valid.shape != shape:
            raise TrainingError(
                f"{scene.answer} is {seen_valid.shape[0]} x {seen_valid.shape[1]} px and "
                f"{scene.path} is {shape[0]} x {shape[1]}; an answer lies on the scene's own grid"
            )
        probs = _ask(config, scene, card, network, seen, device)
        valid = valid & seen_valid
    else:
        raise TrainingError(f"{scene.path} has no labels and the recipe has no teacher")
    for window in scene.ignore:
        valid[_slices(window, shape, scene)] = False
    if scene.window is not None:
        part = _slices(scene.window, shape, scene)
        pixels, probs, valid = pixels[:, *part], probs[:, *part], valid[part]
    return TrainingScene(scene, pixels, probs, valid)


def _ask(
    config: TrainConfig,
    scene: SceneConfig,
    card: ModelCard,
    network: nn.Module,
    seen: NDArray[np.float32],
    device: torch.device,
) -> NDArray[np.float16]:
    """The teacher's answer (K, H, W) to a scene's pixels (C, H, W), through haze where asked."""
    through: tuple[float, ...] = (0.0,)
    if scene.answer is None and scene.look == "surface":
        through = scene.teacher_haze or config.teacher_haze
    answers = [
        teacher_probs(card, network, add_haze(seen, card.bands, amount), device)
        for amount in through
    ]
    mean: NDArray[np.float32] = np.stack(answers).mean(axis=0, dtype=np.float32)
    return mean.astype(np.float16)


def _slices(
    window: tuple[int, int, int, int], shape: Sequence[int], scene: SceneConfig
) -> tuple[slice, slice]:
    row, col, height, width = window
    inside = 0 <= row < row + height <= shape[0] and 0 <= col < col + width <= shape[1]
    if not inside:
        raise TrainingError(
            f"{scene.path}: the window {window} (row, col, height, width) does not lie in its "
            f"{shape[0]} x {shape[1]} px"
        )
    return slice(row, row + height), slice(col, col + width)


def _load_teacher(config: TrainConfig, device: torch.device) -> tuple[ModelCard, nn.Module] | None:
    if config.teacher is None:
        return None
    model = read_model(config.teacher)
    theirs, ours = [c.name for c in model.card.classes], [c.name for c in config.classes]
    if theirs != ours:
        raise TrainingError(
            f"the teacher's classes are {theirs} and the recipe's are {ours}; they must be the "
            f"same, in the same order"
        )
    if model.card.activation != "softmax":
        raise TrainingError(
            f"the teacher's activation is {model.card.activation!r}; only softmax can be learned"
        )
    return model.card, load_network(model).to(device)


def confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count pixels by truth (rows) and prediction (columns).

    Args:
        truth: channel numbers, any shape.
        predicted: of the same shape.
        classes: K.

    Returns:
        int64 (K, K).
    """
    pairs = truth.ravel().astype(np.int64) * classes + predicted.ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def agreement(counts: NDArray[np.int64]) -> dict[str, float]:
    """Overall agreement and mean IoU of a confusion matrix.

    Args:
        counts: int (K, K).

    Returns:
        ``agreement``: share of the pixels on the diagonal; ``mean_iou``: over the classes that
        occur in truth or prediction. NaN where there is no pixel.

    Examples:
        >>> agreement(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
        {'agreement': 0.875, 'mean_iou': 0.775}
    """
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    seen = union > 0
    if not seen.any():
        return {"agreement": math.nan, "mean_iou": math.nan}
    return {
        "agreement": float(hits.sum() / counts.sum()),
        "mean_iou": float((hits[seen] / union[seen]).mean()),
    }


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
        counts += confusion(truth[keep], predicted[keep], classes)
    return counts


def _learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to 0 at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


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

    scenes: list[TrainingScene] = []
    teacher = _load_teacher(config, where)
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
    card = _card(config, normalization)

    torch.manual_seed(config.seed)
    network = create_model(
        config.network,
        in_channels=len(config.bands),
        classes=len(config.classes),
        **config.network_options,
    )
    # On a CPU this is about a third quicker.
    network = network.to(where).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
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
        loss = _step(config, step, sampler.batch(rng, config.batch), network, optimizer, card)
        losses.append(loss)
        _average(average, network, config.ema, step)
        if (step + 1) % config.every and step + 1 < config.steps:
            continue
        row = {"step": float(step + 1), "loss": float(np.mean(losses))}
        losses = []
        for factor in config.validation_gsds:
            counts = _validate(average, normalization, held_out, factor, where)
            for name, value in agreement(counts).items():
                row[f"{name}_{config.gsd * factor:g}m"] = round(value, 4)
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
        logits = network(x)
    loss = soft_cross_entropy(logits.float(), probs, weight)
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss.item()} at step {step + 1}; lower learning_rate, and look for "
            f"values that are no numbers in scenes and labels; the checkpoint before it is kept"
        )
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(loss.item())


def _card(config: TrainConfig, normalization: Normalization) -> ModelCard:
    """The card of the model to be, made before training so that its errors come first."""
    try:
        return ModelCard(
            name=config.name,
            description=config.description,
            network=config.network,
            network_options=dict(config.network_options),
            bands=config.bands,
            classes=config.classes,
            gsd=config.gsd,
            gsd_range=config.gsd_range,
            normalization=normalization,
            plausible=config.plausible,
            license=config.license,
            provenance=config.provenance,
            **config.inference,
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
            place: round(
                agreement(_validate(network, normalization, scenes, 1.0, device))["agreement"], 4
            )
            for place, scenes in sorted(places.items())
        },
    }
    names = [c.name for c in config.classes]
    for factor in config.validation_gsds:
        counts = _validate(network, normalization, held_out, factor, device)
        hits = np.diag(counts)
        union = counts.sum(axis=0) + counts.sum(axis=1) - hits
        scores[f"at_{config.gsd * factor:g}m"] = {
            **{k: round(v, 4) for k, v in agreement(counts).items()},
            "iou": {
                name: round(float(h / u), 4)
                for name, h, u in zip(names, hits, union, strict=True)
                if u > 0
            },
        }
    return scores
