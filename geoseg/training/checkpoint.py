"""What a run knows at a step, which is what its checkpoint holds."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geoseg.cards.card import ModelCard
from geoseg.evaluation.metrics import mean_iou
from geoseg.training.recipe import TrainConfig
from geoseg.training.scenes import TrainingScene
from geoseg.training.validation import judge

__all__ = ["RunState"]


class RunState:
    """What a run knows at a step.

    Attributes:
        step: how many steps were taken.
        losses: of the steps since the last validation.
        log: one row a validation.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        fabric: Any,
    ) -> None:
        """Begin before the first step.

        Args:
            config: the recipe.
            network: that learns; a copy of it becomes the average.
            optimizer: of the network.
            fabric: Lightning's.
        """
        self.step = 0
        self.losses: list[float] = []
        self.log: list[dict[str, float]] = []
        self._config = config
        self._network = network
        self._average = copy.deepcopy(network).eval()
        self._optimizer = optimizer
        self._fabric = fabric
        self._best: dict[str, Tensor] | None = None
        self._best_score = -math.inf
        self._best_step = 0

    def checkpoint(self) -> dict[str, Any]:
        """Gather what :meth:`load` needs: tensors, numbers and lists of them by name."""
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
        """Go back to where a checkpoint was made.

        Args:
            state: of :meth:`checkpoint`.
        """
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self._fabric._precision.load_state_dict(state["scaler"])
        self.step, self.losses, self.log = state["step"], state["losses"], state["log"]
        self._best = state.get("best")
        self._best_score, self._best_step = state["best_score"], state["best_step"]

    def advance(self, loss: float) -> None:
        """Count a step that was taken, and move the average towards the network.

        Args:
            loss: of the step.
        """
        self.losses.append(loss)
        _average(self._average, self._network, self._config.ema, self.step)
        self.step += 1

    def validate(
        self, scenes: Sequence[TrainingScene], card: ModelCard, learning_rate: float
    ) -> dict[str, float]:
        """Judge the average on the held-out side, and keep it where it is the best so far.

        Args:
            scenes: all of them, split.
            card: of the model to be.
            learning_rate: of the last step, for the log.

        Returns:
            The row that was added to the log.
        """
        config = self._config
        row = {"step": float(self.step), "loss": float(np.mean(self.losses))}
        row["learning_rate"] = learning_rate
        self.losses = []
        ious = []
        for factor in config.validation_gsds:
            found = judge(config, self._average, scenes, factor, card)
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
        """Say whether the last validations were no better than one before them."""
        patience = self._config.patience
        since = sum(1 for row in self.log if row["step"] > self._best_step)
        return patience > 0 and since >= patience

    def chosen(self) -> tuple[nn.Module, int]:
        """Choose the weights that become the model; gives them with their step."""
        if self._config.keep == "best" and self._best is not None:
            self._average.load_state_dict(self._best)
            return self._average, self._best_step
        return self._average, self.step


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
