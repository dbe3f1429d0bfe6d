"""What each pixel of a training scene should become, from labels or a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
import torch
from numpy.typing import NDArray
from torch import nn

from geoseg.card import ModelCard, read_model
from geoseg.data import SceneConfig, TrainingScene, add_haze, quiet, read_pixels
from geoseg.errors import SceneError, TrainingError
from geoseg.models import load_network
from geoseg.models.normalize import normalize
from geoseg.recipe import TrainConfig

__all__ = ["label_probs", "load_scene", "load_teacher", "teacher_probs"]


def load_teacher(config: TrainConfig, device: torch.device) -> tuple[ModelCard, nn.Module] | None:
    """Read a recipe's teacher.

    Args:
        config: the recipe.
        device: where the network shall be.

    Returns:
        Its card and network, or None where the recipe has no teacher.

    Raises:
        TrainingError: the teacher's classes are others, or it does not give softmax probabilities.
        ModelError: it can't be read.
    """
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


def teacher_probs(
    card: ModelCard, network: nn.Module, pixels: NDArray[np.float32], device: torch.device
) -> NDArray[np.float16]:
    """Ask a teacher about a whole scene.

    Args:
        card: the teacher's card; its activation must be softmax.
        network: in evaluation mode, on the device.
        pixels: float32 (C, H, W), in the card's quantity and band order.
        device: where the network is.

    Returns:
        float16 (K, H, W).
    """
    _, height, width = pixels.shape
    probs = np.empty((len(card.classes), height, width), np.float16)
    # Chips of the card's size, of which only what lies a margin inside counts; their places are
    # multiples of the card's multiple, and so are their sides except at the scene's end.
    halo = -(-card.margin // card.multiple) * card.multiple
    core = max(card.size // card.multiple * card.multiple - 2 * halo, card.multiple)
    for row in range(0, height, core):
        for col in range(0, width, core):
            top, left = max(row - halo, 0), max(col - halo, 0)
            bottom, right = min(row + core, height), min(col + core, width)
            chip = pixels[:, top : bottom + halo, left : right + halo]
            x = torch.from_numpy(np.ascontiguousarray(chip))[None].to(device)
            with torch.inference_mode():
                y = network(normalize(x, card.normalization)).softmax(dim=1)[0].cpu().numpy()
            probs[:, row:bottom, col:right] = y[
                :, row - top : bottom - top, col - left : right - left
            ]
    return probs


def label_probs(
    path: Path, ids: Sequence[int], ignore: int, shape: tuple[int, int]
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Read a label raster as probabilities of 0 and 1.

    Args:
        path: one band of class ids.
        ids: the classes' ids, in the model's order.
        ignore: the id that says nothing.
        shape: (H, W) of the scene.

    Returns:
        (float16 (K, H, W), bool (H, W): True where there is a label).

    Raises:
        TrainingError: the raster has another shape, or ids that are no class.
        SceneError: it can't be read.
    """
    try:
        with quiet(), rasterio.open(path) as dataset:
            labels: NDArray[Any] = dataset.read(1)
    except rasterio.errors.RasterioError as error:
        raise SceneError(f"the labels {path} can't be read: {error}") from error
    if labels.shape != shape:
        raise TrainingError(
            f"the labels {path} are {labels.shape[0]} x {labels.shape[1]} px and the scene is "
            f"{shape[0]} x {shape[1]}; labels lie on the scene's own grid"
        )
    known = np.isin(labels, ids)
    stray = np.unique(labels[~known & (labels != ignore)])
    if stray.size:
        raise TrainingError(
            f"the labels {path} hold {stray[:8].tolist()}, which are neither classes {list(ids)} "
            f"nor the ignored {ignore}; mend classes or ignore_label"
        )
    return np.stack([labels == i for i in ids]).astype(np.float16), known
