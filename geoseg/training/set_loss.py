"""The loss of labels that are sets of classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from geoseg.training.loss_parts import as_computable, weights_or_ones

__all__ = ["set_cross_entropy", "set_dice"]


def set_cross_entropy(
    logits: Tensor, probs: Tensor, pixel_weight: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """Minus the logarithm of what the classes that a label leaves open have together.

    The classes left open are those with any share in the target. How the network deals its
    probability among them has no part in it, so of a label that names one class it is the
    cross-entropy, and of a target that leaves all open, such as a teacher's answer, it is 0.

    Args:
        logits: float (N, K, H, W).
        probs: float (N, K, H, W), the target: above 0 for the classes of the set.
        pixel_weight: float (N, H, W), 0 where there is no measurement or no target.
        weight: float (K,), of the classes; a set counts as much as its classes on average, by their
            shares in the target. None counts all alike.

    Returns:
        A scalar, in nats, averaged over the weighted pixels; 0 where no pixel has weight.

    Raises:
        TrainingError: there is not one weight a class.

    Examples:
        Of three classes alike, two are left open:

        >>> target = torch.tensor([0.5, 0.5, 0.0]).view(1, 3, 1, 1)
        >>> loss = set_cross_entropy(torch.zeros(1, 3, 1, 1), target, torch.ones(1, 1, 1))
        >>> round(float(loss), 4)
        0.4055
    """
    logits = as_computable(logits)
    known = (probs > 0).any(dim=1)
    # Without any class left open the sum would be that of nothing, and its gradient no number.
    closed = (probs <= 0) & known[:, None]
    inside = F.log_softmax(logits, dim=1).masked_fill(closed, -torch.inf).logsumexp(dim=1)
    total = pixel_weight * known
    if weight is not None:
        counts = (probs * weights_or_ones(weight, logits)[:, None, None]).sum(dim=1)
        total = total * counts / probs.sum(dim=1).clamp_min(1e-6)
    return -(inside * total).sum() / total.sum().clamp_min(1e-6)


def set_dice(logits: Tensor, probs: Tensor, pixel_weight: Tensor) -> Tensor:
    """One minus the soft Dice coefficient over the pixels whose label is one class.

    As :func:`geoseg.training.losses.dice` with ``present_only``: the mean over the classes that a
    pixel of the batch is labelled with. Of a pixel whose label leaves several classes open nobody
    knows which of them it belongs to, so it has no part.

    Args:
        logits: float (N, K, H, W).
        probs: float (N, K, H, W), the target: above 0 for the classes of the set.
        pixel_weight: float (N, H, W), 0 where there is no measurement or no target.

    Returns:
        A scalar, 0 to 1; 0 where no pixel's label is one class.

    Examples:
        Two classes are recognized without any doubt, and the third pixel says little:

        >>> target = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]).view(1, 2, 1, 3)
        >>> logits = torch.tensor([[9.0, -9.0, 0.0], [-9.0, 9.0, 0.0]]).view(1, 2, 1, 3)
        >>> round(float(set_dice(logits, target, torch.ones(1, 1, 3))), 4)
        0.0
    """
    logits = as_computable(logits)
    sure = ((probs > 0).sum(dim=1) == 1) * pixel_weight
    truth = (probs > 0).to(logits) * sure[:, None]
    found = logits.softmax(dim=1) * sure[:, None]
    axes = (0, 2, 3)
    labelled = truth.sum(dim=axes)
    hits = (found * truth).sum(dim=axes)
    loss = 1 - 2 * hits / (labelled + found.sum(dim=axes)).clamp_min(1e-6)
    present = labelled > 0
    return (loss * present).sum() / present.sum().clamp_min(1)
