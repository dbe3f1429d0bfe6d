"""What the losses have in common: float32, checked labels, class weights, means.

Logits are float (N, K, H, W), labels integer (N, H, W), ``ignore_index`` where nothing is known.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from geoseg.errors import TrainingError

__all__ = [
    "as_computable",
    "minus_log_p",
    "one_hot_targets",
    "truth_of",
    "weighted_mean",
    "weights_or_ones",
]


def as_computable(logits: Tensor) -> Tensor:
    """Turn half precision into float32, in which sums keep their digits; leave other floats."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def truth_of(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Check labels, and separate them from where they say nothing.

    Args:
        logits: float (N, K, H, W), whose shape the labels must fit.
        labels: integer (N, H, W), 0 to K - 1 or ``ignore_index``.
        ignore_index: the label that says nothing.

    Returns:
        (int64 (N, H, W), the labels with 0 where they are ignored; bool (N, H, W), False there).

    Raises:
        TrainingError: shapes do not fit, or a label is no class.
    """
    if logits.ndim != 4 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise TrainingError(
            f"the logits have the shape {tuple(logits.shape)} and the labels "
            f"{tuple(labels.shape)}; they must be (N, K, H, W) and (N, H, W)"
        )
    known = labels != ignore_index
    truth = labels.long().masked_fill(~known, 0)
    classes = logits.shape[1]
    stray = (truth < 0) | (truth >= classes)
    if stray.any():
        raise TrainingError(
            f"the labels hold {sorted(set(truth[stray].tolist()))[:8]}; they must be 0 to "
            f"{classes - 1}, or {ignore_index} where they say nothing"
        )
    return truth, known


def one_hot_targets(truth: Tensor, known: Tensor, like: Tensor) -> Tensor:
    """Turn :func:`truth_of`'s labels into 0 and 1, (N, K, H, W); all 0 where one is ignored."""
    return torch.zeros_like(like).scatter_(1, truth[:, None], known[:, None].to(like))


def minus_log_p(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Compute -log p of the labelled class, (N, H, W); 0 where the label is ignored."""
    # -100 is what torch ignores by default.
    return F.cross_entropy(logits, truth.masked_fill(~known, -100), reduction="none")


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Average values by weight; 0 where there is no weight, so also where there is no value."""
    return (weights * values).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)


def weights_or_ones(weight: Tensor | None, logits: Tensor) -> Tensor:
    """Bring K class weights to the logits' dtype and device; None stands for ones.

    Raises:
        TrainingError: there is not one weight a class.
    """
    classes = logits.shape[1]
    if weight is None:
        return logits.new_ones(classes)
    if weight.shape != (classes,):
        raise TrainingError(
            f"there are {weight.numel()} class weights and {classes} classes; give one number a "
            f"class"
        )
    return weight.to(logits)
