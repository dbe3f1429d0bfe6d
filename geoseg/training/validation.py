"""How well a network does on the held-out side, during training and for its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geoseg.cards.card import ModelCard
from geoseg.errors import TrainingError
from geoseg.evaluation.metrics import confusion, iou, mean_iou, pixel_accuracy
from geoseg.networks.normalize import normalize
from geoseg.training.augment import coarsen
from geoseg.training.held_out import held_out_windows
from geoseg.training.recipe import TrainConfig
from geoseg.training.scenes import TrainingScene, short_names
from geoseg.training.split import FINAL, MARGIN, VALIDATION

__all__ = ["Judgement", "by_group", "check_gsds", "judge", "scores_of"]


#: What is counted of a scene; see :class:`Judgement`.
Counted = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class Judgement:
    """Counts how a network does on the held-out side.

    Attributes:
        counts: int64 (K, K), all scenes together.
        scenes: by scene: its counts; of the pixels of which a teacher is sure (right, all); of
            those whose label is a set of classes (in the set, all).
    """

    def __init__(self, classes: int) -> None:
        """Begin with nothing counted.

        Args:
            classes: K.
        """
        self.counts = np.zeros((classes, classes), np.int64)
        self.scenes: dict[str, Counted] = {}

    def add(self, place: str, counted: Counted) -> None:
        """Count a window of a scene."""
        self.counts += counted[0]
        before = self.scenes.get(place)
        self.scenes[place] = counted if before is None else _together([before, counted])

    def summary(self) -> dict[str, float]:
        """Give the numbers that go to the log."""
        found = {
            "agreement": round(pixel_accuracy(self.counts), 4),
            "mean_iou": round(mean_iou(self.counts), 4),
        }
        if self.scenes:
            found |= _share_in_sets(_together(list(self.scenes.values())))
        return {**found, **self.by_scene()}

    def by_scene(self) -> dict[str, float]:
        """Average over scenes, for a teacher; empty without one."""
        sure = [s[0] / s[1] for _, s, _ in self.scenes.values() if s[1] > 0]
        if not sure:
            return {}
        every = [pixel_accuracy(counts) for counts, *_ in self.scenes.values() if counts.any()]
        return {
            "scene_agreement": round(float(np.mean(every)), 4),
            "scene_agreement_where_sure": round(float(np.mean(sure)), 4),
        }


def _together(parts: Sequence[Counted]) -> Counted:
    """Add what was counted."""
    counts, sure, in_sets = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
    return counts, sure, in_sets


def _measured(scores: Mapping[str, float]) -> dict[str, float]:
    """Leave out the scores of nothing: where all labels are sets, no class of a pixel is known."""
    return {name: value for name, value in scores.items() if not np.isnan(value)}


def _share_in_sets(counted: Counted) -> dict[str, float]:
    """Give the share of the labels that are sets whose pixels lie in these; empty without."""
    inside, every = counted[2]
    return {"in_sets": round(float(inside / every), 4)} if every else {}


def judge(
    config: TrainConfig,
    network: nn.Module,
    scenes: Sequence[TrainingScene],
    factor: float,
    card: ModelCard,
    side: int = VALIDATION,
) -> Judgement:
    """Predict the held-out side made ``factor`` times coarser, and count.

    Args:
        config: the recipe.
        network: in evaluation mode.
        scenes: all of them, split.
        factor: multiple of the gsd, 1 and more.
        card: of the network: its normalization, and size and overlap of chips.
        side: which of the held-out sides.
    """
    classes, device = len(config.classes), next(network.parameters()).device
    found, members = Judgement(classes), config.members()
    for held in _held_out(config, scenes, factor, card, side):
        x = normalize(held.pixels[None].to(device), card.normalization)
        with torch.inference_mode():
            logits = network(x.contiguous(memory_format=torch.channels_last))
        predicted = logits[0].argmax(dim=0).cpu().numpy()
        right, in_sets = np.zeros((2, 2), np.int64)
        if factor == 1.0:
            right[:] = (predicted == held.truth)[held.sure].sum(), held.sure.sum()
            of_sets = held.sets > 0
            inside = members[held.sets, predicted] > 0
            in_sets[:] = inside[of_sets].sum(), of_sets.sum()
        truth = held.truth[held.keep].astype(np.int64)
        counts = confusion(truth, predicted[held.keep], classes, ignore_index=None)
        found.add(str(held.scene.config.path), (counts, right, in_sets))
    return found


def _by_labels(scenes: Sequence[TrainingScene], side: int = VALIDATION) -> bool:
    """Say whether something held out is labelled: a teacher's answers judge nothing then."""
    return any(
        (scene.usable(rows, side) & scene.labelled[rows]).any()
        for scene in scenes
        if scene.config.has_labels
        for rows in scene.strips()
    )


class _HeldOut(NamedTuple):
    """A window of the held-out side.

    Attributes:
        scene: where it lies.
        pixels: float32 (C, H, W), physical values.
        truth: (H, W), places in the legend.
        keep: bool (H, W), True where the network is judged.
        sure: bool, True where a teacher is sure; at the scene's own gsd only.
        sets: uint8, number of the set that the label is, 0 where it is none.
    """

    scene: TrainingScene
    pixels: Tensor
    truth: NDArray[Any]
    keep: NDArray[np.bool_]
    sure: NDArray[np.bool_]
    sets: NDArray[np.uint8]


