"""Optimizers, schedules of the learning rate, and precisions of training, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["OPTIMIZERS", "SCHEDULES", "TRAINING_PRECISIONS"]


def _adamw(
    parameters: Iterable[dict[str, Any]], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)


def _sgd(
    parameters: Iterable[dict[str, Any]], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    # 0.9 is the momentum of FCN, DeepLab and PSPNet alike.
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=weight_decay)


#: Name in a recipe -> function of (parameter groups, learning rate, weight decay).
OPTIMIZERS: dict[str, Callable[[Iterable[dict[str, Any]], float, float], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
}


def _cosine(done: float) -> float:
    """Fall by half a cosine, Loshchilov and Hutter 2017 (https://arxiv.org/abs/1608.03983)."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _poly(done: float) -> float:
    """Fall with the power of Chen et al. 2017, DeepLabV2 (https://arxiv.org/abs/1606.00915)."""
    return float((1.0 - done) ** 0.9)


#: Name in a recipe -> function of the share of the steps after warm-up that are done, 0 to 1, that
#: gives the learning rate as a share of the highest.
SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": _cosine, "poly": _poly}


#: In a recipe -> what Lightning Fabric calls it.
TRAINING_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
