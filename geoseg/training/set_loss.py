"""The loss of labels that are sets of classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from geoseg.training.loss_parts import as_computable

__all__ = ["set_cross_entropy"]


def set_cross_entropy(logits: Tensor, probs: Tensor, pixel_weight: Tensor) -> Tensor:
    """Minus the logarithm of what the classes that a label leaves open have together.

    The classes left open are those with any share in the target. How the network deals its
    probability among them has no part in it, so of a label that names one class it is the
    cross-entropy, and of a target that leaves all open, such as a teacher's answer, it is 0.

    Args:
        logits: float (N, K, H, W).
        probs: float (N, K, H, W), the target: above 0 for the classes of the set.
        pixel_weight: float (N, H, W), 0 where there is no measurement or no target.

    Returns:
        A scalar, in nats, averaged over the weighted pixels; 0 where no pixel has weight.

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
    weight = pixel_weight * known
    return -(inside * weight).sum() / weight.sum().clamp_min(1e-6)
