"""A teacher: a model whose answers are learned where there are no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geoseg.cards.card import ModelCard
from geoseg.errors import TrainingError
from geoseg.networks import load_network
from geoseg.networks.normalize import normalize
from geoseg.runtimes import Runtime, checked, load_runtime
from geoseg.scene.radiometry import Radiometry
from geoseg.training.recipe import TrainConfig
from geoseg.training.scenes import TrainingScene, squares
from geoseg.training.split import MARGIN, TRAIN, VALIDATION
from geoseg.zoo import find_model

__all__ = ["Teacher", "load_teacher", "teach", "view_of"]


#: Views of which each is another one: four phases, four turns, and their mirror images.
MOST_VIEWS = 32


class View(NamedTuple):
    """One way to show a chip to a network: moved, turned and mirrored.

    A network that halves its input answers otherwise where the chip begins a pixel later, and one
    that was taught with all turns still answers a little otherwise for each. None of that is of the
    ground.

    Attributes:
        down: px by which the chip is moved, 0 or 1.
        right: the same to the right.
        turns: quarter turns, 0 to 3.
        flip: whether it is mirrored after that.
    """

    down: int
    right: int
    turns: int
    flip: bool

    def of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Show a chip: (C, H, W) -> (C, H + 2, W + 2), or with the sides changed by a turn.

        All views have the same size, since a runtime is compiled for one. Odd sides become even, or
        a turn would change the phase.
        """
        more = [2 + side % 2 for side in values.shape[1:]]
        around = ((0, 0), (self.down, more[0] - self.down), (self.right, more[1] - self.right))
        turned = np.rot90(np.pad(values, around, mode="symmetric"), self.turns, (1, 2))
        return np.ascontiguousarray(turned[..., ::-1] if self.flip else turned)

    def undo(self, answer: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        """Bring what was answered for a view back onto the chip: (K, height, width)."""
        straight = np.rot90(answer[..., ::-1] if self.flip else answer, -self.turns, (1, 2))
        rows, cols = slice(self.down, self.down + height), slice(self.right, self.right + width)
        return np.asarray(straight[:, rows, cols], np.float32)


def view_of(number: int) -> View:
    """Make one of :data:`MOST_VIEWS` views; four in a row have all phases, each turned otherwise.

    Args:
        number: from 0.

    Examples:
        >>> sorted(view_of(n)[:3] for n in range(4))
        [(0, 0, 0), (0, 1, 2), (1, 0, 1), (1, 1, 3)]
        >>> len({view_of(n) for n in range(MOST_VIEWS)})
        32
    """
    phase, rest = number % 4, number // 4
    return View(phase % 2, phase // 2, (phase + rest // 2) % 4, rest % 2 == 1)


@dataclass(frozen=True)
class Teacher:
    """A model whose probabilities are learned.

    Attributes:
        card: its card.
        network: in evaluation mode, on the device.
        device: where it is.
        runtime: the same network, fastest for chips of one size.
        side: that size, px.
        views: how many answers are averaged, see :func:`view_of`.
    """

    card: ModelCard
    network: nn.Module
    device: torch.device
    runtime: Runtime
    side: int
    views: int = 1

    def probs(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Ask for the probabilities of a chip: the mean over all views of it.

        Args:
            values: float32 (C, H, W), in its quantity and band order.

        Returns:
            float32 (K, H, W).
        """
        if self.views == 1:
            return self._answer(values)
        total = np.zeros((len(self.card.classes), *values.shape[1:]), np.float32)
        for view in map(view_of, range(self.views)):
            total += view.undo(self._answer(view.of(values)), *values.shape[1:])
        return np.asarray(total / self.views, np.float32)

    def _answer(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Ask once."""
        if values.shape[1:] == (self.side, self.side):
            answers = self.runtime.to_numpy(checked.probs(self.runtime, values[None]))
            return np.asarray(answers[0], np.float32)
        x = torch.from_numpy(np.ascontiguousarray(values))[None].to(self.device)
        with torch.inference_mode():
            logits = self.network(normalize(x, self.card.normalization)) / self.card.temperature
            probs: NDArray[np.float32] = logits.float().softmax(dim=1)[0].cpu().numpy()
        return probs


def load_teacher(config: TrainConfig, device: torch.device) -> Teacher | None:
    """Read a recipe's teacher.

    Args:
        config: the recipe.
        device: where the network shall be.

    Returns:
        The teacher, or None where the recipe has none.

    Raises:
        TrainingError: its classes or quantity are others, or it gives no softmax probabilities.
        ModelError: it can't be read.
    """
    if config.teacher is None:
        return None
    model = find_model(config.teacher)
    card = model.card
    theirs, ours = [c.name for c in card.classes], [c.name for c in config.classes]
    if theirs != ours:
        raise TrainingError(
            f"the teacher's classes are {theirs} and the recipe's are {ours}; they must be the "
            f"same, in the same order"
        )
    if card.activation != "softmax":
        raise TrainingError(
            f"the teacher's activation is {card.activation!r}; only softmax can be learned"
        )
    if card.quantity != config.quantity:
        raise TrainingError(
            f"the teacher takes {card.quantity} and the recipe {config.quantity}; make them alike"
        )
    network = load_network(model).to(device).to(memory_format=torch.channels_last)
    side, bands = config.chip + 2 * config.teacher_halo, len(card.bands)
    views = config.teacher_views
    side += 2 if views > 1 else 0
    runtime = load_runtime(
        model,
        Radiometry((1.0,) * bands, (0.0,) * bands, "the recipe"),
        # Not by trial: the same seed shall give the same weights.
        precision="fp32",
        device=str(device),
        threads=1,
        sample=lambda: [np.zeros((bands, side, side), np.float32)],
        chips=views
        * config.steps
        * (config.fresh if config.pool else config.batch * config.accumulate),
    )
    return Teacher(card, network, device, runtime, side, views)


def teach(scene: TrainingScene, teacher: Teacher, bands: Sequence[int]) -> None:
    """Fill in a teacher's most likely class where no label is, in place.

    It is what drawing is balanced by, and what the held-out side is compared with.

    Args:
        scene: all bands that the teacher needs are among its own.
        teacher: to be asked.
        bands: places of the teacher's bands in the scene.
    """
    card = teacher.card
    halo = min(max(card.margin, card.overlap // 2), card.size // 4)
    for core, window in squares(scene.shape, card.size, halo):
        cut = scene.cut(window.rows, window.cols, (TRAIN, VALIDATION, MARGIN), bands)
        if cut is None:
            continue
        inner = np.s_[
            core.row - window.row : core.bottom - window.row,
            core.col - window.col : core.right - window.col,
        ]
        probs = teacher.probs(cut[0])[:, *inner]
        place = np.s_[core.rows, core.cols]
        answered = scene.measured[place] & ~scene.labelled[place]
        scene.target[place] = np.where(answered, probs.argmax(axis=0), scene.target[place])
        scene.sure[place] = answered & (probs.max(axis=0) > 0.5)