def _held_out(
    config: TrainConfig,
    scenes: Sequence[TrainingScene],
    factor: float,
    card: ModelCard,
    side: int = VALIDATION,
) -> Iterator[_HeldOut]:
    """Yield the held-out side made ``factor`` times coarser, window by window."""
    halo = min(max(card.margin, card.overlap // 2), card.size // 4)
    legend = np.arange(len(config.classes), dtype=np.uint8)[:, None, None]
    by_groups = config.split.by == "groups"
    by_labels = _by_labels(scenes, side)
    for scene in scenes:
        if by_groups:
            # One labelled scene must not be all that a whole group is judged by.
            by_labels = _by_labels([scene], side)
        for core, window in held_out_windows(scene, card.size, halo, side):
            inside = np.zeros((window.height, window.width), bool)
            row, col = core.row - window.row, core.col - window.col
            inside[row : row + core.height, col : col + core.width] = True
            valid = inside & scene.usable(window.rows, side)[:, window.cols]
            sets = np.zeros(valid.shape, np.uint8)
            if scene.sets is not None:
                # What a set's target is, nobody has seen.
                sets = np.where(valid, scene.sets[window.rows, window.cols], sets)
                valid &= sets == 0
            if by_labels:
                valid &= scene.labelled[window.rows, window.cols]
            # Held-out pixels and the margin around them may be seen.
            cut = scene.cut(window.rows, window.cols, (side, MARGIN), slice(len(config.bands)))
            if cut is None or not (valid | (sets > 0)).any():
                continue
            target = scene.target[window.rows, window.cols]
            sure = scene.sure[window.rows, window.cols] & valid
            pixels = torch.from_numpy(cut[0])
            truth, keep = target, valid
            if factor != 1.0:
                size = max(round(window.height / factor), 1), max(round(window.width / factor), 1)
                probs = torch.from_numpy((target[None] == legend).astype(np.float32))
                pixels, probs, known = coarsen(pixels, probs, torch.from_numpy(valid), size)
                truth, keep = probs.argmax(dim=0).numpy(), known.numpy()
            yield _HeldOut(scene, pixels, truth, keep, sure, sets)


def check_gsds(config: TrainConfig, scenes: Sequence[TrainingScene], card: ModelCard) -> None:
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


def by_group(found: Judgement, scenes: Sequence[TrainingScene]) -> dict[str, dict[str, float]]:
    """Give each group's scores: ``agreement`` and ``mean_iou``.

    With a teacher there is ``where_sure``, too, and with labels that are sets ``in_sets``.

    Args:
        found: what was counted.
        scenes: all of them.
    """
    groups: dict[str, list[Counted]] = {}
    paths = {str(scene.config.path): scene.config.group for scene in scenes}
    for path, counted in found.scenes.items():
        groups.setdefault(paths[path], []).append(counted)
    scores: dict[str, dict[str, float]] = {}
    for group, parts in groups.items():
        counts, sure, _ = together = _together(parts)
        scores[group] = _measured(
            {
                "agreement": round(pixel_accuracy(counts), 4),
                "mean_iou": round(mean_iou(counts), 4),
            }
        )
        if sure[1] > 0:
            scores[group]["where_sure"] = round(float(sure[0] / sure[1]), 4)
        scores[group] |= _share_in_sets(together)
    return scores


def scores_of(
    config: TrainConfig,
    network: nn.Module,
    scenes: Sequence[TrainingScene],
    card: ModelCard,
) -> dict[str, Any]:
    """Judge a network, and write down what its card says about the held-out side.

    Args:
        config: the recipe.
        network: in evaluation mode.
        scenes: all of them, split.
        card: of the network, still without scores.
    """
    scores: dict[str, Any] = {
        "split": f"by {config.split.by}"
        + (
            ""
            if config.split.by in ("scenes", "groups")
            else f", part {config.split.fold} of {config.split.folds} held out"
        ),
        "compared_with": "labels in scenes that have some, else the teacher's most likely class"
        if config.split.by == "groups" and config.teacher is not None
        else "labels"
        if _by_labels(scenes)
        else "the teacher's most likely class, which is no ground truth",
    }
    if config.keep == "best":
        scores["chosen"] = "the step that did best on these same held-out pixels, which flatters"
    for factor in config.validation_gsds:
        found = judge(config, network, scenes, factor, card)
        scores.setdefault("held_out_pixels", int(found.counts.sum()))
        entry: dict[str, Any] = {
            **_measured(found.summary()),
            "iou": _measured(
                {
                    c.name: round(float(value), 4)
                    for c, value in zip(config.classes, iou(found.counts), strict=True)
                }
            ),
        }
        if factor == 1.0 and 1 < len(found.scenes) <= 50:
            entry["agreement_by_scene"] = _measured(
                {
                    name: round(pixel_accuracy(found.scenes[path][0]), 4)
                    for path, name in short_names(scenes).items()
                    if path in found.scenes
                }
            )
        if factor == 1.0 and config.split.by == "groups":
            entry["by_group"] = by_group(found, scenes)
        scores[f"at_{config.gsd * factor:g}m"] = entry
    if config.split.left_out:
        found = judge(config, network, scenes, 1.0, card, FINAL)
        scores["left_out"] = {**found.summary(), "by_group": by_group(found, scenes)}
    return scores
